//! Issuers of other shapes: keys the client names, keys with a label, keys in slots; and requests that are carried out late.

use super::*;

const IDLE: &str = "key2@0";
const OTHER: &str = "key2@9";

fn walk(shape: Shape) -> Walk {
    let mut walk = Walk::new(&["a"]);
    walk.shape = shape;
    walk.exclusive = shape.has_slots();
    walk.state.home = Some(walk.snapshot("oldt").issuer);
    walk
}

fn seen(ids: &[&str], shown: &str) -> Found {
    let readings = vec![(a(), tail(shown))];
    Ok(Finding::Settled { account: account(), listing: listing(ids), uses: vec![], readings })
}

fn slots(ids: &[&str], shown: &str) -> Found {
    slots_beside(listing(ids), shown, Others::default())
}

fn slots_beside(listing: Listing, shown: &str, others: Others) -> Found {
    Ok(Finding::Slots { account: account(), listing, readings: vec![(a(), tail(shown))], others })
}

fn intent() -> IntentId {
    IntentId::new("r1.1")
}

/// From the survey to the intent to mint.
fn minting(shape: Shape) -> Walk {
    let mut walk = walk(shape);
    if shape.has_slots() {
        walk.survey(&[OLD, IDLE]);
        walk.answer(Effect::PlanMint, slots(&[OLD, IDLE], "oldt"));
    } else {
        walk.survey(&[OLD]);
        walk.answer(Effect::PlanMint, Ok(listed(listing(&[OLD]))));
    }
    walk
}

/// From the survey to the old key's soak.
fn soaking(shape: Shape) -> Walk {
    let mut walk = minting(shape);
    walk.answer(Effect::Mint(intent()), Ok(minted()));
    walk.waits(MINUTE);
    walk.answer(Effect::Probe(key(NEW)), Ok(Finding::Probe(Probe::Works)));
    walk.waits(Duration::from_secs(5));
    walk.answer(Effect::Probe(key(NEW)), Ok(Finding::Probe(Probe::Works)));
    walk.push("a", "newt");
    walk
}

fn weighed(walk: &mut Walk, act: Act, change: impl Fn(&mut Evidence)) -> Vec<Event> {
    let mut evidence = walk.evidence(LastUse::Untold, "newt");
    change(&mut evidence);
    walk.answer(Effect::Evidence(key(OLD), act), Ok(Finding::Evidence(Box::new(evidence))))
}

fn illegal(walk: &Walk, event: Event) {
    assert!(walk.state.clone().apply(&event, &walk.now).is_err(), "{event:?}");
}

fn begun(key_id: &str) -> [Event; 3] {
    [
        Event::DisableBegun { key: key(key_id), evidence: String::new() },
        Event::Disabled { key: key(key_id) },
        Event::EnableBegun { key: key(key_id), why: String::new() },
    ]
}

#[test]
fn a_key_that_cannot_be_disabled_is_deleted_after_soak_and_watch_and_seen_gone_twice() {
    for shape in [Shape::Labelled, Shape::Slots, Shape::Derived] {
        let mut walk = soaking(shape);
        begun(OLD).into_iter().for_each(|event| illegal(&walk, event));
        walk.waits(MINUTE * 660);
        weighed(&mut walk, Act::Delete, |_| ());
        assert_eq!(walk.state.phase(), Some(Phase::Deleted), "there is no watch");
        illegal(&walk, Event::RollbackBegun { by: "test".into() });
        walk.answer(Effect::Delete(key(OLD)), Ok(Finding::Done));
        walk.answer(Effect::Absence(key(OLD)), Ok(listed(listing(&[NEW, "key1@9"]))));
        walk.waits(MINUTE * 10);
        walk.answer(Effect::Absence(key(OLD)), Ok(listed(listing(&[NEW, "key1@9"]))));
        assert_eq!(walk.step(), Step::Record(Event::Closed { outcome: Outcome::Done }));
    }
}

