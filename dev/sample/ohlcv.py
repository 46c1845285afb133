"""Base candles of 1m and 5m: gaps, weekends, some that come late or are corrected, and a symbol that is poisoned."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import date


@dataclass(frozen=True)
class Asset:
    """A symbol of the registry, and what its feed is like.

    Attributes:
        symbol: Its name.
        base_timeframe: ``1m`` or ``5m``.
        price: Where its price begins.
        hours: First and last hour of trading in UTC, the last one exclusive.
        weekends: Whether it trades on Saturday and Sunday.
        missing: Share of the candles that never come.
        active: As in ``ohlcv.assets``.
        mandatory: Likewise.
    """

    symbol: str
    base_timeframe: str
    price: float
    hours: tuple[int, int] = (0, 24)
    weekends: bool = True
    missing: float = 0.005
    active: bool = True
    mandatory: bool = False


POISONED = "GLITCH"
"""Its feed sent a candle that is not a number, in the middle of the last day."""

ASSETS = (
    Asset("BTCUSD", "1m", 64_000, mandatory=True),
    Asset("EURUSD", "1m", 1.17, weekends=False),
    Asset("AAPL", "5m", 230, hours=(14, 21), weekends=False),
    Asset("THINLY", "5m", 4.2, missing=0.35),
    Asset("O'NEIL", "5m", 12, hours=(8, 17), active=False),
    Asset(POISONED, "5m", 100),
)

MINUTES = {"1m": 1, "5m": 5}

LATE_EVERY = 97
"""One candle of so many comes late, and another one is corrected later."""


def assets() -> Iterator[dict[str, Any]]:
    """Rows of ``ohlcv.assets``; what is not active is ``test_active``."""
    for asset in ASSETS:
        yield {
            "symbol": asset.symbol,
            "base_timeframe": asset.base_timeframe,
            "active": asset.active,
            "test_active": not asset.active,
            "mandatory": asset.mandatory,
        }


def candles(day: date, *, poisoned: bool = False) -> Iterator[dict[str, Any]]:
    """Rows of ``ohlcv.candles`` that came in time.

    Args:
        day: The UTC day; it alone decides them.
        poisoned: Whether `POISONED` sends its broken candle at noon.

    Yields:
        Rows by column name, those of a symbol in order.
    """
    for asset in ASSETS:
        for number, row in enumerate(_walk(asset, day)):
            if number % LATE_EVERY != LATE_EVERY - 1:
                broken = poisoned and asset.symbol == POISONED and row["ts"].time() == time(12)
                yield {**row, "close": float("nan")} if broken else row


def late_candles(day: date) -> Iterator[dict[str, Any]]:
    """Rows of ``ohlcv.candles`` of a day that come late, and corrections of others: higher by a tenth.

    Args:
        day: The UTC day.

    Yields:
        Rows by column name.
    """
    for asset in ASSETS:
        for number, row in enumerate(_walk(asset, day)):
            if number % LATE_EVERY == LATE_EVERY - 1:
                yield row
            elif number % LATE_EVERY == LATE_EVERY // 2:
                yield {**row, "high": round(row["high"] * 1.1, 5)}


def _walk(asset: Asset, day: date) -> Iterator[dict[str, Any]]:
    if day.weekday() in {5, 6} and not asset.weekends:
        return
    chance = random.Random(f"{asset.symbol} {day}")  # noqa: S311 - a sample, not a secret
    price = asset.price * chance.uniform(0.9, 1.1)
    opens = datetime.combine(day, time(), UTC)
    for minute in range(asset.hours[0] * 60, asset.hours[1] * 60, MINUTES[asset.base_timeframe]):
        close = price * (1 + chance.gauss(0, 0.0005))
        high, low = max(price, close) * (1 + chance.random() / 5000), min(price, close) * (1 - chance.random() / 5000)
        volume, trades = Decimal(chance.randrange(0, 500_000)) / 1000, chance.randrange(0, 400)
        if chance.random() >= asset.missing:
            yield {
                "symbol": asset.symbol,
                "timeframe": asset.base_timeframe,
                "ts": opens + timedelta(minutes=minute),
                "open": round(price, 5),
                "high": round(high, 5),
                "low": round(low, 5),
                "close": round(close, 5),
                "volume": volume,
                "trades": trades,
            }
        price = close
