//! Regions that fail: away, lost, swapped, read-only, damaged; and several writers in the same regions.

use crate::crash::{complete_alone, fill, interfere, regions_agree, restores, sids, spread, text};
use crate::harness::{Bench, assert_same, end, start};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

fn with_source(regions: &[&'static str]) -> (Bench, PathBuf) {
    let bench = Bench::with_key(regions);
    let source = bench.path("source");
    fill(&source, 1, 10, 80_000);
    (bench, source)
}

fn id_of(value: &Value) -> String {
    value["snapshot"].as_str().unwrap_or_else(|| panic!("no snapshot: {value:#}")).to_owned()
}

/// The first region that is behind, and why.
fn behind(value: &Value) -> (String, String) {
    let first = &value["behind"][0];
    (first["region"].as_str().unwrap_or_default().into(), first["why"].as_str().unwrap_or_default().into())
}

#[test]
fn a_region_that_is_away_is_brought_up_when_it_comes_back() {
    let (bench, source) = with_source(&["a", "b"]);
    let away = bench.path("away");
    std::fs::rename(bench.region("b"), &away).unwrap();
    let args = ["--copies-min", "1", "backup", text(&source)];
    let (code, value) = bench.json(&args);
    assert_eq!((code, &value["regions"]), (4, &json!(["a"])), "{value:#}");
    assert!(behind(&value).1.contains("is the disk mounted?"), "{value:#}");
    assert!(!bench.region("b").exists(), "only init makes a folder");
    let first = id_of(&value);
    restores(&bench, &first, &source, "b away");
    std::fs::rename(&away, bench.region("b")).unwrap();
    let value = bench.ok(&args);
    assert_eq!(value["caught_up"]["snapshots"], 1, "{value:#}");
    assert!(value["caught_up"]["objects"].as_u64() >= Some(4), "{value:#}");
    regions_agree(&bench, "b back");
    let (code, value) = bench.json_at(&["b"], &["restore", &first, "--target", "from-b"]);
    assert_eq!(code, 0, "{value:#}");
    assert_same(&source, &bench.path("from-b"));
}

#[test]
fn too_few_copies_is_a_failure_and_the_copy_that_was_made_is_kept() {
    let (bench, source) = with_source(&["a", "b"]);
    let away = bench.path("away");
    std::fs::rename(bench.region("b"), &away).unwrap();
    let (code, value) = bench.json(&["--copies-min", "2", "backup", text(&source)]);
    assert_eq!((code, &value["regions"], behind(&value).0.as_str()), (1, &json!(["a"]), "b"), "{value:#}");
    let sid = id_of(&value);
    restores(&bench, &sid, &source, "one copy");
    std::fs::rename(&away, bench.region("b")).unwrap();
    let value = bench.ok(&["backup", text(&source)]);
    assert_eq!((&value["bytes_new"], &value["caught_up"]["snapshots"]), (&json!(0), &json!(1)), "{value:#}");
    regions_agree(&bench, "b back");
}

#[test]
fn a_region_replaced_by_an_empty_folder_is_named_and_left_empty() {
    let (bench, source) = with_source(&["a", "b"]);
    let sid = id_of(&bench.ok(&["backup", text(&source)]));
    std::fs::remove_dir_all(bench.region("b")).unwrap();
    std::fs::create_dir(bench.region("b")).unwrap();
    std::fs::write(source.join("more"), b"more").unwrap();
    let (code, value) = bench.json(&["--copies-min", "1", "backup", text(&source)]);
    assert_eq!((code, behind(&value).0.as_str()), (4, "b"), "{value:#}");
    assert!(behind(&value).1.contains("there is no repository here"), "{value:#}");
    let (code, value) = bench.json(&["verify", "--level", "content"]);
    assert_eq!(code, 4, "{value:#}");
    assert!(value.to_string().contains("there is no repository here"), "{value:#}");
    let (code, value) = bench.json(&["restore", &sid, "--target", "target", "--no-repair"]);
    assert_eq!(code, 0, "{value:#}");
    let (code, value) = bench.json_at(&["b"], &["snapshots"]);
    assert_eq!(code, 10, "{value:#}");
    assert_eq!(bench.objects("b"), Vec::<String>::new());
}

/// Whatever happened, no mount is left behind.
struct Unmounted<'b>(&'b Bench);

impl Drop for Unmounted<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-ql").arg(self.0.region("b")).status();
    }
}

