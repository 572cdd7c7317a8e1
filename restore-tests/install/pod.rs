//! The pod of a CronJob, run by hand: a root that holds the static program and nothing else, the volumes mounted where
//! the manifest says, as the kubelet lays them out, its variables and no others, its user, no capabilities, no network.

use super::{documents, holdfast, static_program};
use crate::harness::PASSPHRASE;
use serde_json::Value;
use std::collections::BTreeMap;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;

/// Capabilities by the name that a manifest gives them; all others are dropped.
const READ_ALL: &str = "DAC_READ_SEARCH";

/// A cluster with one node.
pub struct Cluster {
    pub dir: TempDir,
    jobs: BTreeMap<String, Value>,
    config: Value,
}

impl Cluster {
    /// With the CronJobs of the policy `data`: its source is /srv/data, its regions /mnt/a/holdfast and /mnt/b/holdfast.
    pub fn new(spec: &str, wishes: &[&str]) -> Cluster {
        let dir = TempDir::new().unwrap();
        let text = format!(
            "apiVersion: holdfast.io/v1alpha1\nkind: Repository\nmetadata: {{name: main}}\nspec:\n  regions:\n  - {{name: a, \
             url: /mnt/a/holdfast}}\n  - {{name: b, url: /mnt/b/holdfast}}\n---\napiVersion: holdfast.io/v1alpha1\nkind: \
             BackupPolicy\nmetadata: {{name: data}}\nspec:\n  sources: [{{paths: [/srv/data]}}]\n  retries: {{max: 0}}\n{spec}"
        );
        std::fs::write(dir.path().join("holdfast.yaml"), text).unwrap();
        let (code, printed, err) = holdfast(dir.path(), &[&["manifest", "cronjob", "data"], wishes].concat());
        assert_eq!(code, 0, "{err}");
        let file = dir.path().join("printed.yaml");
        std::fs::write(&file, printed).unwrap();
        let (mut jobs, mut config) = (BTreeMap::new(), Value::Null);
        for document in documents(&file) {
            match document["kind"].as_str().unwrap() {
                "CronJob" => {
                    let task = document["metadata"]["labels"]["holdfast.io/task"].as_str().unwrap().to_owned();
                    jobs.insert(task, document);
                }
                _ => config = document["data"].clone(),
            }
        }
        let cluster = Cluster { dir, jobs, config };
        cluster.secret(Some(PASSPHRASE));
        cluster
    }

