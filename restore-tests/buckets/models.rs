//! Models in buckets: judged while they are read, by what was stored and nothing else; held to that when they are put back.

use super::stand_in::{Act, StandIn};
use super::{World, attribute, model, plain, put, url};
use crate::harness::{files, noise};
use crate::hostile::craft::{Villain, list};
use crate::stores::servers;
use crate::trust::{pickles, signatures};
use holdfast::format::snapshot::Counts;
use holdfast::format::tree::{Entry, EntryType, Item, Xattr};
use holdfast::model::recorded::{ATTRIBUTE, Recorded};
use holdfast::model::verdict::{Report, Sha256};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;

fn hash(bytes: &[u8]) -> String {
    Sha256::of(&mut &bytes[..]).unwrap().hex()
}

fn figure(value: &Value, name: &str) -> u64 {
    value[name].as_u64().unwrap_or_else(|| panic!("no {name}: {value:#}"))
}

/// The verdicts that stand in the newest snapshot, by path.
fn verdicts(world: &World) -> BTreeMap<String, Value> {
    let said = world.run(&["model", "check", "--snapshot", "latest"]).1;
    let files = said["files"].as_array().unwrap_or_else(|| panic!("{said:#}"));
    files.iter().map(|file| (file["path"].as_str().unwrap().to_owned(), file.clone())).collect()
}

/// Paths of what was complained of, and whether it was refused.
fn complaints(done: &Value) -> Vec<(String, bool)> {
    let all = done["verdicts"]["complaints"].as_array().unwrap_or_else(|| panic!("{done:#}"));
    all.iter().map(|c| (c["path"].as_str().unwrap().to_owned(), c["refused"] == true)).collect()
}

/// A pickle with so many bytes that it makes and drops again, before it calls what is named.
fn large_pickle(bytes: usize, module: &str, name: &str) -> Vec<u8> {
    let len = u32::try_from(bytes).unwrap().to_le_bytes();
    let call = format!("c{module}\n{name}\n)R.");
    [&b"\x80\x03B"[..], &len, &noise(3, bytes), b"0", call.as_bytes()].concat()
}

/// Objects of all ways in which content is read: in the entry, whole, in turns, by several hands, by tensors.
fn all_kinds() -> BTreeMap<&'static str, Vec<u8>> {
    let mut cut_short = model(0, &[21, 22]);
    cut_short.truncate(2 << 20);
    let mut all = BTreeMap::from([
        ("empty", Vec::new()),
        ("tiny.pkl", pickles::by_values("collections", "OrderedDict")),
        ("bad.pkl", pickles::by_lines("os", "system")),
        ("whole", noise(1, 200_000)),
        ("large/bad.pkl", large_pickle(700_000, "os", "system")),
        ("large/good.pkl", large_pickle(700_000, "collections", "OrderedDict")),
        ("large/shared", noise(2, 40 << 20)),
        ("tensors/model.safetensors", model(0, &[11, 12, 13])),
        ("tensors/short.safetensors", cut_short),
        ("tensors/half.gguf", b"GGUF and then nothing that is a header".to_vec()),
    ]);
    let sums = format!("{}  tiny.pkl\n{}  large/shared\n", hash(&all["tiny.pkl"]), hash(&all["large/shared"]));
    all.insert("SHA256SUMS", sums.into_bytes());
    all
}

