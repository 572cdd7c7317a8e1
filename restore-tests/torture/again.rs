//! Further backups of the same source, and restores over what stands there.

use super::tree::{self, attribute, stamp};
use super::walk::{assert_equal, differences, look};
use super::{Case, text};
use rustix::fs::{self, CWD, FileType, Mode};
use serde_json::Value;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;

/// Waits until the clock of the file system has gone on so far that nothing is too recent to be trusted.
fn settle(dir: &Path) {
    let made = |path: &Path| {
        std::fs::write(path, b"x").expect("file");
        let meta = path.metadata().expect("stat");
        let at = (meta.mtime(), meta.mtime_nsec());
        std::fs::remove_file(path).expect("removed");
        at.0 * 1000 + at.1 / 1_000_000
    };
    let probe = dir.join("clock-probe");
    let start = made(&probe);
    while made(&probe) < start + 200 {}
}

fn backup(case: &Case, more: &[&str]) -> Value {
    let source = case.text("source");
    case.bench.ok(&[&["backup", "--name", "s", &source], more].concat())
}

fn restore(case: &Case, more: &[&str]) -> Value {
    let target = case.text("target");
    case.bench.ok(&[&["restore", "latest", "--target", &target], more].concat())
}

#[test]
fn every_mode_keeps_the_same() {
    let case = Case::new();
    tree::build(&case.path("source"));
    settle(case.place.path());
    let before = look(&case.path("source"));
    let first = backup(&case, &[]);
    let second = backup(&case, &[]);
    assert_eq!(second["bytes_read"], 0, "{second:#}");
    assert_eq!(second["files_unchanged"], first["files"]);
    assert_eq!(second["bytes_new"], 0);
    let full = backup(&case, &["--mode", "full"]);
    assert_eq!(full["files_read"], first["files"]);
    assert_eq!(full["bytes_read"], first["bytes_read"]);
    assert_eq!(full["chunks_new"], 0, "{full:#}");
    let clone = backup(&case, &["--clone"]);
    assert_eq!(clone["bytes_read"], 0, "{clone:#}");
    let independent = backup(&case, &["--mode", "independent"]);
    assert_eq!(independent["files_read"], first["files"]);
    assert!(independent["chunks_new"].as_u64() > Some(20), "{independent:#}");
    let all = case.bench.ok(&["snapshots"]);
    for (n, snapshot) in all["snapshots"].as_array().expect("snapshots").iter().enumerate() {
        let target = case.path(&format!("target-{n}"));
        let id = snapshot["id"].as_str().expect("an id");
        case.bench.ok(&["restore", id, "--target", &text(&target)]);
        assert_equal(&before, &look(&target));
        std::fs::remove_dir_all(target).expect("removed");
    }
    case.bench.ok(&["verify", "--level", "content"]);
}

#[test]
fn only_what_differs_is_written_again() {
    let case = Case::new();
    tree::build(&case.path("source"));
    let before = look(&case.path("source"));
    backup(&case, &[]);
    let first = restore(&case, &[]);
    assert_equal(&before, &look(&case.path("target")));
    let same = restore(&case, &[]);
    assert_eq!((&same["bytes_written"], &same["files"]), (&Value::from(0), &first["files"]), "{same:#}");
    assert_equal(&before, &look(&case.path("target")));
    let again = restore(&case, &["--delete"]);
    assert_eq!((&again["bytes_written"], &again["deleted"]), (&Value::from(0), &Value::from(0)));
    assert!(again["files_same"].as_u64() > Some(40), "{again:#}");
    // One file is scribbled over, in the middle.
    let victim = case.path("target/content/noise-9000001");
    let mut bytes = std::fs::read(&victim).expect("read");
    bytes[5_000_000] ^= 1;
    std::fs::write(&victim, bytes).expect("write");
    let repaired = restore(&case, &[]);
    let written = repaired["bytes_written"].as_u64().expect("a number");
    assert!((1..=4 << 20).contains(&written), "{written}");
    assert_eq!(repaired["files_same"].as_u64().map(|n| n + 1), same["files_same"].as_u64());
    assert_equal(&before, &look(&case.path("target")));
}

