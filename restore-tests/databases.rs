//! Databases that lie in a volume: a day's changes cost the pages that they touch.

use crate::harness::{Bench, noise};
use rusqlite::Connection;
use std::path::Path;

const ROWS: u64 = 60_000;

fn connect(path: &Path) -> Connection {
    let db = Connection::open(path).unwrap();
    db.execute_batch("pragma journal_mode = off; pragma synchronous = off").unwrap();
    db
}

fn row(seed: u64) -> Vec<u8> {
    noise(seed, 100 + (seed % 200) as usize)
}

/// A database of some 15 MB.
fn database(path: &Path) {
    let db = connect(path);
    db.execute_batch("create table t (k integer primary key, v blob); begin").unwrap();
    let mut put = db.prepare("insert into t values (?, ?)").unwrap();
    for k in 0..ROWS {
        put.execute((k.cast_signed(), row(k))).unwrap();
    }
    drop(put);
    db.execute_batch("commit").unwrap();
}

/// A hundredth of all rows, where most changes are.
fn change(path: &Path, day: u64) {
    let db = connect(path);
    db.execute_batch("begin").unwrap();
    let mut put = db.prepare("update t set v = ? where k = ?").unwrap();
    for n in 0..ROWS / 100 {
        put.execute((row(n + day * 1_000_000), (n * 7 % (ROWS / 50)).cast_signed())).unwrap();
    }
    drop(put);
    db.execute_batch("commit").unwrap();
}

#[test]
fn a_database_of_sqlite_costs_the_pages_that_changed() {
    let bench = Bench::with_key(&["a"]);
    std::fs::create_dir(bench.path("source")).unwrap();
    let path = bench.path("source/app.db");
    database(&path);
    let first = bench.ok(&["backup", "--name", "s", "source"]);
    let all = first["bytes_new"].as_u64().unwrap();
    assert!(all > 10_000_000, "{first:#}");
    let mut last = String::new();
    for day in 1..4 {
        change(&path, day);
        let report = bench.ok(&["backup", "--name", "s", "source"]);
        let new = report["bytes_new"].as_u64().unwrap();
        assert!(new > 0 && new < all / 12, "day {day}: {new} of {all}");
        last = report["snapshot"].as_str().unwrap().to_owned();
    }
    // Behind other bytes its pages lie elsewhere, and the file is no database: found again as what it is.
    let bytes = std::fs::read(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    std::fs::write(bench.path("source/moved"), [&[1; 100], &bytes[..]].concat()).unwrap();
    bench.ok(&["backup", "--name", "s", "source"]);
    bench.ok(&["restore", &last, "--target", "before"]);
    assert!(std::fs::read(bench.path("before/app.db")).unwrap() == bytes);
    bench.ok(&["restore", "latest", "--target", "after"]);
    assert!(std::fs::read(bench.path("after/moved")).unwrap()[100..] == bytes);
    bench.ok(&["verify", "--level", "content"]);
}

/// Pages as PostgreSQL writes them: a header, and what the seed makes.
fn pages(count: u64, seed: u64) -> Vec<u8> {
    let page = |n: u64| {
        let mut page = noise(seed * 1_000_003 + n, 8192);
        page[10..20].copy_from_slice(&[0, 0, 40, 0, 0, 8, 0, 32, 4, 32]);
        page
    };
    (0..count).flat_map(page).collect()
}

#[test]
fn a_table_of_postgresql_costs_the_pages_that_changed_and_grows_and_shrinks() {
    let bench = Bench::with_key(&["a"]);
    std::fs::create_dir(bench.path("source")).unwrap();
    let path = bench.path("source/16384");
    let mut table = pages(3000, 1);
    let expect = |table: &[u8], pages: std::ops::RangeInclusive<u64>| {
        std::fs::write(&path, table).unwrap();
        let report = bench.ok(&["backup", "--name", "s", "--mode", "full", "source"]);
        let new = report["bytes_new"].as_u64().unwrap();
        // And a page or two of the tree, and of the list of chunks.
        assert!((pages.start() * 8192..pages.end() * 8192 + 400_000).contains(&new), "{pages:?}: {report:#}");
        let target = format!("back-{}", table.len() as u64 + pages.start());
        bench.ok(&["restore", "latest", "--target", &target]);
        assert!(std::fs::read(bench.path(&target).join("16384")).unwrap() == table);
    };
    expect(&table, 3000..=3000);
    for n in [5, 1500, 2999] {
        table[n * 8192 + 4000] ^= 1;
    }
    expect(&table, 3..=3);
    table.extend(pages(10, 2));
    expect(&table, 10..=10);
    table.truncate(2000 * 8192);
    expect(&table, 0..=0);
    // Not whole pages, as after a crash: cut like any other file, and whole.
    table.truncate(1500 * 8192 + 77);
    expect(&table, 1..=1501);
}
