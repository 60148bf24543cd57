"""Laws that every cell, attention and decoder keeps."""

from __future__ import annotations

import gc
import itertools
import os
import platform
import re
import shutil
import subprocess
import sys
import weakref
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from antiphon.config import Config, ModelConfig, TrainConfig
from antiphon.data.batches import make_batch
from antiphon.nn import deferred, kernels, products
from antiphon.nn.attention import Attention
from antiphon.nn.deferred import LoopTanh
from antiphon.nn.engine import TorchEngine
from antiphon.nn.packing import Packing
from antiphon.nn.recurrent import RecurrentLayer
from antiphon.nn.seq2seq import Seq2Seq
from antiphon.nn.softmax import LogUniformSampler, full_log_probs, full_loss, sampled_loss
from antiphon.search import greedy
from antiphon.training.loss import batch_loss
from antiphon.training.optimizer import Optimizer

CELLS = ["gru", "lstm"]
ATTENTIONS = ["additive", "dot", "general", "multihead"]
WAYS = [*itertools.product(["none", *ATTENTIONS], [False, True]), ("monotonic", False)]
"""Attention, and whether the context is fed."""
SHAPES = {
    "two ways": {},
    "one way": {"bidirectional": False},
    "shared": {"bidirectional": False, "share_rnn": True},
    "carried": {"encoder_hidden": 6},  # what is read is as wide as an embedding
    "copied": {"bidirectional": False, "bridge": "copy"},
    "normed": {"layer_norm": True, "residual": False, "decoder_layers": 1, "features": "tanh"},
}
EVERY = [(cell, *way, shape) for cell, way, shape in itertools.product(CELLS, WAYS, SHAPES)]

SRC = torch.tensor([[5, 6, 7, 2], [8, 2, 0, 0], [9, 4, 2, 0]])
SRC_LEN = torch.tensor([4, 2, 3])
# 19, the last word, moves a monotonic decoder's pointer, which in the second row has nowhere to go in the end
TGT_IN = torch.tensor([[1, 5, 19, 8], [1, 19, 19, 0], [1, 0, 0, 0]])
TGT_OUT = torch.tensor([[5, 19, 8, 2], [19, 19, 2, 0], [2, 0, 0, 0]])


def make(cell: str, attention: str, feed: bool, shape: str) -> Seq2Seq:
    torch.manual_seed(3)
    knobs = {"embedding": 12, "hidden": 16, "dropout": 0.0, **SHAPES[shape]}
    config = ModelConfig(cell=cell, attention=attention, feed=feed, **knobs)
    return Seq2Seq(config, source_vocabulary=20, target_vocabulary=20).eval()


def gradients(model: Seq2Seq, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def training_loss(model: Seq2Seq) -> torch.Tensor:
    features, packing = model.features(SRC, SRC_LEN, TGT_IN)
    targets = TGT_OUT.flatten()[packing.order]
    return full_loss(features, targets, packing.real, model.softmax_weight, model.softmax_bias.squeeze(1), 0.0)[0]


def stepwise(model: Seq2Seq, src, src_len, tgt_in, tgt_out) -> torch.Tensor:
    """log P as the search computes it, one step after the other."""
    memory, state = model.encode(src, src_len)
    found = []
    for t in range(tgt_in.shape[1]):
        logits, _, state = model.step(tgt_in[:, t], state, memory)
        found.append(torch.log_softmax(logits, dim=1).gather(1, tgt_out[:, t : t + 1]))
    return torch.cat(found, dim=1) * (tgt_out != 0)


@pytest.mark.parametrize(("cell", "attention", "feed", "shape"), EVERY)
def test_training_and_search_compute_the_same_and_have_the_same_gradient(cell, attention, feed, shape):
    model = make(cell, attention, feed, shape)
    at_once = model.log_probs(SRC, SRC_LEN, TGT_IN, TGT_OUT)
    steps = stepwise(model, SRC, SRC_LEN, TGT_IN, TGT_OUT)
    torch.testing.assert_close(at_once, steps, atol=1e-5, rtol=1e-5)
    ours, theirs = (
        gradients(model, training_loss(model)),
        gradients(model, -stepwise(model, SRC, SRC_LEN, TGT_IN, TGT_OUT).sum()),
    )
    assert ours.keys() == theirs.keys()
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], atol=2e-5, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}")


@pytest.mark.parametrize(("cell", "attention", "feed", "shape"), EVERY)
def test_padding_changes_nothing_and_a_batch_equals_its_singles(cell, attention, feed, shape):
    model = make(cell, attention, feed, shape)
    padded = torch.nn.functional.pad
    batch = model.log_probs(SRC, SRC_LEN, TGT_IN, TGT_OUT)
    wider = model.log_probs(padded(SRC, (0, 3)), SRC_LEN, padded(TGT_IN, (0, 2)), padded(TGT_OUT, (0, 2)))
    torch.testing.assert_close(batch, wider[:, :4], atol=1e-5, rtol=1e-5)
    assert not wider[:, 4:].any()
    for row in range(3):
        s, t = int(SRC_LEN[row]), int((TGT_OUT[row] != 0).sum())
        one = model.log_probs(
            SRC[row : row + 1, :s], SRC_LEN[row : row + 1], TGT_IN[row : row + 1, :t], TGT_OUT[row : row + 1, :t]
        )
        torch.testing.assert_close(batch[row : row + 1, :t], one, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("attention", "feed"), WAYS)
def test_the_order_of_rows_changes_nothing(attention, feed):
    model = make("gru", attention, feed, "one way")
    back = torch.tensor([2, 1, 0])
    forward = model.log_probs(SRC, SRC_LEN, TGT_IN, TGT_OUT)
    turned = model.log_probs(SRC[back], SRC_LEN[back], TGT_IN[back], TGT_OUT[back])
    torch.testing.assert_close(forward, turned[back], atol=1e-5, rtol=1e-5)


