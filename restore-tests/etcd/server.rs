//! Real etcd: clusters over TLS, and single members that come up on a restored database.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const READY_WITHIN: Duration = Duration::from_secs(60);

/// Versions that are tried.
pub const VERSIONS: [&str; 2] = ["3.5", "3.4"];

pub fn tool(version: &str, program: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools/etcd").join(version).join(program);
    assert!(path.exists(), "{} is missing: `scripts/etcd-tools` installs it", path.display());
    path
}

/// A port that nobody has: below those that the system gives to whoever asks, for it may be long before a member takes it,
/// and of each process others.
fn port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let next = || std::process::id().wrapping_mul(61).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
    let port = std::iter::repeat_with(|| 12_000 + (next() % 20_000) as u16).take(1000).find(free);
    port.expect("a port is free")
}

pub fn wait_a_little() {
    let (_alive, never) = std::sync::mpsc::channel::<()>();
    let _ = never.recv_timeout(Duration::from_millis(100)).is_err();
}

/// What a command prints; it must succeed.
pub fn said(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{command:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// One running member.
struct Node {
    name: String,
    client: u16,
    peer: u16,
    child: Option<Child>,
    /// It came to a cluster that was there, and has no vote yet.
    learns: bool,
}

/// A program that writes.
pub struct Writing(Child);

impl Drop for Writing {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A cluster; it ends when this is dropped, and when the test is killed.
pub struct Cluster {
    version: &'static str,
    dir: TempDir,
    nodes: Vec<Node>,
    tls: bool,
    /// What its members are told beside.
    flags: Vec<&'static str>,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        (0..self.nodes.len()).for_each(|n| self.kill(n));
    }
}

fn temporary() -> TempDir {
    let root = if Path::new("/dev/shm").is_dir() { "/dev/shm".into() } else { std::env::temp_dir() };
    tempfile::Builder::new().prefix("etcd-").tempdir_in(root).unwrap()
}

/// An authority, and the certificates of a server and a client; and a client's that has ended.
fn certificates(dir: &Path) {
    let script = r#"set -e
        EC='-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes'
        for a in ca other; do openssl req -x509 $EC -days 2 -subj /CN=$a -keyout $a.key -out $a.crt \
            -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign; done
        printf 'subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage=serverAuth,clientAuth\nkeyUsage=digitalSignature\nbasicConstraints=CA:FALSE' >ext
        for n in server client expired; do
            openssl req $EC -subj /CN=$n -keyout $n.key -out $n.csr
            openssl x509 -req -in $n.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -out $n.crt -extfile ext
        done
        # Only `ca` can date a certificate back.
        touch index; echo 10 >serial
        printf '[ca]\ndefault_ca=d\n[d]\ndatabase=index\nserial=serial\nnew_certs_dir=.\ndefault_md=sha256\npolicy=p\n[p]\ncommonName=supplied\n' >ca.cnf
        openssl ca -batch -config ca.cnf -cert ca.crt -keyfile ca.key -in expired.csr -out expired.crt -notext -extfile ext \
            -startdate 20200101000000Z -enddate 20200102000000Z"#;
    said(Command::new("bash").args(["-c", script]).current_dir(dir));
}

impl Cluster {
    /// Members that know each other, with TLS and client certificates.
    pub fn start(version: &'static str, members: usize) -> Cluster {
        let names: Vec<String> = (0..members).map(|n| format!("m{n}")).collect();
        let mut cluster = Cluster::prepared(version, &names.iter().map(String::as_str).collect::<Vec<_>>()).with_tls();
        cluster.run_all();
        cluster
    }

    /// Starts all members.
    pub fn run_all(&mut self) {
        (0..self.nodes.len()).for_each(|n| self.run(n));
        self.wait();
    }

    /// The same, with TLS and client certificates.
    pub fn with_tls(mut self) -> Cluster {
        certificates(self.dir.path());
        self.tls = true;
        self
    }

    /// The same, whose members are told this, too.
    pub fn with_flags(mut self, flags: &[&'static str]) -> Cluster {
        self.flags = flags.to_vec();
        self
    }

    /// Members without TLS and without anything yet.
    pub fn prepared(version: &'static str, names: &[&str]) -> Cluster {
        let node =
            |name: &&str| Node { name: (*name).to_owned(), client: port(), peer: port(), child: None, learns: false };
        Cluster { version, dir: temporary(), nodes: names.iter().map(node).collect(), tls: false, flags: Vec::new() }
    }

    /// A member's name, and its address for the others.
    pub fn peer(&self, n: usize) -> (&str, String) {
        (&self.nodes[n].name, self.url(self.nodes[n].peer))
    }

    /// Makes a member's data folder of a database, by etcd's own tool, so that all of them are one cluster.
    pub fn unpack(&self, n: usize, database: &Path) {
        let all: Vec<String> = self.nodes.iter().map(|n| format!("{}={}", n.name, self.url(n.peer))).collect();
        let (name, peer) = self.peer(n);
        let mut command = Command::new(tool(self.version, "etcdutl"));
        command.args(["snapshot", "restore"]).arg(database).args(["--data-dir", name, "--name", name]);
        command.args(["--initial-advertise-peer-urls", &peer, "--initial-cluster", &all.join(",")]);
        said(command.current_dir(self.dir.path()));
    }

    /// A member's address for clients.
    pub fn client(&self, n: usize) -> String {
        self.url(self.nodes[n].client)
    }

    /// One member without TLS on a restored database.
    pub fn restored(version: &'static str, database: &Path, flags: &[&str]) -> Cluster {
        let mut cluster = Cluster::prepared(version, &["default"]);
        let program = if version == "3.4" { "etcdctl" } else { "etcdutl" };
        let peer = format!("http://127.0.0.1:{}", cluster.nodes[0].peer);
        said(
            Command::new(tool(version, program))
                .args(["snapshot", "restore"])
                .arg(database)
                .args(["--data-dir", "default", "--initial-advertise-peer-urls", &peer])
                .args(["--initial-cluster", &format!("default={peer}")])
                .args(flags)
                .env("ETCDCTL_API", "3")
                .current_dir(cluster.dir.path()),
        );
        cluster.run(0);
        cluster.wait();
        cluster
    }

    fn url(&self, port: u16) -> String {
        format!("{}://127.0.0.1:{port}", if self.tls { "https" } else { "http" })
    }

    /// Starts a member, for the first time or again.
    pub fn run(&mut self, n: usize) {
        let all: Vec<String> = self.nodes.iter().map(|n| format!("{}={}", n.name, self.url(n.peer))).collect();
        let (client, peer) = (self.url(self.nodes[n].client), self.url(self.nodes[n].peer));
        let name = self.nodes[n].name.clone();
        let log = std::fs::File::options().create(true).append(true).open(self.path(&format!("{name}.log"))).unwrap();
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(tool(self.version, "etcd"));
        command.args(["--name", &name, "--data-dir", &name, "--unsafe-no-fsync"]);
        command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        let state = if self.nodes[n].learns { "existing" } else { "new" };
        command.args(["--initial-cluster", &all.join(","), "--initial-cluster-state", state]).args(&self.flags);
        if self.tls {
            command.args(["--cert-file", "server.crt", "--key-file", "server.key", "--trusted-ca-file", "ca.crt"]);
            command.args(["--peer-cert-file", "server.crt", "--peer-key-file", "server.key"]);
            command.args(["--peer-trusted-ca-file", "ca.crt", "--client-cert-auth", "--peer-client-cert-auth"]);
        }
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).current_dir(self.dir.path());
        self.nodes[n].child = Some(command.spawn().expect("setpriv runs"));
    }

    /// Adds a member that learns, and waits until it has what the others have.
    pub fn learner(&mut self, name: &str) {
        let revision = self.revision();
        self.nodes.push(Node { name: name.to_owned(), client: port(), peer: port(), child: None, learns: true });
        let n = self.nodes.len() - 1;
        self.ctl(&["member", "add", name, "--learner", "--peer-urls", &self.url(self.nodes[n].peer)]);
        self.run(n);
        let (begin, url) = (Instant::now(), self.client(n));
        let has = |status: serde_json::Value| status[0]["Status"]["header"]["revision"].as_i64() >= Some(revision);
        let status = || serde_json::from_slice(&self.ctl_at(&url, &["endpoint", "status", "-w", "json"]).stdout);
        while !status().is_ok_and(has) {
            assert!(begin.elapsed() < READY_WITHIN, "the learner does not come up");
            wait_a_little();
        }
    }

    /// A cluster of one member begins anew from a snapshot that was saved earlier, under the name that it had.
    pub fn put_back(&mut self, snapshot: &str) {
        self.kill(0);
        let (name, peer) = (self.nodes[0].name.clone(), self.url(self.nodes[0].peer));
        std::fs::remove_dir_all(self.path(&name)).unwrap();
        let mut command = Command::new(tool(self.version, "etcdutl"));
        command.args(["snapshot", "restore", snapshot, "--data-dir", &name, "--name", &name]);
        command.args(["--initial-advertise-peer-urls", &peer, "--initial-cluster", &format!("{name}={peer}")]);
        said(command.current_dir(self.dir.path()));
        self.run(0);
        self.wait();
    }

    pub fn kill(&mut self, n: usize) {
        if let Some(mut child) = self.nodes[n].child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Removes a member; its program ends of itself, once it has said what it is at.
    pub fn remove(&mut self, n: usize) -> Child {
        let (ids, _) = self.ids();
        self.ctl(&["member", "remove", &format!("{:x}", ids[n])]);
        self.nodes[n].child.take().expect("it runs")
    }

    /// Until all answer.
    pub fn wait(&self) {
        let begin = Instant::now();
        while !self.ctl_output(&["endpoint", "health"]).status.success() {
            let log = || std::fs::read_to_string(self.path(&format!("{}.log", self.nodes[0].name))).unwrap_or_default();
            assert!(begin.elapsed() < READY_WITHIN, "etcd does not come up: {}", log());
            wait_a_little();
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn ports(&self) -> Vec<u16> {
        self.nodes.iter().map(|n| n.client).collect()
    }

    /// As a source.
    pub fn address(&self) -> String {
        let hosts: Vec<String> = self.nodes.iter().map(|n| format!("127.0.0.1:{}", n.client)).collect();
        format!("{}://{}", if self.tls { "etcd" } else { "etcd+http" }, hosts.join(","))
    }

    fn ctl_output(&self, args: &[&str]) -> Output {
        let runs = |node: &&Node| node.child.is_some() && !node.learns;
        let urls: Vec<String> = self.nodes.iter().filter(runs).map(|n| self.url(n.client)).collect();
        self.ctl_at(&urls.join(","), args)
    }

    fn ctl_at(&self, urls: &str, args: &[&str]) -> Output {
        let mut command = Command::new(tool(self.version, "etcdctl"));
        command.args(["--endpoints", urls]).args(args).env("ETCDCTL_API", "3");
        if self.tls {
            command.args(["--cacert", "ca.crt", "--cert", "client.crt", "--key", "client.key"]);
        }
        command.stdin(Stdio::null()).current_dir(self.dir.path()).output().unwrap()
    }

    /// What `etcdctl` says, asked of every member that runs.
    pub fn ctl(&self, args: &[&str]) -> String {
        let output = self.ctl_output(args);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    pub fn talk(&self, args: &[&str]) -> Command {
        self.talk_to(self.nodes.iter().position(|n| n.child.is_some()).expect("a member runs"), args)
    }

    fn talk_to(&self, n: usize, args: &[&str]) -> Command {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(here.join(".tools/venv/bin/python"));
        command.arg(here.join("restore-tests/etcd/talk.py")).arg(self.url(self.nodes[n].client));
        command.args(["ca.crt", "client.crt", "client.key"]).args(args).current_dir(self.dir.path());
        command
    }

    /// Writes of all kinds; returns the last revision.
    pub fn load(&self, count: usize, seed: usize) -> i64 {
        said(&mut self.talk(&["load", &count.to_string(), &seed.to_string()])).trim().parse().unwrap()
    }

    /// Writes of all kinds to one member, until what is returned is dropped.
    pub fn write_to(&self, n: usize, seed: u64) -> Writing {
        let mut command = self.talk_to(n, &["write", &seed.to_string()]);
        Writing(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("setpriv runs"))
    }

    /// Puts this key in one transaction: `good` where that one has the value `good`, else `bad`.
    pub fn put_by(&self, of: &str, key: &str) -> i64 {
        said(&mut self.talk(&["by", of, key])).trim().parse().unwrap()
    }

    /// Puts so many values of so many bytes; returns the last revision.
    pub fn fill(&self, count: usize, bytes: usize) -> i64 {
        said(&mut self.talk(&["fill", &count.to_string(), &bytes.to_string()])).trim().parse().unwrap()
    }

    /// Raises an alarm for a member.
    pub fn raise(&self, kind: &str, member: u64) {
        said(&mut self.talk(&["raise", kind, &member.to_string()]));
    }

    /// Ids of the members, in their order, and who leads.
    pub fn ids(&self) -> (Vec<u64>, u64) {
        let status: serde_json::Value = serde_json::from_str(&self.ctl(&["endpoint", "status", "-w", "json"])).unwrap();
        let all = status.as_array().unwrap().iter();
        let one = |one: &serde_json::Value| {
            (one["Status"]["header"]["member_id"].as_u64().unwrap(), one["Status"]["leader"].as_u64().unwrap())
        };
        let (ids, leaders): (Vec<u64>, Vec<u64>) = all.map(one).unzip();
        (ids, leaders[0])
    }

    /// All keys at these revisions, with everything that etcd knows of them.
    pub fn dump(&self, revisions: &[i64]) -> String {
        let revisions: Vec<String> = revisions.iter().map(i64::to_string).collect();
        let args: Vec<&str> = std::iter::once("dump").chain(revisions.iter().map(String::as_str)).collect();
        said(&mut self.talk(&args))
    }

    /// The newest revision.
    pub fn revision(&self) -> i64 {
        let status: serde_json::Value = serde_json::from_str(&self.ctl(&["endpoint", "status", "-w", "json"])).unwrap();
        let all = status.as_array().unwrap().iter();
        all.filter_map(|one| one["Status"]["header"]["revision"].as_i64()).max().unwrap()
    }

    /// Leases, with the seconds they were granted for.
    pub fn leases(&self) -> Vec<String> {
        let listed = self.ctl(&["lease", "list"]);
        let ids = listed.lines().skip(1).filter(|line| !line.is_empty());
        let one = |id: &str| {
            let told = self.ctl(&["lease", "timetolive", id]);
            let granted = told.split("granted with TTL(").nth(1).and_then(|rest| rest.split(')').next()).unwrap();
            format!("{id} {granted}")
        };
        let mut leases: Vec<String> = ids.map(one).collect();
        leases.sort();
        leases
    }
}
