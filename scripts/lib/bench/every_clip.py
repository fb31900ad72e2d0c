"""Every clip of the test media: encoded at its whole length to the frame, or refused by name."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from .clips import count_frames

REFUSALS = Path("docs/refusals.md")


@dataclass(frozen=True)
class Outcome:
    clip: str
    frames: int | None
    seconds: float
    result: str
    right: bool


def run(trix: Path, referee: Path, work: Path) -> int:
    """Prints the table; 1 when any clip is neither exact nor refused as docs/refusals.md says."""
    media = os.environ.get("TRIX_TEST_MEDIA")
    if not media or not Path(media).is_dir():
        print("SKIP clips: TRIX_TEST_MEDIA names no folder of real clips", file=sys.stderr)
        return 0
    clips = [path for name in ("clips", "shapes") for path in sorted((Path(media) / name).iterdir()) if path.is_file()]
    outcomes = []
    width = max(len(path.name) for path in clips)
    print(f"{'clip':{width}}  frames  seconds  result")
    for path in clips:
        outcome = encode(trix, referee, path, work)
        outcomes.append(outcome)
        frames = "-" if outcome.frames is None else str(outcome.frames)
        mark = "" if outcome.right else "WRONG: "
        print(f"{outcome.clip:{width}}  {frames:>6}  {outcome.seconds:7.2f}  {mark}{outcome.result}", flush=True)
    wrong = sum(not outcome.right for outcome in outcomes)
    exact = sum(outcome.right and outcome.frames is not None for outcome in outcomes)
    print(f"\n{len(outcomes)} clips: {exact} exact, {len(outcomes) - exact - wrong} refused as documented, {wrong} wrong")
    return 1 if wrong else 0


def encode(trix: Path, referee: Path, path: Path, work: Path) -> Outcome:
    shutil.rmtree(work / "cache", ignore_errors=True)
    output = work / "clip.mkv"
    begin = time.monotonic()
    done = subprocess.run(
        [trix, "encode", path, "-o", output, "--force", "--video", "x264-8", "--preset", "ultrafast", "--audio", "aac",
         "--cache", work / "cache", "--progress", "json"],
        capture_output=True, text=True,
    )  # fmt: skip
    seconds = time.monotonic() - begin
    if done.returncode != 0:
        result, right = refusal(path.name, done)
        return Outcome(path.name, None, seconds, result, right)
    ours = probed_frames(output)
    theirs, judge = judged_frames(referee, path)
    if ours == theirs:
        return Outcome(path.name, ours, seconds, f"exact by {judge}", path.name not in documented())
    return Outcome(path.name, ours, seconds, f"{judge} counts {theirs} in the source", False)


def refusal(name: str, done: subprocess.CompletedProcess[str]) -> tuple[str, bool]:
    """The code of a typed refusal, and whether it is the documented one for this clip."""
    events = [json.loads(line) for line in done.stdout.splitlines()]
    failure = next((event["failure"] for event in events if event["event"] == "failed"), None)
    if done.returncode != 1 or failure is None:
        return f"exit code {done.returncode}: {done.stderr.strip()[-200:]}", False
    code, expected = failure["code"], documented().get(name)
    if code == expected:
        return f"refused: {code}", True
    return f"refused: {code} ({failure['message']}); {REFUSALS} says {expected or 'nothing'}", False


def documented() -> dict[str, str]:
    """Clip and code, as the table of clips in docs/refusals.md has them."""
    return dict(re.findall(r"^\| `([^`|]+\.[^`|]+)` \| `(\w+)` \|", REFUSALS.read_text(), re.MULTILINE))


def probed_frames(path: Path) -> int | None:
    """Frames of the first picture by Debian's ffprobe; `None` where it can't decode them."""
    done = subprocess.run(
        ["ffprobe", "-v", "error", "-count_frames", "-select_streams", "v:0", "-show_entries", "stream=nb_read_frames", "-of", "csv=p=0", path],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    # Programs of a transport stream repeat the line.
    first = next(iter(done.stdout.splitlines()), "").strip().strip(",")
    return int(first) if first.isdigit() and first != "0" else None


def judged_frames(referee: Path, path: Path) -> tuple[int, str]:
    """Frames in a source. Codecs that are newer than Debian's libav are counted by the referee's."""
    frames = probed_frames(path)
    return (frames, "ffprobe") if frames is not None else (count_frames(referee, path), "the static ffmpeg")
