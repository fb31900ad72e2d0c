"""What it costs to start: time, and the shared objects that are loaded."""

import os
import statistics
import subprocess
from dataclasses import dataclass
from pathlib import Path

from .machine import Machine
from .run import measure

STARTS = 50

# Names by which a shared library could find an encoder of ours inside the program, or take one of
# its own for it.
ENCODER_SYMBOLS = ("x264_", "x265", "rav1e")


@dataclass(frozen=True)
class Start:
    words: str
    wall_ms: float
    cpu_ms: float
    # Loader and vdso included, as ldd counts them.
    shared_objects: int


@dataclass(frozen=True)
class Starts:
    rows: list[Start]
    encoder_symbols: int


def starts(trix_media: Path, debian: dict[str, Path], static: Path, small: Path, machine: Machine, work: Path) -> Starts:
    """Medians of fifty starts each, and of fifty probes of a small MP4."""
    commands = [
        ("trix-media --version", [trix_media, "--version"]),
        ("ffmpeg -version (Debian)", [debian["ffmpeg"], "-version"]),
        ("ffmpeg -version (static)", [static, "-version"]),
        ("trix-media probe", [trix_media, "probe", small]),
        ("ffprobe -show_streams (Debian)", [debian["ffprobe"], "-v", "error", "-show_format", "-show_streams", small]),
    ]
    rows = []
    for words, argv in commands:
        text = [str(word) for word in argv]
        used = [measure(text, machine, work / "log") for _ in range(STARTS)]
        wall, cpu = (statistics.median(getattr(u, part) for u in used) * 1000 for part in ("wall_s", "cpu_s"))
        rows.append(Start(words, wall, cpu, shared_objects(Path(text[0]))))
    return Starts(rows, exported_encoder_symbols(trix_media))


def shared_objects(program: Path) -> int:
    """Objects that the loader maps; none for a static program, which the loader does not run."""
    if b"interpreter" not in subprocess.run(["readelf", "-l", program], capture_output=True, check=True).stdout:
        return 0
    traced = subprocess.run([program], env={**os.environ, "LD_TRACE_LOADED_OBJECTS": "1"}, capture_output=True, check=True)
    return len(traced.stdout.splitlines())


def exported_encoder_symbols(program: Path) -> int:
    table = subprocess.run(["nm", "-D", "--defined-only", program], capture_output=True, text=True, check=True)
    return sum(any(name in line for name in ENCODER_SYMBOLS) for line in table.stdout.splitlines())
