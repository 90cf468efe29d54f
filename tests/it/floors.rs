//! The house keeps its floors: no room imports from a floor above its own (DESIGN 4).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Every room and its floor, the lowest first.
const FLOORS: &[&[&str]] = &[
    &["model", "rotation"],
    &["ports", "schedule", "table"],
    &["net", "journal", "seal", "metrics"],
    &["issuer", "target"],
    &["engine", "policy"],
    &["daemon"],
    &["cli", "main"],
];

/// Rooms of one floor that may not see each other: issuers and targets are strangers.
const STRANGERS: &[(&str, &str)] = &[("issuer", "target"), ("target", "issuer"), ("policy", "engine")];

#[test]
fn no_room_imports_from_a_higher_floor() {
    let wrong = upward(&sources(Path::new("src")));
    assert!(wrong.is_empty(), "upward imports:\n{}", wrong.join("\n"));
}

#[test]
fn every_room_has_a_floor() {
    for (file, _) in sources(Path::new("src")) {
        let room = room_of(&file);
        assert!(room == "lib" || floor(&room).is_some(), "{} stands on no floor", file.display());
    }
}

#[test]
fn an_upward_import_is_seen() {
    let planted = |file: &str, text: &str| upward(&BTreeMap::from([(PathBuf::from(file), text.to_owned())]));
    assert_eq!(planted("src/rotation/x.rs", "use crate::journal::Journal;").len(), 1);
    assert_eq!(planted("src/issuer/x.rs", "use crate::{model, engine::Engine};").len(), 1);
    assert_eq!(planted("src/issuer/x.rs", "fn f() { crate::target::push() }").len(), 1);
    assert_eq!(planted("src/issuer/x.rs", "// crate::engine is not for us\nuse crate::net;").len(), 0);
}

#[test]
fn the_lab_imports_nothing_of_rekeyd() {
    for (file, text) in sources(Path::new("tests/lab")) {
        assert!(!text.contains("rekeyd::"), "{} imports the product", file.display());
    }
}

fn upward(files: &BTreeMap<PathBuf, String>) -> Vec<String> {
    let mut wrong = Vec::new();
    for (file, text) in files {
        let room = room_of(file);
        let Some(own) = floor(&room) else { continue };
        for (number, line) in text.lines().enumerate() {
            for seen in imported(line) {
                let above = floor(&seen).is_some_and(|other| other > own);
                if above || STRANGERS.contains(&(room.as_str(), seen.as_str())) {
                    wrong.push(format!("{}:{}: {room} imports {seen}", file.display(), number + 1));
                }
            }
        }
    }
    wrong
}

/// The rooms a line names behind `crate::`, in a brace list too.
fn imported(line: &str) -> Vec<String> {
    let code = line.split("//").next().unwrap_or_default();
    let mut rooms = Vec::new();
    for after in code.split("crate::").skip(1) {
        let list = after.strip_prefix('{').map_or(vec![after], |list| list.split(',').collect());
        for item in list {
            let name: String = item.trim().chars().take_while(|char| char.is_alphanumeric() || *char == '_').collect();
            rooms.push(name);
        }
    }
    rooms
}

fn floor(room: &str) -> Option<usize> {
    FLOORS.iter().position(|floor| floor.contains(&room))
}

fn room_of(file: &Path) -> String {
    let inside = file.strip_prefix("src").unwrap_or(file);
    let first = inside.components().next().map(|part| part.as_os_str().to_string_lossy().into_owned());
    first.unwrap_or_default().trim_end_matches(".rs").to_owned()
}

fn sources(folder: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder).expect("the sources are there") {
        let path = entry.expect("a readable folder").path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.insert(path.clone(), std::fs::read_to_string(&path).expect("a readable file"));
        }
    }
    found
}
