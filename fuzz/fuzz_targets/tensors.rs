//! Headers of files of tensors: whatever they say, the sections cover the file once.
#![no_main]

use holdfast::chunk::{CUT_BYTES_MAX, Layout};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let [a, b, c, header @ ..] = data else { return };
    let mut front = (header.len() as u64).to_le_bytes().to_vec();
    front.extend_from_slice(header);
    let behind = u64::from(*a) | u64::from(*b) << 8 | u64::from(*c) << 16;
    let size = front.len() as u64 + behind;
    let _ = Layout::probe(data, size);
    let _ = Layout::parse(data, data.len() as u64);
    let Some(layout) = Layout::parse(&front, size) else { return };
    let mut at = 0;
    while at < size {
        let left = usize::try_from(size - at).unwrap_or(usize::MAX);
        match layout.next(at, left.min(CUT_BYTES_MAX), left <= CUT_BYTES_MAX) {
            Some(len) if len > 0 && len <= left => at += len as u64,
            other => panic!("{other:?} at {at} of {size}"),
        }
    }
    assert!(layout.ahead(0) <= CUT_BYTES_MAX);
});
