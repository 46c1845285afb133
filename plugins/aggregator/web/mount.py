"""Where an app that the plugin mounts can be found."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send


class AnswerWithoutSlash:
    """Lets an app answer at its prefix itself: a mount of Starlette matches only what is below its prefix.

    Args:
        app: What Airflow's API server does with a request.
        prefix: Where the app is mounted.
    """

    def __init__(self, app: ASGIApp, prefix: str) -> None:
        self.app = app
        self.prefix = prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, that for the prefix with a slash at its end."""
        if scope["type"] == "http" and scope["path"].removeprefix(scope.get("root_path", "")) == self.prefix:
            scope = {**scope, "path": f"{scope['path']}/"}
        await self.app(scope, receive, send)
