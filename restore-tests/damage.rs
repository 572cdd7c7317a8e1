//! Every kind of object, damaged in every way, in one region or in both, before every action. With one good copy
//! everything works and the damage is named; without one there is a clear end. A wrong byte never comes back.

mod expect;
pub mod fixture;
mod regions;
mod repair;
mod spoil;

use crate::harness::{PASSPHRASE, assert_same, files};
use expect::Action;
use fixture::{Fixture, Kind, run};
use serde_json::Value;
use spoil::{All, Damage, spoil};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

fn all() -> All {
    let stranger = Fixture::new([9; 32], "another-passphrase-of-somebody-else-5521");
    All { ours: Fixture::ours(), stranger, twin: Fixture::new([7; 32], PASSPHRASE) }
}

/// One cell of the matrix.
struct Case<'a> {
    all: &'a All,
    kind: Kind,
    damage: Damage,
    both: bool,
}

impl Case<'_> {
    fn name(&self) -> String {
        format!("{:?} {:?} in {}", self.kind, self.damage, if self.both { "both" } else { "one" })
    }

    fn expected(&self, action: Action) -> &'static [i32] {
        let table = if self.both { expect::in_both } else { expect::in_one };
        table(self.kind, self.damage, action)
    }

    /// Runs one action; checks its exit code.
    fn act(&self, dir: &Path, action: Action, args: &[&str], tally: &Tally) -> (i32, Value) {
        let (code, value) = run(dir, &self.all.ours.key(), args);
        let wanted = self.expected(action);
        tally.count(action, code);
        if !wanted.contains(&code) {
            tally.wrong(format!("{}: {action:?} ended with {code} instead of {wanted:?}: {value}", self.name()));
        }
        (code, value)
    }

    fn check(&self, tally: &Tally) {
        let ours = &self.all.ours;
        let copy = ours.copy();
        let dir = copy.path();
        // Two marks that change places twice are where they were.
        let once = self.kind == Kind::Region && matches!(self.damage, Damage::Swapped | Damage::Replayed);
        for name in if self.both && !once { &["a", "b"][..] } else { &["a"] } {
            spoil(self.all, dir, name, self.kind, self.damage);
        }
        self.act(dir, Action::Snapshots, &["snapshots"], tally);
        self.act(dir, Action::KeyList, &["key", "list"], tally);
        let code = self.restore(dir, &ours.second, &ours.tree, tally, Some(Action::Restore));
        let written = expect::is_written(self.damage);
        let first = if written { run_restore(dir, &ours.key(), &ours.first, &ours.first_tree).0 } else { 1 };
        for (level, action) in
            [("presence", Action::Presence), ("ciphertext", Action::Ciphertext), ("content", Action::Content)]
        {
            let (code, report) = self.act(dir, action, &["verify", "--level", level], tally);
            self.check_named(action, code, &report, tally);
        }
        if self.kind == Kind::Hold {
            self.check_hold(dir, tally);
        }
        if written {
            self.back_up(dir, [first, code], tally);
            self.act(dir, Action::Forget, &["forget", &ours.first], tally);
        }
    }

    /// Restores, and expects the exit code of an action; or 0 where there is none.
    fn restore(&self, dir: &Path, sid: &str, tree: &Path, tally: &Tally, action: Option<Action>) -> i32 {
        let (code, report) = run_restore(dir, &self.all.ours.key(), sid, tree);
        let wanted = action.map_or(&[0][..], |action| self.expected(action));
        if let Some(action) = action {
            tally.count(action, code);
        }
        if !wanted.contains(&code) {
            tally.wrong(format!("{}: a restore ended with {code} instead of {wanted:?}: {report}", self.name()));
        }
        code
    }

    /// A report that found damage says where: region and object.
    fn check_named(&self, action: Action, code: i32, report: &Value, tally: &Tally) {
        if self.both || self.kind == Kind::Region || code == 0 {
            return;
        }
        let object = &self.all.ours.objects[&self.kind][0];
        let list = if code == 4 { "behind" } else { "findings" };
        let lines = || report[list].as_array().into_iter().flatten().filter_map(Value::as_str);
        let missing_snapshot = code == 4 && matches!(self.kind, Kind::Manifest | Kind::Index);
        let named = lines().any(|l| l.starts_with("region a") && (l.contains(object) || missing_snapshot));
        if !named {
            tally.wrong(format!("{}: {action:?} does not name {object}: {report}", self.name()));
        }
    }

    /// A hold counts as long as one region has it.
    fn check_hold(&self, dir: &Path, tally: &Tally) {
        if !self.both {
            let (code, value) = run(dir, &self.all.ours.key(), &["forget", "--last", &self.all.ours.held]);
            if code != 11 {
                tally.wrong(format!("{}: a held snapshot was forgotten: {value}", self.name()));
            }
        }
    }

    /// Backs up what `main` was; then every snapshot that could be restored still can, and mostly the new one too.
    fn back_up(&self, dir: &Path, before: [i32; 2], tally: &Tally) {
        let ours = &self.all.ours;
        let tree = ours.tree.display().to_string();
        let heals = [expect::incremental_heals(self.kind), expect::full_heals(self.kind, self.damage)];
        for (action, mode, heals) in [(Action::Incremental, "incremental", heals[0]), (Action::Full, "full", heals[1])]
        {
            let (code, done) = self.act(dir, action, &["backup", "--mode", mode, "--name", "main", &tree], tally);
            if matches!(code, 0 | 4) && (!self.both || heals) {
                self.restore(dir, done["snapshot"].as_str().unwrap_or_default(), &ours.tree, tally, None);
            }
        }
        for (code, sid, tree) in [(before[0], &ours.first, &ours.first_tree), (before[1], &ours.second, &ours.tree)] {
            if code == 0 {
                self.restore(dir, sid, tree, tally, None);
            }
        }
    }
}

