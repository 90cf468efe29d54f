//! The stage: three services at two ArcGIS deployments, rotating every few seconds while their consumers read; and the blows.
//!
//! | service | IAM user | targets |
//! |---|---|---|
//! | `alone` | its keys are all rekeyd's (`exclusive`) | Kubernetes |
//! | `both` | the same | Kubernetes and Server |
//! | `shared` | others may make keys there | Server |
//!
//! Beside them stands the scene's own cloud service with the key of a user no policy names: the neighbour. An operator is played
//! too, who does what `next_command` says where a halt is right, and fails the test where it is not.

use std::fmt::Write as _;
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use rekeyd_lab::{ArcGis, ArcGisOptions, Aws, AwsOptions, Fault, Product, StoredCredential};
use serde_json::Value;

use crate::dice::Dice;
use crate::moto_server::Pair;
use crate::shim::Shim;
use crate::support::{Daemon, Scene};

/// An answer that comes after the process is dead, a request that is carried out when all is over.
const NEVER: Duration = Duration::from_secs(24 * 60 * 60);
/// How long a blow waits for its request or its write.
const OCCASION: Duration = Duration::from_secs(2);
/// How long a service may take to come to rest when nobody strikes any more.
const REST: Duration = Duration::from_secs(60);

/// Who makes the keys.
pub struct Cloud {
    pub endpoint: String,
    pub rotator: Pair,
    /// The lab's, where it is the lab's.
    pub aws: Option<Aws>,
    /// `propagation` and `every`.
    pub timing: (&'static str, &'static str),
}

/// One service of the policy.
pub struct Service {
    pub name: &'static str,
    /// Also the name of its bucket.
    pub user: &'static str,
    pub exclusive: bool,
    pub first_key: Pair,
    /// Deployment and cloud service of each target.
    pub targets: &'static [(usize, &'static str)],
}

/// What was done, for the last line and against tests that do nothing.
#[derive(Debug, Default)]
pub struct Count {
    pub kills: u64,
    pub kills_at_requests: u64,
    pub power_cuts: u64,
    pub writes_unsynced: usize,
    pub writes_lost: usize,
    pub reclaims: u64,
    pub retries: u64,
}

/// A blow.
#[derive(Clone, Debug)]
enum Blow {
    /// SIGKILL after this long.
    Moment(Duration),
    /// SIGKILL at a request: of which system, which operation, what becomes of it, and how long after it has arrived.
    Request(usize, &'static str, Fault, Duration),
    /// The power goes after so many writes.
    Cut(u64),
}

/// The deployments' names in the policy.
pub const SITES: [&str; 2] = ["kubernetes", "server"];
/// Requests worth being killed at. Those that change something stand twice.
const AT_AWS: [&str; 10] = [
    "GetCallerIdentity",
    "ListAccessKeys",
    "GetAccessKeyLastUsed",
    "S3Get",
    "CreateAccessKey",
    "CreateAccessKey",
    "UpdateAccessKey",
    "UpdateAccessKey",
    "DeleteAccessKey",
    "DeleteAccessKey",
];
const AT_ARCGIS: [&str; 6] = ["generateToken", "services", "jobs", "job", "credential/update", "credential/update"];

pub struct Storm<'s> {
    pub scene: &'s Scene,
    pub cloud: Cloud,
    pub sites: Vec<ArcGis>,
    pub services: Vec<Service>,
    pub dice: Dice,
    pub shim: Shim,
    pub count: Count,
    began: Instant,
    daemon: Option<Daemon<'s>>,
    /// What was done, to be told where the test fails.
    diary: Vec<String>,
}

/// Sets the stage in the lab and tells the story in a thread of its own: its waiting must not hold up the lab.
pub async fn in_the_lab(test: &'static str, tell: impl FnOnce(&mut Storm<'_>) + Send + 'static) {
    let options = AwsOptions {
        propagation: Duration::from_millis(300),
        listing_lag: Duration::from_millis(200),
        last_used_lag: Duration::from_millis(200),
        ..AwsOptions::default()
    };
    let scene = Scene::with(options, ArcGisOptions::default()).await;
    let aws = scene.aws.clone();
    let mut services = Vec::new();
    for (name, user, exclusive, targets) in [
        ("alone", "gis-alone", true, [(0, "kubernetes1")].as_slice()),
        ("both", "gis-both", true, &[(0, "kubernetes2"), (1, "serveruser1")]),
        ("shared", "gis-shared", false, &[(1, "serveruser2")]),
    ] {
        aws.add_user(user);
        aws.add_bucket(user, &[user]);
        let first_key = aws.create_key(user);
        services.push(Service { name, user, exclusive, first_key, targets });
    }
    let cloud =
        Cloud { endpoint: aws.endpoint(), rotator: aws.admin(), aws: Some(aws.clone()), timing: ("400ms", "3s") };
    let sites = vec![ArcGis::start(options_of(0), &aws).await, ArcGis::start(options_of(1), &aws).await];
    tell_it(test, scene, cloud, sites, services, tell).await;
}

