"""The tasks of the DAG as Airflow executes them: scheduled runs, cleared runs, rebuilds and failed runs."""

from __future__ import annotations

import signal
import threading
import time
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
import time_machine
from airflow.sdk.exceptions import AirflowTaskTimeout

from aggregator.core.errors import PermanentError, TransientError
from aggregator.ohlcv import rebuild
from aggregator.postgres.migrations import migrate
from tests.airflow_context import context
from tests.market_data import DAY, MINUTE, candle, candles, expected, ingest, register, stored, tasks, versions

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow.dag_processing.dagbag import DagBag

NO_PARAMS = {"startDate": None, "endDate": None, "symbols": None, "timeframes": None, "dryRun": True}
SYMBOLS = {"A": "1m", "B": "5m"}
END = DAY + timedelta(hours=24)


@pytest.fixture
def dag(dag_bag: DagBag) -> Any:
    return dag_bag.dags["ohlcv_aggregation"]


@pytest.fixture(autouse=True)
def market(monkeypatch: pytest.MonkeyPatch, migrated: Callable[..., psycopg.Connection]) -> psycopg.Connection:
    """An autocommit connection to the database of the tasks, with one day of candles."""
    connection: psycopg.Connection = migrated("market")
    monkeypatch.setenv("MAX_TASKS_PER_RUN", "1000")
    monkeypatch.setenv("MAX_WINDOWS_PER_TASK", "1000")
    connection.execute("select ohlcv.add_candle_partitions(%s, %s)", [DAY, END])
    register(connection, SYMBOLS)
    for symbol, base in SYMBOLS.items():
        ingest(connection, candles(symbol, base, DAY, END))
    return connection


def run(dag: Any, end: datetime = END, *, failed: str | None = None, run_id: str | None = None, **params: Any) -> Any:
    """Execute the run of the interval that ends at ``end``; return the results of ``finish`` and ``aggregate``."""
    results: dict[str, Any] = {}

    def execute(task_id: str, **fields: Any) -> Any:
        task = dag.get_task(task_id)
        if task.is_mapped:
            task = task.unmap(fields)
        given = context(task, end - 5 * MINUTE, end, failed_tasks=[failed] if failed else [])
        given["run_id"] = given["dag_run"].run_id = given["ti"].run_id = run_id or given["dag_run"].run_id
        given["params"] = NO_PARAMS | params
        given["dag"] = dag
        return task.execute(given)

    instances = execute("plan") if failed != "plan" else []
    if not failed:
        results["aggregate"] = [execute("aggregate", shards=shards) for shards in instances]
    return execute("finish"), results.get("aggregate")


def test_run_builds_the_windows_that_ended_before_it_was_due(dag: Any, market: psycopg.Connection) -> None:
    done, instances = run(dag)
    assert stored(market) == expected(market, END + MINUTE)
    assert done["inserted"] == len(stored(market)) == 2 * (96 + 24 + 6 + 1)
    assert [(instance["tasks"], instance["dry_run"]) for instance in instances] == [(8, False)]
    status = "status, totals ->> 'inserted', run_id, finished_at is not null"
    assert market.execute(f"select {status} from ops.ops_runlog").fetchall() == [
        ("success", str(done["inserted"]), f"scheduled__{END.isoformat()}", True)
    ]
    statistics = "select symbol, timeframe, bars from ops.ops_runlog_tasks where timeframe = '1d' order by symbol"
    assert market.execute(statistics).fetchall() == [("A", "1d", 1), ("B", "1d", 1)]
    names = "select jsonb_path_query_array(checkpoints, '$[*].name') from ops.ops_runlog"
    assert market.execute(names).fetchone() == (["planned", "aggregated"],)


