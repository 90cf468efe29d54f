//! The page "What happens if…" names a proof for each of its claims. Here each of them is looked for, so that a test that is renamed
//! or removed takes its claim along; and the page's halts are held against the product's. The page about ArcGIS is held the same way.
//!
//! A proof is written `file` · `name`, more names of the same file behind further dots. What a name is depends on the file: a strike
//! `at` a request in the simulator's table of strikes, the name of a planted mistake, an act, a story or a promise elsewhere in the
//! simulator, and a test everywhere else.

use std::collections::BTreeSet;

use rekeyd::model::Reason;

const PAGE: &str = "docs/what-happens-if.md";
/// What rekeyd says to ArcGIS, with the source and the test of each.
const ARCGIS: &str = "docs/arcgis.md";
/// The same for Azure.
const AZURE: &str = "docs/azure.md";
/// The same for IBM Cloud Object Storage.
const IBM: &str = "docs/ibm.md";
/// Which stores speak IAM, and what their options change.
const STORES: &str = "docs/stores.md";
/// The same for Google.
const GOOGLE: &str = "docs/google.md";
/// The same for F5 Distributed Cloud.
const F5: &str = "docs/f5.md";
/// The unit, its sandbox and the package.
const SYSTEMD: &str = "docs/systemd.md";
const STRIKES: &str = "tests/sim/faults.rs";

/// What a claim rests on.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Proof<'p> {
    file: &'p str,
    name: &'p str,
    /// What a strike hits.
    at: Option<&'p str>,
}

#[test]
fn every_proof_on_the_page_exists() {
    let page = read(PAGE);
    let named: BTreeSet<Proof<'_>> = proofs(&page).into_iter().collect();
    let wrong: Vec<String> = named.iter().filter_map(Proof::flaw).collect();
    assert!(wrong.is_empty(), "{PAGE} names what is not there:\n{}", wrong.join("\n"));
    assert!(named.len() >= 40, "only {} proofs were found on {PAGE}", named.len());
}

#[test]
fn every_request_to_arcgis_names_a_test_that_exists() {
    let page = read(ARCGIS);
    let wrong: Vec<String> = proofs(&page).iter().filter_map(Proof::flaw).collect();
    assert!(wrong.is_empty(), "{ARCGIS} names what is not there:\n{}", wrong.join("\n"));
    let table = page.split("\n## Every request").nth(1).and_then(|rest| rest.split("\n## ").next()).expect("its table");
    let rows: Vec<&str> = table.lines().filter(|line| line.starts_with("| ")).skip(1).collect();
    assert!(rows.len() >= 20, "only {} requests were found on {ARCGIS}", rows.len());
    for row in rows {
        assert_eq!(row.matches(" |").count(), 4, "{ARCGIS} has a row of another shape:\n{row}");
        assert!(!proofs(row).is_empty(), "{ARCGIS} has a row without a test:\n{row}");
    }
    for question in 'a'..='k' {
        assert!(page.contains(&format!("\n| ({question}) ")), "{ARCGIS} lacks the open question {question}");
    }
}

#[test]
fn every_table_about_a_cloud_names_tests_that_exist() {
    for (page, least) in [(AZURE, 30), (GOOGLE, 20)] {
        let text = read(page);
        let named: BTreeSet<Proof<'_>> = proofs(&text).into_iter().collect();
        let wrong: Vec<String> = named.iter().filter_map(Proof::flaw).collect();
        assert!(wrong.is_empty(), "{page} names what is not there:\n{}", wrong.join("\n"));
        assert!(named.len() >= least, "only {} proofs were found on {page}", named.len());
        let requests =
            text.split("\n## Every request").nth(1).and_then(|rest| rest.split("\n## ").next()).expect("its tables");
        for table in requests.split("\n### ").skip(1) {
            assert!(table.contains("\nTests: `"), "{page} has a table without tests:\n{table}");
        }
    }
}

/// Each operation of its API has a row, and each row its tests.
#[test]
fn every_request_to_ibm_names_tests_that_exist() {
    let page = read(IBM);
    let wrong: Vec<String> = proofs(&page).iter().filter_map(Proof::flaw).collect();
    assert!(wrong.is_empty(), "{IBM} names what is not there:\n{}", wrong.join("\n"));
    let table = page.split("\n## Every request").nth(1).expect("its table");
    let rows: Vec<&str> = table.lines().filter(|line| line.starts_with("| ")).skip(1).collect();
    for operation in ["Create", "List", "Show", "Update", "Delete"] {
        assert!(rows.iter().any(|row| row.starts_with(&format!("| **{operation}**: "))), "{IBM} lacks {operation}");
    }
    for row in rows {
        assert_eq!(row.matches(" |").count(), 6, "{IBM} has a row of another shape:\n{row}");
        assert!(!proofs(row).is_empty(), "{IBM} has a row without a test:\n{row}");
    }
}

