import pytest

from include.sandbox.options import build_parser, scenario_of
from include.sandbox.scenario import Scenario, knobs


def test_the_command_line_without_options_is_the_default_scenario():
    assert scenario_of(build_parser().parse_args([])) == Scenario()


def test_every_knob_is_an_option_and_says_what_it_does():
    shown = build_parser().format_help()

    for knob in knobs():
        assert "--" + knob.name.replace("_", "-") in shown
        assert knob.description.endswith((".", ":")) or "." in knob.description


def test_options_set_knobs_of_every_kind():
    arguments = ["--tasks-per-hour", "7", "--tied-share", "0.5", "--no-rotate-refresh-token"]
    arguments += ["--error-body", "html", "--org-id", "an-org"]

    scenario = scenario_of(build_parser().parse_args(arguments))

    assert (scenario.tasks_per_hour, scenario.tied_share) == (7, 0.5)
    assert not scenario.rotate_refresh_token
    assert (scenario.error_body, scenario.org_id) == ("html", "an-org")


@pytest.mark.parametrize(
    ("knobs_given", "complaint"),
    [
        ({"tied_share": 1.5}, "tied_share is a share"),
        ({"tasks_per_hour": -1}, "tasks_per_hour must not be negative"),
        ({"tasks_per_hour": 1 << 26}, "tasks_per_hour must be below"),
        ({"error_body": "sonnet"}, "error_body must be one of"),
        ({"call_seconds_min": 5, "call_seconds_max": 4}, "call_seconds_min must not exceed"),
        ({"recording_bytes_min": 10}, "recording_bytes_min and recording_bytes_max lie in"),
        ({"tied_group_size": 0}, "must be at least 1"),
        ({"daily_rhythm": 2.0}, "daily_rhythm is at most 1"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_scenario_that_cannot_be_held_is_refused(knobs_given, complaint):
    with pytest.raises(ValueError, match=complaint):
        Scenario(**knobs_given)