#[test]
fn files_whose_content_stands_there_are_the_same_with_holes_too() {
    let case = Case::new();
    std::fs::create_dir(case.path("source")).expect("directory");
    tree::holey(&case.path("source/holes"), 64 << 20, &[(1 << 20, 5000), (40 << 20, 5000)]);
    std::fs::hard_link(case.path("source/holes"), case.path("source/holes-too")).expect("link");
    tree::holey(&case.path("source/hole"), 64 << 20, &[]);
    backup(&case, &[]);
    restore(&case, &[]);
    let inode = case.path("target/holes").metadata().expect("stat").ino();
    let again = restore(&case, &[]);
    assert_eq!(again["files_same"], 2, "{again:#}");
    assert_eq!(case.path("target/holes").metadata().expect("stat").ino(), inode, "was replaced for nothing");
    // Data where a hole belongs, in a file with other names: the replacement has the holes again.
    let before = look(&case.path("source"));
    std::fs::File::options()
        .write(true)
        .open(case.path("target/holes"))
        .and_then(|f| std::os::unix::fs::FileExt::write_all_at(&f, b"scribble", 20 << 20))
        .expect("written");
    restore(&case, &[]);
    assert_equal(&before, &look(&case.path("target")));
}

/// What stands in the target is of another type, at every name.
#[test]
fn other_types_in_the_way_are_replaced() {
    let case = Case::new();
    std::fs::create_dir_all(case.path("source")).expect("directory");
    let kinds = ["file", "dir", "link", "fifo", "hard"];
    let make = |path: &Path, kind: &str| match kind {
        "file" => std::fs::write(path, b"a file").expect("file"),
        "dir" => std::fs::create_dir(path).and_then(|()| std::fs::write(path.join("in"), b"in")).expect("directory"),
        "link" => symlink("/", path).expect("link"),
        "hard" => std::fs::hard_link(path.parent().expect("a parent").join("first"), path).expect("hard link"),
        _ => fs::mknodat(CWD, path, FileType::Fifo, Mode::RUSR, 0).expect("fifo"),
    };
    for side in ["source", "target"] {
        std::fs::create_dir_all(case.path(side)).expect("directory");
        std::fs::write(case.path(&format!("{side}/first")), side).expect("file");
        for was in kinds {
            for is in kinds {
                let kind = if side == "source" { is } else { was };
                make(&case.path(&format!("{side}/{was}-{is}")), kind);
            }
        }
    }
    let before = look(&case.path("source"));
    backup(&case, &[]);
    let target = case.text("target");
    // Without leave to delete, only a directory that may hold something is in the way.
    let (code, report) = case.bench.json(&["restore", "latest", "--target", &target]);
    assert_eq!((code, &report["errors_total"]), (3, &Value::from(4)), "{report:#}");
    for error in report["errors"].as_array().expect("errors") {
        assert!(error["path"].as_str().is_some_and(|p| p.starts_with("dir-")), "{error}");
        assert!(error["message"].as_str().is_some_and(|m| m.contains("--delete")), "{error}");
    }
    restore(&case, &["--delete"]);
    assert_equal(&before, &look(&case.path("target")));
}

#[test]
fn delete_removes_what_the_snapshot_does_not_have() {
    let case = Case::new();
    tree::build(&case.path("source"));
    let before = look(&case.path("source"));
    backup(&case, &[]);
    restore(&case, &[]);
    for name in tree::hard_names() {
        let dir = tree::below(&case.path("target/times"), &[&name[..name.len().min(200)], b"+"].concat());
        std::fs::create_dir_all(dir.join("deeper/and/deeper")).expect("directory");
        symlink("/etc", dir.join("deeper/link")).expect("link");
    }
    tree::deep(&case.path("target/deep-too"), 30, 250);
    std::fs::write(case.path("target/extra"), b"extra").expect("file");
    let report = restore(&case, &["--delete"]);
    assert_eq!(report["deleted"].as_u64(), Some(tree::hard_names().len() as u64 + 2));
    assert_equal(&before, &look(&case.path("target")));
    for (option, value) in [("--include", "*"), ("--exclude", "x")] {
        let target = case.text("target");
        let (code, _) = case.bench.json(&["restore", "latest", "--target", &target, "--delete", option, value]);
        assert_eq!(code, 2);
    }
}

