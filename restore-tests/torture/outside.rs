//! Names that reach out of the target: further names of a file outside must not carry a restore there.

use super::Case;
use super::walk::{assert_equal, look};
use serde_json::Value;
use std::os::unix::fs::PermissionsExt;

/// The target's file has a name outside. Whatever differs (length, content, mode, attribute, nothing), the file outside
/// stays as it is.
#[test]
fn a_name_outside_the_target_keeps_its_bytes_and_its_metadata() {
    let case = Case::new();
    for dir in ["source", "target", "outside"] {
        std::fs::create_dir(case.path(dir)).expect("directory");
    }
    let contents: [(&str, &[u8]); 4] = [
        ("longer", b"wanted and a tail that must not be cut"),
        ("other", b"something else"),
        ("mode", b"wanted"),
        ("attribute", b"wanted"),
    ];
    for (name, outside) in contents {
        std::fs::write(case.path(&format!("source/{name}")), b"wanted").expect("file");
        let path = case.path(&format!("outside/{name}"));
        std::fs::write(&path, outside).expect("file");
        std::fs::hard_link(&path, case.path(&format!("target/{name}"))).expect("hard link");
    }
    std::fs::set_permissions(case.path("source/mode"), std::fs::Permissions::from_mode(0o4711)).expect("mode");
    super::tree::attribute(&case.path("source/attribute"), "user.a", b"1");
    let fifo = |at: &str| {
        let path = case.path(at);
        rustix::fs::mknodat(
            rustix::fs::CWD,
            &path,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::from_raw_mode(0o600),
            0,
        )
        .expect("fifo");
        path
    };
    std::fs::set_permissions(fifo("source/fifo"), std::fs::Permissions::from_mode(0o666)).expect("mode");
    std::fs::hard_link(fifo("outside/fifo"), case.path("target/fifo")).expect("hard link");
    case.bench.ok(&["backup", &case.text("source")]);
    let (before, mut outside) = (look(&case.path("source")), look(&case.path("outside")));
    case.bench.ok(&["restore", "latest", "--target", &case.text("target")]);
    assert_equal(&before, &look(&case.path("target")));
    // Only the number of names went down.
    outside.values_mut().for_each(|seen| seen.links = 1);
    assert_equal(&outside, &look(&case.path("outside")));
}

/// The first name of an inode cannot be restored: a further name must not pass as restored with what stands there.
#[test]
fn a_further_name_fails_with_the_first() {
    let case = Case::new();
    for dir in ["source", "target"] {
        std::fs::create_dir(case.path(dir)).expect("directory");
    }
    std::fs::write(case.path("source/a"), super::super::harness::noise(3, 500_000)).expect("file");
    std::fs::hard_link(case.path("source/a"), case.path("source/b")).expect("hard link");
    std::fs::write(case.path("target/a"), b"what stood there").expect("file");
    case.bench.ok(&["backup", &case.text("source")]);
    for pack in super::super::harness::files(&case.bench.region("a").join("packs")) {
        if pack.metadata().expect("stat").len() > 400_000 {
            std::fs::remove_file(pack).expect("removed");
        }
    }
    let (code, report) = case.bench.json(&["restore", "latest", "--target", &case.text("target")]);
    assert_eq!((code, &report["errors_total"]), (5, &Value::from(2)), "{report:#}");
    assert_eq!(report["files"], 0, "{report:#}");
    assert!(!case.path("target/b").exists(), "linked to something that is not its content");
}

/// Only some names of an inode are restored.
#[test]
fn a_part_of_the_names_is_restored() {
    let case = Case::new();
    std::fs::create_dir_all(case.path("source/in")).expect("directory");
    std::fs::create_dir_all(case.path("source/out")).expect("directory");
    std::fs::write(case.path("source/a-first"), super::super::harness::noise(3, 300_000)).expect("file");
    for name in ["in/x", "in/y", "out/z"] {
        std::fs::hard_link(case.path("source/a-first"), case.path("source").join(name)).expect("hard link");
    }
    case.bench.ok(&["backup", &case.text("source")]);
    let content = std::fs::read(case.path("source/a-first")).expect("read");
    let check = |args: &[&str], there: &[&str]| {
        let target = super::place();
        let path = super::text(target.path());
        case.bench.ok(&[&["restore"], args, &["--target", &path]].concat());
        let tree = look(target.path());
        let files: Vec<&[u8]> = tree.iter().filter(|(_, s)| s.content.is_some()).map(|(p, _)| &p[..]).collect();
        assert_eq!(files, there.iter().map(|p| p.as_bytes()).collect::<Vec<_>>(), "{args:?}");
        for path in there {
            assert_eq!(std::fs::read(target.path().join(path)).expect("read"), content);
            assert_eq!(tree[path.as_bytes()].links, there.len() as u64, "{args:?}");
        }
    };
    check(&["latest:/in"], &["x", "y"]);
    check(&["latest:/out"], &["z"]);
    check(&["latest:/in/y"], &["y"]);
    check(&["latest", "--include", "/in/y", "--include", "/out"], &["in/y", "out/z"]);
    check(&["latest", "--exclude", "a-first"], &["in/x", "in/y", "out/z"]);
}
