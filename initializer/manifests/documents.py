"""YAML as Kubernetes understands it: written so that no reader can mistake it, read within limits."""

import re
from collections.abc import Hashable, Iterator
from typing import Any

import yaml

from initializer.errors import InitializerError

__all__ = ["Document", "DocumentError", "read_documents", "write_document"]

Document = dict[str, Any]

MAX_CHARACTERS = 1_000_000
MAX_NODES = 50_000
MAX_DEPTH = 50

# PyYAML ships its C parser where libyaml was there when it was built; its own is some ten times slower.
_SafeLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

# Plain scalars that begin with a letter and are no word of YAML 1.1 or 1.2 are text for every reader. Others
# are not: Go reads `1e3` as a number where PyYAML reads text, and old readers take `y` for true. Quantities
# and durations such as `64Mi` and `10m` are nothing else to anybody.
_PLAIN = re.compile(r"[A-Za-z./][A-Za-z0-9._/-]*(?:[:=@+][A-Za-z0-9._/-]+)*|[0-9]+(?:[hms]|[KMG]i)")
_WORDS = frozenset({"y", "yes", "n", "no", "true", "false", "on", "off", "null", ".inf", ".nan"})


class DocumentError(InitializerError):
    """The text is not YAML, or not of the kind that is accepted here; the message says where."""


def write_document(document: Document, *, comment: str = "") -> str:
    """One YAML document as text, keys in their order, with `comment` as its first line."""
    text: str = yaml.dump(
        document, Dumper=_Dumper, sort_keys=False, default_flow_style=False, allow_unicode=True, width=10_000
    )
    return f"# {comment}\n{text}" if comment else text


def read_documents(text: str) -> list[Any]:
    """The documents of a YAML text, empty ones left out; times stay text, as in JSON.

    Raises `DocumentError` for what is no YAML, for repeated keys, keys that are not text, aliases, unknown
    tags, and for more than 1,000,000 characters, 50,000 nodes or 50 levels.
    """
    if len(text) > MAX_CHARACTERS:
        raise DocumentError(f"is longer than {MAX_CHARACTERS:,} characters")
    try:
        # The events are looked at first: an alias inside an alias grows without end only once it is built,
        # and building deep nesting would exhaust the stack.
        _refuse_excess(yaml.parse(text, Loader=_SafeLoader))
        return [document for document in yaml.load_all(text, Loader=_Loader) if document is not None]
    except yaml.MarkedYAMLError as error:
        where = _line(error.problem_mark)
        raise DocumentError(f"is not valid YAML{where}: {error.problem or error.context}") from error
    except (yaml.YAMLError, ValueError) as error:
        raise DocumentError(f"is not valid YAML: {str(error).splitlines()[0]}") from error


def _line(mark: Any) -> str:
    return f" in line {mark.line + 1}" if mark else ""


def _refuse_excess(events: Iterator[Any]) -> None:
    depth = 0
    for count, event in enumerate(events):
        if isinstance(event, yaml.AliasEvent):
            raise DocumentError(f"uses the alias *{event.anchor}{_line(event.start_mark)}")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MAX_DEPTH:
            raise DocumentError(f"is nested deeper than {MAX_DEPTH} levels")
        if count > MAX_NODES:
            raise DocumentError(f"has more than {MAX_NODES:,} nodes")


# Readers written in Go, and those of YAML 1.2, take neither times nor words such as `on` for more than text:
# it is a key in the workflows of several CI systems.
_RESOLVED_OTHERWISE = frozenset({"tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:bool"})


class _Loader(_SafeLoader):  # type: ignore[misc]  # which of two classes it is, is known at run time only
    """Refuses what YAML forbids but PyYAML lets pass, and reads numbers as the readers written in Go do."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = key_node.value
            if key_node.tag != "tag:yaml.org,2002:str":
                raise yaml.constructor.ConstructorError(
                    problem="a key is not text", problem_mark=key_node.start_mark
                )
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    problem=f"the key {key!r} stands there twice", problem_mark=key_node.start_mark
                )
            seen.add(key)
        mapping: dict[Hashable, Any] = super().construct_mapping(node, deep=deep)
        return mapping


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in _RESOLVED_OTHERWISE]
    for first, resolvers in _SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile(r"(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+$"), list("-+0123456789")
)


class _Dumper(yaml.SafeDumper):
    """Puts text in quotes wherever some reader could take it for something else."""

    def represent_text(self, text: str) -> yaml.ScalarNode:
        style = None if _PLAIN.fullmatch(text) and text.lower() not in _WORDS else '"'
        return self.represent_scalar("tag:yaml.org,2002:str", text, style=style)

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        return True  # the same dictionary in two places is written twice


_Dumper.add_representer(str, _Dumper.represent_text)
