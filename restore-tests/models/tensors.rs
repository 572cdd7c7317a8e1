//! `holdfast restore --tensors`: some tensors of a model, without the rest of it.

use super::read_of_packs;
use crate::formats::containers::*;
use crate::harness::{Bench, files};
use crate::reader::python;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Twenty tensors of 2 MB and small ones between them.
fn arrays() -> Vec<Array> {
    let mut all = Vec::new();
    for n in 0..20 {
        all.push(Array::new(&format!("layers.{n}.weight"), "F32", &[500, 1000], n + 1));
        all.push(Array::new(&format!("layers.{n}.bias"), "F16", &[7], n + 100));
    }
    all
}

/// A repository with a snapshot of these files.
fn backed_up(files: &[(&str, &[u8])]) -> Bench {
    let bench = Bench::with_key(&["a"]);
    for (name, bytes) in files {
        let path = bench.path("source").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    bench.ok(&["backup", "--name", "s", "source"]);
    bench
}

fn restore<'a>(what: &'a str, names: &[&'a str], target: &'a str) -> Vec<&'a str> {
    let names = names.iter().flat_map(|name| ["--tensors", *name]);
    ["restore", what].into_iter().chain(names).chain(["--target", target]).collect()
}

/// What safetensors' own library finds in a file: name, type, shape and a digest of each tensor.
fn loaded(file: &Path) -> Vec<(String, String, Value, String)> {
    let folder = file.parent().unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("restore-tests/models/files.py");
    let out = python().arg(script).arg("read").arg(folder).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let mut all: Vec<_> = String::from_utf8(out.stdout)
        .unwrap()
        .lines()
        .map(|line| {
            let one: Value = serde_json::from_str(line).unwrap();
            let text = |key: &str| one[key].as_str().unwrap().to_owned();
            (text("name"), text("dtype"), one["shape"].clone(), text("sha256"))
        })
        .collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

/// The same of arrays.
fn wanted<'a>(arrays: impl IntoIterator<Item = &'a Array>) -> Vec<(String, String, Value, String)> {
    use sha2::{Digest, Sha256};
    let dtype = |array: &Array| match array.dtype {
        "F32" => "float32",
        "F16" => "float16",
        "I64" => "int64",
        _ => "int8",
    };
    let digest = |array: &Array| Sha256::digest(&array.bytes).iter().map(|b| format!("{b:02x}")).collect();
    let mut all: Vec<_> = arrays
        .into_iter()
        .map(|array| (array.name.clone(), dtype(array).to_owned(), json!(array.shape), digest(array)))
        .collect();
    all.sort_by(|a, b| a.0.cmp(&b.0));
    all
}

/// The file that was written, which must be the only one in the target.
fn written(bench: &Bench, said: &Value) -> PathBuf {
    let file = bench.dir.path().join(said["file"].as_str().unwrap());
    assert_eq!(files(file.parent().unwrap()), std::slice::from_ref(&file));
    file
}

#[test]
fn one_tensor_of_a_large_file_costs_about_its_own_bytes() {
    let all = arrays();
    let bench = backed_up(&[("m/model.safetensors", &safetensors(&all))]);
    let args = restore("latest:/m/model.safetensors", &["layers.7.*"], "target");
    let (said, read) = read_of_packs(&bench, &args);
    // The tensor, a page of the list, the headers; of 40 MB.
    assert!((2_000_000..2_300_000).contains(&read), "{read}");
    let file = written(&bench, &said);
    assert_eq!(file, bench.path("target/model.safetensors"));
    assert_eq!(loaded(&file), wanted(&all[14..16]));
    assert_eq!((&said["tensors_total"], &said["bytes"]), (&json!(40), &json!(file.metadata().unwrap().len())));
    let shown: Vec<(&Value, &Value)> =
        said["tensors"].as_array().unwrap().iter().map(|one| (&one["name"], &one["shape"])).collect();
    assert_eq!(shown, [(&json!("layers.7.weight"), &json!([500, 1000])), (&json!("layers.7.bias"), &json!([7]))]);
    let runs = bench.ok(&["runs"]);
    let last = runs["runs"].as_array().unwrap().last().unwrap();
    assert_eq!((&last["kind"], &last["id"], &last["code"]), (&json!("restore"), &said["run"], &json!(0)));
}