#[test]
fn models_of_a_bucket_are_judged_and_keep_their_verdicts() {
    let (server, world, all) = (servers::seaweed(&["models", "other"]), World::new(), all_kinds());
    let objects: Vec<_> = all.iter().map(|(key, bytes)| plain(&format!("m/{key}"), bytes)).collect();
    put(&world, &server, "models", &objects);
    let source = format!("model:{}", url(&server, "models/m"));
    let backup = |more: &[&str]| world.run(&[&["backup", &source], more].concat());
    let (code, first) = backup(&[]);
    assert_eq!((code, figure(&first, "files_read")), (0, all.len() as u64), "{first:#}");
    assert!(first["source"].as_str().unwrap().starts_with("model:s3://models/m?endpoint="), "{first:#}");
    let counts = ["none", "safe", "unknown", "unsafe"].map(|grade| figure(&first["verdicts"], grade));
    assert_eq!(counts, [7, 2, 0, 2], "{first:#}");
    let both = vec![("bad.pkl".to_owned(), false), ("large/bad.pkl".to_owned(), false)];
    assert_eq!(complaints(&first), both, "{first:#}");
    let malformed = first["verdicts"]["malformed"].as_array().unwrap();
    let malformed: Vec<&str> = malformed.iter().map(|one| one["path"].as_str().unwrap()).collect();
    assert_eq!(malformed, ["tensors/half.gguf", "tensors/short.safetensors"], "{first:#}");
    let stored = verdicts(&world);
    for (path, bytes) in &all {
        assert_eq!(stored[*path]["sha256"], hash(bytes), "{path}");
    }
    assert_eq!((&stored["tiny.pkl"]["sums"], &stored["large/shared"]["sums"]), (&"same".into(), &"same".into()));
    assert_eq!(stored["large/bad.pkl"]["findings"][0]["global"], "os.system", "{stored:#?}");

    // Nothing is read again, and everything is known still; also where only what else is said of an object is another.
    let again = [("m/tiny.pkl".to_owned(), all["tiny.pkl"].clone(), json!({"x-amz-meta-team": "vision"}))];
    put(&world, &server, "models", &again);
    let (code, second) = backup(&[]);
    assert_eq!((code, figure(&second, "files_read"), figure(&second, "bytes_read")), (0, 0, 0), "{second:#}");
    assert_eq!((&second["verdicts"], verdicts(&world)), (&first["verdicts"], stored));
    assert_eq!(backup(&["--full"]).1["verdicts"], first["verdicts"]);

    // What came back is what was recorded, in a folder as in a bucket, and the verdicts stay behind.
    let target = world.bench.path("back");
    let done = world.ok(&["restore", "latest", "--target", target.to_str().unwrap()]);
    assert_eq!(figure(&done, "checked"), all.len() as u64, "{done:#}");
    assert!(attribute(&target.join("tiny.pkl"), "user.holdfast.verdict").is_none());
    assert_eq!(attribute(&target.join("tiny.pkl"), "user.s3.meta.team").as_deref(), Some("vision"));
    assert!(files(&target).iter().all(|path| {
        let name = path.strip_prefix(&target).unwrap().to_str().unwrap();
        std::fs::read(path).unwrap() == all[name]
    }));
    let to = url(&server, "other/back");
    let done = world.ok(&["restore", "latest", "--to", &to]);
    assert_eq!((figure(&done, "checked"), figure(&done, "files")), (all.len() as u64, all.len() as u64), "{done:#}");
    let copied = world.ok(&["backup", &format!("model:{to}"), "--name", "copy"]);
    assert_eq!(copied["verdicts"], first["verdicts"], "the same objects are judged the same");

    // What changed is judged anew; rules are held to, and a refused snapshot is stored and marked.
    put(&world, &server, "models", &[plain("m/tiny.pkl", &pickles::by_lines("os", "system"))]);
    let (code, third) = backup(&["--trust-pickle", "refuse"]);
    assert_eq!((code, figure(&third, "files_read"), figure(&third["verdicts"], "unsafe")), (11, 1, 3), "{third:#}");
    assert!(complaints(&third).contains(&("SHA256SUMS".to_owned(), false)), "{third:#}");
    assert!(third["snapshot"].is_string(), "{third:#}");
    let (code, refused) = world.run(&["restore", "latest", "--to", &url(&server, "other/refused")]);
    assert_eq!(code, 11, "{refused:#}");
}

#[test]
fn tensors_of_a_bucket_of_models_share_their_chunks_with_a_folder() {
    let (server, world) = (servers::seaweed(&["models"]), World::new());
    let folder = world.bench.path("folder");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("one.safetensors"), model(0, &[11, 12, 13])).unwrap();
    world.ok(&["backup", &format!("model:{}", folder.display())]);
    put(&world, &server, "models", &[plain("hub/other.safetensors", &model(777, &[13, 11, 12, 14]))]);
    let report = world.ok(&["backup", &format!("model:{}", url(&server, "models/hub"))]);
    let new = figure(&report, "bytes_new");
    assert!((3 << 19..(3 << 19) + 8000).contains(&new), "{report:#}");
}

