//! What must hold in every state.

use super::actors::{Copies, Prune, PruneAt, Replicator, Script, Writer, WriterAt as At};
use super::faults::garbage;
use super::others;
use super::prune;
use super::rules::Rule;
use super::sets::{EPOCHS, HOME, Set, each, first, has, one};
use super::state::{Faults, Next, Scope, State};
use super::writer;

/// Most steps that anybody takes alone.
const ALONE_STEPS_MAX: usize = 200;

/// Notes what was decided once.
pub fn remember(state: &mut State) {
    for sid in 0..state.sessions.len() {
        let region = &state.regions[usize::from(state.sessions[sid].decision)];
        state.was_ended |= region.tombstones & one(sid);
        state.was_committed |= region.manifests & one(sid);
    }
}

/// What does not hold.
pub fn broken(scope: &Scope, state: &State) -> Option<String> {
    complete(scope, state)
        .or_else(|| outcomes(scope, state))
        .or_else(|| epochs(scope, state))
        .or_else(|| scope.alone.then(|| alone(scope, state)).flatten())
}

/// What a region shows, and what is held, rests on packs that are there, named, and not doomed.
fn complete(scope: &Scope, state: &State) -> Option<String> {
    let doomed = state.doomed(state.regions[HOME].ends);
    for r in each(scope.regions) {
        let region = &state.regions[r];
        let mut there = region.packs;
        if !scope.lossy {
            there &= region.index();
        }
        // A region that is no member shows what it has; nothing is deleted there.
        if has(state.members(), r) {
            there &= !doomed;
        }
        let chunks = state.chunks(there);
        for sid in each(region.manifests & (!region.forgotten | state.held)) {
            let lacking = state.sessions[sid].needs & !chunks;
            if lacking != 0 {
                let name = ['A', 'B'][r];
                return Some(format!("region {name} shows s{sid}, and has no good copy of chunk c{}", first(lacking)));
            }
        }
    }
    None
}

/// A decision is for ever; what was committed is there until it is forgotten; what is held is there.
fn outcomes(scope: &Scope, state: &State) -> Option<String> {
    let both = state.was_ended & state.was_committed;
    if both != 0 {
        return Some(format!("the outcome of s{} changed", first(both)));
    }
    let shown = state.any(scope.regions, |r| r.manifests);
    let forgotten = state.any(scope.regions, |r| r.forgotten);
    let said = |(writer, script): (&Writer, &Script)| {
        let made = writer.at == At::Done && script.repacks.is_none();
        if made { one(script.sids[usize::from(writer.turn)]) } else { 0 }
    };
    let said = state.writers.iter().zip(&scope.scripts).fold(0, |all, one| all | said(one));
    if said & !state.was_committed != 0 {
        return Some(format!("a writer says that it made s{}, and it did not", first(said & !state.was_committed)));
    }
    // That it goes with its marker is no news where markers may go; that it comes back is.
    let lost = if scope.keeps(Rule::MarkersStay) { state.was_committed & !shown & !forgotten } else { 0 };
    let vanished = lost | state.held & !shown;
    if vanished != 0 {
        return Some(format!("s{} is gone", first(vanished)));
    }
    // What was made in a region that is no member any more is in a member.
    let members = state.members();
    if members != 0 && has(state.regions[HOME].ends, state.regions[HOME].newest()) {
        let outside = |sid: &usize| !has(members, usize::from(state.sessions[*sid].decision));
        // Who met an end in a member went on under another id.
        let ended = state.any(members, |r| r.tombstones) & !said;
        // Of a region that is lost for ever nobody can save what it alone knew.
        let known = state.any(members, |r| r.sessions | r.sessions_deleted);
        let unknown = if scope.start.admin.lost { !known } else { 0 };
        let kept = state.any(members, |r| r.manifests) | forgotten | ended | unknown;
        let left = each(state.was_committed & !kept).find(outside);
        return left.map(|sid| format!("s{sid} was made in a region that is no member any more, and no member has it"));
    }
    None
}

