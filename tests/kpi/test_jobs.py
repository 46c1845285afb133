"""Job records: claims, outcomes, reports, timeouts and the allowed state transitions."""

from __future__ import annotations

import json
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from datetime import timedelta
from itertools import product
from threading import Barrier
from time import sleep
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aggregator.core.errors import PermanentError
from aggregator.kpi import jobs
from aggregator.kpi.jobs import Claim, Report, Status
from tests.kpi_data import RUN, TRACE, create, first, kpi, send

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from psycopg.rows import TupleRow

    Connection = psycopg.Connection[TupleRow]

OTHER = "trace_20250814_150000_00000000"
"""Trace id of another run of the same day."""

LOST = "The task ended before it recorded a response. n8n may have run the workflow."


def statuses(connection: Connection) -> dict[str, str]:
    return dict(connection.execute("select kpi_id, status from kpi.job_kpis order by kpi_id").fetchall())


def one(connection: Connection, columns: str, id_: str = "a") -> tuple[Any, ...]:
    return first(connection, f"select {columns} from kpi.job_kpis where kpi_id = %s", [id_])


def all_at_once(database_url: str, *calls: Callable[[Connection], Any]) -> list[Any]:
    """Start calls at the same time, each on its own connection, and return their results."""
    together = Barrier(len(calls))

    def call(one: Callable[[Connection], Any]) -> Any:
        with psycopg.connect(database_url) as connection:
            together.wait()
            return one(connection)

    with ThreadPoolExecutor(len(calls)) as threads:
        return list(threads.map(call, calls))


def put(connection: Connection, trace_id: str, id_: str, state: str, *, resend_granted: bool = False) -> None:
    """Write one KPI in this state, sent by the owner ``first``."""
    if state == "no row":
        return
    connection.execute(
        """
        with job as (
            insert into kpi.jobs (trace_id, dag_id, run_id, environment) values (%(trace_id)s, 'd', %(trace_id)s, 'e')
            on conflict do nothing
        )
        insert into kpi.job_kpis (trace_id, kpi_id, name, type, report_back, metadata)
        values (%(trace_id)s, %(id)s, 'n', 't', true, '{}')
        """,
        {"trace_id": trace_id, "id": id_},
    )
    where = "where trace_id = %s and kpi_id = %s"
    connection.execute(f"update kpi.job_kpis set owner = 'first', resend = %s {where}", [resend_granted, trace_id, id_])
    for step in PATHS[state]:
        connection.execute(f"update kpi.job_kpis set status = %s {where}", [step, trace_id, id_])


def row(connection: Connection, id_: str) -> tuple[Any, ...]:
    """Status, owner, error and end of a KPI of the job."""
    query = "select status, owner, error, completed_at from kpi.job_kpis where trace_id = %s and kpi_id = %s"
    return connection.execute(query, [TRACE, id_]).fetchone() or ("no row", None, None, None)


def waits_for_a_lock(watcher: Connection, other: Connection) -> bool:
    query = "select from pg_stat_activity where pid = %s and wait_event_type = 'Lock'"
    return watcher.execute(query, [other.info.backend_pid]).fetchone() is not None


class TestRecord:
    def test_new_record_has_the_json_of_the_product(self, kpi_db: Connection) -> None:
        create(kpi_db, "cmc-btc-price")
        (record,) = first(kpi_db, "select record from kpi.job_records")
        created = record.pop("createdAt")
        assert created.endswith("Z")
        assert record.pop("updatedAt") == created
        assert record == {
            "traceId": TRACE,
            "status": "pending",
            "kpis": {
                "cmc-btc-price": {
                    "kpiId": "cmc-btc-price",
                    "status": "pending",
                    "completedAt": None,
                    "error": None,
                    "retryCount": 0,
                }
            },
            "metadata": {"totalKPIs": 1, "completedKPIs": 0, "failedKPIs": 0, "environment": "development"},
        }

    def test_record_has_status_error_and_retries_of_each_kpi(self, kpi_db: Connection) -> None:
        create(kpi_db, "a", "b", report_back=True)
        jobs.claim(kpi_db, TRACE, "a", "me")
        jobs.record(kpi_db, TRACE, "a", "me", "failed", requests=4, error="The requested webhook is not registered.")
        send(kpi_db, "b")
        jobs.report(kpi_db, TRACE, "b", "completed")
        jobs.finalize(kpi_db, TRACE)

        (record,) = first(kpi_db, "select record from kpi.job_records")

        assert record["status"] == "partial"
        assert record["metadata"] == {"totalKPIs": 2, "completedKPIs": 1, "failedKPIs": 1, "environment": "development"}
        failed, completed = record["kpis"]["a"], record["kpis"]["b"]
        assert (failed["status"], failed["error"]) == ("failed", "The requested webhook is not registered.")
        assert (failed["retryCount"], completed["retryCount"]) == (3, 0)
        assert (completed["status"], completed["error"]) == ("completed", None)
        assert completed["completedAt"].endswith("Z")

    def test_unusual_ids_and_metadata_are_stored_unchanged(self, kpi_db: Connection) -> None:
        deep: Any = "🦊"
        for _ in range(50):
            deep = {"{{ var.value.secret }}": [deep]}
        metadata = {
            "deep": deep,
            "big": 10**300,
            "small": 1e-300,
            "n8n": "={{ $json.x }}",
            "quote": "'; drop table x --",
        }
        ids = ["a/b", "🦊", "{{ var.value.secret }}", "'; drop table kpi.jobs --", "%s %(x)s", "x" * 200]
        jobs.create(kpi_db, TRACE, [kpi(id_, metadata=metadata) for id_ in ids], **RUN)
        stored = kpi_db.execute("select kpi_id, metadata from kpi.job_kpis").fetchall()
        assert {id_ for id_, _ in stored} == set(ids)
        assert all(data == metadata for _, data in stored)


