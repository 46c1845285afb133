from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING, Any

import httpx
import psutil
import pytest
import requests

from dev.analytics_engine.client import AnalyticsEngineControl, running
from dev.stand_in.faults import Fault

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow  # the stand-in takes seconds to start

TOKEN = "right-token"
RANGE = "timestamp >= toDateTime('2026-11-15 00:00:00') AND timestamp < toDateTime('2026-11-16 00:00:00')"
SUMS = f"""SELECT blob4 AS hire_id, sum(_sample_interval) AS n, sum(_sample_interval * (1 - double2)) AS valid
FROM clicks WHERE {RANGE} GROUP BY hire_id ORDER BY hire_id """
PROBE = f"SELECT count() AS n FROM clicks WHERE {RANGE} FORMAT JSON"


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AnalyticsEngineControl]:
    with running(tmp_path_factory.mktemp("data"), token=TOKEN, account="account") as control:
        yield control


@pytest.fixture
def control(process: AnalyticsEngineControl) -> Iterator[AnalyticsEngineControl]:
    yield process
    process.reset()


def query(control: AnalyticsEngineControl, sql: str, token: str = TOKEN, account: str = "account") -> requests.Response:
    url = f"{control.url}/client/v4/accounts/{account}/analytics_engine/sql"
    return requests.post(url, sql.encode(), headers={"Authorization": f"Bearer {token}"}, timeout=60)


def click(time: str, hire: str, **columns: Any) -> dict[str, Any]:
    return {"timestamp": time, "index1": hire, "blob4": hire, "double1": 1, **columns}


CLICKS = [
    click("2026-11-14 23:59:59", "a"),
    click("2026-11-15 00:00:00", "a"),
    click("2026-11-15 12:00:00", "a", _sample_interval=10, double2=1),
    click("2026-11-15 23:59:59", 'it\'s 🦊 \\ "x"\n', _sample_interval=4_000_000_000),
    click("2026-11-16 00:00:00", "a"),
]


def test_query_is_executed_on_stored_events(control: AnalyticsEngineControl) -> None:
    assert control.write("clicks", CLICKS) == 5
    response = query(control, SUMS + "FORMAT JSON")
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert response.headers["cf-ray"]
    body = response.json()
    assert list(body) == ["meta", "data", "rows"]
    assert body["meta"] == [
        {"name": "hire_id", "type": "String"},
        {"name": "n", "type": "UInt64"},
        {"name": "valid", "type": "Float64"},
    ]
    assert body["data"] == [
        {"hire_id": "a", "n": "11", "valid": 1},
        {"hire_id": 'it\'s 🦊 \\ "x"\n', "n": "4000000000", "valid": 4_000_000_000},
    ]
    assert body["rows"] == 2


def test_other_formats_and_statements_are_supported(control: AnalyticsEngineControl) -> None:
    control.write("clicks", CLICKS[:3])
    lines = query(control, SUMS + "FORMAT JSONEachRow").text.splitlines()
    assert [json.loads(line) for line in lines] == [{"hire_id": "a", "n": "11", "valid": 1}]
    assert query(control, SUMS + "FORMAT TabSeparated").text == "a\t11\t1\n"
    tables = query(control, "SHOW TABLES FORMAT JSONEachRow").text
    assert json.loads(tables) == {"name": "clicks"}
    assert {"timezone": "Europe/Berlin"} in query(control, "SHOW TIMEZONES FORMAT JSON").json()["data"]
    assert query(control, "SHOW TIMEZONE FORMAT TabSeparated").text == "Etc/UTC\n"


def test_keyword_names_and_sub_queries_are_executed(control: AnalyticsEngineControl) -> None:
    control.write("clicks", CLICKS)
    sql = (
        "SELECT end AS row, sum(all) AS first FROM (SELECT blob1 AS end, double1 AS all FROM clicks LIMIT ALL) "
        "GROUP BY row ORDER BY row, first FORMAT JSONEachRow"
    )
    assert query(control, sql).status_code == 200
    assert query(control, "SELECT blob1 AS all FROM clicks ORDER BY all FORMAT JSON").status_code == 200


