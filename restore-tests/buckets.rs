//! Buckets that are backed up, and restored into: a real server for what is right, a stand-in for what goes wrong.

mod faults;
mod keys;
mod models;
mod stand_in;

use crate::harness::{Bench, noise};
use crate::stores::servers::{self, READER, Server, WRITER};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// A bench with a repository, and somebody's credentials.
struct World {
    bench: Bench,
    credentials: (&'static str, &'static str),
}

impl World {
    fn new() -> World {
        World { bench: Bench::with_key(&["a"]), credentials: WRITER }
    }

    fn run(&self, args: &[&str]) -> (i32, Value) {
        let mut command = self.bench.command(&["--json", "--quiet"]);
        let (id, secret) = self.credentials;
        command.args(args).env("AWS_ACCESS_KEY_ID", id).env("AWS_SECRET_ACCESS_KEY", secret);
        command.env("AWS_SHARED_CREDENTIALS_FILE", "/dev/null").env("AWS_CONFIG_FILE", "/dev/null");
        let out = command.output().unwrap();
        let printed = String::from_utf8_lossy(&out.stdout).into_owned();
        let told = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(!printed.contains(secret) && !told.contains(secret), "{printed}\n{told}");
        let last = printed.lines().last().unwrap_or_default();
        let value = serde_json::from_str(last).unwrap_or_else(|e| panic!("{args:?}: {e}: {printed}\n{told}"));
        (out.status.code().unwrap_or(-1), value)
    }

    #[track_caller]
    fn ok(&self, args: &[&str]) -> Value {
        let (code, value) = self.run(args);
        assert_eq!(code, 0, "{args:?}: {value:#}");
        value
    }

    /// Restores the newest snapshot into a new folder; what its files hold.
    #[track_caller]
    fn restored(&self, name: &str, code: i32) -> BTreeMap<String, Vec<u8>> {
        let target = self.bench.path(name);
        let (ended, value) = self.run(&["restore", "latest", "--target", target.to_str().unwrap()]);
        assert_eq!(ended, code, "{value:#}");
        let mut found = BTreeMap::new();
        look(&target, &target, &mut found);
        found
    }
}

fn look(root: &Path, dir: &Path, found: &mut BTreeMap<String, Vec<u8>>) {
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        let kind = entry.file_type().unwrap();
        assert!(kind.is_dir() || kind.is_file(), "{}", path.display());
        match kind.is_dir() {
            true => look(root, &path, found),
            false => {
                let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                found.insert(name, std::fs::read(&path).unwrap());
            }
        }
    }
}

fn url(server: &Server, rest: &str) -> String {
    format!("s3://{rest}?endpoint=http://127.0.0.1:{}", server.port)
}

fn attribute(path: &Path, name: &str) -> Option<String> {
    let mut value = vec![0; 4096];
    let len = rustix::fs::getxattr(path, name, &mut value[..]).ok()?;
    Some(String::from_utf8_lossy(&value[..len]).into_owned())
}

/// Puts objects: key, bytes, headers. The bytes go by files.
fn put(world: &World, server: &Server, bucket: &str, objects: &[(String, Vec<u8>, Value)]) {
    let dir = world.bench.path("to-put");
    std::fs::create_dir_all(&dir).unwrap();
    let one = |(n, (key, bytes, headers)): (usize, &(String, Vec<u8>, Value))| {
        let file = dir.join(n.to_string());
        std::fs::write(&file, bytes).unwrap();
        json!({"method": "PUT", "key": key, "headers": headers, "file": file})
    };
    let requests: Vec<Value> = objects.iter().enumerate().map(one).collect();
    let answers = servers::requests(server, bucket, &requests);
    assert!(answers.len() == requests.len() && answers.iter().all(|a| a["status"] == 200), "{answers:?}");
    std::fs::remove_dir_all(dir).unwrap();
}

fn plain(key: &str, bytes: &[u8]) -> (String, Vec<u8>, Value) {
    (key.to_owned(), bytes.to_vec(), json!({}))
}

