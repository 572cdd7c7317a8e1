//! Commands around runs and sources: their order, what they are told, what their failure does, and how they end.

use crate::harness::{Bench, small_tree};
use serde_json::Value;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A repository, two sources, and a policy with these hooks around the run and around source `one`.
struct Stage {
    bench: Bench,
}

impl Stage {
    fn new() -> Stage {
        let bench = Bench::with_key(&["a"]);
        small_tree(&bench.path("one"));
        small_tree(&bench.path("two"));
        Stage { bench }
    }

    fn configure(&self, run: &str, one: &str) {
        let path = |name: &str| self.bench.path(name).display().to_string();
        let text = format!(
            "apiVersion: holdfast.io/v1alpha1\nkind: Repository\nmetadata: {{name: main}}\nspec:\n  regions: [{{name: a, \
             url: {}}}]\n---\napiVersion: holdfast.io/v1alpha1\nkind: BackupPolicy\nmetadata: {{name: daily}}\nspec:\n  \
             retries: {{max: 0}}\n  sources:\n  - name: one\n    paths: [{}]\n{one}  - name: two\n    paths: [{}]\n{run}",
            path("region-a"),
            path("one"),
            path("two")
        );
        std::fs::write(self.bench.path("holdfast.yaml"), text).unwrap();
    }

    fn run(&self, args: &[&str]) -> (i32, Value, String) {
        let mut command = self.bench.command_at(&[], &[&["--json", "run", "daily"], args].concat());
        command.env("NOTIFY_SOCKET", "@nobody").env("WATCHDOG_USEC", "1000000");
        let out = command.env("HOLDFAST_PASSPHRASE", "SECRET").env("HOLDFAST_OTHER", "SECRET").output().unwrap();
        let text = String::from_utf8(out.stdout).unwrap();
        let said = String::from_utf8(out.stderr).unwrap();
        (out.status.code().unwrap(), serde_json::from_str(text.trim()).unwrap_or(Value::Null), said)
    }

    /// A hook that writes a line with these variables to the log.
    fn note(&self, word: &str) -> String {
        let log = self.log().display().to_string();
        format!("{{command: [sh, -c, 'echo {word} >> {log}']}}")
    }

    fn log(&self) -> std::path::PathBuf {
        self.bench.path("log")
    }

    fn logged(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.log()).unwrap_or_default();
        let _ = std::fs::remove_file(self.log());
        text.lines().map(str::to_owned).collect()
    }

    fn snapshots(&self) -> usize {
        self.bench.ok(&["snapshots"])["snapshots"].as_array().unwrap().len()
    }
}

#[test]
fn they_run_in_order_and_are_told_what_is_going_on() {
    let stage = Stage::new();
    let say = |word: &str| {
        stage.note(&format!("{word} $HOLDFAST_HOOK $HOLDFAST_KIND $HOLDFAST_SOURCE $HOLDFAST_EXIT $HOLDFAST_FATE"))
    };
    let list = |indent: &str| {
        format!(
            "{indent}hooks: {{before: [{}, {}], onFailure: [{}], after: [{}]}}\n",
            say("1"),
            say("2"),
            say("3"),
            say("4")
        )
    };
    stage.configure(&list("  "), &list("    "));
    let (code, report, said) = stage.run(&["--kind", "full"]);
    assert_eq!(code, 0, "{report:#}{said}");
    let wanted = [
        "1 before full",
        "2 before full",
        "1 before full one",
        "2 before full one",
        "4 after full one 0 protected",
        "4 after full 0",
    ];
    assert_eq!(stage.logged(), wanted);
    let hooks = report["hooks"].as_array().unwrap();
    assert!(
        hooks.len() == 6 && hooks.iter().all(|hook| hook["why"].is_null() && hook["program"] == "sh"),
        "{report:#}"
    );
    let (code, _, _) = stage.run(&["--kind", "verify"]);
    assert_eq!(
        (code, stage.logged()),
        (0, ["1 before verify", "2 before verify", "4 after verify 0"].map(String::from).to_vec())
    );
    // Also where it fails.
    std::fs::rename(stage.bench.path("one"), stage.bench.path("away")).unwrap();
    assert_eq!(stage.run(&[]).0, 1);
    let logged = stage.logged();
    assert_eq!(logged[4..6], ["3 onFailure incremental one 1 failed", "4 after incremental one 1 failed"]);
    assert_eq!(logged[6..], ["3 onFailure incremental 1", "4 after incremental 1"]);
}

