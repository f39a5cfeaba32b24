"""The create form, read from a request body that may hold anything."""

import secrets
from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.datastructures import FormData, QueryParams
from starlette.exceptions import HTTPException
from starlette.requests import Request

from initializer.catalog.catalog import Template
from initializer.creation import MAX_ENVIRONMENTS, ProjectRequest, name_problem
from initializer.model.names import NAME_RULE, slug_of

__all__ = ["SUGGESTED_ENVIRONMENTS", "form_of", "form_values", "read_form"]

SUGGESTED_ENVIRONMENTS = ("development", "staging", "production")
MAX_FIELDS = 30


async def read_form(request: Request) -> ProjectRequest:
    """What the form asks for, unchecked. Raises `HTTPException` 400 or 415 where it is no form."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip()
    if media_type not in ("application/x-www-form-urlencoded", "multipart/form-data"):
        raise HTTPException(415, "Send the form as application/x-www-form-urlencoded or multipart/form-data.")
    async with request.form(max_files=0, max_fields=MAX_FIELDS) as form:
        return _request_of(form)


def form_of(query: QueryParams) -> ProjectRequest:
    """The form as an address fills it in, with a key of its own; what it leaves out is as at first."""
    asked = _request_of(query)
    return msgspec.structs.replace(
        asked,
        environments=asked.environments or SUGGESTED_ENVIRONMENTS,
        gitops=asked.gitops or "flux",
        key=secrets.token_urlsafe(24),
    )


def form_values(
    asked: ProjectRequest, problems: Mapping[str, str], *, catalog: Mapping[str, Template], public_url: str
) -> dict[str, Any]:
    """What the form's template needs to show a request with its problems."""
    own = [name for name in asked.environments if name not in SUGGESTED_ENVIRONMENTS]
    return {
        "values": asked,
        "problems": dict.fromkeys((*_FIELDS, "form"), "") | dict(problems),
        "request_key": asked.key or secrets.token_urlsafe(24),
        "own_environments": ", ".join(own),
        "templates": list(catalog.values()),
        "name_rule": NAME_RULE,
        **slug_values(asked.name, public_url=public_url),
    }


def slug_values(name: str, *, public_url: str) -> dict[str, str]:
    """What is shown below the name while one types."""
    slug = slug_of(name)
    return {
        "slug": slug,
        "slug_problem": name_problem(name) if name.strip() else "",
        "clone_url": f"{public_url}/git/{slug}.git",
    }


_FIELDS = ("name", "description", "template", "environments", "gitops", "key")


def _request_of(form: FormData | QueryParams) -> ProjectRequest:
    own = [name.strip() for name in _text(form, "own_environments").split(",")]
    chosen = [*map(str, form.getlist("environments")), *filter(None, own)]
    return ProjectRequest(
        name=_text(form, "name").strip(),
        description=_text(form, "description").strip(),
        template=_text(form, "template"),
        environments=tuple(dict.fromkeys(chosen))[: MAX_ENVIRONMENTS + 1],
        gitops=_text(form, "gitops"),
        key=_text(form, "key"),
    )


def _text(form: FormData | QueryParams, field: str) -> str:
    value = form.get(field, "")
    return value if isinstance(value, str) else ""
