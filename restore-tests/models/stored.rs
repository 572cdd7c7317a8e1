//! `holdfast ls --tensors` and `holdfast diff --tensors`: what is in the models of snapshots, told by headers and lists of
//! chunks.

use super::read_of_packs;
use crate::formats::containers::*;
use crate::harness::{Bench, files, noise};
use serde_json::{Value, json};
use std::os::unix::fs::{FileExt, symlink};

/// Twenty tensors of a megabyte, and as many that are too small for chunks of their own.
fn arrays() -> Vec<Array> {
    let mut all = Vec::new();
    for n in 0..20 {
        all.push(Array::new(&format!("layers.{n}.weight"), "F32", &[250, 1000], n + 1));
        all.push(Array::new(&format!("layers.{n}.bias"), "F16", &[70], n + 100));
    }
    all
}

/// Puts these files into the source and makes a snapshot of it, whose id comes back.
fn snapshot(bench: &Bench, files: &[(&str, &[u8])]) -> String {
    for (name, bytes) in files {
        let path = bench.path("source").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    bench.ok(&["backup", "--name", "s", "source"])["snapshot"].as_str().unwrap().to_owned()
}

/// What a verb prints for people, and its exit code.
fn text(bench: &Bench, args: &[&str]) -> (i32, String, String) {
    let (code, out) = bench.run(args);
    (code, String::from_utf8(out.stdout).unwrap(), String::from_utf8(out.stderr).unwrap())
}

/// All lines of a verb with `--json`.
fn lines(bench: &Bench, args: &[&str]) -> (i32, Vec<Value>) {
    let (code, out, _) = text(bench, &[args, &["--json"]].concat());
    (code, out.lines().map(|line| serde_json::from_str(line).unwrap()).collect())
}

/// The lines of tensors, by name: how they differ, in how many bytes.
fn differing(lines: &[Value]) -> Vec<(&str, &str, Option<u64>)> {
    let tensors = lines.iter().filter(|line| line.get("model").is_some());
    let one = tensors.map(|line| (line["name"].as_str(), line["change"].as_str(), line["bytes_changed"].as_u64()));
    one.map(|(name, change, bytes)| (name.unwrap(), change.unwrap(), bytes)).collect()
}

#[test]
fn a_file_of_a_snapshot_is_listed_as_the_file_is_and_its_weights_are_not_read() {
    let bench = Bench::with_key(&["a"]);
    let file = safetensors(&arrays());
    snapshot(&bench, &[("m/x.bin", &file), ("m/readme", b"words")]);
    let named = ["ls", "latest:/m/x.bin", "--tensors"];
    let (code, kept) = lines(&bench, &named);
    let there = bench.path("source/m/x.bin");
    let (_, found) = lines(&bench, &["model", "ls", there.to_str().unwrap()]);
    assert_eq!((code, kept.len(), found[0]["tensors"].as_array().map(Vec::len)), (0, 2, Some(40)));
    for field in ["tensors", "format", "header", "size", "packed"] {
        assert_eq!(kept[0]["model"][field], found[0][field], "{field}");
    }
    assert_eq!((&kept[0]["path"], &kept[0]["size"]), (&json!("x.bin"), &json!(file.len())));
    for field in ["models", "tensors", "bytes", "others", "malformed", "unread"] {
        assert_eq!(kept[1]["tensors"][field], found[1][field], "{field}");
    }
    let (_, kept, _) = text(&bench, &named);
    let (_, found, _) = text(&bench, &["model", "ls", there.to_str().unwrap()]);
    assert_eq!(kept, found.replacen(there.to_str().unwrap(), "x.bin", 1));
    let (said, read) = read_of_packs(&bench, &named);
    assert!(said["tensors"]["tensors"] == 40 && (1..200_000).contains(&read), "{read}: {said:#}");
    // Who does not ask for it has what was there before.
    assert_eq!(text(&bench, &["ls", "latest:/m"]).1, "readme\nx.bin\n");
    let (_, plain) = lines(&bench, &["ls", "latest:/m"]);
    assert!(plain.iter().all(|line| line.get("model").is_none() && line.get("tensors").is_none()), "{plain:?}");
}

#[test]
fn all_files_below_a_folder_are_looked_into_and_links_lead_to_theirs() {
    let bench = Bench::with_key(&["a"]);
    let mut broken = Gguf::default().file(&arrays()[..2]);
    broken[8..16].fill(0xff);
    let red = npy(&Array::new("", "F32", &[2], 1));
    let list = br#"{"weight_map": {"a": "one.safetensors"}}"#;
    let main = bench.path("source/hub/snapshots/main");
    std::fs::create_dir_all(&main).unwrap();
    symlink("../../blobs/0123", main.join("red\u{1b}[31m.npy")).unwrap();
    symlink("../../../../../etc/passwd", main.join("away")).unwrap();
    symlink("/etc/passwd", main.join("far")).unwrap();
    // Nothing but a hole.
    std::fs::File::create(bench.path("source/e")).unwrap().set_len(1 << 20).unwrap();
    snapshot(&bench, &[("hub/blobs/0123", &red), ("b", &broken), ("c.index.json", list), ("d", b"words")]);
    let (code, shown, _) = text(&bench, &["ls", "latest", "-R", "--tensors"]);
    let wanted = "b: no gguf: too many tensors or values at byte 24\nc.index.json: list of 1 tensors in several files\n  \
a  in one.safetensors\nd\ne\nhub/\nhub/blobs/\nhub/blobs/0123: npy 1, 1 tensors, 136 B\n  0123  F32 [2]  8 B  at 128\nhub/snapshots/\n\
hub/snapshots/main/\nhub/snapshots/main/away\nhub/snapshots/main/far\nhub/snapshots/main/red\\u{1b}[31m.npy: npy 1, 1 tensors, 136 B\n  \
red\\u{1b}[31m  F32 [2]  8 B  at 128\n\
2 tensors (16 B) in 2 files, 3 other files, 1 that begin like models and are none\n";
    assert_eq!((code, &shown[..]), (3, wanted));
    let (_, all) = lines(&bench, &["ls", "latest:/hub/snapshots/main", "--tensors"]);
    assert_eq!((all.len(), &all[2]["model"]["tensors"][0]["name"]), (4, &json!("red\u{1b}[31m")));
    let long = text(&bench, &["ls", "-l", "latest:/hub/blobs", "--tensors"]).1;
    assert!(long.starts_with("-rw") && long.contains(" 0123: npy 1, 1 tensors"), "{long}");
}

/// The packs that are new since.
fn packs_since(bench: &Bench, before: &[std::path::PathBuf]) -> Vec<std::path::PathBuf> {
    files(&bench.region("a").join("packs")).into_iter().filter(|pack| !before.contains(pack)).collect()
}

#[test]
fn what_cannot_be_read_is_named_and_the_rest_is_shown() {
    let bench = Bench::with_key(&["a"]);
    let old = snapshot(&bench, &[("a", &safetensors(&arrays())), ("b", &safetensors(&arrays()[..2]))]);
    let before = files(&bench.region("a").join("packs"));
    let mut tuned = arrays();
    tuned[0].bytes = noise(77, 1_000_000);
    let other = [Array::new("layers.0.weight", "F32", &[250, 1000], 55), tuned[1].clone()];
    snapshot(&bench, &[("b", &safetensors(&other))]);
    // The largest is that of the content; the trees stay.
    let lost = packs_since(&bench, &before).into_iter().max_by_key(|pack| pack.metadata().unwrap().len()).unwrap();
    let kept = std::fs::read(&lost).unwrap();
    std::fs::write(&lost, noise(1, kept.len())).unwrap();
    snapshot(&bench, &[("a", &safetensors(&tuned))]);
    let (code, shown, said) = text(&bench, &["ls", "latest", "--tensors"]);
    assert!(code == 5 && shown.contains("a: safetensors, 40 tensors") && shown.contains("\nb\n"), "{shown}");
    assert!(said.contains("NOT LOOKED INTO: b: ") && shown.contains("1 that could not be read"), "{said}{shown}");
    let diff = ["diff", &old, "latest", "--tensors"];
    let (code, shown, said) = text(&bench, &diff);
    assert!(code == 5 && said.contains("NOT COMPARED: b: ") && shown.contains("this is not all"), "{said}{shown}");
    assert!(shown.contains("    M layers.0.weight  F32 [250, 1000]  up to 100.0% of 977 KiB\n"), "{shown}");
    let (_, all) = lines(&bench, &diff);
    let sums = &all.last().unwrap()["tensors"];
    assert_eq!((&sums["models"], &sums["not_compared_total"], &sums["same"]), (&json!(1), &json!(1), &json!(39)));
    assert_eq!(sums["not_compared"][0]["path"], "b");
    std::fs::write(&lost, kept).unwrap();
    let (code, all) = lines(&bench, &diff);
    assert_eq!((code, all.last().unwrap()["tensors"]["models"].as_u64()), (0, Some(2)));
}

#[test]
fn tensors_that_differ_are_told_and_no_weights_are_read_for_it() {
    let bench = Bench::with_key(&["a"]);
    let (mut tuned, mut large) = (arrays(), Array::new("large", "F32", &[3, 1_000_000], 7));
    tuned.push(large.clone());
    let old = snapshot(&bench, &[("m/model.safetensors", &safetensors(&tuned)), ("note", b"words")]);
    tuned[0].bytes[..10].fill(1);
    tuned[2] = Array::new("layers.1.weight", "F32", &[1000, 250], 2);
    tuned[3].name = "layers.1.other".into();
    tuned[5].bytes[..4].iter_mut().for_each(|byte| *byte ^= 1);
    // One byte in the middle of twelve megabytes: of one piece nobody knows which bytes are others.
    large.bytes[6_000_000] ^= 1;
    tuned[40] = large;
    tuned.reverse();
    snapshot(&bench, &[("m/model.safetensors", &safetensors(&tuned)), ("note", b"other words")]);
    let diff = ["diff", &old, "latest", "--tensors"];
    let (code, shown, _) = text(&bench, &diff);
    let wanted = "    M large  F32 [3, 1000000]  up to 8.6% of 11 MiB\n    M layers.0.weight  F32 [250, 1000]  up to 100.0% of 977 KiB\n    \
- layers.1.bias  F16 [70]  140 B\n    + layers.1.other  F16 [70]  140 B\n    \
M layers.1.weight  F32 [250, 1000] -> F32 [1000, 250]\n    M layers.2.bias  F16 [70]  up to 100.0% of 140 B\n    \
36 tensors the same, 3 with other bytes (up to 6.6% of 30 MiB), 1 of another type or shape, 1 added, 1 removed\n";
    assert!(code == 0 && shown.contains(wanted), "{shown}");
    assert!(shown.starts_with("M m/model.safetensors  ") && shown.contains("\nM note  "), "{shown}");
    assert!(shown.contains("\n1 models: 36 tensors the same, "), "{shown}");
    let (_, all) = lines(&bench, &diff);
    let wanted = [
        ("large", "bytes", Some(1_032_192)),
        ("layers.0.weight", "bytes", Some(1_000_000)),
        ("layers.1.bias", "removed", None),
        ("layers.1.other", "added", None),
        ("layers.1.weight", "form", None),
        ("layers.2.bias", "bytes", Some(140)),
    ];
    assert_eq!(differing(&all), wanted);
    assert!(all.iter().filter(|line| line.get("model").is_some()).all(|line| line["model"] == "m/model.safetensors"));
    let (said, read) = read_of_packs(&bench, &diff);
    assert!((1..300_000).contains(&read), "{read}");
    let sums = ["models", "same", "changed", "form", "added", "removed", "unknown", "not_compared_total"];
    assert_eq!(sums.map(|sum| said["tensors"][sum].as_u64().unwrap()), [1, 36, 3, 1, 1, 1, 0, 0], "{said:#}");
    // Who does not ask for it has what was there before.
    let (_, plain) = lines(&bench, &["diff", &old, "latest"]);
    assert_eq!((plain.len(), plain[2].get("tensors")), (3, None));
}

#[test]
fn the_same_tensors_in_other_files_shards_and_containers_are_the_same() {
    let bench = Bench::with_key(&["a"]);
    let all = arrays();
    let shards = |count: usize, arrays: &[Array]| {
        let (mut files, mut list) = (Vec::new(), Vec::new());
        for (n, part) in arrays.chunks(arrays.len().div_ceil(count)).enumerate() {
            let name = format!("{n}-of-{count}.safetensors");
            list.extend(part.iter().map(|array| format!("{:?}:{name:?}", array.name)));
            files.push((format!("m/{name}"), safetensors(part)));
        }
        files.push(("m/x.index.json".to_owned(), format!("{{\"weight_map\":{{{}}}}}", list.join(",")).into_bytes()));
        files
    };
    let put = |files: &[(String, Vec<u8>)]| {
        let _ = std::fs::remove_dir_all(bench.path("source/m"));
        snapshot(&bench, &files.iter().map(|(name, bytes)| (name.as_str(), &bytes[..])).collect::<Vec<_>>())
    };
    let single = snapshot(&bench, &[("one.gguf", &Gguf::default().file(&all)), ("keep", b"words")]);
    let three = put(&shards(3, &all));
    let two = put(&shards(2, &all));
    let mut tuned = all.clone();
    tuned[0].bytes = noise(77, 1_000_000);
    tuned[30].bytes = noise(78, 1_000_000);
    let changed = put(&shards(2, &tuned));
    // Other shards: the list tells of all of them.
    let (code, shown, _) = text(&bench, &["diff", &three, &two, "--tensors"]);
    let same =
        "40 tensors the same, 0 with other bytes (0% of 19 MiB), 0 of another type or shape, 0 added, 0 removed\n";
    assert!(code == 0 && shown.contains("\nM m/x.index.json  ") && shown.contains(same), "{shown}");
    assert!(shown.contains(&format!("\n1 models: {same}")), "{shown}");
    // Both shards differ and the list does not: it is one model, and told once.
    let (_, told) = lines(&bench, &["diff", &two, &changed, "--tensors"]);
    let wanted = [("layers.0.weight", "bytes", Some(1_000_000)), ("layers.15.weight", "bytes", Some(1_000_000))];
    assert_eq!(differing(&told), wanted);
    let files = [&told[1], &told[2]].map(|line| (&line["model"], &line["file_new"]));
    let list = json!("m/x.index.json");
    assert_eq!(files, [(&list, &json!("m/0-of-2.safetensors")), (&list, &json!("m/1-of-2.safetensors"))]);
    assert_eq!(told.last().unwrap()["tensors"]["models"], 1);
    let (_, shown, _) = text(&bench, &["diff", &two, &changed, "--tensors"]);
    assert!(shown.contains("    of m/x.index.json: 38 tensors the same, 2 with other bytes"), "{shown}");
    // Named files are compared with each other, whatever they are.
    let (old, new) = (format!("{single}:/one.gguf"), format!("{changed}:/m/x.index.json"));
    assert_eq!(differing(&lines(&bench, &["diff", &old, &new, "--tensors"]).1), wanted);
    let (code, shown, _) = text(&bench, &["diff", &old, &format!("{two}:m//x.index.json"), "--tensors"]);
    assert!(code == 0 && shown.contains(&format!("    {same}")), "{shown}");
    let shard =
        ["diff", &format!("{two}:/m/0-of-2.safetensors"), &format!("{changed}:/m/0-of-2.safetensors"), "--tensors"];
    let (_, told) = lines(&bench, &shard);
    assert_eq!((&told.last().unwrap()["tensors"]["same"], differing(&told).len()), (&json!(19), 1));
}

#[test]
fn what_lies_beside_a_model_and_behind_a_link_is_compared() {
    let bench = Bench::with_key(&["a"]);
    let outside = |arrays: &[Array]| {
        let (mut data, mut tensors) = (Vec::new(), Vec::new());
        for array in arrays {
            tensors.push(field(5, &onnx_outside(array, "x.onnx.data", data.len() as u64)));
            data.extend_from_slice(&array.bytes);
        }
        (onnx_model(&tensors.concat()), data)
    };
    let all = arrays();
    let mut tuned = arrays();
    tuned[38].bytes = noise(77, 1_000_000);
    let (model, data) = outside(&all);
    for revision in ["one", "two"] {
        let folder = bench.path("source/hub").join(revision);
        std::fs::create_dir_all(&folder).unwrap();
        symlink(format!("../blobs/{revision}"), folder.join("x.safetensors")).unwrap();
    }
    let blobs = [safetensors(&all), safetensors(&tuned)];
    let files: [(&str, &[u8]); 4] =
        [("x.onnx", &model), ("x.onnx.data", &data), ("hub/blobs/one", &blobs[0]), ("hub/blobs/two", &blobs[1])];
    let old = snapshot(&bench, &files);
    snapshot(&bench, &[("x.onnx.data", &outside(&tuned).1)]);
    let wanted = [("layers.19.weight", "bytes", Some(1_000_000))];
    let (_, told) = lines(&bench, &["diff", &old, "latest", "--tensors"]);
    assert_eq!((differing(&told), &told[1]["model"]), (wanted.to_vec(), &json!("x.onnx")));
    for path in ["hub/one", "hub/one/x.safetensors"] {
        let (old, new) = (format!("latest:{path}"), format!("latest:{}", path.replace("one", "two")));
        let (code, told) = lines(&bench, &["diff", &old, &new, "--tensors"]);
        assert_eq!((code, differing(&told), &told[0]["change"]), (0, wanted.to_vec(), &json!("modified")), "{path}");
        assert_eq!((&told[1]["model"], &told[1]["dtype_old"]), (&json!("x.safetensors"), &json!("F32")));
    }
}

#[test]
fn a_small_model_is_compared_byte_by_byte_and_holes_are_zeros() {
    let bench = Bench::with_key(&["a"]);
    let mut adapter: Vec<Array> = (0..10).map(|n| Array::new(&format!("{n}"), "F32", &[50, 100], n + 1)).collect();
    let mut sparse = vec![Array::new("w", "F32", &[4, 1 << 18], 3)];
    sparse[0].bytes[1 << 20..3 << 20].fill(0);
    let whole = safetensors(&sparse);
    let old = snapshot(&bench, &[("adapter", &safetensors(&adapter)), ("sparse", &whole), ("gone", &whole)]);
    adapter[3].bytes[100..107].iter_mut().for_each(|byte| *byte ^= 1);
    let file = std::fs::File::create(bench.path("source/sparse")).unwrap();
    let hole = whole.len() - (3 << 20) + 4096..whole.len() - (1 << 20) - 4096;
    file.write_all_at(&whole[..hole.start], 0).unwrap();
    file.write_all_at(&whole[hole.end..], hole.end as u64).unwrap();
    snapshot(&bench, &[("adapter", &safetensors(&adapter)), ("gone", b"<html>404</html>")]);
    let (code, told) = lines(&bench, &["diff", &old, "latest", "--tensors"]);
    let wanted = [("3", "bytes", Some(7)), ("w", "removed", None)];
    assert_eq!((code, differing(&told)), (0, wanted.to_vec()));
    let sums = ["models", "same", "unknown", "bytes_changed"].map(|sum| told.last().unwrap()["tensors"][sum].as_u64());
    assert_eq!(sums, [3, 10, 0, 7].map(Some));
}

#[test]
fn a_header_that_lies_is_refused_by_name_and_the_rest_is_compared() {
    let bench = Bench::with_key(&["a"]);
    let mut all = arrays();
    let good = safetensors(&all);
    let old = snapshot(&bench, &[("a.safetensors", &good), ("b.safetensors", &good)]);
    all[0].bytes = noise(77, 1_000_000);
    let tuned = safetensors(&all);
    let longer = [&tuned[..], &[0]].concat();
    let away = br#"{"weight_map": {"a": "../../etc/passwd"}}"#;
    let list = snapshot(&bench, &[("a.safetensors", &longer), ("b.safetensors", &tuned), ("c.index.json", away)]);
    let diff = ["diff", &old, "latest", "--tensors"];
    let (code, shown, said) = text(&bench, &diff);
    let wanted = "NOT COMPARED: a.safetensors: no safetensors: tensors that do not end where the file does at byte ";
    assert!(code == 3 && said.contains(wanted) && !said.contains("restore the whole file"), "{code}: {said}");
    assert!(shown.contains("    M layers.0.weight  F32 [250, 1000]  up to 100.0%"), "{shown}");
    snapshot(&bench, &[("c.index.json", br#"{"weight_map": {"layers.0.bias": "b.safetensors"}}"#)]);
    // A list that names what is not beside it is followed nowhere.
    let (code, told) = lines(&bench, &["diff", &list, "latest", "--tensors"]);
    let last = told.last().unwrap();
    assert_eq!((code, &last["tensors"]["not_compared"][0]["path"]), (3, &json!("c.index.json")), "{last:#}");
}
