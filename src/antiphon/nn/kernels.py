"""The small C kernels of `kernels.c`, or the same in PyTorch's operations where there is no C compiler.

Each kernel does in one pass over memory what would be ten operations of PyTorch; a law test holds both equal. The
library is built once per machine, compiler and release (a second or two), and kept in the user's cache folder.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import math
import os
import platform
import shlex
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

Cell = Literal["gru", "lstm"]

# What -ffast-math brings, but for its ignorance of infinities and NaN, which training must see.
_FLAGS = [
    "-O3",
    "-fopenmp",
    "-fPIC",
    "-std=gnu11",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fno-signed-zeros",
    "-fassociative-math",
    "-freciprocal-math",
]


def compiled() -> bool:
    """Whether the C kernels are in use."""
    return _library() is not None


def missing() -> str:
    """Why the C kernels are not in use; empty if they are."""
    library = _built()
    return library if isinstance(library, str) else ""


def cell_forward(
    cell: Cell, a: Tensor, b: Tensor, bias: Tensor, before: Tensor, gates: Tensor, carried: Tensor, h: Tensor
) -> None:
    """What a step does after its products; fills gates, carried and h.

    Args:
        cell: GRU (r = σ(a_r + b_r), z = σ(a_z + b_z), n = tanh(a_n + r b_n), h = n + z (h − n)) or LSTM
            (i, f, o = σ, g = tanh of a + b; c = f c + i g; h = o tanh(c)); gates in the library's order.
        a, b: (n, 3H or 4H) what the input and the state before bring, f32 or bf16, without bias; b may have more rows.
        bias: (4H,) f32, from `cell_bias`.
        before: (n or more, H) f32, the state (GRU) or the cell state (LSTM) before.
        gates: (n, 4H) as ``a``, what the backward pass needs; an LSTM's may be ``a`` itself.
        carried: (n, H) f32, as ``before``, after the step.
        h: (n, H) as ``a``, the output.
    """
    library, rows, hidden = _library(), *h.shape
    if library is None:
        _forward_in_torch(cell, a, b[:rows], bias, before[:rows], gates, carried, h)
    else:
        _of(library, f"{cell}_forward", a)(rows, hidden, *map(_at, (a, b, bias, before, gates, carried, h)))


def cell_bias(cell: Cell, b_input: Tensor, b_state: Tensor) -> Tensor:
    """The two biases (3H or 4H) of a layer as `cell_forward` wants them: (4H,)."""
    if cell == "lstm":
        return b_input + b_state
    # the new gate takes what the state brings times r: the state's bias stays apart there
    hidden = len(b_input) // 3
    return torch.cat((b_input[: 2 * hidden] + b_state[: 2 * hidden], b_input[2 * hidden :], b_state[2 * hidden :]))


def cell_backward(
    cell: Cell,
    gates: Tensor,
    before: Tensor,
    carried: Tensor,
    d_h: Tensor,
    d_state: Tensor | None,
    later: int,
    d_carried: Tensor,
    d_a: Tensor,
    d_b: Tensor,
) -> None:
    """The gradient of `cell_forward`; fills d_a and d_b (for an LSTM they are one tensor).

    Args:
        cell, gates, before, carried: as `cell_forward` had and left them.
        d_h: (n, H) as ``gates``, the gradient of the output from above.
        d_state: (later or more, H) as ``gates``, that of the first ``later`` rows' output from the step after.
        later: see there, at most n.
        d_carried: (n or more, H) f32, that of ``carried``; becomes that of ``before`` without the product's part.
        d_a, d_b: (n, 3H or 4H) as ``gates``.
    """
    library, rows, hidden = _library(), *d_h.shape
    if library is None:
        d = d_h.float().clone()
        if d_state is not None:
            d[:later] += d_state[:later].float()
        _backward_in_torch(cell, gates, before[:rows], carried, d, d_carried[:rows], d_a, d_b)
        return
    after = None if d_state is None else d_state.data_ptr()
    if cell == "lstm":
        fixed = map(_at, (gates, before, carried, d_h))
        _of(library, "lstm_backward", d_h)(rows, later, hidden, *fixed, after, _at(d_carried), _at(d_a))
    else:
        fixed = map(_at, (gates, before, d_h))
        out = map(_at, (d_carried, d_a, d_b))
        _of(library, "gru_backward", d_h)(rows, later, hidden, *fixed, after, *out)


def layer_forward(
    cell: Cell,
    counts: Tensor,
    a: Tensor,
    weight: Tensor,
    bias: Tensor,
    h0: Tensor,
    c0: Tensor,
    gates: Tensor,
    carried: Tensor,
    h: Tensor,
    last: Tensor,
) -> bool:
    """All steps of a layer in one call: in f32 any, in bf16 an LSTM on processors with AMX or AVX512_BF16.

    Args:
        cell: the kind of cell.
        counts: (steps,) int64, rows at each step, falling.
        a: (P, 3H or 4H) what the input brings.
        weight: (3H or 4H, H). bias: (4H,) f32. h0: (B, H). c0: (B, H) f32.
        gates: (P, 4H), carried: (P, H) f32 and h: (P, H), to be filled; an LSTM's gates are ``a`` itself.
        last: (B, H) f32, what is carried after each row's last step; rows without a step keep what is there.

    Returns:
        Whether it was done; if not, nothing was touched.
    """
    if not _has_layer(cell, a):
        return False
    library, (rows, hidden) = _library(), c0.shape
    assert library is not None
    if a.dtype == torch.bfloat16:
        tensors = map(_at, (a, weight, bias, h0, c0, carried, h, last))
        done = library.lstm_layer_forward(len(counts), _at(counts), rows, hidden, *tensors)
    else:
        tensors = map(_at, (a, weight, bias, h0, c0, gates, carried, h, last))
        done = library.layer_forward(int(cell == "gru"), len(counts), _at(counts), rows, hidden, *tensors)
    assert done, "no memory for one layer"
    return True


def layer_backward(
    cell: Cell,
    counts: Tensor,
    gates: Tensor,
    weight: Tensor,
    c0: Tensor,
    carried: Tensor,
    d_h: Tensor,
    d_c: Tensor,
    d_a: Tensor,
    d_b: Tensor,
    d_h0: Tensor,
) -> bool:
    """The gradient of `layer_forward`: fills d_a, d_b (P, 3H or 4H), d_h0 (B, H) f32; d_c (B, H) f32 is in and out."""
    if not _has_layer(cell, gates):
        return False
    library, (rows, hidden) = _library(), c0.shape
    assert library is not None
    if gates.dtype == torch.bfloat16:
        tensors = map(_at, (gates, weight, c0, carried, d_h, d_c, d_a, d_h0))
        done = library.lstm_layer_backward(len(counts), _at(counts), rows, hidden, *tensors)
    else:
        tensors = map(_at, (gates, weight, c0, carried, d_h, d_c, d_a, d_b, d_h0))
        done = library.layer_backward(int(cell == "gru"), len(counts), _at(counts), rows, hidden, *tensors)
    assert done, "no memory for one layer"
    return True


def _has_layer(cell: Cell, number: Tensor) -> bool:
    library = _library()
    if library is None:
        return False
    return number.dtype == torch.float32 or (cell == "lstm" and bool(library.has_lstm))


def tanh_scores(q: Tensor, keys: Tensor, score: Tensor, mask: Tensor) -> Tensor:
    """score · tanh(q + k), or 0 if masked: q (n, T, A), keys (n, S, A), score (A,), mask (n, S) → (n, T, S)."""
    library, (rows, positions, width), queries = _library(), keys.shape, q.shape[1]
    if library is None:
        tanh = torch.tanh(keys.unsqueeze(1) + q.unsqueeze(2))
        return (tanh @ score).masked_fill_(~mask.unsqueeze(1), 0.0)
    out = torch.empty(rows, queries, positions)
    library.tanh_scores(rows, queries, positions, width, *map(_at, (q, keys, score, mask, out)))
    return out


def tanh_scores_backward(
    q: Tensor, keys: Tensor, score: Tensor, mask: Tensor, d_scores: Tensor, d_keys: Tensor, d_score: Tensor
) -> Tensor:
    """The gradient of `tanh_scores`, from d_scores (n, T, S): that of q is returned (n, T, A); d_keys (n, S, A) and
    d_score (n, A), whose sum over rows is the score's, are added to."""
    library, (rows, positions, width), queries = _library(), keys.shape, q.shape[1]
    if library is None:
        tanh = torch.tanh(keys.unsqueeze(1) + q.unsqueeze(2))
        grad = d_scores.masked_fill(~mask.unsqueeze(1), 0.0).unsqueeze(3)
        d_score += (grad * tanh).sum((1, 2))
        slope = grad * score * (1 - tanh * tanh)
        d_keys += slope.sum(1)
        return slope.sum(2)
    d_q, d_scores = torch.empty(rows, queries, width), d_scores.contiguous()
    library.tanh_scores_backward(
        rows, queries, positions, width, *map(_at, (q, keys, score, mask, d_scores, d_q, d_keys, d_score))
    )
    return d_q


