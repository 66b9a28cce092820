"""``python -m include.sandbox``: serve a scenario until SIGINT or SIGTERM."""

import asyncio
import signal
import sys
from collections.abc import Sequence

from include.sandbox.options import build_parser, scenario_of
from include.sandbox.server import SandboxApplication, serve
from include.sandbox.state import SandboxState


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until told to stop; 2 for a scenario that cannot be held."""
    parser = build_parser()
    parsed = parser.parse_args(arguments)
    try:
        state = SandboxState(scenario_of(parsed))
    except ValueError as error:
        parser.error(str(error))
    asyncio.run(_serve_until_signalled(SandboxApplication(state), parsed.host, parsed.port))
    return 0


async def _serve_until_signalled(application: SandboxApplication, host: str, port: int) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    await serve(application, host, port, _announce, stop)


def _announce(base_url: str) -> None:
    print(f"The Webex sandbox listens on {base_url}/ (its page; Ctrl-C stops it)", flush=True)


if __name__ == "__main__":
    sys.exit(main())
