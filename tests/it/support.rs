//! What tests of the built program share: a scene (an AWS and an ArcGIS of the lab, a folder, a policy), and the daemon as a
//! process that can be started, asked, signalled and killed.
//!
//! Waiting is polling with a deadline, never a sleep of a guessed length. Everything a process printed is kept, and
//! [`Scene::assert_no_secret_seen`] searches it.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

use rekeyd_lab::{ArcGis, ArcGisOptions, Aws, AwsOptions, StoredCredential};
use serde_json::Value;

/// The service of every scene, as policy and journal call it.
pub const SERVICE: &str = "prod-object-store";
/// The ArcGIS cloud service behind its target.
pub const CLOUD_SERVICE: &str = "eg7hrelq6b";
/// The provider of that cloud service.
pub const PROVIDER: &str = "betc4g098c";
/// The IAM user behind its issuer.
pub const USER: &str = "arcgis-object-store";
/// What the cloud service reads.
pub const BUCKET: &str = "gis-store";
/// Long enough for a machine that builds something else meanwhile.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// How long a command may take, `rotate --wait=done` too.
const COMMAND_PATIENCE: Duration = Duration::from_secs(60);

/// Everything printed by every process of a scene.
type Printed = Arc<Mutex<String>>;

/// An AWS, an ArcGIS whose cloud service holds a key of that AWS, and a folder for policy, secrets and journal.
pub struct Scene {
    /// The account.
    pub aws: Aws,
    /// The deployment.
    pub arcgis: ArcGis,
    /// The key the cloud service holds at first: id and secret.
    pub first_key: (String, String),
    home: tempfile::TempDir,
    program: PathBuf,
    printed: Printed,
}

/// A policy of one service, in seconds. Every field is text as it stands in the file.
pub struct PolicyText {
    /// `soak`.
    pub soak: String,
    /// `watch`.
    pub watch: String,
    /// `settle` of the account.
    pub settle: String,
    /// The target's `service_id`.
    pub cloud_service: String,
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
            soak: "300ms".into(),
            watch: "300ms".into(),
            settle: "300ms".into(),
            cloud_service: CLOUD_SERVICE.into(),
            daemon: String::new(),
            arcgis: String::new(),
            service: String::new(),
            more: String::new(),
        }
    }
}

impl Scene {
    /// A scene where everything works.
    pub async fn new() -> Scene {
        Scene::with(AwsOptions::default(), ArcGisOptions::default()).await
    }

    /// A scene with its own manners.
    pub async fn with(aws: AwsOptions, arcgis: ArcGisOptions) -> Scene {
        let aws = Aws::start(aws).await;
        aws.add_user(USER);
        aws.add_bucket(BUCKET, &[USER]);
        let first_key = aws.create_key(USER);
        let password = arcgis.password.clone();
        let arcgis = ArcGis::start(arcgis, &aws).await;
        arcgis.add_provider(PROVIDER, "AWS", None);
        let held = StoredCredential { access_key: first_key.0.clone(), secret_key: first_key.1.clone() };
        arcgis.add_service(CLOUD_SERVICE, PROVIDER, BUCKET, Some(held));
        let home = tempfile::tempdir().expect("a temporary directory can be made");
        let program = PathBuf::from(env!("CARGO_BIN_EXE_rekeyd"));
        let scene = Scene { aws, arcgis, first_key, home, program, printed: Printed::default() };
        scene.write_secret("arcgis-password", &password);
        scene.write_secret("aws-secret", &scene.aws.admin().1);
        scene.write_policy(&PolicyText::default());
        scene
    }

    /// A path in the scene's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    /// The policy's path.
    pub fn policy(&self) -> PathBuf {
        self.path("policy.toml")
    }

    /// A secret file, readable by its owner only, with the newline an editor leaves.
    pub fn write_secret(&self, name: &str, secret: &str) {
        let mut file = std::fs::OpenOptions::new();
        let file = file.write(true).create(true).truncate(true).mode(0o600).open(self.path(name));
        let mut file = file.expect("a secret file can be made");
        std::io::Write::write_all(&mut file, format!("{secret}\n").as_bytes()).expect("it can be written");
    }

    /// Writes the policy of one service.
    pub fn write_policy(&self, text: &PolicyText) {
        std::fs::write(self.policy(), self.policy_of(text)).expect("the policy can be written");
    }

