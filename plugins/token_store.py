"""Keeps token pairs: in an Airflow variable, which Airflow encrypts and masks, or in AWS Secrets Manager."""

from collections.abc import Collection
from contextlib import AbstractContextManager, suppress

from airflow.sdk import Variable, get_current_context
from airflow.sdk.configuration import conf, ensure_secrets_loaded
from airflow.sdk.exceptions import AirflowRuntimeError
from airflow.sdk.log import mask_secret

from include.domain.errors import PermanentError, TransientError
from include.pipelines.refresh_access_token import TokenStore, shadowed
from include.webex.connection import WebexConnection
from include.webex.refresh_lock import refresh_lock_on_this_machine
from include.webex.tokens import TokenPair
from plugins.connections import find_redis_server

TOKEN_VARIABLE = "wxcc_token"  # noqa: S105 - the name of the variable, no secret
HELPER_TOKEN_VARIABLE = "wxcc_helper_token"  # noqa: S105 - the same
# Airflow would mask in every log what it reads from a variable with `token` in its name.
REFUSAL_VARIABLE = "wxcc_refusal"
# The environment, and a secrets backend where one is configured.
_BEFORE_THE_DATABASE = ["airflow.secrets.environment_variables.EnvironmentVariablesBackend"]
DESCRIPTION = "Current Webex token pair. Written by the DAG refresh_access_token only."


def token_store(connection: WebexConnection) -> TokenStore:
    """Where the pair of this client lives, as the extra field `token_store` of the connection says."""
    name = HELPER_TOKEN_VARIABLE if connection.kind == "helper" else TOKEN_VARIABLE
    if connection.secrets_manager_prefix is None:
        return VariableTokenStore(name, connection.client_id)
    # Here and not above: boto3 takes time to import, and most archives keep their tokens in the variable.
    from plugins.secrets_manager_store import SecretsManagerTokenStore  # noqa: PLC0415

    secret_name = f"{connection.secrets_manager_prefix}/{name}"
    return SecretsManagerTokenStore(secret_name, connection.client_id)


class VariableTokenStore:
    """The token store of an Airflow task: a Connection cannot be written by one, a variable can."""

    def __init__(self, name: str, client_id: str) -> None:
        self.name = name
        self._client_id = client_id

    def read(self) -> str | None:
        """The stored text; what is secret in it is masked in every later log line.

        Raises:
            TransientError: Airflow cannot read it just now.
        """
        text = self._get()
        if text:
            mask_pair(text)
        return text

    def write(self, text: str) -> None:
        """Store the text; it is masked before anything can log it.

        Raises:
            PermanentError: Airflow would not encrypt it, or not give it back.
        """
        if not conf.get("core", "fernet_key", fallback=""):
            raise PermanentError(
                "Airflow has no Fernet key here: it would store the token pair unencrypted. Set "
                "AIRFLOW__CORE__FERNET_KEY for every component, or the extra field token_store of the connection "
                "webex_contact_center."
            )
        if _is_shadowed(self.name):  # Airflow would replace a pair that nobody can read now
            raise shadowed()
        mask_pair(text)
        self._set(text)

    def lock(self) -> AbstractContextManager[None]:
        """See `TokenStore`."""
        return refresh_lock(self._client_id)

    def _get(self) -> str | None:
        text: str | None = Variable.get(self.name, default=None)
        # To Airflow, a variable that cannot be read just now is none. Taken for none, the pair would be replaced.
        if text is None and self.name in _stored_names(self.name):
            raise _unreadable()
        return text

    def _set(self, text: str) -> None:
        # Without the description, Airflow would erase the one that is there.
        Variable.set(self.name, text, description=DESCRIPTION)


def _is_shadowed(name: str) -> bool:
    """Whether Airflow finds a variable of that name before it looks into its database."""
    for backend in ensure_secrets_loaded(_BEFORE_THE_DATABASE):
        with suppress(
            Exception
        ):  # as where Airflow reads a variable: a backend in trouble has none
            if backend.get_variable(key=name) is not None:
                return True
    return False


def _stored_names(prefix: str) -> Collection[str]:
    try:
        return set(Variable.keys(prefix=prefix))
    except AirflowRuntimeError:
        raise _unreadable() from None


def _unreadable() -> TransientError:
    return TransientError(
        "Airflow does not give the variable with the token pair: see whether its API server and its database are up."
    )


class RefusalNote:
    """Keeps what Webex refused; no secret is in it."""

    def read(self) -> str | None:
        """See `Note`."""
        text: str | None = Variable.get(REFUSAL_VARIABLE, default=None)
        return text

    def write(self, text: str) -> None:
        """See `Note`."""
        Variable.set(REFUSAL_VARIABLE, text, description="The last refusal of the credentials.")


def is_run_by_hand() -> bool:
    """Whether a person triggered the run that this Airflow task belongs to."""
    dag_run = get_current_context().get("dag_run")
    return dag_run is None or bool(dag_run.run_type == "manual")


def refresh_lock(client_id: str) -> AbstractContextManager[None]:
    """The lock of the refresh: in the Redis server of `wxcc_rate_budget`, or on this machine."""
    server = find_redis_server()
    if server is None:
        return refresh_lock_on_this_machine(client_id)
    # As in find_redis_server.
    from include.webex.rate_budget_in_redis import refresh_lock_in_redis  # noqa: PLC0415

    return refresh_lock_in_redis(client_id, server)


def mask_pair(text: str) -> None:
    """Have Airflow mask the text, and each token in it, in every later log line."""
    if text.strip():
        mask_secret(text)
    try:
        pair = TokenPair.from_json(text)
    except PermanentError:
        return  # whoever reads it says so, in a sentence without the text
    mask_secret(pair.access_token.get_secret_value())
    mask_secret(pair.refresh_token.get_secret_value())
