"""``GET /api/freshness``, with and without a database."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta

import pytest
from fastapi.testclient import TestClient

from aggregator.alerts import freshness
from aggregator.alerts.freshness import TARGETS, Freshness, Lag, State, Target
from aggregator.web import freshness as freshness_api
from aggregator.web.app import APPS

NOW = datetime(2026, 11, 16, tzinfo=UTC)


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> TestClient:
    monkeypatch.setenv("CRON_SECRET", "right")
    return TestClient(APPS["/api/freshness"], headers={"Authorization": "Bearer right"})


@pytest.mark.parametrize(
    ("state", "status", "word"),
    [
        (State.FRESH, 200, "fresh"),
        (State.EMPTY, 200, "fresh"),
        (State.PAUSED, 200, "fresh"),
        (State.UNUSED, 200, "fresh"),
        (State.STALE, 503, "stale"),
        (State.UNKNOWN, 503, "stale"),
    ],
)
def test_one_stale_or_unknown_table_makes_the_status_stale(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, state: State, status: int, word: str
) -> None:
    first, second = (one for one in TARGETS if one.table in {"ohlcv.bars", "public.click_rollups"})
    found = {first: Freshness(first, State.FRESH, NOW), second: Freshness(second, state, NOW, NOW)}
    monkeypatch.setattr(freshness, "check_target", lambda target, _: found.get(target, Freshness(target, State.UNUSED)))
    assert client.head("/").status_code == status
    response = client.get("/")
    assert (response.status_code, response.json()["status"]) == (status, word)
    targets = {target["target"]: target for target in response.json()["targets"]}
    assert targets["public.click_rollups"] == {
        "target": "public.click_rollups",
        "dag": "click_rollups",
        "state": state,
        "newest": "2026-11-16T00:00:00Z",
        "waitingSince": "2026-11-16T00:00:00Z",
        "maxAgeSeconds": 26 * 3600,
        "lag": None,
    }
    if status == 503:
        assert response.json()["targets"][0]["state"] == state


def test_table_with_symbols_counts_those_behind_and_names_the_worst(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    lag = Lag(behind=1234, symbols=5000, worst=("A 15m", "B 1h", "C 1d"))
    monkeypatch.setattr(freshness, "check_target", lambda target, _: Freshness(target, State.STALE, NOW, NOW, lag))
    target = client.get("/").json()["targets"][0]
    assert target["lag"] == {"behind": 1234, "symbols": 5000, "worst": ["A 15m", "B 1h", "C 1d"]}


def test_unreachable_database_is_unknown_and_its_password_stays_secret(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("market", "analytics", "telemetry", "kpi"):
        monkeypatch.delenv(f"AIRFLOW_CONN_{name.upper()}_DB", raising=False)
    monkeypatch.setenv("AIRFLOW_CONN_CLICKS_DB", "postgresql://u:secret-word@127.0.0.1:1/x?connect_timeout=2")
    response = client.get("/")
    assert response.status_code == 503
    assert response.json()["targets"][0]["state"] == "unknown"
    assert "secret-word" not in response.text
    assert "127.0.0.1" not in response.text


def test_refused_request_queries_no_database(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(freshness, "check_target", None)
    assert client.get("/", headers={"Authorization": "Bearer wrong"}).status_code == 401
    monkeypatch.delenv("CRON_SECRET")
    assert client.get("/").status_code == 503


def test_hanging_check_is_unknown_and_has_one_thread_however_many_requests(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    hangs, started = threading.Event(), []

    def check(target: Target, _: datetime) -> Freshness:
        if target == TARGETS[0]:
            started.append(target)
            hangs.wait()
        return Freshness(target, State.FRESH, NOW)

    monkeypatch.setattr(freshness, "check_target", check)
    monkeypatch.setattr(freshness, "TIME_LIMIT", timedelta(seconds=0.5))
    try:
        for _ in range(3):
            states = {target["target"]: target["state"] for target in client.get("/").json()["targets"]}
            assert states.pop(TARGETS[0].table) == "unknown"
        assert started == [TARGETS[0]]
    finally:
        hangs.set()


def test_slow_check_has_its_last_result_until_that_is_old(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    goes_on = threading.Event()
    goes_on.set()

    def check(target: Target, _: datetime) -> Freshness:
        goes_on.wait()
        return Freshness(target, State.FRESH, NOW)

    def states() -> set[str]:
        return {target["state"] for target in client.get("/").json()["targets"]}

    monkeypatch.setattr(freshness, "check_target", check)
    monkeypatch.setattr(freshness_api, "KEEP", 0.0)
    try:
        assert states() == {"fresh"}
        goes_on.clear()
        monkeypatch.setattr(freshness, "TIME_LIMIT", timedelta(seconds=0.1))
        assert states() == {"fresh"}
        monkeypatch.setattr(freshness_api, "KEEP_WHILE_SLOW", 0.0)
        assert states() == {"unknown"}
    finally:
        goes_on.set()
