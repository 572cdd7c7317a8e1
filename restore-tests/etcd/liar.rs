//! A member that lies: a stand-in that says of a small cluster what no etcd would say. What that does to the program is
//! bounded, and told.

use super::mode;
use crate::harness::Bench;
use bytes::{BufMut, Bytes, BytesMut};
use h2::SendStream;
use holdfast::source::etcd::bolt::Builder;
use holdfast::source::etcd::kv::{KEYS, KeyValue, Revision};
use http::{HeaderMap, Request, Response};
use sha2::{Digest, Sha256};
use std::process::Command;
use std::sync::{Arc, Mutex};
use tokio::net::{TcpListener, TcpStream};

/// Memory that is enough for any member.
const MEMORY_BYTES_MAX: u64 = 500 << 20;
/// Who it says it is.
const CLUSTER: u64 = 7;
const MEMBER: u64 = 9;
/// Another member, which leads.
const OTHER: u64 = 10;
/// What is announced and does not come.
const ANNOUNCED: u32 = 1 << 30;
/// A message of changes, just below what is believed.
const MESSAGE_BYTES: usize = 60 << 20;
/// Parts of a snapshot, as etcd sends them.
const PART_BYTES: usize = 32 << 10;

#[derive(Clone, Copy, PartialEq)]
enum Lie {
    None,
    /// To this call a message is announced that nobody could hold.
    Announce(&'static str),
    /// So many alarms that they would be a hundred times what says them.
    Alarms,
    /// Changes without an end, the smallest there are.
    Events,
    /// It says nothing of members and of alarms.
    Deaf,
    /// It says that this member is corrupt, and that there is a third one.
    Corrupt(u64),
}

fn varint(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

fn number(field: u64, n: u64) -> Vec<u8> {
    let mut out = Vec::new();
    varint(&mut out, field << 3);
    varint(&mut out, n);
    out
}

fn part(field: u64, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    varint(&mut out, field << 3 | 2);
    varint(&mut out, bytes.len() as u64);
    out.extend_from_slice(bytes);
    out
}

fn framed(message: &[u8], len: u32) -> Bytes {
    let mut frame = BytesMut::with_capacity(5 + message.len());
    frame.put_u8(0);
    frame.put_u32(len);
    frame.extend_from_slice(message);
    frame.freeze()
}

/// A database of one key, which every revision changed.
fn database(revision: i64) -> Vec<u8> {
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut builder = Builder::new(file.reopen().unwrap(), 4096).unwrap();
    builder.bucket(KEYS).unwrap();
    for main in 2..=revision {
        let kv = KeyValue { key: b"/k", value: b"v", created: 2, modified: main, version: main - 1, lease: 0 };
        builder.put(&Revision { main, sub: 0 }.encode(false), &kv.encode()).unwrap();
    }
    builder.finish().unwrap();
    std::fs::read(file.path()).unwrap()
}

/// What it answers: messages in their frames, and how the call ends; a watch does not.
type Answer = (Vec<Bytes>, Option<(&'static str, &'static str)>);

#[derive(Clone, Copy)]
struct Liar {
    member: u64,
    revision: i64,
    lie: Lie,
}

impl Liar {
    fn header(self) -> Vec<u8> {
        part(1, &[number(1, CLUSTER), number(2, self.member), number(3, self.revision as u64)].concat())
    }

    fn snapshot(self) -> Vec<Bytes> {
        let bytes = database(self.revision);
        let (hash, mut left) = (Sha256::digest(&bytes).to_vec(), bytes.len());
        let mut parts = Vec::new();
        for blob in bytes.chunks(PART_BYTES).chain([&hash[..]]) {
            left = left.saturating_sub(blob.len());
            let message = [self.header(), number(2, left as u64), part(3, blob)].concat();
            parts.push(framed(&message, message.len() as u32));
        }
        parts
    }

    fn answer(self, call: &str) -> Answer {
        let well = Some(("0", ""));
        if matches!(self.lie, Lie::Announce(one) if one == call) {
            return (vec![framed(&[0; 9], ANNOUNCED)], None);
        }
        let body = match call {
            "Status" => [part(2, b"3.5.16"), number(3, 1 << 20), number(4, OTHER)].concat(),
            "MemberList" | "Alarm" if self.lie == Lie::Deaf => {
                return (Vec::new(), Some(("14", "etcdserver: request timed out")));
            }
            "MemberList" if matches!(self.lie, Lie::Corrupt(_)) => {
                let one = |(id, name): (u64, &[u8])| part(2, &[number(1, id), part(2, name)].concat());
                [(MEMBER, &b"liar"[..]), (OTHER, b"other"), (OTHER + 1, b"third")].map(one).concat()
            }
            "MemberList" => part(2, &[number(1, self.member), part(2, b"liar")].concat()),
            "Alarm" => match self.lie {
                Lie::Alarms => part(2, &[]).repeat(1_900_000),
                Lie::Corrupt(member) => part(2, &[number(1, member), number(2, 2)].concat()),
                _ => Vec::new(),
            },
            "HashKV" => return (Vec::new(), Some(("11", "etcdserver: mvcc: required revision has been compacted"))),
            "Snapshot" => return (self.snapshot(), well),
            "Watch" if self.lie == Lie::Events => {
                let kv = KeyValue { key: b"k", modified: self.revision, ..KeyValue::default() };
                let event = part(11, &part(2, &kv.encode()));
                [number(7, 1), event.repeat(MESSAGE_BYTES / event.len())].concat()
            }
            "Watch" => return (Vec::new(), None),
            _ => Vec::new(),
        };
        let message = [self.header(), body].concat();
        (vec![framed(&message, message.len() as u32)], well.filter(|_| call != "Watch"))
    }
}

async fn serve(socket: TcpStream, liar: Arc<Mutex<Liar>>) {
    let Ok(mut connection) = h2::server::handshake(socket).await else { return };
    // A call whose ends are dropped would be cut off.
    let mut held: Vec<(Request<h2::RecvStream>, SendStream<Bytes>)> = Vec::new();
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let call = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
        let now = *liar.lock().unwrap();
        let (messages, end) = now.answer(&call);
        let Ok(mut send) = respond.send_response(Response::new(()), false) else { continue };
        messages.into_iter().for_each(|message| _ = send.send_data(message, false).is_ok());
        if let Some((code, message)) = end {
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", code.parse().unwrap());
            trailers.insert("grpc-message", message.parse().unwrap());
            _ = send.send_trailers(trailers).is_ok();
        }
        held.push((request, send));
    }
}

/// Serves until the test's process ends; returns its port.
fn begin(liar: &Arc<Mutex<Liar>>) -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let (port, liar) = (listener.local_addr().unwrap().port(), Arc::clone(liar));
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = TcpListener::from_std(listener).unwrap();
            while let Ok((socket, _)) = listener.accept().await {
                tokio::spawn(serve(socket, Arc::clone(&liar)));
            }
        });
    });
    port
}

