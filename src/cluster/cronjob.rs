//! A policy as `batch/v1` CronJobs: one for each of its schedules.
//!
//! Kubernetes starts the pods; everything else stays with the program in them. It waits as the policy's jitter and
//! blackouts say, gives way to a full backup that is due at the same time, and tries again what failed. So a
//! pod that ends by itself has said its last word: its exit code fails the Job at once. Only pods that were
//! killed are started again.

use super::HOME;
use super::names::{check_name, fitted};
use super::volumes::{self, Claim, Mount};
use crate::error::{Error, Exit, Kind, Result};
use crate::policy::{
    Address, Alert, BackupPolicy, Concurrency, Hooks, Name, Receiver, Repository, Source, Task, yaml_text,
};
use serde_json::{Value, json};
use std::path::PathBuf;

/// Longest name of a CronJob: the names of its Jobs get eleven characters more.
const NAME_BYTES_MAX: usize = 52;
/// Of the policy in it, so that the names of all its CronJobs look alike.
const POLICY_BYTES_MAX: usize = NAME_BYTES_MAX - "holdfast--incremental".len();
/// The controller looks every ten seconds: a shorter deadline would never be met.
const DEADLINE_S_MIN: i64 = 10;
/// How often a pod that was killed is started again at most.
const BACKOFF_MAX: u32 = 6;
/// What a run has to store its work and end, when it is told to.
const GRACE_S: i64 = 120;

/// A Secret and the key in it that holds the passphrase.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretKey {
    /// Name of the Secret.
    pub name: String,
    /// The key.
    pub key: String,
}

impl SecretKey {
    /// Reads `NAME` or `NAME/KEY`.
    ///
    /// # Errors
    /// [`Kind::Config`] for anything else.
    pub fn parse(text: &str) -> Result<SecretKey> {
        let (name, key) = text.split_once('/').unwrap_or((text, "passphrase"));
        check_name("Secret", name)?;
        let plain = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.');
        if key.is_empty() || key.len() > 253 || key.starts_with("..") || key == "." || !key.bytes().all(plain) {
            let what = format!("{key:?} cannot be a key of a Secret");
            return Err(Error::new(Kind::Config, what).advise("write NAME or NAME/KEY"));
        }
        Ok(SecretKey { name: name.to_owned(), key: key.to_owned() })
    }
}

/// As whom the program runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct User {
    /// User number; 0 reads files of every owner.
    pub uid: u32,
    /// Group number; claims that are written belong to it.
    pub gid: u32,
}

impl Default for User {
    fn default() -> Self {
        User { uid: 65_532, gid: 65_532 }
    }
}

impl User {
    /// Reads `UID` or `UID:GID`.
    ///
    /// # Errors
    /// [`Kind::Config`] for anything else.
    pub fn parse(text: &str) -> Result<User> {
        let number = |part: &str| part.parse::<u32>().ok().filter(|n| i32::try_from(*n).is_ok());
        let (uid, gid) = text.split_once(':').unwrap_or((text, text));
        let user = number(uid).zip(number(gid)).map(|(uid, gid)| User { uid, gid });
        user.ok_or_else(|| Error::new(Kind::Config, format!("{text:?} is no user")).advise("write UID or UID:GID"))
    }
}

/// What is wanted beside what the policy says.
#[derive(Debug, Clone, Default)]
pub struct Wishes {
    /// Where to; without it wherever they are applied.
    pub namespace: Option<String>,
    /// Image of the container.
    pub image: String,
    /// A ConfigMap with the configuration; without it one is made.
    pub config_map: Option<String>,
    /// Where the passphrase is; by default in `holdfast-REPOSITORY`, under `passphrase`.
    pub secret: Option<SecretKey>,
    /// What is mounted where, as far as it is not to be made up.
    pub claims: Vec<Claim>,
    /// As whom it runs.
    pub user: User,
    /// How long a run may take, seconds; without it as long as it needs.
    pub active_deadline_s: Option<i64>,
    /// Memory that a pod may use.
    pub memory: String,
}

/// An object of Kubernetes.
#[derive(Debug, Clone)]
pub struct Manifest {
    /// Its kind.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
    /// All of it.
    pub document: Value,
}

/// What was made of a policy.
#[derive(Debug, Clone)]
pub struct Manifests {
    /// The objects, in the order in which they are wanted.
    pub manifests: Vec<Manifest>,
    /// What must be there besides.
    pub needs: Vec<String>,
    /// What is not as the policy or a careful administrator would have it.
    pub warnings: Vec<String>,
}

