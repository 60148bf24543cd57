"""Data without end: read by spans, by several processes, dealt to shards; nothing depends on how it was cut."""

from __future__ import annotations

import functools
import signal
import time
import tracemalloc
from pathlib import Path
from uuid import uuid4

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

import antiphon
import small_runs
from antiphon.config import load_config
from antiphon.data import pairs as pairs_module
from antiphon.data import store as store_module
from antiphon.data import workers
from antiphon.data.corpus import Pairs, read_corpus, scan
from antiphon.data.pairs import Span, read_pairs, spans_of, write_pairs
from antiphon.data.store import Shards
from antiphon.data.workers import over
from antiphon.errors import AntiphonError, DataError
from antiphon.runtime import folder as files
from antiphon.training.preparation import prepare

LINES = st.lists(
    st.sampled_from(["a b\tc", "d\te f", "", "g\t", "a b\th", "ü\tñ", "i\tj\r", " \t "]), min_size=1, max_size=40
)


def write_random(path: Path, count: int) -> Path:
    small_runs.write_pairs(path, count)
    return path


@settings(max_examples=60)
@given(lines=LINES, size=st.integers(1, 9), ended=st.booleans(), kind=st.sampled_from(["tsv", "parallel", "dialogue"]))
def test_spans_hold_what_the_whole_holds(tmp_path_factory, lines: list[str], size: int, ended: bool, kind: str) -> None:
    folder = tmp_path_factory.mktemp("spans")
    data = str(folder / f"pairs.{kind}")
    if kind == "parallel":
        columns = [line.split("\t") if "\t" in line else ["", ""] for line in lines]
        for name, side in (("s", 0), ("t", 1)):
            text = "\n".join(column[side] for column in columns) + "\n"
            (folder / name).write_bytes(text.encode())
        data = f"{folder}/s,{folder}/t"
    else:
        Path(data).write_bytes(("\n".join(lines) + ("\n" if ended else "")).encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pairs_module, "SPAN_LINES", 10**6)
        whole = list(Pairs(tuple(spans_of(data))))
        patch.setattr(pairs_module, "SPAN_LINES", size)
        spans = spans_of(data)
        assert list(Pairs(tuple(spans))) == whole
    assert [span.line for span in spans] == [1 + size * n for n in range(len(spans))]


@settings(max_examples=40)
@given(
    sources=st.lists(st.sampled_from("abcdefghijkl"), min_size=2, max_size=60).filter(lambda s: len(set(s)) > 1),
    size=st.integers(1, 9),
    dev_pairs=st.integers(1, 4),
)
def test_what_is_held_out_does_not_depend_on_spans(tmp_path_factory, sources, size: int, dev_pairs: int) -> None:
    path = tmp_path_factory.mktemp("held") / "pairs.tsv"
    write_pairs(path, [(source, str(n)) for n, source in enumerate(sources)])
    with pytest.MonkeyPatch.context() as patch:
        whole = read_corpus(path, dev_pairs=dev_pairs)
        patch.setattr(pairs_module, "SPAN_LINES", size)
        cut = read_corpus(path, dev_pairs=dev_pairs)
        assert (list(cut.train), list(cut.dev)) == (list(whole.train), list(whole.dev))
        assert (len(cut.train), len(cut.dev)) == (len(list(cut.train)), len(list(cut.dev)))


def test_mistakes_are_told_by_their_line_in_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairs_module, "SPAN_LINES", 10)
    path = tmp_path / "pairs.tsv"
    for wrong, message in ((b"one column", "one column"), (b"caf\xe9\tb", r"not UTF-8 \(byte 0xe9 at offset 131\)")):
        path.write_bytes(b"a\tb\n" * 32 + wrong + b"\na\tb\n")
        with pytest.raises(DataError, match=rf"{message}.*pairs\.tsv:33"):
            read_corpus(path)


def _length(span: Span, *, wrong: int) -> tuple[int, str]:
    if span.line == wrong:
        raise DataError("wrong", where=f"line {span.line}", cure="none")
    return span.line, "x" * 200_000  # more than a pipe holds


def test_processes_answer_in_order_and_hand_on_mistakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairs_module, "SPAN_LINES", 10)
    monkeypatch.setattr(workers, "_cores", lambda: 2)
    spans = spans_of(write_random(tmp_path / "pairs.tsv", 200))
    seen = over(functools.partial(scan, dev_pairs=3), spans)
    assert list(seen) == [scan(span, dev_pairs=3) for span in spans]
    found = over(functools.partial(_length, wrong=121), spans)
    lines = []
    with pytest.raises(DataError, match="wrong, line 121; none"):
        lines += [line for line, _ in found]
    with pytest.raises(AntiphonError, match="ended by something else"):
        list(over(_killed, spans))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells what a process ignores")
