"""Runs one program and writes what it cost: processor seconds, wall seconds and peak memory.

A program of its own with next to no imports: a process inherits the peak memory of the one that started it.
Linux and macOS count the peak of the largest of the program's processes, not their sum.
"""

import json
import os
import sys
import time

KIBIBYTES = 1 if sys.platform == "darwin" else 1024  # the unit of ru_maxrss


def main() -> int:
    """`measure.py RESULT PROGRAM [ARGUMENT …]`: the exit status is the program's."""
    result, *command = sys.argv[1:]
    started = time.monotonic()
    process = os.posix_spawnp(command[0], command, os.environ)
    _, status, usage = os.wait4(process, 0)
    cost = {
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "wall_seconds": time.monotonic() - started,
        "peak_bytes": usage.ru_maxrss * KIBIBYTES,
    }
    with open(result, "w") as file:  # noqa: PTH123 - pathlib would be the largest import
        json.dump(cost, file)
    return os.waitstatus_to_exitcode(status)


if __name__ == "__main__":
    sys.exit(main())
