//! The list beside a model in several files: which tensor lies in which (`*.index.json`).

use super::{ReadAt, TENSORS_MAX};
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};
use std::io;

/// Longest list that is looked at, in bytes.
pub const SHARDS_BYTES_MAX: u64 = 16 << 20;
/// Most memory that names may take, in bytes.
const NAMES_BYTES_MAX: usize = 24 << 20;

/// Which tensor lies in which file.
#[derive(Debug, PartialEq, Eq)]
pub struct Shards {
    /// Names of tensors, each with that of its file, which is nothing to be opened before it is judged.
    pub tensors: Vec<(String, String)>,
}

/// The list of shards that a file is, if it is one; a longer one than [`SHARDS_BYTES_MAX`] is not looked at.
///
/// # Errors
/// It cannot be read.
pub fn read_shards(file: &dyn ReadAt, file_bytes: u64) -> io::Result<Option<Shards>> {
    let mut front = [0];
    let len = usize::try_from(file_bytes).ok().filter(|_| file_bytes <= SHARDS_BYTES_MAX);
    let Some(len) = len.filter(|len| *len > 0) else { return Ok(None) };
    file.read_at(0, &mut front)?;
    if !matches!(front, [b'{' | b' ' | b'\n' | b'\r' | b'\t']) {
        return Ok(None);
    }
    let mut bytes = vec![0; len];
    let got = file.read_at(0, &mut bytes)?;
    Ok(bytes.get(..got).and_then(Shards::parse))
}

#[derive(serde::Deserialize)]
struct Index {
    weight_map: Map,
}

struct Map(Vec<(String, String)>);

impl Shards {
    /// The list that these bytes are, if they are one.
    pub fn parse(bytes: &[u8]) -> Option<Shards> {
        if bytes.trim_ascii_start().first() != Some(&b'{') || bytes.len() as u64 > SHARDS_BYTES_MAX {
            return None;
        }
        let Index { weight_map: Map(mut tensors) } = serde_json::from_slice(bytes).ok()?;
        tensors.sort_unstable();
        let twice = tensors.windows(2).any(|pair| matches!(pair, [(a, _), (b, _)] if a == b));
        (!twice).then_some(Shards { tensors })
    }
}

impl<'de> Deserialize<'de> for Map {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Map;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("files by tensor")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Map, A::Error> {
                let (mut tensors, mut weight) = (Vec::new(), 0usize);
                while let Some((name, file)) = map.next_entry::<String, String>()? {
                    let more = name.len().saturating_add(file.len()).saturating_add(4 * size_of::<String>());
                    weight = weight.saturating_add(more);
                    if tensors.len() >= TENSORS_MAX || weight > NAMES_BYTES_MAX {
                        return Err(A::Error::custom("too many tensors"));
                    }
                    tensors.push((name, file));
                }
                Ok(Map(tensors))
            }
        }
        from.deserialize_map(Pairs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_shards_are_known_by_what_they_hold() {
        let parse = |text: &str| Shards::parse(text.as_bytes()).map(|shards| shards.tensors);
        let pair = |name: &str, file: &str| (name.to_owned(), file.to_owned());
        assert_eq!(
            parse(r#" {"metadata":{"total_size":3},"weight_map":{"b":"2.safetensors","a":"1.safetensors"}}"#),
            Some(vec![pair("a", "1.safetensors"), pair("b", "2.safetensors")])
        );
        for other in [
            "",
            "{}",
            "[]",
            r#"{"weight_map":[]}"#,
            r#"{"weight_map":{"a":1}}"#,
            r#"{"weight_map":{"a":"1","a":"2"}}"#,
            r#"{"weight_map":{"a":"1"}} {}"#,
            r#"{"weight_map":{"a":"1"},"weight_map":{}}"#,
        ] {
            assert_eq!(parse(other), None, "{other}");
        }
        let many: Vec<String> = (0..=TENSORS_MAX).map(|n| format!("\"{n}\":\"f\"")).collect();
        assert_eq!(parse(&format!("{{\"weight_map\":{{{}}}}}", many.join(","))), None);
        assert!(parse(&format!("{{\"weight_map\":{{{}}}}}", many[1..].join(","))).is_some());
        let deep = format!("{{\"weight_map\":{{}},\"x\":{}", "[".repeat(1 << 20));
        assert_eq!(parse(&deep), None);
    }
}
