//! `doctor`, `advise` and what `plan` says of holders: what an operator reads before anything has to work, with a daemon and without.

use std::time::Duration;

use rekeyd_lab::{ArcGisOptions, AwsOptions, Fault as Mishap, ServiceSpec, StoredCredential};
use serde_json::{Value, json};

use super::support::{BUCKET, CLOUD_SERVICE, Daemon, PROVIDER, PolicyText, Ran, SERVICE, Scene, USER, wait_until};

const COPY: &str = "uqsip6c2vm";
const TARGET: &str = "arcgis:prod:eg7hrelq6b";

impl Scene {
    /// Another service of the site that holds the same key, and that nobody uses.
    fn add_copy(&self) {
        let (access_key, secret_key) = self.first_key.clone();
        let credential = Some(StoredCredential { access_key, secret_key });
        self.arcgis.add_service_with(ServiceSpec { credential, ..ServiceSpec::new(COPY, PROVIDER, "") });
    }

    fn doctor(&self) -> Ran {
        self.run(&["doctor"])
    }

    /// The daemon, once it has looked at the adopted key.
    fn start_at_rest(&self) -> Daemon<'_> {
        let daemon = self.start_adopted();
        self.wait_for("state", "idle");
        daemon
    }
}

fn json_of(ran: &Ran) -> Value {
    serde_json::from_str(&ran.out).unwrap_or_else(|error| panic!("{error}: {ran:?}"))
}

