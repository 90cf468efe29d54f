//! Registered data items (`data/…`) and backup stores: the other places that hold the same keys. Everything here is synchronous.
//!
//! Shapes from Esri's own scripts (section 5 of the reference). An item is kept whole, with every member that was posted. How it shows
//! its connection string is [`ItemView`]: Esri's Python API says that the server enciphers the text as a whole and deciphers it for
//! `decrypt=true` over HTTPS; older and newer sites may differ, and so may this one.

use serde_json::{Map, Value, json};

use super::credential::Credential;
use super::options::{ItemView, Product, StoredCredential};
use super::reply::Outcome;
use super::site::Site;
use crate::form;
use crate::http::Request;

/// An S3 cloud store that somebody registered.
#[derive(Clone)]
pub(crate) struct DataItem {
    /// `/cloudStores/<name>`
    pub(crate) path: String,
    pub(crate) bucket: String,
    pub(crate) region: String,
    pub(crate) credential: Option<Credential>,
    /// All members as they were posted, without the connection string.
    item: Map<String, Value>,
    /// What the connection string holds beside the key.
    fields: Map<String, Value>,
}

impl DataItem {
    pub(crate) fn new(path: &str, bucket: &str, credential: Option<Credential>) -> Self {
        let region = "us-east-1".to_owned();
        let kind = if credential.is_some() { "accessKey" } else { "IAMRole" };
        let item = json!({
            "path": path, "type": "cloudStore", "provider": "amazon",
            "info": { "isManaged": false, "objectStore": bucket, "encryptAttributes": ["info.connectionString"] },
        });
        let fields = json!({ "region": region, "credentialType": kind });
        let (Value::Object(item), Value::Object(fields)) = (item, fields) else { unreachable!("both are objects") };
        Self { path: path.to_owned(), bucket: bucket.to_owned(), region, credential, item, fields }
    }

    /// The connection string's members, all in clear.
    fn connection(&self) -> Map<String, Value> {
        let mut fields = self.fields.clone();
        if let Some((id, secret)) = self.credential.as_ref().and_then(Credential::pair) {
            fields.insert("accessKeyId".to_owned(), json!(id));
            fields.insert("secretAccessKey".to_owned(), json!(secret));
        }
        fields
    }

    /// All of it in clear, the connection string as an object.
    pub(crate) fn truth(&self) -> Value {
        let mut item = Value::Object(self.item.clone());
        item["info"]["connectionString"] = Value::Object(self.connection());
        item
    }
}

/// What a path under `admin/` means here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    FindItems,
    ValidateItem,
    /// By the item's path.
    Item(String),
    Edit(String),
    /// By the backup store's name.
    ValidateStore(String),
}

impl Place {
    pub(crate) fn parse(segments: &[&str], server: bool) -> Option<Place> {
        Some(match segments {
            ["data", "findItems"] => Place::FindItems,
            ["data", "validateDataItem"] => Place::ValidateItem,
            ["data", "items", "cloudStores", name] => Place::Item(format!("/cloudStores/{name}")),
            ["data", "items", "cloudStores", name, "edit"] => Place::Edit(format!("/cloudStores/{name}")),
            ["system", "disasterrecovery", "stores", name, "validate"] if !server => {
                Place::ValidateStore((*name).to_owned())
            }
            _ => return None,
        })
    }

    pub(crate) fn operation(&self) -> &'static str {
        match self {
            Place::FindItems => "findItems",
            Place::ValidateItem => "validateDataItem",
            Place::Item(_) => "item",
            Place::Edit(_) => "edit",
            Place::ValidateStore(_) => "validate",
        }
    }

    pub(crate) fn target(&self) -> &str {
        match self {
            Place::FindItems | Place::ValidateItem => "",
            Place::Item(name) | Place::Edit(name) | Place::ValidateStore(name) => name,
        }
    }
}

