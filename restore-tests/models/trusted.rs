//! What becomes of models that are not to be trusted: said, refused and marked, restored only with leave, and never lost.

use super::figure;
use crate::harness::{Bench, assert_same, noise};
use crate::trust::{pickles, signatures};
use serde_json::{Value, json};
use std::os::unix::fs::symlink;

/// A repository with a source that has these files in it.
fn bench(files: &[(&str, &[u8])]) -> Bench {
    let mut bench = Bench::in_memory(&["a"]);
    std::fs::create_dir(bench.path("source")).unwrap();
    files.iter().for_each(|(name, bytes)| std::fs::write(bench.path("source").join(name), bytes).unwrap());
    bench.make_key();
    bench.ok(&["init", "--no-recovery-key"]);
    bench
}

fn backup(bench: &Bench, more: &[&str]) -> (i32, Value) {
    bench.json(&[&["backup", "--name", "m", "model:source"], more].concat())
}

fn restore(bench: &Bench, more: &[&str]) -> (i32, Value) {
    let target = bench.path("target");
    let _ = std::fs::remove_dir_all(&target);
    let done = bench.json(&[&["restore", "latest", "--target", target.to_str().unwrap()], more].concat());
    if done.0 == 0 {
        assert_same(&bench.path("source"), &target);
    } else {
        assert!(!target.exists(), "something was restored");
    }
    done
}

/// Paths of what was complained of, and whether it was refused.
fn complaints(done: &Value) -> Vec<(String, bool)> {
    let all = done["verdicts"]["complaints"].as_array().unwrap_or_else(|| panic!("{done:#}"));
    all.iter().map(|c| (c["path"].as_str().unwrap().to_owned(), c["refused"] == true)).collect()
}

#[test]
fn pickles_are_warned_of_or_refused_and_unknown_is_not_safe() {
    let (bad, strange) = (pickles::by_lines("os", "system"), pickles::by_values("my_module", "Net"));
    for (name, bytes, warned) in [("bad.pt", &bad, 1), ("strange.pt", &strange, 0)] {
        let bench = bench(&[(name, bytes), ("good", b"words")]);
        let is = |refused: bool| vec![(name.to_owned(), refused)];
        let (code, done) = backup(&bench, &["--trust-pickle", "off"]);
        assert_eq!((code, complaints(&done)), (0, vec![]));
        let (code, done) = backup(&bench, &[]);
        assert_eq!((code, complaints(&done)), (0, if warned == 1 { is(false) } else { vec![] }), "{name}");
        assert_eq!(restore(&bench, &[]).0, 0, "what is only warned of is restored");
        assert_eq!(restore(&bench, &["--trust-pickle", "refuse"]).0, 11, "the one who restores may ask for more");
        let (code, done) = backup(&bench, &["--trust-pickle", "refuse"]);
        assert_eq!((code, complaints(&done), figure(&done["verdicts"], "refused")), (11, is(true), 1), "{name}");
        assert!(done["snapshot"].is_string() && done["regions"] == json!(["a"]), "nothing is lost: {done:#}");
        let (code, said) = restore(&bench, &[]);
        assert_eq!((code, said["error"]["kind"].as_str()), (11, Some("refused")), "{said:#}");
        assert!(said["error"]["advice"].as_str().unwrap().contains("--trust-anyway"), "{said:#}");
        assert_eq!(bench.json(&["restore", "latest", "--tar", "out.tar"]).0, 11);
        assert!(!bench.path("out.tar").exists());
        let of_model = format!("latest:/{name}");
        let tensors = ["restore", &of_model, "--tensors", "*", "--target", "out"];
        assert_eq!(bench.json(&tensors).0, 11, "no tensor comes past what the whole does not come past");
        let (code, said) = bench.json(&[&tensors[..], &["--trust-anyway"]].concat());
        assert_eq!((code, bench.path("out").exists()), (2, false), "with leave, it only has no tensors: {said:#}");
        assert_eq!(restore(&bench, &["--trust-anyway"]).0, 0);
        // It is shown, by whoever looks.
        let checked = bench.ok(&["verify"]);
        let newest = &checked["verdicts"][0];
        let counts = ["files", "none", "safe", "unknown", "unsafe", "refused"].map(|field| figure(newest, field));
        assert_eq!(counts, [2, 1, 0, u64::from(warned == 0), warned, 1], "{checked:#}");
        assert_eq!(checked["verdicts"].as_array().unwrap().len(), 1);
        let text = String::from_utf8(bench.run(&["verify"]).1.stdout).unwrap();
        assert!(text.contains("REFUSED") && text.contains(name), "{text}");
        let text = String::from_utf8(bench.run(&["snapshots"]).1.stdout).unwrap();
        let marked: Vec<bool> = text.lines().map(|line| line.contains("REFUSED")).collect();
        assert_eq!(marked, [false, false, true], "{text}");
    }
}

