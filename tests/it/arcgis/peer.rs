//! A peer made of bytes: it reads one request for each connection, knows which call it is, and answers what the test says, down to
//! a header that is none and a body without end. What the test does not speak about is answered as a sound ArcGIS would.
//!
//! The lab is strict and always speaks proper HTTP; this is for everything that does not.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rekeyd::model::{SystemRef, SystemSpec};
use rekeyd::net::{Context, Shared};
use rekeyd::ports::Target;
use rekeyd::table;
use rekeyd::target::arcgis::KIND;
use rekeyd_lab::{ArcGis, ArcGisOptions, Aws, AwsOptions, Product};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::OnceCell;

use super::{Guard, PROVIDER, SERVICE, file};

/// The job of every push, and of every poll that is answered soundly.
pub const JOB: &str = "j876ae6e7-27d9-4b2d-b8ab-d07e2433e2c1";
/// The end of the secret that every place holds.
pub const TAIL: &str = "oLd4";
/// What a sound login is answered with. Lower case throughout: whoever changes the case of a text before hiding what is secret in
/// it must not be lucky.
pub const TOKEN: &str = "t0ken-0f-the-peer-in-lower-case-3f9a";
/// The password of every login, in lower case for the same reason.
pub const PASSWORD: &str = "passw0rd-of-the-rotator-71c2";

/// What goes over the wire for one call.
#[derive(Clone, Debug)]
pub struct Wire {
    /// Everything, from the status line on.
    pub bytes: Vec<u8>,
    /// How it goes.
    pub manner: Manner,
}

/// How an answer goes over the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// At once, and the connection is closed.
    Whole,
    /// A byte, then this long nothing, and so on.
    Drip(Duration),
    /// The bytes, then chunks for as long as they are taken.
    Endless,
    /// The bytes, then nothing, with the connection left open.
    Hang,
}

impl Wire {
    /// A sound answer.
    pub fn json(value: &Value) -> Wire {
        Wire::text(200, "application/json;charset=utf-8", value.to_string().as_bytes())
    }

    /// A sound answer of any kind.
    pub fn text(status: u16, kind: &str, body: &[u8]) -> Wire {
        let head = format!("HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n", body.len());
        Wire { bytes: [head.as_bytes(), body].concat(), manner: Manner::Whole }
    }
}

/// What was asked, and how much of the answers was taken.
#[derive(Default)]
pub struct Heard {
    calls: Mutex<Vec<String>>,
    /// Bytes of answers that went into the connection, whether or not they were read at its other end.
    pub taken: AtomicU64,
}

impl Heard {
    /// How often a call came.
    pub fn count(&self, call: &str) -> usize {
        self.calls.lock().expect("no test panics in here").iter().filter(|heard| *heard == call).count()
    }

    /// How many calls came.
    pub fn all(&self) -> usize {
        self.calls.lock().expect("no test panics in here").len()
    }
}

/// The peer.
pub struct Peer {
    /// Its admin directory.
    pub admin_url: String,
    /// What it was asked.
    pub heard: Arc<Heard>,
    product: Product,
    password: tempfile::NamedTempFile,
    ca: tempfile::NamedTempFile,
}

