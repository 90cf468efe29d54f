//! What a hard reviewer found: sequences that once broke a promise or led into a dead end. Each stays here.

use super::*;

fn halt(walk: &Walk) -> Option<Reason> {
    walk.state.halt.as_ref().map(|halt| halt.reason)
}

fn adopted(id: &str, shown: &str) -> Event {
    Event::Adopted {
        key: key(id),
        created: None,
        by: AdoptedBy::Operator("test".into()),
        readings: vec![(a(), tail(shown))],
        account: Some(account()),
        issuer: Some(Box::new(issuer())),
        tail: None,
        derived: Vec::new(),
    }
}

#[test]
fn a_job_that_still_runs_after_its_time_is_never_given_up() {
    let mut walk = Walk::new(&["a"]);
    walk.get_ready();
    walk.answer(Effect::BeforePush(a()), Ok(before_push("oldt")));
    let job = JobId::new("j1");
    walk.answer(Effect::Push(a()), Ok(Finding::Receipt(Receipt { job: Some(job.clone()) })));
    walk.pass(MINUTE * 121);
    let running = || Ok(Finding::Job(JobState::Running("executing".into())));
    walk.answer(Effect::Poll(a(), job.clone()), running());
    assert_eq!(walk.reason(), Some(Reason::PushUnproven));
    assert!(walk.state.may_hold[&a()].contains(&key(NEW)));
    walk.record(Event::Retried { by: "test".into() });
    walk.answer(Effect::Poll(a(), job.clone()), Ok(Finding::Job(JobState::Succeeded)));
    walk.answer(Effect::ReadBack(a()), Ok(Finding::Reading(tail("newt"))));
    assert_eq!(walk.state.phase(), Some(Phase::Soaking));
}

#[test]
fn a_key_that_nobody_may_disable_holds_up_no_other() {
    let mut walk = Walk::new(&["a"]);
    walk.record(Event::StrangersSeen { keys: vec![key("AKIAAAA"), key("AKIABBB")] });
    for id in ["AKIAAAA", "AKIABBB"] {
        walk.record(Event::ReclaimOrdered {
            key: key(id),
            unused: true,
            by: "test".into(),
            issuer: None,
            account: None,
        });
    }
    let steps = walk.state.steps(&walk.now);
    let evidence = |id: &str| Step::Run(Effect::Evidence(key(id), Act::Disable));
    assert_eq!(steps, vec![evidence("AKIAAAA"), evidence("AKIABBB")], "the engine takes the first that is not held up");
}

#[test]
fn a_first_contact_ends_well_with_the_word_it_asks_for() {
    let mut walk = Walk::disabled();
    walk.state.leaving.get_mut(&key(OLD)).expect("it leaves").ours = false;
    walk.pass(MINUTE * 60);
    let Step::Record(halt) = walk.step() else { panic!("{:?}", walk.step()) };
    walk.record(halt);
    walk.record(adopted(OLD, "newt"));
    assert!(walk.state.may_hold[&a()].contains(&key(NEW)), "a word about the old key says nothing of the target");
    let evidence = walk.evidence(LastUse::Never, "newt");
    walk.answer(Effect::Evidence(key(OLD), Act::Delete), Ok(Finding::Evidence(Box::new(evidence))));
    assert_eq!((walk.reason(), walk.step()), (None, Step::Run(Effect::Delete(key(OLD)))));
}

#[test]
fn a_word_that_the_targets_contradict_is_refused() {
    let walk = Walk::new(&["a"]);
    let shown = vec![(a(), tail("oldt"))];
    let why = walk.state.adoption_contradicted(&key(NEW), None, &shown, &[]).expect("the target shows the old key");
    assert_eq!(why, "a shows key AKIAOLD, and not AKIANEW");
    assert_eq!(walk.state.adoption_contradicted(&key(OLD), None, &shown, &[]), None);
    let other = vec![(a(), tail("what"))];
    assert!(walk.state.adoption_contradicted(&key(NEW), Some(&Tail::new("newt")), &other, &[]).is_some());
    assert_eq!(walk.state.adoption_contradicted(&key(NEW), None, &other, &[]), None, "nothing known speaks against it");
}

