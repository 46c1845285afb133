"""Checks of the repository: commands exist, pins agree, links work, no secret is committed."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest
import yaml
from airflow.cli.cli_parser import get_parser

if TYPE_CHECKING:
    from pathlib import Path

OF_THE_SPECIFICATION = {
    "apache-airflow",
    "apache-airflow-providers-http",
    "apache-airflow-providers-postgres",
    "pendulum",
    "pytest",
}


def documents(repository: Path) -> list[Path]:
    return [*repository.glob("*.md"), *(repository / "docs").rglob("*.md")]


def pins(path: Path) -> dict[str, str]:
    return dict(re.findall(r"^([\w.-]+)(?:\[\w+\])?==(\S+)", path.read_text(), re.MULTILINE))


@pytest.mark.parametrize("name", ["requirements", "requirements-dev"])
def test_lock_has_every_pin_and_a_hash_for_each_package(repository: Path, name: str) -> None:
    wanted, locked = pins(repository / f"{name}.txt"), pins(repository / f"{name}.lock")
    assert wanted
    assert {package: locked.get(package) for package in wanted} == wanted
    text = (repository / f"{name}.lock").read_text()
    assert len(re.findall(r"^[\w.-]+(?:\[\w+\])?==", text, re.MULTILINE)) <= text.count("--hash=sha256:")
    assert "://" not in text, "no address of a registry"


def test_locks_agree(repository: Path) -> None:
    runtime, development = pins(repository / "requirements.lock"), pins(repository / "requirements-dev.lock")
    assert {name: development[name] for name in runtime} == runtime


def test_packages_of_the_specification_are_pinned(repository: Path) -> None:
    assert pins(repository / "requirements.txt").keys() >= OF_THE_SPECIFICATION
    assert pins(repository / "requirements.txt")["apache-airflow"] == "3.3.2"


def test_every_make_command_in_the_documents_exists(repository: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (repository / "Makefile").read_text(), re.MULTILINE))
    for document in documents(repository):
        text = document.read_text()
        named = {*re.findall(r"`make ([a-z-]+)", text), *re.findall(r"^make ([a-z-]+)", text, re.MULTILINE)}
        assert named or document.name not in {"README.md", "CONTRIBUTING.md"}
        assert named <= targets, document.name


def test_every_airflow_command_in_the_documents_is_valid(repository: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = "".join(document.read_text() for document in documents(repository))
    commands = re.findall(r"^airflow (.+?)(?: +#.*)?$", text, re.MULTILINE)
    assert len(commands) > 5
    parser = get_parser()
    for command in commands:
        parser.parse_args(shlex.split(re.sub(r"\$\(.*?\)", "2026-11-15", command)))


def test_every_module_that_the_documents_run_exists(repository: Path) -> None:
    text = "".join(document.read_text() for document in documents(repository))
    modules = set(re.findall(r"python -m (aggregator[\w.]*)", text))
    assert modules
    assert [name for name in modules if find_spec(name) is None] == []


def test_links_between_documents_work(repository: Path) -> None:
    for document in documents(repository):
        for link, anchor in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)", document.read_text()):
            target = document.parent / link if link else document
            assert target.exists(), f"{document.name}: {link}"
            assert not anchor or anchor in anchors(target), f"{document.name}: {link}#{anchor}"


def anchors(document: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


def test_ci_runs_the_readmes_test_command(repository: Path) -> None:
    script = repository / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    assert script.read_text().splitlines()[-1] == "exec make test"
    workflow = yaml.safe_load((repository / ".github" / "workflows" / "test.yml").read_text())
    steps = workflow["jobs"]["test"]["steps"]
    assert steps[-1]["run"] == ".ci/run"


def test_committed_files_contain_no_secret(repository: Path) -> None:
    listed = subprocess.run(["git", "ls-files"], cwd=repository, capture_output=True, text=True, check=False)
    paths = [repository / line for line in listed.stdout.splitlines()] or [*repository.glob("*/**/*.py")]
    assert paths
    secret = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY|\bAKIA[0-9A-Z]{16}\b|\bghp_\w{36}\b|\bxox[bap]-\w+")
    assert [path.name for path in paths if path.is_file() and secret.search(path.read_text(errors="replace"))] == []


def test_every_next_has_a_default_or_is_in_an_iterator(repository: Path) -> None:
    """In a generator or a context manager, the StopIteration of a bare next() becomes a RuntimeError."""
    bare = [
        f"{path.name}:{call.lineno}"
        for path in (repository / "plugins").rglob("*.py")
        for function in ast.walk(ast.parse(path.read_text()))
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef) and function.name != "__next__"
        for call in ast.walk(function)
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "next"
        if len(call.args) == 1
    ]
    assert bare == []
