//! How a key's material is laid out before it is sealed: a version, then its parts, each behind its length.
//!
//! Not JSON, because a JSON writer grows its buffer and leaves copies of the secret behind in freed memory; this one knows
//! its size before it starts, and wipes it.

use zeroize::Zeroizing;

use super::wire::Unread;
use crate::model::{KeyId, Material, Secret};

const VERSION: u8 = 1;

// Kinds: the words stand in the file, in front of the parts that `encode` names in their order.
const ACCESS_KEY: &str = "access-key";
const STORAGE_ACCOUNT_KEY: &str = "storage-account-key";
const SAS_TOKEN: &str = "sas-token";
const SERVICE_PRINCIPAL: &str = "service-principal";
const HMAC_KEY: &str = "hmac-key";
const COSMOS_ACCOUNT_KEY: &str = "cosmos-account-key";
const SERVICE_BUS_KEY: &str = "service-bus-key";
const API_TOKEN: &str = "api-token";
const API_CERTIFICATE: &str = "api-certificate";

// What a service principal may have beside, each in front of its value: an empty part could not be told from an absent one.
const AUTHORITY_HOST: &str = "authority-host";
const STORAGE_ACCOUNT: &str = "storage-account";

/// The material as bytes to be sealed.
pub(super) fn encode(material: &Material) -> Zeroizing<Vec<u8>> {
    match material {
        Material::AccessKey { id, secret } => lay_out(&[ACCESS_KEY, id.as_str(), secret.expose()]),
        Material::StorageAccountKey { id, account, key } => {
            lay_out(&[STORAGE_ACCOUNT_KEY, id.as_str(), account, key.expose()])
        }
        Material::SasToken { id, account, token } => lay_out(&[SAS_TOKEN, id.as_str(), account, token.expose()]),
        Material::ServicePrincipal { id, tenant, client, secret, authority_host, storage_account } => {
            let mut parts = vec![SERVICE_PRINCIPAL, id.as_str(), tenant, client, secret.expose()];
            for (name, value) in [(AUTHORITY_HOST, authority_host), (STORAGE_ACCOUNT, storage_account)] {
                parts.extend(value.as_deref().map(|value| [name, value]).into_iter().flatten());
            }
            lay_out(&parts)
        }
        Material::HmacKey { id, secret } => lay_out(&[HMAC_KEY, id.as_str(), secret.expose()]),
        Material::CosmosAccountKey { id, account, key } => {
            lay_out(&[COSMOS_ACCOUNT_KEY, id.as_str(), account, key.expose()])
        }
        Material::ServiceBusKey { id, key_name, key } => {
            lay_out(&[SERVICE_BUS_KEY, id.as_str(), key_name, key.expose()])
        }
        Material::ApiToken { id, token } => lay_out(&[API_TOKEN, id.as_str(), token.expose()]),
        Material::ApiCertificate { id, pkcs12, password } => {
            lay_out(&[API_CERTIFICATE, id.as_str(), pkcs12.expose(), password.expose()])
        }
    }
}

