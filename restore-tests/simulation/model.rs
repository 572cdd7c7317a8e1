//! What must hold after every change, whoever made it: judged by what the regions have acknowledged, and from outside.

use super::files::Tree;
use super::walk::{self, Needs};
use super::world::{Event, Machine, Watch, Window, World};
use bytes::Bytes;
use holdfast::base::{ChunkId, Digest, Env, Epoch, PackName, RegionId, SessionId};
use holdfast::format::envelope::Kind as ObjectKind;
use holdfast::format::objects::{EpochBegin, EpochEnd, Session, pack_list};
use holdfast::format::region::RegionMark;
use holdfast::region::Address;
use holdfast::repo::Repo;
use holdfast::repo::index::open_segment;
use holdfast::repo::open::{Opening, open};
use holdfast::store::Key;
use holdfast::store::testing::{mount, unmount};
use holdfast::unlock::Unlock;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

/// Serves all stores; nothing in it ever waits for a timer or a socket.
pub static RUNTIME: LazyLock<tokio::runtime::Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime")
});

/// Names of regions.
pub const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

/// What an index segment says, as far as it matters here.
struct Named {
    packs: Vec<PackName>,
    chunks: Vec<(ChunkId, usize)>,
}

#[derive(Default)]
struct Known {
    eyes: HashMap<(usize, bool), Arc<Repo>>,
    segments: HashMap<String, Arc<Named>>,
    needs: BTreeMap<SessionId, Arc<Needs>>,
    manifests: BTreeMap<SessionId, Digest>,
    /// By region and session.
    outcomes: BTreeMap<(usize, SessionId), Digest>,
    /// Where sessions decide.
    decides: BTreeMap<SessionId, RegionId>,
    ended: BTreeSet<(usize, SessionId)>,
    forgotten: BTreeSet<SessionId>,
    held: BTreeSet<SessionId>,
    begun: BTreeMap<Epoch, Vec<RegionId>>,
    decided: BTreeSet<Epoch>,
    doomed: HashSet<PackName>,
    /// Regions that were lost, emptied, or taken out: nothing is asked of them any more.
    out: BTreeSet<usize>,
    ids: BTreeMap<usize, RegionId>,
    /// Whatever each source held: a call that is made late may show what it was.
    sources: BTreeMap<String, Vec<Tree>>,
    wrong: Vec<String>,
    /// Sessions without an outcome, and the process that announced each.
    live: BTreeMap<SessionId, (usize, u64)>,
    /// How often a prune began an epoch with a list while somebody else was at work in a session.
    overlaps: u64,
}

pub struct Model {
    world: Arc<World>,
    number: u64,
    key: [u8; 32],
    liar: Option<usize>,
    known: Mutex<Known>,
}

fn place(number: u64, region: usize, shown: bool) -> String {
    format!("/simulated/{number}/{}/{}", if shown { "shown" } else { "told" }, NAMES[region])
}

impl Model {
    pub fn new(world: &Arc<World>, number: u64, key: [u8; 32], liar: Option<usize>, regions: usize) -> Arc<Model> {
        for region in 0..regions {
            for shown in [false, true] {
                let window = Window { world: Arc::clone(world), region, shown };
                mount(&place(number, region, shown).into(), Arc::new(window));
            }
        }
        Arc::new(Model { world: Arc::clone(world), number, key, liar, known: Mutex::default() })
    }

