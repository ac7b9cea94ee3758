"""Every command: its line of help, the type of its configuration, and the function that carries it out."""

from __future__ import annotations

from dataclasses import dataclass

from conf.clients import InspectConfig, RecommendBatchConfig, RecommendConfig
from conf.comparison import CompareConfig
from conf.engines.milvus import LoadCandidatesConfig
from conf.experiment_report import ExperimentReportConfig
from conf.explorer import ExploreConfig, WhyConfig
from conf.lifecycle import RetrainConfig
from conf.off_policy import OffPolicyConfig
from conf.operating import (
    BackupConfig,
    CompileConfig,
    CreateKeyConfig,
    ExportConfig,
    ExportEventsConfig,
    ExportUserConfig,
    FetchConfig,
    HealthConfig,
    PushConfig,
    RestoreConfig,
    RollbackConfig,
)
from conf.schema import EvaluateConfig, LintConfig, PipelineConfig
from conf.serving import DemoConfig, ServeConfig


@dataclass(frozen=True)
class Command:
    """A row of the table."""

    help: str
    schema: type
    """Root of its configuration."""
    function: str
    """`module:function`, imported when the command runs; takes the configuration and a console."""
    needs_faiss: bool = False
    """Whether it reads or builds an index, in this process or in one that it starts."""


TABLE: dict[str, Command] = {
    "inspect": Command(
        "look at files, say what they are and which command reads them",
        InspectConfig, "features.inspection.report:inspect",
    ),
    "run": Command(
        "prepare, train, refit, publish and evaluate; unchanged stages are skipped",
        PipelineConfig, "ranking.pipeline.run:run", needs_faiss=True,
    ),
    "prepare": Command(
        "read and check raw tables, write the dataset", PipelineConfig, "features.prepare:prepare"
    ),
    "train-encoder": Command(
        "fine-tune the text encoder, train item and user towers",
        PipelineConfig, "encoders.training.train:train_encoder",
    ),
    "train-ranker": Command(
        "train the ranking head", PipelineConfig, "ranking.training.train:train_ranker", needs_faiss=True
    ),
    "refit": Command(
        "train once more on what validation held back",
        PipelineConfig, "ranking.pipeline.refit:refit", needs_faiss=True,
    ),
    "publish": Command(
        "write a bundle and make it current",
        PipelineConfig, "ranking.pipeline.publish:publish", needs_faiss=True,
    ),
    "evaluate": Command(
        "measure against the baselines, or the lists of any system in a file; write metrics and a report",
        EvaluateConfig, "ranking.pipeline.run:evaluate_command", needs_faiss=True,
    ),
    "compare": Command(
        "measure two bundles, runs or files of lists on the same queries; check guards",
        CompareConfig, "ranking.comparison.command:compare_systems", needs_faiss=True,
    ),
    "lint-data": Command(
        "look for leaks in the data, and measure what each is worth in recall",
        LintConfig, "ranking.pipeline.lint_data:lint_data", needs_faiss=True,
    ),
    "serve": Command(
        "answer over gRPC from the current bundle", ServeConfig, "serving.server:serve", needs_faiss=True
    ),
    "recommend": Command(
        "ask a running server from the terminal", RecommendConfig, "serving.cli.recommend:recommend"
    ),
    "recommend-batch": Command(
        "write the lists of many users to a file, for a campaign",
        RecommendBatchConfig, "serving.cli.recommend_batch:recommend_batch",
    ),
    "health": Command(
        "ask a running server whether it serves; the exit code tells",
        HealthConfig, "serving.cli.operate.health:health",
    ),
    "backup": Command(
        "copy what servers have stored, while they run", BackupConfig, "serving.cli.operate.backup:backup"
    ),
    "restore": Command(
        "put a backup in the place of a store", RestoreConfig, "serving.cli.operate.restore:restore"
    ),
    "create-key": Command(
        "make an API key for a server", CreateKeyConfig, "serving.cli.create_key:create_key"
    ),
    "compile": Command(
        "compile the loops once, so that no start has to",
        CompileConfig, "features.kernels.ahead:compile_ahead",
    ),
    "export": Command(
        "copy the fine-tuned text encoder out of the current bundle",
        ExportConfig, "ranking.bundle.export:export", needs_faiss=True,
    ),
    "export-events": Command(
        "write the events that servers have recorded as a table for the next training",
        ExportEventsConfig, "serving.cli.export_events:export_events",
    ),
    "export-user": Command(
        "write everything that is stored of one user to a file",
        ExportUserConfig, "serving.cli.operate.export_user:export_user",
    ),
    "off-policy": Command(
        "estimate what other lists would have earned, from explored lists that were shown",
        OffPolicyConfig, "ranking.off_policy.command:off_policy",
    ),
    "experiment-report": Command(
        "judge the arms of an experiment by the recorded events: lift, intervals, a verdict",
        ExperimentReportConfig, "lifecycle.experiments.command:experiment_report",
    ),
    "load-candidates": Command(
        "load a bundle's vectors into Milvus, where several servers search them",
        LoadCandidatesConfig, "ranking.bundle.collections:load_candidates", needs_faiss=True,
    ),
    "rollback": Command(
        "make an earlier bundle current again", RollbackConfig, "ranking.bundle.rollback:rollback"
    ),
    "push": Command(
        "put the current version into an object store, for servers to fetch",
        PushConfig, "ranking.bundle.distribution.push:push",
    ),
    "fetch": Command(
        "get the version that was pushed into an object store, once or following it",
        FetchConfig, "ranking.bundle.distribution.fetch:fetch",
    ),
    "retrain": Command(
        "make a new model of new events, measure it, publish it if it is good, watch it, roll it back if not",
        RetrainConfig, "lifecycle.retrain.command:retrain", needs_faiss=True,
    ),
    "demo": Command(
        "start a server on a copy of a finished run and show what it does",
        DemoConfig, "serving.cli.demo:demo", needs_faiss=True,
    ),
    "explore": Command(
        "look at lists, reasons and the evaluation in a browser",
        ExploreConfig, "explorer.command:explore", needs_faiss=True,
    ),
    "why": Command(
        "explain why an item is in a shopper's list, or why not, and what would change that",
        WhyConfig, "explorer.why:why", needs_faiss=True,
    ),
}  # fmt: skip
