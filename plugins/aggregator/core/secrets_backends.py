"""Distinguish a missing secret from a secrets backend that fails; Airflow reports both as "not found"."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aggregator.core.errors import AggregatorError, PermanentError, TransientError, is_transient

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow.sdk.bases.secrets_backend import BaseSecretsBackend


def check_backends(query: Callable[[BaseSecretsBackend], object]) -> None:
    """Query every secrets backend again for what was not found, and raise the error of a backend that fails.

    In a task, Airflow's own backend returns "not found" even if its database is down. Other backends raise.

    Args:
        query: Queries one backend.

    Raises:
        TransientError: A backend failed; it may succeed later.
        PermanentError: A backend failed; it will fail again.
    """
    from airflow.sdk.execution_time.supervisor import ensure_secrets_backend_loaded  # noqa: PLC0415 - slow, seldom needed

    for backend in ensure_secrets_backend_loaded():
        try:
            query(backend)
        except NotImplementedError:
            # The backend keeps connections only, for example.
            continue
        except AggregatorError:
            raise
        except Exception as error:  # noqa: BLE001 - backends raise errors of any class
            # Its text may contain a secret.
            msg = (
                f"{type(backend).__name__} failed ({type(error).__name__}), so a connection or variable could not be "
                "read. Nothing was read or stored. Check the database or service that this secrets backend uses."
            )
            raise (TransientError if is_transient(error) else PermanentError)(msg) from None
