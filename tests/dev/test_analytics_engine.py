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


def ask(control: AnalyticsEngineControl, sql: str, token: str = TOKEN, account: str = "account") -> requests.Response:
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


def test_it_executes_the_query_over_the_stored_events(control: AnalyticsEngineControl) -> None:
    assert control.write("clicks", CLICKS) == 5
    answer = ask(control, SUMS + "FORMAT JSON")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["cf-ray"]
    body = answer.json()
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


def test_it_knows_the_other_formats(control: AnalyticsEngineControl) -> None:
    control.write("clicks", CLICKS[:3])
    lines = ask(control, SUMS + "FORMAT JSONEachRow").text.splitlines()
    assert [json.loads(line) for line in lines] == [{"hire_id": "a", "n": "11", "valid": 1}]
    assert ask(control, SUMS + "FORMAT TabSeparated").text == "a\t11\t1\n"
    tables = ask(control, "SHOW TABLES FORMAT JSONEachRow").text
    assert json.loads(tables) == {"name": "clicks"}
    assert {"timezone": "Europe/Berlin"} in ask(control, "SHOW TIMEZONES FORMAT JSON").json()["data"]
    assert ask(control, "SHOW TIMEZONE FORMAT TabSeparated").text == "Etc/UTC\n"


def test_names_that_are_keywords_of_clickhouse_and_sub_queries_are_executed(control: AnalyticsEngineControl) -> None:
    control.write("clicks", CLICKS)
    sql = (
        "SELECT end AS row, sum(all) AS first FROM (SELECT blob1 AS end, double1 AS all FROM clicks LIMIT ALL) "
        "GROUP BY row ORDER BY row, first FORMAT JSONEachRow"
    )
    assert ask(control, sql).status_code == 200
    assert ask(control, "SELECT blob1 AS all FROM clicks ORDER BY all FORMAT JSON").status_code == 200


def test_the_gate_stands_in_front(control: AnalyticsEngineControl) -> None:
    control.write("clicks", CLICKS)
    for sql in ("SELECT count(*) AS n FROM clicks FORMAT JSON", "SELECT 1 AS a", "DROP TABLE clicks", "\0", ""):
        answer = ask(control, sql)
        assert (answer.status_code, answer.text[:19]) == (422, "Input was invalid: ")
        assert answer.headers["content-type"].startswith("text/plain")
    assert requests.post(
        f"{control.url}/client/v4/accounts/account/analytics_engine/sql",
        b"SELECT '\xff' AS a FORMAT JSON",
        headers={"Authorization": f"Bearer {TOKEN}"},
        timeout=60,
    ).status_code == 422  # fmt: skip


def test_what_clickhouse_refuses_is_invalid_input(control: AnalyticsEngineControl) -> None:
    control.write("clicks", CLICKS)
    answer = ask(control, "SELECT blob1 * 2 AS a FROM clicks FORMAT JSON")
    assert answer.status_code == 422
    assert answer.text.startswith("Input was invalid: Code: 43.")


@pytest.mark.parametrize(
    ("headers", "account", "status", "code", "text"),
    [
        ({}, "account", 400, 9106, None),
        ({"Authorization": "Basic eDp5"}, "account", 401, 10000, None),
        ({"Authorization": "Bearer wrong"}, "account", 403, None, "Authorization error"),
        ({"Authorization": f"Bearer {TOKEN}"}, "another", 403, 10000, None),
    ],
)
def test_it_refuses_strangers_as_cloudflare_does(
    control: AnalyticsEngineControl,
    headers: dict[str, str],
    account: str,
    status: int,
    code: int | None,
    text: str | None,
) -> None:
    url = f"{control.url}/client/v4/accounts/{account}/analytics_engine/sql"
    answer = requests.post(url, PROBE, headers=headers, timeout=60)
    assert answer.status_code == status
    if code:
        assert answer.json()["errors"][0]["code"] == code
    else:
        assert answer.text == text


def test_a_dataset_never_written_has_no_types(control: AnalyticsEngineControl) -> None:
    query, probe = ask(control, SUMS + "FORMAT JSON"), ask(control, PROBE)
    assert (query.status_code, query.text) == (422, "Input was invalid: unable to find type of column: blob4")
    assert (probe.status_code, probe.text) == (422, "Input was invalid: unknown table: clicks")


