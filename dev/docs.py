"""The parts of the documents that are made from code: ``make docs`` renews them, a test compares them."""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING

from aggregator.settings import Settings
from dev.stack import REPOSITORY

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo


def renew(text: str) -> str:
    """A document with its generated parts as they have to be.

    Args:
        text: The document. ``<!-- settings: … -->`` and ``<!-- /settings -->`` enclose the table of settings.
    """
    table = settings_table().replace("\\", r"\\")
    return re.sub(r"(<!-- settings:.*?-->\n).*?(<!-- /settings -->)", rf"\1{table}\2", text, flags=re.DOTALL)


def settings_table() -> str:
    """Every setting with its default and, from the class's docstring, what it means."""
    attributes = inspect.cleandoc(Settings.__doc__ or "").partition("Attributes:\n")[2]
    meanings = dict(re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", attributes, re.MULTILINE))
    rows = [
        f"| `{name.upper()}` | {_default(field)} | {_markdown(meanings[name])} |\n"
        for name, field in Settings.model_fields.items()
    ]
    return "".join(["| variable | default | meaning |\n|---|---|---|\n", *rows])


def _default(field: FieldInfo) -> str:
    default = field.get_default(call_default_factory=True)
    if default is None or default == {}:
        return "not set"
    return f"`{str(default).lower() if isinstance(default, bool) else default}`"


def _markdown(text: str) -> str:
    return " ".join(text.split()).replace("``", "`")


def main() -> None:
    """Renew every document that has a generated part."""
    for path in (REPOSITORY / "docs").rglob("*.md"):
        text = path.read_text()
        if (renewed := renew(text)) != text:
            path.write_text(renewed)
            print(f"{path.relative_to(REPOSITORY)} is renewed")


if __name__ == "__main__":
    main()
