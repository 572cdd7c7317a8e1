//! The daemon from outside: what is due runs once, signals, reloads, the service manager, one a state folder.

use crate::daemon::{configure_as, sources};
use crate::harness::{Bench, files, noise, opened, small_tree};
use holdfast::base::{Env, Generation, TimeMs};
use holdfast::daemon::state::{Found, StateDir};
use holdfast::daemon::{JobId, Memory};
use holdfast::policy::{Task, share};
use holdfast::repo::session::{Errand, Session};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Lines};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::time::Duration;

/// Due once a year, so that nothing becomes due while the test runs.
pub const YEARLY: &str = "  schedule: {incremental: 0 0 1 1 *}\n";
pub const RETRY: &str = "  retries: {max: 3, backoff: 1s}\n";
const DAY: i64 = 86_400_000;

/// A name whose late runs start within a quarter of a second.
pub fn prompt() -> String {
    (0..).map(|n| format!("policy-{n}")).find(|name| share(&[name.as_bytes()], 300_000) < 250).unwrap()
}

/// A daemon at work; it ends with the test.
pub struct Daemon {
    child: Child,
    lines: Lines<BufReader<ChildStderr>>,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Daemon {
    pub fn start(bench: &Bench, args: &[&str]) -> Daemon {
        Daemon::spawn(bench.command_at(&[], &[&["daemon"], args].concat()))
    }

    pub fn spawn(mut command: Command) -> Daemon {
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stderr.take().unwrap()).lines();
        Daemon { child, lines }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Reads on until this is said; returns the line.
    pub fn says(&mut self, part: &str) -> String {
        let mut said = Vec::new();
        for line in self.lines.by_ref() {
            let line = line.unwrap();
            if line.contains(part) {
                return line;
            }
            said.push(line);
        }
        panic!("{part:?} was not said: {said:#?}");
    }

    pub fn signal(&self, name: &str) {
        let done = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status();
        assert!(done.is_ok_and(|s| s.success()), "kill");
    }

    /// Waits for its end; returns it and what else was said.
    pub fn ends(mut self) -> (ExitStatus, String) {
        let rest: Vec<String> = self.lines.by_ref().map_while(Result::ok).collect();
        (self.child.wait().unwrap(), rest.join("\n"))
    }
}

/// A bench with a repository in `a` and `b`, a small source and one policy.
pub fn ready(policy: &str, more: &str) -> Bench {
    let bench = Bench::with_key(&["a", "b"]);
    small_tree(&bench.path("one"));
    configure_as(&bench, policy, &["a", "b"], &(sources(&bench, &["one"]) + more));
    bench
}

/// Makes the state folder remember that everything until then was looked at.
pub fn remember(bench: &Bench, jobs: &[(&str, Task, &str)], handled: i64) {
    let entry = |(policy, kind, cron): &(&str, Task, &str)| {
        let id = JobId { policy: (*policy).into(), kind: *kind };
        (id, Memory::new(format!("{cron} UTC"), TimeMs(handled)))
    };
    store(bench, jobs.iter().map(entry).collect());
}

pub fn store(bench: &Bench, memory: BTreeMap<JobId, Memory>) {
    StateDir::take(&bench.path("state")).unwrap().save(&memory).unwrap();
}

fn memory(bench: &Bench) -> BTreeMap<JobId, Memory> {
    let state = StateDir::take(&bench.path("state")).unwrap();
    let Found::Memory(memory) = state.load(TimeMs(0)).unwrap() else { panic!("no memory") };
    memory
}

pub fn a_year_ago() -> i64 {
    Env::system().now().0 - 366 * DAY
}

fn snapshots(bench: &Bench) -> usize {
    bench.ok(&["snapshots"])["snapshots"].as_array().unwrap().len()
}

pub fn once(bench: &Bench) -> (i32, Vec<Value>) {
    let out = bench.command_at(&[], &["--json", "daemon", "--once"]).output().unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    (out.status.code().unwrap(), lines)
}

#[test]
fn once_runs_what_is_overdue_and_nothing_twice() {
    let spec = "  schedule: {incremental: '*/5 * * * *', full: 0 0 1 1 *, jitter: 4m}\n  verify: {schedule: '@weekly'}\n  \
         prune: {schedule: '@weekly'}\n";
    let bench = ready("daily", spec);
    // Nothing is remembered and there is no snapshot: schedules begin now.
    let (code, lines) = once(&bench);
    assert_eq!((code, &lines.last().unwrap()["runs"]), (0, &0.into()), "{lines:#?}");
    let jobs = [
        ("daily", Task::Incremental, "*/5 * * * *"),
        ("daily", Task::Full, "0 0 1 1 *"),
        ("daily", Task::Verify, "@weekly"),
        ("daily", Task::Prune, "@weekly"),
    ];
    remember(&bench, &jobs, a_year_ago());
    let (code, lines) = once(&bench);
    let (last, told) = lines.split_last().unwrap();
    assert_eq!((code, &last["runs"]), (0, &3.into()), "the full one, the check and the prune: {last:#}");
    let ended: Vec<&str> = told.iter().filter(|l| l["event"] == "ended").map(|l| l["kind"].as_str().unwrap()).collect();
    assert!(ended.contains(&"full") && ended.contains(&"verify") && ended.contains(&"prune"), "{ended:?}");
    // Far more due times than are looked at one by one are done by one run, and are few lines.
    assert!(told.len() < 20, "{} lines", told.len());
    assert_eq!(snapshots(&bench), 1);
    let runs = bench.json_at(&["a", "b"], &["runs"]).1;
    let policies: Vec<&Value> = runs["runs"].as_array().unwrap().iter().map(|run| &run["policy"]).collect();
    assert!(policies.len() >= 2 && policies.iter().all(|p| *p == "daily"), "{runs:#}");
    let remembered = memory(&bench);
    let handled = |kind| remembered[&JobId { policy: "daily".into(), kind }].counts.handled();
    assert!((1000..1010).contains(&handled(Task::Incremental)), "{}", handled(Task::Incremental));
    assert!(handled(Task::Full) == 1 && handled(Task::Verify) > 50);
}

#[test]
fn once_tells_the_worst_end() {
    let bench = ready("daily", &format!("{YEARLY}  retries: {{max: 0}}\n"));
    std::fs::remove_dir_all(bench.path("one")).unwrap();
    remember(&bench, &[("daily", Task::Incremental, "0 0 1 1 *")], a_year_ago());
    let (code, lines) = once(&bench);
    assert_eq!(code, 1, "{lines:#?}");
    assert_eq!(once(&bench).0, 0, "nothing is due any more");
}

#[test]
fn schedules_whose_memory_is_lost_begin_at_the_newest_snapshots() {
    let bench = ready("daily", "  schedule: {incremental: '*/5 * * * *', full: '0 0 * * *'}\n");
    assert_eq!(bench.json_at(&[], &["run", "daily"]).0, 0);
    std::fs::create_dir_all(bench.path("state")).unwrap();
    std::fs::write(bench.path("state/schedule.json"), "{").unwrap();
    let (code, lines) = once(&bench);
    assert_eq!(code, 0);
    let told = lines[0]["text"].as_str().unwrap();
    assert!(told.contains("TROUBLE") && told.contains("schedule.json.bad-"), "{told}");
    // The incremental began with its snapshot, the full one with now.
    let remembered = memory(&bench);
    let handled = |kind| remembered[&JobId { policy: "daily".into(), kind }].handled;
    assert!(handled(Task::Incremental) < handled(Task::Full), "{remembered:?}");
}

#[test]
fn one_daemon_a_state_folder() {
    let bench = ready("daily", YEARLY);
    let socket = Socket::abstract_one();
    let first = socket.daemon(&bench);
    socket.hears("READY=1");
    for args in [&["daemon"][..], &["daemon", "--once"]] {
        let (code, value) = bench.json_at(&[], args);
        assert_eq!(code, 11, "{value:#}");
        assert!(value["error"]["what"].as_str().unwrap().contains("another holdfast daemon"), "{value:#}");
    }
    // Another folder is another daemon.
    let elsewhere = bench.path("elsewhere").display().to_string();
    assert_eq!(bench.json_at(&[], &["daemon", "--once", "--state", &elsewhere]).0, 0);
    drop(first);
    assert_eq!(bench.json_at(&[], &["daemon", "--once"]).0, 0);
}

/// The service manager's end.
struct Socket {
    socket: UnixDatagram,
    name: String,
}

impl Socket {
    fn abstract_one() -> Socket {
        let name = format!("holdfast-test-{}-{}", std::process::id(), Env::system().steady());
        let address = SocketAddr::from_abstract_name(name.as_bytes()).unwrap();
        Socket::of(UnixDatagram::bind_addr(&address).unwrap(), format!("@{name}"))
    }

