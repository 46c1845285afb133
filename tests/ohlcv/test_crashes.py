"""A process that is killed during a run: no window is lost, none is built twice, and no lock remains."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from contextlib import closing, contextmanager
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

import psycopg
import pytest

from aggregator.postgres.migrations import migrate
from dev.airflow_api import NotYetError, wait
from tests.conftest import REPOSITORY
from tests.market_data import (
    DAY,
    HOUR,
    MINUTE,
    candle,
    candles,
    expected,
    ingest,
    register,
    run_of,
    stored,
    tasks,
    tick,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from dev.postgres import Postgres

pytestmark = pytest.mark.slow

SYMBOLS = {"A": "1m", "B": "5m", "C": "5m"}
END = DAY + 26 * HOUR
STALE_SECONDS = 900
WRITTEN_BY = {"plan": "ohlcv.tasks", "build": "ohlcv.bars", "finish": "ops.ops_runlog_progress"}
"""Step of a run → a table that this step writes and no earlier one."""

TRANSACTIONS = {"plan": 1, "build": 2, "finish": 1}
"""Number of transactions that a step has open in parallel."""

SYMBOLS_PER_SHARD = {"one task instance": 2, "mapped task instances": 1}
"""Two shards fit one task instance, three do not."""


def prepared(url: str, connection: psycopg.Connection) -> psycopg.Connection:
    """Migrate a database and insert candles up to `END`; return the connection."""
    migrate(partial(psycopg.connect, url), "market")
    connection.execute("select ohlcv.add_candle_partitions(%s, %s)", [DAY, END])
    register(connection, SYMBOLS)
    for symbol, base in SYMBOLS.items():
        ingest(connection, candles(symbol, base, DAY, END))
    return connection


@pytest.fixture
def market(database_url: str, connection: psycopg.Connection) -> psycopg.Connection:
    return prepared(database_url, connection)


@contextmanager
def worker(
    url: str, name: str, *ends: datetime, dies_after: str = "", symbols_per_shard: int = 2
) -> Iterator[subprocess.Popen[str]]:
    """Start a process that executes some runs; kill it at the end if it is still running."""
    with tempfile.TemporaryDirectory(prefix="aggregator-worker-") as folder:
        environment = {
            **os.environ,
            "AIRFLOW_HOME": folder,
            "AIRFLOW_CONN_MARKET_DB": url,
            "MAX_TASKS_PER_RUN": "1000",
            "MAX_WINDOWS_PER_TASK": "1000",
            "RUNNING_STALE_SECONDS": str(STALE_SECONDS),
            "OHLCV_SYMBOLS_PER_SHARD": str(symbols_per_shard),
            "PYTHONPATH": os.pathsep.join([str(REPOSITORY / "plugins"), str(REPOSITORY)]),
        }
        with subprocess.Popen(
            [sys.executable, "-m", "tests.ohlcv.worker", name, dies_after, *(end.isoformat() for end in ends)],
            env=environment,
            cwd=REPOSITORY,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        ) as process:
            try:
                yield process
            finally:
                process.kill()


def errors_of(process: subprocess.Popen[str]) -> str:
    """Error output of a process that has ended."""
    assert process.stderr
    return process.stderr.read()


def wait_for_backends(connection: psycopg.Connection, condition: str, count: int) -> None:
    """Wait until a number of transactions of the workers meet a condition."""

    def check() -> None:
        query = f"select count(*) from pg_stat_activity where application_name like 'ohlcv_aggregation/%' {condition}"
        ((found,),) = connection.execute(query).fetchall()
        if found != count:
            msg = f"{found} transactions of workers {condition}"
            raise NotYetError(msg)

    wait(check, seconds=300, every=0.1)


def built_once(connection: psycopg.Connection) -> bool:
    """Whether no bar was computed a second time, not even with the same values."""
    ((built,),) = connection.execute("select sum(total_bars) from ohlcv.tasks").fetchall()
    return int(built) == len(stored(connection))


def assert_all_is_built_once(connection: psycopg.Connection) -> None:
    """A day later, when every task is due again, no window is built a second time."""
    later = END + 24 * HOUR + MINUTE
    tick(connection, run_of(later))
    assert stored(connection) == expected(connection, later)
    assert set(tasks(connection, "status, owner, hard_fails")) == {("idle", None, 0)}
    assert built_once(connection)


def assert_next_runs_complete_it(connection: psycopg.Connection) -> None:
    """Locks of a killed run are taken over at the configured age, by the clock of the database."""
    claimed = tasks(connection, "claimed_at", "status = 'running'")
    next_run = run_of(END + 6 * MINUTE)
    tick(connection, next_run)
    assert len(tasks(connection, "symbol", "status = 'running'")) == len(claimed), "young locks are respected"
    age = f"claimed_at = claimed_at - interval '{STALE_SECONDS} seconds'"
    connection.execute(f"update ohlcv.tasks set {age} where status = 'running'")
    tick(connection, run_of(END + 11 * MINUTE))
    assert stored(connection) == expected(connection, END + 11 * MINUTE)
    assert_all_is_built_once(connection)


def kill_before_commit(connection: psycopg.Connection, url: str, step: str, symbols_per_shard: int) -> None:
    """Execute a run, and kill it while a step waits with an open transaction."""
    with psycopg.connect(url) as holder:
        holder.execute(f"lock table {WRITTEN_BY[step]} in share mode")
        with worker(url, "dies", END, symbols_per_shard=symbols_per_shard) as process:
            wait_for_backends(connection, "and wait_event_type = 'Lock'", TRANSACTIONS[step])
            process.kill()
        wait_for_backends(connection, "", 0)


def finish_run(url: str, name: str = "dies") -> None:
    """Execute the run again, as a retry does."""
    with worker(url, name, END) as process:
        assert process.wait(timeout=300) == 0, errors_of(process)


@pytest.mark.parametrize("symbols_per_shard", SYMBOLS_PER_SHARD.values(), ids=SYMBOLS_PER_SHARD)
@pytest.mark.parametrize("step", WRITTEN_BY)
@pytest.mark.parametrize("committed", [False, True], ids=["before its commit", "after its commit"])
def test_killed_step_loses_no_window_and_builds_none_twice(
    market: psycopg.Connection, database_url: str, step: str, committed: bool, symbols_per_shard: int
) -> None:
    if committed:
        with worker(database_url, "dies", END, dies_after=step, symbols_per_shard=symbols_per_shard) as process:
            assert process.wait(timeout=300) == -signal.SIGKILL, errors_of(process)
    else:
        kill_before_commit(market, database_url, step, symbols_per_shard)
    assert_next_runs_complete_it(market)


@pytest.mark.parametrize("step", WRITTEN_BY)
def test_retry_of_a_killed_step_does_all_of_it(market: psycopg.Connection, database_url: str, step: str) -> None:
    kill_before_commit(market, database_url, step, symbols_per_shard=2)
    finish_run(database_url)
    assert stored(market) == expected(market, END + MINUTE)
    totals = market.execute("select status, (totals ->> 'bars')::int from ops.ops_runlog").fetchall()
    assert totals == [("success", len(stored(market)))]
    assert_all_is_built_once(market)


def test_restart_of_postgres_is_transient_and_the_retry_succeeds(own_postgres: Postgres) -> None:
    url = own_postgres.ensure_database("market")
    with closing(psycopg.connect(url, autocommit=True)) as connection, closing(psycopg.connect(url)) as holder:
        prepared(url, connection)
        holder.execute("lock table ohlcv.bars in share mode")
        with worker(url, "restarted", END) as process:
            wait_for_backends(connection, "and wait_event_type = 'Lock'", TRANSACTIONS["build"])
            own_postgres.restart("immediate")
            _, errors = process.communicate(timeout=300)
    assert "TransientError" in errors
    finish_run(url, "restarted")
    with psycopg.connect(url, autocommit=True) as connection:
        assert stored(connection) == expected(connection, END + MINUTE)
        assert_all_is_built_once(connection)


def test_concurrent_runs_during_ingest_build_all_windows(market: psycopg.Connection, database_url: str) -> None:
    ends = [END + number * 15 * MINUTE for number in range(16)]
    with (
        worker(database_url, "one", *ends) as one,
        worker(database_url, "two", *ends, symbols_per_shard=1) as two,
    ):
        late = 0
        while one.poll() is None or two.poll() is None:
            late += 1
            ingest(market, [candle("A", "1m", DAY + late % 1500 * MINUTE, 50 + late % 7)])
            new = END + late % 240 * MINUTE
            # Another price in each round, so that windows change while they are built.
            ingest(market, [candle("A", "1m", new, 60 + late % 11)])
        assert (one.returncode, two.returncode) == (0, 0), errors_of(one) + errors_of(two)
    last = END + 6 * HOUR + MINUTE
    tick(market, run_of(last))
    assert stored(market) == expected(market, last)
    assert tasks(market, "symbol", "status <> 'idle'") == []
    assert market.execute("select from ohlcv.stale_windows").fetchall() == []


def test_run_that_is_due_years_off_moves_no_window(market: psycopg.Connection) -> None:
    as_of = END + MINUTE
    tick(market, run_of(as_of - timedelta(days=3650)))
    assert stored(market) == {}
    assert set(tasks(market, "status, cursor, total_skipped_windows")) == {("idle", None, 0)}
    tick(market, run_of(as_of + timedelta(days=365)))
    ahead = tasks(market, "symbol, timeframe, cursor")
    ingest(market, candles("A", "1m", END, END + 40 * HOUR, volume=3))
    for hours in range(1, 41):
        tick(market, run_of(as_of + hours * HOUR))
        tick(market, run_of(as_of - timedelta(days=hours)))
    assert stored(market) == expected(market, as_of + 40 * HOUR)
    assert all(
        (symbol, frame) == (same, too) and cursor >= before
        for (symbol, frame, cursor), (same, too, before) in zip(
            tasks(market, "symbol, timeframe, cursor"), ahead, strict=True
        )
    )
