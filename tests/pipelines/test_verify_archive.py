"""What a verification promises: an undamaged archive gives no finding, any damage at least one."""

import pytest

from include.domain.interval import HOUR, Interval
from include.pipelines.verify_archive import verify_archive, verify_bucket


@pytest.fixture
def centre(open_centre):
    centre = open_centre(tasks_per_hour=15, restitched_share=0.3, restitched_after_hours=3.0)
    for back in (27, 26, 25):
        centre.run(centre.hour(back))
    centre.recheck_hourly(3)
    return centre


def test_an_undamaged_archive_gives_no_finding(centre):
    found = verify_bucket(centre.archive(), None)

    assert [finding.sentence for finding in found.findings] == []
    assert found.hashed_objects == found.objects == len(centre.archived.objects)
    print(found.summary)


def test_api(centre):
    interval = Interval(centre.hour(27).start, centre.hour(25).end)
    found = verify_archive(
        interval, centre.client, centre.archive(), sha256_percent=100, is_whole_interval=True
    )
    assert [finding.sentence for finding in found.findings] == []
    print(found.summary, found.completeness[:2])
    assert verify_bucket(centre.archive(), None).findings == []
