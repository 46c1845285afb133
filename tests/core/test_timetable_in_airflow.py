"""The timetable in Airflow's parser, scheduler, backfill and `dags test`, on a metadata database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pendulum
import pytest
import time_machine
from airflow.api.common.trigger_dag import trigger_dag
from airflow.api_fastapi.app import create_app
from airflow.dag_processing.bundles.manager import DagBundlesManager
from airflow.dag_processing.dagbag import BundleDagBag, sync_bag_to_db
from airflow.jobs.job import Job
from airflow.jobs.scheduler_job_runner import SchedulerJobRunner
from airflow.models.backfill import _create_backfill
from airflow.models.dag import DagModel
from airflow.models.dagrun import DagRun
from airflow.models.deadline_alert import DeadlineAlert
from airflow.models.serialized_dag import SerializedDagModel
from airflow.utils.db import initdb
from airflow.utils.session import create_session
from airflow.utils.state import DagRunState
from airflow.utils.types import DagRunTriggeredByType
from fastapi.testclient import TestClient
from sqlalchemy import select

from tests.bundles import use_bundle

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime
    from pathlib import Path

    import psycopg
    from airflow.sdk import DAG

pytestmark = [
    pytest.mark.slow,
    # Airflow 3.4 does not close the asynchronous connection of its API server.
    pytest.mark.filterwarnings(
        "ignore:Exception ignored in. <function Connection.__del__:pytest.PytestUnraisableExceptionWarning"
    ),
]

DAG_FILE = """
from datetime import timedelta
from airflow.sdk import DAG, task
from aggregator.core.data_interval import data_interval
from aggregator.core.timetable import OffsetCronTimetable

schedule = OffsetCronTimetable("0 0 * * *", offset=timedelta(hours=1))
with DAG("{dag_id}", schedule=schedule, catchup=True, default_args={{"start_date": None}}, max_active_runs=100):
    @task
    def window(**context):
        return data_interval(context).start.to_date_string()
    window()
"""


class Deployment:
    """One DAG in a bundle, and the steps of Airflow's processes."""

    def __init__(self, dag_id: str, folder: Path) -> None:
        self.dag_id, self.folder = dag_id, folder
        (folder / "job.py").write_text(DAG_FILE.format(dag_id=dag_id))

    def parse(self) -> DAG:
        DagBundlesManager().sync_bundles_to_db()  # type: ignore[no-untyped-call]  # Airflow's
        bag = BundleDagBag(self.folder, bundle_path=self.folder, bundle_name="job")
        assert not bag.import_errors
        sync_bag_to_db(bag, "job", None)
        return bag.dags[self.dag_id]

    def schedule(self) -> None:
        runner = SchedulerJobRunner(job=Job())  # type: ignore[no-untyped-call]  # Airflow's
        with create_session() as session:
            model = session.get_one(DagModel, self.dag_id)
            while model.next_dagrun_create_after and model.next_dagrun_create_after <= pendulum.now("UTC"):
                before = model.next_dagrun
                runner._create_dag_runs([model], session)
                session.flush()
                assert model.next_dagrun != before, "the schedule does not advance"

    def next_logical_date(self) -> datetime | None:
        with create_session() as session:
            return session.get_one(DagModel, self.dag_id).next_dagrun

    def windows(self) -> list[tuple[str, str, str]]:
        query = select(DagRun).where(DagRun.dag_id == self.dag_id).order_by(DagRun.logical_date)
        with create_session() as session:
            runs = session.scalars(query).all()
            return [(f"{r.logical_date:%d}", f"{r.data_interval_start:%d}", f"{r.data_interval_end:%d}") for r in runs]


@pytest.fixture(scope="module", autouse=True)
def _metadata() -> None:
    initdb()


@pytest.fixture
def deployment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Deployment:
    use_bundle(monkeypatch, "job", tmp_path)
    return Deployment(tmp_path.name, tmp_path)


