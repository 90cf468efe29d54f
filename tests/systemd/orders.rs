//! Rotations on demand: by a signal, by people, by other units and timers.

use crate::stage::{SERVICE, story};

#[test]
fn a_signal_to_the_main_process_rotates() {
    story(|stage| {
        stage.begin();
        stage.machine.must(&["systemctl", "kill", "-s", "USR1", "--kill-whom=main", "rekeyd"]);
        stage.wait_done(1);
        stage.assert_one_live_key(1);
        let history = stage.rekeyd(&["history", SERVICE]).out;
        assert!(history.contains("rotation ordered by SIGUSR1"), "{history}");
    });
}

#[test]
fn members_of_the_group_give_orders_and_nobody_else() {
    story(|stage| {
        stage.begin();
        stage.machine.must(&["useradd", "--groups", "rekeyd", "anna"]);
        stage.machine.must(&["useradd", "bert"]);
        let as_user =
            |user: &str, words: &[&str]| stage.machine.run(&[&["runuser", "-u", user, "--", "rekeyd"], words].concat());
        let bert = as_user("bert", &["rotate", SERVICE, "--wait"]);
        assert!(bert.code != Some(0) && stage.aws.mints() == 0, "{bert:?}");
        let anna = as_user("anna", &["rotate", SERVICE, "--wait=done"]);
        assert_eq!(anna.code, Some(0), "{anna:?}");
        let history = stage.rekeyd(&["history", SERVICE]).out;
        assert!(history.contains("anna") && !history.contains("bert"), "{history}");
        stage.assert_one_live_key(1);
        // The journal is nobody's to read but the daemon's.
        for user in ["anna", "bert"] {
            let read = stage.machine.run(&["runuser", "-u", user, "--", "ls", "/var/lib/rekeyd"]);
            assert_ne!(read.code, Some(0), "{read:?}");
        }
    });
}

#[test]
fn units_and_timers_order_rotations() {
    story(|stage| {
        let unit = format!("rekeyd-rotate@{SERVICE}.service");
        // Without a daemon nothing is rotated, and who ordered it hears of it.
        let early = stage.machine.run(&["systemctl", "start", &unit]);
        assert_ne!(early.code, Some(0), "{early:?}");
        assert_eq!(stage.machine.show("rekeyd", "ActiveState"), "inactive", "a daemon that is stopped was started");

        stage.begin();
        stage.machine.must(&["systemctl", "start", &unit]);
        // It ends when every target holds the new key.
        assert_eq!(stage.status()["rotations"]["verified"], 1);
        stage.wait_done(1);

        let timer = format!("[Timer]\nOnActiveSec=1s\nAccuracySec=100ms\nUnit={unit}\n");
        stage.machine.write("/etc/systemd/system/monthly.timer", 0o644, timer.as_bytes());
        stage.machine.must(&["systemctl", "daemon-reload"]);
        stage.machine.must(&["systemctl", "start", "monthly.timer"]);
        stage.wait_done(2);
        stage.assert_one_live_key(2);

        // The messenger is stopped, and the rotation goes on.
        stage.arcgis.set_job_duration(std::time::Duration::from_secs(2));
        let begun = stage.status()["rotations"]["done"].as_u64();
        stage.machine.must(&["systemctl", "start", "--no-block", &unit]);
        stage.machine.wait("a rotation", |_| (stage.status()["phase"] == "deploying").then_some(()));
        stage.machine.must(&["systemctl", "stop", &unit]);
        stage.wait_done(begun.expect("a number") + 1);

        // One that fails says so.
        let nobody = stage.machine.run(&["systemctl", "start", "rekeyd-rotate@nobody.service"]);
        assert_ne!(nobody.code, Some(0), "{nobody:?}");
    });
}
