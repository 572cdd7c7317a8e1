//! A sealed local file: a header, buckets, and tables of records in pages. Every piece is sealed with a key of this
//! file alone and for its own place, so that nothing in it can be changed, moved or taken from another file unseen.

use crate::crypto::{BulkCipher, Secret, kd};
use std::fs::File;
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;

/// Bytes that sealing adds to each piece.
pub const TAG_BYTES: usize = 16;
/// Most bytes of a page before it is sealed.
const PAGE_BYTES: usize = 4096;
const MAGIC: &[u8; 8] = b"hfindex1";
const SALT_BYTES: usize = 32;
/// Numbers in the header.
pub const COUNTS: usize = 5;
const HEADER_BYTES: usize = COUNTS * 8;
/// Where the first piece after the header begins.
pub const BODY_AT: u64 = (MAGIC.len() + SALT_BYTES + HEADER_BYTES + TAG_BYTES) as u64;

/// A piece that cannot be read, or is not what was written there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Broken;

/// What a piece is: part of what seals it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Part {
    /// The header.
    Header,
    /// Entries by bucket.
    Bucket,
    /// Where buckets begin.
    Offsets,
    /// The filter.
    Filter,
    /// Packs.
    Packs,
    /// Segments.
    Segments,
}

fn nonce(part: Part, number: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[0] = part as u8;
    nonce[4..].copy_from_slice(&number.to_le_bytes());
    nonce
}

fn cipher(root: &Secret<32>, salt: &[u8]) -> BulkCipher {
    BulkCipher::new(&kd("index cache file", &[root.bytes(), salt]))
}

const WHOLE_MAGIC: &[u8; 8] = b"hfabout1";
/// The longest file that is read whole, in bytes.
const WHOLE_BYTES_MAX: u64 = 1 << 30;

fn whole_cipher(root: &Secret<32>, name: &str, salt: &[u8]) -> BulkCipher {
    BulkCipher::new(&kd("local file", &[root.bytes(), salt, name.as_bytes()]))
}

/// The content of a file that is one piece.
pub fn read_whole(file: &File, name: &str, root: &Secret<32>) -> Option<Vec<u8>> {
    let len = file.metadata().ok().filter(std::fs::Metadata::is_file)?.len();
    if len > WHOLE_BYTES_MAX {
        return None;
    }
    let mut bytes = vec![0; len as usize];
    file.read_exact_at(&mut bytes, 0).ok()?;
    let (start, _) = bytes.split_at_checked(WHOLE_MAGIC.len() + SALT_BYTES)?;
    let (magic, salt) = start.split_at(WHOLE_MAGIC.len());
    let cipher = (magic == WHOLE_MAGIC).then(|| whole_cipher(root, name, salt))?;
    let mut sealed = bytes.split_off(start.len());
    let (body, tag) = sealed.split_last_chunk_mut::<TAG_BYTES>()?;
    cipher.open_in_place(&[0; 12], &[], body, tag).ok()?;
    sealed.truncate(sealed.len() - TAG_BYTES);
    Some(sealed)
}

/// Writes a file that is one piece. Its key is used once: the salt is random.
///
/// # Errors
/// It cannot be written.
pub fn write_whole(
    mut file: &File,
    name: &str,
    root: &Secret<32>,
    salt: [u8; SALT_BYTES],
    mut body: Vec<u8>,
) -> io::Result<()> {
    let tag = whole_cipher(root, name, &salt).seal_in_place(&[0; 12], &[], &mut body);
    file.write_all(WHOLE_MAGIC)?;
    file.write_all(&salt)?;
    file.write_all(&body)?;
    file.write_all(&tag)
}

/// A file that is read.
pub struct Sealed {
    file: File,
    cipher: BulkCipher,
    /// What the header says.
    pub counts: [u64; COUNTS],
}

impl std::fmt::Debug for Sealed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sealed").field("counts", &self.counts).finish_non_exhaustive()
    }
}

impl Sealed {
    /// Reads the header.
    ///
    /// # Errors
    /// Not a file of this version, made with this key.
    pub fn open(file: File, root: &Secret<32>) -> Result<Sealed, Broken> {
        let mut start = [0; BODY_AT as usize];
        file.read_exact_at(&mut start, 0).map_err(|_| Broken)?;
        let (magic, rest) = start.split_at(MAGIC.len());
        let (salt, header) = rest.split_at(SALT_BYTES);
        if magic != MAGIC {
            return Err(Broken);
        }
        let cipher = cipher(root, salt);
        let mut header = header.to_vec();
        let (header, tag) = header.split_last_chunk_mut::<TAG_BYTES>().ok_or(Broken)?;
        cipher.open_in_place(&nonce(Part::Header, 0), &[], header, tag).map_err(|_| Broken)?;
        let mut counts = [0; COUNTS];
        for (count, raw) in counts.iter_mut().zip(header.as_chunks::<8>().0) {
            *count = u64::from_le_bytes(*raw);
        }
        Ok(Sealed { file, cipher, counts })
    }

