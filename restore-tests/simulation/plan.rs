//! What is to happen in a history: it follows from the seed, and anything can be left out of it.

use super::fault::{self, Fault, Kind, On};
use super::rng::Rng;

/// What an actor does, as a process of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// Changes its files and backs them up.
    Backup {
        full: bool,
        changes: u64,
    },
    Replicate,
    /// Forgets snapshots of any source but the newest ones.
    Forget {
        keep: usize,
    },
    Verify {
        content: bool,
        repair: bool,
    },
    RepairIndex,
    /// Adds a key slot, and removes the one that it added before.
    Keys,
    /// Holds a snapshot, or ends its hold.
    Hold,
    /// Adds the spare region.
    RegionAdd,
    /// Takes a region out, which is lost or not.
    RegionRemove {
        lost: bool,
    },
    /// A region is emptied, and is filled again.
    RegionEmptied,
    /// Waits so long for who is at work, and takes them for dead after so long, seconds; writes packs anew of which more
    /// than that share is needed by nobody.
    Prune {
        wait: u64,
        dead: u64,
        repack: u8,
    },
}

#[derive(Debug, Clone)]
pub struct Actor {
    /// How far its clock is off, ms.
    pub skew: i64,
    pub deeds: Vec<Deed>,
}

#[derive(Debug, Clone)]
pub struct Plan {
    pub seed: u64,
    /// Whether anything is ever removed.
    pub prunes: bool,
    /// Whether a prune waits with its epoch until somebody else is at work.
    pub meets: bool,
    /// Regions at the begin; another one may be added.
    pub regions: usize,
    pub copies_min: usize,
    pub actors: Vec<Actor>,
    pub faults: Vec<Fault>,
    /// The only region that may lie.
    pub liar: Option<usize>,
    /// What was left out, in the numbers of the whole plan.
    pub without: Vec<Part>,
    numbers: (Vec<usize>, Vec<Vec<usize>>, Vec<usize>),
}

/// A part that can be left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Actor(usize),
    Deed(usize, usize),
    Fault(usize),
}

/// About how many calls a history has.
const STEPS: u64 = 700;

fn writes(rng: &mut Rng) -> Deed {
    match rng.below(12) {
        0 => Deed::Forget { keep: rng.within(1, 2) as usize },
        1 => Deed::Replicate,
        n => Deed::Backup { full: n == 2, changes: rng.within(0, 4) },
    }
}

fn keeps(rng: &mut Rng) -> Deed {
    match rng.below(12) {
        0 | 1 => Deed::Replicate,
        2 => Deed::Verify { content: rng.percent(30), repair: true },
        3 => Deed::Verify { content: rng.percent(30), repair: false },
        4 => Deed::Keys,
        5 => Deed::Hold,
        6 => Deed::RepairIndex,
        7 => Deed::Backup { full: false, changes: 2 },
        _ => Deed::Forget { keep: 1 },
    }
}

fn moves(rng: &mut Rng) -> Deed {
    match rng.below(4) {
        0 => Deed::RegionAdd,
        1 => Deed::RegionRemove { lost: rng.percent(40) },
        2 => Deed::RegionEmptied,
        _ => keeps(rng),
    }
}

fn prunes(rng: &mut Rng) -> Deed {
    match rng.below(10) {
        0 => Deed::Replicate,
        1..=3 => Deed::Forget { keep: 1 },
        4 => Deed::Verify { content: false, repair: true },
        _ => prune(rng),
    }
}

fn prune(rng: &mut Rng) -> Deed {
    let wait = *rng.pick(&[0, 0, 10, 60]);
    Deed::Prune { wait, dead: *rng.pick(&[1, 5, 600]), repack: *rng.pick(&[0, 20, 50, 100]) }
}

impl Plan {
    /// The same whatever is added later: what was found with a seed is found with it again.
    pub fn of(seed: u64) -> Plan {
        Plan::made(seed, &mut Rng::of(seed, 1), false)
    }

    /// One in which space is given back, too.
    pub fn with_prunes(seed: u64) -> Plan {
        Plan::made(seed, &mut Rng::of(seed, 3), true)
    }

    /// One in which a prune begins beside somebody who is at work.
    pub fn with_overlap(seed: u64) -> Plan {
        Plan { meets: true, ..Plan::made(seed, &mut Rng::of(seed, 4), true) }
    }

    /// The histories in their order: of 25 five have no prunes, and in eighteen a prune waits for somebody at work.
    pub fn nth(n: u64) -> Plan {
        let (round, at) = (n / 25, n % 25);
        match at {
            0..5 => Plan::of(round * 5 + at),
            5..7 => Plan::with_prunes(round * 2 + at - 5),
            _ => Plan::with_overlap(round * 18 + at - 7),
        }
    }

