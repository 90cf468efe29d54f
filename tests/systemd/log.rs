//! What stands in the journal of a booted machine: fields to search by, and the priority of each entry.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::stage::{CLOUD_SERVICE, SERVICE, Stage, story};

#[test]
fn one_service_and_one_rotation_can_be_read_from_begin_to_end() {
    story(|stage| {
        let more = stage.second_service();
        stage.policy(&crate::stage::PolicyText { more, ..Default::default() });
        stage.begin();
        stage.rotate();
        let rotation = rotation_of(stage, SERVICE);
        stage.machine.must(&["rekeyd", "rotate", "second", "--wait"]);

        let all = entries(stage, &[]);
        assert!(all.iter().any(|entry| entry["SERVICE"] == "second"), "{all:#?}");
        let of_service = entries(stage, &[&format!("SERVICE={SERVICE}")]);
        assert!(of_service.len() > 5 && of_service.len() < all.len(), "{of_service:#?}");
        assert!(of_service.iter().all(|entry| entry["SERVICE"] == SERVICE));

        // The phases in the order of the machine.
        let of_rotation = entries(stage, &[&format!("ROTATION={rotation}")]);
        let mut phases: Vec<_> = of_rotation.iter().filter_map(|entry| entry["PHASE"].as_str()).collect();
        phases.dedup();
        let order = ["opened", "minting", "minted", "ready", "deploying", "soaking", "disabled", "deleted"];
        let mut expected = order.iter();
        for phase in &phases {
            assert!(expected.any(|next| next == phase) || *phase == "soaking", "{phase} in {phases:?}");
        }
        assert!(
            ["minting", "deploying", "soaking", "disabled"].iter().all(|phase| phases.contains(phase)),
            "{phases:?}"
        );

        // By its id one finds what became of a key.
        let held = stage.arcgis.held_key(CLOUD_SERVICE).expect("it holds one").0;
        for (key, said) in [(&held, "minted"), (&held, "pushing"), (&stage.first_key.0, "deleted")] {
            let of_key = entries(stage, &[&format!("KEY_ID={key}")]);
            let found = of_key.iter().any(|entry| entry["MESSAGE"].as_str().is_some_and(|text| text.contains(said)));
            assert!(found, "{said} {key}: {of_key:#?}");
        }
        for entry in &all {
            assert_eq!(entry["SYSLOG_IDENTIFIER"], "rekeyd", "{entry:#}");
            assert_eq!(entry["_SYSTEMD_UNIT"], "rekeyd.service", "{entry:#}");
            // A field is the trade's or the journal's, and nothing that a library calls so.
            let known = ["SERVICE", "ROTATION", "PHASE", "KEY_ID", "REASON", "NEXT"];
            assert!(
                known.iter().all(|name| entry.get(*name).is_none_or(|value| value != "-" && value != "")),
                "{entry:#}"
            );
        }
    });
}

#[test]
fn what_went_wrong_has_a_reason_a_priority_and_the_next_command() {
    story(|stage| {
        stage.begin();
        stage.arcgis.set_password("another-password-of-the-rotator");
        stage.also_secret("another-password-of-the-rotator");
        stage.arcgis.expire_tokens();
        let ran = stage.rekeyd(&["rotate", SERVICE, "--wait"]);
        assert_eq!(ran.code, Some(1), "{ran:?}");
        let halted = entries(stage, &["REASON=login-refused"]);
        let entry = halted.iter().find(|entry| entry["MESSAGE"].to_string().contains("halted")).expect("there is one");
        assert_eq!(entry["SERVICE"], SERVICE, "{entry:#}");
        assert_eq!(entry["PRIORITY"], "3", "{entry:#}");
        assert!(entry["NEXT"].as_str().is_some_and(|next| next.contains("systemctl restart rekeyd")), "{entry:#}");
        // What is no trouble is none there either.
        let priorities: BTreeSet<_> = entries(stage, &[]).iter().map(|entry| entry["PRIORITY"].to_string()).collect();
        assert!(priorities.contains("\"6\""), "{priorities:?}");
        stage.arcgis.set_password(&stage.password());
        stage.machine.must(&["systemctl", "restart", "rekeyd"]);
        stage.rekeyd(&["retry", SERVICE]);
        stage.machine.wait("rest", |_| (stage.status()["state"] == "idle").then_some(()));
        stage.rotate();
    });
}

/// The daemon's own entries that have all of these fields.
fn entries(stage: &Stage, fields: &[&str]) -> Vec<Value> {
    let words = [&["journalctl", "--no-pager", "-o", "json", "SYSLOG_IDENTIFIER=rekeyd"], fields].concat();
    let ran = stage.machine.run(&words);
    ran.out.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

/// The rotation that the service's last `done` belongs to.
fn rotation_of(stage: &Stage, service: &str) -> String {
    let history = stage.machine.must(&["rekeyd", "history", service, "--json"]).out;
    let lines: Vec<Value> = serde_json::from_str(&history).expect("an array");
    let rotation = lines.iter().rev().find_map(|line| line["rotation"].as_str());
    rotation.expect("there is a rotation").to_owned()
}
