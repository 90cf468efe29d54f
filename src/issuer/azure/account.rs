//! `[azure.NAME]`: who rekeyd is in a tenant of Entra, and where the cloud's doors are.
//!
//! Reads the table and answers questions about it. Opens no file, reads no secret, sends nothing.

use std::time::Duration;

use reqwest::Url;
use serde::{Deserialize, Serialize};

use crate::issuer::reach::Reach;
use crate::model::{SecretRef, SystemSpec};
use crate::net::client::is_loopback;
use crate::table::Table;

/// The public cloud's doors. The others' stand in Microsoft's pages on national clouds and are written into the policy.
const ARM: &str = "https://management.azure.com";
const GRAPH: &str = "https://graph.microsoft.com";
const AUTHORITY: &str = "https://login.microsoftonline.com";
const BLOB: &str = "https://blob.core.windows.net";

/// Horizon of an unknown mint, where a kind knows no longer one. ARM and Graph document no time after which a request they took is
/// surely over; both work for seconds. Ten minutes hold that and the request timeout.
pub(in crate::issuer) const SETTLE: Duration = Duration::from_secs(10 * 60);

/// One account, as the policy has it. All keys are optional; what is kept holds references to secrets only.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::issuer) struct Account {
    /// The tenant (directory) id.
    pub(in crate::issuer) tenant_id: Option<String>,
    /// The client (application) id of rekeyd's own identity.
    pub(super) client_id: Option<String>,
    pub(super) login: Login,
    arm_url: Option<String>,
    graph_url: Option<String>,
    authority_url: Option<String>,
    blob_url: Option<String>,
    #[serde(flatten)]
    pub(super) reach: Reach,
}

/// How rekeyd proves who it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Login {
    /// With a client secret of its own.
    Secret(SecretRef),
    /// With a certificate of its own: an assertion is signed for each login.
    Certificate {
        /// PEM, the certificate first.
        file: String,
        /// Its private key.
        key: SecretRef,
    },
    /// With somebody else's assertion, which stands in this file: a Kubernetes service account, or any other federation.
    Workload(String),
    /// As the machine it runs on: with the assertion that `AZURE_FEDERATED_TOKEN_FILE` names if it is set, else as the managed
    /// identity of the machine.
    Ambient,
}

/// Reads one `[azure.NAME]`; the `read_system` of every kind of Azure.
pub(in crate::issuer) fn read(table: &mut Table<'_>) -> Option<serde_json::Value> {
    let tenant_id = read_id(table, "tenant_id");
    let client_id = read_id(table, "client_id");
    let login = read_login(table);
    let arm_url = table.url("arm_url");
    let graph_url = table.url("graph_url");
    let authority_url = table.url("authority_url");
    let blob_url = table.url("blob_url");
    let reach = Reach::read(table, None);
    let account = Account { tenant_id, client_id, login: login?, arm_url, graph_url, authority_url, blob_url, reach };
    serde_json::to_value(account).ok()
}

/// A tenant or client id. A tenant may be written as a domain too; both become part of an address.
fn read_id(table: &mut Table<'_>, key: &'static str) -> Option<String> {
    let id = table.text_or(key)?;
    if !is_id(&id) {
        let help = format!("write it as Entra shows it: {key} = \"72f988bf-86f1-41af-91ab-2d7cd011db47\"");
        table.mistake(key, format!("`{id}` is no {}", key.replace('_', " ")), help);
    }
    Some(id)
}

fn is_id(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.') && text.len() <= 128
}

