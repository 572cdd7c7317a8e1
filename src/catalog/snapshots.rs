//! Snapshots, and which region has a copy.

use super::{Catalog, RegionRef, Result, region_number, signed, source_number, unsigned};
use crate::base::{RegionId, SessionId};
use rusqlite::{Connection, OptionalExtension, params};
use std::collections::BTreeSet;

/// A snapshot as the catalog knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotLine {
    /// Snapshot.
    pub sid: SessionId,
    /// Name of its source.
    pub source: String,
    /// Host.
    pub host: String,
    /// Start of its run, ms.
    pub start: i64,
    /// Mode.
    pub mode: String,
    /// Files.
    pub files: u64,
    /// Their size, in bytes.
    pub bytes: u64,
    /// What could not be read.
    pub errors: u64,
    /// Whether a person has said that it is right as it is, however small.
    pub accepted: bool,
    /// Regions that have it.
    pub regions: Vec<RegionRef>,
}

/// What a snapshot of a source holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Start of its run, ms.
    pub start: i64,
    /// Files.
    pub files: u64,
    /// Their size, in bytes.
    pub bytes: u64,
    /// Whether a person has said that it is right so.
    pub accepted: bool,
    /// Whether it is changes beside an earlier one.
    pub delta: bool,
}

/// How many snapshots of a source a region has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copies {
    /// Region.
    pub region: RegionRef,
    /// Snapshots.
    pub snapshots: u64,
}

/// The snapshots of one source, in short.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceSnapshots {
    /// Name of the source.
    pub source: String,
    /// How many.
    pub snapshots: u64,
    /// By region.
    pub copies: Vec<Copies>,
    /// What each of them holds, oldest first.
    pub sizes: Vec<Size>,
}

fn put(connection: &Connection, line: &SnapshotLine) -> Result<()> {
    let source = source_number(connection, &line.source)?;
    let sql = "INSERT INTO snapshots VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
        ON CONFLICT DO UPDATE SET accepted = excluded.accepted";
    connection.prepare_cached(sql)?.execute(params![
        line.sid.bytes(),
        source,
        line.host,
        line.start,
        line.mode,
        signed(line.files),
        signed(line.bytes),
        signed(line.errors),
        line.accepted
    ])?;
    let mut copy = connection.prepare_cached("INSERT OR IGNORE INTO copies VALUES (?1, ?2)")?;
    for region in &line.regions {
        copy.execute(params![line.sid.bytes(), region_number(connection, region)?])?;
    }
    Ok(())
}

fn drop_one(connection: &Connection, sid: &SessionId) -> Result<()> {
    connection.prepare_cached("DELETE FROM snapshots WHERE sid = ?1")?.execute([sid.bytes()])?;
    Ok(())
}

/// Copies that the catalog tells of and `looked_at` regions did not show.
fn drop_copies(connection: &Connection, sid: &SessionId, shown: &[RegionRef], looked_at: &[RegionRef]) -> Result<()> {
    let mut gone = connection.prepare_cached("DELETE FROM copies WHERE sid = ?1 AND region = ?2")?;
    for region in looked_at.iter().filter(|region| !shown.contains(region)) {
        gone.execute(params![sid.bytes(), region_number(connection, region)?])?;
    }
    Ok(())
}

impl Catalog {
    /// Adds snapshots, or copies of those it has.
    ///
    /// # Errors
    /// The file could not be written.
    pub fn put_snapshots(&mut self, lines: &[SnapshotLine]) -> Result<()> {
        self.all_or_nothing(|connection| lines.iter().try_for_each(|line| put(connection, line)))
    }

    /// Makes `lines` all that there is in the regions that were looked at; what only others had, stays, unless it is
    /// `forgotten`.
    ///
    /// # Errors
    /// The file could not be written.
    pub fn set_snapshots(
        &mut self,
        lines: &[SnapshotLine],
        looked_at: &[RegionRef],
        forgotten: &BTreeSet<SessionId>,
    ) -> Result<()> {
        self.all_or_nothing(|connection| {
            let keep: BTreeSet<SessionId> = lines.iter().map(|line| line.sid).collect();
            let mut known = connection.prepare_cached("SELECT sid FROM snapshots")?;
            let known: Vec<SessionId> =
                known.query_map([], |row| Ok(SessionId(row.get(0)?)))?.collect::<rusqlite::Result<_>>()?;
            for sid in known.iter().filter(|sid| !keep.contains(sid)) {
                drop_copies(connection, sid, &[], looked_at)?;
                let mut left = connection.prepare_cached("SELECT EXISTS (SELECT 1 FROM copies WHERE sid = ?1)")?;
                if forgotten.contains(sid) || !left.query_row([sid.bytes()], |row| row.get::<_, bool>(0))? {
                    drop_one(connection, sid)?;
                }
            }
            for line in lines {
                put(connection, line)?;
                drop_copies(connection, &line.sid, &line.regions, looked_at)?;
            }
            Ok(())
        })
    }

    /// Removes forgotten snapshots.
    ///
    /// # Errors
    /// The file could not be written.
    pub fn drop_snapshots(&mut self, sids: &[SessionId]) -> Result<()> {
        self.all_or_nothing(|connection| sids.iter().try_for_each(|sid| drop_one(connection, sid)))
    }

