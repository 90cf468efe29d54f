//! One service: its account, its keys, the clocks, and whether each target would take a key now. Asks, and judges what was said.

use std::collections::BTreeMap;

use chrono::{SecondsFormat, TimeDelta};

use crate::model::{
    AccountIdentity, Instant, IssuerSpec, KeyId, Material, ServiceName, Shape, SystemRef, TargetSpec, Timestamp,
};
use crate::policy::{self, Policy};
use crate::ports::{Fault, Inspection, LastUse, ListedKey, Listing, Probe, Reading, Standing};
use crate::rotation::ServiceState;
use crate::rotation::evidence::CLOCK_DIFFERENCE_MAX;

use super::super::StateWord;
use super::super::advice::login_at;
use super::told::{Finding, Key, KeyStanding, Level, Service};
use super::{Asked, Examiner, of_fault, of_standing};

/// From here on the clocks are worth a look before they stop anything.
const CLOCK_DIFFERENCE_NOTED: TimeDelta = TimeDelta::seconds(60);

/// What the issuer said.
struct Seen {
    account: Result<AccountIdentity, Fault>,
    /// None where the account could not even be asked.
    listing: Option<Result<Listing, Fault>>,
    /// Just after the listing.
    now: Instant,
    last_use: Option<(KeyId, Result<LastUse, Fault>)>,
    rights: Option<Result<Option<Standing>, Fault>>,
}

impl Seen {
    /// The account could not even be asked.
    fn nothing(account: Result<AccountIdentity, Fault>, now: Instant) -> Self {
        Self { account, listing: None, now, last_use: None, rights: None }
    }
}

impl Examiner {
    pub(super) async fn service(&self, service: &policy::Service, asked: &BTreeMap<SystemRef, Asked>) -> Service {
        let rest = ServiceState::default();
        let state = self.records.states.get(&service.name).unwrap_or(&rest);
        let mut told = Service {
            name: service.name.to_string(),
            issuer: service.issuer.object.clone(),
            targets: service.targets.iter().map(|target| target.name.to_string()).collect(),
            account: None,
            keys: None,
            quota: None,
            clock_ahead_seconds: None,
            findings: self.halted(&service.name).into_iter().collect(),
        };
        let seen = self.look_at_issuer(&service.issuer, state).await;
        // Where the journal knows a current key, a target without one is drift, and no reason to do without the key.
        let needs_none =
            state.current.is_none() && service.targets.iter().all(|spec| keyless_at(spec, asked).is_some());
        note_issuer(&mut told, service, state, seen, needs_none, &self.policy);
        if let Some(finding) = self.probed(service, state).await {
            told.findings.push(finding);
        }
        for spec in &service.targets {
            let finding = self.target(spec, service, state, asked).await;
            told.findings.push(finding);
        }
        if self.moved_meanwhile(service, state) {
            let is_judged_by_it = |finding: &&mut Finding| {
                finding.about == "keys" || service.targets.iter().any(|target| target.name.as_str() == finding.about)
            };
            told.findings.iter_mut().filter(is_judged_by_it).for_each(excuse);
        }
        told
    }

    /// Whether the journal that the answers were held against is not the one of the moment when they were given.
    fn moved_meanwhile(&self, service: &policy::Service, state: &ServiceState) -> bool {
        let is_halted = self.halted(&service.name).is_some();
        let current = state.current.as_ref().filter(|_| !is_halted);
        current.is_some_and(|current| !(self.is_at_rest)(&service.name, &current.key))
    }

    fn halted(&self, name: &ServiceName) -> Option<Finding> {
        let report = self.records.report.services.iter().find(|report| report.name == *name)?;
        let reason = report.reason.filter(|_| report.state == StateWord::Halted)?;
        let said = format!("halted ({reason}): {}", report.message.as_deref().unwrap_or_default());
        Some(Finding::trouble("state", said, report.next_command.clone()))
    }

