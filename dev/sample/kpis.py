"""KPIs of the local stack: the registry, and their workflows in the n8n stand-in."""

from __future__ import annotations

from typing import Any

from dev.n8n.app import Workflow

NAMES = {
    "btc-price": ("Bitcoin Price", "price"),
    "eth-price": ("Ether Price", "price"),
    "fear-greed": ("Fear & Greed Index", "index"),
    "btc-dominance": ("Bitcoin Dominance", "ratio"),
    "total-market-cap": ("Total Market Capitalisation", "sum"),
    "stablecoin-supply": ("Stablecoin Supply", "sum"),
}
"""Id → name and type."""

REPORTING = {"fear-greed", "stablecoin-supply"}
"""Those whose workflow reports back."""


def registry(n8n_url: str) -> dict[str, Any]:
    """The Variable ``kpi-registry``.

    Args:
        n8n_url: Where n8n listens.
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
    """The workflows by the path of their webhook."""
    return {id_: Workflow(reports="completed" if id_ in REPORTING else None) for id_ in NAMES}
