//! The seal: how a secret is kept on disk. AES-256-GCM under a key that lives outside the journal, each blob bound to the
//! row it belongs to and naming the key that sealed it.
//!
//! It also makes the keyed fingerprints by which a refused password is remembered. It does not store anything but the seal
//! key's own file, and it does not know what the bytes it seals mean.
//!
//! A blob is `version (1) | seal key id (8) | nonce (12) | ciphertext and tag`. The nonce is random: under one key a house
//! seals some thousand secrets in its life, and random 96-bit nonces are good for 2^32 (NIST SP 800-38D, 8.3).

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::{hkdf, hmac, rand};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use crate::model::{KeyId, Secret, ServiceName};

/// The version of the blob's layout and of what it is bound to.
const FORMAT: u8 = 1;
const ID_LEN: usize = 8;
const HEAD_LEN: usize = 1 + ID_LEN + NONCE_LEN;
/// A key file holds 44 characters and a newline; anything much longer is another file.
const FILE_MAX: usize = 256;

/// Why a seal was not made or not opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// Another key sealed it. Nothing is wrong with the blob.
    #[error("sealed with key {sealed_with}, this is key {this}")]
    WrongKey {
        /// The key it needs.
        sealed_with: SealKeyId,
        /// The key that was tried.
        this: SealKeyId,
    },
    /// A newer rekeyd sealed it.
    #[error("sealed in format {0}, this rekeyd knows format {FORMAT}: written by a newer rekeyd")]
    Newer(u8),
    /// It is not what was sealed for this row: changed, cut, or moved here from another row.
    #[error("{0}")]
    Damaged(String),
    /// There is no key to be had from where it should come from.
    #[error("{0}")]
    NoKey(String),
}

/// What names a seal key: derived from it, and of no use for anything else.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SealKeyId([u8; ID_LEN]);

impl fmt::Display for SealKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for SealKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What kind of bytes a row holds. Its text is part of what a blob is bound to and never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// What targets need of a key ([`crate::model::Material`]).
    Material,
}

impl Purpose {
    fn as_str(self) -> &'static str {
        match self {
            Self::Material => "material",
        }
    }
}

/// The row a blob belongs to. A blob opens under no other.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    /// The service, by the name its chain keeps for life.
    pub service: &'a ServiceName,
    /// The cloud key the secret belongs to.
    pub key: &'a KeyId,
    /// What the bytes are.
    pub purpose: Purpose,
}

/// A seal key: 32 bytes from which one key for sealing and one for fingerprints are derived. Wiped on drop.
#[derive(Clone)]
pub struct SealKey {
    sealing: Zeroizing<[u8; 32]>,
    fingerprints: Zeroizing<[u8; 32]>,
    id: SealKeyId,
}

/// A seal key that came from its own file.
#[derive(Debug)]
pub struct KeyFile {
    /// The key.
    pub key: SealKey,
    /// Whether the file was made just now. The caller warns: without a copy of it every sealed secret is lost with the disk.
    pub made: bool,
}

impl SealKey {
    /// Takes 32 random bytes.
    pub fn new(bytes: Zeroizing<[u8; 32]>) -> Self {
        // One use, one key: the same bytes never serve AES-GCM and HMAC.
        let root = hkdf::Salt::new(hkdf::HKDF_SHA256, b"rekeyd seal key v1").extract(&bytes[..]);
        let derive = |label: &[u8], out: &mut [u8]| {
            root.expand(&[label], hkdf::HKDF_SHA256)
                .and_then(|okm| okm.fill(out))
                .expect("HKDF-SHA256 gives 32 bytes for any label")
        };
        let mut sealing = Zeroizing::new([0; 32]);
        let mut fingerprints = Zeroizing::new([0; 32]);
        let mut named = [0; 32];
        derive(b"sealing", &mut sealing[..]);
        derive(b"fingerprints", &mut fingerprints[..]);
        derive(b"name", &mut named);
        let mut id = [0; ID_LEN];
        id.copy_from_slice(&named[..ID_LEN]);
        Self { sealing, fingerprints, id: SealKeyId(id) }
    }

