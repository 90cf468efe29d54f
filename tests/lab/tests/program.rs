//! The program starts, tells where everything is and no secret, obeys the control endpoint, and ends when told to.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};

struct Program {
    child: Child,
    stdout: BufReader<ChildStdout>,
    said: String,
    dir: PathBuf,
}

impl Program {
    async fn start(words: &[&str]) -> Self {
        let dir = std::env::temp_dir().join(format!("rekeyd-lab-{}", uuid::Uuid::new_v4()));
        let mut child = Command::new(env!("CARGO_BIN_EXE_rekeyd-lab"))
            .args(words)
            .arg("--dir")
            .arg(&dir)
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the program starts");
        let mut stdout = BufReader::new(child.stdout.take().expect("stdout is a pipe"));
        let mut said = String::new();
        while !said.ends_with("ready\n") {
            assert_ne!(stdout.read_line(&mut said).await.expect("it speaks text"), 0, "it ended: {said}");
        }
        Self { child, stdout, said, dir }
    }

    fn control(&self) -> String {
        let line =
            self.said.lines().find_map(|line| line.strip_prefix("control")).expect("it names its control endpoint");
        line.trim().trim_end_matches("/lab/state").to_owned()
    }

    /// The address after a word that it says.
    fn url(&self, word: &str) -> String {
        let said = self.said.split(word).nth(1).unwrap_or_else(|| panic!("it says {word}: {}", self.said));
        said.split_whitespace().next().expect("an address follows").to_owned()
    }

    fn secret(&self, name: &str) -> String {
        std::fs::read_to_string(self.dir.join(name)).expect("the file is there").trim().to_owned()
    }

    async fn end(mut self) -> (PathBuf, String) {
        let id = self.child.id().expect("it runs").to_string();
        Command::new("kill").args(["-TERM", &id]).status().await.expect("kill runs");
        assert!(self.child.wait().await.expect("it ends").success());
        self.stdout.read_to_string(&mut self.said).await.expect("it speaks text");
        (self.dir.clone(), self.said)
    }
}

#[tokio::test]
async fn it_keeps_its_secrets_in_files_and_takes_orders() {
    let program = Program::start(&["--tls"]).await;
    let (control, http) = (program.control(), reqwest::Client::builder().no_proxy().build().expect("a plain client"));
    let order = |body: Value| http.post(format!("{control}/lab/fault")).json(&body).send();
    let late = json!({"system": "aws", "operation": "CreateAccessKey", "fault": "late", "ms": 5});
    assert_eq!(order(late).await.expect("it answers").status(), 200);
    let script = json!({"system": "server", "operation": "job-script", "fault": "vanish"});
    assert_eq!(order(script).await.expect("it answers").status(), 200);
    let nothing = json!({"system": "aws", "operation": "CreateAccessKey", "fault": "error"});
    let refused = order(nothing).await.expect("it answers");
    assert_eq!(refused.status(), 400);
    let why = refused.json::<Value>().await.expect("JSON");
    assert_eq!(why, json!({"error": "this fault needs a status from 400 to 599"}));
    let state = http.get(format!("{control}/lab/state")).send().await.expect("it answers").text().await.expect("text");
    assert!(state.contains("eg7hrelq6b"));

    let (dir, said) = program.end().await;
    let mut files = 0;
    for file in std::fs::read_dir(&dir).expect("the directory is there") {
        let path = file.expect("it can be read").path();
        let name = path.file_name().and_then(|name| name.to_str()).expect("plain names").to_owned();
        assert_eq!(path.metadata().expect("it is there").permissions().mode() & 0o777, 0o600, "{name}");
        let text = std::fs::read_to_string(&path).expect("it is text");
        if name.contains("secret") || name.contains("password") {
            assert!(!said.contains(text.trim()) && !state.contains(text.trim()), "{name}");
        }
        files += 1;
    }
    assert_eq!(files, 9);
    std::fs::remove_dir_all(dir).expect("it is ours");
}

/// What somebody writes who never saw this lab, and reads Esri's pages.
struct Stranger {
    http: reqwest::Client,
    admin: String,
    token: String,
}

