//! Validly signed snapshots that lie. Whatever they say: nothing outside the target changes, nothing goes on for
//! ever, and what cannot be restored is named.

pub mod craft;

use crate::harness::noise;
use craft::{Villain, file, list, named, symlink};
use holdfast::base::ChunkId;
use holdfast::format::snapshot::Counts;
use holdfast::format::tree::{Entry, EntryType, Item, Xattr};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, symlink as link};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

fn item(id: ChunkId, len: u64) -> Item {
    Item { id, len }
}

#[test]
fn names_that_lead_out_are_refused() {
    let villain = Villain::new();
    let long = "x".repeat(256);
    let absolute = villain.outside().join("canary").display().to_string();
    let names = ["..", ".", "", "a/b", "/", "../../outside/canary", "nul\0nul", &long, &absolute];
    for name in names {
        let name = name.as_bytes();
        let sid = villain.snapshot(|craft| {
            let dir = craft.dir(name, vec![file(b"canary", b"dead")]);
            craft.dir(b"", vec![dir])
        });
        let kinds = [file(name, b"dead"), symlink(name, &villain.outside()), named(name, EntryType::Fifo, 0o644)];
        let sids = kinds.map(|entry| villain.of(vec![entry]));
        for sid in sids.iter().chain([&sid]) {
            let target = villain.target();
            let (code, report) = villain.restore(sid, &["--delete"]);
            assert_eq!((code, report["errors_total"].as_u64()), (3, Some(1)), "{name:?}: {report:#}");
            assert_eq!(std::fs::read_dir(target).unwrap().count(), 0, "{name:?}");
        }
    }
}

#[test]
fn names_that_come_twice_are_refused() {
    let villain = Villain::new();
    let twice = |craft: &mut craft::Craft<'_, '_>| {
        let dir = craft.dir(b"x", vec![file(b"canary", b"dead")]);
        vec![symlink(b"x", &villain.outside()), dir]
    };
    let in_one = villain.snapshot(|craft| {
        let entries = twice(craft);
        craft.dir(b"", entries)
    });
    let in_two = villain.snapshot(|craft| {
        let pages = twice(craft).into_iter().map(|entry| craft.page(vec![entry])).collect::<Vec<_>>();
        // The second page is said to begin with another name, so that the children are in order.
        let tree = craft.above(1, &[("x", pages[0]), ("y", pages[1])]);
        Entry { tree: Some(tree), ..named(b"", EntryType::Dir, 0o755) }
    });
    let backwards = villain.snapshot(|craft| {
        let pages = [b"b", b"a"].map(|name| craft.page(vec![file(name, b"content")]));
        let tree = craft.above(1, &[("b", pages[0]), ("c", pages[1])]);
        Entry { tree: Some(tree), ..named(b"", EntryType::Dir, 0o755) }
    });
    for sid in [in_one, in_two, backwards] {
        villain.target();
        let (code, report) = villain.restore(&sid, &[]);
        assert_eq!((code, report["lost"].as_u64()), (5, Some(1)), "{report:#}");
        let (code, report) = villain.run(&["verify"]);
        assert!(code == 5 && report["broken"].to_string().contains(&sid[..8]), "{report:#}");
    }
}

#[test]
fn a_record_that_an_index_names_for_two_chunks_is_one_of_them() {
    let villain = Villain::new();
    let [real, said] = [1, 2].map(|seed| noise(seed, 100_000));
    let of = |name: &str, id| Entry {
        size: Some(100_000),
        chunks: Some(list(&[item(id, 100_000)]).into()),
        ..named(name.as_bytes(), EntryType::File, 0o644)
    };
    let (first, second) = (villain.id_of(&real), villain.id_of(&said));
    let sid = villain.snapshot(|craft| {
        craft.chunk(&real);
        craft.dir(b"", vec![of("a", first), of("b", second), of("c", first)])
    });
    villain.mislead(&real, &said);
    let target = villain.target();
    let (code, report) = villain.restore(&sid, &[]);
    assert!(!target.join("b").exists(), "other bytes than the snapshot's: {report:#}");
    assert_eq!((code, report["lost"].as_u64(), report["files"].as_u64()), (5, Some(1), Some(2)), "{report:#}");
    assert!(["a", "c"].iter().all(|name| std::fs::read(target.join(name)).unwrap() == real));
}

