"""Checks of the params of every run (spec: shared parts)."""

from __future__ import annotations

import re
from datetime import date
from difflib import get_close_matches
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator

from aggregator.core.errors import WrongParamsError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from airflow.sdk import Context


def _day(value: object) -> object:
    # fromisoformat and pydantic also accept week dates, Unix times and dates without hyphens.
    if value is None or value == "":
        return None
    if isinstance(value, str) and re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", value):
        return value
    raise ValueError("a day is written YYYY-MM-DD")


Day = Annotated[date | None, BeforeValidator(_day)]
"""A UTC day as ``YYYY-MM-DD``; null or an empty text if not given."""


def check(context: Context) -> None:
    """Reject unknown params, and days in the future; the ``pre_execute`` of every task.

    Airflow accepts any name. Without this check, a run with a misspelled param would use the default and succeed.
    """
    run = context["dag_run"]
    declared = context["dag"].params
    wrong = [*_unknown(run.conf or {}, list(declared)), *_future(declared, context["params"], run.run_after.date())]
    if wrong:
        msg = f"The params of this run are wrong: {'; '.join(wrong)}. Nothing was done. Start a new run."
        raise WrongParamsError(msg)


def is_future(day: date | None, today: date) -> bool:
    """Whether a day is after the UTC day on which a run was created, so that its data cannot exist."""
    return day is not None and day > today


def _unknown(given: Collection[str], declared: list[str]) -> Iterator[str]:
    for name in sorted(set(given) - set(declared)):
        near = get_close_matches(name.lower(), {known.lower(): known for known in declared})
        meant = next((known for known in declared if near and known.lower() == near[0]), None)
        known = f"the DAG has {', '.join(declared)}" if declared else "the DAG has no params"
        yield f"{name!r} is unknown, {f'did you mean {meant!r}?' if meant else known}"


def _future(declared: Any, given: Any, today: date) -> Iterator[str]:
    for name in declared:
        if declared.get_param(name).schema.get("format") != "date" or not isinstance(given.get(name), str):
            continue
        try:
            day = date.fromisoformat(given[name])
        except ValueError:
            # The task that reads the param reports the format.
            continue
        if is_future(day, today):
            yield f"{name} {day} is after {today}, the UTC day on which the run was created"


def problems(errors: Iterable[Any]) -> str:
    """A text with all validation errors, by the caller's names and without the values."""
    named = ((".".join(str(part) for part in error["loc"] if part != "query"), error["msg"]) for error in errors)
    return "; ".join(": ".join(filter(None, [name, text.removeprefix("Value error, ")])) for name, text in named)
