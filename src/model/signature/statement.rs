//! What a signer said: the files of a model, their hashes, and what was left out.

use crate::model::verdict::Sha256;
use ring::digest;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

const STATEMENT: &str = "https://in-toto.io/Statement/v1";
const PREDICATE: &str = "https://model_signing/signature/v1.0";

/// By what files were hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hash {
    /// SHA-256.
    Sha256,
    /// BLAKE3.
    Blake3,
}

impl Hash {
    /// Of all that `input` gives.
    ///
    /// # Errors
    /// It could not be read.
    pub fn of(self, input: &mut dyn Read) -> std::io::Result<Vec<u8>> {
        match self {
            Hash::Sha256 => Ok(Sha256::of(input)?.0.to_vec()),
            Hash::Blake3 => {
                let mut hasher = blake3::Hasher::new();
                hasher.update_reader(input)?;
                Ok(hasher.finalize().as_bytes().to_vec())
            }
        }
    }
}

/// A part of a file, and its hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Of a whole file none.
    pub range: Option<Range>,
    /// Its hash.
    pub digest: Vec<u8>,
}

/// A statement whose signature is still to be believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// Files by their path below the model's folder.
    pub files: BTreeMap<String, Vec<Piece>>,
    /// What the signer left out, by paths below the folder.
    pub ignored: Vec<String>,
    /// By what files were hashed.
    pub hash: Hash,
    /// Files were hashed in pieces, of which an empty one has none.
    pub sharded: bool,
}

#[derive(Deserialize)]
struct Outer {
    #[serde(rename = "_type")]
    kind: String,
    subject: Vec<Subject>,
    #[serde(rename = "predicateType")]
    predicate_type: String,
    predicate: Predicate,
}

#[derive(Deserialize)]
struct Subject {
    digest: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct Predicate {
    resources: Vec<Resource>,
    serialization: Serialization,
}

#[derive(Deserialize)]
struct Resource {
    name: String,
    digest: String,
    algorithm: String,
}

#[derive(Deserialize)]
struct Serialization {
    method: String,
    hash_type: String,
    #[serde(default)]
    ignore_paths: Vec<String>,
}

impl Statement {
    /// Reads it and checks that it agrees with itself.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn read(payload: &[u8]) -> Result<Statement, String> {
        let outer: Outer = serde_json::from_slice(payload).map_err(|e| format!("it is no statement: {e}"))?;
        if outer.kind != STATEMENT || outer.predicate_type != PREDICATE {
            return Err("it is a statement of another kind".into());
        }
        let predicate = outer.predicate;
        let hash = match predicate.serialization.hash_type.as_str() {
            "sha256" => Hash::Sha256,
            "blake3" => Hash::Blake3,
            other => return Err(format!("the hash {other} is not known here")),
        };
        let shards = match predicate.serialization.method.as_str() {
            "files" => false,
            "shards" => true,
            other => return Err(format!("the method {other} is not known here")),
        };
        let mut all = digest::Context::new(&digest::SHA256);
        let mut files: BTreeMap<String, Vec<Piece>> = BTreeMap::new();
        let mut names = BTreeSet::new();
        for resource in &predicate.resources {
            let digest = hex(&resource.digest).filter(|digest| digest.len() == 32);
            let digest = digest.ok_or_else(|| format!("the hash of {} is none", resource.name))?;
            if !resource.algorithm.starts_with(&predicate.serialization.hash_type) {
                return Err(format!("{} is hashed by {}", resource.name, resource.algorithm));
            }
            all.update(&digest);
            let (name, range) = if shards { shard(&resource.name)? } else { (resource.name.as_str(), None) };
            if !is_below(name) || !names.insert(&resource.name) {
                return Err(format!("{} is no path below the model, or is there twice", resource.name));
            }
            files.entry(name.to_owned()).or_default().push(Piece { range, digest });
        }
        let [subject] = &outer.subject[..] else { return Err("it has not exactly one subject".into()) };
        let said = subject.digest.get("sha256").and_then(|text| Sha256::from_hex(text));
        if said.is_none_or(|said| said.0 != all.finish().as_ref()) {
            return Err("the hash of its subject is not that of its files".into());
        }
        Ok(Statement { files, ignored: predicate.serialization.ignore_paths, hash, sharded: shards })
    }

    /// Whether the signer left this path out.
    pub fn ignores(&self, path: &str) -> bool {
        self.ignored.iter().any(|ignored| {
            let ignored = ignored.strip_prefix("./").unwrap_or(ignored).trim_end_matches('/');
            ignored == "." || path.strip_prefix(ignored).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
    }
}

/// First byte, and the one behind the last.
pub type Range = (u64, u64);

/// The name and the range of a shard, `path:start:end`.
fn shard(name: &str) -> Result<(&str, Option<Range>), String> {
    let mut parts = name.rsplitn(3, ':');
    let (end, start, path) = (parts.next(), parts.next(), parts.next());
    let number = |text: Option<&str>| text.and_then(|text| text.parse::<u64>().ok());
    match (path, number(start), number(end)) {
        (Some(path), Some(start), Some(end)) if start < end => Ok((path, Some((start, end)))),
        _ => Err(format!("{name} is no shard of a file")),
    }
}

/// Whether a path stays below the folder it is in.
fn is_below(path: &str) -> bool {
    !path.is_empty() && !path.contains('\0') && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

fn hex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> =
        text.chars().map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok())).collect::<Option<_>>()?;
    digits
        .len()
        .is_multiple_of(2)
        .then(|| digits.chunks_exact(2).map(|pair| pair.iter().fold(0, |s, d| (s << 4) | d)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_below_and_what_is_ignored_is_known() {
        assert!(is_below("a/b.c") && is_below("..a"));
        for path in ["", "/a", "a/../b", "a//b", "./a", "a/"] {
            assert!(!is_below(path), "{path}");
        }
        let ignored = vec!["model.sig".to_owned(), "./x/".to_owned(), ".git".to_owned()];
        let statement = Statement { files: BTreeMap::new(), ignored, hash: Hash::Sha256, sharded: false };
        assert!(["model.sig", "x", "x/y", ".git/config"].iter().all(|path| statement.ignores(path)));
        assert!(!["model.sign", "y/model.sig", "xy", ".gitignore"].iter().any(|path| statement.ignores(path)));
    }

    #[test]
    fn shards_have_a_range() {
        assert_eq!(shard("a:b:0:5"), Ok(("a:b", Some((0, 5)))));
        for name in ["a", "a:5", "a:5:5", "a:x:5", "a:-1:5"] {
            assert!(shard(name).is_err(), "{name}");
        }
    }
}