#[test]
fn a_deletion_that_cannot_be_undone_needs_the_current_key_probed_and_every_target_read() {
    let reason = |change: fn(&mut Evidence)| {
        let mut walk = soaking(Shape::Labelled);
        walk.pass(MINUTE * 660);
        let events = weighed(&mut walk, Act::Delete, change);
        assert!(!events.iter().any(|event| matches!(event, Event::DeleteBegun { .. })));
        walk.reason()
    };
    assert_eq!(reason(|seen| seen.probe = None), Some(Reason::SecretNotHeld));
    assert_eq!(reason(|seen| seen.probe = Some(Probe::NotYet("no".into()))), Some(Reason::CurrentKeyBroken));
    assert_eq!(reason(|seen| seen.readings.clear()), Some(Reason::OldKeyStillUsed));
    assert_eq!(reason(|seen| seen.readings[0].1 = tail("oldt")), Some(Reason::TargetChanged));
    assert_eq!(reason(|seen| seen.account = AccountIdentity::new("aws:2")), Some(Reason::AccountChanged));
}

#[test]
fn a_key_that_is_not_ours_and_cannot_be_disabled_waits_for_a_word() {
    let mut walk = soaking(Shape::Labelled);
    walk.state.leaving.get_mut(&key(OLD)).expect("it leaves").ours = false;
    illegal(&walk, Event::DeleteBegun { key: key(OLD), evidence: String::new() });
    walk.pass(MINUTE * 660);
    let Step::Record(halt) = walk.step() else { panic!("{:?}", walk.step()) };
    walk.record(halt);
    assert_eq!(walk.reason(), Some(Reason::AdoptNeeded));
}

#[test]
fn a_compromised_key_that_cannot_be_disabled_waits_for_no_watch() {
    let mut walk = minting(Shape::Labelled);
    walk.state.rotation.as_mut().expect("open").cause = Cause::Operator { by: "test".into(), compromised: true };
    walk.answer(Effect::Mint(intent()), Ok(minted()));
    walk.pass(MINUTE);
    walk.answer(Effect::Probe(key(NEW)), Ok(Finding::Probe(Probe::Works)));
    walk.pass(MINUTE);
    walk.answer(Effect::Probe(key(NEW)), Ok(Finding::Probe(Probe::Works)));
    walk.push("a", "newt");
    assert_eq!(walk.step(), Step::Run(Effect::Evidence(key(OLD), Act::Delete)));
}

#[test]
fn a_deletion_is_illegal_while_a_target_may_hold_the_key() {
    let mut walk = soaking(Shape::Slots);
    walk.state.may_hold.entry(TargetName::new("b")).or_default().insert(key(OLD));
    illegal(&walk, Event::DeleteBegun { key: key(OLD), evidence: String::new() });
    walk.pass(MINUTE * 660);
    weighed(&mut walk, Act::Delete, |_| ());
    assert_eq!(walk.reason(), Some(Reason::OldKeyStillUsed));
}

#[test]
fn the_mint_of_a_named_key_is_sent_again_until_it_answers_or_is_refused() {
    let mut walk = minting(Shape::ClientNamed);
    for event in walk.state.recover() {
        walk.record(event);
    }
    let refused = Fault::Refused { reason: Reason::Quota, why: "full".into() };
    for fault in [
        Fault::NotSent("refused".into()),
        Fault::Unknown("no answer".into()),
        Fault::Retry { after: None, why: "busy".into() },
    ] {
        assert_eq!(walk.answer(Effect::Mint(intent()), Err(fault)), vec![]);
    }
    walk.answer(Effect::Mint(intent()), Err(refused));
    assert_eq!(walk.reason(), Some(Reason::Quota));
    assert_eq!(walk.state.phase(), Some(Phase::Minting), "an earlier request may have made the key");
    walk.record(Event::Retried { by: "test".into() });
    walk.waits(MINUTE * 10);
    walk.answer(Effect::SettleMint, seen(&[OLD], "oldt"));
    assert_eq!(walk.state.phase(), Some(Phase::Opened), "no key has that name, and none can get it any more");
}

