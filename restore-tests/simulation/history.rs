//! One history from its plan to its end, and smaller ones of those that fail.

use super::actors::{Player, Stage};
use super::model::Model;
use super::plan::{Deed, Plan};
use super::world::{Figures, Watch, World};
use holdfast::error::{Kind, Result};
use holdfast::source::files::testing::settle_here;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};

/// Of each history in this process.
static NUMBER: AtomicU64 = AtomicU64::new(0);
/// Longer than anybody is waited for, ms.
const LONG_MS: i64 = 40 * 24 * 3_600_000;

/// Every history has so many calls.
pub const STEPS_MIN: u64 = 200;

pub struct Outcome {
    pub plan: Plan,
    /// Of this run.
    pub number: u64,
    pub wrong: Vec<String>,
    pub figures: Figures,
    pub overlaps: u64,
    pub told: Vec<String>,
}

/// Runs a history; with `told` everything that is called is written down.
pub fn run(plan: &Plan, told: bool) -> Outcome {
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let regions = plan.regions + 1;
    let world = World::new(plan, regions, told);
    let key = std::array::from_fn(|n| (plan.seed as u8).wrapping_add(n as u8 * 7 + 1));
    let model = Model::new(&world, number, key, plan.liar, regions);
    let watch: Weak<dyn Watch> = Arc::downgrade(&(Arc::clone(&model) as Arc<dyn Watch>));
    world.watched_by(watch);
    let folder = crate::harness::Bench::in_memory(&[]).dir;
    let stage = Stage::new(Arc::clone(&world), Arc::clone(&model), plan, number, folder.path().to_owned(), key);
    let survivor = plan.actors.len();
    (0..=survivor).for_each(|actor| stage.mount(actor, regions));
    begin(&stage, survivor);
    (0..survivor).for_each(|actor| world.expect(actor));
    std::thread::scope(|scope| {
        for (actor, of) in plan.actors.iter().enumerate() {
            let stage = &stage;
            scope.spawn(move || {
                stage.world.begin(actor);
                alone(stage, actor, &of.deeds);
                stage.world.end(actor);
            });
        }
    });
    finish(&stage, survivor);
    (0..=survivor).for_each(|actor| stage.unmount(actor, regions));
    model.over(regions);
    let mut inner = world.lock();
    let (figures, told) = (inner.figures.clone(), inner.told.take().unwrap_or_default());
    drop(inner);
    Outcome { plan: plan.clone(), number, wrong: model.all_wrong(), figures, overlaps: model.overlaps(), told }
}

/// What the thread of an actor does. A panic is one thing that must never be.
fn alone(stage: &Stage, actor: usize, deeds: &[Deed]) {
    settle_here();
    let acted = catch_unwind(AssertUnwindSafe(|| {
        let mut player = Player::new(stage, actor, 0);
        for deed in deeds {
            // An error is an answer; what must not be is judged by what is in the regions.
            let _ = player.act(*deed);
        }
    }));
    if let Err(panic) = acted {
        let what = panic.downcast_ref::<String>().cloned();
        let what = what.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        stage.model.wrong(format!("a panic: {}", what.unwrap_or_default()));
    }
}

/// The repository is made before anything can go wrong.
fn begin(stage: &Stage, survivor: usize) {
    let faults = stage.world.hold_faults();
    stage.world.expect(survivor);
    settle_here();
    let mut player = Player::new(stage, survivor, 1);
    if let Err(e) = player.init() {
        stage.model.wrong(format!("no repository: {e}"));
    }
    if stage.plan.prunes {
        // Something that may go.
        for deed in [Deed::Backup { full: false, changes: 6 }, Deed::Backup { full: false, changes: 6 }] {
            must(stage, &mut player, deed);
        }
        if let Err(e) = player.act(Deed::Forget { keep: 1 }) {
            stage.model.wrong(format!("nothing can be forgotten: {e}"));
        }
    }
    stage.world.end(survivor);
    stage.world.let_faults(faults);
}

/// Everybody is done or dead. Nothing goes wrong any more; one survivor sees to what is left.
fn finish(stage: &Stage, survivor: usize) {
    stage.world.expect(survivor);
    let mut player = Player::new(stage, survivor, 2);
    // Where little could be done, it goes on until somebody has died.
    while stage.world.lock().figures.steps < STEPS_MIN || stage.world.lock().figures.crashes == 0 {
        stage.world.lock().crash_soon();
        let _ = player.act(Deed::Backup { full: false, changes: 1 });
    }
    stage.world.calm();
    stage.world.lock().now += LONG_MS;
    player.revive();
    let wanted = stage.model.wanted();
    // A change of the regions waits for the end of a prune that was begun.
    if !settle(stage, &mut player) && stage.model.is_undecided() {
        let prune = Deed::Prune { wait: 0, dead: 60, repack: 100 };
        match player.act(prune) {
            // As it says: what a region that lied damaged is put back first.
            Err(e) if stage.plan.liar.is_some() && e.kind() == Kind::Damage => {
                must(stage, &mut player, Deed::Verify { content: false, repair: true });
                must(stage, &mut player, prune);
            }
            outcome => judge(stage, prune, outcome),
        }
        settle(stage, &mut player);
    }
    let mut waits = false;
    if stage.plan.liar.is_some() {
        for content in [false, true] {
            let verify = Deed::Verify { content, repair: true };
            let outcome = player.act(verify);
            waits = outcome.as_ref().is_ok_and(|done| !done.contains("left 0"));
            judge(stage, verify, outcome);
        }
    }
    // What an undecided epoch condemns waits for the decision; what only an index names, and nobody needs, for the prune. Once
    // both are over, all must be brought, below.
    if !stage.plan.prunes {
        must(stage, &mut player, Deed::Replicate);
    } else if let Err(e) = player.act(Deed::Replicate) {
        stage.model.wrong(format!("in the end nothing can be replicated: {e}"));
    }
    if stage.plan.prunes {
        for _ in 0..2 {
            must(stage, &mut player, Deed::Prune { wait: 0, dead: 60, repack: 100 });
            stage.world.lock().now += LONG_MS;
        }
        stage.model.check_garbage();
        // What the epoch condemned is put back once it is decided that it stays.
        if waits {
            must(stage, &mut player, Deed::Verify { content: true, repair: true });
        }
    }
    must(stage, &mut player, Deed::Backup { full: false, changes: 1 });
    must(stage, &mut player, Deed::Replicate);
    must(stage, &mut player, Deed::Verify { content: true, repair: false });
    let after = stage.model.wanted();
    if let Some(sid) = wanted.difference(&after).next() {
        stage.model.wrong(format!("{} was there and wanted, and is not in the end", sid.short()));
    }
    stage.model.check_restores();
    stage.world.end(survivor);
}

