//! Stories about policies, with kinds of issuers and targets that are as simple as can be: what the real ones read is theirs
//! to test, and what their mistakes look like stands in `tests/it/policy`.

use super::*;
use crate::model::{MaterialKind, Shape, TargetName};
use crate::ports::Fault;
use crate::table::Zero;

const KINDS: Kinds<'static> = Kinds {
    issuers: &[
        issuer::Kind {
            name: "aws-iam",
            system: Some("aws"),
            read_system: |table| Some(serde_json::json!({ "region": table.text_or("region") })),
            read: |table, system| {
                let user = table.text("user");
                Some(IssuerSpec {
                    kind: "aws-iam".into(),
                    object: format!("aws-iam:{}:{}", system?.at.name, user?),
                    system: Some(system?.at.clone()),
                    shape: Shape::ShownOnce,
                    exclusive: false,
                    propagation: Duration::from_secs(60),
                    settle: Duration::from_secs(600),
                    last_used_lag: None,
                    config: serde_json::Value::Null,
                })
            },
            material: |_| Some(MaterialKind::AccessKey),
            lifetime: |_| None,
            watch_min: |_| None,
            derivation: None,
            connect: |_, _, _| Err(Fault::Unknown("no issuer is reached in these tests".into())),
        },
        issuer::Kind {
            name: "command",
            system: None,
            read_system: |_| None,
            read: |_, _| None,
            material: |_| None,
            lifetime: |_| None,
            watch_min: |_| None,
            derivation: None,
            connect: |_, _, _| Err(Fault::Unknown("no issuer is reached in these tests".into())),
        },
    ],
    targets: &[target::Kind {
        name: "arcgis",
        system: Some("arcgis"),
        read_system: |table| {
            let password = table.secret("password");
            let readback = table.duration("readback", Zero::Refused);
            Some(serde_json::json!({ "password": password?, "readback": readback }))
        },
        read: |table, system| {
            let service = table.text("service_id");
            Some(TargetSpec {
                kind: "arcgis".into(),
                system: Some(system?.at.clone()),
                name: TargetName::new(format!("arcgis:{}:{}", system?.at.name, service?)),
                readback: Duration::ZERO,
                job_timeout: Duration::ZERO,
                poll: Duration::ZERO,
                derived_by: None,
                config: serde_json::Value::Null,
            })
        },
        expect: |spec, material| spec.config = serde_json::json!({ "comes": material }),
        refuses: |_| None,
        jobs_max: |_| None,
        connect: |_, _, _| Err(Fault::Unknown("no target is reached in these tests".into())),
    }],
};

/// A policy that is right, to be broken in one place by each story.
const GOOD: &str = r#"version = 1
[daemon]
timezone = "Europe/Dublin"
[defaults]
soak = "24h"
[aws.main]
[arcgis.prod]
password = { credential = "arcgis-prod" }

[[service]]
name = "prod"
every = "30d"
  [service.issuer]
  kind = "aws-iam"
  account = "main"
  user = "store"
  [[service.target]]
  kind = "arcgis"
  deployment = "prod"
  service_id = "x"
"#;

fn parse(text: &str) -> Result<Policy, Report> {
    Policy::parse_for(text, "policy.toml", &Environment::default(), KINDS)
}

fn good(text: &str) -> Policy {
    parse(text).unwrap_or_else(|report| panic!("{report}"))
}

#[test]
fn a_target_is_told_what_will_come() {
    let policy = good(GOOD);
    assert_eq!(policy.services[0].targets[0].config, serde_json::json!({ "comes": "access-key" }));
}

/// `GOOD` with one line changed.
fn with(old: &str, new: &str) -> String {
    assert!(GOOD.contains(old), "{old}");
    GOOD.replacen(old, new, 1)
}

/// A second service behind the first.
fn and(name: &str, user: &str, service_id: &str) -> String {
    let second = GOOD[GOOD.find("[[service]]").expect("there is a service")..]
        .replace("\"prod\"\nevery", &format!("\"{name}\"\nevery"))
        .replace("\"store\"", &format!("\"{user}\""))
        .replace("\"x\"", &format!("\"{service_id}\""));
    format!("{GOOD}\n{second}")
}

fn mistakes(text: &str) -> Vec<String> {
    let report = parse(text).expect_err("the policy has a mistake");
    report.mistakes().iter().map(|mistake| mistake.what.clone()).collect()
}

