//! The written stories: what a rotation and its keys go through when somebody is at the keyboard or something breaks.
//!
//! Most of them hold the rotation in a phase by a fault that stops it there, and let a key on its way out move meanwhile.

use std::time::Duration;

use rekeyd::model::{KeyId, Shape};
use rekeyd::rotation::Phase;

use super::Coverage;
use super::script::{OBJECT, SERVICE, Say, Story, TARGET, What, When};
use super::wild::{set_active, vault};
use crate::faults::{Op, Strike};
use crate::scene::{Cast, Scene};
use crate::world::{Actor, World};

use Phase::{Deleted, Deploying, Disabled, Minted, Minting, Opened, Ready, Soaking};
use What::{Change, Type};
use When::{After, AtRest, Halted, In, Wrote};

type Line = (When, What);

/// Tells every story.
pub fn tell_all(coverage: &mut Coverage) {
    for story in all() {
        let (history, stuck) = story.play();
        coverage.see(&history);
        if let Some(stuck) = stuck {
            let last = history.story.iter().rev().take(12).rev().cloned().collect::<Vec<_>>().join("\n    ");
            coverage.wrong.insert(format!("{stuck}; it ends\n    {last}"));
        }
    }
}

fn all() -> Vec<Story> {
    let mut stories = vec![
        a_consumer_fails_while_the_old_key_is_being_disabled(),
        a_stranger_appears_while_a_refused_key_is_taken_back(),
        a_stranger_is_disowned_while_a_key_that_never_worked_is_taken_back(),
        everything_is_typed_while_a_repush_is_read_back(),
        a_stranger_is_reclaimed_while_a_mint_is_unknown(),
        a_debt_is_refused_while_the_old_key_is_seen_gone(),
        a_target_is_taken_over_while_the_old_key_is_seen_gone(),
        a_target_is_taken_over_just_before_the_push(),
        keys_are_left_behind_and_come_back_to(),
    ];
    for phase in [Soaking, Disabled, Deleted] {
        stories.push(the_current_key_is_inactive_for_a_while(phase));
    }
    for phase in [Opened, Minting, Minted, Ready, Deploying, Soaking] {
        stories.push(a_debt_is_refused(phase));
    }
    for phase in [Opened, Minting, Minted, Ready, Deploying, Soaking, Disabled, Deleted] {
        stories.push(a_key_owed_to_a_consumer_is_enabled_late(Some(phase)));
    }
    for phase in [Opened, Minting, Minted, Ready, Deploying, Soaking] {
        stories.push(a_debt_is_listed_again(phase));
    }
    stories.push(a_key_owed_to_a_consumer_is_enabled_late(None));
    for phase in [Opened, Minting, Minted, Ready, Deploying, Soaking, Disabled, Deleted] {
        stories.push(an_operator_says_everything(phase));
    }
    for phase in [Ready, Deploying, Soaking, Disabled] {
        stories.push(an_operator_rolls_back(phase));
    }
    for phase in [Opened, Minting, Soaking, Disabled, Deleted] {
        stories.push(a_stranger_is_seen_and_disowned(phase));
    }
    for phase in [Ready, Deploying] {
        stories.push(a_stranger_is_disowned_during_a_repush(phase));
    }
    for phase in [Soaking, Disabled, Deleted] {
        stories.push(a_debt_goes_its_whole_way(phase));
    }
    stories.extend([
        an_operator_says_everything_at_rest(),
        a_debt_is_refused_at_rest(),
        a_debt_is_listed_again_at_rest(),
        a_debt_is_listed_again_while_the_old_key_is_watched(),
        the_current_key_is_inactive_for_a_while_at_rest(),
        a_key_stops_working_between_two_probes(),
        a_key_stops_working_just_before_its_push(),
        a_key_stops_working_between_two_pushes(),
        a_job_fails(),
        the_old_key_is_listed_for_long(),
    ]);
    stories
}

