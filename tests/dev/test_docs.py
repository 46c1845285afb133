"""What of the documents is made from code says what the code says."""

from __future__ import annotations

import pytest

from dev.docs import TABLES, documents


def test_documents_are_those_of_the_code() -> None:
    old = [path.name for path, text in documents().items() if path.read_text() != text]
    assert old == [], "renew them with: make docs"


@pytest.mark.parametrize("table", TABLES.values())
def test_every_table_stands_in_a_document(table) -> None:
    assert any(table() in text for text in documents().values())
