//! The walk goes ahead of the key, and what did not change is taken over as it stands in the parent's pages.

use crate::harness::{Bench, assert_same, files, noise, settle, small_tree};
use serde_json::Value;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

fn backup(bench: &Bench) -> Value {
    bench.ok(&["--copies-min", "1", "backup", "--name", "s", "source"])
}

#[test]
fn a_wrong_passphrase_is_all_that_is_said() {
    let bench = Bench::new(&["a"]);
    small_tree(&bench.path("source"));
    let (objects, state) = (bench.objects("a"), files(&bench.path("state")));
    for source in ["source", "nowhere"] {
        let mut command = bench.command(&["backup", "--name", "s", source]);
        let output = command.env("HOLDFAST_PASSPHRASE", "a wrong one").output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(12), "{said}");
        assert!(said.contains("passphrase") && !said.contains(source), "{said}");
    }
    assert_eq!((bench.objects("a"), files(&bench.path("state"))), (objects, state), "something was written");
    // With the right one it is the source that is wrong, which is said once.
    let (code, output) = bench.run(&["backup", "--name", "s", "nowhere"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(code == 1 && said.matches("nowhere").count() == 1, "{code}: {said}");
    backup(&bench);
}

#[test]
fn the_local_index_is_left_out_at_the_first_run_too() {
    let bench = Bench::with_key(&["a"]);
    std::fs::write(bench.path("file"), noise(1, 100_000)).unwrap();
    let target = tempfile::tempdir().unwrap();
    for n in 0..2 {
        bench.ok(&["backup", "--name", "all", "."]);
        let to = target.path().join(n.to_string());
        bench.ok(&["restore", "latest", "--target", to.to_str().unwrap()]);
        assert!(to.join("file").exists() && to.join("state").is_dir());
        let inside = files(&to);
        let strange = |path: &&std::path::PathBuf| {
            let text = path.to_string_lossy();
            text.contains("/state/index-") || text.contains("/region-a/")
        };
        assert_eq!(inside.iter().find(strange), None);
    }
}

#[test]
fn only_what_changed_is_read_and_all_that_changed_is_stored() {
    let bench = Bench::with_key(&["a"]);
    let source = bench.path("source");
    small_tree(&source);
    for dir in 0..30u64 {
        let dir_path = source.join(format!("many/{dir:02}"));
        std::fs::create_dir_all(&dir_path).unwrap();
        (0..20).for_each(|n| std::fs::write(dir_path.join(format!("{n}")), noise(n, 700)).unwrap());
    }
    settle(bench.dir.path());
    let first = backup(&bench);
    let again = backup(&bench);
    assert_eq!(
        (&again["files_read"], &again["chunks_new"], &again["files_unchanged"]),
        (&0.into(), &0.into(), &first["files"])
    );
    assert_eq!((&again["bytes"], &again["directories"]), (&first["bytes"], &first["directories"]));

    let at = |path: &str| source.join(path);
    std::fs::set_permissions(at("many/03/7"), std::fs::Permissions::from_mode(0o640)).unwrap();
    std::fs::set_permissions(at("many/04"), std::fs::Permissions::from_mode(0o700)).unwrap();
    std::fs::write(at("many/05/10"), noise(77, 700)).unwrap();
    std::fs::write(at("many/06/new"), noise(78, 700)).unwrap();
    std::fs::remove_file(at("many/07/0")).unwrap();
    std::fs::remove_file(at("many/08/3")).unwrap();
    std::fs::create_dir(at("many/08/3")).unwrap();
    std::fs::hard_link(at("many/09/5"), at("many/10/link")).unwrap();
    std::fs::rename(at("many/11"), at("many/99")).unwrap();
    std::fs::remove_dir_all(at("many/12")).unwrap();
    std::fs::write(at("many/12"), b"a file now").unwrap();
    let changed = backup(&bench);
    // Mode, content, new, linked twice, twenty below a directory of a new name, and the file in the place of one.
    assert_eq!(changed["files_read"], 26, "{changed:#}");

    for _ in 0..2 {
        let to = bench.path("restored");
        bench.ok(&["restore", "latest", "--target", "restored"]);
        assert_same(&source, &to);
        for path in ["many/03/7", "many/04", "many/03/6", "many/09/5", "many/99/1", "docs/note-1", "docs"] {
            let (a, b) = (at(path).metadata().unwrap(), to.join(path).metadata().unwrap());
            assert_eq!(
                (a.mode(), a.mtime(), a.mtime_nsec(), a.nlink()),
                (b.mode(), b.mtime(), b.mtime_nsec(), b.nlink()),
                "{path}"
            );
        }
        std::fs::remove_dir_all(&to).unwrap();
        settle(bench.dir.path());
        // What was taken over is taken over again.
        backup(&bench);
    }
    let (code, value) = bench.json(&["verify", "--level", "content"]);
    assert_eq!(code, 0, "{value:#}");
}

fn packs(bench: &Bench, region: &str) -> Vec<std::path::PathBuf> {
    let mut found = files(&bench.region(region).join("packs"));
    found.sort_by_key(|path| path.metadata().map(|meta| meta.len()).unwrap_or_default());
    found
}

#[test]
fn a_page_that_one_region_lost_is_stored_again() {
    let bench = Bench::with_key(&["a", "b"]);
    let source = bench.path("source");
    std::fs::create_dir_all(source.join("below")).unwrap();
    (0..9).for_each(|n| std::fs::write(source.join(format!("below/{n}")), noise(n, 90_000)).unwrap());
    settle(bench.dir.path());
    backup(&bench);
    // The smaller of the two packs holds the pages.
    let [pages, _data] = packs(&bench, "a").try_into().unwrap();
    std::fs::remove_file(&pages).unwrap();
    let (_, value) = bench.json(&["--copies-min", "1", "backup", "--name", "s", "source"]);
    assert_eq!(value["files_read"], 0, "{value:#}");
    assert!(value["chunks_new"].as_u64().unwrap() >= 2, "{value:#}");
    restored(&bench, "a", &source);
    restored(&bench, "b", &source);
}

fn restored(bench: &Bench, region: &'static str, source: &Path) {
    let to = bench.path(&format!("from-{region}"));
    let (code, value) = bench.json_at(&[region], &["restore", "latest", "--target", to.to_str().unwrap()]);
    assert_eq!(code, 0, "{value:#}");
    assert_same(source, &to);
}

#[test]
fn a_page_that_every_region_lost_has_its_files_read_again() {
    let bench = Bench::with_key(&["a"]);
    let source = bench.path("source");
    small_tree(&source);
    settle(bench.dir.path());
    backup(&bench);
    std::fs::remove_file(&packs(&bench, "a")[0]).unwrap();
    let (_, value) = bench.json(&["backup", "--name", "s", "source"]);
    assert!(value["files_read"].as_u64().unwrap() > 40, "{value:#}");
    restored(&bench, "a", &source);
}
