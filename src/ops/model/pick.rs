//! Restores some tensors of a model alone, as a file of safetensors: what is fetched is the header, and the chunks that
//! these tensors lie in.

use super::stored::{Held, LIST_SUFFIX, StoredModel, is_too_much, last};
use crate::base::{Cancel, ChunkId, Progress, units};
use crate::chunk::Coder;
use crate::error::{Error, Kind, Result};
use crate::format::snapshot::Manifest;
use crate::format::tree::{Entry, EntryType, INLINE_BYTES_MAX};
use crate::model::format::{Found, Place, ReadAt, bytes_written, header_of, read, width};
use crate::model::names;
use crate::ops::restore::RestoreReport;
use crate::region::lock;
use crate::repo::file_at::FileAt;
use crate::repo::reader::Reader;
use crate::source::files::{RestoreOptions, Target, TargetFile};
use std::cmp::Reverse;
use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Permissions of the file, as far as the model's allow them.
const FILE_MODE: u32 = 0o666;
/// How the file ends that is written.
const SUFFIX: &str = ".safetensors";

/// Which tensors, and where to.
pub struct PickRequest {
    /// Patterns that names must be, any of them ([`names::matches`]).
    pub patterns: Vec<String>,
    /// The directory to write the file into.
    pub target: PathBuf,
    /// Whether a file of the same name may stand there already, which is replaced.
    pub overwrite: bool,
    /// Only say what would be written.
    pub dry_run: bool,
    /// Threads; 0: none, everything inline.
    pub workers: usize,
}

/// One tensor that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PickedTensor {
    /// Its name.
    pub name: String,
    /// What its numbers are.
    pub dtype: String,
    /// Its sizes.
    pub shape: Vec<u64>,
    /// Its length in bytes.
    pub bytes: u64,
}

/// What was written.
#[derive(Debug)]
pub struct Picked {
    /// Name of the file in the target.
    pub name: Vec<u8>,
    /// Its tensors, in its order.
    pub tensors: Vec<PickedTensor>,
    /// Whether a file stood there that is replaced.
    pub replaces: bool,
    /// How many the model has.
    pub tensors_total: u64,
    /// Bytes of the chunks that were fetched for them, without the headers'.
    pub bytes_fetched: u64,
    /// As a restore of files says it.
    pub report: RestoreReport,
}

/// A part of a tensor that lies in one chunk.
struct Piece {
    /// The bytes themselves, out of a file that is so small that it has no chunks.
    ready: Option<Vec<u8>>,
    id: ChunkId,
    /// Length of the chunk, and where in it the part begins.
    chunk_bytes: u64,
    inside: u64,
    len: u64,
    /// Where it goes in the new file.
    to: u64,
}

/// Writes the tensors with these names into a file of their own.
///
/// # Errors
/// There is no model at the path, or no tensor for one of the patterns; one of them cannot stand in a file of safetensors;
/// together they have far more bytes than the model; a file stands there and may not be replaced; no region has what is
/// needed intact; the file cannot be written; interrupted.
pub fn pick(
    reader: &Reader,
    manifest: &Manifest,
    path: &[u8],
    request: &PickRequest,
    (progress, cancel): (&Progress, &Cancel),
) -> Result<Picked> {
    let wanted = |name: &str| request.patterns.iter().any(|pattern| names::matches(pattern, name));
    let mut model = StoredModel::open(reader, manifest, path, &wanted)?;
    all_known(&request.patterns, &model)?;
    model.tensors.sort_by_key(|held| (Reverse(width(&held.tensor.dtype)), held.file, held.tensor.range()));
    let sizes = sizes(&model)?;
    few_enough(&model, &sizes)?;
    let name = name_of(&model.path);
    let replaces = stands(request, &name)?;
    let listed: Vec<_> =
        model.tensors.iter().zip(&sizes).map(|(held, bytes)| (held.name.as_str(), &held.tensor, *bytes)).collect();
    let shown = String::from_utf8_lossy(path);
    let header = header_of(&listed).map_err(|what| Error::new(Kind::Refused, what).at(&shown))?;
    let (pieces, total) = pieces(reader, &model, &sizes, header.len() as u64)?;
    progress.bytes_expected.set(total);
    let mut picked = Picked {
        name,
        replaces,
        tensors: listed.iter().map(|(name, tensor, bytes)| picked_of(name, tensor, *bytes)).collect(),
        tensors_total: model.names.len() as u64,
        bytes_fetched: fetched(&pieces),
        report: RestoreReport { files: 1, bytes: total, ..RestoreReport::default() },
    };
    if !request.dry_run {
        // Nobody is to read from the new file what nobody could in one that it comes from.
        let mode = model.files.iter().fold(model.entry.mode, |mode, (_, entry)| mode & entry.mode);
        let like = Entry { mode, ..model.entry.clone() };
        write(reader, &picked.name, (&like, total), (&header, &pieces), request, (progress, cancel))?;
        picked.report.bytes_written = total;
    }
    Ok(picked)
}

