"""What a project and its environments may be called."""

import re

from anyascii import anyascii

__all__ = [
    "ENVIRONMENT_RULE",
    "MAX_NAME_CHARACTERS",
    "NAME_RULE",
    "RESERVED_SLUGS",
    "SLUG_PATTERN",
    "is_environment",
    "is_slug",
    "slug_of",
]

MAX_NAME_CHARACTERS = 63
NAME_RULE = "1 to 63 characters, with at least one letter or digit."
ENVIRONMENT_RULE = (
    "1 to 30 lower-case letters, digits and dashes, beginning and ending with a letter or digit."
)

SLUG_PATTERN = "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
"""A DNS label (RFC 1123, 2.1): it names a repository, a folder, a Kubernetes namespace and a service."""

RESERVED_SLUGS = frozenset(
    {"gitops", "new", "admin", "api", "default", "kube-system", "kube-public", "flux-system"}
)
"""Names that the platform itself needs on the forge, in URLs or in clusters."""

_SLUG = re.compile(SLUG_PATTERN)
_ENVIRONMENT = re.compile("[a-z0-9]([a-z0-9-]{0,28}[a-z0-9])?")


def slug_of(name: str) -> str:
    """The slug of a name: other scripts are spelled in ASCII, the rest becomes dashes; may be empty."""
    spelled = anyascii(name).lower()
    return re.sub("[^a-z0-9]+", "-", spelled).strip("-")[:63].rstrip("-")


def is_slug(text: str) -> bool:
    """Whether text is a slug as a whole."""
    return _SLUG.fullmatch(text) is not None


def is_environment(text: str) -> bool:
    """Whether text may name an environment: a DNS label with room for the project's slug beside it."""
    return _ENVIRONMENT.fullmatch(text) is not None
