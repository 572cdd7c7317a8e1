//! What changed in a cluster after a revision: watched, whole revisions at a time, without a gap.
//!
//! A watch is the cluster's own word on what came after what; it is held to it: every revision follows the one before,
//! and its changes are counted from 0. A watch that was lost begins again behind the last revision that was whole.

use super::calls::{self, Header};
use super::cluster::{Cluster, run};
use super::grpc::{Answers, Failed};
use super::kv::{KeyValue, Revision};
use super::proto::{Fields, Malformed, Message};
use super::rebuild::Change;
use crate::base::Cancel;
use crate::error::{Error, Kind, Result};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Changes of so many bytes are held at most, whatever a member sends: of one answer, which may be in parts, and of all
/// that are gathered. A single change of etcd is far below.
pub const HELD_BYTES_MAX: usize = 128 << 20;

/// What a change takes in memory beside its key and its value, at most.
const EVENT_BYTES: usize = 128;

/// Leases of changes that are gathered at once; each of them is asked for.
const LEASES_MAX: usize = 50_000;

/// Changes that follow each other.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Changes {
    /// The revision before the first of them.
    pub after: i64,
    /// The last one.
    pub to: i64,
    /// All of them, in order.
    pub changes: Vec<Change>,
    /// Leases of their keys: id, and the seconds they were granted for. What ended meanwhile is not known any more.
    pub leases: BTreeMap<i64, i64>,
    /// Bytes of keys and values, and a little for each.
    pub bytes: usize,
}

impl Changes {
    /// The same in parts of at most so many bytes each, cut between revisions: one that has more alone is a part of its own.
    pub fn parts(self, bytes_max: usize) -> Vec<Changes> {
        let after = |at| Changes { after: at, to: at, ..Changes::default() };
        let mut part = Changes { leases: self.leases, ..after(self.after) };
        let (mut parts, mut left) = (Vec::new(), self.changes.into_iter().peekable());
        while let Some(first) = left.next() {
            let main = first.revision.main;
            let mut revision = vec![first];
            while let Some(more) = left.next_if(|change| change.revision.main == main) {
                revision.push(more);
            }
            let bytes: usize = revision.iter().map(|change| EVENT_BYTES + change.message.len()).sum();
            if !part.changes.is_empty() && part.bytes.saturating_add(bytes) > bytes_max {
                let next = after(part.to);
                parts.push(std::mem::replace(&mut part, next));
            }
            (part.to, part.bytes) = (main, part.bytes.saturating_add(bytes));
            part.changes.extend(revision);
        }
        part.to = self.to;
        parts.push(part);
        parts
    }
}

/// When to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Until {
    /// This revision is there.
    pub revision: Option<i64>,
    /// So much time went by.
    pub time: Duration,
    /// There are so many bytes.
    pub bytes: usize,
    /// So many are held by whoever asks, of all that may be held.
    pub held: usize,
}

/// What became of a watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Followed {
    /// Changes, perhaps none.
    Changes(Changes),
    /// They were compacted away, up to this revision: only a new snapshot has what is there.
    Compacted(i64),
    /// They are more than is held in memory, or name more leases than can be asked for.
    TooMuch,
}

/// An answer to a watch.
#[derive(Debug, Default)]
struct Batch {
    header: Header,
    created: bool,
    canceled: bool,
    compacted: i64,
    reason: String,
    /// More of the same revisions is to come.
    fragment: bool,
    changes: Vec<Change>,
    leases: Vec<i64>,
    bytes: usize,
    /// There is more in it than was taken.
    cut: bool,
}

fn unreadable(_: Malformed) -> Failed {
    Failed { code: super::grpc::UNAVAILABLE, message: "it sent a message that is none".into() }
}