#[test]
fn all_tensors_make_a_file_with_the_widest_numbers_first_in_place_of_what_stood_there() {
    let all = arrays();
    let bench = backed_up(&[("model.safetensors", &safetensors(&all))]);
    std::fs::create_dir(bench.path("target")).unwrap();
    std::fs::write(bench.path("target/model.safetensors"), crate::harness::noise(1, 50_000_000)).unwrap();
    let whole = restore("latest:model.safetensors", &["*.bias", "*"], "target");
    let said = bench.ok(&[&whole[..], &["--overwrite"]].concat());
    let file = written(&bench, &said);
    assert_eq!((&said["replaces"], loaded(&file)), (&json!(true), wanted(&all)));
    let dtypes: Vec<&Value> = said["tensors"].as_array().unwrap().iter().map(|one| &one["dtype"]).collect();
    assert!(dtypes[..20].iter().all(|dtype| *dtype == "F32") && dtypes[20..].iter().all(|dtype| *dtype == "F16"));
    // The same elsewhere, as `--to` says it; and nothing at all.
    let to = ["restore", "latest:model.safetensors", "--tensors", "layers.?.bias", "--to", "other"];
    let said = bench.ok(&to);
    assert_eq!(loaded(&written(&bench, &said)).len(), 10);
    let dry = bench.ok(&[&restore("latest:model.safetensors", &["*"], "nothing")[..], &["--dry-run"]].concat());
    assert_eq!((dry["tensors"].as_array().map(Vec::len), &dry["run"]), (Some(40), &Value::Null));
    assert!(!bench.path("nothing").exists());
    assert_eq!(bench.run(&["restore", "latest", "--target", "files", "--overwrite"]).0, 2, "it means nothing there");
    for more in [&["--delete"][..], &["--include", "x"], &["--tar", "x"], &["--revision", "3"]] {
        assert_eq!(bench.run(&[&to[..], more].concat()).0, 2, "{more:?}");
    }
}

#[test]
fn tensors_of_a_model_in_several_files_come_out_of_those_that_have_them() {
    let all = arrays();
    let (left, right) = all.split_at(20);
    let list: Vec<String> = [(left, "1.safetensors"), (right, "2.safetensors")]
        .iter()
        .flat_map(|(part, file)| part.iter().map(move |array| format!("{:?}:{file:?}", array.name)))
        .collect();
    let list = format!("{{\"weight_map\":{{{}}}}}", list.join(","));
    let (left_file, right_file) = (safetensors(left), safetensors(right));
    let bench = backed_up(&[
        ("m/1.safetensors", &left_file),
        ("m/2.safetensors", &right_file),
        ("m/model.safetensors.index.json", list.as_bytes()),
        ("hub/blobs/aa", &left_file),
        ("hub/blobs/bb", &right_file),
        ("hub/blobs/cc", list.as_bytes()),
    ]);
    // As a cache has it: files by their sums, and links that have names.
    let main = bench.path("source/hub/snapshots/main");
    std::fs::create_dir_all(&main).unwrap();
    for (blob, name) in [("aa", "1.safetensors"), ("bb", "2.safetensors"), ("cc", "model.safetensors.index.json")] {
        std::os::unix::fs::symlink(format!("../../blobs/{blob}"), main.join(name)).unwrap();
    }
    std::os::unix::fs::symlink("/etc/passwd", main.join("out")).unwrap();
    std::os::unix::fs::symlink("../../../../../x", main.join("above")).unwrap();
    std::os::unix::fs::symlink("again", main.join("again")).unwrap();
    bench.ok(&["backup", "--name", "s", "source"]);
    let names = ["layers.9.weight", "layers.1?.bias"];
    let chosen: Vec<&Array> = all[18..19].iter().chain(all[20..].iter().filter(|a| a.name.ends_with("bias"))).collect();
    for path in ["m", "m/model.safetensors.index.json", "hub/snapshots/main"] {
        let _ = std::fs::remove_dir_all(bench.path("target"));
        let said = bench.ok(&restore(&format!("latest:/{path}"), &names, "target"));
        let file = written(&bench, &said);
        assert!(file.ends_with("model.safetensors") && said["tensors_total"] == 40, "{said:#}");
        assert_eq!(loaded(&file), wanted(chosen.iter().copied()));
    }
    // A file that has none of them is not asked.
    let args = restore("latest:/m", &["layers.0.bias"], "few");
    let (_, read) = read_of_packs(&bench, &args);
    assert!(read < 300_000, "{read}");
    for (path, code) in [("out", 1), ("above", 1), ("again", 1), ("2.safetensors", 0)] {
        let what = format!("latest:/hub/snapshots/main/{path}");
        assert_eq!(bench.run(&restore(&what, &["*"], "links")).0, code, "{path}");
    }
}

