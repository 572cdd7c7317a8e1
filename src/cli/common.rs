//! What every verb needs: regions, secret, runtime, interruption.

use super::args::{Filter, Global};
use super::configuration;
use super::output::{plain, remark};
use crate::base::{Cancel, Env};
use crate::error::{Error, Kind, Result};
use crate::format::snapshot::Manifest;
use crate::policy::{self, Configuration, RegionSpec, Repository};
use crate::region::{Address, lock};
use crate::repo::Repo;
use crate::repo::held::Held;
use crate::repo::open::{self, Marked, Opening};
use crate::store::{Meter, Requests};
use crate::unlock::{self, Unlock};
use crossbeam_channel::Sender;
use rustix::termios::{self, LocalModes, OptionalActions, Termios};
use std::collections::BTreeMap;
use std::io::{BufRead, IsTerminal, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use zeroize::Zeroizing;

/// Environment variable with the passphrase.
pub const PASSPHRASE_ENV: &str = "HOLDFAST_PASSPHRASE";
/// The same of a repository that is copied into.
pub const TO_PASSPHRASE_ENV: &str = "HOLDFAST_TO_PASSPHRASE";

/// The surroundings of a verb.
pub struct Context {
    pub global: Global,
    pub env: Env,
    pub cancel: Cancel,
    signals: Signals,
    runtime: Runtime,
    meters: Mutex<Meters>,
}

/// What was asked of the regions, by name.
#[derive(Default)]
struct Meters {
    /// By those that are not in use any more.
    over: BTreeMap<String, Requests>,
    live: Vec<(String, Meter)>,
}

impl Meters {
    fn settle(&mut self) {
        for (name, meter) in self.live.extract_if(.., |(_, meter)| meter.is_over()) {
            *self.over.entry(name).or_default() += meter.read();
        }
    }
}

/// What a signal asks of the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// To come to its end.
    Stop,
    /// To read its configuration again.
    Reload,
}

/// Who takes interrupts instead of the flag.
type Signals = Arc<Mutex<Option<Sender<Signal>>>>;

/// Regions and what is asked of them.
pub struct Places {
    pub addresses: Vec<Address>,
    pub copies_min: usize,
    pub pin: Option<crate::base::RepoId>,
    /// Of regions that are to be read before or after others.
    pub priorities: BTreeMap<String, i32>,
}

