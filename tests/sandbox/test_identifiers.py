from uuid import UUID, uuid4

from hypothesis import given
from hypothesis import strategies as st

from include.sandbox.identifiers import ContactTaskIds, has_uuid_form

IDS = ContactTaskIds(b"a key")


@given(st.integers(0, (1 << 24) - 1), st.integers(0, (1 << 26) - 1))
def test_an_id_decodes_to_its_hour_and_index(hour, index):
    contact_task_id = IDS.encode(hour, index)

    assert IDS.decode(contact_task_id) == (hour, index)
    assert IDS.decode(contact_task_id.upper()) == (hour, index)


@given(st.integers(0, (1 << 24) - 1), st.integers(0, (1 << 26) - 1))
def test_an_id_is_a_uuid_of_version_4(hour, index):
    found = UUID(IDS.encode(hour, index))

    assert found.version == 4
    assert str(found) == IDS.encode(hour, index)


def test_ids_made_elsewhere_are_unknown():
    assert all(IDS.decode(str(uuid4())) is None for _ in range(200))
    assert IDS.decode("00000000-0000-0000-0000-000000000000") is None
    assert IDS.decode("no uuid at all") is None
    assert ContactTaskIds(b"another key").decode(IDS.encode(497_050, 3)) is None


def test_neighbours_have_unrelated_ids():
    ids = [IDS.encode(497_050, index) for index in range(1_000)]

    assert len(set(ids)) == 1_000
    assert ids != sorted(ids)


def test_only_the_written_form_of_a_uuid_counts():
    assert has_uuid_form("FB53F6D1-5535-4ac8-b081-53834e17d6f5")
    assert not has_uuid_form("fb53f6d155354ac8b08153834e17d6f5")
    assert not has_uuid_form("fb53f6d1-5535-4ac8-b081-53834e17d6f5\n")
