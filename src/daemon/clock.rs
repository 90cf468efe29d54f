//! Both clocks, as Linux keeps them.

use std::time::Duration;

use chrono::Utc;
use rustix::time::{ClockId, clock_gettime};

use crate::model::Instant;
use crate::ports::Clock;

/// The machine's clocks: wall time, and time since boot with suspend counted (`CLOCK_BOOTTIME`).
pub struct SystemClock {
    boot_id: String,
}

impl SystemClock {
    /// Reads which boot this is.
    pub fn new() -> Self {
        // Without it (a sandbox that hides /proc/sys) every start counts as another boot: waits then go by wall time alone, as
        // they do across boots anyway.
        let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .map_or_else(|_| format!("process-{}", uuid::Uuid::new_v4()), |id| id.trim().to_owned());
        SystemClock { boot_id }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Instant {
        let boot = clock_gettime(ClockId::Boottime);
        let (seconds, nanos) = (u64::try_from(boot.tv_sec).unwrap_or(0), u32::try_from(boot.tv_nsec).unwrap_or(0));
        Instant {
            // From the same hand as everybody else's in this process (signatures, logs), so that all of it goes by one clock, also
            // where a test has put another one in front of it.
            wall: Utc::now(),
            boot: Duration::new(seconds, nanos),
            boot_id: self.boot_id.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_clocks_go_forward_within_one_boot() {
        let clock = SystemClock::new();
        let (first, second) = (clock.now(), clock.now());
        assert_eq!(first.boot_id, second.boot_id);
        assert!(second.boot >= first.boot && !first.boot.is_zero());
        assert!(first.wall.timestamp() > 1_700_000_000, "wall time is read, not invented");
    }
}
