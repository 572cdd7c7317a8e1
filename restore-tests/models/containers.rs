//! Tensors in other containers, orders and files than before.

use super::{comes_back, figure};
use crate::formats::containers::*;
use crate::harness::Bench;
use std::path::Path;

/// Writes arrays as a container has them.
type Writer = fn(&[Array]) -> Vec<u8>;

/// Tensors of all lengths, about 12 MB of noise; few of them are small.
fn arrays() -> Vec<Array> {
    let shapes: [(&str, &[u64]); 9] = [
        ("embed", &[3000, 512]),
        ("layer.0.weight", &[1024, 1024]),
        ("layer.0.bias", &[5000]),
        ("layer.0.norm", &[64]),
        ("layer.1.weight", &[2100, 1001]),
        ("layer.1.bias", &[1024]),
        ("layer.1.norm", &[1023]),
        ("head", &[7, 1_000_000]),
        ("scale", &[1]),
    ];
    shapes.iter().zip(1..).map(|((name, shape), seed)| Array::new(name, "I8", shape, seed)).collect()
}

/// The bench's source, with these files in it.
fn source(bench: &Bench, files: &[(&str, &[u8])]) -> String {
    let source = bench.path("source");
    let _ = std::fs::remove_dir_all(&source);
    std::fs::create_dir(&source).unwrap();
    files.iter().for_each(|(name, bytes)| std::fs::write(source.join(name), bytes).unwrap());
    source.display().to_string()
}

/// What a backup of these files adds; they come back as they were.
fn adds(bench: &Bench, files: &[(&str, &[u8])]) -> u64 {
    let done = bench.ok(&["backup", &source(bench, files)]);
    assert_eq!(done["errors_total"], 0, "{done:#}");
    comes_back(bench);
    figure(&done, "bytes_new")
}

#[test]
fn a_tensor_in_another_container_is_stored_once() {
    let bench = Bench::with_key(&["a"]);
    let (all, mut other) = (arrays(), arrays());
    other.reverse();
    let raw: u64 = all.iter().map(|array| array.bytes.len() as u64).sum();
    let first = adds(&bench, &[("a", &safetensors(&all))]);
    assert!((raw..raw + raw / 50).contains(&first), "{first} of {raw}");
    // Headers, what lies between tensors, and those that are too small for a chunk of their own.
    let aligned = Gguf { alignment: Some(4096), ..Gguf::default() };
    for (what, file, most) in [
        ("gguf", Gguf::default().file(&other), 8000),
        ("gguf with much padding", aligned.file(&all), 40_000),
        ("pytorch", torch(&other), 12_000),
        ("pytorch in the long form", torch_with(&state(&all), &all, Zip { long: true, ..Zip::default() }), 12_000),
        ("onnx", onnx(&other), 8000),
        ("npz", npz(&all), 12_000),
        ("npy", npy(&all[7]), 4000),
    ] {
        let added = adds(&bench, &[("a", &file)]);
        assert!(added < most, "{what}: {added}");
    }
}

#[test]
fn another_order_and_other_shards_are_stored_once_in_each_container() {
    let writers: [(&str, Writer); 4] = [
        ("gguf", |all| Gguf { words: 40_000, ..Gguf::default() }.file(all)),
        ("pytorch", torch),
        ("onnx", onnx),
        ("npz", npz),
    ];
    for (what, write) in writers {
        let bench = Bench::with_key(&["a"]);
        let mut all = arrays();
        let first = adds(&bench, &[("a", &write(&all))]);
        assert!(first > 11_000_000, "{what}: {first}");
        all.rotate_left(4);
        all.swap(0, 2);
        let reordered = adds(&bench, &[("a", &write(&all))]);
        assert!(reordered < 15_000, "{what}: {reordered}");
        let (left, right) = all.split_at(3);
        let sharded = adds(&bench, &[("one", &write(left)), ("two", &write(right))]);
        assert!(sharded < 20_000, "{what}: {sharded}");
        // One that was trained further.
        all[2].bytes = crate::harness::noise(99, all[2].bytes.len());
        let own = all[2].bytes.len() as u64;
        let tuned = adds(&bench, &[("a", &write(&all))]);
        assert!((own..own + 20_000).contains(&tuned), "{what}: {tuned} for {own}");
    }
}

#[test]
fn data_beside_a_model_are_cut_by_it() {
    let all = arrays();
    let outside = |order: &[usize], gap: usize| {
        let (mut data, mut tensors) = (Vec::new(), Vec::new());
        for at in order {
            data.resize(data.len().next_multiple_of(gap), 0);
            tensors.push(field(5, &onnx_outside(&all[*at], "model.onnx.data", data.len() as u64)));
            data.extend_from_slice(&all[*at].bytes);
        }
        (onnx_model(&tensors.concat()), data)
    };
    let bench = Bench::with_key(&["a"]);
    adds(&bench, &[("a", &safetensors(&all))]);
    let (model, data) = outside(&[8, 1, 0, 7, 3, 4, 2, 5, 6], 4096);
    let added = adds(&bench, &[("model.onnx", &model), ("model.onnx.data", &data)]);
    assert!(added < 60_000, "{added}");
    let (model, data) = outside(&[0, 1, 2, 3, 4, 5, 6, 7, 8], 1);
    let added = adds(&bench, &[("model.onnx", &model), ("model.onnx.data", &data)]);
    assert!(added < 12_000, "{added}");
    // A model that says what is not so, or nothing: bytes.
    let (lies, _) = outside(&[7, 0, 4], 4096);
    for model in [&lies[..], b"no model"] {
        assert!(adds(&bench, &[("model.onnx", model), ("model.onnx.data", &data)]) > 0);
    }
}

/// Begins like a model of each format and is none: stored as bytes, with no error.
#[test]
fn files_that_begin_like_models_are_stored_as_bytes() {
    let all = arrays();
    let bench = Bench::with_key(&["a"]);
    for (what, file) in [
        ("gguf", Gguf::default().file(&all)),
        ("pytorch", torch(&all)),
        ("onnx", onnx(&all)),
        ("npz", npz(&all)),
        ("npy", npy(&all[7])),
    ] {
        let mut files = [("short", file[..file.len() / 2].to_vec()), ("zeros", file.clone()), ("counts", file.clone())];
        files[1].1[8..64].fill(0);
        files[2].1[8..24].fill(0xff);
        let files: Vec<(&str, &[u8])> = files.iter().map(|(name, bytes)| (*name, &bytes[..])).collect();
        assert!(adds(&bench, &files) > 0, "{what}");
    }
}

/// The file has holes where the header says that tensors are.
#[test]
fn holes_of_other_containers_stay_holes() {
    let all = arrays();
    let bench = Bench::with_key(&["a"]);
    let file = Gguf { alignment: Some(4096), ..Gguf::default() }.file(&all);
    let path = source(&bench, &[]);
    let path = Path::new(&path).join("a.gguf");
    std::fs::write(&path, &file[..file.len() / 2]).unwrap();
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(file.len() as u64).unwrap();
    let done = bench.ok(&["backup", bench.path("source").to_str().unwrap()]);
    assert!(figure(&done, "bytes_new") < file.len() as u64 * 6 / 10, "{done:#}");
    comes_back(&bench);
}
