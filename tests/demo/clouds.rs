//! The clouds of the demo, all at the lab on loopback, and what a policy says of them.

use std::path::Path;
use std::time::Duration;

use rekeyd_lab::s3::S3Store;
use rekeyd_lab::{Aws, AwsOptions, Azure, AzureOptions, F5, F5Options, Google, GoogleOptions, Ibm, IbmOptions};

use crate::secret;

pub const GOOGLE_BUCKET: &str = "gis-google";
pub const IBM_BUCKET: &str = "gis-ibm";

/// How long a cloud does not know a key it has just made.
const PROPAGATION: Duration = Duration::from_millis(700);

pub struct Clouds {
    pub aws: Aws,
    pub azure: Azure,
    pub google: Google,
    /// What Google's keys open.
    pub google_store: S3Store,
    pub ibm: Ibm,
    pub f5: F5,
}

impl Clouds {
    pub async fn start() -> Clouds {
        let aws = Aws::start(AwsOptions { propagation: PROPAGATION, ..AwsOptions::default() }).await;
        let azure = AzureOptions {
            propagation: PROPAGATION,
            key_lag: PROPAGATION,
            // A token outlives the secret it was asked with, so long ones would hide that a secret died too early. This one is
            // announced in whole seconds, and is good for half a second longer than its user believes.
            token_lifetime: Duration::from_millis(1500),
            ..AzureOptions::default()
        };
        let azure = Azure::start(azure).await;
        let lags = GoogleOptions { propagation: PROPAGATION, state_lag: PROPAGATION, ..GoogleOptions::default() };
        let google = Google::start(lags).await;
        let google_store = S3Store::start(google.lookup()).await;
        google_store.add_bucket(GOOGLE_BUCKET);
        let ibm = Ibm::start(IbmOptions { propagation: PROPAGATION, ..IbmOptions::default() }).await;
        ibm.add_bucket(IBM_BUCKET);
        let f5 = F5::start(F5Options::default()).await;
        Clouds { aws, azure, google, google_store, ibm, f5 }
    }

    /// How many keys were made, in words.
    pub fn mints(&self) -> String {
        let created = |line: &&rekeyd_lab::RequestLine| line.executed && line.operation == "CreateServiceCredentials";
        format!(
            "{} IAM keys, {} secrets, {} HMAC keys, {} keys of IBM and {} tokens minted, {} slots regenerated",
            self.aws.mints(),
            self.azure.mints(),
            self.google.mints(),
            self.ibm.mints(),
            self.f5.requests().iter().filter(created).count(),
            self.azure.regenerations()
        )
    }

    /// The tables of the policy, with the daemon's own logins in files below this folder.
    pub fn tables(&self, folder: &Path) -> Result<String, String> {
        let Clouds { aws, azure, google, ibm, f5, .. } = self;
        let (access_key_id, secret_access_key) = aws.admin();
        let (client_id, client_secret) = azure.admin();
        let (rotator, password) = ibm.login();
        secret(folder, "aws-secret", &secret_access_key)?;
        secret(folder, "azure-secret", &client_secret)?;
        secret(folder, "google.json", &google.service_account_file(&google.token_url()))?;
        secret(folder, "ibm-password", &password)?;
        secret(folder, "f5-token", &f5.admin_token())?;
        Ok(format!(
            r#"
[aws.main]
endpoint_url = "{endpoint}"
sts_endpoint_url = "{endpoint}"
s3_endpoint_url = "{endpoint}"
access_key_id = "{access_key_id}"
secret_access_key = {{ file = "{at}/aws-secret" }}
settle = "500ms"
last_used_lag = "1s"

[azure.main]
tenant_id = "{tenant}"
client_id = "{client_id}"
client_secret = {{ file = "{at}/azure-secret" }}
authority_url = "{authority}"
arm_url = "{arm}"
graph_url = "{graph}"
blob_url = "{blob}"
request_timeout = "2s"
settle = "2s"

[gcp.main]
credentials_file = "{at}/google.json"
storage_url = "{google}"
resource_manager_url = "{google}"
request_timeout = "2s"
settle = "2s"

[ibm_cos.main]
accesser_url = "{accesser}"
username = "{rotator}"
password = {{ file = "{at}/ibm-password" }}
request_timeout = "2s"
settle = "2s"

[f5xc.main]
console_url = "{console}"
api_token = {{ file = "{at}/f5-token" }}
request_timeout = "2s"
settle = "2s"
"#,
            at = folder.display(),
            endpoint = aws.endpoint(),
            tenant = azure.tenant_id(),
            authority = azure.authority_url(),
            arm = azure.arm_url(),
            graph = azure.graph_url(),
            blob = azure.blob_url(),
            google = google.url(),
            accesser = ibm.accesser_url(),
            console = f5.url(),
        ))
    }
}
