"""Sample sending domains and their counters (spec: analytics suite, warmup reset).

Three organizations have domains that are new, unverified, or older than 30 days. One name is not a valid domain.
"""

from __future__ import annotations

from datetime import datetime, time, timedelta
from typing import TYPE_CHECKING, Any
from uuid import NAMESPACE_DNS, uuid5

if TYPE_CHECKING:
    from datetime import date

WARMING = ("mail.acme.example", "news.acme.example", "bücher.example", "hello.globex.example", "a/../b c%20🦊")
"""Domains that warm up, whatever the day of the sample."""

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
    """Generate rows of ``delivery.sending_domains`` with their age on ``today``."""
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
    """Generate rows of ``delivery.warmup_counters`` for yesterday, and for today until now."""
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