fn read_login(table: &mut Table<'_>) -> Option<Login> {
    let ways = ["client_secret", "client_cert", "federated_token_file"];
    let given: Vec<&'static str> = ways.into_iter().filter(|way| table.has(way)).collect();
    if let [first, second, ..] = given[..] {
        table.mistake(
            second,
            format!("`{second}` beside `{first}`"),
            "one way to log in is enough: keep one of the two",
        );
    }
    if let (Some(way), Some(lacking)) =
        (given.first(), ["tenant_id", "client_id"].into_iter().find(|id| !table.has(id)))
    {
        let help = format!("add {lacking} = \"...\", or leave {way} out to log in as the machine's own identity");
        table.mistake(way, format!("{way} without {lacking}"), help);
    }
    if table.has("client_key") && !table.has("client_cert") {
        table.mistake(
            "client_key",
            "client_key without client_cert",
            "add client_cert = \"/PATH\", its certificate in PEM",
        );
    }
    // All are read whichever is used, or the others would be unknown keys.
    let secret = table.secret("client_secret");
    let (file, key) = (table.text_or("client_cert"), table.secret("client_key"));
    let token_file = table.text_or("federated_token_file");
    match given.first() {
        None => Some(Login::Ambient),
        Some(&"client_secret") => secret.map(Login::Secret),
        Some(&"federated_token_file") => token_file.map(Login::Workload),
        Some(_) => {
            table.require("client_key", "client_key = { credential = \"azure-main-key\" }");
            Some(Login::Certificate { file: file?, key: key? })
        }
    }
}

impl Account {
    /// The account a spec was read from; `None` where there is none or where it is no account of ours.
    pub(in crate::issuer) fn of(system: Option<&SystemSpec>) -> Option<Self> {
        serde_json::from_value(system?.config.clone()).ok()
    }

    /// Horizon of an unknown mint: what the policy says, else `usual`.
    pub(in crate::issuer) fn settle(&self, usual: Duration) -> Duration {
        self.reach.settle(usual)
    }

    /// Whether rekeyd's own login is a client secret of this application.
    pub(in crate::issuer) fn logs_in_with_a_secret_of(&self, client_id: &str) -> bool {
        let own = self.client_id.as_deref().is_some_and(|own| own.eq_ignore_ascii_case(client_id));
        own && matches!(self.login, Login::Secret(_))
    }

    /// Azure Resource Manager, without a slash at its end.
    pub(super) fn arm(&self) -> &str {
        self.arm_url.as_deref().unwrap_or(ARM)
    }

    /// Microsoft Graph, without version or slash at its end.
    pub(super) fn graph(&self) -> &str {
        self.graph_url.as_deref().unwrap_or(GRAPH)
    }

    /// Where tokens are asked for.
    pub(in crate::issuer) fn authority(&self) -> &str {
        self.authority_url.as_deref().unwrap_or(AUTHORITY)
    }

    /// Whether another authority than the public cloud's is named.
    pub(in crate::issuer) fn authority_if_other(&self) -> Option<&str> {
        self.authority_url.as_deref().filter(|url| *url != AUTHORITY)
    }

    /// What a token for ARM is asked for: a national cloud's ARM is its own audience.
    pub(super) fn arm_scope(&self) -> String {
        scope(self.arm(), ARM)
    }

    /// The same for Graph.
    pub(super) fn graph_scope(&self) -> String {
        scope(self.graph(), GRAPH)
    }

    /// The blob endpoint of a storage account, as the policy has it: with the account's name in front of the host, or behind it as
    /// the first part of the path where the host is a number or this machine (as azurite has it). `None` where the policy says
    /// nothing of it.
    pub(in crate::issuer) fn blob_endpoint_if_named(&self, storage: &str) -> Option<String> {
        blob_endpoint(self.blob_url.as_deref()?, storage)
    }

    /// The same, or the public cloud's.
    pub(in crate::issuer) fn blob_endpoint(&self, storage: &str) -> String {
        self.blob_endpoint_if_named(storage).unwrap_or_else(|| {
            blob_endpoint(BLOB, storage).expect("the public cloud's address is one, and a name of letters fits into it")
        })
    }
}

/// The default scope of what is behind an address. On loopback it is a stand-in, which takes the public cloud's.
fn scope(url: &str, public: &str) -> String {
    let is_stand_in = Url::parse(url).is_ok_and(|url| is_loopback(&url));
    format!("{}/.default", if is_stand_in { public } else { url })
}

fn blob_endpoint(base: &str, storage: &str) -> Option<String> {
    let mut url = Url::parse(base).ok()?;
    let by_path = is_loopback(&url) || url.domain().is_none();
    if by_path {
        return Some(format!("{}/{storage}", base.trim_end_matches('/')));
    }
    let host = format!("{storage}.{}", url.host_str()?);
    url.set_host(Some(&host)).ok()?;
    Some(url.as_str().trim_end_matches('/').to_owned())
}