#[test]
fn the_old_keys_secret_may_come_later_and_the_rollback_then_works() {
    let mut walk = Walk::new(&["a"]);
    walk.get_ready();
    walk.push("a", "newt");
    walk.record(adopted(OLD, "newt"));
    walk.record(Event::RollbackBegun { by: "test".into() });
    walk.answer(Effect::BeforePush(a()), Ok(before_push("newt")));
    walk.answer(Effect::Push(a()), Ok(Finding::Receipt(Receipt { job: Some(JobId::new("j2")) })));
    walk.answer(Effect::Poll(a(), JobId::new("j2")), Ok(Finding::Job(JobState::Succeeded)));
    walk.answer(Effect::ReadBack(a()), Ok(Finding::Reading(tail("oldt"))));
    assert_eq!(walk.state.current.as_ref().map(|current| current.key.clone()), Some(key(OLD)));
}

#[test]
fn a_rescue_under_way_is_not_stopped_by_what_it_is_about() {
    let mut walk = Walk::disabled();
    let bad = || Ok(Finding::Health { targets: vec![(a(), Health::Bad("500".into()))], old_is_held: false });
    walk.feed(Effect::Health, bad());
    walk.answer(Effect::Enable(key(OLD)), unknown());
    walk.feed(Effect::Health, bad());
    assert_eq!(walk.reason(), None);
    walk.record(Event::Halted { reason: Reason::Unhealthy, message: "test".into() });
    assert_eq!(walk.step(), Step::Run(Effect::Enable(key(OLD))), "no halt stops what is owed to a consumer");
}

#[test]
fn a_push_without_a_job_is_asked_for_silence_too() {
    let mut walk = Walk::new(&["a"]);
    walk.get_ready();
    walk.answer(Effect::BeforePush(a()), Ok(before_push("oldt")));
    walk.answer(Effect::Push(a()), Ok(Finding::Receipt(Receipt { job: None })));
    walk.answer(Effect::ReadBack(a()), Ok(Finding::Reading(tail("newt"))));
    assert_eq!(walk.state.leaving[&key(OLD)].silent_since, Some(walk.now.plus(MINUTE * 2)));
}

#[test]
fn a_compromised_key_must_be_silent_where_nothing_else_tells_who_holds_it() {
    for (shown, silent) in [("newt", false), ("oldt", true)] {
        let mut walk = Walk::new(&["a"]);
        walk.get_ready();
        walk.state.rotation.as_mut().expect("open").cause = Cause::Operator { by: "test".into(), compromised: true };
        if silent {
            walk.state.tails.insert(key(NEW), Tail::new("oldt"));
        }
        walk.push("a", shown);
        assert_eq!(walk.state.leaving[&key(OLD)].silent_since.is_some(), silent);
    }
}

#[test]
fn a_user_who_moved_is_believed_from_the_retry_on() {
    let mut walk = Walk::soaked();
    let used = LastUse::At { at: walk.now.wall - TimeDelta::hours(5), by: "s3".into() };
    let evidence = walk.evidence(used.clone(), "newt");
    walk.answer(Effect::Evidence(key(OLD), Act::Disable), Ok(Finding::Evidence(Box::new(evidence))));
    assert_eq!(walk.reason(), Some(Reason::OldKeyStillUsed));
    walk.record(Event::Retried { by: "test".into() });
    walk.waits(MINUTE * 240);
    let evidence = walk.evidence(used, "newt");
    walk.answer(Effect::Evidence(key(OLD), Act::Disable), Ok(Finding::Evidence(Box::new(evidence))));
    assert_eq!(walk.step(), Step::Run(Effect::Disable(key(OLD))));
}