def compare(queries: Tensor, keys: Tensor) -> Tensor:
    """q · k of every position of a row: queries (n, 1, D), contiguous keys (n, S, D), in one format → (n, 1, S)."""
    library, (rows, positions, width) = _library(), keys.shape
    if library is None:
        return torch.bmm(queries, keys.transpose(1, 2))
    queries, out = queries.contiguous(), keys.new_empty(rows, 1, positions)
    _of(library, "compare", keys)(rows, positions, width, *map(_at, (queries, keys, out)))
    return out


def read(weights: Tensor, values: Tensor) -> Tensor:
    """Σ w v over the positions of a row: weights (n, 1, S), contiguous values (n, S, D), in one format → (n, 1, D)."""
    library, (rows, positions, width) = _library(), values.shape
    if library is None:
        return torch.bmm(weights, values)
    weights, out = weights.contiguous(), values.new_empty(rows, 1, width)
    _of(library, "read", values)(rows, positions, width, *map(_at, (weights, values, out)))
    return out


def take_rows(x: Tensor, rows: Tensor) -> Tensor:
    """Rows (m,) of x (n, D), zero where the number of a row is below zero → (m, D)."""
    library, width = _library(), x.shape[1]
    if library is None:
        real, out = rows >= 0, x.new_zeros(len(rows), width)
        out[real] = x[rows[real]]
        return out
    x, out = x.contiguous(), x.new_empty(len(rows), width)
    library.take_rows(len(rows), width * x.element_size(), *map(_at, (rows, x, out)))
    return out