def test_an_empty_range_is_answered_either_way(control: AnalyticsEngineControl) -> None:
    control.write("clicks", CLICKS[:1])
    assert ask(control, SUMS + "FORMAT JSON").json()["rows"] == 0
    control.behave(empty_range_fails=True)
    answer = ask(control, SUMS + "FORMAT JSON")
    assert (answer.status_code, answer.text) == (422, "Input was invalid: unable to find type of column: blob4")
    assert ask(control, PROBE).json()["data"] == [{"n": "0"}]
    control.write("clicks", CLICKS[1:2])
    assert ask(control, SUMS + "FORMAT JSON").json()["rows"] == 1
    assert ask(control, PROBE).json()["data"] == [{"n": "1"}]


def test_sampling_keeps_some_events_for_all(control: AnalyticsEngineControl) -> None:
    events = [click(f"2026-11-15 00:{n % 2:02d}:{n % 60:02d}", "busy", blob1=str(n)) for n in range(2000)]
    events.append(click("2026-11-15 00:00:30", "quiet", _sample_interval=3))
    assert control.write("clicks", events, sample_above=100) == 201
    sql = """SELECT index1 AS name, count() AS stored, sum(_sample_interval) AS n, max(_sample_interval) AS most,
    sum(double1) AS d FROM clicks GROUP BY name ORDER BY name FORMAT TabSeparated"""
    assert ask(control, sql).text == "busy\t200\t2000\t10\t200\nquiet\t1\t3\t3\t1\n"
    kept = ask(control, "SELECT blob1 AS b FROM clicks ORDER BY b FORMAT TabSeparated").text
    control.delete("clicks")
    control.write("clicks", reversed(events), sample_above=100)
    assert ask(control, "SELECT blob1 AS b FROM clicks ORDER BY b FORMAT TabSeparated").text == kept


@pytest.mark.parametrize("event", [{"blob21": "x"}, {"timestamp": "yesterday"}, {"double1": "many"}])
def test_what_is_not_an_event_is_refused(control: AnalyticsEngineControl, event: dict[str, str]) -> None:
    with pytest.raises(httpx.HTTPStatusError, match="answered 400"):
        control.write("clicks", [click("2026-11-15 00:00:00", "a"), event])
    assert ask(control, PROBE).json()["data"] == [{"n": "0"}]


@pytest.mark.parametrize("name", ["1a", "a-b", "a.b", "x" * 65, "a b", "a;b"])
def test_a_dataset_has_a_plain_name(control: AnalyticsEngineControl, name: str) -> None:
    with pytest.raises(httpx.HTTPStatusError, match="answered 400"):
        control.write(name, CLICKS)
    with pytest.raises(httpx.HTTPStatusError, match="answered 400"):
        control.delete(name)


def test_faults_meet_the_next_queries_in_order(control: AnalyticsEngineControl) -> None:
    control.faults([
        Fault(status=429, body="slow down", headers={"Retry-After": "7"}, times=2),
        Fault(status=503, body="later"),
    ])  # fmt: skip
    answers = [ask(control, "SELECT 1 AS a FORMAT TabSeparated") for _ in range(4)]
    assert [answer.status_code for answer in answers] == [429, 429, 503, 200]
    assert answers[0].headers["Retry-After"] == "7"
    assert [answer.text for answer in answers] == ["slow down", "slow down", "later", "1\n"]


def test_a_fault_may_last_until_it_is_cleared(control: AnalyticsEngineControl) -> None:
    control.faults([Fault(status=500, times=None)])
    assert [ask(control, PROBE).status_code for _ in range(3)] == [500] * 3
    control.clear_faults()
    assert ask(control, "SELECT 1 AS a FORMAT JSON").status_code == 200


def test_an_answer_may_come_late(control: AnalyticsEngineControl) -> None:
    control.faults([Fault(delay_seconds=5)])
    url = f"{control.url}/client/v4/accounts/account/analytics_engine/sql"
    with pytest.raises(requests.ReadTimeout):
        requests.post(url, PROBE, headers={"Authorization": f"Bearer {TOKEN}"}, timeout=0.2)
    assert ask(control, "SELECT 1 AS a FORMAT JSON").status_code == 200


@pytest.mark.parametrize("status", [None, 200])
def test_an_answer_may_end_in_the_middle(control: AnalyticsEngineControl, status: int | None) -> None:
    control.write("clicks", CLICKS)
    control.faults([Fault(status=status, body='{"meta": [], "data": []', truncate_after_bytes=10, times=2)])
    with pytest.raises(requests.exceptions.ChunkedEncodingError, match=r"IncompleteRead\(10 bytes read"):
        ask(control, SUMS + "FORMAT JSON")
    url = f"{control.url}/client/v4/accounts/account/analytics_engine/sql"
    headers = {"Authorization": f"Bearer {TOKEN}"}
    with closing(requests.post(url, PROBE, headers=headers, timeout=60, stream=True)) as answer:
        assert answer.status_code == 200
        assert int(answer.headers["content-length"]) > 10
        assert len(answer.raw.read(10)) == 10
    assert ask(control, SUMS + "FORMAT JSON").json()["rows"] == 2


