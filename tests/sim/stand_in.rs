//! Issuers that are real: what rekeyd asks goes through the code that is shipped, over loopback, to a strict stand-in of the provider,
//! and what came of it there becomes true in the world. Strikes are mishaps of the stand-in, so that the issuer itself says what
//! they are.
//!
//! Time stands still meanwhile: a request runs on a runtime of its own, and the world's thread waits for it. The stand-in lives in real
//! time, without lags; what it dates is told as the world's time.

use std::collections::{BTreeMap, VecDeque};
use std::io::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use futures_util::future::BoxFuture;
use rekeyd::issuer;
use rekeyd::model::{AccountIdentity, IntentId, IssuerSpec, KeyId, Material, Secret, Shape, SystemSpec};
use rekeyd::net::{Context, Shared as Together};
use rekeyd::policy::Policy;
use rekeyd::ports::{Fault, Forgetful, Issuer, LastUse, Listing, MintedKey, Probe};
use rekeyd_lab::{Fault as Mishap, Gate};
use tempfile::NamedTempFile;
use tokio::runtime::Runtime;

use crate::faults::{Op, Strike};
use crate::oracle::Promise;
use crate::scene::Scene;
use crate::world::{Actor, Deed, Key, Shared, World, epoch};

mod aws;
mod azure;
mod f5;
mod google;
mod ibm;

/// A world of each kind that is real.
pub fn scenes() -> impl Iterator<Item = Scene> {
    let of_files = |scene: Scene| scene.with(|cast| (cast.files, cast.jobless) = (true, true));
    [
        Scene::stood_in("IAM access keys", Shape::ShownOnce, false, aws::keys),
        Scene::stood_in("HMAC keys of Google", Shape::ShownOnce, false, google::keys),
        Scene::stood_in("access keys of IBM", Shape::ClientNamed, false, ibm::keys),
        of_files(Scene::stood_in("F5 service credentials", Shape::Labelled, false, f5::credentials)),
        Scene::stood_in("storage keys", Shape::Slots, false, || azure::keys(false)),
        Scene::stood_in("storage keys and what is signed with them", Shape::Slots, true, || azure::keys(true)),
        Scene::stood_in("signatures", Shape::Derived, false, azure::signatures),
        Scene::stood_in("Entra secrets", Shape::Labelled, false, azure::secrets),
    ]
    .into_iter()
}

/// Where the stand-ins live.
static OUTSIDE: LazyLock<Runtime> = LazyLock::new(|| {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("threads and sockets can be had")
});

/// Runs this in real time, while the world stands still.
pub fn outside<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> T {
    let (tell, told) = std::sync::mpsc::sync_channel(1);
    OUTSIDE.spawn(async move {
        let _ = tell.send(future.await);
    });
    told.recv().expect("it did not panic")
}

/// A key that lives at a provider.
pub struct Living {
    /// As its issuer calls it.
    pub id: KeyId,
    pub secret: String,
    pub active: bool,
}

/// A provider's object as the world needs it.
pub trait Provider: Send + Sync {
    /// The keys that live there now.
    fn keys(&self) -> Vec<Living>;
    /// What the stand-in calls the request that changes something, or the first that a look cannot do without.
    fn request(&self, op: Op) -> &'static str;
    /// Where such a request goes wrong.
    fn mishaps(&self, op: Op) -> &dyn Mishaps;
    /// Somebody removes a key; in a slot, by one that nobody has.
    fn remove(&self, key: &KeyId);
    /// Somebody makes one beside the others.
    fn make(&self);
    /// Somebody disables one, or enables it.
    fn switch(&self, _key: &KeyId, _active: bool) {
        unreachable!("keys of this kind cannot be disabled");
    }
    /// Whether a consumer that holds this is let in now; `is_signed`: as something signed with a key, and not as a key.
    fn opens(&self, held: &str, _is_signed: bool) -> bool {
        self.keys().iter().any(|key| key.active && key.secret == held)
    }
}

/// A stand-in whose requests go wrong as one likes.
pub trait Mishaps {
    /// Queues a mishap for the next request called so.
    fn queue(&self, request: &str, mishap: Mishap);
    /// How many queued for it are not spent.
    fn left(&self, request: &str) -> usize;
    /// Forgets those.
    fn clear(&self);
}

/// A stand-in of the lab, each of which has the three functions.
macro_rules! goes_wrong {
    ($stand_in:ty) => {
        impl $crate::stand_in::Mishaps for $stand_in {
            fn queue(&self, request: &str, mishap: rekeyd_lab::Fault) {
                self.fault(request, mishap);
            }

            fn left(&self, request: &str) -> usize {
                self.faults_left(request)
            }

            fn clear(&self) {
                self.clear_faults();
            }
        }
    };
}
use goes_wrong;

