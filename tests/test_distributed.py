"""Several processes train as one does: the same updates, resumed by any number, and a lost one is told by all."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import antiphon
import small_runs
from antiphon.runtime import folder as files

PLAIN = {"batch_size": 7, "validate_every": 8, "dev_answers": 4, "warmup": 4, "schedule": "constant", "threads": 1}
SAMPLED: dict[str, dict] = {
    "data": {"share_vocabulary": False},
    "model": {"softmax": "sampled", "tied": "none"},
    "train": {"samples": 4, "optimizer": "sgd", "learning_rate": 0.2, "order": "proportional", "batch_size": 2},
}
LINK_SECONDS = 4
MANY = 2


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("data") / "pairs.tsv"
    small_runs.write_pairs(path, 150)
    return path


def knobs(updates: int, more: dict[str, dict]) -> dict[str, dict]:
    """Without dropout, which every process draws for itself."""
    groups = {"model": {"dropout": 0.0, **more.get("model", {})}, "train": {**PLAIN, **more.get("train", {})}}
    return small_runs.knobs(updates=updates, data=more.get("data", {}), **groups)


def command(pairs: Path, out: Path, tree: dict[str, dict]) -> list[str]:
    flags: list[str] = []
    for group, values in tree.items():
        for key, value in values.items():
            flags += [f"--{group}.no-{key.replace('_', '-')}"] if value is False else [f"--{group}.{key}", str(value)]
    return ["-m", "antiphon", "train", str(pairs), "--out", str(out), *flags]


def started(count: int, arguments: list[str], hosts: list[str] | None = None) -> list[subprocess.Popen[str]]:
    """Processes 0, 1, … of a run; ``hosts`` are network namespaces, the first of which has the address of all."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    found = []
    for rank in range(count):
        address = "127.0.0.1" if hosts is None else "10.77.0.1"
        who = {"RANK": str(rank), "WORLD_SIZE": str(count), "MASTER_ADDR": address, "MASTER_PORT": str(port)}
        inside = [] if hosts is None else ["ip", "netns", "exec", hosts[rank]]
        found.append(
            subprocess.Popen(
                [*inside, sys.executable, *arguments],
                env={**os.environ, **who, "LOCAL_WORLD_SIZE": str(count)},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    return found


def ended(processes: list[subprocess.Popen[str]], seconds: float = 60) -> list[tuple[int, str]]:
    """Exit code and standard error of each."""
    try:
        told = [process.communicate(timeout=seconds)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(process.returncode, text) for process, text in zip(processes, told, strict=True)]


def under_way(out: Path, seconds: float = 60) -> None:
    """Waits until updates have been done."""
    end = time.monotonic() + seconds
    while not any(record["event"] == "validated" for record in files.read_lines(out / files.LOG)):
        assert time.monotonic() < end, "training did not begin"
        time.sleep(0.1)


def assert_alike(one: Path, other: Path, *, updates: int) -> None:
    states = load_file(one / files.STATE), load_file(other / files.STATE)
    weights = [name for name in states[0] if name.startswith("weight/")]
    assert weights
    for name in weights:
        assert float((states[0][name] - states[1][name]).abs().max()) <= 1e-5 * updates, name


def test_several_models_one_after_the_other_are_those_of_one_process(pairs, tmp_path):
    tree = knobs(8, {"train": {"members": MANY}})
    assert [code for code, _ in ended(started(2, command(pairs, tmp_path / "two", tree)))] == [0, 0]
    antiphon.train(pairs, tmp_path / "one", knobs=tree)
    for number in range(1, MANY + 1):
        one, two = (load_file(files.member(tmp_path / name, number) / files.WEIGHTS) for name in ("one", "two"))
        for name, weights in one.items():
            torch.testing.assert_close(two[name], weights, atol=1e-5, rtol=1e-5)
    _, facts = files.read_config(tmp_path / "two")
    assert files.members(tmp_path / "two", facts) == [files.member(tmp_path / "two", n) for n in (1, 2)]


@pytest.mark.parametrize(("count", "more"), [(2, {}), (3, SAMPLED)], ids=["2 dense", "3 sampled rows"])
def test_many_processes_update_as_one(pairs: Path, tmp_path: Path, count: int, more: dict) -> None:
    processes = started(count, command(pairs, tmp_path / "many", knobs(10, more)))
    alone = antiphon.train(pairs, tmp_path / "one", knobs=knobs(10, more))
    for code, told in ended(processes):
        assert code == 0, told
    assert_alike(tmp_path / "many", tmp_path / "one", updates=10)
    many = files.read_lines(tmp_path / "many" / files.LOG)
    assert [r["event"] for r in many].count("started") == 1  # one speaks for all
    assert many[-1]["best_score"] == pytest.approx(alone.best_dev, abs=1e-4)
    # what many began one goes on with, and nothing was lost or done twice
    onward = antiphon.train(pairs, tmp_path / "many", resume=True, knobs={"train": {"max_updates": 14}})
    assert onward.updates == 14
    antiphon.train(pairs, tmp_path / "one", resume=True, knobs={"train": {"max_updates": 14}})
    assert_alike(tmp_path / "many", tmp_path / "one", updates=14)


def test_many_processes_ask_teachers_together(pairs: Path, tmp_path: Path) -> None:
    antiphon.train(pairs, tmp_path / "teacher", knobs=knobs(10, {"train": {"seed": 5}}))
    tree = knobs(10, {"train": {"teachers": str(tmp_path / "teacher"), "batch_size": 2}})  # some have no row at first
    processes = started(3, command(pairs, tmp_path / "many", tree))
    antiphon.train(pairs, tmp_path / "one", knobs=tree)
    for code, told in ended(processes):
        assert code == 0, told
    assert_alike(tmp_path / "many", tmp_path / "one", updates=10)


SUMMED = """
import os, torch
from torch import nn
from antiphon.training.distributed import joined
rank = int(os.environ["RANK"])
everyones, ones, nobodys = (nn.Parameter(torch.zeros(2)) for _ in range(3))
everyones.grad = torch.tensor([1.0, rank])
ones.grad = torch.ones(2) if rank else None
with joined(10.0, 0.0) as peers:
    told = peers.sum_gradients([everyones, ones, nobodys], [], 3.0)
assert told == [6.0], told
assert everyones.grad.tolist() == [2.0, 1.0]
assert ones.grad.tolist() == [1.0, 1.0]
assert nobodys.grad is None
"""


def test_what_nobody_has_a_gradient_of_is_left_alone() -> None:
    for code, told in ended(started(2, ["-c", SUMMED])):
        assert code == 0, told


def test_torchrun_starts_it_and_many_go_on_with_what_one_began(pairs: Path, tmp_path: Path) -> None:
    more = {"data": {"tokenizer": "bpe", "subword_dropout": 0.2, "vocabulary": 40}, "model": {"dropout": 0.2}}
    antiphon.train(pairs, tmp_path / "run", knobs=knobs(5, more))
    arguments = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    arguments += ["-m", "antiphon", "train", str(pairs), "--out", str(tmp_path / "run"), "--resume"]
    done = subprocess.run(
        [sys.executable, *arguments, "--train.max_updates", "9"], capture_output=True, text=True, timeout=90
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("  antiphon chat ") == 1, done.stderr  # one speaks for all
    assert files.read_lines(tmp_path / "run" / files.LOG)[-1]["update"] == 9
    state = load_file(tmp_path / "run" / files.STATE)
    assert all(bool(torch.isfinite(tensor).all()) for tensor in state.values() if tensor.is_floating_point())


def test_a_killed_process_is_told_by_the_others_and_resumed(pairs: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    tree = knobs(1_000_000, {"train": {"patience": 1_000_000, "link_seconds": LINK_SECONDS}})
    processes = started(2, command(pairs, out, tree))
    under_way(out)
    processes[1].send_signal(signal.SIGKILL)
    killed = time.monotonic()
    code, told = ended(processes)[0]
    assert time.monotonic() - killed < LINK_SECONDS + 5
    assert_a_clear_end(code, told)
    before = load_file(out / files.STATE)["optimizer/updates"].item()
    run = antiphon.train(pairs, out, resume=True, knobs={"train": {"max_updates": int(before) + 3}})
    assert run.updates == before + 3


def assert_a_clear_end(code: int, told: str) -> None:
    assert code == 2, told
    lines = [line for line in told.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, told
    assert "lost touch with the others" in lines[0]
    assert "--resume" in lines[0]
    assert "Traceback" not in told


def test_a_launcher_that_says_half_is_told(pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(antiphon.UsageError, match="variable RANK is missing"):
        antiphon.train(pairs, tmp_path / "run", knobs=knobs(5, {}))
    assert not (tmp_path / "run").exists()


def test_a_mistake_of_the_first_is_everyones(tmp_path: Path) -> None:
    bad = tmp_path / "bad.tsv"
    bad.write_text("one column\n")
    for code, told in ended(started(2, command(bad, tmp_path / "run", knobs(5, {})))):
        assert code == 2
        assert "bad.tsv:1" in told
        assert "Traceback" not in told
    assert not (tmp_path / "run").exists()


@contextmanager
def two_hosts() -> Iterator[list[str]]:
    """Two network namespaces, 10.77.0.1 and 10.77.0.2, joined by a cable; skips where that is not permitted."""
    if shutil.which("ip") is None:
        pytest.skip("no ip command here")
    names = [f"antiphon-{os.getpid()}-{end}" for end in "ab"]
    steps = [["netns", "add", name] for name in names]
    steps.append(
        ["link", "add", "cable", "netns", names[0], "type", "veth", "peer", "name", "cable", "netns", names[1]]
    )
    for number, name in enumerate(names, start=1):
        steps.append(["-n", name, "addr", "add", f"10.77.0.{number}/24", "dev", "cable"])
        steps += [["-n", name, "link", "set", device, "up"] for device in ("lo", "cable")]
    try:
        for step in steps:
            done = subprocess.run(["ip", *step], capture_output=True, text=True)
            if done.returncode:
                pytest.skip(f"network namespaces are not permitted here: {done.stderr.strip()}")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)


def test_a_cut_link_is_told_on_both_hosts_and_resumed(pairs: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    tree = knobs(1_000_000, {"train": {"patience": 1_000_000, "link_seconds": LINK_SECONDS}})
    with two_hosts() as hosts:
        processes = started(2, command(pairs, out, tree), hosts)
        under_way(out)
        subprocess.run(["ip", "-n", hosts[1], "link", "set", "cable", "down"], check=True)
        cut = time.monotonic()
        told = ended(processes)
        assert time.monotonic() - cut < LINK_SECONDS + 5
    for code, text in told:
        assert_a_clear_end(code, text)
    before = load_file(out / files.STATE)["optimizer/updates"].item()
    run = antiphon.train(pairs, out, resume=True, knobs={"train": {"max_updates": int(before) + 3}})
    assert run.updates == before + 3
