"""Transactions of several threads that end with the thread that started them."""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import CancelledError, Future, wait
from contextlib import ExitStack, contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar

import psycopg

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from psycopg.rows import TupleRow

    Transaction = Callable[[], AbstractContextManager[psycopg.Cursor[TupleRow]]]

Item = TypeVar("Item")
Result = TypeVar("Result")

log = logging.getLogger(__name__)

GRACE = timedelta(seconds=5)
"""Longest time that :meth:`TransactionGroup.end` waits for the transactions."""

_CANCEL_EVERY = timedelta(milliseconds=100)


class TransactionGroup:
    """Runs work in threads with separate transactions, and ends them all if the caller is interrupted.

    Airflow raises a task's timeout in the main thread only, as Python does with signals. Other threads would continue
    and commit. After :meth:`end`, no transaction of the group begins or commits, and running statements are canceled.

    Args:
        transaction: Opens a transaction on a new connection, which commits at the end of its context.
    """

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction
        self._connections: set[psycopg.Connection[TupleRow]] = set()
        self._has_ended = False
        # Held during a commit. Reentrant: a signal handler may call `end` while the main thread holds it.
        self._lock = threading.RLock()

    def run(self, work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
        """Do the work for all items concurrently, with one thread for each item.

        Returns:
            The results, in the order of the items.

        Raises:
            Exception: The error of the first item that failed, after all items are done.
            BaseException: The interruption of the caller. The group has ended.
        """
        futures: list[Future[Result]] = [Future() for _ in items]

        def keep_outcome(future: Future[Result], item: Item) -> None:
            try:
                future.set_result(work(item))
            except BaseException as error:  # noqa: BLE001 - raised in the caller
                future.set_exception(error)

        # Not a ThreadPoolExecutor: its exit waits for its threads, even if an interruption left its lock held.
        threads = [
            threading.Thread(target=keep_outcome, args=given, daemon=True) for given in zip(futures, items, strict=True)
        ]
        try:
            for thread in threads:
                thread.start()
            wait(futures)
            return [future.result() for future in futures]
        except BaseException:
            self.end()
            raise

    @contextmanager
    def transaction(self) -> Iterator[psycopg.Cursor[TupleRow]]:
        """Open a transaction of the group.

        Raises:
            CancelledError: The group has ended. Nothing was committed.
        """
        self._require_running()
        with ExitStack() as stack:
            cursor = stack.enter_context(self._transaction())
            with self._lock:
                self._require_running()
                self._connections.add(cursor.connection)
            try:
                yield cursor
                with self._lock:
                    self._require_running()
                    stack.close()
            except Exception:
                # A canceled statement raises a transient error, which the caller would retry.
                self._require_running()
                raise
            finally:
                self._connections.discard(cursor.connection)

    def end(self) -> None:
        """Prevent transactions from beginning or committing, and cancel running statements. Waits at most `GRACE`."""
        self._has_ended = True
        give_up = time.monotonic() + GRACE.total_seconds()
        # A commit that was sent cannot be canceled. Wait for it.
        if self._lock.acquire(timeout=GRACE.total_seconds()):
            self._lock.release()
        # Repeatedly: a thread may have been between two statements.
        while (connections := list(self._connections)) and time.monotonic() < give_up:
            for connection in connections:
                with suppress(psycopg.Error):
                    connection.cancel_safe(timeout=GRACE.total_seconds())
            time.sleep(_CANCEL_EVERY.total_seconds())
        if self._connections:
            log.warning("Transactions are still running and will not commit: count=%d", len(self._connections))

    def _require_running(self) -> None:
        if self._has_ended:
            raise CancelledError