    pub fn over(&self, regions: usize) {
        for region in 0..regions {
            [false, true].iter().for_each(|shown| unmount(&place(self.number, region, *shown).into()));
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something that must never be.
    pub fn wrong(&self, what: impl Into<String>) {
        let what = what.into();
        self.world.tell(|| format!("WRONG {what}"));
        self.known().wrong.push(what);
    }

    pub fn all_wrong(&self) -> Vec<String> {
        self.known().wrong.clone()
    }

    pub fn overlaps(&self) -> u64 {
        self.known().overlaps
    }

    /// What a source holds from now on.
    pub fn holds_now(&self, source: &str, tree: &Tree) {
        self.known().sources.entry(source.to_owned()).or_default().push(tree.clone());
    }

    pub fn held(&self, sid: SessionId, held: bool) {
        let mut known = self.known();
        if held {
            known.held.insert(sid)
        } else {
            known.held.remove(&sid)
        };
    }

    /// Nothing is asked of this region any more, or it is asked of again.
    pub fn out(&self, region: usize, out: bool) {
        let mut known = self.known();
        known.eyes.retain(|(ix, _), _| *ix != region);
        known.outcomes.retain(|(ix, _), _| *ix != region);
        known.ended.retain(|(ix, _)| *ix != region);
        known.ids.remove(&region);
        if out {
            known.out.insert(region)
        } else {
            known.out.remove(&region)
        };
    }

    /// Whether other members have everything that this region shows.
    pub fn can_do_without(&self, region: usize) -> bool {
        let others: BTreeSet<SessionId> =
            self.members().into_iter().filter(|ix| *ix != region).flat_map(|ix| self.visible(ix)).collect();
        let members = self.members();
        let is_other = members.iter().any(|ix| *ix != region);
        // With two away at once nobody can change the regions any more (docs/limits.md). That one is given up must be known
        // elsewhere too.
        let newest = self.known().begun.last_key_value().map(|(number, all)| (*number, all.len()));
        let all_shown = newest.is_none_or(|(number, all)| {
            let path = Key::EpochBegin(number, 0).path();
            let inner = self.world.lock();
            let mut others = members.iter().filter(|ix| **ix != region);
            all == members.len() && others.any(|ix| inner.regions[*ix].objects.contains_key(&path))
        });
        is_other && all_shown && self.visible(region).iter().all(|sid| others.contains(sid))
    }

    /// Opens one region, as it is or as it was acknowledged.
    pub fn eye(&self, region: usize, shown: bool, afresh: bool) -> Result<Arc<Repo>, String> {
        if let Some(repo) = self.known().eyes.get(&(region, shown)).filter(|_| !afresh) {
            return Ok(Arc::clone(repo));
        }
        let address = Address { name: NAMES[region].into(), place: place(self.number, region, shown).into() };
        let env = Env::custom(Arc::new(Machine::new(&self.world, 0, None, 0)));
        let opening = Opening {
            addresses: &[address],
            copies_min: 1,
            pin: None,
            state: None,
            env: &env,
            handle: RUNTIME.handle(),
        };
        let repo = open(&opening, &Unlock::KeyFile(self.key.into())).map_err(|e| e.to_string())?;
        let repo = Arc::new(repo);
        self.known().eyes.insert((region, shown), Arc::clone(&repo));
        Ok(repo)
    }

    /// Does something with the keys that open this region now.
    fn with_keys<T>(&self, region: usize, act: impl Fn(&Arc<Repo>) -> Result<T, String>) -> Result<T, String> {
        match self.eye(region, false, false).and_then(|repo| act(&repo)) {
            Ok(done) => Ok(done),
            Err(_) => act(&self.eye(region, false, true)?),
        }
    }

    /// The same with the keys of any region: what is there may come before what opens it alone.
    fn with_any_keys<T>(&self, region: usize, act: impl Fn(&Arc<Repo>) -> Result<T, String>) -> Result<T, String> {
        let others = (0..self.world.lock().regions.len()).filter(|ix| *ix != region);
        let all: Vec<usize> = std::iter::once(region).chain(others).collect();
        let known = |ix: &usize| self.eye(*ix, false, false).and_then(|repo| act(&repo)).ok();
        match all.iter().find_map(known) {
            Some(done) => Ok(done),
            None => all.iter().find_map(|ix| act(&self.eye(*ix, false, true).ok()?).ok()).ok_or_else(String::new),
        }
    }

    /// The objects that a region has acknowledged below a folder.
    fn told(&self, region: usize, folder: &str) -> Vec<(String, Bytes)> {
        let inner = self.world.lock();
        let all = inner.regions[region].objects.range(folder.to_owned()..);
        let below = all.take_while(|(path, _)| path.starts_with(folder));
        below.map(|(path, object)| (path.clone(), object.told.clone())).collect()
    }

    /// Those of them that it shows.
    fn shown(&self, region: usize, folder: &str) -> Vec<(String, Bytes)> {
        let mut all = self.told(region, folder);
        let inner = self.world.lock();
        all.retain(|(path, _)| inner.regions[region].objects.get(path).is_some_and(|object| object.shown.is_some()));
        all
    }

    fn segment(&self, region: usize, path: &str, bytes: &Bytes) -> Option<Arc<Named>> {
        if let Some(known) = self.known().segments.get(path) {
            return Some(Arc::clone(known));
        }
        let key = Key::parse(path)?;
        let opened =
            self.with_any_keys(region, |repo| open_segment(repo, &key, bytes).map_err(|e| e.to_string())).ok()?;
        let packs = opened.packs.iter().map(|line| line.name).collect();
        let (entries, _) = opened.segment.entries.as_chunks::<{ holdfast::format::index::ENTRY_BYTES }>();
        let places = entries.iter().map(holdfast::format::index::Place::parse);
        let named = Arc::new(Named { packs, chunks: places.map(|place| (place.id, place.pack as usize)).collect() });
        self.known().segments.insert(path.to_owned(), Arc::clone(&named));
        Some(named)
    }

    /// Chunks that a region has, in packs that are not dead.
    fn alive(&self, region: usize) -> HashSet<ChunkId> {
        let segments = self.told(region, "index/");
        let named: Vec<Arc<Named>> =
            segments.iter().filter_map(|(path, bytes)| self.segment(region, path, bytes)).collect();
        let inner = self.world.lock();
        let known = self.known();
        let there = |pack: &PackName| {
            !known.doomed.contains(pack) && inner.regions[region].objects.contains_key(&Key::Pack(*pack).path())
        };
        let mut alive = HashSet::new();
        for one in named {
            let good: Vec<bool> = one.packs.iter().map(there).collect();
            alive.extend(one.chunks.iter().filter(|(_, pack)| good.get(*pack) == Some(&true)).map(|(id, _)| *id));
        }
        alive
    }

    /// Snapshots that are visible in a region, or held.
    fn visible(&self, region: usize) -> Vec<SessionId> {
        let known = self.known();
        let hidden = |sid: &SessionId| known.forgotten.contains(sid) && !known.held.contains(sid);
        let inner = self.world.lock();
        let there = |sid: &&SessionId| inner.regions[region].objects.contains_key(&Key::Snapshot(**sid).path());
        // Where a tombstone stands it stays, whatever another region shows.
        let ended = |sid: &&SessionId| known.ended.contains(&(region, **sid));
        known.manifests.keys().filter(there).filter(|sid| !hidden(sid) && !ended(sid)).copied().collect()
    }

    /// Whether a region is a member by the newest epoch that began.
    fn is_member(&self, region: usize) -> bool {
        let known = self.known();
        let id = known.ids.get(&region);
        let members = known.begun.last_key_value().map(|(_, members)| members);
        !known.out.contains(&region) && id.is_some_and(|id| members.is_none_or(|members| members.contains(id)))
    }

    /// Whether an epoch is begun and not decided: what it condemns is brought to nobody.
    pub fn is_undecided(&self) -> bool {
        let known = self.known();
        known.begun.keys().any(|number| !known.decided.contains(number))
    }

    pub fn members(&self) -> Vec<usize> {
        (0..NAMES.len().min(self.world.lock().regions.len())).filter(|ix| self.is_member(*ix)).collect()
    }

    /// Every snapshot that is visible in a region must be complete there.
    fn check_region(&self, step: u64, region: usize, why: &str) {
        if !self.is_member(region) {
            return;
        }
        let visible = self.visible(region);
        if visible.is_empty() {
            return;
        }
        let alive = self.alive(region);
        for sid in visible {
            self.check_snapshot(step, region, sid, &alive, why);
        }
    }

    fn check_snapshot(&self, step: u64, region: usize, sid: SessionId, alive: &HashSet<ChunkId>, why: &str) {
        let known = self.known().needs.get(&sid).cloned();
        let Some(needs) = known.or_else(|| self.first_seen(step, region, sid)) else { return };
        let lacks = needs.chunks.iter().filter(|id| !alive.contains(id)).count();
        if lacks > 0 {
            let name = NAMES[region];
            self.wrong(format!(
                "visible-means-complete: step {step}: snapshot {} lacks {lacks} of {} chunks in region {name} ({why})",
                sid.short(),
                needs.chunks.len()
            ));
        }
    }

    fn put(&self, step: u64, region: usize, path: &str, bytes: &Bytes) {
        let Some(key) = Key::parse(path) else { return };
        match key {
            Key::Region => {
                if let Ok(mark) = RegionMark::from_object(bytes) {
                    let mut known = self.known();
                    known.ids.insert(region, mark.region);
                    known.out.remove(&region);
                    known.eyes.clear();
                    drop(known);
                    // Before there was a mark nobody could open what is there.
                    for (path, bytes) in self.told(region, "epochs/") {
                        self.put(step, region, &path, &bytes);
                    }
                }
            }
            Key::Session(sid) => {
                let opened = self.with_any_keys(region, |repo| {
                    let opened = repo.open_object(&key, bytes).map_err(|e| e.to_string())?;
                    opened.decode::<Session>("session").map_err(|e| e.to_string())
                });
                if let Ok(session) = opened {
                    let who = self.world.who();
                    let mut known = self.known();
                    known.decides.insert(sid, session.decision);
                    known.live.extend(who.map(|who| (sid, who)));
                }
            }
            Key::Forgotten(sid) => drop(self.known().forgotten.insert(sid)),
            Key::Snapshot(sid) => self.outcome(step, region, sid, bytes),
            Key::EpochBegin(number, _) => self.begun(step, region, &key, number, bytes),
            Key::EpochEnd(number, _) => self.decided(step, region, &key, number, bytes),
            _ => {}
        }
    }

    fn outcome(&self, step: u64, region: usize, sid: SessionId, bytes: &Bytes) {
        let key = Key::Snapshot(sid);
        let opened = self.with_any_keys(region, |repo| repo.open_object(&key, bytes).map_err(|e| format!("{e}")));
        let Ok(opened) = opened else { return };
        let name = NAMES[region];
        let before = self.known().outcomes.insert((region, sid), opened.digest);
        // What is forgotten and removed may be ended once more: nobody goes by it.
        let over = {
            let known = self.known();
            known.forgotten.contains(&sid) && !known.held.contains(&sid)
        };
        let lies = Some(region) == self.liar;
        if before.is_some_and(|before| before != opened.digest) && !over && !lies {
            self.wrong(format!("outcomes: step {step}: that of {} changed in region {name}", sid.short()));
        }
        self.known().live.remove(&sid);
        match opened.kind {
            ObjectKind::Manifest => {}
            ObjectKind::Tombstone => {
                self.known().ended.insert((region, sid));
                return self.check_decision(step, sid);
            }
            _ => return,
        }
        let first = self.known().manifests.insert(sid, opened.digest);
        if first.is_some_and(|first| first != opened.digest) {
            self.wrong(format!("outcomes: step {step}: {} has two manifests", sid.short()));
        }
        self.check_decision(step, sid);
        let hidden = {
            let known = self.known();
            known.forgotten.contains(&sid) && !known.held.contains(&sid)
        };
        // A place that is no member yet promises nothing.
        if !hidden && self.is_member(region) {
            let alive = self.alive(region);
            self.check_snapshot(step, region, sid, &alive, "its manifest was put there");
        }
    }

    /// What a snapshot needs and holds, read from the region that shows it first.
    fn first_seen(&self, step: u64, region: usize, sid: SessionId) -> Option<Arc<Needs>> {
        let path = Key::Snapshot(sid).path();
        let bytes = self.world.lock().regions[region].objects.get(&path)?.told.clone();
        match self.with_keys(region, |repo| walk::manifest(repo, sid, &bytes)) {
            Err(why) => {
                let (name, sid) = (NAMES[region], sid.short());
                self.wrong(format!(
                    "visible-means-complete: step {step}: {sid} cannot be read in region {name}: {why}"
                ));
                None
            }
            Ok(needs) => {
                let known = self.known().sources.get(&needs.source).cloned().unwrap_or_default();
                if !known.contains(&needs.tree) {
                    self.wrong(format!("same-bytes-back: step {step}: {} of {}", sid.short(), needs.source));
                }
                let needs = Arc::new(needs);
                self.known().needs.insert(sid, Arc::clone(&needs));
                Some(needs)
            }
        }
    }

    /// What a session's decision region says is its outcome, for ever and everywhere.
    fn check_decision(&self, step: u64, sid: SessionId) {
        let decided = {
            let known = self.known();
            let home = known.decides.get(&sid).copied();
            let at = known.ids.iter().find(|(_, id)| Some(**id) == home).map(|(ix, _)| *ix);
            let over = known.forgotten.contains(&sid) && !known.held.contains(&sid);
            at.filter(|ix| known.ended.contains(&(*ix, sid)) && Some(*ix) != self.liar && !over)
        };
        let Some(decided) = decided.filter(|ix| self.is_member(*ix)) else { return };
        let shown = |ix: &usize| {
            let path = Key::Snapshot(sid).path();
            let there = self.world.lock().regions[*ix].objects.contains_key(&path);
            // Of what came in the same step nobody told the judge yet: it is looked at when it is told.
            let known = self.known();
            there && known.outcomes.contains_key(&(*ix, sid)) && !known.ended.contains(&(*ix, sid))
        };
        if let Some(ix) = self.members().into_iter().find(shown) {
            let (name, home) = (NAMES[ix], NAMES[decided]);
            self.wrong(format!(
                "outcomes: step {step}: {} ended where it is decided, region {home}, and region {name} shows it",
                sid.short()
            ));
        }
    }

    fn begun(&self, step: u64, region: usize, key: &Key, number: Epoch, bytes: &Bytes) {
        let opened = self.with_any_keys(region, |repo| {
            let opened = repo.open_object(key, bytes).map_err(|e| e.to_string())?;
            opened.decode::<EpochBegin>("epoch").map_err(|e| e.to_string())
        });
        let Ok(begin) = opened else { return };
        let beginner = self.world.who().map(|(actor, _)| actor);
        let mut known = self.known();
        let others = known.live.values().filter(|(actor, _)| Some(*actor) != beginner);
        let overlaps = others.copied().any(|who| self.world.is_at_work(who));
        let is_new = !known.begun.contains_key(&number);
        known.begun.insert(number, begin.members.iter().map(|member| member.id).collect());
        let before = number.0.checked_sub(1).map(Epoch).filter(|before| before.0 > 0);
        let undecided = before.is_some_and(|before| !known.decided.contains(&before));
        known.overlaps += u64::from(is_new && !begin.condemned.is_empty() && overlaps);
        drop(known);
        if is_new {
            self.members().into_iter().for_each(|ix| self.check_region(step, ix, "the members changed"));
        }
        if is_new && undecided {
            self.wrong(format!("epochs: step {step}: {} began before the one before was decided", number.0));
        }
    }

    fn decided(&self, step: u64, region: usize, key: &Key, number: Epoch, bytes: &Bytes) {
        let opened = self.with_any_keys(region, |repo| {
            let opened = repo.open_object(key, bytes).map_err(|e| e.to_string())?;
            let end = opened.decode::<EpochEnd>("epoch").map_err(|e| e.to_string())?;
            pack_list(&end.doomed).map_err(|e| e.to_string())
        });
        let Ok(doomed) = opened else { return };
        let mut known = self.known();
        known.decided.insert(number);
        let before = known.doomed.len();
        known.doomed.extend(doomed);
        let more = known.doomed.len() > before;
        drop(known);
        if more {
            self.members().into_iter().for_each(|ix| self.check_region(step, ix, "packs were doomed"));
        }
    }

    fn gone(&self, step: u64, region: usize, path: &str) {
        match Key::parse(path) {
            Some(Key::Pack(_) | Key::Index(_)) => self.check_region(step, region, &format!("{path} was removed")),
            Some(Key::Snapshot(sid)) => self.outcome_gone(step, region, sid),
            _ => {}
        }
    }

    fn outcome_gone(&self, step: u64, region: usize, sid: SessionId) {
        let (is_manifest, forgotten) = {
            let known = self.known();
            (
                !known.ended.contains(&(region, sid)) && known.manifests.contains_key(&sid),
                known.forgotten.contains(&sid),
            )
        };
        if is_manifest && !forgotten && self.is_member(region) {
            self.wrong(format!(
                "prune-never-eats: step {step}: the manifest of {} was removed in region {} and is wanted",
                sid.short(),
                NAMES[region]
            ));
        }
    }

    /// Snapshots that must be in every member in the end.
    pub fn wanted(&self) -> BTreeSet<SessionId> {
        self.members().into_iter().flat_map(|region| self.visible(region)).collect()
    }

    /// Manifests that a region has, whether they are wanted or not.
    fn manifests(&self, region: usize) -> Vec<SessionId> {
        let known = self.known();
        let inner = self.world.lock();
        let shown = |path: &str| inner.regions[region].objects.get(path).is_some_and(|one| one.shown.is_some());
        let there = |sid: &&SessionId| shown(&Key::Snapshot(**sid).path()) && !known.ended.contains(&(region, **sid));
        known.manifests.keys().filter(there).copied().collect()
    }

    /// A backup says where its snapshot is.
    pub fn check_said(&self, sid: SessionId, regions: &[String]) {
        if self.known().forgotten.contains(&sid) {
            return;
        }
        for region in self.members().into_iter().filter(|ix| regions.iter().any(|name| name == NAMES[*ix])) {
            let path = Key::Snapshot(sid).path();
            let there = self.world.lock().regions[region].objects.contains_key(&path);
            if !there {
                let (sid, name) = (sid.short(), NAMES[region]);
                self.wrong(format!("no-silent-partial: {sid} is said to be in region {name}, and is not"));
            }
        }
    }

    /// With everybody else dead, two prunes leave nothing that nobody needs.
    pub fn check_garbage(&self) {
        let members = self.members();
        let needed: HashSet<ChunkId> = {
            let all: BTreeSet<SessionId> = members.iter().flat_map(|region| self.manifests(*region)).collect();
            let known = self.known();
            let of = |sid: &SessionId| known.needs.get(sid).cloned();
            all.iter().filter_map(of).flat_map(|needs| needs.chunks.clone()).collect()
        };
        // By the segments of any member: one that was behind while an epoch was undecided has a pack, and gets its segment later.
        let mut useful: HashSet<String> = HashSet::new();
        for region in members.iter().copied() {
            for (path, bytes) in self.shown(region, "index/") {
                let Some(named) = self.segment(region, &path, &bytes) else { continue };
                let live = named.chunks.iter().filter(|(id, _)| needed.contains(id));
                useful.extend(live.filter_map(|(_, pack)| Some(Key::Pack(*named.packs.get(*pack)?).path())));
                let gone = named
                    .packs
                    .iter()
                    .any(|pack| !self.world.lock().regions[region].objects.contains_key(&Key::Pack(*pack).path()));
                if gone {
                    self.wrong(format!("garbage: {path} in region {} names a pack that is gone", NAMES[region]));
                }
            }
        }
        for region in members {
            for (path, _) in self.shown(region, "packs/") {
                if !useful.contains(&path) {
                    self.wrong(format!("garbage: {path} in region {} is needed by nobody", NAMES[region]));
                }
            }
            self.check_forgotten(region, &self.manifests(region));
        }
    }

    /// What is forgotten is gone, but for what is held and the last of a source.
    fn check_forgotten(&self, region: usize, manifests: &[SessionId]) {
        // A marker that only a region had which is lost is lost with it, and the snapshot is there again.
        let members = self.members();
        let is_marked = |sid: &SessionId| {
            let (inner, path) = (self.world.lock(), Key::Forgotten(*sid).path());
            members.iter().any(|ix| inner.regions[*ix].objects.contains_key(&path))
        };
        let marked: BTreeSet<SessionId> = manifests.iter().filter(|sid| is_marked(sid)).copied().collect();
        let left: Vec<String> = {
            let known = self.known();
            let source = |sid: &SessionId| known.needs.get(sid).map(|needs| needs.source.clone());
            let stays = |sid: &SessionId| !marked.contains(sid);
            let alone = |sid: &SessionId| !manifests.iter().any(|other| other != sid && source(other) == source(sid));
            let left = manifests.iter().filter(|sid| !stays(sid) && !known.held.contains(sid) && !alone(sid));
            left.map(SessionId::short).collect()
        };
        for sid in left {
            self.wrong(format!("garbage: the manifest of {sid} is forgotten, and still in region {}", NAMES[region]));
        }
    }

    /// In the end every member alone shows and gives back everything that is wanted.
    pub fn check_restores(&self) {
        let wanted = self.wanted();
        for region in self.members() {
            let name = NAMES[region];
            let repo = match self.eye(region, true, true) {
                Ok(repo) => repo,
                Err(why) => {
                    self.wrong(format!("region {name} alone cannot be opened in the end: {why}"));
                    continue;
                }
            };
            let shown = match walk::all(&repo) {
                Ok(shown) => shown,
                Err(why) => {
                    self.wrong(format!("region {name} alone cannot be read in the end: {why}"));
                    continue;
                }
            };
            for sid in &wanted {
                let (absent, needs) = {
                    let known = self.known();
                    let absent = known.forgotten.contains(sid) || known.ended.contains(&(region, *sid));
                    (absent, known.needs.get(sid).cloned())
                };
                match (shown.get(sid), needs) {
                    (None, _) if !absent => {
                        self.wrong(format!("region {name} alone does not show {} in the end", sid.short()))
                    }
                    (Some(Err(why)), _) => {
                        self.wrong(format!("{} is not whole in region {name} in the end: {why}", sid.short()))
                    }
                    (Some(Ok(found)), Some(needs)) if found.tree != needs.tree => {
                        self.wrong(format!("{} has other bytes in region {name} in the end", sid.short()))
                    }
                    _ => {}
                }
            }
        }
    }
}

impl Watch for Model {
    fn changed(&self, step: u64, event: &Event) {
        match event {
            Event::Put { region, path, bytes } => self.put(step, *region, path, bytes),
            Event::Gone { region, path } => self.gone(step, *region, path),
        }
    }
}
