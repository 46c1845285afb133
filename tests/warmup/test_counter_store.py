"""Both stores on real servers: PostgreSQL, and S3 (moto over HTTP)."""

from __future__ import annotations

import json
import socket
from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.s3.models import s3_backends
from moto.server import ThreadedMotoServer

from aggregator.core.errors import PermanentError, TransientError
from aggregator.doctor import services
from aggregator.postgres.hook import PostgresTransactionHook
from aggregator.warmup.counter_store import (
    PREFIX,
    PostgresCounterStore,
    ResetReport,
    S3CounterStore,
    WarmingDomain,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import psycopg

ORGANIZATION = "6f1c2f0e-0000-4000-8000-000000000001"
OTHER = "6f1c2f0e-0000-4000-8000-000000000002"
MIDNIGHT = datetime(2026, 11, 16, tzinfo=UTC)
HOSTILE = [
    "a/../b",
    "/",
    "..",
    "a//b",
    "bücher.example",
    "例え.テスト",
    "🦊",
    "a b+c%20&<x>",
    "line\rend",
    "\x01",
    "'",
]
SECRET = "secret-that-must-not-show"


def domains(*names: str, organization: str = ORGANIZATION) -> list[WarmingDomain]:
    return [WarmingDomain(organization, name) for name in names]


class TestPostgres:
    @pytest.fixture
    def store(self, migrated: Callable[..., psycopg.Connection]) -> PostgresCounterStore:
        migrated("analytics")
        return PostgresCounterStore(partial(PostgresTransactionHook("analytics_db").transaction, timeout=None))

    @staticmethod
    def count(connection: psycopg.Connection, *counters: tuple[str, str, date]) -> None:
        insert = "insert into delivery.warmup_counters values (%s, %s, %s, 7)"
        connection.cursor().executemany(insert, counters)

    @staticmethod
    def counted(connection: psycopg.Connection) -> set[tuple[str, str, date]]:
        rows = connection.execute("select organization_id::text, domain, day from delivery.warmup_counters")
        return set(rows.fetchall())

    def test_counters_of_past_days_are_reset_and_others_stay(
        self, store: PostgresCounterStore, connection: psycopg.Connection
    ) -> None:
        over, today = date(2026, 11, 15), date(2026, 11, 16)
        kept = {
            (ORGANIZATION, "busy", today),
            (ORGANIZATION, "ahead", today + timedelta(days=1)),
            (ORGANIZATION, "warm already", over),
            (OTHER, "busy", over),
        }
        gone = [(ORGANIZATION, "busy", over), (ORGANIZATION, "missed before", over - timedelta(days=3))]
        self.count(connection, *kept, *gone)
        asked = domains("busy", "ahead", "missed before", "never counted")

        assert store.reset_daily_counters(asked, MIDNIGHT) == ResetReport(reset=2, kept=2)
        assert self.counted(connection) == kept
        assert store.reset_daily_counters(asked, MIDNIGHT) == ResetReport(reset=0, kept=2)

    @settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        counted=st.sets(
            st.tuples(
                st.sampled_from([ORGANIZATION, OTHER]),
                st.sampled_from("abc"),
                st.dates(date(2026, 11, 14), date(2026, 11, 17)),
            )
        ),
        asked=st.sets(st.tuples(st.sampled_from([ORGANIZATION, OTHER]), st.sampled_from("abcd"))),
    )
    def test_any_counters_equal_a_model(
        self,
        store: PostgresCounterStore,
        connection: psycopg.Connection,
        counted: set[tuple[str, str, date]],
        asked: set[tuple[str, str]],
    ) -> None:
        connection.execute("truncate delivery.warmup_counters")
        self.count(connection, *counted)

        report = store.reset_daily_counters([WarmingDomain(*key) for key in asked], MIDNIGHT)

        theirs = {counter for counter in counted if counter[:2] in asked}
        over = {counter for counter in theirs if counter[2] < MIDNIGHT.date()}
        assert report == ResetReport(len(over), len(theirs - over))
        assert self.counted(connection) == counted - over

    def test_hostile_names_are_values_not_sql(
        self, store: PostgresCounterStore, connection: psycopg.Connection
    ) -> None:
        names = [*HOSTILE, "new\nline", "'; drop table delivery.warmup_counters; --", "%(before)s", "{a,b}", "x" * 2000]
        self.count(connection, *((ORGANIZATION, name, date(2026, 11, 15)) for name in names))
        assert store.reset_daily_counters(domains(*names), MIDNIGHT).reset == len(names)
        assert self.counted(connection) == set()

    def test_ten_thousand_domains_are_reset(self, store: PostgresCounterStore, connection: psycopg.Connection) -> None:
        connection.execute(
            "insert into delivery.warmup_counters select %s, n::text, '2026-11-15', n from generate_series(1, 10000) n",
            [ORGANIZATION],
        )
        assert store.reset_daily_counters(domains(*map(str, range(1, 10001))), MIDNIGHT).reset == 10000

    def test_no_domains_reset_nothing(self, store: PostgresCounterStore) -> None:
        assert store.reset_daily_counters([], MIDNIGHT) == ResetReport()


