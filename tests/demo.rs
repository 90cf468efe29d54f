//! The main job, shown: `cargo run --example demo`.
//!
//! The real daemon, engine and journal, in this process, against the lab's AWS and ArcGIS on loopback, on a timetable of seconds: a
//! key in each place that holds one, on both products. What is printed is read from the journal while it happens. It ends after two
//! full rotations of each service, and after one of them has left its key behind for a role; with status 1 if a consumer was refused
//! once, a key was left over, or it took too long.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use rekeyd::daemon::{self, records, signals::Signals};
use rekeyd::model::ServiceName;
use rekeyd_lab::{ArcGis, ArcGisOptions, Aws, AwsOptions, Product, StoredCredential};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

const ROTATIONS: usize = 2;
const TOO_LONG: Duration = Duration::from_secs(90);

/// The service that leaves its key behind at the end.
const SWITCHED: &str = "kubernetes-store";

/// One service of the demo: an IAM user, a place in an ArcGIS that holds its key, and what was printed of its history.
struct Site {
    name: &'static str,
    user: &'static str,
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
            Self::Provider(..) => "cloud provider, two services inherit",
            Self::DataItem(_) => "registered data store",
        }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    // The journal tells the story; only what is wrong is wanted from the log.
    tracing_subscriber::fmt().with_max_level(tracing::Level::WARN).with_ansi(false).with_writer(std::io::stderr).init();
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("demo: {why}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), String> {
    rustls::crypto::aws_lc_rs::default_provider().install_default().map_err(|_| "the TLS provider was set twice")?;
    let folder = Folder::new()?;
    let aws = Aws::start(AwsOptions { propagation: Duration::from_millis(700), ..AwsOptions::default() }).await;
    let (kubernetes, server) = (Product::Kubernetes, Product::Server);
    let inheriting = Place::Provider("betc4g098c", ["inherits01", "inherits02"]);
    let mut sites = Vec::new();
    for (name, user, product, version, place) in [
        (SWITCHED, "arcgis-kubernetes", kubernetes, "12.0", Place::CloudService("eg7hrelq6b")),
        ("server-store", "arcgis-server", server, "12.0", Place::CloudService("wpjkp9s7ub")),
        ("shared-provider", "arcgis-provider", kubernetes, "12.0", inheriting),
        ("imagery", "arcgis-imagery", server, "11.3", Place::DataItem("/cloudStores/imagery")),
    ] {
        let options = ArcGisOptions { product, version: version.to_owned(), ..ArcGisOptions::default() };
        sites.push(site(name, user, options, place, &aws, &folder.0).await?);
    }
    let policy = write_policy(&folder.0, &aws, &sites)?;

    println!("rekeyd demo: the real daemon against stand-ins of AWS and ArcGIS, all on 127.0.0.1");
    println!("  policy   {}", policy.display());
    for site in &sites {
        let keys: Vec<_> = aws.keys(site.user).into_iter().map(|key| key.id).collect();
        println!(
            "  {:<17} IAM user {}, key {}, held by a {}; its consumers read 40 times a second",
            site.name,
            site.user,
            keys.join(", "),
            site.place.word()
        );
    }
    println!();

    let signals = Signals::install().map_err(|error| format!("signals: {error}"))?;
    let started = Instant::now();
    let running = {
        let policy = policy.clone();
        tokio::spawn(async move { daemon::run(&policy, signals).await })
    };
    adopt_all(&folder.0, &aws, &sites).await?;
    while sites.iter().any(|site| site.done < site.wanted()) {
        if running.is_finished() {
            return Err("the daemon ended".into());
        }
        if started.elapsed() > TOO_LONG {
            return Err(format!("no {ROTATIONS} rotations of each service within {} s", TOO_LONG.as_secs()));
        }
        for site in &mut sites {
            show_news(site, &folder.0, &aws, started);
            if site.name == SWITCHED && site.done >= ROTATIONS && !site.switch_ordered {
                site.switch_ordered = switch(site, &folder.0, &aws).await?;
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    running.abort();
    verdict(&sites, &aws, started)
}

/// What an operator types to leave a key behind: `rekeyd switch SERVICE --to iam-role`. Its nodes have a role that may read the
/// bucket. Refused while a rotation is open; then it is typed again.
async fn switch(site: &Site, folder: &Path, aws: &Aws) -> Result<bool, String> {
    const NODES: &str = "nodes-of-kubernetes";
    if aws.keys(NODES).is_empty() {
        aws.add_user(NODES);
        aws.add_bucket(&format!("{}-bucket", site.user), &[site.user, NODES]);
        let (access_key, secret) = aws.create_key(NODES);
        site.arcgis.set_node_role(&access_key, &secret);
    }
    let request =
        format!("{{\"v\":1,\"command\":{{\"switch\":{{\"service\":\"{}\",\"to\":\"iam-role\"}}}}}}\n", site.name);
    Ok(ask(&folder.join("control.sock"), &request).await?.contains("\"accepted\":true"))
}

impl Site {
    /// How many rotations it is to complete; the switch is one.
    fn wanted(&self) -> usize {
        if self.name == SWITCHED { ROTATIONS + 1 } else { ROTATIONS }
    }

    /// Requests of its consumers, and how many of them were refused.
    fn used(&self) -> (u64, u64) {
        let counts: Vec<_> = self.place.consumers().into_iter().map(|name| self.arcgis.consumer(name)).collect();
        (counts.iter().map(|count| count.requests).sum(), counts.iter().map(|count| count.refusals).sum())
    }
}

/// Prints what is new in a service's history, and after each rotation what is left of it.
fn show_news(site: &mut Site, folder: &Path, aws: &Aws, started: Instant) {
    // The journal is there a moment after the daemon; until then there is no news.
    let Ok(Some(lines)) = records::history(&folder.join("journal.db"), &ServiceName::new(site.name)) else { return };
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
            println!("         {:<17} {}", "", at_rest(site, aws));
        }
    }
    site.printed = lines.len();
}

fn at_rest(site: &Site, aws: &Aws) -> String {
    let keys: Vec<_> = aws
        .keys(site.user)
        .into_iter()
        .map(|key| format!("{} {}", key.id, if key.active { "active" } else { "inactive" }))
        .collect();
    let keys = if keys.is_empty() { "none, the role of the nodes is used".to_owned() } else { keys.join(", ") };
    let (requests, refusals) = site.used();
    format!("keys of {}: {keys} · consumer requests: {requests}, refusals: {refusals}", site.user)
}

/// The start of a rotation's id, enough to tell two apart.
fn short(rotation: Option<&str>) -> &str {
    rotation.map_or("-", |id| id.get(id.len().saturating_sub(6)..).unwrap_or(id))
}

fn verdict(sites: &[Site], aws: &Aws, started: Instant) -> Result<(), String> {
    println!();
    let jobs: usize = sites.iter().map(|site| site.arcgis.jobs().len()).sum();
    let (requests, refusals) = sites.iter().map(Site::used).fold((0, 0), |all, one| (all.0 + one.0, all.1 + one.1));
    let rotations: usize = sites.iter().map(|site| site.done).sum();
    println!(
        "{rotations} rotations in {:.0} s: {} keys minted, {jobs} ArcGIS jobs, {requests} consumer requests",
        started.elapsed().as_secs_f64(),
        aws.mints()
    );
    println!("consumer refusals: {refusals}");
    if refusals > 0 {
        return Err("a consumer was refused".into());
    }
    // The next rotation may have begun already; what must hold is that the key in use is alive and nothing else is left behind.
    for site in sites {
        let held = site.arcgis.held_key(site.place.holder()).map(|(id, _)| id).unwrap_or_default();
        let keys = aws.keys(site.user);
        let is_sound = match site.switch_ordered {
            true => keys.is_empty(),
            false => keys.iter().any(|key| key.id == held && key.active) && keys.len() <= 2,
        };
        if !is_sound {
            return Err(format!("{} holds key {held}, and IAM has {}", site.name, keys.len()));
        }
    }
    Ok(())
}

async fn site(
    name: &'static str,
    user: &'static str,
    options: ArcGisOptions,
    place: Place,
    aws: &Aws,
    folder: &Path,
) -> Result<Site, String> {
    const PROVIDER: &str = "betc4g098c";
    let bucket = format!("{user}-bucket");
    aws.add_user(user);
    aws.add_bucket(&bucket, &[user]);
    let (access_key, secret_key) = aws.create_key(user);
    let held = StoredCredential { access_key, secret_key };
    let product = options.product;
    let options = ArcGisOptions { job_duration: Duration::from_millis(600), ..options };
    secret(folder, &format!("{name}-password"), &options.password)?;
    // A connection string is shown in clear over https only, and then only to who asks for that.
    let is_item = matches!(place, Place::DataItem(_));
    let arcgis = ArcGis::start(ArcGisOptions { tls: is_item, ..options }, aws).await;
    if let Some(pem) = arcgis.ca_pem() {
        secret(folder, &format!("{name}-ca.pem"), &pem)?;
    }
    match place {
        Place::CloudService(id) => {
            arcgis.add_provider(PROVIDER, "AWS", None);
            arcgis.add_service(id, PROVIDER, &bucket, Some(held));
        }
        Place::Provider(id, services) => {
            arcgis.add_provider(id, "AWS", Some(held));
            services.iter().for_each(|service| arcgis.add_service(service, id, &bucket, None));
        }
        Place::DataItem(path) => arcgis.add_data_item(path, &bucket, held),
    }
    Ok(Site { name, user, product, place, arcgis, printed: 0, done: 0, switch_ordered: false })
}

fn write_policy(folder: &Path, aws: &Aws, sites: &[Site]) -> Result<PathBuf, String> {
    let (access_key_id, secret_access_key) = aws.admin();
    secret(folder, "aws-secret", &secret_access_key)?;
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
"#,
        endpoint = aws.endpoint()
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
issuer = {{ kind = "aws-iam", account = "main", user = "{user}", probe = {{ bucket = "{user}-bucket", region = "us-east-1" }} }}
target = [{{ kind = "arcgis", deployment = "{name}", {place} }}]
"#,
            admin = site.arcgis.admin_url(),
            name = site.name,
            user = site.user,
            place = site.place.line(),
        );
    }
    let path = folder.join("policy.toml");
    std::fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(path)
}