class TestCreate:
    def test_second_create_keeps_sent_adds_new_and_deletes_removed_kpis(self, kpi_db: Connection) -> None:
        create(kpi_db, "accepted", "failed", "gone", "gone and failed", "gone but accepted")
        for id_ in ("accepted", "gone but accepted"):
            send(kpi_db, id_)
        for id_ in ("failed", "gone and failed"):
            send(kpi_db, id_, "failed")
        jobs.finalize(kpi_db, TRACE)
        versions = "select kpi_id, xmin, xmax from kpi.job_kpis where kpi_id in ('accepted', 'failed')"
        before = kpi_db.execute(versions).fetchall()

        create(kpi_db, "accepted", "failed", "new")

        assert statuses(kpi_db) == {
            "accepted": "triggered",
            "failed": "failed",
            "gone but accepted": "triggered",
            "new": "pending",
        }
        assert kpi_db.execute("select settled_at from kpi.jobs").fetchone() == (None,)
        assert [(id_, xmin) for id_, xmin, _ in kpi_db.execute(versions)] == [(id_, xmin) for id_, xmin, _ in before]

    def test_second_create_does_not_change_report_back_of_an_accepted_kpi(self, kpi_db: Connection) -> None:
        create(kpi_db, "accepted", "failed")
        send(kpi_db, "accepted")
        send(kpi_db, "failed", "failed")
        create(kpi_db, "accepted", "failed", report_back=True)
        assert one(kpi_db, "report_back", "accepted") == (False,)
        assert one(kpi_db, "report_back", "failed") == (True,)

    def test_second_create_with_nothing_to_send_keeps_the_job_final(self, kpi_db: Connection) -> None:
        create(kpi_db, "a")
        send(kpi_db, "a")
        jobs.finalize(kpi_db, TRACE)
        create(kpi_db, "a")
        assert kpi_db.execute("select settled_at is null, status from kpi.jobs, kpi.job_records").fetchone() == (
            False,
            "triggered",
        )

    def test_trace_id_of_another_run_is_rejected(self, kpi_db: Connection) -> None:
        create(kpi_db, "a")
        with pytest.raises(psycopg.errors.UniqueViolation):
            jobs.create(kpi_db, TRACE, [kpi("b")], **{**RUN, "run_id": "another"})
        assert statuses(kpi_db) == {"a": "pending"}

    def test_ten_concurrent_creates_write_one_job(self, kpi_db: Connection, kpi_database_url: str) -> None:
        ids = [f"{number}" for number in range(50)]
        for _ in range(5):
            kpi_db.execute("delete from kpi.jobs")
            all_at_once(kpi_database_url, *[lambda connection: create(connection, *ids)] * 10)
            assert statuses(kpi_db) == dict.fromkeys(sorted(ids), "pending")

    def test_job_without_kpis_is_completed(self, kpi_db: Connection) -> None:
        create(kpi_db)
        summary = jobs.finalize(kpi_db, TRACE)
        assert (summary.status, summary.kpis, summary.problems) == ("completed", {}, [])


STATES = ("no row", *Status)
SENT = {"sending", "triggered", "unknown", "completed", "timeout"}
"""States in which another run of the day prevents this one from sending."""

