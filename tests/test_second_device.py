"""The stand-in for a GPU refuses what CUDA refuses and computes what the CPU computes."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.second_device import HostCopyError, no_host_copies, second_device

TWO_DEVICES = "Expected all tensors to be on the same device"


@pytest.fixture
def device() -> Iterator[torch.device]:
    with second_device() as made:
        yield made


REFUSED: dict[str, Callable[[Tensor, Tensor], object]] = {
    "cat": lambda d, c: torch.cat([d, c]),
    "stack": lambda d, c: torch.stack([c, d]),
    "add": lambda d, c: d + c,
    "add in place": lambda d, c: c.add_(d),
    "matmul": lambda d, c: d[None] @ c[:, None],
    "linear": lambda d, c: nn.functional.linear(d, c[None]),
    "embedding": lambda d, c: nn.functional.embedding(c.long(), d[:, None]),
    "compare": lambda d, c: d[:, None] == c[None],
    "where": lambda d, c: torch.where(d > 0, d, c),
    "masked fill": lambda d, c: d.masked_fill(c > 0, 0.0),
    "gather": lambda d, c: d.gather(0, c.long()),
    "searchsorted": lambda d, c: torch.searchsorted(d, c),
    "cat of a 0-dim tensor": lambda d, c: torch.stack([d[0], c[0]]),
    "out": lambda d, c: torch.add(d, d, out=c),
}


@pytest.mark.parametrize("name", REFUSED)
def test_two_devices_do_not_meet(device: torch.device, name: str) -> None:
    with pytest.raises(RuntimeError, match=TWO_DEVICES):
        REFUSED[name](torch.arange(4.0, device=device), torch.arange(4.0))


def test_an_index_is_on_the_device_of_what_it_indexes(device: torch.device) -> None:
    there, here = torch.arange(4.0, device=device), torch.arange(4.0)
    rows, places = torch.tensor([0, 2]), torch.tensor([0, 2], device=device)
    for index, indexed in ((rows, there), (places, here), (here > 1, there), (there > 1, here)):
        with pytest.raises(RuntimeError, match="indices should be on the same device"):
            indexed[index]
        with pytest.raises(RuntimeError, match="indices should be on the same device"):
            indexed[index] = 1.0
    with pytest.raises(RuntimeError, match=TWO_DEVICES):
        there[places] = torch.zeros(2)
    assert there[places].cpu().tolist() == [0.0, 2.0]


def test_a_number_may_come_from_the_host(device: torch.device) -> None:
    there = torch.arange(3.0, device=device)
    with no_host_copies():
        there = there * torch.tensor(2.0) + 1
        there[1:] = 7.0
        there[0] = 5.0
    assert there.is_cuda
    assert there.cpu().tolist() == [5.0, 7.0, 7.0]


def test_it_does_not_become_an_array(device: torch.device) -> None:
    there = torch.arange(3.0, device=device)
    for convert in (type(there).numpy, np.asarray):
        with pytest.raises(TypeError, match="can't convert cuda:0 device type tensor to numpy"):
            convert(there)
    assert there.numpy(force=True).tolist() == there.cpu().numpy().tolist() == [0.0, 1.0, 2.0]
    assert (there + torch.from_numpy(np.ones(3, np.float32)).to(device)).tolist() == [1.0, 2.0, 3.0]


WAITING: dict[str, Callable[[Tensor], object]] = {
    "cpu": lambda d: d.cpu(),
    "to": lambda d: d.to("cpu"),
    "to the type of another": lambda d: d.to(torch.zeros(1)),
    "item": lambda d: d[0].item(),
    "float": lambda d: float(d[0]),
    "if": lambda d: 1 if d[0] > 0 else 0,
    "tolist": lambda d: d.tolist(),
    "numpy": lambda d: d.numpy(force=True),
    "from the host": lambda d: torch.zeros(2).to(d.device),
    "from the host, other way": lambda d: torch.zeros(2).cuda(),
    "of Python's values": lambda d: torch.tensor([1.0], device=d.device),
    "copied into": lambda d: d.copy_(torch.zeros(3)),
    "copied from": lambda d: torch.zeros(3).copy_(d),
    "mask": lambda d: d[d > 0],
    "nonzero": lambda d: d.nonzero(),
    "unique": lambda d: torch.unique(d, return_inverse=True),
    "repeat": lambda d: torch.repeat_interleave(d, d.long()),
    "slice by a value": lambda d: d[: d.long()[1]],
}


@pytest.mark.parametrize("name", WAITING)
def test_where_the_host_waits_is_found(device: torch.device, name: str) -> None:
    there = torch.arange(3.0, device=device)
    with no_host_copies(), pytest.raises(HostCopyError):
        WAITING[name](there)
    WAITING[name](there)


def attended(make: Callable[..., Tensor], **masked: Any) -> Tensor:
    query, key, value = make(3, 2, 4, 6, 8)
    return nn.functional.scaled_dot_product_attention(query, key, value, **masked)


EQUAL: dict[str, Callable[[Any], Tensor]] = {
    "softmax": lambda make: make(5, 7).softmax(1),
    "topk": lambda make: torch.topk(make(5, 7), 3).values,
    "sort": lambda make: make(5, 7).sort(dim=1, descending=True).indices.float(),
    "attention": lambda make: attended(make),
    "masked attention": lambda make: attended(make, attn_mask=make(2, 1, 6, 6) > -1),
    "causal attention": lambda make: attended(make, is_causal=True),
    "layer norm": lambda make: nn.functional.layer_norm(make(5, 7), (7,)),
    "dropout": lambda make: nn.functional.dropout(make(5, 7), 0.5),
    "scatter": lambda make: make(5, 7).scatter_add(1, make(5, 7).argsort(1), make(5, 7)),
    "bincount by index_add": lambda make: make(5, 7).index_add(0, make(5).argsort(), make(5, 7)),
    "cross entropy": lambda make: nn.functional.cross_entropy(make(5, 7), make(5, 7).argmax(1)),
    "where": lambda make: torch.where(make(5, 7) > 0, make(5, 7), -torch.inf),
    "einsum": lambda make: torch.einsum("ij,kj->ik", make(5, 7), make(3, 7)),
    "views": lambda make: make(4, 6).view(2, 2, 6).transpose(0, 1).reshape(4, 6)[1:, ::2].flatten(),
    "padded": lambda make: nn.functional.pad(make(5, 7), (1, 2)),
    "half": lambda make: (make(5, 7).bfloat16() @ make(7, 3).to(torch.bfloat16)).float(),
    "logsumexp": lambda make: torch.logsumexp(make(5, 7), 1),
}


@pytest.mark.parametrize("name", EQUAL)
def test_results_are_those_of_the_cpu(device: torch.device, name: str) -> None:
    def result(where: str) -> Tensor:
        torch.manual_seed(0)
        found = EQUAL[name](lambda *shape: torch.randn(*shape, device=where))
        assert found.device == torch.device(where)
        return found.cpu()

    assert torch.equal(result(str(device)), result("cpu"))


def test_a_generator_draws_on_its_own_device(device: torch.device) -> None:
    there, here = torch.Generator(device), torch.Generator()
    assert there.device == device
    assert here.device == torch.device("cpu")
    there.manual_seed(3)
    here.manual_seed(3)
    drawn = torch.rand(5, generator=there, device=device)
    assert torch.equal(drawn.cpu(), torch.rand(5, generator=here))
    with pytest.raises(RuntimeError, match="Expected a 'cuda' device type for generator but found 'cpu'"):
        torch.rand(5, generator=here, device=device)
    with pytest.raises(RuntimeError, match="Expected a 'cpu' device type for generator but found 'cuda'"):
        torch.randperm(5, generator=there)


class Network(nn.Module):
    """An embedding, attention and a head that is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(11, 8)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True)
        self.head = nn.Linear(8, 11, bias=False)
        self.head.weight = self.embedding.weight
        self.register_buffer("scale", torch.full((8,), 0.5))

    def forward(self, rows: Tensor) -> Tensor:
        logits: Tensor = self.head(self.layer(self.embedding(rows)) * self.get_buffer("scale"))
        return logits


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("half", [True, False])
def test_training_gives_the_weights_of_the_cpu(device: torch.device, fused: bool, half: bool) -> None:
    def trained(where: torch.device) -> dict[str, Tensor]:
        torch.manual_seed(0)
        network = Network()
        before = network.embedding.weight
        network.to(where)
        assert network.embedding.weight is network.head.weight is before
        assert {p.device for p in (*network.parameters(), *network.buffers())} == {where}
        assert all(isinstance(p, nn.Parameter) and p.is_leaf for p in network.parameters())
        average = copy.deepcopy(network)
        optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2, fused=fused)
        rows = torch.arange(33).view(3, 11).to(where) % 11
        for _ in range(3):
            with torch.autocast(where.type, torch.bfloat16, enabled=half):
                loss = nn.functional.cross_entropy(network(rows).flatten(0, 1).float(), rows.flatten())
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            assert all(p.grad is not None and p.grad.device == where for p in network.parameters())
            optimizer.step()
            with torch.no_grad():
                torch._foreach_lerp_(list(average.parameters()), list(network.parameters()), 0.1)
        network.load_state_dict({name: t.cpu() for name, t in average.state_dict().items()})
        network.to("cpu")
        assert type(network.head.weight) is nn.Parameter
        assert type(network.get_buffer("scale")) is Tensor
        return network.state_dict()

    expected = trained(torch.device("cpu"))
    for name, values in trained(device).items():
        assert torch.equal(values, expected[name]), name


