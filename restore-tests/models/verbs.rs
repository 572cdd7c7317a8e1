//! `holdfast model ls` and `holdfast model diff`.

use crate::formats::containers::*;
use crate::harness::Bench;
use serde_json::{Value, json};

fn arrays() -> Vec<Array> {
    vec![
        Array::new("a.weight", "F32", &[500, 700], 1),
        Array::new("a.bias", "F32", &[700], 2),
        Array::new("b.weight", "F16", &[30, 40], 3),
        Array::new("c", "I64", &[9], 4),
    ]
}

/// A folder of the bench with these files in it.
fn folder(bench: &Bench, name: &str, files: &[(&str, &[u8])]) -> String {
    let folder = bench.path(name);
    std::fs::create_dir(&folder).unwrap();
    files.iter().for_each(|(name, bytes)| std::fs::write(folder.join(name), bytes).unwrap());
    folder.to_str().unwrap().to_owned()
}

fn text(bench: &Bench, args: &[&str]) -> (i32, String) {
    let (code, out) = bench.run(args);
    (code, String::from_utf8(out.stdout).unwrap())
}

fn lines(bench: &Bench, args: &[&str]) -> (i32, Vec<Value>) {
    let (code, out) = text(bench, &[args, &["--json"]].concat());
    (code, out.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

#[test]
fn tensors_of_a_file_are_listed() {
    let bench = Bench::empty(&["a"]);
    let folder = folder(&bench, "m", &[("x.bin", &safetensors(&arrays())), ("readme", b"words")]);
    let file = format!("{folder}/x.bin");
    let (code, shown) = text(&bench, &["model", "ls", &file]);
    let length = std::fs::metadata(&file).unwrap().len();
    let data = length - arrays().iter().map(|array| array.bytes.len() as u64).sum::<u64>();
    let wanted = format!(
        "{file}: safetensors, 4 tensors, 1.3 MiB\n  a.weight  F32 [500, 700]  1400000 B  at {data}\n  \
a.bias  F32 [700]  2800 B  at {}\n  b.weight  F16 [30, 40]  2400 B  at {}\n  c  I64 [9]  72 B  at {}\n\
4 tensors (1.3 MiB) in 1 files\n",
        data + 1_400_000,
        data + 1_402_800,
        data + 1_405_200
    );
    assert_eq!((code, shown), (0, wanted));
    let (code, lines) = lines(&bench, &["model", "ls", &folder]);
    assert_eq!((code, lines.len()), (0, 2));
    let tensor =
        json!({"name": "c", "dtype": "I64", "shape": [9], "bytes": 72, "offset": data + 1_405_200, "file": null});
    assert_eq!(
        (&lines[0]["tensors"][3], &lines[0]["format"], &lines[0]["size"]),
        (&tensor, &json!("safetensors"), &json!(length))
    );
    assert_eq!(
        (&lines[1]["tensors"], &lines[1]["others"], &lines[1]["verb"]),
        (&json!(4), &json!(1), &json!("model ls"))
    );
}

#[test]
fn what_is_no_model_is_said_to_be_none() {
    let bench = Bench::empty(&["a"]);
    let mut broken = Gguf::default().file(&arrays());
    broken[8..16].fill(0xff);
    let index = br#"{"weight_map": {"a": "one.safetensors", "b": "../two"}}"#;
    let folder = folder(&bench, "m", &[("a", &broken), ("b", b"words"), ("c.json", index)]);
    let (code, shown) = text(&bench, &["model", "ls", &folder]);
    let wanted = format!(
        "{folder}/a: no gguf: too many tensors or values at byte 24\n{folder}/c.json: list of 2 tensors in several files\n  \
a  in one.safetensors\n  b  in ../two\n0 tensors (0 B) in 0 files, 2 other files, 1 that begin like models and are none\n"
    );
    assert_eq!((code, shown), (3, wanted));
    let (code, shown) = text(&bench, &["model", "ls", &format!("{folder}/b")]);
    assert_eq!((code, shown.lines().next().unwrap()), (0, &format!("{folder}/b: no model")[..]));
    assert_eq!(text(&bench, &["model", "ls", "/nowhere"]).0, 1);
}

#[test]
fn names_do_nothing_to_a_terminal() {
    let bench = Bench::empty(&["a"]);
    let name = "red \u{1b}[31m \u{9b}2J\n + none";
    let folder = folder(
        &bench,
        "m",
        &[("x", &Gguf::default().file(&[Array::new(name, "F32", &[2], 1)])), ("y", &safetensors(&[]))],
    );
    let (old, new) = (format!("{folder}/x"), format!("{folder}/y"));
    for args in [&["model", "ls", old.as_str()][..], &["model", "diff", old.as_str(), new.as_str()]] {
        let (code, shown) = text(&bench, args);
        assert!(code == 0 && !shown.contains(['\u{1b}', '\u{9b}']), "{shown:?}");
        assert!(shown.contains("red \\u{1b}[31m \\u{9b}2J\\n + none"), "{shown}");
        let (_, shown) = text(&bench, &[args, &["--json"]].concat());
        assert!(!shown.contains(['\u{1b}', '\u{9b}']), "{shown:?}");
    }
    assert_eq!(lines(&bench, &["model", "ls", &old]).1[0]["tensors"][0]["name"], name);
}

#[test]
fn tensors_that_differ_are_shown_whatever_they_stand_in() {
    let bench = Bench::empty(&["a"]);
    let old = arrays();
    let mut new = arrays();
    new[0].bytes[..1000].iter_mut().for_each(|byte| *byte ^= 1);
    new[1] = Array::new("a.bias", "F32", &[701], 2);
    new[2].name = "other\tname".into();
    new.reverse();
    let (left, right) = new.split_at(2);
    let old = folder(&bench, "old", &[("model.safetensors", &safetensors(&old))]);
    let new =
        folder(&bench, "new", &[("1.gguf", &Gguf::default().file(left)), ("2.pt", &torch(right)), ("note", b"words")]);
    let (code, shown) = text(&bench, &["model", "diff", &old, &new]);
    let wanted = "M a.bias  F32 [700] -> F32 [701]\nM a.weight  F32 [500, 700]  under 0.1% of 1.3 MiB\n\
- b.weight  F16 [30, 40]  2.3 KiB\n+ other\\tname  F16 [30, 40]  2.3 KiB\n\
1 tensors the same, 1 with other bytes (under 0.1% of 1.3 MiB), 1 of another type or shape, 1 added, 1 removed\n";
    assert_eq!((code, &shown[..]), (0, wanted));
    let (code, lines) = lines(&bench, &["model", "diff", &old, &new]);
    assert_eq!((code, lines.len()), (0, 5));
    assert_eq!(
        (&lines[1]["name"], &lines[1]["change"], &lines[1]["bytes_changed"]),
        (&json!("a.weight"), &json!("bytes"), &json!(1000))
    );
    assert_eq!(
        (&lines[4]["same"], &lines[4]["bytes_changed"], &lines[4]["bytes_compared"]),
        (&json!(1), &json!(1000), &json!(1_400_072))
    );
}

/// A cache has the files under names that are sums, and links to them that have names.
#[test]
fn links_of_a_cache_are_followed_and_files_named_once() {
    let bench = Bench::empty(&["a"]);
    let cache = folder(&bench, "cache", &[]);
    let (blobs, snapshot) = (format!("{cache}/blobs"), format!("{cache}/snapshots/main"));
    std::fs::create_dir_all(&blobs).unwrap();
    std::fs::create_dir_all(&snapshot).unwrap();
    std::fs::write(format!("{blobs}/0123abcd"), npy(&arrays()[0])).unwrap();
    std::os::unix::fs::symlink("../../blobs/0123abcd", format!("{snapshot}/weight.npy")).unwrap();
    std::os::unix::fs::symlink("../../blobs/gone", format!("{snapshot}/gone.npy")).unwrap();
    std::os::unix::fs::symlink("..", format!("{snapshot}/loop")).unwrap();
    let (code, lines) = lines(&bench, &["model", "ls", &cache]);
    assert_eq!((code, lines.len()), (0, 2));
    assert_eq!(lines[0]["path"], format!("{snapshot}/weight.npy"));
    assert_eq!(lines[0]["tensors"][0]["name"], "weight");
    let (code, shown) = text(&bench, &["model", "diff", &cache, &format!("{snapshot}/weight.npy")]);
    assert!(code == 0 && shown.starts_with("1 tensors the same, 0 with other bytes"), "{shown}");
}

/// A model names a file that is not beside it: that is not opened.
#[test]
fn data_outside_of_the_folder_are_not_read() {
    let bench = Bench::empty(&["a"]);
    let array = Array::new("w", "F32", &[9], 1);
    let model = |file: &str| onnx_model(&field(5, &onnx_outside(&array, file, 0)));
    let files = [("a.onnx", model("a.data")), ("b.onnx", model("../secret")), ("c.onnx", model("/etc/passwd"))];
    let files: Vec<(&str, &[u8])> = files.iter().map(|(name, bytes)| (*name, &bytes[..])).collect();
    let folder = folder(&bench, "m", &files);
    std::fs::write(format!("{folder}/a.data"), &array.bytes).unwrap();
    std::fs::write(bench.path("secret"), &array.bytes).unwrap();
    let diff =
        |one: &str, two: &str| text(&bench, &["model", "diff", &format!("{folder}/{one}"), &format!("{folder}/{two}")]);
    assert!(diff("a.onnx", "a.onnx").1.starts_with("1 tensors the same"));
    for other in ["b.onnx", "c.onnx"] {
        let (code, shown) = diff("a.onnx", other);
        assert!(code == 0 && shown.starts_with("? w  F32 [9]"), "{shown}");
    }
}
