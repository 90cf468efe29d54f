//! `[gcp.NAME]`: who rekeyd is at Google Cloud, and where its doors are.
//!
//! Reads the table and answers questions about it. Opens no file, reads no secret, sends nothing.

use std::time::Duration;

use reqwest::Url;
use serde::{Deserialize, Serialize};

use crate::model::{SecretRef, SystemSpec};
use crate::net::client::is_loopback;
use crate::table::{Table, Zero};

const STORAGE: &str = "https://storage.googleapis.com";
const RESOURCE_MANAGER: &str = "https://cloudresourcemanager.googleapis.com";

/// Horizon of an unknown mint. Google documents no time after which a request it took is surely over, and none by which a listing
/// lags; it works for seconds. Ten minutes hold that and the request timeout.
const SETTLE: Duration = Duration::from_secs(10 * 60);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// One account, as the policy has it. All keys are optional; what is kept holds references to secrets only.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Account {
    /// A credentials file of Google's, whatever its `type`; `None` means Application Default Credentials (AIP-4110).
    pub(super) credentials_file: Option<SecretRef>,
    storage_url: Option<String>,
    /// Where tokens are asked for, whatever the credentials file says.
    pub(super) token_url: Option<String>,
    resource_manager_url: Option<String>,
    settle_ms: u64,
    request_timeout_ms: u64,
    /// Comes before the daemon's.
    pub(super) proxy: Option<String>,
    /// Comes before the daemon's.
    pub(super) no_proxy: Option<Vec<String>>,
    /// A PEM file of authorities, which alone are trusted then.
    pub(super) ca_file: Option<String>,
}

/// Reads one `[gcp.NAME]`; the kind's `read_system`.
pub(super) fn read(table: &mut Table<'_>) -> Option<serde_json::Value> {
    let credentials_file = table.secret_file("credentials_file");
    let storage_url = table.url("storage_url");
    let token_url = table.url("token_url");
    let resource_manager_url = table.url("resource_manager_url");
    let settle = table.duration("settle", Zero::Refused).unwrap_or(SETTLE);
    let request_timeout = table.duration("request_timeout", Zero::Refused).unwrap_or(REQUEST_TIMEOUT);
    if settle < request_timeout {
        let what = "`settle` is shorter than `request_timeout`: a mint whose answer was lost would be called settled while it is still \
                    under way";
        table.warn("settle", what);
    }
    let proxy = table.proxy("proxy");
    let no_proxy = table.texts("no_proxy");
    let ca_file = table.text_or("ca_file");
    let account = Account {
        credentials_file,
        storage_url,
        token_url,
        resource_manager_url,
        settle_ms: milliseconds(settle),
        request_timeout_ms: milliseconds(request_timeout),
        proxy,
        no_proxy,
        ca_file,
    };
    serde_json::to_value(account).ok()
}

impl Account {
    /// The account a spec was read from; `None` where there is none or where it is no account of ours.
    pub(super) fn of(system: Option<&SystemSpec>) -> Option<Self> {
        serde_json::from_value(system?.config.clone()).ok()
    }

    /// Horizon of an unknown mint.
    pub(super) fn settle(&self) -> Duration {
        Duration::from_millis(self.settle_ms)
    }

    /// How long one request may take, its answer's body included; and one login.
    pub(super) fn request_timeout(&self) -> Duration {
        Duration::from_millis(self.request_timeout_ms)
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

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
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
        assert_eq!((account.settle(), account.request_timeout()), (Duration::from_secs(600), Duration::from_secs(30)));
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
