//! Prunes beside everything else.

use super::{NOW, backup, clean, comes_back, forget, packs, prune, versions, write};
use crate::crash::{complete_alone, interfere, restores, spread};
use crate::harness::{Bench, end, start};

/// A shell command that runs the program in a bench.
fn shell(bench: &Bench, args: &[&str]) -> String {
    let command = bench.command(args);
    let quote = |text: &std::ffi::OsStr| format!("'{}'", text.to_str().unwrap());
    let words: Vec<String> = std::iter::once(command.get_program()).chain(command.get_args()).map(quote).collect();
    format!("HOLDFAST_STATE='{}' {} >>{} 2>&1", bench.path("other-state").display(), words.join(" "), log(bench))
}

fn log(bench: &Bench) -> String {
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
    assert!(fenced > 0, "no prune met the backup at work");
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
    for at in spread(count, 1) {
        let case = versions.bench.copy();
        let ended = interfere(&case, &format!("hook:{}", shell(&case, &NOW)), at, &args);
        assert_eq!(ended.code, 0, "step {at} of {count}: {}", ended.said);
        crate::harness::assert_same(&versions.copies[2], &case.path("target"));
    }
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
