//! Sources that change while they are read. The writers are bounded by their number of rounds and end with the run.

use super::walk::look;
use super::{Case, text};
use crate::harness::noise;
use serde_json::Value;
use std::os::unix::fs::{FileExt, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

/// Most rounds of a writer.
const ROUNDS_MAX: u64 = 30_000_000;

/// Backs up while `change` is called again and again.
fn while_changing(case: &Case, more: &[&str], change: impl Fn(u64) + Sync) -> (i32, Value) {
    let (begun, over) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..ROUNDS_MAX {
                change(round);
                begun.store(true, Ordering::Release);
                if over.load(Ordering::Acquire) {
                    return;
                }
            }
        });
        while !begun.load(Ordering::Acquire) {
            std::thread::yield_now();
        }
        let source = case.text("source");
        let done = case.bench.json(&[&["backup", &source], more].concat());
        over.store(true, Ordering::Release);
        done
    })
}

/// What could not be read is named and counted, and shows in the exit code; the snapshot is there.
fn check(case: &Case, (code, report): &(i32, Value)) {
    let errors = report["errors"].as_array().expect("a report");
    assert_eq!(report["errors_total"].as_u64(), Some(errors.len() as u64), "{report:#}");
    assert_eq!(*code, if errors.is_empty() { 0 } else { 3 }, "{report:#}");
    for error in errors {
        assert!(error["path"].as_str().is_some_and(|p| p.starts_with(&case.text("source"))), "{error}");
        assert!(["vanished", "changed"].contains(&error["kind"].as_str().expect("a kind")), "{error}");
    }
    let target = super::place();
    case.bench.ok(&["restore", "latest", "--target", &text(target.path())]);
    assert!(!look(target.path()).is_empty());
    case.bench.ok(&["verify", "--level", "content"]);
}

fn source(case: &Case) -> std::path::PathBuf {
    let source = case.path("source");
    std::fs::create_dir(&source).expect("directory");
    source
}

#[test]
fn a_file_that_never_stands_still_is_noted() {
    let case = Case::new();
    let source = source(&case);
    std::fs::write(source.join("big"), noise(1, 40 << 20)).expect("file");
    std::fs::write(source.join("still"), b"still").expect("file");
    let file = std::fs::File::options().write(true).open(source.join("big")).expect("open");
    let done = while_changing(&case, &[], |round| {
        file.write_all_at(&round.to_le_bytes(), (round % 5_000_000) * 8).expect("write");
    });
    assert_eq!(done.0, 0, "{:#}", done.1);
    let changed = done.1["changed"].as_array().expect("a list");
    assert_eq!(changed, &[Value::from(text(&source.join("big")))], "{:#}", done.1);
    // Read three times.
    assert!(done.1["bytes_read"].as_u64() >= Some(120 << 20));
    check(&case, &done);
    // It is read again, although nothing changes any more.
    let again = case.bench.ok(&["backup", &text(&source)]);
    assert!(again["bytes_read"].as_u64() >= Some(40 << 20), "{again:#}");
    let target = super::place();
    case.bench.ok(&["restore", "latest", "--target", &text(target.path())]);
    crate::harness::assert_same(&source, target.path());
}

/// As a log is that is copied and truncated. Several workers have its blocks in hand when it ends before them: whoever is the last to
/// find that reads it anew.
#[test]
fn a_large_file_that_is_truncated_and_written_anew_while_it_is_read() {
    let case = Case::new();
    let path = source(&case).join("log");
    let content = noise(3, 40 << 20);
    std::fs::write(&path, &content).expect("file");
    let file = std::fs::File::options().write(true).open(&path).expect("open");
    // Whole for most of the time: a file that is small when it is found is one worker's.
    let change = |round: u64| {
        if round.is_multiple_of(50_000) {
            file.set_len(0).expect("truncate");
            file.write_all_at(&content, 0).expect("write");
        }
        file.metadata().expect("metadata");
    };
    // Held up in its reading, one of them comes when the others are through with what there was.
    for _ in 0..12 {
        let done = while_changing(&case, &["--limit-read", "300MiB/s"], change);
        assert!([0, 3].contains(&done.0), "{:#}", done.1);
    }
    check(&case, &while_changing(&case, &[], change));
}

