"""Commands in several processes, on one machine or many.

Processes that a launcher has started (torchrun, submitit, Ray Train: whatever sets the variables of torch's
`env://`) exist from the beginning. The first runs the command, the others take part in every distributed fit:
they receive the module from the first, so they need no data. Without a launcher, a fit starts its processes
itself. A process group exists during a fit only, as minutes or hours may pass between two fits, in which the
others are idle.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TypeVar

import torch
from rich.console import Console
from torch import distributed
from torch._C._distributed_c10d import PrefixStore, Store, TCPStore
from torch.distributed.rendezvous import rendezvous
from torch.multiprocessing.spawn import ProcessContext, ProcessException, start_processes

from conf.checks import require
from conf.errors import InputError
from encoders.training.failures import (  # fmt: skip
    clear_failures,
    end_with_parent,
    first_to_report,
    joint_failure,
    record_failure,
)
from encoders.training.handover import hand_over, take_over

T = TypeVar("T")
Job = Callable[[Console | None], None]
"""A process's part of a fit, given the console to report to."""
STORE_TIMEOUT = timedelta(days=7)
"""Longest wait of the other processes for the first, which prepares, embeds, ranks and evaluates alone."""
LEAVING = 10.0
"""Seconds that the first process, if it has the store, waits for the others to read the end in it."""
GRACE = 20.0
"""Seconds that processes have to end by themselves after one has failed."""
VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
TORCHRUN = "TORCHELASTIC_RUN_ID"
"""Variable that torchrun sets, which is the parent of each of its processes."""
JOBS = "processes"
"""Folder, in that of a fit's checkpoints, with what is handed over to its processes."""


def launched() -> int:
    """Return the number of processes that a launcher has started; 1 without a launcher."""
    return int(os.environ["WORLD_SIZE"]) if all(name in os.environ for name in VARIABLES) else 1


@dataclass
class _ProcessGroup:
    """Processes that train together, and the number of their fits so far."""

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

    def take_part(self, job: Job, device: str, checkpoints: Path, console: Console | None) -> None:
        """Carry out this process's part of the next fit; its traceback is written where it fails."""
        recorded = False
        try:
            with self.group(device):
                try:
                    job(console)
                except Exception as error:
                    # The others learn of the end of the group at once, and must find the traceback then.
                    record_failure(error, checkpoints, self.rank)
                    recorded = True
                    raise
        except Exception as error:
            if not recorded:  # forming or leaving the group has failed
                record_failure(error, checkpoints, self.rank)
            raise

    def announce(self, message: str) -> None:
        """Publish the next fit's device and folder, or the end."""
        self.store.set(f"next{self.fits}", message)

    def follow(self) -> None:
        """Take part in every fit until the end is announced."""
        while (message := self.store.get(f"next{self.fits}").decode()) != "end":
            device, checkpoints = json.loads(message)
            folder = Path(checkpoints)
            with _reporting(folder):
                self.take_part(partial(_handed_over, folder), device, folder, None)
        self.store.add("left", 1)

    def leave(self) -> None:
        """Announce the end; where the store is in this process, wait until the others have read it."""
        until = time.monotonic() + LEAVING
        with suppress(distributed.DistError):  # the store is gone, and with it the others
            self.announce("end")
            if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
                return  # torchrun has the store
            while self.store.add("left", 0) < self.ranks - 1 and time.monotonic() < until:
                time.sleep(0.05)


_group: _ProcessGroup | None = None


def _handed_over(checkpoints: Path, console: Console | None) -> None:
    """Carry out a job that another process has handed over."""
    folder = checkpoints / JOBS
    require(
        folder.is_dir(),
        f"{checkpoints} is not here; work_dir must be on a file system that all machines share, at one path",
    )
    take_over(folder)(console)


@contextmanager
def _reporting(checkpoints: Path) -> Iterator[None]:
    """Let the first of several processes that fail report for all; the others end without a message."""
    before = _handle_end()
    try:
        yield
        _restore(before)
    except Exception as error:
        if _handles_end():
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the launcher's, while this process reports
        if first_to_report(checkpoints):
            raise joint_failure(checkpoints) from error
        sys.exit(1)


def _ended(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise InputError(
        "ended by SIGTERM, as a launcher ends every process where one has failed or its time is over; "
        "the same command continues"
    )


def _handles_end() -> bool:
    return signal.getsignal(signal.SIGTERM) is _ended


def _handle_end() -> Any:  # noqa: ANN401 - whatever handles a signal
    """Report the launcher's signal as an error where nothing else handles it; return what did."""
    before = signal.getsignal(signal.SIGTERM)
    if before is signal.SIG_DFL and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _ended)
    return before


