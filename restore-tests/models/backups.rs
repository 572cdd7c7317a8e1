//! Snapshots of models: a verdict with each file, of the bytes that were stored, kept as long as the file is the same.

use super::figure;
use super::libraries::libraries;
use crate::formats::containers::{Array, safetensors};
use crate::harness::{Bench, assert_same, noise, settle};
use crate::reader::python;
use crate::trust::{harmless, pickles};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::os::unix::fs::{FileExt, symlink};
use std::path::Path;

fn hash(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The verdicts that stand in a snapshot, by path.
fn verdicts(bench: &Bench, snapshot: &str) -> BTreeMap<String, Value> {
    let said = bench.json(&["model", "check", "--snapshot", snapshot]).1;
    let files = said["files"].as_array().unwrap_or_else(|| panic!("{said:#}"));
    files.iter().map(|file| (file["path"].as_str().unwrap().to_owned(), file.clone())).collect()
}

/// Restores the latest snapshot, which must be the source, and says how.
fn restored(bench: &Bench, more: &[&str]) -> Value {
    let target = bench.path("target");
    let _ = std::fs::remove_dir_all(&target);
    let done = bench.ok(&[&["restore", "latest", "--target", target.to_str().unwrap()], more].concat());
    assert_same(&bench.path("source"), &target);
    for path in crate::harness::files(&target) {
        let mut names = [0u8; 4096];
        let len = rustix::fs::listxattr(&path, &mut names).unwrap_or(0);
        let names = String::from_utf8_lossy(&names[..len]).into_owned();
        assert!(!names.contains("holdfast"), "{}: {names}", path.display());
    }
    done
}

/// A cache of Hugging Face with files that real libraries wrote: blobs by their hashes, and links that have names.
fn cache(bench: &Bench) -> usize {
    let (made, hub) = (bench.path("made"), bench.path("source/models--a--b"));
    std::fs::create_dir_all(&made).unwrap();
    libraries(&["make", made.to_str().unwrap(), "1", "safetensors", "gguf", "onnx", "npz"]);
    harmless(&made);
    let (blobs, snapshot) = (hub.join("blobs"), hub.join("snapshots/0123abcd"));
    [&blobs, &snapshot, &hub.join("refs")].iter().for_each(|folder| std::fs::create_dir_all(folder).unwrap());
    std::fs::write(hub.join("refs/main"), "0123abcd").unwrap();
    let mut count = 0;
    for path in crate::harness::files(&made) {
        let bytes = std::fs::read(&path).unwrap();
        let name = path.file_name().unwrap().to_str().unwrap();
        std::fs::write(blobs.join(hash(&bytes)), &bytes).unwrap();
        symlink(format!("../../blobs/{}", hash(&bytes)), snapshot.join(name)).unwrap();
        count += 1;
    }
    std::fs::remove_dir_all(&made).unwrap();
    count
}

#[test]
fn a_cache_comes_back_with_its_links_and_each_file_has_its_verdict() {
    let mut bench = Bench::in_memory(&["a"]);
    let count = cache(&bench);
    bench.make_key();
    bench.ok(&["init", "--recovery-key-out", "recovery"]);
    let source = format!("model:{}", bench.path("source").display());
    let first = bench.ok(&["backup", &source]);
    let models = &first["verdicts"];
    assert!(first["source"].as_str().unwrap().starts_with("model:"), "{first:#}");
    assert_eq!((models["unsafe"].as_u64(), models["refused"].as_u64()), (Some(0), Some(0)), "{models:#}");
    assert!(figure(models, "safe") > 20 && figure(models, "none") > 3, "{models:#}");
    // The verdicts are those that are given to the files on the disk.
    let stored = verdicts(&bench, "latest");
    let on_disk = bench.json(&["model", "check", bench.path("source").to_str().unwrap()]).1;
    let on_disk = on_disk["files"].as_array().unwrap();
    assert_eq!((stored.len(), on_disk.len()), (figure(models, "files") as usize, stored.len()));
    for file in on_disk {
        let path = file["path"].as_str().unwrap();
        let path = Path::new(path).strip_prefix(bench.path("source")).unwrap().display().to_string();
        for field in ["sha256", "bytes", "blob", "pickle", "pickles", "findings_total"] {
            assert_eq!(stored[&path][field], file[field], "{path}: {field}");
        }
    }
    let linked = stored.keys().filter(|path| path.contains("/snapshots/")).count();
    assert_eq!(linked, count);
    assert_eq!(stored.values().filter(|file| file["blob"] == "same").count(), figure(models, "files") as usize - 1);
    let done = restored(&bench, &[]);
    assert_eq!(done["checked"], done["files"], "{done:#}");
    // As a tar archive too.
    let tar = bench.path("out.tar");
    bench.ok(&["restore", "latest", "--tar", tar.to_str().unwrap()]);
    let bytes = std::fs::read(&tar).unwrap();
    assert!(!bytes.windows(16).any(|window| window == b"holdfast.verdict"));
    by_the_second_reader(&bench);
}

/// The second reader knows nothing of verdicts, and gives back everything.
fn by_the_second_reader(bench: &Bench) {
    let target = bench.path("back");
    let mut command = python();
    command.args(["-m", "holdfast_reader", "--region"]).arg(bench.region("a"));
    command.arg("--recovery-key-file").arg(bench.path("recovery"));
    let out = command.args(["--snapshot", "latest", "--restore"]).arg(&target).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    assert_same(&bench.path("source"), &target);
}

/// Files of all ways in which content is read: in its entry, whole, in turns by several hands, with holes, by tensors.
fn all_kinds(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let arrays = [Array::new("a", "F32", &[600, 700], 1), Array::new("b", "F32", &[700, 700], 2)];
    let mut holes = noise(5, 3_000_000);
    holes[500_000..2_500_000].fill(0);
    let files: [(&str, Vec<u8>); 7] = [
        ("empty", Vec::new()),
        ("tiny.pkl", pickles::by_values("collections", "OrderedDict")),
        ("whole", noise(1, 200_000)),
        ("large", noise(2, 3_000_000)),
        ("shared", noise(3, 50_000_000)),
        ("tensors.safetensors", safetensors(&arrays)),
        ("holes", holes),
    ];
    for (name, bytes) in &files {
        let file = std::fs::File::create(folder.join(name)).unwrap();
        if *name == "holes" {
            file.write_all_at(&bytes[..500_000], 0).unwrap();
            file.write_all_at(&bytes[2_500_000..], 2_500_000).unwrap();
        } else {
            file.write_all_at(bytes, 0).unwrap();
        }
    }
    files.into_iter().map(|(name, bytes)| (name.to_owned(), bytes)).collect()
}

#[test]
fn a_hash_is_of_what_was_stored_and_is_kept_while_that_is_the_same() {
    let mut bench = Bench::in_memory(&["a"]);
    let folder = bench.path("source");
    std::fs::create_dir(&folder).unwrap();
    let files = all_kinds(&folder);
    bench.make_key();
    bench.ok(&["init", "--no-recovery-key"]);
    settle(bench.dir.path());
    let source = format!("model:{}", folder.display());
    let backup = |more: &[&str]| bench.ok(&[&["backup", &source], more].concat());
    let first = backup(&[]);
    assert_eq!(figure(&first, "files_read"), files.len() as u64);
    let stored = verdicts(&bench, "latest");
    for (name, bytes) in &files {
        assert_eq!(stored[name]["sha256"], hash(bytes), "{name}");
    }
    assert_eq!((&stored["tiny.pkl"]["pickle"], &stored["large"]["pickle"]), (&"safe".into(), &"none".into()));
    // Nothing is read again, and everything is known still.
    let second = backup(&[]);
    assert_eq!((figure(&second, "files_read"), figure(&second, "bytes_read")), (0, 0), "{second:#}");
    assert_eq!((&second["verdicts"], verdicts(&bench, "latest")), (&first["verdicts"], stored.clone()));
    // What changed is judged anew, and nothing else.
    std::fs::write(folder.join("tiny.pkl"), pickles::by_lines("os", "system")).unwrap();
    let third = backup(&[]);
    assert_eq!((figure(&third, "files_read"), figure(&third["verdicts"], "unsafe")), (1, 1), "{third:#}");
    let complaint = &third["verdicts"]["complaints"][0];
    assert_eq!((&complaint["path"], &complaint["refused"]), (&"tiny.pkl".into(), &false.into()), "{third:#}");
    let changed = &verdicts(&bench, "latest")["tiny.pkl"];
    assert_eq!(changed["findings"][0]["global"], "os.system", "{changed:#}");
    // All of it, by whoever reads all; what came of it is the same.
    assert_eq!(backup(&["--full"])["verdicts"], third["verdicts"]);
    let done = restored(&bench, &[]);
    assert_eq!((figure(&done, "checked"), figure(&done, "files")), (7, 7));
    // A file that stands there already is read as well.
    let again = bench.ok(&["restore", "latest", "--target", bench.path("target").to_str().unwrap()]);
    assert_eq!((figure(&again, "checked"), figure(&again, "files_same")), (7, 7));
    bench.ok(&["verify", "--level", "content"]);
}

/// One source was backed up as files before, and is again: a verdict is neither taken for granted nor left behind.
#[test]
fn a_source_that_changes_its_kind_is_read_anew() {
    let mut bench = Bench::in_memory(&["a"]);
    std::fs::create_dir(bench.path("source")).unwrap();
    std::fs::write(bench.path("source/a"), noise(1, 100_000)).unwrap();
    bench.make_key();
    bench.ok(&["init", "--no-recovery-key"]);
    let backup = |path: &str| bench.ok(&["backup", "--name", "one", path]);
    for (path, models) in [("source", false), ("model:source", true), ("source", false), ("model:source", true)] {
        let done = backup(path);
        assert_eq!((figure(&done, "files_read"), done["verdicts"].is_object()), (1, models), "{path}: {done:#}");
        assert!(done["parent"].is_null(), "{path}: {done:#}");
        let done = restored(&bench, &[]);
        assert_eq!(figure(&done, "checked"), u64::from(models));
    }
}

/// What begins like a model and is none is stored as bytes, and said as long as it is so.
#[test]
fn what_only_begins_like_a_model_is_noted() {
    let mut bench = Bench::in_memory(&["a"]);
    std::fs::create_dir(bench.path("source")).unwrap();
    let whole = safetensors(&[Array::new("a", "F32", &[300, 300], 1)]);
    let small = safetensors(&[Array::new("a", "F32", &[30, 30], 1)]);
    let files: [(&str, &[u8]); 5] = [
        ("good.safetensors", &whole),
        ("large.safetensors", &whole[..whole.len() - 1]),
        ("small.safetensors", &small[..small.len() - 1]),
        ("words.gguf", b"words"),
        ("small-good.safetensors", &small),
    ];
    files.iter().for_each(|(name, bytes)| std::fs::write(bench.path("source").join(name), bytes).unwrap());
    bench.make_key();
    bench.ok(&["init", "--no-recovery-key"]);
    settle(bench.dir.path());
    let paths = |done: &Value| -> Vec<String> {
        let all = done["verdicts"]["malformed"].as_array().unwrap_or_else(|| panic!("{done:#}"));
        assert!(all.iter().all(|one| one["format"] == "safetensors" && one["at"].is_u64()), "{done:#}");
        all.iter().map(|one| one["path"].as_str().unwrap().to_owned()).collect()
    };
    let first = bench.ok(&["backup", "model:source"]);
    assert_eq!(paths(&first), ["large.safetensors", "small.safetensors"]);
    assert_eq!((figure(&first["verdicts"], "malformed_total"), &first["errors_total"]), (2, &0.into()));
    restored(&bench, &[]);
    // It need not be read for that again.
    let second = bench.ok(&["backup", "model:source"]);
    assert_eq!((figure(&second, "files_read"), &second["verdicts"]), (0, &first["verdicts"]), "{second:#}");
    let noted = serde_json::json!({"name": "verdicts.malformed", "value": 2});
    let runs = bench.ok(&["runs"]);
    let has = |run: &&Value| run["figures"].as_array().is_some_and(|figures| figures.contains(&noted));
    assert_eq!(runs["runs"].as_array().unwrap().iter().filter(has).count(), 2, "{runs:#}");
    // Whole, it is a model.
    std::fs::write(bench.path("source/large.safetensors"), &whole).unwrap();
    let (code, out) = bench.run(&["backup", "model:source"]);
    let said = String::from_utf8(out.stdout).unwrap();
    assert!(code == 0 && said.contains("1 files begin like models and are none"), "{said}");
    assert!(said.contains("small.safetensors: no safetensors: ") && !said.contains("large.safetensors"), "{said}");
}

#[test]
fn several_paths_and_single_files_are_models_too() {
    let mut bench = Bench::in_memory(&["a"]);
    for folder in ["one", "two/inner"] {
        std::fs::create_dir_all(bench.path(folder)).unwrap();
    }
    std::fs::write(bench.path("one/a.bin"), noise(1, 5000)).unwrap();
    std::fs::write(bench.path("one/SHA256SUMS"), format!("{}  a.bin\n", hash(&noise(1, 5000)))).unwrap();
    std::fs::write(bench.path("two/inner/b.bin"), noise(2, 5000)).unwrap();
    bench.make_key();
    bench.ok(&["init", "--no-recovery-key"]);
    let done = bench.ok(&["backup", "model:one", "model:two/inner/b.bin"]);
    assert_eq!((figure(&done["verdicts"], "files"), &done["verdicts"]["complaints_total"]), (3, &0.into()), "{done:#}");
    let listed = verdicts(&bench, "latest");
    let sums: Vec<&Value> =
        listed.iter().filter(|(path, _)| path.ends_with("a.bin")).map(|(_, f)| &f["sums"]).collect();
    assert_eq!(sums, ["same"], "{listed:#?}");
}

#[test]
fn models_are_not_mixed_with_other_files() {
    let bench = Bench::with_key(&["a"]);
    std::fs::create_dir(bench.path("m")).unwrap();
    for args in [
        &["backup", "model:m", "m"][..],
        &["backup", "model:"],
        &["backup", "model:http://bucket/models"],
        &["backup", "model:gs://bucket/models"],
        &["backup", "model:s3://bucket/models", "model:m"],
        &["backup", "model:s3://bucket/models", "--clone"],
        &["backup", "s3://bucket/models", "--trust-pickle", "refuse"],
        &["backup", "m", "--trust-pickle", "refuse"],
        &["backup", "model:m", "--trust-signature", "require"],
    ] {
        let (code, said) = bench.json(args);
        assert_eq!((code, said["error"]["kind"].as_str()), (2, Some("config")), "{args:?}: {said:#}");
    }
    bench.ok(&["backup", "m"]);
    assert_eq!(bench.json(&["model", "check", "--snapshot", "latest"]).0, 2);
    let target = ["restore", "latest", "--target", "t", "--trust-pickle", "refuse"];
    assert_eq!(bench.json(&target).0, 2);
}
