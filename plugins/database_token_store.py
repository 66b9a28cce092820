"""The token store of what runs beside Airflow's database and outside of Airflow tasks: pages and commands."""

from datetime import datetime

from airflow.models import (
    Variable,  # noqa: TID251 - the rule is about Airflow tasks; see DatabaseTokenStore
)
from sqlalchemy.exc import SQLAlchemyError

from include.domain.errors import TransientError
from include.pipelines.refresh_access_token import TokenStore
from include.webex.connection import WebexConnection
from plugins.token_store import DESCRIPTION, TOKEN_VARIABLE, VariableTokenStore, token_store

USED_VARIABLE = "wxcc_consents"


class DatabaseTokenStore(VariableTokenStore):
    """The same variable; the SDK cannot write one outside of an Airflow task, but Airflow's models can."""

    def _get(self) -> str | None:
        text: str | None = Variable.get(self.name, default_var=None)  # noqa: AIR311 - see the class
        return text

    def _set(self, text: str) -> None:
        try:
            Variable.set(self.name, text, description=DESCRIPTION)  # noqa: AIR311 - see the class
        except SQLAlchemyError as error:  # its text quotes what was written
            raise TransientError(
                f"Airflow's database cannot be written ({type(error).__name__}): see whether it is up, and run this "
                "where Airflow runs, with Airflow's settings."
            ) from None


def database_token_store(connection: WebexConnection) -> TokenStore:
    """As `token_store`, outside of Airflow tasks."""
    if connection.secrets_manager_prefix is None:
        return DatabaseTokenStore(TOKEN_VARIABLE, connection.client_id)
    return token_store(connection)


def is_first_use(mark: str, until: datetime, now: datetime) -> bool:
    """Whether nobody has asked this about the mark before; it is remembered until that instant, for every worker.

    Two that ask at the same time are both the first, unless each holds a lock.
    """
    text = Variable.get(USED_VARIABLE, default_var=None) or ""  # noqa: AIR311 - see the class
    # A line is an instant in UTC and a mark.
    used = [line for line in text.splitlines() if line > now.isoformat()]
    if any(line.endswith(f" {mark}") for line in used):
        return False
    lines = [*used, f"{until.isoformat()} {mark}"]
    Variable.set(USED_VARIABLE, "\n".join(lines), description="Answers of Webex that were taken.")  # noqa: AIR311 - see the class
    return True
