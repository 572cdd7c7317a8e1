//! What a prune tells: the catalog of its machine, and people.

use super::races::condemn_everything;
use super::stops::inside;
use super::{NOW, Versions, backup, forget, plan, planned, prune, versions, write};
use crate::crash::restores;
use crate::harness::Bench;
use crate::inside::Inside;
use crate::replicate::flip;
use holdfast::base::clock::Ambient;
use holdfast::base::{Cancel, Env, Generation, TimeMs};
use holdfast::error::Result;
use holdfast::format::run::RunKind;
use holdfast::ops::ledger::Ledger;
use holdfast::ops::prune::{Bounds, Limits, Report, Wish, run};
use holdfast::ops::record::{Closing, Opening};
use holdfast::repo::session::{Errand, Session};
use holdfast::unlock::Unlock;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

/// A second goes by whenever somebody asks.
struct Hurried(AtomicI64);

impl Ambient for Hurried {
    fn now(&self) -> TimeMs {
        Env::system().now()
    }

    fn steady(&self) -> i64 {
        self.0.fetch_add(1000, Ordering::Relaxed)
    }

    fn random(&self, out: &mut [u8]) -> Result<()> {
        let fresh = std::iter::repeat_with(|| Env::system().random::<32>().unwrap()).flatten();
        out.iter_mut().zip(fresh).for_each(|(to, from)| *to = from);
        Ok(())
    }
}

/// A prune that may begin, and whose time is over before it has an epoch; it is recorded in the bench's catalog.
fn cut_by_time(bench: &Bench) -> Report {
    let key: [u8; 32] = crate::harness::noise(0x6b65_7900, 32).try_into().unwrap();
    let env = Env::custom(Arc::new(Hurried(AtomicI64::new(0))));
    let (opened, cancel) = (Inside::at(bench, &Unlock::KeyFile(key.into()), &env), Cancel::default());
    let wish = Wish {
        dry_run: false,
        grace: Duration::ZERO,
        wait: Duration::from_secs(600),
        dead_after: Duration::from_secs(1800),
        last: &[],
        lost: &[],
        repack: Limits { above_percent: 100, bytes_max: u64::MAX, small_min: usize::MAX },
        bounds: Bounds { time: Some(Duration::from_secs(8)), removals_max: None },
        workers: 1,
        host: "h",
        cancel: &cancel,
    };
    let ledger = Ledger::open(&bench.path("state"), &opened.repo.id, &Env::system());
    let (kind, repo, host) = (RunKind::Prune, Some(&*opened.repo), "h".to_owned());
    let opening = Opening { kind, repo, host, closing: Closing::default() };
    let act = || run(&opened.repo, &wish);
    opening.run(&ledger, act, |report, closing| (closing.prune(report), report.exit())).0.unwrap()
}

/// What is planned and not removed is known to be damaged as before.
#[test]
fn a_prune_whose_time_ends_forgets_no_damage() {
    let Versions { bench, sids, .. } = versions(&["a", "b"]);
    let dead = {
        let case = bench.copy();
        forget(&case, &sids[0]);
        planned(&plan(&case), "dead")
    };
    for region in ["a", "b"] {
        let packs = crate::harness::files(&bench.region(region).join("packs"));
        let own = |path: &&std::path::PathBuf| dead.contains(path.file_name().unwrap().to_str().unwrap());
        packs.iter().filter(own).for_each(|path| flip(path));
    }
    assert_eq!(bench.json(&["verify", "--level", "content"]).0, 5);
    forget(&bench, &sids[0]);
    {
        let opened = inside(&bench);
        let errand = Errand { host: "h".into(), source: "at work".into(), generation: Generation(1) };
        Session::announce(&opened.repo, errand, None).unwrap();
    }
    let report = cut_by_time(&bench);
    assert!(report.stopped.is_some() && report.epoch.is_none() && !report.plan.is_empty(), "{report:?}");
    assert!(Closing::default().prune(&report).packs.is_empty(), "the catalog would drop what is still there");
    let source = bench.path("source");
    write(&source, 1);
    let sid = backup(&bench, &source);
    restores(&bench, &sid, &source, "stored beside packs that are known to be damaged");
}

/// What a prune removed for another one, before it looked for itself, is known to be gone.
#[test]
fn a_check_without_a_key_misses_nothing_that_a_prune_removed_for_another() {
    let Versions { mut bench, sids, .. } = versions(&["a", "b"]);
    bench.ok(&["verify", "--level", "ciphertext"]);
    forget(&bench, &sids[0]);
    condemn_everything(&bench);
    let done = prune(&bench);
    assert_eq!(done["carried"].as_array().map(Vec::len), Some(1), "{done:#}");
    assert!(done["regions"][0]["removed"]["packs"].as_u64() > Some(0), "{done:#}");
    bench.key = None;
    let mut keyless = bench.command(&["--json", "verify", "--level", "ciphertext"]);
    let output = keyless.env_remove("HOLDFAST_PASSPHRASE").output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stdout));
}

/// What a prune did not look at it says nothing of.
#[test]
fn a_look_at_an_epoch_of_another_makes_no_figures_up() {
    let Versions { bench, sids, .. } = versions(&["a", "b"]);
    forget(&bench, &sids[0]);
    condemn_everything(&bench);
    let said = plan(&bench);
    let kept = &said["kept"];
    assert!(kept["packs"].is_null() && kept["bytes"].is_null() && said["unused"].is_null(), "{said:#}");
    assert_eq!((&said["snapshots"], &said["carried"]), (&2.into(), &serde_json::json!([2])), "{said:#}");
    let dry = [&NOW[..], &["--dry-run"]].concat();
    let text = |args: &[&str]| String::from_utf8(bench.run(args).1.stdout).unwrap();
    let looked = text(&dry);
    assert!(looked.contains("\n2 snapshots stay\n") && !looked.contains("0 packs stay"), "{looked}");
    // The regions wait for it: it is said by which command it ends.
    let (code, value) = bench.json(&["region", "add", "c=region-c"]);
    assert!(code == 11 && value["error"].to_string().contains("holdfast prune"), "{value:#}");
    // No time at all: nothing is known.
    let late = [&NOW[..], &["--stop-after", "0s"]].concat();
    assert!(!text(&late).contains("snapshots stay"), "{}", text(&late));
    let done = text(&NOW);
    assert!(done.contains("packs stay"), "{done}");
}
