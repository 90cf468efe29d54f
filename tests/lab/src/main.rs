//! The lab as a program: an AWS and both kinds of ArcGIS on loopback, for anyone who wants to try a rotation, or to see one fail.
//!
//! ```text
//! rekeyd-lab --dir DIR [--propagation-ms N] [--listing-lag-ms N] [--job-ms N] [--tls]
//! ```
//!
//! It prints endpoints and ids. Credentials are never printed; they are files in DIR, readable by their owner only:
//!
//! | file | holds |
//! |---|---|
//! | `aws-access-key-id`, `aws-secret-access-key` | the administrator `rotator`, who may do `iam:*` |
//! | `kubernetes-password`, `server-password` | the account `rotator` of each ArcGIS |
//! | `kubernetes-ca.pem`, `server-ca.pem` | with `--tls`: whom to trust |
//!
//! Every ArcGIS has one provider and one cloud service with a key of its own, of an IAM user of its own. The service reads its
//! bucket forty times a second with the key it holds; how often it was refused is printed every ten seconds, and must stay 0.
//!
//! A control endpoint on loopback does mischief:
//!
//! ```text
//! curl -s $CONTROL/lab/state
//! curl -s $CONTROL/lab/fault -H 'content-type: application/json' \
//!      -d '{"system":"aws","operation":"CreateAccessKey","fault":"lost-reply"}'
//! curl -s $CONTROL/lab/fault -H 'content-type: application/json' \
//!      -d '{"system":"kubernetes","operation":"job-script","fault":"fail","text":"the store cannot be reached"}'
//! ```
//!
//! Systems: `aws`, `kubernetes`, `server`. Faults: `lost-reply`, `error-after-commit` (status), `late` (ms), `delayed` (ms),
//! `throttle`, `error` (status), `slow` (ms), `drop-before`, `refuse` (text), `html`, `redirect` (text). Scripts for the next job: `complete`,
//! `fail` (text), `fail-after-store` (text), `inner-error` (text), `failed-stage` (text), `roll-back`, `timed-out`,
//! `timed-out-after-store`, `unavailable` (times), `vanish`, `liar`, `slow` (ms), `mangled`.
//!
//! It ends on SIGTERM or Ctrl-C, and forgets everything.

mod control;

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use rekeyd_lab::{ArcGis, ArcGisOptions, Aws, AwsOptions, Product, StoredCredential};
use tokio::signal::unix::{SignalKind, signal};

/// What the program runs.
#[derive(Clone)]
struct Lab {
    aws: Aws,
    sites: Vec<Site>,
}

/// One ArcGIS and the names around it.
#[derive(Clone)]
struct Site {
    name: &'static str,
    arcgis: ArcGis,
    provider: &'static str,
    service: &'static str,
    user: String,
    bucket: String,
}

/// The command line.
#[derive(Debug, PartialEq, Eq)]
struct Arguments {
    dir: PathBuf,
    propagation: Duration,
    listing_lag: Duration,
    job: Duration,
    tls: bool,
}

