"""A stand-in for a GPU: tensors that say they are on `cuda:0`, computed by the CPU's kernels.

On a machine without a GPU nothing tells a tensor on the wrong device from one on the right one. Inside
`second_device()` there is a second device: `torch.zeros(3, device="cuda")`, `tensor.to("cuda:0")`,
`module.to(device)` and `torch.Generator("cuda")` work, and what they make is kept apart from CPU tensors as
CUDA keeps it. An operation that meets both raises CUDA's RuntimeError, and `.numpy()` its TypeError.
Two things are stricter than CUDA, because there they work by a copy that stops the device: indexing by a CPU
tensor, and, inside `no_host_copies()`, everything that makes the host wait or copy.

    with second_device() as device:
        module.to(device)
        with no_host_copies():
            module.training_step(batch, 0)

Results are equal to the CPU's, bit for bit, and a generator seeded alike draws the same. It holds in every
thread of the process. Not stood in for: streams, `torch.compile`, kernels of CUDA's own, memory. The few
operations that make a tensor inside C++ (`one_hot`) make it on the CPU, and are refused although CUDA takes
them.

Built as a wrapper subclass with `__torch_dispatch__`, as PyTorch's notes on extending it describe: below
Python the wrapper passes for a CPU tensor, which autograd and indexing need on a build without CUDA; each
operation arrives in `_run`, where the devices are compared.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any, NoReturn
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.utils._device import _device_constructors
from torch.utils._pytree import tree_flatten, tree_map_only

DEVICE = torch.device("cuda", 0)
MEMORY = 2**33
"""Bytes that the device says are free."""
_aten = torch.ops.aten
_CROSSING = {_aten.copy_.default, _aten._foreach_copy_.default}
"""Operations that CUDA lets read one device and write the other."""
_ZERO_DIM = {
    _aten.index_put_.default, _aten.index_put.default, _aten.masked_fill.Tensor, _aten.masked_fill_.Tensor,
    _aten.fill_.Tensor, _aten.fill.Tensor,
}  # fmt: skip
"""Operations, beside the pointwise ones, that take a CPU tensor without dimensions as if it were a number."""
_SIZED_BY_VALUES = {
    _aten.nonzero.default, _aten.masked_select.default, _aten._unique.default, _aten._unique2.default,
    _aten.unique_dim.default, _aten.unique_consecutive.default, _aten.bincount.default,
    _aten.repeat_interleave.Tensor,
}  # fmt: skip
"""Operations whose result has a size that the host must wait for."""
_INDEXING = {
    _aten.index.Tensor,
    _aten.index_put.default,
    _aten.index_put_.default,
    _aten._index_put_impl_.default,
    _aten._unsafe_index.Tensor,
}
_FACTORIES = (
    "arange", "as_tensor", "asarray", "empty", "empty_like", "empty_strided", "eye", "full", "full_like",
    "linspace", "ones", "ones_like", "rand", "rand_like", "randint", "randint_like", "randn", "randn_like",
    "randperm", "scalar_tensor", "tensor", "tril_indices", "triu_indices", "zeros", "zeros_like",
)  # fmt: skip
_FROM_HOST = ("tensor", "as_tensor", "asarray")
_strict = 0
"""How many `no_host_copies` are open."""


class HostCopyError(AssertionError):
    """The host waited for the device, or copied, where it must not."""


def _host_copy(what: str) -> None:
    if _strict:
        raise HostCopyError(f"{what} makes the host wait for the device or copies between them")


def _is_second(device: object) -> bool:
    """Tell whether a `device=` argument names the second device."""
    if device is None or isinstance(device, (int, bool)):
        return isinstance(device, int)
    return torch.device(str(device)).type == DEVICE.type


class DeviceTensor(Tensor):
    """A tensor of the second device; `_inner` is the CPU tensor that it is computed with."""

    _inner: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @staticmethod
    def __new__(cls: type[DeviceTensor], inner: Tensor) -> DeviceTensor:
        """Wrap a CPU tensor, sharing its memory."""
        made: DeviceTensor = Tensor._make_wrapper_subclass(
            cls, inner.size(), strides=inner.stride(), storage_offset=inner.storage_offset(),
            dtype=inner.dtype, layout=inner.layout, device=torch.device("cpu"), requires_grad=False,
        )  # fmt: skip
        made._inner = inner.detach()
        return made

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Compare devices, then compute on the CPU."""
        return _run(func, args, kwargs or {})

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        """The second device."""
        return DEVICE

    is_cuda = property(lambda self: True)
    is_cpu = property(lambda self: False)

    def get_device(self) -> int:
        """Return the device's number."""
        return 0

    def __repr__(self, **_: object) -> str:  # type: ignore[override]
        """Show the values and the device."""
        return f"{self._inner!r} on {DEVICE}"

    def _refuse(self) -> NoReturn:
        raise TypeError(
            f"can't convert {DEVICE} device type tensor to numpy. "
            "Use Tensor.cpu() to copy the tensor to host memory first."
        )

    def __array__(self, *_: object, **__: object) -> NoReturn:
        """Refuse to become an array."""
        self._refuse()

    def numpy(self, *, force: bool = False) -> Any:
        """Refuse to become an array unless forced, which copies."""
        if not force:
            self._refuse()
        return self.detach().cpu().numpy()

    def tolist(self) -> Any:
        """Copy to the host."""
        return self.detach().cpu().tolist()

    def cpu(self, *_: object, **__: object) -> Tensor:
        """Copy to the host."""
        return _move(self, False)

    def data_ptr(self) -> int:
        """Return the address of the memory."""
        return self._inner.data_ptr()

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """Copy a leaf, with what it is to a module."""
        copied: Tensor = DeviceTensor(self._inner.clone()).requires_grad_(self.requires_grad)
        if isinstance(self, nn.Parameter):
            copied = nn.Parameter(copied, self.requires_grad)
        memo[id(self)] = copied
        return copied


