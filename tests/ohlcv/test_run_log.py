"""The run log: checkpoints, totals, pruning."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.market_data import DAY, MINUTE, run_of, tick

if TYPE_CHECKING:
    import psycopg


def test_prune_keeps_the_newest_finished_rows_and_unfinished_ones(market: psycopg.Connection) -> None:
    for number in range(5):
        market.execute("select ops.ops_runlog_start('job', 'PROD', %s)", [f"run {number}"])
        market.execute("select ops.ops_runlog_checkpoint('job', %s, 'half', '{\"bars\": 3}')", [f"run {number}"])
        if number != 1:
            market.execute("select ops.ops_runlog_finish('job', %s, 'success', '{\"bars\": 7}')", [f"run {number}"])
    assert market.execute("select ops.ops_runlog_prune('job', 2)").fetchone() == (2,)
    rows = market.execute(
        "select run_id, checkpoints -> 0 ->> 'bars', totals ->> 'bars' from ops.ops_runlog order by id"
    )
    assert rows.fetchall() == [("run 1", "3", None), ("run 3", "3", "7"), ("run 4", "3", "7")]


def test_run_keeps_the_configured_number_of_rows(market: psycopg.Connection) -> None:
    for number in range(3):
        tick(market, run_of(DAY + number * 5 * MINUTE, ops_runlog_keep=2))
    assert market.execute("select count(*) from ops.ops_runlog").fetchone() == (2,)


def test_prune_closes_rows_without_a_checkpoint_for_a_day(market: psycopg.Connection) -> None:
    for run_id in ("lost", "waiting", "running"):
        market.execute("select ops.ops_runlog_start('job', 'PROD', %s)", [run_id])
    market.execute("update ops.ops_runlog set started_at = now() - interval '2 days'")
    for run_id, age in (("lost", "25 hours"), ("waiting", "23 hours")):
        market.execute("select ops.ops_runlog_checkpoint('job', %s, 'planned')", [run_id])
        at = "update ops.ops_runlog set checkpoints = jsonb_set(checkpoints, '{0,at}', to_jsonb(now() - %s::interval))"
        market.execute(f"{at} where run_id = %s", [age, run_id])
    market.execute("update ops.ops_runlog set started_at = now() where run_id = 'running'")

    market.execute("select ops.ops_runlog_prune('job', 5)")

    rows = market.execute("select run_id, status, finished_at is not null, error from ops.ops_runlog order by id")
    error = "The run did not reach its last task: it was deleted, or its state was set by hand."
    assert rows.fetchall() == [
        ("lost", "failed", True, error),
        ("waiting", "running", False, None),
        ("running", "running", False, None),
    ]
    assert market.execute("select ops.ops_runlog_prune('job', 0)").fetchone() == (1,), "closed rows are pruned"