#[test]
fn a_policy_is_read_with_its_defaults() {
    let policy = good(GOOD);
    assert_eq!(policy.daemon.journal, JournalAt::Sqlite("/var/lib/rekeyd/journal.db".into()));
    assert_eq!(policy.daemon.listen, Listen::At("127.0.0.1:9465".parse().expect("an address")));
    assert_eq!(policy.daemon.control, PathBuf::from("/run/rekeyd/control.sock"));
    assert_eq!(policy.daemon.timezone, Tz::Europe__Dublin);
    let service = &policy.services[0];
    assert_eq!(service.timetable, Timetable::Every(Duration::from_secs(30 * 86_400)));
    assert_eq!(service.terms.probes, 3);
    assert_eq!(service.terms.probe_interval, Duration::from_secs(5));
    assert_eq!(service.terms.soak, Duration::from_secs(86_400));
    assert_eq!(service.terms.soak_unproven, Duration::from_secs(7 * 86_400));
    assert_eq!(service.terms.watch, Duration::from_secs(86_400));
    assert_eq!(service.observe, Duration::from_secs(3600));
    assert_eq!(service.issuer.propagation, Duration::from_secs(60));
    assert!(service.on_signal && !service.break_window && service.max_age.is_none());
    assert_eq!(service.on_drift, OnDrift::Alert);
    assert!(policy.warnings.is_empty(), "{:?}", policy.warnings);
}

#[test]
fn the_surroundings_say_where_journal_and_socket_are_and_the_policy_knows_better() {
    let environment =
        Environment { state_directory: Some("/state".into()), runtime_directory: Some("/runtime".into()) };
    let parse = |text: &str| {
        Policy::parse_for(text, "p", &environment, KINDS).unwrap_or_else(|report| panic!("{report}")).daemon
    };
    assert_eq!(parse(GOOD).journal, JournalAt::Sqlite("/state/journal.db".into()));
    assert_eq!(parse(GOOD).control, PathBuf::from("/runtime/control.sock"));
    let daemon = parse(&with("[daemon]", "[daemon]\njournal = \"sqlite:/x/j\"\ncontrol = \"/x/c\"\nlisten = \"off\""));
    assert_eq!(daemon.journal, JournalAt::Sqlite("/x/j".into()));
    assert_eq!(daemon.control, PathBuf::from("/x/c"));
    assert_eq!(daemon.listen, Listen::Off);
}

#[test]
fn a_service_comes_before_the_defaults_and_the_defaults_before_ours() {
    let text =
        with("soak = \"24h\"", "soak = \"2h\"\nwatch = \"3h\"\nprobes = 1\npropagation = \"9s\"\nevery = \"60d\"");
    let text = text.replace("every = \"30d\"", "cron = \"0 0 3 1 * *\"\nsoak = \"4h\"");
    let service = good(&text).services.remove(0);
    assert!(matches!(service.timetable, Timetable::Cron(_)));
    assert_eq!(service.terms.soak, Duration::from_secs(4 * 3600));
    assert_eq!(service.terms.watch, Duration::from_secs(3 * 3600));
    assert_eq!(service.terms.probes, 1);
    assert_eq!(service.issuer.propagation, Duration::from_secs(9));
}

#[test]
fn without_a_timetable_a_service_is_rotated_on_demand() {
    assert_eq!(good(&with("every = \"30d\"\n", "")).services[0].timetable, Timetable::OnDemand);
}

#[test]
fn a_policy_without_services_is_legal_and_pointless() {
    let policy = good("version = 1\n");
    assert!(policy.services.is_empty());
    assert_eq!(policy.warnings, ["policy.toml:1:1: the policy has no services, so that there is nothing to do"]);
}

#[test]
fn a_literal_listener_on_the_network_needs_a_word() {
    let listen = |more: &str| with("[daemon]", &format!("[daemon]\nlisten = \"0.0.0.0:9465\"\n{more}"));
    assert_eq!(mistakes(&listen("")), ["0.0.0.0:9465 can be reached from other machines"]);
    assert!(parse(&listen("listen_public = true")).is_ok());
    for address in ["127.0.0.1:1", "[::1]:1", "localhost:1"] {
        assert!(parse(&listen("").replace("0.0.0.0:9465", address)).is_ok(), "{address}");
    }
}