#[test]
fn the_key_of_a_mint_under_way_is_no_stranger() {
    let mut walk = minting(Shape::ClientNamed);
    walk.answer(Effect::Mint(intent()), unknown());
    let mut found = listing(&[OLD, NEW]);
    found.keys[1].intent = Some(intent());
    assert_eq!(walk.state.strangers_in(&found, None, &walk.now), vec![]);
    found.keys[1].intent = Some(IntentId::new("r0.1"));
    assert_eq!(walk.state.strangers_in(&found, None, &walk.now), vec![key(NEW)]);
}

fn labelled(labels: &[(&str, &str)], shown: &str) -> Walk {
    let mut walk = minting(Shape::Labelled);
    walk.answer(Effect::Mint(intent()), unknown());
    walk.waits(MINUTE * 10);
    let ids: Vec<&str> = [OLD].into_iter().chain(labels.iter().map(|(id, _)| *id)).collect();
    let mut found = listing(&ids);
    for (listed, (_, label)) in found.keys.iter_mut().skip(1).zip(labels) {
        listed.intent = Some(IntentId::new(*label));
    }
    let readings = vec![(a(), tail(shown))];
    let settled = Finding::Settled { account: account(), listing: found, uses: vec![], readings };
    walk.answer(Effect::SettleMint, Ok(settled));
    walk
}

#[test]
fn a_label_proves_whose_key_it_is() {
    let ours = labelled(&[(NEW, "r1.1"), ("theirs", "r0.7")], "oldt");
    assert_eq!(ours.step(), Step::Run(Effect::Evidence(key(NEW), Act::Delete)));
    assert_eq!(ours.state.strangers.iter().collect::<Vec<_>>(), [&key("theirs")]);
    let none = labelled(&[("theirs", "r0.7")], "oldt");
    assert_eq!((none.state.phase(), none.state.leaving.len()), (Some(Phase::Opened), 0));
    assert!(none.state.strangers.contains(&key("theirs")));
    let moved = labelled(&[(NEW, "r1.1")], "else");
    assert_eq!(moved.reason(), Some(Reason::MintUnsettled), "the target may hold that very key");
    assert!(moved.state.strangers.contains(&key(NEW)), "an operator can settle it");
}

#[test]
fn a_mint_in_slots_replaces_the_idle_key_and_no_other() {
    let mut walk = walk(Shape::Slots);
    assert!(matches!(walk.survey(&[OLD, IDLE])[..], [Event::Opened { .. }]), "a full listing is no quota");
    let replacing = |idle: Option<&str>| Event::MintBegun {
        intent: intent(),
        before: vec![key(OLD), key(IDLE)],
        replaces: idle.map(key),
    };
    for idle in [None, Some(OLD), Some("key3@0")] {
        illegal(&walk, replacing(idle));
    }
    let mut held = walk.state.clone();
    held.may_hold.entry(TargetName::new("b")).or_default().insert(key(IDLE));
    assert!(held.apply(&replacing(Some(IDLE)), &walk.now).is_err(), "a target may hold it");
    let events = walk.answer(Effect::PlanMint, slots(&[OLD, IDLE], "oldt"));
    assert_eq!(events, vec![replacing(Some(IDLE))]);
}

#[test]
fn a_slot_that_is_not_ours_alone_holds_a_stranger() {
    let mut walk = walk(Shape::Slots);
    walk.exclusive = false;
    walk.survey(&[OLD, IDLE]);
    assert_eq!(walk.reason(), Some(Reason::Stranger));
}

#[test]
fn no_slot_is_idle_where_the_current_key_is_in_none() {
    let mut walk = walk(Shape::Slots);
    walk.survey(&[OLD, IDLE]);
    walk.answer(Effect::PlanMint, slots(&["key1@9", IDLE], "oldt"));
    assert_eq!(walk.reason(), Some(Reason::CurrentKeyBroken));
}

