"""A receiver of alerts, like Slack: accepts them, or fails on demand."""

from __future__ import annotations

import json
from contextlib import contextmanager
from threading import Event
from typing import TYPE_CHECKING

from pytest_httpserver import HTTPServer
from werkzeug import Response

from dev.airflow_api import NotYetError, wait

if TYPE_CHECKING:
    from collections.abc import Iterator

    from werkzeug import Request

SECRET = "services/T000/B000/webhook-marker"  # noqa: S105
"""Path of the webhook."""

_ACCEPTED = 200


class AlertsReceiver:
    """A webhook on 127.0.0.1 that records its messages.

    Attributes:
        refused: Messages that it received while it failed or hung.
    """

    def __init__(self) -> None:
        """Listen on a free port."""
        self.refused: list[str] = []
        self._accepted: list[str] = []
        self._status = _ACCEPTED
        self._responding = Event()
        self._responding.set()
        self._server = HTTPServer(threaded=True)
        self._server.expect_request(f"/{SECRET}").respond_with_handler(self._respond)
        self._server.start()

    def environment(self) -> dict[str, str]:
        """Return the connection to this webhook, for the programs of a stack."""
        connection = {"conn_type": "http", "host": self._server.url_for("").rstrip("/"), "password": SECRET}
        return {"AIRFLOW_CONN_ALERTS_WEBHOOK": json.dumps(connection)}

    def close(self) -> None:
        """Stop listening."""
        self._responding.set()
        self._server.stop()

    def messages(self, subject: str = "") -> list[str]:
        """Return the accepted messages about a subject, the oldest first."""
        return [text for text in self._accepted if subject in text]

    def wait_for_messages(self, subject: str, number: int, *, seconds: float = 120) -> list[str]:
        """Wait until a number of messages about a subject are accepted, and return them.

        Raises:
            NotYetError: The messages did not arrive in time.
        """

        def enough() -> list[str]:
            texts = self.messages(subject)
            if len(texts) < number:
                msg = f"messages about {subject}: {texts}"
                raise NotYetError(msg)
            return texts

        texts: list[str] = wait(enough, seconds=seconds)
        return texts

    @contextmanager
    def failing(self) -> Iterator[None]:
        """Respond with 500, in the ``with`` block."""
        self._status = 500
        try:
            yield
        finally:
            self._status = _ACCEPTED

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """Read messages and never respond, in the ``with`` block."""
        self._responding.clear()
        try:
            yield
        finally:
            self._responding.set()

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """Refuse connections, in the ``with`` block."""
        self._server.stop()
        try:
            yield
        finally:
            self._server.start()

    def _respond(self, request: Request) -> Response:
        text = request.get_json()["text"]
        accepted = self._status == _ACCEPTED and self._responding.is_set()
        (self._accepted if accepted else self.refused).append(text)
        self._responding.wait()
        # A request that hung is not accepted, even if its sender still waits.
        return Response(status=_ACCEPTED if accepted else 500)
