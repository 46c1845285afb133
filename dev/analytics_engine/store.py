"""Events of the stand-in, in an embedded ClickHouse (chDB)."""

# ruff: noqa: S608 - the dialect of queries and the names of datasets are checked by the caller

from __future__ import annotations

import fcntl
import json
import re
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, Self

from chdb import session

from aggregator.analytics_engine.types import DATASET_COLUMNS

_Session: Any = session.Session  # chDB has no annotations

DATASET_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
"""Valid names of datasets."""

_DEFAULTS = {"_sample_interval": " DEFAULT 1"}
_COLUMNS = ", ".join(f"{name} {type_}{_DEFAULTS.get(name, '')}" for name, type_ in DATASET_COLUMNS.items())
"""Columns of a dataset's table."""

DATASETS = "SELECT name FROM system.tables WHERE database = currentDatabase() ORDER BY name"
"""Query for the names of all datasets."""

TIME_ZONES = "SELECT time_zone AS timezone FROM system.time_zones ORDER BY timezone"
"""Query for the names of all time zones."""

_SETTINGS = {
    "session_timezone": "'UTC'",
    "date_time_input_format": "'best_effort'",
    "input_format_skip_unknown_fields": 0,
    "output_format_json_quote_64bit_integers": 1,
    "output_format_json_escape_forward_slashes": 0,
    "output_format_write_statistics": 0,
    "output_format_parallel_formatting": 0,
    "engine_file_truncate_on_insert": 1,
    "max_execution_time": 60,
    "enable_order_by_all": 0,
}


class QueryError(Exception):
    """ClickHouse refused the query or failed. The text is the beginning of its own."""


class StoreError(Exception):
    """The folder cannot be used."""


class Store:
    """A folder of datasets.

    Only one process can open a folder, chDB does not survive a fork, and a session is for one thread at a time. The
    caller must serialize the calls.

    Args:
        folder: Folder of the datasets, created if missing.

    Raises:
        StoreError: Another process has the folder open. chDB itself would wait for it without a message.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = (folder / "lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            msg = f"Another process has {folder} open. Stop it, or choose another folder."
            raise StoreError(msg) from None
        self._spool = folder.resolve() / "spool"
        self._spool.mkdir(exist_ok=True)
        for abandoned in self._spool.iterdir():
            abandoned.unlink()
        self._session = _Session(str(folder / "clickhouse"))
        self._execute("CREATE DATABASE IF NOT EXISTS datasets")
        self._execute("USE datasets")
        for name, value in _SETTINGS.items():
            self._execute(f"SET {name} = {value}")

    def __enter__(self) -> Self:
        """Return the store."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the store."""
        self.close()

    def close(self) -> None:
        """Release the folder."""
        self._session.close()
        self._lock.close()

    def datasets(self) -> list[str]:
        """Names of the datasets that exist, in order."""
        return [str(row["name"]) for row in self._rows(DATASETS)]

    def first_row(self, sql: str) -> list[Any]:
        """The values of the first row of ``sql`` (without ``FORMAT``). 64-bit integers are text."""
        return list(self._rows(sql)[0].values())

    def run(self, sql: str, result_format: str) -> Path:
        """Run a ``SELECT`` into a file. Memory stays constant, and errors are raised before the first byte is sent.

        Args:
            sql: The statement without its ``FORMAT`` clause.
            result_format: A ClickHouse output format.

        Returns:
            The file. The caller deletes it.

        Raises:
            QueryError: ClickHouse refused the query or failed.
        """
        file = self.new_file()
        try:
            self._execute(f"INSERT INTO FUNCTION file('{file}', '{result_format}') {sql}")
        except QueryError:
            file.unlink(missing_ok=True)
            raise
        return file

    def write(self, dataset: str, events: Path, sample_above: int | None = None) -> int:
        """Add events to a dataset, created if missing.

        Args:
            dataset: A `DATASET_NAME`.
            events: File with one JSON object per line. Missing blobs are ``''``, doubles 0, ``_sample_interval`` 1.
            sample_above: Store about this many of these events per index and minute: every *n*-th in order of time,
                its ``_sample_interval`` multiplied by *n*. Equal events give equal samples. None stores all.

        Returns:
            The number of stored rows.

        Raises:
            QueryError: A line is not an event.
        """
        self._execute(
            f"CREATE TABLE IF NOT EXISTS {dataset} ({_COLUMNS}) ENGINE = MergeTree ORDER BY (index1, timestamp)"
        )
        file = f"file('{events}', 'JSONEachRow', '{_COLUMNS}')"
        source = f"(SELECT * REPLACE ('{dataset}' AS dataset) FROM {file})"
        if sample_above is not None:
            group = "PARTITION BY index1, toStartOfMinute(timestamp)"
            source = f"""(
                SELECT * EXCEPT (_number, _step) REPLACE (toUInt32(_sample_interval * _step) AS _sample_interval)
                FROM (
                    SELECT *,
                        row_number() OVER ({group} ORDER BY timestamp, cityHash64(*)) AS _number,
                        intDiv(count() OVER ({group}) + {sample_above - 1}, {sample_above}) AS _step
                    FROM {source}
                )
                WHERE (_number - 1) % _step = 0
            )"""
        before = self._count(dataset)
        self._execute(f"INSERT INTO {dataset} SELECT * FROM {source}")
        return self._count(dataset) - before

    def drop(self, dataset: str) -> None:
        """Delete a dataset."""
        self._execute(f"DROP TABLE IF EXISTS {dataset}")  # chDB never returns from SYNC

    def new_file(self) -> Path:
        """A new empty file. The caller deletes it."""
        with NamedTemporaryFile(dir=self._spool, delete=False) as file:
            return Path(file.name)

    def _rows(self, sql: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = json.loads(self._execute(sql, "JSON"))["data"]
        return rows

    def _count(self, dataset: str) -> int:
        return int(self.first_row(f"SELECT count() FROM {dataset}")[0])

    def _execute(self, sql: str, result_format: str = "CSV") -> bytes:
        try:
            result = self._session.query(sql, result_format)
        except RuntimeError as error:  # the only class that chDB raises
            raise QueryError(str(error).splitlines()[0][:500]) from None
        return bytes(result.bytes()) if result is not None else b""
