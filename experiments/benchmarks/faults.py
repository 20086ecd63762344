"""What is lost when commands are killed, disturbed, started wrongly, or find no room on the disk?

Commands run as a user runs them, in processes of their own, on loopback addresses alone. They are
killed at random moments and started again until they end, and must end with the bits of a run that
nobody disturbed.
"""

from __future__ import annotations

import hashlib
import os
import random
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from experiments import cli
from experiments.benchmarks import machine
from jaxclf import checks
from jaxclf.files import atomic_folder, write_json

PARTS = ("kills", "strangers", "starts", "disks")
FIT = ("fit", "data.npz", "--batch-size", "100", "--epochs", "600", "--save-seconds", "1",
       "--verbose", "0")  # fmt: skip
STACKS = ("learning_rate=0.01:0.5:9", "batch_size=20,40,60,80,100")
COMMANDS = {
    "fit": FIT,
    "sweep, convex": ("sweep", "data.npz", "--grid", "l2=1e-5:1e-1:12", "fold=0,1,2"),
    "sweep, minibatch": ("sweep", "data.npz", "--method", "minibatch", "--grid", *STACKS,
                         "--validation", "0.2"),
    "probe": ("probe", "data.npz", "--grid", "l2=1e-6:1:24"),
}  # fmt: skip
"""The commands that are killed, which take some seconds each."""
ON_IRIS = {
    "fit": ("fit", "iris", "--epochs", "3", "--verbose", "0"),
    "sweep": ("sweep", "iris", "--grid", "l2=1e-3,1e-1", "fold=0,1"),
    "probe": ("probe", "iris", "--grid", "C=1,100", "--validation", "0.3"),
}
"""The commands that find no room."""
SIZES = (0, 100, 1000, 4000, 30_000, 200_000)
"""The bytes from which on a file cannot grow."""
STARTS = {
    "process 1 never comes": (["0 2"], 75, "process 1 did not come"),
    "process 0 never comes": (["1 2"], 75, "process 0 did not come"),
    "two have one number": (["0 3", "1 3", "1 3"], 2, "two processes have the number 1"),
    "they count differently": (["0 2", "1 3"], 2, "process 1 is one of 3 processes"),
    "the port is taken": (["0 2"], 2, "is taken"),
    "another program answers": (["1 2"], 2, "another program than process 0 answers"),
}
"""The number and the count of each process of a bad start, the status, and words of its line."""
_LIMIT = 60 + 20
"""The seconds of a bad start: the timeout, and the import of all processes side by side."""


@dataclass(frozen=True)
class Config:
    """Counts of what faults cost the commands."""

    part: tuple[str, ...] = PARTS
    """One or more of kills, strangers, starts and disks."""
    kills: int = 50
    """Random moments at which each signal ends a command; the commands take turns."""
    connections: int = 1000
    """Connections of strangers to the sockets of two processes."""
    seed: int = 0
    """Seed of the moments and of what strangers say."""
    out: Path = Path("results/benchmarks/faults")
    """Folder for faults.json."""


def run(config: Config) -> None:
    """Disturbs, counts, writes the counts and prints them."""
    with cli.input_errors():
        checks.check_number("kills", config.kills, at_least=1)
        checks.check_number("connections", config.connections, at_least=1)
        for part in config.part:
            checks.check_option("part", part, PARTS)
        stage = atomic_folder(config.out)
    rng = random.Random(config.seed)
    work = {
        "kills": partial(killed, config.kills),
        "strangers": partial(disturbed, config.connections),
        "starts": started_wrongly,
        "disks": without_room,
    }
    with stage as folder, tempfile.TemporaryDirectory() as place:
        write_data(Path(place) / "data.npz")
        found = [row for part in config.part for row in work[part](Path(place), rng)]
        write_json(folder / "faults.json", {"machine": machine.describe(), "faults": found})
    table = Table("fault", "tries", "lost", "beside it")
    for row in found:
        more = ", ".join(f"{k} {v}" for k, v in row.items() if k not in ("fault", "tries", "lost"))
        table.add_row(row["fault"], str(row["tries"]), str(row["lost"]), more)
    Console().print(table)


def write_data(path: Path) -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(7500, 60)).astype(np.float32)
    scores = features @ rng.normal(size=(60, 8)) + 2 * rng.gumbel(size=(7500, 8))
    np.savez(path, X=features, y=scores.argmax(1))


