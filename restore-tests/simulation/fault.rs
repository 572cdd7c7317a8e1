//! What can go wrong between the program and a store.

use super::rng::Rng;

/// How a process ends in the middle of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// The call was not made.
    Before,
    /// It was made, and nobody heard of it.
    After,
    /// It is made later.
    Late(u64),
}

/// A fault. Calls count as steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The call fails, and was not made.
    Error,
    /// The store asks to be left alone.
    Throttled,
    /// It was made, and fails.
    Undecided,
    /// It fails after a long time, and is made so many steps later.
    Late(u64),
    /// It is made, and once more so many steps later.
    Twice(u64),
    /// It takes so long, ms.
    Slow(i64),
    /// It hangs until it is given up.
    Hang,
    /// The region does not answer for so many steps.
    Down(u64),
    /// It is full for so many steps.
    Full(u64),
    /// Whoever makes the call sleeps for so many steps.
    Sleep(u64),
    /// Whoever makes the call dies; whether the folder of local state outlives it.
    Crash(Cut, bool),
    /// So much time passes, ms.
    Time(i64),
    // From here on the store lies: only a region does that of which the others can make up for it.
    /// Acknowledged, and not there.
    Lost,
    /// Half of it is there; acknowledged or not.
    Torn(bool),
    /// Bytes that are read have a flipped bit, once.
    FlippedOnce,
    /// A bit flips for good in one object.
    Flipped,
    /// Another object of the same kind stands there.
    Swapped,
    /// What is there is not found, once.
    Stale,
    /// A listing lacks what is there, without a word.
    Short,
    /// The power fails: what was stored in the last so many steps is gone, acknowledged or not.
    Power(u64),
    /// The region is as it was so many steps ago.
    Yesterday(u64),
    /// A pack is removed as if somebody had decided it: what no store does, and no model may overlook.
    Eaten,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::Error => "error",
            Kind::Throttled => "throttled",
            Kind::Undecided => "made, then an error",
            Kind::Late(_) => "late",
            Kind::Twice(_) => "twice",
            Kind::Slow(_) => "slow",
            Kind::Hang => "hang",
            Kind::Down(_) => "region down",
            Kind::Full(_) => "region full",
            Kind::Sleep(_) => "sleep",
            Kind::Crash(Cut::Before, _) => "crash before a call",
            Kind::Crash(Cut::After, _) => "crash after a call",
            Kind::Crash(Cut::Late(_), _) => "crash, and the call is made later",
            Kind::Time(_) => "time passes",
            Kind::Lost => "acknowledged and lost",
            Kind::Torn(_) => "torn write",
            Kind::FlippedOnce => "bit flipped on the way",
            Kind::Flipped => "bit flipped",
            Kind::Swapped => "objects swapped",
            Kind::Stale => "stale read",
            Kind::Short => "short listing",
            Kind::Power(_) => "power failure",
            Kind::Yesterday(_) => "rolled back",
            Kind::Eaten => "eaten",
        }
    }
}

/// Which calls a fault waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum On {
    Any,
    /// That change something.
    Change,
    Create(&'static str),
    Read,
    List,
    Delete,
}

/// A fault that waits for its call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    pub kind: Kind,
    /// The first call from this step on
    pub from: u64,
    /// of this kind,
    pub on: On,
    /// in this region, if one is named,
    pub region: Option<usize>,
    /// by this actor, if one is named.
    pub actor: Option<usize>,
}

/// Where writers are that prune may meet.
const MOMENTS: [On; 7] = [
    On::Create("sessions/"),
    On::Create("packs/"),
    On::Create("index/"),
    On::Create("snapshots/"),
    On::Create("forgotten/"),
    On::Create("epochs/"),
    On::Delete,
];

/// Any fault of a store that keeps its word.
pub fn honest(rng: &mut Rng, steps: u64, regions: usize) -> Fault {
    let from = rng.below(steps);
    let region = Some(rng.below(regions as u64) as usize);
    let minutes = |rng: &mut Rng, most: u64| rng.within(1, most) as i64 * 60_000;
    let later = rng.within(1, 150);
    let (kind, on, region) = match rng.below(15) {
        0 => (Kind::Error, On::Any, None),
        1 => (Kind::Error, *rng.pick(&[On::Read, On::List]), None),
        2 => (Kind::Error, *rng.pick(&MOMENTS), None),
        3 => (Kind::Undecided, On::Change, None),
        4 => (Kind::Undecided, *rng.pick(&MOMENTS), None),
        5 => (Kind::Late(later), *rng.pick(&MOMENTS), None),
        6 => (Kind::Twice(later), *rng.pick(&MOMENTS), None),
        7 => (Kind::Slow(minutes(rng, 30)), On::Any, None),
        8 => (*rng.pick(&[Kind::Hang, Kind::Throttled]), On::Any, None),
        9 => (Kind::Down(rng.within(5, 150)), On::Any, region),
        10 => (Kind::Full(rng.within(5, 100)), On::Change, region),
        11 | 12 => (Kind::Sleep(rng.within(10, 300)), *rng.pick(&MOMENTS), None),
        13 => (Kind::Time(minutes(rng, 3 * 24 * 60)), On::Any, None),
        _ => (Kind::Sleep(rng.within(10, 300)), On::Any, None),
    };
    Fault { kind, from, on, region, actor: None }
}

/// A death.
pub fn crash(rng: &mut Rng, steps: u64) -> Fault {
    let cut = match rng.below(4) {
        0 => Cut::Before,
        1 => Cut::Late(rng.within(1, 200)),
        _ => Cut::After,
    };
    let on = if rng.percent(50) { On::Any } else { On::Change };
    Fault { kind: Kind::Crash(cut, rng.percent(70)), from: rng.below(steps), on, region: None, actor: None }
}

/// Any fault of a store that does not keep its word.
pub fn lie(rng: &mut Rng, steps: u64, region: usize) -> Fault {
    let copied = [On::Create("packs/"), On::Create("index/"), On::Create("snapshots/"), On::Create("forgotten/")];
    let (kind, on) = match rng.below(10) {
        0 | 1 => (Kind::Lost, *rng.pick(&copied[..3])),
        2 => (Kind::Torn(rng.percent(50)), *rng.pick(&copied[..3])),
        3 => (Kind::FlippedOnce, On::Read),
        4 | 5 => (Kind::Flipped, On::Any),
        6 => (Kind::Swapped, On::Any),
        7 => (Kind::Stale, On::Read),
        8 => (Kind::Power(rng.within(5, 60)), On::Any),
        _ => (Kind::Short, On::List),
    };
    Fault { kind, from: rng.below(steps), on, region: Some(region), actor: None }
}