/// What no two histories have in common.
fn fresh(stem: &str) -> String {
    static LAST: AtomicU64 = AtomicU64::new(0);
    format!("{stem}{}", LAST.fetch_add(1, Ordering::Relaxed))
}

/// A file with a login, which lives as long as the provider of its history.
fn login(secret: &str) -> NamedTempFile {
    let mut file = NamedTempFile::new().expect("a file");
    file.write_all(secret.as_bytes()).expect("written");
    file
}

/// The discard port: connections are refused.
const NOWHERE: &str = "http://127.0.0.1:9";

/// An object at a stand-in, and how rekeyd reaches it.
pub struct Kept {
    pub provider: Box<dyn Provider>,
    /// With the provider's address, and with one where nobody listens.
    systems: [SystemSpec; 2],
    /// The same issuer, looking for its consumer where nobody listens.
    astray: IssuerSpec,
    context: Context,
    ports: Mutex<BTreeMap<String, Arc<dyn Issuer>>>,
    /// What is on its way there and late.
    late: Mutex<VecDeque<(String, Gate)>>,
}

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Kept")
    }
}

fn locked<T>(what: &Mutex<T>) -> MutexGuard<'_, T> {
    what.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Kept {
    /// `policy` names the provider's addresses, and `astray` the same where nobody listens.
    pub fn new(provider: Box<dyn Provider>, policy: &Policy, astray: &Policy) -> Kept {
        let at = policy.services[0].issuer.system.clone().expect("an issuer with an account");
        let context =
            Context { proxy: None, no_proxy: Vec::new(), guard: Arc::new(Forgetful), shared: Together::default() };
        Kept {
            provider,
            astray: astray.services[0].issuer.clone(),
            systems: [policy, astray].map(|policy| policy.systems[&at].clone()),
            context,
            ports: Mutex::default(),
            late: Mutex::default(),
        }
    }

    fn port(&self, spec: &IssuerSpec, astray: bool) -> Arc<dyn Issuer> {
        let called = format!("{astray} {} {}", spec.kind, spec.config);
        let make = || {
            let kind = issuer::KINDS.iter().find(|kind| kind.name == spec.kind).expect("a kind there is");
            let _inside = OUTSIDE.enter();
            let system = &self.systems[usize::from(astray)];
            let spec = if astray && spec.kind == self.astray.kind { &self.astray } else { spec };
            (kind.connect)(spec, Some(system), &self.context).expect("it can be connected")
        };
        locked(&self.ports).entry(called).or_insert_with(make).clone()
    }

    /// The account, as its issuer tells it.
    pub fn account(&self, spec: &IssuerSpec) -> AccountIdentity {
        let port = self.port(spec, false);
        outside(async move { port.identity().await }).expect("nothing strikes yet")
    }

    /// What targets need of a key.
    pub fn material(&self, spec: &IssuerSpec, key: &KeyId, secret: Option<String>) -> Material {
        let (port, key) = (self.port(spec, false), key.clone());
        let known = outside(async move { port.known(&key, secret.map(Secret::new)).await });
        known.expect("nothing strikes yet").expect("the provider shows it, or somebody brings its secret")
    }

    /// What this issuer makes of another's key.
    pub fn derive(&self, spec: &IssuerSpec, key: &Material) -> Material {
        self.port(spec, false).derive(key).expect("something can be signed with it")
    }

    /// What was sent arrives; where nothing was, nothing does.
    pub fn carry_out(&self, deed: &Deed) {
        let called = format!("{deed:?}");
        let gate = {
            let mut late = locked(&self.late);
            let at = late.iter().position(|(about, _)| *about == called);
            at.and_then(|at| late.remove(at)).map(|(_, gate)| gate)
        };
        if let Some(gate) = gate {
            gate.open();
        }
    }

    /// Lets the issuer ask, struck like this; `deed` is what the request would do.
    fn ask<T: Send + 'static>(
        &self,
        spec: &IssuerSpec,
        op: Op,
        strike: Option<Strike>,
        deed: Option<&Deed>,
        ask: impl FnOnce(Arc<dyn Issuer>) -> BoxFuture<'static, Result<T, Fault>>,
    ) -> Result<T, Fault> {
        let (request, mishaps) = (self.provider.request(op), self.provider.mishaps(op));
        let gate = Gate::default();
        if let Some(mishap) = strike.and_then(|strike| mishap(strike, &gate)) {
            mishaps.queue(request, mishap);
        }
        let answer = outside(ask(self.port(spec, strike == Some(Strike::NotSent))));
        let met = strike.filter(|_| mishaps.left(request) == 0);
        mishaps.clear();
        if let (Some(Strike::LateSoon | Strike::LateEdge | Strike::CrashLate), Some(deed)) = (met, deed) {
            locked(&self.late).push_back((format!("{deed:?}"), gate));
        }
        if let (Some(strike), Err(fault)) = (met, &answer) {
            assert!(
                is_told(strike, fault, deed.is_some()),
                "{op:?} was struck by {strike:?}, and the issuer says: {fault:?}"
            );
        }
        // Or the stand-in calls the request otherwise, and nothing is struck: what needs no look before it is always sent.
        let sent =
            matches!(op, Op::Identity | Op::List) || op == Op::Mint && !matches!(answer, Err(Fault::Refused { .. }));
        assert!(strike == met || !sent, "{op:?} was to be struck by {strike:?}, and no {request} came");
        // That the key may not look there is an answer too.
        let unheard = met.filter(|_| answer.is_ok() && op != Op::Probe);
        assert!(unheard.is_none(), "{op:?} was struck by {unheard:?}, and the issuer has an answer");
        answer
    }
}

