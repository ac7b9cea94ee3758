"""Commands that torchrun starts in several processes, on one machine or many.

The first process runs the command. The others take part in every distributed fit: they receive the module
from the first, so they need no data. A process group exists during a fit only, as minutes or hours may pass
between two fits, in which the others are idle.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
from rich.console import Console
from torch import distributed
from torch._C._distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from conf.checks import require

T = TypeVar("T")
Job = Callable[[Console | None], None]
"""A process's part of a fit, given the console to report to."""
STORE_TIMEOUT = timedelta(days=7)
"""Longest wait of the other processes for the first, which prepares, embeds, ranks and evaluates alone."""


def launched() -> int:
    """Return the number of processes that torchrun has started; 1 without torchrun."""
    return int(os.environ["WORLD_SIZE"]) if distributed.is_torchelastic_launched() else 1


@dataclass
class _ProcessGroup:
    """The processes that torchrun has started, and the number of their fits so far."""

    store: Store
    rank: int
    ranks: int
    fits: int = 0

    @contextmanager
    def group(self, device: str) -> Iterator[None]:
        """Form the process group of the next fit."""
        if device == "cuda":
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        distributed.init_process_group(
            "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo",
            store=PrefixStore(f"group{self.fits}", self.store),
            rank=self.rank,
            world_size=self.ranks,
        )
        try:
            yield
        finally:
            distributed.destroy_process_group()
            self.fits += 1

    def announce(self, message: str) -> None:
        """Publish the next fit's device, or the end."""
        self.store.set(f"next{self.fits}", message)

    def follow(self) -> None:
        """Take part in every fit until the end is announced."""
        while (device := self.store.get(f"next{self.fits}").decode()) != "end":
            with self.group(device):
                _broadcast_job(None)(None)


_group: _ProcessGroup | None = None


def _broadcast_job(job: Job | None) -> Job:
    """Broadcast the job of the first process; the others pass None."""
    jobs = [job]
    distributed.broadcast_object_list(jobs, device=torch.device("cpu"))
    assert jobs[0] is not None
    return jobs[0]


def run_in_all(job: Job, device: torch.device, console: Console | None) -> None:
    """Run a fit's job in every process that torchrun has started; called by the first."""
    assert _group is not None, "shelfwise was not started by its command"
    _group.announce(device.type)
    with _group.group(device.type):
        _broadcast_job(job)(console)


def run_command(command: Callable[[], T], devices: int) -> T | None:
    """Run a command in the first process that torchrun has started, and its distributed fits in all.

    Args:
        command: the command.
        devices: the key `devices`.

    Returns:
        What the command returns, and None in the other processes.

    Raises:
        InputError: `devices` contradicts torchrun.

    """
    global _group
    ranks = launched()
    if ranks == 1:
        return command()
    require(
        devices in (0, ranks),
        f"devices={devices}: torchrun has started {ranks} processes, which train together; set devices=0",
    )
    store, rank, _ = next(rendezvous("env://"))
    store.set_timeout(STORE_TIMEOUT)
    _group = _ProcessGroup(store, rank, ranks)
    try:
        if rank > 0:
            _group.follow()
            return None
        return command()
    finally:
        if rank == 0:
            _group.announce("end")
        _group = None
