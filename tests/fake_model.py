"""A model for the faces: whole answers that can be told beforehand, no engine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from antiphon.config import Config, DataConfig, SearchConfig
from antiphon.model import Model, Prediction


class Words:
    """A tokenizer: one id a word."""

    kind = "word"
    size = 10

    def encode(self, text: str) -> list[int]:
        return [5] * len(text.split())


class FakeModel(Model):
    """Answers "<SOURCE>" in capitals, "<SOURCE> 2" … as next best, "<SOURCE> drawn 7" when sampling with seed 7."""

    def __init__(self, *, context: int = 0, beam: int = 4, sample: bool = False, max_source: int = 8) -> None:
        words: Any = Words()
        engine: Any = None
        config = Config(data=DataConfig(context=context), search=SearchConfig(beam=beam, sample=sample))
        super().__init__(engine, words, words, config, Path("runs/fake"))
        self._most = max_source
        self.asked: list[tuple[Any, dict[str, Any]]] = []
        self.streamed = 0

    @property
    def max_source(self) -> int:
        return self._most

    def predict(self, texts: Any, **search: Any) -> Any:
        self.asked.append((texts, search))
        if isinstance(texts, str):
            return self._answer(texts, self.config.search.model_copy(update=search))
        return [self._answer(text, self.config.search.model_copy(update=search)) for text in texts]

    def stream(self, text: str, **search: Any) -> Iterator[str]:
        self.streamed += 1
        answer = self._answer(text, self.config.search.model_copy(update=search)).text
        for start in range(0, len(answer), 3):
            yield answer[start : start + 3]

    def score_tokens(self, pairs: Sequence[tuple[str, str]]) -> tuple[np.ndarray, np.ndarray]:
        tokens = np.array([len(target.split()) + 1 for _, target in pairs])
        return -0.5 * tokens, tokens

    def _answer(self, text: str, search: SearchConfig) -> Prediction:
        best = f"{text.upper()} drawn {search.seed}" if search.sample else text.upper()
        others = [self._told(text, f"{best} {rank}", -float(rank)) for rank in range(2, search.nbest + 1)]
        first = self._told(text, best, -1.0)
        return Prediction(**{**vars(first), "alternatives": others})

    def _told(self, source: str, text: str, score: float) -> Prediction:
        read, said = [*source.split(), "</s>"], [*text.split(), "</s>"]
        attention = np.full((len(said), len(read)), 0.1, dtype=np.float32)
        attention[range(len(said)), [min(place, len(read) - 1) for place in range(len(said))]] = 1.0
        return Prediction(text, score, said, read, attention, len(read) > self.max_source, unknown=read.count("?"))
