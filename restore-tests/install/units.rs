//! The units of systemd, judged by systemd.

use super::{root, said};
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

const KINDS: [&str; 4] = ["incremental", "full", "verify", "prune"];

fn unit(name: &str) -> String {
    super::text(&format!("deploy/systemd/{name}"))
}

/// A machine with the units, the program and the targets of systemd.
fn machine() -> TempDir {
    let dir = TempDir::new().unwrap();
    let copy = |from: &Path, to: &str| {
        let to = dir.path().join(to);
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(from, &to).unwrap_or_else(|e| panic!("{}: {e}", from.display()));
    };
    copy(Path::new(env!("CARGO_BIN_EXE_holdfast")), "usr/local/bin/holdfast");
    copy(Path::new("/bin/kill"), "bin/kill");
    for entry in std::fs::read_dir("/lib/systemd/system").expect("systemd is needed").flatten() {
        let name = entry.file_name().into_string().unwrap();
        if name.ends_with(".target") {
            copy(&entry.path(), &format!("usr/lib/systemd/system/{name}"));
        }
    }
    for entry in std::fs::read_dir(root("deploy/systemd")).unwrap().flatten() {
        copy(&entry.path(), &format!("etc/systemd/system/{}", entry.file_name().into_string().unwrap()));
    }
    dir
}

fn verified(machine: &TempDir) -> (bool, String) {
    let mut units = vec!["holdfast.service".to_owned()];
    units.extend(KINDS.iter().flat_map(|k| ["service", "timer"].map(|e| format!("holdfast-{k}@home.{e}"))));
    let mut command = Command::new("systemd-analyze");
    command.arg("verify").arg(format!("--root={}", machine.path().display()));
    let out = command.args(units).output().expect("systemd-analyze is needed");
    (out.status.success(), said(&out))
}

#[test]
fn systemd_understands_the_units() {
    let machine = machine();
    assert_eq!(verified(&machine), (true, String::new()));
    // It would have said what it does not understand.
    let path = machine.path().join("etc/systemd/system/holdfast.service");
    std::fs::write(&path, unit("holdfast.service").replace("ProtectHome=", "ProtectHmoe=")).unwrap();
    assert!(verified(&machine).1.contains("ProtectHmoe"));
}

#[test]
fn the_units_allow_little() {
    let names = KINDS.map(|kind| format!("holdfast-{kind}@.service"));
    for name in names.iter().map(String::as_str).chain(["holdfast.service"]) {
        let mut command = Command::new("systemd-analyze");
        command.args(["security", "--offline=true", "--no-pager", "--threshold=25"]);
        let out = command.arg(root("deploy/systemd").join(name)).output().expect("systemd-analyze is needed");
        assert!(out.status.success(), "{name}: {}", said(&out));
        let text = unit(name);
        assert!(text.contains("CapabilityBoundingSet=CAP_DAC_READ_SEARCH\n"), "{name}");
        // What is below /tmp and /var/tmp can be a source: a private one would be empty.
        assert!(!text.contains("PrivateTmp=yes") && text.contains("ProtectSystem=strict\n"), "{name}");
        assert!(text.contains("LoadCredential=passphrase:") && !text.contains("HOLDFAST_PASSPHRASE"), "{name}");
    }
}

#[test]
fn the_templates_are_one() {
    let service = |kind: &str| unit(&format!("holdfast-{kind}@.service"));
    assert!(KINDS.iter().all(|kind| service(kind) == service("full")), "the services differ");
    let timer = |kind: &str| {
        let text = unit(&format!("holdfast-{kind}@.timer"));
        text.split_once("[Timer]")
            .unwrap()
            .1
            .lines()
            .filter(|l| !l.starts_with("OnCalendar="))
            .collect::<Vec<_>>()
            .join("\n")
    };
    assert!(KINDS.iter().all(|kind| timer(kind) == timer("full")), "the timers differ");
    // What protects is the same with and without the daemon.
    let hard =
        |text: String| text.split_once("# Backups give way").unwrap().1.split("[Install]").next().unwrap().to_owned();
    assert_eq!(hard(service("full")).trim(), hard(unit("holdfast.service")).trim());
}