def test_a_module_left_behind_is_found(device: torch.device) -> None:
    with pytest.raises(RuntimeError, match=TWO_DEVICES):
        Network()(torch.zeros(1, 2, dtype=torch.long, device=device))


def test_gradients_cross_devices(device: torch.device) -> None:
    here = torch.tensor([1.0, 2.0], requires_grad=True)
    (here.to(device) ** 2).sum().cpu().backward()  # type: ignore[no-untyped-call]
    assert here.grad is not None
    assert not here.grad.is_cuda
    assert here.grad.tolist() == [2.0, 4.0]


def test_it_holds_in_other_threads_and_ends(device: torch.device) -> None:
    found: list[str] = []

    def work() -> None:
        try:
            torch.cat([torch.zeros(2).to(device), torch.zeros(2)])
        except RuntimeError as error:
            found.append(str(error))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert len(found) == 1
    assert TWO_DEVICES in found[0]


def test_afterwards_torch_is_as_it_was() -> None:
    before = (torch.zeros, torch.Tensor.to, torch.Generator, torch.autocast.__init__)
    with second_device() as device:
        kept = torch.zeros(2, device=device)
        assert torch.zeros is not before[0]
    assert (torch.zeros, torch.Tensor.to, torch.Generator, torch.autocast.__init__) == before
    assert kept.cpu().tolist() == [0.0, 0.0]
