//! Keys of objects, typed (docs/format.md, section 2).

use crate::base::{
    ConfigNo, Epoch, HoldId, PackName, ProbeId, QuarantineId, RunId, SegmentName, SessionId, SlotId, TagsId,
};

/// The key of an object. The last number of numbered keys is the suffix of a squatted key; 0: none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// `region`
    Region,
    /// `keys/<slot>`
    Slot(SlotId),
    /// `config/<n>`
    Config(ConfigNo, u32),
    /// `packs/<aa>/<name>`
    Pack(PackName),
    /// `index/<name>`
    Index(SegmentName),
    /// `snapshots/<sid>`
    Snapshot(SessionId),
    /// `sessions/<sid>`
    Session(SessionId),
    /// `forgotten/<sid>`
    Forgotten(SessionId),
    /// `holds/<id>`
    Hold(HoldId),
    /// `holds/<id>.release`
    HoldRelease(HoldId),
    /// `epochs/<n>/begin`
    EpochBegin(Epoch, u32),
    /// `epochs/<n>/end`
    EpochEnd(Epoch, u32),
    /// `runs/<id>`
    Run(RunId),
    /// `quarantine/<id>`
    Quarantine(QuarantineId),
    /// `quarantine/<id>.record`
    QuarantineRecord(QuarantineId),
    /// `probe/<id>`: what a store is tried with; no part of a repository
    Probe(ProbeId),
    /// `tags/<id>`
    Tags(TagsId),
}

/// What can be listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Prefix {
    /// Key slots.
    Keys,
    /// Configurations.
    Config,
    /// Packs.
    Packs,
    /// Index segments.
    Index,
    /// Outcomes.
    Snapshots,
    /// Sessions.
    Sessions,
    /// Markers.
    Forgotten,
    /// Holds.
    Holds,
    /// Epochs.
    Epochs,
    /// Records of closed runs.
    Runs,
    /// Changes of tags.
    Tags,
    /// Damaged objects that were set aside. No part of any copy: it is in none of the lists of all.
    Quarantine,
    /// What a store is tried with, no part of any copy either.
    Probe,
}

impl Prefix {
    /// Those of a copy, in the order in which one is made: what is needed before what needs it.
    pub const ALL: [Prefix; 11] = [
        Prefix::Keys,
        Prefix::Config,
        Prefix::Epochs,
        Prefix::Forgotten,
        Prefix::Holds,
        Prefix::Tags,
        Prefix::Sessions,
        Prefix::Packs,
        Prefix::Index,
        Prefix::Snapshots,
        Prefix::Runs,
    ];

    /// The folder.
    pub fn path(self) -> &'static str {
        match self {
            Prefix::Keys => "keys",
            Prefix::Config => "config",
            Prefix::Packs => "packs",
            Prefix::Index => "index",
            Prefix::Snapshots => "snapshots",
            Prefix::Sessions => "sessions",
            Prefix::Forgotten => "forgotten",
            Prefix::Holds => "holds",
            Prefix::Epochs => "epochs",
            Prefix::Runs => "runs",
            Prefix::Quarantine => "quarantine",
            Prefix::Probe => "probe",
            Prefix::Tags => "tags",
        }
    }
}

fn suffixed(base: String, suffix: u32) -> String {
    if suffix == 0 { base } else { format!("{base}.{suffix}") }
}

impl Key {
    /// Where the object lies.
    pub fn path(&self) -> String {
        match self {
            Key::Config(_, suffix) | Key::EpochBegin(_, suffix) | Key::EpochEnd(_, suffix) => {
                suffixed(self.canonical(), *suffix)
            }
            _ => self.canonical(),
        }
    }

    /// The key that signatures name: without the suffix of a squatted one.
    pub fn canonical(&self) -> String {
        match self {
            Key::Region => "region".into(),
            Key::Slot(id) => format!("keys/{id}"),
            Key::Config(n, _) => format!("config/{:08}", n.0),
            Key::Pack(name) => {
                let hex = name.hex();
                format!("packs/{}/{hex}", &hex[..2])
            }
            Key::Index(name) => format!("index/{name}"),
            Key::Snapshot(sid) => format!("snapshots/{sid}"),
            Key::Session(sid) => format!("sessions/{sid}"),
            Key::Forgotten(sid) => format!("forgotten/{sid}"),
            Key::Hold(id) => format!("holds/{id}"),
            Key::HoldRelease(id) => format!("holds/{id}.release"),
            Key::EpochBegin(n, _) => format!("epochs/{:08}/begin", n.0),
            Key::EpochEnd(n, _) => format!("epochs/{:08}/end", n.0),
            Key::Run(id) => format!("runs/{id}"),
            Key::Quarantine(id) => format!("quarantine/{id}"),
            Key::QuarantineRecord(id) => format!("quarantine/{id}.record"),
            Key::Probe(id) => format!("probe/{id}"),
            Key::Tags(id) => format!("tags/{id}"),
        }
    }

