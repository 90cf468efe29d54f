//! Writes entries to systemd's journal, in its own protocol: a datagram of fields, or a sealed memory file where that is too long.
//!
//! The form is documented at <https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>. It is spoken here and not by a crate, since the ones
//! there are name the fields after themselves, call `info` a notice, and know no other socket for a test.
//!
//! A thread of its own sends: a journal that has stopped reading must not stop who writes to it. What is more than that thread can
//! hold is lost, and counted. An entry that the journal refuses goes to stderr as text; it is not tried again.

use std::fs::File;
use std::io::Write;
use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, sendmsg_addr};
use serde_json::{Map, Value};
use tracing::Level;

use super::{Entry, Sink};

/// Where systemd-journald listens; a unit with a journal of its own (`LogNamespace=`) sees that one here.
pub(super) const SOCKET: &str = "/run/systemd/journal/socket";

/// What `journalctl -t` looks for.
const IDENTIFIER: &str = "rekeyd";

/// journald ignores an entry with a longer name: systemd, src/shared/journal-importer.h, `journal_field_valid`.
const NAME_MAX: usize = 64;

/// So many entries are held for a journal that is slow: some minutes of a busy daemon, in a megabyte.
const HELD_MAX: usize = 2048;

/// What stands in fields that are searched for, and in no other words in the sentence.
const SEARCHED: [&str; 6] = ["service", "rotation", "phase", "key_id", "reason", "next"];

/// The journal.
pub(super) struct Journald {
    queue: SyncSender<Queued>,
    lost: Arc<AtomicU64>,
}

/// What the sending thread is given.
enum Queued {
    /// A datagram, and the line it comes to on stderr where it is refused.
    Entry(Vec<u8>, String),
    /// Somebody wants to know when all before this is sent.
    Flush(SyncSender<()>),
}

impl Journald {
    /// Looks whether somebody listens there.
    pub(super) fn open(path: impl AsRef<Path>) -> std::io::Result<Journald> {
        UnixDatagram::unbound()?.connect(&path)?;
        let sender = Sender { socket: UnixDatagram::unbound()?, path: path.as_ref().to_owned() };
        let (queue, entries) = sync_channel(HELD_MAX);
        let lost = Arc::new(AtomicU64::new(0));
        let counted = lost.clone();
        std::thread::Builder::new().name("journald".to_owned()).spawn(move || sender.serve(&entries, &counted))?;
        Ok(Journald { queue, lost })
    }

    /// Waits until everything said so far is sent, no longer than `limit`.
    pub(super) fn flush(&self, limit: Duration) {
        let (done, sent) = sync_channel(1);
        if self.queue.try_send(Queued::Flush(done)).is_ok() {
            let _ = sent.recv_timeout(limit);
        }
    }
}

