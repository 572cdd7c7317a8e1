//! How long `status` and `snapshots --local` take with a million snapshots in the catalog.
//!
//! `cargo bench --bench catalog` fills a catalog beside an empty repository in memory (`/dev/shm`, about 500 MB), and
//! prints medians of eleven runs of the shipped program.

use holdfast::base::{Env, SessionId};
use holdfast::catalog::{Catalog, RegionRef, SnapshotLine};
use std::path::Path;
use std::process::Command;
use std::time::Instant;

type Done<T> = Result<T, Box<dyn std::error::Error>>;

const SNAPSHOTS: u64 = 1_000_000;
const SOURCES: u64 = 500;
const ROUNDS: usize = 11;

fn holdfast(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_holdfast"));
    command.current_dir(dir).arg("--state").arg(dir.join("state"));
    for region in ["a", "b"] {
        command.arg("--region").arg(format!("{region}={}", dir.join(region).display()));
    }
    command
}

/// The catalog that a first backup made, and the regions it names.
fn begun(dir: &Path) -> Done<(Catalog, Vec<RegionRef>)> {
    for args in [&["init", "--no-recovery-key"][..], &["backup", "key"]] {
        let out = holdfast(dir).args(["--key-file", "key"]).args(args).output()?;
        if !out.status.success() {
            return Err(format!("{args:?}: {}", String::from_utf8_lossy(&out.stderr)).into());
        }
    }
    let files = std::fs::read_dir(dir.join("state"))?.flatten().map(|entry| entry.path());
    let file = files.into_iter().find(|path| path.extension().is_some_and(|end| end == "sqlite"));
    let (catalog, ..) = Catalog::open_or_make(&file.ok_or("no catalog")?)?;
    let (lines, _) = catalog.snapshots(None, 1)?;
    let regions = lines.first().ok_or("no snapshot")?.regions.clone();
    Ok((catalog, regions))
}

fn fill(mut catalog: Catalog, regions: &[RegionRef]) -> Done<()> {
    let env = Env::system();
    let line = |n: u64| -> Done<SnapshotLine> {
        Ok(SnapshotLine {
            sid: SessionId(env.random()?),
            source: format!("source-{}", n % SOURCES),
            host: "host".into(),
            start: 1_700_000_000_000 + (n * 60_000) as i64,
            mode: "incremental".into(),
            files: n,
            bytes: n << 20,
            errors: 0,
            accepted: false,
            regions: regions.to_vec(),
        })
    };
    for batch in 0..SNAPSHOTS / 10_000 {
        let lines = (batch * 10_000..(batch + 1) * 10_000).map(line).collect::<Done<Vec<_>>>()?;
        catalog.put_snapshots(&lines)?;
    }
    Ok(())
}

fn median(dir: &Path, args: &[&str]) -> Done<u128> {
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let begin = Instant::now();
        let out = holdfast(dir).args(args).output()?;
        times.push(begin.elapsed().as_micros());
        if out.status.code() != Some(0) {
            return Err(format!("{args:?}: {}", String::from_utf8_lossy(&out.stderr)).into());
        }
    }
    times.sort_unstable();
    Ok(times[ROUNDS / 2])
}

fn main() -> Done<()> {
    let dir = tempfile::TempDir::new_in("/dev/shm")?;
    let dir = dir.path();
    std::fs::write(dir.join("key"), [7; 32])?;
    std::fs::set_permissions(dir.join("key"), std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    let (catalog, regions) = begun(dir)?;
    fill(catalog, &regions)?;
    println!("{SNAPSHOTS} snapshots of {SOURCES} sources in two regions, medians of {ROUNDS} runs:");
    for args in
        [&["status"][..], &["snapshots", "--local"], &["snapshots", "--local", "--name", "source-7", "--last", "1000"]]
    {
        println!("{:<55} {:>8.1} ms", args.join(" "), median(dir, args)? as f64 / 1000.0);
    }
    Ok(())
}