fn story(title: impl Into<String>, stage: fn(&mut World), lines: Vec<Line>) -> Story {
    let title = title.into();
    let scene = Scene::new(title.clone(), vec![Cast::new(SERVICE, Shape::ShownOnce, 1)]);
    Story { title, scene, stage, lines }
}

// Changes of the world, by name.

fn nothing(_: &mut World) {}

fn roomy(world: &mut World) {
    vault(world).quota = None;
}

fn stranger(world: &mut World) {
    let id = KeyId::new(format!("HUMAN{}", world.number()));
    let _ = world.make(OBJECT, id, Actor::Human, None, false);
}

/// Somebody makes a key and puts it into the target.
fn taken_over(world: &mut World) {
    let (id, now) = (KeyId::new("TAKEN-OVER"), world.now());
    let _ = world.make(OBJECT, id.clone(), Actor::Human, None, false);
    world.put(TARGET, &id, Actor::Human, now);
}

fn room_and_a_stranger(world: &mut World) {
    roomy(world);
    stranger(world);
}

/// There is room, somebody else's key, and it cannot be disabled.
fn a_debt_that_cannot_be_disabled(world: &mut World) {
    room_and_a_stranger(world);
    fails(world, Op::Disable);
}

fn a_debt_that_cannot_be_deleted(world: &mut World) {
    room_and_a_stranger(world);
    fails(world, Op::Delete);
}

/// A consumer that is watched, and a key whose secret nobody holds.
fn watched_and_not_held(world: &mut World) {
    roomy(world);
    world.shelves[0].materials.clear();
    world.places.values_mut().for_each(|place| place.watched = true);
}

fn fails(world: &mut World, op: Op) {
    world.down.insert(op, Strike::NotSent);
}

/// A new key is not known everywhere for a minute.
fn slow(world: &mut World) {
    vault(world).propagation = Duration::from_secs(60);
}

fn sick(world: &mut World) {
    world.places.values_mut().for_each(|place| place.sick = true);
}

fn well(world: &mut World) {
    world.places.values_mut().for_each(|place| place.sick = false);
}

fn current_is_active(world: &mut World, active: bool) {
    let key = world.places[TARGET].holds.clone().expect("a target holds a key from the start");
    set_active(world, &key, active);
}

/// What keeps a rotation in a phase once it is there, and how that is noticed.
fn held_in(phase: Phase) -> Vec<Line> {
    let now = After(0);
    match phase {
        Opened => vec![
            (now, Change(|world| _ = world.down.insert(Op::Reserve, Strike::WriteFails))),
            (Wrote("opened"), Change(nothing)),
        ],
        Minting => vec![
            (now, Change(|world| _ = world.down.insert(Op::Mint, Strike::Lost))),
            (Wrote("mint_unknown"), Change(nothing)),
        ],
        Minted => vec![
            (now, Change(|world| vault(world).propagation = Duration::from_secs(500))),
            (Wrote("minted"), Change(nothing)),
        ],
        Ready => vec![(Wrote("minted"), Change(|world| fails(world, Op::Inspect))), (In(Ready), Change(nothing))],
        Deploying => vec![
            (now, Change(|world| world.places.values_mut().for_each(|place| place.takes = Duration::from_secs(500)))),
            (Wrote("submitted"), Change(nothing)),
        ],
        later => vec![(In(later), Change(nothing))],
    }
}

// The stories.

/// Every order that does not end the rotation, in one phase; and then its end, where an operator may end it there.
fn an_operator_says_everything(phase: Phase) -> Story {
    let mut lines = vec![(Halted, Type(Say::Disown))];
    lines.extend(held_in(phase));
    let sayings = [Say::Pause, Say::Resume, Say::ReclaimDisowned, Say::DespiteUse, Say::AdoptOld, Say::Retry];
    lines.extend(sayings.map(|say| (After(0), Type(say))));
    // A key that is deleted cannot be spoken of any more.
    let last = if phase == Deleted { "despite_use_ordered" } else { "adopted" };
    lines.push((Wrote(last), Change(nothing)));
    if !matches!(phase, Minting | Deploying) {
        lines.extend([(After(0), Type(Say::Abandon)), (Wrote("closed"), Change(nothing))]);
    }
    story(format!("an operator says everything ({phase:?})"), room_and_a_stranger, lines)
}