/// Everything that one CronJob is made of.
struct Making<'a> {
    policy: &'a BackupPolicy,
    wishes: &'a Wishes,
    config_map: String,
    secret: SecretKey,
    mounts: Vec<Mount>,
}

/// The CronJobs of a policy, and a ConfigMap with it unless one is named.
///
/// # Errors
/// [`Kind::Config`]: nothing is scheduled, a path cannot be mounted, a name cannot be one.
pub fn cron_jobs(policy: &BackupPolicy, repository: &Repository, wishes: &Wishes) -> Result<Manifests> {
    check(wishes)?;
    let tasks: Vec<Task> = Task::ALL.into_iter().filter(|task| policy.calendar().cron(*task).is_some()).collect();
    if tasks.is_empty() {
        let what = format!("nothing is scheduled in the policy `{}`", policy.name());
        return Err(Error::new(Kind::Config, what).advise("add a schedule: a CronJob needs one"));
    }
    let usual = || SecretKey { name: format!("holdfast-{}", repository.name()), key: "passphrase".into() };
    let making = Making {
        policy,
        wishes,
        config_map: wishes.config_map.clone().unwrap_or_else(|| base_name(policy)),
        secret: wishes.secret.clone().unwrap_or_else(usual),
        mounts: volumes::of(policy, repository, &wishes.claims)?,
    };
    let mut manifests = Vec::new();
    let mut needs = vec![format!("Secret {} with the passphrase under `{}`", making.secret.name, making.secret.key)];
    match &wishes.config_map {
        Some(name) => needs.push(format!("ConfigMap {name} with the configuration that has the policy")),
        None => manifests.push(making.config_map(repository)),
    }
    needs.extend(making.mounts.iter().map(Mount::need));
    manifests.extend(tasks.iter().filter_map(|task| making.cron_job(*task)));
    let mut warnings: Vec<String> = making.mounts.iter().filter_map(Mount::warning).collect();
    warnings.extend(making.warnings(&tasks));
    Ok(Manifests { manifests, needs, warnings })
}

fn check(wishes: &Wishes) -> Result<()> {
    wishes.namespace.as_ref().map(|name| Name::parse("namespace", name)).transpose()?;
    wishes.config_map.as_ref().map(|name| check_name("ConfigMap", name)).transpose()?;
    if wishes.active_deadline_s.is_some_and(|seconds| seconds < 1) {
        let e = Error::new(Kind::Config, "the deadline is zero");
        return Err(e.advise("use a longer one, or leave it out"));
    }
    if wishes.image.is_empty() || wishes.image.chars().any(|c| c.is_whitespace() || c.is_control()) {
        let what = format!("{:?} is no image", wishes.image);
        return Err(Error::new(Kind::Config, what).advise("write it like `registry.example/holdfast:1.0`"));
    }
    let digits = wishes.memory.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = &wishes.memory[digits.len()..];
    if digits.parse::<u32>().is_ok_and(|n| n > 0) && ["Mi", "Gi", "M", "G"].contains(&unit) {
        return Ok(());
    }
    let what = format!("{:?} is no amount of memory", wishes.memory);
    Err(Error::new(Kind::Config, what).advise("write it like `2Gi`"))
}

/// Of the policy's CronJobs without the task.
fn base_name(policy: &BackupPolicy) -> String {
    format!("holdfast-{}", fitted(policy.name().as_str(), POLICY_BYTES_MAX))
}

/// What an alert needs and a pod does not see, and what it shows to others.
fn unmounted(alert: &Alert) -> Vec<String> {
    let Receiver::Webhook(webhook) = &alert.to else { return Vec::new() };
    let name = &alert.name;
    let mut said = Vec::new();
    let file = match &webhook.address {
        Address::File(path) => Some(path),
        Address::Url(_) => {
            said.push(format!(
                "alert {name}: its address stands in the ConfigMap: put one that holds a token into a file"
            ));
            None
        }
    };
    for path in file.into_iter().chain(&webhook.headers_file) {
        said.push(format!("alert {name}: the pod has no {}: mount it there, or nobody is told", path.display()));
    }
    said
}

/// Keys and certificates by which models are trusted, and that a pod does not see.
fn unseen(source: &Source) -> Vec<String> {
    let files = source.model.iter().flat_map(|trust| trust.keys.iter().chain(&trust.chains));
    let said = |path: &PathBuf| {
        let (name, path) = (&source.name, path.display());
        format!("source {name}: the pod has no {path}: mount it there, or its signatures are not believed")
    };
    files.map(said).collect()
}

