"""The files of `deploy/`, read for the tests: rendered Kubernetes objects, and compose.yaml."""

from __future__ import annotations

import re
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from tests.programs import deploy_program

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
OVERLAYS = sorted(path.parent.name for path in (KUBERNETES / "overlays").glob("*/kustomization.yaml"))
Object = dict[str, Any]


@cache
def rendered(overlay: str) -> str:
    """Return what `kubectl apply -k` would send, in YAML."""
    kubectl = deploy_program("kubectl", ".ci/kubectl")
    done = subprocess.run(
        [kubectl, "kustomize", str(KUBERNETES / "overlays" / overlay)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # deprecated fields are warnings
    return done.stdout


def objects(overlay: str, kind: str | None = None) -> list[Object]:
    """Return the objects of an overlay, of one kind or all."""
    return [o for o in yaml.safe_load_all(rendered(overlay)) if kind in (None, o["kind"])]


def pod_templates(overlay: str) -> dict[str, Object]:
    """Return the pod template of every workload, by kind and name."""
    found = {}
    for item in objects(overlay):
        spec = item.get("spec", {})
        if item["kind"] == "CronJob":
            spec = spec["jobTemplate"]["spec"]
        if "template" in spec:
            found[f"{item['kind']}/{item['metadata']['name']}"] = spec["template"]
    return found


def containers(template: Object) -> list[Object]:
    """Return the containers of a pod template, those that run first included."""
    return [*template["spec"].get("initContainers", []), *template["spec"]["containers"]]


def compose() -> Object:
    """Return `compose.yaml`."""
    content: Object = yaml.safe_load((DEPLOY / "compose" / "compose.yaml").read_text())
    return content


def joined(text: str) -> list[str]:
    """Return the lines of a file, those that end with a backslash as one."""
    return re.sub(r"\\\n\s*", " ", text).splitlines()
