"""Payloads of a checkpoint that mean harm: each calls, imports, opens, or asks for too much."""

from __future__ import annotations

import hashlib
import io
import pickle
import struct
import tarfile
import zipfile
from typing import Any

import torch

from trainer.checkpoint import HEADER, MAGIC, VERSION

CANARY = "canary"  # what the payloads would leave in the working folder


def framed(payload: bytes, length: int | None = None) -> bytes:
    """The file that holds this payload, with a header that is right about it."""
    size = len(payload) if length is None else length
    return HEADER.pack(MAGIC, VERSION, size, hashlib.sha256(payload).digest()) + payload


def zipped(pickled: bytes, packing: int = zipfile.ZIP_STORED, more: str = "data/0") -> bytes:
    """An archive as `torch.save` writes it, with one storage of 16 bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", packing) as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/byteorder", "little")
        archive.writestr("archive/version", "3\n")
        archive.writestr(f"archive/{more}", bytes(16))
    return buffer.getvalue()


def program(value: bytes) -> bytes:
    """The pickle of {"model": value}, by hand, so that it may name what is not installed."""
    return b"\x80\x02}" + put("model") + value + b"s."


def put(value: Any) -> bytes:
    """The operations that put a value on the stack; bytes are operations already."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return b"X" + struct.pack("<I", len(value.encode())) + value.encode()
    if isinstance(value, int) and abs(value) < 2**31:
        return b"J" + struct.pack("<i", value)
    if isinstance(value, int):
        digits = pickle.encode_long(value)
        return b"\x8a" + bytes([len(digits)]) + digits
    inside = b"".join(map(put, value))
    return b"(" + inside + (b"l" if isinstance(value, list) else b"t")


def name(path: str) -> bytes:
    """Pushes the global of that path."""
    module, _, attribute = path.rpartition(".")
    return f"c{module}\n{attribute}\n".encode()


def call(function: str | bytes, *arguments: Any) -> bytes:
    """Pushes what the function returns."""
    return (name(function) if isinstance(function, str) else function) + put(arguments) + b"R"


def tensor(numel: int, size: tuple[int, ...], stride: tuple[int, ...], offset: int = 0) -> bytes:
    """Pushes a view of the archive's storage, which is said to have so many elements."""
    stored = put(("storage", name("torch.FloatStorage"), "0", "cpu", numel)) + b"Q"
    hooks = call("collections.OrderedDict")
    return call("torch._utils._rebuild_tensor_v2", stored, offset, size, stride, b"\x89", hooks)