fn picked_of(name: &str, tensor: &crate::model::format::Tensor, bytes: u64) -> PickedTensor {
    let shape = tensor.shape.clone().unwrap_or_default();
    PickedTensor { name: name.to_owned(), dtype: tensor.dtype.clone().into_owned(), shape, bytes }
}

/// Each pattern must be the name of something.
fn all_known(patterns: &[String], model: &StoredModel) -> Result<()> {
    let shown = || String::from_utf8_lossy(&model.path).into_owned();
    for pattern in patterns {
        if model.names.iter().any(|name| names::matches(pattern, name)) {
            continue;
        }
        let e = Error::new(Kind::NotFound, format!("no tensor is called {pattern}")).at(shown());
        let near = names::near(pattern, model.names.iter().map(String::as_str));
        return Err(match near.is_empty() {
            true => e.advise("the model has no tensors"),
            false => e.advise(format!("the nearest of {} are: {}", model.names.len(), near.join(", "))),
        });
    }
    let mut seen = HashSet::new();
    match model.tensors.iter().find(|held| !seen.insert(&held.name)) {
        Some(twice) => {
            let what = format!("two tensors are called {}, which one file cannot hold", twice.name);
            Err(Error::new(Kind::Refused, what).at(shown()))
        }
        None => Ok(()),
    }
}

/// The length of each tensor, if all can be written.
fn sizes(model: &StoredModel) -> Result<Vec<u64>> {
    let one = |held: &Held| {
        let refused = |why: String| {
            let path = model.files.get(held.file).map_or(&model.path, |(path, _)| path);
            let e = Error::new(Kind::Refused, format!("tensor {} cannot be written: {why}", held.name));
            e.at(String::from_utf8_lossy(path)).advise("restore the whole file, without --tensors, or choose others")
        };
        match held.tensor.place {
            Place::Beside(_) => {
                Err(refused("its numbers lie in a file beside the model, which is not there or too short".into()))
            }
            _ => bytes_written(&held.tensor).map_err(refused),
        }
    };
    model.tensors.iter().map(one).collect()
}

/// Tensors may share their bytes, as tied ones do; but a small file may say of thousands that they do.
fn few_enough(model: &StoredModel, sizes: &[u64]) -> Result<()> {
    let all = sizes.iter().fold(0u64, |sum, bytes| sum.saturating_add(*bytes));
    let there = model.files.iter().fold(0u64, |sum, (_, entry)| sum.saturating_add(entry.size()));
    if !is_too_much(all, there) {
        return Ok(());
    }
    let (all, there) = (units::bytes(all), units::bytes(there));
    let what = format!("the tensors have {all} together, and what they lie in has {there}: they share their bytes");
    let e = Error::new(Kind::Refused, what).at(String::from_utf8_lossy(&model.path));
    Err(e.advise("choose fewer of them, or restore the whole file, without --tensors"))
}

/// Whether a file stands where the new one is to be, and may be replaced.
fn stands(request: &PickRequest, name: &[u8]) -> Result<bool> {
    let path = request.target.join(OsStr::from_bytes(name));
    let Ok(there) = std::fs::symlink_metadata(&path) else { return Ok(false) };
    let refused = |what: &str| Error::new(Kind::Refused, what).at(path.display());
    match (there.is_dir(), request.overwrite) {
        (true, _) => Err(refused("a directory stands there").advise("name another directory with --target")),
        (false, true) => Ok(true),
        (false, false) => Err(refused("a file of this name is there already")
            .advise("name another --target, or add --overwrite: the file is replaced by one with these tensors alone")),
    }
}

