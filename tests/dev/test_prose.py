"""The prose check finds what it should find, and leaves code alone."""

from __future__ import annotations

import pytest

from dev.prose import LONGEST_SENTENCE, problems_of_markdown

LONG = " ".join(["word"] * LONGEST_SENTENCE)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("The channel is told of it.", "'is told': write notified, reported, logged"),
        ("First.\n\nWhat became of it", "'What became of': write the outcome, due tasks"),
        ("- It stands\n  in a table.", "'stands in': write is in, is stored in"),
        ("| a |\n|---|\n| Mend it |", "'Mend': write fix"),
        (f"{LONG} more.", f"a sentence of {LONGEST_SENTENCE + 1} words: word word word word word word …"),
    ],
)
def test_old_terms_and_long_sentences_are_found(text: str, problem: str) -> None:
    assert [found for _, found in problems_of_markdown(text)] == [problem]


@pytest.mark.parametrize(
    "text",
    [
        "The channel is notified of `what became of it`.",
        "```sh\nmend\n```",
        "<!-- mend -->",
        f"{LONG}. {LONG}: {LONG}; {LONG}",
        f"| {LONG} {LONG} |\n|---|\n| {LONG} {LONG} |",
        "It recommends the amended text.",
    ],
)
def test_code_and_plain_text_have_no_problem(text: str) -> None:
    assert list(problems_of_markdown(text)) == []


def test_line_of_the_problem_is_named() -> None:
    assert [line for line, _ in problems_of_markdown("One.\n\nTwo.\n\nMend it.")] == [5]