    fn at(path: &Path) -> Socket {
        Socket::of(UnixDatagram::bind(path).unwrap(), path.display().to_string())
    }

    fn of(socket: UnixDatagram, name: String) -> Socket {
        socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        Socket { socket, name }
    }

    fn daemon(&self, bench: &Bench) -> Daemon {
        let mut command = bench.command_at(&[], &["daemon"]);
        command.env("NOTIFY_SOCKET", &self.name);
        Daemon::spawn(command)
    }

    /// Reads on until this is told; returns it with all before.
    fn hears(&self, part: &str) -> Vec<String> {
        let mut heard = Vec::new();
        while !heard.last().is_some_and(|text: &String| text.contains(part)) {
            let mut bytes = [0; 4096];
            let len = self.socket.recv(&mut bytes).unwrap_or_else(|e| panic!("{part:?} was not told: {e}: {heard:?}"));
            heard.push(String::from_utf8(bytes[..len].to_vec()).unwrap());
        }
        heard
    }
}

#[test]
fn the_service_manager_is_told_and_signals_are_obeyed() {
    let bench = ready("daily", YEARLY);
    let socket = Socket::at(&bench.path("notify"));
    let mut command = bench.command_at(&[], &["daemon"]);
    command.env("NOTIFY_SOCKET", &socket.name).env("WATCHDOG_USEC", "500000");
    let daemon = Daemon::spawn(command);
    socket.hears("READY=1");
    let heard = socket.hears("WATCHDOG=1");
    assert!(heard.iter().any(|text| text.starts_with("STATUS=1 policies; 0 runs at work; next: 20")), "{heard:?}");
    // Fed again and again while the loop turns.
    (0..4).for_each(|_| drop(socket.hears("WATCHDOG=1")));
    daemon.signal("HUP");
    let heard = socket.hears("RELOADING=1");
    assert!(heard.last().unwrap().contains("\nMONOTONIC_USEC="), "{heard:?}");
    socket.hears("READY=1");
    daemon.signal("TERM");
    socket.hears("STOPPING=1");
    let (status, said) = daemon.ends();
    assert_eq!(status.code(), Some(0), "{said}");
    assert!(said.contains("configuration read: 1 policies") && said.contains("stopping"), "{said}");
}

#[test]
fn a_service_manager_that_does_not_listen_stops_nothing() {
    let policy = prompt();
    let bench = ready(&policy, YEARLY);
    remember(&bench, &[(&policy, Task::Incremental, "0 0 1 1 *")], a_year_ago());
    let socket = Socket::at(&bench.path("notify"));
    let mut command = bench.command_at(&[], &["daemon"]);
    // Far more is told than waits in a socket.
    command.env("NOTIFY_SOCKET", &socket.name).env("WATCHDOG_USEC", "4000");
    let mut daemon = Daemon::spawn(command);
    daemon.says("1 protected");
    daemon.signal("TERM");
    assert_eq!(daemon.ends().0.code(), Some(0));
}

#[test]
fn a_broken_configuration_keeps_the_last_good_one_and_a_removed_policy_loses_nothing() {
    let policy = prompt();
    let bench = ready("daily", YEARLY);
    assert_eq!(bench.json_at(&[], &["run", "daily"]).0, 0);
    let socket = Socket::at(&bench.path("notify"));
    let mut daemon = socket.daemon(&bench);
    socket.hears("READY=1");
    let good = std::fs::read_to_string(bench.path("holdfast.yaml")).unwrap();
    // As clusters do it: another file takes its place.
    let swap = |text: &str| {
        std::fs::write(bench.path("new"), text).unwrap();
        std::fs::rename(bench.path("new"), bench.path("holdfast.yaml")).unwrap();
    };
    swap(&good.replace("schedule:", "schedul:"));
    let said = daemon.says("CONFIGURATION REFUSED");
    assert!(said.contains("the last good one stays in force") && said.contains("schedul"), "{said}");
    socket.hears("1 policies; 0 runs at work; next: 20");
    socket.hears("CONFIGURATION REFUSED");
    // Good again, and the policy has another name: nothing of the old one is forgotten.
    swap(&good.replace("name: daily", &format!("name: {policy}")));
    daemon.says("configuration read: 1 policies");
    let said = daemon.says("policies are gone");
    assert!(said.contains("1 policies are gone (daily)") && said.contains("none of their snapshots"), "{said}");
    daemon.signal("TERM");
    assert_eq!(daemon.ends().0.code(), Some(0));
    assert_eq!(snapshots(&bench), 1);
    let kept: Vec<String> = memory(&bench).into_keys().map(|id| id.policy).collect();
    assert_eq!(kept, [policy]);
}

/// Somebody elsewhere who seems to be at work on the source: a run that queues waits for him.
fn elsewhere(bench: &Bench) -> Session {
    let errand = Errand { host: "elsewhere".into(), source: "one".into(), generation: Generation(1) };
    Session::announce(&opened(bench), errand, None).unwrap()
}

/// A bench whose only run is overdue and waits for somebody elsewhere.
fn waiting() -> (Bench, String, Session) {
    let policy = prompt();
    let bench = Bench::new(&["a", "b"]);
    small_tree(&bench.path("one"));
    let spec = sources(&bench, &["one"]) + YEARLY + RETRY + "  concurrency: queue\n";
    configure_as(&bench, &policy, &["a", "b"], &spec);
    remember(&bench, &[(&policy, Task::Incremental, "0 0 1 1 *")], a_year_ago());
    let session = elsewhere(&bench);
    (bench, policy, session)
}

#[test]
fn a_run_at_work_may_end_after_a_signal() {
    let (bench, _, session) = waiting();
    let mut daemon = Daemon::start(&bench, &[]);
    daemon.says("waited for");
    daemon.signal("TERM");
    daemon.says("stopping: runs at work may end within 1 min 00 s");
    session.give_up(&opened(&bench), "the test goes on").unwrap();
    let (status, said) = daemon.ends();
    assert_eq!(status.code(), Some(0), "{said}");
    assert!(said.contains("1 protected"), "{said}");
    assert_eq!(snapshots(&bench), 1);
}

#[test]
fn a_run_that_is_stopped_is_taken_up_by_the_next_daemon() {
    let (bench, policy, session) = waiting();
    let id = JobId { policy: policy.clone(), kind: Task::Incremental };
    // A second signal; or the time is over.
    for (attempt, within, signals) in [(2, "1h", 2), (3, "1s", 1)] {
        let mut daemon = Daemon::start(&bench, &["--stop-within", within]);
        daemon.says("waited for");
        daemon.signal("INT");
        daemon.says("stopping");
        (1..signals).for_each(|_| daemon.signal("INT"));
        let (status, said) = daemon.ends();
        assert_eq!(status.code(), Some(130), "{said}");
        assert!(said.contains("are stopped; what they stored is kept"), "{said}");
        assert_eq!(memory(&bench)[&id].again.map(|again| again.attempt), Some(attempt));
    }
    // Killed: nobody had a chance to write anything.
    let mut daemon = Daemon::start(&bench, &[]);
    daemon.says("waited for");
    daemon.signal("KILL");
    drop(daemon);
    assert_eq!(memory(&bench)[&id].running.map(|run| run.attempt), Some(3));
    session.give_up(&opened(&bench), "the test goes on").unwrap();
    let mut daemon = Daemon::start(&bench, &[]);
    daemon.says("attempt 4");
    daemon.says("1 protected");
    daemon.signal("TERM");
    assert_eq!(daemon.ends().0.code(), Some(0));
    assert_eq!((snapshots(&bench), memory(&bench)[&id].counts.done), (1, 1));
}

#[test]
fn a_killed_daemons_own_run_is_not_taken_for_one_at_work() {
    let policy = prompt();
    let bench = Bench::with_key(&["a", "b"]);
    std::fs::create_dir(bench.path("one")).unwrap();
    (0..10).for_each(|n| std::fs::write(bench.path(&format!("one/{n}")), noise(n, 12 << 20)).unwrap());
    let spec = sources(&bench, &["one"]) + YEARLY + RETRY + "  concurrency: forbid\n";
    configure_as(&bench, &policy, &["a", "b"], &spec);
    remember(&bench, &[(&policy, Task::Incremental, "0 0 1 1 *")], a_year_ago());
    let mut daemon = Daemon::start(&bench, &[]);
    daemon.says("starts, due");
    while files(&bench.region("a").join("packs")).is_empty() {
        assert!(daemon.child.try_wait().unwrap().is_none(), "it ended");
        std::thread::yield_now();
    }
    daemon.signal("KILL");
    drop(daemon);
    assert_eq!(snapshots(&bench), 0, "it was killed in the middle");
    // Somebody else has to believe it is at work.
    let elsewhere = bench.path("elsewhere").display().to_string();
    assert_eq!(bench.json_at(&[], &["run", &policy, "--state", &elsewhere]).0, 11);
    let mut daemon = Daemon::start(&bench, &[]);
    daemon.says("attempt 2");
    daemon.says("1 protected");
    assert_eq!(snapshots(&bench), 1);
}

#[test]
fn a_full_state_folder_stops_no_backup() {
    let policy = prompt();
    let bench = ready(&policy, &format!("{YEARLY}{RETRY}"));
    remember(&bench, &[(&policy, Task::Incremental, "0 0 1 1 *")], a_year_ago());
    // What is stored is first written beside; nothing can be written over a folder.
    std::fs::create_dir(bench.path("state/schedule.json.new")).unwrap();
    let mut daemon = Daemon::start(&bench, &[]);
    daemon.says("runs go on, but a restart would forget them");
    daemon.says("1 protected");
    std::fs::remove_dir(bench.path("state/schedule.json.new")).unwrap();
    daemon.signal("TERM");
    let (status, said) = daemon.ends();
    assert_eq!(status.code(), Some(0), "{said}");
    assert_eq!(memory(&bench).into_values().next().unwrap().counts.done, 1);
}

/// An alert that writes its events to the file `told`, a line each.
pub fn telling(bench: &Bench, on: &str) -> String {
    let file = bench.path("told").display().to_string();
    format!(
        "  alerts: [{{name: file, events: [{on}], command: [sh, -c, 'echo $HOLDFAST_EVENTS >> {file}; cat > {file}.json']}}]\n"
    )
}

pub fn told(bench: &Bench) -> Vec<String> {
    std::fs::read_to_string(bench.path("told")).unwrap_or_default().lines().map(str::to_owned).collect()
}

#[test]
fn a_run_that_fails_is_told_by_its_last_attempt_and_the_next_good_one_tells_of_it() {
    let policy = prompt();
    let bench = ready(&policy, "");
    let retry = "  retries: {max: 2, backoff: 1s}\n";
    let spec = sources(&bench, &["gone"]) + YEARLY + retry + &telling(&bench, "failure, recovered");
    configure_as(&bench, &policy, &["a", "b"], &spec);
    let due = |bench: &Bench| remember(bench, &[(&policy, Task::Incremental, "0 0 1 1 *")], a_year_ago());
    due(&bench);
    let mut daemon = Daemon::start(&bench, &[]);
    daemon.says("attempt 2");
    assert_eq!(told(&bench), [""; 0], "another attempt comes");
    daemon.says("GIVEN UP after 3 attempts");
    daemon.signal("TERM");
    daemon.ends();
    // It was told beside the loop, and before the end.
    assert_eq!(told(&bench), ["failure"]);
    std::fs::rename(bench.path("one"), bench.path("gone")).unwrap();
    due(&bench);
    let (code, lines) = once(&bench);
    assert_eq!((code, told(&bench)), (0, vec!["failure".into(), "recovered".into()]), "{lines:#?}");
}

#[test]
fn a_run_that_is_left_out_is_told() {
    let bench = ready("daily", "");
    let spec = sources(&bench, &["one"]) + YEARLY + "  startingDeadline: 1h\n" + &telling(&bench, "missed");
    configure_as(&bench, "daily", &["a", "b"], &spec);
    remember(&bench, &[("daily", Task::Incremental, "0 0 1 1 *")], a_year_ago());
    let (_, lines) = once(&bench);
    assert!(lines.iter().any(|line| line["text"].as_str().unwrap_or("").contains("MISSED")), "{lines:#?}");
    assert_eq!(told(&bench), ["missed"]);
    let message: Value = serde_json::from_slice(&std::fs::read(bench.path("told.json")).unwrap()).unwrap();
    let text = message["text"].as_str().unwrap();
    assert!(text.contains("daily (incremental): 1 runs were missed") && text.contains("starting deadline"), "{text}");
    assert_eq!((once(&bench).1.len(), told(&bench).len()), (1, 1), "once");
}