impl Stranger {
    async fn log_in(program: &Program, product: &str, http: reqwest::Client) -> Self {
        let (admin, login) = (program.url(product), program.url("logs in at "));
        let password = program.secret("password");
        let form = [
            ("username", "rotator"),
            ("password", &password),
            ("client", "referer"),
            ("referer", &admin),
            ("f", "json"),
        ];
        let granted =
            http.post(login).form(&form).send().await.expect("it answers").json::<Value>().await.expect("JSON");
        let token = granted["token"].as_str().unwrap_or_else(|| panic!("no token: {granted}")).to_owned();
        Self { http, admin, token }
    }

    async fn get(&self, path: &str) -> Value {
        let request = self.http.get(format!("{}{path}", self.admin)).header("referer", &self.admin);
        let request = request.header("x-esri-authorization", format!("Bearer {}", self.token));
        request.send().await.expect("it answers").json().await.expect("JSON")
    }

    async fn post(&self, path: &str, fields: &[(&str, &str)]) -> Value {
        let form = [fields, &[("f", "json"), ("token", &self.token)]].concat();
        let request = self.http.post(format!("{}{path}", self.admin)).header("referer", &self.admin).form(&form);
        request.send().await.expect("it answers").json().await.expect("JSON")
    }
}

fn plain() -> reqwest::Client {
    reqwest::Client::builder().no_proxy().build().expect("a plain client")
}

async fn remove(program: Program) -> String {
    let (dir, said) = program.end().await;
    std::fs::remove_dir_all(dir).expect("it is ours");
    said
}

/// The ids of `cloud/services` that hold a key of their own, and of those that hold none.
fn holders(services: &Value) -> (Vec<&str>, Vec<&str>) {
    let list = services["cloudServices"].as_array().unwrap_or_else(|| panic!("no services: {services}"));
    let ids = |own: bool| {
        let those = list.iter().filter(|service| service["connection"]["credential"].is_object() == own);
        those.map(|service| service["id"].as_str().expect("it has an id")).collect()
    };
    (ids(true), ids(false))
}

#[tokio::test]
async fn a_stranger_meets_the_server_that_was_asked_for() {
    let words = ["arcgis", "--product", "server", "--version", "12.0", "--job-ms", "50", "--job-path", "classic"];
    let program = Program::start(&words).await;
    let stranger = Stranger::log_in(&program, "server ", plain()).await;
    assert_eq!(stranger.get("?f=json").await["fullVersion"], "12.0.0");
    let services = stranger.get("/cloud/services?maskedSecret=true&f=json").await;
    assert_eq!(holders(&services), (vec!["uqsip6c2vm"], vec!["wpjkp9s7ub"]));
    let shown = services["cloudServices"][1]["connection"]["credential"]["secret"]["secretKey"].as_str();
    assert!(shown.is_some_and(|shown| shown.starts_with("v2Crypt_xxxxxxxxxxxxxxxx")), "{services}");

    let credential =
        json!({"type": "ACCESS-KEY", "secret": {"access_key": "AKIASTRANGER", "secret_key": "of-a-stranger+/="}});
    let path = "/cloud/services/uqsip6c2vm/credential/update";
    let accepted = stranger.post(path, &[("credential", &credential.to_string())]).await;
    let job =
        accepted["cloudCredentialRotationJobId"].as_str().unwrap_or_else(|| panic!("no job: {accepted}")).to_owned();
    let short = stranger.get(&format!("/jobs/{job}?f=json")).await;
    assert_eq!(short["code"], 404, "by --job-path classic: {short}");
    let mut status = String::new();
    while status != "COMPLETED" {
        let shown = stranger.get(&format!("/system/jobs/{job}?f=json")).await;
        status = shown["status"].as_str().unwrap_or_else(|| panic!("no status: {shown}")).to_owned();
    }
    let state = stranger.http.get(format!("{}/lab/state", program.control())).send().await.expect("it answers");
    let state: Value = state.json().await.expect("JSON");
    let held =
        state["arcgis"][0]["places"].as_array().expect("a list").iter().find(|place| place["id"] == "uqsip6c2vm");
    assert_eq!(held.expect("it is told")["held_key"], "AKIASTRANGER");
    let said = remove(program).await;
    assert!(!said.contains("of-a-stranger"), "{said}");
}

