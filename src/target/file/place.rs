//! The file itself: read without following anything, replaced whole or not at all.
//!
//! ```text
//! replace   write .NAME.rekeyd beside it, exclusively, with mode and owner before the first byte; fsync; rename; fsync of the directory
//! ```
//!
//! A power cut leaves the old file or the new one, and perhaps the one beside it, which the next replacement takes away. It knows
//! nothing of what is in it.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, fchown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Access, AtFlags, Mode, OFlags, accessat, fchmod, fgetxattr, fstat, openat, renameat, unlinkat};
use rustix::io::Errno;
use zeroize::Zeroizing;

use super::owner::{self, Owner};
use crate::model::Reason;
use crate::net::path::{Trouble, walk};
use crate::ports::Fault;

/// A longer file holds no key.
const LENGTH_MAX: u64 = 64 * 1024;
/// A full disk is somebody's to empty, which takes a while.
const FULL_PAUSE: Duration = Duration::from_secs(60);

/// Where Linux keeps a list of further users and groups that may read a file (acl(5)).
const ACCESS_LIST: &str = "system.posix_acl_access";
/// No such list is longer: the kernel's own bound of an attribute.
const LIST_MAX: usize = 64 * 1024;

/// A file to be, in a directory that is there.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) path: PathBuf,
    pub(super) mode: u32,
    /// Nobody said that it is to be this one.
    pub(super) mode_is_default: bool,
    pub(super) owner: Owner,
}

impl Place {
    /// What is in it; `None` where there is no such file.
    ///
    /// # Errors
    /// A path or a directory that others could turn into something else, or that cannot be read.
    pub(super) fn read(&self) -> Result<Option<Zeroizing<Vec<u8>>>, Fault> {
        let doing = format!("reading {}", self.path.display());
        let (directory, _) = self.directory(&doing)?;
        self.read_in(&directory, &doing)
    }

