"""What breaks costs little: damaged files, other versions, signals, gradients that explode, and a second process."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import antiphon
from antiphon.errors import FolderError
from antiphon.runtime import folder as files
from antiphon.training import trainer
from antiphon.training.progress import Stopped, Validated, Warned, read_log
from antiphon.training.stability import EXPLODES, FEWEST, LATELY, REPEATED, SETBACKS, WINDOW, Stability
from small_runs import SMALL, Watcher, knobs, write_pairs

WHOLE = 30
"""Updates of the run that the others are compared with."""


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """pairs.tsv; whole, a run of 30 updates; part, the same interrupted at 20."""
    folder = tmp_path_factory.mktemp("lasting")
    write_pairs(folder / "pairs.tsv", 200)
    antiphon.train(folder / "pairs.tsv", folder / "whole", knobs=knobs(updates=WHOLE))
    part = antiphon.train(
        folder / "pairs.tsv", folder / "part", knobs=knobs(updates=WHOLE), observer=Watcher(stop_at=20)
    )
    assert part.updates == 20
    return folder


@pytest.fixture
def part(home, tmp_path):
    shutil.copytree(home / "part", tmp_path / "part")
    return tmp_path / "part"


def goes_on(home, run, **given) -> Watcher:
    watcher = Watcher()
    antiphon.train(home / "pairs.tsv", run, resume=True, observer=watcher, **given)
    return watcher


def warnings(watcher) -> list[str]:
    return [event.message for event in watcher.of(Warned) if "C kernels" not in event.message]


def same(one: Path, other: Path) -> bool:
    for name in (files.WEIGHTS, files.STATE):
        mine, yours = load_file(one / name), load_file(other / name)
        if mine.keys() != yours.keys() or not all(torch.equal(mine[key], yours[key]) for key in mine):
            return False
    return True


# Files.


@pytest.mark.parametrize("damage", ["empty", "noise", "cut", "a bit of a weight", "a bit of the header", "gone"])
def test_a_damaged_state_costs_what_was_learnt_since_the_one_before(home, part, damage):
    path = part / files.STATE
    content = bytearray(path.read_bytes())
    if damage == "empty":
        content = bytearray()
    elif damage == "noise":
        content = bytearray(b"\xff" * 100)
    elif damage == "cut":
        del content[-50:]
    elif damage == "a bit of a weight":
        content[-1000] ^= 1
    elif damage == "a bit of the header":
        at = content.index(b'\\"update\\": 20') + 12
        content[at] = ord("3")
    path.write_bytes(content)
    if damage == "gone":
        path.unlink()
    watcher = goes_on(home, part)
    [told] = warnings(watcher)
    assert "the newest state is damaged" in told
    assert "update 10" in told
    assert same(home / "whole", part)


def test_without_a_whole_state_it_says_so_and_touches_nothing(home, part):
    for name in (files.STATE, files.BEFORE):
        (part / name).write_bytes(b"\x00" * 64)
    with pytest.raises(FolderError, match="damaged state"):
        goes_on(home, part)
    assert (part / files.BEFORE).read_bytes() == b"\x00" * 64


def test_damaged_weights_are_not_answered_with(home, part):
    path = part / files.WEIGHTS
    content = bytearray(path.read_bytes())
    content[-9] ^= 4
    path.write_bytes(content)
    with pytest.raises(FolderError, match=r"damaged weights .*checksum"):
        antiphon.load(part)


def test_weights_that_other_programs_wrote_need_no_checksum(home, part):
    weights = load_file(part / files.WEIGHTS)
    save_file(weights, part / files.WEIGHTS)
    assert antiphon.load(part).predict("a b").text == antiphon.load(home / "part").predict("a b").text


@pytest.mark.parametrize("damage", ["changed", "gone", "all gone"])
def test_damaged_ids_are_made_again(home, part, damage):
    path = part / files.IDS / "train-00000.npz"
    if damage == "changed":
        content = bytearray(path.read_bytes())
        content[-4] ^= 1
        path.write_bytes(content)
    elif damage == "gone":
        path.unlink()
    else:
        shutil.rmtree(part / files.IDS)
    [told] = warnings(goes_on(home, part))
    assert "made again from the data" in told
    assert same(home / "whole", part)


def test_a_log_with_rubbish_in_it_is_mended(home, part):
    log = part / files.LOG
    with log.open("ab") as file:
        file.write(
            b'\xff\xfe\n[1, 2]\n"x"\n' + b"[" * 100_000 + b'\n{"event": "progress", "update": "many"}\n{"event": "st'
        )
    assert warnings(goes_on(home, part)) == []
    whole = [json.loads(line) for line in log.read_text().splitlines()]
    assert whole == read_log(log)
    assert [record["update"] for record in whole if record["event"] == "validated"] == [10, 20, 30]


def test_no_file_is_ever_half_there_when_a_write_fails(tmp_path, monkeypatch):
    """At whatever call the disk refuses: what was there before is there, or the new one, whole."""
    path, before = tmp_path / "state", tmp_path / "before"

    def save(text: str) -> None:
        files.write_atomically(path, lambda fresh: fresh.write_text(text) and None, before=before)

    save("one")
    save("two")
    for call in ("fsync", "link", "replace"):
        for turn in range(3):
            real, left = getattr(os, call), [turn]

            def refusing(*args, real=real, left=left):
                left[0] -= 1
                if left[0] < 0:
                    raise OSError(errno.ENOSPC, "No space left on device")
                return real(*args)

            monkeypatch.setattr(files.os, call, refusing)
            with contextlib.suppress(antiphon.SaveError):
                save("three")
            monkeypatch.undo()
            held = {each.read_text() for each in (path, before) if each.exists()}
            assert held <= {"one", "two", "three"}
            assert held & {"two", "three"}
            save("two")
            assert path.read_text() == "two"


# What a run was begun with.


def test_another_tokenizer_is_named(home, part):
    path = part / files.SOURCE_TOKENIZER
    path.write_text(path.read_text().replace('"lower": false', '"lower": true'))
    with pytest.raises(FolderError, match=r"the tokenizer is not what this run was begun with, .*tokenizer\.json"):
        goes_on(home, part)


def test_other_data_is_named(home, part, tmp_path):
    write_pairs(tmp_path / "fewer.tsv", 150)
    with pytest.raises(FolderError, match=r"135 pairs to learn from, there were 180"):
        antiphon.train(tmp_path / "fewer.tsv", part, resume=True)
    lines = (home / "pairs.tsv").read_text().splitlines(keepends=True)
    (tmp_path / "other.tsv").write_text("".join(lines[:-1]) + "a b c\tc b d\n")
    with pytest.raises(FolderError, match=r"as many pairs, but not the same"):
        antiphon.train(tmp_path / "other.tsv", part, resume=True)


def test_a_knob_changed_in_the_file_is_named(home, part):
    path = part / files.CONFIG
    tree = json.loads(path.read_text())
    tree["train"]["learning_rate"] = 0.5
    path.write_text(json.dumps(tree))
    with pytest.raises(FolderError, match=r"train\.learning_rate is 0\.5, it was 0\.002"):
        goes_on(home, part)


def test_another_version_is_named_and_goes_on(home, part, monkeypatch):
    monkeypatch.setattr("antiphon.training.checkpoint.VERSION", "0.1.7")
    [told] = warnings(goes_on(home, part))
    assert f"antiphon {antiphon.__version__}, now 0.1.7" in told


# Two processes, and folders that cannot be used.

HOLD = """
import sys, time
from pathlib import Path
from antiphon.runtime.folder import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_the_second_process_is_refused_until_the_first_is_gone_however_it_went(home, part):
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(part)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == "held\n"
        before = (part / files.STATE).read_bytes()
        with pytest.raises(FolderError, match="another process is training in it"):
            goes_on(home, part)
        assert (part / files.STATE).read_bytes() == before
    finally:
        holder.kill()
        holder.communicate()
    assert warnings(goes_on(home, part)) == []


