"""PostgreSQL transactions that end with their task, and errors without values of rows."""

from __future__ import annotations

import re
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, cast

import psycopg
from airflow.providers.postgres.hooks.postgres import PostgresHook
from psycopg.types.json import set_json_dumps

from aggregator.core import connections
from aggregator.core.errors import AggregatorError, PermanentError, TransientError, is_transient_sqlstate
from aggregator.postgres import session
from aggregator.postgres.values import json_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow.sdk import Connection, Context
    from psycopg.rows import TupleRow

MAX_APPLICATION_NAME = 63
"""Bytes of ``application_name`` that PostgreSQL keeps (NAMEDATALEN - 1)."""

CONNECTION_CHECK_INTERVAL = timedelta(seconds=1)
"""How often the server checks, during a statement, whether the client is still connected."""

_WRONG_SETTING = re.compile(r"invalid (\w+ value|integer value|port number)\b|could not match \d+ \w+ \w+")
"""libpq's message about a setting that it cannot use, without the value. A retry does not help."""

_UNSUPPORTED_PARAMETER = "unsupported startup parameter"
"""PgBouncer's message about ``options``."""

_DATA_EXCEPTION = "22"
_ENCODING = frozenset({"22021", "22P05"})
_USE_UTF8 = "PostgreSQL stores no NUL character, and some characters only in a database whose encoding is UTF8"
_NOT_THERE = frozenset({"3F000", "42P01", "42703", "42883"})
"""SQLSTATEs of a schema, table, column or function that does not exist."""


class PostgresTransactionHook(PostgresHook):
    """Airflow's ``PostgresHook``, for one transaction with a time limit.

    Connections are configured as for ``PostgresHook``. A ``connect_timeout`` in the connection's extra limits the time
    to connect, which no statement timeout does.
    """

    # Arguments of psycopg instead of libpq. `session.begin` sets them.
    ignored_extra_options = PostgresHook.ignored_extra_options | {
        "autocommit",
        "context",
        "cursor_factory",
        "prepare_threshold",
        "row_factory",
    }

    @classmethod
    def get_connection(cls, conn_id: str) -> Connection:
        """See :func:`aggregator.core.connections.get`."""
        return connections.get(conn_id)

    @contextmanager
    def task_transaction(self, context: Context, *, read_only: bool = False) -> Iterator[psycopg.Cursor[TupleRow]]:
        """Open the transaction of a task, with its name and what is left of its ``execution_timeout``."""
        task_instance = context["ti"]
        with self.transaction(
            timeout=_remaining(context["task"].execution_timeout, task_instance.start_date),
            application_name=f"{task_instance.dag_id}/{task_instance.task_id}/{task_instance.run_id}",
            read_only=read_only,
        ) as cursor:
            yield cursor

    @contextmanager
    def transaction(
        self, *, timeout: timedelta | None, application_name: str = "aggregator", read_only: bool = False
    ) -> Iterator[psycopg.Cursor[TupleRow]]:
        """Open a connection and one transaction, which is committed at the end and rolled back on any exception.

        No statement outlives its task (spec: databases). The server cancels a statement after ``timeout``, and about a
        second after its client was killed or disconnected.

        Args:
            timeout: Limit of each statement, and of each pause between two; None for the server's own settings.
            application_name: Name in ``pg_stat_activity``; trimmed to 63 bytes.
            read_only: Refuse every write, except to temporary tables.

        Yields:
            A cursor that returns tuples, in a transaction as :func:`aggregator.postgres.session.begin` opens it.

        Raises:
            TransientError: PostgreSQL was unreachable, or refused a statement for a reason that may pass.
            PermanentError: PostgreSQL refused a statement for its content, or the connection is unknown or wrong.
        """
        connection = self.connect()
        try:
            with session.begin(connection, _settings(timeout, application_name, read_only=read_only)) as cursor:
                yield cursor
            connection.commit()
        except BaseException as error:
            # If this is impossible (a statement still runs, the connection broke), closing has the same effect.
            with suppress(psycopg.Error):
                connection.rollback()
            if isinstance(error, psycopg.Error):
                raise _translate(error, self.get_conn_id(), read_only=read_only) from None
            raise
        finally:
            self.release(connection)

    def release(self, connection: psycopg.Connection) -> None:
        """Close a connection after its transaction; a subclass may keep it instead."""
        connection.close()

    def connect(self) -> psycopg.Connection:
        """Open a connection, which the caller closes.

        Raises:
            TransientError: PostgreSQL, or the store of Airflow's connections, was unreachable.
            PermanentError: The connection is unknown, or libpq refused its settings.
        """
        conn_id = self.get_conn_id()
        settings = self.connection
        host = settings.extra_dejson.get("host", settings.host)
        where = f"connection {conn_id} (host {host}, port {settings.port or 5432})"
        try:
            connection = cast("psycopg.Connection", self.get_conn())
        except psycopg.OperationalError as error:
            reason = " ".join(str(error).split())
            if settings.password:
                reason = reason.replace(settings.password, "***")
            if setting := _WRONG_SETTING.search(reason):
                msg = f"libpq refused the settings of {where}: {setting[0]}. Correct the connection's extra."
                raise PermanentError(msg) from None
            if _UNSUPPORTED_PARAMETER in reason:
                raise PermanentError(
                    f"The pooler of {where} refused a start-up parameter: {reason}. Nothing was read or stored. Remove "
                    f"`options` from the extra of connection `{conn_id}`, and PGOPTIONS from the environment."
                ) from None
            # A URI without a login may have been cut inside its password.
            refused = "authentication" in reason or settings.login is None
            advice = f" {connections.PERCENT_ENCODE}" if refused else ""
            msg = f"PostgreSQL cannot be reached by {where}: {reason}. Nothing was read or stored.{advice}"
            raise TransientError(msg) from None
        except psycopg.Error:
            # Without the text, which may quote the setting.
            msg = f"libpq refused the settings of {where}. Check its host, port, database and extra."
            if settings.login is None:
                msg += f" {connections.PERCENT_ENCODE}"
            raise PermanentError(msg) from None
        set_json_dumps(json_text, connection)
        return connection


