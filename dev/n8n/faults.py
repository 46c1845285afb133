"""Responses of n8n, and of proxies in front of it, for tests and drills."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

from dev.stand_in.faults import Fault

_HTML: Final = {"Content-Type": "text/html; charset=utf-8"}
_JSON: Final = {"Content-Type": "application/json; charset=utf-8"}

STARTING = Fault(status=HTTPStatus.OK, body="n8n is starting up. Please wait", headers=_HTML)
"""Response of n8n 2.41 to every path and method until its migrations are done."""

UNREGISTERED = Fault(
    status=HTTPStatus.NOT_FOUND,
    body='<!DOCTYPE html>\n<html lang="en"><head><title>Error</title></head>'
    "<body><pre>Cannot POST /webhook</pre></body></html>",
    headers=_HTML,
)
"""Response after that, until n8n has registered its webhooks."""

REPUBLISHING = Fault(
    status=HTTPStatus.NOT_FOUND,
    body='{"code":404,"message":"The requested webhook \\"POST w\\" is not registered."}',
    headers=_JSON,
)
"""Response for about a second while a workflow is republished."""

PROXY_RESTARTING = Fault(status=HTTPStatus.NOT_FOUND, body="404 page not found\n")
"""Response of a proxy such as Traefik that has no route to n8n yet."""

PROBLEM = Fault(
    status=HTTPStatus.INTERNAL_SERVER_ERROR,
    body='{"code":0,"message":"There was a problem executing the workflow"}',
    headers=_JSON,
)
"""Response when n8n loses track of an execution, which may have been started."""
