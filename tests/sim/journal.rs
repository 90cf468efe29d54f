//! The journal in memory: durable when it says so, and cut wherever a history wants it cut.

use std::collections::BTreeMap;

use async_trait::async_trait;
use rekeyd::model::{Instant, KeyId, Material, ServiceName};
use rekeyd::ports::{History, Journal, JournalError, Record};
use rekeyd::rotation::event::Event;

use crate::faults::{Op, Strike};
use crate::world::{At, Shared};

/// What is on disk.
#[derive(Clone, Default)]
pub struct Shelf {
    pub records: BTreeMap<ServiceName, Vec<Record>>,
    /// When each was written, on no clock that can be set.
    pub times: BTreeMap<ServiceName, Vec<At>>,
    pub materials: BTreeMap<(ServiceName, KeyId), Material>,
}

/// One process's way to its shelf.
pub struct CutJournal {
    pub shared: Shared,
    pub process: usize,
}

fn failed() -> JournalError {
    JournalError::Write("no space left on device".into())
}

#[async_trait]
impl Journal for CutJournal {
    async fn load(&self) -> Result<Vec<History>, JournalError> {
        let world = self.shared.world();
        let records = world.shelves[self.process].records.iter();
        Ok(records
            .map(|(service, records)| History { service: service.clone(), records: records.clone(), damage: None })
            .collect())
    }

    async fn append(
        &self,
        service: &ServiceName,
        expected: u64,
        at: &Instant,
        event: &Event,
        material: Option<&Material>,
    ) -> Result<(), JournalError> {
        let strike = self.shared.arrive(self.process, Op::Write(event.kind()), service.as_str()).await;
        match strike {
            Some(Strike::CutBefore) => self.shared.die(self.process).await,
            Some(Strike::WriteFails) => return Err(failed()),
            _ => {}
        }
        {
            let mut world = self.shared.world();
            let now = world.now();
            let shelf = &mut world.shelves[self.process];
            let records = shelf.records.entry(service.clone()).or_default();
            if records.len() as u64 + 1 != expected {
                return Err(JournalError::Damaged(format!("event {expected} is not next")));
            }
            let record = Record { service: service.clone(), sequence: expected, at: at.clone(), event: event.clone() };
            records.push(record);
            shelf.times.entry(service.clone()).or_default().push(now);
            if let Some(material) = material {
                shelf.materials.insert((service.clone(), material.key().clone()), material.clone());
            }
            world.tell(|| format!("rekeyd {} · {service}: {}", self.process, rekeyd::rotation::in_words(event)));
            world.check_event(self.process, service, event, at);
        }
        match strike {
            Some(Strike::CutAfter) => {
                self.shared.die(self.process).await;
                Ok(())
            }
            Some(Strike::WriteFailsDurable) => Err(JournalError::Write("input/output error".into())),
            _ => Ok(()),
        }
    }

    async fn material(&self, service: &ServiceName, key: &KeyId) -> Result<Option<Material>, JournalError> {
        let world = self.shared.world();
        Ok(world.shelves[self.process].materials.get(&(service.clone(), key.clone())).cloned())
    }

    async fn materials(&self, service: &ServiceName) -> Result<Vec<KeyId>, JournalError> {
        let world = self.shared.world();
        let held = world.shelves[self.process].materials.keys().filter(|(of, _)| of == service);
        Ok(held.map(|(_, key)| key.clone()).collect())
    }

    async fn shred(&self, service: &ServiceName, key: &KeyId) -> Result<(), JournalError> {
        let strike = self.shared.arrive(self.process, Op::Shred, service.as_str()).await;
        match strike {
            Some(Strike::CutBefore) => self.shared.die(self.process).await,
            Some(Strike::WriteFails) => return Err(failed()),
            _ => {}
        }
        self.shared.world().shelves[self.process].materials.remove(&(service.clone(), key.clone()));
        if strike == Some(Strike::CutAfter) {
            self.shared.die(self.process).await;
        }
        Ok(())
    }

    async fn reserve(&self) -> Result<(), JournalError> {
        match self.shared.arrive(self.process, Op::Reserve, "the disk").await {
            Some(Strike::CutBefore) => {
                self.shared.die(self.process).await;
                Ok(())
            }
            Some(Strike::WriteFails) => Err(failed()),
            _ => Ok(()),
        }
    }
}
