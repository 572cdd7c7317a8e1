//! The calls of etcd that a backup makes, and their answers.

use super::grpc::{Channel, Failed, UNAVAILABLE};
use super::kv::{KeyValue, alarm};
use super::proto::{Fields, Malformed, Message};
use std::time::Duration;

/// A version is never longer; it is stored with every snapshot.
const VERSION_CHARS_MAX: usize = 64;

/// A cluster has a handful of members; more of them, or of alarms, are not believed.
const LISTED_MAX: usize = 1000;

/// In a transaction: what is compared is the revision that changed a key last.
const COMPARE_MODIFIED: u64 = 2;

/// A member reads its whole file to say what its keys hash to.
const HASH_WITHIN: Duration = Duration::from_secs(600);

/// Who answers, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Header {
    /// The cluster.
    pub cluster: u64,
    /// The member.
    pub member: u64,
    /// The newest revision that it knows.
    pub revision: i64,
}

impl Header {
    /// From a message.
    ///
    /// # Errors
    /// It is none.
    pub fn decode(message: &[u8]) -> Result<Header, Malformed> {
        let mut header = Header::default();
        for field in Fields::of(message) {
            match field? {
                (1, value) => header.cluster = value.number(),
                (2, value) => header.member = value.number(),
                (3, value) => header.revision = value.signed(),
                _ => {}
            }
        }
        Ok(header)
    }
}

/// How a member is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Status {
    /// Who it is.
    pub header: Header,
    /// Its program's version.
    pub version: String,
    /// Bytes of its file.
    pub bytes: u64,
    /// Its leader; 0 for none.
    pub leader: u64,
    /// Whether it only learns.
    pub learner: bool,
}

/// What a member's keys hash to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Hash {
    /// Who it is.
    pub header: Header,
    /// The hash.
    pub hash: u32,
    /// Up to which revision it is compacted.
    pub compacted: i64,
}

/// A member of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Member {
    /// Its id.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// Whether it only learns.
    pub learner: bool,
}

/// What a member lists, as far as a cluster can have so many.
fn listed<T>(all: impl Iterator<Item = Result<T, Malformed>>, what: &str) -> Result<Vec<T>, Failed> {
    let found: Vec<T> = all.take(LISTED_MAX + 1).collect::<Result<_, _>>().map_err(unreadable)?;
    if found.len() > LISTED_MAX {
        let message = format!("it lists more than {LISTED_MAX} {what}");
        return Err(Failed { code: UNAVAILABLE, message });
    }
    Ok(found)
}

fn unreadable(_: Malformed) -> Failed {
    Failed { code: UNAVAILABLE, message: "it sent a message that is none".into() }
}

/// How a member is.
///
/// # Errors
/// It does not answer.
pub async fn status(channel: &Channel) -> Result<Status, Failed> {
    let answer = channel.ask("Maintenance/Status", &[]).await?;
    let mut status = Status::default();
    for field in Fields::of(&answer) {
        match field.map_err(unreadable)? {
            (1, value) => status.header = Header::decode(value.bytes()).map_err(unreadable)?,
            (2, value) => status.version = value.text().chars().take(VERSION_CHARS_MAX).collect(),
            (3, value) => status.bytes = value.number(),
            (4, value) => status.leader = value.number(),
            (10, value) => status.learner = value.number() != 0,
            _ => {}
        }
    }
    Ok(status)
}

/// Alarms that are raised: member and kind.
///
/// # Errors
/// The member does not answer, or no majority does.
pub async fn alarms(channel: &Channel) -> Result<Vec<(u64, u64)>, Failed> {
    let answer = channel.ask("Maintenance/Alarm", &[]).await?;
    let raised = Fields::of(&answer).filter_map(|field| match field {
        Ok((2, value)) => Some(alarm(value.bytes())),
        Ok(_) => None,
        Err(e) => Some(Err(e)),
    });
    listed(raised, "alarms")
}

/// The members of the cluster.
///
/// # Errors
/// The member does not answer, or no majority does.
pub async fn members(channel: &Channel) -> Result<Vec<Member>, Failed> {
    // As the majority knows them: a member that was removed may still list itself.
    let answer = channel.ask("Cluster/MemberList", &Message::new().number(1, 1).finish()).await?;
    let one = |message: &[u8]| {
        Fields::of(message).try_fold(Member::default(), |mut member, field| {
            match field? {
                (1, value) => member.id = value.number(),
                (2, value) => member.name = value.text(),
                (5, value) => member.learner = value.number() != 0,
                _ => {}
            }
            Ok(member)
        })
    };
    let found = Fields::of(&answer).filter_map(|field| match field {
        Ok((2, value)) => Some(one(value.bytes())),
        Ok(_) => None,
        Err(e) => Some(Err(e)),
    });
    listed(found, "members")
}

/// What a member's keys hash to at a revision.
///
/// # Errors
/// The member does not answer, does not have the revision yet, or has it no more.
pub async fn hash(channel: &Channel, revision: i64) -> Result<Hash, Failed> {
    let request = Message::new().number(1, revision.cast_unsigned()).finish();
    let answer = channel.ask_within(HASH_WITHIN, "Maintenance/HashKV", &request).await?;
    let mut hash = Hash::default();
    for field in Fields::of(&answer) {
        match field.map_err(unreadable)? {
            (1, value) => hash.header = Header::decode(value.bytes()).map_err(unreadable)?,
            (2, value) => hash.hash = value.number() as u32,
            (3, value) => hash.compacted = value.signed(),
            _ => {}
        }
    }
    Ok(hash)
}