#[test]
fn every_must_leave_time_to_retire_the_old_key() {
    let every = |every: &str| with("every = \"30d\"", &format!("every = \"{every}\""));
    assert!(mistakes(&every("48h"))[0].contains("before the old key is gone: soak 1d + watch 1d"));
    assert_eq!(good(&every("49h")).warnings.len(), 1);
    assert_eq!(good(&every("9d")).warnings.len(), 0);
    let waits = every("9d").replace("every = ", "window = \"Sat 22:00-Sun 04:00\"\nevery = ");
    assert_eq!(good(&waits).warnings.len(), 1);
    assert!(mistakes(&waits.replace("\"9d\"", "\"8d\""))[0].contains("up to 6d 18h of waiting for a window"));
}

#[test]
fn an_age_below_the_interval_is_refused_and_one_within_the_waiting_warned_of() {
    let text =
        |age: &str, more: &str| with("every = \"30d\"", &format!("every = \"30d\"\nmax_age = \"{age}\"\n{more}"));
    assert!(mistakes(&text("29d", ""))[0].contains("over its `max_age` of 29d"));
    assert!(good(&text("30d", "")).warnings.is_empty());
    assert_eq!(good(&text("30d", "jitter = \"10%\"")).warnings.len(), 1);
    assert!(good(&text("33d", "jitter = \"10%\"")).warnings.is_empty());
}

#[test]
fn a_mistake_in_the_defaults_is_said_of_every_service_it_hits() {
    let text = and("second", "other", "y")
        .replace("every = \"30d\"\n", "")
        .replace("[defaults]", "[defaults]\nevery = \"1d\"");
    let found = mistakes(&text);
    assert_eq!(found.len(), 2);
    assert!(found[0].starts_with("`prod`") && found[1].starts_with("`second`"));
}

#[test]
fn services_share_no_name_no_issuer_and_no_target() {
    assert!(parse(&and("second", "other", "y")).is_ok());
    assert_eq!(
        mistakes(&and("prod", "other", "y")),
        ["a second service is called `prod`; the first stands in line 11"]
    );
    assert_eq!(
        mistakes(&and("second", "store", "y")),
        ["aws-iam:main:store is the issuer of `prod` already, in line 13"]
    );
    assert_eq!(mistakes(&and("second", "other", "x")), ["arcgis:prod:x is a target of `prod` already, in line 17"]);
    let target = &GOOD[GOOD.find("  [[service.target]]").expect("there is a target")..];
    assert_eq!(mistakes(&format!("{GOOD}{target}")), ["arcgis:prod:x is a target of this service already, in line 17"]);
}

#[test]
fn a_name_that_is_in_use_has_no_history_to_give() {
    let renamed =
        and("second", "other", "y").replace("name = \"second\"", "name = \"second\"\nrenamed_from = \"prod\"");
    assert_eq!(mistakes(&renamed), ["`prod` is still the name of a service, in line 11"]);
    assert!(parse(&renamed.replace("from = \"prod\"", "from = \"first\"")).is_ok());
}

#[test]
fn references_lead_somewhere() {
    assert_eq!(mistakes(&with("account = \"main\"", "account = \"mian\"")), ["there is no [aws.mian] in this policy"]);
    assert_eq!(
        mistakes(&with("deployment = \"prod\"", "deployment = \"test\"")),
        ["there is no [arcgis.test] in this policy"]
    );
}

#[test]
fn a_broken_system_is_reported_once_and_not_called_missing() {
    let found = mistakes(&with("password = { credential = \"arcgis-prod\" }", "password = \"hunter2\""));
    assert_eq!(found, ["`password` is a literal secret, which a policy may not hold"]);
}

#[test]
fn a_kind_or_a_provider_that_there_is_not_is_called_that() {
    assert_eq!(mistakes(&format!("{GOOD}[azzure.main]\ntenant_id = \"x\"\n")), ["unknown key `azzure` in the policy"]);
    assert_eq!(mistakes(&with("kind = \"aws-iam\"", "kind = \"aws\"")), ["there is no kind of issuer called `aws`"]);
}

#[test]
fn a_reader_that_gives_up_without_a_word_is_our_mistake_and_no_panic() {
    let text = with("kind = \"aws-iam\"\n  account = \"main\"\n  user = \"store\"", "kind = \"command\"");
    assert_eq!(mistakes(&text), ["a table could not be read, and its reader does not say why"]);
}

