"""``docker-compose.yaml`` as Docker Compose renders it. No Docker is needed."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_START = re.compile(r"\$(?:(?P<escaped>\$)|\{(?P<braced>\w+)|(?P<plain>[A-Za-z_]\w*))")


class MissingVariableError(Exception):
    """A variable is needed; the text is that of the file."""


def interpolate(text: str, environment: Mapping[str, str]) -> str:
    """Replace variables as the Compose Specification says: ``$$``, ``${A}``, ``${A:-x}``, ``${A:+x}``, ``${A:?x}``.

    Args:
        text: Text of the file. Expressions may be nested.
        environment: The variables.

    Raises:
        MissingVariableError: A variable with ``:?`` is empty or not set.
    """
    done = []
    while match := _START.search(text):
        done.append(text[: match.start()])
        text = text[match.end() :]
        if match["escaped"]:
            done.append("$")
        elif match["plain"]:
            done.append(environment.get(match["plain"], ""))
        else:
            end = _end(text)
            operator, word = text[:2], text[2:end]
            text = text[end + 1 :]
            done.append(_value(environment.get(match["braced"], ""), operator if end else "", word, environment))
    return "".join([*done, text])


def _end(text: str) -> int:
    depth = 1
    for position, character in enumerate(text):
        depth += {"{": 1, "}": -1}.get(character, 0)
        if depth == 0:
            return position
    msg = f"no closing brace: {text}"
    raise ValueError(msg)


def _value(value: str, operator: str, word: str, environment: Mapping[str, str]) -> str:
    match operator:
        case "":
            return value
        case ":-":
            return value or interpolate(word, environment)
        case ":+":
            return interpolate(word, environment) if value else ""
        case ":?":
            if not value:
                raise MissingVariableError(word)
            return value
        case _:
            msg = f"unknown operator: {operator}"
            raise ValueError(msg)


def render(path: Path, environment: Mapping[str, str]) -> dict[str, Any]:
    """Return the file with the values of variables, as Compose interpolates it: after parsing, strings only.

    Args:
        path: The file.
        environment: Variables of the shell and of ``.env``.

    Raises:
        MissingVariableError: A required variable is empty or not set.
    """

    def rendered(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: rendered(value) for key, value in node.items()}
        if isinstance(node, list):
            return [rendered(value) for value in node]
        return interpolate(node, environment) if isinstance(node, str) else node

    file = yaml.safe_load(path.read_text())
    for service in file["services"].values():
        # A variable without a value comes from the environment, or is absent.
        service["environment"] = {
            name: environment.get(name) if value is None else value
            for name, value in service.get("environment", {}).items()
            if value is not None or name in environment
        }
    rendered_file: dict[str, Any] = rendered({key: value for key, value in file.items() if not key.startswith("x-")})
    return rendered_file
