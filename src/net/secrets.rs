//! Reads the secrets a policy refers to: a systemd credential, a file, an environment variable.
//!
//! Does not look at who else may read the file: a credential that systemd lends is readable by its service alone, and a file that
//! a secret store mounts may well be readable by a group. Does not remember anything: a reload reads again.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Component, Path, PathBuf};

use zeroize::Zeroizing;

use crate::model::{Reason, Secret, SecretRef};
use crate::ports::Fault;

/// A longer file is a mistake, not a password: 64 KiB.
const LENGTH_MAX: usize = 64 * 1024;

/// Where the unit takes credentials from: `LoadCredential=secrets:` this, and `LoadCredentialEncrypted=encrypted:` this with
/// `.encrypted` behind it.
const SECRETS: &str = "/etc/rekeyd/secrets";

/// Reads the secret a reference names. One trailing newline (`\n` or `\r\n`) is stripped.
///
/// A file is accepted whoever may read it; keep it at mode 0400, or hand it over with systemd's `LoadCredential=`.
///
/// # Errors
/// [`Fault::Refused`] with `secret-not-held` where the source is absent, unreadable, empty, longer than 64 KiB or not UTF-8. The
/// message names the reference, never anything of the value.
pub fn read(reference: &SecretRef) -> Result<Secret, Fault> {
    read_with(reference, |name| env::var_os(name))
}

/// [`read`], with the environment passed in.
fn read_with(reference: &SecretRef, variable: impl Fn(&str) -> Option<OsString>) -> Result<Secret, Fault> {
    let refuse =
        |what: &str| Fault::Refused { reason: Reason::SecretNotHeld, why: format!("{}: {what}", describe(reference)) };
    let bytes = match reference {
        SecretRef::Env(name) => {
            let value = variable(name).ok_or_else(|| refuse("the variable is not set"))?;
            Zeroizing::new(value.into_encoded_bytes())
        }
        SecretRef::File(path) => read_file(Path::new(path)).map_err(|what| refuse(&what))?,
        SecretRef::Credential(name) => {
            let path = credential_path(name, variable("CREDENTIALS_DIRECTORY").as_deref(), SECRETS)
                .map_err(|what| refuse(&what))?;
            read_file(&path).map_err(|what| refuse(&what))?
        }
    };
    from_bytes(bytes).map_err(refuse)
}

/// How messages name a reference: by where it points, which is not secret.
pub fn describe(reference: &SecretRef) -> String {
    match reference {
        SecretRef::Credential(name) => format!("reading the secret {{ credential = {name:?} }}"),
        SecretRef::File(path) => format!("reading the secret {{ file = {path:?} }}"),
        SecretRef::Env(name) => format!("reading the secret {{ env = {name:?} }}"),
    }
}

/// Where a credential is. systemd names those of a directory `ID_FILENAME` (systemd.exec(5), LoadCredential=), so that a file of
/// `/etc/rekeyd/secrets` comes as `secrets_NAME`; one that a drop-in loads by itself has the name it says, and comes first. One that is
/// there both plain and encrypted is refused: which of them is out of date only somebody knows.
///
/// Where systemd has lent none, whoever may read `secrets` (root, that is, and not the unit's user) finds the same file there, so
/// that `rekeyd doctor` works before the first start. That a directory is named is no sign of the unit: a login at the console may
/// have inherited that of another one.
fn credential_path(name: &str, directory: Option<&OsStr>, secrets: &str) -> Result<PathBuf, String> {
    let plain =
        matches!(Path::new(name).components().collect::<Vec<_>>()[..], [Component::Normal(part)] if part == name);
    if !plain {
        return Err("a credential's name is one plain file name".to_owned());
    }
    let directory = directory.filter(|directory| !directory.is_empty()).map(Path::new);
    let lent = |name: String| directory.map(|lent| lent.join(name)).filter(|path| path.symlink_metadata().is_ok());
    let (path, encrypted) = (Path::new(secrets).join(name), format!("{secrets}.encrypted/{name}"));
    let twice = || Err(format!("there is {} and {encrypted}: remove the one that is out of date", path.display()));
    match (lent(name.to_owned()), lent(format!("secrets_{name}")), lent(format!("encrypted_{name}"))) {
        (None, Some(_), Some(_)) => return twice(),
        (Some(path), _, _) | (None, Some(path), None) | (None, None, Some(path)) => return Ok(path),
        (None, None, None) => {}
    }
    let is_encrypted = Path::new(&encrypted).exists();
    match (path.symlink_metadata().map_err(|error| error.kind()), directory) {
        (Ok(_), _) if is_encrypted => twice(),
        (Ok(about), _) if !about.is_file() => Err(format!(
            "{} is a link, or no plain file, which systemd does not lend: put the file itself there",
            path.display()
        )),
        (Ok(_), _) => Ok(path),
        (Err(ErrorKind::NotFound), None) if is_encrypted => Err(format!(
            "{encrypted} is opened by systemd alone, for the daemon; `rekeyd doctor` asks it where it runs"
        )),
        (Err(ErrorKind::NotFound), None) => Err(format!("there is none of this name; its place is {secrets}/{name}")),
        (Err(_), None) => {
            Err(format!("{secrets} is root's: ask as root, or ask the daemon, which has it from systemd"))
        }
        (Err(_), Some(_)) => {
            Err(format!("systemd has lent none of this name; its place is {secrets}/{name}, a file and no link"))
        }
    }
}

