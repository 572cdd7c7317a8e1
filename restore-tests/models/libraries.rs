//! Files that real libraries wrote: found alike, stored once, and read again by them after a restore.

use super::{comes_back, figure};
use crate::harness::Bench;
use crate::reader::python;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;

const CONTAINERS: [&str; 8] = ["safetensors", "shards", "gguf", "quantised", "onnx", "onnx_outside", "npz", "npy"];

pub fn libraries(args: &[&str]) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("restore-tests/models/files.py");
    let out = python().arg(script).args(args).output().unwrap();
    assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

fn made(bench: &Bench, seed: &str, containers: &[&str]) -> String {
    let folder = bench.path("source");
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir(&folder).unwrap();
    let folder = folder.to_str().unwrap().to_owned();
    libraries(&[&["make", &folder, seed], containers].concat());
    folder
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// What the program says of a folder: for each file its tensors, each with name, type, shape, and its bytes.
fn listed(bench: &Bench, folder: &str) -> BTreeMap<(String, String), (String, Value, Vec<u8>)> {
    let (code, out) = bench.run(&["model", "ls", folder, "--json"]);
    assert_eq!(code, 0);
    let mut all = BTreeMap::new();
    for file in lines(&String::from_utf8(out.stdout).unwrap()) {
        let Some(path) = file["path"].as_str() else { continue };
        for tensor in file["tensors"].as_array().into_iter().flatten() {
            let text = |key: &str| tensor[key].as_str().unwrap().to_owned();
            let from =
                tensor["file"].as_str().map_or(Path::new(path).to_path_buf(), |file| Path::new(folder).join(file));
            let (at, len) = (tensor["offset"].as_u64().unwrap() as usize, tensor["bytes"].as_u64().unwrap() as usize);
            let bytes = std::fs::read(from).unwrap()[at..at + len].to_vec();
            let name = Path::new(path).file_name().unwrap().to_str().unwrap().to_owned();
            all.insert((name, text("name")), (text("dtype"), tensor["shape"].clone(), bytes));
        }
    }
    all
}

#[test]
fn tensors_are_found_where_the_libraries_find_them() {
    use sha2::{Digest, Sha256};
    let bench = Bench::empty(&["a"]);
    let folder = made(&bench, "1", &CONTAINERS);
    let listed = listed(&bench, &folder);
    let theirs = lines(&libraries(&["read", &folder]));
    assert_eq!(listed.len(), theirs.len());
    for one in theirs {
        let text = |key: &str| one[key].as_str().unwrap();
        let (name, told) = text("name").split_once(' ').map_or((text("name"), None), |(name, told)| (name, Some(told)));
        let (dtype, shape, bytes) = &listed[&(text("file").to_owned(), name.to_owned())];
        match told {
            Some(told) => {
                // As GGUF has it: the innermost first.
                let mut sizes: Vec<u64> = serde_json::from_value(shape.clone()).unwrap();
                sizes.reverse();
                assert_eq!(format!("{dtype} {sizes:?}"), told, "{one}");
            }
            None => {
                let known = [("float32", "F32"), ("float16", "F16")];
                assert!(known.contains(&(text("dtype"), dtype)), "{one}: {dtype}");
                assert_eq!(shape, &one["shape"], "{one}");
            }
        }
        let digest: String = Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(digest, text("sha256"), "{one}");
    }
}

#[test]
fn a_model_in_every_container_is_stored_once_and_read_again() {
    let bench = Bench::with_key(&["a"]);
    let first = bench.ok(&["backup", &made(&bench, "1", &["safetensors"])]);
    let one = figure(&first, "bytes_new");
    assert!(one > 6_000_000, "{first:#}");
    let folder = made(&bench, "1", &["safetensors", "shards", "gguf", "onnx", "onnx_outside", "npz", "npy"]);
    let before = libraries(&["read", &folder]);
    let all = bench.ok(&["backup", &folder]);
    // The texts of a vocabulary, and little else.
    assert!(figure(&all, "bytes_new") < 450_000, "{} of {one}", figure(&all, "bytes_new"));
    comes_back(&bench);
    assert_eq!(libraries(&["read", bench.path("target").to_str().unwrap()]), before);
}

#[test]
fn containers_of_one_model_have_no_differences() {
    let bench = Bench::empty(&["a"]);
    let folder = made(&bench, "1", &CONTAINERS);
    let diff =
        |old: &str, new: &str| bench.ok(&["model", "diff", &format!("{folder}/{old}"), &format!("{folder}/{new}")]);
    for other in ["model.gguf", "model.onnx", "outside.onnx", "model.npz"] {
        let summary = diff("model.safetensors", other);
        let counts = ["same", "changed", "form", "added", "removed", "unknown"].map(|key| figure(&summary, key));
        assert_eq!(counts, [6, 0, 0, 0, 0, 0], "{other}: {summary:#}");
    }
}
