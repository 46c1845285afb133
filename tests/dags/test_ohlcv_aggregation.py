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
from aggregator.ohlcv.operators import OhlcvBuildOperator
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


def execute(
    dag: Any,
    task_id: str,
    end: datetime = END,
    *,
    run_id: str | None = None,
    clears: int = 0,
    tries: int = 1,
    failed: str | None = None,
    shards: Any = None,
    **params: Any,
) -> tuple[Any, dict[str, Any]]:
    """Execute a task of the run of the interval that ends at ``end``; return its result and its other XComs."""
    task = dag.get_task(task_id)
    if task.is_mapped:
        task = task.unmap({"shards": shards})
    given = context(task, end - 5 * MINUTE, end, failed_tasks=[failed] if failed else [])
    xcoms: dict[str, Any] = {}
    given["ti"].xcom_push = xcoms.__setitem__
    given["ti"].try_number = tries
    given["run_id"] = given["dag_run"].run_id = given["ti"].run_id = run_id or given["dag_run"].run_id
    given["dag_run"].clear_number = clears
    given["params"] = NO_PARAMS | params
    given["dag"] = dag
    return task.execute(given), xcoms


def run(dag: Any, *where: datetime, **how: Any) -> dict[str, Any]:
    """Execute a run that one task instance builds; return its totals."""
    shards, xcoms = execute(dag, "build_bars", *where, **how)
    assert shards == [], "nothing is left for other tasks, which are skipped"
    totals: dict[str, Any] = xcoms["totals"]
    return totals


def fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the build of every run fail."""

    def build(*_: Any) -> Any:
        raise TransientError("killed")

    monkeypatch.setattr(OhlcvBuildOperator, "_build", build)


def test_run_builds_the_windows_that_ended_before_it_was_due(dag: Any, market: psycopg.Connection) -> None:
    _, xcoms = execute(dag, "build_bars")
    done = xcoms["totals"]
    assert stored(market) == expected(market, END + MINUTE)
    assert done["inserted"] == len(stored(market)) == 2 * (96 + 24 + 6 + 1)
    assert (done["tasks"], done["failed"], done["dry_run"]) == (8, 0, False)
    assert xcoms["plan"].items() >= {"due": 8, "claimed": 8, "symbols": 2, "shards": 1}.items()
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


def test_one_task_instance_builds_two_shards(
    dag: Any, market: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OHLCV_SYMBOLS_PER_SHARD", "1")
    _, xcoms = execute(dag, "build_bars")
    assert (xcoms["plan"]["shards"], xcoms["totals"]["inserted"]) == (2, 2 * (96 + 24 + 6 + 1))
    assert stored(market) == expected(market, END + MINUTE)


def test_more_shards_are_built_by_other_instances_and_closed_by_the_last_task(
    dag: Any, market: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OHLCV_SYMBOLS_PER_SHARD", "1")
    register(market, {"C": "5m"})
    ingest(market, candles("C", "5m", DAY, END))
    parts, xcoms = execute(dag, "build_bars")
    assert ([len(shards) for shards in parts], xcoms, stored(market)) == ([2, 1], {}, {})
    counts = [execute(dag, "build_shards", shards=shards)[0] for shards in parts]
    done, _ = execute(dag, "finish")
    assert sum(count["inserted"] for count in counts) == done["inserted"] == 3 * (96 + 24 + 6 + 1)
    assert stored(market) == expected(market, END + MINUTE)
    assert market.execute("select status from ops.ops_runlog").fetchall() == [("success",)]


@pytest.mark.slow
def test_shard_that_was_not_built_fails_the_last_task(
    dag: Any, market: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OHLCV_SYMBOLS_PER_SHARD", "1")
    register(market, {"C": "5m"})
    parts, _ = execute(dag, "build_bars")
    execute(dag, "build_shards", shards=parts[0])
    with pytest.raises(PermanentError, match="Not all shards of this run were done, although no task failed"):
        execute(dag, "finish")
    error = "3 shards planned, 2 done, 4 tasks released"
    assert market.execute("select status, error from ops.ops_runlog").fetchall() == [("failed", error)]
    # Clearing only the failed tasks of the run keeps its plan.
    execute(dag, "build_shards", shards=parts[1], clears=1)
    execute(dag, "finish", clears=1)
    assert market.execute("select status, error from ops.ops_runlog").fetchall() == [("success", None)]


@pytest.mark.slow
def test_run_without_due_tasks_closes_its_log(dag: Any, market: psycopg.Connection) -> None:
    run(dag)
    assert run(dag, END + 5 * MINUTE)["bars"] == 0
    assert market.execute("select status from ops.ops_runlog").fetchall() == [("success",)] * 2


@pytest.mark.slow
def test_cleared_run_rebuilds_the_windows_of_its_interval_and_counts_changes(
    dag: Any, market: psycopg.Connection
) -> None:
    run(dag)
    noon = DAY + timedelta(hours=12)
    run(dag, noon)
    before = versions(market)
    done = run(dag, noon, clears=1)
    assert (done["unchanged"], done["updated"], done["inserted"]) == (2 * 3, 0, 0)
    assert versions(market) == before
    market.execute("update ohlcv.bars set high = 0 where ts = %s and timeframe = '4h'", [noon - timedelta(hours=4)])
    done = run(dag, noon, clears=2, tries=3)
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
    dry = run(dag, END, run_id="manual__1", **rebuilding)
    assert stored(market) == wrong
    done = run(dag, END, run_id="manual__2", dryRun=False, **rebuilding)
    assert (dry["dry_run"], done) == (True, {**dry, "dry_run": False})
    assert (done["updated"], done["unchanged"], done["inserted"]) == (96 + 24 + 6 + 1, 0, 0)
    right = {key: bar for key, bar in expected(market, END + MINUTE).items() if key[0] == "A"}
    assert {key: bar for key, bar in stored(market).items() if key[0] == "A"} == right
    run(dag, END, run_id="manual__3", dryRun=False, startDate="2026-03-08")
    assert stored(market) == expected(market, END + MINUTE)
    before = versions(market)
    again = run(dag, END, run_id="manual__4", dryRun=False, startDate="2026-03-08")
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

    built: list[list[str]] = []

    def fail_at_b(transaction: Any, run: Any, chunk: Any, *, dry_run: bool) -> Any:
        if chunk.symbols == ["B"] and len(built) == 1:
            raise TransientError("killed")
        built.append(chunk.symbols)
        return rebuild_chunk(transaction, run, chunk, dry_run=dry_run)

    monkeypatch.setattr(rebuild, "_rebuild_chunk", fail_at_b)
    monkeypatch.setattr(rebuild, "SHARDS_PER_INSTANCE", 1)
    rebuilding: dict[str, Any] = {"run_id": "manual__1", "dryRun": False, "startDate": "2026-03-08"}
    with pytest.raises(TransientError):
        run(dag, END, **rebuilding)
    clears = 0
    if how == "cleared":
        with pytest.raises(
            PermanentError, match=r"Clear this run to continue .* Stored so far: bars=127 updated=127\."
        ):
            execute(dag, "finish", END, failed="build_bars", **rebuilding)
        clears = 1
    register(market, {"AA": "5m"})
    built.append([])

    done = run(dag, END, clears=clears, tries=2, **rebuilding)

    assert built == [["A"], [], ["AA"], ["B"]], "A was stored before"
    assert done["updated"] == 2 * (96 + 24 + 6 + 1), "the totals of the run include A"
    assert stored(market) == expected(market, END + MINUTE)
    assert market.execute("select from ops.ops_runlog_progress").fetchall() == []
    once_more = run(dag, END, clears=2, **rebuilding)
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
        execute(dag, "finish", END, failed="build_bars", **rebuilding)
    run(dag, END, clears=1, **rebuilding)
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
        select count(*) from pg_stat_activity where wait_event_type = 'Lock' and application_name like '%/build_bars/%'
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
    done = run(dag, run_id="manual", dryRun=False, startDate="0001-01-01", endDate="2026-03-20")
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
def test_failed_build_fails_the_run_and_the_next_run_does_its_work(
    dag: Any, market: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        fail(patch)
        with pytest.raises(TransientError):
            run(dag)
    with pytest.raises(
        PermanentError, match=r"Task build_bars of this run failed: .* the next run builds what is missing"
    ):
        execute(dag, "finish", failed="build_bars")
    assert market.execute("select status, error from ops.ops_runlog").fetchall() == [
        (
            "failed",
            "Task build_bars of this run failed: see its log. 1 shards planned, 0 done, 8 tasks released",
        )
    ]
    run(dag, END + 5 * MINUTE)
    assert stored(market) == expected(market, END + 5 * MINUTE)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("planned", "params", "text"),
    [
        (False, {}, "Nothing was claimed. The next run builds the windows that are due."),
        (False, {"startDate": "2026-03-08"}, "Nothing was rebuilt. Fix the cause and clear this run"),
        (False, {"symbols": ["A"]}, "Nothing was rebuilt"),
        (
            True,
            {"startDate": "2026-03-08"},
            "nothing was stored. Clear this run to start the dry run again.",
        ),
        (
            True,
            {"startDate": "2026-03-08", "dryRun": False},
            "Clear this run to continue the rebuild where",
        ),
    ],
)
def test_failed_run_reports_what_it_stored_and_what_to_do(
    dag: Any,
    market: psycopg.Connection,
    monkeypatch: pytest.MonkeyPatch,
    planned: bool,
    params: dict[str, Any],
    text: str,
) -> None:
    market.execute("select ohlcv.sync_tasks()")
    fail(monkeypatch)
    if planned:
        with pytest.raises(TransientError):
            run(dag, **params)
    with pytest.raises(PermanentError, match=f"Task build_bars of this run failed: see its log. .*{text}"):
        execute(dag, "finish", failed="build_bars", **params)


@pytest.mark.slow
def test_cleared_run_without_a_plan_claims_nothing_and_says_so(dag: Any) -> None:
    run(dag)
    with pytest.raises(PermanentError, match="Nothing was claimed"):
        execute(dag, "finish", clears=1, failed="build_bars")


@pytest.mark.slow
@pytest.mark.parametrize("params", [{}, {"startDate": "2026-03-08", "dryRun": False}])
def test_retry_of_a_closed_run_reports_its_totals_and_changes_nothing(
    dag: Any, market: psycopg.Connection, params: dict[str, Any]
) -> None:
    market.execute("select ohlcv.sync_tasks()")
    done = run(dag, **params)
    log = market.execute("select * from ops.ops_runlog").fetchall()
    again = run(dag, tries=2, **params)
    assert done.items() >= again.items()
    assert again["inserted"] == done["inserted"]
    assert market.execute("select * from ops.ops_runlog").fetchall() == log


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
        done = run(dag, run_id="manual__1", dryRun=False, startDate="2026-03-08", symbols=["Größe"])
        assert done["unchanged"] == 96 + 24 + 6 + 1
        assert stored(connection) == expected(connection, END + MINUTE)