/// `exclusive` says that both keys are ours to manage, and nobody has said which of them nobody uses.
#[test]
fn a_service_that_moves_into_slots_waits_for_a_word() {
    let mut walk = walk(Shape::Slots);
    walk.state.home = walk.state.home.take().map(|home| IssuerSpec { object: "aws-iam:main:before".into(), ..home });
    walk.survey(&["key1@0", IDLE]);
    assert_eq!((walk.reason(), walk.state.rotation.is_none()), (Some(Reason::PolicyMismatch), true));
}

#[test]
fn no_slot_is_guessed_at_on_first_contact() {
    let mut walk = walk(Shape::Derived);
    walk.state = ServiceState::default();
    let issuer = Box::new(walk.snapshot("oldt").issuer);
    let uses = vec![(key(OLD), LastUse::At { at: walk.now.wall, by: "blob".into() })];
    let readings = vec![];
    let found = Finding::FirstContact { issuer, account: account(), listing: listing(&[OLD]), uses, readings };
    walk.feed(Effect::FirstContact, Ok(found));
    assert_eq!(walk.reason(), Some(Reason::NoCurrentKey));
}

#[test]
fn nothing_is_minted_into_a_slot_that_a_target_was_moved_to_by_hand() {
    let mut walk = walk(Shape::Slots);
    walk.survey(&[OLD, IDLE]);
    walk.answer(Effect::PlanMint, slots(&[OLD, IDLE], "idle"));
    assert_eq!(walk.reason(), Some(Reason::TargetChanged));
}

/// The provider shows what is in the slots, so a copy of the idle key in the same deployment can be told by its end.
#[test]
fn nothing_is_minted_into_a_slot_whose_key_another_place_shows() {
    let planned = |shown: &str, idle_end: Option<&str>| {
        let mut walk = walk(Shape::Slots);
        walk.survey(&[OLD, IDLE]);
        let mut listing = listing(&[OLD, IDLE]);
        listing.keys[1].tail = idle_end.map(Tail::new);
        let others = Others { shown: vec![("arcgis:prod:other".into(), tail(shown))], unread: vec![] };
        walk.answer(Effect::PlanMint, slots_beside(listing, "oldt", others));
        walk
    };
    let used = planned("idle", Some("idle"));
    assert_eq!(used.reason(), Some(Reason::TargetChanged));
    let said = used.state.halt.as_ref().map(|halt| halt.message.clone()).unwrap_or_default();
    assert!(said.contains("arcgis:prod:other is no target of this service and shows the end of idle key"), "{said}");
    assert_eq!(planned("else", Some("idle")).reason(), None);
    assert_eq!(planned("idle", None).reason(), None, "an issuer that shows no secrets tells nothing");
    // Where the current key ends so too, either may be what it holds.
    assert_eq!(planned("oldt", Some("oldt")).reason(), Some(Reason::TargetChanged));
}

#[test]
fn a_lost_mint_in_slots_is_settled_by_what_its_slot_holds() {
    let lost = |ids: &[&str], shown: &str| {
        let mut walk = minting(Shape::Slots);
        walk.answer(Effect::Mint(intent()), unknown());
        walk.waits(MINUTE * 10);
        walk.answer(Effect::SettleMint, seen(ids, shown));
        walk
    };
    let mut nothing = lost(&[OLD, IDLE], "oldt");
    let events = nothing.answer(Effect::PlanMint, slots(&[OLD, IDLE], "oldt"));
    assert!(matches!(&events[..], [Event::MintBegun { replaces: Some(idle), .. }] if *idle == key(IDLE)));
    let mut made = lost(&[OLD, OTHER], "oldt");
    let events = made.answer(Effect::PlanMint, slots(&[OLD, OTHER], "oldt"));
    assert!(matches!(&events[..], [Event::MintBegun { replaces: Some(idle), .. }] if *idle == key(OTHER)));
    let mut moved = lost(&[OLD, OTHER], "else");
    assert_eq!(moved.reason(), Some(Reason::MintUnsettled));
    moved.record(Event::Disowned { key: key(OTHER), by: "test".into() });
    assert_eq!((moved.reason(), moved.step()), (None, Step::Run(Effect::SettleMint)));
}

