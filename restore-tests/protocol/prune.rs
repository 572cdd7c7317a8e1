//! A prune, step by step. Marking reads the whole repository; only its second time must be right, so the first is one
//! step and the second one step a region.

use super::actors::{Prune, PruneAt as At};
use super::rules::Rule;
use super::sets::{EPOCHS, HOME, Set, each, first, has, one};
use super::state::{Epoch, Label, Next, Region, Scope, State};

impl Prune {
    /// A prune that begins.
    pub fn begin() -> Prune {
        Prune { at: At::Start, ..Prune::default() }
    }

    fn end(at: At) -> Prune {
        Prune { at, ..Prune::default() }
    }
}

/// Packs that are dead by what was read when this epoch was the newest.
fn dead(state: &State, epoch: usize) -> Set {
    let known = (0..=epoch).fold(0, |all, n| all | one(n));
    state.doomed(state.regions[HOME].ends & known)
}

/// Packs that a region names and has, less the doomed.
fn good(scope: &Scope, state: &State, epoch: usize, r: usize) -> Set {
    let region = &state.regions[r];
    let doomed = if scope.keeps(Rule::DoomedGone) { dead(state, epoch) } else { 0 };
    region.packs & region.index() & !doomed
}

/// What a first mark finds after this epoch: the roots, and the packs that may go. `None`: it has to stop.
pub fn mark(scope: &Scope, state: &State, epoch: usize) -> Option<(Set, Set)> {
    let members = state.epochs[epoch].members & if scope.keeps(Rule::EveryMember) { Set::MAX } else { one(HOME) };
    let (marked, held) = (state.any(members, |r| r.forgotten), state.any(members, |r| r.holds));
    let shown = if scope.keeps(Rule::RootsEverywhere) { members } else { one(HOME) };
    let roots = state.any(shown, |r| r.manifests) & (!marked | held);
    for r in each(members) {
        let lacking = state.needs(state.regions[r].manifests & roots) & !state.chunks(good(scope, state, epoch, r));
        if lacking != 0 && scope.keeps(Rule::StopUnresolved) {
            return None;
        }
    }
    let everywhere = each(members).fold(Set::MAX, |all, r| all & good(scope, state, epoch, r));
    let anywhere = each(members).fold(0, |all, r| all | good(scope, state, epoch, r));
    let kept = kept(scope, state, state.needs(roots), everywhere, anywhere);
    let known = state.any(members, |r| r.packs | r.index());
    Some((roots, known & !kept & !dead(state, epoch)))
}

/// Packs that stay: of each live chunk one copy that is in every region, or else all.
fn kept(scope: &Scope, state: &State, live: Set, everywhere: Set, anywhere: Set) -> Set {
    let enough = if scope.keeps(Rule::KeptEverywhere) { everywhere } else { anywhere };
    let dead = |pack: &usize| (state.contents[*pack] & !live).count_ones();
    let mut kept = 0;
    for chunk in each(live) {
        let copies = state.with_chunk(enough, chunk);
        let all = state.with_chunk(anywhere, chunk);
        let rest = each(copies).filter(|pack| scope.keeps(Rule::HalfLiveStays) || dead(pack) == 0);
        match rest.min_by_key(|pack| (dead(pack), *pack)) {
            Some(best) => kept |= one(best),
            None if scope.keeps(Rule::HalfLiveStays) => kept |= all,
            None => {}
        }
    }
    kept
}

struct Step<'s> {
    scope: &'s Scope,
    state: &'s State,
    number: usize,
    out: &'s mut Next,
}

/// What a prune may do next.
pub fn steps(scope: &Scope, state: &State, number: usize, out: &mut Next) {
    let me = state.prunes[number];
    let mut step = Step { scope, state, number, out };
    match me.at {
        At::Off | At::Done | At::Stopped => {}
        At::Start => step.start(me),
        At::Help => step.help(me),
        At::Mark => step.mark(me),
        At::Begin => step.begin(me),
        At::Publish => step.publish(me),
        At::CopyBegin => step.copy_begin(me),
        At::Sessions => step.sessions(me),
        At::End => step.end_session(me),
        At::Gather => step.gather(me),
        At::Markers => step.markers(me),
        At::ReadMarkers => step.read_markers(me),
        At::ReadHolds => step.read_holds(me),
        At::Look => step.look(me),
        At::Decide => step.decide(me),
        At::CopyEnd => step.copy_end(me),
        At::Drop => step.drop_something(me),
    }
}