@pytest.fixture(scope="module")
def api() -> Iterator[TestClient]:
    """Airflow's API server; every client is an admin."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS", "True")
        environment.setenv(
            "AIRFLOW__API_AUTH__JWT_SECRET", "a secret of this test only, with the required length ..........."
        )
        with TestClient(create_app()) as client:
            yield client


def test_dag_without_a_start_date_starts_with_the_latest_interval_and_skips_none(
    deployment: Deployment,
) -> None:
    with time_machine.travel(pendulum.datetime(2026, 11, 1, 12), tick=False):
        deployment.parse()
        assert deployment.next_logical_date() == pendulum.datetime(2026, 10, 31)

    # The DAG is paused for a week; every parse updates the date.
    with time_machine.travel(pendulum.datetime(2026, 11, 8, 12), tick=False):
        deployment.parse()
        deployment.schedule()
    assert deployment.windows() == [("07", "07", "08")]

    # The scheduler is down for three days.
    with time_machine.travel(pendulum.datetime(2026, 11, 11, 12), tick=False):
        deployment.schedule()
    assert deployment.windows() == [("07", "07", "08"), ("08", "08", "09"), ("09", "09", "10"), ("10", "10", "11")]


@time_machine.travel(pendulum.datetime(2026, 11, 11, 0, 30), tick=False)
def test_backfill_creates_runs_of_the_requested_dates(deployment: Deployment) -> None:
    deployment.parse()

    _create_backfill(
        dag_id=deployment.dag_id,
        from_date=pendulum.datetime(2026, 11, 8),
        to_date=pendulum.datetime(2026, 11, 11),
        max_active_runs=1,
        reverse=False,
        dag_run_conf=None,
        triggering_user_name=None,
    )

    assert deployment.windows() == [("08", "08", "09"), ("09", "09", "10"), ("10", "10", "11")]


@time_machine.travel(pendulum.datetime(2026, 11, 11, 12))
@pytest.mark.parametrize(
    ("logical_date", "window"), [(pendulum.datetime(2026, 11, 5), "2026-11-05"), (None, "2026-11-10")]
)
def test_dags_test(deployment: Deployment, logical_date: datetime | None, window: str) -> None:
    run = deployment.parse().test(logical_date=logical_date)

    assert run.state == DagRunState.SUCCESS
    assert run.get_task_instance("window").xcom_pull(task_ids="window") == window


def test_dags_test_of_a_dag_with_deadline_succeeds_and_leaves_serialized_deadlines_unchanged(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    for dag_id in (deployment.dag_id, f"beside_{deployment.dag_id}"):
        text = f"from aggregator.wiring import dag_args\n{DAG_FILE.format(dag_id=dag_id)}"
        deadline = "deadline=dag_args('click_rollups')['deadline'], catchup=True"
        (deployment.folder / f"{dag_id}.py").write_text(text.replace("catchup=True", deadline))
    (deployment.folder / "job.py").unlink()
    with time_machine.travel(pendulum.datetime(2026, 11, 11, 12)):
        dag = deployment.parse()
    before = serialized_deadlines()
    assert before.keys() >= {deployment.dag_id, f"beside_{deployment.dag_id}"}

    monkeypatch.setattr("sys.argv", ["airflow", "dags", "test", deployment.dag_id, "2026-11-05"])
    # Airflow does not write a DAG twice within seconds.
    with time_machine.travel(pendulum.datetime(2026, 11, 11, 13)):
        run = dag.test(logical_date=pendulum.datetime(2026, 11, 5))

    assert run.state == DagRunState.SUCCESS
    assert serialized_deadlines() == before


DAG_WITH_PARAMS = """
from datetime import timedelta
from airflow.sdk import DAG, Param, task
from aggregator.core.catalog import Owner
from aggregator.wiring import default_args
from aggregator.alerts.notifier import notify_failed
from aggregator.core.errors import PermanentError
from aggregator.core.timetable import OffsetCronTimetable

schedule = OffsetCronTimetable("0 0 * * *", offset=timedelta(hours=1))
days = {{"startDate": Param(None, type=["null", "string"], format="date")}}
arguments = default_args(Owner.CLICKS)
with DAG("{dag_id}", schedule=schedule, params=days, default_args=arguments, on_failure_callback=notify_failed):
    @task
    def plan(**context):
        raise PermanentError("There are no hires. Insert some.")
    @task(trigger_rule="all_done")
    def finish():
        raise PermanentError("A task failed.")
    plan() >> finish()
