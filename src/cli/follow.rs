//! Whether a rotation that somebody waits for has got where it should: decided from one status after the other, by counts that
//! only ever grow.

use std::collections::BTreeMap;

use crate::daemon::status::{Rotations, Service, Status};
use crate::model::{KeyId, Keyless};

use super::Until;

/// Services waited for.
pub(super) struct Follow {
    until: Until,
    waiting: BTreeMap<String, Rotations>,
    said: BTreeMap<String, String>,
}

/// News of one service, for the one who waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// It got there.
    There(String),
    /// It will not.
    Failed(String),
    /// How it goes on.
    Note(String),
}

impl Follow {
    /// Waits for these services, as counted in the status before they were ordered. A service that was unknown then had none.
    pub(super) fn new(until: Until, services: &[String], before: &Status) -> Follow {
        let counts = |name: &String| before.service(name).map_or_else(Rotations::default, |service| service.rotations);
        Follow {
            until,
            waiting: services.iter().map(|name| (name.clone(), counts(name))).collect(),
            said: BTreeMap::new(),
        }
    }

    /// Whether nothing is waited for any more.
    pub(super) fn is_over(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Those still waited for.
    pub(super) fn names(&self) -> Vec<String> {
        self.waiting.keys().cloned().collect()
    }

    /// What a newer status tells.
    pub(super) fn look(&mut self, status: &Status) -> Vec<News> {
        let mut news = Vec::new();
        for service in &status.services {
            let Some(before) = self.waiting.get(&service.name) else { continue };
            match judge(self.until, *before, service) {
                Some(ended) => {
                    self.waiting.remove(&service.name);
                    news.push(ended);
                }
                None => {
                    let note = note(service);
                    if self.said.insert(service.name.clone(), note.clone()).as_ref() != Some(&note) {
                        news.push(News::Note(format!("{}: {note}", service.name)));
                    }
                }
            }
        }
        news
    }
}

fn judge(until: Until, before: Rotations, service: &Service) -> Option<News> {
    let (name, now) = (&service.name, service.rotations);
    let message = || service.message.clone().unwrap_or_default();
    let key = || match service.current_key.clone().unwrap_or_default() {
        word if Keyless::is_id(&KeyId::new(word.clone())) => word,
        key => format!("key {key}"),
    };
    if until == Until::Done && now.done > before.done {
        return Some(News::There(format!("{name}: done, {} is in place and the old one is gone", key())));
    }
    if now.failed > before.failed {
        return Some(News::Failed(format!("{name}: failed: {}", message())));
    }
    if now.abandoned > before.abandoned || now.rolled_back > before.rolled_back {
        return Some(News::Failed(format!("{name}: an operator ended the rotation")));
    }
    if until == Until::Verified && now.verified > before.verified {
        return Some(News::There(format!("{name}: verified, every target holds {}", key())));
    }
    (service.state == "halted").then(|| News::Failed(format!("{name}: halted: {}", message())))
}

fn note(service: &Service) -> String {
    let phase = service.phase.as_ref().map_or_else(String::new, |phase| format!(", {phase}"));
    let waits = match (&service.message, service.state.as_str()) {
        (Some(message), "waiting") => format!(": {message}"),
        _ => String::new(),
    };
    format!("{}{phase}{waits}", service.state)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::status::tests::service;
    use crate::engine::{Report, StateWord};

    fn status(change: impl Fn(&mut crate::engine::ServiceReport)) -> Status {
        let mut service = service("a");
        change(&mut service);
        Status::of(&Report { at: None, services: vec![service] })
    }

    #[test]
    fn a_rotation_is_there_when_its_count_has_grown() {
        let mut follow = Follow::new(Until::Verified, &["a".into()], &status(|service| service.durations = vec![1.0]));
        let same = follow.look(&status(|service| service.durations = vec![1.0]));
        assert_eq!(same, vec![News::Note("a: idle".into())], "the one before does not count");
        assert!(follow.look(&status(|service| service.durations = vec![1.0])).is_empty(), "nothing is said twice");
        let there = follow.look(&status(|service| {
            service.durations = vec![1.0, 2.0];
            service.current_key = Some(KeyId::new("AKIANEW"));
        }));
        assert_eq!(there, vec![News::There("a: verified, every target holds key AKIANEW".into())]);
        assert!(follow.is_over());
    }

    #[test]
    fn waiting_for_done_is_not_satisfied_by_verified_and_ends_with_a_halt() {
        let mut follow = Follow::new(Until::Done, &["a".into()], &status(|_| ()));
        let soaking = follow.look(&status(|service| {
            service.durations = vec![1.0];
            service.state = StateWord::Soaking;
        }));
        assert_eq!(soaking, vec![News::Note("a: soaking".into())]);
        let halted = follow.look(&status(|service| {
            service.durations = vec![1.0];
            service.state = StateWord::Halted;
            service.message = Some("key AKIAOLD is still used".into());
        }));
        assert_eq!(halted, vec![News::Failed("a: halted: key AKIAOLD is still used".into())]);
    }
}
