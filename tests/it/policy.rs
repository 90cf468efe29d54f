//! Broken policies, and all that the user is told about each: one small file and one snapshot for every story.
//!
//! After a change of words: `INSTA_UPDATE=always cargo test --test it policy`, and read the difference as somebody would who is
//! woken at three.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use rekeyd::policy::{Environment, JournalAt, Policy};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/policy")
}

/// What the user sees of `policy/NAME.toml`.
fn shown(name: &str) -> String {
    let text = std::fs::read_to_string(folder().join(format!("{name}.toml"))).expect("every story has its file");
    match Policy::parse(text, "policy.toml", &Environment::default()) {
        Ok(_) => panic!("{name}.toml has no mistake"),
        Err(report) => report.to_string(),
    }
}

macro_rules! stories {
    ($($name:ident)*) => {
        const STORIES: &[&str] = &[$(stringify!($name)),*];

        $(
            #[test]
            fn $name() {
                let shown = shown(stringify!($name));
                assert!(!shown.contains("hunter2"), "a secret is shown:\n{shown}");
                insta::with_settings!({
                    snapshot_path => "policy",
                    prepend_module_to_snapshot => false,
                    omit_expression => true,
                }, {
                    insta::assert_snapshot!(stringify!($name), shown);
                });
            }
        )*
    };
}

stories! {
    bad_address
    bad_arcgis
    bad_aws
    bad_azure
    bad_command
    bad_cron
    bad_daemon
    bad_daemon_again
    bad_data_item
    bad_duration
    bad_f5xc
    bad_file
    bad_google
    bad_holder
    bad_ibm
    bad_jitter
    bad_name
    bad_sas
    bad_secret_reference
    bad_store
    bad_window
    empty
    every_and_cron
    every_too_short
    every_too_short_for_window
    impossible_cron
    literal_secret
    literal_secret_in_disguise
    max_age_below_every
    missing_keys
    missing_probe
    missing_reference
    missing_version
    name_taken
    newer_version
    public_listener
    shared_issuer
    shared_target
    syntax
    syntax_curly_quotes
    syntax_twice
    syntax_unclosed
    tabs_and_wide_letters
    unknown_key
    unknown_kind
    wrong_kind_of_value
    zero
}

#[test]
fn every_file_has_its_story() {
    let files: BTreeSet<String> = std::fs::read_dir(folder())
        .expect("the folder is part of the repository")
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok()?.strip_suffix(".toml").map(str::to_owned))
        .collect();
    assert_eq!(files, STORIES.iter().map(|name| (*name).to_owned()).collect());
}

/// The policy that is shipped, and what stands in it.
fn shipped() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/policy.toml");
    std::fs::read_to_string(path).expect("the policy is shipped")
}

fn parse(text: &str) -> Policy {
    match Policy::parse(text, "config/policy.toml", &Environment::default()) {
        Ok(policy) => policy,
        Err(report) => panic!("{report}"),
    }
}

#[test]
fn the_shipped_policy_is_right_as_it_stands() {
    let policy = parse(&shipped());
    assert_eq!(policy.services.len(), 1);
    assert_eq!(policy.daemon.journal, JournalAt::Sqlite("/var/lib/rekeyd/journal.db".into()));
    assert_eq!(policy.warnings, Vec::<String>::new());
}

#[test]
fn the_defaults_that_the_shipped_policy_shows_are_the_defaults() {
    let shipped = shipped();
    // `#key = value`, without a blank, is an option at its default.
    let spoken: String = shipped
        .lines()
        .map(|line| {
            let bare = line.trim_start();
            let key = bare.strip_prefix('#').filter(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase()));
            format!("{}\n", key.unwrap_or(line))
        })
        .collect();
    assert!(spoken.matches(" = ").count() > shipped.lines().filter(|line| !line.contains('#')).count() / 10);
    let (silent, spoken) = (parse(&shipped), parse(&spoken));
    assert_eq!(silent.daemon, spoken.daemon);
    assert_eq!(silent.systems, spoken.systems);
    assert_eq!(silent.services, spoken.services);
}

#[test]
fn the_shipped_policy_shows_every_option_there_is() {
    let shipped = shipped();
    let shown = shown_keys(&shipped);
    let policy = parse(&shipped);
    let missing: Vec<&String> = policy
        .known_keys()
        .iter()
        .filter(|key| {
            // A service may say anything that stands in [defaults].
            let as_default = key.strip_prefix("service.").map(|key| format!("defaults.{key}"));
            !shown.contains(*key) && !as_default.is_some_and(|key| shown.contains(&key))
        })
        .collect();
    assert!(missing.is_empty(), "config/policy.toml does not show {missing:?}");
}

/// The keys that a policy shows, said or commented, each with the path of its table: `aws.*.region`.
fn shown_keys(text: &str) -> BTreeSet<String> {
    let mut table = String::new();
    let mut keys = BTreeSet::new();
    for line in text.lines() {
        let line = line.trim_start().trim_start_matches('#').trim_start();
        if line.starts_with('[') {
            let path = line.trim_matches(['[', ']']);
            let parts: Vec<&str> = path.split('.').collect();
            table = match parts.as_slice() {
                ["service", ..] | [_] => path.to_owned(),
                [group, _name, ..] => format!("{group}.*"),
                [] => continue,
            };
            keys.insert(parts[0].to_owned());
            keys.insert(table.clone());
            continue;
        }
        let Some((key, value)) = line.split_once('=') else { continue };
        let key = key.trim();
        if key.is_empty() || !key.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_') {
            continue;
        }
        let path = if table.is_empty() { key.to_owned() } else { format!("{table}.{key}") };
        if value.trim_start().starts_with('{') {
            for inner in value.trim().trim_matches(['{', '}']).split(',').filter_map(|pair| pair.split_once('=')) {
                keys.insert(format!("{path}.{}", inner.0.trim()));
            }
        }
        keys.insert(path);
    }
    keys
}
