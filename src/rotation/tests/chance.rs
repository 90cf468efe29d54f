//! What random histories found: sequences that nobody would think of, and that broke a promise or led into a dead end.

use super::*;

fn adopted(id: &str, reading: Reading, end: Option<&str>) -> Event {
    Event::Adopted {
        key: key(id),
        created: None,
        by: AdoptedBy::Operator("test".into()),
        readings: vec![(a(), reading)],
        account: Some(account()),
        issuer: None,
        tail: end.map(Tail::new),
        derived: Vec::new(),
    }
}

fn halted(reason: Reason) -> Event {
    Event::Halted { reason, message: "test".into() }
}

fn current(walk: &Walk) -> Option<&str> {
    walk.state.current.as_ref().map(|current| current.key.as_str())
}

#[test]
fn nothing_is_minted_or_handed_over_while_the_clocks_differ() {
    let an_hour_off =
        |walk: &Walk, ids: &[&str]| Listing { date: Some(walk.now.wall + TimeDelta::hours(1)), ..listing(ids) };
    let mut walk = Walk::new(&["a"]);
    walk.survey(&[OLD]);
    let off = an_hour_off(&walk, &[OLD]);
    assert_eq!(walk.answer(Effect::PlanMint, Ok(listed(off))), vec![]);
    assert_eq!(walk.step(), Step::Run(Effect::PlanMint), "it is looked at again");

    let mut walk = Walk::new(&["a"]);
    walk.get_ready();
    let seen = |walk: &Walk, shown| Finding::BeforePush {
        probe: Probe::Works,
        reading: tail(shown),
        jobs: vec![],
        listing: an_hour_off(walk, &[OLD, NEW]),
        derived: None,
        until: None,
    };
    let found = seen(&walk, "oldt");
    assert_eq!(walk.answer(Effect::BeforePush(a()), Ok(found)), vec![]);
    walk.push("a", "newt");
    walk.record(adopted(OLD, tail("newt"), None));
    walk.record(Event::RollbackBegun { by: "test".into() });
    let found = seen(&walk, "newt");
    walk.answer(Effect::BeforePush(a()), Ok(found));
    assert_eq!(walk.step(), Step::Run(Effect::Push(a())), "putting back what worked waits for no clock");
}

#[test]
fn a_disabled_key_that_somebody_enabled_and_put_back_can_be_adopted() {
    let mut walk = Walk::disabled();
    walk.record(halted(Reason::CurrentKeyBroken));
    let shown = [(a(), tail("oldt"))];
    assert!(walk.state.only_vouches(&key(OLD), &shown, &walk.now), "the disable may still be carried out");
    walk.pass(MINUTE * 10);
    assert!(walk.state.only_vouches(&key(OLD), &[(a(), tail("newt"))], &walk.now), "the target shows the other key");
    walk.record(adopted(OLD, tail("oldt"), None));
    assert_eq!((current(&walk), walk.reason()), (Some(OLD), None));
    assert!(walk.state.rotation.is_none() && walk.state.leaving.contains_key(&key(NEW)));
}

#[test]
fn a_word_about_a_leaving_key_ends_a_rotation_that_has_made_nothing() {
    let mut walk = Walk::new(&["a"]);
    walk.record(adopted("AKIATHEIRS", tail("thrt"), None));
    walk.survey(&["AKIATHEIRS", OLD]);
    walk.record(halted(Reason::CurrentKeyBroken));
    walk.record(adopted(OLD, tail("oldt"), None));
    assert_eq!((current(&walk), walk.reason()), (Some(OLD), None));
    assert!(walk.state.rotation.is_none());
}

#[test]
fn what_a_repush_is_to_replace_tells_nothing_of_the_key_that_is_pushed() {
    let mut walk = Walk::new(&["a"]);
    walk.record(adopted("AKIATHEIRS", Reading::Hidden, None));
    let snapshot = Box::new(walk.snapshot("else"));
    let kind = RotationKind::Repush(vec![a()]);
    walk.feed_as(Effect::Survey, Ok(Finding::Survey { snapshot, listing: listing(&["AKIATHEIRS", OLD]) }), kind);
    assert!(walk.state.rotation.is_some() && !walk.state.tails.contains_key(&key("AKIATHEIRS")));
    walk.record(halted(Reason::TargetChanged));
    walk.record(adopted("AKIATHEIRS", tail("thrt"), Some("thrt")));
    assert_eq!(walk.state.tails.get(&key("AKIATHEIRS")), Some(&Tail::new("thrt")), "the secret came with the word");
}

