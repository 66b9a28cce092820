"""Turns the Airflow connection `webex_contact_center` into what the program needs."""

from collections.abc import Callable

from airflow.sdk import BaseHook
from airflow.sdk.log import mask_secret
from pydantic import SecretStr

from include.domain.errors import ArchiveError, TokenRejected
from include.domain.interval import utc_now
from include.pipelines.refresh_access_token import HelperTokens, wait_for_access_token
from include.webex.connection import CONNECTION_ID, HELPER_CONNECTION_ID, WebexConnection
from include.webex.http_client import WebexClient
from include.webex.media import MediaClient
from include.webex.rate_budget import BudgetStore, FileBudgetStore, SharedRateBudget
from include.webex.token_helper import TokenHelper
from plugins.connections import find_connection, find_redis_server, get_connection
from plugins.token_store import token_store

_REFUSED = "Webex refuses the access token that was to be checked."


class WebexContactCenterHook(BaseHook):
    """The hook of the connection type `webex_contact_center`."""

    conn_name_attr = "webex_conn_id"
    default_conn_name = CONNECTION_ID
    conn_type = "webex_contact_center"
    hook_name = "Webex Contact Center"

    def __init__(self, webex_conn_id: str = CONNECTION_ID) -> None:
        super().__init__()
        self.webex_conn_id = webex_conn_id

    def get_conn(self) -> WebexConnection:
        """The checked fields of the connection.

        Raises:
            PermanentError: The connection or a field of it is missing or unusable.
        """
        connection = get_connection(self.webex_conn_id)
        settings = WebexConnection.from_fields(
            host=connection.host,
            login=connection.login,
            password=connection.password,
            extra=connection.extra_dejson,
            schema=connection.schema,
            port=connection.port,
        )
        mask_secret(settings.client_secret.get_secret_value())
        if settings.refresh_token:
            mask_secret(settings.refresh_token.get_secret_value())
        return settings

    def get_helper(self) -> HelperTokens | None:
        """The helper integration and where its pair lives; None where there is none.

        Raises:
            PermanentError: A field of one of the two connections is missing or unusable.
        """
        connection = find_connection(HELPER_CONNECTION_ID)
        if connection is None:
            return None
        helper = TokenHelper.from_fields(
            self.get_conn(),
            login=connection.login,
            password=connection.password,
            extra=connection.extra_dejson,
        )
        mask_secret(helper.connection.client_secret.get_secret_value())
        if helper.connection.refresh_token:
            mask_secret(helper.connection.refresh_token.get_secret_value())
        return HelperTokens(helper, token_store(helper.connection))

    def get_client(self) -> WebexClient:
        """An API client that reads its token from the token store and shares the rate budget."""
        connection = self.get_conn()
        store = token_store(connection)
        return self._client(lambda spent: wait_for_access_token(connection, store, spent))

    def get_client_with(self, access_token: SecretStr) -> WebexClient:
        """The same with this access token and no other."""

        def read_access_token(spent: SecretStr | None) -> SecretStr:
            if spent:
                raise TokenRejected(_REFUSED)
            return access_token

        return self._client(read_access_token)

    def _client(self, read_access_token: Callable[[SecretStr | None], SecretStr]) -> WebexClient:
        connection = self.get_conn()
        budget = SharedRateBudget(
            _budget_store(connection.client_id), connection.requests_per_minute
        )
        return WebexClient(connection, read_access_token, budget)

    def get_media_client(self) -> MediaClient:
        """A client for download URLs."""
        return MediaClient(self.get_conn().media_hosts)

    def test_connection(self) -> tuple[bool, str]:
        """What the Test button of the UI shows. Spends no refresh token; asks for one task if it can."""
        try:
            connection = self.get_conn()
            pair_text = token_store(connection).read()
            if not (pair_text or "").strip():
                return True, (
                    "The fields are complete. Nothing was sent: there is no token yet; run the DAG "
                    "refresh_access_token, then test again."
                )
            client = self.get_client()
            try:
                now_ms = int(utc_now().timestamp() * 1000)
                parameters = {"from": now_ms - 60_000, "pageSize": 1, "orgId": connection.org_id}
                client.get("/v1/tasks", parameters)
            finally:
                client.close()
        except ArchiveError as error:
            return False, str(error)
        return True, f"{connection.base_url} answered for org {connection.org_id}."


def _budget_store(client_id: str) -> BudgetStore:
    """The Redis server of the connection `wxcc_rate_budget`; without one, this machine."""
    server = find_redis_server()
    if server is None:
        return FileBudgetStore(client_id)
    # As in find_redis_server.
    from include.webex.rate_budget_in_redis import RedisBudgetStore  # noqa: PLC0415

    return RedisBudgetStore(client_id, server)
