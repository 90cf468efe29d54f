//! The contract of [`rekeyd::ports::Issuer`], one suite for every kind: what a kind's shape lets the machine assume is true of it.
//!
//! A kind's own tests hold what only it has. Each runs this suite on the lab; those of Blob storage on azurite too. (moto runs a part
//! of it, with the tests of `aws_iam`.)

use std::collections::BTreeSet;
use std::sync::Arc;

use rekeyd::model::{IntentId, KeyId, Material, Reason, Secret, Shape};
use rekeyd::net::{Context, Shared};
use rekeyd::ports::{Fault, Forgetful, Issuer, LastUse, ListedKey, Listing, MintedKey, Probe};
use rekeyd_lab::Fault as Mishap;

/// What a test asks of an issuer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Identity,
    List,
    Mint,
    Delete,
}

/// An issuer object with one key in use, room for another, and a rotator that may do everything.
pub trait World: Sync {
    fn issuer(&self) -> Arc<dyn Issuer>;
    fn shape(&self) -> Shape;
    /// The key in use, among those listed.
    fn in_use(&self, listing: &Listing) -> KeyId;
    /// The provider's name of the request behind an operation, for its faults and its log.
    fn request(&self, operation: Operation) -> &'static str;
    /// The next request of this name goes wrong so.
    fn fault(&self, request: &str, mishap: Mishap);
    /// How many requests of this name there were.
    fn sent(&self, request: &str) -> usize;
    /// Takes the right to an operation from the rotator, or gives it back: its name, as a message has it.
    fn allow(&self, operation: Operation, yes: bool) -> String;
    /// Whether the provider tells when a key was last used.
    fn tells_use(&self) -> bool {
        self.shape() == Shape::ShownOnce
    }
    /// Whether the provider shows a secret again, so that one which somebody brings is compared with it.
    fn shows_secrets(&self) -> bool {
        matches!(self.shape(), Shape::Slots | Shape::ClientNamed)
    }
    /// Whether a key that is active can be deleted.
    fn deletes_active_keys(&self) -> bool {
        true
    }
}

/// What a connection needs besides its own tables: no proxy, nothing shared, and nobody who remembers refused logins.
pub fn context() -> Context {
    Context { proxy: None, no_proxy: Vec::new(), guard: Arc::new(Forgetful), shared: Shared::default() }
}

/// Everything the machine relies on, from an object in order to the same object in order.
pub async fn suite(world: &dyn World) {
    let issuer = world.issuer();
    assert_eq!(issuer.identity().await.expect("answers"), issuer.identity().await.expect("answers"));
    let before = issuer.list().await.expect("lists");
    let in_use = world.in_use(&before);
    assert!(before.date.is_some(), "our clock is held against the provider's");
    assert_eq!(ids(&before).len(), before.keys.len(), "every key has a name of its own");
    assert!(listed(&before, &in_use).is_some_and(|key| key.active));

    let (new, replaced) = a_mint_yields_one_listed_key(world, &*issuer, &before, &in_use).await;
    a_key_works_and_another_secret_does_not(world, &*issuer, &new, &in_use).await;
    what_is_reversible_can_be_done_again_and_again(world, &*issuer, &new).await;
    a_deletion_takes_that_key_and_no_other(world, &*issuer, &new.material, &in_use).await;
    a_mint_without_an_answer_is_unknown_and_sent_once(world, &*issuer, &in_use).await;
    nothing_is_asked_twice(world, &*issuer, &in_use).await;
    a_missing_right_is_named_and_does_nothing(world, &*issuer, &in_use).await;
    if let Some(replaced) = replaced {
        let stale = issuer.mint(&IntentId::new("another"), Some(&replaced)).await;
        assert!(matches!(stale, Err(Fault::Refused { reason: Reason::Stranger, .. })), "{stale:?}");
    }
    let after = issuer.list().await.expect("lists");
    assert!(ids(&after).contains(&in_use), "the key in use was never touched");
}

