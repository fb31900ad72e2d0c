"""Who is measured: trix, and the ffmpeg command lines that do the same.

Equal on both sides: x264's preset, CRF and defaults; no sound; MP4 with fast start; and the places
of IDR frames. trix begins a closed segment every two seconds and allows no IDR in between, so the
peers are told the same: a forced IDR every 48 frames, `min-keyint` 48 and `keyint` 96, which keeps
x264 from placing others (it halves the smaller against the larger).
"""

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from .clips import HEIGHT, RATE, WIDTH
from .machine import Machine
from .run import NOTHING, Usage, measure

CRF = 23
SEGMENT_S = 2
SEGMENT = SEGMENT_S * RATE
LADDER = [(1920, 1080), (1280, 720), (960, 540), (640, 360), (416, 234)]


@dataclass(frozen=True)
class Job:
    """What every contestant of a row makes of the title."""

    name: str
    words: str
    preset: str
    rungs: list[tuple[int, int]]

    @property
    def outputs(self) -> list[str]:
        return [f"{height}p.mp4" for _, height in self.rungs]


SINGLE = Job("single-medium", "one file, H.264 medium, CRF 23", "medium", [(WIDTH, HEIGHT)])
LADDERS = [
    Job("ladder-veryfast", "five-rung H.264 ladder, veryfast, CRF 23", "veryfast", LADDER),
    Job("ladder-medium", "five-rung H.264 ladder, medium, CRF 23", "medium", LADDER),
]


@dataclass(frozen=True)
class Measured:
    """One run of one contestant."""

    # Encoding and everything up to the finished file, without the verifying decode.
    encode: Usage
    # The same and a full decode of every output.
    verified: Usage
    # Others' share of our cores in the worst part of the run.
    others: float


@dataclass(frozen=True)
class Peer:
    """An ffmpeg command line."""

    program: Path
    label: str
    layout: str = "split"
    # Words before each output, beyond those that every command has.
    tuning: tuple[str, ...] = ()
    # Words before the input: how filters and the decoder are threaded.
    general: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        general = f"before -i: {' '.join(self.general)}" if self.general else ""
        tuning = f"each output: {' '.join(self.tuning)}" if self.tuning else ""
        return "; ".join(filter(None, [f"{self.label} {self.layout}".strip(), general, tuning]))

    def command(self, job: Job, source: Path, folder: Path, seconds: float | None = None) -> list[str]:
        head = [str(self.program), "-hide_banner", "-loglevel", "error", "-nostdin", "-y", *self.general]
        excerpt = [] if seconds is None else ["-t", str(seconds)]
        graph, labels = filters(job.rungs, self.layout)
        outputs = [
            word
            for label, output in zip(labels, job.outputs, strict=True)
            for word in ("-map", label, "-an", *encoder(job.preset), *self.tuning, str(folder / output))
        ]
        return [*head, *excerpt, "-i", str(source), *(["-filter_complex", graph] if graph else []), *outputs]

    def run(self, job: Job, source: Path, folder: Path, machine: Machine, log: Path) -> Measured:
        encode = measure(self.command(job, source, folder), machine, log)
        verify = NOTHING
        for output in job.outputs:
            check = [str(self.program), "-v", "error", "-xerror", "-nostdin", "-i", str(folder / output), "-f", "null", "-"]
            verify += measure(check, machine, log)
        return Measured(encode, encode + verify, max(encode.others, (encode + verify).others))


def encoder(preset: str) -> list[str]:
    return [
        "-c:v", "libx264", "-preset", preset, "-crf", str(CRF),
        "-force_key_frames", f"expr:gte(n,n_forced*{SEGMENT})", "-forced-idr", "1",
        "-x264-params", f"keyint={2 * SEGMENT}:min-keyint={SEGMENT}",
        "-movflags", "+faststart",
    ]  # fmt: skip


