//! `holdfast doctor` tells good stores from bad ones, and says what credentials may do.

use super::proxy::{Fault, Proxy};
use super::servers::{self, ACCOUNT, ACCOUNT_KEY, READER, WRITER};
use super::{gcs, http};
use crate::harness::{Bench, small_tree};
use serde_json::Value;

/// Runs the doctor on regions by their URLs; exit code and report.
pub fn ask(bench: &Bench, regions: &[(&str, String)], variables: &[(&str, &str)], more: &[&str]) -> (i32, Value) {
    let mut command = bench.command(&[]);
    for (name, url) in regions {
        command.arg("--region").arg(format!("{name}={url}"));
    }
    command.args(["--json", "--quiet", "doctor"]).args(more).envs(variables.iter().copied());
    let out = command.output().unwrap();
    let (printed, told) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    let value = serde_json::from_str(&printed).unwrap_or_else(|e| panic!("{e}: {printed}\n{told}"));
    (out.status.code().unwrap_or(-1), value)
}

pub fn s3_variables<'v>((id, secret): (&'v str, &'v str)) -> [(&'static str, &'v str); 2] {
    [("AWS_ACCESS_KEY_ID", id), ("AWS_SECRET_ACCESS_KEY", secret)]
}

/// What was said of something in one region: grade and words.
#[track_caller]
pub fn of<'r>(report: &'r Value, region: &str, check: &str) -> (&'r str, &'r str) {
    let regions = report["regions"].as_array().unwrap();
    let region = regions.iter().find(|r| r["region"] == region).unwrap_or_else(|| panic!("{report:#}"));
    found(&region["checks"], check).unwrap_or_else(|| panic!("no {check}: {report:#}"))
}

/// And of the repository.
#[track_caller]
pub fn whole<'r>(report: &'r Value, check: &str) -> (&'r str, &'r str) {
    found(&report["checks"], check).unwrap_or_else(|| panic!("no {check}: {report:#}"))
}

fn found<'r>(checks: &'r Value, check: &str) -> Option<(&'r str, &'r str)> {
    let check = checks.as_array()?.iter().find(|c| c["check"] == check)?;
    Some((check["grade"].as_str()?, check["says"].as_str()?))
}

/// A good store says yes to all that the protocol needs.
#[track_caller]
fn is_fit(report: &Value, region: &str) {
    let needed = ["reachable", "credentials", "create-if-absent", "read-after-write", "list-after-write", "ranges"];
    needed.iter().for_each(|check| assert_eq!(of(report, region, check).0, "good", "{check}: {report:#}"));
    let figures = report["regions"].as_array().unwrap().iter().find(|r| r["region"] == region).unwrap();
    for figure in ["first_answer_ms", "read_ms", "put_ms"] {
        assert!(figures[figure].as_f64().is_some_and(|ms| ms >= 0.0), "{figure}: {report:#}");
    }
}

fn s3_url(port: u16, rest: &str) -> String {
    format!("s3://{rest}?endpoint=http://127.0.0.1:{port}")
}

#[test]
fn the_doctor_knows_a_good_bucket_and_who_may_only_read() {
    let server = servers::seaweed(&["bucket"]);
    let mut bench = Bench::in_memory(&[]);
    bench.make_key();
    let region = [("a", s3_url(server.port, "bucket/p"))];
    let (code, report) = ask(&bench, &region, &s3_variables(WRITER), &[]);
    assert_eq!(code, 0, "{report:#}");
    is_fit(&report, "a");
    assert_eq!(of(&report, "a", "clock").0, "good", "{report:#}");
    assert_eq!(of(&report, "a", "delete").0, "warning", "{report:#}");
    assert_eq!(report["regions"][0]["versioning"], "off", "{report:#}");
    assert_eq!(of(&report, "a", "object-lock"), ("note", "off"));
    assert_eq!(of(&report, "a", "throughput").0, "good", "{report:#}");
    assert!(report["regions"][0]["put_bytes_per_second"].as_u64() > Some(0), "{report:#}");
    assert_eq!((&report["repository"], whole(&report, "repository").0), (&Value::Null, "note"));
    // Nothing stays: the place is still one for a repository.
    assert!(servers::versions(&server, "bucket").is_empty());

    let (code, report) = ask(&bench, &region, &s3_variables(READER), &[]);
    assert_eq!(code, 0, "{report:#}");
    let (grade, says) = of(&report, "a", "credentials");
    assert!(grade == "warning" && says.contains("not create"), "{report:#}");
    let (code, report) = ask(&bench, &region, &s3_variables((WRITER.0, "hunter2")), &[]);
    let (grade, says) = of(&report, "a", "reachable");
    assert!(code == 1 && grade == "bad" && says.contains("does not know these credentials"), "{code} {report:#}");
    let nowhere = [("a", s3_url(server.port, "nowhere"))];
    let (code, report) = ask(&bench, &nowhere, &s3_variables(WRITER), &[]);
    assert!(code == 1 && of(&report, "a", "reachable").1.contains("no such bucket"), "{code} {report:#}");
    twice_in_one_bucket(&bench, &server);
    append_only(&bench, &server);
}

