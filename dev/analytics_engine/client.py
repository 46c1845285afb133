"""Start the stand-in, fill it, and tell it to fail."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from dev.stand_in.client import Control, process

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from dev.stand_in.faults import Fault

_LINES_A_CHUNK = 1000

TOKEN = "ANALYTICS_ENGINE_TOKEN"  # noqa: S105 - the name of a variable
"""Environment variable with the stand-in's token: an argument would show in the list of processes."""


@dataclass(frozen=True)
class AnalyticsEngineControl(Control):
    """The control side of a running stand-in."""

    def write(self, dataset: str, events: Iterable[Mapping[str, Any]], *, sample_above: int | None = None) -> int:
        """Add events to a dataset.

        Args:
            dataset: Its name; made if missing.
            events: Rows by column name. ``timestamp`` as ``YYYY-MM-DD hh:mm:ss``; what is left out is empty, and
                ``_sample_interval`` 1.
            sample_above: Store about this many events per index and minute; None stores all.

        Returns:
            How many rows were stored.
        """
        params = {} if sample_above is None else {"sample_above": sample_above}
        stored = self._call("POST", f"/__control__/datasets/{dataset}/events", content=_lines(events), params=params)
        return int(stored.json()["stored"])

    def delete(self, dataset: str) -> None:
        """Forget a dataset, as if it had never been written."""
        self._call("DELETE", f"/__control__/datasets/{dataset}")

    def faults(self, faults: Iterable[Fault]) -> None:
        """Meet the next queries with these, in order; what still waited is forgotten."""
        self._call("PUT", "/__control__/faults", json=[fault.model_dump() for fault in faults])

    def clear_faults(self) -> None:
        """Tell the truth again."""
        self._call("DELETE", "/__control__/faults")

    def behave(self, *, empty_range_fails: bool) -> None:
        """Choose how an empty range is answered: with 422 ``unable to find type of column``, or with no rows."""
        self._call("PUT", "/__control__/behaviour", json={"empty_range_fails": empty_range_fails})

    def requests(self) -> list[str]:
        """The SQL of the latest queries (at most 1,000), oldest first, those that met a fault included."""
        return [str(sql) for sql in self._call("GET", "/__control__/requests").json()["recent"]]


@contextmanager
def running(
    data: Path, port: int | None = None, *, token: str | None = None, account: str | None = None
) -> Iterator[AnalyticsEngineControl]:
    """Run a stand-in in a process of its own, in the `with` block.

    Args:
        data: Folder of its datasets, made if missing; what the process says goes to ``log`` in it.
        port: Where to listen; None takes a free one.
        token: The bearer token that is right; None takes any.
        account: The account id that exists; None takes any.

    Yields:
        Its control side, ready.

    Raises:
        RuntimeError: It ended instead of listening; the text has the end of its log.
    """
    data.mkdir(parents=True, exist_ok=True)
    arguments = ["--data", str(data), "--port", str(port or 0)]
    arguments += ["--account", account] if account is not None else []
    with process("dev.analytics_engine", *arguments, environment={TOKEN: token}, log=data / "log") as url:
        yield AnalyticsEngineControl(url)


def _lines(events: Iterable[Mapping[str, Any]]) -> Iterator[bytes]:
    lines = (f"{json.dumps(event)}\n" for event in events)
    while chunk := "".join(islice(lines, _LINES_A_CHUNK)):
        yield chunk.encode()
