"""Tells a secret that is not there from one whose backend does not answer; to Airflow both are "not found"."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aggregator.core.errors import AggregatorError, PermanentError, TransientError, is_transient

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow.sdk.bases.secrets_backend import BaseSecretsBackend


def check_backends(question: Callable[[BaseSecretsBackend], object]) -> None:
    """Ask every secrets backend once more for what was not found, and let none of them fail unnoticed.

    In a task, Airflow's own backend answers "not found" even then; the others do not.

    Args:
        question: Asks one of them.

    Raises:
        TransientError: One does not answer now.
        PermanentError: One cannot answer, whenever it is asked.
    """
    from airflow.sdk.execution_time.supervisor import ensure_secrets_backend_loaded  # noqa: PLC0415 - slow, seldom needed

    for backend in ensure_secrets_backend_loaded():
        try:
            question(backend)
        except NotImplementedError:
            # One that keeps connections only, say.
            continue
        except AggregatorError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever is wrong with a backend, it has not answered
            # Not its text: that may hold a secret.
            msg = (
                f"{type(backend).__name__} did not answer ({type(error).__name__}), so it is not known whether a "
                "connection or variable is there. Nothing was read or stored; look to what Airflow keeps them in."
            )
            raise (TransientError if is_transient(error) else PermanentError)(msg) from None
