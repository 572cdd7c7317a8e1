//! A daemon and those whom it tells: slow ones, many at once, names made to silence or to deceive them.

use crate::alerts::{Answer, Server};
use crate::daemon::{configure_as, sources};
use crate::harness::Bench;
use crate::serve::{Daemon, RETRY, YEARLY, a_year_ago, once, prompt, ready, remember, store, told};
use holdfast::base::TimeMs;
use holdfast::daemon::{JobId, Memory, Running};
use holdfast::policy::Task;
use std::time::{Duration, Instant};

/// Ends are in time when they come long before anything that a receiver could hold up.
const IN_TIME: Duration = Duration::from_secs(60);

fn overdue(bench: &Bench, policy: &str) {
    remember(bench, &[(policy, Task::Incremental, "0 0 1 1 *")], a_year_ago());
}

fn webhook(on: &str, url: &str) -> String {
    format!("  alerts: [{{name: slow, events: [{on}], timeout: 1h, webhook: {{url: '{url}'}}}}]\n")
}

fn quiet_daemon(bench: &Bench, args: &[&str]) -> Daemon {
    let mut command = bench.command_at(&[], &[&["daemon"], args].concat());
    command.env("NO_PROXY", "127.0.0.1");
    Daemon::spawn(command)
}

fn until_asked(server: &Server, since: Instant) {
    while server.seen().is_empty() {
        assert!(since.elapsed() < IN_TIME, "nobody was told");
        std::thread::yield_now();
    }
}

#[test]
fn whoever_is_slow_to_take_an_alert_holds_up_neither_runs_nor_the_end() {
    let slow = Server::new(&[Answer::Silence]);
    let policy = prompt();
    let bench = ready(&policy, "");
    let spec = sources(&bench, &["gone"]) + YEARLY + "  retries: {max: 0}\n" + &webhook("failure", &slow.url());
    configure_as(&bench, &policy, &["a", "b"], &spec);
    overdue(&bench, &policy);
    let began = Instant::now();
    let mut daemon = quiet_daemon(&bench, &["--stop-within", "1s"]);
    // The run is over although nobody has taken the alert.
    daemon.says("GIVEN UP after 1 attempts");
    until_asked(&slow, began);
    daemon.signal("TERM");
    let (status, said) = daemon.ends();
    assert_eq!(status.code(), Some(0), "{said}");
    assert!(said.contains("alert slow was not sent") && said.contains("interrupted"), "{said}");
    assert!(began.elapsed() < IN_TIME, "{:?}", began.elapsed());
}

#[test]
fn whoever_is_slow_to_hear_of_a_missed_run_does_not_hold_up_the_end() {
    let slow = Server::new(&[Answer::Silence]);
    let policy = prompt();
    let bench = ready(&policy, "");
    let spec = sources(&bench, &["one"]) + YEARLY + "  startingDeadline: 1h\n" + &webhook("missed", &slow.url());
    configure_as(&bench, &policy, &["a", "b"], &spec);
    overdue(&bench, &policy);
    let began = Instant::now();
    let mut daemon = quiet_daemon(&bench, &["--stop-within", "1h"]);
    daemon.says("MISSED");
    until_asked(&slow, began);
    daemon.signal("TERM");
    daemon.says("stopping");
    // The second one wants it at once.
    daemon.signal("TERM");
    let (status, said) = daemon.ends();
    assert_eq!(status.code(), Some(0), "{said}");
    assert!(said.contains("alert slow was not sent"), "{said}");
    assert!(began.elapsed() < IN_TIME, "{:?}", began.elapsed());
}

#[test]
fn hundreds_of_missed_runs_are_told_by_few() {
    const POLICIES: usize = 200;
    let bench = ready("daily", "");
    let one = bench.path("one").display().to_string();
    let head = std::fs::read_to_string(bench.path("holdfast.yaml")).unwrap();
    let mut text = head.split("---").next().unwrap().to_owned();
    let mut jobs = Vec::new();
    for n in 0..POLICIES {
        text += &format!(
            "---\napiVersion: holdfast.io/v1alpha1\nkind: BackupPolicy\nmetadata: {{name: policy-{n}}}\nspec:\n  \
             sources: [{{name: source-{n}, paths: [{one}]}}]\n  startingDeadline: 1h\n{YEARLY}  \
             alerts: [{{name: slow, events: [missed], command: [sleep, '600']}}]\n"
        );
        // A file of the configuration has at most 64 documents.
        if n % 60 == 59 || n + 1 == POLICIES {
            std::fs::create_dir_all(bench.path("config")).unwrap();
            std::fs::write(bench.path(&format!("config/{n}.yaml")), std::mem::take(&mut text)).unwrap();
        }
        jobs.push(format!("policy-{n}"));
    }
    let jobs: Vec<(&str, Task, &str)> = jobs.iter().map(|name| (&name[..], Task::Incremental, "0 0 1 1 *")).collect();
    remember(&bench, &jobs, a_year_ago());
    let config = bench.path("config").display().to_string();
    let mut daemon = Daemon::start(&bench, &["--config", &config, "--stop-within", "1s"]);
    (0..POLICIES).for_each(|_| drop(daemon.says("MISSED")));
    // Something is said after everybody was set to work.
    daemon.signal("HUP");
    daemon.says("configuration read");
    let status = std::fs::read_to_string(format!("/proc/{}/status", daemon.id())).unwrap();
    let threads = status.lines().find_map(|line| line.strip_prefix("Threads:")).unwrap().trim().parse::<usize>();
    assert!(threads.clone().is_ok_and(|n| n < 50), "{threads:?}");
    daemon.signal("TERM");
    let (status, said) = daemon.ends();
    assert_eq!(status.code(), Some(0), "{said}");
    let (under_way, waited) =
        (said.matches("alert slow was not sent").count(), said.matches("alerts were not sent").count());
    assert_eq!(under_way + waited, POLICIES, "each is accounted for: {said}");
}

