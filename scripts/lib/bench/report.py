"""What a person reads in the terminal, and what a program reads in the file."""

import dataclasses
import statistics
from collections.abc import Sequence

from .quality import Quality
from .rounds import Pair, Row
from .run import Usage
from .start import Starts

VERSION = 1


def print_row(row: Row, quality: list[list[Quality]]) -> None:
    state = "" if row.settled else "  NOT SETTLED: too many rounds were void"
    print(f"\n== {row.job.words}: {len(row.runs)} rounds, {row.void_rounds} void{state}")
    if not row.runs:
        return
    for part, words in (
        ("verified", "with a full decode of every output: trix as shipped, ffmpeg followed by `ffmpeg -i OUT -f null -`"),
        ("encode", "without it: trix less its verification (CPU by `trix verify`, wall by its events), ffmpeg alone"),
    ):
        print(f"\n{words}")
        table(
            ["", "wall s", "±", "CPU s", "±", "peak MiB", "wall ÷ trix", "CPU ÷ trix"],
            [contestant_cells(row, n, part) for n in range(len(row.contestants))],
        )
    print("\nwhat came out")
    header = ["", *row.contestants]
    cells = [
        [output, *(f"{q[n].bytes / 1e6:.3f} MB  {q[n].psnr_db:.3f} dB  {q[n].ssim:.5f}{vmaf(q[n])}" for q in quality)]
        for n, output in enumerate(row.job.outputs)
    ]
    if len(row.job.outputs) > 1:
        cells.append(["all", *(f"{sum(o.bytes for o in q) / 1e6:.3f} MB" for q in quality)])
    table(header, cells)


def vmaf(quality: Quality) -> str:
    return "" if quality.vmaf is None else f"  VMAF {quality.vmaf:.2f}"


def contestant_cells(row: Row, n: int, part: str) -> list[str]:
    used, base = row.of(n, part), row.of(0, part)
    wall, cpu = median(used, "wall_s"), median(used, "cpu_s")
    return [
        row.contestants[n],
        f"{wall:.2f}",
        f"{spread(used, 'wall_s'):.1%}",
        f"{cpu:.2f}",
        f"{spread(used, 'cpu_s'):.1%}",
        f"{max(u.peak_mib for u in used):.0f}",
        f"{wall / median(base, 'wall_s'):.3f}",
        f"{cpu / median(base, 'cpu_s'):.3f}",
    ]


def median(used: Sequence[Usage], part: str) -> float:
    return statistics.median(getattr(u, part) for u in used)


def spread(used: Sequence[Usage], part: str) -> float:
    """Half of what lies between the smallest and the largest, as a share of the median."""
    values = [getattr(u, part) for u in used]
    return (max(values) - min(values)) / 2 / statistics.median(values)


def print_pair(pair: Pair) -> None:
    verdict = "within 1 %" if pair.within else "NOT within 1 %: the machine is too noisy for claims"
    print(
        f"\n== the same command against itself: wall {pair.wall_ratio:.4f}, CPU {pair.cpu_ratio:.4f}, "
        f"{pair.rounds} rounds, {pair.void_rounds} void: {verdict}"
    )


def print_starts(starts: Starts) -> None:
    print("\n== start (medians of 50)")
    table(
        ["", "wall ms", "CPU ms", "shared objects"],
        [[s.words, f"{s.wall_ms:.2f}", f"{s.cpu_ms:.2f}", str(s.shared_objects)] for s in starts.rows],
    )
    print(f"encoder symbols that trix-media exports (nm -D): {starts.encoder_symbols}")


def table(header: list[str], rows: list[list[str]]) -> None:
    widths = [max(len(line[n]) for line in [header, *rows]) for n in range(len(header))]
    for line in [header, *rows]:
        print("  " + "  ".join(cell.ljust(w) if n == 0 else cell.rjust(w) for n, (cell, w) in enumerate(zip(line, widths, strict=True))).rstrip())


def row_json(row: Row, quality: list[list[Quality]], sweep: object) -> dict:
    return {
        "job": dataclasses.asdict(row.job),
        "settled": row.settled,
        "void_rounds": row.void_rounds,
        "sweep": sweep,
        "contestants": [
            {
                "name": name,
                "rounds": [dataclasses.asdict(one[n]) for one in row.runs],
                "quality": [dataclasses.asdict(q) for q in quality[n]] if quality else [],
            }
            for n, name in enumerate(row.contestants)
        ],
    }
