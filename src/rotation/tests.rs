//! Walks of the machine: each step asserted, each finding fed by hand. The exhaustive walks belong to the simulator.

use std::time::Duration;

use chrono::TimeDelta;

use super::event::{AdoptedBy, Cause, Event, Outcome, RotationKind, Snapshot, SnapshotTarget};
use super::*;
use crate::model::*;

mod chance;
mod derived;
mod hardships;
mod shapes;
mod switch;
mod walk;

use walk::*;

const OLD: &str = "AKIAOLD";
const NEW: &str = "AKIANEW";
const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn a_rotation_goes_from_old_key_to_new_and_leaves_one() {
    let mut walk = Walk::new(&["a"]);
    assert_eq!(walk.step(), Step::Rest);
    walk.get_ready();
    let verified = walk.push("a", "newt");
    assert_eq!(verified, vec![Event::Verified { target: TargetName::new("a"), proven: true }]);
    assert_eq!(walk.state.phase(), Some(Phase::Soaking));
    assert_eq!(walk.state.current.as_ref().map(|current| current.key.clone()), Some(key(NEW)));

    walk.waits(MINUTE * 600);
    walk.disable_old();
    assert_eq!(walk.state.phase(), Some(Phase::Disabled));
    walk.waits(MINUTE * 60);
    let evidence = walk.evidence(LastUse::Never, "newt");
    walk.answer(Effect::Evidence(key(OLD), Act::Delete), Ok(Finding::Evidence(Box::new(evidence))));
    walk.answer(Effect::Delete(key(OLD)), Ok(Finding::Done));
    walk.answer(Effect::Absence(key(OLD)), Ok(listed(listing(&[NEW]))));
    walk.waits(MINUTE * 10);
    walk.answer(Effect::Absence(key(OLD)), Ok(listed(listing(&[NEW]))));
    assert_eq!(walk.step(), Step::Record(Event::Closed { outcome: Outcome::Done }));
    assert_eq!(walk.state.phase(), Some(Phase::Deleted), "what is gone does not soak");
    walk.record(Event::Closed { outcome: Outcome::Done });
    assert_eq!(walk.state.tally.done, 1);
    assert_eq!(walk.step(), Step::Rest);
}

/// Across a boot only wall time tells, and at both ends of the wait it may be five minutes wrong; more than that is seen.
#[test]
fn the_horizon_of_a_lost_mint_is_longer_across_a_boot() {
    let mut walk = Walk::new(&["a"]);
    walk.survey(&[OLD]);
    walk.answer(Effect::PlanMint, Ok(listed(listing(&[OLD]))));
    walk.answer(Effect::Mint(IntentId::new("r1.1")), unknown());
    walk.pass(MINUTE * 10);
    (walk.now.boot, walk.now.boot_id) = (Duration::from_secs(60), "another".into());
    walk.waits(MINUTE * 10);
    assert_eq!(walk.step(), Step::Run(Effect::SettleMint));
    let apart = Listing { date: Some(walk.now.wall - TimeDelta::minutes(6)), ..listing(&[OLD]) };
    let looked = Finding::Settled { account: account(), listing: apart, uses: vec![], readings: vec![] };
    assert_eq!(walk.answer(Effect::SettleMint, Ok(looked)), vec![], "our clock may be far ahead of the true horizon");
}

#[test]
fn a_lost_mint_is_looked_for_and_never_sent_again_before_the_horizon() {
    let mut walk = Walk::new(&["a"]);
    walk.survey(&[OLD]);
    walk.answer(Effect::PlanMint, Ok(listed(listing(&[OLD]))));
    walk.answer(Effect::Mint(IntentId::new("r1.1")), unknown());
    walk.waits(MINUTE * 10);
    let looked = Finding::Settled { account: account(), listing: listing(&[OLD]), uses: vec![], readings: vec![] };
    walk.answer(Effect::SettleMint, Ok(looked));
    walk.answer(Effect::PlanMint, Ok(listed(listing(&[OLD]))));
    assert_eq!(walk.step(), Step::Run(Effect::Mint(IntentId::new("r1.2"))), "a new mint has a new intent");
}