/// What an operator types once for a key that is already there: `rekeyd adopt SERVICE KEY_ID`, here as it goes over the socket.
async fn adopt_all(folder: &Path, aws: &Aws, sites: &[Site]) -> Result<(), String> {
    let mut keys = HashMap::new();
    for site in sites {
        let key = aws.keys(site.user).into_iter().next().ok_or("the lab made no key")?;
        keys.insert(site.name, key.id);
    }
    for site in sites {
        let request = format!(
            "{{\"v\":1,\"command\":{{\"adopt\":{{\"service\":\"{}\",\"key\":\"{}\",\"secret\":null}}}}}}\n",
            site.name, keys[site.name]
        );
        let answer = ask(&folder.join("control.sock"), &request).await?;
        if !answer.contains("\"accepted\":true") {
            return Err(format!("adopt {}: {answer}", site.name));
        }
    }
    Ok(())
}

async fn ask(socket: &Path, request: &str) -> Result<String, String> {
    let deadline = Instant::now() + Duration::from_secs(10);
    let stream = loop {
        match tokio::net::UnixStream::connect(socket).await {
            Ok(stream) => break stream,
            Err(error) if Instant::now() > deadline => return Err(format!("{}: {error}", socket.display())),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    };
    let (read, mut write) = stream.into_split();
    write.write_all(request.as_bytes()).await.map_err(|error| error.to_string())?;
    let mut answer = String::new();
    BufReader::new(read).read_line(&mut answer).await.map_err(|error| error.to_string())?;
    Ok(answer)
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
