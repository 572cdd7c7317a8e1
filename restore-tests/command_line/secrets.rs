//! Where the secret comes from, and where it never goes.

use super::{error, names_all, told};
use crate::harness::{Bench, PASSPHRASE, small_tree};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

fn secret_file(bench: &Bench, name: &str, content: &str, mode: u32) -> String {
    let path = bench.path(name);
    std::fs::write(&path, content).expect("file");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("mode");
    path.display().to_string()
}

#[test]
fn by_environment_and_by_file() {
    let bench = Bench::new(&["a"]);
    let run = |env: Option<&str>, args: &[&str]| {
        let mut command = bench.command(args);
        command.env_remove("HOLDFAST_PASSPHRASE");
        if let Some(value) = env {
            command.env("HOLDFAST_PASSPHRASE", value);
        }
        told(&command.output().expect("the program runs"))
    };
    let good = secret_file(&bench, "good", &format!("{PASSPHRASE}\n"), 0o600);
    let bad = secret_file(&bench, "bad", "something else entirely", 0o600);
    let open = secret_file(&bench, "open", PASSPHRASE, 0o644);
    assert_eq!(run(Some(PASSPHRASE), &["snapshots"]), (0, String::new()));
    assert_eq!(run(None, &["--passphrase-file", &good, "snapshots"]), (0, String::new()));
    // A file goes before the environment.
    assert_eq!(run(Some("wrong"), &["--passphrase-file", &good, "snapshots"]), (0, String::new()));
    let (code, text) = run(None, &["--passphrase-file", &open, "snapshots"]);
    assert_eq!(code, 0);
    names_all(&text, &["warning", "open"]);
    for (env, args) in [
        (Some("wrong"), &["snapshots"][..]),
        (Some(PASSPHRASE), &["--passphrase-file", &bad, "snapshots"]),
        (Some(""), &["snapshots"]),
        (None, &["snapshots"]),
    ] {
        let (code, text) = run(env, args);
        assert_eq!((code, text.lines().count()), (12, 1), "{env:?} {args:?}: {text}");
        assert!(!text.contains(PASSPHRASE) && !text.contains("something else entirely"), "{text}");
    }
    names_all(&run(None, &["snapshots"]).1, &["no key was given", "--passphrase-file", "HOLDFAST_PASSPHRASE"]);
    assert_ne!(run(None, &["--passphrase-file", "none", "snapshots"]).0, 0);
}

/// Interrupted at the question, on a terminal: whoever goes on there must see what he types.
const AT_THE_QUESTION: &str = "
import os, pty, sys, termios
fd, tty = pty.openpty()
pid = os.fork()
if pid == 0:
    os.setsid()
    os.open(os.ttyname(tty), os.O_RDWR)
    for n in 0, 1, 2: os.dup2(tty, n)
    os.execv(sys.argv[1], sys.argv[1:])
seen = b''
shown = lambda: bool(termios.tcgetattr(tty)[3] & termios.ECHO)
while b'passphrase: ' not in seen: seen += os.read(fd, 100)
before = shown()
os.write(fd, b'hunter2' + bytes.fromhex(sys.stdin.read()))
code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
print(code, before, shown(), b'hunter2' in seen + os.read(fd, 1000))
";

#[test]
fn the_terminal_is_given_back() {
    let bench = Bench::new(&["a"]);
    let region = format!("a={}", bench.region("a").display());
    // Ctrl-C, and a wrong passphrase.
    for (key, code) in [("03", 130), ("0a", 12)] {
        let mut command = Command::new("python3");
        command.args(["-c", AT_THE_QUESTION, env!("CARGO_BIN_EXE_holdfast"), "--region", &region, "snapshots"]);
        command.env_remove("HOLDFAST_PASSPHRASE").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("python3 is needed");
        child.stdin.take().expect("piped").write_all(key.as_bytes()).expect("written");
        let output = child.wait_with_output().expect("it ends");
        let out = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(out.trim(), format!("{code} False True False"), "{key}");
    }
}

/// There is no option that takes the secret itself.
#[test]
fn never_by_argument() {
    let bench = Bench::new(&["a"]);
    for option in ["--passphrase", "--password", "--key", "--recovery-key"] {
        let (code, text) = told(&bench.run(&[option, PASSPHRASE, "snapshots"]).1);
        assert_eq!(code, 2, "{option}: {text}");
    }
    let (_, output) = bench.run(&["key", "add", "--help"]);
    let help = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(!help.contains("<PASSPHRASE>") && help.contains("--new-passphrase-file <FILE>"));
}

