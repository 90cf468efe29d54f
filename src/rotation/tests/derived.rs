//! Targets that hold something derived from the key: what is known of them stands apart from what is known of the key.

use super::walk::*;
use super::*;

/// A service with the key itself at `a`, adopted and current.
fn with_key() -> Walk {
    Walk::new(&["a"])
}

fn b() -> TargetName {
    TargetName::new("b")
}

fn contradiction(walk: &Walk, shown: &str) -> Option<String> {
    let knowing = walk.state.knowing_derived([b()].iter()).into_owned();
    knowing.contradiction(&b(), &tail(shown), &key(OLD))
}

#[test]
fn what_a_new_follower_shows_cannot_be_compared_but_with_the_keys_themselves() {
    let mut walk = with_key();
    assert_eq!(contradiction(&walk, "789Z"), None, "a person derived it");
    assert_eq!(contradiction(&walk, "oldt"), None, "the current key itself is what is to be replaced");
    walk.state.tails.insert(key(NEW), Tail::new("newt"));
    let why = contradiction(&walk, "newt").expect("another key stands there");
    assert_eq!(why, "b shows key AKIANEW instead of AKIAOLD");
}

#[test]
fn a_word_for_a_key_does_not_pass_over_another_key_at_a_follower() {
    let walk = with_key();
    let of = |shown: &str, end: Option<&str>| {
        let derived = [(b(), end.map(Tail::new))];
        walk.state.adoption_contradicted(&key(NEW), None, &[(b(), tail(shown))], &derived)
    };
    assert_eq!(of("789Z", None), None, "a person derived it from whatever key");
    assert_eq!(of("oldt", Some("oldt")), None, "what would be derived ends so by chance");
    assert_eq!(of("oldt", None).as_deref(), Some("b shows key AKIAOLD itself, and nothing derived from AKIANEW"));
}

/// The token in use may end before the one that was to take its place, should that push come to nothing.
#[test]
fn the_earlier_of_two_ends_counts_for_one_key() {
    let mut walk = with_key();
    walk.get_ready();
    walk.state.derived.entry(a()).or_default();
    let (early, late) = (walk.now.wall + TimeDelta::days(30), walk.now.wall + TimeDelta::days(300));
    for until in [late, early, late] {
        let mut state = walk.state.clone();
        let derived = Some(Tail::new("789Z"));
        let pushed = Event::PushBegun { target: a(), key: key(NEW), jobs: vec![], derived, until: Some(until) };
        state.apply(&pushed, &walk.now).expect("it is ready");
        walk.state.derived_until = state.derived_until.clone();
        assert_eq!(state.end_at(&a(), &key(NEW)), Some(&Tail::new("789Z")));
    }
    assert_eq!(walk.state.derived_until(&key(NEW)), Some(early));
    assert_eq!(walk.state.derived_until(&key(OLD)), None);
}

/// Where a target turns from what is derived to the key itself, what it showed before explains it until the push, and the key's own end
/// after it.
#[test]
fn a_target_that_is_to_hold_the_key_itself_is_known_by_both_forms() {
    let mut walk = with_key();
    walk.state.derived.insert(a(), [(key(OLD), Tail::new("789Z"))].into());
    assert_eq!(walk.state.contradiction(&a(), &tail("789Z"), &key(OLD)), None);
    let snapshot = Box::new(Snapshot { targets: vec![found("789Z")], ..walk.snapshot("oldt") });
    walk.feed(Effect::Survey, Ok(Finding::Survey { snapshot, listing: listing(&[OLD]) }));
    assert_eq!(walk.state.contradiction(&a(), &tail("789Z"), &key(OLD)), None, "it is what stood there when it opened");
    walk.state.tails.insert(key(NEW), Tail::new("newt"));
    let rotation = walk.state.rotation.as_mut().expect("opened");
    (rotation.phase, rotation.installing) = (Phase::Ready, Some(key(NEW)));
    walk.record(Event::PushBegun { target: a(), key: key(NEW), jobs: vec![], derived: None, until: None });
    assert_eq!(walk.state.read_back(&a(), &tail("newt"), &key(NEW)), ReadBack::New);
    assert_eq!(walk.state.read_back(&a(), &tail("789Z"), &key(NEW)), ReadBack::Old(Some(key(OLD))));
}

fn found(shown: &str) -> SnapshotTarget {
    let walk = with_key();
    let mut targets = walk.snapshot(shown).targets;
    targets.remove(0)
}
