"""Keeps token pairs in AWS Secrets Manager, where Airflow's own backend can read them but not write."""

from collections.abc import Generator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import boto3  # noqa: TID251 - the rule is about S3; nothing else here speaks to Secrets Manager
from botocore.exceptions import BotoCoreError, ClientError

from include.domain.errors import PermanentError, TransientError
from plugins.token_store import mask_pair, refresh_lock

_REFUSED = {"AccessDeniedException", "UnrecognizedClientException", "InvalidSignatureException"}


class SecretsManagerTokenStore:
    """One secret, under the name that Airflow's backend gives the variable; AWS's usual settings say where."""

    def __init__(self, secret_name: str, client_id: str) -> None:
        self._secret_name = secret_name
        self._client_id = client_id
        with self._telling_the_secret():
            self._client: Any = boto3.client("secretsmanager")

    def read(self) -> str | None:
        """See `TokenStore`.

        Raises:
            PermanentError: The secret may not be read, or AWS's settings are missing.
            TransientError: Secrets Manager is out of reach.
        """
        with self._telling_the_secret():
            try:
                answer = self._client.get_secret_value(SecretId=self._secret_name)
            except self._client.exceptions.ResourceNotFoundException:
                return None
        text: str | None = answer.get("SecretString")  # none in a binary secret
        if text:
            mask_pair(text)
        return text

    def write(self, text: str) -> None:
        """See `TokenStore`; makes the secret where there is none.

        Raises:
            ArchiveError: As of `read`.
        """
        mask_pair(text)
        with self._telling_the_secret():
            try:
                self._client.put_secret_value(SecretId=self._secret_name, SecretString=text)
            except self._client.exceptions.ResourceNotFoundException:
                self._client.create_secret(Name=self._secret_name, SecretString=text)

    def lock(self) -> AbstractContextManager[None]:
        """See `TokenStore`."""
        return refresh_lock(self._client_id)

    @contextmanager
    def _telling_the_secret(self) -> Generator[None]:
        """What a failure means; what AWS says is not quoted."""
        try:
            yield
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "")
            if code in _REFUSED:
                raise PermanentError(
                    f"AWS Secrets Manager refuses access to the secret {self._secret_name} ({code}): allow "
                    "secretsmanager:GetSecretValue, PutSecretValue and CreateSecret on it."
                ) from None
            raise self._trouble(code) from None
        except BotoCoreError as error:
            raise self._trouble(type(error).__name__) from None

    def _trouble(self, what: str) -> TransientError:
        return TransientError(
            f"AWS Secrets Manager cannot be asked for the secret {self._secret_name} ({what}): check region and "
            "credentials in the environment of Airflow, such as AWS_DEFAULT_REGION."
        )
