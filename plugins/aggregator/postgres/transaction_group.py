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
"""How long ending a group waits for its transactions."""

_CANCEL_EVERY = timedelta(milliseconds=100)


class TransactionGroup:
    """Runs work in threads, each with transactions of its own, and ends all of them if the caller is interrupted.

    Airflow raises a task's timeout in the main thread only, as Python does with signals. Threads would work on and
    commit. After :meth:`end`, no transaction of the group commits or begins, and running statements are canceled.

    Args:
        transaction: Opens a transaction on a connection of its own; it commits when its context is left.
    """

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction
        self._connections: set[psycopg.Connection[TupleRow]] = set()
        self._has_ended = False
        # Held while a transaction commits. Reentrant: a signal handler may call `end` while the main thread is in it.
        self._lock = threading.RLock()

    def run(self, work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
        """Do the work for all items at once, a thread each.

        Args:
            work: Opens its transactions with :meth:`transaction`.
            items: At least one.

        Returns:
            The results, in the order of the items.

        Raises:
            Exception: What the work raised for the first item that failed, after all items are done.
            BaseException: What interrupted the caller; the group has ended.
        """
        futures: list[Future[Result]] = [Future() for _ in items]

        def keep_outcome(future: Future[Result], item: Item) -> None:
            try:
                future.set_result(work(item))
            except BaseException as error:  # noqa: BLE001 - the caller gets it
                future.set_exception(error)

        # Not a ThreadPoolExecutor: leaving it waits for its threads, also if an interruption left its lock held.
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

        Yields:
            Its cursor.

        Raises:
            CancelledError: The group has ended; nothing is committed.
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
                # A canceled statement is a transient error, which would be tried again.
                self._require_running()
                raise
            finally:
                self._connections.discard(cursor.connection)

    def end(self) -> None:
        """Let no transaction commit or begin anymore, and cancel the statements that run. Waits at most `GRACE`."""
        self._has_ended = True
        give_up = time.monotonic() + GRACE.total_seconds()
        # A commit that has been sent cannot be taken back. Wait for it.
        if self._lock.acquire(timeout=GRACE.total_seconds()):
            self._lock.release()
        # Again and again: a thread may have been between two statements.
        while (connections := list(self._connections)) and time.monotonic() < give_up:
            for connection in connections:
                with suppress(psycopg.Error):
                    connection.cancel_safe(timeout=GRACE.total_seconds())
            time.sleep(_CANCEL_EVERY.total_seconds())
        if self._connections:
            log.warning("%d transactions did not end within %s. They do not commit.", len(self._connections), GRACE)

    def _require_running(self) -> None:
        if self._has_ended:
            raise CancelledError