/// A file of tensors, of 1.5 MiB each, between headers of any length.
fn model(pad: usize, tensors: &[u64]) -> Vec<u8> {
    let each = 3 << 19;
    let entries = tensors.iter().enumerate().map(|(n, seed)| {
        let (begin, end) = (n * each, (n + 1) * each);
        format!("\"t{seed}\":{{\"dtype\":\"U8\",\"shape\":[{each}],\"data_offsets\":[{begin},{end}]}}")
    });
    let head = format!("{{{}}}{}", entries.collect::<Vec<_>>().join(","), " ".repeat(pad));
    let mut bytes = (head.len() as u64).to_le_bytes().to_vec();
    bytes.extend(head.into_bytes());
    tensors.iter().for_each(|seed| bytes.extend(noise(*seed, each)));
    bytes
}

/// More keys than a page has, names that need escapes, an empty object, a large one, a model.
fn many() -> Vec<(String, Vec<u8>, Value)> {
    let mut all: Vec<_> =
        (0..1203).map(|n| plain(&format!("m/x/{:02}/f{n:04}", n % 7), format!("content {n}").as_bytes())).collect();
    for key in ["m/x-1", "m/x.json", "m/ä ö+%41&=?#", "m/a b/c d", "m/z/deep/er/still"] {
        all.push(plain(key, key.as_bytes()));
    }
    let headers = json!({"content-type": "application/json", "cache-control": "no-cache", "x-amz-meta-team": "vision"});
    all.push(("m/meta.json".into(), b"{}".to_vec(), headers));
    all.push(plain("m/empty", b""));
    all.push(plain("m/large", &noise(1, 40 << 20)));
    all.push(plain("m/model.safetensors", &model(0, &[11, 12, 13])));
    all.push(plain("other/not-this", b"outside"));
    all
}

#[test]
fn a_prefix_is_backed_up_by_what_changed() {
    let server = servers::seaweed(&["models"]);
    let world = World::new();
    put(&world, &server, "models", &many());
    let source = url(&server, "models/m");
    let first = world.ok(&["backup", &source, "--name", "models"]);
    assert_eq!((&first["files"], &first["files_read"]), (&1212.into(), &1212.into()), "{first:#}");
    let restored = world.restored("first", 0);
    assert_eq!(restored.len(), 1212);
    for (key, bytes, _) in many().iter().filter(|(key, ..)| key.starts_with("m/")) {
        assert!(restored[key.strip_prefix("m/").unwrap()] == *bytes, "{key}");
    }
    let meta = world.bench.path("first/meta.json");
    let kept = ["content-type", "cache-control", "meta.team"].map(|name| attribute(&meta, &format!("user.s3.{name}")));
    let kept: Vec<&str> = kept.iter().flatten().map(String::as_str).collect();
    assert_eq!(kept, ["application/json", "no-cache", "vision"]);
    assert!(attribute(&meta, "user.s3.etag").is_some_and(|etag| etag.len() > 8));

    // Nothing is read that is called as before; within the second of the run at most asked for.
    let second = world.ok(&["backup", &source, "--name", "models"]);
    assert_eq!((&second["files_read"], &second["bytes_read"]), (&0.into(), &0.into()), "{second:#}");
    assert_eq!(second["files_unchanged"], 1212);

    let told_new = json!({"x-amz-meta-new": "1"});
    let changed =
        [plain("m/x.json", b"changed"), plain("m/new", b"new"), ("m/large".into(), noise(1, 40 << 20), told_new)];
    put(&world, &server, "models", &changed);
    // What the store says of it before it is asked by a backup: a store that lost the change would be no fault of one.
    let large = &told(&server, "models", &["m/large".to_owned()])[0];
    assert_eq!(large["headers"]["x-amz-meta-new"], "1", "{}", large["headers"]);
    servers::each(&server, "models", &["delete m/x-1".to_owned()]);
    let third = world.ok(&["backup", &source, "--name", "models"]);
    assert_eq!((&third["files_read"], &third["files"]), (&2.into(), &1212.into()), "{third:#}");
    let restored = world.restored("third", 0);
    assert!(restored["x.json"] == b"changed" && restored["new"] == b"new" && !restored.contains_key("x-1"));
    assert!(restored["large"] == noise(1, 40 << 20));
    let large = world.bench.path("third/large");
    assert_eq!(
        attribute(&large, "user.s3.meta.new").as_deref(),
        Some("1"),
        "its content was not read for that: {third:#}"
    );

    // `full` trusts nothing, and stores nothing twice; what is left out is not read.
    let full = world.ok(&["backup", &source, "--name", "models", "--mode", "full", "--exclude", "x"]);
    // But pages of the tree, of which the root's is another one.
    assert!(full["bytes_new"].as_u64() < Some(64 << 10), "{full:#}");
    assert!(full["files_read"] == 9 && full["excluded"] == 1203, "{full:#}");
}

