"""What the pages of this program need of Airflow's API server: who asks, whether they may, and what only they can read.

The only module that imports Airflow's internal modules of the API server (not covered by its promise of stability).
"""

import json
from collections.abc import Callable
from typing import Annotated, cast

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.base_user import BaseUser
from airflow.api_fastapi.auth.managers.models.resource_details import (
    ConnectionDetails,
    VariableDetails,
)
from airflow.api_fastapi.core_api.security import get_user
from airflow.models.crypto import get_fernet
from cryptography.fernet import InvalidToken
from fastapi import Depends, HTTPException

from include.domain.errors import PermanentError
from include.webex.connection import CONNECTION_ID
from plugins.token_store import TOKEN_VARIABLE

# Airflow's own page that leads to the login of whatever auth manager is installed, below the root of the UI.
LOGIN_PATH = "api/v2/auth/login"


async def editor(user: Annotated[BaseUser, Depends(get_user)]) -> str:
    """The id of the user who asks; they may edit the connection and the variable that connecting concerns.

    Raises:
        HTTPException: 401 without a login, 403 without one of the two permissions.
    """
    auth = get_auth_manager()
    may_connect = auth.is_authorized_connection(
        method="PUT", details=ConnectionDetails(conn_id=CONNECTION_ID), user=user
    ) and auth.is_authorized_variable(
        method="PUT", details=VariableDetails(key=TOKEN_VARIABLE), user=user
    )
    if not may_connect:
        raise HTTPException(403)
    return user.get_id()


Editor = Annotated[str, Depends(editor)]


def seal(purpose: str, user_id: str, text: str) -> str:
    """Encrypt a text that every worker of the API server, and nobody else, can read for that user and purpose.

    Raises:
        PermanentError: Airflow has no key to encrypt with.
    """
    fernet = get_fernet()
    if not fernet.is_encrypted:
        raise PermanentError(
            "Airflow has no Fernet key and could keep no secret: set AIRFLOW__CORE__FERNET_KEY for every component."
        )
    return fernet.encrypt(json.dumps([purpose, user_id, text]).encode()).decode()


def unseal(purpose: str, user_id: str, sealed: str | None, max_age_seconds: int) -> str | None:
    """The text that `seal` was given for that purpose and user; None for anything else, or an older one."""
    decrypt = cast("Callable[[bytes, int], bytes]", get_fernet().decrypt)
    try:
        found = json.loads(decrypt((sealed or "").encode(), max_age_seconds))
    except (InvalidToken, ValueError):
        return None
    return found[2] if isinstance(found, list) and found[:2] == [purpose, user_id] else None
