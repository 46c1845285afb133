"""One PostgreSQL transaction that ends with its task, and errors that keep row values to themselves."""

from __future__ import annotations

import re
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, cast

import psycopg
from airflow.providers.postgres.hooks.postgres import PostgresHook
from psycopg.types.json import set_json_dumps

from aggregator.core import connections
from aggregator.core.errors import (
    AggregatorError,
    PermanentError,
    TransientError,
    is_transient_sqlstate,
)
from aggregator.core.paths import SQL
from aggregator.postgres import session
from aggregator.postgres.values import json_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from airflow.sdk import Connection, Context
    from psycopg.rows import TupleRow

MAX_APPLICATION_NAME = 63
"""Bytes of ``application_name`` that PostgreSQL keeps (NAMEDATALEN - 1)."""

CONNECTION_CHECK_INTERVAL = timedelta(seconds=1)
"""How often a running statement looks whether its client is still there."""

_WRONG_SETTING = re.compile(r"invalid (\w+ value|integer value|port number)\b|could not match \d+ \w+ \w+")
"""What libpq says of a setting that it cannot use, without the value. Trying again does not help."""

_UNSUPPORTED_PARAMETER = "unsupported startup parameter"
"""What PgBouncer says of ``options``."""

_DATA_EXCEPTION = "22"
_ENCODING = frozenset({"22021", "22P05"})
_USE_UTF8 = "the encoding of the database does not have this character: use a database whose encoding is UTF8"
_NOT_THERE = frozenset({"3F000", "42P01", "42703", "42883"})
"""SQLSTATEs of a schema, table, column or function that does not exist."""


