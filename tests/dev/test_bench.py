"""The benches run, and their alternatives store equal rows."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


@pytest.mark.slow
@pytest.mark.parametrize(
    ("bench", "ways"),
    [
        ("upsert", ["upsert of Rows", "psycopg executemany", "insert_rows"]),
        ("analytics", ["hourly, a day", "daily reports", "monthly usage", "DuckDB seconds"]),
        ("maintenance", ["month", "without"]),
        ("operations", ["/overview", "/ohlcv/tasks", "/kpi/grid", "Slowest call, p95"]),
        ("ohlcv", ["ours", "Polars, bars alone, index on time", "original", "days of candles", "WAL of bars"]),
    ],
)
def test_quick_bench_compares_ours_with_the_peers(bench: str, ways: list[str]) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "COLUMNS": "120"}
    done = subprocess.run(
        [sys.executable, "-m", "dev.bench", bench, "--quick"],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=600,
    )
    for way in ways:
        assert way in done.stdout


def test_unknown_bench_is_an_error() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-m", "dev.bench", "nothing"], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "no such bench: nothing" in done.stderr
