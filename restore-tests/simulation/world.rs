//! The stores, the clock, and the turnstile before them: every call that any actor makes waits here until a seed says that
//! it is its turn. One actor runs at a time, from one call to the next, so that everything follows from the seed.

use super::fault::{Cut, Fault, Kind, On};
use super::plan::Plan;
use super::region::Region;
use super::rng::Rng;
use bytes::Bytes;
use holdfast::base::clock::Ambient;
use holdfast::base::{Cancel, TimeMs};
use holdfast::store::StoreErrorKind;
use holdfast::store::testing::{Answer, Line, StandIn};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

/// 1 December 2026.
const BEGIN_MS: i64 = 1_796_083_200_000;
/// A call that hangs is given up after this, ms.
const HANG_MS: i64 = 16 * 60_000;
/// So many calls of others are waited for before an epoch begins beside nobody.
const MEETS_STEPS: u64 = 800;

/// A call of a store.
#[derive(Debug, Clone)]
pub enum Call {
    Connect(bool),
    Create(String, Bytes),
    Replace(String, Bytes),
    Get(String, Option<Range<u64>>),
    Size(String),
    List(String),
    Delete(String),
}

/// What came of it.
enum Reply {
    Done(bool),
    Bytes(Bytes),
    Lines(Vec<Line>),
}

/// What changed in a region.
#[derive(Debug, Clone)]
pub enum Event {
    Put { region: usize, path: String, bytes: Bytes },
    Gone { region: usize, path: String },
}

impl Call {
    fn path(&self) -> &str {
        match self {
            Call::Connect(_) => "",
            Call::Create(path, _) | Call::Replace(path, _) | Call::Get(path, _) => path,
            Call::Size(path) | Call::List(path) | Call::Delete(path) => path,
        }
    }

    fn changes(&self) -> bool {
        matches!(self, Call::Create(..) | Call::Replace(..) | Call::Delete(_))
    }

    fn name(&self) -> &'static str {
        match self {
            Call::Connect(_) => "connect",
            Call::Create(..) => "create",
            Call::Replace(..) => "replace",
            Call::Get(..) => "get",
            Call::Size(_) => "size",
            Call::List(_) => "list",
            Call::Delete(_) => "delete",
        }
    }
}

impl On {
    fn meets(self, call: &Call) -> bool {
        match self {
            On::Any => true,
            On::Change => call.changes(),
            On::Create(prefix) => matches!(call, Call::Create(path, _) if path.starts_with(prefix)),
            On::Read => matches!(call, Call::Get(..) | Call::Size(_)),
            On::List => matches!(call, Call::List(_)),
            On::Delete => matches!(call, Call::Delete(_)),
        }
    }
}

/// An actor, as the turnstile sees it.
#[derive(Debug, Default)]
struct Turn {
    /// It waits before a call.
    waits: bool,
    /// It makes no further calls.
    over: bool,
    /// It sleeps until this step.
    asleep: u64,
    /// Its process died: what it still calls is not made.
    dead: bool,
    /// Its folder of local state, if it outlives a death.
    state: Option<PathBuf>,
    /// How many processes it has had.
    life: u64,
    /// Whether its process has announced a session, and shown no outcome of one since.
    session: bool,
    /// It begins no epoch before somebody else has a session, or this step.
    meets: Option<u64>,
}

/// What is made later.
struct Late {
    step: u64,
    region: usize,
    call: Call,
}

/// What was seen of a history.
#[derive(Debug, Default, Clone)]
pub struct Figures {
    pub steps: u64,
    pub crashes: u64,
    pub faults: BTreeMap<&'static str, u64>,
    /// A hash of every call and its answer.
    pub trace: u64,
}

pub struct Inner {
    rng: Rng,
    pub now: i64,
    running: Option<usize>,
    turns: Vec<Turn>,
    pub regions: Vec<Region>,
    late: Vec<Late>,
    faults: Vec<Fault>,
    liar: Option<usize>,
    meets: bool,
    pub figures: Figures,
    events: Vec<Event>,
    /// What was called, for people.
    pub told: Option<Vec<String>>,
}

