//! Mistakes made where a provider or a target is asked: planted on the test's side of the ports, as a wrong adapter or client
//! would make them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use rekeyd::model::{AccountIdentity, IntentId, IssuerSpec, JobId, KeyId, Material, Secret, SystemRef, TargetSpec};
use rekeyd::ports::{
    Connect, Fault, Health, Inspection, Issuer, JobState, LastUse, Listing, MintedKey, Probe, Reading, Receipt, Target,
};

use crate::scene::Plant;

/// What a wrong adapter does instead of asking; whatever it leaves out is done rightly.
#[async_trait]
trait Asks: Send + Sync {
    async fn identity(&self, issuer: &dyn Issuer) -> Result<AccountIdentity, Fault> {
        issuer.identity().await
    }

    async fn list(&self, issuer: &dyn Issuer) -> Result<Listing, Fault> {
        issuer.list().await
    }

    async fn mint(&self, issuer: &dyn Issuer, intent: &IntentId, replaces: Option<&KeyId>) -> Result<MintedKey, Fault> {
        issuer.mint(intent, replaces).await
    }

    async fn probe(&self, issuer: &dyn Issuer, material: &Material) -> Result<Probe, Fault> {
        issuer.probe(material).await
    }

    async fn last_use(&self, issuer: &dyn Issuer, key: &KeyId) -> Result<LastUse, Fault> {
        issuer.last_use(key).await
    }

    async fn disable(&self, issuer: &dyn Issuer, key: &KeyId) -> Result<(), Fault> {
        issuer.disable(key).await
    }

    async fn delete(&self, issuer: &dyn Issuer, key: &KeyId) -> Result<(), Fault> {
        issuer.delete(key).await
    }

    async fn inspect(&self, target: &Pushed) -> Result<Inspection, Fault> {
        target.real.inspect().await
    }

    async fn read(&self, target: &Pushed) -> Result<Reading, Fault> {
        target.real.read().await
    }

    async fn push(&self, target: &Pushed, material: &Material) -> Result<Receipt, Fault> {
        target.real.push(material).await
    }

    async fn poll(&self, target: &Pushed, job: &JobId) -> Result<JobState, Fault> {
        target.real.poll(job).await
    }
}

/// A target as a wrong adapter sees it, with the issuers that were connected before.
struct Pushed {
    name: String,
    real: Arc<dyn Target>,
    issuers: Issuers,
}

type Issuers = Arc<Mutex<BTreeMap<String, Arc<dyn Issuer>>>>;

struct WrongConnect {
    real: Arc<dyn Connect>,
    asks: Arc<dyn Asks>,
    issuers: Issuers,
}

struct WrongIssuer {
    real: Arc<dyn Issuer>,
    asks: Arc<dyn Asks>,
}

struct WrongTarget {
    pushed: Pushed,
    asks: Arc<dyn Asks>,
}

impl Connect for WrongConnect {
    fn issuer(&self, spec: &IssuerSpec) -> Result<Arc<dyn Issuer>, Fault> {
        let real = self.real.issuer(spec)?;
        self.issuers.lock().expect("nobody panics here").insert(spec.object.clone(), real.clone());
        Ok(Arc::new(WrongIssuer { real, asks: self.asks.clone() }))
    }

    fn target(&self, spec: &TargetSpec) -> Result<Arc<dyn Target>, Fault> {
        let (name, issuers) = (spec.name.to_string(), self.issuers.clone());
        let pushed = Pushed { name, real: self.real.target(spec)?, issuers };
        Ok(Arc::new(WrongTarget { pushed, asks: self.asks.clone() }))
    }

    fn forgive(&self, system: &SystemRef) {
        self.real.forgive(system);
    }
}

#[async_trait]
impl Issuer for WrongIssuer {
    async fn identity(&self) -> Result<AccountIdentity, Fault> {
        self.asks.identity(&*self.real).await
    }

    async fn list(&self) -> Result<Listing, Fault> {
        self.asks.list(&*self.real).await
    }

