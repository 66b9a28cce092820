"""Tells Airflow, through the entry point `apache_airflow_provider`, of the connection type and its form."""

from typing import Any

_DISTRIBUTION = "webex-contact-center-archive"
_TEXT: dict[str, object] = {"type": ["string", "null"]}
_DAYS: dict[str, object] = {"type": ["integer", "null"], "minimum": 1}


def get_provider_info() -> dict[str, Any]:
    """The provider dictionary: shape as of Airflow 3.3 (its provider_info.schema.json)."""
    return {
        "package-name": _DISTRIBUTION,
        "name": "Webex Contact Center",
        "description": "The connection to Webex Contact Center as a service app.",
        "connection-types": [
            {
                "connection-type": "webex_contact_center",
                "hook-name": "Webex Contact Center",
                "hook-class-name": "plugins.webex_hook.WebexContactCenterHook",
                "ui-field-behaviour": {
                    "hidden-fields": ["schema", "port"],
                    "relabeling": {
                        "host": "Data centre or base URL",
                        "login": "Client id",
                        "password": "Client secret",
                    },
                    "placeholders": {
                        "host": "us1, eu1, eu2, ca1, anz1, jp1, sg1, in1 or https://…",
                        "login": "of the service app",
                    },
                },
                "conn-fields": {
                    "org_id": {
                        "label": "Org id (required)",
                        "description": "The organisation id that Control Hub shows under Account.",
                        "schema": {"type": "string"},
                    },
                    "refresh_token": {
                        "label": "First refresh token",
                        "description": "Of the first token pair; later ones live in the variable wxcc_token.",
                        "schema": {**_TEXT, "format": "password"},
                    },
                    "requests_per_minute": {
                        "label": "Requests per minute",
                        "description": "The rate budget of the client id, over everything that runs at once.",
                        "schema": {"type": ["integer", "null"], "minimum": 1, "default": 50},
                    },
                    "retention_days": {
                        "label": "Retention in days",
                        "description": "The org's purge policy (Control Hub); empty means nothing is purged.",
                        "schema": _DAYS,
                    },
                    "settling_days": {
                        "label": "Settling time in days",
                        "description": "How long after its last change a contact task is looked at; default 2.",
                        "schema": _DAYS,
                    },
                    "horizon_days": {
                        "label": "Horizon in days",
                        "description": "How long after its creation a capture is waited for; default 14.",
                        "schema": _DAYS,
                    },
                    "token_url": {
                        "label": "Token URL",
                        "description": "Only for a stand-in; empty means https://webexapis.com/v1/access_token.",
                        "schema": _TEXT,
                    },
                    "kind": {
                        "label": "Kind of application",
                        "description": "service_app (default) or integration.",
                        "schema": {**_TEXT, "enum": ["service_app", "integration", None]},
                    },
                    "redirect_uri": {
                        "label": "Redirect URI",
                        "description": "Of an integration: https://<this Airflow>/wxcc/callback, as registered.",
                        "schema": _TEXT,
                    },
                    "authorize_url": {
                        "label": "Authorize URL",
                        "description": "Only for a stand-in; empty means https://webexapis.com/v1/authorize.",
                        "schema": _TEXT,
                    },
                    "token_store": {
                        "label": "Token store",
                        "description": "variable (default) or secrets_manager:<prefix>, such as airflow/variables.",
                        "schema": _TEXT,
                    },
                    "media_hosts": {
                        "label": "Media hosts",
                        "description": "Hosts of download URLs, divided by commas; empty means those of S3.",
                        "schema": _TEXT,
                    },
                },
            }
        ],
    }