class PostgresTransactionHook(PostgresHook):
    """Airflow's ``PostgresHook`` with one way to work: everything, or nothing, in time.

    Connections are configured as for ``PostgresHook``; a ``connect_timeout`` in the connection's extra bounds what no
    statement timeout can.
    """

    # Arguments of psycopg, not of libpq. `session.begin` decides what they are.
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
        """Open the transaction of a task: named after it, and ending with its ``execution_timeout``.

        Args:
            context: Airflow's context of the task instance that runs.
            read_only: Refuse every write to a table that is not temporary.

        Yields:
            A cursor as :meth:`transaction` yields it.

        Raises:
            AggregatorError: As :meth:`transaction` does.
        """
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
        """Open a connection and exactly one transaction on it: committed at the end, rolled back on any exception.

        No statement outlives its task (spec: databases): one that runs longer than ``timeout`` is cancelled, and one
        whose client is gone, because it was killed or closed the connection, ends within about a second.

        Args:
            timeout: The longest that a statement, or a pause between two, may take; None for the server's own settings.
            application_name: Shown by ``pg_stat_activity``; trimmed to 63 bytes.
            read_only: Refuse every write to a table that is not temporary.

        Yields:
            A cursor that returns tuples, in a transaction as :func:`aggregator.postgres.session.begin` opens it.

        Raises:
            TransientError: PostgreSQL could not be reached, or failed in a way that another try may not meet.
            PermanentError: PostgreSQL refused a statement for what it says, or the connection is unknown or wrong.
        """
        connection = self.connect()
        try:
            with session.begin(connection, _settings(timeout, application_name, read_only=read_only)) as cursor:
                yield cursor
            connection.commit()
        except BaseException as error:
            # Where this is not possible any more (a statement still runs, the connection broke), closing does the same.
            with suppress(psycopg.Error):
                connection.rollback()
            if isinstance(error, psycopg.Error):
                raise _translate(error, self.get_conn_id(), read_only=read_only) from None
            raise
        finally:
            connection.close()

    def connect(self) -> psycopg.Connection:
        """Open a connection, which the caller closes.

        Raises:
            TransientError: PostgreSQL could not be reached, or what Airflow keeps connections in.
            PermanentError: The connection is unknown, or libpq does not understand it.
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
                msg = (
                    f"The pooler of {where} refused a start-up parameter: {reason}. Remove `options` from the extra of "
                    f"connection `{conn_id}`, and PGOPTIONS from the environment. Nothing was read or stored."
                )
                raise PermanentError(msg) from None
            advice = f" {connections.PERCENT_ENCODE}" if _is_login_refused(settings, reason) else ""
            msg = f"PostgreSQL cannot be reached by {where}: {reason}. Nothing was read or stored.{advice}"
            raise TransientError(msg) from None
        except psycopg.Error:
            # The text may quote the setting that libpq did not understand, so it stays out.
            msg = f"libpq refused the settings of {where}. Check its host, port, database and extra."
            if settings.login is None:
                msg += f" {connections.PERCENT_ENCODE}"
            raise PermanentError(msg) from None
        set_json_dumps(json_text, connection)
        return connection


def _is_login_refused(settings: Connection, reason: str) -> bool:
    # Without a login, a URI may have been cut inside its password.
    return "authentication" in reason or settings.login is None


def execute(
    file: str, parameters: Mapping[str, Any], conn_id: str, *, timeout: timedelta, application_name: str
) -> list[tuple[Any, ...]]:
    """Execute one statement in a transaction of its own.

    Args:
        file: Of the statement, below ``include/sql``.
        parameters: Its placeholders' values.
        conn_id: Connection of the database.
        timeout: As for :meth:`PostgresTransactionHook.transaction`.
        application_name: Likewise.

    Returns:
        Its rows.

    Raises:
        AggregatorError: As :meth:`PostgresTransactionHook.transaction` does.
    """
    statement = (SQL / file).read_text()
    hook = PostgresTransactionHook(conn_id)
    with hook.transaction(timeout=timeout, application_name=application_name) as cursor:
        return cursor.execute(statement, parameters).fetchall()


def _remaining(execution_timeout: timedelta | None, started: datetime | None) -> timedelta | None:
    """What is left of a task's time; all of it for a resumed task, for which Airflow starts the clock again."""
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
    # Zero would mean no limit at all.
    return str(max(1, duration // timedelta(milliseconds=1)))


def _translate(error: psycopg.Error, conn_id: str, *, read_only: bool) -> AggregatorError:
    """Our error for psycopg's, without anything that can hold a row's values."""
    if error.sqlstate is None:
        return _translate_client_side(error, conn_id)
    message = f"PostgreSQL refused a statement on connection {conn_id}: {describe(error)}"
    message += ". The transaction was rolled back. Row values are left out here; the server's log may have them."
    if error.sqlstate in _NOT_THERE:
        message += " If the database is not up to date, this makes it so: python -m aggregator.postgres.migrations"
    # In a transaction that asked for it, read-only is not a failover: the statement writes.
    refuses_write = read_only and isinstance(error, psycopg.errors.ReadOnlySqlTransaction)
    is_transient = is_transient_sqlstate(error.sqlstate) and not refuses_write
    return (TransientError if is_transient else PermanentError)(message)


def describe(error: psycopg.Error) -> str:
    """What a server's error says, without anything that can hold a row's values.

    DETAIL and CONTEXT quote values, and so do the messages of class 22 (data exceptions).

    Args:
        error: An error with a SQLSTATE.

    Returns:
        SQLSTATE and condition, then the message and the names of what it is about, as far as they are known.
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
            f"The connection {conn_id} to PostgreSQL broke: {reason}. The transaction was rolled back, unless this "
            "happened while it was being committed: then the server alone knows."
        )
    if isinstance(error, psycopg.NotSupportedError):
        return PermanentError(
            f"psycopg cannot use connection {conn_id}: {error}. Use a database whose encoding is UTF8."
        )
    return PermanentError(
        f"psycopg could not send a statement on connection {conn_id}, or read its result ({type(error).__name__}): a "
        "placeholder without a parameter, a '%' that is not doubled, a value that has no PostgreSQL type, or a date "
        "that Python cannot hold (infinity, or after the year 9999). The transaction was rolled back."
    )