pub struct World {
    inner: Mutex<Inner>,
    bells: Vec<Condvar>,
    watch: Mutex<Option<Weak<dyn Watch>>>,
}

/// Who is told of every change, before anybody makes another call.
pub trait Watch: Send + Sync {
    fn changed(&self, step: u64, event: &Event);
}

impl std::fmt::Debug for World {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("World")
    }
}

impl World {
    pub fn new(plan: &Plan, regions: usize, told: bool) -> Arc<World> {
        // The last one sees to what is left, when all others are done. Nobody has come yet.
        let turns: Vec<Turn> = (0..=plan.actors.len()).map(|_| Turn { over: true, ..Turn::default() }).collect();
        let mut all: Vec<Region> = (0..regions).map(|_| Region::default()).collect();
        all.iter_mut().take(plan.regions).for_each(|region| region.exists = true);
        let bells = turns.iter().map(|_| Condvar::new()).collect();
        let inner = Inner {
            rng: Rng::of(plan.seed, 2),
            now: BEGIN_MS,
            running: None,
            turns,
            regions: all,
            late: Vec::new(),
            faults: plan.faults.clone(),
            liar: plan.liar,
            meets: plan.meets,
            figures: Figures::default(),
            events: Vec::new(),
            told: told.then(Vec::new),
        };
        Arc::new(World { inner: Mutex::new(inner), bells, watch: Mutex::default() })
    }

    pub fn watched_by(&self, watch: Weak<dyn Watch>) {
        *self.watch.lock().unwrap_or_else(PoisonError::into_inner) = Some(watch);
    }

    pub fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says something beside the calls.
    pub fn tell(&self, what: impl FnOnce() -> String) {
        if let Some(told) = &mut self.lock().told {
            told.push(what());
        }
    }

    /// Lets somebody run, if nobody does and everybody waits.
    fn next(&self, inner: &mut Inner) {
        if inner.running.is_some() || inner.turns.iter().any(|turn| !turn.waits && !turn.over) {
            return;
        }
        let waiting: Vec<usize> = (0..inner.turns.len()).filter(|n| inner.turns[*n].waits).collect();
        let awake: Vec<usize> = waiting.iter().copied().filter(|n| inner.is_awake(*n)).collect();
        let first = waiting.iter().copied().min_by_key(|n| inner.turns[*n].asleep);
        let meets = awake.iter().copied().find(|n| inner.turns[*n].meets.is_some());
        let chosen = match meets {
            // Half of them at once, before the other's session is over.
            Some(n) if inner.rng.percent(50) => Some(n),
            _ if awake.is_empty() => first,
            _ => Some(*inner.rng.pick(&awake)),
        };
        if let Some(n) = chosen {
            inner.running = Some(n);
            self.bells[n].notify_one();
        }
    }

    /// Waits for its turn.
    fn turn<'w>(&'w self, mut inner: MutexGuard<'w, Inner>, actor: usize) -> MutexGuard<'w, Inner> {
        if inner.running == Some(actor) {
            inner.running = None;
        }
        inner.turns[actor].waits = true;
        self.next(&mut inner);
        while inner.running != Some(actor) {
            inner = self.bells[actor].wait(inner).unwrap_or_else(PoisonError::into_inner);
        }
        inner.turns[actor].waits = false;
        inner.turns[actor].meets = None;
        inner
    }

    /// An actor would rather wait: others go on.
    fn rest(&self, actor: usize, time: Duration) {
        let mut inner = self.lock();
        inner.now += time.as_millis() as i64;
        if !inner.turns[actor].dead {
            drop(self.turn(inner, actor));
        }
    }

    /// An actor waits for its first turn: nobody runs before all have come.
    pub fn begin(&self, actor: usize) {
        drop(self.turn(self.lock(), actor));
    }

