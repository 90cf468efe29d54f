//! Strict stand-ins of AWS, Azure, Google, IBM Cloud Object Storage, F5 Distributed Cloud and ArcGIS Enterprise, for tests, for the demo
//! and for anyone who wants to see a rotation go wrong safely.
//!
//! Nothing here is imported from rekeyd: signing, forms and JSON are the lab's own, written from the vendors' documents, so that
//! one misreading cannot sit on both sides of the wire. What a document does not say is chosen, and the comment says so.
//!
//! * [`Aws`]: IAM, STS and S3 on one loopback port. It checks signatures, quota, status, and how long a fresh key takes to be known.
//! * [`Azure`]: the token endpoint of Entra, Azure Resource Manager for account keys, Microsoft Graph for the passwords of
//!   applications, and the data planes that take those keys, each on a loopback port of its own.
//! * [`Ibm`]: an accesser of IBM Cloud Object Storage in container mode, and a store that takes its keys.
//! * [`Google`]: HMAC keys of service accounts at Cloud Storage, Resource Manager's question about permissions, and the ways to log in.
//! * [`s3`]: a store that speaks S3, for whatever issuer makes the keys; its signatures are judged by a library that is not ours.
//! * [`ArcGis`]: the admin and portal endpoints that credential rotation touches, as Kubernetes or as Server. Its cloud services
//!   really use the key they hold against [`Aws`], [`Azure`] or [`Ibm`], all the time, and count every refusal: an outage is a number above zero.
//! * [`F5`]: the console of F5 Distributed Cloud, as far as service credentials go.
//! * [`Fault`], [`JobScript`]: what goes wrong, and when.
//!
//! ```no_run
//! # async fn story() {
//! use rekeyd_lab::{ArcGis, ArcGisOptions, Aws, AwsOptions, StoredCredential};
//!
//! let aws = Aws::start(AwsOptions::default()).await;
//! aws.add_user("store");
//! aws.add_bucket("gis-store", &["store"]);
//! let (access_key, secret_key) = aws.create_key("store");
//!
//! let arcgis = ArcGis::start(ArcGisOptions::default(), &aws).await;
//! arcgis.add_provider("betc4g098c", "AWS", None);
//! arcgis.add_service("eg7hrelq6b", "betc4g098c", "gis-store", Some(StoredCredential { access_key, secret_key }));
//! // … rotate …
//! assert_eq!(arcgis.consumer_refusals(), 0);
//! # }
//! ```
//!
//! The stand-ins live as long as the tokio runtime they were started on. They use the real clock.

mod arcgis;
mod aws;
mod azure;
mod chance;
mod consumer;
mod f5;
mod faults;
mod form;
mod google;
mod http;
mod ibm;
mod record;
pub mod s3;
mod shared_key;
mod sigv4;
mod tls;
mod xml;

pub use arcgis::{
    ArcGis, ArcGisOptions, ArcGisSnapshot, ItemView, JobPath, JobScript, JobView, Product, Restart, ServiceSpec,
    Spelling, StoredCredential,
};
pub use aws::{Aws, AwsOptions, AwsSnapshot, KeyView};
pub use azure::{
    AccountKind, Azure, AzureOptions, AzurePorts, AzureRole, AzureSnapshot, PasswordPolicy, PasswordView,
    RegeneratedKey, SlotView, WriteLimit,
};
pub use consumer::{ConsumerCount, key_name};
pub use f5::{F5, F5Credential, F5Options, Words};
pub use faults::{Fault, Gate};
pub use google::{Google, GoogleOptions, HmacKeyView};
pub use ibm::{Ibm, IbmKeyView, IbmOptions, IbmRight, TakenName};
pub use record::{Answered, Exchange, as_in_a_form};
pub use tls::SelfSigned;

use chrono::{DateTime, Utc};

/// One request a stand-in received, as it answered it. An answer, once given, is never changed; what a [`Fault::Late`] request
/// does later is a second line.
#[derive(Clone, Debug, serde::Serialize)]
pub struct RequestLine {
    /// When it was answered.
    pub at: DateTime<Utc>,
    /// The operation, in the words that [`Aws::fault`], [`Azure::fault`], [`Ibm::fault`] and [`ArcGis::fault`] take.
    pub operation: String,
    /// The IAM user or bucket, the Azure application or account, IBM's storage account and user, the ArcGIS service, provider or job it was about; else empty.
    pub user_or_target: String,
    /// AWS: the key that signed it. Azure: the slot, or the id of the password, it was about; of its data plane the slot that signed it, or
    /// the client id behind the token. Google: the access id. IBM: the access key it was about. ArcGIS: the access key id that was pushed. Else empty.
    pub access_key_id: String,
    /// The HTTP status; 0 when the connection was closed without an answer.
    pub status: u16,
    /// Whether the operation took effect. A read takes effect when it is answered with what was asked.
    pub executed: bool,
}
