//! A rotation that is cut short: by a stop, a kill, a watchdog, a shutdown, a power cut, a clock that jumps. It ends with the key it
//! had begun with.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::shim::Shim;
use crate::stage::{CLOUD_SERVICE, PolicyText, SERVICE, Stage, USER, story};

/// Long enough for what a story does meanwhile.
const JOB: Duration = Duration::from_secs(3);

/// Orders a rotation and returns when ArcGIS works at its job.
pub fn push_begins(stage: &Stage) {
    stage.arcgis.set_job_duration(JOB);
    let ordered = stage.rekeyd(&["rotate", SERVICE]);
    assert_eq!(ordered.code, Some(0), "{ordered:?}");
    stage.wait_request("credential/update");
    assert_eq!(stage.aws.mints(), 1);
}

/// The rotation that was cut short is done, and it was one rotation, with one key.
pub fn it_ends_with_the_same_key(stage: &Stage) {
    let pushed = stage.wait_request("credential/update").access_key_id;
    stage.wait_done(1);
    stage.assert_one_live_key(1);
    assert_eq!(stage.arcgis.held_key(CLOUD_SERVICE).map(|(id, _)| id), Some(pushed));
    let ledger = stage.rekeyd(&["ledger", "verify"]);
    assert_eq!(ledger.code, Some(0), "{ledger:?}");
}

#[test]
fn a_stop_in_the_middle_is_taken_up_by_the_next_start() {
    story(|stage| {
        stage.begin();
        push_begins(stage);
        stage.machine.must(&["systemctl", "stop", "rekeyd"]);
        assert_eq!(stage.machine.show("rekeyd", "Result"), "success");
        assert_eq!(stage.machine.show("rekeyd", "ExecMainStatus"), "0");
        stage.machine.must(&["systemctl", "start", "rekeyd"]);
        it_ends_with_the_same_key(stage);
    });
}

#[test]
fn a_kill_in_the_middle_is_mended_by_systemd() {
    story(|stage| {
        stage.begin();
        push_begins(stage);
        stage.machine.must(&["systemctl", "kill", "-s", "KILL", "--kill-whom=main", "rekeyd"]);
        stage.machine.wait("a restart", |machine| (machine.show("rekeyd", "NRestarts") == "1").then_some(()));
        stage.machine.wait("a start", |machine| (machine.show("rekeyd", "ActiveState") == "active").then_some(()));
        it_ends_with_the_same_key(stage);
        assert_eq!(stage.machine.show("rekeyd", "NRestarts"), "1");
    });
}

#[test]
fn a_power_cut_in_the_middle_is_taken_up_after_the_boot() {
    story(|stage| {
        stage.machine.must(&["systemctl", "enable", "rekeyd"]);
        stage.begin();
        push_begins(stage);
        stage.machine.cut_power();
        stage.machine.boot();
        assert_eq!(stage.machine.show("rekeyd", "ActiveState"), "active");
        it_ends_with_the_same_key(stage);
    });
}

#[test]
fn a_shutdown_in_the_middle_is_taken_up_after_the_boot() {
    story(|stage| {
        stage.machine.must(&["systemctl", "enable", "rekeyd"]);
        stage.begin();
        push_begins(stage);
        stage.machine.shut_down();
        stage.machine.boot();
        it_ends_with_the_same_key(stage);
    });
}

