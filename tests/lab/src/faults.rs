//! What can go wrong with one call, and what then becomes of it. A fault waits in a queue by operation; each call to that operation
//! takes one. In which words a stand-in fails is its own affair.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::http::Response;

use crate::http::{Reply, ReplyFuture, html_page, moved};

/// One mishap. It is spent by the next call of the operation it was queued for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Executed; the connection is closed without an answer.
    LostReply,
    /// Executed; answered with this 5xx status.
    ErrorAfterCommit(u16),
    /// The connection is closed without an answer; executed this much later, if it is still valid then.
    Late(Duration),
    /// The connection is closed without an answer; executed when the gate is opened, if it is still valid then.
    Gated(Gate),
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

/// Holds one call back until somebody says that it arrives: lateness without a clock.
#[derive(Clone, Default)]
pub struct Gate(Arc<Mutex<Option<Held>>>);

type Held = Box<dyn FnOnce() + Send>;

impl Gate {
    /// Lets what is held back be executed, before this returns. Whether there was anything.
    pub fn open(&self) -> bool {
        let held = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        held.map(|call| call()).is_some()
    }

    fn hold(&self, call: impl FnOnce() + Send + 'static) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(call));
    }
}

impl PartialEq for Gate {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Gate {}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Gate")
    }
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

/// A stand-in whose calls may go wrong.
pub(crate) trait Stumbling: Send + Sync + 'static {
    type Call: Send + Sync + 'static;

    /// Carries the call out and logs it, as `status` where nobody will hear of it or the answer will tell something else.
    fn execute(&self, call: &Self::Call, status: Option<u16>) -> Reply;

    /// Logs a call that is not carried out.
    fn spare(&self, call: &Self::Call, status: u16);

    /// A status that has no reason in the call.
    fn fail(&self, call: &Self::Call, status: u16) -> Response<Body>;

    /// Too many calls.
    fn throttle(&self, call: &Self::Call) -> Response<Body>;

    /// The same as [`Self::fail`] with a wait; whose clients know none is silent about it.
    fn later(&self, call: &Self::Call, status: u16, _seconds: u32, _as_date: bool) -> Response<Body> {
        self.fail(call, status)
    }

    /// A caller who may not.
    fn refuse(&self, call: &Self::Call, message: &str) -> Response<Body>;

    /// Gives an answer that is none of its own the date it shows.
    fn date(&self, response: Response<Body>) -> Response<Body> {
        response
    }
}

/// Carries the call out, as far as the fault lets it. All is done before the first wait, but what the fault puts off: that is done in
/// a task of its own, which a client that gives up does not stop.
pub(crate) fn carry_out<S: Stumbling>(server: Arc<S>, call: S::Call, fault: Option<Fault>) -> ReplyFuture {
    let (reply, delay) = match fault {
        None => (server.execute(&call, None), Duration::ZERO),
        Some(Fault::Slow(delay)) => (server.execute(&call, None), delay),
        Some(Fault::Delayed(delay)) => {
            let executed = tokio::spawn(async move {
                tokio::time::sleep(delay).await;
                server.execute(&call, None)
            });
            return Box::pin(async move { executed.await.unwrap_or(Reply::Close) });
        }
        Some(Fault::Late(delay)) => {
            server.spare(&call, 0);
            tokio::spawn(async move {
                tokio::time::sleep(delay).await;
                server.execute(&call, Some(0));
            });
            (Reply::Close, Duration::ZERO)
        }
        Some(Fault::Gated(gate)) => {
            server.spare(&call, 0);
            gate.hold(move || {
                server.execute(&call, Some(0));
            });
            (Reply::Close, Duration::ZERO)
        }
        Some(fault) => (stumble(&*server, &call, &fault), Duration::ZERO),
    };
    Box::pin(async move {
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        reply
    })
}

fn stumble<S: Stumbling>(server: &S, call: &S::Call, fault: &Fault) -> Reply {
    let response = match fault {
        Fault::LostReply => {
            server.execute(call, Some(0));
            return Reply::Close;
        }
        Fault::DropBefore => {
            server.spare(call, 0);
            return Reply::Close;
        }
        Fault::ErrorAfterCommit(status) => {
            server.execute(call, Some(*status));
            return Reply::Answer(server.fail(call, *status));
        }
        Fault::Throttle => server.throttle(call),
        Fault::Error(status) => server.fail(call, *status),
        Fault::Later { status, seconds, as_date } => server.later(call, *status, *seconds, *as_date),
        Fault::Refuse(message) => server.refuse(call, message),
        Fault::Html => server.date(html_page(200, "Sign in", "Please sign in to continue.")),
        Fault::Redirect(location) => server.date(moved(location)),
        Fault::Late(_) | Fault::Gated(_) | Fault::Delayed(_) | Fault::Slow(_) => {
            unreachable!("what takes time is not answered here")
        }
    };
    server.spare(call, response.status().as_u16());
    Reply::Answer(response)
}
