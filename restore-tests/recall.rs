//! What this machine remembers of snapshots spares reading them, and decides nothing.

use crate::harness::{Bench, files, small_tree};
use std::fs::File;
use std::path::{Path, PathBuf};

fn made(snapshots: usize) -> Bench {
    let bench = Bench::with_key(&["a", "b"]);
    small_tree(&bench.path("source"));
    for n in 0..snapshots {
        std::fs::write(bench.path("source/counter"), n.to_string()).unwrap();
        bench.ok(&["backup", "source"]);
    }
    bench
}

fn newest(bench: &Bench) -> String {
    let shown = bench.ok(&["snapshots"]);
    let last = shown["snapshots"].as_array().unwrap().last();
    last.unwrap()["id"].as_str().unwrap().to_owned()
}

fn outcomes(bench: &Bench, region: &str) -> Vec<PathBuf> {
    let names = bench.objects(region).into_iter().filter(|name| name.starts_with("snapshots/"));
    names.map(|name| bench.region(region).join(name)).collect()
}

/// Spoils a file in a way that no listing shows.
fn spoil_unseen(path: &Path) {
    let was = std::fs::metadata(path).unwrap();
    std::fs::write(path, vec![7; was.len() as usize]).unwrap();
    File::options().write(true).open(path).unwrap().set_modified(was.modified().unwrap()).unwrap();
}

fn spoil_all(bench: &Bench) {
    for region in ["a", "b"] {
        outcomes(bench, region).iter().for_each(|path| spoil_unseen(path));
    }
}

fn remembered(bench: &Bench) -> PathBuf {
    let mut found = files(&bench.path("state"));
    found.retain(|path| path.ends_with("about-snapshots"));
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

/// Nothing is read again that is listed as it was; whoever looks for damage reads everything, and from then on so does
/// the next backup.
#[test]
fn what_is_listed_unchanged_is_not_read_again_until_verify_looks() {
    let bench = made(3);
    let ids: Vec<String> =
        bench.ok(&["snapshots"])["snapshots"].as_array().unwrap().iter().map(|s| s["id"].to_string()).collect();
    spoil_all(&bench);
    let next = bench.ok(&["backup", "source"]);
    assert!(ids.contains(&next["parent"].to_string()), "{next:#} {ids:?}");
    let (code, verified) = bench.json(&["verify"]);
    assert_eq!(code, 5, "{verified:#}");
    let (_, after) = bench.json(&["backup", "source"]);
    assert_eq!(after["parent"], next["snapshot"], "{after:#}");
    assert!(after["findings"].as_array().unwrap().len() >= 6, "{after:#}");
}

/// A change that a listing shows is read, and named.
#[test]
fn what_is_listed_otherwise_is_read() {
    let bench = made(3);
    let spoilt = outcomes(&bench, "a").remove(1);
    std::fs::write(&spoilt, vec![7; std::fs::metadata(&spoilt).unwrap().len() as usize]).unwrap();
    let (_, after) = bench.json(&["backup", "source"]);
    let name = spoilt.file_name().unwrap().to_str().unwrap();
    assert!(after["findings"].to_string().contains(name), "{after:#}");
    // Damage is not forgotten for having been told once.
    let (_, again) = bench.json(&["backup", "source"]);
    assert!(again["findings"].to_string().contains(name), "{again:#}");
}

/// Under another configuration, with other writers perhaps, everything is verified anew.
#[test]
fn another_configuration_remembers_nothing() {
    let bench = made(2);
    bench.ok(&["key", "add", "--new-key-file", "more"]);
    spoil_all(&bench);
    let (_, after) = bench.json(&["backup", "source"]);
    assert!(after["findings"].as_array().unwrap().len() >= 4, "{after:#}");
}

/// Whatever happens to the file, a backup finds what the regions show.
#[test]
fn a_spoilt_file_is_passed_over() {
    let bench = made(2);
    let file = remembered(&bench);
    let good = std::fs::read(&file).unwrap();
    let cuts = [0, 1, 8, 39, 40, 41, 55, 56, good.len() / 2, good.len() - 1];
    let cut = |n: usize| good[..n].to_vec();
    let flip = |n: usize| {
        let mut bytes = good.clone();
        bytes[n] ^= 1;
        bytes
    };
    let longer = [&good[..], &[0]].concat();
    let flips = (0..good.len()).step_by(good.len() / 12).chain([good.len() - 1]).map(flip);
    for bytes in cuts.into_iter().map(cut).chain(flips).chain([longer]) {
        let newest = serde_json::json!(newest(&bench));
        std::fs::write(&file, bytes).unwrap();
        let next = bench.ok(&["backup", "source"]);
        assert_eq!(next["parent"], newest, "{next:#}");
        assert_eq!(next["findings"], serde_json::json!([]));
    }
}

/// Markers are remembered too: what was forgotten stays so, and what loses its markers everywhere comes back.
#[test]
fn a_marker_counts_while_it_is_listed() {
    let bench = made(3);
    let gone = newest(&bench);
    bench.ok(&["forget", &gone]);
    for _ in 0..2 {
        let next = bench.ok(&["backup", "source"]);
        assert_ne!(next["parent"], serde_json::json!(gone), "{next:#}");
        bench.ok(&["forget", next["snapshot"].as_str().unwrap()]);
    }
    for region in ["a", "b"] {
        std::fs::remove_dir_all(bench.region(region).join("forgotten")).unwrap();
    }
    let visible = bench.ok(&["snapshots"])["snapshots"].as_array().unwrap().len();
    assert_eq!(visible, 5);
    let newest = newest(&bench);
    assert_eq!(bench.ok(&["backup", "source"])["parent"], serde_json::json!(newest));
}