/// Exit codes after which another pod would find nothing else. They stand in their order, as clusters want them.
fn is_last_word(exit: &Exit) -> bool {
    !matches!(exit, Exit::Done | Exit::Interrupted)
}

impl Making<'_> {
    fn metadata(&self, name: &str, task: Option<Task>) -> Value {
        let mut labels =
            json!({"app.kubernetes.io/name": "holdfast", "holdfast.io/policy": self.policy.name().as_str()});
        if let Some(task) = task {
            labels["holdfast.io/task"] = task.name().into();
        }
        let mut metadata = json!({"name": name, "labels": labels});
        if let Some(namespace) = &self.wishes.namespace {
            metadata["namespace"] = namespace.as_str().into();
        }
        metadata
    }

    /// The policy and its repository with every default filled in, so that a pod needs nothing else.
    fn config_map(&self, repository: &Repository) -> Manifest {
        let documents = [yaml_text(&json!(repository.effective())), yaml_text(&json!(self.policy.effective()))];
        let document = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": self.metadata(&self.config_map, None),
            "data": {"holdfast.yaml": documents.join("---\n")},
        });
        Manifest { kind: "ConfigMap", name: self.config_map.clone(), document }
    }

    fn cron_job(&self, task: Task) -> Option<Manifest> {
        let cron = self.policy.calendar().cron(task)?;
        let name = format!("{}-{}", base_name(self.policy), task.name());
        let metadata = self.metadata(&name, Some(task));
        let labels = &metadata["labels"];
        let mut spec = json!({
            "schedule": cron.five_fields(),
            "timeZone": self.policy.zone().name(),
            "concurrencyPolicy": "Forbid",
            "successfulJobsHistoryLimit": 3,
            "failedJobsHistoryLimit": 5,
            "jobTemplate": {"metadata": {"labels": labels}, "spec": self.job(task, labels)},
        });
        if let Some(seconds) = self.deadline_s() {
            spec["startingDeadlineSeconds"] = seconds.into();
        }
        let document = json!({"apiVersion": "batch/v1", "kind": "CronJob", "metadata": metadata, "spec": spec});
        Some(Manifest { kind: "CronJob", name, document })
    }

    fn deadline_s(&self) -> Option<i64> {
        self.policy.calendar().starting_deadline_ms().map(|ms| (ms / 1000).max(DEADLINE_S_MIN))
    }

    fn job(&self, task: Task, labels: &Value) -> Value {
        let codes: Vec<u8> = Exit::ALL.into_iter().filter(is_last_word).map(|exit| exit as u8).collect();
        let mut job = json!({
            "backoffLimit": self.policy.retries().max.min(BACKOFF_MAX),
            "podFailurePolicy": {"rules": [
                {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                {"action": "FailJob", "onExitCodes": {"containerName": "holdfast", "operator": "In", "values": codes}},
            ]},
            "template": {"metadata": {"labels": labels}, "spec": self.pod(task)},
        });
        if let Some(seconds) = self.wishes.active_deadline_s {
            job["activeDeadlineSeconds"] = seconds.into();
        }
        job
    }

    fn pod(&self, task: Task) -> Value {
        let item = json!([{"key": self.secret.key, "path": "passphrase"}]);
        let mut volumes = vec![
            json!({"name": "config", "configMap": {"name": self.config_map}}),
            json!({"name": "secret", "secret": {"secretName": self.secret.name, "defaultMode": 0o400, "items": item}}),
            json!({"name": "tmp", "emptyDir": {}}),
        ];
        if !self.keeps_state() {
            volumes.push(json!({"name": "state", "emptyDir": {}}));
        }
        volumes.extend(volumes::written(&self.mounts_of(task)).0);
        json!({
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": GRACE_S,
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            // In snapshots, instead of the pod's name.
            "hostname": base_name(self.policy),
            "securityContext": self.user(),
            "containers": [self.container(task)],
            "volumes": volumes,
        })
    }

    fn user(&self) -> Value {
        let User { uid, gid } = self.wishes.user;
        let mut user = json!({
            "runAsNonRoot": uid != 0, "runAsUser": uid, "runAsGroup": gid, "seccompProfile": {"type": "RuntimeDefault"},
        });
        // Root owns the secret and the regions, and needs no group for them.
        if uid != 0 {
            user["fsGroup"] = gid.into();
            user["fsGroupChangePolicy"] = "OnRootMismatch".into();
        }
        user
    }

    fn container(&self, task: Task) -> Value {
        let mut capabilities = json!({"drop": ["ALL"]});
        if self.wishes.user.uid == 0 {
            // Without it, root reads no more than what others may.
            capabilities["add"] = json!(["DAC_READ_SEARCH"]);
        }
        let path = |name: &str| format!("{HOME}/{name}");
        let mount = |name: &str, read_only: bool| json!({"name": name, "mountPath": path(name), "readOnly": read_only});
        let mut mounts = vec![mount("config", true), mount("secret", true), mount("tmp", false)];
        if !self.keeps_state() {
            mounts.push(mount("state", false));
        }
        mounts.extend(volumes::written(&self.mounts_of(task)).1);
        let (config, secret) = (path("config"), path("secret/passphrase"));
        json!({
            "name": "holdfast",
            "image": self.wishes.image,
            "command": [path("bin/holdfast")],
            "args": [
                "run", self.policy.name().as_str(), "--kind", task.name(), "--scheduled",
                "--config", config, "--passphrase-file", secret,
            ],
            "env": [
                {"name": "HOLDFAST_STATE", "value": path("state")},
                {"name": "TMPDIR", "value": path("tmp")},
            ],
            "resources": {
                "requests": {"cpu": "250m", "memory": "512Mi"},
                "limits": {"memory": self.wishes.memory},
            },
            "securityContext": {
                "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": capabilities,
            },
            "volumeMounts": mounts,
        })
    }

    /// A check reads no source, and no more does a prune.
    fn mounts_of(&self, task: Task) -> Vec<&Mount> {
        self.mounts.iter().filter(|mount| mount.writable || task.is_backup()).collect()
    }

    /// Whether a claim keeps the catalog.
    fn keeps_state(&self) -> bool {
        self.wishes.claims.iter().any(|claim| claim.path.as_os_str() == volumes::STATE)
    }

    fn warnings(&self, tasks: &[Task]) -> Vec<String> {
        let calendar = self.policy.calendar();
        let mut said = Vec::new();
        if calendar.jitter_ms() > 0 || !calendar.blackouts().is_empty() {
            said.push(
                "a CronJob knows no jitter and no blackouts: the pod starts when the run is due and waits".into(),
            );
        }
        for task in tasks {
            let Some(cron) = calendar.cron(*task) else { continue };
            let (skipped, doubled) = cron.clock_changes(calendar.zone());
            let (name, zone) = (task.name(), calendar.zone());
            if let Some(time) = skipped.map(|time| time.format("%H:%M")) {
                said.push(format!(
                    "{name}: the change to summer time skips {time} in {zone}: Kubernetes starts no run on that day"
                ));
            }
            if let Some(time) = doubled.map(|time| time.format("%H:%M")) {
                said.push(format!(
                    "{name}: {time} comes twice when summer time ends in {zone}: Kubernetes starts two runs"
                ));
            }
        }
        said.extend(self.policy.sources().iter().flat_map(unseen));
        if self.policy.between_ms().is_some() {
            said.push("deltas between backups are taken by a daemon; CronJobs take the backups alone".into());
        }
        if self.policy.concurrency() != Concurrency::Forbid {
            said.push(
                "a run that is due while one of the same CronJob is under way is missed, whatever `concurrency` says"
                    .into(),
            );
        }
        if calendar.starting_deadline_ms().is_some_and(|ms| ms < DEADLINE_S_MIN * 1000) {
            said.push(format!("the starting deadline is {DEADLINE_S_MIN} s: Kubernetes looks no more often"));
        }
        let programs = |alert: &Alert| matches!(alert.to, Receiver::Command(_));
        let hooks = |hooks: &Hooks| !(hooks.before.is_empty() && hooks.on_failure.is_empty() && hooks.after.is_empty());
        let hooked = hooks(self.policy.hooks()) || self.policy.sources().iter().any(|source| hooks(&source.hooks));
        if hooked || self.policy.alerts().iter().any(programs) {
            said.push(
                "hooks and programs that are told run inside the pod: an image of this project holds none".into(),
            );
        }
        if !self.policy.alerts().iter().all(programs) {
            said.push("webhooks over https need the certificates of authorities: mount or add /etc/ssl/certs".into());
        }
        said.extend(self.policy.alerts().iter().flat_map(unmounted));
        if self.policy.priority() != 0 {
            said.push("the priority orders runs of one daemon; for pods there are priority classes".into());
        }
        if self.wishes.user.uid == 0 {
            said.push(
                "the pod runs as root to read files of every owner: a namespace with restricted pods refuses it".into(),
            );
        }
        said
    }
}
