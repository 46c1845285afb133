"""Run the stand-in until it is stopped."""

from __future__ import annotations

import argparse
import os
import socket

import uvicorn

from dev.n8n.app import create_app
from dev.n8n.client import KEY, REPORT_SECRET


def main() -> None:
    """Listen on the loopback interface; print the URL when ready."""
    parser = argparse.ArgumentParser(prog="python -m dev.n8n", description=__doc__)
    parser.add_argument("--port", type=int, required=True, help="0 takes a free one")
    parser.add_argument("--reports-to", help="URL below which /{traceId}/{kpiId} takes reports (default: none)")
    arguments = parser.parse_args()
    listener = socket.create_server(("127.0.0.1", arguments.port))
    app = create_app(os.environ.get(KEY), arguments.reports_to, os.environ.get(REPORT_SECRET))
    # The access log goes to standard output, which is for the URL alone: whoever reads it reads one line.
    _Server(uvicorn.Config(app, access_log=False, log_level="warning")).run(sockets=[listener])


class _Server(uvicorn.Server):
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started and sockets:
            print(f"http://127.0.0.1:{sockets[0].getsockname()[1]}", flush=True)


if __name__ == "__main__":
    main()
