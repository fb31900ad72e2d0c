"""Rounds: contestants take turns, disturbed rounds are repeated, medians are kept."""

import shutil
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .contestants import Job, Measured, Peer, Trix
from .machine import OTHERS_LIMIT, Machine, wait_until_quiet
from .run import Usage, measure


@dataclass(frozen=True)
class Rules:
    rounds: int
    # Rounds that may be void before the row is given up as unsettled.
    void_limit: int
    # A trial keeps disturbed rounds: it shows that everything works, and proves nothing.
    trial: bool


@dataclass(frozen=True)
class Row:
    """Everything that was measured of one job: of each contestant one entry a round."""

    job: Job
    contestants: list[str]
    runs: list[list[Measured]]
    void_rounds: int
    settled: bool

    def of(self, n: int, part: str) -> list[Usage]:
        return [getattr(one[n], part) for one in self.runs]


def alternate(
    job: Job, contestants: Sequence[Trix | Peer], source: Path, work: Path, machine: Machine, rules: Rules, say: Callable[[str], None]
) -> Row:
    """A B C, A B C, … until there are enough rounds in which nobody else was at work."""
    kept: list[list[Measured]] = []
    void = 0
    while len(kept) < rules.rounds and void <= rules.void_limit:
        one: list[Measured] = []
        for contestant in contestants:
            folder = output_folder(work, job, contestant.label)
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            wait_until_quiet(machine)
            done = contestant.run(job, source, folder, machine, work / "log")
            say(f"round {len(kept) + 1}: {contestant.label:16} {line(done)}")
            if done.others > OTHERS_LIMIT and not rules.trial:
                void += 1
                say(f"round {len(kept) + 1} is void ({void}): others used {done.others:.1%} of the cores")
                break
            one.append(done)
        else:
            kept.append(one)
    return Row(job, [c.label for c in contestants], kept, void, settled=len(kept) >= rules.rounds)


def output_folder(work: Path, job: Job, label: str) -> Path:
    return work / "out" / job.name / label.replace(" ", "-")


def line(done: Measured) -> str:
    return (
        f"wall {done.verified.wall_s:7.2f} s, CPU {done.verified.cpu_s:7.2f} s "
        f"(encode alone {done.encode.wall_s:.2f}, {done.encode.cpu_s:.2f}), others {done.others:.1%}"
    )


@dataclass(frozen=True)
class Tried:
    words: str
    wall_s: float
    cpu_s: float


def strongest(
    job: Job, programs: dict[str, Path], source: Path, seconds: float, work: Path, machine: Machine, say: Callable[[str], None]
) -> tuple[Peer, list[Tried]]:
    """The quickest command by wall time on an excerpt, each tried twice.

    First every program in every layout with its own threading, then threads of encoders, filters
    and the decoder around the best of these: one thing after the other, not all combinations.
    """
    layouts = ["split", "cascade"] if len(job.rungs) > 1 else [""]
    tried: dict[Peer, Tried] = {}

    def best_of(peers: list[Peer]) -> Peer:
        fresh = [peer for peer in peers if peer not in tried]
        runs: dict[Peer, list[Usage]] = {peer: [] for peer in fresh}
        for _ in range(2):
            for peer in fresh:
                folder = output_folder(work, job, "sweep")
                folder.mkdir(parents=True, exist_ok=True)
                wait_until_quiet(machine)
                runs[peer].append(measure(peer.command(job, source, folder, seconds), machine, work / "log"))
        for peer in fresh:
            tried[peer] = Tried(peer.words, min(u.wall_s for u in runs[peer]), min(u.cpu_s for u in runs[peer]))
            say(f"sweep: {tried[peer].wall_s:6.2f} s wall, {tried[peer].cpu_s:6.2f} s CPU  {peer.words}")
        return min(tried, key=lambda peer: tried[peer].wall_s)

    best = best_of([Peer(program, label, layout) for label, program in programs.items() for layout in layouts])
    counts = sorted({1, machine.slots, machine.slots + 1, 2 * machine.slots})
    best = best_of([with_words(best, tuning=("-threads", str(n))) for n in counts])
    if len(job.rungs) > 1:
        best = best_of([with_words(best, general=("-filter_complex_threads", "1"))])
    best = best_of([with_words(best, general=(*best.general, "-threads", "1"))])
    return best, list(tried.values())


def with_words(peer: Peer, tuning: tuple[str, ...] | None = None, general: tuple[str, ...] | None = None) -> Peer:
    return Peer(
        peer.program,
        peer.label,
        peer.layout,
        peer.tuning if tuning is None else tuning,
        peer.general if general is None else general,
    )


@dataclass(frozen=True)
class Pair:
    """The same command measured against itself: what the machine's noise is."""

    wall_ratio: float
    cpu_ratio: float
    rounds: int
    void_rounds: int

    @property
    def within(self) -> bool:
        return abs(self.wall_ratio - 1) <= 0.01 and abs(self.cpu_ratio - 1) <= 0.01


def same_against_same(
    job: Job, peer: Peer, source: Path, seconds: float, work: Path, machine: Machine, rules: Rules, say: Callable[[str], None]
) -> Pair:
    """A A', A A', … of one command on an excerpt; ratio of the medians."""
    folder = output_folder(work, job, "same")
    folder.mkdir(parents=True, exist_ok=True)
    kept: list[tuple[Usage, Usage]] = []
    void = 0
    while len(kept) < rules.rounds and void <= rules.void_limit:
        pair = []
        for _ in range(2):
            wait_until_quiet(machine)
            pair.append(measure(peer.command(job, source, folder, seconds), machine, work / "log"))
        first, second = pair
        if max(first.others, second.others) > OTHERS_LIMIT and not rules.trial:
            void += 1
            continue
        kept.append((first, second))
        say(f"A/A round {len(kept)}: {first.wall_s:.2f} and {second.wall_s:.2f} s wall, {first.cpu_s:.2f} and {second.cpu_s:.2f} s CPU")
    if not kept:
        return Pair(float("nan"), float("nan"), 0, void)

    def ratio(part: str) -> float:
        a, b = (statistics.median(getattr(p[n], part) for p in kept) for n in (0, 1))
        return b / a

    return Pair(ratio("wall_s"), ratio("cpu_s"), len(kept), void)
