//! Bytes a second as people write them: `10MiB/s`.

use super::name::quoted;
use crate::error::{Error, Kind, Result};

/// Less is refused, in bytes a second: a run that stores so little passes for dead (`ops::live`).
const RATE_MIN: u64 = 256 << 10;
/// More is no limit that any machine would notice, in bytes a second.
const RATE_MAX: u64 = 1 << 50;
/// Units and what they are in bytes; longer names first.
const UNITS: [(&str, u64); 7] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("kB", 1000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("B", 1),
];

/// A number with a unit, in bytes.
fn bytes(text: &str) -> std::result::Result<u64, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().map_err(|_| "a whole number is needed")?;
    let factor = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, factor)| factor);
    let factor = factor.ok_or_else(|| format!("the unit {} is not known", quoted(unit)))?;
    number.checked_mul(*factor).filter(|bytes| *bytes <= RATE_MAX).ok_or_else(|| "it is too much".into())
}

/// Reads a size: `50GiB`.
///
/// # Errors
/// [`Kind::Config`] for anything else, and for nothing.
pub fn size(text: &str) -> Result<u64> {
    let read = bytes(text).and_then(|bytes| if bytes > 0 { Ok(bytes) } else { Err("it is nothing".into()) });
    read.map_err(|why| {
        let what = format!("{} is not a size: {why}", quoted(text));
        Error::new(Kind::Config, what).advise("write bytes, like `500MiB` or `50GiB`")
    })
}

/// Writes a size as [`size`] reads it.
pub(super) fn size_text(bytes: u64) -> String {
    let whole = UNITS.iter().filter(|(_, factor)| bytes.is_multiple_of(*factor)).max_by_key(|(_, factor)| *factor);
    whole.map_or_else(|| format!("{bytes}B"), |(unit, factor)| format!("{}{unit}", bytes / factor))
}

/// A rate, and how it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rate {
    bytes: u64,
    text: String,
}

impl Rate {
    /// A number with a unit a second.
    ///
    /// # Errors
    /// [`Kind::Config`] for anything else, and where it is too little.
    pub fn parse(text: &str) -> Result<Rate> {
        let refuse = |why: &str| {
            let what = format!("{} is not a rate: {why}", quoted(text));
            Error::new(Kind::Config, what).advise("write bytes a second, like `500KiB/s`, `10MiB/s` or `100MB/s`")
        };
        let amount = text.strip_suffix("/s").ok_or_else(|| refuse("`/s` is missing at the end"))?;
        let bytes = bytes(amount).map_err(|why| refuse(&why))?;
        if bytes < RATE_MIN {
            let what = format!("{} is too little: a run so slow would pass for dead", quoted(text));
            return Err(Error::new(Kind::Config, what).advise("use 256KiB/s or more"));
        }
        Ok(Rate { bytes, text: text.to_owned() })
    }

    /// Bytes a second.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// As it was written.
    pub fn text(&self) -> &str {
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_people_write_them() {
        for (text, bytes) in [
            ("256KiB/s", 262_144),
            ("10MiB/s", 10 << 20),
            ("1GiB/s", 1 << 30),
            ("300kB/s", 300_000),
            ("100MB/s", 100_000_000),
            ("1GB/s", 1_000_000_000),
            ("1000000B/s", 1_000_000),
        ] {
            assert_eq!((Rate::parse(text).unwrap().bytes(), Rate::parse(text).unwrap().text()), (bytes, text));
        }
    }

    #[test]
    fn what_is_none_is_refused_with_a_reason() {
        for (text, why) in [
            ("", "`/s` is missing"),
            ("10MiB", "`/s` is missing"),
            ("MiB/s", "a whole number"),
            ("1.5MiB/s", "unit `.5MiB`"),
            ("-1MiB/s", "a whole number"),
            ("10Mbit/s", "unit `Mbit`"),
            ("10mib/s", "unit `mib`"),
            ("10 MiB/s", "unit ` MiB`"),
            ("99999999999999999999GiB/s", "a whole number"),
            ("9999999999999GiB/s", "too much"),
            ("255KiB/s", "too little"),
            ("0MiB/s", "too little"),
        ] {
            let e = Rate::parse(text).expect_err(text).to_string();
            assert!(e.contains(why) && e.contains("KiB/s`") || e.contains("256KiB/s or more"), "{text}: {e}");
        }
    }
}
