//! Policies that are run: what becomes of each source, and whose turn it is.

use crate::harness::{Bench, assert_same, opened, small_tree};
use holdfast::base::Generation;
use holdfast::repo::session::{Errand, Session};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::process::Stdio;

/// Writes a configuration with the bench's regions and one policy, `daily`.
fn configure(bench: &Bench, regions: &[&str], spec: &str) {
    configure_as(bench, "daily", regions, spec);
}

/// The same with a policy of another name.
pub fn configure_as(bench: &Bench, policy: &str, regions: &[&str], spec: &str) {
    let entry = |r: &&str| format!("  - {{name: {r}, url: {}}}\n", bench.region(r).display());
    let regions: String = regions.iter().map(entry).collect();
    let text = format!(
        "apiVersion: holdfast.io/v1alpha1\nkind: Repository\nmetadata: {{name: main}}\nspec:\n  regions:\n{regions}\
         ---\napiVersion: holdfast.io/v1alpha1\nkind: BackupPolicy\nmetadata: {{name: {policy}}}\nspec:\n{spec}"
    );
    std::fs::write(bench.path("holdfast.yaml"), text).unwrap();
}

pub fn sources(bench: &Bench, names: &[&str]) -> String {
    let entry = |n: &&str| format!("  - {{name: {n}, paths: [{}]}}\n", bench.path(n).display());
    format!("  sources:\n{}", names.iter().map(entry).collect::<String>())
}

fn run(bench: &Bench, args: &[&str]) -> (i32, Value) {
    let (code, value) = bench.json_at(&[], args);
    if value["verb"] == "run" && value["kind"] != "verify" {
        let counted = ["protected", "degraded", "failed", "excluded"].map(|fate| value[fate].as_u64().unwrap());
        assert_eq!(counted.iter().sum::<u64>(), value["sources_total"].as_u64().unwrap(), "{value:#}");
    }
    (code, value)
}

#[test]
fn a_run_protects_every_source_of_its_policy() {
    let bench = Bench::with_key(&["a", "b"]);
    small_tree(&bench.path("one"));
    small_tree(&bench.path("two"));
    configure(&bench, &["a", "b"], &sources(&bench, &["one", "two"]));
    let (code, first) = run(&bench, &["run", "daily"]);
    assert_eq!((code, &first["protected"]), (0, &2.into()), "{first:#}");
    assert_eq!(first["kind"], "incremental");
    let (code, full) = run(&bench, &["run", "daily", "--kind", "full"]);
    assert_eq!((code, &full["protected"]), (0, &2.into()), "{full:#}");
    let sid = full["sources"][1]["snapshot"].as_str().unwrap();
    let all = bench.ok(&["snapshots"]);
    let all = all["snapshots"].as_array().unwrap();
    let modes: Vec<(&str, &str)> =
        all.iter().map(|s| (s["source"].as_str().unwrap(), s["mode"].as_str().unwrap())).collect();
    let wanted = [("one", "incremental"), ("two", "incremental"), ("one", "full"), ("two", "full")];
    assert_eq!(modes, wanted);
    bench.ok(&["restore", sid, "--target", bench.path("back").to_str().unwrap()]);
    assert_same(&bench.path("two"), &bench.path("back"));
    let (code, checked) = run(&bench, &["run", "daily", "--kind", "verify"]);
    assert_eq!((code, &checked["findings"]), (0, &Value::Array(vec![])), "{checked:#}");
    let (code, _) = run(&bench, &["run", "dayly"]);
    assert_eq!(code, 2);
}

#[test]
fn what_fails_is_tried_again_and_named_and_the_others_are_protected_once() {
    let bench = Bench::with_key(&["a"]);
    small_tree(&bench.path("one"));
    let retries = "  retries: {max: 2, backoff: 1s}\n";
    configure(&bench, &["a"], &(sources(&bench, &["one", "gone"]) + retries));
    let (code, value) = run(&bench, &["run", "daily"]);
    assert_eq!((code, &value["attempts"]), (1, &3.into()), "{value:#}");
    assert_eq!((&value["protected"], &value["failed"]), (&1.into(), &1.into()), "{value:#}");
    let gone = &value["sources"][1];
    assert!(gone["fate"] == "failed" && gone["why"][0].as_str().unwrap().contains("gone"), "{gone:#}");
    assert_eq!(bench.ok(&["snapshots"])["snapshots"].as_array().unwrap().len(), 1);
    let out = bench.command_at(&[], &["run", "daily"]).output().unwrap();
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(said.contains("2 sources: 1 protected, 0 degraded, 1 failed, 0 excluded, 3 attempts: failed"), "{said}");
}

