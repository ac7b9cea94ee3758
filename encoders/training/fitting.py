"""How every Lightning module here is fitted: progress bar, checkpoints, early stopping, exact resume."""

from __future__ import annotations

import logging
import os
import shutil
import traceback
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
from pytorch_lightning.callbacks import Callback, EarlyStopping, ModelCheckpoint, RichProgressBar
from pytorch_lightning.loggers import TensorBoardLogger
from pytorch_lightning.strategies import DDPStrategy, Strategy
from rich.console import Console
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from conf.checks import require
from conf.errors import InputError
from encoders.training.launch import launched, share

MONITORED = "valid_recall"
LAST = "last"
BEST = "best"
HISTORY = "history"
LOG_STEPS = 10
"""Steps between two readings of the loss."""


@dataclass(frozen=True)
class Fit:
    """What a training run came to."""

    best: float
    """Best validation metric; NaN without validation."""
    epochs: int
    """Epochs up to and including the best one."""
    history: list[float]
    """Validation metric after each epoch."""


class _History(Callback):
    """Remembers the monitored metric of each epoch, across a resume too, and says it where no bar does."""

    def __init__(self, monitor: str, console: Console | None) -> None:
        self.monitor = monitor
        self.console = console
        self.values: list[float] = []

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if not trainer.sanity_checking and self.monitor in trainer.callback_metrics:
            self.values.append(float(trainer.callback_metrics[self.monitor]))
            if self.console is not None:
                self.console.print(
                    f"  {type(pl_module).__name__} epoch {trainer.current_epoch + 1}: "
                    f"{self.monitor} {self.values[-1]:.4f}"
                )

    @property
    def state_key(self) -> str:
        """Name under which the values stand in a checkpoint."""
        return HISTORY

    def __reduce__(self) -> tuple[type[_History], tuple[str, None]]:
        # A console cannot be sent to another process: of several, none speaks.
        return _History, (self.monitor, None)

    def state_dict(self) -> dict[str, object]:
        return {"values": list(self.values)}

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        values = state_dict["values"]
        assert isinstance(values, list)
        self.values = [float(v) for v in values]


