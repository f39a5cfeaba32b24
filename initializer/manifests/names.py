"""What things are called in a cluster. Names there are DNS labels of at most 63 characters (RFC 1123)."""

import hashlib

__all__ = ["environment_name", "resource_name"]

MAX_LABEL_CHARACTERS = 63
_DIGEST_CHARACTERS = 8


def environment_name(slug: str, environment: str) -> str:
    """The name of one environment of one project: its namespace, and what GitOps tools call it.

    `{slug}-{environment}`. Where that is too long, or the environment has a dash (`a` with `b-c` would be
    called what `a-b` with `c` is), a digest of the slug stands between them and keeps the two apart.
    """
    return _fitting(slug, f"-{environment}", is_ambiguous="-" in environment)


def resource_name(slug: str) -> str:
    """The name of the project's objects in its namespace.

    The slug, or `app-{slug}` where it begins with a digit: a Service may not (RFC 1035).
    """
    return slug if slug[:1].isalpha() else _fitting(f"app-{slug}")


def _fitting(slug: str, ending: str = "", *, is_ambiguous: bool = False) -> str:
    limit = MAX_LABEL_CHARACTERS - len(ending)
    if len(slug) <= limit and not is_ambiguous:
        return f"{slug}{ending}"
    digest = hashlib.sha256(slug.encode()).hexdigest()[:_DIGEST_CHARACTERS]
    kept = slug[: limit - len(digest) - 1].rstrip("-")
    return f"{kept}-{digest}{ending}"
