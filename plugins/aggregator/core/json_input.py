"""Parsers of JSON from people and other systems. Invalid input of any kind raises ValueError."""

from __future__ import annotations

import json
import math
import re
from typing import Any, Final, NoReturn

MAX_DEPTH = 200
"""Limit of nested lists and objects; Python's parser raises RecursionError at about 1,000 levels."""

SURROGATE: Final = re.compile("[\ud800-\udfff]")
"""Lone surrogates, which a JSON escape can contain and UTF-8 cannot encode."""

TOO_DEEP: Final = "\udfffnested too deeply"
"""Replacement of `parse_leniently` for a value that is nested deeper than `MAX_DEPTH`."""

_STRING_OR_BRACKET = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[\[\]{}]', re.DOTALL)


def parse(content: bytes) -> Any:
    """Parse a body. A byte order mark is ignored. Invalid bytes and lone surrogates are replaced by U+FFFD.

    Raises:
        ValueError: The body is not JSON, is nested deeper than `MAX_DEPTH`, or has a number that is too long.
    """
    text = content.decode("utf-8-sig", errors="replace")
    if _without_depths(text) != text:
        raise ValueError(f"nested deeper than {MAX_DEPTH} levels")
    return _replaced(json.loads(text, parse_constant=_refuse_constant))


def parse_leniently(text: str) -> Any:
    """Parse a document whose parts are validated separately. A byte order mark is ignored.

    Returns:
        The document. Strings may contain lone surrogates. A value that is nested too deeply is `TOO_DEEP`, and an
        integer that is too long is infinite.

    Raises:
        ValueError: The document is not JSON.
    """
    pruned = _without_depths(text.removeprefix("\ufeff"))
    return json.loads(pruned, parse_constant=_refuse_constant, parse_int=_whole_number)


def replace_surrogates(text: str) -> str:
    """Replace lone surrogates by U+FFFD, so that UTF-8 can encode the text."""
    return SURROGATE.sub("\ufffd", text)


def _without_depths(text: str) -> str:
    """Replace values that are nested too deeply by `TOO_DEEP`."""
    parts: list[str] = []
    depth = kept = 0
    for found in _STRING_OR_BRACKET.finditer(text):
        if found[0] in "[{":
            depth += 1
            if depth == MAX_DEPTH + 1:
                parts += [text[kept : found.start()], json.dumps(TOO_DEEP)]
        elif found[0] in "]}":
            depth -= 1
            if depth == MAX_DEPTH:
                kept = found.end()
    if depth > MAX_DEPTH:
        raise ValueError("a list or an object is not closed")
    return "".join([*parts, text[kept:]])


def _replaced(value: Any) -> Any:
    if isinstance(value, str):
        return replace_surrogates(value)
    if isinstance(value, list):
        return [_replaced(part) for part in value]
    if isinstance(value, dict):
        return {replace_surrogates(name): _replaced(part) for name, part in value.items()}
    return value


def _whole_number(digits: str) -> float:
    try:
        return int(digits)
    except ValueError:  # more digits than Python converts
        return math.inf


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
