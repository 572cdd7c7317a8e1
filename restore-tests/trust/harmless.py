"""Writes model files in which nothing is wrong, as their libraries write them.

numpy, joblib and safetensors are themselves. PyTorch is too large for a test: its two formats are written here by
Python's own pickler, with classes and functions that bear the names of PyTorch's.
"""

import argparse
import collections
import datetime
import decimal
import gzip
import io
import pathlib
import pickle
import sys
import tarfile
import types
import uuid
import zipfile
import zlib

import joblib
import numpy
import safetensors.numpy


def stand_in(module, names, kind):
    """A module with things of these names, which a pickler saves by them."""
    made = sys.modules.setdefault(module, types.ModuleType(module))
    for name in names:
        thing = type(name, (), {}) if kind == "class" else (lambda *args: None)
        thing.__module__, thing.__qualname__, thing.__name__ = module, name, name
        setattr(made, name, thing)
    return made


# Classes of storages, and the bytes of a number in each.
STORAGES = {"FloatStorage": 4, "HalfStorage": 2, "BFloat16Storage": 2, "LongStorage": 8, "ByteStorage": 1, "BoolStorage": 1}
TORCH = stand_in("torch", [*STORAGES, "Size"], "class")
UTILS = stand_in("torch._utils", ["_rebuild_tensor_v2", "_rebuild_parameter"], "function")
TORCH._utils = UTILS


class Storage:
    def __init__(self, kind, key, data):
        self.kind, self.key, self.data = kind, key, data


class Tensor:
    def __init__(self, storage, shape, parameter=False):
        self.storage, self.shape, self.parameter = storage, shape, parameter

    def __reduce__(self):
        stride = tuple(int(numpy.prod(self.shape[n + 1 :])) for n in range(len(self.shape)))
        args = (self.storage, 0, self.shape, stride, False, collections.OrderedDict())
        if not self.parameter:
            return UTILS._rebuild_tensor_v2, args
        return UTILS._rebuild_parameter, (Tensor(self.storage, self.shape), True, collections.OrderedDict())


class Pickler(pickle.Pickler):
    def persistent_id(self, thing):
        if isinstance(thing, Storage):
            return ("storage", getattr(TORCH, thing.kind), thing.key, "cpu", len(thing.data))
        return None


RANDOM = numpy.random.default_rng(7)


def state(layers=3, kind="FloatStorage", parameter=False):
    """A state dictionary, and its storages."""
    found, storages = collections.OrderedDict(), []
    for n in range(layers):
        for name, shape in [("weight", (8, 4)), ("bias", (8,))]:
            storage = Storage(kind, str(len(storages)), RANDOM.bytes(STORAGES[kind] * int(numpy.prod(shape))))
            storages.append(storage)
            found[f"layers.{n}.{name}"] = Tensor(storage, shape, parameter)
    found._metadata = collections.OrderedDict({"": {"version": 1}})
    return found, storages


def pickled(thing, protocol=2):
    out = io.BytesIO()
    Pickler(out, protocol).dump(thing)
    return out.getvalue()


def checkpoint(path, thing, storages, method=zipfile.ZIP_STORED, protocol=2, root="archive"):
    with zipfile.ZipFile(path, "w", method) as out:
        out.writestr(f"{root}/data.pkl", pickled(thing, protocol))
        out.writestr(f"{root}/byteorder", "little")
        for storage in storages:
            out.writestr(f"{root}/data/{storage.key}", storage.data)
        out.writestr(f"{root}/version", "3\n")
        out.writestr(f"{root}/.data/serialization_id", "0123456789" * 4)