    fn made(seed: u64, rng: &mut Rng, with_prunes: bool) -> Plan {
        let regions = rng.weighed(&[(2, 1), (4, 2), (6, 3)]);
        let liar = (regions > 1 && rng.percent(30)).then(|| rng.within(1, regions as u64 - 1) as usize);
        // Where one lies the others stay as they are: they make up for it.
        let moving = liar.is_none() && rng.percent(30);
        let writers = rng.within(2, 3) as usize;
        let keepers = rng.within(1, 2) as usize;
        let pruners = if with_prunes { rng.within(1, 2) as usize } else { 0 };
        let keepers = if with_prunes { keepers - 1 } else { keepers };
        let mut actors = Vec::new();
        for n in 0..writers + keepers + pruners {
            let deed = |rng: &mut Rng| match n {
                n if n < writers => writes(rng),
                n if n >= writers + keepers => prunes(rng),
                n if moving && n == writers => moves(rng),
                _ => keeps(rng),
            };
            let mut deeds: Vec<Deed> = (0..rng.within(3, 5)).map(|_| deed(rng)).collect();
            if n == writers + keepers {
                deeds[0] = prune(rng);
            }
            if n < writers {
                deeds[0] = Deed::Backup { full: false, changes: 3 };
            }
            actors.push(Actor { skew: rng.below(4000) as i64 - 2000, deeds });
        }
        let mut faults: Vec<Fault> = (0..rng.within(1, 7)).map(|_| fault::honest(rng, STEPS, regions)).collect();
        if let Some(liar) = liar {
            faults.retain(|fault| fault.region.is_none());
            faults.extend((0..rng.within(1, 5)).map(|_| fault::lie(rng, STEPS, liar)));
        }
        if let Some(liar) = liar.filter(|_| with_prunes && rng.percent(25)) {
            let kind = Kind::Yesterday(rng.within(100, 600));
            faults.push(Fault { kind, from: rng.below(STEPS), on: On::Any, region: Some(liar), actor: None });
        }
        // One early, so that there is one in each history.
        faults.push(Fault { on: On::Any, ..fault::crash(rng, 120) });
        faults.extend((0..rng.below(3)).map(|_| fault::crash(rng, STEPS)));
        let numbers = (
            (0..actors.len()).collect(),
            actors.iter().map(|actor| (0..actor.deeds.len()).collect()).collect(),
            (0..faults.len()).collect(),
        );
        let copies_min = if regions == 1 || rng.percent(60) { 1 } else { 2 };
        let (prunes, meets) = (with_prunes, false);
        Plan { seed, prunes, meets, regions, copies_min, actors, faults, liar, without: Vec::new(), numbers }
    }

    /// The same with one fault more.
    pub fn with(mut self, fault: Fault) -> Plan {
        self.numbers.2.push(self.faults.len());
        self.faults.push(fault);
        self
    }

    /// All that can be left out, the largest first.
    pub fn parts(&self) -> Vec<Part> {
        let (actors, deeds, faults) = &self.numbers;
        let mut parts: Vec<Part> = actors.iter().map(|n| Part::Actor(*n)).collect();
        parts.extend(faults.iter().map(|n| Part::Fault(*n)));
        for (actor, own) in actors.iter().zip(deeds) {
            parts.extend(own.iter().rev().map(|n| Part::Deed(*actor, *n)));
        }
        parts
    }

    /// The same without a part.
    pub fn less(&self, part: Part) -> Plan {
        let mut plan = self.clone();
        plan.without.push(part);
        let (actors, deeds, faults) = &mut plan.numbers;
        match part {
            // It stays as somebody who does nothing, so that the others keep their numbers.
            Part::Actor(n) => {
                if let Some(at) = actors.iter().position(|own| *own == n) {
                    plan.actors[n].deeds.clear();
                    deeds.remove(at);
                    actors.remove(at);
                }
            }
            Part::Deed(n, deed) => {
                let at = actors.iter().position(|own| *own == n);
                if let Some((at, which)) = at.and_then(|at| Some((at, deeds[at].iter().position(|own| *own == deed)?)))
                {
                    plan.actors[n].deeds.remove(which);
                    deeds[at].remove(which);
                }
            }
            Part::Fault(n) => {
                if let Some(at) = faults.iter().position(|own| *own == n) {
                    plan.faults.remove(at);
                    faults.remove(at);
                }
            }
        }
        plan
    }

    /// `SEED`, `pSEED` with prunes, `oSEED` with prunes beside somebody at work; `SEED:a1,d0.2,f3`: the history of a seed without an actor, a deed of another one, a fault.
    pub fn parse(text: &str) -> Option<Plan> {
        let (seed, without) = text.split_once(':').unwrap_or((text, ""));
        let mut plan = match seed.split_at_checked(1)? {
            ("p", seed) => Plan::with_prunes(seed.parse().ok()?),
            ("o", seed) => Plan::with_overlap(seed.parse().ok()?),
            _ => Plan::of(seed.parse().ok()?),
        };
        for part in without.split(',').filter(|part| !part.is_empty()) {
            let (kind, rest) = part.split_at_checked(1)?;
            let number = |text: &str| text.parse().ok();
            plan = plan.less(match kind {
                "a" => Part::Actor(number(rest)?),
                "f" => Part::Fault(number(rest)?),
                "d" => rest.split_once('.').and_then(|(a, d)| Some(Part::Deed(number(a)?, number(d)?)))?,
                _ => return None,
            });
        }
        Some(plan)
    }
}

impl std::fmt::Display for Plan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kind = match (self.prunes, self.meets) {
            (false, _) => "",
            (true, false) => "p",
            (true, true) => "o",
        };
        write!(f, "{kind}{}", self.seed)?;
        for (n, part) in self.without.iter().enumerate() {
            let mark = if n == 0 { ':' } else { ',' };
            match part {
                Part::Actor(n) => write!(f, "{mark}a{n}")?,
                Part::Deed(a, d) => write!(f, "{mark}d{a}.{d}")?,
                Part::Fault(n) => write!(f, "{mark}f{n}")?,
            }
        }
        Ok(())
    }
}
