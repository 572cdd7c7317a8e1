//! What belongs to a source, and what of a snapshot is restored.

use super::tree;
use super::walk::{Tree, assert_equal, look};
use super::{Case, text};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

/// The paths of everything but the root, as text.
fn paths(tree: &Tree) -> Vec<String> {
    tree.keys().filter(|p| !p.is_empty()).map(|p| String::from_utf8_lossy(p).into_owned()).collect()
}

fn write(path: &Path, content: &str) {
    std::fs::create_dir_all(path.parent().expect("a parent")).expect("directory");
    std::fs::write(path, content).expect("file");
}

/// Backs up `source` with arguments, restores, and returns what is there.
fn there(case: &Case, more: &[&str]) -> Vec<String> {
    let source = case.text("source");
    case.bench.ok(&[&["backup", &source], more].concat());
    let target = super::place();
    case.bench.ok(&["restore", "latest", "--target", &text(target.path())]);
    paths(&look(target.path()))
}

#[test]
fn a_part_of_a_snapshot() {
    let case = Case::new();
    tree::build(&case.path("source"));
    let before = look(&case.path("source"));
    case.bench.ok(&["backup", &case.text("source")]);
    for dir in ["links", "deep", "names", "kinds/directory-1777"] {
        let target = super::place();
        case.bench.ok(&["restore", &format!("latest:/{dir}"), "--target", &text(target.path())]);
        assert_equal(&look(&case.path("source").join(dir)), &look(target.path()));
    }
    let target = super::place();
    for file in ["sparse/ten-gib", "attributes/many", "kinds/long", "kinds/block", "content/noise-9000001"] {
        case.bench.ok(&["restore", &format!("latest:{file}"), "--target", &text(target.path())]);
        let (_, name) = file.split_once('/').expect("two parts");
        assert_eq!(look(target.path())[name.as_bytes()].content, before[file.as_bytes()].content);
        assert_eq!(look(target.path())[name.as_bytes()].xattrs, before[file.as_bytes()].xattrs);
    }
    let (code, report) = case.bench.json(&["restore", "latest:/no/such", "--target", &text(target.path())]);
    assert_eq!((code, &report["error"]["kind"]), (1, &"not-found".into()), "{report:#}");
}

/// Names that are no text can be given on the command line all the same.
#[test]
fn a_path_of_any_bytes_can_be_named() {
    let case = Case::new();
    tree::build(&case.path("source"));
    case.bench.ok(&["backup", &case.text("source")]);
    let chosen = [0, 1, 3, 4, 13, 18, 19];
    for (n, name) in tree::hard_names().into_iter().enumerate().filter(|(n, _)| chosen.contains(n)) {
        let inner = if n % 3 == 0 { Vec::new() } else { [b"/", &name[..]].concat() };
        let path = OsString::from_vec([b"latest:/names/", &name[..], &inner].concat());
        let output = case.bench.command(&["cat"]).arg(&path).output().expect("the program runs");
        let content: &[u8] = if inner.is_empty() { &name } else { b"same name again" };
        assert_eq!(output.stdout, content, "{path:?}: {}", String::from_utf8_lossy(&output.stderr));
        let target = super::place();
        let mut restore = case.bench.command(&["restore", "--target", &text(target.path())]);
        assert!(restore.arg(&path).status().expect("the program runs").success());
        assert_eq!(std::fs::read(tree::below(target.path(), &name)).expect("read"), content);
        let output = case.bench.command(&["ls"]).arg(&path).output().expect("the program runs");
        assert_eq!(output.stdout.iter().filter(|b| **b == b'\n').count(), 1);
        assert!(!output.stdout[..output.stdout.len() - 1].iter().any(u8::is_ascii_control));
    }
}

#[test]
fn includes_and_excludes_of_a_restore() {
    let case = Case::new();
    for path in ["a/x.txt", "a/y.log", "a/deep/z.txt", "b/x.txt", "b/keep/y.log", "top.txt"] {
        write(&case.path("source").join(path), path);
    }
    case.bench.ok(&["backup", &case.text("source")]);
    let check = |args: &[&str], expected: &[&str]| {
        let target = super::place();
        let target_text = text(target.path());
        let all = [&["restore", "latest", "--target", &target_text], args].concat();
        let report = case.bench.ok(&all);
        assert_eq!(paths(&look(target.path())), expected, "{args:?}");
        let dry = case.bench.ok(&[&all[..], &["--dry-run"]].concat());
        assert_eq!(dry["files"], report["files"], "{args:?}");
    };
    check(&["--include", "*.log"], &["a", "a/y.log", "b", "b/keep", "b/keep/y.log"]);
    check(&["--include", "/a/deep"], &["a", "a/deep", "a/deep/z.txt"]);
    check(&["--include", "a", "--exclude", "*.log"], &["a", "a/deep", "a/deep/z.txt", "a/x.txt"]);
    check(&["--exclude", "b", "--include", "/b/keep", "--include", "/top.txt"], &["top.txt"]);
    check(&["--include", "keep/"], &["b", "b/keep", "b/keep/y.log"]);
    check(&["--include", "nothing-is-called-so"], &[]);
    check(&["--exclude", "a", "--exclude", "b"], &["top.txt"]);
}

