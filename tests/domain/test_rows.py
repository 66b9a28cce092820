"""Rows are values: one that differs is another row."""

from dataclasses import replace
from datetime import timedelta

import pytest

from include.domain.capture_state import CapturePolicy
from include.domain.new_rows import new_contact_task_row
from include.domain.rows import with_columns
from tests.builders import NOW, a_contact_task

ROW = new_contact_task_row(a_contact_task(), "an-org", NOW, CapturePolicy())


def test_another_row_differs_in_these_columns_only():
    changes = {"checked_time": NOW + timedelta(days=1), "capture_count": 7}
    before = vars(ROW).copy()

    assert with_columns(ROW, **changes) == replace(ROW, **changes) != ROW
    assert hash(with_columns(ROW)) == hash(ROW)
    assert vars(ROW) == before


def test_what_is_no_column_is_refused():
    with pytest.raises(TypeError, match="ContactTaskRow"):
        with_columns(ROW, checked_tiem=NOW)