/// What happens to region b while a backup runs, and how it comes back.
fn taken_away(prepare: &str, take: &str, bring: &str) {
    let (bench, source) = with_source(&["a", "b"]);
    let args = ["--copies-min", "1", "--json", "--quiet", "backup", text(&source)];
    let steps = interfere(&bench.copy(), "count", 0, &args).steps.len();
    for at in spread(steps, 1) {
        let case = bench.copy();
        let shell = |line: &str| line.replace("DIR", text(case.dir.path()));
        let _unmounted = Unmounted(&case);
        run_shell(&shell(prepare));
        let ended = interfere(&case, &format!("hook:{}", shell(take)), at, &args);
        let context = format!("region b taken away at step {at} of {steps}: {}", ended.said);
        assert_eq!(ended.code, 0, "{context}");
        let leaked = case.objects("b");
        run_shell(&shell(bring));
        assert_eq!(leaked, Vec::<String>::new(), "{context}: written where the region is not");
        // It said that region b is complete, so it is, whatever was at its path meanwhile.
        let visible = case.json_at(&["b"], &["snapshots"]).1["snapshots"].as_array().map(Vec::len);
        assert_eq!(visible, Some(1), "{context}");
        complete_alone(&case, &context);
        case.ok(&args[4..]);
        regions_agree(&case, &context);
    }
}

fn run_shell(line: &str) {
    let done = Command::new("sh").arg("-c").arg(line).status();
    assert!(done.is_ok_and(|s| s.success()), "{line}");
}

#[test]
fn a_folder_renamed_in_the_middle_of_a_run_is_followed_and_not_made_anew() {
    taken_away("true", "mv DIR/region-b DIR/away", "rm -rf DIR/region-b; mv DIR/away DIR/region-b");
}

#[test]
fn a_disk_unmounted_in_the_middle_of_a_run_is_written_to_its_end_and_nothing_beneath_it() {
    let bind = "mount --bind DIR/disk DIR/region-b";
    let prepare = format!("mv DIR/region-b DIR/disk && mkdir DIR/region-b && {bind}");
    taken_away(&prepare, "umount -l DIR/region-b", bind);
}

#[test]
fn a_folder_removed_in_the_middle_of_a_run_is_behind_and_not_made_anew() {
    let (bench, source) = with_source(&["a", "b"]);
    let args = ["--copies-min", "1", "--json", "--quiet", "backup", text(&source)];
    let steps = interfere(&bench.copy(), "count", 0, &args).steps.len();
    let mut ends = Vec::new();
    for at in spread(steps, 1) {
        let case = bench.copy();
        let ended = interfere(&case, &format!("hook:rm -rf {}", text(&case.region("b"))), at, &args);
        let context = format!("region b removed at step {at} of {steps}: {}", ended.said);
        assert!(!case.region("b").exists(), "{context}: made anew");
        let value: Value = serde_json::from_str(&ended.said).unwrap_or_else(|e| panic!("{e}: {context}"));
        match ended.code {
            0 => assert!(at > steps / 2, "{context}: it was not missed"),
            code => assert_eq!((code, behind(&value).0.as_str()), (4, "b"), "{context}"),
        }
        ends.push(ended.code);
        restores(&case, &id_of(&value), &source, &context);
    }
    assert!(ends.contains(&4), "{ends:?}");
}

