//! Where the search begins, and who takes part. All at once explodes, so each scope is a combination.
//!
//! The repository at the start, unless a scope says otherwise: snapshot s0 needs chunk c0, in pack p0 beside c1, which
//! nothing needs; pack p1 has c2, which nothing needs.

use super::actors::{Admin, Forgetter, Holder, Merger, Prune, Replicator, Script, Writer};
use super::rules::Rule;
use super::sets::{HOME, Set, each};
use super::state::{Epoch, Faults, Region, Scope, Session, State};

/// Region A, which is home.
const A: Set = 0b01;
/// Region B.
const B: Set = 0b10;

const C0: Set = 0b001;
const C1: Set = 0b010;
const C2: Set = 0b100;

/// A writer without a parent; the first of two.
const WRITER: Script = Script {
    sids: &[2, 3, 4],
    packs: &[2, 3],
    wants: C0 | C2,
    parent: None,
    reach: A,
    second_first: false,
    repacks: None,
};
/// The second of two.
const SECOND: Script = Script { sids: &[5, 6, 7], packs: &[4, 5], ..WRITER };
const REPACKER: Script = Script { sids: &[5], packs: &[6], wants: C0, repacks: Some(0), ..WRITER };

/// A repository whose members have the same.
fn start(members: Set) -> State {
    let mut state = State::default();
    state.epochs[0] = Epoch { members, ..Epoch::default() };
    state.sessions[0] = Session { needs: C0, ..Session::default() };
    state.contents[0] = C0 | C1;
    state.contents[1] = C2;
    for r in each(members) {
        state.regions[r] =
            Region { begins: 1, ends: 1, manifests: 0b1, packs: 0b11, segments: 0b11, ..Region::default() };
    }
    state
}

fn scope(name: &'static str, regions: Set) -> Scope {
    Scope {
        name,
        start: start(regions),
        regions,
        scripts: [WRITER, SECOND],
        forget: [None, None],
        hold: 0,
        stale_index: false,
        lossy: false,
        alone: false,
        without: None,
    }
}

impl Scope {
    fn writers(mut self, scripts: &[Script]) -> Scope {
        for (n, script) in scripts.iter().enumerate() {
            self.scripts[n] = *script;
            self.start.writers[n] = Writer::begin(script, true);
        }
        self
    }

    fn prunes(mut self, count: usize) -> Scope {
        self.start.prunes[..count].fill(Prune::begin());
        self
    }

    fn forgets(mut self, snapshots: &[usize]) -> Scope {
        for (n, sid) in snapshots.iter().enumerate() {
            self.forget[n] = Some(*sid);
            self.start.forgetters[n] = Forgetter::Waits;
        }
        self
    }

    fn replicates(mut self, to: usize) -> Scope {
        self.start.replicator = Replicator::begin(to);
        self
    }

    fn faults(mut self, faults: Faults) -> Scope {
        self.start.faults = faults;
        self
    }

    fn change(mut self, change: impl FnOnce(&mut Scope)) -> Scope {
        change(&mut self);
        self
    }

    fn alone(self) -> Scope {
        Scope { alone: true, ..self }
    }

    /// The same, with a rule taken away.
    pub fn without(mut self, rule: Rule) -> Scope {
        self.without = Some(rule);
        for (n, script) in self.scripts.iter().enumerate() {
            if self.start.writers[n].is_live() {
                self.start.writers[n] = Writer::begin(script, self.keeps(Rule::ParentNow));
            }
        }
        if let (Holder::Makes(regions), false) = (self.start.holder, self.keeps(Rule::HoldFirst)) {
            self.start.holder = Holder::Looks(regions);
        }
        self
    }
}

/// An epoch is begun that condemns p1, and a snapshot s1 that needs it was committed late.
fn begun(scope: &mut Scope) {
    let state = &mut scope.start;
    state.epochs[1] = Epoch { condemned: 0b10, roots: 0b1, members: A, doomed: 0 };
    state.sessions[1] = Session { needs: C2, ..Session::default() };
    state.regions[HOME].begins |= 0b10;
    state.regions[HOME].manifests |= 0b10;
}

/// c0 lies in p0, which is in A alone, and in p1, which is in both.
fn two_copies(scope: &mut Scope) {
    let state = &mut scope.start;
    (state.contents[0], state.contents[1]) = (C0, C0);
    (state.regions[1].packs, state.regions[1].segments) = (0b10, 0b10);
}

/// p1 is in A alone.
fn half_there(scope: &mut Scope) {
    (scope.start.regions[1].packs, scope.start.regions[1].segments) = (0b01, 0b01);
}

/// Region B is empty and no member.
fn outside(scope: &mut Scope) {
    scope.start.regions[1] = Region::default();
    scope.start.regions[1].begins = 0;
    scope.start.epochs[0].members = A;
}

/// Only region A shows s0 and has what it needs.
fn only_in_a(scope: &mut Scope) {
    scope.start.regions[1] = Region { begins: 1, ends: 1, ..Region::default() };
}