#[test]
fn no_mint_goes_into_slots_while_a_deletion_may_still_empty_one() {
    let mut walk = walk(Shape::Slots);
    let place = walk.snapshot("oldt");
    walk.state.leave_from(&key("key2@1"), Why::Debt, &walk.now, Duration::ZERO, Duration::ZERO, Some(place));
    walk.survey(&[OLD, "key2@1"]);
    assert_eq!((walk.state.rotation.is_none(), walk.reason()), (true, None), "the slot is free when the debt is gone");
    for stage in [Stage::Deleting(walk.now.clone()), Stage::Deleted(walk.now.clone()), Stage::Absent(walk.now.clone())]
    {
        let mut walk = Walk { state: walk.state.clone(), now: walk.now.clone(), targets: vec!["a"], ..walk };
        walk.state.leaving.get_mut(&key("key2@1")).expect("it leaves").stage = stage;
        walk.survey(&[OLD, IDLE]);
        assert_eq!((walk.state.rotation.is_none(), walk.reason()), (true, None), "the filler may be replaced late");
    }
}

#[test]
fn a_mint_in_slots_that_was_held_up_is_planned_again() {
    let mut walk = minting(Shape::Slots);
    walk.pass(MINUTE * 6);
    let Step::Record(failed @ Event::MintFailed { .. }) = walk.step() else { panic!("{:?}", walk.step()) };
    walk.record(failed);
    assert_eq!(walk.step(), Step::Run(Effect::PlanMint));
}

fn disabling() -> Walk {
    let mut walk = Walk::soaked();
    weighed(&mut walk, Act::Disable, |_| ());
    walk
}

#[test]
fn a_key_put_back_is_enabled_again_when_no_lost_disable_can_hit_it_any_more() {
    let mut walk = disabling();
    walk.answer(Effect::Disable(key(OLD)), unknown());
    walk.record(Event::RollbackBegun { by: "test".into() });
    walk.answer(Effect::Enable(key(OLD)), Ok(Finding::Done));
    illegal(&walk, Event::PushBegun { target: a(), key: key(OLD), jobs: vec![], derived: None, until: None });
    illegal(&walk, Event::Enabled { key: key(OLD) });
    walk.waits(MINUTE * 10);
    walk.answer(Effect::Enable(key(OLD)), Ok(Finding::Done));
    let Finding::BeforePush { probe, reading, jobs, mut listing, .. } = before_push("newt") else { unreachable!() };
    listing.keys[0].active = false;
    let inactive = Finding::BeforePush { probe, reading, jobs, listing, derived: None, until: None };
    assert_eq!(walk.answer(Effect::BeforePush(a()), Ok(inactive)), vec![], "it must be seen active");
    walk.answer(Effect::BeforePush(a()), Ok(before_push("newt")));
    assert_eq!(walk.step(), Step::Run(Effect::Push(a())));
}

#[test]
fn a_rescued_key_is_enabled_at_once_and_again_even_under_the_halt() {
    let mut walk = disabling();
    walk.answer(Effect::Disable(key(OLD)), unknown());
    walk.record(Event::EnableBegun { key: key(OLD), why: "the consumer fails".into() });
    walk.answer(Effect::Enable(key(OLD)), Ok(Finding::Done));
    assert_eq!(walk.reason(), Some(Reason::Unhealthy));
    walk.waits(MINUTE * 10);
    let mut put_back = walk.state.clone();
    put_back.apply(&Event::RollbackBegun { by: "test".into() }, &walk.now).expect("it waits");
    assert_eq!(put_back.step(&walk.now), Step::Run(Effect::Enable(key(OLD))), "the disable may have come in between");
    walk.answer(Effect::Enable(key(OLD)), Ok(Finding::Done));
    assert_eq!((walk.step(), walk.reason()), (Step::Rest, Some(Reason::Unhealthy)));
}

