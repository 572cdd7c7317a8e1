//! What is installed: manifests, units, the image and the static program in it.

mod manifests;
mod pod;
mod runs;
mod units;

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn root(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn text(name: &str) -> String {
    std::fs::read_to_string(root(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// A Python program that `scripts/test` installs.
fn tool(name: &str) -> Command {
    let path = root(".tools/venv/bin").join(name);
    assert!(path.exists(), "{name} is missing: run scripts/test");
    Command::new(path)
}

/// Runs the program in a folder; exit code, standard output, standard error.
fn holdfast(dir: &Path, args: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast"));
    let out = command.args(args).current_dir(dir).env("HOME", dir).output().expect("the program runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (out.status.code().unwrap_or(-1), text(out.stdout), text(out.stderr))
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The documents of a YAML text, read by somebody else's parser.
fn documents(yaml: &Path) -> Vec<Value> {
    const READ: &str = "import json, sys, yaml; print(json.dumps(list(yaml.safe_load_all(open(sys.argv[1])))))";
    let out = tool("python").args(["-c", READ]).arg(yaml).output().expect("python");
    assert!(out.status.success(), "{}", said(&out));
    serde_json::from_slice(&out.stdout).expect("JSON")
}

/// The static program, not older than what it is made of.
fn static_program() -> PathBuf {
    let path = root("target/image/quick/holdfast");
    let built = std::fs::metadata(&path).and_then(|meta| meta.modified());
    let built = built.unwrap_or_else(|e| panic!("the static program is missing: run scripts/static quick: {e}"));
    let changed = |path: &Path| std::fs::metadata(path).and_then(|meta| meta.modified()).expect("a source");
    let sources = crate::harness::files(&root("src"));
    for source in sources.iter().chain(&[root("Cargo.toml"), root("Cargo.lock")]) {
        assert!(changed(source) <= built, "{} is newer: run scripts/static quick", source.display());
    }
    path
}

#[test]
fn the_static_program_needs_nothing() {
    let path = static_program();
    let out = Command::new("readelf").args(["--program-headers", "--dynamic"]).arg(&path).output().expect("readelf");
    let headers = said(&out);
    assert!(out.status.success() && headers.contains("LOAD"), "{headers}");
    assert!(!headers.contains("INTERP") && !headers.contains("NEEDED"), "{headers}");
    let empty = tempfile::TempDir::new().unwrap();
    std::fs::copy(&path, empty.path().join("holdfast")).unwrap();
    let out = Command::new("/usr/sbin/chroot")
        .arg(empty.path())
        .args(["/holdfast", "--version"])
        .env_clear()
        .output()
        .unwrap();
    assert_eq!(said(&out).trim(), format!("holdfast {}", env!("CARGO_PKG_VERSION")));
}

/// Folder regions are reached through /proc: without it nothing is written to the folder of that name.
#[test]
fn without_proc_nothing_is_written() {
    let empty = tempfile::TempDir::new().unwrap();
    std::fs::copy(static_program(), empty.path().join("holdfast")).unwrap();
    std::fs::create_dir(empty.path().join("region")).unwrap();
    std::fs::write(empty.path().join("key"), [7; 32]).unwrap();
    let args = ["/holdfast", "init", "--region", "a=/region", "--key-file", "/key", "--no-recovery-key"];
    let out = Command::new("/usr/sbin/chroot").arg(empty.path()).args(args).output().unwrap();
    assert!(!out.status.success() && said(&out).contains("/proc is not mounted"), "{}", said(&out));
    assert!(!empty.path().join("proc").exists(), "a folder was made");
}

#[test]
fn the_image_is_the_static_program() {
    let out = tool("hadolint").arg(root("deploy/Containerfile")).output().expect("hadolint");
    assert!(out.status.success() && said(&out).is_empty(), "{}", said(&out));
    let file = text("deploy/Containerfile").replace("\\\n", " ");
    let lines: Vec<Vec<&str>> =
        file.lines().filter(|l| !l.starts_with('#')).map(|l| l.split_whitespace().collect()).collect();
    let one = |instruction: &str| {
        let found: Vec<&Vec<&str>> = lines.iter().filter(|l| l[0] == instruction).collect();
        assert_eq!(found.len(), 1, "{instruction}");
        found[0][1..].join(" ")
    };
    assert_eq!(one("FROM"), "scratch");
    // The context is the folder of what scripts/static makes.
    assert_eq!(one("COPY"), "--chmod=0555 holdfast /holdfast/bin/holdfast");
    assert!(file.contains("target/image/release") && text("scripts/static").contains("target/image/$profile/holdfast"));
    assert!(one("LABEL").contains(&format!("image.version=\"{}\"", env!("CARGO_PKG_VERSION"))));
    // The pod of a CronJob agrees with the image, and needs nothing of it but the program.
    let job = &documents(&root("deploy/cronjob/home.yaml"))[1];
    let pod = &job["spec"]["jobTemplate"]["spec"]["template"]["spec"];
    let (user, container) = (&pod["securityContext"], &pod["containers"][0]);
    assert_eq!(one("USER"), format!("{}:{}", user["runAsUser"], user["runAsGroup"]));
    assert_eq!(one("ENTRYPOINT"), container["command"].to_string());
    assert_eq!(one("ENV"), format!("HOLDFAST_STATE={}", container["env"][0]["value"].as_str().unwrap()));
}
