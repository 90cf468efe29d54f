//! Walks a path from the root, and judges each directory on its way: whether somebody could put something else in its place.
//!
//! It is for files that are believed because of where they lie: a program that is run with our rights, a key that an application
//! reads. It follows links, whose own directories are judged too, makes nothing, and does not judge what the path leads to, unless
//! that is a directory.

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, fstat, open, openat, readlinkat};
use rustix::io::Errno;

/// As many links as the kernel follows.
const LINKS_MAX: usize = 40;

/// Why a path does not lead anywhere, or not safely.
#[derive(Debug, PartialEq, Eq)]
pub enum Trouble {
    /// There is nothing there, or something on the way is no directory.
    Missing,
    /// The system says no.
    Failed(Errno),
    /// Others could turn it into something else; says which directory it is, and what to do.
    Unsafe(String),
}

impl From<Errno> for Trouble {
    fn from(error: Errno) -> Self {
        match error {
            Errno::NOENT | Errno::NOTDIR => Self::Missing,
            other => Self::Failed(other),
        }
    }
}

/// What an absolute path leads to, as a descriptor of no more than its place (`O_PATH`): root, this process's user and `also` are those
/// who may own directories and links on the way, and only they may write there. In a directory with the sticky bit (`/tmp`) others may
/// write, since they cannot replace what is not theirs.
///
/// # Errors
/// [`Trouble`].
pub fn walk(path: &Path, also: Option<u32>) -> Result<OwnedFd, Trouble> {
    let own = rustix::process::geteuid().as_raw();
    let is_ours = |user: u32| user == 0 || user == own || Some(user) == also;
    let mut way = Way::root()?;
    way.judge(is_ours)?;
    let mut rest = parts(path);
    let mut links = 0;
    while let Some(part) = rest.pop() {
        let found = openat(&way.at, &part, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        let about = fstat(&found)?;
        match FileType::from_raw_mode(about.st_mode) {
            FileType::Symlink => {
                if way.shared && !is_ours(about.st_uid) {
                    let name = way.name.join(&part);
                    return Err(Trouble::Unsafe(format!(
                        "{} is a link that user {} made",
                        name.display(),
                        about.st_uid
                    )));
                }
                links += 1;
                if links > LINKS_MAX {
                    return Err(Trouble::Failed(Errno::LOOP));
                }
                let to = PathBuf::from(OsString::from_vec(readlinkat(&found, "", Vec::new())?.into_bytes()));
                if to.is_absolute() {
                    way = Way::root()?;
                }
                rest.extend(parts(&to));
            }
            FileType::Directory => {
                way.enter(&part, found);
                way.judge(is_ours)?;
            }
            _ if rest.is_empty() => return Ok(found),
            _ => return Err(Trouble::Missing),
        }
    }
    Ok(way.at)
}

/// The names in a path, the last one first.
fn parts(path: &Path) -> Vec<OsString> {
    let names = path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        _ => None,
    });
    let mut names: Vec<OsString> = names.collect();
    names.reverse();
    names
}

/// A directory on the way.
struct Way {
    at: OwnedFd,
    name: PathBuf,
    /// Others may make things of their own in it.
    shared: bool,
}

impl Way {
    fn root() -> Result<Way, Errno> {
        let at = open("/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Way { at, name: PathBuf::from("/"), shared: false })
    }

    fn enter(&mut self, name: &OsStr, at: OwnedFd) {
        match name.as_encoded_bytes() {
            b".." => drop(self.name.pop()),
            _ => self.name.push(name),
        }
        self.at = at;
    }

    fn judge(&mut self, is_ours: impl Fn(u32) -> bool) -> Result<(), Trouble> {
        let about = fstat(&self.at)?;
        let name = self.name.display();
        if !is_ours(about.st_uid) {
            return Err(Trouble::Unsafe(format!(
                "the directory {name} belongs to user {}, who could put something else there; give it to root",
                about.st_uid
            )));
        }
        self.shared = about.st_mode & 0o022 != 0;
        if self.shared && about.st_mode & 0o1000 == 0 {
            let what = "and so put something else there; chmod go-w it";
            return Err(Trouble::Unsafe(format!("others may write the directory {name}, {what}")));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown, symlink};

    use super::*;

    #[test]
    fn every_directory_on_the_way_is_judged_and_links_are_followed() {
        let home = tempfile::tempdir().expect("a folder");
        let path = |name: &str| home.path().join(name);
        let chmod = |name: &str, mode| {
            fs::set_permissions(path(name), fs::Permissions::from_mode(mode)).expect("it is ours");
        };
        fs::create_dir_all(path("a/b/c")).expect("it can be made");
        fs::write(path("a/b/c/file"), "x").expect("it can be written");
        fs::create_dir(path("links")).expect("it can be made");
        symlink("../a/b", path("links/b")).expect("it can be made");
        symlink(path("links/b/c"), path("links/c")).expect("it can be made");
        symlink("round", path("links/round")).expect("it can be made");
        let number = |name: &str| fs::metadata(path(name)).expect("it is there").ino();
        let leads = |name: &str| walk(&path(name), None).map(|found| fstat(found).expect("it is open").st_ino);
        for way in ["a/b/c/file", "links/b/c/file", "links/c/file"] {
            assert_eq!(leads(way), Ok(number("a/b/c/file")), "{way}");
        }
        assert_eq!(leads("links/c"), Ok(number("a/b/c")));
        for nowhere in ["a/x", "a/x/c", "a/b/c/file/x"] {
            assert_eq!(leads(nowhere), Err(Trouble::Missing), "{nowhere}");
        }
        assert_eq!(leads("links/round"), Err(Trouble::Failed(Errno::LOOP)));
        for (name, mode) in [("a", 0o775), ("a/b", 0o757), ("a/b/c", 0o770), ("links", 0o777)] {
            chmod(name, mode);
            let what = format!("others may write the directory {},", path(name).display());
            assert!(matches!(leads("links/c/file"), Err(Trouble::Unsafe(why)) if why.starts_with(&what)), "{name}");
            chmod(name, 0o755);
        }
        chmod("a", 0o1777);
        assert!(leads("links/c/file").is_ok());
    }

    #[test]
    fn what_belongs_to_others_leads_nowhere() {
        if !rustix::process::geteuid().is_root() {
            println!("NOT RUN: only root can give a directory away");
            return;
        }
        const OTHER: u32 = 4711;
        let home = tempfile::tempdir().expect("a folder");
        let path = |name: &str| home.path().join(name);
        fs::create_dir_all(path("a/b")).expect("it can be made");
        fs::write(path("a/b/file"), "x").expect("it can be written");
        symlink("a/b", path("link")).expect("it can be made");
        lchown(path("link"), Some(OTHER), None).expect("root may");
        assert!(walk(&path("link/file"), None).is_ok(), "nobody but us could put another link there");
        fs::set_permissions(home.path(), fs::Permissions::from_mode(0o1777)).expect("it is ours");
        let why = format!("{} is a link that user {OTHER} made", path("link").display());
        assert_eq!(walk(&path("link/file"), None).map(drop), Err(Trouble::Unsafe(why)));
        assert!(walk(&path("link/file"), Some(OTHER)).is_ok());
        lchown(path("a"), Some(OTHER), None).expect("root may");
        let why = format!(
            "the directory {} belongs to user {OTHER}, who could put something else there; give it to root",
            path("a").display()
        );
        assert_eq!(walk(&path("a/b/file"), None).map(drop), Err(Trouble::Unsafe(why)));
        assert!(walk(&path("a/b/file"), Some(OTHER)).is_ok());
    }
}