#[test]
fn a_crash_in_the_mint_takes_the_road_of_a_lost_answer() {
    let mut walk = Walk::new(&["a"]);
    walk.survey(&[OLD]);
    walk.answer(Effect::PlanMint, Ok(listed(listing(&[OLD]))));
    for event in walk.state.recover() {
        walk.record(event);
    }
    assert_eq!(walk.step(), Step::Wait(MINUTE * 10));
}

#[test]
fn a_throttled_mint_is_settled_by_looking_like_any_other() {
    let mut walk = Walk::new(&["a"]);
    walk.survey(&[OLD]);
    walk.answer(Effect::PlanMint, Ok(listed(listing(&[OLD]))));
    let throttled = Err(Fault::Retry { after: None, why: "rate exceeded".into() });
    let events = walk.answer(Effect::Mint(IntentId::new("r1.1")), throttled);
    assert_eq!(events, vec![Event::MintUnknown { why: "rate exceeded".into() }]);
}

fn lost_mint(exclusive: bool, last_use: LastUse, shown: &str) -> Walk {
    let mut walk = Walk::new(&["a"]);
    walk.exclusive = exclusive;
    walk.survey(&[OLD]);
    walk.answer(Effect::PlanMint, Ok(listed(listing(&[OLD]))));
    let begun = walk.now.wall;
    walk.answer(Effect::Mint(IntentId::new("r1.1")), unknown());
    walk.waits(MINUTE * 10);
    let mut found = listing(&[OLD, NEW]);
    found.keys[1].created = Some(begun + TimeDelta::seconds(1));
    let readings = vec![(TargetName::new("a"), tail(shown))];
    let looked = Finding::Settled { account: account(), listing: found, uses: vec![(key(NEW), last_use)], readings };
    walk.answer(Effect::SettleMint, Ok(looked));
    walk
}

#[test]
fn a_key_found_after_a_lost_mint_is_destroyed_only_where_it_must_be_ours() {
    let walk = lost_mint(true, LastUse::Never, "oldt");
    assert_eq!(walk.step(), Step::Run(Effect::Evidence(key(NEW), Act::Disable)));
    let shared = lost_mint(false, LastUse::Never, "oldt");
    assert_eq!(shared.reason(), Some(Reason::MintUnsettled));
    let used = lost_mint(true, LastUse::At { at: shared.now.wall, by: "s3".into() }, "oldt");
    assert_eq!(used.reason(), Some(Reason::MintUnsettled), "a key in use is nobody's to destroy");
    let moved = lost_mint(true, LastUse::Never, "else");
    assert_eq!(moved.reason(), Some(Reason::MintUnsettled), "the target may hold that very key");
}

#[test]
fn an_operator_settles_the_candidates_of_a_lost_mint() {
    let mut walk = lost_mint(false, LastUse::Never, "oldt");
    walk.record(Event::Disowned { key: key(NEW), by: "test".into() });
    assert_eq!(walk.reason(), None);
    let looked = Finding::Settled { account: account(), listing: listing(&[OLD, NEW]), uses: vec![], readings: vec![] };
    walk.answer(Effect::SettleMint, Ok(looked));
    walk.answer(Effect::PlanMint, Ok(listed(listing(&[OLD, NEW]))));
    assert_eq!(walk.reason(), Some(Reason::Quota), "the disowned key still takes a slot");
}

#[test]
fn a_reclaimed_key_gives_its_slot_back_before_the_next_mint_wants_it() {
    let mut walk = lost_mint(false, LastUse::Never, "oldt");
    walk.record(Event::ReclaimOrdered { key: key(NEW), unused: true, by: "test".into(), issuer: None, account: None });
    let settled =
        Finding::Settled { account: account(), listing: listing(&[OLD, NEW]), uses: vec![], readings: vec![] };
    walk.answer(Effect::SettleMint, Ok(settled));
    assert_eq!(walk.state.phase(), Some(Phase::Opened));
    assert_eq!(
        walk.step(),
        Step::Run(Effect::Evidence(key(NEW), Act::Disable)),
        "both slots are taken until it is gone"
    );
    // An issuer that will not give it up holds up nothing for ever: there may be room all the same.
    walk.record(Event::RetireRefused { key: key(NEW), why: "denied".into() });
    assert!(walk.state.steps(&walk.now).contains(&Step::Run(Effect::PlanMint)));
}