#[test]
fn a_key_somebody_enabled_again_is_not_deleted() {
    let mut walk = Walk::disabled();
    walk.pass(MINUTE * 60);
    let mut evidence = walk.evidence(LastUse::Never, "newt");
    evidence.listing.keys[0].active = true;
    walk.answer(Effect::Evidence(key(OLD), Act::Delete), Ok(Finding::Evidence(Box::new(evidence))));
    assert_eq!(walk.reason(), Some(Reason::EnabledAgain));
    walk.record(Event::Retried { by: "test".into() });
    assert_eq!(walk.state.leaving[&key(OLD)].stage, Stage::Waiting, "it is disabled again only on new evidence");
}

#[test]
fn a_target_that_left_the_policy_keeps_its_key_until_an_operator_says_it_moved() {
    let mut walk = Walk::new(&["a", "b"]);
    walk.targets = vec!["a"];
    walk.soak();
    let evidence = walk.evidence(LastUse::Never, "newt");
    let weigh = Effect::Evidence(key(OLD), Act::Disable);
    walk.answer(weigh.clone(), Ok(Finding::Evidence(Box::new(evidence.clone()))));
    assert_eq!(walk.reason(), Some(Reason::OldKeyStillUsed));
    assert!(walk.state.halt.as_ref().is_some_and(|halt| halt.message.starts_with("b is no longer a target")));
    walk.record(Event::DespiteUseOrdered { by: "test".into() });
    walk.answer(weigh, Ok(Finding::Evidence(Box::new(evidence))));
    assert_eq!(walk.step(), Step::Run(Effect::Disable(key(OLD))));
}

#[test]
fn nothing_else_is_pushed_while_a_job_is_under_way() {
    let mut walk = Walk::new(&["a"]);
    walk.get_ready();
    walk.answer(Effect::BeforePush(a()), Ok(before_push("oldt")));
    walk.answer(Effect::Push(a()), Ok(Finding::Receipt(Receipt { job: Some(JobId::new("j1")) })));
    let rotation = walk.state.rotation.clone().expect("open");
    assert_eq!(rotation.cannot_turn_back().as_deref(), Some("a push is under way; wait until its job has ended"));
    let bad = Ok(Finding::Health { targets: vec![(a(), Health::Bad("500".into()))], old_is_held: true });
    assert_eq!(walk.feed(Effect::Health, bad), vec![]);
}

#[test]
fn a_retry_between_intent_and_push_confuses_no_count() {
    let mut walk = Walk::new(&["a"]);
    walk.get_ready();
    walk.answer(Effect::BeforePush(a()), Ok(before_push("oldt")));
    walk.record(Event::Retried { by: "test".into() });
    walk.answer(Effect::Push(a()), Err(Fault::Retry { after: None, why: "site is locked".into() }));
    assert_eq!(walk.step(), Step::Run(Effect::BeforePush(a())));
}

#[test]
fn a_probe_that_fails_for_ever_before_a_push_ends_in_an_undo_and_not_in_a_long_journal() {
    let mut walk = Walk::new(&["a"]);
    walk.get_ready();
    walk.answer(Effect::BeforePush(a()), Ok(before_push("oldt")));
    walk.answer(Effect::Push(a()), Err(Fault::NotSent("refused".into())));
    let before = walk.state.sequence;
    for _ in 0..20 {
        let Step::Run(Effect::BeforePush(_)) = walk.step() else { break };
        walk.pass(MINUTE);
        let Finding::BeforePush { reading, jobs, listing, .. } = before_push("oldt") else { unreachable!() };
        let probe = Probe::NotYet("gone".into());
        walk.feed(
            Effect::BeforePush(a()),
            Ok(Finding::BeforePush { probe, reading, jobs, listing, derived: None, until: None }),
        );
    }
    assert!(walk.state.sequence - before <= 3, "{} events", walk.state.sequence - before);
    assert!(matches!(walk.state.rotation.as_ref().map(|open| &open.course), Some(Course::Undoing { .. })));
}

