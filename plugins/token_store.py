"""Keeps the token pair in the Airflow variable `wxcc_token`, which Airflow encrypts and masks."""

from airflow.sdk import Variable
from airflow.sdk.log import mask_secret

from include.domain.errors import PermanentError
from include.webex.tokens import TokenPair

TOKEN_VARIABLE = "wxcc_token"  # noqa: S105 - the name of the variable, no secret
_DESCRIPTION = "Current Webex token pair. Written by the DAG refresh_access_token only."


class VariableTokenStore:
    """The token store of an Airflow task: a Connection cannot be written by one, a variable can."""

    def read(self) -> str | None:
        """The stored text; what is secret in it is masked in every later log line."""
        text: str | None = Variable.get(TOKEN_VARIABLE, default=None)
        if text:
            _mask(text)
        return text

    def write(self, text: str) -> None:
        """Store the text; it is masked before anything can log it."""
        _mask(text)
        # Without the description, Airflow would erase the one that is there.
        Variable.set(TOKEN_VARIABLE, text, description=_DESCRIPTION)


def _mask(text: str) -> None:
    mask_secret(text)
    try:
        pair = TokenPair.from_json(text)
    except PermanentError:
        return  # whoever reads it says so, in a sentence without the text
    mask_secret(pair.access_token.get_secret_value())
    mask_secret(pair.refresh_token.get_secret_value())
