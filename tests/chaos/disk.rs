//! Bad disks and bad files, with the real program. What the journal does by itself is shown in `tests/it/journal.rs` (a torn log, a
//! truncated file, a flipped bit), and a small disk that fills up in `tests/it/mistakes.rs`; here is what those cannot show.
//!
//! | case | here | elsewhere |
//! |---|---|---|
//! | disk full | at random instants of a rotation | before an order, during a mint, no room for the ballast: `mistakes` |
//! | sync and write errors | every kind, at rest and at random instants | |
//! | read-only state directory | at the first start and at a later one | |
//! | journal cut in mid-record | what every command says | every length: `journal` |
//! | flipped bit | one of three services, the others rotate | each field of a row: `chain`; the ledger's word: `daemon` |
//! | two at once | started together, with a journal and without | one after the other: `daemon`, `journal` |

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use rekeyd_lab::{ArcGisOptions, AwsOptions};
use serde_json::Value;

use crate::dice::Dice;
use crate::shim::{EIO, ENOSPC, EROFS, Shim};
use crate::storm::{in_the_lab, tell_everybody};
use crate::support::{Daemon, Disk, Ran, SERVICE, Scene, wait_until};

/// What happens to the disk.
type Failure = fn(&Shim);

/// Each kind of failure, while nothing else happens: the order is refused, the daemon ends, and its last line says what to do.
#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fails_at_rest() {
    story("a disk that fails at rest", |scene, shim, _| {
        let refused = ": the disk, its file system or a quota refused it, and the kernel's log may say why (journalctl -k)";
        let failures: [(Failure, String); 4] = [
            (|shim| shim.fail_syncs(EIO), format!("disk I/O error during a sync (sqlite error 1034){refused}")),
            (|shim| shim.fail_writes(EIO), format!("disk I/O error during a write (sqlite error 778){refused}")),
            (|shim| shim.fail_writes(EROFS), format!("disk I/O error during a write (sqlite error 778){refused}")),
            (|shim| shim.fail_writes(ENOSPC), "database or disk is full".to_owned()),
        ];
        let state = |scene: &Scene| scene.service()["state"].as_str().unwrap_or_default().to_owned();
        for (fail, why) in failures {
            let mut daemon = start(scene, shim);
            if scene.service()["current_key"].is_null() {
                scene.adopt();
            }
            wait_until("it is at rest", || ["idle", "paused"].contains(&state(scene).as_str()));
            let before = events(scene);
            let word = if state(scene) == "paused" { "resume" } else { "pause" };
            fail(shim);
            let ran = scene.run(&[word, SERVICE]);
            assert_eq!(ran.code, Some(69), "{ran:?}");
            assert!(ran.err.contains("this order was not taken or not written down"), "{ran:?}");
            assert_eq!(daemon.ended().code(), Some(69), "it ends rather than act on what is not written");
            let last = daemon.log().lines().last().unwrap_or_default().to_owned();
            let start = format!("rekeyd: cannot write to journal {}: {why} (", scene.path("state/journal.db").display());
            let end = "; nothing more was done, since nothing is done that is not written down: mend that, and the next start goes \
                       on from the journal";
            assert!(last.starts_with(&start) && last.ends_with(end), "{last}\n{start}\n{end}");
            shim.calm();
            // Whether the order stands is the disk's secret; more than that is not there.
            assert!(events(scene) <= before + 1);
        }
        if state(scene) == "paused" {
            assert_eq!(scene.run(&["resume", SERVICE]).code, Some(0));
        }
        assert_eq!(scene.aws.mints(), 0);
        rotates(scene);
    })
    .await;
}