/// Whoever may not delete is told that this is good, and what stays is in nobody's way.
fn append_only(bench: &Bench, server: &servers::Server) {
    let proxy = Proxy::before(server.port);
    let region = [("a", s3_url(proxy.port, "bucket/append"))];
    for (more, left) in [(&[][..], 1), (&["--throughput"][..], 5)] {
        proxy.spoil("DELETE", "probe", Fault::Refuse(403, None));
        let (code, report) = ask(bench, &region, &s3_variables(WRITER), more);
        assert_eq!((code, of(&report, "a", "delete").0), (0, "good"), "{report:#}");
        assert_eq!(report["regions"][0]["left"].as_array().map(Vec::len), Some(left), "{report:#}");
        assert_eq!(report["regions"][0]["put_bytes_per_second"].is_u64(), left > 1, "{report:#}");
        assert_eq!(proxy.left(), 0);
    }
    let (_, report) = ask(bench, &region, &s3_variables(WRITER), &[]);
    assert!(of(&report, "a", "probes").1.starts_with("6 of earlier tries"), "{report:#}");
    let flag = format!("--region=a={}", region[0].1);
    let mut init = bench.command(&["init", "--no-recovery-key", &flag]);
    let out = init.envs(s3_variables(WRITER)).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}

/// Two copies in one bucket are lost together; of three regions one may be nowhere.
fn twice_in_one_bucket(bench: &Bench, server: &servers::Server) {
    let folder = bench.path("c").display().to_string();
    std::fs::create_dir(&folder).unwrap();
    let regions = [("a", s3_url(server.port, "bucket/p")), ("b", s3_url(server.port, "bucket/q")), ("c", folder)];
    let (code, report) = ask(bench, &regions, &s3_variables(WRITER), &[]);
    assert!(code == 0 && whole(&report, "apart").1.contains("a and b"), "{code} {report:#}");
    assert_eq!(whole(&report, "copies").0, "good", "{report:#}");
    // Nobody listens at the port of a server that is gone.
    let gone = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port()
    };
    let regions = [regions[0].clone(), ("b", s3_url(gone, "bucket/q")), regions[2].clone()];
    let (code, report) = ask(bench, &regions, &s3_variables(WRITER), &[]);
    assert_eq!((code, of(&report, "b", "reachable").0), (4, "bad"), "{report:#}");
    assert_eq!(whole(&report, "copies").0, "note", "{report:#}");
}

#[test]
fn the_doctor_finds_a_store_that_lies() {
    let server = servers::rclone("bucket");
    let bench = Bench::in_memory(&[]);
    let (code, report) = ask(&bench, &[("a", s3_url(server.port, "bucket/p"))], &s3_variables(WRITER), &[]);
    assert_eq!(code, 1, "{report:#}");
    let (grade, says) = of(&report, "a", "create-if-absent");
    assert!(grade == "bad" && says.contains("replaced"), "{report:#}");
    assert_eq!(of(&report, "a", "ranges").0, "bad", "{report:#}");
    assert_eq!(whole(&report, "copies").0, "bad", "{report:#}");
}

#[test]
fn the_doctor_at_azurite() {
    let server = servers::azurite("container");
    let bench = Bench::in_memory(&[]);
    let url = format!("az://container/p?account={ACCOUNT}&endpoint=http://127.0.0.1:{}/{ACCOUNT}", server.port);
    let (code, report) = ask(&bench, &[("a", url)], &[("AZURE_STORAGE_KEY", ACCOUNT_KEY)], &[]);
    assert_eq!(code, 0, "{report:#}");
    is_fit(&report, "a");
    for check in ["versions", "object-lock"] {
        let (grade, says) = of(&report, "a", check);
        assert!(grade == "note" && says.starts_with("not asked"), "{report:#}");
    }
    assert_eq!(report["regions"][0]["left"], Value::Array(vec![]), "{report:#}");
}