    /// An actor has done everything.
    pub fn end(&self, actor: usize) {
        let mut inner = self.lock();
        inner.turns[actor].over = true;
        inner.turns[actor].waits = false;
        if inner.running == Some(actor) {
            inner.running = None;
        }
        self.next(&mut inner);
    }

    /// Takes the faults away for a while.
    pub fn hold_faults(&self) -> Vec<Fault> {
        std::mem::take(&mut self.lock().faults)
    }

    /// From now on they happen.
    pub fn let_faults(&self, faults: Vec<Fault>) {
        self.lock().faults = faults;
    }

    /// Nobody runs from now on before this one has come.
    pub fn expect(&self, actor: usize) {
        self.lock().turns[actor].over = false;
    }

    /// A process of this actor begins; if it dies, this folder may outlive it.
    pub fn alive(&self, actor: usize, state: PathBuf) {
        let mut inner = self.lock();
        let turn = &mut inner.turns[actor];
        (turn.dead, turn.state, turn.session) = (false, Some(state), false);
        turn.life += 1;
    }

    /// Who makes the call that is made now, in which of its processes.
    pub fn who(&self) -> Option<(usize, u64)> {
        let inner = self.lock();
        inner.running.map(|actor| (actor, inner.turns[actor].life))
    }

    /// Whether a process is still at work.
    pub fn is_at_work(&self, (actor, life): (usize, u64)) -> bool {
        let inner = self.lock();
        let turn = &inner.turns[actor];
        !turn.dead && !turn.over && turn.life == life
    }

    pub fn is_dead(&self, actor: usize) -> bool {
        self.lock().turns[actor].dead
    }

    /// Nothing goes wrong any more; what is late is made, and who was away is back.
    pub fn calm(&self) {
        let mut inner = self.lock();
        inner.faults.clear();
        for late in std::mem::take(&mut inner.late) {
            inner.apply(late.region, &late.call);
        }
        for region in &mut inner.regions {
            (region.down_until, region.full_until) = (0, 0);
        }
        drop(inner);
        self.watched();
    }

    /// Tells of what changed.
    fn watched(&self) {
        let (events, step) = {
            let mut inner = self.lock();
            (std::mem::take(&mut inner.events), inner.figures.steps)
        };
        let watch = self.watch.lock().unwrap_or_else(PoisonError::into_inner).clone().and_then(|watch| watch.upgrade());
        if let Some(watch) = watch {
            // Who judges reads the regions too, on the thread of whoever made the call.
            tokio::task::block_in_place(|| events.iter().for_each(|event| watch.changed(step, event)));
        }
    }

    fn call(&self, actor: usize, region: usize, call: Call) -> Answer<Reply> {
        if self.lock().turns[actor].dead {
            return Err(StoreErrorKind::Failed);
        }
        let mut inner = self.lock();
        if inner.meets && On::Create("epochs/").meets(&call) && call.path().ends_with("/begin") {
            inner.turns[actor].meets = Some(inner.figures.steps + MEETS_STEPS);
        }
        let mut inner = self.turn(inner, actor);
        let answer = inner.step(actor, region, &call);
        inner.watch_session(actor, &call);
        inner.note(actor, region, &call, &answer);
        drop(inner);
        self.watched();
        answer
    }
}

impl Inner {
    /// The next one but a few who makes a call dies.
    pub fn crash_soon(&mut self) {
        let from = self.figures.steps + self.rng.below(30);
        let kind = Kind::Crash(Cut::After, true);
        self.faults.push(Fault { kind, from, on: On::Any, region: None, actor: None });
    }

    /// A region loses everything, and an empty place is there instead, or none. What is on its way to it goes nowhere.
    pub fn destroy(&mut self, region: usize, exists: bool) {
        self.regions[region].empty(exists);
        self.late.retain(|late| late.region != region);
    }

    /// Whether it may be somebody's turn.
    fn is_awake(&self, actor: usize) -> bool {
        let (turn, step) = (&self.turns[actor], self.figures.steps);
        let at_work = |(n, other): (usize, &Turn)| n != actor && other.session && !other.dead && !other.over;
        turn.asleep <= step
            && turn.meets.is_none_or(|until| until <= step || self.turns.iter().enumerate().any(at_work))
    }

