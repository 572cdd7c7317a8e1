//! Everybody else: those who forget and hold, who merge the index, who copy between regions, and who change them.

use super::actors::{Admin, Change, Copies, Forgetter, Holder, Merger, Replicator};
use super::prune::copy_epochs;
use super::rules::Rule;
use super::sets::{EPOCHS, HOME, Set, each, first, has, one};
use super::state::{Epoch, Label, Next, Scope, State};

impl Replicator {
    /// One that begins.
    pub fn begin(to: usize) -> Replicator {
        Replicator { at: Copies::Epochs, to: to as u8, ..Replicator::default() }
    }

    fn done() -> Replicator {
        Replicator { at: Copies::Done, ..Replicator::default() }
    }
}

impl Admin {
    /// One that begins.
    pub fn begin(adds: bool) -> Admin {
        Admin { at: Change::Start, adds, ..Admin::default() }
    }

    /// One that removes the second region unasked.
    pub fn lost() -> Admin {
        Admin { at: Change::Start, lost: true, ..Admin::default() }
    }
}

fn label(who: &'static str, what: &'static str, object: (char, usize), region: usize) -> Label {
    Label { who, number: 0, what, object: Some(object), region: Some(region) }
}

/// What those who forget may do next.
pub fn forget(scope: &Scope, state: &State, number: usize, out: &mut Next) {
    let Some(sid) = scope.forget[number] else { return };
    let mut push = |next: Forgetter, mut state: State, what, r| {
        state.forgetters[number] = next;
        let label = Label { number, ..label("forget", what, ('s', sid), r) };
        out.push((label, state));
    };
    let members = state.members();
    match state.forgetters[number] {
        Forgetter::Waits if has(state.any(members, |r| r.manifests), sid) => {
            if has(state.any(members, |r| r.holds), sid) {
                push(Forgetter::Done, *state, "finds a hold on", HOME);
            } else {
                push(Forgetter::Marks(members), *state, "finds no hold on", HOME);
            }
        }
        Forgetter::Marks(todo) => {
            for r in each(todo) {
                let mut after = *state;
                after.regions[r].mark(one(sid));
                let left = todo & !one(r);
                push(if left == 0 { Forgetter::Done } else { Forgetter::Marks(left) }, after, "marks", r);
            }
        }
        _ => {}
    }
}

/// What the one who holds may do next.
pub fn hold(scope: &Scope, state: &State, out: &mut Next) {
    let (sid, mut after, members) = (scope.hold, *state, state.members());
    let marked = has(state.any(members, |r| r.forgotten), sid);
    let first_hold = scope.keeps(Rule::HoldFirst);
    let (what, r) = match state.holder {
        Holder::Off | Holder::Done => return,
        Holder::Makes(todo) => {
            let r = first(todo);
            after.regions[r].holds |= one(sid);
            let left = todo & !one(r);
            after.holder = match (left, first_hold) {
                (0, true) => Holder::Looks(members),
                (0, false) => Holder::Done,
                _ => Holder::Makes(left),
            };
            if after.holder == Holder::Done {
                after.held |= one(sid);
            }
            ("makes the hold of", r)
        }
        Holder::Looks(_) if marked => {
            each(members).for_each(|r| after.regions[r].holds &= !one(sid));
            after.holder = Holder::Done;
            ("finds a marker and releases the hold of", HOME)
        }
        Holder::Looks(todo) => {
            after.holder = if first_hold { Holder::Done } else { Holder::Makes(todo) };
            if first_hold {
                after.held |= one(sid);
            }
            ("finds no marker of", HOME)
        }
    };
    out.push((label("hold", what, ('s', sid), r), after));
}

/// What the one who merges may do next.
pub fn merge(scope: &Scope, state: &State, out: &mut Next) {
    let mut after = *state;
    let region = &mut after.regions[HOME];
    let publishes_first = scope.keeps(Rule::MergePublishesFirst);
    let (what, packs) = match state.merger {
        Merger::Off | Merger::Done => return,
        Merger::Lists => {
            let packs = region.segments & region.packs;
            after.merger = match (packs, publishes_first) {
                (0, _) => Merger::Done,
                (_, true) => Merger::Publishes(packs),
                (_, false) => Merger::Drops(packs),
            };
            ("lists index runs, the first of pack", packs)
        }
        Merger::Publishes(packs) => {
            region.merged |= packs;
            after.merger = if publishes_first { Merger::Drops(packs) } else { Merger::Done };
            ("publishes a merged run, its first of pack", packs)
        }
        Merger::Drops(packs) => {
            let own = if scope.keeps(Rule::MergeDropsItsOwn) { packs } else { Set::MAX };
            region.segments_deleted |= region.segments & own;
            region.segments &= !own;
            after.merger = if publishes_first { Merger::Done } else { Merger::Publishes(packs) };
            ("deletes merged runs, the first of pack", packs)
        }
    };
    out.push((label("merge", what, ('p', first(packs)), HOME), after));
}

