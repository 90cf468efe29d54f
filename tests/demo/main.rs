//! The main job, shown: `cargo run --example demo`.
//!
//! The real daemon, engine and journal, in this process, against the lab's AWS, Azure and ArcGIS on loopback, on a timetable of
//! seconds: a key of each kind of issuer, in each place that holds one, on both products. What is printed is read from the journal
//! while it happens. It ends after two full rotations of each service, and after one of them has left its key behind for a role; with
//! status 1 if a consumer was refused once or cannot read at the end, a key was left over, or it took too long.

mod issuers;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use rekeyd::daemon::protocol::{Answer, Ask, Carried, Request, SaidLine, Told};
use rekeyd::daemon::{self, records, signals::Signals};
use rekeyd::model::{Keyless, ServiceName};
use rekeyd_lab::{ArcGis, ArcGisOptions, Aws, AwsOptions, Azure, AzureOptions, ConsumerCount, Product};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

use issuers::{Adoption, Issuer};

const ROTATIONS: usize = 2;
const TOO_LONG: Duration = Duration::from_secs(90);

/// How long the clouds do not know a key they have just made.
const PROPAGATION: Duration = Duration::from_millis(700);

/// The service that leaves its key behind at the end, and the user whose keys it holds until then.
const SWITCHED: &str = "kubernetes-store";
const SWITCHED_USER: &str = "arcgis-kubernetes";

/// One service of the demo: an issuer, a place in an ArcGIS that holds its key, and what was printed of its history.
struct Site {
    name: &'static str,
    issuer: Box<dyn Issuer>,
    product: Product,
    place: Place,
    arcgis: ArcGis,
    printed: usize,
    done: usize,
    /// Its cloud service uses the role of its nodes by now, or soon.
    switch_ordered: bool,
}

/// What holds the key.
#[derive(Clone, Copy)]
enum Place {
    CloudService(&'static str),
    /// With the services that inherit from it.
    Provider(&'static str, [&'static str; 2]),
    DataItem(&'static str),
}

impl Place {
    /// As the policy names it.
    fn line(self) -> String {
        match self {
            Self::CloudService(id) => format!("service_id = \"{id}\""),
            Self::Provider(id, _) => format!("provider_id = \"{id}\""),
            Self::DataItem(path) => format!("data_item = \"{path}\""),
        }
    }

    fn holder(self) -> &'static str {
        match self {
            Self::CloudService(name) | Self::Provider(name, _) | Self::DataItem(name) => name,
        }
    }

