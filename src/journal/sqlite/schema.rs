//! The database file: how it is made, recognised, set up and brought to the present schema.
//!
//! A new version of the schema is a function appended to [`MIGRATIONS`]; those that are there never change. Version 1 is made
//! through the same list, so the path is used from the first day. A file is never taken back to an older version.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags};
use rustix::fs::StatVfsMountFlags;

use super::{beside, directory_of, say};
use crate::ports::JournalError;

/// Says "a rekeyd journal" in SQLite's own header (`file` shows it): "rkey".
const APPLICATION_ID: i32 = 0x726b_6579;

/// How long to wait for a reader that is in the way, which reads some megabytes at most.
const BUSY: Duration = Duration::from_secs(10);

/// One step from a version of the schema to the next, inside a transaction of its own.
pub(super) type Migration = fn(&Connection) -> rusqlite::Result<()>;

/// Every step there is; the version of the schema is how many of them a file has seen.
pub(super) const MIGRATIONS: &[Migration] = &[version_1];

fn version_1(db: &Connection) -> rusqlite::Result<()> {
    db.execute_batch(
        "-- One row for each service. `chain` is the name its hashes and seals are bound to: the one it had first, for life.
         -- `name` is the one it has now. `whose` is a hash over the two and the id, because a flipped bit here would turn a
         -- service with a past into one without. `sequence` and `head` are those of its last event: a chain alone cannot
         -- tell that its last rows are missing.
         CREATE TABLE service (
             id       INTEGER PRIMARY KEY,
             chain    TEXT NOT NULL UNIQUE,
             name     TEXT NOT NULL UNIQUE,
             whose    BLOB NOT NULL,
             sequence INTEGER NOT NULL,
             head     BLOB NOT NULL
         ) STRICT;

         -- Names a service had before; makes a rename repeatable.
         CREATE TABLE former_name (
             service INTEGER NOT NULL REFERENCES service (id),
             name    TEXT NOT NULL,
             PRIMARY KEY (service, name)
         ) STRICT, WITHOUT ROWID;

         CREATE TABLE event (
             service  INTEGER NOT NULL REFERENCES service (id),
             sequence INTEGER NOT NULL CHECK (sequence > 0),
             at_wall  TEXT NOT NULL,
             at_boot  INTEGER NOT NULL,
             boot_id  TEXT NOT NULL,
             body     TEXT NOT NULL,
             hash     BLOB NOT NULL,
             PRIMARY KEY (service, sequence)
         ) STRICT, WITHOUT ROWID;
         CREATE TRIGGER event_is_never_changed BEFORE UPDATE ON event
             BEGIN SELECT RAISE (ABORT, 'the journal is append-only'); END;
         CREATE TRIGGER event_is_never_removed BEFORE DELETE ON event
             BEGIN SELECT RAISE (ABORT, 'the journal is append-only'); END;

         -- Sealed material; deleted when it is shredded.
         CREATE TABLE sealed (
             service INTEGER NOT NULL REFERENCES service (id),
             key     TEXT NOT NULL,
             blob    BLOB NOT NULL,
             PRIMARY KEY (service, key)
         ) STRICT, WITHOUT ROWID;

         -- Refused logins, by keyed fingerprint; deleted when an operator wants another try.
         CREATE TABLE refused_login (
             system      TEXT NOT NULL,
             user        TEXT NOT NULL,
             seal_key    TEXT NOT NULL,
             fingerprint BLOB NOT NULL,
             PRIMARY KEY (system, user, seal_key, fingerprint)
         ) STRICT, WITHOUT ROWID;",
    )
}

