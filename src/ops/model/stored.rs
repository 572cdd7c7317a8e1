//! Models as a snapshot has them: what is in their headers, read from the chunks that hold these alone.

use super::files::Holding;
use crate::chunk::Coder;
use crate::error::{Error, Kind, Result};
use crate::format::snapshot::Manifest;
use crate::format::tree::{Entry, EntryType, is_safe_name};
use crate::model::format::{Found, Place, ReadAt, SHARDS_BYTES_MAX, Shards, Tensor, read, read_shards};
use crate::ops::browse;
use crate::repo::file_at::FileAt;
use crate::repo::reader::Reader;
use crate::repo::tree::DirReader;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Mutex;

/// How often a link may lead to another one.
const LINKS_MAX: usize = 16;
/// How a list of shards is called.
pub(super) const LIST_SUFFIX: &[u8] = b".index.json";
/// How most single files are called.
const FILE_SUFFIX: &[u8] = b".safetensors";

/// Bytes of chunks that are fetched of one file to know it. A header that leads here and there in a file whose chunks are
/// long would have most of it fetched.
const FETCH_BYTES_MAX: u64 = 1 << 30;

/// How often the bytes of a file may be those of one of its tensors, and what is no matter for small ones.
const FOLD_MAX: u64 = 4;
const FOLD_BYTES_MIN: u64 = 1 << 20;

/// Whether tensors have more bytes together than some that are tied would have, in files of so many bytes.
pub(super) fn is_too_much(tensors: u64, files: u64) -> bool {
    tensors > files.saturating_mul(FOLD_MAX).saturating_add(FOLD_BYTES_MIN)
}

/// A file of a snapshot for who reads headers; remembers why it could not be read.
struct Readable<'r> {
    file: FileAt<'r>,
    failed: Mutex<Option<Error>>,
}

impl ReadAt for Readable<'_> {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> std::io::Result<usize> {
        let left = usize::try_from(self.file.size().saturating_sub(offset)).unwrap_or(usize::MAX);
        let len = buf.len().min(left);
        let read = match self.file.fetched() > FETCH_BYTES_MAX {
            true => Err(Error::new(Kind::Source, "too much of it would have to be read to know what it is")),
            false => self.file.read_at(offset, buf.get_mut(..len).unwrap_or_default()),
        };
        read.map(|()| len).map_err(|e| {
            let told = std::io::Error::other(e.to_string());
            crate::region::lock(&self.failed).get_or_insert(e);
            told
        })
    }
}

/// What a file of a snapshot is.
pub(super) struct Stored {
    pub(super) found: Found,
    pub(super) shards: Option<Shards>,
}

/// Reads what a file is.
pub(super) fn look(reader: &Reader, entry: &Entry) -> Result<Stored> {
    let file = Readable { file: FileAt::open(reader, entry)?, failed: Mutex::new(None) };
    let size = file.file.size();
    let done = read(&file, size).and_then(|found| {
        let list = matches!(found, Found::Other) && size <= SHARDS_BYTES_MAX;
        Ok(Stored { found, shards: if list { read_shards(&file, size)? } else { None } })
    });
    done.map_err(|e| {
        let why = crate::region::lock(&file.failed).take();
        why.unwrap_or_else(|| Error::new(Kind::Damage, format!("cannot be read: {e}")))
    })
}

/// What a file of a snapshot is, or the one that a link there leads to; `None` for what is neither.
///
/// # Errors
/// No region has what says so intact.
pub fn look_into(reader: &Reader, manifest: &Manifest, path: &[u8], entry: &Entry) -> Result<Option<Holding>> {
    let file = match entry.kind {
        EntryType::File => Some(entry.clone()),
        EntryType::Symlink => file_at(reader, manifest, path)?,
        _ => None,
    };
    let Some(file) = file else { return Ok(None) };
    let Stored { found, shards } = look(reader, &file)?;
    Ok(Some(Holding { path: PathBuf::from(OsStr::from_bytes(path)), bytes: file.size(), found, shards }))
}

/// The parts of a path.
fn parts(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|b| *b == b'/').filter(|part| !part.is_empty() && *part != b".")
}

/// A path as it is told: from the root, without a slash in front.
pub(super) fn plain(path: &[u8]) -> Vec<u8> {
    parts(path).collect::<Vec<_>>().join(&b'/')
}

