"""Sample clicks, deterministic by day (spec: clicks).

Each day has the cases that the rollup must handle: sampled rows, bots, equal events, unknown hires, events without a
hire, and the first and the last second of the day. Nights have few clicks, and evenings many.
"""

from __future__ import annotations

import random
from datetime import UTC, datetime, time, timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import date

EVENTS_A_DAY = 4000
"""Approximate number of rows per day."""

UNKNOWN_HIRES = ("hire-ended-1", "hire-ended-2", "hire-of-another-stage")
"""Hire IDs of events that are not in `hires`."""

_HIRES = (*(f"hire-{number:03d}" for number in range(1, 39)), 'hire-o\'brien-"quoted"', "hire-🦊")
_HOSTS = ("go.example.com", "link.example.org", "click.example.net")
_COUNTRIES = ("US", "DE", "GB", "IN", "BR", "JP", "NG")
_NETWORKS = ("7922", "3320", "2856", "55836", "16509")
_REFERRERS = ("", "https://news.example.com/", "https://search.example.com/?q=a+b", "https://social.example.net/p/1")
_BUCKETS = ("valid", "tier_a", "tier_b")
_BUCKET_WEIGHTS = (82, 12, 6)
_SAMPLE_INTERVALS = (1, 2, 5, 10)
_SAMPLE_WEIGHTS = (85, 8, 5, 2)
_HOUR_WEIGHTS = (3, 2, 1, 1, 1, 2, 4, 6, 8, 9, 9, 9, 10, 10, 9, 9, 10, 11, 13, 14, 14, 12, 8, 5)
_LAST_SECOND = timedelta(hours=23, minutes=59, seconds=59)
_DUPLICATE_EVERY = 50


def hires() -> list[dict[str, str]]:
    """Generate rows of ``public.hires``: 40 IDs, one with quotes and one with an emoji."""
    return [{"id": hire} for hire in _HIRES]


def events(day: date) -> Iterator[dict[str, Any]]:
    """Generate rows of the dataset ``clicks``.

    Args:
        day: UTC day of the events.

    Yields:
        About `EVENTS_A_DAY` rows by column name, in any order.
    """
    chance = random.Random(day.toordinal())  # noqa: S311 - a sample, not a secret
    midnight = datetime.combine(day, time(), UTC)
    busy = round(EVENTS_A_DAY * (0.75 if day.weekday() in {5, 6} else 1) * chance.uniform(0.9, 1.1))
    known = [*_HIRES, *UNKNOWN_HIRES, ""]
    popular = [1 / (place + 1) for place in range(len(known))]
    hours = chance.choices(range(24), _HOUR_WEIGHTS, k=busy)
    moments = [timedelta(), _LAST_SECOND, *(timedelta(hours=h, seconds=chance.randrange(3600)) for h in hours)]
    chosen = zip(
        moments,
        # Every hire at least once, so that each day has the rare ones.
        [known[0], known[0], *known, *chance.choices(known, popular, k=busy)],
        chance.choices(_BUCKETS, _BUCKET_WEIGHTS, k=len(moments)),
        chance.choices(_SAMPLE_INTERVALS, _SAMPLE_WEIGHTS, k=len(moments)),
        chance.choices(_HOSTS, k=len(moments)),
        chance.choices(_COUNTRIES, k=len(moments)),
        chance.choices(_NETWORKS, k=len(moments)),
        chance.choices(_REFERRERS, k=len(moments)),
        strict=False,
    )
    for number, (offset, hire, bucket, interval, host, country, network, referrer) in enumerate(chosen):
        event = {
            "timestamp": f"{midnight + offset:%Y-%m-%d %H:%M:%S}",
            "index1": hire,
            "_sample_interval": interval,
            "blob1": host,
            "blob2": f"/r/{number % 97}",
            "blob3": f"route-{number % 97}",
            "blob4": hire,
            "blob5": country,
            "blob6": network,
            "blob7": bucket,
            "blob8": referrer,
            "double1": 1,
            "double2": 0 if bucket == "valid" else 1,
        }
        yield event
        if number % _DUPLICATE_EVERY == 0:
            yield event
