//! The command line: options, answers, errors and exit codes of the shipped program.

pub mod fields;
mod secrets;

use crate::harness::{Bench, files, noise, small_tree};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::FileExt;
use std::process::{Command, Output, Stdio};

/// Exit code, and standard error as text; never a panic, and no escape codes.
fn told(output: &Output) -> (i32, String) {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!text.contains("panicked"), "{text}");
    assert!(!text.contains('\u{1b}'), "escape codes: {text}");
    (output.status.code().unwrap_or(-1), text)
}

/// An error is one line: what, where, what to do. Returns it.
fn error(bench: &Bench, code: i32, args: &[&str]) -> String {
    let (got, output) = bench.run(&[&["--quiet"], args].concat());
    let (_, text) = told(&output);
    assert_eq!(got, code, "{args:?}: {text}");
    assert_eq!(text.lines().count(), 1, "{args:?}: {text}");
    assert!(text.starts_with("holdfast: ") && !text.contains("os error"), "{args:?}: {text}");
    assert!(output.stdout.is_empty(), "{args:?}");
    if args[0] == "cat" {
        return text;
    }
    let (_, value) = bench.json(args);
    assert_eq!(value["exit"]["code"], code);
    assert!(text.contains(value["error"]["what"].as_str().expect("what happened")));
    text
}

fn names_all(text: &str, parts: &[&str]) {
    parts.iter().for_each(|part| assert!(text.contains(part), "`{part}` is not in: {text}"));
}

fn backed_up(names: &[&str]) -> Bench {
    let bench = Bench::new(&["a"]);
    small_tree(&bench.path("source"));
    for name in names {
        bench.ok(&["backup", "source", "--name", name, "--host", &format!("host-{name}"), "--tag", name, "--tag", "t"]);
    }
    bench
}

fn ids(value: &Value) -> Vec<String> {
    let all = value["snapshots"].as_array().expect("snapshots").iter();
    all.map(|s| s["id"].as_str().expect("an id").to_owned()).collect()
}

#[test]
fn snapshots_are_chosen_by_filters_prefixes_and_latest() {
    let bench = backed_up(&["x", "y", "x"]);
    let all = ids(&bench.ok(&["snapshots"]));
    assert_eq!(all.len(), 3);
    let chosen = |args: &[&str]| ids(&bench.ok(&[&["snapshots"], args].concat()));
    assert_eq!(chosen(&["--name", "x"]), [&all[..1], &all[2..]].concat());
    assert_eq!(chosen(&["--host", "host-y"]), &all[1..2]);
    assert_eq!(chosen(&["--tag", "t", "--tag", "y"]), &all[1..2]);
    assert!(chosen(&["--tag", "x", "--tag", "y"]).is_empty());
    assert!(chosen(&["--name", "X"]).is_empty());
    let latest = |args: &[&str]| bench.ok(&[&["ls", "latest"], args].concat())["snapshot"].clone();
    assert_eq!(latest(&[]), all[2][..]);
    assert_eq!(latest(&["--name", "y"]), all[1][..]);
    for len in [8, 12, 32] {
        assert_eq!(bench.ok(&["ls", &all[0][..len]])["snapshot"], all[0][..]);
    }
    names_all(&error(&bench, 1, &["ls", "latest", "--name", "z"]), &["no such snapshot"]);
    names_all(&error(&bench, 1, &["ls", "zzzz"]), &["no snapshot `zzzz`", "holdfast snapshots"]);
    // Seventeen snapshots would share a first digit for certain; no digit at all fits all of three.
    names_all(&error(&bench, 2, &["ls", ":/tiny"]), &["fits 3 snapshots", "more digits"]);
    names_all(&error(&bench, 1, &["ls", "latest:/nothing"]), &["no such path", "/nothing"]);
    names_all(&error(&bench, 1, &["ls", "latest:/tiny/x"]), &["not a directory"]);
    let text = String::from_utf8(bench.run(&["snapshots"]).1.stdout).expect("text");
    assert_eq!(text.lines().count(), 3);
    all.iter().for_each(|id| assert!(text.contains(&id[..8])));
}