/// Who loads `pytorch_model.bin` follows it to where nothing was judged.
#[test]
fn links_that_lead_away_are_told_and_refused() {
    let bench = bench(&[("good.txt", b"words")]);
    let link = |target: &str, name: &str| symlink(target, bench.path("source").join(name)).unwrap();
    std::fs::create_dir(bench.path("elsewhere")).unwrap();
    std::fs::write(bench.path("elsewhere/bad.bin"), pickles::by_lines("os", "system")).unwrap();
    let refuse = ["--trust-pickle", "refuse"];
    std::fs::create_dir(bench.path("source/m")).unwrap();
    link("../good.txt", "m/inside");
    assert_eq!(backup(&bench, &refuse).0, 0, "a link to what is judged is judged");
    link(bench.path("elsewhere/bad.bin").to_str().unwrap(), "pytorch_model.bin");
    link("../elsewhere", "folder");
    link("folder/../good.txt", "behind");
    let is = |refused: bool| ["behind", "folder", "pytorch_model.bin"].map(|name| (name.to_owned(), refused)).to_vec();
    let sorted = |done: &Value| {
        let mut all = complaints(done);
        all.sort();
        all
    };
    let (code, done) = backup(&bench, &[]);
    assert_eq!((code, sorted(&done)), (0, is(false)), "it is said");
    assert_eq!(restore(&bench, &refuse).0, 11);
    let (code, done) = backup(&bench, &refuse);
    assert_eq!((code, sorted(&done)), (11, is(true)));
    assert_eq!(restore(&bench, &[]).0, 11);
    let (code, stored) = bench.json(&["model", "check", "--snapshot", "latest"]);
    assert_eq!((code, figure(&stored, "errors_total")), (3, 3), "{stored:#}");
}

#[test]
fn a_folder_and_its_snapshot_are_called_the_same() {
    for (target, code) in [("good.txt", 0), ("sub", 3), ("gone", 3), ("loop", 3)] {
        let bench = bench(&[("good.txt", b"words")]);
        std::fs::create_dir(bench.path("source/sub")).unwrap();
        std::fs::write(bench.path("source/sub/more"), b"words").unwrap();
        symlink(target, bench.path("source/loop")).unwrap();
        assert_eq!(backup(&bench, &["--trust-pickle", "refuse"]).0, if code == 0 { 0 } else { 11 }, "{target}");
        let (found, there) = bench.json(&["model", "check", "source"]);
        let (kept, stored) = bench.json(&["model", "check", "--snapshot", "latest"]);
        assert_eq!((found, kept), (code, code), "{target}: {there:#} {stored:#}");
        assert_eq!((&there["grade"], &there["errors_total"]), (&stored["grade"], &stored["errors_total"]), "{target}");
    }
}

#[test]
fn a_link_that_is_added_to_a_signed_folder_is_refused() {
    let bench = signed();
    sign(&bench, "p256");
    assert_eq!(backup(&bench, &REQUIRE).0, 0);
    for target in ["/tmp/modeling_x.py", "../unsigned", "gone"] {
        let link = bench.path("source/modeling_x.py");
        symlink(target, &link).unwrap();
        let (code, done) = backup(&bench, &REQUIRE);
        assert_eq!((code, complaints(&done)), (11, vec![("modeling_x.py".into(), true)]), "{target}");
        std::fs::remove_file(&link).unwrap();
    }
    assert_eq!(backup(&bench, &REQUIRE).0, 0);
}

/// A snapshot that was refused pushes out none that was not.
#[test]
fn the_last_good_snapshot_stays() {
    let bench = bench(&[("model.pt", &pickles::by_values("collections", "OrderedDict"))]);
    let refuse = ["--trust-pickle", "refuse"];
    let (code, good) = backup(&bench, &refuse);
    assert_eq!((code, figure(&good["verdicts"], "safe")), (0, 1), "{good:#}");
    std::fs::write(bench.path("source/model.pt"), pickles::by_lines("os", "system")).unwrap();
    assert_eq!(backup(&bench, &refuse).0, 11);
    bench.ok(&["forget", "--keep-last", "1"]);
    let left = bench.ok(&["snapshots"]);
    assert_eq!(left["snapshots"].as_array().unwrap().len(), 2, "{left:#}");
    assert_eq!(left["snapshots"][0]["id"], good["snapshot"]);
}

const REQUIRE: [&str; 4] = ["--trust-signature", "require", "--trust-key", "keys/p256.pub"];

/// A bench of a signed model, which is the source, with a repository.
fn signed() -> Bench {
    let mut bench = signatures::signed();
    bench.regions = vec!["a"];
    std::fs::rename(bench.path("model"), bench.path("source")).unwrap();
    bench.make_key();
    bench.ok(&["init", "--no-recovery-key"]);
    bench
}