def test_query_outside_the_dialect_returns_422(control: AnalyticsEngineControl) -> None:
    control.write("clicks", CLICKS)
    for sql in ("SELECT count(*) AS n FROM clicks FORMAT JSON", "SELECT 1 AS a", "DROP TABLE clicks", "\0", ""):
        response = query(control, sql)
        assert (response.status_code, response.text[:19]) == (422, "Input was invalid: ")
        assert response.headers["content-type"].startswith("text/plain")
    assert requests.post(
        f"{control.url}/client/v4/accounts/account/analytics_engine/sql",
        b"SELECT '\xff' AS a FORMAT JSON",
        headers={"Authorization": f"Bearer {TOKEN}"},
        timeout=60,
    ).status_code == 422  # fmt: skip


def test_query_that_clickhouse_refuses_returns_422(control: AnalyticsEngineControl) -> None:
    control.write("clicks", CLICKS)
    response = query(control, "SELECT blob1 * 2 AS a FROM clicks FORMAT JSON")
    assert response.status_code == 422
    assert response.text.startswith("Input was invalid: Code: 43.")


@pytest.mark.parametrize(
    ("headers", "account", "status", "code", "text"),
    [
        ({}, "account", 400, 9106, None),
        ({"Authorization": "Basic eDp5"}, "account", 401, 10000, None),
        ({"Authorization": "Bearer wrong"}, "account", 403, None, "Authorization error"),
        ({"Authorization": f"Bearer {TOKEN}"}, "another", 403, 10000, None),
    ],
)
def test_wrong_credentials_return_cloudflares_errors(
    control: AnalyticsEngineControl,
    headers: dict[str, str],
    account: str,
    status: int,
    code: int | None,
    text: str | None,
) -> None:
    url = f"{control.url}/client/v4/accounts/{account}/analytics_engine/sql"
    response = requests.post(url, PROBE, headers=headers, timeout=60)
    assert response.status_code == status
    if code:
        assert response.json()["errors"][0]["code"] == code
    else:
        assert response.text == text


def test_dataset_never_written_returns_422(control: AnalyticsEngineControl) -> None:
    rows, count = query(control, SUMS + "FORMAT JSON"), query(control, PROBE)
    assert (rows.status_code, rows.text) == (422, "Input was invalid: unable to find type of column: blob4")
    assert (count.status_code, count.text) == (422, "Input was invalid: unknown table: clicks")


def test_empty_range_returns_no_rows_or_422(control: AnalyticsEngineControl) -> None:
    control.write("clicks", CLICKS[:1])
    assert query(control, SUMS + "FORMAT JSON").json()["rows"] == 0
    control.fail_empty_ranges()
    response = query(control, SUMS + "FORMAT JSON")
    assert (response.status_code, response.text) == (422, "Input was invalid: unable to find type of column: blob4")
    assert query(control, PROBE).json()["data"] == [{"n": "0"}]
    control.write("clicks", CLICKS[1:2])
    assert query(control, SUMS + "FORMAT JSON").json()["rows"] == 1
    assert query(control, PROBE).json()["data"] == [{"n": "1"}]


def test_sampling_keeps_the_number_of_events(control: AnalyticsEngineControl) -> None:
    events = [click(f"2026-11-15 00:{n % 2:02d}:{n % 60:02d}", "busy", blob1=str(n)) for n in range(2000)]
    events.append(click("2026-11-15 00:00:30", "quiet", _sample_interval=3))
    assert control.write("clicks", events, sample_above=100) == 201
    sql = """SELECT index1 AS name, count() AS stored, sum(_sample_interval) AS n, max(_sample_interval) AS most,
    sum(double1) AS d FROM clicks GROUP BY name ORDER BY name FORMAT TabSeparated"""
    assert query(control, sql).text == "busy\t200\t2000\t10\t200\nquiet\t1\t3\t3\t1\n"
    kept = query(control, "SELECT blob1 AS b FROM clicks ORDER BY b FORMAT TabSeparated").text
    control.delete("clicks")
    control.write("clicks", reversed(events), sample_above=100)
    assert query(control, "SELECT blob1 AS b FROM clicks ORDER BY b FORMAT TabSeparated").text == kept


