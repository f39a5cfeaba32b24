"""What a list of projects shows: search, filters, order and page, all of it in the address."""

from collections.abc import Mapping
from urllib.parse import urlencode

import msgspec
from starlette.datastructures import QueryParams
from starlette.exceptions import HTTPException

from initializer.catalog.catalog import Template
from initializer.model.progress import Status
from initializer.projects.projects import Order

__all__ = ["MAX_ROWS_ASKED", "Listing", "asked_rows"]

MAX_PAGE = 100_000
MAX_SEARCH_CHARACTERS = 63
MAX_ROWS_ASKED = 20
"""How many rows a page may ask for at once; a page of the list has no more."""


class Listing(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for. An empty value, the newest first and page 1 are no part of the address."""

    search: str = ""
    status: Status | None = None
    template: str = ""
    order: Order = Order.NEWEST
    page: int = 1

    @classmethod
    def of(cls, query: QueryParams, catalog: Mapping[str, Template]) -> "Listing":
        """What an address asks for. Raises `HTTPException` 400 where there is no such thing."""
        template = query.get("template", "")
        if template and template not in catalog:
            raise HTTPException(400, "There is no such template.")
        return cls(
            search=query.get("q", "").strip()[:MAX_SEARCH_CHARACTERS],
            status=_status(query.get("status", "")),
            template=template,
            order=_order(query.get("sort", "")),
            page=_page_number(query.get("page", "1")),
        )

    @property
    def is_filtered(self) -> bool:
        """Whether projects may be left out."""
        return bool(self.search or self.status or self.template)

    def url(self, page: int) -> str:
        """The address of another page of the same list."""
        order = self.order.value if self.order is not Order.NEWEST else ""
        asked = {
            "q": self.search,
            "status": self.status or "",
            "template": self.template,
            "sort": order,
            "page": str(page) if page > 1 else "",
        }
        query = urlencode({name: value for name, value in asked.items() if value})
        return f"/?{query}" if query else "/"


def asked_rows(query: QueryParams) -> list[str]:
    """The ids of the rows that a page asks for, a bounded number of them."""
    return query.getlist("id")[:MAX_ROWS_ASKED]


def _status(text: str) -> Status | None:
    try:
        return Status(text) if text else None
    except ValueError:
        raise HTTPException(400, "There is no such state.") from None


def _order(text: str) -> Order:
    try:
        return Order(text) if text else Order.NEWEST
    except ValueError:
        raise HTTPException(400, "There is no such order.") from None


def _page_number(text: str) -> int:
    is_number = text.isascii() and text.isdigit() and len(text) <= len(str(MAX_PAGE))
    if is_number and 1 <= int(text) <= MAX_PAGE:
        return int(text)
    raise HTTPException(400, "There is no such page.")