#[test]
fn excludes_of_a_backup() {
    let case = Case::new();
    for path in ["a/x.tmp", "a/x", "a/keep.tmp", "cache/blob", "log/1", "b/cache", "b/log/2", "x y/z"] {
        write(&case.path("source").join(path), path);
    }
    let all = ["a", "a/keep.tmp", "a/x", "a/x.tmp", "b", "b/cache", "b/log", "b/log/2"];
    let rest = ["cache", "cache/blob", "log", "log/1", "x y", "x y/z"];
    assert_eq!(there(&case, &[]), [&all[..], &rest].concat());
    let found =
        there(&case, &["--exclude", "*.tmp", "--exclude", "!keep.tmp", "--exclude", "/log", "--exclude", "x y"]);
    assert_eq!(found, ["a", "a/keep.tmp", "a/x", "b", "b/cache", "b/log", "b/log/2", "cache", "cache/blob"]);
    write(&case.path("patterns"), "# comment\n\ncache/\n*.tmp\r\nb/log\n");
    let found = there(&case, &["--exclude-file", &case.text("patterns")]);
    assert_eq!(found, ["a", "a/x", "b", "b/cache", "log", "log/1", "x y", "x y/z"]);
    write(&case.path("source/.holdfastignore"), "log\n");
    write(&case.path("source/a/.holdfastignore"), "*\n!x\n");
    let found = there(&case, &[]);
    assert_eq!(found, [".holdfastignore", "a", "a/x", "b", "b/cache", "cache", "cache/blob", "x y", "x y/z"]);
    let found = there(&case, &["--ignore-file", ".other"]);
    assert_eq!(found.len(), all.len() + rest.len() + 2);
    // What was left out is counted.
    assert_eq!(case.bench.ok(&["backup", &case.text("source")])["excluded"], 5);
}

#[test]
fn a_tagged_cache_keeps_only_its_tag() {
    let case = Case::new();
    write(&case.path("source/cache/CACHEDIR.TAG"), "Signature: 8a477f597d28d172789f06886806bc55\n# more");
    write(&case.path("source/cache/deep/blob"), "blob");
    write(&case.path("source/not/CACHEDIR.TAG"), "Signature: something else");
    write(&case.path("source/not/blob"), "blob");
    let rest = ["not", "not/CACHEDIR.TAG", "not/blob"];
    assert_eq!(there(&case, &["--exclude-caches"]), [&["cache", "cache/CACHEDIR.TAG"], &rest[..]].concat());
    assert_eq!(there(&case, &[]).len(), 7);
}

/// Unmounts when dropped.
pub struct Mounted<'m>(&'m Path);

impl<'m> Mounted<'m> {
    pub fn new(at: &'m Path) -> Mounted<'m> {
        std::fs::create_dir_all(at).expect("directory");
        let done = Command::new("mount").args(["-t", "tmpfs", "none"]).arg(at).status().expect("mount runs");
        assert!(done.success());
        Mounted(at)
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        Command::new("umount").arg(self.0).status().expect("umount runs");
    }
}

#[test]
fn one_file_system() {
    let case = Case::new();
    write(&case.path("source/file"), "file");
    let inner = case.path("source/mounted");
    let mounted = Mounted::new(&inner);
    write(&inner.join("inside"), "inside");
    assert_eq!(there(&case, &["--one-file-system"]), ["file", "mounted"]);
    assert_eq!(there(&case, &["-x"]), ["file", "mounted"]);
    assert_eq!(there(&case, &[]), ["file", "mounted", "mounted/inside"]);
    // Both were asked for: each is on a file system of its own.
    write(&case.path("other/file"), "other");
    let (first, second) = (case.text("other"), text(&inner));
    case.bench.ok(&["backup", "-x", &first, &second]);
    let target = super::place();
    case.bench.ok(&["restore", "latest", "--target", &text(target.path())]);
    for path in [&case.path("other/file"), &inner.join("inside")] {
        let back = target.path().join(path.strip_prefix("/").expect("absolute"));
        assert!(back.is_file(), "{}", back.display());
    }
    drop(mounted);
}

#[test]
fn several_sources_files_links_and_relative_paths() {
    let case = Case::new();
    for path in ["one/x", "two/y", "three/z", "single"] {
        write(&case.path("source").join(path), path);
    }
    symlink("one", case.path("source/link")).expect("link");
    symlink("single", case.path("source/link-to-file")).expect("link");
    let back = |args: &[&str]| {
        let mut command = case.bench.command(&["backup", "--quiet"]);
        assert!(command.args(args).current_dir(case.path("source")).status().expect("the program runs").success());
        let target = super::place();
        case.bench.ok(&["restore", "latest", "--target", &text(target.path())]);
        let found = paths(&look(target.path()));
        let prefix = format!("{}/", text(case.path("source").strip_prefix("/").expect("absolute")));
        found.iter().filter(|p| !prefix.starts_with(*p)).map(|p| p.replace(&prefix, "")).collect::<Vec<_>>()
    };
    assert_eq!(back(&["."]), ["link", "link-to-file", "one", "one/x", "single", "three", "three/z", "two", "two/y"]);
    assert_eq!(back(&["one"]), ["x"]);
    assert_eq!(back(&["./one/../two/"]), ["y"]);
    assert_eq!(back(&["link"]), ["x"]);
    assert_eq!(back(&["link/"]), ["x"]);
    assert_eq!(back(&["single"]), ["single"]);
    assert_eq!(back(&["link-to-file"]), ["link-to-file"]);
    let two: &[&str] = &["two", "two/y"];
    assert_eq!(back(&["two", "single"]), [&["single"], two].concat());
    assert_eq!(back(&["two", &case.text("source/two/y"), "two"]), two);
    assert_eq!(back(&["one", "two", "--exclude", "x"]), [&["one"], two].concat());
}
