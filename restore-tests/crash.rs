//! A crash at any instant: the shipped binary is killed as it enters a durable step (a call that changes a
//! file system), every kind of step at least once; then what was there before must be whole, and the next run
//! must finish the work. `crash/step.py` counts steps over all threads, so that each is hit exactly.

use crate::harness::{Bench, assert_same, noise};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

/// So many steps of a run are tried, evenly spread, beside the first and the last of each kind.
const SPREAD: usize = 6;
/// What `step.py` ends with when the kernel killed the program.
pub const KILLED: i32 = 128 + 9;

/// How a run ended that was interfered with.
pub struct Ended {
    pub code: i32,
    pub steps: Vec<String>,
    pub said: String,
}

/// Runs the program and does `what` as it enters step `at`.
pub fn interfere(bench: &Bench, what: &str, at: usize, args: &[&str]) -> Ended {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("restore-tests/crash/step.py");
    let log = bench.path("steps");
    let program = bench.command(args);
    let mut command = Command::new("python3");
    command.arg(script).arg(&log).arg(what).arg(at.to_string());
    command.arg(program.get_program()).args(program.get_args()).current_dir(bench.dir.path());
    command.env("HOLDFAST_STATE", bench.path("state"));
    let out = command.output().expect("python3 is needed");
    let steps = std::fs::read_to_string(&log).unwrap_or_else(|e| panic!("no steps: {e}: {out:?}"));
    Ended {
        code: out.status.code().unwrap_or(-1),
        steps: steps.lines().map(str::to_owned).collect(),
        said: format!("{}{}", String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr)),
    }
}

/// The instants to try, of an undisturbed run with these steps: what to do, and at which count.
pub fn instants(steps: &[String]) -> BTreeSet<(String, usize)> {
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    steps.iter().for_each(|name| *kinds.entry(name).or_default() += 1);
    let mut chosen: BTreeSet<(String, usize)> = spread(steps.len(), 1).map(|n| ("kill".to_owned(), n)).collect();
    for (name, count) in kinds {
        for n in [1, count] {
            chosen.insert((format!("kill:{name}"), n));
        }
    }
    chosen
}

/// Numbers from 1 to `count`, evenly spread; all of them where the environment asks for it.
pub fn spread(count: usize, share: usize) -> impl Iterator<Item = usize> {
    let all = std::env::var_os("HOLDFAST_CRASH_EVERY_STEP").is_some();
    (1..=count).step_by(if all { 1 } else { count.div_ceil(SPREAD / share) })
}

/// Kills `args` at every chosen instant in a copy of `prepared`, then lets steps fail with an I/O error once and
/// with a full disk from then on; `check` looks at what is left, and goes on.
pub fn sweep(name: &str, prepared: &Bench, args: &[&str], check: impl Fn(&Bench, i32, &str)) {
    let counted = interfere(&prepared.copy(), "count", 0, args);
    assert_eq!(counted.code, 0, "{name}: {}", counted.said);
    let count = counted.steps.len();
    let instants = instants(&counted.steps);
    let mut hit: BTreeMap<String, usize> = BTreeMap::new();
    for (what, at) in &instants {
        let case = prepared.copy();
        let ended = interfere(&case, what, *at, args);
        let last = ended.steps.last().map_or("nothing", |last| last);
        let kind = what.strip_prefix("kill:").unwrap_or(last);
        let context = format!("{name}, {what} {at} of {count}, at {kind}");
        match ended.code {
            KILLED => *hit.entry(kind.to_owned()).or_default() += 1,
            0 => {}
            code => panic!("{context}: ended with {code}: {}", ended.said),
        }
        check(&case, ended.code, &context);
    }
    let ends = stumble(name, prepared, args, count, &check);
    let kinds: BTreeSet<&String> = counted.steps.iter().collect();
    let kills: usize = hit.values().sum();
    println!("{name}: {count} steps, {} cases, {kills} kills {hit:?}; failed steps end with {ends:?}", instants.len());
    assert_eq!(hit.keys().collect::<BTreeSet<_>>(), kinds, "{name}: a kind of step was never hit");
}

/// How a step fails, and a word by which that is told: C libraries say it differently ("Input/output error", "I/O error").
pub const STUMBLES: [(&str, &[&str]); 2] =
    [("once:5", &["input/output error", "i/o error"]), ("from:28", &["no space"])];

/// Whether a text says one of these words.
pub fn says(text: &str, words: &[&str]) -> bool {
    words.iter().any(|word| text.to_lowercase().contains(word))
}

