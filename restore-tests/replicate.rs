//! Regions that were behind are brought up: completely, from good copies only, and whatever cuts it off.

use crate::crash::{complete_alone, fill, sweep, text};
use crate::harness::{Bench, assert_same, end, files, start};
use crate::prune::races::condemn_everything;
use crate::prune::stops::inside;
use crate::prune::{Versions, forget, prune, versions};
use holdfast::base::Generation;
use holdfast::repo::session::{Errand, Session};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

const ALL: [&str; 3] = ["a", "b", "c"];

/// Three regions with one snapshot; then region c is away while more are made.
struct Behind {
    bench: Bench,
    source: PathBuf,
    other: PathBuf,
}

fn behind() -> Behind {
    let bench = Bench::with_key(&ALL);
    let (source, other) = (bench.path("source"), bench.path("other"));
    fill(&source, 1, 10, 80_000);
    fill(&other, 500, 4, 900_000);
    bench.ok(&["backup", text(&source)]);
    away(&bench, "c", |bench| {
        for round in 0..3 {
            fill(&source.join(format!("round-{round}")), 1000 + round, 3, 60_000);
            assert_eq!(bench.json(&["backup", text(&source)]).0, 4);
        }
        assert_eq!(bench.json(&["backup", text(&other)]).0, 4);
    });
    Behind { bench, source, other }
}

fn away(bench: &Bench, region: &str, meanwhile: impl Fn(&Bench)) {
    let aside = bench.path("away");
    std::fs::rename(bench.region(region), &aside).unwrap();
    meanwhile(bench);
    std::fs::rename(&aside, bench.region(region)).unwrap();
}

/// What a region lists, but for what belongs to it alone.
fn listed(bench: &Bench, region: &str) -> BTreeSet<String> {
    let own = |o: &String| o != "region" && !o.starts_with("sessions/") && !o.contains('#');
    bench.objects(region).into_iter().filter(own).collect()
}

/// All regions list the same objects, but for key slots that open nothing, and each alone is whole.
pub fn equal(bench: &Bench, context: &str) {
    let first = listed(bench, bench.regions[0]);
    for region in &bench.regions {
        let there = listed(bench, region);
        let odd: Vec<&String> = first.symmetric_difference(&there).collect();
        assert!(odd.is_empty(), "{context}: region {region} differs: {odd:?}");
    }
    complete_alone(bench, context);
}

fn of<'v>(value: &'v Value, region: &str) -> &'v Value {
    let all = value["regions"].as_array().unwrap_or_else(|| panic!("{value:#}"));
    all.iter().find(|r| r["region"] == region).unwrap_or_else(|| panic!("no {region}: {value:#}"))
}

fn stored_bytes(bench: &Bench, region: &str) -> u64 {
    let own = |path: &&PathBuf| !path.to_string_lossy().contains('#');
    files(&bench.region(region)).iter().filter(own).map(|path| path.metadata().unwrap().len()).sum()
}