def _remaining(execution_timeout: timedelta | None, started: datetime | None) -> timedelta | None:
    """The rest of a task's time limit; the whole limit for a resumed task, for which Airflow restarts the clock."""
    if execution_timeout is None or started is None:
        return execution_timeout
    remaining = execution_timeout - (datetime.now(UTC) - started)
    return remaining if remaining > timedelta() else execution_timeout


def _settings(timeout: timedelta | None, application_name: str, *, read_only: bool) -> dict[str, str]:
    settings = {
        "application_name": application_name.encode()[:MAX_APPLICATION_NAME].decode(errors="ignore"),
        "client_connection_check_interval": _milliseconds(CONNECTION_CHECK_INTERVAL),
    }
    if timeout is not None:
        settings["statement_timeout"] = settings["idle_in_transaction_session_timeout"] = _milliseconds(timeout)
    if read_only:
        settings["transaction_read_only"] = "on"
    return settings


def _milliseconds(duration: timedelta) -> str:
    # Zero would mean no limit.
    return str(max(1, duration // timedelta(milliseconds=1)))


def _translate(error: psycopg.Error, conn_id: str, *, read_only: bool) -> AggregatorError:
    """Convert an error of psycopg, without texts that can contain values of rows."""
    if error.sqlstate is None:
        return _translate_client_side(error, conn_id)
    message = f"PostgreSQL refused a statement on connection {conn_id}: {describe(error)}"
    message += ". The transaction was rolled back. Values of rows are omitted; the server's log may contain them."
    if error.sqlstate in _NOT_THERE:
        message += " If the database is not up to date, run: python -m aggregator.postgres.migrations"
    # In a transaction that is read-only on purpose, this SQLSTATE is no failover.
    refuses_write = read_only and isinstance(error, psycopg.errors.ReadOnlySqlTransaction)
    is_transient = is_transient_sqlstate(error.sqlstate) and not refuses_write
    return (TransientError if is_transient else PermanentError)(message)


def describe(error: psycopg.Error) -> str:
    """Describe an error of the server, without texts that can contain values of rows.

    DETAIL, CONTEXT and the messages of class 22 (data exceptions) quote values.

    Returns:
        SQLSTATE and condition, then the message and the names of the objects, as far as they are known.
    """
    diagnostic = error.diag
    condition = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(error).__name__).lower()
    message = f"{error.sqlstate} {condition}"
    if not (error.sqlstate or "").startswith(_DATA_EXCEPTION) and diagnostic.message_primary:
        message += f": {diagnostic.message_primary}"
    names = {
        "table": ".".join(filter(None, [diagnostic.schema_name, diagnostic.table_name])),
        "column": diagnostic.column_name,
        "type": diagnostic.datatype_name,
        "constraint": diagnostic.constraint_name,
    }
    if known := ", ".join(f"{kind} {name}" for kind, name in names.items() if name):
        message += f" ({known})"
    if error.sqlstate in _ENCODING:
        message += f" ({_USE_UTF8})"
    return message


def _translate_client_side(error: psycopg.Error, conn_id: str) -> AggregatorError:
    if isinstance(error, psycopg.OperationalError):
        reason = " ".join(str(error).split())
        return TransientError(
            f"Connection {conn_id} to PostgreSQL broke: {reason}. The transaction was rolled back, unless it broke "
            "during the commit: then the transaction may be stored."
        )
    if isinstance(error, psycopg.NotSupportedError):
        return PermanentError(
            f"psycopg cannot use connection {conn_id}: {error}. Use a database whose encoding is UTF8."
        )
    return PermanentError(
        f"psycopg could not send a statement on connection {conn_id} or read its result ({type(error).__name__}). The "
        "transaction was rolled back. Possible causes: a placeholder without a parameter, a '%' that is not doubled, a "
        "value without a PostgreSQL type, a date outside Python's range (infinity, or after the year 9999)."
    )
