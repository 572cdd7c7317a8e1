//! Who does something: each deed is a process of its own, with the real code, one worker and the state that the one before
//! left behind.

use super::files::{self, Source};
use super::model::{Model, NAMES, RUNTIME};
use super::plan::{Deed, Plan};
use super::rng::Rng;
use super::world::{Door, Machine, World};
use holdfast::base::{Cancel, Env, HoldId, Progress, SessionId, SlotId};
use holdfast::crypto::Secret;
use holdfast::error::{Error, Kind, Result};
use holdfast::format::snapshot::Mode;
use holdfast::ops::backup::{self, BackupOptions};
use holdfast::ops::forget::{self, Target};
use holdfast::ops::replicate::{self, Depth, Means, Wish};
use holdfast::ops::{hold, membership, prune, repair, repair_index, verify};
use holdfast::region::{Address, Regions};
use holdfast::repo::Repo;
use holdfast::repo::init::{self, Leftovers, NewSecret};
use holdfast::repo::keys;
use holdfast::repo::open::{Opening, open};
use holdfast::repo::view::View;
use holdfast::store::testing::{mount, unmount};
use holdfast::unlock::Unlock;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// What all actors share.
pub struct Stage {
    pub world: Arc<World>,
    pub model: Arc<Model>,
    pub plan: Plan,
    pub number: u64,
    pub folder: PathBuf,
    pub key: [u8; 32],
    /// The regions that the configuration names.
    configured: Mutex<Vec<usize>>,
}

impl Stage {
    pub fn new(
        world: Arc<World>,
        model: Arc<Model>,
        plan: &Plan,
        number: u64,
        folder: PathBuf,
        key: [u8; 32],
    ) -> Stage {
        let configured = Mutex::new((0..plan.regions).collect());
        Stage { world, model, plan: plan.clone(), number, folder, key, configured }
    }

    pub fn configured(&self) -> Vec<usize> {
        self.configured.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn configure(&self, region: usize, named: bool) {
        let mut all = self.configured.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|ix| *ix != region);
        if named {
            all.push(region);
        }
    }

    fn place(&self, actor: usize, region: usize) -> String {
        format!("/simulated/{}/{actor}/{}", self.number, NAMES[region])
    }

    pub fn mount(&self, actor: usize, regions: usize) {
        for region in 0..regions {
            let door = Door { world: Arc::clone(&self.world), actor, region };
            mount(&self.place(actor, region).into(), Arc::new(door));
        }
    }

    pub fn unmount(&self, actor: usize, regions: usize) {
        (0..regions).for_each(|region| unmount(&self.place(actor, region).into()));
    }
}

/// One actor.
pub struct Player<'s> {
    stage: &'s Stage,
    number: usize,
    env: Env,
    rng: Rng,
    name: String,
    source: Source,
    slot: Option<SlotId>,
    hold: Option<(HoldId, SessionId)>,
    cancel: Cancel,
}

impl<'s> Player<'s> {
    /// No two lives of one actor have the same random numbers.
    pub fn new(stage: &'s Stage, number: usize, life: u64) -> Player<'s> {
        let skew = stage.plan.actors.get(number).map_or(0, |actor| actor.skew);
        let name = if life == 1 { "before".to_owned() } else { format!("s{number}") };
        let machine = Machine::new(&stage.world, stage.plan.seed ^ (life << 40), Some(number), skew);
        Player {
            stage,
            number,
            env: Env::custom(Arc::new(machine)),
            rng: Rng::of(stage.plan.seed, 100 + number as u64),
            source: Source::new(stage.folder.join(format!("source-{name}"))),
            name,
            slot: None,
            hold: None,
            cancel: Cancel::new(),
        }
    }

    fn state(&self) -> PathBuf {
        self.stage.folder.join(format!("state-{}", self.number))
    }

    fn address(&self, region: usize) -> Address {
        Address { name: NAMES[region].into(), place: self.stage.place(self.number, region).into() }
    }

    pub fn open(&self) -> Result<Arc<Repo>> {
        self.open_at(&self.stage.configured())
    }

    fn open_at(&self, regions: &[usize]) -> Result<Arc<Repo>> {
        let addresses: Vec<Address> = regions.iter().map(|ix| self.address(*ix)).collect();
        let state = self.state();
        let opening = Opening {
            addresses: &addresses,
            copies_min: self.stage.plan.copies_min,
            pin: None,
            state: Some(&state),
            env: &self.env,
            handle: RUNTIME.handle(),
        };
        open(&opening, &Unlock::KeyFile(self.stage.key.into())).map(Arc::new)
    }

    /// Makes the repository.
    pub fn init(&self) -> Result<()> {
        let addresses: Vec<Address> = self.stage.configured().into_iter().map(|ix| self.address(ix)).collect();
        let regions = Regions::connect(&addresses, true, RUNTIME.handle());
        let secret = NewSecret::KeyFile(Secret::from_bytes(self.stage.key));
        init::create(&regions, &self.env, &[("key".to_owned(), secret)]).map(drop)
    }

    fn means(&self) -> Means<'_> {
        Means { workers: 0, progress: None, cancel: &self.cancel }
    }

