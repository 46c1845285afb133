"""A stand-in from outside: as a process, and its control side."""

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
    """The control side of a running stand-in.

    Attributes:
        url: Its address, such as ``http://127.0.0.1:8787``.
    """

    health: ClassVar[str] = "/health"
    """Path that answers when it is ready."""

    url: str

    def wait_until_ready(self, seconds: float = 600) -> None:
        """Wait until it answers.

        Args:
            seconds: How long at most.

        Raises:
            httpx.TransportError: It did not answer in time.
        """
        tenacity.Retrying(
            stop=tenacity.stop_after_delay(seconds),
            wait=tenacity.wait_fixed(0.05),
            retry=tenacity.retry_if_exception_type(httpx.TransportError),
            reraise=True,
        )(self._call, "GET", self.health)

    def reset(self) -> None:
        """Forget everything that was written, ordered or asked."""
        self._call("DELETE", "/__control__")

    def _call(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        response = httpx.request(method, f"{self.url}{path}", timeout=120, trust_env=False, **arguments)
        if response.is_error:
            msg = f"{method} {path} of the stand-in answered {response.status_code}: {response.text[:1000]}"
            raise httpx.HTTPStatusError(msg, request=response.request, response=response)
        return response


@contextmanager
def process(module: str, *arguments: str, environment: Mapping[str, str | None], log: Path) -> Iterator[str]:
    """Run a stand-in as a process of its own, in the `with` block.

    Args:
        module: Its package.
        arguments: Of its command.
        environment: What it finds in its environment in place of what is in this one; None for nothing. Secrets go
            here: arguments show in the list of processes.
        log: Where to add what it says.

    Yields:
        Its URL, when it is ready.

    Raises:
        RuntimeError: It ended instead of listening; the text has the end of its log.
    """
    path = os.pathsep.join([str(_REPOSITORY), str(_REPOSITORY / "plugins")])
    merged = {**os.environ, "PYTHONPATH": path, **environment}
    present = {name: value for name, value in merged.items() if value is not None}
    command = [sys.executable, "-m", module, *arguments]
    with (
        log.open("ab") as said,
        subprocess.Popen(command, env=present, stdout=subprocess.PIPE, stderr=said, text=True) as running,
    ):
        try:
            # It prints its URL when it is ready, and ends without one if it cannot be.
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