def test_a_monotonic_decoder_looks_where_its_marks_lead_and_never_beyond_the_end():
    model = make("lstm", "monotonic", False, "two ways")
    memory, state = model.encode(SRC, SRC_LEN)
    looks = []
    for t in range(4):
        _, weights, state = model.step(TGT_IN[:, t], state, memory)
        looks.append(weights.argmax(dim=1).tolist())
        assert (weights.sum(dim=1) == 1).all()
    assert [row[0] for row in looks] == [0, 0, 1, 1]
    assert [row[1] for row in looks] == [0, 1, 1, 1]


LENGTHS = torch.tensor([4, 1, 6, 5])


def by_library(layer: RecurrentLayer, x: torch.Tensor, start: tuple[torch.Tensor, ...]):
    packed = torch.nn.utils.rnn.pack_padded_sequence(x, LENGTHS, batch_first=True, enforce_sorted=False)
    parts = tuple(part.unsqueeze(0) for part in start)
    outputs, last = layer.rnn(packed, parts if layer.cell == "lstm" else parts[0])
    outputs, _ = torch.nn.utils.rnn.pad_packed_sequence(outputs, batch_first=True, total_length=x.shape[1])
    return outputs, tuple(part[0] for part in (last if layer.cell == "lstm" else (last,)))


def by_sequence(layer: RecurrentLayer, x: torch.Tensor, start: tuple[torch.Tensor, ...]):
    packing = Packing(LENGTHS, x.shape[1])
    outputs, state = layer.sequence(packing.pack(x), start, packing)
    return packing.unpack(outputs), state


def by_steps(layer: RecurrentLayer, x: torch.Tensor, start: tuple[torch.Tensor, ...]):
    step, state, outputs = layer.stepper(), start, []
    for t, now in enumerate(x.unbind(1)):
        alive = torch.gt(LENGTHS, t).unsqueeze(1)
        state = tuple(torch.where(alive, new, old) for new, old in zip(step(now, state), state, strict=True))
        outputs.append(torch.where(alive, state[0], torch.zeros(())))
    return torch.stack(outputs, 1), state


