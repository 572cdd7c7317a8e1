//! Whole repositories on object stores, through the program.

use super::proxy::Proxy;
use super::servers::{self, READER, Server, WRITER};
use crate::crash::{fill, text};
use crate::harness::{Bench, assert_same};
use serde_json::Value;
use std::path::PathBuf;

/// A bench with regions in buckets.
pub struct World {
    pub bench: Bench,
    pub urls: Vec<(&'static str, String)>,
    pub source: PathBuf,
    /// Variables besides the credentials of S3.
    pub variables: Vec<(&'static str, String)>,
}

impl World {
    pub fn new(urls: Vec<(&'static str, String)>) -> World {
        let mut bench = Bench::in_memory(&[]);
        bench.make_key();
        let source = bench.path("source");
        fill(&source, 1, 30, 200_000);
        // Another profile than the environment's keys, for who names it.
        let profile = format!("[other]\naws_access_key_id = {}\naws_secret_access_key = {}\n", WRITER.0, WRITER.1);
        std::fs::write(bench.path("credentials"), profile).unwrap();
        World { bench, urls, source, variables: Vec::new() }
    }

    /// Runs with some of the regions; exit code and what was printed.
    pub fn run(&self, regions: &[&str], args: &[&str]) -> (i32, Value) {
        self.run_as(WRITER, regions, args)
    }

    fn run_as(&self, (id, secret): (&str, &str), regions: &[&str], args: &[&str]) -> (i32, Value) {
        let mut command = self.bench.command(&[]);
        for (name, url) in self.urls.iter().filter(|(name, _)| regions.contains(name)) {
            command.arg("--region").arg(format!("{name}={url}"));
        }
        command.arg("--json").arg("--quiet").args(args);
        command.env("AWS_ACCESS_KEY_ID", id).env("AWS_SECRET_ACCESS_KEY", secret);
        command.env("AWS_SHARED_CREDENTIALS_FILE", self.bench.path("credentials"));
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        let out = command.output().unwrap();
        let printed = String::from_utf8_lossy(&out.stdout).into_owned();
        let told = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(!printed.contains(secret) && !told.contains(secret), "{printed}\n{told}");
        let last = printed.lines().last().unwrap_or_default();
        let value = serde_json::from_str(last).unwrap_or_else(|e| panic!("{args:?}: {e}: {printed}\n{told}"));
        (out.status.code().unwrap_or(-1), value)
    }

    #[track_caller]
    pub fn ok(&self, regions: &[&str], args: &[&str]) -> Value {
        let (code, value) = self.run(regions, args);
        assert_eq!(code, 0, "{args:?}: {value:#}");
        value
    }

    /// The newest snapshot, from these regions, is the source.
    pub fn restores(&self, regions: &[&str], target: &str) {
        self.ok(regions, &["restore", "latest", "--target", target, "--no-repair"]);
        assert_same(&self.source, &self.bench.path(target));
    }
}

pub fn requests(value: &Value, region: &str, kind: &str) -> u64 {
    let all = value["requests"].as_array().unwrap_or_else(|| panic!("no requests in {value:#}"));
    let of = all.iter().find(|of| of["region"] == region).unwrap_or_else(|| panic!("no {region} in {value:#}"));
    of[kind].as_u64().unwrap()
}

pub fn url(port: u16, rest: &str) -> String {
    format!("s3://{rest}{}endpoint=http://127.0.0.1:{port}", if rest.contains('?') { "&" } else { "?" })
}

pub const ALL: [&str; 3] = ["a", "b", "c"];

#[test]
fn three_regions_of_which_one_dies_in_the_middle() {
    let server = servers::seaweed(&["first", "second"]);
    let proxy = Proxy::before(server.port);
    let folder = tempfile::tempdir().unwrap();
    let world = World::new(vec![
        ("a", url(server.port, "first/backups/main")),
        ("b", url(proxy.port, "second?profile=other")),
        ("c", folder.path().join("c").display().to_string()),
    ]);
    world.ok(&ALL, &["init", "--no-recovery-key"]);
    let source = text(&world.source);
    let first = world.ok(&ALL, &["backup", source]);
    for region in ALL {
        assert!(requests(&first, region, "put") >= 3, "{first:#}");
        assert_eq!(requests(&first, region, "retries"), 0, "{first:#}");
    }
    let again = world.ok(&ALL, &["backup", source]);
    assert_eq!(again["bytes_new"], 0, "{again:#}");
    world.ok(&ALL, &["verify", "--level", "content"]);
    ALL.iter().for_each(|region| world.restores(&[region], &format!("from-{region}")));

    fill(&world.source, 2, 40, 2_000_000);
    proxy.kill_after("PUT", "packs/", 1);
    let (code, value) = world.run(&ALL, &["--copies-min", "2", "backup", source]);
    assert_eq!((code, &value["behind"][0]["region"]), (4, &"b".into()), "{value:#}");
    assert!(requests(&value, "b", "retries") > 0, "{value:#}");
    world.restores(&ALL, "without-b");

    proxy.revive();
    let back = world.ok(&ALL, &["backup", source]);
    assert!(back["caught_up"]["objects"].as_u64() > Some(0), "{back:#}");
    world.restores(&["b"], "b-is-back");
    world.ok(&["b"], &["verify", "--level", "content"]);
    refusals(&world, &server);
}

/// Who may not write, and a place that somebody else uses.
fn refusals(world: &World, server: &Server) {
    let (code, value) = world.run_as((WRITER.0, "hunter2"), &["a"], &["snapshots"]);
    let said = value["error"].to_string();
    assert!(code == 1 && said.contains("does not know these credentials") && said.contains("region a"), "{value:#}");
    // Who may only read can look and restore, and is told why he cannot write.
    let (code, value) = world.run_as(READER, &["a"], &["snapshots"]);
    assert_eq!(code, 0, "{value:#}");
    let (code, value) = world.run_as(READER, &["a"], &["backup", text(&world.source)]);
    assert!(code == 1 && value.to_string().contains("permission denied"), "{code} {value:#}");
    let nested = World::new(vec![("a", url(server.port, "first")), ("x", url(server.port, "no-bucket"))]);
    let (code, value) = nested.run(&["a"], &["init", "--no-recovery-key"]);
    assert!(code == 11 && value.to_string().contains("it holds backups"), "{code} {value:#}");
    let (code, value) = nested.run(&["x"], &["init", "--no-recovery-key"]);
    assert!(code == 2 && value.to_string().contains("there is no such bucket"), "{code} {value:#}");
    let (code, value) = world.run(&["a"], &["init", "--no-recovery-key"]);
    assert!(code == 11 && value.to_string().contains("a repository is here already"), "{code} {value:#}");
}

#[test]
fn a_store_that_overwrites_is_refused_by_init() {
    let server = servers::rclone("bucket");
    let world = World::new(vec![("a", url(server.port, "bucket/p"))]);
    let (code, value) = world.run(&["a"], &["init", "--no-recovery-key"]);
    assert_eq!(code, 2, "{value:#}");
    assert!(value["error"]["what"].as_str().unwrap().contains("only if it is absent"), "{value:#}");
    // And leaves nothing behind that would stand in anybody's way.
    let (_, again) = world.run(&["a"], &["init", "--no-recovery-key"]);
    assert_eq!(again["error"]["what"], value["error"]["what"], "{again:#}");
}

#[test]
fn a_weak_region_holds_copies_and_decides_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("strong").to_str().unwrap().to_owned();
    let mut world = World::new(vec![
        ("careless", "gs://bucket/p".into()),
        ("weak", "gs://bucket/p?weak=yes".into()),
        ("other", "gs://bucket/q?weak=yes".into()),
        ("strong", folder),
    ]);
    world.variables.push(("STORAGE_EMULATOR_HOST", format!("127.0.0.1:{}", super::gcs::start_careless())));
    // Neither unasked, nor alone.
    let (code, value) = world.run(&["careless", "strong"], &["init", "--no-recovery-key"]);
    assert!(code == 2 && value.to_string().contains("weak=yes"), "{code} {value:#}");
    std::fs::remove_dir_all(&world.urls[3].1).unwrap();
    let (code, value) = world.run(&["weak", "other"], &["init", "--no-recovery-key"]);
    assert!(code == 11 && value.to_string().contains("none of them may decide"), "{code} {value:#}");
    world.ok(&["weak", "strong"], &["init", "--no-recovery-key"]);
    let list = world.ok(&["weak", "strong"], &["region", "list"]);
    let of = |name: &str| list["members"].as_array().unwrap().iter().find(|m| m["name"] == name).unwrap().clone();
    assert_eq!((&of("weak")["home"], &of("weak")["weak"]), (&false.into(), &true.into()), "{list:#}");
    assert_eq!((&of("strong")["home"], &of("strong")["weak"]), (&true.into(), &false.into()), "{list:#}");
    let source = text(&world.source).to_owned();
    world.ok(&["weak", "strong"], &["backup", &source]);
    // It is weak because the repository says so, whatever a configuration says.
    world.ok(&["careless", "strong"], &["backup", "--full", &source]);
    world.restores(&["weak"], "from-weak");
    world.ok(&["weak"], &["verify", "--level", "content"]);
    let (code, value) = world.run(&["weak"], &["backup", &source]);
    assert!(code != 0 && value.to_string().contains("none of them may decide"), "{code} {value:#}");
    // The only one that decides cannot go; a second weak one can come.
    let (code, value) = world.run(&["weak", "strong"], &["--copies-min", "1", "region", "remove", "strong"]);
    assert!(code == 11 && value.to_string().contains("none of them may decide"), "{code} {value:#}");
    world.ok(&["weak", "strong"], &["region", "add", "other=gs://bucket/q?weak=yes"]);
    world.restores(&["other"], "from-other");
    pruned(&world, &["weak", "other", "strong"]);
}

/// What is forgotten goes from weak regions too.
fn pruned(world: &World, all: &[&str]) {
    for entry in std::fs::read_dir(&world.source).unwrap().flatten() {
        let path = entry.path();
        let _ = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
    }
    crate::crash::fill(&world.source, 300, 6, 50_000);
    let last = world.ok(all, &["backup", text(&world.source)]);
    let shown = world.ok(all, &["snapshots"]);
    for sid in shown["snapshots"].as_array().unwrap().iter().map(|s| &s["id"]).filter(|sid| **sid != last["snapshot"]) {
        world.ok(all, &["forget", sid.as_str().unwrap()]);
    }
    let done = world.ok(all, &crate::prune::NOW);
    let removed: Vec<u64> =
        done["regions"].as_array().unwrap().iter().map(|r| r["removed"]["packs"].as_u64().unwrap()).collect();
    assert!(removed.len() == all.len() && removed.iter().all(|count| *count > 0), "{done:#}");
    // Runs with fewer regions are recorded in fewer.
    let (code, value) = world.run(all, &["verify", "--level", "content"]);
    assert!(matches!(code, 0 | 4) && value["findings"].as_array().unwrap().is_empty(), "{value:#}");
    all.iter().for_each(|region| world.restores(&[region], &format!("pruned-{region}")));
}

/// The other way about: where the repository decides, no configuration can make a machine put what replaces.
#[test]
fn a_region_is_what_the_repository_says_that_it_is() {
    let mut world = World::new(vec![("said", "gs://bucket/p".into()), ("called", "gs://bucket/p?weak=yes".into())]);
    world.variables.push(("STORAGE_EMULATOR_HOST", format!("127.0.0.1:{}", super::gcs::start())));
    world.ok(&["said"], &["init", "--no-recovery-key"]);
    world.ok(&["called"], &["backup", text(&world.source)]);
    world.restores(&["said"], "target");
}

#[test]
fn a_store_that_reads_no_ranges_is_not_even_a_weak_region() {
    let server = servers::rclone("bucket");
    let folder = tempfile::tempdir().unwrap();
    let world = World::new(vec![
        ("a", folder.path().join("a").to_str().unwrap().into()),
        ("b", url(server.port, "bucket/p?weak=yes")),
    ]);
    let (code, value) = world.run(&["a", "b"], &["init", "--no-recovery-key"]);
    assert!(code == 2 && value.to_string().contains("parts of objects"), "{code} {value:#}");
}