def test_plan_reports_tasks_that_the_limit_leaves_waiting(
    dag: Any, market: psycopg.Connection, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MAX_TASKS_PER_RUN", "3")
    run(dag)
    planned = "select checkpoints -> 0 ->> 'due', checkpoints -> 0 ->> 'claimed' from ops.ops_runlog"
    assert market.execute(planned).fetchone() == ("8", "3")
    assert "due=8 claimed=3 symbols=2 shards=1" in caplog.text
    assert "5 of 8 due tasks wait for later runs. Raise MAX_TASKS_PER_RUN (3)" in caplog.text


def test_task_instance_processes_two_shards(
    dag: Any, market: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OHLCV_SYMBOLS_PER_SHARD", "1")
    register(market, {"C": "5m"})
    ingest(market, candles("C", "5m", DAY, END))
    done, instances = run(dag)
    assert len(instances) == 2
    assert sum(instance["inserted"] for instance in instances) == done["inserted"] == 3 * (96 + 24 + 6 + 1)
    assert stored(market) == expected(market, END + MINUTE)


@pytest.mark.slow
def test_run_without_due_tasks_closes_its_log(dag: Any, market: psycopg.Connection) -> None:
    run(dag)
    done, instances = run(dag, END + 5 * MINUTE)
    assert (done["bars"], instances) == (0, [])
    assert market.execute("select status from ops.ops_runlog").fetchall() == [("success",)] * 2


@pytest.mark.slow
def test_cleared_run_rebuilds_the_windows_of_its_interval_and_counts_changes(
    dag: Any, market: psycopg.Connection
) -> None:
    run(dag)
    noon = DAY + timedelta(hours=12)
    run(dag, noon)
    before = versions(market)
    done, _ = run(dag, noon)
    assert (done["unchanged"], done["updated"], done["inserted"]) == (2 * 3, 0, 0)
    assert versions(market) == before
    market.execute("update ohlcv.bars set high = 0 where ts = %s and timeframe = '4h'", [noon - timedelta(hours=4)])
    done, _ = run(dag, noon)
    assert (done["unchanged"], done["updated"], done["inserted"]) == (2 * 2 + 2, 2, 0), (
        "and the day that contains the changed bars"
    )
    assert stored(market) == expected(market, END + MINUTE)


@pytest.mark.slow
def test_dry_run_stores_nothing_and_the_rebuild_stores_the_same_counts(dag: Any, market: psycopg.Connection) -> None:
    run(dag)
    market.execute("update ohlcv.bars set high = 0; delete from ohlcv.bars where timeframe = '1h' and symbol = 'B'")
    wrong = stored(market)
    rebuilding: dict[str, Any] = {"startDate": "2026-03-08", "symbols": ["A"]}
    _, (dry,) = run(dag, END, run_id="manual__1", **rebuilding)
    assert stored(market) == wrong
    done, (kept,) = run(dag, END, run_id="manual__2", dryRun=False, **rebuilding)
    assert (dry["dry_run"], kept) == (True, {**dry, "dry_run": False})
    assert (done["updated"], done["unchanged"], done["inserted"]) == (96 + 24 + 6 + 1, 0, 0)
    right = {key: bar for key, bar in expected(market, END + MINUTE).items() if key[0] == "A"}
    assert {key: bar for key, bar in stored(market).items() if key[0] == "A"} == right
    run(dag, END, run_id="manual__3", dryRun=False, startDate="2026-03-08")
    assert stored(market) == expected(market, END + MINUTE)
    before = versions(market)
    _, (again,) = run(dag, END, run_id="manual__4", dryRun=False, startDate="2026-03-08")
    assert again["unchanged"] == again["bars"] == len(before)
    assert versions(market) == before
    assert set(tasks(market, "status, owner")) == {("idle", None)}


@pytest.mark.slow
@pytest.mark.parametrize("how", ["retried", "cleared"])
def test_interrupted_rebuild_continues_where_it_stopped(
    dag: Any, market: psycopg.Connection, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    run(dag)
    market.execute("update ohlcv.bars set high = 0")
    monkeypatch.setattr(rebuild, "SYMBOLS_PER_CHUNK", 1)
    rebuild_chunk = rebuild._rebuild_chunk

    def fail(transaction: Any, run: Any, chunk: Any, *, dry_run: bool) -> Any:
        if chunk.symbols == ["B"]:
            raise TransientError("killed")
        return rebuild_chunk(transaction, run, chunk, dry_run=dry_run)

    monkeypatch.setattr(rebuild, "_rebuild_chunk", fail)
    rebuilding: dict[str, Any] = {"run_id": "manual__1", "dryRun": False, "startDate": "2026-03-08"}
    with pytest.raises(TransientError):
        run(dag, END, **rebuilding)
    if how == "cleared":
        with pytest.raises(PermanentError, match="Clear this run to continue the rebuild where it stopped"):
            run(dag, END, failed="aggregate", **rebuilding)
    monkeypatch.setattr(rebuild, "_rebuild_chunk", rebuild_chunk)
    register(market, {"AA": "5m"})

    done, (again,) = run(dag, END, **rebuilding)

    assert again["bars"] == 96 + 24 + 6 + 1, "A was stored before"
    assert done["updated"] == 2 * (96 + 24 + 6 + 1), "the totals of the run include A"
    assert stored(market) == expected(market, END + MINUTE)
    assert market.execute("select from ops.ops_runlog_progress").fetchall() == []
    _, (once_more,) = run(dag, END, **rebuilding)
    assert once_more["unchanged"] == 2 * (96 + 24 + 6 + 1), "a clear of a finished rebuild repeats all of it"


@pytest.mark.slow
def test_rebuild_interrupted_between_chunks_continues_with_the_next_chunk(
    dag: Any, market: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(dag)
    monkeypatch.setattr(rebuild, "DAYS_PER_CHUNK", 1)
    rebuild_chunk = rebuild._rebuild_chunk
    starts: list[datetime] = []

    def fail_at_third(transaction: Any, run: Any, chunk: Any, *, dry_run: bool) -> Any:
        starts.append(chunk.starts_at)
        if len(starts) == 3:
            raise TransientError("killed")
        return rebuild_chunk(transaction, run, chunk, dry_run=dry_run)

    monkeypatch.setattr(rebuild, "_rebuild_chunk", fail_at_third)
    rebuilding: dict[str, Any] = {
        "run_id": "manual__1",
        "dryRun": False,
        "startDate": "2026-03-06",
        "endDate": "2026-03-09",
    }
    with pytest.raises(TransientError):
        run(dag, END, **rebuilding)
    with pytest.raises(PermanentError):
        run(dag, END, failed="aggregate", **rebuilding)
    run(dag, END, **rebuilding)
    assert [start.day for start in starts] == [6, 7, 8, 8, 9]


@pytest.mark.slow
@pytest.mark.parametrize("rebuilding", [{}, {"dryRun": False, "startDate": "2026-03-08", "endDate": "2026-03-10"}])
def test_timeout_cancels_running_statements_and_prevents_commits(
    dag: Any, market: psycopg.Connection, monkeypatch: pytest.MonkeyPatch, database_url: str, rebuilding: dict[str, Any]
) -> None:
    monkeypatch.setattr(rebuild, "SYMBOLS_PER_CHUNK", 1)
    monkeypatch.setattr(rebuild, "DAYS_PER_CHUNK", 1)
    monkeypatch.setenv("OHLCV_SYMBOLS_PER_SHARD", "1")
    if rebuilding:
        run(dag)
        market.execute("update ohlcv.bars set high = 0")
    before = stored(market)
    blocked = """
        select count(*) from pg_stat_activity where wait_event_type = 'Lock' and application_name like '%/aggregate/%'
    """

    def interrupt(*_: object) -> None:
        raise AirflowTaskTimeout

    def signal_when_both_are_blocked(main: int) -> None:
        with psycopg.connect(database_url, autocommit=True) as connection:
            while connection.execute(blocked).fetchone() != (2,):
                time.sleep(0.05)
        signal.pthread_kill(main, signal.SIGUSR1)

    before_signal = signal.signal(signal.SIGUSR1, interrupt)
    sender = threading.Thread(target=signal_when_both_are_blocked, args=[threading.main_thread().ident])
    try:
        with psycopg.connect(database_url) as holder:
            holder.execute("lock table ohlcv.bars in share mode")
            sender.start()
            with pytest.raises(AirflowTaskTimeout):
                run(dag, run_id="manual__1", **rebuilding)
            assert market.execute(blocked).fetchone() == (0,), "the statements are canceled while the lock is held"
    finally:
        signal.signal(signal.SIGUSR1, before_signal)
    assert stored(market) == before
    steps = "select jsonb_path_query_array(checkpoints, '$[*].name') from ops.ops_runlog where run_id = 'manual__1'"
    assert market.execute(steps).fetchone() == (["planned"],)


@pytest.mark.slow
def test_rebuild_keeps_bars_whose_candles_were_dropped(
    dag: Any, market: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(dag)
    later = DAY + timedelta(days=70)
    monkeypatch.setenv("CANDLE_RETENTION_DAYS", "30")
    market.execute("select ohlcv.add_candle_partitions(%s, %s)", [DAY, later])
    before = stored(market)
    run(dag, later)
    partitions = market.execute("select partition_name from ohlcv.candle_partitions()").fetchall()
    assert ("candles_202603",) not in partitions
    assert stored(market) == before
    run(dag, later, run_id="manual", dryRun=False, startDate="2026-03-08")
    assert stored(market) == before
    with pytest.raises(psycopg.errors.CheckViolation, match="older than the retention"):
        ingest(market, [candle("A", "1m", DAY)])


@pytest.mark.slow
def test_retention_keeps_candles_that_are_not_aggregated(
    dag: Any, market: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CANDLE_RETENTION_DAYS", "30")
    later = DAY + timedelta(days=70)
    run(dag, later)
    assert stored(market) == expected(market, later)
    assert stored(market)


@pytest.mark.slow
def test_long_rebuild_starts_at_the_first_candle(
    dag: Any, market: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(dag)
    chunks = []
    rebuild_chunk = rebuild._rebuild_chunk

    def record(transaction: Any, run: Any, chunk: Any, *, dry_run: bool) -> Any:
        chunks.append((chunk.starts_at, chunk.ends_at))
        return rebuild_chunk(transaction, run, chunk, dry_run=dry_run)

    monkeypatch.setattr(rebuild, "_rebuild_chunk", record)
    done, _ = run(dag, run_id="manual", dryRun=False, startDate="0001-01-01", endDate="2026-03-20")
    assert chunks == [(DAY, datetime(2026, 3, 21, tzinfo=UTC))]
    assert done["unchanged"] == 2 * (96 + 24 + 6 + 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("params", "text"),
    [
        ({"startDate": "2026-03-09", "endDate": "2026-03-08"}, "startDate 2026-03-09 is after endDate 2026-03-08"),
        ({"startDate": "2026-03-08", "endDate": "9999-12-31"}, "endDate 9999-12-31 is in the future"),
        ({"startDate": "2100-01-01"}, "startDate 2100-01-01 is in the future"),
        ({"startDate": "soon"}, "startDate: a day is written YYYY-MM-DD"),
        ({"symbols": ["A"]}, "needs startDate"),
        ({"startDate": "2026-03-08", "timeframes": ["1m"]}, "timeframes.0"),
        ({"startDate": "2026-03-08", "symbols": ["nobody's"]}, 'no tasks of the symbols "nobody\'s"'),
        ({"startDate": "2026-03-08", "symbols": [f"X{n:05}" for n in range(10_000)]}, "'X00019', and 9,980 more. No"),
    ],
)
def test_wrong_params_fail_and_nothing_is_built(
    dag: Any, market: psycopg.Connection, params: dict[str, Any], text: str
) -> None:
    with pytest.raises(PermanentError, match=text):
        run(dag, **params)
    assert stored(market) == {}


@pytest.mark.slow
def test_failed_aggregation_fails_the_run_and_the_next_run_does_its_work(dag: Any, market: psycopg.Connection) -> None:
    with pytest.raises(
        PermanentError, match=r"Task aggregate of this run failed: .* the next run builds what is missing"
    ):
        run(dag, failed="aggregate")
    assert market.execute("select status, error from ops.ops_runlog").fetchall() == [
        (
            "failed",
            "Task aggregate of this run failed: see its log. 1 shards planned, 0 done, 8 tasks released",
        )
    ]
    run(dag, END + 5 * MINUTE)
    assert stored(market) == expected(market, END + 5 * MINUTE)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("failed", "params", "text"),
    [
        ("plan", {}, "Nothing was claimed. The next run builds the windows that are due."),
        ("plan", {"startDate": "2026-03-08"}, "Nothing was rebuilt. Fix the cause and clear this run"),
        ("plan", {"symbols": ["A"]}, "Nothing was rebuilt"),
        (
            "aggregate",
            {"startDate": "2026-03-08"},
            "dry run, so nothing was stored. Clear this run to start the dry run again.",
        ),
        (
            "aggregate",
            {"startDate": "2026-03-08", "dryRun": False},
            "Clear this run to continue the rebuild where it stopped.",
        ),
    ],
)
def test_failed_run_reports_what_it_stored_and_what_to_do(
    dag: Any, failed: str, params: dict[str, Any], text: str
) -> None:
    with pytest.raises(PermanentError, match=f"Task {failed} of this run failed: see its log. .*{text}"):
        run(dag, failed=failed, **params)


@pytest.mark.slow
def test_unreachable_database_is_a_transient_error(dag: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_MARKET_DB", "postgresql://u@127.0.0.1:1/market?connect_timeout=2")
    with pytest.raises(TransientError):
        run(dag)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("env_name", "processed"),
    [("prod", ["A", "B"]), ("STAGE", ["A", "B"]), ("Test", ["A", "B", "T"]), ("dev", ["A", "B", "T"])],
)
def test_test_assets_are_processed_in_dev_and_test_only(
    dag: Any, market: psycopg.Connection, monkeypatch: pytest.MonkeyPatch, env_name: str, processed: list[str]
) -> None:
    monkeypatch.setenv("ENV_NAME", env_name)
    register(market, {"T": "5m"}, active=False, test_active=True)
    register(market, {"off": "5m"}, active=False, test_active=False)
    for symbol in ("T", "off"):
        ingest(market, candles(symbol, "5m", DAY, DAY + 30 * MINUTE))
    run(dag)
    assert sorted({symbol for symbol, _, _ in stored(market)}) == processed


@pytest.mark.slow
def test_limits_of_the_workers_apply(dag: Any, market: psycopg.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAX_TASKS_PER_RUN", "3")
    monkeypatch.setenv("MAX_WINDOWS_PER_TASK", "10")
    run(dag)
    assert {(symbol, frame) for symbol, frame, _ in stored(market)} == {("A", "15m"), ("A", "1h"), ("B", "15m")}
    assert len(stored(market)) == 10 + 2 + 10
    end = END
    for _ in range(15):
        end += 5 * MINUTE
        run(dag, end)
    assert len([key for key in stored(market) if key[:2] == ("B", "15m")]) == 96


@pytest.mark.slow
@pytest.mark.parametrize(("since_due", "built"), [(timedelta(), 96), (timedelta(minutes=3, seconds=31), 10)])
def test_run_uses_the_time_before_its_deadline_for_a_backlog(
    dag: Any, market: psycopg.Connection, monkeypatch: pytest.MonkeyPatch, since_due: timedelta, built: int
) -> None:
    monkeypatch.setenv("MAX_WINDOWS_PER_TASK", "10")
    with time_machine.travel(END + MINUTE + since_due, tick=False):
        run(dag)
    assert len([key for key in stored(market) if key[:2] == ("A", "15m")]) == built
    assert set(tasks(market, "status, owner")) == {("idle", None)}


@pytest.mark.parametrize("encoded_database", ["SQL_ASCII"], indirect=True)
def test_rebuild_in_a_sql_ascii_database_finds_its_tasks(
    dag: Any, encoded_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_MARKET_DB", encoded_database)
    migrate(partial(psycopg.connect, encoded_database), "market")
    with psycopg.connect(encoded_database, autocommit=True, client_encoding="utf8") as connection:
        connection.execute("select ohlcv.add_candle_partitions(%s, %s)", [DAY, END])
        register(connection, {"Größe": "5m"})
        ingest(connection, candles("Größe", "5m", DAY, END))
        run(dag)
        done, _ = run(dag, run_id="manual__1", dryRun=False, startDate="2026-03-08", symbols=["Größe"])
        assert done["unchanged"] == 96 + 24 + 6 + 1
        assert stored(connection) == expected(connection, END + MINUTE)
