//! The lock that keeps a second writer out: an advisory lock on a file beside the journal, which also says who holds it.
//!
//! SQLite's own locks would let two daemons take turns, each acting on a history the other has moved on from. The kernel
//! releases this lock with its process, however that ends; the file stays, because removing it would race with the next.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::{beside, open_beside};
use crate::ports::JournalError;

/// How often, and how far apart, the holder's number is looked for: a fifth of a second in all.
const TRIES_MAX: u32 = 20;
const PAUSE: Duration = Duration::from_millis(10);

/// Held as long as it lives.
#[derive(Debug)]
pub(super) struct Lock {
    file: File,
}

impl Drop for Lock {
    /// Given back by name, and not only by closing: a child that is just being started still has the file open for a moment.
    fn drop(&mut self) {
        let _ = flock(&self.file, FlockOperation::Unlock);
    }
}

impl Lock {
    /// Takes the lock of a journal, or says who has it.
    pub(super) fn take(journal: &Path) -> Result<Self, JournalError> {
        let path = beside(journal, ".lock");
        let mut file = open_beside(journal, &path)
            .map_err(|error| JournalError::Unreachable(format!("cannot open the lock {}: {error}", path.display())))?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                let holder = match holder(&mut file) {
                    Some(pid) => format!("process {pid}"),
                    None => "another process".into(),
                };
                return Err(JournalError::Locked(format!("journal {} is held by {holder}", journal.display())));
            }
            Err(error) => {
                return Err(JournalError::Unreachable(format!("cannot take the lock {}: {error}", path.display())));
            }
        }
        // A full disk may keep the number out of the file; the lock holds without it.
        let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
        Ok(Self { file })
    }
}

/// Who holds the lock, as it says itself; only for the message. It has the lock a moment before it writes its number, and until then
/// the file is empty or names one that is dead.
fn holder(file: &mut File) -> Option<u32> {
    let mut tries = 0;
    loop {
        let mut text = String::new();
        let read = file.seek(SeekFrom::Start(0)).and_then(|_| file.take(20).read_to_string(&mut text));
        let holder = read.ok().and_then(|_| text.trim().parse().ok());
        let lives = holder.is_some_and(|pid: u32| Path::new("/proc").join(pid.to_string()).exists());
        // One that is never seen may be in a container of its own.
        if lives || tries == TRIES_MAX {
            return holder;
        }
        tries += 1;
        std::thread::sleep(PAUSE);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn a_second_taker_is_told_who_holds_it() {
        let home = tempfile::tempdir().unwrap();
        let journal = home.path().join("journal.db");
        let first = Lock::take(&journal).unwrap();
        let error = Lock::take(&journal).unwrap_err();
        let expected = format!("journal {} is held by process {}", journal.display(), std::process::id());
        assert_eq!(error, JournalError::Locked(expected));
        drop(first);
        Lock::take(&journal).unwrap();
    }

    /// Root takes this lock too, in a directory that is not root's.
    #[test]
    fn what_is_no_plain_file_is_left_alone() {
        type Link = fn(PathBuf, PathBuf) -> std::io::Result<()>;
        for link in [std::os::unix::fs::symlink as Link, std::fs::hard_link as Link] {
            let home = tempfile::tempdir().unwrap();
            let (journal, other) = (home.path().join("journal.db"), home.path().join("shadow"));
            std::fs::write(&other, "root:secret").unwrap();
            link(other.clone(), home.path().join("journal.db.lock")).unwrap();
            let JournalError::Unreachable(why) = Lock::take(&journal).unwrap_err() else { panic!("another fault") };
            assert!(why.ends_with(".lock: it is a link, or no plain file, and was left alone; remove it"), "{why}");
            assert_eq!(std::fs::read_to_string(&other).unwrap(), "root:secret");
        }
    }

    #[test]
    fn a_dead_holders_number_is_not_taken_for_that_of_the_next() {
        let home = tempfile::tempdir().unwrap();
        let journal = home.path().join("journal.db");
        let first = Lock::take(&journal).unwrap();
        // No process has so high a number; the holder writes its own a moment later.
        std::fs::write(home.path().join("journal.db.lock"), "4294967290\n").unwrap();
        let pid = std::process::id();
        let writes = std::thread::spawn(move || {
            std::thread::sleep(PAUSE * 3);
            let mut file = &first.file;
            file.set_len(0).and_then(|()| file.seek(SeekFrom::Start(0))).and_then(|_| writeln!(file, "{pid}")).unwrap();
            first
        });
        let error = Lock::take(&journal).unwrap_err();
        assert!(error.to_string().ends_with(&format!("is held by process {pid}")), "{error}");
        drop(writes.join().unwrap());
    }
}
