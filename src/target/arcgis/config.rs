//! What a deployment and a target of ArcGIS are: plain data, as the policy's tables become it and the journal keeps it.
//!
//! [`super::tables`] reads them from the policy. This connects to nothing, and reads no secret.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::{MaterialKind, SecretRef, SystemSpec, TargetSpec};

/// Which of the two products a deployment is. They differ in where tokens and jobs are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Product {
    /// ArcGIS Enterprise on Kubernetes: tokens from the portal.
    Kubernetes,
    /// ArcGIS Server (cloud services from 12.0 on, data items from 10.4 on): tokens from the admin directory, jobs at one of two places.
    Server,
}

/// How the fields of an S3 secret are spelled in a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CredentialKeys {
    /// As the documents of the request print it (snake); if that is refused, once as the answers show it (camel).
    Auto,
    /// `access_key`, `secret_key`.
    Snake,
    /// `accessKey`, `secretKey`.
    Camel,
}

/// One `[arcgis.NAME]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeploymentConfig {
    /// Which product answers.
    pub product: Product,
    /// The admin directory, without a slash at its end.
    pub admin_url: String,
    /// Where a portal gives the tokens: always for Kubernetes, for Server only where it is federated.
    pub portal_url: Option<String>,
    /// Who logs in. Case matters.
    pub username: String,
    /// Where the password is.
    pub password: SecretRef,
    /// The only authorities trusted here, as PEM; `None` trusts the system's.
    pub ca_file: Option<String>,
    /// Our certificate for a web tier that wants one, with those that lead to its authority, as PEM.
    pub client_cert: Option<String>,
    /// Where its private key is; there whenever `client_cert` is.
    pub client_key: Option<SecretRef>,
    /// The spelling of S3 secrets.
    pub credential_keys: CredentialKeys,
    /// Rotation jobs at once.
    pub max_jobs: u32,
    /// First pause between two looks at a job.
    pub poll: Duration,
    /// When a job is given up as unknown.
    pub job_timeout: Duration,
    /// How long a read-back may still show the old key.
    pub readback: Duration,
    /// One request, from call to last byte.
    pub request_timeout: Duration,
    /// Before `[daemon].proxy`.
    pub proxy: Option<String>,
    /// Before `[daemon].no_proxy`.
    pub no_proxy: Option<Vec<String>>,
}

impl DeploymentConfig {
    /// Where tokens come from.
    pub fn token_url(&self) -> String {
        format!("{}/generateToken", self.portal_url.as_ref().unwrap_or(&self.admin_url))
    }
}

/// Where in a deployment the key is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// A cloud service with a credential of its own.
    Service(String),
    /// A cloud provider, whose credential all its services use that have none of their own.
    Provider(String),
    /// A registered data store, by its path: `/cloudStores/NAME`. It holds a copy of the key that `cloud/…` does not touch.
    Item(String),
}

impl Place {
    /// The resource below `cloud/`, or below `data/`.
    pub fn resource(&self) -> &'static str {
        match self {
            Self::Service(_) => "services",
            Self::Provider(_) => "providers",
            Self::Item(_) => "items",
        }
    }

    /// The id, or the path.
    pub fn id(&self) -> &str {
        match self {
            Self::Service(id) | Self::Provider(id) | Self::Item(id) => id,
        }
    }
}

/// Which operation hands the key over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Operation {
    /// By version and by what is there. Never moves from a service to its provider by itself.
    Auto,
    /// `credential/add`, whatever is there.
    Add,
    /// `credential/update`, whatever is there.
    Update,
}

/// How to see that what lives on the key works. Stored like the target it belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthConfig {
    /// A consumer's address, asked without a login.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// The status of a working consumer.
    pub expect: u16,
    /// A backup store of ArcGIS Enterprise on Kubernetes, which validates itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup_store: Option<String>,
    /// The cloud service's own `status`, where its version has one.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub service_status: bool,
}

/// What a data item's connection string holds beside the key, for a site that shows it enciphered only. The names in the string are
/// those of Esri's own scripts: `region`, `regionEndpointUrl`, `defaultEndpointsProtocol`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionConfig {
    /// The bucket's region.
    pub region: String,
    /// The store's own address, where it is not the region's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region_endpoint_url: Option<String>,
    /// `https` or `http`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_endpoints_protocol: Option<String>,
}

impl ConnectionConfig {
    /// What is stated, by the names of the connection string.
    pub fn stated(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let optional = [
            ("regionEndpointUrl", &self.region_endpoint_url),
            ("defaultEndpointsProtocol", &self.default_endpoints_protocol),
        ];
        let optional = optional.into_iter().filter_map(|(name, value)| Some((name, value.as_deref()?)));
        [("region", self.region.as_str())].into_iter().chain(optional)
    }
}

/// One `[[service.target]]` of kind `arcgis`. It is stored in the journal with an open rotation: add fields, rename none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetConfig {
    /// Where the key is kept.
    pub place: Place,
    /// How it gets there.
    pub operation: Operation,
    /// How to see that it works.
    pub health: Option<HealthConfig>,
    /// What a data item may show enciphered only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connection: Option<ConnectionConfig>,
    /// What the issuer's keys are made of, so that what does not fit is refused before one is made. `None` where the issuer cannot
    /// tell, and in what an older rekeyd wrote; the push itself looks again, at the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub material: Option<MaterialKind>,
}

/// Notes which material will come.
pub fn expect(spec: &mut TargetSpec, material: MaterialKind) {
    // What cannot be read is refused by `connect`, with a sentence.
    let Ok(config) = serde_json::from_value::<TargetConfig>(spec.config.clone()) else { return };
    let config = TargetConfig { material: Some(material), ..config };
    spec.config = serde_json::to_value(config).expect("a target has no key that JSON could not hold");
}

/// Goes into a URL's path as it is: no other folder, no way up, nothing that opens a query.
pub fn is_item_path(text: &str) -> bool {
    text.strip_prefix("/cloudStores/").is_some_and(|name| {
        (1..=128).contains(&name.len())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
            && !name.bytes().all(|b| b == b'.')
    })
}

/// A deployment's table again, from its plain data.
pub fn deployment(system: &SystemSpec) -> Option<DeploymentConfig> {
    serde_json::from_value(system.config.clone()).ok()
}