#[test]
fn tensors_of_a_bucket_and_of_a_folder_share_their_chunks() {
    let server = servers::seaweed(&["models"]);
    let world = World::new();
    let folder = world.bench.path("folder");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("one.safetensors"), model(0, &[11, 12, 13])).unwrap();
    world.ok(&["backup", folder.to_str().unwrap()]);
    // Other headers, another order: nothing but tensors is the same.
    put(&world, &server, "models", &[plain("hub/other.safetensors", &model(777, &[13, 11, 12, 14]))]);
    let report = world.ok(&["backup", &url(&server, "models/hub")]);
    let new = report["bytes_new"].as_u64().unwrap();
    assert!((3 << 19..(3 << 19) + 8000).contains(&new), "{report:#}");
    assert!(world.restored("back", 0)["other.safetensors"] == model(777, &[13, 11, 12, 14]));
}

/// Objects with all that they have, as the store tells it.
fn told(server: &Server, bucket: &str, keys: &[String]) -> Vec<Value> {
    let requests: Vec<Value> = keys.iter().map(|key| json!({"method": "GET", "key": key})).collect();
    let mut answers = servers::requests(server, bucket, &requests);
    for answer in &mut answers {
        assert_eq!(answer["status"], 200, "{answer}");
        let headers = answer["headers"].as_object_mut().unwrap();
        headers.retain(|name, _| {
            name.starts_with("x-amz-meta")
                || ["content-type", "cache-control", "content-length"].contains(&name.as_str())
        });
    }
    answers
}

#[test]
fn a_snapshot_goes_back_into_a_bucket_as_it_was() {
    let server = servers::seaweed(&["models", "other"]);
    let world = World::new();
    put(&world, &server, "models", &many());
    put(&world, &server, "models", &[("m/mark/".into(), Vec::new(), json!({"x-amz-meta-kind": "mark"}))]);
    world.ok(&["backup", &url(&server, "models/m"), "--name", "models"]);
    let target = url(&server, "other/back/again");
    let report = world.ok(&["restore", "latest", "--to", &target]);
    assert_eq!(report["files"], 1212, "{report:#}");
    let keys: Vec<String> = many().into_iter().map(|(key, ..)| key).filter(|key| key.starts_with("m/")).collect();
    let back: Vec<String> = keys.iter().map(|key| key.replacen("m/", "back/again/", 1)).collect();
    assert_eq!(told(&server, "models", &keys), told(&server, "other", &back));
    // What came back holds what was there; large objects have other names of their content, for they were put in parts.
    let again = world.ok(&["backup", &target, "--name", "models-again"]);
    // New are pages of the tree, which have the small ones in them, too.
    assert!(again["bytes_new"].as_u64() < Some(1 << 20) && again["files"] == 1212, "{again:#}");

    let (code, value) = world.run(&["restore", "latest", "--to", &target]);
    assert!(code == 11 && value.to_string().contains("objects are there already"), "{code} {value:#}");
    world.ok(&["restore", "latest", "--to", &target, "--overwrite"]);
    // Of a folder a bucket keeps the files, and says what it cannot keep.
    let folder = world.bench.path("folder");
    std::fs::create_dir_all(folder.join("hollow")).unwrap();
    std::fs::write(folder.join("file"), b"of a folder").unwrap();
    std::os::unix::fs::symlink("file", folder.join("link")).unwrap();
    world.ok(&["backup", folder.to_str().unwrap(), "--name", "folder"]);
    let (code, value) = world.run(&["restore", "latest", "--to", &url(&server, "other/folder")]);
    assert!(code == 3 && value["errors"][0]["path"] == "link" && value["errors_total"] == 1, "{code} {value:#}");
    told(&server, "other", &["folder/file".into(), "folder/hollow/".into()]);
    for more in [&["--revision", "3"][..], &["--check"]] {
        let (code, value) =
            world.run(&[&["restore", "latest", "--to", url(&server, "other/x").as_str()][..], more].concat());
        assert_eq!(code, 2, "{value:#}");
    }
}

