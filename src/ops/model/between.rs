//! Which tensors of a model differ between two snapshots, told beside its file by whoever compares these.
//!
//! Of either the headers and the lists of chunks are read, and of the tensors themselves only what shares its chunks with
//! others, within bounds ([`Alike`]). What cannot be compared is named, and the rest goes on.

use super::alike::{Alike, Changed};
use super::compare::{Change, Difference, Report, Side};
use super::forms::{Form, Forms, Standing, forms};
use super::owners::Owners;
use super::stored::{LIST_SUFFIX, Stored, beside, file_at, last, look, plain};
use crate::base::Cancel;
use crate::error::{Error, Kind, Result};
use crate::format::snapshot::Manifest;
use crate::format::tree::{Entry, EntryType};
use crate::model::format::Found;
use crate::ops::difference;
use crate::repo::reader::Reader;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// Most models that are kept by name: those that could not be compared, and those that were.
const NAMED_MAX: usize = 1000;
const DONE_MAX: usize = 1 << 16;

/// What came of all models.
#[derive(Debug, Default)]
pub struct ModelsReport {
    /// Models that were compared.
    pub models: u64,
    /// Their tensors.
    pub tensors: Report,
    /// The first that could not be compared, or not wholly, and why.
    pub failed: Vec<(Vec<u8>, String)>,
    /// How many there were.
    pub failed_total: u64,
    /// Whether that was so as something stored is damaged or missing.
    pub damage: bool,
}

impl ModelsReport {
    fn fail(&mut self, path: &[u8], e: &Error) {
        self.failed_total = self.failed_total.saturating_add(1);
        self.damage |= !matches!(e.kind(), Kind::Source | Kind::Config | Kind::NotFound);
        if self.failed.len() < NAMED_MAX {
            self.failed.push((path.to_vec(), e.to_string()));
        }
    }

    fn add(&mut self, one: &Report) {
        let all = &mut self.tensors;
        let sums = [
            (&mut self.models, 1),
            (&mut all.same, one.same),
            (&mut all.added, one.added),
            (&mut all.removed, one.removed),
            (&mut all.form, one.form),
            (&mut all.bytes, one.bytes),
            (&mut all.unknown, one.unknown),
            (&mut all.bytes_compared, one.bytes_compared),
            (&mut all.bytes_changed, one.bytes_changed),
        ];
        sums.into_iter().for_each(|(sum, one)| *sum = sum.saturating_add(one));
        all.at_most |= one.at_most;
    }
}

/// One of the two: the snapshot, what was named in it, and its models in several files.
struct Part<'b> {
    manifest: &'b Manifest,
    root: &'b [u8],
    owners: Owners<'b>,
}

impl Part<'_> {
    /// The path in the snapshot of what is called so below what was named.
    fn path(&self, below: &[u8]) -> Vec<u8> {
        plain(&[self.root, b"/", below].concat())
    }
}

/// Tensors of two snapshots, or parts of them.
pub struct Between<'b> {
    reader: &'b Reader,
    parts: [Part<'b>; 2],
    /// Whether a file was named, and no folder: then it is compared with what was named beside it, whatever it belongs to.
    file: bool,
    cancel: &'b Cancel,
    /// Models that were compared: those in several files are met several times.
    done: BTreeSet<Vec<u8>>,
    /// What came of it so far.
    pub report: ModelsReport,
}

/// A tensor of either model, and how it differs.
struct Pair {
    name: String,
    old: Option<Form>,
    new: Option<Form>,
    /// [`Change::Unknown`] until its chunks, or its bytes, were looked at.
    change: Option<Change>,
    changed: Option<Changed>,
}

/// A model, as it is called below what was named: its tensors by name, and its files in either snapshot.
struct Model {
    unit: Vec<u8>,
    pairs: Vec<Pair>,
    files: [Vec<(Vec<u8>, Entry)>; 2],
    /// Why some could not be compared.
    lost: Option<Error>,
}