impl Context {
    /// Starts the runtime and listens for interrupts.
    pub fn new(global: Global) -> Result<Context> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .map_err(|e| Error::new(Kind::Bug, format!("cannot start: {e}")))?;
        let cancel = Cancel::new();
        let signals = Signals::default();
        listen(&runtime, cancel.clone(), signals.clone())?;
        Ok(Context { global, env: Env::system(), cancel, signals, runtime, meters: Mutex::default() })
    }

    /// From now on interrupts raise no flag and end nothing: they are told to `to`, and so are hang-ups.
    pub fn forward_signals(&self, to: Sender<Signal>) -> Result<()> {
        let _inside = self.runtime.enter();
        let mut hang_up = on(SignalKind::hangup())?;
        *lock(&self.signals) = Some(to.clone());
        self.runtime.spawn(async move { while hang_up.recv().await.is_some() && to.send(Signal::Reload).is_ok() {} });
        Ok(())
    }

    /// Has the requests counted that are made of these regions.
    pub fn meter(&self, meters: Vec<(String, Meter)>) {
        let mut all = lock(&self.meters);
        // A daemon opens its repositories again and again.
        all.settle();
        all.live.extend(meters);
    }

    /// Requests made of each region since the program began.
    pub fn requests(&self) -> BTreeMap<String, Requests> {
        let all = lock(&self.meters);
        let mut sum = all.over.clone();
        all.live.iter().for_each(|(name, meter)| *sum.entry(name.clone()).or_default() += meter.read());
        sum
    }

    pub fn handle(&self) -> &tokio::runtime::Handle {
        self.runtime.handle()
    }

    /// Threads that read, compress and seal.
    pub fn workers(&self) -> usize {
        std::thread::available_parallelism().map_or(2, std::num::NonZero::get).min(16)
    }

    /// Regions from `--region` or the configuration.
    pub fn places(&self) -> Result<Places> {
        self.places_by(&self.global)
    }

    /// The same, as these options say.
    pub fn places_by(&self, global: &Global) -> Result<Places> {
        let repository = if global.region.is_empty() { configured(global)? } else { flagged(global)? };
        Ok(self.places_of(&repository, repository.copies_min()))
    }

    /// The same, with the configuration that it comes from, if it does, and the repository's name there.
    pub fn places_and_configuration(&self) -> Result<(Places, Option<(Configuration, policy::Name)>)> {
        if !self.global.region.is_empty() {
            return Ok((self.places()?, None));
        }
        let configuration = self.configuration()?;
        let repository = configuration.repository(self.global.repository.as_deref())?;
        let (places, name) = (self.places_of(repository, repository.copies_min()), repository.name().clone());
        Ok((places, Some((configuration, name))))
    }

    /// The regions of a repository, where so many copies are asked for.
    pub fn places_of(&self, repository: &Repository, copies_min: u32) -> Places {
        let address = |spec: &RegionSpec| Address { name: spec.name.as_str().to_owned(), place: spec.place.clone() };
        let priority = |spec: &RegionSpec| (spec.name.as_str().to_owned(), spec.priority);
        Places {
            addresses: repository.regions().iter().map(address).collect(),
            copies_min: copies_min as usize,
            pin: repository.repository_id(),
            priorities: repository.regions().iter().map(priority).collect(),
        }
    }

    /// The whole configuration.
    pub fn configuration(&self) -> Result<Configuration> {
        let files = configuration::files(self.global.config.as_deref())?;
        policy::load(&configuration::texts(&files))
    }

    /// The secret, from a file, the environment or a question.
    pub fn secret(&self) -> Result<Unlock> {
        self.secret_by(&self.global, PASSPHRASE_ENV, "passphrase: ")
    }

    /// The same, as these options say.
    pub fn secret_by(&self, global: &Global, variable: &str, question: &str) -> Result<Unlock> {
        let from_file = match (&global.passphrase_file, &global.key_file, &global.recovery_key_file) {
            (Some(path), _, _) => Some(unlock::from_passphrase_file(path)?),
            (_, Some(path), _) => Some(unlock::from_key_file(path)?),
            (_, _, Some(path)) => Some(unlock::from_recovery_file(path)?),
            _ => None,
        };
        if let Some(found) = from_file {
            found.warnings.iter().for_each(|w| remark(&format!("warning: {w}")));
            return Ok(found.unlock);
        }
        if let Some(value) = std::env::var_os(variable) {
            return unlock::from_env(value);
        }
        unlock::from_passphrase(ask(question)?)
    }

    /// The secret, from a file or the environment; nobody is asked.
    pub fn secret_if_given(&self) -> Result<Option<Unlock>> {
        let global = &self.global;
        let files = [&global.passphrase_file, &global.key_file, &global.recovery_key_file];
        let given = files.iter().any(|file| file.is_some()) || std::env::var_os(PASSPHRASE_ENV).is_some();
        if given { self.secret().map(Some) } else { Ok(None) }
    }

    /// Where the local catalog is.
    pub fn state(&self) -> Result<PathBuf> {
        if let Some(dir) = &self.global.state {
            return Ok(dir.clone());
        }
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        match (set("XDG_STATE_HOME"), set("HOME")) {
            (Some(state), _) => Ok(state.join("holdfast")),
            (None, _) if rustix::process::geteuid().is_root() => Ok("/var/lib/holdfast".into()),
            (None, Some(home)) => Ok(home.join(".local/state/holdfast")),
            (None, None) => {
                Err(Error::new(Kind::Config, "there is no place for the catalog").advise("use --state DIR"))
            }
        }
    }

    /// Opens the repository.
    pub fn open(&self) -> Result<Arc<Repo>> {
        let places = self.places()?;
        self.open_at(&places, &self.secret()?)
    }

    /// The same; `beside` is called before the secret is tried, which may take its time.
    pub fn open_beside(&self, beside: &mut dyn FnMut(&Marked)) -> Result<Arc<Repo>> {
        let (places, secret) = (self.places()?, self.secret()?);
        let state = self.state().ok();
        let opening = Opening { state: state.as_deref(), ..self.opening(&places) };
        self.opened(open::open_beside(&opening, &secret, beside)?, &places)
    }

    pub fn open_at(&self, places: &Places, secret: &Unlock) -> Result<Arc<Repo>> {
        let state = self.state().ok();
        self.opened(open::open(&Opening { state: state.as_deref(), ..self.opening(places) }, secret)?, places)
    }

    /// The same with a secret that is used again and again.
    pub fn open_held(&self, places: &Places, held: &Held) -> Result<Arc<Repo>> {
        let state = self.state().ok();
        self.opened(open::open_held(&Opening { state: state.as_deref(), ..self.opening(places) }, held)?, places)
    }

    fn opened(&self, repo: Repo, places: &Places) -> Result<Arc<Repo>> {
        self.meter(repo.regions.meters());
        repo.regions.prefer(|name| places.priorities.get(name).copied());
        let repo = Arc::new(repo);
        if !self.global.quiet {
            for (region, e) in repo.regions.failures() {
                remark(&format!("warning: region {region} is not used: {e}"));
            }
        }
        Ok(repo)
    }

    pub fn opening<'a>(&'a self, places: &'a Places) -> Opening<'a> {
        Opening {
            addresses: &places.addresses,
            copies_min: places.copies_min,
            pin: places.pin,
            state: None,
            env: &self.env,
            handle: self.handle(),
        }
    }
}