def legacy(path, thing, storages):
    """As PyTorch wrote before 1.6: five pickles, then the storages."""
    sizes = {"short": 2, "int": 4, "long": 4}
    info = {"protocol_version": 1001, "little_endian": True, "type_sizes": sizes}
    with open(path, "wb") as out:
        for part in [0x1950A86A20F9469CFC6C, 1001, info]:
            pickle.dump(part, out, protocol=2)
        out.write(pickled(thing))
        pickle.dump(sorted(storage.key for storage in storages), out, protocol=2)
        for storage in sorted(storages, key=lambda storage: storage.key):
            out.write((len(storage.data) // STORAGES[storage.kind]).to_bytes(8, "little") + storage.data)


def torch_like(folder):
    for kind in STORAGES:
        checkpoint(folder / f"torch-{kind}.pt", *state(kind=kind))
        legacy(folder / f"legacy-{kind}.pth", *state(kind=kind))
    parameters, storages = state(parameter=True)
    checkpoint(folder / "torch-parameters.bin", parameters, storages)
    checkpoint(folder / "torch-deflated.pt", *state(), method=zipfile.ZIP_DEFLATED)
    checkpoint(folder / "torch-root.ckpt", *state(), root="epoch=3-step=9")
    checkpoint(folder / "torch-protocol-4.pt", *state(layers=40), protocol=4)
    weights, storages = state()
    momentum = {n: {"step": n, "exp_avg": tensor} for n, tensor in enumerate(weights.values())}
    optimiser = {"state": momentum, "param_groups": [{"lr": 1e-3, "betas": (0.9, 0.999), "params": [0, 1]}]}
    checkpoint(folder / "torch-optimiser.pt", {"model": weights, "optimizer": optimiser, "epoch": 3}, storages)
    legacy(folder / "legacy-optimiser.pth", {"model": weights, "optimizer": optimiser}, storages)
    checkpoint(folder / "torch-nested.pt", {"a": {"b": [weights, (weights,)]}, "c": {1, 2}}, storages)
    # Numbers that begin as a pickle, gzip, lzma and zlib do.
    heads = [b"\x80\x02\xff", b"\x1f\x8b\x00", b"\x5d\0\0\x80\0", b"\x78\x9c\x4b\x4c", b"\x80\x06"]
    looks = [Storage("ByteStorage", str(n), head + RANDOM.bytes(60)) for n, head in enumerate(heads)]
    checkpoint(folder / "torch-looks.pt", {s.key: Tensor(s, (len(s.data),)) for s in looks}, looks)
    trainer = {
        "state_dict": weights,
        "hyper_parameters": argparse.Namespace(lr=0.1, layers=[1, 2], where=pathlib.PurePosixPath("/data")),
        "callbacks": {"best": pathlib.PosixPath("/data/best.ckpt"), "score": numpy.float32(0.5)},
        "loops": collections.defaultdict(list, {"epochs": [1, 2]}),
        "when": datetime.datetime(2026, 1, 2, tzinfo=datetime.timezone.utc),
        "random": RANDOM.bit_generator.state,
    }
    checkpoint(folder / "torch-trainer.ckpt", trainer, storages)


def plain(folder):
    values = {
        "numbers": [1, -1, 1 << 80, 1.5, 2j, True, None],
        "texts": ["", "é" * 300, "a\nb", "'\\"],
        "bytes": b"\x00\x80" * 200,
        "set": {1, 2, 3},
        "frozen": frozenset("ab"),
        "ordered": collections.OrderedDict(a=1, b=2),
        "many": collections.deque([1, 2], 5),
        "counted": collections.Counter("hello"),
        "named": types.SimpleNamespace(a=1),
        "id": uuid.UUID(int=5),
        "money": decimal.Decimal("1.5"),
        "array": numpy.arange(12.0).reshape(3, 4),
        "scalar": numpy.int64(3),
        "large": numpy.zeros(30000),
        "shared": [[1, 2]] * 3,
    }
    for protocol in range(6):
        (folder / f"plain-{protocol}.pkl").write_bytes(pickle.dumps(values, protocol))
        (folder / f"numpy-{protocol}.pkl").write_bytes(pickle.dumps(numpy.random.default_rng(protocol), protocol))
    vocabulary = {f"token{n}": n for n in range(20000)}
    (folder / "vocabulary.pkl").write_bytes(pickle.dumps(vocabulary))
    (folder / "packed.pkl.gz").write_bytes(gzip.compress(pickle.dumps(values)))
    (folder / "packed.pkl.z").write_bytes(zlib.compress(pickle.dumps(values)))
    masked = numpy.ma.array([1, 2, 3], mask=[0, 1, 0])
    (folder / "masked.pkl").write_bytes(pickle.dumps(masked))
    (folder / "parts.pkl").write_bytes(pickle.dumps(numpy.zeros(3, dtype=[("a", "<f4"), ("b", "|O")])))
    (folder / "two.pkl").write_bytes(pickle.dumps(1) + pickle.dumps([2]))


def arrays(folder):
    numbers = numpy.arange(24, dtype="<f4").reshape(4, 6)
    objects = numpy.array([{"a": 1}, None, "text"], dtype=object)
    parts = numpy.zeros(3, dtype=[("a", "<f4"), ("b", "<i2")])
    numpy.save(folder / "numbers.npy", numbers)
    numpy.save(folder / "fortran.npy", numpy.asfortranarray(numbers))
    numpy.save(folder / "complex.npy", numbers * 1j)
    numpy.save(folder / "point.npy", numpy.array(3.0))
    numpy.savez(folder / "empty.npz")
    numpy.save(folder / "texts.npy", numpy.array(["a", "bcd"]))
    numpy.save(folder / "parts.npy", parts)
    numpy.save(folder / "objects.npy", objects, allow_pickle=True)
    numpy.savez(folder / "several.npz", numbers=numbers, objects=objects)
    numpy.savez_compressed(folder / "packed.npz", numbers=numbers, objects=objects, parts=parts)
    with open(folder / "row.npy", "wb") as out:
        numpy.save(out, numbers)
        numpy.save(out, objects, allow_pickle=True)
    for name, thing in [("plain", {"a": [1, 2]}), ("array", {"weights": numbers})]:
        for how in [0, 3, ("zlib", 6), ("gzip", 3), ("bz2", 3), ("xz", 3)]:
            text = how if isinstance(how, int) else how[0]
            joblib.dump(thing, folder / f"joblib-{name}-{text}.joblib", compress=how)


def others(folder):
    tensors = {"a.weight": numpy.ones((4, 4), dtype="<f4"), "b": numpy.arange(9)}
    safetensors.numpy.save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text('{"architectures": ["Model"], "hidden_size": 8}')
    (folder / "vocab.txt").write_text("can\ndog\nihouse\ncos\n(the\n.\n")
    (folder / "noise.bin").write_bytes(RANDOM.bytes(300_000))
    with tarfile.open(folder / "bundle.nemo", "w") as out:
        out.add(folder / "config.json", "model_config.yaml")
        out.add(folder / "torch-FloatStorage.pt", "model_weights.ckpt")


def main():
    folder = pathlib.Path(sys.argv[1])
    for part in [torch_like, plain, arrays, others]:
        part(folder)


if __name__ == "__main__":
    main()