    fn watch_session(&mut self, actor: usize, call: &Call) {
        if let Call::Create(path, _) = call {
            let turn = &mut self.turns[actor];
            turn.session = (turn.session || path.starts_with("sessions/")) && !path.starts_with("snapshots/");
        }
    }

    fn step(&mut self, actor: usize, region: usize, call: &Call) -> Answer<Reply> {
        self.figures.steps += 1;
        self.now += self.rng.within(1, 120) as i64;
        let due = |late: &mut Late| late.step <= self.figures.steps;
        let now: Vec<Late> = self.late.extract_if(.., due).collect();
        for late in now {
            self.apply(late.region, &late.call);
        }
        let fault = self.fault(actor, region, call);
        let Some(kind) = fault else { return self.honest(region, call) };
        *self.figures.faults.entry(kind.name()).or_default() += 1;
        if let Some(told) = &mut self.told {
            told.push(format!("      {kind:?}"));
        }
        self.faulty(kind, actor, region, call)
    }

    /// The fault that this call meets.
    fn fault(&mut self, actor: usize, region: usize, call: &Call) -> Option<Kind> {
        let step = self.figures.steps;
        let meets = |fault: &Fault| {
            let here = fault.region.is_none_or(|at| at == region) && fault.actor.is_none_or(|by| by == actor);
            fault.from <= step && here && fault.on.meets(call)
        };
        let at = self.faults.iter().position(meets)?;
        Some(self.faults.remove(at).kind)
    }

    fn faulty(&mut self, kind: Kind, actor: usize, region: usize, call: &Call) -> Answer<Reply> {
        let step = self.figures.steps;
        match kind {
            Kind::Error => return Err(StoreErrorKind::Failed),
            Kind::Throttled => return Err(StoreErrorKind::Throttled),
            Kind::Undecided => {
                self.honest(region, call)?;
                return Err(StoreErrorKind::TimedOut);
            }
            Kind::Late(after) => {
                self.now += HANG_MS;
                self.later(after, region, call);
                return Err(StoreErrorKind::TimedOut);
            }
            Kind::Twice(after) => self.later(after, region, call),
            Kind::Slow(ms) | Kind::Time(ms) => self.now += ms,
            Kind::Hang => {
                self.now += HANG_MS;
                return Err(StoreErrorKind::TimedOut);
            }
            Kind::Down(steps) => self.regions[region].down_until = step + steps,
            Kind::Full(steps) => self.regions[region].full_until = step + steps,
            Kind::Sleep(steps) => self.turns[actor].asleep = step + steps,
            Kind::Eaten => {
                let all = self.regions[region].objects.keys().filter(|path| path.starts_with("packs/"));
                if let Some(path) = all.last().cloned() {
                    self.apply(region, &Call::Delete(path));
                }
            }
            Kind::Crash(cut, state) => return self.die(cut, state, actor, region, call),
            lie => return self.lie(lie, region, call),
        }
        self.honest(region, call)
    }

    fn die(&mut self, cut: Cut, state: bool, actor: usize, region: usize, call: &Call) -> Answer<Reply> {
        self.figures.crashes += 1;
        match cut {
            Cut::Before => {}
            Cut::After => drop(self.honest(region, call)),
            Cut::Late(after) => self.later(after, region, call),
        }
        let turn = &mut self.turns[actor];
        turn.dead = true;
        if let Some(folder) = turn.state.take().filter(|_| state) {
            super::files::keep_state(&folder);
        }
        Err(StoreErrorKind::Failed)
    }

    fn later(&mut self, after: u64, region: usize, call: &Call) {
        if call.changes() {
            self.late.push(Late { step: self.figures.steps + after, region, call: call.clone() });
        }
    }

