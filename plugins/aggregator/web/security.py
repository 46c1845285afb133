"""Who may call our API: Airflow protects none of what a plugin mounts."""

from __future__ import annotations

import hmac
import unicodedata
from http import HTTPStatus
from typing import TYPE_CHECKING, Annotated

from fastapi import Depends, HTTPException
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from aggregator.core.settings import ApiSettings

if TYPE_CHECKING:
    from pydantic import SecretStr

_DESCRIPTION = "The secret of the deployment's setting."
_cron = HTTPBearer(auto_error=False, scheme_name="CRON_SECRET", description=_DESCRIPTION)
_scheduler = HTTPBearer(auto_error=False, scheme_name="SCHEDULER_API_KEY", description=_DESCRIPTION)


def require_cron_secret(given: Annotated[HTTPAuthorizationCredentials | None, Depends(_cron)]) -> None:
    """Let only those in who send ``Authorization: Bearer $CRON_SECRET`` (spec: telemetry).

    Args:
        given: The bearer of the request, if it has one.

    Raises:
        HTTPException: 401 without the secret, 503 if none is configured, or one that no header can carry.
    """
    _require("CRON_SECRET", ApiSettings.load().cron_secret, given)


def require_scheduler_api_key(given: Annotated[HTTPAuthorizationCredentials | None, Depends(_scheduler)]) -> None:
    """Let only those in who send ``Authorization: Bearer $SCHEDULER_API_KEY`` (spec: KPI dispatch, report-back).

    Args:
        given: The bearer of the request, if it has one.

    Raises:
        HTTPException: 401 without the key, 503 if none is configured, or one that no header can carry.
    """
    _require("SCHEDULER_API_KEY", ApiSettings.load().scheduler_api_key, given)


def _require(name: str, secret: SecretStr | None, given: HTTPAuthorizationCredentials | None) -> None:
    if secret is None:
        raise HTTPException(HTTPStatus.SERVICE_UNAVAILABLE, f"No {name} is configured, so nobody is let in.")
    if any(unicodedata.category(character) == "Cc" for character in secret.get_secret_value()):
        text = f"{name} has a line break or another control character in it, so nobody can send it. Correct it."
        raise HTTPException(HTTPStatus.SERVICE_UNAVAILABLE, text)
    # Headers arrive decoded as Latin-1; as bytes, any of them can be compared in constant time.
    sent = given.credentials.encode("latin-1") if given else b""
    if not hmac.compare_digest(sent, secret.get_secret_value().encode()):
        raise HTTPException(
            HTTPStatus.UNAUTHORIZED, f"Send Authorization: Bearer ${name}.", headers={"WWW-Authenticate": "Bearer"}
        )