fn an_operator_says_everything_at_rest() -> Story {
    let sayings =
        [Say::Pause, Say::Resume, Say::Pause, Say::Disown, Say::Reclaim, Say::DespiteUse, Say::AdoptHeld, Say::Rotate];
    let mut lines = vec![(Halted, Change(nothing as fn(&mut World)))];
    lines.extend(sayings.map(|say| (After(0), Type(say))));
    // The journal begins with an adoption; this is the second.
    lines.extend([(Wrote("despite_use_ordered"), Change(nothing)), (Wrote("adopted"), Change(nothing))]);
    story("an operator says everything at rest", room_and_a_stranger, lines)
}

fn an_operator_rolls_back(phase: Phase) -> Story {
    let mut lines = match phase {
        Deploying => vec![
            (Wrote("minted"), Change((|world| fails(world, Op::Push)) as fn(&mut World))),
            (Wrote("push_failed"), Change(nothing)),
        ],
        other => held_in(other),
    };
    lines.extend([
        (After(0), Type(Say::Rollback)),
        (Wrote("rollback_begun"), Change(|world| world.down.clear())),
        (Wrote("verified"), Change(nothing)),
        (Wrote("closed"), Change(nothing)),
    ]);
    story(format!("an operator rolls back ({phase:?})"), roomy, lines)
}

fn a_stranger_is_seen_and_disowned(phase: Phase) -> Story {
    let mut lines = match phase {
        Opened => vec![(Wrote("opened"), Change(nothing as fn(&mut World)))],
        other => held_in(other),
    };
    lines.extend([
        (After(0), Change(stranger as fn(&mut World))),
        (After(0), Type(Say::Retry)),
        (Wrote("strangers_seen"), Type(Say::Disown)),
        (Wrote("disowned"), Change(nothing)),
    ]);
    story(format!("a stranger is seen and disowned ({phase:?})"), roomy, lines)
}

fn a_stranger_is_disowned_during_a_repush(phase: Phase) -> Story {
    let mut lines = vec![
        (Wrote("closed"), Change(stranger as fn(&mut World))),
        (After(0), Type(Say::Retry)),
        (Wrote("strangers_seen"), Type(Say::Repush)),
        (Wrote("opened"), Change(nothing)),
    ];
    lines.extend(match phase {
        Ready => vec![(After(0), Change((|world| fails(world, Op::Inspect)) as fn(&mut World)))],
        other => held_in(other),
    });
    lines.extend([
        (After(0), Type(Say::Disown)),
        (Wrote("disowned"), Type(Say::ReclaimDisowned)),
        (Wrote("reclaim_ordered"), Type(Say::DespiteUse)),
        (Wrote("despite_use_ordered"), Change(nothing)),
    ]);
    story(format!("a stranger is disowned during a repush ({phase:?})"), roomy, lines)
}

/// From being disabled to being gone, while the old key goes the same way.
fn a_debt_goes_its_whole_way(phase: Phase) -> Story {
    let lines = vec![
        (Halted, Type(Say::Disown)),
        (In(phase), Type(Say::ReclaimDisowned)),
        (Wrote("reclaim_ordered"), Change(nothing as fn(&mut World))),
        (Wrote("disable_begun"), Change(nothing)),
        (Wrote("gone"), Change(nothing)),
    ];
    story(format!("a debt goes its whole way ({phase:?})"), room_and_a_stranger, lines)
}

fn a_debt_is_listed_again_while_the_old_key_is_watched() -> Story {
    let lines = vec![
        (Halted, Type(Say::Disown)),
        (In(Disabled), Type(Say::ReclaimDisowned)),
        (Wrote("absent_once"), Change(|world: &mut World| vault(world).lag = Duration::from_secs(600))),
        (Wrote("reappeared"), Change(nothing)),
    ];
    story("a debt is listed again while the old key is watched", room_and_a_stranger, lines)
}