    async fn look_at_issuer(&self, spec: &IssuerSpec, state: &ServiceState) -> Seen {
        let at = &spec.object;
        let port = match self.connect.issuer(spec) {
            Ok(port) => port,
            Err(fault) => return Seen::nothing(Err(fault), self.clock.now()),
        };
        let asked = port.clone();
        let account = self.bounded(at, "identity", async move { asked.identity().await }).await;
        if account.is_err() {
            return Seen::nothing(account, self.clock.now());
        }
        let asked = port.clone();
        let rights = self.bounded(at, "rights", async move { asked.rights().await }).await;
        let asked = port.clone();
        let listing = self.bounded(at, "list", async move { asked.list().await }).await;
        let now = self.clock.now();
        // Any key will do to see that its use can be read.
        let key = match &listing {
            Ok(listing) => {
                let current = state.current.as_ref().map(|current| &current.key);
                let listed = listing.keys.iter().map(|listed| &listed.id);
                current.filter(|current| listed.clone().any(|key| key == *current)).or(listed.clone().next()).cloned()
            }
            Err(_) => None,
        };
        let last_use = match key {
            Some(key) => {
                let of = key.clone();
                Some((key, self.bounded(at, "last_use", async move { port.last_use(&of).await }).await))
            }
            None => None,
        };
        Seen { account, listing: Some(listing), now, last_use, rights: Some(rights) }
    }

    /// Uses the current key as its consumer does, while nothing moves: a key that may be on its way out must stay silent.
    async fn probed(&self, service: &policy::Service, state: &ServiceState) -> Option<Finding> {
        let current = state.current.as_ref()?;
        if let Some(keyless) = state.uses_no_key() {
            let said =
                format!("it uses {keyless} and no key; whether that may use the store, only its consumer can tell");
            return Some(Finding::ok("probe", said));
        }
        let key = &current.key;
        let not = |why: &str| Some(Finding::ok("probe", format!("current key {key} was not probed: {why}")));
        let material: Material = match self.records.held.get(&service.name) {
            Some(Ok(material)) if material.key() == key => material.clone(),
            Some(Err(why)) => return not(why),
            _ => return not("its secret is not held (rekeyd adopt with --secret-file brings it)"),
        };
        if state.rotation.is_some() || !(self.is_at_rest)(&service.name, key) {
            return not("a rotation is open, or something happens just now");
        }
        let spec = state.home.as_ref().unwrap_or(&service.issuer);
        let port = match self.connect.issuer(spec) {
            Ok(port) => port,
            Err(fault) => return not(fault.why()),
        };
        let answer = self.bounded(&spec.object, "probe", async move { port.probe(&material).await }).await;
        let broken = |why: &str| {
            let next =
                format!("mend the key at its issuer, or rekeyd rotate {}; rekeyd status says more", service.name);
            Some(Finding::trouble("probe", format!("current key {key} does not work: {why}"), Some(next)))
        };
        match answer {
            Ok(Probe::Works) => Some(Finding::ok("probe", format!("current key {key} works as its consumer uses it"))),
            Ok(Probe::NotYet(why) | Probe::Wrong(why)) => broken(&why),
            Ok(Probe::NotAllowed(why)) => {
                let said = format!("current key {key} authenticates and may not do what the probe asks: {why}");
                let next = "allow it, or say expect = \"authenticates\" in the probe".to_owned();
                Some(Finding::trouble("probe", said, Some(next)))
            }
            Err(fault) => Some(of_fault("probe", &fault, spec.system.as_ref(), &self.policy)),
        }
    }