def column_sums(x: Tensor) -> Tensor:
    """Σ over the rows of x (n, D), f32 or bf16 → (D,) f32."""
    library, (rows, width) = _library(), x.shape
    if library is None:
        return x.sum(0, dtype=torch.float32)
    x, out = x.contiguous(), torch.empty(width)
    _of(library, "column_sums", x)(rows, width, _at(x), _at(out))
    return out


def cross_entropy(
    products: Tensor, bias: Tensor, targets: Tensor, smoothing: float, *, gradient: bool
) -> tuple[Tensor, Tensor]:
    """−log softmax of each row at its target, and the loss with label smoothing (Szegedy et al. 2016).

    Args:
        products: (n, V), the logits without their bias; the logits' gradient takes their place, if one is wanted.
        bias: (V,) f32.
        targets: (n,) ids.
        smoothing: 0..1.
        gradient: whether it is wanted.

    Returns:
        Plain and smoothed, (n,) f32 each, in nats.
    """
    library, (rows, size) = _library(), products.shape
    if library is None:
        log_probs = torch.log_softmax(products.float() + bias, dim=1)
        nats = -log_probs.gather(1, targets.unsqueeze(1)).squeeze(1)
        smoothed = (1 - smoothing) * nats - smoothing * log_probs.mean(1)
        if gradient:
            probs = log_probs.exp_().sub_(smoothing / size)
            products.copy_(probs.scatter_add_(1, targets.unsqueeze(1), probs.new_full((rows, 1), smoothing - 1)))
        return nats, smoothed
    nats, smoothed = torch.empty(rows), torch.empty(rows)
    fixed = map(_at, (products, bias, targets))
    _of(library, "cross_entropy", products)(rows, size, *fixed, smoothing, int(gradient), _at(nats), _at(smoothed))
    return nats, smoothed


