"""OHLCV on a real Airflow: scheduled, cleared, corrected, killed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import psutil
import psycopg
import pytest

from dev.airflow_api import NotYetError, wait
from dev.sample.ohlcv import POISONED
from tests.market_data import expected, stored, versions

if TYPE_CHECKING:
    from dev.stack import Stack

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

DAG = "ohlcv_aggregation"
SYMBOL = "BTCUSD"
DAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=1)
"""A day with complete windows only."""


@pytest.fixture(scope="module")
def scheduled(stack: Stack) -> dict[str, Any]:
    """The scheduled run that processed the backlog. An earlier run can have preceded the candles."""

    def found_the_backlog() -> dict[str, Any]:
        for run in reversed(stack.airflow.runs(DAG)):
            if (run["state"], run["run_type"]) == ("success", "scheduled") and totals(stack, run["dag_run_id"])[
                "inserted"
            ]:
                return dict(run)
        msg = "no scheduled run has built bars"
        raise NotYetError(msg)

    run: dict[str, Any] = wait(found_the_backlog, seconds=400)
    return run


def totals(stack: Stack, run_id: str) -> dict[str, Any]:
    """The counts of a run: the result of its last task, or an XCom of the first one if that did all of it."""
    states = {task["task_id"]: task["state"] for task in instances(stack, run_id)}
    if states["finish"] == "skipped":
        return dict(stack.airflow.result(DAG, run_id, "build_bars", key="totals"))
    return dict(stack.airflow.result(DAG, run_id, "finish"))


def instances(stack: Stack, run_id: str) -> list[dict[str, Any]]:
    return list(stack.airflow.get(f"dags/{DAG}/dagRuns/{run_id}/taskInstances")["task_instances"])


def wait_until_whole(stack: Stack, products: psycopg.Connection) -> None:
    """Wait until the bars equal those of an independent engine at the time of the newest run."""

    def without(bars: dict[Any, Any]) -> dict[Any, Any]:
        # The oracle sums price times volume with two decimals. The prices of the sample have five.
        return {key: (*bar[:5], *bar[6:]) for key, bar in bars.items() if key[0] != POISONED}

    def whole() -> None:
        done = [run for run in stack.airflow.runs(DAG) if run["state"] == "success"]
        as_of = max(datetime.fromisoformat(run["data_interval_end"]) for run in done) + timedelta(minutes=1)
        if without(stored(products)) != without(expected(products, as_of, but=POISONED)):
            msg = f"the bars are not those of the candles as of {as_of}"
            raise NotYetError(msg)

    wait(whole, seconds=60, every=1)


def correct(products: psycopg.Connection, price: float) -> None:
    query = "update ohlcv.candles set high = %s where symbol = %s and ts = %s"
    assert products.execute(query, [price, SYMBOL, DAY + timedelta(hours=12, minutes=7)]).rowcount == 1


def bars_with_high(products: psycopg.Connection, price: float) -> list[str]:
    query = "select timeframe from ohlcv.bars where symbol = %s and high = %s order by timeframe"
    return [timeframe for (timeframe,) in products.execute(query, [SYMBOL, price])]


def test_scheduled_run_builds_every_complete_window(
    stack: Stack, products: psycopg.Connection, scheduled: dict[str, Any]
) -> None:
    wait_until_whole(stack, products)
    tasks = instances(stack, scheduled["dag_run_id"])
    shards = sorted(task["map_index"] for task in tasks if task["task_id"] == "build_shards")
    assert shards == [0, 1], "of two shards and of one, of two symbols each"
    assert {frame for _, frame, _ in stored(products)} == {"15m", "1h", "4h", "1d"}


def test_cleared_run_rewrites_no_bar(stack: Stack, products: psycopg.Connection, scheduled: dict[str, Any]) -> None:
    # The schedule can have created the run of last midnight.
    midnight = stack.airflow.start(DAG, DAY - timedelta(minutes=5))
    assert stack.airflow.wait_for_run(DAG, midnight)["state"] == "success"
    before = [row for row in versions(products) if row[2] < DAY]
    stack.airflow.clear(DAG, midnight)
    assert stack.airflow.wait_for_run(DAG, midnight)["state"] == "success"
    result = totals(stack, midnight)
    assert (result["inserted"], result["updated"], result["deleted"]) == (0, 0, 0)
    assert result["unchanged"] >= 4, "each timeframe has a window that ended at midnight"
    assert [row for row in versions(products) if row[2] < DAY] == before


def test_dry_run_that_fits_one_task_instance_has_one(stack: Stack, scheduled: dict[str, Any]) -> None:
    run_id = stack.airflow.start(DAG, startDate=f"{DAY:%F}", symbols=[SYMBOL])
    assert stack.airflow.wait_for_run(DAG, run_id)["state"] == "success"
    states = {task["task_id"]: task["state"] for task in instances(stack, run_id)}
    assert states == {"build_bars": "success", "build_shards": "skipped", "finish": "skipped"}
    assert totals(stack, run_id).items() >= {"dry_run": True, "inserted": 0, "deleted": 0}.items()


def test_next_run_adds_a_late_candle_to_every_timeframe(
    stack: Stack, products: psycopg.Connection, scheduled: dict[str, Any]
) -> None:
    correct(products, 99_999_991)
    assert stack.airflow.wait_for_run(DAG, stack.airflow.start(DAG))["state"] == "success"
    assert bars_with_high(products, 99_999_991) == ["15m", "1d", "1h", "4h"]
    wait_until_whole(stack, products)


def test_task_killed_before_its_commit_is_retried_without_loss(
    stack: Stack, products: psycopg.Connection, scheduled: dict[str, Any]
) -> None:
    correct(products, 99_999_992)
    # The task waits for this lock with uncommitted bars.
    with psycopg.connect(stack.products_url) as holder:
        holder.execute("lock table ohlcv.bars in share mode")
        run_id = stack.airflow.start(DAG)
        task = wait(lambda: the_one_that_waits(stack, products, run_id), seconds=60)
        psutil.Process(task["pid"]).kill()
        wait(lambda: building(stack, run_id, "up_for_retry"), seconds=60)
        assert bars_with_high(products, 99_999_992) == []
    # A clear starts the next try, because the backoff takes too long.
    stack.airflow.clear(DAG, run_id)
    assert stack.airflow.wait_for_run(DAG, run_id)["state"] == "success"
    assert bars_with_high(products, 99_999_992) == ["15m", "1d", "1h", "4h"]
    wait_until_whole(stack, products)
    # A scheduled run may have claims of its own just now.
    claims = "select symbol, timeframe from ohlcv.tasks where status = 'running' and owner = %s"
    assert products.execute(claims, [run_id]).fetchall() == []


def building(stack: Stack, run_id: str, state: str) -> dict[str, Any]:
    """The task instance of a run that builds bars and is in a state."""
    tasks = instances(stack, run_id)
    for task in tasks:
        if task["task_id"].startswith("build_") and task["state"] == state:
            return task
    msg = f"no task is {state}: {[(task['task_id'], task['state']) for task in tasks]}"
    raise NotYetError(msg)


def the_one_that_waits(stack: Stack, products: psycopg.Connection, run_id: str) -> dict[str, Any]:
    task = building(stack, run_id, "running")
    query = """
        select count(*) from pg_stat_activity where application_name like %s and wait_event_type = 'Lock'
    """
    if products.execute(query, [f"{DAG}/{task['task_id']}/%"]).fetchone() == (0,):
        msg = "the task does not wait for the lock"
        raise NotYetError(msg)
    return task
