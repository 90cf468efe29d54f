//! A journal restored from an older copy, taken at a random instant: it is behind a world that has rotated twice since. That is no
//! power cut, because what was acknowledged is missing; so nothing may be minted, pushed, disabled or deleted on its word.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::storm::{Storm, in_the_lab, kills};

/// What a service says that finds itself behind: where a push was under way when the copy was taken, the target is looked at first, and
/// what it shows is nobody's that the journal knows.
const RIGHT: [&str; 2] = ["journal-behind", "target-changed"];
/// Requests that change something.
const CHANGES: [&str; 5] =
    ["CreateAccessKey", "UpdateAccessKey", "DeleteAccessKey", "credential/update", "credential/add"];

#[tokio::test(flavor = "multi_thread")]
async fn an_older_copy_of_the_journal() {
    in_the_lab("an older copy of the journal", |storm| {
        storm.begin();
        // One round of the short form is two dozen seconds.
        for _ in 0..(kills(34) / 34).max(1) {
            let pause = storm.dice.millis(0, 4000);
            storm.live_until(Instant::now() + pause, |_| false);
            // A key that is minted and not yet known everywhere has ten minutes; until they are over the copy would not be found behind.
            let minted = |storm: &Storm<'_>| storm.status().iter().any(|status| status["phase"] == "minted");
            while minted(storm) {
                storm.live_until(Instant::now() + Duration::from_millis(50), |_| false);
            }
            storm.kill();
            let (state, backup) = (storm.scene.path("state"), storm.scene.path("backup"));
            replace(&state, &backup);
            for service in storm.services.iter().map(|service| service.name).collect::<Vec<_>>() {
                let last = storm.history(service).last().map_or(String::new(), |line| line["text"].to_string());
                storm.note(format!("copied with {service} at: {last}"));
            }
            storm.start();
            storm.take_policy(true);
            rotates_twice(storm);
            storm.come_to_rest();
            storm.stop();
            // A provider tells the second of a creation; the copy's last entry must be older than that.
            replace(&backup, &state);
            let before = changes(storm);
            storm.start();
            halts_everywhere(storm);
            assert_eq!(changes(storm), before, "something was changed on the word of an old copy");
            storm.no_consumer_was_refused();
            take_up_again(storm);
            storm.take_policy(true);
        }
        storm.come_to_rest();
        storm.each_rotates_once_more();
        storm.no_consumer_was_refused();
        let ledger = storm.scene.run(&["ledger", "verify"]);
        assert_eq!(ledger.code, Some(0), "{ledger:?}");
        storm.stop();
    })
    .await;
}

fn replace(from: &Path, to: &Path) {
    let _ = std::fs::remove_dir_all(to);
    std::fs::create_dir(to).expect("it can be made");
    for entry in std::fs::read_dir(from).expect("it can be read").flatten() {
        // The index of the log is memory, and no backup has it.
        if !entry.file_name().to_string_lossy().ends_with("-shm") {
            std::fs::copy(entry.path(), to.join(entry.file_name())).expect("it can be copied");
        }
    }
}

fn done(storm: &Storm<'_>) -> Vec<u64> {
    storm.status().iter().map(|status| status["rotations"]["done"].as_u64().expect("a number")).collect()
}

fn rotates_twice(storm: &mut Storm<'_>) {
    let before = done(storm);
    let deadline = Instant::now() + Duration::from_secs(60);
    while done(storm).iter().zip(&before).any(|(now, then)| *now < then + 2) {
        assert!(Instant::now() < deadline, "no two rotations: {:#?}", storm.status());
        storm.operate();
        storm.live_until(Instant::now() + Duration::from_millis(300), |_| false);
    }
}

/// Requests that were carried out and changed something.
fn changes(storm: &Storm<'_>) -> usize {
    let mut requests = storm.cloud.aws.as_ref().expect("the lab's").requests();
    storm.sites.iter().for_each(|site| requests.extend(site.requests()));
    requests.iter().filter(|line| line.executed && CHANGES.contains(&line.operation.as_str())).count()
}

fn halts_everywhere(storm: &mut Storm<'_>) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !storm.status().iter().all(|status| status["state"] == "halted") {
        assert!(Instant::now() < deadline, "not all halted: {:#?}", storm.status());
        storm.live_until(Instant::now() + Duration::from_millis(200), |_| false);
    }
    // And stays so.
    storm.live_until(Instant::now() + Duration::from_secs(2), |_| false);
    for status in storm.status() {
        storm.note(format!(
            "{}: {}: {} NEXT {}",
            status["name"], status["reason"], status["message"], status["next_command"]
        ));
        let reason = status["reason"].as_str().unwrap_or_default();
        assert!(RIGHT.contains(&reason), "{status:#}");
    }
}

/// The operator looks which key the targets hold and says so, as each service asks for.
fn take_up_again(storm: &mut Storm<'_>) {
    for service in &storm.services {
        let (key, secret) = storm.sites[service.targets[0].0].held_key(service.targets[0].1).expect("it holds one");
        let status = storm.status_of(service.name);
        let next = status["next_command"].as_str().expect("a command");
        // A target's tail is no id, so there the operator is left to find it.
        let id = if status["reason"] == "target-changed" { "KEY_ID" } else { &key };
        assert!(next.contains(&format!("rekeyd adopt {} {id}", service.name)), "{next}");
        storm.scene.write_secret("held-secret", &secret);
        let file = storm.scene.path("held-secret").display().to_string();
        let ran = storm.scene.run(&["adopt", service.name, &key, "--secret-file", &file]);
        assert_eq!(ran.code, Some(0), "{ran:?}");
    }
}