/// The newest snapshot cannot be read: `latest` is an older one then, and nobody must take it for the newest.
#[test]
fn latest_is_unsure_where_a_snapshot_is_damaged() {
    let bench = Bench::with_key(&["a"]);
    let (source, target) = (bench.path("source"), bench.path("target").display().to_string());
    std::fs::create_dir(&source).expect("directory");
    let backup = |content: &str| {
        std::fs::write(source.join("file"), content).expect("file");
        bench.ok(&["backup", &source.display().to_string()])["snapshot"].as_str().expect("an id").to_owned()
    };
    let (first, second) = (backup("old"), backup("new"));
    let object = bench.region("a").join("snapshots").join(&second);
    let mut bytes = std::fs::read(&object).expect("the manifest");
    bytes[300] ^= 1;
    std::fs::remove_file(&object).expect("removed");
    std::fs::write(&object, bytes).expect("damaged");
    let doubted: [&[&str]; 3] =
        [&["restore", "latest", "--target", &target], &["ls", "latest"], &["cat", "latest:/file"]];
    for args in doubted {
        let (code, text) = told(&bench.run(&[&["--quiet"], args].concat()).1);
        assert_eq!(code, 5, "{args:?}: {text}");
        names_all(&text, &["warning", &first[..8], &second[..8]]);
    }
    names_all(&error(&bench, 11, &["forget", "latest", "--last"]), &[&second[..8], "by its id"]);
    bench.ok(&["restore", &first, "--target", &target]);
    bench.ok(&["forget", &first, "--last"]);
}

#[test]
fn an_empty_repository_has_no_snapshots() {
    let bench = Bench::new(&["a"]);
    assert!(ids(&bench.ok(&["snapshots"])).is_empty());
    assert_eq!(told(&bench.run(&["snapshots"]).1), (0, String::new()));
    names_all(&error(&bench, 1, &["ls", "latest"]), &["no such snapshot"]);
    names_all(&error(&bench, 1, &["restore", "latest", "--target", "t"]), &["no such snapshot"]);
    names_all(&error(&bench, 1, &["forget", "abc"]), &["no snapshot"]);
    assert!(!bench.path("t").exists());
    for level in ["presence", "ciphertext", "content"] {
        bench.ok(&["verify", "--level", level]);
    }
}

