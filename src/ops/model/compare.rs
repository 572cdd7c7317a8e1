//! Which tensors of two models differ: by their names, whatever files, containers and order they stand in.

use super::files::{files, look, unread};
use crate::base::Cancel;
use crate::error::{Error, Kind, Result};
use crate::model::format::{Found, Malformed, Place};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Component, Path, PathBuf};

/// Most tensors of one side.
const TENSORS_MAX: usize = 1 << 22;
/// What is compared at once, in bytes.
const BLOCK_BYTES: usize = 1 << 20;

/// A tensor, and where to read it.
#[derive(Debug, Clone)]
pub struct Side {
    /// The file that it lies in.
    pub file: PathBuf,
    /// What its numbers are.
    pub dtype: Cow<'static, str>,
    /// Its sizes.
    pub shape: Option<Vec<u64>>,
    /// Where it begins there, and its length; `None` if it cannot be read as bytes.
    pub range: Option<(u64, u64)>,
}

/// How a tensor differs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Only the new model has it.
    Added,
    /// Only the old model has it.
    Removed,
    /// It has another type, shape or length.
    Form,
    /// It has other bytes.
    Bytes,
    /// It could not be compared.
    Unknown,
}

impl Change {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Change::Added => "added",
            Change::Removed => "removed",
            Change::Form => "form",
            Change::Bytes => "bytes",
            Change::Unknown => "unknown",
        }
    }

    /// A sign for it.
    pub fn sign(self) -> char {
        match self {
            Change::Added => '+',
            Change::Removed => '-',
            Change::Form | Change::Bytes => 'M',
            Change::Unknown => '?',
        }
    }
}

/// One tensor that differs.
#[derive(Debug)]
pub struct Difference<'d> {
    /// Its name.
    pub name: &'d str,
    /// How.
    pub change: Change,
    /// In the old model.
    pub old: Option<&'d Side>,
    /// In the new model.
    pub new: Option<&'d Side>,
    /// How many of its bytes are others, where its form is the same.
    pub bytes_changed: Option<u64>,
    /// So many at most.
    pub at_most: bool,
}

/// What came out in all.
#[derive(Debug, Default)]
pub struct Report {
    /// Tensors that are the same.
    pub same: u64,
    /// Those that only the new model has.
    pub added: u64,
    /// Those that only the old model has.
    pub removed: u64,
    /// Those of another form.
    pub form: u64,
    /// Those of other bytes.
    pub bytes: u64,
    /// Those that could not be compared.
    pub unknown: u64,
    /// Bytes of all tensors of one form in both models, and how many of them are others.
    pub bytes_compared: u64,
    /// See above.
    pub bytes_changed: u64,
    /// So many at most.
    pub at_most: bool,
    /// Files that begin like models and are none.
    pub malformed: Vec<(PathBuf, Malformed)>,
}

/// All tensors of a model by name; several of one name in the order of their files.
type Model = BTreeMap<String, Vec<Side>>;