/// One region: small enough for every change of the program.
pub fn one_region() -> Vec<Scope> {
    let parent = |script: Script, sid| Script { parent: Some(sid), ..script };
    let late = Faults { late: 1, ..Faults::default() };
    vec![
        scope("one writer, two prunes", A).writers(&[parent(WRITER, 0)]).prunes(2).forgets(&[0]),
        scope("one writer, one prune, left alone", A).writers(&[parent(WRITER, 0)]).prunes(1).forgets(&[0]).alone(),
        scope("two writers, the second on the first's snapshot", A)
            .writers(&[Script { wants: C2, ..WRITER }, Script { wants: C2, parent: Some(2), ..SECOND }])
            .prunes(1)
            .forgets(&[2])
            .change(|scope| scope.stale_index = true),
        scope("a decision between two forgets", A)
            .writers(&[Script { wants: C2, ..WRITER }])
            .prunes(2)
            .forgets(&[1])
            .change(begun),
        scope("a repacker", A).writers(&[Script { wants: C0, ..WRITER }, REPACKER]).prunes(2),
        scope("late duplicates", A).writers(&[Script { wants: C2, ..WRITER }]).prunes(2).forgets(&[2]).faults(late),
        scope("holds", A).prunes(1).forgets(&[0]).change(|scope| scope.start.holder = Holder::Makes(A)),
        scope("a merge of the index", A)
            .writers(&[WRITER])
            .prunes(1)
            .forgets(&[0])
            .change(|scope| scope.start.merger = Merger::Lists),
        scope("a lost index segment", A).prunes(1).faults(Faults { lost: 1, ..Faults::default() }).change(|scope| {
            scope.lossy = true;
        }),
        scope("a short listing", A).writers(&[WRITER]).prunes(1).faults(Faults { short: 1, ..Faults::default() }),
        scope("a writer, a repacker, two prunes and a forget", A)
            .writers(&[Script { wants: C0, ..WRITER }, REPACKER])
            .prunes(2)
            .forgets(&[0]),
    ]
}

/// Two regions: the same.
pub fn two_regions() -> Vec<Scope> {
    let parent = |script: Script, sid| Script { parent: Some(sid), ..script };
    let reach = |script: Script, reach| Script { reach, ..script };
    let late = Faults { late: 1, ..Faults::default() };
    let only = |wants: Set, script: Script| Script { wants, ..script };
    vec![
        scope("two regions", A | B).writers(&[reach(parent(WRITER, 0), A | B)]).prunes(1).forgets(&[0]),
        scope("two regions, and the new snapshot is forgotten", A | B)
            .writers(&[reach(Script { wants: C2, ..WRITER }, A | B)])
            .prunes(1)
            .forgets(&[2]),
        scope("a writer that reaches one region of two", A | B)
            .writers(&[reach(WRITER, B)])
            .prunes(1)
            .faults(Faults { junk: 1, ..Faults::default() }),
        scope("two copies in two regions", A | B).prunes(1).change(two_copies).replicates(1),
        scope("a region refuses", A | B)
            .writers(&[reach(WRITER, A | B)])
            .faults(Faults { refused: 1, ..Faults::default() })
            .change(half_there),
        scope("replication", A | B).writers(&[WRITER]).prunes(1).replicates(1).change(only_in_a),
        scope("a commit without an answer", A | B).writers(&[reach(WRITER, A | B)]).prunes(1).faults(late),
        scope("a region is added", A | B)
            .writers(&[reach(Script { wants: C2, ..WRITER }, A | B), reach(Script { wants: C2, ..SECOND }, B)])
            .prunes(1)
            .change(outside)
            .change(|scope| scope.start.admin = Admin::begin(true)),
        scope("a region is removed", A | B)
            .writers(&[reach(Script { wants: C0, ..WRITER }, B)])
            .prunes(1)
            .change(|scope| scope.start.admin = Admin::begin(false)),
        scope("a region is lost", A | B)
            .writers(&[Script { wants: C2, second_first: true, ..reach(WRITER, A | B) }])
            .prunes(1)
            .change(|scope| scope.start.admin = Admin::lost()),
        scope("junk in two regions", A | B)
            .writers(&[reach(Script { wants: C2, ..WRITER }, A | B)])
            .prunes(1)
            .forgets(&[0])
            .faults(Faults { junk: 1, ..Faults::default() }),
        scope("holds in two regions", A | B)
            .prunes(2)
            .forgets(&[0])
            .change(|scope| scope.start.holder = Holder::Makes(A | B)),
        scope("late duplicates in two regions", A | B)
            .writers(&[reach(Script { wants: C2, ..WRITER }, A | B)])
            .prunes(1)
            .forgets(&[2])
            .replicates(1)
            .faults(late),
        scope("two regions, two writers", A | B)
            .writers(&[reach(only(C2, WRITER), A | B), reach(only(C2, SECOND), B)])
            .prunes(1)
            .forgets(&[2]),
        scope("two regions, replication, a prune, a forget", A | B)
            .writers(&[reach(WRITER, A | B)])
            .prunes(1)
            .forgets(&[0])
            .replicates(1)
            .change(only_in_a),
        scope("two regions, left alone", A | B).writers(&[reach(WRITER, A | B)]).prunes(1).forgets(&[0]).alone(),
    ]
}

/// Those that take minutes.
pub fn large() -> Vec<Scope> {
    let reach = |script: Script, reach| Script { reach, ..script };
    let junk = Faults { junk: 1, ..Faults::default() };
    let only = |wants: Set, script: Script| Script { wants, ..script };
    vec![
        scope("two writers, two prunes", A)
            .writers(&[only(C2, WRITER), Script { wants: C2, parent: Some(2), ..SECOND }])
            .prunes(2)
            .forgets(&[2]),
        scope("two regions, two prunes, junk", A | B).writers(&[reach(only(C2, WRITER), A | B)]).prunes(2).faults(junk),
        scope("a region is lost beside two prunes", A | B)
            .writers(&[Script { wants: C2, second_first: true, ..reach(WRITER, A | B) }])
            .prunes(2)
            .change(|scope| scope.start.admin = Admin::lost()),
    ]
}

/// All that every change of the program is checked by.
pub fn small() -> Vec<Scope> {
    one_region().into_iter().chain(two_regions()).collect()
}
