//! A kind of issuer or target is complete: a file, a line in `KINDS`, a test module, a section in `config/policy.toml`.

use std::path::Path;

use rekeyd::{issuer, target};

#[test]
fn every_issuer_has_its_file_its_tests_and_its_section() {
    for kind in issuer::KINDS {
        complete("issuer", kind.name);
    }
}

#[test]
fn every_target_has_its_file_its_tests_and_its_section() {
    for kind in target::KINDS {
        complete("target", kind.name);
    }
}

#[test]
fn every_file_has_its_line() {
    let lines = |names: Vec<&str>| names.into_iter().map(|name| name.replace('-', "_")).collect::<Vec<_>>();
    let issuers = lines(issuer::KINDS.iter().map(|kind| kind.name).collect());
    let targets = lines(target::KINDS.iter().map(|kind| kind.name).collect());
    let mut files = rooms("src/issuer");
    files.retain(|room| !SHARED.contains(&room.as_str()));
    assert_eq!((files, rooms("src/target")), (issuers, targets));
}

/// Rooms that are no kind: what the kinds of one provider, the stores of one language, or most accounts have in common.
const SHARED: [&str; 3] = ["azure", "reach", "s3"];

fn complete(room: &str, kind: &str) {
    let name = kind.replace('-', "_");
    let one_of = |paths: [String; 2]| paths.iter().any(|path| Path::new(path).exists());
    assert!(one_of([format!("src/{room}/{name}.rs"), format!("src/{room}/{name}/mod.rs")]), "{kind} has no file");
    assert!(one_of([format!("tests/it/{name}.rs"), format!("tests/it/{name}/mod.rs")]), "{kind} has no test module");
    let modules = include_str!("main.rs");
    assert!(modules.lines().any(|line| line == format!("mod {name};")), "the test module of {kind} is never run");
    let policy = include_str!("../../config/policy.toml");
    assert!(policy.contains(&format!("\"{kind}\"")), "config/policy.toml says nothing of {kind}");
}

/// The files and folders of a room, `mod.rs` apart.
fn rooms(folder: &str) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("the sources are there");
    let names = entries.map(|entry| entry.expect("a readable folder").file_name().to_string_lossy().into_owned());
    let mut names: Vec<_> =
        names.map(|name| name.trim_end_matches(".rs").to_owned()).filter(|name| name != "mod").collect();
    names.sort();
    names
}
