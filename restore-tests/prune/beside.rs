//! Prunes beside everything else.

use super::{ANEW, NOW, backup, clean, comes_back, forget, packs, prune, versions, write};
use crate::crash::{complete_alone, interfere, restores, spread};
use crate::harness::{Bench, end, start};
use holdfast::chunk::Coder;
use holdfast::repo::index::Index;
use holdfast::repo::reader::Reader;
use std::sync::Arc;

/// A shell command that runs the program in a bench.
pub fn shell(bench: &Bench, args: &[&str]) -> String {
    let command = bench.command(args);
    let quote = |text: &std::ffi::OsStr| format!("'{}'", text.to_str().unwrap());
    let words: Vec<String> = std::iter::once(command.get_program()).chain(command.get_args()).map(quote).collect();
    format!("HOLDFAST_STATE='{}' {} >>{} 2>&1", bench.path("other-state").display(), words.join(" "), log(bench))
}

/// Where it says what it has to say.
pub fn log(bench: &Bench) -> String {
    bench.path("hook.log").display().to_string()
}

/// A backup sleeps at one of its steps while snapshots are forgotten, its parent too, and two whole prunes run.
#[test]
fn a_backup_that_sleeps_at_any_step_while_its_parent_is_forgotten_and_pruned() {
    let versions = versions(&["a", "b"]);
    let bench = &versions.bench;
    let source = bench.path("source");
    write(&source, 4);
    let copy = bench.path("version-4");
    write(&copy, 4);
    let args = ["backup", "--name", "s", "source"];
    let count = interfere(&copied(bench), "count", 0, &args).steps.len();
    let (mut fenced, mut cases) = (0, 0);
    for at in spread(count, 1).chain([count - 2, count - 1]) {
        let case = copied(bench);
        let forgets = versions.sids.iter().map(|sid| shell(&case, &["forget", "--last", sid]));
        let prunes = [shell(&case, &NOW), shell(&case, &NOW)];
        let hook: Vec<String> = forgets.chain(prunes).collect();
        let ended = interfere(&case, &format!("hook:{}", hook.join("; ")), at, &args);
        let said = std::fs::read_to_string(log(&case)).unwrap_or_default();
        let context = format!("step {at} of {count}: {}\n{said}", ended.said);
        assert_eq!(ended.code, 0, "{context}");
        // How packs fill differs from run to run: one may have fewer steps than were counted.
        if said.is_empty() && ended.steps.len() < at {
            continue;
        }
        assert!(said.contains("removed"), "{context}");
        cases += 1;
        fenced += usize::from(said.contains("had not ended, and were"));
        complete_alone(&case, &context);
        let shown = case.ok(&["snapshots"]);
        let shown = shown["snapshots"].as_array().unwrap();
        let sid = shown.last().unwrap_or_else(|| panic!("{context}"))["id"].as_str().unwrap().to_owned();
        restores(&case, &sid, &copy, &context);
        prune(&case);
        restores(&case, &sid, &copy, &context);
        clean(&case, &context);
    }
    println!("{cases} steps of {count}, fenced at {fenced}");
    assert!(fenced > 0 && cases > 3, "no prune met the backup at work");
}

/// A copy of the bench with its source.
fn copied(bench: &Bench) -> Bench {
    let case = bench.copy();
    let done = std::process::Command::new("cp").arg("-a").arg(bench.path("source")).arg(case.path("source")).status();
    assert!(done.unwrap().success());
    case
}

#[test]
fn two_prunes_at_once() {
    let versions = versions(&["a", "b"]);
    forget(&versions.bench, &versions.sids[0]);
    forget(&versions.bench, &versions.sids[1]);
    let count = interfere(&versions.bench.copy(), "count", 0, &NOW).steps.len();
    for at in spread(count, 1) {
        let case = versions.bench.copy();
        let ended = interfere(&case, &format!("hook:{}", shell(&case, &NOW)), at, &NOW);
        let said = std::fs::read_to_string(log(&case)).unwrap_or_default();
        let context = format!("step {at} of {count}: {}\n{said}", ended.said);
        assert_eq!(ended.code, 0, "{context}");
        comes_back(&versions, &case, 2, &context);
        prune(&case);
        comes_back(&versions, &case, 2, &context);
        clean(&case, &context);
    }
    // And as they come.
    let case = versions.bench.copy();
    let both = [start(&case, &NOW), start(&case, &NOW)];
    both.into_iter().for_each(|one| drop(end(one)));
    comes_back(&versions, &case, 2, "two at once");
    clean(&case, "two at once");
}