    async fn target(
        &self,
        spec: &TargetSpec,
        service: &policy::Service,
        state: &ServiceState,
        asked: &BTreeMap<SystemRef, Asked>,
    ) -> Finding {
        let name = spec.name.as_str();
        let deployment = spec.system.as_ref().and_then(|system| asked.get(system));
        if let Some(deployment) = deployment.filter(|deployment| !deployment.is_reached) {
            return Finding::warning(name, format!("not asked, since {} could not be", deployment.told.name), None);
        }
        if let Some(kind) = keyless_at(spec, asked).filter(|kind| needs_no_look(kind, state)) {
            return Finding::ok(name, format!("its credential is {kind}, which holds no key: nothing to rotate"));
        }
        let port = match self.connect.target(spec) {
            Ok(port) => port,
            Err(fault) => return of_fault(name, &fault, spec.system.as_ref(), &self.policy),
        };
        match self.bounded(name, "inspect", async move { port.inspect().await }).await {
            Ok(inspection) => of_inspection(name, &inspection, &service.name, state),
            // Its own job is what keeps others out.
            Err(Fault::Retry { why, .. }) if state.rotation.is_some() => {
                Finding::ok(name, format!("a rotation is open, and the target takes nothing else now: {why}"))
            }
            Err(fault @ Fault::Retry { .. }) => {
                Finding { level: Level::Warning, ..of_fault(name, &fault, spec.system.as_ref(), &self.policy) }
            }
            Err(fault) => of_fault(name, &fault, spec.system.as_ref(), &self.policy),
        }
    }
}

/// What contradicts the journal while a rotation goes on may be the rotation's own doing.
fn excuse(finding: &mut Finding) {
    if finding.level == Level::Trouble {
        let said = format!("{}; a rotation goes on just now, so look again when it is over", finding.said);
        *finding = Finding::warning(finding.about.clone(), said, None);
    }
}

/// What a target has in place of a key, by its deployment's own word.
fn keyless_at<'a>(spec: &TargetSpec, asked: &'a BTreeMap<SystemRef, Asked>) -> Option<&'a str> {
    let deployment = asked.get(spec.system.as_ref()?)?;
    let (_, kind) = deployment.keyless.iter().find(|(holder, _)| *holder == spec.name)?;
    Some(kind)
}

/// Whether a credential of a type without a key is what is to be there: nothing else is known, or the service was switched to it.
/// Anywhere else it would stop a rotation, and is looked at as one would.
fn needs_no_look(kind: &str, state: &ServiceState) -> bool {
    state.current.is_none() || state.uses_no_key().is_some_and(|keyless| keyless.word().eq_ignore_ascii_case(kind))
}

fn note_issuer(
    told: &mut Service,
    service: &policy::Service,
    state: &ServiceState,
    seen: Seen,
    needs_none: bool,
    policy: &Policy,
) {
    let system = service.issuer.system.as_ref();
    let account = match seen.account {
        Ok(account) => account,
        Err(fault) => return told.findings.push(of_fault("issuer", &fault, system, policy)),
    };
    told.account = Some(account.to_string());
    if let Some(known) = state.account.as_ref().filter(|known| **known != account) {
        let said =
            format!("{} answers as account {account}, and the journal knows it as {known}", service.issuer.object);
        let next = match system {
            Some(system) => {
                format!("correct the login or the address of [{system}], then {}", login_at(system, policy).command())
            }
            None => "correct what the program is given in the policy, then systemctl reload rekeyd".to_owned(),
        };
        told.findings.push(Finding::trouble("issuer", said, Some(next)));
    }
    match seen.rights {
        Some(Ok(Some(standing))) => {
            let next = "grant what it names, if a rotation halts with missing-right".to_owned();
            told.findings.push(of_standing(standing, next));
        }
        Some(Err(fault)) => told.findings.push(of_fault("rights", &fault, system, policy)),
        Some(Ok(None)) | None => {}
    }
    let Some(listing) = seen.listing else { return };
    let listing = match listing {
        Ok(listing) => listing,
        Err(fault) => return told.findings.push(of_fault("keys", &fault, system, policy)),
    };
    told.quota = listing.quota;
    let moves = state.home.as_ref().is_some_and(|home| home.object != service.issuer.object);
    told.keys = Some(listing.keys.iter().map(|listed| key(listed, state)).collect());
    let is_at_rest = state.rotation.is_none() && state.leaving.is_empty();
    told.findings.push(match state.uses_no_key() {
        Some(_) => of_leftovers(&listing, state),
        None if needs_none && is_at_rest => of_leftovers(&listing, state),
        None => of_keys(&service.name, &listing, state, moves, service.issuer.shape),
    });
    told.findings.extend(of_clock(&listing, &seen.now));
    told.clock_ahead_seconds = listing.date.map(|date| (date - seen.now.wall).num_seconds());
    told.findings.extend(seen.last_use.map(|(key, answer)| of_use(&key, answer, system, policy)));
}

