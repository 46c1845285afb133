"""Threads whose transactions end when the main thread is interrupted, at any line."""

from __future__ import annotations

import signal
import sys
import threading
import time
from concurrent.futures import CancelledError, wait
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from airflow.sdk.exceptions import AirflowTaskTimeout

from aggregator.postgres import transaction_group
from aggregator.postgres.transaction_group import TransactionGroup

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

ITEMS = [0, 1]


@pytest.fixture
def table(connection: psycopg.Connection) -> psycopg.Connection:
    """An autocommit connection to a database with a table to write to."""
    connection.execute("create table public.done (item int)")
    return connection


@pytest.fixture
def group(table: psycopg.Connection, database_url: str) -> TransactionGroup:
    @contextmanager
    def transaction() -> Iterator[psycopg.Cursor]:
        with psycopg.connect(database_url) as connection, connection.cursor() as cursor:
            yield cursor

    return TransactionGroup(transaction)


def waiting(connection: psycopg.Connection) -> int:
    """How many other sessions wait for a lock."""
    query = "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
    ((count,),) = connection.execute(query).fetchall()
    return int(count)


def rows(connection: psycopg.Connection) -> list[Any]:
    return connection.execute("select item from public.done order by item").fetchall()


def others(connection: psycopg.Connection) -> list[Any]:
    query = """
        select pid from pg_stat_activity
        where datname = current_database() and backend_type = 'client backend' and pid <> pg_backend_pid()
    """
    return connection.execute(query).fetchall()


def wait_until(condition: Callable[[], bool]) -> None:
    give_up = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.02)


@contextmanager
def interrupted_at(line: int) -> Iterator[None]:
    """Raise a task's timeout as a signal handler does: at the n-th line that starts the threads, or then at once."""
    run = TransactionGroup.run.__code__
    executed = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal executed
        if frame.f_code not in {run, wait.__code__}:
            return None
        executed += event == "line"
        if (event == "line" and executed >= line) or frame.f_code is wait.__code__:
            sys.settrace(None)
            raise AirflowTaskTimeout
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)


@pytest.mark.parametrize("line", range(1, 13))
def test_interruption_while_threads_start_commits_nothing(
    table: psycopg.Connection, group: TransactionGroup, monkeypatch: pytest.MonkeyPatch, line: int
) -> None:
    # The transactions below are idle, so there is nothing to cancel.
    monkeypatch.setattr(transaction_group, "GRACE", timedelta(milliseconds=200))
    interrupted = threading.Event()

    def work(item: int) -> None:
        with group.transaction() as cursor:
            cursor.execute("insert into public.done values (%s)", [item])
            assert interrupted.wait(timeout=60)

    with pytest.raises(AirflowTaskTimeout), interrupted_at(line):
        group.run(work, ITEMS)
    interrupted.set()
    wait_until(lambda: not others(table))
    assert rows(table) == []


@pytest.mark.parametrize("how", ["timeout", "kill"])
def test_interruption_cancels_statements_that_run(
    table: psycopg.Connection, group: TransactionGroup, database_url: str, how: str
) -> None:
    def work(item: int) -> None:
        with group.transaction() as cursor:
            cursor.execute("insert into public.done values (%s)", [item])

    def interrupt(*_: object) -> None:
        if how == "timeout":
            raise AirflowTaskTimeout
        group.end()  # as Airflow calls on_kill at SIGTERM

    def signal_when_both_wait(main: int) -> None:
        with psycopg.connect(database_url, autocommit=True) as connection:
            wait_until(lambda: waiting(connection) == len(ITEMS))
        signal.pthread_kill(main, signal.SIGUSR1)

    before = signal.signal(signal.SIGUSR1, interrupt)
    sender = threading.Thread(target=signal_when_both_wait, args=[threading.main_thread().ident])
    expected = AirflowTaskTimeout if how == "timeout" else CancelledError
    try:
        with psycopg.connect(database_url) as holder:
            holder.execute("lock table public.done in exclusive mode")
            sender.start()
            with pytest.raises(expected):
                group.run(work, ITEMS)
            assert waiting(table) == 0, "the lock is still held"
    finally:
        sender.join()
        signal.signal(signal.SIGUSR1, before)
    wait_until(lambda: not others(table))
    assert rows(table) == []


def test_results_are_in_the_order_of_the_items(table: psycopg.Connection, group: TransactionGroup) -> None:
    def work(item: int) -> int:
        with group.transaction() as cursor:
            cursor.execute("insert into public.done values (%s)", [item])
        return item * 10

    assert group.run(work, ITEMS) == [0, 10]
    assert rows(table) == [(0,), (1,)]


def test_failed_item_lets_the_others_commit_and_is_raised(table: psycopg.Connection, group: TransactionGroup) -> None:
    def work(item: int) -> None:
        with group.transaction() as cursor:
            cursor.execute("insert into public.done values (%s)", [10 // item])

    with pytest.raises(ZeroDivisionError):
        group.run(work, ITEMS)
    assert rows(table) == [(10,)]
