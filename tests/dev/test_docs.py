"""The generated parts of the documents are up to date."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from dev.docs import TABLES, documents

if TYPE_CHECKING:
    from collections.abc import Callable


def test_documents_are_up_to_date() -> None:
    old = [path.name for path, text in documents().items() if path.read_text() != text]
    assert old == [], "update them with: make docs"


@pytest.mark.parametrize("table", TABLES.values())
def test_every_table_is_in_a_document(table: Callable[[], str]) -> None:
    assert any(table() in text for text in documents().values())