    /// Whether another region shows what was acknowledged here: without it, what is lost is lost.
    fn is_elsewhere(&self, region: usize, path: &str) -> bool {
        let told = self.regions[region].objects.get(path).map(|object| &object.told);
        let others = (0..self.regions.len()).filter(|ix| *ix != region && Some(*ix) != self.liar);
        let mut shown = others.filter_map(|ix| self.regions[ix].objects.get(path)?.shown.as_ref());
        shown.any(|bytes| Some(bytes) == told)
    }

    fn spoil(&mut self, region: usize, path: &str, shown: Option<Bytes>) {
        if self.is_elsewhere(region, path) {
            self.regions[region].spoil(self.figures.steps, path, shown);
        }
    }

    fn lie(&mut self, kind: Kind, region: usize, call: &Call) -> Answer<Reply> {
        let step = self.figures.steps;
        if self.liar != Some(region) {
            return self.honest(region, call);
        }
        match (kind, call) {
            (Kind::Lost, Call::Create(path, _)) => {
                let done = self.honest(region, call);
                self.spoil(region, path, None);
                done
            }
            (Kind::Torn(told), Call::Create(path, bytes)) => {
                let done = self.honest(region, call)?;
                self.spoil(region, path, Some(bytes.slice(..bytes.len() / 2)));
                if told { Ok(done) } else { Err(StoreErrorKind::Failed) }
            }
            (Kind::FlippedOnce, Call::Get(..)) => match self.honest(region, call)? {
                Reply::Bytes(bytes) => Ok(Reply::Bytes(self.flipped(&bytes))),
                other => Ok(other),
            },
            (Kind::Stale, Call::Get(..) | Call::Size(_)) => Err(StoreErrorKind::NotFound),
            (Kind::Short, Call::List(_)) => match self.honest(region, call)? {
                Reply::Lines(mut lines) => {
                    let kept = self.rng.below(lines.len() as u64 + 1) as usize;
                    lines.truncate(kept);
                    Ok(Reply::Lines(lines))
                }
                other => Ok(other),
            },
            (Kind::Flipped | Kind::Swapped, _) => {
                self.spoil_one(kind, region);
                self.honest(region, call)
            }
            (Kind::Power(steps) | Kind::Yesterday(steps), _) => {
                let paths: Vec<String> = self.regions[region].objects.keys().cloned().collect();
                let kept = paths.into_iter().filter(|path| !self.is_elsewhere(region, path)).collect();
                self.regions[region].roll_back(step.saturating_sub(steps), &kept);
                self.honest(region, call)
            }
            _ => self.honest(region, call),
        }
    }

    fn flipped(&mut self, bytes: &Bytes) -> Bytes {
        let mut bytes = bytes.to_vec();
        let at = self.rng.below(bytes.len() as u64) as usize;
        if let Some(byte) = bytes.get_mut(at) {
            *byte ^= 1 << self.rng.below(8);
        }
        bytes.into()
    }

    /// Spoils a pack, a segment or a snapshot.
    fn spoil_one(&mut self, kind: Kind, region: usize) {
        let folder = *self.rng.pick(&["packs/", "packs/", "index/", "snapshots/"]);
        let all: Vec<String> =
            self.regions[region].objects.keys().filter(|path| path.starts_with(folder)).cloned().collect();
        if all.is_empty() {
            return;
        }
        let (path, other) = (self.rng.pick(&all).clone(), self.rng.pick(&all).clone());
        let shown = |path: &str| self.regions[region].objects.get(path).and_then(|object| object.shown.clone());
        let (here, there) = (shown(&path), shown(&other));
        let spoilt = match (kind, here) {
            (Kind::Swapped, _) => there,
            (_, Some(bytes)) => Some(self.flipped(&bytes)),
            (_, None) => None,
        };
        self.spoil(region, &path, spoilt);
    }