def _restore(before: Any) -> None:  # noqa: ANN401
    if _handles_end():
        signal.signal(signal.SIGTERM, before)


def train_in_all(
    job: Job, checkpoints: Path, device: torch.device, processes: int, console: Console | None
) -> None:
    """Run a fit's job in every process that a launcher has started, or else in new ones.

    Args:
        job: each process's part; handed over in files of the folder of checkpoints.
        checkpoints: that folder; the tracebacks of processes that fail remain there, too.
        device: of the fit.
        processes: their number.
        console: to report to.

    Raises:
        InputError: a process has failed.

    """
    checkpoints.mkdir(parents=True, exist_ok=True)
    clear_failures(checkpoints)
    try:
        _hand_over(job, checkpoints / JOBS)
        if launched() == 1:
            _start(checkpoints.resolve(), device, processes, console)
            return
        assert _group is not None, "shelfwise was not started by its command"
        _group.announce(json.dumps([device.type, str(checkpoints.resolve())]))
        with _reporting(checkpoints):
            _group.take_part(job, device.type, checkpoints, console)
    finally:
        shutil.rmtree(checkpoints / JOBS, ignore_errors=True)


def _hand_over(job: Job, folder: Path) -> None:
    """Write a fit's job for its processes.

    Raises:
        InputError: it cannot be written.

    """
    try:
        hand_over(job, folder)
    except OSError as error:
        raise InputError(
            f"{folder}: the arrays of a training cannot be written there ({error.strerror or error})"
        ) from error


def _start(checkpoints: Path, device: torch.device, processes: int, console: Console | None) -> None:
    """Start processes for a fit, and wait for their end."""
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    shown = console is not None and console.file is sys.stdout and not console.quiet
    threads = max(torch.get_num_threads() // processes, 1)
    # By `spawn`, because a process that has used CUDA cannot be forked.
    context: ProcessContext = start_processes(  # type: ignore[no-untyped-call]
        _begin, (processes, store.port, checkpoints, device.type, threads, shown), processes, join=False,
        start_method="spawn",
    )  # fmt: skip
    try:
        while not context.join(grace_period=GRACE):
            pass
    except ProcessException as error:
        ends = {rank: process.exitcode for rank, process in enumerate(context.processes)}
        killed = [
            f"process {rank} was killed by {signal.Signals(-code).name}, as Linux does where memory runs out"
            for rank, code in ends.items()
            if code == -signal.SIGKILL
        ]
        raise joint_failure(checkpoints, "".join(killed[:1])) from error
    finally:
        for process in context.processes:  # which have ended, unless Ctrl-C has interrupted the wait
            process.kill()
            process.join()


def _begin(
    rank: int, ranks: int, port: int, checkpoints: Path, device: str, threads: int, shown: bool
) -> None:
    """Take part in one fit, in a process that was started for it."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    assert parent.pid is not None
    end_with_parent(parent.pid)
    values = (rank, ranks, rank, ranks, "127.0.0.1", port)
    os.environ.update({name: str(value) for name, value in zip(VARIABLES, values, strict=True)})
    torch.set_num_threads(threads)
    store = TCPStore("127.0.0.1", port, is_master=False)
    console = Console() if shown and rank == 0 else None
    group = _ProcessGroup(store, rank, ranks)
    try:
        group.take_part(partial(_handed_over, checkpoints), device, checkpoints, console)
    except Exception:
        sys.exit(1)  # the traceback is in a file


def run_command(command: Callable[[], T], devices: int) -> T | None:
    """Run a command in the first process that a launcher has started, and its distributed fits in all.

    Args:
        command: the command.
        devices: the key `devices`.

    Returns:
        What the command returns, and None in the other processes.

    Raises:
        InputError: `devices` contradicts the launcher, or a process has failed.

    """
    global _group
    ranks = launched()
    if ranks == 1:
        return command()
    require(
        devices in (0, ranks),
        f"devices={devices}: {ranks} processes were started, which train together; set devices=0",
    )
    if TORCHRUN in os.environ:
        end_with_parent(os.getppid())
    store, rank, _ = next(rendezvous("env://"))
    store.set_timeout(STORE_TIMEOUT)
    _group = _ProcessGroup(store, rank, ranks)
    try:
        if rank > 0:
            _follow(_group)
            return None
        before = _handle_end()
        try:
            return command()
        finally:
            _group.leave()
            _restore(before)
    finally:
        _group = None


def _follow(group: _ProcessGroup) -> None:
    """Follow the first process.

    Raises:
        InputError: it is gone.

    """
    try:
        group.follow()
    except distributed.DistError as error:
        raise InputError(
            "the first process is gone without an announcement; its log has the reason"
        ) from error
