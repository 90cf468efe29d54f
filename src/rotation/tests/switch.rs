//! The move to a credential without a key, and back: a rotation whose new key was never made.

use super::*;

const ROLE: &str = "iam-role";

fn ordered(to: Option<Keyless>) -> Event {
    Event::SwitchOrdered { to, by: "test".into() }
}

fn role() -> Reading {
    Reading::Keyless(Keyless::IamRole.mark())
}

impl Walk {
    /// From rest to the first push of a role.
    fn switch(&mut self) {
        self.record(ordered(Some(Keyless::IamRole)));
        let snapshot = Box::new(self.snapshot("oldt"));
        let kind = RotationKind::Switch(Keyless::IamRole);
        let opened =
            self.feed_as(Effect::Survey, Ok(Finding::Survey { snapshot, listing: listing(&[OLD]) }), kind.clone());
        assert!(matches!(&opened[..], [Event::Opened { kind: opened, .. }] if *opened == kind), "{opened:?}");
    }

    /// One push of whatever is installed, whose target shows this before and afterwards.
    fn hand_over(&mut self, before: Reading, after: Reading) -> Vec<Event> {
        let found = Finding::BeforePush {
            probe: Probe::Works,
            reading: before,
            jobs: vec![],
            listing: listing(&[OLD]),
            derived: None,
            until: None,
        };
        self.answer(Effect::BeforePush(a()), Ok(found));
        self.answer(Effect::Push(a()), Ok(Finding::Receipt(Receipt { job: Some(JobId::new("j1")) })));
        self.answer(Effect::Poll(a(), JobId::new("j1")), Ok(Finding::Job(JobState::Succeeded)));
        self.answer(Effect::ReadBack(a()), Ok(Finding::Reading(after)))
    }

    /// What is seen before the old key goes, while the target uses the role.
    fn seen_with_role(&self, last_use: LastUse) -> Found {
        let mut evidence = self.evidence(last_use, "newt");
        evidence.probe = None;
        evidence.listing.keys.retain(|listed| listed.id == key(OLD));
        evidence.readings = vec![(a(), role())];
        Ok(Finding::Evidence(Box::new(evidence)))
    }
}

#[test]
fn a_service_leaves_its_key_behind() {
    let mut walk = Walk::new(&["a"]);
    walk.switch();
    let verified = walk.hand_over(tail("oldt"), role());
    assert_eq!(verified, vec![Event::Verified { target: a(), proven: true }]);
    assert_eq!(walk.state.uses_no_key(), Some(&Keyless::IamRole));
    walk.waits(MINUTE * 600);
    let seen = walk.seen_with_role(LastUse::Never);
    walk.answer(Effect::Evidence(key(OLD), Act::Disable), seen);
    walk.answer(Effect::Disable(key(OLD)), Ok(Finding::Done));
    walk.waits(MINUTE * 60);
    let seen = walk.seen_with_role(LastUse::Never);
    walk.answer(Effect::Evidence(key(OLD), Act::Delete), seen);
    walk.answer(Effect::Delete(key(OLD)), Ok(Finding::Done));
    walk.answer(Effect::Absence(key(OLD)), Ok(listed(listing(&[]))));
    walk.waits(MINUTE * 10);
    walk.answer(Effect::Absence(key(OLD)), Ok(listed(listing(&[]))));
    assert_eq!(walk.step(), Step::Record(Event::Closed { outcome: Outcome::Done }));
    walk.record(Event::Closed { outcome: Outcome::Done });
    assert_eq!(walk.step(), Step::Rest);
    assert!(walk.state.leaving.is_empty());
}

#[test]
fn an_old_key_that_is_used_after_the_switch_stays() {
    let mut walk = Walk::new(&["a"]);
    walk.switch();
    walk.hand_over(tail("oldt"), role());
    let used = walk.now.wall + TimeDelta::minutes(10);
    walk.pass(MINUTE * 600);
    let seen = walk.seen_with_role(LastUse::At { at: used, by: "s3".into() });
    walk.answer(Effect::Evidence(key(OLD), Act::Disable), seen);
    assert_eq!(walk.reason(), Some(Reason::OldKeyStillUsed));
}

