//! The lock that keeps a second writer out: an advisory lock on a file beside the journal, which also says who holds it.
//!
//! SQLite's own locks would let two daemons take turns, each acting on a history the other has moved on from. The kernel
//! releases this lock with its process, however that ends; the file stays, because removing it would race with the next.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;

use super::{beside, give_to_owner};
use crate::ports::JournalError;

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
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path).map_err(
                |error| JournalError::Unreachable(format!("cannot open the lock {}: {error}", path.display())),
            )?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => {
                let mut holder = String::new();
                // Only for the message; the holder may be about to write it.
                let _ = (&mut file).take(20).read_to_string(&mut holder);
                let holder = match holder.trim().parse::<u32>() {
                    Ok(pid) => format!("process {pid}"),
                    Err(_) => "another process".into(),
                };
                return Err(JournalError::Locked(format!("journal {} is held by {holder}", journal.display())));
            }
            Err(error) => {
                return Err(JournalError::Unreachable(format!("cannot take the lock {}: {error}", path.display())));
            }
        }
        give_to_owner(journal, &file);
        // A full disk may keep the number out of the file; the lock holds without it.
        let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
        Ok(Self { file })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
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
}