#[test]
fn the_version_is_said_and_is_ours() {
    assert_eq!(mistakes(&with("version = 1\n", "")), ["`version` is missing in the policy"]);
    assert_eq!(
        mistakes(&with("version = 1", "version = 2")),
        ["this policy is written in version 2, and this rekeyd reads version 1"]
    );
}

#[test]
fn a_file_that_does_not_parse_is_still_read_for_what_it_says() {
    let text = with("account = \"main\"", "account \"main\"")
        .replace("every = \"30d\"", "every = 30d")
        .replace("[aws.main]", "[aws.main");
    let found = mistakes(&text);
    assert!(found.iter().any(|what| what == "a text stands here without quotes"), "{found:?}");
    assert!(!found.iter().any(|what| what.contains("missing") || what.contains("there is no [")), "{found:?}");
}

#[test]
fn secrets_and_systems_of_a_policy_are_known() {
    let policy = good(&with("[daemon]", "[daemon]\nseal_key = { file = \"/etc/seal\" }"));
    let secrets: Vec<_> = policy.secret_refs().iter().map(|secret| secret.key.as_str()).collect();
    assert_eq!(secrets, ["seal_key in [daemon]", "password in [arcgis.prod]"]);
    let systems: Vec<_> = policy.systems_in_use().into_iter().map(ToString::to_string).collect();
    assert_eq!(systems, ["arcgis.prod", "aws.main"]);
}

#[test]
fn what_a_reload_cannot_change_is_named() {
    let old = good(GOOD);
    assert!(good(&with("every = \"30d\"", "every = \"60d\"")).changes_needing_restart(&old).is_empty());
    let new = good(&with(
        "[daemon]",
        "[daemon]\njournal = \"sqlite:/x\"\nlisten = \"off\"\ncontrol = \"/y\"\nseal_key = { env = \"K\" }",
    ));
    assert_eq!(new.changes_needing_restart(&old), ["journal", "seal_key", "listen", "control"]);
}

#[test]
fn a_file_that_is_not_there_or_not_text_is_said_so() {
    let environment = Environment::default();
    let directory = tempfile::tempdir().expect("a directory for the test");
    let path = directory.path().join("policy.toml");
    let load = || Policy::load(&path, &environment);
    let report = load().expect_err("there is no file").to_string();
    assert!(report.contains("policy.toml: there is no such file\nhelp: "), "{report}");
    std::fs::write(&path, b"version = 1\n\xff").expect("the test writes its file");
    let report = load().expect_err("the file is no text").to_string();
    assert!(report.contains("is not UTF-8 text: byte 12"), "{report}");
}

#[test]
fn a_policy_that_everybody_can_write_is_warned_of() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().expect("a directory for the test");
    let path = directory.path().join("policy.toml");
    std::fs::write(&path, "version = 1\n").expect("the test writes its file");
    let warnings = |mode| {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("the test owns its file");
        Policy::load(&path, &Environment::default()).expect("the policy is right").warnings
    };
    assert!(
        warnings(0o646).iter().any(|warning| warning.contains("everybody on this machine can write it (mode 0646)"))
    );
    assert_eq!(warnings(0o644).len(), 1);
}

#[test]
fn a_time_zone_is_suggested() {
    let help = |zone: &str| {
        let report = parse(&with("Europe/Dublin", zone)).expect_err("the zone is wrong");
        report.mistakes()[0].help.clone()
    };
    assert_eq!(help("Europe/Dubln"), "did you mean `Europe/Dublin`?");
    assert_eq!(help("dublin"), "did you mean `Europe/Dublin`?");
    assert!(help("Middle Earth").starts_with("write a name of the time zone database"));
}

#[test]
fn every_key_that_may_be_said_is_known() {
    let policy = good(GOOD);
    for key in [
        "version",
        "daemon.listen_public",
        "defaults.soak",
        "aws.*.region",
        "service.issuer.user",
        "service.target.kind",
    ] {
        assert!(policy.known_keys().contains(key), "{key}");
    }
}

proptest::proptest! {
    #[test]
    fn no_cut_through_a_policy_upsets_it(from in 0..GOOD.len(), length in 0..60_usize) {
        let to = (from + length).min(GOOD.len());
        if let (Some(head), Some(tail)) = (GOOD.get(..from), GOOD.get(to..)) {
            let _ = parse(&format!("{head}{tail}"));
        }
    }
}
