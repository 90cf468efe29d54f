//! A real moto server, where `REKEYD_MOTO` names one that `tests/moto_strict.py --propagate 2` started. It is emptied and set up
//! once for all tests of this process, through plain requests while it asks for no authentication; then it does, for good. Each
//! test has users and buckets of its own there.

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use rekeyd::issuer::aws_iam::KIND;
use rekeyd::model::{SystemRef, SystemSpec};
use rekeyd::net::{Context, Shared};
use rekeyd::ports::{Forgetful, Issuer};
use rekeyd::table;
use tokio::sync::OnceCell;

/// A key: its id and its secret.
pub type Pair = (String, String);

/// The server, as every test finds it.
pub struct Moto {
    /// Its URL: IAM, STS and S3 in one.
    pub endpoint: String,
    /// A key that may do `iam:*`.
    pub rotator: Pair,
    /// A key that may not.
    pub weak: Pair,
    /// The first key of each of [`ROTATED`].
    pub rotated: Vec<Pair>,
}

/// Users whose keys are rotated; each reads the bucket of its own name.
pub const ROTATED: [&str; 2] = ["moto-both", "moto-server"];

/// As long as `tests/moto_strict.py --propagate 2` takes to know a key, and a little more.
pub const PROPAGATION: Duration = Duration::from_millis(2300);

/// The server, set up; `None`, and a word about it, where there is none.
pub async fn moto() -> Option<&'static Moto> {
    static MOTO: OnceCell<Moto> = OnceCell::const_new();
    let Ok(endpoint) = std::env::var("REKEYD_MOTO") else {
        println!("skipped: needs moto, run tests/run");
        return None;
    };
    Some(MOTO.get_or_init(|| prepare(endpoint)).await)
}

async fn prepare(endpoint: String) -> Moto {
    let http = reqwest::Client::builder().no_proxy().build().expect("a client");
    let post = async |path: &str, body: &'static str| {
        let answer = http.post(format!("{endpoint}{path}")).body(body).send().await.expect("moto answers");
        assert!(answer.status().is_success(), "{path}: {}", answer.status());
    };
    let iam = async |form: &[(&str, &str)]| {
        let scope = "AWS4-HMAC-SHA256 Credential=AKIANOBODY/20261121/us-east-1/iam/aws4_request, SignedHeaders=host, Signature=0";
        let request = http.post(format!("{endpoint}/")).header("authorization", scope).form(form);
        let answer = request.send().await.expect("moto answers");
        let (status, text) = (answer.status(), answer.text().await.expect("a text"));
        assert!(status.is_success(), "{form:?}: {text}");
        text
    };
    post("/moto-api/reset", "").await;
    post("/moto-api/reset-auth", "inf").await;
    let users = [("rotator", "iam:*"), ("store", "s3:*"), ("idle", ""), ("weak", "s3:*")];
    for (user, action) in users.into_iter().chain(ROTATED.map(|user| (user, "s3:*"))) {
        iam(&[("Action", "CreateUser"), ("UserName", user)]).await;
        if !action.is_empty() {
            let policy = format!(
                r#"{{"Version":"2012-10-17","Statement":[{{"Effect":"Allow","Action":"{action}","Resource":"*"}}]}}"#
            );
            let put =
                [("Action", "PutUserPolicy"), ("UserName", user), ("PolicyName", "may"), ("PolicyDocument", &policy)];
            iam(&put).await;
        }
    }
    for bucket in ["gis-store"].into_iter().chain(ROTATED) {
        let made = http.put(format!("{endpoint}/{bucket}")).send().await.expect("moto answers");
        assert!(made.status().is_success(), "{}", made.status());
    }
    let key = async |user: &str| {
        let answer = iam(&[("Action", "CreateAccessKey"), ("UserName", user)]).await;
        (element(&answer, "AccessKeyId"), element(&answer, "SecretAccessKey"))
    };
    let (rotator, weak, _) = (key("rotator").await, key("weak").await, key("store").await);
    let mut rotated = Vec::new();
    for user in ROTATED {
        rotated.push(key(user).await);
    }
    post("/moto-api/reset-auth", "0").await;
    tokio::time::sleep(PROPAGATION).await;
    Moto { endpoint, rotator, weak, rotated }
}

fn element(xml: &str, name: &str) -> String {
    let rest = xml.split_once(&format!("<{name}>")).map(|(_, rest)| rest);
    let text = rest.and_then(|rest| rest.split_once("</")).map(|(text, _)| text);
    text.unwrap_or_else(|| panic!("no {name} in {xml}")).to_owned()
}

/// Reads both tables as a policy has them, and connects to an issuer. `account` is more of the account's table.
pub fn connect_at(
    endpoint: &str,
    account: &str,
    user: &str,
    rotator: Pair,
    bucket: &str,
    expect: &str,
) -> Arc<dyn Issuer> {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(rotator.1.as_bytes()).expect("written");
    let account = format!(
        "endpoint_url = \"{endpoint}\"\nregion = \"us-east-1\"\naccess_key_id = \"{}\"\n\
         secret_access_key = {{ file = \"{}\" }}\n{account}\n",
        rotator.0,
        file.path().display()
    );
    let config = table::read(&account, "account", KIND.read_system).expect("no mistake").expect("an account");
    let system = SystemSpec { at: SystemRef { table: "aws".into(), name: "main".into() }, config };
    let issuer = format!(
        "user = \"{user}\"\nprobe = {{ bucket = \"{bucket}\", region = \"us-east-1\", expect = \"{expect}\" }}"
    );
    let spec =
        table::read(&issuer, "issuer", |table| (KIND.read)(table, Some(&system))).expect("no mistake").expect("a spec");
    let context = Context { proxy: None, no_proxy: Vec::new(), guard: Arc::new(Forgetful), shared: Shared::default() };
    (KIND.connect)(&spec, Some(&system), &context).expect("connects")
}