#[test]
fn a_target_that_went_back_to_a_key_stops_the_retire() {
    for shown in [tail("oldt"), tail("else"), Reading::Hidden, Reading::Nothing] {
        let mut walk = Walk::new(&["a"]);
        walk.switch();
        walk.hand_over(tail("oldt"), role());
        walk.pass(MINUTE * 600);
        let Ok(Finding::Evidence(mut evidence)) = walk.seen_with_role(LastUse::Never) else { unreachable!() };
        evidence.readings = vec![(a(), shown.clone())];
        walk.answer(Effect::Evidence(key(OLD), Act::Disable), Ok(Finding::Evidence(evidence)));
        assert_eq!(walk.reason(), Some(Reason::TargetChanged), "{shown:?}");
    }
}

#[test]
fn a_job_that_changed_nothing_is_not_taken_for_a_switch() {
    for shown in [tail("oldt"), Reading::Hidden] {
        let mut walk = Walk::new(&["a"]);
        walk.switch();
        assert_eq!(walk.hand_over(tail("oldt"), shown.clone()), vec![], "{shown:?}: a read-back may lag");
        walk.pass(MINUTE * 3);
        let events = walk.feed(Effect::ReadBack(a()), Ok(Finding::Reading(shown)));
        assert!(matches!(events[..], [Event::NotMoved { .. }]), "{events:?}");
    }
}

#[test]
fn a_switch_that_every_target_refuses_is_undone_and_leaves_nothing() {
    let mut walk = Walk::new(&["a"]);
    walk.switch();
    walk.answer(Effect::BeforePush(a()), Ok(before_push("oldt")));
    let refused = Fault::Refused { reason: Reason::Refused, why: "no such type".into() };
    walk.answer(Effect::Push(a()), Err(refused));
    let Step::Record(undo) = walk.step() else { panic!("{:?}", walk.step()) };
    walk.record(undo);
    let Step::Record(closed) = walk.step() else { panic!("{:?}", walk.step()) };
    walk.record(closed);
    assert_eq!(walk.reason(), Some(Reason::PushRefused));
    assert_eq!(walk.state.current.as_ref().map(|current| current.key.as_str()), Some(OLD));
    assert!(walk.state.leaving.is_empty() && walk.state.rotation.is_none());
}

#[test]
fn the_old_key_is_put_back_while_it_soaks_or_is_disabled() {
    for disabled in [false, true] {
        let mut walk = Walk::new(&["a"]);
        walk.switch();
        walk.hand_over(tail("oldt"), role());
        if disabled {
            walk.pass(MINUTE * 600);
            let seen = walk.seen_with_role(LastUse::Never);
            walk.answer(Effect::Evidence(key(OLD), Act::Disable), seen);
            walk.answer(Effect::Disable(key(OLD)), Ok(Finding::Done));
            walk.pass(MINUTE * 11);
        }
        walk.record(Event::RollbackBegun { by: "test".into() });
        if disabled {
            walk.answer(Effect::Enable(key(OLD)), Ok(Finding::Done));
        }
        let verified = walk.hand_over(role(), tail("oldt"));
        assert_eq!(verified, vec![Event::Verified { target: a(), proven: false }], "it showed that end before");
        assert_eq!(walk.step(), Step::Record(Event::Closed { outcome: Outcome::RolledBack }), "no role is retired");
        walk.record(Event::Closed { outcome: Outcome::RolledBack });
        assert_eq!((walk.state.uses_no_key(), walk.reason()), (None, Some(Reason::RolledBack)));
    }
}

#[test]
fn a_service_comes_back_to_a_key() {
    let mut walk = Walk::new(&["a"]);
    walk.switch();
    walk.hand_over(tail("oldt"), role());
    walk.record(Event::Closed { outcome: Outcome::Abandoned { by: "test".into(), holds: Some(key(ROLE)) } });
    walk.state.leaving.clear();
    walk.record(ordered(None));
    let mut snapshot = Box::new(walk.snapshot("oldt"));
    snapshot.targets[0].reading = role();
    walk.feed(Effect::Survey, Ok(Finding::Survey { snapshot, listing: listing(&[]) }));
    walk.answer(Effect::PlanMint, Ok(listed(listing(&[]))));
    walk.answer(Effect::Mint(IntentId::new("r1.1")), Ok(minted()));
    walk.waits(MINUTE);
    walk.answer(Effect::Probe(key(NEW)), Ok(Finding::Probe(Probe::Works)));
    walk.waits(Duration::from_secs(5));
    walk.answer(Effect::Probe(key(NEW)), Ok(Finding::Probe(Probe::Works)));
    let found = Finding::BeforePush {
        probe: Probe::Works,
        reading: role(),
        jobs: vec![],
        listing: listing(&[NEW]),
        derived: None,
        until: None,
    };
    walk.answer(Effect::BeforePush(a()), Ok(found));
    walk.answer(Effect::Push(a()), Ok(Finding::Receipt(Receipt { job: None })));
    let verified = walk.answer(Effect::ReadBack(a()), Ok(Finding::Reading(tail("newt"))));
    assert_eq!(verified, vec![Event::Verified { target: a(), proven: true }]);
    assert_eq!(walk.step(), Step::Record(Event::Closed { outcome: Outcome::Done }));
    assert_eq!(walk.state.uses_no_key(), None);
}

