"""Checks prose: terms that have a plainer word, and sentences that are too long. ``make lint`` runs it.

codespell checks spelling. This adds the project's own rules: on the README, the documents, the changelog and the pages
of the DAGs, and on the terms of every comment and docstring.
"""

from __future__ import annotations

import ast
import re
import sys
from typing import TYPE_CHECKING, NamedTuple

from markdown_it import MarkdownIt

from dev.stack import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LONGEST_SENTENCE = 25
"""Words."""

TERMS = {
    r"told of|(is|are|was|were|be) told|tells of": "notified, reported, logged",
    r"mend(s|ed|ing)?": "fix",
    r"hard errors?": "permanent error",
    r"wish(es|ed)?": "request",
    r"stands? (in|on|alone)|stood (in|on)": "is in, is stored in",
    r"the other side": "the server, n8n, Analytics Engine",
    r"begins? anew|done again|does (it|them|this) again": "restarts, re-run",
    r"(is|are|was|were|be) let in": "authorized",
    r"for ever|forever": "indefinitely",
    r"from .{1,20} on(?=[.,;:]|$)|from here on": "starting at",
    r"goes on|go on": "continues",
    r"what became of|what came of|what is due": "the outcome, due tasks",
    r"of its own accord": "by itself",
    r"not worth a": "say what happens",
    r"shall": "must, or the present tense",
    r"thereof|therein|whereof|hitherto|howsoever": "plain words",
}
"""Pattern → what to write."""

_TERMS = re.compile("|".join(rf"(?P<t{number}>\b(?:{term})\b)" for number, term in enumerate(TERMS)), re.IGNORECASE)
_END_OF_SENTENCE = re.compile(r"(?<=[.!?:;])\s+")
_COMMENT = {".py": re.compile(r"(?:^|\s)# (.*)"), ".sql": re.compile(r"-- (.*)")}


class Problem(NamedTuple):
    """One place to rewrite."""

    file: str
    line: int
    text: str

    def __str__(self) -> str:
        """As compilers print it."""
        return f"{self.file}:{self.line}: {self.text}"


def problems_of_terms(text: str) -> Iterator[str]:
    """The terms of a text that have a plainer word.

    Args:
        text: One paragraph or line, without code.
    """
    for found in _TERMS.finditer(text):
        number = int((found.lastgroup or "t0")[1:])
        yield f"'{found[0]}': write {list(TERMS.values())[number]}"


def problems_of_markdown(text: str) -> Iterator[tuple[int, str]]:
    """The problems of a Markdown text, each with its line.

    Args:
        text: The whole text. Code and HTML comments are left out; links count as their texts.
    """
    cell = False
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        cell = token.type in {"td_open", "th_open", "heading_open"} or (cell and token.type == "inline")
        if token.type != "inline":
            continue
        line = token.map[0] + 1 if token.map else 0
        words = "".join(
            {"text": child.content, "code_inline": "code", "softbreak": " ", "hardbreak": ". "}.get(child.type, "")
            for child in token.children or []
        )
        yield from ((line, problem) for problem in problems_of_terms(words))
        if not cell:
            for sentence in _END_OF_SENTENCE.split(words):
                if (count := len(sentence.split())) > LONGEST_SENTENCE:
                    yield line, f"a sentence of {count} words: {' '.join(sentence.split()[:6])} …"


def documents() -> list[Path]:
    """The Markdown files that people read."""
    return [*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").rglob("*.md")]


def sources() -> list[Path]:
    """Python and SQL files; migrations that were applied cannot change."""
    folders = [REPOSITORY / name for name in ("dags", "plugins", "include/sql", "dev")]
    files = [path for folder in folders for kind in ("*.py", "*.sql") for path in folder.rglob(kind)]
    return [path for path in files if path.parent.name != "migrations" and path != REPOSITORY / "dev" / "prose.py"]


def problems() -> list[Problem]:
    """Everything to rewrite."""
    found = []
    for path in documents():
        found += [Problem(_name(path), *problem) for problem in problems_of_markdown(path.read_text())]
    for path in sources():
        text = path.read_text()
        if path.parent == REPOSITORY / "dags":
            page = ast.get_docstring(ast.parse(text)) or ""
            found += [Problem(_name(path), line + 1, problem) for line, problem in problems_of_markdown(page)]
        for line, prose in _prose_of_source(path, text):
            found += [Problem(_name(path), line, problem) for problem in problems_of_terms(prose)]
    return sorted(set(found))


def _prose_of_source(path: Path, text: str) -> Iterator[tuple[int, str]]:
    for number, line in enumerate(text.splitlines(), start=1):
        if comment := _COMMENT[path.suffix].search(line):
            yield number, comment[1]
    if path.suffix == ".py":
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
                yield from enumerate(node.value.splitlines(), start=node.lineno)


def _name(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


def main() -> int:
    """Print the problems.

    Returns:
        The exit code: 1 if there is one.
    """
    found = problems()
    print(*found, sep="\n", end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
