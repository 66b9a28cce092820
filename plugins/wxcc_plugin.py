"""Mounts this program's pages in Airflow's API server under /wxcc, and puts them into its menu."""

from functools import cached_property
from typing import Any

from airflow.plugins_manager import AirflowPlugin


class _Pages:
    """An ASGI app that is built at its first request: each process of Airflow, tasks too, loads plugins."""

    @cached_property
    def _app(self) -> Any:  # noqa: ANN401 - FastAPI is imported by the API server only
        from fastapi import FastAPI  # noqa: PLC0415
        from starlette.routing import Route  # noqa: PLC0415

        from plugins.connect_page import router as connect  # noqa: PLC0415
        from plugins.receive_capture_events import CaptureEvents  # noqa: PLC0415

        # Without pages that tell anybody, logged in or not, what there is.
        app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
        app.include_router(connect)
        # Without a login: an event is signed. As an app of its own, it gets the body as it came.
        app.router.routes.append(Route("/events", CaptureEvents()))
        return app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401 - as ASGI has it
        if scope["type"] == "http":
            # Airflow's access log prints the query of a request once it is answered: a code and a state must not
            # be in it, whatever the method and the path are, and however the request ends.
            scope["wxcc.query"], scope["query_string"] = scope["query_string"], b""
        await self._app(scope, receive, send)


class WxccPlugin(AirflowPlugin):
    """The only plugin that Airflow finds in this folder; see .airflowignore."""

    name = "webex_contact_center_pages"
    fastapi_apps: list[Any] = [  # noqa: RUF012 - as Airflow declares it
        {"app": _Pages(), "url_prefix": "/wxcc", "name": "Webex Contact Center"}
    ]
    # Without a url_route Airflow opens a tab: it would show the page in a frame that may not lead to Webex. In a
    # menu and not beside the menus: there, Airflow 3.3.2 draws a button that opens nothing.
    external_views: list[Any] = [  # noqa: RUF012 - the same
        {
            "name": "Connect with Webex",
            "href": "/wxcc/connect",
            "destination": "nav",
            "category": "admin",
        }
    ]