#[test]
fn a_key_whose_deletion_may_be_carried_out_late_does_not_come_back() {
    let mut walk = disabling();
    walk.answer(Effect::Disable(key(OLD)), Ok(Finding::Done));
    walk.pass(MINUTE * 60);
    weighed(&mut walk, Act::Delete, |_| ());
    walk.answer(Effect::Delete(key(OLD)), unknown());
    walk.pass(MINUTE * 6);
    weighed(&mut walk, Act::Delete, |seen| seen.listing.keys[0].active = true);
    assert_eq!(walk.reason(), Some(Reason::EnabledAgain));
    walk.record(Event::Retried { by: "test".into() });
    let back = Event::RollbackBegun { by: "test".into() };
    illegal(&walk, back.clone());
    walk.pass(MINUTE * 10);
    walk.record(back);
}

#[test]
fn a_rollback_waits_until_a_lost_push_of_the_newer_key_must_be_over() {
    let mut walk = Walk::new(&["a"]);
    walk.get_ready();
    walk.answer(Effect::BeforePush(a()), Ok(before_push("oldt")));
    walk.answer(Effect::Push(a()), unknown());
    illegal(&walk, Event::RollbackBegun { by: "test".into() });
    walk.answer(Effect::SettlePush(a()), Ok(Finding::Jobs(vec![])));
    walk.answer(Effect::ReadBack(a()), Ok(Finding::Reading(tail("oldt"))));
    walk.record(Event::RollbackBegun { by: "test".into() });
    illegal(&walk, Event::PushBegun { target: a(), key: key(OLD), jobs: vec![], derived: None, until: None });
    assert!(walk.state.may_hold[&a()].contains(&key(NEW)));
    walk.waits(MINUTE * 120);
    walk.answer(Effect::BeforePush(a()), Ok(before_push("oldt")));
}

fn adopted(id: &str, shown: Reading) -> Event {
    Event::Adopted {
        key: key(id),
        created: None,
        by: AdoptedBy::Operator("test".into()),
        readings: vec![(a(), shown)],
        account: Some(account()),
        issuer: Some(Box::new(issuer())),
        tail: None,
        derived: Vec::new(),
    }
}

#[test]
fn a_key_that_another_was_adopted_for_soaks_first_and_may_be_adopted_back() {
    let mut walk = Walk::new(&["a"]);
    walk.record(adopted("AKIANEXT", tail("next")));
    assert_eq!(walk.step(), Step::Wait(MINUTE * 1440), "no rotation tells how long");
    assert_eq!(walk.state.debts(&walk.now), vec![]);
    walk.record(adopted(OLD, tail("next")));
    assert!(walk.state.leaving.contains_key(&key(OLD)), "the target shows another: only a word about the old key");
    walk.record(adopted(OLD, tail("oldt")));
    assert_eq!(walk.state.current.as_ref().map(|current| current.key.clone()), Some(key(OLD)));
    assert_eq!(walk.state.leaving.keys().collect::<Vec<_>>(), [&key("AKIANEXT")]);
    assert_eq!(walk.state.may_hold[&a()], [key(OLD)].into());
}

#[test]
fn a_target_that_left_the_policy_before_another_key_was_adopted_is_asked_about() {
    let mut walk = Walk::new(&["a", "b"]);
    walk.targets = vec!["a"];
    walk.record(adopted(NEW, tail("newt")));
    walk.pass(MINUTE * 1440);
    weighed(&mut walk, Act::Disable, |_| ());
    assert_eq!(walk.reason(), Some(Reason::OldKeyStillUsed));
    walk.record(Event::DespiteUseOrdered { by: "test".into() });
    weighed(&mut walk, Act::Disable, |_| ());
    assert_eq!(walk.step(), Step::Run(Effect::Disable(key(OLD))));
}

