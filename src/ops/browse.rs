//! Looking into a snapshot: a path's entry, a directory's entries, a file's bytes.

use crate::base::Cancel;
use crate::chunk::Coder;
use crate::error::{Error, Kind, Result};
use crate::format::snapshot::Manifest;
use crate::format::tree::{Entry, EntryType};
use crate::repo::reader::Reader;
use crate::repo::tree::{DirReader, ListReader, check_depth};
use std::io::Write;

/// Zero bytes written for a hole at once.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// `SNAPSHOT` or `SNAPSHOT:/path`, split.
pub fn split_target(text: &[u8]) -> (&[u8], &[u8]) {
    match text.iter().position(|b| *b == b':') {
        Some(at) => (&text[..at], &text[at + 1..]),
        None => (text, &[]),
    }
}

/// The components of a path inside a snapshot.
fn components(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|b| *b == b'/').filter(|c| !c.is_empty() && *c != b".")
}

/// The entry at a path; the root for an empty one.
///
/// # Errors
/// No such path, or a page that no region has intact.
pub fn find(reader: &Reader, manifest: &Manifest, path: &[u8]) -> Result<Entry> {
    let mut coder = Coder::default();
    let mut entry = manifest.root.clone();
    for (depth, component) in components(path).enumerate() {
        check_depth(depth)?;
        let shown = || String::from_utf8_lossy(path).into_owned();
        if entry.kind != EntryType::Dir {
            return Err(Error::new(Kind::NotFound, "not a directory").at(shown()));
        }
        let mut dir = DirReader::new(reader, entry.tree);
        let mut found = None;
        while let Some(child) = dir.next(&mut coder)? {
            if &child.name[..] >= component {
                found = Some(child).filter(|c| &c.name[..] == component);
                break;
            }
        }
        entry = found.ok_or_else(|| {
            Error::new(Kind::NotFound, "no such path in the snapshot").at(shown()).advise("see `holdfast ls SNAPSHOT`")
        })?;
    }
    Ok(entry)
}

/// Calls `show` for every entry of a directory (or the file itself), with its path; with `recursive`
/// for everything below too.
///
/// # Errors
/// A page that no region has intact, or what `show` returned.
pub fn list(
    reader: &Reader,
    root: &Entry,
    recursive: bool,
    cancel: &Cancel,
    show: &mut dyn FnMut(&[u8], &Entry) -> Result<()>,
) -> Result<()> {
    let mut coder = Coder::default();
    if root.kind != EntryType::Dir {
        return show(&root.name, root);
    }
    let mut path: Vec<u8> = Vec::new();
    let mut stack = vec![(DirReader::new(reader, root.tree), 0)];
    while let Some((dir, prefix)) = stack.last_mut() {
        cancel.check()?;
        let Some(entry) = dir.next(&mut coder)? else {
            stack.pop();
            continue;
        };
        path.truncate(*prefix);
        path.extend_from_slice(&entry.name);
        show(&path, &entry)?;
        if recursive && entry.kind == EntryType::Dir {
            check_depth(stack.len())?;
            path.push(b'/');
            stack.push((DirReader::new(reader, entry.tree), path.len()));
        }
    }
    Ok(())
}

/// Writes a file's content.
///
/// # Errors
/// Not a file, a chunk that no region has intact, or the output refused.
pub fn cat(reader: &Reader, entry: &Entry, out: &mut dyn Write, cancel: &Cancel) -> Result<()> {
    if entry.kind != EntryType::File {
        return Err(Error::new(Kind::Config, "not a regular file").at(String::from_utf8_lossy(&entry.name)));
    }
    let refused = |e: std::io::Error| match e.kind() {
        std::io::ErrorKind::BrokenPipe => Error::new(Kind::Cancelled, "the output was closed"),
        kind => Error::new(Kind::Source, format!("cannot write the output: {kind}")),
    };
    if let Some(inline) = &entry.inline {
        return out.write_all(inline).map_err(refused);
    }
    let mut coder = Coder::default();
    let mut list = ListReader::new(reader, entry)?;
    let mut total = 0u64;
    while let Some(item) = list.next(&mut coder)? {
        cancel.check()?;
        total = total.saturating_add(item.len);
        if item.id == crate::base::ChunkId::HOLE {
            let mut left = item.len;
            while left > 0 {
                let piece = left.min(ZEROS.len() as u64);
                out.write_all(&ZEROS[..piece as usize]).map_err(refused)?;
                left -= piece;
            }
            continue;
        }
        let bytes = reader.chunk(&item.id, &mut coder)?;
        if bytes.len() as u64 != item.len {
            return Err(Error::new(Kind::Damage, "a chunk's length is not what the file's list says"));
        }
        out.write_all(&bytes).map_err(refused)?;
    }
    if total == entry.size() {
        Ok(())
    } else {
        Err(Error::new(Kind::Damage, "the file's chunks do not add up to its size"))
    }
}
