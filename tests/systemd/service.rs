//! The unit as an operator meets it: start, reload, what a bad policy and a second daemon come to.

use std::net::TcpListener;

use serde_json::Value;

use crate::stage::{POLICY, PolicyText, SERVICE, story};

#[test]
fn a_start_returns_when_orders_are_taken_and_says_what_runs() {
    story(|stage| {
        stage.machine.must(&["systemctl", "start", "rekeyd"]);
        // At once, with nothing to wait for.
        let status = stage.rekeyd(&["status", "--json"]);
        assert_eq!(status.code, Some(0), "{status:?}");
        assert!(status.out.contains(SERVICE), "{status:?}");
        let said = stage.machine.show("rekeyd", "StatusText");
        assert!(said.starts_with("1 service") && said.contains("none due"), "{said}");
        stage.adopt();
        stage.rotate();
        stage.assert_one_live_key(1);

        // With a timetable the next one has a time.
        stage.policy(&PolicyText { service: r#"every = "1d""#.into(), ..PolicyText::default() });
        stage.machine.must(&["systemctl", "reload", "rekeyd"]);
        let said = stage.machine.wait("the next rotation in the status", |machine| {
            Some(machine.show("rekeyd", "StatusText")).filter(|said| said.contains("next"))
        });
        let next = stage.status()["next_rotation"].as_str().expect("a time").to_owned();
        assert!(said.contains(&format!("next {SERVICE} at {}", next[..16].replace('T', " "))), "{said}, but {next}");
    });
}

#[test]
fn a_good_policy_is_in_force_when_the_reload_returns_and_a_bad_one_changes_nothing() {
    story(|stage| {
        stage.begin();
        let pid = stage.machine.show("rekeyd", "MainPID");
        let more = stage.second_service();
        stage.policy(&PolicyText { more: more.clone(), ..PolicyText::default() });
        stage.machine.must(&["systemctl", "reload", "rekeyd"]);
        assert_eq!(stage.status_of("second")["name"], "second", "the reload returned before the policy was in force");

        let broken = stage.policy_of(&PolicyText { more, ..PolicyText::default() }).replace("probes", "probs");
        stage.machine.write(POLICY, 0o644, broken.as_bytes());
        stage.machine.run(&["systemctl", "reload", "rekeyd"]);
        stage.wait_log("the policy in force stays", 1);
        stage.wait_log("`probs`", 1);
        assert_eq!(stage.machine.show("rekeyd", "ActiveState"), "active");
        // systemd cannot be told that a reload failed, so the status says it until one succeeds; and commands work meanwhile.
        let status = stage.machine.show("rekeyd", "StatusText");
        assert!(status.contains("rekeyd check"), "{status}");
        let told = stage.rekeyd(&["status", "--json"]);
        assert!(told.out.contains("\"second\"") && told.err.contains("rekeyd check"), "{told:?}");

        // What is in force still works.
        stage.policy(&PolicyText::default());
        assert_eq!(stage.status_of("second")["name"], "second", "nothing was reloaded");
        stage.rotate();
        stage.machine.must(&["systemctl", "reload", "rekeyd"]);
        assert_eq!(stage.status_of("second"), Value::Null, "a good one is taken again");
        assert!(!stage.machine.show("rekeyd", "StatusText").contains("check"), "the refusal is forgotten");
        assert_eq!(stage.machine.show("rekeyd", "MainPID"), pid);
        stage.assert_one_live_key(1);
    });
}

#[test]
fn a_bad_policy_at_the_start_is_told_and_not_tried_again() {
    story(|stage| {
        // What the site does about it, as the user it runs as.
        let alert = "#!/bin/sh\necho \"told: $1 $MONITOR_SERVICE_RESULT $MONITOR_EXIT_STATUS\"\n";
        stage.machine.write("/etc/rekeyd/alert", 0o755, alert.as_bytes());
        stage.policy(&PolicyText { service: r#"every = "0d""#.into(), ..PolicyText::default() });
        let started = stage.machine.run(&["systemctl", "start", "rekeyd"]);
        assert_ne!(started.code, Some(0), "{started:?}");
        assert_eq!(stage.machine.show("rekeyd", "ExecMainStatus"), "78");
        assert_eq!(stage.machine.show("rekeyd", "SubState"), "failed", "it waits for a restart");
        assert_eq!(stage.machine.show("rekeyd", "NRestarts"), "0");
        assert!(stage.log().contains("every"), "{}", stage.log());
        let alert = "rekeyd-alert@rekeyd.service.service";
        let told = |unit: &str| stage.machine.must(&["journalctl", "--no-pager", "-o", "cat", "-u", unit]).out;
        stage.machine.wait("the alert", |_| told(alert).contains("told: rekeyd.service exit-code 78").then_some(()));
        assert!(told(alert).contains("rekeyd check"), "{}", told(alert));

        stage.policy(&PolicyText::default());
        stage.begin();
        stage.rotate();
    });
}

#[test]
fn what_may_pass_by_itself_is_tried_again_until_it_has_passed() {
    story(|stage| {
        let obstacle = TcpListener::bind(("127.0.0.1", stage.port)).expect("it was free");
        stage.machine.must(&["systemctl", "start", "--no-block", "rekeyd"]);
        stage.machine.wait("a restart", |machine| {
            let (state, count) = (machine.show("rekeyd", "SubState"), machine.show("rekeyd", "NRestarts"));
            (state == "auto-restart" || count != "0").then_some(())
        });
        assert_eq!(stage.machine.show("rekeyd", "ExecMainStatus"), "69");
        drop(obstacle);
        stage.machine.wait("a start", |machine| (machine.show("rekeyd", "ActiveState") == "active").then_some(()));
        assert_ne!(stage.machine.show("rekeyd", "NRestarts"), "0");
        stage.adopt();
        stage.rotate();
    });
}

#[test]
fn a_second_daemon_is_refused_and_the_first_one_goes_on() {
    story(|stage| {
        stage.begin();
        let pid = stage.machine.show("rekeyd", "MainPID");
        for words in [&["rekeyd", "run"][..], &["runuser", "-u", "rekeyd", "--", "rekeyd", "run"]] {
            let second = stage.machine.run(words);
            assert_eq!(second.code, Some(69), "{second:?}");
            assert!(second.err.contains(&pid), "it does not say who is there: {second:?}");
        }
        assert_eq!(stage.machine.show("rekeyd", "MainPID"), pid);
        stage.rotate();
        stage.machine.must(&["systemctl", "restart", "rekeyd"]);
        stage.rotate();
        stage.assert_one_live_key(2);
    });
}