fn flagged(global: &Global) -> Result<Repository> {
    let regions = global.region.iter().map(|text| RegionSpec::parse(text)).collect::<Result<Vec<_>>>()?;
    let name = policy::Name::parse("repository", "command-line")?;
    Repository::new(name, regions, global.copies_min, None)
}

/// The repository, also where the configuration has mistakes that do not concern it.
fn configured(global: &Global) -> Result<Repository> {
    let (files, unread) = configuration::readable_files(global.config.as_deref())?;
    let name = global.repository.as_deref();
    let found = policy::one_repository(&configuration::texts(&files), unread, name);
    let (repository, mistakes) = found.map_err(|e| match &global.config {
        Some(path) => e.at(path.display()),
        None => e,
    })?;
    if !global.quiet {
        mistakes.iter().for_each(|e| remark(&plain(&format!("warning: {e}"))));
    }
    Ok(repository)
}

/// What the terminal was like before a question silenced it.
static SILENCED: Mutex<Option<Termios>> = Mutex::new(None);

fn on(kind: SignalKind) -> Result<tokio::signal::unix::Signal> {
    signal(kind).map_err(|e| Error::new(Kind::Bug, format!("cannot listen for interrupts: {e}")))
}

/// Whether this program was started with hang-ups ignored.
fn hang_ups_are_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    // The lowest bit is the first signal, which this is.
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 == 1)
}

/// Raises the flag on the first interrupt or hang-up, ends on the second interrupt, unless somebody else takes them.
/// Listens from the moment that it returns.
fn listen(runtime: &Runtime, flag: Cancel, signals: Signals) -> Result<()> {
    let _inside = runtime.enter();
    let (mut int, mut term) = (on(SignalKind::interrupt())?, on(SignalKind::terminate())?);
    // A terminal that goes away is an interruption, so that what was frozen by a hook is thawed by another; unless
    // somebody, like `nohup`, said that it is to be ignored.
    if !hang_ups_are_ignored() {
        let (mut hang_up, flag, signals) = (on(SignalKind::hangup())?, flag.clone(), signals.clone());
        runtime.spawn(async move {
            while hang_up.recv().await.is_some() {
                // A daemon is told of them otherwise. They often come twice: the second one asks for nothing more.
                if lock(&signals).is_none() && !flag.raised() {
                    if unsilence() {
                        std::process::exit(130);
                    }
                    flag.raise();
                }
            }
        });
    }
    runtime.spawn(async move {
        loop {
            tokio::select! { _ = int.recv() => {}, _ = term.recv() => {} }
            let taken = lock(&signals).as_ref().is_some_and(|to| to.send(Signal::Stop).is_ok());
            // Nothing is begun while a secret is asked for; and nobody would see what he types afterwards.
            if taken {
                continue;
            }
            if unsilence() || flag.raised() {
                std::process::exit(130);
            }
            flag.raise();
            remark("stopping; stored work is kept (once more: stop at once)");
        }
    });
    Ok(())
}

/// Makes a terminal that a question silenced what it was; whether there was one.
fn unsilence() -> bool {
    let Some(before) = lock(&SILENCED).take() else { return false };
    // It ends in any case.
    let _ = termios::tcsetattr(std::io::stdin(), OptionalActions::Flush, &before);
    remark("");
    true
}

/// Asks on the terminal without showing what is typed.
pub fn ask(question: &str) -> Result<Zeroizing<String>> {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        return Err(Error::new(Kind::WrongKey, "no key was given")
            .advise(format!("use --passphrase-file, --key-file, --recovery-key-file or {PASSPHRASE_ENV}")));
    }
    let failed = |e: std::io::Error| Error::new(Kind::WrongKey, format!("cannot ask for the passphrase: {e}"));
    let before = termios::tcgetattr(&stdin).map_err(|e| failed(e.into()))?;
    let mut silent = before.clone();
    silent.local_modes.remove(LocalModes::ECHO);
    // Silence comes before the question: whoever answers at once is neither shown nor thrown away.
    *lock(&SILENCED) = Some(before.clone());
    termios::tcsetattr(&stdin, OptionalActions::Flush, &silent).map_err(|e| failed(e.into()))?;
    let mut err = std::io::stderr();
    let asked = err.write_all(question.as_bytes()).and_then(|()| err.flush());
    let mut text = Zeroizing::new(String::new());
    let read = asked.and_then(|()| stdin.lock().read_line(&mut text));
    termios::tcsetattr(&stdin, OptionalActions::Flush, &before).map_err(|e| failed(e.into()))?;
    *lock(&SILENCED) = None;
    remark("");
    read.map_err(failed)?;
    let len = text.trim_end_matches(['\n', '\r']).len();
    text.truncate(len);
    Ok(text)
}

/// Whether a snapshot passes the filters.
pub fn passes(filter: &Filter, manifest: &Manifest) -> bool {
    filter.name.as_ref().is_none_or(|n| *n == manifest.source.name)
        && filter.host.as_ref().is_none_or(|h| *h == manifest.source.host)
        && filter.tag.iter().all(|t| manifest.tags.contains(t))
}
