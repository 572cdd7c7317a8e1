//! Real object stores, started for a test and ended with it.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Credentials of the test servers: of who may do all, and of who may only read.
pub const WRITER: (&str, &str) = ("AKX", "SKX-of-the-writer");
pub const READER: (&str, &str) = ("AKR", "SKR-of-the-reader");
/// The account that Azurite has, and its key, as it publishes them.
pub const ACCOUNT: &str = "devstoreaccount1";
pub const ACCOUNT_KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

const READY_WITHIN: Duration = Duration::from_secs(60);
const STARTS: usize = 3;

/// A running server; it ends when this is dropped, and when the test is killed.
pub struct Server {
    pub port: u16,
    child: Child,
    dir: TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn tool(path: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(".tools").join(path);
    assert!(path.exists(), "{} is missing: `scripts/test` installs it", path.display());
    path
}

/// Ports that nobody has just now.
fn ports<const N: usize>() -> [u16; N] {
    let held = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").unwrap());
    held.map(|listener| listener.local_addr().unwrap().port())
}

/// Starts a program that may lose its ports to somebody else, a few times; `ready` says when it answers.
fn start(make: impl Fn(&Path) -> (Command, u16), ready: impl Fn(u16) -> bool) -> Server {
    for _ in 0..STARTS {
        let root = if Path::new("/dev/shm").is_dir() { "/dev/shm".into() } else { std::env::temp_dir() };
        let dir = tempfile::Builder::new().prefix("store-").tempdir_in(root).unwrap();
        let (inner, port) = make(dir.path());
        let log = std::fs::File::create(dir.path().join("log")).unwrap();
        // Ended by the kernel when the test is killed.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(inner.get_program()).args(inner.get_args());
        command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.env("TMPDIR", dir.path()).current_dir(dir.path());
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let mut server = Server { port, child: command.spawn().expect("setpriv runs"), dir };
        let begin = Instant::now();
        while begin.elapsed() < READY_WITHIN {
            if server.child.try_wait().unwrap().is_some() {
                break;
            }
            if ready(port) {
                return server;
            }
            wait_a_little();
        }
        let log = std::fs::read_to_string(server.dir.path().join("log")).unwrap_or_default();
        eprintln!("not started: {}", log.lines().rev().take(5).collect::<Vec<_>>().join("\n"));
    }
    panic!("a store could not be started");
}

/// A server says nothing when it is ready: it has to be asked again and again.
fn wait_a_little() {
    let (_alive, never) = std::sync::mpsc::channel::<()>();
    let _ = never.recv_timeout(Duration::from_millis(50)).is_err();
    drop(_alive);
}

fn connects(port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port)).is_ok()
}

/// The status of a GET, as far as there is one.
fn status(port: u16, path: &str) -> Option<u16> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n").ok()?;
    let mut text = String::new();
    let _ = stream.read_to_string(&mut text);
    text.split(' ').nth(1)?.parse().ok()
}