/// Reads into one buffer of the final size, so that no copy is left behind by growing.
fn read_file(path: &Path) -> Result<Zeroizing<Vec<u8>>, String> {
    let mut file = File::open(path).map_err(|error| match error.kind() {
        ErrorKind::NotFound => "the file does not exist".to_owned(),
        _ => format!("opening the file failed: {error}"),
    })?;
    let mut buffer = Zeroizing::new(vec![0; LENGTH_MAX + 1]);
    let mut length = 0;
    while length < buffer.len() {
        match file.read(&mut buffer[length..]) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(format!("reading the file failed: {error}")),
        }
    }
    if length > LENGTH_MAX {
        return Err("the file is longer than 64 KiB".to_owned());
    }
    buffer.truncate(length);
    Ok(buffer)
}

fn from_bytes(bytes: Zeroizing<Vec<u8>>) -> Result<Secret, &'static str> {
    let text = std::str::from_utf8(&bytes).map_err(|_| "the value is not UTF-8")?;
    let line = text.strip_suffix('\n').map_or(text, |line| line.strip_suffix('\r').unwrap_or(line));
    if line.is_empty() {
        return Err("the value is empty");
    }
    Ok(Secret::new(line.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nothing(_: &str) -> Option<OsString> {
        None
    }

    fn file(contents: &[u8]) -> (tempfile::TempDir, SecretRef) {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let path = directory.path().join("secret");
        std::fs::write(&path, contents).expect("a temporary file can be written");
        let reference = SecretRef::File(path.to_str().expect("the path is UTF-8").to_owned());
        (directory, reference)
    }

    fn value(contents: &[u8]) -> Result<String, String> {
        let (_directory, reference) = file(contents);
        read(&reference).map(|secret| secret.expose().to_owned()).map_err(|fault| fault.why().to_owned())
    }

    #[test]
    fn one_trailing_newline_is_stripped() {
        assert_eq!(value(b"hunter2"), Ok("hunter2".to_owned()));
        assert_eq!(value(b"hunter2\n"), Ok("hunter2".to_owned()));
        assert_eq!(value(b"hunter2\r\n"), Ok("hunter2".to_owned()));
        assert_eq!(value(b" hunter2\n\n"), Ok(" hunter2\n".to_owned()));
    }

    #[test]
    fn what_is_no_secret_is_refused_without_being_shown() {
        for (contents, what) in [
            (&b""[..], "the value is empty"),
            (b"\n", "the value is empty"),
            (b"hunter2\xff", "the value is not UTF-8"),
        ] {
            let message = value(contents).expect_err("this is no secret");
            assert!(
                message.ends_with(what) && message.contains("{ file = ") && !message.contains("hunter2"),
                "{message}"
            );
        }
        let long = value(&vec![b'x'; LENGTH_MAX + 1]).expect_err("this is too long");
        assert!(long.ends_with("longer than 64 KiB"), "{long}");
    }

    #[test]
    fn a_missing_source_is_named() {
        let fault = read_with(&SecretRef::Env("ARCGIS_PASSWORD".to_owned()), nothing).expect_err("it is not set");
        assert_eq!(
            fault,
            Fault::Refused {
                reason: Reason::SecretNotHeld,
                why: "reading the secret { env = \"ARCGIS_PASSWORD\" }: the variable is not set".to_owned()
            }
        );
        let fault = read(&SecretRef::File("/nonexistent/x".to_owned())).expect_err("there is no such file");
        assert_eq!(fault.why(), "reading the secret { file = \"/nonexistent/x\" }: the file does not exist");
    }

    #[test]
    fn a_credential_is_a_file_in_the_directory_systemd_names() {
        let (directory, _) = file(b"hunter2\n");
        let lookup =
            |name: &str| (name == "CREDENTIALS_DIRECTORY").then(|| directory.path().as_os_str().to_os_string());
        let secret = read_with(&SecretRef::Credential("secret".to_owned()), lookup).expect("the file is there");
        assert_eq!(secret.expose(), "hunter2");
        let outside = SecretRef::Credential("../secret".to_owned());
        assert!(read_with(&outside, lookup).expect_err("a path is no name").why().ends_with("one plain file name"));
        let absent =
            read_with(&SecretRef::Credential("arcgis-prod".to_owned()), lookup).expect_err("nobody put it there");
        assert_eq!(
            absent.why(),
            "reading the secret { credential = \"arcgis-prod\" }: systemd has lent none of this name; its place is \
             /etc/rekeyd/secrets/arcgis-prod, a file and no link"
        );
    }

    #[test]
    fn a_credential_of_a_directory_has_the_directorys_id_before_its_name() {
        let home = tempfile::tempdir().expect("a temporary directory can be made");
        let lent = home.path().as_os_str();
        let path = |name: &str| {
            credential_path(name, Some(lent), "/nonexistent/secrets")
                .map(|path| path.file_name().map(OsStr::to_os_string))
        };
        let put = |name: &str| std::fs::write(home.path().join(name), "x").expect("a temporary file can be written");
        put("encrypted_a");
        assert_eq!(path("a"), Ok(Some("encrypted_a".into())));
        put("secrets_a");
        let twice =
            "there is /nonexistent/secrets/a and /nonexistent/secrets.encrypted/a: remove the one that is out of date";
        assert_eq!(path("a"), Err(twice.to_owned()), "which of them counts is nothing to guess");
        put("a");
        assert_eq!(path("a"), Ok(Some("a".into())), "what somebody names by itself is meant");
        put("secrets_b");
        assert_eq!(path("b"), Ok(Some("secrets_b".into())));
        std::fs::remove_file(home.path().join("secrets_b")).expect("it can be removed");
        // The name is the whole of what the policy says, and no part of another.
        assert!(path("b").is_err() && path("secrets").is_err());
    }

    #[test]
    fn outside_the_unit_the_files_themselves_are_read() {
        let home = tempfile::tempdir().expect("a temporary directory can be made");
        let secrets = home.path().join("secrets").to_str().expect("the path is UTF-8").to_owned();
        let path = || credential_path("arcgis-prod", None, &secrets);
        assert_eq!(path(), Err(format!("there is none of this name; its place is {secrets}/arcgis-prod")));
        let encrypted = format!("{secrets}.encrypted");
        std::fs::create_dir(&encrypted).expect("it can be made");
        std::fs::write(format!("{encrypted}/arcgis-prod"), "x").expect("it can be written");
        let said = format!(
            "{encrypted}/arcgis-prod is opened by systemd alone, for the daemon; `rekeyd doctor` asks it where it runs"
        );
        assert_eq!(path(), Err(said));
        std::fs::create_dir(&secrets).expect("it can be made");
        let place = format!("{secrets}/arcgis-prod");
        std::fs::write(&place, "x").expect("it can be written");
        assert!(path().is_err_and(|why| why.ends_with("remove the one that is out of date")));
        std::fs::remove_dir_all(&encrypted).expect("it can be removed");
        assert_eq!(path(), Ok(PathBuf::from(&place)));
        // systemd would not lend it, so nobody is told that all is well.
        std::fs::rename(&place, format!("{secrets}/elsewhere")).expect("it can be moved");
        std::os::unix::fs::symlink("elsewhere", &place).expect("a link can be made");
        let link =
            format!("{place} is a link, or no plain file, which systemd does not lend: put the file itself there");
        assert_eq!(path(), Err(link));
        std::fs::remove_file(&place).and_then(|()| std::fs::write(&place, "x")).expect("it can be put there");
        // Another unit's directory, and an empty variable, are none.
        assert_eq!(credential_path("arcgis-prod", Some(home.path().as_os_str()), &secrets), path());
        assert_eq!(credential_path("arcgis-prod", Some(OsStr::new("")), &secrets), path());
    }
}
