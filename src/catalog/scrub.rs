//! Which pack was verified when, in each region.

use super::{AHEAD_MS, Catalog, RegionRef, Result, region_number, unsigned};
use crate::base::PackName;
use rusqlite::{OptionalExtension, params};
use std::collections::BTreeSet;

/// How deep a pack was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PackLook {
    /// It is not there with its size.
    Presence = 0,
    /// Its bytes fit its name.
    Ciphertext = 1,
    /// Every chunk in it is what it was.
    Content = 2,
}

impl PackLook {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            PackLook::Presence => "presence",
            PackLook::Ciphertext => "ciphertext",
            PackLook::Content => "content",
        }
    }
}

/// One pack that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scrubbed {
    /// Pack.
    pub pack: PackName,
    /// When, ms.
    pub at: i64,
    /// How deep.
    pub level: PackLook,
    /// What was wrong.
    pub damage: Option<String>,
}

/// The packs of a region by how long they have waited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// Those asked for, the one first that waited longest, each with the time since when (ms): last verified, or first
    /// seen.
    pub order: Vec<(PackName, i64)>,
    /// Others that the region had.
    pub others: Vec<PackName>,
}

/// How much of a region was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Coverage {
    /// Region.
    pub region: RegionRef,
    /// Packs known.
    pub packs: u64,
    /// Of them, packs whose bytes were read and sound since the time asked for.
    pub recent: u64,
    /// Packs found damaged or missing when last looked at.
    pub damaged: u64,
    /// Since when the pack that waits longest has waited, ms: last verified, or first seen.
    pub oldest: Option<i64>,
    /// When a pack was last verified, ms, and how deep.
    pub last: Option<(i64, PackLook)>,
}

impl Coverage {
    /// Share of the packs that count as verified, 0 to 1; `None` where no pack is known.
    pub fn share(&self) -> Option<f64> {
        (self.packs > 0).then(|| self.recent as f64 / self.packs as f64)
    }
}

impl Catalog {
    /// Adds packs that nobody verified yet; those that are known stay as they are.
    ///
    /// # Errors
    /// The file could not be written.
    pub fn add_packs(&mut self, region: &RegionRef, packs: &[PackName], seen: i64) -> Result<()> {
        self.all_or_nothing(|connection| {
            let n = region_number(connection, region)?;
            let mut add = connection.prepare_cached("INSERT OR IGNORE INTO scrub VALUES (?1, ?2, ?3, 0, 0, NULL)")?;
            packs.iter().try_for_each(|pack| add.execute(params![n, pack.bytes(), seen]).map(drop))?;
            Ok(())
        })
    }

    /// Tells of `packs` since when each has waited, the longest first, and which others were known. A time that is yet
    /// to come is that of a clock that was wrong: such a pack was never verified.
    ///
    /// # Errors
    /// The file could not be written.
    pub fn waiting(&mut self, region: &RegionRef, packs: &[PackName], now: i64) -> Result<Waiting> {
        self.add_packs(region, packs, now)?;
        let here: BTreeSet<PackName> = packs.iter().copied().collect();
        self.all_or_nothing(|connection| {
            let n = region_number(connection, region)?;
            let until = now.saturating_add(AHEAD_MS);
            let sql = "UPDATE scrub SET verified = 0, level = 0 WHERE region = ?1 AND verified > ?2";
            connection.execute(sql, params![n, until])?;
            let sql = "UPDATE scrub SET seen = ?3 WHERE region = ?1 AND verified = 0 AND seen > ?2";
            connection.execute(sql, params![n, until, now])?;
            let sql = "SELECT pack, CASE verified WHEN 0 THEN seen ELSE verified END AS since
                FROM scrub WHERE region = ?1 ORDER BY since";
            let mut known = connection.prepare_cached(sql)?;
            let rows = known.query_map([n], |row| Ok((PackName(row.get(0)?), row.get(1)?)))?;
            let known: Vec<(PackName, i64)> = rows.collect::<rusqlite::Result<_>>()?;
            let (order, others): (Vec<_>, Vec<_>) = known.into_iter().partition(|(pack, _)| here.contains(pack));
            Ok(Waiting { order, others: others.into_iter().map(|(pack, _)| pack).collect() })
        })
    }

