//! Cloud services and providers as the admin directory shows them. Pure.
//!
//! A provider's credential is at `.credential`; a service's own is at `.connection.credential`, and a service without it uses its
//! provider's. That absence is the test for add against update. Fields nobody documented are passed over.

use serde_json::Value;

use super::credential::KEYED;
use super::shown::Shown;

/// One entry of `cloud/services`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Ten lower-case letters and digits.
    pub id: String,
    /// Its provider's id.
    pub provider: String,
    /// `AWS S3`, and the bucket or container where it has one: for messages.
    pub label: String,
    /// What it is, as far as that decides which credentials fit.
    pub sort: Sort,
    /// Its own credential.
    pub own: Option<Shown>,
}

/// One entry of `cloud/providers`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provider {
    /// Its id.
    pub id: String,
    /// `AWS`, `AZURE`, `GCP`.
    pub label: String,
    /// What it is, as far as that decides which credentials fit.
    pub sort: Sort,
    /// Its credential.
    pub credential: Option<Shown>,
}

/// What a service or provider is, by which types of credentials it can use. No document says in one place which fit: this is what
/// Esri's pages and scripts show for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    /// Anything of Amazon's: one access key serves S3, DynamoDB and SQS.
    Amazon,
    /// Azure Blob Store.
    Blob,
    /// Azure Cosmos DB.
    Cosmos,
    /// Azure Service Bus.
    ServiceBus,
    /// The provider Azure itself: what all of its services can use.
    Azure,
    /// Anything of Google's.
    Google,
    /// A bucket, of Amazon's kind or of Google's.
    Bucket,
    /// It does not say. What is not known is not refused.
    Untold,
}

impl Sort {
    fn of_service(name: &str, connection: &Value) -> Self {
        let shows = |keys: &[&str]| keys.iter().any(|key| connection.get(*key).is_some());
        match name {
            "Azure Blob Store" => Self::Blob,
            "Azure Cosmos DB" => Self::Cosmos,
            "Azure Service Bus" => Self::ServiceBus,
            _ if name.starts_with("AWS ") || name.starts_with("Amazon ") => Self::Amazon,
            // No document shows the name of Google's service; it will hardly be called anything else.
            _ if name.starts_with("Google ") => Self::Google,
            _ if shows(&["containerName"]) => Self::Blob,
            _ if shows(&["cosmosDBConnectionMode", "databaseId"]) => Self::Cosmos,
            _ if shows(&["serviceBusEndpointUrl"]) => Self::ServiceBus,
            _ if shows(&["bucketName"]) => Self::Bucket,
            _ => Self::Untold,
        }
    }

    fn of_provider(name: &str) -> Self {
        match name.to_ascii_uppercase().as_str() {
            "AWS" => Self::Amazon,
            "AZURE" => Self::Azure,
            "GCP" => Self::Google,
            _ => Self::Untold,
        }
    }

    /// The types with a key that it can use, where it says what it is.
    pub fn takes(self) -> &'static [&'static str] {
        match self {
            Self::Amazon => &["ACCESS-KEY"],
            Self::Blob | Self::Azure => &["STORAGE-ACCOUNT-KEY", "SAS-TOKEN", "SERVICE-PRINCIPAL"],
            Self::Cosmos => &["COSMOSDB-ACCOUNT-KEY", "SERVICE-PRINCIPAL"],
            Self::ServiceBus => &["SERVICEBUS-ACCESS-KEY", "SERVICE-PRINCIPAL"],
            Self::Google => &["HMAC-KEYS"],
            Self::Bucket => &["ACCESS-KEY", "HMAC-KEYS"],
            Self::Untold => &KEYED,
        }
    }
}

/// The services of a site, or `None` where the answer is no such list.
pub fn services_of(value: &Value) -> Option<Vec<Service>> {
    Some(value.get("cloudServices")?.as_array()?.iter().filter_map(service_of).collect())
}

fn service_of(value: &Value) -> Option<Service> {
    let connection = value.get("connection").unwrap_or(&Value::Null);
    let bucket = ["bucketName", "containerName"].iter().map(|key| text(connection, key)).find(|name| !name.is_empty());
    let label = [text(value, "name"), text(value, "usage"), bucket.unwrap_or_default()];
    Some(Service {
        id: value.get("id")?.as_str()?.to_owned(),
        provider: text(value, "providerId"),
        label: label.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" "),
        sort: Sort::of_service(&text(value, "name"), connection),
        own: Shown::of(connection.get("credential")),
    })
}

/// The providers of a site, or `None` where the answer is no such list.
pub fn providers_of(value: &Value) -> Option<Vec<Provider>> {
    Some(value.get("cloudProviders")?.as_array()?.iter().filter_map(provider_of).collect())
}

/// A provider by itself.
pub fn provider_of(value: &Value) -> Option<Provider> {
    Some(Provider {
        id: value.get("id")?.as_str()?.to_owned(),
        label: text(value, "name"),
        sort: Sort::of_provider(&text(value, "name")),
        credential: Shown::of(value.get("credential")),
    })
}

fn text(value: &Value, key: &str) -> String {
    value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// Major and minor of the admin directory's own resource: `fullVersion` (`"11.2.0"`), else `currentVersion` (`11.2`).
pub fn version_of(value: &Value) -> Option<(u32, u32)> {
    let shown = |key| match value.get(key)? {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    };
    ["fullVersion", "currentVersion"].into_iter().filter_map(shown).find_map(|text| {
        let mut parts = text.trim().split('.').map(str::parse);
        let major = parts.next()?.ok()?;
        Some((major, parts.next().and_then(Result::ok).unwrap_or(0)))
    })
}

/// What `mode` says where the site takes no change now: `isReadOnly` on Kubernetes, `siteMode` on Server.
pub fn read_only(mode: &Value) -> Option<String> {
    let is_on = mode.get("isReadOnly") == Some(&Value::Bool(true)) || text(mode, "siteMode") == "READ_ONLY";
    is_on.then(|| text(mode, "message"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_version_is_a_number_or_a_text() {
        assert_eq!(version_of(&json!({"fullVersion": "11.2.0", "currentVersion": 12})), Some((11, 2)));
        assert_eq!(version_of(&json!({"currentVersion": 11.5})), Some((11, 5)));
        assert_eq!(version_of(&json!({"currentVersion": 12})), Some((12, 0)));
        assert_eq!(version_of(&json!({"currentVersion": "12.1"})), Some((12, 1)));
        assert_eq!(version_of(&json!({"fullVersion": "next", "currentVersion": 12.0})), Some((12, 0)));
        assert_eq!(version_of(&json!({"resources": []})), None);
    }

    #[test]
    fn read_only_is_said_in_two_ways() {
        assert_eq!(read_only(&json!({"isReadOnly": true, "message": "upgrade"})), Some("upgrade".to_owned()));
        assert_eq!(read_only(&json!({"siteMode": "READ_ONLY"})), Some(String::new()));
        assert_eq!(read_only(&json!({"isReadOnly": false})), None);
        assert_eq!(read_only(&json!({"siteMode": "EDITABLE"})), None);
    }

    #[test]
    fn what_is_no_list_is_told_from_an_empty_one() {
        assert_eq!(services_of(&json!({"cloudServices": []})), Some(vec![]));
        assert_eq!(services_of(&json!({"resources": []})), None);
        assert_eq!(providers_of(&json!({"cloudProviders": {}})), None);
    }
}
