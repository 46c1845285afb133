"""Peers of `dev.bench.ohlcv`: the original design, one statement per task, DuckDB, Polars, and a floor.

All read the same candles and write the same bars, each into its own table. DuckDB's own PostgreSQL extension has to be
downloaded. ADBC, which transfers Arrow over binary COPY, is the fastest way without a download.
"""

from __future__ import annotations

from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import polars as pl
import psycopg
import pyarrow as pa
from adbc_driver_postgresql import dbapi

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    Ranges = Mapping[str, tuple[datetime, datetime]]

SIZES = {
    "15m": timedelta(minutes=15),
    "1h": timedelta(hours=1),
    "4h": timedelta(hours=4),
    "1d": timedelta(days=1),
}
SOURCES = {"15m": "1m", "1h": "15m", "4h": "1h", "1d": "4h"}

COLUMNS = "symbol, timeframe, ts, open, high, low, close, volume, price_volume, trades, candles"

_WHERE = "where timeframe = '{source}' and ts >= '{start}' and ts < '{end}'"
# Integers, because decimals are slow in the engines, and floating-point sums depend on the order of the rows.
_READ_CANDLES = f"""
select symbol, ts, open, high, low, close, (volume * 1000)::bigint as volume,
    ((high + low + close) * 100)::bigint * (volume * 1000)::bigint as price_volume, trades::bigint, 1::bigint as candles
from ohlcv.candles {_WHERE}
"""
_READ_BARS = f"""
select symbol, ts, open, high, low, close, (volume * 1000)::bigint as volume,
    (price_volume * 100000)::bigint as price_volume, trades, candles::bigint
from peer.bars {_WHERE}
"""
_WRITE = f"""
insert into peer.bars ({COLUMNS}, expected_candles, derivation_version)
select made.*, {{expected}}, 1
from (
    select symbol, timeframe, ts, open, high, low, close, volume * 0.001 as volume,
        price_volume * 0.00001 as price_volume, trades, candles::integer
    from pg_temp.made
) as made
left join peer.bars as stored using (symbol, timeframe, ts)
where (stored.open, stored.high, stored.low, stored.close, stored.volume, stored.price_volume, stored.trades,
    stored.candles) is distinct from (made.open, made.high, made.low, made.close, made.volume, made.price_volume,
    made.trades, made.candles)
on conflict (symbol, timeframe, ts) do update set (open, high, low, close, volume, price_volume, trades, candles) = (
    excluded.open, excluded.high, excluded.low, excluded.close, excluded.volume, excluded.price_volume, excluded.trades,
    excluded.candles)
"""
_EXPECTED = "(case timeframe when '15m' then 15 when '1h' then 60 when '4h' then 240 else 1440 end)"
_DUCKDB = """
select symbol, make_timestamptz(epoch_us(ts) // {us} * {us}) as ts, arg_min(open, ts) as open, max(high) as high,
    min(low) as low, arg_max(close, ts) as close, sum(volume)::bigint as volume,
    sum(price_volume)::bigint as price_volume, sum(trades)::bigint as trades, sum(candles)::bigint as candles
from source group by all
"""
_PER_TASK = """
insert into peer.bars (symbol, timeframe, ts, open, high, low, close, volume, price_volume, trades, candles,
    expected_candles, derivation_version)
select symbol, %(timeframe)s, date_bin(%(size)s, ts, '2000-01-01 00:00+00'), (array_agg(open order by ts))[1],
    max(high), min(low), (array_agg(close order by ts desc))[1], sum(volume),
    sum((high + low + close)::numeric * volume), sum(trades), count(*), extract(epoch from %(size)s) / 60, 1
from ohlcv.candles
where symbol = %(symbol)s and timeframe = '1m' and ts >= %(start)s and ts < %(end)s
group by 1, 3
on conflict (symbol, timeframe, ts) do update set (open, high, low, close, volume, price_volume, trades, candles) = (
    excluded.open, excluded.high, excluded.low, excluded.close, excluded.volume, excluded.price_volume, excluded.trades,
    excluded.candles)
"""
_FLOOR = """
insert into peer.bars (symbol, timeframe, ts, open, high, low, close, volume, price_volume, trades, candles,
    expected_candles, derivation_version)
select symbol, %(timeframe)s, date_bin(%(size)s, ts, '2000-01-01 00:00+00'), min(low), max(high), min(low), max(high),
    sum(volume), sum({price_volume}), sum(trades), sum({candles}), extract(epoch from %(size)s) / 60, 1
from {source}
where timeframe = %(source)s and ts >= %(start)s and ts < %(end)s
group by 1, 3
"""

# As in ohlcv.checked_candles, for prices with up to six decimals.
_PRICE_VOLUME = "round((high + low + close) * 1e6)::bigint * 0.000001 * volume"


