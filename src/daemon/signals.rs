//! The signals the daemon obeys, caught from the first moment on.
//!
//! A signal that arrives before there is anything to obey waits here. What each one does is said in `daemon`.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// What was signalled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signalled {
    /// SIGHUP.
    Reload,
    /// SIGUSR1.
    Rotate,
    /// SIGUSR2.
    TryNow,
    /// SIGTERM or SIGINT, by name.
    Stop(&'static str),
}

/// The handlers. They stand as long as the process does, whatever becomes of this.
#[derive(Debug)]
pub struct Signals {
    hangup: Signal,
    user_1: Signal,
    user_2: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Installs all handlers. Needs a tokio runtime around it.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn install() -> std::io::Result<Signals> {
        Ok(Signals {
            hangup: signal(SignalKind::hangup())?,
            user_1: signal(SignalKind::user_defined1())?,
            user_2: signal(SignalKind::user_defined2())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Waits for the next one. Several of one kind that arrive together are one; a stop comes before all others.
    pub async fn next(&mut self) -> Signalled {
        tokio::select! {
            biased;
            _ = self.terminate.recv() => Signalled::Stop("SIGTERM"),
            _ = self.interrupt.recv() => Signalled::Stop("SIGINT"),
            _ = self.hangup.recv() => Signalled::Reload,
            _ = self.user_1.recv() => Signalled::Rotate,
            _ = self.user_2.recv() => Signalled::TryNow,
        }
    }
}