def norm(tensors: list[Tensor]) -> float:
    """The Euclidean norm of all numbers of these tensors, f32 or bf16, together."""
    library = _library()
    if library is None or not all(tensor.is_contiguous() for tensor in tensors):
        return float(torch.linalg.vector_norm(torch.stack(torch._foreach_norm([t.float() for t in tensors]))))
    return math.sqrt(sum(_of(library, "squares", tensor)(tensor.numel(), _at(tensor)) for tensor in tensors))


def adam(
    grad: Tensor,
    weights: Tensor,
    moments: tuple[Tensor, Tensor],
    *,
    factor: float,
    rate: float,
    betas: tuple[float, float],
    weight_decay: float,
    update: int,
    average: tuple[Tensor, float] | None,
    rounded: Tensor | None = None,
) -> None:
    """AdamW (Loshchilov & Hutter 2019) in place, and what follows from the new weights, in one pass over memory.

    Args:
        grad: any shape, f32 or bf16; multiplied by ``factor``, which clips it.
        weights: like it, f32. moments: the first and the second, likewise.
        rate, betas, weight_decay: as in the paper. update: t, from 1.
        average: the moving average of the weights, like them, and its decay. None: there is none.
        rounded: like the weights, bf16; becomes what they are. None: it is not wanted.
    """
    library, (first, second), (beta1, beta2) = _library(), moments, betas
    means, decay = average or (None, 0.0)
    if library is not None and grad.is_contiguous() and weights.is_contiguous():
        ups = 1 / (1 - beta1**update), 1 / (1 - beta2**update)
        steps = torch.tensor((rate, beta1, beta2, *ups, decay, factor, 1 - rate * weight_decay))
        fixed = map(_at, (grad, weights, first, second))
        follows = (None if part is None else _at(part) for part in (means, rounded))
        _of(library, "adam", grad)(grad.numel(), *fixed, *follows, _at(steps))
        return
    grad = grad.float() * factor
    torch._fused_adamw_(
        [weights],
        [grad],
        [first],
        [second],
        [],
        [torch.tensor(float(update))],
        lr=rate,
        beta1=beta1,
        beta2=beta2,
        weight_decay=weight_decay,
        eps=1e-8,
        amsgrad=False,
        maximize=False,
    )
    if means is not None:
        means.lerp_(weights, 1 - decay)
    if rounded is not None:
        rounded.copy_(weights)


