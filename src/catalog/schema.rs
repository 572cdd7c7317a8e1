//! The tables, version by version.

use super::{CatalogError, Result};
use rusqlite::{Connection, TransactionBehavior};

/// Says in the file whose it is: "HOLD".
const APPLICATION_ID: i32 = 0x484f_4c44;

/// What makes version n out of version n − 1. Never changed once released; new ones are added at the end.
const MIGRATIONS: &[&str] = &[
    "
    CREATE TABLE sources (n INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
    CREATE TABLE regions (n INTEGER PRIMARY KEY, id BLOB NOT NULL UNIQUE, name TEXT NOT NULL);

    CREATE TABLE runs (
        id BLOB PRIMARY KEY, kind TEXT NOT NULL, policy TEXT, source INTEGER REFERENCES sources,
        host TEXT NOT NULL, start INTEGER NOT NULL, end INTEGER NOT NULL,
        exit INTEGER NOT NULL, exit_name TEXT NOT NULL, details TEXT NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX runs_by_time ON runs (start);
    CREATE INDEX runs_by_source ON runs (source, kind, start);
    CREATE INDEX runs_by_policy ON runs (policy, kind, start);
    -- Failures are rare among many runs, and asked for.
    CREATE INDEX runs_not_done ON runs (start) WHERE exit != 0;

    CREATE TABLE snapshots (
        sid BLOB PRIMARY KEY, source INTEGER NOT NULL REFERENCES sources, host TEXT NOT NULL,
        start INTEGER NOT NULL, mode TEXT NOT NULL, files INTEGER NOT NULL, bytes INTEGER NOT NULL,
        errors INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX snapshots_by_source ON snapshots (source, start);
    CREATE INDEX snapshots_by_time ON snapshots (start);
    CREATE TABLE copies (
        sid BLOB NOT NULL, region INTEGER NOT NULL REFERENCES regions, PRIMARY KEY (sid, region)
    ) WITHOUT ROWID;
    -- Kept by triggers, so that nobody counts a million rows. Region 0: all snapshots of the source.
    CREATE TABLE totals (
        source INTEGER NOT NULL, region INTEGER NOT NULL, snapshots INTEGER NOT NULL, PRIMARY KEY (source, region)
    ) WITHOUT ROWID;
    CREATE TRIGGER snapshot_comes AFTER INSERT ON snapshots BEGIN
        INSERT INTO totals VALUES (new.source, 0, 1)
            ON CONFLICT DO UPDATE SET snapshots = snapshots + 1;
    END;
    CREATE TRIGGER snapshot_goes BEFORE DELETE ON snapshots BEGIN
        DELETE FROM copies WHERE sid = old.sid;
        UPDATE totals SET snapshots = snapshots - 1 WHERE source = old.source AND region = 0;
    END;
    CREATE TRIGGER copy_comes AFTER INSERT ON copies BEGIN
        INSERT INTO totals VALUES ((SELECT source FROM snapshots WHERE sid = new.sid), new.region, 1)
            ON CONFLICT DO UPDATE SET snapshots = snapshots + 1;
    END;
    CREATE TRIGGER copy_goes BEFORE DELETE ON copies BEGIN
        UPDATE totals SET snapshots = snapshots - 1
            WHERE source = (SELECT source FROM snapshots WHERE sid = old.sid) AND region = old.region;
    END;

    CREATE TABLE scrub (
        region INTEGER NOT NULL REFERENCES regions, pack BLOB NOT NULL,
        seen INTEGER NOT NULL, verified INTEGER NOT NULL, level INTEGER NOT NULL, damage TEXT,
        PRIMARY KEY (region, pack)
    ) WITHOUT ROWID;
    CREATE INDEX scrub_oldest ON scrub (region, verified, seen);
    CREATE INDEX scrub_damaged ON scrub (region) WHERE damage IS NOT NULL;
",
    "
    -- Has a row once everything that the regions know was read: an older file has none, and is filled again.
    CREATE TABLE filled (at INTEGER NOT NULL);
    -- Whether a person has said that the snapshot is right as it is, however small.
    ALTER TABLE snapshots ADD COLUMN accepted INTEGER NOT NULL DEFAULT 0;
    -- How large a source was over time, without looking at each row.
    DROP INDEX snapshots_by_source;
    CREATE INDEX snapshots_by_source ON snapshots (source, start, files, bytes, accepted);
    CREATE INDEX runs_by_kind ON runs (kind, start);
",
    "
    -- Changes beside an earlier snapshot do not measure a source.
    DROP INDEX snapshots_by_source;
    CREATE INDEX snapshots_by_source ON snapshots (source, start, files, bytes, accepted, mode);
",
];

/// Brings a file up to this program's version, in one transaction; a new one gets everything.
pub fn migrate(connection: &mut Connection) -> Result<()> {
    let (newest, found) = (MIGRATIONS.len(), version(connection)?);
    if found == newest {
        return Ok(());
    }
    // Asked again inside: another process may have been quicker.
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let found = version(&transaction)?;
    for (step, sql) in MIGRATIONS.iter().enumerate().skip(found) {
        transaction.execute_batch(sql)?;
        transaction.pragma_update(None, "user_version", i64::try_from(step + 1).unwrap_or(i64::MAX))?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    Ok(transaction.commit()?)
}

/// The version of a file: 0 for an empty one.
fn version(connection: &Connection) -> Result<usize> {
    let number = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
    let (application, version) = (number("application_id")?, number("user_version")?);
    let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))?;
    match usize::try_from(version) {
        Ok(0) if application == 0 && tables == 0 => Ok(0),
        _ if application != APPLICATION_ID => Err(CatalogError::Damaged("another program's database".into())),
        Ok(version) if (1..=MIGRATIONS.len()).contains(&version) => Ok(version),
        _ => Err(CatalogError::Damaged(format!("made by a newer program (version {version})"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_file_gets_every_version_and_a_current_one_stays() {
        let mut connection = Connection::open_in_memory().unwrap();
        for _ in 0..2 {
            migrate(&mut connection).unwrap();
            assert_eq!(version(&connection).unwrap(), MIGRATIONS.len());
        }
        connection.pragma_update(None, "user_version", 99).unwrap();
        let refused = migrate(&mut connection).unwrap_err();
        assert!(refused.to_string().contains("newer program"), "{refused}");
    }

    #[test]
    fn an_older_file_keeps_what_it_has_and_is_to_be_filled_again() {
        let mut connection = Connection::open_in_memory().unwrap();
        connection.execute_batch(MIGRATIONS[0]).unwrap();
        let old =
            "INSERT INTO sources VALUES (1, 's'); INSERT INTO snapshots VALUES (x'01', 1, 'h', 5, 'full', 1, 2, 0)";
        connection.execute_batch(old).unwrap();
        connection.pragma_update(None, "user_version", 1).unwrap();
        connection.pragma_update(None, "application_id", APPLICATION_ID).unwrap();
        migrate(&mut connection).unwrap();
        let count = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap();
        assert_eq!(count("SELECT count(*) FROM snapshots WHERE accepted = 0"), 1);
        assert_eq!(count("SELECT snapshots FROM totals"), 1);
        assert_eq!(count("SELECT count(*) FROM filled"), 0);
    }

    #[test]
    fn what_somebody_else_made_is_not_touched() {
        let mut connection = Connection::open_in_memory().unwrap();
        connection.execute_batch("CREATE TABLE notes (text)").unwrap();
        assert!(matches!(migrate(&mut connection), Err(CatalogError::Damaged(_))));
        let tables: i64 = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |r| r.get(0)).unwrap();
        assert_eq!(tables, 1);
    }
}
