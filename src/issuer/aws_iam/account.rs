//! `[aws.NAME]`: an AWS account, or a store that speaks IAM, STS and S3 as AWS does.
//!
//! Reads the table and answers questions about it. Opens no file, reads no secret, sends nothing.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::super::s3::{is_region, is_scope};
use crate::model::{SecretRef, SystemSpec};
use crate::table::{Table, Zero};

/// Horizon of an unknown mint. A signed request is good for minutes after its signing (IAM refuses it later), listings lag by
/// seconds; ten minutes hold both and the request timeout.
const SETTLE: Duration = Duration::from_secs(10 * 60);
/// AWS reports a key's use with a delay it does not promise; four hours is what it says of similar reports (unverified for keys).
const LAST_USED_LAG: Duration = Duration::from_secs(4 * 60 * 60);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Where no region is set: IAM of the commercial partition is global and signs as this region.
const REGION: &str = "us-east-1";

/// One account, as the policy has it. All keys are optional; what is kept holds references to secrets only.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Account {
    /// The region whose STS is asked, and whose partition is meant (`us-gov-west-1`, `cn-north-1`).
    pub(super) region: Option<String>,
    endpoint_url: Option<String>,
    sts_endpoint_url: Option<String>,
    s3_endpoint_url: Option<String>,
    /// Whether there is an STS that tells whose a key is. AWS has one; a journal's policy of before this option meant one.
    #[serde(default = "yes")]
    pub(super) sts: bool,
    /// Whether IAM tells when a key was last used; as for `sts`.
    #[serde(default = "yes")]
    last_used: bool,
    /// The rotator's own key; `None` means the SDK's chain (environment, profile, web identity, container, instance).
    pub(super) login: Option<Login>,
    settle_ms: u64,
    last_used_lag_ms: u64,
    request_timeout_ms: u64,
    /// Comes before the daemon's.
    pub(super) proxy: Option<String>,
    /// Comes before the daemon's.
    pub(super) no_proxy: Option<Vec<String>>,
    /// A PEM file of authorities to be trusted besides the system's.
    pub(super) ca_file: Option<String>,
}

/// The rotator's own key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Login {
    /// Not secret.
    pub(super) access_key_id: String,
    /// Where its secret is.
    pub(super) secret_access_key: SecretRef,
}

/// Reads one `[aws.NAME]`; the kind's `read_system`.
pub(super) fn read(table: &mut Table<'_>) -> Option<serde_json::Value> {
    let is_store = table.has("endpoint_url");
    let region = table.text_or("region");
    match &region {
        Some(region) if is_store && !is_scope(region) => {
            let help = "write it as the store names it, without spaces and slashes: region = \"RegionOne\"";
            table.mistake("region", format!("`{region}` is no region"), help);
        }
        Some(region) if !is_store && !is_region(region) => {
            let help = "write it as AWS does: region = \"us-east-1\"";
            table.mistake("region", format!("`{region}` is no region"), help);
        }
        _ => {}
    }
    let endpoint_url = table.url("endpoint_url");
    let sts_endpoint_url = table.url("sts_endpoint_url");
    let s3_endpoint_url = table.url("s3_endpoint_url");
    let sts = read_ability(table, "sts", "AWS has one");
    if !sts && sts_endpoint_url.is_some() {
        table.mistake("sts_endpoint_url", "sts_endpoint_url beside sts = false", "take out the one that is not true");
    }
    let last_used = read_ability(table, "last_used", "AWS tells it");
    if !last_used && table.has("last_used_lag") {
        let help = "take it out: what is not told is not waited for";
        table.mistake("last_used_lag", "last_used_lag beside last_used = false", help);
    }
    let login = read_login(table);
    let settle = table.duration("settle", Zero::Refused).unwrap_or(SETTLE);
    let last_used_lag = table.duration("last_used_lag", Zero::Allowed).unwrap_or(LAST_USED_LAG);
    let request_timeout = table.duration("request_timeout", Zero::Refused).unwrap_or(REQUEST_TIMEOUT);
    let proxy = table.proxy("proxy");
    let no_proxy = table.texts("no_proxy");
    let ca_file = table.text_or("ca_file");
    let account = Account {
        region,
        endpoint_url,
        sts_endpoint_url,
        s3_endpoint_url,
        sts,
        last_used,
        login,
        settle_ms: milliseconds(settle),
        last_used_lag_ms: milliseconds(last_used_lag),
        request_timeout_ms: milliseconds(request_timeout),
        proxy,
        no_proxy,
        ca_file,
    };
    serde_json::to_value(account).ok()
}

/// What AWS can and a store of one's own may not.
fn read_ability(table: &mut Table<'_>, key: &'static str, at_aws: &str) -> bool {
    let able = table.flag(key, true);
    if !able && !table.has("endpoint_url") {
        let help = format!("{at_aws}: take it out, or name in endpoint_url the store that is meant");
        table.mistake(key, format!("{key} = false without endpoint_url"), help);
    }
    able
}

fn yes() -> bool {
    true
}

fn read_login(table: &mut Table<'_>) -> Option<Login> {
    let (has_id, has_secret) = (table.has("access_key_id"), table.has("secret_access_key"));
    let access_key_id = table.text_or("access_key_id");
    let secret_access_key = table.secret("secret_access_key");
    match (has_id, has_secret) {
        (true, false) => table.mistake(
            "access_key_id",
            "access_key_id without secret_access_key",
            "add secret_access_key = { credential = \"NAME\" }, or leave both out to use the SDK's own chain",
        ),
        (false, true) => table.mistake(
            "secret_access_key",
            "secret_access_key without access_key_id",
            "add access_key_id = \"AKIA…\", or leave both out to use the SDK's own chain",
        ),
        _ => {}
    }
    Some(Login { access_key_id: access_key_id?, secret_access_key: secret_access_key? })
}

