//! Runs that could not begin: the repository cannot be opened, so there is no catalog to be told. A small file a policy
//! in the state folder says so until a run of the policy begins again. Best effort.

use crate::base::TimeMs;
use crate::error::{Error, Kind, Result};
use serde_json::json;
use std::fs::{DirBuilder, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Largest file that is read.
const FILE_BYTES_MAX: u64 = 64 << 10;
/// Longest reason that is kept.
const WHY_CHARS_MAX: usize = 2000;

/// A run that could not begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotBegun {
    /// What was to be done.
    pub kind: String,
    /// When.
    pub at: TimeMs,
    /// Exit code.
    pub exit: u8,
    /// Why.
    pub why: String,
}

/// Names of policies are labels: they are names of files, too.
fn path_of(state: &Path, policy: &str) -> PathBuf {
    state.join("not-begun").join(format!("{policy}.json"))
}

/// What is known of a policy. What cannot be read is not known.
pub fn of(state: &Path, policy: &str) -> Option<NotBegun> {
    let mut text = String::new();
    let file = OpenOptions::new().read(true).open(path_of(state, policy)).ok()?;
    file.take(FILE_BYTES_MAX).read_to_string(&mut text).ok()?;
    let value: serde_json::Value = serde_json::from_str(&text).ok()?;
    Some(NotBegun {
        kind: value["kind"].as_str()?.to_owned(),
        at: TimeMs(value["at"].as_i64()?),
        exit: u8::try_from(value["exit"].as_u64()?).ok()?,
        why: value["why"].as_str()?.to_owned(),
    })
}

/// A run of the policy could not begin.
///
/// # Errors
/// The file cannot be written.
pub fn keep(state: &Path, policy: &str, run: &NotBegun) -> Result<()> {
    let path = path_of(state, policy);
    let why: String = run.why.chars().take(WHY_CHARS_MAX).collect();
    let text = json!({"kind": run.kind, "at": run.at.0, "exit": run.exit, "why": why}).to_string();
    let written = (|| {
        DirBuilder::new().recursive(true).mode(0o700).create(path.parent().unwrap_or(state))?;
        let new = path.with_extension("new");
        let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&new)?;
        file.write_all(text.as_bytes())?;
        std::fs::rename(&new, &path)
    })();
    written.map_err(|e: std::io::Error| {
        Error::new(Kind::Retry, format!("`holdfast status` will not know of it: {e}")).at(path.display())
    })
}

/// One began.
pub fn clear(state: &Path, policy: &str) {
    // It was never there, or the folder cannot be written: then it is told once more.
    let _ = std::fs::remove_file(path_of(state, policy));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_told_until_it_is_cleared_and_nonsense_is_not() {
        let state = tempfile::TempDir::new().unwrap();
        let run = NotBegun { kind: "full".into(), at: TimeMs(7), exit: 10, why: "no \"disk\"\n".into() };
        assert_eq!(of(state.path(), "home"), None);
        keep(state.path(), "home", &run).unwrap();
        assert_eq!((of(state.path(), "home"), of(state.path(), "other")), (Some(run.clone()), None));
        keep(state.path(), "home", &NotBegun { why: "x".repeat(1 << 20), ..run.clone() }).unwrap();
        assert_eq!(of(state.path(), "home").unwrap().why.len(), WHY_CHARS_MAX);
        for text in ["", "[]", "{\"kind\":1}", "{\"kind\":\"full\",\"at\":7,\"exit\":999,\"why\":\"\"}"] {
            std::fs::write(path_of(state.path(), "home"), text).unwrap();
            assert_eq!(of(state.path(), "home"), None, "{text}");
        }
        clear(state.path(), "home");
        assert!(!path_of(state.path(), "home").exists());
    }
}
