//! Writing the journal: one connection, on one thread, one transaction for each thing that must be whole.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use chrono::SecondsFormat;
use rusqlite::{Connection, ErrorCode, OptionalExtension, Transaction, TransactionBehavior, params};

use super::ballast::{self, Ballast};
use super::read::{self, Service};
use super::{directory_of, free_space, read_fault, write_fault};
use crate::journal::chain;
use crate::journal::material;
use crate::journal::wire::{self, Unread};
use crate::model::{Instant, KeyId, Material, Secret, ServiceName};
use crate::ports::JournalError;
use crate::rotation::event::Event;
use crate::seal::{self, Purpose, SealError, SealKey, SealKeyId};

/// A refused login as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RefusedLogin {
    pub(super) system: String,
    pub(super) user: String,
    /// The key whose fingerprint this is; under another seal key it cannot be compared.
    pub(super) seal_key: String,
    pub(super) fingerprint: Vec<u8>,
}

impl RefusedLogin {
    /// A login as it would be stored.
    pub(super) fn of(seal: &SealKey, system: &str, user: &str, password: &Secret) -> Self {
        RefusedLogin {
            system: system.to_owned(),
            user: user.to_owned(),
            seal_key: seal.id().to_string(),
            fingerprint: seal.fingerprint(&[system, user], password).to_vec(),
        }
    }

    /// Whether it speaks against `login`. One refused under another seal key cannot be compared with this password, and stays
    /// refused until it is forgiven: one attempt too few is told to the operator, one too many may lock the account.
    pub(super) fn forbids(&self, login: &RefusedLogin) -> bool {
        (&self.system, &self.user) == (&login.system, &login.user)
            && (self.seal_key != login.seal_key || self.fingerprint == login.fingerprint)
    }
}

/// What `reseal` did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resealed {
    /// Secrets sealed anew.
    pub done: u64,
    /// Secrets sealed with neither of the two keys, left as they are.
    pub left: u64,
}

/// The writer's side of a journal.
pub(super) struct Store {
    pub(super) path: PathBuf,
    pub(super) db: Connection,
    pub(super) seal: Arc<SealKey>,
    pub(super) ballast: Ballast,
}

/// Why a transaction did not come about: it was refused, or the database could not.
enum Stop {
    Refused(JournalError),
    Database(rusqlite::Error),
}

impl From<rusqlite::Error> for Stop {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(error)
    }
}

impl From<JournalError> for Stop {
    fn from(error: JournalError) -> Self {
        Self::Refused(error)
    }
}

impl Store {
    /// See [`crate::ports::Journal::append`].
    pub(super) fn append(
        &mut self,
        service: &ServiceName,
        expected: u64,
        at: &Instant,
        event: &Event,
        material: Option<&Material>,
    ) -> Result<(), JournalError> {
        let row = self.row(service, expected, at, event)?;
        if let (Event::Minted { key, .. } | Event::Adopted { key, .. }, Some(material)) = (event, material)
            && key != material.key()
        {
            let brought = material.key();
            return Err(self.refuse(service, &format!("the event names key {key}, its material is of key {brought}")));
        }
        match self.commit(service, &row, material) {
            // The one commit the ballast is for. A disk quota shows as an I/O error, so that counts too.
            Err(Stop::Database(error)) if material.is_some() && wants_space(&error) && self.ballast.release() => {
                tracing::warn!(%service, journal = %self.path.display(), "the disk is full: gave up the ballast to write down a key");
                self.commit(service, &row, material)
            }
            done => done,
        }
        .map_err(|stop| self.fault(stop))
    }

    /// See [`crate::ports::Journal::material`].
    pub(super) fn material(&self, service: &ServiceName, key: &KeyId) -> Result<Option<Material>, JournalError> {
        material(&self.path, &self.db, &self.seal, service, key)
    }

    /// See [`crate::ports::Journal::materials`].
    pub(super) fn materials(&self, service: &ServiceName) -> Result<Vec<KeyId>, JournalError> {
        materials(&self.path, &self.db, service)
    }

    /// See [`crate::ports::Journal::shred`].
    pub(super) fn shred(&mut self, service: &ServiceName, key: &KeyId) -> Result<(), JournalError> {
        self.db
            .execute(
                "DELETE FROM sealed WHERE key = ? AND service = (SELECT id FROM service WHERE name = ?)",
                [key.as_str(), service.as_str()],
            )
            .map_err(|error| write_fault(&self.path, &error))?;
        // Also where there was nothing to delete: the last attempt may have ended between the two.
        self.truncate_log()
    }

