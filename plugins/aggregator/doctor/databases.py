"""Checks of the products' databases, derived from the catalog."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import psycopg

from aggregator.core.catalog import ALL, CATALOG, WRITE
from aggregator.core.errors import PermanentError
from aggregator.core.paths import SQL
from aggregator.doctor.rows import Row, Status, clock
from aggregator.n8n.addresses import is_public
from aggregator.postgres.hook import PostgresTransactionHook
from aggregator.postgres.migrations import folder_of, pending

if TYPE_CHECKING:
    from collections.abc import Iterator

QUERY_TIMEOUT = timedelta(seconds=10)

_OLDEST = 15_00_00

ALERTS = {"ops_db": dict.fromkeys(("ops.dead_letters", "ops.alerts", "ops.alert_messages"), ALL)}
"""Connection → table → rights, for what belongs to no DAG."""


def needed_rights() -> dict[str, dict[str, str]]:
    """The rights that the roles of all connections need: connection → table → rights."""
    needed = {conn_id: {**rights} for conn_id, rights in ALERTS.items()}
    for facts in CATALOG.values():
        if facts.conn_id:
            tables = needed.setdefault(facts.conn_id, {})
            tables.update({**dict.fromkeys(facts.writes, WRITE), **facts.rights})
    return needed


def check(conn_id: str, rights: dict[str, str]) -> Iterator[Row]:
    """Check a database: server, TLS, pooler, clock, rights and migrations.

    Args:
        conn_id: Its connection.
        rights: Table → rights that the role needs.

    Raises:
        AggregatorError: The database cannot be reached, or refused a query.
    """
    database = conn_id.removesuffix("_db")
    with PostgresTransactionHook(conn_id).transaction(
        timeout=QUERY_TIMEOUT, application_name="aggregator/doctor", read_only=True
    ) as cursor:
        sent = datetime.now(UTC)
        cursor.execute("select clock_timestamp(), pg_backend_pid()")
        now, backend = cursor.fetchone() or ()
        received = datetime.now(UTC)
        yield _server(conn_id, cursor.connection, behind_pooler=backend != cursor.connection.info.backend_pid)
        yield clock(conn_id, (now - sent - (received - sent) / 2).total_seconds())
        yield _rights(cursor, conn_id, rights)
        try:
            missing = pending(cursor, database)
        except (PermanentError, psycopg.errors.InsufficientPrivilege) as error:
            denied = isinstance(error, psycopg.Error)
            found = "the role may not read them" if denied else str(error)
            advice = f"Grant usage on schema migrations and select on its tables to the role of {conn_id}."
            status = Status.WARNING if denied else Status.FAILURE
            yield Row(conn_id, "migrations", status, found, advice if denied else "")
            return
    advice = f"Run: python -m aggregator.postgres.migrations {database}" if missing else ""
    found = f"missing: {', '.join(missing)}" if missing else "up to date"
    yield Row(conn_id, "migrations", Status.FAILURE if missing else Status.OK, found, advice)


def _server(conn_id: str, connection: psycopg.Connection[Any], *, behind_pooler: bool) -> Row:
    info = connection.info
    version = info.server_version
    where = "through a pooler" if behind_pooler else "direct"
    encrypted = connection.pgconn.ssl_in_use
    # A Unix socket has no address.
    public = not encrypted and bool(info.hostaddr) and is_public(str(ip_address(info.hostaddr)))
    tls = "TLS" if encrypted else "no TLS, public address" if public else "no TLS, private address"
    found = f"PostgreSQL {version // 10_000}.{version % 10_000}, {where}, {tls}"
    if version < _OLDEST:
        return Row(conn_id, "connection", Status.FAILURE, found, "Use PostgreSQL 15 or newer.")
    if public:
        advice = f"Set sslmode=verify-full, or at least require, in the extra of {conn_id}."
        return Row(conn_id, "connection", Status.FAILURE, found, advice)
    return Row(conn_id, "connection", Status.OK, found)


def _rights(cursor: psycopg.Cursor[Any], conn_id: str, rights: dict[str, str]) -> Row:
    functions = [path.stem for path in folder_of(conn_id.removesuffix("_db")).glob("functions/*.sql")]
    parameters = {
        "tables": [*rights],
        "rights": [*rights.values()],
        "functions": functions,
        # Upserts use a staging table.
        "temporary": WRITE in rights.values(),
    }
    statement = (SQL / "doctor/queries/missing_rights.sql").read_text()
    if missing := [name for (name,) in cursor.execute(statement, parameters).fetchall()]:
        advice = f"Migrate, then grant them to the role of {conn_id}: docs/configure/settings.md."
        return Row(conn_id, "rights", Status.FAILURE, f"missing: {', '.join(missing)}", advice)
    return Row(conn_id, "rights", Status.OK, f"{len(rights)} tables, {len(functions)} functions")
