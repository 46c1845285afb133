"""Requirements on every DAG: its file, its entry in the catalog, its tasks (spec: the ten DAGs)."""

from __future__ import annotations

import ast
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pendulum
import pytest
from airflow.sdk import CronTriggerTimetable, TriggerRule

from aggregator.alerts.deadline import alert_after
from aggregator.alerts.freshness import TARGETS
from aggregator.alerts.notifier import notify_failed
from aggregator.core.catalog import CATALOG, Owner, Tag
from aggregator.core.operators import ClosingOperator
from aggregator.core.retry_policy import TransientOnlyRetryPolicy
from aggregator.core.timetable import OffsetCronTimetable
from aggregator.wiring import dag_args
from dev.scale_out import shipped

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from airflow.dag_processing.dagbag import DagBag

HEADINGS = ["What", "Window", "Re-run", "Deadline", "Owner"]
LONGEST_FILE = 100


def test_every_dag_of_the_catalog_loads_and_no_other(dag_bag: DagBag) -> None:
    assert dag_bag.import_errors == {}
    assert set(dag_bag.dags) == set(CATALOG)


@pytest.fixture(params=sorted(CATALOG))
def dag(request: pytest.FixtureRequest, dag_bag: DagBag) -> Any:
    return dag_bag.dags[request.param]


def test_dag_has_the_schedule_of_its_entry(dag: Any) -> None:
    schedule = CATALOG[dag.dag_id].schedule
    if schedule.offset is None:
        assert dag.timetable == CronTriggerTimetable(schedule.cron, timezone="UTC", run_immediately=timedelta())
        assert not dag.catchup, "a run for a past time has nothing to process"
    else:
        assert dag.timetable == OffsetCronTimetable(schedule.cron, offset=schedule.offset)
        assert dag.catchup


@pytest.mark.parametrize("dag_id", sorted(CATALOG))
def test_entry_has_the_longest_interval_of_its_cron_expression(dag_id: str) -> None:
    schedule = CATALOG[dag_id].schedule
    timetable = OffsetCronTimetable(schedule.cron, offset=timedelta())
    intervals = [timetable.latest_interval(pendulum.datetime(2026, month, 20)) for month in range(1, 13)]
    assert schedule.every == max(interval.end - interval.start for interval in intervals)


