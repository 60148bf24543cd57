"""The learning rate at any moment."""

from __future__ import annotations

import math

from antiphon.config import TrainConfig


def learning_rate(config: TrainConfig, *, update: int, progress: float | None) -> float:
    """Rate of update number ``update`` (from 0).

    Args:
        config: highest rate, warm-up, schedule.
        update: updates done before.
        progress: share of the budget used, 0..1; None without a budget.
    """
    peak = config.learning_rate * min(1.0, (update + 1) / (config.warmup + 1))
    if config.schedule == "constant":
        return peak
    if progress is not None:
        return peak * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    later = update / max(config.warmup, 1)  # unknown end: inverse square root (Vaswani et al. 2017, eq. 3)
    return peak / math.sqrt(max(later, 1.0))