/// Each kind of failure at random instants of a rotation: whatever was under way, the next start goes on from the journal.
#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fails_during_a_rotation() {
    story("a disk that fails during a rotation", |scene, shim, dice| {
        let failures: [Failure; 4] = [
            |shim| shim.fail_syncs(EIO),
            |shim| shim.fail_writes(EIO),
            |shim| shim.fail_writes(ENOSPC),
            |shim| shim.fail_writes(EROFS),
        ];
        exclusive(scene);
        let mut daemon = start(scene, shim);
        scene.adopt();
        let mut ended = 0;
        for round in 0..12 {
            let _ = scene.run(&["rotate", SERVICE]);
            std::thread::sleep(dice.millis(0, 900));
            failures[round % 4](shim);
            let deadline = Instant::now() + Duration::from_secs(2);
            while daemon.has_ended().is_none() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(20));
            }
            shim.calm();
            // One that has nothing to write notices nothing, and one that holds a minted key tries for a minute.
            if let Some(status) = daemon.has_ended() {
                assert_eq!(status.code(), Some(69), "{}", daemon.log());
                ended += 1;
                drop(daemon);
                daemon = start(scene, shim);
            }
        }
        assert!(ended > 3, "it ended {ended} times");
        wait_until("it is at rest", || scene.service()["state"] == "idle");
        drop(daemon);
        rotates(scene);
        let history: Vec<Value> =
            serde_json::from_str(&scene.run(&["history", SERVICE, "--json"]).out).expect("an array");
        let intents = history.iter().filter(|line| line["event"] == "mint_begun").count();
        assert!(scene.aws.mints() <= intents, "{} mints of {intents} intents", scene.aws.mints());
        tell_everybody(&format!(
            "  12 failures, the daemon ended at {ended} of them, {} rotations done",
            scene.service()["rotations"]["done"]
        ));
    })
    .await;
}

/// A small disk that is filled to the last byte at random instants of a rotation, and emptied.
#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fills_up_during_a_rotation() {
    story("a disk that fills up during a rotation", |scene, _, dice| {
        let Some(disk) = Disk::mount(scene.path("state")) else { return };
        exclusive(scene);
        let mut daemon = scene.start_adopted();
        let mut ended = 0;
        for _ in 0..6 {
            let _ = scene.run(&["rotate", SERVICE]);
            std::thread::sleep(dice.millis(0, 900));
            disk.fill_up_to(0);
            let deadline = Instant::now() + Duration::from_secs(2);
            while daemon.has_ended().is_none() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(20));
            }
            disk.empty();
            if let Some(status) = daemon.has_ended() {
                assert_eq!(status.code(), Some(69), "{}", daemon.log());
                ended += 1;
                drop(daemon);
                daemon = scene.start();
            }
        }
        daemon.signal("USR2");
        wait_until("it is at rest", || scene.service()["state"] == "idle");
        assert_eq!(daemon.stop().code(), Some(0));
        rotates(scene);
        tell_everybody(&format!("  filled 6 times, the daemon ended at {ended} of them"));
    })
    .await;
}

/// Nothing can be started, and everything that only reads still answers.
#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_state_directory() {
    story("a read-only state directory", |scene, _, _| {
        let state = scene.path("state");
        let disk = Disk::mount(state.clone());
        let set = |read_only: bool| match &disk {
            Some(disk) => disk.set_read_only(read_only),
            None => {
                std::fs::create_dir_all(&state).expect("it can be made");
                let mode = std::fs::Permissions::from_mode(if read_only { 0o500 } else { 0o700 });
                std::fs::set_permissions(&state, mode).expect("it is ours");
            }
        };
        let why =
            if disk.is_some() { "Read-only file system (os error 30)" } else { "Permission denied (os error 13)" };
        let refused = |words: &[&str], what: &str| {
            let ran = scene.run(words);
            assert_eq!((ran.code, last_line(&ran)), (Some(69), format!("rekeyd: {what}")), "{words:?}: {ran:?}");
        };
        let (at, lock) = (state.display(), format!("cannot open the lock {}/journal.db.lock: {why}", state.display()));

        set(true);
        refused(&["run"], &format!("cannot make the seal key file {at}/seal.key: {why}"));
        refused(&["status"], &format!("journal {at}/journal.db does not exist; only `rekeyd run` makes one"));

        set(false);
        assert_eq!(scene.start_adopted().stop().code(), Some(0));
        set(true);
        if disk.is_some() {
            refused(&["run"], &lock);
            refused(&["rotate", SERVICE], &lock);
            assert_eq!(scene.run(&["status"]).code, Some(0), "{:?}", scene.run(&["status"]));
            assert!(scene.run(&["history", SERVICE]).out.contains(&scene.first_key.0));
            assert_eq!(scene.run(&["ledger", "verify"]).code, Some(0));
        }

        // And after a kill, when a part of the journal still stands in its log.
        set(false);
        scene.start().kill9();
        set(true);
        if disk.is_some() {
            refused(&["run"], &lock);
            assert_eq!(scene.run(&["status"]).code, Some(0));
            assert_eq!(scene.run(&["ledger", "verify"]).code, Some(0));
        }
        set(false);
        rotates(scene);
    })
    .await;
}

