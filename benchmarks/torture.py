"""Training killed again and again, on a good, a slow and a full disk: does it end as if nobody had?

    python -m benchmarks.torture --kills 200

A small run is killed with SIGKILL at random instants and resumed, until it ends by itself; its weights and its state
must then be, bit for bit, those of a run nobody touched. Then the next run begins, until there were kills enough. A
life is a forked process, so that PyTorch is imported once; ``--program`` does a few with the real program, from its
first instruction on.

    slow  a library between the program and the system writes 4 KB at a time, at 2 MB/s, and 20 ms for a fsync
    full  a file system of a few MB (root only) that is filled up, to a random byte, before every second life

Prints JSON: for each disk the lives, the kills by what they hit, the lives that the disk refused, the runs that ended
and how many of them were identical.
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from benchmarks import machine

KNOBS: dict[str, dict[str, Any]] = {
    "data": {"tokenizer": "symbol", "buckets": 3},
    "model": {
        "embedding": 24,
        "hidden": 24,
        "encoder_hidden": 24,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "dropout": 0.2,
    },
    "train": {
        "max_updates": 60,
        "validate_every": 10,
        "patience": 1000,
        "batch_size": 16,
        "dev_answers": 8,
        "warmup": 5,
        "threads": 1,
    },
}
PHASES = ("before training", "updates", "a save", "a validation")
BEFORE, UPDATES, SAVE, VALIDATION = range(len(PHASES))
REFUSED, BROKEN = 2, 3
"""Exit codes of a life: told in one line, as it should be; a traceback."""
SHIM = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

static int slow(int fd) {  /* files of the tortured folder only */
    static const char *folder;
    char link[64], path[4096];
    if (!folder && !(folder = getenv("TORTURED"))) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n <= 0) return 0;
    path[n] = 0;
    return !strncmp(path, folder, strlen(folder));
}
ssize_t write(int fd, const void *data, size_t size) {
    static ssize_t (*real)(int, const void *, size_t);
    if (!real) real = dlsym(RTLD_NEXT, "write");
    if (!slow(fd)) return real(fd, data, size);
    usleep(2000);
    return real(fd, data, size < 4096 ? size : 4096);
}
ssize_t writev(int fd, const struct iovec *parts, int count) {
    static ssize_t (*real)(int, const struct iovec *, int);
    if (!real) real = dlsym(RTLD_NEXT, "writev");
    if (!slow(fd) || !count) return real(fd, parts, count);
    return write(fd, parts[0].iov_base, parts[0].iov_len);
}
int fsync(int fd) {
    static int (*real)(int);
    if (!real) real = dlsym(RTLD_NEXT, "fsync");
    if (slow(fd)) usleep(20000);
    return real(fd);
}
"""


