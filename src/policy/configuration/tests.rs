//! Whole configurations: many broken ones, with the places and the advice that are expected.

use super::*;
use crate::chunk::Compression;
use crate::policy::{
    Between, Concurrency, Deltas, Event, HookFailure, Hooks, Level, Limits, Receiver, Task, yaml_text,
};
use proptest::prelude::*;
use serde_json::json;

const REPOSITORY: &str = "apiVersion: holdfast.io/v1alpha1\nkind: Repository\nmetadata: {name: main}\nspec:\n  \
                          regions: [{name: a, url: /a}, {name: b, url: /b}]\n";
/// The line of a policy's document on which its spec begins.
const HEAD: &str = "apiVersion: holdfast.io/v1alpha1\nkind: BackupPolicy\nmetadata: {name: home}\nspec:\n";

fn policy(spec: &str) -> String {
    spec.lines().fold(HEAD.to_owned(), |text, line| text + "  " + line + "\n")
}

fn read(policies: &[&str]) -> Result<Checked> {
    let names: Vec<String> = (0..policies.len()).map(|n| format!("p{n}.yaml")).collect();
    let mut texts = vec![Text { name: "main.yaml", text: REPOSITORY }];
    texts.extend(names.iter().zip(policies).map(|(name, text)| Text { name, text }));
    check(&texts)
}

#[track_caller]
fn good(spec: &str) -> BackupPolicy {
    let checked = read(&[&policy(spec)]).unwrap_or_else(|e| panic!("{e} {:?}\n{spec}", e.more()));
    checked.configuration.policies()[0].clone()
}

fn all_of(e: &Error) -> Vec<String> {
    std::iter::once(e).chain(e.more()).map(ToString::to_string).collect()
}

/// The spec is refused with exactly these mistakes; each has all of its parts, in one line, with advice.
#[track_caller]
fn refused(spec: &str, wanted: &[&[&str]]) {
    let found = all_of(&read(&[&policy(spec)]).expect_err(spec));
    assert_eq!(found.len(), wanted.len(), "{found:#?}\n{spec}");
    for (shown, parts) in found.iter().zip(wanted) {
        assert!(!shown.contains('\n') && shown.contains("p0.yaml:"), "{shown}");
        parts.iter().for_each(|part| assert!(shown.contains(part), "no {part:?} in: {shown}\n{spec}"));
    }
}

const SOURCE: &str = "sources: [{paths: [/home]}]\n";

fn with(rest: &str) -> String {
    format!("{SOURCE}{rest}")
}

#[test]
fn what_is_left_out() {
    let plain = good(SOURCE);
    assert_eq!((plain.name().as_str(), plain.repository().as_str(), plain.copies_min()), ("home", "main", 2));
    assert_eq!((plain.sources()[0].name.as_str(), plain.priority()), ("home", 0));
    assert_eq!((plain.concurrency(), plain.retries().max), (Concurrency::Forbid, 3));
    assert!(plain.retention().keeps_all() && plain.verify().is_none() && plain.rpo_ms().is_none());
    assert!(Task::ALL.iter().all(|task| plain.calendar().cron(*task).is_none()));
    assert_eq!(plain.place(), "p0.yaml:1:1");
}