def test_a_process_leaves_ctrl_c_to_whom_it_works_for() -> None:
    worker = workers._started()
    end, ignored = time.monotonic() + 30, 0
    while not ignored >> (signal.SIGINT - 1) & 1:
        assert time.monotonic() < end
        status = Path(f"/proc/{worker.pid}/status").read_text(encoding="ascii")
        ignored = int(status.partition("SigIgn:")[2].split()[0], 16)
    worker.send_signal(signal.SIGINT)
    workers._give(worker, len)
    workers._give(worker, [1, 2, 3])
    assert workers._result(worker) == 3
    worker.communicate()


def _killed(span: Span) -> None:
    import os
    import signal

    os.kill(os.getpid(), signal.SIGKILL)


def test_preparing_by_processes_and_spans_gives_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_random(tmp_path / "pairs.tsv", 300)
    config = load_config(None, {"data": {"vocabulary": 40, "dev_pairs": 10}})

    def made(name: str):
        folder = tmp_path / name
        folder.mkdir()
        prepared = prepare(read_corpus(path, dev_pairs=10), config, folder)
        source, target, _ = prepared.train.shard(0)
        rows = [row.tolist() for row in source], [row.tolist() for row in target]
        return prepared.source_tokenizer.to_json(), rows, prepared.plan, prepared.train.counts.tolist()

    whole = made("whole")
    monkeypatch.setattr(pairs_module, "SPAN_LINES", 16)
    assert made("cut") == whole
    monkeypatch.setattr(workers, "_cores", lambda: 2)
    assert made("many") == whole


def test_reading_needs_no_more_memory_for_more_pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pairs_module, "SPAN_LINES", 256)
    monkeypatch.setattr(store_module, "SHARD_PAIRS", 512)
    monkeypatch.setattr(store_module, "SPOOL_BYTES", 1 << 16)
    monkeypatch.setattr(workers, "_cores", lambda: 1)
    config = load_config(None, {"data": {"tokenizer": "symbol", "dev_pairs": 20}})
    peaks = []
    for count in (2_000, 2_000, 20_000):  # the first warms caches
        path = write_random(tmp_path / f"{len(peaks)}.tsv", count)
        folder = tmp_path / f"run-{len(peaks)}"
        folder.mkdir()
        tracemalloc.start()
        prepared = prepare(read_corpus(path, dev_pairs=20), config, folder)
        for turn in range(prepared.shards):
            prepared.stream(0, turn).batch(0, 0)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert prepared.shards == len(prepared.train) // 512 + 1
    assert peaks[2] < 1.3 * peaks[1], peaks


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_resumed_equals_never_stopped_over_shards_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dropout: float
) -> None:
    monkeypatch.setattr(store_module, "SHARD_PAIRS", 40)
    path = write_random(tmp_path / "pairs.tsv", 200)

    def knobs(name: str) -> dict[str, dict]:
        data = {"tokenizer": "bpe", "vocabulary": 40, "subword_dropout": dropout, "dev_pairs": 10, "joined": 0}
        train = {"batch_size": 8, "validate_every": 9, "dev_answers": 0}
        return small_runs.knobs(updates=45, data={**data, "ids": f"memory://{name}"}, train=train)

    names = [uuid4().hex for _ in range(2)]
    antiphon.train(path, tmp_path / "whole", knobs=knobs(names[0]))
    first = antiphon.train(path, tmp_path / "parts", knobs=knobs(names[1]), observer=small_runs.Watcher(stop_at=18))
    assert not first.finished
    second = antiphon.train(path, tmp_path / "parts", resume=True)
    assert second.finished
    assert len(Shards.open(f"memory://{names[0]}", "train").pairs) == 5
    assert not (tmp_path / "parts" / files.IDS).exists()
    states = [load_file(tmp_path / name / files.STATE) for name in ("whole", "parts")]
    for key, tensor in states[0].items():
        assert torch.equal(tensor, states[1][key]), key


def test_every_pair_comes_once_an_epoch_in_a_new_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "SHARD_PAIRS", 30)
    path = tmp_path / "pairs.tsv"
    write_pairs(path, [(f"s{n}", f"t{n}") for n in range(200)])
    config = load_config(None, {"data": {"tokenizer": "symbol", "vocabulary": 1000}, "train": {"batch_size": 4}})
    (tmp_path / "run").mkdir()
    prepared = prepare(read_corpus(path), config, tmp_path / "run")
    orders = []
    for epoch in (0, 1):
        rows = [row for batch in prepared.batches(epoch) for row in batch.tgt_out[: batch.rows, 0].tolist()]
        texts = prepared.target_tokenizer.tokens(rows)
        assert sorted(texts) == sorted(pair.target for pair in read_corpus(path).train)
        orders.append(texts)
    assert orders[0] != orders[1]


def test_ids_of_another_run_are_not_written_over(tmp_path: Path) -> None:
    path, address = write_random(tmp_path / "pairs.tsv", 50), f"memory://{uuid4().hex}"
    knobs = {"data": {"tokenizer": "symbol", "ids": address}, "train": {"max_updates": 1, "dev_answers": 0}}
    antiphon.train(path, tmp_path / "one", knobs=knobs)
    with pytest.raises(antiphon.FolderError, match="there are token ids already"):
        antiphon.train(path, tmp_path / "other", knobs=knobs)
    assert len(read_pairs(path)) == 50
