"""A GPU that is not there: what is put on it is computed on the CPU, and refused wherever a real one would refuse it.

Tensors carry a mark of the device they were put on. An operation that would mix devices, or hand to NumPy what is on
the GPU, raises as torch does. So code that runs here keeps each tensor where it belongs; how fast a real device is,
and how it rounds sums, is not to be learnt here.
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
    """Within it torch knows a device `cuda`, in the threads of `tgn_assets.ml.parallel` as well."""
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
        yield mode


def place(tensor: Tensor) -> str:
    """Where `tensor` is held to be."""
    return str(tensor.__dict__.get("place", CPU))


class PretendGPU(TorchFunctionMode):
    """Sees every call of torch's Python interface; `operations` counts those whose result was on the GPU."""

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
        asked = kwargs.pop("device", None)
        target = _of_device(asked) if asked is not None else self._common(name, args, tensors)
        self.operations += target == GPU
        result, given = func(*args, **kwargs), {id(x) for x in tensors}
        # What an operation changes and returns stays where it is.
        return tree_map_only(Tensor, lambda x: x if id(x) in given and asked is None else _put(x, target), result)

    def _common(self, name: str, args: Any, tensors: list[Tensor]) -> str:
        """Where the result is. RuntimeError if the operands are not together; a scalar may come from the host."""
        if name in INDEXING and place(args[0]) == GPU:
            return GPU  # what is there may be indexed from the host, but not the other way round
        everywhere = {place(x) for x in tensors} or {CPU}
        places = {place(x) for x in tensors if x.dim()} or everywhere
        if (len(places) > 1 or everywhere - places - {CPU}) and not self.in_backward:
            raise RuntimeError(f"{name}: expected all tensors to be on the same device, but found at least two")
        return GPU if GPU in places else CPU

    def _backward(self, func: Callable[..., Any], args: Any, kwargs: dict[str, Any]) -> Any:
        """Gradients come from torch's C++ without a mark, so nothing can be said of a custom function's operands."""
        self.in_backward = True
        try:
            return func(*args, **kwargs)
        finally:
            self.in_backward = False


def _moved(source: Tensor, to: list[Any], target: str | None) -> Tensor:
    """What `source.to(*to)` is, or `.cpu()` or `.cuda()`."""
    result, was = source, place(source)
    for asked in to:
        if isinstance(asked, torch.dtype):
            result = source.to(asked)
        if isinstance(asked, (str, torch.device)):
            target = _of_device(asked)
    if result is source and target not in (None, was):
        result = source.clone()
    return _put(result, target or was)


def _of_device(asked: object) -> str:
    return str(asked).split(":")[0]


def _put(found: Any, target: str) -> Any:
    if isinstance(found, Tensor):
        found.__dict__["place"] = target
    return found
