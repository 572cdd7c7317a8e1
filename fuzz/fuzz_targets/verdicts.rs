//! Files of models, signatures and lists of hashes: whatever they say, a verdict comes, and what would do harm behind
//! something harmless is not lost.
#![no_main]

use holdfast::base::TimeMs;
use holdfast::model::archive::examine;
use holdfast::model::recorded::Recorded;
use holdfast::model::signature;
use holdfast::model::verdict::{FINDINGS_MAX, Grade, Sums};
use libfuzzer_sys::fuzz_target;

/// How PyTorch's old files begin, whose tensors' bytes are behind their pickles.
const OLD: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";

fuzz_target!(|data: &[u8]| {
    let bytes = data.to_vec();
    let report = examine(&bytes);
    assert!(report.findings.len() <= FINDINGS_MAX);
    assert!(report.findings.iter().all(|finding| finding.grade <= report.grade));
    if report.grade == Grade::Safe && !data.starts_with(OLD) {
        let more = examine(&[data, b"cos\nsystem\n(tR."].concat());
        assert!(more.grade >= Grade::Unknown, "{more:?}");
    }
    let checked = signature::check(data, &[], TimeMs(0));
    assert_ne!(checked.standing, signature::Standing::Valid);
    let recorded = Recorded::of(data);
    assert_eq!(Recorded::read(&recorded.value()), Some(recorded));
    let _ = Recorded::read(data);
    let _ = Sums::read(&String::from_utf8_lossy(data));
});
