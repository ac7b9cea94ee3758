"""Fitting of Lightning modules: progress bar, checkpoints, early stopping, exact resume."""

from __future__ import annotations

import logging
import os
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from pytorch_lightning.callbacks import Callback, ModelCheckpoint
from pytorch_lightning.loggers import Logger, TensorBoardLogger
from pytorch_lightning.strategies import DDPStrategy, Strategy
from rich.console import Console
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from conf.checks import require
from encoders.training.callbacks import HISTORY, LOG_STEPS, Bar, History, Stopping
from encoders.training.checkpoint_files import StreamedCheckpoints
from encoders.training.curves import Curve
from encoders.training.launch import launched, train_in_all
from encoders.training.tracking import TrackedRun, lightning_logger

MONITORED = "valid_recall"
LAST = "last"
BEST = "best"


@dataclass(frozen=True)
class Fit:
    """The result of a training run."""

    best: float
    """Best validation metric; NaN without validation."""
    epochs: int
    """Epochs up to and including the best one."""
    history: list[float]
    """Validation metric after each epoch."""
    curve: Curve
    """Losses and validation metrics by step."""


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Silence Lightning's hardware banners and advice on worker counts."""
    names = ("pytorch_lightning", "pytorch_lightning.utilities.rank_zero", "lightning.pytorch")
    before = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="pytorch_lightning")
        warnings.filterwarnings("ignore", module="torch.utils.data")
        warnings.filterwarnings("ignore", category=FutureWarning)
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        try:
            yield
        finally:
            for name, level in before.items():
                logging.getLogger(name).setLevel(level)


@dataclass(frozen=True)
class _Plan:
    """The arguments of `fit`, for every process that takes part."""

    checkpoints: Path
    max_epochs: int
    patience: int
    monitor: str | None
    mode: str
    clip_norm: float | None
    device: torch.device
    processes: int
    resume: bool
    """Whether there is a checkpoint to resume from."""
    tracked: TrackedRun | None
    """The tracker's run that gets the metrics, beside TensorBoard."""

    @property
    def training(self) -> str:
        """The name of the training: of its checkpoints, without the hash of its inputs."""
        return self.checkpoints.name.rpartition("-")[0] or self.checkpoints.name

    def loggers(self) -> list[Logger]:
        """Return the loggers of this process."""
        board = TensorBoardLogger(self.checkpoints, name="tensorboard", version="")
        return [board] if self.tracked is None else [board, lightning_logger(self.tracked, self.training)]


def process_count(devices: int, device: torch.device) -> int:
    """Return the number of processes that the key `devices` means.

    Raises:
        InputError: there are not as many GPUs.

    """
    if devices == 1:
        return 1
    if launched() > 1:
        return launched()
    if device.type == "cpu":
        return devices or 1
    count = torch.cuda.device_count()
    require(devices <= count, f"devices={devices}: torch sees {count}; set devices={count} or devices=0")
    return devices or count


def _strategy(plan: _Plan, module: pl.LightningModule) -> Strategy | str:
    """Return Lightning's strategy for several processes (DDP; Li et al., VLDB 2020).

    A module with weights that its loss does not depend on has an attribute `unused_weights` that is True.
    """
    if plan.processes == 1:
        return "auto"
    return DDPStrategy(
        start_method="popen",  # of processes that run already
        find_unused_parameters=getattr(module, "unused_weights", False),
        broadcast_buffers=False,  # they are equal in all processes
    )


def _train(module: pl.LightningModule, plan: _Plan, console: Console | None) -> None:
    """Run a training, or this process's part of it, and write its checkpoints."""
    on_cpu, together = plan.device.type == "cpu", plan.processes > 1
    local = int(os.environ["LOCAL_WORLD_SIZE"]) if together else 1
    # Two of them: with the best epoch alone, a resumed run would train the epochs after it once more.
    every = ModelCheckpoint(dirpath=plan.checkpoints, filename=LAST, enable_version_counter=False)
    best_one = ModelCheckpoint(
        dirpath=plan.checkpoints,
        filename=BEST,
        monitor=plan.monitor,
        mode=plan.mode,
        save_weights_only=True,
        enable_version_counter=False,
    )
    bar = console is not None and console.is_terminal
    history = History(plan.monitor or "", None if bar else console)
    callbacks: list[Callback] = [history, every]
    if plan.monitor is not None:
        callbacks.insert(1, best_one)  # before the checkpoint that stores its state
        callbacks.append(Stopping(monitor=plan.monitor, mode=plan.mode, patience=plan.patience))
    if bar:
        callbacks.append(Bar(1 if on_cpu else LOG_STEPS))
    with _quiet_lightning():
        trainer = pl.Trainer(
            max_epochs=plan.max_epochs,
            accelerator="cpu" if on_cpu else "gpu",
            devices=[plan.device.index or 0] if plan.processes == 1 and not on_cpu else local,
            num_nodes=plan.processes // local,
            strategy=_strategy(plan, module),
            plugins=[
                TorchElasticEnvironment() if together else LightningEnvironment(),
                StreamedCheckpoints(),
            ],
            use_distributed_sampler=False,  # modules shard the work themselves
            logger=plan.loggers(),
            callbacks=callbacks,
            enable_progress_bar=bar,
            enable_model_summary=False,
            gradient_clip_val=plan.clip_norm,
            num_sanity_val_steps=0,
            reload_dataloaders_every_n_epochs=1,
            log_every_n_steps=LOG_STEPS,
        )
        trainer.fit(module, ckpt_path=str(plan.checkpoints / f"{LAST}.ckpt") if plan.resume else None)


