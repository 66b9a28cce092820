"""What Airflow does hangs on which error is which."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from include.domain import errors
from include.webex import http_client, media

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (errors.TokenRejected, errors.PermanentError),
        (http_client.Throttled, errors.TransientError),
        (http_client.TooLarge, errors.PermanentError),
        (http_client.Refused, errors.PermanentError),
        (http_client.Unauthorized, errors.PermanentError),
        (media.DownloadBroken, errors.TransientError),
    ],
)
def test_an_error_is_of_the_kind_that_says_what_to_do(
    error: type[Exception], kind: type[Exception]
):
    assert issubclass(error, kind)
    assert issubclass(error, errors.ArchiveError)


def test_no_error_asks_for_two_things():
    assert not issubclass(errors.PermanentError, errors.TransientError)
    assert not issubclass(errors.TransientError, errors.PermanentError)
    assert not issubclass(errors.CapturesFailed, (errors.TransientError, errors.PermanentError))
    for error in (media.DownloadGone, media.DownloadExpired, media.DownloadRefused):
        assert not issubclass(error, (errors.TransientError, errors.PermanentError))


def shown_errors(source: str) -> Iterator[int]:
    """The lines that raise an error together with the one that it replaces, or log a traceback."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ExceptHandler):
            for each in ast.walk(node):
                if isinstance(each, ast.Raise) and each.exc and ast.unparse(each.exc) != node.name:
                    cause = each.cause
                    if not (isinstance(cause, ast.Constant) and cause.value is None):
                        yield each.lineno
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            if name in {"log.exception", "_log.exception", "traceback.format_exc"} or any(
                keyword.arg == "exc_info" for keyword in node.keywords
            ):
                yield node.lineno


def test_no_error_of_ours_shows_the_one_that_it_replaces():
    """Airflow logs a failed run with every error in the chain; a library's may quote a URL, a header or a row.

    Write ``raise … from None``, and log the type of the error and what `redact` leaves of it.
    """
    files = [
        file
        for folder in ("include", "plugins", "dags")
        for file in (ROOT / folder).rglob("*.py")
        if "sandbox" not in file.parts
    ]
    assert len(files) > 50
    shown = [
        f"{file.relative_to(ROOT)}:{line}"
        for file in files
        for line in shown_errors(file.read_text())
    ]
    assert shown == []


@pytest.mark.parametrize(
    "line", ["raise B from a", "raise B", "log.exception('b')", "log.warning('b', exc_info=True)"]
)
def test_an_error_that_shows_another_is_found(line: str):
    assert list(shown_errors(f"try: x()\nexcept A as a:\n    {line}\n")) == [3]
    assert list(shown_errors("try: x()\nexcept A as a:\n    raise B from None\n")) == []