#[test]
fn a_switch_is_ordered_only_where_it_moves_something() {
    let walk = Walk::new(&["a"]);
    let refused = |state: &ServiceState, event: &Event| state.clone().apply(event, &walk.now).is_err();
    assert!(refused(&walk.state, &ordered(None)), "it uses a key");
    assert!(refused(&ServiceState::default(), &ordered(Some(Keyless::IamRole))), "nothing is known of it");
    let mut halted = walk.state.clone();
    let halt = Event::Halted { reason: Reason::Stranger, message: "test".into() };
    halted.apply(&ordered(Some(Keyless::IamRole)), &walk.now).expect("it is at rest");
    halted.apply(&halt, &walk.now).expect("anything may halt");
    assert!(refused(&halted, &ordered(Some(Keyless::IamRole))) && halted.switch.is_none(), "a halt ends the order");
    let mut walk = Walk::new(&["a"]);
    walk.switch();
    assert!(walk.state.switch.is_none(), "it is open");
    walk.hand_over(tail("oldt"), role());
    let again = ordered(Some(Keyless::IamRole));
    assert!(walk.state.clone().apply(&again, &walk.now).is_err());
}

#[test]
fn a_target_that_somebody_switched_is_not_taken_for_one_that_holds_the_key() {
    let mut walk = Walk::new(&["a"]);
    let mut snapshot = Box::new(walk.snapshot("oldt"));
    snapshot.targets[0].reading = role();
    walk.feed(Effect::Survey, Ok(Finding::Survey { snapshot: snapshot.clone(), listing: listing(&[OLD]) }));
    assert_eq!(walk.reason(), Some(Reason::TargetChanged));
    let readings = vec![(a(), role())];
    assert!(walk.state.adoption_contradicted(&key(OLD), None, &readings, &[]).is_some());

    // The same where the end of the current key is not known.
    let mut walk = Walk::new(&["a"]);
    walk.state.tails.clear();
    walk.feed(Effect::Survey, Ok(Finding::Survey { snapshot, listing: listing(&[OLD]) }));
    assert_eq!(walk.reason(), Some(Reason::TargetChanged));
    assert!(walk.state.tails.is_empty(), "a type is the end of no key");
    let first = Finding::FirstContact {
        issuer: Box::new(issuer()),
        account: account(),
        listing: listing(&[OLD]),
        uses: vec![(key(OLD), LastUse::At { at: walk.now.wall, by: "s3".into() })],
        readings,
    };
    let mut fresh = Walk { state: ServiceState::default(), ..Walk::new(&["a"]) };
    fresh.feed(Effect::FirstContact, Ok(first));
    assert_eq!(fresh.reason(), Some(Reason::NoCurrentKey));
}

#[test]
fn slots_are_emptied_on_what_the_targets_show_after_a_switch() {
    let mut walk = Walk::new(&["a"]);
    walk.shape = Shape::Labelled;
    walk.switch();
    walk.hand_over(tail("oldt"), role());
    walk.pass(MINUTE * 900);
    let seen = walk.seen_with_role(LastUse::Untold);
    walk.answer(Effect::Evidence(key(OLD), Act::Delete), seen);
    assert_eq!(walk.step(), Step::Run(Effect::Delete(key(OLD))));
}

