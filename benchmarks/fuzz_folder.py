"""Ten thousand broken model folders and ten thousand odd texts: no crash, no hang, bounded memory.

    python -m benchmarks.fuzz_folder folders --cases 10000
    python -m benchmarks.fuzz_folder texts --cases 10000

A case of `folders` is a copy of a model folder with one or two of its files changed: bytes turned, cut, doubled or put
elsewhere; values of a JSON document replaced by others of any kind; nodes, weights, sizes and attributes of a graph
exchanged, removed, renamed or made giant. It is loaded and asked for an answer, in a process of its own kind that is
started again if it dies. What is allowed: the project's own error, or an answer.

A case of `texts` is what hypothesis makes: any Unicode with lone surrogates and control characters, nothing, and lines
of a megabyte. Each is answered, streamed and scored.

Told: what came of them, the longest case, and by how much memory grew at most.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import copy
import json
import random
import select
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import onnx

import antiphon
from antiphon.runtime.bundled import resolved
from antiphon.runtime.onnx_file import OPERATORS
from benchmarks import machine

PATIENCE = 20.0
"""Seconds after which a case is ended and counted as a hang."""
SLOW = 2.0
"""Seconds that no short input may take."""
ODD: list[Any] = [
    None,
    True,
    -1,
    0,
    1,
    2**31,
    2**63,
    10**30,
    1e308,
    -0.5,
    "",
    "x",
    "\x00",
    "../../etc/passwd",
    [],
    {},
    [[]],
]
SHOWN = 5
"""Cases of a kind that are named."""


def peak(reset: bool = False) -> float:
    """Megabytes this process has had at most since it was last asked to forget."""
    if reset:
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def mutate_bytes(content: bytes, rng: random.Random) -> bytes:
    """Bytes turned, cut out, doubled, put elsewhere, or cut off."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        at = rng.randrange(len(data)) if data else 0
        length = rng.choice((1, 2, 8, 100, 5000))
        way = rng.randrange(6)
        if way == 0 and data:
            data[at] ^= 1 << rng.randrange(8)
        elif way == 1:
            data[at : at + length] = rng.randbytes(length)
        elif way == 2:
            del data[at : at + length]
        elif way == 3:
            data[at:at] = data[at : at + length]
        elif way == 4:
            data[at:at] = rng.choice((b"\xff" * 10, b"\x00" * length, b"\xff\xff\xff\xff\x0f", b"{" * length))
        else:
            del data[at:]
    return bytes(data)


def mutate_json(tree: Any, rng: random.Random) -> Any:
    """A document with some value replaced, removed, doubled or made giant."""
    tree = copy.deepcopy(tree)
    for _ in range(rng.choice((1, 1, 2, 5))):
        node = tree
        while True:
            keys = list(node) if isinstance(node, dict) else list(range(len(node)))
            if not keys:
                break
            key = rng.choice(keys)
            if isinstance(node[key], dict | list) and rng.random() < 0.8:
                node = node[key]
                continue
            way = rng.randrange(5)
            if way == 0:
                del node[key]
            elif way == 1 and isinstance(node, list):
                node += node[:1000]
            elif way == 2 and isinstance(node[key], int | float) and not isinstance(node[key], bool):
                node[key] = node[key] * rng.choice((0, -1, 2, 1000, 10**9, 0.5))
            elif way == 3 and isinstance(node[key], str):
                node[key] = node[key] * rng.choice((0, 2, 1000)) + rng.choice(("", "\ud800", "\x00", "é"))
            else:
                node[key] = copy.deepcopy(rng.choice(ODD))
            break
    return tree


