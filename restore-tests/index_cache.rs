//! The index on this machine: whatever happens to its files and to the regions, it says what the regions' segments
//! say, and nothing else.

mod program;
mod world;

use crate::harness::files;
use holdfast::repo::index::Index;
use proptest::prelude::*;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tempfile::TempDir;
use world::{World, cache};

fn load(world: &Arc<World>, masks: &[u8], state: &Path) -> Index {
    Index::assemble(&world.listing(masks), Arc::clone(world) as _, cache(state, 1))
}

fn runs(state: &Path) -> Vec<PathBuf> {
    let mut found = files(state);
    found.retain(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("run-")));
    found.sort();
    found
}

/// One step of a history: which segments change, to which regions, and what else happens.
fn steps() -> impl Strategy<Value = Vec<(Vec<(usize, u8)>, u8)>> {
    let change = (0..40usize, prop_oneof![5 => 0..8u8, 1 => any::<u8>()]);
    proptest::collection::vec((proptest::collection::vec(change, 0..6), any::<u8>()), 1..30)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    /// Segments come and go by region, writers lose their rights, regions are away, runs are merged and dropped:
    /// every index, also one that was opened long before, answers as a plain list does.
    #[test]
    fn a_cached_index_says_what_the_regions_list(history in steps()) {
        let state = TempDir::new_in("/dev/shm").unwrap();
        let world = World::new(40, 60);
        let mut masks = vec![0u8; 40];
        let mut kept: Vec<(Arc<Index>, Vec<u8>)> = Vec::new();
        for (changes, event) in history {
            changes.iter().for_each(|(n, mask)| masks[*n] = *mask);
            world.away.store(event & 3 == 0, Ordering::Relaxed);
            *world.distrusted.lock().unwrap() =
                if event >> 5 == 0 { [holdfast::base::WriterId([event & 3; 16])].into() } else { [].into() };
            let index = world.check(load(&world, &masks, state.path()), &masks);
            prop_assert!(runs(state.path()).len() <= 6);
            if event >> 5 != 0 && event & 8 != 0 {
                kept.push((index, masks.clone()));
            }
        }
        world.distrusted.lock().unwrap().clear();
        for (index, masks) in kept {
            world.check(Arc::into_inner(index).unwrap(), &masks);
        }
    }
}

/// A folder with several runs of different sizes, and the listing they were made for.
fn filled() -> (TempDir, Arc<World>, Vec<u8>) {
    let state = TempDir::new_in("/dev/shm").unwrap();
    let world = World::new(40, 60);
    let mut masks = vec![0u8; 40];
    for step in [0..30, 30..36, 36..39, 39..40] {
        step.for_each(|n| masks[n] = 0b101 + (n as u8 & 2));
        world.check(load(&world, &masks, state.path()), &masks);
    }
    assert_eq!(runs(state.path()).len(), 4);
    (state, world, masks)
}

#[test]
fn nothing_is_read_twice() {
    let (state, world, masks) = filled();
    assert_eq!(world.reads.load(Ordering::Relaxed), 40);
    world.check(load(&world, &masks, state.path()), &masks);
    assert_eq!(world.reads.load(Ordering::Relaxed), 40, "what the cache has was read again");
    // Without a cache everything is.
    world.check(Index::assemble(&world.listing(&masks), Arc::clone(&world) as _, None), &masks);
    assert_eq!(world.reads.load(Ordering::Relaxed), 80);
}

