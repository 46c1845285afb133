"""Runs a stand-in as a program."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import uvicorn

if TYPE_CHECKING:
    from starlette.types import ASGIApp


def serve(app: ASGIApp, port: int) -> None:
    """Serve an app on the loopback interface until it is stopped, and print its URL when it is ready.

    Args:
        app: The stand-in.
        port: Port; 0 for a free one.
    """
    listener = socket.create_server(("127.0.0.1", port))
    # Standard output has only the URL, so the access log is off.
    _Server(uvicorn.Config(app, access_log=False, log_level="warning")).run(sockets=[listener])


class _Server(uvicorn.Server):
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started and sockets:
            print(f"http://127.0.0.1:{sockets[0].getsockname()[1]}", flush=True)
