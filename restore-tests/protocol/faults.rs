//! What stores and strangers do. That anybody stops for ever at any step needs no fault: it just takes no further step.

use super::prune;
use super::sets::{EPOCHS, HOME, Set, each, has, one};
use super::state::{Label, Next, Scope, State};

fn push(out: &mut Next, state: State, what: &'static str, object: (char, usize), region: usize) {
    let label = Label { who: "store", number: region, what, object: Some(object), region: Some(region) };
    out.push((label, state));
}

/// What may happen next.
pub fn steps(scope: &Scope, state: &State, out: &mut Next) {
    for r in each(scope.regions) {
        pending(state, r, out);
        if state.faults.late > 0 {
            late(state, r, out);
        }
        if state.faults.junk > 0 {
            junk(state, r, out);
        }
        if state.faults.lost > 0 {
            lost(state, r, out);
        }
    }
}

/// A commit that was given up comes after all.
fn pending(state: &State, r: usize, out: &mut Next) {
    for sid in each(state.pending[r]) {
        let mut after = *state;
        after.pending[r] &= !one(sid);
        if !has(after.regions[r].outcomes(), sid) {
            after.regions[r].manifests |= one(sid);
        }
        push(out, after, "takes late the snapshot", ('s', sid), r);
    }
}

/// A duplicate of a creation, where the object is gone again; of a deletion, where it is there again.
fn late(state: &State, r: usize, out: &mut Next) {
    let mut spent = *state;
    spent.faults.late -= 1;
    let region = &state.regions[r];
    for pack in each(region.packs_deleted) {
        let mut after = spent;
        after.regions[r].packs ^= one(pack);
        push(out, after, "creates or deletes again pack", ('p', pack), r);
    }
    for pack in each(region.segments_deleted) {
        let mut after = spent;
        after.regions[r].segments ^= one(pack);
        push(out, after, "creates or deletes again the index of pack", ('p', pack), r);
    }
    for sid in each(region.manifests_deleted & !(region.outcomes() & !region.manifests)) {
        let mut after = spent;
        after.regions[r].manifests ^= one(sid);
        push(out, after, "creates or deletes again snapshot", ('s', sid), r);
    }
    for sid in each(region.sessions_deleted) {
        let mut after = spent;
        after.regions[r].sessions ^= one(sid);
        push(out, after, "creates or deletes again session", ('s', sid), r);
    }
}

/// Junk at the outcome of a session that has none, and at the next epoch's beginning.
fn junk(state: &State, r: usize, out: &mut Next) {
    let mut spent = *state;
    spent.faults.junk -= 1;
    let region = &state.regions[r];
    for sid in each(region.sessions & !region.outcomes()) {
        let mut after = spent;
        after.regions[r].junk |= one(sid);
        push(out, after, "has junk at snapshot", ('s', sid), r);
    }
    for sid in each(region.manifests & !region.forgotten & !region.unmarkable) {
        let mut after = spent;
        after.regions[r].unmarkable |= one(sid);
        push(out, after, "has junk at the marker of", ('s', sid), r);
    }
    let next = state.regions[r].newest() + 1;
    if r != HOME && next < EPOCHS && !has(region.squatted, next) {
        let mut after = spent;
        after.regions[r].squatted |= one(next);
        push(out, after, "has junk at the beginning of", ('e', next), r);
    }
}

/// An index segment is lost.
fn lost(state: &State, r: usize, out: &mut Next) {
    for pack in each(state.regions[r].segments) {
        let mut after = *state;
        after.faults.lost -= 1;
        after.regions[r].segments &= !one(pack);
        push(out, after, "loses the index of pack", ('p', pack), r);
    }
}

/// Packs that nothing needs and that would stay, after a prune.
pub fn garbage(scope: &Scope, state: &State) -> Option<Set> {
    prune::mark(scope, state, state.regions[HOME].newest()).map(|(_, list)| list)
}
