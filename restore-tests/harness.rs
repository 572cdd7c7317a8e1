//! What every test from outside needs: the shipped binary, a place of its own, regions, a tree to back up.

use holdfast::base::Env;
use holdfast::region::Address;
use holdfast::repo::Repo;
use holdfast::repo::open::{Opening, open};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use tempfile::TempDir;

/// The passphrase of every test repository.
pub const PASSPHRASE: &str = "correct-tests-need-no-strong-passphrase-9431";

/// A directory of its own with regions `a`, `b`, … and the program to run on them.
pub struct Bench {
    pub dir: TempDir,
    pub regions: Vec<&'static str>,
    /// The key file, where one is used instead of the passphrase: it costs no time.
    pub key: Option<PathBuf>,
}

impl Bench {
    /// Without a repository yet.
    pub fn empty(regions: &[&'static str]) -> Bench {
        Bench { dir: TempDir::new().expect("temporary directory"), regions: regions.to_vec(), key: None }
    }

    /// With a repository that a key file opens.
    pub fn with_key(regions: &[&'static str]) -> Bench {
        let mut bench = Bench::in_memory(regions);
        bench.make_key();
        bench.ok(&["init", "--no-recovery-key"]);
        bench
    }

    /// Makes a key file and uses it from now on.
    pub fn make_key(&mut self) {
        use std::os::unix::fs::PermissionsExt;
        let path = self.path("key");
        std::fs::write(&path, noise(0x6b65_7900, 32)).expect("key file");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("mode");
        self.key = Some(path);
    }

    /// Another bench with the same regions and key, to be spoiled.
    pub fn copy(&self) -> Bench {
        let mut other = Bench::in_memory(&self.regions);
        for entry in std::fs::read_dir(self.dir.path()).expect("bench").flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name == "key" || name.starts_with("region-") {
                let done = Command::new("cp").arg("-a").arg(entry.path()).arg(other.path(&name)).status();
                assert!(done.is_ok_and(|s| s.success()), "cp {name}");
            }
        }
        other.key = self.key.as_ref().map(|_| other.path("key"));
        other
    }

    /// The same in memory, where the machine has it: many small runs spend their time in fsync.
    pub fn in_memory(regions: &[&'static str]) -> Bench {
        let mut bench = Bench::empty(regions);
        let free = rustix::fs::statvfs("/dev/shm").map_or(0, |s| s.f_bavail * s.f_frsize);
        if free >= 2 << 30 {
            bench.dir = TempDir::new_in("/dev/shm").expect("temporary directory");
        }
        bench
    }

    /// With a repository in these regions.
    pub fn new(regions: &[&'static str]) -> Bench {
        let bench = Bench::empty(regions);
        bench.ok(&["init", "--no-recovery-key"]);
        bench
    }

    /// A path in the bench's directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The folder of a region.
    pub fn region(&self, name: &str) -> PathBuf {
        self.path(&format!("region-{name}"))
    }

    /// The program with the bench's regions and passphrase.
    pub fn command(&self, args: &[&str]) -> Command {
        self.command_at(&self.regions, args)
    }

    /// The same with some of the regions only.
    pub fn command_at(&self, regions: &[&str], args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast"));
        if let Some(key) = &self.key {
            command.arg("--key-file").arg(key);
        }
        for name in regions {
            command.arg("--region").arg(format!("{name}={}", self.region(name).display()));
        }
        command
            .args(args)
            .env("HOLDFAST_PASSPHRASE", PASSPHRASE)
            .env("HOLDFAST_STATE", self.path("state"))
            .current_dir(self.dir.path());
        command.stdin(Stdio::null());
        command
    }

    /// Runs; returns exit code and output.
    pub fn run(&self, args: &[&str]) -> (i32, Output) {
        let output = self.command(args).output().expect("the program runs");
        (output.status.code().unwrap_or(-1), output)
    }

    /// Runs with `--json`; the last line of the output as JSON, with the exit code.
    pub fn json(&self, args: &[&str]) -> (i32, Value) {
        self.json_at(&self.regions, args)
    }

    /// The same with some of the regions only.
    pub fn json_at(&self, regions: &[&str], args: &[&str]) -> (i32, Value) {
        let output = self.command_at(regions, &[&["--json", "--quiet"], args].concat()).output().expect("it runs");
        let code = output.status.code().unwrap_or(-1);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let last = text.lines().last().unwrap_or_default();
        let value = serde_json::from_str(last).unwrap_or_else(|e| {
            panic!("no JSON from {args:?}: {e}: {text}\n{}", String::from_utf8_lossy(&output.stderr))
        });
        (code, value)
    }

    /// Runs with `--json` and expects exit code 0.
    pub fn ok(&self, args: &[&str]) -> Value {
        let (code, value) = self.json(args);
        assert_eq!(code, 0, "{args:?}: {value:#}");
        value
    }

    /// Every object of a region, as paths relative to it, sorted.
    pub fn objects(&self, region: &str) -> Vec<String> {
        let root = self.region(region);
        let mut found: Vec<String> =
            files(&root).into_iter().map(|p| p.strip_prefix(&root).expect("inside").display().to_string()).collect();
        found.sort();
        found
    }
}

/// Writes a configuration: the repository of regions `a` and `b`, and a policy `daily` of one source `s`, with `spec`
/// beside its schedule.
pub fn configure_daily(bench: &Bench, spec: &str) {
    let region = |r: &str| format!("  - {{name: {r}, url: {}}}\n", bench.region(r).display());
    let text = format!(
        "apiVersion: holdfast.io/v1alpha1\nkind: Repository\nmetadata: {{name: main}}\nspec:\n  regions:\n{}{}---\n\
         apiVersion: holdfast.io/v1alpha1\nkind: BackupPolicy\nmetadata: {{name: daily}}\nspec:\n  \
         sources: [{{name: s, paths: [{}]}}]\n  retries: {{max: 0}}\n  objectives: {{rpo: 2h}}\n  \
         schedule: {{incremental: '@hourly', full: '@weekly'}}\n  {spec}\n",
        region("a"),
        region("b"),
        bench.path("source").display(),
    );
    std::fs::write(bench.path("holdfast.yaml"), text).unwrap();
}

/// Every regular file below a directory.
pub fn files(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![root.to_path_buf()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|t| t.is_dir()) { open.push(entry.path()) } else { found.push(entry.path()) }
        }
    }
    found
}

/// Deterministic bytes that do not compress (SplitMix64, Steele et al. 2014).
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed;
    let mut out = Vec::with_capacity(len + 8);
    while out.len() < len {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        out.extend_from_slice(&(z ^ (z >> 31)).to_le_bytes());
    }
    out.truncate(len);
    out
}