#[test]
fn the_watchdog_ends_a_stuck_engine_and_the_rotation_goes_on() {
    story(|stage| {
        stage.begin();
        let patience = stage.machine.show("rekeyd", "WatchdogUSec");
        assert_eq!(patience, "3min", "the unit's own watchdog");
        // The disk of tests/chaos, which does not come back from a write while its order stands.
        let mut command = Command::new("true");
        Shim::of(Path::new("/var/lib/rekeyd")).under(&mut command);
        // Long enough that no busy machine trips it, and that the order is gone before the next start.
        let mut lines = "[Service]\nWatchdogSec=10s\nRestartSec=10s\n".to_owned();
        for (name, value) in command.get_envs() {
            let value = value.expect("it is set").to_str().expect("it is text");
            if name == "LD_PRELOAD" {
                let library = std::fs::read(value).expect("it was built");
                stage.machine.write("/usr/lib/rekeyd-test-shim.so", 0o755, &library);
                lines += "Environment=LD_PRELOAD=/usr/lib/rekeyd-test-shim.so\n";
            } else {
                lines += &format!("Environment={}={value}\n", name.to_str().expect("it is text"));
            }
        }
        stage.drop_in(&lines);
        stage.machine.must(&["systemctl", "restart", "rekeyd"]);
        push_begins(stage);
        stage.machine.write("/var/lib/rekeyd.order", 0o644, b"hang 1");
        // systemd says so when the process is gone; it can be read for good, whatever has begun since.
        stage.wait_log("Failed with result 'watchdog'", 1);
        stage.machine.must(&["rm", "/var/lib/rekeyd.order"]);
        it_ends_with_the_same_key(stage);
        let restarts = stage.machine.show("rekeyd", "NRestarts");
        assert!(restarts.parse::<u32>().is_ok_and(|count| count >= 1), "{restarts}");
    });
}

#[test]
fn a_clock_that_jumps_retires_nothing_early() {
    const SOAK: Duration = Duration::from_secs(6);
    // Between the end of the soak and the next jump none of it may pass that matters, and all of it before the clock is right again.
    const WATCH: Duration = Duration::from_secs(12);
    story(|stage| {
        // The clock of the service alone: the machine's own is the host's too. What counts seconds (CLOCK_BOOTTIME) goes on.
        let library = stage.machine.sh("ls /usr/lib/*/faketime/libfaketime.so.1").text().to_owned();
        let jump = |by: &str| stage.machine.write("/etc/rekeyd-test-clock", 0o644, by.as_bytes());
        jump("+0");
        stage.drop_in(&format!(
            "[Service]\nEnvironment=LD_PRELOAD={library} FAKETIME_TIMESTAMP_FILE=/etc/rekeyd-test-clock FAKETIME_NO_CACHE=1 \
             FAKETIME_DONT_FAKE_MONOTONIC=1\n"
        ));
        stage.policy(&PolicyText { soak: "6s", watch: "12s", ..PolicyText::default() });
        stage.begin();
        let ran = stage.rekeyd(&["rotate", SERVICE, "--wait"]);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        let verified = std::time::Instant::now();
        let live = || stage.aws.keys(USER).iter().filter(|key| key.active).count();
        assert_eq!(live(), 2);
        // As little as is let pass: whoever counted by this clock alone would have soaked long ago.
        jump("+4m");
        stage.machine.wait("the end of the soak", |_| (live() == 1).then_some(()));
        let soaked = verified.elapsed();
        assert!(soaked + Duration::from_secs(1) > SOAK, "the old key was disabled after {soaked:?}");
        // Then far from the provider's. Nothing is done blindly meanwhile, and nothing was lost when it is right again.
        for by in ["+5h", "-7h", "+2d"] {
            jump(by);
            stage.machine.must(&["systemctl", "kill", "-s", "USR2", "--kill-whom=main", "rekeyd"]);
            std::thread::sleep(WATCH / 2);
            assert_eq!(stage.aws.keys(USER).len(), 2, "a key was deleted with the clock {by} from the truth");
        }
        stage
            .machine
            .wait("a word about the clock", |_| stage.status()["message"].to_string().contains("clock").then_some(()));
        assert_eq!(stage.aws.keys(USER).len(), 2);
        jump("+0");
        stage.machine.must(&["systemctl", "kill", "-s", "USR2", "--kill-whom=main", "rekeyd"]);
        stage.wait_done(1);
        stage.assert_one_live_key(1);
    });
}
