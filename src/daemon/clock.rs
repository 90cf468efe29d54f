//! Both clocks, as Linux keeps them.

use std::time::Duration;

use chrono::{DateTime, Utc};
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
        let since = |id| {
            let time = clock_gettime(id);
            (time.tv_sec, u32::try_from(time.tv_nsec).unwrap_or(0))
        };
        let (seconds, nanos) = since(ClockId::Realtime);
        let (boot_seconds, boot_nanos) = since(ClockId::Boottime);
        Instant {
            wall: DateTime::<Utc>::from_timestamp(seconds, nanos).unwrap_or_default(),
            boot: Duration::new(u64::try_from(boot_seconds).unwrap_or(0), boot_nanos),
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