#[test]
fn of_three_regions_a_read_only_one_is_behind() {
    use std::os::unix::fs::PermissionsExt;
    let (bench, source) = with_source(&["a", "b", "c"]);
    std::fs::set_permissions(bench.dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::copy(env!("CARGO_BIN_EXE_holdfast"), bench.path("holdfast")).unwrap();
    let owned = [bench.region("a"), bench.region("c"), bench.path("key")];
    let done = Command::new("chown").args(["-R", "65534:65534"]).args(&owned).status();
    assert!(done.is_ok_and(|s| s.success()), "chown");
    let as_nobody = |args: &[&str]| {
        let program = bench.command(args);
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs"]);
        command.arg(bench.path("holdfast")).args(["--json", "--quiet"]).args(program.get_args());
        let out = command.current_dir(bench.dir.path()).output().expect("setpriv is needed");
        let value: Value = serde_json::from_slice(&out.stdout).unwrap_or_else(|e| panic!("{e}: {out:?}"));
        (out.status.code().unwrap(), value)
    };
    let (code, value) = as_nobody(&["backup", text(&source)]);
    assert_eq!((code, &value["regions"]), (4, &json!(["a", "c"])), "{value:#}");
    let (region, why) = behind(&value);
    assert!(region == "b" && why.contains("permission denied") && why.contains("check permissions"), "{value:#}");
    complete_alone(&bench, "read-only");
    let (code, value) = as_nobody(&["verify", "--level", "content"]);
    assert_eq!(code, 4, "{value:#}");
    // Somebody who may write there brings it up.
    let value = bench.ok(&["backup", text(&source)]);
    assert_eq!((&value["regions"], &value["caught_up"]["snapshots"]), (&json!(["a", "b", "c"]), &json!(1)));
    regions_agree(&bench, "writable again");
}

/// The biggest pack of a region.
fn a_pack(bench: &Bench, region: &str) -> PathBuf {
    let size = |path: &PathBuf| path.metadata().unwrap().len();
    crate::harness::files(&bench.region(region).join("packs")).into_iter().max_by_key(size).unwrap()
}

fn restored_from_the_other(spoil: impl Fn(&Path)) {
    let (bench, source) = with_source(&["a", "b"]);
    let sid = id_of(&bench.ok(&["backup", text(&source)]));
    for region in ["a", "b"] {
        let pack = a_pack(&bench, region);
        let kept = std::fs::read(&pack).unwrap();
        spoil(&pack);
        let target = bench.path(&format!("target-{region}"));
        let (code, value) = bench.json(&["restore", &sid, "--target", text(&target), "--no-repair"]);
        assert_eq!(code, 0, "{value:#}");
        assert_same(&source, &target);
        let named = format!("region {region}: packs/");
        let (code, checked) = bench.json(&["verify", "--level", "content"]);
        assert_eq!(code, 5, "{checked:#}");
        let findings = checked["findings"].as_array().unwrap();
        assert!(findings.iter().all(|f| f.as_str().unwrap().starts_with(&named)) && findings.len() == 1, "{checked:#}");
        assert_eq!(checked["broken"], json!([]), "{checked:#}");
        // Reads go to the first region; what is wrong in it is named by the restore already.
        if region == "a" {
            let findings = value["findings"].as_array().unwrap();
            assert!(findings.iter().any(|f| f.as_str().unwrap().starts_with(&named)), "{value:#}");
        }
        std::fs::write(&pack, kept).unwrap();
    }
}

#[test]
fn a_flipped_bit_in_one_region_is_read_from_the_other_and_named() {
    restored_from_the_other(|pack| {
        let mut bytes = std::fs::read(pack).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(pack, bytes).unwrap();
    });
}

#[test]
fn a_pack_that_is_gone_or_torn_in_one_region_is_read_from_the_other_and_named() {
    restored_from_the_other(|pack| std::fs::remove_file(pack).unwrap());
    restored_from_the_other(|pack| {
        let len = pack.metadata().unwrap().len();
        std::fs::OpenOptions::new().write(true).open(pack).unwrap().set_len(len / 3).unwrap();
    });
}

#[test]
fn two_writers_at_once_both_end_well() {
    let (bench, source) = with_source(&["a", "b"]);
    let other = bench.path("other");
    // Half of it is the same, so that both store the same chunks.
    fill(&other, 1, 5, 80_000);
    fill(&other.join("own"), 900, 5, 80_000);
    for round in 0..3 {
        for (left, right) in [(&source, &other), (&source, &source), (&other, &other)] {
            fill(&left.join("new"), 1000 + round, 2, 50_000);
            let running: Vec<Child> = [left, right].iter().map(|dir| start(&bench, &["backup", text(dir)])).collect();
            let ids: Vec<String> = running.into_iter().map(|child| id_of(&end(child))).collect();
            let context = format!("round {round}");
            restores(&bench, &ids[0], left, &context);
            restores(&bench, &ids[1], right, &context);
            regions_agree(&bench, &context);
            assert!(ids.iter().all(|id| sids(&bench, &context).contains(id)), "{context}");
        }
    }
}

#[test]
fn a_backup_beside_a_forget_ends_well() {
    let (bench, source) = with_source(&["a", "b"]);
    let mut last = id_of(&bench.ok(&["backup", text(&source)]));
    for round in 0..4 {
        fill(&source.join(format!("new-{round}")), 2000 + round, 2, 50_000);
        let running = [start(&bench, &["forget", &last, "--last"]), start(&bench, &["backup", text(&source)])];
        let ends = running.map(end);
        let context = format!("round {round}");
        assert!(!sids(&bench, &context).contains(&last), "{context}");
        last = id_of(&ends[1]);
        assert_eq!(sids(&bench, &context), [last.as_str()], "{context}");
        restores(&bench, &last, &source, &context);
        complete_alone(&bench, &context);
        // What the forget found to be behind is brought up.
        bench.ok(&["backup", "--name", "aside", text(&source)]);
        regions_agree(&bench, &context);
        let aside = id_of(&bench.json(&["backup", "--name", "aside", text(&source)]).1);
        for sid in sids(&bench, &context).iter().filter(|sid| **sid != last) {
            bench.ok(&["forget", sid, "--last"]);
        }
        assert!(!sids(&bench, &context).contains(&aside), "{context}");
    }
}

#[test]
fn an_end_of_an_epoch_at_another_suffix_is_missed_nowhere() {
    let (bench, source) = with_source(&["a", "b"]);
    bench.ok(&["backup", text(&source)]);
    // As where something stood in its way when it was copied there, and is gone.
    let end = bench.region("b").join("epochs/00000001/end");
    std::fs::rename(&end, end.with_extension("1")).unwrap();
    let checked = bench.ok(&["verify"]);
    assert_eq!(checked["behind"], json!([]), "{checked:#}");
}
