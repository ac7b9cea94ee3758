"""One Spark session for all tests of a process; it starts with the first that needs it."""

from __future__ import annotations

import atexit
import os
import shutil
from contextlib import ExitStack
from functools import cache

from conf.schema import Engine, SparkConfig
from features.spark.session import session
from tests.programs import missing

WHOLE_SUITE = Engine[os.environ.get("SHELFWISE_TEST_ENGINE", "polars")]
"""Engine of every test that prepares a shop; with `spark` each of them takes seconds."""
QUICK_JAVA = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
"""Options of Java for a process of seconds, of which its best compiler takes half."""
_SETTINGS = {
    "spark.driver.extraJavaOptions": QUICK_JAVA,
    "spark.sql.shuffle.partitions": 2,
    "spark.sql.adaptive.enabled": False,
    "spark.driver.memory": "1g",
    "spark.python.worker.reuse": True,
}


@cache
def spark_of_tests() -> None:
    """Start the session, or leave the test out where there is no Java."""
    if shutil.which("java") is None:
        missing("prepare is not tested on Spark: no java", "apt-get install openjdk-17-jre-headless")
    stack = ExitStack()
    stack.enter_context(session(SparkConfig("local[2]", _SETTINGS)))
    atexit.register(stack.close)
