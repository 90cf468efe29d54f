//! A credential as an accesser shows it and takes it.
//!
//! IBM's pages call `blob` a "String" and show an object; Keystone, whose API this was made after, has a text with JSON inside. Both are
//! read, and what is sent back has the form in which it was shown. One page spells `secret` as `secrete`; that is read too. (IBM COS
//! 3.20.1, "Common response parameters" of create, list, show and update.)
//!
//! What is parsed here is a stranger's word until [`Credential::flaw`] has nothing against it.

use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use zeroize::Zeroizing;

use crate::model::{KeyId, Secret};

/// The only type there is.
const EC2: &str = "ec2";
/// How a key that can be used is called, and one that cannot.
const ACTIVE: &str = "Active";
const INACTIVE: &str = "Inactive";
/// A body that is sent is far shorter, so that the buffer never grows and leaves no copy behind.
const ROOM: usize = 16 * 1024;

/// `{"credential": …}`.
#[derive(Deserialize)]
pub(super) struct One {
    pub(super) credential: Credential,
}

/// `{"credentials": […]}`.
#[derive(Deserialize)]
pub(super) struct All {
    pub(super) credentials: Vec<Credential>,
    /// IBM's pages know of neither; Keystone's lists have both (`wrap_collection` in its sources).
    #[serde(default)]
    links: serde_json::Value,
    #[serde(default)]
    truncated: serde_json::Value,
}

impl All {
    /// Whether it says that it is not all.
    pub(super) fn goes_on(&self) -> bool {
        let next = self.links.get("next").unwrap_or_default();
        !(next.is_null() || *next == "") || self.truncated == true
    }
}

/// One credential.
#[derive(Deserialize)]
pub(super) struct Credential {
    blob: Blob,
    project_id: String,
    #[serde(default)]
    user_id: Option<String>,
    #[serde(default, rename = "type")]
    kind: Option<String>,
    #[serde(default)]
    subject_ibm_id: Option<String>,
    /// "This will be the Access Key".
    #[serde(default)]
    id: Option<String>,
}

/// Whose keys are meant.
#[derive(Clone, Copy)]
pub(super) struct Owner<'a> {
    pub(super) project_id: &'a str,
    pub(super) user_id: &'a str,
}

impl Credential {
    /// Its access key.
    pub(super) fn key(&self) -> KeyId {
        KeyId::new(&self.blob.access)
    }

    /// Its secret, where the accesser shows it.
    pub(super) fn secret(&self) -> Option<&Secret> {
        self.blob.secret.as_ref()
    }

    /// Its secret, taken out.
    pub(super) fn into_secret(self) -> Option<Secret> {
        self.blob.secret
    }

    /// Whether it can be used. A new key is Active where nothing is said of it.
    pub(super) fn is_active(&self) -> bool {
        self.blob.status.as_ref().is_none_or(|status| status.eq_ignore_ascii_case(ACTIVE))
    }

    /// Whether its status is said, and is this.
    pub(super) fn is_said_to_be(&self, active: bool) -> bool {
        self.blob.status.is_some() && self.is_active() == active
    }

    /// Whether it says whose it is. Every example does, and no table of parameters knows of it.
    pub(super) fn names_a_user(&self) -> bool {
        self.user_id.is_some()
    }

    /// Whether it is a key for S3 of this user in this storage account, as far as it says: where it names no user, the question must have
    /// named one.
    pub(super) fn is_of(&self, owner: Owner<'_>) -> bool {
        self.project_id == owner.project_id
            && self.user_id.as_deref().is_none_or(|user| user == owner.user_id)
            && self.kind.as_deref().is_none_or(|kind| kind == EC2)
    }

    /// What is wrong with it, where something is. A key's name goes into paths and messages, and must be one.
    pub(super) fn flaw(&self) -> Option<&'static str> {
        let access = &self.blob.access;
        if !is_access_key(access) {
            return Some("a credential whose access key is none");
        }
        (self.id.as_ref().is_some_and(|id| id != access)).then_some("a credential whose id is not its access key")
    }

    /// The body that sends it back with this status and nothing else changed. It is this owner's, whether it says so or not.
    pub(super) fn with_status(&self, active: bool, owner: Owner<'_>) -> Zeroizing<Vec<u8>> {
        let blob = SentBlob {
            access: &self.blob.access,
            secret: self.secret().map(Secret::expose),
            status: Some(if active { ACTIVE } else { INACTIVE }),
        };
        let text = self.blob.is_text.then(|| json(&blob));
        let text = text.as_ref().map(|text| std::str::from_utf8(text).expect("JSON is UTF-8"));
        json(&Sent {
            credential: SentCredential {
                blob: text.map_or(Form::Object(blob), Form::Text),
                project_id: &self.project_id,
                kind: EC2,
                user_id: Some(owner.user_id),
                subject_ibm_id: self.subject_ibm_id.as_deref().filter(|subject| !subject.is_empty()),
            },
        })
    }
}