/// Every part of every file, changed before it is opened, and while it is open.
#[test]
fn damaged_runs_are_never_believed() {
    let (state, world, masks) = filled();
    let sound: Vec<(PathBuf, Vec<u8>)> =
        runs(state.path()).into_iter().map(|path| (path.clone(), std::fs::read(path).unwrap())).collect();
    let mut broken = 0;
    for (path, bytes) in &sound {
        let places = (0..100).step_by(3).chain((100..bytes.len()).step_by(bytes.len() / 40)).chain([bytes.len() - 1]);
        for at in places {
            for open_before in [false, true] {
                runs(state.path()).iter().for_each(|path| std::fs::remove_file(path).unwrap());
                sound.iter().for_each(|(path, bytes)| std::fs::write(path, bytes).unwrap());
                let before = open_before.then(|| load(&world, &masks, state.path()));
                let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
                file.write_all_at(&[bytes[at] ^ 1], at as u64).unwrap();
                world.reads.store(0, Ordering::Relaxed);
                world.check(before.unwrap_or_else(|| load(&world, &masks, state.path())), &masks);
                broken += u32::from(world.reads.load(Ordering::Relaxed) > 0);
                assert_eq!(path.exists() && !open_before, world.reads.load(Ordering::Relaxed) == 0 && !open_before);
                world.check(load(&world, &masks, state.path()), &masks);
            }
        }
    }
    assert!(broken > 200, "only {broken} changes were met");
}

#[test]
fn files_that_are_no_runs_of_this_repository_are_removed() {
    let (state, world, masks) = filled();
    let all = runs(state.path());
    let folder = all[0].parent().unwrap();
    let sound = std::fs::read(&all[0]).unwrap();
    for (name, bytes) in [
        ("run-empty", &b""[..]),
        ("run-short", &sound[..100]),
        ("run-cut", &sound[..sound.len() - 1]),
        ("run-long", &[&sound[..], b"x"].concat()),
        ("run-text", &b"not a run of an index, but long enough to hold a header of one".repeat(9)),
    ] {
        std::fs::write(folder.join(name), bytes).unwrap();
    }
    std::os::unix::fs::symlink("/dev/zero", folder.join("run-link")).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, folder.join("run-pipe"), rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    // Another repository's runs are sealed with another key.
    let other = TempDir::new_in("/dev/shm").unwrap();
    drop(Index::assemble(&world.listing(&masks), Arc::clone(&world) as _, cache(other.path(), 2)));
    std::fs::copy(&runs(other.path())[0], folder.join("run-other")).unwrap();
    // A second copy of one of our own does no harm.
    std::fs::copy(&all[1], folder.join("run-again")).unwrap();
    world.reads.store(0, Ordering::Relaxed);
    world.check(load(&world, &masks, state.path()), &masks);
    assert_eq!(world.reads.load(Ordering::Relaxed), 0);
    let left: Vec<String> =
        runs(state.path()).iter().map(|p| p.file_name().unwrap().to_string_lossy().into_owned()).collect();
    for name in ["empty", "short", "cut", "long", "text", "link", "pipe", "other"] {
        assert!(!left.contains(&format!("run-{name}")), "{left:?}");
    }
}

/// A run that is put back after its segments went away says nothing.
#[test]
fn an_old_run_put_back_makes_nothing_known() {
    let (state, world, mut masks) = filled();
    let old: Vec<_> = runs(state.path()).into_iter().map(|p| (p.clone(), std::fs::read(p).unwrap())).collect();
    masks.iter_mut().skip(1).for_each(|mask| *mask = 0);
    world.check(load(&world, &masks, state.path()), &masks);
    old.iter().for_each(|(path, bytes)| std::fs::write(path, bytes).unwrap());
    world.check(load(&world, &masks, state.path()), &masks);
    masks[7] = 0b100;
    world.check(load(&world, &masks, state.path()), &masks);
}

/// Many at once with one folder: each says what is right, and what is left is sound.
#[test]
fn several_at_once_share_a_folder() {
    let state = TempDir::new_in("/dev/shm").unwrap();
    let world = World::new(120, 60);
    std::thread::scope(|scope| {
        for thread in 0..4usize {
            let (state, world) = (state.path(), &world);
            scope.spawn(move || {
                let mut masks = vec![0u8; 120];
                for step in 0..30 {
                    (step * 4..step * 4 + 4).for_each(|n| masks[n] = 0b111 - ((n + thread) % 3) as u8);
                    world.check(load(world, &masks, state), &masks);
                }
            });
        }
    });
    let masks = vec![0b111u8; 120];
    world.check(load(&world, &masks, state.path()), &masks);
    assert!(runs(state.path()).len() <= 6 && files(state.path()).iter().all(|p| !p.to_string_lossy().contains("new-")));
}