/// What becomes of a request that is struck so; none where it never leaves.
fn mishap(strike: Strike, gate: &Gate) -> Option<Mishap> {
    Some(match strike {
        Strike::Lost => Mishap::DropBefore,
        Strike::ReplyLost => Mishap::LostReply,
        Strike::ServerError => Mishap::ErrorAfterCommit(500),
        Strike::Refused => Mishap::Refuse("somebody took the right away".into()),
        Strike::Throttled => Mishap::Throttle,
        Strike::LateSoon | Strike::LateEdge | Strike::CrashLate => Mishap::Gated(gate.clone()),
        _ => return None,
    })
}

/// Whether a fault says what happened: only what surely was not carried out may be called so.
fn is_told(strike: Strike, fault: &Fault, changes: bool) -> bool {
    match strike {
        Strike::NotSent => matches!(fault, Fault::NotSent(_)),
        Strike::Throttled => matches!(fault, Fault::Retry { .. }),
        Strike::Refused => matches!(fault, Fault::Refused { .. }),
        _ => !changes || matches!(fault, Fault::Unknown(_)),
    }
}

/// A real issuer, as one process holds it.
pub struct StoodIn {
    pub shared: Shared,
    pub process: usize,
    pub kept: Arc<Kept>,
    pub spec: IssuerSpec,
}

impl StoodIn {
    async fn look<T: Send + 'static>(
        &self,
        op: Op,
        ask: impl FnOnce(Arc<dyn Issuer>) -> BoxFuture<'static, Result<T, Fault>>,
    ) -> Result<T, Fault> {
        let object = &self.spec.object;
        let strike = self.shared.arrive(self.process, op, object).await;
        let answer = self.kept.ask(&self.spec, op, strike, None, ask)?;
        self.shared.world().note_seen(self.process, op, object);
        Ok(answer)
    }

    async fn act<T: Send + 'static>(
        &self,
        op: Op,
        deed: Deed,
        ask: impl FnOnce(Arc<dyn Issuer>) -> BoxFuture<'static, Result<T, Fault>>,
    ) -> Result<T, Fault> {
        let by = Actor::Rekeyd(self.process);
        let strike = self.shared.arrive(self.process, op, &self.spec.object).await;
        if !matches!(strike, Some(Strike::NotSent | Strike::Refused | Strike::Throttled)) {
            self.shared.world().check_sent(self.process, &deed);
        }
        let answer = self.kept.ask(&self.spec, op, strike, Some(&deed), ask);
        {
            let mut world = self.shared.world();
            let now = world.now();
            world.mirror(&deed, by, now);
            match strike {
                None => world.note_answered(self.process, &deed),
                Some(Strike::LateSoon) => world.send_late(deed, by, false),
                Some(Strike::LateEdge) => world.send_late(deed, by, true),
                Some(Strike::CrashLate) => {
                    world.send_late(deed, by, true);
                    world.kill_process(self.process);
                }
                Some(_) => {}
            }
        }
        if strike == Some(Strike::CrashLate) {
            std::future::pending::<()>().await;
        }
        answer
    }
}

