//! A service that a test walks through its rotation, with its clock, and short names for what the walks say often.

use super::*;

/// A service, its clock, and short names for what tests say often.
pub(super) struct Walk {
    pub(super) state: ServiceState,
    pub(super) now: Instant,
    pub(super) targets: Vec<&'static str>,
    pub(super) exclusive: bool,
    pub(super) shape: Shape,
}

impl Walk {
    pub(super) fn new(targets: &[&'static str]) -> Walk {
        let wall = "2026-11-22T03:00:00Z".parse().expect("a date");
        let now = Instant { wall, boot: Duration::from_secs(1000), boot_id: "boot".into() };
        let mut walk = Walk {
            state: ServiceState::default(),
            now,
            targets: targets.to_vec(),
            exclusive: false,
            shape: Shape::ShownOnce,
        };
        let readings = targets.iter().map(|name| (TargetName::new(*name), tail("oldt"))).collect();
        walk.record(Event::Adopted {
            key: key(OLD),
            created: Some(walk.now.wall - TimeDelta::days(30)),
            by: AdoptedBy::Operator("test".into()),
            readings,
            account: Some(AccountIdentity::new("aws:1")),
            issuer: None,
            tail: None,
            derived: Vec::new(),
        });
        walk
    }

    pub(super) fn pass(&mut self, time: Duration) {
        self.now.wall += time;
        self.now.boot += time;
    }

    pub(super) fn record(&mut self, event: Event) {
        self.state.apply(&event, &self.now).unwrap_or_else(|illegal| panic!("{illegal}"));
    }

    pub(super) fn step(&self) -> Step {
        self.state.step(&self.now)
    }

    /// Expects an effect, answers it, records what follows and returns it.
    pub(super) fn answer(&mut self, effect: Effect, found: Found) -> Vec<Event> {
        assert_eq!(self.step(), Step::Run(effect.clone()));
        self.feed(effect, found)
    }

    pub(super) fn feed(&mut self, effect: Effect, found: Found) -> Vec<Event> {
        self.feed_as(effect, found, RotationKind::Fresh)
    }

    pub(super) fn feed_as(&mut self, effect: Effect, found: Found, kind: RotationKind) -> Vec<Event> {
        let around = Circumstances {
            cause: Cause::Timetable,
            kind,
            fresh_id: RotationId::new("r1"),
            tries: 9,
            push_on_drift: false,
            derived: Vec::new(),
        };
        let conclusion = self.state.conclude(&effect, found, &self.now, &around);
        for event in &conclusion.events {
            self.record(event.clone());
        }
        conclusion.events
    }

    pub(super) fn waits(&mut self, time: Duration) {
        assert_eq!(self.step(), Step::Wait(time));
        self.pass(time);
    }

    pub(super) fn snapshot(&self, shown: &str) -> Snapshot {
        let issuer = IssuerSpec { exclusive: self.exclusive, shape: self.shape, ..issuer() };
        let targets = self.targets.iter().map(|name| SnapshotTarget {
            spec: TargetSpec {
                kind: "arcgis".into(),
                system: None,
                name: TargetName::new(*name),
                readback: MINUTE * 2,
                job_timeout: MINUTE * 120,
                poll: Duration::from_secs(2),
                config: serde_json::Value::Null,
                derived_by: None,
            },
            holder: Holder::new(*name),
            reading: tail(shown),
            jobs: vec![],
            healthy: true,
        });
        let terms = Terms {
            probes: 2,
            probe_interval: Duration::from_secs(5),
            soak: MINUTE * 600,
            soak_unproven: MINUTE * 6000,
            watch: MINUTE * 60,
            keep_secret: KeepSecret::Key,
        };
        Snapshot { issuer, account: AccountIdentity::new("aws:1"), targets: targets.collect(), terms }
    }

    pub(super) fn survey(&mut self, listed: &[&str]) -> Vec<Event> {
        let snapshot = Box::new(self.snapshot("oldt"));
        self.feed(Effect::Survey, Ok(Finding::Survey { snapshot, listing: listing(listed) }))
    }

    /// From Opened to the first push, by the book.
    pub(super) fn get_ready(&mut self) {
        assert!(matches!(self.survey(&[OLD])[..], [Event::Opened { .. }]));
        self.answer(Effect::PlanMint, Ok(listed(listing(&[OLD]))));
        self.answer(Effect::Mint(IntentId::new("r1.1")), Ok(minted()));
        self.waits(MINUTE);
        self.answer(Effect::Probe(key(NEW)), Ok(Finding::Probe(Probe::Works)));
        self.waits(Duration::from_secs(5));
        self.answer(Effect::Probe(key(NEW)), Ok(Finding::Probe(Probe::Works)));
    }

    pub(super) fn push(&mut self, target: &'static str, reading: &str) -> Vec<Event> {
        let name = TargetName::new(target);
        self.answer(Effect::BeforePush(name.clone()), Ok(before_push("oldt")));
        self.answer(Effect::Push(name.clone()), Ok(Finding::Receipt(Receipt { job: Some(JobId::new("j1")) })));
        self.answer(Effect::Poll(name.clone(), JobId::new("j1")), Ok(Finding::Job(JobState::Succeeded)));
        self.answer(Effect::ReadBack(name), Ok(Finding::Reading(tail(reading))))
    }

    /// From Opened to the end of the soak: the first target takes the new key and shows it.
    pub(super) fn soak(&mut self) {
        self.get_ready();
        self.push("a", "newt");
        self.pass(MINUTE * 600);
    }

    /// A rotation whose old key may be disabled now, if nothing speaks against it.
    pub(super) fn soaked() -> Walk {
        let mut walk = Walk::new(&["a"]);
        walk.soak();
        walk
    }

    /// A rotation whose old key is disabled and watched.
    pub(super) fn disabled() -> Walk {
        let mut walk = Walk::soaked();
        walk.disable_old();
        walk
    }

    /// The old key is disabled, on evidence that nothing speaks against.
    pub(super) fn disable_old(&mut self) {
        let evidence = self.evidence(LastUse::Never, "newt");
        self.answer(Effect::Evidence(key(OLD), Act::Disable), Ok(Finding::Evidence(Box::new(evidence))));
        self.answer(Effect::Disable(key(OLD)), Ok(Finding::Done));
    }

    pub(super) fn evidence(&self, last_use: LastUse, shown: &str) -> Evidence {
        let mut listing = Listing { date: Some(self.now.wall), ..listing(&[OLD, NEW]) };
        for listed in &mut listing.keys {
            let leaving = self.state.leaving.get(&listed.id);
            listed.active = !leaving.is_some_and(|leaving| matches!(leaving.stage, Stage::Disabled(_)));
        }
        Evidence {
            account: AccountIdentity::new("aws:1"),
            listing,
            current_listing: None,
            probe: Some(Probe::Works),
            readings: self.targets.iter().map(|name| (TargetName::new(*name), tail(shown))).collect(),
            others: Others::default(),
            last_use,
        }
    }

    pub(super) fn reason(&self) -> Option<Reason> {
        self.state.halt.as_ref().map(|halt| halt.reason)
    }
}

/// The target of the walks that have one.
pub(super) fn a() -> TargetName {
    TargetName::new("a")
}

pub(super) fn key(id: &str) -> KeyId {
    KeyId::new(id)
}

pub(super) fn tail(text: &str) -> Reading {
    Reading::Tail(Tail::new(text))
}

pub(super) fn listing(ids: &[&str]) -> Listing {
    let created = "2026-10-01T00:00:00Z".parse().ok();
    let keys = ids
        .iter()
        .map(|id| ListedKey {
            id: key(id),
            active: true,
            created,
            intent: None,
            tail: None,
            expires: None,
            root_tail: None,
        })
        .collect();
    Listing { keys, quota: Some(2), date: None }
}

pub(super) fn issuer() -> IssuerSpec {
    IssuerSpec {
        kind: "aws-iam".into(),
        system: None,
        object: "aws-iam:main:store".into(),
        shape: Shape::ShownOnce,
        exclusive: false,
        propagation: MINUTE,
        settle: MINUTE * 10,
        last_used_lag: Some(MINUTE * 240),
        config: serde_json::Value::Null,
    }
}

pub(super) fn listed(listing: Listing) -> Finding {
    Finding::Listing { account: account(), listing }
}

pub(super) fn account() -> AccountIdentity {
    AccountIdentity::new("aws:1")
}

pub(super) fn minted() -> Finding {
    Finding::Minted { key: key(NEW), created: None, tail: Some(Tail::new("newt")) }
}

pub(super) fn before_push(shown: &str) -> Finding {
    Finding::BeforePush {
        probe: Probe::Works,
        reading: tail(shown),
        jobs: vec![],
        listing: listing(&[OLD, NEW]),
        derived: None,
        until: None,
    }
}

pub(super) fn unknown() -> Found {
    Err(Fault::Unknown("no answer within 30 s".into()))
}
