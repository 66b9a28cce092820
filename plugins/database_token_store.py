"""The token store of what runs beside Airflow's database and outside of Airflow tasks: pages and commands."""

from airflow.models import (
    Variable,  # noqa: TID251 - the rule is about Airflow tasks; see DatabaseTokenStore
)

from include.pipelines.refresh_access_token import TokenStore
from include.webex.connection import WebexConnection
from plugins.token_store import DESCRIPTION, TOKEN_VARIABLE, VariableTokenStore, token_store


class DatabaseTokenStore(VariableTokenStore):
    """The same variable; the SDK cannot write one outside of an Airflow task, but Airflow's models can."""

    def _get(self) -> str | None:
        text: str | None = Variable.get(self.name, default_var=None)  # noqa: AIR311 - see the class
        return text

    def _set(self, text: str) -> None:
        Variable.set(self.name, text, description=DESCRIPTION)  # noqa: AIR311 - see the class


def database_token_store(connection: WebexConnection) -> TokenStore:
    """As `token_store`, outside of Airflow tasks."""
    if connection.secrets_manager_prefix is None:
        return DatabaseTokenStore(TOKEN_VARIABLE, connection.client_id)
    return token_store(connection)
