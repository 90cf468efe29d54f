//! A registered data store (`data/items/cloudStores/NAME`) as the admin directory shows it, and the same item with another key. Pure.
//!
//! What is known of its shape, and from where:
//!
//! - Esri's pages (Data Item, Edit Data Item; Server 10.1 and 10.4): an item is one object, `edit` takes the whole of it as `item` and
//!   answers `{"status":"success"}`. An enciphered connection begins with `{crypt}`; with `decrypt=true` one item shows it in clear, to
//!   requests over HTTPS only.
//! - Esri's Python API (`DatastoreManager.add_cloudstore`): the connection string is JSON as one text, which the server enciphers as a
//!   whole. Esri's PowerShell DSC sends it as an object, its Terraform modules as text, with `encryptAttributes`.
//! - The fields of an Amazon store (`accessKeyId`, `secretAccessKey`, `region`, `regionEndpointUrl`, `credentialType`) and the values of
//!   `provider` and `type` are those of the same scripts. No page lists them.
//! - Our reading: `v2Crypt_` and masks may stand there too; single fields may be enciphered; `credentialType` may be missing in items of
//!   old versions; the path may differ in case (DSC compares it so).
//!
//! What is shown enciphered or masked is never sent back. It may be taken back by the server, as cloud services' examples suggest, and
//! it may be stored as the garbage it then is; nobody has said, so the policy has to say the value or the key is not handed over.

use serde_json::{Map, Value};
use zeroize::{Zeroize, Zeroizing};

use super::config::ConnectionConfig;
use super::shown::{Veil, is_enciphered};
use crate::model::{KeyId, Reason, Secret};
use crate::net::redact::Redactor;
use crate::ports::{Fault, Reading};

const KEY_ID: &str = "accessKeyId";
const KEY_SECRET: &str = "secretAccessKey";
const CREDENTIAL_TYPE: &str = "credentialType";

/// The one credential type that is a key.
const ACCESS_KEY: &str = "accessKey";

/// Where the connection string is. The second is where the Python API's `add_object_store` puts it.
const POINTERS: [&str; 2] = ["/info/connectionString", "/connectionString"];

/// JSON that may hold a secret in clear; its texts are wiped when it is dropped.
pub struct Wiped(pub Value);

impl Drop for Wiped {
    fn drop(&mut self) {
        wipe(&mut self.0);
    }
}