@pytest.mark.parametrize(
    ("cron", "every"),
    [("30 6 * * *", timedelta(days=1)), ("0 12 * * 1-5", timedelta(days=3)), ("0 */6 * * *", timedelta(hours=6))],
)
def test_kpi_dispatch_cron_sets_the_schedule(cron: str, every: timedelta, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KPI_DISPATCH_CRON", cron)
    assert dag_args("kpi_dispatch")["schedule"] == CronTriggerTimetable(
        cron, timezone="UTC", run_immediately=timedelta()
    )
    (due,) = [target.due for target in TARGETS if target.dag_id == "kpi_dispatch"]
    assert due == every


def test_dag_has_the_facts_of_its_entry(dag: Any) -> None:
    facts = CATALOG[dag.dag_id]
    assert (dag.owner, dag.tags, dag.description) == (facts.owner, set(facts.tags), facts.description)
    assert dag.owner in set(Owner)
    assert dag.tags
    assert dag.tags <= set(Tag)
    assert dag.description
    assert not dag.description.endswith(".")


def test_tasks_write_only_tables_of_the_entry(dag: Any) -> None:
    writes = CATALOG[dag.dag_id].writes
    assert writes
    assert {task.table for task in dag.tasks if hasattr(task, "table")} <= set(writes)


def test_max_active_runs_is_set(dag: Any) -> None:
    assert 0 < dag.max_active_runs < 16, "16 is Airflow's default: set a number"


def test_page_has_the_headings(dag: Any) -> None:
    found = [line.removeprefix("### ") for line in dag.doc_md.splitlines() if line.startswith("#")]
    assert found == HEADINGS
    assert dag.doc_md.rstrip().endswith(dag.owner)


def test_every_task_retries_and_has_a_timeout(dag: Any) -> None:
    assert dag.tasks
    for task in dag.tasks:
        assert task.execution_timeout, task.task_id
        assert task.retries > 0, task.task_id
        assert task.retry_exponential_backoff > 1, task.task_id
        assert isinstance(task.retry_policy, TransientOnlyRetryPolicy), task.task_id


def test_run_with_a_failed_task_fails(dag: Any) -> None:
    # Airflow derives the state of a run from its last tasks. A last task that runs after failures must fail itself.
    passes_failures_on = {TriggerRule.ALL_SUCCESS, TriggerRule.NONE_FAILED, TriggerRule.NONE_FAILED_MIN_ONE_SUCCESS}
    for task in dag.tasks:
        assert not task.is_teardown, f"{task.task_id}: Airflow ignores failures of a teardown"
        if task.trigger_rule not in passes_failures_on:
            assert isinstance(task, ClosingOperator), f"{task.task_id} runs after failures: derive it from this class"
            assert not task.downstream_task_ids, f"{task.task_id} must be a last task"


def test_page_names_the_deadline_of_the_entry(dag: Any) -> None:
    facts = CATALOG[dag.dag_id]
    assert dag.deadline == [alert_after(facts.deadline)]
    text = dag.doc_md.split("### Deadline")[1].split("###")[0].strip()
    fires_at = timedelta(hours=int(facts.schedule.cron.split()[1])) if facts.schedule.offset is None else None
    offset = facts.schedule.offset if fires_at is None else fires_at
    assert offset is not None
    due = datetime(2026, 11, 1, tzinfo=UTC) + offset + facts.deadline
    minutes = f"{facts.deadline // timedelta(minutes=1)} minutes"
    assert text.startswith((f"{due:%H:%M}", f"{minutes} past", f"{minutes} after")), text


def test_failed_run_raises_an_alert(dag: Any) -> None:
    callbacks = dag.on_failure_callback
    assert notify_failed in (callbacks if isinstance(callbacks, list) else [callbacks])


def test_dag_file_is_named_after_its_dag_and_has_no_logic(dag: Any, repository: Path) -> None:
    path = repository / "dags" / f"{dag.dag_id}.py"
    lines = path.read_text().splitlines()
    assert len(lines) <= LONGEST_FILE
    assert not [line for line in lines if line.lstrip().startswith(("def ", "class ", "for ", "while ", "if "))]


def test_every_query_is_used(dag_bag: DagBag, repository: Path) -> None:
    # Airflow replaces the name of a template file by its text.
    values = [value for dag in dag_bag.dags.values() for task in dag.tasks for value in vars(task).values()]
    texts = {value for value in values if isinstance(value, str)}
    assert not [text for text in texts if text.endswith(".sql")]

    folder = repository / "include" / "sql"
    applied_by_migrations = {"migrations", "functions"}
    files = [path for path in folder.rglob("*.sql") if path.parent.name not in applied_by_migrations]
    assert files
    passed = {name for path in (repository / "plugins").rglob("*.py") for name in constants_in_use(path.read_text())}
    unused = [path for path in files if path.read_text() not in texts]
    assert not [path for path in unused if path.relative_to(folder).as_posix() not in passed]


def constants_in_use(code: str) -> set[str]:
    """The string constants of a module that it passes to a call, directly or as the value of a name that it reads."""
    tree = ast.parse(code)
    read = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    return set(_constants(_passed(tree, read)))


def _passed(tree: ast.Module, read: set[str]) -> Iterator[ast.AST]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield from [*node.args, *(keyword.value for keyword in node.keywords)]
        elif isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if any(isinstance(target, ast.Name) and target.id in read for target in targets):
                yield node.value


def _constants(nodes: Iterable[ast.AST]) -> Iterator[str]:
    for node in nodes:
        for part in ast.walk(node):
            if isinstance(part, ast.Constant) and isinstance(part.value, str):
                yield part.value


def test_constant_counts_as_used_only_if_a_call_gets_it() -> None:
    assert constants_in_use('execute("a.sql")') == {"a.sql"}
    assert constants_in_use('call(sql="a.sql")') == {"a.sql"}
    assert constants_in_use('NAME = "a.sql"\ncall(NAME)') == {"a.sql"}
    assert constants_in_use('"""See "a.sql"."""\n# execute("a.sql")\n"a.sql"\nUNUSED = "a.sql"') == set()


def test_redis_redelivers_no_task_that_still_runs(dag_bag: DagBag) -> None:
    tasks: list[Any] = [task for dag in dag_bag.dags.values() for task in dag.tasks]
    longest = max(task.execution_timeout.total_seconds() for task in tasks)
    assert int(shipped()["AIRFLOW__CELERY_BROKER_TRANSPORT_OPTIONS__VISIBILITY_TIMEOUT"]) > longest