    /// Removes packs that nobody wants in the region any more.
    ///
    /// # Errors
    /// The file could not be written.
    pub fn drop_packs(&mut self, region: &RegionRef, packs: &[PackName]) -> Result<()> {
        self.all_or_nothing(|connection| {
            let n = region_number(connection, region)?;
            let mut gone = connection.prepare_cached("DELETE FROM scrub WHERE region = ?1 AND pack = ?2")?;
            packs.iter().try_for_each(|pack| gone.execute(params![n, pack.bytes()]).map(drop))?;
            Ok(())
        })
    }

    /// Packs of a region that were damaged or missing when last looked at, and what was wrong.
    ///
    /// # Errors
    /// The file could not be read.
    pub fn damaged_in(&self, region: &RegionRef) -> Result<Vec<(PackName, String)>> {
        let sql = "SELECT s.pack, s.damage FROM scrub s JOIN regions r ON r.n = s.region
            WHERE r.id = ?1 AND s.damage IS NOT NULL ORDER BY s.pack";
        let mut damaged = self.connection.prepare_cached(sql)?;
        let rows = damaged.query_map([region.id.bytes()], |row| Ok((PackName(row.get(0)?), row.get(1)?)))?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// Packs that were damaged or missing when last looked at: in any region, or in every one that has them
    /// (`everywhere`).
    ///
    /// # Errors
    /// The file could not be read.
    pub fn damaged(&self, everywhere: bool) -> Result<Vec<PackName>> {
        let sql = "SELECT DISTINCT s.pack FROM scrub s WHERE s.damage IS NOT NULL AND NOT (?1 AND EXISTS
            (SELECT 1 FROM regions r JOIN scrub o ON o.region = r.n AND o.pack = s.pack WHERE o.damage IS NULL))";
        let mut damaged = self.connection.prepare_cached(sql)?;
        let rows = damaged.query_map([everywhere], |row| Ok(PackName(row.get(0)?)))?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }

    /// Keeps what was found when these packs were looked at. A look for presence reads no byte: it only
    /// brings damage, and mends none.
    ///
    /// # Errors
    /// The file could not be written.
    pub fn put_scrubbed(&mut self, region: &RegionRef, scrubbed: &[Scrubbed]) -> Result<()> {
        self.all_or_nothing(|connection| {
            let n = region_number(connection, region)?;
            let sql = "INSERT INTO scrub VALUES (?1, ?2, ?3, ?3, ?4, ?5) ON CONFLICT DO UPDATE
                SET verified = excluded.verified, level = excluded.level, damage = excluded.damage";
            let mut read = connection.prepare_cached(sql)?;
            let sql = "INSERT INTO scrub VALUES (?1, ?2, ?3, 0, 0, ?4) ON CONFLICT DO UPDATE
                SET damage = coalesce(excluded.damage, damage)";
            let mut missed = connection.prepare_cached(sql)?;
            for one in scrubbed {
                let pack = one.pack.bytes();
                match one.level {
                    PackLook::Presence => missed.execute(params![n, pack, one.at, one.damage])?,
                    level => read.execute(params![n, pack, one.at, level as i64, one.damage])?,
                };
            }
            Ok(())
        })
    }

    /// Each region with its packs, those that were sound when they were read since `since` (ms) counted apart.
    ///
    /// # Errors
    /// The file could not be read.
    pub fn coverage(&self, since: i64, now: i64) -> Result<Vec<Coverage>> {
        let mut regions = self.connection.prepare_cached("SELECT n, id, name FROM regions ORDER BY name")?;
        let regions = regions.query_map([], |row| {
            Ok((row.get::<_, i64>(0)?, RegionRef { id: crate::base::RegionId(row.get(1)?), name: row.get(2)? }))
        })?;
        let mut all = Vec::new();
        for region in regions {
            let (n, region) = region?;
            all.push(self.coverage_of(n, region, since, now)?);
        }
        Ok(all)
    }

