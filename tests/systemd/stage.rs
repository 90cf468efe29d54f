//! The stage: an AWS and an ArcGIS of the lab in the test's own process, whose cloud service reads with the key it holds forty times a
//! second; and beside them a machine with rekeyd installed from its package, its policy, and its secrets in files of root's.
//!
//! A story is told between two looks. Whatever it is about, at its end no consumer was refused, and no secret stands in the machine's
//! journal, on its disk, or in anything that was printed.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock};

use rekeyd_lab::{ArcGis, ArcGisOptions, Aws, AwsOptions, RequestLine, StoredCredential};
use serde_json::Value;

use crate::machine::{Machine, Ran, folder, run_to_end, source};

/// The service, as policy, journal and unit call it.
pub const SERVICE: &str = "prod-object-store";
/// The ArcGIS cloud service behind its target.
pub const CLOUD_SERVICE: &str = "eg7hrelq6b";
/// The IAM user behind its issuer.
pub const USER: &str = "arcgis-object-store";
const PROVIDER: &str = "betc4g098c";
/// What the cloud service reads.
pub const BUCKET: &str = "gis-store";
/// Where the lab's administrators' passwords are, by the names the policy has for them.
pub const SECRETS: &str = "/etc/rekeyd/secrets";
/// The policy.
pub const POLICY: &str = "/etc/rekeyd/policy.toml";

/// How a story's world is.
pub struct Setting {
    /// The account.
    pub aws: AwsOptions,
    /// The deployment.
    pub arcgis: ArcGisOptions,
    /// Whether rekeyd is installed before the machine boots.
    pub installed: bool,
}

impl Default for Setting {
    fn default() -> Self {
        Setting { aws: AwsOptions::default(), arcgis: ArcGisOptions::default(), installed: true }
    }
}

/// A policy of one service, in seconds. Every field is text as it stands in the file.
pub struct PolicyText {
    /// `soak`.
    pub soak: &'static str,
    /// `watch`.
    pub watch: &'static str,
    /// How the policy names the secret of the AWS account.
    pub aws_secret: &'static str,
    /// More lines for `[daemon]`.
    pub daemon: String,
    /// More lines for `[arcgis.prod]`.
    pub arcgis: String,
    /// More lines for the service itself, such as a timetable.
    pub service: String,
    /// More tables at the end, such as a second service.
    pub more: String,
}

impl Default for PolicyText {
    fn default() -> Self {
        PolicyText {
            soak: "300ms",
            watch: "300ms",
            aws_secret: r#"{ credential = "aws-secret" }"#,
            daemon: String::new(),
            arcgis: String::new(),
            service: String::new(),
            more: String::new(),
        }
    }
}

/// What a story has at hand.
pub struct Stage {
    /// The account.
    pub aws: Aws,
    /// The deployment.
    pub arcgis: ArcGis,
    /// The key the cloud service holds at first: id and secret.
    pub first_key: (String, String),
    /// The machine.
    pub machine: Machine,
    /// The status listener's.
    pub port: u16,
    /// More that nobody may see.
    more_secrets: Mutex<Vec<String>>,
    /// The lab lives as long as this.
    runtime: tokio::runtime::Runtime,
}

/// Tells a story where a tree with systemd is to be had; says that it is skipped where not.
pub fn story(tell: impl FnOnce(&mut Stage)) {
    story_in(Setting::default(), tell);
}

/// The same in a world of its own.
pub fn story_in(setting: Setting, tell: impl FnOnce(&mut Stage)) {
    let Some(tree) = tree() else { return };
    let mut stage = Stage::set(setting, &tree);
    let told = catch_unwind(AssertUnwindSafe(|| {
        tell(&mut stage);
        stage.judge();
    }));
    if let Err(failed) = told {
        if stage.machine.runs() {
            let show = |words: &[&str]| {
                let ran = stage.machine.run(words);
                eprintln!("{}{}", ran.out, ran.err);
            };
            show(&["systemctl", "status", "--no-pager", "--full", "rekeyd"]);
            show(&["rekeyd", "status"]);
            show(&["journalctl", "--no-pager", "-n", "80"]);
        }
        resume_unwind(failed);
    }
}

/// The tree that `tests/run` has made and named, for the user who may boot it.
pub fn tree() -> Option<PathBuf> {
    let Some(tree) = std::env::var_os("REKEYD_SYSTEMD") else {
        println!("skipped: needs a systemd to boot, run tests/run");
        return None;
    };
    if !rustix::process::geteuid().is_root() {
        println!("skipped: a systemd is booted by root only");
        return None;
    }
    let tree = PathBuf::from(tree);
    // `provision` makes a tree anew only once nobody holds it. One that stands elsewhere, without this file, is not its to make.
    static HELD: OnceLock<Option<File>> = OnceLock::new();
    HELD.get_or_init(|| {
        let lock = File::open(tree.with_file_name("lock")).ok()?;
        lock.lock_shared().expect("it can be locked");
        Some(lock)
    });
    Some(tree)
}