pub fn flip(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn a_region_that_was_away_for_several_runs_is_brought_up() {
    let Behind { bench, source, other } = behind();
    let had = listed(&bench, "c");
    let looked = bench.json(&["replicate", "--dry-run"]);
    assert_eq!(looked.0, 4, "{:#}", looked.1);
    let lacks = &of(&looked.1, "c")["lacks"];
    assert_eq!((&lacks["snapshots"], of(&looked.1, "a")["complete"].as_bool()), (&json!(4), Some(true)), "{looked:#?}");
    assert_eq!(listed(&bench, "c"), had, "a dry run wrote something");
    let before = stored_bytes(&bench, "c");
    let value = bench.ok(&["replicate"]);
    let (there, c) = (stored_bytes(&bench, "c"), of(&value, "c"));
    let record = bench.region("c").join("runs").join(value["run"].as_str().unwrap()).metadata().unwrap().len();
    assert_eq!(c["bytes"].as_u64(), Some(there - before - record), "{value:#}");
    assert_eq!((&c["snapshots"], &value["snapshots"], &c["complete"]), (&json!(4), &json!(4), &json!(true)));
    assert_eq!((of(&value, "a")["objects"].as_u64(), value["findings"].clone()), (Some(0), json!([])), "{value:#}");
    equal(&bench, "brought up");
    for (n, tree) in [&source, &other].into_iter().enumerate() {
        let target = bench.path(&format!("from-c-{n}"));
        let (_, shown) = bench.json_at(&["c"], &["snapshots"]);
        let of = |s: &&Value| s["source"].as_str().unwrap().ends_with(text(tree));
        let sid = shown["snapshots"].as_array().unwrap().iter().rfind(of).unwrap()["id"].as_str().unwrap().to_owned();
        let (code, value) = bench.json_at(&["c"], &["restore", &sid, "--target", text(&target)]);
        assert_eq!(code, 0, "{value:#}");
        assert_same(tree, &target);
    }
    // Records of the runs on one region alone are brought to the others, once.
    let again = [bench.ok(&["replicate"]), bench.ok(&["replicate"])];
    assert_eq!(
        (of(&again[0], "c")["snapshots"].as_u64(), again[1]["objects"].as_u64()),
        (Some(0), Some(0)),
        "{again:#?}"
    );
    let runs = bench.ok(&["runs", "--last", "1"]);
    assert_eq!((&runs["runs"][0]["kind"], &runs["runs"][0]["code"]), (&json!("replicate"), &json!(0)), "{runs:#}");
    assert_eq!(bench.ok(&["status"])["sources"][0]["behind"], json!([]));
}

/// The end of a session is no snapshot, and epochs are copied too.
#[test]
fn a_dry_run_counts_what_would_come() {
    let Versions { bench, sids, .. } = versions(&["a", "b"]);
    forget(&bench, &sids[0]);
    prune(&bench);
    let ended = {
        let opened = inside(&bench);
        let errand = Errand { host: "h".into(), source: "given up".into(), generation: Generation(1) };
        let session = Session::announce(&opened.repo, errand, None).unwrap();
        session.give_up(&opened.repo, "it had nothing to do").unwrap();
        session.sid
    };
    for object in [format!("snapshots/{}", ended.hex()), "epochs/00000002/end".to_owned()] {
        std::fs::remove_file(bench.region("b").join(object)).unwrap();
    }
    let (code, looked) = bench.json(&["replicate", "--dry-run"]);
    let lacks = &of(&looked, "b")["lacks"];
    let counted = ["packs", "segments", "snapshots", "other"].map(|kind| lacks[kind].as_u64().unwrap());
    assert_eq!((code, counted), (4, [0, 0, 0, 2]), "{looked:#}");
    let done = bench.ok(&["replicate"]);
    let came = of(&done, "b");
    assert_eq!((&came["objects"], &came["bytes"]), (&2.into(), &lacks["bytes"]), "{looked:#}\n{done:#}");
    equal(&bench, "brought up");
}

/// What waits for a prune that was cut off is said to wait.
#[test]
fn a_region_that_waits_for_a_prune_is_told_so() {
    let Versions { bench, sids, .. } = versions(&["a", "b"]);
    forget(&bench, &sids[0]);
    condemn_everything(&bench);
    for folder in ["index", "packs"] {
        std::fs::remove_dir_all(bench.region("b").join(folder)).unwrap();
    }
    let said = String::from_utf8(bench.run(&["replicate"]).1.stdout).unwrap();
    assert!(said.contains("a prune has begun and not ended"), "{said}");
}

#[test]
fn packs_that_a_region_lost_are_put_back() {
    let Behind { bench, .. } = behind();
    bench.ok(&["replicate"]);
    let packs = files(&bench.region("b").join("packs"));
    assert!(packs.len() >= 4, "{packs:?}");
    packs.iter().step_by(2).for_each(|pack| std::fs::remove_file(pack).unwrap());
    let value = bench.ok(&["replicate"]);
    assert_eq!(of(&value, "b")["objects"].as_u64(), Some(packs.len().div_ceil(2) as u64), "{value:#}");
    equal(&bench, "put back");
}

#[test]
fn a_damaged_copy_is_named_and_not_passed_on() {
    for prefix in ["packs", "index", "snapshots"] {
        let Behind { bench, .. } = behind();
        let had = listed(&bench, "c");
        let new = |path: &PathBuf| !had.contains(&path.strip_prefix(bench.region("a")).unwrap().display().to_string());
        let spoiled: Vec<PathBuf> = files(&bench.region("a").join(prefix)).into_iter().filter(new).collect();
        assert!(!spoiled.is_empty(), "{prefix}");
        spoiled.iter().for_each(|path| flip(path));
        let (code, value) = bench.json(&["replicate"]);
        assert_eq!(code, 5, "{prefix}: {value:#}");
        let findings: Vec<&str> = value["findings"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        for path in &spoiled {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            assert!(findings.iter().any(|f| f.contains(&name)), "{prefix}: {name} is not in {findings:?}");
        }
        assert!(findings.iter().all(|f| f.starts_with("region a: ")), "{findings:?}");
        assert_eq!(of(&value, "c")["complete"], true, "{prefix}: {value:#}");
        let (code, value) = bench.json_at(&["c"], &["verify", "--level", "content"]);
        assert_eq!(code, 0, "{prefix}: {value:#}");
    }
}

#[test]
fn a_segment_that_no_region_can_read_holds_back_its_snapshot_alone() {
    let bench = Bench::with_key(&ALL);
    let (lost, kept) = (bench.path("lost"), bench.path("kept"));
    fill(&lost, 1, 3, 80_000);
    fill(&kept, 100, 3, 80_000);
    away(&bench, "c", |bench| {
        assert_eq!(bench.json(&["backup", text(&lost)]).0, 4);
        for region in ["a", "b"] {
            files(&bench.region(region).join("index")).iter().for_each(|segment| flip(segment));
        }
        std::fs::remove_dir_all(bench.path("state")).unwrap();
        bench.json(&["backup", text(&kept)]);
    });
    let (code, value) = bench.json(&["replicate"]);
    assert_eq!(code, 5, "{value:#}");
    assert_eq!((&of(&value, "c")["snapshots"], &of(&value, "c")["lacks"]["snapshots"]), (&json!(1), &json!(1)));
    // What it shows is whole; that another one is vouched for is said.
    let (_, shown) = bench.json_at(&["c"], &["verify", "--level", "content"]);
    assert_eq!(
        (&shown["snapshots"], &shown["findings"], &shown["broken"]),
        (&json!(1), &json!([]), &json!([])),
        "{shown:#}"
    );
    // So it is at the start of a backup.
    let case = bench.copy();
    away(&case, "c", |case| {
        fill(&kept.join("more"), 200, 2, 50_000);
        case.json(&["backup", text(&kept)]);
    });
    let (_, value) = case.json(&["backup", text(&kept)]);
    assert_eq!(value["caught_up"]["snapshots"], 1, "{value:#}");
}

#[test]
fn what_a_hostile_region_makes_up_is_not_passed_on() {
    let Behind { bench, .. } = behind();
    let (a, hex) = (bench.region("a"), "ab".repeat(16));
    // Whole by its checksum, and nobody's: a configuration, a marker, a hold, a record, a key slot.
    let mut junk = b"whatever a store likes to say".to_vec();
    junk.extend_from_slice(blake3::hash(&junk).as_bytes());
    let planted = ["config/00000002", "config/00000007"].map(str::to_owned);
    let planted =
        planted.into_iter().chain(["keys", "forgotten", "holds", "snapshots", "runs"].map(|p| format!("{p}/{hex}")));
    let planted: Vec<String> = planted.collect();
    for key in &planted {
        std::fs::create_dir_all(a.join(key).parent().unwrap()).unwrap();
        std::fs::write(a.join(key), &junk).unwrap();
    }
    let (code, value) = bench.json(&["replicate"]);
    assert_eq!(code, 5, "{value:#}");
    for region in ["b", "c"] {
        let there = listed(&bench, region);
        assert!(planted.iter().all(|key| !there.contains(key)), "{region}: {there:?}");
        complete_alone_at(&bench, region);
    }
    let (_, shown) = bench.json_at(&["b", "c"], &["snapshots"]);
    assert_eq!(shown["snapshots"].as_array().unwrap().len(), 5, "{shown:#}");
}

fn complete_alone_at(bench: &Bench, region: &str) {
    let (code, value) = bench.json_at(&[region], &["verify", "--level", "content"]);
    assert_eq!(code, 0, "{region}: {value:#}");
}

#[test]
fn any_instant_crash_of_a_replication() {
    let Behind { bench, .. } = behind();
    let args = ["replicate"];
    let whole = {
        let done = bench.copy();
        done.ok(&args);
        stored_bytes(&done, "c")
    };
    sweep("replicate", &bench, &args, |case, _, context| {
        complete_alone(case, context);
        let records = |case: &Bench| files(&case.region("c").join("runs")).len();
        let (before, known) = (stored_bytes(case, "c"), records(case));
        let again = case.ok(&args);
        // What was there is not sent again: only what was lacking came, and records of runs.
        let sent = of(&again, "c")["bytes"].as_u64().unwrap();
        let room = 8192 * (1 + records(case) - known) as u64;
        assert!(before + sent <= whole + room, "{context}: {sent} sent although {before} of {whole} were there");
        equal(case, context);
    });
}

#[test]
fn two_replications_at_once_and_a_backup_beside_them_end_well() {
    for round in 0..3 {
        let Behind { bench, source, .. } = behind();
        fill(&source.join("new"), 3000 + round, 4, 400_000);
        let running =
            [start(&bench, &["replicate"]), start(&bench, &["replicate"]), start(&bench, &["backup", text(&source)])];
        let values = running.map(end);
        assert_eq!(values[2]["regions"], json!(ALL), "{:#}", values[2]);
        bench.ok(&["replicate"]);
        equal(&bench, &format!("round {round}"));
    }
}
