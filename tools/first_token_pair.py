"""Makes the first token pair of the service app with a token that a person pastes, once.

Run it where Airflow runs, with Airflow's settings. The token (of a person or an integration, with the scope
`spark:applications_token`) is read without echo, is used for one request and is not kept. The pair goes to where
`refresh_access_token` reads it; nothing secret is shown. With the connection `webex_token_helper` this is not
needed: the DAG does it by itself.
"""

from __future__ import annotations

import getpass
import sys

from pydantic import SecretStr

from include.domain.errors import ArchiveError
from include.domain.interval import utc_now
from include.webex.connection import HELPER_CONNECTION_ID
from include.webex.token_helper import request_service_app_pair, webex_id
from plugins.connections import find_connection
from plugins.database_token_store import database_token_store
from plugins.webex_hook import WebexContactCenterHook


def main() -> int:
    """Make the pair and store it; 0 when it is there."""
    helper_token = SecretStr(
        getpass.getpass("Token with the scope spark:applications_token: ").strip()
    )
    try:
        connection = WebexContactCenterHook().get_conn()
        store = database_token_store(connection)
        helper = find_connection(HELPER_CONNECTION_ID)
        application_id = helper.extra_dejson.get("application_id") if helper else None
        with store.lock():
            pair = request_service_app_pair(
                connection,
                str(application_id or webex_id("APPLICATION", connection.client_id)),
                helper_token,
                utc_now,
            )
            store.write(pair.to_json())
    except ArchiveError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"The first pair is stored; the access token ends {pair.expires_time.isoformat()}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
