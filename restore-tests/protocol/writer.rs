//! A writer, step by step as `repo::session` and `ops::backup` take them; also the repacker, which is one.
//!
//! A step is one request to one region. Where the program asks all regions at once, they answer in any order.

use super::actors::{Script, Writer, WriterAt as At};
use super::rules::Rule;
use super::sets::{HOME, REGIONS, Set, each, first, has, last, newest, one};
use super::state::{Label, Next, Scope, Session, State};

const WRITER: &str = "writer";

impl Writer {
    /// A writer that begins.
    pub fn begin(script: &Script, scope_keeps_parent_now: bool) -> Writer {
        let at = if scope_keeps_parent_now || script.parent.is_none() { At::Read } else { At::Parent };
        Writer { at, todo: script.reach, ..Writer::default() }
    }

    /// Whether it still works.
    pub fn is_live(&self) -> bool {
        !matches!(self.at, At::Off | At::Done | At::Over)
    }

    /// How many packs it has stored.
    pub fn stored(&self) -> usize {
        usize::from(self.stored)
    }

    fn end(at: At) -> Writer {
        Writer { at, ..Writer::default() }
    }

    /// Which session it stays with, and says that its snapshot is made.
    fn done(&self) -> Writer {
        Writer { at: At::Done, turn: self.turn, ..Writer::default() }
    }

    /// What it must not re-use.
    fn bad(&self, scope: &Scope, state: &State) -> Set {
        let doomed = if scope.keeps(Rule::DoomedBad) { state.doomed(self.ended) } else { 0 };
        let undecided = self.begun & !self.ended;
        let lists_change = !scope.keeps(Rule::ListIsEpoch) || !scope.keeps(Rule::AdoptBegin);
        let condemned = match (scope.keeps(Rule::CondemnedBad), lists_change) {
            (false, _) => 0,
            (true, true) => self.condemned,
            (true, false) => each(undecided).fold(0, |all, n| all | state.epochs[n].condemned),
        };
        doomed | condemned
    }

    /// Whether no undecided epoch leaves the parent out of its roots.
    fn vouched(&self, scope: &Scope, state: &State, parent: usize) -> bool {
        let undecided = self.begun & !self.ended;
        !scope.keeps(Rule::ParentNamed) || each(undecided).all(|n| has(state.epochs[n].roots, parent))
    }

    /// Begins another session: with the finished work, or from the source once more.
    fn next_session(&mut self, scope: &Scope, script: &Script, goes_on: bool) {
        let turn = self.turn + u8::from(!goes_on || scope.keeps(Rule::NewIdAfterFence));
        if usize::from(turn) >= script.sids.len() || script.reach & !self.failed == 0 {
            *self = Self::end(At::Over);
            return;
        }
        let kept = if goes_on { *self } else { Writer::default() };
        *self = Writer {
            at: At::Read,
            todo: script.reach & !self.failed,
            turn,
            stored: self.stored,
            failed: self.failed,
            goes_on,
            whole: kept.whole,
            packs: kept.packs,
            complete: kept.complete & !self.failed,
            ..Writer::default()
        };
        if goes_on && self.complete == 0 {
            *self = Self::end(At::Over);
        }
    }
}

/// One writer's next steps.
struct Step<'s> {
    scope: &'s Scope,
    state: &'s State,
    number: usize,
    script: &'s Script,
    out: &'s mut Next,
}

/// What a writer may do next.
pub fn steps(scope: &Scope, state: &State, number: usize, out: &mut Next) {
    let me = state.writers[number];
    let mut step = Step { scope, state, number, script: &scope.scripts[number], out };
    match me.at {
        At::Off | At::Done | At::Over => {}
        At::Read => step.read(me),
        At::Announce => each(me.todo).for_each(|r| step.announce(me, r)),
        At::ReadAgain => step.read_again(me),
        At::GiveUp => step.give_up(me),
        At::Parent => step.parent(me),
        At::Index => step.index(me),
        At::Upload => step.upload(me),
        At::Name => step.name(me),
        At::Commit => step.commit(me),
        At::Spread => each(me.todo).for_each(|r| step.spread(me, r)),
        At::Confirm => step.confirm(me),
        At::Clear => step.clear(me),
    }
}

