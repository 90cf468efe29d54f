//! `[ibm_cos.NAME]`: an IBM Cloud Object Storage system in container mode, by one of its accessers, and rekeyd's own account there.
//!
//! Reads the table and answers questions about it. Opens no file, reads no secret, sends nothing.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::issuer::reach::Reach;
use crate::model::{SecretRef, SystemSpec};
use crate::table::Table;

/// Horizon of an unknown mint. IBM documents neither how long a request may be under way in there nor when a listing shows a new key;
/// ten minutes hold both, if the system is well, and the request timeout.
const SETTLE: Duration = Duration::from_secs(10 * 60);

/// One system, as the policy has it. What is kept holds references to secrets only.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Account {
    /// Where the Service API answers, without a slash at its end: `https://accesser.example.com:8338`.
    pub(super) accesser_url: String,
    /// An account of the Manager's with the role Service Account.
    pub(super) username: String,
    pub(super) password: SecretRef,
    #[serde(flatten)]
    pub(super) reach: Reach,
}

/// Reads one `[ibm_cos.NAME]`; the kind's `read_system`.
pub(super) fn read(table: &mut Table<'_>) -> Option<serde_json::Value> {
    let accesser_url = match table.require("accesser_url", "accesser_url = \"https://accesser.example.com:8338\"") {
        true => table.url("accesser_url"),
        false => None,
    };
    let username = table.text("username");
    if username.as_ref().is_some_and(|username| username.contains(':')) {
        table.mistake(
            "username",
            "a user's name with a `:`, which HTTP's Basic login cannot carry",
            "use an account whose name has none",
        );
    }
    let password = match table.require("password", "password = { credential = \"ibm-cos-main\" }") {
        true => table.secret("password"),
        false => None,
    };
    let reach = Reach::read(table, Some(SETTLE));
    let account = Account { accesser_url: accesser_url?, username: username?, password: password?, reach };
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
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table;

    fn parsed(text: &str) -> Result<Account, String> {
        let value = table::read(text, "policy.toml", read).map_err(|report| report.to_string())?;
        Ok(serde_json::from_value(value.expect("read")).expect("an account"))
    }

    const LOGIN: &str = "username = \"rotator\"\npassword = { credential = \"cos\" }\n";

    #[test]
    fn a_system_has_an_address_a_login_and_defaults() {
        let account = parsed(&format!("accesser_url = \"https://cos.example.com:8338/\"\n{LOGIN}")).expect("read");
        assert_eq!(
            (account.accesser_url.as_str(), account.username.as_str()),
            ("https://cos.example.com:8338", "rotator")
        );
        assert_eq!(
            (account.settle(), account.reach.request_timeout()),
            (Duration::from_secs(600), Duration::from_secs(30))
        );
    }

    #[test]
    fn what_is_missing_is_said_with_what_to_add() {
        let nothing = parsed("").expect_err("nothing is there");
        for lacking in ["`accesser_url` is missing", "`username` is missing", "`password` is missing"] {
            assert!(nothing.contains(lacking), "{nothing}");
        }
        assert!(nothing.contains("add `accesser_url = \"https://accesser.example.com:8338\"`"), "{nothing}");
        // IBM's own examples use port 8337, which is plain HTTP: the password of every request would be seen on the way.
        let plain = parsed(&format!("accesser_url = \"http://cos.example.com:8337\"\n{LOGIN}")).expect_err("plain");
        assert!(plain.contains("would send secrets to cos.example.com without TLS"), "{plain}");
        let odd = parsed("accesser_url = \"https://c:8338\"\nusername = \"a:b\"\npassword = { env = \"P\" }");
        assert!(odd.expect_err("odd").contains("a user's name with a `:`"));
        let literal =
            parsed("accesser_url = \"https://c:8338\"\nusername = \"a\"\npassword = \"hush\"").expect_err("literal");
        assert!(literal.contains("literal secret") && !literal.contains("hush"), "{literal}");
    }
}