/// The body that asks for a key of this name. Its secret is for the accesser to make: one of ours would have to be the same whenever
/// the request is sent again, and there is nothing to make it from that may be told to others.
pub(super) fn asked(key: &KeyId, owner: Owner<'_>, subject_ibm_id: Option<&str>) -> Zeroizing<Vec<u8>> {
    json(&Sent {
        credential: SentCredential {
            blob: Form::Object(SentBlob { access: key.as_str(), secret: None, status: None }),
            project_id: owner.project_id,
            kind: EC2,
            user_id: Some(owner.user_id),
            // An empty one is refused with 400.
            subject_ibm_id: subject_ibm_id.filter(|subject| !subject.is_empty()),
        },
    })
}

/// Whether a text can be an access key: it goes into paths and messages, and into the scope of a signature, which a slash or a comma
/// would end.
pub(super) fn is_access_key(text: &str) -> bool {
    (1..=128).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~+=@:".contains(&b))
        && text.bytes().any(|b| b.is_ascii_alphanumeric())
}

#[derive(Serialize)]
struct Sent<'a> {
    credential: SentCredential<'a>,
}

#[derive(Serialize)]
struct SentCredential<'a> {
    blob: Form<'a>,
    project_id: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject_ibm_id: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Form<'a> {
    Object(SentBlob<'a>),
    Text(&'a str),
}

#[derive(Serialize)]
struct SentBlob<'a> {
    access: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'a str>,
}

fn json(value: &impl Serialize) -> Zeroizing<Vec<u8>> {
    let mut body = Zeroizing::new(Vec::with_capacity(ROOM));
    serde_json::to_writer(&mut *body, value).expect("texts are always JSON, and a Vec takes every write");
    body
}

/// `blob`, in either form.
struct Blob {
    access: String,
    secret: Option<Secret>,
    status: Option<String>,
    /// Whether it was a text with JSON inside.
    is_text: bool,
}

#[derive(Deserialize)]
struct BlobFields {
    access: String,
    #[serde(default, deserialize_with = "hidden")]
    secret: Option<Secret>,
    #[serde(default, deserialize_with = "hidden")]
    secrete: Option<Secret>,
    #[serde(default)]
    status: Option<String>,
}

impl BlobFields {
    fn into_blob(self, is_text: bool) -> Blob {
        let secret = self.secret.or(self.secrete).filter(|secret| !secret.expose().is_empty());
        Blob { access: self.access, secret, status: self.status, is_text }
    }
}

fn hidden<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Secret>, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.map(Secret::new))
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(BlobVisitor)
    }
}

/// Not an untagged enum: serde would keep a copy of all of it, the secret too, in a buffer that nobody wipes.
struct BlobVisitor;

