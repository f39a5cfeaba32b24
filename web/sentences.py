"""English that is written elsewhere and said in the reader's language: the ids of its messages."""

__all__ = ["N_", "PATTERNS", "PLAIN", "SENTENCES"]


def N_(message: str) -> str:  # noqa: N802 - gettext's name for it
    """Mark a message that is translated where it is shown."""
    return message


PLAIN = (
    # States of runs and of steps
    "Queued", "Initialising", "Saving", "Cancelling", "Ready", "Failed", "Cancelled",
    "pending", "running", "completed", "failed", "skipped", "cancelled",
    # What can be done to a run, and why not
    "Cancel", "Retry", "Restart",
    "The run has ended already, so there is nothing to cancel.",
    "The project is ready, so there is nothing to do again.",
    "The run is still under way; cancel it first.",
    # Kinds of resources, as they are listed and within sentences
    "Repository", "Branch", "Environment", "GitOps folder",
    "repository", "branch", "environment", "gitops",
    # Problems of a form
    "1 to 63 characters, with at least one letter or digit.",
    "1 to 30 lower-case letters, digits and dashes, beginning and ending with a letter or digit.",
    "Give the project a name.",
    "The name holds a control character; type it again.",
    "A description is one line of text.",
    "Choose at least one environment.",
    "Name each environment once.",
    "Choose one of the templates.",
    "Choose Flux or Argo CD.",
    "The form is incomplete; load it again.",
    # What the built-in steps say that they do
    "Looking", "Creating", "Adding files", "Adding manifests", "Fetching", "Writing",
    "Cloning", "Files", "Manifests", "Tests",
    "The repository exists",
    "Looking at the repository",
    "The template is pushed",
    "The environments are in the repository",
    "Looking for the GitOps repository",
    "Fetching the GitOps repository",
    "GitOps knows the project",
    "Cloning the repository",
    "Cloning the GitOps repository",
    "Checking that every file is there",
    "Checking the manifests",
    "Running the template's own tests",
    "Everything is as it should be",
    "Looking for everything that was made",
    "The project is ready",
    # Why they fail
    "the repository", "the GitOps repository",
    "the repository does not have the commit of its template",
    "the repository does not have the commit of its environments",
    "its outputs are no JSON object",
    "the worker stopped three times here",
    "no space is left on the disk of the database; make room there",
    "no space is left on this server's disk; make room there, then retry",
    # Titles of errors, and what HTTP says of some
    "Bad Request", "Forbidden", "Not Found", "Method Not Allowed", "Request Timeout",
    "Request Entity Too Large", "Content Too Large", "Unsupported Media Type",
    "Internal Server Error", "Bad Gateway", "Service Unavailable",
    "Bad request syntax or unsupported method",
    "Request timed out; try again later",
    "Entity body in unsupported format",
    "Invalid responses from another server/proxy",
)  # fmt: skip

SENTENCES = frozenset({"error", "kind", "reason", "rule", "step", "template", "where"})
"""Places of patterns that hold such English again; what stands in all others is told as it is."""

PATTERNS = (
    # What the built-in steps say that they do
    "Looking for a repository named %(name)s",
    "Creating the repository %(name)s",
    "Rendering the template %(template)s",
    "Adding files: %(name)s",
    "Adding manifests: %(name)s",
    "Writing %(count)s manifests",
    "Writing %(count)s files to %(folder)s",
    "Found the %(kind)s %(name)s",
    # Why they fail; the first that fits is taken
    "the template's own tests failed: %(error)s",
    "%(step)s failed: %(error)s",
    "the place of %(name)s, which all projects share, is taken by a repository that was not made here; "
    "move it away",
    "a repository named %(name)s exists already and was not made by this project; choose another name",
    "the name %(name)s is kept for the repository that all projects share",
    "the repository %(name)s has commits that this project did not make",
    "the template %(name)s has changed since this project was created; "
    "create the project under another name to start from the new version",
    "there is no template %(name)s; there are %(names)s",
    "%(name)s cannot be the name of a repository",
    "%(name)s cannot be the id of a project",
    "the journal of run %(run)s is damaged: %(words)s",
    "there was nothing to commit for “%(title)s”: the repository has these files already",
    "the folder %(folder)s of the GitOps repository was made for another project; choose another name",
    "the file %(name)s is a link that points out of its repository",
    "the file %(name)s would lie outside of its repository",
    "the repository lacks %(names)s of its template",
    "%(where)s lacks %(names)s",
    "%(where)s has other text in %(names)s than this run wrote",
    "the folder %(folder)s of the GitOps repository is not as this run left it; "
    "restart the run to write it anew",
    "1 problem in the manifests of %(where)s: %(problems)s",
    "%(count)s problems in the manifests of %(where)s: %(problems)s",
    "the %(kind)s %(name)s, which this run made, is gone",
    "this version has no step called %(name)s",
    "it did not end within %(seconds)s s",
    "an unexpected error (%(name)s); see the server's log for %(run)s",
    "%(program)s could not be started: there is no such program",
    "%(program)s did not end within %(seconds)s s and was stopped",
    "%(program)s was ended by signal %(number)s: %(words)s",
    "%(program)s was ended by signal %(number)s",
    "%(program)s ended with exit status %(number)s: %(words)s",
    "%(program)s ended with exit status %(number)s",
    "%(program)s was refused: %(words)s",
    # Problems of a form
    "A name has %(rule)s",
    "An environment's name has %(rule)s",
    "%(slug)s is reserved for the platform itself; choose another name.",
    "There is a project called %(slug)s already; choose another name.",
    "This form has made the project %(slug)s already; load it again to make another one.",
    "A description has at most %(count)s characters.",
    "A project has at most %(count)s environments.",
    "Nothing was created: %(reason)s.",
    "Nothing was begun: %(reason)s.",
    "%(count)s projects are waiting already; try again in a few minutes",
    "this server is about to stop; try again in a moment",
    "the database did not answer: %(words)s",
    "the database is damaged (%(words)s); put a sound copy in its place",
    "poll takes whole seconds from %(low)s to %(high)s.",
)
