"""Sending domains of the sample, and what they sent (spec: analytics suite, warmup reset).

Three organisations, whose domains are new, verified or not, or warm already; one of them has a name that is no domain.
"""

from __future__ import annotations

from datetime import datetime, time, timedelta
from typing import TYPE_CHECKING, Any
from uuid import NAMESPACE_DNS, uuid5

if TYPE_CHECKING:
    from datetime import date

WARMING = ("mail.acme.example", "news.acme.example", "bücher.example", "hello.globex.example", "a/../b c%20🦊")
"""Those that warm up on every day the sample is made for."""

_ORGANIZATIONS = {name: str(uuid5(NAMESPACE_DNS, f"{name}.example")) for name in ("acme", "globex", "initech")}
_DOMAINS = (
    ("acme", "mail.acme.example", True, 3),
    ("acme", "news.acme.example", True, 28),
    ("acme", "acme.example", True, 400),
    ("acme", "unverified.acme.example", False, 2),
    ("globex", "bücher.example", True, 10),
    ("globex", "hello.globex.example", True, 1),
    ("initech", "a/../b c%20🦊", True, 15),
    ("initech", "initech.example", True, 31),
)


def sending_domains(today: date) -> list[dict[str, Any]]:
    """Rows of ``delivery.sending_domains``, as old as they are on ``today``."""
    midnight = datetime.combine(today, time())
    return [
        {
            "organization_id": _ORGANIZATIONS[organization],
            "domain": domain,
            "verified": verified,
            "created_at": midnight - timedelta(days=days),
        }
        for organization, domain, verified, days in _DOMAINS
    ]


def counters(today: date) -> list[dict[str, Any]]:
    """Rows of ``delivery.warmup_counters`` for yesterday, and for today so far."""
    return [
        {
            "organization_id": _ORGANIZATIONS[organization],
            "domain": domain,
            "day": day,
            "sent": sent,
        }
        for number, (organization, domain, _, days) in enumerate(_DOMAINS)
        for day, sent in ((today - timedelta(days=1), 50 * min(days, 30) + number), (today, number))
        if sent
    ]