/// What the replicator may do next.
pub fn replicate(scope: &Scope, state: &State, out: &mut Next) {
    if let Some((label, mut after, copies)) = copy_steps(scope, state, state.replicator) {
        after.replicator = copies;
        out.push((label, after));
        // What is condemned comes along where its segment names something else too, and does not where not.
        if state.replicator.at == Copies::Epochs && copies.dead != copies.bad {
            after.replicator.dead = copies.bad;
            out.push((label, after));
        }
    }
}

/// One pass of replication.
fn copy_steps(scope: &Scope, state: &State, mut me: Replicator) -> Option<(Label, State, Replicator)> {
    let to = usize::from(me.to);
    let (from, mut after) = (1 - to, *state);
    let (what, object) = match me.at {
        Copies::Off | Copies::Done => return None,
        Copies::Epochs => {
            let (begun, ended) = (state.any(scope.regions, |r| r.begins), state.any(scope.regions, |r| r.ends));
            let undecided = each(begun & !ended).fold(0, |all, n| all | state.epochs[n].condemned);
            me.dead = state.doomed(ended);
            me.bad = me.dead | undecided;
            copy_epochs(&mut after, 1);
            me.at = Copies::Markers;
            ("copies epochs up to", ('e', state.regions[HOME].newest()))
        }
        Copies::Markers => {
            after.regions[to].mark(state.regions[from].forgotten);
            after.regions[to].holds |= state.regions[from].holds;
            me.at = Copies::Outcomes;
            ("copies markers up to", ('e', state.regions[HOME].newest()))
        }
        Copies::Outcomes => {
            me.jobs = state.regions[from].manifests & !state.regions[to].outcomes();
            me.at = Copies::Stored;
            ("lists snapshots:", ('s', first(me.jobs)))
        }
        Copies::Stored => {
            let named = (state.regions[from].index() | state.regions[to].index()) & !me.dead;
            me.there = named & state.regions[to].packs;
            me.want = named & state.regions[from].packs & !me.there;
            me.want |= named & state.regions[from].index() & !state.regions[to].index();
            me.at = if me.want == 0 { Copies::Plan } else { Copies::Packs };
            ("looks for packs:", ('p', first(me.want)))
        }
        Copies::Packs => {
            let came = me.want & (state.regions[from].packs | state.regions[to].packs);
            after.regions[to].packs |= came;
            me.there |= came;
            me.want &= me.there;
            me.at = if me.want == 0 { Copies::Plan } else { Copies::Segments };
            ("copies packs:", ('p', first(came)))
        }
        Copies::Segments => {
            after.regions[to].segments |= me.want & state.regions[from].index();
            me.want = 0;
            me.at = Copies::Plan;
            ("copies segments up to", ('e', state.regions[HOME].newest()))
        }
        Copies::Plan => {
            let marked = state.any(scope.regions, |r| r.forgotten);
            let has_all = state.chunks(state.regions[to].index() & me.there & !me.bad);
            let ready =
                |sid: &usize| state.sessions[*sid].needs & !has_all == 0 || !scope.keeps(Rule::ReplicateComplete);
            me.jobs &= !marked;
            me.jobs = each(me.jobs).filter(ready).fold(0, |all, sid| all | one(sid));
            me.at = Copies::Show;
            ("finds complete:", ('s', first(me.jobs)))
        }
        Copies::Show => {
            let sid = first(me.jobs);
            me.jobs &= !one(sid);
            if !has(state.regions[to].outcomes(), sid) && has(state.regions[from].manifests, sid) {
                after.regions[to].manifests |= one(sid);
            }
            ("shows", ('s', sid))
        }
    };
    if me.at == Copies::Show && me.jobs == 0 {
        me = Replicator::done();
    }
    Some((label("replicate", what, object, to), after, me))
}

/// What the one who changes regions may do next.
pub fn admin(scope: &Scope, state: &State, out: &mut Next) {
    let me = state.admin;
    if matches!(me.at, Change::Fill | Change::Again) {
        return fill(scope, state, out);
    }
    let mut after = *state;
    let Some((next, what, object, r)) = admin_step(scope, &mut after, me) else { return };
    after.admin = next;
    out.push((label("admin", what, object, r), after));
}