fn sign(bench: &Bench, signature: &str) {
    std::fs::copy(bench.path(&format!("keys/{signature}.sig")), bench.path("source/model.sig")).unwrap();
}

#[test]
fn signatures_are_required_and_each_change_is_refused() {
    let bench = signed();
    let code = |by: &[&str]| backup(&bench, by).0;
    assert_eq!(code(&REQUIRE), 11, "there is none");
    for signature in ["p256", "shards", "blake3"] {
        sign(&bench, signature);
        let (code, done) = backup(&bench, &REQUIRE);
        assert_eq!(
            (code, &done["verdicts"]["signatures"][0]["standing"]),
            (0, &json!("valid")),
            "{signature}: {done:#}"
        );
        assert_eq!(restore(&bench, &REQUIRE).0, 0, "{signature}: the same by what is stored");
        let other = ["--trust-signature", "require", "--trust-key", "keys/other.pub"];
        assert_eq!(restore(&bench, &other).0, 11);
        let whole = std::fs::read(bench.path("source/weights.bin")).unwrap();
        let mut changed = whole.clone();
        changed[2400] ^= 1;
        std::fs::write(bench.path("source/weights.bin"), &changed).unwrap();
        let (code, done) = backup(&bench, &REQUIRE);
        assert_eq!((code, complaints(&done)), (11, vec![("model.sig".into(), true)]), "{signature}: {done:#}");
        let what = done["verdicts"]["complaints"][0]["what"].as_str().unwrap();
        assert_eq!(what, "weights.bin is not as it was signed");
        std::fs::remove_file(bench.path("source/weights.bin")).unwrap();
        assert_eq!(backup(&bench, &REQUIRE).0, 11, "{signature}: one is missing");
        std::fs::write(bench.path("source/weights.bin"), &whole).unwrap();
        std::fs::write(bench.path("source/sub/new.bin"), "new").unwrap();
        assert_eq!(backup(&bench, &REQUIRE).0, 11, "{signature}: one is new");
        std::fs::remove_file(bench.path("source/sub/new.bin")).unwrap();
        assert_eq!(backup(&bench, &other).0, 11, "{signature}: another key");
        // Without a word about keys it is unknown, which is told and refuses nothing.
        let (code, done) = backup(&bench, &[]);
        assert_eq!((code, &done["verdicts"]["signatures"][0]["standing"]), (0, &json!("unknown")), "{done:#}");
        assert_eq!(backup(&bench, &REQUIRE).0, 0);
    }
    let chain = ["--trust-signature", "require", "--trust-chain", "keys/root.pem"];
    for (signature, wanted) in [("signer", 0), ("ended", 11), ("future", 11)] {
        sign(&bench, signature);
        assert_eq!(backup(&bench, &chain).0, wanted, "{signature}");
    }
}

#[test]
fn what_a_signer_left_out_is_refused_but_for_what_does_no_harm() {
    let bench = signed();
    sign(&bench, "p256");
    std::fs::create_dir_all(bench.path("source/.git/hooks")).unwrap();
    std::fs::write(bench.path("source/.gitattributes"), "*.bin filter=lfs").unwrap();
    assert_eq!(backup(&bench, &REQUIRE).0, 0, "lists that Git reads are no harm");
    for name in [".git/hooks/pre-commit", "notes"] {
        std::fs::write(bench.path("source").join(name), "#!/bin/sh").unwrap();
        let (code, done) = backup(&bench, &REQUIRE);
        assert_eq!((code, complaints(&done)), (11, vec![("model.sig".into(), true)]), "{name}");
        assert!(done.to_string().contains(&format!("{name} was left out by the signer")), "{done:#}");
        let warn = ["--trust-signature", "warn", "--trust-key", "keys/p256.pub"];
        assert_eq!(backup(&bench, &warn).0, 0, "{name}");
        std::fs::remove_file(bench.path("source").join(name)).unwrap();
    }
}

#[test]
fn hashes_that_do_not_hold_are_said_and_refused_where_signatures_are_required() {
    let hash = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
    let bench = bench(&[("a", b"hello"), ("SHA256SUMS", format!("{hash}  a\n").as_bytes())]);
    std::fs::create_dir(bench.path("source/blobs")).unwrap();
    std::fs::write(bench.path("source/blobs").join(hash), b"hello").unwrap();
    let (code, done) = backup(&bench, &[]);
    assert_eq!((code, complaints(&done)), (0, vec![]));
    std::fs::write(bench.path("source/a"), b"hallo").unwrap();
    std::fs::write(bench.path("source/blobs").join(hash), b"hallo").unwrap();
    let (code, done) = backup(&bench, &["--trust-signature", "off"]);
    let mut said = complaints(&done);
    said.sort();
    assert_eq!((code, said), (0, vec![("SHA256SUMS".into(), false), (format!("blobs/{hash}"), false)]), "{done:#}");
}

