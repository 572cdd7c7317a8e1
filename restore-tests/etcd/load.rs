//! A cluster that is written to all the time, loses members and is compacted and defragmented while it is backed up: what
//! comes back at any revision is what a range at that revision gave.

use super::server::{Cluster, wait_a_little};
use super::{comes_up_on, with_certificates};
use crate::harness::{Bench, noise};
use holdfast::source::etcd::bolt::Bolt;
use holdfast::source::etcd::kv::{self, KeyValue, Revision};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::Mutex;

/// Revisions that are restored, and how many of each part of the history.
const REVISIONS: usize = 20;
const OF_EACH_PART: usize = 5;
/// Revisions that are written between two backups, at least.
const REVISIONS_BETWEEN: i64 = 60;
/// How often a backup is tried while the cluster elects another leader.
const TRIES: usize = 30;

/// Numbers as a seed gives them.
pub struct Dice {
    seed: u64,
    thrown: u64,
}

impl Dice {
    /// Of the environment's seed, or of one that is another one each time; it is printed.
    pub fn seeded() -> Dice {
        let given = std::env::var("HOLDFAST_ETCD_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = given.unwrap_or_else(|| u64::from(std::process::id()));
        println!("HOLDFAST_ETCD_SEED={seed}");
        Dice { seed, thrown: 0 }
    }

    /// A number below this one.
    pub fn below(&mut self, end: u64) -> u64 {
        self.thrown += 1;
        let bytes = noise(self.seed.wrapping_mul(1 << 20).wrapping_add(self.thrown), 8);
        u64::from_le_bytes(bytes.try_into().unwrap()) % end
    }
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let group = |part: &[u8]| {
        let word = (0..3).fold(0u32, |word, n| word << 8 | u32::from(part.get(n).copied().unwrap_or(0)));
        let digit = |n: usize| if n <= part.len() { DIGITS[(word >> (18 - 6 * n) & 63) as usize] as char } else { '=' };
        (0..4).map(digit).collect::<String>()
    };
    bytes.chunks(3).map(group).collect()
}

/// What a database holds at its newest revision, as [`Cluster::dump`] says it.
fn read(file: &Path, revision: i64) -> String {
    let bolt = Bolt::open(File::open(file).unwrap()).unwrap();
    let (tree, mut found) = (kv::keys(&bolt).unwrap(), BTreeMap::new());
    let mut cursor = bolt.cursor(&tree);
    while let Some(element) = cursor.next().unwrap() {
        let (place, deleted) = Revision::decode(element.key).unwrap();
        let kv = KeyValue::decode(element.value).unwrap();
        assert!(place.main <= revision, "revision {} lies behind {revision}", place.main);
        if deleted {
            found.remove(kv.key);
            continue;
        }
        let text = |bytes: &[u8]| if bytes.is_empty() { "-".to_owned() } else { base64(bytes) };
        let (key, value) = (text(kv.key), text(kv.value));
        let line = format!("{revision} {key} {value} {} {} {} {}\n", kv.created, kv.modified, kv.version, kv.lease);
        found.insert(kv.key.to_vec(), line);
    }
    found.into_values().collect()
}

/// A cluster under load, and what it said while it was there.
struct Loaded {
    bench: Bench,
    cluster: Cluster,
    dice: Dice,
    /// The last revision that is in a snapshot.
    end: i64,
    recorded: BTreeMap<i64, String>,
}

impl Loaded {
    fn begin_backup(&self, mode: &str) -> Child {
        let (address, means) = (self.cluster.address(), with_certificates(&self.cluster));
        let words = ["--json", "--quiet", "backup", "--name", "cluster", "--mode", mode, &address];
        let mut command = self.bench.command(&words);
        command.args(means).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Backs up while this happens to the cluster, and notes what it says of some revisions that are new in it.
    fn backup(&mut self, mode: &str, meanwhile: impl FnOnce(&mut Cluster)) {
        while self.cluster.revision() < self.end + REVISIONS_BETWEEN {
            wait_a_little();
        }
        let child = self.begin_backup(mode);
        wait_a_little();
        meanwhile(&mut self.cluster);
        let mut output = child.wait_with_output().unwrap();
        for _ in 0..TRIES {
            let text = String::from_utf8_lossy(&output.stdout);
            // It takes the others a moment to elect a leader, if that was the member.
            if output.status.code() != Some(1) || !text.contains("\"kind\":\"retry\"") {
                break;
            }
            println!("once more: {}", text.trim());
            wait_a_little();
            output = self.begin_backup(mode).wait_with_output().unwrap();
        }
        let text = String::from_utf8_lossy(&output.stdout);
        let report: serde_json::Value = serde_json::from_str(text.lines().last().unwrap_or_default()).unwrap();
        // Who is gone cannot be asked for alarms: that is said, and no more.
        assert!([Some(0), Some(3)].contains(&output.status.code()), "{report:#}");
        let (etcd, begin) = (&report["etcd"], self.end);
        self.end = etcd["revision"].as_i64().unwrap();
        println!("{mode}: revisions to {}, exit code {:?}", self.end, output.status.code());
        if mode == "delta" {
            assert_eq!(etcd["after"].as_i64(), Some(begin), "no whole one was needed: {report:#}");
        }
        assert!(self.end >= begin + REVISIONS_BETWEEN);
        let mut some = BTreeSet::new();
        while some.len() < OF_EACH_PART {
            some.insert(begin + 1 + self.dice.below((self.end - begin) as u64) as i64);
        }
        let wanted: Vec<i64> = some.into_iter().collect();
        let dump = self.cluster.dump(&wanted);
        for revision in wanted {
            let own = |line: &&str| line.starts_with(&format!("{revision} "));
            let said: String = dump.lines().filter(own).map(|line| format!("{line}\n")).collect();
            assert!(!said.is_empty(), "nothing is there at revision {revision}");
            assert!(self.recorded.insert(revision, said).is_none());
        }
    }

    /// Restores at a revision, and holds what came against what the cluster said: as the program's own reader has it, and as
    /// a real etcd does that comes up on it.
    fn check(&self, revision: i64) {
        let (name, number) = (format!("at-{revision}.db"), revision.to_string());
        let (code, report) = self.bench.json(&["restore", "latest", "--to", &name, "--revision", &number]);
        // Leases that were revoked since are lost, and that is said.
        let lost = report["leases_lost"].as_u64().unwrap_or(u64::MAX);
        assert_eq!((code, report["revision"].as_i64()), (if lost > 0 { 3 } else { 0 }, Some(revision)), "{report:#}");
        let (file, wanted) = (self.bench.path(&name), &self.recorded[&revision]);
        assert!(read(&file, revision) == *wanted, "revision {revision}, as the reader has it");
        let restored = comes_up_on("3.5", &file);
        assert_eq!(restored.revision(), revision);
        assert!(restored.dump(&[revision]) == *wanted, "revision {revision}, as a real etcd has it");
        fs::remove_file(&file).unwrap();
    }
}

/// Ids of leases that keys name, as etcd's tool writes them.
fn named(dump: &str) -> BTreeSet<String> {
    let ids = dump.lines().filter_map(|line| line.split(' ').nth(6)).filter(|id| *id != "0");
    ids.map(|id| format!("{:x}", id.parse::<i64>().unwrap())).collect()
}

#[test]
fn any_revision_of_a_cluster_under_load_comes_back_whatever_happens_meanwhile() {
    let mut dice = Dice::seeded();
    let (bench, cluster) = (Bench::with_key(&["a", "b"]), Cluster::start("3.5", 3));
    // A lease of which nobody who writes knows: in the end there is one that a key names.
    let granted = cluster.ctl(&["lease", "grant", "7000"]);
    let lease = granted.split(' ').nth(1).unwrap();
    cluster.ctl(&["put", "kept/by-a-lease", "value", &format!("--lease={lease}")]);
    let end = cluster.load(120, dice.below(1 << 30) as usize);
    cluster.ctl(&["compact", &(end - 3).to_string()]);
    // Members are asked in the order of their addresses: the first is the one that dies, the last is written to.
    let mut order: Vec<usize> = (0..3).collect();
    order.sort_by_key(|n| cluster.ports()[*n].to_string());
    let writing = cluster.write_to(order[2], dice.below(1 << 30));
    let mut loaded = Loaded { bench, cluster, dice, end, recorded: BTreeMap::new() };
    let up_again = |cluster: &mut Cluster| {
        cluster.run(order[0]);
        cluster.wait();
    };
    loaded.backup("incremental", |cluster| cluster.kill(order[0]));
    up_again(&mut loaded.cluster);
    loaded.backup("delta", |cluster| cluster.kill(order[0]));
    for _ in 0..2 {
        // As far as a delta can go on from what is left.
        let compacted = (loaded.end - 3).to_string();
        loaded.backup("delta", |cluster| {
            cluster.ctl(&["compact", &compacted]);
            cluster.ctl(&["defrag"]);
        });
    }
    drop(writing);
    assert_eq!(loaded.recorded.len(), REVISIONS);
    let left = Mutex::new(loaded.recorded.keys().copied().collect::<Vec<_>>());
    let next = || left.lock().unwrap().pop();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            // Who starts an etcd lives as long as it does.
            scope.spawn(|| {
                while let Some(revision) = next() {
                    loaded.check(revision);
                }
            });
        }
    });
    // The newest one, with the seconds of the leases that its keys name.
    let (file, last) = (loaded.bench.path("last.db"), loaded.end);
    assert!([0, 3].contains(&loaded.bench.json(&["restore", "latest", "--to", "last.db"]).0));
    let restored = comes_up_on("3.5", &file);
    let (dump, known) = (loaded.cluster.dump(&[last]), loaded.cluster.leases());
    assert!(restored.dump(&[last]) == dump);
    let (named, there) = (named(&dump), restored.leases());
    let of_keys = |lease: &&String| lease.split(' ').next().is_some_and(|id| named.contains(id));
    let wanted: Vec<&String> = known.iter().filter(of_keys).collect();
    assert!(!wanted.is_empty() && wanted.iter().all(|lease| there.contains(lease)), "{wanted:?} of {there:?}");
}
