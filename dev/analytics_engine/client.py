"""Start the stand-in, fill it, and tell it to fail."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tenacity
from requests import HTTPError, RequestException, Response, request

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from dev.analytics_engine.faults import Fault

_REPOSITORY = Path(__file__).parents[2]
_STOP_SECONDS = 15
_LINES_A_CHUNK = 1000

TOKEN = "ANALYTICS_ENGINE_TOKEN"  # noqa: S105 - the name of a variable
"""Environment variable with the stand-in's token: an argument would show in the list of processes."""


@dataclass(frozen=True)
class AnalyticsEngineControl:
    """The control side of a running stand-in.

    Attributes:
        url: Its address, such as ``http://127.0.0.1:8787``.
    """

    url: str

    def wait_until_ready(self, seconds: float = 60) -> None:
        """Wait until it answers.

        Args:
            seconds: How long at most.

        Raises:
            RequestException: It did not answer in time.
        """
        retrying = tenacity.Retrying(
            stop=tenacity.stop_after_delay(seconds),
            wait=tenacity.wait_fixed(0.05),
            retry=tenacity.retry_if_exception_type(RequestException),
            reraise=True,
        )
        retrying(self._call, "GET", "/health")

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
        stored = self._call("POST", f"/__control__/datasets/{dataset}/events", data=_lines(events), params=params)
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

    def reset(self) -> None:
        """Forget everything: datasets, faults, behaviour and what was asked."""
        self._call("DELETE", "/__control__")

    def _call(self, method: str, path: str, **arguments: Any) -> Response:
        response = request(method, f"{self.url}{path}", timeout=120, **arguments)
        if not response.ok:
            msg = f"{method} {path} of the stand-in answered {response.status_code}: {response.text[:1000]}"
            raise HTTPError(msg, response=response)
        return response


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
    log = data / "log"
    command = [sys.executable, "-m", "dev.analytics_engine", "--data", str(data), "--port", str(port or 0)]
    command += ["--account", account] if account is not None else []
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(_REPOSITORY), str(_REPOSITORY / "plugins")])}
    environment.pop(TOKEN, None)
    environment |= {TOKEN: token} if token is not None else {}
    with (
        log.open("ab") as output,
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=output, text=True) as process,
    ):
        try:
            # It prints its URL when it is ready, and ends without one if it cannot be.
            url = process.stdout.readline().strip() if process.stdout else ""
            if not url:
                msg = f"The Analytics Engine stand-in did not start:\n{log.read_text()[-2000:]}"
                raise RuntimeError(msg)
            yield AnalyticsEngineControl(url)
        finally:
            process.terminate()
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()


def _lines(events: Iterable[Mapping[str, Any]]) -> Iterator[bytes]:
    lines = (f"{json.dumps(event)}\n" for event in events)
    while chunk := "".join(islice(lines, _LINES_A_CHUNK)):
        yield chunk.encode()