def create(connection: psycopg.Connection) -> None:
    """Create the tables and functions of the peers in a migrated database."""
    connection.execute("create schema peer; create table peer.bars (like ohlcv.bars including all)")
    connection.execute(Path(__file__).with_name("ohlcv_original.sql").read_text())


def original(url: str, ranges: Ranges, symbols: Sequence[str], as_of: datetime) -> None:
    """Build the bars by three calls per task, each in its own transaction, like the requests of the Worker."""
    with psycopg.connect(url, autocommit=True) as connection:
        for symbol in symbols:
            for timeframe in ranges:
                task = (symbol, timeframe)
                ((cursor,),) = connection.execute("select original.agg_start(%s, %s)", task).fetchall()
                ((*done,),) = connection.execute(
                    "select * from original.catchup_aggregation_range(%s, %s, %s, %s)", [*task, cursor, as_of]
                ).fetchall()
                connection.execute("select original.agg_finish(%s, %s, %s, %s, %s, %s)", [*task, *done])


def per_task(url: str, ranges: Ranges, symbols: Sequence[str]) -> None:
    """Build the bars by one statement per task, straight from the candles; open and close from sorted arrays."""
    with psycopg.connect(url, autocommit=True) as connection:
        for symbol in symbols:
            for timeframe, (start, end) in ranges.items():
                given = {"symbol": symbol, "timeframe": timeframe, "start": start, "end": end}
                connection.execute(_PER_TASK, given | {"size": SIZES[timeframe]})


def floor(url: str, ranges: Ranges) -> None:
    """Run the same scan and insert without open and close: the minimum for PostgreSQL. These columns differ."""
    with psycopg.connect(url) as connection:
        connection.execute("set local work_mem = '64MB'; set local jit = off")
        for timeframe, (start, end) in ranges.items():
            is_base = timeframe == "15m"
            statement = _FLOOR.format(
                source="ohlcv.candles" if is_base else "peer.bars",
                price_volume=_PRICE_VOLUME if is_base else "price_volume",
                candles=1 if is_base else "candles",
            )
            given = {"timeframe": timeframe, "size": SIZES[timeframe], "source": SOURCES[timeframe]}
            connection.execute(statement, given | {"start": start, "end": end})


def with_duckdb(url: str, ranges: Ranges, base: str = "1m") -> None:
    """Build the bars with DuckDB on Arrow tables of candles of timeframe `base`, and upsert them."""
    with duckdb.connect() as engine:

        def roll_up(source: pa.Table, size: timedelta) -> pa.Table:
            engine.register("source", source)
            return engine.sql(_DUCKDB.format(us=size // timedelta(microseconds=1))).to_arrow_table()

        engine.execute("set timezone = 'UTC'")
        _through_arrow(url, ranges, base, roll_up)


def with_polars(url: str, ranges: Ranges, base: str = "1m") -> None:
    """Build the bars with Polars on Arrow tables of candles of timeframe `base`, and upsert them."""

    def roll_up(source: pa.Table, size: timedelta) -> pa.Table:
        frame = pl.DataFrame(pl.from_arrow(source)).lazy()
        made = frame.group_by("symbol", pl.col("ts").dt.truncate(size).alias("start")).agg(
            pl.col("open").min_by("ts"),
            pl.col("high").max(),
            pl.col("low").min(),
            pl.col("close").max_by("ts"),
            pl.col("volume", "price_volume", "trades", "candles").sum(),
        )
        return made.rename({"start": "ts"}).collect().to_arrow()

    _through_arrow(url, ranges, base, roll_up)


def _through_arrow(url: str, ranges: Ranges, base: str, roll_up: Callable[[pa.Table, timedelta], pa.Table]) -> None:
    """Build each timeframe from the one before it: from its stored bars and from those just built."""
    made: list[pa.Table] = []
    with closing(dbapi.connect(url)) as connection, closing(connection.cursor()) as cursor:
        starts = [start for start, _ in ranges.values()]
        for number, (timeframe, (start, end)) in enumerate(ranges.items()):
            if number == 0:
                source = _read(cursor, _READ_CANDLES, base, start, end)
            else:
                finer = SOURCES[timeframe]
                window = made[-1].select([name for name in made[-1].column_names if name != "timeframe"])
                parts = [window]
                if start < starts[number - 1]:
                    parts.append(_read(cursor, _READ_BARS, finer, start, starts[number - 1]).cast(window.schema))
                source = pa.concat_tables(parts)
            bars = roll_up(source, SIZES[timeframe])
            made.append(bars.append_column("timeframe", pa.array([timeframe] * len(bars), pa.string())))
        cursor.adbc_ingest("made", pa.concat_tables(made), mode="create", temporary=True)
        cursor.execute(_WRITE.format(expected=_EXPECTED))
        connection.commit()


def _read(cursor: Any, query: str, source: str, start: datetime, end: datetime) -> pa.Table:
    cursor.execute(query.format(source=source, start=start.isoformat(), end=end.isoformat()))
    return cursor.fetch_arrow_table()
