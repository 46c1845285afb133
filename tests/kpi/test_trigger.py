"""The wait ends with the last report or its timeout, and continues while the database is unavailable."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from aggregator.kpi import jobs
from aggregator.kpi import trigger as module
from aggregator.kpi.trigger import KpiReportsTrigger
from tests.kpi_data import RUN, TRACE, kpi, send

if TYPE_CHECKING:
    from airflow.triggers.base import TriggerEvent


@pytest.fixture
def job(kpi_db: psycopg.Connection) -> psycopg.Connection[Any]:
    """A connection to the database with a job that awaits the report of ``a``."""
    jobs.create(kpi_db, TRACE, [kpi("a", report_back=True), kpi("b")], **RUN)
    for id_ in ("a", "b"):
        send(kpi_db, id_)
    jobs.finalize(kpi_db, TRACE)
    return kpi_db


@pytest.fixture(autouse=True)
def _short_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLL_INTERVAL", 0.01)


def trigger() -> KpiReportsTrigger:
    """Create the trigger as Airflow does, from its serialized form."""
    path, arguments = KpiReportsTrigger(TRACE, 30).serialize()
    assert path == "aggregator.kpi.trigger.KpiReportsTrigger"
    return KpiReportsTrigger(**arguments)


async def logged(text: str, caplog: pytest.LogCaptureFixture) -> None:
    while text not in caplog.text:  # noqa: ASYNC110 - a log has no event
        await asyncio.sleep(0.01)


async def ended(waiting: KpiReportsTrigger) -> list[TriggerEvent]:
    return [event async for event in waiting.run()]


def test_trigger_ends_after_the_last_report(job: psycopg.Connection[Any]) -> None:
    async def wait_and_report() -> list[TriggerEvent]:
        waiting = asyncio.create_task(ended(trigger()))
        done, _ = await asyncio.wait([waiting], timeout=0.3)
        assert not done
        jobs.report(job, TRACE, "a", "failed", "No coin")
        return await asyncio.wait_for(waiting, 30)

    assert [event.payload for event in asyncio.run(wait_and_report())] == [TRACE]


def test_trigger_ends_when_the_report_is_overdue(job: psycopg.Connection[Any]) -> None:
    job.execute("update kpi.job_kpis set sent_at = now() - interval '31 minutes'")
    assert len(asyncio.run(ended(trigger()))) == 1


def test_trigger_writes_nothing(job: psycopg.Connection[Any]) -> None:
    job.execute("update kpi.job_kpis set sent_at = now() - interval '31 minutes'")
    before = job.execute("select kpi_id, xmin, xmax from kpi.job_kpis order by kpi_id").fetchall()
    asyncio.run(ended(trigger()))
    assert job.execute("select kpi_id, xmin, xmax from kpi.job_kpis order by kpi_id").fetchall() == before


def test_unavailable_database_is_polled_again(
    job: psycopg.Connection[Any],
    kpi_database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_KPI_DB", "postgresql://u@127.0.0.1:1/kpi")
    jobs.report(job, TRACE, "a", "completed")

    async def wait_and_fix() -> list[TriggerEvent]:
        waiting = asyncio.create_task(ended(trigger()))
        await logged("Polling again", caplog)
        assert not waiting.done()
        monkeypatch.setenv("AIRFLOW_CONN_KPI_DB", kpi_database_url)
        return await asyncio.wait_for(waiting, 30)

    assert len(asyncio.run(wait_and_fix())) == 1


def test_poll_that_hangs_times_out(
    job: psycopg.Connection[Any],
    kpi_database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(module, "POLL_TIMEOUT", timedelta(milliseconds=100))
    jobs.report(job, TRACE, "a", "completed")

    async def wait_and_unlock() -> list[TriggerEvent]:
        with psycopg.connect(kpi_database_url) as other:
            other.execute("lock table kpi.job_kpis")
            waiting = asyncio.create_task(ended(trigger()))
            await logged("Polling again", caplog)
        return await asyncio.wait_for(waiting, 30)

    assert len(asyncio.run(wait_and_unlock())) == 1
