//! Local state in SQLite: runs, snapshots by region, what was verified when. Never the truth: everything in it can
//! be deleted, and comes back from any one region but for the times of verification.
//!
//! A file that cannot be used is renamed, never deleted, and a new one takes its place. The only user of `rusqlite`.

mod file;
mod runs;
mod schema;
mod scrub;
mod snapshots;

pub use file::{SetAside, path_of};
pub use runs::{RunLine, RunQuery, SourceRuns, details};
pub use scrub::{Coverage, PackLook, Scrubbed, Waiting};
pub use snapshots::{Copies, Size, SnapshotLine, SourceSnapshots};

use crate::base::RegionId;
use rusqlite::{Connection, ErrorCode, OptionalExtension, TransactionBehavior, params};
use thiserror::Error;

/// Why the catalog does not answer.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CatalogError {
    /// The file is no catalog, or no longer one.
    #[error("{0}")]
    Damaged(String),
    /// The file cannot be read or written now; it may be sound.
    #[error("{0}")]
    Unusable(String),
}

/// Result of everything here.
pub type Result<T> = std::result::Result<T, CatalogError>;

impl From<rusqlite::Error> for CatalogError {
    fn from(e: rusqlite::Error) -> Self {
        match e.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => CatalogError::Damaged(e.to_string()),
            Some(_) => CatalogError::Unusable(e.to_string()),
            // Statements are right by test; what does not fit is what the file holds.
            None => CatalogError::Damaged(format!("does not hold what it should: {e}")),
        }
    }
}

/// A region as the catalog knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegionRef {
    /// Its id.
    pub id: RegionId,
    /// Its name when last seen.
    pub name: String,
}

/// What is from further ahead than this, ms, was written by a clock that was wrong: it must not pass for young until
/// its time comes.
pub const AHEAD_MS: i64 = 5 * 60_000;

/// An open catalog.
#[derive(Debug)]
pub struct Catalog {
    connection: Connection,
    /// Which file it is, whatever its name is by now.
    inode: u64,
}

impl Catalog {
    /// One that is gone when it is dropped.
    ///
    /// # Errors
    /// No memory.
    pub fn in_memory() -> Result<Catalog> {
        let mut catalog = Catalog { connection: Connection::open_in_memory()?, inode: 0 };
        schema::migrate(&mut catalog.connection)?;
        Ok(catalog)
    }

    /// Whether everything that the regions know was read into it once.
    ///
    /// # Errors
    /// The file could not be read.
    pub fn is_filled(&self) -> Result<bool> {
        let sql = "SELECT EXISTS (SELECT 1 FROM filled)";
        Ok(self.connection.query_row(sql, [], |row| row.get(0))?)
    }

    /// It was, at this time (ms).
    ///
    /// # Errors
    /// The file could not be written.
    pub fn mark_filled(&mut self, at: i64) -> Result<()> {
        self.all_or_nothing(|connection| {
            connection.execute("INSERT INTO filled SELECT ?1 WHERE NOT EXISTS (SELECT 1 FROM filled)", [at])?;
            Ok(())
        })
    }

    /// Runs `act` in one transaction: all of it, or nothing.
    fn all_or_nothing<T>(&mut self, act: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        let transaction = self.connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let value = act(&transaction)?;
        transaction.commit()?;
        Ok(value)
    }
}

/// The number of a region; its name is kept current.
fn region_number(connection: &Connection, region: &RegionRef) -> Result<i64> {
    let known: Option<(i64, String)> = connection
        .prepare_cached("SELECT n, name FROM regions WHERE id = ?1")?
        .query_row([region.id.bytes()], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    match known {
        Some((n, name)) if name == region.name => Ok(n),
        Some((n, _)) => {
            connection.execute("UPDATE regions SET name = ?2 WHERE n = ?1", params![n, region.name])?;
            Ok(n)
        }
        None => {
            let sql = "INSERT INTO regions (id, name) VALUES (?1, ?2)";
            connection.execute(sql, params![region.id.bytes(), region.name])?;
            Ok(connection.last_insert_rowid())
        }
    }
}

/// The number of a source.
fn source_number(connection: &Connection, name: &str) -> Result<i64> {
    connection.prepare_cached("INSERT OR IGNORE INTO sources (name) VALUES (?1)")?.execute([name])?;
    let mut statement = connection.prepare_cached("SELECT n FROM sources WHERE name = ?1")?;
    Ok(statement.query_row([name], |row| row.get(0))?)
}

/// Counts that are unsigned here and signed in SQLite.
fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn unsigned(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(0)
}