@pytest.mark.parametrize("event", [{"blob21": "x"}, {"timestamp": "yesterday"}, {"double1": "many"}])
def test_invalid_event_is_refused(control: AnalyticsEngineControl, event: dict[str, str]) -> None:
    with pytest.raises(httpx.HTTPStatusError, match=" 400: "):
        control.write("clicks", [click("2026-11-15 00:00:00", "a"), event])
    assert query(control, PROBE).json()["data"] == [{"n": "0"}]


@pytest.mark.parametrize("name", ["1a", "a-b", "a.b", "x" * 65, "a b", "a;b"])
def test_invalid_dataset_name_is_refused(control: AnalyticsEngineControl, name: str) -> None:
    with pytest.raises(httpx.HTTPStatusError, match=" 400: "):
        control.write(name, CLICKS)
    with pytest.raises(httpx.HTTPStatusError, match=" 400: "):
        control.delete(name)


def test_faults_apply_to_the_next_queries_in_order(control: AnalyticsEngineControl) -> None:
    control.faults([
        Fault(status=429, body="slow down", headers={"Retry-After": "7"}, times=2),
        Fault(status=503, body="later"),
    ])  # fmt: skip
    responses = [query(control, "SELECT 1 AS a FORMAT TabSeparated") for _ in range(4)]
    assert [response.status_code for response in responses] == [429, 429, 503, 200]
    assert responses[0].headers["Retry-After"] == "7"
    assert [response.text for response in responses] == ["slow down", "slow down", "later", "1\n"]


def test_fault_without_times_lasts_until_cleared(control: AnalyticsEngineControl) -> None:
    control.faults([Fault(status=500, times=None)])
    assert [query(control, PROBE).status_code for _ in range(3)] == [500] * 3
    control.clear_faults()
    assert query(control, "SELECT 1 AS a FORMAT JSON").status_code == 200


def test_response_is_delayed(control: AnalyticsEngineControl) -> None:
    control.faults([Fault(delay_seconds=5)])
    url = f"{control.url}/client/v4/accounts/account/analytics_engine/sql"
    with pytest.raises(requests.ReadTimeout):
        requests.post(url, PROBE, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=0.2)
    assert query(control, "SELECT 1 AS a FORMAT JSON").status_code == 200


@pytest.mark.parametrize("status", [None, 200])
def test_response_is_truncated(control: AnalyticsEngineControl, status: int | None) -> None:
    control.write("clicks", CLICKS)
    control.faults([Fault(status=status, body='{"meta": [], "data": []', truncate_after_bytes=10, times=2)])
    with pytest.raises(requests.exceptions.ChunkedEncodingError, match=r"IncompleteRead\(10 bytes read"):
        query(control, SUMS + "FORMAT JSON")
    url = f"{control.url}/client/v4/accounts/account/analytics_engine/sql"
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with closing(requests.post(url, PROBE, headers=headers, timeout=60, stream=True)) as response:
        assert response.status_code == 200
        assert int(response.headers["content-length"]) > 10
        assert len(response.raw.read(10)) == 10
    assert query(control, SUMS + "FORMAT JSON").json()["rows"] == 2


def test_connection_is_closed_without_a_response(control: AnalyticsEngineControl) -> None:
    control.faults([Fault(truncate_after_bytes=0)])
    with pytest.raises(requests.ConnectionError, match="without response"):
        query(control, "SELECT 1 AS a FORMAT JSON")
    assert query(control, "SELECT 1 AS a FORMAT JSON").status_code == 200