fn key(listed: &ListedKey, state: &ServiceState) -> Key {
    let id = &listed.id;
    let standing = match &state.current {
        Some(current) if current.key == *id => KeyStanding::Current,
        _ if state.disowned.contains(id) => KeyStanding::Disowned,
        _ if state.explains(id) => KeyStanding::InRotation,
        None => KeyStanding::Unknown,
        Some(_) => KeyStanding::Stranger,
    };
    Key { id: id.to_string(), active: listed.active, standing }
}

/// Where no target needs a key, an active one that the journal cannot explain serves nobody that rekeyd knows. A key it can explain
/// is on its way out or in, and nobody else's to delete.
fn of_leftovers(listing: &Listing, state: &ServiceState) -> Finding {
    let needs = match state.uses_no_key() {
        Some(keyless) => format!("it uses {keyless} and no key"),
        None => "no target holds a key".to_owned(),
    };
    let active = || listing.keys.iter().filter(|listed| listed.active).map(|listed| &listed.id);
    let left: Vec<_> = active().filter(|key| !state.explains(key)).map(KeyId::as_str).collect();
    if !left.is_empty() {
        let said = format!("{needs}, and active at the issuer are {}", left.join(", "));
        let next = "see by its last use that nobody needs it, then delete it at the issuer".to_owned();
        return Finding::warning("keys", said, Some(next));
    }
    let explained: Vec<_> = active().map(KeyId::as_str).collect();
    match explained.is_empty() {
        true => Finding::ok("keys", format!("{needs}, and none is active")),
        false => Finding::ok(
            "keys",
            format!("{needs}; active are only keys that the journal knows: {}", explained.join(", ")),
        ),
    }
}

