"""Submits a shelfwise command to SLURM, on every GPU of some machines, by submitit.

    python deploy/slurm/submit.py --nodes 2 --gpus 4 run data.items=items.csv work_dir=work/shop ...

needs `pip install "shelfwise[slurm]"`, and folders for logs and work that all machines share. A job that is
preempted, or at the end of its time, is queued again, and continues after the last finished epoch.
`--cluster local` runs it on this machine without SLURM, `--cluster debug` in this process.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import submitit
from submitit.helpers import DelayedSubmission, TorchDistributedEnvironment


class Training:
    """A task of the job: one of the processes that run the command together."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self.arguments = list(arguments)
        self.requeued = False

    def __call__(self) -> None:
        """Run the command; the first task carries it out, all take part in its trainings."""
        import shelfwise

        # Every process sees all GPUs of its machine, and takes that of its number.
        TorchDistributedEnvironment().export(set_cuda_visible_devices=False, overwrite=True)
        sys.argv = ["shelfwise", *self.arguments, "devices=0"]
        try:
            shelfwise.main()
        except SystemExit as end:
            if end.code and not self.requeued:
                raise RuntimeError(
                    f"shelfwise ended with exit code {end.code}; the log has the reason"
                ) from None
            raise

    def checkpoint(self) -> DelayedSubmission:
        """Return what is queued again: the same command, which continues."""
        self.requeued = True
        return DelayedSubmission(Training(self.arguments))


def executor_of(options: argparse.Namespace) -> submitit.AutoExecutor:
    """Return the executor with a job's resources."""
    executor = submitit.AutoExecutor(
        folder=options.logs, cluster=None if options.cluster == "slurm" else options.cluster,
        slurm_max_num_timeout=options.requeues,
    )  # fmt: skip
    executor.update_parameters(
        name="shelfwise", nodes=options.nodes, tasks_per_node=max(options.gpus, options.processes),
        gpus_per_node=options.gpus, cpus_per_task=options.cpus, timeout_min=int(60 * options.hours),
        slurm_partition=options.partition, slurm_signal_delay_s=120, stderr_to_stdout=True,
        slurm_srun_args=[
            "--kill-on-bad-exit=1",  # a machine that fails ends the job
            f"--cpus-per-task={options.cpus}",  # since 22.05 srun does not take it from sbatch
        ],
    )  # fmt: skip
    return executor


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the options of the job, and the command with its settings, which come last."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--nodes", type=int, default=1, help="machines (1)")
    parser.add_argument("--gpus", type=int, default=1, help="GPUs of each, a process for each (1)")
    parser.add_argument("--processes", type=int, default=1, help="processes of each machine without GPUs (1)")
    parser.add_argument("--cpus", type=int, default=8, help="cores of each process (8)")
    parser.add_argument("--hours", type=float, default=24.0, help="time limit of an attempt (24)")
    parser.add_argument("--requeues", type=int, default=5, help="attempts that may reach the limit (5)")
    parser.add_argument("--partition", default=None)
    parser.add_argument("--logs", default="slurm-logs/%j", help="folder of the logs (slurm-logs/JOB)")
    parser.add_argument("--cluster", choices=("slurm", "local", "debug"), default="slurm")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="command of shelfwise and its settings")
    options = parser.parse_args(arguments)
    if not options.command:
        parser.error("name the command of shelfwise, such as `run`, after the options")
    return options


def main(arguments: Sequence[str]) -> submitit.Job[None]:
    """Submit a job, and return it."""
    options = parse(arguments)
    job = executor_of(options).submit(Training(options.command))
    sys.stdout.write(f"job {job.job_id}: logs in {job.paths.stdout.parent}\n")
    return job


if __name__ == "__main__":
    job = main(sys.argv[1:])
    if job.paths.folder and isinstance(job, (submitit.LocalJob, submitit.DebugJob)):
        job.results()
