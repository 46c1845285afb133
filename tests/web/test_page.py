"""The files of the Operations page, without a browser."""

from __future__ import annotations

import re
import subprocess
from hashlib import sha256
from pathlib import Path

import pytest
from playwright._impl._driver import compute_driver_executable

from aggregator import web

STATIC = Path(web.__file__).parent / "static"
MODULES = sorted(path.name for path in STATIC.glob("*.js"))

CHARTS = "66ac22df1b08de08ec2fae2b401b0f9731a4653a28e18a9837c7c3553c33dbe2"
"""SHA-256 of the chart library of `make vendor`."""


@pytest.mark.parametrize("name", MODULES)
def test_module_has_no_syntax_error(name: str) -> None:
    node, _ = compute_driver_executable()
    command = [node, "--input-type=module", "--check"]

    done = subprocess.run(command, input=(STATIC / name).read_text(), capture_output=True, text=True, check=False)

    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", MODULES)
def test_imports_of_a_module_exist(name: str) -> None:
    found = re.findall(r"""(?:from|import\()\s*"\./([^"]+)"|new URL\("([^"]+)", import""", (STATIC / name).read_text())

    missing = [path for path in ("".join(names) for names in found) if not (STATIC / path).is_file()]
    assert missing == []


def test_chart_library_is_unchanged() -> None:
    assert sha256((STATIC / "vendor/lightweight-charts.js").read_bytes()).hexdigest() == CHARTS


def test_chart_library_has_its_license_and_notice() -> None:
    assert "Apache License" in (STATIC / "vendor/LICENSE").read_text()
    assert "TradingView" in (STATIC / "vendor/NOTICE").read_text()
