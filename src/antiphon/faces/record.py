"""A prediction as JSON: what ``antiphon predict --json`` prints and the server answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from antiphon.model import Prediction


def as_record(source: str, prediction: Prediction, *, attention: bool) -> dict[str, Any]:
    """The answer to a source, with its alternatives; on demand with tokens and attention."""
    record: dict[str, Any] = {
        "source": source,
        "text": prediction.text,
        "score": round(float(prediction.score), 6),
        "truncated": prediction.truncated,
        "unknown": prediction.unknown,
        "alternatives": [
            {"text": other.text, "score": round(float(other.score), 6)} for other in prediction.alternatives
        ],
    }
    return {**record, **looks(prediction)} if attention else record


def looks(prediction: Prediction) -> dict[str, Any]:
    """What each token looked at: ``source_tokens`` (S,), ``tokens`` (T,), ``attention`` (T, S)."""
    return {
        "source_tokens": list(prediction.source_tokens),
        "tokens": list(prediction.tokens),
        "attention": [[round(float(weight), 4) for weight in row] for row in prediction.attention],
    }