impl<'b> Between<'b> {
    /// For what was named in two snapshots: by these paths, and in the first one it is this entry.
    pub fn new(reader: &'b Reader, named: [(&'b Manifest, &'b [u8]); 2], root: &Entry, cancel: &'b Cancel) -> Self {
        let parts = named.map(|(manifest, root)| Part { manifest, root, owners: Owners::new(reader, manifest) });
        let (done, report) = (BTreeSet::new(), ModelsReport::default());
        Between { reader, parts, file: root.kind != EntryType::Dir, cancel, done, report }
    }

    /// Compares the model that a path belongs to which differs, and shows its tensors that do, by name. Tells which model
    /// it was, as it is called below what was named, and what came of it; nothing if it is none, or was told already.
    ///
    /// # Errors
    /// Interrupted, or what `show` returned.
    pub fn compare(
        &mut self,
        entry: &difference::Difference<'_>,
        show: &mut dyn FnMut(&[u8], &Difference<'_>) -> Result<()>,
    ) -> Result<Option<(Vec<u8>, Report)>> {
        if !matches!(entry.change, difference::Change::Modified | difference::Change::Type) {
            return Ok(None);
        }
        let below = if self.file { b"" } else { entry.path };
        let Model { unit, pairs, files, lost } = match self.model_of(below) {
            Ok(Some(model)) => model,
            Ok(None) => return Ok(None),
            Err(e) if e.kind() == Kind::Cancelled => return Err(e),
            Err(e) => {
                self.report.fail(entry.path, &e);
                return Ok(None);
            }
        };
        let name = if self.file { entry.path.to_vec() } else { unit };
        if let Some(e) = lost {
            self.report.fail(&name, &e);
        }
        let mut report = Report::default();
        for pair in &pairs {
            pair.count(&mut report);
            let Some(change) = pair.change else { continue };
            let sides = [(&pair.old, &files[0]), (&pair.new, &files[1])];
            let [old, new] = sides.map(|(form, files)| form.as_ref().map(|form| side(form, files)));
            let (bytes_changed, at_most) = (pair.changed.map(|c| c.bytes), pair.changed.is_some_and(|c| c.at_most));
            let (old, new) = (old.as_ref(), new.as_ref());
            show(&name, &Difference { name: &pair.name, change, old, new, bytes_changed, at_most })?;
        }
        self.report.add(&report);
        Ok(Some((name, report)))
    }

    /// The model that a file belongs to, compared; nothing if it is none, or was compared already.
    fn model_of(&mut self, below: &[u8]) -> Result<Option<Model>> {
        self.unit_of(below)?.map(|unit| self.compared(unit)).transpose()
    }

    /// What a file's model is called.
    fn unit_of(&mut self, below: &[u8]) -> Result<Option<Vec<u8>>> {
        let new = self.parts[1].path(below);
        let owner = if self.file { None } else { self.parts[1].owners.owner_of(&new)? };
        let unit = match owner {
            Some(owner) => beside(below, last(&owner)),
            None if !self.is_model(below)? => return Ok(None),
            None if self.file || below.ends_with(LIST_SUFFIX) => below.to_vec(),
            None => self.parts[1].owners.list_of(&new)?.map_or(below.to_vec(), |list| beside(below, last(&list))),
        };
        let there = file_at(self.reader, self.parts[0].manifest, &self.parts[0].path(&unit))?;
        let unit = if there.is_some() { unit } else { below.to_vec() };
        if self.done.len() >= DONE_MAX {
            self.done.clear();
        }
        Ok(self.done.insert(unit.clone()).then_some(unit))
    }

    /// Whether a file holds tensors, or says where they are, in either snapshot.
    fn is_model(&self, below: &[u8]) -> Result<bool> {
        let mut is = false;
        for part in &self.parts {
            let path = part.path(below);
            let Some(entry) = file_at(self.reader, part.manifest, &path)? else { continue };
            match look(self.reader, &entry)? {
                Stored { found: Found::Malformed(format, what), .. } => {
                    let sid = part.manifest.sid.short();
                    return Err(
                        Error::new(Kind::Source, format!("no {}: {what}", format.name())).at(format!("in {sid}"))
                    );
                }
                Stored { found, shards } => is |= shards.is_some() || matches!(found, Found::Model(_)),
            }
        }
        Ok(is)
    }

    fn compared(&self, unit: Vec<u8>) -> Result<Model> {
        let [old, new] = [self.forms(0, &unit)?, self.forms(1, &unit)?];
        let mut pairs = pairs(old.forms, new.forms);
        let mut alike = Alike::new(self.reader, [&old.files, &new.files], self.cancel);
        let mut unsure: Vec<&mut Pair> = pairs.iter_mut().filter(|pair| pair.change == Some(Change::Unknown)).collect();
        // In the order of their places, as several may lie in one chunk.
        unsure.sort_by_key(|pair| pair.new.as_ref().map(|new| new.lies));
        let mut lost = None;
        for pair in unsure {
            let lies = |form: &Option<Form>| form.as_ref().and_then(|form| form.lies);
            match alike.changed(lies(&pair.old), lies(&pair.new)) {
                Ok(changed) => pair.settle(changed),
                Err(e) if e.kind() == Kind::Cancelled => return Err(e),
                Err(e) => drop(lost.get_or_insert(e)),
            }
        }
        Ok(Model { unit, pairs, files: [old.files, new.files], lost })
    }

    /// The tensors of one of the two; none of a file that holds none.
    fn forms(&self, which: usize, unit: &[u8]) -> Result<Forms> {
        let part = self.parts.get(which).ok_or_else(|| Error::new(Kind::Bug, "a third snapshot"))?;
        match forms(self.reader, part.manifest, &part.path(unit), self.cancel) {
            Err(e) if e.kind() == Kind::Config => Ok(Forms::default()),
            done => done.map_err(|e| e.at(format!("in {}", part.manifest.sid.short()))),
        }
    }
}

/// Tensors of one name beside each other, in the order of the names.
fn pairs(old: BTreeMap<String, Form>, mut new: BTreeMap<String, Form>) -> Vec<Pair> {
    let mut all: Vec<Pair> = Vec::with_capacity(old.len().max(new.len()));
    for (name, before) in old {
        let after = new.remove(&name);
        let change = match after.as_ref().map(|after| before.beside(after)) {
            None => Some(Change::Removed),
            Some(Standing::Form) => Some(Change::Form),
            Some(Standing::Same) => None,
            Some(Standing::Other | Standing::Unsure) => Some(Change::Unknown),
        };
        all.push(Pair { name, old: Some(before), new: after, change, changed: None });
    }
    let added = |(name, after)| Pair { name, old: None, new: Some(after), change: Some(Change::Added), changed: None };
    all.extend(new.into_iter().map(added));
    all.sort_unstable_by(|one, other| one.name.cmp(&other.name));
    all
}

impl Pair {
    /// With what its bytes are, where that is known.
    fn settle(&mut self, changed: Option<Changed>) {
        let Some(found) = changed else { return };
        self.change = (found.bytes > 0).then_some(Change::Bytes);
        self.changed = self.change.and(changed);
    }

