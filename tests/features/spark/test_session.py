"""Starting Spark from a shell: a process of its own, since Java starts once in a process."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from features.spark.session import GONE
from tests.features.spark_session import QUICK_JAVA
from tests.programs import missing

PROGRAM = Path(__file__).parents[3] / "shelfwise.py"

LOG = "user_id,item_id,timestamp\nann,2,1700000000\nann,x,1700000000\n"
KILLED = """
from pyspark import SparkContext
from conf.errors import InputError
from conf.tables import SparkConfig
from features.spark.session import session
try:
    with session(SparkConfig("local[1]", {})) as spark:
        SparkContext._gateway.proc.kill()
        SparkContext._gateway.proc.wait()
        spark.range(3).count()
except InputError as error:
    print(error)
"""


def _require_java() -> None:
    if shutil.which("java") is None:
        missing("prepare is not tested on Spark: no java", "apt-get install openjdk-17-jre-headless")


def _prepare(
    folder: Path,
    *overrides: str,
    log: str = LOG,
    encoding: str = "utf-8",
    variables: dict[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    _require_java()
    (folder / "a shop").mkdir()
    (folder / "a shop" / "items.csv").write_text("item_id,title\n1,Red boots\n2,Blue hat\n")
    (folder / "a shop" / "events.csv").write_text(log, encoding)
    given = ("data.items=a shop/items.csv", "data.events=a shop/events.csv", "data.max_reject_fraction=0.5")
    command = [
        sys.executable,
        str(PROGRAM),
        "prepare",
        "engine=spark",
        "work_dir='my work 100%'",
        f"spark.settings={{spark.driver.extraJavaOptions: '{QUICK_JAVA}'}}",
        *given,
        *overrides,
    ]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, env={**os.environ, **(variables or {})}
    )


def test_paths_may_be_relative_with_any_characters_and_java_writes_nothing(tmp_path: Path) -> None:
    done = _prepare(tmp_path, "spark.master='local[1]'")
    assert (done.returncode, done.stderr) == (0, "")
    rejects = pl.read_parquet(tmp_path / "my work 100%" / "dataset" / "rejects.parquet")
    assert rejects.select("file", "row", "item_id").rows() == [("a shop/events.csv", 2, "x")]
    assert pl.read_parquet(tmp_path / "my work 100%" / "dataset" / "events.parquet")["item_id"].to_list() == [
        "2"
    ]


def test_workers_keep_no_converted_file(tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    log = "user_id,item_id\nann,2\nann,x\n"
    settings = ("spark.master='local[1]'", "data.file_order=true", "split=leave_one_out")
    done = _prepare(tmp_path, *settings, log=log, encoding="utf-16", variables={"TMPDIR": str(scratch)})
    assert (done.returncode, done.stderr) == (0, "")
    assert [*scratch.rglob("*events.csv*")] == []


@pytest.mark.parametrize(
    ("overrides", "cause"),
    [
        (
            ["spark.master='local[1]'", "spark.settings={spark.driver.memory: lots}"],
            "maximum heap size: -Xmxlots",
        ),
        (["spark.master='local[none]'"], "Could not parse Master URL: 'local[none]'"),
    ],
)
def test_a_start_that_fails_is_one_line(overrides: list[str], cause: str, tmp_path: Path) -> None:
    done = _prepare(tmp_path, *overrides)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("shelfwise: engine=spark: Spark does not start: ")
    assert done.stderr.count("\n") == 1
    assert cause in done.stderr
    assert not (tmp_path / "my work 100%").exists()


def test_java_that_is_killed_is_one_line() -> None:
    _require_java()
    done = subprocess.run([sys.executable, "-c", KILLED], cwd=PROGRAM.parent, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"engine=spark: Spark failed: {GONE}\n"), done.stderr