/// Makes an empty journal, whole or not at all: it is built under another name, synced, and renamed into place.
///
/// So a journal that is there but empty was never left by us: it has lost its contents, and is refused as damaged.
pub(super) fn create(path: &Path, migrations: &[Migration]) -> Result<(), JournalError> {
    let wal = beside(path, "-wal");
    if wal.exists() {
        return Err(JournalError::Damaged(format!(
            "journal {} is missing, but its log {} is there: restore the journal; no new one is made over the log",
            path.display(),
            wal.display()
        )));
    }
    let unreachable = |error: String| {
        JournalError::Unreachable(format!(
            "cannot make journal {}: {error}{}",
            path.display(),
            super::free_space(&directory_of(path))
        ))
    };
    let draft = beside(path, ".new");
    let make = || -> io::Result<()> {
        // What a process left that died here.
        for suffix in ["", "-wal", "-shm", "-journal"] {
            match fs::remove_file(beside(&draft, suffix)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
        Ok(())
    };
    make().map_err(|error| unreachable(error.to_string()))?;
    let fill = || -> rusqlite::Result<()> {
        let mut db = connect(&draft, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        db.pragma_update(None, "application_id", APPLICATION_ID)?;
        migrate(&mut db, 0, migrations)?;
        db.close().map_err(|(_, error)| error)
    };
    fill().map_err(|error| unreachable(say(&error)))?;
    let settle = || -> io::Result<()> {
        File::open(&draft)?.sync_all()?;
        fs::rename(&draft, path)?;
        File::open(directory_of(path))?.sync_all()
    };
    settle().map_err(|error| unreachable(error.to_string()))
}

/// Opens a journal that exists for writing, and brings it to the present schema.
pub(super) fn open(path: &Path, migrations: &[Migration]) -> Result<Connection, JournalError> {
    let fault = |error: rusqlite::Error| super::read_fault(path, &error);
    let mut db = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(fault)?;
    let version = recognise(path, &db, migrations)?;
    let mode: String = db.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0)).map_err(fault)?;
    if mode != "wal" {
        return Err(JournalError::Unreachable(format!(
            "journal {} cannot be written through a log here (journal mode {mode}): its file system must be a local one",
            path.display()
        )));
    }
    migrate(&mut db, version, migrations).map_err(|error| super::write_fault(path, &error))?;
    Ok(db)
}

/// Opens a journal for reading only; takes no lock and changes nothing.
pub(super) fn open_read_only(path: &Path) -> Result<Connection, JournalError> {
    let db = match connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY) {
        // A reader shares memory with the writer, in a file that cannot be made there. But nobody writes there either.
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::CannotOpen) && is_whole_and_fixed(path) => {
            connect_fixed(path)
        }
        connected => connected,
    };
    let db = db.map_err(|error| super::read_fault(path, &error))?;
    let version = recognise(path, &db, MIGRATIONS)?;
    if version < MIGRATIONS.len() {
        return Err(JournalError::Unreachable(format!(
            "journal {} has schema {version} and needs {}; `rekeyd run` brings it there",
            path.display(),
            MIGRATIONS.len()
        )));
    }
    Ok(db)
}

/// Whether all of a journal stands in its one file, on a file system that is read-only.
fn is_whole_and_fixed(path: &Path) -> bool {
    let fixed = rustix::fs::statvfs(path).is_ok_and(|about| about.f_flag.contains(StatVfsMountFlags::RDONLY));
    fixed && beside(path, "-wal").metadata().map_or(true, |log| log.len() == 0)
}

/// A connection to a file that nobody can change: no lock, no shared memory.
fn connect_fixed(path: &Path) -> rusqlite::Result<Connection> {
    let name = path.to_string_lossy().replace('%', "%25").replace('?', "%3f").replace('#', "%23");
    let access = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    connect(Path::new(&format!("file:{name}?immutable=1")), access)
}

