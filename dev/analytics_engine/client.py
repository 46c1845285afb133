"""Start the stand-in, write events, and make queries fail."""

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
"""Environment variable with the stand-in's token. An argument would be visible in the list of processes."""


@dataclass(frozen=True)
class AnalyticsEngineControl(Control):
    """Controls a running stand-in."""

    def write(self, dataset: str, events: Iterable[Mapping[str, Any]], *, sample_above: int | None = None) -> int:
        """Add events to a dataset.

        Args:
            dataset: Its name; created if missing.
            events: Rows by column name. ``timestamp`` is ``YYYY-MM-DD hh:mm:ss``. A missing column is empty, and
                ``_sample_interval`` 1.
            sample_above: Store about this many events per index and minute; None stores all.

        Returns:
            The number of stored rows.
        """
        params = {} if sample_above is None else {"sample_above": sample_above}
        stored = self._call("POST", f"/__control__/datasets/{dataset}/events", content=_lines(events), params=params)
        return int(stored.json()["stored"])

    def delete(self, dataset: str) -> None:
        """Delete a dataset. It is then like one that was never written."""
        self._call("DELETE", f"/__control__/datasets/{dataset}")

    def faults(self, faults: Iterable[Fault]) -> None:
        """Apply these faults to the next queries, in order. They replace the faults that are still queued."""
        self._call("PUT", "/__control__/faults", json=[fault.model_dump() for fault in faults])

    def clear_faults(self) -> None:
        """Remove all queued faults."""
        self._call("DELETE", "/__control__/faults")

    def fail_empty_ranges(self, *, enabled: bool = True) -> None:
        """Return 422 ``unable to find type of column`` for a range without rows, in place of no rows."""
        self._call("PUT", "/__control__/empty_ranges", json={"fail": enabled})

    def requests(self) -> list[str]:
        """The SQL of the latest queries, at most 1,000 and oldest first. It includes queries with a fault."""
        return [str(sql) for sql in self._call("GET", "/__control__/requests").json()["recent"]]


@contextmanager
def running(
    data: Path, port: int | None = None, *, token: str | None = None, account: str | None = None
) -> Iterator[AnalyticsEngineControl]:
    """Run a stand-in in a process of its own, in the `with` block.

    Args:
        data: Folder of its datasets, created if missing. The process writes its output to ``log`` in it.
        port: Port to listen on; None chooses a free one.
        token: The accepted bearer token; None accepts any.
        account: The accepted account id; None accepts any.

    Yields:
        Its control, when it is ready.

    Raises:
        RuntimeError: It did not start. The text has the end of its log.
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