/// One prefix was backed up as objects before, and is again: a verdict is neither taken for granted nor left behind.
#[test]
fn a_bucket_that_changes_its_kind_is_read_anew() {
    let store = StandIn::start(&[(b"p/a", b"some"), (b"p/b", &noise(1, 300_000))]);
    let world = World::new();
    for models in [false, true, false, true] {
        let source = format!("{}{}", if models { "model:" } else { "" }, store.url("p"));
        let done = world.ok(&["backup", &source, "--name", "one"]);
        assert_eq!((figure(&done, "files_read"), done["verdicts"].is_object()), (2, models), "{done:#}");
        let target = world.bench.path("back");
        let _ = std::fs::remove_dir_all(&target);
        let done = world.ok(&["restore", "latest", "--target", target.to_str().unwrap()]);
        assert_eq!(figure(&done, "checked"), if models { 2 } else { 0 }, "{done:#}");
    }
}

/// So much is said of an object that its attributes do not fit into its entry.
#[test]
fn a_verdict_among_many_attributes_is_kept() {
    let store = StandIn::start(&[(b"p/a", b"some"), (b"p/b", &noise(1, 300_000))]);
    store.with(|state| state.meta = Some("m".repeat(9000)));
    let (world, source) = (World::new(), format!("model:{}", store.url("p")));
    let first = world.ok(&["backup", &source]);
    let second = world.ok(&["backup", &source]);
    assert_eq!((figure(&second, "files_read"), &second["verdicts"]), (0, &first["verdicts"]), "{second:#}");
    assert_eq!(verdicts(&world)["a"]["sha256"], hash(b"some"));
    let target = world.bench.path("back");
    let done = world.ok(&["restore", "latest", "--no-xattrs", "--target", target.to_str().unwrap()]);
    assert_eq!(figure(&done, "checked"), 2, "{done:#}");
    let done = world.ok(&["restore", "latest", "--to", &store.url("q")]);
    assert_eq!(figure(&done, "checked"), 2, "{done:#}");
}

#[test]
fn signatures_in_a_bucket_are_held_to() {
    let (server, world, made) = (servers::seaweed(&["models"]), World::new(), signatures::signed());
    let folder = made.path("model");
    let name = |path: &Path| format!("m/{}", path.strip_prefix(&folder).unwrap().to_str().unwrap());
    let objects: Vec<_> = files(&folder).iter().map(|path| plain(&name(path), &std::fs::read(path).unwrap())).collect();
    put(&world, &server, "models", &objects);
    let (source, key) = (format!("model:{}", url(&server, "models/m")), made.path("keys/p256.pub"));
    let require = ["--trust-signature", "require", "--trust-key", key.to_str().unwrap()];
    let backup = || world.run(&[&["backup", &source, "--name", "m"], &require[..]].concat());
    assert_eq!(backup().0, 11, "there is none");
    // By whole files, by parts, and by another hash: the latter two are read again.
    for signature in ["p256", "shards", "blake3"] {
        let bytes = std::fs::read(made.path(&format!("keys/{signature}.sig"))).unwrap();
        put(&world, &server, "models", &[plain("m/model.sig", &bytes)]);
        let (code, done) = backup();
        let standing = &done["verdicts"]["signatures"][0]["standing"];
        assert_eq!((code, standing), (0, &json!("valid")), "{signature}: {done:#}");
        let check = [&["model", "check", "--snapshot", "latest"], &["--signature-key", require[3]][..]].concat();
        assert_eq!(world.run(&check).0, 0, "{signature}");
        let (_, whole, _) = objects.iter().find(|(key, ..)| key == "m/weights.bin").unwrap();
        let mut changed = whole.clone();
        changed[2400] ^= 1;
        put(&world, &server, "models", &[plain("m/weights.bin", &changed)]);
        let (code, done) = backup();
        assert_eq!((code, complaints(&done)), (11, vec![("model.sig".into(), true)]), "{signature}: {done:#}");
        put(&world, &server, "models", &[plain("m/weights.bin", whole)]);
    }
}

