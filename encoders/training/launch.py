"""Commands that torchrun starts in several processes, on one machine or many.

The first process carries out the command. The others wait, and take part in every fit that is shared: they
get the module from the first, so they need no data. A process group exists while a fit lasts, no longer:
between two fits lie minutes or hours in which only the first has work.
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
"""Part of a fit: what every process does, reporting to the console that it is given."""
PATIENCE = timedelta(days=7)
"""How long processes wait for the first one, which prepares, embeds, ranks and evaluates alone."""


def launched() -> int:
    """Return how many processes torchrun has started together; 1 where it has not."""
    return int(os.environ["WORLD_SIZE"]) if distributed.is_torchelastic_launched() else 1


@dataclass
class _Company:
    """The processes that torchrun has started, and how many fits they have shared."""

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

    def tell(self, word: str) -> None:
        """Say what comes next: on which device a fit is shared, or the end."""
        self.store.set(f"next{self.fits}", word)

    def follow(self) -> None:
        """Take part in every fit until the end."""
        while (device := self.store.get(f"next{self.fits}").decode()) != "end":
            with self.group(device):
                _handed_over(None)(None)


_company: _Company | None = None


def _handed_over(job: Job | None) -> Job:
    """Return the job of the first process in all of them."""
    box = [job]
    distributed.broadcast_object_list(box, device=torch.device("cpu"))
    assert box[0] is not None
    return box[0]


def share(job: Job, device: torch.device, console: Console | None) -> None:
    """Carry out a part of a fit in every process that torchrun has started; called by the first of them."""
    assert _company is not None, "shelfwise was not started by its command"
    _company.tell(device.type)
    with _company.group(device.type):
        _handed_over(job)(console)


def lead(command: Callable[[], T], devices: int) -> T | None:
    """Carry out a command in the first process that torchrun has started, and its shared fits in all.

    Args:
        command: what to do.
        devices: the key; processes that are not to train together need not be started.

    Returns:
        What the command returns, and None in the other processes.

    Raises:
        InputError: `devices` contradicts torchrun.

    """
    global _company
    ranks = launched()
    if ranks == 1:
        return command()
    require(
        devices in (0, ranks),
        f"devices={devices}: torchrun has started {ranks} processes, which train together; set devices=0",
    )
    store, rank, _ = next(rendezvous("env://"))
    store.set_timeout(PATIENCE)
    _company = _Company(store, rank, ranks)
    try:
        if rank > 0:
            _company.follow()
            return None
        return command()
    finally:
        if rank == 0:
            _company.tell("end")
        _company = None
