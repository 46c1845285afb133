"""Behavior of Airflow 3.3 that this project works around. A failing test shows what an upgrade changed."""

from __future__ import annotations

import re
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args
from unittest.mock import Mock, call
from uuid import uuid4

import airflow
import pendulum
import pytest
import time_machine
from airflow import __version__
from airflow._shared.plugins_manager.plugins_manager import _load_plugins_from_plugin_directory
from airflow.api_fastapi.core_api.datamodels.ui.dag_runs import DAGRunLightResponse
from airflow.api_fastapi.core_api.routes.ui import ui_router
from airflow.configuration import conf
from airflow.jobs import job
from airflow.jobs.triggerer_job_runner import ToTriggerSupervisor
from airflow.models import import_all_models
from airflow.models.dag import DagModel
from airflow.models.dagbundle import DagBundleModel
from airflow.models.dagrun import DagRun
from airflow.models.serialized_dag import SerializedDagModel
from airflow.models.taskinstance import TaskInstance, clear_task_instances
from airflow.providers.celery.cli import celery_command
from airflow.providers.celery.executors import celery_executor_utils
from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, BaseOperator, CronDataIntervalTimetable
from airflow.sdk.definitions.callback import AsyncCallback
from airflow.sdk.definitions.deadline import BaseDeadlineReference, DeadlineAlert, DeadlineReference
from airflow.sdk.definitions.mappedoperator import OperatorPartial
from airflow.sdk.execution_time import supervisor
from airflow.sdk.execution_time.comms import SetRenderedMapIndex, SetXCom, ToSupervisor
from airflow.serialization.encoders import coerce_to_core_timetable
from airflow.serialization.serialized_objects import DagSerialization, LazyDeserializedDAG
from airflow.timetables.base import DataInterval, TimeRestriction
from airflow.timetables.trigger import CronTriggerTimetable
from airflow.triggers.base import StartTriggerArgs
from airflow.utils.state import DagRunState
from airflow.utils.types import DagRunTriggeredByType, DagRunType
from fastapi.routing import APIRoute
from sqlalchemy import create_engine, select
from sqlalchemy.orm import Session

from aggregator.alerts.deadline import DagRunDue, notify_late

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow.timetables.base import Timetable

AIRFLOW = tuple(int(part) for part in __version__.split(".")[:2])

DAY_15 = pendulum.datetime(2026, 11, 15)
DAY_16 = pendulum.datetime(2026, 11, 16)


def stock_timetable() -> Timetable:
    return coerce_to_core_timetable(CronDataIntervalTimetable("0 0 * * *", timezone="UTC"))


class TestTimetables:
    def test_cron_string_has_no_data_interval(self) -> None:
        timetable = coerce_to_core_timetable(DAG("job", schedule="0 0 * * *").timetable)

        assert isinstance(timetable, CronTriggerTimetable)
        interval = timetable.infer_manual_data_interval(run_after=DAY_15)
        assert interval.start == interval.end

    def test_dags_test_with_a_date_has_the_interval_before_it(self) -> None:
        scheduled = stock_timetable().next_dagrun_info(
            last_automated_data_interval=None, restriction=TimeRestriction(DAY_15, None, catchup=True)
        )

        assert scheduled is not None
        assert scheduled.logical_date == DAY_15
        assert stock_timetable().infer_manual_data_interval(run_after=DAY_15).end == DAY_15

    def test_dag_without_a_start_date_is_never_scheduled(self) -> None:
        restriction = TimeRestriction(None, None, catchup=True)

        assert stock_timetable().next_dagrun_info(last_automated_data_interval=None, restriction=restriction) is None

    def test_catchup_without_a_start_date_needs_none_in_default_args(self) -> None:
        with pytest.raises(ValueError, match="start_date is required when catchup=True"):
            DAG("job", schedule=stock_timetable(), catchup=True)

        assert DAG("job", schedule=stock_timetable(), catchup=True, default_args={"start_date": None}).catchup

    @time_machine.travel(DAY_16.add(minutes=30), tick=False)
    def test_interval_is_due_when_it_is_over(self) -> None:
        # If only run_after had the offset, the first run would be due in the future.
        restriction = TimeRestriction(None, None, catchup=False)
        info = stock_timetable().next_dagrun_info(last_automated_data_interval=None, restriction=restriction)

        assert info is not None
        assert info.data_interval == DataInterval(DAY_15, DAY_16)

    @time_machine.travel(pendulum.datetime(2026, 11, 20), tick=False)
    def test_manual_run_with_an_earlier_interval_stops_the_schedule(self) -> None:
        declared = DAG("job", schedule=stock_timetable(), start_date=DAY_15, catchup=True)
        dag = DagSerialization.from_dict(DagSerialization.to_dict(declared))
        manual = DagRun(
            dag_id="job",
            run_id="manual",
            run_type=DagRunType.MANUAL,
            logical_date=DAY_16,
            data_interval=DataInterval(DAY_15, DAY_16),
            run_after=DAY_16,
        )
        model = DagModel(dag_id="job")  # type: ignore[no-untyped-call]  # Airflow's

        model.calculate_dagrun_date_fields(dag, reference_run=manual)

        assert model.next_dagrun == manual.logical_date