/// What the stand-in dated, in the world's time.
fn dated(world: &mut World, object: &str, listing: &mut Listing) {
    listing.date = listing.date.map(|_| world.date());
    for listed in &mut listing.keys {
        let born = world.key(object, &listed.id).map(Key::born);
        world.hold(Promise::NoMistakeOfOurOwn, born.is_some(), || format!("{} is listed and not there", listed.id));
        let (Some(born), Some(created)) = (born, listed.created) else { continue };
        listed.expires = listed.expires.map(|end| born + (end - created));
        listed.created = Some(born);
    }
}

#[async_trait::async_trait]
impl Issuer for StoodIn {
    async fn identity(&self) -> Result<AccountIdentity, Fault> {
        self.look(Op::Identity, |issuer| Box::pin(async move { issuer.identity().await })).await
    }

    async fn list(&self) -> Result<Listing, Fault> {
        let mut listing = self.look(Op::List, |issuer| Box::pin(async move { issuer.list().await })).await?;
        dated(&mut self.shared.world(), &self.spec.object, &mut listing);
        Ok(listing)
    }

    async fn mint(&self, intent: &IntentId, replaces: Option<&KeyId>) -> Result<MintedKey, Fault> {
        let (object, intent, replaces) = (self.spec.object.clone(), intent.clone(), replaces.cloned());
        let deed = Deed::Mint { object, intent: intent.clone(), replaces: replaces.clone() };
        let mint = |issuer: Arc<dyn Issuer>| -> BoxFuture<'static, _> {
            Box::pin(async move { issuer.mint(&intent, replaces.as_ref()).await })
        };
        let mut minted = self.act(Op::Mint, deed, mint).await?;
        let mut world = self.shared.world();
        let key = minted.material.key().clone();
        world.tell_secret(&self.spec.object, &key);
        let made = world.key(&self.spec.object, &key).expect("what is minted is there").made;
        minted.created = minted.created.map(|_| epoch() + made);
        Ok(minted)
    }

    async fn probe(&self, material: &Material) -> Result<Probe, Fault> {
        let (key, material) = (material.key().clone(), material.clone());
        let probe = self.look(Op::Probe, |issuer| Box::pin(async move { issuer.probe(&material).await })).await?;
        let mut world = self.shared.world();
        world.use_key(&key);
        if probe == Probe::Works {
            world.note_seen(self.process, Op::Probe, key.as_str());
        }
        Ok(probe)
    }

    fn derive(&self, key: &Material) -> Result<Material, Fault> {
        self.kept.port(&self.spec, false).derive(key)
    }

    async fn last_use(&self, key: &KeyId) -> Result<LastUse, Fault> {
        let asked = key.clone();
        if self.spec.last_used_lag.is_none() {
            let port = self.kept.port(&self.spec, false);
            return outside(async move { port.last_use(&asked).await });
        }
        self.look(Op::LastUse, |issuer| Box::pin(async move { issuer.last_use(&asked).await })).await?;
        // The consumers live in the world, and so does their time.
        let mut world = self.shared.world();
        let last_use = world.last_use(&self.spec.object, key)?;
        world.note_seen(self.process, Op::LastUse, key.as_str());
        Ok(last_use)
    }

    async fn disable(&self, key: &KeyId) -> Result<(), Fault> {
        let (object, key) = (self.spec.object.clone(), key.clone());
        let deed = Deed::Disable { object, key: key.clone() };
        self.act(Op::Disable, deed, |issuer| Box::pin(async move { issuer.disable(&key).await })).await
    }

    async fn enable(&self, key: &KeyId) -> Result<(), Fault> {
        let (object, key) = (self.spec.object.clone(), key.clone());
        let deed = Deed::Enable { object, key: key.clone() };
        self.act(Op::Enable, deed, |issuer| Box::pin(async move { issuer.enable(&key).await })).await
    }

    async fn known(&self, key: &KeyId, secret: Option<Secret>) -> Result<Option<Material>, Fault> {
        let (port, key) = (self.kept.port(&self.spec, false), key.clone());
        outside(async move { port.known(&key, secret).await })
    }

    async fn keep(&self, key: &KeyId) -> Result<Option<String>, Fault> {
        let (port, key) = (self.kept.port(&self.spec, false), key.clone());
        outside(async move { port.keep(&key).await })
    }

    async fn delete(&self, key: &KeyId) -> Result<(), Fault> {
        let (object, key) = (self.spec.object.clone(), key.clone());
        let deed = Deed::Delete { object, key: key.clone() };
        self.act(Op::Delete, deed, |issuer| Box::pin(async move { issuer.delete(&key).await })).await
    }
}
