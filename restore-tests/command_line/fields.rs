//! What `--json` prints is what docs/json.md says, field by field, for every verb.

use crate::harness::{Bench, files, noise, small_tree};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The page: fields and types by section.
type Documented = BTreeMap<String, BTreeMap<String, String>>;

/// Sections that begin so are of snapshots of etcd.
const OF_ETCD: &str = "Of etcd: ";

/// Holds what came of a snapshot of etcd against the page: all of it is there, and all that is there came. It may have
/// what another section describes.
pub fn of_etcd(verb: &str, beside: &str, value: &Value) {
    let (pages, mut found) = (documented(), Vec::new());
    let own = &pages[&format!("{OF_ETCD}{verb}")];
    flatten(value, "", &mut found);
    let described = |path: &String| {
        [own]
            .into_iter()
            .chain(["Every verb", beside].iter().filter_map(|s| pages.get(*s)))
            .find_map(|page| page.get(path))
    };
    for (path, kind) in &found {
        let whole = own.iter().any(|(row, kind)| kind.starts_with("object") && path.starts_with(&format!("{row}.")));
        let page = described(path);
        assert!(
            whole || page.is_some_and(|page| fits(page, kind)),
            "{verb}: `{path}` ({kind}) is not on the page so: {value:#}"
        );
    }
    for path in own.keys().filter(|path| !path.contains("[]")) {
        assert!(
            found.iter().any(|(p, _)| p == path || p.starts_with(&format!("{path}."))),
            "{verb}: `{path}` did not come: {value:#}"
        );
    }
}

fn documented() -> Documented {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/json.md");
    let text = std::fs::read_to_string(path).expect("docs/json.md");
    let mut found = Documented::new();
    let mut section = String::new();
    for line in text.lines() {
        if let Some(title) = line.strip_prefix("## ") {
            section = title.replace('`', "");
        } else if let Some(row) = line.strip_prefix("| `") {
            let cells: Vec<&str> = row.split('|').map(|c| c.trim().trim_end_matches('`')).collect();
            let known = found.entry(section.clone()).or_default().insert(cells[0].into(), cells[1].into());
            assert!(known.is_none(), "{section}: {} is there twice", cells[0]);
        }
    }
    found
}

/// Every field with the path that the page gives it, and its type.
fn flatten(value: &Value, prefix: &str, found: &mut Vec<(String, String)>) {
    let Value::Object(map) = value else { panic!("{prefix}: {value} is no object") };
    for (name, value) in map {
        let path = format!("{prefix}{name}");
        let kind = match value {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            Value::Object(_) => {
                flatten(value, &format!("{path}."), found);
                continue;
            }
            Value::Array(list) if list.is_empty() => "list",
            Value::Array(list) if list.iter().all(Value::is_string) => "strings",
            Value::Array(list) if list.iter().all(Value::is_number) => "numbers",
            Value::Array(list) => {
                list.iter().for_each(|item| flatten(item, &format!("{path}[]."), found));
                "objects"
            }
        };
        found.push((path, kind.into()));
    }
}

fn fits(documented: &str, kind: &str) -> bool {
    let (base, or_null) = documented.trim_end_matches(", optional").split_once(" or ").unwrap_or((documented, ""));
    let base = base.trim_end_matches(", optional");
    kind == base
        || (kind == "null" && or_null == "null")
        || (kind == "list" && ["strings", "numbers", "objects"].contains(&base))
}

/// Gathers what was seen of each section.
struct Checker {
    documented: Documented,
    seen: BTreeMap<String, BTreeSet<String>>,
}