#[test]
fn a_known_end_of_another_key_contradicts_one_whose_end_is_unknown() {
    let mut walk = Walk::new(&["a"]);
    walk.record(adopted("AKIATHEIRS", Reading::Hidden, None));
    walk.state.may_hold.entry(a()).or_default().insert(key(OLD));
    let snapshot = Box::new(walk.snapshot("oldt"));
    walk.feed(Effect::Survey, Ok(Finding::Survey { snapshot, listing: listing(&["AKIATHEIRS", OLD]) }));
    assert_eq!(walk.reason(), Some(Reason::TargetChanged));
}

#[test]
fn a_migration_opens_on_no_target_that_somebody_changed() {
    let mut walk = Walk::new(&["a"]);
    walk.state.home = Some(IssuerSpec { object: "aws-iam:main:elsewhere".into(), ..issuer() });
    let snapshot = Box::new(walk.snapshot("else"));
    walk.feed(Effect::Survey, Ok(Finding::Survey { snapshot, listing: listing(&[]) }));
    assert_eq!((walk.reason(), walk.state.phase()), (Some(Reason::TargetChanged), None));
}

#[test]
fn despite_use_settles_a_target_of_former_days() {
    let mut walk = Walk::soaked();
    let seen = |walk: &Walk| {
        let mut evidence = walk.evidence(LastUse::Never, "newt");
        evidence.readings.push((TargetName::new("former"), tail("oldt")));
        Ok(Finding::Evidence(Box::new(evidence)))
    };
    let found = seen(&walk);
    walk.answer(Effect::Evidence(key(OLD), Act::Disable), found);
    assert_eq!(walk.reason(), Some(Reason::OldKeyStillUsed));
    walk.record(Event::DespiteUseOrdered { by: "test".into() });
    let found = seen(&walk);
    walk.answer(Effect::Evidence(key(OLD), Act::Disable), found);
    assert_eq!((walk.reason(), walk.step()), (None, Step::Run(Effect::Disable(key(OLD)))));
}

#[test]
fn a_lost_push_of_an_earlier_rotation_is_waited_for() {
    let mut walk = Walk::new(&["a"]);
    let snapshot = Box::new(walk.snapshot("oldt"));
    let survey = Finding::Survey { snapshot, listing: listing(&[OLD]) };
    walk.feed_as(Effect::Survey, Ok(survey), RotationKind::Repush(vec![a()]));
    let before = Finding::BeforePush {
        probe: Probe::Works,
        reading: tail("oldt"),
        jobs: vec![],
        listing: listing(&[OLD]),
        derived: None,
        until: None,
    };
    walk.answer(Effect::BeforePush(a()), Ok(before));
    walk.answer(Effect::Push(a()), unknown());
    walk.record(Event::JobLost { target: a(), why: "test".into() });
    walk.record(halted(Reason::PushUnproven));
    walk.record(Event::Closed { outcome: Outcome::Abandoned { by: "test".into(), holds: Some(key(OLD)) } });
    walk.get_ready();
    assert!(matches!(walk.step(), Step::Wait(left) if left > MINUTE * 110), "{:?}", walk.step());
    walk.pass(MINUTE * 120);
    assert_eq!(walk.step(), Step::Run(Effect::BeforePush(a())));
}

