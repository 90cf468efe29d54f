//! How a deployment is made, and the shapes in which it is described.

use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::tls::SelfSigned;

/// Which of the two products answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Product {
    /// ArcGIS Enterprise on Kubernetes: tokens from the portal, jobs at `jobs/<id>`, `{"error":…}`, `{crypt}`.
    Kubernetes,
    /// ArcGIS Server: tokens from the admin directory, `system/jobs/<id>` too, `{"status":"error"}`, `v2Crypt_`.
    Server,
}

/// Which spelling of the S3 secret fields a request may use. The documents write `secret_key` in requests and `secretKey` in
/// answers; nobody outside Esri knows what the server takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spelling {
    /// `access_key`, `secret_key`.
    Snake,
    /// `accessKey`, `secretKey`.
    Camel,
    /// Either.
    Both,
}

/// Where Server shows its jobs: the credential pages say `jobs/<id>`, the job page `system/jobs/<id>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobPath {
    /// At both.
    Both,
    /// Only at `system/jobs`.
    Classic,
    /// Only at `jobs`.
    Short,
}

/// How a site answers while it restarts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// Connections are accepted and closed at once.
    Closed,
    /// 502 with a page of the proxy's.
    BadGateway,
    /// 503.
    Unavailable,
    /// 404, as from a web adaptor whose server is not there yet.
    NotFound,
    /// 200 with an HTML page.
    Html,
}

/// How a data item shows its connection string. What `decrypt=true` over HTTPS shows is the same without the ciphers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ItemView {
    /// JSON in a text, enciphered as a whole.
    Sealed,
    /// An object whose key id and secret are enciphered each for itself.
    SealedFields,
    /// An object in clear.
    Object,
    /// JSON in a text, in clear.
    Text,
}

/// A deployment.
#[derive(Clone, Debug)]
pub struct ArcGisOptions {
    /// Kubernetes or Server.
    pub product: Product,
    /// `"11.2"`, `"11.5"`, `"12.0"`: decides which operations exist.
    pub version: String,
    /// The path before `/admin`; may have slashes inside.
    pub context: String,
    /// The one account.
    pub username: String,
    /// Its password.
    pub password: String,
    /// No token is granted for longer.
    pub token_minutes_max: u32,
    /// Every token lives exactly this long, whatever was asked.
    pub token_ttl: Option<Duration>,
    /// From accepted to ended; the credential is stored half-way.
    pub job_duration: Duration,
    /// HTTPS, with a certificate of an authority nobody knows ([`crate::ArcGis::ca_pem`]).
    pub tls: bool,
    /// With `tls`: a certificate that signed itself instead.
    pub self_signed: Option<SelfSigned>,
    /// With `tls`: no handshake without a certificate of ours ([`crate::ArcGis::client_identity`]), as a web tier with PKI does it.
    pub demands_certificate: bool,
    /// Server: federated with a portal. The account is the portal's: it logs in there, and its tokens count only when bound to a
    /// referer.
    pub federated: bool,
    /// The code of an error is the HTTP status too; else everything is 200.
    pub real_status_codes: bool,
    /// The answer to an accepted credential lacks a quote, as the documents print it.
    pub malformed_job_reply: bool,
    /// `clouds/…` works as well as `cloud/…`.
    pub accept_clouds_alias: bool,
    /// Which secret field names are accepted.
    pub spelling: Spelling,
    /// Where Server shows its jobs.
    pub server_job_path: JobPath,
    /// Whether a second job may start while one runs.
    pub concurrent_jobs: bool,
    /// Whether Server has `cloud/providers/<id>/credential/update`; its page was never found.
    pub server_provider_update: bool,
    /// How long five wrong passwords lock the account.
    pub lockout: Duration,
    /// How data items show their connection string.
    pub item_view: ItemView,
    /// Whether there is `data/validateDataItem`.
    pub validates_items: bool,
}

impl Default for ArcGisOptions {
    fn default() -> Self {
        Self {
            product: Product::Kubernetes,
            version: "12.0".to_owned(),
            context: "arcgis".to_owned(),
            username: "rotator".to_owned(),
            password: "p+ss/w0rd=&%-lab".to_owned(),
            token_minutes_max: 20160,
            token_ttl: None,
            job_duration: Duration::from_millis(200),
            tls: false,
            self_signed: None,
            demands_certificate: false,
            federated: false,
            real_status_codes: false,
            malformed_job_reply: false,
            accept_clouds_alias: false,
            spelling: Spelling::Snake,
            server_job_path: JobPath::Both,
            concurrent_jobs: true,
            server_provider_update: true,
            lockout: Duration::from_secs(15 * 60),
            item_view: ItemView::Sealed,
            validates_items: true,
        }
    }
}

