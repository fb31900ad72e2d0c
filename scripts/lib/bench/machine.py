"""The machine: what it is, how much of it is ours, and who else works on it."""

import os
import platform
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")

# Above this share of the pinned cores, what others do shows in a measurement.
OTHERS_LIMIT = 0.05
# How long a run waits for the machine to become quiet before it begins anyway.
QUIET_WAIT_S = 60


@dataclass(frozen=True)
class Machine:
    """The pinned cores, and what a reader must know to compare figures."""

    cores: tuple[int, ...]
    notes: tuple[str, ...]
    # A trial takes the machine as it is, with others at work on it.
    trial: bool

    @property
    def slots(self) -> int:
        return len(self.cores)


def take(trial: bool) -> Machine:
    """Pins this process and all that it starts to its cores, and raises their share."""
    cores = tuple(sorted(os.sched_getaffinity(0)))
    os.sched_setaffinity(0, cores)
    notes = ["not raised for a trial"] if trial else [raise_priority(), raise_autogroup()]
    return Machine(cores, tuple(notes), trial)


def raise_priority() -> str:
    try:
        os.setpriority(os.PRIO_PROCESS, 0, -10)
    except PermissionError:
        return "nice: not permitted, left at 0"
    return "nice: -10"


def raise_autogroup() -> str:
    """With autogroups, nice only counts inside a session: the session has a nice of its own."""
    path = Path("/proc/self/autogroup")
    enabled = Path("/proc/sys/kernel/sched_autogroup_enabled")
    if not path.exists() or enabled.read_text().strip() != "1":
        return "autogroup: the kernel has none"
    try:
        path.write_text("-10")
    except OSError as error:
        return f"autogroup: not permitted ({error.strerror})"
    return "autogroup: nice -10"


def busy_seconds(cores: tuple[int, ...]) -> float:
    """CPU time that anyone spent on these cores since boot, stolen time included."""
    names = {f"cpu{n}" for n in cores}
    ticks = 0
    for line in Path("/proc/stat").read_text().splitlines():
        name, *fields = line.split()
        if name in names:
            user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, fields[:8])
            ticks += user + nice + system + irq + softirq + steal
    return ticks / TICKS


def wait_until_quiet(machine: Machine) -> None:
    """Returns once others use less than the limit for a second, or after a minute."""
    if machine.trial:
        return
    os.sync()  # What the run before wrote shall not be flushed during the next one.
    end = time.monotonic() + QUIET_WAIT_S
    while time.monotonic() < end:
        before = busy_seconds(machine.cores)
        time.sleep(1)
        if busy_seconds(machine.cores) - before < OTHERS_LIMIT * machine.slots:
            return


def describe(machine: Machine) -> dict:
    """Machine and system for the report."""
    model = next(
        (line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")),
        platform.processor(),
    )
    memory_kib = int(Path("/proc/meminfo").read_text().split()[1])
    return {
        "cpu": model,
        "cores": list(machine.cores),
        "memory_mib": memory_kib // 1024,
        "kernel": platform.release(),
        "system": first_line(["sh", "-c", ". /etc/os-release; echo $PRETTY_NAME"]),
        "share": list(machine.notes),
    }


def first_line(argv: list[str]) -> str:
    """The first line that a command prints, for versions."""
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[0].strip()