#[test]
fn links_in_the_target_are_replaced_and_never_followed() {
    let villain = Villain::new();
    let sid = villain.snapshot(|craft| {
        let inner = craft.dir(b"inner", vec![file(b"canary", b"new")]);
        let dir = craft.dir(b"dir", vec![file(b"canary", b"new"), inner]);
        craft.dir(b"", vec![file(b"canary", b"new"), dir, named(b"pipe", EntryType::Fifo, 0o600)])
    });
    for more in [&[][..], &["--delete"]] {
        for planted in ["canary", "dir", "dir/canary", "dir/inner", "dir/inner/canary", "pipe"] {
            let target = villain.target();
            let at = target.join(planted);
            std::fs::create_dir_all(at.parent().unwrap()).unwrap();
            let to = if planted.ends_with("canary") { villain.outside().join("canary") } else { villain.outside() };
            link(to, &at).unwrap();
            link(villain.outside(), target.join("other")).unwrap();
            let (code, report) = villain.restore(&sid, more);
            assert_eq!(code, 0, "{planted}: {report:#}");
            for name in ["canary", "dir/canary", "dir/inner/canary"] {
                assert_eq!(std::fs::read(target.join(name)).unwrap(), b"new", "{planted}");
            }
            assert_eq!(target.join("other").is_symlink(), more.is_empty());
        }
        // A hard link to something outside must be replaced too.
        let target = villain.target();
        std::fs::hard_link(villain.bench.path("place/canary"), target.join("canary")).unwrap();
        let state = || {
            let meta = std::fs::metadata(villain.bench.path("place/canary")).unwrap();
            (meta.mode(), meta.uid(), meta.mtime(), meta.mtime_nsec())
        };
        let before = state();
        let done = villain.run(&[&["restore", &sid, "--target", &target.display().to_string()], more].concat());
        assert_eq!(done.0, 0, "{:#}", done.1);
        assert_eq!(std::fs::read(villain.bench.path("place/canary")).unwrap(), b"alive");
        assert_eq!(state(), before);
    }
}

#[test]
fn hard_links_stay_inside() {
    let villain = Villain::new();
    let grouped = |entry: Entry| Entry { nlink: Some(2), dev: Some(1), inode: 77, ..entry };
    let device = Entry { rdev_major: Some(1), rdev_minor: Some(3), ..named(b"a", EntryType::CharDevice, 0o666) };
    let firsts = [symlink(b"a", &villain.outside().join("canary")), file(b"..", b"dead"), device, file(b"a", b"first")];
    for first in firsts {
        let kind = first.kind;
        let sid = villain.of(vec![grouped(first), grouped(file(b"b", b"second"))]);
        for more in [&[][..], &["--no-devices"]] {
            let target = villain.target();
            std::fs::write(target.join("a"), b"what stood there").unwrap();
            let (code, report) = villain.restore(&sid, more);
            assert!(matches!(code, 0 | 3), "{report:#}");
            if kind == EntryType::CharDevice && !more.is_empty() {
                assert_eq!(std::fs::read(target.join("a")).unwrap(), b"what stood there", "{report:#}");
            }
        }
    }
}

