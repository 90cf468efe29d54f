//! The access key that an intent gets, and the intent an access key was made for.
//!
//! The client may choose the access key (IBM COS 3.20.1, "Create credential"), so the same intent always asks for the same one, and a
//! listing tells for which intent a key was made, whatever became of the answer. No page says which characters and what length a chosen
//! one may have; those on IBM's pages are hexadecimal, of 6 and of 32 characters. So a name here is made of digits and the letters `a`
//! to `v`, and has 31 or 32 characters for every intent that the daemon makes.

use crate::model::{IntentId, KeyId};

/// In front of an intent as the daemon makes it: the UUID of a rotation, a dot, a number.
const OF_ROTATION: &str = "rk0";
/// In front of any other text.
const OF_TEXT: &str = "rkt";
/// With a pause of five minutes between two attempts, more than eight hours of them.
const EARLIER_MAX: usize = 100;
/// "Extended hex" of RFC 4648, in lower case: it sorts as the bytes do.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghijklmnopqrstuv";

/// The access key for an intent.
pub(super) fn of(intent: &IntentId) -> KeyId {
    let text = intent.as_str();
    KeyId::new(match packed(text) {
        Some(bytes) => format!("{OF_ROTATION}{}", encode(&bytes)),
        None => format!("{OF_TEXT}{}", encode(text.as_bytes())),
    })
}

/// The intent that a key was made for; `None` for a key that rekeyd did not name.
pub(super) fn intent(key: &KeyId) -> Option<IntentId> {
    let name = key.as_str();
    let text = match (name.strip_prefix(OF_ROTATION), name.strip_prefix(OF_TEXT)) {
        (Some(rest), _) => unpacked(&decode(rest)?)?,
        // Anybody may name a key; what comes of it may stand in a message.
        (None, Some(rest)) => {
            String::from_utf8(decode(rest)?).ok().filter(|text| text.bytes().all(|b| b.is_ascii_graphic()))?
        }
        (None, None) => return None,
    };
    let intent = IntentId::new(text);
    // Another spelling of the same bytes is no name of ours.
    (of(&intent) == *key).then_some(intent)
}

/// The access keys of the intents that the same rotation had before, the latest first.
///
/// A rotation counts an attempt that never left as well; after an outage of hours no more than [`EARLIER_MAX`] are asked for.
pub(super) fn earlier(intent: &IntentId) -> Vec<KeyId> {
    if packed(intent.as_str()).is_none() {
        return Vec::new();
    }
    let Some((rotation, number)) = intent.as_str().rsplit_once('.') else { return Vec::new() };
    let number: u32 = number.parse().unwrap_or_default();
    let before = (1..number).rev().take(EARLIER_MAX);
    before.map(|number| of(&IntentId::new(format!("{rotation}.{number}")))).collect()
}

/// The sixteen bytes of the rotation, then its number without leading zeros.
fn packed(text: &str) -> Option<Vec<u8>> {
    let (rotation, number) = text.rsplit_once('.')?;
    let rotation = uuid::Uuid::try_parse(rotation).ok()?;
    let number: u32 = number.parse().ok()?;
    if format!("{}.{number}", rotation.hyphenated()) != text {
        return None;
    }
    let number = number.to_be_bytes().into_iter().skip_while(|byte| *byte == 0);
    Some(rotation.as_bytes().iter().copied().chain(number).collect())
}

fn unpacked(bytes: &[u8]) -> Option<String> {
    let (rotation, number) = bytes.split_at_checked(16)?;
    let rotation = uuid::Uuid::from_slice(rotation).ok()?;
    let number = number.iter().try_fold(0_u32, |number, byte| Some(number.checked_mul(256)? + u32::from(*byte)))?;
    Some(format!("{}.{number}", rotation.hyphenated()))
}

fn encode(bytes: &[u8]) -> String {
    let (mut held, mut bits, mut text) = (0_u32, 0, String::new());
    for byte in bytes {
        held = held << 8 | u32::from(*byte);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            text.push(letter(held >> bits));
        }
    }
    if bits > 0 {
        text.push(letter(held << (5 - bits)));
    }
    text
}

fn letter(bits: u32) -> char {
    char::from(ALPHABET[(bits & 31) as usize])
}

fn decode(text: &str) -> Option<Vec<u8>> {
    let (mut held, mut bits, mut bytes) = (0_u32, 0, Vec::new());
    for letter in text.bytes() {
        let value = ALPHABET.iter().position(|known| *known == letter)?;
        held = held << 5 | u32::try_from(value).ok()?;
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            bytes.push(u8::try_from(held >> bits & 0xff).ok()?);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_its_intent_and_nothing_else_does() {
        for text in [
            "019aa000-0000-7000-8000-000000000001.1",
            "ffffffff-ffff-ffff-ffff-ffffffffffff.65535",
            "019aa000-0000-7000-8000-000000000001.0",
            "019AA000-0000-7000-8000-000000000001.1",
            "019aa000-0000-7000-8000-000000000001.01",
            "r1.1",
            "lost.0",
            "",
        ] {
            let (wanted, key) = (IntentId::new(text), of(&IntentId::new(text)));
            assert_eq!(intent(&key), Some(wanted), "{text} as {key}");
            assert_eq!(of(&IntentId::new(text)), key, "the same intent, the same name");
        }
        for other in ["", "rk", "rk0", "rkt!", "rk0zzzz", "AKIAIOSFODNN7EXAMPLE", "a42a27755ce6442596b049bd7dd8a563"] {
            assert_eq!(intent(&KeyId::new(other)), None, "{other}");
        }
        assert_eq!(intent(&of(&IntentId::new("r1\n.1"))), None, "what could not be shown");
        // The last letter holds two bits that say nothing: set, they make another name.
        let key = of(&IntentId::new("r1.1"));
        let (rest, last) = key.as_str().split_at(key.as_str().len() - 1);
        let near = char::from(last.as_bytes()[0] + 1);
        assert_eq!(intent(&KeyId::new(format!("{rest}{near}"))), None);
    }

    #[test]
    fn the_names_a_rotation_had_before_are_known_as_far_as_there_is_a_use_for_them() {
        let number = |number: u32| IntentId::new(format!("019aa000-0000-7000-8000-000000000001.{number}"));
        assert_eq!(earlier(&number(3)), [of(&number(2)), of(&number(1))]);
        let many = earlier(&number(300));
        assert_eq!((many.len(), &many[0], &many[99]), (EARLIER_MAX, &of(&number(299)), &of(&number(200))));
        for none in [number(1), number(0), IntentId::new("lost.7"), IntentId::new("")] {
            assert_eq!(earlier(&none), [], "{none}");
        }
    }

    #[test]
    fn a_name_is_no_longer_than_those_on_ibms_pages_and_of_plain_letters() {
        for number in [1, 255, 256, 65_535] {
            let key = of(&IntentId::new(format!("019aa000-0000-7000-8000-000000000001.{number}")));
            assert!((31..=32).contains(&key.as_str().len()), "{key}");
            assert!(key.as_str().bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()), "{key}");
        }
    }
}
