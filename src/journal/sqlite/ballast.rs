//! The ballast: some disk space set aside before a mint, to be given up if the disk is full when the minted key arrives.
//!
//! A key that was minted and cannot be written down is the one loss a full disk could cause, because its secret is shown only
//! once. So before the intent to mint is journaled, a file of 256 KiB is allocated beside the journal (`fallocate`, so that
//! the blocks are really there, and synced). Where that fails, nothing is minted. Where the commit of the minted key then
//! finds the disk full, the file is removed and the commit sent again at once: it needs some tens of KiB at most (a handful of
//! log pages of 4 KiB, and a step of 32 KiB of the log's index). The next `reserve` makes the file anew.
//!
//! What it cannot do: keep another process from taking the freed space in that instant (the caller tries for a minute more),
//! and free space at once where old blocks live on in a snapshot of the file system.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use aws_lc_rs::rand;
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

use super::{beside, directory_of, open_beside};

/// Its size in bytes.
pub(super) const SIZE: u64 = 256 * 1024;

/// The file that is given up.
#[derive(Debug)]
pub(super) struct Ballast {
    journal: PathBuf,
    path: PathBuf,
}

impl Ballast {
    /// The ballast of a journal; makes nothing yet.
    pub(super) fn beside(journal: &Path) -> Self {
        Self { journal: journal.to_owned(), path: beside(journal, ".ballast") }
    }

    /// Makes sure that it is there, whole and on the disk. Leaves nothing behind where it cannot be.
    pub(super) fn reserve(&self) -> io::Result<()> {
        let allocate = || -> io::Result<()> {
            let file = open_beside(&self.journal, &self.path)?;
            let about = file.metadata()?;
            if about.len() == SIZE && about.blocks() * 512 >= SIZE {
                return Ok(());
            }
            match fallocate(&file, FallocateFlags::empty(), 0, SIZE) {
                Ok(()) => {}
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => fill(&file)?,
                Err(error) => return Err(error.into()),
            }
            file.sync_all()?;
            File::open(directory_of(&self.path))?.sync_all()
        };
        allocate().inspect_err(|_| {
            self.release();
        })
    }

    /// Gives it up. Says whether there was one.
    pub(super) fn release(&self) -> bool {
        fs::remove_file(&self.path).is_ok()
    }
}

/// For file systems that cannot allocate without writing: random bytes, which no file system compresses away.
fn fill(mut file: &File) -> io::Result<()> {
    let mut bytes = vec![0; SIZE as usize];
    rand::fill(&mut bytes).map_err(|_| io::Error::other("the system gave no random bytes"))?;
    file.write_all(&bytes)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn it_is_really_allocated_and_made_again_after_use() {
        let home = tempfile::tempdir().unwrap();
        let ballast = Ballast::beside(&home.path().join("journal.db"));
        assert!(!ballast.release(), "there is none to give up yet");
        for _ in 0..2 {
            ballast.reserve().unwrap();
            ballast.reserve().unwrap();
            let about = ballast.path.metadata().unwrap();
            assert!(about.len() == SIZE && about.blocks() * 512 >= SIZE);
            assert!(ballast.release());
        }
    }

    #[test]
    fn half_a_ballast_is_made_whole() {
        let home = tempfile::tempdir().unwrap();
        let ballast = Ballast::beside(&home.path().join("journal.db"));
        File::create(&ballast.path).unwrap().set_len(SIZE).unwrap();
        assert_eq!(ballast.path.metadata().unwrap().blocks(), 0, "a hole, not an allocation");
        ballast.reserve().unwrap();
        assert!(ballast.path.metadata().unwrap().blocks() * 512 >= SIZE);
    }

    #[test]
    fn the_way_without_fallocate_allocates_too() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("filled");
        fill(&File::create(&path).unwrap()).unwrap();
        assert_eq!(path.metadata().unwrap().len(), SIZE);
    }
}