#[test]
fn content_that_does_not_add_up_is_named() {
    let villain = Villain::new();
    let sid = villain.snapshot(|craft| {
        let id = craft.chunk(&[1; 1000]);
        let chunks = |name: &str, size: u64, items: &[Item]| Entry {
            size: Some(size),
            chunks: Some(list(items).into()),
            ..named(name.as_bytes(), EntryType::File, 0o644)
        };
        let pages = |name: &str, size: u64, page, level| Entry {
            size: Some(size),
            list: Some(holdfast::format::tree::ListRef { page, level }),
            ..named(name.as_bytes(), EntryType::File, 0o644)
        };
        let leaf = craft.list(0, &[item(id, 1000)]);
        let nothing = craft.list(0, &[item(id, 0); 1000]);
        let mut bomb = nothing;
        for level in 1..=8 {
            bomb = craft.list(level, &vec![item(bomb, 0); 100_000]);
        }
        let liar = craft.list(1, &[item(leaf, 1 << 62), item(leaf, 1 << 62), item(leaf, 1 << 62)]);
        let mut inline = file(b"inline", b"short");
        inline.size = Some(1 << 40);
        let mut both = file(b"both", b"content");
        both.chunks = Some(list(&[item(id, 7)]).into());
        let mut entries = vec![
            both,
            pages("bomb", 0, bomb, 8),
            pages("bomb-sized", 5, bomb, 8),
            chunks("empty-pieces", 0, &[item(id, 0); 64]),
            chunks("huge", 1 << 63, &[item(id, 1 << 63)]),
            chunks("huge-hole", 1 << 63, &[item(ChunkId::HOLE, 1 << 63)]),
            inline,
            pages("level-above-all", 1000, leaf, 200),
            pages("level-lie", 1000, leaf, 3),
            chunks("long", 1000, &[item(id, 999)]),
            pages("overflow", u64::MAX, liar, 1),
            chunks("short", 2000, &[item(id, 1000)]),
            chunks("torn-list", 1000, &[]),
            chunks("two-short", 1000, &[item(id, 500), item(id, 500)]),
        ];
        entries[12].chunks = Some(vec![1; 39].into());
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        entries.push(file(b"zz-good", b"good"));
        craft.dir(b"", entries)
    });
    let target = villain.target();
    let (code, report) = villain.restore(&sid, &[]);
    assert!(matches!(code, 3 | 5), "{report:#}");
    assert_eq!(report["errors_total"], 14, "{report:#}");
    let there: Vec<_> = std::fs::read_dir(&target).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(there, ["zz-good"], "{report:#}");
    let (code, _) = villain.run(&["verify"]);
    assert_eq!(code, 5);
}

#[test]
fn holes_of_any_size_end() {
    let villain = Villain::new();
    let hole = Entry {
        size: Some(1 << 62),
        chunks: Some(list(&[item(ChunkId::HOLE, 1 << 62)]).into()),
        ..named(b"hole", EntryType::File, 0o644)
    };
    let sid = villain.of(vec![hole, file(b"zz-good", b"good")]);
    let target = villain.target();
    let (code, report) = villain.restore(&sid, &[]);
    assert!(matches!(code, 0 | 3), "{report:#}");
    assert_eq!(std::fs::read(target.join("zz-good")).unwrap(), b"good");
}

#[test]
fn trees_that_name_pages_many_times_end() {
    let villain = Villain::new();
    let over = |craft: &mut craft::Craft<'_, '_>, leaf: ChunkId| {
        let firsts: Vec<String> = (0..20_000).map(|n| format!("{n:06}")).collect();
        let mut page = leaf;
        for level in 1..=8 {
            page = craft.above(level, &firsts.iter().map(|f| (f.as_str(), page)).collect::<Vec<_>>());
        }
        Entry { tree: Some(page), ..named(b"", EntryType::Dir, 0o755) }
    };
    let empty = villain.snapshot(|craft| {
        let leaf = craft.page(Vec::new());
        over(craft, leaf)
    });
    let full = villain.snapshot(|craft| {
        let leaf = craft.page(vec![file(b"000000", b"")]);
        over(craft, leaf)
    });
    // Directories may well share what is below them; but not for ever.
    let counts = Counts { files: 10, dirs: 100, ..Counts::default() };
    let shared = villain.counted(counts, |craft| {
        let mut tree = craft.page(vec![file(b"leaf", b"")]);
        for _ in 0..60 {
            let twin = |name: &[u8]| Entry { tree: Some(tree), ..named(name, EntryType::Dir, 0o755) };
            let both = vec![twin(b"left"), twin(b"right")];
            tree = craft.page(both);
        }
        Entry { tree: Some(tree), ..named(b"", EntryType::Dir, 0o755) }
    });
    for sid in [empty, full, shared] {
        villain.target();
        let (code, report) = villain.restore(&sid, &[]);
        assert_eq!(code, 5, "{report:#}");
    }
    let (code, report) = villain.run(&["verify"]);
    assert_eq!(code, 5, "{report:#}");
}

