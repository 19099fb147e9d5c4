"""Whether an archive, and what is read from it, is nothing but plain data."""

from __future__ import annotations

import io
import pickle
import pickletools
import re
import zipfile
from collections import OrderedDict
from typing import Any

import torch

# All that the pickle of a state may name. Torch's own list is longer: `bytearray(2**40)` is on it.
NAMES = re.compile(
    r"collections OrderedDict|(__builtin__|builtins) (set|complex)|torch Size"
    r"|torch (Double|Float|Half|BFloat16|Long|Int|Short|Char|Byte|Bool|Complex(Double|Float))Storage"
    r"|torch\._utils _rebuild_(tensor_v2|parameter)"
)
DTYPES = {
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex128, torch.complex64),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
}
PLAIN = (str, bool, int, float, complex, type(None))
DEEPEST = 64  # containers in containers
EXPANDED = 64  # how many times the file's size its tensors may claim, by views that repeat elements


def look_through(payload: bytes) -> None:
    """Refuses an archive whose opening alone would call, import, or take more than its size.

    Raises:
        Exception: of any kind, if it is not one that `save` could have written.
    """
    with zipfile.ZipFile(io.BytesIO(payload)) as archive:
        records = archive.infolist()
        if any(record.compress_type != zipfile.ZIP_STORED for record in records):
            raise pickle.UnpicklingError("a compressed record")
        if sum(record.file_size for record in records) > len(payload):
            raise pickle.UnpicklingError("records that overlap")
    # Read by the reader that torch.load will use: two might see two pickles in one archive.
    pickled = torch._C.PyTorchFileReader(io.BytesIO(payload)).get_record("data.pkl")
    for operation, argument, _ in pickletools.genops(pickled):
        if operation.name == "GLOBAL" and not NAMES.fullmatch(str(argument)):
            raise pickle.UnpicklingError(f"the name {argument}")
        if operation.name == "PROTO" and argument != 2:
            raise pickle.UnpicklingError(f"pickle protocol {argument}")


def check_plain(state: Any, size: float) -> None:
    """Refuses a state that is not a tree of plain data, or whose tensors claim far more than the file.

    Args:
        state: what was read.
        size: bytes of the file; inf before there is one.

    Raises:
        UnpicklingError: naming what it found.
    """
    budget = EXPANDED * size
    if not isinstance(state, dict):
        raise pickle.UnpicklingError(f"a {type(state).__name__} instead of a state")
    level: list[Any] = [state]
    for _ in range(DEEPEST):
        below: list[Any] = []
        for value in level:
            if type(value) in (dict, OrderedDict):
                attributes = getattr(value, "__dict__", {})
                if attributes.keys() - {"_metadata"}:  # which modules leave; others hide methods
                    raise pickle.UnpicklingError("a dict with attributes")
                below += [*value.keys(), *value.values(), *attributes.values()]
            elif type(value) in (list, tuple, set, torch.Size):
                below += value
            elif type(value) in (torch.Tensor, torch.nn.Parameter):
                if value.dtype not in DTYPES or value.layout != torch.strided:
                    raise pickle.UnpicklingError(f"a {value.dtype} {value.layout} tensor")
                budget -= value.numel() * value.element_size()
            elif type(value) not in PLAIN:  # numpy.float64 is a float, and pickled as a call
                kind = type(value)
                raise pickle.UnpicklingError(f"a {kind.__module__}.{kind.__qualname__}")
            budget -= 1
            if budget < len(below):
                raise pickle.UnpicklingError("more than the file has room for")
        level = below
    if level:
        raise pickle.UnpicklingError("containers in containers without end")