    async fn mint(&self, intent: &IntentId, replaces: Option<&KeyId>) -> Result<MintedKey, Fault> {
        self.asks.mint(&*self.real, intent, replaces).await
    }

    async fn probe(&self, material: &Material) -> Result<Probe, Fault> {
        self.asks.probe(&*self.real, material).await
    }

    fn derive(&self, key: &Material) -> Result<Material, Fault> {
        self.real.derive(key)
    }

    async fn last_use(&self, key: &KeyId) -> Result<LastUse, Fault> {
        self.asks.last_use(&*self.real, key).await
    }

    async fn disable(&self, key: &KeyId) -> Result<(), Fault> {
        self.asks.disable(&*self.real, key).await
    }

    async fn enable(&self, key: &KeyId) -> Result<(), Fault> {
        self.real.enable(key).await
    }

    async fn known(&self, key: &KeyId, secret: Option<Secret>) -> Result<Option<Material>, Fault> {
        self.real.known(key, secret).await
    }

    async fn delete(&self, key: &KeyId) -> Result<(), Fault> {
        self.asks.delete(&*self.real, key).await
    }
}

#[async_trait]
impl Target for WrongTarget {
    async fn inspect(&self) -> Result<Inspection, Fault> {
        self.asks.inspect(&self.pushed).await
    }

    async fn read(&self) -> Result<Reading, Fault> {
        self.asks.read(&self.pushed).await
    }

    async fn push(&self, material: &Material) -> Result<Receipt, Fault> {
        self.asks.push(&self.pushed, material).await
    }

    async fn jobs(&self) -> Result<Vec<JobId>, Fault> {
        self.pushed.real.jobs().await
    }

    async fn poll(&self, job: &JobId) -> Result<JobState, Fault> {
        self.asks.poll(&self.pushed, job).await
    }

    async fn health(&self) -> Health {
        self.pushed.real.health().await
    }
}

/// Plants an adapter; every process of a history gets one that remembers nothing of the one before.
fn plant<T: Asks + Default + 'static>() -> Plant {
    Plant {
        connect: Some(Arc::new(|real, _| {
            Arc::new(WrongConnect { real, asks: Arc::new(T::default()), issuers: Issuers::default() })
        })),
        ..Plant::default()
    }
}

/// The first key in the order of age.
fn oldest(listing: &Listing) -> Option<KeyId> {
    listing.keys.iter().min_by_key(|listed| listed.created).map(|listed| listed.id.clone())
}

fn newest(listing: &Listing) -> Option<KeyId> {
    listing.keys.iter().max_by_key(|listed| listed.created).map(|listed| listed.id.clone())
}

pub fn mint_retried() -> Plant {
    #[derive(Default)]
    struct Retries;
    #[async_trait]
    impl Asks for Retries {
        async fn mint(&self, at: &dyn Issuer, intent: &IntentId, old: Option<&KeyId>) -> Result<MintedKey, Fault> {
            match at.mint(intent, old).await {
                Err(Fault::Unknown(_)) => at.mint(intent, old).await,
                other => other,
            }
        }
    }
    plant::<Retries>()
}

pub fn oldest_makes_room() -> Plant {
    #[derive(Default)]
    struct MakesRoom;
    #[async_trait]
    impl Asks for MakesRoom {
        async fn list(&self, at: &dyn Issuer) -> Result<Listing, Fault> {
            Ok(Listing { quota: None, ..at.list().await? })
        }

        async fn mint(&self, at: &dyn Issuer, intent: &IntentId, old: Option<&KeyId>) -> Result<MintedKey, Fault> {
            let listing = at.list().await?;
            let full = listing.quota.is_some_and(|quota| listing.keys.len() >= quota);
            if let Some(oldest) = oldest(&listing).filter(|_| full) {
                at.delete(&oldest).await?;
            }
            at.mint(intent, old).await
        }
    }
    plant::<MakesRoom>()
}