#[test]
fn very_deep_directories_are_named_and_the_rest_comes_back() {
    let villain = Villain::new();
    let sid = villain.snapshot(|craft| {
        let mut dir = craft.dir(b"d", vec![file(b"deepest", b"content")]);
        for _ in 0..5000 {
            dir = craft.dir(b"d", vec![dir]);
        }
        craft.dir(b"", vec![dir, file(b"zz-good", b"good")])
    });
    let target = villain.target();
    let (code, report) = villain.restore(&sid, &[]);
    assert_eq!((code, report["errors_total"].as_u64()), (3, Some(1)), "{:#}", report["exit"]);
    assert_eq!(std::fs::read(target.join("zz-good")).unwrap(), b"good");
    let (code, _) = villain.run(&["ls", "--recursive", &sid]);
    assert_eq!(code, 5);
    // Too deep for a walk that names paths.
    assert!(std::process::Command::new("rm").arg("-rf").arg(&target).status().unwrap().success());
}

#[test]
fn pages_that_are_no_pages_are_refused() {
    let villain = Villain::new();
    let good = holdfast::format::cbor::encode(&holdfast::format::tree::Page {
        level: 0,
        entries: Some(vec![file(b"a", b"content")]),
        children: None,
    });
    // One more key in the page's map; a level that has no entries; nothing; something else.
    let mut more = good.clone();
    more[0] += 1;
    more.extend([0x18, 0x63, 0x01]);
    let mut level = good.clone();
    level[2] = 5;
    for bytes in [more, level, good[..good.len() - 1].to_vec(), vec![0xf6], vec![0x9b; 100], vec![0x81; 10_000]] {
        let sid =
            villain.snapshot(|craft| Entry { tree: Some(craft.raw(&bytes)), ..named(b"", EntryType::Dir, 0o755) });
        villain.target();
        let (code, report) = villain.restore(&sid, &[]);
        assert_eq!((code, report["lost"].as_u64()), (5, Some(1)), "{report:#}");
    }
}

/// A restore of this snapshot by somebody without rights.
fn unprivileged(villain: &Villain, sid: &str) -> (i32, serde_json::Value) {
    let target = villain.target();
    let owner = |path: &Path| std::os::unix::fs::chown(path, Some(65534), Some(65534)).unwrap();
    owner(&target);
    let readable = |path: &Path| std::process::Command::new("chmod").args(["-R", "a+rX"]).arg(path).status().unwrap();
    assert!(readable(villain.bench.dir.path()).success());
    owner(&villain.bench.path("key"));
    // The program may lie where only root can go.
    let program = villain.bench.path("holdfast");
    if !program.exists() {
        std::fs::copy(env!("CARGO_BIN_EXE_holdfast"), &program).unwrap();
    }
    let mut command = std::process::Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(program).args(["--json", "--quiet"]);
    for name in ["a", "b"] {
        command.arg("--region").arg(format!("{name}={}", villain.bench.region(name).display()));
    }
    command.arg("--key-file").arg(villain.bench.path("key"));
    command.args(["restore", sid, "--target"]).arg(target).current_dir(villain.bench.dir.path());
    let out = command.output().unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    (out.status.code().unwrap(), serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text} {out:?}")))
}