    /// Another process begins.
    pub fn revive(&self) {
        self.stage.world.alive(self.number, self.state());
    }

    /// A process that does one thing, to its end or its death.
    pub fn act(&mut self, deed: Deed) -> Result<String> {
        self.revive();
        self.stage.world.tell(|| format!("   -- actor {} begins {deed:?}", self.number));
        let done = self.deed(deed);
        if self.stage.world.is_dead(self.number) {
            files::after_death(&self.state());
        }
        self.stage.world.tell(|| format!("   -- actor {} ends {deed:?}: {done:?}", self.number));
        if let Err(e) = &done
            && e.kind() == Kind::Bug
        {
            self.stage.model.wrong(format!("a bug, by the program's own word, in {deed:?}: {e}"));
        }
        done
    }

    fn deed(&mut self, deed: Deed) -> Result<String> {
        match deed {
            Deed::Backup { full, changes } => self.backup(full, changes),
            Deed::Replicate => self.replicate(),
            Deed::Forget { keep } => self.forget(keep),
            Deed::Verify { content, repair } => self.verify(content, repair),
            Deed::RepairIndex => {
                let repo = self.open()?;
                let done = repair_index::run(&repo, 0, "host", &Progress::default(), &self.cancel)?;
                Ok(format!("{done:?}"))
            }
            Deed::Keys => self.keys(),
            Deed::Hold => self.hold(),
            Deed::RegionAdd => self.region_add(),
            Deed::RegionRemove { lost } => self.region_remove(lost),
            Deed::RegionEmptied => self.region_emptied(),
            Deed::Prune { wait, dead, repack } => self.prune(wait, dead, repack),
        }
    }

    fn backup(&mut self, full: bool, changes: u64) -> Result<String> {
        let now = self.env.now().0;
        let name = self.name.clone();
        self.source.change(&mut self.rng, changes, now);
        self.stage.model.holds_now(&name, &self.source.tree);
        let repo = self.open()?;
        let (host, mode) = (format!("host-{}", self.number), if full { Mode::Full } else { Mode::Incremental });
        let options = BackupOptions::plain(name, host, vec![self.source.folder.clone()], mode);
        let report = backup::run(&repo, options, &Progress::default(), &self.cancel)?;
        if report.errors_total > 0 {
            self.stage.model.wrong(format!("a file could not be read: {:?}", report.errors));
        }
        if let Some(sid) = report.snapshot.filter(|_| !self.stage.world.is_dead(self.number)) {
            self.stage.model.check_said(sid, &report.regions);
        }
        let sid = report.snapshot.map_or_else(String::new, |sid| sid.short());
        Ok(format!("{sid} in {:?}, behind {:?}, exit {:?}", report.regions, report.behind, report.exit()))
    }

    fn replicate(&mut self) -> Result<String> {
        let repo = self.open()?;
        let wish = Wish { depth: Depth::Packs, targets: None, dry_run: false, means: self.means() };
        let report = replicate::run(&repo, wish)?;
        Ok(format!("{:?}, behind {:?}, findings {:?}", report.exit(), report.behind(), report.findings))
    }

    fn forget(&mut self, keep: usize) -> Result<String> {
        let repo = self.open()?;
        let view = View::load(&repo)?;
        let mut by_source: BTreeMap<String, Vec<Target>> = BTreeMap::new();
        for snapshot in view.newest_first() {
            let target = Target::of(snapshot);
            by_source.entry(target.source.clone()).or_default().push(target);
        }
        let old: Vec<Target> = by_source.into_values().flat_map(|all| all.into_iter().skip(keep)).collect();
        if old.is_empty() {
            return Ok("nothing to forget".into());
        }
        let some = self.rng.within(1, old.len() as u64) as usize;
        let chosen: Vec<Target> = old.into_iter().rev().take(some).collect();
        let report = forget::run(&repo, &view, &chosen, false, "", &self.cancel)?;
        Ok(format!("{:?}", report.forgotten.iter().map(|target| target.sid.short()).collect::<Vec<_>>()))
    }