#[test]
fn a_file_that_grows_and_shrinks_while_it_is_read() {
    let case = Case::new();
    let source = source(&case);
    for (name, most) in [("big", 30 << 20), ("small", 400_000), ("sparse", 60 << 20)] {
        std::fs::write(source.join(name), noise(2, 300_000)).expect("file");
        let file = std::fs::File::options().write(true).open(source.join(name)).expect("open");
        for mode in ["incremental", "full"] {
            let done = while_changing(&case, &["--mode", mode], |round| {
                let len = round.wrapping_mul(7_654_321) % most;
                file.set_len(len).expect("length");
                file.write_all_at(b"island", len / 2).expect("write");
            });
            check(&case, &done);
        }
    }
}

#[test]
fn a_file_that_is_replaced_by_something_else_while_it_is_read() {
    let case = Case::new();
    let source = source(&case);
    let made = case.path("made");
    for size in [100usize, 200_000, 5_000_000] {
        let bytes = noise(size as u64, size);
        let replace = |round: u64| {
            let name = source.join(format!("name-{}", round % 50));
            // Into its place at one stroke; a directory cannot take the place of a file so.
            let clear = |path: &Path| drop(std::fs::remove_dir_all(path).or_else(|_| std::fs::remove_file(path)));
            clear(&made);
            match round % 5 {
                0 => rustix::fs::mknodat(rustix::fs::CWD, &made, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0)
                    .expect("fifo"),
                1 => symlink("/dev/zero", &made).expect("link"),
                2 => std::fs::create_dir(&made).expect("directory"),
                _ => std::fs::write(&made, &bytes).expect("file"),
            }
            if std::fs::rename(&made, &name).is_err() {
                clear(&name);
                std::fs::rename(&made, &name).expect("renamed");
            }
        };
        let done = while_changing(&case, &["--mode", "full"], replace);
        check(&case, &done);
    }
}

/// Names come and go while the directory is listed: one may be listed twice, or be gone when it is looked at.
#[test]
fn a_directory_that_changes_while_it_is_listed() {
    let case = Case::new();
    let source = source(&case);
    for n in 0..5000 {
        std::fs::write(source.join(format!("stays-{n}")), n.to_string()).expect("file");
    }
    for _ in 0..4 {
        let done = while_changing(&case, &["--mode", "full"], |round| {
            let name = source.join(format!("goes-{}", round % 300));
            match round / 300 % 2 {
                0 => std::fs::write(&name, b"here").expect("file"),
                _ => std::fs::remove_file(&name).expect("removed"),
            }
        });
        check(&case, &done);
        let files = done.1["files"].as_u64().expect("a number");
        assert!((5000..=5300).contains(&files), "{files}");
        for n in 0..300 {
            drop(std::fs::remove_file(source.join(format!("goes-{n}"))));
        }
    }
}