def mutate_graph(content: bytes, rng: random.Random) -> bytes:
    """A graph that still is one, with some of it exchanged, removed, renamed, or made giant."""
    model = onnx.load_from_string(content)
    for _ in range(rng.choice((1, 1, 2, 4))):
        graph = model.graph
        scans = [node for node in graph.node if node.op_type == "Scan"]
        if scans and rng.random() < 0.3:
            graph = rng.choice(scans).attribute[0].g if rng.choice(scans).attribute[0].HasField("g") else graph
        nodes, weights = list(graph.node), list(model.graph.initializer)
        if not nodes:
            continue
        node, weight = rng.choice(nodes), rng.choice(weights)
        names = [name for each in nodes for name in (*each.input, *each.output)] + [each.name for each in weights]
        way = rng.randrange(11)
        if way == 0:
            node.op_type = rng.choice(sorted(OPERATORS)).rpartition(".")[2]
        elif way == 1 and node.input:
            node.input[rng.randrange(len(node.input))] = rng.choice([*names, ""])
        elif way == 2:
            graph.node.remove(node)
        elif way == 3:
            graph.node.append(node)
        elif way == 4 and node.output:
            node.output[0] = rng.choice(names)
        elif way == 5 and node.attribute:
            attribute = rng.choice(list(node.attribute))
            attribute.i = rng.choice((-1, 0, 1, 7, 2**31, 2**62))
            if attribute.ints:
                attribute.ints[0] = attribute.i
        elif way == 6 and weight.dims:
            weight.dims[rng.randrange(len(weight.dims))] = rng.choice((0, 1, 3, 2**20, 2**40))
        elif way == 7:
            raw = bytearray(weight.raw_data)
            for _ in range(rng.choice((1, len(raw)))):
                if raw:
                    raw[rng.randrange(len(raw))] = rng.choice((0, 255, rng.randrange(256)))
            weight.raw_data = bytes(raw)
        elif way == 8:
            weight.data_type = rng.choice((1, 2, 3, 6, 7, 9, 10, 11, 12, 99))
        elif way == 9:
            weight.CopyFrom(rng.choice(weights))
        else:
            value = rng.choice([*model.graph.input, *model.graph.output])
            shape = value.type.tensor_type.shape
            if shape.dim:
                rng.choice(list(shape.dim)).dim_value = rng.choice((0, 1, 5, 2**40))
            value.type.tensor_type.elem_type = rng.choice((value.type.tensor_type.elem_type, 1, 7, 9))
    return model.SerializeToString()


def a_broken_folder(whole: Path, folder: Path, case: int) -> None:
    """Case so and so: a copy of the folder that is not whole."""
    rng = random.Random(case)
    files = [path.relative_to(whole) for path in sorted(whole.rglob("*")) if path.is_file() and path.suffix != ".md"]
    for file in files:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(whole / file, folder / file)
    for _ in range(rng.choice((1, 1, 2))):
        file = rng.choice(files)
        if not (folder / file).exists():  # removed before
            continue
        content = (folder / file).read_bytes()
        way = rng.random()
        with contextlib.suppress(Exception):  # what was broken before may not be read again
            if way < 0.6 and file.suffix == ".onnx":
                content = mutate_graph(content, rng)
            elif way < 0.6:
                tree = mutate_json(json.loads(content), rng)
                content = json.dumps(tree).encode("utf-8", "surrogatepass")
            elif way < 0.97:
                content = mutate_bytes(content, rng)
            else:
                (folder / file).unlink()
                continue
        (folder / file).write_bytes(content)


def work_on_folders(model: str, cases: range) -> None:
    """The worker: one line of JSON for each case."""
    whole = resolved(model)
    antiphon.load(whole).predict("3 de mayo de 1979")
    for case in cases:
        print(json.dumps({"case": case}), flush=True)
        with tempfile.TemporaryDirectory() as scratch:
            a_broken_folder(whole, Path(scratch), case)
            before = peak(reset=True)
            begun = time.perf_counter()
            try:
                answers = antiphon.load(scratch).predict(["3 de mayo de 1979", ""], max_length=30)
                outcome = "answered" if all(isinstance(answer.text, str) for answer in answers) else "no text"
            except antiphon.AntiphonError as error:
                outcome = "told" if "\n" not in str(error) else f"told in lines: {error!r}"
            except Exception as error:
                outcome = f"{type(error).__name__}: {error}"[:200]
            seconds = time.perf_counter() - begun
        line = {"case": case, "outcome": outcome, "seconds": seconds, "mb": peak() - before}
        print(json.dumps(line), flush=True)


