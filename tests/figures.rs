//! The figures in the README: `tests/figures`. Run on the release build; prints what it measured and asserts nothing.
//!
//! Idle: memory and CPU of a daemon with ten services at rest, over a minute. Prompt: the time from SIGUSR1 to the provider's
//! answer to the first request it causes, which is longer than to the request itself.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use chrono::Utc;
use rekeyd_lab::{ArcGis, ArcGisOptions, Aws, AwsOptions, StoredCredential};

const SERVICES: usize = 10;
const SIGNALS: usize = 15;
const IDLE: Duration = Duration::from_secs(60);

struct World {
    folder: PathBuf,
    aws: Aws,
    _arcgis: ArcGis,
}

struct Daemon(Child);

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::main]
async fn main() {
    let program = std::env::args().nth(1).expect("usage: figures PROGRAM, the built rekeyd");
    let world = World::new().await;
    let daemon = Daemon(
        Command::new(&program)
            .args(["run", "--policy"])
            .arg(world.folder.join("policy.toml"))
            .stderr(Stdio::from(std::fs::File::create(world.folder.join("log")).expect("a log")))
            .spawn()
            .expect("the program starts"),
    );
    let pid = daemon.0.id();
    world.adopt_all(Path::new(&program)).await;

    let (cpu, started) = (cpu_time(pid), Instant::now());
    tokio::time::sleep(IDLE).await;
    let used = (cpu_time(pid) - cpu).as_secs_f64() / started.elapsed().as_secs_f64() * 100.0;
    println!(
        "idle, {SERVICES} services: resident {:.1} MiB, CPU {used:.2} % of one core over {} s",
        resident(pid),
        IDLE.as_secs()
    );

    let mut waits = Vec::new();
    for _ in 0..SIGNALS {
        waits.push(world.signal_to_request(pid).await);
        world.at_rest(Path::new(&program)).await;
    }
    waits.sort_by(f64::total_cmp);
    println!(
        "SIGUSR1 to the first provider answer, {SIGNALS} times: min {:.1} ms, median {:.1} ms, max {:.1} ms",
        waits[0],
        waits[SIGNALS / 2],
        waits[SIGNALS - 1]
    );
    println!("after {SIGNALS} rotations: resident {:.1} MiB", resident(pid));
    let _ = std::fs::remove_dir_all(&world.folder);
}

impl World {
    async fn new() -> World {
        let folder = std::env::temp_dir().join(format!("rekeyd-figures-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let aws = Aws::start(AwsOptions::default()).await;
        let options = ArcGisOptions { job_duration: Duration::from_millis(100), ..ArcGisOptions::default() };
        let (id, secret) = aws.admin();
        std::fs::write(folder.join("aws-secret"), secret).expect("a file");
        std::fs::write(folder.join("password"), &options.password).expect("a file");
        let arcgis = ArcGis::start(options, &aws).await;
        arcgis.add_provider("betc4g098c", "AWS", None);
        let (at, endpoint) = (folder.display(), aws.endpoint());
        let mut policy = format!(
            "version = 1\n[daemon]\njournal = \"sqlite:{at}/journal.db\"\ncontrol = \"{at}/control.sock\"\nlisten = \"off\"\n\
             [defaults]\npropagation = \"10ms\"\nprobes = 1\nsoak = \"100ms\"\nsoak_unproven = \"100ms\"\nwatch = \"100ms\"\nevery = \"30d\"\n\
             [aws.main]\nendpoint_url = \"{endpoint}\"\naccess_key_id = \"{id}\"\nsecret_access_key = {{ file = \"{at}/aws-secret\" }}\n\
             settle = \"100ms\"\nlast_used_lag = \"1s\"\n[arcgis.prod]\nproduct = \"kubernetes\"\nadmin_url = \"{}\"\n\
             username = \"rotator\"\npassword = {{ file = \"{at}/password\" }}\npoll = \"50ms\"\nreadback = \"1s\"\n",
            arcgis.admin_url()
        );
        for number in 0..SERVICES {
            let (user, bucket) = (format!("user-{number}"), format!("bucket-{number}"));
            aws.add_user(&user);
            aws.add_bucket(&bucket, &[&user]);
            let (access_key, secret_key) = aws.create_key(&user);
            arcgis.add_service(
                &format!("service{number:03}"),
                "betc4g098c",
                &bucket,
                Some(StoredCredential { access_key, secret_key }),
            );
            policy += &format!(
                "[[service]]\nname = \"store-{number}\"\non_signal = {}\n\
                 issuer = {{ kind = \"aws-iam\", account = \"main\", user = \"{user}\", probe = {{ bucket = \"{bucket}\", region = \"us-east-1\" }} }}\n\
                 target = [{{ kind = \"arcgis\", deployment = \"prod\", service_id = \"service{number:03}\" }}]\n",
                number == 0
            );
        }
        std::fs::write(folder.join("policy.toml"), policy).expect("a file");
        World { folder, aws, _arcgis: arcgis }
    }

    async fn adopt_all(&self, program: &Path) {
        let deadline = Instant::now() + Duration::from_secs(30);
        for number in 0..SERVICES {
            let key = self.aws.keys(&format!("user-{number}"))[0].id.clone();
            while !self.ask(program, &["adopt", &format!("store-{number}"), &key]).await {
                assert!(
                    Instant::now() < deadline,
                    "the daemon adopts nothing; see {}",
                    self.folder.join("log").display()
                );
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }

    async fn ask(&self, program: &Path, arguments: &[&str]) -> bool {
        let mut command = tokio::process::Command::new(program);
        command.args(arguments).arg("--policy").arg(self.folder.join("policy.toml"));
        command.stdout(Stdio::null()).stderr(Stdio::null()).status().await.is_ok_and(|status| status.success())
    }

    async fn signal_to_request(&self, pid: u32) -> f64 {
        let before = self.aws.requests().len();
        let sent = Utc::now();
        Command::new("kill").args(["-USR1", &pid.to_string()]).status().expect("kill is there");
        loop {
            if let Some(line) = self.aws.requests().get(before) {
                return (line.at - sent).num_microseconds().unwrap_or(i64::MAX) as f64 / 1000.0;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Waits until the rotation is done: one key left, and the daemon says that nothing is wrong and nothing is open.
    async fn at_rest(&self, program: &Path) {
        let policy = self.folder.join("policy.toml");
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let mut status = tokio::process::Command::new(program);
            let said = status.args(["status", "--json", "--policy"]).arg(&policy).output().await.expect("status runs");
            let said: serde_json::Value = serde_json::from_slice(&said.stdout).unwrap_or_default();
            if said["services"].as_array().is_some_and(|all| all.iter().all(|service| service["state"] == "idle")) {
                return;
            }
            assert!(Instant::now() < deadline, "not at rest: {said:#}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// Resident memory in MiB.
fn resident(pid: u32) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("the process lives");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("Linux says VmRSS");
    line.trim().trim_end_matches(" kB").parse::<f64>().expect("a number") / 1024.0
}

/// User and system time, from `/proc/PID/stat` (proc(5): fields 14 and 15, in ticks of 10 ms).
fn cpu_time(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process lives");
    let after_name = stat.rsplit(')').next().expect("a name in brackets");
    let fields: Vec<u64> = after_name.split_whitespace().filter_map(|field| field.parse().ok()).collect();
    // The state letter does not parse, so the list begins at field 4.
    Duration::from_millis((fields[10] + fields[11]) * 10)
}
