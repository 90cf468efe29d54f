//! The main job, shown: `cargo run --example demo`.
//!
//! The real daemon, engine and journal, in this process, against the lab's AWS and ArcGIS on loopback: two services, one for each
//! ArcGIS product, on a timetable of seconds. What is printed is read from the journal while it happens. It ends after two full
//! rotations of each, with status 1 if a consumer was refused once, a key was left over, or it took too long.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use rekeyd::daemon::{self, records, signals::Signals};
use rekeyd::model::ServiceName;
use rekeyd_lab::{ArcGis, ArcGisOptions, Aws, AwsOptions, Product, StoredCredential};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

const ROTATIONS: usize = 2;
const TOO_LONG: Duration = Duration::from_secs(60);

/// One service of the demo: an IAM user, an ArcGIS, and what was printed of its history.
struct Site {
    name: &'static str,
    user: &'static str,
    cloud_service: &'static str,
    arcgis: ArcGis,
    printed: usize,
    done: usize,
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
    let mut sites = vec![
        site("kubernetes-store", "arcgis-kubernetes", Product::Kubernetes, &aws, &folder.0).await?,
        site("server-store", "arcgis-server", Product::Server, &aws, &folder.0).await?,
    ];
    let policy = write_policy(&folder.0, &aws, &sites)?;

    println!("rekeyd demo: the real daemon against stand-ins of AWS and ArcGIS, all on 127.0.0.1");
    println!("  policy   {}", policy.display());
    for site in &sites {
        let keys: Vec<_> = aws.keys(site.user).into_iter().map(|key| key.id).collect();
        println!(
            "  {:<17} IAM user {}, key {}; read 40 times a second by its cloud service",
            site.name,
            site.user,
            keys.join(", ")
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
    while sites.iter().any(|site| site.done < ROTATIONS) {
        if running.is_finished() {
            return Err("the daemon ended".into());
        }
        if started.elapsed() > TOO_LONG {
            return Err(format!("no {ROTATIONS} rotations of each service within {} s", TOO_LONG.as_secs()));
        }
        for site in &mut sites {
            show_news(site, &folder.0, &aws, started);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    running.abort();
    verdict(&sites, &aws, started)
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
    let used = site.arcgis.consumer(site.cloud_service);
    format!(
        "keys of {}: {} · consumer requests: {}, refusals: {}",
        site.user,
        keys.join(", "),
        used.requests,
        used.refusals
    )
}

/// The start of a rotation's id, enough to tell two apart.
fn short(rotation: Option<&str>) -> &str {
    rotation.map_or("-", |id| id.get(id.len().saturating_sub(6)..).unwrap_or(id))
}

fn verdict(sites: &[Site], aws: &Aws, started: Instant) -> Result<(), String> {
    println!();
    let jobs: usize = sites.iter().map(|site| site.arcgis.jobs().len()).sum();
    let refusals: u64 = sites.iter().map(|site| site.arcgis.consumer_refusals()).sum();
    let requests: u64 = sites.iter().map(|site| site.arcgis.consumer(site.cloud_service).requests).sum();
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
        let held = site.arcgis.held_key(site.cloud_service).map(|(id, _)| id).unwrap_or_default();
        let keys = aws.keys(site.user);
        if !keys.iter().any(|key| key.id == held && key.active) || keys.len() > 2 {
            return Err(format!("{} holds key {held}, and IAM has {}", site.name, keys.len()));
        }
    }
    Ok(())
}

async fn site(
    name: &'static str,
    user: &'static str,
    product: Product,
    aws: &Aws,
    folder: &Path,
) -> Result<Site, String> {
    let (cloud_service, bucket) = ("eg7hrelq6b", format!("{user}-bucket"));
    aws.add_user(user);
    aws.add_bucket(&bucket, &[user]);
    let (access_key, secret_key) = aws.create_key(user);
    let options = ArcGisOptions { product, job_duration: Duration::from_millis(600), ..ArcGisOptions::default() };
    secret(folder, &format!("{name}-password"), &options.password)?;
    let arcgis = ArcGis::start(options, aws).await;
    arcgis.add_provider("betc4g098c", "AWS", None);
    arcgis.add_service(cloud_service, "betc4g098c", &bucket, Some(StoredCredential { access_key, secret_key }));
    Ok(Site { name, user, cloud_service, arcgis, printed: 0, done: 0 })
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
        let (short, product) =
            match site.arcgis.portal_url().contains("/sharing/") && site.name.starts_with("kubernetes") {
                true => ("kubernetes", "kubernetes"),
                false => ("server", "server"),
            };
        text += &format!(
            r#"
[arcgis.{short}]
product = "{product}"
admin_url = "{admin}"
username = "rotator"
password = {{ file = "{at}/{name}-password" }}
poll = "200ms"
readback = "1s"

[[service]]
name = "{name}"
every = "12s"
issuer = {{ kind = "aws-iam", account = "main", user = "{user}", probe = {{ bucket = "{user}-bucket", region = "us-east-1" }} }}
target = [{{ kind = "arcgis", deployment = "{short}", service_id = "{id}" }}]
"#,
            admin = site.arcgis.admin_url(),
            name = site.name,
            user = site.user,
            id = site.cloud_service,
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
