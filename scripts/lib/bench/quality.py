"""How good the outputs are: the referee compares each with the source.

A rung is compared at its own size with the source scaled by zimg (Lanczos), which no contestant
uses, so that a contestant gains nothing by scaling like the referee. Frames are paired by number.
"""

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from .clips import HEIGHT, RATE, WIDTH, count_frames, sha256
from .contestants import Job


@dataclass(frozen=True)
class Quality:
    output: str
    bytes: int
    frames: int
    sha256: str
    # Over all planes and frames, as libavfilter's filters define them.
    psnr_db: float
    ssim: float
    # At the source's size; only when asked for.
    vmaf: float | None


def judge(referee: Path, job: Job, source: Path, folder: Path, vmaf: bool) -> list[Quality]:
    found = []
    for (width, height), name in zip(job.rungs, job.outputs, strict=True):
        path = folder / name
        psnr, ssim = compare(referee, path, source, width, height)
        score = score_vmaf(referee, path, source) if vmaf else None
        found.append(Quality(name, path.stat().st_size, count_frames(referee, path), sha256(path), psnr, ssim, score))
    return found


def compare(referee: Path, path: Path, source: Path, width: int, height: int) -> tuple[float, float]:
    scale = "null" if (width, height) == (WIDTH, HEIGHT) else f"zscale=w={width}:h={height}:filter=lanczos"
    graph = (
        f"[0:v]setpts=N/{RATE}/TB,split[a][b];[1:v]setpts=N/{RATE}/TB,{scale},format=yuv420p,split[c][d];"
        "[a][c]psnr[p];[b][d]ssim[s]"
    )
    text = referee_says(referee, path, source, graph, ["[p]", "[s]"])
    psnr = re.search(r"PSNR .*average:([\d.]+|inf)", text)
    ssim = re.search(r"SSIM .*All:([\d.]+)", text)
    if not psnr or not ssim:
        raise ValueError(f"the referee gave no figures for {path.name}:\n{text[-2000:]}")
    return float(psnr[1]), float(ssim[1])


def score_vmaf(referee: Path, path: Path, source: Path) -> float:
    graph = (
        f"[0:v]setpts=N/{RATE}/TB,scale={WIDTH}:{HEIGHT}:flags=bicubic[a];[1:v]setpts=N/{RATE}/TB[b];"
        "[a][b]libvmaf=n_threads=8[v]"
    )
    found = re.search(r"VMAF score: ([\d.]+)", referee_says(referee, path, source, graph, ["[v]"]))
    if not found:
        raise ValueError(f"the referee gave no VMAF for {path.name}")
    return float(found[1])


def referee_says(referee: Path, path: Path, source: Path, graph: str, labels: list[str]) -> str:
    ends = [word for label in labels for word in ("-map", label, "-f", "null", "-")]
    done = subprocess.run(
        [referee, "-hide_banner", "-nostdin", "-nostats", "-i", path, "-i", source, "-filter_complex", graph, *ends],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return done.stderr
