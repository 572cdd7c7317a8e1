//! The files of a tree with their verdicts, gathered entry by entry.

use super::beside::why;
use super::links::{Stands, resolve};
use super::{Judged, Report, attribute};
use crate::error::Error;
use crate::format::tree::{Entry, EntryType};
use crate::model::recorded::Malformed;
use crate::model::verdict::{FileVerdict, Named, Signed, blob_name};
use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Of so many files all findings are kept, of others the worst: a store of 200,000 files whose pickles nobody knows must not
/// take the memory of a backup.
const FILES_TOLD_WHOLE: usize = 4096;

/// What is known so far. Paths are relative to the tree's root.
#[derive(Debug, Default)]
pub struct Gathered {
    path: PathBuf,
    report: Report,
    /// Links, and what they say.
    links: Vec<(PathBuf, PathBuf)>,
    /// Files with more than one finding.
    told_whole: usize,
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

    /// Where an entry of the directory is.
    pub fn path_of(&self, entry: &Entry) -> PathBuf {
        self.path.join(OsStr::from_bytes(&entry.name))
    }

    /// A file that could not be judged.
    pub fn failed(&mut self, path: PathBuf, e: &Error) {
        self.report.errors.push((path, e.to_string()));
    }

    /// An entry of the directory; its attributes stand in it.
    pub fn entry(&mut self, entry: &Entry) {
        let path = self.path_of(entry);
        match (entry.kind, attribute::of(entry)) {
            (EntryType::File, Some(mut recorded)) => {
                if let Some(malformed) = recorded.malformed.take() {
                    self.malformed(&path, malformed);
                }
                let findings = &mut recorded.pickle.findings;
                if findings.len() > 1 {
                    self.told_whole = self.told_whole.saturating_add(1);
                }
                if self.told_whole > FILES_TOLD_WHOLE {
                    findings.truncate(1);
                    findings.shrink_to_fit();
                }
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

    fn malformed(&mut self, path: &Path, malformed: Malformed) {
        let report = &mut self.report;
        report.malformed_total = report.malformed_total.saturating_add(1);
        if report.malformed.len() < Report::MALFORMED_MAX {
            // Whoever made the snapshot may have written what he liked.
            report.malformed.push((path.to_owned(), malformed.short()));
        }
    }

    /// All files, by path. A link to a file is one, as in the caches of Hugging Face. One that leads elsewhere (out of the
    /// tree, to a folder, to nothing) is told: who loads it would load what was not judged.
    pub fn finish(self) -> Report {
        let Gathered { mut report, links, .. } = self;
        if !links.is_empty() {
            let followed: Vec<_> = {
                let known = Known::of(&report.files, &links);
                links.iter().map(|(path, _)| (path.clone(), known.follow(path).cloned())).collect()
            };
            for (path, file) in followed {
                match file {
                    Ok(file) => report.files.push(Judged { path, ..file }),
                    Err(e) => report.errors.push((path, why(&e))),
                }
            }
        }
        report.files.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        report
    }
}

/// What stands where, for who follows links.
struct Known<'g> {
    files: HashMap<&'g Path, &'g Judged>,
    links: HashMap<&'g Path, &'g Path>,
    /// Directories that have a file or a link, or one below.
    dirs: HashSet<&'g Path>,
}

impl<'g> Known<'g> {
    fn of(files: &'g [Judged], links: &'g [(PathBuf, PathBuf)]) -> Self {
        let mut dirs = HashSet::new();
        for path in files.iter().map(|file| &*file.path).chain(links.iter().map(|(path, _)| &**path)) {
            // Those above one that is known are known, too.
            path.ancestors().skip(1).take_while(|dir| dirs.insert(*dir)).for_each(drop);
        }
        Known {
            files: files.iter().map(|file| (&*file.path, file)).collect(),
            links: links.iter().map(|(path, target)| (&**path, &**target)).collect(),
            dirs,
        }
    }

    /// The file that a link leads to.
    fn follow(&self, path: &Path) -> io::Result<&'g Judged> {
        let at = resolve(path, &mut |at| {
            Ok(match (self.files.contains_key(at), self.links.get(at)) {
                (true, _) => Stands::File,
                (false, Some(target)) => Stands::Link(target.to_path_buf()),
                (false, None) if self.dirs.contains(at) => Stands::Dir,
                (false, None) => Stands::Nothing,
            })
        })?;
        self.files.get(&*at).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }
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
    fn of_many_files_the_worst_finding_is_kept() {
        use crate::model::verdict::{Grade, Report as Walked};
        let mut found = Walked::default();
        found.add(Grade::Unknown, "", 1, "first");
        found.add(Grade::Unsafe, "", 2, "worst");
        let recorded = Recorded::new(Recorded::of(b"x").sha256, found);
        let mut all = Gathered::default();
        for number in 0..FILES_TOLD_WHOLE + 2 {
            let mut entry = file(&format!("{number:05}"), b"x");
            attribute::put(&mut entry, &recorded);
            all.entry(&entry);
        }
        let report = all.finish();
        let kept = |file: &Judged| file.verdict.pickle.findings.iter().map(|f| f.what.clone()).collect::<Vec<_>>();
        let (first, last) = (report.files.first().map(kept), report.files.last().map(kept));
        assert_eq!((first, last), (Some(vec!["worst".into(), "first".into()]), Some(vec!["worst".into()])));
        assert!(report.files.iter().all(|file| file.verdict.pickle.findings_total == 2));
    }

    #[test]
    fn what_only_begins_like_models_is_named_up_to_a_number() {
        let bytes = b"GGUF and words behind it that are no header";
        let mut all = Gathered::default();
        for number in 0..Report::MALFORMED_MAX + 2 {
            all.entry(&file(&format!("{number:05}.gguf"), bytes));
        }
        all.entry(&file("words", b"words"));
        let report = all.finish();
        let first = report.malformed.first().map(|(path, malformed)| format!("{}: {malformed}", path.display()));
        assert!(first.as_ref().is_some_and(|told| told.starts_with("00000.gguf: no gguf: ")), "{first:?}");
        let counts = (report.malformed.len(), report.malformed_total);
        assert_eq!(counts, (Report::MALFORMED_MAX, Report::MALFORMED_MAX as u64 + 2));
        assert_eq!(report.exit(), crate::error::Exit::Done, "they are bytes like others");
    }

    #[test]
    fn links_of_a_cache_are_files_and_others_are_told() {
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
            // What lies above the folder that `e` leads to is the root.
            ("g", format!("e/../blobs/{hash}")),
        ] {
            all.entry(&link(name, &target));
        }
        all.leave();
        all.entry(&Entry::bare(b"unjudged", EntryType::File));
        let report = all.finish();
        let paths: Vec<String> = report.files.iter().map(|file| file.path.display().to_string()).collect();
        let blobs = [format!("blobs/{}", "0".repeat(64)), format!("blobs/{hash}")];
        let mut wanted = vec![blobs[0].clone(), blobs[1].clone()];
        wanted.extend(["a", "b", "g"].map(|name| format!("snapshots/{name}")));
        wanted.sort();
        assert_eq!(paths, wanted);
        let named: Vec<Named> = report.files.iter().map(|file| file.verdict.blob).collect();
        assert_eq!(named.iter().filter(|named| **named == Named::Different).count(), 1);
        assert_eq!(named.iter().filter(|named| **named == Named::Same).count(), 4);
        let told: Vec<String> = report.errors.iter().map(|(path, why)| format!("{}: {why}", path.display())).collect();
        let told_of = |path: &str, why: &str| told.iter().any(|line| line.starts_with(path) && line.contains(why));
        assert!(told.len() == 5 && told_of("unjudged", "no verdict"), "{told:?}");
        assert!(told_of("snapshots/c", "leads out") && told_of("snapshots/d", "again and again"), "{told:?}");
        assert!(told_of("snapshots/e", "a link to a folder") && told_of("snapshots/f", "leads out"), "{told:?}");
    }
}
