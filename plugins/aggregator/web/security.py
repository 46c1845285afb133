"""Authorization of the HTTP API. Airflow does not protect the apps of a plugin."""

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

_DESCRIPTION = "The value of the deployment's setting with this name."
_cron = HTTPBearer(auto_error=False, scheme_name="CRON_SECRET", description=_DESCRIPTION)
_scheduler = HTTPBearer(auto_error=False, scheme_name="SCHEDULER_API_KEY", description=_DESCRIPTION)


def require_cron_secret(given: Annotated[HTTPAuthorizationCredentials | None, Depends(_cron)]) -> None:
    """Require ``Authorization: Bearer $CRON_SECRET`` (spec: telemetry).

    Args:
        given: The bearer of the request, if it has one.

    Raises:
        HTTPException: 401 if the bearer is missing or wrong; 503 if no usable secret is configured.
    """
    _require("CRON_SECRET", ApiSettings.load().cron_secret, given)


def require_scheduler_api_key(given: Annotated[HTTPAuthorizationCredentials | None, Depends(_scheduler)]) -> None:
    """Require ``Authorization: Bearer $SCHEDULER_API_KEY`` (spec: KPI dispatch, report-back).

    Args:
        given: The bearer of the request, if it has one.

    Raises:
        HTTPException: 401 if the bearer is missing or wrong; 503 if no usable key is configured.
    """
    _require("SCHEDULER_API_KEY", ApiSettings.load().scheduler_api_key, given)


def _require(name: str, secret: SecretStr | None, given: HTTPAuthorizationCredentials | None) -> None:
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