pub fn all_others_deleted() -> Plant {
    #[derive(Default)]
    struct Clears;
    #[async_trait]
    impl Asks for Clears {
        async fn delete(&self, at: &dyn Issuer, _: &KeyId) -> Result<(), Fault> {
            let listing = at.list().await?;
            let newest = newest(&listing);
            for listed in listing.keys.iter().filter(|listed| Some(&listed.id) != newest.as_ref()) {
                at.delete(&listed.id).await?;
            }
            Ok(())
        }
    }
    plant::<Clears>()
}

pub fn revoked_at_once() -> Plant {
    #[derive(Default)]
    struct Revokes;
    #[async_trait]
    impl Asks for Revokes {
        async fn mint(&self, at: &dyn Issuer, intent: &IntentId, old: Option<&KeyId>) -> Result<MintedKey, Fault> {
            let minted = at.mint(intent, old).await?;
            for listed in at.list().await?.keys.iter().filter(|listed| listed.id != *minted.material.key()) {
                at.delete(&listed.id).await?;
            }
            Ok(minted)
        }
    }
    plant::<Revokes>()
}

pub fn first_target_is_enough() -> Plant {
    #[derive(Default)]
    struct Hurries;
    #[async_trait]
    impl Asks for Hurries {
        async fn poll(&self, target: &Pushed, job: &JobId) -> Result<JobState, Fault> {
            let state = target.real.poll(job).await?;
            let issuers: Vec<_> = target.issuers.lock().expect("nobody panics here").values().cloned().collect();
            for issuer in issuers.iter().filter(|_| state == JobState::Succeeded) {
                if let Some(oldest) = oldest(&issuer.list().await?) {
                    issuer.delete(&oldest).await?;
                }
            }
            Ok(state)
        }
    }
    plant::<Hurries>()
}

pub fn only_the_first_target() -> Plant {
    #[derive(Default)]
    struct Stops;
    #[async_trait]
    impl Asks for Stops {
        async fn push(&self, target: &Pushed, material: &Material) -> Result<Receipt, Fault> {
            if target.name.ends_with("-1") { target.real.push(material).await } else { Ok(Receipt { job: None }) }
        }
    }
    plant::<Stops>()
}

pub fn first_page_of_a_listing() -> Plant {
    #[derive(Default)]
    struct Page;
    #[async_trait]
    impl Asks for Page {
        async fn list(&self, at: &dyn Issuer) -> Result<Listing, Fault> {
            let mut listing = at.list().await?;
            let newest = newest(&listing);
            listing.keys.retain(|listed| Some(&listed.id) == newest.as_ref());
            Ok(listing)
        }
    }
    plant::<Page>()
}

pub fn account_asked_once() -> Plant {
    #[derive(Default)]
    struct Remembers(Mutex<Option<AccountIdentity>>);
    #[async_trait]
    impl Asks for Remembers {
        async fn identity(&self, at: &dyn Issuer) -> Result<AccountIdentity, Fault> {
            let known = self.0.lock().expect("nobody panics here").clone();
            let account = if let Some(known) = known { known } else { at.identity().await? };
            Ok(self.0.lock().expect("nobody panics here").insert(account).clone())
        }
    }
    plant::<Remembers>()
}

pub fn read_back_once() -> Plant {
    #[derive(Default)]
    struct Remembers(Mutex<BTreeMap<String, Reading>>);
    #[async_trait]
    impl Asks for Remembers {
        async fn push(&self, target: &Pushed, material: &Material) -> Result<Receipt, Fault> {
            self.0.lock().expect("nobody panics here").remove(&target.name);
            target.real.push(material).await
        }

        async fn read(&self, target: &Pushed) -> Result<Reading, Fault> {
            let known = self.0.lock().expect("nobody panics here").get(&target.name).cloned();
            let reading = if let Some(known) = known { known } else { target.real.read().await? };
            self.0.lock().expect("nobody panics here").insert(target.name.clone(), reading.clone());
            Ok(reading)
        }
    }
    plant::<Remembers>()
}