impl Step<'_> {
    fn push(&mut self, me: Prune, mut state: State, what: &'static str, object: (char, usize), region: usize) {
        state.prunes[self.number] = me;
        let (object, region) = (Some(object), Some(region));
        self.out.push((Label { who: "prune", number: self.number, what, object, region }, state));
    }

    /// Members of an epoch, all of which must answer.
    fn members(&self, epoch: u8) -> Set {
        let asked = if self.scope.keeps(Rule::EveryMember) { Set::MAX } else { one(HOME) };
        self.state.epochs[usize::from(epoch)].members & asked
    }

    fn start(&mut self, mut me: Prune) {
        let state = *self.state;
        let home = &state.regions[HOME];
        let newest = home.newest();
        me.epoch = newest as u8;
        let members = self.members(me.epoch);
        if has(home.ends, newest) {
            let behind = each(members).filter(|r| home.begins & !state.regions[*r].begins != 0);
            me.todo = behind.fold(0, |all, r| all | one(r));
            me.at = if me.todo == 0 { At::Mark } else { At::Help };
            self.push(me, state, "finds decided epoch", ('e', newest), HOME);
        } else if self.scope.keeps(Rule::AdoptBegin) {
            self.begun(&mut me);
            self.push(me, state, "adopts undecided epoch", ('e', newest), HOME);
        } else {
            (me.epoch, me.at) = (me.epoch - 1, At::Mark);
            self.push(me, state, "overlooks undecided epoch", ('e', newest), HOME);
        }
    }

    fn help(&mut self, mut me: Prune) {
        let mut state = *self.state;
        let r = first(me.todo);
        me.todo &= !one(r);
        copy_epochs(&mut state, r);
        if me.todo == 0 {
            me.at = At::Mark;
        }
        self.push(me, state, "brings up to epoch", ('e', usize::from(me.epoch)), r);
    }

    fn mark(&mut self, mut me: Prune) {
        let state = *self.state;
        let newest = usize::from(me.epoch);
        match mark(self.scope, &state, newest) {
            None => {
                self.push(Prune::end(At::Stopped), state, "cannot resolve a chunk, and stops at", ('e', newest), HOME)
            }
            Some((_, 0)) if !self.scope.keeps(Rule::DropsAgain) => {
                self.push(Prune::end(At::Done), state, "finds nothing to condemn after", ('e', newest), HOME);
            }
            Some((_, 0)) => {
                let members = self.members(me.epoch);
                me.gone = state.all(members, |r| r.forgotten);
                me.held = state.any(members, |r| r.holds);
                (me.at, me.todo) = (At::Drop, members);
                self.settle(&mut me);
                self.push(me, state, "finds nothing to condemn after", ('e', newest), HOME);
            }
            Some((roots, list)) => {
                (me.roots, me.list, me.at) = (roots, list, At::Begin);
                each(self.members(me.epoch)).for_each(|r| me.known[r] = state.regions[r].manifests & roots);
                self.push(me, state, "marks after", ('e', newest), HOME);
            }
        }
    }

    fn begin(&mut self, mut me: Prune) {
        let mut state = *self.state;
        let number = usize::from(me.epoch) + 1;
        if number >= EPOCHS {
            return self.push(Prune::end(At::Done), state, "has no further epoch than", ('e', number - 1), HOME);
        }
        let (list_is_epoch, list) = (self.scope.keeps(Rule::ListIsEpoch), me.list);
        let lost = has(state.regions[HOME].begins, number);
        let decided = has(state.regions[HOME].ends, number);
        if !lost {
            let members = state.epochs[number - 1].members;
            let condemned = if list_is_epoch { list } else { 0 };
            state.epochs[number] = Epoch { condemned, roots: me.roots, members, doomed: 0 };
            state.regions[HOME].begins |= one(number);
        } else if !self.scope.keeps(Rule::AdoptBegin) && !decided {
            (state.epochs[number].condemned, state.epochs[number].roots) = (list, me.roots);
        }
        // The list of another was made by roots that are not known here.
        let known = if lost { Default::default() } else { me.known };
        me = Prune { epoch: number as u8, known, ..Prune::default() };
        let what = match (lost, decided) {
            (true, true) => {
                me = Prune::begin();
                "came too late, and starts over after"
            }
            (true, false) => {
                self.begun(&mut me);
                if self.scope.keeps(Rule::AdoptBegin) {
                    "came too late, and adopts"
                } else {
                    "puts its list in the place of that of"
                }
            }
            (false, _) if list_is_epoch => {
                self.begun(&mut me);
                "begins"
            }
            (false, _) => {
                (me.list, me.at) = (list, At::Publish);
                "begins without a list"
            }
        };
        self.push(me, state, what, ('e', number), HOME);
    }

    fn publish(&mut self, mut me: Prune) {
        let mut state = *self.state;
        let number = usize::from(me.epoch);
        state.epochs[number].condemned = me.list;
        me.list = 0;
        self.begun(&mut me);
        self.push(me, state, "publishes the list of", ('e', number), HOME);
    }

    /// The epoch stands at home; members may have changed with it.
    fn begun(&self, me: &mut Prune) {
        *me = Prune { epoch: me.epoch, known: me.known, ..Prune::default() };
        let changes = self.members_now(me) != self.members(me.epoch - 1);
        if changes && self.scope.keeps(Rule::ChangeIsNoList) {
            *me = Prune::end(At::Stopped);
            return;
        }
        let others = self.members_now(me) & !one(HOME);
        if self.scope.keeps(Rule::CopyFirst) && others != 0 {
            (me.at, me.todo) = (At::CopyBegin, others);
        } else {
            (me.at, me.todo) = (At::Sessions, others | one(HOME));
        }
    }

    /// Members of its own epoch, which may be one that it creates in this step: then those of the one before.
    fn members_now(&self, me: &Prune) -> Set {
        match self.members(me.epoch) {
            0 => self.members(me.epoch - 1),
            members => members,
        }
    }

    fn copy_begin(&mut self, mut me: Prune) {
        let mut state = *self.state;
        let (r, number) = (first(me.todo), usize::from(me.epoch));
        me.todo &= !one(r);
        if !has(state.regions[r].squatted, number) || self.scope.keeps(Rule::CopyPassesJunk) {
            copy_epochs(&mut state, r);
        }
        if me.todo == 0 && self.scope.keeps(Rule::CopyFirst) {
            (me.at, me.todo) = (At::Sessions, self.members(me.epoch));
        } else if me.todo == 0 {
            self.sessions_ended(&mut me);
        }
        self.push(me, state, "copies the beginning of", ('e', number), r);
    }

    fn sessions(&mut self, mut me: Prune) {
        let mut state = *self.state;
        let (r, number) = (first(me.todo), usize::from(me.epoch));
        me.todo &= !one(r);
        let (mut short, mut shortened) = (me, state);
        let older = each(state.regions[r].sessions).filter(|sid| state.sessions[*sid].epoch < me.epoch);
        me.sessions |= older.fold(0, |all, sid| all | one(sid));
        if !self.scope.keeps(Rule::SessionsStay) {
            state.regions[r].sessions &= !me.sessions;
        }
        if me.todo == 0 {
            self.listed(&mut me);
        }
        self.push(me, state, "lists the sessions before", ('e', number), r);
        if !self.scope.keeps(Rule::ListsComplete) && shortened.faults.short > 0 {
            shortened.faults.short -= 1;
            if short.todo == 0 {
                self.listed(&mut short);
            }
            self.push(short, shortened, "is shown none of the sessions before", ('e', number), r);
        }
    }

    fn open(&self, me: &Prune) -> Set {
        let state = self.state;
        let forgotten = state.any(self.scope.regions, |r| r.forgotten);
        let decided = |sid: &usize| has(state.regions[usize::from(state.sessions[*sid].decision)].outcomes(), *sid);
        each(me.sessions & !forgotten).filter(|sid| !decided(sid)).fold(0, |all, sid| all | one(sid))
    }

    fn listed(&self, me: &mut Prune) {
        if self.open(me) != 0 && self.scope.keeps(Rule::SessionsEnded) {
            me.at = At::End;
        } else {
            self.all_ended(me);
        }
    }

    fn end_session(&mut self, mut me: Prune) {
        let mut state = *self.state;
        let open = self.open(&me);
        let sid = if open == 0 { first(me.sessions) } else { first(open) };
        let r = usize::from(state.sessions[sid].decision);
        let members = self.members(me.epoch);
        let at = if has(members, r) { one(r) } else { members };
        for r in each(if open == 0 { 0 } else { at }) {
            if !has(state.regions[r].outcomes(), sid) {
                state.regions[r].tombstones |= one(sid);
            }
        }
        if open & !one(sid) == 0 {
            self.all_ended(&mut me);
        }
        self.push(me, state, "ends session", ('s', sid), r);
    }

    fn all_ended(&self, me: &mut Prune) {
        if self.scope.keeps(Rule::CopyFirst) || self.members(me.epoch) == one(HOME) {
            self.sessions_ended(me);
        } else {
            (me.at, me.todo) = (At::CopyBegin, self.members(me.epoch) & !one(HOME));
        }
    }

    fn sessions_ended(&self, me: &mut Prune) {
        let members = self.members(me.epoch);
        me.at = match (self.scope.keeps(Rule::MarkAgain), members == one(HOME)) {
            (false, _) => At::Decide,
            (true, true) => self.after_markers(),
            (true, false) => At::Gather,
        };
        if me.at == At::Decide {
            me.list = self.state.epochs[usize::from(me.epoch)].condemned;
        }
    }

    fn after_markers(&self) -> At {
        if self.scope.keeps(Rule::HoldsAfterMarkers) { At::ReadMarkers } else { At::ReadHolds }
    }

    fn gather(&mut self, mut me: Prune) {
        let state = *self.state;
        let members = self.members(me.epoch);
        me.gone = state.any(members, |r| r.forgotten);
        let lacking = each(members).filter(|r| me.gone & !state.regions[*r].forgotten != 0);
        me.todo = lacking.fold(0, |all, r| all | one(r));
        me.at = if me.todo == 0 { self.after_markers() } else { At::Markers };
        self.push(me, state, "gathers markers in", ('e', usize::from(me.epoch)), HOME);
    }

    fn markers(&mut self, mut me: Prune) {
        let mut state = *self.state;
        let r = first(me.todo);
        me.todo &= !one(r);
        state.regions[r].mark(me.gone);
        if me.todo == 0 {
            me.at = self.after_markers();
        }
        self.push(me, state, "copies markers in", ('e', usize::from(me.epoch)), r);
    }

    fn read_markers(&mut self, mut me: Prune) {
        let state = *self.state;
        let members = self.members(me.epoch);
        me.gone = if self.scope.keeps(Rule::MarkersEverywhere) {
            state.all(members, |r| r.forgotten)
        } else {
            state.any(members, |r| r.forgotten)
        };
        if self.scope.keeps(Rule::HoldsAfterMarkers) {
            me.at = At::ReadHolds;
        } else {
            self.begin_look(&mut me);
        }
        self.push(me, state, "reads markers in", ('e', usize::from(me.epoch)), HOME);
    }

    fn read_holds(&mut self, mut me: Prune) {
        let state = *self.state;
        me.held = state.any(self.members(me.epoch), |r| r.holds);
        if self.scope.keeps(Rule::HoldsAfterMarkers) {
            self.begin_look(&mut me);
        } else {
            me.at = At::ReadMarkers;
        }
        self.push(me, state, "reads holds in", ('e', usize::from(me.epoch)), HOME);
    }

    fn begin_look(&self, me: &mut Prune) {
        (me.at, me.todo) = (At::Look, self.members(me.epoch));
        (me.everywhere, me.anywhere) = (Set::MAX, 0);
    }

    fn look(&mut self, mut me: Prune) {
        let state = *self.state;
        let (r, number) = (first(me.todo), usize::from(me.epoch));
        me.todo &= !one(r);
        if r == HOME || self.scope.keeps(Rule::RootsEverywhere) {
            me.shown[r] = state.regions[r].manifests;
        }
        me.everywhere &= good(self.scope, &state, number, r);
        me.anywhere |= good(self.scope, &state, number, r);
        if me.todo == 0 {
            let new = me.shown.iter().zip(&me.known).fold(0, |all, (shown, known)| all | shown & !known);
            let live = state.needs(new & (!me.gone | me.held));
            let condemned = state.epochs[number].condemned;
            me.list = condemned & !self.needed(&me, live, condemned);
            (me.known, me.shown) = Default::default();
            (me.at, me.everywhere, me.anywhere) = (At::Decide, 0, 0);
        }
        self.push(me, state, "marks again for", ('e', number), r);
    }

    /// Condemned packs that a root needs, because nothing uncondemned that is in every region provides the chunk.
    fn needed(&self, me: &Prune, live: Set, condemned: Set) -> Set {
        let state = self.state;
        let enough = if self.scope.keeps(Rule::KeptEverywhere) { me.everywhere } else { me.anywhere };
        let mut needed = 0;
        for chunk in each(live).filter(|chunk| state.with_chunk(enough & !condemned, *chunk) == 0) {
            let copies = state.with_chunk(condemned, chunk);
            let half = |pack: &usize| !self.scope.keeps(Rule::HalfLiveStays) && state.contents[*pack] & !live != 0;
            needed |= each(copies).filter(|pack| !half(pack)).fold(0, |all, pack| all | one(pack));
        }
        needed
    }

    fn decide(&mut self, mut me: Prune) {
        let mut state = *self.state;
        let number = usize::from(me.epoch);
        let lost = has(state.regions[HOME].ends, number);
        if !lost {
            state.epochs[number].doomed = me.list;
            state.regions[HOME].ends |= one(number);
        } else if !self.scope.keeps(Rule::AdoptEnd) {
            me.own = me.list;
        }
        me.list = 0;
        let others = self.members(me.epoch) & !one(HOME);
        (me.at, me.todo) = if others == 0 { (At::Drop, one(HOME)) } else { (At::CopyEnd, others) };
        let what = if lost { "came too late to decide" } else { "decides" };
        if me.at == At::Drop {
            self.settle_in(&mut me, &state);
        }
        self.push(me, state, what, ('e', number), HOME);
    }

    fn copy_end(&mut self, mut me: Prune) {
        let mut state = *self.state;
        let (r, number) = (first(me.todo), usize::from(me.epoch));
        me.todo &= !one(r);
        copy_epochs(&mut state, r);
        if me.todo == 0 {
            (me.at, me.todo) = (At::Drop, self.members(me.epoch));
            self.settle_in(&mut me, &state);
        }
        self.push(me, state, "copies the end of", ('e', number), r);
    }

    fn settle(&self, me: &mut Prune) {
        self.settle_in(me, self.state);
    }

    /// Passes over what there is nothing to delete of.
    fn settle_in(&self, me: &mut Prune, state: &State) {
        while me.todo != 0 && self.dropping(me, state) == *state {
            self.pass_on(me);
        }
        if me.todo == 0 {
            *me = Prune::end(At::Done);
        }
    }

    fn pass_on(&self, me: &mut Prune) {
        me.dropped += 1;
        if me.dropped == 3 {
            (me.dropped, me.todo) = (0, me.todo & !one(first(me.todo)));
        }
    }

    fn drop_something(&mut self, mut me: Prune) {
        let state = self.dropping(&me, self.state);
        let (r, number) = (first(me.todo), usize::from(me.epoch));
        let what = match me.dropped {
            0 => "publishes an index without the dead after",
            1 => "deletes dead packs after",
            _ => "deletes what is over after",
        };
        self.pass_on(&mut me);
        self.settle_in(&mut me, &state);
        self.push(me, state, what, ('e', number), r);
    }

    /// One of the three deletions in a region: index first, then packs, then manifests and sessions.
    fn dropping(&self, me: &Prune, state: &State) -> State {
        let mut after = *state;
        let dead = dead(state, usize::from(me.epoch)) | me.own;
        // What every member shows the end of.
        let members = if self.scope.keeps(Rule::OverEverywhere) { self.members(me.epoch) } else { 0 };
        let over_everywhere = me.sessions & state.all(members, Region::outcomes);
        let region = &mut after.regions[first(me.todo)];
        match me.dropped {
            0 => {
                region.segments_deleted |= region.segments & dead;
                region.segments &= !dead;
                let left = region.merged & !dead;
                // Where other segments say what is left of it, it is not written anew.
                let dropped = region.merged & dead != 0 && left & !region.segments == 0;
                region.merged = if dropped && !self.scope.keeps(Rule::RewritesWhatItRemoves) { 0 } else { left };
            }
            1 => {
                region.packs_deleted |= region.packs & dead;
                region.packs &= !dead;
            }
            _ => {
                let gone = if self.scope.keeps(Rule::GoneAsRead) { me.gone } else { region.forgotten };
                let over = region.manifests & gone & !me.held;
                region.manifests_deleted |= over;
                region.manifests &= !over;
                if !self.scope.keeps(Rule::MarkersStay) {
                    region.forgotten &= !over;
                }
                if !self.scope.keeps(Rule::TombstonesStay) {
                    region.tombstones &= !me.sessions;
                }
                region.sessions_deleted |= region.sessions & over_everywhere;
                region.sessions &= !over_everywhere;
            }
        }
        after
    }
}

/// Brings a region every epoch that home has.
pub fn copy_epochs(state: &mut State, r: usize) {
    let (begins, ends) = (state.regions[HOME].begins, state.regions[HOME].ends);
    state.regions[r].begins |= begins;
    state.regions[r].ends |= ends;
}