NOT_SENT = {"no row", "pending", "failed"}
ANY, NO, FIRST, AGAIN = {"no", "first", "again"}, {"no"}, {"first"}, {"again"}
ENDED = {"triggered", "completed", "timeout"}
DECISIONS: dict[str, tuple[set[str], set[str], set[str], Claim | None, str]] = {
    "not sent": ({"pending", "failed"}, NOT_SENT, ANY, Claim.CLAIMED, "sending"),
    "sent by another run": ({"pending", "failed"}, SENT, NO, Claim.SENT_BY_ANOTHER_RUN, "no row"),
    "sent by another run, resend": ({"pending", "failed"}, SENT, FIRST | AGAIN, Claim.CLAIMED, "sending"),
    "sending": ({"sending"}, NOT_SENT | SENT, ANY, Claim.UNKNOWN, "unknown"),
    "accepted": (ENDED, NOT_SENT | SENT, NO | AGAIN, Claim.ACCEPTED, "unchanged"),
    "accepted, resend": (ENDED, NOT_SENT | SENT, FIRST, Claim.CLAIMED, "sending"),
    "unknown": ({"unknown"}, NOT_SENT | SENT, NO | AGAIN, Claim.UNKNOWN, "unchanged"),
    "unknown, resend": ({"unknown"}, NOT_SENT | SENT, FIRST, Claim.CLAIMED, "sending"),
    "no row": ({"no row"}, NOT_SENT, ANY, None, "no row"),
    "no row, sent by another run": ({"no row"}, SENT, NO, Claim.SENT_BY_ANOTHER_RUN, "no row"),
    "no row, sent by another run, resend": ({"no row"}, SENT, FIRST | AGAIN, None, "no row"),
}
"""The rows of the table in ``claim_kpi.sql``: own states, states in the other run, ``_resend``, result, state after."""


class TestDecisionTable:
    def test_each_combination_is_in_one_row(self) -> None:
        rows = [
            combination for own, other, resend, *_ in DECISIONS.values() for combination in product(own, other, resend)
        ]
        assert sorted(rows) == sorted(product(STATES, STATES, ANY))

    @pytest.mark.parametrize(("own", "other", "resend", "result", "after"), DECISIONS.values(), ids=DECISIONS)
    def test_claim_has_the_result_of_its_row(
        self, kpi_db: Connection, own: set[str], other: set[str], resend: set[str], result: Claim | None, after: str
    ) -> None:
        for before, elsewhere, asked, owner in product(own, other, resend, ["first", "second"]):
            id_ = f"{before}, {elsewhere}, {asked}, {owner}"
            put(kpi_db, OTHER, id_, elsewhere)
            put(kpi_db, TRACE, id_, before, resend_granted=asked == "again")
            try:
                claim = jobs.claim(kpi_db, TRACE, id_, owner, resend=asked != "no")
            except PermanentError:
                claim = None
            state, owner_after, error, completed_at = row(kpi_db, id_)
            assert (claim, state) == (result, before if after == "unchanged" else after), id_
            if claim is Claim.CLAIMED:
                assert (owner_after, error, completed_at) == (owner, None, None), id_
            elif state != "no row":
                assert owner_after == "first", id_


