//! Which pack was verified when, in each region.

use super::{Catalog, RegionRef, Result, region_number, unsigned};
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

    /// Makes `packs` all that the region has, and returns them with the one first that waited longest, each with the
    /// time since when (ms): last verified, or first seen.
    ///
    /// # Errors
    /// The file could not be written.
    pub fn oldest_first(&mut self, region: &RegionRef, packs: &[PackName], seen: i64) -> Result<Vec<(PackName, i64)>> {
        self.add_packs(region, packs, seen)?;
        let here: BTreeSet<PackName> = packs.iter().copied().collect();
        self.all_or_nothing(|connection| {
            let n = region_number(connection, region)?;
            let sql = "SELECT pack, CASE verified WHEN 0 THEN seen ELSE verified END AS since
                FROM scrub WHERE region = ?1 ORDER BY since";
            let mut known = connection.prepare_cached(sql)?;
            let rows = known.query_map([n], |row| Ok((PackName(row.get(0)?), row.get(1)?)))?;
            let known: Vec<(PackName, i64)> = rows.collect::<rusqlite::Result<_>>()?;
            let mut gone = connection.prepare_cached("DELETE FROM scrub WHERE region = ?1 AND pack = ?2")?;
            let (stay, go): (Vec<_>, Vec<_>) = known.into_iter().partition(|(pack, _)| here.contains(pack));
            go.iter().try_for_each(|(pack, _)| gone.execute(params![n, pack.bytes()]).map(drop))?;
            Ok(stay)
        })
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

    /// Each region with its packs, those verified since `since` (ms) counted apart.
    ///
    /// # Errors
    /// The file could not be read.
    pub fn coverage(&self, since: i64) -> Result<Vec<Coverage>> {
        let mut regions = self.connection.prepare_cached("SELECT n, id, name FROM regions ORDER BY name")?;
        let regions = regions.query_map([], |row| {
            Ok((row.get::<_, i64>(0)?, RegionRef { id: crate::base::RegionId(row.get(1)?), name: row.get(2)? }))
        })?;
        let mut all = Vec::new();
        for region in regions {
            let (n, region) = region?;
            all.push(self.coverage_of(n, region, since)?);
        }
        Ok(all)
    }

    fn coverage_of(&self, n: i64, region: RegionRef, since: i64) -> Result<Coverage> {
        let count = |sql: &str, with: &[&dyn rusqlite::ToSql]| -> Result<u64> {
            Ok(unsigned(self.connection.prepare_cached(sql)?.query_row(with, |row| row.get(0))?))
        };
        let packs = count("SELECT count(*) FROM scrub WHERE region = ?1", &[&n])?;
        let damaged = count("SELECT count(*) FROM scrub WHERE region = ?1 AND damage IS NOT NULL", &[&n])?;
        let sql = "SELECT count(*) FROM scrub WHERE region = ?1 AND verified >= ?2 AND verified > 0";
        let recent = count(sql, &[&n, &since])?;
        let oldest = |sql: &str| -> Result<Option<i64>> {
            Ok(self.connection.prepare_cached(sql)?.query_row([n], |row| row.get(0)).optional()?)
        };
        let never = oldest("SELECT seen FROM scrub WHERE region = ?1 AND verified = 0 ORDER BY seen LIMIT 1")?;
        let before = oldest("SELECT verified FROM scrub WHERE region = ?1 AND verified > 0 ORDER BY verified LIMIT 1")?;
        let oldest = [never, before].into_iter().flatten().min();
        let sql = "SELECT verified, level FROM scrub WHERE region = ?1 AND verified > 0 ORDER BY verified DESC LIMIT 1";
        let last = self
            .connection
            .prepare_cached(sql)?
            .query_row([n], |row| {
                Ok((row.get(0)?, if row.get::<_, i64>(1)? == 2 { PackLook::Content } else { PackLook::Ciphertext }))
            })
            .optional()?;
        Ok(Coverage { region, packs, recent, damaged, oldest, last })
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
        let known = catalog.oldest_first(&region, &packs[..3], 100).unwrap();
        assert_eq!(known, [(packs[0], 100), (packs[1], 100), (packs[2], 100)]);
        let one = |n: usize, at, level, damage: Option<&str>| Scrubbed {
            pack: packs[n],
            at,
            level,
            damage: damage.map(str::to_owned),
        };
        let done = [one(0, 300, PackLook::Content, None), one(1, 200, PackLook::Ciphertext, Some("bad"))];
        catalog.put_scrubbed(&region, &done).unwrap();
        catalog.put_scrubbed(&region, &[one(2, 400, PackLook::Presence, None)]).unwrap();
        let order = catalog.oldest_first(&region, &packs, 500).unwrap();
        assert_eq!(order, [(packs[2], 100), (packs[1], 200), (packs[0], 300), (packs[3], 500)]);
        let known = catalog.looks(&region);
        assert_eq!((known[&packs[0]], known[&packs[2]]), ((300, 2), (0, 0)));
        let found = catalog.coverage(250).unwrap();
        let expected = Coverage {
            region: region.clone(),
            packs: 4,
            recent: 1,
            damaged: 1,
            oldest: Some(100),
            last: Some((300, PackLook::Content)),
        };
        assert_eq!(found, [expected]);
        // Packs that are gone are not waited for.
        assert_eq!(catalog.oldest_first(&region, &packs[3..], 600).unwrap(), [(packs[3], 500)]);
        assert_eq!(catalog.coverage(0).unwrap()[0].packs, 1);
    }
}
