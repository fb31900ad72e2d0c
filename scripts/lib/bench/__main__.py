"""scripts/bench after it has set everything up; see docs/bench.md."""

import argparse
import dataclasses
import json
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

from . import every_clip, fleet, machine, report, rounds, start
from .clips import Title, title
from .contestants import LADDERS, SINGLE, Job, Peer, Trix
from .machine import Machine
from .quality import judge
from .rounds import Rules

PARTS = ["start", "same", SINGLE.name, *(job.name for job in LADDERS)]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each row; 5 for claims (default: 3)")
    parser.add_argument("--minutes", type=float, default=1.0, help="length of the title (default: 1)")
    parser.add_argument("--only", help=f"parts, with commas between them (default: {','.join(PARTS)}; with --fleet {','.join(fleet.PARTS)})")
    parser.add_argument("--vmaf", action="store_true", help="score VMAF as well, which takes long")
    parser.add_argument("--sweep-seconds", type=float, default=20, help="excerpt for finding the strongest command (default: 20)")
    parser.add_argument("--void-limit", type=int, help="void rounds after which a row is given up (default: twice the rounds)")
    parser.add_argument("--trial", action="store_true", help="keep disturbed rounds: shows that it works, proves nothing")
    parser.add_argument("--clips", action="store_true", help="encode every clip of $TRIX_TEST_MEDIA to the frame instead")
    parser.add_argument("--fleet", action="store_true", help="measure the job system instead")
    parser.add_argument("--folder", type=Path, required=True, help=argparse.SUPPRESS)
    parser.add_argument("--programs", type=Path, required=True, help=argparse.SUPPRESS)
    given = parser.parse_args()
    known = fleet.PARTS if given.fleet else PARTS
    given.only = given.only.split(",") if given.only else known
    unknown = set(given.only) - set(known)
    if unknown:
        parser.error(f"--only takes {', '.join(known)}, not {', '.join(sorted(unknown))}")
    if given.rounds < 1:
        parser.error("--rounds takes 1 or more")
    return given


def main() -> int:
    given = arguments()
    trix, trix_media = given.programs / "trix", given.programs / "trix-media"
    work = given.folder / "work"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)

    import imageio_ffmpeg  # Of the environment that scripts/bench makes.

    static = Path(imageio_ffmpeg.get_ffmpeg_exe())
    if given.clips:
        return every_clip.run(trix, static, work)

    here = machine.take(given.trial)
    film = title(given.folder, Path(sys.executable), static, given.minutes)
    film.path.read_bytes()  # Into the page cache: disks are not what is compared.
    bench = Bench(given, here, film, trix, static, work)
    facts = {
        "schema": report.VERSION,
        "trial": given.trial,
        "began": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": machine.describe(here),
        "versions": bench.versions(trix_media),
        "settings": {"rounds": given.rounds, "minutes": given.minutes, "sweep_seconds": given.sweep_seconds, "void_above": machine.OTHERS_LIMIT},
        "title": {"frames": film.frames, "seconds": film.seconds, "sha256": film.digests, "made_by": film.made_by},
    }
    print(json.dumps({k: facts[k] for k in ("machine", "versions")}, indent=2))
    print(f"title: {film.path.name}, {film.frames} frames, {film.seconds:.1f} s, 1920x1080 at 24, no sound")
    if given.trial:
        print("TRIAL: disturbed rounds are kept; no figure below is a claim")

    if given.fleet:
        tools = fleet.Tools(given.programs / "trix-chaos", Path(__file__).with_name("graphile.mjs"), given.folder / "graphile")
        facts["fleet"] = fleet.run(given.only, tools, bench.trix, film, work, given.rounds, here)
        write(given.folder, facts)
        return 0

    parts, sound = given.only, True
    if "start" in parts:
        small = given.folder / "bikes.mp4"
        debian = {name: debian_program(name) for name in ("ffmpeg", "ffprobe")}
        found = start.starts(trix_media, debian, static, small, here, work)
        facts["start"] = dataclasses.asdict(found)
        report.print_starts(found)
        sound &= found.encoder_symbols == 0 and found.rows[0].shared_objects < 20
    if "same" in parts:
        pair = rounds.same_against_same(SINGLE, bench.stock, film.path, given.sweep_seconds, work, here, bench.rules, bench.say)
        facts["same"] = {**dataclasses.asdict(pair), "within": pair.within}
        report.print_pair(pair)
        sound &= pair.within
    facts["rows"] = []
    for job in [SINGLE, *LADDERS]:
        if job.name in parts:
            row, settled = bench.row(job)
            facts["rows"].append(row)
            sound &= settled

    write(given.folder, facts)
    if not sound and not given.trial:
        print("NOT SOUND: a row is not settled, the A/A pair is off, or an invariant of the start is broken", file=sys.stderr)
        return 1
    return 0


def write(folder: Path, facts: dict) -> None:
    results = folder / "results"
    results.mkdir(exist_ok=True)
    path = results / f"bench-{facts['began'].replace(':', '').replace('-', '')}.json"
    path.write_text(json.dumps(facts, indent=1) + "\n")
    print(f"\nall figures: {path}")


class Bench:
    """What all rows share."""

    def __init__(self, given: argparse.Namespace, here: Machine, film: Title, trix: Path, static: Path, work: Path) -> None:
        self.given, self.here, self.film, self.work = given, here, film, work
        self.static = static
        self.trix = Trix(trix, work)
        self.stock = Peer(debian_program("ffmpeg"), "ffmpeg stock")
        limit = 2 * given.rounds if given.void_limit is None else given.void_limit
        self.rules = Rules(given.rounds, limit, given.trial)
        self.say: Callable[[str], None] = lambda text: print(text, file=sys.stderr, flush=True)

    def row(self, job: Job) -> tuple[dict, bool]:
        """Finds the strongest command, measures, judges, prints."""
        programs = {"Debian": self.stock.program, "static": self.static}
        best, tried = rounds.strongest(job, programs, self.film.path, self.given.sweep_seconds, self.work, self.here, self.say)
        strong = dataclasses.replace(best, label="ffmpeg strongest")
        contestants = [self.trix, self.stock, strong]
        row = rounds.alternate(job, contestants, self.film.path, self.work, self.here, self.rules, self.say)
        quality = []
        if row.runs:
            for contestant in contestants:
                folder = rounds.output_folder(self.work, job, contestant.label)
                quality.append(judge(self.static, job, self.film.path, folder, self.given.vmaf))
        for contestant, outputs in zip(row.contestants, quality):
            for made in outputs:
                if made.frames != self.film.frames:
                    raise SystemExit(f"{contestant} made {made.frames} of {self.film.frames} frames of {made.output}")
        report.print_row(row, quality)
        print(f"strongest: {best.words}")
        return report.row_json(row, quality, {"chosen": best.words, "tried": [dataclasses.asdict(t) for t in tried]}), row.settled

    def versions(self, trix_media: Path) -> dict[str, str]:
        return {
            "trix": machine.first_line([str(trix_media), "--version"]),
            "engine": machine.first_line([str(trix_media), "engine-id"]),
            "ffmpeg (Debian)": machine.first_line([str(self.stock.program), "-version"]),
            "ffmpeg (static, referee)": machine.first_line([str(self.static), "-version"]),
        }


def debian_program(name: str) -> Path:
    """The distribution's own, even where another one comes first in PATH."""
    path = Path("/usr/bin") / name
    if not path.exists():
        raise SystemExit(f"{path} is missing; scripts/setup installs it")
    return path


if __name__ == "__main__":
    sys.exit(main())