impl Checker {
    fn take(&mut self, section: &str, value: &Value) {
        let sections: &[&str] = match section {
            _ if section.contains(", for each ") => &[section],
            "A verb that fails" => &[section, "Every verb"],
            _ => &[section, "Every verb"],
        };
        let mut found = Vec::new();
        flatten(value, "", &mut found);
        for (path, kind) in &found {
            // The inside of an object that is described elsewhere.
            let whole = sections.iter().find_map(|s| {
                let rows = self.documented.get(*s)?.iter();
                rows.filter(|(_, kind)| matches!(kind.as_str(), "object" | "object, optional"))
                    .map(|(row, _)| (*s, row))
                    .find(|(_, row)| path.strip_prefix(row.as_str()).is_some_and(|rest| rest.starts_with('.')))
            });
            if let Some((home, row)) = whole {
                self.seen.entry(home.to_owned()).or_default().insert(row.clone());
                continue;
            }
            let page = sections.iter().find_map(|s| self.documented.get(*s)?.get(path).map(|t| (*s, t)));
            let (home, documented) =
                page.unwrap_or_else(|| panic!("{section}: `{path}` ({kind}) is not on the page: {value}"));
            assert!(fits(documented, kind), "{section}: `{path}` is {kind}, the page says {documented}");
            self.seen.entry(home.to_owned()).or_default().insert(path.clone());
        }
        // Nothing that is always there is missing in this one.
        for (path, kind) in self.documented.get(section).into_iter().flatten() {
            let nested = path.contains("[]");
            let there = found.iter().any(|(p, _)| p == path || p.starts_with(&format!("{path}.")));
            assert!(there || nested || kind.contains("optional"), "{section}: `{path}` is missing in {value:#}");
        }
    }

    /// Everything on the page was seen once. What clusters of etcd have is looked at where there is one.
    fn finish(&self) {
        for (section, fields) in self.documented.iter().filter(|(section, _)| !section.starts_with(OF_ETCD)) {
            for path in fields.keys() {
                let seen = self.seen.get(section).is_some_and(|s| s.contains(path));
                assert!(seen, "{section}: `{path}` is on the page, but never came");
            }
        }
    }
}

/// Runs a verb with `--json` and checks its fields; an object with an error is checked as one.
fn run(bench: &Bench, checker: &mut Checker, section: &str, args: &[&str]) -> Value {
    let (code, value) = bench.json(args);
    assert_eq!(value["exit"]["code"], code, "{args:?}");
    checker.take(section, &value);
    value
}