    /// Reads a key from the text behind a secret reference: base64 of 32 bytes, or 64 hex digits; spaces around it are ignored.
    pub fn from_secret(text: &Secret) -> Result<Self, SealError> {
        let text = text.expose().trim();
        let mut decoded = Zeroizing::new([0; FILE_MAX]);
        let length = if text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            for (out, pair) in decoded.iter_mut().zip(text.as_bytes().chunks(2)) {
                *out = hex_digit(pair[0]) << 4 | hex_digit(pair[1]);
            }
            32
        } else {
            STANDARD.decode_slice(text, &mut decoded[..]).unwrap_or(0)
        };
        if length != 32 {
            return Err(SealError::NoKey(
                "not a seal key: expected 32 bytes as base64 (44 characters) or as 64 hex digits; \
                 `openssl rand -base64 32` makes one"
                    .into(),
            ));
        }
        let mut bytes = Zeroizing::new([0; 32]);
        bytes.copy_from_slice(&decoded[..32]);
        Ok(Self::new(bytes))
    }

    /// Reads a key from its file. A file that others may read is refused.
    pub fn load(path: &Path) -> Result<Self, SealError> {
        match read_key_file(path) {
            Ok(Some(text)) => {
                Self::from_secret(&text).map_err(|error| SealError::NoKey(format!("{} is {error}", path.display())))
            }
            Ok(None) => Err(SealError::NoKey(format!("the seal key file {} does not exist", path.display()))),
            Err(why) => Err(SealError::NoKey(format!("cannot use the seal key file {}: {why}", path.display()))),
        }
    }

    /// Reads a key from its file, or makes that file with a fresh key: 0600, and durable before this returns.
    ///
    /// The caller has made sure that no sealed row waits for a lost key (`journal::sqlite::seal_key_file` does).
    pub fn load_or_make(path: &Path) -> Result<KeyFile, SealError> {
        if path.symlink_metadata().is_ok() {
            return Ok(KeyFile { key: Self::load(path)?, made: false });
        }
        let made = make_key_file(path)
            .map_err(|error| SealError::NoKey(format!("cannot make the seal key file {}: {error}", path.display())))?;
        // Read back, so that what is used is what is on the disk, and so that the loser of a race uses the winner's.
        Ok(KeyFile { key: Self::load(path)?, made })
    }

    /// The name of this key, as blobs carry it.
    pub fn id(&self) -> SealKeyId {
        self.id
    }

    /// Seals bytes for a row.
    pub fn seal(&self, row: Row<'_>, secret: &[u8]) -> Result<Vec<u8>, SealError> {
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce).map_err(|_| SealError::NoKey("the system gave no random bytes for a nonce".into()))?;
        let mut blob = Vec::with_capacity(HEAD_LEN + secret.len() + AES_256_GCM.tag_len());
        blob.push(FORMAT);
        blob.extend_from_slice(&self.id.0);
        blob.extend_from_slice(&nonce);
        // Encrypted in a buffer that is wiped whatever happens; only ciphertext is ever in the blob.
        let mut buffer = Zeroizing::new(Vec::with_capacity(secret.len() + AES_256_GCM.tag_len()));
        buffer.extend_from_slice(secret);
        let nonce = Nonce::assume_unique_for_key(nonce);
        self.cipher()
            .seal_in_place_append_tag(nonce, Aad::from(self.bound_to(row)), &mut *buffer)
            .map_err(|_| SealError::Damaged(format!("cannot seal {} bytes", secret.len())))?;
        blob.extend_from_slice(&buffer);
        Ok(blob)
    }

    /// Opens the blob of a row.
    pub fn open(&self, row: Row<'_>, blob: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let sealed_with = sealed_with(blob)?;
        if sealed_with != self.id {
            return Err(SealError::WrongKey { sealed_with, this: self.id });
        }
        let mut nonce = [0; NONCE_LEN];
        nonce.copy_from_slice(&blob[1 + ID_LEN..HEAD_LEN]);
        let mut buffer = Zeroizing::new(blob[HEAD_LEN..].to_vec());
        let length = self
            .cipher()
            .open_in_place(Nonce::assume_unique_for_key(nonce), Aad::from(self.bound_to(row)), &mut buffer)
            .map_err(|_| {
                SealError::Damaged(format!(
                    "the sealed {} of key {} of {} does not open: it was changed, or belongs to another row",
                    row.purpose.as_str(),
                    row.key,
                    row.service
                ))
            })?
            .len();
        buffer.truncate(length);
        Ok(buffer)
    }

    /// A fingerprint of a secret in a context, of no use without this key: two are equal where context and secret are.
    pub fn fingerprint(&self, context: &[&str], secret: &Secret) -> [u8; 32] {
        let mut mac = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, &self.fingerprints[..]));
        for part in context.iter().copied().chain([secret.expose()]) {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part.as_bytes());
        }
        let mut fingerprint = [0; 32];
        fingerprint.copy_from_slice(mac.sign().as_ref());
        fingerprint
    }

    fn cipher(&self) -> LessSafeKey {
        LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &self.sealing[..]).expect("AES-256 takes a key of 32 bytes"))
    }

    /// Everything a blob is bound to, each part behind its length, so that no two rows give the same bytes.
    fn bound_to(&self, row: Row<'_>) -> Vec<u8> {
        let mut bytes = vec![FORMAT];
        bytes.extend_from_slice(&self.id.0);
        for part in [row.service.as_str(), row.key.as_str(), row.purpose.as_str()] {
            bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
            bytes.extend_from_slice(part.as_bytes());
        }
        bytes
    }
}