class TestDeadlines:
    """Why ``aggregator.alerts.deadline`` has its own reference: the faults of each of Airflow's references."""

    DUE = pendulum.datetime(2026, 11, 16, 1)
    WITHIN = timedelta(hours=1)

    @pytest.fixture
    def session(self) -> Iterator[Session]:
        import_all_models()  # type: ignore[no-untyped-call]  # Airflow's
        engine = create_engine("sqlite://")
        DagRun.metadata.create_all(engine)
        with Session(engine) as session:
            yield session
        engine.dispose()

    def run_of_a_dag(
        self, session: Session, reference: BaseDeadlineReference, run_type: DagRunType = DagRunType.SCHEDULED
    ) -> DagRun:
        """A run at the time when it is due."""
        deadline = DeadlineAlert(reference=reference, interval=self.WITHIN, callback=AsyncCallback(notify_late))
        declared = DAG("job", schedule=stock_timetable(), start_date=DAY_15, catchup=True, deadline=deadline)
        EmptyOperator(task_id="task", dag=declared)
        session.add(DagBundleModel(name="bundle"))
        session.add(DagModel(dag_id="job", bundle_name="bundle", fileloc="job.py"))  # type: ignore[no-untyped-call]  # Airflow's
        session.flush()
        SerializedDagModel.write_dag(LazyDeserializedDAG.from_dag(declared), bundle_name="bundle", session=session)
        dag = session.scalars(select(SerializedDagModel)).one().dag
        with time_machine.travel(self.DUE, tick=False):
            return dag.create_dagrun(
                run_id=f"{run_type.value}__{DAY_15.isoformat()}",
                logical_date=DAY_15,
                data_interval=DataInterval(DAY_15, DAY_16),
                run_after=self.DUE,
                run_type=run_type,
                triggered_by=DagRunTriggeredByType.TEST,
                state=DagRunState.QUEUED,
                session=session,
            )

    @pytest.mark.parametrize("run_type", [DagRunType.SCHEDULED, DagRunType.BACKFILL_JOB])
    def test_logical_date_reference_makes_new_runs_and_backfills_late(
        self, session: Session, run_type: DagRunType
    ) -> None:
        run = self.run_of_a_dag(session, DeadlineReference.DAGRUN_LOGICAL_DATE, run_type)

        (deadline,) = run.deadlines
        assert deadline.deadline_time == DAY_15 + self.WITHIN < run.run_after

    def test_queued_at_reference_prevents_a_clear(self, session: Session) -> None:
        run = self.run_of_a_dag(session, DeadlineReference.DAGRUN_QUEUED_AT)
        run.state = DagRunState.FAILED

        if AIRFLOW >= (3, 4):  # corrected there (issue 70368)
            clear_task_instances(run.task_instances, session)
            assert run.state == DagRunState.QUEUED
            return
        with pytest.raises(TypeError, match="unsupported type for timedelta seconds component: dict"):
            clear_task_instances(run.task_instances, session)

    def test_own_reference_allows_a_clear(self, session: Session) -> None:
        run = self.run_of_a_dag(session, DagRunDue(self.WITHIN))
        run.state = DagRunState.FAILED

        clear_task_instances(run.task_instances, session)

        (deadline,) = run.deadlines
        assert (run.state, deadline.deadline_time) == (DagRunState.QUEUED, self.DUE + self.WITHIN)


class StartedFromTrigger(BaseOperator):
    start_from_trigger = True
    start_trigger_args = StartTriggerArgs(trigger_cls="module.Trigger", next_method="resume")


class TestStartFromTrigger:
    """Why `kpi_dispatch` does not start its instances from the triggerer (ADR 8)."""

    def test_worker_can_name_its_instance_and_trigger_cannot(self) -> None:
        assert SetRenderedMapIndex in messages(ToSupervisor)
        assert SetRenderedMapIndex not in messages(ToTriggerSupervisor)
        assert SetXCom in messages(ToTriggerSupervisor)

    def test_mapped_tasks_start_from_trigger_although_documented_as_unsupported(self) -> None:
        with DAG("job", schedule=None) as declared:
            StartedFromTrigger.partial(task_id="send").expand(params=[{}, {}])
        task = DagSerialization.from_dict(DagSerialization.to_dict(declared)).get_task("send")
        instance = TaskInstance(task, dag_version_id=uuid4(), run_id="manual", map_index=0)

        assert task.expand_start_from_trigger(context={}) is False
        assert instance.start_trigger_args is not None