#[test]
fn every_field_is_documented_and_every_documented_field_comes() {
    let bench = Bench::empty(&["a", "b"]);
    let mut checker = Checker { documented: documented(), seen: BTreeMap::new() };
    let c = &mut checker;
    let source = bench.path("source");
    small_tree(&source);
    // Something that cannot be read, even by root: a pattern that makes no sense.
    std::fs::write(source.join(".holdfastignore"), "[\n").expect("file");
    let text = source.display().to_string();
    let target = bench.path("target").display().to_string();
    run(&bench, c, "A verb that fails", &["snapshots"]);
    run(&bench, c, "doctor", &["doctor"]);
    run(&bench, c, "init", &["init"]);
    generated(c);
    run(&bench, c, "snapshots", &["snapshots"]);
    run(&bench, c, "backup", &["backup", "--dry-run", &text]);
    run(&bench, c, "backup", &["backup", "--tag", "t", &text]);
    run(&bench, c, "snapshots", &["snapshots"]);
    run(&bench, c, "ls", &["ls", "latest"]);
    entries(&bench, c);
    looks(&bench, c);
    std::fs::create_dir_all(bench.path("target/tiny/x")).expect("directory");
    run(&bench, c, "restore", &["restore", "latest", "--target", &target]);
    for level in ["presence", "ciphertext", "content"] {
        run(&bench, c, "verify", &["verify", "--level", level]);
    }
    runs(&bench, c);
    keys(&bench, c);
    run(&bench, c, "A verb that fails", &["forget", "latest"]);
    let held = run(&bench, c, "hold add", &["hold", "add", "latest", "--reason", "r", "--until", "2d"]);
    run(&bench, c, "snapshots", &["snapshots"]);
    run(&bench, c, "hold list", &["hold", "list"]);
    run(&bench, c, "forget", &["forget", "--keep-last", "1", "--dry-run"]);
    run(&bench, c, "forget", &["forget", "--keep-last", "1"]);
    // A region that is away, and comes back.
    std::fs::rename(bench.region("b"), bench.path("away")).expect("renamed");
    let one = ["--copies-min", "1"];
    let ill = run(&bench, c, "doctor", &[&["doctor"], &one[..]].concat());
    assert_eq!(ill["exit"]["name"], "behind", "{ill:#}");
    let behind = run(&bench, c, "backup", &[&["backup", &text], &one[..]].concat());
    assert_eq!(behind["behind"].as_array().map(Vec::len), Some(1), "{behind:#}");
    catalog(&bench, c);
    run(&bench, c, "tag", &[&["tag", "latest", "--add", "x"], &one[..]].concat());
    run(&bench, c, "forget", &[&["forget", "latest"], &one[..]].concat());
    run(&bench, c, "hold add", &[&["hold", "add", "latest", "--reason", "r"], &one[..]].concat());
    let hold = held["hold"].as_str().expect("an id");
    run(&bench, c, "hold remove", &[&["hold", "remove", hold], &one[..]].concat());
    let label = ["key", "add", "--new-recovery-key", "--label", "x"];
    let slot = run(&bench, c, "key add", &[&label[..], &one].concat());
    let id = slot["slot"].as_str().expect("an id");
    run(&bench, c, "key remove", &[&["key", "remove", id], &one[..]].concat());
    std::fs::rename(bench.path("away"), bench.region("b")).expect("renamed");
    run(&bench, c, "backup", &["backup", &text]);
    run(&bench, c, "replicate", &["replicate", "--dry-run"]);
    run(&bench, c, "replicate", &["replicate"]);
    daemon(&bench, c);
    // Damage: every object of packs is cut.
    for pack in files(&bench.region("a").join("packs")) {
        std::fs::write(&pack, noise(1, 100)).expect("damaged");
    }
    let manifest = files(&bench.region("a").join("snapshots")).remove(0);
    std::fs::write(&manifest, noise(2, 100)).expect("damaged");
    std::fs::remove_file(files(&bench.region("b").join("packs")).remove(0)).expect("removed");
    run(&bench, c, "replicate", &["replicate"]);
    run(&bench, c, "restore", &["restore", "latest", "--target", "mended"]);
    // Again, should it have been the one that was just mended.
    std::fs::write(&manifest, noise(2, 100)).expect("damaged");
    let damaged = run(&bench, c, "verify", &["verify", "--level", "ciphertext"]);
    assert_eq!(damaged["exit"]["name"], "damage");
    run(&bench, c, "verify", &["verify", "--level", "ciphertext", "--repair"]);
    run(&bench, c, "repair index", &["repair", "index"]);
    run(&bench, c, "status", &["status"]);
    run(&bench, c, "quickstart", &["quickstart", &text]);
    policies(c);
    judged(c);
    models(&bench, c);
    models_stored(c);
    braked(c);
    membership(c);
    pruned(c);
    checker.finish();
}

/// Space that is given back.
fn pruned(c: &mut Checker) {
    let bench = Bench::with_key(&["a", "b"]);
    std::fs::create_dir(bench.path("source")).expect("directory");
    for n in 1..3 {
        std::fs::write(bench.path("source/file"), noise(n, 300_000)).expect("file");
        bench.ok(&["backup", "source"]);
    }
    let first = bench.ok(&["snapshots"])["snapshots"][0]["id"].as_str().expect("an id").to_owned();
    bench.ok(&["forget", &first]);
    let said = run(&bench, c, "prune", &["prune", "--dry-run"]);
    assert!(said["plan"].as_array().is_some_and(|plan| !plan.is_empty()), "{said:#}");
    run(&bench, c, "prune", &["prune"]);
}

/// Files of models, of which one would do harm, one is not there, and one is signed by nobody knows whom.
fn judged(c: &mut Checker) {
    let bench = Bench::in_memory(&[]);
    let folder = bench.path("model");
    std::fs::create_dir(&folder).expect("directory");
    std::fs::write(folder.join("bad"), "cos\nsystem\n(tR.").expect("file");
    std::fs::write(folder.join("SHA256SUMS"), format!("{}  gone\n", "0".repeat(64))).expect("file");
    std::fs::write(folder.join("model.sig"), "{}").expect("file");
    std::os::unix::fs::symlink("nowhere", folder.join("link")).expect("link");
    let said = run(&bench, c, "model check", &["model", "check", "model"]);
    assert_eq!(said["exit"]["name"], "damage", "{said:#}");
}