class Torture:
    """Runs in one folder, and what became of them.

    Args:
        folder: on the disk in question.
        seed: decides the instants.
        fill: fills the disk before a life, or empties it again.
    """

    def __init__(self, folder: Path, *, seed: int, fill: Callable[[float | None], None] | None) -> None:
        self._folder, self._fill = folder, fill
        self._longest = 0.0  # seconds of a run that nobody kills
        self._random = random.Random(seed)
        self._phase = mmap.mmap(-1, 1)  # shared with the forked lives
        self._pairs = folder / "pairs.tsv"
        write_pairs(self._pairs)
        self.lives = self.refused = self.runs = self.identical = 0
        self.kills: Counter[str] = Counter()
        self.faults: list[str] = []

    def undisturbed(self) -> Path:
        """The run that nobody kills, in this process: what PyTorch does once, no life has to do again."""
        import antiphon

        for name in ("warm", "whole"):
            begun = time.monotonic()
            antiphon.train(self._pairs, self._folder / name, knobs=KNOBS)
            self._longest = time.monotonic() - begun
        shutil.rmtree(self._folder / "warm")
        return self._folder / "whole"

    def go(self, kills: int, seconds: float, whole: Path) -> None:
        """Runs, killed so many times together or until the time is over, and compared."""
        end = time.monotonic() + seconds

        def more() -> bool:
            return self.kills.total() < kills and time.monotonic() < end

        while more() and not self.faults:
            out = self._folder / "run"
            shutil.rmtree(out, ignore_errors=True)
            while not self._ended(out, may_kill=more()) and not self.faults:
                pass
            self.runs += 1
            self.identical += not self.faults and same(whole, out)

    def report(self) -> dict[str, Any]:
        """What became of them, ready for JSON."""
        return {
            "seconds_of_a_run": round(self._longest, 2),
            "lives": self.lives,
            "kills": self.kills.total(),
            "killed_in": {name: self.kills[name] for name in PHASES},
            "refused_by_the_disk": self.refused,
            "runs": self.runs,
            "identical": self.identical,
            "faults": self.faults,
        }

    def _ended(self, out: Path, *, may_kill: bool) -> bool:
        """One life; whether its run ended by itself."""
        tight = self._fill is not None and may_kill and self._random.random() < 0.5
        if self._fill is not None:
            self._fill(self._random.random() if tight else None)
        self.lives += 1
        self._phase[0] = BEFORE
        child = self._born(out)
        status, phase = None, BEFORE
        if may_kill:
            until = time.monotonic() + self._random.random() * self._longest
            while status is None and (left := until - time.monotonic()) > 0:
                time.sleep(min(left, 0.002))
                done, found = os.waitpid(child, os.WNOHANG)
                status = found if done else None
            if status is None:
                phase = self._phase[0]
                os.kill(child, signal.SIGKILL)
        if status is None:
            status = os.waitpid(child, 0)[1]
        code = os.waitstatus_to_exitcode(status)
        if code == -signal.SIGKILL:
            self.kills[PHASES[phase]] += 1
        elif code == REFUSED and tight:
            self.refused += 1
        elif code != 0:
            self.faults.append(self._told())
        return code == 0

    def _born(self, out: Path) -> int:
        child = os.fork()
        if child:
            return child
        code = BROKEN
        with (self._folder.parent / "told").open("w") as told:
            os.dup2(told.fileno(), 2)
            try:
                code = self._live(out)
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)

    def _live(self, out: Path) -> int:
        import antiphon
        from antiphon.runtime import folder as files
        from antiphon.training import checkpoint, trainer

        def marked(module: Any, name: str, phase: int) -> None:
            real = getattr(module, name)

            def marking(*args: Any, **given: Any) -> Any:
                before, self._phase[0] = self._phase[0], phase
                try:
                    return real(*args, **given)
                finally:
                    self._phase[0] = before

            setattr(module, name, marking)

        marked(files, "write_atomically", SAVE)
        marked(checkpoint, "write_atomically", SAVE)
        marked(trainer, "validate", VALIDATION)
        marked(trainer._Trainer, "run", UPDATES)
        resume = files.resumable(out)
        try:
            antiphon.train(self._pairs, out, resume=resume, knobs=None if resume else KNOBS)
        except antiphon.AntiphonError as error:
            print(error, file=sys.stderr)
            return REFUSED
        return 0

    def _told(self) -> str:
        return (self._folder.parent / "told").read_text(encoding="utf-8", errors="replace")[-2000:]


def write_pairs(path: Path) -> None:
    """Words of eight letters and their reverses."""
    draw = random.Random(5)
    words = [[draw.choice("abcdefgh") for _ in range(draw.randint(1, 7))] for _ in range(200)]
    path.write_text("".join(f"{' '.join(w)}\t{' '.join(w[::-1])}\n" for w in words), encoding="utf-8")


def same(one: Path, other: Path) -> bool:
    """Whether weights and state of two runs are equal, bit for bit."""
    import torch
    from safetensors.torch import load_file

    for name in ("model.safetensors", "state.safetensors"):
        mine, yours = load_file(one / name), load_file(other / name)
        if mine.keys() != yours.keys() or not all(torch.equal(mine[key], yours[key]) for key in mine):
            return False
    return True


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[str]:
    """A file system of its own at ``folder``; gives why not, if it cannot be had."""
    try:
        options = f"size={megabytes}m"
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True, check=False
        )
    except OSError as error:
        yield str(error)
        return
    if done.returncode:
        yield done.stderr.decode(errors="replace").strip() or "mount failed"
        return
    try:
        yield ""
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def filler(folder: Path, most: int) -> Callable[[float | None], None]:
    """Leaves a share of ``most`` bytes free on the disk of ``folder``; None: as much as there is."""
    ballast = folder / "ballast"

    def fill(share: float | None) -> None:
        ballast.unlink(missing_ok=True)
        if share is None:
            return
        disk = os.statvfs(folder)
        size = disk.f_bavail * disk.f_frsize - int(share * most)
        with suppress(OSError), ballast.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, max(size, 1))

    return fill