fn a_debt_is_refused_at_rest() -> Story {
    let lines = vec![
        (Halted, Type(Say::Pause)),
        (After(0), Type(Say::Reclaim)),
        (Wrote("disable_begun"), Change(|world: &mut World| _ = world.down.insert(Op::Disable, Strike::Refused))),
        (After(0), Type(Say::Retry)),
        (Wrote("retire_refused"), Change(nothing)),
    ];
    story("a debt is refused at rest", a_debt_that_cannot_be_disabled, lines)
}

fn a_debt_is_listed_again_at_rest() -> Story {
    let lines = vec![
        (Halted, Type(Say::Pause)),
        (After(0), Type(Say::Reclaim)),
        (Wrote("delete_begun"), Change(|world: &mut World| _ = world.down.remove(&Op::Delete))),
        (Wrote("absent_once"), Change(|world| vault(world).lag = Duration::from_secs(600))),
        (Wrote("reappeared"), Change(|world| vault(world).lag = Duration::ZERO)),
        (Wrote("gone"), Change(nothing)),
    ];
    story("a debt is listed again at rest", a_debt_that_cannot_be_deleted, lines)
}

fn a_key_stops_working_between_two_probes() -> Story {
    let lines = vec![
        (Wrote("probe_passed"), Change(slow as fn(&mut World))),
        (Wrote("probe_failed"), Change(nothing)),
        (Wrote("closed"), Change(nothing)),
    ];
    story("a key stops working between two probes", nothing, lines)
}

fn a_key_stops_working_just_before_its_push() -> Story {
    let lines = vec![
        (In(Ready), Change(slow as fn(&mut World))),
        (Wrote("probe_failed"), Change(nothing)),
        (Wrote("closed"), Change(nothing)),
    ];
    story("a key stops working just before its push", nothing, lines)
}

fn a_key_stops_working_between_two_pushes() -> Story {
    let lines = vec![
        (Wrote("minted"), Change((|world| fails(world, Op::Push)) as fn(&mut World))),
        (Wrote("push_failed"), Change(slow)),
        (Wrote("probe_failed"), Change(|world| world.down.clear())),
        (Wrote("closed"), Change(nothing)),
    ];
    story("a key stops working between two pushes", nothing, lines)
}

fn a_job_fails() -> Story {
    let lines = vec![
        (
            Wrote("push_begun"),
            Change(|world: &mut World| world.places.values_mut().for_each(|place| place.failing = 1)),
        ),
        (Wrote("job_failed"), Change(nothing)),
        (Wrote("closed"), Change(nothing)),
    ];
    story("a job fails", nothing, lines)
}

fn the_old_key_is_listed_for_long() -> Story {
    let lines = vec![
        (Wrote("delete_begun"), Change(|world: &mut World| vault(world).lag = Duration::from_secs(300))),
        (Wrote("reappeared"), Change(nothing)),
    ];
    story("the old key is listed for long", nothing, lines)
}

/// A debt that could not be disabled is refused, and then disabled, in the middle of a phase.
fn a_debt_is_refused(phase: Phase) -> Story {
    let mut lines = vec![(Halted, Type(Say::Reclaim))];
    lines.extend(held_in(phase));
    lines.extend([
        (After(0), Change(|world: &mut World| _ = world.down.insert(Op::Disable, Strike::Refused))),
        (After(0), Type(Say::Retry)),
        (Wrote("retire_refused"), Change(|world| _ = world.down.remove(&Op::Disable))),
        (After(0), Type(Say::Retry)),
        (Wrote("disabled"), Change(nothing)),
    ]);
    story(format!("a debt is refused ({phase:?})"), a_debt_that_cannot_be_disabled, lines)
}

