"""Changes of candles: triggers that log them, and ranges marked by hand."""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, ClassVar

import psycopg
import pytest

from aggregator.ohlcv.aggregate import aggregate
from aggregator.ohlcv.cli import main
from aggregator.ohlcv.plan import plan
from aggregator.postgres.migrations import databases, migrate
from tests.market_data import DAY, HOUR, MINUTE, candle, candles, expected, ingest, register, run_of, stored, tick

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.slow
def test_role_with_rights_on_candles_only_can_write_to_partitions(market: psycopg.Connection) -> None:
    register(market, {"A": "1m"})
    ingest(market, candles("A", "1m", DAY, DAY + HOUR))
    tick(market, run_of(DAY + HOUR + MINUTE))
    market.execute("create role feed_of_the_test; grant usage on schema ohlcv to feed_of_the_test")
    try:
        market.execute("grant select, insert, update on ohlcv.candles, ohlcv.candles_202603 to feed_of_the_test")
        market.execute("set role feed_of_the_test")
        market.execute("update ohlcv.candles_202603 set high = 77 where ts = %s", [DAY])
        market.execute("reset role")
    finally:
        market.execute("reset role; drop owned by feed_of_the_test; drop role feed_of_the_test")
    tick(market, run_of(DAY + HOUR + 6 * MINUTE))
    assert stored(market)["A", "1h", DAY][1] == 77


@pytest.mark.slow
@pytest.mark.parametrize("table", ["ohlcv.candles", "ohlcv.candles_202603"])
def test_candles_changed_in_replica_mode_are_built(market: psycopg.Connection, table: str) -> None:
    register(market, {"A": "5m"})
    ingest(market, candles("A", "5m", DAY, DAY + 4 * HOUR))
    tick(market, run_of(DAY + 4 * HOUR + MINUTE))
    for number, statement in enumerate(
        (
            f"delete from {table} where ts < '2026-03-08 01:00+00'",
            f"update {table} set high = 999 where ts = '2026-03-08 02:00+00'",
            f"insert into {table} values ('A', '5m', '2026-03-08 00:00+00', 10, 11, 9, 10, 1, 1)",
        )
    ):
        with market.transaction():
            market.execute("set local session_replication_role = replica")
            market.execute(statement)
        as_of = DAY + 4 * HOUR + (6 + 5 * number) * MINUTE
        tick(market, run_of(as_of))
        assert stored(market) == expected(market, as_of), statement


@pytest.mark.slow
@pytest.mark.parametrize(
    "statement",
    [
        "truncate ohlcv.candles",
        "truncate ohlcv.candles_202603",
        "insert into ohlcv.candles values ('A', '1m', '1999-03-08+00')",
    ],
)
def test_refused_statement_in_replica_mode_is_refused_too(market: psycopg.Connection, statement: str) -> None:
    market.execute("set session_replication_role = replica")
    with pytest.raises(psycopg.Error, match=r"Candles are not truncated|no partition for a candle of 1999"):
        market.execute(statement)


def test_every_trigger_is_enabled_always(migrated: Callable[..., psycopg.Connection]) -> None:
    connection = migrated(*databases())
    found = connection.execute(
        "select tgrelid::regclass::text, tgname, tgenabled::text from pg_trigger where not tgisinternal"
    ).fetchall()
    tables = {table for table, _, _ in found}
    assert tables >= {"ohlcv.candles", "ohlcv.candles_elsewhere", "kpi.job_kpis"}
    assert [trigger for trigger in found if trigger[2] != "A"] == []


@pytest.mark.slow
def test_upgrade_enables_triggers_of_existing_partitions_always(market: psycopg.Connection, database_url: str) -> None:
    market.execute("alter table ohlcv.candles_202603 enable trigger user")
    market.execute("delete from migrations.functions where name = 'watch_candles'")
    migrate(partial(psycopg.connect, database_url), "market")
    enabled = "select distinct tgenabled::text from pg_trigger where tgrelid = 'ohlcv.candles_202603'::regclass"
    assert market.execute(enabled).fetchall() == [("A",)]