impl Peer {
    /// A site of this product and version. `answers`: other answers than the sound ones, by call: `generateToken`, `root`, `mode`,
    /// `services`, `providers`, `provider`, `jobs`, `job`, `credential`, `status` of a service, `findItems`.
    pub async fn start(product: Product, version: &str, answers: HashMap<&'static str, Wire>) -> Peer {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a loopback port can be bound");
        let admin_url = format!("http://{}/gis/admin", listener.local_addr().expect("it is bound"));
        let heard = Arc::new(Heard::default());
        let (answers, hears, version) = (Arc::new(answers), heard.clone(), version.to_owned());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (answers, heard, version) = (answers.clone(), hears.clone(), version.clone());
                tokio::spawn(async move {
                    // A client that hangs up in the middle is within its rights.
                    let _ = converse(stream, product, &version, &answers, &heard).await;
                });
            }
        });
        // An authority nobody needs: it spares every client the reading of the machine's own.
        let ca = file(&authority().await);
        Peer { admin_url, heard, product, password: file(PASSWORD), ca }
    }

    /// A target there, with a session of its own; `deployment` and `target` are lines of the two tables.
    pub fn connect(&self, guard: &Arc<Guard>, deployment: &str, target: &str) -> Arc<dyn Target> {
        let product = if self.product == Product::Server { "server" } else { "kubernetes" };
        let text = format!(
            "product = \"{product}\"\nadmin_url = {:?}\nusername = \"rotator\"\npassword = {{ file = {:?} }}\nca_file = {:?}\n{deployment}\n",
            self.admin_url,
            self.password.path(),
            self.ca.path(),
        );
        let config = table::read(&text, "policy.toml", KIND.read_system).expect("the deployment is sound");
        let at = SystemRef { table: "arcgis".to_owned(), name: "prod".to_owned() };
        let system = SystemSpec { at, config: config.expect("the deployment is complete") };
        let spec = table::read(target, "policy.toml", |table| (KIND.read)(table, Some(&system)));
        let spec = spec.expect("the target is sound").expect("the target is complete");
        let context = Context { proxy: None, no_proxy: Vec::new(), guard: guard.clone(), shared: Shared::default() };
        (KIND.connect)(&spec, Some(&system), &context).expect("connecting sends nothing")
    }
}

/// A certificate, made once.
async fn authority() -> String {
    static MADE: OnceCell<String> = OnceCell::const_new();
    let make = || async {
        let aws = Aws::start(AwsOptions::default()).await;
        let arcgis = ArcGis::start(ArcGisOptions { tls: true, ..ArcGisOptions::default() }, &aws).await;
        arcgis.ca_pem().expect("it was asked to speak TLS")
    };
    MADE.get_or_init(make).await.clone()
}

async fn converse(
    mut stream: TcpStream,
    product: Product,
    version: &str,
    answers: &HashMap<&'static str, Wire>,
    heard: &Heard,
) -> std::io::Result<()> {
    let Some(path) = read_request(&mut stream).await? else { return Ok(()) };
    let call = call_of(&path);
    heard.calls.lock().expect("no test panics in here").push(call.to_owned());
    let wire = answers.get(call).cloned().unwrap_or_else(|| sound(call, product, version));
    let mut send = async |bytes: &[u8]| {
        let sent = stream.write_all(bytes).await;
        heard.taken.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        sent
    };
    match wire.manner {
        Manner::Whole => {
            send(&wire.bytes).await?;
            stream.shutdown().await?;
        }
        Manner::Hang => {
            send(&wire.bytes).await?;
            tokio::time::sleep(Duration::from_secs(60)).await;
        }
        Manner::Drip(pause) => {
            for byte in &wire.bytes {
                send(std::slice::from_ref(byte)).await?;
                tokio::time::sleep(pause).await;
            }
        }
        Manner::Endless => {
            send(&wire.bytes).await?;
            let chunk = [b"10000\r\n".as_slice(), &[b' '; 0x10000], b"\r\n"].concat();
            loop {
                send(&chunk).await?;
            }
        }
    }
    Ok(())
}

/// Reads one request to its end; its path, or nothing where the other side hung up.
async fn read_request(stream: &mut TcpStream) -> std::io::Result<Option<String>> {
    let (mut heard, mut buffer) = (Vec::new(), [0; 8192]);
    loop {
        let read = stream.read(&mut buffer).await?;
        if read == 0 {
            return Ok(None);
        }
        heard.extend_from_slice(&buffer[..read]);
        let Some(end) = heard.windows(4).position(|four| four == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&heard[..end]).to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
        if heard.len() >= end + 4 + length.unwrap_or(0usize) {
            let head = String::from_utf8_lossy(&heard[..end]).into_owned();
            return Ok(head.split(' ').nth(1).map(str::to_owned));
        }
    }
}