    /// The newest snapshots, at most `last`, of one source if it is named, newest first; and how many there are.
    ///
    /// # Errors
    /// The file could not be read.
    pub fn snapshots(&self, source: Option<&str>, last: usize) -> Result<(Vec<SnapshotLine>, u64)> {
        let number = match source {
            Some(name) => {
                let sql = "SELECT n FROM sources WHERE name = ?1";
                let Some(n) = self.connection.query_row(sql, [name], |row| row.get(0)).optional()? else {
                    return Ok((Vec::new(), 0));
                };
                Some(n)
            }
            None => None::<i64>,
        };
        let total = "SELECT coalesce(sum(snapshots), 0) FROM totals WHERE region = 0 AND (?1 IS NULL OR source = ?1)";
        let total = self.connection.query_row(total, [number], |row| row.get(0))?;
        // Written out where it applies, so that each form has its index.
        let sql = format!(
            "SELECT t.sid, s.name, t.host, t.start, t.mode, t.files, t.bytes, t.errors, t.accepted
                FROM snapshots t JOIN sources s ON s.n = t.source WHERE {} ORDER BY t.start DESC LIMIT ?2",
            if number.is_some() { "t.source = ?1" } else { "?1 IS NULL" }
        );
        let mut lines = self.connection.prepare_cached(&sql)?;
        let last = i64::try_from(last).unwrap_or(i64::MAX);
        let lines = lines.query_map(params![number, last], |row| {
            Ok(SnapshotLine {
                sid: SessionId(row.get(0)?),
                source: row.get(1)?,
                host: row.get(2)?,
                start: row.get(3)?,
                mode: row.get(4)?,
                files: unsigned(row.get(5)?),
                bytes: unsigned(row.get(6)?),
                errors: unsigned(row.get(7)?),
                accepted: row.get(8)?,
                regions: Vec::new(),
            })
        })?;
        let mut lines: Vec<SnapshotLine> = lines.collect::<rusqlite::Result<_>>()?;
        let sql = "SELECT r.id, r.name FROM copies c JOIN regions r ON r.n = c.region WHERE c.sid = ?1 ORDER BY r.name";
        let mut copies = self.connection.prepare_cached(sql)?;
        for line in &mut lines {
            let regions = copies
                .query_map([line.sid.bytes()], |row| Ok(RegionRef { id: RegionId(row.get(0)?), name: row.get(1)? }))?;
            line.regions = regions.collect::<rusqlite::Result<_>>()?;
        }
        Ok((lines, unsigned(total)))
    }

    /// Start of the newest delta of a source that so many regions have, ms. What is from after `until` (ms) does not count.
    ///
    /// # Errors
    /// The file could not be read.
    pub fn newest_delta(&self, source: &str, copies_min: u32, until: i64) -> Result<Option<i64>> {
        let sql = "SELECT start FROM snapshots t
            WHERE source = (SELECT n FROM sources WHERE name = ?1) AND start <= ?2 AND mode = 'delta'
            AND (SELECT count(*) FROM copies c WHERE c.sid = t.sid) >= ?3 ORDER BY start DESC LIMIT 1";
        let mut newest = self.connection.prepare_cached(sql)?;
        Ok(newest.query_row(params![source, until, copies_min], |row| row.get(0)).optional()?)
    }

    /// The snapshots of every source in short, by name. What is from after `until` (ms) has no size that counts.
    ///
    /// # Errors
    /// The file could not be read.
    pub fn source_snapshots(&self, until: i64) -> Result<Vec<SourceSnapshots>> {
        let sql = "SELECT s.n, s.name, t.snapshots FROM sources s JOIN totals t ON t.source = s.n AND t.region = 0
            ORDER BY s.name";
        let mut sources = self.connection.prepare_cached(sql)?;
        let sources = sources
            .query_map([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?, row.get::<_, i64>(2)?)))?;
        let sql = "SELECT r.id, r.name, t.snapshots FROM totals t JOIN regions r ON r.n = t.region
            WHERE t.source = ?1 ORDER BY r.name";
        let mut copies = self.connection.prepare_cached(sql)?;
        let sql = "SELECT start, files, bytes, accepted, mode = 'delta' FROM snapshots
            WHERE source = ?1 AND start <= ?2 ORDER BY start";
        let mut sizes = self.connection.prepare_cached(sql)?;
        let mut all = Vec::new();
        for source in sources {
            let (n, name, snapshots) = source?;
            let copies = copies
                .query_map([n], |row| {
                    let region = RegionRef { id: RegionId(row.get(0)?), name: row.get(1)? };
                    Ok(Copies { region, snapshots: unsigned(row.get(2)?) })
                })?
                .collect::<rusqlite::Result<_>>()?;
            let size = |row: &rusqlite::Row<'_>| {
                let (files, bytes) = (unsigned(row.get(1)?), unsigned(row.get(2)?));
                Ok(Size { start: row.get(0)?, files, bytes, accepted: row.get(3)?, delta: row.get(4)? })
            };
            let sizes = sizes.query_map([n, until], size)?.collect::<rusqlite::Result<_>>()?;
            all.push(SourceSnapshots { source: name, snapshots: unsigned(snapshots), copies, sizes });
        }
        Ok(all)
    }
}