/// The finding about something in a list of findings.
fn about<'v>(findings: &'v Value, what: &str) -> &'v Value {
    let list = findings.as_array().expect("findings are a list");
    list.iter().find(|finding| finding["about"] == what).unwrap_or_else(|| panic!("nothing about {what}: {findings}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sound_world_is_told_with_the_daemon_and_without() {
    let scene = Scene::new().await;
    let daemon = scene.start_at_rest();
    let key = &scene.first_key.0;
    let with = scene.doctor();
    assert_eq!(with.code, Some(0), "{with:?}");
    let expected = format!(
        "\
arcgis.prod: ArcGIS Enterprise on Kubernetes 12.0, user rotator
  ok       rights: user rotator is a default administrator (org_admin)
  holds credentials at
    arcgis:prod:{PROVIDER} (cloud provider AWS): no key
    {TARGET} (cloud service AWS S3 DEFAULT {BUCKET}): ACCESS-KEY, end shown; target of {SERVICE}
  cannot be asked about the content directory of a portal (portaladmin/system/directories/content), or the backup location of an \
ArcGIS Data Store (configurebackuplocation)
    give the key to a script of yours that moves it there: a [[service.target]] with kind = \"command\"

{SERVICE}: aws-iam:main:{USER} in aws:111122223333 to {TARGET}
  ok       keys: 1 of 2 listed, current key {key} active
  ok       clock: ours and the provider's agree
  ok       last use: key {key} was last used WHEN (s3 in us-east-1)
  ok       probe: current key {key} works as its consumer uses it
  ok       {TARGET}: would take a key now, and shows the end of current key {key}

not tried, since it would change something: making, disabling, deleting and pushing keys

0 troubles, 0 warnings
"
    );
    assert_eq!(without_time(&with.out), expected);
    let mints = scene.aws.mints();
    assert_eq!(daemon.stop().code(), Some(0));

    let without = scene.doctor();
    assert_eq!(without.code, Some(0), "{without:?}");
    assert!(without.err.contains("no daemon answers at "), "{without:?}");
    assert_eq!(without_time(&without.out), expected, "the same from the journal alone");
    assert_eq!((scene.aws.mints(), mints), (0, 0));
    assert!(scene.arcgis.jobs().is_empty(), "nothing was pushed");
    scene.assert_no_secret_seen();
}

/// The time of a key's last use is the consumer's affair.
fn without_time(text: &str) -> String {
    let line = |line: &str| match line.split_once(" was last used ") {
        Some((before, after)) => {
            let by = after.split_once(' ').map_or("", |(_, by)| by);
            format!("{before} was last used WHEN {by}")
        }
        None => line.to_owned(),
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n") + "\n"
}

#[tokio::test(flavor = "multi_thread")]
async fn before_the_first_start_it_says_what_it_cannot_know() {
    let scene = Scene::new().await;
    let ran = scene.run(&["doctor", "--json"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let told = json_of(&ran);
    assert_eq!(told["version"], 1);
    assert!(
        about(&told["findings"], "journal")["said"]
            .as_str()
            .is_some_and(|said| said.starts_with("there is no journal"))
    );
    let service = &told["services"][0];
    let keys = about(&service["findings"], "keys");
    assert_eq!(keys["level"], "warning");
    assert_eq!(
        keys["next"],
        format!("rekeyd adopt {SERVICE} {}, with the key that the targets use now", scene.first_key.0)
    );
    assert_eq!(service["keys"], json!([{ "id": scene.first_key.0, "active": true, "standing": "unknown" }]));
    assert_eq!(about(&service["findings"], TARGET)["level"], "ok");
    assert!(!scene.path("state").exists(), "only run makes a journal");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_sent_once_however_often_it_is_asked() {
    let scene = Scene::new().await;
    scene.write_secret("arcgis-password", "not-the-password");
    for run in 0..6 {
        let ran = scene.doctor();
        assert_eq!(ran.code, Some(1), "{ran:?}");
        assert!(ran.out.contains("  TROUBLE  reach: logging in to arcgis.prod as rotator"), "run {run}: {ran:?}");
        assert!(ran.out.contains("this one is not sent again"), "{ran:?}");
        assert!(ran.out.contains("next: correct the login of [arcgis.prod]"), "{ran:?}");
        assert!(
            ran.out.contains(&format!("  warning  {TARGET}: not asked, since arcgis.prod could not be")),
            "{ran:?}"
        );
        assert_eq!(scene.run(&["plan"]).code, Some(0));
        assert_eq!(scene.run(&["advise"]).code, Some(1));
    }
    assert_eq!(scene.arcgis.logins(), [false], "without a journal");

    scene.write_secret("arcgis-password", &ArcGisOptions::default().password);
    assert_eq!(scene.doctor().code, Some(0), "the account is not locked");
    let _ = scene.start().stop();
    scene.write_secret("arcgis-password", "wrong-once-more");
    let before = scene.arcgis.logins().len();
    for _ in 0..6 {
        assert_eq!(scene.doctor().code, Some(1));
    }
    let daemon = scene.start();
    for _ in 0..2 {
        let ran = scene.doctor();
        assert_eq!(ran.code, Some(1), "{ran:?}");
    }
    assert_eq!(scene.arcgis.logins()[before..], [false], "with a journal, and the daemon keeps to it");
    assert_eq!(daemon.stop().code(), Some(0));
    scene.write_secret("arcgis-password", &ArcGisOptions::default().password);
    let ran = scene.doctor();
    assert!(ran.out.contains("user rotator is a default administrator"), "the account is not locked: {ran:?}");
    assert!(ran.out.contains("  TROUBLE  state: halted (login-refused): "), "the service waits for its retry: {ran:?}");
    scene.assert_no_secret_seen();
}

/// A command has less patience than a login may take, and the refusal that comes after its answer counts all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_sent_once_though_its_refusal_comes_late() {
    let scene = Scene::new().await;
    scene.write_secret("arcgis-password", "not-the-password");
    let policy = std::fs::read_to_string(scene.policy()).expect("the scene wrote it");
    let policy = policy.replace("job_timeout = \"20s\"\nrequest_timeout = \"5s\"", "request_timeout = \"30s\"");
    std::fs::write(scene.policy(), policy).expect("the policy can be written");
    // Longer than `plan` asks one deployment.
    scene.arcgis.fault("generateToken", Mishap::Slow(Duration::from_secs(12)));
    let ran = scene.run(&["plan"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(ran.out.contains("no answer within 10 s"), "{ran:?}");
    assert!(ran.err.contains("waiting for the answer to a login"), "{ran:?}");
    let again = scene.run(&["plan"]);
    assert!(again.out.contains("this password was refused before"), "{again:?}");
    assert_eq!(scene.arcgis.logins(), [false]);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_logs_in_where_a_refusal_would_be_forgotten() {
    let scene = Scene::new().await;
    let mut command = scene.command(&["doctor"]);
    command.env("XDG_RUNTIME_DIR", scene.path("nowhere"));
    let ran = command.output().expect("the program can be run");
    let out = String::from_utf8_lossy(&ran.stdout);
    assert_eq!(ran.status.code(), Some(1), "{out}");
    assert!(out.contains("not asked: a refused password could be remembered neither in the journal nor in "), "{out}");
    assert!(scene.arcgis.logins().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_that_is_down_is_one_trouble_and_the_issuer_is_asked_all_the_same() {
    let scene = Scene::new().await;
    let daemon = scene.start_at_rest();
    scene.arcgis.down(true);
    for daemon_runs in [true, false] {
        if !daemon_runs {
            daemon.signal("TERM");
            wait_until("the daemon has ended", || !scene.path("control.sock").exists());
        }
        let ran = scene.run(&["doctor", "--json"]);
        assert_eq!(ran.code, Some(1), "{ran:?}");
        let told = json_of(&ran);
        let deployment = &told["deployments"][0];
        assert_eq!(deployment["holders"], Value::Null);
        let reach = about(&deployment["findings"], "reach");
        assert_eq!(reach["level"], "trouble", "{reach}");
        let findings = &told["services"][0]["findings"];
        assert_eq!(about(findings, "keys")["level"], "ok");
        assert_eq!(about(findings, "probe")["level"], "ok");
        assert_eq!(about(findings, TARGET)["said"], "not asked, since arcgis.prod could not be");

        // A plan is made without it, and says why.
        let plan = scene.run(&["plan"]);
        assert_eq!(plan.code, Some(0), "{plan:?}");
        assert!(plan.out.contains(&format!("{SERVICE}: nothing by itself")), "{plan:?}");
        assert!(plan.out.contains("\narcgis.prod: which places hold keys could not be asked: "), "{plan:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_without_the_right_is_told_with_its_role() {
    let scene = Scene::new().await;
    scene.arcgis.set_role("org_publisher", &["portal:admin:viewUsers", "portal:user:createItem"]);
    let doubtful = scene.doctor();
    assert_eq!(doubtful.code, Some(0), "a role alone refuses nothing: {doubtful:?}");
    let role =
        "user rotator has role org_publisher with portal:admin:viewUsers: until 11.5 only a default administrator";
    assert!(doubtful.out.contains(&format!("  warning  rights: {role}")), "{doubtful:?}");

    scene.arcgis.set_username_privilege(false);
    let ran = scene.doctor();
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.out.contains("  TROUBLE  reach: reading the admin directory of arcgis.prod"), "{ran:?}");
    assert!(ran.out.contains("Token is valid but access is denied.") && ran.out.contains(role), "{ran:?}");
    assert!(ran.out.contains("next: grant it, then rekeyd doctor"), "{ran:?}");

    scene.arcgis.set_username_privilege(true);
    scene.aws.deny("iam:ListAccessKeys");
    let ran = scene.doctor();
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.out.contains("  TROUBLE  keys: list the access keys of iam user arcgis-object-store"), "{ran:?}");
    assert!(ran.out.contains("iam:ListAccessKeys"), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copy_of_the_key_is_told_before_anything_is_minted() {
    let scene = Scene::new().await;
    scene.add_copy();
    let named = format!("arcgis:prod:{COPY} (cloud service AWS S3 DEFAULT)");
    let told = format!("  warning  arcgis:prod:{COPY}: cloud service AWS S3 DEFAULT holds ");
    let accept = format!("accept_holders = [\"arcgis:prod:{COPY}\"]");

    // Before anybody has said which key it is, the ends alone show it.
    let ran = scene.doctor();
    assert!(ran.out.contains(&format!("{told}the key of {TARGET}, a target of service {SERVICE}, too")), "{ran:?}");
    let daemon = scene.start_at_rest();
    for command in ["doctor", "plan"] {
        let ran = scene.run(&[command]);
        assert_eq!(ran.code, Some(0), "a warning is no trouble: {ran:?}");
        let holds = format!("{told}current key {} of service {SERVICE} too", scene.first_key.0);
        assert!(ran.out.contains(&holds), "{ran:?}");
        assert!(ran.out.contains(&format!("next: make it a [[service.target]] of {SERVICE}; or, ")), "{ran:?}");
        assert!(ran.out.contains(&accept), "{ran:?}");
        assert!(ran.out.contains(&format!("    {named}: ACCESS-KEY, end shown; NO TARGET\n")), "{ran:?}");
    }
    let plan = scene.run(&["plan", "--json"]);
    let plans = json_of(&plan);
    let holders = &plans[0]["deployments"][0]["holders"];
    let copy = holders
        .as_array()
        .and_then(|holders| holders.iter().find(|holder| holder["what"] == "cloud service AWS S3 DEFAULT"));
    assert_eq!(copy.map(|copy| &copy["cover"]), Some(&json!("not-covered")), "{plan:?}");
    let offline = scene.run(&["plan", "--offline"]);
    assert!(offline.code == Some(0) && !offline.out.contains("arcgis.prod:"), "{offline:?}");
    assert_eq!(json_of(&scene.run(&["plan", "--offline", "--json"]))[0]["deployments"], Value::Null);

    scene.write_policy(&PolicyText { service: accept, ..PolicyText::default() });
    daemon.signal("HUP");
    wait_until("the new policy is in force", || daemon.log().contains("the new policy is in force"));
    let ran = scene.doctor();
    assert!(
        ran.out.contains(&format!("    {named}: ACCESS-KEY, end shown; left to somebody else by accept_holders\n")),
        "{ran:?}"
    );
    assert!(ran.out.ends_with("\n0 troubles, 0 warnings\n"), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_holder_that_shows_nothing_is_not_passed_over() {
    let scene = Scene::new().await;
    let (access_key, secret_key) = scene.aws.create_key(USER);
    scene.arcgis.add_data_item("/cloudStores/imagery", BUCKET, StoredCredential { access_key, secret_key });
    let ran = scene.doctor();
    let named = format!("arcgis:prod:/cloudStores/imagery (data item amazon {BUCKET})");
    let told = format!(
        "arcgis:prod:/cloudStores/imagery: data item amazon {BUCKET} is no target and shows nothing of its key"
    );
    assert!(ran.out.contains(&told), "{ran:?}");
    assert!(
        ran.out.contains(&format!("    {named}: a credential of no told type, end not shown; NO TARGET\n")),
        "{ran:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_inherits_names_its_provider() {
    let scene = Scene::new().await;
    let (access_key, secret_key) = scene.first_key.clone();
    scene.arcgis.add_provider("s7my5d949q", "AWS", Some(StoredCredential { access_key, secret_key }));
    scene.arcgis.add_service("inheritsit", "s7my5d949q", BUCKET, None);
    scene.write_policy(&PolicyText { cloud_service: "inheritsit".into(), ..PolicyText::default() });
    let ran = scene.doctor();
    assert_eq!(ran.code, Some(1), "{ran:?}");
    let target = "arcgis:prod:inheritsit";
    assert!(ran.out.contains(&format!("inherits from arcgis:prod:s7my5d949q; target of {SERVICE}\n")), "{ran:?}");
    assert!(ran.out.contains(&format!("  TROUBLE  {target}: looking at cloud service inheritsit")), "{ran:?}");
    assert!(ran.out.contains("say provider_id = \"s7my5d949q\" in place of service_id"), "{ran:?}");
    assert!(ran.out.contains("next: correct the policy, then systemctl reload rekeyd"), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn clocks_that_differ_are_told_before_they_stop_anything() {
    let scene = Scene::new().await;
    let level = |seconds: i64| {
        scene.aws.set_date_skew(chrono::Duration::seconds(seconds));
        let ran = scene.run(&["doctor", "--json"]);
        let clock = about(&json_of(&ran)["services"][0]["findings"], "clock").clone();
        (clock["level"].as_str().unwrap_or_default().to_owned(), ran.code, clock["said"].to_string())
    };
    assert_eq!(level(10).0, "ok");
    assert_eq!(level(120).0, "warning");
    let (word, code, said) = level(-400);
    assert_eq!((word.as_str(), code), ("trouble", Some(1)), "{said}");
    assert!(
        said.contains("-40") && said.contains("no key is touched while they differ by more than five minutes"),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_stop_a_rotation_is_told_before_it_is_opened() {
    let scene = Scene::new().await;
    let daemon = scene.start_at_rest();
    scene.arcgis.set_read_only(true);
    let ran = scene.doctor();
    assert_eq!(ran.code, Some(0), "it passes by itself: {ran:?}");
    assert!(
        ran.out.contains(&format!("  warning  {TARGET}: ")) && ran.out.contains("the site is in read-only mode"),
        "{ran:?}"
    );
    scene.arcgis.set_read_only(false);

    let (stranger, secret) = scene.aws.create_key(USER);
    let ran = scene.doctor();
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(ran.out.contains(&format!("nobody can explain {stranger}: no key is minted beside it")), "{ran:?}");
    assert!(ran.out.contains(&format!("next: rekeyd reclaim {SERVICE} {stranger} (ours and unused")), "{ran:?}");

    scene.arcgis.set_credential(CLOUD_SERVICE, &stranger, &secret);
    let ran = scene.doctor();
    assert!(ran.out.contains(&format!("  TROUBLE  {TARGET}: shows another key than current key")), "{ran:?}");
    scene.aws.set_status(USER, &scene.first_key.0, false);
    let ran = scene.doctor();
    assert!(ran.out.contains(&format!("current key {} is inactive at its issuer", scene.first_key.0)), "{ran:?}");
    assert!(ran.out.contains("  TROUBLE  probe: current key"), "{ran:?}");
    assert_eq!(daemon.stop().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_on_its_way_out_is_not_used_by_a_look() {
    let scene = Scene::new().await;
    scene.write_policy(&PolicyText { soak: "1h".into(), ..PolicyText::default() });
    let _daemon = scene.start_adopted();
    assert_eq!(scene.run(&["rotate", SERVICE, "--wait"]).code, Some(0));
    scene.wait_for("state", "soaking");
    let ran = scene.doctor();
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(ran.out.contains("was not probed: a rotation is open"), "{ran:?}");
    // A job that may be its own is no warning.
    scene.arcgis.start_foreign_job(CLOUD_SERVICE, std::time::Duration::from_secs(60));
    let ran = scene.doctor();
    assert!(
        ran.out.contains(&format!("  ok       {TARGET}: a rotation is open, and the target takes nothing else now")),
        "{ran:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_goes_on_while_everybody_looks() {
    let arcgis = ArcGisOptions { job_duration: std::time::Duration::from_secs(2), ..ArcGisOptions::default() };
    let scene = Scene::with(AwsOptions::default(), arcgis).await;
    let daemon = scene.start_at_rest();
    assert_eq!(scene.run(&["rotate", SERVICE]).code, Some(0));
    let mut looks = 0;
    while daemon.status()["rotations"]["done"] != 1 && looks < 200 {
        std::thread::scope(|threads| {
            for command in ["doctor", "plan", "advise"] {
                let scene = &scene;
                threads.spawn(move || {
                    let ran = scene.run(&[command]);
                    assert_eq!(ran.code, Some(0), "{command}: {ran:?}");
                });
            }
        });
        looks += 1;
    }
    scene.wait_done(1);
    assert!(looks > 3, "it was looked at while it rotated: {looks}");
    assert_eq!((scene.aws.mints(), scene.arcgis.jobs().len()), (1, 1));
    assert_eq!(scene.arcgis.logins(), [true], "all of them share the engine's session");
    scene.assert_one_live_key();
    scene.assert_no_secret_seen();
}

#[tokio::test(flavor = "multi_thread")]
async fn advice_depends_on_the_version_and_on_what_is_there() {
    let arcgis = ArcGisOptions { version: "11.5".to_owned(), ..ArcGisOptions::default() };
    let scene = Scene::with(AwsOptions::default(), arcgis).await;
    let ran = scene.run(&["advise"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(
        ran.out.starts_with(&format!("{SERVICE}: keeps its key\n  {TARGET}: the site is 11.5: until 12.0")),
        "{ran:?}"
    );
    assert!(!ran.out.contains("rekeyd switch"), "{ran:?}");

    scene.arcgis.set_version("12.0");
    let _daemon = scene.start_at_rest();
    let ran = scene.run(&["advise"]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let opens = format!(
        "{SERVICE}: could use iam-role instead of a key\n  {TARGET}: holds ACCESS-KEY now\n    prepare: an IAM role that "
    );
    assert!(ran.out.starts_with(&opens), "{ran:?}");
    assert!(ran.out.ends_with(&format!("\n  once that is done: rekeyd switch {SERVICE} --to iam-role\n")), "{ran:?}");
    assert!(ran.out.contains("    not seen from here: whether the role is there, and reaches the bucket"), "{ran:?}");
    let told = json_of(&scene.run(&["advise", "--json"]));
    assert_eq!((&told[0]["verdict"], &told[0]["to"]), (&json!("possible"), &json!("iam-role")));

    scene.arcgis.set_credential_object(CLOUD_SERVICE, &json!({ "type": "IAM-ROLE" }));
    let ran = scene.run(&["advise"]);
    assert_eq!(ran.out, format!("{SERVICE}: uses no key already\n  {TARGET}: IAM-ROLE, which holds no key\n"));
    let doctor = scene.doctor();
    assert!(doctor.out.contains(&format!(": IAM-ROLE, no key; target of {SERVICE}\n")), "{doctor:?}");
    // Nobody told the journal, so the next rotation would stop at it; and the key that it knows is not given up.
    assert_eq!(doctor.code, Some(1), "{doctor:?}");
    assert!(doctor.out.contains(&format!("  TROUBLE  {TARGET}: uses iam-role, which is no key")), "{doctor:?}");
    assert!(doctor.out.contains(&format!("rekeyd switch {SERVICE} --to iam-role takes that for good")), "{doctor:?}");
    let key = &scene.first_key.0;
    assert!(doctor.out.contains(&format!("  ok       keys: 1 of 2 listed, current key {key} active")), "{doctor:?}");
    assert!(!doctor.out.contains("delete it at the issuer"), "{doctor:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_the_journal_knows_no_key_beside_is_nothing_to_rotate() {
    let scene = Scene::new().await;
    scene.arcgis.set_credential_object(CLOUD_SERVICE, &json!({ "type": "IAM-ROLE" }));
    let doctor = scene.doctor();
    assert_eq!(doctor.code, Some(0), "{doctor:?}");
    let nothing = format!("  ok       {TARGET}: its credential is IAM-ROLE, which holds no key");
    assert!(doctor.out.contains(&nothing), "{doctor:?}");
    let left = format!("  warning  keys: no target holds a key, and active at the issuer are {}", scene.first_key.0);
    assert!(doctor.out.contains(&left), "{doctor:?}");
}