#[test]
fn a_run_that_was_cut_off_too_often_is_told() {
    let policy = prompt();
    let bench = ready(&policy, "");
    let spec = sources(&bench, &["one"]) + YEARLY + RETRY + &crate::serve::telling(&bench, "failure, recovered");
    configure_as(&bench, &policy, &["a", "b"], &spec);
    // Whatever ended the daemon ended it in each attempt: nobody was left to tell.
    let id = JobId { policy: policy.clone(), kind: Task::Incremental };
    let handled = a_year_ago() + 365 * 86_400_000;
    let (due, since) = (TimeMs(handled - 1), TimeMs(handled));
    let running = |attempt| Some(Running { due, attempt, since, replaced: false });
    let memory = |attempt| Memory { running: running(attempt), ..Memory::new("0 0 1 1 * UTC".into(), since) };
    store(&bench, [(id.clone(), memory(4))].into());
    let (_, lines) = once(&bench);
    assert!(lines.iter().any(|l| l["text"].as_str().unwrap_or("").contains("GIVEN UP after 4")), "{lines:#?}");
    assert_eq!(told(&bench), ["failure"]);
    assert_eq!(once(&bench).1.len(), 1, "once");
    // It counts as a failure: the next good one is a recovery.
    overdue(&bench, &policy);
    assert_eq!((once(&bench).0, told(&bench)), (0, vec!["failure".into(), "recovered".into()]));
}

#[test]
fn no_name_silences_an_alert_or_forges_a_line_of_it() {
    let policy = prompt();
    let bench = ready(&policy, "");
    // What is wrong is longer than a variable of a program may be, and pretends to be the message's own lines.
    let long = format!("/no/such{}", "/program".repeat(490));
    let forged = r"/no\nall is well\u001b[2J";
    let hook = |program: &str| format!("{{command: [\"{program}\", x], failure: warn}}");
    let hooks: Vec<String> = std::iter::once(hook(forged)).chain((0..60).map(|_| hook(&long))).collect();
    let spec = format!(
        "  sources: [{{name: one, paths: [{}], hooks: {{before: [{}]}}}}]\n{YEARLY}{}",
        bench.path("one").display(),
        hooks.join(", "),
        crate::serve::telling(&bench, "degraded")
    );
    configure_as(&bench, &policy, &["a", "b"], &spec);
    overdue(&bench, &policy);
    let (code, lines) = once(&bench);
    assert_eq!((code, told(&bench)), (3, vec!["degraded".to_owned()]), "{lines:#?}");
    let message = std::fs::read(bench.path("told.json")).unwrap();
    assert!(message.len() < 200_000, "{}", message.len());
    let message: serde_json::Value = serde_json::from_slice(&message).unwrap();
    let text = message["text"].as_str().unwrap();
    assert!(text.contains(r"hook /no\nall is well\u{1b}[2J (before)"), "{text}");
    assert!(
        text.lines().count() <= 52 && text.lines().all(|line| line.len() < 1100 && line != "all is well"),
        "{text}"
    );
    let why = message["sources"][0]["why"].as_array().unwrap();
    assert_eq!((why.len(), why.last().and_then(|w| w.as_str())), (11, Some("and 51 more")));
}

#[test]
fn what_was_protected_before_the_policy_changed_is_not_taken_for_done() {
    let policy = prompt();
    let bench = ready(&policy, "");
    let spec = |sources: String| sources + YEARLY + "  retries: {max: 3, backoff: 5s}\n";
    configure_as(&bench, &policy, &["a", "b"], &spec(sources(&bench, &["one", "gone"])));
    overdue(&bench, &policy);
    let mut daemon = Daemon::start(&bench, &[]);
    daemon.says("attempt 2 at");
    // `one` is protected, and is another folder now.
    std::fs::create_dir(bench.path("other")).unwrap();
    let changed = sources(&bench, &["one", "gone"]).replace("/one]", "/other]");
    configure_as(&bench, &policy, &["a", "b"], &spec(changed));
    std::fs::create_dir(bench.path("gone")).unwrap();
    daemon.signal("HUP");
    daemon.says("configuration read");
    daemon.says("2 sources: ");
    daemon.signal("TERM");
    daemon.ends();
    let all = bench.ok(&["snapshots", "--name", "one"]);
    let paths: Vec<&str> =
        all["snapshots"].as_array().unwrap().iter().map(|s| s["paths"][0].as_str().unwrap()).collect();
    assert!(paths.len() == 2 && paths[0].ends_with("/one") && paths[1].ends_with("/other"), "{paths:?}");
}