def adam_rows(
    rows: Tensor,
    grad: Tensor,
    weights: Tensor,
    moments: tuple[Tensor, Tensor],
    *,
    rate: float,
    betas: tuple[float, float],
    update: int,
    idle: Tensor,
    average: tuple[Tensor, Tensor, float] | None,
) -> None:
    """Adam (Kingma & Ba 2015) for some rows of a table, in place; the others are not read.

    A row's second moment is Adam's, that of all updates: it decayed while the row had no gradient. Its first is that of
    the updates which touched it. So what Adam would go on to move after a rare gradient, the row moves at once.

    Args:
        rows: (n,) distinct ids. grad: (n, D) f32.
        weights: (V, D) f32. moments: the first and the second, (V, D) f32.
        rate, betas: as in the paper. update: t, from 1.
        idle: (n,) how many updates, since it was last touched, passed each row by.
        average: the moving average of the weights (V, D); by how much of itself each row's average has decayed since it
            was touched, (n,); its decay now. None: there is none.
    """
    library, (first, second), (beta1, beta2) = _library(), moments, betas
    up1, up2 = 1 / (1 - beta1**update), 1 / (1 - beta2**update)
    rested = torch.pow(torch.tensor(beta2), idle.float())
    if library is not None:
        means, waited, decay = average or (None, None, 0.0)
        steps = torch.tensor((rate, beta1, beta2, up1, up2, decay))
        kept = (None if part is None else _at(part) for part in (means, waited))
        rows, grad = rows.contiguous(), grad.contiguous()
        fixed = map(_at, (rows, grad, weights, first, second, rested))
        library.adam_rows(len(rows), grad.shape[1], *fixed, *kept, _at(steps))
        return
    old = weights[rows]
    first[rows] = m = torch.lerp(grad, first[rows], beta1)
    second[rows] = v = torch.lerp(grad * grad, second[rows] * rested.unsqueeze(1), beta2)
    weights[rows] = new = old - rate * (m * up1) / ((v * up2).sqrt() + 1e-8)
    if average is not None:
        means, waited, decay = average
        means[rows] = torch.lerp(new, torch.lerp(old, means[rows], waited.unsqueeze(1)), decay)


def transposed(matrix: Tensor) -> Tensor:
    """A contiguous f32 matrix (n, m) → (m, n), contiguous too."""
    library, (rows, columns) = _library(), matrix.shape
    if library is None:
        return matrix.t().contiguous()
    out = torch.empty(columns, rows)
    library.transpose(rows, columns, _at(matrix), _at(out))
    return out


def lay_out(matrix: Tensor) -> Tensor | None:
    """An f32 matrix (K, N), contiguous or transposed, as `laid_out_product` reads it fast. None: no kernels."""
    library, (depth, width) = _library(), matrix.shape
    if library is None:
        return None
    packed = torch.empty(library.laid_out_size(depth, width))
    library.lay_out(depth, width, *matrix.stride(), _at(matrix), _at(packed))
    return packed


def laid_out_product(x: Tensor, packed: Tensor, width: int) -> Tensor:
    """x (n, K) f32 times the matrix (K, N) that `lay_out` made ``packed`` of, N being ``width`` → (n, N)."""
    library, (rows, depth) = _library(), x.shape
    assert library is not None
    x, out = x.contiguous(), torch.empty(rows, width)  # named: a nameless copy would be freed before the call
    library.laid_out_product(rows, width, depth, _at(x), _at(packed), _at(out))
    return out


def _forward_in_torch(
    cell: Cell, a: Tensor, b: Tensor, bias: Tensor, before: Tensor, gates: Tensor, carried: Tensor, h: Tensor
) -> None:
    hidden = h.shape[1]
    if cell == "lstm":
        i, f, g, o = (a.float() + b.float() + bias).split(hidden, dim=1)
        i, f, g, o = i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()
        torch.addcmul(f * before, i, g, out=carried)
        h.copy_(o * carried.tanh())
        gates.copy_(torch.cat((i, f, g, o), dim=1))
        return
    both = 2 * hidden
    r, z = (a[:, :both].float() + b[:, :both].float() + bias[:both]).sigmoid().split(hidden, dim=1)
    q = b[:, both:].float() + bias[3 * hidden :]
    new = torch.addcmul(a[:, both:].float() + bias[both : 3 * hidden], r, q).tanh()
    carried.copy_(torch.lerp(new, before, z))
    h.copy_(carried)
    gates.copy_(torch.cat((r, z, new, q), dim=1))


