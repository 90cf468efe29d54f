//! Registered data items (`data/…`) and backup stores: the other places that hold the same keys. Everything here is synchronous.
//!
//! Shapes from Esri's own scripts (section 5 of the reference). How an item is shown is not documented beyond `encryptAttributes`;
//! here the whole connection string is one enciphered text, so that a read-back cannot tell which key is in it.

use serde_json::{Value, json};

use super::credential::Credential;
use super::options::StoredCredential;
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
            Some(item) => Outcome::json(show(site, item)),
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

/// `ancestorPath` and `types`, both optional.
fn find(site: &Site, request: &Request) -> Outcome {
    let asked = if request.method == "POST" { request.form() } else { form::pairs(&request.query) };
    let under = form::value(&asked, "ancestorPath").unwrap_or("/").trim_end_matches('/').to_owned();
    let types = form::value(&asked, "types").filter(|types| !types.is_empty());
    let wanted = types.is_none_or(|types| types.split(',').any(|one| one.trim() == "cloudStore"));
    let items = site.items.iter().filter(|item| wanted && item.path.starts_with(&format!("{under}/")));
    let items: Vec<Value> = items.map(|item| show(site, item)).collect();
    Outcome::json(json!({ "items": items }))
}

fn show(site: &Site, item: &DataItem) -> Value {
    let connection = match item.credential.as_ref().and_then(Credential::pair) {
        Some((id, secret)) => json!({
            "accessKeyId": id, "secretAccessKey": secret, "region": item.region, "credentialType": "accessKey",
        }),
        None => json!({ "region": item.region, "credentialType": "IAMRole" }),
    };
    json!({
        "path": item.path, "type": "cloudStore", "provider": "amazon",
        "info": {
            "isManaged": false, "objectStore": item.bucket, "connectionString": site.vault.seal(&connection.to_string()),
            "encryptAttributes": ["info.connectionString"],
        },
    })
}

/// The path the item names, if it does, and the item as it would be stored.
fn read(site: &mut Site, request: &Request) -> Result<(Option<String>, DataItem), String> {
    let form = request.form();
    let text = form::value(&form, "item").ok_or("Missing required parameter: item.")?;
    let item: Value = serde_json::from_str(text).map_err(|_| "Unable to parse the item JSON.")?;
    if (item["type"].as_str(), item["provider"].as_str()) != (Some("cloudStore"), Some("amazon")) {
        return Err("Unsupported type or provider of the data item.".to_owned());
    }
    // Esri's scripts send an object, or the same as text; what was read may be sent back.
    let connection = match &item["info"]["connectionString"] {
        Value::String(text) => serde_json::from_str(&site.vault.open(text)).unwrap_or(Value::Null),
        other => other.clone(),
    };
    let get = |name: &str| connection[name].as_str().map(str::to_owned);
    let credential = match connection["credentialType"].as_str() {
        Some("accessKey") => {
            let access_key = get("accessKeyId").ok_or("Missing required property: accessKeyId.")?;
            let secret_key = get("secretAccessKey").ok_or("Missing required property: secretAccessKey.")?;
            Some(Credential::access_key(&StoredCredential { access_key, secret_key }))
        }
        Some("IAMRole") => None,
        _ => return Err("Missing or unsupported credentialType.".to_owned()),
    };
    site.note_secrets(credential.as_ref());
    let path = item["path"].as_str().map(str::to_owned);
    let bucket = item["info"]["objectStore"].as_str().ok_or("Missing required property: info.objectStore.")?.to_owned();
    let region = get("region").ok_or("Missing required property: region.")?;
    Ok((path.clone(), DataItem { path: path.unwrap_or_default(), bucket, region, credential }))
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

/// Whether the store's cloud service can reach its bucket with what it holds.
fn validate_store(site: &Site, name: &str) -> Outcome {
    let Some(service) = site.stores.get(name).and_then(|id| site.service(id)) else {
        return Outcome::not_found(name);
    };
    let held = site.held(&service.spec.id);
    let ready = held.is_some_and(|(id, secret)| site.works(&id, &secret, &service.spec.bucket));
    // Only the good answer is documented.
    let status = if ready { "success" } else { "error" };
    Outcome::json(json!({ "isReady": ready, "status": status }))
}
