//! The ports of one process: what it asks passes a site, and then the world answers, late or not at all where it is struck.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rekeyd::model::{
    AccountIdentity, Instant, IntentId, IssuerSpec, JobId, KeyId, Keyless, Material, Reason, Secret, SystemRef,
    TargetSpec,
};
use rekeyd::ports::{
    Clock, Connect, Fault, Health, Inspection, Issuer, JobState, LastUse, Listing, Meter, MintedKey, Probe, Reading,
    Receipt, Target,
};

use crate::faults::{Op, Strike};
use crate::stand_in::StoodIn;
use crate::world::{Actor, Deed, Outcome, Shared, World, epoch, signed};

/// Makes the ports of one process.
pub struct SimConnect {
    pub shared: Shared,
    pub process: usize,
}

impl Connect for SimConnect {
    fn issuer(&self, spec: &IssuerSpec) -> Result<Arc<dyn Issuer>, Fault> {
        let (object, signs) = (spec.object.clone(), spec.kind == SIGNER);
        if let Some(kept) = self.shared.world().kept(&object) {
            let (shared, process, spec) = (self.shared.clone(), self.process, spec.clone());
            return Ok(Arc::new(StoodIn { shared, process, kept, spec }));
        }
        Ok(Arc::new(SimIssuer { shared: self.shared.clone(), process: self.process, object, signs }))
    }

    fn target(&self, spec: &TargetSpec) -> Result<Arc<dyn Target>, Fault> {
        let name = spec.name.as_str().to_owned();
        Ok(Arc::new(SimTarget { shared: self.shared.clone(), process: self.process, name }))
    }

    fn forgive(&self, _system: &SystemRef) {}
}

/// Both clocks of the machine a process runs on.
pub struct SimClock(pub Shared);

impl Clock for SimClock {
    fn now(&self) -> Instant {
        let world = self.0.world();
        let now = world.now();
        Instant {
            wall: epoch() + now + world.wall_ahead,
            boot: now.saturating_sub(world.booted),
            boot_id: format!("boot-{}", world.boot),
        }
    }
}

/// Counts nothing: the world counts.
pub struct NoMeter;

impl Meter for NoMeter {
    fn request(&self, _: &str, _: &'static str, _: &'static str, _: Duration) {}
}

/// The kind of issuer that signs with another's keys.
pub const SIGNER: &str = "signer";

struct SimIssuer {
    shared: Shared,
    process: usize,
    object: String,
    signs: bool,
}

struct SimTarget {
    shared: Shared,
    process: usize,
    name: String,
}

fn not_sent(about: &str) -> Fault {
    Fault::NotSent(format!("{about}: connection refused"))
}

fn unknown(about: &str) -> Fault {
    Fault::Unknown(format!("{about}: no answer"))
}

fn refused(about: &str) -> Fault {
    Fault::Refused { reason: Reason::Refused, why: format!("{about}: refused") }
}

fn throttled(about: &str) -> Fault {
    Fault::Retry { after: None, why: format!("{about}: too many requests") }
}

/// A request that changes nothing. What was seen is noted, since evidence must be fresh.
async fn look<T>(
    shared: &Shared,
    process: usize,
    op: Op,
    about: &str,
    answer: impl FnOnce(&mut World) -> Result<T, Fault>,
) -> Result<T, Fault> {
    match shared.arrive(process, op, about).await {
        Some(Strike::NotSent) => Err(not_sent(about)),
        Some(Strike::Lost) => Err(unknown(about)),
        Some(Strike::Refused) => Err(refused(about)),
        Some(Strike::Throttled) => Err(throttled(about)),
        _ => {
            let mut world = shared.world();
            let answer = answer(&mut world)?;
            world.note_seen(process, op, about);
            Ok(answer)
        }
    }
}

/// A request that changes something.
async fn act(shared: &Shared, process: usize, op: Op, about: &str, deed: Deed) -> Result<Outcome, Fault> {
    let by = Actor::Rekeyd(process);
    let strike = shared.arrive(process, op, about).await;
    {
        let mut world = shared.world();
        let now = world.now();
        match strike {
            Some(Strike::NotSent) => return Err(not_sent(about)),
            Some(Strike::Refused) => return Err(refused(about)),
            Some(Strike::Throttled) => return Err(throttled(about)),
            _ => world.check_sent(process, &deed),
        }
        match strike {
            Some(Strike::Lost) => return Err(unknown(about)),
            Some(Strike::ReplyLost | Strike::ServerError) => {
                let _ = world.execute(&deed, by, now, false);
                return Err(unknown(about));
            }
            Some(Strike::LateSoon) => {
                world.send_late(deed, by, false);
                return Err(unknown(about));
            }
            Some(Strike::LateEdge) => {
                world.send_late(deed, by, true);
                return Err(unknown(about));
            }
            Some(Strike::CrashLate) => {
                world.send_late(deed, by, true);
                world.kill_process(process);
            }
            _ => {
                world.note_answered(process, &deed);
                return world.execute(&deed, by, now, false);
            }
        }
    }
    std::future::pending().await
}

impl SimIssuer {
    async fn look<T>(
        &self,
        op: Op,
        about: &str,
        answer: impl FnOnce(&mut World) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        look(&self.shared, self.process, op, about, answer).await
    }

    async fn act(&self, op: Op, about: &str, deed: Deed) -> Result<Outcome, Fault> {
        act(&self.shared, self.process, op, about, deed).await
    }
}

