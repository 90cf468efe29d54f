//! What can go wrong with one call. A fault waits in a queue by operation; each call to that operation takes one.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

/// One mishap. It is spent by the next call of the operation it was queued for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Executed; the connection is closed without an answer.
    LostReply,
    /// Executed; answered with this 5xx status.
    ErrorAfterCommit(u16),
    /// The connection is closed without an answer; executed this much later, if it is still valid then.
    Late(Duration),
    /// Executed this much later, if it is still valid then, whether or not anybody still waits; answered when it was.
    Delayed(Duration),
    /// Not executed: AWS `Throttling` 400 (S3 `SlowDown` 503), Azure and ArcGIS 429 with `Retry-After` (Blob `ServerBusy` 503).
    Throttle,
    /// Not executed; answered with this status.
    Error(u16),
    /// Not executed; answered with this status, and with so many seconds as `Retry-After`: a number, or a date by its own `Date`.
    Later {
        /// 429, 503.
        status: u16,
        /// The wait asked for.
        seconds: u32,
        /// Whether a date says it.
        as_date: bool,
    },
    /// Executed at once; the answer takes this long.
    Slow(Duration),
    /// Not executed; the connection is closed without an answer.
    DropBefore,
    /// Not executed; refused in the vendor's own envelope with this message (AWS: `AccessDenied` 403, Azure: `AuthorizationFailed` 403 and the like).
    Refuse(String),
    /// Not executed; an HTML page with status 200, as a web tier or a login page answers.
    Html,
    /// Not executed; 301 to this address.
    Redirect(String),
}

#[derive(Default)]
pub(crate) struct FaultQueue(HashMap<String, VecDeque<Fault>>);

impl FaultQueue {
    pub(crate) fn push(&mut self, operation: &str, fault: Fault) {
        self.0.entry(operation.to_owned()).or_default().push_back(fault);
    }

    pub(crate) fn take(&mut self, operation: &str) -> Option<Fault> {
        self.0.get_mut(operation)?.pop_front()
    }

    /// How many still wait for a call of this operation.
    pub(crate) fn left(&self, operation: &str) -> usize {
        self.0.get(operation).map_or(0, VecDeque::len)
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }
}
