"""From steps to answers: greedy, beam, sampling. numpy only; search knows no model, only the Engine protocol."""

from antiphon.search.beam import beam
from antiphon.search.greedy import greedy, stream_greedy
from antiphon.search.hypothesis import Hypothesis
from antiphon.search.rerank import rerank
from antiphon.search.sample import sample, stream_sample
from antiphon.search.step import Engine, Rows, StepOutput

__all__ = [
    "Engine",
    "Hypothesis",
    "Rows",
    "StepOutput",
    "beam",
    "greedy",
    "rerank",
    "sample",
    "stream_greedy",
    "stream_sample",
]