#[tokio::test]
async fn a_stranger_meets_the_kubernetes_that_was_asked_for() {
    let words = [
        "arcgis",
        "--product",
        "kubernetes",
        "--version",
        "11.2",
        "--context",
        "gis/main",
        "--tls",
        "--demand-certificate",
        "--provider",
        "p1:AWS",
        "--service",
        "s1:p1:one:kept",
        "--service",
        "s2:p1:two",
        "--data-item",
        "tiles:one/a:kept",
    ];
    let program = Program::start(&words).await;
    let ca = reqwest::Certificate::from_pem(program.secret("ca.pem").as_bytes()).expect("a certificate");
    let identity = [program.secret("client.pem"), program.secret("client-key.pem")].join("\n");
    let identity = reqwest::Identity::from_pem(identity.as_bytes()).expect("a certificate and its key");
    let http = reqwest::Client::builder().no_proxy().tls_certs_only([ca.clone()]);
    let without = http.build().expect("a client").get(format!("{}?f=json", program.url("kubernetes "))).send().await;
    assert!(without.is_err(), "by --demand-certificate");
    let http = reqwest::Client::builder().no_proxy().tls_certs_only([ca]).identity(identity).build().expect("a client");
    let stranger = Stranger::log_in(&program, "kubernetes ", http).await;
    assert!(
        stranger.admin.ends_with("/gis/main/admin") && stranger.admin.starts_with("https://"),
        "{}",
        stranger.admin
    );
    assert_eq!(stranger.get("?f=json").await["fullVersion"], "11.2.0");
    let services = stranger.get("/cloud/services?f=json").await;
    assert_eq!(holders(&services), (vec!["s1"], vec!["s2"]));
    assert_eq!(stranger.get("/data/items/cloudStores/tiles?f=json").await["info"]["objectStore"], "one/a");
    let update = stranger.post("/cloud/services/s1/credential/update", &[("credential", "{}")]).await;
    assert_eq!(update["error"]["code"], 404, "that operation came with 12.0: {update}");

    let turn = json!({"system": "kubernetes", "read_only": true, "version": "11.5"});
    let turned = plain().post(format!("{}/lab/site", program.control())).json(&turn).send().await.expect("it answers");
    assert_eq!(turned.status(), 200);
    assert_eq!(stranger.get("/mode?f=json").await["isReadOnly"], true);
    assert_eq!(stranger.get("?f=json").await["fullVersion"], "11.5.0");
    remove(program).await;
}

/// Who reads Microsoft's pages.
struct Visitor<'a> {
    program: &'a Program,
    http: reqwest::Client,
}

impl Visitor<'_> {
    async fn token(&self, client_id: &str, secret: &str, resource: &str) -> Option<String> {
        let tenant = self.program.url("tenant ").trim_end_matches(')').to_owned();
        let scope = format!("{resource}/.default");
        let form = [
            ("grant_type", "client_credentials"),
            ("client_id", client_id),
            ("client_secret", secret),
            ("scope", &scope),
        ];
        let request = self.http.post(format!("{}/{tenant}/oauth2/v2.0/token", self.program.url("entra "))).form(&form);
        let answer: Value = request.send().await.expect("it answers").json().await.expect("JSON");
        answer["access_token"].as_str().map(str::to_owned)
    }

    async fn admin_token(&self, resource: &str) -> String {
        let (id, secret) = (self.program.secret("azure-client-id"), self.program.secret("azure-client-secret"));
        self.token(&id, &secret, resource).await.expect("a token")
    }

    async fn keys(&self, account: &str) -> Value {
        let token = self.admin_token("https://management.azure.com").await;
        let url = format!("{}{account}/listKeys?api-version=2024-01-01", self.program.url("arm "));
        let request = self.http.post(url).bearer_auth(token).header("content-length", 0);
        let answer = request.send().await.expect("it answers");
        answer.json::<Value>().await.expect("JSON")["keys"].clone()
    }

    async fn read(&self, token: &str) -> (u16, String) {
        let url = format!("{}/gisstore/tiles?restype=container&comp=list", self.program.url("blob "));
        let request = self.http.get(url).bearer_auth(token).header("x-ms-version", "2025-01-05");
        let answer = request.send().await.expect("it answers");
        (answer.status().as_u16(), answer.text().await.expect("text"))
    }

    async fn order(&self, body: Value) -> (u16, Value) {
        let answer = plain().post(format!("{}/lab/azure", self.program.control())).json(&body).send().await;
        let answer = answer.expect("it answers");
        (answer.status().as_u16(), answer.json().await.expect("JSON"))
    }

    async fn state(&self) -> Value {
        let answer = plain().get(format!("{}/lab/state", self.program.control())).send().await.expect("it answers");
        answer.json().await.expect("JSON")
    }
}