def test_recorded_requests_contain_no_token(control: AnalyticsEngineControl) -> None:
    control.faults([Fault(status=500)])
    query(control, "SELECT 1 AS a FORMAT JSON")
    query(control, "SELECT 2 AS a FORMAT JSON")
    assert control.requests() == ["SELECT 1 AS a FORMAT JSON", "SELECT 2 AS a FORMAT JSON"]
    everything = requests.get(f"{control.url}/__control__/requests", timeout=60).text
    assert TOKEN not in everything
    assert json.loads(everything)["count"] == 2


def test_health_needs_no_token(control: AnalyticsEngineControl) -> None:
    assert requests.get(f"{control.url}/health", timeout=60).json() == {"status": "ok"}


def test_concurrent_queries_all_return(control: AnalyticsEngineControl) -> None:
    control.write("clicks", CLICKS)
    with ThreadPoolExecutor(8) as threads:
        responses = list(threads.map(lambda _: query(control, SUMS + "FORMAT TabSeparated").text, range(40)))
    assert len(set(responses)) == 1
    assert responses[0].startswith("a\t11\t1\n")


def test_million_rows_are_streamed_in_constant_memory(tmp_path: Path) -> None:
    with running(tmp_path) as control:
        control.write("clicks", (click("2026-11-15 12:00:00", f"hire-{n}") for n in range(100_000)))
        query(control, "SELECT blob4 AS hire FROM clicks FORMAT JSON")
        process = next(p for p in psutil.Process().children() if str(tmp_path) in p.cmdline())
        before = process.memory_info().rss
        for _ in range(9):
            control.write("clicks", (click("2026-11-15 12:00:00", f"hire-{n}") for n in range(100_000)))
        url = f"{control.url}/client/v4/accounts/any/analytics_engine/sql"
        sql = (
            "SELECT blob4 AS hire, timestamp, blob1, blob2, double1, double2, _sample_interval FROM clicks FORMAT JSON"
        )
        most = size = 0
        with requests.post(url, sql, headers={"Authorization": "Bearer x"}, timeout=120, stream=True) as response:
            assert response.status_code == 200
            end = b""
            for chunk in response.iter_content(1 << 20):
                size, end = size + len(chunk), (end + chunk)[-100:]
                most = max(most, process.memory_info().rss)
        assert json.loads("{" + end.decode().partition("],")[2].strip()) == {"rows": 1_000_000}
        assert size > 150_000_000
        assert most - before < size / 3
    assert not list((tmp_path / "spool").iterdir())


def test_events_survive_restart_and_crash(tmp_path: Path) -> None:
    with running(tmp_path) as control:
        control.write("clicks", CLICKS)
    with running(tmp_path) as control:
        assert query(control, PROBE).json()["data"] == [{"n": "3"}]
        process = next(p for p in psutil.Process().children() if str(tmp_path) in p.cmdline())
        os.kill(process.pid, signal.SIGKILL)
        process.wait(10)
    with running(tmp_path) as control:
        assert query(control, PROBE).json()["data"] == [{"n": "3"}]


def test_second_process_on_a_folder_reports_the_first(tmp_path: Path) -> None:
    with running(tmp_path), pytest.raises(RuntimeError, match="Another process has"), running(tmp_path):
        pytest.fail("two processes on one folder")


def test_token_is_not_in_the_list_of_processes(control: AnalyticsEngineControl) -> None:
    assert query(control, "SELECT 1 AS a FORMAT JSON").status_code == 200
    commands = [" ".join(process.cmdline()) for process in psutil.Process().children()]
    assert any("dev.analytics_engine" in command for command in commands)
    assert not any(TOKEN in command for command in commands)


def test_help_lists_the_options(repository: Path) -> None:
    command = [sys.executable, "-m", "dev.analytics_engine", "--help"]
    path = os.pathsep.join([str(repository), str(repository / "plugins")])
    printed = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=True
    )
    assert "--account" in printed.stdout