    /// The same with another suffix; a key that is not numbered has none.
    #[must_use]
    pub fn at_suffix(self, suffix: u32) -> Key {
        match self {
            Key::Config(n, _) => Key::Config(n, suffix),
            Key::EpochBegin(n, _) => Key::EpochBegin(n, suffix),
            Key::EpochEnd(n, _) => Key::EpochEnd(n, suffix),
            other => other,
        }
    }

    /// The key at a path; `None` for what is none of ours.
    pub fn parse(path: &str) -> Option<Key> {
        let key = Self::parse_loosely(path)?;
        (key.path() == path).then_some(key)
    }

    fn parse_loosely(path: &str) -> Option<Key> {
        if path == "region" {
            return Some(Key::Region);
        }
        let (dir, rest) = path.split_once('/')?;
        Some(match dir {
            "keys" => Key::Slot(SlotId::parse(rest)?),
            "config" => {
                let (n, suffix) = split_suffix(rest)?;
                Key::Config(ConfigNo(n.parse().ok()?), suffix)
            }
            "packs" => Key::Pack(PackName::parse(rest.split_once('/')?.1)?),
            "index" => Key::Index(SegmentName::parse(rest)?),
            "snapshots" => Key::Snapshot(SessionId::parse(rest)?),
            "sessions" => Key::Session(SessionId::parse(rest)?),
            "forgotten" => Key::Forgotten(SessionId::parse(rest)?),
            "holds" => match rest.strip_suffix(".release") {
                Some(id) => Key::HoldRelease(HoldId::parse(id)?),
                None => Key::Hold(HoldId::parse(rest)?),
            },
            "epochs" => {
                let (n, what) = rest.split_once('/')?;
                let n = Epoch(n.parse().ok()?);
                match split_suffix(what)? {
                    ("begin", suffix) => Key::EpochBegin(n, suffix),
                    ("end", suffix) => Key::EpochEnd(n, suffix),
                    _ => return None,
                }
            }
            "runs" => Key::Run(RunId::parse(rest)?),
            "quarantine" => match rest.strip_suffix(".record") {
                Some(id) => Key::QuarantineRecord(QuarantineId::parse(id)?),
                None => Key::Quarantine(QuarantineId::parse(rest)?),
            },
            "probe" => Key::Probe(ProbeId::parse(rest)?),
            "tags" => Key::Tags(TagsId::parse(rest)?),
            _ => return None,
        })
    }
}

fn split_suffix(text: &str) -> Option<(&str, u32)> {
    match text.split_once('.') {
        None => Some((text, 0)),
        Some((base, n)) => n.parse().ok().filter(|n| *n > 0).map(|n| (base, n)),
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.path())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_reads_back() {
        let keys = [
            Key::Region,
            Key::Slot(SlotId([1; 16])),
            Key::Config(ConfigNo(7), 0),
            Key::Config(ConfigNo(7), 3),
            Key::Pack(PackName([0xab; 32])),
            Key::Index(SegmentName([2; 32])),
            Key::Snapshot(SessionId([3; 16])),
            Key::HoldRelease(HoldId([4; 16])),
            Key::EpochBegin(Epoch(1), 0),
            Key::EpochEnd(Epoch(2), 1),
            Key::Run(RunId([5; 16])),
            Key::Quarantine(QuarantineId([6; 16])),
            Key::QuarantineRecord(QuarantineId([6; 16])),
            Key::Probe(ProbeId([6; 16])),
            Key::Tags(TagsId([6; 16])),
        ];
        for key in keys {
            assert_eq!(Key::parse(&key.path()), Some(key));
        }
        for junk in ["config/1", "packs/00/xx", "epochs/00000001/middle", "config/00000001.0", "other", "keys/"] {
            assert_eq!(Key::parse(junk), None, "{junk}");
        }
    }
}