pub fn options_of(site: usize) -> ArcGisOptions {
    let product = [Product::Kubernetes, Product::Server][site];
    ArcGisOptions { product, job_duration: Duration::from_millis(300), ..ArcGisOptions::default() }
}

/// The story on any cloud.
pub async fn tell_it(
    test: &'static str,
    mut scene: Scene,
    cloud: Cloud,
    sites: Vec<ArcGis>,
    services: Vec<Service>,
    tell: impl FnOnce(&mut Storm<'_>) + Send + 'static,
) {
    for site in &sites {
        site.add_provider("betc4g098c", "AWS", None);
    }
    for service in &services {
        for (site, id) in service.targets {
            let (access_key, secret_key) = service.first_key.clone();
            let held = StoredCredential { access_key, secret_key };
            sites[*site].add_service(id, "betc4g098c", service.user, Some(held));
        }
    }
    scene.write_secret("rotator-secret", &cloud.rotator.1);
    scene.keep_program();
    let told = tokio::task::spawn_blocking(move || {
        let mut storm = Storm {
            scene: &scene,
            cloud,
            sites,
            services,
            dice: Dice::thrown(test),
            shim: Shim::of(&scene.path("state")),
            count: Count::default(),
            began: Instant::now(),
            daemon: None,
            diary: Vec::new(),
        };
        tell(&mut storm);
        storm.say(test);
    });
    if let Err(failed) = told.await {
        std::panic::resume_unwind(failed.into_panic());
    }
}

/// A line on the standard error of the test's own process, past the capture of what tests print.
pub fn tell_everybody(line: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr().lock(), "{line}");
}

/// How many kills a story is given: `REKEYD_CHAOS_KILLS`, or what suits a short run.
pub fn kills(short: u64) -> u64 {
    match std::env::var("REKEYD_CHAOS_KILLS") {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("REKEYD_CHAOS_KILLS={text} is no number")),
        Err(_) => short,
    }
}

impl<'s> Storm<'s> {
    /// A running daemon that has adopted every first key, and rotates on its timetable from now on.
    pub fn begin(&mut self) {
        // Without a timetable first: a key that was made some time ago would be due before it is adopted.
        self.write_policy(false);
        self.start();
        for service in &self.services {
            self.scene.write_secret("first-secret", &service.first_key.1);
            let file = self.scene.path("first-secret").display().to_string();
            let ran = self.scene.run(&["adopt", service.name, &service.first_key.0, "--secret-file", &file]);
            assert_eq!(ran.code, Some(0), "{ran:?}");
        }
        self.take_policy(true);
    }

    /// Strikes until it has struck so often.
    pub fn rage(&mut self, blows: u64) {
        while self.count.kills + self.count.power_cuts < blows {
            // A start is as good a moment as any other.
            match self.dice.once_in(4) {
                true => self.spawn(),
                false => {
                    self.start();
                    self.operate();
                }
            }
            let blow = self.choose();
            self.strike(blow);
            if self.dice.once_in(8) {
                // Long enough for something to become due, or to have ended, with nobody there.
                std::thread::sleep(self.dice.millis(500, 2000));
            }
        }
    }

    fn choose(&mut self) -> Blow {
        let at_aws = self.cloud.aws.is_some();
        match self.dice.below(100) {
            0..35 => Blow::Moment(self.dice.millis(5, 1600)),
            35..70 => {
                let system = if at_aws { self.dice.below(3) } else { self.dice.below(2) } as usize;
                let operation = *self.dice.pick(if system == 2 { &AT_AWS[..] } else { &AT_ARCGIS[..] });
                let fault = match self.dice.below(3) {
                    // It was carried out and the answer is held back; it is never carried out; it is, when the process is dead.
                    0 => Fault::Slow(NEVER),
                    1 => Fault::Delayed(NEVER),
                    _ => Fault::Delayed(self.dice.millis(100, 700)),
                };
                Blow::Request(system, operation, fault, self.dice.millis(0, 40))
            }
            _ => Blow::Cut(1 + self.dice.below(40)),
        }
    }

