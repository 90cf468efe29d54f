//! The built program against the lab: what an operator sees from start to end, and what each exit code is for.

use std::os::unix::net::UnixDatagram;
use std::process::Command;

use rekeyd_lab::{ArcGisOptions, AwsOptions};
use serde_json::Value;

use super::support::{CLOUD_SERVICE, PolicyText, SERVICE, Scene, USER, wait_until};

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_goes_from_adoption_to_done_without_a_refusal() {
    let scene = Scene::new().await;
    let daemon = scene.start_adopted();
    let ran = scene.run(&["rotate", SERVICE, "--wait=done"]);
    assert_eq!(ran.code, Some(0), "{ran:?}\n{}", scene.service());
    let service = scene.wait_done(1);
    let held = scene.arcgis.held_key(CLOUD_SERVICE).expect("it holds one").0;
    assert_ne!(held, scene.first_key.0);
    assert_eq!(service["current_key"], held.as_str());
    assert_eq!(service["phase"], Value::Null);
    scene.assert_one_live_key();

    // What was done can be read, also when nobody runs.
    let with_daemon = scene.run(&["history", SERVICE]);
    assert!(with_daemon.out.contains(&scene.first_key.0) && with_daemon.out.contains(&held), "{with_daemon:?}");
    assert_eq!(daemon.stop().code(), Some(0));
    let history = scene.run(&["history", SERVICE, "--json"]);
    let lines: Vec<Value> = serde_json::from_str(&history.out).expect("an array");
    assert_eq!(lines[0]["event"], "adopted");
    assert_eq!(lines.last().expect("there are some")["event"], "closed");
    let without = scene.run(&["history", SERVICE]);
    assert_eq!(without.out, with_daemon.out);
    let ledger = scene.run(&["ledger", "verify"]);
    assert_eq!(ledger.code, Some(0));
    assert!(ledger.out.starts_with(&format!("{SERVICE}: ok, ")), "{ledger:?}");
    let status = scene.run(&["status"]);
    assert_eq!(status.code, Some(0), "{status:?}");
    assert!(status.err.contains("no daemon answers") && status.out.contains(&held), "{status:?}");
    scene.assert_no_secret_seen();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_monitoring_sees_has_the_names_of_the_interface_and_survives_a_restart() {
    let scene = Scene::new().await;
    let daemon = scene.start_adopted();
    assert_eq!(scene.run(&["rotate", "--all", "--wait=done"]).code, Some(0));
    scene.wait_done(1);
    assert_eq!(daemon.stop().code(), Some(0));
    let _daemon = scene.start();
    let text = get(&scene.http("/metrics")).await.1;
    for line in [
        format!("rekeyd_rotations_total{{service=\"{SERVICE}\",outcome=\"done\"}} 1"),
        format!("rekeyd_service_state{{service=\"{SERVICE}\",state=\"idle\"}} 1"),
        format!("rekeyd_debt_keys{{service=\"{SERVICE}\"}} 0"),
        "rekeyd_rotation_duration_seconds_count 1".into(),
    ] {
        assert!(text.contains(&line), "{line} is missing from:\n{text}");
    }
    assert!(text.contains("rekeyd_service_key_created_timestamp_seconds{"), "{text}");
    assert!(
        !text.contains("rekeyd_service_next_rotation_timestamp_seconds{"),
        "on demand, so no time is known:\n{text}"
    );
    assert_eq!(get(&scene.http("/healthz")).await.0, 200);
    assert_eq!(get(&scene.http("/readyz")).await.0, 200);
    let status: Value = serde_json::from_str(&get(&scene.http("/api/v1/status")).await.1).expect("JSON");
    let printed: Value = serde_json::from_str(&scene.run(&["status", "--json"]).out).expect("JSON");
    assert_eq!(status, printed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_rotates_what_the_policy_lets_it() {
    let scene = Scene::new().await;
    let daemon = scene.start_adopted();
    daemon.signal("USR1");
    scene.wait_done(1);
    scene.assert_one_live_key();
    assert!(scene.run(&["history", SERVICE]).out.contains("rotation ordered by SIGUSR1"));
    scene.write_policy(&PolicyText { service: "on_signal = false".into(), ..PolicyText::default() });
    daemon.signal("HUP");
    wait_until("the new policy is in force", || daemon.log().contains("the new policy is in force"));
    daemon.signal("USR1");
    daemon.signal("USR2");
    wait_until("both were taken", || daemon.log().contains("SIGUSR2"));
    assert_eq!(daemon.status()["rotations"]["verified"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_policy_is_refused_whole_and_the_old_one_stays() {
    let scene = Scene::new().await;
    let daemon = scene.start_adopted();
    let broken = PolicyText { service: "sok = \"1h\"\nmax_age = \"-1d\"".into(), ..PolicyText::default() };
    scene.write_policy(&broken);
    daemon.signal("HUP");
    wait_until("the refusal is logged", || daemon.log().contains("the policy in force stays"));
    wait_until("both mistakes are", || daemon.log().contains("2 mistakes in"));
    let check = scene.run(&["check"]);
    assert_eq!(check.code, Some(78));
    assert!(check.err.contains("`sok`") && check.err.contains("help:"), "{check:?}");

    // What only a restart can change is said to be so.
    let moved = scene.path("other.sock").display().to_string();
    let text = std::fs::read_to_string(scene.policy()).expect("it is there");
    let text = text.replace("sok = \"1h\"\nmax_age = \"-1d\"", "");
    let old = scene.path("control.sock").display().to_string();
    std::fs::write(scene.policy(), text.replace(&old, &moved)).expect("it can be written");
    daemon.signal("HUP");
    wait_until("the other refusal is logged", || daemon.log().contains("restart needed: control changed"));

    scene.write_policy(&PolicyText::default());
    assert_eq!(scene.run(&["check"]).code, Some(0));
    assert_eq!(scene.run(&["rotate", SERVICE, "--wait"]).code, Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_with_a_broken_policy_starts_nothing() {
    let scene = Scene::new().await;
    scene.write_policy(&PolicyText { service: "every = \"0d\"".into(), ..PolicyText::default() });
    let ran = scene.run(&["run"]);
    assert_eq!(ran.code, Some(78), "{ran:?}");
    assert!(ran.err.contains("every"), "{ran:?}");
    assert!(!scene.path("state").exists() && !scene.path("control.sock").exists());
    std::fs::remove_file(scene.policy()).expect("it was there");
    assert_eq!(scene.run(&["run"]).code, Some(78), "a missing policy is a bad one");
    assert_eq!(scene.run(&["rotate"]).code, Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_daemon_finds_the_journal_held() {
    let scene = Scene::new().await;
    let first = scene.start();
    let ran = scene.run(&["run"]);
    assert_eq!(ran.code, Some(69), "{ran:?}");
    assert!(ran.err.contains(&format!("is held by process {}", first.pid())), "{ran:?}");
    assert!(ran.err.contains("systemctl stop rekeyd"), "{ran:?}");
    assert_eq!(scene.service()["name"], SERVICE, "the first one goes on");

    // With a journal of its own it finds the control socket taken, and leaves it to the first.
    let text = std::fs::read_to_string(scene.policy()).expect("it is there");
    let port = scene.http("").rsplit(':').next().expect("a port").to_owned();
    let other = text.replace("/state/", "/other-state/").replace(&format!("127.0.0.1:{port}"), "off");
    std::fs::write(scene.path("other.toml"), other).expect("it can be written");
    let (policy, socket) = (scene.path("other.toml"), scene.path("control.sock"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_rekeyd"));
    command.arg("run").arg("--policy").arg(&policy);
    let mut second = scene.spawn(command);
    assert_eq!(second.ended().code(), Some(69), "{}", second.log());
    wait_until("it said why", || second.log().contains("rekeyd: "));
    let said = second.log();
    let expected = format!(
        "rekeyd: another daemon, process {}, answers at {}, and was left alone: end that process first (systemctl stop rekeyd, where it is the unit's), or give this \
         one a control and journal of its own in [daemon]",
        first.pid(),
        socket.display()
    );
    assert_eq!(said.lines().last(), Some(expected.as_str()), "{said}");
    assert!(socket.exists(), "it is not removed");
    assert_eq!(scene.run(&["pause", SERVICE]).code, Some(0), "the first one goes on, and takes orders");
    assert_eq!(first.stop().code(), Some(0));
    assert!(!socket.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn ready_is_not_said_before_policy_journal_and_control_socket_stand() {
    let scene = Scene::new().await;
    let systemd = Systemd::at(&scene);
    let refused = |what: &str, code: i32| {
        let mut daemon = systemd.start(&scene);
        assert_eq!(daemon.ended().code(), Some(code), "{what}: {}", daemon.log());
        let said = systemd.all();
        assert!(!said.contains("READY=1"), "{what}: {said}");
    };
    let good = std::fs::read_to_string(scene.policy()).expect("it is there");
    std::fs::write(scene.policy(), good.replace("soak = ", "sok = ")).expect("it can be written");
    refused("a bad policy", 78);
    std::fs::write(scene.policy(), &good).expect("it can be written");

    let first = scene.start();
    refused("a journal that another has", 69);
    assert_eq!(first.stop().code(), Some(0));

    let other = std::os::unix::net::UnixListener::bind(scene.path("control.sock")).expect("a socket can be made");
    refused("a control socket that another has", 69);
    drop(other);

    // And with all three it is said when an order is taken, not before.
    let daemon = systemd.start(&scene);
    systemd.hear("READY=1");
    assert!(std::os::unix::net::UnixStream::connect(scene.path("control.sock")).is_ok());
    assert_eq!(scene.run(&["pause", SERVICE]).code, Some(0));
    assert_eq!(get(&scene.http("/readyz")).await.0, 200);
    assert_eq!(daemon.stop().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_reload_is_told_everywhere_until_a_good_one() {
    let scene = Scene::new().await;
    let systemd = Systemd::at(&scene);
    let daemon = systemd.start(&scene);
    assert!(systemd.hear("READY=1").contains("STATUS=1 service: none due by itself"));
    scene.adopt();
    let broken = PolicyText { service: "sok = \"1h\"".into(), ..PolicyText::default() };
    scene.write_policy(&broken);
    daemon.signal("HUP");
    systemd.hear("RELOADING=1");
    let refused = "STATUS=policy refused, the old one is in force (rekeyd check; once it is mended, systemctl reload rekeyd); 1 service: ";
    assert!(systemd.hear("READY=1").contains(refused), "the reload's own end says it");
    wait_until("the refusal is logged", || daemon.log().contains("the policy in force stays"));

    // Whoever only talks to the daemon needs no good file, and is told that it is bad.
    let note = "has mistakes (rekeyd check names them); the daemon at";
    let status = scene.run(&["status"]);
    assert_eq!(status.code, Some(0), "{status:?}");
    assert!(status.err.contains(note), "{status:?}");
    assert!(
        status.out.contains("the policy was refused at the last reload, and the old one is in force:"),
        "{status:?}"
    );
    assert!(status.out.contains("`sok`") && status.out.contains("next: rekeyd check"), "{status:?}");
    let json: Value = serde_json::from_str(&scene.run(&["status", "--json"]).out).expect("JSON");
    assert!(json["policy_refused"].as_str().is_some_and(|why| why.contains("`sok`")), "{json}");
    let served: Value = serde_json::from_str(&get(&scene.http("/api/v1/status")).await.1).expect("JSON");
    assert_eq!(
        (&served["services"], &served["policy_next_command"]),
        (&json["services"], &json["policy_next_command"])
    );
    let headlines = served["policy_refused"].as_str().expect("a text");
    assert!(
        headlines.contains("unknown key `sok`") && !headlines.contains("sok ="),
        "no line of the file: {headlines}"
    );
    assert!(get(&scene.http("/metrics")).await.1.contains("rekeyd_policy_refused 1\n"));
    for words in [
        ["pause", SERVICE].as_slice(),
        &["resume", SERVICE],
        &["strangers"],
        &["history", SERVICE],
        &["ledger", "verify"],
        &["doctor"],
        &["rotate", SERVICE, "--wait=done"],
    ] {
        let ran = scene.run(words);
        assert_eq!(ran.code, Some(0), "{words:?}: {ran:?}");
        assert!(ran.err.contains(note), "{words:?}: {ran:?}");
    }
    assert_eq!(scene.run(&["plan"]).code, Some(78), "a plan is made of the file");
    systemd.hear("STATUS=policy refused");

    // A policy that is right, and that only a new process can follow.
    scene.write_policy(&PolicyText::default());
    let good = std::fs::read_to_string(scene.policy()).expect("it is there");
    std::fs::write(scene.policy(), good.replace("listen = \"127.0.0.1:", "listen = \"127.0.0.2:"))
        .expect("it can be written");
    daemon.signal("HUP");
    systemd.hear("RELOADING=1");
    assert!(systemd.hear("READY=1").contains("in force (systemctl restart rekeyd takes it up); "));
    let status = scene.run(&["status"]);
    assert!(
        status.out.contains("restart needed: listen changed\n  next: systemctl restart rekeyd takes it up"),
        "{status:?}"
    );

    scene.write_policy(&PolicyText::default());
    daemon.signal("HUP");
    systemd.hear("RELOADING=1");
    assert!(systemd.hear("READY=1").contains("STATUS=1 service: "));
    let status = scene.run(&["status"]);
    assert_eq!((status.code, status.err.as_str()), (Some(0), ""));
    assert!(!status.out.contains("refused"), "{status:?}");
    assert!(get(&scene.http("/metrics")).await.1.contains("rekeyd_policy_refused 0\n"));
    assert_eq!(daemon.stop().code(), Some(0));
}

/// An order must not reach a daemon that it was not meant for.
#[tokio::test(flavor = "multi_thread")]
async fn a_bad_policy_that_leaves_open_which_daemon_is_meant_finds_none() {
    let scene = Scene::new().await;
    let daemon = scene.start_adopted();
    let good = std::fs::read_to_string(scene.policy()).expect("it is there");
    let write = |text: String| std::fs::write(scene.policy(), text).expect("it can be written");
    // Where it says so, even between syntax errors, that is the one.
    write(format!("{good}\nthis is no TOML\n"));
    assert_eq!(scene.run(&["pause", SERVICE]).code, Some(0));
    // Another daemon's place, and nobody there; and a line that names it and is not understood.
    let elsewhere = good.replace("control.sock", "elsewhere.sock").replace("soak = ", "sok = ");
    for text in [elsewhere, good.replace("control = \"", "control = ")] {
        write(text);
        for words in [["pause", SERVICE].as_slice(), &["status"], &["rotate", SERVICE]] {
            let ran = scene.run(words);
            assert_eq!(ran.code, Some(78), "{words:?}: {ran:?}");
            assert!(ran.err.contains(" in ") && ran.err.contains("mistake"), "{words:?}: {ran:?}");
        }
    }
    // Nor is the usual place taken for the one meant where a line that names another may be lost; it is where no line does.
    let usual = |text: String, words: &[&str]| {
        write(text);
        let mut command = scene.command(words);
        command.env("RUNTIME_DIRECTORY", scene.path("").as_os_str()).output().expect("it can be run").status.code()
    };
    let named = format!("control = \"{}\"\n", scene.path("control.sock").display());
    let lost = good.replace("[daemon]", "[daemon");
    assert_eq!(usual(lost.clone(), &["resume", SERVICE]), Some(78));
    assert!(lost.contains(&named));
    assert_eq!(usual(lost.replace(&named, ""), &["resume", SERVICE]), Some(0));
    assert_eq!(usual(good.replace(&named, "").replace("soak = ", "sok = "), &["pause", SERVICE]), Some(0));
    // Nor by a file that is no policy.
    for text in ["", "see the wiki\n", "soak = \"1h\"\n"] {
        assert_eq!(usual(text.to_owned(), &["resume", SERVICE]), Some(78), "{text:?}");
    }
    write(good);
    assert_eq!(scene.service()["state"], "paused");
    assert_eq!(daemon.stop().code(), Some(0));
}

/// systemd hands credentials over at the start only, so whoever changed one is told to restart, and who changed a file to reload.
#[tokio::test(flavor = "multi_thread")]
async fn a_changed_credential_asks_for_a_restart() {
    let scene = Scene::new().await;
    let given = scene.path("credentials");
    std::fs::create_dir(&given).expect("it can be made");
    let good = std::fs::read_to_string(scene.policy()).expect("it is there");
    let file = format!("{{ file = \"{}\" }}", scene.path("arcgis-password").display());
    assert!(good.contains(&file));
    let of_systemd = good.replace(&file, "{ credential = \"arcgis-prod\" }");
    std::fs::write(scene.policy(), &of_systemd).expect("it can be written");
    let start = || {
        let mut command = scene.command(&["run"]);
        command.env("CREDENTIALS_DIRECTORY", &given);
        let daemon = scene.spawn(command);
        wait_until("the daemon is ready", || daemon.log().contains("ready"));
        daemon
    };
    let restart = "systemctl restart rekeyd (a reload is not enough: systemd hands it over at the start only)";
    let give = |secret: &str| std::fs::write(given.join("arcgis-prod"), secret).expect("it can be written");

    // It is missing: said at the start, and where it is needed.
    give(&ArcGisOptions::default().password);
    let daemon = start();
    scene.adopt();
    assert_eq!(daemon.stop().code(), Some(0));
    std::fs::remove_file(given.join("arcgis-prod")).expect("it was there");
    let daemon = start();
    assert!(daemon.log().contains(&format!("put it in its place, then {restart}")), "{}", daemon.log());
    scene.run(&["rotate", SERVICE]);
    let service = scene.wait_for("state", "halted");
    let next = format!("put the secret named above in its place, then {restart} and rekeyd retry {SERVICE}");
    assert_eq!((&service["reason"], &service["next_command"]), (&"secret-not-held".into(), &next.into()), "{service}");
    assert_eq!(daemon.stop().code(), Some(0));

    // It is wrong: the same of the login.
    give("not-the-password");
    let daemon = start();
    assert_eq!(scene.run(&["retry", SERVICE]).code, Some(0));
    scene.run(&["rotate", SERVICE]);
    let service = scene.wait_for("reason", "login-refused");
    let next = format!(
        "correct the login named above (password, or access key and secret), then {restart} and rekeyd retry {SERVICE}"
    );
    assert_eq!(service["next_command"], next.as_str(), "{service}");
    assert!(scene.run(&["doctor"]).out.contains(&format!("where the policy says it is kept, then {restart}")));

    // A reload that names one which this process was not given is refused; systemd will not bring it.
    let more = of_systemd.replace("{ credential = \"arcgis-prod\" }", "{ credential = \"arcgis-new\" }");
    std::fs::write(scene.policy(), more).expect("it can be written");
    daemon.signal("HUP");
    wait_until("the refusal is logged", || daemon.log().contains("the policy in force stays"));
    let log = daemon.log();
    let told = log
        .lines()
        .find(|line| line.contains("password in [arcgis.prod]: reading the secret { credential = \"arcgis-new\" }"));
    assert!(told.is_some_and(|line| line.contains(&format!("put it in its place, then {restart}"))), "{told:?}");
    // What was lacking at the start already keeps no reload out.
    std::fs::remove_file(given.join("arcgis-prod")).expect("it was there");
    std::fs::write(scene.policy(), of_systemd.replace("soak = ", "# soak\nsoak = ")).expect("it can be written");
    daemon.signal("HUP");
    wait_until("the new policy is in force", || daemon.log().contains("the new policy is in force"));
    assert_eq!(daemon.stop().code(), Some(0));

    give(&ArcGisOptions::default().password);
    let daemon = start();
    assert_eq!(scene.run(&["retry", SERVICE]).code, Some(0));
    // The order stands in the journal.
    scene.wait_done(1);
    assert_eq!(scene.arcgis.logins().iter().filter(|granted| !**granted).count(), 1, "the wrong one was sent once");
    assert_eq!(daemon.stop().code(), Some(0));
    scene.assert_no_secret_seen();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_id_that_is_not_there_halts_with_its_name() {
    let scene = Scene::new().await;
    scene.write_policy(&PolicyText { cloud_service: "nosuchthing".into(), ..PolicyText::default() });
    let _daemon = scene.start();
    scene.run(&["adopt", SERVICE, &scene.first_key.0]);
    let rotate = scene.run(&["rotate", SERVICE, "--wait"]);
    assert_eq!(rotate.code, Some(1), "{rotate:?}");
    let service = scene.wait_for("state", "halted");
    assert_eq!(service["reason"], "not-found", "{service}");
    assert!(service["message"].as_str().is_some_and(|text| text.contains("nosuchthing")), "{service}");
    assert!(service["next_command"].as_str().is_some_and(|text| text.contains("rekeyd retry")), "{service}");
    assert_eq!(scene.aws.mints(), 0, "nothing is minted that cannot be pushed");
    let again = scene.run(&["rotate", SERVICE]);
    assert_eq!(again.code, Some(1));
    assert!(again.err.contains("halted (not-found), not ordered"), "{again:?}");
    let status = scene.run(&["status"]);
    assert_eq!(status.code, Some(1));
    assert!(
        status.out.contains("not-found") && status.out.contains("next: correct the name in the policy"),
        "{status:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_sent_once_for_all_processes_until_it_changes() {
    let scene = Scene::new().await;
    scene.write_secret("arcgis-password", "not-the-password");
    let daemon = scene.start();
    scene.run(&["adopt", SERVICE, &scene.first_key.0]);
    scene.run(&["rotate", SERVICE]);
    let service = scene.wait_for("state", "halted");
    assert_eq!(service["reason"], "login-refused", "{service}");
    assert_eq!(daemon.stop().code(), Some(0));
    assert_eq!(scene.arcgis.logins(), [false]);

    let daemon = scene.start();
    scene.wait_for("reason", "login-refused");
    daemon.signal("USR2");
    daemon.signal("USR1");
    daemon.signal("HUP");
    wait_until("all were taken", || daemon.log().contains("the new policy is in force"));
    assert_eq!(scene.arcgis.logins(), [false], "no process tries that password again");

    scene.write_secret("arcgis-password", &ArcGisOptions::default().password);
    assert_eq!(scene.run(&["retry", SERVICE]).code, Some(0));
    wait_until("it goes on", || scene.service()["state"] != "halted");
    scene.adopt();
    assert_eq!(scene.run(&["rotate", SERVICE, "--wait=done"]).code, Some(0), "{}", scene.service());
    assert!(scene.arcgis.logins().iter().filter(|granted| !**granted).count() == 1);
    scene.assert_one_live_key();
    scene.assert_no_secret_seen();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_work_of_a_daemon_that_is_down_is_done_up_to_verified() {
    let scene = Scene::new().await;
    let adopt = scene.run(&["adopt", SERVICE, &scene.first_key.0]);
    assert_eq!(adopt.code, Some(69), "only run makes a journal: {adopt:?}");
    assert!(!scene.path("state").exists());
    assert_eq!(scene.start().stop().code(), Some(0));

    scene.adopt();
    let rotate = scene.run(&["rotate", SERVICE]);
    assert_eq!(rotate.code, Some(0), "{rotate:?}");
    assert!(rotate.out.contains("verified, every target holds key"), "{rotate:?}");
    assert!(scene.aws.keys(USER).iter().any(|key| key.id == scene.first_key.0), "the old key is left to the daemon");
    assert_eq!(scene.run(&["rotate", SERVICE, "--wait=done"]).code, Some(69));

    let _daemon = scene.start();
    scene.wait_done(1);
    scene.assert_one_live_key();
    scene.assert_no_secret_seen();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_for_a_key_that_is_not_listed_is_not_tried_anywhere() {
    let scene = Scene::new().await;
    let _daemon = scene.start();
    let key = "AKIAOFANOTHERPROVIDER";
    scene.write_secret("brought", "an0ther/providers+secret=0123456789abcdef");
    let file = scene.path("brought").display().to_string();
    let adopt = scene.run(&["adopt", SERVICE, key, "--secret-file", &file]);
    assert_eq!(adopt.code, Some(1), "{adopt:?}");
    let tried = || scene.aws.requests().iter().filter(|line| line.access_key_id == key).count();
    assert_eq!(tried(), 0, "its secret may be another provider's");
    scene.assert_no_secret_seen();
}

#[tokio::test(flavor = "multi_thread")]
async fn pausing_is_an_order_and_a_paused_service_is_not_rotated() {
    let scene = Scene::new().await;
    let daemon = scene.start_adopted();
    assert_eq!(scene.run(&["pause", SERVICE]).code, Some(0));
    assert_eq!(scene.service()["state"], "paused");
    let rotate = scene.run(&["rotate", SERVICE]);
    assert_eq!(rotate.code, Some(1));
    assert!(rotate.err.contains("paused, not ordered"), "{rotate:?}");
    assert_eq!(daemon.stop().code(), Some(0));
    assert_eq!(scene.run(&["resume", SERVICE]).code, Some(0), "without a daemon too");
    assert_eq!(scene.service()["state"], "idle");
    let unknown = scene.run(&["pause", "nobody"]);
    assert_eq!(unknown.code, Some(1));
    assert!(unknown.err.contains("there is no service nobody"), "{unknown:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_needs_neither_daemon_nor_journal() {
    let scene = Scene::new().await;
    let timetable = PolicyText { service: "every = \"30d\"".into(), ..PolicyText::default() };
    scene.write_policy(&timetable);
    let plan = scene.run(&["plan"]);
    assert_eq!(plan.code, Some(0), "{plan:?}");
    assert!(plan.out.contains(&format!("{SERVICE}: nothing by itself (no current key is known")), "{plan:?}");
    assert!(!scene.path("state").exists());
    let _daemon = scene.start_adopted();
    let plan = scene.run(&["plan", SERVICE]);
    assert!(plan.out.contains(&format!("every 30d from key {}", scene.first_key.0)), "{plan:?}");
    let next = scene.service()["next_rotation"].as_str().expect("a time").to_owned();
    assert!(plan.out.contains(&format!("due {next}")), "{plan:?} {next}");
    assert_eq!(scene.run(&["plan", "nobody"]).code, Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_daemon_goes_on_where_it_was() {
    let arcgis = ArcGisOptions { job_duration: std::time::Duration::from_secs(2), ..ArcGisOptions::default() };
    let scene = Scene::with(AwsOptions::default(), arcgis).await;
    let daemon = scene.start_adopted();
    scene.run(&["rotate", SERVICE]);
    scene.wait_for("phase", "deploying");
    daemon.kill9();
    let _daemon = scene.start();
    scene.wait_done(1);
    assert_eq!(scene.aws.mints(), 1);
    scene.assert_one_live_key();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compromised_key_is_not_left_to_soak() {
    let scene = Scene::new().await;
    scene.write_policy(&PolicyText { soak: "1h".into(), ..PolicyText::default() });
    let _daemon = scene.start_adopted();
    let ran = scene.run(&["rotate", SERVICE, "--compromised", "--wait=done"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    scene.assert_one_live_key();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_previous_key_can_be_put_back_while_it_soaks() {
    let scene = Scene::new().await;
    scene.write_policy(&PolicyText { soak: "1h".into(), ..PolicyText::default() });
    let _daemon = scene.start_adopted();
    let ran = scene.run(&["rotate", SERVICE, "--wait"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    scene.wait_for("state", "soaking");
    assert_eq!(scene.run(&["rotate", SERVICE]).code, Some(1), "it is in rotation already");
    let ran = scene.run(&["rollback", SERVICE]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    scene.wait_for("current_key", &scene.first_key.0);
    wait_until("the cloud service holds it", || {
        scene.arcgis.held_key(CLOUD_SERVICE).is_some_and(|held| held == scene.first_key)
    });
    assert_eq!(scene.arcgis.consumer_refusals(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_is_listed_and_goes_on_the_operators_word() {
    let scene = Scene::new().await;
    let _daemon = scene.start_adopted();
    // How far apart two listings must be is known from the first rotation on; before it, ten minutes are taken.
    assert_eq!(scene.run(&["rotate", SERVICE, "--wait=done"]).code, Some(0));
    let stranger = scene.aws.create_key(USER).0;
    let ran = scene.run(&["rotate", SERVICE, "--wait"]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let strangers = scene.run(&["strangers"]);
    assert_eq!(strangers.code, Some(0));
    assert!(strangers.out.contains(&format!("rekeyd reclaim {SERVICE} {stranger}")), "{strangers:?}");
    let listed: Value = serde_json::from_str(&scene.run(&["strangers", "--json"]).out).expect("an array");
    assert_eq!(listed, serde_json::json!([{ "service": SERVICE, "key": stranger }]));
    let ran = scene.run(&["reclaim", SERVICE, &stranger]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    scene.run(&["retry", SERVICE]);
    wait_until("it is gone", || !scene.aws.keys(USER).iter().any(|key| key.id == stranger));
    // The order that the stranger kept waiting may open by itself at any moment, and a second one is skipped then.
    wait_until("it rotates again", || scene.run(&["rotate", SERVICE, "--wait=done"]).code == Some(0));
    // Or it opens just before ours is taken, and both are carried out.
    wait_until("all of it is over", || scene.service()["state"] == "idle" && scene.aws.keys(USER).len() == 1);
    scene.assert_one_live_key();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_chain_halts_its_service_and_fails_the_check() {
    let scene = Scene::new().await;
    assert_eq!(scene.start_adopted().stop().code(), Some(0));
    let journal = scene.path("state/journal.db");
    let mut bytes = std::fs::read(&journal).expect("it is there");
    let word = b"uid 0 (root)";
    let at = bytes.windows(word.len()).position(|window| window == word).expect("the adoption names its giver");
    bytes[at..at + 5].copy_from_slice(b"uid 7");
    std::fs::write(&journal, bytes).expect("it can be written");
    let verify = scene.run(&["ledger", "verify"]);
    assert_eq!(verify.code, Some(1), "{verify:?}");
    assert!(verify.out.contains(&format!("{SERVICE}: DAMAGED, sound events: ")), "{verify:?}");
    let service = scene.service();
    assert_eq!((&service["state"], &service["reason"]), (&"halted".into(), &"journal-damaged".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn systemd_hears_ready_status_watchdog_reload_and_stopping() {
    let scene = Scene::new().await;
    let socket = scene.path("notify.sock");
    let systemd = UnixDatagram::bind(&socket).expect("a socket can be made");
    systemd.set_read_timeout(Some(super::support::PATIENCE)).expect("it can be set");
    let mut command = scene.command(&["run"]);
    command.env("NOTIFY_SOCKET", &socket).env("WATCHDOG_USEC", "600000");
    let daemon = scene.spawn(command);
    let hear = |wanted: &str| {
        let mut heard = String::new();
        while !heard.contains(wanted) {
            let mut buffer = [0; 4096];
            let count = systemd.recv(&mut buffer).unwrap_or_else(|error| panic!("{wanted} never came: {error}"));
            heard = String::from_utf8_lossy(&buffer[..count]).into_owned();
        }
        heard
    };
    assert!(hear("READY=1").contains("STATUS=1 service"));
    hear("WATCHDOG=1");
    daemon.signal("HUP");
    assert!(hear("RELOADING=1").contains("MONOTONIC_USEC="));
    hear("READY=1");
    hear("WATCHDOG=1");
    daemon.signal("TERM");
    hear("STOPPING=1");
    assert_eq!(daemon.stop_signalled().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_reads_the_memory_of_a_daemon() {
    let scene = Scene::new().await;
    let daemon = scene.start();
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", daemon.pid()));
    if let Ok(limits) = limits {
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).expect("every kernel has it");
        assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
    }
    let mode = std::fs::metadata(scene.path("control.sock")).expect("it is there");
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode.permissions()) & 0o777, 0o660);
}

async fn get(url: &str) -> (u16, String) {
    let client = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().expect("a plain client");
    let answer = client.get(url).send().await.expect("it answers");
    (answer.status().as_u16(), answer.text().await.expect("a body"))
}

/// The other end of `NOTIFY_SOCKET`.
struct Systemd {
    socket: UnixDatagram,
    path: std::path::PathBuf,
}

impl Systemd {
    fn at(scene: &Scene) -> Systemd {
        let path = scene.path("notify.sock");
        let socket = UnixDatagram::bind(&path).expect("a socket can be made");
        socket.set_read_timeout(Some(super::support::PATIENCE)).expect("it can be set");
        Systemd { socket, path }
    }

    fn start<'s>(&self, scene: &'s Scene) -> super::support::Daemon<'s> {
        let mut command = scene.command(&["run"]);
        command.env("NOTIFY_SOCKET", &self.path);
        scene.spawn(command)
    }

    /// The next datagram with this in it.
    fn hear(&self, wanted: &str) -> String {
        loop {
            let mut buffer = [0; 4096];
            let count = self.socket.recv(&mut buffer).unwrap_or_else(|error| panic!("{wanted} never came: {error}"));
            let heard = String::from_utf8_lossy(&buffer[..count]).into_owned();
            if heard.contains(wanted) {
                return heard;
            }
        }
    }

    /// All that has come, of a daemon that has ended.
    fn all(&self) -> String {
        self.socket.set_nonblocking(true).expect("it can be set");
        let mut all = String::new();
        let mut buffer = [0; 4096];
        while let Ok(count) = self.socket.recv(&mut buffer) {
            all.push_str(&String::from_utf8_lossy(&buffer[..count]));
            all.push('\n');
        }
        self.socket.set_nonblocking(false).expect("it can be set");
        all
    }
}
