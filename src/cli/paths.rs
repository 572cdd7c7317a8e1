//! Lists of paths in files.

use super::args::Backup;
use crate::error::{Error, Kind, Result};
use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Bytes of all lists together: every path stands in the manifest.
const LISTS_BYTES_MAX: u64 = 8 << 20;

/// Every path that is to be backed up. Of a command there are none.
pub fn all(args: &Backup) -> Result<Vec<PathBuf>> {
    if args.stdin_from_command {
        return Ok(Vec::new());
    }
    let mut paths = args.path.clone();
    let mut left = LISTS_BYTES_MAX;
    for (files, raw) in [(&args.files_from, false), (&args.files_from_raw, true)] {
        for file in files {
            let bytes = read(file, left)?;
            left = left.saturating_sub(bytes.len() as u64);
            paths.extend(split(&bytes, raw).map(|path| PathBuf::from(OsStr::from_bytes(path))));
        }
    }
    if paths.is_empty() && !args.stdin {
        return Err(Error::new(Kind::Config, "the lists name nothing to back up"));
    }
    Ok(paths)
}

fn read(file: &Path, bytes_max: u64) -> Result<Vec<u8>> {
    let failed =
        |e: std::io::Error| Error::new(Kind::Config, format!("cannot read the list: {}", e.kind())).at(file.display());
    let mut bytes = Vec::new();
    let input: Box<dyn Read> = if file == Path::new("-") {
        Box::new(std::io::stdin())
    } else {
        Box::new(std::fs::File::open(file).map_err(failed)?)
    };
    input.take(bytes_max + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > bytes_max {
        let what = format!("the lists are longer than {} MiB", LISTS_BYTES_MAX >> 20);
        return Err(Error::new(Kind::Config, what)
            .at(file.display())
            .advise("name directories, and --exclude what is not wanted"));
    }
    Ok(bytes)
}

fn split(bytes: &[u8], raw: bool) -> impl Iterator<Item = &[u8]> {
    let end = if raw { 0 } else { b'\n' };
    bytes.split(move |b| *b == end).filter(move |part| !part.is_empty() && (raw || !part.starts_with(b"#")))
}