def _backward_in_torch(
    cell: Cell,
    gates: Tensor,
    before: Tensor,
    carried: Tensor,
    d: Tensor,
    d_carried: Tensor,
    d_a: Tensor,
    d_b: Tensor,
) -> None:
    first, second, third, fourth = gates.float().split(d.shape[1], dim=1)
    if cell == "lstm":
        i, f, g, o = first, second, third, fourth
        t = carried.tanh()
        d_cell = d_carried + d * o * (1 - t * t)
        parts = d_cell * g * i * (1 - i), d_cell * before * f * (1 - f), d_cell * i * (1 - g * g), d * t * o * (1 - o)
        d_a.copy_(torch.cat(parts, dim=1))
        d_carried.copy_(d_cell * f)
        return
    r, z, new, q = first, second, third, fourth
    d = d + d_carried
    d_new = d * (1 - z) * (1 - new * new)
    d_r, d_z = d_new * q * r * (1 - r), d * (before - new) * z * (1 - z)
    d_a.copy_(torch.cat((d_r, d_z, d_new), dim=1))
    d_b.copy_(torch.cat((d_r, d_z, d_new * r), dim=1))
    d_carried.copy_(d * z)


def _at(tensor: Tensor) -> int:
    return tensor.data_ptr()


def _of(library: ctypes.CDLL, name: str, number: Tensor) -> Callable[..., Any]:
    return getattr(library, name + ("_bf16" if number.dtype == torch.bfloat16 else "_f32"))


_ARGUMENTS = {
    "lstm_forward": "nnppppppp",
    "lstm_backward": "nnnppppppp",
    "gru_forward": "nnppppppp",
    "gru_backward": "nnnppppppp",
    "cross_entropy": "nnpppfnpp",
    "compare": "nnnppp",
    "read": "nnnppp",
    "column_sums": "nnpp",
    "layer_forward": "nnpnnppppppppp",
    "layer_backward": "nnpnnppppppppp",
    "lstm_layer_forward": "npnnpppppppp",
    "lstm_layer_backward": "npnnpppppppp",
    "lay_out": "llllpp",
    "laid_out_product": "lllppp",
    "transpose": "llpp",
    "take_rows": "llppp",
    "adam": "lppppppp",
    "adam_rows": "nnppppppppp",
    "tanh_scores": "nnnnppppp",
    "tanh_scores_backward": "nnnnpppppppp",
}
_OF_ONE_FORMAT = "adam_rows", "tanh", "lay_out", "laid_out", "layer", "lstm_layer", "transpose", "take"
"""How the names of kernels begin that are there once, not for each number format."""
_TYPES = {"n": ctypes.c_int, "l": ctypes.c_long, "p": ctypes.c_void_p, "f": ctypes.c_float}


def _library() -> ctypes.CDLL | None:
    library = _built()
    return None if isinstance(library, str) else library


@functools.cache
def _built() -> ctypes.CDLL | str:
    """The library, built if need be; or why there is none."""
    if os.environ.get("ANTIPHON_KERNELS") == "torch":
        return "ANTIPHON_KERNELS=torch"
    if platform.system() != "Linux":
        return "they are for Linux"  # elsewhere the way to share PyTorch's threads is untried
    compilers: list[list[str]] = []
    for asked in (os.environ.get("CC", "cc"), "gcc"):
        with suppress(ValueError):  # of quotes, one that is not closed
            words = shlex.split(asked)
            if words and (found := shutil.which(words[0])):
                compilers.append([found, *words[1:]])
    if len(compilers) == 2 and all(len(words) == 1 for words in compilers):  # cc is often gcc
        compilers = compilers[: 1 if os.path.samefile(compilers[0][0], compilers[1][0]) else 2]
    library, fault = None, "no C compiler; install gcc, or set CC"
    for compiler in compilers:
        try:
            library = _loaded(compiler)
            break
        except subprocess.CalledProcessError as error:
            last = (error.stderr or b"").decode(errors="replace").strip().splitlines()[-1:]
            fault = f"{' '.join(compiler)} failed: {' '.join(last) or f'code {error.returncode}'}"
        except (OSError, subprocess.SubprocessError) as error:
            fault = f"they could not be built: {error}"
    if library is None:
        return fault
    for name, arguments in _ARGUMENTS.items():
        for number in ("",) if name.startswith(_OF_ONE_FORMAT) else ("_f32", "_bf16"):
            function = getattr(library, name + number, None)
            if function is not None:
                function.argtypes, function.restype = [_TYPES[letter] for letter in arguments], ctypes.c_int
    for squares in (library.squares_f32, library.squares_bf16):
        squares.argtypes, squares.restype = [ctypes.c_long, ctypes.c_void_p], ctypes.c_double
    library.laid_out_size.argtypes, library.laid_out_size.restype = [ctypes.c_long] * 2, ctypes.c_long
    library.has_lstm = bool(library.has_lstm_layer())  # type: ignore[attr-defined]
    return library


