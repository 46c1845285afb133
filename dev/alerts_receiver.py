"""Somebody who is told of alerts, as Slack would be: accepts them, or is out of order as it is made to be."""

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
"""The path of the webhook."""

_ACCEPTED = 200


class AlertsReceiver:
    """A webhook on 127.0.0.1 that remembers what it was sent.

    Attributes:
        refused: What it was sent while it was out of order and could still be reached.
    """

    def __init__(self) -> None:
        """Listen, on a port that is free."""
        self.refused: list[str] = []
        self._told: list[str] = []
        self._status = _ACCEPTED
        self._answering = Event()
        self._answering.set()
        self._server = HTTPServer(threaded=True)
        self._server.expect_request(f"/{SECRET}").respond_with_handler(self._answer)
        self._server.start()

    def environment(self) -> dict[str, str]:
        """The connection that leads to it, for the programs of a stack."""
        connection = {"conn_type": "http", "host": self._server.url_for("").rstrip("/"), "password": SECRET}
        return {"AIRFLOW_CONN_ALERTS_WEBHOOK": json.dumps(connection)}

    def close(self) -> None:
        """Stop listening."""
        self._answering.set()
        self._server.stop()

    def told(self, subject: str = "") -> list[str]:
        """What it has accepted about a subject, the oldest first."""
        return [text for text in self._told if subject in text]

    def wait_until_told(self, subject: str, number: int, *, seconds: float = 120) -> list[str]:
        """Wait until it has accepted so many messages about a subject, and return them.

        Raises:
            NotYetError: It has not by then.
        """

        def enough() -> list[str]:
            texts = self.told(subject)
            if len(texts) < number:
                msg = f"told of {subject}: {texts}"
                raise NotYetError(msg)
            return texts

        texts: list[str] = wait(enough, seconds=seconds)
        return texts

    @contextmanager
    def failing(self) -> Iterator[None]:
        """It answers 500, in the ``with`` block."""
        self._status = 500
        try:
            yield
        finally:
            self._status = _ACCEPTED

    @contextmanager
    def hanging(self) -> Iterator[None]:
        """It takes messages and never answers, in the ``with`` block."""
        self._answering.clear()
        try:
            yield
        finally:
            self._answering.set()

    @contextmanager
    def refusing(self) -> Iterator[None]:
        """Nobody listens on its port, in the ``with`` block."""
        self._server.stop()
        try:
            yield
        finally:
            self._server.start()

    def _answer(self, request: Request) -> Response:
        text = request.get_json()["text"]
        accepted = self._status == _ACCEPTED and self._answering.is_set()
        (self._told if accepted else self.refused).append(text)
        self._answering.wait()
        # Whoever hung must not be taken to have accepted, should somebody still be there.
        return Response(status=_ACCEPTED if accepted else 500)
