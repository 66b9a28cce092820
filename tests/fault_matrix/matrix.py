"""Runs the cases: each fault once, then for good, then lifted."""

import gc
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from typing import Any

from include.domain.errors import ArchiveError
from tests.fault_matrix.archived_hour import (
    LARGE_BYTES,
    READ_SECONDS,
    SECONDS_TO_STALL,
    SMALL_BYTES,
    ArchivedHour,
    Begun,
    ContactCentre,
    Run,
    contact_centre,
    nothing_left,
)
from tests.fault_matrix.cases import Capture, Case
from tests.fault_matrix.s3_door import FaultyS3, S3Fault, faulty_s3

SECONDS_MAX = 30.0  # for three runs; two cores that others use too
_KNOBS: dict[Capture, dict[str, Any]] = {
    "small": {"recording_bytes_min": SMALL_BYTES, "recording_bytes_max": SMALL_BYTES},
    "multipart": {"recording_bytes_min": LARGE_BYTES, "recording_bytes_max": LARGE_BYTES},
    "transcript": {"telephony_weight": 0.0, "chat_weight": 1.0},
    "screen recording": {"screen_share": 1.0},
}


@dataclass(frozen=True)
class Result:
    """What came of a fault, in words."""

    once: str
    stays: str


class Matrix:
    """The contact centres, one for each kind of capture, and the store; all of them real, over HTTP."""

    def __init__(self, s3: FaultyS3, centres: dict[Capture, ContactCentre]) -> None:
        self._s3 = s3
        self._centres = centres
        self._results: dict[Case, Result] = {}
        self._prepared: dict[tuple[Capture, tuple[str, ...]], Begun] = {}

    def result(self, case: Case) -> Result:
        """What comes of a case, which is run when it is first asked for.

        Raises:
            AssertionError: Something does not hold that must hold of every case.
        """
        if case not in self._results:
            self._results[case] = self._run(case)
        return self._results[case]

    def _run(self, case: Case) -> Result:
        self._begun(case)
        started = time.monotonic()
        with nothing_left():
            once = self._once(case)
        with nothing_left():
            stays = self._stays(case)
        assert time.monotonic() - started < SECONDS_MAX, "this hangs"
        return Result(once, stays)

    def _once(self, case: Case) -> str:
        with self._hour(case) as hour:
            with self._fault(case, times=1):
                run = hour.run()
            if case.is_untold and run.is_green:
                return _untold(hour)
            if _is_whole(hour, run):
                told = _mended(run) + _swept(case, hour)
                hour.assert_complete()
                return told
            assert case.may_fail_at_once or case.is_untold, _words(hour, run)
            return self._repeated(case, hour, run)

    def _stays(self, case: Case) -> str:
        with self._hour(case) as hour:
            with self._fault(case, times=None):
                run = hour.run()
            if case.is_untold and run.is_green:
                return _untold(hour)
            if _is_whole(hour, run):
                told = _mended(run) + _swept(case, hour)
                hour.assert_complete()
                return told
            return self._repeated(case, hour, run)

    def _repeated(self, case: Case, hour: ArchivedHour, run: Run) -> str:
        """Nothing wrong is visible, and a repeat without the fault brings everything."""
        told = _words(hour, run)
        hour.assert_nothing_wrong()
        told += _swept(case, hour)
        assert hour.open_uploads == []
        # Nobody clears what is green; and a plan that is damaged takes all of the run with it.
        is_all_cleared = run.is_green or case.damages_the_plan
        again = hour.run(cleared=Run() if is_all_cleared else run)
        assert again.failures == [], "the repeat meets no fault"
        hour.assert_complete()
        return told

    def _begun(self, case: Case) -> Begun:
        """What the Airflow tasks before the stage leave, with this kind of capture."""
        key = (case.capture, case.begins_after)
        if key not in self._prepared:
            with closing(ArchivedHour(self._centres[case.capture], self._s3)) as hour:
                self._prepared[key] = hour.begun(*case.begins_after)
            self._s3.empty()
        return self._prepared[key]

    @contextmanager
    def _hour(self, case: Case) -> Iterator[ArchivedHour]:
        hour = ArchivedHour(
            self._centres[case.capture],
            self._s3,
            self._begun(case),
            read_seconds=SECONDS_TO_STALL if case.is_stalling else READ_SECONDS,
            is_refreshed_meanwhile=case.is_refreshed_meanwhile,
        )
        try:
            yield hour
        finally:
            hour.close()
            self._s3.empty()

    @contextmanager
    def _fault(self, case: Case, times: int | None) -> Iterator[None]:
        sandbox = self._centres[case.capture].sandbox
        if case.webex_fault:
            sandbox.set_faults([case.webex_fault | ({"times": times} if times else {})])
        else:
            self._s3.set_fault(S3Fault(case.stage, case.fault, times))
        try:
            yield
            (met,) = sandbox.requests()["faults"] or [{"struck": self._s3.struck}]
            assert met["struck"], "the fault was never met"
        finally:
            sandbox.set_faults([])
            self._s3.set_fault(None)