/// The same in snapshots.
fn models_stored(c: &mut Checker) {
    let bench = Bench::with_key(&["a"]);
    std::fs::create_dir(bench.path("model")).expect("directory");
    std::fs::write(bench.path("model/bad"), "cos\nsystem\n(tR.").expect("file");
    std::fs::write(bench.path("model/model.sig"), "{}").expect("file");
    std::fs::write(bench.path("model/half.gguf"), "GGUF and no header").expect("file");
    let said = run(&bench, c, "backup", &["backup", "model:model", "--trust-pickle", "refuse"]);
    assert_eq!(said["exit"]["name"], "refused", "{said:#}");
    run(&bench, c, "model check", &["model", "check", "--snapshot", "latest"]);
    run(&bench, c, "model check", &["model", "check", "--snapshot", "latest", "--again"]);
    run(&bench, c, "snapshots", &["snapshots"]);
    run(&bench, c, "restore", &["restore", "latest", "--target", "restored", "--trust-anyway"]);
    let said = run(&bench, c, "verify", &["verify"]);
    assert_eq!(said["verdicts"][0]["refused"], 1, "{said:#}");
}

/// Regions that come and go.
fn membership(c: &mut Checker) {
    let bench = Bench::with_key(&["a", "b"]);
    std::fs::create_dir(bench.path("source")).expect("directory");
    std::fs::write(bench.path("source/file"), noise(7, 100_000)).expect("file");
    bench.ok(&["backup", "source"]);
    run(&bench, c, "region add", &["region", "add", "c=region-c"]);
    // One that this configuration does not name, and one that is no member.
    run(&bench, c, "region list", &["region", "list"]);
    let all = Bench { dir: bench.dir, regions: vec!["a", "b", "c"], key: bench.key };
    run(&all, c, "region add", &["region", "add", "c=region-c"]);
    std::fs::remove_dir_all(all.region("b")).expect("removed");
    run(&all, c, "region list", &["region", "list"]);
    let repaired = run(&all, c, "region repair", &["region", "repair", "b", "--emptied"]);
    assert_eq!(repaired["exit"]["code"], 0, "{repaired:#}");
    std::fs::write(files(&all.region("b").join("packs")).remove(0), noise(1, 100)).expect("damaged");
    run(&all, c, "region remove", &["region", "remove", "b"]);
    let listed = run(&all, c, "region list", &["region", "list"]);
    assert_eq!(listed["outsiders"].as_array().map(Vec::len), Some(1), "{listed:#}");
    // Something that stands where something else belongs.
    std::fs::remove_file(files(&all.region("a").join("packs")).remove(0)).expect("removed");
    std::fs::rename(all.region("c"), all.path("away")).expect("renamed");
    assert_eq!(all.json(&["region", "repair", "a"]).0, 1, "every other member must answer");
    std::fs::rename(all.path("away"), all.region("c")).expect("renamed");
    for region in ["a", "c"] {
        std::fs::write(files(&all.region(region).join("packs")).remove(0), noise(2, 100)).expect("damaged");
    }
    let last = run(&all, c, "region repair", &["region", "repair", "a"]);
    assert!([1, 5].contains(&last["exit"]["code"].as_i64().unwrap_or(0)), "{last:#}");
    run(&all, c, "region add", &["region", "add", "c=region-c"]);
}

/// All lines that a verb prints before its last one.
fn lines(bench: &Bench, c: &mut Checker, section: &str, args: &[&str]) {
    let output = bench.run(&[&["--json", "--quiet"], args].concat()).1;
    let text = String::from_utf8(output.stdout).expect("text");
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert!(lines.len() > 1, "{args:?}: {text}");
    lines[..lines.len() - 1].iter().for_each(|line| c.take(section, line));
}

