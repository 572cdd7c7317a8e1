//! Headers of files of tensors, of every format: whatever they say, tensors lie within the file, and the sections that come of
//! them cover it once.
#![no_main]

use holdfast::chunk::{CUT_BYTES_MAX, Layout};
use holdfast::model::format::{Found, ReadAt, Shards, read};
use libfuzzer_sys::fuzz_target;

/// Bytes, zeros behind them, and an end.
struct File<'d> {
    front: &'d [u8],
    end: &'d [u8],
    bytes: u64,
}

impl ReadAt for File<'_> {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> std::io::Result<usize> {
        let len = buf.len().min(usize::try_from(self.bytes.saturating_sub(offset)).unwrap_or(usize::MAX));
        let end = self.bytes - self.end.len() as u64;
        for (at, byte) in (offset..).zip(&mut buf[..len]) {
            let from_end = at.checked_sub(end).and_then(|at| self.end.get(at as usize));
            *byte = from_end.or_else(|| self.front.get(at as usize)).copied().unwrap_or(0);
        }
        Ok(len)
    }
}

fn looked_at(file: &File<'_>) {
    let Ok(Found::Model(model)) = read(file, file.bytes) else { return };
    for tensor in &model.tensors {
        assert!(tensor.range().is_none_or(|(begin, end)| begin <= end && end <= file.bytes), "{tensor:?}");
    }
    let Some(layout) = Layout::of(&model.sections(), file.bytes) else { return };
    let mut at = 0;
    while at < file.bytes {
        let left = usize::try_from(file.bytes - at).unwrap_or(usize::MAX);
        match layout.next(at, left.min(CUT_BYTES_MAX), left <= CUT_BYTES_MAX) {
            Some(len) if len > 0 && len <= left => at += len as u64,
            other => panic!("{other:?} at {at} of {}", file.bytes),
        }
    }
    assert!(layout.ahead(0) <= CUT_BYTES_MAX);
}

fuzz_target!(|data: &[u8]| {
    let [kind, a, b, c, rest @ ..] = data else { return };
    let behind = u64::from(*a) | u64::from(*b) << 8 | u64::from(*c) << 16;
    let length = (rest.len() as u64).to_le_bytes();
    // As it is, and behind what a format begins with.
    let magic: &[u8] = match kind % 7 {
        0 => &length,
        1 => b"GGUF\x03\0\0\0",
        2 => b"\x93NUMPY\x01\0",
        3 => b"\x08\x0a\x12\x01a",
        4 => b"PK\x03\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x0a\0\0\0a/data.pkl",
        5 => b"PK\x03\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\x05\0\0\0a.npy",
        _ => b"",
    };
    let front = [magic, rest].concat();
    // What a zip file has at its end is part of what is tried.
    let end = if kind & 0x80 == 0 { &[][..] } else { rest };
    looked_at(&File { front: &front, end, bytes: front.len() as u64 + end.len() as u64 + behind });
    looked_at(&File { front: &front, end: &[], bytes: front.len() as u64 });
    let _ = Shards::parse(rest);
});