#[test]
fn somebody_elses_job_vouches_for_nothing() {
    let mut walk = Walk::new(&["a"]);
    walk.get_ready();
    walk.answer(Effect::BeforePush(a()), Ok(before_push("oldt")));
    walk.answer(Effect::Push(a()), unknown());
    walk.answer(Effect::SettlePush(a()), Ok(Finding::Jobs(vec![JobId::new("jbackup")])));
    walk.answer(Effect::Poll(a(), JobId::new("jbackup")), Ok(Finding::Job(JobState::Succeeded)));
    walk.answer(Effect::ReadBack(a()), Ok(Finding::Reading(Reading::Hidden)));
    assert_eq!(walk.step(), Step::Run(Effect::BeforePush(a())), "the same key is pushed again");
}

#[test]
fn evidence_of_another_boot_is_gathered_anew() {
    let mut walk = Walk::soaked();
    let evidence = walk.evidence(LastUse::Never, "newt");
    walk.answer(Effect::Evidence(key(OLD), Act::Disable), Ok(Finding::Evidence(Box::new(evidence))));
    walk.now.boot_id = "other".into();
    assert_eq!(walk.step(), Step::Run(Effect::Evidence(key(OLD), Act::Disable)));
    // Silence cannot be judged on a clock that stands before the last Confirmed.
    walk.now.wall -= TimeDelta::days(300);
    assert!(matches!(walk.step(), Step::Wait(_)));
}

#[test]
fn whoever_is_said_to_have_moved_is_given_time_to_be_seen_still_there() {
    let mut walk = Walk::soaked();
    let used = LastUse::At { at: walk.now.wall, by: "s3 in us-east-1".into() };
    let evidence = walk.evidence(used, "newt");
    walk.answer(Effect::Evidence(key(OLD), Act::Disable), Ok(Finding::Evidence(Box::new(evidence))));
    assert_eq!(halt(&walk), Some(Reason::OldKeyStillUsed));
    walk.record(Event::Retried { by: "uid 0 (root)".into() });
    let Step::Wait(left) = walk.step() else { panic!("its use since then cannot have been reported yet") };
    walk.pass(left);
    assert_eq!(walk.step(), Step::Run(Effect::Evidence(key(OLD), Act::Disable)));
}

#[test]
fn a_target_that_shows_the_old_keys_end_stops_its_retire_even_where_the_current_ones_is_unknown() {
    let mut walk = Walk::soaked();
    walk.state.tails.remove(&key(NEW));
    let evidence = walk.evidence(LastUse::Never, "oldt");
    walk.answer(Effect::Evidence(key(OLD), Act::Disable), Ok(Finding::Evidence(Box::new(evidence))));
    assert_eq!(halt(&walk), Some(Reason::TargetChanged));
}

#[test]
fn a_rollback_onto_a_key_that_somebody_deleted_leaves_a_way_out() {
    let mut walk = Walk::disabled();
    walk.record(Event::RollbackBegun { by: "uid 0 (root)".into() });
    let gone = Fault::Refused { reason: Reason::NotFound, why: "no such key".into() };
    walk.answer(Effect::Enable(key(OLD)), Err(gone));
    assert_eq!(halt(&walk), Some(Reason::CurrentKeyBroken));
    assert!(walk.state.adoption_ends_rotation(), "an operator's word for another key ends it");
}

#[test]
fn a_wall_clock_that_was_ahead_stops_no_soak() {
    let mut walk = Walk::new(&["a"]);
    walk.get_ready();
    walk.now.wall += TimeDelta::days(300);
    walk.push("a", "newt");
    walk.now.wall -= TimeDelta::days(300);
    walk.now.boot += MINUTE * 599;
    assert_eq!(walk.step(), Step::Wait(MINUTE));
}

