"""The overlay with the store in a bucket."""

from __future__ import annotations

from tests.deploy.manifests import pod_templates


def test_a_server_with_a_bucket_waits_for_what_is_fetched_beside_it() -> None:
    templates = pod_templates("object-store")
    before = templates["Deployment/shelfwise"]["spec"]["initContainers"]
    assert [(c["name"], c.get("restartPolicy")) for c in before] == [("fetch", "Always"), ("wait", None)]
    (push,) = templates["CronJob/shelfwise-retrain"]["spec"]["initContainers"]
    assert push["restartPolicy"] == "Always"
    remotes = [{e["name"]: e.get("value") for e in c["env"]}["REMOTE"] for c in (before[0], push)]
    assert remotes[0] == remotes[1]
    assert {"name": "store", "mountPath": "/srv/shelfwise"} in before[0]["volumeMounts"]
    assert {"name": "store", "mountPath": "/srv/shelfwise", "readOnly": True} in push["volumeMounts"]
