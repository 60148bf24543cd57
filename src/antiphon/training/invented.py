"""More pairs than there are: sources made up from those of the data, answered by the teachers.

What teachers say of the pairs that they learnt from is little more than those pairs. What they say of a source that
nobody has seen is new: so one model learns what they are together better at (sequence-level knowledge distillation,
Kim & Rush 2016; on unlabelled words Sun et al. 2019).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from antiphon.config import Config
from antiphon.data.corpus import Corpus
from antiphon.data.invention import invent
from antiphon.data.pairs import TURN, Pair, Span, spans_of, write_pairs
from antiphon.data.tokenizer import UNK, Tokenizer
from antiphon.model import load

FILE = "invented.tsv"
"""In the run folder."""
CHUNK = 4096
"""Sources answered between two words to whoever waits."""


def write_invented(
    corpus: Corpus, config: Config, folder: Path, source: Tokenizer, *, tell: Callable[[str], None]
) -> None:
    """Makes up ``data.invented`` times as many sources as there are, and writes them with the teachers' answers.

    Args:
        corpus: its training pairs are imitated; no source of any part is among what is made up. All are held in memory.
        config: names the teachers.
        folder: the run's.
        source: the run's tokenizer of sources.
        tell: told, in a sentence, what takes time.

    Raises:
        FolderError: a teacher is missing or damaged.
        UsageError: teachers of different tokenizers.
        SaveError: the disk refuses.
    """
    teachers = load(*config.train.teacher_folders)
    learnt = [pair.source for pair in corpus.train if TURN not in pair.source]
    rows = [row for row in source.encode_batch(learnt) if UNK not in row]
    made = invent(rows, config.data.invented * len(learnt), vocabulary=source.size, seed=config.train.seed)
    known = {source.normalise(pair.source) for part in (corpus.train, corpus.dev, corpus.test) for pair in part}
    texts = [text for text in dict.fromkeys(map(source.decode, made)) if text and text not in known]
    tell(f"{len(texts):,} sources are made up, and answered by {len(config.train.teacher_folders)} models")

    def answered() -> Iterator[Pair]:
        for start in range(0, len(texts), CHUNK):
            some = texts[start : start + CHUNK]
            if start and start // CHUNK % 5 == 0:
                tell(f"{start:,} of them are answered")
            for text, answer in zip(some, teachers.predict(some, beam=1, sample=False, mmi=0.0), strict=True):
                if answer.text:
                    yield Pair(text, answer.text)

    write_pairs(folder / FILE, answered())


def invented_spans(folder: Path) -> list[Span]:
    """What `write_invented` left; none where there is nothing."""
    return spans_of(folder / FILE) if (folder / FILE).is_file() and (folder / FILE).stat().st_size else []
