//! Hashes that lie beside files, and signatures on folders, made by the reference implementation.

use super::pickles;
use crate::harness::{Bench, noise};
use crate::reader::python;
use serde_json::Value;
use std::path::Path;

/// A signed model, its keys and its signatures.
pub fn signed() -> Bench {
    let bench = Bench::in_memory(&[]);
    std::fs::create_dir_all(bench.path("model/sub")).expect("folder");
    std::fs::create_dir(bench.path("keys")).expect("folder");
    for (name, size) in [("weights.bin", 2500), ("sub/more.bin", 1000), ("config.json", 10)] {
        std::fs::write(bench.path("model").join(name), noise(size as u64, size)).expect("file");
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("restore-tests/trust/sign.py");
    let output = python().arg(script).args([bench.path("model"), bench.path("keys")]).output().expect("Python runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    bench
}

/// The verdict on the model with one of the signatures, checked by a key or a chain.
fn check(bench: &Bench, signature: &str, by: &[&str]) -> (i32, Value) {
    std::fs::copy(bench.path(&format!("keys/{signature}.sig")), bench.path("model/model.sig")).expect("signature");
    let (code, value) = bench.json(&[&["model", "check", "model"], by].concat());
    (code, value["signatures"][0].clone())
}

const KEY: &[&str] = &["--signature-key", "keys/p256.pub"];
const CHAIN: &[&str] = &["--signature-chain", "keys/root.pem"];

#[test]
fn signatures_hold_with_the_right_key_and_with_no_other() {
    let bench = signed();
    let said = |signature: &str, by: &[&str]| {
        let (code, value) = check(&bench, signature, by);
        println!("{signature} {by:?}: {code} {} ({})", value["standing"], value["why"]);
        (code, value["standing"].as_str().expect("a standing").to_owned())
    };
    let is = |code: i32, standing: &str| (code, standing.to_owned());
    for signature in ["p256", "shards", "blake3"] {
        assert_eq!(said(signature, KEY), is(0, "valid"));
    }
    assert_eq!(said("p384", &["--signature-key", "keys/p384.pub"]), is(0, "valid"));
    assert_eq!(
        said("p256", &["--signature-key", "keys/other.pub", "--signature-key", "keys/p256.pub"]),
        is(0, "valid")
    );
    assert_eq!(said("p256", &["--signature-key", "keys/other.pub"]), is(5, "invalid"));
    assert_eq!(said("p384", KEY), is(5, "invalid"));
    assert_eq!(said("signer", CHAIN), is(0, "valid"));
    assert_eq!(said("ended", CHAIN), is(5, "expired"));
    assert_eq!(said("future", CHAIN), is(5, "invalid"));
    assert_eq!(said("signer", &["--signature-chain", "keys/stranger.pem"]), is(5, "invalid"));
    // Nobody to believe, or the wrong kind of help.
    assert_eq!(said("p256", &[]), is(3, "unknown"));
    assert_eq!(said("p256", CHAIN), is(3, "unknown"));
    assert_eq!(said("signer", KEY), is(3, "unknown"));
    // A signer's own certificate is no authority.
    assert_eq!(bench.run(&["model", "check", "model", "--signature-chain", "keys/signer.pem"]).0, 2);
    assert_eq!(bench.run(&["model", "check", "model", "--signature-key", "keys/root.pem"]).0, 2);
    std::fs::remove_file(bench.path("model/model.sig")).expect("removed");
    let (code, value) = bench.json(&[&["model", "check", "model"], KEY].concat());
    assert_eq!((code, value["signatures"][0]["standing"].as_str()), (5, Some("missing")));
}

#[test]
fn each_change_of_a_signed_model_is_named() {
    let bench = signed();
    let model = |name: &str| bench.path("model").join(name);
    let names = |value: &Value, list: &str| value[list].clone();
    for signature in ["p256", "shards", "blake3"] {
        let (_, value) = check(&bench, signature, KEY);
        assert_eq!(value["same"], 3);
        let whole = std::fs::read(model("weights.bin")).expect("file");
        let mut changed = whole.clone();
        changed[2400] ^= 1;
        std::fs::write(model("weights.bin"), &changed).expect("file");
        let (code, value) = check(&bench, signature, KEY);
        assert_eq!((code, names(&value, "different")), (5, serde_json::json!(["weights.bin"])));
        // Longer and shorter, at the end.
        for other in [[&whole[..], &[0]].concat(), whole[..2000].to_vec()] {
            std::fs::write(model("weights.bin"), &other).expect("file");
            let (code, value) = check(&bench, signature, KEY);
            assert_eq!((code, names(&value, "different")), (5, serde_json::json!(["weights.bin"])));
        }
        std::fs::remove_file(model("weights.bin")).expect("removed");
        let (code, value) = check(&bench, signature, KEY);
        assert_eq!((code, names(&value, "missing")), (5, serde_json::json!(["weights.bin"])));
        std::fs::write(model("weights.bin"), &whole).expect("file");
        std::fs::write(model("sub/new.bin"), "new").expect("file");
        let (code, value) = check(&bench, signature, KEY);
        assert_eq!((code, names(&value, "unlisted")), (5, serde_json::json!(["sub/new.bin"])));
        std::fs::remove_file(model("sub/new.bin")).expect("removed");
        // What the signer left out is named, and speaks against nothing.
        std::fs::write(model("notes"), "left out").expect("file");
        let (code, value) = check(&bench, signature, KEY);
        assert_eq!((code, names(&value, "ignored")), (0, serde_json::json!(["notes"])));
        assert!(value["ignore_paths"].as_array().is_some_and(|paths| paths.iter().any(|path| path == "notes")));
        std::fs::remove_file(model("notes")).expect("removed");
    }
}

#[test]
fn no_file_is_passed_over_where_somebody_is_believed() {
    let bench = signed();
    std::fs::copy(bench.path("keys/p256.sig"), bench.path("model/model.sig")).expect("signature");
    let by_key = |path: &str| bench.json(&[&["model", "check", path], KEY].concat());
    let standings = |value: &Value| -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let all = value["signatures"].as_array().expect("signatures");
        all.iter().map(|one| (text(&one["path"]), text(&one["standing"]))).collect()
    };
    let is = |path: &str, standing: &str| (path.to_owned(), standing.to_owned());
    // One file is compared with what its folder's signature says of it.
    let (code, value) = by_key("model/weights.bin");
    assert_eq!((code, standings(&value)), (0, vec![is("model/model.sig", "valid")]));
    assert_eq!(value["files"][0]["signed"], "same");
    std::fs::write(bench.path("model/new.bin"), "new").expect("file");
    let (code, value) = by_key("model/new.bin");
    assert_eq!((code, &value["signatures"][0]["unlisted"]), (5, &serde_json::json!(["new.bin"])));
    std::fs::remove_file(bench.path("model/new.bin")).expect("removed");
    let (code, value) = by_key("model/sub/more.bin");
    assert_eq!((code, standings(&value)), (5, vec![is("model/sub/model.sig", "missing")]));
    let whole = std::fs::read(bench.path("model/weights.bin")).expect("file");
    std::fs::write(bench.path("model/weights.bin"), "other").expect("file");
    let (code, value) = by_key("model/weights.bin");
    assert_eq!((code, &value["signatures"][0]["different"]), (5, &serde_json::json!(["weights.bin"])));
    std::fs::write(bench.path("model/weights.bin"), whole).expect("file");
    // Beside a folder that is signed lies one that is not.
    std::fs::create_dir_all(bench.path("all/b/c")).expect("folder");
    std::fs::rename(bench.path("model"), bench.path("all/a")).expect("moved");
    assert_eq!(by_key("all").0, 0);
    std::fs::write(bench.path("all/b/c/one.bin"), "1").expect("file");
    let (code, value) = by_key("all");
    assert_eq!(
        (code, standings(&value)),
        (5, vec![is("all/b/c/model.sig", "missing"), is("all/a/model.sig", "valid")])
    );
    std::fs::write(bench.path("all/b/two.bin"), "2").expect("file");
    assert_eq!(standings(&by_key("all").1)[0], is("all/b/model.sig", "missing"));
}

#[test]
fn no_bit_of_a_bundle_can_be_changed() {
    let bench = signed();
    let path = bench.path("keys/p256.sig");
    let whole = std::fs::read(&path).expect("bundle");
    let key = std::fs::read_to_string(bench.path("keys/p256.pub")).expect("key");
    use holdfast::base::TimeMs;
    use holdfast::model::signature::{PublicKey, Standing, Trust, check};
    let trust = [Trust::Key(PublicKey::read(&key).expect("a key"))];
    let sound = check(&whole, &trust, TimeMs(0));
    assert_eq!(sound.standing, Standing::Valid);
    for at in 0..whole.len() {
        let mut changed = whole.clone();
        changed[at] ^= 1;
        let found = check(&changed, &trust, TimeMs(0));
        // Names of fields that are not read, and the hint, may change; what was signed may not.
        assert!(found.standing != Standing::Valid || found.statement == sound.statement, "byte {at}");
        check(&whole[..at], &trust, TimeMs(0));
    }
}

#[test]
fn hashes_beside_the_files_are_compared() {
    let bench = Bench::in_memory(&[]);
    let blobs = bench.path("hub/models--a--b/blobs");
    let snapshot = bench.path("hub/models--a--b/snapshots/main");
    std::fs::create_dir_all(&blobs).expect("folder");
    std::fs::create_dir_all(&snapshot).expect("folder");
    std::fs::write(bench.path("hello"), "hello").expect("file");
    let hash = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
    std::fs::write(blobs.join(hash), "hello").expect("blob");
    std::os::unix::fs::symlink(format!("../../blobs/{hash}"), snapshot.join("model.bin")).expect("link");
    let value = bench.ok(&["model", "check", "hub"]);
    assert!(
        value["files"].as_array().is_some_and(|f| f.len() == 2 && f.iter().all(|f| f["blob"] == "same")),
        "{value:#}"
    );
    std::fs::write(blobs.join(hash), "hallo").expect("blob");
    let (code, value) = bench.json(&["model", "check", "hub/models--a--b/snapshots"]);
    assert_eq!((code, value["files"][0]["blob"].as_str()), (5, Some("different")));

    let sums = bench.path("sums");
    std::fs::create_dir(&sums).expect("folder");
    std::fs::write(sums.join("a"), "hello").expect("file");
    std::fs::write(sums.join("SHA256SUMS"), format!("{hash}  a\n")).expect("list");
    assert_eq!(bench.ok(&["model", "check", "sums"])["files"][1]["sums"], "same");
    std::fs::write(sums.join("SHA256SUMS"), format!("{hash}  a\nrubbish\n")).expect("list");
    assert_eq!(bench.json(&["model", "check", "sums"]).0, 3);
    std::fs::write(sums.join("SHA256SUMS"), format!("{hash}  a\n{hash}  b\n")).expect("list");
    let (code, value) = bench.json(&["model", "check", "sums"]);
    assert_eq!((code, &value["sums"][0]["missing"]), (5, &serde_json::json!(["b"])));
    std::fs::write(sums.join("a"), pickles::by_lines("os", "system")).expect("file");
    let (code, value) = bench.json(&["model", "check", "sums"]);
    assert_eq!((code, &value["sums"][0]["different"]), (5, &serde_json::json!(["a"])));
}
