"""Process and control API of a stand-in."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import httpx
import psutil
import pytest

from dev.n8n.client import KEY_VARIABLE
from dev.stand_in.client import Control, process

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.slow
def test_process_runs_in_the_block_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY_VARIABLE, "not for it")
    before = set(psutil.Process().children())
    with process("dev.n8n", "--port", "0", environment={KEY_VARIABLE: None}, log=tmp_path / "log") as url:
        (running,) = set(psutil.Process().children()) - before
        assert KEY_VARIABLE not in running.environ()
        assert httpx.get(f"{url}/healthz", trust_env=False).json() == {"status": "ok"}
    assert not running.is_running()
    with pytest.raises(httpx.ConnectError):
        Control(url).wait_until_ready(0.2)


@pytest.mark.slow
def test_failed_start_has_the_end_of_the_log(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with (
            pytest.raises(RuntimeError, match="Address already in use"),
            process("dev.n8n", "--port", port, environment={}, log=tmp_path / "log"),
        ):
            pytest.fail("two processes on one port")


@pytest.mark.slow
def test_refused_call_is_named(tmp_path: Path) -> None:
    with (
        process("dev.n8n", "--port", "0", environment={}, log=tmp_path / "log") as url,
        pytest.raises(httpx.HTTPStatusError, match=r"GET /health of the stand-in returned 404"),
    ):
        Control(url).wait_until_ready()