async fn a_mint_yields_one_listed_key(
    world: &dyn World,
    issuer: &dyn Issuer,
    before: &Listing,
    in_use: &KeyId,
) -> (MintedKey, Option<KeyId>) {
    let replaced = idle(world, before, in_use);
    let intent = IntentId::new("01997d2e-r1.1");
    let sent = world.sent(world.request(Operation::Mint));
    let minted = issuer.mint(&intent, replaced.as_ref()).await.expect("mints");
    assert_eq!(world.sent(world.request(Operation::Mint)), sent + 1);
    let (id, after) = (minted.material.key().clone(), issuer.list().await.expect("lists"));
    let new = listed(&after, &id).expect("what was minted is listed");
    assert!(new.active && !ids(before).contains(&id));
    let mut expected = ids(before);
    expected.insert(id);
    if let Some(replaced) = &replaced {
        expected.remove(replaced);
    }
    assert_eq!(ids(&after), expected);
    if tells_the_intent(world.shape()) {
        assert_eq!(new.intent.as_ref(), Some(&intent));
    }
    if world.shape().has_slots() {
        assert_eq!(new.tail, minted.material.secret().tail(), "what targets hold of a slot is known from it");
    }
    assert!(!format!("{minted:?}").contains(minted.material.secret().expose()));
    (minted, replaced)
}

async fn a_key_works_and_another_secret_does_not(
    world: &dyn World,
    issuer: &dyn Issuer,
    minted: &MintedKey,
    in_use: &KeyId,
) {
    assert_eq!(issuer.probe(&minted.material).await, Ok(Probe::Works));
    let wrong = with_secret(&minted.material, &wrong_secret(minted.material.secret()));
    let said = issuer.probe(&wrong).await;
    assert!(matches!(said, Ok(Probe::Wrong(_) | Probe::NotYet(_))), "{said:?}");
    assert!(!format!("{said:?}").contains(wrong.secret().expose()));
    let last_use = issuer.last_use(in_use).await.expect("answers");
    assert_eq!(last_use != LastUse::Untold, world.tells_use(), "{last_use:?}");
    // A secret that an operator brings for a key becomes what targets need of it; where it can be compared, another one is refused.
    let right = minted.material.secret().clone();
    let known = issuer.known(minted.material.key(), Some(right)).await.expect("answers").expect("known");
    assert_eq!(known, minted.material);
    let brought = Secret::new("brought-by-an-operator".to_owned());
    let known = issuer.known(minted.material.key(), Some(brought.clone())).await;
    match world.shape().has_slots() || world.shows_secrets() {
        true => assert!(matches!(known, Err(Fault::Refused { .. })), "{known:?}"),
        false => assert_eq!(known.expect("answers").expect("known").secret(), &brought),
    }
    let shown = issuer.known(minted.material.key(), None).await.expect("answers");
    assert_eq!(shown.is_some(), world.shows_secrets(), "what was made of a key is shown by nobody");
    assert!(shown.is_none_or(|shown| shown == minted.material));
}

async fn what_is_reversible_can_be_done_again_and_again(world: &dyn World, issuer: &dyn Issuer, minted: &MintedKey) {
    let key = minted.material.key();
    if !world.shape().can_disable() {
        for refused in [issuer.disable(key).await, issuer.enable(key).await] {
            assert!(matches!(refused, Err(Fault::Refused { .. })), "{refused:?}");
        }
        assert_eq!(issuer.probe(&minted.material).await, Ok(Probe::Works));
        return;
    }
    for active in [false, false, true, true] {
        match active {
            true => issuer.enable(key).await.expect("enables"),
            false => issuer.disable(key).await.expect("disables"),
        }
        let listing = issuer.list().await.expect("lists");
        assert_eq!(listed(&listing, key).map(|key| key.active), Some(active));
        assert_eq!(issuer.probe(&minted.material).await == Ok(Probe::Works), active);
    }
}