    fn coverage_of(&self, n: i64, region: RegionRef, since: i64, now: i64) -> Result<Coverage> {
        // As `waiting` has it: what is from later was never verified.
        let until = now.saturating_add(AHEAD_MS);
        let count = |sql: &str, with: &[&dyn rusqlite::ToSql]| -> Result<u64> {
            Ok(unsigned(self.connection.prepare_cached(sql)?.query_row(with, |row| row.get(0))?))
        };
        let packs = count("SELECT count(*) FROM scrub WHERE region = ?1", &[&n])?;
        let damaged = count("SELECT count(*) FROM scrub WHERE region = ?1 AND damage IS NOT NULL", &[&n])?;
        let sql = "SELECT count(*) FROM scrub WHERE region = ?1 AND verified >= ?2 AND verified > 0 AND verified <= ?3";
        let read = count(sql, &[&n, &since, &until])?;
        let unsound = count(&format!("{sql} AND damage IS NOT NULL"), &[&n, &since, &until])?;
        let oldest = |sql: &str| -> Result<Option<i64>> {
            Ok(self.connection.prepare_cached(sql)?.query_row([n, until], |row| row.get(0)).optional()?)
        };
        let oldest = [
            oldest("SELECT seen FROM scrub WHERE region = ?1 AND verified = 0 AND ?2 > 0 ORDER BY seen LIMIT 1")?,
            oldest("SELECT seen FROM scrub WHERE region = ?1 AND verified > ?2 ORDER BY seen LIMIT 1")?,
            oldest(
                "SELECT verified FROM scrub WHERE region = ?1 AND verified > 0 AND verified <= ?2
                    ORDER BY verified LIMIT 1",
            )?,
        ];
        let oldest = oldest.into_iter().flatten().min().map(|at| at.min(now));
        let sql = "SELECT verified, level FROM scrub WHERE region = ?1 AND verified > 0 AND verified <= ?2
            ORDER BY verified DESC LIMIT 1";
        let last = self
            .connection
            .prepare_cached(sql)?
            .query_row([n, until], |row| {
                Ok((row.get(0)?, if row.get::<_, i64>(1)? == 2 { PackLook::Content } else { PackLook::Ciphertext }))
            })
            .optional()?;
        Ok(Coverage { region, packs, recent: read.saturating_sub(unsound), damaged, oldest, last })
    }

