from __future__ import annotations

import json
import logging
import threading
import traceback
import tracemalloc
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from airflow.sdk.exceptions import AirflowTaskTimeout
from airflow.sdk.execution_time.timeout import TimeoutPosix
from sqlglot import parse_one
from tenacity import wait_none
from werkzeug import Response

from aggregator.analytics_engine import dialect
from aggregator.analytics_engine.dialect import DialectError
from aggregator.analytics_engine.errors import (
    AnalyticsEngineError,
    AnalyticsEngineRefusedError,
    AnalyticsEngineUnavailableError,
)
from aggregator.analytics_engine.hook import AnalyticsEngineHook
from aggregator.core.errors import PermanentError, TransientError
from aggregator.core.retrying import LONGEST_WAIT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_httpserver import HTTPServer
    from time_machine import TimeMachineFixture
    from werkzeug import Request

    from aggregator.analytics_engine.types import Value

    Given = Response | Callable[[Request], Response]

TOKEN = "t0ken-That_must.not.be.seen"
ACCOUNT = "0123456789abcdef"
QUERY = (
    "SELECT blob4 AS hire_id, sum(_sample_interval) AS n FROM clicks "
    "WHERE timestamp >= %(start)s AND timestamp < %(end)s AND blob4 != '' GROUP BY hire_id FORMAT JSON"
)
DAY = {"start": datetime(2026, 11, 15, tzinfo=UTC), "end": datetime(2026, 11, 16, tzinfo=UTC)}
META = [{"name": "hire_id", "type": "String"}, {"name": "n", "type": "UInt64"}]

FROM = "timestamp >= toDateTime('2026-11-15 00:00:00')"
TO = "timestamp < toDateTime('2026-11-16 00:00:00')"


def result(*rows: dict[str, Any], meta: list[dict[str, str]] = META) -> Response:
    return Response(json.dumps({"meta": meta, "data": rows, "rows": len(rows)}), content_type="application/json")


def counted(n: int) -> Response:
    return result({"n": str(n)}, meta=[{"name": "n", "type": "UInt64"}])


def fault(status: int, body: str = "", **headers: str) -> Response:
    return Response(
        body,
        status,
        headers={"cf-ray": "8f00ba4-TXL", **{name.replace("_", "-"): value for name, value in headers.items()}},
        content_type="text/plain",
    )


NO_TYPE = "Input was invalid: unable to find type of column: 'blob4'"
ROW = {"hire_id": "a", "n": "2"}


