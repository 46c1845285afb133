"""Authorization of the HTTP API. Airflow does not protect the apps of a plugin."""

from __future__ import annotations

import hmac
import unicodedata
from http import HTTPStatus
from typing import TYPE_CHECKING

from fastapi import HTTPException, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from aggregator.core.settings import ApiSettings

if TYPE_CHECKING:
    from pydantic import SecretStr


class RequireSecret(HTTPBearer):
    """Dependency that requires ``Authorization: Bearer`` with a secret of :class:`ApiSettings`.

    Args:
        name: Name of the setting, in capitals.
    """

    def __init__(self, name: str) -> None:
        description = "The value of the deployment's setting with this name."
        super().__init__(auto_error=False, scheme_name=name, description=description)

    async def __call__(self, request: Request) -> HTTPAuthorizationCredentials | None:
        """Check the bearer of a request.

        Raises:
            HTTPException: 401 if the bearer is missing or wrong; 503 if no usable secret is configured.
        """
        given, name = await super().__call__(request), self.scheme_name
        secret: SecretStr | None = getattr(ApiSettings.load(), name.lower())
        if secret is None:
            text = f"{name} is not configured, so every request is refused. Set it in the API server's environment."
            raise HTTPException(HTTPStatus.SERVICE_UNAVAILABLE, text)
        if any(unicodedata.category(character) == "Cc" for character in secret.get_secret_value()):
            text = f"{name} has a line break or another control character in it, so no request can send it. Correct it."
            raise HTTPException(HTTPStatus.SERVICE_UNAVAILABLE, text)
        # Headers arrive decoded as Latin-1. Bytes of any value can be compared in constant time.
        sent = given.credentials.encode("latin-1") if given else b""
        if not hmac.compare_digest(sent, secret.get_secret_value().encode()):
            raise HTTPException(
                HTTPStatus.UNAUTHORIZED, f"Send Authorization: Bearer ${name}.", headers={"WWW-Authenticate": "Bearer"}
            )
        return given
