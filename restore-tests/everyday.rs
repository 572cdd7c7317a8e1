//! Looking for things: find, diff, stats; and the small verbs of every day.

use crate::harness::{Bench, noise, small_tree};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

/// The lines of a verb's output as JSON, without the last, and the last.
fn lines(bench: &Bench, args: &[&str]) -> (Vec<Value>, Value) {
    let (code, output) = bench.run(&[&["--json", "--quiet"], args].concat());
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(code, 0, "{args:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
    let mut lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let last = lines.pop().unwrap();
    (lines, last)
}

fn backup(bench: &Bench) -> String {
    bench.ok(&["backup", "source", "--name", "s"])["snapshot"].as_str().unwrap().to_owned()
}

fn said(bench: &Bench, code: i32, args: &[&str]) -> String {
    let (got, output) = bench.run(args);
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert_eq!(got, code, "{args:?}: {text}");
    text
}

/// Three snapshots of a wide directory, of which each differs a little from the one before.
fn three(bench: &Bench) -> [String; 3] {
    let source = bench.path("source");
    small_tree(&source);
    fs::create_dir(source.join("wide")).unwrap();
    for n in 0..6000 {
        fs::write(source.join(format!("wide/Entry-{n:05}")), b"").unwrap();
    }
    let first = backup(bench);
    fs::write(source.join("wide/Entry-03000"), noise(1, 900)).unwrap();
    let second = backup(bench);
    fs::write(source.join("wide/added"), noise(2, 70_000)).unwrap();
    [first, second, backup(bench)]
}

#[test]
fn what_is_found_comes_once_a_version_and_shared_pages_are_read_once() {
    let bench = Bench::with_key(&["a"]);
    let [first, second, third] = three(&bench);
    let found = |args: &[&str]| lines(&bench, &[&["find"], args].concat());
    let (hits, one) = found(&["--newest", "Entry-03*0"]);
    assert_eq!((hits.len(), &one["found"], &one["snapshots_searched"]), (100, &json!(100), &json!(1)), "{one:#}");
    let (hits, all) = found(&["Entry-03*0"]);
    assert_eq!((hits.len(), &all["snapshots_searched"]), (101, &json!(3)), "{all:#}");
    let pages = |report: &Value| report["tree_pages_read"].as_u64().unwrap();
    assert!(pages(&one) > 5, "{one:#}");
    // A root, a page above, and one or two of entries more for each further snapshot.
    assert!(pages(&all) <= pages(&one) + 10, "{} for three, {} for one", pages(&all), pages(&one));
    let versions: Vec<&Value> = hits.iter().filter(|hit| hit["path"] == "wide/Entry-03000").collect();
    let sizes: BTreeSet<u64> = versions.iter().map(|hit| hit["size"].as_u64().unwrap()).collect();
    assert_eq!((versions.len(), sizes), (2, BTreeSet::from([0, 900])));
    let having = |size: u64| versions.iter().find(|v| v["size"] == size).unwrap()["snapshots"].clone();
    assert_eq!((having(0), having(900)), (json!([first]), json!([third, second])));
    assert!(
        hits.iter()
            .filter(|h| h["path"] != "wide/Entry-03000")
            .all(|h| h["snapshots"] == json!([third, second, first]))
    );

    let paths =
        |args: &[&str]| found(args).0.iter().map(|hit| hit["path"].as_str().unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!(paths(&["added", "tiny"]), ["tiny", "wide/added"]);
    assert!(paths(&["ADDED"]).is_empty());
    assert_eq!(paths(&["-i", "ADDED"]), ["wide/added"]);
    assert_eq!(paths(&["docs/*", "--type", "dir"]), ["docs/deep"]);
    assert_eq!(paths(&["/docs/**/t*"]), ["docs/deep/text"]);
    assert_eq!(paths(&["*", "--type", "symlink"]), ["link"]);
    assert_eq!(paths(&["*", "--larger", "1MiB"]), ["cut"]);
    assert_eq!(paths(&["*d*", "--smaller", "69KiB", "--larger", "1KiB"]), ["wide/added"]);
    assert_eq!(paths(&["added", "--snapshot", &second]), [""; 0]);
    assert_eq!(paths(&["added", "--snapshot", &second, "--snapshot", "latest"]), ["wide/added"]);
    assert!(paths(&["tiny", "--older", "1d"]).is_empty());
    assert_eq!(paths(&["tiny", "--newer", "1d"]), ["tiny"]);
    assert!(paths(&["tiny", "--name", "other"]).is_empty());
    let text = said(&bench, 0, &["find", "tiny", "added"]);
    assert_eq!(text, format!("{}:/tiny  (3 snapshots, from {})\n{0}:/wide/added\n", &third[..8], &first[..8]));
    said(&bench, 2, &["find", "[", "x"]);
    said(&bench, 2, &["find", "x", "--newer", "soon"]);
    said(&bench, 1, &["find", "x", "--snapshot", "zz"]);
}

#[test]
fn a_difference_is_what_was_changed_and_nothing_else_is_read() {
    let bench = Bench::with_key(&["a"]);
    let [first, second, third] = three(&bench);
    let source = bench.path("source");
    fs::remove_file(source.join("whole")).unwrap();
    fs::remove_dir_all(source.join("docs/deep")).unwrap();
    fs::write(source.join("cut"), noise(3, 5_000_000)).unwrap();
    fs::remove_file(source.join("link")).unwrap();
    fs::create_dir_all(source.join("link/inside")).unwrap();
    fs::set_permissions(source.join("tiny"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::rename(source.join("docs/note-1"), source.join("docs/note-one")).unwrap();
    let fourth = backup(&bench);
    let differ = |args: &[&str]| lines(&bench, &[&["diff"], args].concat());
    let signs = |args: &[&str]| -> Vec<String> {
        let text = said(&bench, 0, &[&["diff"], args].concat());
        let lines: Vec<String> = text.lines().map(|line| line.split("  ").next().unwrap().to_owned()).collect();
        lines[..lines.len() - 1].to_vec()
    };
    let (none, same) = differ(&[&first, &first]);
    assert_eq!((none.len(), &same["tree_pages_read"]), (0, &json!(0)));
    let changed = [
        "M cut",
        "- docs/deep/",
        "- docs/deep/text",
        "- docs/note-1",
        "+ docs/note-one",
        "T link/",
        "+ link/inside/",
        "- whole",
    ];
    assert_eq!(signs(&[&third, &fourth]), changed);
    assert_eq!(signs(&[&second, &third]), ["+ wide/added"]);
    assert_eq!(signs(&[&first, &second]), ["M wide/Entry-03000"]);
    assert_eq!(
        signs(&["--metadata", &second, &third]),
        ["U ./", "U wide/", "+ wide/added"].map(String::from)[1..].to_vec()
    );
    assert!(signs(&["--metadata", &third, "latest"]).contains(&"U tiny".to_owned()));
    let (_, report) = differ(&[&third, &fourth]);
    let figures = ["added", "removed", "removed_bytes", "modified", "modified_bytes_new", "types"].map(|f| &report[f]);
    let text_bytes = 21 * 9000;
    assert_eq!(
        figures,
        [&json!(2), &json!(4), &json!(200_000 + text_bytes + 2001), &json!(1), &json!(5_000_000), &json!(1)]
    );
    // A difference of one page of a wide directory: few pages of each are read.
    let (_, narrow) = differ(&[&first, &third]);
    let (_, whole) = lines(&bench, &["find", "nothing", "--newest"]);
    let pages = |report: &Value| report["tree_pages_read"].as_u64().unwrap();
    assert!(pages(&narrow) <= 12 && pages(&narrow) < pages(&whole), "{narrow:#} {whole:#}");
    // Parts of snapshots, and files.
    assert_eq!(
        signs(&[&format!("{first}:/docs"), &format!("{fourth}:docs")]),
        changed[1..5].iter().map(|l| l.replace("docs/", "")).collect::<Vec<_>>()
    );
    assert_eq!(signs(&[&format!("{first}:/cut"), &format!("{fourth}:/cut")]), ["M cut"]);
    assert_eq!(signs(&[&format!("{first}:/tiny"), &format!("{first}:/whole")]), ["M whole"]);
    said(&bench, 1, &["diff", &first, &format!("{fourth}:/whole")]);
}

#[test]
fn figures_add_up() {
    let bench = Bench::with_key(&["a", "b"]);
    let source = bench.path("source");
    small_tree(&source);
    fs::hard_link(source.join("cut"), source.join("cut-again")).unwrap();
    let first = backup(&bench);
    fs::write(source.join("new"), noise(9, 300_000)).unwrap();
    let second = backup(&bench);
    let all = bench.ok(&["stats"]);
    assert_eq!((&all["snapshots"], &all["sources"][0]["snapshots"]), (&json!(2), &json!(2)), "{all:#}");
    let number = |value: &Value| value.as_u64().unwrap_or_else(|| panic!("{value}"));
    let of_region = |n: usize| &all["regions"][n];
    let region = crate::harness::files(&bench.region("a"));
    let bytes: u64 = region.iter().map(|path| fs::metadata(path).unwrap().len()).sum();
    // All but the mark of the region itself.
    let mark = fs::metadata(bench.region("a").join("region")).unwrap().len();
    assert_eq!(number(&of_region(0)["bytes"]), bytes - mark);
    assert_eq!(number(&of_region(0)["objects"]), region.len() as u64 - 1);
    assert_eq!(of_region(0)["kinds"], of_region(1)["kinds"]);
    let kind = |name: &str| of_region(0)["kinds"].as_array().unwrap().iter().find(|k| k["kind"] == name).unwrap();
    let packs = |class: &str| number(&all[class]["bytes_packs"]);
    assert_eq!(packs("data") + packs("trees"), number(&kind("packs")["bytes"]));
    let one = bench.ok(&["stats", &first, "--unique"]);
    let two = bench.ok(&["stats", "latest", "--unique"]);
    assert_eq!(two["snapshot"], second);
    assert_eq!((&one["alone"]["bytes"], &two["alone"]["bytes"]), (&json!(0), &json!(300_000)));
    assert_eq!(number(&two["bytes_unique"]), number(&all["data"]["bytes"]), "all there is is in the second");
    assert_eq!(number(&two["bytes"]) - number(&two["restore_bytes"]), 5_000_000, "a further name costs nothing");
    let saved = number(&all["bytes"]) as f64 / number(&all["data"]["bytes"]) as f64;
    assert!((all["dedup_ratio"].as_f64().unwrap() - saved).abs() < 0.01, "{all:#}");
    assert_eq!(bench.ok(&["stats", &first])["alone"], Value::Null);
    let text = said(&bench, 0, &["stats"]);
    assert!(text.contains("2 snapshots of 1 sources") && text.contains("region b"), "{text}");
    said(&bench, 2, &["stats", "--unique"]);
    fs::rename(bench.region("b"), bench.path("away")).unwrap();
    let (code, one) = bench.json(&["stats", "--copies-min", "1"]);
    assert_eq!((code, one["regions"][1]["failed"].is_string()), (4, true), "{one:#}");
}

#[test]
fn completions_and_manual_pages_know_every_verb() {
    let bench = Bench::empty(&[]);
    let help = said(&bench, 0, &["--help"]);
    let verbs: Vec<&str> = help
        .lines()
        .skip_while(|l| *l != "Commands:")
        .skip(1)
        .take_while(|l| !l.is_empty())
        // A further line of a long description begins further in.
        .filter_map(|line| line.strip_prefix("  ").filter(|rest| !rest.starts_with(' '))?.split_whitespace().next())
        .filter(|verb| *verb != "help")
        .collect();
    assert!(verbs.contains(&"backup") && verbs.contains(&"man"), "{help}");
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = said(&bench, 0, &["completions", shell]);
        verbs.iter().for_each(|verb| assert!(script.contains(verb), "{shell}: {verb}"));
    }
    let script = bench.path("script");
    fs::write(&script, said(&bench, 0, &["completions", "bash"])).unwrap();
    let completed = "source ./script; COMP_WORDS=(holdfast backup --stdin-f); COMP_CWORD=2; \
        _holdfast holdfast --stdin-f backup; echo ${COMPREPLY[@]}";
    let output = Command::new("bash").args(["-c", completed]).current_dir(bench.dir.path()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "--stdin-from-command --stdin-filename\n");
    let pages = bench.ok(&["man", "pages/new"]);
    let pages: BTreeSet<&str> = pages["pages"].as_array().unwrap().iter().map(|p| p.as_str().unwrap()).collect();
    let text = |page: &str| fs::read_to_string(bench.path("pages/new").join(page)).unwrap();
    for verb in &verbs {
        let page = format!("holdfast-{verb}.1");
        assert!(pages.contains(&page[..]) && text(&page).starts_with(".ie"), "{page}");
    }
    assert!(pages.contains("holdfast.1") && pages.contains("holdfast-key-add.1"), "{pages:?}");
    let page = text("holdfast-backup.1");
    assert!(page.contains(concat!("\"holdfast ", env!("CARGO_PKG_VERSION"), "\"")), "{page}");
    assert!(page.contains("stdin\\-from\\-command") && page.contains(".SH NAME\nholdfast\\-backup \\- "), "{page}");
    assert!(!text("holdfast-backup.1").contains(bench.dir.path().to_str().unwrap()));
}

/// The tags of all snapshots, oldest first.
fn tags(bench: &Bench) -> Vec<Value> {
    bench.ok(&["snapshots"])["snapshots"].as_array().unwrap().iter().map(|s| s["tags"].clone()).collect()
}

#[test]
fn tags_change_and_choose_while_manifests_stay() {
    let bench = Bench::with_key(&["a", "b"]);
    small_tree(&bench.path("source"));
    let first = bench.ok(&["backup", "source", "--name", "s", "--tag", "old"])["snapshot"].as_str().unwrap().to_owned();
    let second = backup(&bench);
    let digests = |bench: &Bench| {
        bench.ok(&["snapshots"])["snapshots"]
            .as_array()
            .unwrap()
            .iter()
            .map(|s| s["digest"].clone())
            .collect::<Vec<_>>()
    };
    let before = digests(&bench);
    let change = |args: &[&str]| bench.ok(&[&["tag"], args].concat());
    let report = change(&[&first[..8], "latest", "--add", "x", "--add", "y", "--remove", "old"]);
    assert_eq!(report["snapshots"][0]["regions"], json!(["a", "b"]), "{report:#}");
    assert_eq!(tags(&bench), [json!(["x", "y"]), json!(["x", "y"])]);
    change(&[&second, "--remove", "x"]);
    assert_eq!(tags(&bench), [json!(["x", "y"]), json!(["y"])]);
    assert_eq!(digests(&bench), before, "no manifest was touched");
    let chosen = |tag: &str| bench.ok(&["snapshots", "--tag", tag])["snapshots"].as_array().unwrap().len();
    assert_eq!((chosen("y"), chosen("x"), chosen("old")), (2, 1, 0));
    assert_eq!(bench.ok(&["ls", "latest", "--tag", "x"])["snapshot"], first);
    change(&[&second, "--set", "one", "--set", "two"]);
    let same = change(&[&second, "--add", "two"]);
    assert_eq!(
        (&same["snapshots"][0]["changed"], &same["snapshots"][0]["tags"]),
        (&json!(false), &json!(["one", "two"]))
    );
    change(&[&first, "--clear"]);
    assert_eq!(tags(&bench), [json!([]), json!(["one", "two"])]);
    bench.ok(&["verify", "--level", "content"]);
    // A region that was away gets the change with the next backup; either region alone knows it.
    fs::rename(bench.region("b"), bench.path("away")).unwrap();
    assert_eq!(bench.json(&["tag", &first, "--add", "late", "--copies-min", "1"]).0, 4);
    fs::rename(bench.path("away"), bench.region("b")).unwrap();
    backup(&bench);
    let of = |region| bench.objects(region).into_iter().filter(|o| o.starts_with("tags/")).collect::<Vec<_>>();
    assert_eq!((of("a"), of("a").len()), (of("b"), 6));
    let (_, alone) = bench.json_at(&["b"], &["snapshots"]);
    assert_eq!(alone["snapshots"][0]["tags"], json!(["late"]));
    // What is damaged changes nothing, and is found.
    for change in of("a") {
        fs::write(bench.region("a").join(&change), noise(1, 4096)).unwrap();
    }
    assert_eq!(tags(&bench)[0], json!(["late"]), "the other region has it");
    let (_, alone) = bench.json_at(&["a"], &["snapshots"]);
    assert_eq!(alone["snapshots"][0]["tags"], json!(["old"]));
    assert_eq!(bench.json(&["verify"]).0, 5);
    let wrong: [&[&str]; 5] = [
        &["tag", "latest"],
        &["tag", "--add", "x"],
        &["tag", "latest", "--add", ""],
        &["tag", "latest", "--add", "a\nb"],
        &["tag", "latest", "--set", "x", "--add", "y"],
    ];
    wrong.iter().for_each(|args| assert_eq!(bench.json(args).0, 2, "{args:?}"));
}
