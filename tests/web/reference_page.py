"""A page as a browser would hold it, as far as frames go: a small tree of elements, and the swaps of htmx."""

import re
from html.parser import HTMLParser

__all__ = ["Element", "Page", "parse"]

VOID = frozenset({"br", "hr", "img", "input", "link", "meta"})
OVERFLOW = re.compile(r"(#[\w-]+) > li:nth-last-child\(n\+(\d+)\)")


class Element:
    def __init__(self, tag: str, attributes: dict[str, str | None]) -> None:
        self.tag, self.attributes = tag, attributes
        self.children: list[Element | str] = []

    def find(self, element_id: str) -> "Element":
        for element in self.walk():
            if element.attributes.get("id") == element_id:
                return element
        raise LookupError(f"no element #{element_id}")

    def walk(self) -> "list[Element]":
        inner = [child for child in self.children if isinstance(child, Element)]
        return [self, *(element for child in inner for element in child.walk())]

    def parent_of(self, element: "Element") -> "Element":
        return next(it for it in self.walk() if any(child is element for child in it.children))

    @property
    def text(self) -> str:
        return "".join(child if isinstance(child, str) else child.text for child in self.children)

    def __str__(self) -> str:
        attributes = "".join(f" {name}={value!r}" for name, value in sorted(self.attributes.items()))
        inner = "".join(child.strip() if isinstance(child, str) else str(child) for child in self.children)
        return f"<{self.tag}{attributes}>{inner}</{self.tag}>"


class _Builder(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.root = Element("", {})
        self._open = [self.root]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, dict(attrs))
        self._open[-1].children.append(element)
        if tag not in VOID:
            self._open.append(element)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._open[-1].children.append(Element(tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open[-1].tag == tag, f"</{tag}> ends <{self._open[-1].tag}>"
        self._open.pop()

    def handle_data(self, data: str) -> None:
        self._open[-1].children.append(data)


def parse(html: str) -> Element:
    """The tree of a fragment; an element left open, or ended out of turn, is an error."""
    builder = _Builder()
    builder.feed(html)
    builder.close()
    assert builder._open == [builder.root], f"<{builder._open[-1].tag}> is not ended"
    return builder.root


class Page:
    """What frames are applied to."""

    def __init__(self, html: str) -> None:
        self.body = parse(html)
        self.title = ""

    def apply(self, frame: str) -> None:
        for part in parse(frame).children:
            if isinstance(part, str):
                assert not part.strip(), f"text outside of every part: {part!r}"
            elif part.tag == "title":
                self.title = part.text
            elif part.tag == "hx-partial":
                self._swap(str(part.attributes["hx-target"]), str(part.attributes["hx-swap"]), part)
            else:
                assert part.attributes.get("hx-swap-oob"), f"a frame brings a loose <{part.tag}>"

    def _swap(self, target: str, swap: str, part: Element) -> None:
        overflow = OVERFLOW.fullmatch(target)
        if overflow:
            assert swap == "delete"
            rows = self.body.find(overflow[1][1:])
            kept = int(overflow[2]) - 1
            rows.children = rows.children[-kept:]
            return
        if swap == "delete" and target in ("#live", "#connection"):
            return  # beside the panel
        element = self.body.find(target.removeprefix("#"))
        match swap:
            case "beforeend":
                element.children += part.children
            case "innerHTML":
                element.children = part.children
            case "outerHTML" | "outerMorph":
                siblings = self.body.parent_of(element).children
                siblings[siblings.index(element)] = next(
                    child for child in part.children if isinstance(child, Element)
                )
            case _:
                raise AssertionError(f"unknown swap {swap}")