impl Batch {
    /// From a message, as far as there is room: events may be many times as large as the bytes that say them.
    fn decode(message: &[u8], room: usize) -> std::result::Result<Batch, Malformed> {
        let mut batch = Batch::default();
        for field in Fields::of(message) {
            if batch.bytes > room {
                batch.cut = true;
                break;
            }
            match field? {
                (1, value) => batch.header = Header::decode(value.bytes())?,
                (3, value) => batch.created = value.number() != 0,
                (4, value) => batch.canceled = value.number() != 0,
                (5, value) => batch.compacted = value.signed(),
                (6, value) => batch.reason = value.text(),
                (7, value) => batch.fragment = value.number() != 0,
                (11, value) => batch.event(value.bytes())?,
                _ => {}
            }
        }
        Ok(batch)
    }

    fn event(&mut self, event: &[u8]) -> std::result::Result<(), Malformed> {
        let (mut deleted, mut message) = (false, &[][..]);
        for field in Fields::of(event) {
            match field? {
                (1, value) => deleted = value.number() == 1,
                (2, value) => message = value.bytes(),
                _ => {}
            }
        }
        let kv = KeyValue::decode(message)?;
        if kv.key.is_empty() || kv.modified <= 0 {
            return Err(Malformed);
        }
        if kv.lease != 0 && !deleted {
            self.leases.push(kv.lease);
        }
        self.bytes += EVENT_BYTES + kv.key.len() + kv.value.len();
        // Of a key that is deleted the file has the name alone.
        let stored = if deleted { KeyValue { key: kv.key, ..KeyValue::default() } } else { kv };
        let revision = Revision { main: kv.modified, sub: 0 };
        self.changes.push(Change { revision, deleted, message: stored.encode() });
        Ok(())
    }
}

impl Batch {
    /// Takes a further part; returns the whole with the last one. What is not whole waits, however long: half a revision
    /// would be taken for one.
    fn join(&mut self, part: Batch) -> Option<Batch> {
        let more = part.fragment;
        self.bytes = self.bytes.saturating_add(part.bytes);
        self.changes.extend(part.changes);
        self.leases.extend(part.leases);
        (!more).then(|| std::mem::take(self))
    }
}

/// Follows a cluster.
pub struct Follower<'c> {
    cluster: &'c Cluster,
    answers: Answers,
    last: i64,
    /// Parts of an answer that is not whole yet.
    held: Batch,
}