#[test]
fn listing_and_writing_files() {
    let bench = Bench::new(&["a"]);
    let source = bench.path("source");
    small_tree(&source);
    let sparse = std::fs::File::create(source.join("sparse")).expect("file");
    sparse.write_all_at(b"island", 3_000_000).expect("island");
    sparse.set_len(5_000_001).expect("length");
    std::fs::write(source.join("odd\n\u{1b}[31mname"), b"odd").expect("file");
    bench.ok(&["backup", "source"]);
    for name in ["tiny", "empty", "docs/note-3", "docs/deep/text", "whole", "cut", "sparse"] {
        let output = bench.run(&["cat", &format!("latest:/{name}")]).1;
        assert_eq!(told(&output), (0, String::new()));
        assert!(output.stdout == std::fs::read(source.join(name)).expect("read"), "{name}");
    }
    let listed = |args: &[&str]| {
        let output = bench.run(&[&["ls"], args].concat()).1;
        assert_eq!(told(&output), (0, String::new()));
        String::from_utf8(output.stdout).expect("text").lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let top = listed(&["latest"]);
    assert_eq!(top, ["cut", "docs/", "empty", "link", "odd\\n\\u{1b}[31mname", "sparse", "tiny", "whole"]);
    assert_eq!(listed(&["latest:docs/deep"]), ["text"]);
    assert_eq!(listed(&["latest:/docs//deep/./text"]), ["text"]);
    assert_eq!(listed(&["-R", "latest"]).len(), files(&source).len() + 2);
    let long = listed(&["--long", "latest"]);
    assert!(long[3].contains("link -> tiny") && long[3].starts_with('l'), "{}", long[3]);
    assert!(long[0].starts_with("-rw-r--r--") && long[0].contains(" 5000000 "), "{}", long[0]);
    names_all(&error(&bench, 2, &["cat", "latest:/docs"]), &["not a regular file"]);
    names_all(&error(&bench, 2, &["cat", "latest"]), &["SNAPSHOT:PATH"]);
    names_all(&error(&bench, 1, &["cat", "latest:/none"]), &["no such path"]);
}

/// The reader goes away after the first bytes.
#[test]
fn a_closed_output_ends_the_program_quietly() {
    let bench = Bench::new(&["a"]);
    let source = bench.path("source");
    std::fs::create_dir(&source).expect("directory");
    for n in 0..3000 {
        std::fs::write(source.join(format!("a-rather-long-name-so-that-the-pipe-is-full-early-{n}")), b"")
            .expect("file");
    }
    std::fs::write(source.join("big"), noise(1, 3_000_000)).expect("file");
    bench.ok(&["backup", "source"]);
    for args in [&["ls", "latest"][..], &["--json", "ls", "latest"], &["cat", "latest:/big"]] {
        let mut child = bench.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
        let mut out = BufReader::with_capacity(16, child.stdout.take().expect("a pipe"));
        assert!(!out.fill_buf().expect("read").is_empty());
        drop(out);
        let (code, text) = told(&child.wait_with_output().expect("an end"));
        assert_eq!(code, 130, "{args:?}: {text}");
        // With --json the error goes where nobody reads.
        assert_eq!(text.contains("output was closed"), args[0] != "--json", "{text}");
        assert!(!text.contains("os error"), "{text}");
    }
}

#[test]
fn wrong_usage_is_told_and_changes_nothing() {
    let bench = Bench::new(&["a"]);
    let before = bench.objects("a");
    for args in [
        &["backup"][..],
        &["backup", "--no-such-flag", "."],
        &["no-such-verb"],
        &["restore", "latest"],
        &["verify", "--level", "nonsense"],
        &["backup", "--full", "--mode", "incremental", "."],
        &["--passphrase-file", "a", "--key-file", "b", "snapshots"],
        &["init", "--no-recovery-key", "--recovery-key-out", "x"],
        &[],
    ] {
        let (code, text) = told(&bench.run(args).1);
        assert_eq!(code, 2, "{args:?}: {text}");
        assert!(text.contains("Usage") || text.contains("try '--help'"), "{args:?}: {text}");
        let output = bench.run(&[&["--json"], args].concat()).1;
        let value: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one object");
        assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(2), &b""[..]), "{args:?}: {value:#}");
        assert_eq!((&value["exit"]["name"], &value["error"]["kind"]), (&"usage".into(), &"config".into()), "{value:#}");
        let said = |field: &str| value["error"][field].as_str().is_some_and(|text| !text.contains(['\n', '\u{1b}']));
        assert!(said("what") && said("advice"), "{value:#}");
    }
    // After `--` it is a name.
    assert!(bench.run(&["backup", "--no-such-flag", "--", "--json"]).1.stdout.is_empty());
    for args in [&["--help"][..], &["--version"], &["help", "restore"], &["key", "add", "--help"]] {
        let output = bench.run(args).1;
        assert_eq!(told(&output), (0, String::new()));
        assert!(!output.stdout.is_empty());
    }
    names_all(&error(&bench, 2, &["backup", ".", "--exclude", "["]), &["pattern `[`", "patterns:"]);
    names_all(&error(&bench, 2, &["backup", ".", "--exclude-file", "none"]), &["exclude file", "none"]);
    assert_eq!(bench.objects("a"), before);
    // These were runs, and failed: each of them leaves its record (it is tried as text and as JSON).
    names_all(&error(&bench, 1, &["backup", "no-such-source"]), &["no such file", "no-such-source", "mounted?"]);
    names_all(&error(&bench, 1, &["backup", ".", "no-such-source"]), &["no-such-source"]);
    let (records, others): (Vec<_>, Vec<_>) = bench.objects("a").into_iter().partition(|o| o.starts_with("runs/"));
    assert_eq!((others, records.len()), (before, 4));
}

#[test]
fn targets_that_cannot_be_written() {
    let bench = backed_up(&["x"]);
    std::fs::write(bench.path("file"), b"a file").expect("file");
    names_all(&error(&bench, 1, &["restore", "latest", "--target", "file"]), &["restore target", "[file]"]);
    names_all(&error(&bench, 1, &["restore", "latest", "--target", "file/below"]), &["restore target"]);
    assert_eq!(std::fs::read(bench.path("file")).expect("read"), b"a file");
    bench.ok(&["restore", "latest:/tiny", "--target", "made/on/the/way"]);
    assert_eq!(std::fs::read(bench.path("made/on/the/way/tiny")).expect("read"), b"tiny");
}

#[test]
fn repositories_that_are_not_there_or_there_already() {
    let bench = Bench::empty(&["a"]);
    names_all(&error(&bench, 10, &["snapshots"]), &["region"]);
    std::fs::create_dir(bench.region("a")).expect("directory");
    for args in [&["snapshots"][..], &["backup", "."], &["verify"], &["verify", "--level", "ciphertext"]] {
        error(&bench, 10, args);
    }
    assert!(bench.objects("a").is_empty(), "only init creates");
    std::fs::write(bench.region("a").join("stranger"), b"mine").expect("file");
    names_all(&error(&bench, 11, &["init"]), &["not empty", "stranger", "empty folder"]);
    assert_eq!(bench.objects("a"), ["stranger"]);
    std::fs::remove_file(bench.region("a").join("stranger")).expect("removed");
    bench.ok(&["init"]);
    let before = bench.objects("a");
    error(&bench, 11, &["init"]);
    assert_eq!(bench.objects("a"), before);
}

