"""The languages of the pages: which one a request is answered in, and what is said in it.

The messages are gettext's: a catalog of text for each language (`locales/`), the English sentences its ids.
They are read as they are, at start: nothing has to be compiled, and nothing compiled can be out of date.
"""

import gettext
import json
import re
from collections.abc import Iterator, Mapping
from enum import StrEnum
from functools import lru_cache
from urllib.parse import urlsplit

from starlette.requests import HTTPConnection, Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Match, Route

from web.assets import folder_of
from web.sentences import PATTERNS, SENTENCES

__all__ = [
    "VARY",
    "Catalog",
    "Language",
    "catalog_of",
    "language_of",
    "language_routes",
    "negotiate",
    "read_po",
]


class Language(StrEnum):
    """A language of the pages, by its tag (BCP 47)."""

    ENGLISH = "en"
    CHINESE = "zh-Hans"

    @property
    def own_name(self) -> str:
        """What its speakers call it."""
        return {Language.ENGLISH: "English", Language.CHINESE: "中文"}[self]


VARY = "accept-language, cookie, page-language"
"""What an answer in words depends on."""
COOKIE = "language"
_TAGS = frozenset(Language)
_YEAR_S = 365 * 24 * 3600
_MAX_RANGES = 32
MAX_KEPT_SENTENCES = 1000
"""How many sentences are kept with their translation: frames say the same ones again and again."""
_CONTEXT_END = "\x04"
_QUALITY = re.compile(r"q=(0(?:\.\d{0,3})?|1(?:\.0{0,3})?)", re.IGNORECASE)


class Catalog(gettext.NullTranslations):
    """The messages of a language; what it does not have is said in English."""

    def __init__(self, messages: Mapping[str, tuple[str, ...]]) -> None:
        super().__init__()
        self.messages = messages
        self._patterns = [(_pattern(each), each) for each in PATTERNS if each in messages]
        self.sentence = lru_cache(MAX_KEPT_SENTENCES)(self._sentence)
        """A sentence that the domain has written in English, with names and numbers in it."""

    def gettext(self, message: str) -> str:
        """A message as it is said."""
        return self.messages.get(message, (message,))[0]

    def ngettext(self, msgid1: str, msgid2: str, n: int) -> str:
        """A message about `n` things. No language here has more forms than English."""
        forms = self.messages.get(msgid1, (msgid1, msgid2))
        return forms[0] if n == 1 else forms[-1]

    def pgettext(self, context: str, message: str) -> str:
        """A message that means something of its own in a context."""
        return self.messages.get(f"{context}{_CONTEXT_END}{message}", (message,))[0]

    def _sentence(self, text: str) -> str:
        if text in self.messages:
            return self.gettext(text)
        for pattern, message in self._patterns:
            if found := pattern.fullmatch(text):
                values = found.groupdict()
                said = {name: self.sentence(values[name]) for name in SENTENCES & values.keys()}
                return self.gettext(message) % (values | said)
        return text


def catalog_of(language: Language) -> Catalog:
    """The catalog of a language; that of English is empty."""
    if language is Language.ENGLISH:
        return Catalog({})
    name = f"{language.replace('-', '_')}/LC_MESSAGES/messages.po"
    return Catalog(read_po((folder_of("locales") / name).read_text(encoding="utf-8")))


def read_po(text: str) -> dict[str, tuple[str, ...]]:
    """The messages of a PO file, each with its forms; what is not translated or fuzzy is left out.

    One with a context has it before its id, as in GNU's compiled catalogs. It takes what tools write of the
    format, but for octal escapes. Raises `ValueError`.
    """
    messages = {}
    for entry in re.split(r"\n\s*\n", text):
        parts: dict[str, str] = {}
        keyword = ""
        for line in entry.splitlines():
            if line.startswith("#"):
                if line.startswith("#,") and "fuzzy" in line:
                    break
                continue
            named, quote, rest = line.partition('"')
            keyword = named.strip() or keyword
            if not quote or (
                keyword not in ("msgctxt", "msgid", "msgid_plural", "msgstr") and not keyword[:7] == "msgstr["
            ):
                raise ValueError(f"not a line of a catalog: {line}")
            parts[keyword] = parts.get(keyword, "") + json.loads(quote + rest)
        else:
            forms = tuple(form for name, form in parts.items() if name.startswith("msgstr"))
            if parts.get("msgid") and all(forms):
                context = f"{parts['msgctxt']}{_CONTEXT_END}" if "msgctxt" in parts else ""
                messages[context + parts["msgid"]] = forms
    return messages