def work_on_texts(model: str, cases: range) -> None:
    """The worker: hypothesis makes the texts, a thousand for each seed."""
    from hypothesis import HealthCheck, Phase, given, seed, settings
    from hypothesis import strategies as st

    loaded = antiphon.load(model)
    loaded.predict("warm")
    anything = st.text(st.characters(codec=None), max_size=200) | st.text(
        "\x00\x07\x1b\t\r\n\x7f\u200b\u202e\ufeff a1", max_size=80
    )
    long = st.builds(
        lambda text, size: (text * (size // max(1, len(text)) + 1))[:size],
        st.text(min_size=1, max_size=50),
        st.sampled_from([10_000, 1 << 20]),
    )
    number = cases.start

    def one(text: str) -> None:
        nonlocal number
        print(json.dumps({"case": number}), flush=True)
        before = peak(reset=True)
        begun = time.perf_counter()
        try:
            answer = loaded.predict(text, max_length=40)
            streamed = "".join(loaded.stream(text, max_length=40, sample=False))
            [nats] = loaded.score([(text[:50], text[:50])])
            ok = isinstance(answer.text, str) and isinstance(streamed, str) and nats <= 1e-3
            outcome = "answered" if ok else f"odd answer ({nats})"
        except antiphon.AntiphonError as error:
            outcome = f"told: {error}"[:100]
        except Exception as error:
            outcome = f"{type(error).__name__}: {error}"[:200]
        line = {"case": number, "outcome": outcome, "seconds": time.perf_counter() - begun, "mb": peak() - before}
        print(json.dumps({**line, "short": len(text) <= 1000}), flush=True)
        number += 1

    while number < cases.stop:
        few = min(1000, cases.stop - number)
        tried = settings(
            max_examples=few,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=[*HealthCheck.__members__.values()],
        )
        seed(number)(tried(given(anything | anything | anything | anything | long)(one)))()


def run(what: str, model: str, cases: int, first: int) -> dict[str, object]:
    """Lets workers work until all cases are done."""
    outcomes: collections.Counter[str] = collections.Counter()
    shown: dict[str, list[int]] = {}
    longest, most, following = (0.0, -1), (0.0, -1), first
    while following < first + cases:
        command = [sys.executable, "-m", "benchmarks.fuzz_folder", what, "--model", model, "--work"]
        command += ["--first", str(following), "--cases", str(first + cases - following)]
        worker = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert worker.stdout is not None
        open_case = -1
        while True:
            ready, _, _ = select.select([worker.stdout], [], [], PATIENCE)
            line = worker.stdout.readline() if ready else None
            if not line:
                break
            told = json.loads(line)
            open_case = told["case"]
            if "outcome" not in told:
                continue
            following, open_case = told["case"] + 1, -1
            outcome = told["outcome"]
            if told.get("short", True) and told["seconds"] > SLOW:
                outcome = "slow"
            outcomes[outcome] += 1
            shown.setdefault(outcome, []).append(told["case"])
            longest, most = max(longest, (told["seconds"], told["case"])), max(most, (told["mb"], told["case"]))
        worker.kill()
        code = worker.wait()
        if open_case >= 0:
            outcome = "hang" if line is None else f"died ({code})"
            outcomes[outcome] += 1
            shown.setdefault(outcome, []).append(open_case)
            following = open_case + 1
        elif following < first + cases and line is not None and code != 0 and following == first:
            sys.exit(f"the worker does not start (exit {code})")
    for outcome, count in outcomes.most_common():
        print(f"{count:>8,}  {outcome}   e.g. {shown[outcome][:SHOWN]}")
    print(f"longest {longest[0]:.2f} s (case {longest[1]}); memory grew by {most[0]:.0f} MB at most (case {most[1]})")
    return {"outcomes": outcomes, "longest_seconds": longest[0], "most_mb": most[0]}


def main() -> None:
    """Parses, works or lets work, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["folders", "texts"])
    parser.add_argument("--model", default="dates", help="an exported model")
    parser.add_argument("--cases", type=int, default=10000)
    parser.add_argument("--first", type=int, default=0, help="the first case; a case is its number")
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.work:
        work = work_on_folders if asked.what == "folders" else work_on_texts
        work(asked.model, range(asked.first, asked.first + asked.cases))
        return
    found = run(asked.what, asked.model, asked.cases, asked.first)
    print(json.dumps({**machine.describe(), "what": asked.what, "model": asked.model, "cases": asked.cases, **found}))


if __name__ == "__main__":
    main()