pub fn probed_once() -> Plant {
    #[derive(Default)]
    struct Remembers(Mutex<BTreeSet<KeyId>>);
    #[async_trait]
    impl Asks for Remembers {
        async fn probe(&self, at: &dyn Issuer, material: &Material) -> Result<Probe, Fault> {
            if self.0.lock().expect("nobody panics here").contains(material.key()) {
                return Ok(Probe::Works);
            }
            let probe = at.probe(material).await?;
            if probe == Probe::Works {
                self.0.lock().expect("nobody panics here").insert(material.key().clone());
            }
            Ok(probe)
        }
    }
    plant::<Remembers>()
}

pub fn last_use_never_asked() -> Plant {
    #[derive(Default)]
    struct Assumes;
    #[async_trait]
    impl Asks for Assumes {
        async fn last_use(&self, _: &dyn Issuer, _: &KeyId) -> Result<LastUse, Fault> {
            Ok(LastUse::Never)
        }
    }
    plant::<Assumes>()
}

pub fn vanished_is_success() -> Plant {
    #[derive(Default)]
    struct Hopes;
    #[async_trait]
    impl Asks for Hopes {
        async fn poll(&self, target: &Pushed, job: &JobId) -> Result<JobState, Fault> {
            match target.real.poll(job).await? {
                JobState::Vanished(_) => Ok(JobState::Succeeded),
                other => Ok(other),
            }
        }
    }
    plant::<Hopes>()
}

pub fn ended_is_success() -> Plant {
    #[derive(Default)]
    struct Hopes;
    #[async_trait]
    impl Asks for Hopes {
        async fn poll(&self, target: &Pushed, job: &JobId) -> Result<JobState, Fault> {
            match target.real.poll(job).await? {
                JobState::Failed(_) => Ok(JobState::Succeeded),
                other => Ok(other),
            }
        }
    }
    plant::<Hopes>()
}

pub fn never_disabled() -> Plant {
    #[derive(Default)]
    struct Pretends(Mutex<BTreeSet<KeyId>>);
    #[async_trait]
    impl Asks for Pretends {
        async fn disable(&self, _: &dyn Issuer, key: &KeyId) -> Result<(), Fault> {
            self.0.lock().expect("nobody panics here").insert(key.clone());
            Ok(())
        }

        async fn list(&self, at: &dyn Issuer) -> Result<Listing, Fault> {
            let mut listing = at.list().await?;
            let disabled = self.0.lock().expect("nobody panics here");
            for listed in listing.keys.iter_mut().filter(|listed| disabled.contains(&listed.id)) {
                listed.active = false;
            }
            Ok(listing)
        }
    }
    plant::<Pretends>()
}

pub fn slot_in_use_replaced() -> Plant {
    #[derive(Default)]
    struct Confuses;
    #[async_trait]
    impl Asks for Confuses {
        async fn mint(&self, at: &dyn Issuer, intent: &IntentId, idle: Option<&KeyId>) -> Result<MintedKey, Fault> {
            let listing = at.list().await?;
            let other = listing.keys.iter().map(|listed| &listed.id).find(|listed| Some(*listed) != idle);
            at.mint(intent, other).await
        }
    }
    plant::<Confuses>()
}

pub fn fresh_name_for_each_send() -> Plant {
    #[derive(Default)]
    struct Renames(Mutex<u32>);
    #[async_trait]
    impl Asks for Renames {
        async fn mint(&self, at: &dyn Issuer, intent: &IntentId, old: Option<&KeyId>) -> Result<MintedKey, Fault> {
            let number = {
                let mut number = self.0.lock().expect("nobody panics here");
                *number += 1;
                *number
            };
            let name = if number == 1 { intent.clone() } else { IntentId::new(format!("{intent}-{number}")) };
            at.mint(&name, old).await
        }
    }
    plant::<Renames>()
}
