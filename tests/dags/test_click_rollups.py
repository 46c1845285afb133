"""Click rollups, from a SQL engine into PostgreSQL: counts, re-runs, and the stored rows after each failure."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aggregator.analytics_engine.hook import AnalyticsEngineHook
from aggregator.core.errors import AggregatorError, PermanentError, TransientError
from aggregator.postgres.migrations import migrate
from dev.airflow_api import NotYetError, wait
from dev.sample import clicks
from dev.stand_in.faults import Fault
from tests.airflow_context import context
from tests.oracles import rollups_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from airflow.dag_processing.dagbag import DagBag

    from dev.analytics_engine.client import AnalyticsEngineControl
    from dev.postgres import Postgres

pytestmark = pytest.mark.slow  # the stand-in takes seconds to start

TOKEN = "token-that-must-not-show"
DAY = (datetime.now(UTC) - timedelta(days=30)).date()
HOSTILE = ["h", "o'brien", 'say "x"', "back\\slash", "🦊", "ä" * 5000, "new\nline", "{{ 1/0 }}", "%(x)s", "nul\x00"]


def hire(connection: psycopg.Connection, *ids: str) -> None:
    connection.cursor().executemany("insert into hires (id) values (%s)", [[id_] for id_ in ids])


def stored(connection: psycopg.Connection, columns: str = "hire_id, valid_clicks, invalid_clicks") -> list[Any]:
    return connection.execute(f'select {columns} from click_rollups order by hire_id collate "C"').fetchall()


@dataclass
class Rollup:
    """The DAG's task, and both ends of it."""

    task: Any
    source: AnalyticsEngineControl
    connection: psycopg.Connection

    def run(self, day: date = DAY) -> dict[str, Any]:
        """Run the task once, for one day."""
        start = datetime(day.year, day.month, day.day, tzinfo=UTC)
        counts: dict[str, Any] = self.task.execute(context(self.task, start, start + timedelta(days=1)))
        return counts

    def click(self, *events: dict[str, Any]) -> None:
        self.source.write("clicks", events)

    def hire(self, *ids: str) -> None:
        hire(self.connection, *ids)

    def stored(self, columns: str = "hire_id, valid_clicks, invalid_clicks") -> list[Any]:
        return stored(self.connection, columns)


@pytest.fixture
def rollup(
    monkeypatch: pytest.MonkeyPatch,
    migrated: Callable[..., psycopg.Connection],
    dag_bag: DagBag,
    analytics_engine: AnalyticsEngineControl,
    without_waiting: Callable[..., None],
) -> Rollup:
    without_waiting(AnalyticsEngineHook)
    host, port = analytics_engine.url.rsplit(":", 1)
    connection = {"conn_type": "http", "host": host, "port": int(port), "password": TOKEN, "extra": {"account_id": "a"}}
    monkeypatch.setenv("AIRFLOW_CONN_ANALYTICS_ENGINE", json.dumps(connection))
    task = dag_bag.dags["click_rollups"].get_task("roll_up_clicks")
    return Rollup(task, analytics_engine, migrated("clicks"))


def click(hire_id: str, time: str = "12:00:00", **other: Any) -> dict[str, Any]:
    return {"timestamp": f"{DAY} {time}", "index1": hire_id, "blob4": hire_id, "double1": 1, "double2": 0, **other}


