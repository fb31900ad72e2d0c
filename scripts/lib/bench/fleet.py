"""The job system: the queue, claims, hints, and a fleet of virtual nodes (`scripts/bench --fleet`).

What is measured is done by `trix-chaos fleet`, on a PostgreSQL of its own; here it is told what to
do, given the chunk times of a real encode, and its figures are collected. The film over two workers
is the service itself at work, see `film`.
"""

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path

from . import film as one_film
from .clips import Title
from .contestants import LADDERS, Stages, Trix
from .machine import Machine, wait_until_quiet
from .run import measure
from .rounds import output_folder

PARTS = ["queue", "claim", "idle", "virtual", "stragglers", "film"]

# A trial shows that everything works, in a few minutes.
SMALL = {
    "queue": ["--tasks", "3000", "--trial"],
    "claim": ["--tasks", "10000", "--seconds", "10", "--closed-seconds", "3"],
    "idle": ["--samples", "50"],
    "virtual": ["--nodes", "50", "--slots", "16", "--pace", "1", "--seconds", "30"],
    "stragglers": ["--nodes", "5", "--slots", "2", "--per-slot", "8", "--pace", "20", "--rounds", "1"],
}


@dataclass(frozen=True)
class Tools:
    """What the measurements run with."""

    chaos: Path
    # The driver of graphile-worker, and the folder of its node_modules.
    driver: Path
    modules: Path


def run(parts: list[str], tools: Tools, trix: Trix, film: Title, work: Path, rounds: int, machine: Machine) -> dict:
    """Measures the parts one after the other; gives the figures by part."""
    chunks = work / "chunks.json"
    if {"virtual", "stragglers"} & set(parts):
        record(trix, film, work, machine, chunks)
    more = {
        "queue": ["--rounds", str(rounds), "--graphile", str(tools.driver), "--graphile-folder", str(tools.modules)],
        "virtual": ["--chunks", str(chunks)],
        "stragglers": ["--chunks", str(chunks)],
    }
    figures = {}
    for part in parts:
        print(f"\n== fleet: {part}", flush=True)
        if part == "film":
            figures[part] = one_film.run(trix, film, work, rounds, machine)
            continue
        wait_until_quiet(machine)
        found = work / f"fleet-{part}.json"
        small = SMALL[part] if machine.trial else []
        subprocess.run([tools.chaos, "fleet", part, *more.get(part, []), *small, "--json", found], check=True)
        figures[part] = json.loads(found.read_text())["figures"]
    return figures


def record(trix: Trix, film: Title, work: Path, machine: Machine, path: Path) -> None:
    """The wall time of every chunk of the title's ladder, with all cores at work."""
    job = LADDERS[-1]
    folder = output_folder(work, job, "recorded")
    folder.mkdir(parents=True, exist_ok=True)
    stages = Stages()
    measure(trix.command(job, film.path, folder, machine), machine, work / "log", stages.line)
    seconds = chunk_seconds(stages)
    made_by = f"trix encode of {film.path.name}, {job.words}, on {machine.slots} cores"
    path.write_text(json.dumps({"made_by": made_by, "seconds": seconds}) + "\n")
    print(f"recorded {len(seconds)} chunks of {sum(seconds) / len(seconds):.1f} s on average")


def chunk_seconds(stages: Stages) -> list[float]:
    seconds = [round(end - begin, 3) for task, (begin, end) in sorted(stages.spans.items()) if task.startswith("encode/")]
    if not seconds:
        raise SystemExit(f"trix encode printed no chunk: {sorted(stages.spans)}")
    return seconds