class TestClaim:
    def test_accepted_kpi_is_not_sent_again(self, kpi_db: Connection) -> None:
        create(kpi_db, "a", report_back=True)
        send(kpi_db, "a")
        assert jobs.claim(kpi_db, TRACE, "a", "other") is Claim.ACCEPTED
        jobs.report(kpi_db, TRACE, "a", "completed")
        assert jobs.claim(kpi_db, TRACE, "a", "other") is Claim.ACCEPTED
        assert one(kpi_db, "owner, status") == ("me", "completed")

    def test_failed_kpi_is_sent_again(self, kpi_db: Connection) -> None:
        create(kpi_db, "a")
        send(kpi_db, "a", "failed")
        assert jobs.claim(kpi_db, TRACE, "a", "other") is Claim.CLAIMED
        jobs.record(kpi_db, TRACE, "a", "other", "triggered", requests=3)
        assert one(kpi_db, "status, error, retry_count, completed_at") == ("triggered", None, 3, None)

    def test_killed_owner_leaves_unknown_and_no_second_request(self, kpi_db: Connection) -> None:
        create(kpi_db, "a")
        jobs.claim(kpi_db, TRACE, "a", "killed")
        assert jobs.claim(kpi_db, TRACE, "a", "next try") is Claim.UNKNOWN
        assert jobs.claim(kpi_db, TRACE, "a", "third try") is Claim.UNKNOWN
        assert one(kpi_db, "status, error") == ("unknown", LOST)

    def test_slow_owner_may_record_its_outcome_after_a_second_claim(self, kpi_db: Connection) -> None:
        create(kpi_db, "a")
        jobs.claim(kpi_db, TRACE, "a", "slow")
        jobs.claim(kpi_db, TRACE, "a", "next try")
        assert jobs.record(kpi_db, TRACE, "a", "next try", "failed") is Status.UNKNOWN
        assert jobs.record(kpi_db, TRACE, "a", "slow", "triggered") is Status.TRIGGERED
        assert one(kpi_db, "status, error") == ("triggered", None)

    def test_killed_owner_in_a_run_with_resend_leaves_unknown(self, kpi_db: Connection) -> None:
        create(kpi_db, "a", "b")
        assert jobs.claim(kpi_db, TRACE, "a", "killed", resend=True) is Claim.CLAIMED
        assert jobs.claim(kpi_db, TRACE, "b", "killed") is Claim.CLAIMED
        for number, id_ in product(range(3), "ab"):
            claim = jobs.claim(kpi_db, TRACE, id_, "next", retry_group=f"{number}", resend=True)
            assert claim is Claim.UNKNOWN

    def test_retries_share_an_idempotency_key_and_a_clear_has_a_new_one(self, kpi_db: Connection) -> None:
        create(kpi_db, "a")
        keys = []
        for retry_group in ("7/2", "7/2", "7/5", "3/5"):
            claim = jobs.claim(kpi_db, TRACE, "a", "me", retry_group=retry_group)
            assert claim is Claim.CLAIMED
            keys.append(jobs.read(kpi_db, TRACE, "a").idempotency_key)
            jobs.record(kpi_db, TRACE, "a", "me", "failed")
        assert keys == [f"{TRACE}/a", f"{TRACE}/a", f"{TRACE}.2/a", f"{TRACE}.3/a"]

    def test_instance_takes_a_failure_of_the_pass_over_once_and_keeps_its_key(self, kpi_db: Connection) -> None:
        create(kpi_db, "a")
        assert jobs.claim(kpi_db, TRACE, "a", "pass", retry_group="-1/2", by_pass=True) is Claim.CLAIMED
        jobs.record(kpi_db, TRACE, "a", "pass", "failed", requests=3, retry_after=timedelta(minutes=5), error="no")
        claims = [jobs.claim(kpi_db, TRACE, "a", "instance", retry_group="0/2") for _ in range(2)]
        assert claims == [Claim.FAILED, Claim.CLAIMED]
        sent = jobs.read(kpi_db, TRACE, "a")
        assert (sent.requests, sent.retry_count, sent.idempotency_key) == (3, 2, f"{TRACE}/a")
        jobs.record(kpi_db, TRACE, "a", "instance", "failed", error="again")
        assert jobs.claim(kpi_db, TRACE, "a", "pass of a clear", retry_group="-1/3", by_pass=True) is Claim.CLAIMED
        assert jobs.read(kpi_db, TRACE, "a").idempotency_key == f"{TRACE}.2/a"

    @pytest.mark.parametrize("outcome", ["triggered", "unknown", None])
    def test_failure_that_n8n_reports_after_the_instance_ran_is_sent_by_a_clear(
        self, kpi_db: Connection, outcome: Any
    ) -> None:
        create(kpi_db, "a")
        jobs.claim(kpi_db, TRACE, "a", "pass", retry_group="-1/2", by_pass=True)
        if outcome:
            jobs.record(kpi_db, TRACE, "a", "pass", outcome)
        assert jobs.claim(kpi_db, TRACE, "a", "instance", retry_group="0/2") is not Claim.CLAIMED
        jobs.report(kpi_db, TRACE, "a", "failed")
        assert jobs.claim(kpi_db, TRACE, "a", "instance", retry_group="0/5") is Claim.CLAIMED
        assert jobs.read(kpi_db, TRACE, "a").idempotency_key == f"{TRACE}.2/a"

    def test_instance_sends_a_kpi_that_failed_in_the_other_run_after_the_pass(self, kpi_db: Connection) -> None:
        for trace_id in (TRACE, OTHER):
            create(kpi_db, "a", trace_id=trace_id)
        jobs.claim(kpi_db, OTHER, "a", "other", by_pass=True)
        assert jobs.claim(kpi_db, TRACE, "a", "pass", by_pass=True) is Claim.SENT_BY_ANOTHER_RUN
        jobs.record(kpi_db, OTHER, "a", "other", "failed")
        assert jobs.claim(kpi_db, TRACE, "a", "instance") is Claim.CLAIMED

    def test_failure_of_the_pass_that_another_run_fixed_leaves_this_job(self, kpi_db: Connection) -> None:
        create(kpi_db, "a")
        jobs.claim(kpi_db, TRACE, "a", "pass", by_pass=True)
        jobs.record(kpi_db, TRACE, "a", "pass", "failed")
        create(kpi_db, "a", trace_id=OTHER)
        send(kpi_db, "a", trace_id=OTHER)
        assert jobs.claim(kpi_db, TRACE, "a", "instance") is Claim.SENT_BY_ANOTHER_RUN

    @pytest.mark.parametrize(
        ("outcome", "retry_after", "expected"),
        [("failed", timedelta(0), timedelta(0)), ("failed", None, None), ("unknown", None, None)],
    )
    def test_transient_failure_has_the_time_of_the_next_request(
        self, kpi_db: Connection, outcome: Any, retry_after: timedelta | None, expected: timedelta | None
    ) -> None:
        create(kpi_db, "a")
        jobs.claim(kpi_db, TRACE, "a", "me")
        jobs.record(kpi_db, TRACE, "a", "me", outcome, retry_after=retry_after)
        assert jobs.read(kpi_db, TRACE, "a").retry_after == expected

    def test_pass_sends_what_is_pending_and_what_may_succeed(self, kpi_db: Connection) -> None:
        create(kpi_db, "new", "transient", "permanent", "sending", "sent", "unknown")
        for id_ in ("transient", "permanent", "sending", "sent", "unknown"):
            jobs.claim(kpi_db, TRACE, id_, "me", retry_group="-1/2", by_pass=True)
        jobs.record(kpi_db, TRACE, "transient", "me", "failed", retry_after=timedelta())
        jobs.record(kpi_db, TRACE, "permanent", "me", "failed")
        jobs.record(kpi_db, TRACE, "sent", "me", "triggered")
        jobs.record(kpi_db, TRACE, "unknown", "me", "unknown")
        assert jobs.unsent(kpi_db, TRACE, retry_group="-1/2", resend=False) == {"new", "transient"}
        assert jobs.unsent(kpi_db, TRACE, retry_group="-1/3", resend=False) == {"new", "transient", "permanent"}
        assert jobs.unsent(kpi_db, TRACE, retry_group="-1/2", resend=True) == {
            "new",
            "transient",
            "permanent",
            "sent",
            "unknown",
        }

    @pytest.mark.parametrize("own", ["pending", "failed"])
    @pytest.mark.parametrize("others", ["sending", "triggered", "unknown", "completed", "timeout"])
    def test_kpi_sent_by_another_run_leaves_this_job(self, kpi_db: Connection, own: str, others: str) -> None:
        create(kpi_db, "a", trace_id=OTHER)
        create(kpi_db, "a")
        if own == "failed":
            send(kpi_db, "a", "failed")
        for status in PATHS[others]:
            kpi_db.execute("update kpi.job_kpis set status = %s where trace_id = %s", [status, OTHER])
        for owner in ("me", "next try"):
            assert jobs.claim(kpi_db, TRACE, "a", owner) is Claim.SENT_BY_ANOTHER_RUN
        summary = jobs.finalize(kpi_db, TRACE)
        assert (summary.status, summary.kpis, summary.problems) == ("completed", {}, [])
        assert statuses(kpi_db) == {"a": others}

    def test_kpi_sent_on_another_day_is_sent(self, kpi_db: Connection) -> None:
        create(kpi_db, "a")
        send(kpi_db, "a")
        tomorrow = TRACE.replace("20250814", "20250815")
        create(kpi_db, "a", trace_id=tomorrow)
        assert jobs.claim(kpi_db, tomorrow, "a", "me") is Claim.CLAIMED

    def test_kpi_sent_by_both_runs_stays_in_both_jobs(self, kpi_db: Connection) -> None:
        for trace_id in (OTHER, TRACE):
            create(kpi_db, "a", trace_id=trace_id)
            assert jobs.claim(kpi_db, trace_id, "a", "me", resend=True) is Claim.CLAIMED
            jobs.record(kpi_db, trace_id, "a", "me", "triggered")
        assert jobs.claim(kpi_db, TRACE, "a", "other") is Claim.ACCEPTED
        assert jobs.finalize(kpi_db, TRACE).kpis == {"triggered": 1}

    @pytest.mark.parametrize(("trace_id", "kpi_id"), [(TRACE, "b"), ("trace_20250814_120000_00000000", "a")])
    def test_missing_job_or_kpi_is_a_permanent_error(self, kpi_db: Connection, trace_id: str, kpi_id: str) -> None:
        create(kpi_db, "a")
        with pytest.raises(PermanentError, match="Clear the run"):
            jobs.claim(kpi_db, trace_id, kpi_id, "me")
        with pytest.raises(PermanentError, match="Clear the run"):
            jobs.record(kpi_db, trace_id, kpi_id, "me", "triggered")
        with pytest.raises(PermanentError, match="clear the run"):
            jobs.finalize(kpi_db, "trace_20250814_120000_00000000")

    @pytest.mark.slow
    @pytest.mark.parametrize("resend", [False, True])
    def test_twenty_concurrent_owners_get_one_claim(
        self, kpi_db: Connection, kpi_database_url: str, resend: bool
    ) -> None:
        for round_ in range(5):
            id_ = f"kpi {round_}"
            create(kpi_db, *[f"kpi {number}" for number in range(round_ + 1)])

            def claim(number: int, id_: str = id_) -> Callable[[Connection], Claim]:
                return lambda connection: jobs.claim(connection, TRACE, id_, f"owner {number}", resend=resend)

            claims = all_at_once(kpi_database_url, *map(claim, range(20)))

            assert sorted(claims) == [Claim.CLAIMED, *[Claim.UNKNOWN] * 19]
            winner = f"owner {claims.index(Claim.CLAIMED)}"
            assert jobs.record(kpi_db, TRACE, id_, winner, "triggered") is Status.TRIGGERED

    @pytest.mark.slow
    def test_twenty_concurrent_runs_of_a_day_get_one_claim(self, kpi_db: Connection, kpi_database_url: str) -> None:
        traces = [f"{TRACE[:-8]}{number:08}" for number in range(20)]
        for trace_id in traces:
            create(kpi_db, *"abcde", trace_id=trace_id)
        for id_ in "abcde":

            def claim(trace_id: str, id_: str = id_) -> Callable[[Connection], Claim]:
                return lambda connection: jobs.claim(connection, trace_id, id_, "me")

            claims = all_at_once(kpi_database_url, *map(claim, traces))

            assert sorted(claims) == [Claim.CLAIMED, *[Claim.SENT_BY_ANOTHER_RUN] * 19]
        assert kpi_db.execute("select count(*) from kpi.job_kpis").fetchone() == (5,)

    def test_claim_of_a_second_run_waits_for_the_first(self, kpi_db: Connection, kpi_database_url: str) -> None:
        for trace_id in (OTHER, TRACE):
            create(kpi_db, "a", trace_id=trace_id)
        with (
            ThreadPoolExecutor(1) as thread,
            psycopg.connect(kpi_database_url) as first,
            psycopg.connect(kpi_database_url) as second,
        ):
            assert jobs.claim(first, OTHER, "a", "me") is Claim.CLAIMED
            claim = thread.submit(jobs.claim, second, TRACE, "a", "me")
            while not waits_for_a_lock(kpi_db, second):
                assert not claim.done()
                sleep(0.01)
            first.commit()
            assert claim.result(30) is Claim.SENT_BY_ANOTHER_RUN


