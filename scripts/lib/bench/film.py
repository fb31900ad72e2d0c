"""One long film over two workers: what the second one brings (`scripts/bench --fleet --only film`).

A worker of one slot makes the film; then two of them, on the same shares and with the same
database, make it anew. What can be asked of the second is what this machine gives to anything: the
gain of two independent encodes, `trix encode` with one slot alone against two of them at once.
"""

import contextlib
import hashlib
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from .clips import Title
from .contestants import SINGLE, Trix
from .machine import Machine, wait_until_quiet
from .run import Failed

# Longest wait for a service to come up and for a film to be made, in seconds.
PATIENCE_S = 3600


def run(trix: Trix, film: Title, work: Path, rounds: int, machine: Machine) -> dict:
    """Alternates the four runs; T(1) ÷ T(2) by the gain of two encodes is the figure."""
    profile = trix.ladder(SINGLE)
    found, digests = [], set()
    for n in range(rounds):
        times = {}
        for workers in (1, 2):
            wait_until_quiet(machine)
            times[f"workers_{workers}_s"], made = through_the_service(trix, film, profile, work / "service", workers)
            digests.add(made)
        for encodes in (1, 2):
            wait_until_quiet(machine)
            times[f"encodes_{encodes}_s"] = side_by_side(trix, film, profile, work / "alone", encodes)
        gain = 2 * times["encodes_1_s"] / times["encodes_2_s"]
        speedup = times["workers_1_s"] / times["workers_2_s"]
        found.append({**times, "gain": gain, "speedup": speedup, "ratio": speedup / gain})
        print(
            f"round {n + 1}: one worker {times['workers_1_s']:.1f} s, two {times['workers_2_s']:.1f} s: {speedup:.3f};"
            f" an encode {times['encodes_1_s']:.1f} s, two at once {times['encodes_2_s']:.1f} s: {gain:.3f};"
            f" ratio {speedup / gain:.3f}",
            flush=True,
        )
    digests.add(hashlib.sha256((work / "alone/0" / SINGLE.outputs[0]).read_bytes()).hexdigest())
    if len(digests) != 1:
        raise SystemExit(f"one worker, two workers and one process make {len(digests)} different files")
    ratio = statistics.median(r["ratio"] for r in found)
    print(f"T(1) ÷ T(2) is {ratio:.3f} of the gain of two independent encodes; the same bytes came out of all")
    return {"film_s": film.seconds, "rounds": found, "ratio": ratio}


def side_by_side(trix: Trix, film: Title, profile: Path, folder: Path, encodes: int) -> float:
    """Seconds that so many encodes of one slot each take, begun together, each with its own cache."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    begin, children = time.monotonic(), []
    for n in range(encodes):
        places = ["--out", str(folder / str(n)), "--cache", str(folder / f"cache-{n}")]
        command = [str(trix.program), "encode", str(film.path), "--profile", str(profile), *places, "--slots", "1", "--progress", "json"]
        children.append(subprocess.Popen(command, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL))
    for child in children:
        if child.wait() != 0:
            raise Failed(f"exit code {child.returncode} of {child.args}")
    return time.monotonic() - begin


def through_the_service(trix: Trix, film: Title, profile: Path, folder: Path, workers: int) -> tuple[float, str]:
    """Seconds from the submit to the job's end, and the digest of the published file."""
    shutil.rmtree(folder, ignore_errors=True)
    site = Site(trix.program, folder)
    source = site.share("incoming") / film.path.name
    os.link(film.path, source)
    with contextlib.ExitStack() as running:
        running.enter_context(site.process("up", "one", ["up"]))
        for n in range(1, workers):
            running.enter_context(site.process(f"worker-{n}", f"more-{n}", ["worker", "--database-url", site.database]))
        site.wait_for(workers)
        site.call("PUT", f"/profiles/{SINGLE.name}", {"text": profile.read_text()})
        job = site.call("POST", "/jobs", {"source": f"incoming:{source.name}", "profile": SINGLE.name, "title": "Film"}, key="film")["id"]
        seconds = site.end(job)
    published = site.share("output") / "Film/v1" / SINGLE.outputs[0]
    return seconds, hashlib.sha256(published.read_bytes()).hexdigest()


class Site:
    """A service in a folder of its own."""

    def __init__(self, program: Path, folder: Path) -> None:
        self.program, self.folder = program, folder
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        shares = {"incoming": "source", "output": "output", "cache": "cache"}
        for name in shares:
            self.share(name).mkdir(parents=True)
        # The private server's user, and that of the slots, must be able to enter.
        for place in (folder, *(self.share(name) for name in shares)):
            place.chmod(0o755)
        tables = "".join(f'[[share]]\nname = "{name}"\nrole = "{role}"\nroot = "{self.share(name)}"\n' for name, role in shares.items())
        listen = f'[api]\nlisten = "127.0.0.1:{self.port}"\n'
        (folder / "trix.toml").write_text(f"{listen}[worker]\nmcpu = 1000\n{tables}")

    @property
    def database(self) -> str:
        return f"postgresql://trix@localhost/trix?host={self.state('one')}/postgresql/run"

    def share(self, name: str) -> Path:
        return self.folder / name

    def state(self, node: str) -> Path:
        return self.folder / f"state-{node}"

    @contextlib.contextmanager
    def process(self, log: str, node: str, words: list[str]) -> Iterator[None]:
        """A role under a node's name, ended when the block is left."""
        names = {"TRIX_CONF_NODE__NAME": node, "TRIX_CONF_NODE__STATE": str(self.state(node))}
        with (self.folder / f"{log}.log").open("wb") as sink:
            child = subprocess.Popen(
                [self.program, "--config", self.folder / "trix.toml", *words],
                env={**os.environ, **names},
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
            )
        try:
            yield
        finally:
            child.send_signal(signal.SIGTERM)
            child.wait()

    def call(self, method: str, path: str, body: dict | None = None, key: str | None = None) -> dict:
        token = (self.state("one") / "cli-token").read_text().strip()
        headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
        if key:
            headers["idempotency-key"] = key
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/api/v1{path}", data, headers, method=method)
        direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with direct.open(request, timeout=20) as answer:
            return json.load(answer)

    def wait_for(self, workers: int) -> None:
        """Until so many workers are active."""
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            # Until it is up there is neither a token nor a listener.
            with contextlib.suppress(OSError):
                nodes = self.call("GET", "/nodes")["items"]
                if sum((node["worker"] or {}).get("state") == "active" for node in nodes) == workers:
                    return
            time.sleep(0.2)
        raise Failed(f"no {workers} workers came up; see {self.folder}/*.log")

    def end(self, job: int) -> float:
        """Seconds from the job's submit to its end, by the database's clock."""
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            told = self.call("GET", f"/jobs/{job}")["job"]
            if told["ended_at"]:
                if told["state"] != "succeeded":
                    raise Failed(f"the job is {told['state']}: {told}")
                return (moment(told["ended_at"]) - moment(told["created_at"])).total_seconds()
            time.sleep(0.5)
        raise Failed(f"job {job} does not end; see {self.folder}/*.log")


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)
