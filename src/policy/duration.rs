//! Durations as people write them: `90s 15m 6h 7d 2w 1y`, and joined: `1h30m`. The only reader of them.

use super::name::quoted;
use crate::error::{Error, Kind, Result};

/// Longest duration: a hundred years.
const MS_MAX: i64 = 36_525 * 86_400_000;
/// Units, largest first, and what they are in milliseconds.
const UNITS: [(char, i64); 6] =
    [('y', 365 * 86_400_000), ('w', 7 * 86_400_000), ('d', 86_400_000), ('h', 3_600_000), ('m', 60_000), ('s', 1000)];

/// A duration of some length, in milliseconds.
///
/// # Errors
/// [`Kind::Config`]: not of that form, nothing, or more than a hundred years.
pub(super) fn length_ms(text: &str) -> Result<i64> {
    match parse(text)? {
        0 => Err(Error::new(Kind::Config, format!("the duration {} is zero", quoted(text))).advise("use a longer one")),
        ms => Ok(ms),
    }
}

/// How long something is kept, in milliseconds: `12h`, `30d`, `2w`, `1y` (365 days), or several: `1d12h`. Who writes
/// `3m` there means months, and would lose what three minutes do not keep.
///
/// # Errors
/// [`Kind::Config`]: as for any length, and with minutes or seconds in it.
pub fn span_ms(text: &str) -> Result<i64> {
    let ms = length_ms(text)?;
    if text.contains(['m', 's']) {
        let what = format!("{} is in minutes or seconds: nothing is kept by them", quoted(text));
        return Err(
            Error::new(Kind::Config, what).advise("write hours, days, weeks or years of 365 days: 12h, 30d, 2w, 1y")
        );
    }
    Ok(ms)
}

/// Milliseconds; there may be none.
///
/// # Errors
/// [`Kind::Config`] for anything else.
pub fn parse(text: &str) -> Result<i64> {
    let refuse = |why: &str| {
        Error::new(Kind::Config, format!("{} is not a duration: {why}", quoted(text)))
            .advise("write numbers with the units s, m, h, d, w, y, like `90s`, `15m`, `1h30m`, `7d`")
    };
    let (mut rest, mut units, mut sum) = (text, UNITS.iter(), 0_i64);
    if text.is_empty() {
        return Err(refuse("it is empty"));
    }
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, tail) = rest.split_at(digits);
        let number =
            if digits == 0 { Err("a number is missing") } else { number.parse().map_err(|_| "it is too long") };
        let number: i64 = number.map_err(refuse)?;
        let unit = tail.chars().next().ok_or_else(|| refuse("a unit is missing"))?;
        let known = UNITS.iter().any(|(letter, _)| *letter == unit);
        let factor = units.find(|(letter, _)| *letter == unit).map(|(_, factor)| factor);
        let factor = factor.ok_or_else(|| {
            refuse(&if known {
                "larger units come first".into()
            } else {
                format!("the unit {} is not known", quoted(&unit.to_string()))
            })
        })?;
        let added = number.checked_mul(*factor).and_then(|ms| sum.checked_add(ms)).filter(|sum| *sum <= MS_MAX);
        sum = added.ok_or_else(|| refuse("it is longer than a hundred years"))?;
        rest = &tail[unit.len_utf8()..];
    }
    Ok(sum)
}

/// The same that `parse` reads, in days and smaller units.
pub(super) fn text(ms: i64) -> String {
    let mut rest = ms;
    let mut out = String::new();
    for (letter, factor) in UNITS.iter().skip(2) {
        if rest >= *factor {
            out.push_str(&format!("{}{letter}", rest / factor));
            rest %= factor;
        }
    }
    if out.is_empty() { "0s".into() } else { out }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn as_people_write_them() {
        for (text, seconds) in [
            ("90s", 90),
            ("15m", 900),
            ("6h", 21_600),
            ("7d", 604_800),
            ("2w", 1_209_600),
            ("1y2w3d4h", (365 + 14 + 3) * 86_400 + 4 * 3600),
            ("1h30m", 5400),
            ("1d12h", 129_600),
            ("0s", 0),
        ] {
            assert_eq!(parse(text).unwrap(), seconds * 1000, "{text}");
        }
        assert_eq!(text(5_400_000), "1h30m");
        assert_eq!(text(1_209_600_000), "14d");
        assert_eq!(text(0), "0s");
    }

    #[test]
    fn what_is_none_is_refused_with_a_reason() {
        for (text, why) in [
            ("", "empty"),
            ("90", "a unit is missing"),
            ("h", "a number is missing"),
            ("5 m", "unit ` `"),
            ("1q", "unit `q`"),
            ("101y", "hundred years"),
            ("5M", "unit `M`"),
            ("1m1h", "larger units come first"),
            ("1h1h", "larger units come first"),
            ("-1h", "a number is missing"),
            ("1.5h", "unit `.`"),
            ("99999999999999999999s", "too long"),
            ("9000000000000000000s", "hundred years"),
            ("6000w", "hundred years"),
            ("5ä", "unit `ä`"),
        ] {
            let e = parse(text).expect_err(text).to_string();
            assert!(e.contains(why) && e.contains("`15m`"), "{text}: {e}");
        }
    }

    #[test]
    fn no_length_is_none_where_one_is_needed() {
        assert_eq!(length_ms("1d12h").unwrap(), 129_600_000);
        assert!(length_ms("0d").unwrap_err().to_string().contains("the duration `0d` is zero"));
        assert_eq!(length_ms("soon").unwrap_err().kind(), Kind::Config);
        assert_eq!(span_ms("1d12h").unwrap(), 129_600_000);
        for months in ["3m", "90m", "1d30m", "7200s"] {
            assert!(span_ms(months).unwrap_err().to_string().contains("minutes or seconds"), "{months}");
        }
    }

    proptest! {
        #[test]
        fn written_and_read_again(seconds in 0i64..3_000_000_000) {
            prop_assert_eq!(parse(&text(seconds * 1000)).unwrap(), seconds * 1000);
        }

        #[test]
        fn no_text_brings_it_down(text in ".{0,20}|[0-9smhdwy]{0,20}") {
            let _ = parse(&text);
        }
    }
}
