//! Sorting more than memory holds: runs are sorted in memory, put into a scratch file, and merged.

use super::scratch;
use crate::error::{Error, Kind, Result};
use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes that are sorted in memory.
const RUN_BYTES: usize = 64 << 20;
/// Bytes read ahead of each run when runs are merged.
const AHEAD_BYTES: usize = 256 << 10;
/// A record is never longer.
const RECORD_BYTES_MAX: u32 = 64 << 20;

fn failed(e: &std::io::Error) -> Error {
    let kind = if e.kind() == std::io::ErrorKind::StorageFull { Kind::Full } else { Kind::Source };
    Error::new(kind, format!("cannot use the scratch file: {}", e.kind()))
}

/// How two records are ordered.
pub type Order = fn(&[u8], &[u8]) -> Ordering;

/// Takes records in any order.
pub struct Sorter {
    order: Order,
    dir: PathBuf,
    run_bytes: usize,
    arena: Vec<u8>,
    records: Vec<(usize, usize)>,
    file: Option<BufWriter<File>>,
    written: u64,
    runs: Vec<(u64, u64)>,
}

impl Sorter {
    /// Scratch files go into this directory.
    pub fn new(dir: &Path, order: Order) -> Sorter {
        Sorter {
            order,
            dir: dir.to_owned(),
            run_bytes: RUN_BYTES,
            arena: Vec::new(),
            records: Vec::new(),
            file: None,
            written: 0,
            runs: Vec::new(),
        }
    }

    /// Takes a record.
    ///
    /// # Errors
    /// The scratch file cannot be written.
    pub fn push(&mut self, record: &[u8]) -> Result<()> {
        if !self.records.is_empty() && self.arena.len() + record.len() > self.run_bytes {
            self.spill()?;
        }
        self.records.push((self.arena.len(), record.len()));
        self.arena.extend_from_slice(record);
        Ok(())
    }

    fn sort(&mut self) {
        let (arena, order) = (&self.arena, self.order);
        let of = |(at, len): (usize, usize)| arena.get(at..at + len).unwrap_or_default();
        self.records.sort_unstable_by(|a, b| order(of(*a), of(*b)));
    }

    fn spill(&mut self) -> Result<()> {
        self.sort();
        let out = match &mut self.file {
            Some(file) => file,
            None => self.file.insert(BufWriter::with_capacity(1 << 20, scratch::file(&self.dir)?)),
        };
        let begin = self.written;
        for (at, len) in self.records.drain(..) {
            let head = u32::try_from(len).ok().filter(|len| *len <= RECORD_BYTES_MAX);
            let head = head.ok_or_else(|| Error::new(Kind::Source, "a record is too long to be sorted"))?;
            let record = self.arena.get(at..at + len).unwrap_or_default();
            out.write_all(&head.to_le_bytes()).and_then(|()| out.write_all(record)).map_err(|e| failed(&e))?;
            self.written += 4 + len as u64;
        }
        self.arena.clear();
        self.runs.push((begin, self.written));
        Ok(())
    }

    /// All records, sorted.
    ///
    /// # Errors
    /// The scratch file cannot be written or read.
    pub fn finish(mut self) -> Result<Sorted> {
        if self.runs.is_empty() {
            self.sort();
            let memory = Memory { arena: self.arena, records: self.records, next: 0 };
            return Ok(Sorted { memory: Some(memory), heap: BinaryHeap::new(), last: Vec::new() });
        }
        self.spill()?;
        let file = self.file.take().map(BufWriter::into_inner).transpose().map_err(|e| failed(e.error()))?;
        let file = Arc::new(file.ok_or_else(|| Error::new(Kind::Bug, "runs without a file"))?);
        let mut heap = BinaryHeap::new();
        for (begin, end) in &self.runs {
            let part = Part { file: Arc::clone(&file), at: *begin, end: *end };
            let mut run =
                Run { record: Vec::new(), input: BufReader::with_capacity(AHEAD_BYTES, part), order: self.order };
            if run.advance()? {
                heap.push(Reverse(run));
            }
        }
        Ok(Sorted { memory: None, heap, last: Vec::new() })
    }
}

/// Part of a file.
struct Part {
    file: Arc<File>,
    at: u64,
    end: u64,
}

impl Read for Part {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX).min(buf.len());
        let got = self.file.read_at(&mut buf[..left], self.at)?;
        self.at += got as u64;
        Ok(got)
    }
}

/// A run that is merged, by its next record.
struct Run {
    record: Vec<u8>,
    input: BufReader<Part>,
    order: Order,
}

impl Run {
    fn advance(&mut self) -> Result<bool> {
        let mut head = [0; 4];
        match self.input.read_exact(&mut head) {
            Ok(()) => {}
            Err(e) if e.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(false),
            Err(e) => return Err(failed(&e)),
        }
        self.record.resize(u32::from_le_bytes(head).min(RECORD_BYTES_MAX) as usize, 0);
        self.input.read_exact(&mut self.record).map_err(|e| failed(&e))?;
        Ok(true)
    }
}

impl PartialEq for Run {
    fn eq(&self, other: &Run) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Run {}

impl PartialOrd for Run {
    fn partial_cmp(&self, other: &Run) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Run {
    fn cmp(&self, other: &Run) -> Ordering {
        (self.order)(&self.record, &other.record)
    }
}

struct Memory {
    arena: Vec<u8>,
    records: Vec<(usize, usize)>,
    next: usize,
}

/// Records in their order.
pub struct Sorted {
    memory: Option<Memory>,
    heap: BinaryHeap<Reverse<Run>>,
    last: Vec<u8>,
}

impl Sorted {
    /// The next record.
    ///
    /// # Errors
    /// The scratch file cannot be read.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Result<Option<&[u8]>> {
        if let Some(memory) = &mut self.memory {
            let Some((at, len)) = memory.records.get(memory.next).copied() else { return Ok(None) };
            memory.next += 1;
            return Ok(memory.arena.get(at..at + len));
        }
        let Some(mut top) = self.heap.peek_mut() else { return Ok(None) };
        std::mem::swap(&mut self.last, &mut top.0.record);
        if !top.0.advance()? {
            std::collections::binary_heap::PeekMut::pop(top);
        }
        Ok(Some(&self.last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #![proptest_config(proptest::test_runner::Config {
            cases: 64, failure_persistence: None, ..proptest::test_runner::Config::default()
        })]

        #[test]
        fn records_come_out_in_their_order(
            records in proptest::collection::vec(proptest::collection::vec(0..=255u8, 0..20), 0..400), run_bytes in 1..3000usize,
        ) {
            let dir = tempfile::tempdir().unwrap();
            let mut sorter = Sorter { run_bytes, ..Sorter::new(dir.path(), <[u8]>::cmp) };
            records.iter().for_each(|record| sorter.push(record).unwrap());
            let mut sorted = sorter.finish().unwrap();
            let mut found = Vec::new();
            while let Some(record) = sorted.next().unwrap() {
                found.push(record.to_vec());
            }
            let mut wanted = records;
            wanted.sort();
            assert!(found == wanted);
            assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "scratch files have no name");
        }
    }
}