    /// Who reads with the key it holds.
    fn consumers(self) -> Vec<&'static str> {
        match self {
            Self::CloudService(name) | Self::DataItem(name) => vec![name],
            Self::Provider(_, services) => services.to_vec(),
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::CloudService(_) => "cloud service",
            Self::Provider(..) => "cloud provider with two services",
            Self::DataItem(_) => "registered data store",
        }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("demo: {why}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), String> {
    // The journal tells the story; only what is wrong is wanted from the log. Until they are adopted, two services halt as they should.
    let log = tracing_subscriber::fmt().with_ansi(false).with_writer(std::io::stderr);
    let log = log.with_env_filter("warn,rekeyd::engine=off").with_filter_reloading();
    let log_filter = log.reload_handle();
    log.init();
    rustls::crypto::aws_lc_rs::default_provider().install_default().map_err(|_| "the TLS provider was set twice")?;
    let folder = Folder::new()?;
    let aws = Aws::start(AwsOptions { propagation: PROPAGATION, ..AwsOptions::default() }).await;
    let azure = Azure::start(azure_options()).await;
    let mut sites = sites(&aws, &azure, &folder.0).await?;
    let policy = write_policy(&folder.0, &aws, &azure, &sites)?;

    introduce(&sites, &policy);
    let signals = Signals::install().map_err(|error| format!("signals: {error}"))?;
    let started = Instant::now();
    let running = tokio::spawn(async move { daemon::run(&policy, signals).await });
    adopt_all(&folder.0, &sites).await?;
    log_filter.reload("warn").map_err(|error| format!("the log: {error}"))?;
    while sites.iter().any(|site| site.done < site.wanted()) {
        if running.is_finished() {
            return Err("the daemon ended".into());
        }
        if started.elapsed() > TOO_LONG {
            return Err(format!("no {ROTATIONS} rotations of each service within {} s", TOO_LONG.as_secs()));
        }
        for site in &mut sites {
            show_news(site, &folder.0, started);
            if site.name == SWITCHED && site.done >= ROTATIONS && !site.switch_ordered {
                issuers::give_nodes_a_role(&site.arcgis, &aws, SWITCHED_USER);
                site.switch_ordered = switch(site, &folder.0).await?;
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    running.abort();
    let rotations: usize = sites.iter().map(|site| site.done).sum();
    let jobs: usize = sites.iter().map(|site| site.arcgis.jobs().len()).sum();
    println!();
    println!(
        "{rotations} rotations in {:.0} s: {} IAM keys and {} secrets minted, {} slots regenerated, {jobs} ArcGIS jobs",
        started.elapsed().as_secs_f64(),
        aws.mints(),
        azure.mints(),
        azure.regenerations()
    );
    verdict(&sites, &folder.0)
}

async fn sites(aws: &Aws, azure: &Azure, folder: &Path) -> Result<Vec<Site>, String> {
    let (kubernetes, server) = (Product::Kubernetes, Product::Server);
    let inheriting = Place::Provider("betc4g098c", ["inherits01", "inherits02"]);
    let iam = |user| issuers::iam_user(aws, user);
    let mut sites = Vec::new();
    for (name, issuer, product, version, place) in [
        (SWITCHED, iam(SWITCHED_USER), kubernetes, "12.0", Place::CloudService("eg7hrelq6b")),
        ("server-store", iam("arcgis-server"), server, "12.0", Place::CloudService("wpjkp9s7ub")),
        ("shared-provider", iam("arcgis-provider"), kubernetes, "12.0", inheriting),
        ("imagery", iam("arcgis-imagery"), server, "11.3", Place::DataItem("/cloudStores/imagery")),
        ("blob-key", issuers::storage_account(azure), kubernetes, "12.0", Place::CloudService("blobkey001")),
        ("blob-app", issuers::application(azure, "arcgis"), server, "12.0", Place::CloudService("blobapp001")),
    ] {
        let options = ArcGisOptions { product, version: version.to_owned(), ..ArcGisOptions::default() };
        sites.push(site(name, issuer, options, place, aws, folder).await?);
    }
    Ok(sites)
}

fn introduce(sites: &[Site], policy: &Path) {
    println!("rekeyd demo: the real daemon against stand-ins of AWS, Azure and ArcGIS, all on 127.0.0.1");
    println!("  policy   {}", policy.display());
    for Site { name, issuer, product, place, .. } in sites {
        let (title, key) = (issuer.title(), issuer.adoption().key);
        println!("  {name:<17} {title}, key {key}, held by a {} on {product:?}", place.word());
        if let Some(follower) = issuer.follower() {
            println!("  {:<17} a SAS that this key signs, held by another; it moves with {name}", follower.name);
        }
    }
    println!("Consumers read with each of these keys 40 times a second. Azure does not tell which of its keys is in");
    println!("use: those two services halt until `rekeyd adopt` says so, here over the control socket.");
    println!();
}

fn azure_options() -> AzureOptions {
    AzureOptions {
        propagation: PROPAGATION,
        key_lag: PROPAGATION,
        // A token outlives the secret it was asked with, so long ones would hide that a secret died too early. This one is announced in
        // whole seconds, and is good for half a second longer than its user believes.
        token_lifetime: Duration::from_millis(1500),
        ..AzureOptions::default()
    }
}

/// What an operator types to leave a key behind: `rekeyd switch SERVICE --to iam-role`. Refused while a rotation is open; then it is
/// typed again.
async fn switch(site: &Site, folder: &Path) -> Result<bool, String> {
    let service = ServiceName::new(site.name);
    let said = order(folder, Ask::Switch { service, to: Some(Keyless::IamRole), no_way_back: false }).await?;
    Ok(said.accepted)
}

impl Site {
    /// How many rotations it is to complete; the switch is one.
    fn wanted(&self) -> usize {
        if self.name == SWITCHED { ROTATIONS + 1 } else { ROTATIONS }
    }

    /// What its place holds, in clear.
    fn held(&self) -> Value {
        self.arcgis.credential_object(self.place.holder()).unwrap_or_default()
    }

    /// What those who read with it have seen.
    fn consumers(&self) -> Vec<ConsumerCount> {
        let follower = self.issuer.follower().map(|follower| follower.cloud_service);
        self.place.consumers().into_iter().chain(follower).map(|name| self.arcgis.consumer(name)).collect()
    }

    /// What is wrong with where it stands. The next rotation may have begun already, and have made its key: the journal, which is asked
    /// after the issuer, says so before there is one.
    fn flaw(&self, folder: &Path) -> Option<String> {
        let held = self.held();
        let keys = self.issuer.keys(&held);
        let (is_sound, expected) = match self.switch_ordered {
            true => (held["type"] == "IAM-ROLE", 0),
            false => (self.issuer.takes(&held), self.issuer.keys_at_rest() + usize::from(self.is_rotating(folder))),
        };
        if !is_sound {
            return Some("what it holds does not work".into());
        }
        if keys.len() > expected {
            return Some(format!("a key was left over: {}", keys.join(", ")));
        }
        self.consumers().iter().any(|count| !count.healthy).then(|| "a consumer cannot read".into())
    }

    fn is_rotating(&self, folder: &Path) -> bool {
        let history = self.history(folder);
        history.last().is_some_and(|line| line.rotation.is_some() && line.event != "closed")
    }

    /// Empty until there is a journal, a moment after the daemon's start.
    fn history(&self, folder: &Path) -> Vec<records::HistoryLine> {
        let read = records::history(&folder.join("journal.db"), &ServiceName::new(self.name));
        read.ok().flatten().unwrap_or_default()
    }
}

/// Prints what is new in a service's history, and after each rotation what is left of it.
fn show_news(site: &mut Site, folder: &Path, started: Instant) {
    let lines = site.history(folder);
    for line in lines.iter().skip(site.printed) {
        let text = line.text.split("; ").next().unwrap_or_default();
        println!(
            "{:>5.1} s  {:<17} {:<8} {text}",
            started.elapsed().as_secs_f64(),
            site.name,
            short(line.rotation.as_deref())
        );
        if line.event == "closed" {
            site.done += 1;
            println!("         {:<17} {}", "", at_rest(site));
        }
    }
    site.printed = site.printed.max(lines.len());
}

fn at_rest(site: &Site) -> String {
    let held = site.held();
    let keys = match site.issuer.keys(&held) {
        none if none.is_empty() => format!("no key, ArcGIS holds {}", held["type"].as_str().unwrap_or("nothing")),
        keys => keys.join(", "),
    };
    let (requests, refusals) = used([site]);
    format!("{}: {keys} · consumer requests: {requests}, refusals: {refusals}", site.issuer.title())
}

/// Requests of all consumers, and how many of them were refused.
fn used<'s>(sites: impl IntoIterator<Item = &'s Site>) -> (u64, u64) {
    let counts = sites.into_iter().flat_map(Site::consumers);
    counts.fold((0, 0), |all, count| (all.0 + count.requests, all.1 + count.refusals))
}

/// The start of a rotation's id, enough to tell two apart.
fn short(rotation: Option<&str>) -> &str {
    rotation.map_or("-", |id| id.get(id.len().saturating_sub(6)..).unwrap_or(id))
}

fn verdict(sites: &[Site], folder: &Path) -> Result<(), String> {
    let (requests, refusals) = used(sites);
    println!("consumer requests: {requests}");
    println!("consumer refusals: {refusals}");
    if refusals > 0 {
        return Err("a consumer was refused".into());
    }
    let flaw = sites.iter().find_map(|site| Some(format!("{}: {}", site.name, site.flaw(folder)?)));
    flaw.map_or(Ok(()), Err)
}

async fn site(
    name: &'static str,
    issuer: Box<dyn Issuer>,
    options: ArcGisOptions,
    place: Place,
    aws: &Aws,
    folder: &Path,
) -> Result<Site, String> {
    let product = options.product;
    let options = ArcGisOptions { job_duration: Duration::from_millis(600), ..options };
    secret(folder, &format!("{name}-password"), &options.password)?;
    // A connection string is shown in clear over https only, and then only to who asks for that.
    let is_item = matches!(place, Place::DataItem(_));
    let arcgis = ArcGis::start(ArcGisOptions { tls: is_item, ..options }, aws).await;
    if let Some(pem) = arcgis.ca_pem() {
        secret(folder, &format!("{name}-ca.pem"), &pem)?;
    }
    issuer.furnish(&arcgis, place);
    Ok(Site { name, issuer, product, place, arcgis, printed: 0, done: 0, switch_ordered: false })
}

fn write_policy(folder: &Path, aws: &Aws, azure: &Azure, sites: &[Site]) -> Result<PathBuf, String> {
    let (access_key_id, secret_access_key) = aws.admin();
    secret(folder, "aws-secret", &secret_access_key)?;
    let (client_id, client_secret) = azure.admin();
    secret(folder, "azure-secret", &client_secret)?;
    let mut seal_key = [0u8; 32];
    aws_lc_rs::rand::fill(&mut seal_key).map_err(|_| "no randomness")?;
    secret(folder, "seal.key", &seal_key.iter().map(|byte| format!("{byte:02x}")).collect::<String>())?;
    let at = folder.display();
    let mut text = format!(
        r#"version = 1

[daemon]
journal = "sqlite:{at}/journal.db"
control = "{at}/control.sock"
listen = "off"
seal_key = {{ file = "{at}/seal.key" }}

# Seconds where a real policy has days.
[defaults]
propagation = "800ms"
probes = 3
probe_interval = "300ms"
soak = "2s"
soak_unproven = "4s"
watch = "2s"

[aws.main]
endpoint_url = "{endpoint}"
sts_endpoint_url = "{endpoint}"
s3_endpoint_url = "{endpoint}"
access_key_id = "{access_key_id}"
secret_access_key = {{ file = "{at}/aws-secret" }}
settle = "500ms"
last_used_lag = "1s"

[azure.main]
tenant_id = "{tenant}"
client_id = "{client_id}"
client_secret = {{ file = "{at}/azure-secret" }}
authority_url = "{authority}"
arm_url = "{arm}"
graph_url = "{graph}"
blob_url = "{blob}"
request_timeout = "2s"
settle = "2s"
"#,
        endpoint = aws.endpoint(),
        tenant = azure.tenant_id(),
        authority = azure.authority_url(),
        arm = azure.arm_url(),
        graph = azure.graph_url(),
        blob = azure.blob_url(),
    );
    for site in sites {
        let product = if site.product == Product::Server { "server" } else { "kubernetes" };
        let ca_file = match site.arcgis.ca_pem() {
            Some(_) => format!("ca_file = \"{at}/{}-ca.pem\"", site.name),
            None => String::new(),
        };
        text += &format!(
            r#"
[arcgis.{name}]
product = "{product}"
admin_url = "{admin}"
username = "rotator"
password = {{ file = "{at}/{name}-password" }}
poll = "200ms"
readback = "1s"
{ca_file}

[[service]]
name = "{name}"
every = "12s"
issuer = {issuer}
target = [{{ kind = "arcgis", deployment = "{name}", {place} }}]
"#,
            admin = site.arcgis.admin_url(),
            name = site.name,
            issuer = site.issuer.policy(),
            place = site.place.line(),
        );
        if let Some(follower) = site.issuer.follower() {
            text += &format!(
                r#"
[[service]]
name = "{name}"
issuer = {issuer}
target = [{{ kind = "arcgis", deployment = "{deployment}", service_id = "{id}" }}]
"#,
                name = follower.name,
                issuer = follower.policy,
                deployment = site.name,
                id = follower.cloud_service,
            );
        }
    }
    let path = folder.join("policy.toml");
    std::fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(path)
}

/// What an operator types once for a key that is already there: `rekeyd adopt SERVICE KEY_ID`, here as it goes over the socket.
async fn adopt_all(folder: &Path, sites: &[Site]) -> Result<(), String> {
    for site in sites {
        let Adoption { key, secret, idle_slot_free } = site.issuer.adoption();
        let (service, secret) = (ServiceName::new(site.name), secret.map(Carried));
        let said = order(folder, Ask::Adopt { service, key, secret, idle_slot_free }).await?;
        if !said.accepted {
            return Err(format!("adopt {}: {}", site.name, said.message));
        }
    }
    Ok(())
}

/// Sends an order about one service; what became of it.
async fn order(folder: &Path, ask: Ask) -> Result<SaidLine, String> {
    let socket = folder.join("control.sock");
    let deadline = Instant::now() + Duration::from_secs(10);
    let stream = loop {
        match tokio::net::UnixStream::connect(&socket).await {
            Ok(stream) => break stream,
            Err(error) if Instant::now() > deadline => return Err(format!("{}: {error}", socket.display())),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    };
    let (read, mut write) = stream.into_split();
    write.write_all(&Request::new(ask).line()).await.map_err(|error| error.to_string())?;
    let mut line = String::new();
    BufReader::new(read).read_line(&mut line).await.map_err(|error| error.to_string())?;
    match serde_json::from_str(&line) {
        Ok(Answer { answer: Told::Said(said), .. }) => said.into_iter().next().ok_or_else(|| "nothing was said".into()),
        _ => Err(format!("this is no answer to an order: {line}")),
    }
}

fn secret(folder: &Path, name: &str, text: &str) -> Result<(), String> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let path = folder.join(name);
    let opened = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
    let written = opened.and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|error| format!("{}: {error}", path.display()))
}

/// A folder of the demo's own, gone when it ends.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Result<Folder, String> {
        let path = std::env::temp_dir().join(format!("rekeyd-demo-{}", std::process::id()));
        std::fs::create_dir_all(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Folder(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