/// Where the chosen tensors lie, and how long the new file will be.
fn pieces(reader: &Reader, model: &StoredModel, sizes: &[u64], header_bytes: u64) -> Result<(Vec<Piece>, u64)> {
    let files: Vec<FileAt<'_>> =
        model.files.iter().map(|(_, entry)| FileAt::open(reader, entry)).collect::<Result<_>>()?;
    let short = || Error::new(Kind::Damage, "the file ends early");
    let (mut pieces, mut to) = (Vec::new(), header_bytes);
    for (held, bytes) in model.tensors.iter().zip(sizes) {
        let behind = to.checked_add(*bytes).ok_or_else(short)?;
        if let (Some((mut at, end)), Some(file)) = (held.tensor.range(), files.get(held.file)) {
            let small = model.files.get(held.file).is_some_and(|(_, entry)| entry.inline.is_some());
            if let (true, Ok(len)) = (small, usize::try_from(end.saturating_sub(at))) {
                let mut ready = vec![0; len.min(INLINE_BYTES_MAX)];
                file.read_at(at, &mut ready)?;
                let len = ready.len() as u64;
                pieces.push(Piece { ready: Some(ready), id: ChunkId::HOLE, chunk_bytes: 0, inside: 0, len, to });
                at = end;
            }
            while at < end {
                let (item, begin) = file.item_at(at)?.ok_or_else(short)?;
                let inside = at.saturating_sub(begin);
                let len = item.len.saturating_sub(inside).min(end - at);
                pieces.push(Piece { ready: None, id: item.id, chunk_bytes: item.len, inside, len, to });
                (at, to) = (at.saturating_add(len), to.saturating_add(len));
            }
        }
        to = behind;
    }
    Ok((pieces, to))
}

/// Parts that follow each other in one chunk, which is fetched once for them.
fn runs(pieces: &[Piece]) -> Vec<&[Piece]> {
    pieces.chunk_by(|one, next| one.id == next.id).collect()
}

fn fetched(pieces: &[Piece]) -> u64 {
    let chunks = runs(pieces).into_iter().filter_map(<[Piece]>::first).filter(|piece| piece.id != ChunkId::HOLE);
    chunks.fold(0, |sum, piece| sum.saturating_add(piece.chunk_bytes))
}

/// `model.safetensors`, whatever the model's container: of a list of shards without what makes it a list.
fn name_of(path: &[u8]) -> Vec<u8> {
    let name = last(path);
    let name = name.strip_suffix(LIST_SUFFIX).unwrap_or(name);
    let dot = name.iter().rposition(|b| *b == b'.').filter(|at| *at > 0);
    let stem = dot.and_then(|at| name.get(..at)).unwrap_or(name);
    [stem, SUFFIX.as_bytes()].concat()
}

fn write(
    reader: &Reader,
    name: &[u8],
    (model, total): (&Entry, u64),
    (header, pieces): (&[u8], &[Piece]),
    request: &PickRequest,
    (progress, cancel): (&Progress, &Cancel),
) -> Result<()> {
    let options = RestoreOptions { owners: false, devices: false, xattrs: false };
    let dir = Target::create(&request.target, options)?.root();
    let entry = Entry {
        mode: model.mode & FILE_MODE,
        mtime_s: model.mtime_s,
        mtime_ns: model.mtime_ns,
        size: Some(total),
        ..Entry::bare(name, EntryType::File)
    };
    // What stands at its name stays until the new file is whole.
    let (file, hidden) = TargetFile::beside(&dir, &entry).map_err(|e| e.lift())?;
    let done = file.write_at(0, header).map_err(|e| e.lift());
    let done = done.and_then(|()| fill(reader, &file, &runs(pieces), request.workers, (progress, cancel)));
    let done = done.and_then(|()| file.set_len(total).map_err(|e| e.lift()));
    let done = done.and_then(|()| check(&file, total));
    let done = done.and_then(|()| file.sync().map_err(|e| e.lift()));
    let done = done.and_then(|()| match file.finish(&entry).map_err(|errors| errors.into_iter().next()) {
        Err(Some(e)) => Err(e.lift()),
        _ => dir.put_in_place(&hidden, name, request.overwrite).map_err(|e| e.lift()),
    });
    match &done {
        Ok(()) => progress.files.add(1),
        // What lacks something must not look like what was asked for.
        Err(_) => dir.remove_all(&hidden).map_err(|e| e.lift())?,
    }
    done
}