pub(crate) fn execute(site: &mut Site, place: &Place, request: &Request) -> Outcome {
    let post = request.method == "POST";
    match place {
        Place::FindItems => find(site, request),
        Place::Item(_) if post => Outcome::error(405, "This request needs to be a GET request."),
        Place::Item(path) => match site.items.iter().find(|item| item.path == *path) {
            Some(item) => Outcome::json(show(site, item, deciphers(site, request))),
            None => Outcome::not_found(path),
        },
        _ if !post => Outcome::error(405, "This request needs to be a POST request."),
        Place::ValidateItem => match read(site, request) {
            Err(why) => Outcome::error(400, why),
            Ok((_, item)) if reaches(site, &item) => Outcome::json(json!({ "status": "success" })),
            Ok(_) => Outcome::error(500, "The cloud store cannot be reached with these credentials."),
        },
        Place::Edit(path) => edit(site, path, request),
        Place::ValidateStore(name) => validate_store(site, name),
    }
}

/// By the documents only for one item, and only over HTTPS.
fn deciphers(site: &Site, request: &Request) -> bool {
    let asked = form::pairs(&request.query);
    site.options.tls && form::value(&asked, "decrypt").is_some_and(|value| value.eq_ignore_ascii_case("true"))
}

/// `ancestorPath` and `types`: at least one. Documented as a GET of Server, and as a POST of Kubernetes; Esri's scripts POST to Server.
fn find(site: &Site, request: &Request) -> Outcome {
    let post = request.method == "POST";
    if !post && site.options.product == Product::Kubernetes {
        return Outcome::error(405, "This request needs to be a POST request.");
    }
    let asked = if post { request.form() } else { form::pairs(&request.query) };
    let under = form::value(&asked, "ancestorPath").filter(|path| !path.is_empty());
    let types = form::value(&asked, "types").filter(|types| !types.is_empty());
    if under.is_none() && types.is_none() {
        return Outcome::error(400, "At least one of the search parameters must be specified.");
    }
    let under = under.unwrap_or("/").trim_end_matches('/').to_owned();
    let is_wanted = |item: &&DataItem| {
        let kind = item.item.get("type").and_then(Value::as_str).unwrap_or_default();
        item.path.starts_with(&format!("{under}/"))
            && types.is_none_or(|types| types.split(',').any(|one| one.trim() == kind))
    };
    let items: Vec<Value> = site.items.iter().filter(is_wanted).map(|item| show(site, item, false)).collect();
    Outcome::json(json!({ "items": items }))
}

fn show(site: &Site, item: &DataItem, deciphered: bool) -> Value {
    let mut fields = item.connection();
    let shown = match (site.options.item_view, deciphered) {
        (ItemView::Object, _) | (ItemView::SealedFields, true) => Value::Object(fields),
        (ItemView::Text, _) | (ItemView::Sealed, true) => json!(Value::Object(fields).to_string()),
        (ItemView::Sealed, false) => json!(site.vault.seal(&Value::Object(fields).to_string())),
        (ItemView::SealedFields, false) => {
            for name in ["accessKeyId", "secretAccessKey"] {
                if let Some(Value::String(text)) = fields.get_mut(name) {
                    *text = site.vault.seal(text);
                }
            }
            Value::Object(fields)
        }
    };
    let mut value = Value::Object(item.item.clone());
    value["info"]["connectionString"] = shown;
    value
}

/// The path the item names, if it does, and the item as it would be stored.
fn read(site: &mut Site, request: &Request) -> Result<(Option<String>, DataItem), String> {
    let form = request.form();
    let text = form::value(&form, "item").ok_or("Missing required parameter: item.")?;
    let item: Value = serde_json::from_str(text).map_err(|_| "Unable to parse the item JSON.")?;
    site.veils_posted += veils(&item);
    parse(site, item)
}

/// How many texts are ciphertexts, or would be ones if they were whole. Nobody has to post them; a client that does relies on what no
/// document promises.
fn veils(value: &Value) -> usize {
    match value {
        Value::String(text) => match serde_json::from_str::<Value>(text) {
            Ok(inner @ (Value::Object(_) | Value::Array(_))) => veils(&inner),
            _ => usize::from(text.starts_with("{crypt}") || text.starts_with("v2Crypt_")),
        },
        Value::Array(list) => list.iter().map(veils).sum(),
        Value::Object(map) => map.values().map(veils).sum(),
        _ => 0,
    }
}

