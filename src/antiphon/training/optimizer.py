"""One update: clip, descend, average; whole tensors, or only the rows that have a gradient."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from antiphon.config import TrainConfig
from antiphon.nn.kernels import adam, adam_rows, norm
from antiphon.nn.products import leave_rounded, room_to_round
from antiphon.training.muon import Muon
from antiphon.training.precision import choose_precision


class Optimizer:
    """AdamW (Loshchilov & Hutter 2019), Muon (Jordan et al. 2024) or SGD, with an exponential moving average of the
    weights.

    Muon is for the matrices of the hidden layers; embeddings, softmax and vectors descend by AdamW beside it.
    Parameters named sparse get row-sparse gradients. Their rows, the rows of their moments and of their average
    are touched only where a gradient arrived, so an update costs what it samples and not V. A row's second moment
    catches up with the updates that passed it by, its first does not (see `adam_rows`); its average catches up exactly,
    since the row's weight stood still meanwhile.

    Args:
        model: whose parameters, by name.
        config: rate is given per update; the other knobs from here.
        sparse: the parameters with row-sparse gradients.
        hidden: names of the matrices that are Muon's, and how many are stacked in each.
    """

    def __init__(
        self,
        model: nn.Module,
        config: TrainConfig,
        *,
        sparse: list[nn.Parameter],
        hidden: Mapping[str, int] | None = None,
    ) -> None:
        self._config = config
        self._model = model
        tables = {id(parameter) for parameter in sparse}
        named = dict(model.named_parameters())
        self._dense = {name: p for name, p in named.items() if id(p) not in tables}
        self._sparse = {name: p for name, p in named.items() if id(p) in tables}
        self.updates = 0
        """Updates done."""
        self._average = {name: p.detach().clone() for name, p in named.items()} if config.average else {}
        self._decay_sum = 0.0  # Σ log decay so far
        self._caught_up = {
            name: torch.zeros(p.shape[0], dtype=torch.float64) for name, p in self._sparse.items() if config.average
        }
        self._rounds = choose_precision(config.precision) == "bf16"
        self._muon: Muon | None = None
        self._moments: dict[str, tuple[Tensor, Tensor]] = {}
        left = self._dense
        if config.optimizer == "muon":
            blocks = hidden or {}
            number = torch.bfloat16 if self._rounds else torch.float32
            self._muon = Muon({n: left[n] for n in blocks}, blocks, number=number, decay=config.weight_decay)
            left = {name: p for name, p in left.items() if name not in blocks}
        if config.optimizer != "sgd":
            adams = {**left, **self._sparse}
            self._moments = {n: (torch.zeros_like(p.data), torch.zeros_like(p.data)) for n, p in adams.items()}
        moving = [name for name in self._sparse if name in self._moments]
        self._touched = {name: torch.zeros(len(self._sparse[name]), dtype=torch.int64) for name in moving}

    def update(self, rate: float, *, most: float = math.inf) -> float:
        """Applies the gradients with this learning rate and clears them. Returns their norm before clipping.

        With a norm that is not finite, or above ``most``, nothing is applied.
        """
        dense = {name: p.grad for name, p in self._dense.items() if p.grad is not None}
        rows = {name: p.grad.coalesce() for name, p in self._sparse.items() if p.grad is not None}
        values = [*dense.values(), *(grad.values() for grad in rows.values())]
        length = norm(values)
        if math.isfinite(length) and length <= most:
            factor = min(1.0, self._config.clip / length) if length else 1.0
            self.updates += 1
            decay = self._decay()
            with torch.no_grad():
                self._descend_dense(dense, rate, factor, decay)
                for name, grad in rows.items():
                    self._descend_rows(name, grad.indices()[0], grad.values() * factor, rate, decay)
                if self._average:
                    self._decay_sum += math.log(decay)
        for parameter in (*self._dense.values(), *self._sparse.values()):
            parameter.grad = None
        return length

    def _decay(self) -> float:
        # Early averages would remember the random start: the horizon grows with the updates done.
        return min(self._config.average, (1 + self.updates) / (10 + self.updates)) if self._average else 1.0

    def _descend_dense(self, grads: dict[str, Tensor], rate: float, factor: float, decay: float) -> None:
        if self._muon is not None:
            self._muon.step(rate, {name: grads[name] * factor for name in self._muon.means if name in grads})
        for name, p in self._dense.items():
            grad, average = grads.get(name), (self._average[name], decay) if self._average else None
            if grad is not None and name in self._moments:
                rounded = room_to_round(p) if self._rounds else None
                adam(
                    grad,
                    p.data,
                    self._moments[name],
                    factor=factor,
                    rate=rate,
                    betas=self._config.betas,
                    weight_decay=self._config.weight_decay if p.dim() > 1 and p.shape[-1] > 1 else 0.0,
                    update=self.updates,
                    average=average,
                    rounded=rounded,
                )
                if rounded is not None:
                    leave_rounded(p, rounded)
                continue
            if grad is not None and self._muon is None:
                p.data.add_(grad, alpha=-rate * factor)
            if average is not None:
                average[0].lerp_(p.data, 1 - decay)

    def _descend_rows(self, name: str, rows: Tensor, grad: Tensor, rate: float, decay: float) -> None:
        weights, average = self._sparse[name].data, None
        if self._average:  # first the average of these rows is brought to now
            caught_up = self._caught_up[name]
            average = self._average[name], torch.exp(self._decay_sum - caught_up[rows]).float(), decay
            caught_up[rows] = self._decay_sum + math.log(decay)
        if moments := self._moments.get(name):
            touched, betas, update = self._touched[name], self._config.betas, self.updates
            idle = update - 1 - touched[rows]
            adam_rows(rows, grad, weights, moments, rate=rate, betas=betas, update=update, idle=idle, average=average)
            touched[rows] = update
            return
        old = weights[rows]
        weights[rows] = new = old - rate * grad
        if average is not None:
            means, waited, _ = average
            means[rows] = torch.lerp(new, torch.lerp(old, means[rows], waited.unsqueeze(1)), decay)

    def averaged(self) -> dict[str, Tensor]:
        """The averaged weights by name; the weights themselves when nothing is averaged."""
        if not self._average:
            return {name: p.detach() for name, p in self._model.named_parameters()}
        found = {name: self._average[name] for name in self._dense}
        for name, p in self._sparse.items():
            waited = torch.exp(self._decay_sum - self._caught_up[name]).float().unsqueeze(1)
            found[name] = torch.lerp(p.detach(), self._average[name], waited)
        return found

    def state(self) -> dict[str, Tensor]:
        """Everything an update depends on, but for the weights: flat, by name, ready for safetensors."""
        found = {f"average/{name}": tensor for name, tensor in self._average.items()}
        found |= {f"caught_up/{name}": tensor for name, tensor in self._caught_up.items()}
        found |= {f"touched/{name}": tensor for name, tensor in self._touched.items()}
        for name, (first, second) in self._moments.items():
            found |= {f"first/{name}": first, f"second/{name}": second}
        if self._muon is not None:
            found |= {f"mean/{name}": mean for name, mean in self._muon.means.items()}
        found["updates"] = torch.tensor([self.updates])
        found["decay_sum"] = torch.tensor([self._decay_sum], dtype=torch.float64)
        return found

    def restore(self, state: dict[str, Tensor]) -> None:
        """Continues from what `state` gave."""
        self.updates = int(state["updates"])
        self._decay_sum = float(state["decay_sum"])
        for name in self._average:
            self._average[name].copy_(state[f"average/{name}"])
        for name in self._caught_up:
            self._caught_up[name].copy_(state[f"caught_up/{name}"])
        for name, touched in self._touched.items():
            touched.copy_(state.get(f"touched/{name}", torch.tensor(self.updates)))  # runs of earlier days lack it
        for name, (first, second) in self._moments.items():
            first.copy_(state[f"first/{name}"])
            second.copy_(state[f"second/{name}"])
        if self._muon is not None:
            for name, mean in self._muon.means.items():
                mean.copy_(state[f"mean/{name}"])