/// The file for the recovery key is there already: then no repository is made whose recovery key nobody has.
#[test]
fn a_recovery_key_that_cannot_be_written_makes_no_repository() {
    let bench = Bench::empty(&["a"]);
    std::fs::write(bench.path("key"), b"precious").expect("file");
    names_all(&error(&bench, 2, &["init", "--recovery-key-out", "key"]), &["key"]);
    names_all(&error(&bench, 2, &["init", "--recovery-key-out", "no/such/dir"]), &["no/such/dir"]);
    assert_eq!(std::fs::read(bench.path("key")).expect("read"), b"precious");
    error(&bench, 10, &["snapshots"]);
    bench.ok(&["init", "--recovery-key-out", "new-key"]);
    bench.ok(&["key", "test", "--recovery-key-file", "new-key"]);
    // Nor is a key left of a repository that was not made.
    error(&bench, 11, &["init", "--recovery-key-out", "another-key"]);
    assert!(!bench.path("another-key").exists());
}

#[test]
fn forgetting() {
    let bench = backed_up(&["x", "x", "y"]);
    let all = ids(&bench.ok(&["snapshots"]));
    let before = bench.objects("a");
    names_all(&error(&bench, 11, &["forget", &all[2]]), &["last snapshot of y", "--last", &all[2][..8]]);
    error(&bench, 11, &["forget", &all[0], &all[1]]);
    // A refused run leaves its record, and nothing else.
    let lasting = |all: Vec<String>| all.into_iter().filter(|o| !o.starts_with("runs/")).collect::<Vec<_>>();
    assert_eq!(lasting(bench.objects("a")), lasting(before.clone()));
    assert_eq!(bench.ok(&["forget", &all[0], &all[0][..12]])["forgotten"], serde_json::json!([all[0]]));
    let gone = error(&bench, 1, &["restore", &all[0], "--target", "t"]);
    names_all(&gone, &["was forgotten", &all[0][..8]]);
    names_all(&error(&bench, 1, &["forget", &all[0]]), &["was forgotten"]);
    bench.ok(&["forget", "--last", "--reason", "no longer needed", "latest", "--name", "y"]);
    assert_eq!(ids(&bench.ok(&["snapshots"])), &all[1..2]);
    // Nothing was deleted.
    let after = bench.objects("a");
    assert!(before.iter().all(|object| after.contains(object)));
    bench.ok(&["restore", "latest", "--target", "back"]);
    crate::harness::assert_same(&bench.path("source"), &bench.path("back"));
}

#[test]
fn a_dry_run_of_a_backup_writes_nothing() {
    let bench = backed_up(&["x"]);
    let before = bench.objects("a");
    let dry = bench.ok(&["backup", "--dry-run", "source", "--name", "x"]);
    assert_eq!((&dry["snapshot"], &dry["files_unchanged"]), (&Value::Null, &dry["files"]));
    std::fs::write(bench.path("source/new"), noise(9, 1000)).expect("file");
    let dry = bench.ok(&["backup", "-n", "source", "--name", "x"]);
    assert_eq!((&dry["files_read"], &dry["bytes_read"]), (&1.into(), &1000.into()));
    let full = bench.ok(&["backup", "-n", "--full", "source", "--name", "x"]);
    assert_eq!(full["files_read"], full["files"]);
    assert_eq!(bench.objects("a"), before);
    let real = bench.ok(&["backup", "source", "--name", "x"]);
    assert_eq!((&real["files_read"], &real["bytes_read"]), (&1.into(), &1000.into()));
}

#[test]
fn verify_of_every_level_finds_what_it_should() {
    let bench = backed_up(&["x"]);
    for level in ["presence", "ciphertext", "content"] {
        let found = bench.ok(&["verify", "--level", level]);
        assert_eq!((&found["level"], &found["findings"]), (&level.into(), &serde_json::json!([])));
    }
    // Stored bytes need no key.
    let mut keyless = bench.command(&["--json", "verify", "--level", "ciphertext"]);
    let output = keyless.env_remove("HOLDFAST_PASSPHRASE").output().expect("the program runs");
    assert_eq!(told(&output).0, 0);
    let pack = files(&bench.region("a").join("packs")).into_iter().max_by_key(|p| p.metadata().map_or(0, |m| m.len()));
    let pack = pack.expect("a pack");
    let mut bytes = std::fs::read(&pack).expect("read");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&pack, bytes).expect("write");
    bench.ok(&["verify", "--level", "presence"]);
    let name = pack.file_name().expect("a name").to_str().expect("text");
    for level in ["ciphertext", "content"] {
        let (code, found) = bench.json(&["verify", "--level", level]);
        assert_eq!(code, 5);
        assert!(found["findings"].to_string().contains(name), "{found:#}");
    }
    std::fs::remove_file(&pack).expect("removed");
    let (code, found) = bench.json(&["verify"]);
    assert_eq!(code, 5);
    assert!(found["findings"].to_string().contains(name), "{found:#}");
    let (code, text) = told(&bench.run(&["verify"]).1);
    assert_eq!((code, text.lines().count()), (5, 0), "{text}");
}

