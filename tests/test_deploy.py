"""`deploy/deploy.sh` with stand-ins for ssh, scp and docker on PATH, which act on a folder and record their calls."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

STAND_INS = {
    "ssh": """
        [ "$1" = deploy@stage ] || exit 255
        shift
        cd "$HOST_ROOT" && exec "$@"
    """,
    "scp": """
        target=${!#}
        cp docker-compose.yaml "$HOST_ROOT/${target#deploy@stage:}"
    """,
    # Fails for what FAILS matches: the command with the image that it would use.
    "docker": """
        cat >/dev/null # as `docker compose run` does
        image=${AGGREGATOR_IMAGE:-$(sed -n s/^AGGREGATOR_IMAGE=//p .env)}
        echo "$image $*" >>"$CALLS"
        [[ "$*" != *"config --services"* ]] || printf '%s\\n' migrate postgres scheduler
        [[ ! "$image $*" =~ $FAILS ]] || exit 1
    """,
}
OLD, NEW = "registry.example.com/dags:old", "registry.example.com/dags@sha256:new"


class Host:
    """A host that runs the release OLD."""

    def __init__(self, root: Path, repository: Path) -> None:
        self.root, self.repository, self.calls_file = root, repository, root / "calls"
        self.folder = root / "aggregator"
        self.folder.mkdir()
        self.env = self.folder / ".env"
        self.env.write_text(f"REDIS_PASSWORD=secret\nAGGREGATOR_IMAGE={OLD}\nAIRFLOW_PORT=8080\n")
        self.env.chmod(0o600)
        self.compose = self.folder / "docker-compose.yaml"
        self.compose.write_text("the file of the release before")
        programs = root / "bin"
        programs.mkdir()
        for name, text in STAND_INS.items():
            path = programs / name
            path.write_text(f"#!/usr/bin/env bash\n{text}")
            path.chmod(0o755)
        self.calls_file.touch()

    def deploy(
        self, fails: str = "^$", *, image: str = NEW, host: str = "deploy@stage"
    ) -> subprocess.CompletedProcess[str]:
        environment = {
            **os.environ,
            "PATH": f"{self.root / 'bin'}:{os.environ['PATH']}",
            "HOST_ROOT": str(self.root),
            "CALLS": str(self.calls_file),
            "FAILS": fails,
        }
        environment.pop("AGGREGATOR_IMAGE", None)
        script = self.repository / "deploy" / "deploy.sh"
        return subprocess.run(
            [script, host, "aggregator", image], env=environment, capture_output=True, text=True, check=False
        )

    @property
    def calls(self) -> list[str]:
        """What docker did, in order, without `config`."""
        calls = [line.replace("compose --file ", "") for line in self.calls_file.read_text().splitlines()]
        return [call for call in calls if "config --services" not in call]


@pytest.fixture
def host(tmp_path: Path, repository: Path) -> Host:
    return Host(tmp_path, repository)


UP = "up --detach --no-build --no-deps --remove-orphans --wait --wait-timeout 1800 postgres scheduler"


def test_release_migrates_first_and_is_recorded_when_healthy(host: Host, repository: Path) -> None:
    done = host.deploy()
    assert done.returncode == 0, done.stderr
    assert host.calls == [
        f"{NEW} docker-compose.next.yaml pull --quiet",
        f"{NEW} docker-compose.next.yaml run --rm --no-TTY migrate",
        f"{NEW} docker-compose.next.yaml {UP}",
        f"{NEW} image prune --force --filter until=720h",
    ]
    assert host.env.read_text() == f"REDIS_PASSWORD=secret\nAIRFLOW_PORT=8080\nAGGREGATOR_IMAGE={NEW}\n"
    assert host.env.stat().st_mode & 0o777 == 0o600
    assert host.compose.read_text() == (repository / "docker-compose.yaml").read_text()


def test_unhealthy_release_is_rolled_back(host: Host) -> None:
    before = host.env.read_text()
    done = host.deploy(f"{NEW} .*up --detach")
    assert done.returncode == 1
    assert host.calls[2:] == [
        f"{NEW} docker-compose.next.yaml {UP}",
        f"{NEW} docker-compose.next.yaml ps --all",
        f"{OLD} docker-compose.yaml {UP}",
    ]
    assert done.stderr.splitlines()[-1] == f"Rolled back: {OLD} runs again. The migrations stay; they only add."
    assert host.env.read_text() == before
    assert host.compose.read_text() == "the file of the release before"


@pytest.mark.parametrize("fails", ["pull", "run --rm --no-TTY migrate"])
def test_failed_pull_or_migration_replaces_no_container(host: Host, fails: str) -> None:
    done = host.deploy(fails)
    assert done.returncode == 2
    assert done.stderr.endswith(f"{OLD} runs unchanged.\n")
    assert not [call for call in host.calls if " up " in call]
    assert OLD in host.env.read_text()


def test_failed_rollback_says_so(host: Host) -> None:
    done = host.deploy("up --detach")
    assert done.returncode == 2
    assert f"The rollback to {OLD} failed, too." in done.stderr


def test_first_release_that_is_unhealthy_stays_for_analysis(host: Host) -> None:
    host.env.write_text("REDIS_PASSWORD=secret\nAGGREGATOR_IMAGE=\n")
    host.compose.unlink()
    done = host.deploy("up --detach")
    assert done.returncode == 2
    assert "There is no release before." in done.stderr
    assert len([call for call in host.calls if " up " in call]) == 1


def test_host_without_environment_is_left_alone(host: Host) -> None:
    host.env.unlink()
    done = host.deploy()
    assert done.returncode == 2
    assert "Create it from .env.example" in done.stderr
    assert host.calls == []


@pytest.mark.parametrize("image", ["dags:new; reboot", "$(reboot)", ""])
def test_text_that_a_shell_interprets_is_refused(host: Host, image: str) -> None:
    done = host.deploy(image=image)
    assert done.returncode == 2
    assert host.calls == []
    assert not (host.folder / "docker-compose.next.yaml").exists()