#[test]
fn a_login_that_leads_to_another_account_says_nothing_about_ours() {
    let mut walk = Walk::new(&["a"]);
    walk.survey(&[OLD]);
    let other = Finding::Listing { account: AccountIdentity::new("aws:2"), listing: listing(&[]) };
    walk.answer(Effect::PlanMint, Ok(other));
    assert_eq!(walk.reason(), Some(Reason::AccountChanged));
}

#[test]
fn a_stale_journal_pushes_no_key_the_world_has_left_behind() {
    let mut walk = Walk::new(&["a"]);
    walk.get_ready();
    let mut ahead = listing(&["AKIANEXT"]);
    ahead.keys[0].created = Some(walk.now.wall + TimeDelta::days(1));
    let seen = Finding::BeforePush {
        probe: Probe::Works,
        reading: Reading::Hidden,
        jobs: vec![],
        listing: ahead,
        derived: None,
        until: None,
    };
    walk.answer(Effect::BeforePush(a()), Ok(seen));
    assert_eq!(walk.reason(), Some(Reason::JournalBehind));
    walk.record(adopted("AKIANEXT", "next"));
    assert_eq!((walk.reason(), walk.state.rotation.is_none()), (None, true));
    assert!(walk.state.leaving.contains_key(&key(NEW)), "what was minted is not forgotten");
}

/// As a listing of a world that has rotated since shows it.
fn ahead(walk: &Walk) -> Listing {
    let mut ahead = listing(&["AKIANEXT"]);
    ahead.keys[0].created = Some(walk.now.wall + TimeDelta::days(1));
    ahead
}

#[test]
fn a_stale_journal_with_a_rotation_opened_does_not_offer_to_destroy_the_key_in_use() {
    let mut walk = Walk::new(&["a"]);
    assert!(matches!(walk.survey(&[OLD])[..], [Event::Opened { .. }]));
    let ahead = ahead(&walk);
    walk.answer(Effect::PlanMint, Ok(listed(ahead)));
    assert_eq!(walk.reason(), Some(Reason::JournalBehind));
    let next = walk.state.next_command(&ServiceName::new("store"), crate::rotation::TakeUp::Reload);
    assert_eq!(next.as_deref(), Some("rekeyd adopt store AKIANEXT, if that is the key the targets use now"));
}

#[test]
fn a_stale_journal_retires_nothing_and_names_the_key_to_adopt() {
    let mut walk = Walk::new(&["a"]);
    walk.get_ready();
    walk.push("a", "newt");
    let ahead = ahead(&walk);
    walk.pass(MINUTE * 60 * 24 * 2);
    let evidence = Evidence { listing: ahead, ..walk.evidence(LastUse::Never, "newt") };
    walk.answer(Effect::Evidence(key(OLD), Act::Disable), Ok(Finding::Evidence(Box::new(evidence))));
    assert_eq!(walk.reason(), Some(Reason::JournalBehind));
    let next = walk.state.next_command(&ServiceName::new("store"), crate::rotation::TakeUp::Reload);
    assert_eq!(next.as_deref(), Some("rekeyd adopt store AKIANEXT, if that is the key the targets use now"));
}

#[test]
fn a_stale_journal_counts_no_key_gone_in_a_world_that_has_moved_on() {
    let mut walk = Walk::disabled();
    walk.pass(MINUTE * 60);
    let evidence = walk.evidence(LastUse::Never, "newt");
    walk.answer(Effect::Evidence(key(OLD), Act::Delete), Ok(Finding::Evidence(Box::new(evidence))));
    walk.answer(Effect::Delete(key(OLD)), Ok(Finding::Done));
    let ahead = ahead(&walk);
    walk.pass(MINUTE * 60 * 24 * 2);
    walk.answer(Effect::Absence(key(OLD)), Ok(listed(ahead)));
    assert_eq!(walk.reason(), Some(Reason::JournalBehind));
    assert!(walk.state.leaving.contains_key(&key(OLD)), "to write down that it is gone would say that all is well");
}

