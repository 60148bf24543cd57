"""From steps to answers: greedy, beam, sampling. numpy only; search knows no model, only the Engine protocol."""

from antiphon.search.beam import beam
from antiphon.search.ensemble import Ensemble
from antiphon.search.greedy import greedy, likeliest, stream_greedy
from antiphon.search.hypothesis import Hypothesis
from antiphon.search.rerank import rerank
from antiphon.search.sample import Lottery, sample, stream_sample
from antiphon.search.step import Engine, Rows, StepOutput
from antiphon.search.walk import Walk

__all__ = [
    "Engine",
    "Ensemble",
    "Hypothesis",
    "Lottery",
    "Rows",
    "StepOutput",
    "Walk",
    "beam",
    "greedy",
    "likeliest",
    "rerank",
    "sample",
    "stream_greedy",
    "stream_sample",
]
