use super::*;

/// What is said about a text that this reader reads, or nothing.
fn said(text: &str, reader: impl FnOnce(&mut Table<'_>)) -> String {
    match read(text, "p.toml", reader) {
        Ok(()) => String::new(),
        Err(report) => report.to_string(),
    }
}

#[test]
fn every_mistake_of_a_file_comes_out_in_one_run() {
    let text = "every = 30d\nsoak = \"24\"\nprobes = \"3\"\nnoise = 1\n";
    let report = said(text, |table| {
        table.duration("every", Zero::Refused);
        table.duration("soak", Zero::Refused);
        table.integer("probes", 1..=100, 3);
    });
    let expected = r#"p.toml:1:9: a text stands here without quotes
 1 | every = 30d
   |         ^^^
help: put it in quotes: "..."

p.toml:2:8: `soak` has no unit: `24`
 2 | soak = "24"
   |        ^^^^
help: write one number and one unit: "90d", "12h", "5m", "30s" or "500ms"

p.toml:3:10: `probes` is a text, and must be a whole number from 1 to 100
 3 | probes = "3"
   |          ^^^
help: write `probes = 3`, without quotes

p.toml:4:1: unknown key `noise` in the policy
 4 | noise = 1
   | ^^^^^
help: keys known here are `every`, `soak`, `probes`

4 mistakes in p.toml
"#;
    assert_eq!(report, expected);
}

#[test]
fn reading_goes_on_behind_a_line_that_stops_the_parser() {
    let report = said("a 1\nb: 2\n[t]\nc = 3\nd\n", |table| {
        let mut t = table.table("t").expect("the table is there");
        assert_eq!(t.integer("c", 0..=9, 0), 3);
    });
    assert!(report.contains("p.toml:1:3: a key stands here without a value"), "{report}");
    assert!(report.contains("p.toml:2:2: a `:` stands where `=` belongs"), "{report}");
    assert!(report.contains("p.toml:5:2: a key stands here without a value"), "{report}");
    assert!(report.ends_with("3 mistakes in p.toml\n"), "{report}");
}

#[test]
fn a_key_that_may_stand_in_a_broken_part_is_not_called_missing() {
    let report = said("name\n", |table| {
        table.name("name");
        table.text("user");
    });
    assert!(report.ends_with("1 mistake in p.toml\n"), "{report}");
}

#[test]
fn a_missing_key_is_reported_at_the_head_of_its_table() {
    let report = said("\n[arcgis.prod]\n", |table| {
        let mut arcgis = table.table("arcgis").expect("the table is there");
        for (name, _, mut deployment) in arcgis.named_tables() {
            assert_eq!(name, "prod");
            assert_eq!(deployment.text("username"), None);
        }
    });
    assert!(
        report.starts_with(
            "p.toml:2:1: `username` is missing in [arcgis.prod]\n 2 | [arcgis.prod]\n   | ^^^^^^^^^^^^^\nhelp: add `username = \"...\"`\n"
        ),
        "{report}"
    );
}

#[test]
fn a_literal_secret_is_refused_and_not_shown() {
    for text in [
        "password = \"hunter2-and-more\"",
        "password = hunter2-and-more",
        "password = { value = \"hunter2-and-more\" }",
        "password = { env = \"hunter2-and-more\" }",
        "password = { credential = \"x/hunter2-and-more\" }",
        "password = [\"hunter2-and-more\"]",
        "password = { file = [\"hunter2-and-more\"] }",
        "pasword = \"hunter2-and-more\"",
        "passphrase = \"hunter2-and-more\"",
        "password = \"hunter2-and-more",
        "password = \"\"\"hunter2-and-more",
        "password = \"hunter2-and-more\" \"hunter2-and-more\"",
        "password = { env = \"A\", file = \"/b\", x = \"hunter2-and-more\" }",
    ] {
        let report = said(text, |table| assert_eq!(table.secret("password"), None));
        assert!(!report.contains("hunter2") && report.contains("help: "), "{text}\n{report}");
    }
    let report = said("seal_key = 'hunter2-and-more'", |table| assert_eq!(table.secret("seal_key"), None));
    assert!(report.contains("seal_key = '***'"), "{report}");
}

#[test]
fn a_misspelt_secret_is_not_shown_even_if_its_name_sounds_harmless() {
    let report = said("sealky = \"hunter2-and-more\"", |table| {
        table.secret("seal_key");
    });
    assert!(report.contains("sealky = \"***\"") && report.contains("did you mean `seal_key`?"), "{report}");
}

#[test]
fn a_secret_reference_is_read_and_remembered_with_its_place() {
    let source = Source::new("[daemon]\nseal_key = { credential = \"seal.key\" }\n", "p.toml");
    let document = Document::parse(&source);
    let mut root = document.root();
    let mut daemon = root.table("daemon").expect("the table is there");
    assert_eq!(daemon.secret("seal_key"), Some(SecretRef::Credential("seal.key".into())));
    drop((daemon, root));
    let findings = document.finish().expect("nothing is wrong");
    assert_eq!(findings.secrets[0].key, "seal_key in [daemon]");
    assert_eq!(findings.secrets[0].at, "p.toml:2:12");
    assert!(findings.known.contains("daemon.seal_key"));
}

#[test]
fn addresses_are_https_or_loopback_and_carry_nothing_else() {
    let url = |text: &str| read(&format!("u = {text:?}"), "p", |table| table.url("u"));
    assert_eq!(
        url("https://GIS.example.com:443/arcgis/admin/"),
        Ok(Some("https://gis.example.com/arcgis/admin".into()))
    );
    for loopback in ["http://127.0.0.1:7443", "http://localhost:1", "http://[::1]:1/x"] {
        assert_eq!(url(loopback), Ok(Some(loopback.into())));
    }
    for (bad, why) in [
        ("http://gis.example.com", "without TLS"),
        ("http://localhost.example.com", "without TLS"),
        ("gis.example.com/arcgis", "no scheme"),
        ("localhost:8080", "no scheme"),
        ("ftp://x/", "scheme `ftp`"),
        ("https://u:hunter2@x/", "user name or password"),
        ("https://x/?token=hunter2", "query"),
        ("https://x/#y", "fragment"),
        ("https://", "not an address"),
    ] {
        let report = url(bad).expect_err(bad).to_string();
        assert!(report.contains(why) && !report.contains("hunter2"), "{report}");
    }
}

#[test]
fn a_proxy_may_be_plain_http_and_a_health_address_may_have_a_query() {
    assert_eq!(read("p = 'http://proxy:3128/'", "p", |table| table.proxy("p")), Ok(Some("http://proxy:3128".into())));
    assert_eq!(
        read("h = 'https://x/y?f=json'", "p", |table| table.url_with_query("h")),
        Ok(Some("https://x/y?f=json".into()))
    );
    let report = said("h = 'https://x/y?token=hunter2'", |table| {
        table.url_with_query("h");
    });
    assert!(report.contains("(`token`)") && !report.contains("hunter2"), "{report}");
}

#[test]
fn a_single_text_stands_for_a_list() {
    assert_eq!(read("w = 'a'", "p", |table| table.texts("w")), Ok(Some(vec!["a".into()])));
    assert_eq!(read("w = ['a', 'b']", "p", |table| table.texts("w")), Ok(Some(vec!["a".into(), "b".into()])));
    let report = said("w = ['a', 1, 'b', '']", |table| {
        assert_eq!(table.texts("w"), Some(vec!["a".into(), "b".into()]));
    });
    assert!(report.contains("p.toml:1:11: `w` holds a number") && report.contains("p.toml:1:19: `w` holds an empty"));
}

#[test]
fn a_word_out_of_a_list_is_suggested() {
    let choice = |text| said(text, |table| assert_eq!(table.choice("c", &["alert", "push"]), None));
    assert!(choice("c = 'alrt'").contains("help: did you mean `alert`?"));
    assert!(choice("c = 'wait'").contains("help: one of `alert`, `push`"));
    assert_eq!(read("c = 'push'", "p", |table| table.choice("c", &["alert", "push"])), Ok(Some("push")));
}

#[test]
fn names_are_short_and_small() {
    for good in ["a", "0", "prod-object-store", &"a".repeat(63)] {
        assert!(is_name(good), "{good}");
    }
    for bad in ["", "-a", "A", "a_b", "a b", "ä", &"a".repeat(64)] {
        assert!(!is_name(bad), "{bad}");
    }
}

#[test]
fn zero_is_refused_where_it_makes_no_sense() {
    assert!(said("d = '0s'", |t| assert_eq!(t.duration("d", Zero::Refused), None)).contains("`d` must not be zero"));
    assert_eq!(read("d = '0s'", "p", |t| t.duration("d", Zero::Allowed)), Ok(Some(Duration::ZERO)));
    assert!(said("d = 30", |t| assert_eq!(t.duration("d", Zero::Allowed), None)).contains("write `d = \"30d\"`"));
}

#[test]
fn lists_of_tables_are_read_with_their_own_heads() {
    let report = said("[[service]]\nname = 'a'\n\n[[service]]\n", |table| {
        for mut service in table.tables("service") {
            service.name("name");
        }
    });
    assert!(report.starts_with("p.toml:4:1: `name` is missing in [[service]]"), "{report}");
}

proptest::proptest! {
    #[test]
    fn no_text_upsets_the_reader(text in "[a-c =\"'#\\[\\]{},.\\\\\n:/@é0-9]{0,80}") {
        let _ = read(&text, "p", |table| {
            table.text("a");
            table.secret("b");
            for mut item in table.tables("c") {
                item.url("a");
                item.duration("b", Zero::Refused);
                item.texts("c");
            }
        });
    }

    #[test]
    fn a_quoted_secret_never_shows(
        secret in "[A-Za-z0-9/+]{20,40}",
        before in "[a-z =\"#\\[\\]{},\n]{0,10}",
        after in "[a-z =\"'#\\[\\]{},\n]{0,20}",
    ) {
        // At the beginning of a line, whatever stands above and behind it, unless a long text or a list swallows the line.
        let text = format!("{before}\npassword = \"{secret}\"{after}");
        if let Err(report) = read(&text, "p", |table| { table.secret("password"); }) {
            proptest::prop_assert!(!report.to_string().contains(&secret), "{}", report);
        }
    }
}