/// The material that was sealed. No message shows any of it.
pub(super) fn decode(bytes: &[u8]) -> Result<Material, Unread> {
    match bytes.first() {
        Some(&VERSION) => {}
        Some(&version) if version > VERSION => {
            return Err(Unread::Newer(format!("the material is in format {version}, this rekeyd knows {VERSION}")));
        }
        _ => return Err(damaged()),
    }
    let parts = parts(&bytes[1..]).ok_or_else(damaged)?;
    let [kind, id, rest @ ..] = parts.as_slice() else { return Err(nothing_of(&parts)) };
    let id = KeyId::new(*id);
    Ok(match (*kind, rest) {
        (ACCESS_KEY, [secret]) => Material::AccessKey { id, secret: hidden(secret) },
        (STORAGE_ACCOUNT_KEY, [account, key]) => {
            Material::StorageAccountKey { id, account: owned(account), key: hidden(key) }
        }
        (SAS_TOKEN, [account, token]) => Material::SasToken { id, account: owned(account), token: hidden(token) },
        (SERVICE_PRINCIPAL, [tenant, client, secret, beside @ ..]) => {
            let [authority_host, storage_account] = beside_a_principal(beside)?;
            let (tenant, client, secret) = (owned(tenant), owned(client), hidden(secret));
            Material::ServicePrincipal { id, tenant, client, secret, authority_host, storage_account }
        }
        (HMAC_KEY, [secret]) => Material::HmacKey { id, secret: hidden(secret) },
        (COSMOS_ACCOUNT_KEY, [account, key]) => {
            Material::CosmosAccountKey { id, account: owned(account), key: hidden(key) }
        }
        (SERVICE_BUS_KEY, [key_name, key]) => {
            Material::ServiceBusKey { id, key_name: owned(key_name), key: hidden(key) }
        }
        (API_TOKEN, [token]) => Material::ApiToken { id, token: hidden(token) },
        (API_CERTIFICATE, [pkcs12, password]) => {
            Material::ApiCertificate { id, pkcs12: hidden(pkcs12), password: hidden(password) }
        }
        _ => return Err(nothing_of(&parts)),
    })
}

/// Authority host and storage account, from names and values in turn.
fn beside_a_principal(parts: &[&str]) -> Result<[Option<String>; 2], Unread> {
    let mut found = [None, None];
    for pair in parts.chunks(2) {
        let [name, value] = pair else { return Err(damaged()) };
        let at = match *name {
            AUTHORITY_HOST => 0,
            STORAGE_ACCOUNT => 1,
            name => return Err(Unread::Newer(format!("`{name}` of a service principal is not known"))),
        };
        found[at] = Some(owned(value));
    }
    Ok(found)
}

/// Why parts are no material: of a kind we know they are damaged, of another they are a newer rekeyd's.
fn nothing_of(parts: &[&str]) -> Unread {
    const KINDS: [&str; 9] = [
        ACCESS_KEY,
        STORAGE_ACCOUNT_KEY,
        SAS_TOKEN,
        SERVICE_PRINCIPAL,
        HMAC_KEY,
        COSMOS_ACCOUNT_KEY,
        SERVICE_BUS_KEY,
        API_TOKEN,
        API_CERTIFICATE,
    ];
    match parts.first() {
        Some(kind) if !KINDS.contains(kind) => Unread::Newer(format!("material of kind `{kind}` is not known")),
        _ => damaged(),
    }
}

fn damaged() -> Unread {
    Unread::Damaged("the sealed material is not laid out as any rekeyd does".into())
}

fn owned(text: &str) -> String {
    text.to_owned()
}