    /// See [`crate::ports::Journal::reserve`].
    pub(super) fn reserve(&self) -> Result<(), JournalError> {
        self.ballast.reserve().map_err(|error| {
            JournalError::Write(format!(
                "cannot set aside {} KiB beside journal {} for the key about to be minted: {error}{}",
                ballast::SIZE / 1024,
                self.path.display(),
                free_space(&directory_of(&self.path))
            ))
        })
    }

    /// Gives a service another name and keeps its history. The chain and the seals stay bound to the first name, so nothing
    /// is rewritten. Repeatable; nothing happens where the journal does not know the old name.
    pub(super) fn rename(&mut self, old: &ServiceName, new: &ServiceName) -> Result<(), JournalError> {
        let rename = |db: &mut Connection| -> Result<(), Stop> {
            let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
            if let Some(service) = by_name(&transaction, new)? {
                let done = transaction
                    .prepare("SELECT 1 FROM former_name WHERE service = ? AND name = ?")?
                    .exists(params![service.id, old.as_str()])?;
                if done || by_name(&transaction, old)?.is_none() {
                    return Ok(());
                }
                return Err(Stop::Refused(JournalError::Write(format!(
                    "cannot rename service {old} to {new}: the journal has a history of each"
                ))));
            }
            let Some(service) = by_name(&transaction, old)? else { return Ok(()) };
            let whose = read::whose(service.id, &service.chain, new.as_str());
            transaction.execute(
                "UPDATE service SET name = ?, whose = ? WHERE id = ?",
                params![new.as_str(), whose.as_slice(), service.id],
            )?;
            // Back under a name it had before, it has that one no longer behind it.
            transaction
                .execute("DELETE FROM former_name WHERE service = ? AND name = ?", params![service.id, new.as_str()])?;
            transaction.execute("INSERT INTO former_name VALUES (?, ?)", params![service.id, old.as_str()])?;
            Ok(transaction.commit()?)
        };
        rename(&mut self.db).map_err(|stop| self.fault(stop))
    }

    /// Seals with the present key what `old` sealed, all of it or nothing. Repeatable.
    pub(super) fn reseal(&mut self, old: &SealKey) -> Result<Resealed, JournalError> {
        let (path, seal) = (&self.path, &self.seal);
        let reseal = |db: &mut Connection| -> Result<Resealed, Stop> {
            let mut resealed = Resealed::default();
            let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
            for (id, chain, key, blob) in sealed(&transaction)? {
                let (chain, key) = (ServiceName::new(chain), KeyId::new(key));
                let failed = |error: SealError| {
                    JournalError::Damaged(format!("journal {}, service {chain}, key {key}: {error}", path.display()))
                };
                match seal::sealed_with(&blob).map_err(failed)? {
                    with if with == seal.id() => {}
                    with if with == old.id() => {
                        let opened = old.open(row_of(&chain, &key), &blob).map_err(failed)?;
                        let blob = seal.seal(row_of(&chain, &key), &opened).map_err(failed)?;
                        transaction.execute(
                            "UPDATE sealed SET blob = ? WHERE service = ? AND key = ?",
                            params![blob, id, key.as_str()],
                        )?;
                        resealed.done += 1;
                    }
                    _ => resealed.left += 1,
                }
            }
            transaction.commit()?;
            Ok(resealed)
        };
        let resealed = reseal(&mut self.db).map_err(|stop| self.fault(stop))?;
        self.truncate_log()?;
        Ok(resealed)
    }

    /// Which other keys sealed how many of the secrets held. Empty as it should be.
    pub(super) fn sealed_with_other_keys(&self) -> Result<Vec<(SealKeyId, u64)>, JournalError> {
        let mut others = std::collections::BTreeMap::new();
        for (.., blob) in sealed(&self.db).map_err(|error| read_fault(&self.path, &error))? {
            // A blob that names no key is damage of its own key, told when it is asked for.
            if let Ok(with) = seal::sealed_with(&blob)
                && with != self.seal.id()
            {
                *others.entry(with).or_default() += 1;
            }
        }
        Ok(others.into_iter().collect())
    }

    pub(super) fn refused_logins(&self) -> Result<Vec<RefusedLogin>, JournalError> {
        refused_logins(&self.path, &self.db)
    }

    pub(super) fn remember_refused(&mut self, login: &RefusedLogin) -> Result<(), JournalError> {
        self.db
            .execute(
                "INSERT INTO refused_login VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
                params![login.system, login.user, login.seal_key, login.fingerprint],
            )
            .map(drop)
            .map_err(|error| write_fault(&self.path, &error))
    }