#[test]
fn a_stranger_stops_the_rotation_before_anything_is_minted() {
    let mut walk = Walk::new(&["a"]);
    walk.survey(&[OLD, "AKIASTRANGER"]);
    assert_eq!(walk.reason(), Some(Reason::Stranger));
    assert_eq!(walk.state.rotation, None);
    let next = walk
        .state
        .next_command(&ServiceName::new("store"), crate::rotation::TakeUp::Reload)
        .expect("a stranger has a next command");
    assert!(next.contains("rekeyd reclaim store AKIASTRANGER"), "{next}");
}

#[test]
fn a_job_that_lies_is_pushed_again_and_then_the_new_key_is_taken_back() {
    let mut walk = Walk::new(&["a"]);
    walk.get_ready();
    for _ in 0..PUSH_ATTEMPTS_MAX {
        assert_eq!(walk.push("a", "oldt"), vec![], "the old key may be shown for a while");
        walk.pass(MINUTE * 2);
        let events = walk.answer(Effect::ReadBack(TargetName::new("a")), Ok(Finding::Reading(tail("oldt"))));
        assert_eq!(events, vec![Event::NotMoved { target: TargetName::new("a"), shows: Some(key(OLD)) }]);
    }
    let Step::Record(undo @ Event::UndoBegun { reason: Reason::PushFailed, .. }) = walk.step() else {
        panic!("{:?}", walk.step())
    };
    walk.record(undo);
    assert_eq!(walk.step(), Step::Run(Effect::Evidence(key(NEW), Act::Disable)));
    let evidence = walk.evidence(LastUse::Never, "oldt");
    walk.answer(Effect::Evidence(key(NEW), Act::Disable), Ok(Finding::Evidence(Box::new(evidence))));
    walk.answer(Effect::Disable(key(NEW)), Ok(Finding::Done));
    assert_eq!(walk.step(), Step::Run(Effect::Evidence(key(NEW), Act::Delete)));
    assert_eq!(walk.state.current.as_ref().map(|current| current.key.clone()), Some(key(OLD)));
}

#[test]
fn a_second_target_that_refuses_stops_between_with_both_keys_alive() {
    let mut walk = Walk::new(&["a", "b"]);
    walk.get_ready();
    walk.push("a", "newt");
    let b = TargetName::new("b");
    walk.answer(Effect::BeforePush(b.clone()), Ok(before_push("oldt")));
    let refused = Err(Fault::Refused { reason: Reason::Refused, why: "credential is invalid".into() });
    walk.answer(Effect::Push(b), refused);
    let Step::Record(halt) = walk.step() else { panic!("{:?}", walk.step()) };
    walk.record(halt);
    assert_eq!(walk.reason(), Some(Reason::StuckBetween));
    assert!(walk.state.leaving.is_empty());
    assert_eq!(walk.state.current.as_ref().map(|current| current.key.clone()), Some(key(OLD)));
}

#[test]
fn a_push_whose_answer_was_lost_is_sent_again_with_the_same_key_only() {
    let mut walk = Walk::new(&["a"]);
    walk.get_ready();
    let a = TargetName::new("a");
    walk.answer(Effect::BeforePush(a.clone()), Ok(before_push("oldt")));
    walk.answer(Effect::Push(a.clone()), unknown());
    walk.answer(Effect::SettlePush(a.clone()), Ok(Finding::Jobs(vec![])));
    walk.answer(Effect::ReadBack(a.clone()), Ok(Finding::Reading(tail("newt"))));
    assert_eq!(walk.step(), Step::Run(Effect::BeforePush(a.clone())), "no job vouches for it");
    assert!(walk.state.may_hold[&a].contains(&key(NEW)));
    walk.push("a", "newt");
    assert_eq!(walk.state.phase(), Some(Phase::Soaking));
}

#[test]
fn a_stranger_credential_at_the_target_is_never_overwritten() {
    let mut walk = Walk::new(&["a"]);
    walk.get_ready();
    walk.answer(Effect::BeforePush(TargetName::new("a")), Ok(before_push("what")));
    assert_eq!(walk.reason(), Some(Reason::TargetChanged));
    assert_eq!(walk.step(), Step::Rest);
}