fn hidden(text: &str) -> Secret {
    Secret::new(text.to_owned())
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

    const HOSTILE: [&str; 4] = ["wJalrXUtnFEMI/K7MDENG", "", "?sv=1&sig=a%2Bb%3D", "a\0b\n\u{fc}\"\\"];

    /// One of each kind, and a service principal with each of what it may have beside.
    fn all(id: &str, name: &str, secret: &str) -> Vec<Material> {
        let id = || KeyId::new(id);
        let principal = |authority_host: Option<&str>, storage_account: Option<&str>| Material::ServicePrincipal {
            id: id(),
            tenant: name.to_owned(),
            client: format!("client {name}"),
            secret: hidden(secret),
            authority_host: authority_host.map(str::to_owned),
            storage_account: storage_account.map(str::to_owned),
        };
        vec![
            Material::AccessKey { id: id(), secret: hidden(secret) },
            Material::StorageAccountKey { id: id(), account: name.to_owned(), key: hidden(secret) },
            Material::SasToken { id: id(), account: name.to_owned(), token: hidden(secret) },
            principal(None, None),
            principal(Some(name), None),
            principal(None, Some("")),
            principal(Some("https://login.microsoftonline.us"), Some(name)),
            Material::HmacKey { id: id(), secret: hidden(secret) },
            Material::CosmosAccountKey { id: id(), account: name.to_owned(), key: hidden(secret) },
            Material::ServiceBusKey { id: id(), key_name: name.to_owned(), key: hidden(secret) },
            Material::ApiToken { id: id(), token: hidden(secret) },
            Material::ApiCertificate { id: id(), pkcs12: hidden(secret), password: hidden(name) },
        ]
    }

    #[test]
    fn material_reads_back() {
        for (id, name) in [("AKIA1", "gisstore"), ("", ""), ("key1@2026-11-22T00:00:00Z", "authority-host")] {
            for material in HOSTILE.iter().flat_map(|secret| all(id, name, secret)) {
                assert_eq!(decode(&encode(&material)), Ok(material));
            }
        }
    }

    /// It is a file format: what an older rekeyd sealed must open for ever.
    #[test]
    fn the_layout_is_the_one_that_was_pinned() {
        let text = |material: &Material| String::from_utf8(encode(material).to_vec()).unwrap();
        let sealed: Vec<String> = all("I", "N", "s").iter().map(text).collect();
        let part = |part: &str| format!("\0\0\0\0\0\0\0{}{part}", char::from(u8::try_from(part.len()).unwrap()));
        let pinned = |parts: &[&str]| format!("\x01{}", parts.iter().map(|one| part(one)).collect::<String>());
        assert_eq!(sealed[0], "\x01\0\0\0\0\0\0\0\x0aaccess-key\0\0\0\0\0\0\0\x01I\0\0\0\0\0\0\0\x01s");
        assert_eq!(
            sealed[1..],
            [
                pinned(&["storage-account-key", "I", "N", "s"]),
                pinned(&["sas-token", "I", "N", "s"]),
                pinned(&["service-principal", "I", "N", "client N", "s"]),
                pinned(&["service-principal", "I", "N", "client N", "s", "authority-host", "N"]),
                pinned(&["service-principal", "I", "N", "client N", "s", "storage-account", ""]),
                pinned(&[
                    "service-principal",
                    "I",
                    "N",
                    "client N",
                    "s",
                    "authority-host",
                    "https://login.microsoftonline.us",
                    "storage-account",
                    "N"
                ]),
                pinned(&["hmac-key", "I", "s"]),
                pinned(&["cosmos-account-key", "I", "N", "s"]),
                pinned(&["service-bus-key", "I", "N", "s"]),
                pinned(&["api-token", "I", "s"]),
                pinned(&["api-certificate", "I", "s", "N"]),
            ]
        );
    }

    #[test]
    fn what_is_not_known_is_newer_and_what_is_cut_is_damage() {
        assert!(matches!(decode(&lay_out(&["sas", "x"])), Err(Unread::Newer(_))));
        assert!(matches!(decode(&lay_out(&["sas"])), Err(Unread::Newer(_))));
        let odd = [SERVICE_PRINCIPAL, "I", "t", "c", "s", "certificate", "x"];
        assert!(matches!(decode(&lay_out(&odd)), Err(Unread::Newer(_))));
        assert!(matches!(decode(&lay_out(&odd[..6])), Err(Unread::Damaged(_))));
        assert!(matches!(decode(&[2]), Err(Unread::Newer(_))));
        assert!(matches!(decode(&[1, 255, 255, 255, 255, 255, 255, 255, 255, 0]), Err(Unread::Damaged(_))));
        for material in all("I", "N", "s") {
            let whole = encode(&material);
            for length in 0..whole.len() {
                // A principal that is cut behind a pair is one with less beside; nothing else reads when it is cut.
                let shorter = matches!(material, Material::ServicePrincipal { .. }) && decode(&whole[..length]).is_ok();
                assert!(shorter || matches!(decode(&whole[..length]), Err(Unread::Damaged(_))), "length {length}");
            }
            let more = [&whole[..], &lay_out(&["x"])[1..]].concat();
            assert!(matches!(decode(&more), Err(Unread::Damaged(_))));
        }
    }
}