#[test]
fn what_needs_rights_is_named_where_there_are_none() {
    let villain = Villain::new();
    let device = Entry { rdev_major: Some(1), rdev_minor: Some(3), ..named(b"device", EntryType::CharDevice, 0o666) };
    let attribute = |name: &str| Xattr { name: name.as_bytes().to_vec().into(), value: b"v".to_vec().into() };
    let mut attributes = file(b"attributes", b"content");
    attributes.xattrs = Some(vec![attribute("security.capability"), attribute("trusted.x"), attribute("user.x")]);
    let sid = villain.of(vec![attributes, device, Entry { mode: 0o6755, ..file(b"setuid", b"content") }]);
    let (code, report) = unprivileged(&villain, &sid);
    assert_eq!(code, 3, "{report:#}");
    let target = villain.bench.path("place/target");
    assert!(!target.join("device").exists());
    let errors = report["errors"].to_string();
    assert!(["device", "security.capability", "trusted.x"].iter().all(|what| errors.contains(what)), "{report:#}");
    assert_eq!(std::fs::read(target.join("setuid")).unwrap(), b"content");
    // With rights all of it is made, and devices are left out when asked.
    let target = villain.target();
    let (code, report) = villain.restore(&sid, &["--no-devices"]);
    assert_eq!(code, 3, "{report:#}");
    assert!(!target.join("device").exists());
    assert_eq!(std::fs::metadata(target.join("setuid")).unwrap().mode() & 0o7777, 0o6755);
}

#[test]
fn names_do_not_reach_the_terminal_raw() {
    let villain = Villain::new();
    let evil = b"evil\x1b]0;owned\x07\nLOST: everything\x9b2J\x7f";
    let text = "evil\u{1b}[2J\u{9b}2J\nLOST: everything".as_bytes();
    let mut bad = file(evil, b"content");
    bad.size = Some(99);
    let mut also = file(text, b"content");
    also.size = Some(99);
    let mut entries = vec![bad, also, symlink(b"link", Path::new("\u{1b}[31mred"))];
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    let sid = villain.of(entries);
    let target = villain.target().display().to_string();
    let argument = std::ffi::OsStr::from_bytes(b"\x1b[2J").to_string_lossy().into_owned();
    let missing = format!("{sid}:/{argument}");
    let runs: [&[&str]; 6] = [
        &["ls", "--long", &sid],
        &["ls", &sid],
        &["restore", &sid, "--target", &target],
        &["--json", "restore", &sid, "--target", &target],
        &["verify"],
        &["ls", &missing],
    ];
    for args in runs {
        let mut command = villain.bench.command(&["--key-file", "key"]);
        let out = command.args(args).output().unwrap();
        let said = [out.stdout, out.stderr].concat();
        let lossy = String::from_utf8_lossy(&said);
        assert!(!lossy.chars().any(|c| c.is_control() && c != '\n'), "{args:?}: {lossy:?}");
        assert!(!lossy.contains('\u{fffd}'), "{args:?}: {lossy:?}");
        assert!(!lossy.lines().any(|l| l.starts_with("LOST: everything")), "{args:?}: {lossy}");
    }
}