/// Whether a text can be a storage account's name (`^[a-z0-9]{3,24}$`). It becomes part of host names.
pub(in crate::issuer) fn is_storage_account(text: &str) -> bool {
    (3..=24).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table;

    fn parsed(text: &str) -> Result<Account, String> {
        let value = table::read(text, "policy.toml", read).map_err(|report| report.to_string())?;
        Ok(serde_json::from_value(value.expect("read")).expect("an account"))
    }

    const IDS: &str = "tenant_id = \"72f988bf-86f1\"\nclient_id = \"rotator\"\n";

    #[test]
    fn an_empty_account_is_the_public_cloud_as_the_machine() {
        let account = parsed("").expect("read");
        assert_eq!(account.login, Login::Ambient);
        assert_eq!(account.arm_scope(), "https://management.azure.com/.default");
        assert_eq!(account.graph_scope(), "https://graph.microsoft.com/.default");
        assert_eq!((account.authority(), account.authority_if_other()), ("https://login.microsoftonline.com", None));
        assert_eq!(
            (account.settle(SETTLE), account.reach.request_timeout()),
            (Duration::from_secs(600), Duration::from_secs(30))
        );
        assert_eq!(account.blob_endpoint("gisstore"), "https://gisstore.blob.core.windows.net");
        assert_eq!(account.blob_endpoint_if_named("gisstore"), None);
    }

    #[test]
    fn a_national_cloud_is_its_own_audience_and_a_stand_in_is_the_public_ones() {
        let account = parsed(
            "arm_url = \"https://management.usgovcloudapi.net/\"\ngraph_url = \"http://127.0.0.1:9\"\n\
             authority_url = \"https://login.microsoftonline.us\"\nblob_url = \"https://blob.core.usgovcloudapi.net\"",
        )
        .expect("read");
        assert_eq!(account.arm_scope(), "https://management.usgovcloudapi.net/.default");
        assert_eq!(account.graph_scope(), "https://graph.microsoft.com/.default");
        assert_eq!(account.authority_if_other(), Some("https://login.microsoftonline.us"));
        assert_eq!(account.blob_endpoint("gisstore"), "https://gisstore.blob.core.usgovcloudapi.net");
    }

    #[test]
    fn a_number_or_this_machine_has_the_account_in_its_path() {
        for base in ["http://127.0.0.1:10000", "http://localhost:10000", "https://10.0.0.7"] {
            assert_eq!(blob_endpoint(base, "gisstore"), Some(format!("{base}/gisstore")));
        }
    }

    #[test]
    fn each_way_to_log_in_is_read_and_two_are_one_too_many() {
        let login = |more: &str| parsed(&format!("{IDS}{more}")).map(|account| account.login);
        let secret = SecretRef::Credential("azure".to_owned());
        assert_eq!(login("client_secret = { credential = \"azure\" }"), Ok(Login::Secret(secret.clone())));
        assert_eq!(login("federated_token_file = \"/run/token\""), Ok(Login::Workload("/run/token".to_owned())));
        assert_eq!(
            login("client_cert = \"/etc/c.pem\"\nclient_key = { credential = \"azure\" }"),
            Ok(Login::Certificate { file: "/etc/c.pem".to_owned(), key: secret })
        );
        let two = login("client_secret = { credential = \"azure\" }\nfederated_token_file = \"/run/token\"");
        assert!(two.expect_err("two").contains("`federated_token_file` beside `client_secret`"));
        let half = login("client_cert = \"/etc/c.pem\"").expect_err("half");
        assert!(half.contains("client_key"), "{half}");
        let alone = parsed("client_secret = { credential = \"azure\" }\ntenant_id = \"t\"").expect_err("no client id");
        assert!(alone.contains("client_secret without client_id"), "{alone}");
        let odd = parsed("tenant_id = \"a/b\"").expect_err("no id");
        assert!(odd.contains("`a/b` is no tenant id"), "{odd}");
    }

    #[test]
    fn a_storage_accounts_name_cannot_end_a_host_name() {
        assert!(is_storage_account("gisstore01"));
        for wrong in ["", "ab", "GisStore", "gis-store", "gis.store", "a/b", &"a".repeat(25)] {
            assert!(!is_storage_account(wrong), "{wrong}");
        }
    }
}