#[test]
fn an_order_about_a_compromised_key_is_not_replaced_by_a_milder_one() {
    let mut walk = Walk::new(&["a"]);
    let stern = Cause::Operator { by: "test".into(), compromised: true };
    walk.record(Event::Ordered { cause: stern.clone() });
    walk.record(Event::Ordered { cause: Cause::Signal });
    assert_eq!(walk.state.order, Some(stern));
}

#[test]
fn a_rolled_back_service_waits_for_somebody_to_look() {
    let mut walk = Walk::new(&["a"]);
    walk.get_ready();
    walk.push("a", "newt");
    walk.record(Event::RollbackBegun { by: "test".into() });
    walk.answer(Effect::BeforePush(a()), Ok(before_push("newt")));
    walk.answer(Effect::Push(a()), Ok(Finding::Receipt(Receipt { job: None })));
    walk.answer(Effect::ReadBack(a()), Ok(Finding::Reading(tail("oldt"))));
    walk.state.leaving.clear();
    walk.record(Event::Closed { outcome: Outcome::RolledBack });
    assert_eq!(walk.reason(), Some(Reason::RolledBack));
    assert_eq!(walk.state.failures, 1);
}

#[test]
fn a_key_enabled_while_its_deletion_was_being_sent_is_not_a_dead_end() {
    let mut walk = Walk::disabled();
    walk.pass(MINUTE * 60);
    let evidence = walk.evidence(LastUse::Never, "newt");
    walk.answer(Effect::Evidence(key(OLD), Act::Delete), Ok(Finding::Evidence(Box::new(evidence))));
    walk.pass(MINUTE * 6);
    let mut evidence = walk.evidence(LastUse::Never, "newt");
    evidence.listing.keys[0].active = true;
    walk.answer(Effect::Evidence(key(OLD), Act::Delete), Ok(Finding::Evidence(Box::new(evidence))));
    assert_eq!(walk.reason(), Some(Reason::EnabledAgain));
    walk.record(Event::Retried { by: "test".into() });
    assert_eq!(walk.state.leaving[&key(OLD)].stage, Stage::Waiting);
}

#[test]
fn a_push_that_was_lost_is_remembered_through_later_ones_that_were_not() {
    let mut walk = Walk::new(&["a"]);
    walk.get_ready();
    walk.answer(Effect::BeforePush(a()), Ok(before_push("oldt")));
    walk.answer(Effect::Push(a()), unknown());
    walk.answer(Effect::SettlePush(a()), Ok(Finding::Jobs(vec![])));
    walk.answer(Effect::ReadBack(a()), Ok(Finding::Reading(tail("oldt"))));
    for _ in 1..PUSH_ATTEMPTS_MAX {
        walk.answer(Effect::BeforePush(a()), Ok(before_push("oldt")));
        walk.answer(Effect::Push(a()), Ok(Finding::Receipt(Receipt { job: Some(JobId::new("j2")) })));
        let failed = JobState::Failed("another job is running".into());
        walk.answer(Effect::Poll(a(), JobId::new("j2")), Ok(Finding::Job(failed)));
        walk.pass(MINUTE * 2);
        walk.answer(Effect::ReadBack(a()), Ok(Finding::Reading(tail("oldt"))));
    }
    assert!(walk.state.may_hold[&a()].contains(&key(NEW)), "the first push may still be carried out");
    let Step::Record(Event::Halted { reason, .. }) = walk.step() else { panic!("{:?}", walk.step()) };
    assert_eq!(reason, Reason::PushUnproven);
}

