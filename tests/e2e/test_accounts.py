"""Accounts: the auth manager that the image brings, in Airflow's real API server."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import httpx
import pytest

from dev.bench.maintenance import create, environment

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from dev.postgres import Postgres

PASSWORD = "password-of-ann"
FAB = "airflow.providers.fab.auth_manager.fab_auth_manager.FabAuthManager"


@pytest.fixture
def api_server(postgres: Postgres, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """URL of an API server with accounts: an admin, a viewer, and a user without permissions."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    for name, value in {
        "AIRFLOW_HOME": str(tmp_path),
        "AIRFLOW__CORE__AUTH_MANAGER": FAB,
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__API_AUTH__JWT_SECRET": "j" * 64,
        "CRON_SECRET": "secret-of-cron",
    }.items():
        monkeypatch.setenv(name, value)
    name = f"test_{os.getpid()}_accounts"
    # `airflow db migrate` creates the tables of accounts, too.
    variables = environment(create(postgres, name))
    airflow = [sys.executable, "-m", "airflow"]
    for user, role in (("ann", "Admin"), ("vic", "Viewer"), ("pat", "Public")):
        person = ["--username", user, "--role", role, "--email", f"{user}@example.com", "--password", PASSWORD]
        command = [*airflow, "users", "create", *person, "--firstname", "a", "--lastname", "b"]
        subprocess.run(command, env=variables, check=True, capture_output=True)
    output = tmp_path / "output"
    with output.open("w") as file:
        process = subprocess.Popen([*airflow, "api-server"], env=variables, stdout=file, stderr=file)
    url = f"http://127.0.0.1:{port}"
    try:
        while True:
            assert process.poll() is None, output.read_text()
            try:
                if httpx.get(f"{url}/api/v2/version", timeout=60).is_success:
                    break
            except httpx.TransportError:
                time.sleep(0.2)
        yield url
    finally:
        process.terminate()
        process.wait()
        postgres.drop_database(name)


@pytest.mark.e2e
def test_only_people_with_an_account_use_airflow(api_server: str) -> None:
    def log_in(password: str, user: str) -> httpx.Response:
        return httpx.post(f"{api_server}/auth/token", json={"username": user, "password": password}, timeout=60)

    def status(path: str, token: str = "", method: str = "GET") -> int:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return httpx.request(method, f"{api_server}{path}", headers=headers, timeout=60).status_code

    assert log_in("wrong", "ann").status_code == 401
    admin, viewer, public = (log_in(PASSWORD, user).json()["access_token"] for user in ("ann", "vic", "pat"))
    assert status("/api/v2/dags") == 401
    assert [status("/api/v2/dags", token) for token in (admin, viewer)] == [200, 200]
    assert [status("/api/v2/connections", token) for token in (admin, viewer)] == [200, 403]
    overview = "/api/operations/overview"
    assert [status(overview, token) for token in ("", public, admin)] == [401, 403, 200]
    # The plugin's endpoints for machines still need their own secret.
    assert [status("/api/freshness", token) for token in ("", admin)] == [401, 401]
    assert status("/api/health", "secret-of-cron") in {200, 503}