    fn read_in(&self, directory: &OwnedFd, doing: &str) -> Result<Option<Zeroizing<Vec<u8>>>, Fault> {
        // Neither through a link, nor waiting for whoever writes into a pipe.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match openat(directory, self.name(), flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::LOOP) => {
                let what = "it is a symbolic link; name the file itself in the policy, or remove the link";
                return Err(refused(Reason::TargetChanged, doing, what));
            }
            Err(error) => return Err(failed(doing, error)),
        };
        let about = file.metadata().map_err(|error| broken(doing, &error))?;
        let what = match () {
            () if about.is_dir() => "it is a directory; a path ends with the name of the file",
            () if !about.is_file() => "it is no ordinary file; remove it",
            () if about.mode() & 0o022 != 0 => {
                "others than its owner may write it, so nobody knows whose key it holds; chmod go-w it"
            }
            () if about.len() > LENGTH_MAX => "it is longer than any key (64 KiB); give the key a file of its own",
            () => {
                // One buffer of the final size, so that growing leaves no copy behind.
                let mut bytes = Zeroizing::new(Vec::with_capacity(LENGTH_MAX as usize + 1));
                file.take(LENGTH_MAX + 1).read_to_end(&mut bytes).map_err(|error| broken(doing, &error))?;
                return Ok(Some(bytes));
            }
        };
        Err(refused(Reason::TargetChanged, doing, what))
    }

    /// Whether a replacement would be allowed now, as far as can be told without one.
    ///
    /// # Errors
    /// A directory that is not there or not safe, and rights that are missing.
    pub(super) fn rehearse(&self) -> Result<(), Fault> {
        let doing = format!("looking at {}", self.path.display());
        let (directory, _) = self.directory(&doing)?;
        accessat(&directory, ".", Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS)
            .map_err(|error| failed(&doing, error))?;
        // A file without a name, which is gone when it is closed: whether it may have that owner. Not every file system has them.
        let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
        let like_it = match openat(&directory, ".", flags, Mode::RUSR | Mode::WUSR) {
            Ok(file) => {
                self.dress(&file).map_err(|error| failed(&doing, error))?;
                Some(file)
            }
            Err(Errno::ROFS) => return Err(failed(&doing, Errno::ROFS)),
            Err(_) => None,
        };
        drop(self.read_in(&directory, &doing)?);
        self.whom_it_would_shut_out(&directory, like_it.as_ref(), &doing)
    }

    /// A replacement has the owner and the mode that the policy says. Where it says none, and those of the file that is there let others
    /// read it, an application would find its key locked away, and the old one retired behind its back.
    fn whom_it_would_shut_out(&self, directory: &OwnedFd, like_it: Option<&OwnedFd>, doing: &str) -> Result<(), Fault> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match openat(directory, self.name(), flags, Mode::empty()) {
            Ok(file) => file,
            Err(Errno::NOENT) => return Ok(()),
            Err(error) => return Err(failed(doing, error)),
        };
        let now = fstat(&file).map_err(|error| failed(doing, error))?;
        let around = fstat(directory).map_err(|error| failed(doing, error))?;
        let own = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let user = self.owner.user.unwrap_or(own.0);
        // A directory with the set-group-ID bit hands its own group on.
        let inherited = if around.st_mode & 0o2000 == 0 { own.1 } else { around.st_gid };
        let group = self.owner.group.unwrap_or(inherited);
        let is_shut_out = (self.mode_is_default && now.st_mode & 0o444 & !self.mode != 0)
            || (self.owner.user.is_none() && now.st_uid != user)
            || (self.owner.group.is_none() && now.st_gid != group && now.st_mode & self.mode & 0o040 != 0);
        if is_shut_out {
            let names = (owner::named(now.st_uid, now.st_gid), owner::named(user, group));
            let (mode, wanted) = (now.st_mode & 0o7777, self.mode);
            // Whoever reads it as one of all others belongs to a group that only the operator can name.
            let whose = if mode & 0o004 == 0 { names.0.as_str() } else { ":GROUP" };
            let told = if mode & 0o004 == 0 { "" } else { ", with a group that the application belongs to" };
            let what = format!(
                "it is {} {mode:04o} and would become {} {wanted:04o}, so that who reads it now could not any more; say in the \
                 policy whose it is to be, as in owner = \"{whose}\" and mode = \"{:04o}\"{told}, or give it that owner and mode now",
                names.0,
                names.1,
                if mode & 0o004 == 0 { mode & 0o440 | 0o200 } else { 0o640 },
            );
            return Err(refused(Reason::PolicyMismatch, doing, &what));
        }
        let list = access_list(&file);
        if list.is_some() && list != like_it.and_then(access_list) {
            let what = "its access list (getfacl) would be lost with it; let its readers in by `owner` and `mode`, or by a default \
                        list of the directory, and take the list away (setfacl -b)";
            return Err(refused(Reason::PolicyMismatch, doing, what));
        }
        Ok(())
    }

    /// Puts `content` in its place. Anything but `Unknown` means that nothing was changed.
    ///
    /// # Errors
    /// As [`Place::read`], and whatever keeps a file from being written.
    pub(super) fn replace(&self, content: &[u8]) -> Result<(), Fault> {
        let doing = format!("writing {}", self.path.display());
        let (directory, handle) = self.directory(&doing)?;
        // What others put in its place since it was inspected is not ours to overwrite.
        drop(self.read_in(&directory, &doing)?);
        let beside = format!(".{}.rekeyd", self.name());
        let written = self
            .write_beside(&directory, &beside, content)
            .and_then(|()| renameat(&directory, &beside, &directory, self.name()));
        if let Err(error) = written {
            // It holds a key that nobody was given.
            let _ = unlinkat(&directory, &beside, AtFlags::empty());
            return Err(failed(&doing, error));
        }
        handle.sync_all().map_err(|error| {
            Fault::Unknown(format!("{doing}: it is written, and whether that survives a power cut is unknown: {error}"))
        })
    }

    fn write_beside(&self, directory: &OwnedFd, beside: &str, content: &[u8]) -> Result<(), Errno> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let create = || openat(directory, beside, flags, Mode::RUSR | Mode::WUSR);
        let file = match create() {
            Err(Errno::EXIST) => {
                // Left by a rekeyd that was killed; only who may write here can have made it.
                unlinkat(directory, beside, AtFlags::empty())?;
                create()?
            }
            made => made?,
        };
        self.dress(&file)?;
        let mut file = File::from(file);
        let number = |error: std::io::Error| Errno::from_io_error(&error).unwrap_or(Errno::IO);
        file.write_all(content).map_err(number)?;
        file.sync_all().map_err(number)
    }

    /// Mode and owner, before anything is in it. The mode first: of a file that is not ours any more it is not ours to change, and no
    /// mode that a policy can say is one of those that a change of owner takes bits away from (set-user-ID, set-group-ID).
    fn dress(&self, file: impl AsFd) -> Result<(), Errno> {
        fchmod(&file, Mode::from_raw_mode(self.mode))?;
        let Owner { user, group } = self.owner;
        let is = fstat(&file)?;
        // Units take this call away; where it has that owner already, nothing is asked for.
        if user.is_some_and(|user| user != is.st_uid) || group.is_some_and(|group| group != is.st_gid) {
            fchown(&file, user, group).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
        }
        Ok(())
    }

    /// The directory, in which every name is then looked up: nobody can put another in its place meanwhile.
    fn directory(&self, doing: &str) -> Result<(OwnedFd, File), Fault> {
        let folder = self.folder();
        let missing = || {
            let what = format!("there is no directory {}; make it, for rekeyd makes none", folder.display());
            refused(Reason::NotFound, doing, &what)
        };
        let found = walk(folder, self.owner.user).map_err(|trouble| match trouble {
            Trouble::Missing => missing(),
            Trouble::Failed(error) => failed(doing, error),
            Trouble::Unsafe(what) => refused(Reason::MissingRight, doing, &what),
        })?;
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let directory = openat(&found, ".", flags, Mode::empty()).map_err(|error| match error {
            Errno::NOTDIR => missing(),
            other => failed(doing, other),
        })?;
        let handle = File::from(directory.try_clone().map_err(|error| broken(doing, &error))?);
        let about = handle.metadata().map_err(|error| broken(doing, &error))?;
        if about.mode() & 0o022 != 0 {
            // A sticky bit is not enough here: while there is no file, anybody could make one.
            let folder = folder.display();
            let what = format!("others may write the directory {folder}, and so make the file theirs; chmod go-w it");
            return Err(refused(Reason::MissingRight, doing, &what));
        }
        Ok((directory, handle))
    }

    /// The file by the directory's true name, so that two ways to one file are one place.
    pub(super) fn holder(&self) -> String {
        let folder = self.folder();
        folder.canonicalize().unwrap_or_else(|_| folder.to_owned()).join(self.name()).display().to_string()
    }

    fn folder(&self) -> &Path {
        self.path.parent().expect("the policy takes absolute paths to a name only")
    }

    fn name(&self) -> &str {
        self.path.file_name().and_then(|name| name.to_str()).expect("the policy takes absolute paths to a name only")
    }
}