def fit(
    module: pl.LightningModule,
    checkpoints: Path,
    *,
    max_epochs: int,
    patience: int,
    monitor: str | None,
    device: torch.device,
    mode: str = "max",
    clip_norm: float | None = None,
    console: Console | None = None,
    devices: int = 1,
    tracked: TrackedRun | None = None,
) -> Fit:
    """Train a module, resuming from `checkpoints` if a run was interrupted, and load its best weights.

    A checkpoint is written after every epoch; data order and randomness are functions of the epoch, so a
    resumed run reaches the same numbers as one that was never interrupted.

    Args:
        module: the module; its `train_dataloader` is called anew each epoch.
        checkpoints: folder of this run's checkpoints, named by the hash of its inputs.
        max_epochs: upper bound.
        patience: epochs without improvement before stopping; ignored without a monitor.
        monitor: metric to maximise or minimise; None trains all epochs and takes the last weights.
        device: where it is trained; afterwards the module is on the CPU.
        mode: `max` or `min`.
        clip_norm: gradient norm limit, for modules with automatic optimisation.
        console: of the progress bar; None shows none.
        devices: how many GPUs, or processes on a CPU, train together, for modules that divide a batch among
            processes; 0 takes every GPU, or every process that a launcher has started. The module is handed
            over to each.
        tracked: a tracker's run that gets the metrics of every logged step.

    Raises:
        InputError: one of several processes has failed, or there are not as many GPUs.

    """
    last, processes = checkpoints / f"{LAST}.ckpt", process_count(devices, device)
    plan = _Plan(
        checkpoints,
        max_epochs,
        patience,
        monitor,
        mode,
        clip_norm,
        device,
        processes,
        last.is_file(),
        tracked,
    )
    if processes == 1:
        _train(module, plan, console)
    else:
        module.cpu()  # to be handed over
        if device.type == "cuda":
            torch.cuda.empty_cache()  # free the cache for the process that trains on this GPU
        train_in_all(partial(_train, module, plan), checkpoints, device, processes, console)
    # Mapped: beside the weights, a checkpoint holds two numbers of the optimiser for each of them.
    end = torch.load(last, map_location="cpu", weights_only=True, mmap=True)
    state = end
    if monitor is not None:
        state = torch.load(checkpoints / f"{BEST}.ckpt", map_location="cpu", weights_only=True, mmap=True)
    module.load_state_dict(state["state_dict"])
    module.cpu().eval()
    # From the file: where several processes have trained, this one's callbacks were not called.
    recorded = end["callbacks"][HISTORY]
    curve = Curve.of(recorded["losses"], recorded["values"], monitor)
    if monitor is None:
        return Fit(float("nan"), max_epochs, [], curve)
    values = [value for _, value in recorded["values"]]
    pick = max if mode == "max" else min
    best = pick(values)
    return Fit(best, values.index(best) + 1, values, curve)


class RunningAverage(AveragedModel):
    """An exponential moving average whose update does not synchronise with the device."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        """Start as a copy of the module."""
        super().__init__(module)
        self._decay = decay
        self._begun = False

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Average in a module's weights; the first weights, and buffers always, are copied."""
        # AveragedModel reads `n_averaged` at every step; here once, as a resumed run has begun before.
        first = not self._begun and not bool(self.n_averaged > 0)
        self._begun = True
        own: list[Tensor] = list(self.module.parameters())
        theirs: list[Tensor] = list(model.parameters())
        if first:
            torch._foreach_copy_(own, theirs)
        else:
            # Created here, because torch's function cannot be pickled.
            get_ema_multi_avg_fn(self._decay)(own, theirs, self.n_averaged)  # type: ignore[no-untyped-call]
        for averaged, buffer in zip(self.module.buffers(), model.buffers(), strict=True):
            averaged.copy_(buffer)
        self.n_averaged += 1


def running_average(module: nn.Module, steps: float) -> RunningAverage:
    """Return an exponential moving average of a module's weights, to be updated after every step.

    Steps of a small batch oscillate around the optimum; their average is nearer to it and varies less from
    epoch to epoch (Polyak and Juditsky 1992; Izmailov et al., UAI 2018). As a submodule it is part of the
    checkpoints, so a resumed run continues it.

    Args:
        module: the trained module; the average starts as a copy.
        steps: time constant: a step that long ago weighs 1/e of the newest; 0 copies the module.

    """
    return RunningAverage(module, 1.0 - 1.0 / max(steps, 1.0)).requires_grad_(False)


def delete_checkpoints(checkpoints: Path) -> None:
    """Remove the checkpoints of a finished run."""
    shutil.rmtree(checkpoints, ignore_errors=True)