    /// Makes a call as it should be made.
    fn honest(&mut self, region: usize, call: &Call) -> Answer<Reply> {
        let step = self.figures.steps;
        let at = &mut self.regions[region];
        if step < at.down_until {
            return Err(StoreErrorKind::Unreachable);
        }
        if !at.exists {
            if !matches!(call, Call::Connect(true)) {
                return Err(StoreErrorKind::NotFound);
            }
            at.exists = true;
        }
        if step < at.full_until && matches!(call, Call::Create(..) | Call::Replace(..)) {
            return Err(StoreErrorKind::Full);
        }
        match call {
            Call::Connect(_) => Ok(Reply::Done(true)),
            Call::Create(..) | Call::Replace(..) | Call::Delete(_) => Ok(Reply::Done(self.apply(region, call))),
            Call::Get(path, range) => part(at.get(path)?, range.clone()).map(Reply::Bytes),
            Call::Size(path) => at.get(path).map(|bytes| Reply::Bytes(bytes.slice(..))),
            Call::List(folder) => Ok(Reply::Lines(at.list(folder))),
        }
    }

    /// Makes a change; says whether it changed anything.
    fn apply(&mut self, region: usize, call: &Call) -> bool {
        let (step, now) = (self.figures.steps, self.now);
        let at = &mut self.regions[region];
        if !at.exists {
            return false;
        }
        let event = match call {
            Call::Create(path, bytes) => {
                let created = at.create((step, now), path, bytes);
                created.then(|| Event::Put { region, path: path.clone(), bytes: bytes.clone() })
            }
            Call::Replace(path, bytes) => {
                at.replace((step, now), path, bytes);
                Some(Event::Put { region, path: path.clone(), bytes: bytes.clone() })
            }
            Call::Delete(path) => at.delete(step, path).then(|| Event::Gone { region, path: path.clone() }),
            _ => None,
        };
        let changed = event.is_some();
        self.events.extend(event);
        changed
    }