/// Every command says that the file is damaged and what to do, and leaves it as it is.
#[tokio::test(flavor = "multi_thread")]
async fn a_journal_cut_in_mid_record() {
    story("a journal cut in mid-record", |scene, _, dice| {
        let daemon = scene.start_adopted();
        assert_eq!(scene.run(&["rotate", SERVICE, "--wait=done"]).code, Some(0));
        assert_eq!(daemon.stop().code(), Some(0));
        let journal = scene.path("state/journal.db");
        let whole = std::fs::read(&journal).expect("it is there");
        for _ in 0..6 {
            let length = usize::try_from(1 + dice.below(whole.len() as u64 - 1)).expect("a length");
            std::fs::write(&journal, &whole[..length]).expect("it can be written");
            for words in
                [["run"].as_slice(), &["status"], &["history", SERVICE], &["ledger", "verify"], &["rotate", SERVICE]]
            {
                let ran = scene.run(words);
                assert_eq!(ran.code, Some(69), "{words:?} of {length} bytes: {ran:?}");
                let said = last_line(&ran);
                assert!(said.contains(&journal.display().to_string()), "{words:?} of {length} bytes: {said}");
                assert!(said.contains("restore"), "{words:?} of {length} bytes: {said}");
            }
            assert_eq!(
                std::fs::read(&journal).expect("it is there").len(),
                length,
                "it is kept for whoever repairs it"
            );
        }
        std::fs::write(&journal, &whole).expect("it can be written");
        rotates(scene);
    })
    .await;
}

/// The chain says which service and where; that one is halted, and the others rotate.
#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_in_one_of_three_services() {
    in_the_lab("a flipped bit in one of three services", |storm| {
        storm.begin();
        storm.come_to_rest();
        storm.stop();
        let journal = storm.scene.path("state/journal.db");
        let (name, key) = {
            let service = storm.dice.pick(&storm.services);
            (service.name, service.first_key.0.clone())
        };
        let bodies = events_about(&journal, name, &key);
        let body = storm.dice.pick(&bodies);
        let within = body.find(&key).expect("it names it") + usize::try_from(storm.dice.below(20)).expect("a place");
        let bit = 1 << storm.dice.below(7);
        let mut bytes = std::fs::read(&journal).expect("it is there");
        // A page that was split leaves copies of its rows where nobody reads; one of all is the event.
        let copies: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at..].starts_with(body.as_bytes())).collect();
        storm.note(format!("bit {bit:#x} of byte {within} of an event is flipped at {copies:?}, in {name}"));
        copies.iter().for_each(|at| bytes[at + within] ^= bit);
        std::fs::write(&journal, bytes).expect("it can be written");

        let ledger = storm.scene.run(&["ledger", "verify"]);
        assert_eq!(ledger.code, Some(1), "{ledger:?}");
        let of = |service: &str| ledger.out.lines().find(|line| line.starts_with(service)).expect("a line").to_owned();
        let damage = of(name);
        assert!(damage.contains("DAMAGED, sound events: ") && damage.contains(", sequence "), "{damage}");
        let others: Vec<&str> =
            storm.services.iter().map(|service| service.name).filter(|other| *other != name).collect();
        for other in &others {
            assert!(of(other).starts_with(&format!("{other}: ok, ")), "{ledger:?}");
        }

        storm.start();
        let halted = storm.status_of(name);
        assert_eq!((&halted["state"], &halted["reason"]), (&"halted".into(), &"journal-damaged".into()), "{halted}");
        let message = halted["message"].as_str().expect("a message");
        assert!(message.contains(&format!("service {name}, sequence ")) && damage.contains(message), "{message}");
        let next = halted["next_command"].as_str().expect("a command");
        assert!(next.starts_with("rekeyd ledger verify") && next.contains("restore the journal"), "{next}");
        for other in others {
            let ran = storm.scene.run(&["rotate", other, "--wait=done"]);
            assert_eq!(ran.code, Some(0), "{ran:?}");
        }
        let refused = storm.scene.run(&["rotate", name]);
        assert_eq!(refused.code, Some(1), "{refused:?}");
        storm.no_consumer_was_refused();
        storm.stop();
    })
    .await;
}

/// The events of a service that name a key, as they are stored; the log is moved into the file.
fn events_about(journal: &Path, service: &str, key: &str) -> Vec<String> {
    let database = rusqlite::Connection::open(journal).expect("it is a database");
    database.execute_batch("PRAGMA wal_checkpoint(TRUNCATE)").expect("nobody else has it open");
    let mut events = database
        .prepare("SELECT body FROM event JOIN service ON service.id = event.service WHERE name = ?1")
        .expect("the tables are these");
    let bodies = events.query_map([service], |row| row.get::<_, String>(0)).expect("they can be read");
    bodies.map(|body| body.expect("a text")).filter(|body| body.contains(key)).collect()
}