#[test]
fn a_directory_that_is_swapped_for_a_link_meanwhile_lets_nothing_out() {
    let villain = Villain::new();
    let sid = villain.snapshot(|craft| {
        let dirs = (0..8u8).map(|n| {
            let files = (0..40u8).map(|f| file(format!("file-{f:02}").as_bytes(), &[f; 300])).collect();
            craft.dir(format!("dir-{n}").as_bytes(), files)
        });
        let dirs = dirs.collect();
        craft.dir(b"", dirs)
    });
    let target = villain.target();
    for n in 0..8 {
        std::fs::create_dir(target.join(format!("dir-{n}"))).unwrap();
        link(villain.outside(), target.join(format!("link-{n}"))).unwrap();
    }
    let stop = AtomicBool::new(false);
    let swaps = std::thread::scope(|scope| {
        let swapper = scope.spawn(|| {
            let mut swaps = 0u64;
            while !stop.load(Ordering::Relaxed) && swaps < 10_000_000 {
                let n = swaps % 8;
                let (dir, other) = (target.join(format!("dir-{n}")), target.join(format!("link-{n}")));
                let flags = rustix::fs::RenameFlags::EXCHANGE;
                let _ = rustix::fs::renameat_with(rustix::fs::CWD, dir, rustix::fs::CWD, other, flags);
                swaps += 1;
            }
            swaps
        });
        for _ in 0..15 {
            let (code, report) = villain.restore(&sid, &[]);
            assert!(matches!(code, 0 | 3), "{report:#}");
        }
        stop.store(true, Ordering::Relaxed);
        swapper.join().unwrap()
    });
    assert!(swaps > 100, "{swaps} swaps are too few");
    assert_eq!(std::fs::read_dir(villain.outside()).unwrap().count(), 1);
}

#[test]
fn models_that_are_not_what_was_recorded_are_not_restored() {
    use holdfast::model::recorded::{ATTRIBUTE, Recorded};
    let with = |name: &[u8], content: &[u8], verdict: Vec<u8>| {
        let xattr = Xattr { name: ATTRIBUTE.to_vec().into(), value: verdict.into() };
        Entry { xattrs: Some(vec![xattr]), ..file(name, content) }
    };
    let villain = Villain::new();
    let good = || Recorded::of(b"good").value();
    let bomb = [&b"{\"v\":"[..], &b"[".repeat(60_000)].concat();
    let sid = villain.models(vec![
        with(b"bad", b"dead", good()),
        with(b"good", b"good", good()),
        with(b"none", b"none", bomb),
        file(b"other", b"other"),
    ]);
    let target = villain.target();
    let (code, report) = villain.restore(&sid, &[]);
    let figures = ["lost", "checked", "files"].map(|field| report[field].as_u64());
    assert_eq!((code, figures), (5, [Some(1), Some(1), Some(3)]), "{report:#}");
    assert_eq!(report["errors"][0]["path"], "bad");
    let left = std::fs::read_dir(&target).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut left: Vec<String> = left.collect();
    left.sort();
    assert_eq!(left, ["good", "none", "other"]);
    // What has no verdict that is understood is not known to be harmless.
    let (code, said) = villain.restore(&sid, &["--trust-pickle", "refuse"]);
    assert_eq!(code, 11, "{said:#}");
    let (code, said) = villain.run(&["model", "check", "--snapshot", &sid]);
    assert_eq!((code, said["errors_total"].as_u64()), (3, Some(2)), "{said:#}");
}

