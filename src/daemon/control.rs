//! The control socket: who may give orders, and how they reach the engine.
//!
//! The file is 0660, and the kernel lets nobody connect who may not write to it. Every peer is asked for its credentials all the
//! same: root, the daemon's own user and members of the socket's group are heard, so that a mode changed by mistake opens nothing.
//! It decides nothing about an order; the engine does.

use std::fs::Permissions;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::UCred;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tracing::{info, warn};
use zeroize::{Zeroize, Zeroizing};

use crate::engine::{Handle, Report};
use crate::ports::JournalError;

use super::checkup::{Checkup, Question};
use super::protocol::{Ask, REQUEST_MAX, Request, Told};
use super::records;
use super::refused::Refused;
use super::startup::{self, Failure};
use super::status::Status;

/// Askers at once. Those who wait for a rotation keep their connection.
const CONNECTIONS_MAX: usize = 64;

/// How long an asker may take to finish a line it began.
const LINE_PATIENCE: Duration = Duration::from_secs(10);

/// A watcher hears something at least this often, so that both ends notice when the other is gone.
const WATCH_MAX: Duration = Duration::from_secs(30);

/// The socket, bound and not served yet.
pub struct Control {
    listener: UnixListener,
    path: PathBuf,
    group: u32,
}

/// What answers.
#[derive(Clone)]
pub struct Desk {
    /// The engine.
    pub handle: Handle,
    /// The journal, for what is only read.
    pub journal: PathBuf,
    /// Looks at the world.
    pub checkup: Checkup,
    /// Whether the policy's file was refused.
    pub refused: Refused,
}

impl Control {
    /// Binds the socket. A file that a dead daemon left behind is replaced; one that answers, or is no socket, is not.
    ///
    /// # Errors
    /// [`Failure::Unreachable`].
    pub fn bind(path: &Path) -> Result<Control, Failure> {
        let failed = |what: &str, error: std::io::Error| {
            Failure::Unreachable(format!("{what} the control socket {} failed: {error}", path.display()))
        };
        if let Some(directory) = path.parent()
            && !directory.exists()
        {
            let made = std::fs::DirBuilder::new().recursive(true).mode(0o755).create(directory);
            made.map_err(|error| failed("making the directory of", error))?;
        }
        if let Ok(found) = path.symlink_metadata() {
            if !found.file_type().is_socket() {
                return Err(Failure::Unreachable(format!(
                    "{} is there and is no socket; it was left alone",
                    path.display()
                )));
            }
            match std::os::unix::net::UnixStream::connect(path) {
                Ok(other) => return Err(Failure::Unreachable(answered(path, &other))),
                // Nobody has it open: a daemon that died left it behind.
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => {
                    std::fs::remove_file(path).map_err(|error| failed("replacing", error))?;
                }
                // Whether somebody answers there is not known, so it may be in use.
                Err(error) => return Err(failed("looking who answers at", error)),
            }
        }
        let listener = UnixListener::bind(path).map_err(|error| failed("binding", error))?;
        // Until this line the umask alone decides; it never lets others write to a socket unless somebody set it to zero.
        std::fs::set_permissions(path, Permissions::from_mode(0o660))
            .map_err(|error| failed("setting the mode of", error))?;
        let group = std::fs::metadata(path).map_err(|error| failed("looking at", error))?.gid();
        Ok(Control { listener, path: path.to_owned(), group })
    }

    /// Answers until it is dropped; the socket's file goes with it.
    pub async fn serve(self, desk: Desk) {
        let turns = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let turn = turns.clone().acquire_owned().await.expect("the semaphore is never closed");
            let stream = match self.listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    warn!("taking a connection on the control socket failed: {error}");
                    tokio::time::sleep(Duration::from_millis(200)).await;
                    continue;
                }
            };
            let (desk, group, is_closed) = (desk.clone(), self.group, self.is_closed());
            tokio::spawn(async move {
                let _turn = turn;
                // The asker going away is its own affair.
                if let Err(error) = attend(stream, &desk, group, is_closed).await {
                    tracing::debug!("an asker on the control socket went away: {error}");
                }
            });
        }
    }
}