def test_sample_day_equals_an_independent_computation(rollup: Rollup) -> None:
    events = [*clicks.events(DAY)]
    for age in (-1, 0, 1):
        rollup.source.write("clicks", clicks.events(DAY + timedelta(days=age)))
    known = [row["id"] for row in clicks.hires()]
    rollup.hire(*known)

    result = rollup.run()

    assert rollup.stored() == rollups_of(events, known)
    assert result == {
        "requests": 1,
        "read": len(known) + len(clicks.UNKNOWN_HIRES),
        "skipped": len(clicks.UNKNOWN_HIRES),
        "inserted": len(known),
        "updated": 0,
        "unchanged": 0,
        "duplicates": 0,
        "suspicious": False,
    }


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.tuples(
            st.sampled_from([-1, 0, 1, 43200, 86399, 86400]),
            st.sampled_from(["a", "b", "c", "", "gone"]),
            st.integers(1, 1000),
            st.sampled_from([0, 1]),
        ),
        max_size=30,
    )
)
def test_random_day_equals_an_independent_computation(rollup: Rollup, clicked: list[tuple[int, str, int, int]]) -> None:
    midnight = datetime(DAY.year, DAY.month, DAY.day, tzinfo=UTC)
    events = [
        click(id_, double2=invalid, _sample_interval=interval)
        | {"timestamp": f"{midnight + timedelta(seconds=second):%Y-%m-%d %H:%M:%S}", "second": second}
        for second, id_, interval, invalid in clicked
    ]
    rollup.connection.execute("truncate hires cascade")
    rollup.hire("a", "b", "c")
    rollup.source.delete("clicks")
    rollup.source.write("clicks", [{k: v for k, v in event.items() if k != "second"} for event in events])

    rollup.run()
    again = rollup.run()

    inside = [event for event in events if 0 <= event["second"] < 86400]
    assert rollup.stored() == rollups_of(inside, ["a", "b", "c"])
    assert (again.get("inserted", 0), again.get("updated", 0)) == (0, 0)


def test_hostile_hire_ids_are_stored_unchanged(rollup: Rollup) -> None:
    rollup.click(*map(click, HOSTILE))
    rollup.hire(*(id_ for id_ in HOSTILE if "\0" not in id_))

    result = rollup.run()

    assert {row[0] for row in rollup.stored()} == set(HOSTILE) - {"nul\0"}
    assert (result["inserted"], result["skipped"]) == (len(HOSTILE) - 1, 1)


def test_unknown_hires_are_logged_on_one_line(rollup: Rollup, capfd: pytest.CaptureFixture[str]) -> None:
    rollup.hire("known")
    ids = ["known", "gone", "for\nged", "long" * 100, *(f"many-{number:02}" for number in range(30))]
    rollup.click(*map(click, ids))

    assert rollup.run()["skipped"] == len(ids) - 1

    (line,) = [line for line in capfd.readouterr().out.splitlines() if "Skipped" in line]
    assert "'gone'" in line
    assert "'for\\nged'" in line
    assert "long" * 21 not in line
    assert f"and {len(ids) - 1 - 20} more" in line


def test_counts_are_rounded_to_the_nearest_integer(rollup: Rollup) -> None:
    rollup.hire("half")
    rollup.click(click("half", double2=0.5, _sample_interval=5))
    rollup.run()
    assert rollup.stored() == [("half", 3, 3)]


def test_re_run_writes_changed_rows_only(rollup: Rollup) -> None:
    rollup.hire("a", "b")
    rollup.click(click("a"), click("b"))
    rollup.run()
    everything = "hire_id, valid_clicks, xmin, xmax, ctid, created_at, updated_at"
    first = rollup.stored(everything)

    assert rollup.run()["unchanged"] == 2
    assert rollup.stored(everything) == first

    rollup.click(click("b", "23:59:59"))
    result = rollup.run()
    assert (result["updated"], result["unchanged"]) == (1, 1)
    a, b = rollup.stored(everything)
    assert a == first[0]
    assert (b[1], b[5]) == (2, first[1][5]), "created_at is kept"
    assert b[6] > first[1][6], "updated_at is set"


@pytest.mark.parametrize("empty_range_fails", [False, True])
@pytest.mark.parametrize("dataset", ["never written", "without the day"])
def test_empty_result_keeps_stored_rows(
    rollup: Rollup,
    capfd: pytest.CaptureFixture[str],
    dataset: str,
    empty_range_fails: bool,
) -> None:
    rollup.source.fail_empty_ranges(enabled=empty_range_fails)
    if dataset == "without the day":
        rollup.source.write("clicks", clicks.events(DAY + timedelta(days=1)))
    rollup.hire("a")
    # A query without types is followed by counts: under its conditions, then under its range alone.
    requests = 3 if dataset == "never written" else 2 if empty_range_fails else 1

    assert rollup.run() == {"requests": requests, "read": 0, "suspicious": False}
    assert rollup.stored() == []

    rollup.connection.execute("insert into click_rollups values (%s, 'a', 7, 8)", [DAY])
    assert rollup.run() == {"requests": requests, "read": 0, "suspicious": True}
    assert rollup.stored() == [("a", 7, 8)]
    assert "SUSPICIOUS" in capfd.readouterr().out