/// An S3 access key, as a site holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredCredential {
    /// The access key id.
    pub access_key: String,
    /// The secret.
    pub secret_key: String,
}

/// A cloud service in full, for [`crate::ArcGis::add_service_with`].
#[derive(Clone, Debug)]
pub struct ServiceSpec {
    /// Ten lower-case letters and digits.
    pub id: String,
    /// Its provider's id.
    pub provider: String,
    /// `AWS S3`, `Amazon Dynamo DB`, …
    pub name: String,
    /// `DEFAULT`, `BACKUP`, or absent, as on table and queue services.
    pub usage: Option<String>,
    /// The `type`: `objectStore`, `tableStore`, `queueService`.
    pub kind: String,
    /// `storage`, `queue`.
    pub category: String,
    /// What its consumer reads; empty for a service without one.
    pub bucket: String,
    /// The bucket's region.
    pub region: String,
    /// What its connection shows in place of region and root directory; empty for S3.
    pub connection: Map<String, Value>,
    /// `None` inherits the provider's. For types other than ACCESS-KEY see [`crate::ArcGis::set_credential_object`].
    pub credential: Option<StoredCredential>,
}

impl ServiceSpec {
    /// An object store for everyday use in `us-east-1`, inheriting.
    pub fn new(id: &str, provider: &str, bucket: &str) -> Self {
        Self {
            id: id.to_owned(),
            provider: provider.to_owned(),
            name: "AWS S3".to_owned(),
            usage: Some("DEFAULT".to_owned()),
            kind: "objectStore".to_owned(),
            category: "storage".to_owned(),
            bucket: bucket.to_owned(),
            region: "us-east-1".to_owned(),
            connection: Map::new(),
            credential: None,
        }
    }

    /// An Azure Blob Store, in the storage account `gisstore` where its credential names no other. Somebody uses it once there is an
    /// Azure behind the site: [`crate::ArcGis::use_azure`].
    pub fn azure_blob_store(id: &str, provider: &str, container: &str) -> Self {
        let connection = json!({
            "containerName": container, "rootDir": format!("root-{id}"),
            "accountEndpointUrl": "https://gisstore.blob.core.windows.net",
        });
        Self { connection: object(connection), ..Self::named(id, provider, "Azure Blob Store") }
    }

    /// An Azure Cosmos DB, the table store of Server. Nobody uses it.
    pub fn azure_cosmos_db(id: &str, provider: &str) -> Self {
        let connection = json!({
            "accountEndpointUrl": "https://gistables.documents.azure.com:443/", "databaseId": "arcgis",
            "cosmosDBConnectionMode": "Gateway",
        });
        let spec = Self { connection: object(connection), usage: None, ..Self::named(id, provider, "Azure Cosmos DB") };
        Self { kind: "tableStore".to_owned(), ..spec }
    }

    /// An Azure Service Bus, the queue service of Server. Nobody uses it.
    pub fn azure_service_bus(id: &str, provider: &str) -> Self {
        let connection = json!({ "serviceBusEndpointUrl": "https://gisqueue.servicebus.windows.net" });
        let spec =
            Self { connection: object(connection), usage: None, ..Self::named(id, provider, "Azure Service Bus") };
        Self { kind: "queueService".to_owned(), category: "queue".to_owned(), ..spec }
    }

    /// A bucket of Google Cloud Storage. Somebody uses it once there is a store behind the site: [`crate::ArcGis::use_google`]. No
    /// document shows its name; this one is a guess.
    pub fn google_cloud_storage(id: &str, provider: &str, bucket: &str) -> Self {
        let connection = json!({ "bucketName": bucket, "rootDir": format!("root-{id}") });
        Self { connection: object(connection), ..Self::named(id, provider, "Google Cloud Storage") }
    }

    /// What its consumer reads on Azure.
    pub(crate) fn container(&self) -> Option<&str> {
        self.connection.get("containerName")?.as_str().filter(|name| !name.is_empty())
    }

    /// What its consumer reads at Google.
    pub(crate) fn google_bucket(&self) -> Option<&str> {
        let name = self.connection.get("bucketName")?.as_str().filter(|name| !name.is_empty());
        name.filter(|_| self.name == "Google Cloud Storage")
    }

    fn named(id: &str, provider: &str, name: &str) -> Self {
        Self { name: name.to_owned(), ..Self::new(id, provider, "") }
    }
}

fn object(value: Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap_or_default()
}
