//! What `status` says of a cluster, and that many changes beside a whole snapshot measure nothing.

use super::server::Cluster;
use crate::harness::Bench;
use std::fs;

/// Files of changes, so many that a whole snapshot has a tenth of the files of the last delta.
const DELTAS: usize = 20;

#[test]
fn the_age_of_the_newest_state_is_told_and_a_whole_snapshot_is_not_small_beside_deltas() {
    let bench = Bench::with_key(&["a"]);
    let cluster = Cluster::start("3.5", 1);
    cluster.load(20, 90);
    let path = |name: &str| cluster.path(name).display().to_string();
    let text = format!(
        "apiVersion: holdfast.io/v1alpha1\nkind: Repository\nmetadata: {{name: main}}\nspec:\n  regions: [{{name: a, url: {}}}]\n---\n\
         apiVersion: holdfast.io/v1alpha1\nkind: BackupPolicy\nmetadata: {{name: daily}}\nspec:\n  retention: {{last: 4}}\n  sources:\n  \
         - {{name: cluster, etcd: {{endpoints: ['127.0.0.1:{}'], caFile: {}, certFile: {}, keyFile: {}, deltas: true}}}}\n",
        bench.region("a").display(),
        cluster.ports()[0],
        path("ca.crt"),
        path("client.crt"),
        path("client.key")
    );
    fs::write(bench.path("holdfast.yaml"), text).unwrap();
    let run = |kind: &str| {
        let (code, report) = bench.json_at(&[], &["run", "daily", "--kind", kind]);
        assert_eq!(code, 0, "{kind}: {report:#}");
    };
    let healthy = || {
        let (code, value) = bench.json_at(&[], &["status"]);
        assert_eq!(code, 0, "{value:#}");
        let source = value["sources"][0].clone();
        assert_eq!((source["source"].as_str(), source["shrunk"].as_bool()), (Some("cluster"), Some(false)));
        source
    };
    run("full");
    for n in 0..DELTAS {
        cluster.ctl(&["put", "/a", &n.to_string()]);
        run("incremental");
    }
    let listed = bench.ok(&["snapshots"]);
    let files = listed["snapshots"].as_array().unwrap().last().unwrap()["files"].as_u64().unwrap();
    assert!(files > DELTAS as u64, "{files} files");
    let exposed = healthy()["exposed_ms"].as_u64().unwrap();
    let waited = std::time::Instant::now();
    // A whole one has the table of rows and that of keys, and is what the source is.
    run("full");
    assert!(exposed < 60_000, "{exposed} ms");
    let source = healthy();
    let now = source["exposed_ms"].as_u64().unwrap();
    assert!(now <= waited.elapsed().as_millis() as u64, "{now} ms, from the begin of the newest one");
    assert_eq!(source["snapshots"], 4, "the deltas' place is taken: {source:#}");
    let output = bench.command_at(&[], &["status"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("the newest state of the cluster that can be restored is "), "{text}");
}