/// `--delete` on a directory in which the backups themselves lie, or another disk is mounted.
#[test]
fn delete_keeps_repositories_and_other_file_systems() {
    let case = Case::new();
    let write = |path: &std::path::Path| {
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("directory");
        std::fs::write(path, path.as_os_str().as_encoded_bytes()).expect("file");
    };
    write(&case.path("source/home/file"));
    std::fs::create_dir(case.path("source/mnt")).expect("directory");
    backup(&case, &[]);
    let target = super::place();
    let regions = ["aside", "home/deep/region", "in/between/region"].map(|place| target.path().join(place));
    for copy in &regions {
        std::fs::create_dir_all(copy.parent().expect("a parent")).expect("directory");
        let done = std::process::Command::new("cp").arg("-a").arg(case.bench.region("a")).arg(copy).status();
        assert!(done.is_ok_and(|done| done.success()), "cp");
    }
    // Damage to the mark takes no protection away.
    std::fs::write(regions[0].join("region"), b"rot").expect("written");
    let disks = ["mnt", "disk/mounted"].map(|name| target.path().join(name));
    let _mounted = disks.each_ref().map(|disk| super::parts::Mounted::new(disk));
    disks.iter().for_each(|disk| write(&disk.join("precious")));
    write(&target.path().join("home/extra"));
    // Records of runs come with every run.
    let count = |dir: &std::path::Path| {
        crate::harness::files(dir).iter().filter(|path| !path.starts_with(dir.join("runs"))).count()
    };
    let before = count(&case.bench.region("a"));
    let text = target.path().display().to_string();
    let (code, report) = case.bench.json(&["restore", "latest", "--target", &text, "--delete"]);
    assert_eq!((code, report["errors_total"].as_u64()), (3, Some(5)), "{report:#}");
    for copy in &regions {
        assert_eq!(count(copy), before, "{}", copy.display());
    }
    assert!(disks.iter().all(|disk| disk.join("precious").is_file()), "{report:#}");
    assert!(!target.path().join("home/extra").exists() && target.path().join("home/file").is_file());
    let region = case.bench.region("a").display().to_string();
    for more in [&["--delete"][..], &[]] {
        let (code, report) = case.bench.json(&[&["restore", "latest", "--target", &region], more].concat());
        assert_eq!((code, count(&case.bench.region("a"))), (11, before), "{report:#}");
    }
}

#[test]
fn a_dry_run_creates_nothing() {
    let case = Case::new();
    tree::build(&case.path("source"));
    backup(&case, &[]);
    let dry = restore(&case, &["--dry-run"]);
    assert!(!case.path("target").exists());
    let real = restore(&case, &[]);
    for field in ["files", "directories", "other", "bytes"] {
        assert_eq!(dry[field], real[field], "{field}");
    }
}

/// Each way in which a file can change without its size and modification time showing it.
#[test]
fn every_change_is_noticed() {
    let case = Case::new();
    let source = case.path("source");
    std::fs::create_dir(&source).expect("directory");
    let names = ["same-size", "touched-back", "replaced", "renamed", "mode", "attribute", "acl", "owner", "untouched"];
    for name in names {
        std::fs::write(source.join(name), [b'0'; 1000]).expect("file");
        stamp(&source.join(name), (1_600_000_000, 5));
    }
    settle(case.place.path());
    backup(&case, &[]);
    let rewrite = |name: &str| {
        std::fs::write(source.join(name), [b'1'; 1000]).expect("file");
        stamp(&source.join(name), (1_600_000_000, 5));
    };
    std::fs::write(source.join("same-size"), [b'1'; 1000]).expect("file");
    rewrite("touched-back");
    rewrite("replaced-new");
    std::fs::rename(source.join("replaced-new"), source.join("replaced")).expect("rename");
    std::fs::rename(source.join("renamed"), source.join("renamed-now")).expect("rename");
    std::fs::set_permissions(source.join("mode"), std::fs::Permissions::from_mode(0o600)).expect("mode");
    attribute(&source.join("attribute"), "user.new", b"1");
    attribute(&source.join("acl"), "system.posix_acl_access", &tree::acl(4));
    std::os::unix::fs::chown(source.join("owner"), Some(77), None).expect("owner");
    let second = backup(&case, &[]);
    assert_eq!(second["files_unchanged"], 1, "{second:#}");
    let before = look(&source);
    restore(&case, &[]);
    assert_equal(&before, &look(&case.path("target")));
}