/// At most the newest epoch is undecided, and nothing is doomed that was not condemned.
fn epochs(scope: &Scope, state: &State) -> Option<String> {
    let home = &state.regions[HOME];
    let open = home.begins & !home.ends;
    if open & !one(home.newest()) != 0 {
        return Some(format!("epoch e{} is undecided, and not the newest", first(open)));
    }
    // Where lists may change, that they do is no news.
    let ended = if scope.keeps(Rule::AdoptBegin) { home.ends } else { 0 };
    let wild = each(ended).find(|n| state.epochs[*n].doomed & !state.epochs[*n].condemned != 0);
    wild.map(|n| format!("e{n} dooms what it did not condemn"))
}

/// Everybody else is dead, and nothing fails any more.
fn alone(scope: &Scope, state: &State) -> Option<String> {
    for (number, script) in scope.scripts.iter().enumerate() {
        if let Some(what) = starved(scope, state, number, script) {
            return Some(what);
        }
    }
    let mut state = State {
        faults: Faults::default(),
        pending: [0; 2],
        writers: Default::default(),
        prunes: Default::default(),
        forgetters: Default::default(),
        holder: Default::default(),
        merger: Default::default(),
        admin: Default::default(),
        replicator: Replicator::default(),
        ..*state
    };
    if state.regions[HOME].newest() + 2 >= EPOCHS {
        return None;
    }
    for _ in 0..2 {
        // A second copy goes once the first one is in every region.
        let members = state.members();
        for to in each(members).filter(|_| members.count_ones() > 1) {
            state.replicator = Replicator::begin(to);
            run(&mut state, |state, out| others::replicate(scope, state, out));
            debug_assert_eq!(state.replicator.at, Copies::Done);
        }
        state.prunes[0] = Prune::begin();
        run(&mut state, |state, out| prune::steps(scope, state, 0, out));
        if state.prunes[0].at != PruneAt::Done {
            return Some("a prune by the only survivor does not come to its end".to_owned());
        }
    }
    left_over(scope, &state)
}

fn left_over(scope: &Scope, state: &State) -> Option<String> {
    let doomed = state.doomed(state.regions[HOME].ends);
    let members = state.members();
    let list = garbage(scope, state);
    let dead = state.any(members, |r| (r.packs | r.index()) & doomed) | list.unwrap_or(Set::MAX);
    if dead != 0 {
        return Some(format!("two prunes by the only survivor leave pack p{}", first(dead)));
    }
    let marked = state.all(members, |r| r.forgotten) & !state.any(members, |r| r.holds);
    let shown = state.any(members, |r| r.manifests) & marked;
    (shown != 0).then(|| format!("two prunes by the only survivor leave forgotten s{}", first(shown)))
}

/// A writer that works alone makes its snapshot, with two further sessions at most: one that finds what it rests on bad,
/// and one that stores that again.
fn starved(scope: &Scope, state: &State, number: usize, script: &Script) -> Option<String> {
    let me = state.writers[number];
    let further = script.sids.len().saturating_sub(usize::from(me.turn) + 1);
    if !me.is_live() || script.repacks.is_some() || further < 2 || me.stored() >= script.packs.len() {
        return None;
    }
    let mut after = State { faults: Faults::default(), ..*state };
    run(&mut after, |state, out| writer::steps(scope, state, number, out));
    let done = after.writers[number].at == At::Done;
    (!done).then(|| format!("writer {} works alone and makes no snapshot", number + 1))
}

/// Takes steps until there are none.
fn run(state: &mut State, steps: impl Fn(&State, &mut Next)) {
    let mut out = Vec::new();
    for _ in 0..ALONE_STEPS_MAX {
        out.clear();
        steps(state, &mut out);
        match out.first() {
            Some((_, after)) => *state = *after,
            None => return,
        }
    }
}