class _Bar(RichProgressBar):
    """A progress bar that reads the metrics now and then: each reading makes the host wait for the device."""

    def __init__(self, every: int) -> None:
        super().__init__(leave=True)
        self.every = every
        self.read: dict[str, int | str | float | dict[str, float]] = {}

    def get_metrics(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        if trainer.global_step % self.every == 0 or not trainer.training or not self.read:
            self.read = super().get_metrics(trainer, pl_module)
        return dict(self.read)


class _Stopping(EarlyStopping):
    """Early stopping that stays stopped: a run cut off after its last epoch does not train another one."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.wait_count >= max(self.patience, 1):
            trainer.should_stop = True


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Keep Lightning's hardware banners and advice on worker counts out of the user's terminal."""
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
    """What a training is asked for, in every process that takes part; see `fit`."""

    checkpoints: Path
    max_epochs: int
    patience: int
    monitor: str | None
    mode: str
    clip_norm: float | None
    device: torch.device
    processes: int
    resume: bool
    """Whether there is a checkpoint to go on from."""


def processes_of(devices: int, device: torch.device) -> int:
    """Return how many processes the key `devices` means.

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


def _strategy(plan: _Plan) -> Strategy | str:
    """Return how Lightning spreads a training over processes (DDP; Li et al., VLDB 2020).

    Without torchrun they are started for the fit alone: what comes before and after it is done once. By
    `spawn`, because a process that has used CUDA cannot be forked.
    """
    if plan.processes == 1:
        return "auto"
    return DDPStrategy(
        start_method="popen" if launched() > 1 else "spawn",
        find_unused_parameters=True,  # like the pooler of a BERT that is read by its mean
        broadcast_buffers=False,  # they are the same everywhere
    )


def _train(module: pl.LightningModule, plan: _Plan, console: Console | None) -> None:
    """Carry out a training, or this process's part of it, and leave its checkpoints."""
    on_cpu, started = plan.device.type == "cpu", launched() > 1 and plan.processes > 1
    local = int(os.environ["LOCAL_WORLD_SIZE"]) if started else plan.processes
    # Two of them: one that keeps the best epoch would leave out the epochs that were not better, and a
    # resumed run would train those once more.
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
    history = _History(plan.monitor or "", None if bar else console)
    callbacks: list[Callback] = [history, every]
    if plan.monitor is not None:
        callbacks.insert(1, best_one)  # before the checkpoint that remembers it
        callbacks.append(_Stopping(monitor=plan.monitor, mode=plan.mode, patience=plan.patience))
    if bar:
        callbacks.append(_Bar(1 if on_cpu else LOG_STEPS))
    with _quiet_lightning():
        trainer = pl.Trainer(
            max_epochs=plan.max_epochs,
            accelerator="cpu" if on_cpu else "gpu",
            devices=[plan.device.index or 0] if plan.processes == 1 and not on_cpu else local,
            num_nodes=plan.processes // local,
            strategy=_strategy(plan),
            plugins=TorchElasticEnvironment() if started else LightningEnvironment(),
            use_distributed_sampler=False,  # modules divide the work themselves
            logger=TensorBoardLogger(plan.checkpoints, name="tensorboard", version=""),
            callbacks=callbacks,
            enable_progress_bar=bar,
            enable_model_summary=False,
            gradient_clip_val=plan.clip_norm,
            num_sanity_val_steps=0,
            reload_dataloaders_every_n_epochs=1,
            log_every_n_steps=LOG_STEPS,
        )
        trainer.fit(module, ckpt_path=str(plan.checkpoints / f"{LAST}.ckpt") if plan.resume else None)


def _train_together(module: pl.LightningModule, plan: _Plan, console: Console | None) -> None:
    """Train in several processes; the failure of one is a line, and the rest of it is in a file.

    Raises:
        InputError: a process has failed.

    """
    try:
        _train(module, plan, console)
    except Exception as error:
        plan.checkpoints.mkdir(parents=True, exist_ok=True)
        path = plan.checkpoints / f"failure-{os.environ.get('RANK', '0')}.txt"
        path.write_text(traceback.format_exc())
        reason = traceback.format_exception_only(error)[-1].strip().splitlines()[-1]
        raise InputError(
            f"a process of the training failed: {reason} (all of it is in {path}); "
            "the same command goes on after the last finished epoch"
        ) from error


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
) -> Fit:
    """Train a module, resuming from `checkpoints` when a run was cut off there, and load its best weights.

    A checkpoint is written after every epoch; data order and randomness are functions of the epoch, so a
    resumed run reaches the same numbers as one that was never interrupted.

    Args:
        module: the module; its `train_dataloader` is asked anew each epoch.
        checkpoints: folder of this run's checkpoints, named after its inputs by the caller.
        max_epochs: upper bound.
        patience: epochs without improvement before stopping; ignored without a monitor.
        monitor: metric to maximise or minimise; None trains all epochs and keeps the last weights.
        device: where it is trained; afterwards the module is on the CPU.
        mode: `max` or `min`.
        clip_norm: gradient norm limit, for modules with automatic optimisation.
        console: where the progress bar goes; None shows none.
        devices: how many GPUs, or processes on a CPU, train together, for modules that share a batch among
            processes; 0 takes every GPU, or every process that torchrun has started. The module is sent to
            each.

    Raises:
        InputError: one of several processes has failed, or there are not as many GPUs.

    """
    last, processes = checkpoints / f"{LAST}.ckpt", processes_of(devices, device)
    plan = _Plan(
        checkpoints, max_epochs, patience, monitor, mode, clip_norm, device, processes, last.is_file()
    )
    if processes == 1:
        _train(module, plan, console)
    else:
        module.cpu()  # from where it is sent
        if device.type == "cuda":
            torch.cuda.empty_cache()  # what this process keeps, the one that trains here cannot have
        if launched() > 1:
            share(partial(_train_together, module, plan), device, console)
        else:
            _train_together(module, plan, console)
    end = torch.load(last, map_location="cpu", weights_only=True)
    state = end
    if monitor is not None:
        state = torch.load(checkpoints / f"{BEST}.ckpt", map_location="cpu", weights_only=True)
    module.load_state_dict(state["state_dict"])
    module.cpu().eval()
    if monitor is None:
        return Fit(float("nan"), max_epochs, [])
    # From the file: where several processes have trained, this one's callbacks have seen nothing.
    values: list[float] = end["callbacks"][HISTORY]["values"]
    pick = max if mode == "max" else min
    best = pick(values)
    return Fit(best, values.index(best) + 1, values)


class RunningAverage(AveragedModel):
    """An exponential moving average whose update never makes the host wait for the device."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        """Start as a copy of the module."""
        super().__init__(module)
        self._decay = decay
        self._begun = False

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        """Move towards a module's weights; the first are taken as they are, buffers always."""
        # AveragedModel asks the device at every step; a resumed run has begun before, so it is asked once.
        first = not self._begun and not bool(self.n_averaged > 0)
        self._begun = True
        own: list[Tensor] = list(self.module.parameters())
        theirs: list[Tensor] = list(model.parameters())
        if first:
            torch._foreach_copy_(own, theirs)
        else:
            # Made here: a function of torch's cannot be sent to another process.
            get_ema_multi_avg_fn(self._decay)(own, theirs, self.n_averaged)  # type: ignore[no-untyped-call]
        for kept, buffer in zip(self.module.buffers(), model.buffers(), strict=True):
            kept.copy_(buffer)
        self.n_averaged += 1


def running_average(module: nn.Module, steps: float) -> RunningAverage:
    """Return an exponential moving average of a module's weights, to be updated after every step.

    Steps of a small batch zigzag around the optimum; their average lies nearer to it and swings less from
    epoch to epoch (Polyak and Juditsky 1992; Izmailov et al., UAI 2018). As a submodule it is part of the
    checkpoints, so a resumed run goes on averaging.

    Args:
        module: what is trained; the average starts as a copy.
        steps: how far back it reaches: a step that long ago weighs 1/e of the newest; 0 follows the module.

    """
    return RunningAverage(module, 1.0 - 1.0 / max(steps, 1.0)).requires_grad_(False)


def delete_checkpoints(checkpoints: Path) -> None:
    """Remove the checkpoints of a finished run."""
    shutil.rmtree(checkpoints, ignore_errors=True)