/// An object that is judged by a second look is replaced, or refused, at each request in its turn. Whatever comes of it, what
/// is said of a file is true of the bytes that were stored.
#[test]
fn a_second_look_is_at_what_was_stored_or_says_that_it_is_unknown() {
    let good = large_pickle(300_000, "collections", "OrderedDict");
    let evil = large_pickle(300_001, "os", "system");
    let gets = |store: &StandIn| {
        store.with(|state| state.seen.iter().filter(|seen| seen.starts_with("GET /bucket/p/big")).count())
    };
    let backup =
        |world: &World, store: &StandIn| world.ok(&["backup", &format!("model:{}", store.url("p")), "--name", "s"]);
    let undisturbed = StandIn::start(&[(b"p/big", &good)]);
    assert_eq!(figure(&backup(&World::new(), &undisturbed)["verdicts"], "safe"), 1);
    let (mut unknown, mut unread) = (0, 0);
    for n in 0..gets(&undisturbed) {
        for refused in [false, true] {
            let (store, world) = (StandIn::start(&[(b"p/big", &good), (b"p/small", b"small")]), World::new());
            let act = match refused {
                true => Act::Refuse(403, "AccessDenied"),
                false => Act::Put("p/big", evil.clone()),
            };
            store.with(|state| state.script.push(("GET", "/bucket/p/big", n, act)));
            let (code, done) = world.run(&["backup", &format!("model:{}", store.url("p")), "--name", "s"]);
            if refused && code == 3 {
                // It was not even stored.
                continue;
            }
            assert_eq!(code, 0, "{n} {refused}: {done:#}");
            let (stored, said) = (world.restored("back", 0)["big"].clone(), verdicts(&world)["big"].clone());
            assert!(stored == good || stored == evil && !refused, "of two versions nothing is made");
            assert_eq!(said["sha256"], hash(&stored), "{n} {refused}");
            let pickle = said["pickle"].as_str().unwrap();
            assert!(pickle == "unknown" || (pickle == "safe") == (stored == good), "{n} {refused}: {said:#}");
            unknown += usize::from(pickle == "unknown");
            if refused && pickle == "unknown" {
                // Nothing but the look failed: the next run takes another one.
                let next = backup(&world, &store);
                let counts = (figure(&next, "files_read"), figure(&next["verdicts"], "unknown"));
                assert_eq!(counts, (1, 0), "{next:#}");
                assert_eq!(figure(&backup(&world, &store), "files_read"), 0);
                unread += 1;
            }
        }
    }
    assert!(unknown > unread && unread > 0, "each was met: {unknown} {unread}");
}

/// A file of a crafted snapshot, with this verdict.
fn with(name: &[u8], size: usize, of: &[u8]) -> Entry {
    let xattr = Xattr { name: ATTRIBUTE.to_vec().into(), value: Recorded::of(of).value().into() };
    Entry { size: Some(size as u64), mode: 0o644, xattrs: Some(vec![xattr]), ..Entry::bare(name, EntryType::File) }
}

