"""English that is written elsewhere and said in the reader's language: the ids of its messages."""

__all__ = ["N_", "PATTERNS", "PLAIN"]


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
    # Kinds of resources
    "Repository", "Branch", "Environment", "GitOps folder",
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
    # Titles of errors, and what HTTP says of some
    "Bad Request", "Forbidden", "Not Found", "Method Not Allowed", "Request Timeout",
    "Request Entity Too Large", "Content Too Large", "Unsupported Media Type",
    "Internal Server Error", "Bad Gateway", "Service Unavailable",
    "Bad request syntax or unsupported method",
    "Request timed out; try again later",
    "Entity body in unsupported format",
    "Invalid responses from another server/proxy",
)  # fmt: skip

PATTERNS = (
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
    "the database did not answer: %(error)s",
    "poll takes whole seconds from %(low)s to %(high)s.",
)
