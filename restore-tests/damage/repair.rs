//! What `verify --repair` does about every kind of damage to every kind of object in one region: afterwards the region
//! has, byte for byte, what it had, and the damaged bytes are kept.

use super::fixture::{Fixture, Kind, run};
use super::spoil::{All, Damage, spoil};
use super::{Tally, all, run_restore};
use crate::harness::files;
use holdfast::format::quarantine::Quarantined;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

const REPAIR: [&str; 4] = ["verify", "--level", "content", "--repair"];

/// Objects of a region that belong to a copy, with their bytes.
fn copy_of(dir: &Path, region: &str) -> BTreeMap<PathBuf, Vec<u8>> {
    let root = dir.join(region);
    let ours = |path: &Path| !path.starts_with("quarantine") && !path.starts_with("runs");
    let inside = |file: PathBuf| file.strip_prefix(&root).expect("inside").to_path_buf();
    let names = files(&root).into_iter().map(inside).filter(|path| ours(path));
    names.map(|path| (path.clone(), std::fs::read(root.join(&path)).expect("object"))).collect()
}

/// The damaged objects that a region keeps, by what they were.
fn kept(dir: &Path, region: &str) -> BTreeMap<String, (Quarantined, Option<Vec<u8>>)> {
    let root = dir.join(region).join("quarantine");
    let records = files(&root).into_iter().filter(|file| file.extension().is_some_and(|e| e == "record"));
    let read = |file: PathBuf| {
        let record = Quarantined::from_object(&std::fs::read(&file).expect("record")).expect("a sound record");
        (record.object.clone(), (record, std::fs::read(file.with_extension("")).ok()))
    };
    records.map(read).collect()
}

/// One cell: what is wrong, or nothing.
fn mended(all: &All, kind: Kind, damage: Damage) -> Result<(), String> {
    let ours = &all.ours;
    let copy = ours.copy();
    let dir = copy.path();
    let before = copy_of(dir, "region-a");
    spoil(all, dir, "a", kind, damage);
    let spoilt = copy_of(dir, "region-a");
    let (code, report) = run(dir, &ours.key(), &REPAIR);
    let after = copy_of(dir, "region-a");
    // A session that is over is nobody's to bring back.
    let lost = kind == Kind::Session && damage == Damage::Missing;
    if !matches!(code, 0 | 4 | 5) || report["repair"]["left"] != 0 {
        return Err(format!("ended with {code}: {report:#}"));
    }
    if !lost && after != before {
        let other = before.iter().filter(|(path, bytes)| after.get(*path) != Some(*bytes)).map(|(path, _)| path);
        return Err(format!("not mended: {:?}: {report:#}", other.collect::<Vec<_>>()));
    }
    let kept = kept(dir, "region-a");
    for (path, bytes) in spoilt.iter().filter(|(path, bytes)| before.get(*path) != Some(*bytes)) {
        let name = path.display().to_string();
        match kept.get(&name) {
            Some((record, Some(found))) if found == bytes && record.whole && record.bytes == bytes.len() as u64 => {}
            other => return Err(format!("{name} was not kept: {other:?}: {report:#}")),
        }
    }
    let (code, report) = run(dir, &ours.key(), &["verify", "--level", "content"]);
    if code != 0 {
        return Err(format!("afterwards a check ends with {code}: {report:#}"));
    }
    // Alone, as if the other had never been.
    std::fs::rename(dir.join("region-b"), dir.join("away")).expect("renamed");
    let (code, report) = run_restore(dir, &ours.key(), &ours.second, &ours.tree);
    if code == 0 { Ok(()) } else { Err(format!("alone it restores with {code}: {report:#}")) }
}

#[test]
fn what_is_damaged_in_one_region_is_put_back_and_the_damaged_is_kept() {
    let all = all();
    let kinds = Kind::ALL.into_iter().filter(|kind| *kind != Kind::Region);
    let cells: Vec<_> = kinds.flat_map(|kind| Damage::ALL.map(|damage| (kind, damage))).collect();
    let (tally, next) = (Tally::default(), AtomicUsize::new(0));
    let work = || {
        while let Some((kind, damage)) = cells.get(next.fetch_add(1, Ordering::Relaxed)) {
            if let Err(why) = mended(&all, *kind, *damage) {
                tally.wrong(format!("{kind:?} {damage:?}: {why}"));
            }
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(work);
        work();
    });
    let wrong = tally.wrong.into_inner().expect("lock");
    assert!(wrong.is_empty(), "{} of {} cells wrong:\n{}", wrong.len(), cells.len(), wrong.join("\n"));
}

/// What no other region can give, or nobody may bring, is left as it is and said to be so.
#[test]
fn what_cannot_be_mended_is_left_and_named() {
    let all = all();
    let ours: &Fixture = &all.ours;
    // The same pack in both regions.
    let copy = ours.copy();
    let dir = copy.path();
    ["a", "b"].iter().for_each(|name| spoil(&all, dir, name, Kind::Data, Damage::FlipMiddle));
    let spoilt = (copy_of(dir, "region-a"), copy_of(dir, "region-b"));
    let (code, report) = run(dir, &ours.key(), &REPAIR);
    assert_eq!(
        (code, &report["repair"]["left"], &report["repair"]["put_back"]),
        (5, &2.into(), &0.into()),
        "{report:#}"
    );
    let objects = report["repair"]["objects"].as_array().expect("objects");
    let no_region = |one: &Value| one["detail"].as_str().is_some_and(|why| why.contains("no region has it whole"));
    assert!(objects.iter().all(no_region), "{report:#}");
    assert_eq!((copy_of(dir, "region-a"), copy_of(dir, "region-b")), spoilt);
    // Something that is no object of ours is not touched.
    let copy = ours.copy();
    let dir = copy.path();
    std::fs::write(dir.join("region-a/packs/junk"), b"junk").expect("junk");
    let (code, report) = run(dir, &ours.key(), &REPAIR);
    assert_eq!((code, &report["repair"]["left"]), (5, &1.into()), "{report:#}");
    assert_eq!(std::fs::read(dir.join("region-a/packs/junk")).expect("junk"), b"junk");
    // Without a key only what is named by its hash can be mended; and nothing is invented.
    let copy = ours.copy();
    let dir = copy.path();
    let before = copy_of(dir, "region-a");
    spoil(&all, dir, "a", Kind::Index, Damage::FlipMiddle);
    spoil(&all, dir, "a", Kind::Data, Damage::Half);
    spoil(&all, dir, "a", Kind::Manifest, Damage::FlipEnd);
    let (code, report) = run(dir, &ours.key(), &["verify", "--level", "ciphertext", "--repair"]);
    assert_eq!(
        (code, &report["repair"]["put_back"], &report["repair"]["left"]),
        (5, &2.into(), &1.into()),
        "{report:#}"
    );
    let (code, report) = run(dir, &ours.key(), &["verify", "--level", "presence", "--repair"]);
    assert_eq!(
        (code, &report["repair"]["put_back"], &report["repair"]["left"]),
        (5, &1.into(), &0.into()),
        "{report:#}"
    );
    assert_eq!(copy_of(dir, "region-a"), before);
}