    fn note(&mut self, actor: usize, region: usize, call: &Call, answer: &Answer<Reply>) {
        let came = match answer {
            Ok(Reply::Done(done)) => format!("{done}"),
            Ok(Reply::Bytes(bytes)) => format!("{} bytes", bytes.len()),
            Ok(Reply::Lines(lines)) => format!("{} lines", lines.len()),
            Err(kind) => format!("{kind:?}"),
        };
        let line =
            format!("{:5} actor {actor} region {region} {} {} -> {came}", self.figures.steps, call.name(), call.path());
        for byte in line.bytes() {
            self.figures.trace = (self.figures.trace ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        if let Some(told) = &mut self.told {
            told.push(line);
        }
    }
}

fn part(bytes: Bytes, range: Option<Range<u64>>) -> Answer<Bytes> {
    let Some(range) = range else { return Ok(bytes) };
    let (start, end) = (range.start as usize, range.end as usize);
    if end > bytes.len() || start > end { Err(StoreErrorKind::Short) } else { Ok(bytes.slice(start..end)) }
}

/// A region, as one actor reaches it.
#[derive(Debug)]
pub struct Door {
    pub world: Arc<World>,
    pub actor: usize,
    pub region: usize,
}

impl Door {
    fn call(&self, call: Call) -> Answer<Reply> {
        self.world.call(self.actor, self.region, call)
    }

    fn done(&self, call: Call) -> Answer<bool> {
        Ok(matches!(self.call(call)?, Reply::Done(true)))
    }

    fn bytes(&self, call: Call) -> Answer<Bytes> {
        match self.call(call)? {
            Reply::Bytes(bytes) => Ok(bytes),
            _ => Err(StoreErrorKind::Failed),
        }
    }
}

impl StandIn for Door {
    fn connect(&self, create: bool) -> Answer<()> {
        self.done(Call::Connect(create)).map(drop)
    }

    fn create(&self, path: &str, bytes: &Bytes) -> Answer<bool> {
        self.done(Call::Create(path.to_owned(), bytes.clone()))
    }

    fn replace(&self, path: &str, bytes: &Bytes) -> Answer<()> {
        self.done(Call::Replace(path.to_owned(), bytes.clone())).map(drop)
    }

    fn get(&self, path: &str, range: Option<Range<u64>>) -> Answer<Bytes> {
        self.bytes(Call::Get(path.to_owned(), range))
    }

    fn size(&self, path: &str) -> Answer<u64> {
        self.bytes(Call::Size(path.to_owned())).map(|bytes| bytes.len() as u64)
    }

    fn list(&self, folder: &str) -> Answer<Vec<Line>> {
        match self.call(Call::List(folder.to_owned()))? {
            Reply::Lines(lines) => Ok(lines),
            _ => Err(StoreErrorKind::Failed),
        }
    }

    fn delete(&self, path: &str) -> Answer<()> {
        self.done(Call::Delete(path.to_owned())).map(drop)
    }

    fn pause(&self, time: Duration) {
        self.world.lock().now += time.as_millis() as i64;
    }
}

/// A region as it is, for who judges: nothing goes wrong, and it is nobody's turn. What was acknowledged is there.
#[derive(Debug)]
pub struct Window {
    pub world: Arc<World>,
    pub region: usize,
    /// Rather what is shown.
    pub shown: bool,
}

impl Window {
    fn bytes(&self, path: &str) -> Answer<Bytes> {
        let inner = self.world.lock();
        let region = &inner.regions[self.region];
        match region.objects.get(path) {
            Some(object) if !self.shown => Ok(object.told.clone()),
            _ => region.get(path),
        }
    }
}

impl StandIn for Window {
    fn connect(&self, _: bool) -> Answer<()> {
        if self.world.lock().regions[self.region].exists { Ok(()) } else { Err(StoreErrorKind::NotFound) }
    }

    fn create(&self, _: &str, _: &Bytes) -> Answer<bool> {
        Err(StoreErrorKind::Denied)
    }

    fn replace(&self, _: &str, _: &Bytes) -> Answer<()> {
        Err(StoreErrorKind::Denied)
    }

    fn get(&self, path: &str, range: Option<Range<u64>>) -> Answer<Bytes> {
        part(self.bytes(path)?, range)
    }

    fn size(&self, path: &str) -> Answer<u64> {
        Ok(self.bytes(path)?.len() as u64)
    }

    fn list(&self, folder: &str) -> Answer<Vec<Line>> {
        let inner = self.world.lock();
        let region = &inner.regions[self.region];
        if self.shown {
            return Ok(region.list(folder));
        }
        let below = format!("{folder}/");
        let all = region.objects.range(below.clone()..).take_while(|(path, _)| path.starts_with(&below));
        let line = |(path, object): (&String, &super::region::Object)| Line {
            path: path.clone(),
            size: object.told.len() as u64,
            modified: object.modified,
        };
        Ok(all.map(line).collect())
    }

    fn delete(&self, _: &str) -> Answer<()> {
        Err(StoreErrorKind::Denied)
    }

    fn pause(&self, _: Duration) {}
}

/// Clock and random numbers of an actor.
pub struct Machine {
    world: Arc<World>,
    actor: Option<usize>,
    skew: i64,
    random: Mutex<Rng>,
}

impl Machine {
    pub fn new(world: &Arc<World>, seed: u64, actor: Option<usize>, skew: i64) -> Machine {
        let number = actor.map_or(999, |actor| 1000 + actor as u64);
        Machine { world: Arc::clone(world), actor, skew, random: Mutex::new(Rng::of(seed, number)) }
    }
}

impl Ambient for Machine {
    fn now(&self) -> TimeMs {
        TimeMs(self.world.lock().now + self.skew)
    }

    fn steady(&self) -> i64 {
        self.world.lock().now
    }

    fn wait(&self, cancel: &Cancel, time: Duration) -> holdfast::error::Result<()> {
        if let Some(actor) = self.actor {
            self.world.rest(actor, time);
        }
        cancel.check()
    }

    fn random(&self, out: &mut [u8]) -> holdfast::error::Result<()> {
        self.random.lock().unwrap_or_else(PoisonError::into_inner).fill(out);
        Ok(())
    }
}
