//! What service credentials are called: the policy's prefix, then what tells for which intent one was made.
//!
//! `gis-01997d2e0f4b7c11a2b3c4d5e6f70819-mint1`, and then whatever the console appends: its names carry a suffix of its own
//! (`svc-cred-73c7cbd9-…`, published OpenAPI of `ves.io.schema.api_credential`, seen 2026-01). Terraform's provider for F5 holds
//! names to DNS-1035 labels of 63 characters, so a rotation's id goes in without its hyphens, and a prefix is short.

use crate::model::IntentId;

/// A label of 63, less a rotation's id, the number of its mint and a suffix of the console's.
const PREFIX_MAX: usize = 15;

/// Stands before the number of the mint; no id of a rotation holds it.
const MINT: &str = "-mint";

/// A name is never longer (the vendor's page on "Replace service credentials": 6 to 1024 characters).
const NAME_MAX: usize = 1024;

/// The prefix of a policy without a hyphen at its end; `None` where no name may begin so.
pub(super) fn stem(prefix: &str) -> Option<&str> {
    let stem = prefix.strip_suffix('-').unwrap_or(prefix);
    let is_label = stem.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    let begins = stem.bytes().next().is_some_and(|b| b.is_ascii_lowercase());
    let ends = stem.bytes().last().is_some_and(|b| b != b'-');
    (is_label && begins && ends && stem.len() <= PREFIX_MAX).then_some(stem)
}

/// What is asked for in the name of an intent; `None` where the intent has letters that no name may have.
pub(super) fn name_of(stem: &str, intent: &IntentId) -> Option<String> {
    let (rotation, mint) = match intent.as_str().rsplit_once('.') {
        Some((rotation, mint)) if !mint.is_empty() && mint.bytes().all(|b| b.is_ascii_digit()) => (rotation, mint),
        _ => (intent.as_str(), ""),
    };
    // Only an id in the one spelling that rekeyd writes comes back from its digits.
    let short = uuid::Uuid::try_parse(rotation).ok().filter(|id| id.hyphenated().to_string() == rotation);
    let rotation = short.map_or_else(|| rotation.to_owned(), |id| id.simple().to_string());
    let is_label = |text: &str| text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    let is_told_apart = !rotation.contains(MINT) && is_label(&rotation) && !rotation.is_empty();
    is_told_apart.then(|| format!("{stem}-{rotation}{MINT}{mint}"))
}

/// The intent a credential of this name was made for; `None` for a name that rekeyd does not give.
pub(super) fn intent_of(stem: &str, name: &str) -> Option<IntentId> {
    let (rotation, mint) = name.strip_prefix(stem)?.strip_prefix('-')?.split_once(MINT)?;
    // What follows the number is the console's.
    let digits = mint.bytes().take_while(u8::is_ascii_digit).count();
    let short = (rotation.len() == 32).then(|| uuid::Uuid::try_parse(rotation).ok()).flatten();
    let rotation = short.map_or_else(|| rotation.to_owned(), |id| id.hyphenated().to_string());
    Some(IntentId::new(match &mint[..digits] {
        "" => rotation,
        mint => format!("{rotation}.{mint}"),
    }))
}

/// Whether a credential of this name belongs to the issuer object: its prefix says so, whoever made it.
pub(super) fn belongs(stem: &str, name: &str) -> bool {
    name.strip_prefix(stem).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

/// Whether a text can be a credential's name. It becomes part of a path, so it may hold nothing that ends one.
pub(super) fn is_name(text: &str) -> bool {
    let is_plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
    (1..=NAME_MAX).contains(&text.len()) && is_plain && !matches!(text, "." | "..")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_its_intent_whatever_is_appended_to_it() {
        for (intent, name) in [
            ("01997d2e-0f4b-7c11-a2b3-c4d5e6f70819.1", "gis-01997d2e0f4b7c11a2b3c4d5e6f70819-mint1"),
            ("01997d2e-0f4b-7c11-a2b3-c4d5e6f70819.12", "gis-01997d2e0f4b7c11a2b3c4d5e6f70819-mint12"),
            ("01997d2e-r1.1", "gis-01997d2e-r1-mint1"),
            ("throttled", "gis-throttled-mint"),
        ] {
            assert_eq!(name_of("gis", &IntentId::new(intent)).as_deref(), Some(name));
            for suffix in ["", "-hcggqodh", "-73c7cbd9-4f", "xyz"] {
                assert_eq!(intent_of("gis", &format!("{name}{suffix}")), Some(IntentId::new(intent)), "{name}{suffix}");
            }
        }
        let longest = name_of(&"g".repeat(PREFIX_MAX), &IntentId::new("01997d2e-0f4b-7c11-a2b3-c4d5e6f70819.1"));
        assert!(longest.is_some_and(|name| name.len() + "-hcggqodh".len() <= 63));
    }

    #[test]
    fn what_is_no_name_of_ours_tells_nothing() {
        for name in ["gis", "gis-by-hand", "other-x-mint1", "gisx-mint1", ""] {
            assert_eq!(intent_of("gis", name), None, "{name}");
        }
        for intent in ["", "a_b.1", "A", "x-mint", "a b"] {
            assert_eq!(name_of("gis", &IntentId::new(intent)), None, "{intent}");
        }
        assert!(belongs("gis", "gis") && belongs("gis", "gis-by-hand"));
        assert!(!belongs("gis", "gisx") && !belongs("gis", "other-gis"));
    }

    #[test]
    fn a_prefix_begins_a_label_and_a_name_ends_no_path() {
        assert_eq!((stem("gis"), stem("gis-"), stem("gis-2")), (Some("gis"), Some("gis"), Some("gis-2")));
        for wrong in ["", "-", "2gis", "Gis", "gis--", "gis_x", "gis/x", "abcdefghijklmnop"] {
            assert_eq!(stem(wrong), None, "{wrong}");
        }
        assert!(is_name("gis-1.x_Y"));
        for wrong in ["", ".", "..", "a/b", "a?b", "a%2fb", "a b", &"a".repeat(1025)] {
            assert!(!is_name(wrong), "{wrong}");
        }
    }
}