def language_of(connection: HTTPConnection) -> Language:
    """The language of who asks: of the open page, else as chosen, else as the browser says, else English.

    A page stays in its language until it is loaded anew, also where another tab has chosen another one. It
    says which by a header; a socket, which has none of its own, in its address.
    """
    of_page = connection.headers.get("page-language", connection.query_params.get("page-language", ""))
    for chosen in (of_page, connection.cookies.get(COOKIE, "")):
        if chosen in _TAGS:
            return Language(chosen)
    return negotiate(connection.headers.get("accept-language", ""))


def negotiate(accepted: str) -> Language:
    """The best of our languages for an `Accept-Language` (RFC 9110, 12.5.4): the first of most weight.

    Chinese of any script or region gets the Chinese that there is.
    """
    weights: dict[Language, float] = {}
    others = 0.0
    for tag, weight in sorted(_ranges(accepted), key=lambda each: -each[1]):
        primary = tag.lower().partition("-")[0]
        if primary == "*":
            others = max(others, weight)
        for language in Language:
            if language.partition("-")[0] == primary:
                weights.setdefault(language, weight)
    best = max(weights, key=lambda language: weights[language], default=Language.ENGLISH)
    if weights.get(best, 0) > 0 and weights[best] >= others:
        return best
    unnamed = [language for language in Language if language not in weights]
    return unnamed[0] if others and unnamed else best if weights.get(best, 0) > 0 else Language.ENGLISH


def language_routes() -> list[Route]:
    """The switch."""
    return [Route("/language", _switch)]


async def _switch(request: Request) -> Response:
    """Keep the choice, and go back to where it was made; any other choice changes nothing."""
    answer = RedirectResponse(_way_back(request), 303, headers={"cache-control": "no-store"})
    chosen = request.query_params.get("to", "")
    if chosen in _TAGS:
        answer.set_cookie(COOKIE, chosen, max_age=_YEAR_S, httponly=True, samesite="lax")
    return answer


def _way_back(request: Request) -> str:
    """A path of this server: `back`, else the page that the browser says it comes from, else the start.

    The browser knows better than a link: the header stays as it is when a page is swapped beneath it.
    """
    back = request.query_params.get("back")
    try:
        parts = urlsplit(request.headers.get("referer", "") if back is None else back)
    except ValueError:
        return "/"
    wanted = request.headers.get("host") if back is None else ""
    path, query = parts.path, f"?{parts.query}" if parts.query else ""
    is_local = path.startswith("/") and not path.startswith("//") and (parts.netloc or "") == wanted
    if not is_local or "\\" in path or not path.isprintable() or path == "/language":
        return "/"
    if _is_for_forms_alone(request, path):
        return path.rpartition("/")[0] or "/"
    return path + query


def _is_for_forms_alone(request: Request, path: str) -> bool:
    """Whether it is no page, but what a form is sent to: without JavaScript, a refusal has that address."""
    scope = {**request.scope, "path": path, "method": "GET"}
    matches = [route.matches(scope)[0] for route in request.app.routes]
    return Match.PARTIAL in matches and Match.FULL not in matches


def _ranges(accepted: str) -> Iterator[tuple[str, float]]:
    for part in accepted.split(",", _MAX_RANGES)[:_MAX_RANGES]:
        tag, *parameters = (each.strip() for each in part.split(";"))
        weight = 1.0
        for parameter in parameters:
            found = _QUALITY.fullmatch(parameter)
            weight = float(found[1]) if found else 0.0
        if tag:
            yield tag, weight


def _pattern(message: str) -> re.Pattern[str]:
    """What a message looks like with anything in its places, as little as can be in the first ones."""
    parts = re.split(r"%\((\w+)\)s", message)
    return re.compile(
        "".join(f"(?P<{part}>.+?)" if at % 2 else re.escape(part) for at, part in enumerate(parts)), re.DOTALL
    )