/// The keys against what the journal knows: what a rotation would find when it opens.
fn of_keys(name: &ServiceName, listing: &Listing, state: &ServiceState, moves: bool, shape: Shape) -> Finding {
    let count = listing.keys.len();
    let of_quota = listing.quota.map_or_else(String::new, |quota| format!(" of {quota}"));
    let ids = |keys: &[&ListedKey]| keys.iter().map(|listed| listed.id.as_str()).collect::<Vec<_>>().join(", ");
    let all: Vec<&ListedKey> = listing.keys.iter().collect();
    let free = if shape.has_slots() { " --idle-slot-free" } else { "" };
    let adopt = |key: &str| Some(format!("rekeyd adopt {name} {key}{free}, with the key that the targets use now"));
    let Some(current) = &state.current else {
        let active: Vec<&ListedKey> = all.iter().copied().filter(|listed| listed.active).collect();
        return match active[..] {
            [one] => {
                let key = &one.id;
                let said = format!(
                    "no current key is known; {key} is the only active one of {count} listed, and is taken on if it is in use"
                );
                Finding::warning("keys", said, adopt(key.as_str()))
            }
            [] => Finding::trouble("keys", "no current key is known, and no active one is listed", adopt("KEY_ID")),
            _ => {
                let said = format!("no current key is known, and several are active: {}", ids(&active));
                Finding::trouble("keys", said, adopt("KEY_ID"))
            }
        };
    };
    let current = &current.key;
    if moves {
        return Finding::ok(
            "keys",
            format!("{count}{of_quota} listed; current key {current} lives at another object until it is rotated"),
        );
    }
    let strangers: Vec<&ListedKey> = all.iter().copied().filter(|listed| !state.explains(&listed.id)).collect();
    match all.iter().find(|listed| listed.id == *current) {
        None => {
            let said = format!("current key {current} is not listed by its issuer");
            return Finding::trouble("keys", said, adopt("KEY_ID"));
        }
        Some(listed) if !listed.active => {
            let said = format!("current key {current} is inactive at its issuer: consumers may fail now");
            return Finding::trouble("keys", said, Some(format!("enable it there, or rekeyd rollback {name}")));
        }
        Some(_) => {}
    }
    // A slot is never empty: in one that is ours alone, what was there when an operator said so is idle, and the next key takes its
    // place. What somebody put there since is a stranger all the same.
    if shape.has_slots() && strangers.iter().all(|listed| !state.strangers.contains(&listed.id)) {
        let idle =
            if strangers.is_empty() { "none is idle now".to_owned() } else { format!("idle is {}", ids(&strangers)) };
        return Finding::ok("keys", format!("current key {current} is in its slot, and {idle}"));
    }
    if let Some(stranger) = strangers.first() {
        let stranger = &stranger.id;
        let next = format!(
            "rekeyd reclaim {name} {stranger} (ours and unused: destroy it), or rekeyd disown {name} {stranger} (somebody else's: leave it)"
        );
        let said =
            format!("{count}{of_quota} listed, and nobody can explain {}: no key is minted beside it", ids(&strangers));
        return Finding::trouble("keys", said, Some(next));
    }
    let full = listing.quota.is_some_and(|quota| count >= quota);
    if full && state.leaving.is_empty() && state.rotation.is_none() {
        let said = format!("{count}{of_quota} listed ({}): there is no room for a new one", ids(&all));
        return Finding::trouble("keys", said, Some(format!("delete the key nobody needs, then rekeyd retry {name}")));
    }
    Finding::ok("keys", format!("{count}{of_quota} listed, current key {current} active"))
}

fn of_clock(listing: &Listing, now: &Instant) -> Option<Finding> {
    let ahead = listing.date? - now.wall;
    let seconds = ahead.num_seconds();
    let said = format!("the provider's clock is {seconds} s ahead of ours");
    let next = Some("check time synchronisation (timedatectl)".to_owned());
    Some(match ahead.abs() {
        apart if apart > CLOCK_DIFFERENCE_MAX => Finding::trouble(
            "clock",
            format!("{said}, and no key is touched while they differ by more than five minutes"),
            next,
        ),
        apart if apart > CLOCK_DIFFERENCE_NOTED => Finding::warning("clock", said, next),
        _ => Finding::ok("clock", "ours and the provider's agree"),
    })
}

fn of_use(key: &KeyId, answer: Result<LastUse, Fault>, system: Option<&SystemRef>, policy: &Policy) -> Finding {
    match answer {
        Ok(LastUse::Never) => {
            Finding::ok("last use", format!("key {key} was never used, as far as the provider tells"))
        }
        Ok(LastUse::At { at, by }) => {
            Finding::ok("last use", format!("key {key} was last used {} ({by})", in_seconds(at)))
        }
        Ok(LastUse::Untold) => Finding::ok("last use", "this provider does not tell when a key was used"),
        Err(fault) => of_fault("last use", &fault, system, policy),
    }
}

fn in_seconds(at: Timestamp) -> String {
    at.to_rfc3339_opts(SecondsFormat::Secs, true)
}

