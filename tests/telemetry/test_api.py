"""``/api/jobs/telemetry-daily`` on an Airflow metadata database."""

from __future__ import annotations

from threading import Event
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import pytest
from airflow import settings as airflow_settings
from airflow.dag_processing.bundles.manager import DagBundlesManager
from airflow.dag_processing.dagbag import BundleDagBag, sync_bag_to_db
from airflow.models.dagbag import DBDagBag
from airflow.models.dagrun import DagRun
from airflow.models.xcom import XComModel
from airflow.utils.db import initdb
from airflow.utils.session import create_session
from airflow.utils.state import DagRunState
from fastapi.testclient import TestClient
from sqlalchemy import create_engine, select
from sqlalchemy.orm import sessionmaker

from aggregator.telemetry import api as telemetry
from aggregator.web.app import APPS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow  # the metadata database takes seconds to make

PATH = "/telemetry-daily"
RESULT = {
    "success": True,
    "processed": 1,
    "inserted": 1,
    "updated": 0,
    "unchanged": 0,
    "errors": [],
    "results": [{"date": "2026-11-15", "event": "a", "count": 2, "unique_users": 1}],
}


@pytest.fixture(scope="module", autouse=True)
def _metadata(repository: Path) -> None:
    initdb()
    DagBundlesManager().sync_bundles_to_db()  # type: ignore[no-untyped-call]
    folder = repository / "dags"
    bag = BundleDagBag(folder / "telemetry_daily.py", bundle_path=folder, bundle_name="dags-folder")
    assert not bag.import_errors
    sync_bag_to_db(bag, "dags-folder", None)


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> TestClient:
    monkeypatch.setenv("CRON_SECRET", "right")
    monkeypatch.setattr(telemetry, "POLL_INTERVAL", 0.01)
    return TestClient(APPS["/api/jobs"], headers={"Authorization": "Bearer right"})


def run_of(run_id: str) -> DagRun:
    with create_session() as session:
        return session.scalars(select(DagRun).where(DagRun.run_id == run_id)).one()


def runs() -> int:
    with create_session() as session:
        return len(session.scalars(select(DagRun.id)).all())


@pytest.mark.parametrize(
    ("method", "given", "conf"),
    [
        ("GET", {}, {"dryRun": False}),
        ("POST", {}, {"dryRun": False}),
        ("GET", {"params": {"dryRun": "true"}}, {"dryRun": True}),
        (
            "GET",
            {"params": {"startDate": "2024-01-01", "endDate": "2024-12-31"}},
            {"startDate": "2024-01-01", "endDate": "2024-12-31", "dryRun": False},
        ),
        ("POST", {"json": {"startDate": "2024-02-29"}}, {"startDate": "2024-02-29", "dryRun": False}),
        (
            "POST",
            {"params": {"startDate": "2024-02-28"}, "json": {"endDate": "2024-02-29", "dryRun": True}},
            {"startDate": "2024-02-28", "endDate": "2024-02-29", "dryRun": True},
        ),
    ],
)
def test_request_starts_a_run_and_returns_its_link(
    client: TestClient, method: str, given: dict[str, Any], conf: object
) -> None:
    response = client.request(method, PATH, **given)
    assert response.status_code == 202
    run_id, link = response.json()["runId"], response.json()["link"]
    run = run_of(run_id)
    assert (run.dag_id, run.conf, run.state, run.logical_date) == ("telemetry_daily", conf, "queued", None)
    assert unquote(link).endswith(f"/dags/telemetry_daily/runs/{run_id}")
    assert response.headers["location"] == link


WRONG = {
    "no date": ({"startDate": "soon"}, "startDate: a day is written YYYY-MM-DD"),
    "no such day": ({"endDate": "2026-02-29"}, "endDate: Input should be a valid date"),
    "start after end": ({"startDate": "2026-01-02", "endDate": "2026-01-01"}, "is after"),
    "400 days": ({"startDate": "2024-01-01", "endDate": "2025-02-03"}, "are 400 days"),
    "unknown": ({"start": "2026-01-01"}, "start: Extra inputs are not permitted"),
    "future": ({"endDate": "9999-12-31"}, "endDate: 9999-12-31 is after "),
    "no boolean": ({"dryRun": "perhaps"}, "dryRun: Input should be a valid boolean"),
}


@pytest.mark.parametrize("how", ["query", "query of POST", "body"])
@pytest.mark.parametrize(("given", "says"), WRONG.values(), ids=WRONG)
def test_invalid_parameter_starts_nothing(client: TestClient, how: str, given: dict[str, str], says: str) -> None:
    before = runs()
    call = {
        "query": lambda: client.get(PATH, params=given),
        "query of POST": lambda: client.post(PATH, params=given),
        "body": lambda: client.post(PATH, json=given),
    }
    response = call[how]()
    assert response.status_code == 400
    assert says in response.json()["detail"]
    assert runs() == before


def test_head_checks_like_get_and_starts_nothing(client: TestClient) -> None:
    before = runs()
    assert client.head(PATH, params={"startDate": "2024-01-01"}).status_code == 200
    assert client.head(PATH, params={"startDate": "soon"}).status_code == 400
    assert client.head(PATH, headers={"Authorization": "Bearer wrong"}).status_code == 401
    assert runs() == before