    fn count(&self, report: &mut Report) {
        let count = match self.change {
            None => &mut report.same,
            Some(Change::Added) => &mut report.added,
            Some(Change::Removed) => &mut report.removed,
            Some(Change::Form) => &mut report.form,
            Some(Change::Bytes) => &mut report.bytes,
            Some(Change::Unknown) => &mut report.unknown,
        };
        *count = count.saturating_add(1);
        if matches!(self.change, None | Some(Change::Bytes)) {
            let bytes = self.new.as_ref().map_or(0, |new| new.bytes);
            report.bytes_compared = report.bytes_compared.saturating_add(bytes);
        }
        if let Some(Changed { bytes, at_most }) = self.changed {
            report.bytes_changed = report.bytes_changed.saturating_add(bytes);
            report.at_most |= at_most;
        }
    }
}

/// A tensor as it is shown.
fn side(form: &Form, files: &[(Vec<u8>, Entry)]) -> Side {
    let file = form.lies.and_then(|(file, _)| files.get(file)).or(files.first());
    Side {
        file: file.map(|(path, _)| PathBuf::from(OsStr::from_bytes(path))).unwrap_or_default(),
        dtype: form.dtype.clone(),
        shape: form.shape.clone(),
        range: form.lies.map(|(_, (begin, end))| (begin, end.saturating_sub(begin))),
    }
}