/// A small tree with a bit of everything that stores chunks: tiny, small, bundled, whole and cut files.
pub fn small_tree(root: &Path) {
    std::fs::create_dir_all(root.join("docs/deep")).expect("directories");
    std::fs::write(root.join("tiny"), b"tiny").expect("file");
    std::fs::write(root.join("empty"), b"").expect("file");
    for n in 0..40u64 {
        std::fs::write(root.join(format!("docs/note-{n}")), noise(n, 2000 + n as usize)).expect("file");
    }
    std::fs::write(root.join("docs/deep/text"), "all work and no play\n".repeat(9000)).expect("file");
    std::fs::write(root.join("whole"), noise(100, 200_000)).expect("file");
    std::fs::write(root.join("cut"), noise(101, 5_000_000)).expect("file");
    std::os::unix::fs::symlink("tiny", root.join("link")).expect("symlink");
}

/// Panics with the differences between two trees (`diff -r`, which follows no links here).
pub fn assert_same(left: &Path, right: &Path) {
    let out = Command::new("diff").arg("-r").arg("--no-dereference").arg(left).arg(right).output().expect("diff runs");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stdout));
}

/// A repository opened through the library, with the runtime that serves it.
pub struct Opened {
    repo: Arc<Repo>,
    _runtime: tokio::runtime::Runtime,
}

impl std::ops::Deref for Opened {
    type Target = Arc<Repo>;

    fn deref(&self) -> &Arc<Repo> {
        &self.repo
    }
}

/// Starts the program, which says at its end what it did.
pub fn start(bench: &Bench, args: &[&str]) -> Child {
    let mut command = bench.command(&[&["--json", "--quiet"], args].concat());
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts")
}

/// What it said, once it has ended well.
pub fn end(child: Child) -> Value {
    let out = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    assert_eq!(out.status.code(), Some(0), "{said}{}", String::from_utf8_lossy(&out.stderr));
    serde_json::from_str(&said).unwrap_or_else(|e| panic!("{e}: {said}"))
}

/// Opens the bench's repository through the library.
pub fn opened(bench: &Bench) -> Opened {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let address = |name: &&'static str| Address { name: (*name).into(), place: bench.region(name).into() };
    let addresses: Vec<Address> = bench.regions.iter().map(address).collect();
    let env = Env::system();
    let opening =
        Opening { addresses: &addresses, copies_min: 1, pin: None, state: None, env: &env, handle: runtime.handle() };
    let secret = holdfast::unlock::from_passphrase(String::from(PASSPHRASE).into()).expect("a passphrase");
    let repo = Arc::new(open(&opening, &secret).unwrap_or_else(|e| panic!("{e}")));
    Opened { repo, _runtime: runtime }
}

/// Waits until nothing written so far is too recent to be trusted.
pub fn settle(dir: &Path) {
    let made = || {
        std::fs::write(dir.join("probe"), b"x").unwrap();
        dir.join("probe").metadata().unwrap().modified().unwrap()
    };
    let start = made();
    while made().duration_since(start).unwrap_or_default().as_millis() < 200 {}
}