#[test]
fn a_restore_of_what_stays_goes_on_beside_a_prune() {
    let versions = versions(&["a", "b"]);
    forget(&versions.bench, &versions.sids[0]);
    forget(&versions.bench, &versions.sids[1]);
    let args = ["restore", &versions.sids[2], "--target", "target"];
    let count = interfere(&versions.bench.copy(), "count", 0, &args).steps.len();
    // What is needed may be written anew meanwhile, and its old packs go.
    for prune in [&NOW[..], &ANEW] {
        for at in spread(count, 1) {
            let case = versions.bench.copy();
            let ended = interfere(&case, &format!("hook:{}", shell(&case, prune)), at, &args);
            assert_eq!(ended.code, 0, "step {at} of {count}: {}", ended.said);
            assert!(!ended.said.contains("DAMAGE") && !ended.said.contains("damage"), "step {at}: {}", ended.said);
            crate::harness::assert_same(&versions.copies[2], &case.path("target"));
        }
    }
}

/// An index that was read before a prune wrote everything anew: each chunk is found where it lies now.
#[test]
fn a_reader_learns_where_a_prune_put_things() {
    let versions = versions(&["a", "b"]);
    let bench = &versions.bench;
    forget(bench, &versions.sids[0]);
    forget(bench, &versions.sids[1]);
    let before = packs(bench, "a");
    let inside = super::stops::inside(bench);
    let index = Arc::new(Index::load(&inside.repo).unwrap());
    let reader = Reader::new(Arc::clone(&inside.repo), index);
    let done = bench.ok(&ANEW);
    assert!(done["repacked"]["packs"].as_u64() > Some(0), "{done:#}");
    let after = packs(bench, "a");
    assert!(before.intersection(&after).count() < before.len(), "nothing went");
    let now = Index::load_afresh(&super::stops::inside(bench).repo).unwrap();
    let (mut read, mut moved) = (0, 0);
    for at in now.all() {
        let bytes = reader.chunk(&at.place.id, &mut Coder::default()).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(bytes.len(), at.place.len as usize);
        read += 1;
        moved += usize::from(!before.contains(&at.pack.name.hex()));
    }
    assert!(read > moved && moved > 0, "{moved} of {read} were moved");
    assert!(inside.repo.findings().is_empty(), "{:?}", inside.repo.findings());
    // What nobody needs any more is gone, and said to be.
    let gone = before.difference(&after).next().unwrap();
    let lost = reader
        .index
        .all()
        .into_iter()
        .find(|at| at.pack.name.hex() == *gone && now.locate(&at.place.id).next().is_none());
    assert!(lost.is_none_or(|at| reader.chunk(&at.place.id, &mut Coder::default()).is_err()));
}

/// A listing in several requests may miss the segment that went, and the one that took its place.
#[test]
fn a_reader_whose_listing_was_torn_looks_once_more() {
    let versions = versions(&["a", "b"]);
    let bench = &versions.bench;
    let inside = super::stops::inside(bench);
    let all = Index::load_afresh(&inside.repo).unwrap().all();
    let folder = |region: &str, name: &str| bench.region(region).join(name);
    ["a", "b"].iter().for_each(|region| std::fs::rename(folder(region, "index"), folder(region, "aside")).unwrap());
    let torn = Index::load_afresh(&inside.repo).unwrap();
    assert!(torn.all().is_empty() && !all.is_empty());
    for region in ["a", "b"] {
        let _ = std::fs::remove_dir_all(folder(region, "index"));
        std::fs::rename(folder(region, "aside"), folder(region, "index")).unwrap();
    }
    let reader = Reader::new(Arc::clone(&inside.repo), Arc::new(torn));
    for at in &all {
        let bytes = reader.chunk(&at.place.id, &mut Coder::default()).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(bytes.len(), at.place.len as usize);
    }
    // What is nowhere is nowhere, however often it is asked for.
    let nowhere = holdfast::base::ChunkId([3; 32]);
    assert!(reader.chunk(&nowhere, &mut Coder::default()).is_err());
}

#[test]
fn backups_in_a_row_between_prunes_leave_no_garbage() {
    let bench = Bench::with_key(&["a", "b"]);
    let source = bench.path("source");
    let mut sids: Vec<String> = Vec::new();
    for version in 1..=5 {
        write(&source, version);
        sids.push(backup(&bench, &source));
        if let [.., old, _] = sids.as_slice() {
            forget(&bench, old);
        }
        prune(&bench);
    }
    restores(&bench, &sids[4], &source, "the newest of five");
    clean(&bench, "after five");
    let alone = Bench::with_key(&["a"]);
    let twin = alone.path("source");
    write(&twin, 5);
    backup(&alone, &twin);
    // What was shared by all versions may lie in a pack of its own.
    let bytes = |bench: &Bench| -> u64 {
        let files = crate::harness::files(&bench.region("a").join("packs"));
        files.iter().map(|file| file.metadata().unwrap().len()).sum()
    };
    assert!(bytes(&bench) <= bytes(&alone) * 2 + (1 << 20), "{} {}", bytes(&bench), bytes(&alone));
    assert!(packs(&bench, "a").len() < 12, "{:?}", packs(&bench, "a"));
}
