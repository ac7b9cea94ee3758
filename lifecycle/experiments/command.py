"""`shelfwise experiment report`: read the recorded events, judge the arms, print and write the report."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Final

from rich.console import Console

from conf.errors import InputError
from conf.experiment_report import ExperimentReportConfig
from features.data.pipeline_step import write_atomically
from lifecycle.experiments.analysis import analyse
from lifecycle.experiments.declared import declared_in
from lifecycle.experiments.libraries import statsmodels
from lifecycle.experiments.page import render_page
from lifecycle.experiments.plan import plan_of
from lifecycle.experiments.recorded import events, prices
from lifecycle.experiments.table import print_report
from lifecycle.experiments.units import ARM, experiments_in, units_of
from lifecycle.experiments.verdict import EXIT_CODES

PAGE_FILE: Final = "report.html"
FIGURES_FILE: Final = "report.json"


def experiment_report(config: ExperimentReportConfig, console: Console) -> None:
    """Analyse an experiment, print the verdict and the tables, and write the page and the figures.

    Raises:
        InputError: no or unreadable events, an unknown experiment, arm or metric, a single arm, no
            statsmodels.
        SystemExit: with the verdict's code, if `exit_code` is set and the verdict is not to ship.
    """
    statsmodels("api")  # before minutes of reading
    declared = declared_in(config.experiments)
    with events(config) as table:
        plan = plan_of(config, experiments_in(table), declared)
        found = units_of(table, plan, prices(config), config.kinds, config.cuped_days)
    if found.units.is_empty():
        raise InputError(f"name={plan.name}: no event of a list of this experiment between start and end")
    plan = plan.compared(found.units[ARM].unique().to_list())
    report = analyse(config, plan, found, time.time_ns() // 1000)
    print_report(report, console)
    output = Path(config.output)
    try:
        output.mkdir(parents=True, exist_ok=True)
        text = json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False)
        write_atomically(output / FIGURES_FILE, text + "\n")
        write_atomically(output / PAGE_FILE, render_page(report))
    except OSError as error:
        raise InputError(f"output={output}: cannot be written ({error.strerror})") from error
    console.print(f"written to {output / PAGE_FILE}", soft_wrap=True, markup=False, highlight=False)
    code = EXIT_CODES[report["verdict"]["verdict"]]
    if config.exit_code and code:
        sys.exit(code)