/// One wins, the others end with 69 and name it, and the winner notices nothing: on a fresh machine and on one with a journal, whose
/// lock still names a dead process.
#[tokio::test(flavor = "multi_thread")]
async fn two_daemons_at_once() {
    story("two daemons at once", |scene, _, dice| {
        for round in 0..24 {
            if dice.once_in(2) {
                let _ = std::fs::remove_dir_all(scene.path("state"));
            }
            let count = 2 + dice.below(3);
            let mut daemons: Vec<Daemon<'_>> = (0..count).map(|_| scene.spawn(scene.command(&["run"]))).collect();
            let settled = |daemon: &mut Daemon<'_>| daemon.has_ended().is_some() || daemon.log().contains("ready");
            wait_until("each is ready or gone", || daemons.iter_mut().all(settled));
            let mut lost = Vec::new();
            daemons.retain_mut(|daemon| match daemon.has_ended() {
                None => true,
                Some(status) => {
                    // What it printed last may still be on its way.
                    wait_until("it said why", || daemon.log().contains("rekeyd: "));
                    lost.push((status.code(), daemon.log().lines().last().unwrap_or_default().to_owned()));
                    false
                }
            });
            assert_eq!(daemons.len(), 1, "round {round}: {lost:#?}");
            let journal = scene.path("state/journal.db");
            let expected = format!(
                "rekeyd: journal {} is held by process {}, and was left alone: end that process first (systemctl stop rekeyd, where it is the unit's), or give this one \
                 a control and journal of its own in [daemon]",
                journal.display(),
                daemons[0].pid()
            );
            for one in &lost {
                assert_eq!(*one, (Some(69), expected.clone()), "round {round}");
            }
            assert_eq!(scene.service()["name"], SERVICE, "the first is untouched");
            assert_eq!(scene.run(&["ledger", "verify"]).code, Some(0));
        }
        tell_everybody("  24 rounds, one winner in each");
    })
    .await;
}

async fn story(test: &'static str, tell: impl FnOnce(&Scene, &Shim, &mut Dice) + Send + 'static) {
    let mut scene = Scene::with(AwsOptions::default(), ArcGisOptions::default()).await;
    scene.keep_program();
    let told = tokio::task::spawn_blocking(move || {
        let mut dice = Dice::thrown(test);
        tell(&scene, &Shim::of(&scene.path("state")), &mut dice);
        tell_everybody(&format!("{test}: seed {}", dice.seed));
    });
    if let Err(failed) = told.await {
        std::panic::resume_unwind(failed.into_panic());
    }
}

fn start<'s>(scene: &'s Scene, shim: &Shim) -> Daemon<'s> {
    let mut command = scene.command(&["run"]);
    shim.under(&mut command);
    let daemon = scene.spawn(command);
    wait_until("the daemon is ready", || daemon.log().contains("ready"));
    daemon
}

fn rotates(scene: &Scene) {
    let daemon = scene.start();
    if scene.service()["current_key"].is_null() {
        scene.adopt();
    }
    wait_until("it is idle", || scene.service()["state"] == "idle");
    let ran = scene.run(&["rotate", SERVICE, "--wait=done"]);
    assert_eq!(ran.code, Some(0), "{ran:?}\n{}", scene.run(&["history", SERVICE]).out);
    scene.assert_one_live_key();
    assert_eq!(daemon.stop().code(), Some(0));
    assert_eq!(scene.run(&["ledger", "verify"]).code, Some(0));
    scene.assert_no_secret_seen();
}

/// Lets every key of the user be rekeyd's, so that a lost mint settles by itself.
fn exclusive(scene: &Scene) {
    let text = std::fs::read_to_string(scene.policy()).expect("the policy is there");
    let text = text.replace("kind = \"aws-iam\"", "kind = \"aws-iam\"\n  exclusive = true");
    std::fs::write(scene.policy(), text).expect("it can be written");
}

fn events(scene: &Scene) -> usize {
    scene.run(&["history", SERVICE]).out.lines().count()
}

fn last_line(ran: &Ran) -> String {
    ran.err.lines().last().unwrap_or_default().to_owned()
}
