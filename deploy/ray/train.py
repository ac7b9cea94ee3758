"""Runs a shelfwise command on the workers of a Ray cluster, by Ray Train.

    python deploy/ray/train.py --workers 8 run data.items=items.csv work_dir=/mnt/shop/work ...

needs `pip install "shelfwise[ray]"` on every machine, and a work directory that all share, at one path.
Without a cluster (`ray start`), Ray starts on this machine. After a failure all workers are started anew and
the command continues after the last finished epoch.
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ray import train
from ray.train.collective import broadcast_from_rank_zero
from ray.train.torch import TorchTrainer


def worker(config: dict[str, Any]) -> None:
    """Run the command as one of the processes; the first carries it out, all take part in its trainings."""
    from torch import distributed

    import shelfwise

    # Ray's group lasts for the whole command; shelfwise forms one for each training, at a port of its own.
    distributed.destroy_process_group()
    with socket.socket() as free:
        free.bind(("", 0))
        port = broadcast_from_rank_zero(free.getsockname()[1])
    os.environ["MASTER_PORT"] = str(port)
    os.chdir(config["folder"])  # relative paths are those of the caller
    sys.argv = ["shelfwise", *config["arguments"], "devices=0"]
    try:
        shelfwise.main()
    except SystemExit as end:
        if end.code:
            raise RuntimeError(f"shelfwise ended with exit code {end.code}; the log has the reason") from None


def main(arguments: Sequence[str]) -> None:
    """Run the command on workers, and wait for its end."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--workers", type=int, default=1, help="processes in all, each with a GPU (1)")
    parser.add_argument("--no-gpu", action="store_true", help="train on CPUs")
    parser.add_argument("--cpus", type=int, default=1, help="cores of each process (1)")
    parser.add_argument("--restarts", type=int, default=3, help="failures after which all start anew (3)")
    parser.add_argument("--storage", default="ray-results", help="folder, shared, of Ray's own state")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="command of shelfwise and its settings")
    options = parser.parse_args(arguments)
    if not options.command:
        parser.error("name the command of shelfwise, such as `run`, after the options")
    TorchTrainer(
        worker,
        train_loop_config={"arguments": options.command, "folder": str(Path.cwd())},
        scaling_config=train.ScalingConfig(
            num_workers=options.workers, use_gpu=not options.no_gpu,
            resources_per_worker={"CPU": options.cpus, **({} if options.no_gpu else {"GPU": 1})},
        ),
        run_config=train.RunConfig(
            name="shelfwise", storage_path=str(Path(options.storage).resolve()),
            failure_config=train.FailureConfig(max_failures=options.restarts),
        ),
    ).fit()  # fmt: skip


if __name__ == "__main__":
    main(sys.argv[1:])
