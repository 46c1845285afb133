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

from aggregator.core.settings import ALL
from aggregator.postgres.migrations import databases
from dev.stack import PRODUCTS
from tests.compose import MissingVariableError, interpolate, render

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ONE_SHOT = {"migrate"}
SETTINGS = {name.upper() for product in ALL for name in product.model_fields}
SECRETS = {"AIRFLOW_FERNET_KEY", "AIRFLOW_JWT_SECRET", "AIRFLOW_SECRET_KEY", "POSTGRES_PASSWORD", "REDIS_PASSWORD"}
VALUES = {name: f"value-of-{name}" for name in SECRETS}
AIRFLOW = {"alerts", "api-server", "dag-processor", "maintenance", "scheduler", "triggerer", "worker"}
"""Services that run until they are stopped, in the image of this repository."""

WRITABLE = {"postgres", "n8n"}
"""Services whose root file system is writable: Compose copies a config into the one, the other was not tried."""

ELSEWHERE = {
    "of the local stack and the tests": {
        "AGGREGATOR_POSTGRES_PROGRAMS",
        "AGGREGATOR_POSTGRES_URL",
        "ANALYTICS_ENGINE_PORT",
    },
    "of the image": {"AIRFLOW__CORE__DAGS_FOLDER", "AIRFLOW__CORE__PLUGINS_FOLDER"},
    "of the worker, and of LocalExecutor": {"AIRFLOW__CORE__LAZY_LOAD_PLUGINS", "AIRFLOW__CORE__MP_START_METHOD"},
    "of the Workers": {
        "CLICKS_AE",
        "CONFIG_KV",
        "DATABASE_URL",
        "DB_TYPE",
        "JOBS_KV",
        "SUPABASE_SERVICE_ROLE_KEY",
        "SUPABASE_URL",
        "TENANT_CACHE",
        "WARMUP_R2",
    },
    "of n8n": {"N8N_BLOCK_ENV_ACCESS_IN_NODE"},
    "of another caller": {"AIRFLOW_URL"},
    "a suffix, or no variable": {
        "DAGRUN_LOGICAL_DATE",
        "DAGRUN_QUEUED_AT",
        "SQL_ASCII",
        "STATSD_HOST",
        "STATSD_PORT",
    },
}
"""Names in capitals that documents use, and that docker-compose.yaml does not have."""


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


def test_every_service_is_limited_and_unprivileged(services: Any) -> None:
    for name, service in services.items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", service["user"]), name
        assert service.get("read_only", False) == (name not in WRITABLE), name
        assert "mem_limit" in service, name
        assert service["pids_limit"] > 0, name
        assert {"max-size", "max-file"} <= service["logging"]["options"].keys(), name
        assert "privileged" not in service, name
        assert all(str(port).startswith("127.0.0.1:") for port in service.get("ports", ())), name
        assert set(service.get("depends_on", ())) <= set(services), name


def test_every_service_is_checked_soon_and_restarted(services: Any) -> None:
    for name, service in services.items():
        assert service["restart"] == ("no" if name in ONE_SHOT else "unless-stopped"), name
        # Without an init, process 1 ignores the kill of the health check.
        assert service["init"], name
        assert ("healthcheck" in service) != (name in ONE_SHOT), name
        if name not in ONE_SHOT:
            assert re.fullmatch(r"\d{1,2}s", service["healthcheck"]["start_interval"]), name


def test_health_check_restarts_what_hangs_and_needs_no_other_component(services: Any) -> None:
    for name in AIRFLOW - {"maintenance"}:
        test = services[name]["healthcheck"]["test"]
        command = test[1:] if test[0] == "CMD" else test[1].split()
        assert command[0] == "healthcheck", name
        # Docker would end a check that takes longer before it is counted.
        assert int(command[2]) < int(services[name]["healthcheck"]["timeout"].removesuffix("s")), name
        assert "api-server" not in " ".join(command), name


