//! Finds the daemon and asks it over its control socket. Knows the line protocol's client side, and nothing of what is asked.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use crate::daemon::protocol::{Answer, Ask, Request, Told};
use crate::daemon::{Failure, startup};
use crate::policy::{Environment, Policy};

/// Whom a command can turn to.
pub(super) enum Reached {
    /// A daemon, and the policy where it has no mistake: a daemon that runs needs no other than its own.
    Daemon(Daemon, Option<Policy>),
    /// Nobody: the policy says where the journal is.
    Nobody(Policy),
}

/// Looks for the daemon where the policy says. A policy with mistakes is said to have some, and keeps nobody from a daemon that runs
/// on an older one.
///
/// # Errors
/// The policy's mistakes, where no daemon runs or where the policy leaves open which one is meant; there is a daemon, and this user
/// may not speak to it.
pub(super) async fn reach(policy_path: &Path) -> Result<Reached, Failure> {
    let mistakes = match startup::policy(policy_path) {
        Ok(policy) => return under(policy).await,
        Err(mistakes) => mistakes,
    };
    let Some(control) = Policy::control_of(policy_path, &Environment::of_process()) else { return Err(mistakes) };
    let Some(daemon) = Daemon::connect(&control).await? else { return Err(mistakes) };
    eprintln!(
        "rekeyd: the policy {} has mistakes (rekeyd check names them); the daemon at {} answers, under the policy it runs with",
        policy_path.display(),
        control.display()
    );
    Ok(Reached::Daemon(daemon, None))
}

/// Looks for the daemon where this policy says.
///
/// # Errors
/// There is one, and this user may not speak to it.
pub(super) async fn under(policy: Policy) -> Result<Reached, Failure> {
    Ok(match Daemon::connect(&policy.daemon.control).await? {
        Some(daemon) => Reached::Daemon(daemon, Some(policy)),
        None => Reached::Nobody(policy),
    })
}

/// A connection to the daemon.
pub(super) struct Daemon {
    answers: BufReader<OwnedReadHalf>,
    requests: OwnedWriteHalf,
    at: PathBuf,
}

impl Daemon {
    /// Connects; `None` where no daemon runs.
    ///
    /// # Errors
    /// There is one, and this user may not speak to it.
    pub(super) async fn connect(socket: &Path) -> Result<Option<Daemon>, Failure> {
        match UnixStream::connect(socket).await {
            Ok(stream) => {
                let (read, requests) = stream.into_split();
                Ok(Some(Daemon { answers: BufReader::new(read), requests, at: socket.to_owned() }))
            }
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused) => Ok(None),
            Err(error) => {
                let hint = match error.kind() {
                    ErrorKind::PermissionDenied => "; it listens to root and to the socket's group",
                    _ => "",
                };
                Err(Failure::Unreachable(format!("asking the daemon at {} failed: {error}{hint}", socket.display())))
            }
        }
    }

    /// The daemon that takes the place of this one, which has ended; `None` where none has come within `patience`.
    ///
    /// # Errors
    /// There is one, and this user may not speak to it.
    pub(super) async fn successor(&self, patience: Duration) -> Result<Option<Daemon>, Failure> {
        let come = async {
            loop {
                if let Some(daemon) = Daemon::connect(&self.at).await? {
                    return Ok(Some(daemon));
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        };
        tokio::time::timeout(patience, come).await.unwrap_or(Ok(None))
    }

    /// Asks once.
    ///
    /// # Errors
    /// The connection broke, or the daemon could not answer.
    pub(super) async fn ask(&mut self, ask: Ask) -> Result<Told, Failure> {
        let line = Request::new(ask).line();
        let sent = self.requests.write_all(&line).await;
        sent.map_err(|error| {
            Failure::Unreachable(format!("asking the daemon at {} failed: {error}", self.at.display()))
        })?;
        match self.next().await? {
            Some(told) => Ok(told),
            None => Err(Failure::Unreachable(format!("the daemon at {} ended before it answered", self.at.display()))),
        }
    }

    /// The next answer; `None` where the daemon has ended.
    ///
    /// # Errors
    /// The connection broke, or the daemon could not answer.
    pub(super) async fn next(&mut self) -> Result<Option<Told>, Failure> {
        let mut line = String::new();
        let read = match self.answers.read_line(&mut line).await {
            // Killed, with something unread.
            Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(0),
            read => read,
        };
        let count = read.map_err(|error| {
            Failure::Unreachable(format!("the daemon at {} fell silent: {error}", self.at.display()))
        })?;
        if count == 0 {
            return Ok(None);
        }
        let answer: Answer = serde_json::from_str(&line).map_err(|error| {
            Failure::Unreachable(format!(
                "the daemon at {} answered something else than this version expects: {error}",
                self.at.display()
            ))
        })?;
        match answer.answer {
            Told::Error(why) => Err(Failure::Unreachable(why)),
            told => Ok(Some(told)),
        }
    }
}

/// For answers of another kind than the question's.
pub(super) fn unexpected() -> Failure {
    Failure::Unreachable("the daemon answered another question".into())
}
