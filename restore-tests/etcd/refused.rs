//! What is changed or cut off on its way over TLS: nothing of it is visible, of whole snapshots and of deltas.

use super::load::Dice;
use super::proxy::{Harm, Proxy};
use super::server::Cluster;
use super::{comes_up, mode, with_certificates};
use crate::harness::Bench;

/// Before this byte TLS is agreed upon, and may say what nobody looks at.
const AGREED: u64 = 300;

/// Harms a backup at some places of what a member says, and then lets it through.
fn harmed(bench: &Bench, proxy: &Proxy, dice: &mut Dice, run: &dyn Fn() -> (i32, serde_json::Value), count: usize) {
    let visible = || bench.ok(&["snapshots"])["snapshots"].as_array().unwrap().len();
    let before = visible();
    // Of two backups one says about as much as the other.
    let sent = proxy.sent_most() / 2;
    assert!(sent > 2 * AGREED, "{sent} bytes");
    for n in 0..count {
        let place = (AGREED + dice.below(sent - AGREED)) as usize;
        let harm = if n % 2 == 0 { Harm::Flip(place, dice.below(8) as u32) } else { Harm::Cut(place) };
        proxy.harm(harm);
        let (code, report) = run();
        assert_eq!((code, report["error"]["kind"].as_str()), (1, Some("retry")), "{harm:?} of {sent}: {report:#}");
        assert!(report["error"].to_string().contains("the member does not answer: "), "{harm:?}: {report:#}");
        assert_eq!(visible(), before, "{harm:?}");
    }
    proxy.harm(Harm::None);
}

#[test]
fn what_is_changed_on_its_way_over_tls_is_refused() {
    let mut dice = Dice::seeded();
    let (bench, cluster) = (Bench::with_key(&["a"]), Cluster::start("3.5", 1));
    cluster.load(60, 80);
    let proxy = Proxy::before(cluster.ports()[0]);
    let (address, means) = (format!("etcd://127.0.0.1:{}", proxy.port), with_certificates(&cluster));
    let run = |more: &[&str]| {
        let words = ["backup", "--name", "cluster", &address].into_iter().chain(means.iter().map(String::as_str));
        bench.json(&words.chain(more.iter().copied()).collect::<Vec<_>>())
    };
    assert_eq!(run(&[]).0, 0);
    harmed(&bench, &proxy, &mut dice, &|| run(&[]), 16);
    let (code, report) = run(&[]);
    assert_eq!(code, 0, "{report:#}");
    // A watch says what was changed since, and nothing else does.
    cluster.load(60, 81);
    proxy.forget();
    assert_eq!(run(&["--mode", "delta"]).0, 0);
    let last = cluster.load(60, 82);
    harmed(&bench, &proxy, &mut dice, &|| run(&["--mode", "delta"]), 4);
    let (code, report) = run(&["--mode", "delta"]);
    assert_eq!((code, mode(&bench, &report).as_str()), (0, "delta"), "{report:#}");
    let restored = comes_up(&bench, "3.5", "latest", last);
    assert!(restored.dump(&[last]) == cluster.dump(&[last]));
}