    fn strike(&mut self, blow: Blow) {
        self.note(format!("{blow:?}"));
        match blow {
            Blow::Moment(after) => {
                self.live_until(Instant::now() + after, |_| false);
                self.kill();
            }
            Blow::Request(system, operation, fault, after) => {
                match system {
                    2 => self.aws().fault(operation, fault),
                    site => self.sites[site].fault(operation, fault),
                }
                let met = self.live_until(Instant::now() + OCCASION, |storm| {
                    let left = match system {
                        2 => storm.aws().faults_left(operation),
                        site => storm.sites[site].faults_left(operation),
                    };
                    left == 0
                });
                std::thread::sleep(after);
                self.kill();
                self.count.kills_at_requests += u64::from(met);
                if let Some(aws) = &self.cloud.aws {
                    aws.clear_faults();
                }
                self.sites.iter().for_each(ArcGis::clear_faults);
            }
            Blow::Cut(calls) => {
                self.shim.cut_after(calls);
                self.cut();
            }
        }
    }

    /// Waits for the power to go, as the shim was told; where nothing is written for long, it is an ordinary kill.
    pub fn cut(&mut self) {
        let deadline = Instant::now() + OCCASION;
        let daemon = self.daemon.as_mut().expect("a daemon runs");
        let ended = loop {
            match daemon.has_ended() {
                Some(status) => break Some(status),
                None if Instant::now() > deadline => break None,
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        };
        let Some(status) = ended else {
            self.kill();
            self.shim.calm();
            return;
        };
        assert_eq!(status.signal(), Some(9), "it ended by itself: {status}\n{}", daemon.log());
        let (unsynced, lost) = self.shim.fall(&mut self.dice).expect("the shim says what was not synced");
        self.count.power_cuts += 1;
        self.count.writes_unsynced += unsynced;
        self.count.writes_lost += lost;
        self.note(format!("power cut with {unsynced} writes unsynced, {lost} of them lost or torn"));
        self.bury();
    }

    pub fn kill(&mut self) {
        let mut daemon = self.daemon.take().expect("a daemon runs");
        assert_eq!(daemon.has_ended(), None, "it ended by itself:\n{}", daemon.log());
        daemon.kill9();
        self.count.kills += 1;
        self.bury();
    }

    /// Ends it as an operator would.
    pub fn stop(&mut self) {
        let daemon = self.daemon.take().expect("a daemon runs");
        assert_eq!(daemon.stop().code(), Some(0));
        self.bury();
    }

    /// Takes what is left of a daemon away, and looks whether it gave a secret away.
    fn bury(&mut self) {
        self.daemon = None;
        self.assert_no_secret_seen();
    }

    pub fn assert_no_secret_seen(&self) {
        let mut secrets = self.scene.aws.all_secrets();
        secrets.push(self.cloud.rotator.1.clone());
        secrets.extend(self.services.iter().map(|service| service.first_key.1.clone()));
        let mut urls = String::new();
        for site in &self.sites {
            secrets.extend(site.all_secrets());
            urls += &site.urls().join("\n");
        }
        self.scene.assert_none_seen(secrets, &urls);
    }

    /// Starts a daemon and waits for nothing.
    pub fn spawn(&mut self) {
        let mut command = self.scene.command(&["run"]);
        self.shim.under(&mut command);
        self.daemon = Some(self.scene.spawn(command));
    }

    pub fn start(&mut self) {
        self.spawn();
        let ready = self.live_until(Instant::now() + REST, |storm| storm.daemon().log().contains("ready"));
        assert!(ready, "it is not ready within {REST:?}:\n{}", self.daemon().log());
    }

    pub fn daemon(&self) -> &Daemon<'s> {
        self.daemon.as_ref().expect("a daemon runs")
    }