def _loaded(compiler: list[str]) -> ctypes.CDLL:
    """The library of this compiler's. Raises CalledProcessError, OSError, SubprocessError."""
    source = resources.files("antiphon.nn").joinpath("kernels.c").read_text(encoding="utf-8")
    flags = [*_FLAGS, *_machine_flags()]
    name = f"kernels-{_key(source, compiler, flags)}.so"
    fault = OSError("there is no folder to keep them in")
    for folder in _caches():
        path = folder / name
        if not _whole(path):  # as after a power cut: to load half a library may end the process
            _build(source, compiler, flags, path)
        try:
            return ctypes.CDLL(str(path))
        except OSError as error:  # from some folders nothing may be run
            fault = error
    raise fault


def _whole(path: Path) -> bool:
    """Whether a library is there, and is what was built."""
    try:
        return _sum(path) == path.with_suffix(".sum").read_text(encoding="ascii")
    except (OSError, ValueError):
        return False


def _sum(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _machine_flags() -> list[str]:
    """This processor's instructions, or fewer where PyTorch was told to use fewer (``ATEN_CPU_CAPABILITY``)."""
    if platform.machine() not in ("x86_64", "AMD64"):
        return []
    asked = os.environ.get("ATEN_CPU_CAPABILITY")
    if asked is None:
        return ["-march=native", "-mprefer-vector-width=512"]
    return ["-march=x86-64-v3"] if asked == "avx2" else ["-march=native"] if asked.startswith("avx512") else []


def _key(source: str, compiler: list[str], flags: list[str]) -> str:
    """What the library depends on: the source, the compiler, the flags and, since they name it, the processor."""
    version = subprocess.run([*compiler, "--version"], capture_output=True, timeout=20, check=True).stdout
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = [platform.processor()]
    processor = "".join(sorted({line for line in lines if line.startswith(("model name", "flags"))}))
    parts = "\0".join(
        (source, " ".join((*compiler[1:], *flags)), version.decode(errors="replace"), processor, torch.__version__)
    )
    return hashlib.sha256(parts.encode()).hexdigest()[:20]


def _caches() -> Iterator[Path]:
    """Where libraries may be kept: in the user's cache, or else in a folder of the user's among temporary ones."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    own, shared = Path(base) / "antiphon", Path(tempfile.gettempdir()) / f"antiphon-{os.getuid()}"
    found = False
    for folder in (own, shared):
        with suppress(OSError):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            owned = folder.stat() if folder == own else folder.lstat()  # there a link may be somebody else's
            if stat.S_ISDIR(owned.st_mode) and owned.st_uid == os.getuid() and os.access(folder, os.W_OK):
                found = True
                yield folder
    if not found:
        yield Path(tempfile.mkdtemp(prefix="antiphon-"))


def _build(source: str, compiler: list[str], flags: list[str], path: Path) -> None:
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        text, thing, library = (Path(scratch) / f"kernels.{ending}" for ending in ("c", "o", "so"))
        text.write_text(source, encoding="utf-8")
        commands = (
            [*compiler, *flags, "-c", str(text), "-o", str(thing)],
            # without -fopenmp: a second OpenMP library would bring a second pool of threads, fighting the first
            [*compiler, "-shared", str(thing), "-lm", "-o", str(library)],
        )
        for command in commands:
            subprocess.run(command, capture_output=True, timeout=120, check=True)
        with library.open("rb+") as file:
            os.fsync(file.fileno())
        summed = Path(scratch) / "kernels.sum"
        summed.write_text(_sum(library), encoding="ascii")
        os.replace(summed, path.with_suffix(".sum"))
        os.replace(library, path)