/// A connection set up as every connection to a journal is.
fn connect(path: &Path, access: OpenFlags) -> rusqlite::Result<Connection> {
    // Not created here. One thread has the connection, so it needs no mutex.
    let db = Connection::open_with_flags(path, access | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    db.busy_timeout(BUSY)?;
    // Every commit reaches the disk before it returns.
    db.pragma_update(None, "synchronous", "full")?;
    // What is deleted is overwritten.
    db.pragma_update(None, "secure_delete", "on")?;
    db.pragma_update(None, "foreign_keys", "on")?;
    // A schema somebody else wrote may not call functions; `REPLACE` does not get around the triggers.
    db.pragma_update(None, "trusted_schema", "off")?;
    db.pragma_update(None, "recursive_triggers", "on")?;
    db.pragma_update(None, "cell_size_check", "on")?;
    // No temporary file ever holds a row.
    db.pragma_update(None, "temp_store", "memory")?;
    Ok(db)
}

/// The version of the schema; an error where the file is no journal, or a newer one.
fn recognise(path: &Path, db: &Connection, migrations: &[Migration]) -> Result<usize, JournalError> {
    let fault = |error: rusqlite::Error| super::read_fault(path, &error);
    let application: i32 = db.pragma_query_value(None, "application_id", |row| row.get(0)).map_err(fault)?;
    let version: i64 = db.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(fault)?;
    if application != APPLICATION_ID {
        return Err(JournalError::Damaged(format!(
            "{} is not a rekeyd journal, or has lost its contents: restore it from a backup, or point the policy elsewhere",
            path.display()
        )));
    }
    let known = migrations.len();
    match usize::try_from(version) {
        Ok(version @ 1..) if version <= known => Ok(version),
        Ok(version) if version > known => Err(JournalError::Newer(format!(
            "journal {} has schema {version}, this rekeyd knows up to {known}: written by a newer rekeyd",
            path.display()
        ))),
        _ => Err(JournalError::Damaged(format!(
            "journal {} states the schema {version}, which never was",
            path.display()
        ))),
    }
}

/// Takes the steps a file has not seen, each with its new version number in one transaction.
fn migrate(db: &mut Connection, from: usize, migrations: &[Migration]) -> rusqlite::Result<()> {
    for (index, step) in migrations.iter().enumerate().skip(from) {
        let transaction = db.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
        step(&transaction)?;
        transaction.pragma_update(None, "user_version", index as i64 + 1)?;
        transaction.commit()?;
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::MetadataExt;
    use std::path::PathBuf;

    use super::*;

    fn version_2(db: &Connection) -> rusqlite::Result<()> {
        db.execute_batch("ALTER TABLE service ADD COLUMN note TEXT; UPDATE service SET note = 'from ' || name;")
    }

    fn broken(db: &Connection) -> rusqlite::Result<()> {
        db.execute_batch("CREATE TABLE half (a INTEGER); SELECT nothing FROM nowhere;")
    }

    fn with_a_row(home: &Path) -> PathBuf {
        let path = home.join("journal.db");
        create(&path, MIGRATIONS).unwrap();
        let db = open(&path, MIGRATIONS).unwrap();
        db.execute("INSERT INTO service VALUES (1, 'store', 'store', x'00', 0, x'00')", []).unwrap();
        path
    }

    #[test]
    fn a_fresh_journal_is_its_owners_alone_and_leaves_no_draft() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("journal.db");
        create(&path, MIGRATIONS).unwrap();
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o600);
        assert_eq!(home.path().read_dir().unwrap().count(), 1);
        let db = open(&path, MIGRATIONS).unwrap();
        db.execute("INSERT INTO refused_login VALUES ('s', 'u', 'k', x'00')", []).unwrap();
        for suffix in ["", "-wal", "-shm"] {
            let file = beside(&path, suffix);
            assert_eq!(file.metadata().unwrap().mode() & 0o777, 0o600, "{}", file.display());
        }
        let of = |name| db.pragma_query_value(None, name, |row| row.get::<_, i64>(0)).unwrap();
        assert_eq!((of("synchronous"), of("secure_delete"), of("foreign_keys"), of("trusted_schema")), (2, 1, 1, 0));
    }

    #[test]
    fn a_file_with_rows_is_brought_to_the_next_schema_and_keeps_them() {
        let home = tempfile::tempdir().unwrap();
        let path = with_a_row(home.path());
        let next = [MIGRATIONS, &[version_2 as Migration]].concat();
        for _ in 0..2 {
            let db = open(&path, &next).unwrap();
            let note: String = db.query_row("SELECT note FROM service WHERE id = 1", [], |row| row.get(0)).unwrap();
            assert_eq!(note, "from store");
        }
        let error = open(&path, MIGRATIONS).unwrap_err();
        assert!(matches!(error, JournalError::Newer(_)), "{error}");
        assert!(
            error.to_string().ends_with("has schema 2, this rekeyd knows up to 1: written by a newer rekeyd"),
            "{error}"
        );
        assert!(matches!(open_read_only(&path), Err(JournalError::Newer(_))));
    }

    #[test]
    fn a_step_that_fails_leaves_the_file_as_it_was() {
        let home = tempfile::tempdir().unwrap();
        let path = with_a_row(home.path());
        let next = [MIGRATIONS, &[broken as Migration]].concat();
        assert!(matches!(open(&path, &next), Err(JournalError::Write(_))));
        let db = open(&path, MIGRATIONS).unwrap();
        assert!(!db.table_exists(None, "half").unwrap());
    }

    #[test]
    fn what_is_no_journal_is_refused() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("journal.db");
        for contents in [&b""[..], b"hello, this is some text and no database", &[0; 8192]] {
            fs::write(&path, contents).unwrap();
            let error = open(&path, MIGRATIONS).unwrap_err();
            assert!(matches!(error, JournalError::Damaged(_)), "{error}");
            assert_eq!(fs::read(&path).unwrap(), contents, "it is left as it was");
        }
    }

    #[test]
    fn events_are_neither_changed_nor_removed_nor_replaced() {
        let home = tempfile::tempdir().unwrap();
        let path = with_a_row(home.path());
        let db = open(&path, MIGRATIONS).unwrap();
        db.execute("INSERT INTO event VALUES (1, 1, 't', 0, 'b', 'first', x'00')", []).unwrap();
        for statement in [
            "UPDATE event SET body = 'other'",
            "DELETE FROM event",
            "INSERT OR REPLACE INTO event VALUES (1, 1, 't', 0, 'b', 'other', x'00')",
        ] {
            assert_eq!(db.execute(statement, []).unwrap_err().to_string(), "the journal is append-only");
        }
        assert!(db.execute("DELETE FROM service", []).is_err(), "nor is the service they belong to");
    }

    #[test]
    fn no_new_journal_is_made_over_an_old_log() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("journal.db");
        fs::write(beside(&path, "-wal"), "log").unwrap();
        assert!(matches!(create(&path, MIGRATIONS), Err(JournalError::Damaged(_))));
        assert!(!path.exists());
    }
}