#[test]
fn the_page_about_stores_names_tests_that_exist() {
    let page = read(STORES);
    let named: BTreeSet<Proof<'_>> = proofs(&page).into_iter().collect();
    let wrong: Vec<String> = named.iter().filter_map(Proof::flaw).collect();
    assert!(wrong.is_empty(), "{STORES} names what is not there:\n{}", wrong.join("\n"));
    assert!(named.len() >= 10, "only {} proofs were found on {STORES}", named.len());
}

#[test]
fn every_section_about_systemd_names_tests_that_exist() {
    let page = read(SYSTEMD);
    let wrong: Vec<String> = proofs(&page).iter().filter_map(Proof::flaw).collect();
    assert!(wrong.is_empty(), "{SYSTEMD} names what is not there:\n{}", wrong.join("\n"));
    let sections: Vec<&str> = page.split("\n## ").skip(1).collect();
    assert!(sections.len() >= 8, "only {} sections were found on {SYSTEMD}", sections.len());
    for section in sections {
        let said = section.contains("\nTest: `") || section.contains("\nTests: `");
        assert!(said && !proofs(section).is_empty(), "{SYSTEMD} claims without a test:\n{section}");
    }
}

/// Every operation of the family, and every code that F5 documents for them.
#[test]
fn every_operation_and_every_code_of_f5_names_a_test_that_exists() {
    let page = read(F5);
    let wrong: Vec<String> = proofs(&page).iter().filter_map(Proof::flaw).collect();
    assert!(wrong.is_empty(), "{F5} names what is not there:\n{}", wrong.join("\n"));
    let rows = |heading: &str, columns: usize| -> Vec<String> {
        let table = page.split(heading).nth(1).and_then(|rest| rest.split("\n## ").next()).expect("its table");
        let rows: Vec<String> =
            table.lines().filter(|line| line.starts_with("| ")).skip(1).map(str::to_owned).collect();
        for row in &rows {
            assert_eq!(row.matches(" |").count(), columns, "{F5} has a row of another shape:\n{row}");
            assert!(!proofs(row).is_empty(), "{F5} has a row without a test:\n{row}");
        }
        rows
    };
    let requests = rows("\n## Every request", 5);
    for name in ["Create", "List", "Get", "Replace", "Renew", "Activate", "Revoke", "Bulk revoke", "Who"] {
        let row = requests.iter().filter(|row| row.starts_with(&format!("| {name}: "))).count();
        assert_eq!(row, 1, "{F5} and the operation {name}");
    }
    let codes = rows("\n## Every code", 4);
    for code in ["200", "401", "403", "404", "409", "429", "500", "503", "504"] {
        assert_eq!(codes.iter().filter(|row| row.starts_with(&format!("| {code} "))).count(), 1, "{F5} and {code}");
    }
}

/// Each trap of the checklist by its number, once.
#[test]
fn every_trap_has_its_test() {
    let traps = read("tests/it/arcgis/traps.rs");
    for number in 1..=20 {
        let count = traps.matches(&format!("async fn trap_{number:02}_")).count();
        assert_eq!(count, 1, "trap {number}");
    }
}

#[test]
fn every_claim_has_a_proof_or_says_that_it_has_none() {
    let page = read(PAGE);
    let claims: Vec<&str> = page.split("\n\n").filter(|paragraph| paragraph.trim_start().starts_with("**")).collect();
    assert!(claims.len() >= 40, "only {} claims were found on {PAGE}", claims.len());
    for claim in claims {
        let proven = claim.contains("\nProof") && !proofs(claim).is_empty();
        assert!(proven || claim.contains("No test"), "{PAGE} claims without a proof:\n{claim}");
    }
}

#[test]
fn every_halt_on_the_page_is_one_and_none_is_left_out() {
    let (page, reasons) = (read(PAGE), reasons());
    assert!(reasons.len() > 20 && reasons.iter().all(|word| is_reason(word)), "{reasons:?}");
    let table = page.split("\n## Every halt").nth(1).and_then(|rest| rest.split("\n## ").next()).expect("its table");
    let listed: BTreeSet<String> = table.lines().filter_map(|row| quoted(row.strip_prefix("| ")?)).collect();
    assert_eq!(listed, reasons, "the table of halts on {PAGE}, and the product's");
    let text = page.split_whitespace().collect::<Vec<_>>().join(" ");
    let told: BTreeSet<String> = text.split("halts with ").skip(1).filter_map(quoted).collect();
    assert!(told.len() > 20, "only {told:?}");
    assert!(told.is_subset(&reasons), "{PAGE} tells of halts there are none of: {:?}", told.difference(&reasons));
}

#[test]
fn the_readme_links_the_page() {
    for page in [PAGE, ARCGIS, AZURE, F5, GOOGLE, IBM, STORES, SYSTEMD, "docs/places.md", "docs/commands.md"] {
        assert!(read("README.md").contains(&format!("({page})")), "{page}");
    }
}

