//! The disk between two syncs: `shim.c`, built once and put under a daemon, and what a power cut leaves of what was not synced.
//!
//! What a true power cut may do is the model here: everything a sync vouched for is there. Of what was written since, each write is
//! there, or torn between two sectors, or absent, whatever became of the others. The shared memory of the journal's index is gone.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::dice::Dice;

/// What a disk writes whole.
const SECTOR: usize = 512;

/// Errors a disk gives, as Linux numbers them.
pub const EIO: u32 = 5;
pub const ENOSPC: u32 = 28;
pub const EROFS: u32 = 30;

/// The shim of one journal's folder.
pub struct Shim {
    below: PathBuf,
    order: PathBuf,
    dump: PathBuf,
}

/// One write or truncation that no sync had vouched for.
struct Change {
    path: PathBuf,
    offset: u64,
    size_before: u64,
    size_after: u64,
    old: Vec<u8>,
    new: Vec<u8>,
}

impl Shim {
    /// For the files below a folder; its order and its dump stand beside that folder.
    pub fn of(below: &Path) -> Shim {
        Shim { below: below.to_owned(), order: below.with_extension("order"), dump: below.with_extension("dump") }
    }

    /// Puts it under a program about to be started.
    pub fn under(&self, command: &mut Command) {
        command.env("LD_PRELOAD", library());
        command.env("REKEYD_SHIM_BELOW", &self.below);
        command.env("REKEYD_SHIM_ORDER", &self.order).env("REKEYD_SHIM_DUMP", &self.dump);
    }

    pub fn fail_syncs(&self, errno: u32) {
        self.give(&format!("fsync {errno}"));
    }

    pub fn fail_writes(&self, errno: u32) {
        self.give(&format!("write {errno}"));
    }

    /// The power goes after so many more writes, truncations and syncs.
    pub fn cut_after(&self, calls: u64) {
        let _ = std::fs::remove_file(&self.dump);
        self.give(&format!("cut {calls}"));
    }

    /// The disk is gone: no write and no sync returns until it is calm again.
    pub fn hang(&self) {
        self.give("hang 1");
    }

    /// Everything works again.
    pub fn calm(&self) {
        let _ = std::fs::remove_file(&self.order);
    }

    /// Whole at every moment: the program looks at it all the time.
    fn give(&self, order: &str) {
        let draft = self.order.with_extension("draft");
        std::fs::write(&draft, order).expect("an order can be written");
        std::fs::rename(&draft, &self.order).expect("it can be given");
    }

    /// After a cut: leaves on the disk what a power cut may leave. Says how many writes were not vouched for and how many of them are
    /// absent or torn; `None` where the power did not go.
    pub fn fall(&self, dice: &mut Dice) -> Option<(usize, usize)> {
        self.calm();
        let changes = changes(&self.dump)?;
        let _ = std::fs::remove_file(&self.dump);
        for change in changes.iter().rev() {
            if let Ok(file) = OpenOptions::new().write(true).open(&change.path) {
                file.set_len(change.size_before).expect("it can be cut");
                file.write_all_at(&change.old, change.offset).expect("it can be written");
            }
        }
        let mut lost = 0;
        for change in &changes {
            let Ok(file) = OpenOptions::new().write(true).open(&change.path) else { continue };
            match dice.below(3) {
                0 => lost += 1,
                1 if change.new.len() > SECTOR => {
                    let sectors = 1 + dice.below((change.new.len() / SECTOR) as u64);
                    let torn = usize::try_from(sectors).expect("a few") * SECTOR;
                    lost += usize::from(torn < change.new.len());
                    let torn = torn.min(change.new.len());
                    file.write_all_at(&change.new[..torn], change.offset).expect("it can be written");
                }
                _ if change.new.is_empty() => file.set_len(change.size_after).expect("it can be cut"),
                _ => file.write_all_at(&change.new, change.offset).expect("it can be written"),
            }
        }
        for entry in std::fs::read_dir(&self.below).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().ends_with("-shm") {
                std::fs::remove_file(entry.path()).expect("it can be removed");
            }
        }
        Some((changes.len(), lost))
    }
}

fn changes(dump: &Path) -> Option<Vec<Change>> {
    let mut file = File::open(dump).ok()?;
    let mut changes = Vec::new();
    loop {
        let mut length = [0; 4];
        if file.read(&mut length).expect("the dump can be read") == 0 {
            return Some(changes);
        }
        let mut bytes = |length: [u8; 4]| {
            let mut bytes = vec![0; u32::from_ne_bytes(length) as usize];
            file.read_exact(&mut bytes).expect("the dump is whole");
            bytes
        };
        let path = PathBuf::from(String::from_utf8(bytes(length)).expect("the folder's name is text"));
        let mut number = || u64::from_ne_bytes(bytes(8_u32.to_ne_bytes()).try_into().expect("eight bytes"));
        let (offset, size_before, size_after) = (number(), number(), number());
        let mut part = || {
            let length = bytes(4_u32.to_ne_bytes()).try_into().expect("four bytes");
            bytes(length)
        };
        let (old, new) = (part(), part());
        changes.push(Change { path, offset, size_before, size_after, old, new });
    }
}

fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let library = Path::new(env!("CARGO_TARGET_TMPDIR")).join("chaos-shim.so");
        let draft = library.with_extension(std::process::id().to_string());
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/chaos/shim.c");
        let mut cc = Command::new("cc");
        cc.args(["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-o"]).arg(&draft).arg(&source);
        let built = cc.arg("-ldl").arg("-lpthread").output().expect("a C compiler is there: README, Try it");
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        // A program that runs keeps the one it has.
        std::fs::rename(&draft, &library).expect("it can be put in place");
        library
    })
}