/// Runs the program without privileges.
fn unprivileged(case: &Case, args: &[&str]) -> (i32, Value) {
    let program = case.path("holdfast");
    if !program.exists() {
        std::fs::copy(env!("CARGO_BIN_EXE_holdfast"), &program).expect("copied");
    }
    let region = format!("a={}", text(&case.bench.region("a")));
    let give = |path: &Path| {
        let done = Command::new("chown").args(["-R", "65534:65534"]).arg(path).status().expect("chown runs");
        assert!(done.success());
    };
    give(case.bench.dir.path());
    std::os::unix::fs::chown(case.place.path(), Some(65_534), Some(65_534)).expect("owner");
    let output = Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"])
        .arg(program)
        .args(["--json", "--quiet", "--region", &region])
        .args(args)
        .env("HOLDFAST_PASSPHRASE", crate::harness::PASSPHRASE)
        .current_dir(case.place.path())
        .output()
        .expect("setpriv runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let value = serde_json::from_str(text.lines().last().unwrap_or_default());
    let value = value.unwrap_or_else(|e| panic!("{e}: {text}{}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code().unwrap_or(-1), value)
}

/// How the program writes a path.
fn shown(path: &[u8]) -> String {
    let escape = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    match std::str::from_utf8(path) {
        Ok(text) => text.chars().map(escape).collect(),
        Err(_) => path.iter().flat_map(|b| std::ascii::escape_default(*b)).map(char::from).collect(),
    }
}

/// Everything that differs after a restore without privileges is named; what is not named is the same.
#[test]
fn an_unprivileged_restore_names_what_it_cannot_apply() {
    let case = Case::new();
    super::tree::build(&case.path("source"));
    let before = look(&case.path("source"));
    case.bench.ok(&["backup", &case.text("source")]);
    for options in [&[][..], &["--no-owner", "--no-devices", "--no-xattrs"]] {
        let target = format!("target-{}", options.len());
        let path = case.text(&target);
        let (code, report) = unprivileged(&case, &[&["restore", "latest", "--target", &path], options].concat());
        assert_eq!(code, 3, "{report:#}");
        let errors = report["errors"].as_array().expect("errors");
        assert_eq!(report["errors_total"].as_u64(), Some(errors.len() as u64));
        let named: std::collections::BTreeSet<&str> = errors.iter().filter_map(|e| e["path"].as_str()).collect();
        let after = look(&case.path(&target));
        for (path, was) in &before {
            let Some(is) = after.get(path) else {
                assert!(named.contains(&shown(path)[..]), "{} is missing and was not named", shown(path));
                continue;
            };
            let (mut was, mut is) = (was.clone(), is.clone());
            (was.data, is.data) = (Vec::new(), Vec::new());
            if !options.is_empty() {
                (is.uid, is.gid, is.xattrs) = (was.uid, was.gid, was.xattrs.clone());
                // An ACL shows in the bits of the group.
                is.mode = if was.xattrs.is_empty() { is.mode } else { was.mode };
            }
            // All names of an inode differ in what could not be applied to it once.
            let is_named = [&path[..], &was.first].iter().any(|p| named.contains(&shown(p)[..]));
            assert!(was == is || is_named, "{}: {is:?}, was {was:?}", shown(path));
            let foreign_program = was.mode & 0o6000 != 0 && is.mode & 0o170_000 != 0o040_000;
            assert!(!foreign_program || is.mode & 0o6000 == 0 || is.uid == was.uid, "{}", shown(path));
        }
    }
}

#[test]
fn an_unprivileged_restore_of_ones_own_files_is_complete() {
    let case = Case::new();
    crate::harness::small_tree(&case.path("source"));
    let own = Command::new("chown").args(["-hR", "65534:65534", &case.text("source")]).status().expect("chown runs");
    assert!(own.success());
    let before = look(&case.path("source"));
    let (code, report) = unprivileged(&case, &["backup", &case.text("source")]);
    assert_eq!(code, 0, "{report:#}");
    for _ in 0..2 {
        let (code, report) = unprivileged(&case, &["restore", "latest", "--target", &case.text("target")]);
        assert_eq!(code, 0, "{report:#}");
        super::walk::assert_equal(&before, &look(&case.path("target")));
    }
}

#[test]
fn an_unprivileged_backup_names_what_it_cannot_read() {
    use std::os::unix::fs::PermissionsExt;
    let case = Case::new();
    let source = source(&case);
    std::fs::write(source.join("readable"), b"readable").expect("file");
    std::fs::write(source.join("secret"), noise(1, 1000)).expect("file");
    std::fs::write(source.join("big-secret"), noise(2, 1_000_000)).expect("file");
    std::fs::create_dir(source.join("closed")).expect("directory");
    std::fs::write(source.join("closed/inside"), b"inside").expect("file");
    std::fs::create_dir(source.join("unsearchable")).expect("directory");
    std::fs::write(source.join("unsearchable/inside"), b"inside").expect("file");
    for (name, mode) in [("secret", 0o000), ("big-secret", 0o000), ("closed", 0o000), ("unsearchable", 0o744)] {
        std::fs::set_permissions(source.join(name), std::fs::Permissions::from_mode(mode)).expect("mode");
    }
    let (code, report) = unprivileged(&case, &["backup", &text(&source)]);
    assert_eq!((code, &report["errors_total"]), (3, &Value::from(4)), "{report:#}");
    let mut named: Vec<&str> =
        report["errors"].as_array().expect("errors").iter().filter_map(|e| e["path"].as_str()).collect();
    named.sort_unstable();
    let expected = ["big-secret", "closed", "secret", "unsearchable/inside"].map(|name| text(&source.join(name)));
    assert_eq!(named, expected);
    assert!(report["errors"].as_array().expect("errors").iter().all(|e| e["kind"] == "denied"), "{report:#}");
    assert_eq!(report["regions"].as_array().map(Vec::len), Some(1), "the snapshot was made");
    let listed = case.bench.ok(&["snapshots"]);
    assert_eq!(listed["snapshots"][0]["errors_total"], 4);
    let target = super::place();
    case.bench.ok(&["restore", "latest", "--target", &text(target.path())]);
    assert_eq!(std::fs::read(target.path().join("readable")).expect("read"), b"readable");
    assert!(!target.path().join("secret").exists());
    // Nothing at all can be read: no snapshot.
    std::fs::set_permissions(&source, std::fs::Permissions::from_mode(0o000)).expect("mode");
    let (code, report) = unprivileged(&case, &["backup", &text(&source)]);
    assert_eq!((code, &report["error"]["kind"]), (1, &"source".into()), "{report:#}");
    assert_eq!(case.bench.ok(&["snapshots"])["snapshots"].as_array().map(Vec::len), Some(1));
}

/// A header that was read stays true only as long as nobody writes: what it says of the rest is a hint, and a file that
/// changed is judged anew.
#[test]
fn a_file_of_tensors_that_changes_while_it_is_read() {
    let case = Case::new();
    let source = source(&case);
    let header = |len: u64| {
        let tensor = format!(r#"{{"a":{{"dtype":"U8","shape":[{len}],"data_offsets":[0,{len}]}}}}"#);
        let header = format!("{tensor:<100}");
        [&100u64.to_le_bytes()[..], header.as_bytes()].concat()
    };
    let lens = [40u64 << 20, 300_000, 25_000_001];
    std::fs::write(source.join("model"), [header(lens[0]), noise(3, 40 << 20)].concat()).expect("file");
    let file = std::fs::File::options().write(true).open(source.join("model")).expect("open");
    let change = |round: u64| match round % 4 {
        0 => file.write_all_at(b"no header", 0).expect("write"),
        1 => file.write_all_at(&header(lens[(round / 4 % 3) as usize]), 0).expect("write"),
        // At first another length than the header says, then the same.
        step => file.set_len(108 + lens[((round / 4 + step) % 3) as usize]).expect("length"),
    };
    for mode in ["incremental", "full"] {
        let done = while_changing(&case, &["--mode", mode], change);
        check(&case, &done);
    }
    // Once it stands still, it is stored as it is.
    file.write_all_at(&header(lens[1]), 0).expect("write");
    file.set_len(108 + lens[1]).expect("length");
    case.bench.ok(&["backup", &text(&source)]);
    let target = super::place();
    case.bench.ok(&["restore", "latest", "--target", &text(target.path())]);
    crate::harness::assert_same(&source, target.path());
}