def test_where_there_are_no_locks_training_goes_on(part, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    with files.locked(part):
        pass


def test_a_folder_that_cannot_be_written_is_told(home, part, tmp_path):
    if os.geteuid() == 0:
        mounted = subprocess.run(["mount", "--bind", part, part], capture_output=True, check=False)
        if mounted.returncode:
            pytest.skip("no mounts here, and nothing else stops root from writing")
        subprocess.run(["mount", "-o", "remount,ro,bind", part], check=True)
    else:
        part.chmod(0o500)
    try:
        with pytest.raises(FolderError, match="cannot write in it"):
            goes_on(home, part)
    finally:
        if os.geteuid() == 0:
            subprocess.run(["umount", part], check=True)
        else:
            part.chmod(0o700)


def test_a_run_that_ended_before_its_first_save_is_begun_anew(home, tmp_path, monkeypatch):
    out = tmp_path / "run"

    def die(*_, **__):
        raise KeyboardInterrupt

    for name in ("prepare", "write_config", "_Trainer"):
        monkeypatch.setattr(trainer, name, die)
        with pytest.raises(KeyboardInterrupt):
            antiphon.train(home / "pairs.tsv", out, knobs=knobs(updates=WHOLE))
        monkeypatch.undo()
        assert (out / files.LOCK).exists()
        with pytest.raises(FolderError, match="nothing to resume"):
            antiphon.train(home / "pairs.tsv", out, resume=True)
    antiphon.train(home / "pairs.tsv", out, knobs=knobs(updates=WHOLE))
    assert same(home / "whole", out)


def test_ids_elsewhere_are_never_written_over(home, tmp_path, monkeypatch):
    """Whose they are nobody knows: another run may have begun there meanwhile."""
    wanted = knobs(updates=10, data={"ids": str(tmp_path / "ids")})

    def die(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(trainer, "write_config", die)
    with pytest.raises(KeyboardInterrupt):
        antiphon.train(home / "pairs.tsv", tmp_path / "run", knobs=wanted)
    monkeypatch.undo()
    with pytest.raises(FolderError, match=r"token ids already, .*delete them"):
        antiphon.train(home / "pairs.tsv", tmp_path / "run", knobs=wanted)
    shutil.rmtree(tmp_path / "ids")
    assert antiphon.train(home / "pairs.tsv", tmp_path / "run", knobs=wanted).updates == 10


def test_a_folder_with_anything_else_in_it_is_not_cleared(home, part):
    for name in (files.STATE, files.BEFORE):
        (part / name).unlink()
    assert files.taken(part)  # it has weights
    with pytest.raises(FolderError, match="exists already"):
        antiphon.train(home / "pairs.tsv", part, knobs=knobs(updates=WHOLE))


# Signals.


def test_a_validation_that_is_interrupted_is_made_up_for(home, tmp_path, monkeypatch):
    """The run stops in the middle of the answers of its second validation, and ends as if it never had."""
    whole, seen = trainer.validate, []

    def hit(model, prepared, config, *, precision, interrupted):
        seen.append(1)
        asked = []

        def counting():
            asked.append(1)
            if len(seen) == 2 and len(asked) == 4:  # dev has three batches: this is a step of an answer
                os.kill(os.getpid(), signal.SIGTERM)
            return interrupted()

        return whole(model, prepared, config, precision=precision, interrupted=counting)

    monkeypatch.setattr(trainer, "validate", hit)
    watcher = Watcher()
    run = antiphon.train(home / "pairs.tsv", tmp_path / "run", knobs=knobs(updates=WHOLE), observer=watcher)
    assert (run.finished, run.reason, run.updates) == (False, "interrupted", 20)
    assert [event.update for event in watcher.of(Validated)] == [10]
    goes_on(home, run.folder)
    assert same(home / "whole", run.folder)


FOREVER = ["--train.max_updates", "1000000", "--train.patience", "1000000", "--train.validate_every", "50"]


def flags() -> list[str]:
    tree = {group: dict(values) for group, values in SMALL.items()}
    del tree["train"]["validate_every"], tree["train"]["patience"]  # FOREVER says them
    return [
        word
        for group, values in tree.items()
        for key, value in values.items()
        for word in (f"--{group}.{key}", str(value))
    ]


def hears_hangups() -> None:
    """In a child: SIGHUP as a terminal gives it, though the tests may run under nohup."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def started(home, out, **given) -> subprocess.Popen:
    command = [
        sys.executable,
        "-m",
        "antiphon",
        "train",
        str(home / "pairs.tsv"),
        "--out",
        str(out),
        *flags(),
        *FOREVER,
    ]
    process = subprocess.Popen(command, text=True, **{"preexec_fn": hears_hangups, **given})
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (out / files.WEIGHTS).exists():
        time.sleep(0.02)
    return process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_a_signal_saves_within_ten_seconds(home, tmp_path, number):
    process = started(home, tmp_path / "run", stderr=subprocess.PIPE)
    begun = time.monotonic()
    process.send_signal(number)
    try:
        _, told = process.communicate(timeout=30)
    finally:
        process.kill()
    assert time.monotonic() - begun < 10
    assert process.returncode == 130, told
    assert "it can go on: antiphon train" in told
    last = read_log(tmp_path / "run" / files.LOG)[-1]
    assert last["reason"] == "interrupted"
    run = antiphon.train(
        home / "pairs.tsv", tmp_path / "run", resume=True, knobs={"train": {"max_updates": last["update"] + 1}}
    )
    assert run.updates == last["update"] + 1


def test_a_terminal_that_is_closed_loses_nothing(home, tmp_path):
    """A real terminal, hung up: SIGHUP comes, and every write to the screen fails from then on."""
    ours, theirs = os.openpty()
    given = {"stdin": theirs, "stdout": theirs, "stderr": theirs, "start_new_session": True}
    leader = "import fcntl, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0)"
    command = [sys.executable, "-c", f"{leader}; from antiphon.faces.cli import main; sys.exit(main())"]
    command += ["train", str(home / "pairs.tsv"), "--out", str(tmp_path / "run"), *flags(), *FOREVER]
    process = subprocess.Popen(command, preexec_fn=hears_hangups, **given)
    os.close(theirs)
    deadline = time.monotonic() + 60
    os.set_blocking(ours, False)
    while time.monotonic() < deadline and not (tmp_path / "run" / files.WEIGHTS).exists():
        try:
            os.read(ours, 65536)
        except OSError:
            time.sleep(0.02)
    os.close(ours)
    try:
        process.wait(timeout=60)
    finally:
        process.kill()  # whatever went wrong, the tests that follow have the machine to themselves
    assert read_log(tmp_path / "run" / files.LOG)[-1]["reason"] == "interrupted"


def test_nohup_is_respected(home, tmp_path):
    process = started(
        home,
        tmp_path / "run",
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )
    reached = read_log(tmp_path / "run" / files.LOG)[-1]["update"]
    process.send_signal(signal.SIGHUP)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and read_log(tmp_path / "run" / files.LOG)[-1]["update"] < reached + 100:
        time.sleep(0.05)
    ended = process.poll()
    process.kill()
    process.wait()
    assert ended is None


def test_a_second_ctrl_c_stops_at_once(home, tmp_path):
    class Impatient(Watcher):
        def __call__(self, event):
            super().__call__(event)
            if isinstance(event, Validated) and event.update == 10:
                os.kill(os.getpid(), signal.SIGINT)
                os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        antiphon.train(home / "pairs.tsv", tmp_path / "run", knobs=knobs(updates=WHOLE), observer=Impatient())
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    goes_on(home, tmp_path / "run")
    assert same(home / "whole", tmp_path / "run")


def test_a_screen_that_fails_does_not_end_training(home, tmp_path):
    def broken(event):
        raise BrokenPipeError

    run = antiphon.train(home / "pairs.tsv", tmp_path / "run", knobs=knobs(updates=WHOLE), observer=broken)
    assert run.finished
    assert same(home / "whole", run.folder)


# Gradients.


@settings(max_examples=100)
@given(st.lists(st.floats(0.01, 5.0), min_size=FEWEST, max_size=150), st.floats(0.5, 5.0))
def test_only_norms_far_above_the_usual_explode(norms, clip):
    watch = Stability(clip)
    assert [watch.saw(norm) for norm in norms] == [""] * len(norms)
    assert not watch.lost
    most = watch.most
    assert most >= EXPLODES * clip
    assert watch.saw(most) == ""
    assert "exploded" in watch.saw(1.01 * watch.most)
    assert "not finite" in watch.saw(math.nan)
    again = Stability(clip)
    again.restore(watch.state())
    assert (again.most, again.lost) == (watch.most, watch.lost)
    for _ in range(REPEATED):
        watch.saw(math.inf)
    assert watch.lost
    watch.forgive()
    assert not watch.lost


def test_a_bad_update_now_and_then_is_no_reason_to_go_back():
    watch = Stability(1.0)
    for _ in range(10):
        for turn in range(LATELY):
            watch.saw(math.nan if turn % 5 == 0 else 1.0)
            assert not watch.lost
    assert len(watch.state()["norms"]) == WINDOW


def spoilt(monkeypatch, bad) -> None:
    """Gradients of the updates that ``bad`` names (update, slower) → factor are multiplied by that."""
    real = trainer.batch_loss

    def spoiling(model, batch, config, *, update, **rest):
        loss, nats, tokens = real(model, batch, config, update=update, **rest)
        return loss * bad(update), nats, tokens

    monkeypatch.setattr(trainer, "batch_loss", spoiling)


def test_bad_updates_are_skipped_counted_and_told(home, tmp_path, monkeypatch):
    spoilt(monkeypatch, lambda update: {60: math.nan, 64: 1e6, 70: math.inf}.get(update, 1.0))
    watcher = Watcher()
    run = antiphon.train(home / "pairs.tsv", tmp_path / "run", knobs=knobs(updates=80), observer=watcher)
    told = warnings(watcher)
    assert [message.partition(":")[0] for message in told] == [f"update {at} skipped" for at in (61, 65, 71)]
    assert "not finite" in told[0]
    assert "exploded: norm" in told[1]
    assert watcher.of(Stopped)[0].skipped == 3
    assert all(
        tensor.isfinite().all() for tensor in load_file(run.folder / files.STATE).values() if tensor.is_floating_point()
    )


def test_after_repeated_ones_it_goes_back_with_a_lower_rate_and_resumes_bit_for_bit(home, tmp_path, monkeypatch):
    """Updates 24 to 28 are bad as long as the rate is the usual one: so back to 20, half the rate, and on."""

    class Slow:
        now = 1.0

    real = trainer._Trainer._rate

    def rate(self):
        Slow.now = self._position.slower
        return real(self)

    monkeypatch.setattr(trainer._Trainer, "_rate", rate)
    spoilt(monkeypatch, lambda update: math.nan if Slow.now == 1.0 and 24 <= update < 40 else 1.0)
    watcher = Watcher()
    given = {"train": {"validate_every": 20}}
    whole = antiphon.train(home / "pairs.tsv", tmp_path / "whole", knobs=knobs(updates=60, **given), observer=watcher)
    assert whole.finished
    assert whole.updates == 60
    *skips, back = warnings(watcher)
    assert len(skips) == REPEATED
    assert "back to update 20, with the learning rate halved (0.5 of what it would be)" in back
    # the same, interrupted after the fourth of the five, and again right after going back
    for moment in ("4 skipped so far", "back to update 20"):

        class Stopper(Watcher):
            def __call__(self, event, moment=moment):
                super().__call__(event)
                if isinstance(event, Warned) and moment in event.message:
                    os.kill(os.getpid(), signal.SIGTERM)

        out = tmp_path / f"parts {moment[0]}"
        Slow.now = 1.0
        first = antiphon.train(home / "pairs.tsv", out, knobs=knobs(updates=60, **given), observer=Stopper())
        assert not first.finished
        goes_on(home, out)
        assert same(whole.folder, out)


def test_a_rate_that_is_far_too_high_is_lowered_until_it_works(home, tmp_path):
    """No fault is made up here: plain SGD, no clipping to speak of, a rate at which it blows up by itself."""
    watcher, blowing = Watcher(), {"optimizer": "sgd", "learning_rate": 50.0, "clip": 1e30, "average": 0.0, "warmup": 0}
    run = antiphon.train(
        home / "pairs.tsv", tmp_path / "run", knobs=knobs(updates=120, train=blowing), observer=watcher
    )
    assert run.finished
    assert sum("back to update" in message for message in warnings(watcher)) > 3
    assert math.isfinite(run.best_dev)
    state = load_file(run.folder / files.STATE)
    assert all(tensor.isfinite().all() for name, tensor in state.items() if name.startswith("weight/"))


def test_when_nothing_helps_it_stops_and_says_why(home, tmp_path, monkeypatch):
    spoilt(monkeypatch, lambda update: math.nan if update >= 12 else 1.0)
    watcher = Watcher()
    run = antiphon.train(home / "pairs.tsv", tmp_path / "run", knobs=knobs(updates=1000), observer=watcher)
    assert run.finished
    assert f"explode even with a learning rate {2 ** (SETBACKS + 1)} times lower" in run.reason
    assert sum("back to update 10" in message for message in warnings(watcher)) == SETBACKS + 1
    assert antiphon.load(run.folder).predict("a b").text is not None


# All at once.


def test_killed_at_random_instants_on_three_disks_it_ends_as_if_nobody_had():
    root = Path(__file__).parents[1]
    if not (root / "benchmarks").is_dir():
        pytest.skip("the benchmarks are not here")
    command = [sys.executable, "-m", "benchmarks.torture", "--kills", "6", "--updates", "30"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["good"]["kills"] == 6
    assert found["good"]["identical"] == found["good"]["runs"] > 0