impl Stage {
    fn set(setting: Setting, tree: &Path) -> Stage {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.expect("a runtime can be made");
        let password = setting.arcgis.password.clone();
        let (aws, arcgis, first_key) = runtime.block_on(async {
            let aws = Aws::start(setting.aws).await;
            aws.add_user(USER);
            aws.add_bucket(BUCKET, &[USER]);
            let first_key = aws.create_key(USER);
            let arcgis = ArcGis::start(setting.arcgis, &aws).await;
            arcgis.add_provider(PROVIDER, "AWS", None);
            let held = StoredCredential { access_key: first_key.0.clone(), secret_key: first_key.1.clone() };
            arcgis.add_service(CLOUD_SERVICE, PROVIDER, BUCKET, Some(held));
            (aws, arcgis, first_key)
        });
        let installed = setting.installed.then(|| installed(tree));
        let lower: Vec<&Path> = installed.iter().map(|path| path.as_path()).chain([tree]).collect();
        let mut machine = Machine::on(&lower);
        machine.boot();
        let more_secrets = Mutex::new(vec![password.clone()]);
        let stage = Stage { aws, arcgis, first_key, machine, port: free_port(), more_secrets, runtime };
        if setting.installed {
            stage.furnish();
        }
        stage
    }

    /// Puts policy and secrets in place.
    pub fn furnish(&self) {
        self.secret("arcgis-prod", &self.password());
        self.secret("aws-secret", &self.aws.admin().1);
        self.policy(&PolicyText::default());
    }

    /// The first one of ArcGIS's rotator.
    pub fn password(&self) -> String {
        self.more_secrets.lock().expect("nobody panics with it")[0].clone()
    }

    /// Puts a secret where the unit takes it from.
    pub fn secret(&self, name: &str, value: &str) {
        self.machine.write(&format!("{SECRETS}/{name}"), 0o600, format!("{value}\n").as_bytes());
    }

    /// Puts a policy in place.
    pub fn policy(&self, text: &PolicyText) {
        self.machine.write(POLICY, 0o644, self.policy_of(text).as_bytes());
    }

    /// The policy of these parts.
    pub fn policy_of(&self, text: &PolicyText) -> String {
        let (aws, admin) = (self.aws.endpoint(), self.aws.admin().0);
        let (admin_url, portal_url) = (self.arcgis.admin_url(), self.arcgis.portal_url());
        let PolicyText { soak, watch, aws_secret, daemon, arcgis, service, more } = text;
        format!(
            r#"version = 1

[daemon]
listen = "127.0.0.1:{port}"
{daemon}

[aws.main]
region = "us-east-1"
endpoint_url = "{aws}"
sts_endpoint_url = "{aws}"
s3_endpoint_url = "{aws}"
access_key_id = "{admin}"
secret_access_key = {aws_secret}
settle = "300ms"
last_used_lag = "0s"
request_timeout = "5s"

[arcgis.prod]
product = "kubernetes"
admin_url = "{admin_url}"
portal_url = "{portal_url}"
username = "rotator"
password = {{ credential = "arcgis-prod" }}
poll = "50ms"
readback = "5s"
job_timeout = "60s"
request_timeout = "5s"
{arcgis}

[[service]]
name = "{SERVICE}"
propagation = "0s"
probes = 2
probe_interval = "50ms"
soak = "{soak}"
soak_unproven = "{soak}"
watch = "{watch}"
observe = "1s"
{service}

  [service.issuer]
  kind = "aws-iam"
  account = "main"
  user = "{USER}"
  probe = {{ bucket = "{BUCKET}", region = "us-east-1", expect = "read" }}

  [[service.target]]
  kind = "arcgis"
  deployment = "prod"
  service_id = "{CLOUD_SERVICE}"

{more}
"#,
            port = self.port,
        )
    }

    /// More of the unit, as an administrator adds it.
    pub fn drop_in(&self, lines: &str) {
        self.machine.write("/etc/systemd/system/rekeyd.service.d/test.conf", 0o644, lines.as_bytes());
        self.machine.must(&["systemctl", "daemon-reload"]);
    }

    /// Whatever happens, nobody may see this either.
    pub fn also_secret(&self, secret: &str) {
        self.more_secrets.lock().expect("nobody panics with it").push(secret.to_owned());
    }

