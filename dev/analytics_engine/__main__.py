"""Run the stand-in until it is stopped."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from dev.analytics_engine.app import create_app
from dev.analytics_engine.client import TOKEN
from dev.stand_in.server import serve


def main() -> None:
    """Listen on the loopback interface, and print the URL when ready."""
    parser = argparse.ArgumentParser(prog="python -m dev.analytics_engine", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the datasets")
    parser.add_argument("--port", type=int, required=True, help="port to listen on; 0 chooses a free one")
    parser.add_argument(
        "--token", default=os.environ.get(TOKEN), help=f"the accepted token (default: ${TOKEN}, or any)"
    )
    parser.add_argument("--account", help="the accepted account id (default: any)")
    arguments = parser.parse_args()
    app = create_app(arguments.data, token=arguments.token, account=arguments.account)
    serve(app, arguments.port)


if __name__ == "__main__":
    main()