"""


@pytest.mark.parametrize(
    ("conf", "alerts"),
    [
        ({"startdate": "2026-11-01"}, []),
        ({"startDate": "2126-11-01"}, []),
        (
            {"startDate": "2026-11-01"},
            ["Task plan failed with a permanent error, which is not retried: There are no hires. Next step: fix the "],
        ),
    ],
)
def test_wrong_params_of_a_manual_run_fail_it_without_an_alert(
    deployment: Deployment, ops: psycopg.Connection, conf: dict[str, str], alerts: list[str]
) -> None:
    (deployment.folder / "job.py").write_text(DAG_WITH_PARAMS.format(dag_id=deployment.dag_id))

    run = deployment.parse().test(logical_date=pendulum.datetime(2026, 11, 5), run_conf=conf)

    assert run.state == DagRunState.FAILED
    texts = [text for (text,) in ops.execute("select text from ops.alerts").fetchall()]
    assert len(texts) == len(alerts)
    assert all(part in text for part, text in zip(alerts, texts, strict=True))


def serialized_deadlines() -> dict[str, list[tuple[Any, Any]]]:
    """Reference and interval of each deadline in the database, by DAG."""
    with create_session() as session:
        return {
            stored.dag_id: [
                (alert.reference, alert.interval)
                for alert in session.scalars(select(DeadlineAlert).where(DeadlineAlert.serialized_dag_id == stored.id))
            ]
            for stored in session.scalars(select(SerializedDagModel))
            if stored.dag.deadline
        }


@time_machine.travel(pendulum.datetime(2026, 11, 11, 12), tick=False)
def test_dags_trigger_with_a_date_does_not_stop_the_schedule(deployment: Deployment) -> None:
    deployment.parse()
    deployment.schedule()

    with time_machine.travel(pendulum.datetime(2026, 11, 12, 0, 30), tick=False):
        trigger_dag(
            deployment.dag_id, triggered_by=DagRunTriggeredByType.CLI, logical_date=pendulum.datetime(2026, 11, 11)
        )
    with time_machine.travel(pendulum.datetime(2026, 11, 13, 12), tick=False):
        deployment.schedule()

    # Airflow stores a wrong interval for the run of the 11th. Tasks use aggregator.core.data_interval.
    assert deployment.windows() == [("10", "10", "11"), ("11", "10", "11"), ("12", "12", "13")]


@time_machine.travel(pendulum.datetime(2026, 11, 25, 10, 0, 30), tick=False)
@pytest.mark.parametrize(
    ("logical_date", "status", "expected"),
    [
        ("2026-11-20T00:00:00Z", 200, "2026-11-20"),
        ("2026-11-20T01:00:00+01:00", 200, "2026-11-20"),
        ("2026-11-25T09:59:00Z", 200, "2026-11-24"),  # the form's prefilled time
        (None, 200, None),
        ("2026-11-20T10:30:00Z", 400, "Use 2026-11-20 or 2026-11-21 (UTC)"),
        ("2026-11-25T00:00:00Z", 400, "Use 2026-11-24 (UTC)"),
        ("2026-12-24T18:00:00Z", 400, "Use 2026-11-24 (UTC)"),
    ],
)
def test_api_server_creates_the_run_of_the_given_date_or_rejects_it(
    deployment: Deployment, api: TestClient, logical_date: str | None, status: int, expected: str | None
) -> None:
    deployment.parse()
    token = api.get("/auth/token").json()["access_token"]
    response = api.post(
        f"/api/v2/dags/{deployment.dag_id}/dagRuns",
        json={"logical_date": logical_date},
        headers={"Authorization": f"Bearer {token}"},
    )
    assert response.status_code == status
    if status == 200:
        start = response.json()["data_interval_start"]
        assert start == (expected and f"{expected}T00:00:00Z")
    else:
        assert expected in response.json()["detail"]
        assert deployment.windows() == []