    /// A second service for the policy, `second`, with a user and a cloud service of its own.
    pub fn second_service(&self) -> String {
        // Its consumer is a task of the lab's.
        let _lab = self.runtime.enter();
        self.aws.add_user("second");
        self.aws.add_bucket("second", &["second"]);
        let (access_key, secret_key) = self.aws.create_key("second");
        self.arcgis.add_service("second0001", PROVIDER, "second", Some(StoredCredential { access_key, secret_key }));
        r#"
[[service]]
name = "second"
propagation = "0s"
probes = 2
probe_interval = "50ms"
soak = "300ms"
watch = "300ms"

  [service.issuer]
  kind = "aws-iam"
  account = "main"
  user = "second"
  probe = { bucket = "second", region = "us-east-1" }

  [[service.target]]
  kind = "arcgis"
  deployment = "prod"
  service_id = "second0001"
"#
        .to_owned()
    }

    /// Rotates the service from begin to end.
    pub fn rotate(&self) {
        let ran = self.rekeyd(&["rotate", SERVICE, "--wait=done"]);
        assert_eq!(ran.code, Some(0), "{ran:?}");
    }

    /// Starts the service with the policy in place, and gives it the first key.
    pub fn begin(&self) {
        self.machine.must(&["systemctl", "start", "rekeyd"]);
        self.adopt();
    }

    /// Says which key the service uses now.
    pub fn adopt(&self) {
        let file = "/root/first-secret";
        self.machine.write(file, 0o600, format!("{}\n", self.first_key.1).as_bytes());
        self.machine.must(&["rekeyd", "adopt", SERVICE, &self.first_key.0, "--secret-file", file]);
        self.machine.must(&["rm", file]);
    }

    /// Runs a command of the program, as root.
    pub fn rekeyd(&self, words: &[&str]) -> Ran {
        self.machine.run(&[&["rekeyd"], words].concat())
    }

    /// The service as `status --json` shows it.
    pub fn status(&self) -> Value {
        self.status_of(SERVICE)
    }

    /// Another one of the policy's; null where it has none of that name.
    pub fn status_of(&self, name: &str) -> Value {
        let ran = self.rekeyd(&["status", "--json"]);
        let status: Value = serde_json::from_str(&ran.out).unwrap_or_else(|error| panic!("{error}: {ran:?}"));
        let services = status["services"].as_array().expect("services are a list");
        services.iter().find(|service| service["name"] == name).cloned().unwrap_or(Value::Null)
    }

    /// Waits until so many rotations are done, and the service is at rest.
    pub fn wait_done(&self, count: u64) -> Value {
        let mut last = Value::Null;
        self.machine.wait(&format!("{count} rotations done"), |_| {
            let status = self.status();
            let there = status["rotations"]["done"] == count && status["state"] == "idle";
            if !there && last != status {
                println!("{} {} {}", status["state"], status["phase"], status["message"]);
                last = status.clone();
            }
            there.then_some(status)
        })
    }

    /// Waits until a request was carried out: in the words of [`Aws::fault`] and [`ArcGis::fault`].
    pub fn wait_request(&self, operation: &str) -> RequestLine {
        self.machine.wait(&format!("a request {operation}"), |_| {
            let all = self.aws.requests().into_iter().chain(self.arcgis.requests());
            all.into_iter().find(|line| line.operation == operation && line.executed)
        })
    }

    /// What the service's unit has written to the machine's journal, as one reads it.
    pub fn log(&self) -> String {
        self.machine.must(&["journalctl", "--no-pager", "-u", "rekeyd", "-o", "cat"]).out
    }

    /// Waits until the service's unit has said this so many times.
    pub fn wait_log(&self, said: &str, times: usize) {
        self.machine
            .wait(&format!("{said:?} in the log"), |_| (self.log().matches(said).count() >= times).then_some(()));
    }

    /// Exactly one key lives: the one the cloud service holds. So many were ever made, the first one apart.
    pub fn assert_one_live_key(&self, mints: usize) {
        let keys = self.aws.keys(USER);
        let held = self.arcgis.held_key(CLOUD_SERVICE).map(|(id, _)| id);
        assert_eq!(keys.len(), 1, "{keys:?}");
        assert_eq!((Some(keys[0].id.clone()), keys[0].active), (held, true));
        assert_eq!(self.aws.mints(), mints);
    }

    /// What every story ends with.
    fn judge(&mut self) {
        let consumer = self.arcgis.consumer(CLOUD_SERVICE);
        assert!(consumer.requests > 0 && consumer.healthy, "{consumer:?}");
        assert_eq!((consumer.refusals, self.arcgis.consumer_refusals()), (0, 0), "{consumer:?}");
        let mut secrets = self.aws.all_secrets();
        secrets.extend(self.arcgis.all_secrets());
        secrets.extend([self.aws.admin().1, self.first_key.1.clone()]);
        secrets.append(&mut self.more_secrets.lock().expect("nobody panics with it"));
        secrets.retain(|secret| secret.len() >= 8);
        secrets.sort();
        secrets.dedup();
        if !self.machine.runs() {
            self.machine.boot();
        }
        let journal = self.machine.must(&["journalctl", "--no-pager", "--all", "-o", "export"]).out;
        assert!(journal.contains("_SYSTEMD_UNIT="), "the journal was searched and is empty");
        let units = self.machine.run(&["systemctl", "show", "rekeyd"]).out;
        let urls = self.arcgis.urls().join("\n");
        for secret in &secrets {
            for (place, text) in [
                ("the journal", &journal),
                ("a unit's properties", &units),
                ("a URL", &urls),
                ("what was printed", &self.machine.printed()),
            ] {
                assert!(!text.contains(secret.as_str()), "a secret stands in {place}");
            }
        }
        assert_eq!(files_with(&secrets, &self.machine.changes()), "", "a secret stands in clear on the disk");
    }
}

