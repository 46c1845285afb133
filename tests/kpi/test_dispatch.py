"""The pass: it sends every KPI once, although n8n is down, hosts hang, it is killed, or it runs twice."""

from __future__ import annotations

import os
import random
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from tenacity import wait_fixed

from aggregator.core.errors import TransientError
from aggregator.kpi import dispatch, jobs
from aggregator.kpi.dispatch import FAILURES_IN_A_ROW
from aggregator.n8n.hook import N8nHook
from dev.airflow_api import NotYetError, wait
from dev.n8n.app import Workflow
from dev.n8n.fixtures import KEY
from dev.stand_in.faults import Fault
from tests import kpi_pass
from tests.kpi_data import NOON, Run

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

    from dev.n8n.client import N8nControl

pytestmark = pytest.mark.slow

AT_ONCE = 16
DOWN = Fault(status=503, body="Database is not ready!", times=None)
KILLS = 30


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "WAIT", wait_fixed(0.2))
    monkeypatch.setattr(dispatch, "PAUSE", 0.1)


class World:
    """KPIs whose workflows exist, and their job records."""

    def __init__(self, n8n: N8nControl, connection: psycopg.Connection[Any], url: str) -> None:
        self.n8n = n8n
        self.connection = connection
        self.url = url
        self.ids: list[str] = []

    def make(self, number: int, prefix: str = "kpi", **origins: str) -> None:
        """Register workflows. ``origins`` are other URLs by KPI id."""
        self.ids = [f"{prefix}-{index}" for index in range(number)]
        self.n8n.register({id_: Workflow() for id_ in self.ids})
        # First, so that they get the slots if all hosts share them.
        self.ids = [*origins, *self.ids]
        self.variables = kpi_pass.environment(self.url, self.n8n, self.ids, KEY, origins)
        os.environ.update(self.variables)

    def fault(self, fault: Fault) -> None:
        self.n8n.faults({id_: [fault] for id_ in self.ids})

    def run(self, day: int = 0, **more: Any) -> Run:
        return kpi_pass.new_run(self.ids, NOON + timedelta(days=day), **more)

    @contextmanager
    def process(self, run: Run) -> Iterator[Any]:
        """Execute ``send_kpis`` of a run in a process. The block begins when the task begins."""
        begun = kpi_pass.PROCESSES.Event()
        process = kpi_pass.PROCESSES.Process(
            target=kpi_pass.send, args=(self.variables, self.ids, run.run.logical_date, run.run.run_id, begun)
        )
        process.start()
        assert begun.wait(120)
        try:
            yield process
            process.join(120)
        finally:
            process.kill()
            process.join()

    def statuses(self, run: Run) -> dict[str, str]:
        query = "select kpi_id, status from kpi.job_kpis where trace_id = %s"
        return dict(self.connection.execute(query, [run.trace_id]).fetchall())

    def executions(self) -> dict[str, int]:
        paths = [execution["path"] for execution in self.n8n.executions()]
        return {id_: paths.count(id_) for id_ in self.ids}