TOUCH = f"touch {CANARY}"
WRITE = f"__import__('os').mkdir({CANARY!r})"
CALLS: list[tuple[tuple[Any, ...], str]] = [
    ((TOUCH,), "os.system posix.system os.popen commands.getoutput subprocess.getoutput"),
    ((["touch", CANARY],), "subprocess.Popen subprocess.call subprocess.check_output pty.spawn"),
    (("/bin/touch", ["touch", CANARY]), "os.execv os.execvp"),
    (("/bin/touch", ["touch", CANARY], b"}"), "os.posix_spawn os.execve"),
    ((WRITE,), "builtins.eval __builtin__.eval builtins.exec timeit.timeit pdb.run cProfile.run"),
    ((WRITE, "a", "exec"), "builtins.compile codeop.compile_command"),
    ((CANARY, "w"), "builtins.open io.open io.FileIO codecs.open shelve.open pathlib.Path.open"),
    (
        (CANARY,),
        "os.mkdir os.unlink os.rmdir pathlib.Path.unlink pathlib.Path.touch pathlib.PosixPath "
        "shutil.rmtree logging.FileHandler sqlite3.connect zipfile.ZipFile runpy.run_path torch.load "
        "torch.jit.load torch.ops.load_library torch.package.PackageImporter joblib.load dill.loads "
        "cloudpickle.loads pickle.loads _pickle.loads marshal.loads numpy.load numpy.fromfile "
        "ctypes.CDLL operator.methodcaller operator.attrgetter types.ModuleType builtins.print",
    ),
    (
        ("antigravity",),
        "builtins.__import__ importlib.import_module runpy.run_module pkgutil.resolve_name",
    ),
    (("http://localhost",), "webbrowser.open urllib.request.urlopen torch.hub.load_state_dict_from_url"),
    (("a/b", "c"), "torch.hub.load shutil.copy shutil.move os.rename os.symlink torch.save numpy.save"),
    ((name("os.path"), "os"), "builtins.getattr builtins.delattr"),
    ((name("os.path"), "join", name("os.system")), "builtins.setattr"),
    ((name("os.mkdir"), CANARY), "functools.partial operator.call threading.Timer atexit.register"),
    ((name("os.mkdir"), [CANARY]), "functools.reduce builtins.map itertools.starmap"),
    ((name("os.system"), b"}"), "types.FunctionType types.MethodType weakref.finalize"),
    (
        (2**33,),
        "builtins.bytearray builtins.bytes builtins.range torch.ones torch.FloatTensor "
        "torch.storage.UntypedStorage torch.FloatStorage numpy.ones",
    ),
    (("a", "uu_codec"), "_codecs.encode codecs.encode codecs.decode"),  # the first is allowed by torch
    ((b"}" + put("_target_") + put("os.system") + b"s",), "hydra.utils.instantiate"),
    (("os.system",), "trainer.targets.locate hydra.utils.get_method"),
    (("os", "system", 7), "copyreg.add_extension copyreg._reconstructor"),
    ((name("os.system"), name("torch.Tensor"), (TOUCH,), b"}"), "torch._tensor._rebuild_from_type_v2"),
    ((name("torch.float32"), (2**40,), (1,), b"\x89"), "torch._utils._rebuild_meta_tensor_no_storage"),
    (("cuda",), "torch.device torch.cuda.set_device collections.Counter"),
]

SELF = b"}q\x00" + put("me") + b"h\x00s"
DOUBLE = b"]q\x00" + b"".join(b"](h%ch%ceq%c" % (i, i, i + 1) for i in range(60))
PROGRAMS = {
    "string longer than the file": b"X\xff\xff\xff\x7fabc",
    "long string longer than the file": b"\x8d" + b"\xff" * 8,
    "integer longer than the file": b"\x8b\xff\xff\xff\x7fabc",
    "memo far away": b"}r\xff\xff\xff\xffj\xff\xff\xff\xfe",
    "memo that is not there": b"h\x09",
    "more taken than there is": b"0" * 9,
    "marks without end": b"(" * 100_000,
    "unhashable key": b"}}}s",
    "a dict that holds itself": SELF,
    "lists that double": b"(" + DOUBLE + b"l",
    "nested without end": b"]" * 100_000 + b"a" * 99_999,
    "nested tuples without end": b")" + b"\x85" * 100_000,
    "stacked calls": call(call("builtins.getattr", name("os.path"), "os"), "a"),
    "a call of its result": call(call(call("builtins.getattr", name("os"), "system"), TOUCH), TOUCH),
    "a call of a string": call(put("os.system"), TOUCH),
    "a call of a tensor": call(tensor(4, (4,), (1,)), TOUCH),
    "a call beside a tensor": b"(" + tensor(4, (4,), (1,)) + call("os.system", TOUCH) + b"t",
    "an instance": name("subprocess.Popen") + put((["touch", CANARY],)) + b"\x81",
    "an instance with keywords": name("subprocess.Popen") + put(()) + b"}\x92",
    "an instance of protocol 0": b"(" + put(TOUCH) + b"ios\nsystem\n",
    "an instance of protocol 1": b"(" + name("os.system") + put(TOUCH) + b"o",
    "a name from the stack": put("os") + put("system") + b"\x93" + put((TOUCH,)) + b"R",
    "a name with dots": b"ctorch\nhub.os.system\n" + put((TOUCH,)) + b"R",
    "a name with a blank": b"ctorch FloatStorage\n\n" + put((CANARY,)) + b"R",
    "a name in no encoding": b"c\xff\xfe\n\xff\n",
    "a state of a function": name("os.system") + b"}" + put("__setstate__") + name("os.system") + b"sb",
    "a state that hides items()": call("collections.OrderedDict") + b"}" + put("items") + b"Nsb",
    "a state of a tensor": tensor(4, (4,), (1,)) + put((1, 2)) + b"b",
    "a persistent call": put(("os.system", TOUCH)) + b"Q",
    "a persistent number": put(2**40) + b"Q",
    "a persistent text": b"Pos.system\n",
    "a text of protocol 0": b"V\\u0041\n",
    "extension code": b"\x82\x07" + put((TOUCH,)) + b"R",
    "extension code of four bytes": b"\x84\x07\0\0\0",
    "a buffer from outside": b"\x97",
    "a storage larger than its record": tensor(2**33, (4,), (1,)),
    "a storage of negative size": tensor(-4, (4,), (1,)),
    "a view past its storage": tensor(4, (2**33,), (1,)),
    "a view before its storage": tensor(4, (4,), (1,), -99),
    "a view of negative size": tensor(4, (-4,), (1,)),
    "a view of negative stride": tensor(4, (4,), (-1,)),
    "a view that repeats an element": tensor(4, (2**50,), (0,)),
    "a class": name("torch.FloatStorage"),
}