/// What stands at a path of a snapshot, and where; links are followed as long as they stay within it, as a cache of models
/// has them.
pub(super) fn resolve(reader: &Reader, manifest: &Manifest, path: &[u8]) -> Result<(Entry, Vec<u8>)> {
    let shown = || String::from_utf8_lossy(path).into_owned();
    let mut at = path.to_vec();
    for _ in 0..LINKS_MAX {
        let entry = browse::find(reader, manifest, &at)?;
        let Some(to) = entry.target.as_ref().filter(|_| entry.kind == EntryType::Symlink) else {
            return Ok((entry, at));
        };
        let outside = || Error::new(Kind::NotFound, "a link that leads out of the snapshot").at(shown());
        if to.first() == Some(&b'/') {
            return Err(outside());
        }
        let mut folder: Vec<Vec<u8>> = parts(&at).map(<[u8]>::to_vec).collect();
        folder.pop();
        for part in parts(to) {
            match part {
                b".." => drop(folder.pop().ok_or_else(outside)?),
                name => folder.push(name.to_vec()),
            }
        }
        at = folder.join(&b'/');
    }
    Err(Error::new(Kind::NotFound, "a link that leads to a link again and again").at(shown()))
}

/// The path of a name beside a file.
pub(super) fn beside(path: &[u8], name: &[u8]) -> Vec<u8> {
    let mut all: Vec<&[u8]> = parts(path).collect();
    all.pop();
    all.push(name);
    all.join(&b'/')
}

/// The last part of a path.
pub(super) fn last(path: &[u8]) -> &[u8] {
    parts(path).last().unwrap_or_default()
}

/// A tensor of a model, and the file that it lies in, by its number.
pub(super) struct Held {
    pub(super) name: String,
    pub(super) tensor: Tensor,
    pub(super) file: usize,
}

/// A model in one file or in several.
pub(super) struct StoredModel {
    /// Where the file is, or the list of its shards.
    pub(super) path: Vec<u8>,
    /// The file that says what the model has.
    pub(super) entry: Entry,
    /// Names of all its tensors.
    pub(super) names: Vec<String>,
    /// Those that were asked for.
    pub(super) tensors: Vec<Held>,
    /// Files that were looked into, with their paths.
    pub(super) files: Vec<(Vec<u8>, Entry)>,
}

impl StoredModel {
    /// Opens the model at a path: a file, a list of shards, or a folder with one of these. Only files that have tensors whose
    /// names are wanted are looked into.
    ///
    /// # Errors
    /// There is no model, or what it needs is not there, or cannot be read.
    pub(super) fn open(
        reader: &Reader,
        manifest: &Manifest,
        path: &[u8],
        wanted: &dyn Fn(&str) -> bool,
    ) -> Result<StoredModel> {
        let (entry, real) = resolve(reader, manifest, path)?;
        let (asked, entry) = match entry.kind {
            EntryType::Dir => {
                let inside = one_of(reader, &entry, path)?;
                let asked = [&real[..], b"/", &inside].concat();
                let (entry, _) = resolve(reader, manifest, &asked)?;
                (asked, entry)
            }
            _ => (path.to_vec(), entry),
        };
        let shown = String::from_utf8_lossy(&asked).into_owned();
        if entry.kind != EntryType::File {
            return Err(Error::new(Kind::Config, "not a file of a model").at(shown));
        }
        let stored = look(reader, &entry).map_err(|e| e.at(&shown))?;
        let mut model = StoredModel {
            path: asked.clone(),
            entry: entry.clone(),
            names: Vec::new(),
            tensors: Vec::new(),
            files: Vec::new(),
        };
        match stored {
            Stored { shards: Some(shards), .. } => model.sharded(reader, manifest, shards, wanted)?,
            Stored { found: Found::Malformed(format, what), .. } => {
                let what = format!("no {}: {what}", format.name());
                return Err(Error::new(Kind::Source, what)
                    .at(shown)
                    .advise("restore the whole file, without --tensors"));
            }
            Stored { found: Found::Other, .. } => {
                let e = Error::new(Kind::Config, "no file of tensors that is known here").at(shown);
                return Err(e.advise("name a file of a model, its *.index.json, or the folder of that"));
            }
            Stored { found: Found::Model(found), .. } => {
                model.files.push((asked, entry));
                for tensor in found.tensors {
                    let name = named(&model.path, &tensor);
                    model.names.push(name.clone());
                    if wanted(&name) {
                        model.tensors.push(Held { name, tensor, file: 0 });
                    }
                }
                model.find_beside(reader, manifest)?;
            }
        }
        Ok(model)
    }

