//! The main job, shown: `cargo run --example demo`.
//!
//! The real daemon, engine and journal, in this process, against the lab's clouds and ArcGIS on loopback, on a timetable of seconds: a
//! key of each kind of issuer, in each kind of place that holds one, on both products and beside them. What is printed is read from the
//! journal while it happens. It ends after two full rotations of each service, and after one of them has left its key behind for a
//! role; with status 1 if a consumer was refused once or cannot read at the end, a key was left over, or it took too long.

mod clouds;
mod issuers;
mod places;
mod stage;

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use rekeyd::daemon::protocol::{Answer, Ask, Carried, Request, SaidLine, Told};
use rekeyd::daemon::{self, records, signals::Signals};
use rekeyd::model::{Keyless, ServiceName};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

use clouds::Clouds;
use issuers::{Adoption, Issuer};
use places::{Place, Seen};

const ROTATIONS: usize = 2;
const TOO_LONG: Duration = Duration::from_secs(180);

/// The service that leaves its key behind at the end, and the user whose keys it holds until then.
const SWITCHED: &str = "kubernetes-store";
const SWITCHED_USER: &str = "arcgis-kubernetes";

/// One service of the demo: an issuer, a place that holds its key, and what was printed of its history.
struct Site {
    name: &'static str,
    issuer: Box<dyn Issuer>,
    place: Place,
    printed: usize,
    done: usize,
    /// Its cloud service uses the role of its nodes by now, or soon.
    switch_ordered: bool,
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
    // The journal tells the story; only what is wrong is wanted from the log. Until they are adopted, services halt as they should.
    let log = tracing_subscriber::fmt().with_ansi(false).with_writer(std::io::stderr);
    let log = log.with_env_filter("warn,rekeyd::engine=off").with_filter_reloading();
    let log_filter = log.reload_handle();
    log.init();
    rustls::crypto::aws_lc_rs::default_provider().install_default().map_err(|_| "the TLS provider was set twice")?;
    // Nobody else may look into it, and it is gone at the end.
    let mode = Permissions::from_mode(0o700);
    let folder = tempfile::Builder::new().prefix("rekeyd-demo-").permissions(mode).tempdir();
    let folder = folder.map_err(|error| format!("a folder for the demo: {error}"))?;
    let folder = folder.path();
    let clouds = Clouds::start().await;
    let mut sites = stage::sites(&clouds, folder).await?;
    let policy = stage::write_policy(folder, &clouds, &sites)?;

    introduce(&sites, &policy);
    let signals = Signals::install().map_err(|error| format!("signals: {error}"))?;
    let started = Instant::now();
    let running = tokio::spawn(async move { daemon::run(&policy, signals).await });
    adopt_all(folder, &sites).await?;
    log_filter.reload("warn").map_err(|error| format!("the log: {error}"))?;
    while sites.iter().any(|site| site.done < site.wanted()) {
        if running.is_finished() {
            return Err("the daemon ended".into());
        }
        if started.elapsed() > TOO_LONG {
            return Err(format!("no {ROTATIONS} rotations of each service within {} s", TOO_LONG.as_secs()));
        }
        for site in &mut sites {
            show_news(site, folder, started);
            if site.name == SWITCHED && site.done >= ROTATIONS && !site.switch_ordered {
                issuers::give_nodes_a_role(&site.place.deployment().arcgis, &clouds.aws, SWITCHED_USER);
                site.switch_ordered = switch(site, folder).await?;
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    running.abort();
    let rotations: usize = sites.iter().map(|site| site.done).sum();
    let jobs: usize = sites.iter().map(|site| site.place.jobs()).sum();
    println!();
    println!("{rotations} rotations in {:.0} s, {jobs} ArcGIS jobs;", started.elapsed().as_secs_f64());
    println!("{}", clouds.mints());
    verdict(&sites, folder)
}

fn introduce(sites: &[Site], policy: &Path) {
    println!("rekeyd demo: the real daemon against stand-ins of five clouds and of ArcGIS, all on 127.0.0.1");
    println!("  policy   {}", policy.display());
    for Site { name, issuer, place, .. } in sites {
        let (title, key) = (issuer.title(), issuer.adoption().key);
        println!("  {name:<17} {title}, key {key}, held by {}", place.word());
        if let Some(follower) = issuer.follower() {
            println!("  {:<17} a SAS that this key signs, held by another; it moves with {name}", follower.name);
        }
    }
    println!(
        "Consumers read with each of these keys 40 times a second. Few issuers tell which of their keys is in use:"
    );
    println!("services halt until `rekeyd adopt` says so, here over the control socket.");
    println!();
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

    /// What those who read with it have seen.
    fn consumers(&self) -> Vec<Seen> {
        self.place.seen(self.issuer.follower().map(|follower| follower.cloud_service))
    }

    /// What is wrong with where it stands. The next rotation may have begun already, and have made its key: the journal, which is asked
    /// after the issuer, says so before there is one.
    fn flaw(&self, folder: &Path) -> Option<String> {
        let held = self.place.held();
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
    let held = site.place.held();
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
