"""Runs the commands of :mod:`aggregator.ohlcv.cli`."""

from __future__ import annotations

import sys

from aggregator.ohlcv.cli import main

sys.exit(main())
