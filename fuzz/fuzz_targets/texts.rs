//! What people and regions write as text: configurations, patterns, schedules, places, names of objects.
#![no_main]

use holdfast::base::TimeMs;
use holdfast::crypto::recovery_decode;
use holdfast::policy::{Cron, Excludes, Name, Rate, RegionSpec, Text, Url, check, duration_ms, size};
use holdfast::store::Key;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((kind, rest)) = data.split_first() else { return };
    let Ok(text) = std::str::from_utf8(rest) else { return };
    match kind % 6 {
        0 => _ = check(&[Text { name: "fuzzed.yaml", text }]),
        1 => _ = Excludes::parse_file(text),
        2 => _ = Cron::parse(text),
        3 => _ = RegionSpec::parse(text),
        4 => {
            if let Some(key) = Key::parse(text) {
                assert!(key.path() == text);
            }
        }
        _ => {
            let _ = (duration_ms(text), size(text), Rate::parse(text), Url::parse(text), Name::parse("a name", text));
            let _ = (recovery_decode(text), TimeMs::from_http_date(text));
        }
    }
});