#[test]
fn equal_tails_cannot_tell_and_earn_the_longer_soak() {
    let mut walk = Walk::new(&["a"]);
    walk.survey(&[OLD]);
    walk.answer(Effect::PlanMint, Ok(listed(listing(&[OLD]))));
    let twin = Finding::Minted { key: key(NEW), created: None, tail: Some(Tail::new("oldt")) };
    walk.answer(Effect::Mint(IntentId::new("r1.1")), Ok(twin));
    walk.waits(MINUTE);
    walk.answer(Effect::Probe(key(NEW)), Ok(Finding::Probe(Probe::Works)));
    walk.waits(Duration::from_secs(5));
    walk.answer(Effect::Probe(key(NEW)), Ok(Finding::Probe(Probe::Works)));
    let verified = walk.push("a", "oldt");
    assert_eq!(verified, vec![Event::Verified { target: TargetName::new("a"), proven: false }]);
    assert!(walk.state.may_hold[&TargetName::new("a")].contains(&key(OLD)));
    assert_eq!(walk.step(), Step::Wait(MINUTE * 6000));
}

#[test]
fn an_old_key_in_use_is_not_disabled_until_an_operator_says_so() {
    let mut walk = Walk::soaked();
    let used = LastUse::At { at: walk.now.wall - TimeDelta::hours(5), by: "s3 us-east-1".into() };
    let evidence = walk.evidence(used.clone(), "newt");
    walk.answer(Effect::Evidence(key(OLD), Act::Disable), Ok(Finding::Evidence(Box::new(evidence))));
    assert_eq!(walk.reason(), Some(Reason::OldKeyStillUsed));
    assert!(walk.state.halt.as_ref().is_some_and(|halt| halt.message.contains("s3 us-east-1")));
    walk.record(Event::DespiteUseOrdered { by: "test".into() });
    let evidence = walk.evidence(used, "newt");
    walk.answer(Effect::Evidence(key(OLD), Act::Disable), Ok(Finding::Evidence(Box::new(evidence))));
    assert_eq!(walk.step(), Step::Run(Effect::Disable(key(OLD))));
}

#[test]
fn evidence_is_weighed_before_every_act() {
    let weighed = |change: fn(&mut Evidence)| {
        let mut walk = Walk::soaked();
        let mut evidence = walk.evidence(LastUse::Never, "newt");
        change(&mut evidence);
        let found = Ok(Finding::Evidence(Box::new(evidence)));
        let events = walk.answer(Effect::Evidence(key(OLD), Act::Disable), found);
        (events.iter().any(|event| matches!(event, Event::DisableBegun { .. })), walk.reason())
    };
    assert_eq!(weighed(|_| ()), (true, None));
    assert_eq!(weighed(|seen| seen.account = AccountIdentity::new("aws:2")), (false, Some(Reason::AccountChanged)));
    assert_eq!(weighed(|seen| seen.readings[0].1 = tail("oldt")), (false, Some(Reason::TargetChanged)));
    assert_eq!(weighed(|seen| seen.readings[0].1 = tail("else")), (false, Some(Reason::TargetChanged)));
    assert_eq!(weighed(|seen| seen.listing.keys[1].active = false), (false, Some(Reason::CurrentKeyBroken)));
    assert_eq!(weighed(|seen| seen.probe = Some(Probe::Wrong("no".into()))), (false, Some(Reason::CurrentKeyBroken)));
    assert_eq!(
        weighed(|seen| seen.listing.date = seen.listing.date.map(|date| date + TimeDelta::hours(1))),
        (false, None)
    );
}

#[test]
fn stale_evidence_is_gathered_anew_before_the_order_is_sent() {
    let mut walk = Walk::soaked();
    let evidence = walk.evidence(LastUse::Never, "newt");
    walk.answer(Effect::Evidence(key(OLD), Act::Disable), Ok(Finding::Evidence(Box::new(evidence))));
    assert_eq!(walk.step(), Step::Run(Effect::Disable(key(OLD))));
    walk.pass(MINUTE * 6);
    assert_eq!(walk.step(), Step::Run(Effect::Evidence(key(OLD), Act::Disable)));
}