#[tokio::test]
async fn a_visitor_meets_an_azure_that_obeys() {
    let program = Program::start(&["azure", "--tls"]).await;
    let ca = reqwest::Certificate::from_pem(program.secret("azure-ca.pem").as_bytes()).expect("a certificate");
    let http = reqwest::Client::builder().no_proxy().tls_certs_only([ca]).build().expect("a client");
    let visitor = Visitor { program: &program, http };
    let account = program.url("account gisstore, container tiles: ");
    let before = visitor.keys(&account).await;
    assert_eq!((&before[0]["keyName"], before.as_array().map(Vec::len)), (&json!("key1"), Some(2)));
    let done = visitor.order(json!({"account": "gisstore", "regenerate": "key2"})).await;
    assert_eq!(done, (200, json!({"status": "done"})));
    let after = visitor.keys(&account).await;
    assert!(before[0]["value"] == after[0]["value"] && before[1]["value"] != after[1]["value"]);

    let client_id = program.url("application arcgis, client id ").trim_end_matches(',').to_owned();
    let storage = "https://storage.azure.com";
    let first = program.secret("arcgis-client-secret");
    let token = visitor.token(&client_id, &first, storage).await.expect("a token");
    assert_eq!(visitor.read(&token).await.0, 200);
    visitor.order(json!({"application": "arcgis", "data_allowed": false})).await;
    let (status, refusal) = visitor.read(&token).await;
    assert!(status == 403 && refusal.contains("AuthorizationPermissionMismatch"), "{refusal}");
    visitor.order(json!({"application": "arcgis", "data_allowed": true})).await;
    let fault = json!({"system": "azure", "operation": "ListBlobs", "fault": "throttle"});
    plain().post(format!("{}/lab/fault", program.control())).json(&fault).send().await.expect("it answers");
    assert_eq!((visitor.read(&token).await.0, visitor.read(&token).await.0), (503, 200));

    // A second password, and without the first.
    let shown = visitor.state().await["azure"]["applications"][0]["passwords"][0]["key_id"].clone();
    let (status, added) = visitor.order(json!({"application": "arcgis", "add_password": true})).await;
    assert!(status == 200 && added["key_id"].is_string() && added["key_id"] != shown, "{added}");
    let second = program.secret("arcgis-client-secret");
    assert!(first != second && visitor.token(&client_id, &second, storage).await.is_some());
    visitor.order(json!({"application": "arcgis", "remove_password": shown})).await;
    assert_eq!(visitor.token(&client_id, &first, storage).await, None);
    visitor.order(json!({"deny": "Microsoft.Storage/storageAccounts/listKeys/action"})).await;
    assert_eq!(visitor.keys(&account).await, Value::Null);

    for (order, why) in [
        (json!({"regenerate": "key1"}), "this needs an account"),
        (json!({"account": "other", "regenerate": "key1"}), "no account other"),
        (json!({"account": "gisstore", "regenerate": "key3"}), "account gisstore has no slot key3"),
        (json!({"add_password": true}), "this needs an application"),
        (json!({"application": "rotator", "add_password": true}), "no application rotator"),
        (json!({"application": "arcgis", "remove_password": "x"}), "application arcgis has no password x"),
    ] {
        assert_eq!(visitor.order(order).await, (400, json!({"error": why})));
    }
    let elsewhere = json!({"system": "aws", "operation": "ListUsers", "fault": "html"});
    let refused = plain().post(format!("{}/lab/fault", program.control())).json(&elsewhere).send().await;
    assert_eq!(refused.expect("it answers").status(), 400);

    let state = visitor.state().await.to_string();
    let said = remove(program).await;
    assert!(said.contains("azure ") && said.contains(" keys regenerated, "), "{said}");
    let keys = [&before, &after].map(|keys| keys[1]["value"].as_str().expect("a key").to_owned());
    for secret in [&first, &second, &keys[0], &keys[1]] {
        assert!(!said.contains(secret.as_str()) && !state.contains(secret.as_str()), "{said} {state}");
    }
}

