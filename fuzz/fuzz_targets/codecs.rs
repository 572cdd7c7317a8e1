//! Bodies of chunks: any bytes give the length asked for, or an error; what is encoded comes back.
#![no_main]

use holdfast::chunk::{Codec, Coder};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let [id, low, mid, high, body @ ..] = data else { return };
    let mut coder = Coder::default().with_planes(true);
    let len = (usize::from(*low) | usize::from(*mid) << 8 | usize::from(*high) << 16) % ((4 << 20) + 1);
    if let Some(codec) = Codec::from_id(id % 8) {
        let mut out = Vec::new();
        let done = coder.decode(codec, body, len, &mut out);
        assert!(done.is_err() || out.len() == len);
    }
    let (mut packed, mut back) = (Vec::new(), Vec::new());
    let codec = coder.encode(body, &mut packed);
    assert!(coder.decode(codec, &packed, body.len(), &mut back).is_ok() && back == body);
});
