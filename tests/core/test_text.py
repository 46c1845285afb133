"""Lists in texts end with the number of names that they leave out."""

from __future__ import annotations

import pytest

from aggregator.core.text import listed


@pytest.mark.parametrize(
    ("count", "of", "text"),
    [
        (0, None, ""),
        (2, None, "0, 1"),
        (3, None, "0, 1, and 1 more"),
        (10_000, None, "0, 1, and 9,998 more"),
        (2, 7, "0, 1, and 5 more"),
    ],
)
def test_list_ends_with_the_number_of_other_names(count: int, of: int | None, text: str) -> None:
    assert listed(map(str, range(count)), 2, of=of) == text


def test_separator_is_between_all_parts() -> None:
    assert listed("abc", 2, separator="; ") == "a; b; and 1 more"
