//! What the tests of Azure's kinds share: a connection to the lab's Azure, as a policy has it.

use std::io::Write as _;
use std::sync::Arc;

use rekeyd::issuer::Kind;
use rekeyd::model::{KeyId, Reason, Shape, SystemRef, SystemSpec};
use rekeyd::ports::{Fault, Issuer, Listing};
use rekeyd::table;
use rekeyd_lab::{Azure, Fault as Mishap};

use super::contract::{Operation, World, context};

/// `[azure.main]` for this Azure with the rotator's own secret in `secret`; `more` lines stand below.
pub fn account(azure: &Azure, secret: &str, more: &str) -> String {
    format!(
        "tenant_id = \"{}\"\nclient_id = \"{}\"\nclient_secret = {{ file = \"{secret}\" }}\n{}{more}",
        azure.tenant_id(),
        azure.admin().0,
        addresses(azure)
    )
}

/// Where the lab's Azure is.
pub fn addresses(azure: &Azure) -> String {
    format!(
        "authority_url = \"{}\"\narm_url = \"{}\"\ngraph_url = \"{}\"\n",
        azure.authority_url(),
        azure.arm_url(),
        azure.graph_url()
    )
}

/// Connects an issuer of this kind, as the rotator.
pub fn connect(kind: &Kind, azure: &Azure, issuer: &str) -> Arc<dyn Issuer> {
    connect_with(kind, azure, "", issuer)
}

/// The same, with more lines in the account.
pub fn connect_with(kind: &Kind, azure: &Azure, more: &str, issuer: &str) -> Arc<dyn Issuer> {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(azure.admin().1.as_bytes()).expect("written");
    let account = account(azure, &file.path().display().to_string(), more);
    connect_as(kind, &account, issuer).expect("connects")
}

/// The same, whoever logs in.
pub fn connect_as(kind: &Kind, account: &str, issuer: &str) -> Result<Arc<dyn Issuer>, Fault> {
    let config = table::read(account, "account", kind.read_system);
    let config = config.unwrap_or_else(|report| panic!("{report}")).expect("an account");
    let system = SystemSpec { at: SystemRef { table: "azure".into(), name: "main".into() }, config };
    let spec = table::read(issuer, "issuer", |table| (kind.read)(table, Some(&system)));
    let spec = spec.unwrap_or_else(|report| panic!("{report}")).expect("a spec");
    (kind.connect)(&spec, Some(&system), &context())
}

/// How many requests of this name the Azure got.
pub fn sent(azure: &Azure, request: &str) -> usize {
    azure.requests().iter().filter(|line| line.operation == request).count()
}

/// Why something was refused.
pub fn reason<T: std::fmt::Debug>(answer: Result<T, Fault>) -> (Reason, String) {
    match answer {
        Err(Fault::Refused { reason, why }) => (reason, why),
        other => panic!("not refused: {other:?}"),
    }
}

/// An account whose keys live in two slots, with a rotator that may do everything: a world for the suite that every issuer keeps.
pub struct OnArm {
    pub azure: Azure,
    pub issuer: Arc<dyn Issuer>,
    /// The resource's type, as rights have it.
    pub provider: &'static str,
    pub shape: Shape,
}

impl World for OnArm {
    fn issuer(&self) -> Arc<dyn Issuer> {
        self.issuer.clone()
    }

    fn shape(&self) -> Shape {
        self.shape
    }

    fn in_use(&self, listing: &Listing) -> KeyId {
        listing.keys[0].id.clone()
    }

    fn request(&self, operation: Operation) -> &'static str {
        match operation {
            Operation::Identity => "GetAccount",
            Operation::List => "ListKeys",
            Operation::Mint | Operation::Delete => "RegenerateKey",
        }
    }

    fn fault(&self, request: &str, mishap: Mishap) {
        self.azure.fault(request, mishap);
    }

    fn sent(&self, request: &str) -> usize {
        sent(&self.azure, request)
    }

    fn allow(&self, operation: Operation, yes: bool) -> String {
        let action = match (operation, self.provider.contains("ServiceBus")) {
            (Operation::List, _) => "listKeys/action",
            (_, true) => "regenerateKeys/action",
            (_, false) => "regenerateKey/action",
        };
        let right = format!("{}/{action}", self.provider);
        if yes {
            self.azure.allow(&right)
        } else {
            self.azure.deny(&right)
        }
        right
    }
}
