//! What a pod of a policy must see: the paths of its sources, to be read, and the folders of its regions, to be
//! written; and the claims that are mounted there.

use super::HOME;
use super::names::{check_name, label_of};
use crate::error::{Error, Kind, Result};
use crate::policy::{BackupPolicy, Repository};
use serde_json::{Value, json};
use std::path::{Component, Path, PathBuf};

/// The program's own folder in a pod that may be kept in a claim: the catalog.
pub(super) const STATE: &str = "/holdfast/state";
/// What a container has for itself.
const SYSTEM: [&str; 3] = ["/proc", "/sys", "/dev"];
/// Longest name of a claim that is made up.
const CLAIM_BYTES_MAX: usize = 50;

/// A volume claim and where it is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Where.
    pub path: PathBuf,
    /// Name of the PersistentVolumeClaim.
    pub name: String,
    /// The folder in it, if it is not all of it.
    pub sub_path: Option<String>,
}

impl Claim {
    /// Reads `PATH=CLAIM` or `PATH=CLAIM/FOLDER`.
    ///
    /// # Errors
    /// [`Kind::Config`] for anything else.
    pub fn parse(text: &str) -> Result<Claim> {
        let wrong = |what: String| Error::new(Kind::Config, what).advise("write PATH=CLAIM or PATH=CLAIM/FOLDER");
        let (path, claim) = text.split_once('=').ok_or_else(|| wrong(format!("{text:?} names no claim")))?;
        let (name, sub_path) = match claim.split_once('/') {
            Some((name, folder)) => (name, Some(folder)),
            None => (claim, None),
        };
        check_name("PersistentVolumeClaim", name)?;
        let plain = |folder: &&str| Path::new(folder).components().all(|part| matches!(part, Component::Normal(_)));
        if sub_path.is_some_and(|folder| folder.is_empty() || !plain(&folder)) {
            return Err(wrong(format!("{claim:?} has no folder of the claim")));
        }
        let path: PathBuf = Path::new(path).components().collect();
        mountable(&path, "the claim")?;
        Ok(Claim { path, name: name.to_owned(), sub_path: sub_path.map(str::to_owned) })
    }
}

/// A claim that is mounted.
#[derive(Debug)]
pub(super) struct Mount {
    claim: Claim,
    /// Whether a region or the catalog is there.
    pub writable: bool,
    /// Whether it holds a source too.
    mixed: bool,
}

/// Whether something can be mounted at a path of a pod.
fn mountable(path: &Path, whose: &str) -> Result<()> {
    let refuse = |why: &str, advice: &str| {
        Err(Error::new(Kind::Config, format!("{whose} {} {why}", path.display())).advise(advice.to_owned()))
    };
    if !path.is_absolute() || path.components().any(|part| part == Component::ParentDir) {
        return refuse("is not absolute", "in a pod there is no working directory: write the path from `/` on");
    }
    if path == Path::new("/") {
        return refuse("cannot be mounted", "it is the program's own image there: name folders below it");
    }
    let taken = |folder: &&str| path.starts_with(folder);
    if path != Path::new(STATE) && (SYSTEM.iter().any(taken) || taken(&HOME)) {
        return refuse("is taken in the pod", "use another path");
    }
    // What breaks lines for some readers of YAML could end the comment that a path stands in.
    let strange = |c: char| c.is_control() || matches!(c, ':' | '\u{2028}' | '\u{2029}' | '\u{feff}');
    if path.to_str().is_none_or(|text| text.contains(strange)) {
        return refuse("cannot be written in a manifest", "use a path of plain text without `:`");
    }
    Ok(())
}

