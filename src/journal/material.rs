//! How a key's material is laid out before it is sealed: a version, then its parts, each behind its length.
//!
//! Not JSON, because a JSON writer grows its buffer and leaves copies of the secret behind in freed memory; this one knows
//! its size before it starts, and wipes it.

use zeroize::Zeroizing;

use super::wire::Unread;
use crate::model::{KeyId, Material, Secret};

const VERSION: u8 = 1;
const ACCESS_KEY: &str = "access-key";

/// The material as bytes to be sealed.
pub(super) fn encode(material: &Material) -> Zeroizing<Vec<u8>> {
    match material {
        Material::AccessKey { id, secret } => lay_out(&[ACCESS_KEY, id.as_str(), secret.expose()]),
    }
}

/// The material that was sealed. No message shows any of it.
pub(super) fn decode(bytes: &[u8]) -> Result<Material, Unread> {
    let damaged = || Unread::Damaged("the sealed material is not laid out as any rekeyd does".into());
    match bytes.first() {
        Some(&VERSION) => {}
        Some(&version) if version > VERSION => {
            return Err(Unread::Newer(format!("the material is in format {version}, this rekeyd knows {VERSION}")));
        }
        _ => return Err(damaged()),
    }
    let parts = parts(&bytes[1..]).ok_or_else(damaged)?;
    match parts.as_slice() {
        [ACCESS_KEY, id, secret] => {
            Ok(Material::AccessKey { id: KeyId::new(*id), secret: Secret::new((*secret).to_owned()) })
        }
        [ACCESS_KEY, ..] | [] => Err(damaged()),
        [kind, ..] => Err(Unread::Newer(format!("material of kind `{kind}` is not known"))),
    }
}

fn lay_out(parts: &[&str]) -> Zeroizing<Vec<u8>> {
    let size = 1 + parts.iter().map(|part| 8 + part.len()).sum::<usize>();
    let mut bytes = Zeroizing::new(Vec::with_capacity(size));
    bytes.push(VERSION);
    for part in parts {
        bytes.extend_from_slice(&(part.len() as u64).to_be_bytes());
        bytes.extend_from_slice(part.as_bytes());
    }
    debug_assert_eq!(bytes.len(), size, "a buffer that grows leaves a copy behind");
    bytes
}

fn parts(mut bytes: &[u8]) -> Option<Vec<&str>> {
    let mut parts = Vec::new();
    while !bytes.is_empty() {
        let (length, rest) = bytes.split_first_chunk::<8>()?;
        let (part, rest) = rest.split_at_checked(usize::try_from(u64::from_be_bytes(*length)).ok()?)?;
        parts.push(std::str::from_utf8(part).ok()?);
        bytes = rest;
    }
    Some(parts)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn material_reads_back() {
        for (id, secret) in [("AKIA1", "wJalrXUtnFEMI/K7MDENG"), ("", ""), ("ü", "a\0b\n")] {
            let material = Material::AccessKey { id: KeyId::new(id), secret: Secret::new(secret.to_owned()) };
            assert_eq!(decode(&encode(&material)), Ok(material));
        }
    }

    #[test]
    fn the_layout_is_the_one_that_was_pinned() {
        let material = Material::AccessKey { id: KeyId::new("A"), secret: Secret::new("s".to_owned()) };
        let pinned = b"\x01\0\0\0\0\0\0\0\x0aaccess-key\0\0\0\0\0\0\0\x01A\0\0\0\0\0\0\0\x01s";
        assert_eq!(encode(&material).as_slice(), pinned);
    }

    #[test]
    fn what_is_not_known_is_newer_and_what_is_cut_is_damage() {
        assert!(matches!(decode(&lay_out(&["sas", "x"])), Err(Unread::Newer(_))));
        assert!(matches!(decode(&[2]), Err(Unread::Newer(_))));
        let whole = lay_out(&[ACCESS_KEY, "A", "s"]);
        for length in 0..whole.len() {
            assert!(matches!(decode(&whole[..length]), Err(Unread::Damaged(_))), "length {length}");
        }
        assert!(matches!(decode(&[1, 255, 255, 255, 255, 255, 255, 255, 255, 0]), Err(Unread::Damaged(_))));
    }
}
