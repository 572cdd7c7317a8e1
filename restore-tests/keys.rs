//! Keys from outside: every kind of slot, adding and removing with one secret at hand, races, rollbacks.

use crate::harness::{Bench, PASSPHRASE, assert_same, files, opened, small_tree};
use holdfast::base::Env;
use holdfast::error::Kind;
use holdfast::region::Address;
use holdfast::repo::held::Held;
use holdfast::repo::init::NewSecret;
use holdfast::repo::open::{Opening, open_held};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Output;

const SECOND: &str = "another-passphrase-that-nobody-guesses-7755";

/// A private file with a secret.
fn secret(bench: &Bench, name: &str, content: &[u8]) -> String {
    let path = bench.path(name);
    std::fs::write(&path, content).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    path.display().to_string()
}

/// Runs with this secret and no other.
fn with(bench: &Bench, secret: &[&str], args: &[&str]) -> Output {
    bench.command(&[secret, args].concat()).env_remove("HOLDFAST_PASSPHRASE").output().unwrap()
}

/// The JSON of a run that must end with `code`, and everything it said.
fn said(output: &Output, code: i32) -> (serde_json::Value, String) {
    let all = [&output.stdout[..], b"\n", &output.stderr].concat();
    let text = String::from_utf8_lossy(&all).into_owned();
    assert_eq!(output.status.code(), Some(code), "{text}");
    (serde_json::from_slice(&output.stdout).unwrap_or_default(), text)
}

/// The slot that a secret opens.
fn slot_of(bench: &Bench, secret: &[&str]) -> serde_json::Value {
    said(&with(bench, secret, &["--json", "key", "test"]), 0).0["slot"].clone()
}

fn json(bench: &Bench, secret: &[&str], args: &[&str]) -> serde_json::Value {
    said(&with(bench, secret, &[&["--json", "--quiet"], args].concat()), 0).0
}

fn text(value: &serde_json::Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text"))
}

fn configs(bench: &Bench, region: &str) -> Vec<String> {
    bench.objects(region).into_iter().filter(|key| key.starts_with("config")).collect()
}