fn call_of(path: &str) -> &'static str {
    let path = path.split('?').next().unwrap_or_default().trim_start_matches("/gis/");
    let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    match segments[..] {
        [.., "generateToken"] => "generateToken",
        ["admin"] => "root",
        ["admin", "mode"] => "mode",
        ["sharing", "rest", "community", "self"] => "self",
        ["admin", "cloud" | "clouds", _, _, "credential", _] => "credential",
        ["admin", "cloud", "services"] => "services",
        ["admin", "cloud", "services", _, "status"] => "status",
        ["admin", "data", "findItems"] => "findItems",
        ["admin", "cloud", "providers"] => "providers",
        ["admin", "cloud", "providers", _] => "provider",
        ["admin", "jobs"] | ["admin", "system", "jobs"] => "jobs",
        ["admin", "jobs", _] | ["admin", "system", "jobs", _] => "job",
        _ => "unknown",
    }
}

/// What a sound site says in a body, for a test to spoil.
pub fn sound_body(call: &str, product: Product, version: &str) -> Value {
    let crypt = if product == Product::Server { "v2Crypt_" } else { "{crypt}" };
    let credential = json!({"type": "ACCESS-KEY",
        "secret": {"accessKey": format!("{crypt}R68p/cvTUo1L"), "secretKey": format!("{crypt}xxxxxxxxxxxxxxxx{TAIL}")}});
    let provider = json!({"id": PROVIDER, "name": "AWS", "credential": credential, "cloudServices": []});
    match call {
        "generateToken" => {
            let expires = chrono::Utc::now().timestamp_millis() + 3_600_000;
            let expires = if product == Product::Server { json!(expires.to_string()) } else { json!(expires) };
            json!({"token": TOKEN, "expires": expires, "ssl": true})
        }
        "root" => {
            json!({"currentVersion": version.parse::<f64>().unwrap_or(0.0), "fullVersion": format!("{version}.0"),
            "resources": ["cloud", "jobs", "mode"]})
        }
        "mode" if product == Product::Server => json!({"siteMode": "EDITABLE", "lastModified": 0}),
        "mode" => json!({"isReadOnly": false}),
        "self" => json!({"username": "rotator", "role": "org_publisher", "privileges": ["portal:admin:manageServers"]}),
        "services" => json!({"cloudServices": [
            {"id": "wpjkp9s7ub", "providerId": PROVIDER, "name": "AWS S3", "usage": "DEFAULT",
             "connection": {"bucketName": "gis", "region": "us-east-1"}, "type": "objectStore", "category": "storage"},
            {"id": SERVICE, "providerId": PROVIDER, "name": "AWS S3", "usage": "BACKUP",
             "connection": {"bucketName": "gis", "credential": credential}, "type": "objectStore", "category": "storage"},
        ]}),
        "status" => json!({"status": "AVAILABLE"}),
        "findItems" => json!({"items": [{"path": "/cloudStores/tiles", "type": "cloudStore", "provider": "amazon",
            "info": {"isManaged": false, "objectStore": "gis/tiles", "connectionString": {"accessKeyId": "AKIAOLDOLDOLDOLDOLD1",
                "secretAccessKey": format!("{crypt}xxxxxxxxxxxxxxxx{TAIL}"), "region": "us-east-1", "credentialType": "accessKey"}}}]}),
        "providers" => json!({"cloudProviders": [provider]}),
        "provider" => provider,
        "jobs" => json!({"jobs": [JOB]}),
        "job" => json!({"jobid": JOB, "status": "COMPLETED", "starttime": 1_635_961_542_583u64,
            "endtime": 1_635_961_549_000u64, "result": {"status": "success"}}),
        "credential" => {
            json!({"cloudCredentialRotationJobId": JOB, "message": "A cloud credentials rotation job is in-progress"})
        }
        _ if product == Product::Server => json!({"status": "error", "messages": ["not here"], "code": 404}),
        _ => json!({"error": {"code": 404, "message": "not here", "details": []}}),
    }
}

fn sound(call: &str, product: Product, version: &str) -> Wire {
    Wire::json(&sound_body(call, product, version))
}