/// Runs on a terminal of its own; types a line whenever a question was asked.
fn on_a_terminal(bench: &Bench, args: &str, typed: &[&str]) -> (i32, String) {
    let command = format!("{} --region a={} {args}", env!("CARGO_BIN_EXE_holdfast"), bench.region("a").display());
    let mut child = Command::new("script")
        .args(["--quiet", "--return", "--echo", "never", "--command", &command, "/dev/null"])
        .env_remove("HOLDFAST_PASSPHRASE")
        .env("NO_COLOR", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .current_dir(bench.dir.path())
        .spawn()
        .expect("script runs");
    let mut input = child.stdin.take().expect("a pipe");
    let mut output = child.stdout.take().expect("a pipe");
    let (mut text, mut typed, mut answered) = (Vec::new(), typed.iter(), 0);
    let mut byte = [0];
    while output.read(&mut byte).is_ok_and(|n| n == 1) {
        text.push(byte[0]);
        let question = [&b"passphrase: "[..], b"words): ", b"again: "].iter().any(|q| text[answered..].ends_with(q));
        if question && let Some(line) = typed.next() {
            input.write_all(format!("{line}\n").as_bytes()).expect("typed");
            answered = text.len();
        }
    }
    (child.wait().expect("an end").code().unwrap_or(-1), String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn by_a_question_on_the_terminal() {
    let bench = Bench::new(&["a"]);
    let (code, text) = on_a_terminal(&bench, "snapshots", &[PASSPHRASE]);
    assert_eq!(code, 0, "{text}");
    names_all(&text, &["passphrase: ", "no snapshots"]);
    assert!(!text.contains(PASSPHRASE), "what is typed is not shown: {text}");
    let (code, text) = on_a_terminal(&bench, "snapshots", &["wrong"]);
    assert_eq!(code, 12, "{text}");
    // A new repository asks twice.
    let other = Bench::empty(&["a"]);
    let (code, text) = on_a_terminal(&other, "init --no-recovery-key", &[PASSPHRASE, "another one"]);
    assert_eq!(code, 2, "{text}");
    names_all(&text, &["differ"]);
    let (code, text) = on_a_terminal(&other, "init --no-recovery-key", &[PASSPHRASE, PASSPHRASE]);
    assert_eq!(code, 0, "{text}");
    other.ok(&["snapshots"]);
}

/// With `NO_COLOR` a terminal sees text and no colours.
#[test]
fn no_colours_where_none_are_wanted() {
    let bench = Bench::new(&["a"]);
    let (code, text) = on_a_terminal(&bench, "backup", &[]);
    assert_eq!(code, 2);
    assert!(text.contains("Usage") && !text.contains('\u{1b}'), "{text:?}");
}

#[test]
fn weak_ones_are_refused_and_none_is_shown() {
    let bench = Bench::empty(&["a"]);
    let init = |args: &[&str]| {
        let mut command = bench.command(&[&["init", "--no-recovery-key"], args].concat());
        told(&command.env("HOLDFAST_PASSPHRASE", "abc123").output().expect("the program runs"))
    };
    let (code, text) = init(&[]);
    assert_eq!(code, 11);
    names_all(&text, &["too easy to guess", "--generate-passphrase"]);
    assert!(!text.contains("abc123"));
    let (code, text) = init(&["--weak-passphrase"]);
    assert_eq!((code, text.contains("abc123")), (0, false), "{text}");
    assert!(text.contains("warning"));
    names_all(&error(&bench, 12, &["snapshots"]), &["holdfast: "]);
}

/// Nothing of the secret or of the content in what is stored, or in what is said.
#[test]
fn nothing_of_the_content_is_stored_in_plain() {
    let bench = Bench::new(&["a"]);
    small_tree(&bench.path("source"));
    let (_, output) = bench.run(&["backup", "source", "--name", "a-telling-name"]);
    assert!(!told(&output).1.contains(PASSPHRASE));
    for file in crate::harness::files(&bench.region("a")) {
        let bytes = std::fs::read(&file).expect("read");
        for secret in [PASSPHRASE, "a-telling-name", "all work and no play", "note-3"] {
            let there = bytes.windows(secret.len()).any(|w| w == secret.as_bytes());
            assert!(!there, "{secret} in {}", file.display());
        }
    }
}