/// A search that finds everything proves nothing.
#[test]
fn a_proof_that_is_not_there_is_seen() {
    let there = "`tests/it/docs.rs` · `the_readme_links_the_page` ·\n`a_proof_that_is_not_there_is_seen`; `tests/it/policy.rs` · \
                 `unknown_key`, `tests/sim/faults.rs` · `ReplyLost` at\n`Mint`";
    let found = proofs(there);
    assert_eq!(found.len(), 4, "{found:?}");
    assert_eq!(found[3], Proof { file: STRIKES, name: "ReplyLost", at: Some("Mint") });
    assert_eq!(found.iter().filter_map(Proof::flaw).collect::<Vec<_>>(), Vec::<String>::new());
    for planted in [
        "`tests/it/docs.rs` · `no_such_test`",
        "`tests/it/docs.rs` · `the_readme_links`",
        "`tests/it/docs.rs` · `read`",
        "`tests/it/nowhere.rs` · `the_readme_links_the_page`",
        "`tests/it/policy.rs` · `unknown_ke`",
        "`tests/sim/random.rs` · `Earthquake`",
        "`tests/sim/mistakes/table.rs` · `everything is in order`",
        "`tests/sim/faults.rs` · `ReplyLost`",
        "`tests/sim/faults.rs` · `ReplyLost` at `List`",
    ] {
        let found = proofs(planted);
        assert!(found.len() == 1 && found[0].flaw().is_some(), "{planted}: {found:?}");
    }
    assert!(!is_reason("no-such-halt"));
}

impl Proof<'_> {
    /// What is wrong with it, where something is.
    fn flaw(&self) -> Option<String> {
        let Ok(text) = std::fs::read_to_string(self.file) else {
            return Some(format!("there is no file {}", self.file));
        };
        let stands = match self.at {
            Some(request) => self.file == STRIKES && is_struck(&text, self.name, request),
            None if self.file == STRIKES => false,
            None if self.file.starts_with("tests/sim/") && self.name.contains(' ') => {
                text.contains(&format!("\"{}\"", self.name))
            }
            None if self.file.starts_with("tests/sim/") => has_word(&text, self.name),
            None => is_test(&text, self.name) || (self.file == "tests/it/policy.rs" && is_story(&text, self.name)),
        };
        (!stands).then(|| format!("{self:?}"))
    }
}

/// The proofs named in a text. Between two ticks stands code, at every other place.
fn proofs(text: &str) -> Vec<Proof<'_>> {
    let parts: Vec<&str> = text.split('`').collect();
    let (mut found, mut file) = (Vec::new(), "");
    for place in (1..parts.len().saturating_sub(2)).step_by(2) {
        if parts[place].ends_with(".rs") {
            file = parts[place];
        }
        if parts[place + 1].trim() == "·" {
            let is_at = parts.get(place + 3).is_some_and(|between| between.trim() == "at");
            let at = if is_at { parts.get(place + 4).copied() } else { None };
            found.push(Proof { file, name: parts[place + 2], at });
        }
    }
    found
}

/// Whether there is a function of this name, marked as a test.
fn is_test(text: &str, name: &str) -> bool {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    lines.windows(2).any(|pair| {
        let head = pair[1].strip_prefix("async ").unwrap_or(pair[1]);
        let is_it =
            head.strip_prefix("fn ").and_then(|head| head.strip_prefix(name)).is_some_and(|rest| rest.starts_with('('));
        is_it && pair[0].starts_with("#[") && pair[0].contains("test")
    })
}

/// Whether a story of this name stands in the list of broken policies: a macro makes a test of each.
fn is_story(text: &str, name: &str) -> bool {
    let list = text.split("\nstories! {").nth(1).and_then(|rest| rest.split('}').next()).unwrap_or_default();
    list.split_whitespace().any(|story| story == name)
}

/// Whether the simulator strikes this request in this way.
fn is_struck(text: &str, strike: &str, request: &str) -> bool {
    let table =
        text.split("pub fn strikes").nth(1).and_then(|rest| rest.split("impl Strike").next()).unwrap_or_default();
    let mut arms = table.split(']').filter_map(|arm| arm.split_once("=>"));
    arms.any(|(requests, strikes)| has_word(requests, request) && has_word(strikes, strike))
}

fn has_word(text: &str, word: &str) -> bool {
    text.split(|letter: char| !letter.is_alphanumeric() && letter != '_').any(|other| other == word)
}

/// The words of all halts, as the product writes them.
fn reasons() -> BTreeSet<String> {
    let model = read("src/model/mod.rs");
    let written = model.split("impl Reason {").nth(1).and_then(|rest| rest.split("\n}\n").next()).expect("as_str");
    let arms = written.lines().filter_map(|line| line.trim().strip_prefix("Self::"));
    arms.filter_map(|arm| arm.split('"').nth(1)).map(str::to_owned).collect()
}

fn is_reason(word: &str) -> bool {
    serde_json::from_value::<Reason>(word.into()).is_ok_and(|reason| reason.as_str() == word)
}

/// What stands between ticks at the beginning of a text.
fn quoted(text: &str) -> Option<String> {
    text.strip_prefix('`')?.split('`').next().map(str::to_owned)
}

fn read(file: &str) -> String {
    std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{file}: {error}"))
}