def shim(folder: Path) -> Path | str:
    """The library that slows writing down, built; or why not."""
    source, library = folder / "slow.c", folder / "slow.so"
    source.write_text(SHIM, encoding="utf-8")
    try:
        command = [os.environ.get("CC", "cc"), "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        return f"no C compiler ({error})"
    return done.stderr if done.returncode else library


def tortured(disk: str, kills: int, seed: int, seconds: float) -> dict[str, Any]:
    """One disk; runs in this process, which must have no other threads."""
    import torch

    from antiphon.nn.kernels import missing

    torch.set_num_threads(1)
    missing()  # builds the kernels once
    with tempfile.TemporaryDirectory(prefix="torture") as name:
        folder = Path(os.environ.get("TORTURED", f"{name}/disk"))
        folder.mkdir(exist_ok=True)
        if disk != "full":
            torture = Torture(folder, seed=seed, fill=None)
            torture.go(kills, seconds, torture.undisturbed())
            return torture.report()
        with small_disk(folder, 4) as reason:
            if reason:
                return {"skipped": reason}
            torture = Torture(folder, seed=seed, fill=filler(folder, 1_500_000))
            torture.go(kills, seconds, torture.undisturbed())
            return torture.report()


def slowly(kills: int, seed: int, seconds: float) -> dict[str, Any]:
    """The same in a process of its own, whose writing is slow."""
    with tempfile.TemporaryDirectory(prefix="torture") as name:
        library = shim(Path(name))
        if isinstance(library, str):
            return {"skipped": library}
        (Path(name) / "disk").mkdir()
        command = [sys.executable, "-m", "benchmarks.torture", "--disks", "slow", "--kills", str(kills)]
        command += ["--seconds", str(seconds), "--seed", str(seed), "--updates", str(KNOBS["train"]["max_updates"])]
        given = {**os.environ, "LD_PRELOAD": str(library), "TORTURED": f"{name}/disk"}
        done = subprocess.run(command, env=given, stdout=subprocess.PIPE, text=True, check=False)
        return json.loads(done.stdout)["slow"]


def program(kills: int, seed: int) -> dict[str, Any]:
    """The real program, killed from its first instruction on, started anew with the same command until it ends."""
    draw = random.Random(seed)
    flags = [f"--{group}.{key}={value}" for group, values in KNOBS.items() for key, value in values.items()]
    done, tracebacks = 0, 0
    with tempfile.TemporaryDirectory(prefix="torture") as name:
        folder = Path(name)
        write_pairs(folder / "pairs.tsv")
        base = [sys.executable, "-m", "antiphon", "train", str(folder / "pairs.tsv"), "--out"]
        begun = time.monotonic()
        subprocess.run([*base, str(folder / "whole"), *flags], capture_output=True, check=True)
        usual = time.monotonic() - begun
        out = folder / "run"
        code, killed = 1, 0
        while code:
            resume = (out / "state.safetensors").exists()
            command = [*base, str(out), *(["--resume"] if resume else flags)]
            life = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
            try:
                _, told = life.communicate(timeout=draw.random() * usual if killed < kills else None)
            except subprocess.TimeoutExpired:
                life.kill()
                _, told = life.communicate()
                killed += 1
            tracebacks += "Traceback" in told
            code, done = life.returncode, done + 1
            if code > 0:
                return {"faults": told[-2000:]}
        return {"lives": done, "kills": killed, "tracebacks": tracebacks, "identical": same(folder / "whole", out)}


def main() -> None:
    """Parses, tortures, prints; exit code 1 if a run was lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200, help="on each disk")
    parser.add_argument("--seconds", type=float, default=3600.0, help="longest time on each disk")
    parser.add_argument("--disks", default="good,slow,full")
    parser.add_argument("--program", type=int, default=0, help="kills of the real program")
    parser.add_argument("--updates", type=int, default=KNOBS["train"]["max_updates"], help="of a run")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    KNOBS["train"]["max_updates"] = asked.updates
    begun, found = time.monotonic(), {}
    for disk in asked.disks.split(","):
        if disk == "slow" and "TORTURED" not in os.environ:
            found[disk] = slowly(asked.kills, asked.seed, asked.seconds)
        elif disk:
            found[disk] = tortured(disk, asked.kills, asked.seed, asked.seconds)
    if asked.program:
        found["program"] = program(asked.program, asked.seed)
    print(json.dumps({**machine.describe(), "seconds": round(time.monotonic() - begun), **found}, indent=2))
    parts = [part for part in found.values() if "skipped" not in part]
    lost = [part for part in parts if part.get("faults") or part["identical"] != part.get("runs", True)]
    sys.exit(1 if lost else 0)


if __name__ == "__main__":
    main()