/// As a program would have recorded it that knew less, or one that lied.
#[test]
fn files_that_are_recorded_as_harmless_are_judged_again() {
    use crate::trust::pickles;
    use holdfast::model::recorded::{ATTRIBUTE, Recorded};
    let with = |name: &[u8], content: &[u8], verdict: &Recorded| {
        let xattr = Xattr { name: ATTRIBUTE.to_vec().into(), value: verdict.value().into() };
        Entry { xattrs: Some(vec![xattr]), ..file(name, content) }
    };
    let villain = Villain::new();
    let (bad, good, text) =
        (pickles::by_lines("os", "system"), pickles::by_values("collections", "OrderedDict"), b"words");
    let mild = Recorded::new(Recorded::of(&bad).sha256, Recorded::of(&good).pickle);
    let sid = villain.models(vec![
        with(b"bad", &bad, &mild),
        with(b"good", &good, &Recorded::of(&good)),
        with(b"other", text, &Recorded::of(b"other words")),
        file(b"unjudged", text),
    ]);
    let check = ["model", "check", "--snapshot", &sid];
    let (code, said) = villain.run(&check);
    assert_eq!((code, &said["unsafe"], said.get("again")), (3, &0.into(), None), "{said:#}");
    let (code, said) = villain.run(&[&check[..], &["--again"]].concat());
    let figures = ["unsafe", "safe", "none", "errors_total"].map(|field| said[field].as_u64());
    assert_eq!((code, figures), (5, [1, 1, 2, 0].map(Some)), "{said:#}");
    let again = &said["again"];
    let figures = ["files", "others_total", "hashes", "lost"].map(|field| again[field].as_u64());
    assert_eq!(figures, [4, 3, 1, 0].map(Some), "{again:#}");
    let others = again["others"].as_array().unwrap().iter();
    let others: Vec<_> =
        others.map(|o| [&o["path"], &o["was"], &o["now"], &o["hash"]].map(ToString::to_string)).collect();
    let wanted = [
        ["\"bad\"", "\"safe\"", "\"unsafe\"", "false"],
        ["\"other\"", "\"none\"", "\"none\"", "true"],
        ["\"unjudged\"", "null", "\"none\"", "false"],
    ];
    assert_eq!(others, wanted);
    assert!(said["files"][0]["findings"].to_string().contains("system"), "{said:#}");
    let out = villain.bench.command(&["--key-file", "key"]).args(check).arg("--again").output().unwrap();
    let text = String::from_utf8(out.stdout).unwrap();
    let said = ["bad: was safe, is unsafe\n", "other: was none, is none; ANOTHER HASH is recorded\n"];
    assert!(said.iter().all(|line| text.contains(&format!("OTHERWISE {line}"))), "{text}");
    assert!(text.ends_with("4 files judged again, 3 of them otherwise than recorded\n"), "{text}");
    // Of what is as it was recorded nothing is said.
    let same = villain.models(vec![with(b"good", &good, &Recorded::of(&good))]);
    let (code, said) = villain.run(&["model", "check", "--snapshot", &same, "--again"]);
    assert_eq!((code, &said["again"]["others_total"], &said["again"]["files"]), (0, &0.into(), &1.into()), "{said:#}");
    assert_eq!(villain.run(&["model", "check", "--again", "x"]).0, 2, "of files there is nothing recorded");
}

#[test]
fn files_that_lie_about_their_chunks_are_named_and_the_rest_is_looked_into() {
    let villain = Villain::new();
    let model = |value: u8| {
        let header = r#"{"a":{"dtype":"U8","shape":[100000],"data_offsets":[0,100000]}}"#;
        [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &vec![value; 100_000]].concat()
    };
    let stored = |name: &str, size: usize, chunks: Vec<Item>| Entry {
        size: Some(size as u64),
        chunks: Some(list(&chunks).into()),
        ..named(name.as_bytes(), EntryType::File, 0o644)
    };
    let [one, two] = [1, 2].map(model);
    let len = one.len();
    let sids = [&one, &two].map(|bytes| {
        let id = villain.id_of(bytes);
        villain.snapshot(|craft| {
            craft.chunk(bytes);
            let entries = vec![
                stored("ends-early", 3 * len, vec![item(id, len as u64)]),
                stored("good", len, vec![item(id, len as u64)]),
                stored("no-such-chunk", len, vec![item(ChunkId([9; 32]), len as u64)]),
                stored("other-length", len, vec![item(id, len as u64 - 1), item(id, 1)]),
                symlink(b"self", Path::new("self")),
                symlink(b"up", Path::new("../../../../good")),
            ];
            craft.dir(b"", entries)
        })
    });
    let (code, said) = villain.run(&["ls", &sids[0], "--tensors"]);
    let sums = ["models", "malformed", "unread"].map(|sum| said["tensors"][sum].as_u64());
    assert_eq!((code, sums), (5, [1, 1, 2].map(Some)), "{said:#}");
    let (code, said) = villain.run(&["diff", &sids[0], &sids[1], "--tensors"]);
    let tensors = &said["tensors"];
    let sums = ["models", "changed", "not_compared_total"].map(|sum| tensors[sum].as_u64());
    assert_eq!((code, sums), (5, [1, 1, 2].map(Some)), "{said:#}");
}