impl Account {
    /// The account a spec was read from; `None` where there is none or where it is no account of ours.
    pub(super) fn of(system: Option<&SystemSpec>) -> Option<Self> {
        serde_json::from_value(system?.config.clone()).ok()
    }

    pub(super) fn settle(&self) -> Duration {
        Duration::from_millis(self.settle_ms)
    }

    /// How late the use of a key is reported; `None` where it never is.
    pub(super) fn last_used_lag(&self) -> Option<Duration> {
        self.last_used.then(|| Duration::from_millis(self.last_used_lag_ms))
    }

    /// Whether it is a store of one's own, of which nobody knows what it can.
    pub(super) fn is_store(&self) -> bool {
        self.endpoint_url.is_some()
    }

    /// How long one request may take, its answer's body included.
    pub(super) fn request_timeout(&self) -> Duration {
        Duration::from_millis(self.request_timeout_ms)
    }

    pub(super) fn region_or_default(&self) -> &str {
        self.region.as_deref().unwrap_or(REGION)
    }

    /// Where IAM is, if not where AWS has it.
    pub(super) fn iam_endpoint(&self) -> Option<&str> {
        self.endpoint_url.as_deref()
    }

    /// Where STS is, if not where AWS has it. A store that has its own IAM has its own STS, at the same address unless said
    /// otherwise: its keys mean nothing to AWS.
    pub(super) fn sts_endpoint(&self) -> Option<&str> {
        self.sts_endpoint_url.as_deref().or(self.iam_endpoint())
    }

    /// Where S3 is, if not where AWS has it; as for STS.
    pub(super) fn s3_endpoint(&self) -> Option<&str> {
        self.s3_endpoint_url.as_deref().or(self.iam_endpoint())
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table;

    fn parsed(text: &str) -> Result<serde_json::Value, String> {
        table::read(text, "policy.toml", read).map(|value| value.expect("read")).map_err(|report| report.to_string())
    }

    #[test]
    fn an_empty_account_is_aws_with_the_defaults() {
        let account: Account = serde_json::from_value(parsed("").expect("read")).expect("an account");
        assert_eq!(account.settle(), Duration::from_secs(600));
        assert_eq!((account.sts, account.last_used_lag()), (true, Some(Duration::from_secs(4 * 3600))));
        assert_eq!(account.request_timeout(), Duration::from_secs(30));
        assert_eq!((account.iam_endpoint(), account.sts_endpoint(), account.s3_endpoint()), (None, None, None));
        assert_eq!((account.region_or_default(), &account.login), ("us-east-1", &None));
    }

    #[test]
    fn a_store_has_its_sts_and_s3_where_its_iam_is_unless_it_says_otherwise() {
        let value = parsed("endpoint_url = \"https://iam.example.com\"\ns3_endpoint_url = \"https://s3.example.com/\"")
            .expect("read");
        let account: Account = serde_json::from_value(value).expect("an account");
        assert_eq!(account.sts_endpoint(), Some("https://iam.example.com"));
        assert_eq!(account.s3_endpoint(), Some("https://s3.example.com"));
    }

    #[test]
    fn a_store_says_what_it_cannot_and_calls_its_region_as_it_likes() {
        let text = "endpoint_url = \"https://iam.example.com\"\nregion = \"RegionOne\"\nsts = false\nlast_used = false";
        let account: Account = serde_json::from_value(parsed(text).expect("read")).expect("an account");
        assert_eq!((account.sts, account.last_used_lag(), account.region_or_default()), (false, None, "RegionOne"));
        let told = parsed("sts = false\nlast_used = false\nregion = \"RegionOne\"").expect_err("this is AWS");
        for mistake in [
            "1:7: sts = false without endpoint_url",
            "help: AWS has one: take it out, or name in endpoint_url the store that is meant",
            "2:13: last_used = false without endpoint_url",
            "3:10: `RegionOne` is no region",
        ] {
            assert!(told.contains(mistake), "{mistake} in {told}");
        }
        let told = parsed(&format!(
            "{text}\nsts_endpoint_url = \"https://sts.example.com\"\nlast_used_lag = \"1h\"\ns3_endpoint_url = \"https://s3.example.com\""
        ))
        .expect_err("both ways");
        for mistake in
            ["5:20: sts_endpoint_url beside sts = false", "6:17: last_used_lag beside last_used = false", "2 mistakes"]
        {
            assert!(told.contains(mistake), "{mistake} in {told}");
        }
    }

    /// As a journal or a test of an earlier day has it.
    #[test]
    fn what_says_nothing_of_abilities_has_them() {
        let config = serde_json::json!({ "settle_ms": 1, "last_used_lag_ms": 7, "request_timeout_ms": 1 });
        let account: Account = serde_json::from_value(config).expect("an account");
        assert_eq!((account.sts, account.last_used_lag()), (true, Some(Duration::from_millis(7))));
    }

    #[test]
    fn half_a_login_is_a_mistake_that_says_what_to_add() {
        assert_eq!(
            parsed("access_key_id = \"AKIAROTATOR\"").expect_err("half"),
            "policy.toml:1:17: access_key_id without secret_access_key\n 1 | access_key_id = \"AKIAROTATOR\"\n   |                 \
             ^^^^^^^^^^^^^\nhelp: add secret_access_key = { credential = \"NAME\" }, or leave both out to use the SDK's own chain\n\n\
             1 mistake in policy.toml\n"
        );
        let both = parsed("secret_access_key = { credential = \"aws\" }\nregion = \"US East\"").expect_err("half");
        assert!(
            both.contains("secret_access_key without access_key_id") && both.contains("`US East` is no region"),
            "{both}"
        );
    }
}