/// Copies from region to region, before the change and, where a region goes, within it.
fn fill(scope: &Scope, state: &State, out: &mut Next) {
    if let Some((label, mut after, copies)) = copy_steps(scope, state, state.admin.copies) {
        after.admin.copies = copies;
        if copies.at == Copies::Done {
            after.admin.copies = Replicator::default();
            let lacks = after.regions[1].manifests & !after.regions[HOME].outcomes();
            let lacks = lacks & !after.any(scope.regions, |r| r.forgotten);
            after.admin.at = match state.admin.at {
                Change::Fill => Change::Begin,
                _ if lacks == 0 => Change::Decide,
                // The change is begun and not decided.
                _ => Change::Refused,
            };
        }
        out.push((Label { who: "admin", ..label }, after));
    }
}

type Done = (Admin, &'static str, (char, usize), usize);

fn admin_step(scope: &Scope, state: &mut State, mut me: Admin) -> Option<Done> {
    let (newest, other) = (state.regions[HOME].newest(), 1);
    let decided = has(state.regions[HOME].ends, newest);
    let number = usize::from(me.epoch);
    Some(match me.at {
        Change::Start if !decided && me.lost && has(state.epochs[newest].members, other) => {
            state.regions[HOME].ends |= one(newest);
            (me, "decides, dooming nothing,", ('e', newest), HOME)
        }
        Change::Start if me.lost && has(state.epochs[newest].members, other) => {
            (me.epoch, me.at) = (newest as u8, Change::Begin);
            (me, "finds decided", ('e', newest), HOME)
        }
        Change::Start if !decided && scope.keeps(Rule::MembersByEpoch) => {
            (Admin { at: Change::Refused, ..Admin::default() }, "finds undecided", ('e', newest), HOME)
        }
        Change::Start => {
            (me.epoch, me.at) = (newest as u8, Change::Fill);
            me.copies = Replicator::begin(if me.adds { other } else { HOME });
            (me, "finds decided", ('e', newest), HOME)
        }
        Change::Begin if !scope.keeps(Rule::MembersByEpoch) => {
            state.epochs.iter_mut().for_each(|epoch| epoch.members |= one(other));
            (Admin { at: Change::Done, ..Admin::default() }, "lets in a region beside", ('e', newest), other)
        }
        Change::Begin if newest != number || !decided || newest + 1 >= EPOCHS => {
            (Admin { at: Change::Refused, ..Admin::default() }, "finds a newer", ('e', newest), HOME)
        }
        Change::Begin => {
            let members = if me.adds { one(HOME) | one(other) } else { one(HOME) };
            state.epochs[newest + 1] = Epoch { members, ..Epoch::default() };
            state.regions[HOME].begins |= one(newest + 1);
            (me.epoch, me.at) = (newest as u8 + 1, if me.lost { Change::List } else { Change::Copy });
            (me, "begins", ('e', newest + 1), HOME)
        }
        Change::Copy => {
            copy_epochs(state, other);
            me.at = if me.adds { Change::Decide } else { Change::List };
            (me, "copies the beginning of", ('e', number), other)
        }
        Change::List => {
            me.sessions = state.any(if me.lost { one(HOME) } else { scope.regions }, |r| r.sessions);
            me.at = Change::End;
            (me, "lists sessions in", ('e', number), other)
        }
        Change::End => {
            let goes = |sid: &usize| usize::from(state.sessions[*sid].decision) == other;
            let ends = each(me.sessions).filter(goes).fold(0, |all, sid| all | one(sid));
            // Where it decides, or, where that is asked for nothing, in every member.
            let at = if me.lost { HOME } else { other };
            if scope.keeps(Rule::RemovalEndsSessions) {
                let open = ends & !state.regions[at].outcomes() & !state.any(scope.regions, |r| r.forgotten);
                state.regions[at].tombstones |= open;
            }
            me.sessions = 0;
            me.copies = Replicator::begin(HOME);
            me.at = if scope.keeps(Rule::RemovalCopiesAgain) && !me.lost { Change::Again } else { Change::Decide };
            (me, "ends sessions that decide there in", ('e', number), other)
        }
        Change::Decide => {
            state.regions[HOME].ends |= one(number);
            let at = if me.lost { Change::Done } else { Change::CopyEnd };
            me = Admin { at, epoch: me.epoch, ..Admin::default() };
            (me, "decides", ('e', number), HOME)
        }
        Change::CopyEnd => {
            copy_epochs(state, other);
            (Admin { at: Change::Done, ..Admin::default() }, "copies the end of", ('e', number), other)
        }
        _ => return None,
    })
}
