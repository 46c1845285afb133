"""The account whose datasets are queried, from an Airflow connection."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import quote

from requests.auth import AuthBase

from aggregator.core import connections
from aggregator.core.errors import PermanentError

if TYPE_CHECKING:
    import requests
    from airflow.sdk import Connection

DEFAULT_HOST = "https://api.cloudflare.com"

_TOKEN = re.compile(r"[!-~]+")


@dataclass(frozen=True)
class Account(AuthBase):
    """An account's URL and token. It is an authentication of requests, so that no ``.netrc`` replaces the token.

    Attributes:
        url: Address of the SQL API.
        token: API token.
    """

    url: str
    token: str = field(repr=False)

    @classmethod
    def of(cls, conn_id: str) -> Account:
        """Read the account from a connection.

        Args:
            conn_id: Airflow connection, as `AnalyticsEngineHook` describes it.

        Raises:
            PermanentError: The connection does not exist, or has no usable token or no account.
        """
        connection = connections.get(conn_id)
        token = connection.password or ""
        if not _TOKEN.fullmatch(token):
            msg = (
                f"Connection {conn_id!r} has no valid API token as its password. Nothing was sent. Set it to a "
                "Cloudflare API token (permission: Account Analytics Read)."
            )
            raise PermanentError(msg)
        account_id = connection.extra_dejson.get("account_id")
        if not isinstance(account_id, str) or not account_id:
            msg = f'Connection {conn_id!r} has no account id. Nothing was sent. Set its extra to {{"account_id": "…"}}.'
            raise PermanentError(msg)
        path = f"/client/v4/accounts/{quote(account_id, safe='')}/analytics_engine/sql"
        return cls(_base_url(connection) + path, token)

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Add the token to a request."""
        request.headers["Authorization"] = f"Bearer {self.token}"
        return request

    def redact(self, text: str) -> str:
        """Replace the token in a text by asterisks."""
        return text.replace(self.token, "***")


def _base_url(connection: Connection) -> str:
    host = (connection.host or DEFAULT_HOST).rstrip("/")
    if "://" not in host:
        host = f"{connection.schema or 'https'}://{host}"
    return f"{host}:{connection.port}" if connection.port else host