#[test]
fn the_configuration_is_found_and_its_mistakes_are_named() {
    let bench = Bench::empty(&["a"]);
    let region = bench.region("a").display().to_string();
    let good = format!(
        "apiVersion: holdfast.io/v1alpha1\nkind: Repository\nmetadata:\n  name: main\nspec:\n  regions:\n    - {{name: disk, url: {region}}}\n"
    );
    let run = |args: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast"));
        command.args(args).env("HOLDFAST_PASSPHRASE", crate::harness::PASSPHRASE).stdin(Stdio::null());
        command.env("HOLDFAST_STATE", bench.path("state"));
        command.env("HOME", bench.path("home")).env_remove("XDG_CONFIG_HOME").current_dir(bench.dir.path());
        let output = command.output().expect("the program runs");
        (told(&output), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let ((code, text), _) = run(&["snapshots"]);
    assert_eq!(code, 2);
    names_all(&text, &["holdfast.yaml", "--region NAME=PATH"]);
    std::fs::write(bench.path("holdfast.yaml"), &good).expect("file");
    assert_eq!(run(&["init", "--no-recovery-key"]).0.0, 0);
    assert_eq!(run(&["snapshots"]), ((0, String::new()), "no snapshots\n".into()));
    std::fs::create_dir_all(bench.path("home/.config/holdfast")).expect("directory");
    std::fs::rename(bench.path("holdfast.yaml"), bench.path("home/.config/holdfast/holdfast.yaml")).expect("renamed");
    assert_eq!(run(&["snapshots"]).0.0, 0);
    std::fs::write(bench.path("other.yaml"), &good).expect("file");
    assert_eq!(run(&["--config", "other.yaml", "snapshots"]).0.0, 0);
    std::fs::write(bench.path("bad.yaml"), good.replace("  regions:", "  regoins:")).expect("file");
    let ((code, text), _) = run(&["--config", "bad.yaml", "snapshots"]);
    assert_eq!((code, text.lines().count()), (2, 1), "{text}");
    names_all(&text, &["bad.yaml:6", "regoins"]);
    std::fs::write(bench.path("bad.yaml"), "a: [\n").expect("file");
    let ((code, text), _) = run(&["--config", "bad.yaml", "snapshots"]);
    assert_eq!((code, text.lines().count()), (2, 1), "{text}");
    names_all(&text, &["bad.yaml:"]);
    let ((code, text), _) = run(&["--config", "none.yaml", "snapshots"]);
    assert_eq!((code, text.lines().count()), (2, 1), "{text}");
    names_all(&text, &["none.yaml"]);
}

/// Names from a source, a snapshot or an argument reach no terminal as they are.
#[test]
fn control_characters_never_reach_a_terminal() {
    let bench = Bench::new(&["a"]);
    let evil = "evil\u{1b}]0;title\u{7}\nholdfast: all is well";
    std::fs::create_dir(bench.path(evil)).expect("directory");
    std::fs::write(bench.path(evil).join(".holdfastignore"), "[\n").expect("file");
    let told_all = |code: i32, args: &[&str]| {
        let output = bench.run(args).1;
        assert_eq!(told(&output).0, code, "{args:?}");
        for line in [&output.stdout, &output.stderr].iter().flat_map(|out| out.split(|b| *b == b'\n')) {
            assert!(!line.iter().any(u8::is_ascii_control), "{args:?}: {}", String::from_utf8_lossy(line));
            assert!(!line.starts_with(b"holdfast: all is well"), "{args:?}");
        }
    };
    told_all(3, &["backup", evil, "--tag", evil]);
    told_all(0, &["snapshots"]);
    told_all(1, &["backup", &format!("{evil}/none")]);
    told_all(1, &["ls", &format!("latest:{evil}")]);
    told_all(1, &["ls", evil]);
    told_all(0, &["restore", "latest", "--target", &format!("{evil}/target")]);
    told_all(1, &["restore", "latest", "--target", &format!("{evil}/.holdfastignore")]);
    told_all(0, &["forget", "latest", "--last"]);
}
