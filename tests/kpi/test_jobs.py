"""What became of each KPI: claimed once, recorded by its owner, reported by n8n, given up in time."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
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
from tests.kpi_data import RUN, TRACE, create, kpi, send

if TYPE_CHECKING:
    from collections.abc import Callable

OTHER = "trace_20250814_150000_00000000"
"""Of another run of the same day."""

LOST = "The task ended between the request and its answer; n8n may have run the workflow."


def statuses(connection: psycopg.Connection) -> dict[str, str]:
    return dict(connection.execute("select kpi_id, status from kpi.job_kpis order by kpi_id").fetchall())


def one(connection: psycopg.Connection, columns: str, id_: str = "a") -> tuple[Any, ...]:
    row = connection.execute(f"select {columns} from kpi.job_kpis where kpi_id = %s", [id_]).fetchone()
    assert row
    return row


def all_at_once(database_url: str, *calls: Callable[[psycopg.Connection], Any]) -> list[Any]:
    """What calls answer that begin together, each on a connection of its own, committed at its end."""
    together = Barrier(len(calls))

    def call(one: Callable[[psycopg.Connection], Any]) -> Any:
        with psycopg.connect(database_url) as connection:
            together.wait()
            return one(connection)

    with ThreadPoolExecutor(len(calls)) as threads:
        return list(threads.map(call, calls))


def waits_for_a_lock(watcher: psycopg.Connection, other: psycopg.Connection) -> bool:
    query = "select from pg_stat_activity where pid = %s and wait_event_type = 'Lock'"
    return watcher.execute(query, [other.info.backend_pid]).fetchone() is not None


class TestRecord:
    def test_is_the_products_json(self, kpi_db) -> None:
        create(kpi_db, "cmc-btc-price")
        (record,) = kpi_db.execute("select record from kpi.job_records").fetchone()
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

    def test_tells_what_became_of_each(self, kpi_db) -> None:
        create(kpi_db, "a", "b", report_back=True)
        jobs.claim(kpi_db, TRACE, "a", "me")
        jobs.record(kpi_db, TRACE, "a", "me", "failed", retry_count=3, error="The requested webhook is not registered.")
        send(kpi_db, "b")
        jobs.report(kpi_db, TRACE, "b", "completed")
        jobs.finalize(kpi_db, TRACE)

        (record,) = kpi_db.execute("select record from kpi.job_records").fetchone()

        assert record["status"] == "partial"
        assert record["metadata"] == {"totalKPIs": 2, "completedKPIs": 1, "failedKPIs": 1, "environment": "development"}
        failed, completed = record["kpis"]["a"], record["kpis"]["b"]
        assert (failed["status"], failed["error"]) == ("failed", "The requested webhook is not registered.")
        assert (failed["retryCount"], completed["retryCount"]) == (3, 0)
        assert (completed["status"], completed["error"]) == ("completed", None)
        assert completed["completedAt"].endswith("Z")

    def test_what_is_strange_is_stored_as_it_is(self, kpi_db) -> None:
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
    def test_again_keeps_what_was_sent_adds_what_is_new_and_takes_out_what_is_gone(self, kpi_db) -> None:
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

    def test_again_what_was_accepted_is_not_awaited_all_of_a_sudden(self, kpi_db) -> None:
        create(kpi_db, "accepted", "failed")
        send(kpi_db, "accepted")
        send(kpi_db, "failed", "failed")
        create(kpi_db, "accepted", "failed", report_back=True)
        assert one(kpi_db, "report_back", "accepted") == (False,)
        assert one(kpi_db, "report_back", "failed") == (True,)

    def test_again_with_nothing_to_send_leaves_the_job_settled(self, kpi_db) -> None:
        create(kpi_db, "a")
        send(kpi_db, "a")
        jobs.finalize(kpi_db, TRACE)
        create(kpi_db, "a")
        assert kpi_db.execute("select settled_at is null, status from kpi.jobs, kpi.job_records").fetchone() == (
            False,
            "triggered",
        )

    def test_trace_id_of_another_run_is_refused(self, kpi_db) -> None:
        create(kpi_db, "a")
        with pytest.raises(psycopg.errors.UniqueViolation):
            jobs.create(kpi_db, TRACE, [kpi("b")], **{**RUN, "run_id": "another"})
        assert statuses(kpi_db) == {"a": "pending"}

    def test_ten_at_once_are_one(self, kpi_db, kpi_database_url) -> None:
        ids = [f"{number}" for number in range(50)]
        for _ in range(5):
            kpi_db.execute("delete from kpi.jobs")
            all_at_once(kpi_database_url, *[lambda connection: create(connection, *ids)] * 10)
            assert statuses(kpi_db) == dict.fromkeys(sorted(ids), "pending")

    def test_empty_registry_is_a_job_that_is_done(self, kpi_db) -> None:
        create(kpi_db)
        summary = jobs.finalize(kpi_db, TRACE)
        assert (summary.status, summary.kpis, summary.problems) == ("completed", {}, [])


class TestClaim:
    def test_what_was_accepted_is_not_sent_again(self, kpi_db) -> None:
        create(kpi_db, "a", report_back=True)
        send(kpi_db, "a")
        assert jobs.claim(kpi_db, TRACE, "a", "other") is Claim.ACCEPTED
        jobs.report(kpi_db, TRACE, "a", "completed")
        assert jobs.claim(kpi_db, TRACE, "a", "other") is Claim.ACCEPTED
        assert one(kpi_db, "owner, status") == ("me", "completed")

    def test_what_failed_is_sent_again(self, kpi_db) -> None:
        create(kpi_db, "a")
        send(kpi_db, "a", "failed")
        assert jobs.claim(kpi_db, TRACE, "a", "other") is Claim.CLAIMED
        jobs.record(kpi_db, TRACE, "a", "other", "triggered", retry_count=2)
        assert one(kpi_db, "status, error, retry_count, completed_at") == ("triggered", None, 3, None)

    def test_owner_that_was_killed_leaves_unknown_and_no_second_request(self, kpi_db) -> None:
        create(kpi_db, "a")
        jobs.claim(kpi_db, TRACE, "a", "killed")
        assert jobs.claim(kpi_db, TRACE, "a", "next try") is Claim.UNKNOWN
        assert jobs.claim(kpi_db, TRACE, "a", "the one after it") is Claim.UNKNOWN
        assert one(kpi_db, "status, error") == ("unknown", LOST)

    def test_owner_that_was_thought_dead_may_say_what_came_of_it(self, kpi_db) -> None:
        create(kpi_db, "a")
        jobs.claim(kpi_db, TRACE, "a", "slow")
        jobs.claim(kpi_db, TRACE, "a", "next try")
        assert jobs.record(kpi_db, TRACE, "a", "next try", "failed") is Status.UNKNOWN
        assert jobs.record(kpi_db, TRACE, "a", "slow", "triggered") is Status.TRIGGERED
        assert one(kpi_db, "status, error") == ("triggered", None)

    @pytest.mark.parametrize("state", ["triggered", "unknown", "completed", "timeout", "failed", "pending"])
    def test_first_request_to_resend_sends_whatever_the_outcome_was(self, kpi_db, state: str) -> None:
        create(kpi_db, "a", report_back=True)
        if state != "pending":
            send(kpi_db, "a", state if state in {"failed", "unknown"} else "triggered")
        if state == "completed":
            jobs.report(kpi_db, TRACE, "a", "completed")
        if state == "timeout":
            jobs.expire(kpi_db, 0)
        assert statuses(kpi_db) == {"a": state}
        assert jobs.claim(kpi_db, TRACE, "a", "other", resend=True) is Claim.CLAIMED
        assert one(kpi_db, "status, owner, error, completed_at") == ("sending", "other", None, None)

    @pytest.mark.parametrize("state", ["unknown", "triggered", "completed", "timeout"])
    def test_second_request_to_resend_sends_nothing(self, kpi_db, state: str) -> None:
        create(kpi_db, "a", report_back=True)
        assert jobs.claim(kpi_db, TRACE, "a", "me", retry_group="1", resend=True) is Claim.CLAIMED
        jobs.record(kpi_db, TRACE, "a", "me", "unknown" if state == "unknown" else "triggered")
        if state == "completed":
            jobs.report(kpi_db, TRACE, "a", "completed")
        if state == "timeout":
            jobs.expire(kpi_db, 0)
        expected = Claim.UNKNOWN if state == "unknown" else Claim.ACCEPTED
        assert jobs.claim(kpi_db, TRACE, "a", "after a clear", retry_group="2", resend=True) is expected
        assert statuses(kpi_db) == {"a": state}

    def test_owner_that_was_killed_in_a_run_with_resend_leaves_unknown_for_good(self, kpi_db) -> None:
        create(kpi_db, "a", "b")
        assert jobs.claim(kpi_db, TRACE, "a", "killed", resend=True) is Claim.CLAIMED
        assert jobs.claim(kpi_db, TRACE, "b", "killed") is Claim.CLAIMED
        for number, id_ in product(range(3), "ab"):
            claim = jobs.claim(kpi_db, TRACE, id_, "next", retry_group=f"{number}", resend=True)
            assert claim is Claim.UNKNOWN

    def test_retries_share_an_idempotency_key_and_a_clear_has_a_new_one(self, kpi_db) -> None:
        create(kpi_db, "a")
        keys = []
        for retry_group in ("7/2", "7/2", "7/5", "3/5"):
            claim = jobs.claim(kpi_db, TRACE, "a", "me", retry_group=retry_group)
            assert claim is Claim.CLAIMED
            keys.append(jobs.idempotency_key(kpi_db, TRACE, "a"))
            jobs.record(kpi_db, TRACE, "a", "me", "failed")
        assert keys == [f"{TRACE}/a", f"{TRACE}/a", f"{TRACE}.2/a", f"{TRACE}.3/a"]

    @pytest.mark.parametrize("own", ["pending", "failed"])
    @pytest.mark.parametrize("others", ["sending", "triggered", "unknown", "completed", "timeout"])
    def test_what_another_run_of_the_day_has_sent_is_none_of_this_jobs(self, kpi_db, own: str, others: str) -> None:
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

    @pytest.mark.parametrize("others", ["pending", "failed"])
    def test_what_another_run_of_the_day_has_not_sent_is_sent(self, kpi_db, others: str) -> None:
        create(kpi_db, "a", "b", trace_id=OTHER)
        create(kpi_db, "a")
        kpi_db.execute("update kpi.job_kpis set status = 'sending' where kpi_id = 'b'")
        for status in PATHS[others]:
            kpi_db.execute("update kpi.job_kpis set status = %s where trace_id = %s", [status, OTHER])
        assert jobs.claim(kpi_db, TRACE, "a", "me") is Claim.CLAIMED

    def test_what_a_run_of_another_day_has_sent_is_sent(self, kpi_db) -> None:
        create(kpi_db, "a")
        send(kpi_db, "a")
        tomorrow = TRACE.replace("20250814", "20250815")
        create(kpi_db, "a", trace_id=tomorrow)
        assert jobs.claim(kpi_db, tomorrow, "a", "me") is Claim.CLAIMED

    def test_what_both_runs_have_sent_stays_in_both(self, kpi_db) -> None:
        for trace_id in (OTHER, TRACE):
            create(kpi_db, "a", trace_id=trace_id)
            assert jobs.claim(kpi_db, trace_id, "a", "me", resend=True) is Claim.CLAIMED
            jobs.record(kpi_db, trace_id, "a", "me", "triggered")
        assert jobs.claim(kpi_db, TRACE, "a", "nobody asks") is Claim.ACCEPTED
        assert jobs.finalize(kpi_db, TRACE).kpis == {"triggered": 1}

    @pytest.mark.parametrize(("trace_id", "kpi_id"), [(TRACE, "b"), ("trace_20250814_120000_00000000", "a")])
    def test_what_is_not_there_is_a_hard_error(self, kpi_db, trace_id: str, kpi_id: str) -> None:
        create(kpi_db, "a")
        with pytest.raises(PermanentError, match="Clear the run"):
            jobs.claim(kpi_db, trace_id, kpi_id, "me")
        with pytest.raises(PermanentError, match="Clear the run"):
            jobs.record(kpi_db, trace_id, kpi_id, "me", "triggered")
        with pytest.raises(PermanentError, match="clear the run"):
            jobs.finalize(kpi_db, "trace_20250814_120000_00000000")

    @pytest.mark.slow
    @pytest.mark.parametrize("resend", [False, True])
    def test_twenty_owners_at_once_send_one_request(self, kpi_db, kpi_database_url, resend: bool) -> None:
        for round_ in range(5):
            id_ = f"kpi {round_}"
            create(kpi_db, *[f"kpi {number}" for number in range(round_ + 1)])

            def claim(number: int, id_: str = id_) -> Callable[[psycopg.Connection], Claim]:
                return lambda connection: jobs.claim(connection, TRACE, id_, f"owner {number}", resend=resend)

            claims = all_at_once(kpi_database_url, *map(claim, range(20)))

            assert sorted(claims) == [Claim.CLAIMED, *[Claim.UNKNOWN] * 19]
            winner = f"owner {claims.index(Claim.CLAIMED)}"
            assert jobs.record(kpi_db, TRACE, id_, winner, "triggered") is Status.TRIGGERED

    @pytest.mark.slow
    def test_of_twenty_runs_of_a_day_at_once_one_sends(self, kpi_db, kpi_database_url) -> None:
        traces = [f"{TRACE[:-8]}{number:08}" for number in range(20)]
        for trace_id in traces:
            create(kpi_db, *"abcde", trace_id=trace_id)
        for id_ in "abcde":

            def claim(trace_id: str, id_: str = id_) -> Callable[[psycopg.Connection], Claim]:
                return lambda connection: jobs.claim(connection, trace_id, id_, "me")

            claims = all_at_once(kpi_database_url, *map(claim, traces))

            assert sorted(claims) == [Claim.CLAIMED, *[Claim.SENT_BY_ANOTHER_RUN] * 19]
        assert kpi_db.execute("select count(*) from kpi.job_kpis").fetchone() == (5,)

    def test_second_run_that_claims_meanwhile_waits_for_the_first(self, kpi_db, kpi_database_url) -> None:
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
    def test_late_owner_does_not_overrule_a_later_one(self, kpi_db) -> None:
        create(kpi_db, "a")
        send(kpi_db, "a", "failed", "first")
        jobs.claim(kpi_db, TRACE, "a", "second")
        assert jobs.record(kpi_db, TRACE, "a", "first", "triggered") is Status.SENDING
        assert jobs.record(kpi_db, TRACE, "a", "second", "failed", error="x\0" * 3000) is Status.FAILED
        assert one(kpi_db, "error") == ("x" * 2000,)


class TestReport:
    def test_before_the_outcome_is_recorded(self, kpi_db) -> None:
        create(kpi_db, "a", report_back=True)
        jobs.claim(kpi_db, TRACE, "a", "me")
        assert jobs.report(kpi_db, TRACE, "a", "failed", "No coin") == (Report.REPORTED, Status.FAILED)
        assert jobs.record(kpi_db, TRACE, "a", "me", "triggered") is Status.FAILED
        assert one(kpi_db, "status, error") == ("failed", "No coin")

    def test_of_one_that_does_not_have_to(self, kpi_db) -> None:
        create(kpi_db, "a", "b")
        send(kpi_db, "a")
        send(kpi_db, "b")
        assert jobs.finalize(kpi_db, TRACE).status == "triggered"
        jobs.report(kpi_db, TRACE, "a", "failed", "No coin")
        assert jobs.summary(kpi_db, TRACE).status == "partial"

    @pytest.mark.slow
    def test_a_hundred_at_once_while_the_job_is_settled(self, kpi_db, kpi_database_url) -> None:
        ids = [f"{number:03}" for number in range(40)]
        create(kpi_db, *ids, report_back=True)
        for id_ in ids:
            jobs.claim(kpi_db, TRACE, id_, "me")
            jobs.record(kpi_db, TRACE, id_, "me", "triggered")

        def report(id_: str) -> Callable[[psycopg.Connection], Any]:
            return lambda connection: jobs.report(connection, TRACE, id_, "completed")

        answers = all_at_once(
            kpi_database_url,
            *[report(id_) for id_ in ids for _ in range(2)],
            *[lambda connection: jobs.finalize(connection, TRACE)] * 10,
            *[lambda connection: jobs.expire(connection, 30)] * 10,
        )

        reports = [what for what, _ in answers[:80]]
        assert sorted(reports) == [Report.REPEATED] * 40 + [Report.REPORTED] * 40
        assert jobs.summary(kpi_db, TRACE) == jobs.Summary(TRACE, "completed", {"completed": 40}, [])


class TestExpire:
    @pytest.fixture
    def sent(self, kpi_db) -> psycopg.Connection:
        """Sent 31 minutes ago: whose report is awaited, whose is not, whose sender is gone; and one just now."""
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

    def test_gives_up_on_what_is_overdue(self, sent) -> None:
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

    def test_report_that_comes_later_is_refused(self, sent) -> None:
        jobs.expire(sent, 30)
        assert jobs.report(sent, TRACE, "awaited", "completed") == (Report.REFUSED, Status.TIMEOUT)


def test_prune_keeps_what_is_young(kpi_db) -> None:
    for suffix in ("00000000", "11111111"):
        create(kpi_db, "a", trace_id=TRACE[:-8] + suffix)
    kpi_db.execute("update kpi.jobs set created_at = now() - interval '91 days' where trace_id like '%0'")
    assert jobs.prune(kpi_db, 92) == 0
    assert jobs.prune(kpi_db, 90) == 1
    assert kpi_db.execute("select trace_id from kpi.job_kpis").fetchall() == [(f"{TRACE[:-8]}11111111",)]


def test_settle_says_what_became_of_senders_that_are_gone(kpi_db) -> None:
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
    def test_refuses_every_transition_that_it_does_not_have_whoever_writes(self, kpi_db) -> None:
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
                with pytest.raises(psycopg.errors.CheckViolation, match=f"that is {before} cannot become {after}"):
                    kpi_db.execute(update, [after, id_])

    def test_a_kpi_begins_as_pending(self, kpi_db) -> None:
        create(kpi_db)
        insert = (
            "insert into kpi.job_kpis (trace_id, kpi_id, name, type, report_back, metadata, status) "
            "values (%s, 'a', 'a', 'a', false, '{}', %s)"
        )
        for status in set(Status) - {Status.PENDING}:
            with pytest.raises(psycopg.errors.CheckViolation, match="begins as pending"):
                kpi_db.execute(insert, [TRACE, status])

    def test_an_owner_cannot_be_replaced_while_it_sends(self, kpi_db) -> None:
        create(kpi_db, "a")
        jobs.claim(kpi_db, TRACE, "a", "me")
        with pytest.raises(psycopg.errors.CheckViolation, match="cannot change its owner"):
            kpi_db.execute("update kpi.job_kpis set owner = 'thief'")


def expected_status(kpis: list[tuple[str, bool]]) -> str:
    """The status of a settled job by the words of the specification, from each KPI's own and whether it reports."""
    went_well = [status for status, _ in kpis if status in {"completed", "triggered"}]
    open_ = [status for status, reports in kpis if reports and status in {"triggered", "unknown"}]
    bad = [
        status
        for status, reports in kpis
        if status in {"failed", "timeout", "pending"} or (status, reports) == ("unknown", False)
    ]
    if bad:
        if went_well or any(status == "unknown" for status, _ in kpis):
            return "partial"
        return "timeout" if "timeout" in bad else "failed"
    if open_:
        return "triggered"
    return "completed" if not kpis or "completed" in went_well else "triggered"


SETTLED = sorted(set(Status) - {Status.SENDING})


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kpis=st.lists(st.tuples(st.sampled_from(SETTLED), st.booleans()), max_size=4))
def test_status_of_a_job_follows_from_its_kpis(kpi_db, kpis: list[tuple[str, bool]]) -> None:
    kpi_db.execute("delete from kpi.jobs")
    jobs.create(kpi_db, TRACE, [kpi(str(place), report_back=reports) for place, (_, reports) in enumerate(kpis)], **RUN)
    for place, (status, _) in enumerate(kpis):
        for step in PATHS[status]:
            kpi_db.execute("update kpi.job_kpis set status = %s where kpi_id = %s", [step, str(place)])
    assert jobs.finalize(kpi_db, TRACE).status == expected_status(kpis)


def test_nobody_else_may_call_the_functions(kpi_db) -> None:
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


def test_a_function_is_safe_under_a_hostile_search_path(kpi_db) -> None:
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