/// A repository opened by the key file `k` and nothing else, which costs no slow derivation.
fn with_key_file(regions: &[&'static str]) -> (Bench, String) {
    let bench = Bench::empty(regions);
    let key = secret(&bench, "k", &[0x4b; 32]);
    json(&bench, &["--key-file", &key], &["init", "--no-recovery-key"]);
    (bench, key)
}

fn copy_tree(from: &Path, to: &Path) {
    for file in files(from) {
        let target = to.join(file.strip_prefix(from).unwrap());
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        std::fs::copy(&file, &target).unwrap();
    }
}

#[test]
fn every_kind_of_slot_opens_the_repository() {
    let bench = Bench::empty(&["a", "b"]);
    let key = secret(&bench, "k", &[0x4b; 32]);
    let own: &[&str] = &["--key-file", &key];
    let made = json(&bench, own, &["init"]);
    let recovery = text(&made["recovery_key"]).to_owned();
    assert!(recovery.starts_with("HFKEY1") && recovery.len() == 64, "{recovery}");
    let recovery = secret(&bench, "r", recovery.as_bytes());

    let second = secret(&bench, "p", format!("{SECOND}\n").as_bytes());
    let by_passphrase = json(&bench, own, &["key", "add", "--new-passphrase-file", &second, "--label", "second"]);
    let new = bench.path("new.key").display().to_string();
    let by_key = json(&bench, &["--recovery-key-file", &recovery], &["key", "add", "--new-key-file", &new]);
    let by_recovery = json(&bench, &["--key-file", &new], &["key", "add", "--new-recovery-key"]);
    let shown = secret(&bench, "r2", text(&by_recovery["recovery_key"]).as_bytes());
    let written = bench.path("r3").display().to_string();
    let by_file = json(&bench, own, &["key", "add", "--new-recovery-key-file", &written]);
    assert_eq!(by_file["recovery_key"], serde_json::Value::Null);

    let kinds = [
        (own, None, "key-file"),
        (&["--recovery-key-file", &recovery], None, "recovery-key"),
        (&["--passphrase-file", &second], Some(&by_passphrase), "passphrase"),
        (&["--key-file", &new], Some(&by_key), "key-file"),
        (&["--recovery-key-file", &shown], Some(&by_recovery), "recovery-key"),
        (&["--recovery-key-file", &written], Some(&by_file), "recovery-key"),
    ];
    for (secret, added, kind) in kinds {
        let slot = slot_of(&bench, secret);
        assert_eq!(slot["kind"], kind);
        assert!(added.is_none_or(|added| added["slot"] == slot["id"]), "{slot}");
    }
    let list = json(&bench, own, &["key", "list"]);
    let slots = list["slots"].as_array().unwrap();
    assert_eq!(slots.len(), 6);
    assert_eq!(slots.iter().filter(|s| s["current"] == true).count(), 1);
    assert_eq!(slots.iter().filter(|s| s["label"] == "second" && s["kind"] == "passphrase").count(), 1);
    assert_eq!(list["config"], 5);
    assert_eq!(configs(&bench, "a"), configs(&bench, "b"));
    // Each region opens on its own, with the newest secret too.
    for away in ["a", "b"] {
        std::fs::rename(bench.region(away), bench.path("away")).unwrap();
        slot_of(&bench, &["--recovery-key-file", &written]);
        std::fs::rename(bench.path("away"), bench.region(away)).unwrap();
    }
}

#[test]
fn the_passphrase_that_init_makes_opens() {
    let bench = Bench::empty(&["a"]);
    let made = json(&bench, &[], &["init", "--generate-passphrase", "--no-recovery-key"]);
    let words = text(&made["passphrase"]);
    assert_eq!(words.split('-').count(), 7);
    let file = secret(&bench, "p", words.as_bytes());
    assert_eq!(slot_of(&bench, &["--passphrase-file", &file])["kind"], "passphrase");
    let add = ["key", "add", "--new-passphrase-file"];
    let weak = secret(&bench, "weak", b"correct horse battery staple");
    let (_, why) = said(&with(&bench, &["--passphrase-file", &file], &[&add[..], &[&weak]].concat()), 11);
    assert!(why.contains("too easy to guess") && !why.contains("horse"), "{why}");
    let forced = [&add[..], &[&weak, "--weak-passphrase"]].concat();
    let (_, why) = said(&with(&bench, &["--passphrase-file", &file], &forced), 0);
    assert!(why.contains("warning: this passphrase is easy to guess"), "{why}");
    slot_of(&bench, &["--passphrase-file", &weak]);
}

#[test]
fn a_weak_passphrase_makes_no_repository() {
    let bench = Bench::empty(&["a"]);
    for weak in ["password", "correct horse battery staple", "aaaaaaaaaaaaaaaaaaaa", "12345678901234567890"] {
        let out = bench.command(&["init"]).env("HOLDFAST_PASSPHRASE", weak).output().unwrap();
        let (_, why) = said(&out, 11);
        assert!(why.contains("too easy to guess") && !why.contains(weak), "{why}");
        assert!(!bench.region("a").exists());
    }
}

/// Backs up a tree, gives the repository a second passphrase by the first, removes the first by the second.
struct Changed {
    bench: Bench,
    first: [String; 2],
    second: [String; 2],
    recovery: [String; 2],
}

impl Changed {
    fn new(between: impl Fn(&Bench)) -> Changed {
        let bench = Bench::empty(&["a", "b"]);
        let file = |name: &str, content: &str| secret(&bench, name, content.as_bytes());
        let first = ["--passphrase-file".into(), file("first", PASSPHRASE)];
        let second = ["--passphrase-file".into(), file("second", SECOND)];
        let made = json(&bench, &refs(&first), &["init"]);
        let recovery = ["--recovery-key-file".into(), file("recovery", text(&made["recovery_key"]))];
        small_tree(&bench.path("source"));
        json(&bench, &refs(&first), &["backup", "--name", "s", "source"]);
        let old = slot_of(&bench, &refs(&first));
        json(&bench, &refs(&first), &["key", "add", "--new-passphrase-file", &second[1]]);
        between(&bench);
        std::fs::rename(&first[1], bench.path("out-of-sight")).unwrap();
        json(&bench, &refs(&second), &["key", "remove", text(&old["id"])]);
        std::fs::rename(bench.path("out-of-sight"), &first[1]).unwrap();
        std::fs::write(bench.path("source/later"), crate::harness::noise(7, 300_000)).unwrap();
        Changed { bench, first, second, recovery }
    }
}

fn refs(pair: &[String; 2]) -> [&str; 2] {
    [&pair[0], &pair[1]]
}

#[test]
fn a_secret_is_replaced_by_another_with_only_one_at_hand() {
    let Changed { bench, first, second, recovery } = Changed::new(|_| {});
    let before = bench.objects("a");
    let (_, why) = said(&with(&bench, &refs(&first), &["snapshots"]), 12);
    assert!(why.contains("removed"), "{why}");
    slot_of(&bench, &refs(&recovery));
    json(&bench, &refs(&second), &["backup", "--name", "s", "source"]);
    for (number, secret) in [&second, &recovery].into_iter().enumerate() {
        let all = json(&bench, &refs(secret), &["snapshots"]);
        assert_eq!(all["snapshots"].as_array().map(Vec::len), Some(2), "{all}");
        for (which, snapshot) in all["snapshots"].as_array().unwrap().iter().enumerate() {
            let target = bench.path(&format!("target-{number}-{which}"));
            json(&bench, &refs(secret), &["restore", text(&snapshot["id"]), "--target", &target.display().to_string()]);
            if which == 0 {
                assert!(!target.join("later").exists());
                std::fs::copy(bench.path("source/later"), target.join("later")).unwrap();
            }
            assert_same(&bench.path("source"), &target);
        }
    }
    let numbers = ["config/00000001", "config/00000002", "config/00000003"];
    for region in ["a", "b"] {
        assert_eq!(configs(&bench, region), numbers);
    }
    let list = json(&bench, &refs(&second), &["key", "list"]);
    assert_eq!((list["slots"].as_array().map(Vec::len), list["removed"].as_array().map(Vec::len)), (Some(2), Some(1)));
    let mut seen = [0, 0];
    for key in bench.objects("a").iter().filter(|key| {
        ["packs/", "index/", "snaps"].contains(&&key[..key.len().min(6)]) || key.starts_with("snapshots/")
    }) {
        let bytes = std::fs::read(bench.region("a").join(key)).unwrap();
        let epoch = u32::from_le_bytes(bytes[16..20].try_into().unwrap());
        assert_eq!(epoch, if before.contains(key) { 1 } else { 2 }, "{key}");
        seen[epoch as usize - 1] += 1;
    }
    assert!(seen[0] >= 3 && seen[1] >= 3, "{seen:?}");
}

#[test]
fn a_region_rolled_back_to_before_the_removal_opens_nothing() {
    let Changed { bench, first, second, .. } =
        Changed::new(|bench| copy_tree(&bench.region("b"), &bench.path("copy-of-b")));
    json(&bench, &refs(&second), &["backup", "--name", "s", "source"]);
    std::fs::rename(bench.region("b"), bench.path("newer-b")).unwrap();
    copy_tree(&bench.path("copy-of-b"), &bench.region("b"));
    let (_, why) = said(&with(&bench, &refs(&first), &["snapshots"]), 12);
    assert!(why.contains("removed"), "{why}");
    let list = json(&bench, &refs(&second), &["key", "list"]);
    assert_eq!((&list["config"], list["slots"].as_array().map(Vec::len)), (&serde_json::json!(3), Some(2)));
    assert_eq!(json(&bench, &refs(&second), &["snapshots"])["snapshots"].as_array().map(Vec::len), Some(2));
}

#[test]
fn a_configuration_rolled_back_everywhere_is_convicted_by_a_newer_snapshot() {
    let Changed { bench, first, second, .. } = Changed::new(|_| {});
    json(&bench, &refs(&second), &["backup", "--name", "s", "source"]);
    for region in ["a", "b"] {
        std::fs::remove_file(bench.region(region).join("config/00000003")).unwrap();
    }
    let new = bench.path("new.key").display().to_string();
    let verbs: &[&[&str]] = &[
        &["snapshots"],
        &["verify"],
        &["backup", "--name", "s", "source"],
        &["restore", "latest", "--target", "target"],
        &["key", "add", "--new-key-file", &new],
    ];
    let before = (bench.objects("a"), bench.objects("b"));
    for verb in verbs {
        for secret in [&first, &second] {
            let (_, why) = said(&with(&bench, &refs(secret), verb), 5);
            assert!(why.contains("rolled back") && why.contains("configuration 2"), "{verb:?}: {why}");
        }
    }
    assert_eq!(before, (bench.objects("a"), bench.objects("b")));
    assert!(!Path::new(&new).exists() && !bench.path("target").exists());
}

#[test]
fn one_region_cannot_lock_the_others_out_with_a_forged_snapshot() {
    let (bench, key) = with_key_file(&["a", "b"]);
    small_tree(&bench.path("source"));
    json(&bench, &["--key-file", &key], &["backup", "source"]);
    let manifest = bench.objects("b").into_iter().find(|key| key.starts_with("snapshots/")).unwrap();
    let mut bytes = std::fs::read(bench.region("b").join(&manifest)).unwrap();
    bytes.truncate(bytes.len() - 32);
    bytes[16..20].copy_from_slice(&9u32.to_le_bytes());
    let sum = blake3::hash(&bytes);
    bytes.extend_from_slice(sum.as_bytes());
    std::fs::write(bench.region("b").join("snapshots/0123456789abcdef0123456789abcdef"), bytes).unwrap();
    let (_, why) = said(&with(&bench, &["--key-file", &key], &["snapshots"]), 5);
    assert!(why.contains("DAMAGED: snapshot 01234567") && why.contains("sealed with another key"), "{why}");
    let out = with(&bench, &["--key-file", &key], &["restore", "latest", "--target", "target"]);
    said(&out, 0);
    assert_same(&bench.path("source"), &bench.path("target"));
}

#[test]
fn an_added_key_rolled_back_everywhere_is_convicted_too() {
    let (bench, key) = with_key_file(&["a", "b"]);
    small_tree(&bench.path("source"));
    let new = bench.path("new.key").display().to_string();
    json(&bench, &["--key-file", &key], &["key", "add", "--new-key-file", &new]);
    json(&bench, &["--key-file", &new], &["backup", "source"]);
    for region in ["a", "b"] {
        std::fs::remove_file(bench.region(region).join("config/00000002")).unwrap();
    }
    let (_, why) = said(&with(&bench, &["--key-file", &key], &["snapshots"]), 5);
    assert!(why.contains("rolled back"), "{why}");
    let (_, why) = said(&with(&bench, &["--key-file", &new], &["snapshots"]), 5);
    assert!(why.contains("configuration 2 is missing"), "{why}");
}

#[test]
fn the_last_slot_stays() {
    let (bench, key) = with_key_file(&["a", "b"]);
    let own: &[&str] = &["--key-file", &key];
    let slot = slot_of(&bench, own);
    let before = bench.objects("a");
    let (_, why) = said(&with(&bench, own, &["key", "remove", text(&slot["id"])]), 11);
    assert!(why.contains("last key slot"), "{why}");
    let (_, why) = said(&with(&bench, own, &["key", "remove", "ffffffffffffffffffff"]), 1);
    assert!(why.contains("fits 0 key slots"), "{why}");
    said(&with(&bench, own, &["key", "remove", ""]), 1);
    assert_eq!(before, bench.objects("a"));
    slot_of(&bench, own);
}

#[test]
fn of_two_changes_at_the_same_time_one_wins() {
    let bench = Bench::new(&["a", "b"]);
    let (one, other) = (opened(&bench), opened(&bench));
    let add = |repo: &holdfast::repo::Repo, n| {
        holdfast::repo::keys::add(repo, "", &NewSecret::KeyFile(holdfast::crypto::Secret::from_bytes([n; 32])))
    };
    add(&one, 1).unwrap();
    let lost = add(&other, 2).unwrap_err();
    assert!(lost.kind() == Kind::Refused && lost.to_string().contains("somebody else changed the keys"), "{lost}");
    let lost = holdfast::repo::keys::remove(&other, other.slot).unwrap_err();
    assert!(matches!(lost.kind(), Kind::Refused), "{lost}");
    add(&opened(&bench), 2).unwrap();
    // The second has two slots now, one of them never listed; which comes first is chance, so a few times.
    for _ in 0..3 {
        let (winner, loser) = (opened(&bench), opened(&bench));
        add(&winner, 3).unwrap();
        add(&loser, 2).unwrap_err();
    }
    for n in [1, 2, 3] {
        slot_of(&bench, &["--key-file", &secret(&bench, "k", &[n; 32])]);
    }
    assert_eq!(configs(&bench, "a"), configs(&bench, "b"));
}

#[test]
fn processes_that_add_keys_at_once_break_no_chain() {
    let (bench, key) = with_key_file(&["a", "b"]);
    let mut wins = 0;
    for round in 0..3 {
        let start = |n: u32| {
            let new = bench.path(&format!("new-{round}-{n}")).display().to_string();
            let mut command = bench.command(&["--key-file", &key, "key", "add", "--new-key-file", &new]);
            let piped = std::process::Stdio::piped;
            (new, command.env_remove("HOLDFAST_PASSPHRASE").stdout(piped()).stderr(piped()).spawn().unwrap())
        };
        let running: Vec<_> = (0..3).map(start).collect();
        for (new, child) in running {
            let out = child.wait_with_output().unwrap();
            if out.status.success() {
                wins += 1;
                slot_of(&bench, &["--key-file", &new]);
            } else {
                let (_, why) = said(&out, 11);
                assert!(why.contains("somebody else changed the keys just now") && why.contains("run again"), "{why}");
                assert!(!Path::new(&new).exists(), "a key file that opens nothing was left behind");
            }
        }
    }
    let numbers: Vec<String> = (1..=wins + 1).map(|n| format!("config/{n:08}")).collect();
    assert!(wins >= 3 && configs(&bench, "a") == numbers && configs(&bench, "b") == numbers, "{numbers:?}");
    assert_eq!(json(&bench, &["--key-file", &key], &["key", "list"])["slots"].as_array().map(Vec::len), Some(wins + 1));
}

#[test]
fn a_recovery_key_is_read_as_it_is_typed() {
    let bench = Bench::empty(&["a"]);
    let key = secret(&bench, "k", &[0x4b; 32]);
    let printed = text(&json(&bench, &["--key-file", &key], &["init"])["recovery_key"]).to_owned();
    let groups: Vec<&str> = printed.as_bytes().chunks(5).map(|c| std::str::from_utf8(c).unwrap()).collect();
    let mixed: String =
        printed.chars().enumerate().map(|(i, c)| if i % 2 == 0 { c.to_ascii_lowercase() } else { c }).collect();
    for typed in
        [printed.to_lowercase(), mixed, groups.join(" "), groups.join("-"), format!("  {}\r\n", groups.join("\n"))]
    {
        let file = secret(&bench, "typed", typed.as_bytes());
        assert_eq!(slot_of(&bench, &["--recovery-key-file", &file])["kind"], "recovery-key", "{typed}");
    }
    let mut wrong = printed.clone().into_bytes();
    wrong[20] = if wrong[20] == b'Q' { b'P' } else { b'Q' };
    let file = secret(&bench, "typed", &wrong);
    let (_, why) = said(&with(&bench, &["--recovery-key-file", &file], &["snapshots"]), 12);
    assert!(why.contains("typing error (the checksum differs)"), "{why}");
    // One of another repository is whole and opens nothing.
    let other = holdfast::crypto::recovery_encode(&holdfast::crypto::Secret::from_bytes([1; 32]));
    let file = secret(&bench, "typed", other.as_bytes());
    let (_, why) = said(&with(&bench, &["--recovery-key-file", &file], &["snapshots"]), 12);
    assert!(why.contains("wrong recovery-key: it opens no key slot"), "{why}");
}

#[test]
fn key_files_of_the_wrong_size_and_those_that_others_can_read() {
    let (bench, key) = with_key_file(&["a"]);
    for len in [31, 33] {
        let file = secret(&bench, "wrong", &vec![0x4b; len]);
        let (_, why) = said(&with(&bench, &["--key-file", &file], &["snapshots"]), 12);
        assert!(why.contains(&format!("has {len} bytes instead of 32")), "{why}");
        let fresh = Bench::empty(&["c"]);
        said(&with(&fresh, &["--key-file", &file], &["init"]), 12);
        assert!(!fresh.region("c").exists());
    }
    let (_, quiet) = said(&with(&bench, &["--key-file", &key], &["snapshots"]), 0);
    assert!(!quiet.contains("warning"), "{quiet}");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let (_, warned) = said(&with(&bench, &["--key-file", &key], &["snapshots"]), 0);
    assert!(warned.contains("warning: the key file can be read by others (mode 0644)"), "{warned}");
    let (_, why) = said(&with(&bench, &[], &["snapshots"]), 12);
    assert!(why.contains("no key was given"), "{why}");
}

#[test]
fn without_the_home_region_keys_stay_as_they_are() {
    let (bench, key) = with_key_file(&["a", "b"]);
    let own: &[&str] = &["--key-file", &key];
    json(&bench, own, &["key", "add", "--new-recovery-key"]);
    let slot = slot_of(&bench, own);
    std::fs::rename(bench.region("a"), bench.path("away")).unwrap();
    let before = bench.objects("b");
    let new = bench.path("new.key").display().to_string();
    for verb in [&["key", "add", "--new-key-file", &new], &["key", "remove", text(&slot["id"])][..]] {
        let (_, why) = said(&with(&bench, own, verb), 1);
        assert!(why.contains("the home region cannot be reached") && why.contains("nothing was changed"), "{why}");
    }
    assert!(!Path::new(&new).exists());
    assert_eq!(before, bench.objects("b"));
    slot_of(&bench, own);
}

#[test]
fn a_region_that_misses_a_change_is_named_and_brought_up() {
    let (bench, key) = with_key_file(&["a", "b"]);
    let own: &[&str] = &["--key-file", &key];
    std::fs::rename(bench.region("b"), bench.path("away")).unwrap();
    let new = bench.path("new.key").display().to_string();
    let (value, _) = said(&with(&bench, own, &["--json", "key", "add", "--new-key-file", &new]), 4);
    assert_eq!(value["behind"][0]["region"], "b");
    std::fs::rename(bench.path("away"), bench.region("b")).unwrap();
    // What stands in the way of the copy is no reason to call it done.
    std::fs::create_dir(bench.region("b").join("config/00000003")).unwrap();
    let third = bench.path("third.key").display().to_string();
    let (value, why) = said(&with(&bench, own, &["--json", "key", "add", "--new-key-file", &third]), 4);
    assert_eq!(value["behind"][0]["region"], "b", "{why}");
    std::fs::remove_dir(bench.region("b").join("config/00000003")).unwrap();
    small_tree(&bench.path("source"));
    json(&bench, own, &["backup", "source"]);
    assert_eq!(configs(&bench, "b"), configs(&bench, "a"));
    std::fs::rename(bench.region("a"), bench.path("away")).unwrap();
    for secret in [&new, &third] {
        slot_of(&bench, &["--key-file", secret]);
    }
}

#[test]
fn a_secret_that_was_removed_can_be_added_again() {
    let (bench, key) = with_key_file(&["a"]);
    let passphrase = secret(&bench, "p", SECOND.as_bytes());
    let own: &[&str] = &["--passphrase-file", &passphrase];
    for _ in 0..4 {
        let add = ["key", "add", "--new-passphrase-file", &passphrase];
        let slot = json(&bench, &["--key-file", &key], &add)["slot"].clone();
        assert_eq!(slot_of(&bench, own)["id"], slot);
        json(&bench, &["--key-file", &key], &["key", "remove", text(&slot)]);
        said(&with(&bench, own, &["snapshots"]), 12);
    }
}

#[test]
fn a_forged_slot_keeps_nobody_out() {
    let bench = Bench::new(&["a", "b"]);
    let slots: Vec<String> = bench.objects("b").into_iter().filter(|key| key.starts_with("keys/")).collect();
    let good = std::fs::read(bench.region("b").join(&slots[0])).unwrap();
    // 64 MiB, three passes, four lanes: [65536, 3, 4].
    let params = [0x83, 0x1a, 0, 1, 0, 0, 3, 4];
    let at = good.windows(params.len()).position(|w| w == params).expect("the parameters are in the slot");
    let all: [&[u8]; 3] = [&[0x83, 0x1a, 0xff, 0xff, 0xff, 0xff, 3, 4], &[0x83, 0x1a, 0, 0x10, 0, 1, 3, 4], &params];
    for (n, forged) in all.iter().enumerate() {
        let mut bytes = good[..good.len() - 32].to_vec();
        bytes[at..at + params.len()].copy_from_slice(forged);
        let sum = blake3::hash(&bytes);
        bytes.extend_from_slice(sum.as_bytes());
        // Before and after the true one in the order of ids; the last is the true slot at a false key.
        for id in [format!("{n:032x}"), format!("f{n:031x}")] {
            std::fs::write(bench.region("b").join("keys").join(id), &bytes).unwrap();
        }
    }
    let begin = std::time::Instant::now();
    bench.ok(&["key", "test"]);
    let out = bench.command(&["snapshots"]).env("HOLDFAST_PASSPHRASE", "not this one").output().unwrap();
    said(&out, 12);
    assert!(begin.elapsed().as_secs() < 20, "{:?}", begin.elapsed());
}

#[test]
fn junk_in_the_way_of_a_configuration_is_passed_over() {
    let (bench, key) = with_key_file(&["a", "b"]);
    std::fs::write(bench.region("a").join("config/00000002"), b"junk").unwrap();
    let new = bench.path("new.key").display().to_string();
    json(&bench, &["--key-file", &key], &["key", "add", "--new-key-file", &new]);
    assert_eq!(configs(&bench, "a"), ["config/00000001", "config/00000002", "config/00000002.1"]);
    assert_eq!(configs(&bench, "b"), ["config/00000001", "config/00000002"]);
    // A copy under a suffix is found although nothing stands at those before it.
    std::fs::remove_file(bench.region("a").join("config/00000002")).unwrap();
    for away in ["a", "b"] {
        std::fs::rename(bench.region(away), bench.path("away")).unwrap();
        slot_of(&bench, &["--key-file", &new]);
        std::fs::rename(bench.path("away"), bench.region(away)).unwrap();
    }
}

#[test]
fn secrets_stay_secret() {
    let bench = Bench::empty(&["a", "b"]);
    small_tree(&bench.path("source"));
    let raw: Vec<u8> = b"raw-key-of-thirty-two-bytes-0123".to_vec();
    let key = secret(&bench, "k", &raw);
    let second = secret(&bench, "second", SECOND.as_bytes());
    let made = bench.command(&["--json", "init"]).output().unwrap();
    let recovery = text(&said(&made, 0).0["recovery_key"]).to_owned();
    let paper = secret(&bench, "paper", recovery.as_bytes());
    // Another last letter: not every key has a letter that could be replaced everywhere.
    let (rest, last) = recovery.split_at(recovery.len() - 1);
    let wrong = secret(&bench, "wrong", format!("{rest}{}", if last == "Q" { "P" } else { "Q" }).as_bytes());
    let new = bench.path("new").display().to_string();
    let verbs: &[(i32, &[&str])] = &[
        (0, &["backup", "--name", "s", "source"]),
        (0, &["snapshots"]),
        (0, &["ls", "latest"]),
        (0, &["cat", "latest:/tiny"]),
        (0, &["restore", "latest", "--target", "target"]),
        (0, &["verify"]),
        (0, &["verify", "--level", "ciphertext"]),
        (0, &["verify", "--level", "content"]),
        (0, &["key", "add", "--new-passphrase-file", &second]),
        (0, &["key", "add", "--new-key-file", &new]),
        (0, &["key", "list"]),
        (0, &["key", "test"]),
        (0, &["--passphrase-file", &second, "key", "test"]),
        (0, &["--recovery-key-file", &paper, "key", "test"]),
        (0, &["forget", "latest", "--last"]),
        (11, &["init"]),
        (12, &["--key-file", &key, "snapshots"]),
        (12, &["--key-file", &second, "snapshots"]),
        (12, &["--key-file", &paper, "snapshots"]),
        (12, &["--recovery-key-file", &second, "snapshots"]),
        (12, &["--recovery-key-file", &wrong, "snapshots"]),
        (12, &["--passphrase-file", &paper, "snapshots"]),
        (12, &["--passphrase-file", &key, "snapshots"]),
    ];
    let lower = recovery.to_lowercase();
    let secrets =
        [PASSPHRASE, SECOND, &recovery, &lower, "raw-key-of-thirty", "7261772d6b65792d6f66", "114, 97, 119, 45"];
    let check = |what: &dyn std::fmt::Debug, bytes: &[u8]| {
        let text = String::from_utf8_lossy(bytes);
        let found = secrets.iter().find(|secret| text.contains(&secret[..secret.len().min(24)]));
        assert_eq!(found, None, "{what:?} shows a secret");
    };
    for (n, (code, verb)) in verbs.iter().enumerate() {
        let json = (n % 2 == 0 && verb[0] != "cat").then_some("--json");
        let out = bench.command(verb).args(json).env("RUST_BACKTRACE", "1").output().unwrap();
        said(&out, *code);
        check(verb, &out.stdout);
        check(verb, &out.stderr);
    }
    for file in files(&bench.region("a")) {
        let bytes = std::fs::read(&file).unwrap();
        check(&file, &bytes);
        assert!(!bytes.windows(20).any(|w| w == b"all work and no play"), "{} shows content", file.display());
    }
}

#[test]
fn a_secret_that_is_held_opens_again_and_not_after_its_slot_is_removed() {
    let bench = Bench::new(&["a", "b"]);
    let slot = slot_of(&bench, &["--passphrase-file", &secret(&bench, "p", PASSPHRASE.as_bytes())]);
    let held = Held::new(holdfast::unlock::from_passphrase(String::from(PASSPHRASE).into()).unwrap());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let address = |name: &str| Address { name: name.into(), place: bench.region(name).into() };
    let (addresses, env) = (["a", "b"].map(address), Env::system());
    let opening =
        Opening { addresses: &addresses, copies_min: 1, pin: None, state: None, env: &env, handle: runtime.handle() };
    let first = open_held(&opening, &held).unwrap_or_else(|e| panic!("{e}"));
    let again = open_held(&opening, &held).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!((first.id, first.slot), (again.id, again.slot));
    assert!(!format!("{held:?}").contains(PASSPHRASE));
    // Another key takes its place.
    let new = bench.path("new.key").display().to_string();
    let own = bench.path("p").display().to_string();
    json(&bench, &["--passphrase-file", &own], &["key", "add", "--new-key-file", &new]);
    json(&bench, &["--key-file", &new], &["key", "remove", text(&slot["id"])]);
    let e = open_held(&opening, &held).err().expect("the slot was removed");
    assert_eq!(e.kind(), Kind::WrongKey, "{e}");
    // And what is wrong is not kept either.
    let other = Held::new(holdfast::unlock::from_passphrase(String::from(SECOND).into()).unwrap());
    for _ in 0..2 {
        assert_eq!(open_held(&opening, &other).err().map(|e| e.kind()), Some(Kind::WrongKey));
    }
}
