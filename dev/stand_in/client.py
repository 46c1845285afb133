"""Client of a stand-in: its process and its control API."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import httpx
import tenacity

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_REPOSITORY = Path(__file__).parents[2]
_STOP_SECONDS = 15


@dataclass(frozen=True)
class Control:
    """Control API of a running stand-in.

    Attributes:
        url: Its URL, such as ``http://127.0.0.1:8787``.
    """

    health: ClassVar[str] = "/health"
    """Path that responds when the stand-in is ready."""

    url: str

    def wait_until_ready(self, seconds: float = 600) -> None:
        """Wait until the stand-in responds.

        Args:
            seconds: Time limit.

        Raises:
            httpx.TransportError: The stand-in did not respond in time.
        """
        tenacity.Retrying(
            stop=tenacity.stop_after_delay(seconds),
            wait=tenacity.wait_fixed(0.05),
            retry=tenacity.retry_if_exception_type(httpx.TransportError),
            reraise=True,
        )(self._call, "GET", self.health)

    def reset(self) -> None:
        """Delete all data, faults and recorded requests."""
        self._call("DELETE", "/__control__")

    def _call(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        response = httpx.request(method, f"{self.url}{path}", timeout=120, trust_env=False, **arguments)
        if response.is_error:
            msg = f"{method} {path} of the stand-in returned {response.status_code}: {response.text[:1000]}"
            raise httpx.HTTPStatusError(msg, request=response.request, response=response)
        return response


@contextmanager
def process(module: str, *arguments: str, environment: Mapping[str, str | None], log: Path) -> Iterator[str]:
    """Run a stand-in as a process in the `with` block.

    Args:
        module: Package of the stand-in.
        arguments: Arguments of its command.
        environment: Changes to the environment; None removes a variable. Secrets belong here, because the list of
            processes shows arguments.
        log: File to append its output to.

    Yields:
        Its URL, when it is ready.

    Raises:
        RuntimeError: The process exited. The text has the end of its log.
    """
    path = os.pathsep.join([str(_REPOSITORY), str(_REPOSITORY / "plugins")])
    merged = {**os.environ, "PYTHONPATH": path, **environment}
    present = {name: value for name, value in merged.items() if value is not None}
    command = [sys.executable, "-m", module, *arguments]
    with (
        log.open("ab") as output,
        subprocess.Popen(command, env=present, stdout=subprocess.PIPE, stderr=output, text=True) as running,
    ):
        try:
            # It prints its URL when it is ready, and exits without a URL if it fails.
            url = running.stdout.readline().strip() if running.stdout else ""
            if not url:
                msg = f"`python -m {module}` did not start:\n{log.read_text()[-2000:]}"
                raise RuntimeError(msg)
            yield url
        finally:
            running.terminate()
            try:
                running.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                running.kill()