def tar() -> bytes:
    """A tape archive, which torch once saved to, with a name that climbs out of its folder."""
    with tarfile.open(fileobj=(buffer := io.BytesIO()), mode="w") as archive:
        entry = tarfile.TarInfo(f"../../{CANARY}")
        archive.addfile(entry, io.BytesIO())
    return buffer.getvalue()


def legacy() -> bytes:
    """A file of torch before 1.6: pickles one after another, sizes in them."""
    torch.save({"model": torch.ones(3)}, buffer := io.BytesIO(), _use_new_zipfile_serialization=False)
    return buffer.getvalue()


def overlapping() -> bytes:
    """A thousand entries for one record: each says that it has its bytes for itself."""
    data = zipped(program(put("a" * 2**16)))
    start, end = data.index(b"PK\x01\x02"), data.index(b"PK\x05\x06")
    entries = data[start:end] + data[start : data.index(b"PK\x01\x02", start + 1)] * 1000
    return (
        data[:start]
        + entries
        + struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 1004, 1004, len(entries), start, 0)
    )


FILES = {
    "nothing": b"",
    "text": b"hello",
    "a plain pickle": program(b"}"),
    "a plain call": program(call("os.system", TOUCH)),
    "legacy": legacy(),
    "tar": tar(),
    "TorchScript": zipped(program(b"}"), more="constants.pkl"),
    "an empty zip": zipped(b"")[-22:],
    "names that climb out": zipped(program(b"}")).replace(b"archive/", b"../../a/"),
    "a record that climbs out": zipped(program(b"}"), more=f"../../../{CANARY}"),
    "a pickle cut short": zipped(program(b"}")[:-1]),
    "an empty pickle": zipped(b""),
    "a bomb of zeros": zipped(program(put("a" * 2**27)), zipfile.ZIP_DEFLATED),
    "overlapping records": overlapping(),
    "a lying frame": zipped(b"\x80\x04\x95" + b"\xff" * 8 + b"}."),
    "protocol 4": zipped(b"\x80\x04}."),
    "a list": zipped(b"\x80\x02]."),
    "pairs that dict() would take": zipped(b"\x80\x02" + put([("model", 1)]) + b"."),
    "unknown byte order": zipped(program(tensor(4, (4,), (1,)))).replace(b"little", b"middle"),
}
HARMLESS = {"names that climb out", "a record that climbs out"}  # nothing is ever unpacked to a disk
HOSTILE = {path: zipped(program(call(path, *with_))) for with_, paths in CALLS for path in paths.split()}
HOSTILE |= {what: zipped(program(value)) for what, value in PROGRAMS.items()}
HOSTILE |= FILES
