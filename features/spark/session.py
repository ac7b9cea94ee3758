"""Starting Spark, and its failures as one line."""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING

from conf.errors import InputError
from conf.tables import SparkConfig

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_SUBMITTED = "PYSPARK_GATEWAY_PORT"
"""Set in a program that spark-submit has started."""
_JAVA_OPTIONS = "spark.driver.extraJavaOptions"
_OWN_FAULT = re.compile(r"^conf\.errors\.InputError: (.*)$", re.MULTILINE)

_RAISED = re.compile(r"^((?:\w+\.)*\w+(?:Error|Exception): .*)$", re.MULTILINE)
"""The last line of a worker's traceback."""
GONE = "its Java process has ended, as one that is killed where memory runs out"


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
        from py4j.protocol import Py4JError, Py4JJavaError
        from pyspark.errors import PySparkException
        from pyspark.sql import SparkSession
    except ImportError as error:
        raise InputError("engine=spark needs pyspark: pip install 'shelfwise[spark]'") from error
    running = SparkSession.getActiveSession()
    with tempfile.TemporaryFile() as log:
        try:
            spark = running or _start(config, log)
        except (PySparkException, Py4JError) as error:
            raised = isinstance(error, Py4JJavaError)  # else Java ended before it could
            cause = first_line(error) if raised else _said(log) or first_line(error)
            raise InputError(f"engine=spark: Spark does not start: {cause}") from error
        try:
            yield spark
        except (PySparkException, Py4JError, ConnectionError) as error:  # the last where Java is gone
            if own := _OWN_FAULT.findall(str(error)):  # raised in a worker
                raise InputError(own[-1]) from error
            cause = GONE if _is_gone(error) else first_line(error)
            raise InputError(f"engine=spark: Spark failed: {cause}") from error
        finally:
            if running is None:
                with suppress(
                    Py4JError, OSError
                ):  # Java is gone: the failure is reported, the result complete
                    spark.stop()


def first_line(error: Exception) -> str:
    """Return what failed, without the place in Spark: the first line, but py4j's own one."""
    lines = [line.strip(" :") for line in str(error).splitlines() if line.strip(" :")]
    told = [line for line in lines if not line.startswith("An error occurred while calling")]
    raised = _RAISED.findall(str(error))  # in a worker: the last one is the cause
    return ": ".join([*told[:1], *raised[-1:]]) or type(error).__name__


def _is_gone(error: Exception) -> bool:
    """Return whether Java has ended: there is no connection to it, or its answer names no cause."""
    from py4j.protocol import Py4JNetworkError

    return isinstance(error, ConnectionError | Py4JNetworkError) or first_line(error) == "Py4JError"


def _said(log: IO[bytes]) -> str:
    """Return the first line that Java wrote about a fault, or an empty string."""
    log.seek(0)
    lines = log.read().decode(errors="replace").splitlines()
    return next((line for line in lines if line.strip() and not line.startswith("WARNING:")), "")


def _start(config: SparkConfig, log: IO[bytes]) -> SparkSession:
    """Start Spark.

    Args:
        config: its master and properties.
        log: takes what Java writes to its standard error where it runs on this machine alone, such as a line
            about a module of its own on every start; under spark-submit Java runs already, and that line
            is the program's first.
    """
    from pyspark import SparkConf, SparkContext
    from pyspark.java_gateway import launch_gateway
    from pyspark.sql import SparkSession

    submitted = _SUBMITTED in os.environ
    if not submitted and shutil.which("java") is None and "JAVA_HOME" not in os.environ:
        raise InputError(
            "engine=spark needs a Java runtime, 17 or later: apt-get install openjdk-17-jre-headless"
        )
    # Workers run the same Python and the same code, as on this machine and where both are installed alike.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    settings = {
        "spark.app.name": "shelfwise prepare",
        "spark.executorEnv.PYTHONPATH": str(Path(__file__).parents[2]),
        "spark.sql.execution.arrow.maxRecordsPerBatch": "100000",
        "spark.sql.session.timeZone": "UTC",
        # Tables are read as polars reads them: `store=007` is text, and names differ by case.
        "spark.sql.sources.partitionColumnTypeInference.enabled": "false",
        "spark.sql.legacy.parquet.nanosAsLong": "true",
        "spark.sql.caseSensitive": "true",
    }
    master = config.master or (None if submitted else "local[*]")
    if master is not None:
        settings["spark.master"] = master
    alone = master is not None and master.startswith("local")
    if alone:
        settings |= {"spark.ui.enabled": "false", "spark.ui.showConsoleProgress": "false"}
    given = {name: str(value) for name, value in {**settings, **config.settings}.items()}
    if alone:
        quiet = Path(__file__).with_name("quiet.properties").as_uri()
        # Before the shop's own options: of two for one property Java takes the last.
        given[_JAVA_OPTIONS] = f"-Dlog4j2.configurationFile={quiet} {given.get(_JAVA_OPTIONS, '')}".strip()
    if SparkContext._gateway is None:  # Java of an earlier session runs on
        conf = SparkConf().setAll([*given.items()])
        gateway = launch_gateway(conf, {"stderr": log} if alone else {})  # type: ignore[no-untyped-call]
        SparkContext(conf=conf, gateway=gateway)
    builder = SparkSession.builder
    for name, value in given.items():
        builder = builder.config(name, value)
    return builder.getOrCreate()