#[test]
fn an_interruption_between_attempts_loses_nothing_of_what_was_done() {
    let bench = Bench::with_key(&["a"]);
    small_tree(&bench.path("one"));
    let retries = "  retries: {max: 2, backoff: 1h}\n";
    configure(&bench, &["a"], &(sources(&bench, &["one", "gone"]) + retries));
    let mut waiting = bench.command_at(&[], &["--json", "run", "daily"]);
    let mut waiting = waiting.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(waiting.stderr.take().unwrap()).lines();
    let said = lines.find_map(|line| line.ok().filter(|l| l.contains("attempt 1 failed")));
    assert!(said.is_some_and(|said| said.contains("the next is in 3600 s")));
    let done = std::process::Command::new("kill").args(["-s", "TERM", &waiting.id().to_string()]).status();
    assert!(done.is_ok_and(|s| s.success()), "kill");
    let out = waiting.wait_with_output().unwrap();
    let report: Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!((out.status.code(), &report["exit"]["name"]), (Some(130), &"interrupted".into()), "{report:#}");
    assert_eq!((&report["protected"], &report["failed"], &report["attempts"]), (&1.into(), &1.into(), &1.into()));
    assert!(report["sources"][0]["snapshot"].is_string(), "{report:#}");
}

#[test]
fn a_region_that_is_away_degrades_a_run_and_too_few_copies_fail_it() {
    let bench = Bench::with_key(&["a", "b"]);
    small_tree(&bench.path("one"));
    std::fs::rename(bench.region("b"), bench.path("away")).unwrap();
    let retries = "  retries: {max: 0}\n";
    configure(&bench, &["a", "b"], &(sources(&bench, &["one"]) + "  copies: {min: 1}\n" + retries));
    let (code, value) = run(&bench, &["run", "daily"]);
    assert_eq!((code, &value["degraded"]), (4, &1.into()), "{value:#}");
    configure(&bench, &["a", "b"], &(sources(&bench, &["one"]) + "  copies: {min: 2}\n" + retries));
    let (code, value) = run(&bench, &["run", "daily"]);
    assert_eq!((code, &value["failed"]), (1, &1.into()), "{value:#}");
}

#[test]
fn a_run_sees_another_one_at_work_on_the_source() {
    let bench = Bench::new(&["a", "b"]);
    small_tree(&bench.path("one"));
    let repo = opened(&bench);
    let announce = |source: &str| {
        let errand = Errand { host: "elsewhere".into(), source: source.into(), generation: Generation(1) };
        Session::announce(&repo, errand, None).unwrap()
    };
    let configured = |rule: &str| configure(&bench, &["a", "b"], &(sources(&bench, &["one"]) + rule));
    // Another source is no business of ours.
    let _other = announce("two");
    configured("  concurrency: forbid\n");
    assert_eq!(run(&bench, &["run", "daily"]).0, 0);
    let session = announce("one");
    let (code, value) = run(&bench, &["run", "daily"]);
    assert_eq!((code, &value["excluded"]), (11, &1.into()), "{value:#}");
    assert!(value["sources"][0]["why"][0].as_str().unwrap().contains("elsewhere"), "{value:#}");
    configured("  concurrency: replace\n");
    assert_eq!(run(&bench, &["run", "daily"]).0, 0);
    configured("  concurrency: queue\n");
    let mut waiting = bench.command_at(&[], &["run", "daily"]);
    let mut waiting = waiting.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(waiting.stderr.take().unwrap()).lines();
    let said = lines.find_map(|line| line.ok().filter(|l| l.contains("waited for")));
    assert!(said.is_some() && waiting.try_wait().unwrap().is_none(), "it does not wait");
    session.give_up(&repo, "the test is over").unwrap();
    let out = waiting.wait_with_output().unwrap();
    assert!(out.status.success(), "{out:?}");
}

