"""Monthly partitions of candles: creation, retention, upgrades."""

from __future__ import annotations

from datetime import timedelta

import psycopg
import pytest

from aggregator.core.errors import is_transient
from aggregator.ohlcv.plan import prepare_partitions
from tests.market_data import DAY, HOUR, MINUTE, candle, candles, ingest, register, run_of, stored, tick

ALIGNED = "ts_is_a_whole_step_of_its_timeframe_1m_or_5m_in_utc"


@pytest.mark.slow
def test_reader_of_the_default_partition_makes_add_candle_partitions_give_up(
    market: psycopg.Connection, database_url: str
) -> None:
    before = partitions(market)
    added = "select ohlcv.add_candle_partitions(%s, %s)"
    market.execute("set lock_timeout = '30s'; set statement_timeout = '20s'")
    with psycopg.connect(database_url) as reader:
        reader.execute("select from ohlcv.candles_elsewhere")
        with pytest.raises(psycopg.errors.LockNotAvailable, match=r"No partition was added\. Try again") as caught:
            market.execute(added, [DAY, DAY + timedelta(days=70)])
        assert is_transient(caught.value)
        assert partitions(market) == before
        assert market.execute("show lock_timeout").fetchone() == ("30s",), "the session keeps its own limit"
    assert market.execute(added, [DAY, DAY + timedelta(days=70)]).fetchone() == (2,)


@pytest.mark.slow
def test_reader_of_the_default_partition_delays_partitions_but_no_bars(
    market: psycopg.Connection, database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    register(market, {"A": "5m"})
    ingest(market, candles("A", "5m", DAY, DAY + HOUR))
    as_of = DAY + HOUR + MINUTE
    with psycopg.connect(database_url) as reader:
        reader.execute("select from ohlcv.candles_elsewhere")
        assert tick(market, run_of(as_of))["bars"] == 5
    assert "Candle partitions were not added" in caplog.text
    assert "candles_202605" not in partitions(market)
    tick(market, run_of(as_of + timedelta(minutes=5)))
    assert "candles_202605" in partitions(market)


def partitions(market: psycopg.Connection) -> dict[str, int]:
    return dict(
        market.execute(
            "select relname, pg_class.oid::int from pg_class join pg_inherits on inhrelid = pg_class.oid "
            "where inhparent = 'ohlcv.candles'::regclass and relname ~ '[0-9]{6}$'"
        ).fetchall()
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("range_", "message"),
    [
        ("now(), 'infinity'", "from 1900 to 2199"),
        ("'-infinity', now()", "from 1900 to 2199"),
        ("'0099-01-01', now()", "from 1900 to 2199"),
        ("'infinity', now()", "from 1900 to 2199"),
        ("null, null", "No partition was added"),
        ("now(), '2200-01-01'", "from 1900 to 2199"),
        ("now(), '2100-01-01'", "more than 600 months"),
        ("'1950-01-01', '2000-01-01'", "more than 600 months"),
    ],
)
def test_add_candle_partitions_with_an_invalid_range_adds_none(
    market: psycopg.Connection, range_: str, message: str
) -> None:
    before = market.execute("select count(*) from ohlcv.candle_partitions()").fetchone()
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=message):
        market.execute(f"select ohlcv.add_candle_partitions({range_})")
    assert market.execute("select count(*) from ohlcv.candle_partitions()").fetchone() == before


@pytest.mark.slow
def test_add_candle_partitions_for_fifty_years_fits_in_one_transaction(market: psycopg.Connection) -> None:
    added = "select ohlcv.add_candle_partitions('1950-01-01 00:00+00', '1999-12-31 23:00+00')"
    assert market.execute(added).fetchone() == (600,)


@pytest.mark.slow
def test_open_ingest_transaction_delays_no_new_partition_and_prevents_a_drop(
    market: psycopg.Connection, database_url: str
) -> None:
    with psycopg.connect(database_url) as feed:
        ingest(feed, [candle("A", "1m", DAY)])
        market.execute("set lock_timeout = '1s'")
        added = market.execute("select ohlcv.add_candle_partitions(%s, %s)", [DAY, DAY + timedelta(days=40)]).fetchone()
        assert added == (1,)
        assert market.execute("select ohlcv.drop_candle_partitions('2030-01-01')").fetchone() == ([],), (
            "the drop gives up after 200 ms"
        )


@pytest.mark.slow
@pytest.mark.parametrize("days", [1, 5, 10, 31])
def test_short_retention_drops_a_month_once_and_does_not_recreate_it(
    market: psycopg.Connection, days: int, database_url: str
) -> None:
    as_of = DAY + timedelta(days=30)  # 7 April
    tick(market, run_of(as_of, candle_retention_days=days))
    before = partitions(market)
    assert min(before) == ("candles_202603" if days > 6 else "candles_202604")
    with psycopg.connect(database_url) as reader:
        # The lock prevents a drop, so that a recreated partition is visible.
        reader.execute("lock table only ohlcv.candles in access share mode")
        tick(market, run_of(as_of + 5 * MINUTE, candle_retention_days=days))
    assert partitions(market) == before


@pytest.mark.slow
def test_cleared_old_run_does_not_recreate_dropped_months(market: psycopg.Connection) -> None:
    tick(market, run_of(DAY + timedelta(days=100), candle_retention_days=40))
    before = partitions(market)
    tick(market, run_of(DAY, candle_retention_days=40))
    assert partitions(market) == before


@pytest.mark.slow
def test_correction_of_a_candle_that_is_then_dropped_keeps_its_bar(market: psycopg.Connection) -> None:
    register(market, {"A": "5m"})
    ingest(market, candles("A", "5m", DAY, DAY + HOUR))
    tick(market, run_of(DAY + HOUR + MINUTE))
    before = stored(market)
    ingest(market, [candle("A", "5m", DAY, 99)])
    tick(market, run_of(DAY + timedelta(days=100), candle_retention_days=31))
    assert "candles_202603" not in partitions(market)
    assert before.items() <= stored(market).items()


@pytest.mark.slow
@pytest.mark.parametrize(("environment", "dropped"), [("PROD", True), ("TEST", False)])
def test_asset_active_in_test_only_keeps_no_candles_in_prod(
    market: psycopg.Connection, environment: str, dropped: bool
) -> None:
    register(market, {"A": "5m"}, active=False, test_active=True)
    ingest(market, candles("A", "5m", DAY, DAY + HOUR))
    run = run_of(DAY + timedelta(days=100), candle_retention_days=31, env_name=environment)
    with market.transaction(), market.cursor() as cursor:
        prepare_partitions(cursor, run)
    assert ("candles_202603" not in partitions(market)) is dropped


@pytest.mark.slow
def test_upgrade_renames_the_constraint_of_existing_partitions(market: psycopg.Connection) -> None:
    names = market.execute("select distinct conname from pg_constraint where conname like '%step%'").fetchall()
    tables = "select count(*) from pg_constraint where conname = %s and conrelid::regclass::text like 'ohlcv.candles%%'"
    assert names == [(ALIGNED,)]
    assert market.execute(tables, [ALIGNED]).fetchone() == (3,)
