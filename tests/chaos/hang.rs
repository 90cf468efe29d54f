//! The watchdog is the engine's: an engine whose disk does not answer feeds it no more, although the rest of the process feels well;
//! one with much to do feeds it all the same, and so does one that is ending.

use std::os::unix::net::{UnixDatagram, UnixStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rekeyd_lab::{ArcGisOptions, AwsOptions, Fault, StoredCredential};

use crate::shim::Shim;
use crate::storm::tell_everybody;
use crate::support::{Daemon, PROVIDER, PolicyText, SERVICE, Scene, wait_until};

/// As a unit with `WatchdogSec=1s` has it.
const LIMIT: Duration = Duration::from_secs(1);
/// The same on a machine that builds something else meanwhile: what is measured is the engine, and not the machine.
const SLOW_LIMIT: Duration = Duration::from_secs(4);

#[tokio::test(flavor = "multi_thread")]
async fn a_stuck_engine_starves_the_watchdog_although_the_process_lives() {
    told(ArcGisOptions::default(), |scene| {
        let shim = Shim::of(&scene.path("state"));
        let (mut daemon, systemd) = start(scene, Some(&shim), LIMIT);
        scene.adopt();
        systemd.wait_for_food();

        shim.hang();
        let mut order = scene.command(&["pause", SERVICE]);
        let order = order.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        let mut order = order.spawn().expect("the program can be started");
        // For much longer than systemd waits, all the time it is asked. A feeding that a busy machine was late with begins it anew.
        wait_until("the engine's disk does not answer, and nobody else feeds the watchdog", || {
            assert!(daemon.has_ended().is_none(), "the process lives: {}", daemon.log());
            assert!(UnixStream::connect(scene.path("control.sock")).is_ok(), "and its control socket takes askers");
            assert_eq!(scene.run(&["status"]).code, Some(0), "and answers them");
            systemd.silence() > LIMIT * 4
        });
        let fed = systemd.fed();
        assert!(order.try_wait().expect("it can be looked at").is_none(), "the order waits for its disk");

        shim.calm();
        assert!(order.wait().expect("it can be waited for").success());
        wait_until("it is fed again", || systemd.fed() > fed);
        assert_eq!(scene.service()["state"], "paused");
        assert_eq!(daemon.stop().code(), Some(0));
    })
    .await;
}

/// What systemd does then: the process is killed in the middle of a rotation, and the next one ends it.
#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_goes_on_after_the_watchdogs_kill() {
    told(ArcGisOptions { job_duration: Duration::from_secs(1), ..ArcGisOptions::default() }, |scene| {
        let shim = Shim::of(&scene.path("state"));
        let (daemon, systemd) = start(scene, Some(&shim), LIMIT);
        scene.adopt();
        assert_eq!(scene.run(&["rotate", SERVICE]).code, Some(0));
        scene.wait_for("phase", "deploying");
        shim.hang();
        wait_until("it is starved", || systemd.silence() > LIMIT);
        // systemd's WatchdogSignal= is SIGABRT; a write that hangs does not keep it from ending.
        daemon.signal("ABRT");
        let mut daemon = daemon;
        assert!(!daemon.ended().success());
        shim.calm();
        drop(daemon);
        let daemon = scene.start();
        scene.wait_done(1);
        assert_eq!(scene.aws.mints(), 1);
        scene.assert_one_live_key();
        assert_eq!(daemon.stop().code(), Some(0));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_engine_feeds_the_watchdog() {
    const COUNT: usize = 24;
    told(ArcGisOptions { job_duration: Duration::from_millis(200), ..ArcGisOptions::default() }, |scene| {
        let mut more = String::new();
        let names: Vec<String> = (0..COUNT).map(|number| format!("busy-{number}")).collect();
        let mut keys = Vec::new();
        for name in &names {
            scene.aws.add_user(name);
            scene.aws.add_bucket(name, &[name]);
            let (access_key, secret_key) = scene.aws.create_key(name);
            keys.push(access_key.clone());
            scene.arcgis.add_service(name, PROVIDER, name, Some(StoredCredential { access_key, secret_key }));
            more.push_str(&format!(
                "[[service]]\nname = \"{name}\"\npropagation = \"0s\"\nprobes = 1\nsoak = \"200ms\"\nsoak_unproven = \"200ms\"\n\
                 watch = \"200ms\"\nobserve = \"1s\"\nissuer = {{ kind = \"aws-iam\", account = \"main\", user = \"{name}\", \
                 probe = {{ bucket = \"{name}\", region = \"us-east-1\" }} }}\n\
                 target = [{{ kind = \"arcgis\", deployment = \"prod\", service_id = \"{name}\" }}]\n\n"
            ));
        }
        let arcgis = "max_jobs = 8".to_owned();
        scene.write_policy(&PolicyText { more, arcgis, ..PolicyText::default() });
        let (daemon, systemd) = start(scene, None, SLOW_LIMIT);
        for (name, key) in names.iter().zip(&keys) {
            assert_eq!(scene.run(&["adopt", name, key]).code, Some(0));
        }
        systemd.wait_for_food();
        let fed = systemd.fed();
        let mut order = vec!["rotate", "--wait"];
        order.extend(names.iter().map(String::as_str));
        assert_eq!(scene.run(&order).code, Some(0), "{}", daemon.log());
        let longest = systemd.longest_silence();
        tell_everybody(&format!(
            "a busy engine: {COUNT} rotations at once, fed {} times, at most {} ms apart of {} ms",
            systemd.fed() - fed,
            longest.as_millis(),
            SLOW_LIMIT.as_millis()
        ));
        assert!(longest < SLOW_LIMIT, "{longest:?}");
        assert_eq!(daemon.stop().code(), Some(0));
    })
    .await;
}

/// The end waits up to eight seconds for what runs. systemd stops its watchdog at STOPPING=1; whoever does not is fed all the same.
#[tokio::test(flavor = "multi_thread")]
async fn an_ending_engine_feeds_the_watchdog() {
    told(ArcGisOptions::default(), |scene| {
        let (mut daemon, systemd) = start(scene, None, LIMIT);
        scene.adopt();
        let before = scene.aws.requests().len();
        scene.aws.fault("CreateAccessKey", Fault::Slow(Duration::from_secs(4)));
        assert_eq!(scene.run(&["rotate", SERVICE]).code, Some(0));
        let asked = || scene.aws.requests()[before..].iter().any(|line| line.operation == "CreateAccessKey");
        wait_until("the mint is sent", asked);
        systemd.wait_for_food();
        daemon.signal("TERM");
        wait_until("it says so", || systemd.heard("STOPPING=1"));
        let fed = systemd.fed();
        wait_until("it is fed while it waits for the mint", || systemd.fed() >= fed + 3);
        assert!(daemon.has_ended().is_none(), "which it does");
        assert_eq!(daemon.ended().code(), Some(0));
        drop(daemon);
        let daemon = scene.start();
        scene.wait_done(1);
        assert_eq!(scene.aws.mints(), 1, "and the key it brought was not lost");
        assert_eq!(daemon.stop().code(), Some(0));
    })
    .await;
}

async fn told(arcgis: ArcGisOptions, tell: impl FnOnce(&Scene) + Send + 'static) {
    let mut scene = Scene::with(AwsOptions::default(), arcgis).await;
    scene.keep_program();
    // Waiting here must not hold up the lab.
    if let Err(failed) = tokio::task::spawn_blocking(move || tell(&scene)).await {
        std::panic::resume_unwind(failed.into_panic());
    }
}

fn start<'s>(scene: &'s Scene, shim: Option<&Shim>, limit: Duration) -> (Daemon<'s>, Systemd) {
    let socket = scene.path("notify.sock");
    let systemd = Systemd::at(UnixDatagram::bind(&socket).expect("a socket can be made"));
    let mut command = scene.command(&["run"]);
    command.env("NOTIFY_SOCKET", &socket).env("WATCHDOG_USEC", limit.as_micros().to_string());
    // Not every line of every library: 24 rotations would write more than they do.
    command.env("RUST_LOG", "rekeyd=debug");
    if let Some(shim) = shim {
        shim.under(&mut command);
    }
    let daemon = scene.spawn(command);
    wait_until("the daemon is ready", || systemd.heard("READY=1"));
    (daemon, systemd)
}

/// The other end of `NOTIFY_SOCKET`: when the watchdog was fed, and what else was said.
struct Systemd(Arc<Mutex<Heard>>);

#[derive(Default)]
struct Heard {
    fed: Vec<Instant>,
    said: String,
}

impl Systemd {
    fn at(socket: UnixDatagram) -> Systemd {
        let heard = Arc::new(Mutex::new(Heard::default()));
        let kept = heard.clone();
        // It ends with the test's process.
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count) = socket.recv(&mut buffer) {
                let text = String::from_utf8_lossy(&buffer[..count]);
                let mut heard = kept.lock().expect("nobody panics here");
                if text.contains("WATCHDOG=1") {
                    heard.fed.push(Instant::now());
                }
                heard.said.push_str(&text);
            }
        });
        Systemd(heard)
    }

    fn fed(&self) -> usize {
        self.0.lock().expect("nobody panics here").fed.len()
    }

    fn silence(&self) -> Duration {
        self.0.lock().expect("nobody panics here").fed.last().map_or(Duration::ZERO, Instant::elapsed)
    }

    fn longest_silence(&self) -> Duration {
        let heard = self.0.lock().expect("nobody panics here");
        let apart = heard.fed.windows(2).map(|two| two[1] - two[0]);
        apart.max().unwrap_or(Duration::MAX).max(heard.fed.last().map_or(Duration::MAX, Instant::elapsed))
    }

    fn heard(&self, what: &str) -> bool {
        self.0.lock().expect("nobody panics here").said.contains(what)
    }

    fn wait_for_food(&self) {
        let fed = self.fed();
        wait_until("the watchdog is fed", || self.fed() > fed);
    }
}
