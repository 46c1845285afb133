"""Read-only queries of the products' databases, each with a bound of its own."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from contextlib import suppress
from datetime import timedelta
from functools import lru_cache
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final, TypeVar

import psycopg
from psycopg.pq import TransactionStatus

from aggregator.core.errors import AggregatorError, UnknownConnectionError
from aggregator.core.http import Threads
from aggregator.core.paths import SQL
from aggregator.postgres.hook import PostgresTransactionHook

if TYPE_CHECKING:
    from collections.abc import Callable

    from psycopg.rows import TupleRow

T = TypeVar("T")

STATEMENT_TIMEOUT: Final = timedelta(seconds=2)
"""Limit of each statement."""

REQUEST_TIMEOUT: Final = 6.0
"""Limit of all statements of a request with the wait for a connection, in seconds."""

MAX_CONNECTIONS: Final = 3
"""Connections to one database, in each process of the API server."""

KEEP: Final = 60.0
"""Seconds for which an unused connection stays open."""

_NOT_MIGRATED: Final = frozenset({"3F000", "42P01", "42703", "42883"})


class ReadError(Exception):
    """A database did not return what a view shows.

    Args:
        status: Status of the response.
        reason: Word for programs.
        detail: Sentences for people, without secrets and values of rows.
    """

    def __init__(self, status: HTTPStatus, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.reason = reason
        self.detail = detail


class Reader:
    """Executes the statements of one read-only transaction.

    Args:
        cursor: Cursor in that transaction.
    """

    def __init__(self, cursor: psycopg.Cursor[TupleRow]) -> None:
        self._cursor = cursor

    def rows(self, file: str, **parameters: Any) -> list[dict[str, Any]]:
        """Execute a statement.

        Args:
            file: Its file below ``include/sql``.
            parameters: Values of its placeholders.

        Returns:
            Its rows by column name.
        """
        self._cursor.execute(_statement(file), parameters)
        columns = [column.name for column in self._cursor.description or []]
        return [dict(zip(columns, row, strict=True)) for row in self._cursor]

    def row(self, file: str, **parameters: Any) -> dict[str, Any]:
        """Execute a statement that returns at most one row; without a row, the result is empty."""
        return next(iter(self.rows(file, **parameters)), {})


class Database:
    """The database of one Airflow connection.

    It has its own threads and connections, so a database that hangs delays no view of another one.

    Args:
        conn_id: The connection.
    """

    def __init__(self, conn_id: str) -> None:
        self.conn_id = conn_id
        self._threads = Threads(f"operations-{conn_id}", MAX_CONNECTIONS)
        self._idle: deque[tuple[psycopg.Connection, float]] = deque()

    async def read(self, query: Callable[[Reader], T]) -> T:
        """Read in one transaction.

        Args:
            query: Function that executes the statements.

        Returns:
            The result of the function.

        Raises:
            ReadError: The connection does not exist, the database did not respond in time, or it refused a statement.
        """
        try:
            return await self._threads.run(self._read, query, timeout=REQUEST_TIMEOUT)
        except TimeoutError:
            raise self._timeout() from None
        finally:
            asyncio.get_running_loop().call_later(KEEP, self._close_unused)

    def _close_unused(self) -> None:
        # Threads take connections from the other end, and may take the last one between these steps.
        with suppress(IndexError):
            while time.monotonic() - self._idle[0][1] >= KEEP:
                self._idle.popleft()[0].close()

    def close(self) -> None:
        """Close the connections that are not in use."""
        with suppress(IndexError):
            while True:
                self._idle.pop()[0].close()

    def _read(self, query: Callable[[Reader], T]) -> T:
        hook = _PooledHook(self.conn_id, self._idle)
        try:
            try:
                return self._execute(hook, query)
            except AggregatorError as error:
                # The server may have closed an idle connection, for example in a restart.
                if not hook.reused or not isinstance(error.__context__, psycopg.OperationalError) or _is_timeout(error):
                    raise
                self.close()
                return self._execute(hook, query)
        except UnknownConnectionError as error:
            raise ReadError(HTTPStatus.NOT_FOUND, "not_connected", str(error)) from None
        except AggregatorError as error:
            if _is_timeout(error):
                raise self._timeout() from None
            if _sqlstate(error) in _NOT_MIGRATED:
                raise ReadError(HTTPStatus.NOT_FOUND, "not_migrated", str(error)) from None
            raise ReadError(HTTPStatus.SERVICE_UNAVAILABLE, "unavailable", str(error)) from None

    def _execute(self, hook: _PooledHook, query: Callable[[Reader], T]) -> T:
        with hook.transaction(
            timeout=STATEMENT_TIMEOUT, application_name="aggregator/operations", read_only=True
        ) as cursor:
            # Compiling a plan takes longer than the statements of this page.
            cursor.execute("set local jit to off")
            return query(Reader(cursor))

    def _timeout(self) -> ReadError:
        limit = STATEMENT_TIMEOUT.total_seconds()
        detail = (
            f"The database of connection {self.conn_id} did not respond in time. A statement may take {limit:g} s. "
            "Choose a shorter range, or reload the page when the database has less load."
        )
        return ReadError(HTTPStatus.GATEWAY_TIMEOUT, "timeout", detail)


class _PooledHook(PostgresTransactionHook):
    """Takes idle connections, and returns them after a transaction.

    Args:
        conn_id: The connection.
        idle: Idle connections, each with the time at which it was returned.
    """

    def __init__(self, conn_id: str, idle: deque[tuple[psycopg.Connection, float]]) -> None:
        super().__init__(conn_id)
        self.idle = idle
        self.reused = False

    def connect(self) -> psycopg.Connection:
        """Return an idle connection, or open one."""
        self.reused = False
        with suppress(IndexError):
            connection, _ = self.idle.pop()
            self.reused = True
            return connection
        return super().connect()

    def release(self, connection: psycopg.Connection) -> None:
        """Keep a connection without an open transaction; close others."""
        if connection.info.transaction_status is TransactionStatus.IDLE:
            self.idle.append((connection, time.monotonic()))
        else:
            connection.close()


@lru_cache
def _statement(file: str) -> str:
    return (SQL / file).read_text()


def _sqlstate(error: AggregatorError) -> str | None:
    return error.__context__.sqlstate if isinstance(error.__context__, psycopg.Error) else None


def _is_timeout(error: AggregatorError) -> bool:
    # The server ends an idle transaction after the same time, for example while this machine is overloaded.
    timeouts = (psycopg.errors.QueryCanceled, psycopg.errors.IdleInTransactionSessionTimeout)
    return isinstance(error.__context__, timeouts)


@lru_cache
def database(conn_id: str) -> Database:
    """The database of a connection, one object in each process."""
    return Database(conn_id)