class TestMarkChanged:
    """Ranges marked by hand after candles were written without triggers, as by logical replication."""

    @pytest.fixture(autouse=True)
    def bars(self, market: psycopg.Connection) -> None:
        register(market, {"A": "5m", "B": "5m"})
        for symbol in "AB":
            ingest(market, candles(symbol, "5m", DAY, DAY + 4 * HOUR))
        tick(market, run_of(DAY + 4 * HOUR + MINUTE))
        for table in ("ohlcv.candles", "ohlcv.candles_202603"):
            market.execute(f"alter table {table} disable trigger user")

    def changed(self, market: psycopg.Connection) -> None:
        market.execute("update ohlcv.candles set high = 999 where symbol = 'A' and ts = %s", [DAY + 65 * MINUTE])
        market.execute(
            "delete from ohlcv.candles where symbol = 'A' and ts >= %s and ts < %s", [DAY + 2 * HOUR, DAY + 3 * HOUR]
        )
        ingest(market, [candle("B", "5m", DAY + 5 * MINUTE, 77)])

    RANGE: ClassVar = ["--start", "2026-03-08T00:07", "--end", "2026-03-08T03:00+00:00"]

    @pytest.mark.slow
    def test_marked_range_rebuilds_bars_of_changed_and_deleted_candles(
        self, market: psycopg.Connection, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.changed(market)
        before = stored(market)
        tick(market, run_of(DAY + 4 * HOUR + 6 * MINUTE))
        assert stored(market) == before, "nothing was logged"
        assert main(["mark-changed", *self.RANGE]) == 0
        assert capsys.readouterr().out == "Symbols marked: 2. The next run builds their bars of the range again.\n"
        tick(market, run_of(DAY + 4 * HOUR + 11 * MINUTE))
        assert stored(market) == expected(market, DAY + 4 * HOUR + 11 * MINUTE) != before

    @pytest.mark.slow
    def test_given_symbols_are_marked_and_unknown_ones_are_reported(
        self, market: psycopg.Connection, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.changed(market)
        assert main(["mark-changed", *self.RANGE, "--symbol", "A", "b"]) == 0
        assert "they have no tasks or the range is before their start: 'b'\n" in capsys.readouterr().out
        assert market.execute("select distinct symbol from ohlcv.stale_windows").fetchall() == [("A",)]
        assert main(["mark-changed", *self.RANGE, "--symbol", "b"]) == 1

    @pytest.mark.slow
    def test_symbol_without_candles_in_the_range_keeps_its_bars(
        self, market: psycopg.Connection, capsys: pytest.CaptureFixture[str]
    ) -> None:
        market.execute("delete from ohlcv.candles where symbol = 'A'")
        before = stored(market)
        assert main(["mark-changed", "--start", "2020-01-01", "--end", "2030-01-01"]) == 0
        assert "No candles in the range, so their bars are kept: 'A'\n" in capsys.readouterr().out
        tick(market, run_of(DAY + 4 * HOUR + 6 * MINUTE))
        assert stored(market) == before

    @pytest.mark.slow
    def test_change_not_read_by_a_running_task_is_built_by_the_next_run(
        self, market: psycopg.Connection, database_url: str
    ) -> None:
        ingest(market, candles("A", "5m", DAY + 4 * HOUR, DAY + 5 * HOUR))
        run = run_of(DAY + 5 * HOUR + MINUTE)
        with market.transaction(), market.cursor() as cursor:
            (shard,) = plan(cursor, run)
        with psycopg.connect(database_url) as other:
            with other.cursor() as cursor:
                aggregate(lambda: nullcontext(cursor), run, **shard)
            market.execute("update ohlcv.candles set high = 999 where symbol = 'A' and ts >= %s", [DAY + 4 * HOUR])
            assert main(["mark-changed", "--start", "2026-03-08T04:00", "--end", "2026-03-08T05:00"]) == 0
        tick(market, run_of(DAY + 5 * HOUR + 6 * MINUTE))
        assert stored(market) == expected(market, DAY + 5 * HOUR + 6 * MINUTE)

    @pytest.mark.parametrize("end", ["2026-03-08T00:07", "2026-03-01"])
    def test_range_with_end_before_start_marks_nothing(
        self, market: psycopg.Connection, capsys: pytest.CaptureFixture[str], end: str
    ) -> None:
        assert main(["mark-changed", "--start", "2026-03-08T00:07", "--end", end]) == 1
        assert "is not before --end" in capsys.readouterr().err
        assert market.execute("select from ohlcv.stale_windows").fetchall() == []