/// On a clone, change times and inodes say nothing: attributes are compared for themselves.
#[test]
fn a_clone_shows_changed_metadata_without_reading_content() {
    let case = Case::new();
    tree::build(&case.path("source"));
    settle(case.place.path());
    backup(&case, &[]);
    case.bench.ok(&["restore", "latest", "--target", &case.text("clone")]);
    attribute(&case.path("clone/attributes/some"), "user.text", b"another");
    attribute(&case.path("clone/content/noise-1"), "system.posix_acl_access", &tree::acl(4));
    std::os::unix::fs::chown(case.path("clone/content/noise-511"), Some(78), None).expect("owner");
    settle(case.place.path());
    let before = look(&case.path("clone"));
    assert!(differences(&look(&case.path("source")), &before).len() >= 3);
    std::fs::remove_dir_all(case.path("source")).expect("removed");
    std::fs::rename(case.path("clone"), case.path("source")).expect("renamed");
    let report = backup(&case, &["--clone"]);
    assert_eq!((&report["files_read"], &report["bytes_read"]), (&Value::from(0), &Value::from(0)), "{report:#}");
    restore(&case, &[]);
    assert_equal(&before, &look(&case.path("target")));
}

/// A file that changes right after it was read, within one tick of the clock and with the same size.
#[test]
fn a_change_within_the_clocks_grain_is_read_again() {
    let case = Case::new();
    let source = case.path("source");
    std::fs::create_dir(&source).expect("directory");
    for round in 0..5u8 {
        std::fs::write(source.join("busy"), [round; 2000]).expect("file");
        backup(&case, &[]);
        let meta = source.join("busy").metadata().expect("stat");
        std::fs::write(source.join("busy"), [round + 100; 2000]).expect("file");
        stamp(&source.join("busy"), (meta.mtime(), meta.mtime_nsec()));
        backup(&case, &[]);
        restore(&case, &[]);
        assert_eq!(std::fs::read(case.path("target/busy")).expect("read"), [round + 100; 2000]);
    }
}

/// Whatever a target directory gives to what is made in it, and whatever the process keeps from it.
#[test]
fn what_the_target_gives_to_new_files_is_not_kept() {
    let case = Case::new();
    tree::build(&case.path("source"));
    case.bench.ok(&["backup", &case.text("source")]);
    let before = look(&case.path("source"));
    for (number, (mode, list, umask)) in
        [(0o2770, true, "022"), (0o2777, false, "000"), (0o777, true, "077"), (0o700, false, "0137")].iter().enumerate()
    {
        let name = format!("target-{number}");
        std::fs::create_dir(case.path(&name)).expect("directory");
        std::os::unix::fs::chown(case.path(&name), Some(71), Some(72)).expect("owner");
        std::fs::set_permissions(case.path(&name), std::fs::Permissions::from_mode(*mode)).expect("mode");
        if *list {
            attribute(&case.path(&name), "system.posix_acl_default", &tree::acl(6));
        }
        let restore = case.bench.command(&["restore", "latest", "--target", &case.text(&name)]);
        let mut shell = std::process::Command::new("sh");
        shell.arg("-c").arg(format!("umask {umask} && exec \"$0\" \"$@\"")).arg(restore.get_program());
        shell.args(restore.get_args()).envs(restore.get_envs().filter_map(|(key, value)| Some((key, value?))));
        let output = shell.current_dir(case.place.path()).output().expect("it runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_equal(&before, &look(&case.path(&name)));
    }
}

/// A default ACL of three entries narrows most modes, and neither the one that is tried first nor the attributes show it.
#[test]
fn a_target_that_narrows_new_files_leaves_no_trace() {
    let case = Case::new();
    tree::build(&case.path("source"));
    for name in ["first", "second", "third"] {
        let path = case.path("source").join(name);
        std::fs::write(&path, name).expect("file");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).expect("mode");
    }
    case.bench.ok(&["backup", &case.text("source")]);
    let before = look(&case.path("source"));
    std::fs::create_dir(case.path("target")).expect("directory");
    let narrowed = std::process::Command::new("setfacl")
        .args(["-d", "-m", "u::rwx,g::---,o::---"])
        .arg(case.path("target"))
        .status()
        .expect("setfacl");
    assert!(narrowed.success());
    case.bench.ok(&["restore", "latest", "--target", &case.text("target")]);
    assert_equal(&before, &look(&case.path("target")));
}