@pytest.mark.parametrize("way", ["all steps at once", "a kernel a step", "torch"])
@pytest.mark.parametrize("cell", CELLS)
def test_our_layers_and_steps_are_the_librarys(cell, way, monkeypatch):
    if way == "torch":
        monkeypatch.setattr(kernels, "_library", lambda: None)
    if way == "a kernel a step":
        monkeypatch.setattr(kernels, "_has_layer", lambda cell, number: False)
    torch.manual_seed(0)
    layer = RecurrentLayer(cell, 5, 7)
    for parameter in layer.parameters():
        parameter.data.normal_(0, 0.5)
    x = torch.randn(4, 6, 5, requires_grad=True)
    start = tuple(torch.randn(4, 7, requires_grad=True) for _ in layer.zeros(4))
    weight, ends = torch.randn(4, 6, 7), [torch.randn(4, 7) for _ in start]
    results = []
    for road in (by_library, by_sequence, by_steps):
        layer.zero_grad()
        for leaf in (x, *start):
            leaf.grad = None
        outputs, state = road(layer, x, start)
        loss = (outputs * weight).sum() + sum((part * end).sum() for part, end in zip(state, ends, strict=True))
        loss.backward()
        leaves = [leaf.grad.clone() for leaf in (x, *start, *layer.parameters())]
        results.append([outputs.detach(), *(part.detach() for part in state), *leaves])
    for library, sequence, steps in zip(*results, strict=True):
        torch.testing.assert_close(sequence, library, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(steps, library, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("cell", CELLS)
def test_a_row_without_positions_keeps_its_state(cell):
    torch.manual_seed(0)
    layer = RecurrentLayer(cell, 5, 7)
    x = torch.randn(4, 2, 5)
    start = tuple(torch.randn(4, 7, requires_grad=True) for _ in layer.zeros(4))
    packing = Packing(torch.tensor([0, 2, 0, 1]), 2)
    outputs, state = layer.sequence(packing.pack(x), start, packing)
    torch.testing.assert_close(state[-1][[0, 2]], start[-1][[0, 2]])
    (outputs[: packing.real].sum() + state[-1].sum()).backward()
    torch.testing.assert_close(start[-1].grad[[0, 2]], torch.ones(2, 7))
    assert not packing.unpack(outputs)[0].any()


@pytest.mark.parametrize("cell", CELLS)
def test_products_in_bf16_stay_near_those_in_f32(cell):
    torch.manual_seed(0)
    layer = RecurrentLayer(cell, 32, 48)
    x = torch.randn(4, 6, 32)
    start, found = layer.zeros(4), []
    for enabled in (False, True):
        layer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            outputs, state = by_sequence(layer, x, start)
        (outputs.float().sum() + state[0].sum()).backward()
        found.append([outputs.float().detach(), state[-1].detach(), *(p.grad.clone() for p in layer.parameters())])
    for exact, rough in zip(*found, strict=True):
        assert float((exact - rough).norm() / exact.norm()) < 0.02


@pytest.mark.parametrize("hidden", [16, 32, 50, 100])
def test_all_steps_of_a_layer_in_one_call_are_the_loop(hidden, monkeypatch):
    if not kernels._has_layer("lstm", torch.zeros(1, dtype=torch.bfloat16)):
        pytest.skip("this processor has neither AMX nor AVX512_BF16")
    torch.manual_seed(0)
    layer = RecurrentLayer("lstm", 24, hidden)
    lengths = torch.tensor([3, 7, 1, 40, 0, 7, *range(1, 34)])
    x = torch.randn(len(lengths), 40, 24)
    start = tuple(torch.randn(len(lengths), hidden, requires_grad=True) for _ in range(2))
    packing, found = Packing(lengths, 40), []
    weight, end = torch.randn(packing.size, hidden), torch.randn(len(lengths), hidden)
    for at_once in (True, False):
        if not at_once:
            monkeypatch.setattr(kernels, "_has_layer", lambda cell, number: False)
        layer.zero_grad()
        for part in start:
            part.grad = None
        with torch.autocast("cpu", torch.bfloat16):
            outputs, state = layer.sequence(packing.pack(x), start, packing)
        ((outputs.float() * weight)[: packing.real].sum() + (state[1] * end).sum()).backward()
        grads = [leaf.grad.clone() for leaf in (*start, *layer.parameters())]
        found.append([outputs.detach().float()[: packing.real], state[1].detach(), *grads])
    for one, other in zip(*found, strict=True):
        assert float((one - other).norm() / other.norm()) < 0.01


@pytest.mark.parametrize("rows", [1, 2, 5, 12, 31])
@pytest.mark.parametrize("outputs", [1, 17, 64, 75])
def test_a_matrix_laid_out_for_a_loop_multiplies_as_it_did(rows, outputs):
    torch.manual_seed(0)
    x = torch.randn(29, 2 * rows).t()[::2]  # a view that is not contiguous
    for weight in (torch.randn(outputs, 29), torch.randn(29, outputs).t()):
        torch.testing.assert_close(products.LoopProduct(weight)(x), x @ weight.t(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("rows", [1, 15, 16, 33, 960])
@pytest.mark.parametrize("columns", [1, 7, 16, 64, 130])
def test_a_matrix_is_turned_over_number_by_number(rows, columns):
    matrix = torch.arange(float(rows * columns)).view(rows, columns)
    assert torch.equal(kernels.transposed(matrix), matrix.t())


@pytest.mark.skipif(not hasattr(torch.ops.mkldnn, "_linear_pointwise"), reason="PyTorch without oneDNN")
def test_products_are_the_same_by_whichever_library(monkeypatch):
    torch.manual_seed(0)
    layer, x = products.Linear(24, 40), torch.randn(3, 5, 24, requires_grad=True)
    a, b = torch.randn(40, 24), torch.randn(24, 7)

    def results():
        layer.zero_grad()
        x.grad = None
        out = layer(x)
        out.sin().sum().backward()
        plain = [products.product(a, b), products.product(b.t(), a.t())]
        return [*plain, out.detach(), x.grad, layer.weight.grad, layer.bias.grad]

    found = []
    for leads in (True, False):
        monkeypatch.setattr(products, "onednn_leads", lambda leads=leads: leads)
        found.append(results())
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


@pytest.mark.skipif(not kernels.compiled(), reason=f"no C kernels here: {kernels.missing()}")
@pytest.mark.parametrize("number", [torch.float32, torch.bfloat16])
def test_the_c_kernels_equal_pytorchs_operations(number, monkeypatch):
    torch.manual_seed(0)
    rows, hidden, size = 5, 33, 203

    def results():
        torch.manual_seed(1)
        found = []
        for cell, gates in (("gru", 3), ("lstm", 4)):
            a, b = (torch.randn(rows, gates * hidden).mul_(3).to(number) for _ in range(2))
            bias, before = torch.randn(4 * hidden), torch.randn(rows, hidden)
            noted, now, h = (
                torch.empty(rows, 4 * hidden, dtype=number),
                torch.empty(rows, hidden),
                a[:, :hidden].clone(),
            )
            kernels.cell_forward(cell, a, b, bias, before, noted, now, h)
            d_h, d_state = torch.randn(rows, hidden).to(number), torch.randn(rows - 2, hidden).to(number)
            d_now, d_a = torch.randn(rows, hidden), torch.empty_like(a)
            d_b = torch.empty_like(a) if cell == "gru" else d_a
            kernels.cell_backward(cell, noted, before, now, d_h, d_state, rows - 2, d_now, d_a, d_b)
            found += [noted, now, h, d_now, d_a, d_b]
        products, targets = torch.randn(rows, size).mul_(5).to(number), torch.randint(0, size, (rows,))
        found += [*kernels.cross_entropy(products, torch.randn(size), targets, 0.1, gradient=True), products]
        table, grad, touched = torch.randn(4, 9, 7), torch.randn(rows, 7), torch.tensor([8, 0, 3, 5, 1])
        table[2] = table[2].abs()
        weights, first, second, means = table.unbind()
        for average in (None, (means, torch.rand(rows), 0.9)):
            moments = first, second
            knobs = {"rate": 0.1, "betas": (0.9, 0.98), "update": 3, "idle": torch.tensor([2, 0, 1, 9, 0])}
            kernels.adam_rows(touched, grad, weights, moments, average=average, **knobs)
        found.append(table)
        table, grad = torch.randn(4, 9, 7), torch.randn(9, 7).to(number)
        table[2] = table[2].abs()
        weights, first, second, means = table.unbind()
        rounded = torch.empty(9, 7, dtype=torch.bfloat16)
        for average in (None, (means, 0.9)):
            knobs = {"factor": 0.3, "rate": 0.1, "betas": (0.9, 0.98), "weight_decay": 0.2, "update": 3}
            kernels.adam(grad, weights, (first, second), average=average, rounded=rounded, **knobs)
            assert torch.equal(rounded, weights.bfloat16())
        found.append(table)
        q, keys, score = torch.randn(rows, 3, 9), torch.randn(rows, 4, 9), torch.randn(9)
        mask = torch.arange(4) < torch.tensor([[4], [1], [3], [2], [4]])
        d_keys, d_score = torch.zeros(rows, 4, 9), torch.zeros(rows, 9)
        scores = kernels.tanh_scores(q, keys, score, mask)
        d_q = kernels.tanh_scores_backward(q, keys, score, mask, torch.randn(rows, 3, 4), d_keys, d_score)
        found += [scores, d_q, d_keys, d_score]
        for width in (9, 300):  # within a block of the kernel's sums, and beyond
            keys = torch.randn(rows, 4, width).to(number)
            found += [kernels.compare(torch.randn(width, 1, rows).to(number).transpose(0, 2), keys)]  # a view
            found += [kernels.read(torch.rand(rows, 1, 4).to(number), keys)]
            found += [
                kernels.column_sums(keys.flatten(0, 1)),
                kernels.take_rows(keys[:, 0], torch.tensor([3, -1, 0, 3])),
            ]
        many = [torch.randn(70_000), torch.randn(3, 5).to(number)]
        return [*found, torch.tensor(kernels.norm(many)) / 300]

    ours = results()
    monkeypatch.setattr(kernels, "_library", lambda: None)
    near = {"atol": 1e-5, "rtol": 1e-5} if number == torch.float32 else {"atol": 0.02, "rtol": 0.02}
    for one, other in zip(ours, results(), strict=True):
        torch.testing.assert_close(one, other, **near)


def test_without_a_compiler_training_says_so_and_goes_on(tmp_path):
    code = (
        "import os; os.environ['PATH'] = '/nowhere'; os.environ.pop('CC', None)\n"
        "from antiphon.nn import kernels\n"
        "print(kernels.compiled(), kernels.missing())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "False no C compiler; install gcc, or set CC"
    code = code.replace("'/nowhere'", f"{str(tmp_path)!r}")
    broken = tmp_path / "cc"
    broken.write_text("#!/bin/sh\necho this compiler is broken >&2\nexit 1\n", encoding="utf-8")
    broken.chmod(0o755)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == f"False {broken} failed: this compiler is broken"


@pytest.mark.skipif(not kernels.compiled(), reason=f"no C kernels here: {kernels.missing()}")
def test_a_damaged_library_is_built_again(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    compiler = [shutil.which("cc") or shutil.which("gcc") or ""]
    source = resources.files("antiphon.nn").joinpath("kernels.c").read_text(encoding="utf-8")
    flags = [*kernels._FLAGS, *kernels._machine_flags()]
    key = kernels._key(source, compiler, flags)
    assert key != kernels._key(source, [*compiler, "-O0"], flags)
    path = next(kernels._caches()) / f"kernels-{key}.so"
    whole = Path(kernels._library()._name).read_bytes()
    path.write_bytes(whole[: len(whole) // 2])  # to load it would end the process
    path.with_suffix(".sum").write_text(kernels._sum(path)[::-1])
    assert kernels._loaded(compiler).has_lstm_layer() in (0, 1)
    assert kernels._whole(path)


def test_where_the_cache_cannot_be_written_there_is_one_other_place(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert list(kernels._caches()) == [tmp_path / f"antiphon-{os.getuid()}"]
    (tmp_path / f"antiphon-{os.getuid()}").rmdir()
    (tmp_path / f"antiphon-{os.getuid()}").symlink_to(tmp_path)
    [folder] = kernels._caches()
    assert folder.parent == tmp_path
    assert not folder.is_symlink(), "a link may be somebody else's"


@pytest.mark.skipif(not kernels.compiled(), reason=f"no C kernels here: {kernels.missing()}")
def test_small_probabilities_are_as_exact_as_large_ones():
    far = -torch.linspace(0, 86, 20_001, dtype=torch.float64)
    products = torch.stack((torch.zeros_like(far), far), dim=1).float().contiguous()
    exact = products[:, 1].double().sigmoid()
    kernels.cross_entropy(products, torch.zeros(2), torch.zeros(len(far), dtype=torch.int64), 0.0, gradient=True)
    native = "-march=native" in kernels._machine_flags() and " fma " in Path("/proc/cpuinfo").read_text()
    fused = native or "-march=x86-64-v3" in kernels._machine_flags() or platform.machine() in ("aarch64", "arm64")
    assert float((products[:, 1].double() / exact - 1).abs().max()) < (6e-7 if fused else 6e-6)


@pytest.mark.skipif(not kernels.compiled(), reason=f"no C kernels here: {kernels.missing()}")
@pytest.mark.skipif(shutil.which("objdump") is None, reason="no objdump")
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="a limit of x86 instructions")
def test_a_limit_of_instructions_holds_for_kernels_and_precision(tmp_path):
    code = (
        "from antiphon.nn import kernels\n"
        "from antiphon.training.precision import choose_precision\n"
        "library = kernels._library()\n"
        "print(library._name, library.has_lstm, choose_precision('auto'))"
    )
    environment = {**os.environ, "ATEN_CPU_CAPABILITY": "avx2", "XDG_CACHE_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=environment)
    library, amx, precision = done.stdout.split()
    assert (amx, precision) == ("False", "f32")
    listing = subprocess.run(["objdump", "-d", library], capture_output=True, text=True, timeout=60, check=True).stdout
    assert "%ymm" in listing
    assert not re.search(r"%(zmm|tmm|k[1-7])", listing)


def test_what_is_not_finite_is_not_hidden_by_the_kernels():
    products = torch.zeros(2, 40)
    products[1, 7] = float("nan")
    nats, _ = kernels.cross_entropy(products, torch.zeros(40), torch.zeros(2, dtype=torch.int64), 0.0, gradient=False)
    assert bool(torch.isfinite(nats[0]))
    assert bool(torch.isnan(nats[1]))
    layer = RecurrentLayer("lstm", 3, 8)
    x = torch.tensor([[[0.0, float("nan"), 0.0]]])
    assert bool(torch.isnan(layer.sequence(x[0], layer.zeros(1), Packing(torch.tensor([1]), 1))[0][0]).all())


@given(st.lists(st.integers(0, 9), min_size=1, max_size=12).filter(any))
def test_packing_keeps_every_real_position_and_nothing_else(lengths):
    packing = Packing(torch.tensor(lengths), 9)
    assert packing.real == sum(lengths)
    x = torch.arange(1.0, len(lengths) * 9 + 1).view(len(lengths), 9, 1)
    real = (torch.arange(9) < torch.tensor(lengths).unsqueeze(1)).unsqueeze(2)
    torch.testing.assert_close(packing.unpack(packing.pack(x)), x * real)
    order = packing.reversal()
    turned = packing.unpack(packing.reorder(packing.pack(x), order))
    for row, length in enumerate(lengths):
        assert turned[row, :length].tolist() == x[row, :length].flip(0).tolist()
        if length:
            assert packing.pack(x)[packing.last[row]] == x[row, length - 1]
    rows = torch.arange(len(lengths))
    assert packing.by_row(packing.by_rank(rows)).tolist() == rows.tolist()
    assert packing.by_rank(torch.tensor(lengths)).tolist() == sorted(lengths, reverse=True)


def test_additive_scores_are_the_papers():
    torch.manual_seed(0)
    q, k, v = (torch.randn(*shape, requires_grad=True) for shape in ((2, 3, 4), (2, 5, 4), (4,)))
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    keys = LoopTanh(k, v, mask)
    ours = keys.compare(q, keys.open())
    plain = (torch.tanh(q.unsqueeze(2) + k.unsqueeze(1)) @ v).masked_fill(~mask.unsqueeze(1), 0.0)
    torch.testing.assert_close(ours, plain)
    weight = torch.randn(2, 3, 5)
    for one, other in zip(
        torch.autograd.grad((ours * weight).sum(), (q, k, v)),
        torch.autograd.grad((plain * weight).sum(), (q, k, v)),
        strict=True,
    ):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ATTENTIONS)
def test_attention_weights_sum_to_one_and_never_fall_on_padding(kind):
    torch.manual_seed(0)
    attention = Attention(ModelConfig(attention=kind, hidden=16, heads=4), 16)
    mask = torch.tensor([[True] * 5, [True, False, False, False, False]])
    context, weights = attention(
        torch.randn(2, 3, 16), attention.memory(torch.randn(2, 5, 16), torch.randn(2, 5, 16), mask)
    )
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 3))
    assert not weights[1, :, 1:].any()
    assert context.shape == (2, 3, 16)


def test_what_a_loop_notes_is_freed_with_it():
    model = make("gru", "additive", True, "one way")
    notes = []
    original = deferred.Shared.open
    try:
        deferred.Shared.open = lambda self: (notes.append(weakref.ref(self)), original(self))[1]
        training_loss(model).backward()
        training_loss(model)  # never differentiated
    finally:
        deferred.Shared.open = original
    gc.collect()
    assert len(notes) > 5
    assert not [note for note in notes if note() is not None]


# --- softmax -------------------------------------------------------------------------------------------------------


def test_full_loss_without_smoothing_is_the_log_likelihood():
    torch.manual_seed(0)
    features, weight, bias = torch.randn(7, 4), torch.randn(11, 4), torch.randn(11)
    targets = torch.randint(0, 11, (7,))
    loss, nats = full_loss(features, targets, 7, weight, bias, 0.0)
    torch.testing.assert_close(loss, -full_log_probs(features, targets, weight, bias).sum())
    smoothed, same = full_loss(features, targets, 7, weight, bias, 0.1)
    torch.testing.assert_close(same, nats)
    reference = torch.nn.functional.cross_entropy(
        features @ weight.t() + bias, targets, label_smoothing=0.1, reduction="sum"
    )
    torch.testing.assert_close(smoothed, reference)


def test_consistency_is_the_divergence_of_twins_and_its_gradient():
    torch.manual_seed(0)
    leaves = [torch.randn(*shape, requires_grad=True) for shape in ((7, 4), (11, 4), (11,))]
    features, weight, bias = leaves
    targets = torch.randint(0, 11, (7,))
    loss, _ = full_loss(features, targets, 6, weight, bias, 0.1, 3.0)  # three twins, and a place that does not count
    loss.backward()
    logits = (features @ weight.t() + bias)[:6]
    plain = torch.nn.functional.cross_entropy(logits, targets[:6], label_smoothing=0.1, reduction="sum")
    one, two = torch.log_softmax(logits, 1).view(3, 2, 11).unbind(1)
    apart = sum(torch.nn.functional.kl_div(p, q, log_target=True, reduction="sum") for p, q in ((one, two), (two, one)))
    expected = plain + 3.0 * apart / 2
    torch.testing.assert_close(loss, expected)
    for leaf, gradient in zip(leaves, torch.autograd.grad(expected, leaves), strict=True):
        torch.testing.assert_close(leaf.grad, gradient)


@given(st.lists(st.integers(1, 6), min_size=1, max_size=7))
def test_twins_stay_side_by_side_when_packed(lengths):
    doubled = torch.tensor(lengths).repeat_interleave(2)
    packing = Packing(doubled, 6)
    places = packing.order[: packing.real].view(-1, 2)
    rows, steps = places // 6, places % 6
    assert (rows[:, 0] // 2 == rows[:, 1] // 2).all()
    assert (steps[:, 0] == steps[:, 1]).all()


@pytest.mark.parametrize("attention", ["none", "additive", "multihead"])
def test_without_dropout_twins_agree_and_the_loss_is_that_of_one(attention):
    sizes = {"hidden": 8, "embedding": 8, "heads": 2, "tied": "target", "attention": attention, "dropout": 0.0}
    torch.manual_seed(0)
    model = Seq2Seq(ModelConfig.model_validate(sizes), source_vocabulary=9, target_vocabulary=9)
    batch = make_batch([[4, 5], [4], [8, 8]], [[6], [5, 7, 8], []], (4, 4))
    found = {}
    for times in (0.0, 5.0):
        model.zero_grad()
        config = Config.model_validate({"model": sizes, "train": {"consistency": times}})
        loss, nats, tokens = batch_loss(model, batch, config, precision="f32", sampler=None, update=0)
        loss.backward()
        found[times] = [loss.detach(), torch.tensor(nats), torch.tensor(tokens), *(p.grad for p in model.parameters())]
    torch.testing.assert_close(found[0.0], found[5.0])


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_an_untrained_model_expects_words_as_common_as_they_are(smoothing):
    model = Seq2Seq(ModelConfig(hidden=8, embedding=8, heads=2), source_vocabulary=7, target_vocabulary=7)
    counts = np.array([0, 0, 6, 0, 3, 0, 1])
    model.expect(counts, smoothing)
    found = torch.softmax(model.softmax_bias[:, 0], 0)
    wanted = (1 - smoothing) * torch.tensor(np.maximum(counts, 0.5) / 10) + smoothing / 7
    torch.testing.assert_close(found, (wanted / wanted.sum()).float())


def test_sampling_every_word_is_the_full_softmax_with_corrected_logits():
    torch.manual_seed(0)
    vocabulary = 9
    leaves = [torch.randn(*shape, requires_grad=True) for shape in ((6, 4), (vocabulary, 4), (vocabulary, 1))]
    features, weight, bias = leaves
    log_expected = torch.randn(vocabulary)
    targets, every = torch.tensor([0, 3, 3, 8, 1, 7]), torch.arange(vocabulary)
    drawn = every, torch.cat((log_expected[targets], log_expected))
    loss, nats = sampled_loss(features, targets, 5, weight, bias, *drawn)  # the last of the six is a filler
    logits = features @ weight.t() + bias.squeeze(1) - log_expected
    reference = torch.nn.functional.cross_entropy(logits[:5], targets[:5], reduction="sum")
    torch.testing.assert_close(loss, reference)
    torch.testing.assert_close(nats, reference)
    wanted = torch.autograd.grad(2 * reference, leaves)
    for ours, theirs in zip(torch.autograd.grad(2 * loss, leaves), wanted, strict=True):
        torch.testing.assert_close(ours.to_dense(), theirs)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_a_full_softmax_that_samples_has_dense_gradients_and_smooths_over_what_was_drawn(smoothing):
    torch.manual_seed(0)
    leaves = [torch.randn(*shape, requires_grad=True) for shape in ((6, 4), (9, 4), (9, 1))]
    features, weight, bias = leaves
    log_expected = torch.randn(9)
    targets, sampled = torch.tensor([0, 3, 3, 8, 1, 7]), torch.arange(9)
    logits = features @ weight.t() + bias.squeeze(1) - log_expected
    # the true word is there twice, as itself and as one that was drawn and is taken out: both shares are its own
    truth = torch.nn.functional.one_hot(targets, 9).float()
    share = smoothing / 10 * (1 + truth) + (1 - smoothing) * truth
    reference = -(share * torch.log_softmax(logits, 1))[:5].sum()
    wanted = torch.autograd.grad(2 * reference, leaves)
    drawn = sampled, torch.cat((log_expected[targets], log_expected))
    loss, nats = sampled_loss(features, targets, 5, weight, bias, *drawn, smoothing, sparse=False)
    torch.testing.assert_close(nats, torch.nn.functional.cross_entropy(logits[:5], targets[:5], reduction="sum"))
    (2 * loss).backward()
    for leaf, theirs in zip(leaves, wanted, strict=True):
        torch.testing.assert_close(leaf.grad, theirs)


@pytest.mark.parametrize(
    ("softmax", "share", "smoothed"), [("full", 1.0, True), ("full", 0.1, True), ("sampled", None, False)]
)
def test_the_labels_are_smoothed_as_the_knob_says(softmax, share, smoothed):
    """By a full softmax over all words, and over those that are drawn, here all of them; by a sampled one not."""
    tree = {
        "data": {"share_vocabulary": False},
        "model": {"softmax": softmax, "tied": "none", "embedding": 8, "hidden": 8, "dropout": 0.0},
        "train": {"samples": 30, "sampled_until": 0.5 if softmax == "full" else 0.0, "label_smoothing": 0.3},
    }
    config = Config.model_validate(tree)
    torch.manual_seed(0)
    model = Seq2Seq(config.model, source_vocabulary=20, target_vocabulary=20)
    batch = make_batch([[5, 6], [7]], [[9, 10], [11]], (3, 3))
    sampler = LogUniformSampler(np.arange(20)[::-1].copy(), 1)
    loss, nats, tokens = batch_loss(model, batch, config, precision="f32", sampler=sampler, update=0, share=share)
    found = gradients(model, loss)
    src, src_len, tgt_in, tgt_out = map(torch.from_numpy, (batch.src, batch.src_len, batch.tgt_in, batch.tgt_out))
    features, packing = model.features(src, src_len, tgt_in)
    targets = tgt_out.flatten()[packing.order[: packing.real]]
    log_probs = torch.log_softmax(features[: packing.real] @ model.softmax_weight.t() + model.softmax_bias[:, 0], 1)
    truth = torch.nn.functional.one_hot(targets, 20).float()
    even = torch.full((20,), 1 / 20) if share == 1.0 else (1 + truth) / 21  # the drawn, and each position's own word
    labels = 0.3 * even + 0.7 * truth if smoothed else truth
    assert tokens == 5
    assert nats == pytest.approx(-float((truth * log_probs).sum().detach()), rel=1e-5)
    wanted = gradients(model, -(labels * log_probs).sum() / 5)
    for name in ("softmax_weight", "softmax_bias", "decoder.features.weight"):
        torch.testing.assert_close(found[name].to_dense(), wanted[name].to_dense())


@pytest.mark.parametrize(("share", "some"), [(0.1, True), (0.5, False), (None, False)])
def test_a_full_softmax_learns_from_the_drawn_words_until_its_share_is_over(share, some):
    tree = {
        "data": {"share_vocabulary": False},
        "model": {"tied": "none", "embedding": 8, "hidden": 8},
        "train": {"samples": 6, "sampled_until": 0.5},
    }
    config = Config.model_validate(tree)
    model = Seq2Seq(config.model, source_vocabulary=40, target_vocabulary=50)
    sampler = LogUniformSampler(np.arange(50)[::-1].copy(), 1)
    batch = make_batch([[5, 6], [7]], [[9, 10], [11]], (3, 3))
    loss, _, _ = batch_loss(model, batch, config, precision="f32", sampler=sampler, update=0, share=share)
    loss.backward()
    moved = set(model.softmax_weight.grad.any(1).nonzero().flatten().tolist())
    assert moved == ({9, 10, 11, 2, *sampler.draw(6, 0)[0].tolist()} if some else set(range(50)))


def test_weight_decay_is_of_matrices_and_not_of_biases():
    model = Seq2Seq(ModelConfig(embedding=8, hidden=8, encoder_hidden=8), source_vocabulary=9, target_vocabulary=9)
    with torch.no_grad():
        model.softmax_bias.fill_(1.0)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = Optimizer(model, TrainConfig(weight_decay=0.1), sparse=[])
    for p in model.parameters():
        p.grad = torch.zeros_like(p)
    optimizer.update(0.1)
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert moved == {name for name, p in before.items() if p.dim() > 1 and p.shape[-1] > 1 and p.any()}


@pytest.mark.parametrize("size", [2, 6, 50])
def test_all_words_sampled_are_a_full_softmax(size):
    sampler, draw = LogUniformSampler(np.arange(size), 1), torch.Generator().manual_seed(1)
    features, weight = torch.randn(7, 4, generator=draw), torch.randn(size, 4, generator=draw)
    targets, bias = torch.randint(size, (7,), generator=draw), torch.randn(size, 1, generator=draw)
    ids, tries = sampler.draw(512, 3)
    expected = torch.from_numpy(sampler.log_expected(np.concatenate((targets.numpy(), ids)), tries))
    _, nats = sampled_loss(features, targets, 7, weight, bias, torch.from_numpy(ids), expected)
    reference = torch.nn.functional.cross_entropy(features @ weight.t() + bias.squeeze(1), targets, reduction="sum")
    torch.testing.assert_close(nats, reference)


def test_the_sampler_draws_distinct_words_as_often_as_it_says():
    counts = np.array([5, 100, 1, 50, 20, 10, 3, 2])
    sampler = LogUniformSampler(counts, seed=1)
    seen, expected, rounds = np.zeros(8), np.zeros(8), 4000
    for update in range(rounds):
        ids, tries = sampler.draw(4, update)
        assert len(set(ids.tolist())) == 4
        seen[ids] += 1
        expected += np.exp(sampler.log_expected(np.arange(8), tries))
    assert seen.argmax() == 1  # the most frequent word
    np.testing.assert_allclose(seen / rounds, expected / rounds, atol=0.06)
    again = sampler.draw(4, 7)
    np.testing.assert_array_equal(again[0], LogUniformSampler(counts, seed=1).draw(4, 7)[0])


def sampled_model(optimizer: str, average: float = 0.9):
    torch.manual_seed(0)
    config = Config.model_validate(
        {
            "data": {"share_vocabulary": False},
            "model": {"softmax": "sampled", "tied": "none", "embedding": 8, "hidden": 8, "dropout": 0.0},
            "train": {
                "optimizer": optimizer,
                "samples": 6,
                "average": average,
                "weight_decay": 0.0,
                "precision": "f32",
            },
        }
    )
    model = Seq2Seq(config.model, source_vocabulary=40, target_vocabulary=50)
    return config, model


@pytest.mark.parametrize("attention", ["additive", "multihead"])
def test_weights_left_rounded_by_the_optimizer_are_those_that_products_would_round(attention, monkeypatch):
    """And a weight that was changed by somebody else is rounded anew."""
    train = TrainConfig(precision="bf16", label_smoothing=0.1)
    config = Config(model=ModelConfig(attention=attention, embedding=16, hidden=16, encoder_hidden=8), train=train)
    batch = make_batch([[5, 6, 8], [7]], [[9, 10], [11]], (4, 4))

    def loss() -> torch.Tensor:
        torch.manual_seed(3)
        return batch_loss(model, batch, config, precision="bf16", sampler=None, update=0)[0]

    found = []
    for leaving in (True, False):
        torch.manual_seed(0)
        model = Seq2Seq(config.model, source_vocabulary=30, target_vocabulary=30)
        optimum = Optimizer(model, train, sparse=[])
        if not leaving:
            monkeypatch.setattr("antiphon.training.optimizer.room_to_round", lambda weight: None)
        for _ in range(5):
            loss().backward()
            optimum.update(0.03)
        left = [products._ROUNDED for p in model.parameters() if getattr(p, products._ROUNDED, None)]
        assert bool(left) == leaving
        found.append([loss().detach(), *(p.detach().clone() for p in model.parameters())])
        with torch.no_grad():
            for p in model.parameters():
                p.mul_(0.5)
        found[-1].append(loss().detach())
    for one, other in zip(*found, strict=True):
        assert torch.equal(one, other)
    assert not torch.equal(found[0][0], found[0][-1])


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_an_update_touches_only_the_rows_of_true_and_sampled_words(optimizer):
    config, model = sampled_model(optimizer)
    sampler = LogUniformSampler(np.arange(50)[::-1].copy(), 1)
    optimum = Optimizer(model, config.train, sparse=model.sparse_parameters())
    batch = make_batch([[5, 6], [7]], [[9, 10], [11]], (3, 3))
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    loss, _, tokens = batch_loss(model, batch, config, precision="f32", sampler=sampler, update=0)
    assert tokens == 5
    loss.backward()
    assert model.softmax_weight.grad.is_sparse
    optimum.update(0.1)
    moved = (model.softmax_weight.detach() != before["softmax_weight"]).any(1).nonzero().flatten().tolist()
    assert set(moved) == {9, 10, 11, 2, *sampler.draw(6, 0)[0].tolist()}
    moved = (model.source_embedding.weight.detach() != before["source_embedding.weight"]).any(1).nonzero().flatten()
    assert set(moved.tolist()) == {5, 6, 7, 2}


def test_row_sparse_sgd_and_its_average_equal_the_dense_ones():
    """SGD has no moments, so sparse rows and whole tensors must agree exactly, the lazy average included."""
    results = []
    for sparse in (True, False):
        config, model = sampled_model("sgd")
        sampler = LogUniformSampler(np.arange(50)[::-1].copy(), 1)
        optimum = Optimizer(model, config.train, sparse=model.sparse_parameters() if sparse else [])
        for update in range(6):
            batch = make_batch([[5 + update, 6], [7]], [[9, 10 + update], [11]], (3, 3))
            loss, _, _ = batch_loss(model, batch, config, precision="f32", sampler=sampler, update=update)
            loss.backward()
            if not sparse:
                for p in model.parameters():
                    if p.grad is not None and p.grad.is_sparse:
                        p.grad = p.grad.to_dense()
            optimum.update(0.3)
        results.append((dict(model.named_parameters()), optimum.averaged()))
    for one, other in zip(*results, strict=True):
        for name in one:
            torch.testing.assert_close(one[name], other[name], atol=1e-6, rtol=1e-5)


def descended(gradients: list[torch.Tensor], train: TrainConfig, *, sparse: bool, rate: float = 0.5):
    """A table (4, 2) of ones after each of these updates, its averages, and the norms that were told."""
    table = torch.nn.Embedding.from_pretrained(torch.ones(4, 2), freeze=False, sparse=sparse)
    blocks = {} if sparse else {"weight": 1}
    optimum = Optimizer(table, train, sparse=list(table.parameters()) if sparse else [], hidden=blocks)
    weights, averages, norms = [], [], []
    for gradient in gradients:
        rows = gradient.any(dim=1).nonzero().flatten()
        (table(rows) * gradient[rows]).sum().backward()
        norms.append(optimum.update(rate))
        weights.append(table.weight.detach().clone())
        averages.append(optimum.averaged()["weight"].clone())
    return weights, averages, norms


LONG = torch.tensor([[0.0, 0], [6, 0], [0, 0], [0, 8]])
"""A gradient of norm 10."""


@pytest.mark.parametrize("sparse", [False, True])
def test_a_gradient_longer_than_the_clip_is_as_long_as_it_and_a_shorter_one_as_it_was(sparse):
    train = TrainConfig(optimizer="sgd", clip=1.0, average=0.0, precision="f32")
    weights, _, norms = descended([LONG, LONG / 20, LONG / 10], train, sparse=sparse)
    assert norms == pytest.approx([10, 0.5, 1])
    before = torch.ones(4, 2)
    for after, length in zip(weights, (1.0, 0.5, 1.0), strict=True):
        torch.testing.assert_close(before - after, 0.5 * length * LONG / 10)
        before = after


@pytest.mark.parametrize(("optimizer", "sparse"), [("adam", False), ("adam", True), ("muon", False)])
def test_who_remembers_gradients_remembers_them_clipped(optimizer, sparse):
    """One of another length alone would go the same way: it is what is remembered of it that tells."""
    given = {"optimizer": optimizer, "weight_decay": 0.0, "average": 0.0, "precision": "f32"}
    other = torch.tensor([[0.0, 0], [0.3, 0.1], [0, 0], [0.2, 0.4]])
    clipped, *_ = descended([LONG, other], TrainConfig(clip=1.0, **given), sparse=sparse)
    short, *_ = descended([LONG / 10, other], TrainConfig(clip=1e9, **given), sparse=sparse)
    torch.testing.assert_close(clipped, short)


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize(("average", "decays"), [(0.998, [2 / 11, 3 / 12, 4 / 13]), (0.2, [2 / 11, 0.2, 0.2])])
def test_the_horizon_of_the_average_grows_with_the_updates(average, decays, sparse):
    train = TrainConfig(optimizer="sgd", clip=1e9, average=average, precision="f32")
    gradients = [LONG, torch.tensor([[1.0, 2], [0, 0], [0, 0], [3, 4]]), LONG]
    weights, averages, _ = descended(gradients, train, sparse=sparse)
    wanted = torch.ones(4, 2)
    for weight, found, decay in zip(weights, averages, decays, strict=True):
        wanted = decay * wanted + (1 - decay) * weight
        torch.testing.assert_close(found, wanted)


def test_second_moments_of_rows_are_those_of_adam():
    moments = []
    for sparse in (True, False):
        table = torch.nn.Embedding(9, 4, sparse=sparse)
        optimum = Optimizer(table, TrainConfig(clip=1e9), sparse=[table.weight] if sparse else [])
        for update in range(8):
            rows = torch.tensor([7, 1] if update in (0, 5) else [2, 7])  # row 1 is passed by four times
            (table(rows) * torch.arange(1.0, 5.0) * (1 + update)).sum().backward()
            optimum.update(1e-3)
        moments.append(optimum.state()["second/weight"])
        if sparse:
            saved, again = optimum.state(), Optimizer(table, TrainConfig(), sparse=[table.weight])
            again.restore(saved)
            assert again.state()["touched/weight"].tolist() == [0, 6, 8, 0, 0, 0, 0, 8, 0]
    for row, since in ((1, 2), (2, 0), (7, 0)):
        torch.testing.assert_close(moments[0][row] * 0.98**since, moments[1][row])


def test_a_gradient_that_is_not_finite_changes_nothing():
    _config, model = sampled_model("adam")
    optimum = Optimizer(model, TrainConfig(), sparse=[])
    before = [p.detach().clone() for p in model.parameters()]
    for p in model.parameters():
        p.grad = torch.full_like(p, float("nan"))
    assert not np.isfinite(optimum.update(0.1))
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize(("attention", "feed"), WAYS)
def test_search_through_torch_scores_what_it_says(attention, feed):
    model = make("lstm", attention, feed, "two ways")
    engine = TorchEngine(model)
    from antiphon.config import SearchConfig

    found = greedy(engine, SRC.numpy(), SRC_LEN.numpy(), SearchConfig(beam=1, unknown=True), np.full(3, 6))
    for row, [hypothesis] in enumerate(found):
        ids = hypothesis.ids + ([2] if hypothesis.finished else [])
        tgt_out = np.array([ids])
        tgt_in = np.array([[1, *ids[:-1]]])
        scores = engine.score(SRC.numpy()[row : row + 1], SRC_LEN.numpy()[row : row + 1], tgt_in, tgt_out)
        assert hypothesis.log_prob == pytest.approx(scores.sum(), abs=1e-4)
        if attention != "none":
            np.testing.assert_allclose(hypothesis.attention.sum(1), 1, atol=1e-5)
