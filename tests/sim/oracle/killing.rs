//! When a request of rekeyd's makes a key unusable: nobody may hold it, it is proven ours, and the evidence is fresh.

use std::time::Duration;

use rekeyd::model::{JobState, KeyId};

use super::{EVIDENCE, Ledger, Promise};
use crate::faults::Op;
use crate::world::{Actor, At, Job, Key, World};

impl World {
    /// A request of rekeyd's makes a key unusable: by disabling it, deleting it, or filling its slot.
    pub fn check_kill(&mut self, object: &str, key: &KeyId, op: Op, by: Actor, sent: At) {
        let Actor::Rekeyd(process) = by else { return };
        let names: Vec<String> = self.places.keys().cloned().collect();
        for name in names {
            let coming = self.held_or_coming(&name).contains(key);
            let excused = coming && self.is_excused(&name, key, process, sent);
            self.hold(Promise::NoOutage, !coming || excused, || {
                format!("{op:?} of key {key}, which {name} holds or is about to be given")
            });
        }
        self.check_ours(key, op, process, sent);
        if op != Op::Mint {
            self.check_evidence(object, key, op, process, sent);
        }
    }

    /// What somebody else did to a target after it was last looked at, or what a look cannot show, is not of our making.
    fn is_excused(&self, target: &str, key: &KeyId, process: usize, sent: At) -> bool {
        let despite = self.ledger_of(process, key, sent).is_some_and(|(_, ledger)| ledger.despite_use.contains(key));
        if despite {
            return true;
        }
        let place = &self.places[target];
        // Two daemons on slots that are said to be one's own: the one cannot know what the other left in which.
        let twins = |(object, key): (&str, &Key)| {
            let by_other = matches!(key.made_by, Actor::Rekeyd(other) if other != process);
            by_other && self.vaults[object].shape.has_slots()
        };
        // Nor can an older journal know which slot was filled since it was copied, where a target shows nothing.
        let slots = self.find(key).is_some_and(|(object, _)| self.vaults[object].shape.has_slots());
        let blind = self.oracle.restored && slots && !place.shows;
        // What a second daemon with a copy of the journal is handing over at this moment shows nowhere yet.
        let by_twin = |job: &Job| {
            job.key == *key && job.by != Actor::Rekeyd(process) && matches!(job.state, JobState::Running(_))
        };
        let on_its_way = place.jobs.iter().any(by_twin) || self.is_coming_from_another(target, key, process);
        if place.holds.as_ref() != Some(key) && on_its_way {
            return true;
        }
        if blind || self.find(key).is_some_and(twins) {
            return true;
        }
        // What somebody puts into a place that is no target of the service is nobody's business but theirs.
        let object = self.find(key).map(|(object, _)| object);
        let at_home = |ledger: &Ledger| ledger.last.as_ref().is_some_and(|last| Some(&*last.issuer.object) == object);
        let mut of_process = self.ledgers_at(process, sent);
        // What a lost mint or another life put into a slot no journal knows by name.
        let asking = of_process.clone().find(|(_, ledger)| ledger.knows(key));
        let asking = asking.or_else(|| of_process.find(|(_, ledger)| at_home(ledger))).map(|(_, ledger)| ledger);
        let targets =
            asking.and_then(|ledger| ledger.open.as_ref().map(|open| &open.snapshot).or(ledger.last.as_ref()));
        let served =
            targets.is_none_or(|snapshot| snapshot.targets.iter().any(|found| found.spec.name.as_str() == target));
        if !served && (place.put_by == Actor::Human || self.oracle.restored) {
            return true;
        }
        if place.holds.as_ref() != Some(key) || place.put_by == Actor::Rekeyd(process) {
            return false;
        }
        let seen = self.oracle.seen.get(&(process, Op::Read, target.to_owned())).copied().unwrap_or_default();
        if place.since >= seen && sent.saturating_sub(seen) <= EVIDENCE {
            return true;
        }
        // Where the end of the secret tells nothing, only the provider's report of its use does, and that comes late.
        let vault = self.find(key).map(|(object, _)| &self.vaults[object]);
        let ends_alike = |key: &KeyId| self.find(key).map(|(_, key)| key.secret[key.secret.len() - 4..].to_owned());
        let same_end = asking
            .and_then(|ledger| ledger.current.as_ref())
            .is_some_and(|current| ends_alike(current) == ends_alike(key));
        // Nobody asks for the silence of a key that no target was ever handed, nor of one in wrong hands, which use it.
        let unasked =
            asking.is_some_and(|ledger| ledger.superseded.get(key).is_none_or(|superseded| !superseded.silence_asked));
        match vault.and_then(|vault| vault.use_lag) {
            _ if place.shows && !same_end => false,
            // What it held from the beginning nobody else changed.
            _ if place.since.is_zero() => false,
            Some(lag) => unasked || place.since + lag + EVIDENCE >= sent,
            None => true,
        }
    }