impl Control {
    /// Whether only owner and group may write to it, now.
    fn is_closed(&self) -> bool {
        std::fs::metadata(&self.path).is_ok_and(|about| about.permissions().mode() & 0o002 == 0)
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Who answers at a socket that was to be ours, and the two ways out.
fn answered(path: &Path, other: &std::os::unix::net::UnixStream) -> String {
    let process = rustix::net::sockopt::socket_peercred(other);
    let process = process.map_or_else(
        |_| "another daemon".to_owned(),
        |peer| format!("another daemon, process {},", peer.pid.as_raw_nonzero()),
    );
    format!("{process} answers at {}, and was left alone: {}", path.display(), startup::TWO_WAYS_OUT)
}

async fn attend(mut stream: UnixStream, desk: &Desk, group: u32, is_closed: bool) -> std::io::Result<()> {
    let peer = stream.peer_cred()?;
    let by = name_of(&peer);
    if !may_order(&peer, group, is_closed) {
        warn!(%by, "refused an asker on the control socket");
        return stream.write_all(&Told::Error(format!("{by} may not give orders here")).line()).await;
    }
    let mut lines = Lines::new();
    while let Some(line) = lines.next(&mut stream).await? {
        let request = match line {
            Ok(line) => Request::read(&line),
            Err(too_long) => {
                return stream.write_all(&Told::Error(too_long).line()).await;
            }
        };
        let ask = match request {
            Ok(request) => request.command,
            Err(why) => {
                stream.write_all(&Told::Error(why).line()).await?;
                continue;
            }
        };
        let words = ask.words();
        let service = ask.service().map(ToString::to_string);
        let service = service.as_deref();
        match ask.into_order(by.clone()) {
            Ok(command) => {
                info!(service, %by, "order: {words}");
                let told = match desk.handle.order(command).await {
                    Some(reply) => Told::from(reply),
                    None => Told::Error(
                        "the daemon is ending, and this order was not taken or not written down; its log says why \
                         (journalctl -u rekeyd), and rekeyd status what stands"
                            .into(),
                    ),
                };
                stream.write_all(&told.line()).await?;
            }
            Err(Ask::Watch {}) => return follow(stream, desk).await,
            Err(question) => stream.write_all(&answer(desk, question).await.line()).await?,
        }
    }
    Ok(())
}

async fn answer(desk: &Desk, question: Ask) -> Told {
    let journal = desk.journal.clone();
    let looked = match question {
        Ask::History { service } => {
            let known = desk.handle.reports().borrow().services.iter().any(|report| report.name == service);
            let name = service.clone();
            let found = look(move || records::history(&journal, &name)).await;
            found.map(|lines| match lines {
                Some(lines) => Told::History(lines),
                None if known => Told::History(Vec::new()),
                None => Told::NoSuchService(format!("neither policy nor journal knows a service {service}")),
            })
        }
        Ask::Verify {} => look(move || records::verify(&journal)).await.map(Told::Ledger),
        Ask::Doctor {} => desk.checkup.check(Question::All).await.map(Told::from),
        Ask::Holders {} => desk.checkup.check(Question::Holders).await.map(Told::from),
        Ask::Advise {} => desk.checkup.check(Question::Advice).await.map(Told::from),
        _ => Ok(Told::Status(status(desk))),
    };
    looked.unwrap_or_else(|error| Told::Error(error.to_string()))
}

fn status(desk: &Desk) -> Status {
    status_of(&desk.handle.reports().borrow(), desk)
}

fn status_of(report: &Report, desk: &Desk) -> Status {
    Status::of(report).with_refusal(desk.refused.refusal().as_deref(), |refusal| refusal.why.clone())
}

/// Reading a long journal takes time, which is not the runtime's.
async fn look<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, JournalError> + Send + 'static,
) -> Result<T, JournalError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(found) => found,
        Err(error) => Err(JournalError::Unreachable(format!("reading the journal ended early: {error}"))),
    }
}

/// Sends every change of the status until the asker goes away or the engine ends.
async fn follow(mut stream: UnixStream, desk: &Desk) -> std::io::Result<()> {
    let mut reports = desk.handle.reports();
    let mut sent = None;
    let mut silence = tokio::time::Instant::now();
    loop {
        let status = status_of(&reports.borrow_and_update().clone(), desk);
        if sent.as_ref() != Some(&status) || silence.elapsed() >= WATCH_MAX {
            stream.write_all(&Told::Status(status.clone()).line()).await?;
            sent = Some(status);
            silence = tokio::time::Instant::now();
        }
        let mut nothing = [0; 1];
        tokio::select! {
            // The asker says nothing more; an end of its side is the end of this.
            read = stream.read(&mut nothing) => if read? == 0 { return Ok(()) },
            changed = reports.changed() => if changed.is_err() { return Ok(()) },
            () = tokio::time::sleep(WATCH_MAX) => {}
        }
    }
}

/// Lines of a stream, in one buffer that never moves and is wiped: a line may hold a secret.
struct Lines {
    buffer: Zeroizing<Vec<u8>>,
    held: usize,
}

impl Lines {
    fn new() -> Self {
        Lines { buffer: Zeroizing::new(vec![0; REQUEST_MAX]), held: 0 }
    }