/// An item as somebody sends it, or as a human writes it.
pub(crate) fn parse(site: &mut Site, item: Value) -> Result<(Option<String>, DataItem), String> {
    let Value::Object(mut item) = item else { return Err("The item is not a JSON object.".to_owned()) };
    let kind = item.get("type").and_then(Value::as_str);
    if !kind.is_some_and(|kind| ["cloudStore", "objectStore"].contains(&kind)) {
        return Err("Unsupported type of the data item.".to_owned());
    }
    let amazon =
        item.get("provider").and_then(Value::as_str).is_some_and(|provider| provider.eq_ignore_ascii_case("amazon"));
    let path = item.get("path").and_then(Value::as_str).map(str::to_owned);
    let info = item.get_mut("info").and_then(Value::as_object_mut).ok_or("Missing required property: info.")?;
    // Esri's scripts send an object, or the same as text; what was read may be sent back.
    let connection = match info.remove("connectionString") {
        Some(Value::String(text)) => serde_json::from_str(&site.vault.open(&text)).unwrap_or(Value::Null),
        other => other.unwrap_or_default(),
    };
    let bucket = info.get("objectStore").and_then(Value::as_str).unwrap_or_default().to_owned();
    let Value::Object(mut fields) = connection else { return Err("Unable to read the connection string.".to_owned()) };
    for value in fields.values_mut() {
        if let Value::String(text) = value {
            *text = site.vault.open(text);
        }
    }
    let (mut credential, mut region) = (None, String::new());
    // Of other providers it keeps what it is given, and tries nothing.
    if amazon {
        let mut take = |name: &str| fields.remove(name).and_then(|value| value.as_str().map(str::to_owned));
        let (id, secret) = (take("accessKeyId"), take("secretAccessKey"));
        credential = match fields.get("credentialType").and_then(Value::as_str) {
            Some("accessKey") => {
                let access_key = id.ok_or("Missing required property: accessKeyId.")?;
                let secret_key = secret.ok_or("Missing required property: secretAccessKey.")?;
                Some(Credential::access_key(&StoredCredential { access_key, secret_key }))
            }
            Some("IAMRole") => None,
            _ => return Err("Missing or unsupported credentialType.".to_owned()),
        };
        if bucket.is_empty() {
            return Err("Missing required property: info.objectStore.".to_owned());
        }
        let named = fields.get("region").and_then(Value::as_str);
        region = named.ok_or("Missing required property: region.")?.to_owned();
    }
    site.note_secrets(credential.as_ref());
    Ok((path.clone(), DataItem { path: path.unwrap_or_default(), bucket, region, credential, item, fields }))
}

/// Stores what it is given; whether it works is for `validateDataItem` to say.
fn edit(site: &mut Site, path: &str, request: &Request) -> Outcome {
    if !site.items.iter().any(|item| item.path == path) {
        return Outcome::not_found(path);
    }
    let (named, mut item) = match read(site, request) {
        Ok(read) => read,
        Err(why) => return Outcome::error(400, why).about(path),
    };
    if named.is_some_and(|named| named != path) {
        return Outcome::error(400, "The path of the data item cannot be changed.").about(path);
    }
    item.path = path.to_owned();
    let access_key_id = item.credential.as_ref().and_then(Credential::pair).map(|(id, _)| id).unwrap_or_default();
    for held in site.items.iter_mut().filter(|held| held.path == path) {
        *held = item.clone();
    }
    Outcome { access_key_id, ..Outcome::json(json!({ "status": "success" })) }.about(path)
}

fn reaches(site: &Site, item: &DataItem) -> bool {
    // `bucket/folder`
    let bucket = item.bucket.split('/').next().unwrap_or_default();
    let pair = item.credential.as_ref().and_then(Credential::pair);
    pair.is_some_and(|(id, secret)| site.works(&id, &secret, bucket))
}

/// Whether the store's cloud service can reach its bucket or container with what it holds.
fn validate_store(site: &Site, name: &str) -> Outcome {
    let Some(service) = site.stores.get(name).and_then(|id| site.service(id)) else {
        return Outcome::not_found(name);
    };
    let ready = site.reaches(&service.spec.id) == Some(true);
    // Only the good answer is documented.
    let status = if ready { "success" } else { "error" };
    Outcome::json(json!({ "isReady": ready, "status": status }))
}