def test_window_past_retention_is_refused_before_a_request(rollup: Rollup) -> None:
    before = len(rollup.source.requests())
    with pytest.raises(PermanentError, match="keeps three months"):
        rollup.run(date(2024, 2, 29))
    assert len(rollup.source.requests()) == before


def lasting(**fault: Any) -> Fault:
    return Fault(times=None, **fault)


# tests/analytics_engine/test_hook.py has every response and its error.
FAULTS = {
    "403": (lasting(status=403, body="Authorization error"), PermanentError),
    "503": (lasting(status=503, body="oops"), TransientError),
    "half a body": (lasting(truncate_after_bytes=700), TransientError),
    "wrong types": (
        lasting(
            status=200,
            body='{"meta":[{"name":"hire_id","type":"String"},{"name":"valid_clicks","type":"Float64"},'
            '{"name":"invalid_clicks","type":"Float64"}],"data":'
            '[{"hire_id":"hire-001","valid_clicks":5,"invalid_clicks":1},'
            '{"hire_id":"hire-002","valid_clicks":"many","invalid_clicks":1}],"rows":2}',
        ),
        PermanentError,
    ),
}


@pytest.mark.parametrize(("fault", "error"), FAULTS.values(), ids=FAULTS)
def test_failed_request_keeps_stored_rows_and_shows_no_token(
    rollup: Rollup,
    capfd: pytest.CaptureFixture[str],
    fault: Fault,
    error: type[AggregatorError],
) -> None:
    rollup.click(*clicks.events(DAY))
    rollup.hire(*(row["id"] for row in clicks.hires()))
    rollup.connection.execute("insert into click_rollups values (%s, 'hire-001', 1, 2)", [DAY])
    rollup.source.faults([fault])

    with pytest.raises(error) as caught:
        rollup.run()

    assert rollup.stored() == [("hire-001", 1, 2)]
    printed = capfd.readouterr()
    assert TOKEN not in f"{caught.value!r}{printed.out}{printed.err}"

    rollup.source.clear_faults()
    assert rollup.run()["read"] > 0, "the next run reads the day"
    assert rollup.stored() == rollups_of(clicks.events(DAY), [row["id"] for row in clicks.hires()])


def test_numbers_sent_as_strings_are_stored(rollup: Rollup) -> None:
    rollup.hire("a")
    body = {
        "meta": [
            {"name": "hire_id", "type": "String"},
            {"name": "valid_clicks", "type": "UInt64"},
            {"name": "invalid_clicks", "type": "Float64"},
        ],
        "data": [{"hire_id": "a", "valid_clicks": "2147483647", "invalid_clicks": "12.0"}],
        "rows": 1,
    }
    rollup.source.faults([Fault(status=200, body=json.dumps(body))])
    rollup.run()
    assert rollup.stored() == [("a", 2147483647, 12)]


def test_hire_with_too_many_clicks_is_isolated_and_named(rollup: Rollup) -> None:
    rollup.hire("a", "huge", "z")
    rollup.click(click("a"), click("z"), click("huge", _sample_interval=2**31))

    with pytest.raises(PermanentError, match=r"refused 1 of the groups of .* by hire_id: 'huge' \(1 rows\): 22003"):
        rollup.run()

    assert rollup.stored() == [("a", 1, 0), ("z", 1, 0)]

    rollup.connection.execute("alter table click_rollups alter valid_clicks type bigint")
    assert rollup.run()["inserted"] == 1
    assert rollup.stored() == [("a", 1, 0), ("huge", 2**31, 0), ("z", 1, 0)]


