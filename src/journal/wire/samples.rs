//! One event of every kind, and of every shape its parts can have, in the order of `v1.jsonl`. Append; never reorder.

use std::time::Duration;

use serde_json::json;

use crate::model::{
    AccountIdentity, Holder, IntentId, IssuerSpec, JobId, KeepSecret, KeyId, Keyless, Reason, RotationId, Shape,
    SystemRef, Tail, TargetName, TargetSpec, Terms,
};
use crate::ports::Reading;
use crate::rotation::event::{AdoptedBy, Cause, Event, Outcome, RotationKind, Snapshot, SnapshotTarget};

/// Every reason there is, as of version 1.
pub const REASONS: &[Reason] = &[
    Reason::NoCurrentKey,
    Reason::Stranger,
    Reason::Quota,
    Reason::MintUnsettled,
    Reason::ProbeFailed,
    Reason::ProbeNotAllowed,
    Reason::TargetChanged,
    Reason::Inherits,
    Reason::PushRefused,
    Reason::PushFailed,
    Reason::PushUnproven,
    Reason::StuckBetween,
    Reason::OldKeyStillUsed,
    Reason::AdoptNeeded,
    Reason::CurrentKeyBroken,
    Reason::AccountChanged,
    Reason::JournalBehind,
    Reason::JournalDamaged,
    Reason::LoginRefused,
    Reason::MissingRight,
    Reason::NotFound,
    Reason::TlsUntrusted,
    Reason::Refused,
    Reason::Unhealthy,
    Reason::SecretNotHeld,
    Reason::PolicyMismatch,
    Reason::EnabledAgain,
    Reason::RolledBack,
];

fn issuer(system: Option<SystemRef>, last_used_lag: Option<Duration>) -> IssuerSpec {
    IssuerSpec {
        kind: "aws-iam".into(),
        system,
        object: "aws-iam:main:arcgis-object-store".into(),
        shape: Shape::ShownOnce,
        exclusive: true,
        propagation: Duration::from_secs(60),
        settle: Duration::from_millis(600_500),
        last_used_lag,
        config: json!({"probe": {"bucket": "gis-store", "region": "us-east-1"}, "user": "arcgis-object-store"}),
    }
}

fn spec() -> TargetSpec {
    TargetSpec {
        kind: "arcgis".into(),
        system: Some(SystemRef { table: "arcgis".into(), name: "prod".into() }),
        name: TargetName::new("arcgis:prod:eg7hrelq6b"),
        readback: Duration::from_secs(120),
        job_timeout: Duration::from_secs(7200),
        poll: Duration::from_secs(2),
        config: json!({"health": null, "service_id": "eg7hrelq6b"}),
        derived_by: None,
    }
}

fn terms(keep_secret: KeepSecret) -> Terms {
    Terms {
        probes: 3,
        probe_interval: Duration::from_secs(5),
        soak: Duration::from_secs(86_400),
        soak_unproven: Duration::from_secs(604_800),
        watch: Duration::from_secs(86_400),
        keep_secret,
    }
}

fn found(reading: Reading, jobs: Vec<JobId>) -> SnapshotTarget {
    SnapshotTarget { spec: spec(), holder: Holder::new("cloud/services/eg7hrelq6b"), reading, jobs, healthy: true }
}

fn snapshot() -> Snapshot {
    Snapshot {
        issuer: issuer(Some(SystemRef { table: "aws".into(), name: "main".into() }), Some(Duration::from_secs(14_400))),
        account: AccountIdentity::new("aws:123456789012"),
        targets: vec![
            found(Reading::Tail(Tail::new("/abc")), vec![JobId::new("j1"), JobId::new("j2")]),
            found(Reading::Hidden, vec![]),
            found(Reading::Nothing, vec![]),
        ],
        terms: terms(KeepSecret::Key),
    }
}

