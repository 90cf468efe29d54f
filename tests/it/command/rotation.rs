//! A whole rotation with the built program, without any cloud: keys from a program, pushed to a file and to another program; the daemon
//! killed in the middle of a push; and an application that reads its key from the file and is never refused.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use rustix::process::{Pid, Signal, kill_process_group};

use super::super::support::{SERVICE, Scene, wait_until};
use super::{add_key, program};

const FIRST: (&str, &str) = ("KEYFIRST", "first-secret-0123456789");

/// What an application saw: how often its key was taken, and each time it was not.
struct Seen {
    uses: u64,
    refusals: Vec<String>,
}

/// Reads the file as an application does before each use, and uses the key at its issuer.
fn application(file: PathBuf, keys: PathBuf, over: Arc<AtomicBool>) -> JoinHandle<Seen> {
    std::thread::spawn(move || {
        let mut seen = Seen { uses: 0, refusals: Vec::new() };
        while !over.load(Ordering::Relaxed) {
            let text = std::fs::read_to_string(&file).expect("it is there at every moment");
            let held: serde_json::Value = serde_json::from_str(&text).expect("it is whole at every moment");
            let (id, secret) = (held["access_key_id"].as_str(), held["secret_access_key"].as_str());
            let (id, secret) = (id.expect("it has an id"), secret.expect("it has a secret"));
            let known = std::fs::read_to_string(keys.join(id)).unwrap_or_default();
            let mut lines = known.lines();
            match (lines.next(), lines.next()) {
                (Some("true"), Some(right)) if right == secret => seen.uses += 1,
                // What was read is used a moment later, however long that takes; a key that was replaced meanwhile says nothing.
                other if std::fs::read_to_string(&file).is_ok_and(|now| now == text) => {
                    seen.refusals.push(format!("{id}: {:?}", other.0));
                }
                _ => {}
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        seen
    })
}

fn policy(scene: &Scene, keys: &Path, place: &Path) -> String {
    let home = scene.path("").display().to_string();
    let home = home.trim_end_matches('/');
    let issuer = program("keys.sh", keys, ", \"client-named\"");
    let target = program("place.sh", place, "");
    format!(
        r#"version = 1
[daemon]
journal = "sqlite:{home}/state/journal.db"
control = "{home}/control.sock"
listen = "off"

[[service]]
name = "{SERVICE}"
probes = 2
probe_interval = "50ms"
soak = "500ms"
soak_unproven = "500ms"
watch = "300ms"
observe = "1s"

[service.issuer]
kind = "command"
shape = "client-named"
settle = "0s"
{issuer}
[[service.target]]
kind = "command"
{target}
[[service.target]]
kind = "file"
path = "{home}/app/key.json"
"#
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_killed_in_the_middle_of_a_push_refuses_no_application_its_key() {
    let scene = Scene::new().await;
    tokio::task::spawn_blocking(move || story(&scene)).await.expect("the story ends well");
}

/// One key, which stands in both places: the folders of the issuer and of the place, and the file.
fn set_up(scene: &Scene) -> (PathBuf, PathBuf, PathBuf) {
    let (keys, place, app) = (scene.path("keys"), scene.path("place"), scene.path("app"));
    for folder in [&keys, &place, &app, &keys.join("keys"), &keys.join("faults"), &keys.join("denied")] {
        std::fs::create_dir(folder).expect("it can be made");
    }
    add_key(&keys, FIRST.0, FIRST.1);
    std::fs::write(place.join("held"), format!("{}\n{}\n", FIRST.0, FIRST.1)).expect("it can be written");
    let file = app.join("key.json");
    let first = format!("{{\"access_key_id\": \"{}\", \"secret_access_key\": \"{}\"}}\n", FIRST.0, FIRST.1);
    std::fs::write(&file, first).expect("it can be written");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).expect("it is ours");
    std::fs::write(scene.policy(), policy(scene, &keys, &place)).expect("it can be written");
    scene.write_secret("first", FIRST.1);
    (keys, place, file)
}

fn adopt(scene: &Scene) {
    let secret_file = scene.path("first").display().to_string();
    let ran = scene.run(&["adopt", SERVICE, FIRST.0, "--secret-file", &secret_file]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
}

/// The secret of the key in use is shredded when its rotation is done; the next one must not take its id for somebody else's.
#[tokio::test(flavor = "multi_thread")]
async fn a_place_that_shows_ids_alone_is_given_one_key_after_another() {
    let scene = Scene::new().await;
    tokio::task::spawn_blocking(move || {
        let (keys, place, _) = set_up(&scene);
        std::fs::write(place.join("ids-only"), "").expect("it can be written");
        let shredding = policy(&scene, &keys, &place).replace("observe =", "keep_secret = \"rotation\"\nobserve =");
        std::fs::write(scene.policy(), shredding).expect("it can be written");
        let daemon = scene.start();
        adopt(&scene);
        for round in 1..=3 {
            let ran = scene.run(&["rotate", SERVICE]);
            assert_eq!(ran.code, Some(0), "{ran:?}");
            scene.wait_done(round);
            assert_eq!(one_key(&keys), held(&place), "round {round}");
        }
        // A push that says that it is done, and the id of the key before: that is no proof, and it is pushed again.
        std::fs::write(place.join("mishap"), "liar").expect("it can be written");
        let pushes = || log(&place).iter().filter(|act| *act == "push").count();
        let before = pushes();
        assert_eq!(scene.run(&["rotate", SERVICE]).code, Some(0));
        scene.wait_done(4);
        assert_eq!(pushes() - before, 2);
        assert_eq!(one_key(&keys), held(&place));
        assert_eq!(daemon.stop().code(), Some(0));
    })
    .await
    .expect("the story ends well");
}

fn story(scene: &Scene) {
    let (keys, place, file) = set_up(scene);
    let over = Arc::new(AtomicBool::new(false));
    let application = application(file.clone(), keys.join("keys"), over.clone());

    let daemon = scene.start();
    adopt(scene);
    let pushes = || log(&place).iter().filter(|act| *act == "push").count();
    std::fs::write(place.join("hold"), "").expect("it can be written");
    let ran = scene.run(&["rotate", SERVICE]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    wait_until("the key is being pushed", || pushes() == 1);
    daemon.kill9();
    let daemon = scene.start();
    wait_until("it is pushed again", || pushes() == 2);
    std::fs::remove_file(place.join("hold")).expect("it is there");
    scene.wait_done(1);
    assert_eq!(log(&keys).iter().filter(|act| *act == "mint").count(), 1);
    assert_eq!(one_key(&keys), held(&place), "one key lives, and it is the one that was handed over");

    // The next one without any trouble, after one whose word is lost.
    std::fs::write(place.join("mishap"), "lost").expect("it can be written");
    let ran = scene.run(&["rotate", SERVICE]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    scene.wait_done(2);
    let last = one_key(&keys);
    assert_eq!(last, held(&place));
    wait_until("the application is given it", || std::fs::read_to_string(&file).is_ok_and(|text| text.contains(&last)));
    over.store(true, Ordering::Relaxed);
    let seen = application.join().expect("the application works");
    assert_eq!(seen.refusals, Vec::<String>::new());
    assert!(seen.uses > 20, "{}", seen.uses);
    let minted = std::fs::read_to_string(place.join("held")).expect("it is there");
    let secrets = minted.lines().skip(1).map(str::to_owned).chain([FIRST.1.to_owned()]).collect();
    scene.assert_none_seen(secrets, "");
    assert_eq!(daemon.stop().code(), Some(0));
}

/// As where systemd stops the unit, and somebody sends a signal to all that is in it.
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_lets_a_program_end_its_push() {
    let scene = Scene::new().await;
    tokio::task::spawn_blocking(move || {
        let (keys, place, _) = set_up(&scene);
        let daemon = scene.start();
        adopt(&scene);
        let pushes = || log(&place).iter().filter(|act| *act == "push").count();
        std::fs::write(place.join("hold"), "").expect("it can be written");
        assert_eq!(scene.run(&["rotate", SERVICE]).code, Some(0));
        let pid = || std::fs::read_to_string(place.join("pid")).ok()?.trim().parse().ok().and_then(Pid::from_raw);
        wait_until("the key is being pushed", || pid().is_some());
        let program = pid().expect("it has one");
        for signal in [Signal::HUP, Signal::INT, Signal::TERM, Signal::USR1, Signal::USR2] {
            kill_process_group(program, signal).expect("it is still there");
        }
        daemon.signal("TERM");
        std::fs::remove_file(place.join("hold")).expect("it is there");
        assert_eq!(daemon.stop_signalled().code(), Some(0));
        let pushed = held(&place);
        assert_ne!(pushed, FIRST.0, "it was let end");
        let _daemon = scene.start();
        scene.wait_done(1);
        assert_eq!((pushes(), one_key(&keys)), (1, pushed));
    })
    .await
    .expect("the story ends well");
}

fn log(state: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(state.join("log")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

fn one_key(state: &Path) -> String {
    let names = std::fs::read_dir(state.join("keys")).expect("it is there").flatten();
    let names: Vec<String> = names.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    assert_eq!(names.len(), 1, "{names:?}");
    names[0].clone()
}

fn held(state: &Path) -> String {
    let text = std::fs::read_to_string(state.join("held")).expect("it is there");
    text.lines().next().expect("it has an id").to_owned()
}

/// A program and a file stand in no table of their own, so none is named for an operator to look at.
#[tokio::test(flavor = "multi_thread")]
async fn doctor_sends_nobody_to_a_table_that_there_is_not() {
    let scene = Scene::new().await;
    tokio::task::spawn_blocking(move || {
        let (keys, place, file) = set_up(&scene);
        std::fs::remove_dir_all(file.parent().expect("a folder")).expect("it can be removed");
        std::fs::write(scene.policy(), policy(&scene, &keys, &place)).expect("it can be written");
        let ran = scene.run(&["doctor"]);
        let refused =
            "next: mend what the message names, or correct the policy and systemctl reload rekeyd; then rekeyd doctor";
        assert!(ran.out.contains(refused) && !ran.out.contains("[command:") && !ran.out.contains("[file:"), "{ran:?}");
        // A request it does not know is no answer: whether it did anything, nobody knows.
        std::fs::write(keys.join("faults/identity"), "error").expect("it can be written");
        let ran = scene.run(&["doctor"]);
        assert!(ran.out.contains("next: mend what the message names; rekeyd goes on by itself then"), "{ran:?}");
        assert!(!ran.out.contains("[command:"), "{ran:?}");
    })
    .await
    .expect("the story ends well");
}