#[test]
fn an_enable_that_is_refused_under_a_halt_is_tried_slowly_and_said_once() {
    let mut walk = Walk::disabled();
    walk.record(Event::EnableBegun { key: key(OLD), why: "the consumer fails".into() });
    let around = Circumstances {
        cause: Cause::Timetable,
        kind: RotationKind::Fresh,
        fresh_id: RotationId::new("r2"),
        tries: 0,
        push_on_drift: false,
        derived: Vec::new(),
    };
    let refused = || Err(Fault::Refused { reason: Reason::MissingRight, why: "denied".into() });
    let enable = Effect::Enable(key(OLD));
    let first = walk.state.conclude(&enable, refused(), &walk.now, &around);
    assert!(matches!(first.events[..], [Event::Halted { .. }]));
    walk.record(first.events[0].clone());
    let again = walk.state.conclude(&enable, refused(), &walk.now, &around);
    assert_eq!((again.events, again.pace), (vec![], Pace::After(MINUTE * 5)));
}

#[test]
fn an_abandoned_rotation_keeps_the_other_key_while_its_job_may_run() {
    let mut walk = Walk::new(&["a"]);
    walk.get_ready();
    walk.answer(Effect::BeforePush(a()), Ok(before_push("oldt")));
    walk.answer(Effect::Push(a()), Ok(Finding::Receipt(Receipt { job: Some(JobId::new("j1")) })));
    walk.record(Event::Closed { outcome: Outcome::Abandoned { by: "test".into(), holds: Some(key(OLD)) } });
    assert!(walk.state.may_hold[&a()].contains(&key(NEW)));
    assert_eq!(walk.step(), Step::Wait(MINUTE * 6000));
}

#[test]
fn a_target_put_back_by_hand_while_the_old_key_soaks_is_told_to_roll_back() {
    let mut walk = Walk::soaked();
    let evidence = walk.evidence(LastUse::Never, "oldt");
    walk.answer(Effect::Evidence(key(OLD), Act::Disable), Ok(Finding::Evidence(Box::new(evidence))));
    assert_eq!(walk.reason(), Some(Reason::TargetChanged));
    let next = walk
        .state
        .next_command(&ServiceName::new("store"), crate::rotation::TakeUp::Reload)
        .expect("a halt has a way out");
    assert!(next.contains("rekeyd rollback store puts the previous key back"), "{next}");
    assert!(walk.state.clone().apply(&Event::RollbackBegun { by: "test".into() }, &walk.now).is_ok());
}

#[test]
fn a_target_that_shows_another_end_than_the_current_keys_does_not_hold_it_whatever_else_it_may_hold() {
    let mut walk = Walk::soaked();
    // The old key's end was never seen, so what is shown could be its own.
    walk.state.tails.remove(&key(OLD));
    walk.state.may_hold.insert(a(), [key(OLD), key(NEW)].into());
    let evidence = walk.evidence(LastUse::Never, "oldt");
    walk.answer(Effect::Evidence(key(OLD), Act::Disable), Ok(Finding::Evidence(Box::new(evidence))));
    assert_eq!(halt(&walk), Some(Reason::TargetChanged));
}

#[test]
fn a_holder_that_nobody_named_stops_the_disable_and_is_told_before_the_mint() {
    let backup = |end: &str| ("arcgis:prod:uqsip6c2vm (cloud service AWS S3 BACKUP)".to_owned(), tail(end));
    let shows = |end: &str| Others { shown: vec![backup(end)], unread: vec![] };
    let weighed = |walk: &mut Walk, end: &str| {
        let evidence = Evidence { others: shows(end), ..walk.evidence(LastUse::Never, "newt") };
        walk.answer(Effect::Evidence(key(OLD), Act::Disable), Ok(Finding::Evidence(Box::new(evidence))));
        halt(walk)
    };
    let mut walk = Walk::soaked();
    assert_eq!(weighed(&mut walk, "oldt"), Some(Reason::OldKeyStillUsed));
    let message = walk.state.halt.as_ref().map(|halt| halt.message.clone()).unwrap_or_default();
    assert!(message.starts_with("arcgis:prod:uqsip6c2vm (cloud service AWS S3 BACKUP) is no target"), "{message}");
    walk.record(Event::DespiteUseOrdered { by: "test".into() });
    assert_eq!(weighed(&mut walk, "oldt"), None, "an operator's word settles it");
    assert_eq!(weighed(&mut Walk::soaked(), "thrt"), None, "another key is nobody's business here");

    let mut walk = Walk::new(&["a"]);
    let seen = |walk: &Walk, others: Others| Finding::Observed {
        listing: Listing { date: Some(walk.now.wall), ..listing(&[OLD]) },
        readings: vec![(a(), tail("oldt"))],
        others,
        probe: None,
        unkept: None,
    };
    let found = seen(&walk, shows("oldt"));
    walk.feed(Effect::Observe, Ok(found));
    assert!(
        walk.state.drift.as_ref().is_some_and(|drift| drift.contains("see accept_holders")),
        "{:?}",
        walk.state.drift
    );
    assert_eq!(walk.state.order, None, "no push would mend it");
}