    pub(super) fn forgive(&mut self, system: &str) -> Result<(), JournalError> {
        self.db
            .execute("DELETE FROM refused_login WHERE system = ?", [system])
            .map(drop)
            .map_err(|error| write_fault(&self.path, &error))
    }

    /// The row of an event, all of it but the hash.
    fn row(
        &self,
        service: &ServiceName,
        sequence: u64,
        at: &Instant,
        event: &Event,
    ) -> Result<chain::Row, JournalError> {
        let body = wire::encode(event).map_err(|error| self.refuse(service, &error.to_string()))?;
        let (Ok(sequence), Ok(at_boot)) = (i64::try_from(sequence), i64::try_from(at.boot.as_nanos())) else {
            return Err(self.refuse(service, "its sequence number or its time since boot is beyond all bounds"));
        };
        Ok(chain::Row {
            sequence,
            at_wall: at.wall.to_rfc3339_opts(SecondsFormat::AutoSi, true).into_bytes(),
            at_boot,
            boot_id: at.boot_id.clone().into_bytes(),
            body: body.into_bytes(),
            hash: vec![],
        })
    }

    /// Event, sealed material and the service's head: all of it or nothing.
    fn commit(&mut self, service: &ServiceName, row: &chain::Row, material: Option<&Material>) -> Result<(), Stop> {
        let transaction = self.db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let owner = match by_name(&transaction, service)? {
            Some(owner) => owner,
            None => begin(&transaction, service)?,
        };
        let next = owner.sequence + 1;
        if row.sequence != next {
            return Err(Stop::Refused(JournalError::Damaged(format!(
                "journal {}, service {service}: an event was to be written as sequence {}, and the next one is {next}: \
                 somebody else wrote to it, or what was loaded is not all there is",
                self.path.display(),
                row.sequence
            ))));
        }
        let Ok(previous) = owner.head.as_slice().try_into() else {
            return Err(Stop::Refused(JournalError::Damaged(format!(
                "journal {}, service {service}: its head is no hash",
                self.path.display()
            ))));
        };
        let hash = chain::link(previous, &owner.chain, row);
        let text = |bytes| std::str::from_utf8(bytes).expect("these bytes were made from text");
        transaction.prepare_cached("INSERT INTO event VALUES (?, ?, ?, ?, ?, ?, ?)")?.execute(params![
            owner.id,
            row.sequence,
            text(&row.at_wall),
            row.at_boot,
            text(&row.boot_id),
            text(&row.body),
            hash.as_slice(),
        ])?;
        transaction.prepare_cached("UPDATE service SET sequence = ?, head = ? WHERE id = ?")?.execute(params![
            row.sequence,
            hash.as_slice(),
            owner.id
        ])?;
        if let Some(material) = material {
            let chain = ServiceName::new(owner.chain);
            let blob = self
                .seal
                .seal(row_of(&chain, material.key()), &material::encode(material))
                .map_err(|error| JournalError::Write(format!("service {service}: {error}")))?;
            transaction
                .prepare_cached("INSERT INTO sealed VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET blob = excluded.blob")?
                .execute(params![owner.id, material.key().as_str(), blob])?;
        }
        Ok(transaction.commit()?)
    }

    /// Moves the log into the database and cuts it to nothing, so that no page of the past is left in it.
    fn truncate_log(&self) -> Result<(), JournalError> {
        let busy: i64 = self
            .db
            .query_row("PRAGMA wal_checkpoint (TRUNCATE)", [], |row| row.get(0))
            .map_err(|error| write_fault(&self.path, &error))?;
        if busy == 0 {
            return Ok(());
        }
        Err(JournalError::Write(format!(
            "cannot cut the log of journal {}: another process is reading it; the secret is removed from the journal \
             and not yet from its log",
            self.path.display()
        )))
    }

    fn refuse(&self, service: &ServiceName, why: &str) -> JournalError {
        JournalError::Write(format!("cannot write an event of {service} to journal {}: {why}", self.path.display()))
    }

    fn fault(&self, stop: Stop) -> JournalError {
        match stop {
            Stop::Refused(error) => error,
            Stop::Database(error) => write_fault(&self.path, &error),
        }
    }
}