#[test]
fn a_rollback_enables_the_old_key_before_it_is_pushed_back() {
    let mut walk = Walk::disabled();
    walk.pass(MINUTE * 10);
    walk.record(Event::RollbackBegun { by: "test".into() });
    walk.answer(Effect::Enable(key(OLD)), Ok(Finding::Done));
    let a = TargetName::new("a");
    walk.answer(Effect::BeforePush(a.clone()), Ok(before_push("newt")));
    walk.answer(Effect::Push(a.clone()), Ok(Finding::Receipt(Receipt { job: None })));
    walk.answer(Effect::ReadBack(a), Ok(Finding::Reading(tail("oldt"))));
    assert_eq!(walk.state.current.as_ref().map(|current| current.key.clone()), Some(key(OLD)));
    assert!(walk.state.leaving.contains_key(&key(NEW)));
}

#[test]
fn a_journal_behind_the_world_halts_and_destroys_nothing() {
    let mut walk = Walk::new(&["a"]);
    let mut ahead = listing(&["AKIANEXT"]);
    ahead.keys[0].created = Some(walk.now.wall + TimeDelta::days(3));
    walk.pass(MINUTE * 60 * 24 * 7);
    let snapshot = Box::new(walk.snapshot("what"));
    walk.feed(Effect::Survey, Ok(Finding::Survey { snapshot, listing: ahead }));
    assert_eq!(walk.reason(), Some(Reason::JournalBehind));
    assert_eq!(
        walk.state.next_command(&ServiceName::new("store"), crate::rotation::TakeUp::Reload).as_deref(),
        Some("rekeyd adopt store AKIANEXT, if that is the key the targets use now")
    );
}

#[test]
fn a_key_taken_on_by_itself_is_disabled_and_then_waits_for_a_word() {
    let mut walk = Walk::new(&["a"]);
    walk.state = ServiceState::default();
    let at = walk.now.wall - TimeDelta::hours(1);
    let found = Finding::FirstContact {
        issuer: Box::new(issuer()),
        account: AccountIdentity::new("aws:1"),
        listing: listing(&[OLD]),
        uses: vec![(key(OLD), LastUse::At { at, by: "s3".into() })],
        readings: vec![(TargetName::new("a"), tail("oldt"))],
    };
    walk.feed(Effect::FirstContact, Ok(found));
    walk.soak();
    walk.disable_old();
    walk.pass(MINUTE * 60);
    let Step::Record(halt) = walk.step() else { panic!("{:?}", walk.step()) };
    walk.record(halt);
    assert_eq!(walk.reason(), Some(Reason::AdoptNeeded));
    walk.record(Event::Adopted {
        key: key(OLD),
        created: None,
        by: AdoptedBy::Operator("test".into()),
        readings: vec![],
        account: None,
        issuer: None,
        tail: None,
        derived: Vec::new(),
    });
    assert_eq!(walk.step(), Step::Run(Effect::Evidence(key(OLD), Act::Delete)));
    assert_eq!(walk.state.current.as_ref().map(|current| current.key.clone()), Some(key(NEW)));
}

#[test]
fn a_service_without_a_key_is_not_guessed_at() {
    for listed in [&[][..], &[OLD, NEW][..]] {
        let mut walk = Walk::new(&["a"]);
        walk.state = ServiceState::default();
        let found = Finding::FirstContact {
            issuer: Box::new(issuer()),
            account: AccountIdentity::new("aws:1"),
            listing: listing(listed),
            uses: vec![],
            readings: vec![],
        };
        walk.feed(Effect::FirstContact, Ok(found));
        assert_eq!(walk.reason(), Some(Reason::NoCurrentKey));
    }
}

#[test]
fn illegal_events_are_refused_and_change_nothing() {
    let mut walk = Walk::new(&["a"]);
    let before = walk.state.clone();
    let illegal = [
        Event::Minted { key: key(NEW), created: None, tail: None },
        Event::MintUnknown { why: "x".into() },
        Event::DisableBegun { key: key(OLD), evidence: String::new() },
        Event::Disabled { key: key(OLD) },
        Event::DeleteBegun { key: key(OLD), evidence: String::new() },
        Event::Gone { key: key(OLD) },
        Event::Closed { outcome: Outcome::Done },
        Event::Verified { target: TargetName::new("a"), proven: true },
        Event::RollbackBegun { by: "test".into() },
        Event::Disowned { key: key(OLD), by: "test".into() },
    ];
    for event in illegal {
        assert!(walk.state.apply(&event, &walk.now).is_err(), "{event:?}");
    }
    assert_eq!(walk.state, before);
}