class TestOwner:
    def test_earlier_owner_does_not_overwrite_a_later_one(self, kpi_db: Connection) -> None:
        create(kpi_db, "a")
        send(kpi_db, "a", "failed", "first")
        jobs.claim(kpi_db, TRACE, "a", "second")
        assert jobs.record(kpi_db, TRACE, "a", "first", "triggered") is Status.SENDING
        assert jobs.record(kpi_db, TRACE, "a", "second", "failed", error="x\0" * 3000) is Status.FAILED
        assert one(kpi_db, "error") == ("x" * 2000,)


class TestReport:
    def test_report_before_the_outcome_is_kept(self, kpi_db: Connection) -> None:
        create(kpi_db, "a", report_back=True)
        jobs.claim(kpi_db, TRACE, "a", "me")
        assert jobs.report(kpi_db, TRACE, "a", "failed", "No coin") == (Report.REPORTED, Status.FAILED)
        assert jobs.record(kpi_db, TRACE, "a", "me", "triggered") is Status.FAILED
        assert one(kpi_db, "status, error") == ("failed", "No coin")

    def test_report_without_report_back_changes_the_job(self, kpi_db: Connection) -> None:
        create(kpi_db, "a", "b")
        send(kpi_db, "a")
        send(kpi_db, "b")
        assert jobs.finalize(kpi_db, TRACE).status == "triggered"
        jobs.report(kpi_db, TRACE, "a", "failed", "No coin")
        assert jobs.summary(kpi_db, TRACE).status == "partial"

    @pytest.mark.slow
    def test_concurrent_reports_are_each_stored_once(self, kpi_db: Connection, kpi_database_url: str) -> None:
        ids = [f"{number:03}" for number in range(40)]
        create(kpi_db, *ids, report_back=True)
        for id_ in ids:
            jobs.claim(kpi_db, TRACE, id_, "me")
            jobs.record(kpi_db, TRACE, id_, "me", "triggered")

        def report(id_: str) -> Callable[[Connection], Any]:
            return lambda connection: jobs.report(connection, TRACE, id_, "completed")

        results = all_at_once(
            kpi_database_url,
            *[report(id_) for id_ in ids for _ in range(2)],
            *[lambda connection: jobs.finalize(connection, TRACE)] * 10,
            *[lambda connection: jobs.expire(connection, 30)] * 10,
        )

        reports = [result for result, _ in results[:80]]
        assert sorted(reports) == [Report.REPEATED] * 40 + [Report.REPORTED] * 40
        assert jobs.summary(kpi_db, TRACE) == jobs.Summary(TRACE, "completed", {"completed": 40}, [])