/// What looks into files of models.
fn models(bench: &Bench, c: &mut Checker) {
    use crate::formats::containers::{Array, field, onnx_model, onnx_outside, safetensors, torch};
    let folder = bench.path("models");
    std::fs::create_dir(&folder).expect("directory");
    let arrays = |seed| [Array::new("a", "F32", &[9], seed), Array::new(&format!("b{seed}"), "I8", &[7], 1)];
    let outside = onnx_model(&field(5, &onnx_outside(&arrays(1)[0], "x.data", 0)));
    let broken = [&b"GGUF"[..], &[9; 90]].concat();
    let (one, two) = (safetensors(&arrays(1)), torch(&arrays(2)));
    let files: [(&str, &[u8]); 6] = [
        ("one", &one),
        ("two", &two),
        ("outside", &outside),
        ("broken", &broken),
        ("index.json", br#"{"weight_map": {"a": "one"}}"#),
        ("other", b"words"),
    ];
    files.iter().for_each(|(name, bytes)| std::fs::write(folder.join(name), bytes).expect("file"));
    let at = |name: &str| folder.join(name).display().to_string();
    for section in ["one", "two", "outside", "broken", "index.json", "other"] {
        lines(bench, c, "model ls, for each file", &["model", "ls", &at(section)]);
    }
    run(bench, c, "model ls", &["model", "ls", &at("")]);
    lines(bench, c, "model diff, for each difference", &["model", "diff", &at("one"), &at("two")]);
    run(bench, c, "model diff", &["model", "diff", &at("one"), &at("broken")]);
    kept_models(c);
}

/// A model that is suddenly another one, and a tensor that comes back alone.
fn kept_models(c: &mut Checker) {
    use crate::formats::containers::{Array, safetensors};
    let bench = Bench::with_key(&["a"]);
    std::fs::create_dir(bench.path("source")).expect("directory");
    for (seed, layers) in [(1, 3), (2, 4)] {
        let model = safetensors(&[Array::new("a", "F32", &[90_000], seed)]);
        std::fs::write(bench.path("source/model.safetensors"), model).expect("file");
        let config = format!("{{\"model_type\": \"x\", \"num_layers\": {layers}}}");
        std::fs::write(bench.path("source/config.json"), config).expect("file");
        let said = run(&bench, c, "backup", &["backup", "source"]);
        assert_eq!(said["models"]["sudden_total"].as_u64(), (seed == 2).then_some(2), "{said:#}");
    }
    let one = ["restore", "latest:model.safetensors", "--tensors", "a", "--target", "target"];
    run(&bench, c, "restore --tensors", &one);
    run(&bench, c, "restore --tensors", &[&one[..], &["--dry-run", "--overwrite"]].concat());
    tensors_kept(&bench, c);
}

/// Tensors in snapshots: one that differs, and a model that is none.
fn tensors_kept(bench: &Bench, c: &mut Checker) {
    let ids = bench.ok(&["snapshots"]);
    let id = |n: usize| ids["snapshots"][n]["id"].as_str().expect("an id").to_owned();
    let ls = ["ls", "latest", "--tensors"];
    lines(bench, c, "ls, for each entry", &ls);
    run(bench, c, "ls", &ls);
    let file = |n: usize| format!("{}:model.safetensors", id(n));
    let (old, new) = (file(0), file(1));
    let diff = ["diff", &old, &new, "--tensors"];
    let output = bench.run(&[&["--json"], &diff[..]].concat()).1;
    let text = String::from_utf8(output.stdout).expect("text");
    let line = serde_json::from_str(text.lines().nth(1).expect("a tensor")).expect("JSON");
    c.take("diff --tensors, for each tensor", &line);
    std::fs::write(bench.path("source/model.safetensors"), [9, 0, 0, 0, 0, 0, 0, 0, b'{', 0]).expect("file");
    bench.ok(&["backup", "source"]);
    let broken = run(bench, c, "diff", &["diff", &old, "latest:model.safetensors", "--tensors"]);
    assert_eq!(broken["exit"]["name"], "partial", "{broken:#}");
}

/// What looks into snapshots.
fn looks(bench: &Bench, c: &mut Checker) {
    run(bench, c, "find", &["find", "tiny"]);
    lines(bench, c, "find, for each entry", &["find", "tiny", "link"]);
    run(bench, c, "diff", &["diff", "latest:/docs", "latest:/docs/deep"]);
    lines(bench, c, "diff, for each difference", &["diff", "latest:/docs", "latest:/docs/deep"]);
    run(bench, c, "stats", &["stats"]);
    run(bench, c, "stats SNAPSHOT", &["stats", "latest"]);
    run(bench, c, "stats SNAPSHOT", &["stats", "latest", "--unique"]);
    run(bench, c, "dump", &["dump", "latest", "--output", "latest.tar"]);
    run(bench, c, "man", &["man", "pages"]);
    broken_looks(c);
}

/// The same in a repository without its trees.
fn broken_looks(c: &mut Checker) {
    let bench = Bench::with_key(&["a"]);
    small_tree(&bench.path("source"));
    bench.ok(&["backup", "source"]);
    std::fs::write(bench.path("source/tiny"), "another").expect("file");
    bench.ok(&["backup", "source"]);
    let ids: Vec<String> = bench.ok(&["snapshots"])["snapshots"]
        .as_array()
        .expect("two")
        .iter()
        .map(|s| s["id"].as_str().expect("an id").to_owned())
        .collect();
    for pack in files(&bench.region("a").join("packs")) {
        std::fs::write(&pack, noise(1, 100)).expect("damaged");
    }
    copies(&bench, c);
    run(&bench, c, "find", &["find", "tiny"]);
    run(&bench, c, "diff", &["diff", &ids[0], &ids[1]]);
    run(&bench, c, "dump", &["dump", "latest", "--output", "broken.tar"]);
}

/// Copies of what cannot be read into a repository of which a region is away; then of what can.
fn copies(broken: &Bench, c: &mut Checker) {
    let other = Bench::with_key(&["b", "c"]);
    let to = |name: &str| format!("{name}={}", other.region(name).display());
    let (b, away, key) = (to("b"), to("c"), other.path("key").display().to_string());
    let copy = ["copy", "--to-region", &b, "--to-region", &away, "--to-copies-min", "1", "--to-key-file", &key];
    std::fs::rename(other.region("c"), other.path("away")).expect("renamed");
    run(broken, c, "copy", &copy);
    std::fs::rename(other.path("away"), other.region("c")).expect("renamed");
    let mut whole = Bench::in_memory(&["a"]);
    whole.make_key();
    std::fs::write(whole.path("key"), noise(3, 32)).expect("key");
    whole.ok(&["init", "--no-recovery-key"]);
    small_tree(&whole.path("source"));
    whole.ok(&["backup", "source"]);
    run(&whole, c, "copy", &copy);
    run(&other, c, "snapshots", &["snapshots"]);
}

/// What the runs so far left.
fn catalog(bench: &Bench, c: &mut Checker) {
    for more in [&[][..], &["--from-regions"]] {
        run(bench, c, "runs", &[&["runs"], more].concat());
        run(bench, c, "status", &[&["status", "--rpo", "1h"], more].concat());
    }
    run(bench, c, "catalog rebuild", &["catalog", "rebuild"]);
    run(bench, c, "snapshots --local", &["snapshots", "--local"]);
}

/// A generated passphrase, and a recovery key in a file.
fn generated(c: &mut Checker) {
    let bench = Bench::empty(&["a"]);
    let out = bench.path("recovery").display().to_string();
    let mut command = bench.command(&["--json", "init", "--generate-passphrase", "--recovery-key-out", &out]);
    let output = command.env_remove("HOLDFAST_PASSPHRASE").output().expect("the program runs");
    let value: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert!(value["passphrase"].as_str().is_some_and(|words| words.len() > 20), "{value:#}");
    assert!(value.get("recovery_key").is_none());
    c.take("init", &value);
}

/// A configuration, a changed one, and one with two mistakes.
fn policies(c: &mut Checker) {
    let bench = Bench::empty(&[]);
    let head = |kind: &str, name: &str| {
        format!("---\napiVersion: holdfast.io/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec:\n")
    };
    let good = head("Repository", "main")
        + "  regions: [{name: a, url: a}]\n"
        + &head("BackupPolicy", "home")
        + "  sources: [{paths: [/home]}]\n  startingDeadline: 1h\n  schedule: {incremental: '0 * * * *', full: '0 3 * * *', \
           blackouts: [{start: '0 5 * * *', duration: 3h}]}\n  retention: {daily: 30}\n  objectives: {rpo: 30m}\n";
    let changed = good.replace("'0 3 * * *'", "'0 4 * * *'").replace("daily: 30", "daily: 2");
    let bad = good.replace("rpo: 30m", "rpo: soon").replace("3h", "always");
    for (name, text) in [("good.yaml", &good), ("changed.yaml", &changed), ("bad.yaml", &bad)] {
        std::fs::write(bench.path(name), text).expect("file");
    }
    let b = &bench;
    run(b, c, "policy check", &["policy", "check", "--config", "good.yaml"]);
    run(b, c, "policy show", &["policy", "show", "--config", "good.yaml"]);
    let next = run(b, c, "policy next", &["policy", "next", "--config", "good.yaml"]);
    assert!(next["runs"].as_array().is_some_and(|runs| runs.iter().any(|run| run["start"].is_null())), "{next:#}");
    run(b, c, "policy diff", &["policy", "diff", "good.yaml", "changed.yaml"]);
    run(b, c, "policy schema", &["policy", "schema"]);
    scheduled(&good, b, c);
    run(b, c, "A verb that fails", &["policy", "check", "--config", "bad.yaml"]);
}

/// An incremental and a full of every minute.
fn scheduled(good: &str, b: &Bench, c: &mut Checker) {
    let minutes =
        good.replace("'0 * * * *'", "'* * * * *'").replace("'0 3 * * *'", "'* * * * *'").replace("url: a", "url: /a");
    std::fs::write(b.path("minutes.yaml"), minutes.replace("'0 5 * * *'", "'0 5 1 1 *'")).expect("file");
    let value = run(b, c, "run", &["run", "home", "--scheduled", "--config", "minutes.yaml"]);
    assert_eq!(value["gave_way_to"]["task"], "full", "{value:#}");
    run(b, c, "manifest cronjob", &["manifest", "cronjob", "home", "--config", "minutes.yaml"]);
}

/// A source that is suddenly empty.
fn braked(c: &mut Checker) {
    let bench = Bench::with_key(&["a"]);
    std::fs::create_dir(bench.path("source")).expect("directory");
    std::fs::write(bench.path("source/file"), b"full").expect("file");
    (0..5).for_each(|_| drop(bench.ok(&["backup", "source"])));
    std::fs::remove_file(bench.path("source/file")).expect("removed");
    bench.ok(&["backup", "source"]);
    let plan = run(&bench, c, "forget", &["forget", "--keep-last", "1", "--dry-run"]);
    assert_eq!(plan["brakes"].as_array().map(Vec::len), Some(1), "{plan:#}");
    let of = |retention: &str| {
        format!(
            "apiVersion: holdfast.io/v1alpha1\nkind: Repository\nmetadata: {{name: main}}\nspec:\n  regions: \
             [{{name: a, url: {}}}]\n---\napiVersion: holdfast.io/v1alpha1\nkind: BackupPolicy\nmetadata: {{name: p}}\n\
             spec:\n  sources: [{{name: '{}', paths: [/x]}}]\n  retention: {{{retention}}}\n",
            bench.region("a").display(),
            plan["plan"][0]["source"].as_str().expect("a name")
        )
    };
    std::fs::write(bench.path("old.yaml"), of("last: 5")).expect("file");
    std::fs::write(bench.path("new.yaml"), of("last: 1")).expect("file");
    let diff = run(&bench, c, "policy diff", &["policy", "diff", "old.yaml", "new.yaml", "--snapshots"]);
    assert!(diff["snapshots"][0]["brake"].is_string(), "{diff:#}");
}

/// A policy with a source that is there and one that is not, and one who is told.
fn runs(bench: &Bench, c: &mut Checker) {
    let alert = bench.path("alert.json");
    let text = format!(
        "apiVersion: holdfast.io/v1alpha1\nkind: Repository\nmetadata: {{name: main}}\nspec:\n  \
         regions: [{{name: a, url: {}}}, {{name: b, url: {}}}]\n---\napiVersion: holdfast.io/v1alpha1\n\
         kind: BackupPolicy\nmetadata: {{name: daily}}\nspec:\n  retries: {{max: 0}}\n  \
         hooks: {{after: [{{command: ['true']}}]}}\n  \
         alerts: [{{name: file, events: [failure], command: [sh, -c, 'cat > {}']}}]\n  \
         verify: {{schedule: '@daily', level: content}}\n  sources: [{{name: here, paths: [{}]}}, {{name: gone, paths: [/nowhere/at/all]}}]\n",
        bench.region("a").display(),
        bench.region("b").display(),
        alert.display(),
        bench.path("source").display()
    );
    std::fs::write(bench.path("run.yaml"), text).expect("file");
    run(bench, c, "run", &["run", "daily", "--config", "run.yaml"]);
    c.take("An alert", &serde_json::from_slice(&std::fs::read(&alert).expect("an alert")).expect("JSON"));
    run(bench, c, "run", &["run", "daily", "--kind", "verify", "--config", "run.yaml"]);
    run(bench, c, "run", &["run", "daily", "--kind", "prune", "--config", "run.yaml"]);
    c.take("status", &bench.json_at(&[], &["status", "--config", "run.yaml"]).1);
    let text = std::fs::read_to_string(bench.path("run.yaml")).expect("file");
    let hindered = text.replace("after: [{command: ['true']}]", "before: [{command: ['false']}]");
    std::fs::write(bench.path("hindered.yaml"), hindered).expect("file");
    run(bench, c, "run", &["run", "daily", "--config", "hindered.yaml"]);
    c.take("status", &bench.json_at(&[], &["status", "--config", "hindered.yaml"]).1);
}

/// The same policy by a daemon.
fn daemon(bench: &Bench, c: &mut Checker) {
    let text = std::fs::read_to_string(bench.path("run.yaml")).expect("file") + "  schedule: {full: '@yearly'}\n";
    std::fs::write(bench.path("run.yaml"), text).expect("file");
    overdue(bench);
    let output = bench.run(&["--json", "daemon", "--once", "--config", "run.yaml"]).1;
    let text = String::from_utf8(output.stdout).expect("text");
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let (last, told) = lines.split_last().expect("lines");
    told.iter().for_each(|line| c.take("daemon, for each line", line));
    c.take("daemon", last);
    assert_eq!((&last["runs"], &last["exit"]["code"]), (&1.into(), &1.into()), "{last:#}");
}

/// The state folder remembers nothing of the last year.
fn overdue(bench: &Bench) {
    let job = holdfast::daemon::JobId { policy: "daily".into(), kind: holdfast::policy::Task::Full };
    let then = holdfast::base::TimeMs(holdfast::base::Env::system().now().0 - 366 * 86_400_000);
    let memory = holdfast::daemon::Memory::new("@yearly UTC".into(), then);
    let state = holdfast::daemon::state::StateDir::take(&bench.path("state")).expect("state");
    state.save(&[(job, memory)].into()).expect("saved");
}

fn entries(bench: &Bench, c: &mut Checker) {
    let output = bench.run(&["--json", "ls", "-R", "latest"]).1;
    let text = String::from_utf8(output.stdout).expect("text");
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let (_, entries) = lines.split_last().expect("lines");
    assert!(entries.len() > 40);
    entries.iter().for_each(|entry| c.take("ls, for each entry", entry));
    assert!(entries.iter().any(|e| e["target"] == "tiny" && e["type"] == "l"));
}

fn keys(bench: &Bench, c: &mut Checker) {
    run(bench, c, "key list", &["key", "list"]);
    run(bench, c, "key test", &["key", "test"]);
    let file = bench.path("key").display().to_string();
    let added = run(bench, c, "key add", &["key", "add", "--new-key-file", &file, "--label", "spare"]);
    let id = added["slot"].as_str().expect("an id");
    let tested = run(bench, c, "key test", &["key", "test", "--key-file", &file]);
    assert_eq!((&tested["slot"]["id"], &tested["slot"]["label"]), (&added["slot"], &"spare".into()));
    let shown = run(bench, c, "key add", &["key", "add", "--new-recovery-key"]);
    let recovery = bench.path("recovery-key").display().to_string();
    std::fs::write(&recovery, shown["recovery_key"].as_str().expect("a key")).expect("file");
    run(bench, c, "key test", &["key", "test", "--recovery-key-file", &recovery]);
    run(bench, c, "key remove", &["key", "remove", &id[..8]]);
    let listed = run(bench, c, "key list", &["key", "list"]);
    assert_eq!(listed["removed"][0], id);
    let gone = run(bench, c, "A verb that fails", &["key", "test", "--key-file", &file]);
    assert_eq!(gone["exit"]["code"], 12);
}
