"""What every DAG has to have (spec: the ten DAGs)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk import CronTriggerTimetable, TriggerRule

from aggregator.alerts.deadline import alert_after
from aggregator.alerts.notifier import notify_failed
from aggregator.core.catalog import DEADLINES, Owner, Tag
from aggregator.core.operators import ClosingOperator
from aggregator.core.retry_policy import TransientOnlyRetryPolicy
from aggregator.core.timetable import OffsetCronTimetable
from dev.scale_out import shipped

if TYPE_CHECKING:
    from pathlib import Path

    from airflow.dag_processing.dagbag import DagBag

SCHEDULES = {
    "analytics_daily_reports": ("0 0 * * *", timedelta(hours=2)),
    "analytics_enrichment_metrics": ("0 0 * * *", timedelta(hours=5)),
    "analytics_hourly_aggregation": ("0 * * * *", timedelta()),
    "analytics_monthly_usage": ("0 0 1 * *", timedelta(hours=3)),
    "analytics_score_distribution": ("0 0 * * *", timedelta(hours=4)),
    "analytics_warmup_reset": ("0 0 * * *", timedelta()),
    "click_rollups": ("0 0 * * *", timedelta(hours=1)),
    "ohlcv_aggregation": ("*/5 * * * *", timedelta(minutes=1)),
    "telemetry_daily": ("0 0 * * *", timedelta(hours=2)),
}
"""DAG → cron expression of its data intervals, and when after an interval's end its run fires."""

TRIGGERS = {"kpi_dispatch": "0 12 * * *"}
"""DAG without a window → cron expression of the moments at which it fires."""

HEADINGS = ["What", "Window", "Re-run", "Deadline", "Owner"]
LONGEST_FILE = 100


def test_all_dags_load_and_no_others(dag_bag: DagBag) -> None:
    assert dag_bag.import_errors == {}
    assert set(dag_bag.dags) == {*SCHEDULES, *TRIGGERS}


@pytest.fixture(params=sorted({*SCHEDULES, *TRIGGERS}))
def dag(request: pytest.FixtureRequest, dag_bag: DagBag) -> Any:
    return dag_bag.dags[request.param]


@pytest.mark.parametrize("dag_id", sorted(SCHEDULES))
def test_schedule(dag_bag: DagBag, dag_id: str) -> None:
    dag = dag_bag.dags[dag_id]
    cron, offset = SCHEDULES[dag_id]
    assert dag.timetable == OffsetCronTimetable(cron, offset=offset)
    assert dag.catchup


@pytest.mark.parametrize("dag_id", sorted(TRIGGERS))
def test_moments_without_a_window_are_not_caught_up(dag_bag: DagBag, dag_id: str) -> None:
    dag = dag_bag.dags[dag_id]
    assert dag.timetable == CronTriggerTimetable(TRIGGERS[dag_id], timezone="UTC", run_immediately=timedelta())
    assert not dag.catchup


def test_limits_owner_and_tags(dag) -> None:
    assert 0 < dag.max_active_runs < 16, "16 is Airflow's default: say a number"
    assert dag.owner in set(Owner)
    assert dag.tags
    assert dag.tags <= set(Tag)
    assert dag.description


def test_page_has_the_headings(dag) -> None:
    found = [line.removeprefix("### ") for line in dag.doc_md.splitlines() if line.startswith("#")]
    assert found == HEADINGS
    assert dag.doc_md.rstrip().endswith(dag.owner)


def test_every_task_retries_and_ends(dag) -> None:
    assert dag.tasks
    for task in dag.tasks:
        assert task.execution_timeout, task.task_id
        assert task.retries > 0, task.task_id
        assert task.retry_exponential_backoff > 1, task.task_id
        assert isinstance(task.retry_policy, TransientOnlyRetryPolicy), task.task_id


def test_run_with_a_failed_task_fails(dag) -> None:
    # Airflow judges a run by its last tasks. One that runs after failures has to fail itself.
    passes_failures_on = {TriggerRule.ALL_SUCCESS, TriggerRule.NONE_FAILED, TriggerRule.NONE_FAILED_MIN_ONE_SUCCESS}
    for task in dag.tasks:
        assert not task.is_teardown, f"{task.task_id}: Airflow ignores failures of a teardown"
        if task.trigger_rule not in passes_failures_on:
            assert isinstance(task, ClosingOperator), f"{task.task_id} runs after failures: derive it from this class"
            assert not task.downstream_task_ids, f"{task.task_id} must be a last task"


def test_deadline_is_the_one_that_its_page_names(dag) -> None:
    within = DEADLINES[dag.dag_id]
    assert dag.deadline == [alert_after(within)]
    text = dag.doc_md.split("### Deadline")[1].split("###")[0].strip()
    trigger_hour = timedelta(hours=int(TRIGGERS.get(dag.dag_id, "0 0").split()[1]))
    _, offset = SCHEDULES.get(dag.dag_id, ("", trigger_hour))
    due = datetime(2026, 11, 1, tzinfo=UTC) + offset + within
    minutes = f"{within // timedelta(minutes=1)} minutes"
    assert text.startswith((f"{due:%H:%M}", f"{minutes} past", f"{minutes} after")), text


def test_failed_runs_are_told_of(dag) -> None:
    callbacks = dag.on_failure_callback
    assert notify_failed in (callbacks if isinstance(callbacks, list) else [callbacks])


def test_dag_file_is_named_after_its_dag_and_is_wiring(dag, repository: Path) -> None:
    path = repository / "dags" / f"{dag.dag_id}.py"
    lines = path.read_text().splitlines()
    assert len(lines) <= LONGEST_FILE
    assert not [line for line in lines if line.lstrip().startswith(("def ", "class ", "for ", "while ", "if "))]


def test_every_sql_file_is_found_and_used(dag_bag: DagBag, repository: Path) -> None:
    # Airflow puts the text of a file where its name stood.
    values = [value for dag in dag_bag.dags.values() for task in dag.tasks for value in vars(task).values()]
    texts = {value for value in values if isinstance(value, str)}
    assert not [text for text in texts if text.endswith(".sql")]

    folder = repository / "include" / "sql"
    applied_by_migrations = {"migrations", "functions"}
    files = [path for path in folder.rglob("*.sql") if path.parent.name not in applied_by_migrations]
    assert files
    code = "".join(path.read_text() for path in (repository / "plugins").rglob("*.py"))
    unused = [path for path in files if path.read_text() not in texts]
    assert not [path for path in unused if f'"{path.relative_to(folder).as_posix()}"' not in code]


def test_redis_gives_no_task_that_runs_to_another_worker(dag_bag: DagBag) -> None:
    longest = max(task.execution_timeout.total_seconds() for dag in dag_bag.dags.values() for task in dag.tasks)
    assert int(shipped()["AIRFLOW__CELERY_BROKER_TRANSPORT_OPTIONS__VISIBILITY_TIMEOUT"]) > longest