async fn a_deletion_takes_that_key_and_no_other(
    world: &dyn World,
    issuer: &dyn Issuer,
    material: &Material,
    in_use: &KeyId,
) {
    let before = ids(&issuer.list().await.expect("lists"));
    if !world.deletes_active_keys() {
        let refused = issuer.delete(material.key()).await;
        assert!(matches!(refused, Err(Fault::Refused { .. })), "{refused:?}");
        assert_eq!(ids(&issuer.list().await.expect("lists")), before);
        issuer.disable(material.key()).await.expect("disables");
    }
    for _ in 0..2 {
        issuer.delete(material.key()).await.expect("a key that is gone already is a success");
        let after = ids(&issuer.list().await.expect("lists"));
        assert!(!after.contains(material.key()) && after.contains(in_use));
        let fillers = after.difference(&before).count();
        assert_eq!(
            fillers,
            usize::from(world.shape().has_slots()),
            "a slot is never empty, and nothing else comes of it"
        );
    }
    assert_ne!(issuer.probe(material).await, Ok(Probe::Works));
}

async fn a_mint_without_an_answer_is_unknown_and_sent_once(world: &dyn World, issuer: &dyn Issuer, in_use: &KeyId) {
    let request = world.request(Operation::Mint);
    let mishaps = [
        (Mishap::LostReply, 1),
        (Mishap::ErrorAfterCommit(500), 1),
        (Mishap::ErrorAfterCommit(503), 1),
        (Mishap::DropBefore, 0),
        (Mishap::Error(500), 0),
        (Mishap::Html, 0),
        (Mishap::Redirect("https://login.example.com/".to_owned()), 0),
    ];
    for (number, (mishap, made)) in mishaps.into_iter().enumerate() {
        let before = issuer.list().await.expect("lists");
        let (intent, replaced) = (IntentId::new(format!("lost.{number}")), idle(world, &before, in_use));
        let sent = world.sent(request);
        world.fault(request, mishap.clone());
        let fault = issuer.mint(&intent, replaced.as_ref()).await.expect_err("no clean answer");
        assert!(matches!(fault, Fault::Unknown(_)), "{mishap:?}: {fault:?}");
        assert_eq!(world.sent(request), sent + 1, "{mishap:?}");
        // It is settled by looking.
        let after = issuer.list().await.expect("lists");
        let new: Vec<&ListedKey> = after.keys.iter().filter(|key| !ids(&before).contains(&key.id)).collect();
        assert_eq!(new.len(), made, "{mishap:?}");
        if let (Some(replaced), 1) = (&replaced, made) {
            assert!(!ids(&after).contains(replaced));
        }
        for key in new {
            assert!(!tells_the_intent(world.shape()) || key.intent.as_ref() == Some(&intent));
        }
        if world.shape().mint_may_be_repeated() {
            // The same intent yields the same key, however often it is asked for.
            for _ in 0..2 {
                let again = issuer.mint(&intent, replaced.as_ref()).await.expect("mints");
                let now = issuer.list().await.expect("lists");
                let made: Vec<&KeyId> =
                    now.keys.iter().map(|key| &key.id).filter(|id| !ids(&before).contains(id)).collect();
                assert_eq!(made, [again.material.key()], "{mishap:?}");
                assert_eq!(issuer.probe(&again.material).await, Ok(Probe::Works), "{mishap:?}");
            }
        }
        let after = issuer.list().await.expect("lists");
        for key in after.keys.iter().filter(|key| !ids(&before).contains(&key.id)) {
            if !world.deletes_active_keys() {
                issuer.disable(&key.id).await.expect("disables");
            }
            issuer.delete(&key.id).await.expect("deletes");
        }
    }
}