/// The sealed material of a key, opened with `seal`; for the writer and for readers.
pub(super) fn material(
    path: &Path,
    db: &Connection,
    seal: &SealKey,
    service: &ServiceName,
    key: &KeyId,
) -> Result<Option<Material>, JournalError> {
    let at = format!("journal {}, service {service}, key {key}", path.display());
    let stored: Option<(String, Vec<u8>)> = db
        .query_row(
            "SELECT chain, blob FROM sealed JOIN service ON id = service WHERE name = ? AND key = ?",
            [service.as_str(), key.as_str()],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )
        .optional()
        .map_err(|error| read_fault(path, &error))?;
    let Some((chain, blob)) = stored else { return Ok(None) };
    let opened = seal.open(row_of(&ServiceName::new(chain), key), &blob).map_err(|error| {
        let message = format!("{at}: {error}");
        match error {
            SealError::Newer(_) => JournalError::Newer(message),
            SealError::Damaged(_) => JournalError::Damaged(message),
            SealError::WrongKey { .. } | SealError::NoKey(_) => JournalError::Unreachable(message),
        }
    })?;
    match material::decode(&opened) {
        Ok(material) if material.key() == key => Ok(Some(material)),
        Ok(material) => Err(JournalError::Damaged(format!("{at}: the sealed material is of key {}", material.key()))),
        Err(error @ Unread::Newer(_)) => Err(JournalError::Newer(format!("{at}: {error}"))),
        Err(error @ Unread::Damaged(_)) => Err(JournalError::Damaged(format!("{at}: {error}"))),
    }
}

/// The keys of a service whose material is held.
pub(super) fn materials(path: &Path, db: &Connection, service: &ServiceName) -> Result<Vec<KeyId>, JournalError> {
    let fault = |error| read_fault(path, &error);
    let mut rows = db
        .prepare_cached("SELECT key FROM sealed JOIN service ON id = service WHERE name = ? ORDER BY key")
        .map_err(fault)?;
    let keys = rows.query_map([service.as_str()], |row| row.get::<_, String>(0)).map_err(fault)?;
    keys.map(|key| key.map(KeyId::new).map_err(fault)).collect()
}

/// Every login that was refused and not forgiven since.
pub(super) fn refused_logins(path: &Path, db: &Connection) -> Result<Vec<RefusedLogin>, JournalError> {
    let read = || {
        db.prepare("SELECT system, user, seal_key, fingerprint FROM refused_login")?
            .query_map([], |row| {
                Ok(RefusedLogin {
                    system: row.get(0)?,
                    user: row.get(1)?,
                    seal_key: row.get(2)?,
                    fingerprint: row.get(3)?,
                })
            })?
            .collect::<Result<_, _>>()
    };
    read().map_err(|error| read_fault(path, &error))
}

/// Whether more space on the disk could have helped.
fn wants_space(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DiskFull | ErrorCode::SystemIoFailure))
}

/// What the sealed material of a key is bound to.
fn row_of<'a>(chain: &'a ServiceName, key: &'a KeyId) -> seal::Row<'a> {
    seal::Row { service: chain, key, purpose: Purpose::Material }
}

fn by_name(db: &Connection, name: &ServiceName) -> rusqlite::Result<Option<Service>> {
    db.prepare_cached("SELECT id, chain, name, sequence, head FROM service WHERE name = ?")?
        .query_row([name.as_str()], read::service)
        .optional()
}

/// A service's own row, for its first event. Where an earlier service, renamed since, began under the same name, the chain
/// gets a number behind it: no two chains of a journal are ever alike, nor what is sealed under them.
fn begin(transaction: &Transaction<'_>, name: &ServiceName) -> rusqlite::Result<Service> {
    let mut chain = name.as_str().to_owned();
    let mut number = 1;
    while transaction.prepare_cached("SELECT 1 FROM service WHERE chain = ?")?.exists([&chain])? {
        number += 1;
        // `#` cannot stand in a service's name.
        chain = format!("{name}#{number}");
    }
    let id: i64 = transaction.query_row("SELECT coalesce(max(id), 0) + 1 FROM service", [], |row| row.get(0))?;
    let (whose, head) = (read::whose(id, &chain, name.as_str()), chain::genesis(&chain));
    transaction.execute(
        "INSERT INTO service VALUES (?, ?, ?, ?, 0, ?)",
        params![id, chain, name.as_str(), whose.as_slice(), head.as_slice()],
    )?;
    Ok(Service { id, chain, name: name.as_str().to_owned(), sequence: 0, head: head.to_vec() })
}

type Sealed = (i64, String, String, Vec<u8>);

fn sealed(db: &Connection) -> rusqlite::Result<Vec<Sealed>> {
    db.prepare("SELECT id, chain, key, blob FROM sealed JOIN service ON id = service")?
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?
        .collect()
}
