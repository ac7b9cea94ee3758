"""Starting Spark, and its failures as one line."""

from __future__ import annotations

import os
import re
import shutil
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from conf.errors import InputError
from conf.tables import SparkConfig

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_SUBMITTED = "PYSPARK_GATEWAY_PORT"
"""Set in a program that spark-submit has started."""
_OWN_FAULT = re.compile(r"^conf\.errors\.InputError: (.*)$", re.MULTILINE)

_RAISED = re.compile(r"^((?:\w+\.)*\w+(?:Error|Exception): .*)$", re.MULTILINE)
"""The last line of a worker's traceback."""


@contextmanager
def session(config: SparkConfig) -> Iterator[SparkSession]:
    """Yield a Spark session: the running one, else one that is stopped at the end.

    Raises:
        InputError: Spark or Java is missing, Spark cannot start, or a step of it fails.
    """
    with warnings.catch_warnings():  # Spark tests for a pandas that it knows, and nothing here uses pandas
        warnings.filterwarnings("ignore", "PySpark does not yet fully support pandas", FutureWarning)
        with _session(config) as spark:
            yield spark


@contextmanager
def _session(config: SparkConfig) -> Iterator[SparkSession]:
    try:
        from py4j.protocol import Py4JError
        from pyspark.errors import PySparkException, PySparkRuntimeError
        from pyspark.sql import SparkSession
    except ImportError as error:
        raise InputError("engine=spark needs pyspark: pip install 'shelfwise[spark]'") from error
    running = SparkSession.getActiveSession()
    try:
        spark = running or _start(config)
    except PySparkRuntimeError as error:
        raise InputError(f"engine=spark: Spark does not start: {_first_line(error)}") from error
    try:
        yield spark
    except (PySparkException, Py4JError) as error:
        if own := _OWN_FAULT.findall(str(error)):  # raised in a worker
            raise InputError(own[-1]) from error
        raise InputError(f"engine=spark: Spark failed: {_first_line(error)}") from error
    finally:
        if running is None:
            spark.stop()


def _first_line(error: Exception) -> str:
    """Return what failed, without the place in Spark: the first line, but py4j's own one."""
    lines = [line.strip(" :") for line in str(error).splitlines() if line.strip(" :")]
    told = [line for line in lines if not line.startswith("An error occurred while calling")]
    raised = _RAISED.findall(str(error))  # in a worker: the last one is the cause
    return ": ".join([*told[:1], *raised[-1:]]) or type(error).__name__


def _start(config: SparkConfig) -> SparkSession:
    from pyspark.sql import SparkSession

    submitted = _SUBMITTED in os.environ
    if not submitted and shutil.which("java") is None and "JAVA_HOME" not in os.environ:
        raise InputError(
            "engine=spark needs a Java runtime, 17 or later: apt-get install openjdk-17-jre-headless"
        )
    # Workers run the same Python and the same code, as on this machine and where both are installed alike.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    settings = {
        "spark.executorEnv.PYTHONPATH": str(Path(__file__).parents[2]),
        "spark.sql.execution.arrow.maxRecordsPerBatch": "100000",
        "spark.sql.session.timeZone": "UTC",
    }
    master = config.master or (None if submitted else "local[*]")
    if master is not None and master.startswith("local"):
        quiet = Path(__file__).with_name("quiet.properties").as_uri()
        settings |= {
            "spark.ui.enabled": "false",
            "spark.ui.showConsoleProgress": "false",
            "spark.driver.extraJavaOptions": f"-Dlog4j2.configurationFile={quiet}",
        }
    builder = SparkSession.builder.appName("shelfwise prepare")
    if master is not None:
        builder = builder.master(master)
    for name, value in {**settings, **config.settings}.items():
        builder = builder.config(name, str(value))
    return builder.getOrCreate()