#[tokio::test]
async fn the_pair_shows_an_outage_in_either_cloud() {
    let program = Program::start(&[]).await;
    let visitor = Visitor { program: &program, http: plain() };
    let of_blob = async || {
        let state = visitor.state().await;
        let places = state["arcgis"][0]["places"].as_array().expect("a list").clone();
        places.into_iter().find(|place| place["container"] == "gis-kubernetes-store").expect("it is told")
    };
    let until = async |what: &str, done: &dyn Fn(&Value) -> bool| {
        for _ in 0..500 {
            let place = of_blob().await;
            if done(&place) {
                return place;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        panic!("never: {what}: {}", of_blob().await)
    };
    let place = until("use", &|place| place["consumer"]["requests"].as_u64() > Some(3)).await;
    assert_eq!((&place["account"], &place["consumer"]["refusals"]), (&json!("giskubernetes"), &json!(0)));
    assert!(place["held_key"].as_str().is_some_and(|name| name.starts_with("giskubernetes#")), "{place}");
    visitor.order(json!({"account": "giskubernetes", "regenerate": "key1"})).await;
    let place = until("outage", &|place| place["consumer"]["refusals"].as_u64() > Some(0)).await;
    let last = place["consumer"]["last_refusal"].as_str().expect("it was refused").to_owned();
    assert_eq!(last, format!("{}: AuthenticationFailed", place["held_key"].as_str().expect("a name")));
    let said = remove(program).await;
    assert!(said.contains("kubernetes hx20cpw7me ") && said.contains("server t5juo38wgl "), "{said}");
}

#[tokio::test]
async fn a_server_of_before_the_cloud_has_data_items_only_and_its_portal_logs_in() {
    let words = [
        "arcgis",
        "--product",
        "server",
        "--version",
        "11.3",
        "--federated",
        "--item-view",
        "object",
        "--real-status-codes",
    ];
    let program = Program::start(&words).await;
    assert!(program.url("logs in at ").ends_with("/arcgis/sharing/rest/generateToken"));
    let stranger = Stranger::log_in(&program, "server ", plain()).await;
    assert_eq!(stranger.get("?f=json").await["currentVersion"], 11.3);
    assert_eq!(stranger.get("/cloud/services?f=json").await["code"], 404);
    let item = stranger.get("/data/items/cloudStores/imagery?f=json").await;
    assert_eq!(item["info"]["connectionString"]["credentialType"], "accessKey");
    remove(program).await;
}

#[tokio::test]
async fn a_port_of_ones_choice_is_kept_and_nobody_elses_is_taken() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("it has an address").port().to_string();
    let dir = std::env::temp_dir().join(format!("rekeyd-lab-{}", uuid::Uuid::new_v4()));
    let arguments = ["arcgis", "--product", "server", "--port", &port, "--dir"];
    let refused =
        Command::new(env!("CARGO_BIN_EXE_rekeyd-lab")).args(arguments).arg(&dir).output().await.expect("it runs");
    assert_eq!(refused.status.code(), Some(1));
    let why = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(why.starts_with(&format!("rekeyd-lab: listening on 127.0.0.1:{port}: ")), "{why}");
    std::fs::remove_dir_all(dir).expect("it is ours");

    drop(taken);
    let program = Program::start(&["arcgis", "--product", "server", "--port", &port]).await;
    assert_eq!(program.url("server "), format!("http://127.0.0.1:{port}/arcgis/admin"));
    remove(program).await;
}

#[tokio::test]
async fn a_wrong_command_line_is_told_how_it_should_be() {
    for (words, why) in [
        (&["--job-ms"][..], "error: a value is required for '--job-ms <MS>' but none was supplied"),
        (&[], "  --dir <DIR>"),
        (&["arcgis", "--dir", "d"], "  --product <PRODUCT>"),
        (&["azure"], "  --dir <DIR>"),
        (
            &["azure", "--dir", "d", "--account", "gis", "--account", "gis"],
            "error: gis names two things\n\nUsage: rekeyd-lab azure ",
        ),
        (
            &["arcgis", "--dir", "d", "--product", "server", "--version", "new"],
            "a version has two numbers, such as 11.5 or 12.0",
        ),
        (
            &["arcgis", "--dir", "d", "--product", "kubernetes", "--federated"],
            "error: --federated: Kubernetes always has a portal; this is for --product server\n\nUsage: rekeyd-lab arcgis ",
        ),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_rekeyd-lab")).args(words).output().await.expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{words:?}: {said}");
        assert!(said.contains(why), "{words:?}: {why} is not in:\n{said}");
    }
}
