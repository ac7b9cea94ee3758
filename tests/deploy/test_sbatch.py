"""The job file of SLURM, run with programs that write down how they are called."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from tests.deploy.manifests import DEPLOY

JOB = DEPLOY / "slurm" / "train.sbatch"
RECORD = """#!/bin/sh
printf '%s\\n' "OMP_NUM_THREADS=$OMP_NUM_THREADS" "SRUN_CPUS_PER_TASK=$SRUN_CPUS_PER_TASK" "$@" > "{file}"
exit 7
"""


def job(tmp_path: Path, *arguments: str, **variables: str) -> tuple[int, list[str]]:
    """Run the job file as the first machine of a job does; return its exit code and srun's arguments.

    scontrol lists more machines than a pipe holds, so it would fail if only the first line were read.
    """
    file = tmp_path / "called"
    (tmp_path / "srun").write_text(RECORD.format(file=file))
    (tmp_path / "scontrol").write_text(
        '#!/bin/sh\n[ "$*" = "show hostnames gpu[07-08]" ] || exit 1\necho gpu07\nseq 100000\n'
    )
    for program in ("srun", "scontrol"):
        (tmp_path / program).chmod(0o755)
    slurm = {
        "SLURM_JOB_NODELIST": "gpu[07-08]", "SLURM_NNODES": "2", "SLURM_GPUS_ON_NODE": "4",
        "SLURM_JOB_ID": "1234567", "SLURM_CPUS_PER_TASK": "16",
    }  # fmt: skip
    bash = shutil.which("bash")
    assert bash is not None
    done = subprocess.run(
        [bash, str(JOB), *arguments], env={"PATH": f"{tmp_path}:{os.environ['PATH']}", **slurm, **variables},
        timeout=20, check=False,
    )  # fmt: skip
    return done.returncode, file.read_text().splitlines() if file.exists() else []


def test_a_torchrun_on_each_machine_starts_a_process_for_each_gpu(tmp_path: Path) -> None:
    code, called = job(tmp_path, "run", "data.items=a b.csv", "split=global_time")
    assert code == 7, "the exit code is that of srun"
    assert called[:2] == ["OMP_NUM_THREADS=16", "SRUN_CPUS_PER_TASK=16"]
    assert called[2:] == [
        "--kill-on-bad-exit=1", "torchrun", "--nnodes=2", "--nproc-per-node=4", "--rdzv-backend=c10d",
        "--rdzv-endpoint=gpu07:24567", "--rdzv-id=1234567", "-m", "shelfwise", "run", "data.items=a b.csv",
        "split=global_time", "devices=0",
    ]  # fmt: skip


def test_threads_that_are_set_are_kept(tmp_path: Path) -> None:
    assert job(tmp_path, "run", OMP_NUM_THREADS="3")[1][0] == "OMP_NUM_THREADS=3"


def test_a_job_that_is_preempted_is_queued_again_and_its_log_goes_on() -> None:
    directives = [line.split()[1] for line in JOB.read_text().splitlines() if line.startswith("#SBATCH ")]
    assert {"--requeue", "--open-mode=append"} <= set(directives)
    assert "--ntasks-per-node=1" in directives, "torchrun starts the processes of a machine"
