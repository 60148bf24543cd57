"""One run by several processes, on one machine or many: whose rows, the sum of gradients, one clock, one who leads.

The batch of an update is the one that a single process would take, whatever the number of processes: process r of n
takes its rows r, r + n, r + 2n, … So all have the same shape at the same time and nearly the same number of tokens, an
update is the same update, and where a run stands does not depend on how many processes ran it: n may save, m go on.

Whoever starts the processes (torchrun, Slurm, a shell) says who they are in the variables of torch.distributed: RANK,
WORLD_SIZE, MASTER_ADDR, MASTER_PORT. Tensors on a CPU go by gloo, those on a GPU by NCCL. Process 0 leads: it reads
the data, validates, saves and tells; meanwhile the others wait for its pulse. Its clock is everybody's, so that all
come to the same decision about rate, validation and end.

An update sends one buffer with all dense gradients, and in it what else has to be agreed on. Of tables with row-sparse
gradients only the rows that were touched are sent.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.graph import increment_version

from antiphon.errors import AntiphonError, LinkError, UsageError

JOIN_SECONDS = 300.0
"""Longest wait for all processes to start."""
PIECE = 1 << 22
"""Numbers of an array that are sent at once: none waits longer than these take."""
PULSES = 4
"""Signs of life of a busy leader in the time after which it would be given up."""

Found = TypeVar("Found")


class Peers:
    """The processes of a run as one of them sees it; alone, nothing is sent and nothing is waited for.

    Args:
        rank: which one this is, from 0.
        size: how many there are.
        seconds: longest wait for an answer.
        begun: when this sitting began, of `time.monotonic`.
    """

    def __init__(self, rank: int = 0, size: int = 1, *, seconds: float = 60.0, begun: float = 0.0) -> None:
        self.rank, self.size = rank, size
        self._patience, self._begun = seconds, begun
        self._agreed = 0.0
        self._group: dist.ProcessGroup | None = None
        if size > 1:
            self._group = dist.new_group(timeout=timedelta(seconds=seconds))  # type: ignore[assignment]
        self._flat: Tensor = torch.empty(0)

    @property
    def leads(self) -> bool:
        """Whether this process is the one that validates, saves and tells."""
        return self.rank == 0

    @property
    def seconds(self) -> float:
        """Since the sitting began: of one process now, of several the leader's time when they last agreed on it."""
        return self._agreed if self.size > 1 else self._own_seconds()

    def threads(self) -> int:
        """CPU threads for each process of this machine."""
        try:
            cores = len(os.sched_getaffinity(0))
        except AttributeError:  # not on Linux
            cores = os.cpu_count() or 1
        return max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", self.size)))

    def align(self, parameters: Sequence[Tensor]) -> None:
        """Everybody takes over the leader's values."""
        if self.size > 1:
            with self._linked():
                for parameter in parameters:
                    dist.broadcast(parameter.detach(), 0, group=self._group)
                    increment_version(parameter)  # what was derived from the old values is out of date

    def meet(self) -> None:
        """Waits until all are here."""
        if self.size > 1:
            with self._linked():
                dist.all_reduce(torch.zeros(1), group=self._group)

    def any(self, flag: bool) -> bool:
        """Whether a process says so."""
        if self.size == 1:
            return flag
        with self._linked():
            told = torch.tensor([float(flag), self._leaders_seconds()])
            dist.all_reduce(told, group=self._group)
        found, self._agreed = told.tolist()
        return found > 0

    def join(self, *arrays: np.ndarray) -> None:
        """Arrays in which every number is one process's, and 0 at the others, become whole, in place."""
        if self.size == 1:
            return
        with self._linked():
            for array in arrays:
                for piece in torch.from_numpy(array).view(-1).split(PIECE):
                    dist.all_reduce(piece, group=self._group)

    def sum_gradients(self, dense: Sequence[nn.Parameter], sparse: Sequence[nn.Parameter], *told: float) -> list[float]:
        """Every gradient becomes the sum over all processes; a dense one that nobody has stays None, as when alone.

        Args:
            dense: parameters in an order that is the same everywhere.
            sparse: parameters with row-sparse gradients.
            told: numbers to be summed up too.

        Returns:
            The sums of the numbers.

        Raises:
            LinkError: another process is gone or does not answer.
        """
        if self.size == 1:
            return list(told)
        with self._linked():
            sums = self._sum_dense(dense, [*told, self._leaders_seconds()])
            self._agreed = sums.pop()
            if sparse:
                self._gather_rows(sparse)
        return sums

    def _own_seconds(self) -> float:
        return time.monotonic() - self._begun

    def _leaders_seconds(self) -> float:
        """Its time at the leader and 0 elsewhere, to be summed."""
        return self._own_seconds() if self.leads else 0.0

    def _sum_dense(self, parameters: Sequence[nn.Parameter], told: Sequence[float]) -> list[float]:
        sizes = [p.numel() for p in parameters]
        numbers = [*told, *(float(p.grad is not None) for p in parameters)]
        if not len(self._flat):
            self._flat = torch.empty(sum(sizes) + len(numbers), device=parameters[0].device)
        *parts, last = self._flat.split([*sizes, len(numbers)])
        for part, parameter in zip(parts, parameters, strict=True):
            if parameter.grad is None:
                part.zero_()
            else:
                part.copy_(parameter.grad.flatten())
        last.copy_(torch.tensor(numbers))
        dist.all_reduce(self._flat, group=self._group)
        sums, owners = last.split([len(told), len(parameters)])
        for part, parameter, owned in zip(parts, parameters, owners.tolist(), strict=True):
            parameter.grad = part.view_as(parameter) if owned else None
        return sums.tolist()

    def _gather_rows(self, parameters: Sequence[nn.Parameter]) -> None:
        """Row numbers travel as the bits of floats, before the rows: one buffer a process, padded to the longest."""
        found = [_rows(parameter) for parameter in parameters]
        counts = torch.tensor([len(rows) for rows, _ in found], device=parameters[0].device)
        all_counts = [torch.empty_like(counts) for _ in range(self.size)]
        dist.all_gather(all_counts, counts, group=self._group)
        widths = [1 + p[0].numel() for p in parameters]
        sizes = [[c * w for c, w in zip(each.tolist(), widths, strict=True)] for each in all_counts]
        mine = torch.cat(
            [part for rows, values in found for part in (rows.int().view(torch.float32), values.flatten())]
        )
        longest = max(map(sum, sizes))
        mine = torch.cat((mine, mine.new_zeros(longest - len(mine))))
        received = [torch.empty_like(mine) for _ in range(self.size)]
        dist.all_gather(received, mine, group=self._group)
        of_each = [buffer.split([*size, longest - sum(size)]) for buffer, size in zip(received, sizes, strict=True)]
        for number, parameter in enumerate(parameters):
            rows, values = [], []
            for pieces, each in zip(of_each, all_counts, strict=True):
                count = int(each[number])
                rows.append(pieces[number][:count].view(torch.int32))
                values.append(pieces[number][count:].view(count, *parameter.shape[1:]))
            indices = torch.cat(rows).long().unsqueeze(0)
            parameter.grad = torch.sparse_coo_tensor(
                indices, torch.cat(values), parameter.shape, check_invariants=False
            )

    def lead(self, work: Callable[[], Found]) -> Found:
        """What the leader's ``work`` returns, on all processes; the others wait, however long it takes.

        Args:
            work: done by the leader alone; what it returns must be JSON.

        Raises:
            AntiphonError: what ``work`` raised, on all processes.
            LinkError: another process is gone or does not answer.
        """
        if self.size == 1:
            return work()
        tree = self._led(work) if self.leads else self._followed()
        self._agreed = tree["seconds"]
        if "error" in tree:
            raise AntiphonError(tree["error"][0], where=tree["error"][1], cure=tree["error"][2])
        return tree["found"]

    def _led(self, work: Callable[[], Any]) -> dict[str, Any]:
        done, lost = threading.Event(), []

        def pulse() -> None:
            try:
                while not done.wait(self._patience / PULSES):
                    dist.broadcast(torch.zeros(1, dtype=torch.int64), 0, group=self._group)
            except RuntimeError as error:
                lost.append(error)

        thread = threading.Thread(target=pulse, daemon=True)
        thread.start()
        tree: dict[str, Any] = {}
        fault: AntiphonError | None = None
        try:
            tree["found"] = work()
        except AntiphonError as error:
            fault = error
            tree["error"] = error.what, error.where, error.cure
        finally:
            done.set()
            thread.join()
        tree["seconds"] = self._own_seconds()
        text = torch.frombuffer(bytearray(json.dumps(tree).encode()), dtype=torch.uint8)
        with self._linked():
            if lost:
                raise lost[0]
            dist.broadcast(torch.tensor([len(text)]), 0, group=self._group)
            dist.broadcast(text, 0, group=self._group)
        if fault is not None:
            raise fault
        return tree

    def _followed(self) -> dict[str, Any]:
        length = torch.zeros(1, dtype=torch.int64)
        with self._linked():
            while not length:
                dist.broadcast(length, 0, group=self._group)
            text = torch.empty(int(length), dtype=torch.uint8)
            dist.broadcast(text, 0, group=self._group)
        return json.loads(text.numpy().tobytes())

    @contextlib.contextmanager
    def _linked(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:  # gloo's, NCCL's and the store's errors are all of this class
            raise _lost(error, self.rank, self.size, f"no answer within {self._patience:g} s") from None


@contextlib.contextmanager
def joined(seconds: float, begun: float) -> Iterator[Peers]:
    """Joins the processes of this run, if a launcher started several.

    Within itself it only counts the time anew: to part and meet again at one address would take luck.

    Args:
        seconds: longest wait for an answer while training.
        begun: when the sitting began, of `time.monotonic`.

    Raises:
        UsageError: the launcher's variables are not all there.
        LinkError: the others cannot be reached.
    """
    size = _number("WORLD_SIZE", 1)
    if size == 1:
        yield Peers(begun=begun)
        return
    rank, already = _number("RANK", None), dist.is_initialized()
    master = os.environ.get("MASTER_ADDR", ""), _number("MASTER_PORT", None)
    if "GLOO_SOCKET_IFNAME" not in os.environ and (name := _interface_towards(master[0], master[1])):
        os.environ["GLOO_SOCKET_IFNAME"] = name
    try:
        # each device has its own way: a CPU's tensors go by gloo, a GPU's by NCCL
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        if not already:
            dist.init_process_group(backend, timeout=timedelta(seconds=JOIN_SECONDS))
        peers = Peers(rank, size, seconds=seconds, begun=begun)
    except (RuntimeError, ValueError) as error:
        raise _lost(error, rank, size, f"not all {size} started within {JOIN_SECONDS:g} s") from None
    try:
        yield peers
    finally:
        if not already:
            with contextlib.suppress(RuntimeError):
                dist.destroy_process_group()


def _lost(error: Exception, rank: int, size: int, late: str) -> LinkError:
    text = " ".join(str(error).split())
    reason = late if "imed out" in text or "imeout" in text else text[:160]
    return LinkError(
        f"process {rank} of {size} lost touch with the others ({reason})",
        where=f"host {socket.gethostname()}",
        cure="see what ended them or cut them off, then start all again with --resume",
    )


def _number(name: str, otherwise: int | None) -> int:
    value = os.environ.get(name, "" if otherwise is None else str(otherwise))
    if not value.isascii() or not value.isdigit():
        raise UsageError(
            f"the launcher's variable {name} is {value or 'missing'}", cure="start with torchrun, or set it to a number"
        )
    return int(value)


def _rows(parameter: nn.Parameter) -> tuple[Tensor, Tensor]:
    """Touched rows (k,) and their gradients (k, ...), each row once."""
    if parameter.grad is None:
        empty = torch.zeros(0, dtype=torch.int64, device=parameter.device)
        return empty, parameter.new_zeros(0, *parameter.shape[1:])
    grad = parameter.grad.coalesce()
    return grad.indices()[0], grad.values()


def _interface_towards(address: str, port: int) -> str:
    """The network interface by which this machine reaches another; gloo would ask for the host name's address, which
    on many machines is the loopback's."""
    try:
        import fcntl  # not on Windows, which goes without

        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect((address, port))  # sends nothing
            own = probe.getsockname()[0]
            for _, name in socket.if_nameindex():
                with contextlib.suppress(OSError):
                    found = fcntl.ioctl(probe.fileno(), 0x8915, struct.pack("256s", name.encode()[:15]))  # SIOCGIFADDR
                    if socket.inet_ntoa(found[20:24]) == own:
                        return name
    except (ImportError, OSError):
        pass
    return ""
