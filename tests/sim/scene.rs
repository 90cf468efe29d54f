//! What a history starts from: services with issuers of a shape and targets, under a real policy, each with a key that an operator
//! has adopted and that is due.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rekeyd::engine::{Decide, Machine};
use rekeyd::model::{AccountIdentity, Instant, KeyId, Keyless, Material, Reading, ServiceName, Shape, TargetName};
use rekeyd::policy::Policy;
use rekeyd::ports::{Connect, Journal, Record};
use rekeyd::rotation::event::{AdoptedBy, Event};

use crate::journal::CutJournal;
use crate::ports::SimConnect;
use crate::stand_in::{Kept, Living, Provider};
use crate::world::{Actor, At, ByHand, Place, Shared, Vault, World, epoch};

mod policy;

pub use policy::policy;

/// One service of a scene.
#[derive(Clone, Debug)]
pub struct Cast {
    pub name: String,
    pub user: String,
    pub shape: Shape,
    pub targets: usize,
    pub exclusive: bool,
    /// Whether its targets show the end of a secret.
    pub shows: bool,
    /// Whether its targets take a key at once, without a job, as data items do.
    pub jobless: bool,
    pub list_lag: Duration,
    pub use_lag: Option<Duration>,
    pub on_drift_push: bool,
    /// Whether all secrets end alike.
    pub ends_alike: bool,
    /// Whether its targets are providers, whose services inherit what they hold.
    pub providers: bool,
    /// Whether an operator wants it switched to a role, and not rotated.
    pub switched: bool,
    /// Whether its second target holds what is signed with the key, and not the key itself.
    pub signed: bool,
    /// Whether its targets are files.
    pub files: bool,
    /// How often by itself; a month where it is rotated once.
    pub every: &'static str,
    /// Who keeps its keys, where its issuer is real.
    pub stand_in: Option<fn() -> Tables>,
}

/// An object at a stand-in of its provider, and what a policy says of it.
pub struct Tables {
    /// The provider's account: as it is, and with addresses where nobody listens.
    pub accounts: [String; 2],
    /// `[service.issuer]`, in the same two ways.
    pub issuer: [String; 2],
    /// That of a service which follows `store` and has the second target.
    pub follower: Option<String>,
    /// The key in use.
    pub first: KeyId,
    /// Its secret, where the provider shows it to nobody.
    pub secret: Option<String>,
    pub provider: Box<dyn Provider>,
}

impl Cast {
    pub fn new(name: &str, shape: Shape, targets: usize) -> Cast {
        let told = !shape.has_slots() && shape != Shape::Labelled;
        Cast {
            name: name.to_owned(),
            user: name.to_owned(),
            shape,
            targets,
            exclusive: shape.has_slots(),
            shows: true,
            jobless: false,
            list_lag: Duration::ZERO,
            use_lag: told.then_some(Duration::from_secs(60)),
            on_drift_push: false,
            ends_alike: false,
            providers: false,
            switched: false,
            signed: false,
            files: false,
            every: "30d",
            stand_in: None,
        }
    }

    pub fn object(&self) -> String {
        format!("aws-iam:main:{}", self.user)
    }

    /// Makes what the policy names exist.
    pub fn put_in_place(&self, world: &mut World) {
        world.vaults.entry(self.object()).or_insert_with(|| vault(self));
        for name in self.target_names() {
            let is_signed = self.is_signed(&name);
            world.places.entry(name).or_insert_with(|| Place { is_signed, ..place(self) });
        }
    }

    /// Whether this target of it holds what is signed.
    pub fn is_signed(&self, target: &str) -> bool {
        self.signed && target.ends_with("-2")
    }

    pub fn target_names(&self) -> Vec<String> {
        let stem = match (self.files, self.jobless) {
            (true, _) => "file:/run/",
            (false, true) => "arcgis:prod:/cloudStores/",
            (false, false) => "arcgis:prod:",
        };
        (1..=self.targets).map(|number| format!("{stem}{}-{number}", self.name)).collect()
    }
}

pub type Wrap<T> = Arc<dyn Fn(Arc<T>, &Shared) -> Arc<T> + Send + Sync>;

/// A wrong implementation, planted between the engine and what it works with; or none.
#[derive(Clone)]
pub struct Plant {
    pub decide: Arc<dyn Decide>,
    pub connect: Option<Wrap<dyn Connect>>,
    pub journal: Option<Wrap<dyn Journal>>,
}

impl Default for Plant {
    fn default() -> Self {
        Plant { decide: Arc::new(Machine), connect: None, journal: None }
    }
}

impl Plant {
    pub fn connect(&self, shared: &Shared, process: usize) -> Arc<dyn Connect> {
        let real: Arc<dyn Connect> = Arc::new(SimConnect { shared: shared.clone(), process });
        self.connect.as_ref().map_or(real.clone(), |wrap| wrap(real, shared))
    }