#[test]
fn no_secret_reaches_them_and_what_is_made_does() {
    let stage = Stage::new();
    let env = stage.bench.path("env").display().to_string();
    stage.configure("", &format!("    hooks: {{after: [{{command: [sh, -c, 'env > {env}; pwd >> {env}']}}]}}\n"));
    let (code, report, _) = stage.run(&[]);
    assert_eq!(code, 0, "{report:#}");
    let env = std::fs::read_to_string(env).unwrap();
    assert!(!env.contains("SECRET") && !env.contains("HOLDFAST_OTHER"), "{env}");
    // Whoever has these could speak for this program to the service manager.
    assert!(!env.contains("NOTIFY_SOCKET") && !env.contains("WATCHDOG_"), "{env}");
    let sid = report["sources"][0]["snapshot"].as_str().unwrap();
    for line in [&format!("HOLDFAST_SNAPSHOT={sid}"), "HOLDFAST_POLICY=daily", "HOLDFAST_SOURCE=one", "/"] {
        assert!(env.lines().any(|l| l == line), "{line}: {env}");
    }
}

#[test]
fn one_that_fails_before_a_source_aborts_it_or_degrades_it() {
    let stage = Stage::new();
    let hooks = |failure: &str| {
        let fails = format!("{{command: [sh, -c, 'echo begin; echo what is wrong >&2; exit 9']{failure}}}");
        format!("    hooks: {{before: [{fails}, {}], after: [{}]}}\n", stage.note("second"), stage.note("after"))
    };
    stage.configure("", &hooks(""));
    let (code, report, said) = stage.run(&[]);
    assert_eq!((code, &report["failed"], &report["protected"]), (1, &1.into(), &1.into()), "{report:#}");
    assert_eq!((stage.logged(), stage.snapshots()), (vec!["after".into()], 1));
    assert!(said.contains("source one: hook sh: what is wrong") && said.contains("exit code 9"), "{said}");
    assert!(report["sources"][0]["why"][0].as_str().unwrap().contains("hook sh (before): it ended with exit code 9"));
    stage.configure("", &hooks(", failure: warn"));
    let (code, report, _) = stage.run(&[]);
    assert_eq!((code, &report["degraded"], &report["protected"]), (3, &1.into(), &1.into()), "{report:#}");
    assert_eq!((stage.logged(), stage.snapshots()), (vec!["second".into(), "after".into()], 3));
    // One that comes later stops nothing either.
    stage.configure("", "    hooks: {after: [{command: ['false']}, {command: [/no/such/program]}]}\n");
    let (code, report, _) = stage.run(&[]);
    assert_eq!((code, &report["degraded"], stage.snapshots()), (3, &1.into(), 5), "{report:#}");
    assert_eq!(report["sources"][0]["why"].as_array().unwrap().len(), 2, "{report:#}");
    assert!(report["hooks"][1]["why"].as_str().unwrap().contains("no such program"), "{report:#}");
}

#[test]
fn one_that_fails_before_the_run_aborts_all_of_it() {
    let stage = Stage::new();
    let fails = |more: &str| {
        format!(
            "  hooks: {{before: [{{command: ['false']{more}}}], onFailure: [{}], after: [{}]}}\n",
            stage.note("failed"),
            stage.note("after")
        )
    };
    stage.configure(&fails(""), "");
    let (code, report, _) = stage.run(&[]);
    assert_eq!((code, &report["failed"], stage.snapshots()), (1, &2.into(), 0), "{report:#}");
    assert_eq!(stage.logged(), ["failed", "after"]);
    let (code, report, _) = stage.run(&["--kind", "verify"]);
    assert!(code == 1 && report["error"]["what"].as_str().unwrap().contains("hook false (before)"), "{report:#}");
    assert_eq!(stage.logged(), ["failed", "after"]);
    stage.configure(&fails(", failure: warn"), "");
    let (code, report, _) = stage.run(&[]);
    assert_eq!((code, &report["protected"], stage.snapshots()), (3, &2.into(), 2), "{report:#}");
    assert_eq!(stage.logged(), ["after"]);
}

#[test]
fn one_that_takes_too_long_is_ended_with_what_it_started() {
    let stage = Stage::new();
    let pids = stage.bench.path("pids").display().to_string();
    let script = format!(
        "trap \"\" TERM; sh -c \"trap \\\"\\\" TERM; echo \\$\\$ >> {pids}; while :; do sleep 1; done\" & echo $$ >> {pids}; while :; do sleep 1; done"
    );
    let script = script.replace('\'', "''");
    stage.configure(
        "",
        &format!("    hooks: {{before: [{{command: [sh, -c, '{script}'], timeout: 1s, failure: warn}}]}}\n"),
    );
    let began = Instant::now();
    let (code, report, said) = stage.run(&[]);
    assert_eq!((code, &report["degraded"]), (3, &1.into()), "{report:#}{said}");
    assert!(said.contains("it was ended after 1 s") && began.elapsed() < Duration::from_secs(40), "{said}");
    let pids = std::fs::read_to_string(pids).unwrap();
    assert_eq!(pids.lines().count(), 2, "{pids}");
    for pid in pids.lines() {
        ended(pid, began);
    }
}