def _inner(value: DeviceTensor) -> Tensor:
    return value._inner


def _wrap(value: Tensor) -> Tensor:
    return value if isinstance(value, DeviceTensor) else DeviceTensor(value)


class _Crossing(torch.autograd.Function):
    """A copy from one device to the other; its gradient goes back the same way."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, to_second: bool) -> Tensor:
        ctx.back = not to_second
        return _wrap(value.clone()) if to_second else _inner(value).clone()  # type: ignore[arg-type]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return _Crossing.forward(ctx, gradients[0], ctx.back), None


def _move(value: Tensor, to_second: bool, waits: bool = True) -> Tensor:
    """Return a tensor on the device asked for, itself where it is there already."""
    if isinstance(value, DeviceTensor) == to_second:
        return value
    if not to_second or (waits and value.dim() > 0):
        _host_copy("Tensor.to" if to_second else "Tensor.cpu")
    moved: Tensor = _Crossing.apply(value, to_second)  # type: ignore[no-untyped-call]
    return moved


def _run(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Carry out an operation in which at least one tensor is on the second device."""
    flat = [value for value in tree_flatten((args, kwargs))[0] if isinstance(value, Tensor)]
    strangers = [value for value in flat if not isinstance(value, DeviceTensor)]
    if func in _CROSSING:
        # A number that is assigned to one place arrives as a CPU tensor without dimensions.
        if any(value.dim() or value is args[0] for value in strangers):
            _host_copy(str(func))
    elif func in _INDEXING:
        _compare_indices(func, args)
    if func not in _CROSSING and strangers:
        as_number = torch.Tag.pointwise in func.tags or func in _ZERO_DIM or "_foreach" in func.name()
        if not as_number or any(value.dim() for value in strangers):
            raise RuntimeError(
                "Expected all tensors to be on the same device, but found at least two devices, "
                f"{DEVICE} and cpu! (in {func})"
            )
    if func is _aten._local_scalar_dense.default:
        _host_copy("Tensor.item")
    if func in _SIZED_BY_VALUES and not (
        func is _aten.repeat_interleave.Tensor and kwargs.get("output_size")
    ):
        _host_copy(str(func))
    inner_args, inner_kwargs = tree_map_only(DeviceTensor, _inner, (args, kwargs))
    result = func(*inner_args, **inner_kwargs)
    returns = func._schema.returns
    if returns and all(r.alias_info is not None and r.alias_info.is_write for r in returns):
        # In place, or `out=`: the caller goes on with the tensors that it passed.
        written = [
            value
            for value, argument in zip(args, func._schema.arguments, strict=False)
            if argument.alias_info is not None and argument.alias_info.is_write
        ]
        written += [kwargs[a.name] for a in func._schema.arguments if a.kwarg_only and a.is_out]
        return written[0] if len(returns) == 1 else tuple(written)
    return tree_map_only(Tensor, _wrap, result)


def _compare_indices(func: Any, args: tuple[Any, ...]) -> None:
    """Refuse indices from the other device, and report masks, whose True values the host must count."""
    indices = [index for index in args[1] if index is not None]
    if any(isinstance(index, DeviceTensor) != isinstance(args[0], DeviceTensor) for index in indices):
        where = args[0].device
        raise RuntimeError(
            f"indices should be on the same device as the indexed tensor ({where}) (in {func}); "
            "by a CPU index CUDA would copy"
        )
    if any(index.dtype in (torch.bool, torch.uint8) for index in indices):
        _host_copy("indexing by a mask")


