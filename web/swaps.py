"""What htmx is told to do with a piece of HTML: messages are any mix of these."""

from web.moulds import safe

__all__ = ["append", "delete", "fill", "morph", "replace", "title"]


def append(selector: str, html: str) -> str:
    """Put it behind what the element holds."""
    return _partial(selector, "beforeend", html)


def fill(selector: str, html: str) -> str:
    """Put it in the place of what the element holds."""
    return _partial(selector, "innerHTML", html)


def morph(selector: str, html: str) -> str:
    """Change the element into this; focus, selection and what its user opened stay."""
    return _partial(selector, "outerMorph", html)


def replace(selector: str, html: str) -> str:
    """Put it in the place of the element."""
    return _partial(selector, "outerHTML", html)


def delete(selector: str) -> str:
    """Remove the elements."""
    return _partial(selector, "delete", "")


def title(text: str) -> str:
    """The page's title."""
    return f"<title>{safe(text)}</title>"


def _partial(selector: str, swap: str, html: str) -> str:
    return f'<hx-partial hx-target="{selector}" hx-swap="{swap}">{html}</hx-partial>'