#[test]
fn a_run_forgets_what_its_retention_does_not_keep_but_an_empty_source_pushes_nothing_out() {
    let bench = Bench::with_key(&["a"]);
    small_tree(&bench.path("one"));
    configure(&bench, &["a"], &format!("{}  retention: {{last: 2}}\n", sources(&bench, &["one"])));
    let forgotten: Vec<u64> = (0..4)
        .map(|_| {
            let (code, report) = run(&bench, &["run", "daily"]);
            assert_eq!(code, 0, "{report:#}");
            report["sources"][0]["forgotten"].as_u64().unwrap()
        })
        .collect();
    assert_eq!(forgotten, [0, 0, 1, 1]);
    assert_eq!(bench.ok(&["snapshots"])["snapshots"].as_array().map(Vec::len), Some(2));
    std::fs::remove_dir_all(bench.path("one")).unwrap();
    std::fs::create_dir(bench.path("one")).unwrap();
    let (code, report) = run(&bench, &["run", "daily"]);
    let one = &report["sources"][0];
    assert_eq!((code, &one["fate"], &one["forgotten"]), (11, &"degraded".into(), &0.into()), "{report:#}");
    assert!(one["why"][0].as_str().unwrap().contains("holds 0 files"), "{report:#}");
    assert_eq!(bench.ok(&["snapshots"])["snapshots"].as_array().map(Vec::len), Some(3), "the full ones stay");
    // Without retention it is said all the same.
    configure(&bench, &["a"], &sources(&bench, &["one"]));
    assert_eq!(run(&bench, &["run", "daily"]).0, 11);
    configure(&bench, &["a"], &format!("{}  retention: {{last: 2}}\n", sources(&bench, &["one"])));
    assert_eq!(run(&bench, &["run", "daily", "--kind", "verify", "--accept-shrunk"]).0, 2);
    let (code, report) = run(&bench, &["run", "daily", "--accept-shrunk"]);
    assert_eq!((code, &report["sources"][0]["forgotten"]), (0, &3.into()), "{report:#}");
    assert_eq!(run(&bench, &["run", "daily"]).0, 0);
}

#[test]
fn a_session_from_times_to_come_holds_nobody_up() {
    let bench = Bench::new(&["a"]);
    small_tree(&bench.path("one"));
    configure(&bench, &["a"], &sources(&bench, &["one"]));
    let repo = opened(&bench);
    let errand = Errand { host: "elsewhere".into(), source: "one".into(), generation: Generation(1) };
    let session = Session::announce(&repo, errand, None).unwrap();
    let path = bench.region("a").join(holdfast::store::Key::Session(session.sid).path());
    let touch = |ahead: u64| {
        let now = holdfast::base::Env::system().now().0.unsigned_abs() / 1000;
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(now + ahead);
        std::fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
    };
    touch(120);
    assert_eq!(run(&bench, &["run", "daily"]).0, 11);
    touch(365 * 86_400);
    assert_eq!(run(&bench, &["run", "daily"]).0, 0);
}