#[test]
fn a_use_is_told_by_the_providers_clock() {
    let weighed = |ahead: i64, later: i64| {
        let mut walk = Walk::new(&["a"]);
        walk.get_ready();
        walk.push("a", "newt");
        let provider = TimeDelta::seconds(-ahead);
        let used = walk.now.wall + provider + TimeDelta::seconds(later);
        walk.pass(MINUTE * 600);
        let mut evidence = walk.evidence(LastUse::At { at: used, by: "s3".into() }, "newt");
        evidence.listing.date = Some(walk.now.wall + provider);
        walk.answer(Effect::Evidence(key(OLD), Act::Disable), Ok(Finding::Evidence(Box::new(evidence))));
        walk.reason()
    };
    assert_eq!(weighed(0, 131), Some(Reason::OldKeyStillUsed));
    assert_eq!(weighed(30, 131), Some(Reason::OldKeyStillUsed), "our clock was ahead when the job was confirmed");
    assert_eq!(weighed(0, 109), None, "a target may go by the old key as long as its read-back may lag");
}

#[test]
fn an_abandon_takes_no_key_of_nobody() {
    let mut walk = Walk::new(&["a"]);
    walk.get_ready();
    let outcome = Outcome::Abandoned { by: "test".into(), holds: Some(key("AKIATHEIRS")) };
    assert!(walk.state.clone().apply(&Event::Closed { outcome }, &walk.now).is_err());
}

#[test]
fn nothing_is_judged_about_another_key_while_a_mint_is_unsettled() {
    let mut walk = Walk::new(&["a"]);
    walk.survey(&[OLD]);
    walk.record(Event::StrangersSeen { keys: vec![key("AKIAAAA")] });
    walk.answer(Effect::PlanMint, Ok(listed(listing(&[OLD]))));
    walk.answer(Effect::Mint(IntentId::new("r1.1")), unknown());
    let (by, issuer, account) = ("test".into(), None, None);
    walk.record(Event::ReclaimOrdered { key: key("AKIAAAA"), unused: true, by, issuer, account });
    assert_eq!(
        walk.step(),
        Step::Wait(MINUTE * 10),
        "a halt would keep the mint unsettled, and no word could end that"
    );
}

#[test]
fn a_mint_that_is_answered_with_an_older_key_is_settled_by_looking() {
    let mut walk = Walk::new(&["a"]);
    walk.shape = Shape::ClientNamed;
    walk.survey(&[OLD]);
    walk.answer(Effect::PlanMint, Ok(listed(listing(&[OLD]))));
    walk.answer(Effect::Mint(IntentId::new("r1.1")), unknown());
    let older = Finding::Minted { key: key(OLD), created: None, tail: None };
    walk.answer(Effect::Mint(IntentId::new("r1.1")), Ok(older));
    walk.record(Event::Retried { by: "test".into() });
    assert_eq!(walk.step(), Step::Wait(MINUTE * 10));
}

#[test]
fn a_clock_that_was_ahead_hides_no_use_behind_a_boot() {
    let mut walk = Walk::new(&["a"]);
    walk.get_ready();
    walk.now.wall += TimeDelta::hours(1);
    walk.push("a", "newt");
    walk.now.wall -= TimeDelta::hours(1);
    walk.record(Event::DriftFound { what: "test".into() });
    let used = walk.now.wall + TimeDelta::minutes(10);
    walk.now.boot_id = "another".into();
    walk.pass(MINUTE * 700);
    let evidence = walk.evidence(LastUse::At { at: used, by: "s3".into() }, "newt");
    walk.answer(Effect::Evidence(key(OLD), Act::Disable), Ok(Finding::Evidence(Box::new(evidence))));
    assert_eq!(walk.reason(), Some(Reason::OldKeyStillUsed));
}

#[test]
fn a_key_of_a_lost_mint_that_somebody_took_into_use_is_not_destroyed() {
    let mut walk = lost_mint(true, LastUse::Never, "oldt");
    let weigh = |walk: &mut Walk, last_use| {
        let evidence = walk.evidence(last_use, "oldt");
        walk.answer(Effect::Evidence(key(NEW), Act::Disable), Ok(Finding::Evidence(Box::new(evidence))));
        walk.reason()
    };
    let used = LastUse::At { at: walk.now.wall - TimeDelta::minutes(1), by: "s3".into() };
    assert_eq!(weigh(&mut walk, used.clone()), Some(Reason::OldKeyStillUsed), "also a use of before the look");
    walk.record(Event::Retried { by: "test".into() });
    walk.waits(MINUTE * 240);
    assert_eq!(weigh(&mut walk, used), None, "its user has moved, and it was silent since");
    assert_eq!(walk.step(), Step::Run(Effect::Disable(key(NEW))));
}

