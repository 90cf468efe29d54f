//! Choices from a seed: SplitMix64, so that `REKEYD_CHAOS_SEED` makes the same ones again.
//!
//! The choices, not the run: processes, sockets and disks keep their own time, so a replay strikes at the same request or the same
//! write of a story that may have gone on a little differently.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub struct Dice {
    pub seed: u64,
    state: u64,
}

impl Dice {
    /// The seed is the environment's, or the time; each test salts it with its own name, so that no two make the same choices.
    pub fn thrown(test: &str) -> Dice {
        let seed = match std::env::var("REKEYD_CHAOS_SEED") {
            Ok(text) => text.parse().unwrap_or_else(|_| panic!("REKEYD_CHAOS_SEED={text} is no number")),
            Err(_) => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970");
                u64::from(since.subsec_nanos()) ^ since.as_secs().wrapping_shl(20)
            }
        };
        let salt = test.bytes().fold(0, |salt: u64, byte| salt.wrapping_mul(31).wrapping_add(byte.into()));
        Dice { seed, state: seed ^ salt }
    }

    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From 0 to one below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// Once in so many throws.
    pub fn once_in(&mut self, throws: u64) -> bool {
        self.below(throws) == 0
    }

    pub fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.below(to - from))
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[usize::try_from(self.below(from.len() as u64)).expect("it is below a length")]
    }
}
