"""A device without backends: its tensors hold their values in one of the CPU. It stays for the process."""

import functools

import torch
from torch.utils._pytree import tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

_setup_privateuseone_for_python_backend("other")


class Other(torch.Tensor):
    @staticmethod
    def __new__(cls, values, requires_grad=False):
        tensor = torch._C._acc.create_empty_tensor(values.shape, values.dtype)
        tensor = torch.Tensor._make_subclass(cls, tensor, requires_grad)
        tensor.inner = values.contiguous()  # as its strides say
        return tensor


def _inside(value):
    return value.inner if isinstance(value, Other) else value


def _on_the_values(operator, *arguments, **options):
    """Every operator of PyTorch that has no kernel below."""
    options = {name: "cpu" if name == "device" else _inside(value) for name, value in options.items()}
    results = operator(*tree_map(_inside, arguments), **options)
    return tree_map(lambda each: Other(each) if isinstance(each, torch.Tensor) else each, results)


_library = torch.library.Library("aten", "IMPL")
_fallback = torch.library.Library("_", "IMPL")
_fallback.fallback(_on_the_values, "PrivateUse1")
# Else they would fill a tensor that was made empty.
_library.impl("arange", functools.partial(_on_the_values, torch.ops.aten.arange.default), "PrivateUse1")
_library.impl("index_add", functools.partial(_on_the_values, torch.ops.aten.index_add.default), "PrivateUse1")


def _copy(source, destination, non_blocking=False):
    _inside(destination).copy_(_inside(source))
    return destination


_library.impl("_copy_from", _copy, "PrivateUse1")


def _to_copy(tensor, *, dtype=None, device=None, **_):
    values = _inside(tensor).to(dtype=dtype or tensor.dtype, copy=True)
    return values if device is not None and device.type == "cpu" else Other(values)


_library.impl("_to_copy", _to_copy, "PrivateUse1")