@contextmanager
def matrix() -> Iterator[Matrix]:
    """Start what the cases need, and try it without any fault."""
    with ExitStack() as stack:
        s3 = stack.enter_context(faulty_s3())
        centres: dict[Capture, ContactCentre] = {
            capture: stack.enter_context(contact_centre(**knobs))
            for capture, knobs in _KNOBS.items()
        }
        for centre in centres.values():
            with closing(ArchivedHour(centre, s3)) as hour:
                assert hour.run().failures == []
                hour.assert_complete()
        gc.collect()
        gc.freeze()  # so that looking for what is left is cheap
        stack.callback(gc.unfreeze)
        yield Matrix(s3, centres)


def _is_whole(hour: ArchivedHour, run: Run) -> bool:
    return run.is_green and all(row == ("copied", "") for row in hour.outcomes())


def _swept(case: Case, hour: ArchivedHour) -> str:
    """What nobody could abort or remove, since the store did not say that it is there, is swept a day later."""
    if case.leaves_an_upload and hour.open_uploads:
        hour.sweep_uploads()
        return "; an upload is left for the sweep"
    if case.leaves_working_files and hour.archived.working_files:
        hour.sweep()
        return "; a working file is left for the sweep"
    return ""


def _untold(hour: ArchivedHour) -> str:
    """A store that lies in everything it says is found out by those who read what it has."""
    findings = hour.findings()
    if not findings:  # there are bytes that say nothing
        hour.assert_complete()
        return "whole: the byte matters to nobody"
    return f"green; `verify_archive` finds {findings[0]}"


def _mended(run: Run) -> str:
    if not run.failures:
        return "whole: mended within the Airflow task"
    name, error = run.failures[0]
    return f"whole: Airflow repeats {name} ({_plain(error)})"


def _words(hour: ArchivedHour, run: Run) -> str:
    """The rows where there are some that tell of it, else the sentence of the first error."""
    rows = sorted(
        {f"row {outcome}: {_plain(error)}" for outcome, error in hour.outcomes() if error}
    )
    if rows:
        return "; ".join(rows)
    name, error = run.failures[0]
    return f"{name} fails, {type(error).__name__}: {_plain(error)}"


def _plain(error: ArchiveError | str) -> str:
    """Without what differs from one run to another."""
    text = str(error)
    text = re.sub(r"https?://[^\s)]+", "…", text)
    text = re.sub(r"\S*org_id=\S+", "…", text)
    text = re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}\S*", "…", text)
    text = re.sub(r"archive-\d+", "…", text)
    text = re.sub(r"\(\w*(Error|Answer|Timeout|Closed)\w*\)", "(…)", text)
    text = re.sub(r"\d+ of (\d+|unknown) bytes", "… of … bytes", text)
    text = re.sub(r" \(tracking id [^)]*\)", "", text)
    text = re.sub(r"\d{4}-\d\d-\d\d \d\d", "…", text)
    return text.replace("|", "/") if len(text) <= 160 else f"{text[:160].rsplit(' ', 1)[0]} …"
