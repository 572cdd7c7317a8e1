//! The search: breadth first, so that the first trace found is a shortest one. Of a state that was met only a fingerprint
//! of 128 bits is kept, and where it came from.

use super::check;
use super::faults;
use super::others;
use super::prune;
use super::state::{Label, Next, Scope, State};
use super::writer;
use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hash, Hasher};

/// Two lanes, each mixed by a multiplication of 64 by 64 bits.
struct Fingerprint {
    lanes: [u64; 2],
    word: u64,
    bits: u32,
}

const KEYS: [u64; 2] = [0x9e37_79b9_7f4a_7c15, 0xd6e8_feb8_6659_fd93];

fn folded(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product >> 64) as u64 ^ product as u64
}

impl Fingerprint {
    fn of(state: &State) -> u128 {
        let mut print = Fingerprint { lanes: [KEYS[1], KEYS[0]], word: 0, bits: 0 };
        state.hash(&mut print);
        print.flush();
        let [a, b] = print.lanes;
        u128::from(folded(a ^ KEYS[0], KEYS[1])) << 64 | u128::from(folded(b ^ KEYS[1], KEYS[0]))
    }

    fn flush(&mut self) {
        for (lane, key) in self.lanes.iter_mut().zip(KEYS) {
            *lane = folded(*lane ^ self.word, key).rotate_left(23) ^ self.word.wrapping_mul(key | 1);
        }
        (self.word, self.bits) = (0, 0);
    }
}

impl Hasher for Fingerprint {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.write_u8(*byte));
    }

    fn write_u8(&mut self, byte: u8) {
        self.word |= u64::from(byte) << self.bits;
        self.bits += 8;
        if self.bits == 64 {
            self.flush();
        }
    }

    // Discriminants and lengths: both small.
    fn write_isize(&mut self, n: isize) {
        self.write_u8(n as u8);
    }

    fn write_usize(&mut self, n: usize) {
        self.write_u8(n as u8);
    }

    fn finish(&self) -> u64 {
        self.lanes[0]
    }
}

/// Fingerprints are spread already.
#[derive(Default)]
struct AsIs(u64);

impl Hasher for AsIs {
    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|byte| self.0 = self.0 << 8 | u64::from(*byte));
    }

    fn write_u128(&mut self, n: u128) {
        self.0 = n as u64;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// How a state was reached: the number of the one before, and which of its steps.
struct Reached {
    from: u32,
    step: u8,
}

/// What was found.
#[derive(Debug)]
pub struct Found {
    pub states: usize,
    pub steps: usize,
    /// The longest shortest way to a state.
    pub depth: usize,
    /// A property that does not hold, and how that comes about.
    pub broken: Option<(String, Vec<Label>)>,
    /// Whether there were more states than may be looked at.
    pub cut_off: bool,
}

/// What may happen next.
pub fn successors(scope: &Scope, state: &State, out: &mut Next) {
    out.clear();
    (0..state.writers.len()).for_each(|n| writer::steps(scope, state, n, out));
    (0..state.prunes.len()).for_each(|n| prune::steps(scope, state, n, out));
    (0..state.forgetters.len()).for_each(|n| others::forget(scope, state, n, out));
    others::replicate(scope, state, out);
    others::hold(scope, state, out);
    others::merge(scope, state, out);
    others::admin(scope, state, out);
    faults::steps(scope, state, out);
    out.iter_mut().for_each(|(_, state)| check::remember(state));
}

/// Two prunes differ in nothing but what they know: their order says nothing. Returns whether it was changed.
fn order(state: &mut State) -> bool {
    let swapped = state.prunes[0] > state.prunes[1];
    if swapped {
        state.prunes.swap(0, 1);
    }
    swapped
}

/// Looks at every state of a scope, but at most `states_max`.
pub fn explore(scope: &Scope, states_max: usize) -> Found {
    let mut seen: HashSet<u128, BuildHasherDefault<AsIs>> = HashSet::default();
    let mut ways = vec![Reached { from: 0, step: 0 }];
    let mut found = Found { states: 1, steps: 0, depth: 0, broken: None, cut_off: false };
    let (start, _) = first_state(scope);
    let (mut level, mut next, mut out) = (vec![(0u32, start)], Vec::new(), Vec::new());
    seen.insert(Fingerprint::of(&start));
    while !level.is_empty() {
        for (number, state) in level.drain(..) {
            if let Some(what) = check::broken(scope, &state) {
                found.broken = Some((what, trace(scope, &ways, number)));
                return found;
            }
            successors(scope, &state, &mut out);
            found.steps += out.len();
            for (step, (_, after)) in out.iter_mut().enumerate() {
                order(after);
                if !seen.insert(Fingerprint::of(after)) {
                    continue;
                }
                if ways.len() >= states_max {
                    found.cut_off = true;
                    return found;
                }
                next.push((ways.len() as u32, *after));
                ways.push(Reached { from: number, step: step as u8 });
            }
        }
        found.states = ways.len();
        found.depth += usize::from(!next.is_empty());
        std::mem::swap(&mut level, &mut next);
    }
    found
}

/// The steps to a state, taken once more from the start.
fn trace(scope: &Scope, ways: &[Reached], mut number: u32) -> Vec<Label> {
    let mut steps = Vec::new();
    while number != 0 {
        let way = &ways[number as usize];
        steps.push(usize::from(way.step));
        number = way.from;
    }
    let ((mut state, swapped), mut out, mut labels) = (first_state(scope), Vec::new(), Vec::new());
    let mut names = if swapped { [1, 0] } else { [0, 1] };
    for step in steps.into_iter().rev() {
        successors(scope, &state, &mut out);
        let (mut label, after) = out[step];
        if label.who == "prune" {
            label.number = names[label.number];
        }
        labels.push(label);
        state = after;
        if order(&mut state) {
            names.swap(0, 1);
        }
    }
    labels
}

/// Where a scope begins, and whether its prunes changed places.
fn first_state(scope: &Scope) -> (State, bool) {
    let mut state = scope.start;
    check::remember(&mut state);
    let swapped = order(&mut state);
    (state, swapped)
}