/// Compares two files or folders; each difference is shown in the order of the names.
///
/// # Errors
/// A file cannot be read; there are too many tensors; interrupted; `show` failed.
pub fn compare(
    (old, new): (&Path, &Path),
    cancel: &Cancel,
    show: &mut dyn FnMut(&Difference<'_>) -> Result<()>,
) -> Result<Report> {
    let mut report = Report::default();
    let old = load(old, cancel, &mut report)?;
    let mut new = load(new, cancel, &mut report)?;
    let mut names: Vec<String> = old.keys().filter(|name| !new.contains_key(*name)).cloned().collect();
    names.extend(new.keys().cloned());
    names.sort_unstable();
    let mut readers = Readers::default();
    for name in names {
        cancel.check()?;
        let (before, after) = (old.get(&name).map_or(&[][..], Vec::as_slice), new.remove(&name).unwrap_or_default());
        for at in 0..before.len().max(after.len()) {
            let (old, new) = (before.get(at), after.get(at));
            let (change, bytes_changed) = judge(old, new, &mut readers, &mut report, cancel)?;
            if let Some(change) = change {
                show(&Difference { name: &name, change, old, new, bytes_changed, at_most: false })?;
            }
        }
    }
    Ok(report)
}

fn load(path: &Path, cancel: &Cancel, report: &mut Report) -> Result<Model> {
    let (mut model, mut count) = (Model::new(), 0usize);
    for path in files(path, cancel)? {
        cancel.check()?;
        let holding = look(&path)?;
        if let Found::Malformed(_, what) = &holding.found {
            report.malformed.push((path.clone(), *what));
        }
        for tensor in holding.tensors() {
            let (file, range) = match &tensor.place {
                Place::Here(begin, end) => (path.clone(), Some((*begin, end.saturating_sub(*begin)))),
                Place::Beside(other) => {
                    let file = beside(&path, &other.file);
                    let range = file.as_ref().and(other.bytes).map(|bytes| (other.offset, bytes));
                    (file.unwrap_or_else(|| path.clone()), range)
                }
                Place::Written => (path.clone(), None),
            };
            count += 1;
            if count > TENSORS_MAX {
                return Err(Error::new(Kind::Refused, "too many tensors for a comparison").at(path.display()));
            }
            let side = Side { file, dtype: tensor.dtype.clone(), shape: tensor.shape.clone(), range };
            model.entry(holding.name_of(tensor).into_owned()).or_default().push(side);
        }
    }
    Ok(model)
}

/// A file that a header names, below the folder of the one that names it and nowhere else.
fn beside(path: &Path, name: &str) -> Option<PathBuf> {
    let name = Path::new(name);
    let plain = name.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    (plain && !name.as_os_str().is_empty()).then(|| path.parent().unwrap_or(Path::new("")).join(name))
}

/// How one tensor differs, if it does, and in how many bytes.
fn judge(
    old: Option<&Side>,
    new: Option<&Side>,
    readers: &mut Readers,
    report: &mut Report,
    cancel: &Cancel,
) -> Result<(Option<Change>, Option<u64>)> {
    let (old, new) = match (old, new) {
        (Some(old), Some(new)) => (old, new),
        (None, _) => {
            report.added += 1;
            return Ok((Some(Change::Added), None));
        }
        (_, None) => {
            report.removed += 1;
            return Ok((Some(Change::Removed), None));
        }
    };
    let len = |side: &Side| side.range.map(|(_, len)| len);
    let known = old.range.zip(new.range);
    if (&old.dtype, &old.shape) != (&new.dtype, &new.shape) || known.is_some() && len(old) != len(new) {
        report.form += 1;
        return Ok((Some(Change::Form), None));
    }
    let Some(((old_at, len), (new_at, _))) = known else {
        report.unknown += 1;
        return Ok((Some(Change::Unknown), None));
    };
    let changed = match readers.changed((&old.file, old_at), (&new.file, new_at), len, cancel) {
        Ok(changed) => changed,
        Err(e) if matches!(e.kind(), Kind::Source | Kind::NotFound) => {
            report.unknown += 1;
            return Ok((Some(Change::Unknown), None));
        }
        Err(e) => return Err(e),
    };
    report.bytes_compared = report.bytes_compared.saturating_add(len);
    report.bytes_changed = report.bytes_changed.saturating_add(changed);
    if changed == 0 {
        report.same += 1;
        return Ok((None, None));
    }
    report.bytes += 1;
    Ok((Some(Change::Bytes), Some(changed)))
}

/// The two files that were read last, and room for what is compared.
#[derive(Default)]
struct Readers {
    old: Option<(PathBuf, File)>,
    new: Option<(PathBuf, File)>,
    left: Vec<u8>,
    right: Vec<u8>,
}

impl Readers {
    /// How many bytes differ.
    fn changed(&mut self, old: (&Path, u64), new: (&Path, u64), len: u64, cancel: &Cancel) -> Result<u64> {
        let Readers { old: old_file, new: new_file, left, right } = self;
        let (old_file, new_file) = (opened(old_file, old.0)?, opened(new_file, new.0)?);
        left.resize(BLOCK_BYTES, 0);
        right.resize(BLOCK_BYTES, 0);
        let (mut at, mut changed) = (0, 0u64);
        while at < len {
            cancel.check()?;
            let want = usize::try_from(len - at).unwrap_or(usize::MAX).min(BLOCK_BYTES);
            let (left, right) = (&mut left[..want], &mut right[..want]);
            read(old_file, old.0, old.1.saturating_add(at), left)?;
            read(new_file, new.0, new.1.saturating_add(at), right)?;
            if left != right {
                changed += left.iter().zip(right.iter()).filter(|(a, b)| a != b).count() as u64;
            }
            at += want as u64;
        }
        Ok(changed)
    }
}

fn read(file: &File, path: &Path, at: u64, buf: &mut [u8]) -> Result<()> {
    file.read_exact_at(buf, at).map_err(|e| unread(path, "cannot be read", &e))
}

fn opened<'f>(file: &'f mut Option<(PathBuf, File)>, path: &Path) -> Result<&'f File> {
    if file.as_ref().is_none_or(|(open, _)| open != path) {
        *file = None;
    }
    let (_, file) = match file {
        Some(open) => open,
        None => {
            let open = super::files::open(path).map_err(|e| unread(path, "cannot be read", &e))?;
            file.insert((path.to_path_buf(), open))
        }
    };
    Ok(file)
}
