//! docs/operating.md does what it says: its shell blocks run one after the other, on a machine that has only what they
//! make.

use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

/// The shell blocks of the page, in order.
fn blocks() -> Vec<String> {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operating.md")).unwrap();
    let fenced: Vec<&str> = page.split("```").skip(1).step_by(2).collect();
    let known = fenced.iter().all(|block| block.starts_with("sh\n") || block.starts_with("console\n"));
    assert!(known, "a block is neither run nor marked as one that is not");
    fenced.iter().filter_map(|block| block.strip_prefix("sh\n")).map(str::to_owned).collect()
}

/// Folders that the page names, empty and only for it, over the machine's own. What is needed of the checkout is reached from
/// the working directory: it may lie in one of them.
const MACHINE: &str = r#"
set -eu
mkdir "$1/upper" "$1/work"
mount -t overlay overlay -o "lowerdir=/etc,upperdir=$PWD/$1/upper,workdir=$PWD/$1/work" /etc
for folder in /mnt /srv /tmp /root /var/lib /usr/local/bin; do mount -t tmpfs tmpfs "$folder"; done
rm -rf /etc/holdfast
cp "$1/program" /usr/local/bin/holdfast
mkdir /srv/data
echo 'the figures of March' > /srv/data/report.txt
cp -r docs /srv/data/
export HOME=/root PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
unset HOLDFAST_PASSPHRASE HOLDFAST_STATE XDG_CONFIG_HOME XDG_STATE_HOME
exec bash -euo pipefail "$1/page.sh"
"#;

#[test]
fn the_page_does_what_it_says() {
    let blocks = blocks();
    assert!(blocks.len() >= 10, "{}", blocks.len());
    let dir = TempDir::new_in(Path::new(env!("CARGO_MANIFEST_DIR")).join("target")).unwrap();
    // Each block says its number before it begins.
    let script: String =
        blocks.iter().enumerate().map(|(n, block)| format!("echo '== block {}' >&2\n{block}\n", n + 1)).collect();
    std::fs::write(dir.path().join("page.sh"), script).unwrap();
    std::fs::copy(env!("CARGO_BIN_EXE_holdfast"), dir.path().join("program")).unwrap();
    let mut command = Command::new("unshare");
    command.args(["--mount", "bash", "-c", MACHINE, "machine"]);
    command.arg(Path::new("target").join(dir.path().file_name().unwrap())).current_dir(env!("CARGO_MANIFEST_DIR"));
    let out = command.output().expect("unshare is needed");
    let (said, errors) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{:?}\n{said}\n{errors}", out.status);
    for part in ["no mistake", "1 sources: 1 protected", "the figures of March", "0 findings"] {
        assert!(said.contains(part), "{part}: {said}");
    }
}
