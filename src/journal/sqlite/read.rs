//! Reading the journal: histories, heads, and the check of everything. Changes nothing; used by the writer and by readers.

use std::path::Path;

use chrono::{DateTime, Utc};
use rusqlite::{Connection, OptionalExtension, Row};

use super::read_fault;
use crate::journal::chain::{self, Hash, hex};
use crate::journal::wire::{self, Unread};
use crate::model::{Instant, ServiceName};
use crate::ports::{History, JournalError, Record};

/// What is to be done about a damaged file.
pub(super) const RESTORE: &str = "keep the file, and restore the journal from a backup; where that is behind the world, its services say \
                                  so and nothing is destroyed";

/// One service's chain, as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checked {
    /// Whose.
    pub service: ServiceName,
    /// How many events verify, from the first.
    pub events: u64,
    /// The hash of the last of them, in hex.
    pub head: String,
    /// Where and why the chain does not verify beyond them, if it does not.
    pub damage: Option<String>,
}

/// A service's own row.
pub(super) struct Service {
    pub(super) id: i64,
    /// The name hashes and seals are bound to.
    pub(super) chain: String,
    /// The name it has now.
    pub(super) name: String,
    pub(super) sequence: i64,
    pub(super) head: Vec<u8>,
}

/// What keeps a flipped bit from turning a service into another one.
pub(super) fn whose(id: i64, chain: &str, name: &str) -> Hash {
    chain::digest(&[b"rekeyd journal 1 service", &id.to_be_bytes(), chain.as_bytes(), name.as_bytes()])
}

/// All histories, from one consistent look at the file.
pub(super) fn load(path: &Path, db: &Connection) -> Result<Vec<History>, JournalError> {
    each_service(path, db, "quick_check", |service, rows| {
        let followed = follow(path, service, rows)?;
        Ok(History { service: followed.name, records: followed.records, damage: followed.damage })
    })
}

/// The same for the operator: what verifies, and up to where. Checks the pages of the file more thoroughly.
pub(super) fn verify(path: &Path, db: &Connection) -> Result<Vec<Checked>, JournalError> {
    each_service(path, db, "integrity_check", |service, rows| {
        let followed = follow(path, service, rows)?;
        Ok(Checked {
            service: followed.name,
            events: followed.records.len() as u64,
            head: hex(&followed.head),
            damage: followed.damage,
        })
    })
}

/// The sequence and hash of each service's last event, as the journal itself keeps them.
pub(super) fn heads(path: &Path, db: &Connection) -> Result<Vec<(ServiceName, u64, String)>, JournalError> {
    let heads = services(path, db)?;
    Ok(heads
        .into_iter()
        .map(|service| (ServiceName::new(service.name), service.sequence.unsigned_abs(), hex(&service.head)))
        .collect())
}

/// How many sealed secrets are held.
pub(super) fn sealed_rows(path: &Path, db: &Connection) -> Result<u64, JournalError> {
    db.query_row("SELECT count(*) FROM sealed", [], |row| row.get::<_, i64>(0))
        .map(i64::unsigned_abs)
        .map_err(|error| read_fault(path, &error))
}

/// Every service's own row, by name. A row that is not as it was written stops the whole journal: nobody can tell whose past
/// would be missing.
fn services(path: &Path, db: &Connection) -> Result<Vec<Service>, JournalError> {
    let fault = |error: rusqlite::Error| read_fault(path, &error);
    let mut statement =
        db.prepare_cached("SELECT id, chain, name, sequence, head, whose FROM service ORDER BY name").map_err(fault)?;
    let rows = statement
        .query_map([], |row| Ok((service(row)?, row.get::<_, Vec<u8>>("whose")?)))
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(fault)?;
    rows.into_iter()
        .map(|(service, stored)| {
            if stored == whose(service.id, &service.chain, &service.name) {
                return Ok(service);
            }
            Err(JournalError::Damaged(format!(
                "journal {}: the row of service {} (number {}) is not as it was written, so it cannot be told whose \
                 events are whose: restore the journal from a backup",
                path.display(),
                service.name,
                service.id
            )))
        })
        .collect()
}

/// Reads the columns of a [`Service`].
pub(super) fn service(row: &Row<'_>) -> rusqlite::Result<Service> {
    Ok(Service {
        id: row.get("id")?,
        chain: row.get("chain")?,
        name: row.get("name")?,
        sequence: row.get("sequence")?,
        head: row.get("head")?,
    })
}

