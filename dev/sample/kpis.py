"""KPIs of the local stack: the registry, and the workflows of the n8n stand-in."""

from __future__ import annotations

from typing import Any

from dev.n8n.app import Workflow

NAMES = {
    "btc-price": ("Bitcoin Price", "price"),
    "eth-price": ("Ether Price", "price"),
    "fear-greed": ("Fear & Greed Index", "index"),
    "btc-dominance": ("Bitcoin Dominance", "ratio"),
    "total-market-cap": ("Total Market Capitalization", "sum"),
    "stablecoin-supply": ("Stablecoin Supply", "sum"),
}
"""ID → name and type."""

REPORTING = {"fear-greed", "stablecoin-supply"}
"""IDs of the KPIs whose workflow reports back."""


def registry(n8n_url: str) -> dict[str, Any]:
    """Return the value of the Variable ``kpi-registry``.

    Args:
        n8n_url: URL of n8n.
    """
    kpis = [
        {
            "id": id_,
            "name": name,
            "description": f"{name}, once a day",
            "type": type_,
            "active": True,
            "webhookUrl": f"{n8n_url}/webhook/{id_}",
            "reportBack": id_ in REPORTING,
        }
        for id_, (name, type_) in NAMES.items()
    ]
    retired = {**kpis[0], "id": "btc-price-old", "active": False}
    return {"kpis": [*kpis, retired], "metadata": {"version": "1.0.0", "totalKPIs": len(kpis) + 1}}


def workflows() -> dict[str, Workflow]:
    """Return path of a webhook → workflow."""
    return {id_: Workflow(reports="completed" if id_ in REPORTING else None) for id_ in NAMES}