    fn verify(&mut self, content: bool, repair: bool) -> Result<String> {
        let repo = self.open()?;
        let level = if content { verify::Level::Content } else { verify::Level::Ciphertext };
        let report = verify::run(&repo, &verify::Wish::all(level, 0), None, &Progress::default(), &self.cancel)?;
        let mut text = format!(
            "{:?}, findings {:?}, broken {:?}, lost {:?}",
            report.exit(),
            report.findings,
            report.broken,
            report.lost
        );
        if repair {
            let mended = repair::after(&repo, &report.findings, None, 0, &self.cancel)?;
            text.push_str(&format!("; put back {}, left {}", mended.put_back(), mended.left()));
        }
        Ok(text)
    }

    fn prune(&mut self, wait: u64, dead: u64, repack: u8) -> Result<String> {
        let repo = self.open()?;
        let wish = prune::Wish {
            dry_run: false,
            grace: Duration::from_secs(if repack == 20 { 60 } else { 0 }),
            wait: Duration::from_secs(wait),
            dead_after: Duration::from_secs(dead),
            last: &[],
            lost: &[],
            repack: prune::Limits {
                above_percent: repack,
                bytes_max: u64::MAX,
                small_min: if repack < 50 { 3 } else { 16 },
            },
            bounds: prune::Bounds::default(),
            workers: 0,
            host: "host",
            cancel: &self.cancel,
        };
        let report = prune::run(&repo, &wish)?;
        Ok(format!(
            "{:?}, epoch {:?}, adopted {:?}, removed {:?}, spared {}, repacked {:?}, ended {}, behind {:?}, alarms {:?}, findings {:?}",
            report.exit(),
            report.epoch,
            report.adopted,
            report.removed(),
            report.spared,
            report.repacked,
            report.ended,
            report.behind(),
            report.alarms,
            report.findings
        ))
    }

    fn keys(&mut self) -> Result<String> {
        let repo = self.open()?;
        if let Some(slot) = self.slot.take() {
            keys::remove(&repo, slot)?;
            return Ok(format!("removed {}", slot.short()));
        }
        let secret = NewSecret::KeyFile(Secret::from_bytes(self.env.random()?));
        let slot = keys::add(&repo, "another", &secret)?;
        self.slot = Some(slot);
        Ok(format!("added {}", slot.short()))
    }

    fn hold(&mut self) -> Result<String> {
        let repo = self.open()?;
        if let Some((id, sid)) = self.hold.take() {
            self.stage.model.held(sid, false);
            hold::release(&repo, id)?;
            return Ok(format!("released {}", sid.short()));
        }
        let view = View::load(&repo)?;
        let all: Vec<_> = view.snapshots.values().collect();
        if all.is_empty() {
            return Ok("nothing to hold".into());
        }
        let snapshot = *self.rng.pick(&all);
        let (held, _) = hold::add(&repo, snapshot, "simulated", None)?;
        self.hold = Some((held.hold, held.sid));
        if !self.stage.world.is_dead(self.number) {
            self.stage.model.held(held.sid, true);
        }
        Ok(format!("held {}", held.sid.short()))
    }

    fn prepared(&self, repo: &Repo, region: usize, leftovers: Leftovers) -> Result<()> {
        let regions = Regions::connect(&[self.address(region)], true, RUNTIME.handle());
        init::prepare(&regions, &self.env, repo.id, leftovers).map(drop)
    }

    fn index_of(repo: &Repo, region: usize) -> Result<usize> {
        let found = (0..repo.regions.len()).find(|ix| repo.regions.region(*ix).name == NAMES[region]);
        found.ok_or_else(|| Error::new(Kind::Config, "no such region"))
    }

    fn region_add(&mut self) -> Result<String> {
        let spare = self.stage.plan.regions;
        let repo = self.open()?;
        if !self.stage.configured().contains(&spare) {
            self.prepared(&repo, spare, Leftovers::Refused)?;
            drop(repo);
            self.stage.configure(spare, true);
        }
        self.admit(spare, None)
    }