/// A step that fails is told by the exit code, and by a word on what failed.
fn stumble(
    name: &str,
    prepared: &Bench,
    args: &[&str],
    count: usize,
    check: &impl Fn(&Bench, i32, &str),
) -> BTreeMap<i32, usize> {
    let mut ends = BTreeMap::new();
    for (what, words) in STUMBLES {
        for at in spread(count, 2) {
            let case = prepared.copy();
            let ended = interfere(&case, what, at, args);
            let context = format!("{name}, {what} {at} of {count}: {}", ended.said);
            assert!((0..=4).contains(&ended.code), "{context}: ended with {}", ended.code);
            assert!(ended.code == 0 || says(&ended.said, words), "{context}");
            *ends.entry(ended.code).or_default() += 1;
            check(&case, ended.code, &context);
        }
    }
    ends
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

pub fn fill(dir: &Path, seed: u64, count: u64, len: usize) {
    std::fs::create_dir_all(dir).unwrap();
    for n in 0..count {
        std::fs::write(dir.join(format!("file-{n}")), noise(seed + n, len + n as usize)).unwrap();
    }
}

pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Every region on its own resolves whatever it shows: visible means complete.
pub fn complete_alone(case: &Bench, context: &str) {
    for region in &case.regions {
        let (code, value) = case.json_at(&[*region], &["verify", "--level", "content"]);
        assert_eq!(code, 0, "{context}: region {region} alone: {value:#}");
    }
}

pub fn restores(case: &Bench, sid: &str, source: &Path, context: &str) {
    let target = case.path(&format!("target-{sid}"));
    // What is looked at afterwards is to be as it was.
    let (code, value) = case.json(&["restore", sid, "--target", text(&target), "--no-repair"]);
    assert_eq!(code, 0, "{context}: {value:#}");
    assert_same(source, &target);
    std::fs::remove_dir_all(&target).unwrap();
}

pub fn sids(case: &Bench, context: &str) -> Vec<String> {
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

/// Both regions hold the same, but for sessions, for key slots that open nothing, for packs that no segment names
/// (checked by [`complete_alone`]) and staged files of the dead.
pub fn regions_agree(case: &Bench, context: &str) {
    let slots = case.ok(&["key", "list"]);
    let dead: Vec<String> =
        slots["removed"].as_array().unwrap().iter().map(|id| format!("keys/{}", id.as_str().unwrap())).collect();
    let named = |region: &str| -> Vec<String> {
        let own = |o: &String| *o == "region" || dead.contains(o);
        let apart = |o: &String| !o.starts_with("sessions/") && !o.starts_with("packs/") && !own(o);
        case.objects(region).into_iter().filter(|o| apart(o) && !o.contains('#')).collect()
    };
    assert_eq!(named("a"), named("b"), "{context}");
    let (code, value) = case.json(&["verify", "--level", "content"]);
    assert_eq!(code, 0, "{context}: {value:#}");
    complete_alone(case, context);
}

fn count(case: &Bench, prefix: &str) -> usize {
    let all = case
        .regions
        .iter()
        .map(|region| case.objects(region).iter().filter(|o| o.starts_with(prefix) && !o.contains('#')).count());
    all.max().unwrap()
}

#[test]
fn any_instant_crash_of_a_backup() {
    let was = prepared();
    let args = ["backup", text(&was.source)];
    let segments = count(&was.bench, "index/");
    let cold = was.bench.copy().ok(&args)["bytes_stored"].as_u64().unwrap();
    sweep("backup", &was.bench, &args, |case, code, context| {
        earlier_stands(case, &was, context);
        if code == 0 {
            let shown = |region| case.json_at(&[region], &["snapshots"]).1["snapshots"].as_array().unwrap().len();
            assert_eq!((shown("a"), shown("b")), (2, 2), "{context}: not what was said");
        }
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

#[test]
fn any_instant_crash_of_a_forget() {
    let was = prepared();
    let gone = was.bench.ok(&["backup", text(&was.source)])["snapshot"].as_str().unwrap().to_owned();
    let args = ["forget", &gone, "--last"];
    sweep("forget", &was.bench, &args, |case, code, context| {
        earlier_stands(case, &was, context);
        if sids(case, context).contains(&gone) {
            assert_ne!(code, 0, "{context}");
            restores(case, &gone, &was.source, context);
            case.ok(&args);
        }
        assert_eq!(sids(case, context), [was.sid.as_str()], "{context}");
        // The marker reaches every region with the next run.
        case.ok(&["backup", text(&was.earlier)]);
        regions_agree(case, context);
        assert!(!sids(case, context).contains(&gone), "{context}: it came back");
    });
}

#[test]
fn any_instant_crash_of_an_init() {
    let mut empty = Bench::in_memory(&["a", "b"]);
    empty.make_key();
    let source = empty.path("source");
    fill(&source, 1, 3, 1000);
    let args = ["init", "--no-recovery-key"];
    sweep("init", &empty, &args, |case, code, context| {
        if code == 0 {
            case.ok(&["snapshots"]);
        }
        let (code, value) = case.json(&args);
        if code != 0 {
            // Some marks are there: it is a repository, or what to remove is said.
            assert_eq!(code, 11, "{context}: {value:#}");
            follow(case, &value, context);
        }
        let sid = case.ok(&["backup", text(&source)])["snapshot"].as_str().unwrap().to_owned();
        regions_agree(case, context);
        restores(case, &sid, &source, context);
    });
}

/// Does what the refusal of a second `init` advises.
fn follow(case: &Bench, refused: &serde_json::Value, context: &str) {
    let advice = refused["error"]["advice"].as_str().unwrap_or_default();
    if case.regions.iter().all(|region| case.region(region).join("region").exists()) {
        assert!(advice.contains("open this one"), "{context}: {refused:#}");
        return;
    }
    let place = refused["error"]["where"].as_str().unwrap_or_default();
    assert!(advice.starts_with("empty region "), "{context}: {refused:#}");
    for region in &case.regions {
        let stored = case.objects(region).iter().any(|object| !object.contains('#'));
        assert_eq!(place.trim_start_matches("region ").contains(region), stored, "{context}: {refused:#}");
        std::fs::remove_dir_all(case.region(region)).unwrap();
    }
    case.ok(&["init", "--no-recovery-key"]);
}

fn opens(case: &Bench, key: &Path) -> bool {
    let mut command = case.command(&["--json", "key", "test"]);
    let args: Vec<_> = command.get_args().map(std::ffi::OsStr::to_owned).collect();
    command = Command::new(command.get_program());
    command.args(
        args.iter()
            .map(|a| if Some(a.as_ref()) == case.key.as_deref().map(Path::as_os_str) { key.as_os_str() } else { a }),
    );
    let out = command.output().unwrap();
    let code = out.status.code();
    // 5: its slot is there, and the configuration that would list it is not yet; it says what to do.
    let cut_short = code == Some(5) && String::from_utf8_lossy(&out.stdout).contains("adding this key was cut short");
    assert!(cut_short || matches!(code, Some(0 | 12)), "{out:?}");
    code == Some(0)
}

/// What was said to be done is done in every region.
fn slots_agree(case: &Bench, code: i32, context: &str) {
    let slots = |region| case.json_at(&[region], &["key", "list"]).1["slots"].as_array().map(Vec::len);
    assert!(code != 0 || slots("a") == slots("b"), "{context}: {:?} and {:?}", slots("a"), slots("b"));
}

#[test]
fn any_instant_crash_of_adding_a_key() {
    let was = prepared();
    let args = ["key", "add", "--new-key-file", "new.key"];
    sweep("key add", &was.bench, &args, |case, code, context| {
        earlier_stands(case, &was, context);
        slots_agree(case, code, context);
        let new = case.path("new.key");
        if new.exists() && opens(case, &new) {
            assert_eq!(case.ok(&["key", "list"])["slots"].as_array().unwrap().len(), 2, "{context}");
        } else {
            assert_ne!(code, 0, "{context}");
            let _ = std::fs::remove_file(&new);
            case.ok(&args);
        }
        assert!(opens(case, &new), "{context}");
        case.ok(&["backup", text(&was.source)]);
        regions_agree(case, context);
    });
}

#[test]
fn any_instant_crash_of_removing_a_key() {
    let was = prepared();
    let spare = was.bench.ok(&["key", "add", "--new-key-file", "spare.key"])["slot"].as_str().unwrap().to_owned();
    let spare_key = was.bench.path("spare.key");
    let args = ["key", "remove", &spare];
    sweep("key remove", &was.bench, &args, |case, code, context| {
        earlier_stands(case, &was, context);
        slots_agree(case, code, context);
        if opens(case, &spare_key) {
            assert_ne!(code, 0, "{context}");
            case.ok(&args);
        }
        assert!(!opens(case, &spare_key), "{context}");
        assert_eq!(case.ok(&["key", "list"])["slots"].as_array().unwrap().len(), 1, "{context}");
        case.ok(&["backup", text(&was.source)]);
        regions_agree(case, context);
    });
}

/// No file that looks restored (right size and time) has other bytes.
pub fn nothing_false(source: &Path, target: &Path, context: &str) {
    for file in crate::harness::files(target) {
        let origin = source.join(file.strip_prefix(target).unwrap());
        let (there, wanted) = (file.symlink_metadata().unwrap(), origin.symlink_metadata().unwrap());
        if !there.is_file() {
            continue;
        }
        if (there.len(), there.modified().unwrap()) == (wanted.len(), wanted.modified().unwrap()) {
            assert!(std::fs::read(&file).unwrap() == std::fs::read(&origin).unwrap(), "{context}: {}", file.display());
        }
    }
}

#[test]
fn any_instant_crash_of_a_restore() {
    let was = prepared();
    std::os::unix::fs::symlink("file-0", was.source.join("link")).unwrap();
    std::fs::create_dir(was.source.join("deep")).unwrap();
    std::fs::write(was.source.join("deep/tiny"), b"tiny").unwrap();
    std::fs::hard_link(was.source.join("file-0"), was.source.join("same")).unwrap();
    let sparse = std::fs::File::create(was.source.join("sparse")).unwrap();
    std::os::unix::fs::FileExt::write_at(&sparse, &noise(7, 300_000), 2 << 20).unwrap();
    let sid = was.bench.ok(&["backup", text(&was.source)])["snapshot"].as_str().unwrap().to_owned();
    let args = ["restore", &sid, "--target", "target"];
    sweep("restore", &was.bench, &args, |case, code, context| {
        let target = case.path("target");
        nothing_false(&was.source, &target, context);
        if code == 0 {
            assert_same(&was.source, &target);
        }
        case.ok(&args);
        assert_same(&was.source, &target);
        nothing_false(&was.source, &target, context);
        complete_alone(case, context);
    });
}
