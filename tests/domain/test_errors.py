"""What Airflow does hangs on which error is which."""

import pytest

from include.domain import errors
from include.webex import http_client, media


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
