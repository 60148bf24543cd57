"""How fast answers are found: beside OpenNMT-py, at the sizes of the presets, and how time grows.

    python -m benchmarks.decoding folders runs/chat models/chat models/chat-int8 --data data/cornell
    python -m benchmarks.decoding peers data/multi30k
    python -m benchmarks.decoding presets
    python -m benchmarks.decoding growth --plot docs/images/decoding-growth.png
    python -m benchmarks.decoding transformer

`folders` compares model folders (a run, its exports): size on the disk; milliseconds of reading a source of 12 tokens
and of one step with one row; sentences a second over the first sources of the data's test part.

`peers` trains OpenNMT-py and Antiphon at one size on the same subwords (`benchmarks/lstm500.toml`), once, for the
minutes and updates given, and keeps both in ``--home``. Then they translate the dev part in turn, on one thread and on
two: sentences a second with a beam of 5 and greedily, 32 at a time, and milliseconds a sentence alone, greedily. With
two threads OpenNMT-py shares each product among them, and Antiphon works on two batches. BLEU is over the whole dev
part. Reading the model is not counted; cutting into subwords is none. Neither has a length penalty, as OpenNMT-py wants
it; with the penalty of `translate` the exact rule that ends a search computes half as many rows more.

`presets` and `growth` need no training: weights are random, and every answer has as many tokens as is said.
`transformer` times CTranslate2's int8 Transformer (6 + 6 layers of 512, 10,000 words, random weights) on sources and
answers of 12 tokens, as a mark; it is installed in an environment of its own in ``--home``.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

import antiphon
from antiphon.config import SearchConfig, load_config
from antiphon.data.tokenizer import EOS
from antiphon.runtime.folder import ENCODER, GRAPHS, STEP
from antiphon.runtime.onnx_engine import OnnxEngine, load_engine
from antiphon.search import Engine, Hypothesis, beam, greedy
from benchmarks import machine
from benchmarks.peers.opennmt import OPENNMT as ENVIRONMENT
from benchmarks.peers.opennmt import train
from benchmarks.peers.ours import LSTM500
from benchmarks.peers.peer import Job
from benchmarks.peers.symbols import write_symbols

WAYS = {"beam 5, 32 at a time": (5, 32), "greedy, 32 at a time": (1, 32), "greedy, alone": (1, 1)}
ALONE = 40
"""Sentences answered one by one."""
LENGTH = 12
"""Tokens of a reply, and of what it replies to."""
GROWTH = {
    "beam": [1, 2, 4, 8, 16],
    "batch": [1, 4, 16, 64, 256],
    "source": [5, 10, 25, 50, 100, 200],
    "vocabulary": [5_000, 10_000, 25_000, 50_000, 100_000],
}
USUAL = {"beam": 4, "batch": 32, "source": 15, "vocabulary": 8_000}
OPENNMT = """
import json, logging, sys, time, warnings
warnings.simplefilter("ignore")
logging.disable(logging.CRITICAL)
import torch
import onmt.opts
from onmt.inference_engine import InferenceEnginePY
from onmt.utils.parse import ArgumentParser

