"""Transient and permanent errors."""

from __future__ import annotations

import importlib
import subprocess
import sys
from datetime import timedelta
from typing import TYPE_CHECKING

import psycopg
import pytest
import requests
from airflow.sdk.exceptions import (
    AirflowException,
    AirflowRuntimeError,
    AirflowTaskTimeout,
    ErrorType,
    TaskDeferralTimeout,
)
from airflow.sdk.execution_time.comms import ErrorResponse
from psycopg import errors as postgres_errors
from pytest_httpserver import HTTPServer

from aggregator.core.errors import (
    TRANSIENT_EXCEPTIONS,
    TRANSIENT_SQLSTATES,
    PermanentError,
    TransientError,
    is_transient,
    is_transient_http_status,
    is_transient_sqlstate,
    parse_retry_after,
)

if TYPE_CHECKING:
    from pathlib import Path

    from time_machine import TimeMachineFixture


@pytest.mark.parametrize(
    "sqlstate",
    [
        "08000",
        "08006",
        "08P01",
        "25006",
        "25P03",
        "25P04",
        "40001",
        "40P01",
        "53100",
        "53300",
        "55P03",
        "57014",
        "57P01",
        "57P02",
        "57P03",
        "57P04",
        "58030",
        "58P01",
        "72000",
        "PGRST301",
        "PGRST302",
    ],
)
def test_transient_sqlstates(sqlstate: str) -> None:
    assert is_transient_sqlstate(sqlstate)


@pytest.mark.parametrize(
    "sqlstate", [None, "", "22P02", "23505", "25001", "28P01", "40002", "42P01", "55006", "P0001", "PGRST116", "XX000"]
)
def test_permanent_sqlstates(sqlstate: str | None) -> None:
    assert not is_transient_sqlstate(sqlstate)


@pytest.mark.parametrize(
    ("status", "transient"),
    [(status, True) for status in (408, 425, 429, 500, 502, 503, 504, 524)]
    + [(status, False) for status in (200, 302, 400, 401, 403, 404, 409, 410, 422)],
)
def test_http_statuses(status: int, transient: bool) -> None:
    assert is_transient_http_status(status) is transient


def test_names_of_transient_exceptions_exist() -> None:
    for name in TRANSIENT_EXCEPTIONS:
        module, _, class_name = name.rpartition(".")
        assert issubclass(getattr(importlib.import_module(module), class_name), Exception), name


def api_server_error(status: int | None) -> AirflowRuntimeError:
    return AirflowRuntimeError(ErrorResponse(error=ErrorType.API_SERVER_ERROR, detail={"status_code": status}))


def http_error(status: int) -> requests.HTTPError:
    response = requests.Response()
    response.status_code = status
    return requests.HTTPError("refused", response=response)


class CodedError(Exception):
    """An error with ``code``: PostgREST clients store their code in it, SQLAlchemy the number of a manual page."""

    def __init__(self, code: str) -> None:
        super().__init__("jwt")
        self.code = code


@pytest.mark.parametrize(
    "exception",
    [
        TransientError("later"),
        TimeoutError(),
        ConnectionResetError(),
        BrokenPipeError(),
        requests.ConnectTimeout(),
        requests.ReadTimeout(),
        requests.ConnectionError(),
        requests.exceptions.ChunkedEncodingError(),
        http_error(503),
        postgres_errors.QueryCanceled(),
        postgres_errors.DeadlockDetected(),
        psycopg.OperationalError("server closed the connection unexpectedly"),
        CodedError("PGRST301"),
        AirflowTaskTimeout(),
        TaskDeferralTimeout(),
        SystemExit(1),
        KeyboardInterrupt(),
        api_server_error(None),
        api_server_error(503),
    ],
    ids=repr,
)
def test_transient_exceptions(exception: BaseException) -> None:
    assert is_transient(exception)


