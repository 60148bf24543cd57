"""An exported model says what the run says, without PyTorch; a graph from a stranger is refused or harmless."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file

import antiphon
from antiphon.config import Config, DataConfig, SearchConfig, parse_config
from antiphon.errors import AntiphonError, FolderError, SaveError, UsageError
from antiphon.export import folder as folder_of_export
from antiphon.export import graph
from antiphon.export.folder import export
from antiphon.export.graph import encoder_graph, step_graph
from antiphon.nn.engine import TorchEngine
from antiphon.nn.seq2seq import Seq2Seq
from antiphon.runtime import bundled as shelf
from antiphon.runtime.bundled import BOT, bundled, introduction
from antiphon.runtime.folder import ENCODER, GRAPHS, STEP
from antiphon.runtime.onnx_engine import OnnxEngine, load_engine
from antiphon.search import beam, greedy
from antiphon.training.checkpoint import save_weights
from test_laws import EVERY, SRC, SRC_LEN, TGT_IN, TGT_OUT, make

SIZES = {"source_vocabulary": 20, "target_vocabulary": 20}


def engines(cell, attention, feed, shape, folder: Path, *, quantised: bool = False):
    model = make(cell, attention, feed, shape)
    for parameter in model.parameters():  # far from the start, where everything is nearly alike
        parameter.data.normal_(0, 0.4)
    save_weights(folder, {name: p.detach() for name, p in model.named_parameters()})
    config = Config(model=model.config, data=DataConfig(too_long="drop"))
    weights = load_file(folder / "model.safetensors")
    (folder / GRAPHS).mkdir()
    onnx.save(encoder_graph(config, weights, quantised=quantised), folder / GRAPHS / ENCODER)
    onnx.save(step_graph(config, weights, quantised=quantised), folder / GRAPHS / STEP)
    return load_engine(folder, config, **SIZES), TorchEngine(model)


@pytest.mark.parametrize(("cell", "attention", "feed", "shape"), EVERY)
def test_the_graphs_compute_what_pytorch_computes(cell, attention, feed, shape, tmp_path):
    ours, theirs = engines(cell, attention, feed, shape, tmp_path)
    arrays = [tensor.numpy() for tensor in (SRC, SRC_LEN, TGT_IN, TGT_OUT)]
    np.testing.assert_allclose(ours.score(*arrays), theirs.score(*arrays), atol=1e-4)
    limits = np.full(3, 9)
    for search in (greedy, beam):
        config = SearchConfig(beam=4, nbest=3)
        found = [search(engine, arrays[0], arrays[1], config, limits) for engine in (ours, theirs)]
        for one, other in zip(*found, strict=True):
            assert [h.ids for h in one] == [h.ids for h in other]
            for mine, yours in zip(one, other, strict=True):
                assert mine.score == pytest.approx(yours.score, abs=1e-4)
                np.testing.assert_allclose(mine.attention, yours.attention, atol=1e-4)


QUANTISED = [
    ("gru", "additive", True, "copied"),
    ("gru", "multihead", False, "two ways"),
    ("lstm", "dot", False, "two ways"),
    ("lstm", "general", True, "one way"),
    ("lstm", "none", False, "normed"),
    ("lstm", "monotonic", False, "carried"),
]


@pytest.mark.parametrize(("cell", "attention", "feed", "shape"), QUANTISED)
def test_whole_numbers_are_near_and_know_nothing_of_other_rows(cell, attention, feed, shape, tmp_path, monkeypatch):
    monkeypatch.setattr(graph, "SMALL", 1)  # these models are so small that nothing would be quantised
    ours, theirs = engines(cell, attention, feed, shape, tmp_path, quantised=True)
    arrays = [tensor.numpy() for tensor in (SRC, SRC_LEN, TGT_IN, TGT_OUT)]
    found = ours.score(*arrays)
    assert 0 < np.abs(found - theirs.score(*arrays)).max() < 0.3
    for row in range(3):
        alone = ours.score(*(array[row : row + 1] for array in arrays))
        np.testing.assert_allclose(alone, found[row : row + 1], atol=1e-5)


@pytest.mark.parametrize(("cell", "attention", "feed", "shape"), [*QUANTISED, ("lstm", "general", False, "two ways")])
def test_rows_of_one_source_share_its_memory(cell, attention, feed, shape, tmp_path):
    y, rows = np.array([5, 6, 7, 8, 9, 10]), np.array([0, 0, 1, 1, 2, 2])
    for engine in engines(cell, attention, feed, shape, tmp_path):
        memory, state = engine.encode(SRC.numpy(), SRC_LEN.numpy())
        state = state.select(rows)
        shared, own = engine.step(y, state, memory, 4), engine.step(y, state, memory.select(rows), 4)
        np.testing.assert_array_equal(shared.ids, own.ids)
        np.testing.assert_allclose(shared.log_probs, own.log_probs, atol=1e-5)
        np.testing.assert_allclose(shared.attention, own.attention, atol=1e-5)


@pytest.mark.parametrize("quantised", [False, True])
def test_a_vocabulary_that_is_filled_up_to_blocks_says_no_word_that_is_none(quantised, tmp_path):
    size = 530  # nine blocks, the last one with 46 words that cannot be
    config = parse_config({"model": {"embedding": 64, "hidden": 64, "encoder_hidden": 64, "attention": "dot"}})
    torch.manual_seed(1)
    model = Seq2Seq(config.model, source_vocabulary=size, target_vocabulary=size)
    weights = {name: parameter.detach().numpy() for name, parameter in model.named_parameters()}
    (tmp_path / GRAPHS).mkdir()
    onnx.save(encoder_graph(config, weights, quantised=quantised), tmp_path / GRAPHS / ENCODER)
    onnx.save(step_graph(config, weights, quantised=quantised), tmp_path / GRAPHS / STEP)
    ours = load_engine(tmp_path, config, source_vocabulary=size, target_vocabulary=size)
    theirs, found = TorchEngine(model), []
    for engine in (ours, theirs):
        memory, state = engine.encode(SRC.numpy(), SRC_LEN.numpy())
        found.append(engine.step(np.array([5, 529, 7]), state, memory, size))
    for one in found:
        assert (np.sort(one.ids, axis=1) == np.arange(size)).all()
    by_id = [np.take_along_axis(one.log_probs, np.argsort(one.ids, axis=1), axis=1) for one in found]
    np.testing.assert_allclose(*by_id, atol=0.11 if quantised else 1e-4)


@given(st.integers(0, 1000), st.integers(1, 5), st.integers(1, 1280), st.booleans())
@settings(max_examples=20)
def test_the_likeliest_words_are_found_block_by_block_as_in_one_piece(seed, rows, k, ties):
    made = graph.Graph("top", quantised=False)
    top, ids = graph._likeliest(
        made, made.input("x", TensorProto.FLOAT, "N", 1280), made.input("k", TensorProto.INT64, 1), 1280
    )
    made.output(top, "top", TensorProto.FLOAT, "N", "K")
    made.output(ids, "ids", TensorProto.INT64, "N", "K")
    session = onnxruntime.InferenceSession(made.model().SerializeToString(), providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(seed)
    x = (rng.integers(-3, 4, (rows, 1280)) if ties else rng.normal(size=(rows, 1280))).astype(np.float32)
    found, places = session.run(None, {"x": x, "k": np.array([k])})
    np.testing.assert_array_equal(found, -np.sort(-x, axis=1)[:, :k])
    np.testing.assert_array_equal(np.take_along_axis(x, places, axis=1), found)
    assert all(len(set(row)) == k for row in places.tolist())


def test_no_size_is_frozen(tmp_path):
    ours, theirs = engines("lstm", "dot", False, "two ways", tmp_path)
    rng = np.random.default_rng(1)
    for rows, longest in ((1, 1), (1, 50), (17, 9), (64, 3)):
        lengths = rng.integers(1, longest + 1, rows)
        src = rng.integers(3, 20, (rows, longest))
        found = []
        for engine in (ours, theirs):
            memory, state = engine.encode(src, lengths)
            out = engine.step(np.full(rows, 1), state, memory, 5)
            found.append(engine.step(out.ids[:, 0], out.state, memory, 3))
        np.testing.assert_array_equal(found[0].ids, found[1].ids)
        np.testing.assert_allclose(found[0].log_probs, found[1].log_probs, atol=1e-4)
    rows = np.array([2, 0, 0])
    memory, state = ours.encode(src, lengths)
    picked = ours.step(np.array([5, 6, 7]), state.select(rows), memory.select(rows), 2)
    assert picked.ids.shape == (3, 2)


# --- folders -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("export")
    words = ["one two", "two three", "three one", "four", "one four two"] * 8
    lines = [f"{text}\t{' '.join(reversed(text.split()))}" for text in words]
    (folder / "pairs.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    knobs = {
        "data": {"tokenizer": "word", "vocabulary": 50},
        "model": {"embedding": 8, "hidden": 12, "encoder_hidden": 8, "dropout": 0.0},
        "train": {"max_updates": 30, "warmup": 2},
    }
    antiphon.train(folder / "pairs.tsv", out=folder / "run", knobs=knobs)
    return folder / "run"


@pytest.fixture(scope="module")
def exported(run: Path) -> Path:
    made = export(run, run.parent / "exported")
    assert made.difference < 1e-4
    return made.folder


def test_an_exported_model_answers_as_the_run_does(run, exported):
    one, other = antiphon.load(run), antiphon.load(exported)
    texts = ["one two three", "four one", "", "what is this", "one " * 100]
    for mine, yours in zip(one.predict(texts), other.predict(texts), strict=True):
        assert (mine.text, mine.tokens, mine.truncated) == (yours.text, yours.tokens, yours.truncated)
        assert mine.score == pytest.approx(yours.score, abs=1e-4)
    pairs = [("one two", "two one"), ("four", "four four four")]
    assert one.score(pairs) == pytest.approx(other.score(pairs), abs=1e-3)
    assert "".join(other.stream("one two")) == other.predict("one two", beam=1).text
    batch, singles = other.predict(texts), [other.predict(text) for text in texts]
    assert [p.text for p in batch] == [p.text for p in singles]


def test_an_exported_model_needs_no_pytorch(exported):
    hidden = ["torch", "safetensors", "onnx", "matplotlib", "sacrebleu", "rapidfuzz", "babel"]
    code = (
        f"import sys\nfor name in {hidden}: sys.modules[name] = None\n"
        f"from antiphon.faces.cli import main\n"
        f"sys.exit(main(['predict', {str(exported)!r}, 'one two']) or main(['chat', {str(exported)!r}]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, encoding="utf-8", input="four\n", timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 2


def test_a_quantised_export_says_what_it_costs(run, tmp_path, monkeypatch):
    monkeypatch.setattr(graph, "SMALL", 1)
    plain = export(run, tmp_path / "plain")
    assert plain.losses is None
    monkeypatch.setattr(folder_of_export, "WORSE", 1.0)
    made = export(run, tmp_path / "int8", quantise="int8")
    before, after = made.losses
    assert before != after == pytest.approx(before, abs=0.2)
    assert 0 <= made.same <= 1
    assert antiphon.load(made.folder).predict("one two").source_tokens == ["one", "two", "</s>"]
    monkeypatch.setattr(folder_of_export, "WORSE", -1.0)
    with pytest.raises(FolderError, match="export without --quantize"):
        export(run, tmp_path / "refused", quantise="int8")
    assert not (tmp_path / "refused").exists()


@pytest.mark.parametrize(("fault", "told"), [(KeyboardInterrupt, KeyboardInterrupt), (OSError, SaveError)])
def test_an_export_that_is_interrupted_leaves_nothing(run, tmp_path, monkeypatch, fault, told):
    def interrupted(*_):
        raise fault

    monkeypatch.setattr(folder_of_export, "compare", interrupted)
    with pytest.raises(told):
        export(run, tmp_path / "half")
    assert not (tmp_path / "half").exists()


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("quantise", [None, "int8"])
def test_an_export_that_gives_no_numbers_is_refused(run, tmp_path, monkeypatch, quantise):
    monkeypatch.setattr(folder_of_export, "is_there", lambda *_: False)  # nothing to compare answers on
    scores = OnnxEngine.score
    monkeypatch.setattr(OnnxEngine, "score", lambda *asked: scores(*asked) * (np.nan if asked[2].size > 1 else 1))
    with pytest.raises(FolderError, match="differs from the run: by nan"):
        export(run, tmp_path / "out", quantise=quantise)
    assert not (tmp_path / "out").exists()


def test_more_memory_than_a_model_may_have_is_told(exported):
    code = (
        "import antiphon\nfrom antiphon.runtime import onnx_engine\nonnx_engine.MOST_MEMORY = 1 << 20\n"
        f"try: antiphon.load({str(exported)!r}).predict(['a b c d e f g'] * 20000)\n"
        "except antiphon.AntiphonError as error: print(repr(error))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", timeout=60)
    assert "more memory than a model may have" in done.stdout, done


def test_exporting_overwrites_nothing_and_leaves_nothing_half_done(run, exported, tmp_path):
    with pytest.raises(FolderError, match="exists already"):
        export(run, exported)
    with pytest.raises(FolderError, match="exported already"):
        export(exported, tmp_path / "again")
    broken = tmp_path / "broken"
    shutil.copytree(run, broken)
    (broken / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(FolderError, match="damaged weights"):
        export(broken, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command_exports(run, tmp_path):
    command = [sys.executable, "-m", "antiphon", "export", str(run), "--out", str(tmp_path / "m")]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=120)
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in (tmp_path / "m").iterdir()) == [
        "README.md",
        "config.json",
        "onnx",
        "tokenizer.json",
    ]
    again = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=120)
    assert again.returncode == 2
    assert again.stderr.startswith("error: the folder exists already")


# --- strangers -----------------------------------------------------------------------------------------------------


def copied(exported: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "copy"
    shutil.copytree(exported, folder)
    return folder


def graph_of(folder: Path) -> onnx.ModelProto:
    return onnx.load(folder / GRAPHS / STEP)


def refused(folder: Path, model: onnx.ModelProto, why: str) -> None:
    (folder / GRAPHS / STEP).write_bytes(model.SerializeToString())
    with pytest.raises(FolderError, match=why):
        antiphon.load(folder)


def test_strange_graphs_are_refused(exported, tmp_path):
    folder = copied(exported, tmp_path)
    model = graph_of(exported)
    tensor = model.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../../etc/passwd")
    refused(folder, model, "weights outside the file")

    model = graph_of(exported)
    model.graph.node.append(helper.make_node("ConstantOfShape", ["y"], ["giant"]))
    refused(folder, model, 'operator "ConstantOfShape"')

    model = graph_of(exported)
    model.graph.node.append(helper.make_node("Evil", ["y"], ["x"], domain="my.library"))
    refused(folder, model, 'operator "my.library.Evil"')

    model = graph_of(exported)
    inner = helper.make_graph([], "inner", [], [])
    model.graph.node.append(helper.make_node("Identity", ["y"], ["x"], body=inner))
    refused(folder, model, "a graph inside a node")

    model = graph_of(exported)
    deeper = helper.make_node("Scan", ["y"], ["x"], body=inner, num_scan_inputs=1)
    body = helper.make_graph([deeper], "body", [], [])
    model.graph.node.append(helper.make_node("Scan", ["y"], ["x"], body=body, num_scan_inputs=1))
    refused(folder, model, "a graph inside a node")

    model = graph_of(exported)
    giant = numpy_helper.from_array(np.zeros(4, np.float32), "giant")
    giant.dims[0] = 1 << 40
    model.graph.initializer.append(giant)
    refused(folder, model, "an axis of 1,099,511,627,776")

    model = graph_of(exported)
    sparse = numpy_helper.from_array(np.zeros(4, np.float32), "sparse")
    del sparse.dims[:]
    sparse.dims.extend([90, 90, 90])
    model.graph.initializer.append(sparse)
    refused(folder, model, "larger than what the file holds")

    (folder / GRAPHS / STEP).unlink()
    with pytest.raises(FolderError, match="cannot be read"):
        antiphon.load(folder)


def test_a_graph_that_grows_without_end_gets_no_more_memory_than_is_allowed(exported, tmp_path):
    folder = copied(exported, tmp_path)
    model = graph_of(exported)
    grown = "mask"
    for number in range(40):  # 2 bytes, doubled 40 times
        model.graph.node.insert(number, helper.make_node("Concat", [grown, grown], [f"grown{number}"], axis=0))
        grown = f"grown{number}"
    model.graph.node.insert(40, helper.make_node("Cast", [grown], ["giant"], to=TensorProto.FLOAT))
    model.graph.node.append(helper.make_node("ReduceMax", ["giant"], ["one"], keepdims=1))
    model.graph.output.append(helper.make_tensor_value_info("one", TensorProto.FLOAT, None))
    (folder / GRAPHS / STEP).write_bytes(model.SerializeToString())
    code = (
        "import antiphon\nfrom antiphon.runtime import onnx_engine\nonnx_engine.MOST_MEMORY = 1 << 28\n"
        f"try: antiphon.load({str(folder)!r})\nexcept antiphon.AntiphonError as error: print(error)\n"
        "print(next(line for line in open('/proc/self/status') if line.startswith('VmHWM')).split()[1])"
    )  # not getrusage: to it a child has used what the process that started it had used
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", timeout=60)
    told, kilobytes = done.stdout.splitlines()
    assert "do not fit" in told
    assert int(kilobytes) < 700 << 10


def test_graphs_of_another_model_are_told(exported, tmp_path):
    folder = copied(exported, tmp_path)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    shutil.copyfile(folder / GRAPHS / ENCODER, folder / GRAPHS / STEP)
    with pytest.raises(FolderError, match="do not fit"):
        antiphon.load(folder)
    assert config["model"]["hidden"] == 12


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_graph_is_an_error_or_an_answer(exported, data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("damaged") / "copy"
    shutil.copytree(exported, folder)
    victim = folder / GRAPHS / data.draw(st.sampled_from([ENCODER, STEP]))
    content = bytearray(victim.read_bytes())
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    for _ in range(data.draw(st.integers(1, 4))):
        if content:
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    victim.write_bytes(content)
    with contextlib.suppress(AntiphonError):  # anything else, and any crash, fails
        antiphon.load(folder).predict("one two", max_length=5)
    shutil.rmtree(folder)


# --- the bundled model ---------------------------------------------------------------------------------------------


def test_the_bundled_model_reads_dates_without_pytorch():
    code = (
        "import sys\nfor name in ['torch', 'safetensors', 'onnx', 'babel']: sys.modules[name] = None\n"
        "from antiphon.faces.cli import main\n"
        "sys.exit(main(['predict', 'dates', '3 de mayo de 1979', 'Montag, den 11. Juli 2033', '4 сентября 2095 года']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", timeout=60)
    assert done.stdout.split() == ["1979-05-03", "2033-07-11", "2095-09-04"], done.stderr


def chatted(*words: str, lines: str, before: str = "") -> subprocess.CompletedProcess[str]:
    """`antiphon chat` in a process in which PyTorch is not installed."""
    code = (
        "import sys\nfor name in ['torch', 'safetensors', 'onnx', 'babel', 'sqlalchemy']: sys.modules[name] = None\n"
        f"{before}\nfrom antiphon.faces.cli import main\nsys.exit(main(['chat', *{words!r}]))"
    )
    command = [sys.executable, "-c", code]
    return subprocess.run(command, input=lines, capture_output=True, encoding="utf-8", timeout=60)


@pytest.mark.skipif(BOT not in bundled(), reason="no bot is bundled yet")
def test_without_a_model_the_bundled_bot_talks_and_says_what_it_is():
    done = chatted("--seed", "1", lines="hello , how are you ?\nwhat is your favourite film ?\n")
    assert done.returncode == 0, done.stderr
    assert len([line for line in done.stdout.splitlines() if line.strip()]) == 2
    assert done.stderr.startswith(introduction(bundled()[BOT]))


def test_a_bundled_model_is_introduced_by_its_card_and_another_is_not(exported):
    done = chatted("dates", lines="3 de mayo de 1979\n")
    assert done.stdout == "1979-05-03\n", done.stderr
    assert "A recurrent sequence-to-sequence model" in done.stderr.splitlines()[0]
    (exported / "README.md").write_text("# x\n\nI am your bank.\n", encoding="utf-8")
    assert "bank" not in chatted(str(exported), lines="one\n").stderr


def test_a_copy_without_a_bot_says_so(monkeypatch):
    monkeypatch.setattr(shelf, "bundled", dict)
    with pytest.raises(UsageError, match="which model"):
        shelf.bot()


def test_bundled_models_are_small_and_a_folder_of_the_name_wins(exported, tmp_path, monkeypatch):
    assert "dates" in bundled()
    for name, folder in bundled().items():
        most = 12e6 if name == BOT else 4e6
        assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < most
        assert len(introduction(folder)) > 20
    monkeypatch.chdir(tmp_path)
    Path("dates").mkdir()  # such as the corpus: no model
    assert antiphon.load("dates").folder == bundled()["dates"]
    Path("dates").rmdir()
    shutil.copytree(exported, "dates")
    assert antiphon.load("dates").folder == Path("dates")
    with pytest.raises(FolderError, match="no such folder"):
        antiphon.load("no-such-model")