#[test]
fn the_doctor_reads_the_clocks_of_stores() {
    let bench = Bench::in_memory(&[]);
    let minute = 60_000;
    for (ahead_ms, grade, words) in [
        (-60 * minute, "bad", "behind"),
        (60 * minute, "warning", "ahead"),
        (-minute, "note", "behind"),
        (0, "good", "agrees"),
    ] {
        let host = format!("127.0.0.1:{}", gcs::start_at(Some(ahead_ms)));
        let variables = [("STORAGE_EMULATOR_HOST", host.as_str())];
        let (code, report) = ask(&bench, &[("a", "gs://bucket/p".into())], &variables, &[]);
        let (found, says) = of(&report, "a", "clock");
        assert!(found == grade && says.contains(words), "{ahead_ms}: {report:#}");
        assert_eq!(code, i32::from(grade == "bad"), "{ahead_ms}: {report:#}");
        let told = report["regions"][0]["clock_ms"].as_i64().unwrap();
        assert!((ahead_ms - told).abs() < 5_000, "{ahead_ms}: {told}");
    }
}

#[test]
fn a_page_of_a_portal_is_no_store() {
    let port = http::always(|_| b"<html><body>Please log in</body></html>".to_vec());
    let bench = Bench::in_memory(&[]);
    let (code, report) = ask(&bench, &[("a", s3_url(port, "bucket/p"))], &s3_variables(WRITER), &[]);
    assert!(code == 1 && of(&report, "a", "reachable").0 == "bad", "{code} {report:#}");
}

#[test]
fn the_doctor_looks_at_folders_and_what_they_hold() {
    let mut bench = Bench::in_memory(&["a", "b"]);
    bench.make_key();
    let (code, report) = bench.json(&["doctor"]);
    assert_eq!((code, of(&report, "a", "reachable").0), (0, "note"), "{report:#}");
    assert!(!bench.region("a").exists(), "only `init` makes a folder");
    bench.ok(&["init", "--no-recovery-key"]);
    small_tree(&bench.path("source"));
    bench.ok(&["backup", "source"]);
    let before = [bench.objects("a"), bench.objects("b")];
    let (code, report) = bench.json(&["doctor"]);
    assert_eq!(code, 0, "{report:#}");
    ["a", "b"].iter().for_each(|region| is_fit(&report, region));
    assert_eq!(of(&report, "a", "copy").0, "good", "{report:#}");
    assert_eq!(whole(&report, "apart").0, "warning", "{report:#}");
    assert_eq!(whole(&report, "copies").0, "note", "{report:#}");
    assert_eq!(whole(&report, "decision").0, "good", "{report:#}");
    let (grade, says) = whole(&report, "keys");
    assert!(grade == "warning" && says.contains("none is a recovery key"), "{report:#}");
    assert!(report["regions"][0]["free_bytes"].as_u64() > Some(0), "{report:#}");
    assert_eq!(before, [bench.objects("a"), bench.objects("b")], "something stayed");
    assert!(!bench.region("a").join("probe").exists());
    spoiled(&bench);
}

/// A region away, one that lost a snapshot, all of them without one.
fn spoiled(bench: &Bench) {
    std::fs::rename(bench.region("b"), bench.path("away")).unwrap();
    let (code, report) = bench.json(&["doctor"]);
    assert_eq!((code, of(&report, "b", "copy").0), (1, "bad"), "{report:#}");
    let (code, _) = bench.json(&["doctor", "--copies-min", "1"]);
    assert_eq!(code, 4);
    std::fs::rename(bench.path("away"), bench.region("b")).unwrap();
    let first = bench.objects("b").into_iter().find(|path| path.starts_with("snapshots/")).unwrap();
    bench.ok(&["backup", "source"]);
    std::fs::remove_file(bench.region("b").join(&first)).unwrap();
    let (code, report) = bench.json(&["doctor"]);
    assert_eq!((code, of(&report, "b", "snapshots").0), (0, "warning"), "{report:#}");
    std::fs::remove_file(bench.region("a").join(&first)).unwrap();
    let (code, report) = bench.json(&["doctor"]);
    assert_eq!((code, whole(&report, "history").0), (5, "bad"), "{report:#}");
    // Another key: what can be seen without one is said.
    let mut other = bench.copy();
    std::fs::write(other.path("key"), [7; 32]).unwrap();
    other.key = Some(other.path("key"));
    let (code, report) = other.json(&["doctor"]);
    assert_eq!((code, of(&report, "a", "copy").0, whole(&report, "keys").0), (12, "good", "bad"), "{report:#}");
}
