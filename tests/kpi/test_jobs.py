"""What became of each KPI: claimed once, recorded by its owner, reported by n8n, given up in time."""

from __future__ import annotations

from aggregator.kpi import jobs
from aggregator.kpi.registry import Kpi

TRACE = "trace_20250814_120000_abc12345"
RUN = {"dag_id": "kpi_dispatch", "run_id": "scheduled__2025-08-14", "environment": "development"}


def kpi(id_: str, **more) -> Kpi:
    return Kpi(
        id=id_, name=f"Name of {id_}", type="price", active=True, webhook_url="https://n8n.example.com/w", **more
    )


def test_life_of_a_kpi(kpi_db) -> None:
    jobs.create(kpi_db, TRACE, [kpi("a", report_back=True), kpi("b")], **RUN)
    assert jobs.claim(kpi_db, TRACE, "a", "o") == "claimed"
    assert jobs.record(kpi_db, TRACE, "a", "o", "triggered") == "triggered"
    assert jobs.claim(kpi_db, TRACE, "a", "p") == "accepted"
    assert jobs.settle(kpi_db, TRACE).status == "partial"
    assert jobs.report(kpi_db, TRACE, "a", "completed")[0] == "reported"