    fn policy_of(&self, text: &PolicyText) -> String {
        let home = self.home.path().display();
        let (aws, admin) = (self.aws.endpoint(), self.aws.admin().0);
        let (admin_url, portal_url) = (self.arcgis.admin_url(), self.arcgis.portal_url());
        let PolicyText { soak, watch, settle, cloud_service, daemon, arcgis, service, more } = text;
        format!(
            r#"version = 1

[daemon]
journal = "sqlite:{home}/state/journal.db"
control = "{home}/control.sock"
listen = "127.0.0.1:{port}"
{daemon}

[aws.main]
region = "us-east-1"
endpoint_url = "{aws}"
sts_endpoint_url = "{aws}"
s3_endpoint_url = "{aws}"
access_key_id = "{admin}"
secret_access_key = {{ file = "{home}/aws-secret" }}
settle = "{settle}"
last_used_lag = "0s"
request_timeout = "5s"

[arcgis.prod]
product = "kubernetes"
admin_url = "{admin_url}"
portal_url = "{portal_url}"
username = "rotator"
password = {{ file = "{home}/arcgis-password" }}
poll = "50ms"
readback = "5s"
job_timeout = "20s"
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
  service_id = "{cloud_service}"

{more}
"#,
            port = self.port(),
        )
    }

    /// A port of the scene's own, chosen by its folder's name: nobody else is likely to want it, and a restart finds it again.
    fn port(&self) -> u16 {
        let name = self.home.path().as_os_str().as_encoded_bytes();
        let hash = name.iter().fold(0x811c_9dc5u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
        20_000 + u16::try_from(hash % 10_000).expect("it is below 10000")
    }

    /// Where metrics and status are served.
    pub fn http(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port())
    }

    /// Runs a command of the program to its end.
    pub fn run(&self, words: &[&str]) -> Ran {
        let mut command = self.command(words);
        let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program can be run");
        let out = read_all(child.stdout.take().expect("stdout was asked for"));
        let err = read_all(child.stderr.take().expect("stderr was asked for"));
        let deadline = Instant::now() + COMMAND_PATIENCE;
        let status = loop {
            match child.try_wait().expect("it can be waited for") {
                Some(status) => break Some(status),
                None if Instant::now() > deadline => break child.kill().map(|()| None).expect("it can be killed"),
                None => pause(),
            }
        };
        let (out, err) = (out.join().expect("reading does not fail"), err.join().expect("reading does not fail"));
        let _ = writeln!(lock(&self.printed), "{out}{err}");
        let status =
            status.unwrap_or_else(|| panic!("{words:?} has not ended within {COMMAND_PATIENCE:?}:\n{out}{err}"));
        Ran { code: status.code(), out, err }
    }

    /// Runs a copy of the program from here on, the same for every scene of this process: in a long story, a build that goes on
    /// meanwhile would put another in its place. The next process that keeps one replaces it.
    #[allow(dead_code)] // only tests/chaos is that long
    pub fn keep_program(&mut self) {
        static KEPT: OnceLock<PathBuf> = OnceLock::new();
        let kept = KEPT.get_or_init(|| {
            let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join("rekeyd-kept");
            let draft = kept.with_extension(std::process::id().to_string());
            std::fs::copy(env!("CARGO_BIN_EXE_rekeyd"), &draft).expect("the program can be copied");
            std::fs::rename(&draft, &kept).expect("it can be put in place");
            kept
        });
        self.program.clone_from(kept);
    }