    /// Its length, in bytes.
    ///
    /// # Errors
    /// The file system does not say.
    pub fn len(&self) -> Result<u64, Broken> {
        self.file.metadata().map(|meta| meta.len()).map_err(|_| Broken)
    }

    /// Reads bytes as they lie there.
    ///
    /// # Errors
    /// They are not there.
    pub fn read(&self, at: u64, out: &mut [u8]) -> Result<(), Broken> {
        self.file.read_exact_at(out, at).map_err(|_| Broken)
    }

    /// Opens a piece that was read, in place; returns its content.
    ///
    /// # Errors
    /// It is not what was sealed for this place.
    pub fn unseal<'p>(&self, part: Part, number: u64, piece: &'p mut [u8]) -> Result<&'p [u8], Broken> {
        let (body, tag) = piece.split_last_chunk_mut::<TAG_BYTES>().ok_or(Broken)?;
        self.cipher.open_in_place(&nonce(part, number), &[], body, tag).map_err(|_| Broken)?;
        Ok(body)
    }
}

/// Records of one size in pages, which are read when first asked for and kept.
#[derive(Debug)]
pub struct Table {
    part: Part,
    record: usize,
    at: u64,
    pages: Vec<OnceLock<Box<[u8]>>>,
}

fn page_bytes(record: usize) -> usize {
    PAGE_BYTES / record * record
}

fn page_count(record: usize, count: u64) -> u64 {
    count.div_ceil((PAGE_BYTES / record) as u64)
}

/// What so many records take in a file, in bytes.
pub fn table_bytes(record: usize, count: u64) -> u64 {
    page_count(record, count) * (page_bytes(record) + TAG_BYTES) as u64
}

impl Table {
    /// The table that begins at `at`.
    pub fn new(part: Part, record: usize, count: u64, at: u64) -> Table {
        let pages = (0..page_count(record, count)).map(|_| OnceLock::new()).collect();
        Table { part, record, at, pages }
    }

    /// Record `n`.
    ///
    /// # Errors
    /// There is none, or its page is broken.
    pub fn record(&self, file: &Sealed, n: u64) -> Result<&[u8], Broken> {
        let per_page = (PAGE_BYTES / self.record) as u64;
        let at = (n % per_page) as usize * self.record;
        let page = self.page(file, n / per_page)?;
        page.get(at..at + self.record).ok_or(Broken)
    }

    fn page(&self, file: &Sealed, number: u64) -> Result<&[u8], Broken> {
        let slot = self.pages.get(number as usize).ok_or(Broken)?;
        if let Some(page) = slot.get() {
            return Ok(page);
        }
        let whole = page_bytes(self.record) + TAG_BYTES;
        let mut piece = vec![0; whole];
        file.read(self.at + number * whole as u64, &mut piece)?;
        file.unseal(self.part, number, &mut piece)?;
        piece.truncate(whole - TAG_BYTES);
        Ok(slot.get_or_init(|| piece.into_boxed_slice()))
    }
}

/// A file that is written, from its first piece to its last; the header comes at the end.
pub struct Sealing {
    file: BufWriter<File>,
    cipher: BulkCipher,
}

impl Sealing {
    /// Begins an empty file.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn begin(file: File, root: &Secret<32>, salt: [u8; SALT_BYTES]) -> io::Result<Sealing> {
        let mut file = BufWriter::with_capacity(1 << 20, file);
        file.write_all(MAGIC)?;
        file.write_all(&salt)?;
        file.write_all(&[0; HEADER_BYTES + TAG_BYTES])?;
        Ok(Sealing { file, cipher: cipher(root, &salt) })
    }

    /// Seals a piece in place, and writes it.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn piece(&mut self, part: Part, number: u64, body: &mut [u8]) -> io::Result<()> {
        let tag = self.cipher.seal_in_place(&nonce(part, number), &[], body);
        self.file.write_all(body)?;
        self.file.write_all(&tag)
    }

    /// Writes a table of records.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn table(&mut self, part: Part, record: usize, bytes: &[u8]) -> io::Result<()> {
        let mut page = Vec::with_capacity(PAGE_BYTES);
        for (number, records) in bytes.chunks(page_bytes(record)).enumerate() {
            page.clear();
            page.extend_from_slice(records);
            page.resize(page_bytes(record), 0);
            self.piece(part, number as u64, &mut page)?;
        }
        Ok(())
    }

    /// Writes the header; returns the file.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn finish(mut self, counts: [u64; COUNTS]) -> io::Result<File> {
        let mut header: Vec<u8> = counts.iter().flat_map(|count| count.to_le_bytes()).collect();
        self.file.seek(SeekFrom::Start((MAGIC.len() + SALT_BYTES) as u64))?;
        self.piece(Part::Header, 0, &mut header)?;
        self.file.into_inner().map_err(io::IntoInnerError::into_error)
    }
}
