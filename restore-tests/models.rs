//! Files of tensors: known by their header, cut at their tensors, so that a tensor is stored once wherever it stands.

mod backups;
mod containers;
mod libraries;
mod stored;
mod sudden;
mod tensors;
mod trusted;
mod verbs;

use crate::harness::{Bench, assert_same, noise};
use crate::reader::python;
use holdfast::chunk::Layout;
use holdfast::model::format::{Found, HEADER_BYTES_MAX, read as read_model};
use serde_json::Value;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

/// Largest chunk of a tensor.
const P: usize = 1_032_192;

/// A tensor of bytes.
type Tensor = (String, Vec<u8>);

fn tensor(name: &str, seed: u64, len: usize) -> Tensor {
    (name.to_owned(), noise(seed, len))
}

/// What a file of these tensors is, in this order; blanks fill its header up to `header_bytes`.
fn file_of(tensors: &[Tensor], header_bytes: usize) -> Vec<u8> {
    let (mut at, mut entries) = (0, Vec::new());
    for (name, bytes) in tensors {
        let (begin, end) = (at, at + bytes.len());
        entries.push(format!(r#""{name}":{{"dtype":"U8","shape":[{}],"data_offsets":[{begin},{end}]}}"#, bytes.len()));
        at = end;
    }
    let mut header = format!("{{{}}}", entries.join(","));
    header.push_str(&" ".repeat(header_bytes.saturating_sub(header.len())));
    let mut file = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat();
    tensors.iter().for_each(|(_, bytes)| file.extend_from_slice(bytes));
    file
}

/// The bench's source, with one file in it.
fn source(bench: &Bench, bytes: &[u8]) -> String {
    let source = bench.path("source");
    let _ = std::fs::remove_dir_all(&source);
    std::fs::create_dir(&source).unwrap();
    std::fs::write(source.join("a.safetensors"), bytes).unwrap();
    source.display().to_string()
}

fn figure(report: &Value, name: &str) -> u64 {
    report[name].as_u64().unwrap_or_else(|| panic!("no {name}: {report:#}"))
}

/// Runs with `--json`, which must do well, and counts the bytes that were read of packs.
fn read_of_packs(bench: &Bench, args: &[&str]) -> (Value, u64) {
    let (inner, trace) = (bench.command(&[&["--json", "--quiet"], args].concat()), bench.path("trace"));
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-y", "-e", "trace=read,readv,pread64,preadv,preadv2,mmap,splice", "-o"]).arg(&trace);
    command.arg(inner.get_program()).args(inner.get_args()).current_dir(bench.dir.path());
    for (name, value) in inner.get_envs() {
        command.env(name, value.unwrap_or_default());
    }
    let out = command.output().expect("strace is needed");
    assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
    let said = String::from_utf8(out.stdout).unwrap();
    let (mut sum, mut begun) = (0, std::collections::HashSet::new());
    for line in std::fs::read_to_string(trace).unwrap().lines() {
        let process = line.split(' ').next().unwrap().to_owned();
        let of_pack = line.contains("/region-a/packs/") || line.contains(" resumed>") && begun.remove(&process);
        if of_pack && line.ends_with("<unfinished ...>") {
            begun.insert(process);
        } else if of_pack {
            assert!(!line.contains("mmap") && !line.contains("splice"), "not counted: {line}");
            sum += line.rsplit("= ").next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
        }
    }
    (serde_json::from_str(said.lines().next_back().unwrap()).unwrap(), sum)
}

/// Restores the latest snapshot and compares it with the source.
fn comes_back(bench: &Bench) {
    let target = bench.path("target");
    let _ = std::fs::remove_dir_all(&target);
    bench.ok(&["restore", "latest", "--target", target.to_str().unwrap()]);
    assert_same(&bench.path("source"), &target);
}

/// Twelve tensors, of lengths around every bound; all together about 20 MB.
fn tensors() -> Vec<Tensor> {
    let lens = [300, 0, 1000, 70_000, 2 * P, 4 * P, 4 * P + 1, 8 * P - 1, 5000, 0, 1023, 900_000];
    lens.iter().enumerate().map(|(n, len)| tensor(&format!("layer.{n}"), n as u64, *len)).collect()
}

#[test]
fn tensors_in_another_order_or_in_other_files_are_stored_once() {
    let bench = Bench::with_key(&["a"]);
    let first = bench.ok(&["backup", &source(&bench, &file_of(&tensors(), 0))]);
    assert!(figure(&first, "bytes_new") > 19_000_000, "{first:#}");
    comes_back(&bench);
    let mut other = tensors();
    other.reverse();
    other.swap(2, 5);
    let reordered = bench.ok(&["backup", &source(&bench, &file_of(&other, 0))]);
    assert!(figure(&reordered, "bytes_new") < 10_000, "{reordered:#}");
    comes_back(&bench);
    // Named otherwise, in two files, one of them known by what is in it alone.
    let (left, right) = other.split_at(5);
    let source = source(&bench, &file_of(left, 0));
    std::fs::write(Path::new(&source).join("weights.bin"), file_of(right, 4000)).unwrap();
    let sharded = bench.ok(&["backup", &source]);
    assert!(figure(&sharded, "bytes_new") < 15_000, "{sharded:#}");
    comes_back(&bench);
}

#[test]
fn a_changed_tensor_stores_about_itself() {
    let bench = Bench::with_key(&["a"]);
    bench.ok(&["backup", &source(&bench, &file_of(&tensors(), 0))]);
    let mut changed = tensors();
    changed[4].1 = noise(99, changed[4].1.len());
    let again = bench.ok(&["backup", &source(&bench, &file_of(&changed, 0))]);
    let new = figure(&again, "bytes_new");
    assert!((2 * P as u64..2 * P as u64 + 3000).contains(&new), "{again:#}");
    // A longer one moves those behind it, which stay what they are.
    changed[3].1 = noise(98, 70_001);
    let moved = bench.ok(&["backup", &source(&bench, &file_of(&changed, 0))]);
    assert!((70_001..74_000).contains(&figure(&moved, "bytes_new")), "{moved:#}");
    comes_back(&bench);
}

#[test]
fn a_header_as_long_as_allowed_is_read_and_a_longer_one_is_not() {
    let bench = Bench::with_key(&["a"]);
    // Shorter than any chunk of a file that is not cut by its tensors.
    let tensors: Vec<Tensor> = (0..8).map(|n| tensor(&n.to_string(), n, 200_000)).collect();
    bench.ok(&["backup", &source(&bench, &file_of(&tensors, 0))]);
    let at = bench.ok(&["backup", &source(&bench, &file_of(&tensors, HEADER_BYTES_MAX))]);
    assert!(figure(&at, "bytes_new") < HEADER_BYTES_MAX as u64 + 1000, "{at:#}");
    comes_back(&bench);
    let above = bench.ok(&["backup", &source(&bench, &file_of(&tensors, HEADER_BYTES_MAX + 8))]);
    assert!(figure(&above, "bytes_new") > 1_600_000, "{above:#}");
    comes_back(&bench);
}

/// A file whose header says something else than the file is, is cut like any other, without a word.
#[test]
fn headers_that_lie_are_stored_as_bytes() {
    let bench = Bench::with_key(&["a"]);
    let good = file_of(&tensors()[..5], 0);
    let with_length = |len: u64| [&len.to_le_bytes()[..], &good[8..]].concat();
    let replaced = |from: &str, to: &str| {
        let header_bytes = u64::from_le_bytes(*good.first_chunk().unwrap()) as usize;
        let (header, data) = good[8..].split_at(header_bytes);
        let before = String::from_utf8(header.to_vec()).unwrap();
        let header = before.replacen(from, to, 1);
        assert_ne!(header, before, "{from}");
        [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat()
    };
    let lies = [
        ("a length of 2^64 - 1", with_length(u64::MAX)),
        ("a length of 4 GiB", with_length(4 << 30)),
        ("a length behind the end", with_length(good.len() as u64)),
        ("a length of nothing", with_length(0)),
        ("a length of one byte", with_length(1)),
        ("a shorter length", with_length(u64::from_le_bytes(*good.first_chunk().unwrap()) - 1)),
        ("one byte less", good[..good.len() - 1].to_vec()),
        ("one byte more", [&good[..], b"x"].concat()),
        ("a name twice", replaced("layer.1", "layer.2")),
        ("an overlap", replaced("[300,1300]", "[299,1299]")),
        ("an offset behind everything", replaced("[300,1300]", "[300,18446744073709551615]")),
        ("a shape of another length", replaced("\"shape\":[300]", "\"shape\":[301]")),
        ("a JSON bomb", replaced("{\"layer.0\"", &format!("{{\"x\":{}", "[".repeat(2_000_000)))),
    ];
    for (what, bytes) in lies {
        let source = source(&bench, &bytes);
        let done = bench.ok(&["backup", &source]);
        assert_eq!(done["errors_total"], 0, "{what}: {done:#}");
        comes_back(&bench);
    }
}

#[test]
fn holes_within_tensors_stay_holes() {
    let bench = Bench::with_key(&["a"]);
    let mut tensors = vec![tensor("a", 1, 1 << 20), tensor("b", 2, 12 * P)];
    let header_bytes = 4096 - 8;
    bench.ok(&["backup", &source(&bench, &file_of(&tensors, header_bytes))]);
    // The same with nothing in some pieces of the second tensor, not from begin to end: what lies in whole pieces is known.
    let hole = 5 * P + (16 << 10)..7 * P + (16 << 10);
    tensors[1].1[hole.clone()].fill(0);
    let path = source(&bench, b"");
    let file = std::fs::File::create(Path::new(&path).join("a.safetensors")).unwrap();
    let sparse = file_of(&tensors, header_bytes);
    let (from, to) = (4096 + (1 << 20) + hole.start, 4096 + (1 << 20) + hole.end);
    file.write_all_at(&sparse[..from], 0).unwrap();
    file.write_all_at(&sparse[to..], to as u64).unwrap();
    let done = bench.ok(&["backup", &path]);
    assert!(figure(&done, "bytes_new") < P as u64 + 3000, "{done:#}");
    comes_back(&bench);
}

/// Where a known file is cut. Chunks are found again only by programs that cut alike: these numbers stay.
#[test]
fn golden_cut_points_of_tensors() {
    let file = file_of(&tensors(), 0);
    let size = file.len() as u64;
    let Found::Model(model) = read_model(&file, size).unwrap() else { panic!("a model is not known") };
    let layout = Layout::of(&model.sections(), size).unwrap();
    let (mut at, mut lens) = (0, Vec::new());
    while let Some(len) = layout.next(at as u64, file.len() - at, true) {
        lens.push(len);
        at += len;
    }
    assert_eq!(at, file.len());
    let golden: [&[usize]; 5] =
        [&[874, 1300, 70_000], &[P; 6], &[P, P, P, P, 1], &[P; 7], &[P - 1, 5000, 1023, 900_000]];
    assert_eq!(lens, golden.concat());
}

/// The second reader knows nothing of tensors, and the format says that it need not.
#[test]
fn the_second_reader_restores_tensors() {
    let bench = Bench::empty(&["a"]);
    bench.ok(&["init", "--recovery-key-out", "recovery"]);
    bench.ok(&["backup", &source(&bench, &file_of(&tensors(), 0))]);
    let target = bench.path("back");
    let mut command: Command = python();
    command.args(["-m", "holdfast_reader", "--region"]).arg(bench.region("a"));
    command.arg("--recovery-key-file").arg(bench.path("recovery"));
    let out = command.args(["--snapshot", "latest", "--restore"]).arg(&target).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    assert_same(&bench.path("source"), &target);
}