/// Whether a member was not compacted beyond a revision yet.
///
/// # Errors
/// It does not answer.
pub async fn has(channel: &Channel, revision: i64) -> Result<bool, Failed> {
    // One key that is hardly there; of this member's own knowledge.
    let request = Message::new().bytes(1, &[0]).number(4, revision.cast_unsigned()).number(7, 1).finish();
    match channel.ask("KV/Range", &request).await {
        Ok(_) => Ok(true),
        Err(failed) if failed.message.contains("compacted") => Ok(false),
        Err(failed) => Err(failed),
    }
}

/// The newest revision there is, which the majority stands for; the member has it when it answers.
///
/// # Errors
/// The member does not answer, or no majority does.
pub async fn newest(channel: &Channel) -> Result<i64, Failed> {
    let answer = channel.ask("KV/Range", &Message::new().bytes(1, &[0]).finish()).await?;
    let header = Fields::of(&answer).find_map(|field| field.ok().filter(|(n, _)| *n == 1).map(|(_, value)| value));
    let header = Header::decode(header.ok_or_else(|| unreadable(Malformed))?.bytes()).map_err(unreadable)?;
    Ok(header.revision)
}

/// How many keys there are.
///
/// # Errors
/// The member does not answer, or no majority does.
pub async fn count(channel: &Channel) -> Result<u64, Failed> {
    let request = Message::new().bytes(1, &[0]).bytes(2, &[0]).number(9, 1).finish();
    let answer = channel.ask("KV/Range", &request).await?;
    let count = Fields::of(&answer).filter_map(Result::ok).find(|(number, _)| *number == 4);
    Ok(count.map_or(0, |(_, value)| value.number()))
}

/// The value of a key and the revision that changed it last, if it is there.
///
/// # Errors
/// The member does not answer, or no majority does.
pub async fn get(channel: &Channel, key: &[u8]) -> Result<Option<(Vec<u8>, i64)>, Failed> {
    let answer = channel.ask("KV/Range", &Message::new().bytes(1, key).finish()).await?;
    for field in Fields::of(&answer) {
        if let (2, value) = field.map_err(unreadable)? {
            let kv = KeyValue::decode(value.bytes()).map_err(unreadable)?;
            return Ok(Some((kv.value.to_vec(), kv.modified)));
        }
    }
    Ok(None)
}

/// A key as it was at a revision, if it was there; of this member's own knowledge.
///
/// # Errors
/// The member does not answer, or has compacted the revision.
pub async fn at(channel: &Channel, key: &[u8], revision: i64) -> Result<Option<Vec<u8>>, Failed> {
    let request = Message::new().bytes(1, key).number(4, revision.cast_unsigned()).number(7, 1).finish();
    let answer = channel.ask("KV/Range", &request).await?;
    for field in Fields::of(&answer) {
        if let (2, value) = field.map_err(unreadable)? {
            return Ok(Some(value.bytes().to_vec()));
        }
    }
    Ok(None)
}

/// Puts a key, if it was changed last by this revision, or is not there where that is 0; says whether it did.
///
/// # Errors
/// The member does not answer, no majority does, or it does not take the value.
pub async fn put(channel: &Channel, key: &[u8], value: &[u8], modified: i64) -> Result<bool, Failed> {
    let compare = Message::new().number(2, COMPARE_MODIFIED).bytes(3, key).number(6, modified.cast_unsigned()).finish();
    let put = Message::new().bytes(1, key).bytes(2, value).finish();
    let request = Message::new().bytes(1, &compare).bytes(2, &Message::new().bytes(2, &put).finish()).finish();
    let answer = channel.ask("KV/Txn", &request).await?;
    let mut done = false;
    for field in Fields::of(&answer) {
        if let (2, value) = field.map_err(unreadable)? {
            done = value.number() != 0;
        }
    }
    Ok(done)
}

/// The seconds that a lease was granted for; none, or below, if it ended.
///
/// # Errors
/// The member does not answer.
pub async fn granted(channel: &Channel, lease: i64) -> Result<i64, Failed> {
    let request = Message::new().number(1, lease.cast_unsigned()).finish();
    let answer = channel.ask("Lease/LeaseTimeToLive", &request).await?;
    let (mut left, mut granted) = (0, 0);
    for field in Fields::of(&answer) {
        match field.map_err(unreadable)? {
            (3, value) => left = value.signed(),
            (4, value) => granted = value.signed(),
            _ => {}
        }
    }
    Ok(if left < 0 { 0 } else { granted })
}

/// Part of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part<'a> {
    /// Who sends it.
    pub header: Header,
    /// What is still to come.
    pub remaining: u64,
    /// Its bytes.
    pub blob: &'a [u8],
}

impl<'a> Part<'a> {
    /// From a message.
    ///
    /// # Errors
    /// It is none.
    pub fn decode(message: &'a [u8]) -> Result<Part<'a>, Failed> {
        let mut part = Part { header: Header::default(), remaining: 0, blob: &[] };
        for field in Fields::of(message) {
            match field.map_err(unreadable)? {
                (1, value) => part.header = Header::decode(value.bytes()).map_err(unreadable)?,
                (2, value) => part.remaining = value.number(),
                (3, value) => part.blob = value.bytes(),
                _ => {}
            }
        }
        Ok(part)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_listed_than_a_cluster_can_have() {
        let all = |count| listed((0..count).map(Ok::<usize, Malformed>), "members");
        assert_eq!(all(LISTED_MAX).unwrap().len(), LISTED_MAX);
        // Without an end, too.
        let failed = all(usize::MAX).unwrap_err();
        assert_eq!(failed.message, "it lists more than 1000 members");
        let broken = [Ok(1), Err(Malformed)].into_iter();
        assert_eq!(listed(broken, "alarms").unwrap_err().message, "it sent a message that is none");
    }
}