def test_unreachable_postgres_is_transient_and_shows_no_password(
    rollup: Rollup, monkeypatch: pytest.MonkeyPatch
) -> None:
    rollup.click(*clicks.events(DAY))
    monkeypatch.setenv("AIRFLOW_CONN_CLICKS_DB", "postgresql://someone:secret-word@127.0.0.1:1/clicks")
    with pytest.raises(TransientError, match="clicks_db") as caught:
        rollup.run()
    assert "secret-word" not in repr(caught.value)


def test_postgres_restart_during_the_write_stores_nothing_and_a_retry_succeeds(
    rollup: Rollup, monkeypatch: pytest.MonkeyPatch, own_postgres: Postgres
) -> None:
    url = own_postgres.ensure_database("clicks")
    migrate(lambda: psycopg.connect(url), "clicks")
    monkeypatch.setenv("AIRFLOW_CONN_CLICKS_DB", url)
    rollup.click(*clicks.events(DAY))
    with psycopg.connect(url, autocommit=True) as connection:
        hire(connection, *(row["id"] for row in clicks.hires()))
    with closing(psycopg.connect(url)) as holder, ThreadPoolExecutor(1) as threads:
        holder.execute("lock table click_rollups in share mode")
        first = threads.submit(rollup.run)
        wait(lambda: waits_for_a_lock(url), seconds=30)
        own_postgres.restart("immediate")
        with pytest.raises(TransientError):
            first.result()
    with psycopg.connect(url) as connection:
        assert stored(connection) == []
    rollup.run()
    with psycopg.connect(url) as connection:
        assert stored(connection) == rollups_of(clicks.events(DAY), [row["id"] for row in clicks.hires()])


def waits_for_a_lock(url: str) -> None:
    query = "select from pg_stat_activity where application_name like 'click_rollups/%' and wait_event_type = 'Lock'"
    with psycopg.connect(url) as connection:
        if connection.execute(query).fetchone() is None:
            msg = "the task does not wait for the lock yet"
            raise NotYetError(msg)


def test_concurrent_runs_of_a_day_insert_each_row_once(rollup: Rollup) -> None:
    rollup.click(*clicks.events(DAY))
    known = [row["id"] for row in clicks.hires()]
    rollup.hire(*known)
    with ThreadPoolExecutor(4) as threads:
        results = list(threads.map(lambda _: rollup.run(), range(4)))
    assert sum(result["inserted"] for result in results) == len(known)
    assert [result["updated"] for result in results] == [0, 0, 0, 0]
    assert rollup.stored() == rollups_of(clicks.events(DAY), known)


TRY = """
import sys
from datetime import UTC, datetime, timedelta
from airflow.dag_processing.dagbag import DagBag
from tests.airflow_context import context
task = DagBag(sys.argv[1], collect_dags=True).dags["click_rollups"].get_task("roll_up_clicks")
start = datetime.fromisoformat(sys.argv[2]).replace(tzinfo=UTC)
task.execute(context(task, start, start + timedelta(days=1)))
"""


def test_process_killed_before_commit_stores_nothing_and_a_retry_succeeds(
    rollup: Rollup,
    database_url: str,
    analytics_engine: AnalyticsEngineControl,
    repository: Path,
) -> None:
    rollup.click(*clicks.events(DAY))
    known = [row["id"] for row in clicks.hires()]
    rollup.hire(*known)
    with psycopg.connect(database_url) as holder:
        holder.execute("lock table click_rollups in share mode")
        environment = os.environ | {"PYTHONPATH": f"{repository / 'plugins'}:{repository}"}
        command = [sys.executable, "-c", TRY, str(repository / "dags"), f"{DAY}"]
        with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as process:
            wait(lambda: waits_for_a_lock(database_url), seconds=90)
            process.kill()
            assert process.wait() == -signal.SIGKILL
    assert rollup.stored() == []
    rollup.run()
    assert rollup.stored() == rollups_of(clicks.events(DAY), known)
