"""Reports of n8n: in order, early, repeated, contradicting, late and concurrent."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import quote

import httpx
import psycopg
import pytest
from fastapi.testclient import TestClient

from aggregator.core.http import Threads
from aggregator.kpi import api, jobs
from aggregator.web.app import APPS
from tests.kpi_data import TRACE, create, first

PATH = f"/{TRACE}/a"
KEY = {"Authorization": "Bearer right"}


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Raise the response timeout, so that tests pass on a busy machine. Tests of the timeout set their own."""
    monkeypatch.setattr(api, "RESPONSE_TIMEOUT", 120.0)


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> TestClient:
    monkeypatch.setenv("SCHEDULER_API_KEY", "right")
    return TestClient(APPS["/api/kpi"], headers=KEY)


@pytest.fixture
def job(kpi_db: psycopg.Connection) -> psycopg.Connection[Any]:
    """A connection to the database with a job whose KPI ``a`` is being sent."""
    create(kpi_db, "a", "never sent", report_back=True)
    jobs.claim(kpi_db, TRACE, "a", "me")
    return kpi_db


def stored(connection: psycopg.Connection[Any], id_: str = "a") -> tuple[str, str | None]:
    statement = "select status, error from kpi.job_kpis where kpi_id = %s"
    status, error = first(connection, statement, [id_])
    return status, error


def test_completed_report_is_stored_and_can_be_repeated(client: TestClient, job: psycopg.Connection[Any]) -> None:
    jobs.record(job, TRACE, "a", "me", "triggered")
    one, two = (client.post(PATH, json={"status": "completed"}) for _ in range(2))
    expected = {"traceId": TRACE, "kpiId": "a", "status": "completed"}
    assert (one.status_code, one.json()) == (200, {**expected, "repeated": False})
    assert (two.status_code, two.json()) == (200, {**expected, "repeated": True})
    assert stored(job) == ("completed", None)


def test_failed_report_is_stored_with_its_error(client: TestClient, job: psycopg.Connection[Any]) -> None:
    jobs.record(job, TRACE, "a", "me", "unknown", error="no response")
    assert client.post(PATH, json={"status": "failed", "error": "No\0 such coin 🦊" + "x" * 3000}).status_code == 200
    status, error = stored(job)
    assert status == "failed"
    assert error == ("No such coin 🦊" + "x" * 3000)[:2000]


def test_report_before_the_outcome_is_kept(client: TestClient, job: psycopg.Connection[Any]) -> None:
    assert client.post(PATH, json={"status": "completed"}).status_code == 200
    assert jobs.record(job, TRACE, "a", "me", "triggered") == "completed"
    assert stored(job) == ("completed", None)


def test_contradicting_report_is_409_and_changes_nothing(client: TestClient, job: psycopg.Connection[Any]) -> None:
    client.post(PATH, json={"status": "completed"})
    response = client.post(PATH, json={"status": "failed", "error": "after all"})
    assert (response.status_code, response.json()) == (
        409,
        {"detail": "The KPI is completed, so its status cannot change to failed. Nothing was stored."},
    )
    assert stored(job) == ("completed", None)


def test_report_after_the_timeout_is_409(client: TestClient, job: psycopg.Connection[Any]) -> None:
    jobs.record(job, TRACE, "a", "me", "triggered")
    assert jobs.expire(job, 0) == 1
    response = client.post(PATH, json={"status": "completed"})
    assert (response.status_code, stored(job)[0]) == (409, "timeout")


def test_report_about_a_kpi_that_was_never_sent_is_409(client: TestClient, job: psycopg.Connection[Any]) -> None:
    response = client.post(f"/{TRACE}/never sent", json={"status": "completed"})
    assert (response.status_code, stored(job, "never sent")) == (409, ("pending", None))


@pytest.mark.parametrize(
    "path",
    ["/trace_20250814_120000_00000000/a", f"/{TRACE}/b", "/nonsense/a", f"/{TRACE}/", f"/{TRACE}/a%00", "/%00/a"],
)
def test_missing_job_or_kpi_is_404(client: TestClient, job: psycopg.Connection[Any], path: str) -> None:
    response = client.post(path, json={"status": "completed"})
    assert (response.status_code, response.json()) == (404, {"detail": "There is no such job, or no such KPI in it."})
    assert stored(job) == ("sending", None)


@pytest.mark.parametrize("id_", ["a/b", "/a", "🦊 ü", "{{ var.value.secret }}", "a?b=c#d", "../a", "100%"])
def test_percent_encoded_ids_reach_their_kpi(client: TestClient, kpi_db: psycopg.Connection[Any], id_: str) -> None:
    create(kpi_db, id_, report_back=True)
    jobs.claim(kpi_db, TRACE, id_, "me")
    response = client.post(f"/{TRACE}/{quote(id_, safe='')}", json={"status": "completed"})
    assert (response.status_code, response.json()["kpiId"]) == (200, id_)
    assert stored(kpi_db, id_) == ("completed", None)


@pytest.mark.parametrize(
    "body",
    ["", "{", "[]", "null", "{}", '{"status": "triggered"}', '{"status": null}', '{"status": "failed", "error": 7}'],
)
def test_body_that_is_not_a_report_is_400(client: TestClient, job: psycopg.Connection[Any], body: str) -> None:
    response = client.post(PATH, content=body)
    assert response.status_code == 400
    assert response.json()["detail"]
    assert stored(job) == ("sending", None)