/// SeaweedFS: an S3 server that keeps what regions need of one.
pub fn seaweed(buckets: &[&str]) -> Server {
    let make = |dir: &Path| {
        let [s3, s3_grpc, master, master_grpc, volume, volume_grpc, filer, filer_grpc] = ports();
        let identity = |name: &str, (id, secret): (&str, &str), actions: &str| {
            format!(
                r#"{{"name":"{name}","credentials":[{{"accessKey":"{id}","secretKey":"{secret}"}}],"actions":[{actions}]}}"#
            )
        };
        let writer = identity("writer", WRITER, r#""Admin","Read","Write","List","Tagging""#);
        let reader = identity("reader", READER, r#""Read","List""#);
        std::fs::write(dir.join("s3.json"), format!(r#"{{"identities":[{writer},{reader}]}}"#)).unwrap();
        std::fs::create_dir(dir.join("data")).unwrap();
        let mut command = Command::new(tool("venv/bin/weed"));
        command.args(["server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer", "-s3", "-volume.max=400"]);
        command.args(["-s3.port.iceberg=0", "-s3.port.lance=0", "-master.volumeSizeLimitMB=64"]);
        command.arg(format!("-dir={}", dir.join("data").display()));
        command.arg(format!("-s3.config={}", dir.join("s3.json").display()));
        for (name, port) in [
            ("s3.port", s3),
            ("s3.port.grpc", s3_grpc),
            ("master.port", master),
            ("master.port.grpc", master_grpc),
            ("volume.port", volume),
            ("volume.port.grpc", volume_grpc),
            ("filer.port", filer),
            ("filer.port.grpc", filer_grpc),
        ] {
            command.arg(format!("-{name}={port}"));
        }
        (command, s3)
    };
    let server = start(make, |port| status(port, "/healthz") == Some(200));
    buckets.iter().for_each(|bucket| make_bucket(server.port, bucket));
    server
}

/// rclone's S3 server, which ignores conditions and ranges.
pub fn rclone(bucket: &str) -> Server {
    let make = |dir: &Path| {
        let [port] = ports();
        std::fs::create_dir_all(dir.join("data").join(bucket)).unwrap();
        let mut command = Command::new(tool("venv/bin/rclone"));
        command.args(["serve", "s3", "--addr", &format!("127.0.0.1:{port}"), "--config", "none"]);
        command.args(["--auth-key", &format!("{},{}", WRITER.0, WRITER.1)]).arg(dir.join("data"));
        (command, port)
    };
    start(make, connects)
}

/// Azurite, with a container.
pub fn azurite(container: &str) -> Server {
    let make = |dir: &Path| {
        let [port] = ports();
        let mut command = Command::new(tool("npm/node_modules/.bin/azurite-blob"));
        command.args(["--blobHost", "127.0.0.1", "--blobPort", &port.to_string(), "--location"]).arg(dir);
        command.args(["--silent", "--skipApiVersionCheck", "--disableTelemetry"]);
        (command, port)
    };
    let server = start(make, connects);
    signed(&["azure", &server.port.to_string(), container, ACCOUNT, ACCOUNT_KEY], "");
    server
}

/// Buckets are not made by the program, so a signed request of our own makes one.
fn make_bucket(port: u16, bucket: &str) {
    signed(&["s3", &port.to_string(), bucket, WRITER.0, WRITER.1], "");
}

/// Signed requests that the program never makes: `make.py` says which. What it printed.
fn signed(args: &[&str], input: &str) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("restore-tests/stores/make.py");
    let mut command = Command::new(tool("venv/bin/python"));
    command.arg(script).args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let done = child.wait_with_output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap()
}

/// Makes a bucket that locks every new object for so many days, in mode COMPLIANCE.
pub fn make_locked_bucket(server: &Server, bucket: &str, days: u32) {
    signed(&["lock", &server.port.to_string(), bucket, WRITER.0, WRITER.1, &days.to_string()], "");
}

/// Makes a bucket that can lock objects, and locks none by itself.
pub fn make_lockable_bucket(server: &Server, bucket: &str) {
    signed(&["lockable", &server.port.to_string(), bucket, WRITER.0, WRITER.1], "");
}

/// One version of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    pub key: String,
    pub id: String,
    /// Whether it only hides those before it.
    pub marker: bool,
    pub latest: bool,
}

/// Every version of every object.
pub fn versions(server: &Server, bucket: &str) -> Vec<Version> {
    let printed = signed(&["versions", &server.port.to_string(), bucket, WRITER.0, WRITER.1], "");
    let one = |line: &str| {
        let [key, id, kind, latest] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
        Version { key: key.into(), id: id.into(), marker: kind == "DeleteMarker", latest: latest == "true" }
    };
    printed.lines().filter(|line| !line.is_empty()).map(one).collect()
}

/// Makes these requests, several at once; what came back of each, in their order.
pub fn requests(server: &Server, bucket: &str, requests: &[serde_json::Value]) -> Vec<serde_json::Value> {
    let input: Vec<String> = requests.iter().map(|request| request.to_string()).collect();
    let printed = signed(&["do", &server.port.to_string(), bucket, WRITER.0, WRITER.1], &input.join("\n"));
    printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Does what each line says, with the credentials that may do all; the statuses.
pub fn each(server: &Server, bucket: &str, lines: &[String]) -> Vec<u16> {
    let input = lines.join("\n");
    let printed = signed(&["each", &server.port.to_string(), bucket, WRITER.0, WRITER.1], &input);
    printed.lines().map(|line| line.parse().unwrap()).collect()
}
