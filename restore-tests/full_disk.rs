//! Disks that fill up: a small tmpfs as one region, as all of them, and as the target of a restore.

use crate::harness::{Bench, assert_same, files, noise};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A tmpfs of a few MiB, unmounted at the end whatever happened.
struct Small {
    at: PathBuf,
}

impl Small {
    fn mount(at: PathBuf, mib: usize) -> Small {
        std::fs::create_dir_all(&at).unwrap();
        let options = format!("size={mib}m,mode=755");
        let done = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "small"]).arg(&at).status();
        assert!(done.is_ok_and(|s| s.success()), "mount is needed, and the right to use it");
        Small { at }
    }

    fn grow(&self, mib: usize) {
        let options = format!("remount,size={mib}m");
        let done = Command::new("mount").args(["-o", &options]).arg(&self.at).status();
        assert!(done.is_ok_and(|s| s.success()), "remount");
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // Lazily: nothing that still holds a file there keeps the mount in the tree.
        let _ = Command::new("umount").arg("-l").arg(&self.at).status();
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// `mib` files of 1 MiB that do not compress.
fn fill(dir: &Path, seed: u64, mib: u64) {
    std::fs::create_dir_all(dir).unwrap();
    for n in 0..mib {
        std::fs::write(dir.join(format!("file-{n}")), noise(seed + n, 1 << 20)).unwrap();
    }
}

/// A bench with a snapshot of a small source, its regions of these sizes (0: not limited), and a bigger source.
struct Case {
    bench: Bench,
    disks: Vec<Small>,
    earlier: PathBuf,
    sid: String,
    source: PathBuf,
}

fn case(sizes: &[usize]) -> Case {
    let mut bench = Bench::empty(&["a", "b"]);
    bench.make_key();
    let limited = bench.regions.iter().zip(sizes).filter(|(_, mib)| **mib > 0);
    let disks = limited.map(|(region, mib)| Small::mount(bench.region(region), *mib)).collect();
    bench.ok(&["init", "--no-recovery-key"]);
    let (earlier, source) = (bench.path("earlier"), bench.path("source"));
    fill(&earlier, 1, 1);
    fill(&source, 100, 12);
    let sid = bench.ok(&["backup", text(&earlier)])["snapshot"].as_str().unwrap().to_owned();
    Case { bench, disks, earlier, sid, source }
}

impl Case {
    fn restores(&self, sid: &str, source: &Path) {
        let target = self.bench.path(&format!("target-{sid}"));
        self.bench.ok(&["restore", sid, "--target", text(&target)]);
        assert_same(source, &target);
        std::fs::remove_dir_all(target).unwrap();
    }

    /// Every region resolves on its own whatever it shows.
    fn complete_alone(&self) {
        for region in &self.bench.regions {
            let (code, value) = self.bench.json_at(&[*region], &["verify", "--level", "content"]);
            assert_eq!(code, 0, "region {region}: {value:#}");
        }
    }

    /// No half-written object stays on a disk that is full already.
    fn nothing_staged(&self) {
        for region in &self.bench.regions {
            let staged: Vec<String> = self.bench.objects(region).into_iter().filter(|o| o.contains('#')).collect();
            assert!(staged.is_empty(), "region {region}: {staged:?}");
        }
    }

    fn completes(&self) {
        let again = self.bench.ok(&["backup", text(&self.source)]);
        assert_eq!(again["regions"], serde_json::json!(["a", "b"]));
        self.bench.ok(&["verify", "--level", "content"]);
        self.complete_alone();
        self.restores(again["snapshot"].as_str().unwrap(), &self.source);
        self.restores(&self.sid, &self.earlier);
    }
}

#[test]
fn one_full_region_is_behind_and_is_brought_up_later() {
    let case = case(&[0, 6]);
    let args = ["--copies-min", "1", "backup", text(&case.source)];
    let (code, value) = case.bench.json(&args);
    assert_eq!(code, 4, "{value:#}");
    assert_eq!(value["regions"], serde_json::json!(["a"]));
    assert_eq!(value["behind"][0]["region"], "b");
    let why = value["behind"][0]["why"].as_str().unwrap();
    assert!(why.contains("region b") && why.contains("no space") && why.contains("free or add space"), "{why}");
    case.complete_alone();
    case.nothing_staged();
    case.restores(value["snapshot"].as_str().unwrap(), &case.source);
    // Still full: the next run says so again, and the bytes that are there already are not stored a second time.
    let (code, value) = case.bench.json(&args);
    assert_eq!((code, value["behind"][0]["region"].as_str()), (4, Some("b")), "{value:#}");
    assert!(value["bytes_stored"].as_u64() < Some(1 << 20), "{value:#}");
    case.complete_alone();
    case.disks[0].grow(64);
    let value = case.bench.ok(&args);
    // A pack that fitted may be there already, depending on how the workers shared the source.
    assert!(value["caught_up"]["bytes"].as_u64() > Some(5 << 20), "{value:#}");
    case.completes();
}

#[test]
fn all_regions_full_fails_and_spares_what_was_there() {
    let case = case(&[6, 6]);
    let bigger = case.bench.path("bigger");
    // Several packs one after another: the first failure comes while others are still being filled.
    fill(&bigger, 500, 90);
    for source in [&case.source, &bigger] {
        let (code, value) = case.bench.json(&["backup", text(source)]);
        assert_eq!(code, 1, "{value:#}");
        assert_eq!(value["error"]["kind"], "full", "{value:#}");
        let said = value.to_string();
        assert!(said.contains("no space") && said.contains("region "), "{said}");
        case.nothing_staged();
        case.complete_alone();
    }
    case.restores(&case.sid, &case.earlier);
    case.disks.iter().for_each(|disk| disk.grow(64));
    case.completes();
}

#[test]
fn a_region_that_fills_up_where_two_copies_are_wanted_fails_the_run_and_keeps_the_other_copy() {
    let case = case(&[6, 0]);
    let (code, value) = case.bench.json(&["backup", text(&case.source)]);
    assert_eq!(code, 1, "{value:#}");
    assert_eq!(value["regions"], serde_json::json!(["b"]), "{value:#}");
    assert_eq!(value["behind"][0]["region"], "a", "{value:#}");
    case.complete_alone();
    case.restores(value["snapshot"].as_str().unwrap(), &case.source);
    case.disks[0].grow(64);
    case.completes();
}

#[test]
fn a_full_target_ends_the_restore_with_its_name_and_leaves_no_false_file() {
    let case = case(&[0, 0]);
    let sid = case.bench.ok(&["backup", text(&case.source)])["snapshot"].as_str().unwrap().to_owned();
    let disk = Small::mount(case.bench.path("small"), 5);
    let target = disk.at.join("target");
    let args = ["restore", &sid, "--target", text(&target)];
    let (code, value) = case.bench.json(&args);
    assert_eq!(code, 3, "{value:#}");
    assert_eq!(value["lost"], 0, "{value:#}");
    let errors = value["errors"].as_array().unwrap();
    assert_eq!(errors.len() as u64, value["errors_total"].as_u64().unwrap());
    assert!(errors.iter().all(|e| e["message"].as_str().unwrap().to_lowercase().contains("no space")), "{value:#}");
    let there = files(&target);
    assert_eq!(there.len() + errors.len(), files(&case.source).len(), "{there:?} {value:#}");
    for file in there {
        let origin = case.source.join(file.strip_prefix(&target).unwrap());
        assert!(std::fs::read(&file).unwrap() == std::fs::read(origin).unwrap(), "{}", file.display());
    }
    case.complete_alone();
    disk.grow(64);
    case.bench.ok(&args);
    assert_same(&case.source, &target);
}
