"""KPI dispatch over HTTP with real job records: one execution for each KPI, and an error for each failure."""

from __future__ import annotations

import json
import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk.definitions import xcom_arg as expandinput_xcom
from airflow.sdk.definitions.xcom_arg import PlainXComArg
from airflow.sdk.exceptions import AirflowSkipException, TaskDeferred
from tenacity import wait_none

from aggregator.core.catalog import CATALOG, schedule_of
from aggregator.core.errors import PermanentError, TransientError, WrongParamsError
from aggregator.kpi import dispatch, jobs
from aggregator.kpi.operators import NOTHING_TO_SEND, batches
from aggregator.kpi.registry import RegistryError
from aggregator.n8n.hook import N8nHook
from dev.n8n.app import Workflow
from dev.n8n.faults import UNREGISTERED
from dev.n8n.fixtures import KEY
from dev.stand_in.faults import Fault
from tests import kpi_data
from tests.kpi_data import NOON, Run

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import psycopg
    from airflow.dag_processing.dagbag import DagBag

    from dev.n8n.client import N8nControl

pytestmark = pytest.mark.slow

BOOTING = UNREGISTERED.model_copy(update={"times": 2})


@pytest.fixture(autouse=True)
def no_waits(without_waiting: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    without_waiting(N8nHook, timeouts=(2, 1))
    monkeypatch.setattr(dispatch, "WAIT", wait_none())


@pytest.fixture
def n8n_of_kpis(n8n: N8nControl, monkeypatch: pytest.MonkeyPatch) -> N8nControl:
    """An n8n whose origin the connection allows."""
    allow(monkeypatch, n8n.url)
    return n8n


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch, n8n_of_kpis: N8nControl) -> Any:
    """Set the registry to these ids or entries."""

    def set_to(*kpis: str | dict[str, Any]) -> None:
        entries = [entry(n8n_of_kpis, kpi) if isinstance(kpi, str) else kpi for kpi in kpis]
        monkeypatch.setenv("AIRFLOW_VAR_KPI-REGISTRY", json.dumps({"kpis": entries}))

    return set_to


@pytest.fixture
def dag(dag_bag: DagBag, kpi_db: psycopg.Connection[Any]) -> Any:
    return dag_bag.dags["kpi_dispatch"]


def allow(monkeypatch: pytest.MonkeyPatch, *origins: str) -> None:
    connection = {"conn_type": "http", "password": KEY, "extra": {"allowed_origins": origins}}
    monkeypatch.setenv("AIRFLOW_CONN_N8N", json.dumps(connection))


def entry(n8n: N8nControl, kpi_id: str, url: str | None = None, **more: Any) -> dict[str, Any]:
    """Return a registry entry whose workflow exists."""
    n8n.register({kpi_id: Workflow()})
    return kpi_data.entry(kpi_id, webhookUrl=url or n8n.webhook(kpi_id), **more)


def statuses(connection: psycopg.Connection[Any]) -> dict[str, str]:
    return dict(connection.execute("select kpi_id, status from kpi.job_kpis").fetchall())


def executed(n8n: N8nControl) -> dict[str, int]:
    paths = [execution["path"] for execution in n8n.executions()]
    return {path: paths.count(path) for path in sorted(set(paths))}


def keys(n8n: N8nControl, path: str) -> list[str]:
    return [request["headers"]["idempotency-key"] for request in n8n.requests(path)]