/// A debt is deleted at last, is listed again, and is gone, in the middle of a phase.
fn a_debt_is_listed_again(phase: Phase) -> Story {
    let mut lines = vec![(Halted, Type(Say::Reclaim))];
    lines.extend(held_in(phase));
    lines.extend([
        // Neither a lost mint nor an old key goes any further without a reading of the targets.
        (After(0), Change(|world: &mut World| fails(world, Op::Read))),
        (After(0), Change(|world| _ = world.down.remove(&Op::Delete))),
        (After(0), Type(Say::Retry)),
        (Wrote("absent_once"), Change(|world| vault(world).lag = Duration::from_secs(600))),
        (Wrote("reappeared"), Change(|world| vault(world).lag = Duration::ZERO)),
        (Wrote("absent_once"), Change(nothing)),
        (Wrote("gone"), Change(nothing)),
    ]);
    story(format!("a debt is listed again ({phase:?})"), a_debt_that_cannot_be_deleted, lines)
}

/// A consumer fails once its old key is disabled; the rotation is abandoned, and the key enabled only in a phase of the next one.
fn a_key_owed_to_a_consumer_is_enabled_late(phase: Option<Phase>) -> Story {
    let mut lines = vec![
        (In(Disabled), Change(sick)),
        (After(0), Change(|world: &mut World| fails(world, Op::Enable))),
        (Wrote("enable_begun"), Type(Say::Abandon)),
        (Wrote("closed"), Change(well)),
    ];
    if let Some(phase) = phase {
        lines.push((After(0), Type(Say::Rotate)));
        lines.extend(held_in(phase));
    }
    lines.extend([
        (After(0), Change(|world: &mut World| _ = world.down.remove(&Op::Enable))),
        (After(0), Type(Say::Retry)),
        (Wrote("enabled"), Change(nothing)),
    ]);
    story(format!("a key owed to a consumer is enabled late ({phase:?})"), watched_and_not_held, lines)
}

fn a_consumer_fails_while_the_old_key_is_being_disabled() -> Story {
    let lines = vec![
        (In(Soaking), Change(|world: &mut World| fails(world, Op::Disable))),
        (Wrote("disable_begun"), Change(sick)),
        (Wrote("enable_begun"), Change(nothing)),
        (Wrote("enabled"), Change(nothing)),
    ];
    story("a consumer fails while the old key is being disabled", watched_and_not_held, lines)
}

fn a_stranger_appears_while_a_refused_key_is_taken_back() -> Story {
    let lines = vec![
        (Wrote("minted"), Change(|world: &mut World| _ = world.down.insert(Op::Push, Strike::Refused))),
        (Wrote("push_begun"), Change(stranger)),
        (Wrote("undo_begun"), Change(nothing)),
        (Wrote("strangers_seen"), Type(Say::Disown)),
        (Wrote("closed"), Change(nothing)),
    ];
    story("a stranger appears while a refused key is taken back", roomy, lines)
}

fn a_stranger_is_disowned_while_a_key_that_never_worked_is_taken_back() -> Story {
    let lines = vec![
        (After(0), Change(|world: &mut World| vault(world).propagation = Duration::from_secs(3600))),
        (Wrote("minted"), Change(stranger)),
        (Wrote("undo_begun"), Change(nothing)),
        (Wrote("strangers_seen"), Type(Say::Disown)),
        (Wrote("disowned"), Type(Say::ReclaimDisowned)),
        (Wrote("reclaim_ordered"), Type(Say::DespiteUse)),
        (Wrote("closed"), Change(nothing)),
    ];
    story("a stranger is disowned while a key that never worked is taken back", roomy, lines)
}

fn everything_is_typed_while_a_repush_is_read_back() -> Story {
    let mut lines = vec![
        (Wrote("closed"), Change(stranger as fn(&mut World))),
        (After(0), Type(Say::Retry)),
        (Wrote("strangers_seen"), Type(Say::Repush)),
        (Wrote("confirmed"), Change(nothing)),
    ];
    // All of it is obeyed once the read-back is over, before the rotation is closed.
    let sayings = [
        Say::Retry,
        Say::Pause,
        Say::Resume,
        Say::Disown,
        Say::Reclaim,
        Say::DespiteUse,
        Say::AdoptHeld,
        Say::AbandonNothing,
    ];
    lines.extend(sayings.map(|say| (After(0), Type(say))));
    lines.push((Wrote("closed"), Change(nothing)));
    story("everything is typed while a repush is read back", roomy, lines)
}

