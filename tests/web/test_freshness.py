"""What a monitor outside is told of the data, with and without a database."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from aggregator.alerts import freshness as targets
from aggregator.alerts.freshness import TARGETS, Freshness, Lag, State
from aggregator.web import freshness
from aggregator.web.mount import AnswerWithoutSlash

MOMENT = datetime(2026, 11, 16, tzinfo=UTC)


@pytest.fixture
def client(monkeypatch) -> TestClient:
    monkeypatch.setenv("CRON_SECRET", "right")
    return TestClient(freshness.app, headers={"Authorization": "Bearer right"})


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
def test_one_table_that_is_not_fresh_is_enough(client, monkeypatch, state: State, status: int, word: str) -> None:
    first, second = (one for one in TARGETS if one.table in {"ohlcv.bars", "public.click_rollups"})
    found = [Freshness(first, State.FRESH, MOMENT), Freshness(second, state, MOMENT, MOMENT)]
    monkeypatch.setattr(targets, "check", lambda _: found)
    assert client.head("/").status_code == status
    response = client.get("/")
    assert (response.status_code, response.json()["status"]) == (status, word)
    told = {target["target"]: target for target in response.json()["targets"]}
    assert told["public.click_rollups"] == {
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


def test_table_with_symbols_says_how_many_are_behind_and_names_the_worst(client, monkeypatch) -> None:
    lag = Lag(behind=1234, symbols=5000, worst=("A 15m", "B 1h", "C 1d"))
    monkeypatch.setattr(targets, "check", lambda _: [Freshness(TARGETS[0], State.STALE, MOMENT, MOMENT, lag)])
    (told,) = client.get("/").json()["targets"]
    assert told["lag"] == {"behind": 1234, "symbols": 5000, "worst": ["A 15m", "B 1h", "C 1d"]}


def test_database_that_does_not_answer_is_said_without_a_secret(client, monkeypatch) -> None:
    for name in ("market", "analytics", "telemetry", "kpi"):
        monkeypatch.delenv(f"AIRFLOW_CONN_{name.upper()}_DB", raising=False)
    monkeypatch.setenv("AIRFLOW_CONN_CLICKS_DB", "postgresql://u:secret-word@127.0.0.1:1/x?connect_timeout=2")
    response = client.get("/")
    assert response.status_code == 503
    assert response.json()["targets"][0]["state"] == "unknown"
    assert "secret-word" not in response.text
    assert "127.0.0.1" not in response.text


def test_stranger_makes_nobody_work(client, monkeypatch) -> None:
    monkeypatch.setattr(targets, "check", None)
    assert client.get("/", headers={"Authorization": "Bearer wrong"}).status_code == 401
    monkeypatch.delenv("CRON_SECRET")
    assert client.get("/").status_code == 503


@pytest.mark.parametrize("path", ["/api/freshness", "/api/freshness/"])
def test_address_has_a_slash_at_its_end_or_not(monkeypatch, path: str) -> None:
    monkeypatch.setenv("CRON_SECRET", "right")
    server = FastAPI()
    server.mount(freshness.PREFIX, freshness.app)
    server.add_middleware(AnswerWithoutSlash, prefix=freshness.PREFIX)
    assert TestClient(server, follow_redirects=False).get(path).status_code == 401