/// Restores a snapshot of a tree. All of it must come back when the exit code is 0, and never a wrong byte.
fn run_restore(dir: &Path, key: &Path, sid: &str, tree: &Path) -> (i32, Value) {
    let target = tempfile::TempDir::new_in(dir).expect("target");
    let into = target.path().display().to_string();
    let (code, report) = run(dir, key, &["restore", sid, "--target", &into, "--no-repair"]);
    if code == 0 {
        assert_same(tree, target.path());
    }
    for file in files(target.path()) {
        let original = tree.join(file.strip_prefix(target.path()).expect("inside"));
        let link = std::fs::symlink_metadata(&file).is_ok_and(|m| m.is_symlink());
        let same = link || std::fs::read(&original).ok() == std::fs::read(&file).ok();
        assert!(same, "wrong bytes in {}: {report}", file.display());
    }
    (code, report)
}

/// What came out.
#[derive(Default)]
struct Tally {
    ends: Mutex<BTreeMap<(Action, i32), usize>>,
    wrong: Mutex<Vec<String>>,
}

impl Tally {
    fn count(&self, action: Action, code: i32) {
        *self.ends.lock().expect("lock").entry((action, code)).or_default() += 1;
    }

    fn wrong(&self, what: String) {
        self.wrong.lock().expect("lock").push(what);
    }
}

/// Runs every cell on two threads.
fn matrix(kinds: &[Kind], both: bool) {
    let all = all();
    let cells = kinds.iter().copied().flat_map(|kind| Damage::ALL.into_iter().map(move |damage| (kind, damage)));
    let cases: Vec<Case<'_>> = cells.map(|(kind, damage)| Case { all: &all, kind, damage, both }).collect();
    let (tally, next) = (Tally::default(), AtomicUsize::new(0));
    let work = || {
        while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
            case.check(&tally);
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(work);
        work();
    });
    let ends = tally.ends.into_inner().expect("lock");
    println!("{} cells, {} actions: {ends:?}", cases.len(), ends.values().sum::<usize>());
    let wrong = tally.wrong.into_inner().expect("lock");
    assert!(wrong.is_empty(), "{} of them wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// Kinds that are read for every restore; the others are marks, markers and epochs.
fn halves() -> (&'static [Kind], &'static [Kind]) {
    Kind::ALL.split_at(7)
}

#[test]
fn one_damaged_copy_of_what_is_read_harms_nobody() {
    matrix(halves().0, false);
}

#[test]
fn one_damaged_copy_of_what_is_said_harms_nobody() {
    matrix(halves().1, false);
}

#[test]
fn what_is_read_and_damaged_everywhere_ends_clearly() {
    matrix(halves().0, true);
}

#[test]
fn what_is_said_and_damaged_everywhere_ends_clearly() {
    matrix(halves().1, true);
}
