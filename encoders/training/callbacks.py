"""Callbacks of a training: its curve, its progress bar, and early stopping that survives a resume."""

from __future__ import annotations

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback, EarlyStopping, RichProgressBar
from rich.console import Console

HISTORY = "history"
LOG_STEPS = 10
"""Steps between two logged losses."""
LOSS = "loss"
"""Name under which every module logs the loss of a step."""


class History(Callback):
    """Records the loss and the monitored metric with their steps, across a resume too.

    Where there is no progress bar, it prints the metric of each epoch.
    """

    def __init__(self, monitor: str, console: Console | None) -> None:
        self.monitor = monitor
        self.console = console
        self.step = 0
        self.losses: list[tuple[int, float]] = []
        self.values: list[tuple[int, float]] = []

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
    ) -> None:
        """Record the loss of the first and of every tenth step: each reading synchronises with the device."""
        self.step += 1
        if self.step == 1 or self.step % LOG_STEPS == 0:
            loss = trainer.callback_metrics.get(LOSS)
            if loss is not None:
                self.losses.append((self.step, float(loss)))

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Record the monitored metric."""
        if not trainer.sanity_checking and self.monitor in trainer.callback_metrics:
            value = float(trainer.callback_metrics[self.monitor])
            self.values.append((self.step, value))
            if self.console is not None:
                self.console.print(
                    f"  {type(pl_module).__name__} epoch {trainer.current_epoch + 1}: "
                    f"{self.monitor} {value:.4f}"
                )

    @property
    def state_key(self) -> str:
        """Key of the values in a checkpoint."""
        return HISTORY

    def __reduce__(self) -> tuple[type[History], tuple[str, None]]:
        # A console cannot be pickled: of several processes, none prints.
        return History, (self.monitor, None)

    def state_dict(self) -> dict[str, object]:
        """Return the number of steps, the losses and the metrics."""
        return {"step": self.step, "losses": list(self.losses), "values": list(self.values)}

    def load_state_dict(self, state_dict: dict[str, object]) -> None:
        """Continue the curve of an interrupted training."""
        step, losses, values = (state_dict[key] for key in ("step", "losses", "values"))
        assert isinstance(step, int)
        assert isinstance(losses, list)
        assert isinstance(values, list)
        self.step, self.losses, self.values = step, list(losses), list(values)


class Bar(RichProgressBar):
    """A progress bar that reads the metrics every few steps: each reading synchronises with the device."""

    def __init__(self, every: int) -> None:
        super().__init__(leave=True)
        self.every = every
        self.read: dict[str, int | str | float | dict[str, float]] = {}

    def get_metrics(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """Return the metrics that the bar shows, those of the last reading between two."""
        if trainer.global_step % self.every == 0 or not trainer.training or not self.read:
            self.read = super().get_metrics(trainer, pl_module)
        return dict(self.read)


class Stopping(EarlyStopping):
    """Early stopping that survives a resume: a run interrupted after its last epoch trains no further one."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Stop at once where the patience is used up."""
        if self.wait_count >= max(self.patience, 1):
            trainer.should_stop = True