    fn admit(&self, region: usize, replaces: Option<holdfast::base::RegionId>) -> Result<String> {
        let repo = self.open()?;
        let ix = Self::index_of(&repo, region)?;
        let done = membership::admit(&repo, ix, replaces, self.means())?;
        Ok(format!("{:?}", done.members.iter().map(|member| &member.name).collect::<Vec<_>>()))
    }

    fn region_remove(&mut self, lost: bool) -> Result<String> {
        let all = self.stage.configured();
        if all.len() < 2 {
            return Ok("the only region stays".into());
        }
        let region = *self.rng.pick(&all);
        if lost {
            // What only it has is lost with it: that is known before.
            if !self.stage.model.can_do_without(region) {
                return Ok("it has the only copy of something".into());
            }
            self.stage.world.lock().destroy(region, false);
            self.stage.model.out(region, true);
        }
        let repo = self.open()?;
        if lost {
            membership::spare_all(&repo, &membership::find(&repo, NAMES[region])?)?;
        }
        let gone = if lost { membership::lost(&repo, NAMES[region]) } else { None };
        membership::settle(&repo, gone, self.means())?;
        let who = membership::find(&repo, NAMES[region])?;
        membership::may_go(&repo, &who, lost, self.means())?;
        // Where there are prunes it is done with --trust-listings.
        if !lost && !self.stage.plan.prunes {
            self.each_alone(&repo, region)?;
        }
        let (epoch, members) = membership::remove(&repo, &who, lost, self.means())?;
        self.stage.configure(region, false);
        Ok(format!("epoch {epoch}, {:?}", members.iter().map(|member| &member.name).collect::<Vec<_>>()))
    }

    /// As `holdfast region remove`: every region that stays must open by itself, and show every snapshot.
    fn each_alone(&self, repo: &Repo, goes: usize) -> Result<()> {
        let all = View::load(repo)?;
        for region in self.stage.configured().into_iter().filter(|region| *region != goes) {
            let shown = View::load(&*self.open_at(&[region])?)?;
            if all.snapshots.keys().any(|sid| !shown.snapshots.contains_key(sid)) {
                return Err(Error::new(Kind::Refused, "does not show every snapshot").at(NAMES[region]));
            }
        }
        Ok(())
    }

    fn region_emptied(&mut self) -> Result<String> {
        let all = self.stage.configured();
        let region = *self.rng.pick(&all);
        if !self.stage.model.can_do_without(region) {
            return Ok("it has the only copy of something".into());
        }
        self.stage.model.out(region, true);
        self.stage.world.lock().destroy(region, true);
        self.stage.model.out(region, false);
        self.region_repair(region)
    }

    /// Whether a region was taken out, and whoever did it died before he could say so.
    pub fn is_out(&self, region: usize) -> bool {
        let Ok(repo) = self.open() else { return false };
        let id = (0..repo.regions.len()).find(|ix| repo.regions.region(*ix).name == NAMES[region]);
        let id = id.and_then(|ix| repo.regions.region(ix).id);
        let found = membership::list(&repo);
        let named = found.members.iter().any(|info| info.member.name == NAMES[region] || Some(info.member.id) == id);
        !named && id.is_none_or(|id| repo.epochs().removed(id).is_some())
    }

    /// Finishes a change of the regions that was begun.
    pub fn settle(&self) -> Result<()> {
        membership::settle(&self.open()?, None, self.means()).map(drop)
    }

    /// As `holdfast region repair --emptied`.
    pub fn region_repair(&self, region: usize) -> Result<String> {
        let mut repo = self.open()?;
        let mut ix = Self::index_of(&repo, region)?;
        if repo.regions.region(ix).id.is_none() {
            membership::find(&repo, NAMES[region])?;
            self.prepared(&repo, region, Leftovers::Taken)?;
            repo = self.open()?;
            ix = Self::index_of(&repo, region)?;
        }
        let found = membership::list(&repo);
        let id = repo.regions.region(ix).id;
        if found.members.iter().any(|info| Some(info.member.id) == id) {
            let done = membership::bring_forward(&repo, ix, self.means())?;
            return Ok(format!("{:?}", done.members.iter().map(|member| &member.name).collect::<Vec<_>>()));
        }
        let gone = found.members.iter().find(|info| info.region.is_none() && info.member.name == NAMES[region]);
        let gone = gone.map(|info| info.member.id);
        drop(repo);
        self.admit(region, gone)
    }
}