class TestExpire:
    @pytest.fixture
    def sent(self, kpi_db: Connection) -> Connection:
        """KPIs sent 31 minutes ago (report awaited, not awaited, sender gone), and one sent now."""
        jobs.create(
            kpi_db, TRACE, [kpi("awaited", report_back=True), kpi("lost", report_back=True), kpi("not awaited")], **RUN
        )
        send(kpi_db, "awaited")
        send(kpi_db, "not awaited")
        jobs.claim(kpi_db, TRACE, "lost", "me")
        kpi_db.execute("update kpi.job_kpis set sent_at = now() - interval '31 minutes'")
        jobs.create(kpi_db, TRACE, [kpi("new", report_back=True)], **RUN)
        send(kpi_db, "new")
        return kpi_db

    def test_overdue_reports_time_out(self, sent: Connection) -> None:
        assert jobs.expire(sent, 32) == 0
        assert [jobs.awaited(sent, TRACE, minutes) for minutes in (32, 30, 0)] == [2, 1, 0]
        assert jobs.expire(sent, 30) == 2
        assert statuses(sent) == {
            "awaited": "timeout",
            "lost": "unknown",
            "new": "triggered",
            "not awaited": "triggered",
        }
        assert one(sent, "error", "awaited") == ("n8n did not report back within 30 minutes.",)
        assert one(sent, "error", "lost") == (LOST,)
        assert jobs.expire(sent, 30) == 1
        assert one(sent, "status", "lost") == ("timeout",)

    def test_report_after_the_timeout_is_refused(self, sent: Connection) -> None:
        jobs.expire(sent, 30)
        assert jobs.report(sent, TRACE, "awaited", "completed") == (Report.REFUSED, Status.TIMEOUT)