def key_of(domain: WarmingDomain) -> str:
    return f"{PREFIX}{domain.organization_id}/{domain.domain}"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """URL of an S3 server."""
    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.mark.slow  # the server and boto3 take seconds to import
class TestS3:
    over = datetime.now(UTC) + timedelta(days=1)
    """End of a day in which all test objects were written."""

    long_ago = datetime.now(UTC) - timedelta(days=1)
    """End of a day after which all test objects were written."""

    @pytest.fixture
    def bucket(self, url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
        """A bucket on the server, with its connection."""
        backend = s3_backends[DEFAULT_ACCOUNT_ID]["aws"]
        backend.create_bucket("counters", "us-east-1")
        connect(monkeypatch, url)
        yield "counters"
        backend.reset()

    @staticmethod
    def put(bucket: str, *keys: str) -> None:
        for key in keys:
            s3_backends[DEFAULT_ACCOUNT_ID]["aws"].put_object(bucket, key, b"7")

    @staticmethod
    def keys(bucket: str) -> set[str]:
        return {key for key, _ in s3_backends[DEFAULT_ACCOUNT_ID]["aws"].get_bucket(bucket).keys.items()}

    @staticmethod
    def refuse(bucket: str, *keys: str) -> None:
        resources = [f"arn:aws:s3:::{bucket}/{key}" for key in keys]
        denied = {"Effect": "Deny", "Principal": "*", "Action": "s3:DeleteObject", "Resource": resources}
        policy = json.dumps({"Version": "2012-10-17", "Statement": [denied]})
        s3_backends[DEFAULT_ACCOUNT_ID]["aws"].put_bucket_policy(bucket, policy.encode())

    def test_counters_of_given_domains_are_reset_and_others_stay(self, bucket: str) -> None:
        asked = domains("a.example", "b.example", "never.counted")
        others = {key_of(*domains("warm.already")), key_of(*domains("a.example", organization=OTHER)), "backup/x"}
        self.put(bucket, *map(key_of, asked[:2]), *others)

        assert S3CounterStore().reset_daily_counters(asked, self.over) == ResetReport(reset=2)
        assert self.keys(bucket) == others
        assert S3CounterStore().reset_daily_counters(asked, self.over) == ResetReport()

    def test_counter_written_after_the_day_is_kept(self, bucket: str) -> None:
        asked = domains("busy.example")
        self.put(bucket, *map(key_of, asked))
        assert S3CounterStore().reset_daily_counters(asked, self.long_ago) == ResetReport(kept=1)
        assert self.keys(bucket) == {key_of(*asked)}

    def test_counter_written_just_after_midnight_is_reset(self, bucket: str) -> None:
        asked = domains("busy.example")
        self.put(bucket, *map(key_of, asked))
        assert S3CounterStore().reset_daily_counters(asked, datetime.now(UTC) - timedelta(minutes=2)).reset == 1

    def test_hostile_names_are_exact_keys(self, bucket: str) -> None:
        asked = domains(*HOSTILE)
        self.put(bucket, *map(key_of, asked), f"{PREFIX}b")
        assert S3CounterStore().reset_daily_counters(asked, self.over) == ResetReport(reset=len(HOSTILE))
        assert self.keys(bucket) == {f"{PREFIX}b"}

    def test_ten_thousand_domains_need_ten_requests(self, bucket: str, caplog: pytest.LogCaptureFixture) -> None:
        asked = domains(*(f"{number}.example" for number in range(10_000)))
        self.put(bucket, *map(key_of, asked))

        assert S3CounterStore().reset_daily_counters(asked, self.over) == ResetReport(reset=10_000)

        assert self.keys(bucket) == set()
        requests = [record.getMessage() for record in caplog.records if "POST /counters?delete" in record.getMessage()]
        assert len(requests) == 10
        assert "5000.example" not in "".join(record.getMessage() for record in caplog.records if record.levelno > 10)

    def test_refused_counters_are_counted_and_others_are_reset(self, bucket: str) -> None:
        asked = domains(*(f"{number}.example" for number in range(1_200)))
        refused = {key_of(asked[number]) for number in (0, 999, 1000, 1199)}
        self.put(bucket, *map(key_of, asked))
        self.refuse(bucket, *refused)

        report = S3CounterStore().reset_daily_counters(asked, self.over)

        assert report == ResetReport(reset=1_196, failed={"AccessDenied": 4})
        assert self.keys(bucket) == refused
        self.refuse(bucket, "no such key")
        assert S3CounterStore().reset_daily_counters(asked, self.over) == ResetReport(reset=4)

    def test_check_of_rights_deletes_no_counter(self, bucket: str) -> None:
        key = key_of(*domains("a.example"))
        self.put(bucket, key)
        assert S3CounterStore().refused() is None
        self.refuse(bucket, f"{PREFIX}*")
        assert S3CounterStore().refused() == "AccessDenied"
        assert self.keys(bucket) == {key}

    def test_doctor_reports_a_missing_right(self, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("WARMUP_COUNTER_STORE", "r2")
        self.refuse(bucket, f"{PREFIX}*")
        (row,) = services.r2()
        assert (row.status, row.found) == ("failure", "may list objects, but not delete them: AccessDenied")

    def test_refused_unprintable_name_is_counted(self, bucket: str) -> None:
        asked = domains("\x01", "fine.example")
        self.put(bucket, *map(key_of, asked))
        self.refuse(bucket, f"{PREFIX}*")
        assert S3CounterStore().reset_daily_counters(asked, self.over) == ResetReport(
            failed={"AccessDenied": 1, "403": 1}
        )

    def test_blanks_around_the_access_key_are_removed(
        self, bucket: str, url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        connect(monkeypatch, url, login=" id\n", password=f"{SECRET}\n")
        self.put(bucket, key_of(*domains("a.example")))
        assert S3CounterStore().reset_daily_counters(domains("a.example"), self.over) == ResetReport(reset=1)

    def test_missing_bucket_is_a_permanent_error(self, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        connect(monkeypatch, url, bucket="nowhere")
        with pytest.raises(PermanentError, match="warmup_r2 refused to list its counters: 404 NoSuchBucket"):
            S3CounterStore().reset_daily_counters(domains("a.example"), self.over)

    def test_connection_without_a_bucket_names_the_missing_extra(self, monkeypatch: pytest.MonkeyPatch) -> None:
        connect(monkeypatch, "http://127.0.0.1:1", bucket=None)
        with pytest.raises(PermanentError, match=r"warmup_r2 names no bucket. Nothing was reset. Add .*bucket_name"):
            S3CounterStore().reset_daily_counters(domains("a.example"), self.over)

    def test_unreachable_secrets_backend_is_a_transient_error(
        self, no_metadata_database: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("AIRFLOW_CONN_WARMUP_R2", raising=False)
        with pytest.raises(TransientError, match="MetastoreBackend failed"):
            S3CounterStore().reset_daily_counters(domains("a.example"), self.over)

    def test_unreachable_server_is_a_transient_error_without_secrets(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        connect(monkeypatch, f"http://127.0.0.1:{port}")
        with pytest.raises(TransientError, match=r"The request to .* failed \(EndpointConnectionError\)") as caught:
            S3CounterStore().reset_daily_counters(domains("a.example"), self.over)
        assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("failed", "transient"),
    [
        ({}, False),
        ({"AccessDenied": 2}, False),
        ({"SlowDown": 1}, True),
        ({"AccessDenied": 2, "InternalError": 1}, True),
    ],
)
def test_failure_is_transient_if_any_code_is(failed: dict[str, int], transient: bool) -> None:
    assert ResetReport(failed=failed).is_transient is transient


def connect(
    monkeypatch: pytest.MonkeyPatch,
    url: str,
    bucket: str | None = "counters",
    *,
    login: str = "id",
    password: str = SECRET,
) -> None:
    extra: dict[str, Any] = {
        "endpoint_url": url,
        "region_name": "us-east-1",
        "config_kwargs": {"retries": {"max_attempts": 1}},
    }
    if bucket:
        extra["service_config"] = {"s3": {"bucket_name": bucket}}
    connection = {"conn_type": "aws", "login": login, "password": password, "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_WARMUP_R2", json.dumps(connection))
