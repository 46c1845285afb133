"""The daily counters of domains that warm up, wherever the product keeps them (spec: analytics suite, warmup reset)."""

from __future__ import annotations

from collections import Counter
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
"""Of the counters' objects; ``{organization_id}/{domain}`` follows."""

KEYS_A_REQUEST = 1000
"""The most that S3's DeleteObjects takes."""

LAST_WRITE = timedelta(minutes=5)
"""An object has no day. One last written up to this long after midnight still holds the day that ended."""

TRANSIENT_CODES = frozenset({"InternalError", "RequestTimeout", "ServiceUnavailable", "SlowDown"})
"""S3's codes for a key after which the same request may succeed later."""


class WarmingDomain(NamedTuple):
    """A sending domain that warms up. Its name is whatever an organisation typed.

    Attributes:
        organization_id: The organisation's UUID, as text.
        domain: The domain's name.
    """

    organization_id: str
    domain: str


@dataclass(frozen=True)
class ResetReport:
    """What a reset did.

    Attributes:
        reset: Counters of days that are over, removed.
        kept: Counters that were left alone because they count for a later day.
        failed: How many could not be removed, by the store's code of the error, or the HTTP status where it gave none.
    """

    reset: int = 0
    kept: int = 0
    failed: Mapping[str, int] = field(default_factory=dict)

    @property
    def is_transient(self) -> bool:
        """Whether another try may remove some of those that failed."""
        return any(
            code in TRANSIENT_CODES or (code.isdecimal() and is_transient_http_status(int(code)))
            for code in self.failed
        )


class WarmupCounterStore(Protocol):
    """Where the counters are."""

    def reset_daily_counters(self, domains: Collection[WarmingDomain], before: datetime) -> ResetReport:
        """Remove the counters of days that are over. A domain without a counter is fine.

        Args:
            domains: Whose counters.
            before: The end of the last day that is over.

        Returns:
            How many were removed, kept, and could not be removed.

        Raises:
            TransientError: The store could not be reached or was busy; another try goes on where this one ended.
            PermanentError: The store refused the whole request.
        """
        ...


class PostgresCounterStore:
    """Counters in ``delivery.warmup_counters``, all of them reset or none.

    Args:
        transaction: Opens the transaction to work in.
    """

    def __init__(self, transaction: Callable[[], AbstractContextManager[psycopg.Cursor[TupleRow]]]) -> None:
        self._transaction = transaction

    def reset_daily_counters(self, domains: Collection[WarmingDomain], before: datetime) -> ResetReport:
        """As :meth:`WarmupCounterStore.reset_daily_counters`."""
        parameters = {
            "organization_ids": [domain.organization_id for domain in domains],
            "domains": [domain.domain for domain in domains],
            "before": before,
        }
        statement = (SQL / "warmup/queries/reset_warmup_counters.sql").read_text()
        with self._transaction() as cursor:
            return ResetReport(*cursor.execute(statement, parameters).fetchone() or ())


class S3CounterStore:
    """Counters as objects ``warmup/daily/{organization_id}/{domain}`` of a bucket with S3's API, such as R2.

    Args:
        conn_id: Airflow connection of type Amazon Web Services; ``service_config.s3.bucket_name`` in its extra names
            the bucket.
    """

    def __init__(self, conn_id: str = "warmup_r2") -> None:
        self._conn_id = conn_id

    def reset_daily_counters(self, domains: Collection[WarmingDomain], before: datetime) -> ResetReport:
        """As :meth:`WarmupCounterStore.reset_daily_counters`; a key that is refused does not stop the others."""
        # They take a second to import, which only those who use R2 shall pay.
        from airflow.providers.amazon.aws.hooks.s3 import S3Hook  # noqa: PLC0415
        from botocore.exceptions import BotoCoreError, ClientError, ConnectionError, HTTPClientError  # noqa: A004, PLC0415

        # S3Hook takes a connection that it cannot read for one that says nothing.
        connections.get(self._conn_id)
        hook = S3Hook(aws_conn_id=self._conn_id)
        bucket = hook.service_config.get("bucket_name")
        if not bucket:
            msg = (
                f'Connection {self._conn_id} names no bucket. Add {{"service_config": {{"s3": {{"bucket_name": …}}}}}}.'
            )
            raise PermanentError(msg)
        try:
            client = hook.get_conn()
            found = _find(client, bucket, {f"{PREFIX}{domain.organization_id}/{domain.domain}" for domain in domains})
            later, over = partition(lambda counter: counter["LastModified"] < before + LAST_WRITE, found)
            keys = [counter["Key"] for counter in over]
            failed = _delete(client, bucket, keys)
        except ClientError as error:
            code, status = error.response["Error"]["Code"], error.response["ResponseMetadata"]["HTTPStatusCode"]
            msg = f"The bucket of connection {self._conn_id} refused to list its counters: {status} {code}."
            raise (TransientError if is_transient_http_status(status) else PermanentError)(msg) from None
        except BotoCoreError as error:
            msg = f"The bucket of connection {self._conn_id} cannot be asked ({type(error).__name__})."
            lost = isinstance(error, (ConnectionError, HTTPClientError))
            raise (TransientError if lost else PermanentError)(msg) from None
        return ResetReport(len(keys) - failed.total(), sum(1 for _ in later), failed)


def _find(client: Any, bucket: str, keys: Collection[str]) -> Iterator[dict[str, Any]]:
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=PREFIX)
    return (counter for page in pages for counter in page.get("Contents", ()) if counter["Key"] in keys)


def _delete(client: Any, bucket: str, keys: Iterable[str]) -> Counter[str]:
    """Delete objects, and count the failures by code."""
    from botocore.exceptions import ClientError  # noqa: PLC0415

    failed: Counter[str] = Counter()
    # The names in a batch are XML, which has no control characters; that of a single object is a part of the URL.
    unprintable, printable = partition(str.isprintable, keys)
    for batch in chunked(printable, KEYS_A_REQUEST):
        try:
            objects = {"Objects": [{"Key": key} for key in batch], "Quiet": True}
            answer = client.delete_objects(Bucket=bucket, Delete=objects)
        except ClientError as error:
            failed[error.response["Error"]["Code"]] += len(batch)
        else:
            failed.update(error["Code"] for error in answer.get("Errors", ()))
    for key in unprintable:
        try:
            client.delete_object(Bucket=bucket, Key=key)
        except ClientError as error:
            failed[error.response["Error"]["Code"]] += 1
    return failed