def _factory(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
    """Return a factory of torch that knows the second device."""

    @wraps(original)
    def make(*args: Any, device: Any = None, **kwargs: Any) -> Any:
        source = args[0] if args and isinstance(args[0], Tensor) else None
        second = isinstance(source, DeviceTensor) if device is None else _is_second(device)
        generator = kwargs.get("generator")
        if generator is not None and isinstance(generator, _Generator) != second:
            place, other = (DEVICE.type, "cpu") if second else ("cpu", DEVICE.type)
            raise RuntimeError(f"Expected a '{place}' device type for generator but found '{other}'")
        if name in _FROM_HOST:
            if source is not None and isinstance(source, DeviceTensor):
                return source.to(device=device, dtype=kwargs.get("dtype"))
            if second:
                _host_copy(f"torch.{name} of the host's values")
        elif name.endswith("_like") and source is not None:
            args = (_inner(source) if isinstance(source, DeviceTensor) else source, *args[1:])
        if not second:
            return original(*args, **kwargs) if device is None else original(*args, device=device, **kwargs)
        requires_grad = kwargs.pop("requires_grad", False)
        return _wrap(original(*args, **kwargs)).requires_grad_(requires_grad)

    return make


def _to(original: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return `Tensor.to` that knows the second device."""

    @wraps(original)
    def to(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if args and isinstance(args[0], Tensor):
            args = (args[0].device, args[0].dtype, *args[1:])
        names: tuple[str, ...] = ("dtype", "non_blocking", "copy")
        if not args or not isinstance(args[0], torch.dtype):
            names = ("device", *names)
        wanted = {**dict(zip(names, args, strict=False)), **kwargs}
        wanted = {name: value for name, value in wanted.items() if value is not None}
        device = wanted.get("device")
        moved = self
        if device is not None and torch.device(device).type in (DEVICE.type, "cpu"):
            # A copy that nobody waits for is none that stops the host.
            moved = _move(self, _is_second(wanted.pop("device")), waits=not wanted.get("non_blocking"))
        return original(moved, **wanted) if wanted else moved

    return to


class _Generator(torch.Generator):
    """A generator of the second device; drawn from by the CPU's kernels."""

    def __new__(cls, device: Any = None) -> torch.Generator:  # type: ignore[misc]
        """Return a generator of the device asked for."""
        if not _is_second(device):
            return _CPU_GENERATOR("cpu" if device is None else device)
        return super().__new__(cls)

    def __init__(self, device: object = None) -> None:
        """Take no more than the device."""

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        """The second device."""
        return DEVICE


_CPU_GENERATOR = torch.Generator


def _grouped(original: Callable[..., Any]) -> Callable[..., Any]:
    """Return torch's grouping of tensors by device and type, with the devices that Python sees."""

    @wraps(original)
    def group(lists: Any, with_indices: bool = False) -> Any:
        found = original(lists, with_indices)
        return {(_device_of(value[0]) or device, dtype): value for (device, dtype), value in found.items()}

    return group


def _device_of(lists: Any) -> torch.device | None:
    return next((value.device for values in lists for value in values if value is not None), None)


def _autocast(original: Callable[..., None]) -> Callable[..., None]:
    """Return the constructor of `torch.autocast` that takes the second device for the CPU underneath."""

    @wraps(original)
    def begin(self: Any, device_type: str, *args: Any, **kwargs: Any) -> None:
        original(self, "cpu" if device_type == DEVICE.type else device_type, *args, **kwargs)

    return begin


def _infer(self: Any) -> None:
    """Enter `torch.inference_mode` as `no_grad`: slices of a wrapper need the versions that it drops."""
    self._inference_mode_context = torch.set_grad_enabled(not self.mode and torch.is_grad_enabled())
    self._inference_mode_context.__enter__()


@contextlib.contextmanager
def second_device() -> Iterator[torch.device]:
    """Make `cuda:0` usable on a machine without one, and return it."""
    swap = torch.__future__.get_swap_module_params_on_conversion()
    _device_constructors()  # torch keeps the first answer, which must not be what stands in for them here
    with contextlib.ExitStack() as stack:
        for name in _FACTORIES:
            stack.enter_context(patch.object(torch, name, _factory(name, getattr(torch, name))))
        stack.enter_context(patch.object(Tensor, "to", _to(Tensor.to)))
        stack.enter_context(patch.object(Tensor, "cuda", lambda self, *_, **__: _move(self, True)))
        stack.enter_context(patch.object(Tensor, "pin_memory", lambda self, *_: self))
        stack.enter_context(patch.object(torch, "Generator", _Generator))
        stack.enter_context(patch.object(torch.cuda, "mem_get_info", lambda *_: (MEMORY, MEMORY)))
        stack.enter_context(
            patch.object(
                torch._C,
                "_group_tensors_by_device_and_dtype",
                _grouped(torch._C._group_tensors_by_device_and_dtype),
            )
        )
        stack.enter_context(patch.object(torch.inference_mode, "__enter__", _infer))
        stack.enter_context(patch.object(torch.autocast, "__init__", _autocast(torch.autocast.__init__)))
        # Parameters stay the objects that they are, as they do when a module goes to a GPU.
        torch.__future__.set_swap_module_params_on_conversion(True)
        try:
            yield DEVICE
        finally:
            torch.__future__.set_swap_module_params_on_conversion(swap)


@contextlib.contextmanager
def no_host_copies() -> Iterator[None]:
    """Forbid whatever copies between host and device, or makes the host wait for a value of the device.

    That is `.cpu()`, `.to()` across devices, `.item()`, `bool()` and comparisons in an `if`, `.tolist()`,
    `torch.tensor(..., device=...)`, and what has a size that depends on values: `nonzero`, `unique`, indexing
    by a mask.

    Raises:
        HostCopy: at the operation.

    """
    global _strict
    _strict += 1
    try:
        yield
    finally:
        _strict -= 1
