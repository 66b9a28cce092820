"""Tells Airflow which failures to retry."""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from include.domain.errors import AlreadyRefused, CapturesFailed, PermanentError, VerificationFailed

P = ParamSpec("P")
R = TypeVar("R")


def fail_fast(function: Callable[P, R]) -> Callable[P, R]:
    """Fail the Airflow task at once, without retries, where another attempt would fail the same way.

    Everything else, such as a `TransientError`, is left to the retries of the Airflow task. A failed
    capture was tried several times already and is a row; only a person's re-run tries it again. What a person
    was told before is skipped, so that nobody is told the same every quarter of an hour.
    """

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except AlreadyRefused as error:
            raise AirflowSkipException(str(error)) from None
        except (PermanentError, CapturesFailed, VerificationFailed) as error:
            raise AirflowFailException(str(error)) from None

    return wrapper
