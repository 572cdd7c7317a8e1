//! The files of a tree with their verdicts, gathered entry by entry.

use super::{Judged, Report, attribute};
use crate::format::tree::{Entry, EntryType};
use crate::model::verdict::{FileVerdict, Named, Signed, blob_name};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

/// How many links may lead to each other.
const LINKS_MAX: u32 = 16;

/// What is known so far. Paths are relative to the tree's root.
#[derive(Debug, Default)]
pub struct Gathered {
    path: PathBuf,
    report: Report,
    /// Links, and what they say.
    links: Vec<(PathBuf, PathBuf)>,
}

impl Gathered {
    /// Into a directory; the root has no name.
    pub fn enter(&mut self, name: &[u8]) {
        self.path.push(OsStr::from_bytes(name));
    }

    /// Out of it again.
    pub fn leave(&mut self) {
        self.path.pop();
    }

    /// An entry of the directory; its attributes stand in it.
    pub fn entry(&mut self, entry: &Entry) {
        let path = self.path.join(OsStr::from_bytes(&entry.name));
        match (entry.kind, attribute::of(entry)) {
            (EntryType::File, Some(recorded)) => {
                let text = |name: Option<&OsStr>| name.and_then(OsStr::to_str).unwrap_or_default().to_owned();
                let parent = text(self.path.file_name());
                let blob = Named::of(blob_name(&parent, &text(path.file_name())), recorded.sha256);
                let verdict = FileVerdict {
                    sha256: recorded.sha256,
                    blob,
                    sums: Named::None,
                    signed: Signed::None,
                    pickle: recorded.pickle,
                };
                self.report.files.push(Judged { path, bytes: entry.size(), verdict });
            }
            (EntryType::File, None) => self.report.errors.push((path, "it has no verdict".into())),
            (EntryType::Symlink, _) => {
                let target = entry.target.as_ref().map(|target| target.to_vec()).unwrap_or_default();
                self.links.push((path, PathBuf::from(OsStr::from_bytes(&target))));
            }
            _ => {}
        }
    }

    /// All files, by path. A link to a file is one, as in the caches of Hugging Face; one that leads out of the tree, to a
    /// folder or to nothing is none.
    pub fn finish(self) -> Report {
        let Gathered { mut report, links, .. } = self;
        let linked: Vec<Judged> = {
            let files: HashMap<&Path, &Judged> = if links.is_empty() {
                HashMap::new()
            } else {
                report.files.iter().map(|file| (&*file.path, file)).collect()
            };
            let by_path: HashMap<&Path, &Path> = links.iter().map(|(path, target)| (&**path, &**target)).collect();
            let found = links.iter().filter_map(|(path, target)| Some((path, follow(path, target, &files, &by_path)?)));
            found.map(|(path, file)| Judged { path: path.clone(), ..file.clone() }).collect()
        };
        report.files.extend(linked);
        report.files.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        report
    }
}

/// The file that a link leads to.
fn follow<'f>(
    path: &Path,
    target: &Path,
    files: &HashMap<&Path, &'f Judged>,
    links: &HashMap<&Path, &Path>,
) -> Option<&'f Judged> {
    let mut at = step(path, target)?;
    for _ in 0..LINKS_MAX {
        if let Some(file) = files.get(&*at) {
            return Some(file);
        }
        at = step(&at, links.get(&*at)?)?;
    }
    None
}

/// Where a link at a path leads; `None`: out of the tree.
pub(super) fn step(path: &Path, target: &Path) -> Option<PathBuf> {
    let mut at = path.parent()?.to_path_buf();
    for part in target.components() {
        match part {
            Component::Normal(name) => at.push(name),
            Component::ParentDir => at.pop().then_some(())?,
            Component::CurDir => {}
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    Some(at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::recorded::Recorded;

    fn file(name: &str, content: &[u8]) -> Entry {
        let mut entry = Entry { size: Some(content.len() as u64), ..Entry::bare(name.as_bytes(), EntryType::File) };
        attribute::put(&mut entry, &Recorded::of(content));
        entry
    }

    fn link(name: &str, target: &str) -> Entry {
        Entry { target: Some(target.as_bytes().to_vec().into()), ..Entry::bare(name.as_bytes(), EntryType::Symlink) }
    }

    #[test]
    fn links_of_a_cache_are_files_and_others_are_not() {
        let hash = Recorded::of(b"weights").sha256.hex();
        let mut all = Gathered::default();
        all.enter(b"");
        all.enter(b"blobs");
        all.entry(&file(&hash, b"weights"));
        all.entry(&file(&"0".repeat(64), b"others"));
        all.leave();
        all.enter(b"snapshots");
        for (name, target) in [
            ("a", format!("../blobs/{hash}")),
            ("b", "a".into()),
            ("c", "../../blobs/x".into()),
            ("d", "d".into()),
            ("e", "../blobs".into()),
            ("f", format!("/blobs/{hash}")),
        ] {
            all.entry(&link(name, &target));
        }
        all.leave();
        all.entry(&Entry::bare(b"unjudged", EntryType::File));
        let report = all.finish();
        let paths: Vec<String> = report.files.iter().map(|file| file.path.display().to_string()).collect();
        let blobs = [format!("blobs/{}", "0".repeat(64)), format!("blobs/{hash}")];
        let mut wanted = vec![blobs[0].clone(), blobs[1].clone(), "snapshots/a".into(), "snapshots/b".into()];
        wanted.sort();
        assert_eq!(paths, wanted);
        let named: Vec<Named> = report.files.iter().map(|file| file.verdict.blob).collect();
        assert_eq!(named.iter().filter(|named| **named == Named::Different).count(), 1);
        assert_eq!(named.iter().filter(|named| **named == Named::Same).count(), 3);
        assert_eq!(report.errors.len(), 1);
    }
}
