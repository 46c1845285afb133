"""Stores alerts, and sends their messages to the connection ``alerts_webhook`` if it exists.

The DAG processor sends alerts about failed runs, the triggerer those about late runs, ``aggregator.alerts.watch`` all
others. Tasks send none, so no task waits for the receiver.
"""

from __future__ import annotations

import html
import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from aggregator.alerts.messages import failed
from aggregator.alerts.store import Alert, Kind, raise_alert, transaction
from aggregator.core import connections, failures
from aggregator.core.errors import AggregatorError, PermanentError, UnknownConnectionError
from aggregator.core.paths import SQL

if TYPE_CHECKING:
    from airflow.sdk import Connection, Context

log = logging.getLogger(__name__)

WEBHOOK = "alerts_webhook"
"""Connection of the receiver: a Slack incoming webhook, or a server that accepts the same JSON."""

HTTP_TIMEOUT = (3.0, 5.0)
"""Timeouts in seconds: to connect, and to read the response."""

_SENT = range(200, 300)


def notify_failed(context: Context) -> None:
    """Raise an alert about a failed run. This is the ``on_failure_callback`` of every DAG.

    Airflow calls it once for each failed run, after the last retry, also if a task was killed. A manual run with wrong
    params raises no alert: the error of its task informs the user who started it.

    Args:
        context: Airflow's context of the callback. If the DAG no longer contains the run's tasks, it has only the DAG
            and the run id.
    """
    dag_id, run_id, run = context["dag"].dag_id, context["run_id"], context.get("dag_run")
    failure = failures.of_run(context)
    if run and failure and not failure.read:
        failure = _failure_in_database(run) or failure
    if run and failures.has_wrong_params(failure, run.run_type):
        log.info("No alert: a manual run has wrong params. dag=%s run=%s", dag_id, run_id)
        return
    since = (run and run.end_date) or datetime.now(UTC)
    notify(Alert(Kind.FAILED, dag_id, since, failed(dag_id, run_id, run, failure, since), (run_id,)))


def _failure_in_database(run: Any) -> failures.Failure | None:
    """Read the failure from Airflow's database: ``airflow dags test`` has no supervisor for the callback's requests."""
    from aggregator.alerts import runs

    try:
        return runs.failure_of(run)
    except Exception as error:  # noqa: BLE001 - the alert is sent without the reason
        log.warning("The reason of the failure was not read. The alert has none. error=%s", type(error).__name__)
        return None


def notify(alert: Alert) -> None:
    """Raise an alert and try to send it immediately.

    Errors are logged. ``aggregator.alerts.watch`` raises the alert later if it was not stored, and sends it later if it
    was not sent.
    """
    log.error("ALERT kind=%s subject=%s: %s", alert.kind, alert.subject, alert.text)
    try:
        raise_alert(alert)
    except AggregatorError as error:
        log.error("The alert was not stored. The watch raises it later. %s", error)  # noqa: TRY400
        return
    try:
        deliver()
    except AggregatorError as error:
        log.error("The alert is stored but was not sent. The watch sends it later. %s", error)  # noqa: TRY400


def deliver() -> int:
    """Send due messages, until one is not accepted.

    The transaction locks the message, so no other process sends it. It marks the message as sent after the receiver
    accepted it. A message is sent twice only if the process or the database dies between the two.

    Returns:
        How many messages were sent; 0 without the connection ``alerts_webhook``.
    """
    sent = 0
    if (url := receiver_url()) is None:
        return sent
    next_message = (SQL / "alerts/queries/next_message.sql").read_text()
    note_attempt = (SQL / "alerts/queries/note_attempt.sql").read_text()
    while True:
        with transaction() as cursor:
            message = cursor.execute(next_message).fetchone()
            if message is None:
                if sent:
                    log.info("Alert messages sent. sent=%d", sent)
                return sent
            id_, text = message
            error = post(url, text)
            cursor.execute(note_attempt, {"id": id_, "error": error})
        if error:
            log.warning(
                "An alert message was not sent. It is retried later. message=%d sent=%d error=%s", id_, sent, error
            )
            return sent
        sent += 1


def receiver_url() -> str | None:
    """The URL of the receiver, a secret; None without the connection ``alerts_webhook``."""
    from airflow.sdk.log import mask_secret

    try:
        connection = connections.get(WEBHOOK)
    except UnknownConnectionError:
        return None
    url = webhook_url(connection)
    # At DEBUG, libraries log the URL.
    mask_secret(url)
    mask_secret(url.split("/", 3)[-1])
    return url


def webhook_url(connection: Connection) -> str:
    """The URL of the receiver.

    Args:
        connection: Host with or without ``https://``, port, and the path as the password. Airflow parses a connection
            that is given as a URI, ``https://host/path``, into type, host and schema.

    Returns:
        The URL. It is a secret: it allows to write to the channel.

    Raises:
        PermanentError: The connection has no host, or an invalid one.
    """
    import httpx

    if not connection.host:
        msg = f"The connection {WEBHOOK} has no host. Alerts are stored and not sent. Set its host and its password."
        raise PermanentError(msg)
    protocols = {"http", "https"}
    schema, path = connection.schema or "", (connection.password or "").strip()
    if schema and schema not in protocols:
        path, schema = path or schema, connection.conn_type if connection.conn_type in protocols else ""
    host = connection.host if "://" in connection.host else f"{schema or 'https'}://{connection.host}"
    try:
        url = httpx.URL(host)
        base = url.copy_with(port=connection.port or url.port)
    except httpx.InvalidURL:
        msg = f"The host of the connection {WEBHOOK} is no valid URL. Alerts are stored and not sent. Correct the host."
        raise PermanentError(msg) from None
    return f"{str(base).rstrip('/')}/{path.lstrip('/')}"


def post(url: str, text: str) -> str | None:
    """Send a message. Returns why it was not accepted: a status, or the class of an error, whose text has the URL."""
    import requests

    from aggregator.n8n.responses import STARTING_UP

    body = {"text": html.escape(text, quote=False)}
    try:
        # The body is not read, because a receiver could send it without end.
        with requests.post(url, json=body, timeout=HTTP_TIMEOUT, allow_redirects=False, stream=True) as response:
            if response.status_code not in _SENT:
                return f"HTTP {response.status_code}"
            # An n8n that is starting responds with 200 and this body, and does not process the message.
            starting_up = STARTING_UP.encode()
            may_start = response.headers.get("Content-Length") == str(len(starting_up))
            is_starting = may_start and next(response.iter_content(len(starting_up)), b"") == starting_up
            return STARTING_UP if is_starting else None
    except (requests.RequestException, ValueError) as error:
        return type(error).__name__
