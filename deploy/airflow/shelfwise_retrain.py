"""`shelfwise retrain` every night under Airflow 3: its exit code decides what becomes of the task.

The worker needs the program (`/opt/shelfwise`), the tables, the work directory, the artifact store, and the
servers' file of experiments, whose versions stay in the store (leave that setting out if there is none);
secrets are environment variables of the worker (`SHELFWISE_REDIS_PASSWORD`, `SHELFWISE_API_KEY`). On
Kubernetes let a KubernetesPodOperator with the training image run the same command.
"""

from __future__ import annotations

import logging
import subprocess
from datetime import UTC, datetime, timedelta
from typing import Final

from airflow.providers.standard.operators.python import PythonOperator
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

COMMAND: Final[list[str]] = [
    "/opt/shelfwise/bin/shelfwise",
    "retrain",
    "data=files",
    "split=global_time",
    "data.items=/srv/shelfwise-data/items.parquet",
    "data.events=[/srv/shelfwise-data/events.parquet]",
    "work_dir=/var/lib/shelfwise/shop",
    "artifacts=/srv/shelfwise",
    "state=redis://redis.internal:6379/0",
    "retrain.experiments=/etc/shelfwise/experiments.yaml",
    "retrain.watch.seconds=600",
    "retrain.watch.servers=[shop1.internal:50051]",
    "retrain.watch.metrics=[http://shop1.internal:9464/metrics]",
]
SKIPPED: Final = {
    10: "refused by the gate or the checks of the data",
    11: "too little new data",
    13: "another run holds the lock",
}
"""Exit codes of decisions after which nothing is new: downstream tasks are skipped."""
FINAL: Final = {2: "invalid input", 12: "published, then rolled back"}
"""Exit codes that a second try would only repeat."""


def retrain(command: list[str]) -> None:
    """Run the command with its output in the task's log.

    Args:
        command: the program and its arguments.

    Raises:
        AirflowSkipException: nothing was published, by decision.
        AirflowFailException: a failure that a person has to look at; not retried.
        RuntimeError: a fault, after which a retry begins anew, or a signal, after which it resumes.
    """
    log, last = logging.getLogger(__name__), ""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                last = line.rstrip() or last
                log.info("%s", line.rstrip())
        except BaseException:  # the task's timeout or end; the program would go on, and hold its lock
            process.terminate()
            raise
    code = process.returncode
    if code in SKIPPED:
        raise AirflowSkipException(f"{SKIPPED[code]}: {last}")
    if code in FINAL:
        raise AirflowFailException(f"{FINAL[code]}: {last}")
    if code != 0:
        raise RuntimeError(f"exit code {code}: {last}")


with DAG(
    dag_id="shelfwise_retrain",
    description="A new model from new events, published if it holds its guards",
    schedule="30 2 * * *",
    start_date=datetime(2024, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 2, "retry_delay": timedelta(minutes=5)},
    tags=["shelfwise"],
) as dag:
    PythonOperator(
        task_id="retrain",
        python_callable=retrain,
        op_args=[COMMAND],
        execution_timeout=timedelta(hours=8),
    )
