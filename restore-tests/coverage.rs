//! Checks by schedule: a share of the packs a run, what waited longest first, and the number that says how far it is.

use crate::harness::{Bench, configure_daily, noise};
use serde_json::Value;
use std::path::PathBuf;

/// A policy of one source whose verification is `spec`, and six packs with content.
fn ready(spec: &str) -> Bench {
    let bench = Bench::with_key(&["a", "b"]);
    configure_daily(&bench, spec);
    for n in 0..6 {
        std::fs::create_dir_all(bench.path("source")).unwrap();
        std::fs::write(bench.path(&format!("source/{n}")), noise(n, 400_000)).unwrap();
        assert_eq!(bench.json_at(&[], &["run", "daily"]).0, 0);
    }
    bench
}

fn check(bench: &Bench) -> (i32, Value) {
    bench.json_at(&[], &["run", "daily", "--kind", "verify"])
}

fn shares(value: &Value) -> Vec<f64> {
    value["coverage"].as_array().unwrap().iter().map(|region| region["share"].as_f64().unwrap()).collect()
}

/// The packs of a region, the largest first.
fn packs(bench: &Bench, region: &str) -> Vec<PathBuf> {
    let mut stack = vec![bench.region(region).join("packs")];
    let mut found = Vec::new();
    while let Some(dir) = stack.pop() {
        for entry in std::fs::read_dir(dir).unwrap().flatten() {
            if entry.path().is_dir() { stack.push(entry.path()) } else { found.push(entry.path()) }
        }
    }
    found.sort_by_key(|path| std::cmp::Reverse(path.metadata().unwrap().len()));
    found
}

