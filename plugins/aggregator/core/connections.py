"""Read Airflow connections, and report what is wrong with one (spec: shared parts)."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from aggregator.core.errors import AggregatorError, PermanentError, TransientError, UnknownConnectionError, is_transient

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow.sdk import Connection
    from airflow.sdk.bases.secrets_backend import BaseSecretsBackend

PERCENT_ENCODE = "If it is a URI, percent-encode its password: / is %2F, # is %23, ? is %3F, @ is %40, % is %25."


def get(conn_id: str) -> Connection:
    """Read a connection whose extra is a JSON object or empty, without the blanks around its login and password.

    Raises:
        UnknownConnectionError: The connection does not exist.
        TransientError: A secrets backend failed.
        PermanentError: The connection is invalid. The text does not quote it.
    """
    from airflow.sdk import BaseHook  # noqa: PLC0415 - slow to import; every DAG file imports this module
    from airflow.sdk.exceptions import AirflowNotFoundException  # noqa: PLC0415
    from airflow.sdk.log import mask_secret  # noqa: PLC0415

    try:
        connection = BaseHook.get_connection(conn_id)
    except AirflowNotFoundException:
        check_backends(lambda backend: _query(backend, conn_id))
        raise UnknownConnectionError(conn_id) from None
    except ValueError:
        raise _malformed(conn_id) from None
    if "@" in (connection.schema or ""):
        # A slash in the password of a URI moves the rest of the password and the host into the schema.
        raise _malformed(conn_id)
    if connection.extra:
        extra: Any = None
        with suppress(ValueError):
            extra = json.loads(connection.extra)
        if not isinstance(extra, dict):
            msg = f'The extra of connection {conn_id!r} is not a JSON object. Set it to an object: {{"name": "value"}}.'
            raise PermanentError(msg)
    if connection.login:
        connection.login = connection.login.strip()
    if connection.password and (password := connection.password.strip()) != connection.password:
        connection.password = password
        mask_secret(password)  # Airflow masks what it has read, blanks included
    return connection


def check_backends(query: Callable[[BaseSecretsBackend], object]) -> None:
    """Query every secrets backend again for what was not found, and raise the error of a backend that fails.

    Airflow reports a missing secret and a backend that fails alike. In a task, its own backend returns "not found" even
    if its database is down. Other backends raise.

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
            raise (TransientError if is_transient(error) else PermanentError)(
                f"{type(backend).__name__} failed ({type(error).__name__}), so a connection or variable could not be "
                "read. Nothing was read or stored. Check the database or service that this secrets backend uses."
            ) from None


def _query(backend: BaseSecretsBackend, conn_id: str) -> object:
    try:
        return backend.get_connection(conn_id=conn_id)
    except ValueError:
        raise _malformed(conn_id) from None


def _malformed(conn_id: str) -> PermanentError:
    return PermanentError(
        f"Connection {conn_id!r} is malformed: it is neither a URI nor a JSON object. {PERCENT_ENCODE}"
    )