def filters(rungs: list[tuple[int, int]], layout: str) -> tuple[str, list[str]]:
    """The filter graph and the label of each rung in it.

    `split` scales each rung from the source, `cascade` from the rung above it.
    """
    if len(rungs) == 1:
        return "", ["0:v:0"]
    count, labels = len(rungs), [f"[v{n}]" for n in range(len(rungs))]
    if layout == "split":
        scaled = [f"[s{n}]scale={w}:{h}[v{n}]" for n, (w, h) in enumerate(rungs) if n > 0]
        return ";".join([f"[0:v:0]split={count}[v0]" + "".join(f"[s{n}]" for n in range(1, count)), *scaled]), labels
    chains = ["[0:v:0]split[v0][s1]"]
    for n, (w, h) in enumerate(rungs[1:], 1):
        last = n == count - 1
        chains.append(f"[s{n}]scale={w}:{h}" + (f"[v{n}]" if last else f",split[v{n}][s{n + 1}]"))
    return ";".join(chains), labels


@dataclass
class Trix:
    """`trix encode`, which verifies what it makes by a full decode and can't be told not to."""

    program: Path
    work: Path
    label: str = "trix"

    def command(self, job: Job, source: Path, folder: Path, machine: Machine) -> list[str]:
        cache = self.work / "cache"
        common = ["--slots", str(machine.slots), "--cache", str(cache), "--progress", "json", "--force"]
        if len(job.rungs) == 1:
            what = ["-o", str(folder / job.outputs[0]), "--video", "x264-8", "--preset", job.preset, "--crf", str(CRF), "--audio", "none"]
        else:
            what = ["--profile", str(self.ladder(job)), "--out", str(folder)]
        return [str(self.program), "encode", str(source), *what, *common]

    def ladder(self, job: Job) -> Path:
        """The ladder as a profile file."""
        path = self.work / f"{job.name}.toml"
        rungs = "".join(
            f'\n[[rendition]]\nname = "{height}p"\nwidth = {width}\nheight = {height}\ncrf = {CRF}\n' for width, height in job.rungs
        )
        path.write_text(
            f'v = 1\nname = "{job.name}"\ndescription = "The ladder of scripts/bench"\n\n'
            f'[video]\nsegment_seconds = {SEGMENT_S}\nencoder = "x264-8"\npreset = "{job.preset}"\n{rungs}\n'
            '[package]\ncontainer = "mp4"\n\n[publish]\nshare = "output"\npath = "{title}"\n'
        )
        return path

    def run(self, job: Job, source: Path, folder: Path, machine: Machine, log: Path) -> Measured:
        shutil.rmtree(self.work / "cache", ignore_errors=True)
        stages = Stages()
        shipped = measure(self.command(job, source, folder, machine), machine, log, stages.line)
        stages.check(len(job.rungs))
        # The verifying decode has no figure of its own: its CPU is what the same decode takes by
        # itself, its wall time is the end of the run when nothing else was at work.
        check = [str(self.program), "verify", *(str(folder / output) for output in job.outputs)]
        verify = measure(check, machine, log)
        encode = replace(shipped, wall_s=shipped.wall_s - stages.only_verifying(), cpu_s=shipped.cpu_s - verify.cpu_s)
        return Measured(encode, shipped, shipped.others)


class Stages:
    """When trix's tasks began and ended, by the events that it prints."""

    def __init__(self) -> None:
        self.open: dict[str, float] = {}
        self.spans: dict[str, tuple[float, float]] = {}
        self.finished: dict = {}

    def line(self, at: float, text: str) -> None:
        event = json.loads(text)
        match event["event"]:
            case "started":
                self.open[event["task"]] = at
            case "done" if not event["cached"]:
                self.spans[event["task"]] = (self.open.pop(event["task"]), at)
            case "finished":
                self.finished = event

    def check(self, outputs: int) -> None:
        """All was encoded and verified in this run, nothing came from a cache."""
        assert self.finished["chunks"] == self.finished["chunks_encoded"] > 0, self.finished
        assert len(self.finished["files"]) == outputs, self.finished
        verified = sum(task.startswith("verify/") for task in self.spans)
        assert verified == outputs, f"{verified} of {outputs} files were verified: {sorted(self.spans)}"

    def only_verifying(self) -> float:
        """Seconds in which a verification ran and nothing else did."""
        is_verify = {task: task.startswith("verify/") for task in self.spans}
        borders = sorted({t for span in self.spans.values() for t in span})
        total = 0.0
        for a, b in zip(borders, borders[1:]):
            kinds = {is_verify[task] for task, (begin, end) in self.spans.items() if begin <= a and end >= b}
            total += b - a if kinds == {True} else 0.0
        return total