fn wipe(value: &mut Value) {
    match value {
        Value::String(text) => text.zeroize(),
        Value::Array(list) => list.iter_mut().for_each(wipe),
        Value::Object(map) => map.values_mut().for_each(wipe),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// How the connection string was shown, and is therefore sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Object,
    /// JSON in a text.
    Text,
    /// One ciphertext. It is sent as text, which is what the Python API documents.
    Sealed,
}

/// An Amazon store.
pub struct Item {
    /// All of it, with nothing where the connection string was.
    item: Wiped,
    pointer: &'static str,
    form: Form,
    /// The connection string's fields; none where it is sealed.
    fields: Wiped,
    /// `data item /cloudStores/x of arcgis.prod`
    place: String,
    /// Its own path, in its own case.
    path: String,
}

impl Item {
    /// What an answer shows.
    ///
    /// # Errors
    /// [`Fault::Refused`]: it is another item, no Amazon store, or its connection string is nothing that can be read.
    pub fn of(value: Value, path: &str, site: &str) -> Result<Self, Fault> {
        let mut item = Wiped(value);
        let place = format!("data item {path} of {site}");
        let refuse = |what: String| Err(refused(&place, &what));
        let text = |name: &str| item.0.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (shown, kind, provider) = (text("path"), text("type"), text("provider"));
        if !shown.eq_ignore_ascii_case(path) {
            return refuse(format!("the answer shows {}", named(&shown, "no path")));
        }
        if !["cloudStore", "objectStore"].contains(&kind.as_str()) || !provider.eq_ignore_ascii_case("amazon") {
            let (kind, provider) = (named(&kind, "of no type"), named(&provider, "no provider"));
            return refuse(format!(
                "it is {kind} of {provider}, and this build rotates keys of cloud stores of amazon only"
            ));
        }
        let found = POINTERS.into_iter().find(|pointer| item.0.pointer(pointer).is_some_and(|found| !found.is_null()));
        let Some(pointer) = found else { return refuse("it shows no connection string".to_owned()) };
        let slot = item.0.pointer_mut(pointer).expect("it was found there just now");
        let shown_connection = Wiped(slot.take());
        let (form, fields) = match &shown_connection.0 {
            Value::Object(_) => (Form::Object, Wiped(shown_connection.0.clone())),
            Value::String(text) if Veil::of(text) != Veil::Clear => (Form::Sealed, Wiped(Value::Object(Map::new()))),
            Value::String(text) => match serde_json::from_str::<Value>(text) {
                Ok(fields) if fields.is_object() => (Form::Text, Wiped(fields)),
                Ok(other) => {
                    drop(Wiped(other));
                    return refuse("its connection string is not a JSON object".to_owned());
                }
                // The error would show where, and never what; but nothing of it helps.
                Err(_) => return refuse("its connection string is not JSON".to_owned()),
            },
            _ => return refuse("its connection string is neither a text nor an object".to_owned()),
        };
        Ok(Self { item, pointer, form, fields, place, path: shown })
    }

    /// Its path as it shows it.
    pub fn path(&self) -> &str {
        &self.path
    }

    fn field(&self, name: &str) -> Option<&str> {
        self.fields.0.get(name)?.as_str()
    }

    /// What can be compared: the end of the secret. The id of the key would say more where it stands in clear, and a reading has no
    /// place for it.
    pub fn reading(&self) -> Reading {
        if self.form == Form::Sealed {
            return Reading::Hidden;
        }
        match self.field(KEY_SECRET).filter(|text| !text.is_empty()) {
            None => Reading::Nothing,
            Some(text) => reading_of(text),
        }
    }

    /// The secret it holds, where that is shown in clear: no message may repeat it.
    pub fn secret(&self) -> Option<Secret> {
        let text = self.field(KEY_SECRET).filter(|text| !text.is_empty() && Veil::of(text) == Veil::Clear)?;
        Some(Secret::new(text.to_owned()))
    }

    /// Whether a key can be handed over with everything else kept. `asked_clear` says that the site was asked to decipher.
    ///
    /// # Errors
    /// [`Fault::Refused`], with what the policy has to say where it can help.
    pub fn takes_a_key(&self, stated: Option<&ConnectionConfig>, asked_clear: bool) -> Result<(), Fault> {
        let refuse = |what: String| Err(refused(&self.place, &what));
        let over_http = if asked_clear { "" } else { " (ArcGIS deciphers it over https only)" };
        if self.form == Form::Sealed && stated.is_none() {
            return refuse(format!(
                "its connection string is shown enciphered{over_http}, so that what it holds beside the key could not be kept; if it \
                 holds an access key, add `connection = {{ region = \"…\" }}` to the target, with all that it holds beside the key"
            ));
        }
        self.holds_a_key()?;
        let lacking = self.lacking(stated);
        if !lacking.is_empty() {
            let fields = lacking.join(", ");
            let help = if lacking.iter().any(|name| name.starts_with("connectionString")) && stated.is_none() {
                "; if that is its region or endpoint, add `connection = { region = \"…\" }` to the target"
            } else {
                ""
            };
            return refuse(format!("{fields} is shown enciphered{over_http} and could not be kept{help}"));
        }
        match self.contradicted(stated) {
            Some(what) => refuse(what),
            None => Ok(()),
        }
    }

    fn holds_a_key(&self) -> Result<(), Fault> {
        if self.form == Form::Sealed {
            return Ok(());
        }
        let kind = self.field(CREDENTIAL_TYPE).unwrap_or_default();
        let why = if Veil::of(kind) != Veil::Clear || kind.is_empty() || kind.eq_ignore_ascii_case(ACCESS_KEY) {
            match [KEY_ID, KEY_SECRET].iter().find(|name| self.field(name).unwrap_or_default().is_empty()) {
                Some(name) => format!("its connection string has no {name}: there is no key to rotate"),
                None => return Ok(()),
            }
        } else if kind.eq_ignore_ascii_case("IAMRole") {
            "its credential is IAMRole, which holds no key: nothing to rotate".to_owned()
        } else {
            format!("its credential is {}, and this build rotates {ACCESS_KEY} only", named(kind, ""))
        };
        Err(refused(&self.place, &why))
    }

    /// What would have to be sent, is shown veiled, and is not stated.
    fn lacking(&self, stated: Option<&ConnectionConfig>) -> Vec<String> {
        let mut lacking = Vec::new();
        let elsewhere = |text: &str| is_enciphered(text) || text.starts_with("****");
        veiled(&self.item.0, "", &elsewhere, &mut lacking);
        for (name, value) in self.fields.0.as_object().into_iter().flatten() {
            let is_stated =
                stated.is_some_and(|stated| name == CREDENTIAL_TYPE || stated.stated().any(|(own, _)| own == name));
            if name != KEY_ID && name != KEY_SECRET && !is_stated {
                veiled(value, &format!("connectionString.{name}"), &|text| Veil::of(text) != Veil::Clear, &mut lacking);
            }
        }
        let redactor = Redactor::default();
        lacking.iter().map(|name| redactor.clean(name)).collect()
    }

    /// What the policy states and the item shows otherwise: it is kept as it is, and one of the two is wrong.
    fn contradicted(&self, stated: Option<&ConnectionConfig>) -> Option<String> {
        if self.form == Form::Sealed {
            return None;
        }
        stated?.stated().find_map(|(name, wanted)| {
            let shown = self.field(name).unwrap_or_default();
            let is_same = shown.trim_end_matches('/') == wanted.trim_end_matches('/');
            (!is_same && Veil::of(shown) == Veil::Clear).then(|| {
                let shown = named(shown, "none");
                format!("its connection string shows {name} {shown} and the policy's `connection` says {wanted}: correct the one or the other")
            })
        })
    }

    /// The whole item with this key in it, for `item=`; after [`Item::takes_a_key`] said that it may be done.
    pub fn with_key(&self, id: &KeyId, secret: &Secret, stated: Option<&ConnectionConfig>) -> Zeroizing<String> {
        let mut fields = Wiped(self.fields.0.clone());
        let map = fields.0.as_object_mut().expect("an item is made with an object of fields");
        let is_veiled =
            |value: Option<&Value>| value.and_then(Value::as_str).is_some_and(|text| Veil::of(text) != Veil::Clear);
        let mut put = |name: &str, text: &str| {
            if let Some(mut old) = map.insert(name.to_owned(), Value::String(text.to_owned())) {
                wipe(&mut old);
            }
        };
        for (name, value) in stated.into_iter().flat_map(ConnectionConfig::stated) {
            if self.form == Form::Sealed || is_veiled(self.fields.0.get(name)) {
                put(name, value);
            }
        }
        if self.form == Form::Sealed || is_veiled(self.fields.0.get(CREDENTIAL_TYPE)) {
            put(CREDENTIAL_TYPE, ACCESS_KEY);
        }
        put(KEY_ID, id.as_str());
        put(KEY_SECRET, secret.expose());
        let mut item = Wiped(self.item.0.clone());
        let slot = item.0.pointer_mut(self.pointer).expect("cloning moves nothing");
        *slot = match self.form {
            Form::Object => fields.0.take(),
            Form::Text | Form::Sealed => Value::String(std::mem::take(&mut *to_text(&fields.0))),
        };
        to_text(&item.0)
    }
}

/// A cloud store as a list shows it, of any provider: where it is, and what of its key can be compared.
#[derive(Debug, PartialEq, Eq)]
pub struct Listed {
    /// `/cloudStores/NAME`, in the site's own case. As the server sent it: neither clean nor fit for a URL.
    pub path: String,
    /// `amazon gis-store/tiles`.
    pub label: String,
    /// Its credential's type, where that is shown in clear.
    pub credential: String,
    /// What it shows of its key.
    pub reading: Reading,
}

/// Where a connection string has its secret: of Amazon, and of Azure's three types.
const SECRETS: [&str; 4] = [KEY_SECRET, "accountKey", "sasToken", "clientSecret"];

/// Types without a secret: ArcGIS asks the cloud who it is.
const KEYLESS: [&str; 2] = ["IAMRole", "userAssignedIdentity"];

impl Listed {
    /// `None` where it has no path: then it is no item.
    pub fn of(item: &Value) -> Option<Self> {
        let text = |pointer: &str| item.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let path = Some(text("/path")).filter(|path| !path.is_empty())?.to_owned();
        let label = [text("/provider"), text("/info/objectStore")];
        let label = label.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
        let found = POINTERS.into_iter().filter_map(|pointer| item.pointer(pointer)).find(|found| !found.is_null());
        let (credential, reading) = match found {
            None => (String::new(), Reading::Nothing),
            Some(Value::String(text)) if Veil::of(text) == Veil::Clear => match serde_json::from_str(text).map(Wiped) {
                Ok(fields) => shown_by(&fields.0),
                // `ACCESS_KEY_ID=…;SECRET_KEY=…`, or whatever a later version writes.
                Err(_) => (String::new(), Reading::Hidden),
            },
            Some(fields) => shown_by(fields),
        };
        Some(Self { path, label, credential, reading })
    }
}

/// The credential's type and what can be compared of it.
fn shown_by(fields: &Value) -> (String, Reading) {
    // A ciphertext, or nothing that a connection string was ever seen to be.
    if !fields.is_object() {
        return (String::new(), Reading::Hidden);
    }
    let text = |name: &str| fields.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let kind = text(CREDENTIAL_TYPE).filter(|kind| Veil::of(kind) == Veil::Clear).unwrap_or_default().to_owned();
    if KEYLESS.iter().any(|keyless| kind.eq_ignore_ascii_case(keyless)) {
        return (kind, Reading::Nothing);
    }
    let reading = SECRETS.into_iter().find_map(text).map_or(Reading::Hidden, reading_of);
    (kind, reading)
}

/// The end of a secret, as far as it is shown.
fn reading_of(shown: &str) -> Reading {
    match Veil::of(shown) {
        Veil::Clear => Secret::new(shown.to_owned()).tail().map_or(Reading::Hidden, Reading::Tail),
        Veil::Ends(tail) => Reading::Tail(tail),
        Veil::Whole => Reading::Hidden,
    }
}

fn refused(place: &str, what: &str) -> Fault {
    Fault::Refused { reason: Reason::Refused, why: format!("looking at {place}: {what}") }
}

/// A server's own word in a message.
fn named(word: &str, none: &str) -> String {
    if word.is_empty() { none.to_owned() } else { Redactor::default().clean(word) }
}

/// The dotted names of all texts that are veiled. The depth is bounded by the parser's.
fn veiled(value: &Value, name: &str, is_veiled: &impl Fn(&str) -> bool, found: &mut Vec<String>) {
    let below = |key: &str| if name.is_empty() { key.to_owned() } else { format!("{name}.{key}") };
    match value {
        Value::String(text) if is_veiled(text) => found.push(name.to_owned()),
        Value::Array(list) => {
            list.iter()
                .enumerate()
                .for_each(|(index, entry)| veiled(entry, &below(&index.to_string()), is_veiled, found));
        }
        Value::Object(map) => map.iter().for_each(|(key, entry)| veiled(entry, &below(key), is_veiled, found)),
        _ => {}
    }
}

/// JSON in one buffer that never grows, so that no copy is left behind, and is wiped when dropped.
fn to_text(value: &Value) -> Zeroizing<String> {
    let mut buffer = Vec::with_capacity(room(value));
    serde_json::to_writer(&mut buffer, value)
        .expect("a value with text keys is always JSON, and a Vec takes every write");
    Zeroizing::new(String::from_utf8(buffer).expect("JSON is UTF-8"))
}

/// At most so many bytes as JSON, where a byte is escaped with at most six.
fn room(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) => 5,
        Value::Number(number) => number.to_string().len(),
        Value::String(text) => 2 + 6 * text.len(),
        Value::Array(list) => 2 + list.iter().map(|entry| 1 + room(entry)).sum::<usize>(),
        Value::Object(map) => 2 + map.iter().map(|(key, entry)| 4 + 6 * key.len() + room(entry)).sum::<usize>(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{KeyId, Tail};
    use serde_json::json;

    const PATH: &str = "/cloudStores/imagery";
    const OLD: &str = "oldoldoldoldoldoldoldoldoldOLD1";

    fn key() -> (KeyId, Secret) {
        (KeyId::new("AKIANEW"), Secret::new("new+/\"\\=newnewnewnewNEW2".to_owned()))
    }

    fn item(connection: Value) -> Value {
        json!({"path": PATH, "type": "cloudStore", "provider": "amazon", "id": "b373de14", "totalRefCount": 3, "future": [{"a": 1.5}],
               "info": {"isManaged": false, "objectStore": "gis-store/tiles", "connectionString": connection, "portalProperties": {"itemID": "c"}}})
    }

    fn fields() -> Value {
        json!({"accessKeyId": "AKIAOLD", "secretAccessKey": OLD, "region": "us-east-1", "credentialType": "accessKey", "tomorrow": {"x": null}})
    }

    fn read(value: Value) -> Item {
        Item::of(value, PATH, "arcgis.prod").unwrap_or_else(|fault| panic!("{fault:?}"))
    }

    fn stated(region: &str) -> ConnectionConfig {
        ConnectionConfig { region: region.to_owned(), region_endpoint_url: None, default_endpoints_protocol: None }
    }

    fn sent(item: &Item, stated: Option<&ConnectionConfig>) -> Value {
        item.takes_a_key(stated, true).expect("it takes a key");
        let (id, secret) = key();
        serde_json::from_str(&item.with_key(&id, &secret, stated)).expect("it is JSON")
    }

    fn why(value: Value, stated: Option<&ConnectionConfig>, asked_clear: bool) -> String {
        let made = Item::of(value, PATH, "arcgis.prod");
        let Err(Fault::Refused { reason, why }) = made.and_then(|item| item.takes_a_key(stated, asked_clear)) else {
            panic!("it takes a key");
        };
        assert_eq!(reason, Reason::Refused);
        why
    }

    fn keyed(mut fields: Value) -> Value {
        fields["accessKeyId"] = json!("AKIANEW");
        fields["secretAccessKey"] = json!("new+/\"\\=newnewnewnewNEW2");
        fields
    }

    #[test]
    fn everything_but_the_key_is_sent_back_in_the_form_it_was_found() {
        let object = read(item(fields()));
        assert_eq!(sent(&object, None), item(keyed(fields())));
        let text = read(item(json!(fields().to_string())));
        let back = sent(&text, None);
        let connection = back["info"]["connectionString"].as_str().expect("it is a text again");
        assert_eq!(serde_json::from_str::<Value>(connection).expect("JSON in a text"), keyed(fields()));
        assert_eq!(item(json!(connection)), back);
        let mut elsewhere = item(Value::Null);
        elsewhere["connectionString"] = json!(fields().to_string());
        let back = sent(&read(elsewhere), None);
        assert!(back["info"]["connectionString"].is_null() && back["connectionString"].is_string(), "{back}");
    }

    #[test]
    fn an_old_item_without_a_credential_type_stays_without() {
        let mut old = fields();
        old.as_object_mut().expect("an object").remove("credentialType");
        assert_eq!(sent(&read(item(old.clone())), None), item(keyed(old)));
    }

    #[test]
    fn what_is_enciphered_is_never_sent_back() {
        let mut by_field = fields();
        by_field["accessKeyId"] = json!("{crypt}+1FS");
        by_field["secretAccessKey"] = json!("{crypt}xxxxxxxxxxxxxxxxOLD1");
        assert_eq!(sent(&read(item(by_field.clone())), None), item(keyed(by_field.clone())));

        by_field["region"] = json!("v2Crypt_AAAA");
        by_field["credentialType"] = json!("v2Crypt_BBBB");
        assert!(why(item(by_field.clone()), None, true).ends_with(
            "connectionString.credentialType, connectionString.region is shown enciphered and could not be kept; if that is its region \
             or endpoint, add `connection = { region = \"…\" }` to the target"
        ));
        let mut expected = keyed(by_field.clone());
        expected["region"] = json!("eu-west-1");
        expected["credentialType"] = json!("accessKey");
        assert_eq!(sent(&read(item(by_field.clone())), Some(&stated("eu-west-1"))), item(expected));

        by_field["tomorrow"] = json!({"token": ["v3Crypt_CCCC"]});
        let said = why(item(by_field), Some(&stated("eu-west-1")), true);
        assert!(
            said.ends_with("connectionString.tomorrow.token.0 is shown enciphered and could not be kept"),
            "{said}"
        );
        let mut outside = item(fields());
        outside["info"]["proxyPassword"] = json!("{crypt}DDDD");
        assert!(why(outside, None, true).contains(": info.proxyPassword is shown enciphered and could not be kept"));
    }

    #[test]
    fn a_sealed_string_is_made_anew_from_what_the_policy_says() {
        let sealed = item(json!("{crypt}nawx4y2s"));
        assert_eq!(
            why(sealed.clone(), None, false),
            "looking at data item /cloudStores/imagery of arcgis.prod: its connection string is shown enciphered (ArcGIS deciphers it \
             over https only), so that what it holds beside the key could not be kept; if it holds an access key, add `connection = \
             { region = \"…\" }` to the target, with all that it holds beside the key"
        );
        assert!(!why(sealed.clone(), None, true).contains("https"));
        let mut all = stated("us-east-1");
        all.region_endpoint_url = Some("https://s3.example.com".to_owned());
        all.default_endpoints_protocol = Some("https".to_owned());
        let back = sent(&read(sealed), Some(&all));
        let connection = back["info"]["connectionString"].as_str().expect("it is a text");
        assert_eq!(
            serde_json::from_str::<Value>(connection).expect("JSON in a text"),
            keyed(
                json!({"region": "us-east-1", "regionEndpointUrl": "https://s3.example.com", "defaultEndpointsProtocol": "https",
                         "credentialType": "accessKey"})
            )
        );
        assert_eq!(item(json!(connection)), back, "the rest is kept");
    }

    #[test]
    fn the_policy_may_not_contradict_what_is_shown() {
        let said = why(item(fields()), Some(&stated("eu-west-1")), true);
        assert!(said.contains("shows region us-east-1 and the policy's `connection` says eu-west-1"), "{said}");
        assert_eq!(sent(&read(item(fields())), Some(&stated("us-east-1"))), item(keyed(fields())));
        let mut more = stated("us-east-1");
        more.default_endpoints_protocol = Some("https".to_owned());
        assert!(why(item(fields()), Some(&more), true).contains("shows defaultEndpointsProtocol none and"));
    }

    #[test]
    fn what_holds_no_key_of_amazon_says_so() {
        let with = |name: &str, value: &str| {
            let mut changed = item(fields());
            changed[name] = json!(value);
            why(changed, None, true)
        };
        assert!(with("provider", "azure").ends_with(
            "of arcgis.prod: it is cloudStore of azure, and this build rotates keys of cloud stores of amazon only"
        ));
        assert!(with("type", "egdb").contains("it is egdb of amazon"));
        assert!(with("path", "/cloudStores/other").ends_with("the answer shows /cloudStores/other"));
        let said = |fields: Value| why(item(fields), None, true);
        assert!(
            said(json!({"credentialType": "IAMRole", "region": "us-east-1"}))
                .ends_with("IAMRole, which holds no key: nothing to rotate")
        );
        assert!(
            said(json!({"credentialType": "assumeRole"}))
                .ends_with("is assumeRole, and this build rotates accessKey only")
        );
        assert!(said(json!({"region": "us-east-1"})).ends_with("has no accessKeyId: there is no key to rotate"));
        assert!(
            said(json!({"accessKeyId": "a", "secretAccessKey": ""}))
                .ends_with("has no secretAccessKey: there is no key to rotate")
        );
        assert!(said(json!("ACCESS_KEY_ID=a;SECRET_KEY=hush")).ends_with("its connection string is not JSON"));
        assert!(said(json!("[1]")).ends_with("its connection string is not a JSON object"));
        assert!(said(json!(7)).ends_with("neither a text nor an object"));
        assert!(said(json!(null)).ends_with("it shows no connection string"));
    }

    #[test]
    fn a_path_in_another_case_is_the_same_item() {
        let mut other = item(fields());
        other["path"] = json!("/cloudstores/Imagery");
        other["provider"] = json!("Amazon");
        other["type"] = json!("objectStore");
        let found = read(other.clone());
        assert_eq!(found.path(), "/cloudstores/Imagery");
        assert_eq!(sent(&found, None)["path"], other["path"]);
    }

    #[test]
    fn a_reading_is_the_end_of_the_secret_or_nothing() {
        let reading = |secret: Value| {
            let mut fields = fields();
            fields["secretAccessKey"] = secret;
            read(item(fields)).reading()
        };
        assert_eq!(reading(json!(OLD)), Reading::Tail(Tail::new("OLD1")));
        assert_eq!(reading(json!("{crypt}xxxxxxxxxxxxxxxxOLD1")), Reading::Tail(Tail::new("OLD1")));
        assert_eq!(reading(json!("{crypt}nawx4y2sOLD1")), Reading::Hidden);
        assert_eq!(reading(json!("********")), Reading::Hidden);
        assert_eq!(reading(json!("short")), Reading::Hidden, "four characters of so few would say too much");
        assert_eq!(reading(Value::Null), Reading::Nothing);
        assert_eq!(read(item(json!("{crypt}nawx4y2s"))).reading(), Reading::Hidden);
        assert_eq!(read(item(json!({"credentialType": "IAMRole"}))).reading(), Reading::Nothing);
        assert!(read(item(fields())).secret().is_some_and(|secret| secret.expose() == OLD));
        assert!(read(item(json!("{crypt}nawx4y2s"))).secret().is_none());
    }

    #[test]
    fn what_a_list_shows_of_any_store_is_read() {
        let listed = |item: Value| Listed::of(&item).map(|listed| (listed.credential, listed.reading));
        let tail = |text: &str| Reading::Tail(Tail::new(text));
        let ours = |reading: Reading| Some(("accessKey".to_owned(), reading));
        assert_eq!(listed(item(fields())), ours(tail("OLD1")));
        assert_eq!(listed(item(json!(fields().to_string()))), ours(tail("OLD1")), "a text is read like an object");
        let mut masked = fields();
        masked["secretAccessKey"] = json!("v2Crypt_xxxxxxxxxxxxxxxxVC5M");
        assert_eq!(listed(item(masked)), ours(tail("VC5M")));
        let mut sealed = fields();
        sealed["secretAccessKey"] = json!("v2Crypt_nawx4y2s");
        assert_eq!(listed(item(sealed)), ours(Reading::Hidden));
        let untold = |reading: Reading| Some((String::new(), reading));
        assert_eq!(listed(item(json!("{crypt}nawx4y2sOLD1"))), untold(Reading::Hidden), "enciphered as a whole");
        assert_eq!(listed(item(json!("ACCESS_KEY_ID=a;SECRET_KEY=hush"))), untold(Reading::Hidden));
        assert_eq!(listed(item(json!([1]))), untold(Reading::Hidden));
        assert_eq!(listed(item(Value::Null)), untold(Reading::Nothing));
        assert_eq!(
            listed(item(json!({"credentialType": "IAMRole", "secretAccessKey": "left behind for years"}))),
            Some(("IAMRole".to_owned(), Reading::Nothing))
        );
        let azure = json!({"accountName": "a", "accountKey": "enough-of-a-key-to-show-its-end==", "credentialType": "accessKey"});
        assert_eq!(listed(item(azure)), ours(tail("nd==")));
        let named = Listed::of(&item(fields())).expect("it has a path");
        assert_eq!((named.path.as_str(), named.label.as_str()), (PATH, "amazon gis-store/tiles"));
        assert_eq!(Listed::of(&json!({"type": "cloudStore"})), None);
        assert_eq!(Listed::of(&json!("x")), None);
    }

    #[test]
    fn the_room_is_enough_for_the_worst_of_texts() {
        let worst = item(json!({"a\u{1}": "\u{1}\u{2}\"\\".repeat(50), "n": 1.5e300, "b": [true, false, null, -7]}));
        let text = worst.to_string();
        assert!(room(&worst) >= text.len(), "{} < {}", room(&worst), text.len());
        assert_eq!(to_text(&worst).as_str(), text);
    }
}
