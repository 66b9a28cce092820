"""The command line's options, generated from the scenario's fields."""

import argparse

from include.sandbox.scenario import Scenario, knobs

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8808


def build_parser() -> argparse.ArgumentParser:
    """The parser of ``python -m include.sandbox``: host, port and every knob."""
    parser = argparse.ArgumentParser(
        prog="python -m include.sandbox",
        description="A strict stand-in for Webex Contact Center. Its page is GET /.",
    )
    parser.add_argument("--host", default=DEFAULT_HOST, help=f"Default {DEFAULT_HOST}: loopback.")
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, help=f"Default {DEFAULT_PORT}.")
    for knob in knobs():
        option = "--" + knob.name.replace("_", "-")
        description = f"{knob.description} Default: {knob.default!r}.".replace("%", "%%")
        if knob.kind is bool:
            parser.add_argument(
                option,
                action=argparse.BooleanOptionalAction,
                default=knob.default,
                help=description,
            )
        else:
            parser.add_argument(
                option,
                type=knob.kind,
                choices=knob.choices or None,
                default=knob.default,
                help=description,
            )
    return parser


def scenario_of(arguments: argparse.Namespace) -> Scenario:
    """The scenario that parsed arguments describe.

    Raises:
        ValueError: A value is out of its range.
    """
    return Scenario(**{knob.name: getattr(arguments, knob.name) for knob in knobs()})
