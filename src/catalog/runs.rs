//! Closed runs.

use super::{Catalog, Result, source_number};
use crate::base::{RunId, hex};
use crate::format::run::Run;
use rusqlite::{Connection, OptionalExtension, Row, named_params, params};
use serde_json::{Value, json};

/// What is asked for.
#[derive(Debug, Clone, Default)]
pub struct RunQuery {
    /// At most so many, the newest.
    pub last: usize,
    /// Of this source only.
    pub source: Option<String>,
    /// Only those that did not end with exit code 0.
    pub failed: bool,
}

/// A run as the catalog tells it.
#[derive(Debug, Clone, PartialEq)]
pub struct RunLine {
    /// Run.
    pub id: RunId,
    /// What was executed.
    pub kind: String,
    /// Policy.
    pub policy: Option<String>,
    /// Name of the source.
    pub source: Option<String>,
    /// Host.
    pub host: String,
    /// Start, ms.
    pub start: i64,
    /// End, ms.
    pub end: i64,
    /// Exit code.
    pub exit: u8,
    /// Its name.
    pub exit_name: String,
    /// Everything else, see [`details`].
    pub details: Value,
}

/// The runs of one source, in short.
#[derive(Debug, Clone, PartialEq)]
pub struct SourceRuns {
    /// Name of the source.
    pub source: String,
    /// The newest backup.
    pub last: Option<RunLine>,
    /// How the newest one ended that was no delta: those come by the second, and would hide it.
    pub last_but_deltas: Option<u8>,
    /// Start of the newest backup that left a snapshot in enough regions (exit code 0, 3 or 4) which is still there, ms.
    pub success: Option<i64>,
}

/// What a run did, as JSON.
pub fn details(run: &Run) -> Value {
    let miss = |m: &crate::format::snapshot::Miss| json!({"path": String::from_utf8_lossy(&m.path), "kind": m.kind, "message": m.message});
    json!({
        "how": run.how, "error": run.error, "program": run.program,
        "figures": run.figures.iter().map(|f| json!({"name": f.name, "value": f.value})).collect::<Vec<_>>(),
        "snapshots": run.snapshots.iter().map(|sid| hex(&sid.0)).collect::<Vec<_>>(),
        "regions": run.reached,
        "behind": run.behind.iter().map(|b| json!({"region": b.region, "why": b.why})).collect::<Vec<_>>(),
        "errors": run.errors.iter().map(miss).collect::<Vec<_>>(), "errors_total": run.errors_total,
    })
}

const COLUMNS: &str = "SELECT r.id, r.kind, r.policy, s.name, r.host, r.start, r.end, r.exit, r.exit_name, r.details
    FROM runs r LEFT JOIN sources s ON s.n = r.source";

fn line(row: &Row<'_>) -> rusqlite::Result<RunLine> {
    let details: String = row.get(9)?;
    Ok(RunLine {
        id: RunId(row.get(0)?),
        kind: row.get(1)?,
        policy: row.get(2)?,
        source: row.get(3)?,
        host: row.get(4)?,
        start: row.get(5)?,
        end: row.get(6)?,
        exit: row.get(7)?,
        exit_name: row.get(8)?,
        details: serde_json::from_str(&details)
            .map_err(|e| rusqlite::Error::FromSqlConversionFailure(9, rusqlite::types::Type::Text, e.into()))?,
    })
}

fn put(connection: &Connection, run: &Run) -> Result<()> {
    let source = run.source.as_deref().map(|name| source_number(connection, name)).transpose()?;
    let sql = "INSERT OR REPLACE INTO runs VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)";
    let details = details(run).to_string();
    connection.prepare_cached(sql)?.execute(params![
        run.id.bytes(),
        run.kind,
        run.policy,
        source,
        run.host,
        run.start,
        run.end,
        run.exit,
        run.exit_name,
        details
    ])?;
    Ok(())
}

impl Catalog {
    /// Keeps these runs.
    ///
    /// # Errors
    /// The file could not be written.
    pub fn put_runs(&mut self, runs: &[Run]) -> Result<()> {
        self.all_or_nothing(|connection| runs.iter().try_for_each(|run| put(connection, run)))
    }

