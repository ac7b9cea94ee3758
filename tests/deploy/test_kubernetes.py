"""The rendered Kubernetes objects: valid by the API's schemas, and true to each other."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]
from kubernetes_validate import validate

from conf.composition.compose import compose_command
from shelfwise import split_command
from tests.deploy.manifests import DEPLOY, KUBERNETES, OVERLAYS, Object, containers, objects, pod_templates

VERSIONS = ("1.31", "1.37")
"""The oldest and the newest release that docs/deploy.md names."""
pytestmark = pytest.mark.parametrize("overlay", OVERLAYS)


def named(overlay: str, kind: str) -> dict[str, Object]:
    return {item["metadata"]["name"]: item for item in objects(overlay, kind)}


def matches(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    for expression in selector.get("matchExpressions", []):
        assert expression["operator"] == "In"
        if labels.get(expression["key"]) not in expression["values"]:
            return False
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())


def labels_of_pods(overlay: str) -> dict[str, dict[str, str]]:
    return {name: template["metadata"]["labels"] for name, template in pod_templates(overlay).items()}


@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_is_valid(overlay: str, version: str) -> None:
    found = objects(overlay)
    assert len(found) > 12
    for item in found:
        assert validate(item, version, strict=True) is not None


def test_everything_is_in_the_namespace(overlay: str) -> None:
    assert {o["metadata"].get("namespace") for o in objects(overlay) if o["kind"] != "Namespace"} == {
        "shelfwise"
    }
    assert {o["metadata"]["name"] for o in objects(overlay, "Namespace")} == {"shelfwise"}


def test_selectors_select_the_pods_that_they_are_for(overlay: str) -> None:
    pods = labels_of_pods(overlay)
    wanted = {
        "Deployment/shelfwise": "server",
        "CronJob/shelfwise-retrain": "retrain",
        "CronJob/shelfwise-backup": "backup",
        "StatefulSet/shelfwise-redis": "redis",
    }
    assert pods.keys() == {name for name in wanted if name in pods}
    assert {name: labels["app.kubernetes.io/component"] for name, labels in pods.items()} == {
        name: wanted[name] for name in pods
    }
    for kind in ("Deployment", "StatefulSet"):
        for name, item in named(overlay, kind).items():
            selector = item["spec"]["selector"]
            assert [pod for pod, labels in pods.items() if matches(selector, labels)] == [f"{kind}/{name}"]
    for service in objects(overlay, "Service"):
        component = "redis" if service["metadata"]["name"].endswith("redis") else "server"
        selected = [p for p, v in pods.items() if matches({"matchLabels": service["spec"]["selector"]}, v)]
        assert [wanted[pod] for pod in selected] == [component]
    for budget in objects(overlay, "PodDisruptionBudget"):
        selected = [p for p, labels in pods.items() if matches(budget["spec"]["selector"], labels)]
        assert selected == ["Deployment/shelfwise"]
    for template in pod_templates(overlay).values():
        for constraint in template["spec"].get("topologySpreadConstraints", []):
            assert matches(constraint["labelSelector"], template["metadata"]["labels"])


def test_ports_are_there_by_name(overlay: str) -> None:
    by_component: dict[str, set[str]] = {}
    for template in pod_templates(overlay).values():
        component = template["metadata"]["labels"]["app.kubernetes.io/component"]
        by_component[component] = {p["name"] for c in containers(template) for p in c.get("ports", [])}
        for container in containers(template):
            own = {port["name"] for port in container.get("ports", [])}
            numbers = {port["containerPort"] for port in container.get("ports", [])}
            for probe in (container.get(f"{kind}Probe", {}) for kind in ("startup", "readiness", "liveness")):
                for ask in ("httpGet", "tcpSocket"):
                    assert ask not in probe or probe[ask]["port"] in own
                assert "grpc" not in probe or probe["grpc"]["port"] in numbers
    for service in objects(overlay, "Service"):
        component = service["spec"]["selector"]["app.kubernetes.io/component"]
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= by_component[component]
    for policy in objects(overlay, "NetworkPolicy"):
        used = {
            port["port"]
            for rule in (*policy["spec"].get("ingress", []), *policy["spec"].get("egress", []))
            for port in rule["ports"]
            if isinstance(port["port"], str)
        }
        assert used <= set.union(*by_component.values())


def test_volumes_config_maps_secrets_and_claims_exist(overlay: str) -> None:
    maps, claims = named(overlay, "ConfigMap"), named(overlay, "PersistentVolumeClaim")
    example = yaml.safe_load_all((KUBERNETES / "secrets.example.yaml").read_text())
    secrets = {item["metadata"]["name"]: item["stringData"] for item in example}
    used_claims, accounts = set(), named(overlay, "ServiceAccount")
    for name, template in pod_templates(overlay).items():
        volumes = {volume["name"]: volume for volume in template["spec"]["volumes"]}
        claimed = {c["metadata"]["name"] for c in _templates_of_claims(overlay, name)}
        mounted = {m["name"] for c in containers(template) for m in c["volumeMounts"]}
        assert mounted == volumes.keys() | claimed, name  # none without a mount, and none that does not exist
        assert template["spec"].get("serviceAccountName", "shelfwise") in accounts
        assert template["spec"]["automountServiceAccountToken"] is False
        for volume in volumes.values():
            assert len(volume) == 2, volume  # a name and one source
            if "configMap" in volume:
                assert volume["configMap"]["name"] in maps
            elif "secret" in volume:
                keys = {item["key"] for item in volume["secret"].get("items", [])}
                assert keys <= secrets[volume["secret"]["secretName"]].keys()
                assert volume["secret"]["defaultMode"] == 0o440
            elif "persistentVolumeClaim" in volume:
                used_claims.add(volume["persistentVolumeClaim"]["claimName"])
            else:
                assert "sizeLimit" in volume["emptyDir"]
        for container in containers(template):
            for entry in container.get("env", []):
                reference = entry.get("valueFrom", {}).get("secretKeyRef")
                assert reference is None or reference["key"] in secrets[reference["name"]]
    assert used_claims == claims.keys()


def test_a_volume_of_one_node_is_used_on_one_node(overlay: str) -> None:
    """Pods that share a ReadWriteOnce volume have to be on the node of the server: elsewhere none starts."""
    users: dict[str, list[str]] = {}
    for name, template in pod_templates(overlay).items():
        for volume in template["spec"]["volumes"]:
            if "persistentVolumeClaim" in volume:
                users.setdefault(volume["persistentVolumeClaim"]["claimName"], []).append(name)
    shared = {
        name
        for claim, item in named(overlay, "PersistentVolumeClaim").items()
        if item["spec"]["accessModes"] == ["ReadWriteOnce"] and len(users[claim]) > 1
        for name in users[claim]
    }
    server = labels_of_pods(overlay)["Deployment/shelfwise"]
    for name in shared - {"Deployment/shelfwise"}:
        affinity = pod_templates(overlay)[name]["spec"].get("affinity", {}).get("podAffinity", {})
        (term,) = affinity.get("requiredDuringSchedulingIgnoredDuringExecution", [{}])
        assert matches(term.get("labelSelector", {"matchLabels": {"none": ""}}), server), name


def _templates_of_claims(overlay: str, workload: str) -> list[Object]:
    kind, _, name = workload.partition("/")
    found: list[Object] = named(overlay, kind)[name]["spec"].get("volumeClaimTemplates", [])
    return found


def test_files_that_commands_name_are_mounted(overlay: str) -> None:
    maps = named(overlay, "ConfigMap")
    for name, template in pod_templates(overlay).items():
        volumes = {volume["name"]: volume for volume in template["spec"]["volumes"]}
        for container in containers(template):
            mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
            words = " ".join([*container.get("command", []), *container.get("args", [])])
            for path in re.findall(r"(?<=[=\[ ])/(?!bin/)[\w./-]+", words):
                folder = next((m for m in mounts if path == m or path.startswith(f"{m}/")), None)
                assert folder is not None, f"{name}: {path}"
                volume = volumes.get(mounts[folder]["name"], {})
                file = path.removeprefix(f"{folder}/")
                if "configMap" in volume:
                    assert file in maps[volume["configMap"]["name"]]["data"], f"{name}: {path}"
                for item in volume.get("secret", {}).get("items", []):
                    assert item["path"] == file, f"{name}: {path}"


def test_pods_meet_the_restricted_standard(overlay: str) -> None:
    for name, template in pod_templates(overlay).items():
        pod = template["spec"]["securityContext"]
        assert pod["runAsNonRoot"] is True, name
        assert pod["runAsUser"] > 0
        assert pod["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in containers(template):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, f"{name}/{container['name']}"
            assert "memory" in container["resources"]["limits"]
            image = container["image"]
            assert re.fullmatch(r"[\w.-]+\.[a-z]+(/[\w-]+)+:\d+\.\d+\.\d+(-[a-z]+)?", image), image


def test_a_server_drains_before_it_is_killed(overlay: str) -> None:
    spec = pod_templates(overlay)["Deployment/shelfwise"]["spec"]
    server = spec["containers"][0]
    _, overrides = split_command(server["args"][1:])
    config: Any = compose_command("serve", [word for word in overrides if "$(" not in word])
    before = server["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert spec["terminationGracePeriodSeconds"] >= config.drain_seconds + before + 10
    ports = {port["name"]: port["containerPort"] for port in server["ports"]}
    assert ports == {"grpc": config.port, "metrics": config.metrics.port}
    # The kubelet asks from outside of the pod.
    assert config.host == config.metrics.host == "0.0.0.0"  # noqa: S104
    plain = all("grpc" in server[f"{kind}Probe"] for kind in ("startup", "readiness"))
    assert plain == (config.tls.certificate is None)  # its gRPC probe speaks no TLS


def test_decisions_of_retrain_are_not_tried_again(overlay: str) -> None:
    job = named(overlay, "CronJob")["shelfwise-retrain"]["spec"]
    assert job["concurrencyPolicy"] == "Forbid"
    spec = job["jobTemplate"]["spec"]
    assert spec["template"]["spec"]["restartPolicy"] == "Never"  # podFailurePolicy needs it
    actions = {rule["action"]: rule for rule in spec["podFailurePolicy"]["rules"]}
    assert actions["FailJob"]["onExitCodes"]["values"] == [2, 10, 11, 12, 13]
    names = {container["name"] for container in spec["template"]["spec"]["containers"]}
    for rule in spec["podFailurePolicy"]["rules"]:
        assert rule.get("onExitCodes", {}).get("containerName", "retrain") in names


def test_policies_let_through_what_commands_ask(overlay: str) -> None:
    """Whoever names another pod in its command or environment may reach it, by egress and by ingress."""
    pods = labels_of_pods(overlay)
    services = {
        service["metadata"]["name"]: service["spec"]["selector"] for service in objects(overlay, "Service")
    }
    asked = 0
    for name, template in pod_templates(overlay).items():
        said = " ".join(
            [w for c in containers(template) for w in c.get("args", [])]
            + [entry.get("value", "") for c in containers(template) for entry in c.get("env", [])]
        )
        for service, port in re.findall(r"(?:\[|//)(shelfwise[\w-]*):(\d+)", said):
            target = next(p for p, v in pods.items() if matches({"matchLabels": services[service]}, v))
            ports = _ports(pod_templates(overlay)[target])
            for direction, end, peer in (("egress", name, target), ("ingress", target, name)):
                assert _allowed(overlay, direction, pods[end], pods[peer], ports, int(port)), (
                    f"{name} -> {service}:{port}: no {direction}"
                )
            asked += 1
    assert asked > 1


def _ports(template: Object) -> dict[str, int]:
    return {p["name"]: p["containerPort"] for c in containers(template) for p in c.get("ports", [])}


def _allowed(
    overlay: str,
    direction: str,
    labels: dict[str, str],
    peer: dict[str, str],
    ports: dict[str, int],
    port: int,
) -> bool:
    """Return whether a policy lets a pod with these labels exchange calls with the peer on a port."""
    side = "to" if direction == "egress" else "from"
    for policy in objects(overlay, "NetworkPolicy"):
        if direction.capitalize() not in policy["spec"]["policyTypes"]:
            continue
        if not matches(policy["spec"]["podSelector"], labels):
            continue
        for rule in policy["spec"].get(direction, []):
            open_ports = {ports.get(p["port"], p["port"]) for p in rule["ports"]}
            peers = [p for p in rule[side] if "namespaceSelector" not in p and "podSelector" in p]
            if port in open_ports and any(matches(p["podSelector"], peer) for p in peers):
                return True
    return False


def test_the_number_of_servers_has_one_owner(overlay: str) -> None:
    server = named(overlay, "Deployment")["shelfwise"]["spec"]
    scalers = objects(overlay, "HorizontalPodAutoscaler")
    assert ("replicas" in server) == (not scalers)
    for scaler in scalers:
        assert scaler["spec"]["scaleTargetRef"] == {
            "apiVersion": "apps/v1", "kind": "Deployment", "name": "shelfwise",
        }  # fmt: skip
        metric = scaler["spec"]["metrics"][0]["pods"]["metric"]["name"]
        rules = yaml.safe_load((KUBERNETES / "prometheus-adapter.yaml").read_text())["rules"]["custom"]
        assert [rule["name"]["as"] for rule in rules] == [metric]
    embedded = "redis://" not in str(server)
    assert embedded == (server.get("strategy") == {"type": "Recreate"})
    assert embedded <= (server.get("replicas") == 1)  # one SQLite file, one node


def test_no_secret_is_rendered(overlay: str) -> None:
    assert objects(overlay, "Secret") == []
    assert "password:" not in (DEPLOY / "redis" / "redis.conf").read_text()