    fn check_ours(&mut self, key: &KeyId, op: Op, process: usize, sent: At) {
        let ledger = self.ledger_of(process, key, sent).map(|(_, ledger)| ledger);
        let proven = match op {
            Op::Disable => ledger.is_some_and(|ledger| ledger.ours.contains(key) || ledger.taken_on.contains(key)),
            // Where keys live in slots, `exclusive` says that an idle one is ours to replace.
            Op::Mint => true,
            // Nobody ever had the secret of what fills a slot.
            _ if self.find(key).is_some_and(|(_, key)| key.filler) => true,
            _ => ledger.is_some_and(|ledger| ledger.ours.contains(key)),
        };
        let proven = proven && !self.oracle.guessed.contains(key);
        self.hold(Promise::StrangersSafe, proven, || {
            format!("{op:?} of key {key}, which the journal does not prove ours")
        });
    }

    fn check_evidence(&mut self, object: &str, key: &KeyId, op: Op, process: usize, sent: At) {
        let Some((service, ledger)) = self.ledger_of(process, key, sent) else { return };
        let (service, ledger) = (service.clone(), ledger.clone());
        let since = sent.saturating_sub(EVIDENCE);
        let mut missing = Vec::new();
        if !self.seen_since(process, Op::Identity, object, since) {
            missing.push(format!("the account of {object}"));
        }
        if !self.seen_since(process, Op::List, object, since) {
            missing.push(format!("the keys of {object}"));
        }
        if self.vaults[object].use_lag.is_some() && !self.seen_since(process, Op::LastUse, key.as_str(), since) {
            missing.push("its last use".to_owned());
        }
        if let Some(current) = &ledger.current
            && self.held_secret(process, &service, current, sent)
            && !self.seen_since(process, Op::Probe, current.as_str(), since)
        {
            missing.push(format!("a probe of current key {current}"));
        }
        let targets = ledger.held_at.get(key).cloned().unwrap_or_else(|| ledger.targets());
        for target in targets {
            if !self.seen_since(process, Op::Read, target.as_str(), since) {
                missing.push(format!("a reading of {target}"));
            }
        }
        self.hold(Promise::FreshEvidence, missing.is_empty(), || {
            format!("{op:?} of key {key} without having seen in five minutes: {}", missing.join(", "))
        });
        if let Some(superseded) = ledger.superseded.get(key) {
            let waited = sent.saturating_sub(superseded.at);
            let second = self.clock_slack();
            self.hold(Promise::FreshEvidence, waited + second >= superseded.soak, || {
                format!(
                    "{op:?} of key {key} {waited:?} after every target was Verified, before its soak of {:?}",
                    superseded.soak
                )
            });
        }
        if op == Op::Delete && self.vaults[object].shape.can_disable() {
            let disabled = ledger.disabled.get(key).copied();
            self.hold(Promise::FreshEvidence, disabled.is_some(), || {
                format!("key {key} is deleted and never was disabled")
            });
            // The journal's word for it is not enough.
            let truth = self.key(object, key).filter(|key| key.active).cloned();
            let never = truth.as_ref().is_some_and(|key| key.disabled.is_none());
            self.hold(Promise::FreshEvidence, !never, || {
                format!("key {key} is deleted and in truth never was disabled")
            });
            let again = truth.and_then(|key| key.enabled_by_hand);
            let lag = self.vaults[object].lag;
            let ignored = again.filter(|again| self.seen_since(process, Op::List, object, *again + lag));
            self.hold(Promise::FreshEvidence, ignored.is_none(), || {
                format!(
                    "key {key} is deleted, which somebody enabled again {ignored:?} and the listing shows as active"
                )
            });
            if let (Some(disabled), Some(superseded)) = (disabled, ledger.superseded.get(key)) {
                let watched = sent.saturating_sub(disabled) + self.clock_slack();
                self.hold(Promise::FreshEvidence, watched >= superseded.watch, || {
                    format!("key {key} is deleted {watched:?} after it was disabled, before its watch is over")
                });
            }
        }
        // Silence: where its use is reported, nobody may have used it since the last Confirmed, as far as that was told.
        if let (Some(lag), Some(superseded)) = (self.vaults[object].use_lag, ledger.superseded.get(key).copied())
            && superseded.silence_asked
            && !ledger.despite_use.contains(key)
        {
            let told = sent.saturating_sub(lag);
            let same_boot = superseded.boot == self.boot;
            let silent_from = superseded.silent_from.max(if same_boot { At::ZERO } else { superseded.silent_wall });
            let used = self.key(object, key).and_then(|key| key.used);
            let used = used.filter(|used| *used > silent_from + Duration::from_secs(1) && *used + EVIDENCE <= told);
            self.hold(Promise::FreshEvidence, used.is_none(), || {
                format!("{op:?} of key {key}, which was used {used:?} after every target was confirmed to hold another")
            });
        }
    }
}
