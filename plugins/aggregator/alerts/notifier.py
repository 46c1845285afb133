"""Tells somebody on call: the row first, then a POST to the connection ``alerts_webhook`` if there is one.

Tasks do not send: the DAG processor (failed runs), the triggerer (late runs) and ``aggregator.alerts.watch`` do.
"""

from __future__ import annotations

import html
import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from aggregator.alerts.messages import failed
from aggregator.alerts.store import TIMEOUT, Alert, Kind, hook, raise_alert
from aggregator.core import connections, failures
from aggregator.core.errors import AggregatorError, PermanentError, UnknownConnectionError
from aggregator.core.paths import SQL

if TYPE_CHECKING:
    from airflow.sdk import Connection, Context

log = logging.getLogger(__name__)

WEBHOOK = "alerts_webhook"
"""Connection of the receiver: a Slack incoming webhook, or one that takes the same JSON."""

HTTP_TIMEOUT = (3.0, 5.0)
"""Seconds for the connection and for the answer."""

_SENT = range(200, 300)


def notify_failed(context: Context) -> None:
    """Raise an alert about a failed run: the ``on_failure_callback`` of every DAG.

    Airflow calls it once for each run that ends as failed, after the last retry, whichever task failed or was killed.
    Wrong params of a manual run raise none: the error of the task is for the person who gave them.

    Args:
        context: Airflow's context of the run's callback. Of a run whose tasks are not known any more it holds only the
            DAG and the run's id.
    """
    dag_id, run_id, run = context["dag"].dag_id, context["run_id"], context.get("dag_run")
    failure = failures.of_run(context)
    if run and failure and not failure.read:
        failure = _failure_in_database(run) or failure
    if run and failures.has_wrong_params(failure, run.run_type):
        log.info("dag=%s run=%s: the params are wrong, which raises no alert", dag_id, run_id)
        return
    since = (run and run.end_date) or datetime.now(UTC)
    notify(Alert(Kind.FAILED, dag_id, since, failed(dag_id, run_id, run, failure, since), (run_id,)))


def _failure_in_database(run: Any) -> failures.Failure | None:
    """The failure as Airflow's database has it: ``airflow dags test`` has no supervisor that the callback could ask."""
    from aggregator.alerts import runs

    try:
        return runs.failure_of(run)
    except Exception as error:  # noqa: BLE001 - the alert has to go out all the same
        log.warning("The reason of the failure could not be read: %s", type(error).__name__)
        return None


def notify(alert: Alert) -> None:
    """Raise an alert and try to send it at once.

    If the database is down, the error is logged. ``aggregator.alerts.watch`` raises the alert later: it finds the
    failed and late runs that have none.

    Args:
        alert: The alert.
    """
    log.error("ALERT kind=%s subject=%s: %s", alert.kind, alert.subject, alert.text)
    try:
        raise_alert(alert)
    except AggregatorError as error:
        log.error("This alert could not be stored. The watch raises it later. %s", error)  # noqa: TRY400
        return
    try:
        deliver()
    except AggregatorError as error:
        log.error("This alert is stored but could not be sent. The watch sends it later. %s", error)  # noqa: TRY400


def deliver() -> int:
    """Send the messages that are due, until one cannot be sent.

    A message is marked in the transaction that keeps others from sending it, after the receiver has accepted it. It is
    sent twice only if that mark is lost, because the process or the database dies in between.

    Returns:
        How many were sent; 0 without the connection ``alerts_webhook``.

    Raises:
        AggregatorError: The messages could not be read or marked, or nobody knows whether there is a connection because
            the secrets backend does not answer.
    """
    sent = 0
    if (url := _url()) is None:
        return sent
    next_message = (SQL / "alerts/queries/next_message.sql").read_text()
    note_attempt = (SQL / "alerts/queries/note_attempt.sql").read_text()
    while True:
        with hook().transaction(timeout=TIMEOUT, application_name="aggregator/alerts") as cursor:
            message = cursor.execute(next_message).fetchone()
            if message is None:
                return sent
            id_, text = message
            error = _post(url, text)
            cursor.execute(note_attempt, {"id": id_, "error": error})
        if error:
            log.warning("Alert message %d could not be sent: %s. It is tried again later.", id_, error)
            return sent
        sent += 1


def _url() -> str | None:
    from airflow.sdk.log import mask_secret

    try:
        connection = connections.get(WEBHOOK)
    except UnknownConnectionError:
        return None
    url = webhook_url(connection)
    # A library that logs at the level of debugging would write it down.
    mask_secret(url)
    mask_secret(url.split("/", 3)[-1])
    return url


def webhook_url(connection: Connection) -> str:
    """The address to which alerts are sent.

    Args:
        connection: Host with or without ``https://``, port, and the path as the password, where nobody sees it. Of a
            connection given as a URI, ``https://host/path``, Airflow makes type, host and schema.

    Returns:
        The address: a secret, as whoever has it may write to the channel.

    Raises:
        PermanentError: The connection has no host, or one that is none.
    """
    import httpx

    if not connection.host:
        msg = f"The connection {WEBHOOK} has no host: alerts are stored and not sent. Set its host and its password."
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
        msg = f"The host of the connection {WEBHOOK} is no address: alerts are stored and not sent. Correct it."
        raise PermanentError(msg) from None
    return f"{str(base).rstrip('/')}/{path.lstrip('/')}"


def _post(url: str, text: str) -> str | None:
    """Why the receiver did not accept a message: a status or the class of an error, whose text may hold the URL."""
    import requests

    from aggregator.n8n.responses import STARTING_UP

    body = {"text": html.escape(text, quote=False)}
    try:
        # Without its body, which a receiver may send for as long as it likes, and without following redirects.
        with requests.post(url, json=body, timeout=HTTP_TIMEOUT, allow_redirects=False, stream=True) as response:
            if response.status_code not in _SENT:
                return f"HTTP {response.status_code}"
            # The only body that is read: an n8n that starts answers 200, and does not take the message.
            if response.headers.get("Content-Length") == str(len(STARTING_UP)):
                return (
                    STARTING_UP if next(response.iter_content(len(STARTING_UP)), b"") == STARTING_UP.encode() else None
                )
            return None
    except (requests.RequestException, ValueError) as error:
        return type(error).__name__
