"""The model card: what a stranger should know of a trained folder, written from its own facts."""

from __future__ import annotations

from pathlib import Path

from antiphon.config import Config
from antiphon.data.pairs import Card
from antiphon.runtime.folder import CARD, write_text
from antiphon.training.progress import Stopped
from antiphon.version import VERSION


def write_card(folder: Path, config: Config, card: Card | None, pairs: int, stopped: Stopped) -> None:
    """Writes ``README.md``. Raises SaveError."""
    model, data = config.model, config.data
    licence = (card.licence if card else "") or "not stated"
    width = model.encoder_hidden or model.hidden
    encoder = f"{model.encoder_layers} x {width}{' per direction' if model.bidirectional else ''}"
    lines = [
        f"# {folder.resolve().name}",
        "",
        f"A recurrent sequence-to-sequence model with attention, made by Antiphon {VERSION}.",
        "",
        "| | |",
        "|---|---|",
        f"| data | {card.name if card else 'pairs'}: {pairs:,} pairs to learn from |",
        f"| licence of the data | {licence} |",
        f"| origin | {(card.origin if card else '') or 'not stated'} |",
        f"| citation | {(card.citation if card else '') or 'none'} |",
        f"| encoder | {model.cell.upper()} {encoder} |",
        f"| decoder | {model.cell.upper()} {model.decoder_layers} x {model.hidden}, attention: {model.attention} |",
        f"| tokens | {data.tokenizer}, at most {data.vocabulary:,} |",
        f"| best dev {stopped.metric} | {stopped.best_score:.4f} at update {stopped.best_update:,} |",
        f"| training | {stopped.update:,} updates, {stopped.seconds / 60:.1f} minutes, seed {config.train.seed}; "
        f"stopped: {stopped.reason} |",
        "",
        'Use it: `antiphon predict FOLDER "some text"`, or `antiphon chat FOLDER`, FOLDER being where this page lies.',
        "",
    ]
    write_text(folder / CARD, "\n".join(lines))
