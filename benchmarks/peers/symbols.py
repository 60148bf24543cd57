"""The same symbols for everybody: pairs are cut once and written as text separated by spaces."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import antiphon
from antiphon.data.tokenizer import Tokenizer

SUBWORDS = 10000


def write_symbols(corpus: Path, folder: Path, kind: Literal["subwords", "letters"]) -> None:
    """Train and dev pairs of a corpus made by `antiphon data`, in three forms: two files a side, and TSV."""
    pairs = {part: antiphon.read_pairs(corpus / f"{part}.tsv") for part in ("train", "dev")}
    texts = [text for pair in pairs["train"] for text in (pair.source, pair.target)]
    tokenizer = Tokenizer.train(texts, kind="bpe", vocabulary=SUBWORDS) if kind == "subwords" else None

    def cut(text: str, *, target: bool) -> str:
        if tokenizer is not None:
            return " ".join(tokenizer.tokens(tokenizer.encode(text)))
        return text if target else " ".join(text)

    for part, found in pairs.items():
        rows = [(cut(pair.source, target=False), cut(pair.target, target=True)) for pair in found]
        for ending, lines in (
            ("src", [source for source, _ in rows]),
            ("tgt", [target for _, target in rows]),
            ("tsv", [f"{source}\t{target}" for source, target in rows]),
        ):
            (folder / f"{part}.{ending}").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