    /// The next line; `None` where the asker has ended.
    async fn next(&mut self, stream: &mut UnixStream) -> std::io::Result<Option<Result<Zeroizing<Vec<u8>>, String>>> {
        loop {
            if let Some(end) = self.buffer[..self.held].iter().position(|byte| *byte == b'\n') {
                let line = Zeroizing::new(self.buffer[..end].to_vec());
                self.buffer.copy_within(end + 1..self.held, 0);
                let left = self.held - end - 1;
                self.buffer[left..self.held].zeroize();
                self.held = left;
                return Ok(Some(Ok(line)));
            }
            if self.held == self.buffer.len() {
                return Ok(Some(Err(format!("a request may have {REQUEST_MAX} bytes"))));
            }
            let read = stream.read(&mut self.buffer[self.held..]);
            let count = match self.held {
                // Between two requests an asker may be silent as long as it likes.
                0 => read.await?,
                _ => match tokio::time::timeout(LINE_PATIENCE, read).await {
                    Ok(count) => count?,
                    Err(_) => return Ok(None),
                },
            };
            if count == 0 {
                return Ok(None);
            }
            self.held += count;
        }
    }
}

/// `is_closed`: the socket's mode lets nobody else in, so that whoever is here was let in by the kernel as one of these.
fn may_order(peer: &UCred, group: u32, is_closed: bool) -> bool {
    let own = rustix::process::geteuid().as_raw();
    peer.uid() == 0 || peer.uid() == own || peer.gid() == group || is_member(peer, group).unwrap_or(is_closed)
}

/// Whether the peer has the group among its supplementary ones, which its credentials do not tell. A peer that has ended since
/// may have lent its number to another process; the kernel has asked the file's mode before, so nothing hangs on this alone.
/// `None` where /proc does not show the peer, as under `ProtectProc=invisible`.
fn is_member(peer: &UCred, group: u32) -> Option<bool> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", peer.pid()?)).ok()?;
    let groups = status.lines().find_map(|line| line.strip_prefix("Groups:")).unwrap_or_default();
    Some(groups.split_whitespace().any(|word| word.parse() == Ok(group)))
}

/// `uid 0 (root)`, as the journal keeps it.
fn name_of(peer: &UCred) -> String {
    user(peer.uid())
}

/// A user by number and, where the machine knows it, name.
pub fn user(uid: u32) -> String {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then_some(name)
    });
    name.map_or_else(|| format!("uid {uid}"), |name| format!("uid {uid} ({name})"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_dead_socket_is_replaced_and_a_living_one_or_a_file_is_not() {
        let home = tempfile::tempdir().expect("a temporary directory can be made");
        let path = home.path().join("run/control.sock");
        let first = Control::bind(&path).expect("the directory is made too");
        assert_eq!(std::fs::metadata(&path).expect("it is there").permissions().mode() & 0o777, 0o660);
        let error = Control::bind(&path).err().expect("somebody answers").to_string();
        let expected = format!(
            "another daemon, process {}, answers at {}, and was left alone: end that process first (systemctl stop \
             rekeyd, where it is the unit's), or give this one a control and journal of its own in [daemon]",
            std::process::id(),
            path.display()
        );
        assert_eq!(error, expected);
        assert!(path.exists() && std::os::unix::net::UnixStream::connect(&path).is_ok(), "the first is undisturbed");
        drop(first);
        assert!(!path.exists());
        drop(std::os::unix::net::UnixListener::bind(&path).expect("a socket can be made"));
        assert!(path.exists(), "a dead daemon leaves its socket behind");
        drop(Control::bind(&path).expect("nobody answers"));
        std::fs::write(&path, "notes").expect("a file can be written");
        let error = Control::bind(&path).err().expect("not ours").to_string();
        assert_eq!(error, format!("{} is there and is no socket; it was left alone", path.display()));
    }

    #[tokio::test]
    async fn lines_are_read_one_by_one_and_their_bytes_do_not_stay() {
        let (mut near, mut far) = UnixStream::pair().expect("a pair can be made");
        far.write_all(b"first-secret\nsecond\npart").await.expect("the peer reads");
        drop(far);
        let mut lines = Lines::new();
        let first = lines.next(&mut near).await.expect("it reads").expect("a line").expect("short enough");
        assert_eq!(&first[..], b"first-secret");
        let second = lines.next(&mut near).await.expect("it reads").expect("a line").expect("short enough");
        assert_eq!(&second[..], b"second");
        assert!(!String::from_utf8_lossy(&lines.buffer).contains("secret"), "what was taken out is wiped");
        assert!(lines.next(&mut near).await.expect("it reads").is_none(), "a line without an end is none");
    }

    #[test]
    fn a_user_is_named_by_number_and_name() {
        assert_eq!(user(0), "uid 0 (root)");
        assert_eq!(user(4_000_000_000), "uid 4000000000");
    }
}
