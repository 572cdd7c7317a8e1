//! A restore that is killed: its file is whole, or not there and in nobody's way.

use super::server::Cluster;
use super::{backup, status};
use crate::crash::{KILLED, instants, interfere};
use crate::harness::Bench;

/// What begins so is being written.
const BESIDE: &str = ".holdfast-restoring-";

fn beside(bench: &Bench) -> usize {
    let names = std::fs::read_dir(bench.dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
    names.filter(|name| name.to_string_lossy().starts_with(BESIDE)).count()
}

#[test]
fn a_restore_that_is_killed_is_in_nobodys_way() {
    let bench = Bench::with_key(&["a"]);
    let cluster = Cluster::start("3.5", 1);
    cluster.load(80, 70);
    assert_eq!(backup(&bench, &cluster, &[]).0, 0);
    drop(cluster);
    let args = ["restore", "latest", "--to", "back.db"];
    let undisturbed = bench.copy();
    let counted = interfere(&undisturbed, "count", 0, &args);
    assert_eq!(counted.code, 0, "{}", counted.said);
    let wanted = status(&undisturbed.path("back.db"));
    let (mut killed, mut left, mut done) = (0, 0, 0);
    for (what, at) in instants(&counted.steps) {
        let case = bench.copy();
        let ended = interfere(&case, &what, at, &args);
        let context = format!("{what} {at} of {}: {}", counted.steps.len(), ended.said);
        assert!([0, KILLED].contains(&ended.code), "{context}");
        killed += usize::from(ended.code == KILLED);
        left += beside(&case);
        if case.path("back.db").exists() {
            done += 1;
        } else {
            case.ok(&args);
        }
        assert_eq!(status(&case.path("back.db")), wanted, "{context}");
        assert_eq!(beside(&case), 0, "{context}");
    }
    println!("{killed} killed, {left} had something left beside, {done} were done by then");
    assert!(killed > 5 && left > 0 && done > 0, "{killed} {left} {done}");
}
