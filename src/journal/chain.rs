//! The hash chain: what makes a changed, lost, moved or inserted row of a service's history visible. Pure.
//!
//! Each row's hash covers the row before it, the chain's name, the sequence number, the time and the body, all as the bytes
//! that are stored, so that no later way of reading or writing them can change what a hash means. The first row follows a
//! hash of the chain's name.
//!
//! It is a check against accident and against a careless hand, not against somebody who can write the file and compute
//! SHA-256. And a chain cannot miss its own end: a tail that was cut whole verifies. That is why heads are logged.

use aws_lc_rs::digest::{Context, SHA256};

/// A SHA-256 hash.
pub type Hash = [u8; 32];

/// A row as it is stored. Bytes and not text, because a flipped bit may leave bytes that are no text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its place in the chain, from 1.
    pub sequence: i64,
    /// Wall time, RFC 3339.
    pub at_wall: Vec<u8>,
    /// Nanoseconds since boot.
    pub at_boot: i64,
    /// Which boot.
    pub boot_id: Vec<u8>,
    /// The event.
    pub body: Vec<u8>,
    /// The hash that was stored with it.
    pub hash: Vec<u8>,
}

/// The first thing in a chain that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("sequence {sequence}: {what}")]
pub struct Damage {
    /// Where.
    pub sequence: i64,
    /// What differs.
    pub what: String,
}

/// What the first row of a chain follows.
pub fn genesis(chain: &str) -> Hash {
    digest(&[b"rekeyd journal 1 genesis", chain.as_bytes()])
}

/// The hash of a row that follows `previous`; the row's own `hash` is not looked at.
pub fn link(previous: &Hash, chain: &str, row: &Row) -> Hash {
    digest(&[
        b"rekeyd journal 1 row",
        previous,
        chain.as_bytes(),
        &row.sequence.to_be_bytes(),
        &row.at_wall,
        &row.at_boot.to_be_bytes(),
        &row.boot_id,
        &row.body,
    ])
}

/// Follows a chain from its first row. Says how many rows verify, the hash of the last of them, and what the next one has
/// wrong, if there is one.
pub fn verify(chain: &str, rows: &[Row]) -> (usize, Hash, Option<Damage>) {
    let mut head = genesis(chain);
    for (index, row) in rows.iter().enumerate() {
        let expected = index as i64 + 1;
        let damage = |what: String| Some(Damage { sequence: expected, what });
        if row.sequence != expected {
            return (index, head, damage(format!("missing, the next row stored is {}", row.sequence)));
        }
        let hash = link(&head, chain, row);
        if row.hash != hash {
            let stored = hex(&row.hash);
            return (
                index,
                head,
                damage(format!("the row's hash is {}, the one stored with it is {stored}", hex(&hash))),
            );
        }
        head = hash;
    }
    (rows.len(), head, None)
}

/// SHA-256 over parts, each behind its length, so that no two lists of parts give the same bytes.
pub(super) fn digest(parts: &[&[u8]]) -> Hash {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

/// Bytes as hex digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn rows(chain: &str, count: i64) -> Vec<Row> {
        let mut head = genesis(chain);
        (1..=count)
            .map(|sequence| {
                let mut row = Row {
                    sequence,
                    at_wall: b"2026-11-22T00:00:00Z".to_vec(),
                    at_boot: sequence * 1_000,
                    boot_id: b"boot".to_vec(),
                    body: format!("event {sequence}").into_bytes(),
                    hash: vec![],
                };
                head = link(&head, chain, &row);
                row.hash = head.to_vec();
                row
            })
            .collect()
    }

    #[test]
    fn a_whole_chain_verifies_and_shows_its_head() {
        let rows = rows("store", 4);
        let (count, head, damage) = verify("store", &rows);
        assert_eq!((count, head.to_vec(), damage), (4, rows[3].hash.clone(), None));
        assert_eq!(verify("store", &[]), (0, genesis("store"), None));
    }

    #[test]
    fn whatever_is_changed_in_a_row_is_found_at_that_row() {
        let whole = rows("store", 4);
        let changes: [fn(&mut Row); 6] = [
            |row| row.at_wall[3] ^= 1,
            |row| row.at_boot += 1,
            |row| row.boot_id.push(b'x'),
            |row| row.body[0] ^= 0x80,
            |row| row.hash[31] ^= 1,
            |row| row.hash.clear(),
        ];
        for change in changes {
            let mut rows = whole.clone();
            change(&mut rows[2]);
            let (count, _, damage) = verify("store", &rows);
            assert_eq!((count, damage.map(|damage| damage.sequence)), (2, Some(3)));
        }
    }

    #[test]
    fn what_moves_from_one_field_to_the_next_is_found() {
        let mut rows = rows("store", 1);
        rows[0].boot_id = b"boo".to_vec();
        rows[0].body.insert(0, b't');
        assert!(verify("store", &rows).2.is_some());
    }

    #[test]
    fn a_lost_an_inserted_and_a_swapped_row_are_found() {
        let whole = rows("store", 4);
        let mut lost = whole.clone();
        lost.remove(1);
        assert_eq!(
            verify("store", &lost).2.map(|damage| damage.to_string()).as_deref(),
            Some("sequence 2: missing, the next row stored is 3")
        );
        let mut twice = whole.clone();
        twice.insert(1, whole[1].clone());
        assert_eq!(verify("store", &twice).0, 2);
        let mut swapped = whole.clone();
        swapped.swap(1, 2);
        (swapped[1].sequence, swapped[2].sequence) = (2, 3);
        assert_eq!(verify("store", &swapped).0, 1);
    }

    #[test]
    fn a_chain_belongs_to_its_service() {
        assert_eq!(verify("other", &rows("store", 2)).0, 0);
    }

    #[test]
    fn the_hashes_are_the_ones_that_were_pinned() {
        // Computed by another program from the words at the top of this file.
        assert_eq!(hex(&genesis("store")), "b40b67cd010495dce3822c065fa584649f81d806d937a80190da5e9d591f5b2c");
        assert_eq!(hex(&rows("store", 2)[1].hash), "f80ee68d3aa6f7bc2a9397e8f136a0b071c66f15c5bc9e7e12b43a5f6f679dfc");
    }
}