#[test]
fn a_key_whose_lost_push_may_still_arrive_is_not_retired() {
    let mut walk = Walk::new(&["a"]);
    walk.get_ready();
    walk.answer(Effect::BeforePush(a()), Ok(before_push("oldt")));
    walk.answer(Effect::Push(a()), unknown());
    walk.record(Event::JobLost { target: a(), why: "test".into() });
    walk.record(halted(Reason::JournalBehind));
    walk.record(adopted(OLD, tail("oldt"), None));
    walk.record(adopted("AKIATHEIRS", tail("thrt"), None));
    let begun = Event::DisableBegun { key: key(NEW), evidence: "test".into() };
    // As if an operator's word had settled what the target may hold.
    walk.state.may_hold.clear();
    assert!(walk.state.clone().apply(&begun, &walk.now).is_err());
    let evidence = Evidence { probe: None, ..walk.evidence(LastUse::Untold, "thrt") };
    let found = Ok(Finding::Evidence(Box::new(evidence)));
    assert_eq!(walk.feed(Effect::Evidence(key(NEW), Act::Disable), found), vec![]);
    assert_eq!(walk.reason(), None, "it is waited for");
    walk.pass(MINUTE * 120);
    assert!(walk.state.apply(&begun, &walk.now).is_ok());
}

#[test]
fn a_clock_set_back_makes_no_evidence_younger() {
    let mut walk = Walk::soaked();
    let evidence = walk.evidence(LastUse::Never, "newt");
    walk.answer(Effect::Evidence(key(OLD), Act::Disable), Ok(Finding::Evidence(Box::new(evidence))));
    walk.pass(MINUTE * 4);
    assert_eq!(walk.step(), Step::Run(Effect::Disable(key(OLD))));
    walk.pass(MINUTE * 4);
    walk.now.wall -= TimeDelta::minutes(6);
    assert_eq!(walk.step(), Step::Run(Effect::Evidence(key(OLD), Act::Disable)), "it is eight minutes old");
}

#[test]
fn a_look_at_where_a_service_is_to_move_says_nothing_of_the_strangers_at_home() {
    let mut walk = Walk::new(&["a"]);
    walk.state.home = Some(IssuerSpec { object: "aws-iam:main:elsewhere".into(), ..issuer() });
    walk.record(Event::StrangersSeen { keys: vec![key("AKIATHEIRS")] });
    let snapshot = Box::new(walk.snapshot("else"));
    walk.feed(Effect::Survey, Ok(Finding::Survey { snapshot, listing: listing(&[]) }));
    assert_eq!(walk.reason(), Some(Reason::TargetChanged));
    assert!(walk.state.strangers.contains(&key("AKIATHEIRS")), "it was not looked for where it lives");
}

#[test]
fn a_key_that_is_listed_again_is_said_so_also_where_the_journal_is_behind() {
    let mut walk = Walk::soaked();
    walk.disable_old();
    walk.pass(MINUTE * 60);
    let evidence = walk.evidence(LastUse::Never, "newt");
    walk.answer(Effect::Evidence(key(OLD), Act::Delete), Ok(Finding::Evidence(Box::new(evidence))));
    walk.answer(Effect::Delete(key(OLD)), Ok(Finding::Done));
    walk.pass(MINUTE * 11);
    // The current key was deleted by hand, another made, and the old one never went.
    let mut world = listing(&[OLD, "AKIATHEIRS"]);
    world.keys[1].created = Some(walk.now.wall - TimeDelta::minutes(1));
    walk.answer(Effect::Absence(key(OLD)), Ok(listed(world)));
    assert_eq!((walk.reason(), &walk.state.leaving[&key(OLD)].stage), (Some(Reason::JournalBehind), &Stage::Waiting));
    walk.pass(MINUTE * 11);
    walk.record(adopted(OLD, tail("oldt"), None));
    assert_eq!(current(&walk), Some(OLD), "whoever says that the targets use it is believed");
}