fn a_stranger_is_reclaimed_while_a_mint_is_unknown() -> Story {
    let mut lines = vec![(Halted, Type(Say::Disown))];
    lines.extend(held_in(Minting));
    lines.extend([
        (After(0), Type(Say::ReclaimDisowned)),
        (Wrote("absent_once"), Change(nothing as fn(&mut World))),
        (Wrote("mint_settled"), Change(nothing)),
    ]);
    story("a stranger is reclaimed while a mint is unknown", room_and_a_stranger, lines)
}

fn a_debt_is_refused_while_the_old_key_is_seen_gone() -> Story {
    let lines = vec![
        (Halted, Type(Say::Disown)),
        (In(Deleted), Change(|world: &mut World| _ = world.down.insert(Op::Disable, Strike::Refused))),
        (After(0), Type(Say::ReclaimDisowned)),
        (Wrote("retire_refused"), Change(nothing)),
    ];
    story("a debt is refused while the old key is seen gone", room_and_a_stranger, lines)
}

/// A debt's evidence finds another key at the target, and the operator says that it stays: the rotation ends there.
fn a_target_is_taken_over_while_the_old_key_is_seen_gone() -> Story {
    let lines = vec![
        (Halted, Type(Say::Disown)),
        (In(Deleted), Change(taken_over as fn(&mut World))),
        (After(0), Type(Say::ReclaimDisowned)),
        (Wrote("reclaim_ordered"), Change(nothing)),
        (Wrote("halted"), Change(nothing)),
        (After(10), Type(Say::AdoptHeld)),
        (Wrote("adopted"), Change(nothing)),
    ];
    story("a target is taken over while the old key is seen gone", room_and_a_stranger, lines)
}

/// What is listed then is newer than the journal, and it says so.
fn a_target_is_taken_over_just_before_the_push() -> Story {
    let lines = vec![
        (Wrote("probe_passed"), Change(taken_over as fn(&mut World))),
        (Wrote("strangers_seen"), Change(nothing)),
        (After(10), Type(Say::AdoptHeld)),
        (Wrote("adopted"), Change(nothing)),
    ];
    story("a target is taken over just before the push", roomy, lines)
}

/// To a role and back to a key, with everything in between that an operator may say of it.
fn keys_are_left_behind_and_come_back_to() -> Story {
    let lines = vec![
        (Wrote("closed"), Type(Say::Switch)),
        (Wrote("switch_ordered"), Type(Say::Rotate)),
        (In(Soaking), Type(Say::Switch)),
        (Wrote("closed"), Type(Say::Rotate)),
        (After(0), Type(Say::Repush)),
        (Wrote("closed"), Type(Say::SwitchBack)),
        (Wrote("switch_ordered"), Change(nothing as fn(&mut World))),
        (Wrote("closed"), Change(nothing)),
    ];
    story("keys are left behind and come back to", roomy, lines)
}

/// Somebody disables the key in use, and enables it again: drift that comes and goes.
fn the_current_key_is_inactive_for_a_while(phase: Phase) -> Story {
    let mut lines = vec![(In(phase), Change(nothing as fn(&mut World)))];
    lines.extend(inactive_for_a_while());
    story(format!("the current key is inactive for a while ({phase:?})"), nothing, lines)
}

fn the_current_key_is_inactive_for_a_while_at_rest() -> Story {
    let mut lines = vec![(Wrote("closed"), Change(nothing as fn(&mut World)))];
    lines.extend(inactive_for_a_while());
    story("the current key is inactive for a while at rest", nothing, lines)
}

fn inactive_for_a_while() -> [Line; 6] {
    [
        (After(0), Change(|world| current_is_active(world, false))),
        (After(0), Type(Say::Retry)),
        (Wrote("drift_found"), Change(|world| current_is_active(world, true))),
        (After(0), Type(Say::Retry)),
        (Wrote("drift_cleared"), Change(nothing)),
        (AtRest, Change(nothing)),
    ]
}