@pytest.mark.parametrize(
    ("error", "kept"),
    [
        (b'"No \\ud800coin"', "No \ufffdcoin"),
        (b'"No \\udc00coin"', "No \ufffdcoin"),
        (b'"No \xed\xa0\x80coin"', "No \ufffd\ufffd\ufffdcoin"),
        (b'"\\ud83e\\udd8a"', "🦊"),
    ],
)
def test_invalid_characters_in_a_report_are_replaced(
    client: TestClient, job: psycopg.Connection[Any], error: bytes, kept: str
) -> None:
    response = client.post(PATH, content=b'{"status": "failed", "error": ' + error + b"}")
    assert response.status_code == 200
    assert stored(job) == ("failed", kept)


def test_byte_order_mark_of_a_report_is_ignored(client: TestClient, job: psycopg.Connection[Any]) -> None:
    assert client.post(PATH, content=b'\xef\xbb\xbf{"status": "completed"}').status_code == 200
    assert stored(job) == ("completed", None)


@pytest.mark.parametrize(
    "extra", ["[" * 5000 + "]" * 5000, "[" * 30_000, '{"a":' * 5000 + "1" + "}" * 5000, "9" * 5000, "NaN"]
)
def test_unreadable_report_is_400(client: TestClient, job: psycopg.Connection[Any], extra: str) -> None:
    response = client.post(PATH, content=f'{{"status": "completed", "more": {extra}}}')
    assert response.status_code == 400
    assert "not JSON that can be read" in response.json()["detail"]
    assert stored(job) == ("sending", None)


def test_large_body_is_413(client: TestClient, job: psycopg.Connection[Any]) -> None:
    report = {"status": "failed", "error": "x" * api.MAX_BODY}
    assert client.post(PATH, json=report).status_code == 413
    assert stored(job) == ("sending", None)


@pytest.mark.parametrize("url", ["postgresql://u:secret-word@127.0.0.1:1/kpi", None])
def test_missing_database_is_503_without_its_password(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, url: str | None
) -> None:
    monkeypatch.delenv("AIRFLOW_CONN_KPI_DB", raising=False)
    if url:
        monkeypatch.setenv("AIRFLOW_CONN_KPI_DB", url)
    response = client.post(PATH, json={"status": "completed"})
    assert response.status_code == 503
    cause = "a database is not available" if url else "a setting or a statement is wrong"
    assert response.json()["detail"].startswith(f"The request failed: {cause}. ")
    assert response.headers["retry-after"]
    assert f"POST '{PATH}' failed with 503" in caplog.text
    assert "secret-word" not in caplog.text + response.text


@pytest.mark.slow
def test_locked_table_is_503_and_stores_nothing(
    client: TestClient, job: psycopg.Connection[Any], kpi_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "RESPONSE_TIMEOUT", 1)
    threads = Threads("one", 1)
    monkeypatch.setattr(api, "_THREADS", threads)
    with psycopg.connect(kpi_database_url) as other:
        other.execute("lock table kpi.job_kpis")
        assert client.post(PATH, json={"status": "completed"}).status_code == 503
        # Wait for the thread, so that the lock is held until the server cancels the statement.
        threads._pool.shutdown()
    assert stored(job) == ("sending", None)


def test_silent_server_is_503(
    client: TestClient, mute_server: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(api, "RESPONSE_TIMEOUT", 0.2)
    monkeypatch.setenv("AIRFLOW_CONN_KPI_DB", f"postgresql://u@127.0.0.1:{mute_server}/kpi?connect_timeout=30")
    assert client.post(PATH, json={"status": "completed"}).status_code == 503
    assert "TimeoutError" in caplog.text


@pytest.mark.slow
def test_hundred_concurrent_reports_use_at_most_eight_connections(
    monkeypatch: pytest.MonkeyPatch, kpi_db: psycopg.Connection[Any]
) -> None:
    monkeypatch.setenv("SCHEDULER_API_KEY", "right")
    ids = [f"kpi-{number}" for number in range(100)]
    create(kpi_db, *ids, report_back=True)
    for id_ in ids:
        jobs.claim(kpi_db, TRACE, id_, "me")
    connections = 0

    async def watch() -> None:
        nonlocal connections
        while True:
            (now,) = first(kpi_db, "select count(*) from pg_stat_activity where application_name like '%reports'")
            connections = max(connections, now)
            await asyncio.sleep(0.01)

    async def report_all() -> list[httpx.Response]:
        transport = httpx.ASGITransport(APPS["/api/kpi"])
        async with httpx.AsyncClient(transport=transport, base_url="http://airflow", headers=KEY, timeout=60) as client:
            watching = asyncio.create_task(watch())
            posts = [client.post(f"/{TRACE}/{id_}", json={"status": "completed"}) for id_ in ids]
            responses = await asyncio.gather(*posts)
            watching.cancel()
            return responses

    assert {response.status_code for response in asyncio.run(report_all())} == {200}
    assert jobs.finalize(kpi_db, TRACE).kpis == {"completed": 100}
    assert 0 < connections <= 8


def test_openapi_describes_body_security_and_responses(client: TestClient) -> None:
    described = client.get("/openapi.json").json()
    post = described["paths"]["/{traceId}/{kpiId}"]["post"]
    assert set(post["requestBody"]["content"]["application/json"]["schema"]["properties"]) == {"status", "error"}
    assert post["security"] == [{"SCHEDULER_API_KEY": []}]
    assert {"200", "400", "401", "404", "409", "413", "503"} <= set(post["responses"])