/// Who else may read it, where a list says so.
fn access_list(file: &OwnedFd) -> Option<Vec<u8>> {
    let mut list = vec![0; LIST_MAX];
    let length = fgetxattr(file, ACCESS_LIST, &mut list[..]).ok()?;
    list.truncate(length);
    Some(list)
}

fn refused(reason: Reason, doing: &str, what: &str) -> Fault {
    Fault::Refused { reason, why: format!("{doing}: {what}") }
}

fn broken(doing: &str, error: &std::io::Error) -> Fault {
    match Errno::from_io_error(error) {
        Some(number) => failed(doing, number),
        None if error.kind() == ErrorKind::Interrupted => {
            Fault::Retry { after: None, why: format!("{doing}: {error}") }
        }
        None => Fault::NotSent(format!("{doing}: {error}")),
    }
}

/// Nothing was changed. What somebody has to see to is told apart from what may pass.
fn failed(doing: &str, error: Errno) -> Fault {
    let retry = |after, what: &str| Fault::Retry { after, why: format!("{doing}: {what}; nothing was changed") };
    match error {
        Errno::NOSPC | Errno::DQUOT => retry(Some(FULL_PAUSE), "the disk is full, or a quota is used up"),
        Errno::ROFS => {
            let what = "the file system is read-only; mount it writable, or name the directory in ReadWritePaths= of rekeyd's unit";
            refused(Reason::MissingRight, doing, what)
        }
        Errno::ACCESS | Errno::PERM => {
            let what = format!(
                "{error}; rekeyd's user needs the right to write and search the directory, and to give the file its `owner` and read it \
                 then (in its unit SystemCallFilter=@chown for any `owner`, and CAP_CHOWN and CAP_DAC_OVERRIDE where that is another \
                 user or group than its own)"
            );
            refused(Reason::MissingRight, doing, &what)
        }
        other => retry(None, &other.to_string()),
    }
}