#[test]
fn a_holder_that_nobody_may_look_at_is_told_and_stops_nothing() {
    let unread = "arcgis:prod:/cloudStores (registered data stores) cannot be looked at: code 403";
    let others = || Others { shown: vec![], unread: vec![unread.to_owned()] };
    let mut walk = Walk::soaked();
    let evidence = Evidence { others: others(), ..walk.evidence(LastUse::Never, "newt") };
    let events = walk.answer(Effect::Evidence(key(OLD), Act::Disable), Ok(Finding::Evidence(Box::new(evidence))));
    let said = events.iter().find_map(|event| match event {
        Event::DisableBegun { evidence, .. } => Some(evidence.clone()),
        _ => None,
    });
    assert!(said.as_ref().is_some_and(|said| said.ends_with(&format!("not shown by a; {unread}"))), "{said:?}");

    let mut walk = Walk::new(&["a"]);
    let found = Finding::Observed {
        listing: Listing { date: Some(walk.now.wall), ..listing(&[OLD]) },
        readings: vec![(a(), tail("oldt"))],
        others: others(),
        probe: None,
        unkept: None,
    };
    walk.feed(Effect::Observe, Ok(found));
    let drift = walk.state.drift.clone().unwrap_or_default();
    assert!(drift.starts_with(unread) && drift.ends_with("would not be seen; see accept_holders"), "{drift}");
}

#[test]
fn rights_that_cannot_be_changed_hide_nothing_else_that_was_seen() {
    let mut walk = Walk::new(&["a"]);
    let mut listing = Listing { date: Some(walk.now.wall), ..listing(&[OLD]) };
    listing.keys[0].active = false;
    let found = Finding::Observed {
        listing,
        readings: vec![(a(), tail("else"))],
        others: Others::default(),
        probe: Some(Probe::Works),
        unkept: Some("replace the roles: 403".to_owned()),
    };
    walk.feed(Effect::Observe, Ok(found));
    let drift = walk.state.drift.clone().unwrap_or_default();
    let told =
        ["is inactive at its issuer", "a shows a credential", "does not follow the policy: replace the roles: 403"];
    assert!(told.iter().all(|told| drift.contains(told)), "{drift}");
}

#[test]
fn a_refused_login_is_forgiven_also_where_only_a_key_on_its_way_out_lives() {
    let system = |table: &str, name: &str| SystemRef { table: table.to_owned(), name: name.to_owned() };
    let mut walk = Walk::soaked();
    assert_eq!(walk.state.systems().count(), 0);
    let mut place = walk.snapshot("oldt");
    place.issuer.system = Some(system("ibm_cos", "old"));
    place.targets[0].spec.system = Some(system("arcgis", "old"));
    walk.state.leaving.get_mut(&key(OLD)).expect("it leaves").place = Some(Box::new(place));
    let systems: Vec<String> = walk.state.systems().map(ToString::to_string).collect();
    assert_eq!(systems, ["arcgis.old", "ibm_cos.old"]);
}
