import asyncio
import os

from tools import local_s3


def test_what_a_killed_server_left_half_written_is_removed(tmp_path):
    whole = tmp_path / "whole.wav"
    stale = tmp_path / "stale.wav"
    half = tmp_path / "half.wav.tmp"
    for path in (whole, stale, half):
        path.write_bytes(b"x")
        sidecar = path.with_name(f"{path.name}.meta.json")
        if path is not half:
            sidecar.write_text("{}")
    os.utime(tmp_path / "stale.wav.meta.json", (1, 1))

    local_s3.repair_persisted_objects(tmp_path)

    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"whole.wav", "whole.wav.meta.json", "stale.wav"}


def test_a_request_whose_sender_is_gone_never_reaches_the_server():
    """ministack alone would store the half that came, over the old object."""
    assert (
        asyncio.run(
            bodies_handed_on(
                [
                    {"type": "http.request", "body": b"half", "more_body": True},
                    {"type": "http.disconnect"},
                ]
            )
        )
        == []
    )


def test_a_whole_request_arrives_in_one_piece():
    assert asyncio.run(
        bodies_handed_on(
            [
                {"type": "http.request", "body": b"one ", "more_body": True},
                {"type": "http.request", "body": b"piece"},
            ]
        )
    ) == [b"one piece"]


async def bodies_handed_on(messages):
    bodies = []

    async def application(scope, receive, send):
        bodies.append((await receive())["body"])

    async def receive():
        return messages.pop(0)

    async def send(message):
        raise AssertionError(message)

    await local_s3.WholeRequests(application)({"type": "http"}, receive, send)
    return bodies
