"""Run the stand-in until it is stopped."""

from __future__ import annotations

import argparse
import os
import socket
from pathlib import Path

import uvicorn

from dev.analytics_engine.app import create_app
from dev.analytics_engine.client import TOKEN


def main() -> None:
    """Listen on the loopback interface; print the URL when ready."""
    parser = argparse.ArgumentParser(prog="python -m dev.analytics_engine", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the datasets")
    parser.add_argument("--port", type=int, required=True, help="0 takes a free one")
    parser.add_argument("--token", default=os.environ.get(TOKEN), help=f"the right token (default: ${TOKEN}, or any)")
    parser.add_argument("--account", help="the account id that exists (default: any)")
    arguments = parser.parse_args()
    listener = socket.create_server(("127.0.0.1", arguments.port))
    app = create_app(arguments.data, token=arguments.token, account=arguments.account)
    # The access log goes to standard output, which is for the URL alone: whoever reads it reads one line.
    _Server(uvicorn.Config(app, access_log=False, log_level="warning")).run(sockets=[listener])


class _Server(uvicorn.Server):
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started and sockets:
            print(f"http://127.0.0.1:{sockets[0].getsockname()[1]}", flush=True)


if __name__ == "__main__":
    main()