class TestRun:
    def test_each_kpi_is_sent_once_with_the_payload_of_the_product(
        self, dag: Any, registry: Callable[..., None], n8n: N8nControl, kpi_db: psycopg.Connection[Any]
    ) -> None:
        registry("btc", entry(n8n, "eth", description="Ether"), entry(n8n, "off", active=False))
        run = Run(dag)
        assert run.plan() == ["btc", "eth"]
        assert n8n.requests() == []

        returned = run.send()

        assert returned["btc"] == {"kpiId": "btc", "status": "triggered", "requests": 1, "retryCount": 0}
        (execution,) = n8n.executions("eth")
        trace_id = execution["body"]["traceId"]
        assert execution["body"] == {
            "traceId": trace_id,
            "kpiId": "eth",
            "timestamp": "2026-11-15T12:00:00Z",
            "kpiType": "price",
            "metadata": {
                "schedulerWorker": "scheduler-worker",
                "environment": "development",
                "kpiName": "Name of eth",
                "kpiDescription": "Ether",
            },
        }
        assert trace_id.startswith("trace_20261115_120000_")
        assert execution["idempotency_key"] == f"{trace_id}/eth"
        assert run.finalize()["kpis"] == {"triggered": 2}
        (record,) = kpi_data.first(kpi_db, "select record from kpi.job_records")
        assert record["status"] == "triggered"

    def test_templates_in_the_registry_are_not_rendered(
        self, dag: Any, registry: Callable[..., None], n8n: N8nControl, kpi_db: psycopg.Connection[Any]
    ) -> None:
        evil = "{{ var.value.secret }} {{ $json.x }} {% raw %}"
        registry(
            entry(n8n, "a", name=evil, description=evil, metadata={"x": evil}),
            entry(n8n, "ä/🦊 {{ 7*7 }}", n8n.webhook("b")),
        )
        n8n.register({"b": Workflow()})
        run = Run(dag)
        run.plan()
        run.execute("send_kpis")
        for task in run.instances():
            context = {**run.context("trigger_kpi"), "task": task}
            task.render_template_fields(context)
            task.execute(context)
        assert n8n.executions("a")[0]["body"]["metadata"]["kpiName"] == evil
        assert n8n.executions("b")[0]["body"]["kpiId"] == "ä/🦊 {{ 7*7 }}"

    def test_empty_registry_logs_that_nothing_is_sent(
        self, dag: Any, registry: Callable[..., None], capfd: pytest.CaptureFixture[str]
    ) -> None:
        registry()
        run = Run(dag)
        assert run.plan() == []
        assert run.send() == {}
        assert run.finalize()["status"] == "completed"
        assert "No KPI to send" in "".join(capfd.readouterr())

    @pytest.mark.parametrize("text", [None, "{", "[]"])
    def test_unreadable_registry_fails_the_run_without_a_job(
        self,
        dag: Any,
        kpi_db: psycopg.Connection[Any],
        n8n_of_kpis: N8nControl,
        monkeypatch: pytest.MonkeyPatch,
        text: str | None,
    ) -> None:
        monkeypatch.delenv("AIRFLOW_VAR_KPI-REGISTRY", raising=False)
        if text is not None:
            monkeypatch.setenv("AIRFLOW_VAR_KPI-REGISTRY", text)
        run = Run(dag)
        with pytest.raises(RegistryError):
            run.plan()
        with pytest.raises(PermanentError, match="has no record, because task send_kpis did not write it"):
            run.finalize()
        assert kpi_db.execute("select count(*) from kpi.jobs").fetchone() == (0,)

    def test_inactive_ids_in_the_param_fail_the_run_before_any_request(
        self, dag: Any, registry: Callable[..., None], n8n: N8nControl, kpi_db: psycopg.Connection[Any]
    ) -> None:
        registry("btc", entry(n8n, "off", active=False), entry(n8n, "js", "javascript:alert(1)"))
        run = Run(dag, kpis=["btc", "btc-prise", "off", "js"], resend=True)
        with pytest.raises(WrongParamsError, match=r"invalid: 'btc-prise', 'off', 'js'\. Nothing was sent"):
            run.plan()
        many = Run(dag, kpis=[f"typo-{number}" for number in range(1015)])
        with pytest.raises(WrongParamsError, match="'typo-9' and 1,005 more"):
            many.plan()
        assert kpi_db.execute("select count(*) from kpi.jobs").fetchone() == (0,)
        assert n8n.requests() == []

    @pytest.mark.parametrize("kpis", [None, [], ["", " "]])
    def test_empty_param_selects_all_active_kpis(
        self, dag: Any, registry: Callable[..., None], kpis: list[str] | None
    ) -> None:
        registry("a", "b")
        assert Run(dag, kpis=kpis).plan() == ["a", "b"]

    def test_param_in_another_unicode_form_selects_the_same_kpi(
        self, dag: Any, registry: Callable[..., None], n8n: N8nControl
    ) -> None:
        registry("other", entry(n8n, "cafe\u0301", n8n.webhook("x")))
        assert Run(dag, kpis=["cafe\u0301", ""]).plan() == ["caf\u00e9"]

    def test_param_kpis_is_optional_in_the_form(self, dag: Any) -> None:
        param = dag.params.get_param("kpis")
        assert "null" in param.schema["type"]
        assert [param.resolve(value) for value in (None, [], ["a"])] == [None, [], ["a"]]

    def test_dropped_entries_are_logged_and_the_others_sent(
        self, dag: Any, registry: Callable[..., None], n8n: N8nControl, capfd: pytest.CaptureFixture[str]
    ) -> None:
        registry("btc", "btc", {"id": "x", "active": True}, entry(n8n, "js", "javascript:alert(1)"))
        assert Run(dag).plan() == ["btc"]
        log = "".join(capfd.readouterr())
        assert [f"Registry entry dropped and not sent: kpi={name} " in log for name in ("btc", "x", "js")] == [True] * 3

    @pytest.mark.parametrize("cron", ["noon", "0 12 * *", "61 * * * *", "@daily"])
    def test_invalid_cron_expression_keeps_the_schedule_and_is_named_before_any_request(
        self, dag: Any, registry: Callable[..., None], n8n: N8nControl, monkeypatch: pytest.MonkeyPatch, cron: str
    ) -> None:
        registry("btc")
        monkeypatch.setenv("KPI_DISPATCH_CRON", cron)
        assert schedule_of("kpi_dispatch") == CATALOG["kpi_dispatch"].schedule
        run = Run(dag)
        run.plan()
        with pytest.raises(PermanentError, match=r"KPI_DISPATCH_CRON: .* not a cron expression of five fields"):
            run.send()
        assert n8n.requests() == []

    def test_unwritten_job_record_prevents_all_requests(
        self, dag: Any, registry: Callable[..., None], n8n: N8nControl, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        registry("btc")
        run = Run(dag)
        run.execute("read_registry")
        monkeypatch.setenv("AIRFLOW_CONN_KPI_DB", "postgresql://nobody@127.0.0.1:1/none")
        with pytest.raises(TransientError):
            run.execute("send_kpis")
        assert n8n.requests() == []


class TestExactlyOnce:
    def test_clear_of_a_run_sends_only_kpis_that_were_not_accepted(
        self, dag: Any, registry: Callable[..., None], n8n: N8nControl, kpi_db: psycopg.Connection[Any]
    ) -> None:
        registry("good", "bad")
        n8n.faults({"bad": [Fault(status=422, body="No")]})
        run = Run(dag)
        run.plan()
        run.send()
        with pytest.raises(PermanentError, match=r"is partial: bad is failed \(.*returned 422: No"):
            run.finalize()
        assert run.xcoms["settle_job", "return_value"]["kpis"] == {"failed": 1, "triggered": 1}
        run.clear()
        assert run.plan() == ["good", "bad"]
        assert run.send()["good"]["status"] == "triggered"
        assert run.finalize()["status"] == "triggered"
        assert executed(n8n) == {"bad": 1, "good": 1}

    def test_clear_of_one_kpi_uses_the_current_registry(
        self, dag: Any, registry: Callable[..., None], n8n: N8nControl, kpi_db: psycopg.Connection[Any]
    ) -> None:
        registry("good", entry(n8n, "bad", n8n.webhook("wrong")))
        run = Run(dag)
        run.plan()
        assert 'The requested webhook "POST wrong" is not registered' in str(run.send()["bad"])
        registry("good", "bad")
        run.clears += 1
        assert run.send("bad")["bad"]["status"] == "triggered"
        assert executed(n8n) == {"bad": 1, "good": 1}

    def test_kpi_killed_before_the_claim_is_sent_by_the_next_try(
        self, dag: Any, registry: Callable[..., None], n8n: N8nControl
    ) -> None:
        registry("btc")
        run = Run(dag)
        run.plan()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(jobs, "claim", killed)
            with pytest.raises(Killed):
                run.send()
        assert run.send()["btc"]["status"] == "triggered"
        assert executed(n8n) == {"btc": 1}

    def test_kpi_killed_after_the_request_is_unknown_and_not_sent_again(
        self, dag: Any, registry: Callable[..., None], n8n: N8nControl, kpi_db: psycopg.Connection[Any]
    ) -> None:
        registry("btc")
        run = Run(dag)
        run.plan()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(jobs, "record", killed)
            with pytest.raises(Killed):
                run.send()
        assert statuses(kpi_db) == {"btc": "sending"}
        for _ in range(2):
            assert "KPI btc may have been sent" in str(run.send()["btc"])
        assert executed(n8n) == {"btc": 1}
        with pytest.raises(PermanentError, match="btc is unknown"):
            run.finalize()

    @pytest.mark.parametrize("fault", [Fault(truncate_after_bytes=0), Fault(delay_seconds=2)], ids=["dropped", "slow"])
    def test_lost_response_is_unknown_and_not_sent_again(
        self, dag: Any, registry: Callable[..., None], n8n: N8nControl, kpi_db: psycopg.Connection[Any], fault: Fault
    ) -> None:
        registry("btc")
        n8n.faults({"btc": [fault]})
        run = Run(dag)
        run.plan()
        for _ in range(2):
            error = run.send()["btc"]
            assert isinstance(error, PermanentError)
            assert "No response from" in str(error)
            run.clears += 1
        assert executed(n8n) == {"btc": 1}
        assert statuses(kpi_db) == {"btc": "unknown"}

    def test_outcome_is_stored_after_a_transient_database_error(
        self,
        dag: Any,
        registry: Callable[..., None],
        n8n: N8nControl,
        kpi_db: psycopg.Connection[Any],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        registry("btc")
        run = Run(dag)
        run.plan()
        record = jobs.record

        def busy_once(*_: Any, **__: Any) -> None:
            monkeypatch.setattr(jobs, "record", record)
            msg = "The database was busy."
            raise TransientError(msg)

        monkeypatch.setattr(jobs, "record", busy_once)
        assert run.send()["btc"]["status"] == "triggered"
        assert statuses(kpi_db) == {"btc": "triggered"}
        assert executed(n8n) == {"btc": 1}

    def test_invalid_setting_after_the_claim_is_a_failure_that_a_clear_repeats(
        self, dag: Any, registry: Callable[..., None], n8n: N8nControl, kpi_db: psycopg.Connection[Any]
    ) -> None:
        registry("btc")
        run = Run(dag)
        run.plan()
        with unreached():
            run.execute("send_kpis")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("JOB_TIMEOUT_MINUTES", "soon")
            assert "Invalid settings: JOB_TIMEOUT_MINUTES" in str(run.send()["btc"])
        assert statuses(kpi_db) == {"btc": "failed"}
        run.clears += 1
        assert run.send()["btc"]["status"] == "triggered"
        assert executed(n8n) == {"btc": 1}

    def test_concurrent_tries_send_one_request(self, dag: Any, registry: Callable[..., None], n8n: N8nControl) -> None:
        registry("btc")
        n8n.faults({"btc": [Fault(delay_seconds=0.5)]})
        run = Run(dag)
        run.plan()
        with ThreadPoolExecutor(4) as threads:
            list(threads.map(lambda _: run.send(), range(4)))
        assert executed(n8n) == {"btc": 1}

    def test_second_run_of_the_day_sends_only_unsent_kpis(
        self, dag: Any, registry: Callable[..., None], n8n: N8nControl
    ) -> None:
        registry("good", "bad")
        n8n.faults({"bad": [Fault(status=422)]})
        first, second = Run(dag), Run(dag, NOON + timedelta(hours=3), name="manual")
        first.plan()
        first.send()
        with pytest.raises(PermanentError, match="bad is failed"):
            first.finalize()
        assert second.plan() == ["bad"]
        second.send()
        assert second.finalize()["kpis"] == {"triggered": 1}
        first.clear()
        assert first.plan() == ["good"]
        first.send()
        assert first.finalize()["kpis"] == {"triggered": 1}
        assert executed(n8n) == {"bad": 1, "good": 1}
        assert Run(dag, NOON + timedelta(days=1)).plan() == ["good", "bad"]

    @pytest.mark.parametrize("failed", [True, False], ids=["failed", "not sent yet"])
    def test_clear_of_a_kpi_sent_by_another_run_is_skipped(
        self, dag: Any, registry: Callable[..., None], n8n: N8nControl, failed: bool
    ) -> None:
        registry("good", "bad")
        n8n.faults({"bad": [Fault(status=422)]} if failed else {})
        first, second = Run(dag), Run(dag, NOON + timedelta(hours=3), name="manual")
        first.plan()
        if failed:
            first.send()
        else:
            with unreached():
                first.execute("send_kpis")
            first.send("good")
        assert second.plan() == ["bad"]
        second.send()
        first.clears += 1
        for _ in range(2):
            skipped = first.send("bad")["bad"]
            assert isinstance(skipped, AirflowSkipException)
            assert "Another run of this day sent KPI bad" in str(skipped)
        assert executed(n8n) == {"bad": 1, "good": 1}
        assert first.finalize()["kpis"] == {"triggered": 1}

    def test_new_run_with_resend_sends_again_with_a_new_key(
        self, dag: Any, registry: Callable[..., None], n8n: N8nControl
    ) -> None:
        registry("a", "b")
        first, again = Run(dag), Run(dag, NOON + timedelta(hours=3), name="manual", resend=True, kpis=["a"])
        first.plan()
        first.send()
        assert again.plan() == ["a"]
        again.send()
        again.send()  # a retry
        assert executed(n8n) == {"a": 2, "b": 1}
        assert len(set(keys(n8n, "a"))) == 2

    def test_clear_of_a_run_with_resend_does_not_send_unknown_kpis(
        self, dag: Any, registry: Callable[..., None], n8n: N8nControl, kpi_db: psycopg.Connection[Any]
    ) -> None:
        registry("lost", "bad", "good")
        n8n.faults({"lost": [Fault(truncate_after_bytes=0)], "bad": [Fault(status=422)]})
        run = Run(dag, resend=True)
        run.plan()
        run.send()
        with pytest.raises(PermanentError, match="so a clear does not send them"):
            run.finalize()
        run.clear()
        assert run.plan() == ["lost", "bad", "good"]
        assert "trigger a new run with resend" in str(run.send()["lost"])
        assert statuses(kpi_db) == {"lost": "unknown", "bad": "triggered", "good": "triggered"}
        assert executed(n8n) == {"bad": 1, "good": 1, "lost": 1}
        new = Run(dag, NOON + timedelta(hours=1), name="manual", resend=True, kpis=["lost"])
        new.plan()
        new.send()
        assert executed(n8n) == {"bad": 1, "good": 1, "lost": 2}
        assert len(set(keys(n8n, "lost"))) == 2

    def test_clear_sends_failed_kpis_with_a_new_key_that_retries_share(
        self, dag: Any, registry: Callable[..., None], n8n: N8nControl
    ) -> None:
        registry("other", "bad")
        n8n.faults({"bad": [Fault(status=503, times=4), Fault(status=422), Fault(status=503)]})
        run = Run(dag)
        run.plan()
        run.send()
        run.send()  # a retry
        assert set(keys(n8n, "bad")) == {f"{run.trace_id}/bad"}
        registry("bad", "other")
        run.clear()
        run.plan()
        run.send()
        assert keys(n8n, "bad")[5:] == [f"{run.trace_id}.2/bad"] * 2

    def test_backfill_with_resend_sends_once_with_a_new_key(
        self, dag: Any, registry: Callable[..., None], n8n: N8nControl
    ) -> None:
        registry("a")
        first, backfill = Run(dag), Run(dag, resend=True)
        first.plan()
        first.send()
        for _ in range(2):
            backfill.clear()
            backfill.plan()
            backfill.send()
        assert keys(n8n, "a") == [f"{first.trace_id}/a", f"{first.trace_id}.2/a"]

    def test_run_for_a_past_day_is_skipped_without_resend(
        self, dag: Any, registry: Callable[..., None], n8n: N8nControl, kpi_db: psycopg.Connection[Any]
    ) -> None:
        registry("btc")
        late = Run(dag, started=NOON + timedelta(hours=12))
        with pytest.raises(AirflowSkipException, match="The run is for 2026-11-15, but it started on 2026-11-16"):
            late.plan()
        with pytest.raises(AirflowSkipException):
            late.finalize()
        assert kpi_db.execute("select count(*) from kpi.jobs").fetchone() == (0,)
        assert Run(dag, started=NOON + timedelta(hours=11)).plan() == ["btc"]
        asked = Run(dag, NOON - timedelta(days=9), started=NOON, name="backfill", resend=True)
        assert asked.plan() == ["btc"]

    @pytest.mark.parametrize(("begins_after", "sends"), [(2, True), (61, False)])
    def test_run_of_the_last_minute_of_a_day_may_start_on_the_next_day(
        self, dag: Any, registry: Callable[..., None], n8n: N8nControl, begins_after: int, sends: bool
    ) -> None:
        registry("btc")
        last_minute = NOON + timedelta(hours=11, minutes=59)
        run = Run(dag, last_minute, started=last_minute + timedelta(minutes=begins_after))
        if sends:
            assert run.plan() == ["btc"]
        else:
            with pytest.raises(AirflowSkipException, match="The run is for 2026-11-15, but it started on 2026-11-16"):
                run.plan()

    def test_run_with_a_job_can_be_cleared_on_a_later_day(
        self, dag: Any, registry: Callable[..., None], n8n: N8nControl
    ) -> None:
        registry("btc")
        n8n.faults({"btc": [Fault(status=422)]})
        run = Run(dag)
        run.plan()
        run.send()
        run.clear()
        run.started += timedelta(days=30)
        assert run.plan() == ["btc"]
        run.send()
        assert executed(n8n) == {"btc": 1}


def test_ten_failing_kpis_do_not_stop_the_other_forty(
    dag: Any,
    registry: Callable[..., None],
    n8n: N8nControl,
    kpi_db: psycopg.Connection[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    good = [f"good-{number}" for number in range(40)]
    with socket.create_server(("127.0.0.1", 0)) as closed:
        refused = f"http://127.0.0.1:{closed.getsockname()[1]}"
    allow(monkeypatch, n8n.url, refused)
    faults = {
        "timeout": [Fault(delay_seconds=2)],
        "booting": [BOOTING],
        "forbidden": [Fault(status=403, body="Authorization data is wrong!")],
        "busy": [Fault(status=503, body="Database is not ready!")],
        "limited": [Fault(status=429, headers={"Retry-After": "1"})],
        "moved": [Fault(status=302, headers={"Location": "http://169.254.169.254/latest"})],
    }
    errors_of = {
        "refused": "failed: [Errno 111] Connect",
        "dns": "cannot be resolved",
        "timeout": "to the request (ReadTimeout)",
        "inactive": 'returned 404: The requested webhook "POST inactive" is not registered',
        "forbidden": "returned 403: Authorization data is wrong!",
        "error": "returned 500: Error in workflow",
        "moved": "a redirect to 169.254.169.254, which is not followed",
    }
    registry(
        *good,
        *faults,
        entry(n8n, "refused", f"{refused}/webhook/x"),
        entry(n8n, "dns", "https://n8n.invalid/webhook/x"),
        "inactive",
        "error",
    )
    n8n.faults(faults)
    n8n.register({"inactive": Workflow(active=False), "error": Workflow(fails=True)})
    run = Run(dag)
    assert len(run.plan()) == 50

    run.send()

    recovered = {"booting", "busy", "limited"}
    assert {kpi for kpi, status in statuses(kpi_db).items() if status == "triggered"} == {*good, *recovered}
    assert {kpi: count for kpi, count in executed(n8n).items() if count != 1} == {}
    errors = dict(kpi_db.execute("select kpi_id, error from kpi.job_kpis where error is not null").fetchall())
    assert errors.keys() == errors_of.keys()
    assert [kpi for kpi, text in errors_of.items() if text not in errors[kpi]] == []
    counts = dict(kpi_db.execute("select kpi_id, retry_count from kpi.job_kpis where retry_count > 0").fetchall())
    assert counts == {"booting": 2, "busy": 1, "limited": 1, "dns": 3, "refused": 3, "inactive": 3}
    with pytest.raises(PermanentError) as caught:
        run.finalize()
    assert [kpi for kpi, text in errors_of.items() if f"{kpi} is " not in str(caught.value)] == []
    assert KEY not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest",
        "http://127.0.0.1:9/",
        "http://[::1]:9/",
        "http://2130706433:9/",
        "http://0x7f.1:9/",
    ],
)
def test_private_address_is_not_called(
    dag: Any, registry: Callable[..., None], n8n: N8nControl, kpi_db: psycopg.Connection[Any], url: str
) -> None:
    registry(entry(n8n, "evil", url), "good")
    run = Run(dag)
    run.plan()
    assert "not a public address" in str(run.send()["evil"])
    assert statuses(kpi_db) == {"evil": "failed", "good": "triggered"}


def test_missing_report_times_out(
    dag: Any, registry: Callable[..., None], n8n: N8nControl, kpi_db: psycopg.Connection[Any]
) -> None:
    registry("quick", entry(n8n, "slow", reportBack=True), entry(n8n, "done", reportBack=True))
    run = Run(dag)
    run.plan()
    run.send()
    (trace_id,) = kpi_data.first(kpi_db, "select trace_id from kpi.jobs")
    jobs.report(kpi_db, trace_id, "done", "completed")
    with pytest.raises(TaskDeferred):
        run.finalize()
    kpi_db.execute("update kpi.job_kpis set sent_at = sent_at - interval '31 minutes'")
    with pytest.raises(PermanentError, match=r"slow is timeout \(n8n did not report back within 30 minutes"):
        run.finalize()
    assert statuses(kpi_db) == {"quick": "triggered", "slow": "timeout", "done": "completed"}


def test_kpi_removed_from_the_registry_is_not_sent(dag: Any, registry: Callable[..., None], n8n: N8nControl) -> None:
    registry("a", "b")
    run = Run(dag)
    run.plan()
    with unreached():
        run.execute("send_kpis")
    registry("a")
    assert "KPI b is not active in the registry any more" in str(run.send()["b"])
    with pytest.raises(PermanentError, match=r"is partial: b is pending\. "):
        run.finalize()
    assert executed(n8n) == {"a": 1}


def test_failed_kpi_removed_from_the_registry_does_not_fail_a_cleared_run(
    dag: Any, registry: Callable[..., None], n8n: N8nControl
) -> None:
    registry("a", "b")
    n8n.faults({"b": [Fault(status=422)]})
    run = Run(dag)
    run.plan()
    run.send()
    with pytest.raises(PermanentError, match="b is failed"):
        run.finalize()
    registry("a")
    run.clear()
    assert run.plan() == ["a"]
    run.send()
    assert run.finalize()["kpis"] == {"triggered": 1}
    assert executed(n8n) == {"a": 1}


@pytest.mark.parametrize("number", [0, 1, 1023, 1024, 1025, 1501, 2049, 100_003])
def test_batches_fit_the_map_length_of_airflow(number: int) -> None:
    ids = [str(id_) for id_ in range(number)]
    made = batches(ids, 1024)
    assert [id_ for batch in made for id_ in batch] == ids
    assert max([len(made), *map(len, made)]) <= 1024
    assert len({len(batch) for batch in made[:-1]}) <= 1
    if made:
        assert len(made) * len(made[0]) - number < len(made)


def test_indices_beyond_the_last_batch_are_skipped(
    dag: Any, registry: Callable[..., None], n8n: N8nControl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__CORE__MAX_MAP_LENGTH", "3")
    registry(*"abcdefg")
    run = Run(dag)
    run.plan()
    outcomes = run.send()
    assert len(run.instances()) == 9
    assert executed(n8n) == dict.fromkeys("abcdefg", 1)
    assert isinstance(outcomes["–"], AirflowSkipException)


def test_mapped_arguments_match_the_xcoms_of_runs_before_an_upgrade(dag: Any) -> None:
    """A cleared instance of an old run has a stored map index and stored XComs, and must send the same KPI."""
    mapped = dag.get_task("trigger_kpi")
    stored = {"read_registry": [["a", "b"], ["c"]], "send_kpis": [0, 1]}
    ti = SimpleNamespace(map_index=0)
    sent = []
    for ti.map_index in range(4):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(PlainXComArg, "resolve", lambda self, _: stored[self.operator.task_id])
            patch.setattr(expandinput_xcom, "get_task_map_length", lambda _, resolved, __: len(resolved))
            arguments, _ = mapped.expand_input.resolve({"ti": ti})
        sent.append(mapped.unmap(arguments).kpi_id)
    assert sent == ["a", "b", "c", "–"]
    assert NOTHING_TO_SEND == "nothing_to_send"


@contextmanager
def unreached() -> Iterator[None]:
    """Let the pass end before it sends a KPI."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dispatch, "TIME_LIMIT", -1.0)
        yield


class Killed(BaseException):
    """Simulates a killed process, so no code may handle it."""


def killed(*_: Any, **__: Any) -> None:
    raise Killed