#[test]
fn a_key_a_target_may_hold_cannot_be_disabled_or_taken_back() {
    let mut walk = Walk::new(&["a"]);
    walk.get_ready();
    let a = TargetName::new("a");
    walk.answer(Effect::BeforePush(a.clone()), Ok(before_push("oldt")));
    let undo = Event::UndoBegun { reason: Reason::PushFailed, why: String::new() };
    assert!(walk.state.apply(&undo, &walk.now).is_err(), "the push may be under way");
    walk.answer(Effect::Push(a), Err(Fault::NotSent("refused".into())));
    assert!(walk.state.apply(&undo, &walk.now).is_ok());
}

#[test]
fn a_clock_set_forward_shortens_no_soak() {
    let mut walk = Walk::new(&["a"]);
    walk.get_ready();
    walk.push("a", "newt");
    walk.now.wall += TimeDelta::days(3650);
    assert_eq!(walk.step(), Step::Wait(MINUTE * 600));
}

#[test]
fn a_login_that_was_refused_keeps_the_key_and_waits_for_the_operator() {
    let mut walk = Walk::new(&["a"]);
    walk.get_ready();
    let a = TargetName::new("a");
    walk.answer(Effect::BeforePush(a.clone()), Ok(before_push("oldt")));
    walk.answer(Effect::Push(a.clone()), Err(Fault::Refused { reason: Reason::LoginRefused, why: "no".into() }));
    assert_eq!(walk.reason(), Some(Reason::LoginRefused));
    walk.record(Event::Retried { by: "test".into() });
    assert_eq!(walk.step(), Step::Run(Effect::BeforePush(a)));
}

#[test]
fn a_consumer_that_fails_twice_after_the_push_gets_the_old_key_back() {
    let fails = |walk: &mut Walk, held: bool, tries: u32| {
        let targets = vec![(TargetName::new("a"), Health::Bad("status 500".into()))];
        let around = Circumstances {
            cause: Cause::Timetable,
            kind: RotationKind::Fresh,
            fresh_id: RotationId::new("r2"),
            tries,
            push_on_drift: false,
            derived: Vec::new(),
        };
        let found = Ok(Finding::Health { targets, old_is_held: held });
        let events = walk.state.conclude(&Effect::Health, found, &walk.now, &around).events;
        for event in &events {
            walk.record(event.clone());
        }
        events.len()
    };
    let deployed = || {
        let mut walk = Walk::new(&["a"]);
        walk.get_ready();
        walk.push("a", "newt");
        walk
    };
    let mut held = deployed();
    assert_eq!(fails(&mut held, true, 0), 0, "once is chance");
    assert_eq!(fails(&mut held, true, 1), 1);
    assert!(matches!(held.state.rotation.map(|rotation| rotation.course), Some(Course::RollingBack { .. })));

    let mut disabled = deployed();
    disabled.pass(MINUTE * 600);
    let evidence = disabled.evidence(LastUse::Never, "newt");
    disabled.answer(Effect::Evidence(key(OLD), Act::Disable), Ok(Finding::Evidence(Box::new(evidence))));
    disabled.answer(Effect::Disable(key(OLD)), Ok(Finding::Done));
    assert_eq!(fails(&mut disabled, false, 1), 1);
    disabled.answer(Effect::Enable(key(OLD)), Ok(Finding::Done));
    assert_eq!(disabled.reason(), Some(Reason::Unhealthy));
    assert_eq!(disabled.state.leaving[&key(OLD)].stage, Stage::Waiting);
}

#[test]
fn a_target_that_shows_nothing_of_its_own_is_not_said_to_hold_the_adopted_key() {
    let mut walk = Walk::new(&[]);
    let readings = vec![(TargetName::new("inherits"), Reading::Nothing), (TargetName::new("a"), tail("oldt"))];
    let by = AdoptedBy::Operator("test".into());
    walk.record(Event::Adopted {
        key: key(OLD),
        created: None,
        by,
        readings,
        account: None,
        issuer: None,
        tail: None,
        derived: Vec::new(),
    });
    assert_eq!(walk.state.may_hold.keys().map(TargetName::as_str).collect::<Vec<_>>(), ["a"]);
}