impl Step<'_> {
    fn sid(&self, me: &Writer) -> usize {
        self.script.sids[usize::from(me.turn)]
    }

    fn push(&mut self, me: Writer, mut state: State, what: &'static str, object: (char, usize), region: usize) {
        state.writers[self.number] = me;
        let who = if self.script.repacks.is_some() { "repacker" } else { WRITER };
        self.out.push((Label { who, number: self.number, what, object: Some(object), region: Some(region) }, state));
    }

    fn read(&mut self, mut me: Writer) {
        let mut state = *self.state;
        let r = first(me.todo);
        me.todo &= !one(r);
        let region = &state.regions[r];
        let newest = region.newest();
        me.seen[r] = newest as u8;
        me.begun |= region.begins;
        me.ended |= region.ends;
        if !self.scope.keeps(Rule::ListIsEpoch) || !self.scope.keeps(Rule::AdoptBegin) {
            me.condemned |= each(region.begins & !region.ends).fold(0, |all, n| all | state.epochs[n].condemned);
        }
        if me.todo == 0 {
            self.all_read(&mut me, &mut state);
        }
        self.push(me, state, "reads epoch", ('e', newest), r);
    }

    /// Which regions it uses, by what was read.
    fn all_read(&self, me: &mut Writer, state: &mut State) {
        let newest = newest(me.begun);
        let reach = self.script.reach & !me.failed;
        let counts = |r: usize| {
            let seen = usize::from(me.seen[r]);
            has(state.epochs[seen].members, r) && has(state.epochs[newest].members, r) && seen + 1 >= newest
        };
        let used = each(reach).filter(|r| counts(*r)).fold(0, |all, r| all | one(r));
        let used = if me.goes_on { used & me.complete } else { used };
        if used == 0 {
            *me = Writer::end(At::Over);
            return;
        }
        let decision = if self.script.second_first { last(used) } else { first(used) };
        let session = Session { needs: 0, epoch: newest as u8, decision: decision as u8 };
        state.sessions[self.sid(me)] = session;
        (me.used, me.todo, me.at) = (used, used, At::Announce);
    }

    fn announce(&mut self, mut me: Writer, r: usize) {
        let mut state = *self.state;
        let sid = self.sid(&me);
        state.regions[r].sessions |= one(sid);
        me.todo &= !one(r);
        if me.todo == 0 {
            if self.scope.keeps(Rule::SecondReading) {
                (me.at, me.todo) = (At::ReadAgain, me.used);
            } else {
                self.announced(&mut me);
            }
        }
        self.push(me, state, "announces session", ('s', sid), r);
    }

    fn read_again(&mut self, mut me: Writer) {
        let state = *self.state;
        let r = first(me.todo);
        me.todo &= !one(r);
        let newest = state.regions[r].newest();
        me.moved |= newest != usize::from(me.seen[r]);
        if me.todo == 0 {
            if me.moved {
                (me.at, me.todo) = (At::GiveUp, me.used);
            } else {
                self.announced(&mut me);
            }
        }
        self.push(me, state, "reads the epoch again:", ('e', newest), r);
    }

    /// The session stands. What it saw of single regions is not needed any more.
    fn announced(&self, me: &mut Writer) {
        me.seen = [0; REGIONS];
        let bad = self.may_not_rest_on(me);
        if me.goes_on && bad {
            (me.at, me.todo, me.moved) = (At::GiveUp, me.used, false);
            return;
        }
        match self.script.parent {
            Some(parent) if self.scope.keeps(Rule::ParentNow) && (!me.goes_on || me.whole) => {
                if me.vouched(self.scope, self.state, parent) {
                    (me.at, me.todo) = (At::Parent, self.script.reach & !me.failed);
                } else {
                    self.parent_known(me, false);
                }
            }
            _ => self.parent_known(me, me.whole),
        }
    }

    fn may_not_rest_on(&self, me: &Writer) -> bool {
        self.scope.keeps(Rule::RefreshAsksAgain) && me.packs & me.bad(self.scope, self.state) != 0
    }

    fn parent_known(&self, me: &mut Writer, stands: bool) {
        if me.goes_on && me.whole && !stands && self.scope.keeps(Rule::RefreshAsksAgain) {
            (me.at, me.todo, me.moved) = (At::GiveUp, me.used, false);
        } else if me.goes_on {
            (me.at, me.todo) = (At::Commit, 0);
        } else {
            (me.whole, me.at, me.todo, me.index) = (stands, At::Index, me.used, self.no_index());
        }
    }

    fn no_index(&self) -> Set {
        if self.scope.keeps(Rule::ReuseEverywhere) { Set::MAX } else { 0 }
    }

    fn parent(&mut self, mut me: Writer) {
        let state = *self.state;
        let (r, parent) = (first(me.todo), self.script.parent.unwrap_or(0));
        me.todo &= !one(r);
        let region = &state.regions[r];
        let before = !self.scope.keeps(Rule::ParentNow);
        let asked = if before { self.script.reach } else { me.used };
        let stands = (!has(asked, r) || has(region.manifests, parent)) && !has(region.forgotten, parent);
        if before && (!stands || me.todo == 0) {
            (me.whole, me.at, me.todo) = (stands, At::Read, self.script.reach);
        } else if !stands || me.todo == 0 {
            self.parent_known(&mut me, stands);
        }
        let what = if stands { "sees the parent stand:" } else { "sees no parent:" };
        self.push(me, state, what, ('s', parent), r);
    }

    fn index(&mut self, mut me: Writer) {
        let mut state = *self.state;
        let r = first(me.todo);
        me.todo &= !one(r);
        let region = &state.regions[r];
        let stale = if self.scope.stale_index { region.segments_deleted } else { 0 };
        let named = region.index() | stale;
        if self.scope.keeps(Rule::ReuseEverywhere) {
            me.index &= named
        } else {
            me.index |= named
        }
        if me.todo == 0 {
            self.plan(&mut me, &mut state);
        }
        let sid = self.sid(&me);
        self.push(me, state, "reads the index for session", ('s', sid), r);
    }

    /// What is re-used, and what must be stored.
    fn plan(&self, me: &mut Writer, state: &mut State) {
        let good = me.index & !me.bad(self.scope, state);
        let (wants, mut missing) = (self.script.wants, 0);
        if let Some(old) = self.script.repacks {
            if !has(good, old) {
                *me = Writer { turn: me.turn, used: me.used, at: At::GiveUp, todo: me.used, ..Writer::default() };
                return;
            }
            (missing, me.packs) = (wants, 0);
        } else {
            let parent = self.script.parent.filter(|_| me.whole);
            let taken = parent.map_or(0, |parent| state.sessions[parent].needs) & wants & state.chunks(me.index);
            for chunk in each(wants & !taken) {
                match state.with_chunk(good, chunk) {
                    0 => missing |= one(chunk),
                    packs => me.packs |= one(first(packs)),
                }
            }
        }
        (me.index, me.complete, me.at) = (0, me.used, At::Commit);
        if missing == 0 {
            return;
        }
        match self.script.packs.get(usize::from(me.stored)) {
            None => *me = Writer::end(At::Over),
            Some(pack) => {
                state.contents[*pack] = missing;
                me.stored += 1;
                let next = if self.scope.keeps(Rule::StoredFirst) { At::Upload } else { At::Commit };
                (me.packs, me.at, me.todo) = (me.packs | one(*pack), next, me.used);
            }
        }
    }

    /// The pack that it stores in this session.
    fn own_pack(&self, me: &Writer) -> usize {
        self.script.packs[usize::from(me.stored) - 1]
    }

    fn upload(&mut self, mut me: Writer) {
        let mut state = *self.state;
        let (r, pack) = (first(me.todo), self.own_pack(&me));
        me.todo &= !one(r);
        if state.faults.refused > 0 && me.used.count_ones() > 1 {
            let (mut without, mut failed) = (me, state);
            failed.faults.refused -= 1;
            without.complete &= !one(r);
            without.failed |= one(r);
            self.uploaded(&mut without);
            self.push(without, failed, "cannot store pack", ('p', pack), r);
        }
        state.regions[r].packs |= one(pack);
        self.uploaded(&mut me);
        self.push(me, state, "stores pack", ('p', pack), r);
    }

    fn uploaded(&self, me: &mut Writer) {
        if me.todo == 0 {
            (me.at, me.todo) = (At::Name, me.complete);
        }
    }

    fn name(&mut self, mut me: Writer) {
        let mut state = *self.state;
        let (r, pack) = (first(me.todo), self.own_pack(&me));
        me.todo &= !one(r);
        state.regions[r].segments |= one(pack);
        if me.todo == 0 {
            me.at = if self.scope.keeps(Rule::StoredFirst) { At::Commit } else { At::Confirm };
        }
        self.push(me, state, "publishes the index of pack", ('p', pack), r);
    }

    fn commit(&mut self, mut me: Writer) {
        let mut state = *self.state;
        let sid = self.sid(&me);
        let r = usize::from(state.sessions[sid].decision);
        if !has(me.complete, r) {
            me.next_session(self.scope, self.script, true);
            return self.push(me, state, "has lost where it decides: session", ('s', sid), r);
        }
        state.sessions[sid].needs = if self.script.repacks.is_some() { 0 } else { self.script.wants };
        if state.faults.late > 0 && self.script.repacks.is_none() {
            let (mut given_up, mut later) = (me, state);
            later.faults.late -= 1;
            later.pending[r] |= one(sid);
            given_up.failed |= one(r);
            given_up.complete &= !one(r);
            given_up.next_session(self.scope, self.script, true);
            self.push(given_up, later, "gets no answer to its commit of", ('s', sid), r);
        }
        let region = &mut state.regions[r];
        let free = !has(region.outcomes(), sid);
        let ours = free || has(region.manifests, sid) || !self.scope.keeps(Rule::CreateOnce);
        if !ours && self.scope.keeps(Rule::AnswerRead) {
            me.next_session(self.scope, self.script, true);
            return self.push(me, state, "is fenced: session", ('s', sid), r);
        }
        if !ours {
            // Nothing is written.
        } else if self.script.repacks.is_some() {
            region.records |= one(sid);
        } else {
            region.tombstones &= !one(sid);
            region.manifests |= one(sid);
        }
        let others = if self.scope.keeps(Rule::CompleteOnly) { me.complete } else { me.used };
        me.todo = others & !one(r);
        me.at = if me.todo == 0 { self.after_spread(&mut me) } else { At::Spread };
        self.push(me, state, "commits session", ('s', sid), r);
    }

    fn after_spread(&self, me: &mut Writer) -> At {
        if self.scope.keeps(Rule::StoredFirst) || me.stored == 0 {
            return At::Confirm;
        }
        me.todo = me.used;
        At::Upload
    }

    fn spread(&mut self, mut me: Writer, r: usize) {
        let mut state = *self.state;
        let sid = self.sid(&me);
        let region = &mut state.regions[r];
        me.todo &= !one(r);
        if has(region.tombstones, sid) && self.scope.keeps(Rule::EndMetFences) {
            me.next_session(self.scope, self.script, true);
            return self.push(me, state, "meets the end of session", ('s', sid), r);
        }
        if !has(region.outcomes(), sid) {
            if self.script.repacks.is_some() { region.records |= one(sid) } else { region.manifests |= one(sid) }
        }
        if me.todo == 0 {
            me.at = self.after_spread(&mut me);
        }
        self.push(me, state, "shows session", ('s', sid), r);
    }

    fn confirm(&mut self, mut me: Writer) {
        let state = *self.state;
        let sid = self.sid(&me);
        let ended = state.any(self.script.reach & !me.failed, |region| region.ends);
        if me.packs & state.doomed(ended) != 0 {
            me.next_session(self.scope, self.script, false);
            return self.push(me, state, "finds a pack doomed after committing", ('s', sid), HOME);
        }
        let clears = self.script.repacks.is_some() && !self.scope.keeps(Rule::RepackDeletesNothing);
        me = if clears { Writer { at: At::Clear, todo: me.used, ..me } } else { me.done() };
        self.push(me, state, "finds no pack doomed, and is done with", ('s', sid), HOME);
    }

    /// A repacker that breaks its rule.
    fn clear(&mut self, mut me: Writer) {
        let mut state = *self.state;
        let (r, old) = (first(me.todo), self.script.repacks.unwrap_or(0));
        me.todo &= !one(r);
        state.regions[r].packs &= !one(old);
        state.regions[r].segments &= !one(old);
        if me.todo == 0 {
            me = me.done();
        }
        self.push(me, state, "deletes the old pack", ('p', old), r);
    }

    fn give_up(&mut self, mut me: Writer) {
        let mut state = *self.state;
        let (r, sid) = (first(me.todo), self.sid(&me));
        me.todo &= !one(r);
        let region = &mut state.regions[r];
        if !has(region.outcomes(), sid) {
            region.tombstones |= one(sid);
        }
        if me.todo == 0 {
            // Too late to announce: the work goes on as it was. Otherwise it is done once more.
            let goes_on = me.goes_on && me.moved;
            me.next_session(self.scope, self.script, goes_on);
        }
        self.push(me, state, "gives up session", ('s', sid), r);
    }
}