@pytest.mark.parametrize(
    "exception",
    [
        PermanentError("bad data"),
        ValueError("bug"),
        KeyError("bug"),
        FileNotFoundError("missing"),
        AirflowException("no"),
        http_error(422),
        requests.exceptions.InvalidURL(),
        postgres_errors.UniqueViolation(),
        postgres_errors.RaiseException(),
        postgres_errors.UndefinedTable(),
        psycopg.ProgrammingError("two statements"),
        CodedError("PGRST116"),
        api_server_error(422),
        AirflowRuntimeError(ErrorResponse(error=ErrorType.VARIABLE_NOT_FOUND)),
    ],
    ids=repr,
)
def test_permanent_exceptions(exception: BaseException) -> None:
    assert not is_transient(exception)


def caused(exception: BaseException, cause: BaseException) -> BaseException:
    exception.__cause__ = cause
    return exception


@pytest.mark.parametrize(
    ("exception", "transient"),
    [
        (caused(AirflowException("load failed"), ConnectionResetError()), True),
        (caused(RuntimeError(), caused(RuntimeError(), TransientError("later"))), True),
        (caused(CodedError("e3q8"), postgres_errors.DeadlockDetected()), True),
        (caused(RuntimeError(), postgres_errors.UniqueViolation()), False),
        (caused(PermanentError("decided"), TimeoutError()), False),
        (caused(TransientError("decided"), ValueError()), True),
        (caused(postgres_errors.UniqueViolation(), TimeoutError()), False),
    ],
    ids=["cause", "cause of the cause", "no code", "hard cause", "hard decided", "transient decided", "hard code"],
)
def test_outermost_classified_exception_decides(exception: BaseException, transient: bool) -> None:
    assert is_transient(exception) is transient


def test_cycle_of_causes_ends() -> None:
    first = RuntimeError()
    first.__cause__ = caused(RuntimeError(), first)
    assert not is_transient(first)


def test_errors_of_a_real_database(connection: psycopg.Connection) -> None:
    with pytest.raises(psycopg.Error) as timeout:
        connection.execute("set local statement_timeout = 1; select pg_sleep(10)")
    assert is_transient(timeout.value)

    with pytest.raises(psycopg.Error) as refused:
        connection.execute("select 1 / 0")
    assert not is_transient(refused.value)

    with psycopg.connect(connection.info.dsn, autocommit=True) as other:
        other.execute("select pg_terminate_backend(%s)", [connection.info.backend_pid])
    with pytest.raises(psycopg.Error) as lost:
        connection.execute("select 1")
    assert is_transient(lost.value)


def test_every_transient_code_is_a_class_or_a_code_of_postgresql() -> None:
    known = set(postgres_errors._sqlcodes)
    for code in TRANSIENT_SQLSTATES:
        assert code.startswith("PGRST") or any(name.startswith(code) for name in known), code


def test_errors_of_a_real_server() -> None:
    with HTTPServer() as server:
        server.expect_request("/busy").respond_with_data(status=503)
        with pytest.raises(requests.HTTPError) as busy:
            requests.get(server.url_for("/busy"), timeout=5).raise_for_status()
        assert is_transient(busy.value)

    with pytest.raises(requests.ConnectionError) as refused:
        requests.get(server.url_for("/busy"), timeout=5)
    assert is_transient(refused.value)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("120", 120),
        (" 0 ", 0),
        ("Sun, 15 Nov 2026 12:01:30 GMT", 90),
        ("Sun, 15 Nov 2026 13:01:30 +0100", 90),
        ("Sun, 15 Nov 2026 11:00:00 GMT", 0),
        ("-1", None),
        ("1.5", None),
        ("soon", None),
        ("", None),
        ("9" * 30, None),
        ("9" * 5000, None),
    ],
)
def test_retry_after(header: str | None, seconds: int | None, time_machine: TimeMachineFixture) -> None:
    time_machine.move_to("2026-11-15T12:00:00+00:00", tick=False)
    assert parse_retry_after(header) == (None if seconds is None else timedelta(seconds=seconds))


def test_import_of_errors_imports_no_large_library(repository: Path) -> None:
    program = (
        "import sys; before = set(sys.modules); import aggregator.core.errors; print(*(set(sys.modules) - before))"
    )
    command, folder = [sys.executable, "-c", program], repository / "plugins"
    imported = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout
    assert "aggregator.core.errors" in imported.split()
    assert not set(imported.split()) & {"airflow", "psycopg", "requests", "sqlalchemy"}
