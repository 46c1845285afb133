"""Candles as hypothesis makes them, and ticks as Airflow would run them."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

from aggregator.core.settings import OhlcvSettings
from aggregator.ohlcv.aggregate import aggregate
from aggregator.ohlcv.plan import plan, prepare_partitions
from aggregator.ohlcv.run import Run, finish
from tests.oracles import bars_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import psycopg

DAY = datetime(2026, 3, 8, tzinfo=UTC)
"""In New York, this day has 23 hours."""

MINUTE = timedelta(minutes=1)
STEPS = {"1m": MINUTE, "5m": 5 * MINUTE}
COLUMNS = "symbol, timeframe, ts, open, high, low, close, volume, trades"
ROOMY = OhlcvSettings(max_tasks_per_run=100_000, max_windows_per_task=100_000, env_name="PROD")

FOREVER = datetime.max.replace(tzinfo=UTC)
"""A run that has time until then stops when there is nothing left to build."""

Candle = tuple[Any, ...]


def candle(symbol: str, base: str, ts: datetime, price: float = 10, **other: Any) -> Candle:
    """A candle, valid unless ``other`` makes it invalid."""
    values = {
        "open": price,
        "high": price + 1,
        "low": price - 1,
        "close": price + 0.5,
        "volume": Decimal("1.5"),
        "trades": 2,
    } | other
    return (symbol, base, ts, *values.values())


def candles(symbol: str, base: str, start: datetime, end: datetime, **other: Any) -> list[Candle]:
    """A candle at every step of ``[start, end)``, the price going up by 1."""
    count = (end - start) // STEPS[base]
    return [candle(symbol, base, start + number * STEPS[base], 10 + number, **other) for number in range(count)]


def any_candles(feeds: Sequence[tuple[str, str]], days: int) -> st.SearchStrategy[list[Candle]]:
    """Candles of some feeds in the days from `DAY` on, in any order, with gaps; of equal keys the last one counts."""

    def made(feed: tuple[str, str], slot: int, cents: list[int], volume: int, trades: int | None) -> Candle:
        symbol, base = feed
        low, *between, high = sorted(cents)
        ts = DAY + slot * (timedelta(days=days) // 480 // STEPS[base] * STEPS[base])
        prices = (between[0] / 100, high / 100, low / 100, between[1] / 100)
        return (symbol, base, ts, *prices, Decimal(volume) / 1000, trades)

    row = st.builds(
        made,
        st.sampled_from(feeds),
        st.integers(0, 479),
        st.lists(st.integers(1, 10_000_000), min_size=4, max_size=4),
        st.integers(0, 10**9),
        st.none() | st.integers(0, 9),
    )
    return st.lists(row, max_size=40)


def register(connection: psycopg.Connection, symbols: dict[str, str], **columns: Any) -> None:
    """Add symbols with their base timeframes to the registry."""
    names = ["symbol", "base_timeframe", *columns]
    for symbol, base in symbols.items():
        connection.execute(
            f"insert into ohlcv.assets ({', '.join(names)}) values ({', '.join(['%s'] * len(names))})",
            [symbol, base, *columns.values()],
        )


def ingest(connection: psycopg.Connection, rows: Iterable[Candle]) -> None:
    """Upsert candles by one statement, as a feed does; of equal keys the last one counts."""
    latest = {row[:3]: row for row in rows}
    if not latest:
        return
    columns = [list(column) for column in zip(*latest.values(), strict=True)]
    connection.execute(
        f"""
        insert into ohlcv.candles ({COLUMNS})
        select * from unnest(
            %s::text[], %s::text[], %s::timestamptz[], %s::float8[], %s::float8[], %s::float8[], %s::float8[],
            %s::numeric[], %s::int[]
        )
        on conflict (symbol, timeframe, ts) do update set (open, high, low, close, volume, trades)
            = (excluded.open, excluded.high, excluded.low, excluded.close, excluded.volume, excluded.trades)
        """,
        columns,
    )


def run_of(
    moment: datetime, run_id: str | None = None, *, repeat_until: datetime | None = None, **different: Any
) -> Run:
    """The run that is due at a moment, a minute after its interval's end; its settings starve nobody."""
    end = moment - MINUTE
    name = run_id or f"scheduled__{moment:%Y%m%d%H%M}"
    return Run(name, end - 5 * MINUTE, end, moment, ROOMY.model_copy(update=different), repeat_until)


def tick(connection: psycopg.Connection, run: Run) -> dict[str, Any]:
    """One run: plan, aggregate, finish, each in a transaction of its own."""
    with transaction(connection) as cursor:
        prepare_partitions(cursor, run)
    with transaction(connection) as cursor:
        shards = plan(cursor, run)
    for shard in shards:
        aggregate(partial(transaction, connection), run, **shard)
    with transaction(connection) as cursor:
        return finish(cursor, run)


@contextmanager
def transaction(connection: psycopg.Connection) -> Iterator[psycopg.Cursor]:
    """A transaction on a connection that is in autocommit, and its cursor."""
    with connection.transaction(), connection.cursor() as cursor:
        yield cursor


def stored(connection: psycopg.Connection) -> dict[tuple[str, str, datetime], Any]:
    """All bars, as the oracle has them."""
    query = """
        select symbol, timeframe, ts, open, high, low, close, volume, price_volume, trades, candles, quality
        from ohlcv.bars
    """
    return {(symbol, frame, ts.astimezone(UTC)): tuple(row) for symbol, frame, ts, *row in connection.execute(query)}


def expected(connection: psycopg.Connection, as_of: datetime, but: str = "") -> dict[tuple[str, str, datetime], Any]:
    """What the oracle makes of the candles that are stored, but those of a symbol that makes no bars."""
    rows = [
        (symbol, base, ts.astimezone(UTC), *values)
        for symbol, base, ts, *values in connection.execute(
            f"""
            select {COLUMNS} from ohlcv.candles
            where symbol <> %s and (
                (symbol, timeframe) in (select symbol, base_timeframe from ohlcv.assets)
                or symbol in (select symbol from ohlcv.former_base_timeframes)
            )
            """,
            [but],
        )
    ]
    in_use = connection.execute(
        """
        select symbol, used.timeframe, greatest(used.starts_at, '1990-01-01+00'), least(used.ends_at, '2100-01-01+00')
        from ohlcv.assets, ohlcv.base_timeframes(symbol, base_timeframe) as used
        """
    ).fetchall()
    return bars_of(rows, as_of - timedelta(seconds=30), in_use)


def versions(connection: psycopg.Connection) -> list[Any]:
    """What changes when a bar is rewritten or locked, too."""
    query = "select symbol, timeframe, ts, xmin, xmax, ctid from ohlcv.bars order by symbol, timeframe, ts"
    return connection.execute(query).fetchall()


def tasks(connection: psycopg.Connection, columns: str, where: str = "true") -> list[Any]:
    """Some columns of the tasks, by symbol and size."""
    return connection.execute(f"select {columns} from ohlcv.tasks where {where} order by symbol, size").fetchall()