    pub fn journal(&self, shared: &Shared, process: usize) -> Arc<dyn Journal> {
        let real: Arc<dyn Journal> = Arc::new(CutJournal { shared: shared.clone(), process });
        self.journal.as_ref().map_or(real.clone(), |wrap| wrap(real, shared))
    }
}

/// Everything a history starts from.
#[derive(Clone)]
pub struct Scene {
    pub title: String,
    pub cast: Vec<Cast>,
    pub policy: Arc<Policy>,
    pub plant: Plant,
    /// How many rotations each service is to complete.
    pub rotations: u32,
    /// What others do meanwhile, and when.
    pub by_hand: Vec<(At, ByHand)>,
}

impl Scene {
    pub fn new(title: impl Into<String>, cast: Vec<Cast>) -> Scene {
        let policy = Arc::new(policy(&cast));
        Scene { title: title.into(), cast, policy, plant: Plant::default(), rotations: 1, by_hand: Vec::new() }
    }

    /// One service of this shape.
    pub fn of(shape: Shape, targets: usize) -> Scene {
        Scene::new(format!("{shape:?}, {targets} target(s)"), vec![Cast::new("store", shape, targets)])
    }

    /// One service whose targets are providers.
    pub fn providers(targets: usize) -> Scene {
        let cast = Cast { providers: true, ..Cast::new("store", Shape::ShownOnce, targets) };
        Scene::new(format!("providers, {targets} target(s)"), vec![cast])
    }

    /// One service that leaves its key behind.
    pub fn switched(shape: Shape, shows: bool, targets: usize) -> Scene {
        let title = format!("{shape:?} to a role, {} tail, {targets} target(s)", if shows { "a" } else { "no" });
        Scene::new(title, vec![Cast { switched: true, shows, ..Cast::new("store", shape, targets) }])
    }

    /// One service with a key at one target, and what is signed with it at another.
    pub fn signed(shows: bool) -> Scene {
        let title = format!("Slots, a key and what is signed with it, {} tail", if shows { "a" } else { "no" });
        Scene::new(title, vec![Cast { signed: true, shows, ..Cast::new("store", Shape::Slots, 2) }])
    }

    /// One service whose issuer is real.
    pub fn stood_in(title: &str, shape: Shape, signed: bool, stand_in: fn() -> Tables) -> Scene {
        let targets = if signed { 2 } else { 1 };
        let cast = Cast { signed, stand_in: Some(stand_in), ..Cast::new("store", shape, targets) };
        Scene::new(format!("{title}, real"), vec![cast])
    }

    /// The same with each of its services changed a little.
    pub fn with(mut self, change: impl Fn(&mut Cast)) -> Scene {
        self.cast.iter_mut().for_each(change);
        let policy = Arc::new(policy(&self.cast));
        Scene { policy, ..self }
    }

    /// One service whose targets know no jobs.
    pub fn jobless(shows: bool, targets: usize) -> Scene {
        let title = format!("without jobs, {} tail, {targets} target(s)", if shows { "a" } else { "no" });
        let cast = Cast { jobless: true, shows, ..Cast::new("store", Shape::ShownOnce, targets) };
        Scene::new(title, vec![cast])
    }

    /// Somebody else does something at a time of his own; at none: before anything else happens.
    pub fn by_hand(mut self, at: At, deed: impl Fn(&mut World) + Send + Sync + 'static) -> Scene {
        self.by_hand.push((at, Arc::new(deed)));
        self
    }

    /// Puts keys, targets and an adoption in place.
    pub fn build(&self, shared: &Shared) {
        let mut world = shared.world();
        world.shelves.push(Default::default());
        world.bells.push(Default::default());
        if self.cast.iter().any(|cast| cast.ends_alike) {
            world.ends = 1;
        }
        for cast in &self.cast {
            if let Some(stand_in) = cast.stand_in {
                raise(&mut world, cast, stand_in());
                continue;
            }
            world.vaults.insert(cast.object(), vault(cast));
            let slot = if cast.shape.has_slots() { "slot1@" } else { "" };
            let key = KeyId::new(format!("{}-{slot}old", cast.name));
            world.make(&cast.object(), key.clone(), Actor::Human, None, false);
            if cast.shape.has_slots() {
                let idle = KeyId::new(format!("{}-slot2@old", cast.name));
                world.make(&cast.object(), idle, Actor::Human, None, true);
            }
            cast.put_in_place(&mut world);
            for name in cast.target_names() {
                let now = world.now();
                world.put(&name, &key, Actor::Human, now);
            }
            let material = world.material(&key).expect("it was just made");
            adopt(&mut world, &self.policy, cast, &material);
        }
        for (at, deed) in &self.by_hand {
            world.schedule(*at, deed.clone());
        }
    }
}