/// Writes a configuration with a policy of one source, which says this of it.
fn configure(bench: &Bench, source: &str) {
    let (region, path) = (bench.path("region-a"), bench.path("source"));
    let text = format!(
        "apiVersion: holdfast.io/v1alpha1\nkind: Repository\nmetadata: {{name: main}}\nspec:\n  \
         regions: [{{name: a, url: {}}}]\n---\napiVersion: holdfast.io/v1alpha1\nkind: BackupPolicy\n\
         metadata: {{name: daily}}\nspec:\n  retries: {{max: 0}}\n  sources:\n  - name: s\n    paths: [{}]\n    {source}\n",
        region.display(),
        path.display()
    );
    std::fs::write(bench.path("holdfast.yaml"), text).unwrap();
}

#[test]
fn a_key_that_cannot_be_read_keeps_no_snapshot_from_being_made() {
    let mut bench = bench(&[("weights", b"words")]);
    let key = bench.path("gone.pub").display().to_string();
    for (rule, code) in [("require", 11), ("warn", 0)] {
        let (ended, done) = backup(&bench, &["--trust-signature", rule, "--trust-key", &key]);
        assert_eq!((ended, complaints(&done)[0].clone()), (code, (key.clone(), rule == "require")), "{done:#}");
        assert!(done["snapshot"].is_string(), "{done:#}");
    }
    assert_eq!(restore(&bench, &["--trust-signature", "warn", "--trust-key", &key]).0, 2, "a restore needs it");
    bench.regions.clear();
    configure(&bench, &format!("kind: model\n    trust: {{signature: require, key: [{key}]}}"));
    let (code, done) = bench.json(&["run", "daily"]);
    let source = &done["sources"][0];
    assert_eq!((code, &source["fate"]), (11, &json!("degraded")), "{done:#}");
    assert!(source["snapshot"].is_string() && source["why"].to_string().contains("gone.pub"), "{done:#}");
}

#[test]
fn policies_say_what_is_refused() {
    let mut bench = bench(&[("weights", &noise(1, 400_000)), ("bad.pt", &pickles::by_lines("os", "system"))]);
    // From here on the configuration says where the repository is.
    bench.regions.clear();
    configure(&bench, "kind: model");
    let done = bench.ok(&["run", "daily"]);
    let source = &done["sources"][0];
    assert_eq!((&source["fate"], &source["exit"]), (&json!("protected"), &json!(0)), "{done:#}");
    assert!(source["why"][0].as_str().unwrap().starts_with("bad.pt: its pickle is unsafe"), "{done:#}");
    configure(&bench, "kind: model\n    trust: {pickle: refuse}");
    let (code, done) = bench.json(&["run", "daily"]);
    let source = &done["sources"][0];
    assert_eq!((code, &source["fate"], &source["exit"]), (11, &json!("degraded"), &json!(11)), "{done:#}");
    assert!(source["snapshot"].is_string(), "{done:#}");
    assert!(source["why"][0].as_str().unwrap().starts_with("REFUSED: bad.pt"), "{done:#}");
    assert_eq!(restore(&bench, &[]).0, 11);
    // A check by schedule says so too.
    let (code, out) = bench.run(&["run", "daily", "--kind", "verify"]);
    let said = String::from_utf8(out.stderr).unwrap();
    assert!(code == 0 && said.contains("REFUSED") && said.contains("bad.pt"), "{said}");
    // The run's record has it in figures.
    let runs = bench.ok(&["runs", "--failed"]);
    let refused = json!({"name": "verdicts.refused", "value": 1});
    let has = |run: &Value| run["figures"].as_array().is_some_and(|figures| figures.contains(&refused));
    assert!(runs["runs"].as_array().is_some_and(|runs| runs.iter().any(has)), "{runs:#}");
    // What makes no sense is a mistake with its place.
    for (source, place) in [
        ("trust: {pickle: refuse}", "spec.sources[0].trust"),
        ("kind: model\n    trust: {signature: require}", "spec.sources[0].trust.signature"),
        ("kind: model\n    trust: {signature: off, key: [/k.pub]}", "spec.sources[0].trust.signature"),
        ("kind: model\n    trust: {key: [k.pub]}", "spec.sources[0].trust.key[0]"),
        ("kind: models", "spec.sources[0].kind"),
        ("kind: model\n    trust: {pickle: never}", "spec.sources[0].trust.pickle"),
    ] {
        configure(&bench, source);
        let (code, said) = bench.json(&["policy", "check"]);
        let place = place.to_owned();
        assert!(code == 2 && said["error"]["where"].as_str().unwrap().ends_with(&place), "{source}: {said:#}");
    }
}