impl fmt::Debug for SealKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealKey({})", self.id)
    }
}

/// Which key sealed a blob.
pub fn sealed_with(blob: &[u8]) -> Result<SealKeyId, SealError> {
    match blob.first() {
        Some(&FORMAT) if blob.len() >= HEAD_LEN + AES_256_GCM.tag_len() => {
            let mut id = [0; ID_LEN];
            id.copy_from_slice(&blob[1..1 + ID_LEN]);
            Ok(SealKeyId(id))
        }
        Some(&version) if version > FORMAT => Err(SealError::Newer(version)),
        _ => Err(SealError::Damaged(format!("{} bytes are not a sealed blob", blob.len()))),
    }
}

fn hex_digit(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}

/// The text of a key file; `None` where there is no such file.
fn read_key_file(path: &Path) -> Result<Option<Secret>, String> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    let about = file.metadata().map_err(|error| error.to_string())?;
    if !about.is_file() {
        return Err("it is not a regular file".into());
    }
    let mode = about.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(format!(
            "others than its owner may use it (mode {mode:04o}); chmod 600 it, and replace the key if they did"
        ));
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(FILE_MAX + 1));
    file.take(FILE_MAX as u64).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    let text = std::str::from_utf8(&bytes).map_err(|_| "it does not hold text".to_string())?;
    Ok(Some(Secret::new(text.to_owned())))
}