class TestIterableTasks:
    """AIP-104 (Airflow pull request 62922) may replace ``send_kpis`` (ADR 8)."""

    def test_operators_have_no_iterate(self) -> None:
        assert {name for name in dir(OperatorPartial) if name.startswith(("expand", "iterate"))} == {
            "expand",
            "expand_kwargs",
        }


def messages(union: Any) -> set[type]:
    """Names of the messages that a supervisor accepts."""
    return {*get_args(get_args(union)[0])}


class TestSupervisor:
    """Why ``[workers] min_heartbeat_interval`` is 1 second everywhere."""

    def test_supervisor_that_missed_the_end_of_a_task_waits_for_the_heartbeat_interval(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The streams of a process can end before the process can be reaped. Then nothing wakes the supervisor."""
        monkeypatch.setattr(supervisor, "MIN_HEARTBEAT_INTERVAL", 5)
        select = Mock(return_value=[])
        process = Mock(TimeoutExpired=TimeoutError)
        process.wait.side_effect = [TimeoutError, 0]
        task = supervisor.ActivitySubprocess(
            process_log=Mock(), id=uuid4(), pid=1, stdin=Mock(), process=process, client=Mock()
        )
        task.selector = Mock(select=select)
        task._last_heartbeat_attempt = task._last_successful_heartbeat = time.monotonic()

        task._monitor_subprocess()  # type: ignore[no-untyped-call]  # Airflow's

        assert select.call_args_list == [call(timeout=5), call(timeout=5)]


class TestPlugins:
    @pytest.mark.parametrize(("ignore", "registered"), [("", True), ("*.py\n!*_plugin.py\n", False)])
    def test_plugin_loader_registers_every_file_by_its_name(
        self, ignore: str, registered: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(sys, "modules", sys.modules.copy())
        (tmp_path / "package").mkdir()
        (tmp_path / "package" / "module_of_a_plugin_package.py").write_text("")
        (tmp_path / ".airflowignore").write_text(ignore)

        _load_plugins_from_plugin_directory(str(tmp_path))

        assert ("module_of_a_plugin_package" in sys.modules) is registered

    def test_workers_load_plugins_before_they_fork_only_if_plugins_are_not_loaded_lazily(self) -> None:
        """Why workers set ``[core] lazy_load_plugins``: the scheduler's job loads listeners, a worker has no job."""
        assert conf.get_default_value("core", "lazy_load_plugins") == "True"
        assert "get_listener_manager" in vars(job)
        assert "get_listener_manager" not in vars(celery_command) | vars(celery_executor_utils)


class TestUserInterface:
    """What the Operations page reads of Airflow's UI; nothing of it is documented as stable (ADR 11)."""

    def test_ui_gives_its_libraries_to_plugins(self) -> None:
        source = bundle_of_the_ui()

        given = set(re.findall(r"Reflect\.set\(globalThis,`(\w+)`", source))
        assert given >= {"React", "ReactRouterDOM", "ChakraUI"}
        assert "globalThis.AirflowPlugin" in source

    def test_ui_takes_a_component_by_the_name_of_its_app(self) -> None:
        pattern = r"\.bundle_url,document\.baseURI\)\.href\)\.then\(\(\)=>\{let \w+=globalThis\[\w+\.name\]"
        assert re.search(pattern, bundle_of_the_ui())

    @pytest.mark.parametrize(
        ("path", "key", "fields"),
        [
            ("/dags", "dags", {"dag_id", "is_paused", "next_dagrun_run_after", "latest_dag_runs"}),
            ("/calendar/{dag_id}", "dag_runs", {"date", "state", "count"}),
            ("/dags/{dag_id}/dagRuns/{dag_run_id}/deadlines", "deadlines", {"dag_run_id", "deadline_time"}),
        ],
    )
    def test_ui_routes_of_the_run_history_exist(self, path: str, key: str, fields: set[str]) -> None:
        (route,) = [each for each in ui_router.routes if isinstance(each, APIRoute) and each.path == f"/ui{path}"]

        (item,) = get_args(route.response_model.model_fields[key].annotation)
        names = {field.alias or name for name, field in item.model_fields.items()} | {*item.model_computed_fields}
        assert names >= fields

    def test_runs_of_the_ui_have_their_times(self) -> None:
        assert {*DAGRunLightResponse.model_fields} >= {
            "run_id",
            "logical_date",
            "run_after",
            "start_date",
            "end_date",
            "state",
        }


def bundle_of_the_ui() -> str:
    """The main module of Airflow's user interface."""
    (path,) = (Path(airflow.__file__).parent / "ui/dist/assets").glob("index-*.js")
    return path.read_text()
