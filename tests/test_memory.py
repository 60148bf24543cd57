"""Memory that training holds in vain."""

from __future__ import annotations

import sys

import pytest
import torch

from antiphon.training import memory


def test_the_heap_is_given_back_when_it_has_grown_and_not_before(monkeypatch):
    given = []
    monkeypatch.setattr(memory, "give_back", lambda: given.append(True))
    heap = memory.Heap()
    seen = [100, 120, 125, 126, 60, 110, 130, 137, 138]
    # 100 is what work takes; 126 is a quarter more. Then work takes 60, 110 is more again, and so on
    assert [now for now in seen if heap.tidy(now)] == [126, 110]
    assert len(given) == 2


@pytest.mark.skipif(sys.platform != "linux", reason="others do not tell what a process holds")
def test_what_a_process_holds_is_told_in_bytes():
    before = memory.resident()
    held = torch.ones(50_000_000)
    assert 150e6 < memory.resident() - before < 400e6
    del held