def test_an_answer_may_not_come_at_all(control: AnalyticsEngineControl) -> None:
    control.faults([Fault(truncate_after_bytes=0)])
    with pytest.raises(requests.ConnectionError, match="without response"):
        ask(control, "SELECT 1 AS a FORMAT JSON")
    assert ask(control, "SELECT 1 AS a FORMAT JSON").status_code == 200


def test_it_tells_what_was_asked_and_never_the_token(control: AnalyticsEngineControl) -> None:
    control.faults([Fault(status=500)])
    ask(control, "SELECT 1 AS a FORMAT JSON")
    ask(control, "SELECT 2 AS a FORMAT JSON")
    assert control.requests() == ["SELECT 1 AS a FORMAT JSON", "SELECT 2 AS a FORMAT JSON"]
    everything = requests.get(f"{control.url}/__control__/requests", timeout=60).text
    assert TOKEN not in everything
    assert json.loads(everything)["count"] == 2


def test_health_needs_no_token(control: AnalyticsEngineControl) -> None:
    assert requests.get(f"{control.url}/health", timeout=60).json() == {"status": "ok"}


def test_queries_at_the_same_time_are_all_answered(control: AnalyticsEngineControl) -> None:
    control.write("clicks", CLICKS)
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: ask(control, SUMS + "FORMAT TabSeparated").text, range(40)))
    assert len(set(answers)) == 1
    assert answers[0].startswith("a\t11\t1\n")


def test_a_million_rows_are_streamed(tmp_path: Path) -> None:
    with running(tmp_path) as control:
        control.write("clicks", (click("2026-11-15 12:00:00", f"hire-{n}") for n in range(100_000)))
        ask(control, "SELECT blob4 AS hire FROM clicks FORMAT JSON")
        process = next(p for p in psutil.Process().children() if str(tmp_path) in p.cmdline())
        before = process.memory_info().rss
        for _ in range(9):
            control.write("clicks", (click("2026-11-15 12:00:00", f"hire-{n}") for n in range(100_000)))
        url = f"{control.url}/client/v4/accounts/any/analytics_engine/sql"
        sql = (
            "SELECT blob4 AS hire, timestamp, blob1, blob2, double1, double2, _sample_interval FROM clicks FORMAT JSON"
        )
        most = size = 0
        with requests.post(url, sql, headers={"Authorization": "Bearer x"}, timeout=120, stream=True) as answer:
            assert answer.status_code == 200
            end = b""
            for chunk in answer.iter_content(1 << 20):
                size, end = size + len(chunk), (end + chunk)[-100:]
                most = max(most, process.memory_info().rss)
        assert json.loads("{" + end.decode().partition("],")[2].strip()) == {"rows": 1_000_000}
        assert size > 150_000_000
        assert most - before < size / 3
    assert not list((tmp_path / "spool").iterdir())


def test_events_survive_a_restart_and_a_crash(tmp_path: Path) -> None:
    with running(tmp_path) as control:
        control.write("clicks", CLICKS)
    with running(tmp_path) as control:
        assert ask(control, PROBE).json()["data"] == [{"n": "3"}]
        process = next(p for p in psutil.Process().children() if str(tmp_path) in p.cmdline())
        os.kill(process.pid, signal.SIGKILL)
        process.wait(10)
    with running(tmp_path) as control:
        assert ask(control, PROBE).json()["data"] == [{"n": "3"}]


def test_a_second_process_on_the_folder_says_why_it_ended(tmp_path: Path) -> None:
    with running(tmp_path), pytest.raises(RuntimeError, match="Another process has"), running(tmp_path):
        pytest.fail("two processes on one folder")


def test_the_token_is_not_in_the_list_of_processes(control: AnalyticsEngineControl) -> None:
    assert ask(control, "SELECT 1 AS a FORMAT JSON").status_code == 200
    commands = [" ".join(process.cmdline()) for process in psutil.Process().children()]
    assert any("dev.analytics_engine" in command for command in commands)
    assert not any(TOKEN in command for command in commands)


def test_the_command_explains_itself(repository: Path) -> None:
    command = [sys.executable, "-m", "dev.analytics_engine", "--help"]
    path = os.pathsep.join([str(repository), str(repository / "plugins")])
    printed = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=True
    )
    assert "--account" in printed.stdout