/// Backs up with little memory.
fn backup(bench: &Bench, port: u16, mode: &str) -> (i32, serde_json::Value) {
    backup_of(bench, &[port], mode)
}

/// The same, of several members.
fn backup_of(bench: &Bench, ports: &[u16], mode: &str) -> (i32, serde_json::Value) {
    let hosts: Vec<String> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
    let address = format!("etcd+http://{}", hosts.join(","));
    let inner = bench.command(&["--json", "--quiet", "backup", "--name", "liar", "--mode", mode, &address]);
    let mut command = Command::new("prlimit");
    command.arg(format!("--data={MEMORY_BYTES_MAX}")).arg(inner.get_program()).args(inner.get_args());
    command.env("HOLDFAST_STATE", bench.path("state")).current_dir(bench.dir.path());
    let output = command.output().expect("prlimit runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let report = serde_json::from_str(text.lines().last().unwrap_or_default());
    let report = report.unwrap_or_else(|e| panic!("{e}: {text}{}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code().unwrap_or(-1), report)
}

#[test]
fn a_member_that_lies_takes_no_more_memory_than_there_is() {
    let bench = Bench::with_key(&["a"]);
    let liar = Arc::new(Mutex::new(Liar { member: MEMBER, revision: 5, lie: Lie::None }));
    let port = begin(&liar);
    let visible = || bench.ok(&["snapshots"])["snapshots"].as_array().unwrap().len();
    let told = |lie| *liar.lock().unwrap() = Liar { member: MEMBER, revision: 9, lie };
    let (code, report) = backup(&bench, port, "incremental");
    assert_eq!((code, report["etcd"]["revision"].as_i64()), (0, Some(5)), "{report:#}");
    for (call, mode) in [("Status", "incremental"), ("Snapshot", "incremental"), ("Watch", "delta")] {
        told(Lie::Announce(call));
        let (code, report) = backup(&bench, port, mode);
        assert_eq!((code, report["error"]["kind"].as_str()), (1, Some("retry")), "{call}: {report:#}");
        let says = format!("it announces a message of {ANNOUNCED} bytes, and ");
        assert!(report["error"].to_string().contains(&says), "{call}: {report:#}");
        assert_eq!(visible(), 1, "{call}");
    }
    told(Lie::Events);
    let (code, report) = backup(&bench, port, "delta");
    assert_eq!((code, mode(&bench, &report).as_str()), (0, "incremental"), "a whole one instead: {report:#}");
    assert_eq!((report["etcd"]["revision"].as_i64(), visible()), (Some(9), 2));
    told(Lie::Alarms);
    let (code, report) = backup(&bench, port, "incremental");
    assert_eq!(code, 3, "{report:#}");
    assert!(report["etcd"]["remarks"].to_string().contains("it lists more than 1000 alarms"), "{report:#}");
}

#[test]
fn what_one_member_does_not_say_of_the_others_the_next_one_does() {
    let bench = Bench::with_key(&["a"]);
    let both = || Arc::new(Mutex::new(Liar { member: OTHER, revision: 5, lie: Lie::Corrupt(MEMBER) }));
    let mut members = [both(), both()].map(|liar| (begin(&liar), liar));
    // Members are asked in the order of their addresses.
    members.sort_by_key(|(port, _)| port.to_string());
    *members[0].1.lock().unwrap() = Liar { member: MEMBER, revision: 5, lie: Lie::Deaf };
    let ports = members.each_ref().map(|(port, _)| *port);
    let (code, report) = backup_of(&bench, &ports, "incremental");
    assert_eq!(code, 3, "{report:#}");
    let remarks = report["etcd"]["remarks"].to_string();
    assert!(remarks.contains(&format!("ALARM: CORRUPT of member {MEMBER:x}")), "{report:#}");
    assert!(remarks.contains("member third was not asked"), "{report:#}");
    assert_eq!(report["etcd"]["endpoint"], format!("127.0.0.1:{}", ports[1]), "nobody asks who is corrupt: {report:#}");
}
