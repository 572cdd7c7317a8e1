//! Snapshots as tar archives: what GNU tar makes of them is what went in.

use crate::harness::{Bench, noise, small_tree};
use crate::reader::{tree, walk};
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// Extracts an archive with everything that it has; a word of tar's is a failure.
fn extract(archive: &Path, into: &Path) {
    fs::create_dir(into).unwrap();
    let mut tar = Command::new("tar");
    tar.args([
        "-x",
        "-p",
        "--numeric-owner",
        "--same-owner",
        "--xattrs",
        "--xattrs-include=*",
        "--warning=no-timestamp",
        "-f",
    ]);
    let output = tar.arg(archive).arg("-C").arg(into).output().expect("tar runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}");
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

#[test]
fn gnu_tar_takes_everything_back() {
    let bench = Bench::with_key(&["a"]);
    // On a disk, because some memory file systems take no attributes.
    let disk = tempfile::TempDir::new().unwrap();
    let source = disk.path().join("source");
    tree::build(&source);
    fs::remove_file(source.join("socket")).unwrap();
    bench.ok(&["backup", &text(&source), "--name", "s"]);
    let archive = disk.path().join("all.tar");
    let report = bench.ok(&["dump", "latest", "--output", &text(&archive)]);
    assert_eq!(report["bytes_written"].as_u64(), Some(fs::metadata(&archive).unwrap().len()));
    assert_eq!(report["archive"], true);
    let holes = fs::metadata(source.join("hole-only")).unwrap().len();
    assert!(report["bytes"].as_u64().unwrap() > holes + report["bytes_written"].as_u64().unwrap(), "{report:#}");
    extract(&archive, &disk.path().join("back"));
    walk::assert_same(&source, &disk.path().join("back"));
    // The same through a pipe, with zeros for holes.
    let piped = disk.path().join("piped.tar");
    let to = Stdio::from(fs::File::create(&piped).unwrap());
    let output = bench.command(&["--quiet", "dump", "latest", "--no-sparse"]).stdout(to).output().unwrap();
    assert!(output.status.success() && output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(fs::metadata(&piped).unwrap().len() > report["bytes_written"].as_u64().unwrap());
    let compared = Command::new("tar").arg("-d").arg("-f").arg(&piped).arg("-C").arg(&source).output().unwrap();
    assert!(compared.status.success(), "{}", String::from_utf8_lossy(&compared.stdout));
}

#[test]
fn a_part_of_a_snapshot_is_an_archive_too() {
    let bench = Bench::with_key(&["a"]);
    small_tree(&bench.path("source"));
    bench.ok(&["backup", "source"]);
    let list = |args: &[&str]| {
        let mut dump = bench.command(&[&["--quiet"], args].concat()).stdout(Stdio::piped()).spawn().unwrap();
        let listed = Command::new("tar").arg("-t").stdin(dump.stdout.take().unwrap()).output().unwrap();
        assert!(listed.status.success() && dump.wait().unwrap().success(), "{args:?}");
        let mut names: Vec<String> = String::from_utf8(listed.stdout).unwrap().lines().map(str::to_owned).collect();
        names.sort();
        names
    };
    assert_eq!(list(&["dump", "latest:/docs/deep"]), ["./", "text"]);
    assert_eq!(list(&["dump", "--tar", "latest:/docs/deep/text"]), ["text"]);
    assert_eq!(list(&["dump", "latest", "--include", "text"]), ["./", "docs/", "docs/deep/", "docs/deep/text"]);
    assert_eq!(
        list(&["restore", "latest", "--tar", "-", "--exclude", "docs", "--exclude", "cut"]),
        ["./", "empty", "link", "tiny", "whole"]
    );
    let output = bench.command(&["--quiet", "dump", "latest:/cut"]).output().unwrap();
    assert!(output.stdout == fs::read(bench.path("source/cut")).unwrap() && output.stderr.is_empty());
    // What cannot be understood, or would do harm.
    let wrong: [(&[&str], &str); 4] = [
        (&["--json", "dump", "latest"], "--output"),
        (&["dump", "latest", "--output", "source/tiny"], "exists"),
        (&["dump", "latest:/link"], "not a regular file"),
        (&["restore", "latest", "--tar", "x", "--delete"], "--delete"),
    ];
    for (args, part) in wrong {
        let (code, output) = bench.run(args);
        let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
        assert!(code == 2 && said.contains(part), "{args:?}: {code}: {said}");
    }
    assert_eq!(fs::read(bench.path("source/tiny")).unwrap(), b"tiny");
}

#[test]
fn what_is_not_in_the_archive_is_named() {
    let bench = Bench::with_key(&["a"]);
    let source = bench.path("source");
    small_tree(&source);
    let socket = std::os::unix::net::UnixListener::bind(source.join("socket")).unwrap();
    fs::hard_link(source.join("whole"), source.join("whole-again")).unwrap();
    // The largest that is read to its end before its header is out, and one that is not.
    fs::write(source.join("most"), noise(78, 8 << 20)).unwrap();
    fs::write(source.join("zz-large"), noise(77, 48 << 20)).unwrap();
    bench.ok(&["backup", "source"]);
    drop(socket);
    let out = bench.path("out.tar");
    let (code, report) = bench.json(&["dump", "latest", "--output", &text(&out)]);
    assert_eq!((code, report["errors_total"].as_u64()), (3, Some(1)), "{report:#}");
    assert_eq!(report["errors"][0]["path"], "socket");
    // Half of the packs are damaged where the content is.
    for pack in crate::harness::files(&bench.region("a").join("packs")) {
        let file = fs::File::options().write(true).open(&pack);
        let len = fs::metadata(&pack).unwrap().len();
        if len > 1 << 20 {
            fs::set_permissions(&pack, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
            let file = file.or_else(|_| fs::File::options().write(true).open(&pack)).unwrap();
            (0..len / 65_536).for_each(|n| file.write_all_at(&[0x5a; 64], n * 65_536 + 30_000).unwrap());
        }
    }
    let broken = bench.path("broken.tar");
    let (code, report) = bench.json(&["dump", "latest", "--output", &text(&broken), "--exclude", "zz-large"]);
    assert_eq!(code, 5, "{report:#}");
    assert!(report["lost"].as_u64() > Some(1), "{report:#}");
    let named = |path: &str| report["errors"].as_array().unwrap().iter().any(|e| e["path"] == path);
    assert!(["cut", "most", "whole", "whole-again"].into_iter().all(named), "{report:#}");
    let listed = Command::new("tar").arg("-tf").arg(&broken).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert!(
        listed.contains("tiny\n") && !["cut", "most", "whole"].iter().any(|name| listed.contains(name)),
        "{listed}"
    );
    // Nothing that looks whole is left of one that ended in the middle of a file: one of up to 8 MiB never does that,
    // wherever its chunks were cut.
    let (code, report) = bench.json(&["dump", "latest", "--output", &text(&bench.path("cut.tar"))]);
    let place = report["error"]["where"].as_str().unwrap();
    assert!(code == 5 && place.starts_with("zz-large: "), "{report:#}");
    assert!(!bench.path("cut.tar").exists());
    let output = bench.command(&["--quiet", "dump", "latest"]).output().unwrap();
    assert_eq!(output.status.code(), Some(5));
    fs::write(bench.path("cut.tar"), output.stdout).unwrap();
    assert!(!Command::new("tar").arg("-tf").arg(bench.path("cut.tar")).output().unwrap().status.success());
}
