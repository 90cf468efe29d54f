//! What a target's masked read-back says about the key it holds.
//!
//! ArcGIS shows four characters of a secret, so only a difference is evidence; equal tails are [`ReadBack::CannotTell`].

use crate::model::Reading;
use crate::model::{KeyId, TargetName};

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
        let wanted = self.tails.get(key);
        let fits: Vec<&KeyId> = others.iter().filter(|other| self.tails.get(**other) == Some(shown)).copied().collect();
        let untold = matches!(reading, Reading::Tail(_)) && others.iter().any(|other| !self.tails.contains_key(*other));
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