fn of_inspection(name: &str, inspection: &Inspection, service: &ServiceName, state: &ServiceState) -> Finding {
    let current = state.current.as_ref().filter(|_| state.rotation.is_none()).map(|current| &current.key);
    let expected = current.and_then(|key| Some((key, state.tails.get(key)?)));
    match (&inspection.reading, expected) {
        (Reading::Keyless(word), Some((_, end))) if word == end => {
            Finding::ok(name, format!("uses {word}, as it was switched to"))
        }
        // From it or to it, a rotation is on its way.
        (Reading::Keyless(word), _) if is_on_its_way(word.as_str(), state) => {
            Finding::ok(name, format!("a rotation is open, and it uses {word} now"))
        }
        (Reading::Keyless(word), _) => {
            let next = match switch_to(word.as_str()) {
                Some(arguments) => {
                    format!("see who switched it; rekeyd switch {service} {arguments} takes that for good")
                }
                None => {
                    "see who switched it, and give it a key again there: rekeyd switches nothing to that".to_owned()
                }
            };
            Finding::trouble(name, format!("uses {word}, which is no key: no rotation overwrites that"), Some(next))
        }
        (Reading::Tail(shown), Some((key, end))) if shown != end => {
            let said = format!("shows another key than current key {key}");
            let next = format!(
                "see who changed it; rekeyd repush {service} puts ours back, rekeyd adopt {service} KEY_ID takes theirs"
            );
            Finding::trouble(name, said, Some(next))
        }
        (Reading::Tail(_), Some((key, _))) => {
            Finding::ok(name, format!("would take a key now, and shows the end of current key {key}"))
        }
        (Reading::Nothing, _) => Finding::ok(name, "would take a key now, and holds none"),
        (Reading::Tail(_) | Reading::Hidden, _) => {
            Finding::ok(name, "would take a key now; which one it holds cannot be compared")
        }
    }
}

/// Whether the open rotation brings this in place of a key, or takes it away.
fn is_on_its_way(word: &str, state: &ServiceState) -> bool {
    let Some(rotation) = &state.rotation else { return false };
    let current = state.current.as_ref().map(|current| &current.key);
    let keys = [rotation.installing.as_ref(), rotation.retiring.as_ref(), current];
    keys.into_iter().flatten().filter_map(|key| state.keyless.get(key)).any(|keyless| keyless.word() == word)
}

