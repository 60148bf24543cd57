"""A job done on every span of a corpus, by as many processes as there are cores.

The processes are plain ones that read jobs from a pipe: not forked from this one, which may have threads, and not made
by `multiprocessing`, which would run a user's script again in each. They read the files themselves, so that little goes
through the pipes but results.
"""

from __future__ import annotations

import gc
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from antiphon.data.pairs import Span
from antiphon.errors import AntiphonError

FEWEST_SPANS = 3
"""Spans for each process that make it worth starting (a third of a second)."""
AHEAD = 2
"""Spans a process has been given and not yet handed back."""

Found = TypeVar("Found")


def over(job: Callable[[Span], Found], spans: Sequence[Span]) -> Iterator[Found]:
    """``job(span)`` of every span, in their order, whoever does it.

    Args:
        job: can be pickled, as its result can; raises nothing but AntiphonError.

    Raises:
        AntiphonError: what the job raised; or a process was killed.
    """
    count = min(_cores(), len(spans) // FEWEST_SPANS)
    if count < 2:
        yield from map(job, spans)
        return
    workers: list[subprocess.Popen[bytes]] = []
    try:
        for _ in range(count):
            workers.append(_started())
        for worker in workers:  # all are starting: to give the first its job is to wait until it reads
            _give(worker, job)
        for number, span in enumerate(spans[: AHEAD * count]):
            _give(workers[number % count], span)
        for number in range(len(spans)):
            worker = workers[number % count]
            found = _result(worker)
            if number + AHEAD * count < len(spans):
                _give(worker, spans[number + AHEAD * count])
            yield found
    finally:
        for worker in workers:
            worker.kill()
        for worker in workers:
            worker.communicate()


def serve() -> None:
    """Such a process: a job comes first, then spans; each is answered. It ends when nothing more can come."""
    gc.disable()  # millions of small lists, and no cycles among them
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what is printed by mistake must not stand among the answers
    job = pickle.load(sys.stdin.buffer)
    while True:
        try:
            span = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        try:
            answer: tuple[Any, ...] = True, job(span)
        except AntiphonError as error:
            answer = False, type(error), error.what, error.where, error.cure
        pickle.dump(answer, answers, protocol=5)
        answers.flush()


def _started() -> subprocess.Popen[bytes]:
    deaf = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"  # whoever gives the job decides
    code = f"{deaf}; import sys; sys.path[:] = {sys.path!r}; from antiphon.data.workers import serve; serve()"
    alone = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, **alone, "TOKENIZERS_PARALLELISM": "false"},
    )


def _give(worker: subprocess.Popen[bytes], thing: Any) -> None:
    assert worker.stdin is not None, "made with a pipe"
    try:
        pickle.dump(thing, worker.stdin, protocol=5)
        worker.stdin.flush()
    except BrokenPipeError:
        raise _gone() from None


def _result(worker: subprocess.Popen[bytes]) -> Any:
    assert worker.stdout is not None, "made with a pipe"
    try:
        done, *answer = pickle.load(worker.stdout)
    except (EOFError, pickle.UnpicklingError):
        raise _gone() from None
    if done:
        return answer[0]
    kind, what, where, cure = answer
    raise kind(what, where=where, cure=cure)


def _gone() -> AntiphonError:
    return AntiphonError("a process that reads the data was ended by something else", cure="is there enough memory?")


def _cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on Linux
        return os.cpu_count() or 1