    /// Puts tensors into the files beside the model that they lie in, where these are there and have room for them.
    fn find_beside(&mut self, reader: &Reader, manifest: &Manifest) -> Result<()> {
        let mut known: HashMap<String, Option<(usize, u64)>> = HashMap::new();
        for held in &mut self.tensors {
            let Place::Beside(place) = &held.tensor.place else { continue };
            let name = place.file.strip_prefix("./").unwrap_or(&place.file);
            if !known.contains_key(name) {
                let path = beside(&self.path, name.as_bytes());
                let there = match is_safe_name(name.as_bytes()) {
                    true => file_at(reader, manifest, &path)?,
                    false => None,
                };
                let lies = there.map(|entry| {
                    let size = entry.size();
                    self.files.push((path, entry));
                    (self.files.len() - 1, size)
                });
                known.insert(name.to_owned(), lies);
            }
            let end = place.bytes.and_then(|bytes| place.offset.checked_add(bytes));
            if let (Some(Some((file, size))), Some(end)) = (known.get(name), end)
                && end <= *size
            {
                (held.file, held.tensor.place) = (*file, Place::Here(place.offset, end));
            }
        }
        Ok(())
    }

    /// Looks into the files of a list that have what is wanted.
    fn sharded(
        &mut self,
        reader: &Reader,
        manifest: &Manifest,
        shards: Shards,
        wanted: &dyn Fn(&str) -> bool,
    ) -> Result<()> {
        let mut by_file: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for (name, file) in shards.tensors {
            if wanted(&name) {
                by_file.entry(file).or_default().insert(name.clone());
            }
            self.names.push(name);
        }
        for (file, mut names) in by_file {
            let list = String::from_utf8_lossy(&self.path).into_owned();
            if file.contains('/') {
                let what = format!("the list names a file that is not beside it: {file}");
                return Err(Error::new(Kind::Source, what).at(list));
            }
            let path = beside(&self.path, file.as_bytes());
            let (entry, _) = resolve(reader, manifest, &path)?;
            let found = match look(reader, &entry).map_err(|e| e.at(String::from_utf8_lossy(&path)))?.found {
                Found::Model(found) => found.tensors,
                _ => Vec::new(),
            };
            for tensor in found {
                if names.remove(&tensor.name) {
                    self.tensors.push(Held { name: tensor.name.clone(), tensor, file: self.files.len() });
                }
            }
            if let Some(name) = names.first() {
                let what = format!("{file} lacks a tensor that the list says it has: {name}");
                return Err(Error::new(Kind::Source, what).at(list));
            }
            self.files.push((path, entry));
        }
        Ok(())
    }
}

/// The file at a path, if there is one.
pub(super) fn file_at(reader: &Reader, manifest: &Manifest, path: &[u8]) -> Result<Option<Entry>> {
    match resolve(reader, manifest, path) {
        Ok((entry, _)) => Ok(Some(entry).filter(|entry| entry.kind == EntryType::File)),
        Err(e) if e.kind() == Kind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// How a tensor is called: an array without a name like its file.
fn named(path: &[u8], tensor: &Tensor) -> String {
    if !tensor.name.is_empty() {
        return tensor.name.clone();
    }
    let name = String::from_utf8_lossy(last(path)).into_owned();
    name.rsplit_once('.').map_or(name.clone(), |(stem, _)| stem.to_owned())
}

/// Names in a directory of a snapshot with this end.
pub(super) fn names_with(reader: &Reader, dir: &Entry, suffix: &[u8]) -> Result<Vec<Vec<u8>>> {
    let (mut entries, mut coder, mut found) = (DirReader::new(reader, dir.tree), Coder::default(), Vec::new());
    while let Some(entry) = entries.next(&mut coder)? {
        if entry.name.ends_with(suffix) && entry.kind != EntryType::Dir {
            found.push(entry.name.to_vec());
        }
    }
    Ok(found)
}

/// The list of shards in a folder, or the only file of safetensors.
fn one_of(reader: &Reader, dir: &Entry, path: &[u8]) -> Result<Vec<u8>> {
    let shown = String::from_utf8_lossy(path);
    for suffix in [LIST_SUFFIX, FILE_SUFFIX] {
        let mut found = names_with(reader, dir, suffix)?;
        match (found.pop(), found.len()) {
            (None, _) => {}
            (Some(only), 0) => return Ok(only),
            (Some(last), more) => {
                let what = format!("{} files end with {}", more + 1, String::from_utf8_lossy(suffix));
                let advice = format!("name one of them: {}/{}", shown, String::from_utf8_lossy(&last));
                return Err(Error::new(Kind::Config, what).at(shown).advise(advice));
            }
        }
    }
    let e =
        Error::new(Kind::Config, "neither a list of shards (*.index.json) nor a file of safetensors is in this folder");
    Err(e.at(shown).advise("name the file that has the tensors"))
}