class Api:
    """A server that returns the given responses in order and keeps the requests, and a hook that queries it."""

    def __init__(self, server: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> None:
        self.responses: list[Given] = []
        self.requests: list[Request] = []
        self.slept: list[float] = []
        self.url = server.url_for("").rstrip("/")
        self.hook = AnalyticsEngineHook(attempts=3, wait=wait_none(), sleep=self.slept.append, timeouts=(5, 5))
        self._monkeypatch = monkeypatch
        path = f"/client/v4/accounts/{ACCOUNT}/analytics_engine/sql"
        server.expect_request(path, method="POST").respond_with_handler(self._respond)
        self.connect(host=self.url)

    def connect(self, **fields: Any) -> None:
        connection = {"conn_type": "http", "password": TOKEN, "extra": {"account_id": ACCOUNT}, **fields}
        self._monkeypatch.setenv("AIRFLOW_CONN_ANALYTICS_ENGINE", json.dumps(connection))

    def query(self, sql: str | None = None) -> list[dict[str, Value]]:
        with self.hook.stream(sql or QUERY, None if sql else DAY) as rows:
            names = [column.name for column in rows.columns]
            return [dict(zip(names, row, strict=True)) for row in rows]

    @property
    def queries(self) -> list[str]:
        return [request.get_data(as_text=True) for request in self.requests]

    def _respond(self, request: Request) -> Response:
        request.get_data()
        self.requests.append(request)
        response = self.responses.pop(0)
        return response if isinstance(response, Response) else response(request)


@pytest.fixture
def api(httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> Api:
    return Api(httpserver, monkeypatch)


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> Callable[[], str]:
    """All logged text: Airflow's loggers write to standard output, libraries to Python's logging."""
    caplog.set_level(logging.DEBUG)
    return lambda: "".join([*capfd.readouterr(), caplog.text])


def shown(error: BaseException) -> str:
    return "".join(traceback.format_exception(error)) + repr(error) + repr(vars(error))


class TestResults:
    def test_query_is_sent_as_plain_text_with_bearer_token(self, api: Api) -> None:
        api.responses = [result(ROW)]
        api.query()
        (request,) = api.requests
        assert request.headers["Authorization"] == f"Bearer {TOKEN}"
        assert request.mimetype == "text/plain"
        assert request.get_data(as_text=True) == (
            "SELECT blob4 AS hire_id, sum(_sample_interval) AS n FROM clicks "
            "WHERE timestamp >= toDateTime('2026-11-15 00:00:00') AND timestamp < toDateTime('2026-11-16 00:00:00') "
            "AND blob4 != '' GROUP BY hire_id FORMAT JSON"
        )

    def test_rows_have_the_values_of_their_columns(self, api: Api) -> None:
        api.responses = [result({"hire_id": "a'\"🌞", "n": "18446744073709551615"}, {"hire_id": "b", "n": 3})]
        assert api.query() == [{"hire_id": "a'\"🌞", "n": 2**64 - 1}, {"hire_id": "b", "n": 3}]

    def test_first_row_is_returned_before_the_last_arrives(self, api: Api) -> None:
        taken = threading.Event()

        def slowly() -> Iterator[bytes]:
            whole = result(*[ROW] * 10_000).get_data()
            yield whole[:-1000]
            assert taken.wait(10)
            yield whole[-1000:]

        api.responses = [Response(slowly(), content_type="application/json")]
        with api.hook.stream(QUERY, DAY) as rows:
            assert [column.name for column in rows.columns] == ["hire_id", "n"]
            assert next(rows) == ("a", 2)
            taken.set()
            assert sum(1 for _ in rows) == 9_999

    def test_stream_can_be_closed_after_the_first_row(self, api: Api) -> None:
        api.responses = [result(*[ROW] * 100_000)]
        with api.hook.stream(QUERY, DAY) as rows:
            assert next(rows) == ("a", 2)

    @pytest.mark.slow
    def test_memory_does_not_grow_with_the_result(self, api: Api) -> None:
        def body(rows: int) -> Iterator[bytes]:
            yield b'{"meta": %b, "data": [{"hire_id": "first", "n": 0}' % json.dumps(META).encode()
            for number in range(1, rows):
                yield b', {"hire_id": "hire-%06d", "n": "%d"}' % (number, number)
            yield b'], "rows": %d}' % rows

        def peak(rows: int) -> int:
            api.responses = [Response(body(rows))]
            tracemalloc.start()
            try:
                with api.hook.stream(QUERY, DAY) as result:
                    assert sum(1 for _ in result) == rows
                return tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()

        peak(1_000)  # what is allocated once
        assert peak(100_000) < 3 * peak(1_000)

    def test_netrc_does_not_replace_the_token(self, api: Api, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        netrc = tmp_path / "netrc"
        netrc.write_text("default login someone password else\n")
        monkeypatch.setenv("NETRC", str(netrc))
        api.responses = [result(ROW)]
        api.query()
        assert api.requests[0].headers["Authorization"] == f"Bearer {TOKEN}"

    @pytest.mark.parametrize(
        "row", [{"hire_id": 1, "n": "2"}, {"hire_id": "a", "n": "2.5"}, {"hire_id": "a", "n": None}, {"hire_id": "a"}]
    )
    def test_value_of_another_type_is_permanent(self, api: Api, row: dict[str, Any]) -> None:
        api.responses = [result(row)]
        with pytest.raises(PermanentError):
            api.query()


class TestDialect:
    @pytest.mark.parametrize(
        "sql",
        [
            "SELECT count(*) AS n FROM clicks FORMAT JSON",
            "SELECT blob4 AS a FROM clicks; DROP TABLE clicks FORMAT JSON",
            "SELECT blob4 AS a FROM clicks",
        ],
    )
    def test_query_outside_the_dialect_is_not_sent(self, api: Api, sql: str) -> None:
        with pytest.raises(DialectError):
            api.query(sql)
        assert api.requests == []

    def test_query_with_another_format_is_not_sent(self, api: Api) -> None:
        with pytest.raises(PermanentError, match="FORMAT JSON"):
            api.query("SELECT blob4 AS a FROM clicks FORMAT TabSeparated")
        assert api.requests == []

    @pytest.mark.parametrize(
        ("condition", "kept"),
        [
            ("", ""),
            (" WHERE blob4 = 'timestamp'", ""),
            (f" WHERE {FROM}", f" WHERE {FROM}"),
            (f" WHERE blob4 != '' AND {FROM} AND double1 > 0 AND {TO}", f" WHERE {FROM} AND {TO}"),
            (f" WHERE {FROM} AND (blob4 = 'a' OR blob4 = 'b') AND {TO}", f" WHERE {FROM} AND {TO}"),
            (" WHERE timestamp > now() - INTERVAL '1' DAY AND 1 = 1", " WHERE timestamp > now() - INTERVAL '1' DAY"),
            (" WHERE timestamp > now() OR blob4 = 'x'", ""),
        ],
    )
    @pytest.mark.parametrize("dataset", ["clicks", "values", "index"])
    def test_probes_are_accepted_and_the_last_has_time_conditions_only(
        self, dataset: str, condition: str, kept: str
    ) -> None:
        probes = dialect.parse(f"SELECT blob4 AS a FROM {dataset}{condition} FORMAT JSON").probes
        assert [dialect.parse(probe).dataset for probe in probes] == [dataset] * len(probes)
        narrowed = probes[-1]
        expected = f"SELECT count() AS n FROM clicks{kept} FORMAT JSON"
        narrowed = narrowed.replace(f" FROM {dataset}", " FROM clicks")
        assert parse_one(narrowed, read="clickhouse") == parse_one(expected, read="clickhouse")

    @pytest.mark.parametrize("expression", ["topK(3)(blob1)", "toDateTime(blob1, 'America/New_York')"])
    def test_query_with_unreadable_result_is_not_sent(self, api: Api, expression: str) -> None:
        with pytest.raises(PermanentError, match=r"cannot read .* Nothing was sent"):
            api.query(f"SELECT {expression} AS x FROM clicks FORMAT JSON")
        assert api.requests == []

    def test_lower_case_format_is_accepted(self, api: Api) -> None:
        api.responses = [counted(1)]
        assert api.query("select count() as n from clicks format json") == [{"n": 1}]
        assert api.queries == ["select count() as n from clicks FORMAT JSON"]


class TestNoRows:
    def test_range_without_rows_has_an_empty_result(self, api: Api, logged: Callable[[], str]) -> None:
        api.responses = [fault(422, NO_TYPE), counted(0)]
        with api.hook.stream(QUERY, DAY) as rows:
            assert rows.columns == ()
            assert list(rows) == []
        assert api.queries[1] == (
            "SELECT count() AS n FROM clicks WHERE timestamp >= toDateTime('2026-11-15 00:00:00') "
            "AND timestamp < toDateTime('2026-11-16 00:00:00') AND blob4 != '' FORMAT JSON"
        )
        assert "The result has no rows" in logged()

    def test_second_probe_has_time_conditions_only(self, api: Api) -> None:
        api.responses = [fault(422, NO_TYPE), fault(422, NO_TYPE), counted(0)]
        assert api.query() == []
        assert "blob4" not in api.queries[2]
        assert "timestamp" in api.queries[2]

    def test_probe_without_a_row_counts_as_zero(self, api: Api) -> None:
        api.responses = [fault(422, NO_TYPE), result(meta=[{"name": "n", "type": "UInt64"}])]
        assert api.query() == []

    @pytest.mark.parametrize("body", ["Input was invalid: unknown table: clicks", NO_TYPE])
    def test_dataset_never_written_has_an_empty_result(self, api: Api, body: str) -> None:
        api.responses = [fault(422, body), fault(422, body), fault(422, body)]
        assert api.query() == []

    @pytest.mark.parametrize("probes", [[counted(3)], [fault(422, NO_TYPE), counted(3)]])
    def test_missing_type_with_rows_is_permanent(self, api: Api, probes: list[Given]) -> None:
        api.responses = [fault(422, NO_TYPE), *probes]
        with pytest.raises(AnalyticsEngineRefusedError, match="unable to find type of column") as refused:
            api.query()
        assert refused.value.status == 422
        assert api.responses == []

    def test_other_422_is_not_probed(self, api: Api) -> None:
        api.responses = [fault(422, "Input was invalid: function sam not found")]
        with pytest.raises(AnalyticsEngineRefusedError):
            api.query()
        assert len(api.requests) == 1

    def test_probe_refused_for_another_reason_is_an_error(self, api: Api) -> None:
        api.responses = [fault(422, NO_TYPE), fault(403, "Authorization error")]
        with pytest.raises(AnalyticsEngineRefusedError):
            api.query()

    def test_probe_is_retried(self, api: Api) -> None:
        api.responses = [fault(422, NO_TYPE), fault(503), counted(0)]
        assert api.query() == []


class TestPermanentErrors:
    @pytest.mark.parametrize(
        ("status", "body"),
        [
            (400, "Input was invalid: syntax"),
            (401, "Unauthorized"),
            (403, "Authorization error"),
            (403, '{"success":false,"errors":[{"code":10000,"message":"Authentication error"}]}'),
            (400, '{"success":false,"errors":[{"code":9106,"message":"Missing X-Auth-Key"}]}'),
            (404, "not found"),
            (422, "Input was invalid: unknown function"),
            (429, "Query used too much memory"),
            (429, "Query execution time exceeded"),
            (429, "The query took too long"),
            (429, "Result size is too large"),
            (429, "too many rows: results are limited to 1000000 rows"),
            (501, "not implemented"),
            (507, "the data store ran out of resources"),
            (204, ""),
        ],
    )
    def test_permanent_status_is_not_retried(self, api: Api, status: int, body: str) -> None:
        api.responses = [fault(status, body, Retry_After="1")]
        with pytest.raises(AnalyticsEngineRefusedError, match=str(status)) as refused:
            api.query()
        assert len(api.requests) == 1
        assert (refused.value.status, refused.value.body) == (status, body)
        assert refused.value.request_id == "8f00ba4-TXL"
        assert isinstance(refused.value, PermanentError)

    @pytest.mark.parametrize(
        ("body", "headers"),
        [
            ("x" * 5000 + " (query id: 3f1c9f1e-8f6b-4c1d)", {}),
            ("Internal error, query_id=3f1c9f1e-8f6b-4c1d", {}),
            ("Internal error", {"x_clickhouse_query_id": "3f1c9f1e-8f6b-4c1d"}),
        ],
    )
    def test_query_id_is_kept_in_the_error(self, api: Api, body: str, headers: dict[str, str]) -> None:
        api.responses = [fault(400, body, **headers)]
        with pytest.raises(AnalyticsEngineRefusedError, match="query 3f1c9f1e-8f6b-4c1d"):
            api.query()

    def test_redirect_is_not_followed(self, api: Api, httpserver: HTTPServer) -> None:
        api.responses = [fault(307, Location=httpserver.url_for("/elsewhere"))]
        with pytest.raises(AnalyticsEngineRefusedError, match="not followed"):
            api.query()
        assert [request.path for request, _ in httpserver.log] == [api.requests[0].path]

    def test_long_body_is_trimmed(self, api: Api) -> None:
        api.responses = [fault(400, "x" * 1_000_000)]
        with pytest.raises(AnalyticsEngineRefusedError) as refused:
            api.query()
        assert 0 < len(refused.value.body) < 1000
        assert len(str(refused.value)) < 2000


class TestTransientErrors:
    @pytest.mark.parametrize(
        "response",
        [
            fault(408),
            fault(429, "rate limit exceeded: too many requests"),
            fault(429, '{"success":false,"errors":[{"code":971,"message":"Please wait and consider throttling"}]}'),
            fault(500),
            fault(502),
            fault(503),
            fault(504),
        ],
        ids=lambda response: response.status,
    )
    def test_transient_status_is_retried(self, api: Api, response: Response) -> None:
        api.responses = [response, result(ROW)]
        assert api.query() == [{"hire_id": "a", "n": 2}]

    def test_last_attempt_raises_transient_error(self, api: Api) -> None:
        api.responses = [fault(503, "busy") for _ in range(3)]
        with pytest.raises(AnalyticsEngineUnavailableError, match="503") as unavailable:
            api.query()
        assert isinstance(unavailable.value, TransientError)
        assert (unavailable.value.status, unavailable.value.body) == (503, "busy")
        assert len(api.slept) == 2
        assert api.hook.requests_sent == 3

    def test_second_504_is_permanent(self, api: Api) -> None:
        api.responses = [fault(504), fault(504)]
        with pytest.raises(AnalyticsEngineRefusedError, match="exceeds a limit") as refused:
            api.query()
        assert refused.value.status == 504

    @pytest.mark.parametrize(("header", "seconds"), [("7", 7), ("Sun, 15 Nov 2026 12:00:40 GMT", 40)])
    def test_retry_after_is_the_wait(
        self,
        api: Api,
        time_machine: TimeMachineFixture,
        header: str,
        seconds: int,
    ) -> None:
        time_machine.move_to("2026-11-15T12:00:00+00:00", tick=False)
        api.responses = [fault(429, Retry_After=header), result(ROW)]
        api.query()
        assert api.slept == [seconds]

    def test_long_retry_after_is_raised_for_the_task(self, api: Api) -> None:
        requested = LONGEST_WAIT + timedelta(seconds=1)
        api.responses = [fault(429, Retry_After=f"{requested.total_seconds():.0f}")]
        with pytest.raises(AnalyticsEngineUnavailableError) as unavailable:
            api.query()
        assert unavailable.value.retry_after == requested
        assert api.slept == []

    def test_backoff_doubles(self, api: Api) -> None:
        api.hook = AnalyticsEngineHook(attempts=4, sleep=api.slept.append)
        api.responses = [fault(503), fault(503, Retry_After="0"), fault(503), result(ROW)]
        api.query()
        assert [1 <= api.slept[0] <= 2, 2 <= api.slept[1] <= 3, 4 <= api.slept[2] <= 5] == [True] * 3

    def test_hanging_request_times_out(self, api: Api) -> None:
        over = threading.Event()

        def hang(_: Request) -> Response:
            over.wait(10)
            return result(ROW)

        api.responses = [hang]
        api.hook = AnalyticsEngineHook(attempts=1, timeouts=(5, 0.2))
        try:
            with pytest.raises(AnalyticsEngineUnavailableError, match="ReadTimeout"):
                api.query()
        finally:
            over.set()

    def test_hanging_body_times_out(self, api: Api) -> None:
        over = threading.Event()

        def hang() -> Iterator[bytes]:
            yield result(*[ROW] * 10_000).get_data()[:-30]
            over.wait(10)

        api.responses = [Response(hang())]
        try:
            with AnalyticsEngineHook(attempts=1, timeouts=(5, 0.5)).stream(QUERY, DAY) as rows:
                assert next(rows) == ("a", 2)
                with pytest.raises(AnalyticsEngineUnavailableError, match="broke off"):
                    list(rows)
        finally:
            over.set()

    def test_refused_connection_is_transient(self, api: Api) -> None:
        api.connect(host="http://127.0.0.1", port=1)
        with pytest.raises(AnalyticsEngineUnavailableError, match="ConnectionError") as unavailable:
            api.query()
        assert unavailable.value.status is None
        assert len(api.slept) == 2

    @pytest.mark.parametrize("length", [0, 20, 60, 100])
    def test_body_cut_before_the_first_row_is_retried(self, api: Api, length: int) -> None:
        whole = result(ROW).get_data()
        half = Response(whole[:length], headers={"Content-Length": str(len(whole))})
        half.automatically_set_content_length = False
        api.responses = [half, Response(whole[:length]), result(ROW)]
        assert api.query() == [{"hire_id": "a", "n": 2}]

    @pytest.mark.parametrize("declared", [True, False])
    def test_body_cut_after_the_first_row_is_raised_for_the_task(self, api: Api, declared: bool) -> None:
        whole = result(*[ROW] * 10_000).get_data()
        half = Response(whole[:-20])
        if declared:
            half.headers["Content-Length"] = str(len(whole))
            half.automatically_set_content_length = False
        api.responses = [half]
        with api.hook.stream(QUERY, DAY) as rows:
            assert next(rows) == ("a", 2)
            with pytest.raises(TransientError):
                list(rows)
        assert len(api.requests) == 1

    def test_fewer_rows_than_announced_is_transient(self, api: Api) -> None:
        api.responses = [Response(json.dumps({"meta": META, "data": [ROW], "rows": 2}))]
        with pytest.raises(TransientError, match="has 1 rows and announces 2"):
            api.query()

    def test_invalid_json_is_retried(self, api: Api) -> None:
        api.responses = [Response("<html>sorry</html>"), result(ROW)]
        assert api.query() == [{"hire_id": "a", "n": 2}]

    def test_execution_timeout_of_the_task_is_not_retried(self, api: Api) -> None:
        over = threading.Event()

        def hang(_: Request) -> Response:
            over.wait(10)
            return result(ROW)

        api.responses = [hang, result(ROW)]
        try:
            with pytest.raises(AirflowTaskTimeout), TimeoutPosix(0.5):  # type: ignore[no-untyped-call]
                api.query()
        finally:
            over.set()
        assert len(api.requests) == 1


class TestSecrecy:
    @pytest.mark.parametrize("status", [200, 400, 403, 422, 429, 503])
    def test_token_in_a_body_is_not_shown(self, api: Api, logged: Callable[[], str], status: int) -> None:
        api.responses = [fault(status, f"bad header 'Bearer {TOKEN}' {'x' * 5000} {TOKEN}") for _ in range(3)]
        with pytest.raises((AnalyticsEngineError, TransientError)) as error:
            api.query()
        assert TOKEN not in shown(error.value)
        assert TOKEN not in logged()
        assert TOKEN not in repr(api.hook._account)

    def test_token_in_a_client_error_is_not_shown(self, api: Api, logged: Callable[[], str]) -> None:
        api.connect(host=f"http://127.0.0.1:1/{TOKEN}")
        with pytest.raises(AnalyticsEngineUnavailableError) as error:
            api.query()
        assert "/***/" in str(error.value)
        assert TOKEN not in shown(error.value)
        assert TOKEN not in logged()

    @pytest.mark.parametrize("token", [f"{TOKEN}\n", f" {TOKEN}\r\n"])
    def test_token_with_blanks_or_a_line_break_around_it_is_sent_without_them(self, api: Api, token: str) -> None:
        api.connect(host=api.url, password=token)
        api.responses = [result(ROW)]
        api.query()
        assert api.requests[0].headers["Authorization"] == f"Bearer {TOKEN}"

    @pytest.mark.parametrize("token", [f"{TOKEN}\r\nX-Evil: 1", f"{TOKEN}é", f"{TOKEN} {TOKEN}"])
    def test_token_with_invalid_characters_is_refused_and_not_shown(self, api: Api, token: str) -> None:
        api.connect(password=token)
        with pytest.raises(PermanentError, match="API token") as error:
            api.query()
        assert TOKEN not in shown(error.value)


class TestConnection:
    @pytest.mark.parametrize(
        ("fields", "missing"),
        [
            ({"password": None}, "API token"),
            ({"password": ""}, "API token"),
            ({"extra": {}}, "account_id"),
            ({"extra": {"account_id": ""}}, "account_id"),
        ],
    )
    def test_missing_field_is_named(self, api: Api, fields: dict[str, Any], missing: str) -> None:
        api.connect(**fields)
        with pytest.raises(PermanentError, match=missing):
            api.query()

    def test_unknown_connection_is_permanent(self, api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("AIRFLOW_CONN_ANALYTICS_ENGINE")
        with pytest.raises(PermanentError, match="AIRFLOW_CONN_ANALYTICS_ENGINE"):
            api.query()

    @pytest.mark.parametrize(
        ("fields", "base"),
        [
            ({}, "https://api.cloudflare.com"),
            ({"host": "ae.example"}, "https://ae.example"),
            ({"host": "ae.example", "schema": "http", "port": 8123}, "http://ae.example:8123"),
            ({"host": "http://ae.example/", "port": 8123}, "http://ae.example:8123"),
            ({"host": "http://ae.example:8123"}, "http://ae.example:8123"),
        ],
    )
    def test_url_is_built_from_the_connection(self, api: Api, fields: dict[str, Any], base: str) -> None:
        api.connect(**fields)
        assert api.hook._account.url == f"{base}/client/v4/accounts/{ACCOUNT}/analytics_engine/sql"

    def test_account_id_is_quoted_in_the_url(self, api: Api) -> None:
        api.connect(extra={"account_id": "../../x?y"})
        assert api.hook._account.url.endswith("/accounts/..%2F..%2Fx%3Fy/analytics_engine/sql")

    def test_invalid_host_is_permanent(self, api: Api) -> None:
        api.connect(host="http://[")
        with pytest.raises(AnalyticsEngineRefusedError, match="connection's host"):
            api.query()


class TestRetention:
    def test_window_past_retention_is_refused(self, api: Api, time_machine: TimeMachineFixture) -> None:
        # Three calendar months before 1 May 2027 is 1 February: 89 days, the shortest there is.
        time_machine.move_to("2027-05-01T00:00:00+00:00", tick=False)
        api.hook.require_retained(datetime(2027, 2, 1, tzinfo=UTC))
        with pytest.raises(PermanentError, match="three months"):
            api.hook.require_retained(datetime(2027, 1, 31, 23, 59, 59, tzinfo=UTC))