#[test]
fn all_of_it_arrives() {
    let all = good(
        "repository: main\nsources: [{name: x, paths: [/a/., //b], exclude: ['*.tmp'], excludeCaches: true, \
         ignoreFile: .no, oneFileSystem: true, tags: [t]}]\ncopies: {min: 1}\nschedule: {timeZone: Asia/Tokyo, \
         incremental: 5 1 * * *, full: '@weekly', jitter: 10m, blackouts: [{start: 0 8 * * *, duration: 90m}]}\n\
         startingDeadline: 6h\nconcurrency: queue\nretries: {max: 0, backoff: 2s, backoffMax: 4s}\nretention: {last: 1, \
         hourly: 2, daily: 3, weekly: 4, monthly: 5, yearly: 6, within: 2w}\nverify: {schedule: '@monthly', period: 60d, share: 80%, bytesMax: 50GiB, rate: 10MiB/s, level: \
         content}\nprune: {schedule: '@daily', repackAbove: 75%, repackMax: 2GiB, stopAfter: 3h, removalsMax: 1000}\n\
         objectives: {rpo: 1d12h}\npriority: -5",
    );
    let source = &all.sources()[0];
    assert_eq!((source.name.as_str(), source.ignore_file.as_str()), ("x", ".no"));
    assert_eq!(source.paths, [std::path::Path::new("/a"), std::path::Path::new("/b")]);
    assert!(source.exclude_caches && source.one_file_system);
    assert_eq!((&source.exclude[0][..], &source.tags[0][..]), ("*.tmp", "t"));
    let calendar = all.calendar();
    assert_eq!((all.copies_min(), all.priority(), all.zone()), (1, -5, chrono_tz::Asia::Tokyo));
    assert_eq!((calendar.jitter_ms(), calendar.starting_deadline_ms()), (600_000, Some(21_600_000)));
    assert_eq!(calendar.blackouts()[0].duration_ms(), 5_400_000);
    assert_eq!(calendar.cron(Task::Full).map(|cron| cron.text()), Some("@weekly"));
    let (retries, kept) = (all.retries(), all.retention());
    assert_eq!((retries.max, retries.backoff_ms, retries.backoff_max_ms), (0, 2000, 4000));
    assert_eq!((kept.last, kept.hourly, kept.daily, kept.weekly, kept.monthly, kept.yearly), (1, 2, 3, 4, 5, 6));
    assert_eq!((kept.within_ms, all.rpo_ms()), (1_209_600_000, Some(129_600_000)));
    let prune = all.prune().unwrap();
    assert_eq!((prune.repack_above, prune.repack_max), (75, 2 << 30));
    assert_eq!((prune.stop_after_ms, prune.removals_max), (Some(10_800_000), Some(1000)));
    assert_eq!((all.concurrency(), all.verify().map(|v| v.level)), (Concurrency::Queue, Some(Level::Content)));
}

/// Everything that a run does besides.
const EXTRAS: &str = "limits: {compression: max, upload: 10MiB/s, read: 100MB/s, workers: 3}\nhooks: {before: [{command: \
    [sh, -c, 'a \"b\"'], timeout: 90s, failure: warn}, {command: [/b]}], onFailure: [{command: [c]}], after: [{command: \
    [d], timeout: 1h}]}\nalerts: [{name: ops, events: [failure, recovered], webhook: {url: 'https://h.example:8443/token?x=1', \
    headersFile: /h}, timeout: 10s}, {name: file, events: [brake], webhook: {urlFile: /u}}, {name: page, events: [damage], \
    command: [/page, now]}]";

