//! What members say their keys hash to, whatever was deleted and compacted.

use super::server::{Cluster, VERSIONS};
use super::{backup, comes_up, mode};
use crate::harness::Bench;
use crate::membership::inside;
use holdfast::repo::view::View;

/// What the newest snapshot notes of why no member was compared.
fn not_compared(bench: &Bench) -> Option<String> {
    let inside = inside(bench);
    let view = View::load(&inside.repo).unwrap();
    let labels = view.newest_first()[0].manifest.labels.iter();
    labels.filter(|label| label.key == "etcd.not-compared").map(|label| label.value.clone()).next()
}

#[test]
fn a_sound_member_agrees_whatever_was_deleted_and_compacted() {
    for version in VERSIONS {
        let bench = Bench::with_key(&["a"]);
        let mut cluster = Cluster::start(version, 1);
        let agrees = |cluster: &Cluster, what: &str| {
            let (code, report) = backup(&bench, cluster, &[]);
            assert_eq!(code, 0, "{version}, {what}: {report:#}");
            let agree = report["etcd"]["agree"].as_array().unwrap().len();
            let noted = not_compared(&bench);
            let why = if report["etcd"]["keys"] == 0 { "no-key" } else { "compacted" };
            assert_eq!(noted.as_deref(), (agree == 0).then_some(why), "{version}, {what}: {report:#}");
            agree
        };
        for n in 0..4 {
            ["/a", "/b", "/c"].iter().for_each(|key| _ = cluster.ctl(&["put", key, &n.to_string()]));
        }
        cluster.ctl(&["del", "/b"]);
        let compact = |cluster: &Cluster| cluster.ctl(&["compact", "--physical", &cluster.revision().to_string()]);
        compact(&cluster);
        // A member may answer with what the compaction saw, which nobody can compare.
        agrees(&cluster, "compacted at a deletion, which is the newest revision");
        cluster.kill(0);
        cluster.run(0);
        cluster.wait();
        // Or says that the revision is compacted.
        agrees(&cluster, "the same, and the member began anew");
        cluster.ctl(&["put", "/b", "again"]);
        assert_eq!(agrees(&cluster, "written to since"), 1);
        cluster.ctl(&["del", "/", "--prefix"]);
        assert_eq!(agrees(&cluster, "nothing is left"), 0);
        compact(&cluster);
        agrees(&cluster, "and that compacted");
        cluster.kill(0);
        cluster.run(0);
        cluster.wait();
        assert_eq!(agrees(&cluster, "and begun anew"), 0);
        cluster.ctl(&["put", "/b", "at last"]);
        assert_eq!(agrees(&cluster, "written to again"), 1);
    }
}

/// A delta, which must find that nothing changed.
#[track_caller]
fn unchanged(bench: &Bench, cluster: &Cluster) {
    let (code, report) = backup(bench, cluster, &["--mode", "delta"]);
    assert_eq!((code, report["snapshot"].is_null()), (0, true), "nothing changed: {report:#}");
}

#[test]
fn a_cluster_at_rest_that_is_compacted_to_its_end_has_not_changed() {
    for version in VERSIONS {
        let bench = Bench::with_key(&["a"]);
        let cluster = Cluster::start(version, 1);
        // The last revision is a put, then a deletion, then a transaction of several.
        for write in [&["put", "/a", "x"][..], &["put", "/b", "x"], &["del", "/b"], &["del", "/", "--prefix"]] {
            cluster.ctl(write);
            assert_eq!(backup(&bench, &cluster, &["--mode", "delta"]).0, 0);
            cluster.ctl(&["compact", "--physical", &cluster.revision().to_string()]);
            unchanged(&bench, &cluster);
            // Nor after a whole one, of which the compaction has left less.
            assert_eq!(backup(&bench, &cluster, &[]).0, 0);
            unchanged(&bench, &cluster);
            unchanged(&bench, &cluster);
        }
        // What comes behind is a delta again.
        cluster.ctl(&["put", "/c", "later"]);
        let last = cluster.revision();
        let (code, report) = backup(&bench, &cluster, &["--mode", "delta"]);
        assert_eq!((code, mode(&bench, &report).as_str()), (0, "delta"), "{version}: {report:#}");
        assert!(comes_up(&bench, version, "latest", last).dump(&[last]) == cluster.dump(&[last]));
    }
}
