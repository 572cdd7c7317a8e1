//! A crash at any instant: the shipped binary is killed as it enters a durable step (a call that changes a
//! file system), every kind of step at least once; then what was there before must be whole, and the next run
//! must finish the work. `crash/step.py` counts steps over all threads, so that each is hit exactly.

use crate::harness::{Bench, assert_same, noise};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Every so manieth step is tried, beside the first, the middle and the last of each kind.
const STRIDE: usize = 9;
/// What `step.py` ends with when the kernel killed the program.
const KILLED: i32 = 128 + 9;

/// How a run ended that was interfered with.
struct Ended {
    code: i32,
    steps: Vec<String>,
    said: String,
}

/// Runs the program and does `what` as it enters step `at`.
fn interfere(bench: &Bench, what: &str, at: usize, args: &[&str]) -> Ended {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("restore-tests/crash/step.py");
    let log = bench.path("steps");
    let program = bench.command(args);
    let mut command = Command::new("python3");
    command.arg(script).arg(&log).arg(what).arg(at.to_string());
    command.arg(program.get_program()).args(program.get_args()).current_dir(bench.dir.path());
    let out = command.output().expect("python3 is needed");
    let steps = std::fs::read_to_string(&log).unwrap_or_else(|e| panic!("no steps: {e}: {out:?}"));
    Ended {
        code: out.status.code().unwrap_or(-1),
        steps: steps.lines().map(str::to_owned).collect(),
        said: format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr)),
    }
}

/// The instants to try, of an undisturbed run with these steps: what to do, and at which count.
fn instants(steps: &[String]) -> BTreeSet<(String, usize)> {
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    steps.iter().for_each(|name| *kinds.entry(name).or_default() += 1);
    let mut chosen: BTreeSet<(String, usize)> =
        (1..=steps.len()).step_by(stride()).map(|n| ("kill".to_owned(), n)).collect();
    for (name, count) in kinds {
        for n in [1, count.div_ceil(2), count] {
            chosen.insert((format!("kill:{name}"), n));
        }
    }
    chosen
}

/// The environment may ask for every single step.
fn stride() -> usize {
    std::env::var("HOLDFAST_CRASH_STRIDE").ok().and_then(|n| n.parse().ok()).unwrap_or(STRIDE)
}

/// Kills `args` at every chosen instant in a copy of `prepared`; `check` looks at what is left, and goes on.
fn sweep(name: &str, prepared: &Bench, args: &[&str], check: impl Fn(&Bench, &str)) {
    let counted = interfere(&prepared.copy(), "count", 0, args);
    assert_eq!(counted.code, 0, "{name}: {}", counted.said);
    let instants = instants(&counted.steps);
    let mut hit: BTreeMap<String, usize> = BTreeMap::new();
    for (what, at) in &instants {
        let case = prepared.copy();
        let ended = interfere(&case, what, *at, args);
        let last = ended.steps.last().cloned().unwrap_or_default();
        let context = format!("{name}, {what} {at} of {}, at {last}", counted.steps.len());
        match ended.code {
            KILLED => *hit.entry(last).or_default() += 1,
            0 => {}
            code => panic!("{context}: ended with {code}: {}", ended.said),
        }
        check(&case, &context);
    }
    let kinds: BTreeSet<&String> = counted.steps.iter().collect();
    let kills: usize = hit.values().sum();
    println!("{name}: {} steps, {} cases, {kills} kills: {hit:?}", counted.steps.len(), instants.len());
    assert_eq!(hit.keys().collect::<BTreeSet<_>>(), kinds, "{name}: a kind of step was never hit");
}

/// A repository with one snapshot of `earlier`, and another source to be stored.
struct Prepared {
    bench: Bench,
    earlier: PathBuf,
    sid: String,
    source: PathBuf,
}

fn prepared() -> Prepared {
    let bench = Bench::with_key(&["a", "b"]);
    let (earlier, source) = (bench.path("earlier"), bench.path("source"));
    fill(&earlier, 1, 3, 90_000);
    fill(&source, 100, 12, 70_000);
    fill(&source.join("below"), 200, 2, 700_000);
    let sid = bench.ok(&["backup", text(&earlier)])["snapshot"].as_str().unwrap().to_owned();
    Prepared { bench, earlier, sid, source }
}

fn fill(dir: &Path, seed: u64, count: u64, len: usize) {
    std::fs::create_dir_all(dir).unwrap();
    for n in 0..count {
        std::fs::write(dir.join(format!("file-{n}")), noise(seed + n, len + n as usize)).unwrap();
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Every region on its own resolves whatever it shows: visible means complete.
fn complete_alone(case: &Bench, context: &str) {
    for region in &case.regions {
        let (code, value) = case.json_at(&[*region], &["verify", "--level", "content"]);
        assert_eq!(code, 0, "{context}: region {region} alone: {value:#}");
    }
}

fn restores(case: &Bench, sid: &str, source: &Path, context: &str) {
    let target = case.path(&format!("target-{sid}"));
    let (code, value) = case.json(&["restore", sid, "--target", text(&target)]);
    assert_eq!(code, 0, "{context}: {value:#}");
    assert_same(source, &target);
    std::fs::remove_dir_all(&target).unwrap();
}

fn sids(case: &Bench, context: &str) -> Vec<String> {
    let (code, value) = case.json(&["snapshots"]);
    assert_eq!(code, 0, "{context}: {value:#}");
    value["snapshots"].as_array().unwrap().iter().map(|s| s["id"].as_str().unwrap().to_owned()).collect()
}

/// Nothing that was there before is touched.
fn earlier_stands(case: &Bench, was: &Prepared, context: &str) {
    assert!(sids(case, context).contains(&was.sid), "{context}: the earlier snapshot is not listed");
    complete_alone(case, context);
    restores(case, &was.sid, &was.earlier, context);
}

/// Both regions hold the same, but for sessions and for packs that no segment names (checked by
/// [`complete_alone`]) and staged files of the dead.
fn regions_agree(case: &Bench, context: &str) {
    let named = |region: &str| -> Vec<String> {
        let apart = |o: &String| !o.starts_with("sessions/") && !o.starts_with("packs/") && *o != "region";
        case.objects(region).into_iter().filter(|o| apart(o) && !o.contains('#')).collect()
    };
    assert_eq!(named("a"), named("b"), "{context}");
    let (code, value) = case.json(&["verify", "--level", "content"]);
    assert_eq!(code, 0, "{context}: {value:#}");
    complete_alone(case, context);
}

fn count(case: &Bench, prefix: &str) -> usize {
    let all = case.regions.iter().map(|region| {
        case.objects(region).iter().filter(|o| o.starts_with(prefix) && !o.contains('#')).count()
    });
    all.max().unwrap()
}

#[test]
fn any_instant_crash_of_a_backup() {
    let was = prepared();
    let args = ["backup", text(&was.source)];
    let segments = count(&was.bench, "index/");
    let cold = was.bench.copy().ok(&args)["bytes_stored"].as_u64().unwrap();
    sweep("backup", &was.bench, &args, |case, context| {
        earlier_stands(case, &was, context);
        let stored = count(case, "index/") > segments;
        let again = case.ok(&args);
        if stored {
            let bytes = again["bytes_stored"].as_u64().unwrap();
            assert!(bytes < cold / 4, "{context}: {bytes} stored again of {cold}");
        }
        regions_agree(case, context);
        restores(case, again["snapshot"].as_str().unwrap(), &was.source, context);
        restores(case, &was.sid, &was.earlier, context);
    });
}