@pytest.mark.parametrize(
    "body",
    [
        *("{", "[]", "7", '"text"', b"\xff", "null"),
        *("[" * 100_000, "[" * 100_000 + "]" * 100_000, '{"a":' * 100_000 + "1" + "}" * 100_000),
        f'{{"wait": {"9" * 5000}}}',
    ],
    ids=lambda body: repr(body)[:20],
)
def test_body_without_a_json_object_is_refused(client: TestClient, body: str) -> None:
    response = client.post(PATH, content=body)
    assert response.status_code == 400
    assert response.json()["detail"].startswith("The body is not ")


def finish(monkeypatch: pytest.MonkeyPatch, state: DagRunState, result: dict[str, Any] | None) -> None:
    """Finish every run as soon as it is created."""
    trigger = telemetry._trigger

    def trigger_and_finish(job: telemetry.Job) -> str:
        run_id = trigger(job)
        with create_session() as session:
            run = session.scalars(select(DagRun).where(DagRun.run_id == run_id)).one()
            run.dag = DBDagBag().get_latest_version_of_dag(telemetry.DAG_ID, session=session)
            assert run.created_dag_version_id
            run.verify_integrity(dag_version_id=run.created_dag_version_id, session=session)
            run.set_state(state)
        if result:
            XComModel.set(
                key="return_value", value=result, task_id=telemetry.TASK_ID, dag_id=telemetry.DAG_ID, run_id=run_id
            )
        return run_id

    monkeypatch.setattr(telemetry, "_trigger", trigger_and_finish)


def test_wait_returns_the_result(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    finish(monkeypatch, DagRunState.SUCCESS, RESULT)
    response = client.get(PATH, params={"wait": "true"})
    assert (response.status_code, response.json()) == (200, RESULT)


def test_wait_returns_the_result_of_a_failed_run(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    failed = {**RESULT, "success": False, "errors": ["'evil' (1 rows): P0001 raise_exception: not today"]}
    finish(monkeypatch, DagRunState.FAILED, failed)
    response = client.post(PATH, json={"wait": True})
    assert (response.status_code, response.json()) == (500, failed)


def test_wait_for_a_run_without_result_returns_the_state(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    finish(monkeypatch, DagRunState.FAILED, None)
    response = client.get(PATH, params={"wait": "true"})
    assert response.status_code == 500
    body = response.json()
    assert body.keys() == RESULT.keys()
    assert (body["success"], body["processed"], body["results"]) == (False, 0, [])
    assert "is failed and has no result" in body["errors"][0]


@pytest.mark.parametrize("body", [b'{"a\\ud800": 1}', b'{"startDate": "\\ud800"}'])
def test_lone_surrogate_in_a_body_is_an_invalid_parameter(client: TestClient, body: bytes) -> None:
    before = runs()
    assert (client.post(PATH, content=body).status_code, runs()) == (400, before)


def test_body_of_two_megabytes_is_too_large(client: TestClient) -> None:
    before = runs()
    assert (client.post(PATH, json={"more": "x" * 2_000_000}).status_code, runs()) == (413, before)


def test_wait_has_a_time_limit(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telemetry, "MAX_WAIT", 0.05)
    response = client.get(PATH, params={"wait": "true"})
    assert response.status_code == 202
    assert run_of(response.json()["runId"]).state == "queued"


@pytest.fixture
def ended(client: TestClient, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Event]:
    """Makes a call hang until the end of the test; set when it has ended."""
    release, ended = Event(), Event()

    def hang(*_: object) -> None:
        release.wait(60)
        ended.set()

    monkeypatch.setattr(telemetry, request.param, hang)
    yield ended
    release.set()


@pytest.mark.parametrize(
    ("ended", "limit", "status"),
    [("_trigger", "RESPONSE_TIMEOUT", 503), ("_result", "MAX_WAIT", 202)],
    indirect=["ended"],
)
def test_database_that_hangs_does_not_hold_the_response(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, ended: Event, limit: str, status: int
) -> None:
    monkeypatch.setattr(telemetry, limit, 0.5)
    assert client.get(PATH, params={"wait": "true"}).status_code == status
    assert not ended.is_set()


def test_missing_dag_is_a_503(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(telemetry, "DAG_ID", "not_there")
    response = client.get(PATH)
    assert (response.status_code, response.json()) == (
        503,
        {"detail": "Airflow has not loaded not_there yet. Send the request again later."},
    )


def test_unreachable_metadata_database_is_a_503_without_secrets(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    engine = create_engine("postgresql+psycopg2://someone:secret-word@127.0.0.1:1/airflow")
    for name in ("Session", "NonScopedSession"):
        monkeypatch.setattr(airflow_settings, name, sessionmaker(engine))
    response = client.get(PATH)
    assert response.status_code == 503
    assert response.json()["detail"].startswith("The request failed: a database is not available. ")
    assert response.headers["retry-after"]
    assert "OperationalError" in caplog.text
    assert "secret-word" not in caplog.text


def test_openapi_describes_parameters_and_responses(client: TestClient) -> None:
    described = TestClient(APPS["/api/jobs"]).get("/openapi.json").json()
    get, post = described["paths"][PATH]["get"], described["paths"][PATH]["post"]
    assert {parameter["name"] for parameter in get["parameters"]} == {"startDate", "endDate", "dryRun", "wait"}
    body = post["requestBody"]["content"]["application/json"]["schema"]["properties"]
    assert set(body) == {"startDate", "endDate", "dryRun", "wait"}
    assert get["security"] == post["security"] == [{"CRON_SECRET": []}]
    assert {"200", "202", "400", "401", "500", "503"} <= set(get["responses"])
