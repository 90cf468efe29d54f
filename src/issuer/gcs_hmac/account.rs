//! `[gcp.NAME]`: who rekeyd is at Google Cloud, and where its doors are.
//!
//! Reads the table and answers questions about it. Opens no file, reads no secret, sends nothing.

use std::time::Duration;

use reqwest::Url;
use serde::{Deserialize, Serialize};

use crate::issuer::reach::Reach;
use crate::model::{SecretRef, SystemSpec};
use crate::net::client::is_loopback;
use crate::table::Table;

const STORAGE: &str = "https://storage.googleapis.com";
const RESOURCE_MANAGER: &str = "https://cloudresourcemanager.googleapis.com";

/// Horizon of an unknown mint. Google documents no time after which a request it took is surely over, and none by which a listing
/// lags; it works for seconds. Ten minutes hold that and the request timeout.
const SETTLE: Duration = Duration::from_secs(10 * 60);

/// One account, as the policy has it. All keys are optional; what is kept holds references to secrets only.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Account {
    /// A credentials file of Google's, whatever its `type`; `None` means Application Default Credentials (AIP-4110).
    pub(super) credentials_file: Option<SecretRef>,
    storage_url: Option<String>,
    /// Where tokens are asked for, whatever the credentials file says.
    pub(super) token_url: Option<String>,
    resource_manager_url: Option<String>,
    #[serde(flatten)]
    pub(super) reach: Reach,
}

/// Reads one `[gcp.NAME]`; the kind's `read_system`.
pub(super) fn read(table: &mut Table<'_>) -> Option<serde_json::Value> {
    let credentials_file = table.secret_file("credentials_file");
    let storage_url = table.url("storage_url");
    let token_url = table.url("token_url");
    let resource_manager_url = table.url("resource_manager_url");
    let reach = Reach::read(table, Some(SETTLE));
    let account = Account { credentials_file, storage_url, token_url, resource_manager_url, reach };
    serde_json::to_value(account).ok()
}

impl Account {
    /// The account a spec was read from; `None` where there is none or where it is no account of ours.
    pub(super) fn of(system: Option<&SystemSpec>) -> Option<Self> {
        serde_json::from_value(system?.config.clone()).ok()
    }

    /// Horizon of an unknown mint.
    pub(super) fn settle(&self) -> Duration {
        self.reach.settle(SETTLE)
    }

    /// Cloud Storage, its JSON API and its XML API, without a slash at its end.
    pub(super) fn storage(&self) -> &str {
        self.storage_url.as_deref().unwrap_or(STORAGE)
    }

    /// Cloud Resource Manager, without version or slash at its end.
    pub(super) fn resource_manager(&self) -> &str {
        self.resource_manager_url.as_deref().unwrap_or(RESOURCE_MANAGER)
    }

    /// Whether Cloud Storage is a stand-in on this machine, which keeps no clocks but its own.
    pub(super) fn is_stand_in(&self) -> bool {
        Url::parse(self.storage()).is_ok_and(|url| is_loopback(&url))
    }
}

/// "6 to 30 lowercase letters, digits, or hyphens. It must start with a letter. Trailing hyphens are prohibited" (Resource Manager,
/// "Resource: Project"); some old ones have a domain and a colon in front. A number is refused: keys are listed with their project's
/// id, against which this is held.
pub(super) fn is_project(text: &str) -> bool {
    let (domain, id) = text.split_once(':').unwrap_or(("", text));
    let lower = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let id_fits = (6..=30).contains(&id.len())
        && id.bytes().all(lower)
        && id.as_bytes()[0].is_ascii_lowercase()
        && !id.ends_with('-');
    id_fits && domain.len() <= 253 && domain.bytes().all(|b| lower(b) || b == b'.')
}

/// It becomes part of addresses and of the issuer's name.
pub(super) fn is_service_account(text: &str) -> bool {
    let letter = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    let parts = text.split_once('@');
    let fits = |part: &str| !part.is_empty() && part.bytes().all(letter);
    text.len() <= 254 && parts.is_some_and(|(name, domain)| fits(name) && fits(domain) && domain.contains('.'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table;

    fn parsed(text: &str) -> Result<Account, String> {
        let value = table::read(text, "policy.toml", read).map_err(|report| report.to_string())?;
        Ok(serde_json::from_value(value.expect("read")).expect("an account"))
    }

    #[test]
    fn an_empty_account_is_google_itself_as_whoever_the_machine_is() {
        let account = parsed("").expect("read");
        assert_eq!(account.credentials_file, None);
        assert_eq!(account.storage(), "https://storage.googleapis.com");
        assert_eq!(account.resource_manager(), "https://cloudresourcemanager.googleapis.com");
        assert_eq!(
            (account.settle(), account.reach.request_timeout()),
            (Duration::from_secs(600), Duration::from_secs(30))
        );
        assert!(!account.is_stand_in());
        assert!(parsed("storage_url = \"http://127.0.0.1:9\"").expect("read").is_stand_in());
    }

    #[test]
    fn a_credentials_file_is_a_path_or_a_reference() {
        let file = |text: &str| parsed(text).map(|account| account.credentials_file);
        assert_eq!(file("credentials_file = \"/etc/x.json\""), Ok(Some(SecretRef::File("/etc/x.json".to_owned()))));
        assert_eq!(
            file("credentials_file = { credential = \"gcp\" }"),
            Ok(Some(SecretRef::Credential("gcp".to_owned())))
        );
        // Somebody may have put the file itself there.
        let whole = file("credentials_file = '{\"type\": \"service_account\", \"private_key\": \"hush\"}'")
            .expect_err("no path");
        assert!(whole.contains("is no path of a file") && !whole.contains("hush"), "{whole}");
    }
}