    /// The program, with these words and this scene's policy.
    pub fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(words).arg("--policy").arg(self.policy());
        // The finest level of all, so that the search for secrets sees the worst case.
        command.env("RUST_LOG", "trace");
        for name in ["NOTIFY_SOCKET", "STATE_DIRECTORY", "RUNTIME_DIRECTORY", "JOURNAL_STREAM", "CREDENTIALS_DIRECTORY"]
        {
            command.env_remove(name);
        }
        // Where a command without a daemon remembers refused logins.
        command.env("XDG_RUNTIME_DIR", self.home.path());
        command
    }

    /// Starts the daemon and waits until it says that it is ready.
    pub fn start(&self) -> Daemon<'_> {
        let daemon = self.spawn(self.command(&["run"]));
        wait_until("the daemon is ready", || daemon.log().contains("ready"));
        daemon
    }

    /// Starts a daemon whose command was prepared by the test, and waits for nothing.
    pub fn spawn(&self, mut command: Command) -> Daemon<'_> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program can be started");
        let log = Printed::default();
        let out = child.stdout.take().expect("stdout was asked for");
        let err = child.stderr.take().expect("stderr was asked for");
        let sources: [Box<dyn Read + Send>; 2] = [Box::new(out), Box::new(err)];
        for source in sources {
            let logs = [log.clone(), self.printed.clone()];
            std::thread::spawn(move || {
                for line in BufReader::new(source).split(b'\n').map_while(Result::ok) {
                    let line = String::from_utf8_lossy(&line).into_owned();
                    for log in &logs {
                        let _ = writeln!(lock(log), "{line}");
                    }
                }
            });
        }
        Daemon { scene: self, child, log }
    }

    /// A running daemon that has adopted the first key with its secret.
    pub fn start_adopted(&self) -> Daemon<'_> {
        let daemon = self.start();
        self.adopt();
        daemon
    }

    /// Adopts the first key with its secret, with or without a daemon.
    pub fn adopt(&self) {
        self.write_secret("first-secret", &self.first_key.1);
        let file = self.path("first-secret").display().to_string();
        let ran = self.run(&["adopt", SERVICE, &self.first_key.0, "--secret-file", &file]);
        assert_eq!(ran.code, Some(0), "{ran:?}");
    }

    /// The service as `status --json` shows it, with or without a daemon.
    pub fn service(&self) -> Value {
        let ran = self.run(&["status", "--json"]);
        let status: Value = serde_json::from_str(&ran.out).unwrap_or_else(|error| panic!("{error}: {ran:?}"));
        status["services"][0].clone()
    }

    /// Waits until a field of the service has this text.
    pub fn wait_for(&self, field: &str, text: &str) -> Value {
        let mut last = Value::Null;
        let what = format!("{field} is {text}");
        wait_until_or(
            &what,
            || {
                last = self.service();
                (last[field] == text).then_some(())
            },
            || self.service().to_string(),
        );
        last
    }

    /// Waits until so many rotations are done, and the service is at rest.
    pub fn wait_done(&self, count: u64) -> Value {
        let mut last = Value::Null;
        let what = format!("{count} rotations are done");
        wait_until_or(
            &what,
            || {
                last = self.service();
                (last["rotations"]["done"] == count && last["state"] == "idle").then_some(())
            },
            || self.service().to_string(),
        );
        last
    }

    /// No consumer was refused, and exactly one key lives: the one the cloud service holds.
    pub fn assert_one_live_key(&self) {
        let keys = self.aws.keys(USER);
        let held = self.arcgis.held_key(CLOUD_SERVICE).map(|(id, _)| id);
        assert_eq!(keys.len(), 1, "{keys:?}");
        assert_eq!((Some(keys[0].id.clone()), keys[0].active), (held, true));
        assert_eq!(self.arcgis.consumer_refusals(), 0);
    }

    /// Nothing that was printed, sent in a URL or written in clear on the disk holds a secret.
    pub fn assert_no_secret_seen(&self) {
        let mut secrets = self.aws.all_secrets();
        secrets.extend(self.arcgis.all_secrets());
        self.assert_none_seen(secrets, &self.arcgis.urls().join("\n"));
    }

    /// Neither what was printed since this was last asked, nor these URLs, nor a file beside the journal holds one of these
    /// secrets. What was searched is forgotten, so that a long story does not search it again and again.
    pub fn assert_none_seen(&self, mut secrets: Vec<String>, urls: &str) {
        secrets.retain(|secret| secret.len() >= 8);
        let printed = std::mem::take(&mut *lock(&self.printed));
        // Secrets are plain letters, so what is no text need not be read as it was.
        let read = |(path, bytes): (PathBuf, Vec<u8>)| (path, String::from_utf8_lossy(&bytes).into_owned());
        let files: Vec<(PathBuf, String)> = files_below(&self.path("state")).into_iter().map(read).collect();
        for secret in &secrets {
            assert!(!printed.contains(secret.as_str()), "a secret was printed");
            assert!(!urls.contains(secret.as_str()), "a secret stands in a URL");
            for (file, text) in &files {
                assert!(!text.contains(secret.as_str()), "a secret stands in clear in {}", file.display());
            }
        }
    }
}

/// A command that has ended.
#[derive(Debug)]
pub struct Ran {
    /// Its exit code; `None` where a signal ended it.
    pub code: Option<i32>,
    /// What it printed.
    pub out: String,
    /// What it complained about.
    pub err: String,
}

/// A running daemon; killed when dropped.
pub struct Daemon<'s> {
    scene: &'s Scene,
    child: Child,
    log: Printed,
}

