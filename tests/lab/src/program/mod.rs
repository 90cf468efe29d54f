//! What the program runs, whichever form it was started in: stand-ins, and the names around them.

mod arcgis;
pub(crate) mod arguments;
mod azure;
mod control;
mod pair;

use std::fmt::Write as _;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rekeyd_lab::{ArcGis, Aws};
use tokio::signal::unix::{SignalKind, signal};

use self::arguments::{Arguments, Form};
use self::azure::Tenant;

#[derive(Clone)]
struct Lab {
    /// None where Azure was asked for alone.
    aws: Option<Aws>,
    /// None where an ArcGIS was asked for alone.
    azure: Option<Tenant>,
    sites: Vec<Site>,
    /// Where the secrets are.
    dir: PathBuf,
    /// Of the control endpoint; 0 is any that is free.
    control_port: u16,
}

/// One ArcGIS.
#[derive(Clone)]
struct Site {
    /// As the control endpoint knows it: its product.
    name: &'static str,
    version: String,
    username: String,
    arcgis: ArcGis,
    places: Vec<Place>,
}

/// A provider, a cloud service or a data item.
#[derive(Clone)]
struct Place {
    kind: Kind,
    /// As the API knows it; of a data item the path.
    id: String,
    /// Its provider, or what a provider is called.
    of: String,
    /// What its consumer reads, a bucket or a container; empty for a provider.
    bucket: String,
    /// Whose key it held at the start; `None` where it held none of its own.
    holder: Option<Holder>,
}

#[derive(Clone)]
enum Holder {
    /// An IAM user.
    User(String),
    /// A storage account, and the slot.
    Account(String, &'static str),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Provider,
    Service,
    Item,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Kind::Provider => "provider",
            Kind::Service => "service",
            Kind::Item => "data item",
        }
    }
}

/// The IAM user that stands for the role of the nodes: a service whose credential is `IAM-ROLE` reads its bucket as this one.
const NODES: &str = "the-nodes-role";

/// What the nodes' cloud hands them.
fn role_of_nodes(aws: &Aws) -> (String, String) {
    aws.add_user(NODES);
    aws.create_key(NODES)
}

/// Until a signal says that it is enough.
pub(crate) async fn run(arguments: Arguments) -> std::io::Result<()> {
    // Handlers stand before anything else: a signal during the start must end us too.
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let lab = match arguments.form() {
        Form::Pair(pair) => pair::start(&pair).await?,
        Form::ArcGis(one) => arcgis::start(&one).await?,
        Form::Azure(one) => azure::start(&one).await?,
    };
    let (control, serving) = control::start(lab.clone()).await?;
    print!("{}", introduction(&lab, &control));
    std::io::stdout().flush()?;
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

fn keep_admin(dir: &Path, aws: &Aws) -> std::io::Result<()> {
    let (id, secret) = aws.admin();
    keep(dir, "aws-access-key-id", &id)?;
    keep(dir, "aws-secret-access-key", &secret)
}

fn introduction(lab: &Lab, control: &str) -> String {
    let mut said = match &lab.aws {
        Some(aws) => {
            format!("aws         {}  (IAM, STS, S3; account 111122223333; region us-east-1)\n", aws.endpoint())
        }
        None => String::new(),
    };
    said += &lab.azure.as_ref().map(Tenant::introduction).unwrap_or_default();
    for Site { name, version, username, arcgis, places } in &lab.sites {
        let mut line = |text: String| writeln!(said, "{text}").expect("a String takes every write");
        line(format!("{name:<11} {}  (version {version})", arcgis.admin_url()));
        let (portal, login) = (arcgis.portal_url(), arcgis.token_url());
        let of_portal = if login.starts_with(&portal) { format!("  (portal {portal})") } else { String::new() };
        line(format!("            user {username} logs in at {login}{of_portal}"));
        for place in places {
            line(format!("            {}", place.line()));
        }
    }
    let dir = lab.dir.display();
    said + &format!("control     {control}/lab/state\ncredentials {dir} (files readable by their owner only)\nready\n")
}

impl Place {
    /// What that is in its cloud.
    fn reads(&self) -> &'static str {
        match self.holder {
            Some(Holder::Account(..)) => "container",
            Some(Holder::User(_)) | None => "bucket",
        }
    }

    fn line(&self) -> String {
        let Place { kind, id, of, bucket, .. } = self;
        let reads = self.reads();
        let around = match kind {
            Kind::Provider => format!("{}, {of}", kind.word()),
            Kind::Service => format!("{} of {of}, {reads} {bucket}", kind.word()),
            Kind::Item => format!("{}, {reads} {bucket}", kind.word()),
        };
        let key = match (&self.holder, kind) {
            (Some(Holder::User(user)), _) => format!("key of user {user}"),
            (Some(Holder::Account(account, slot)), _) => format!("{slot} of account {account}"),
            (None, Kind::Service) => "no key of its own".to_owned(),
            (None, Kind::Provider | Kind::Item) => "no key".to_owned(),
        };
        format!("{id} ({around}): {key}")
    }
}

fn count(lab: &Lab) -> String {
    let consumers = lab.sites.iter().flat_map(|site| {
        let used = site.places.iter().filter(|place| place.kind != Kind::Provider);
        used.map(|place| {
            let count = site.arcgis.consumer(&place.id);
            let last = count.last_refusal.map(|last| format!(", last {last}")).unwrap_or_default();
            format!("{} {} {} requests, {} refused{last}", site.name, place.id, count.requests, count.refusals)
        })
    });
    // Azure alone has nobody who uses its keys.
    let azure = lab.azure.as_ref().filter(|_| lab.sites.is_empty()).map(Tenant::count);
    consumers.chain(azure).collect::<Vec<_>>().join("; ")
}