@pytest.fixture
def world(
    n8n: N8nControl, kpi_db: psycopg.Connection[Any], kpi_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> World:
    for name in ("AIRFLOW_CONN_KPI_DB", "AIRFLOW_CONN_N8N", "AIRFLOW_VAR_KPI-REGISTRY"):
        monkeypatch.setenv(name, "")  # restored after the test
    return World(n8n, kpi_db, kpi_database_url)


class TestUnavailable:
    def test_n8n_that_is_down_gets_few_requests_and_each_kpi_once_it_is_up(self, world: World) -> None:
        world.make(60)
        world.fault(DOWN)
        run = world.run()
        begun = time.monotonic()

        first = run.send()

        probes = 1 + (time.monotonic() - begun) / dispatch.PAUSE
        during_the_pass = len(world.n8n.requests())
        assert FAILURES_IN_A_ROW <= during_the_pass <= AT_ONCE + probes
        assert {type(error) for error in first.values()} == {TransientError}
        assert "n8n at" in str(first["kpi-59"])
        # A retry of Airflow sends one request.
        assert {isinstance(error, TransientError) for error in run.send().values()} == {True}
        assert len(world.n8n.requests()) == during_the_pass + 60
        world.n8n.faults({id_: [] for id_ in world.ids})
        results = run.send()
        assert {result["status"] for result in results.values()} == {"triggered"}
        assert set(world.executions().values()) == {1}
        sent = sum(result["requests"] for result in results.values())
        assert sent == len(world.n8n.requests()) == during_the_pass + 120

    def test_n8n_that_restarts_during_the_pass_gets_every_kpi_in_the_pass(self, world: World) -> None:
        world.make(60)
        world.n8n.boot(starting=AT_ONCE + 1, unregistered=0)
        run = world.run()
        run.execute("send_kpis")
        assert set(world.statuses(run).values()) == {"triggered"}
        assert set(world.executions().values()) == {1}

    def test_host_that_hangs_does_not_delay_others(self, world: World) -> None:
        with socket.create_server(("127.0.0.1", 0), backlog=128) as hung:
            origin = f"http://127.0.0.1:{hung.getsockname()[1]}"
            world.make(40, **{f"hung-{index}": f"{origin}/webhook/x" for index in range(40)})
            run = world.run()
            with ThreadPoolExecutor(1) as threads:
                sending = threads.submit(run.execute, "send_kpis")
                wait(lambda: self.sent(world, run), seconds=60)
                assert not sending.done()
                found = [status for id_, status in world.statuses(run).items() if id_.startswith("hung")]
                assert sorted(set(found)) == ["pending", "sending"]
                assert found.count("sending") <= AT_ONCE
                hung.close()
                sending.result(60)
        assert "sending" not in world.statuses(run).values()

    @staticmethod
    def sent(world: World, run: Run) -> None:
        if {status for id_, status in world.statuses(run).items() if not id_.startswith("hung")} != {"triggered"}:
            raise NotYetError

    def test_kpi_is_claimed_when_its_connection_is_open(self, world: World) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            # The TLS handshake does not end.
            world.make(1, tls=f"https://127.0.0.1:{silent.getsockname()[1]}/webhook/x")
            run = world.run()
            with ThreadPoolExecutor(1) as threads:
                sending = threads.submit(run.execute, "send_kpis")
                connection, _ = silent.accept()
                connection.recv(1)
                assert world.statuses(run)["tls"] == "pending"
                silent.close()
                connection.close()
                sending.result(60)
        assert world.statuses(run) == {"kpi-0": "triggered", "tls": "failed"}


class TestExactlyOnce:
    def test_pass_killed_at_random_moments_sends_each_kpi_at_most_once(self, world: World) -> None:
        moments = random.Random(7)  # noqa: S311 - not for cryptography
        lasts = 0.5
        for number in range(KILLS):
            world.n8n.reset()
            world.make(40)
            world.fault(Fault(delay_seconds=0.05))
            run = world.run(day=number)
            with world.process(run) as process:
                begun = time.monotonic()
                process.join(moments.uniform(0, lasts))
                process.kill()
                process.join()
                if process.exitcode == 0:
                    lasts = time.monotonic() - begun
            in_flight = list(world.statuses(run).values()).count("sending")
            run.send()  # the retry of the pass, and the instances
            statuses, executions = world.statuses(run), world.executions()
            assert set(statuses.values()) <= {"triggered", "unknown"}, number
            assert list(statuses.values()).count("unknown") == in_flight <= AT_ONCE, number
            assert {executions[id_] for id_, status in statuses.items() if status == "triggered"} == {1}, number
            assert max(executions.values()) == 1, number

    @pytest.mark.parametrize("same_run", [True, False], ids=["one run twice", "two runs of a day"])
    def test_two_passes_at_once_send_each_kpi_once(self, world: World, same_run: bool) -> None:
        world.make(40)
        world.fault(Fault(delay_seconds=0.05))
        runs = [world.run(), world.run(name="scheduled" if same_run else "manual")]
        with world.process(runs[0]), world.process(runs[1]):
            pass
        for run in runs:
            run.xcoms["send_kpis", "return_value"] = list(range(40))
            run.send()
        assert set(world.executions().values()) == {1}
        assert {status for run in runs for status in world.statuses(run).values()} == {"triggered"}

    def test_lost_database_connections_do_not_repeat_a_kpi(self, world: World) -> None:
        world.make(60)
        world.fault(Fault(delay_seconds=0.05))
        run = world.run()
        terminate = "select pg_terminate_backend(pid) from pg_stat_activity where application_name like %s"
        with world.process(run) as process:
            while process.is_alive():
                world.connection.execute(terminate, ["kpi_dispatch/send_kpis/%"])
                process.join(0.05)
        for _ in range(2):  # the instances, and a retry
            run.send()
        assert set(world.statuses(run).values()) <= {"triggered", "unknown"}
        executions = world.executions()
        assert {executions[id_] for id_, status in world.statuses(run).items() if status == "triggered"} == {1}
        assert max(executions.values()) == 1


def test_time_limit_leaves_kpis_to_their_instances(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.make(3)
    monkeypatch.setattr(dispatch, "TIME_LIMIT", -1.0)
    run = world.run()
    run.execute("send_kpis")
    assert set(world.statuses(run).values()) == {"pending"}
    assert {result["status"] for result in run.send().values()} == {"triggered"}
    assert set(world.executions().values()) == {1}


def test_terminated_pass_starts_no_request_and_records_those_it_sent(world: World) -> None:
    world.make(200)
    world.fault(Fault(delay_seconds=1))
    run = world.run()
    with ThreadPoolExecutor(1) as threads:
        sending = threads.submit(run.execute, "send_kpis")
        wait(lambda: await_claims(world, run), seconds=60)
        run.dag.get_task("send_kpis").on_kill()
        sending.result(60)
    statuses = list(world.statuses(run).values())
    assert set(statuses) == {"triggered", "pending"}
    assert statuses.count("triggered") == len(world.n8n.requests())


def await_claims(world: World, run: Run) -> None:
    if "sending" not in world.statuses(run).values():
        raise NotYetError


def test_error_of_our_own_in_one_kpi_does_not_stop_the_others(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.make(3)
    request = N8nHook.request

    async def broken(self: N8nHook, url: str, *arguments: Any) -> int:
        if url.endswith("kpi-1"):
            raise RuntimeError
        return await request(self, url, *arguments)

    run = world.run()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(N8nHook, "request", broken)
        run.execute("send_kpis")
    assert world.statuses(run) == {"kpi-0": "triggered", "kpi-1": "pending", "kpi-2": "triggered"}
    run.send()
    assert set(world.executions().values()) == {1}


def test_permanent_failure_of_the_pass_is_repeated_by_a_clear_only(world: World) -> None:
    world.make(1)
    world.n8n.faults({"kpi-0": [Fault(status=422, body="No")]})
    run = world.run()
    for _ in range(2):
        run.execute("send_kpis")  # the second time as a retry, for example after its worker was killed
    assert "422: No" in str(run.send()["kpi-0"])
    assert len(world.n8n.requests()) == 1
    run.clears += 1
    assert run.send()["kpi-0"]["status"] == "triggered"
    first, second = (request["headers"]["idempotency-key"] for request in world.n8n.requests())
    assert second == first.replace("/", ".2/")


def test_failure_that_n8n_reports_before_the_instance_runs_is_not_sent_again(world: World) -> None:
    world.make(1)
    run = world.run()
    run.execute("send_kpis")
    jobs.report(world.connection, run.trace_id, "kpi-0", "failed", "A node failed")
    assert "A node failed" in str(run.send()["kpi-0"])
    assert world.executions() == {"kpi-0": 1}