#[async_trait]
impl Issuer for SimIssuer {
    async fn identity(&self) -> Result<AccountIdentity, Fault> {
        let object = &self.object;
        self.look(Op::Identity, object, |world| Ok(AccountIdentity::new(world.vaults[object].account.clone()))).await
    }

    async fn list(&self) -> Result<Listing, Fault> {
        self.look(Op::List, &self.object, |world| world.list(&self.object)).await
    }

    async fn mint(&self, intent: &IntentId, replaces: Option<&KeyId>) -> Result<MintedKey, Fault> {
        let (object, replaces) = (self.object.clone(), replaces.cloned());
        let deed = Deed::Mint { object, intent: intent.clone(), replaces };
        match self.act(Op::Mint, &self.object, deed).await? {
            Outcome::Minted(key, created) => {
                let mut world = self.shared.world();
                world.tell_secret(&self.object, &key);
                let material = world.material(&key).expect("it was just made");
                Ok(MintedKey { material, created: Some(created) })
            }
            _ => unreachable!("a mint makes a key"),
        }
    }

    async fn probe(&self, material: &Material) -> Result<Probe, Fault> {
        let (object, process) = (&self.object, self.process);
        self.look(Op::Probe, object, |world| {
            let probe = world.probe(object, material, self.signs)?;
            if probe == Probe::Works {
                world.note_seen(process, Op::Probe, material.key().as_str());
            }
            Ok(probe)
        })
        .await
    }

    fn derive(&self, key: &Material) -> Result<Material, Fault> {
        assert!(self.signs, "nothing is derived by an issuer of keys");
        let secret = Secret::new(signed(key.secret().expose()));
        Ok(Material::AccessKey { id: key.key().clone(), secret })
    }

    async fn last_use(&self, key: &KeyId) -> Result<LastUse, Fault> {
        let (object, process) = (&self.object, self.process);
        self.look(Op::LastUse, object, |world| {
            let last_use = world.last_use(object, key)?;
            world.note_seen(process, Op::LastUse, key.as_str());
            Ok(last_use)
        })
        .await
    }

    async fn disable(&self, key: &KeyId) -> Result<(), Fault> {
        let deed = Deed::Disable { object: self.object.clone(), key: key.clone() };
        self.act(Op::Disable, &self.object, deed).await.map(|_| ())
    }

    async fn enable(&self, key: &KeyId) -> Result<(), Fault> {
        let deed = Deed::Enable { object: self.object.clone(), key: key.clone() };
        self.act(Op::Enable, &self.object, deed).await.map(|_| ())
    }

    async fn known(&self, key: &KeyId, secret: Option<Secret>) -> Result<Option<Material>, Fault> {
        Ok(secret.map(|secret| Material::AccessKey { id: key.clone(), secret }))
    }

    async fn delete(&self, key: &KeyId) -> Result<(), Fault> {
        let deed = Deed::Delete { object: self.object.clone(), key: key.clone() };
        self.act(Op::Delete, &self.object, deed).await.map(|_| ())
    }
}

impl SimTarget {
    async fn look<T>(&self, op: Op, answer: impl FnOnce(&mut World) -> T) -> Result<T, Fault> {
        look(&self.shared, self.process, op, &self.name, |world| Ok(answer(world))).await
    }

    async fn hand_over(&self, key: &KeyId) -> Result<Receipt, Fault> {
        let deed = Deed::Push { target: self.name.clone(), key: key.clone() };
        match act(&self.shared, self.process, Op::Push, &self.name, deed).await? {
            Outcome::Job(job) => Ok(Receipt { job: Some(job) }),
            Outcome::Done => Ok(Receipt { job: None }),
            Outcome::Minted(..) => unreachable!("a push mints nothing"),
        }
    }
}

#[async_trait]
impl Target for SimTarget {
    async fn inspect(&self) -> Result<Inspection, Fault> {
        self.look(Op::Inspect, |world| world.inspect(&self.name)).await
    }

    async fn inspect_switch(&self, _to: &Keyless) -> Result<Inspection, Fault> {
        self.inspect().await
    }

    async fn read(&self) -> Result<Reading, Fault> {
        self.look(Op::Read, |world| world.read(&self.name)).await
    }

    async fn push(&self, material: &Material) -> Result<Receipt, Fault> {
        {
            // A place that is handed the wrong thing would store it, and its consumer be refused; no history goes on from there.
            let mut world = self.shared.world();
            let held = material.secret().expose().to_owned();
            let is_signed = match material {
                Material::SasToken { .. } => true,
                _ => held.starts_with("signed-"),
            };
            let is_signed = is_signed && !world.is_derived(material.key());
            if let Some((object, _)) = world.find(material.key())
                && world.kept(object).is_some()
            {
                let place = world.places.get_mut(&self.name).expect("targets do not vanish");
                place.forms.insert(material.key().clone(), held);
            }
            assert_eq!(world.places[&self.name].is_signed, is_signed, "{} is handed what it cannot use", self.name);
        }
        self.hand_over(material.key()).await
    }

    async fn switch(&self, to: &Keyless) -> Result<Receipt, Fault> {
        self.hand_over(&to.id()).await
    }

    async fn jobs(&self) -> Result<Vec<JobId>, Fault> {
        self.look(Op::Jobs, |world| world.jobs(&self.name)).await
    }

    async fn poll(&self, job: &JobId) -> Result<JobState, Fault> {
        self.look(Op::Poll, |world| world.poll(&self.name, job)).await
    }

    async fn health(&self) -> Health {
        self.shared.world().health(&self.name)
    }
}