    pub fn daemon_mut(&mut self) -> &mut Daemon<'s> {
        self.daemon.as_mut().expect("a daemon runs")
    }

    fn aws(&self) -> &Aws {
        self.cloud.aws.as_ref().expect("only the lab's own AWS can be told what to do")
    }

    /// Waits; fails where the daemon ends by itself meanwhile. Says whether what was waited for came.
    pub fn live_until(&mut self, deadline: Instant, has_come: impl Fn(&Self) -> bool) -> bool {
        loop {
            if let Some(status) = self.daemon_mut().has_ended() {
                panic!("it ended by itself: {status}\n{}", self.daemon().log());
            }
            if has_come(self) {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            std::thread::sleep(left.min(Duration::from_millis(5)));
        }
    }

    /// What an operator does who looks at `status`: a key that may be a lost mint's is told to be ours, a push that was lost three
    /// times is retried. Every other halt is one too many.
    pub fn operate(&mut self) {
        for status in self.status() {
            if status["state"] != "halted" {
                continue;
            }
            let name = status["name"].as_str().expect("a name");
            let service = self.services.iter().find(|service| service.name == name).expect("it is in the policy");
            if self.pushes_lost_too_often(&status) {
                let ran = self.scene.run(&["retry", name]);
                assert_eq!(ran.code, Some(0), "{ran:?}");
                self.count.retries += 1;
                self.note(format!("{name} was halted ({}), three pushes being lost; it is retried", status["reason"]));
                continue;
            }
            let right = status["reason"] == "mint-unsettled" && !service.exclusive;
            assert!(right, "halted for no good reason: {status:#}\n{}", self.history_text(name));
            // Two lost mints are never found together: nothing is minted while one is unsettled.
            let strangers = status["strangers"].as_array().expect("an array");
            assert_eq!(strangers.len(), 1, "{status:#}");
            let key = strangers[0].as_str().expect("an id");
            let next = status["next_command"].as_str().expect("a command");
            assert!(next.contains(&format!("rekeyd reclaim {name} {key}")), "{next}");
            let ran = self.scene.run(&["reclaim", name, key]);
            assert_eq!(ran.code, Some(0), "{ran:?}");
            self.count.reclaims += 1;
            self.note(format!("{name} was halted (mint-unsettled), {key} is reclaimed"));
        }
    }

    /// A push is tried three times, so a third kill during the same one halts, and the advice is to retry.
    fn pushes_lost_too_often(&self, status: &Value) -> bool {
        let lost = |line: &&Value| line["event"] == "push_unknown" && line["rotation"] == status["rotation"];
        let name = status["name"].as_str().expect("a name");
        let advised =
            status["next_command"].as_str().is_some_and(|next| next.contains(&format!("rekeyd retry {name}")));
        let stuck = status["reason"] == "push-unproven" || status["reason"] == "stuck-between";
        stuck && advised && self.history(name).iter().filter(lost).count() >= 3
    }

    /// The weather clears: no timetable any more, and nothing struck. Waits until every service is at rest.
    pub fn come_to_rest(&mut self) {
        if self.daemon.is_none() {
            self.start();
        }
        self.take_policy(false);
        let deadline = Instant::now() + REST;
        while !self.status().iter().all(|status| status["state"] == "idle" && status["phase"].is_null()) {
            assert!(Instant::now() < deadline, "not at rest within {REST:?}: {:#}", Value::Array(self.status()));
            self.operate();
            if self.status().iter().any(|status| status["state"] == "waiting") {
                // What it waits for is mended, and an operator need not sit out a pause of a minute.
                self.daemon().signal("USR2");
            }
            self.live_until(Instant::now() + Duration::from_millis(200), |_| false);
        }
    }

    /// Each service as `status --json` shows it.
    pub fn status(&self) -> Vec<Value> {
        let ran = self.scene.run(&["status", "--json"]);
        let status: Value = serde_json::from_str(&ran.out).unwrap_or_else(|error| panic!("{error}: {ran:?}"));
        status["services"].as_array().expect("an array").clone()
    }

    pub fn status_of(&self, service: &str) -> Value {
        self.status().into_iter().find(|status| status["name"] == service).expect("it is in the policy")
    }

    pub fn history(&self, service: &str) -> Vec<Value> {
        let ran = self.scene.run(&["history", service, "--json"]);
        serde_json::from_str(&ran.out).unwrap_or_else(|error| panic!("{error}: {ran:?}"))
    }

    pub fn history_text(&self, service: &str) -> String {
        self.scene.run(&["history", service]).out
    }

    /// What the cloud service of a target holds, in truth.
    pub fn held(&self, target: &(usize, &str)) -> String {
        self.sites[target.0].held_key(target.1).expect("it holds a key").0
    }

    /// Writes a policy with a timetable or without, and has the daemon take it.
    pub fn take_policy(&mut self, timetable: bool) {
        self.write_policy(timetable);
        let taken = |storm: &Self| storm.daemon().log().matches("the new policy is in force").count();
        let before = taken(self);
        self.daemon().signal("HUP");
        let in_force = self.live_until(Instant::now() + REST, |storm| taken(storm) > before);
        assert!(in_force, "the policy is not taken:\n{}", self.daemon().log());
    }

    pub fn write_policy(&self, timetable: bool) {
        let home = self.scene.path("").display().to_string();
        let home = home.trim_end_matches('/');
        let Cloud { endpoint, rotator: (rotator, _), timing: (propagation, every), .. } = &self.cloud;
        let every = if timetable { format!("every = \"{every}\"") } else { String::new() };
        let mut text = format!(
            r#"version = 1

[daemon]
journal = "sqlite:{home}/state/journal.db"
control = "{home}/control.sock"
listen = "off"

[defaults]
propagation = "{propagation}"
probes = 2
probe_interval = "100ms"
soak = "600ms"
soak_unproven = "800ms"
watch = "400ms"
observe = "2s"

[aws.main]
region = "us-east-1"
endpoint_url = "{endpoint}"
sts_endpoint_url = "{endpoint}"
s3_endpoint_url = "{endpoint}"
access_key_id = "{rotator}"
secret_access_key = {{ file = "{home}/rotator-secret" }}
settle = "1500ms"
last_used_lag = "300ms"
request_timeout = "5s"
"#
        );
        for (name, site) in SITES.iter().zip(&self.sites) {
            let _ = write!(
                text,
                r#"
[arcgis.{name}]
product = "{name}"
admin_url = "{admin}"
{portal}
username = "rotator"
password = {{ file = "{home}/arcgis-password" }}
max_jobs = 4
poll = "50ms"
readback = "1s"
job_timeout = "10s"
request_timeout = "5s"
"#,
                admin = site.admin_url(),
                portal = match *name {
                    "kubernetes" => format!("portal_url = \"{}\"", site.portal_url()),
                    _ => String::new(),
                },
            );
        }
        for Service { name, user, exclusive, targets, .. } in &self.services {
            let targets: Vec<_> = targets
                .iter()
                .map(|(site, id)| {
                    format!("{{ kind = \"arcgis\", deployment = \"{}\", service_id = \"{id}\" }}", SITES[*site])
                })
                .collect();
            let _ = write!(
                text,
                r#"
[[service]]
name = "{name}"
{every}
issuer = {{ kind = "aws-iam", account = "main", user = "{user}", exclusive = {exclusive}, probe = {{ bucket = "{user}", region = "us-east-1" }} }}
target = [{}]
"#,
                targets.join(", ")
            );
        }
        std::fs::write(self.scene.policy(), text).expect("the policy can be written");
    }

    pub fn note(&mut self, what: String) {
        let at = self.began.elapsed().as_secs_f64();
        self.diary.push(format!("{at:7.2} s  {what}"));
    }

    fn say(&self, test: &str) {
        let Count { kills, kills_at_requests, power_cuts, writes_unsynced, writes_lost, reclaims, retries } =
            &self.count;
        let rotations: u64 = self.status().iter().filter_map(|status| status["rotations"]["done"].as_u64()).sum();
        let (requests, refusals) = self.consumed();
        tell_everybody(&format!(
            "{test}: seed {}, {:.0} s: {kills} kills ({kills_at_requests} at a request), {power_cuts} power cuts ({writes_lost} of \
             {writes_unsynced} unsynced writes lost or torn), {rotations} rotations done, {reclaims} lost keys reclaimed, {retries} lost pushes retried, \
             {requests} consumer requests, {refusals} refused",
            self.dice.seed,
            self.began.elapsed().as_secs_f64(),
        ));
    }

    /// Requests and refusals of every consumer, the neighbour's too.
    pub fn consumed(&self) -> (u64, u64) {
        let targets = self.services.iter().flat_map(|service| service.targets);
        let mut counts: Vec<_> = targets.map(|(site, id)| self.sites[*site].consumer(id)).collect();
        counts.push(self.scene.arcgis.consumer(crate::support::CLOUD_SERVICE));
        (counts.iter().map(|count| count.requests).sum(), counts.iter().map(|count| count.refusals).sum())
    }
}

impl Drop for Storm<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let last = self.diary.len().saturating_sub(30);
            eprintln!("seed {}; what was done last:\n{}", self.dice.seed, self.diary[last..].join("\n"));
        }
    }
}