/// What `rekeyd switch` takes to end with such a credential, where it can.
fn switch_to(word: &str) -> Option<&'static str> {
    match word {
        "iam-role" => Some("--to iam-role"),
        "user-assigned-identity" => Some("--to user-assigned-identity --client-id ID"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Holder, Keyless, Tail};
    use crate::rotation::Current;

    fn listing(keys: &[(&str, bool)]) -> Listing {
        let key = |(id, active): &(&str, bool)| ListedKey {
            id: KeyId::new(*id),
            active: *active,
            created: None,
            intent: None,
            tail: None,
            expires: None,
            root_tail: None,
        };
        Listing { keys: keys.iter().map(key).collect(), quota: Some(2), date: None }
    }

    fn using(key: &str) -> ServiceState {
        let current = Current { key: KeyId::new(key), created: Timestamp::UNIX_EPOCH, ours: true };
        ServiceState { current: Some(current), ..ServiceState::default() }
    }

    fn told(keys: &[(&str, bool)], state: &ServiceState) -> (Level, String) {
        let finding = of_keys(&ServiceName::new("a"), &listing(keys), state, false, Shape::ShownOnce);
        assert_eq!(finding.next.is_some(), finding.level != Level::Ok, "{finding:?}");
        (finding.level, finding.said)
    }

    #[test]
    fn keys_are_told_as_a_rotation_would_find_them() {
        let (none, old) = (ServiceState::default(), using("AKIAOLD"));
        let mut disowns = using("AKIAOLD");
        disowns.disowned.insert(KeyId::new("AKIAOTHER"));
        for (keys, state, level, said) in [
            (&[("AKIAOLD", true)][..], &old, Level::Ok, "1 of 2 listed, current key AKIAOLD active"),
            (
                &[("AKIAOLD", false)],
                &old,
                Level::Trouble,
                "current key AKIAOLD is inactive at its issuer: consumers may fail now",
            ),
            (&[], &old, Level::Trouble, "current key AKIAOLD is not listed by its issuer"),
            (
                &[("AKIAOLD", true), ("AKIAX", true)],
                &old,
                Level::Trouble,
                "2 of 2 listed, and nobody can explain AKIAX: no key is minted beside it",
            ),
            (
                &[("AKIAOLD", true), ("AKIAOTHER", true)],
                &disowns,
                Level::Trouble,
                "2 of 2 listed (AKIAOLD, AKIAOTHER): there is no room for a new one",
            ),
            (
                &[("AKIAOLD", true), ("AKIAX", false)],
                &none,
                Level::Warning,
                "no current key is known; AKIAOLD is the only active one of 2 listed, and is taken on if it is in use",
            ),
            (
                &[("AKIAOLD", true), ("AKIAX", true)],
                &none,
                Level::Trouble,
                "no current key is known, and several are active: AKIAOLD, AKIAX",
            ),
            (&[("AKIAX", false)], &none, Level::Trouble, "no current key is known, and no active one is listed"),
        ] {
            assert_eq!(told(keys, state), (level, said.to_owned()));
        }
    }

    #[test]
    fn a_key_that_no_target_holds_any_more_is_told() {
        let none = ServiceState::default();
        assert_eq!(of_leftovers(&listing(&[("AKIAOLD", false)]), &none).level, Level::Ok);
        let left = of_leftovers(&listing(&[("AKIAOLD", true), ("AKIAX", false)]), &none);
        assert_eq!(left.said, "no target holds a key, and active at the issuer are AKIAOLD");
        assert_eq!(left.level, Level::Warning);
    }

    #[test]
    fn a_key_that_the_journal_can_explain_is_nobodys_leftover() {
        let mut switched = switched();
        switched.disowned.insert(KeyId::new("AKIATHEIRS"));
        let found = |keys: &[(&str, bool)]| of_leftovers(&listing(keys), &switched);
        let theirs = found(&[("AKIATHEIRS", true)]);
        assert_eq!(theirs.level, Level::Ok, "{theirs:?}");
        assert_eq!(theirs.said, "it uses iam-role and no key; active are only keys that the journal knows: AKIATHEIRS");
        let left = found(&[("AKIATHEIRS", true), ("AKIALEFT", true)]);
        assert_eq!(left.said, "it uses iam-role and no key, and active at the issuer are AKIALEFT");
        assert_eq!(found(&[]).said, "it uses iam-role and no key, and none is active");
    }

    fn switched() -> ServiceState {
        let mut state = using("iam-role");
        state.keyless.insert(Keyless::IamRole.id(), Keyless::IamRole);
        state
    }

    #[test]
    fn a_type_without_a_key_is_as_it_should_be_only_where_the_journal_says_so() {
        assert!(needs_no_look("IAM-ROLE", &ServiceState::default()) && needs_no_look("IAM-ROLE", &switched()));
        assert!(!needs_no_look("USER-ASSIGNED-IDENTITY", &switched()));
        assert!(!needs_no_look("IAM-ROLE", &using("AKIAOLD")));
    }

    #[test]
    fn what_to_type_against_a_foreign_type_can_be_typed() {
        let next = |word: &str| {
            let holder = Holder::new("t");
            let inspection = Inspection { holder, reading: Reading::Keyless(Tail::new(word)), jobs: Vec::new() };
            let finding = of_inspection("t", &inspection, &ServiceName::new("a"), &using("AKIAOLD"));
            assert_eq!(finding.level, Level::Trouble);
            finding.next.expect("trouble has a way out")
        };
        assert!(next("iam-role").contains("; rekeyd switch a --to iam-role takes"));
        assert!(
            next("user-assigned-identity")
                .contains("; rekeyd switch a --to user-assigned-identity --client-id ID takes")
        );
        for word in ["system-assigned-identity", "managed-identity"] {
            assert!(!next(word).contains("rekeyd switch "), "{word}");
        }
    }
}
