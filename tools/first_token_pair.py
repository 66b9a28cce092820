"""Makes the first token pair of the service app with a token that a person pastes, once.

Run it where Airflow runs, with Airflow's settings. The token (of a person or an integration, with the scope
`spark:applications_token`) is read without echo, is used for one request and is not kept. The pair goes to where
`refresh_access_token` reads it; nothing secret is shown. With the connection `webex_token_helper` this is not
needed: the DAG does it by itself.
"""

from __future__ import annotations

import argparse
import getpass
import logging
import re
import sys
from typing import TYPE_CHECKING

from pydantic import SecretStr

from include.domain.errors import ArchiveError, PermanentError
from include.domain.interval import utc_now
from include.pipelines.refresh_access_token import keep_new_pair
from include.webex.connection import CONNECTION_ID, HELPER_CONNECTION_ID
from include.webex.token_helper import HelperTokenRefused, request_service_app_pair, webex_id
from plugins.connections import find_connection
from plugins.database_token_store import database_token_store
from plugins.webex_hook import WebexContactCenterHook

if TYPE_CHECKING:
    from collections.abc import Sequence

    from include.webex.tokens import TokenPair

_SCOPE = "spark:applications_token"


def make_first_pair() -> TokenPair:
    """The pair, stored.

    Raises:
        ArchiveError: There is none; the sentence is for the person at the terminal.
    """
    connection = WebexContactCenterHook().get_conn()
    if connection.kind == "integration":
        raise PermanentError(
            f"The connection {CONNECTION_ID} is of an integration: open the page Connect with Webex of Airflow's menu "
            "(/wxcc/connect) instead."
        )
    store = database_token_store(connection)
    helper = find_connection(HELPER_CONNECTION_ID)
    application_id = str(
        (helper.extra_dejson.get("application_id") if helper else None)
        or webex_id("APPLICATION", connection.client_id)
    )
    token = SecretStr(getpass.getpass(f"Token with the scope {_SCOPE}: ").strip())
    if not re.fullmatch("[!-~]+", token.get_secret_value()):
        raise PermanentError(
            "That is no token, and nothing was sent: paste it whole, without blanks and without the word Bearer."
        )
    with store.lock():
        try:
            return keep_new_pair(
                store,
                lambda: request_service_app_pair(connection, application_id, token, utc_now),
            )
        except HelperTokenRefused:
            raise PermanentError(
                "Webex refuses this token (401): it has ended, or was not pasted whole. Get a new one with the scope "
                f"{_SCOPE}."
            ) from None


def main(arguments: Sequence[str]) -> int:
    """Make the pair and store it; 0 when it is there."""
    argparse.ArgumentParser(
        prog="python -m tools.first_token_pair",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).parse_args(arguments)
    try:
        pair = make_first_pair()
    except ArchiveError as error:
        print(error, file=sys.stderr)
        return 1
    except (KeyboardInterrupt, EOFError):
        print("\nStopped.", file=sys.stderr)
        return 130
    print(f"The first pair is stored; the access token ends {pair.expires_time.isoformat()}.")
    return 0


if __name__ == "__main__":
    logging.disable(logging.ERROR)  # of Airflow; what matters is told in a sentence
    sys.exit(main(sys.argv[1:]))
