"""A server with the serving image's distributions alone starts and answers every call."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc

from benchmarks.serving.size import listed, pruned
from features.data.dataset import Dataset
from shelfwise_client.v1 import recommendations_pb2 as pb
from shelfwise_client.v1 import recommendations_pb2_grpc as pb_grpc
from tests.deploy.environments import slim_environment
from tests.deploy.manifests import ROOT
from tests.serving.model_stores import publish_model

SERVICE = pb.DESCRIPTOR.services_by_name["RecommendationService"]


class Calls:
    """Calls of the service, counted by name."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._stub = pb_grpc.RecommendationServiceStub(channel)  # type: ignore[no-untyped-call]
        self.made: set[str] = set()

    def __call__(self, name: str, request: object) -> list[Any]:
        """Return the responses to a request; raises grpc.RpcError if the call fails."""
        self.made.add(name)
        call = getattr(self._stub, name)
        if SERVICE.methods_by_name[name].server_streaming:
            return list(call(request, timeout=60))
        return [call(request, timeout=60)]


def row(item_id: str, **attributes: str | float) -> pb.Item:
    item = pb.Item(item_id=item_id)
    item.attributes.update(attributes)
    return item


def ask_everything(address: str) -> set[str]:
    """Make every call, check what only a working model answers, and return the names of the calls."""
    with grpc.insecure_channel(address) as channel:
        call = Calls(channel)
        (listing,) = call("ListItems", pb.ListItemsRequest(page_size=3))
        known = [item.item_id for item in listing.items]
        (declared,) = call(
            "DeclareAttributes",
            pb.DeclareAttributesRequest(
                attributes=[pb.AttributeDeclaration(name="shelf", type=pb.Attribute.STRING)]
            ),
        )
        assert declared.declared_count == 1
        (added,) = call("UpsertItems", pb.UpsertItemsRequest(items=[row("new", title="rose boots")]))
        assert added.upserted_count == 1
        (alike,) = call("SimilarItems", pb.SimilarItemsRequest(text="rose boots", page_size=1))
        assert [item.item_id for item in alike.items] == ["new"]  # its text was encoded
        (found,) = call("SearchItems", pb.SearchItemsRequest(query="rose boots", page_size=1))
        assert [item.item_id for item in found.items] == ["new"]
        call("UpdateItem", pb.UpdateItemRequest(item=row("new", price=4.0)))
        update = pb.UpdateItemRequest(item=row("new", shelf="left"))
        (updated,) = call("BatchUpdateItems", pb.BatchUpdateItemsRequest(requests=[update]))
        assert updated.updated_count == 1
        (got,) = call("GetItem", pb.GetItemRequest(item_id="new"))
        assert (got.item.attributes["price"], got.item.attributes["shelf"]) == (4.0, "left")
        event = pb.Event(user_id="ann", item_id=known[0], event="click")
        event.event_time.GetCurrentTime()
        (recorded,) = call("RecordEvents", pb.RecordEventsRequest(events=[event]))
        assert list(recorded.rejects) == []
        (listed_for,) = call("Recommend", pb.RecommendRequest(user_id="ann", page_size=5))
        assert len(listed_for.items) == 5
        lists = call("BatchRecommend", pb.BatchRecommendRequest(all_users=True, list_size=2))
        assert lists
        assert call("ExportUser", pb.ExportUserRequest(user_id="ann"))
        (gone,) = call("DeleteUser", pb.DeleteUserRequest(user_id="ann"))
        assert gone.deleted_event_count == 1
        (removed,) = call("DeleteItems", pb.DeleteItemsRequest(item_ids=["new"]))
        assert removed.deleted_count == 1
        call("GetStatus", pb.GetStatusRequest())
        return call.made


def test_every_call_is_answered(tmp_path: Path, dataset: Dataset, bert: Path) -> None:
    (tmp_path / "libraries").mkdir()
    wanted = listed("serve.txt") | {"faiss-cpu", "faiss-gpu"}
    environment = slim_environment(tmp_path / "libraries", wanted, pruned())
    store = publish_model(tmp_path / "store", dataset, bert)
    command = [
        sys.executable, "-S", "shelfwise.py", "serve", f"artifacts={store}", "port=0", "admin=true",
        f"state={tmp_path / 'state.sqlite'}",
    ]  # fmt: skip
    with (tmp_path / "errors").open("w") as errors:
        server = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True
        )
    try:
        assert server.stdout is not None
        lines = iter(server.stdout.readline, "")
        address = next((line.split()[2] for line in lines if line.startswith("listening on ")), "")
        assert address, (tmp_path / "errors").read_text()
        assert ask_everything(address) == set(SERVICE.methods_by_name)
        server.send_signal(signal.SIGTERM)
        assert server.wait(60) == 0
    finally:
        server.kill()
        server.wait()
        if server.stdout is not None:
            server.stdout.close()
    assert "Traceback" not in (tmp_path / "errors").read_text()
