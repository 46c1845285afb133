"""Unknown params and days in the future fail a run before it changes anything."""

from __future__ import annotations

from datetime import UTC, date, datetime
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk import DAG, Param

from aggregator.core import params
from aggregator.core.errors import WrongParamsError

if TYPE_CHECKING:
    from airflow.dag_processing.dagbag import DagBag

CREATED = datetime(2026, 11, 16, 2, tzinfo=UTC)
DATE: Any = {"type": ["null", "string"], "format": "date"}


def context(dag: DAG, conf: dict[str, Any] | None) -> Any:
    """Context of a task in a run with ``conf``."""
    given = {name: dag.params[name] for name in dag.params} | (conf or {})
    run = SimpleNamespace(conf=conf, run_after=CREATED, run_type="manual", dag_id=dag.dag_id)
    return {"dag": dag, "dag_run": run, "params": given}


@pytest.fixture
def dag() -> DAG:
    declared = {"startDate": Param(None, **DATE), "endDate": Param(None, **DATE), "dryRun": Param(default=False)}
    return DAG("job", schedule=None, params=declared)


@pytest.mark.parametrize(
    ("conf", "text"),
    [
        ({"startdate": "2026-11-01"}, "'startdate' is unknown, did you mean 'startDate'?"),
        ({"start_date": "2026-11-01"}, "'start_date' is unknown, did you mean 'startDate'?"),
        ({"symbols": ["A"]}, "'symbols' is unknown, the DAG has startDate, endDate, dryRun"),
        ({"endDate": "2026-11-17"}, "endDate 2026-11-17 is after 2026-11-16, the UTC day on which the run was created"),
        (
            {"startDate": "9999-12-31", "x": 1},
            "'x' is unknown, the DAG has startDate, endDate, dryRun; startDate 9999-",
        ),
    ],
)
def test_wrong_param_is_named(dag: DAG, conf: dict[str, Any], text: str) -> None:
    with pytest.raises(WrongParamsError) as caught:
        params.check(context(dag, conf))
    assert str(caught.value).startswith(f"The params of this run are wrong: {text}")
    assert str(caught.value).endswith("Nothing was done. Start a new run.")


@pytest.mark.parametrize(
    "conf", [None, {}, {"startDate": "2026-11-16", "endDate": None}, {"startDate": ""}, {"startDate": "tomorrow"}]
)
def test_valid_params_pass_and_unreadable_dates_are_left_to_the_task(dag: DAG, conf: dict[str, Any] | None) -> None:
    params.check(context(dag, conf))


def test_dag_without_params_rejects_all() -> None:
    with pytest.raises(WrongParamsError, match="'day' is unknown, the DAG has no params"):
        params.check(context(DAG("job", schedule=None), {"day": "2026-11-01"}))


def test_every_task_of_every_dag_rejects_a_misspelled_param(dag_bag: DagBag) -> None:
    tasks: list[Any] = [task for dag in dag_bag.dags.values() for task in dag.tasks]
    assert len(tasks) > 10
    for task in tasks:
        hook: Any = task.partial_kwargs["pre_execute"] if task.is_mapped else task._pre_execute_hook
        with pytest.raises(WrongParamsError, match="'startdate' is unknown"):
            hook(context(task.dag, {"startdate": "2026-11-01"}))


@pytest.mark.parametrize("day", [None, date(2026, 11, 15), date(2026, 11, 16)])
def test_day_that_has_started_is_not_in_the_future(day: date | None) -> None:
    assert not params.is_future(day, CREATED.date())