/// No layer beneath the port sends anything again.
async fn nothing_is_asked_twice(world: &dyn World, issuer: &dyn Issuer, in_use: &KeyId) {
    for operation in [Operation::Identity, Operation::List, Operation::Mint, Operation::Delete] {
        let request = world.request(operation);
        // A login page says 200 to everything, and has done nothing.
        for mishap in [Mishap::Throttle, Mishap::Error(500), Mishap::DropBefore, Mishap::Html] {
            let before = issuer.list().await.expect("lists");
            let victim =
                idle(world, &before, in_use).unwrap_or_else(|| KeyId::new("2b1f4d9c-0000-4000-8000-000000000000"));
            let sent = world.sent(request);
            world.fault(request, mishap.clone());
            let fault = match operation {
                Operation::Identity => issuer.identity().await.expect_err("it went wrong"),
                Operation::List => issuer.list().await.expect_err("it went wrong"),
                Operation::Mint => {
                    let replaced = idle(world, &before, in_use);
                    issuer.mint(&IntentId::new("throttled"), replaced.as_ref()).await.expect_err("it went wrong")
                }
                Operation::Delete => issuer.delete(&victim).await.expect_err("it went wrong"),
            };
            match mishap {
                Mishap::Throttle => assert!(matches!(fault, Fault::Retry { .. }), "{operation:?}: {fault:?}"),
                _ => assert!(matches!(fault, Fault::Unknown(_)), "{operation:?}: {fault:?}"),
            }
            assert_eq!(world.sent(request), sent + 1, "{operation:?} {mishap:?}");
        }
    }
}

async fn a_missing_right_is_named_and_does_nothing(world: &dyn World, issuer: &dyn Issuer, in_use: &KeyId) {
    for operation in [Operation::List, Operation::Mint, Operation::Delete] {
        let before = issuer.list().await.expect("lists");
        let right = world.allow(operation, false);
        let refused = match operation {
            Operation::Mint => {
                let replaced = idle(world, &before, in_use);
                issuer.mint(&IntentId::new("another"), replaced.as_ref()).await.map(drop)
            }
            Operation::Delete => {
                let victim = idle(world, &before, in_use).unwrap_or_else(|| in_use.clone());
                issuer.delete(&victim).await
            }
            _ => issuer.list().await.map(drop),
        };
        match refused {
            Err(Fault::Refused { reason: Reason::MissingRight, why }) => {
                assert!(why.contains(&right), "{operation:?}: {why} says nothing of {right}");
            }
            other => panic!("{operation:?} without {right}: {other:?}"),
        }
        world.allow(operation, true);
        assert_eq!(ids(&issuer.list().await.expect("lists")), ids(&before), "{operation:?}");
    }
}

/// The key whose slot a mint may take; none where keys do not live in slots.
fn idle(world: &dyn World, listing: &Listing, in_use: &KeyId) -> Option<KeyId> {
    let idle = || listing.keys.iter().map(|key| &key.id).find(|id| *id != in_use).cloned();
    world.shape().has_slots().then(idle).flatten()
}

/// Whether a listing says for which intent a key was made.
fn tells_the_intent(shape: Shape) -> bool {
    matches!(shape, Shape::Labelled | Shape::ClientNamed)
}

fn ids(listing: &Listing) -> BTreeSet<KeyId> {
    listing.keys.iter().map(|key| key.id.clone()).collect()
}

fn listed<'a>(listing: &'a Listing, id: &KeyId) -> Option<&'a ListedKey> {
    listing.keys.iter().find(|key| key.id == *id)
}

/// As long as the right one and of the same letters.
fn wrong_secret(right: &Secret) -> String {
    let turned = |letter: char| match letter {
        'A'..='Y' | 'a'..='y' => char::from_u32(letter as u32 + 1).unwrap_or('A'),
        other => other,
    };
    right.expose().chars().map(turned).collect()
}

fn with_secret(material: &Material, text: &str) -> Material {
    let mut other = material.clone();
    match &mut other {
        Material::AccessKey { secret, .. }
        | Material::ServicePrincipal { secret, .. }
        | Material::HmacKey { secret, .. }
        | Material::SasToken { token: secret, .. }
        | Material::ApiToken { token: secret, .. }
        | Material::ApiCertificate { pkcs12: secret, .. }
        | Material::StorageAccountKey { key: secret, .. }
        | Material::CosmosAccountKey { key: secret, .. }
        | Material::ServiceBusKey { key: secret, .. } => *secret = Secret::new(text.to_owned()),
    }
    other
}