/// Calls `then` with every service and its rows, or with why they cannot be read.
fn each_service<T>(
    path: &Path,
    db: &Connection,
    check: &str,
    mut then: impl FnMut(&Service, Result<Vec<chain::Row>, rusqlite::Error>) -> Result<T, JournalError>,
) -> Result<Vec<T>, JournalError> {
    let fault = |error: rusqlite::Error| read_fault(path, &error);
    let look = db.unchecked_transaction().map_err(fault)?;
    let verdict: String = look.query_row(&format!("PRAGMA {check} (1)"), [], |row| row.get(0)).map_err(fault)?;
    if verdict != "ok" {
        return Err(JournalError::Damaged(format!(
            "journal {} is a damaged file ({}): {RESTORE}",
            path.display(),
            // SQLite puts a heading and a new line before it.
            verdict.trim_start_matches("*** in database main ***").trim().replace('\n', "; ")
        )));
    }
    let orphan: Option<i64> = look
        .query_row("SELECT service FROM event WHERE service NOT IN (SELECT id FROM service) LIMIT 1", [], |row| {
            row.get(0)
        })
        .optional()
        .map_err(fault)?;
    if let Some(number) = orphan {
        return Err(JournalError::Damaged(format!(
            "journal {} has events of service number {number} and not the row that says which that is: {RESTORE}",
            path.display()
        )));
    }
    services(path, &look)?.iter().map(|service| then(service, rows(&look, service.id))).collect()
}

/// A service's rows, as bytes: a flipped bit may leave what is no text any more.
fn rows(db: &Connection, service: i64) -> Result<Vec<chain::Row>, rusqlite::Error> {
    let mut statement = db.prepare_cached(
        "SELECT sequence, at_wall, at_boot, boot_id, body, hash FROM event WHERE service = ? ORDER BY sequence",
    )?;
    let bytes = |row: &Row<'_>, column| -> rusqlite::Result<Vec<u8>> {
        Ok(row.get_ref(column)?.as_bytes().map(<[u8]>::to_vec).unwrap_or_default())
    };
    statement
        .query_map([service], |row| {
            Ok(chain::Row {
                sequence: row.get(0)?,
                at_wall: bytes(row, 1)?,
                at_boot: row.get(2)?,
                boot_id: bytes(row, 3)?,
                body: bytes(row, 4)?,
                hash: bytes(row, 5)?,
            })
        })?
        .collect()
}

struct Followed {
    name: ServiceName,
    records: Vec<Record>,
    head: Hash,
    damage: Option<String>,
}

/// Follows a service's chain as far as it verifies and reads. An error only for what a newer rekeyd wrote.
fn follow(
    path: &Path,
    service: &Service,
    rows: Result<Vec<chain::Row>, rusqlite::Error>,
) -> Result<Followed, JournalError> {
    let name = ServiceName::new(service.name.clone());
    let at = format!("journal {}, service {name}", path.display());
    let rows = match rows {
        Ok(rows) => rows,
        Err(error) => {
            let damage = Some(format!("{at}: its events cannot be read: {}", super::say(&error)));
            return Ok(Followed { name, records: vec![], head: chain::genesis(&service.chain), damage });
        }
    };
    let (good, head, damage) = chain::verify(&service.chain, &rows);
    let mut followed = Followed { name, records: vec![], head, damage: damage.map(|damage| format!("{at}, {damage}")) };
    let mut previous = chain::genesis(&service.chain);
    for row in &rows[..good] {
        match record(&followed.name, row) {
            Ok(record) => followed.records.push(record),
            Err(Unread::Newer(what)) => {
                let sequence = row.sequence;
                return Err(JournalError::Newer(format!(
                    "{at}, sequence {sequence}: {what}: written by a newer rekeyd"
                )));
            }
            Err(Unread::Damaged(what)) => {
                followed.damage = Some(format!("{at}, sequence {}: {what}", row.sequence));
                followed.head = previous;
                return Ok(followed);
            }
        }
        previous = chain::link(&previous, &service.chain, row);
    }
    if followed.damage.is_none() && (good as i64, head.as_slice()) != (service.sequence, service.head.as_slice()) {
        followed.damage = Some(format!(
            "{at}, sequence {}: its events end at sequence {good} with {}, the journal remembers sequence {} with {}",
            good as i64 + 1,
            hex(&head),
            service.sequence,
            hex(&service.head)
        ));
    }
    Ok(followed)
}

fn record(service: &ServiceName, row: &chain::Row) -> Result<Record, Unread> {
    let text = |what, bytes: &'_ [u8]| {
        String::from_utf8(bytes.to_vec()).map_err(|_| Unread::Damaged(format!("its {what} is not text")))
    };
    let wall = text("time", &row.at_wall)?;
    let wall = DateTime::parse_from_rfc3339(&wall)
        .map_err(|error| Unread::Damaged(format!("its time `{wall}` does not read: {error}")))?
        .with_timezone(&Utc);
    let boot = u64::try_from(row.at_boot)
        .map_err(|_| Unread::Damaged(format!("its time since boot is negative ({} ns)", row.at_boot)))?;
    Ok(Record {
        service: service.clone(),
        sequence: row.sequence.unsigned_abs(),
        at: Instant { wall, boot: std::time::Duration::from_nanos(boot), boot_id: text("boot", &row.boot_id)? },
        event: wire::decode(&text("body", &row.body)?)?,
    })
}