fn must(stage: &Stage, player: &mut Player<'_>, deed: Deed) {
    judge(stage, deed, player.act(deed));
}

fn judge(stage: &Stage, deed: Deed, outcome: Result<String>) {
    match outcome {
        Err(e) => stage.model.wrong(format!("in the end {deed:?} fails: {e}")),
        // What was damaged is mended by the first ones.
        Ok(done)
            if !done.contains("Done")
                && stage.configured().len() >= stage.plan.copies_min
                && !matches!(deed, Deed::Verify { repair: true, .. }) =>
        {
            stage.model.wrong(format!("in the end {deed:?}: {done}"));
        }
        Ok(_) => {}
    }
}

/// What was begun with the regions is done, and those that lost something are filled. Says whether nothing is left.
fn settle(stage: &Stage, player: &mut Player<'_>) -> bool {
    let mut all = true;
    if let Err(e) = player.settle() {
        stage.world.tell(|| format!("not settled: {e}"));
    }
    for region in stage.configured() {
        if player.is_out(region) {
            stage.configure(region, false);
            continue;
        }
        let needs = match player.open() {
            Ok(repo) => {
                let name = super::model::NAMES[region];
                (0..repo.regions.len())
                    .find(|ix| repo.regions.region(*ix).name == name)
                    .is_some_and(|ix| !repo.writable().has(ix))
            }
            Err(e) => {
                stage.model.wrong(format!("in the end nobody can open the repository: {e}"));
                return false;
            }
        };
        if needs && let Err(e) = player.region_repair(region) {
            stage.world.tell(|| format!("region {region} stays as it is: {e}"));
            all = false;
        }
    }
    all
}

/// The smallest history that still fails, and what fails in it.
pub fn explain(outcome: Outcome) -> String {
    let seed = outcome.plan.to_string();
    let first = outcome.wrong.first().cloned().unwrap_or_default();
    let smaller = shrink(outcome);
    let again = run(&smaller.plan, true);
    let tail: Vec<String> = again.told.iter().rev().take(60).rev().cloned().collect();
    format!(
        "seed {seed}: {first}\nsmallest: HOLDFAST_SIMULATE={} ({} calls, {} faults)\n{:#?}\nlast calls:\n{}",
        smaller.plan,
        smaller.figures.steps,
        smaller.plan.faults.len(),
        again.wrong,
        tail.join("\n")
    )
}

/// What kind of failure it is: its first words.
fn kind(wrong: &[String]) -> String {
    let first = wrong.first().map_or("", |first| first.as_str());
    first.split([':', ' ']).next().unwrap_or_default().to_owned()
}

/// Leaves out whatever can be left out so that it still fails in the same way.
pub fn shrink(mut outcome: Outcome) -> Outcome {
    let wanted = kind(&outcome.wrong);
    loop {
        let smaller = outcome.plan.parts().into_iter().find_map(|part| {
            let smaller = run(&outcome.plan.less(part), false);
            (!smaller.wrong.is_empty() && kind(&smaller.wrong) == wanted).then_some(smaller)
        });
        match smaller {
            Some(smaller) => outcome = smaller,
            None => return outcome,
        }
    }
}

/// Many histories on as many threads as are asked for; figures, and every one that fails.
pub fn many(plans: Vec<Plan>) {
    let jobs: u64 = std::env::var("HOLDFAST_SIMULATE_JOBS").ok().and_then(|text| text.parse().ok()).unwrap_or(2);
    let only_first = std::env::var_os("HOLDFAST_SIMULATE_FIRST").is_some();
    let next = AtomicUsize::new(0);
    let all = Mutex::new((Figures::default(), 0u64, Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            scope.spawn(|| {
                while let Some(plan) = plans.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let outcome = run(plan, false);
                    let mut all = all.lock().expect("figures");
                    all.0.steps += outcome.figures.steps;
                    all.0.crashes += outcome.figures.crashes;
                    for (name, n) in &outcome.figures.faults {
                        *all.0.faults.entry(name).or_default() += n;
                    }
                    all.1 += u64::from(outcome.overlaps > 0);
                    if !outcome.wrong.is_empty() {
                        println!("seed {plan}: {:#?}", outcome.wrong);
                        all.2.push(plan.to_string());
                        next.fetch_max(if only_first { plans.len() } else { 0 }, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let (figures, overlaps, failed) = all.into_inner().expect("figures");
    println!(
        "{} histories, {} calls, {} crashes, {overlaps} with a prune beside somebody at work",
        plans.len(),
        figures.steps,
        figures.crashes
    );
    figures.faults.iter().for_each(|(name, n)| println!("  {n:7} {name}"));
    assert!(failed.is_empty(), "failed: {failed:?}");
}
