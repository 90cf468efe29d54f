//! `[f5xc.NAME]`: a tenant of F5 Distributed Cloud, and who rekeyd is in it.
//!
//! Reads the table and answers questions about it. Opens no file, reads no secret, sends nothing.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::issuer::reach::Reach;
use crate::model::{SecretRef, SystemSpec};
use crate::table::Table;

/// Horizon of an unknown mint. F5 documents no time after which a request it took is surely over, nor how far a listing lags; ten
/// minutes hold the request timeout many times.
const SETTLE: Duration = Duration::from_secs(10 * 60);

/// One tenant, as the policy has it; references to secrets only.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Account {
    /// `https://TENANT.console.ves.volterra.io`, without a slash at its end.
    pub(super) console_url: String,
    pub(super) login: Login,
    #[serde(flatten)]
    pub(super) reach: Reach,
}

/// How rekeyd proves who it is (docs.cloud.f5.com, "F5 Distributed Cloud Services APIs": a token or a certificate).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Login {
    /// With an API token, read again for every request: it may be one that a service of this policy rotates.
    Token(SecretRef),
    /// With an API certificate, in the TLS handshake.
    Certificate {
        /// PEM, ours first.
        file: String,
        /// Its private key.
        key: SecretRef,
    },
}

/// Reads one `[f5xc.NAME]`; the kind's `read_system`.
pub(super) fn read(table: &mut Table<'_>) -> Option<serde_json::Value> {
    let console_url = table.require("console_url", "console_url = \"https://TENANT.console.ves.volterra.io\"");
    let console_url = if console_url { table.url("console_url") } else { None };
    if let Some(url) = &console_url
        && url.splitn(4, '/').nth(3).is_some_and(|path| !path.is_empty())
    {
        let help = "write it without a path: console_url = \"https://TENANT.console.ves.volterra.io\"";
        table.mistake("console_url", "goes on behind the host, and every request has a path of its own", help);
    }
    let login = read_login(table);
    let reach = Reach::read(table, Some(SETTLE));
    let account = Account { console_url: console_url?, login: login?, reach };
    serde_json::to_value(account).ok()
}

fn read_login(table: &mut Table<'_>) -> Option<Login> {
    // All are read whichever is used, or the others would be unknown keys.
    let token = table.secret("api_token");
    let (file, key) = (table.text_or("client_cert"), table.secret("client_key"));
    match (table.has("api_token"), table.has("client_cert"), table.has("client_key")) {
        (true, false, false) => token.map(Login::Token),
        (false, true, true) => Some(Login::Certificate { file: file?, key: key? }),
        (true, true, _) | (true, _, true) => {
            let second = if table.has("client_cert") { "client_cert" } else { "client_key" };
            let help = "one way to log in is enough: keep the token or the certificate";
            table.mistake(second, format!("`{second}` beside `api_token`"), help);
            None
        }
        (false, true, false) => {
            let help = "add client_key = { credential = \"f5xc-main-key\" }, its private key in PEM";
            table.mistake("client_cert", "client_cert without client_key", help);
            None
        }
        (false, false, true) => {
            let help = "add client_cert = \"/PATH\", its certificate in PEM";
            table.mistake("client_key", "client_key without client_cert", help);
            None
        }
        (false, false, false) => {
            table.require("api_token", "api_token = { credential = \"f5xc-main\" }");
            None
        }
    }
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

    /// The tenant's host, with its port where it is not the scheme's own: what two tables of one tenant have in common.
    pub(super) fn host(&self) -> &str {
        self.console_url.split_once("://").map_or(self.console_url.as_str(), |(_, rest)| rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table;

    const CONSOLE: &str = "console_url = \"https://acme.console.ves.volterra.io/\"\n";

    fn parsed(text: &str) -> Result<Account, String> {
        let value = table::read(text, "policy.toml", read).map_err(|report| report.to_string())?;
        Ok(serde_json::from_value(value.expect("read")).expect("an account"))
    }

    #[test]
    fn a_tenant_is_read_with_either_login() {
        let account = parsed(&format!("{CONSOLE}api_token = {{ file = \"/run/f5\" }}")).expect("read");
        assert_eq!(
            (account.console_url.as_str(), account.host()),
            ("https://acme.console.ves.volterra.io", "acme.console.ves.volterra.io")
        );
        assert_eq!(account.login, Login::Token(SecretRef::File("/run/f5".to_owned())));
        assert_eq!((account.settle(), account.reach.request_timeout()), (SETTLE, Duration::from_secs(30)));
        let pair = "client_cert = \"/etc/f5.pem\"\nclient_key = { credential = \"f5\" }";
        let account = parsed(&format!("{CONSOLE}{pair}")).expect("read");
        let key = SecretRef::Credential("f5".to_owned());
        assert_eq!(account.login, Login::Certificate { file: "/etc/f5.pem".to_owned(), key });
    }

    #[test]
    fn no_login_half_a_login_and_two_logins_say_what_to_write() {
        for (text, what) in [
            ("", "`api_token` is missing"),
            ("client_cert = \"/etc/f5.pem\"", "client_cert without client_key"),
            ("client_key = { env = \"K\" }", "client_key without client_cert"),
            ("client_cert = \"/c\"\napi_token = { env = \"T\" }", "`client_cert` beside `api_token`"),
        ] {
            let said = parsed(&format!("{CONSOLE}{text}")).expect_err("a mistake");
            assert!(said.contains(what) && said.contains("help: "), "{what} is not in:\n{said}");
        }
        let path = parsed("console_url = \"https://acme.console.ves.volterra.io/api\"\napi_token = { env = \"T\" }");
        assert!(path.expect_err("a path").contains("goes on behind the host"));
        let missing = parsed("api_token = { env = \"T\" }").expect_err("no console");
        assert!(missing.contains("`console_url` is missing"), "{missing}");
    }
}