def test_prune_deletes_only_old_jobs(kpi_db: Connection) -> None:
    for suffix in ("00000000", "11111111"):
        create(kpi_db, "a", trace_id=TRACE[:-8] + suffix)
    kpi_db.execute("update kpi.jobs set created_at = now() - interval '91 days' where trace_id like '%0'")
    assert jobs.prune(kpi_db, 92) == 0
    assert jobs.prune(kpi_db, 90) == 1
    assert kpi_db.execute("select trace_id from kpi.job_kpis").fetchall() == [(f"{TRACE[:-8]}11111111",)]


def test_finalize_marks_kpis_without_a_sender_as_unknown(kpi_db: Connection) -> None:
    create(kpi_db, "a", "b")
    jobs.claim(kpi_db, TRACE, "a", "killed")
    assert jobs.summary(kpi_db, TRACE).status == "pending"
    summary = jobs.finalize(kpi_db, TRACE)
    assert (summary.status, summary.kpis) == ("partial", {"pending": 1, "unknown": 1})
    assert [tuple(json.loads(json.dumps(problem)).values()) for problem in asdict(summary)["problems"]] == [
        ("a", "unknown", LOST),
        ("b", "pending", None),
    ]


TRANSITIONS = {
    "pending": {"sending"},
    "sending": {"triggered", "failed", "unknown", "completed"},
    "triggered": {"completed", "failed", "timeout", "pending"},
    "failed": {"sending", "pending"},
    "unknown": {"triggered", "completed", "failed", "timeout", "pending"},
    "completed": {"pending"},
    "timeout": {"pending"},
}
PATHS: dict[str, list[str]] = {
    "pending": [],
    "sending": ["sending"],
    "triggered": ["sending", "triggered"],
    "failed": ["sending", "failed"],
    "unknown": ["sending", "unknown"],
    "completed": ["sending", "completed"],
    "timeout": ["sending", "triggered", "timeout"],
}


