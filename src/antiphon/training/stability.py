"""Whether an update is one to follow, or its gradient is not finite or has exploded; and when it is time to go back."""

from __future__ import annotations

import math
import statistics
from collections import deque

import torch

WINDOW = 101
"""Norms of good updates whose median is what is usual."""
FEWEST = 51
"""Norms before there is a usual one: in the first updates they rise twentyfold by themselves."""
EXPLODES = 30.0
"""How many times the usual norm, and the clip, is too much. The largest in healthy runs of six presets was 7
(docs/log.md)."""
LATELY, REPEATED = 20, 5
"""So many bad updates among so many are no accident any more."""
SLOWER = 0.5
"""What the learning rate is multiplied by when training goes back."""
SETBACKS = 6
"""Training goes back so often, without dev getting better in between, before it gives up."""


class Stability:
    """Watches the norms of gradients, before clipping.

    Args:
        clip: the norm above which a gradient is shortened; one below it cannot explode.
    """

    def __init__(self, clip: float) -> None:
        self._clip = clip
        self._norms: deque[float] = deque(maxlen=WINDOW)
        self._bad: deque[bool] = deque(maxlen=LATELY)

    @property
    def most(self) -> float:
        """The largest norm that is still followed."""
        if len(self._norms) < FEWEST:
            return math.inf
        # Where all is learnt, norms are tiny, and a rare pair has eighty times the usual one: that is no explosion.
        return EXPLODES * max(statistics.median(self._norms), self._clip)

    def saw(self, norm: float) -> str:
        """Notes the norm of an update; what is wrong with it, empty if nothing is."""
        most = self.most
        fault = ""
        if not math.isfinite(norm):
            fault = "its gradient is not finite"
        elif norm > most:
            fault = f"its gradient exploded: norm {norm:.3g}, usually {statistics.median(self._norms):.3g}"
        else:
            self._norms.append(norm)
        self._bad.append(bool(fault))
        return fault

    @property
    def lost(self) -> bool:
        """Whether so many of the last updates were bad that it is time to go back."""
        return sum(self._bad) >= REPEATED

    def forgive(self) -> None:
        """Forgets the bad updates, after going back."""
        self._bad.clear()

    def state(self) -> dict[str, torch.Tensor]:
        """What the next verdict depends on, by name."""
        return {
            "norms": torch.tensor(list(self._norms), dtype=torch.float64),
            "bad": torch.tensor(list(self._bad), dtype=torch.bool),
        }

    def restore(self, state: dict[str, torch.Tensor]) -> None:
        """Continues from what `state` gave."""
        self._norms = deque(state["norms"].tolist(), maxlen=WINDOW)
        self._bad = deque(state["bad"].tolist(), maxlen=LATELY)