fn flip(path: &PathBuf) {
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn shares_of_the_packs_get_round_to_all_of_them() {
    let bench = ready("verify: {schedule: '@daily', level: ciphertext, share: 34%, repair: false}");
    let mut last = vec![0.0, 0.0];
    let mut runs = 0;
    while last.iter().any(|share| *share < 1.0) {
        let (code, value) = check(&bench);
        assert_eq!(code, 0, "{value:#}");
        let now = shares(&value);
        // Each run reads something that no run before it read.
        assert!(now.iter().zip(&last).all(|(now, last)| now > last || *last == 1.0), "{last:?} {now:?}");
        assert!(runs > 0 || now.iter().all(|share| *share < 1.0), "a third is not all: {now:?}");
        (last, runs) = (now, runs + 1);
    }
    let status = bench.json_at(&[], &["status"]).1;
    assert_eq!(status["regions"][1]["coverage"].as_f64(), Some(1.0), "{status:#}");
    // What is damaged is found once its turn comes. The next run is the turn of others, and still says so: it was not
    // mended by not being looked at.
    let damaged = &packs(&bench, "b")[0];
    let sound = std::fs::read(damaged).unwrap();
    flip(damaged);
    let found: Vec<(i32, Value)> = (0..2 * runs).map(|_| check(&bench)).collect();
    let first = found.iter().position(|(code, _)| *code == 5).expect("it was never found");
    assert!(first < runs && found[first..].iter().all(|(code, _)| *code == 5), "{found:?}");
    let earlier = |value: &Value| value["findings"].to_string().contains("found by an earlier check");
    let others = found[first..].iter().filter(|(_, value)| earlier(value)).count();
    assert!(others >= runs - 1 && others < found.len() - first, "read again in its turn, and no sooner: {found:?}");
    let status = bench.json_at(&[], &["status"]);
    let share = status.1["regions"][1]["coverage"].as_f64();
    assert!(status.0 == 5 && share.is_some_and(|share| share < 1.0), "what is damaged is not verified: {share:?}");
    std::fs::write(damaged, sound).unwrap();
    assert!((0..=runs).any(|_| check(&bench).0 == 0), "it was mended");
    assert_eq!(bench.json_at(&[], &["status"]).0, 0);
}

/// A check without a key does not know what should be there, but it does know what was.
#[test]
fn packs_that_are_gone_are_missed_with_and_without_a_key() {
    let bench = ready("verify: {schedule: '@daily', level: ciphertext, repair: false}");
    let gone = packs(&bench, "b").remove(0);
    std::fs::rename(&gone, bench.path("hidden")).unwrap();
    for _ in 0..2 {
        let (code, value) = bench.json(&["verify", "--level", "ciphertext"]);
        assert_eq!((code, value["findings"].as_array().map(Vec::len)), (5, Some(1)), "{value:#}");
        assert_eq!(bench.json_at(&[], &["status"]).0, 5);
    }
    assert_eq!(check(&bench).0, 5);
    assert_eq!(bench.json(&["verify", "--level", "ciphertext"]).0, 5);
    std::fs::rename(bench.path("hidden"), &gone).unwrap();
    assert_eq!(bench.json(&["verify", "--level", "ciphertext"]).0, 0);
    assert_eq!(bench.json_at(&[], &["status"]).0, 0);
}

/// One bad sector: it is damage, and what lies elsewhere is read all the same, with and without a key.
#[test]
fn a_pack_that_cannot_be_read_does_not_keep_others_from_being_read() {
    let bench = ready("verify: {schedule: '@daily', level: ciphertext, bytesMax: 1B, repair: false}");
    let bad = packs(&bench, "b").remove(0);
    let check = || {
        let mut command = std::process::Command::new("strace");
        command.args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=read,pread64"]).arg("-P").arg(&bad);
        command.args(["-e", "inject=read,pread64:error=EIO", env!("CARGO_BIN_EXE_holdfast"), "--json", "--quiet"]);
        command.args(["--key-file", "key", "run", "daily", "--kind", "verify"]);
        command.env("HOLDFAST_STATE", bench.path("state")).current_dir(bench.dir.path());
        let out = command.output().expect("strace is needed");
        let value: Value = serde_json::from_slice(&out.stdout).unwrap_or_else(|e| panic!("{e}: {out:?}"));
        (out.status.code(), value)
    };
    let total = packs(&bench, "b").len();
    let all: Vec<_> = (0..total).map(|_| check()).collect();
    assert!(all.iter().any(|(code, _)| *code == Some(5)) && all.iter().all(|(code, _)| *code != Some(4)), "{all:?}");
    let last = &all[total - 1].1;
    assert!(crate::crash::says(&last["findings"].to_string(), crate::crash::STUMBLES[0].1), "{last:#}");
    let sound = shares(last)[1] * total as f64;
    assert_eq!(sound.round() as usize, total - 1, "every other one was read: {last:#}");
    assert_eq!(last["coverage"][1]["damaged"], 1);
}

/// Damage that a check has found is not built upon: while the source has what was in it, that is stored again.
#[test]
fn what_is_known_to_be_damaged_is_stored_again() {
    let bench = ready("verify: {schedule: '@daily', level: ciphertext, repair: false}");
    let one = packs(&bench, "a").remove(0);
    flip(&one);
    assert_eq!(check(&bench).0, 5);
    // One region has it still: an incremental run does not store it all again, a full one does.
    let kind = |kind: &str| bench.json_at(&[], &["run", "daily", "--kind", kind]).0;
    let count = || packs(&bench, "a").len();
    let before = count();
    assert_eq!((kind("incremental"), count()), (0, before));
    assert_eq!(kind("full"), 0);
    assert!(count() > before, "nothing was stored again");
    let again = count();
    assert_eq!((kind("full"), count()), (0, again), "it is stored once");
    // Nowhere intact: the next run of any kind does, and old snapshots are whole again as well.
    let others: Vec<PathBuf> = packs(&bench, "a").into_iter().filter(|path| *path != one).take(2).collect();
    for path in others {
        let inside = path.strip_prefix(bench.region("a")).unwrap();
        flip(&bench.region("b").join(inside));
        flip(&path);
    }
    assert_eq!(check(&bench).0, 5);
    assert_eq!(kind("incremental"), 0);
    bench.ok(&["restore", "latest", "--target", "out"]);
    crate::harness::assert_same(&bench.path("source"), &bench.path("out"));
}

#[test]
fn a_bound_of_bytes_and_a_rate_are_kept() {
    let bench = ready("verify: {schedule: '@daily', level: content, bytesMax: 1B, repair: false}");
    let (code, value) = check(&bench);
    let one = |value: &Value| {
        value["coverage"][0]["share"].as_f64().unwrap() * value["coverage"][0]["packs"].as_f64().unwrap()
    };
    assert_eq!((code, one(&value).round()), (0, 1.0), "one pack at least, and no more: {value:#}");
    configure_daily(&bench, "verify: {schedule: '@daily', level: content, rate: 2MiB/s}");
    let begin = std::time::Instant::now();
    assert_eq!(check(&bench).0, 0);
    // Six packs of 400 kB and more in each of two regions, at 2 MiB a second.
    assert!(begin.elapsed().as_secs_f64() > 2.0, "{:?}", begin.elapsed());
}

#[test]
fn each_level_finds_what_it_is_for() {
    let bench = ready("verify: {schedule: '@daily', repair: false}");
    flip(&packs(&bench, "a")[0]);
    assert_eq!(check(&bench).0, 0, "presence reads no pack");
    for level in ["ciphertext", "content"] {
        configure_daily(&bench, &format!("verify: {{schedule: '@daily', level: {level}, repair: false}}"));
        let (code, value) = check(&bench);
        assert_eq!((code, value["findings"].as_array().map(Vec::len)), (5, Some(1)), "{level}: {value:#}");
    }
    std::fs::remove_file(&packs(&bench, "a")[0]).unwrap();
    configure_daily(&bench, "verify: {schedule: '@daily', repair: false}");
    assert_eq!(check(&bench).0, 5);
}

#[test]
fn status_tells_each_policy_and_its_objectives() {
    let bench = ready("verify: {schedule: '@daily', level: content, period: 7d}");
    let (code, value) = bench.json_at(&[], &["status"]);
    assert_eq!((code, &value["period_seconds"]), (0, &(7 * 86_400).into()), "{value:#}");
    let next: Vec<&str> =
        value["policies"][0]["next"].as_array().unwrap().iter().map(|next| next["task"].as_str().unwrap()).collect();
    assert_eq!(next, ["incremental", "full", "verify"]);
    let source = &value["sources"][0];
    assert_eq!((&source["policy"], &source["rpo_seconds"]), (&"daily".into(), &7200.into()), "{value:#}");
    assert_eq!(value["policies"][0]["checked"].as_array().map(Vec::len), Some(0));
    check(&bench);
    let value = bench.json_at(&[], &["status"]).1;
    assert_eq!(value["policies"][0]["checked"][0]["how"], "content", "{value:#}");
    // A source of which nothing is known misses an objective that it has.
    configure_daily(&bench, "verify: {schedule: '@daily', repair: false}");
    let text = std::fs::read_to_string(bench.path("holdfast.yaml")).unwrap().replace("name: s,", "name: other,");
    std::fs::write(bench.path("holdfast.yaml"), text).unwrap();
    let (code, value) = bench.json_at(&[], &["status"]);
    assert_eq!((code, &value["sources"][0]["missed"]), (1, &true.into()), "{value:#}");
    let said = String::from_utf8(bench.command_at(&[], &["status"]).output().unwrap().stdout).unwrap();
    assert!(said.contains("other: last success never of 2 h") && said.contains("in no policy"), "{said}");
    // One whose last backup failed is not well, however young the one before is.
    configure_daily(&bench, "verify: {schedule: '@daily', repair: false}");
    std::fs::rename(bench.path("source"), bench.path("gone")).unwrap();
    assert_eq!(bench.json_at(&[], &["run", "daily"]).0, 1);
    let (code, value) = bench.json_at(&[], &["status"]);
    assert_eq!((code, &value["sources"][0]["broken"]), (1, &true.into()), "{value:#}");
}

#[test]
fn watching_goes_on_until_it_is_interrupted() {
    use std::io::{BufRead, BufReader};
    let bench = ready("verify: {schedule: '@daily', repair: false}");
    let mut watch = bench.command_at(&[], &["status", "--json", "--watch", "1"]);
    let mut child = watch.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let two: Vec<Value> = lines.take(2).map(|line| serde_json::from_str(&line.unwrap()).unwrap()).collect();
    assert!(two.iter().all(|line| line["verb"] == "status"), "{two:?}");
    let sent = std::process::Command::new("kill").args(["-s", "INT", &child.id().to_string()]).status();
    assert!(sent.unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
