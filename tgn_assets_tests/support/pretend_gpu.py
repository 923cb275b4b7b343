"""A simulated GPU: it computes on the CPU, and raises wherever code for a real GPU would fail.

Tensors carry a mark of the device that they were put on. An operation that mixes devices, or hands a GPU tensor to
NumPy, raises as torch does. So code that runs here keeps each tensor on the right device. The speed of a real device
and its rounding of sums are not simulated.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode, resolve_name
from torch.utils._pytree import tree_leaves, tree_map_only

from tgn_assets.ml import parallel

CPU, GPU = "cpu", "cuda"
MOVES = {"torch.Tensor.to": None, "torch.Tensor.cpu": CPU, "torch.Tensor.cuda": GPU}
HOST_ONLY = {"torch.Tensor.numpy", "torch.Tensor.__array__"}
INDEXING = {"torch.Tensor.__getitem__", "torch.Tensor.__setitem__"}
CROSSING = {"copy_", "_has_compatible_shallow_copy_type"}
OF_A_PARAMETER = {"torch.Tensor.grad.__get__", "torch.Tensor.data.__get__"}


@contextmanager
def pretend_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator["PretendGPU"]:
    """Gives torch a device `cuda` within the context, also in the threads of `tgn_assets.ml.parallel`."""
    mode = PretendGPU()

    class Pool(ThreadPoolExecutor):
        def submit(self, work: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
            def within() -> Any:
                with mode:
                    return work(*args, **kwargs)

            return super().submit(within)

    with monkeypatch.context() as patch, mode:
        patch.setattr(parallel, "ThreadPoolExecutor", Pool)
        patch.setattr(torch.cuda, "is_available", lambda: True)
        patch.setattr(torch.cuda, "synchronize", lambda: None)
        patch.setattr(torch.cuda, "get_device_name", lambda device=None: "a simulated GPU")
        yield mode


def place(tensor: Tensor) -> str:
    """The device that `tensor` is marked with."""
    return str(tensor.__dict__.get("place", CPU))


class PretendGPU(TorchFunctionMode):
    """Intercepts every call of torch's Python interface; `operations` counts those with a result on the GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = 0
        self.in_backward = False

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        name = resolve_name(func) or func.__name__
        if name == "torch.Tensor.device.__get__":
            return torch.device(place(args[0]))
        if name == "torch.Tensor.is_cuda.__get__":
            return place(args[0]) == GPU
        if name == "torch.Tensor.data.__set__":
            _put(args[0], place(args[1]))
            return func(*args)
        if name in OF_A_PARAMETER:
            return _put(func(*args), place(args[0]))
        if func.__name__ in CROSSING:
            return func(*args, **kwargs)
        if name in HOST_ONLY and place(args[0]) == GPU:
            raise TypeError("can't convert cuda:0 device type tensor to numpy; use Tensor.cpu() first")
        if name in MOVES:
            return _moved(args[0], [*args[1:], *kwargs.values()], MOVES[name])
        if name == "torch.Tensor.backward":
            return self._backward(func, args, kwargs)
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        device = kwargs.pop("device", None)
        target = _of_device(device) if device is not None else self._common(name, args, tensors)
        self.operations += target == GPU
        result, given = func(*args, **kwargs), {id(x) for x in tensors}
        # A tensor that an operation changes in place and returns keeps its mark.
        return tree_map_only(Tensor, lambda x: x if id(x) in given and device is None else _put(x, target), result)

    def _common(self, name: str, args: Any, tensors: list[Tensor]) -> str:
        """The device of the result. RuntimeError if the operands are on several; scalars may come from the host."""
        if name in INDEXING and place(args[0]) == GPU:
            return GPU  # a GPU tensor may be indexed by one of the host, but not the other way round
        everywhere = {place(x) for x in tensors} or {CPU}
        places = {place(x) for x in tensors if x.dim()} or everywhere
        if (len(places) > 1 or everywhere - places - {CPU}) and not self.in_backward:
            raise RuntimeError(f"{name}: expected all tensors to be on the same device, but found at least two")
        return GPU if GPU in places else CPU

    def _backward(self, func: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Any:
        """Runs without checks: torch's C++ makes gradients without a mark, even for custom functions."""
        self.in_backward = True
        try:
            return func(*args, **kwargs)
        finally:
            self.in_backward = False


def _moved(source: Tensor, to: list[Any], target: str | None) -> Tensor:
    """The result of `source.to(*to)`, `.cpu()` or `.cuda()`."""
    result, was = source, place(source)
    for device in to:
        if isinstance(device, torch.dtype):
            result = source.to(device)
        if isinstance(device, (str, torch.device)):
            target = _of_device(device)
    if result is source and target not in (None, was):
        result = source.clone()
    return _put(result, target or was)


def _of_device(device: object) -> str:
    return str(device).split(":")[0]


def _put(found: Any, target: str) -> Any:
    if isinstance(found, Tensor):
        found.__dict__["place"] = target
    return found