impl Daemon<'_> {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// All it printed so far.
    pub fn log(&self) -> String {
        lock(&self.log).clone()
    }

    /// The status of its only service.
    pub fn status(&self) -> Value {
        self.scene.service()
    }

    /// Sends a signal by name: `HUP`, `USR1`, `TERM`.
    pub fn signal(&self, name: &str) {
        let pid = self.pid().to_string();
        let sent = Command::new("sh").args(["-c", &format!("kill -{name} {pid}")]).status().expect("a shell is there");
        assert!(sent.success(), "kill -{name} {pid}");
    }

    /// Ends it as a power cut would.
    pub fn kill9(mut self) {
        self.child.kill().expect("it can be killed");
        self.child.wait().expect("it can be waited for");
    }

    /// Asks it to end, and returns how it did; fails where that takes longer than ten seconds.
    pub fn stop(mut self) -> ExitStatus {
        self.signal("TERM");
        self.ended_within(Duration::from_secs(10))
    }

    /// How it ends after a signal it was sent already.
    pub fn stop_signalled(mut self) -> ExitStatus {
        self.ended_within(Duration::from_secs(10))
    }

    /// How it ended, if it has.
    #[allow(dead_code)] // only tests/chaos looks without waiting
    pub fn has_ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("it can be waited for")
    }

    /// How it ends by itself.
    pub fn ended(&mut self) -> ExitStatus {
        self.ended_within(PATIENCE)
    }

    fn ended_within(&mut self, limit: Duration) -> ExitStatus {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait().expect("it can be waited for") {
                return status;
            }
            assert!(Instant::now() < deadline, "it has not ended within {limit:?}:\n{}", self.log());
            pause();
        }
    }
}

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            // The level is `trace`; the end of it is what a failed test needs.
            let log = self.log();
            let lines: Vec<_> = log.lines().collect();
            eprintln!("the daemon's last lines:\n{}", lines[lines.len().saturating_sub(60)..].join("\n"));
        }
    }
}

/// A small disk of its own, unmounted when dropped.
pub struct Disk(PathBuf);

impl Disk {
    const SIZE: &'static str = "size=4m";

    /// `None` where this user may not mount: then nothing is shown, and it says so.
    pub fn mount(at: PathBuf) -> Option<Disk> {
        std::fs::create_dir(&at).expect("it can be made");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", Self::SIZE, "none"]).arg(&at).output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Disk(at));
        }
        println!("NOT RUN: a disk that fills up needs the right to mount a tmpfs");
        None
    }

    /// Leaves this many bytes.
    pub fn fill_up_to(&self, left: usize) {
        let path = self.0.join("filling");
        let mut file = std::fs::File::create(&path).expect("there is room for its name");
        while std::io::Write::write_all(&mut file, &[1; 4096]).is_ok() {}
        let length = file.metadata().expect("it is there").len();
        file.set_len(length - left as u64).expect("it can be cut");
    }

    /// Writes are refused, as on a file system that found an error and saved itself; only with no file open for writing.
    #[allow(dead_code)] // only tests/chaos has a use for it
    pub fn set_read_only(&self, yes: bool) {
        let how = if yes { "remount,ro" } else { "remount,rw" };
        let done = Command::new("mount").args(["-o", how]).arg(&self.0).status().expect("it mounted before");
        assert!(done.success(), "mount -o {how}");
    }

    /// Takes the filling away.
    pub fn empty(&self) {
        std::fs::remove_file(self.0.join("filling")).expect("it is there");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a daemon that is still ending keeps it busy.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Waits until something holds.
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    wait_until_or(what, || holds().then_some(()), String::new);
}

/// Waits until something is there; says what was seen last where it never comes.
pub fn wait_until_or<T>(what: &str, mut look: impl FnMut() -> Option<T>, seen: impl Fn() -> String) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} in vain: {what}; last seen: {}", seen());
        pause();
    }
}

/// The one pause there is: between two looks.
fn pause() {
    std::thread::sleep(Duration::from_millis(30));
}

fn read_all(mut source: impl Read + Send + 'static) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = source.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

fn lock(printed: &Printed) -> MutexGuard<'_, String> {
    printed.lock().expect("nobody panics while printing")
}

fn files_below(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            files.extend(files_below(&path));
        } else if let Ok(bytes) = std::fs::read(&path) {
            files.push((path, bytes));
        }
    }
    files
}