/// Starts a run and waits until it is at work on the source.
fn at_work(bench: &Bench) -> std::process::Child {
    let sessions = || bench.objects("a").into_iter().filter(|key| key.starts_with("sessions/")).count();
    let mut command = bench.command_at(&[], &["run", "daily"]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    while sessions() == 0 {
        assert!(child.try_wait().unwrap().is_none(), "it ended without a session");
        std::thread::yield_now();
    }
    child
}

#[test]
fn the_next_run_knows_that_the_one_before_was_killed() {
    let bench = Bench::with_key(&["a"]);
    small_tree(&bench.path("one"));
    for n in 0..40 {
        std::fs::write(bench.path("one").join(format!("large-{n}")), crate::harness::noise(n, 3_000_000)).unwrap();
    }
    configure(&bench, &["a"], &(sources(&bench, &["one"]) + "  retries: {max: 0}\n"));
    let mut killed = at_work(&bench);
    let (code, report) = run(&bench, &["run", "daily"]);
    assert_eq!((code, &report["excluded"]), (11, &1.into()), "{report:#}");
    let why = &report["sources"][0]["why"][0];
    assert!(why.as_str().unwrap().contains("another program on this host"), "{report:#}");
    killed.kill().unwrap();
    killed.wait().unwrap();
    // Whoever does not know has to wait.
    let (turns, away) = (bench.path("state/turns"), bench.path("away"));
    std::fs::rename(&turns, &away).unwrap();
    let (code, report) = run(&bench, &["run", "daily"]);
    assert_eq!((code, &report["excluded"]), (11, &1.into()), "{report:#}");
    std::fs::remove_dir_all(&turns).unwrap();
    std::fs::rename(&away, &turns).unwrap();
    let (code, report) = run(&bench, &["run", "daily"]);
    assert_eq!((code, &report["protected"]), (0, &1.into()), "{report:#}");
}

#[test]
fn forget_applies_a_policy_to_its_sources_and_says_why() {
    let bench = Bench::with_key(&["a"]);
    for name in ["one", "other"] {
        small_tree(&bench.path(name));
    }
    configure(&bench, &["a"], &sources(&bench, &["one"]));
    for _ in 0..3 {
        assert_eq!(run(&bench, &["run", "daily"]).0, 0);
        bench.ok(&["backup", "--name", "other", "other"]);
    }
    let zone = "  schedule: {timeZone: Europe/Berlin, full: '@weekly'}\n";
    let old = bench.path("old.yaml");
    std::fs::rename(bench.path("holdfast.yaml"), &old).unwrap();
    configure(&bench, &["a"], &format!("{}{zone}  retention: {{last: 2}}\n", sources(&bench, &["one"])));
    // What the change does is said before it does it.
    let (code, diff) = run(&bench, &["policy", "diff", "old.yaml", "holdfast.yaml", "--snapshots"]);
    let one = &diff["snapshots"][0];
    assert_eq!((code, &one["source"], &one["kept_old"], &one["kept_new"]), (0, &"one".into(), &3.into(), &2.into()));
    let (code, plan) = run(&bench, &["forget", "--policy", "daily", "--dry-run"]);
    assert_eq!((code, &plan["time_zone"]), (0, &"Europe/Berlin".into()), "{plan:#}");
    let lines = plan["plan"].as_array().unwrap();
    let reasons: Vec<&Value> = lines.iter().map(|line| &line["reasons"]).collect();
    assert_eq!(
        reasons,
        [&serde_json::json!(["last", "last-good"]), &serde_json::json!(["last"]), &serde_json::json!([])]
    );
    assert_eq!(one["lost"], serde_json::json!([lines[2]["id"]]));
    let (code, done) = run(&bench, &["forget", "--policy", "daily"]);
    assert_eq!((code, &done["forgotten"]), (0, &one["lost"]), "{done:#}");
    assert_eq!(bench.ok(&["snapshots", "--name", "other"])["snapshots"].as_array().unwrap().len(), 3);
    // A source that no policy names any more is forgotten by none, whatever was said of it before.
    std::fs::copy(bench.path("holdfast.yaml"), &old).unwrap();
    configure(&bench, &["a"], &format!("{}  retention: {{last: 1}}\n", sources(&bench, &["other"])));
    let out = bench.command_at(&[], &["policy", "diff", "old.yaml", "holdfast.yaml", "--snapshots"]).output().unwrap();
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(said.contains("source one: no policy names it any more: its 2 snapshots stay"), "{said}");
    assert!(said.contains("source other: of its 3 snapshots 3 are kept now and 1 will be\n  forgets  "), "{said}");
    for wrong in [&["--keep-last", "1"][..], &["--time-zone", "UTC"], &["latest"], &["--policy", "dayly"]] {
        let args = [&["forget", "--policy", "daily"], wrong].concat();
        assert_eq!(bench.command_at(&[], &args).output().unwrap().status.code(), Some(2), "{wrong:?}");
    }
    assert_eq!(bench.json(&["forget", "--policy", "daily"]).0, 2, "regions from two sides");
}

#[test]
fn a_daemon_brings_up_a_region_that_is_back() {
    let bench = Bench::with_key(&["a", "b"]);
    small_tree(&bench.path("one"));
    let rest = "  schedule: {full: '@yearly'}\n  copies: {min: 1}\n  retries: {max: 0}\n";
    configure(&bench, &["a", "b"], &(sources(&bench, &["one"]) + rest));
    std::fs::rename(bench.region("b"), bench.path("away")).unwrap();
    assert_eq!(run(&bench, &["run", "daily"]).0, 4);
    std::fs::rename(bench.path("away"), bench.region("b")).unwrap();
    let mut daemon = bench.command_at(&[], &["daemon", "--replicate-every", "1s"]);
    let mut daemon = daemon.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(daemon.stderr.take().unwrap()).lines();
    let said = lines.find_map(|line| line.ok().filter(|line| line.contains("brought up regions that were behind")));
    assert!(said.as_ref().is_some_and(|said| said.contains("all regions are complete")), "{said:?}");
    let done = std::process::Command::new("kill").args(["-s", "TERM", &daemon.id().to_string()]).status();
    assert!(done.is_ok_and(|s| s.success()), "kill");
    assert_eq!(daemon.wait().unwrap().code(), Some(0));
    crate::replicate::equal(&bench, "brought up by the daemon");
}