    /// Newest first.
    ///
    /// # Errors
    /// The file could not be read.
    pub fn runs(&self, query: &RunQuery) -> Result<Vec<RunLine>> {
        let mut sql = COLUMNS.to_owned();
        let source = match &query.source {
            Some(name) => {
                let sql = "SELECT n FROM sources WHERE name = ?1";
                let Some(n) = self.connection.query_row(sql, [name], |row| row.get(0)).optional()? else {
                    return Ok(Vec::new());
                };
                Some(n)
            }
            None => None::<i64>,
        };
        // Written out where they apply, so that each form has its index.
        sql.push_str(if source.is_some() { " WHERE r.source = :source" } else { " WHERE :source IS NULL" });
        sql.push_str(if query.failed { " AND r.exit != 0" } else { "" });
        sql.push_str(" ORDER BY r.start DESC, r.id LIMIT :last");
        let mut statement = self.connection.prepare_cached(&sql)?;
        let last = i64::try_from(query.last).unwrap_or(i64::MAX);
        let lines = statement.query_map(named_params! {":source": source, ":last": last}, line)?;
        Ok(lines.collect::<rusqlite::Result<_>>()?)
    }

    /// The newest run of one kind of a policy. What is from after `until` (ms) does not count.
    ///
    /// # Errors
    /// The file could not be read.
    pub fn last_of(&self, policy: &str, kind: &str, until: i64) -> Result<Option<RunLine>> {
        let sql =
            format!("{COLUMNS} WHERE r.policy = ?1 AND r.kind = ?2 AND r.start <= ?3 ORDER BY r.start DESC LIMIT 1");
        let mut newest = self.connection.prepare_cached(&sql)?;
        Ok(newest.query_row(params![policy, kind, until], line).optional()?)
    }

    /// Checks that came to their end (exit code 0, 3, 4 or 5), newest first, as long as `more` wants another. What is
    /// from after `until` (ms) does not count.
    ///
    /// # Errors
    /// The file could not be read.
    pub fn checks(&self, until: i64, mut more: impl FnMut(&RunLine) -> bool) -> Result<()> {
        let sql = format!(
            "{COLUMNS} WHERE r.kind = 'verify' AND r.exit IN (0, 3, 4, 5) AND r.start <= ?1 ORDER BY r.start DESC"
        );
        let mut checks = self.connection.prepare_cached(&sql)?;
        for check in checks.query_map([until], line)? {
            if !more(&check?) {
                break;
            }
        }
        Ok(())
    }

    /// The backups of every source in short, by name. What is from after `until` (ms) does not count, and neither does a
    /// success of which no snapshot is left.
    ///
    /// # Errors
    /// The file could not be read.
    pub fn source_runs(&self, until: i64) -> Result<Vec<SourceRuns>> {
        let mut sources = self.connection.prepare_cached("SELECT n, name FROM sources ORDER BY name")?;
        let sources = sources.query_map([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?)))?;
        let newest = format!(
            "{COLUMNS} WHERE r.source = ?1 AND r.kind = 'backup' AND r.start <= ?2 ORDER BY r.start DESC LIMIT 1"
        );
        let mut newest = self.connection.prepare_cached(&newest)?;
        let others = "SELECT exit FROM runs WHERE source = ?1 AND kind = 'backup' AND start <= ?2
            AND json_extract(details, '$.how') IS NOT 'delta' ORDER BY start DESC LIMIT 1";
        let mut others = self.connection.prepare_cached(others)?;
        // A run begins before its snapshot does: what began after the newest that is left has lost its own.
        let sql = "SELECT start FROM runs WHERE source = ?1 AND kind = 'backup' AND exit IN (0, 3, 4)
            AND start <= (SELECT max(start) FROM snapshots WHERE source = ?1 AND start <= ?2) ORDER BY start DESC LIMIT 1";
        let mut success = self.connection.prepare_cached(sql)?;
        let mut all = Vec::new();
        for source in sources {
            let (n, name) = source?;
            let last = newest.query_row([n, until], line).optional()?;
            let success = success.query_row([n, until], |row| row.get(0)).optional()?;
            let last_but_deltas = others.query_row([n, until], |row| row.get(0)).optional()?;
            all.push(SourceRuns { source: name, last, last_but_deltas, success });
        }
        Ok(all)
    }
}
