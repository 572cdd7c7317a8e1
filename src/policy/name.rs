//! Names, and guesses at misspelt ones.

use crate::error::{Error, Kind, Result};
use std::fmt;

/// Longest name, in bytes.
const NAME_BYTES_MAX: usize = 63;

/// A lower-case DNS label: letters, digits and inner hyphens, at most 63 of them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(String);

impl Name {
    /// Accepts a lower-case DNS label. `of` says what is named, for the error.
    ///
    /// # Errors
    /// [`Kind::Config`] for anything else.
    pub fn parse(of: &str, text: &str) -> Result<Self> {
        let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
        let right = !text.is_empty()
            && text.len() <= NAME_BYTES_MAX
            && text.bytes().all(inner)
            && !text.starts_with('-')
            && !text.ends_with('-');
        if right {
            return Ok(Name(text.to_owned()));
        }
        let what = format!("{of} {} is not a valid name", quoted(text));
        Err(Error::new(Kind::Config, what)
            .advise(format!("use 1 to {NAME_BYTES_MAX} lower-case letters, digits and inner hyphens, like `eu-west`")))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for Name {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

/// `text` on one line, in backquotes, shortened.
pub(super) fn quoted(text: &str) -> String {
    format!("`{}`", shortened(text, 80))
}

/// `text` on one line, shortened.
pub(super) fn one_line(text: &str) -> String {
    shortened(text, 300)
}

fn shortened(text: &str, chars_max: usize) -> String {
    let mut out = String::new();
    for (i, c) in text.chars().enumerate() {
        if i == chars_max {
            out.push('…');
            break;
        }
        if c.is_control() {
            out.extend(c.escape_debug());
        } else {
            out.push(c);
        }
    }
    out
}

/// The one of `known` that was probably meant by `word`.
pub(super) fn guess<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    const WORD_CHARS_MAX: usize = 64;
    if word.chars().count() > WORD_CHARS_MAX {
        return None;
    }
    let word = word.to_lowercase();
    let distances = known.iter().map(|k| (distance(&word, &k.to_lowercase()), *k));
    let (far, best) = distances.min_by_key(|(d, _)| *d)?;
    (far <= 1 + best.len() / 4 && far < best.len()).then_some(best)
}

/// Insertions, deletions, substitutions and swaps of neighbours that turn `a` into `b`.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut before: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    let mut last = None;
    for (i, x) in a.chars().enumerate() {
        let mut next = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let mut cost = (row[j] + usize::from(x != *y)).min(row[j + 1] + 1).min(next[j] + 1);
            if j > 0 && last == Some(*y) && x == b[j - 1] {
                cost = cost.min(before[j - 1] + 1);
            }
            next.push(cost);
        }
        before = std::mem::replace(&mut row, next);
        last = Some(x);
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dns_labels() {
        for good in ["a", "eu-west-1", "0", &"x".repeat(63)] {
            assert_eq!(Name::parse("region", good).unwrap().as_str(), good);
        }
        for bad in ["", "A", "-a", "a-", "a.b", "a_b", "ä", "a b", "a\n", &"x".repeat(64)] {
            let error = Name::parse("region", bad).unwrap_err();
            assert_eq!(error.kind(), Kind::Config);
            assert!(!error.to_string().contains('\n'), "{error}");
        }
    }

    #[test]
    fn distances() {
        let cases = [
            ("", "", 0),
            ("", "abc", 3),
            ("abc", "", 3),
            ("abc", "abd", 1),
            ("abc", "bac", 1),
            ("kitten", "sitting", 3),
        ];
        for (a, b, wanted) in cases {
            assert_eq!(distance(a, b), wanted, "{a} {b}");
        }
    }

    #[test]
    fn guesses() {
        let known = ["regions", "copies", "repositoryId"];
        assert_eq!(guess("region", &known), Some("regions"));
        assert_eq!(guess("RepositoryID", &known), Some("repositoryId"));
        assert_eq!(guess("coipes", &known), Some("copies"));
        assert_eq!(guess("banana", &known), None);
        assert_eq!(guess("x", &["a"]), None);
        assert_eq!(guess(&"regions".repeat(100_000), &known), None);
    }
}