#[test]
fn buckets_that_cannot_be_used_say_why() {
    let server = servers::seaweed(&["models", "empty"]);
    let mut world = World::new();
    put(&world, &server, "models", &[plain("m/a", b"some")]);
    let source = url(&server, "models/m");
    let refused = |world: &World, args: &[&str], code: i32, said: &str| {
        let (ended, value) = world.run(args);
        assert!(ended == code && value.to_string().contains(said), "{args:?}: {ended} {value:#}");
    };
    refused(&world, &["backup", &url(&server, "nowhere/m")], 2, "no such bucket");
    refused(&world, &["backup", &url(&server, "empty")], 1, "there is no object below it");
    refused(&world, &["backup", &url(&server, "models/m/a")], 1, "there is no object below it");
    refused(&world, &["backup", "gs://models/m"], 2, "only buckets of S3");
    refused(&world, &["backup", &source, "/tmp"], 2, "a source of its own");
    refused(&world, &["backup", &source, "--clone"], 2, "say nothing of a bucket");
    refused(&world, &["backup", "s3://models/a//b"], 2, "the prefix is no path");
    world.credentials = READER;
    world.ok(&["backup", &source]);
    refused(&world, &["restore", "latest", "--to", "s3://models/.."], 2, "the prefix is no path");
    refused(&world, &["restore", "latest", "--to", &url(&server, "empty/x")], 3, "permission denied");
    world.credentials = (WRITER.0, "no-such-secret");
    refused(&world, &["backup", &source], 1, "does not know these credentials");
    refused(&world, &["restore", "latest", "--to", &url(&server, "empty/x")], 1, "does not know these credentials");
}

#[test]
fn versions_and_policies() {
    let server = servers::seaweed(&[]);
    servers::make_lockable_bucket(&server, "versioned");
    let mut world = World::new();
    put(&world, &server, "versioned", &[plain("m/a", b"first"), plain("m/skip/b", b"not this")]);
    put(&world, &server, "versioned", &[plain("m/a", b"second")]);
    let source = url(&server, "versioned/m");
    let region = world.bench.region("a");
    let text = format!(
        "apiVersion: holdfast.io/v1alpha1\nkind: Repository\nmetadata: {{name: main}}\nspec:\n  regions: [{{name: a, url: {}}}]\n---\n\
         apiVersion: holdfast.io/v1alpha1\nkind: BackupPolicy\nmetadata: {{name: daily}}\nspec:\n  \
         sources: [{{name: models, bucket: '{source}', exclude: [skip]}}]\n",
        region.display()
    );
    let config = world.bench.path("holdfast.yaml");
    std::fs::write(&config, text).unwrap();
    world.bench.regions.clear();
    let (code, value) = world.run(&["--config", config.to_str().unwrap(), "run", "daily"]);
    assert_eq!(code, 0, "{value:#}");
    let restored = world.restored("back", 0);
    assert_eq!(restored.into_iter().collect::<Vec<_>>(), [("a".to_owned(), b"second".to_vec())]);
    let versions = servers::versions(&server, "versioned");
    let newest = versions.iter().find(|version| version.key == "m/a" && version.latest).unwrap();
    assert_eq!(attribute(&world.bench.path("back/a"), "user.s3.version-id").as_deref(), Some(&newest.id[..]));
    let listed = world.ok(&["snapshots"]);
    assert!(listed.to_string().contains(&source), "{listed:#}");
}
