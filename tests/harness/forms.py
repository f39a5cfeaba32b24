"""The create form as a browser sends it."""

import secrets
from typing import Any

__all__ = ["filled_form"]


def filled_form(**values: Any) -> dict[str, Any]:
    """A form that can be done, with a key of its own; `values` are laid over it."""
    return {
        "key": secrets.token_urlsafe(24),
        "name": "Demo",
        "description": "",
        "template": "bare",
        "environments": ["staging"],
        "own_environments": "",
        "gitops": "flux",
        **values,
    }