def start(place: Path, out: str, words: Sequence[str]) -> subprocess.Popen:
    """A command whose results go to a folder in ``place``; what it prints on errors is kept."""
    return subprocess.Popen(
        [sys.executable, "-m", "jaxclf", *words, "--out", out], cwd=place, text=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip


def errors(said: str) -> list[str]:
    """The lines that tell an error, and those of a trace."""
    return [x for x in said.splitlines() if x.startswith(("error", "Traceback", "Fatal"))]


def bits(folder: Path) -> dict[str, str]:
    """The SHA-256 of the results that do not depend on the clock."""
    files = [path for name in ("model.npz", "predictions.csv") for path in folder.glob(name)]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def saved(folder: Path) -> dict[str, str]:
    """The finished fits of a sweep with their SHA-256, or the newest checkpoint of a fit."""
    steps = [path.name for path in (folder / "checkpoints").glob("*") if path.name.isdecimal()]
    files = (folder / "fits").glob("fit-*.npz")
    fits = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    return fits | ({"newest": max(steps, key=int).zfill(9)} if steps else {})


def is_kept(before: dict[str, str], after: dict[str, str]) -> bool:
    """Whether all that was saved is there still; a newer checkpoint may take the place of one."""
    same = all(after.get(name) == known for name, known in before.items() if name != "newest")
    return same and after.get("newest", "") >= before.get("newest", "")


def killed(kills: int, place: Path, rng: random.Random) -> Iterator[dict]:
    """Ends commands at random moments by SIGKILL and SIGTERM, and starts them again."""
    for index, (name, words) in enumerate(COMMANDS.items()):
        start(place, f"{index} warm", words).communicate()  # which compiles
        began = time.monotonic()
        start(place, f"{index} whole", words).communicate()
        seconds, expected = time.monotonic() - began, bits(place / f"{index} whole")
        # The commands take turns, and the first ones get what is left over.
        share = kills // len(COMMANDS) + (index < kills % len(COMMANDS))
        for number in (signal.SIGKILL, signal.SIGTERM):
            row = {"fault": f"{number.name}, {name}", "tries": 0, "lost": 0, "after a save": 0,
                   "whole runs": 0}  # fmt: skip
            while row["tries"] < share:
                out = f"{index} {number.name} {row['whole runs']}"
                choice = place, out, words, number, seconds, share, row, rng
                row["lost"] += len(kill_until_done(*choice))
                row["lost"] += bits(place / out) != expected
                row["whole runs"] += 1
            yield row


def kill_until_done(
    place: Path, out: str, words: Sequence[str], number: signal.Signals,
    seconds: float, share: int, row: dict, rng: random.Random,
) -> list[str]:  # fmt: skip
    """One run that is ended and started again until it is done; what was lost of it meanwhile."""
    lost, before = [], {}
    while True:
        process = start(place, out, words)
        moment = rng.uniform(0.1, 1.0) * seconds if row["tries"] < share else None
        try:
            _, said = process.communicate(timeout=moment)
            return lost + [said] * (process.returncode != 0)
        except subprocess.TimeoutExpired:
            process.send_signal(number)
        _, said = process.communicate()
        if process.returncode == 0:  # it ended by itself at that moment
            return lost
        after = saved(place / out)
        if not is_kept(before, after):
            lost.append(f"{before} was saved, and {after} is there")
        # Before its first line Python ends a process by the signal; shells see 143 both times.
        in_order = process.returncode in (143, -number) and said.count("terminated\n") <= 1
        if number == signal.SIGTERM and (errors(said) or not in_order):
            lost.append(f"status {process.returncode}: {said}")
        before = after
        row["tries"] += 1
        row["after a save"] += bool(after)


def pair(place: Path, out: str, port: int) -> Iterator[subprocess.Popen]:
    """Two processes of one fit, the second of which is started when it is asked for."""
    words = [
        *FIT,
        "--epochs",
        "40",
        "--verbose",
        "2",
        "--distributed",
        "--coordinator",
        f"127.0.0.1:{port}",
    ]
    for process in range(2):
        yield start(place, out, [*words, "--processes", "2", "--process", str(process)])


def disturbed(connections: int, place: Path, rng: random.Random) -> Iterator[dict]:
    """Connects to the sockets of two processes, half of the times before the second one comes."""
    quiet = list(pair(place, "quiet", free_port()))
    for process in quiet:
        process.communicate()
    port = free_port()
    both = pair(place, "disturbed", port)
    first = next(both)
    while not (ports := listening([first.pid])):
        time.sleep(0.05)
    knocks = [knock(rng, ports, i) for i in range(connections // 2)]
    second = next(both)
    lines = [first.stderr.readline()]
    while lines[-1] and not lines[-1].startswith("epoch 2/"):
        lines.append(first.stderr.readline())
    ports = listening([first.pid, second.pid])
    knocks += [knock(rng, ports, i) for i in range(connections - len(knocks))]
    ends = [process.communicate() for process in (first, second)]
    effects = sum(process.returncode != 0 for process in (first, second))
    effects += bits(place / "disturbed") != bits(place / "quiet")
    told = sum(line.startswith("warning") for line in [*lines, *ends[0][1].splitlines()])
    for link in knocks:
        if link is not None:
            link.close()
    yield {"fault": "strangers at the sockets", "tries": sum(x is not None for x in knocks),
           "lost": effects, "lines about them": told}  # fmt: skip


def knock(rng: random.Random, ports: Sequence[int], index: int) -> socket.socket | None:
    """A connection that says something random, half of a message of a process, or nothing."""
    said = (rng.randbytes(rng.randrange(1, 3000)), b"jaxclf-1"[: rng.randrange(1, 9)], b"",
            b"jaxclf-1" + rng.randbytes(rng.randrange(1, 40)))[index % 4]  # fmt: skip
    with suppress(OSError):
        link = socket.create_connection(("127.0.0.1", rng.choice(ports)), timeout=5)
        with suppress(OSError):
            link.sendall(said)
        if index % 8:
            link.close()  # the others stay and are silent
        return link
    return None


def listening(processes: Sequence[int]) -> list[int]:
    """The ports at which processes listen, as Linux tells them."""
    owned = set()
    for process in processes:
        for entry in Path(f"/proc/{process}/fd").iterdir():
            with suppress(OSError):
                owned.add(os.readlink(entry))
    ports = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A" and f"socket:[{words[9]}]" in owned:
                ports.add(int(words[1].rpartition(":")[2], 16))
    return sorted(ports)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def started_wrongly(place: Path, rng: random.Random) -> Iterator[dict]:
    """Starts processes that cannot meet, all cases side by side."""
    with other_program() as taken:
        began, running = time.monotonic(), {}
        for name, (numbers, *_) in STARTS.items():
            port = taken if name.startswith(("the port", "another")) else free_port()
            where = ["--distributed", "--coordinator", f"127.0.0.1:{port}"]
            running[name] = [
                start(place, name, [*FIT, *where, "--process", own, "--processes", count])
                for own, count in map(str.split, numbers)
            ]
        for name, (_, status, words) in STARTS.items():
            ends = [(errors(p.communicate()[1]), p.returncode) for p in running[name]]
            late = time.monotonic() - began > _LIMIT
            fine = [code == status and len(said) == 1 and words in said[0] for said, code in ends]
            yield {"fault": f"start: {name}", "tries": len(ends),
                   "lost": len(fine) if late else fine.count(False), "status": status}  # fmt: skip


@contextmanager
def other_program() -> Iterator[int]:
    """A server of web pages on a free port."""
    words = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(port := free_port())]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with tempfile.TemporaryDirectory() as empty:
        server = subprocess.Popen(words, cwd=empty, **quiet)
        try:
            yield port
        finally:
            server.kill()
            server.wait()


def without_room(place: Path, rng: random.Random) -> Iterator[dict]:
    """Writes results again where no file can grow beyond a size: the earlier ones stay whole."""
    for name, words in ON_IRIS.items():
        row = {"fault": f"no room, {name}", "tries": 0, "lost": 0, "refused": 0}
        start(place, f"{name} full", words).communicate()
        before = bits(place / f"{name} full")
        for size in SIZES:
            process = start(place, f"{name} full", [*words, "--overwrite"])
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (size, size))
            said = errors(process.communicate()[1])
            fine = process.returncode == 0 or (process.returncode == 2 and len(said) == 1)
            row["tries"] += 1
            row["refused"] += process.returncode != 0
            row["lost"] += not fine or bits(place / f"{name} full") != before
        yield row


if __name__ == "__main__":
    run(cli.parse(Config, "benchmarks.faults"))
