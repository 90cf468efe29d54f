//! What a target's masked read-back says about the key it holds.
//!
//! ArcGIS shows four characters of a secret, so only a difference is evidence; equal tails are [`ReadBack::CannotTell`].

use std::borrow::Cow;

use crate::model::{KeyId, Reading, Tail, TargetName, Timestamp};

use super::ServiceState;

/// A reading, held against what the journal knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadBack {
    /// It is the key asked about, and can be no other that the target may hold.
    New,
    /// It is another key that the target may hold, or what it showed when the rotation opened.
    Old(Option<KeyId>),
    /// It is nothing the journal knows.
    Other,
    /// It fits the key asked about and others as well, or shows nothing that can be compared.
    CannotTell,
}

impl ServiceState {
    /// The end that a target shows while it holds this key, where that is known.
    pub fn end_at(&self, target: &TargetName, key: &KeyId) -> Option<&Tail> {
        match self.derived.get(target) {
            // Nothing is derived from what is no key.
            Some(ends) if !self.keyless.contains_key(key) => ends.get(key),
            _ => self.tails.get(key),
        }
    }

    /// The ends by which a key is known anywhere: its own, and those of what was derived from it.
    pub fn ends_of(&self, key: &KeyId) -> Vec<&Tail> {
        let derived = self.derived.values().filter_map(|ends| ends.get(key));
        self.tails.get(key).into_iter().chain(derived).collect()
    }

    /// When the first thing ends by itself that was derived from a key and that a target may hold.
    pub fn derived_until(&self, key: &KeyId) -> Option<Timestamp> {
        self.derived_until.values().filter_map(|ends| ends.get(key)).min().copied()
    }

    /// Notes that these targets hold something derived. What is known of one stays where it is to hold a key from now on: what it shows
    /// was derived until then.
    pub(super) fn note_derived<'t>(&mut self, targets: impl Iterator<Item = &'t TargetName>) {
        for target in targets {
            self.derived.entry(target.clone()).or_default();
        }
    }

    /// The same state with these targets noted: one that is new as such shows what nobody can compare with a key.
    pub(super) fn knowing_derived<'t>(&self, targets: impl Iterator<Item = &'t TargetName>) -> Cow<'_, Self> {
        let mut new = targets.filter(|target| !self.derived.contains_key(*target)).peekable();
        if new.peek().is_none() {
            return Cow::Borrowed(self);
        }
        let mut knowing = self.clone();
        knowing.note_derived(new);
        Cow::Owned(knowing)
    }

    /// The key whose own end a target shows that should hold something derived: it was handed the key itself, or a person did that.
    pub(super) fn shows_raw(&self, target: &TargetName, shown: &Tail) -> Option<&KeyId> {
        self.derived.get(target)?;
        self.tails.iter().find(|(_, end)| *end == shown).map(|(key, _)| key)
    }

    /// Learns the end by which a target shows a key, unless that is known.
    pub(super) fn learn_end(&mut self, target: &TargetName, key: &KeyId, end: &Tail) {
        let ends = self.derived.get_mut(target).unwrap_or(&mut self.tails);
        ends.entry(key.clone()).or_insert_with(|| end.clone());
    }

    /// Holds a target's reading against `key` and everything else the target may hold.
    pub fn read_back(&self, target: &TargetName, reading: &Reading, key: &KeyId) -> ReadBack {
        let others: Vec<&KeyId> = self.may_hold.get(target).into_iter().flatten().filter(|held| *held != key).collect();
        let opened = self
            .rotation
            .as_ref()
            .and_then(|rotation| rotation.snapshot.targets.iter().find(|found| found.spec.name == *target))
            .map(|found| &found.reading);
        let shown = match reading {
            // What has no key is told by its type; this is something else.
            Reading::Hidden if self.keyless.contains_key(key) => return ReadBack::Old(None),
            Reading::Hidden => return ReadBack::CannotTell,
            Reading::Nothing => {
                return if opened == Some(&Reading::Nothing) { ReadBack::Old(None) } else { ReadBack::Other };
            }
            Reading::Tail(shown) | Reading::Keyless(shown) => shown,
        };
        let wanted = self.end_at(target, key);
        let end_of = |other: &KeyId| self.end_at(target, other);
        let fits: Vec<&KeyId> = others.iter().filter(|other| end_of(other) == Some(shown)).copied().collect();
        let untold = matches!(reading, Reading::Tail(_)) && others.iter().any(|other| end_of(other).is_none());
        match (wanted == Some(shown), fits.first()) {
            (true, None)
                if !untold && opened.is_none_or(|before| before.tail() != Some(shown) || others.is_empty()) =>
            {
                ReadBack::New
            }
            (true, _) => ReadBack::CannotTell,
            (false, Some(other)) => ReadBack::Old(Some((*other).clone())),
            (false, None) if opened == Some(reading) => ReadBack::Old(None),
            // No key whose end is unknown shows that.
            (false, None) if matches!(reading, Reading::Keyless(_)) => ReadBack::Other,
            (false, None) if wanted.is_none() => ReadBack::CannotTell,
            // It is not the key asked about, and may be one whose tail nobody knows.
            (false, None) if untold => ReadBack::Old(None),
            (false, None) => ReadBack::Other,
        }
    }
}
