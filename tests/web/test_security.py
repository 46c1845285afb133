"""Every route of the plugin requires its authentication."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

import pytest
from airflow import plugins_manager
from fastapi import FastAPI
from fastapi.testclient import TestClient

if TYPE_CHECKING:
    from collections.abc import Iterator

PREFIXES = ("/api/jobs", "/api/kpi", "/api/health", "/api/freshness", "/api/operations")

PUBLIC = {
    ("/api/health", "/"),
    *product(PREFIXES, ("/openapi.json", "/docs", "/docs/oauth2-redirect", "/redoc")),
}
"""Prefix and path of the public routes: health and the API documentation."""

JSON = {"Content-Type": "application/json"}

REFUSED = {401, 403}


@pytest.fixture(autouse=True)
def secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRON_SECRET", "right")
    monkeypatch.setenv("SCHEDULER_API_KEY", "correct")


def plugin_apps() -> dict[str, FastAPI]:
    apps, _ = plugins_manager.get_fastapi_plugins()
    ours = {app["url_prefix"]: app["app"] for app in apps if app["app"].__module__ == FastAPI.__module__}
    return {prefix: app for prefix, app in ours.items() if prefix.startswith("/api/")}


def statuses(app: FastAPI) -> Iterator[tuple[str, str, int]]:
    """Call every route without authentication; yield method, path and status."""
    client = TestClient(app, raise_server_exceptions=False)
    for route in app.routes:
        for method in sorted(getattr(route, "methods", None) or {"GET"}):
            path = route.path.replace("{", "").replace("}", "")  # type: ignore[attr-defined]
            for body in (None, "{", "x" * 100_000):
                yield method, route.path, client.request(method, path, content=body, headers=JSON).status_code  # type: ignore[attr-defined]


def open_routes(prefix: str, app: FastAPI) -> set[tuple[str, str]]:
    return {
        (method, path)
        for method, path, status in statuses(app)
        if status not in REFUSED and (prefix, path) not in PUBLIC
    }


def test_every_route_requires_authentication() -> None:
    apps = plugin_apps()
    assert set(apps) == set(PREFIXES)
    assert {prefix: open_routes(prefix, app) for prefix, app in apps.items()} == {prefix: set() for prefix in apps}
    assert {(prefix, path) for prefix, app in apps.items() for _, path, _ in statuses(app)} > PUBLIC


def test_open_route_is_detected() -> None:
    app = FastAPI(openapi_url=None)

    @app.post("/open/{what}")
    def post(what: str, body: dict[str, Any]) -> None: ...

    assert open_routes("/api/jobs", app) == {("POST", "/open/{what}")}


# An authorized request gets 400, because its body or dates are invalid.
GUARDED = {
    "jobs, GET": ("/api/jobs", "GET", "/telemetry-daily", "CRON_SECRET"),
    "jobs, POST": ("/api/jobs", "POST", "/telemetry-daily", "CRON_SECRET"),
    "kpi": ("/api/kpi", "POST", "/trace_20250814_120000_abc12345/a", "SCHEDULER_API_KEY"),
}
BEARERS = {
    "none": (None, 401),
    "wrong": ("Bearer wrong", 401),
    "beginning": ("Bearer righ", 401),
    "longer": ("Bearer rightly", 401),
    "empty": ("Bearer ", 401),
    "other scheme": ("Basic right", 401),
    "no scheme": ("right", 401),
    "of the other API": ("Bearer other", 401),
    "very long": (b"Bearer " + b"x" * 1_000_000, 401),
    "not ASCII": ("Bearer rïght 🦊".encode(), 401),
    "not UTF-8": (b"Bearer \xff\xfe", 401),
    "right": ("Bearer right", 400),
    "right, small letters": ("bearer right", 400),
}


class Guarded:
    def __init__(self, monkeypatch: pytest.MonkeyPatch, prefix: str, method: str, path: str, secret: str) -> None:
        self.client = TestClient(plugin_apps()[prefix])
        self.method, self.path, self.secret = method, path, secret
        monkeypatch.setenv("CRON_SECRET", "other")
        monkeypatch.setenv("SCHEDULER_API_KEY", "other")
        monkeypatch.setenv(secret, "right")

    def call(self, bearer: Any) -> Any:
        headers = {} if bearer is None else {"Authorization": bearer}
        return self.client.request(self.method, self.path, params={"startDate": "soon"}, headers=headers)


@pytest.fixture(params=GUARDED.values(), ids=[*GUARDED])
def guarded(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Guarded:
    return Guarded(monkeypatch, *request.param)


@pytest.mark.parametrize(("bearer", "status"), BEARERS.values(), ids=BEARERS)
def test_bearer(guarded: Guarded, bearer: Any, status: int) -> None:
    response = guarded.call(bearer)
    assert response.status_code == status
    assert (response.headers.get("www-authenticate") == "Bearer") == (status == 401)


def test_secret_with_any_character_is_accepted(guarded: Guarded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(guarded.secret, "geheim 🦊")
    assert guarded.call("Bearer geheim 🦊".encode()).status_code == 400


@pytest.mark.parametrize("secret", ["right\n", " right", "right\r\n"])
def test_blanks_around_the_secret_are_ignored(guarded: Guarded, monkeypatch: pytest.MonkeyPatch, secret: str) -> None:
    monkeypatch.setenv(guarded.secret, secret)
    assert guarded.call("Bearer right").status_code == 400


def test_secret_with_a_line_break_inside_is_a_503(guarded: Guarded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(guarded.secret, "ri\nght")
    response = guarded.call("Bearer right")
    assert response.status_code == 503
    assert f"{guarded.secret} has a line break" in response.json()["detail"]


@pytest.mark.parametrize("secret", [None, "", " \n"])
def test_without_a_secret_every_request_is_a_503(
    guarded: Guarded, monkeypatch: pytest.MonkeyPatch, secret: str | None
) -> None:
    monkeypatch.delenv(guarded.secret)
    if secret is not None:
        monkeypatch.setenv(guarded.secret, secret)
    for bearer in (None, "Bearer ", "Bearer None"):
        response = guarded.call(bearer)
        assert response.status_code == 503
        assert guarded.secret in response.json()["detail"]