/// Who may not read the numbers where they are may not read them in the new file either.
#[test]
fn a_file_out_of_several_is_as_narrow_as_the_narrowest() {
    use std::os::unix::fs::PermissionsExt;
    let all = arrays();
    let list = format!("{{\"weight_map\":{{{:?}:\"1.safetensors\"}}}}", all[0].name);
    let bench = Bench::with_key(&["a"]);
    std::fs::create_dir(bench.path("source")).unwrap();
    for (name, bytes, mode) in [
        ("1.safetensors", &safetensors(&all[..2])[..], 0o600),
        ("model.safetensors.index.json", list.as_bytes(), 0o644),
    ] {
        let path = bench.path("source").join(name);
        std::fs::write(&path, bytes).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    bench.ok(&["backup", "--name", "s", "source"]);
    let said = bench.ok(&restore("latest:/model.safetensors.index.json", &["*"], "target"));
    let mode = written(&bench, &said).metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn names_that_are_not_there_are_refused_with_near_ones() {
    let bench = backed_up(&[("m/model.safetensors", &safetensors(&arrays())), ("m/words", b"words"), ("n/x", b"x")]);
    for (path, name, wanted, parts) in [
        ("m", "layer.7.weight", 1, &["layers.7.weight", "no tensor is called layer.7.weight"][..]),
        ("m", "model.layers.12.*", 1, &["layers.12.weight", "layers.12.bias"]),
        ("m", "7.wei", 1, &["layers.7.weight", "layers.17.weight"]),
        ("m/words", "*", 2, &["no file of tensors"]),
        ("n", "*", 2, &["neither a list of shards"]),
        ("gone", "*", 1, &["no such path"]),
    ] {
        let what = format!("latest:/{path}");
        // One that is there does not make up for one that is not.
        let (code, out) = bench.run(&restore(&what, &[name, "layers.1.bias"], "target"));
        let said = String::from_utf8(out.stderr).unwrap();
        assert_eq!(code, wanted, "{said}");
        parts.iter().for_each(|part| assert!(said.contains(part), "{part}: {said}"));
        assert!(!bench.path("target").exists(), "{what}");
    }
}

#[test]
fn tensors_of_other_containers_become_safetensors_where_they_can() {
    let all: Vec<Array> = ["F32", "F16", "I64", "I8"]
        .into_iter()
        .zip(1..)
        .map(|(dtype, seed)| Array::new(&format!("t.{dtype}"), dtype, &[300, 401], seed))
        .collect();
    let odd = Gguf { big_endian: true, version: 3, ..Gguf::default() }.file(&all);
    // Steps of 401 and 1 become such of 1 and 300: what a transposed view of a whole storage has.
    let (steps, other) = (b"J\x91\x01\0\0J\x01\0\0\0", b"J\x01\0\0\0J\x2c\x01\0\0");
    let mut turned = state(&all);
    let at = turned.windows(steps.len()).position(|part| part == steps).unwrap();
    turned[at..at + other.len()].copy_from_slice(other);
    let turned = torch_with(&turned, &all, Zip { alignment: 64, ..Zip::default() });
    let parts: Vec<u8> = all.iter().flat_map(|array| array.bytes.clone()).collect();
    let mut at = 0;
    let outside = all.iter().map(|array| {
        at += array.bytes.len() as u64;
        field(5, &onnx_outside(array, "./f.onnx.data", at - array.bytes.len() as u64))
    });
    let outside = onnx_model(&outside.collect::<Vec<_>>().concat());
    let columns = npy_with(1, "{'descr': '<f4', 'fortran_order': True, 'shape': (300, 401), }", &all[0].bytes);
    let bench = backed_up(&[
        ("a.gguf", &Gguf::default().file(&all)),
        ("b.pt", &torch(&all)),
        ("c.onnx", &onnx(&all)),
        ("d.npz", &npz(&all)),
        ("e.npy", &npy(&all[0])),
        ("f.onnx", &outside),
        ("f.onnx.data", &parts),
        ("g.onnx", &onnx_model(&field(5, &onnx_outside(&all[0], "gone.data", 0)))),
        ("odd.gguf", &odd),
        ("columns.npy", &columns),
        ("turned.pt", &turned),
        ("small.safetensors", &safetensors(&[Array::new("s", "F32", &[9], 9)])),
    ]);
    for name in ["a.gguf", "b.pt", "c.onnx", "d.npz", "f.onnx"] {
        let _ = std::fs::remove_dir_all(bench.path("target"));
        let said = bench.ok(&restore(&format!("latest:/{name}"), &["t.*"], "target"));
        let file = written(&bench, &said);
        assert_eq!(file.file_name().unwrap().to_str().unwrap()[1..], *".safetensors");
        assert_eq!(loaded(&file), wanted(&all), "{name}");
    }
    let said = bench.ok(&restore("latest:/e.npy", &["e"], "array"));
    assert_eq!(loaded(&written(&bench, &said))[0].3, wanted(&all[..1])[0].3);
    let said = bench.ok(&restore("latest:/small.safetensors", &["s"], "small"));
    assert_eq!(loaded(&written(&bench, &said)), wanted(&[Array::new("s", "F32", &[9], 9)]));
    for name in ["odd.gguf", "columns.npy", "turned.pt"] {
        let (code, out) = bench.run(&restore(&format!("latest:/{name}"), &["*"], "odd"));
        let said = String::from_utf8(out.stderr).unwrap();
        assert!(code == 11 && said.contains("in another order"), "{code}: {said}");
    }
    let (code, out) = bench.run(&restore("latest:/g.onnx", &["*"], "odd"));
    let said = String::from_utf8(out.stderr).unwrap();
    assert!(code == 11 && said.contains("a file beside the model, which is not there"), "{code}: {said}");
    assert!(!bench.path("odd").exists());
}

#[test]
fn what_stands_at_the_name_stays_until_there_is_something_to_put_there() {
    let all = arrays();
    let bench = backed_up(&[("m/model.safetensors", &safetensors(&all))]);
    let here = bench.path("source/m/model.safetensors");
    let before = std::fs::read(&here).unwrap();
    let args = restore("latest:/m/model.safetensors", &["layers.2.weight"], "source/m");
    for more in [&[][..], &["--dry-run"]] {
        let (code, said) = bench.json(&[&args[..], more].concat());
        assert_eq!((code, said["error"]["kind"].as_str()), (11, Some("refused")), "{said:#}");
        assert!(said["error"]["advice"].as_str().unwrap().contains("--overwrite"), "{said:#}");
    }
    let over = [&args[..], &["--overwrite"]].concat();
    let said = bench.ok(&[&over[..], &["--dry-run"]].concat());
    assert_eq!((&said["replaces"], &said["dry_run"]), (&json!(true), &json!(true)));
    let unchanged = || files(&bench.path("source/m")) == [here.clone()] && std::fs::read(&here).unwrap() == before;
    assert!(unchanged());
    // What it needs is lost.
    let is_large = |pack: &PathBuf| pack.metadata().unwrap().len() > 1 << 20;
    let packs: Vec<PathBuf> = files(&bench.region("a").join("packs")).into_iter().filter(is_large).collect();
    let kept: Vec<Vec<u8>> = packs.iter().map(|pack| std::fs::read(pack).unwrap()).collect();
    for (pack, bytes) in packs.iter().zip(&kept) {
        let mut bytes = bytes.clone();
        // All but the ends: the tensor's two megabytes lie wherever the packs' makers put them.
        let (from, to) = (64 << 10, bytes.len() - (64 << 10));
        bytes[from..to].iter_mut().for_each(|byte| *byte ^= 1);
        std::fs::write(pack, bytes).unwrap();
    }
    assert_eq!(bench.json(&[&over[..], &["--no-repair"]].concat()).0, 5);
    assert!(unchanged(), "{:?}", files(&bench.path("source/m")));
    packs.iter().zip(&kept).for_each(|(pack, bytes)| std::fs::write(pack, bytes).unwrap());
    // A directory is never replaced.
    std::fs::create_dir_all(bench.path("dir/model.safetensors")).unwrap();
    let args = restore("latest:/m/model.safetensors", &["layers.2.weight"], "dir");
    assert_eq!(bench.json(&[&args[..], &["--overwrite"]].concat()).0, 11);
    let said = bench.ok(&over);
    assert_eq!(loaded(&written(&bench, &said)), wanted(&all[4..5]));
}

#[test]
fn what_is_not_as_it_is_stored_is_refused() {
    let all = [Array::new("w", "F32", &[30, 41], 1)];
    let hooks = b"ccollections\nOrderedDict\n)R";
    let plain = state(&all);
    let with = |more: &[u8]| {
        let at = plain.windows(hooks.len()).rposition(|part| part == hooks).unwrap() + hooks.len();
        let pickle = [&plain[..at], more, &plain[at..]].concat();
        torch_with(&pickle, &all, Zip { alignment: 64, ..Zip::default() })
    };
    // `{"conj": True}` as the last argument; and state that is set, behind the end of the call.
    let conjugate = with(b"}X\x04\0\0\0conj\x88s");
    let at = plain.len() - 2;
    let built = [&plain[..at], b"}b", &plain[at..]].concat();
    let built = torch_with(&built, &all, Zip { alignment: 64, ..Zip::default() });
    let bench = backed_up(&[("plain.pt", &with(b"")), ("conjugate.pt", &conjugate), ("built.pt", &built)]);
    let said = bench.ok(&restore("latest:/plain.pt", &["w"], "plain"));
    assert_eq!(loaded(&written(&bench, &said)), wanted(&all));
    for name in ["conjugate.pt", "built.pt"] {
        let (code, out) = bench.run(&restore(&format!("latest:/{name}"), &["w"], "odd"));
        let said = String::from_utf8(out.stderr).unwrap();
        assert!(
            code == 11 && said.contains("in another order") && !bench.path("odd").exists(),
            "{name}: {code}: {said}"
        );
    }
}

#[test]
fn thousands_of_names_of_the_same_bytes_are_not_written_and_a_few_are() {
    let one = Array::new("w", "F32", &[500, 1000], 1);
    let of = |names: usize| {
        // All are entries of one storage, whose key is the first.
        let all: Vec<Array> = (0..names).map(|n| Array { name: format!("w{n}"), ..one.clone() }).collect();
        let mut pickle = state(&all);
        for n in 1..names {
            let key = n.to_string();
            let other = [&b"X"[..], &(key.len() as u32).to_le_bytes(), key.as_bytes(), b"X\x03\0\0\0cpu"].concat();
            let at = pickle.windows(other.len()).position(|part| part == other).unwrap();
            pickle.splice(at..at + other.len(), b"X\x01\0\0\x000X\x03\0\0\0cpu".iter().copied());
        }
        torch_with(&pickle, std::slice::from_ref(&one), Zip { alignment: 64, ..Zip::default() })
    };
    let (tied, many) = (of(2), of(300));
    let bench = backed_up(&[("tied.pt", &tied), ("many.pt", &many)]);
    let said = bench.ok(&restore("latest:/tied.pt", &["*"], "tied"));
    assert_eq!(loaded(&written(&bench, &said)).len(), 2);
    for more in [&[][..], &["--dry-run"]] {
        let (code, said) = bench.json(&[&restore("latest:/many.pt", &["*"], "many")[..], more].concat());
        assert_eq!((code, said["error"]["kind"].as_str()), (11, Some("refused")), "{said:#}");
        assert!(said.to_string().contains("they share their bytes") && !bench.path("many").exists(), "{said:#}");
    }
    bench.ok(&restore("latest:/many.pt", &["w17"], "many"));
}

#[test]
fn a_tensor_that_is_lost_leaves_no_file_and_others_come_back() {
    let all = arrays();
    let bench = backed_up(&[("model.safetensors", &safetensors(&all))]);
    let pack = files(&bench.region("a").join("packs")).into_iter().max_by_key(|path| path.metadata().unwrap().len());
    let pack = pack.unwrap();
    let mut bytes = std::fs::read(&pack).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&pack, bytes).unwrap();
    let mut lost = Vec::new();
    for n in 0..20 {
        let (name, target) = (format!("layers.{n}.weight"), format!("target-{n}"));
        let (code, said) = bench.json(&restore("latest:/model.safetensors", &[&name], &target));
        match code {
            0 => assert_eq!(loaded(&written(&bench, &said)), wanted(&all[2 * n..2 * n + 1])),
            _ => {
                assert_eq!((code, files(&bench.path(&target)).len()), (5, 0), "{said:#}");
                lost.push(name);
            }
        }
    }
    assert_eq!(lost.len(), 1, "{lost:?}");
}
