"""The Jinja environment of each language, with all templates compiled at the start."""

from pathlib import Path
from typing import Any

from jinja2 import BytecodeCache, Environment, FileSystemLoader, StrictUndefined, select_autoescape
from jinja2.bccache import Bucket

from web.assets import Assets
from web.languages import Language
from web.log_text import log_html, plain
from web.moulds import unless_marked
from web.words import ACTION_WORDS, Words, clock, elapsed_ms, stamp

__all__ = ["Compiled", "environment_of"]


class Compiled(BytecodeCache):
    """The code of templates, which is the same in each language."""

    def __init__(self) -> None:
        self._codes: dict[str, bytes] = {}

    def load_bytecode(self, bucket: Bucket) -> None:
        if bucket.key in self._codes:
            bucket.bytecode_from_string(self._codes[bucket.key])

    def dump_bytecode(self, bucket: Bucket) -> None:
        self._codes[bucket.key] = bucket.bytecode_to_string()


def environment_of(templates: Path, assets: Assets, words: Words, compiled: Compiled) -> Environment:
    """The templates of a folder in a language.

    Compiled one by one when they are first used, they would hold up whoever else is served then: a live
    frame for ten milliseconds, and all that come meanwhile.
    """
    environment = Environment(
        loader=FileSystemLoader(templates),
        autoescape=select_autoescape(default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
        optimized=False,  # what a filter makes of a constant would go into the code, in one language
        bytecode_cache=compiled,
        extensions=["jinja2.ext.i18n"],
    )
    translations: Any = environment  # the extension has added a method
    translations.install_gettext_translations(words.catalog, newstyle=True)
    environment.filters.update(
        clock=unless_marked(clock, "clock"), duration=words.duration,
        elapsed_ms=unless_marked(elapsed_ms, "elapsed"), instant=words.instant,
        log_html=log_html, plain=plain, stamp=stamp, thousands="{:,}".format, told=words.say,
        outcome=words.outcome, word=words.word, kind=words.kind,
    )  # fmt: skip
    language = words.language
    environment.globals.update(assets=assets, language=language.value, languages=list(Language))
    icons: Any = environment.get_template("icons.html").module
    environment.globals.update(icon=icons.icon, favicon=icons.favicon, action_words=ACTION_WORDS)
    for name in environment.list_templates():
        environment.get_template(name)
    return environment
