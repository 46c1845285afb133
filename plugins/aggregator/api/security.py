"""Who may call the API of the jobs: Airflow protects none of what a plugin mounts."""

from __future__ import annotations

import hmac
from http import HTTPStatus
from typing import Annotated

from fastapi import Depends, HTTPException
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from aggregator import settings

_bearer = HTTPBearer(auto_error=False, scheme_name="CRON_SECRET", description="The secret of the deployment's setting.")


def require_cron_secret(given: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]) -> None:
    """Let only those in who send ``Authorization: Bearer $CRON_SECRET`` (spec: telemetry).

    Args:
        given: The bearer of the request, if it has one.

    Raises:
        HTTPException: 401 without the secret, 503 if none is configured.
    """
    secret = settings.load().cron_secret
    if secret is None:
        raise HTTPException(HTTPStatus.SERVICE_UNAVAILABLE, "No CRON_SECRET is configured, so nobody is let in.")
    # Headers arrive decoded as Latin-1; as bytes, any of them can be compared in constant time.
    sent = given.credentials.encode("latin-1") if given else b""
    if not hmac.compare_digest(sent, secret.get_secret_value().encode()):
        raise HTTPException(
            HTTPStatus.UNAUTHORIZED, "Send Authorization: Bearer $CRON_SECRET.", headers={"WWW-Authenticate": "Bearer"}
        )