    /// The content of a claim.
    pub fn claim(&self, name: &str) -> PathBuf {
        let path = self.dir.path().join("claims").join(name);
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    /// What the Secret holds.
    pub fn secret(&self, passphrase: Option<&str>) {
        let path = self.dir.path().join("secret");
        passphrase.map_or_else(|| drop(std::fs::remove_file(&path)), |text| std::fs::write(&path, text).unwrap());
    }

    fn pod(&self, task: &str) -> &Value {
        &self.jobs[task]["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    }

    /// Runs the container of a CronJob exactly as it stands there.
    pub fn run(&self, task: &str) -> (i32, String) {
        let args: Vec<String> = serde_json::from_value(self.pod(task)["containers"][0]["args"].clone()).unwrap();
        self.run_with(task, &args.iter().map(String::as_str).collect::<Vec<_>>())
    }

    /// The same with other arguments.
    pub fn run_with(&self, task: &str, args: &[&str]) -> (i32, String) {
        let node = TempDir::new_in(self.dir.path()).unwrap();
        let pod = self.pod(task);
        let container = &pod["containers"][0];
        let image = node.path().join("root");
        let program: Vec<String> = serde_json::from_value(container["command"].clone()).unwrap();
        let inside = image.join(program[0].trim_start_matches('/'));
        folder(inside.parent().unwrap(), 0o755);
        std::fs::copy(static_program(), &inside).unwrap();
        std::fs::set_permissions(&inside, std::fs::Permissions::from_mode(0o555)).unwrap();
        std::fs::set_permissions(&image, std::fs::Permissions::from_mode(0o755)).unwrap();
        let group = pod["securityContext"]["fsGroup"].as_u64().map(|group| group as u32);
        let volumes: BTreeMap<String, PathBuf> = pod["volumes"]
            .as_array()
            .unwrap()
            .iter()
            .map(|v| (v["name"].as_str().unwrap().to_owned(), self.volume(v, node.path(), group)))
            .collect();
        // A new mount namespace sees what is mounted here, and what is mounted in it goes away with it.
        let mut script = format!("set -eu\nmount --bind {0} {0}\n", image.display());
        for mount in container["volumeMounts"].as_array().unwrap() {
            let at = image.join(mount["mountPath"].as_str().unwrap().trim_start_matches('/'));
            folder(&at, 0o755);
            let from = volumes[mount["name"].as_str().unwrap()].join(mount["subPath"].as_str().unwrap_or("."));
            script += &format!("mount --bind {} {}\n", from.display(), at.display());
            if mount["readOnly"] == true {
                script += &format!("mount -o remount,bind,ro {}\n", at.display());
            }
        }
        // Every container has it.
        folder(&image.join("proc"), 0o555);
        script += &format!("mount -t proc proc {}/proc\n", image.display());
        assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true);
        script +=
            &format!("mount -o remount,bind,ro {}\nhostname {}\n", image.display(), pod["hostname"].as_str().unwrap());
        script += "exec \"$@\"\n";
        let mut command = Command::new("unshare");
        command.args(["--mount", "--pid", "--fork", "--uts", "--ipc", "--net", "sh", "-c", &script, "sh", "env", "-i"]);
        for variable in container["env"].as_array().unwrap() {
            command.arg(format!("{}={}", variable["name"].as_str().unwrap(), variable["value"].as_str().unwrap()));
        }
        command.args(confined(pod, &image)).arg(format!("--shell={}", program[0])).arg("--").args(args);
        let out: Output = command.output().expect("unshare is needed");
        (out.status.code().unwrap_or(-1), super::said(&out))
    }

    /// A volume as the kubelet prepares it.
    fn volume(&self, volume: &Value, node: &Path, group: Option<u32>) -> PathBuf {
        let at = node.join(volume["name"].as_str().unwrap());
        if let Some(secret) = volume.get("secret") {
            let item = &secret["items"][0];
            let passphrase = std::fs::read(self.dir.path().join("secret")).ok();
            let files = passphrase.map(|text| (item["path"].as_str().unwrap().to_owned(), text));
            let mode = secret["defaultMode"].as_u64().unwrap() as u32;
            projected(&at, files.into_iter().collect(), mode | group.map_or(0, |_| 0o040), group);
        } else if volume.get("configMap").is_some() {
            let files: BTreeMap<String, String> = serde_json::from_value(self.config.clone()).unwrap();
            projected(&at, files.into_iter().map(|(name, text)| (name, text.into_bytes())).collect(), 0o644, group);
        } else if let Some(claim) = volume.get("persistentVolumeClaim") {
            let path = self.claim(claim["claimName"].as_str().unwrap());
            if let Some(group) = group.filter(|_| claim["readOnly"] == false) {
                let done = Command::new("chown").arg("-R").arg(format!(":{group}")).arg(&path).status().unwrap();
                let modes = Command::new("chmod").args(["-R", "g+rwX"]).arg(&path).status().unwrap();
                assert!(done.success() && modes.success());
            }
            return path;
        } else {
            assert!(volume.get("emptyDir").is_some(), "{volume}");
            folder(&at, 0o2777);
            chown(&at, None, group).unwrap();
        }
        at
    }
}

/// Into the root, with the user and the capabilities that the manifest leaves.
fn confined(pod: &Value, image: &Path) -> Vec<String> {
    let security = &pod["containers"][0]["securityContext"];
    assert_eq!(
        (&security["capabilities"]["drop"][0], &security["allowPrivilegeEscalation"]),
        (&"ALL".into(), &false.into())
    );
    let keep = match &security["capabilities"]["add"] {
        Value::Null => "",
        added => {
            assert_eq!(added, &serde_json::json!([READ_ALL]));
            READ_ALL
        }
    };
    let user = &pod["securityContext"];
    assert!(user["runAsNonRoot"] == (user["runAsUser"] != 0), "{user}");
    vec![
        // Without its variables nobody finds it by its name.
        "/sbin/capsh".into(),
        format!("--chroot={}", image.display()),
        format!("--drop={}", dropped(keep)),
        "--no-new-privs".into(),
        format!("--gid={}", user["runAsGroup"]),
        format!("--groups={}", user.get("fsGroup").unwrap_or(&user["runAsGroup"])),
        format!("--uid={}", user["runAsUser"]),
    ]
}

/// Every capability that this kernel knows, but one.
fn dropped(keep: &str) -> String {
    let out = Command::new("capsh").arg("--supports=cap_setpcap").arg("--print").output().expect("capsh is needed");
    let text = String::from_utf8(out.stdout).unwrap();
    let bounding = text.lines().find_map(|line| line.strip_prefix("Bounding set =")).expect("a bounding set");
    let keep = format!("cap_{}", keep.to_lowercase());
    bounding.trim().split(',').filter(|name| *name != keep).collect::<Vec<_>>().join(",")
}

fn folder(path: &Path, mode: u32) {
    std::fs::create_dir_all(path).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// Files of a Secret or a ConfigMap: links through a folder that can be exchanged at once.
fn projected(at: &Path, files: Vec<(String, Vec<u8>)>, mode: u32, group: Option<u32>) {
    const VERSION: &str = "..2026_11_24_08_00_00.123456789";
    folder(&at.join(VERSION), 0o755);
    folder(at, 0o755);
    symlink(VERSION, at.join("..data")).unwrap();
    for (name, content) in files {
        let path = at.join(VERSION).join(&name);
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        chown(&path, Some(0), group).unwrap();
        symlink(Path::new("..data").join(&name), at.join(&name)).unwrap();
    }
}