asked = json.loads(sys.argv[1])
torch.set_num_threads(asked["threads"])
lines = open("dev.src", encoding="utf-8").read().splitlines()
lines = sorted(lines[: asked["texts"]], key=lambda line: len(line.split())) if asked["timed"] else lines
found = {}
for name, (width, rows) in asked["ways"].items():
    parser = ArgumentParser()
    onmt.opts.translate_opts(parser)
    words = ["-model", asked["model"], "-src", "dev.src", "-output", "/dev/null", "-max_length", "100"]
    opt = parser.parse_args([*words, "-beam_size", str(width), "-batch_size", str(rows)])
    for check in ("validate_translate_opts", "_get_all_transform_translate", "_validate_transforms_opts"):
        getattr(ArgumentParser, check)(opt)
    ArgumentParser.validate_translate_opts_dynamic(opt)
    engine = InferenceEnginePY(opt)
    some = lines if rows > 1 else lines[:: max(1, len(lines) // asked["alone"])][: asked["alone"]]
    engine.infer_list(some[:rows])
    begun = time.perf_counter()
    _, answers = engine.infer_list(some)
    seconds = time.perf_counter() - begun
    found[name] = {"sentences": len(some), "seconds": seconds, "answers": [answer[0] for answer in answers]}
print(json.dumps(found))
"""


CTRANSLATE2 = """
import json, sys, time
import ctranslate2, numpy as np
from ctranslate2.specs import TransformerSpec

asked = json.loads(sys.argv[1])
rng = np.random.default_rng(1)
words, width, inner = 10000, 512, 2048
spec = TransformerSpec.from_config((6, 6), 8)


def linear(layer, outputs, inputs):
    layer.weight = rng.normal(0, 0.04, (outputs, inputs)).astype(np.float32)
    layer.bias = np.zeros(outputs, np.float32)


def norm(layer):
    layer.gamma, layer.beta = np.ones(width, np.float32), np.zeros(width, np.float32)


def attention(layer, sizes):
    norm(layer.layer_norm)
    for part, size in zip(layer.linear, sizes):
        linear(part, size, width)


for side in (spec.encoder, spec.decoder):
    table = side.embeddings[0] if isinstance(side.embeddings, list) else side.embeddings
    table.weight = rng.normal(0, 0.04, (words, width)).astype(np.float32)
    side.position_encodings.encodings = rng.normal(0, 0.1, (512, width)).astype(np.float32)
    norm(side.layer_norm)
    for layer in side.layer:
        attention(layer.self_attention, (3 * width, width))
        if side is spec.decoder:
            attention(layer.attention, (width, 2 * width, width))
        norm(layer.ffn.layer_norm)
        linear(layer.ffn.linear_0, inner, width)
        linear(layer.ffn.linear_1, width, inner)
linear(spec.decoder.projection, words, width)
names = ["<blank>", "<unk>", "<s>", "</s>"] + [f"w{number}" for number in range(words - 4)]
spec.register_source_vocabulary(names)
spec.register_target_vocabulary(names)
spec.validate()
spec.optimize(quantization="int8")
spec.save(asked["folder"])
found = {}
length = asked["length"]
sources = [[f"w{number}" for number in rng.integers(0, words - 4, length)] for _ in range(asked["texts"])]
for threads in (1, 2):
    translator = ctranslate2.Translator(asked["folder"], inter_threads=threads, intra_threads=1, compute_type="int8")
    for name, (beam, rows) in asked["ways"].items():
        some = sources if rows > 1 else sources[: asked["alone"]]
        rates = []
        for _ in range(asked["repeats"] + 1):
            begun = time.perf_counter()
            for start in range(0, len(some), rows * threads if rows > 1 else 1):
                part = some[start : start + (rows * threads if rows > 1 else 1)]
                translator.translate_batch(part, beam_size=beam, max_batch_size=rows, max_decoding_length=length,
                                           min_decoding_length=length)
            rates.append(len(some) / (time.perf_counter() - begun))
        found[f"{name}, {threads}"] = sorted(rates[1:])[len(rates[1:]) // 2]
print(json.dumps({"version": ctranslate2.__version__, "rates": found}))
"""


def transformer(asked: argparse.Namespace) -> dict[str, object]:
    """CTranslate2's int8 Transformer."""
    folder = (asked.home / "ctranslate2").absolute()
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", "ctranslate2"], check=True)
    with tempfile.TemporaryDirectory() as scratch:
        sizes = {"ways": WAYS, "alone": ALONE, "texts": 320, "length": LENGTH, "repeats": asked.repeats}
        command = [str(python), "-c", CTRANSLATE2, json.dumps({"folder": scratch, **sizes})]
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": ""})
    if done.returncode:
        sys.exit(f"CTranslate2 failed:\n{done.stderr[-3000:]}")
    found = json.loads(done.stdout.splitlines()[-1])
    table = {}
    for key, rate in found["rates"].items():
        name, _, threads = key.rpartition(", ")
        alone = WAYS[name][1] == 1
        unit = "ms a sentence" if alone else "sentences/s"
        table[f"{name}, {unit}, {threads} thread{'s' if threads == '2' else ''}"] = 1000 / rate if alone else rate
    return {"repeats": asked.repeats, "version": found["version"], "table": {"CTranslate2, int8 Transformer": table}}


def opennmt(python: Path, home: Path, **asked: object) -> dict[str, dict]:
    """What OpenNMT-py's own interface took and gave, by way."""
    environment_variables = {
        **os.environ,
        "PYTHONPATH": "",
        "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1",  # the checkpoint is our own, and older than PyTorch's rule
        "OMP_NUM_THREADS": str(asked["threads"]),
    }
    done = subprocess.run(
        [str(python), "-c", OPENNMT, json.dumps(asked)],
        cwd=home,
        env=environment_variables,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        sys.exit(f"OpenNMT-py failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def searched(
    engine: Engine, ids: list[list[int]], width: int, rows: int, threads: int, most: int
) -> list[list[Hypothesis]]:
    """The best hypotheses of sources, in their order, so many rows at a time, so many batches at once."""
    config = SearchConfig(beam=width, length_penalty=0.0)

    def one(some: list[list[int]]) -> list[list[Hypothesis]]:
        src = np.zeros((len(some), max(map(len, some))), np.int64)
        for row, source in enumerate(some):
            src[row, : len(source)] = source
        src_len = np.array([len(source) for source in some])
        return (greedy if width == 1 else beam)(engine, src, src_len, config, np.full(len(some), most))

    parts = [ids[start : start + rows] for start in range(0, len(ids), rows)]
    if threads == 1:
        found = [one(part) for part in parts]
    else:
        with ThreadPoolExecutor(threads) as pool:
            found = list(pool.map(one, parts))
    return list(itertools.chain.from_iterable(found))


def whole(text: str) -> str:
    """A text whose subwords stood apart."""
    return text.replace(" ", "").replace("▁", " ").strip()


def antiphon_times(model: antiphon.Model, lines: list[str], threads: int) -> dict[str, dict]:
    """The same as `opennmt` with this project's engine."""
    ids = sorted(([*row[: model.max_source - 1], EOS] for row in model.source_tokenizer.encode_batch(lines)), key=len)
    found = {}
    for name, (width, rows) in WAYS.items():
        some = ids if rows > 1 else ids[:: max(1, len(ids) // ALONE)][:ALONE]
        searched(model.engine, some[:rows], width, rows, 1, model.max_target)
        begun = time.perf_counter()
        searched(model.engine, some, width, rows, threads if rows > 1 else 1, model.max_target)
        found[name] = {"sentences": len(some), "seconds": time.perf_counter() - begun}
    return found


def prepared(corpus: Path, home: Path, python: Path, updates: int, minutes: float) -> tuple[str, dict[str, Path]]:
    """OpenNMT-py's checkpoint and our folders, trained and exported if they are not there."""
    if not (home / "dev.src").exists():
        home.mkdir(parents=True, exist_ok=True)
        write_symbols(corpus, home, "subwords")
    checkpoint = f"model_step_{updates}.pt"
    if not (home / checkpoint).exists():
        print(f"training OpenNMT-py, {updates} updates", file=sys.stderr)
        train(python, Job(home, os.cpu_count() or 1, 1), feeding=False, updates=updates, save="model")
    run = home / f"run-{minutes:g}"
    if not (run / "model.safetensors").exists():
        knobs = {
            "data": {"tokenizer": "symbol", "vocabulary": 20000},
            "model": {"dropout": 0.2},  # ours drops more than between layers, and all over a sentence the same
            "train": {"seed": 1, "label_smoothing": 0.1, "average": 0.998},
        }
        antiphon.train(home / "train.tsv", out=run, preset=str(LSTM500), minutes=minutes, knobs=knobs)
    folders = {}
    for name, quantised in (("f32", None), ("int8", "int8")):
        folders[name] = home / f"export-{minutes:g}-{name}"
        if not folders[name].exists():
            from antiphon.export.folder import export

            export(run, folders[name], quantise=quantised)  # type: ignore[arg-type]
    return checkpoint, folders


def peers(asked: argparse.Namespace) -> dict[str, object]:
    """Beside OpenNMT-py."""
    import sacrebleu

    python = ENVIRONMENT.python(asked.home)
    home = machine.place(asked.home, "decoding", asked.data)
    checkpoint, folders = prepared(asked.data, home, python, asked.updates, asked.minutes)
    models = {f"Antiphon, {name}": antiphon.load(folder, threads=2) for name, folder in folders.items()}
    lines, wanted = ((home / f"dev.{side}").read_text(encoding="utf-8").splitlines() for side in ("src", "tgt"))
    found: dict[str, dict[str, list[float]]] = {}
    for _ in range(asked.repeats):
        for threads in (1, 2):
            taken = {
                "OpenNMT-py": opennmt(
                    python,
                    home,
                    model=checkpoint,
                    threads=threads,
                    texts=asked.texts,
                    ways=WAYS,
                    alone=ALONE,
                    timed=True,
                )
            }
            for name, model in models.items():
                taken[name] = antiphon_times(model, lines[: asked.texts], threads)
            for name, ways in taken.items():
                for way, part in ways.items():
                    rate = part["sentences"] / part["seconds"]
                    alone = WAYS[way][1] == 1
                    key = f"{way}, {'ms a sentence' if alone else 'sentences/s'}, {threads} thread{'s'[: threads - 1]}"
                    found.setdefault(name, {}).setdefault(key, []).append(1000 / rate if alone else rate)

    answers = {
        "OpenNMT-py": opennmt(
            python,
            home,
            model=checkpoint,
            threads=2,
            texts=len(lines),
            alone=ALONE,
            timed=False,
            ways={"beam": (5, 32)},
        )["beam"]["answers"]
    }
    for name, model in models.items():
        answers[name] = [answer.text for answer in model.predict(lines, beam=5, length_penalty=0.0)]
    table: dict[str, dict[str, float]] = {}
    for name, rows in found.items():
        texts = [whole(text) for text in answers[name]]
        bleu = sacrebleu.corpus_bleu(texts, [[whole(text) for text in wanted]], tokenize="none").score
        table[name] = {key: statistics.median(values) for key, values in rows.items()}
        table[name]["tokens an answer"] = float(np.mean([len(text.split()) for text in answers[name]]))
        table[name]["BLEU of dev, beam 5"] = bleu
    ratios = {}
    for key in found["OpenNMT-py"]:
        theirs, ours = table["OpenNMT-py"][key], table["Antiphon, int8"][key]
        ratios[key] = theirs / ours if "ms" in key else ours / theirs
    table["int8 : OpenNMT-py"] = ratios
    facts = {"data": machine.corpus(asked.data), "texts": asked.texts, "repeats": asked.repeats}
    return {**facts, "updates": asked.updates, "table": table}


def folders(asked: argparse.Namespace) -> dict[str, object]:
    """Model folders side by side, in turn."""
    models = {str(folder): antiphon.load(folder, threads=asked.threads) for folder in asked.folders}
    texts = [pair.source for pair in antiphon.read_pairs(asked.data / "test.tsv")[: asked.texts]]
    if any("antiphon.nn" in type(model.engine).__module__ for model in models.values()):
        import torch

        torch.set_num_threads(asked.threads)
    found: dict[str, dict[str, list[float]]] = {}
    for repeat in range(asked.repeats + 1):
        for name, model in models.items():
            row = one_row(model.engine, np.full((1, LENGTH), min(50, model.source_tokenizer.size - 1)))
            ids = ([*row[: model.max_source - 1], EOS] for row in model.source_tokenizer.encode_batch(texts))
            ids = sorted(ids, key=len)
            for width in (1, 5):
                begun = time.perf_counter()
                searched(model.engine, ids, width, 32, asked.threads, model.max_target)
                row[f"beam {width}, sentences/s"] = len(ids) / (time.perf_counter() - begun)
            if repeat:  # the first makes kernels
                for key, value in row.items():
                    found.setdefault(name, {}).setdefault(key, []).append(value)
    table = {}
    for folder in asked.folders:
        files = [path for path in folder.rglob("*") if path.suffix in (".onnx", ".safetensors")]
        size = sum(path.stat().st_size for path in files if not path.name.startswith("state"))
        taken = {key: statistics.median(values) for key, values in found[str(folder)].items()}
        table[str(folder)] = {"MB": size / 1e6, **taken}
    facts = {"data": machine.corpus(asked.data), "threads": asked.threads, "texts": len(texts)}
    return {**facts, "repeats": asked.repeats, "table": table}


def one_row(engine: Engine, src: np.ndarray) -> dict[str, float]:
    """Milliseconds of reading one source (1, S), and of a step of one row after it."""
    begun = time.perf_counter()
    memory, state = engine.encode(src, np.array([src.shape[1]]))
    read = time.perf_counter()
    y = np.ones(1, np.int64)
    for _ in range(LENGTH):
        out = engine.step(y, state, memory, 4)
        state, y = out.state, out.ids[:, 0]
    return {"read, ms": 1000 * (read - begun), "step, ms": 1000 * (time.perf_counter() - read) / LENGTH}


def random_engine(
    folder: Path, preset: str, vocabulary: int, *, quantised: bool = True
) -> tuple[OnnxEngine, antiphon.config.Config]:
    """An exported model of a preset's size whose weights are random, seed 1."""
    import torch

    from antiphon.export.graph import encoder_graph, step_graph
    from antiphon.nn.seq2seq import Seq2Seq

    torch.manual_seed(1)
    config = load_config(preset)
    sizes = {"source_vocabulary": vocabulary, "target_vocabulary": vocabulary}
    made = Seq2Seq(config.model, **sizes)
    weights = {name: parameter.detach().numpy() for name, parameter in made.named_parameters()}
    (folder / GRAPHS).mkdir(parents=True, exist_ok=True)
    for name, graph in ((ENCODER, encoder_graph), (STEP, step_graph)):
        (folder / GRAPHS / name).write_bytes(graph(config, weights, quantised=quantised).SerializeToString())
    return load_engine(folder, config, **sizes), config


def presets(asked: argparse.Namespace) -> dict[str, object]:
    """Presets alone: milliseconds of a reply, steps a second; sentences a second on two threads."""
    table: dict[str, dict[str, float]] = {}
    rng = np.random.default_rng(1)
    for name, vocabulary in (("dates", 100), ("g2p", 80), ("translate", 6000), ("chat", 6000), (str(LSTM500), 10000)):
        with tempfile.TemporaryDirectory() as scratch:
            engine, _ = random_engine(Path(scratch), name, vocabulary)
        rows = [one_row(engine, rng.integers(4, vocabulary, (1, LENGTH))) for _ in range(asked.repeats * 20)]
        row = {key: statistics.median(each[key] for each in rows) for key in rows[0]}
        row["reply of 12 tokens, ms"] = row["read, ms"] + LENGTH * row["step, ms"]
        row["steps/s, 1 row"] = 1000 / row["step, ms"]
        ids = [[*rng.integers(4, vocabulary, LENGTH - 1).tolist(), EOS] for _ in range(32 * 8)]
        for threads in (1, 2):
            for width in (1, 5):
                rates = []
                for _ in range(asked.repeats):
                    begun = time.perf_counter()
                    searched(engine, ids, width, 32, threads, LENGTH + 1)
                    rates.append(len(ids) / (time.perf_counter() - begun))
                row[f"beam {width}, sentences/s, {threads} thread{'s'[: threads - 1]}"] = statistics.median(rates)
        table[Path(name).stem] = row
    return {"repeats": asked.repeats, "table": table}


def growth(asked: argparse.Namespace) -> dict[str, object]:
    """Milliseconds of a batch of the `translate` preset, one thread, answers of 12 tokens, as one size grows."""
    found: dict[str, dict[str, float]] = {}
    rng = np.random.default_rng(1)
    engines: dict[int, OnnxEngine] = {}
    for what, values in GROWTH.items():
        for value in values:
            size = {**USUAL, what: value}
            vocabulary = size["vocabulary"]
            if vocabulary not in engines:
                with tempfile.TemporaryDirectory() as scratch:
                    engines = {USUAL["vocabulary"]: engines[USUAL["vocabulary"]]} if engines else {}
                    engines[vocabulary] = random_engine(Path(scratch), "translate", vocabulary)[0]
            ids = [[*rng.integers(4, 5000, size["source"] - 1).tolist(), EOS] for _ in range(size["batch"])]
            work: Callable[[], object] = lambda ids=ids, size=size, engine=engines[vocabulary]: searched(  # noqa: E731
                engine, ids, size["beam"], size["batch"], 1, LENGTH
            )
            found.setdefault(what, {})[f"{value:,}"] = 1000 * machine.seconds(work, repeats=asked.repeats, warm=1)
    if asked.plot:
        draw(found, asked.plot)
    return {"repeats": asked.repeats, "usual": USUAL, "table": found}


def draw(found: dict[str, dict[str, float]], path: Path) -> None:
    """A panel for each size that grows."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, len(found), figsize=(3.2 * len(found), 3), layout="constrained")
    for panel, (what, times) in zip(panels, found.items(), strict=True):
        values = [int(value.replace(",", "")) for value in times]
        panel.plot(values, list(times.values()), marker="o", color="#2a6f97")
        panel.set(xlabel=what, ylim=(0, None), xlim=(0, None))
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("milliseconds a batch")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def show(table: dict[str, dict[str, float]]) -> None:
    """Columns beside each other, or one block after the other where they have different rows."""
    columns = list(table)
    if all(set(rows) <= set(table[columns[0]]) for rows in table.values()):
        width = max(14, *map(len, columns))
        print(" " * 44, *(f"{name:>{width}}" for name in columns))
        for key in table[columns[0]]:
            cells = (f"{table[name][key]:,.2f}" if key in table[name] else "" for name in columns)
            print(f"{key:<44}", *(f"{cell:>{width}}" for cell in cells))
        return
    for name, rows in table.items():
        print(name)
        for key, value in rows.items():
            print(f"  {key:>10} {value:>12,.2f}")


def main() -> None:
    """Parses, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ways = parser.add_subparsers(dest="what", required=True)
    some = ways.add_parser("folders", help="model folders side by side")
    some.add_argument("folders", nargs="+", type=Path)
    some.add_argument("--data", type=Path, required=True)
    some.add_argument("--texts", type=int, default=256)
    some.add_argument("--threads", type=int, default=1)
    beside = ways.add_parser("peers", help="beside OpenNMT-py")
    beside.add_argument("data", type=Path, help="a folder made by antiphon data")
    beside.add_argument("--home", type=Path, default=Path("runs/peers"), help="where everything is made and kept")
    beside.add_argument("--updates", type=int, default=2300, help="of OpenNMT-py's training, 64 sentences each")
    beside.add_argument("--minutes", type=float, default=15, help="of Antiphon's training")
    beside.add_argument("--texts", type=int, default=320)
    for name, text in (("presets", "at the sizes of the presets"), ("growth", "how time grows")):
        part = ways.add_parser(name, help=text)
        part.add_argument("--plot", type=Path, help="draw how time grows")
    mark = ways.add_parser("transformer", help="CTranslate2's int8 Transformer, as a mark")
    mark.add_argument("--home", type=Path, default=Path("runs/peers"), help="where it is installed")
    for part in ways.choices.values():
        part.add_argument("--repeats", type=int, default=3)
    asked = parser.parse_args()
    work = {"folders": folders, "peers": peers, "presets": presets, "growth": growth, "transformer": transformer}
    found = work[asked.what](asked)
    show(found["table"])  # type: ignore[arg-type]
    print(json.dumps({**machine.describe(), "seed": 1, "what": asked.what, **found}))


if __name__ == "__main__":
    main()
