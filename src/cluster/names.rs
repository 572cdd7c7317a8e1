//! Names of objects: what Kubernetes takes, and how long ones are shortened.

use crate::error::{Error, Kind, Result};

/// Longest name of most objects.
const NAME_BYTES_MAX: usize = 253;
/// Digits that tell shortened names apart.
const DIGITS: usize = 8;

/// Refuses what cannot be the name of an object: a lower-case DNS subdomain.
///
/// # Errors
/// [`Kind::Config`]: it is none.
pub fn check_name(of: &str, name: &str) -> Result<()> {
    let label = |label: &str| {
        let ends = !label.starts_with('-') && !label.ends_with('-');
        let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
        !label.is_empty() && ends && label.bytes().all(inner)
    };
    if name.len() <= NAME_BYTES_MAX && name.split('.').all(label) {
        return Ok(());
    }
    let what = format!("{name:?} cannot be the name of a {of}");
    Err(Error::new(Kind::Config, what).advise("use lower-case letters, digits, inner hyphens and dots"))
}

/// A label of at most `max` bytes: what is longer is cut, and told apart by digits of its hash.
pub(super) fn fitted(label: &str, max: usize) -> String {
    if label.len() <= max {
        return label.to_owned();
    }
    let kept: String = label.chars().take(max.saturating_sub(DIGITS + 1)).collect();
    format!("{}-{}", kept.trim_end_matches('-'), digits(label))
}

/// A label made of any text. What had to be changed beyond separators is told apart by digits of its hash.
pub(super) fn label_of(text: &str, max: usize) -> String {
    let simple = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let harmless = text.chars().all(|c| simple(c) || c == '-' || c == '/');
    let replaced: String =
        text.chars().map(|c| c.to_ascii_lowercase()).map(|c| if simple(c) { c } else { '-' }).collect();
    let parts: Vec<&str> = replaced.split('-').filter(|part| !part.is_empty()).collect();
    let mut label = parts.join("-");
    if label.is_empty() {
        label.push_str("data");
    }
    fitted(&if harmless { label } else { format!("{label}-{}", digits(text)) }, max)
}

fn digits(text: &str) -> String {
    blake3::hash(text.as_bytes()).to_hex().chars().take(DIGITS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names() {
        for good in ["a", "holdfast-main", "a.b-c.0"] {
            assert!(check_name("Secret", good).is_ok(), "{good}");
        }
        for bad in ["", "A", "a_b", "-a", "a-", "a..b", ".a", "a/b", "a\n", &"x".repeat(254)] {
            assert_eq!(check_name("Secret", bad).unwrap_err().kind(), Kind::Config, "{bad}");
        }
    }

    #[test]
    fn labels_of_paths() {
        assert_eq!(label_of("/srv/data", 40), "srv-data");
        assert_eq!(label_of("/", 40), "data");
        assert!(label_of("/srv/Data_1", 40).starts_with("srv-data-1-"));
        assert_ne!(label_of("/srv/a_b", 40), label_of("/srv/a.b", 40));
    }

    proptest! {
        #[test]
        fn labels_are_labels(text in ".{0,300}", max in 20usize..60) {
            let label = label_of(&text, max);
            prop_assert!(label.len() <= max && !label.contains('.'), "{label}");
            prop_assert!(check_name("PersistentVolumeClaim", &label).is_ok(), "{label}");
        }

        #[test]
        fn long_names_stay_different(one in "[a-z0-9]{20,63}", other in "[a-z0-9]{20,63}") {
            prop_assume!(one != other);
            prop_assert_ne!(fitted(&one, 31), fitted(&other, 31));
        }
    }
}
