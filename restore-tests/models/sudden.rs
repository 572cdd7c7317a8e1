//! A model that is suddenly another one is told, with figures, and without a look at the weights of either.

use super::read_of_packs;
use crate::formats::containers::*;
use crate::harness::{Bench, configure_daily, noise};
use serde_json::{Value, json};

/// Twenty tensors of a megabyte, and as many that are too small for chunks of their own.
fn arrays() -> Vec<Array> {
    let mut all = Vec::new();
    for n in 0..20 {
        all.push(Array::new(&format!("layers.{n}.weight"), "F32", &[250, 1000], n + 1));
        all.push(Array::new(&format!("layers.{n}.bias"), "F16", &[70], n + 100));
    }
    all
}

/// With other bytes in the first so many large ones.
fn tuned(count: usize, seed: u64) -> Vec<Array> {
    let mut all = arrays();
    for n in 0..count {
        all[2 * n].bytes = noise(seed + n as u64, 1_000_000);
    }
    all
}

fn put(bench: &Bench, files: &[(&str, &[u8])]) {
    for (name, bytes) in files {
        let path = bench.path("source").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
}

/// A repository with a snapshot of a model.
fn bench() -> Bench {
    let bench = Bench::with_key(&["a"]);
    put(&bench, &[("m/model.safetensors", &safetensors(&arrays())), ("note", b"words")]);
    let first = backup(&bench);
    assert!(first.get("models").is_none(), "there was nothing before: {first:#}");
    bench
}

fn backup(bench: &Bench) -> Value {
    bench.ok(&["backup", "--name", "s", "source"])
}

/// What a backup says for people, and exit code 0: it is a warning.
fn told(bench: &Bench) -> String {
    let (code, out) = bench.run(&["--quiet", "backup", "--name", "s", "source"]);
    assert_eq!(code, 0);
    String::from_utf8(out.stdout).unwrap()
}

fn counts(value: &Value) -> [u64; 6] {
    let names =
        ["tensors_same", "tensors_changed", "tensors_form", "tensors_added", "tensors_removed", "bytes_changed"];
    names.map(|name| value[name].as_u64().unwrap_or_else(|| panic!("no {name}: {value:#}")))
}

/// A figure of the record of the last run.
fn recorded(bench: &Bench, name: &str) -> Option<u64> {
    let runs = bench.ok(&["runs", "--from-regions"]);
    let figures = runs["runs"].as_array()?.last()?["figures"].as_array()?.clone();
    figures.iter().find(|figure| figure["name"] == name)?["value"].as_u64()
}

#[test]
fn other_bytes_in_most_tensors_are_told_and_recorded_and_in_few_only_counted() {
    let bench = bench();
    put(&bench, &[("m/model.safetensors", &safetensors(&tuned(10, 1000)))]);
    let half = backup(&bench);
    assert_eq!(counts(&half["models"]), [30, 10, 0, 0, 0, 10_000_000]);
    assert_eq!((&half["models"]["compared"], &half["models"]["sudden"]), (&json!(1), &json!([])));
    assert_eq!(
        (recorded(&bench, "models.tensors_changed"), recorded(&bench, "models.sudden_total")),
        (Some(10), Some(0))
    );
    // Back again and on: eleven of forty by number, but more than half of the bytes.
    put(&bench, &[("m/model.safetensors", &safetensors(&tuned(11, 2000)))]);
    let text = told(&bench);
    let line = "WARNING: a model is suddenly another one: /m/model.safetensors: 11 of 40 tensors have other bytes (55.0% of 19 MiB)";
    assert!(text.contains(line), "{text}");
    let figures = ["sudden_total", "compared", "tensors_changed", "tensors_same", "bytes_changed", "left"];
    let figures = figures.map(|name| recorded(&bench, &format!("models.{name}")));
    assert_eq!(figures, [1, 1, 11, 29, 11_000_000, 0].map(Some));
    // What did not change is not spoken of, also where everything is read anew.
    assert!(backup(&bench).get("models").is_none());
    let full = bench.ok(&["backup", "--full", "--name", "s", "source"]);
    assert!(full.get("models").is_none(), "{full:#}");
    put(&bench, &[("m/model.safetensors", &safetensors(&tuned(20, 3000)))]);
    let full = bench.ok(&["backup", "--full", "--name", "s", "source"]);
    assert_eq!(counts(&full["models"]["sudden"][0]), [20, 20, 0, 0, 0, 20_000_000]);
}

#[test]
fn a_small_model_whose_tensors_share_a_chunk_is_told_too() {
    let bench = Bench::with_key(&["a"]);
    let adapter = |seed: u64| {
        let tensors = (0..10).map(|n| Array::new(&format!("lora.{n}"), "F32", &[50, 100], seed + n));
        safetensors(&tensors.collect::<Vec<_>>())
    };
    put(&bench, &[("adapter.safetensors", &adapter(1))]);
    backup(&bench);
    // Half of them have other bytes, the first of these at its end, then all have.
    put(&bench, &[("adapter.safetensors", &[&adapter(1)[..120_000], &adapter(50)[120_000..]].concat())]);
    let few = backup(&bench);
    assert_eq!(counts(&few["models"]), [5, 5, 0, 0, 0, 100_000], "{few:#}");
    assert_eq!((&few["models"]["tensors_unknown"], &few["models"]["sudden_total"]), (&json!(0), &json!(0)));
    put(&bench, &[("adapter.safetensors", &adapter(100))]);
    let all = backup(&bench);
    assert_eq!(counts(&all["models"]["sudden"][0]), [0, 10, 0, 0, 0, 200_000], "{all:#}");
}

#[test]
fn the_weights_of_neither_are_read_for_it() {
    let bench = bench();
    put(&bench, &[("m/model.safetensors", &safetensors(&tuned(20, 1000)))]);
    let (said, read) = read_of_packs(&bench, &["backup", "--name", "s", "source"]);
    assert_eq!(said["models"]["sudden_total"], 1, "{said:#}");
    assert!((1..300_000).contains(&read), "{read}");
}

#[test]
fn another_architecture_is_told() {
    let bench = bench();
    let mut other = arrays();
    other[0] = Array::new("layers.0.weight", "F32", &[1000, 250], 1);
    other[2].name = "layers.1.other".into();
    other.pop();
    put(&bench, &[("m/model.safetensors", &safetensors(&other))]);
    let text = told(&bench);
    assert!(text.contains("/m/model.safetensors: 1 of another type or shape, 1 new, 2 gone"), "{text}");
    assert_eq!(recorded(&bench, "models.tensors_form"), Some(1));
    // Tensors that only lie elsewhere are what they were.
    other.reverse();
    put(&bench, &[("m/model.safetensors", &safetensors(&other))]);
    assert!(backup(&bench).get("models").is_none());
    // Something else, and longer names.
    put(&bench, &[("m/model.safetensors", b"<html>404</html>")]);
    let text = told(&bench);
    assert!(text.contains("/m/model.safetensors: is no model any more"), "{text}");
    // A model under a name that was none before is new, not changed.
    put(&bench, &[("m/model.safetensors", &safetensors(&arrays())), ("m/new.gguf", &Gguf::default().file(&arrays()))]);
    assert!(backup(&bench).get("models").is_none());
}

#[test]
fn what_describes_an_architecture_is_compared_by_what_makes_one() {
    let bench = bench();
    let config = |layers: u32, more: &str| {
        format!(
            "{{\"architectures\": [\"LlamaForCausalLM\"], \"num_hidden_layers\": {layers}, \"hidden_size\": 64{more}}}"
        )
    };
    put(&bench, &[("m/config.json", config(20, "").as_bytes()), ("app/config.json", b"{\"num_layers\": 1}")]);
    assert!(backup(&bench).get("models").is_none());
    let same = config(20, ", \"use_cache\": false");
    put(&bench, &[("m/config.json", same.as_bytes()), ("app/config.json", b"{\"num_layers\": 2}")]);
    assert!(backup(&bench).get("models").is_none());
    let custom = config(21, ", \"auto_map\": {\"AutoModel\": \"evil--x.Model\"}");
    put(&bench, &[("m/config.json", custom.as_bytes())]);
    let text = told(&bench);
    let line = "/m/config.json: auto_map none -> {\\\"AutoModel\\\":\\\"evil--x.Model\\\"}, num_hidden_layers 20 -> 21";
    assert!(text.contains(line), "{text}");
    put(&bench, &[("m/config.json", b"{")]);
    let said = backup(&bench);
    assert_eq!(said["models"]["sudden"][0]["config"], json!(["describes no architecture any more"]), "{said:#}");
}

/// A list of shards, and these.
fn sharded(arrays: &[Array], count: usize) -> Vec<(String, Vec<u8>)> {
    let (mut files, mut list) = (Vec::new(), Vec::new());
    for (n, part) in arrays.chunks(arrays.len().div_ceil(count)).enumerate() {
        let name = format!("model-{:05}-of-{count:05}.safetensors", n + 1);
        list.extend(part.iter().map(|array| format!("{:?}:{name:?}", array.name)));
        files.push((format!("m/{name}"), safetensors(part)));
    }
    files.push(("m/model.safetensors.index.json".into(), format!("{{\"weight_map\":{{{}}}}}", list.join(",")).into()));
    files
}

fn put_all(bench: &Bench, files: &[(String, Vec<u8>)]) {
    let _ = std::fs::remove_dir_all(bench.path("source/m"));
    let files: Vec<(&str, &[u8])> = files.iter().map(|(name, bytes)| (name.as_str(), &bytes[..])).collect();
    put(bench, &files);
}

#[test]
fn a_model_in_several_files_is_one() {
    let bench = Bench::with_key(&["a"]);
    put(&bench, &[("note", b"words")]);
    put_all(&bench, &sharded(&arrays(), 4));
    backup(&bench);
    // In other shards it is the same.
    put_all(&bench, &sharded(&arrays(), 3));
    let again = backup(&bench);
    assert!(again.get("models").is_none(), "{again:#}");
    // All that is in one shard of three: less than half, and no list has changed.
    put_all(&bench, &sharded(&tuned(7, 1000), 3));
    let few = backup(&bench);
    assert_eq!(counts(&few["models"]), [33, 7, 0, 0, 0, 7_000_000], "{few:#}");
    assert_eq!((&few["models"]["compared"], &few["models"]["sudden_total"]), (&json!(1), &json!(0)));
    put_all(&bench, &sharded(&tuned(19, 2000), 3));
    let most = backup(&bench);
    assert_eq!(most["models"]["sudden_total"], 1, "{most:#}");
    assert_eq!(most["models"]["sudden"][0]["path"], "m/model.safetensors.index.json");
    assert_eq!(counts(&most["models"]["sudden"][0]), [21, 19, 0, 0, 0, 19_000_000]);
    // A shard that is missing makes it no model.
    std::fs::remove_file(bench.path("source/m/model-00002-of-00003.safetensors")).unwrap();
    put(&bench, &[("m/model-00001-of-00003.safetensors", &safetensors(&arrays()[..14]))]);
    let gone = backup(&bench);
    assert_eq!(gone["models"]["sudden"][0]["gone"], true, "{gone:#}");
}

#[test]
fn a_model_is_compared_by_what_lies_beside_it() {
    let bench = Bench::with_key(&["a"]);
    let outside = |arrays: &[Array]| {
        let (mut data, mut tensors) = (Vec::new(), Vec::new());
        for array in arrays {
            tensors.push(field(5, &onnx_outside(array, "model.onnx.data", data.len() as u64)));
            data.extend_from_slice(&array.bytes);
        }
        (onnx_model(&tensors.concat()), data)
    };
    let (model, data) = outside(&arrays());
    put(&bench, &[("model.onnx", &model), ("model.onnx.data", &data), ("note", b"words")]);
    backup(&bench);
    let (same, data) = outside(&tuned(15, 1000));
    assert_eq!(same, model);
    put(&bench, &[("model.onnx.data", &data)]);
    let said = backup(&bench);
    assert_eq!(said["models"]["sudden"][0]["path"], "model.onnx", "{said:#}");
    assert_eq!(counts(&said["models"]["sudden"][0]), [25, 15, 0, 0, 0, 15_000_000]);
}

#[test]
fn the_runs_of_policies_tell_it_too() {
    let bench = Bench::with_key(&["a", "b"]);
    configure_daily(&bench, "retention: {daily: 30}");
    put(&bench, &[("model.safetensors", &safetensors(&arrays()))]);
    let run = || {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_holdfast"));
        command.args(["--key-file", "key", "run", "daily"]).current_dir(bench.dir.path());
        let out = command.env("HOLDFAST_STATE", bench.path("state")).output().unwrap();
        let said = [out.stdout, out.stderr].concat();
        (out.status.code(), String::from_utf8(said).unwrap())
    };
    assert_eq!(run().0, Some(0));
    put(&bench, &[("model.safetensors", &safetensors(&tuned(20, 1000)))]);
    let (code, said) = run();
    let line = "source s: WARNING: a model is suddenly another one: /model.safetensors: 20 of 40 tensors";
    assert!(code == Some(0) && said.contains(line), "{code:?}: {said}");
}
