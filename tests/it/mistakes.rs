//! Bad input and bad days: each gives one clear message that says what was tried, on what, what state it left, and the next
//! command; nothing is lost and nothing destroyed; and when the cause is mended, the rotation goes through.
//!
//! What an operator is told is held here word for word, with ids, ports and folders replaced.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use rekeyd_lab::{ArcGisOptions, AwsOptions};

use super::support::{
    BUCKET, CLOUD_SERVICE, Disk, PROVIDER, PolicyText, Ran, SERVICE, Scene, USER, wait_until, wait_until_or,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_policy() {
    story(|scene| {
        scene.write_policy(&PolicyText {
            service: "evry = \"30d\"\nmax_age = \"10 days\"".into(),
            arcgis: "token = \"abc\"".into(),
            ..PolicyText::default()
        });
        for words in [["run"], ["check"], ["status"]] {
            let ran = scene.run(&words);
            assert_eq!((ran.code, ran.out.as_str()), (Some(78), ""), "{words:?}");
            said(&scene, &ran.err, r#"HOME/policy.toml:30:1: unknown key `token` in [arcgis.prod]
 30 | token = "***"
    | ^^^^^
help: keys known here are `product`, `admin_url`, `portal_url`, `username`, `password`, `ca_file`, `client_cert`, `client_key`, `credential_keys`, `max_jobs`, `poll`, `job_timeout`, `readback`, `request_timeout`, `proxy`, `no_proxy`

HOME/policy.toml:41:1: unknown key `evry` in [[service]] `prod-object-store`
 41 | evry = "30d"
    | ^^^^
help: did you mean `every`?

HOME/policy.toml:42:11: `max_age` is not a duration: `10 days`
 42 | max_age = "10 days"
    |           ^^^^^^^^^
help: write one number and one unit: "90d", "12h", "5m", "30s" or "500ms"

3 mistakes in HOME/policy.toml"#);
        }
        assert!(!scene.path("state").exists() && !scene.path("control.sock").exists(), "something was started");
        assert!(scene.aws.requests().is_empty() && scene.arcgis.requests().is_empty(), "somebody was asked");
        scene.write_policy(&PolicyText::default());
        rotates(&scene);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there() {
    story(|scene| {
        let ran = scene.run(&["rotate", "no-such-service"]);
        assert_eq!(ran.code, Some(69));
        said(&scene, &ran.err, "no daemon answers at HOME/control.sock: rotating in this process, up to verified; the daemon retires the old keys when it runs
rekeyd: journal HOME/state/journal.db does not exist; only `rekeyd run` makes one");
        let ran = scene.run(&["status"]);
        assert_eq!(ran.code, Some(69));
        said(&scene, &ran.err, "rekeyd: journal HOME/state/journal.db does not exist; only `rekeyd run` makes one");
        let ran = scene.run(&["rotate", SERVICE, "--wait=done"]);
        assert_eq!(ran.code, Some(69));
        said(&scene, &ran.err, "rekeyd: no daemon answers at HOME/control.sock, and only the daemon retires old keys; without it, \
             a rotation goes up to verified");

        let daemon = scene.start_adopted();
        for words in [vec!["rotate", "no-such-service"], vec!["pause", "no-such-service"]] {
            let ran = scene.run(&words);
            assert_eq!(ran.code, Some(1), "{ran:?}");
            said(&scene, &ran.err, "no-such-service: there is no service no-such-service; there are: prod-object-store");
        }
        let ran = scene.run(&["history", "no-such-service"]);
        assert_eq!(ran.code, Some(2), "{ran:?}");
        said(&scene, &ran.err, "rekeyd: neither policy nor journal knows a service no-such-service");
        let ran = scene.run(&["adopt", SERVICE, "AKIANOTTHEREATALL000"]);
        assert_eq!(ran.code, Some(1), "{ran:?}");
        said(&scene, &ran.err, "prod-object-store: key KEY2 is not at the issuer, which lists: KEY1");
        let ran = scene.run(&["rotat"]);
        assert_eq!(ran.code, Some(2), "{ran:?}");
        let ran = scene.run(&["run"]);
        assert_eq!(ran.code, Some(69), "{ran:?}");
        said(&scene, &last_line(&ran).replace(&daemon.pid().to_string(), "PID"), "rekeyd: journal HOME/state/journal.db is held by process PID, and was left alone: end that process first \
             (systemctl stop rekeyd, where it is the unit's), or give this one a control and journal of its own in [daemon]");
        assert_eq!(daemon.stop().code(), Some(0));

        std::fs::rename(scene.policy(), scene.path("elsewhere.toml")).expect("it can be moved");
        for words in [["run"], ["status"]] {
            let ran = scene.run(&words);
            assert_eq!(ran.code, Some(78), "{ran:?}");
            said(&scene, &ran.err, "HOME/policy.toml: there is no such file
help: write one (config/policy.toml shows every option), or name another with --policy

1 mistake in HOME/policy.toml");
        }
        nothing_happened(&scene);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password() {
    story(|scene| {
        scene.write_secret("arcgis-password", "not-the-password");
        let _daemon = scene.start();
        order(&scene);
        halts(
            &scene,
            "\
            login-refused: logging in to arcgis.prod as rotator at GIS: code 400, \"Unable to generate token.;
            Invalid username or password.\"; ArcGIS locks an account after five wrong passwords, so this one is
            not sent again; no rotation is open and nothing was changed
            next: correct the login named above (password, or access key and secret), then systemctl reload rekeyd
            and rekeyd retry prod-object-store",
        );
        nothing_happened(&scene);
        assert_eq!(scene.arcgis.logins(), [false], "it was tried once");
        scene.write_secret("arcgis-password", &ArcGisOptions::default().password);
        begins_after_retry(&scene);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_service_id() {
    story(|scene| {
        scene.write_policy(&PolicyText { cloud_service: "nosuchthing".into(), ..PolicyText::default() });
        let daemon = scene.start();
        order(&scene);
        halts(
            &scene,
            "\
            not-found: looking for cloud service nosuchthing: arcgis.prod does not know it; it has eg7hrelq6b
            (AWS S3 DEFAULT gis-store); no rotation is open and nothing was changed
            next: correct the name in the policy, or make what it names, then systemctl reload rekeyd and rekeyd
            retry prod-object-store",
        );
        nothing_happened(&scene);
        scene.write_policy(&PolicyText::default());
        daemon.signal("HUP");
        wait_until("the new policy is in force", || daemon.log().contains("the new policy is in force"));
        begins_after_retry(&scene);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_inherits() {
    story(|scene| {
        // The provider holds our key and two services inherit it; the scene's own service gets another user's.
        let (access_key, secret_key) = scene.first_key.clone();
        scene.arcgis.set_credential(PROVIDER, &access_key, &secret_key);
        scene.arcgis.add_service("inherits01", PROVIDER, BUCKET, None);
        scene.arcgis.add_service("inherits02", PROVIDER, BUCKET, None);
        scene.aws.add_user("somebody-else");
        scene.aws.add_bucket(BUCKET, &[USER, "somebody-else"]);
        let (id, secret) = scene.aws.create_key("somebody-else");
        scene.arcgis.set_credential(CLOUD_SERVICE, &id, &secret);

        scene.write_policy(&PolicyText { cloud_service: "inherits01".into(), ..PolicyText::default() });
        let daemon = scene.start();
        order(&scene);
        halts(
            &scene,
            "\
            inherits: looking at cloud service inherits01 of arcgis.prod: it has no credential of its own and
            inherits that of provider betc4g098c, as do all of inherits01 (AWS S3 DEFAULT gis-store), inherits02
            (AWS S3 DEFAULT gis-store); to rotate it for them all, say provider_id = \"betc4g098c\" in place of
            service_id; no rotation is open, nothing was changed, and the journal's current key is KEY1
            next: write provider_id instead of service_id in its target, then systemctl reload rekeyd and rekeyd
            retry prod-object-store",
        );
        nothing_happened(&scene);
        edit(&scene, "service_id = \"inherits01\"", &format!("provider_id = \"{PROVIDER}\""));
        daemon.signal("HUP");
        wait_until("the new policy is in force", || daemon.log().contains("the new policy is in force"));
        assert_eq!(scene.run(&["retry", SERVICE]).code, Some(0));
        scene.wait_done(1);
        assert_eq!(scene.aws.keys(USER).len(), 1);
        assert_eq!(scene.arcgis.held_key("inherits02").map(|(id, _)| id), Some(scene.aws.keys(USER)[0].id.clone()));
        assert_eq!(scene.arcgis.held_key(CLOUD_SERVICE).map(|(id, _)| id), Some(id), "it was none of ours");
        assert_eq!(scene.arcgis.consumer_refusals(), 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_right_to_mint() {
    story(|scene| {
        scene.aws.deny("iam:CreateAccessKey");
        let _daemon = scene.start();
        order(&scene);
        halts(
            &scene,
            "\
            missing-right: create an access key for iam user arcgis-object-store: AccessDenied (403): User:
            arn:aws:iam::111122223333:user/rotator is not authorized to perform: iam:CreateAccessKey on
            resource: user arcgis-object-store because no identity-based policy allows the iam:CreateAccessKey
            action; the rotator needs iam:CreateAccessKey on iam user arcgis-object-store; rotation ROTATION
            stands in phase opened: no new key is known to exist, targets verified: none, current key KEY1,
            nothing is retired meanwhile
            next: grant the right named above, then rekeyd retry prod-object-store",
        );
        nothing_happened(&scene);
        scene.aws.allow("iam:CreateAccessKey");
        goes_on_after_retry(&scene);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_right_to_list() {
    story(|scene| {
        scene.aws.deny("iam:ListAccessKeys");
        let _daemon = scene.start();
        halts(
            &scene,
            "\
            missing-right: list the access keys of iam user arcgis-object-store: AccessDenied (403): User:
            arn:aws:iam::111122223333:user/rotator is not authorized to perform: iam:ListAccessKeys on resource:
            user arcgis-object-store because no identity-based policy allows the iam:ListAccessKeys action; the
            rotator needs iam:ListAccessKeys on iam user arcgis-object-store; no rotation is open and nothing
            was changed
            next: grant the right named above, then rekeyd retry prod-object-store",
        );
        nothing_happened(&scene);
        scene.aws.allow("iam:ListAccessKeys");
        begins_after_retry(&scene);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_right_to_disable() {
    story(|scene| {
        scene.aws.deny("iam:UpdateAccessKey");
        let _daemon = scene.start();
        order(&scene);
        let owed = || (scene.service()["debt"] != serde_json::json!([])).then_some(());
        wait_until_or("the old key is owed", owed, || scene.service().to_string());
        let ran = scene.run(&["status"]);
        assert_eq!(ran.code, Some(1), "{ran:?}");
        said(&scene, &ran.out, "SERVICE            STATE    PHASE    CURRENT KEY           NEXT ROTATION  MESSAGE
prod-object-store  waiting  soaking  KEY2  -              disable key KEY1 of iam user arcgis-object-…

prod-object-store: disable key KEY1 of iam user arcgis-object-store: AccessDenied (403): User: arn:aws:iam::111122223333:user/rotator is not authorized to perform: iam:UpdateAccessKey on resource: user arcgis-object-store because no identity-based policy allows the iam:UpdateAccessKey action; the rotator needs iam:UpdateAccessKey on iam user arcgis-object-store; rotation ROTATION stands in phase soaking: key KEY2 is alive, targets verified: arcgis:prod:eg7hrelq6b, current key KEY2, key KEY1 can still be put back, nothing is retired meanwhile
  next: mend what the message names, then rekeyd retry prod-object-store

prod-object-store: keys that should be gone and are not: KEY1");
        assert_eq!(scene.aws.keys(USER).len(), 2, "nothing is deleted that could not be disabled");
        scene.aws.allow("iam:UpdateAccessKey");
        goes_on_after_retry(&scene);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_may_not_read_its_bucket() {
    story(|scene| {
        scene.aws.add_bucket(BUCKET, &["somebody-else"]);
        let _daemon = scene.start_adopted();
        order(&scene);
        halts(
            &scene,
            "\
            probe-not-allowed: new key KEY2 authenticates but is not allowed: list one object of bucket
            gis-store with key KEY2: AccessDenied (403): User: arn:aws:iam::111122223333:user/arcgis-object-store
            is not authorized to perform: s3:ListBucket on resource: \"arn:aws:s3:::gis-store\" because no
            identity-based policy allows the s3:ListBucket action; the key's user needs s3:ListBucket there;
            rotation ROTATION stands in phase minted: key KEY2 is alive, targets verified: none, current key KEY1,
            nothing is retired meanwhile
            next: allow the store's user what the probe asks for, then rekeyd retry prod-object-store",
        );
        assert_eq!(scene.aws.keys(USER).len(), 2, "the new key stays, and so does the old one");
        assert!(scene.arcgis.jobs().is_empty(), "nothing is pushed that cannot read");
        // The old key may not read it either: what consumers were refused was not our doing.
        scene.aws.add_bucket(BUCKET, &[USER]);
        assert_eq!(scene.run(&["retry", SERVICE]).code, Some(0));
        scene.wait_done(1);
        assert_eq!(scene.aws.mints(), 1, "it is the same key");
        let live = scene.aws.keys(USER);
        assert_eq!(live.len(), 1, "{live:?}");
        assert_eq!(scene.arcgis.held_key(CLOUD_SERVICE).map(|(id, _)| id), Some(live[0].id.clone()));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stranger_in_the_second_slot() {
    story(|scene| {
        let (stranger, _) = scene.aws.create_key(USER);
        let _daemon = scene.start_adopted();
        order(&scene);
        halts(
            &scene,
            "\
            stranger: the issuer lists key KEY2, which the journal cannot explain; no rotation is open, nothing
            was changed, and the journal's current key is KEY1
            next: rekeyd reclaim prod-object-store KEY2 (ours and unused: destroy it), or rekeyd disown
            prod-object-store KEY2 (somebody else's: leave it)",
        );
        nothing_happened(&scene);
        assert_eq!(scene.aws.keys(USER).len(), 2, "a stranger is safe");

        // Somebody else's: it is left alone, and there is no room beside it.
        assert_eq!(scene.run(&["disown", SERVICE, &stranger]).code, Some(0));
        wait_until_or(
            "the quota is told",
            || (scene.service()["reason"] == "quota").then_some(()),
            || scene.service().to_string(),
        );
        halts(
            &scene,
            "\
            quota: all 2 key slots at the issuer are taken (KEY1, KEY2), so nothing was minted; no rotation is
            open, nothing was changed, and the journal's current key is KEY1
            next: delete the key that nobody needs at the issuer, then rekeyd retry prod-object-store",
        );
        assert_eq!(scene.aws.keys(USER).len(), 2, "a stranger is safe");
        scene.aws.delete_key(USER, &stranger);
        goes_on_after_retry(&scene);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn both_slots_taken_by_strangers() {
    story(|scene| {
        let (second, _) = scene.aws.create_key(USER);
        let _daemon = scene.start();
        halts(
            &scene,
            "\
            no-current-key: the issuer lists keys KEY1 (last used TIME TIME UTC by s3 in us-east-1), KEY2 (never
            used), and nothing says which of them the targets use; no rotation is open and nothing was changed
            next: rekeyd adopt prod-object-store KEY_ID, with the key the targets use now",
        );
        let ran = scene.run(&["rotate", SERVICE]);
        assert_eq!(ran.code, Some(1), "{ran:?}");
        said(
            &scene,
            &ran.err,
            "prod-object-store: halted (no-current-key), not ordered; rekeyd status says why and what to type",
        );
        nothing_happened(&scene);
        assert_eq!(scene.aws.keys(USER).len(), 2, "strangers are safe");

        // The operator knows: the first is in use, the second is a left-over of ours.
        assert_eq!(scene.run(&["adopt", SERVICE, &scene.first_key.0]).code, Some(0));
        order(&scene);
        halts(
            &scene,
            "\
            stranger: the issuer lists key KEY2, which the journal cannot explain; no rotation is open, nothing
            was changed, and the journal's current key is KEY1
            next: rekeyd reclaim prod-object-store KEY2 (ours and unused: destroy it), or rekeyd disown
            prod-object-store KEY2 (somebody else's: leave it)",
        );
        assert_eq!(scene.run(&["reclaim", SERVICE, &second]).code, Some(0));
        scene.wait_done(1);
        scene.assert_one_live_key();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn arcgis_in_read_only_mode() {
    story(|scene| {
        scene.arcgis.set_read_only(true);
        let daemon = scene.start();
        order(&scene);
        scene.wait_for("state", "waiting");
        let ran = scene.run(&["status"]);
        assert_eq!(ran.code, Some(0), "it passes by itself: {ran:?}");
        said(&scene, &ran.out, r#"SERVICE            STATE    PHASE  CURRENT KEY           NEXT ROTATION         MESSAGE
prod-object-store  waiting  -      KEY1  TIME  reading the mode of arcgis.prod at GIS: the sit…

prod-object-store: reading the mode of arcgis.prod at GIS: the site is in read-only mode: "The site is in read-only mode."; no rotation is open, nothing was changed, and the journal's current key is KEY1
  next: none is needed, it is tried again by itself; rekeyd retry prod-object-store tries at once"#);
        nothing_happened(&scene);
        scene.arcgis.set_read_only(false);
        daemon.signal("USR2");
        scene.wait_done(1);
        scene.assert_one_live_key();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_does_not_verify() {
    let arcgis = ArcGisOptions { tls: true, ..ArcGisOptions::default() };
    story_with(arcgis, |scene| {
        let daemon = scene.start();
        order(&scene);
        halts(
            &scene,
            "\
            tls-untrusted: logging in to arcgis.prod as rotator at GIS: its certificate is not trusted:
            UnknownIssuer (name its authority in ca_file); no rotation is open and nothing was changed
            next: name the server's authority in ca_file, then systemctl reload rekeyd and rekeyd retry
            prod-object-store",
        );
        nothing_happened(&scene);
        assert!(scene.arcgis.logins().is_empty(), "the password was sent to somebody unknown");
        let pem = scene.arcgis.ca_pem().expect("with tls");
        std::fs::write(scene.path("gis-ca.pem"), pem).expect("it can be written");
        let ca_file = format!("ca_file = \"{}\"", scene.path("gis-ca.pem").display());
        scene.write_policy(&PolicyText { arcgis: ca_file, ..PolicyText::default() });
        daemon.signal("HUP");
        wait_until("the new policy is in force", || daemon.log().contains("the new policy is in force"));
        begins_after_retry(&scene);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_with_no_room_for_a_minted_key() {
    story(|scene| {
        let Some(disk) = Disk::mount(scene.path("state")) else { return };
        let daemon = scene.start_adopted();
        quiet(&scene);
        // Room for a few events, and none for the ballast that a mint needs.
        let _ = std::fs::remove_file(scene.path("state/journal.db.ballast"));
        disk.fill_up_to(160 * 1024);
        assert_eq!(scene.run(&["rotate", SERVICE]).code, Some(0));
        let waits = || {
            let message = scene.service()["message"].as_str().unwrap_or_default().to_owned();
            message.contains("no key is minted while").then_some(())
        };
        wait_until_or("the mint is put off", waits, || format!("{}\n{}", scene.service(), daemon.log()));
        let ran = scene.run(&["status"]);
        let free = ran.out.split(" KiB free").next().and_then(|text| text.rsplit('(').next()).unwrap_or_default();
        let out = ran.out.replace(&format!("({free} KiB free"), "(N KiB free");
        said(&scene, &out, "SERVICE            STATE    PHASE   CURRENT KEY           NEXT ROTATION  MESSAGE
prod-object-store  waiting  opened  KEY1  -              no key is minted while it could not be written down: cannot…

prod-object-store: no key is minted while it could not be written down: cannot set aside 256 KiB beside journal HOME/state/journal.db for the key about to be minted: No space left on device (os error 28) (N KiB free in HOME/state); rotation ROTATION stands in phase opened: no new key is known to exist, targets verified: none, current key KEY1, nothing is retired meanwhile
  next: none is needed, it is tried again by itself; rekeyd retry prod-object-store tries at once");
        nothing_happened(&scene);
        disk.empty();
        daemon.signal("USR2");
        scene.wait_done(1);
        scene.assert_one_live_key();
        assert_eq!(daemon.stop().code(), Some(0));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_full() {
    story(|scene| {
        let Some(disk) = Disk::mount(scene.path("state")) else { return };
        let mut daemon = scene.start_adopted();
        quiet(&scene);
        disk.fill_up_to(0);
        let ran = scene.run(&["rotate", SERVICE]);
        assert_eq!(ran.code, Some(69), "{ran:?}");
        said(
            &scene,
            &ran.err,
            "rekeyd: the daemon is ending, and this order was not taken or not written down; its log says why \
             (journalctl -u rekeyd), and rekeyd status what stands",
        );
        assert_eq!(daemon.ended().code(), Some(69), "it ends rather than act on what is not written");
        let log = daemon.log();
        said(
            &scene,
            log.lines().last().unwrap_or_default(),
            "rekeyd: cannot write to journal HOME/state/journal.db: database or disk is full (0 KiB free in \
             HOME/state); nothing more was done, since nothing is done that is not written down: mend that, and \
             the next start goes on from the journal",
        );
        nothing_happened(&scene);
        drop(daemon);
        disk.empty();
        let daemon = scene.start();
        order(&scene);
        scene.wait_done(1);
        scene.assert_one_live_key();
        assert_eq!(daemon.stop().code(), Some(0));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fills_up_during_the_mint() {
    story(|scene| {
        let Some(disk) = Disk::mount(scene.path("state")) else { return };
        let daemon = scene.start_adopted();
        quiet(&scene);
        scene.aws.fault("CreateAccessKey", rekeyd_lab::Fault::Slow(Duration::from_millis(1500)));
        assert_eq!(scene.run(&["rotate", SERVICE]).code, Some(0));
        wait_until("the mint is under way", || scene.aws.mints() == 1);
        disk.fill_up_to(0);
        wait_until("the key is written down", || daemon.log().contains("gave up the ballast to write down a key"));
        let minted = scene.aws.keys(USER).into_iter().find(|key| key.id != scene.first_key.0).expect("a new key").id;
        daemon.kill9();
        disk.empty();
        let daemon = scene.start();
        assert_eq!(scene.wait_done(1)["current_key"], serde_json::json!(minted), "the key was not lost");
        assert_eq!(scene.aws.mints(), 1);
        scene.assert_one_live_key();
        assert_eq!(daemon.stop().code(), Some(0));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_from_last_weeks_backup() {
    story(|scene| {
        let daemon = scene.start_adopted();
        quiet(&scene);
        assert_eq!(daemon.stop().code(), Some(0));
        let (state, backup) = (scene.path("state"), scene.path("backup"));
        copy(&state, &backup);
        // A provider tells the second of a creation; last week's last entry is older than that.
        std::thread::sleep(Duration::from_millis(1100));
        let daemon = scene.start();
        order(&scene);
        let now = scene.wait_done(1)["current_key"].as_str().expect("a key").to_owned();
        assert_eq!(daemon.stop().code(), Some(0));
        std::fs::remove_dir_all(&state).expect("it can be removed");
        copy(&backup, &state);

        let _daemon = scene.start();
        scene.wait_for("reason", "journal-behind");
        halts(
            &scene,
            "journal-behind: current key KEY1 is not listed by its issuer; arcgis:prod:eg7hrelq6b shows a \
             credential that is not key KEY1 and that the journal does not know; current key KEY1 does not work: ask \
             sts whose key KEY1 is: InvalidClientTokenId (403): The security token included in the request is \
             invalid, and the issuer lists KEY2, made after the journal's last entry: the journal seems restored \
             from an older copy; no rotation is open, nothing was changed, and the journal's current key is KEY1 \
             next: rekeyd adopt prod-object-store KEY2, if that is the key the targets use now",
        );
        scene.assert_one_live_key();
        let ran = scene.run(&["rotate", SERVICE]);
        assert_eq!(ran.code, Some(1), "{ran:?}");
        assert_eq!(scene.aws.mints(), 1, "a journal that is behind mints nothing");

        let ran = scene.run(&["adopt", SERVICE, &now]);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        said(
            &scene,
            &ran.out,
            "prod-object-store: key KEY2 is the current key, last used TIME TIME UTC (s3 in us-east-1)",
        );
        order(&scene);
        let done = || {
            let service = scene.service();
            (service["rotations"]["done"] == 1 && service["state"] == "idle").then_some(())
        };
        wait_until_or("the next rotation is done", done, || scene.service().to_string());
        scene.assert_one_live_key();
        assert_ne!(scene.aws.keys(USER)[0].id, now);
        assert_eq!(scene.run(&["ledger", "verify"]).code, Some(0));
    })
    .await;
}

// ---- the noise ----

async fn story(tell: impl FnOnce(Scene) + Send + 'static) {
    story_with(ArcGisOptions::default(), tell).await;
}

/// Tells it in a thread of its own: its waiting must not hold up the lab.
async fn story_with(arcgis: ArcGisOptions, tell: impl FnOnce(Scene) + Send + 'static) {
    let scene = Scene::with(AwsOptions::default(), arcgis).await;
    if let Err(failed) = tokio::task::spawn_blocking(move || tell(scene)).await {
        std::panic::resume_unwind(failed.into_panic());
    }
}

/// Adopts the first key where none is known yet, and orders a rotation.
fn order(scene: &Scene) {
    if scene.service()["current_key"].is_null() {
        let ran = scene.run(&["adopt", SERVICE, &scene.first_key.0]);
        // Adopting looks at the targets too; where that is what is wrong, the order waits for a key.
        if ran.code != Some(0) {
            assert_eq!(ran.code, Some(1), "{ran:?}");
            return;
        }
    }
    scene.run(&["rotate", SERVICE]);
}

fn rotates(scene: &Scene) {
    let _daemon = scene.start();
    order(scene);
    scene.wait_done(1);
    scene.assert_one_live_key();
}

/// The cause is mended; `retry` is the operator's word for it.
fn goes_on_after_retry(scene: &Scene) {
    let ran = scene.run(&["retry", SERVICE]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    scene.wait_done(1);
    scene.assert_one_live_key();
}

/// The same where nothing was ordered yet, since the key in use was not even known.
fn begins_after_retry(scene: &Scene) {
    let ran = scene.run(&["retry", SERVICE]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let known = || (!scene.service()["current_key"].is_null()).then_some(());
    wait_until_or("a key is known", known, || scene.service().to_string());
    for words in [["adopt", SERVICE, &scene.first_key.0].as_slice(), &["rotate", SERVICE]] {
        let ran = scene.run(words);
        assert_eq!(ran.code, Some(0), "{ran:?}");
    }
    scene.wait_done(1);
    scene.assert_one_live_key();
}

/// Waits until it is halted, and holds what is told against what should be.
#[track_caller]
fn halts(scene: &Scene, expected: &str) {
    let service = scene.wait_for("state", "halted");
    let text = |field: &str| service[field].as_str().unwrap_or("null").to_owned();
    let told = format!("{}: {} next: {}", text("reason"), text("message"), text("next_command"));
    let expected = expected.split_whitespace().collect::<Vec<_>>().join(" ");
    said(scene, &told, &expected);
    assert_eq!(scene.run(&["status"]).code, Some(1), "a halt is an exit code too");
}

/// Nothing was minted, disabled or deleted, nothing pushed, and nobody noticed.
#[track_caller]
fn nothing_happened(scene: &Scene) {
    let changes = ["UpdateAccessKey", "DeleteAccessKey"];
    let changed = scene.aws.requests().into_iter().find(|line| changes.contains(&line.operation.as_str()));
    assert!(changed.is_none(), "{changed:?}");
    assert_eq!(scene.aws.mints(), 0);
    assert!(scene.arcgis.jobs().is_empty());
    assert_eq!(scene.arcgis.consumer_refusals(), 0);
}

#[track_caller]
fn said(scene: &Scene, text: &str, expected: &str) {
    let text = plain(scene, text);
    assert!(text.trim() == expected.trim(), "it said:\n{}\n\ninstead of:\n{}\n", text.trim(), expected.trim());
}

/// Without what differs from run to run.
fn plain(scene: &Scene, text: &str) -> String {
    let mut text = text.replace(&scene.path("").display().to_string(), "HOME/");
    for (url, name) in [(scene.aws.endpoint(), "AWS"), (scene.arcgis.admin_url(), "GIS")] {
        let port = url.split(':').nth(2).and_then(|rest| rest.split('/').next()).expect("it has a port").to_owned();
        text = text.replace(&format!("127.0.0.1:{port}"), name);
    }
    let mut names = BTreeMap::from([(scene.first_key.0.clone(), "KEY1".to_owned())]);
    for key in words(&text).filter(|word| word.starts_with("AKIA") && word.len() == 20) {
        let next = format!("KEY{}", names.len() + 1);
        names.entry(key.to_owned()).or_insert(next);
    }
    let rotations: Vec<String> = words(&text).filter(|word| word.len() == 36).map(str::to_owned).collect();
    for (key, name) in names {
        text = text.replace(&key, &name);
    }
    for rotation in rotations {
        text = text.replace(&rotation, "ROTATION");
    }
    // A time is long, and begins with the year.
    let times: Vec<String> =
        text.split([' ', '(', ')', ';', ',']).filter(|word| is_time(word)).map(str::to_owned).collect();
    times.iter().for_each(|time| text = text.replace(time, "TIME"));
    text
}

fn is_time(word: &str) -> bool {
    let digit = |byte: u8| byte.is_ascii_digit() || b"-:TZ".contains(&byte);
    !word.is_empty() && word.starts_with(|c: char| c.is_ascii_digit()) && word.bytes().all(digit) && {
        word.contains(':') || word.matches('-').count() == 2
    }
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '-')
}

fn last_line(ran: &Ran) -> String {
    ran.err.lines().last().unwrap_or_default().to_owned()
}

fn edit(scene: &Scene, from: &str, to: &str) {
    let text = std::fs::read_to_string(scene.policy()).expect("the policy is there");
    assert!(text.contains(from), "{from} is not in the policy");
    std::fs::write(scene.policy(), text.replace(from, to)).expect("it can be written");
}

/// Waits until nobody is asked anything any more.
fn quiet(scene: &Scene) {
    edit(scene, "observe = \"1s\"", "observe = \"1h\"");
    let requests = || (scene.aws.requests().len(), scene.arcgis.requests().len());
    let mut seen = (requests(), std::time::Instant::now());
    wait_until("nothing is asked any more", || {
        if requests() != seen.0 {
            seen = (requests(), std::time::Instant::now());
        }
        seen.1.elapsed() > Duration::from_millis(400)
    });
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).expect("it can be made");
    for entry in std::fs::read_dir(from).expect("it can be read").flatten() {
        std::fs::copy(entry.path(), to.join(entry.file_name())).expect("it can be copied");
    }
}
