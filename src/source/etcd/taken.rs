//! A stream of a snapshot, judged while it comes: it counts once its end, its length and its hash are right.

use super::calls::Part;
use crate::error::{Error, Kind, Result};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{BufWriter, Write};

/// A snapshot ends with so many bytes of hash, behind pages of at least 512 bytes.
const HASH_BYTES: usize = 32;
/// Behind the end comes the hash, perhaps with some empty parts.
const BEHIND_MAX: usize = HASH_BYTES + 8;
const SECTOR_BYTES: u64 = 512;

/// A stream on its way into a file: all but the last 32 bytes, which are the hash of the others.
pub struct Taken {
    out: BufWriter<File>,
    hash: Sha256,
    held: Vec<u8>,
    /// Bytes that are in the file.
    pub bytes: u64,
    /// What the member said would still come.
    remaining: Option<u64>,
    /// Bytes and parts behind that end.
    behind: usize,
}

impl Taken {
    /// Into an empty file.
    pub fn new(file: File) -> Taken {
        let out = BufWriter::with_capacity(1 << 20, file);
        Taken { out, hash: Sha256::new(), held: Vec::new(), bytes: 0, remaining: None, behind: 0 }
    }

    /// Takes a part.
    ///
    /// # Errors
    /// It does not follow the one before, or the file cannot be written.
    pub fn take(&mut self, part: &Part<'_>) -> Result<()> {
        let torn = || Error::new(Kind::Source, "the stream of the snapshot has a gap");
        if self.remaining == Some(0) {
            self.behind += part.blob.len().max(1);
        }
        // A member that cannot read its own file any further sends nothing for ever; and behind the end comes the hash alone.
        if self.behind > BEHIND_MAX || (part.blob.is_empty() && part.remaining > 0) {
            return Err(torn());
        }
        // The hash in the end is not counted in what remains.
        if let Some(remaining) = self.remaining.filter(|remaining| *remaining > 0) {
            let left = remaining.checked_sub(part.blob.len() as u64).ok_or_else(torn)?;
            if left != part.remaining {
                return Err(torn());
            }
        }
        self.remaining = Some(part.remaining);
        self.held.extend_from_slice(part.blob);
        let ready = self.held.len().saturating_sub(HASH_BYTES);
        let sure = self.held.get(..ready).unwrap_or_default();
        self.hash.update(sure);
        self.out.write_all(sure).map_err(|e| {
            let kind = if e.kind() == std::io::ErrorKind::StorageFull { Kind::Full } else { Kind::Source };
            Error::new(kind, format!("cannot write the scratch file: {}", e.kind()))
                .advise("set TMPDIR to a directory with room for the database")
        })?;
        self.bytes += ready as u64;
        self.held.drain(..ready);
        Ok(())
    }

    /// The file and its bytes, if all of it came.
    ///
    /// # Errors
    /// It did not, or is not what was sent.
    pub fn finish(self) -> Result<(File, u64)> {
        let short = |what| Error::new(Kind::Retry, what);
        if self.remaining != Some(0) || self.held.len() != HASH_BYTES || self.bytes == 0 {
            return Err(short("the stream of the snapshot ended early"));
        }
        if !self.bytes.is_multiple_of(SECTOR_BYTES) {
            return Err(short("the stream of the snapshot has no whole number of pages"));
        }
        if self.hash.finalize()[..] != self.held[..] {
            return Err(Error::new(
                Kind::Source,
                "the snapshot does not have the hash that came with it: it was changed on its way",
            ));
        }
        let file = self.out.into_inner();
        Ok((
            file.map_err(|e| {
                let full = e.error().kind() == std::io::ErrorKind::StorageFull;
                let kind = if full { Kind::Full } else { Kind::Source };
                Error::new(kind, format!("cannot write the scratch file: {}", e.error().kind()))
            })?,
            self.bytes,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::super::calls::Header;
    use super::*;

    fn blobs(total: usize, size: usize) -> Vec<Vec<u8>> {
        let body: Vec<u8> = (0..total).map(|n| n as u8).collect();
        let hash = Sha256::digest(&body).to_vec();
        body.chunks(size).map(<[u8]>::to_vec).chain([hash]).collect()
    }

    fn taken(blobs: &[Vec<u8>]) -> Result<u64> {
        let total: usize = blobs.iter().map(Vec::len).sum();
        let (mut taken, mut left) = (Taken::new(tempfile::tempfile().unwrap()), (total.saturating_sub(32)) as u64);
        for blob in blobs {
            left = left.saturating_sub(blob.len() as u64);
            taken.take(&Part { header: Header::default(), remaining: left, blob })?;
        }
        taken.finish().map(|(_, bytes)| bytes)
    }

    #[test]
    fn only_a_whole_stream_with_its_hash_is_a_snapshot() {
        for size in [1, 31, 32, 33, 512, 4096, 8192] {
            assert_eq!(taken(&blobs(8192, size)).unwrap(), 8192);
        }
        assert!(taken(&blobs(8191, 512)).is_err());
        assert!(taken(&[]).is_err() && taken(&[vec![0; 32]]).is_err());
        let whole = blobs(8192, 512);
        for cut in 0..whole.len() {
            assert!(taken(&whole[..cut]).is_err());
        }
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at][7] ^= 0x10;
            let error = taken(&changed).unwrap_err();
            assert!(error.what().contains("changed on its way"), "{error}");
        }
        let nothing = Part { header: Header::default(), remaining: 900, blob: &[] };
        let mut endless = Taken::new(tempfile::tempfile().unwrap());
        endless.take(&Part { blob: &[0; 10], ..nothing }).unwrap();
        assert!(endless.take(&nothing).is_err(), "a member that sends nothing for ever");
        let mut longer = Taken::new(tempfile::tempfile().unwrap());
        longer.take(&Part { blob: &[0; 512], remaining: 0, ..nothing }).unwrap();
        longer.take(&Part { blob: &[0; 32], remaining: 0, ..nothing }).unwrap();
        assert!(
            longer.take(&Part { blob: &[0; 32], remaining: 0, ..nothing }).is_err(),
            "more than the hash behind the end"
        );
        let mut gap = Taken::new(tempfile::tempfile().unwrap());
        gap.take(&Part { header: Header::default(), remaining: 1000, blob: &[0; 10] }).unwrap();
        assert!(gap.take(&Part { header: Header::default(), remaining: 980, blob: &[0; 10] }).is_err());
    }
}