/// The samples.
pub fn events() -> Vec<Event> {
    let key = || KeyId::new("AKIAEXAMPLE1");
    let target = || TargetName::new("arcgis:prod:eg7hrelq6b");
    let by = || "ann (uid 1000)".to_string();
    let why = || "pushing to arcgis:prod:eg7hrelq6b: 403 forbidden".to_string();
    let time = |text: &str| Some(text.parse().expect("the sample is a time"));
    let mut events = vec![
        Event::Adopted {
            key: key(),
            created: time("2026-01-02T03:04:05.678901234Z"),
            by: AdoptedBy::FirstContact,
            readings: vec![
                (target(), Reading::Tail(Tail::new("wxyz"))),
                (target(), Reading::Hidden),
                (target(), Reading::Nothing),
            ],
            account: Some(AccountIdentity::new("aws:123456789012")),
            issuer: Some(Box::new(issuer(None, None))),
            tail: None,
            derived: Vec::new(),
        },
        Event::Adopted {
            key: key(),
            created: None,
            by: AdoptedBy::Operator(by()),
            readings: vec![],
            account: None,
            issuer: None,
            tail: None,
            derived: Vec::new(),
        },
        Event::Ordered { cause: Cause::Timetable },
        Event::Ordered { cause: Cause::MaxAge },
        Event::Ordered { cause: Cause::Signal },
        Event::Ordered { cause: Cause::Operator { by: by(), compromised: true } },
        Event::Ordered { cause: Cause::Drift },
        Event::Paused { by: by() },
        Event::Resumed { by: by() },
        Event::Retried { by: by() },
        Event::DriftFound { what: "it says \"no\"\nand more, ü and \u{1F511}".to_string() },
        Event::DriftCleared,
        Event::StrangersSeen { keys: vec![key(), KeyId::new("AKIAEXAMPLE2")] },
        Event::StrangersSeen { keys: vec![] },
        Event::Disowned { key: key(), by: by() },
        Event::ReclaimOrdered { key: key(), unused: true, by: by(), issuer: None, account: None },
        Event::ReclaimOrdered { key: key(), unused: false, by: by(), issuer: None, account: None },
        Event::DespiteUseOrdered { by: by() },
        Event::Opened {
            rotation: RotationId::new("019aa000-0000-7000-8000-000000000001"),
            cause: Cause::Timetable,
            kind: RotationKind::Fresh,
            snapshot: Box::new(snapshot()),
        },
        Event::Opened {
            rotation: RotationId::new("019aa000-0000-7000-8000-000000000002"),
            cause: Cause::Drift,
            kind: RotationKind::Repush(vec![target()]),
            snapshot: Box::new(Snapshot {
                issuer: issuer(None, None),
                account: AccountIdentity::new("command"),
                targets: vec![],
                terms: terms(KeepSecret::Rotation),
            }),
        },
        Event::MintBegun {
            intent: IntentId::new("019aa000-0000-7000-8000-000000000003"),
            before: vec![key()],
            replaces: None,
        },
        Event::Minted { key: key(), created: time("2026-01-02T03:04:05Z"), tail: Some(Tail::new("wxyz")) },
        Event::Minted { key: key(), created: None, tail: None },
        Event::MintFailed { why: why() },
        Event::MintUnknown { why: why() },
        Event::MintSettled { found: vec![key()], reclaim: true },
        Event::MintSettled { found: vec![], reclaim: false },
        Event::ProbePassed { key: key() },
        Event::ProbeFailed { key: key(), why: why() },
        Event::PushBegun { target: target(), key: key(), jobs: vec![JobId::new("j1")], derived: None, until: None },
        Event::Submitted { target: target(), job: Some(JobId::new("j2")) },
        Event::Submitted { target: target(), job: None },
        Event::PushFailed { target: target(), refused: true, why: why() },
        Event::PushUnknown { target: target(), why: why() },
        Event::Confirmed { target: target() },
        Event::JobFailed { target: target(), why: why() },
        Event::JobLost { target: target(), why: why() },
        Event::NotMoved { target: target(), shows: Some(key()) },
        Event::NotMoved { target: target(), shows: None },
        Event::Verified { target: target(), proven: true },
        Event::UndoBegun { reason: Reason::PushRefused, why: why() },
        Event::RollbackBegun { by: by() },
        Event::Closed { outcome: Outcome::Done },
        Event::Closed { outcome: Outcome::Failed { reason: Reason::PushRefused, why: why() } },
        Event::Closed { outcome: Outcome::RolledBack },
        Event::Closed { outcome: Outcome::Abandoned { by: by(), holds: Some(key()) } },
        Event::Closed { outcome: Outcome::Abandoned { by: by(), holds: None } },
        Event::DisableBegun { key: key(), evidence: why() },
        Event::Disabled { key: key() },
        Event::EnableBegun { key: key(), why: why() },
        Event::Enabled { key: key() },
        Event::DeleteBegun { key: key(), evidence: why() },
        Event::Deleted { key: key() },
        Event::RetireRefused { key: key(), why: why() },
        Event::AbsentOnce { key: key() },
        Event::Reappeared { key: key() },
        Event::Gone { key: key() },
    ];
    events.extend(REASONS.iter().map(|reason| Event::Halted { reason: *reason, message: why() }));
    events.push(Event::MintBegun {
        intent: IntentId::new("019aa000-0000-7000-8000-000000000003"),
        before: vec![key()],
        replaces: Some(key()),
    });
    let others = [Shape::ClientNamed, Shape::Labelled, Shape::Slots, Shape::Derived];
    events.extend(others.map(|shape| Event::Adopted {
        key: key(),
        created: None,
        by: AdoptedBy::Operator(by()),
        readings: Vec::new(),
        account: None,
        issuer: Some(Box::new(IssuerSpec { shape, ..issuer(None, None) })),
        tail: None,
        derived: Vec::new(),
    }));
    events.push(Event::ReclaimOrdered {
        key: key(),
        unused: true,
        by: by(),
        issuer: Some(Box::new(issuer(None, None))),
        account: Some(AccountIdentity::new("aws:123456789012")),
    });
    events.push(Event::Adopted {
        key: key(),
        created: None,
        by: AdoptedBy::Operator(by()),
        readings: Vec::new(),
        account: None,
        issuer: None,
        tail: Some(Tail::new("wxyz")),
        derived: Vec::new(),
    });
    let identity = |storage_account: Option<&str>| Keyless::UserAssignedIdentity {
        client: "0f-client".into(),
        storage_account: storage_account.map(str::to_owned),
    };
    for to in [Keyless::IamRole, identity(None), identity(Some("gisstore"))] {
        let targets = vec![found(Reading::Keyless(to.mark()), vec![])];
        events.push(Event::SwitchOrdered { to: Some(to.clone()), by: by() });
        events.push(Event::Opened {
            rotation: RotationId::new("019aa000-0000-7000-8000-000000000004"),
            cause: Cause::Operator { by: by(), compromised: false },
            kind: RotationKind::Switch(to),
            snapshot: Box::new(Snapshot { targets, ..snapshot() }),
        });
    }
    events.push(Event::SwitchOrdered { to: None, by: by() });
    events.push(Event::Adopted {
        key: key(),
        created: None,
        by: AdoptedBy::Operator(by()),
        readings: Vec::new(),
        account: None,
        issuer: None,
        tail: None,
        derived: vec![target()],
    });
    let signed = SnapshotTarget {
        spec: TargetSpec { derived_by: Some(Box::new(issuer(None, None))), ..spec() },
        ..found(Reading::Hidden, vec![])
    };
    events.push(Event::Opened {
        rotation: RotationId::new("019aa000-0000-7000-8000-000000000005"),
        cause: Cause::Timetable,
        kind: RotationKind::Fresh,
        snapshot: Box::new(Snapshot { targets: vec![signed], ..snapshot() }),
    });
    let (jobs, derived, until) = (Vec::new(), Some(Tail::new("789Z")), time("2027-02-01T00:00:00.789Z"));
    events.push(Event::PushBegun { target: target(), key: key(), jobs, derived, until });
    events
}
