"""Settings, connections, variables and pools: code, docker-compose.yaml, airflow_settings.yaml and documents agree."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from airflow.configuration import conf

from aggregator.core import settings
from aggregator.postgres.migrations import databases
from dev.stack import PRODUCTS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ONE_SHOT = {"migrate"}
SETTINGS = {name.upper() for product in settings.ALL for name in product.model_fields}
NOT_SECRET = r"://airflow:\$\{\w+(:\?[^}]+)?\}@postgres/"
"""The default connections: the server of docker-compose.yaml, with the password from the environment."""


@pytest.fixture(scope="module")
def compose(repository: Path) -> dict[str, Any]:
    parsed: dict[str, Any] = yaml.safe_load((repository / "docker-compose.yaml").read_text())
    return parsed


@pytest.fixture(scope="module")
def services(compose: Any) -> dict[str, Any]:
    services: dict[str, Any] = compose["services"]
    assert services
    return services


@pytest.fixture(scope="module")
def environment(compose: Any) -> dict[str, str | None]:
    """Environment of every container that runs Airflow."""
    environment: dict[str, str | None] = compose["x-airflow-common"]["environment"]
    return environment


@pytest.fixture(scope="module")
def airflow_settings(repository: Path) -> dict[str, Any]:
    parsed: dict[str, Any] = yaml.safe_load((repository / "airflow_settings.yaml").read_text())["airflow"]
    return parsed


@pytest.fixture(scope="module")
def example(repository: Path) -> set[str]:
    """The names in .env.example, including those in comments."""
    return set(re.findall(r"^(?:# )?([A-Z][A-Z0-9_]+)=", (repository / ".env.example").read_text(), re.MULTILINE))


@pytest.fixture(scope="module")
def syntax_trees(repository: Path) -> list[ast.AST]:
    """Syntax trees of all code that runs in a deployment."""
    paths = [path for folder in ("dags", "plugins") for path in (repository / folder).rglob("*.py")]
    assert paths
    return [ast.parse(path.read_text()) for path in paths]


def texts(tree: ast.AST) -> Iterator[str]:
    yield from (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str))


def named(trees: list[ast.AST], name: str) -> set[str]:
    """The string constants of arguments, parameters and variables whose name matches a pattern."""
    found: set[str] = set()
    for node in (node for tree in trees for node in ast.walk(tree)):
        pairs: list[tuple[str | None, ast.AST | None]] = []
        if isinstance(node, ast.keyword):
            pairs = [(node.arg, node.value)]
        elif isinstance(node, ast.Assign):
            pairs = [(target.id, node.value) for target in node.targets if isinstance(target, ast.Name)]
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            pairs = [(node.target.id, node.value)]
        elif isinstance(node, ast.arguments):
            plain = [*node.posonlyargs, *node.args]
            defaults = [*[None] * (len(plain) - len(node.defaults)), *node.defaults]
            pairs = [(arg.arg, value) for arg, value in zip(plain, defaults, strict=True)]
            pairs += [(arg.arg, value) for arg, value in zip(node.kwonlyargs, node.kw_defaults, strict=True)]
        found |= {
            value.value
            for key, value in pairs
            if isinstance(value, ast.Constant) and isinstance(value.value, str) and re.search(name, key or "")
        }
    return found


@pytest.fixture(scope="module")
def variables(syntax_trees: Any) -> set[str]:
    """The keys of the Airflow variables that code reads."""
    reads = [
        node
        for tree in syntax_trees
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "Variable.get"
    ]
    literal = {text for call in reads for text in texts(call.args[0])}
    return literal | (named(syntax_trees, r"^VARIABLE$") if reads else set())


def test_compose_file_follows_the_compose_specification(repository: Path) -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run([*command, repository / "docker-compose.yaml"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_every_service_has_limits_a_health_check_and_local_ports(services: Any) -> None:
    for name, service in services.items():
        assert "mem_limit" in service, name
        assert ("healthcheck" in service) != (name in ONE_SHOT), name
        assert all(str(port).startswith("127.0.0.1:") for port in service.get("ports", ())), name
        assert set(service.get("depends_on", ())) <= set(services), name


def test_airflow_starts_after_the_migrations_and_without_root(services: Any, repository: Path) -> None:
    airflow = {name: service for name, service in services.items() if "build" in service}
    assert airflow.keys() - ONE_SHOT == {
        "alerts",
        "api-server",
        "dag-processor",
        "scheduler",
        "triggerer",
        "worker",
    }
    assert services["migrate"]["command"][-1] == "airflow db migrate && python -m aggregator.postgres.migrations"
    for name in airflow.keys() - ONE_SHOT:
        assert airflow[name]["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}, name
        assert airflow[name]["cap_drop"] == ["ALL"], name
    assert (repository / "Dockerfile").read_text().rstrip().splitlines()[-1] == "USER airflow"


@pytest.mark.parametrize("name", ["docker-compose.yaml", ".env.example", "dev/stack.py", "docs", "tests/conftest.py"])
def test_every_airflow_key_exists_in_airflows_configuration(repository: Path, name: str) -> None:
    path = repository / name
    files = [path] if path.is_file() else [*path.rglob("*.md")]
    keys = {key for file in files for key in re.findall(r"\bAIRFLOW__[A-Z0-9_]+[A-Z0-9]\b", file.read_text())}
    assert keys
    known = {
        f"AIRFLOW__{section}__{option}".upper()
        for section, description in conf.configuration_description.items()
        for option in description["options"]
    }
    assert keys - known == set()


def test_every_container_has_exactly_the_settings(environment: Any) -> None:
    given = {name for name in environment if not name.startswith(("AIRFLOW__", "AIRFLOW_CONN_"))}
    assert given == SETTINGS


def test_connections_are_those_that_code_uses(
    environment: Any, airflow_settings: Any, syntax_trees: Any, repository: Path
) -> None:
    table = (
        (repository / "docs" / "configure" / "settings.md")
        .read_text()
        .split("## Connections")[1]
        .split("## Settings")[0]
    )
    documented = set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE))
    migrated = {f"{database}_db" for database in databases()}
    used = named(syntax_trees, r"(?i)(conn_id|^default_conn_name|^connection)$") | migrated
    assert used - documented == set()
    assert documented - used - {text for tree in syntax_trees for text in texts(tree)} == set()
    # The documents and the local stack have all six databases of the specification.
    declared = documented | {f"{product}_db" for product in PRODUCTS}
    assert {name for name in environment if name.startswith("AIRFLOW_CONN_")} == {
        f"AIRFLOW_CONN_{name.upper()}" for name in declared
    }
    assert {connection["conn_id"] for connection in airflow_settings["connections"]} == declared


def test_variables_are_those_that_code_reads(airflow_settings: Any, variables: Any, repository: Path) -> None:
    assert {variable["variable_name"] for variable in airflow_settings["variables"]} == variables
    documents = "".join(path.read_text() for path in (repository / "docs").rglob("*.md"))
    assert [name for name in variables if f"`{name}`" not in documents] == []


def test_pools_are_those_that_code_uses(airflow_settings: Any, syntax_trees: Any) -> None:
    assert {pool["pool_name"] for pool in airflow_settings["pools"]} == named(syntax_trees, r"^pool$")


def test_no_password_is_written_down(environment: Any, services: Any, airflow_settings: Any) -> None:
    values = dict(environment) | {
        name: value for service in services.values() for name, value in service.get("environment", {}).items()
    }
    secret = {name for name in values if re.search(r"PASSWORD|SECRET|KEY|CONN|BROKER_URL|AUTH$", name)}
    assert secret
    for name in secret:
        value = values[name]
        if value is not None:
            assert re.fullmatch(r"\$\{\w+:\?[^}]+\}|redis://:\$\{\w+:\?[^}]+\}@\S+", value) or re.search(
                NOT_SECRET, value
            ), name
    assert not [connection for connection in airflow_settings["connections"] if connection.get("conn_password")]


def test_example_has_the_variables_of_the_compose_file(repository: Path, environment: Any, example: Any) -> None:
    text = (repository / "docker-compose.yaml").read_text()
    taken = set(re.findall(r"(?<!\$)\$\{(\w+)", text)) | {name for name, value in environment.items() if value is None}
    assert example == taken
    values = re.findall(r"^[A-Z0-9_]+=(.+)$", (repository / ".env.example").read_text(), re.MULTILINE)
    assert values == []


def test_image_has_only_runtime_files_and_a_tested_python(repository: Path) -> None:
    dockerfile = (repository / "Dockerfile").read_text()
    workflow = yaml.safe_load((repository / ".github" / "workflows" / "test.yml").read_text())
    (version,) = re.findall(r"^FROM python:([\d.]+)-slim", dockerfile, re.MULTILINE)
    assert version in workflow["jobs"]["test"]["strategy"]["matrix"]["python"]
    copied = set(re.findall(r"^COPY (\S+)", dockerfile, re.MULTILINE))
    assert copied == {"dags", "plugins", "include", "requirements.lock"}
    allowed = re.findall(r"^!(\S+)", (repository / ".dockerignore").read_text(), re.MULTILINE)
    assert set(allowed) == copied


def test_celery_executor_can_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    # Provider 3.26.0 uses a part of Celery that Celery 5.7 removed.
    monkeypatch.setenv("AIRFLOW__CELERY__BROKER_URL", "redis://localhost/0")
    assert importlib.import_module("airflow.providers.celery.executors.celery_executor").CeleryExecutor
