//! The local catalog and the records of runs: whatever happens to the file, backups go on, and the regions bring it back.

use crate::harness::{Bench, noise, small_tree};
use holdfast::base::RunId;
use rusqlite::Connection;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;

/// A repository that a key file opens, and a small source.
fn ready(regions: &[&'static str]) -> Bench {
    let bench = Bench::with_key(regions);
    small_tree(&bench.path("source"));
    bench
}

/// The catalog's file.
fn file(bench: &Bench) -> PathBuf {
    let found = std::fs::read_dir(bench.path("state")).expect("state").flatten().map(|e| e.path());
    let mut found: Vec<PathBuf> = found.filter(|p| p.extension().is_some_and(|e| e == "sqlite")).collect();
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

/// Moves the log into the file: else it would mend what a test spoils.
fn whole(path: &Path) {
    Connection::open(path).expect("opened").pragma_update(None, "journal_mode", "DELETE").expect("one file");
}

fn aside(bench: &Bench) -> usize {
    let names = std::fs::read_dir(bench.path("state")).expect("state").flatten().map(|e| e.file_name());
    let main = |n: &str| n.contains(".aside-") && !n.ends_with("-wal") && !n.ends_with("-shm");
    names.filter(|n| main(&n.to_string_lossy())).count()
}

fn backup(bench: &Bench) -> Value {
    bench.ok(&["backup", "source", "--name", "s"])
}

/// Every run with everything about it, by id.
fn runs(bench: &Bench, more: &[&str]) -> BTreeMap<String, Value> {
    let value = bench.ok(&[&["runs", "--last", "1000"], more].concat());
    let runs = value["runs"].as_array().expect("runs").clone();
    runs.into_iter().map(|run| (run["id"].as_str().expect("an id").to_owned(), run)).collect()
}

/// Sources with their snapshots and copies.
fn sources(bench: &Bench) -> Value {
    let (_, value) = bench.json(&["status"]);
    let short = |s: &Value| json!([s["source"], s["snapshots"], s["copies"], s["success"], s["last"]]);
    value["sources"].as_array().expect("sources").iter().map(short).collect()
}

/// A name, what is done to the file, and whether there is something to set aside then.
type Spoil<'s> = (&'s str, &'s dyn Fn(&Path), bool);

#[test]
fn whatever_is_wrong_with_the_file_it_is_set_aside_and_filled_again() {
    let bench = ready(&["a", "b"]);
    backup(&bench);
    bench.ok(&["verify"]);
    let path = file(&bench);
    let newer = |path: &Path| {
        let connection = Connection::open(path).expect("opened");
        connection.pragma_update(None, "user_version", 99).expect("version");
    };
    let other = |path: &Path| {
        std::fs::remove_file(path).expect("removed");
        Connection::open(path).expect("made").execute_batch("CREATE TABLE notes (text)").expect("table");
    };
    let torn = |path: &Path| {
        // The header still looks well.
        let len = path.metadata().expect("file").len();
        let file = std::fs::OpenOptions::new().write(true).open(path).expect("opened");
        file.set_len(len / 2).expect("truncated");
    };
    let overwritten = |path: &Path| {
        let mut bytes = std::fs::read(path).expect("read");
        let len = bytes.len();
        bytes[4096..].copy_from_slice(&noise(7, len - 4096));
        std::fs::write(path, bytes).expect("written");
    };
    let spoils: [Spoil<'_>; 7] = [
        ("noise", &|path| std::fs::write(path, noise(3, 9000)).expect("written"), true),
        ("overwritten", &overwritten, true),
        ("torn", &torn, true),
        ("newer", &newer, true),
        ("another's", &other, true),
        (
            "a folder",
            &|path| {
                std::fs::remove_file(path).expect("removed");
                std::fs::create_dir(path).expect("made");
            },
            true,
        ),
        ("missing", &|path| std::fs::remove_file(path).expect("removed"), false),
    ];
    for (n, (name, spoil, kept)) in spoils.into_iter().enumerate() {
        let before = runs(&bench, &[]);
        // A log that is left beside a missing file must not be taken for the new one's.
        if kept {
            whole(&path);
        }
        spoil(&path);
        let (code, out) = bench.run(&["backup", "source", "--name", "s"]);
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert_eq!(code, 0, "{name}: {said}");
        assert_eq!(said.contains("the catalog could not be used"), kept, "{name}: {said}");
        assert!(said.contains("filled from the regions"), "{name}: {said}");
        assert_eq!(aside(&bench), if kept { n + 1 } else { n }, "{name}");
        let after = runs(&bench, &[]);
        assert_eq!(after.len(), before.len() + 1, "{name}");
        assert!(before.iter().all(|(id, run)| after.get(id) == Some(run)), "{name}");
        assert_eq!(sources(&bench)[0][1], n + 2, "{name}");
    }
}

#[test]
fn a_place_that_cannot_be_used_is_a_warning() {
    let bench = ready(&["a"]);
    std::fs::write(bench.path("no-folder"), "").expect("file");
    for state in ["no-folder", "no-folder/below", "/proc/holdfast"] {
        for args in [&["backup", "source"][..], &["verify"], &["verify", "--level", "ciphertext"]] {
            let (code, out) = bench.run(&[&["--state", state], args].concat());
            let said = String::from_utf8_lossy(&out.stderr).into_owned();
            assert_eq!(code, 0, "{state}: {said}");
            assert!(said.contains("the catalog is not used: cannot"), "{state}: {said}");
        }
        assert_eq!(bench.json(&["--state", state, "runs"]).0, 1);
    }
    // Records went to the region all the same; a check without a key leaves none.
    assert_eq!(runs(&bench, &["--from-regions"]).len(), 6);
    assert!(!bench.path("state").exists());
}

#[test]
fn every_end_is_recorded() {
    let bench = ready(&["a", "b"]);
    let mut expected = Vec::new();
    let mut end = |args: &[&str], at: &[&str]| {
        let (code, value) = bench.json_at(at, args);
        let verb = args.iter().find(|a| ["backup", "restore", "verify", "forget"].contains(a)).expect("a verb");
        expected.push(((*verb).to_owned(), code, value["exit"]["name"].as_str().expect("a name").to_owned()));
        value
    };
    let both = ["a", "b"];
    assert!(end(&["backup", "source"], &both)["run"].is_string());
    end(&["restore", "latest", "--target", "target"], &both);
    end(&["verify", "--level", "content"], &both);
    std::fs::write(bench.path("source/.holdfastignore"), "[\n").expect("file");
    end(&["backup", "source"], &both);
    std::fs::remove_file(bench.path("source/.holdfastignore")).expect("removed");
    end(&["backup", "not-there"], &both);
    end(&["restore", "abcdef", "--target", "target"], &both);
    end(&["forget", "latest"], &both);
    end(&["forget", "latest", "--last"], &both);
    std::fs::rename(bench.region("b"), bench.path("away")).expect("renamed");
    end(&["--copies-min", "1", "backup", "source"], &both);
    end(&["--copies-min", "2", "backup", "source"], &both);
    std::fs::rename(bench.path("away"), bench.region("b")).expect("renamed");
    end(&["backup", "source"], &both);
    let pack = crate::harness::files(&bench.region("a").join("packs")).remove(0);
    let sound = std::fs::read(&pack).expect("read");
    std::fs::write(&pack, noise(1, sound.len())).expect("damaged");
    end(&["verify", "--level", "content"], &both);
    assert_eq!(bench.json(&["status"]).0, 5);
    std::fs::write(&pack, &sound).expect("mended");
    end(&["verify", "--level", "ciphertext"], &both);
    assert_eq!(bench.json(&["status"]).0, 0);
    assert_eq!(
        expected.iter().map(|(_, code, _)| *code).collect::<Vec<_>>(),
        [0, 0, 0, 3, 1, 1, 0, 0, 4, 1, 0, 5, 0],
        "{expected:?}"
    );
    let all = bench.ok(&["runs", "--last", "100"]);
    let told = |run: &Value| {
        let text = |name: &str| run[name].as_str().expect("text").to_owned();
        (text("kind"), run["code"].as_i64().expect("a code") as i32, text("name"))
    };
    assert_eq!(all["runs"].as_array().expect("runs").iter().map(told).collect::<Vec<_>>(), expected);
    // Everything but the check without a key is in each region, those of the time when one was away too.
    let of_catalog = runs(&bench, &[]);
    for region in both {
        let (_, value) = bench.json_at(&[region], &["runs", "--from-regions", "--last", "100"]);
        let list = value["runs"].as_array().expect("runs");
        assert_eq!(list.len(), expected.len() - 1, "{region}");
        for run in list {
            let known = &of_catalog[run["id"].as_str().expect("an id")];
            assert_eq!(known["figures"], run["figures"]);
            assert_eq!(known["errors_total"], run["errors_total"]);
        }
    }
    let failed = runs(&bench, &["--failed"]);
    assert_eq!(failed.len(), expected.iter().filter(|(_, code, _)| *code != 0).count());
    assert!(failed.values().any(|r| r["error"].as_str().is_some_and(|e| e.contains("not-there"))));
    let partial = failed.values().find(|r| r["name"] == "partial").expect("the partial one");
    assert_eq!((&partial["errors_total"], &partial["errors"][0]["kind"].is_string()), (&json!(1), &true));
    let behind = failed.values().find(|r| r["name"] == "behind").expect("the one behind");
    assert_eq!(behind["behind"][0]["region"], "b");
    assert_eq!(runs(&bench, &["--source", "nothing"]).len(), 0);
    assert_eq!(bench.ok(&["runs", "--last", "2"])["runs"].as_array().map(Vec::len), Some(2));
}

#[test]
fn an_interrupted_run_is_recorded_and_a_dry_one_is_not() {
    let bench = ready(&["a"]);
    bench.ok(&["backup", "--dry-run", "source"]);
    assert!(!bench.path("state").exists());
    std::fs::write(bench.path("source/big"), noise(5, 120 << 20)).expect("file");
    let mut command = bench.command(&["--quiet", "backup", "source"]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
    let begun = || bench.region("a").join("sessions").read_dir().is_ok_and(|mut d| d.next().is_some());
    while !begun() {
        assert!(child.try_wait().expect("asked").is_none(), "it ended before it was interrupted");
        std::thread::yield_now();
    }
    let sent = std::process::Command::new("kill").args(["-s", "INT", &child.id().to_string()]).status();
    assert!(sent.is_ok_and(|s| s.success()));
    assert_eq!(child.wait().expect("it ends").code(), Some(130));
    for more in [&[][..], &["--from-regions"]] {
        let all = runs(&bench, more);
        assert_eq!(all.len(), 1);
        let run = all.values().next().expect("one");
        assert_eq!((&run["code"], &run["name"], &run["kind"]), (&json!(130), &json!("interrupted"), &json!("backup")));
    }
}

#[test]
fn a_rebuild_from_any_one_region_is_what_there_was() {
    let bench = ready(&["a", "b"]);
    backup(&bench);
    std::fs::write(bench.path("source/more"), "more").expect("file");
    let gone = backup(&bench)["snapshot"].as_str().expect("an id").to_owned();
    bench.ok(&["backup", "source", "--name", "t", "--full"]);
    bench.ok(&["verify", "--level", "content"]);
    bench.ok(&["restore", "latest", "--target", "target"]);
    bench.ok(&["forget", &gone]);
    let (before, known) = (runs(&bench, &[]), sources(&bench));
    assert_eq!((before.len(), known.as_array().map(Vec::len)), (6, Some(2)));
    for region in ["a", "b"] {
        std::fs::remove_dir_all(bench.path("state")).expect("removed");
        assert_eq!(bench.json(&["runs"]).0, 1);
        let (code, value) = bench.json_at(&[region], &["catalog", "rebuild"]);
        assert_eq!((code, &value["runs"], &value["snapshots"]), (0, &json!(6), &json!(2)), "{value:#}");
        assert!(value["not_brought_back"][0].as_str().is_some_and(|what| what.contains("verified when")));
        assert_eq!(runs(&bench, &[]), before);
        let other = if region == "a" { "b" } else { "a" };
        let copies = sources(&bench)[0][2].clone();
        assert_eq!(
            copies.as_array().expect("copies").iter().find(|c| c["region"] == other).expect("it")["snapshots"],
            0
        );
    }
    assert_eq!(bench.ok(&["catalog", "rebuild"])["not_brought_back"], json!([]));
    assert_eq!(sources(&bench), known);
    assert_eq!(bench.ok(&["status", "--from-regions"])["sources"].as_array().map(Vec::len), Some(2));
}

#[test]
fn several_processes_at_once_lose_nothing() {
    let bench = ready(&["a"]);
    let names: Vec<String> = (0..6).map(|n| format!("s{n}")).collect();
    // Damaged, so that all of them want to set it aside.
    backup(&bench);
    whole(&file(&bench));
    std::fs::write(file(&bench), noise(9, 5000)).expect("written");
    let start = |name: &String| {
        let mut command = bench.command(&["--quiet", "backup", "source", "--name", name]);
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts")
    };
    let children: Vec<_> = names.iter().map(start).collect();
    for mut child in children {
        assert_eq!(child.wait().expect("it ends").code(), Some(0));
    }
    assert_eq!(aside(&bench), 1);
    assert_eq!(runs(&bench, &[]).len(), 7);
    assert_eq!(sources(&bench).as_array().map(Vec::len), Some(7));
}

#[test]
fn killed_while_it_writes_the_file_stays_whole() {
    let bench = ready(&["a"]);
    backup(&bench);
    let path = file(&bench);
    let connection = Connection::open(&path).expect("opened");
    // Held, so that the run waits for its turn to write, and dies there.
    for _ in 0..4 {
        connection.execute_batch("BEGIN IMMEDIATE; DELETE FROM runs; DELETE FROM snapshots").expect("begun");
        // A staged file is no record yet.
        let records = || bench.objects("a").iter().filter(|o| o.starts_with("runs/") && !o.contains('#')).count();
        let before = records();
        let mut command = bench.command(&["--quiet", "backup", "source", "--name", "s"]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
        while records() == before {
            assert!(child.try_wait().expect("asked").is_none(), "it ended without its turn");
            std::thread::yield_now();
        }
        child.kill().expect("killed");
        child.wait().expect("it ends");
        connection.execute_batch("ROLLBACK").expect("undone");
    }
    // Killed itself in the middle of transactions, at moments that nobody chose.
    for n in 0..20u32 {
        let mut command = bench.command(&["--quiet", "catalog", "rebuild"]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
        let wal = PathBuf::from(format!("{}-wal", path.display()));
        let mut turns = 0;
        while child.try_wait().expect("asked").is_none() && (turns < n || !wal.exists()) {
            turns += 1;
            std::thread::yield_now();
        }
        let _ = child.kill();
        child.wait().expect("it ends");
    }
    drop(connection);
    let sound: String = Connection::open(&path)
        .expect("opened")
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .expect("checked");
    assert_eq!(sound, "ok");
    bench.ok(&["catalog", "rebuild"]);
    assert_eq!((runs(&bench, &[]).len(), aside(&bench)), (5, 0));
    assert_eq!(sources(&bench)[0][1], 5);
}

#[test]
fn verification_is_counted_and_an_objective_is_judged() {
    let bench = ready(&["a", "b"]);
    assert_eq!(bench.json(&["status", "--rpo", "1h"]).0, 1);
    backup(&bench);
    let region = |n: usize| bench.json(&["status"]).1["regions"][n].clone();
    assert_eq!((region(0)["coverage"].as_f64(), &region(0)["verified"]), (Some(0.0), &Value::Null));
    bench.ok(&["verify", "--level", "presence"]);
    assert_eq!(region(1)["coverage"], 0.0);
    assert_eq!(bench.json_at(&["b"], &["verify", "--level", "content"]).0, 0);
    assert_eq!((region(0)["coverage"].as_f64(), region(1)["coverage"].as_f64()), (Some(0.0), Some(1.0)));
    bench.ok(&["verify", "--level", "ciphertext"]);
    assert_eq!((&region(0)["level"], region(0)["coverage"].as_f64()), (&json!("ciphertext"), Some(1.0)));
    std::fs::write(bench.path("source/new"), noise(77, 300_000)).expect("file");
    backup(&bench);
    let share = region(0)["coverage"].as_f64().expect("a share");
    assert!(share > 0.0 && share < 1.0, "{share}");
    assert_eq!(bench.json(&["status", "--rpo", "1h"]).0, 0);
    assert_eq!(bench.json(&["status", "--rpo", "0s"]).0, 1);
    assert_eq!(bench.json(&["status", "--rpo", "soon"]).0, 2);
    std::fs::rename(bench.region("b"), bench.path("away")).expect("renamed");
    let (code, value) = bench.json(&["status"]);
    assert_eq!((code, value["regions"][1]["failed"].is_string()), (4, true));
}

#[test]
fn no_secret_is_in_it_and_it_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let bench = Bench::new(&["a"]);
    small_tree(&bench.path("source"));
    std::fs::write(bench.path("source/secret"), "plaintext-of-a-file-5150").expect("file");
    backup(&bench);
    bench.ok(&["verify", "--level", "content"]);
    let wrong = bench.command(&["backup", "source"]).env("HOLDFAST_PASSPHRASE", "not-the-right-one-8823").output();
    assert_eq!(wrong.expect("it runs").status.code(), Some(12));
    let mode = |path: &Path| path.metadata().expect("there").permissions().mode() & 0o777;
    assert_eq!(mode(&bench.path("state")), 0o700);
    for path in crate::harness::files(&bench.path("state")) {
        assert_eq!(mode(&path), 0o600, "{}", path.display());
        let bytes = std::fs::read(&path).expect("read");
        for secret in [crate::harness::PASSPHRASE, "plaintext-of-a-file-5150", "not-the-right-one-8823"] {
            let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "{secret} is in {}", path.display());
        }
    }
}

#[test]
fn a_forged_or_swapped_record_is_not_believed() {
    let bench = ready(&["a"]);
    backup(&bench);
    backup(&bench);
    let records = crate::harness::files(&bench.region("a").join("runs"));
    let copy = records[0].with_file_name(RunId([7; 16]).hex());
    std::fs::copy(&records[0], &copy).expect("copied");
    let (code, value) = bench.json(&["catalog", "rebuild"]);
    assert_eq!((code, &value["runs"], &value["runs_lost"]), (5, &json!(2), &json!(1)), "{value:#}");
    assert_eq!(bench.json(&["verify"]).0, 5);
}

#[test]
fn the_newest_snapshots_without_a_key() {
    let bench = ready(&["a", "b"]);
    let ids: Vec<Value> = (0..3).map(|_| backup(&bench)["snapshot"].clone()).collect();
    bench.ok(&["backup", "source", "--name", "other"]);
    let listed = |args: &[&str]| {
        let value = bench.ok(args);
        let ids = value["snapshots"].as_array().expect("snapshots").iter().map(|s| s["id"].clone());
        (ids.collect::<Vec<_>>(), value["total"].clone())
    };
    assert_eq!(listed(&["snapshots", "--name", "s", "--last", "2"]).0, ids[1..]);
    std::fs::rename(bench.path("key"), bench.path("hidden")).expect("renamed");
    assert_eq!(listed(&["snapshots", "--local", "--name", "s", "--last", "2"]), (ids[1..].to_vec(), json!(3)));
    let (all, total) = listed(&["snapshots", "--local"]);
    assert_eq!((all.len(), total), (4, json!(4)));
    assert_eq!(listed(&["snapshots", "--local", "--name", "nobody"]), (vec![], json!(0)));
}