class TestStateMachine:
    def test_diagram_in_the_documents_has_every_transition(self, repository: Path) -> None:
        text = (repository / "docs" / "products" / "kpi.md").read_text()
        drawn = re.findall(r"^    ([a-z]+) --> ([a-z]+): ", text, re.MULTILINE)
        assert sorted(drawn) == sorted((before, after) for before, states in TRANSITIONS.items() for after in states)

    def test_every_other_transition_is_rejected(self, kpi_db: Connection) -> None:
        update = "update kpi.job_kpis set status = %s where kpi_id = %s"
        for before, after in product(Status, Status):
            id_ = f"{before} to {after}"
            create(kpi_db, id_)
            for step in PATHS[before]:
                kpi_db.execute(update, [step, id_])
            if after == before or after in TRANSITIONS[before]:
                kpi_db.execute(update, [after, id_])
                assert one(kpi_db, "status", id_) == (after,)
            else:
                with pytest.raises(psycopg.errors.CheckViolation, match=f"cannot change from {before} to {after}"):
                    kpi_db.execute(update, [after, id_])

    def test_first_status_is_pending(self, kpi_db: Connection) -> None:
        create(kpi_db)
        insert = (
            "insert into kpi.job_kpis (trace_id, kpi_id, name, type, report_back, metadata, status) "
            "values (%s, 'a', 'a', 'a', false, '{}', %s)"
        )
        for status in set(Status) - {Status.PENDING}:
            with pytest.raises(psycopg.errors.CheckViolation, match="first status of a KPI is pending"):
                kpi_db.execute(insert, [TRACE, status])

    def test_owner_cannot_change_while_it_sends(self, kpi_db: Connection) -> None:
        create(kpi_db, "a")
        jobs.claim(kpi_db, TRACE, "a", "me")
        with pytest.raises(psycopg.errors.CheckViolation, match="owner of a KPI cannot change"):
            kpi_db.execute("update kpi.job_kpis set owner = 'thief'")


def expected_status(kpis: list[tuple[str, bool]]) -> str:
    """The status of a finalized job by the specification, from the status and report_back of each KPI."""
    succeeded = [status for status, _ in kpis if status in {"completed", "triggered"}]
    open_ = [status for status, reports in kpis if reports and status in {"triggered", "unknown"}]
    bad = [
        status
        for status, reports in kpis
        if status in {"failed", "timeout", "pending"} or (status, reports) == ("unknown", False)
    ]
    if bad:
        if succeeded or any(status == "unknown" for status, _ in kpis):
            return "partial"
        return "timeout" if "timeout" in bad else "failed"
    if open_:
        return "triggered"
    return "completed" if not kpis or "completed" in succeeded else "triggered"


FINAL = sorted(set(Status) - {Status.SENDING})


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kpis=st.lists(st.tuples(st.sampled_from(FINAL), st.booleans()), max_size=4))
def test_status_of_a_job_follows_from_its_kpis(kpi_db: Connection, kpis: list[tuple[str, bool]]) -> None:
    kpi_db.execute("delete from kpi.jobs")
    jobs.create(kpi_db, TRACE, [kpi(str(index), report_back=reports) for index, (_, reports) in enumerate(kpis)], **RUN)
    for index, (status, _) in enumerate(kpis):
        for step in PATHS[status]:
            kpi_db.execute("update kpi.job_kpis set status = %s where kpi_id = %s", [step, str(index)])
    assert jobs.finalize(kpi_db, TRACE).status == expected_status(kpis)


def test_functions_are_documented_and_not_public(kpi_db: Connection) -> None:
    functions = (
        "select proname, prosrc <> '', proacl::text, proconfig, obj_description(oid) is not null "
        "from pg_proc where pronamespace = 'kpi'::regnamespace"
    )
    found = kpi_db.execute(functions).fetchall()
    assert len(found) == 8
    for name, _, rights, config, documented in found:
        assert not any(right.startswith("=") for right in rights.strip("{}").split(",")), name
        assert 'search_path=""' in config, name
        assert documented, name


def test_functions_ignore_the_search_path(kpi_db: Connection) -> None:
    kpi_db.execute("create schema if not exists hostile")
    kpi_db.execute(
        "create or replace function hostile.now() returns timestamptz language sql as 'select null::timestamptz'"
    )
    try:
        kpi_db.execute("set search_path = hostile, pg_catalog")
        create(kpi_db, "a", report_back=True)
        send(kpi_db, "a")
        assert jobs.expire(kpi_db, 0) == 1
        assert one(kpi_db, "sent_at is null") == (False,)
    finally:
        kpi_db.execute("drop schema hostile cascade")