impl<'c> Follower<'c> {
    /// Watches everything behind a revision.
    ///
    /// # Errors
    /// No member answers.
    pub fn begin(cluster: &'c Cluster, after: i64, cancel: &Cancel) -> Result<Follower<'c>> {
        let start = after.checked_add(1).ok_or_else(|| Error::new(Kind::Source, "there is no later revision"))?;
        let create = Message::new()
            .bytes(1, &[0])
            .bytes(2, &[0])
            .number(3, start.cast_unsigned())
            .number(4, 1)
            .number(8, 1)
            .finish();
        let request = Message::new().bytes(1, &create).finish();
        let channel = cluster.channel()?;
        let begun = async {
            if channel.has_user() {
                // A short question gets another token where that has ended; a watch would only end.
                calls::newest(channel).await?;
            }
            channel.both_ways("Watch/Watch", &request).await
        };
        let answers = run(&cluster.runtime, cancel, begun)?.map_err(|e| e.at(channel.authority()))?;
        Ok(Follower { cluster, answers, last: after, held: Batch::default() })
    }

    /// Gathers changes, whole revisions at a time.
    ///
    /// # Errors
    /// The watch was lost, or what came does not follow what was there; what was gathered is not handed out then.
    pub fn gather(&mut self, until: Until, cancel: &Cancel) -> Result<Followed> {
        let endpoint = self.cluster.channel()?.authority().to_owned();
        let mut changes = Changes { after: self.last, to: self.last, ..Changes::default() };
        let (begin, mut leases) = (Instant::now(), Vec::new());
        while until.revision.is_none_or(|revision| changes.to < revision) && changes.bytes < until.bytes {
            let Some(left) = until.time.checked_sub(begin.elapsed()).filter(|left| !left.is_zero()) else { break };
            let next = run(&self.cluster.runtime, cancel, async {
                tokio::time::timeout(left, self.answers.next()).await.ok()
            })?;
            let Some(next) = next else { break };
            let message = next.map_err(|e| e.at(&endpoint))?;
            let message = message.ok_or_else(|| Error::new(Kind::Retry, "the watch ended").at(&endpoint))?;
            let holds = until.held.saturating_add(self.held.bytes).saturating_add(changes.bytes);
            let room = HELD_BYTES_MAX.saturating_sub(holds);
            let batch = Batch::decode(&message, room).map_err(|e| unreadable(e).at(&endpoint))?;
            if batch.cut || batch.bytes > room {
                return Ok(Followed::TooMuch);
            }
            if batch.compacted > 0 {
                return Ok(Followed::Compacted(batch.compacted));
            }
            if batch.canceled {
                return Err(Error::new(Kind::Retry, format!("the watch was ended: {}", batch.reason)).at(&endpoint));
            }
            if batch.header.cluster != 0 && batch.header.cluster != self.cluster.id() {
                return Err(Error::new(Kind::Refused, "the watch is of another cluster").at(&endpoint));
            }
            if let Some(whole) = self.held.join(batch) {
                changes.bytes += whole.bytes;
                leases.extend(whole.leases);
                append(&mut changes, whole.changes).map_err(|e| e.at(&endpoint))?;
            }
        }
        leases.sort_unstable();
        leases.dedup();
        if leases.len() > LEASES_MAX {
            return Ok(Followed::TooMuch);
        }
        changes.leases = self.granted(leases, cancel)?;
        self.last = changes.to;
        Ok(Followed::Changes(changes))
    }

    /// The seconds that leases were granted for.
    fn granted(&self, leases: Vec<i64>, cancel: &Cancel) -> Result<BTreeMap<i64, i64>> {
        let channel = self.cluster.channel()?;
        let mut granted = BTreeMap::new();
        for lease in leases {
            let seconds = run(&self.cluster.runtime, cancel, calls::granted(channel, lease))?;
            let seconds = seconds.map_err(|e| e.at(channel.authority()))?;
            if seconds > 0 {
                granted.insert(lease, seconds);
            }
        }
        Ok(granted)
    }
}

/// Appends whole revisions, each of which must follow the one before.
fn append(changes: &mut Changes, new: Vec<Change>) -> Result<()> {
    for mut change in new {
        let main = change.revision.main;
        change.revision.sub = match changes.changes.last() {
            Some(last) if last.revision.main == main => last.revision.sub.saturating_add(1),
            _ if Some(main) == changes.to.checked_add(1) => 0,
            _ => {
                let what = format!("the watch has a gap: revision {main} follows {}", changes.to);
                return Err(Error::new(Kind::Source, what));
            }
        };
        changes.to = main;
        changes.changes.push(change);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(main: i64) -> Change {
        Change { revision: Revision { main, sub: 0 }, deleted: false, message: Vec::new() }
    }

    #[test]
    fn revisions_follow_each_other_or_are_refused() {
        let mut changes = Changes { after: 5, to: 5, ..Changes::default() };
        append(&mut changes, vec![change(6), change(6), change(7)]).unwrap();
        append(&mut changes, vec![change(8)]).unwrap();
        let places: Vec<_> = changes.changes.iter().map(|c| (c.revision.main, c.revision.sub)).collect();
        assert_eq!((places, changes.to), (vec![(6, 0), (6, 1), (7, 0), (8, 0)], 8));
        for bad in [7, 10, 0] {
            let error = append(&mut changes.clone(), vec![change(bad)]).unwrap_err();
            assert!(error.what().contains("gap"), "{bad}: {error}");
        }
    }

    #[test]
    fn changes_are_cut_between_revisions() {
        let mains = [6, 6, 7, 8, 8, 8, 9];
        let leases = BTreeMap::from([(3, 60)]);
        let all = Changes {
            after: 5,
            to: 9,
            changes: mains.map(change).into(),
            leases: leases.clone(),
            bytes: 7 * EVENT_BYTES,
        };
        let cut = |events: usize| -> Vec<(i64, i64, usize)> {
            let parts = all.clone().parts(events * EVENT_BYTES);
            assert_eq!(parts[0].leases, leases);
            assert!(parts.iter().flat_map(|part| &part.changes).eq(&all.changes), "nothing is lost");
            assert!(parts.windows(2).all(|pair| pair[0].to == pair[1].after && pair[1].leases.is_empty()));
            parts.iter().map(|part| (part.after, part.to, part.bytes / EVENT_BYTES)).collect()
        };
        assert_eq!(cut(7), [(5, 9, 7)]);
        assert_eq!(cut(6), [(5, 8, 6), (8, 9, 1)]);
        assert_eq!(cut(3), [(5, 7, 3), (7, 8, 3), (8, 9, 1)]);
        // A revision is never cut, however large.
        assert_eq!(cut(1), [(5, 6, 2), (6, 7, 1), (7, 8, 3), (8, 9, 1)]);
        assert_eq!(Changes { after: 5, to: 5, ..Changes::default() }.parts(1).len(), 1);
    }

    #[test]
    fn parts_of_an_answer_wait_for_the_last_one() {
        let part = |fragment, mains: &[i64]| Batch {
            fragment,
            changes: mains.iter().map(|m| change(*m)).collect(),
            bytes: 1,
            ..Batch::default()
        };
        let mut held = Batch::default();
        assert!(held.join(part(true, &[6, 6])).is_none());
        assert!(held.join(part(true, &[6])).is_none());
        let whole = held.join(part(false, &[6, 7])).unwrap();
        let mut changes = Changes { after: 5, to: 5, ..Changes::default() };
        append(&mut changes, whole.changes).unwrap();
        assert_eq!((changes.to, changes.changes.len(), changes.changes[3].revision.sub, whole.bytes), (7, 5, 3, 3));
        assert!(held.changes.is_empty());
    }

    #[test]
    fn no_more_events_are_taken_than_there_is_room_for() {
        // The smallest there are: a key of one byte, and its revision.
        let event =
            Message::new().bytes(2, &KeyValue { key: b"k", modified: 9, ..KeyValue::default() }.encode()).finish();
        let many = (0..100_000).fold(Message::new(), |message, _| message.bytes(11, &event)).finish();
        let room = 1 << 20;
        let cut = Batch::decode(&many, room).unwrap();
        assert!(cut.cut && cut.bytes > room && cut.bytes < room + 2 * EVENT_BYTES, "{}", cut.bytes);
        // What they take is what they are counted as, at most: with their buffers, and room for as many.
        let each = 2 * size_of::<Change>() + cut.changes.iter().map(|c| c.message.capacity().max(16)).max().unwrap();
        assert!(each <= EVENT_BYTES, "{each}");
        let whole = Batch::decode(&many, HELD_BYTES_MAX).unwrap();
        assert!(!whole.cut && whole.changes.len() == 100_000);
    }

    #[test]
    fn an_answer_to_a_watch_is_read() {
        let kv = KeyValue { key: b"/a", value: b"v", created: 3, modified: 9, version: 2, lease: 77 };
        let put = Message::new().bytes(2, &kv.encode()).finish();
        let gone = KeyValue { value: b"", created: 0, version: 0, lease: 0, ..kv };
        let delete = Message::new().number(1, 1).bytes(2, &gone.encode()).finish();
        let header = Message::new().number(1, 4).number(3, 9).finish();
        let bytes = Message::new().bytes(1, &header).number(7, 1).bytes(11, &put).bytes(11, &delete).finish();
        let batch = Batch::decode(&bytes, HELD_BYTES_MAX).unwrap();
        assert_eq!((batch.header.cluster, batch.fragment, batch.leases.as_slice()), (4, true, &[77][..]));
        assert_eq!(batch.changes[0].message, kv.encode());
        assert_eq!((batch.changes[1].deleted, batch.changes[1].message.as_slice()), (true, &[0x0a, 2, b'/', b'a'][..]));
        let none = Message::new().bytes(11, &[]).finish();
        assert!(Batch::decode(&none, HELD_BYTES_MAX).is_err(), "an event of no key");
    }
}
