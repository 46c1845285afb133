"""Run the stand-in until it is stopped."""

from __future__ import annotations

import argparse
import os

from dev.n8n.app import create_app
from dev.n8n.client import KEY_VARIABLE, REPORT_SECRET
from dev.stand_in.server import serve


def main() -> None:
    """Listen on the loopback interface, and print the URL when ready."""
    parser = argparse.ArgumentParser(prog="python -m dev.n8n", description=__doc__)
    parser.add_argument("--port", type=int, required=True, help="port to listen on; 0 selects a free port")
    parser.add_argument("--reports-to", help="base URL for reports, without /{traceId}/{kpiId} (default: no reports)")
    arguments = parser.parse_args()
    app = create_app(os.environ.get(KEY_VARIABLE), arguments.reports_to, os.environ.get(REPORT_SECRET))
    serve(app, arguments.port)


if __name__ == "__main__":
    main()
