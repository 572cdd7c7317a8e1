//! Retention from outside: which snapshots a set of rules forgets, and what can never be forgotten.
//! The pasts are made of manifests that are put into the regions with the times of files to match.

mod holds;
mod past;

use crate::harness::noise;
use chrono::{DateTime, NaiveDateTime, TimeZone};
use chrono_tz::Tz;
use past::{DAY, HOUR, Made, Past, Snap, at};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// What `forget` with these rules would do: reasons by id, newest first.
fn plan(past: &Past, args: &[&str]) -> (Value, BTreeMap<String, Vec<String>>) {
    let value = past.bench.ok(&[&["forget", "--dry-run"], args].concat());
    let reasons = |line: &Value| {
        line["reasons"].as_array().unwrap().iter().map(|r| r.as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let lines = value["plan"].as_array().unwrap();
    // The real one beside them is of no interest.
    let of_past = lines.iter().filter(|l| l["source"] != "base");
    let by_id = of_past.map(|l| (l["id"].as_str().unwrap().to_owned(), reasons(l))).collect();
    lines.iter().for_each(|l| assert_eq!(l["keep"], !reasons(l).is_empty(), "{l:#}"));
    (value, by_id)
}

/// Ids that a plan keeps.
fn kept(past: &Past, args: &[&str]) -> BTreeSet<String> {
    plan(past, args).1.into_iter().filter(|(_, reasons)| !reasons.is_empty()).map(|(id, _)| id).collect()
}

fn ids<'m>(made: impl IntoIterator<Item = &'m Made>) -> BTreeSet<String> {
    made.into_iter().map(|m| m.id.clone()).collect()
}

/// The rules once more, written from their description: is this one kept?
fn is_kept(one: &Made, all: &[Made], rules: &BTreeMap<&str, i64>, zone: Tz) -> bool {
    let rank = |m: &Made| (m.snap.stored, m.id.clone());
    let believed = || all.iter().filter(|m| m.snap.believed());
    if !one.snap.believed() || one.held {
        return true;
    }
    let newer = believed().filter(|m| rank(m) > rank(one)).count() as i64;
    let newest = believed().map(|m| m.snap.stored).max().unwrap();
    let good = |m: &Made| m.snap.errors == 0;
    let last_good = match believed().filter(|m| good(m)).max_by_key(|m| rank(m)) {
        Some(last) => last.id == one.id,
        None => newer == 0,
    };
    let rule = |name: &str| rules.get(name).copied().unwrap_or_default();
    let within = rule("within") > 0 && newest - one.snap.stored <= rule("within") * HOUR;
    let periods = [("hourly", "%F %H"), ("daily", "%F"), ("weekly", "%G %V"), ("monthly", "%Y %m"), ("yearly", "%Y")];
    let by_period = periods.iter().any(|(name, format)| {
        let period = |m: &Made| at(m.snap.stored).with_timezone(&zone).format(format).to_string();
        let best = believed().filter(|m| period(m) == period(one)).max_by_key(|m| (good(m), rank(m))).unwrap();
        let later: BTreeSet<String> = believed().map(period).filter(|p| *p > period(one)).collect();
        best.id == one.id && (later.len() as i64) < rule(name)
    });
    newer < rule("last") || within || by_period || last_good
}

#[test]
fn random_pasts_keep_what_the_rules_say_in_other_words() {
    let rules = [
        &[("last", 3)][..],
        &[("daily", 7), ("weekly", 4)],
        &[("hourly", 5), ("monthly", 3), ("yearly", 2)],
        &[("within", 40), ("daily", 2)],
        &[("yearly", 1)],
    ];
    let zones = ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"];
    for seed in 0..4u64 {
        let past = Past::new(&["a"]);
        let mut random = noise(seed, 4000).into_iter();
        let mut next = || i64::from(random.next().unwrap());
        let mut time = 1_600_000_000_000 + next() * DAY;
        let mut made = Vec::new();
        for _ in 0..40 {
            time += [HOUR / 3, HOUR, 5 * HOUR, DAY, 9 * DAY][(next() % 5) as usize] + next() * 60_000;
            let mut snap = Snap { errors: u64::from(next() % 5 == 0), ..Snap::at(time) };
            if next() % 9 == 0 {
                snap.end += [-2 * DAY, HOUR][(next() % 2) as usize];
            }
            made.push(past.make(&snap));
        }
        for one in made.iter_mut().filter(|_| next() % 12 == 0) {
            one.held = true;
            past.bench.ok(&["hold", "add", &one.id, "--reason", "random"]);
        }
        for (rules, zone) in rules.iter().zip(zones.iter().cycle().skip(seed as usize)) {
            let text: Vec<String> = rules
                .iter()
                .map(|(name, n)| format!("--keep-{name}={n}{}", if *name == "within" { "h" } else { "" }))
                .chain([format!("--time-zone={zone}")])
                .collect();
            let args: Vec<&str> = text.iter().map(String::as_str).collect();
            let map: BTreeMap<&str, i64> = rules.iter().copied().collect();
            let zone: Tz = zone.parse().unwrap();
            let wanted = ids(made.iter().filter(|m| is_kept(m, &made, &map, zone)));
            assert_eq!(kept(&past, &args), wanted, "seed {seed}, {args:?}");
            // The last set is carried out: exactly what was printed.
            if *zones.last().unwrap() == zone.name() {
                let done = past.bench.ok(&[&["forget"], &args[..]].concat());
                let gone: BTreeSet<String> = past::texts(&done["forgotten"]).into_iter().collect();
                assert_eq!(gone, ids(made.iter().filter(|m| !wanted.contains(&m.id))));
                made.retain(|m| wanted.contains(&m.id));
                assert_eq!(past.visible("data"), wanted);
                // A second look forgets nothing more.
                assert_eq!(past.bench.ok(&[&["forget"], &args[..]].concat())["forgotten"], serde_json::json!([]));
            }
        }
    }
}

/// The local time in Berlin.
fn berlin(text: &str) -> i64 {
    let local = NaiveDateTime::parse_from_str(text, "%F %R").unwrap();
    chrono_tz::Europe::Berlin.from_local_datetime(&local).earliest().unwrap().timestamp_millis()
}

#[test]
fn days_with_23_and_25_hours_are_days() {
    let past = Past::new(&["a"]);
    // 28 March 2021 had 23 hours, 31 October 25; its hour from 2 to 3 came twice.
    let days = ["2021-03-27 23:30", "2021-03-28 00:30", "2021-03-28 23:30", "2021-03-29 00:10"];
    let made: Vec<Made> = days.iter().map(|text| past.make(&Snap::at(berlin(text)))).collect();
    let zone = "--time-zone=Europe/Berlin";
    assert_eq!(kept(&past, &["--keep-daily", "2", zone]), ids([&made[2], &made[3]]));
    assert_eq!(kept(&past, &["--keep-daily", "3", zone]), ids([&made[0], &made[2], &made[3]]));
    // In UTC the day ends elsewhere.
    assert_eq!(kept(&past, &["--keep-daily", "2"]), ids([&made[1], &made[3]]));
    let past = Past::new(&["a"]);
    let first = berlin("2021-10-31 02:30");
    let twice: Vec<Made> =
        [first - HOUR, first, first + HOUR, first + 2 * HOUR].map(|t| past.make(&Snap::at(t))).into();
    assert_eq!(kept(&past, &["--keep-hourly", "2", zone]), ids([&twice[2], &twice[3]]));
    assert_eq!(kept(&past, &["--keep-hourly", "3", zone]), ids([&twice[0], &twice[2], &twice[3]]));
    assert_eq!(kept(&past, &["--keep-hourly", "3"]), ids([&twice[1], &twice[2], &twice[3]]));
}

#[test]
fn a_time_that_does_not_fit_the_stores_neither_counts_nor_displaces() {
    let past = Past::new(&["a", "b"]);
    let t = 1_700_000_000_000;
    let made: Vec<Made> = (0..4).map(|n| past.make(&Snap::at(t + n * DAY))).collect();
    let late = past.make(&Snap { end: t + 30 * DAY, ..Snap::at(t + 4 * DAY) });
    let early = past.make(&Snap { start: t - 40 * DAY, end: t - 30 * DAY, ..Snap::at(t + 5 * DAY) });
    // Just what is allowed: a day before, five minutes after; a run may take longer than a day.
    let fits = [
        past.make(&Snap { start: t - 9 * DAY, end: t + 5 * DAY + HOUR, ..Snap::at(t + 6 * DAY) }),
        past.make(&Snap { end: t + 7 * DAY + 299_000, ..Snap::at(t + 7 * DAY) }),
    ];
    // A machine whose clock, and the store's, went ahead.
    let now = holdfast::base::Env::system().now().0;
    let future = past.make(&Snap::at(now + 400 * DAY));
    let (value, reasons) = plan(&past, &["--keep-last", "3"]);
    let suspects = [&late, &early, &future];
    let wanted = ids(suspects.into_iter().chain(&fits).chain([&made[3]]));
    assert_eq!(
        reasons.iter().filter(|(_, r)| !r.is_empty()).map(|(id, _)| id.clone()).collect::<BTreeSet<_>>(),
        wanted
    );
    suspects.iter().for_each(|m| assert_eq!(reasons[&m.id], ["time-suspect"]));
    let doubts = value["plan"].as_array().unwrap().iter().filter(|l| !l["doubt"].is_null()).count();
    assert_eq!(doubts, 3, "{value:#}");
    // Named in the table too.
    let text = past.text(&["forget", "--dry-run", "--keep-last", "3"]);
    assert!(text.contains("time-suspect (claims ") && text.contains("yet to come"), "{text}");
}

#[test]
fn the_earliest_time_of_all_regions_counts() {
    let past = Past::new(&["a", "b"]);
    let t = 1_700_000_000_000;
    let made: Vec<Made> = (0..5).map(|n| past.make(&Snap::at(t + n * DAY))).collect();
    // Brought up much later.
    made.iter().for_each(|m| past.touch("b", m, t + 90 * DAY));
    let (_, reasons) = plan(&past, &["--keep-daily", "2"]);
    assert!(reasons.values().flatten().all(|r| r != "time-suspect"), "{reasons:?}");
    assert_eq!(kept(&past, &["--keep-daily", "2"]), ids(&made[3..]));
    // One that is young everywhere is not believed.
    made.iter().for_each(|m| past.touch("a", m, t + 90 * DAY));
    assert_eq!(kept(&past, &["--keep-daily", "2"]), ids(&made));
}

#[test]
fn what_could_not_be_read_in_part_does_not_push_out_what_could() {
    let past = Past::new(&["a"]);
    let t = 1_700_006_400_000;
    let bad = |time| past.make(&Snap { errors: 2, ..Snap::at(time) });
    let made = [past.make(&Snap::at(t)), bad(t + HOUR), bad(t + DAY), bad(t + DAY + HOUR), bad(t + 2 * DAY)];
    let (_, reasons) = plan(&past, &["--keep-daily", "2"]);
    assert_eq!(reasons[&made[0].id], ["last-good"]);
    assert!(reasons[&made[1].id].is_empty() && reasons[&made[2].id].is_empty(), "{reasons:?}");
    assert_eq!(reasons[&made[3].id], ["daily"]);
    assert_eq!(kept(&past, &["--keep-daily", "3"]), ids([&made[0], &made[3], &made[4]]));
    // The last good one can go by its name only when another one stays, as ever.
    past.bench.ok(&["forget", "--keep-last", "1"]);
    assert_eq!(past.visible("data"), ids([&made[0], &made[4]]));
}

#[test]
fn sources_are_judged_apart_and_filters_choose() {
    let past = Past::new(&["a"]);
    let t = 1_700_000_000_000;
    let make = |name: &str, host: &str, tag: &str, n: i64| {
        past.make(&Snap { name: name.into(), host: host.into(), tag: tag.into(), ..Snap::at(t + n * HOUR) })
    };
    let x: Vec<Made> = (0..4).map(|n| make("x", "one", "t", n)).collect();
    let y: Vec<Made> = (4..8).map(|n| make("y", if n % 2 == 0 { "one" } else { "two" }, "u", n)).collect();
    assert_eq!(kept(&past, &["--keep-last", "1"]), ids([&x[3], &y[3]]));
    assert_eq!(kept(&past, &["--keep-last", "1", "--name", "x"]), ids([&x[3]]));
    // A name is one source, whatever its hosts; a filter judges what passes alone.
    assert_eq!(kept(&past, &["--keep-last", "1", "--name", "y", "--host", "one"]), ids([&y[2]]));
    assert_eq!(kept(&past, &["--keep-last", "2", "--tag", "t"]), ids(&x[2..]));
    assert!(kept(&past, &["--keep-last", "1", "--tag", "none"]).is_empty());
    past.bench.ok(&["forget", "--keep-last", "1", "--name", "y", "--host", "one"]);
    assert_eq!(past.visible("y"), ids(&y[1..]));
    assert_eq!(past.visible("x"), ids(&x));
}

#[test]
fn a_region_that_is_behind_keeps_its_last_good_one() {
    let past = Past::new(&["a", "b"]);
    let t = 1_700_000_000_000;
    let made: Vec<Made> = (0..6).map(|n| past.make(&Snap::at(t + n * HOUR))).collect();
    // The last three never came to b, and the one before had errors.
    made[3..].iter().for_each(|m| past.remove("b", m));
    let (_, reasons) = plan(&past, &["--keep-last", "1"]);
    assert_eq!(reasons[&made[2].id], ["last-good"]);
    assert_eq!(kept(&past, &["--keep-last", "1"]), ids([&made[2], &made[5]]));
    past.bench.ok(&["forget", "--keep-last", "1"]);
    // It is enough of a source when the other region is lost.
    let (code, alone) = past.bench.json_at(&["b"], &["snapshots", "--name", "data"]);
    assert_eq!(code, 0, "{alone:#}");
    assert_eq!(alone["snapshots"][0]["id"], made[2].id[..]);
    // Once b has the newer one, the older goes.
    past.bench.ok(&["backup", "--name", "aside", "source"]);
    assert_eq!(kept(&past, &["--keep-last", "1", "--name", "data"]), ids([&made[5]]));
}

#[test]
fn two_machines_that_share_a_name_are_named() {
    let t = 1_700_000_000_000;
    let of_hosts = |hosts: &[&str]| {
        let past = Past::new(&["a"]);
        for (n, host) in hosts.iter().enumerate() {
            past.make(&Snap { host: (*host).into(), ..Snap::at(t + n as i64 * DAY) });
        }
        past
    };
    let past = of_hosts(&["one", "two", "one"]);
    assert!(
        past.text(&["forget", "-n", "--keep-last", "2"])
            .contains("HOSTS: hosts one and two make snapshots of it in turn")
    );
    let done = past.bench.ok(&["forget", "--keep-last", "2"]);
    assert!(done["warnings"][0].as_str().unwrap().contains("source data: hosts one and two"), "{done:#}");
    // One that was replaced, or a job whose every run has a host of its own.
    for calm in [&["one", "one", "two", "two"][..], &["one", "two", "three"]] {
        assert!(!of_hosts(calm).text(&["forget", "-n", "--keep-last", "2"]).contains("HOSTS"), "{calm:?}");
    }
}

/// A source of which each snapshot has so many files, a day apart.
fn sized(past: &Past, from: i64, files: &[u64]) -> Vec<Made> {
    let snap =
        |(n, files): (usize, &u64)| Snap { files: *files, bytes: files * 1000, ..Snap::at(from + n as i64 * DAY) };
    files.iter().enumerate().map(|one| past.make(&snap(one))).collect()
}

#[test]
fn a_source_that_is_suddenly_small_pushes_nothing_out_until_a_person_says_that_it_is_right() {
    let t = 1_700_000_000_000;
    let past = Past::new(&["a"]);
    let made = sized(&past, t, &[100, 100, 100, 0, 0]);
    let (_, reasons) = plan(&past, &["--keep-last", "2"]);
    assert_eq!(
        (&reasons[&made[3].id], &reasons[&made[4].id]),
        (&vec!["last".into()], &vec!["last".into(), "shrunk".into()])
    );
    assert_eq!(kept(&past, &["--keep-last", "2"]), ids(&made[1..]));
    assert_eq!(kept(&past, &["--keep-daily", "2"]), ids(&made[1..]));
    // A person knows better.
    assert_eq!(kept(&past, &["--keep-last", "2", "--accept-shrunk"]), ids(&made[3..]));
    assert!(past.text(&["forget", "--keep-last", "2", "-n"]).contains("SMALL: its newest snapshot holds 0 files"));
    // However long it stays so, and however many of it there are.
    let more = sized(&past, t + 40 * DAY, &[5, 5, 5]);
    let old = [&made[1], &made[2]];
    assert_eq!(kept(&past, &["--keep-last", "2"]), ids(old.into_iter().chain(&more[1..])));
    let told = past.bench.ok(&["forget", "--keep-last", "2"]);
    assert!(
        told["warnings"][0].as_str().unwrap().contains("source data: its newest snapshot holds 5 files"),
        "{told:#}"
    );
    // The word is in a snapshot, and counts from then on.
    let word = past.make(&Snap { files: 5, bytes: 5000, tag: "may-shrink".into(), ..Snap::at(t + 50 * DAY) });
    let late = sized(&past, t + 51 * DAY, &[5]).remove(0);
    assert_eq!(kept(&past, &["--keep-last", "2"]), ids([&word, &late]));
    past.bench.ok(&["forget", "--keep-last", "2"]);
    assert_eq!(past.visible("data"), ids([&word, &late]));
    // Steps are added up.
    let past = Past::new(&["a"]);
    let made = sized(&past, t, &[100, 100, 40, 11, 9, 9]);
    assert_eq!(kept(&past, &["--keep-last", "2"]), ids(&made[2..]));
    // It comes back: what was between counts for nothing, and is thinned as the others.
    let past = Past::new(&["a"]);
    let made = sized(&past, t, &[100, 100, 3, 3, 100, 90]);
    let (_, reasons) = plan(&past, &["--keep-last", "3"]);
    assert_eq!(reasons[&made[3].id], ["last"]);
    assert_eq!(kept(&past, &["--keep-last", "3"]), ids([&made[1], &made[3], &made[4], &made[5]]));
    // Eleven of a hundred are not that small.
    let past = Past::new(&["a"]);
    let made = sized(&past, t, &[100, 11, 11]);
    assert_eq!(kept(&past, &["--keep-last", "2"]), ids(&made[1..]));
}

#[test]
fn the_brake_stops_what_is_strange_and_nothing_else() {
    let t = 1_700_000_000_000;
    // Ordinary thinning, however much of it.
    let past = Past::new(&["a"]);
    for n in 0..100 {
        past.make(&Snap::at(t + n * HOUR));
    }
    let done = past.bench.ok(&["forget", "--keep-daily", "2"]);
    assert_eq!(past::texts(&done["forgotten"]).len(), 98, "{done:#}");
    // Suddenly empty.
    let past = Past::new(&["a"]);
    let made = sized(&past, t, &[100, 100, 100, 100, 100, 100, 0]);
    let rules = ["--keep-last", "2"];
    let refused = past.bench.json(&[&["forget"], &rules[..]].concat());
    assert_eq!(refused.0, 11, "{:#}", refused.1);
    assert!(refused.1["error"]["what"].as_str().unwrap().contains("4 of 7 snapshots of data"), "{:#}", refused.1);
    assert_eq!(past.visible("data").len(), 7);
    let (value, _) = plan(&past, &rules);
    assert_eq!(value["brakes"][0]["source"], "data");
    assert!(past.text(&[&["forget", "-n"], &rules[..]].concat()).contains("BRAKE: "));
    // Another source goes on.
    past.bench.ok(&[&["forget", "--name", "base"], &rules[..]].concat());
    // Three at most are not many.
    past.bench.ok(&["forget", "--keep-last", "3"]);
    past.bench.ok(&["forget", "--keep-last", "2"]);
    assert_eq!(past.visible("data"), ids(&made[4..]));
    // A person has looked.
    let more = sized(&past, t + 8 * DAY, &[100, 100, 100, 100, 0]);
    assert_eq!(past.bench.json(&["forget", "--keep-last", "1"]).0, 11);
    past.bench.ok(&["forget", "--keep-last", "1", "--release-brake"]);
    assert_eq!(past.visible("data"), ids(&more[3..]));
}

#[test]
fn the_brake_stops_when_only_a_tenth_would_stay_or_the_clock_jumped() {
    let t = 1_700_000_000_000;
    let past = Past::new(&["a"]);
    sized(&past, t, &[100, 100, 100, 100, 100, 5, 5, 5, 5]);
    let (code, value) = past.bench.json(&["forget", "--keep-last", "3", "--accept-shrunk"]);
    assert_eq!(code, 11, "{value:#}");
    assert!(value["error"]["what"].as_str().unwrap().contains("a tenth of what goes"), "{value:#}");
    let past = Past::new(&["a"]);
    let made = sized(&past, t, &[100; 6]);
    let jumped = sized(&past, t + 300 * DAY, &[100]).remove(0);
    let rules = ["forget", "--keep-within", "30d"];
    let (code, value) = past.bench.json(&rules);
    assert_eq!(code, 11, "{value:#}");
    // A later one confirms it.
    let later = sized(&past, t + 301 * DAY, &[100]).remove(0);
    past.bench.ok(&rules);
    assert_eq!(past.visible("data"), ids([&jumped, &later]));
    assert!(!past.visible("data").contains(&made[5].id));
}

#[test]
fn wrong_rules_are_refused_before_anything_is_opened() {
    let past = Past::new(&["a"]);
    let id = past.base.id.clone();
    for args in [
        &["forget"][..],
        &["forget", "--dry-run"],
        &["forget", "--keep-last", "0"],
        &["forget", "--keep-last", "-1"],
        &["forget", "--keep-daily", "x"],
        &["forget", &id, "--keep-last", "1"],
        &["forget", &id, "--dry-run"],
        &["forget", "--keep-last", "1", "--last"],
        &["forget", "--accept-shrunk", &id],
        &["forget", "--keep-within", "30"],
        &["forget", "--keep-within", "30m"],
        &["forget", "--keep-last", "1", "--time-zone", "Mars/Base"],
        &["hold", "add", "latest"],
        &["hold", "add", "latest", "--reason", " "],
        &["hold", "add", "latest", "--reason", "r", "--until", "2001-01-01"],
    ] {
        let (code, output) = past.bench.run(args);
        assert_eq!(code, 2, "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    assert_eq!(past.visible("base"), ids([&past.base]));
}

#[test]
fn times_are_told_in_utc() {
    let time: DateTime<chrono::Utc> = "2021-05-06T07:08:09Z".parse().unwrap();
    let past = Past::new(&["a"]);
    past.make(&Snap::at(time.timestamp_millis()));
    let text = past.text(&["forget", "--keep-last", "1", "--name", "data", "--dry-run"]);
    assert!(text.contains("2021-05-06T07:08:09Z  host  last, last-good"), "{text}");
    assert!(text.starts_with("data: 1 stay, 0 go\n"), "{text}");
}
