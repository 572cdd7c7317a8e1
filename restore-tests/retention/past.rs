//! Snapshots of any past: manifests put into every region, each file with the time that a store would give it.

use crate::harness::{Bench, noise};
use crate::inside::Inside;
use chrono::{DateTime, Utc};
use holdfast::base::{SessionId, TimeMs};
use holdfast::format::envelope::Kind as ObjectKind;
use holdfast::format::snapshot::{Counts, Manifest, Source};
use holdfast::repo::view::View;
use holdfast::store::Key;
use serde_json::Value;
use std::collections::BTreeSet;
use std::time::{Duration, UNIX_EPOCH};

/// Milliseconds of an hour.
pub const HOUR: i64 = 3_600_000;
/// And of a day.
pub const DAY: i64 = 24 * HOUR;

/// What a snapshot claims, and what the stores say.
#[derive(Debug, Clone)]
pub struct Snap {
    pub name: String,
    pub host: String,
    pub tag: String,
    pub start: i64,
    pub end: i64,
    /// The stores' time.
    pub stored: i64,
    pub errors: u64,
    pub files: u64,
    pub bytes: u64,
}

impl Snap {
    /// One of the source `data` that took a minute and was stored in the end.
    pub fn at(time: i64) -> Snap {
        Snap {
            name: "data".into(),
            host: "host".into(),
            tag: "t".into(),
            start: time - 60_000,
            end: time,
            stored: time,
            errors: 0,
            files: 10,
            bytes: 1000,
        }
    }

    /// Whether its time fits.
    pub fn believed(&self) -> bool {
        (self.stored - DAY..=self.stored + 300_000).contains(&self.end)
    }
}

/// A snapshot that was made.
#[derive(Debug, Clone)]
pub struct Made {
    pub snap: Snap,
    pub id: String,
    pub held: bool,
}

/// A repository with any past.
pub struct Past {
    pub bench: Bench,
    pub inside: Inside,
    /// One real snapshot, of the source `base`.
    pub base: Made,
    manifest: Manifest,
}

/// A time in milliseconds.
pub fn at(ms: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_millis(ms).expect("a time")
}

/// The texts of a list.
pub fn texts(list: &Value) -> Vec<String> {
    list.as_array().expect("a list").iter().map(|v| v.as_str().expect("a text").to_owned()).collect()
}

impl Past {
    pub fn new(regions: &[&'static str]) -> Past {
        let bench = Bench::with_key(regions);
        std::fs::create_dir(bench.path("source")).expect("directory");
        std::fs::write(bench.path("source/file"), b"content").expect("file");
        bench.ok(&["backup", "--name", "base", "source"]);
        let key = noise(0x6b65_7900, 32).try_into().expect("32 bytes");
        let inside = Inside::with_key(&bench, key);
        let view = View::load(&inside.repo).expect("view");
        let manifest = view.snapshots.into_values().next().expect("a snapshot").manifest;
        let base = Made { snap: Snap::at(manifest.end), id: manifest.sid.hex(), held: false };
        Past { bench, inside, base, manifest }
    }

    /// Makes a snapshot in every region.
    pub fn make(&self, snap: &Snap) -> Made {
        let repo = &self.inside.repo;
        let sid = SessionId(repo.env.random().expect("random"));
        let counts = Counts { files: snap.files, bytes: snap.bytes, ..self.manifest.counts };
        let source = Source { name: snap.name.clone(), host: snap.host.clone(), ..self.manifest.source.clone() };
        let (start, end, tags) = (snap.start, snap.end, vec![snap.tag.clone()]);
        let base = self.manifest.clone();
        let manifest = Manifest { sid, counts, source, start, end, tags, errors_total: snap.errors, ..base };
        let key = Key::Snapshot(sid);
        self.inside.put(key, repo.seal(ObjectKind::Manifest, &key.canonical(), &manifest).expect("sealed"));
        let made = Made { snap: snap.clone(), id: sid.hex(), held: false };
        self.bench.regions.iter().for_each(|region| self.touch(region, &made, snap.stored));
        made
    }

    fn file(&self, region: &str, made: &Made) -> std::path::PathBuf {
        let sid = SessionId::parse(&made.id).expect("an id");
        self.bench.region(region).join(Key::Snapshot(sid).path())
    }

    /// Sets the time that a region's store gives the manifest.
    pub fn touch(&self, region: &str, made: &Made, time: i64) {
        let file = std::fs::File::options().write(true).open(self.file(region, made)).expect("a manifest");
        file.set_modified(UNIX_EPOCH + Duration::from_millis(time as u64)).expect("the time is set");
    }

    /// Takes the manifest out of a region: it never came there.
    pub fn remove(&self, region: &str, made: &Made) {
        std::fs::remove_file(self.file(region, made)).expect("a manifest");
    }

    /// Ids of what is visible of a source.
    pub fn visible(&self, source: &str) -> BTreeSet<String> {
        let value = self.bench.ok(&["snapshots", "--name", source]);
        value["snapshots"].as_array().expect("snapshots").iter().map(|s| s["id"].as_str().expect("id").into()).collect()
    }

    /// What a verb says to people.
    pub fn text(&self, args: &[&str]) -> String {
        let (code, output) = self.bench.run(args);
        assert_eq!(code, 0, "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    }

    /// The repository opened anew with another clock.
    pub fn opened_at(&self, now: i64) -> Inside {
        let key: [u8; 32] = noise(0x6b65_7900, 32).try_into().expect("32 bytes");
        Inside::at(&self.bench, &holdfast::unlock::Unlock::KeyFile(key.into()), &past_env(now))
    }
}

/// A clock that stands; random numbers as ever.
struct Standing(TimeMs);

impl holdfast::base::clock::Ambient for Standing {
    fn now(&self) -> TimeMs {
        self.0
    }

    fn steady(&self) -> i64 {
        self.0.0
    }

    fn random(&self, out: &mut [u8]) -> holdfast::error::Result<()> {
        let fresh: Vec<u8> = std::iter::repeat_with(|| holdfast::base::Env::system().random::<32>())
            .take(out.len().div_ceil(32))
            .collect::<Result<Vec<_>, _>>()?
            .concat();
        out.copy_from_slice(&fresh[..out.len()]);
        Ok(())
    }
}

fn past_env(now: i64) -> holdfast::base::Env {
    holdfast::base::Env::custom(std::sync::Arc::new(Standing(TimeMs(now))))
}