/// Puts a service in place whose keys are kept at a stand-in.
fn raise(world: &mut World, cast: &Cast, tables: Tables) {
    let object = cast.object();
    let [policy, astray] = [0, 1].map(|way| {
        let mut policy = policy::parse(&tables.accounts[way], std::slice::from_ref(cast), |_| {
            (tables.issuer[way].clone(), tables.follower.clone())
        });
        for service in &mut policy.services {
            service.issuer.object.clone_from(&object);
            for target in &mut service.targets {
                target.config = serde_json::Value::Null;
                if let Some(derived_by) = &mut target.derived_by {
                    derived_by.object.clone_from(&object);
                }
            }
        }
        policy
    });
    let service = &policy.services[0];
    let spec = service.issuer.clone();
    assert_eq!(spec.shape, cast.shape, "the policy's issuer is of another shape");
    let kept = Arc::new(Kept::new(tables.provider, &policy, &astray));
    let (account, settle) = (kept.account(&spec).to_string(), spec.settle);
    let use_lag = spec.last_used_lag;
    let vault = Vault { account, settle, use_lag, kept: Some(kept.clone()), ..vault(cast) };
    world.vaults.insert(object.clone(), vault);
    for Living { id, secret, .. } in kept.provider.keys() {
        let idle = id != tables.first;
        let _ = world.make_with(&object, id, secret, Actor::Human, None, idle);
    }
    let material = kept.material(&spec, &tables.first, tables.secret);
    cast.put_in_place(world);
    for target in &service.targets {
        let name = target.name.as_str();
        let held = match &target.derived_by {
            Some(follower) => kept.derive(follower, &material),
            None => material.clone(),
        };
        let forms = &mut world.places.get_mut(name).expect("it is in place").forms;
        forms.insert(tables.first.clone(), held.secret().expose().to_owned());
        let now = world.now();
        world.put(name, &tables.first, Actor::Human, now);
    }
    adopt(world, &policy, cast, &material);
    world.policy = Some(Arc::new(policy));
}

fn vault(cast: &Cast) -> Vault {
    Vault {
        shape: cast.shape,
        account: "aws:123456789012".into(),
        keys: Vec::new(),
        quota: matches!(cast.shape, Shape::ShownOnce | Shape::ClientNamed).then_some(2),
        lag: cast.list_lag,
        steady_until: At::ZERO,
        propagation: Duration::from_secs(5),
        settle: Duration::from_secs(120),
        use_lag: cast.use_lag,
        kept: None,
    }
}

fn place(cast: &Cast) -> Place {
    Place {
        object: cast.object(),
        holds: None,
        since: Duration::ZERO,
        put_by: Actor::Human,
        jobs: Vec::new(),
        takes: Duration::from_secs(5),
        job_timeout: Duration::from_secs(600),
        shows: cast.shows,
        failing: 0,
        hollow: 0,
        forgets: false,
        jobless: cast.jobless,
        watched: false,
        sick: false,
        is_signed: false,
        forms: BTreeMap::new(),
    }
}

/// The operator's word which key is in use, as an earlier run wrote it down.
fn adopt(world: &mut World, policy: &Policy, cast: &Cast, material: &Material) {
    let key = material.key();
    let name = ServiceName::new(cast.name.clone());
    let at = Instant { wall: epoch(), boot: Duration::ZERO, boot_id: "boot-0".into() };
    let readings: Vec<(TargetName, Reading)> =
        cast.target_names().iter().map(|target| (TargetName::new(target.clone()), world.read(target))).collect();
    let service = policy.service(&name).expect("the policy names the cast");
    let spec = service.issuer.clone();
    let derived = service.targets.iter().filter(|target| target.derived_by.is_some());
    let derived = derived.map(|target| target.name.clone()).collect();
    let event = Event::Adopted {
        key: key.clone(),
        created: Some(epoch() - chrono::TimeDelta::days(31)),
        by: AdoptedBy::Operator("uid 0 (root)".into()),
        readings,
        account: Some(AccountIdentity::new(world.vaults[&cast.object()].account.clone())),
        issuer: Some(Box::new(spec)),
        tail: None,
        derived,
    };
    world.shelves[0].materials.insert((name.clone(), key.clone()), material.clone());
    let order = Event::SwitchOrdered { to: Some(Keyless::IamRole), by: "uid 0 (root)".into() };
    for (sequence, event) in (1..).zip([Some(event), cast.switched.then_some(order)].into_iter().flatten()) {
        let shelf = &mut world.shelves[0];
        let record = Record { service: name.clone(), sequence, at: at.clone(), event: event.clone() };
        shelf.records.entry(name.clone()).or_default().push(record);
        shelf.times.entry(name.clone()).or_default().push(Duration::ZERO);
        world.check_event(0, &name, &event, &at);
    }
}
