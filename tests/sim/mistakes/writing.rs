//! Mistakes made where the journal is written: planted on the test's side of its port.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use rekeyd::model::{Instant, KeyId, Material, ServiceName};
use rekeyd::ports::{History, Journal, JournalError};
use rekeyd::rotation::event::Event;

use crate::scene::Plant;
use crate::world::Shared;

/// How a wrong journal writes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    /// An event of this kind is written with the next one, and acknowledged at once.
    Behind(&'static str),
    /// A write that failed is called done.
    Shrugging,
    /// At a start the last event is taken for torn, if it is an intent, and cut off.
    Cutting,
}

struct Late {
    service: ServiceName,
    expected: u64,
    at: Instant,
    event: Event,
    material: Option<Material>,
}

struct WrongJournal {
    real: Arc<dyn Journal>,
    shared: Shared,
    how: How,
    late: Mutex<Vec<Late>>,
}

#[async_trait]
impl Journal for WrongJournal {
    async fn load(&self) -> Result<Vec<History>, JournalError> {
        if self.how == How::Cutting {
            let mut world = self.shared.world();
            for shelf in &mut world.shelves {
                for (service, records) in &mut shelf.records {
                    if records.pop_if(|record| record.event.kind().ends_with("_begun")).is_some() {
                        shelf.times.get_mut(service).map(Vec::pop);
                    }
                }
            }
        }
        self.real.load().await
    }

    async fn append(
        &self,
        service: &ServiceName,
        expected: u64,
        at: &Instant,
        event: &Event,
        material: Option<&Material>,
    ) -> Result<(), JournalError> {
        if self.how == How::Behind(event.kind()) {
            let (service, at, event, material) = (service.clone(), at.clone(), event.clone(), material.cloned());
            self.late.lock().expect("nobody panics here").push(Late { service, expected, at, event, material });
            return Ok(());
        }
        let late = std::mem::take(&mut *self.late.lock().expect("nobody panics here"));
        for Late { service, expected, at, event, material } in late {
            self.real.append(&service, expected, &at, &event, material.as_ref()).await?;
        }
        match self.real.append(service, expected, at, event, material).await {
            Err(JournalError::Write(_)) if self.how == How::Shrugging => Ok(()),
            other => other,
        }
    }

    async fn material(&self, service: &ServiceName, key: &KeyId) -> Result<Option<Material>, JournalError> {
        self.real.material(service, key).await
    }

    async fn materials(&self, service: &ServiceName) -> Result<Vec<KeyId>, JournalError> {
        self.real.materials(service).await
    }

    async fn shred(&self, service: &ServiceName, key: &KeyId) -> Result<(), JournalError> {
        self.real.shred(service, key).await
    }

    async fn reserve(&self) -> Result<(), JournalError> {
        self.real.reserve().await
    }
}

fn plant(how: How) -> Plant {
    Plant {
        journal: Some(Arc::new(move |real, shared| {
            Arc::new(WrongJournal { real, shared: shared.clone(), how, late: Mutex::default() })
        })),
        ..Plant::default()
    }
}

pub fn mint_intent_after_the_mint() -> Plant {
    plant(How::Behind("mint_begun"))
}

pub fn push_intent_after_the_push() -> Plant {
    plant(How::Behind("push_begun"))
}

pub fn failed_write_is_done() -> Plant {
    plant(How::Shrugging)
}

pub fn last_intent_cut_off() -> Plant {
    plant(How::Cutting)
}