/// Fetches all chunks and writes what is needed of them.
fn fill(
    reader: &Reader,
    file: &TargetFile,
    runs: &[&[Piece]],
    workers: usize,
    (progress, cancel): (&Progress, &Cancel),
) -> Result<()> {
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(None));
    let work = || {
        let mut coder = Coder::default();
        while let Some(run) = runs.get(next.fetch_add(1, Ordering::Relaxed)) {
            if lock(&failed).is_some() {
                break;
            }
            match cancel.check().and_then(|()| fetch(reader, file, run, &mut coder)) {
                Ok(bytes) => progress.bytes_done.add(bytes),
                Err(e) => {
                    lock(&failed).get_or_insert(e);
                }
            }
        }
    };
    std::thread::scope(|scope| {
        // This thread is one of them.
        let others = workers.min(runs.len()).saturating_sub(1);
        (0..others).for_each(|_| drop(scope.spawn(work)));
        work();
    });
    failed.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner).map_or(Ok(()), Err)
}

fn fetch(reader: &Reader, file: &TargetFile, run: &[Piece], coder: &mut Coder) -> Result<u64> {
    let Some(first) = run.first() else { return Ok(0) };
    if first.id == ChunkId::HOLE {
        let ready = run.iter().filter_map(|piece| Some((piece.to, piece.ready.as_ref()?)));
        return ready
            .map(|(to, bytes)| file.write_at(to, bytes).map(|()| bytes.len() as u64))
            .sum::<std::result::Result<u64, _>>()
            .map_err(|e| e.lift());
    }
    let chunk = reader.chunk(&first.id, coder)?;
    let wrong = || Error::new(Kind::Damage, "a chunk's length is not what the file's list says");
    let mut bytes = 0u64;
    for piece in run {
        let inside = usize::try_from(piece.inside).map_err(|_| wrong())?;
        let len = usize::try_from(piece.len).map_err(|_| wrong())?;
        let fits = chunk.len() as u64 == piece.chunk_bytes;
        let part = chunk.get(inside..).and_then(|rest| rest.get(..len)).filter(|_| fits).ok_or_else(wrong)?;
        file.write_at(piece.to, part).map_err(|e| e.lift())?;
        bytes = bytes.saturating_add(piece.len);
    }
    Ok(bytes)
}

/// What was written, as a stranger's file.
struct Written<'f>(&'f TargetFile);

impl ReadAt for Written<'_> {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> std::io::Result<usize> {
        self.0.read_at(offset, buf).map_err(|e| std::io::Error::other(e.lift().to_string()))
    }
}

/// What was written must be what this program takes for a model.
fn check(file: &TargetFile, total: u64) -> Result<()> {
    match read(&Written(file), total) {
        Ok(Found::Model(_)) => Ok(()),
        Ok(_) => Err(Error::new(Kind::Bug, "the file that was written is no valid one")),
        Err(e) => Err(Error::new(Kind::Source, format!("what was written cannot be read again: {e}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_called_like_its_model() {
        let name = |path: &str| String::from_utf8(name_of(path.as_bytes())).unwrap();
        assert_eq!(name("/hub/model.safetensors"), "model.safetensors");
        assert_eq!(name("/hub/model.safetensors.index.json"), "model.safetensors");
        assert_eq!(name("pytorch_model.bin.index.json"), "pytorch_model.safetensors");
        assert_eq!(name("llama.Q8.gguf"), "llama.Q8.safetensors");
        assert_eq!(name("a/.gguf"), ".gguf.safetensors");
        assert_eq!(name("weights"), "weights.safetensors");
    }
}