    /// What is known of every pack of a region: when it was verified last (ms, 0: never), and how deep.
    #[cfg(test)]
    fn looks(&self, region: &RegionRef) -> std::collections::HashMap<PackName, (i64, i64)> {
        let n = region_number(&self.connection, region).unwrap();
        let mut all = self.connection.prepare("SELECT pack, verified, level FROM scrub WHERE region = ?1").unwrap();
        let rows = all.query_map([n], |row| Ok((PackName(row.get(0)?), (row.get(1)?, row.get(2)?)))).unwrap();
        rows.collect::<rusqlite::Result<_>>().unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::RegionId;

    #[test]
    fn the_pack_that_waited_longest_comes_first() {
        let mut catalog = Catalog::in_memory().unwrap();
        let region = RegionRef { id: RegionId([1; 16]), name: "a".into() };
        let packs: Vec<PackName> = (1..=4).map(|n| PackName([n; 32])).collect();
        let known = catalog.waiting(&region, &packs[..3], 100).unwrap();
        assert_eq!(known.order, [(packs[0], 100), (packs[1], 100), (packs[2], 100)]);
        let one = |n: usize, at, level, damage: Option<&str>| Scrubbed {
            pack: packs[n],
            at,
            level,
            damage: damage.map(str::to_owned),
        };
        let done = [one(0, 300, PackLook::Content, None), one(1, 200, PackLook::Ciphertext, Some("bad"))];
        catalog.put_scrubbed(&region, &done).unwrap();
        catalog.put_scrubbed(&region, &[one(2, 400, PackLook::Presence, None)]).unwrap();
        let order = catalog.waiting(&region, &packs, 500).unwrap().order;
        assert_eq!(order, [(packs[2], 100), (packs[1], 200), (packs[0], 300), (packs[3], 500)]);
        let known = catalog.looks(&region);
        assert_eq!((known[&packs[0]], known[&packs[2]]), ((300, 2), (0, 0)));
        let found = catalog.coverage(250, 500).unwrap();
        let expected = Coverage {
            region: region.clone(),
            packs: 4,
            recent: 1,
            damaged: 1,
            oldest: Some(100),
            last: Some((300, PackLook::Content)),
        };
        assert_eq!(found, [expected]);
        // What was read and not sound is not verified, however young.
        assert_eq!(catalog.coverage(150, 500).unwrap()[0].recent, 1);
        // Packs that are gone are told, and dropped by who knows that nobody wants them.
        let left = catalog.waiting(&region, &packs[3..], 600).unwrap();
        assert_eq!((left.order, left.others.len()), (vec![(packs[3], 500)], 3));
        assert_eq!(catalog.coverage(0, 600).unwrap()[0].packs, 4);
        catalog.drop_packs(&region, &left.others).unwrap();
        assert_eq!(catalog.coverage(0, 600).unwrap()[0].packs, 1);
    }

    /// A clock that was years ahead for one check must not keep its packs from being read until that time comes.
    #[test]
    fn times_that_are_yet_to_come_are_not_believed() {
        const YEAR: i64 = 365 * 86_400_000;
        let mut catalog = Catalog::in_memory().unwrap();
        let region = RegionRef { id: RegionId([1; 16]), name: "a".into() };
        let packs: Vec<PackName> = (1..=3).map(|n| PackName([n; 32])).collect();
        catalog.add_packs(&region, &packs[..2], YEAR).unwrap();
        catalog.add_packs(&region, &packs[2..], 20 * YEAR).unwrap();
        let ahead =
            Scrubbed { pack: packs[0], at: 20 * YEAR, level: PackLook::Content, damage: Some("bad".to_owned()) };
        let sound = Scrubbed { pack: packs[1], at: 2 * YEAR, level: PackLook::Content, damage: None };
        catalog.put_scrubbed(&region, &[ahead, sound]).unwrap();
        let now = 3 * YEAR;
        let found = catalog.coverage(YEAR, now).unwrap().remove(0);
        assert_eq!((found.recent, found.oldest, found.last), (1, Some(YEAR), Some((2 * YEAR, PackLook::Content))));
        let order = catalog.waiting(&region, &packs, now).unwrap().order;
        assert_eq!(order, [(packs[0], YEAR), (packs[1], 2 * YEAR), (packs[2], now)]);
        // What is known to be damaged stays so.
        assert_eq!(catalog.damaged_in(&region).unwrap(), [(packs[0], "bad".to_owned())]);
    }

    #[test]
    fn damaged_somewhere_and_damaged_everywhere() {
        let mut catalog = Catalog::in_memory().unwrap();
        let region = |n: u8| RegionRef { id: RegionId([n; 16]), name: n.to_string() };
        let packs: Vec<PackName> = (1..=3).map(|n| PackName([n; 32])).collect();
        for n in [1, 2] {
            catalog.add_packs(&region(n), &packs, 1).unwrap();
        }
        let bad =
            |n: usize| Scrubbed { pack: packs[n], at: 5, level: PackLook::Ciphertext, damage: Some("bad".to_owned()) };
        catalog.put_scrubbed(&region(1), &[bad(0), bad(1)]).unwrap();
        catalog.put_scrubbed(&region(2), &[bad(1)]).unwrap();
        assert_eq!(catalog.damaged(false).unwrap(), packs[..2]);
        assert_eq!(catalog.damaged(true).unwrap(), packs[1..2]);
    }
}