/// Nothing becomes an object, nor stays as parts of one, that is not what was recorded.
#[test]
fn what_is_not_what_was_recorded_does_not_get_into_a_bucket() {
    let (villain, store) = (Villain::new(), StandIn::start(&[(b"x/small-bad", b"was there before")]));
    let parts: Vec<Vec<u8>> = (0..20).map(|n| noise(n, 1 << 20)).collect();
    let counts = Counts { files: 5, dirs: 1, ..Counts::default() };
    let sid = villain.of_kind("model", counts, |craft| {
        let item = |bytes: &Vec<u8>| Item { id: craft.chunk(bytes), len: bytes.len() as u64 };
        let chunks = list(&parts.iter().map(item).collect::<Vec<_>>());
        let whole = parts.concat();
        let hashed = Recorded::new(Sha256::of(&mut &whole[..]).unwrap(), Report::default()).value();
        let large = |name: &[u8]| Entry { chunks: Some(chunks.clone().into()), ..with(name, whole.len(), b"other") };
        let mut good = large(b"large-good");
        good.xattrs.iter_mut().flatten().for_each(|xattr| xattr.value = hashed.clone().into());
        let inline = |entry: Entry, bytes: &[u8]| Entry { inline: Some(bytes.to_vec().into()), ..entry };
        let mut none = inline(with(b"none", 4, b"none"), b"none");
        none.xattrs = None;
        let small = [inline(with(b"small-bad", 4, b"good"), b"dead"), inline(with(b"small-good", 4, b"good"), b"good")];
        craft.dir(b"", [large(b"large-bad"), good, none].into_iter().chain(small).collect())
    });
    let mut world = World { bench: villain.bench, credentials: servers::WRITER };
    world.bench.key = Some(world.bench.path("key"));
    let (code, report) = world.run(&["restore", &sid, "--to", &store.url("x"), "--overwrite"]);
    let figures = ["lost", "checked", "files"].map(|name| figure(&report, name));
    assert_eq!((code, figures), (5, [2, 2, 3]), "{report:#}");
    let mut bad: Vec<&str> = report["errors"].as_array().unwrap().iter().map(|e| e["path"].as_str().unwrap()).collect();
    bad.sort_unstable();
    assert_eq!(bad, ["large-bad", "small-bad"], "{report:#}");
    store.with(|state| {
        let keys: Vec<String> = state.objects.keys().map(|key| String::from_utf8_lossy(key).into_owned()).collect();
        assert_eq!(keys, ["x/large-good", "x/none", "x/small-bad", "x/small-good"]);
        assert!(state.objects[&b"x/large-good"[..]] == parts.concat());
        assert_eq!(state.objects[&b"x/small-bad"[..]], b"was there before");
        assert!(state.uploads.is_empty(), "parts were left");
    });
}

#[test]
fn policies_have_buckets_of_models() {
    let store = StandIn::start(&[(b"p/bad.pt", &pickles::by_lines("os", "system")), (b"p/good", b"words")]);
    let mut world = World::new();
    let (region, config) = (world.bench.region("a"), world.bench.path("holdfast.yaml"));
    world.bench.regions.clear();
    let run = |rules: &str, verb: &[&str]| {
        let text = format!(
            "apiVersion: holdfast.io/v1alpha1\nkind: Repository\nmetadata: {{name: main}}\nspec:\n  \
             regions: [{{name: a, url: {}}}]\n---\napiVersion: holdfast.io/v1alpha1\nkind: BackupPolicy\n\
             metadata: {{name: daily}}\nspec:\n  retries: {{max: 0}}\n  sources:\n  - name: s\n    bucket: '{}'\n    {rules}\n",
            region.display(),
            store.url("p")
        );
        std::fs::write(&config, text).unwrap();
        world.run(&[&["--config", config.to_str().unwrap()], verb].concat())
    };
    let daily = ["run", "daily"];
    let (code, done) = run("kind: model", &daily);
    assert_eq!((code, &done["sources"][0]["fate"]), (0, &json!("protected")), "{done:#}");
    assert!(done["sources"][0]["why"][0].as_str().unwrap().starts_with("bad.pt: its pickle is unsafe"), "{done:#}");
    let (code, done) = run("kind: model\n    trust: {pickle: refuse}", &daily);
    assert_eq!((code, &done["sources"][0]["fate"]), (11, &json!("degraded")), "{done:#}");
    assert!(done["sources"][0]["snapshot"].is_string(), "{done:#}");
    for (rules, place) in [("kind: files", "kind"), ("trust: {pickle: refuse}", "trust")] {
        let (code, said) = run(rules, &["policy", "check"]);
        let place = format!("spec.sources[0].{place}");
        assert!(code == 2 && said["error"]["where"].as_str().unwrap().ends_with(&place), "{rules}: {said:#}");
    }
    let (code, shown) = run("kind: model", &["policy", "show"]);
    let source = &shown["policies"][0]["document"]["spec"]["sources"][0];
    assert_eq!((code, &source["kind"], &source["bucket"]), (0, &json!("model"), &json!(store.url("p"))), "{shown:#}");
}