/// The package as `systemd/package` makes it of the program that is tested, with this version, or its own; made once.
pub fn package(version: &str) -> PathBuf {
    packages(version).0
}

/// The tarball that is made beside it.
pub fn tarball() -> PathBuf {
    packages("").1
}

fn packages(version: &str) -> (PathBuf, PathBuf) {
    type Made = (String, (PathBuf, PathBuf));
    static MADE: Mutex<Vec<Made>> = Mutex::new(Vec::new());
    let mut made = MADE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some((_, paths)) = made.iter().find(|(had, _)| had == version) {
        return paths.clone();
    }
    let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd/package"));
    command.arg(env!("CARGO_BIN_EXE_rekeyd")).args((!version.is_empty()).then_some(version));
    command.env("REKEYD_PACKAGE_FAST", "1");
    let ran = run_to_end(&mut command, "");
    assert_eq!(ran.code, Some(0), "{}{}", ran.out, ran.err);
    // Another run of the tests may make its own meanwhile.
    let kept = |end: &str| {
        let path = ran.out.lines().rev().find(|line| line.ends_with(end)).expect("it prints where the packages are");
        let kept = folder().join(format!("rekeyd-test-{}-package{version}{end}", std::process::id()));
        std::fs::copy(path, &kept).expect("it can be copied");
        kept
    };
    let paths = (kept(".deb"), kept(".tar.gz"));
    made.push((version.to_owned(), paths.clone()));
    paths
}

/// The changes that installing the package makes to a tree in which no systemd runs; made once.
fn installed(tree: &Path) -> PathBuf {
    static MADE: Mutex<Option<PathBuf>> = Mutex::new(None);
    let mut made = MADE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(path) = &*made {
        return path.clone();
    }
    let home = folder().join(format!("rekeyd-test-{}-installed", std::process::id()));
    let mut command = Command::new("unshare");
    command.args(["--mount", "--pid", "--fork", "--kill-child=KILL", "--"]).arg(source("chroot"));
    // A story says itself when it starts: with the policy that comes with the package there would be nothing to do.
    let install = "apt-get install -y -qq /package.deb; systemctl is-enabled rekeyd; systemctl disable rekeyd";
    command.arg(tree).arg(&home).arg(package("")).args(["sh", "-ec", install]);
    let ran = run_to_end(&mut command, "");
    assert_eq!(ran.code, Some(0), "{}{}", ran.out, ran.err);
    made.insert(home.join("upper")).clone()
}

/// A port of 127.0.0.1 that nobody has now.
fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("there are ports");
    listener.local_addr().expect("it is bound").port()
}

/// The files below a folder in which one of these stands; the secrets of the policy themselves apart.
fn files_with(secrets: &[String], folder: &Path) -> String {
    let mut grep = Command::new("grep");
    // What to look for is read, for a command line is everybody's to see.
    grep.args([
        "--recursive",
        "--text",
        "--files-with-matches",
        "--fixed-strings",
        "--file=-",
        "--exclude-dir=secrets",
    ]);
    let found = run_to_end(grep.args(["--devices=skip", "--"]).arg(folder), &secrets.join("\n"));
    assert!(found.code.is_some_and(|code| code < 2), "{found:?}");
    found.out
}

#[test]
fn a_secret_on_the_disk_is_found() {
    let home = tempfile::tempdir().expect("a folder can be made");
    let secrets = ["p+ss/w0rd=&%-lab".to_owned(), "another".to_owned()];
    let file = home.path().join("deep/down");
    std::fs::create_dir_all(home.path().join("deep")).expect("it can be made");
    std::fs::create_dir_all(home.path().join("secrets")).expect("it can be made");
    std::fs::write(home.path().join("secrets/arcgis-prod"), &secrets[0]).expect("it can be written");
    assert_eq!(files_with(&secrets, home.path()), "");
    std::fs::write(&file, b"\0\xff\np+ss/w0rd=&%-lab\0\0").expect("it can be written");
    assert_eq!(files_with(&secrets, home.path()), format!("{}\n", file.display()));
}