def test_airflow_starts_after_the_migrations(services: Any) -> None:
    ours = {name for name, service in services.items() if "AGGREGATOR_IMAGE" in service["image"]}
    assert ours == AIRFLOW | ONE_SHOT
    assert services["migrate"]["command"][-1] == "airflow db migrate && python -m aggregator.postgres.migrations"
    for name in AIRFLOW:
        assert services[name]["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}, name


def test_image_is_built_once(services: Any) -> None:
    # With more than one, current Docker builds it several times and fails: "image already exists".
    assert [name for name, service in services.items() if "build" in service] == ["migrate"]


def test_users_are_those_of_the_image(services: Any, repository: Path) -> None:
    dockerfile = (repository / "Dockerfile").read_text()
    (uid,) = re.findall(r"useradd --uid (\d+)", dockerfile)
    assert dockerfile.rstrip().splitlines()[-1] == "USER airflow"
    assert {services[name]["user"] for name in AIRFLOW | ONE_SHOT} == {f"{uid}:{uid}"}


def test_writable_folders_are_volumes_that_the_image_creates(services: Any, repository: Path) -> None:
    (line,) = re.findall(r"install --directory .*", (repository / "Dockerfile").read_text())
    mounted = {volume.split(":")[1] for name in AIRFLOW for volume in services[name]["volumes"]}
    assert mounted == set(re.findall(r"/opt/airflow/\S+", line))
    assert all(services[name]["tmpfs"] == ["/tmp"] for name in AIRFLOW)  # noqa: S108 - that of a container


def test_redis_drops_no_task(services: Any) -> None:
    (_, _, command) = services["redis"]["command"]
    assert "--maxmemory-policy noeviction" in command
    (limit,) = re.findall(r"--maxmemory (\d+)mb", command)
    assert int(limit) < int(services["redis"]["mem_limit"].removesuffix("m"))


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
    files = {"AIRFLOW_CONFIG", "PGPASSFILE"}
    given = {name for name in environment if not name.startswith(("AIRFLOW__", "AIRFLOW_CONN_", "OTEL_"))}
    assert given - SECRETS - files == SETTINGS


def test_every_variable_that_a_document_names_has_an_effect(repository: Path, environment: Any) -> None:
    text = (repository / "docker-compose.yaml").read_text()
    known = {
        *environment,
        *re.findall(r"(?<!\$)\$\{(\w+)", text),
        *(name for names in ELSEWHERE.values() for name in names),
    }
    for workflow in (repository / ".github" / "workflows").glob("*.yml"):
        known |= set(re.findall(r"(?:vars|secrets)\.(\w+)", workflow.read_text()))
    pages = [*(repository / "docs").rglob("*.md"), repository / "README.md", *(repository / "dags").glob("*.py")]
    named = {
        (name, page.name)
        for page in pages
        for name in re.findall(r"(?<![\w./{])[A-Z][A-Z0-9]*(?:_+[A-Z0-9]+)+(?![\w/])", page.read_text())
    }
    assert named
    assert {(name, page) for name, page in named if name not in known} == set()
    assert {name for names in ELSEWHERE.values() for name in names} - {name for name, _ in named} == set()


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


def test_no_password_is_written_down(services: Any, airflow_settings: Any) -> None:
    secret = re.compile(r"PASSWORD|SECRET|_KEY|_CONN_|BROKER_URL|AUTH$")
    values = {
        (service, name): value
        for service, each in services.items()
        for name, value in each.get("environment", {}).items()
        if secret.search(name) and not name.endswith(("_FILE", "SECRETS_BACKEND"))
    }
    assert {name for _, name in values} >= SECRETS
    for (service, name), value in values.items():
        # The default connections have no password: libpq reads it from PGPASSFILE.
        assert value is None or re.fullmatch(
            rf"\$\{{{name}:-(\$\{{{name}_FILE:\?[^}}]+\}}|postgresql://airflow@postgres/\S+)?\}}", value
        ), (service, name)
    assert not [connection for connection in airflow_settings["connections"] if connection.get("conn_password")]


@pytest.mark.parametrize("name", sorted(SECRETS))
def test_missing_secret_is_named_and_nothing_starts(repository: Path, name: str) -> None:
    with pytest.raises(MissingVariableError, match=f"^{name} is missing"):
        render(repository / "docker-compose.yaml", VALUES | {name: ""})


def test_secret_from_a_file_replaces_the_variable(repository: Path) -> None:
    files = {f"{name}_FILE": f"/srv/{name}" for name in SECRETS}
    rendered = render(repository / "docker-compose.yaml", files)
    assert rendered["secrets"] == {name: {"file": f"/srv/{name}"} for name in SECRETS}
    postgres = rendered["services"]["postgres"]["environment"]
    assert postgres["POSTGRES_PASSWORD"] == ""
    assert postgres["POSTGRES_PASSWORD_FILE"] == "/run/secrets/POSTGRES_PASSWORD"
    without = render(repository / "docker-compose.yaml", VALUES)
    assert {secret["file"] for secret in without["secrets"].values()} == {"/dev/null"}
    assert without["services"]["postgres"]["environment"]["POSTGRES_PASSWORD_FILE"] == ""


def test_interpolation_is_that_of_the_compose_specification() -> None:
    text = "$$A ${A} $A ${B:-b} ${B:-${A}} ${A:+is ${A}} ${B:+no}$${A}"
    assert interpolate(text, {"A": "1"}) == "$A 1 1 b 1 is 1 ${A}"


def test_example_has_the_variables_of_the_compose_file(repository: Path, environment: Any, example: Any) -> None:
    text = (repository / "docker-compose.yaml").read_text()
    taken = set(re.findall(r"(?<!\$)\$\{(\w+)", text)) | {name for name, value in environment.items() if value is None}
    assert example == taken, sorted(example ^ taken)
    values = re.findall(r"^[A-Z0-9_]+=(.+)$", (repository / ".env.example").read_text(), re.MULTILINE)
    assert values == []


def test_image_has_only_runtime_files_and_a_tested_python(repository: Path) -> None:
    dockerfile = (repository / "Dockerfile").read_text()
    workflow = yaml.safe_load((repository / ".github" / "workflows" / "test.yml").read_text())
    (version,) = re.findall(r"^FROM python:([\d.]+)-slim", dockerfile, re.MULTILINE)
    assert version in workflow["jobs"]["test"]["strategy"]["matrix"]["python"]
    copied = set(re.findall(r"^COPY (\S+)", dockerfile, re.MULTILINE))
    assert copied == {"dags", "deploy/image", "plugins", "include", "requirements.lock"}
    allowed = re.findall(r"^!(\S+)", (repository / ".dockerignore").read_text(), re.MULTILINE)
    assert set(allowed) == copied


def test_celery_executor_can_be_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    # Provider 3.26.0 uses a part of Celery that Celery 5.7 removed.
    monkeypatch.setenv("AIRFLOW__CELERY__BROKER_URL", "redis://localhost/0")
    assert importlib.import_module("airflow.providers.celery.executors.celery_executor").CeleryExecutor
