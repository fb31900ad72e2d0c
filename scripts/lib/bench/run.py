"""One command from start to end: what it took."""

import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .machine import Machine, busy_seconds


class Failed(Exception):
    """A command that was to be measured ended with an error."""


@dataclass(frozen=True)
class Usage:
    """What one command, or several in a row, took."""

    wall_s: float
    # User and system, of the process and of all its children that it waited for.
    cpu_s: float
    # Every contestant is one process, so its largest resident set is the peak of its group. The
    # kernel lets a child begin at its parent's peak: below 30 MiB the figure means nothing.
    peak_mib: float
    # CPU that anyone else spent on our cores meanwhile, as a share of what they can give.
    others: float

    def __add__(self, other: "Usage") -> "Usage":
        wall = self.wall_s + other.wall_s
        others = (self.others * self.wall_s + other.others * other.wall_s) / wall if wall else 0.0
        return Usage(wall, self.cpu_s + other.cpu_s, max(self.peak_mib, other.peak_mib), others)


NOTHING = Usage(0.0, 0.0, 0.0, 0.0)


def measure(
    argv: list[str], machine: Machine, log: Path, on_line: Callable[[float, str], None] | None = None
) -> Usage:
    """Runs a command. `on_line` gets each line of its output with the seconds since it began."""
    with log.open("ab") as sink:
        busy, own = busy_seconds(machine.cores), time.process_time()
        begin = time.monotonic()
        child = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if on_line else sink,
            stderr=sink,
            close_fds=False,  # Lets Python start it without copying itself first.
        )
        if on_line and child.stdout:
            for line in child.stdout:
                on_line(time.monotonic() - begin, line.decode(errors="replace"))
        _, status, used = os.wait4(child.pid, 0)
        wall = time.monotonic() - begin
        busy, own = busy_seconds(machine.cores) - busy, time.process_time() - own
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        last = "\n".join(log.read_text(errors="replace").splitlines()[-12:])
        raise Failed(f"exit code {child.returncode} of: {' '.join(argv)}\n{last}")
    cpu = used.ru_utime + used.ru_stime
    others = max(0.0, busy - cpu - own) / (wall * machine.slots)
    return Usage(wall, cpu, used.ru_maxrss / 1024, others)