#[test]
fn a_role_that_was_given_up_is_held_nowhere() {
    let mut walk = Walk::new(&["a", "b"]);
    walk.switch();
    let found = |shown| Finding::BeforePush {
        probe: Probe::Works,
        reading: shown,
        jobs: vec![],
        listing: listing(&[OLD]),
        derived: None,
        until: None,
    };
    let b = TargetName::new("b");
    walk.hand_over(tail("oldt"), role());
    walk.answer(Effect::BeforePush(b.clone()), Ok(found(tail("oldt"))));
    walk.answer(Effect::Push(b.clone()), Ok(Finding::Receipt(Receipt { job: None })));
    walk.answer(Effect::ReadBack(b.clone()), Ok(Finding::Reading(role())));
    walk.record(Event::RollbackBegun { by: "test".into() });
    for target in [a(), b] {
        walk.answer(Effect::BeforePush(target.clone()), Ok(found(role())));
        walk.answer(Effect::Push(target.clone()), Ok(Finding::Receipt(Receipt { job: None })));
        walk.answer(Effect::ReadBack(target), Ok(Finding::Reading(tail("oldt"))));
    }
    walk.record(Event::Closed { outcome: Outcome::RolledBack });
    walk.record(Event::Retried { by: "test".into() });
    assert!(walk.state.may_hold.values().all(|held| !held.contains(&key(ROLE))), "{:?}", walk.state.may_hold);
    assert_eq!(walk.state.previous, None, "nobody can go back to what was never a key");

    // Once more, and the target refuses it: it is undone, though a target of former days was said to use the role.
    walk.state.may_hold.insert(TargetName::new("former"), [key(ROLE)].into());
    walk.switch();
    walk.answer(Effect::BeforePush(a()), Ok(before_push("oldt")));
    let refused = Fault::Refused { reason: Reason::Refused, why: "no such type".into() };
    walk.answer(Effect::Push(a()), Err(refused));
    let Step::Record(undo @ Event::UndoBegun { .. }) = walk.step() else { panic!("{:?}", walk.step()) };
    walk.record(undo);
}

#[test]
fn a_role_lives_nowhere_so_a_switch_moves_no_house() {
    let mut walk = Walk::new(&["a"]);
    walk.switch();
    walk.hand_over(tail("oldt"), role());
    assert!(!walk.state.moves_house());
    walk.record(Event::Closed { outcome: Outcome::Abandoned { by: "test".into(), holds: Some(key(ROLE)) } });
    walk.state.leaving.clear();
    walk.record(ordered(None));
    let mut snapshot = Box::new(walk.snapshot("oldt"));
    snapshot.targets[0].reading = role();
    snapshot.issuer.object = "aws-iam:main:elsewhere".into();
    walk.feed(Effect::Survey, Ok(Finding::Survey { snapshot, listing: listing(&[]) }));
    assert!(walk.state.rotation.is_some() && !walk.state.moves_house(), "the role can be put back");
}

#[test]
fn an_order_that_a_halt_kept_back_gives_way_to_a_switch() {
    let mut walk = Walk::new(&["a"]);
    walk.record(Event::Ordered { cause: Cause::Signal });
    walk.record(ordered(Some(Keyless::IamRole)));
    assert!(walk.state.order.is_none() && walk.state.switch.is_some());
    let compromised = Cause::Operator { by: "test".into(), compromised: true };
    let mut walk = Walk::new(&["a"]);
    walk.record(Event::Ordered { cause: compromised });
    assert!(walk.state.apply(&ordered(Some(Keyless::IamRole)), &walk.now).is_err(), "that one stands above");
}

#[test]
fn the_same_identity_with_another_account_is_no_move() {
    let identity = |account: &str| Keyless::UserAssignedIdentity {
        client: "0f-client".into(),
        storage_account: Some(account.into()),
    };
    let mut walk = Walk::new(&["a"]);
    walk.record(ordered(Some(identity("one"))));
    let (snapshot, kind) = (Box::new(walk.snapshot("oldt")), RotationKind::Switch(identity("one")));
    walk.feed_as(Effect::Survey, Ok(Finding::Survey { snapshot, listing: listing(&[OLD]) }), kind);
    walk.hand_over(tail("oldt"), Reading::Keyless(identity("one").mark()));
    walk.record(Event::Closed { outcome: Outcome::Abandoned { by: "test".into(), holds: Some(identity("one").id()) } });
    assert!(walk.state.apply(&ordered(Some(identity("two"))), &walk.now).is_err());
}

#[test]
fn a_key_that_is_called_like_a_role_is_none_of_ours() {
    let mut walk = Walk::new(&["a"]);
    walk.switch();
    walk.hand_over(tail("oldt"), role());
    walk.record(Event::RollbackBegun { by: "test".into() });
    walk.hand_over(role(), tail("oldt"));
    walk.record(Event::Closed { outcome: Outcome::RolledBack });
    walk.record(Event::Retried { by: "test".into() });
    walk.survey(&[OLD]);
    walk.answer(Effect::PlanMint, Ok(listed(listing(&[OLD]))));
    let odd = Finding::Minted { key: key(ROLE), created: None, tail: None };
    let events = walk.answer(Effect::Mint(IntentId::new("r1.1")), Ok(odd));
    assert!(matches!(events[..], [Event::MintUnknown { .. }, Event::Halted { .. }]), "{events:?}");
}