impl Sink for Journald {
    fn take(&self, entry: &Entry) {
        let line = format!("{} {}", entry.level, sentence(entry));
        if let Err(TrySendError::Full(_)) = self.queue.try_send(Queued::Entry(datagram(entry), line)) {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The end of the queue that speaks to the journal.
struct Sender {
    socket: UnixDatagram,
    /// Each entry is sent to the name: a journald that was replaced has another socket there.
    path: PathBuf,
}

impl Sender {
    fn serve(&self, entries: &Receiver<Queued>, lost: &AtomicU64) {
        for queued in entries {
            match queued {
                Queued::Entry(datagram, line) => {
                    if let Err(error) = self.send(&datagram) {
                        let _ = writeln!(std::io::stderr(), "{line} (systemd's journal did not take this: {error})");
                    }
                }
                Queued::Flush(done) => _ = done.send(()),
            }
            let count = lost.swap(0, Ordering::Relaxed);
            if count > 0 {
                let message = format!("{count} entries of the log are lost: systemd's journal took none for a while");
                let told =
                    Entry { level: Level::WARN, target: module_path!(), source: None, message, fields: Map::new() };
                let _ = self.send(&datagram(&told));
            }
        }
    }

    fn send(&self, datagram: &[u8]) -> std::io::Result<()> {
        match self.socket.send_to(datagram, &self.path) {
            Ok(_) => Ok(()),
            Err(error) if is_too_long(&error) => self.send_file(datagram),
            Err(error) => Err(error),
        }
    }

    /// Hands over a file that exists in memory only and cannot be changed any more, which is how journald takes what no datagram holds.
    fn send_file(&self, entry: &[u8]) -> std::io::Result<()> {
        let file = memfd_create("rekeyd-log", MemfdFlags::ALLOW_SEALING | MemfdFlags::CLOEXEC)?;
        let mut file = File::from(file);
        file.write_all(entry)?;
        fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL)?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let files = [file.as_fd()];
        let fits = control.push(SendAncillaryMessage::ScmRights(&files));
        debug_assert!(fits, "the space is made for one file");
        let journal = SocketAddrUnix::new(&self.path)?;
        sendmsg_addr(&self.socket, &journal, &[], &mut control, SendFlags::empty())?;
        Ok(())
    }
}

/// Longer than the socket's buffer, or than the system has room for at once.
fn is_too_long(error: &std::io::Error) -> bool {
    use rustix::io::Errno;
    Errno::from_io_error(error).is_some_and(|errno| [Errno::MSGSIZE, Errno::NOBUFS].contains(&errno))
}

fn datagram(entry: &Entry) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(512 + entry.message.len());
    put(&mut bytes, "MESSAGE", &sentence(entry));
    put(&mut bytes, "PRIORITY", priority(entry.level));
    put(&mut bytes, "SYSLOG_IDENTIFIER", IDENTIFIER);
    put(&mut bytes, "TARGET", entry.target);
    if let Some((file, line)) = entry.source {
        put(&mut bytes, "CODE_FILE", file);
        put(&mut bytes, "CODE_LINE", &line.to_string());
    }
    for (name, value) in &entry.fields {
        if let Some(name) = name_of(name) {
            put(&mut bytes, &name, &plain(value));
        }
    }
    bytes
}

/// What `journalctl` and `systemctl status` show by themselves: which service it is about, what is said, the details, and what to type.
fn sentence(entry: &Entry) -> String {
    let text = |name: &str| entry.fields.get(name).and_then(Value::as_str);
    let service = text("service").map_or_else(String::new, |service| format!("{service}: "));
    let details = entry.fields.iter().filter(|(name, _)| !SEARCHED.contains(&name.as_str()));
    let details: Vec<String> = details.map(|(name, value)| format!("{name}={}", plain(value))).collect();
    let details = if details.is_empty() { String::new() } else { format!(" ({})", details.join(", ")) };
    let next = text("next").map_or_else(String::new, |next| format!("; next: {next}"));
    format!("{service}{}{details}{next}", entry.message)
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// syslog's numbers.
fn priority(level: Level) -> &'static str {
    match level {
        Level::ERROR => "3",
        Level::WARN => "4",
        Level::INFO => "6",
        _ => "7",
    }
}

/// A field's name as the journal has it: `key_id` is `KEY_ID`. `None` where nothing of it can be a name, or where the entry has
/// said that already.
fn name_of(field: &str) -> Option<String> {
    let upper = |byte: u8| if byte.is_ascii_alphanumeric() { byte.to_ascii_uppercase() as char } else { '_' };
    let name: String = field.bytes().map(upper).take(NAME_MAX).collect();
    // What begins with an underscore is journald's own word.
    let name = name.trim_start_matches(|first: char| first == '_' || first.is_ascii_digit());
    let own = ["MESSAGE", "PRIORITY", "SYSLOG_IDENTIFIER", "TARGET", "CODE_FILE", "CODE_LINE"];
    (!name.is_empty() && !own.contains(&name)).then(|| name.to_owned())
}

/// A value of one line stands behind `=`, any other behind its length.
fn put(bytes: &mut Vec<u8>, name: &str, value: &str) {
    bytes.extend_from_slice(name.as_bytes());
    match value.contains('\n') {
        false => bytes.push(b'='),
        true => {
            bytes.push(b'\n');
            bytes.extend_from_slice(&(value.len() as u64).to_le_bytes());
        }
    }
    bytes.extend_from_slice(value.as_bytes());
    bytes.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{IoSliceMut, Read};

    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

    fn entry(message: &str) -> Entry {
        let fields =
            serde_json::json!({"service": "a", "key_id": "AKIA1", "9_odd.name": 7, "target": "mine", "_": "x"});
        Entry {
            level: Level::INFO,
            target: "rekeyd::engine",
            source: Some(("src/engine/say.rs", 7)),
            message: message.to_owned(),
            fields: fields.as_object().expect("an object").clone(),
        }
    }

    const REST: &str = "PRIORITY=6\nSYSLOG_IDENTIFIER=rekeyd\nTARGET=rekeyd::engine\nCODE_FILE=src/engine/say.rs\nCODE_LINE=7\n\
                        ODD_NAME=7\nKEY_ID=AKIA1\nSERVICE=a\n";

    #[test]
    fn an_entry_is_what_the_protocol_says() {
        let bytes = datagram(&entry("opened"));
        assert_eq!(
            String::from_utf8_lossy(&bytes),
            format!("MESSAGE=a: opened (9_odd.name=7, _=x, target=mine)\n{REST}")
        );
        let bytes = datagram(&entry("one\ntwo"));
        let lines = b"MESSAGE\n\x2b\0\0\0\0\0\0\0a: one\ntwo (9_odd.name=7, _=x, target=mine)\n";
        assert_eq!(bytes.strip_prefix(lines), Some(REST.as_bytes()));
    }

    #[test]
    fn a_long_entry_arrives_whole_in_a_sealed_file() {
        let home = tempfile::tempdir().expect("a temporary directory can be made");
        let path = home.path().join("socket");
        assert!(Journald::open(&path).is_err(), "nobody listens");
        let listener = UnixDatagram::bind(&path).expect("a socket can be made");
        let journald = Journald::open(&path).expect("somebody listens");
        let long = entry(&"a policy with many mistakes\n".repeat(100_000));
        std::thread::scope(|scope| {
            scope.spawn(|| [&entry("short"), &long].map(|entry| journald.take(entry)));
            let mut short = [0; 4096];
            let count = listener.recv(&mut short).expect("it comes");
            assert_eq!(short[..count], datagram(&entry("short")));
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            recvmsg(&listener, &mut [IoSliceMut::new(&mut short)], &mut control, RecvFlags::empty()).expect("it comes");
            let Some(RecvAncillaryMessage::ScmRights(mut files)) = control.drain().next() else {
                panic!("no file came")
            };
            let mut file = File::from(files.next().expect("one file"));
            let seals = rustix::fs::fcntl_get_seals(&file).expect("a memory file has seals");
            assert!(seals.contains(SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW), "{seals:?}");
            let mut bytes = Vec::new();
            std::io::Seek::rewind(&mut file).and_then(|()| file.read_to_end(&mut bytes)).expect("it can be read");
            assert!(bytes == datagram(&long), "it is all there");
        });
    }

    #[test]
    fn a_sentence_says_whose_it_is_and_what_to_type() {
        let fields = serde_json::json!({"service": "a", "phase": "minted", "reason": "quota", "next": "rekeyd retry a", "tries": 2});
        let fields = fields.as_object().expect("an object").clone();
        let halted = Entry { fields, ..entry("halted: both slots are taken") };
        assert_eq!(sentence(&halted), "a: halted: both slots are taken (tries=2); next: rekeyd retry a");
        assert_eq!(sentence(&Entry { fields: Map::new(), ..entry("ready") }), "ready");
    }

    #[test]
    fn a_journal_that_does_not_read_stops_nobody() {
        let home = tempfile::tempdir().expect("a temporary directory can be made");
        let path = home.path().join("socket");
        let listener = UnixDatagram::bind(&path).expect("a socket can be made");
        let journald = Journald::open(&path).expect("somebody listens");
        // More than socket and queue hold; a sender that waited would never come back.
        let (done, through) = sync_channel(1);
        let said = HELD_MAX * 4;
        let journald = Arc::new(journald);
        let speaker = journald.clone();
        std::thread::spawn(move || {
            (0..said).for_each(|_| speaker.take(&entry("one more")));
            done.send(())
        });
        through.recv_timeout(Duration::from_secs(30)).expect("nobody waits for a journal that does not read");
        listener.set_read_timeout(Some(Duration::from_secs(30))).expect("it can be set");
        let (mut came, mut bytes) = (0, [0; 4096]);
        loop {
            let count = listener.recv(&mut bytes).expect("what is lost is told");
            let text = String::from_utf8_lossy(&bytes[..count]).into_owned();
            match text.split_once(" entries of the log are lost: ") {
                Some((lost, _)) => {
                    let lost: usize = lost.trim_start_matches("MESSAGE=").parse().expect("a number");
                    assert!(came + lost <= said && lost > said / 4, "{came} came, {lost} are lost");
                    break;
                }
                None => came += 1,
            }
        }
        // Soon it is through with what it holds.
        let drains = std::thread::spawn(move || while listener.recv(&mut [0; 4096]).is_ok() {});
        journald.flush(Duration::from_secs(30));
        drop((journald, drains));
    }
}