impl<'de> Visitor<'de> for BlobVisitor {
    type Value = Blob;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a blob")
    }

    /// The quotes inside are escaped, so the parser has decoded the text into its scratch, which is freed and not wiped.
    fn visit_str<E: Error>(self, text: &str) -> Result<Blob, E> {
        let fields: BlobFields = serde_json::from_str(text).map_err(|_| E::custom("a blob that is none"))?;
        Ok(fields.into_blob(true))
    }

    fn visit_string<E: Error>(self, text: String) -> Result<Blob, E> {
        self.visit_str(&Zeroizing::new(text))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Blob, A::Error> {
        BlobFields::deserialize(MapAccessDeserializer::new(map)).map(|fields| fields.into_blob(false))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    const OWNER: Owner<'_> = Owner { project_id: "731fc6f2", user_id: "bb5476fd" };

    fn shown(value: &Value) -> Option<Credential> {
        serde_json::from_value::<One>(value.clone()).ok().map(|one| one.credential)
    }

    fn with(blob: Value, more: Value) -> Value {
        let mut credential =
            json!({ "blob": blob, "project_id": "731fc6f2", "user_id": "bb5476fd", "type": "ec2", "id": "181920" });
        for (name, value) in more.as_object().expect("an object") {
            credential[name] = value.clone();
        }
        json!({ "credential": credential })
    }

    fn sent(body: &[u8]) -> Value {
        serde_json::from_slice(body).expect("it is JSON")
    }

    #[test]
    fn a_blob_is_read_as_object_and_as_text_and_sent_back_as_it_was_shown() {
        let object = json!({ "access": "181920", "secret": "hush-hush", "status": "Active" });
        for blob in [object.clone(), json!(object.to_string())] {
            let text = with(blob.clone(), json!({})).to_string();
            let credential = serde_json::from_str::<One>(&text).expect("it is one").credential;
            assert_eq!(credential.secret().map(Secret::expose), Some("hush-hush"));
            assert!(credential.is_said_to_be(true) && credential.flaw().is_none() && credential.is_of(OWNER));
            let back = sent(&credential.with_status(false, OWNER))["credential"].clone();
            let wanted = json!({ "access": "181920", "secret": "hush-hush", "status": "Inactive" });
            let blob_sent = match back["blob"].as_str() {
                Some(text) => serde_json::from_str(text).expect("JSON inside"),
                None => back["blob"].clone(),
            };
            assert_eq!((blob_sent, back["blob"].is_string()), (wanted, blob.is_string()));
            assert_eq!((&back["user_id"], &back["type"], back.get("id")), (&json!("bb5476fd"), &json!("ec2"), None));
        }
    }

    #[test]
    fn a_secret_is_read_in_both_spellings_and_none_is_none() {
        let secret = |blob: Value| {
            let credential = shown(&with(blob, json!({}))).expect("a credential");
            credential.into_secret().map(|secret| secret.expose().to_owned())
        };
        assert_eq!(secret(json!({ "access": "181920", "secrete": "hush" })).as_deref(), Some("hush"));
        assert_eq!(secret(json!({ "access": "181920", "secret": "one", "secrete": "other" })).as_deref(), Some("one"));
        for none in [json!({ "access": "181920" }), json!({ "access": "181920", "secret": null, "secrete": "" })] {
            assert_eq!(secret(none), None);
        }
    }

    #[test]
    fn what_is_no_credential_is_not_read_and_what_is_odd_has_a_flaw() {
        for blob in
            [json!(7), json!("not JSON"), json!({ "secret": "x" }), json!(null), json!([]), json!({ "access": 7 })]
        {
            assert!(shown(&with(blob.clone(), json!({}))).is_none(), "{blob}");
        }
        let flaw = |access: &str, id: Value| {
            shown(&with(json!({ "access": access }), json!({ "id": id }))).expect("a credential").flaw()
        };
        assert_eq!(flaw("181920", json!(null)), None);
        assert_eq!(flaw("181920", json!("a42a")), Some("a credential whose id is not its access key"));
        for odd in ["", "a/b", "a b", "..", "a?b", "a\nb", &"a".repeat(129)] {
            assert_eq!(flaw(odd, json!(null)), Some("a credential whose access key is none"), "{odd:?}");
        }
    }

    #[test]
    fn a_list_is_all_unless_it_says_that_it_goes_on() {
        let goes_on = |more: Value| {
            let mut list = json!({ "credentials": [] });
            for (name, value) in more.as_object().expect("an object") {
                list[name] = value.clone();
            }
            serde_json::from_value::<All>(list).expect("a list").goes_on()
        };
        for all in [
            json!({}),
            json!({ "links": { "self": "https://cos.example.com/credentials", "previous": null, "next": null } }),
            json!({ "links": { "next": "" }, "truncated": false }),
            json!({ "links": [], "truncated": null }),
        ] {
            assert!(!goes_on(all.clone()), "{all}");
        }
        for part in
            [json!({ "links": { "next": "https://cos.example.com/credentials?page=2" } }), json!({ "truncated": true })]
        {
            assert!(goes_on(part.clone()), "{part}");
        }
    }

    #[test]
    fn whose_a_key_is_and_whether_it_works_is_what_is_said() {
        let blob = || json!({ "access": "181920" });
        let of = |more: Value| shown(&with(blob(), more)).expect("a credential").is_of(OWNER);
        assert!(of(json!({})) && of(json!({ "user_id": null, "type": null })));
        let says = |more: Value| shown(&with(blob(), more)).expect("a credential").names_a_user();
        assert!(says(json!({})) && !says(json!({ "user_id": null })));
        for other in [json!({ "user_id": "x" }), json!({ "project_id": "x" }), json!({ "type": "totp" })] {
            assert!(!of(other.clone()), "{other}");
        }
        let status = |status: Value| {
            let credential = shown(&with(json!({ "access": "181920", "status": status }), json!({}))).expect("one");
            (credential.is_active(), credential.is_said_to_be(true), credential.is_said_to_be(false))
        };
        assert_eq!(status(json!("active")), (true, true, false));
        assert_eq!(status(json!("Inactive")), (false, false, true));
        assert_eq!(status(json!("Expired")), (false, false, true));
        assert_eq!(status(json!(null)), (true, false, false));
    }

    #[test]
    fn a_key_is_asked_for_by_its_name_and_never_with_an_empty_subject() {
        let key = KeyId::new("rk0abc");
        let body = sent(&asked(&key, OWNER, Some("IBMid-61KR43CAFF")));
        assert_eq!(
            body,
            json!({ "credential": { "blob": { "access": "rk0abc" }, "project_id": "731fc6f2", "type": "ec2",
                                    "user_id": "bb5476fd", "subject_ibm_id": "IBMid-61KR43CAFF" } })
        );
        for none in [None, Some("")] {
            assert_eq!(sent(&asked(&key, OWNER, none))["credential"].get("subject_ibm_id"), None);
        }
        let shown = shown(&with(json!({ "access": "181920" }), json!({ "subject_ibm_id": "" }))).expect("one");
        assert_eq!(sent(&shown.with_status(true, OWNER))["credential"].get("subject_ibm_id"), None);
    }
}
