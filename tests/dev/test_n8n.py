"""The n8n stand-in responds as recorded, and lists its executions."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from dev.n8n.app import Workflow
from dev.n8n.client import REPORT_SECRET, running
from dev.n8n.fixtures import KEY
from dev.sample import kpis
from dev.stand_in.faults import Fault

if TYPE_CHECKING:
    from pathlib import Path

    from dev.n8n.client import N8nControl


def call(n8n: N8nControl, path: str, key: str = KEY, method: str = "POST") -> httpx.Response:
    headers = {"Authorization": f"Bearer {key}", "Idempotency-Key": "k"}
    body = {"traceId": "t", "kpiId": "a/b"}
    return httpx.request(method, n8n.webhook(path), json=body, headers=headers, timeout=5)


@pytest.mark.parametrize(
    ("workflow", "status", "content"),
    [
        (Workflow(), 200, {"message": "Workflow was started"}),
        (Workflow(fails=True), 500, {"message": "Error in workflow"}),
        (Workflow(breaks=True), 500, {"code": 0, "message": "There was a problem executing the workflow"}),
    ],
)
def test_execution_is_listed(n8n: N8nControl, workflow: Workflow, status: int, content: dict[str, Any]) -> None:
    n8n.register({"w": workflow})
    response = call(n8n, "w")
    assert (response.status_code, response.json()) == (status, content)
    (execution,) = n8n.executions("w")
    assert (execution["idempotency_key"], execution["body"]["kpiId"]) == ("k", "a/b")


def test_missing_webhook_is_a_json_404(n8n: N8nControl) -> None:
    n8n.register({"off": Workflow(active=False), "get": Workflow(method="GET")})
    for path in ("off", "never", "get"):
        response = call(n8n, path)
        assert (response.status_code, response.json()["code"]) == (404, 404)
        assert "not registered" in response.json()["message"]
        assert ("hint" in response.json()) is (path != "get")
    assert n8n.executions() == []


def test_wrong_key_is_a_plain_text_403(n8n: N8nControl) -> None:
    n8n.register({"w": Workflow(), "open": Workflow(protected=False)})
    response = call(n8n, "w", key="wrong")
    assert (response.status_code, response.text) == (403, "Authorization data is wrong!")
    assert call(n8n, "open", key="wrong").status_code == 200


def test_only_faults_without_a_status_execute_the_workflow(n8n: N8nControl) -> None:
    n8n.register({"w": Workflow()})
    n8n.faults({"w": [Fault(status=503), Fault(truncate_after_bytes=0)]})
    assert call(n8n, "w").status_code == 503
    with pytest.raises(httpx.RemoteProtocolError):
        call(n8n, "w")
    assert (len(n8n.executions()), len(n8n.requests())) == (1, 2)


def test_boot_returns_a_200_page_then_an_html_404_then_ready(n8n: N8nControl) -> None:
    n8n.register({"w": Workflow()})
    n8n.boot(starting=2, unregistered=1)
    pages = [call(n8n, "w"), httpx.get(f"{n8n.url}/rest/login"), call(n8n, "w")]
    assert {page.headers["Content-Type"] for page in pages} == {"text/html; charset=utf-8"}
    assert [page.status_code for page in pages] == [200, 200, 404]
    assert pages[0].text == pages[1].text == "n8n is starting up. Please wait"
    assert "Cannot POST" in pages[2].text
    assert httpx.get(f"{n8n.url}/healthz").status_code == 200
    assert n8n.executions() == []
    assert call(n8n, "w").json() == {"message": "Workflow was started"}


@pytest.mark.slow
def test_workflow_reports_back(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    reports: list[tuple[str, str, Any]] = []
    arrived = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            reports.append((self.path, self.headers["Authorization"], json.loads(body)))
            self.send_response(200)
            self.end_headers()
            arrived.set()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        monkeypatch.setenv(REPORT_SECRET, "s")
        with running(tmp_path / "log", key=KEY, reports_to=f"http://127.0.0.1:{server.server_port}/api/kpi") as n8n:
            n8n.register({"w": Workflow(reports="completed", report_after=0)})
            call(n8n, "w")
            assert arrived.wait(10)
        server.shutdown()
        thread.join()
    assert reports == [("/api/kpi/t/a%2Fb", "Bearer s", {"status": "completed", "error": None})]


def test_importable_workflows_start_with_a_protected_webhook_of_the_sample(repository: Path) -> None:
    files = sorted((repository / "dev" / "n8n").glob("*.json"))
    assert [file.name for file in files] == ["once.json", "report_back.json", "respond.json"]
    for file in files:
        workflow = json.loads(file.read_text())
        assert workflow.get("id"), "n8n's command line refuses a workflow without one"
        webhook, *others = workflow["nodes"]
        assert webhook["type"] == "n8n-nodes-base.webhook"
        assert webhook["parameters"]["authentication"] == "headerAuth"
        assert webhook["parameters"]["path"] in kpis.NAMES
        names = {node["name"] for node in workflow["nodes"]}
        targets = {link["node"] for out in workflow["connections"].values() for links in out["main"] for link in links}
        assert targets == names - {webhook["name"]} == {node["name"] for node in others}
    assert len({json.loads(file.read_text())["nodes"][0]["parameters"]["path"] for file in files}) == len(files)


def test_workflow_that_runs_once_compares_the_key(repository: Path) -> None:
    drop = json.loads((repository / "dev" / "n8n" / "once.json").read_text())["nodes"][1]
    assert drop["type"] == "n8n-nodes-base.removeDuplicates"
    assert drop["parameters"]["dedupeValue"] == "={{ $json.headers['idempotency-key'] || $execution.id }}"
