"""Stores of the daily warm-up counters: PostgreSQL, and S3 or R2 (spec: analytics suite, warmup reset)."""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from more_itertools import chunked, partition

from aggregator.core import connections
from aggregator.core.errors import PermanentError, TransientError, is_transient_http_status
from aggregator.core.paths import SQL

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
    from contextlib import AbstractContextManager
    from datetime import datetime

    import psycopg
    from psycopg.rows import TupleRow

PREFIX = "warmup/daily/"
"""Prefix of a counter's object key; ``{organization_id}/{domain}`` follows."""

KEYS_PER_REQUEST = 1000
"""Limit of S3's DeleteObjects."""

LAST_WRITE = timedelta(minutes=5)
"""An object stores no day. An object last written at most this long after midnight belongs to the day that ended."""

TRANSIENT_CODES = frozenset({"InternalError", "RequestTimeout", "ServiceUnavailable", "SlowDown"})
"""S3 error codes of a key after which the same request may succeed later."""


class WarmingDomain(NamedTuple):
    """A sending domain that warms up. The organization typed its name, which may contain any character."""

    organization_id: str
    domain: str


@dataclass(frozen=True)
class ResetReport:
    """Counts of a reset.

    Attributes:
        reset: Number of removed counters.
        kept: Number of counters of later days, which stay.
        failed: Error code of the store, or HTTP status if there is no code → number of counters that it did not remove.
    """

    reset: int = 0
    kept: int = 0
    failed: Mapping[str, int] = field(default_factory=dict)

    @property
    def is_transient(self) -> bool:
        """Whether a retry may remove some of the failed counters."""
        return any(
            code in TRANSIENT_CODES or (code.isdecimal() and is_transient_http_status(int(code)))
            for code in self.failed
        )


class WarmupCounterStore(Protocol):
    """A store of counters."""

    def reset_daily_counters(self, domains: Collection[WarmingDomain], before: datetime) -> ResetReport:
        """Remove the counters of these domains for days that end at or before a time. A domain needs no counter.

        Raises:
            TransientError: The store could not be reached or was busy. A retry removes the remaining counters.
            PermanentError: The store refused the whole request.
        """
        ...


@dataclass(frozen=True)
class PostgresCounterStore:
    """Counters in ``delivery.warmup_counters``. One transaction resets all of them."""

    transaction: Callable[[], AbstractContextManager[psycopg.Cursor[TupleRow]]]

    def reset_daily_counters(self, domains: Collection[WarmingDomain], before: datetime) -> ResetReport:
        """See :meth:`WarmupCounterStore.reset_daily_counters`."""
        organization_ids, names = [one.organization_id for one in domains], [one.domain for one in domains]
        parameters = {"organization_ids": organization_ids, "domains": names, "before": before}
        statement = (SQL / "warmup/queries/reset_warmup_counters.sql").read_text()
        with self.transaction() as cursor:
            return ResetReport(*cursor.execute(statement, parameters).fetchone() or ())


@dataclass(frozen=True)
class S3CounterStore:
    """Counters as objects ``warmup/daily/{organization_id}/{domain}`` in a bucket with the S3 API, such as R2.

    Attributes:
        conn_id: Airflow connection of type Amazon Web Services. ``service_config.s3.bucket_name`` in its extra is the
            name of the bucket.
    """

    conn_id: str = "warmup_r2"

    def reset_daily_counters(self, domains: Collection[WarmingDomain], before: datetime) -> ResetReport:
        """See :meth:`WarmupCounterStore.reset_daily_counters`. A refused key does not stop the others."""
        with self._bucket() as (client, bucket):
            wanted = {f"{PREFIX}{domain.organization_id}/{domain.domain}" for domain in domains}
            pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=PREFIX)
            found = (counter for page in pages for counter in page.get("Contents", ()) if counter["Key"] in wanted)
            later, over = partition(lambda counter: counter["LastModified"] < before + LAST_WRITE, found)
            keys = [counter["Key"] for counter in over]
            failed = _delete(client, bucket, keys)
        return ResetReport(len(keys) - failed.total(), sum(1 for _ in later), failed)

    def refused(self) -> str | None:
        """The error code for deleting a counter that does not exist; None if the access key has all rights.

        Raises:
            TransientError: The bucket could not be reached or was busy.
            PermanentError: The bucket refused to list its counters, or the connection is incomplete.
        """
        with self._bucket() as (client, bucket):
            client.list_objects_v2(Bucket=bucket, Prefix=PREFIX, MaxKeys=1)
            return next(iter(_delete(client, bucket, [f"{PREFIX}no-organization/no-domain"])), None)

    @contextmanager
    def _bucket(self) -> Iterator[tuple[Any, str]]:
        """Yield the client of the bucket and its name, and convert the errors of requests."""
        # These imports take a second, and only deployments with R2 need them.
        from airflow.providers.amazon.aws.hooks.s3 import S3Hook  # noqa: PLC0415
        from airflow.providers.amazon.aws.utils.connection_wrapper import AwsConnectionWrapper  # noqa: PLC0415
        from botocore.exceptions import BotoCoreError, ClientError, ConnectionError, HTTPClientError  # noqa: A004, PLC0415

        hook = S3Hook(aws_conn_id=self.conn_id)
        # By itself, S3Hook treats an unreadable connection as an empty one.
        hook.conn_config = AwsConnectionWrapper(conn=connections.get(self.conn_id))
        bucket = hook.service_config.get("bucket_name")
        if not bucket:
            raise PermanentError(
                f"Connection {self.conn_id} names no bucket. Nothing was reset. Add this to its extra: "
                '{"service_config": {"s3": {"bucket_name": …}}}'
            )
        try:
            yield hook.get_conn(), bucket
        except ClientError as error:
            code, status = error.response["Error"]["Code"], error.response["ResponseMetadata"]["HTTPStatusCode"]
            raise (TransientError if is_transient_http_status(status) else PermanentError)(
                f"The bucket of connection {self.conn_id} refused to list its counters: {status} {code}. Nothing was "
                "reset. Check the name of the bucket and the rights of the access key (list and delete objects)."
            ) from None
        except BotoCoreError as error:
            msg = (
                f"The request to the bucket of connection {self.conn_id} failed ({type(error).__name__}). Some "
                "counters may be reset, and a retry resets the others. Check the endpoint and the credentials."
            )
            lost = isinstance(error, (ConnectionError, HTTPClientError))
            raise (TransientError if lost else PermanentError)(msg) from None


def _delete(client: Any, bucket: str, keys: Iterable[str]) -> Counter[str]:
    """Delete objects and count the failures by code."""
    from botocore.exceptions import ClientError  # noqa: PLC0415

    failed: Counter[str] = Counter()

    def attempt(size: int, delete: Callable[..., Any], **arguments: Any) -> None:
        try:
            failed.update(error["Code"] for error in delete(Bucket=bucket, **arguments).get("Errors", ()))
        except ClientError as error:
            failed[error.response["Error"]["Code"]] += size

    # A batch is XML, which cannot contain control characters. The key of a single object is in the URL.
    unprintable, printable = partition(str.isprintable, keys)
    for batch in chunked(printable, KEYS_PER_REQUEST):
        objects = {"Objects": [{"Key": key} for key in batch], "Quiet": True}
        attempt(len(batch), client.delete_objects, Delete=objects)
    for key in unprintable:
        attempt(1, client.delete_object, Key=key)
    return failed