const USAGE: &str = "usage: rekeyd-lab --dir DIR [--propagation-ms N] [--listing-lag-ms N] [--job-ms N] [--tls]";

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = match Arguments::parse(std::env::args().skip(1)) {
        Ok(arguments) => arguments,
        Err(why) => {
            eprintln!("rekeyd-lab: {why}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("rekeyd-lab: {why}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> std::io::Result<()> {
    // Handlers stand before anything else: a signal during the start must end us too.
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let lab = start(&arguments).await?;
    let (control, serving) = control::start(lab.clone()).await?;
    introduce(&lab, &control, &arguments.dir);
    let mut every = tokio::time::interval(Duration::from_secs(10));
    every.tick().await;
    loop {
        tokio::select! {
            _ = every.tick() => println!("{}", count(&lab)),
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    serving.abort();
    println!("{}", count(&lab));
    Ok(())
}

async fn start(arguments: &Arguments) -> std::io::Result<Lab> {
    let dir = &arguments.dir;
    std::fs::create_dir_all(dir)?;
    let aws = Aws::start(AwsOptions {
        propagation: arguments.propagation,
        listing_lag: arguments.listing_lag,
        ..AwsOptions::default()
    })
    .await;
    let (id, secret) = aws.admin();
    keep(dir, "aws-access-key-id", &id)?;
    keep(dir, "aws-secret-access-key", &secret)?;
    let kubernetes = ("kubernetes", Product::Kubernetes, "betc4g098c", "eg7hrelq6b");
    let server = ("server", Product::Server, "s7my5d949q", "wpjkp9s7ub");
    let mut sites = Vec::new();
    for (name, product, provider, service) in [kubernetes, server] {
        let (user, bucket) = (format!("arcgis-{name}"), format!("gis-{name}-store"));
        aws.add_user(&user);
        aws.add_bucket(&bucket, &[&user]);
        let (access_key, secret_key) = aws.create_key(&user);
        let password = format!("{secret_key}&=%+{name}");
        let options = ArcGisOptions {
            product,
            password: password.clone(),
            job_duration: arguments.job,
            tls: arguments.tls,
            ..ArcGisOptions::default()
        };
        let arcgis = ArcGis::start(options, &aws).await;
        arcgis.add_provider(provider, "AWS", None);
        arcgis.add_service(service, provider, &bucket, Some(StoredCredential { access_key, secret_key }));
        keep(dir, &format!("{name}-password"), &password)?;
        if let Some(pem) = arcgis.ca_pem() {
            keep(dir, &format!("{name}-ca.pem"), &pem)?;
        }
        sites.push(Site { name, arcgis, provider, service, user, bucket });
    }
    Ok(Lab { aws, sites })
}

/// Replaces a file of an earlier run; nobody but its owner may read it at any moment.
fn keep(dir: &Path, name: &str, text: &str) -> std::io::Result<()> {
    let path = dir.join(name);
    match std::fs::remove_file(&path) {
        Err(why) if why.kind() != std::io::ErrorKind::NotFound => return Err(why),
        _ => {}
    }
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    writeln!(file, "{text}")
}

fn introduce(lab: &Lab, control: &str, dir: &Path) {
    println!("aws         {}  (IAM, STS, S3; account 111122223333; region us-east-1)", lab.aws.endpoint());
    for site in &lab.sites {
        let (name, arcgis) = (site.name, &site.arcgis);
        println!("{name:<11} {}  (portal {})", arcgis.admin_url(), arcgis.portal_url());
        println!(
            "            service {}, provider {}, user {}, bucket {}",
            site.service, site.provider, site.user, site.bucket
        );
    }
    println!("control     {control}/lab/state");
    println!("credentials {} (files readable by their owner only)", dir.display());
    println!("ready");
}

fn count(lab: &Lab) -> String {
    let each = lab.sites.iter().map(|site| {
        let count = site.arcgis.consumer(site.service);
        let last = count.last_refusal.map(|last| format!(", last {last}")).unwrap_or_default();
        format!("{} {} requests, {} refused{last}", site.name, count.requests, count.refusals)
    });
    each.collect::<Vec<_>>().join("; ")
}

impl Arguments {
    fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut dir = None;
        let mut parsed = Self {
            dir: PathBuf::new(),
            propagation: Duration::ZERO,
            listing_lag: Duration::ZERO,
            job: Duration::from_secs(2),
            tls: false,
        };
        while let Some(word) = words.next() {
            let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
            match word.as_str() {
                "--dir" => dir = Some(PathBuf::from(value()?)),
                "--propagation-ms" => parsed.propagation = millis(&word, &value()?)?,
                "--listing-lag-ms" => parsed.listing_lag = millis(&word, &value()?)?,
                "--job-ms" => parsed.job = millis(&word, &value()?)?,
                "--tls" => parsed.tls = true,
                _ => return Err(format!("unknown argument {word}")),
            }
        }
        parsed.dir = dir.ok_or("--dir is missing")?;
        Ok(parsed)
    }
}

fn millis(word: &str, value: &str) -> Result<Duration, String> {
    value.parse().map(Duration::from_millis).map_err(|_| format!("{word} needs a number of milliseconds"))
}
