"""Makes files of the same tensors by the libraries of their formats, and reads them again.

`files.py make FOLDER SEED CONTAINER...` writes, `files.py read FOLDER` prints what all files of a folder hold, as JSON:
file, name, type, shape, SHA-256 of the numbers.
"""

import hashlib
import json
import pathlib
import sys

import gguf
import numpy
import onnx
import onnx.numpy_helper
import safetensors
import safetensors.numpy


def tensors(seed):
    random = numpy.random.default_rng(seed)
    shapes = {"embed": (5000, 96), "layer.0.weight": (700, 512), "layer.0.norm": (512,), "layer.1.weight": (900, 1024)}
    made = {name: random.standard_normal(shape).astype("float32") for name, shape in shapes.items()}
    made["head"] = random.standard_normal((600, 700)).astype("float16")
    made["bias"] = random.standard_normal((7,)).astype("float32")
    return made


def write_safetensors(folder, made):
    safetensors.numpy.save_file(made, folder / "model.safetensors", metadata={"format": "np"})


def write_shards(folder, made):
    names = list(made)
    parts = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, some in parts.items():
        safetensors.numpy.save_file({name: made[name] for name in some}, folder / file)
    index = {"metadata": {"total_size": 0}, "weight_map": {name: file for file, some in parts.items() for name in some}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))


def write_gguf(folder, made):
    writer = gguf.GGUFWriter(folder / "model.gguf", "llama")
    writer.add_block_count(2)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([f"word {n}" for n in range(20000)])
    for name in reversed(made):
        writer.add_tensor(name, made[name])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_quantised(folder, made):
    writer = gguf.GGUFWriter(folder / "quantised.gguf", "llama")
    for name in ["embed", "layer.0.weight", "layer.1.weight"]:
        for kind in ["Q4_0", "Q8_0", "BF16", "Q5_1"]:
            kind = gguf.GGMLQuantizationType[kind]
            writer.add_tensor(f"{name}.{kind.name}", gguf.quantize(made[name], kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def onnx_model(made):
    known = {name: onnx.numpy_helper.from_array(values, name) for name, values in made.items()}
    node = onnx.helper.make_node("Identity", ["bias"], ["out"])
    out = onnx.helper.make_tensor_value_info("out", onnx.TensorProto.FLOAT, [7])
    graph = onnx.helper.make_graph([node], "graph", [], [out], initializer=list(known.values()))
    return onnx.helper.make_model(graph, producer_name="tests")


def write_onnx(folder, made):
    onnx.save(onnx_model(made), folder / "model.onnx")


def write_onnx_outside(folder, made):
    onnx.save(
        onnx_model(made), folder / "outside.onnx", save_as_external_data=True, all_tensors_to_one_file=True,
        location="outside.onnx.data", size_threshold=1024,
    )


def write_npz(folder, made):
    numpy.savez(folder / "model.npz", **made)


def write_npy(folder, made):
    for name, values in made.items():
        numpy.save(folder / f"{name}.npy", values)


def found(path):
    if path.suffix == ".safetensors":
        with safetensors.safe_open(path, "numpy") as file:
            yield from ((name, file.get_tensor(name)) for name in file.keys())
    elif path.suffix == ".gguf":
        for tensor in gguf.GGUFReader(path).tensors:
            # The library has the innermost dimension first, unless it knows the type.
            yield f"{tensor.name} {tensor.tensor_type.name} {tensor.shape.tolist()}", tensor.data
    elif path.suffix == ".onnx":
        for tensor in onnx.load(path).graph.initializer:
            yield tensor.name, onnx.numpy_helper.to_array(tensor)
    elif path.suffix == ".npz":
        with numpy.load(path) as file:
            yield from file.items()
    elif path.suffix == ".npy":
        yield path.stem, numpy.load(path)


def main(verb, folder, *rest):
    folder = pathlib.Path(folder)
    if verb == "make":
        seed, *containers = rest
        for container in containers:
            globals()[f"write_{container}"](folder, tensors(int(seed)))
        return
    for path in sorted(folder.iterdir()):
        for name, values in found(path):
            digest = hashlib.sha256(numpy.ascontiguousarray(values).tobytes()).hexdigest()
            line = {"file": path.name, "name": name, "dtype": str(values.dtype), "shape": list(values.shape), "sha256": digest}
            print(json.dumps(line))


main(*sys.argv[1:])
