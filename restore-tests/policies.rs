//! The configuration language from outside: its examples, its schema, and the verbs that explain it.

use holdfast::policy::{Configuration, TEXT_BYTES_MAX, Text, load, parse};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

fn root(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn examples() -> Vec<(String, String)> {
    let files = std::fs::read_dir(root("policies")).unwrap().map(|entry| entry.unwrap().path());
    let yaml = files.filter(|path| path.extension().is_some_and(|e| e == "yaml"));
    yaml.map(|path| (path.display().to_string(), text(&path))).collect()
}

fn loaded(files: &[(String, String)]) -> Configuration {
    let texts: Vec<Text> = files.iter().map(|(name, text)| Text { name, text }).collect();
    load(&texts).unwrap_or_else(|e| panic!("{e} {:?}", e.more()))
}

/// A folder of its own and the program in it.
struct Desk(TempDir);

impl Desk {
    fn new(files: &[(&str, &str)]) -> Desk {
        let desk = Desk(TempDir::new().expect("temporary directory"));
        files.iter().for_each(|(name, text)| desk.write(name, text));
        desk
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.0.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// Exit code, standard output, standard error.
    fn run(&self, args: &[&str]) -> (i32, String, String) {
        let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast"));
        command.args(args).current_dir(self.0.path()).env("HOME", self.0.path()).env_remove("XDG_CONFIG_HOME");
        let out = command.output().expect("the program runs");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        (out.status.code().unwrap_or(-1), text(out.stdout), text(out.stderr))
    }

    #[track_caller]
    fn ok(&self, args: &[&str]) -> String {
        let (code, out, err) = self.run(args);
        assert_eq!((code, err.as_str()), (0, ""), "{args:?}: {out}");
        out
    }
}

fn document(kind: &str, name: &str, spec: &str) -> String {
    format!("---\napiVersion: holdfast.io/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}}}\nspec:\n{spec}")
}

fn repository() -> String {
    document("Repository", "main", "  regions: [{name: a, url: a}]\n")
}

fn policy(name: &str, spec: &str) -> String {
    document("BackupPolicy", name, &format!("  sources: [{{paths: [/srv/{name}]}}]\n{spec}"))
}

#[test]
fn the_examples_are_read() {
    let read = loaded(&examples());
    assert_eq!((read.repositories().len(), read.policies().len()), (1, 4));
    let (code, out, err) = Desk::new(&[]).run(&["policy", "check", "--config", root("policies").to_str().unwrap()]);
    assert_eq!((code, err.as_str()), (0, ""));
    assert!(out.contains("5 files, 1 repository, 4 policies: no mistake") && !out.contains("warning"), "{out}");
}

#[test]
fn the_documented_example_says_what_its_comments_say() {
    let example = text(&root("policies/repository.yaml"));
    assert!(example.len() < TEXT_BYTES_MAX);
    let plain = parse("holdfast.yaml", &example).unwrap();
    assert_eq!(plain.regions().len(), 3);
    assert_eq!(plain.copies_min(), 2);
    assert_eq!(plain.repository_id(), None);
    let pinned = parse("holdfast.yaml", &example.replace("# repositoryId", "repositoryId")).unwrap();
    assert!(pinned.repository_id().is_some(), "the commented field is no field");
    let by_default = parse("holdfast.yaml", &example.replace("  copies:\n    min: 2\n", "")).unwrap();
    assert_eq!(by_default.copies_min(), 2);
}

/// Every field of the schema stands in one of the examples, and each field of a policy that may be left out
/// may be left out of it.
#[test]
fn the_examples_have_every_field() {
    let all: String = examples().into_iter().map(|(_, text)| text).collect();
    fn fields(schema: &Value, found: &mut Vec<String>) {
        for (name, inner) in schema["properties"].as_object().into_iter().flatten() {
            found.push(name.clone());
            fields(inner, found);
        }
        if schema["items"].is_object() {
            fields(&schema["items"], found);
        }
    }
    let mut found = Vec::new();
    holdfast::policy::schema()["oneOf"].as_array().unwrap().iter().for_each(|one| fields(one, &mut found));
    assert!(found.len() > 40, "{found:?}");
    for name in found {
        assert!(all.contains(&format!("{name}:")), "`{name}` is not explained in policies/");
    }
}

#[test]
fn the_published_schema_is_the_one_of_the_program() {
    let printed = Desk::new(&[]).ok(&["policy", "schema"]);
    let published = text(&root("policies/schema.json"));
    assert!(printed == published, "policies/schema.json is stale: holdfast policy schema > policies/schema.json");
    let schema: Value = serde_json::from_str(&published).unwrap();
    // As clusters want it: no references, nothing that may be null, nothing unknown let through.
    assert!(!published.contains("$ref") && !published.contains("null"));
    for one in schema["oneOf"].as_array().unwrap() {
        assert_eq!(one["additionalProperties"], false);
        assert_eq!(one["properties"]["spec"]["additionalProperties"], false);
    }
}

#[test]
fn every_mistake_is_said_at_once_with_its_place() {
    let bad = policy("bad", "  scheduel: {}\n  priority: high\n");
    let worse = policy("worse", "  repository: mian\n  schedule: {full: 0 0 31 2 *}\n");
    let desk = Desk::new(&[("c/a.yaml", &repository()), ("c/b.yml", &bad), ("c/c.yaml", &worse), ("c/d.txt", "{")]);
    desk.write("c/.hidden.yaml", "{");
    desk.write("c/inner/e.yaml", "{");
    let (code, out, err) = desk.run(&["policy", "check", "--config", "c"]);
    assert_eq!((code, out.as_str()), (2, ""), "{err}");
    let lines: Vec<&str> = err.lines().collect();
    let wanted = [
        ["c/b.yml:7:3: spec", "unknown field `scheduel`", "did you mean `schedule`?"],
        ["c/b.yml:8:13: spec.priority", "a whole number is needed here", ""],
        ["c/c.yaml:7:15: spec.repository", "no repository `mian`", "did you mean `main`?"],
        ["c/c.yaml:8:20: spec.schedule.full", "never fires", "five fields"],
    ];
    assert_eq!(lines.len(), wanted.len(), "{err}");
    for (line, parts) in lines.iter().zip(wanted) {
        parts.iter().for_each(|part| assert!(line.starts_with("holdfast: ") && line.contains(part), "{part}: {line}"));
    }
    // A run says so too; and in JSON.
    assert_eq!(desk.run(&["run", "bad", "--config", "c"]).2, err);
    let value: Value = serde_json::from_str(&desk.run(&["--json", "policy", "next", "--config", "c"]).1).unwrap();
    assert_eq!((value["more"].as_array().unwrap().len(), &value["exit"]["code"]), (3, &2.into()));
    assert_eq!(value["more"][2]["where"], "c/c.yaml:8:20: spec.schedule.full");
}

#[test]
fn folders_and_several_repositories() {
    let desk = Desk::new(&[]);
    std::fs::create_dir(desk.0.path().join("empty")).unwrap();
    assert!(desk.run(&["policy", "check", "--config", "empty"]).2.contains("the folder has no configuration"));
    assert!(desk.run(&["policy", "check"]).2.contains("holdfast.yaml"));
    desk.write("holdfast.yaml", &(repository() + &repository().replace("main", "other").replace("url: a", "url: b")));
    let (code, _, err) = desk.run(&["snapshots"]);
    assert!(code == 2 && err.contains("several repositories") && err.contains("--repository: main, other"), "{err}");
    let (code, _, err) = desk.run(&["snapshots", "--repository", "othre"]);
    assert!(code == 2 && err.contains("did you mean `other`?"), "{err}");
    std::fs::write(desk.0.path().join("key"), [7; 32]).unwrap();
    for name in ["main", "other"] {
        std::fs::create_dir_all(desk.0.path().join(name)).unwrap();
        let (code, _, err) = desk.run(&["init", "--key-file", "key", "--no-recovery-key", "--repository", name, "-q"]);
        assert_eq!(code, 0, "{err}");
    }
    assert!(desk.0.path().join("a/packs").exists() || desk.0.path().join("a/config").exists());
    assert!(desk.0.path().join("b/config").exists());
}

#[test]
fn a_bad_document_stops_runs_and_no_restore() {
    let desk = Desk::new(&[("c/main.yaml", &repository()), ("c/bad.yaml", &policy("bad", "  scheduel: {}\n"))]);
    std::fs::write(desk.0.path().join("key"), [7; 32]).unwrap();
    let with = |args: &[&str]| desk.run(&[&["--config", "c", "--key-file", "key", "--state", "state"], args].concat());
    for args in [&["init", "--no-recovery-key"][..], &["backup", "c", "--name", "data"], &["verify"]] {
        let (code, out, err) = with(args);
        assert!(code == 0 && err.contains("warning: unknown field `scheduel`"), "{args:?}: {out}{err}");
    }
    let (code, _, err) = with(&["restore", "latest", "--target", "back"]);
    assert!(code == 0 && err.contains("c/bad.yaml:7:3"), "{err}");
    assert!(!with(&["-q", "snapshots"]).2.contains("scheduel"));
    for strict in [&["run", "bad"][..], &["policy", "check"], &["policy", "next"]] {
        assert_eq!(with(strict).0, 2, "{strict:?}");
    }
    // What cannot be read at all may be another repository: then its name is asked for.
    let path = |name: &str| desk.0.path().join("c").join(name);
    let pipe = || assert!(Command::new("mkfifo").arg(path("x.yaml")).status().unwrap().success());
    let kinds: [(&str, &dyn Fn()); 4] = [
        ("no YAML", &|| desk.write("c/x.yaml", "{")),
        ("this is no file", &pipe),
        ("not found", &|| std::os::unix::fs::symlink("nowhere", path("x.yaml")).unwrap()),
        ("without kind", &|| desk.write("c/x.yaml", &repository().replace("kind:", "kin:"))),
    ];
    for (what, make) in kinds {
        make();
        assert_eq!(with(&["policy", "check"]).0, 2, "{what}");
        let (code, _, err) = with(&["snapshots"]);
        assert!(code == 2 && err.contains("--repository main") && err.contains(what), "{what}: {err}");
        let (code, out, err) = with(&["snapshots", "--repository", "main"]);
        assert!(code == 0 && out.contains("data") && err.contains(what), "{what}: {out}{err}");
        std::fs::remove_file(path("x.yaml")).unwrap();
    }
    // Nor does it go on with one of two that are named alike, or with one that is wrong itself.
    desk.write("c/x.yaml", &repository());
    assert_eq!(with(&["snapshots", "--repository", "main"]).0, 2);
    std::fs::remove_file(path("x.yaml")).unwrap();
    desk.write("c/main.yaml", &repository().replace("spec:", "spek:"));
    assert_eq!(with(&["snapshots", "--repository", "main"]).0, 2);
}

#[test]
fn the_effective_policy_is_a_policy() {
    let desk =
        Desk::new(&[("a.yaml", &(repository() + &policy("home", "  schedule: {full: '@daily', jitter: 90m}\n")))]);
    let shown = desk.ok(&["policy", "show", "home", "--config", "a.yaml"]);
    for part in ["repository: main", "jitter: \"1h30m\"", "timeZone: UTC", "concurrency: forbid", "name: home"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    desk.write("b.yaml", &format!("{}---\n{shown}", repository()));
    assert_eq!(desk.ok(&["policy", "show", "--config", "b.yaml"]), shown);
    assert_eq!(desk.ok(&["policy", "diff", "a.yaml", "b.yaml"]), "the configurations mean the same\n");
    assert!(desk.run(&["policy", "show", "hme", "--config", "a.yaml"]).2.contains("did you mean `home`?"));
}

/// An incremental every hour, a full at three; nothing from eight to eleven.
#[test]
fn the_calendar_of_coming_runs() {
    let spec = "  schedule: {incremental: 0 * * * *, full: 0 3 * * *, blackouts: [{start: 0 8 * * *, duration: 3h}]}\n";
    let desk = Desk::new(&[("holdfast.yaml", &(repository() + &policy("home", spec)))]);
    let next = |args: &[&str]| -> Vec<Value> {
        let out = desk.ok(&[&["--json", "policy", "next"], args].concat());
        let value: Value = serde_json::from_str(&out).unwrap();
        value["runs"].as_array().unwrap().clone()
    };
    let runs = next(&["--count", "63"]);
    assert_eq!(runs.len(), 63);
    let hour = |run: &Value, field: &str| run[field].as_str().unwrap()[11..13].parse::<u32>().unwrap();
    for run in &runs {
        let (at, task) = (hour(run, "start"), run["task"].as_str().unwrap());
        assert!(!(8..11).contains(&at), "{run}");
        assert_eq!(task == "full", at == 3, "{run}");
        let gave_way = run["instead_of"].as_array().unwrap();
        match at {
            3 => assert_eq!(gave_way[0]["task"], "incremental"),
            11 => assert!((1..=3).contains(&gave_way.len()) || runs[0] == *run, "{run}"),
            _ => assert!(gave_way.is_empty(), "{run}"),
        }
    }
    // 21 a day: 24 less three that become one with the fourth.
    let days = next(&["--days", "10"]);
    assert!((209..=212).contains(&days.len()), "{}", days.len());
    let shown = desk.ok(&["policy", "next", "home", "--days", "1"]);
    assert!(shown.contains("full") && shown.contains("instead of the incremental"), "{shown}");
    assert!(shown.contains("instead of 3 others"), "{shown}");
    assert!(desk.run(&["policy", "next", "hom"]).2.contains("did you mean `home`?"));
}

#[test]
fn what_a_change_does() {
    let old = policy("home", "  schedule: {incremental: 0 2 * * *, full: 0 2 * * 0}\n  retention: {daily: 30}\n");
    let new = old.replace("0 2 * * 0", "0 4 * * 0").replace("daily: 30", "daily: 10");
    let desk = Desk::new(&[("old.yaml", &(repository() + &old)), ("new.yaml", &(repository() + &new))]);
    desk.write("more.yaml", &(repository() + &new + &policy("more", "")));
    let told = desk.ok(&["policy", "diff", "old.yaml", "new.yaml"]);
    for part in [
        "~ BackupPolicy/home: retention.daily: 30 -> 10",
        "~ BackupPolicy/home: schedule.full: 0 2 * * 0 -> 0 4 * * 0",
        "7 runs in the next 7 days before, 8 after",
        "30 are kept now and 10 will be; 20 no more",
    ] {
        assert!(told.contains(part), "{part}: {told}");
    }
    assert!(desk.ok(&["policy", "diff", "new.yaml", "more.yaml"]).starts_with("+ BackupPolicy/more\n"));
    assert!(desk.ok(&["policy", "diff", "more.yaml", "new.yaml"]).starts_with("- BackupPolicy/more\n"));
}

#[test]
fn a_warning_has_figures_and_is_no_mistake() {
    let spec = "  schedule: {incremental: 0 2 * * 1-5, full: 0 2 1 * *}\n  objectives: {rpo: 26h}\n";
    let desk = Desk::new(&[("holdfast.yaml", &(repository() + &policy("home", spec)))]);
    let told = desk.ok(&["policy", "check"]);
    let warned: Vec<&str> = told.lines().filter(|line| line.starts_with("warning: ")).collect();
    assert_eq!(warned.len(), 1, "{told}");
    for part in ["the rpo 1d2h will be missed", "leaves 3d", "holdfast.yaml:14:21: spec.objectives.rpo"] {
        assert!(warned[0].contains(part), "{part}: {told}");
    }
}

#[test]
fn a_configuration_whose_link_is_swapped_is_read_as_a_whole() {
    const FILES: usize = 40;
    let desk = Desk::new(&[]);
    for version in ["old", "new"] {
        let repository = format!(
            "apiVersion: holdfast.io/v1alpha1\nkind: Repository\nmetadata: {{name: {version}}}\nspec: {{regions: \
             [{{name: a, url: /srv/{version}}}]}}\n"
        );
        desk.write(&format!("{version}/repository.yaml"), &repository);
        for n in 0..FILES {
            // Half of one and half of the other names repositories that are not there.
            let policy = format!(
                "apiVersion: holdfast.io/v1alpha1\nkind: BackupPolicy\nmetadata: {{name: p{n}}}\nspec: {{repository: \
                 {version}, sources: [{{name: s{n}, paths: [/srv]}}]}}\n"
            );
            desk.write(&format!("{version}/p{n}.yaml"), &policy);
        }
    }
    let at = desk.0.path().to_owned();
    let link = |to: &str, name: &str| std::os::unix::fs::symlink(to, at.join(name)).unwrap();
    link("old", "..data");
    std::fs::create_dir(at.join("config")).unwrap();
    let names = (0..FILES).map(|n| format!("p{n}.yaml")).chain(["repository.yaml".into()]);
    names.for_each(|name| link(&format!("../..data/{name}"), &format!("config/{name}")));
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for version in ["new", "old"].iter().cycle() {
                if stop.load(std::sync::atomic::Ordering::Relaxed) {
                    return;
                }
                link(version, "..next");
                std::fs::rename(at.join("..next"), at.join("..data")).unwrap();
                // As long as a reading may take: some are disturbed, and not every time.
                let rest = std::time::Duration::from_millis(2);
                let _ = crossbeam_channel::after(rest).recv();
            }
        });
        let mut wrong = Vec::new();
        for _ in 0..60 {
            let (code, out, said) = desk.run(&["policy", "check", "--config", "config"]);
            if code != 0 && !said.contains("changes whenever it is read") {
                wrong.push(format!("{code}: {out}{said}"));
            }
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(wrong.is_empty(), "{} readings: {}", wrong.len(), wrong[0]);
    });
}