/// Makes the file under another name and links it into place, so that it is there whole or not at all, and so that of two
/// who make it at once only one does. Says whether it was this one.
fn make_key_file(path: &Path) -> io::Result<bool> {
    let mut draft = path.as_os_str().to_owned();
    draft.push(format!(".{}", std::process::id()));
    let draft = PathBuf::from(draft);
    // A draft of a process that died is of no use to anyone.
    if let Err(error) = fs::remove_file(&draft)
        && error.kind() != ErrorKind::NotFound
    {
        return Err(error);
    }
    let mut bytes = Zeroizing::new([0; 32]);
    rand::fill(&mut bytes[..]).map_err(|_| io::Error::other("the system gave no random bytes"))?;
    let mut text = Zeroizing::new([0; 45]);
    STANDARD.encode_slice(&bytes[..], &mut text[..]).map_err(io::Error::other)?;
    text[44] = b'\n';
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    file.write_all(&text[..])?;
    file.sync_all()?;
    let linked = fs::hard_link(&draft, path);
    fs::remove_file(&draft)?;
    let made = match linked {
        Ok(()) => true,
        Err(error) if error.kind() == ErrorKind::AlreadyExists => false,
        Err(error) => return Err(error),
    };
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory)?.sync_all()?;
    Ok(made)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn key(fill: u8) -> SealKey {
        SealKey::new(Zeroizing::new([fill; 32]))
    }

    fn text(text: &str) -> Secret {
        Secret::new(text.to_owned())
    }

    #[test]
    fn what_is_sealed_opens_and_does_not_show() {
        let (service, id) = (ServiceName::new("store"), KeyId::new("AKIA1"));
        let row = Row { service: &service, key: &id, purpose: Purpose::Material };
        let blob = key(1).seal(row, b"the secret itself").unwrap();
        assert_eq!(key(1).open(row, &blob).unwrap().as_slice(), b"the secret itself");
        assert!(!blob.windows(6).any(|part| part == b"secret"));
        assert_ne!(blob, key(1).seal(row, b"the secret itself").unwrap(), "each seal takes its own nonce");
    }

    #[test]
    fn a_blob_opens_under_no_other_row() {
        let (store, other, id, next) =
            (ServiceName::new("store"), ServiceName::new("other"), KeyId::new("AKIA1"), KeyId::new("AKIA2"));
        let row = Row { service: &store, key: &id, purpose: Purpose::Material };
        let blob = key(1).seal(row, b"secret").unwrap();
        for elsewhere in [Row { service: &other, ..row }, Row { key: &next, ..row }] {
            assert!(matches!(key(1).open(elsewhere, &blob), Err(SealError::Damaged(_))));
        }
        // Where one name ends and the next begins is part of the binding.
        let (a, bc, ab, c) = (ServiceName::new("a"), KeyId::new("bc"), ServiceName::new("ab"), KeyId::new("c"));
        let blob = key(1).seal(Row { service: &a, key: &bc, purpose: Purpose::Material }, b"x").unwrap();
        assert!(key(1).open(Row { service: &ab, key: &c, purpose: Purpose::Material }, &blob).is_err());
    }

    #[test]
    fn a_wrong_key_is_said_plainly() {
        let (service, id) = (ServiceName::new("store"), KeyId::new("AKIA1"));
        let row = Row { service: &service, key: &id, purpose: Purpose::Material };
        let blob = key(1).seal(row, b"secret").unwrap();
        let error = key(2).open(row, &blob).unwrap_err().to_string();
        assert_eq!(error, format!("sealed with key {}, this is key {}", key(1).id(), key(2).id()));
        assert_eq!(sealed_with(&blob), Ok(key(1).id()));
    }

    #[test]
    fn every_changed_bit_and_every_cut_is_noticed() {
        let (service, id) = (ServiceName::new("store"), KeyId::new("AKIA1"));
        let row = Row { service: &service, key: &id, purpose: Purpose::Material };
        let blob = key(1).seal(row, b"secret").unwrap();
        for bit in 0..blob.len() * 8 {
            let mut changed = blob.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(key(1).open(row, &changed).is_err(), "bit {bit}");
        }
        for length in 0..blob.len() {
            assert!(key(1).open(row, &blob[..length]).is_err(), "length {length}");
        }
        assert_eq!(key(1).open(row, &[2; 60]), Err(SealError::Newer(2)));
    }

    #[test]
    fn a_key_is_read_from_base64_or_hex_and_from_nothing_else() {
        let from = |form: &str| SealKey::from_secret(&text(form)).map(|key| key.id());
        let expected = key(0xab).id();
        assert_eq!(from(&"ab".repeat(32)), Ok(expected));
        assert_eq!(from(&"AB".repeat(32)), Ok(expected));
        assert_eq!(from(&format!(" {}\n", STANDARD.encode([0xab; 32]))), Ok(expected));
        for wrong in ["", "hunter2", &"ab".repeat(31), &"ab".repeat(33), &STANDARD.encode([0; 31]), &"A".repeat(4000)] {
            let error = from(wrong).unwrap_err().to_string();
            assert!(error.starts_with("not a seal key: expected 32 bytes"), "{error}");
            assert!(wrong.is_empty() || !error.contains(wrong), "the text is never shown");
        }
    }

    #[test]
    fn the_key_file_is_made_once_and_kept_to_its_owner() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("seal.key");
        let first = SealKey::load_or_make(&path).unwrap();
        let again = SealKey::load_or_make(&path).unwrap();
        assert!(first.made && !again.made);
        assert_eq!(first.key.id(), again.key.id());
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o600);
        assert_eq!(home.path().read_dir().unwrap().count(), 1, "no draft stays behind");

        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let error = SealKey::load_or_make(&path).unwrap_err().to_string();
        assert!(error.contains("others than its owner may use it (mode 0640)"), "{error}");
    }

    #[test]
    fn a_key_file_that_holds_something_else_is_refused_and_left_alone() {
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("seal.key");
        fs::write(&path, "").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let error = SealKey::load_or_make(&path).unwrap_err().to_string();
        assert!(error.contains("seal.key is not a seal key"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"");
        let missing = SealKey::load(&home.path().join("other")).unwrap_err().to_string();
        assert!(missing.ends_with("other does not exist"), "{missing}");
    }

    #[test]
    fn fingerprints_tell_secrets_and_contexts_apart() {
        let of = |fill, context: &[&str], secret: &str| key(fill).fingerprint(context, &text(secret));
        let base = of(1, &["arcgis.prod", "rotator"], "hunter2");
        assert_eq!(base, of(1, &["arcgis.prod", "rotator"], "hunter2"));
        for other in [
            of(2, &["arcgis.prod", "rotator"], "hunter2"),
            of(1, &["arcgis.test", "rotator"], "hunter2"),
            of(1, &["arcgis.prod", "rotator"], "hunter3"),
            of(1, &["arcgis.prodrotator"], "hunter2"),
        ] {
            assert_ne!(base, other);
        }
    }

    #[test]
    fn debug_shows_the_name_only() {
        assert_eq!(format!("{:?}", key(1)), format!("SealKey({})", key(1).id()));
    }
}
