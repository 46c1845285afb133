"""`deploy/helm`: the values and manifests agree with `docker-compose.yaml`. The chart itself cannot be had here."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
import yaml

if TYPE_CHECKING:
    from pathlib import Path

OF_THE_CHART = {
    "AIRFLOW__CORE__EXECUTION_API_SERVER_URL",
    "AIRFLOW__CORE__EXECUTOR",
    "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE",
}
"""What the chart sets by itself. Its auth manager is FAB, which the image brings."""


@pytest.fixture(scope="module")
def services(repository: Path) -> dict[str, Any]:
    services: dict[str, Any] = yaml.safe_load((repository / "docker-compose.yaml").read_text())["services"]
    return services


@pytest.fixture(scope="module")
def values(repository: Path) -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load((repository / "deploy" / "helm" / "values.yaml").read_text())
    return values


@pytest.fixture(scope="module")
def extra(repository: Path) -> dict[str, Any]:
    documents = yaml.safe_load_all((repository / "deploy" / "helm" / "extra.yaml").read_text())
    return {document["kind"]: document for document in documents}


def pods(extra: dict[str, Any]) -> dict[str, Any]:
    cron_job = extra["CronJob"]["spec"]["jobTemplate"]["spec"]
    return {
        kind: spec["template"]["spec"]
        for kind, spec in (("alerts", extra["Deployment"]["spec"]), ("maintenance", cron_job))
    }


def test_airflow_is_configured_as_in_compose(services: Any, values: Any) -> None:
    constants = {
        name: value
        for name, value in services["scheduler"]["environment"].items()
        if name.startswith("AIRFLOW__") and value is not None and "$" not in value
    }
    given = {
        f"AIRFLOW__{section}__{option}".upper(): str(value)
        for section, options in values["config"].items()
        for option, value in options.items()
    }
    assert given == {name: value for name, value in constants.items() if name not in OF_THE_CHART}
    assert values["executor"] == constants["AIRFLOW__CORE__EXECUTOR"]
    limits = {each["name"]: each["value"] for each in values["env"]}
    defaults = {name: services["scheduler"]["environment"][name] for name in limits}
    assert {name: f"${{{name}:-{value}}}" for name, value in limits.items()} == defaults


def test_version_of_airflow_is_the_pinned_one(repository: Path, values: Any) -> None:
    (pinned,) = re.findall(r"^apache-airflow\S*==(\S+)", (repository / "requirements.txt").read_text(), re.MULTILINE)[
        :1
    ]
    assert values["airflowVersion"] == pinned


def test_commands_are_those_of_compose(services: Any, values: Any, extra: Any) -> None:
    def words(command: list[str]) -> str:
        return command[-1].replace("exec ", "")

    assert words(values["migrateDatabaseJob"]["args"]) == words(services["migrate"]["command"])
    assert words(values["workers"]["args"]) == " ".join(services["worker"]["command"])
    for name, pod in pods(extra).items():
        (container,) = pod["containers"]
        schedule = {"--daily", "--heartbeat", "/tmp/maintenance"}  # noqa: S108 - of a container
        command = [word for word in services[name]["command"] if name != "maintenance" or word not in schedule]
        assert container["args"] == command


def test_pods_are_unprivileged(values: Any, extra: Any, services: Any) -> None:
    assert values["securityContexts"]["containers"]["capabilities"] == {"drop": ["ALL"]}
    for name, pod in pods(extra).items():
        (container,) = pod["containers"]
        context = container["securityContext"]
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert context["readOnlyRootFilesystem"]
        assert services[name]["user"].startswith(f"{context['runAsUser']}:")


def test_secrets_come_from_the_cluster(values: Any, extra: Any) -> None:
    names = {values[key] for key in ("fernetKeySecretName", "apiSecretKeySecretName", "jwtSecretName")}
    names |= {values["data"]["metadataSecretName"], yaml.safe_load(values["extraEnvFrom"])[0]["secretRef"]["name"]}
    assert names == {"aggregator-keys", "aggregator-metadata", "aggregator-settings"}
    for pod in pods(extra).values():
        (container,) = pod["containers"]
        used = {each["valueFrom"]["secretKeyRef"]["name"] for each in container["env"] if "valueFrom" in each}
        assert used | {each["secretRef"]["name"] for each in container["envFrom"]} == names
    # The chart's default user has the password admin.
    assert values["createUserJob"]["defaultUser"] == {"enabled": False}


def test_no_container_uses_a_script_of_airflows_own_image(values: Any) -> None:
    for name in ("workers", "scheduler", "dagProcessor", "triggerer"):
        assert "find /opt/airflow/logs" in values[name]["logGroomerSidecar"]["args"][-1], name