#[test]
fn limits_hooks_and_alerts_arrive() {
    let plain = good(SOURCE);
    assert_eq!((plain.limits(), plain.hooks(), plain.alerts()), (&Limits::default(), &Hooks::default(), &[][..]));
    let all = good(&with(EXTRAS));
    let (limits, hooks) = (all.limits(), all.hooks());
    assert_eq!((limits.compression, limits.workers), (Compression::Max, Some(3)));
    assert_eq!(limits.upload.as_ref().map(|rate| rate.bytes()), Some(10 << 20));
    assert_eq!(limits.read.as_ref().map(|rate| rate.bytes()), Some(100_000_000));
    assert_eq!(hooks.before[0].command, ["sh", "-c", "a \"b\""]);
    assert_eq!((hooks.before[0].timeout_ms, hooks.before[0].failure), (90_000, HookFailure::Warn));
    assert_eq!((hooks.before[1].timeout_ms, hooks.before[1].failure), (300_000, HookFailure::Abort));
    assert_eq!((hooks.on_failure.len(), hooks.after[0].timeout_ms), (1, 3_600_000));
    let alerts = all.alerts();
    assert_eq!((alerts[0].events.as_slice(), alerts[0].timeout_ms), (&[Event::Failure, Event::Recovered][..], 10_000));
    assert_eq!(alerts[1].timeout_ms, 30_000);
    assert_eq!(alerts[2].to, Receiver::Command(vec!["/page".into(), "now".into()]));
    let named = good("sources: [{paths: [/a], hooks: {after: [{command: [x]}]}}]");
    assert_eq!(named.sources()[0].hooks.after[0].command, ["x"]);
    // A token is in no document and no sentence.
    let repository = read(&[&policy(SOURCE)]).unwrap().configuration.repositories()[0].clone();
    let said = crate::policy::sentences(&all, &repository).join("\n");
    let shown = yaml_text(&json!(all.effective())) + &said + &format!("{all:?}");
    assert!(shown.contains("h.example:8443") && !shown.contains("token"), "{shown}");
    for part in [
        "before a run runs sh -c a \"b\", for at most 1m30s; its failure",
        "when a run failed runs c",
        "posts to \
        h.example:8443 on failure, recovered",
        "the address in /u",
        "alert page runs /page now on damage",
        "compression: max",
        "at most 10MiB/s to each region",
        "at most 100MB/s from files",
        "with 3 threads",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[test]
fn what_is_wrong_with_a_prune() {
    for (rest, parts) in [
        ("prune: {stopAfter: 1h}", &["spec.prune", "`schedule` is missing"][..]),
        ("prune: {schedule: '@daily', repackAbove: 0%}", &["spec.prune.repackAbove", "1% to 100%"]),
        ("prune: {schedule: '@daily', repackMax: 0MiB}", &["spec.prune.repackMax", "it is nothing"]),
        ("prune: {schedule: '@daily', stopAfter: 0s}", &["spec.prune.stopAfter", "is zero"]),
        ("prune: {schedule: '@daily', removalsMax: 0}", &["spec.prune.removalsMax"]),
    ] {
        refused(&with(rest), &[parts]);
    }
}

/// The effective document says the same, and is its own effective document.
#[test]
fn what_is_shown_can_be_read() {
    for spec in [
        SOURCE.to_owned(),
        with("verify: {schedule: '@daily'}"),
        with("prune: {schedule: '@weekly'}"),
        with("prune: {schedule: '@weekly', repackAbove: 80%, repackMax: 100MiB, stopAfter: 2h, removalsMax: 5000}"),
        with(EXTRAS),
        with("schedule: {full: '@daily', jitter: 1h}\nretention: {daily: 7, within: 1w}\nstartingDeadline: 90m"),
        "sources: [{etcd: {endpoints: [a]}}]".into(),
        "sources: [{etcd: {endpoints: [a], deltas: true}}]".into(),
        between("{every: 90s, maxBytes: 2Mi}"),
        "sources: [{name: 'a: \"b\" #ä', paths: ['/x y', '/-', '/\u{85}'], exclude: ['[a-b]', '!c', '- d', 'true']}]"
            .into(),
    ] {
        let text = yaml_text(&json!(good(&spec).effective()));
        let again = read(&[&text]).unwrap_or_else(|e| panic!("{e}\n{text}"));
        assert_eq!(yaml_text(&json!(again.configuration.policies()[0].effective())), text);
        assert_eq!(again.configuration.policies()[0].sources(), good(&spec).sources(), "{text}");
    }
}

#[test]
fn everything_that_is_wrong_is_said_at_once() {
    refused(
        "sources: [{paths: [home], exclud: []}]\nscedule: {}\nretention: {daily: many}\npriority: 5000\nconcurrency: allow",
        &[
            &["p0.yaml:5:29: spec.sources[0]", "unknown field `exclud`", "did you mean `exclude`?"],
            &["p0.yaml:6:3: spec", "unknown field `scedule`", "did you mean `schedule`?"],
            &["p0.yaml:7:22: spec.retention.daily", "a whole number is needed here"],
            &["p0.yaml:8:13: spec.priority", "5000 is out of range", "from -1000 to 1000"],
            &["p0.yaml:9:16: spec.concurrency", "`allow` is not known", "forbid, queue, replace"],
        ],
    );
    refused(
        "sources: [{paths: [home, /a, /a], exclude: ['[']}]\nschedule: {timeZone: Europe/Berln, full: 61 * * * *}\n\
         retention: {within: 5}\nobjectives: {rpo: 0s}\nretries: {backoff: 2h, backoffMax: 1h}\ncopies: {min: 3}",
        &[
            &["p0.yaml:10:17: spec.copies.min", "has 2 regions", "from 1 to 2"],
            &["p0.yaml:5:47: spec.sources[0].exclude[0]", "the pattern `[`"],
            &["p0.yaml:5:22: spec.sources[0].paths[0]", "`home` is not an absolute path"],
            &["p0.yaml:5:32: spec.sources[0].paths[2]", "given twice"],
            &["p0.yaml:6:44: spec.schedule.full", "minute: `61`", "five fields"],
            &["p0.yaml:6:24: spec.schedule.timeZone", "did you mean `Europe/Berlin`?"],
            &["p0.yaml:9:38: spec.retries.backoffMax", "shorter than backoff, 2h"],
            &["p0.yaml:7:23: spec.retention.within", "a unit is missing"],
            &["p0.yaml:8:21: spec.objectives.rpo", "the duration is zero"],
        ],
    );
}

#[test]
fn one_mistake_each_in_a_cluster_of_etcd() {
    for (spec, parts) in [
        ("sources: [{etcd: {endpoints: []}}]", &["sources[0].etcd.endpoints", "no member"][..]),
        ("sources: [{etcd: {endpoints: ['https://a']}}]", &["sources[0].etcd.endpoints[0]", "HOST or HOST:PORT"]),
        ("sources: [{etcd: {endpoints: [a]}, paths: [/a]}]", &["sources[0]", "etcd and files at once"]),
        ("sources: [{etcd: {endpoints: [a], certFile: /c}}]", &["sources[0].etcd", "certFile and keyFile"]),
        ("sources: [{etcd: {endpoints: [a], user: u}}]", &["sources[0].etcd", "user and passwordFile"]),
        ("sources: [{etcd: {endpoints: [a], plain: true, caFile: /c}}]", &["sources[0].etcd", "without TLS"]),
        ("sources: [{etcd: {endpoints: [a], caFile: c}}]", &["sources[0].etcd.caFile", "not an absolute path"]),
    ] {
        refused(spec, &[parts]);
    }
}

/// A cluster of which a daemon takes what changed, an hour apart from whole snapshots.
fn between(deltas: &str) -> String {
    format!("sources: [{{etcd: {{endpoints: [a], deltas: {deltas}}}}}]\nschedule: {{full: '@hourly'}}")
}

#[test]
fn deltas_are_taken_never_by_backups_or_between_them() {
    let of = |spec: &str| {
        let policy = good(spec);
        let deltas = policy.sources()[0].etcd.as_ref().unwrap().deltas;
        (deltas, policy.between_ms())
    };
    let with = |deltas: &str| of(&between(deltas));
    assert_eq!(with("false"), (Deltas::Never, None));
    assert_eq!(with("true"), (Deltas::Incremental, None));
    for (text, every_ms, bytes_max) in [
        ("{every: 30s}", 30_000, 8 << 20),
        ("{every: 1s, maxBytes: 8Mi}", 1_000, 8 << 20),
        ("{every: 1m30s, maxBytes: 1MiB}", 90_000, 1 << 20),
        ("{every: 59m59s, maxBytes: 2048KiB}", 3_599_000, 2 << 20),
    ] {
        assert_eq!(with(text), (Deltas::Between(Between { every_ms, bytes_max }), Some(every_ms)), "{text}");
    }
    // Of a policy with other sources they are those of the cluster, and no hook is around them.
    let hooks = "hooks: {before: [{command: [a]}]}";
    let mixed = good(&format!(
        "sources: [{{name: files, paths: [/a]}}, {{name: etcd, etcd: {{endpoints: [a], deltas: {{every: 5s}}}}, {hooks}}}]\n\
         schedule: {{full: '@hourly'}}\nconcurrency: queue\n{hooks}"
    ));
    let taken = mixed.between();
    assert_eq!((taken.sources().len(), taken.sources()[0].name.as_str()), (1, "etcd"));
    assert_eq!((taken.hooks(), &taken.sources()[0].hooks), (&Hooks::default(), &Hooks::default()));
    assert_eq!((taken.concurrency(), mixed.between_ms()), (Concurrency::Forbid, Some(5000)));
}

#[test]
fn one_mistake_each_in_deltas_between_backups() {
    let at = "spec.sources[0].etcd.deltas";
    for (deltas, parts) in [
        ("maybe", &[at, "`true`, `false` or a mapping"][..]),
        ("'true'", &[at, "`true`, `false` or a mapping", "without quotes"]),
        ("[30s]", &[at, "`true`, `false` or a mapping"]),
        ("30s", &[at, "`true`, `false` or a mapping"]),
        ("{}", &[at, "the field `every` is missing", "How often"]),
        ("{maxBytes: 8Mi}", &[at, "the field `every` is missing"]),
        ("{every: 30s, bytesMax: 8Mi}", &[at, "unknown field `bytesMax`", "maxBytes"]),
        ("{every: 0s}", &["p0.yaml:5:53: spec.sources[0].etcd.deltas.every", "is zero", "whole seconds"]),
        ("{every: 500ms}", &["deltas.every", "`500ms` is not a duration", "whole seconds"]),
        ("{every: 0.5s}", &["deltas.every", "`0.5s` is not a duration", "`30s`"]),
        ("{every: 30}", &["deltas.every", "a unit is missing"]),
        ("{every: 1h}", &["deltas.every", "no delta every 1h", "1h apart", "a shorter period"]),
        ("{every: 30s, maxBytes: 8}", &["deltas.maxBytes", "`8` is not a size"]),
        ("{every: 30s, maxBytes: 8Xi}", &["deltas.maxBytes", "unit"]),
        ("{every: 30s, maxBytes: 512Ki}", &["deltas.maxBytes", "`512Ki` is out of range", "1MiB to 8MiB"]),
        ("{every: 30s, maxBytes: 9MiB}", &["deltas.maxBytes", "`9MiB` is out of range"]),
    ] {
        refused(&between(deltas), &[parts]);
    }
    let unscheduled = "sources: [{etcd: {endpoints: [a], deltas: {every: 30s}}}]";
    for rest in ["", "\nverify: {schedule: '@daily'}"] {
        refused(&format!("{unscheduled}{rest}"), &[&["deltas.every", "schedules none", "schedule: {full:"]]);
    }
    let two = "sources: [{name: x, etcd: {endpoints: [a], deltas: {every: 30s}}}, \
               {name: y, etcd: {endpoints: [b], deltas: {every: 20s}}}]\nschedule: {full: '@hourly'}";
    refused(two, &[&["spec.sources[1].etcd.deltas.every", "every 30s and not every 20s", "two policies"]]);
}

#[test]
fn one_mistake_each() {
    for (spec, parts) in [
        ("{}", &["p0.yaml:5:3: spec", "the field `sources` is missing", "What is backed up"][..]),
        ("sources: []", &["spec.sources", "nothing to back up"]),
        ("sources:", &["p0.yaml:5:3: spec.sources", "no value"]),
        ("sources: {paths: [/a]}", &["spec.sources", "a list is needed here"]),
        ("sources: [{paths: /a}]", &["spec.sources[0].paths", "a list is needed here"]),
        ("sources: [{paths: []}]", &["spec.sources[0].paths", "no path"]),
        ("sources: [{paths: [/a/../b]}]", &["`..`", "write where it leads"]),
        ("sources: [{paths: [~/a]}]", &["not expanded"]),
        ("sources: [{paths: [/a], ignoreFile: a/b}]", &["ignoreFile", "without `/`"]),
        ("sources: [{paths: [/a], excludeCaches: yes}]", &["excludeCaches", "`true` or `false`"]),
        ("sources: [{paths: [/a], tags: ['']}]", &["tags[0]", "a tag"]),
        ("sources: [{paths: [/a], name: \"a\\n\"}]", &["sources[0].name", "control"]),
        (
            "sources: [{name: x, paths: [/a]}, {name: x, paths: [/b]}]",
            &["sources[1].name", "two sources are named `x`"],
        ),
        ("sources: [{name: x, paths: [/a]}, {paths: [/b]}]", &["sources[1]", "has no name"]),
    ] {
        refused(spec, &[parts]);
    }
    for (rest, parts) in [
        ("repository: mian", &["spec.repository", "no repository `mian`", "did you mean `main`?"][..]),
        ("schedule: {}", &["spec.schedule", "says no time"]),
        ("schedule: {timeZone: UTC}", &["spec.schedule", "says no time"]),
        ("schedule: {full: 0 0 31 2 *}", &["spec.schedule.full", "never fires"]),
        ("schedule: {full: '@daily', timeZone: Mars}", &["timeZone", "IANA"]),
        ("schedule: {full: '@daily', jitter: 24h}", &["jitter", "two are 1d apart"]),
        ("schedule: {incremental: 0 3 * * *, full: 30 3 * * 0, jitter: 30m}", &["jitter", "two are 30m apart"]),
        ("schedule: {full: '@daily', jitter: 2h}\nstartingDeadline: 1h", &["startingDeadline", "alone would miss"]),
        ("startingDeadline: 1h", &["startingDeadline", "without a schedule"]),
        (
            "schedule: {full: '@daily', blackouts: [{start: '@daily', duration: 24h}]}",
            &["blackouts", "no time for full runs"],
        ),
        (
            "startingDeadline: 1h\nschedule: {full: 0 9 * * *, blackouts: [{start: 0 8 * * *, duration: 3h}]}",
            &["blackouts", "no time for full runs", "startingDeadline"],
        ),
        ("schedule: {full: '@daily', blackouts: [{start: '@daily'}]}", &["blackouts[0]", "`duration` is missing"]),
        ("verify: {level: content}", &["spec.verify", "`schedule` is missing"]),
        ("verify: {schedule: '@daily', level: Content}", &["spec.verify.level", "did you mean `content`?"]),
        ("retention: {}", &["spec.retention", "keeps nothing", "leave retention out"]),
        ("retention: {daily: 0}", &["spec.retention", "keeps nothing"]),
        ("retention: {daily: -1}", &["spec.retention.daily", "from 0 to 100000"]),
        ("retention: {daily: '7'}", &["spec.retention.daily", "a whole number"]),
        ("retention: {within: 0s}", &["spec.retention.within", "zero"]),
        ("retention: {within: 3m}", &["spec.retention.within", "minutes or seconds", "2w, 1y"]),
        ("retries: {max: 1000}", &["spec.retries.max", "from 0 to 100"]),
        ("objectives: {}", &["spec.objectives", "`rpo` is missing"]),
        ("priority: 1.5", &["spec.priority", "a whole number"]),
        ("priority: 010", &["spec.priority", "`010`", "base 8", "without the zero"]),
        ("priority: 0o10", &["spec.priority", "a whole number"]),
        // What nothing serves is no field.
        ("objectives: {rpo: 1d, rto: 1h}", &["unknown field `rto`"]),
        ("verify: {schedule: '@daily', period: 30d}", &["spec.verify.period", "presence reads nothing"]),
        ("verify: {schedule: '@daily', level: content, period: 0s}", &["spec.verify.period", "is zero"]),
        ("verify: {schedule: '@daily', level: content, share: 101%}", &["spec.verify.share", "1% to 100%"]),
        ("verify: {schedule: '@daily', level: content, share: '0%'}", &["spec.verify.share"]),
        ("verify: {schedule: '@daily', level: content, share: 20}", &["spec.verify.share"]),
        ("verify: {schedule: '@daily', level: content, bytesMax: 5}", &["spec.verify.bytesMax"]),
        ("verify: {schedule: '@daily', level: content, bytesMax: 0MiB}", &["spec.verify.bytesMax", "it is nothing"]),
        ("verify: {schedule: '@daily', level: content, rate: 10MiB}", &["spec.verify.rate"]),
        ("verify: {schedule: '@daily', rate: 10MiB/s}", &["spec.verify.rate", "presence reads nothing"]),
        ("verify: {schedule: '@daily', level: content, shares: 20%}", &["did you mean `share`?"]),
    ] {
        refused(&with(rest), &[parts]);
    }
}

#[test]
fn one_mistake_each_in_limits_hooks_and_alerts() {
    for (rest, parts) in [
        (
            "limits: {compression: strongest}",
            &["spec.limits.compression", "`strongest` is not known", "none, fast, default"][..],
        ),
        ("limits: {compression: fsat}", &["spec.limits.compression", "did you mean `fast`?"]),
        ("limits: {upload: 10MB}", &["spec.limits.upload", "`10MB` is not a rate", "`10MiB/s`"]),
        ("limits: {read: 1KiB/s}", &["spec.limits.read", "too little", "256KiB/s"]),
        ("limits: {workers: 0}", &["spec.limits.workers", "from 1 to 64"]),
        ("limits: {idle: true}", &["spec.limits", "unknown field `idle`"]),
        ("hooks: {}", &["spec.hooks", "there is no hook"]),
        ("hooks: {before: {command: [sync]}}", &["spec.hooks.before", "a list is needed here"]),
        ("hooks: {before: [sync]}", &["spec.hooks.before[0]", "a mapping is needed here"]),
        ("hooks: {before: [{command: sync}]}", &["hooks.before[0].command", "a list is needed here"]),
        ("hooks: {before: [{timeout: 5m}]}", &["hooks.before[0]", "`command` is missing"]),
        ("hooks: {before: [{command: []}]}", &["hooks.before[0].command", "no program to run"]),
        ("hooks: {before: [{command: ['rm -rf /']}]}", &["before[0].command", "no shell", "[sh, -c"]),
        ("hooks: {before: [{command: [a, \"b\\0\"]}]}", &["before[0].command", "zero byte"]),
        ("hooks: {onFailure: [{command: [a], timeout: 0s}]}", &["onFailure[0].timeout", "`0s` is zero"]),
        ("hooks: {after: [{command: [a], failure: abort}]}", &["after[0].failure", "only a hook that runs before"]),
        ("hooks: {before: [{command: [a], failure: stop}]}", &["before[0].failure", "abort, warn"]),
        ("hooks: {beforr: [{command: [a]}]}", &["spec.hooks", "did you mean `before`?"]),
        ("alerts: [{name: a, events: [failure]}]", &["spec.alerts[0]", "nobody is told"]),
        ("alerts: [{name: a, events: [], command: [a]}]", &["alerts[0].events", "tells nothing", "failure, degraded"]),
        ("alerts: [{name: a, command: [a]}]", &["alerts[0]", "`events` is missing"]),
        (
            "alerts: [{name: a, events: [failed], command: [a]}]",
            &["alerts[0].events[0]", "known here: failure, degraded"],
        ),
        (
            "alerts: [{name: a, events: [brake, brake], command: [a]}]",
            &["alerts[0].events[1]", "`brake` is there twice"],
        ),
        ("alerts: [{name: A, events: [brake], command: [a]}]", &["alerts[0].name", "not a valid name"]),
        (
            "alerts: [{name: a, events: [brake], command: [a], webhook: {url: 'http://h/'}}]",
            &["both a webhook and a com"],
        ),
        ("alerts: [{name: a, events: [brake], webhook: {}}]", &["alerts[0].webhook", "no address", "urlFile"]),
        (
            "alerts: [{name: a, events: [brake], webhook: {url: 'http://h', urlFile: /f}}]",
            &["both a url and a urlFile"],
        ),
        ("alerts: [{name: a, events: [brake], webhook: {urlFile: f}}]", &["webhook.urlFile", "not an absolute path"]),
        ("alerts: [{name: a, events: [brake], webhook: {url: ftp://h}}]", &["webhook.url", "neither with `https://`"]),
        (
            "alerts: [{name: a, events: [brake], command: [a]}, {name: a, events: [brake], command: [b]}]",
            &["alerts[1].name", "two alerts are named `a`"],
        ),
    ] {
        refused(&with(rest), &[parts]);
    }
}

#[test]
fn documents_together() {
    let (one, two) = (policy(SOURCE), policy(SOURCE).replace("name: home", "name: other"));
    assert_eq!(read(&[&one, &two]).unwrap().configuration.policies().len(), 2);
    let twice = all_of(&read(&[&one, &one]).unwrap_err());
    assert!(twice[0].contains("a second policy is named `home`; the first is at p0.yaml:3:18"), "{twice:?}");
    assert!(twice[1].contains("another policy has a source named `home`"), "{twice:?}");
    let same = two.replace("{paths", "{name: home, paths");
    let shared = all_of(&read(&[&one, &same]).unwrap_err());
    assert_eq!(shared.len(), 1);
    assert!(shared[0].contains("p1.yaml:5:20: spec.sources[0].name") && shared[0].contains("p0.yaml"), "{shared:?}");
    // A policy is not blamed for a repository that could not be read.
    let texts = [Text { name: "r", text: "kind: Repositry" }, Text { name: "p", text: &one }];
    assert_eq!(all_of(&check(&texts).unwrap_err()).len(), 1);
    let lonely = all_of(&check(&[Text { name: "p", text: &one }]).unwrap_err());
    assert!(lonely[0].contains("add a document of kind Repository"), "{lonely:?}");
    let second = REPOSITORY.replace("main", "second").replace("url: /", "url: /of/");
    let several = [REPOSITORY, &second, &one].map(|text| Text { name: "x", text });
    let several = all_of(&check(&several).unwrap_err());
    assert!(several[0].contains("several repositories") && several[0].contains("main, second"), "{several:?}");
    // Mistakes of several files come together.
    let bad = one.replace("paths", "path");
    assert_eq!(all_of(&read(&[&bad, &bad, &bad]).unwrap_err()).len(), 3);
    let many: Vec<&str> = std::iter::repeat_n(bad.as_str(), 1500).collect();
    let many = all_of(&read(&many).unwrap_err());
    assert!(many.len() == 1001 && many[1000].contains("500 more mistakes"), "{}", many.len());
}

#[test]
fn names_are_looked_up() {
    let read = read(&[&policy(SOURCE)]).unwrap().configuration;
    assert!(read.policy("home").is_ok() && read.repository(Some("main")).is_ok());
    assert!(read.policy("hone").unwrap_err().to_string().contains("did you mean `home`?"));
    assert!(read.repository(Some("man")).unwrap_err().to_string().contains("did you mean `main`?"));
}

#[test]
fn what_is_probably_not_meant() {
    let warned = |rest: &str| -> Vec<String> {
        let checked = read(&[&policy(&with(rest))]).unwrap();
        checked.warnings.iter().map(ToString::to_string).collect()
    };
    assert!(warned("schedule: {incremental: 0 3 * * 1-6, full: 0 3 * * 0}\nobjectives: {rpo: 24h}").is_empty());
    let missed = warned("schedule: {incremental: 0 3 * * 1-5, full: 0 3 1 * *}\nobjectives: {rpo: 26h}");
    assert!(missed[0].contains("p0.yaml:7:21: spec.objectives.rpo") && missed[0].contains("leaves 3d"), "{missed:?}");
    let black = warned(
        "schedule: {incremental: 0 * * * *, full: '@daily', blackouts: [{start: 0 8 * * *, duration: 10h}]}\n\
         objectives: {rpo: 2h}",
    );
    assert!(black[0].contains("leaves 11h"), "{black:?}");
    let deltas = read(&[&policy(&(between("{every: 30s}") + "\nobjectives: {rpo: 1m}"))]).unwrap();
    assert!(deltas.warnings.is_empty(), "{:?}", deltas.warnings);
    let slow = read(&[&policy(&(between("{every: 2m}") + "\nobjectives: {rpo: 1m}"))]).unwrap();
    assert!(slow.warnings[0].to_string().contains("the schedule leaves 2m"), "{:?}", slow.warnings);
    assert!(warned("objectives: {rpo: 2h}")[0].contains("nothing is scheduled"));
    assert!(warned("schedule: {incremental: '@daily'}")[0].contains("no full backup"));
    let clear = warned("alerts: [{name: a, events: [failure], webhook: {url: 'http://h.example/token'}}]");
    assert!(clear[0].contains("webhook.url") && clear[0].contains("in the clear") && !clear[0].contains("token"));
    assert!(warned("alerts: [{name: a, events: [failure], webhook: {url: 'http://127.0.0.1:80/'}}]").is_empty());
    assert!(warned("schedule: {full: '@daily'}\nretention: {within: 12h}")[0].contains("within 12h"));
}

proptest! {
    #[test]
    fn no_text_brings_it_down(text in ".{0,300}") {
        let _ = check(&[Text { name: "x", text: &text }]);
    }

    #[test]
    fn no_value_brings_it_down(
        field in "repository|copies|schedule|startingDeadline|concurrency|retries|retention|verify|prune|objectives|priority|limits|hooks|alerts",
        value in r#"[\[\]{}:,&*!|>'"%@~#\- a0-9smhdw/]{0,24}|\{(timeZone|full|jitter|rpo|daily|within|max): [ -~]{0,16}\}"#,
    ) {
        if let Err(e) = read(&[&policy(&with(&format!("{field}: {value}")))]) {
            prop_assert!(all_of(&e).iter().all(|e| e.contains("p0.yaml") || e.contains("more mistakes")));
        }
    }
}