#[test]
fn an_adoption_that_ends_a_rotation_remembers_a_push_that_was_lost() {
    let mut walk = Walk::new(&["a"]);
    walk.get_ready();
    walk.answer(Effect::BeforePush(a()), Ok(before_push("oldt")));
    walk.answer(Effect::Push(a()), unknown());
    walk.answer(Effect::SettlePush(a()), Ok(Finding::Jobs(vec![])));
    walk.answer(Effect::ReadBack(a()), Ok(Finding::Reading(tail("oldt"))));
    walk.answer(Effect::BeforePush(a()), Ok(before_push("what")));
    assert_eq!(walk.reason(), Some(Reason::TargetChanged));
    walk.record(adopted("AKIANEXT", tail("what")));
    assert_eq!(walk.state.may_hold[&a()], [key(NEW), key("AKIANEXT")].into());
    assert_eq!(walk.step(), Step::Wait(MINUTE * 6000), "the longer soak");
}

#[test]
fn a_rotation_is_not_abandoned_while_a_mint_is_unknown() {
    let mut walk = minting(Shape::ClientNamed);
    walk.answer(Effect::Mint(intent()), unknown());
    let holds = Some(key(OLD));
    illegal(&walk, Event::Closed { outcome: Outcome::Abandoned { by: "test".into(), holds } });
}

#[test]
fn a_secret_that_is_lacking_for_a_deletion_comes_with_an_operators_word() {
    let mut walk = minting(Shape::Labelled);
    walk.answer(Effect::Mint(intent()), Ok(minted()));
    walk.record(Event::UndoBegun { reason: Reason::ProbeFailed, why: "test".into() });
    let mut evidence = walk.evidence(LastUse::Untold, "oldt");
    evidence.probe = None;
    walk.answer(Effect::Evidence(key(NEW), Act::Delete), Ok(Finding::Evidence(Box::new(evidence))));
    let next = walk.state.next_command(&ServiceName::new("store"), crate::rotation::TakeUp::Reload);
    assert_eq!(next.as_deref(), Some("rekeyd adopt store AKIAOLD --secret-file FILE"));
    walk.record(adopted(OLD, tail("oldt")));
    assert_eq!((walk.reason(), walk.step()), (None, Step::Run(Effect::Evidence(key(NEW), Act::Delete))));
}

/// A rotation in slots that is done, the next one opened on what the issuer shows then.
fn after_a_rotation(filled: &str, made: TimeDelta, date: Option<TimeDelta>) -> Walk {
    let mut walk = soaking(Shape::Slots);
    walk.waits(MINUTE * 660);
    weighed(&mut walk, Act::Delete, |_| ());
    walk.answer(Effect::Delete(key(OLD)), Ok(Finding::Done));
    let deleted = walk.now.wall;
    walk.answer(Effect::Absence(key(OLD)), Ok(listed(listing(&[NEW, "key1@9"]))));
    walk.waits(MINUTE * 10);
    walk.answer(Effect::Absence(key(OLD)), Ok(listed(listing(&[NEW, "key1@9"]))));
    walk.record(Event::Closed { outcome: Outcome::Done });
    let mut found = listing(&[NEW, filled]);
    found.keys[1].created = Some(deleted + made);
    found.date = date.map(|ahead| walk.now.wall + ahead);
    let snapshot = Box::new(walk.snapshot("newt"));
    walk.feed(Effect::Survey, Ok(Finding::Survey { snapshot, listing: found }));
    walk
}

#[test]
fn a_slot_is_idle_only_by_what_we_did_to_it() {
    let ours = after_a_rotation("key1@9", TimeDelta::seconds(2), None);
    assert_eq!(ours.state.phase(), Some(Phase::Opened));
    let theirs = after_a_rotation("key1@12", TimeDelta::minutes(5), None);
    assert_eq!(theirs.reason(), Some(Reason::Stranger), "it was seen gone since, which explains no other key");
    assert!(theirs.state.strangers.contains(&key("key1@12")));
}

#[test]
fn when_a_slot_was_filled_is_told_by_the_providers_clock() {
    let ahead = TimeDelta::minutes(4);
    let ours = after_a_rotation("key1@9", ahead, Some(ahead));
    assert_eq!(ours.state.phase(), Some(Phase::Opened));
    let theirs = after_a_rotation("key1@12", TimeDelta::seconds(2), Some(-ahead));
    assert_eq!(theirs.reason(), Some(Reason::Stranger));
}