/// Waits until a process is no more, or only waits to be taken note of.
fn ended(pid: &str, since: Instant) {
    let state = || std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_else(|_| "0 (x) Z".into());
    while !state().contains(") Z") {
        assert!(since.elapsed() < Duration::from_secs(50), "{pid} lives");
        std::thread::yield_now();
    }
}

fn started(stage: &Stage, until: &Path) -> Child {
    let mut command = stage.bench.command_at(&[], &["run", "daily"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    while !until.exists() {
        assert_eq!(child.try_wait().unwrap(), None, "it ended early");
        std::thread::yield_now();
    }
    child
}

fn interrupt(child: &Child) {
    signal(child, "TERM");
}

fn signal(child: &Child, name: &str) {
    let done = Command::new("kill").args(["-s", name, &child.id().to_string()]).status();
    assert!(done.is_ok_and(|s| s.success()), "kill");
}

#[test]
fn an_interruption_ends_one_that_runs_before_and_those_after_still_run() {
    let stage = Stage::new();
    let pid = stage.bench.path("pid");
    let waits = format!("{{command: [sh, -c, 'echo $$ > {0}.new; mv {0}.new {0}; exec sleep 600']}}", pid.display());
    let hooks = |indent: &str, before: &str| {
        format!("{indent}hooks: {{before: [{before}], after: [{}]}}\n", stage.note("after $HOLDFAST_SOURCE"))
    };
    for (run, one) in [(hooks("  ", &waits), hooks("    ", "")), (hooks("  ", ""), hooks("    ", &waits))] {
        let around_run = run.contains("sleep");
        stage.configure(&run.replace("before: [], ", ""), &one.replace("before: [], ", ""));
        let child = started(&stage, &pid);
        let sent = Instant::now();
        interrupt(&child);
        let out = child.wait_with_output().unwrap();
        assert_eq!(out.status.code(), Some(130), "{out:?}");
        assert!(sent.elapsed() < Duration::from_secs(15), "{:?}", sent.elapsed());
        ended(std::fs::read_to_string(&pid).unwrap().trim(), sent);
        std::fs::remove_file(&pid).unwrap();
        let wanted: &[&str] = if around_run { &["after"] } else { &["after one", "after"] };
        assert_eq!(stage.logged(), wanted);
        assert_eq!(stage.snapshots(), 0);
    }
}

/// A program that somebody started, and that goes on without him.
fn deaf_to_hang_ups(command: &mut Command) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", "trap '' HUP; exec \"$@\"", "sh"]).arg(command.get_program()).args(command.get_args());
    shell.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    shell.current_dir(command.get_current_dir().unwrap()).stdin(Stdio::null());
    shell
}

#[test]
fn a_terminal_that_goes_away_is_an_interruption_unless_hang_ups_are_ignored() {
    for (ignored, signals) in [(false, &["HUP", "HUP"][..]), (true, &["HUP", "TERM"])] {
        let stage = Stage::new();
        let pid = stage.bench.path("pid");
        let waits =
            format!("{{command: [sh, -c, 'echo $$ > {0}.new; mv {0}.new {0}; exec sleep 600']}}", pid.display());
        let after = stage.note("after");
        stage.configure("", &format!("    hooks: {{before: [{waits}], after: [{after}]}}\n"));
        let mut command = stage.bench.command_at(&[], &["run", "daily"]);
        if ignored {
            command = deaf_to_hang_ups(&mut command);
        }
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        while !pid.exists() {
            assert_eq!(child.try_wait().unwrap(), None, "it ended early");
            std::thread::yield_now();
        }
        signals.iter().for_each(|name| signal(&child, name));
        let out = child.wait_with_output().unwrap();
        // Had the ignored one counted, the next would have ended it before it could clean up.
        assert_eq!((out.status.code(), stage.logged()), (Some(130), vec!["after".into()]), "{signals:?}: {out:?}");
    }
}

#[test]
fn an_interruption_lets_one_that_cleans_up_finish() {
    let stage = Stage::new();
    let (begun, cleaned) = (stage.bench.path("begun"), stage.bench.path("cleaned"));
    let script = format!(
        "touch {}; while ! [ -e {}.go ]; do sleep 0.1; done; touch {}",
        begun.display(),
        begun.display(),
        cleaned.display()
    );
    stage.configure("", &format!("    hooks: {{after: [{{command: [sh, -c, '{script}']}}]}}\n"));
    let child = started(&stage, &begun);
    interrupt(&child);
    std::fs::write(format!("{}.go", begun.display()), "").unwrap();
    let out = child.wait_with_output().unwrap();
    assert!(cleaned.exists(), "{out:?}");
    assert_eq!(out.status.code(), Some(130), "the second source was not begun: {out:?}");
    assert_eq!(stage.snapshots(), 1);
}