/// Decides what is mounted where.
pub(super) fn of(policy: &BackupPolicy, repository: &Repository, given: &[Claim]) -> Result<Vec<Mount>> {
    let sources: Vec<&Path> = policy.sources().iter().flat_map(|s| &s.paths).map(PathBuf::as_path).collect();
    let regions: Vec<&Path> = repository.regions().iter().filter_map(|region| region.place.folder()).collect();
    sources.iter().try_for_each(|path| mountable(path, "the source"))?;
    regions.iter().try_for_each(|path| mountable(path, "the region"))?;
    check_given(given, &sources, &regions)?;
    let covers = |path: &Path| given.iter().any(|claim| path.starts_with(&claim.path));
    let filled = |path: &Path| given.iter().any(|claim| claim.path.starts_with(path));
    let mut claims = given.to_vec();
    for region in repository.regions() {
        let Some(path) = region.place.folder().filter(|path| !covers(path)) else { continue };
        let name = unused(&claims, &format!("{}-{}", repository.name(), region.name));
        claims.push(Claim { path: path.to_path_buf(), name, sub_path: None });
    }
    for source in sources.iter().filter(|path| !covers(path) && !filled(path)) {
        let inside = |claim: &Claim| source.starts_with(&claim.path);
        if !claims.iter().any(inside) && !sources.iter().any(|other| other != source && source.starts_with(other)) {
            let name = unused(&claims, &source.display().to_string());
            claims.push(Claim { path: source.to_path_buf(), name, sub_path: None });
        }
    }
    claims.sort_by(|a, b| a.path.cmp(&b.path));
    let mount = |claim: Claim| {
        let here = |path: &&Path| path.starts_with(&claim.path);
        let writable = claim.path == Path::new(STATE) || regions.iter().any(here);
        let mixed = writable && sources.iter().any(here);
        Mount { claim, writable, mixed }
    };
    Ok(claims.into_iter().map(mount).collect())
}

/// A name for a claim that nobody named: made of `text`, and not one that is there already.
fn unused(claims: &[Claim], text: &str) -> String {
    let name = label_of(text, CLAIM_BYTES_MAX);
    let there = claims.iter().any(|claim| claim.name == name);
    // A character that no label has lets digits be added.
    if there { label_of(&format!("{text}_"), CLAIM_BYTES_MAX) } else { name }
}

/// Every claim that was given is of use, and none stands twice.
fn check_given(given: &[Claim], sources: &[&Path], regions: &[&Path]) -> Result<()> {
    for (n, claim) in given.iter().enumerate() {
        let path = &claim.path;
        let read = sources.iter().any(|s| s.starts_with(path) || path.starts_with(s));
        let used = read || regions.iter().any(|region| region.starts_with(path)) || path == Path::new(STATE);
        let at = path.display();
        if !used {
            let what = format!("nothing of the policy is at {at}");
            return Err(Error::new(Kind::Config, what).advise("name the path of a source or of a region"));
        }
        if given.iter().take(n).any(|other| other.path == *path) {
            let what = format!("two claims are mounted at {at}");
            return Err(Error::new(Kind::Config, what).advise("leave one of them out"));
        }
    }
    Ok(())
}

/// As Kubernetes has them: volumes, where a claim is one however often it is mounted, and mounts.
pub(super) fn written(mounts: &[&Mount]) -> (Vec<Value>, Vec<Value>) {
    let mut names: Vec<&str> = Vec::new();
    for mount in mounts {
        if !names.contains(&mount.claim.name.as_str()) {
            names.push(&mount.claim.name);
        }
    }
    let volume = |(n, name): (usize, &&str)| {
        let read_only = mounts.iter().all(|mount| mount.claim.name != **name || !mount.writable);
        json!({"name": label(n), "persistentVolumeClaim": {"claimName": name, "readOnly": read_only}})
    };
    let mounted = |Mount { claim, writable, .. }: &&Mount| {
        let n = names.iter().position(|name| *name == claim.name).unwrap_or_default();
        let mut mount = json!({"name": label(n), "mountPath": shown(claim), "readOnly": !writable});
        if let Some(folder) = &claim.sub_path {
            mount["subPath"] = folder.as_str().into();
        }
        mount
    };
    (names.iter().enumerate().map(volume).collect(), mounts.iter().map(mounted).collect())
}

fn label(n: usize) -> String {
    format!("data-{}", n + 1)
}

fn shown(claim: &Claim) -> String {
    claim.path.display().to_string()
}

impl Mount {
    /// What must be there for it.
    pub fn need(&self) -> String {
        let how = if self.writable { "written" } else { "only read" };
        format!("PersistentVolumeClaim {} for {}, {how}", self.claim.name, shown(&self.claim))
    }

    /// What is not as it should be.
    pub fn warning(&self) -> Option<String> {
        let name = &self.claim.name;
        self.mixed.then(|| format!("the claim {name} holds a source and a region: they are lost together"))
    }
}
