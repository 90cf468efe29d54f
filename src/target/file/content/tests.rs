//! What stands in a file, written and read back; the shell here is a real one.

use super::*;
use crate::model::KeyId;

const ODD: &str = r#"a b'c"d\e`f$g$(h)#i;j=k&l%m~é\n"#;

fn all(secret: &str) -> Vec<Material> {
    let id = || KeyId::new("key1@2026-11-22");
    let secret = || Secret::new(secret.to_owned());
    let name = || "gisstore".to_owned();
    let principal = |host: Option<&str>| Material::ServicePrincipal {
        id: id(),
        tenant: "t".to_owned(),
        client: "c".to_owned(),
        secret: secret(),
        authority_host: host.map(str::to_owned),
        storage_account: host.map(|_| name()),
    };
    vec![
        Material::AccessKey { id: id(), secret: secret() },
        Material::StorageAccountKey { id: id(), account: name(), key: secret() },
        Material::SasToken { id: id(), account: name(), token: secret() },
        principal(None),
        principal(Some("https://login.chinacloudapi.cn")),
        Material::HmacKey { id: id(), secret: secret() },
        Material::CosmosAccountKey { id: id(), account: name(), key: secret() },
        Material::ServiceBusKey { id: id(), key_name: name(), key: secret() },
        Material::ApiToken { id: id(), token: secret() },
        Material::ApiCertificate { id: id(), pkcs12: secret(), password: Secret::new(name()) },
    ]
}

#[test]
fn every_kind_comes_back_as_it_was_written() {
    for format in [Format::Json, Format::Env, Format::Raw] {
        for (secret, other) in [(ODD, "another"), ("0123456789abcdef+/==", "0123456789abcdee+/==")] {
            for (material, other) in all(secret).into_iter().zip(all(other)) {
                let Ok(bytes) = written(format, &material) else {
                    assert!(format == Format::Raw && needs_more_than_the_secret(material.kind()));
                    continue;
                };
                let content = read(format, &bytes).expect("it is ours");
                assert!(content.holds(&material) && !content.holds(&other), "{format:?} {material:?}");
                assert_eq!(content.secret().map(Secret::expose), Some(secret), "{format:?} {material:?}");
            }
        }
    }
}

#[test]
fn a_shell_reads_every_value_as_it_is() {
    for material in all(ODD) {
        let bytes = written(Format::Env, &material).expect("it fits");
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("key.env");
        std::fs::write(&file, &bytes[..]).expect("it can be written");
        for field in fields(&material) {
            let script = format!(". {}; printf %s \"${}\"", file.display(), field.env);
            let shell = std::process::Command::new("/bin/sh").args(["-c", &script]).output().expect("a shell");
            assert_eq!(String::from_utf8_lossy(&shell.stdout), field.value.as_str(), "{}", field.env);
        }
    }
}

#[test]
fn what_stands_in_the_file_is_plain_to_see() {
    let access = &all("s/cr+t")[0];
    let text = |format| String::from_utf8(written(format, access).expect("it fits").to_vec()).expect("it is text");
    assert_eq!(
        text(Format::Json),
        "{\n  \"key_id\": \"key1@2026-11-22\",\n  \"access_key_id\": \"key1@2026-11-22\",\n  \"secret_access_key\": \"s/cr+t\"\n}\n"
    );
    assert_eq!(
        text(Format::Env),
        "REKEYD_KEY_ID=\"key1@2026-11-22\"\nAWS_ACCESS_KEY_ID=\"key1@2026-11-22\"\nAWS_SECRET_ACCESS_KEY=\"s/cr+t\"\n"
    );
    let raw = written(Format::Raw, &all("s/cr+t")[2]).expect("a token is enough");
    assert_eq!(&raw[..], b"s/cr+t");
}

#[test]
fn a_line_cannot_hold_a_control_character() {
    let why = written(Format::Env, &all("a\nb")[0]).expect_err("a line ends there");
    assert_eq!(why, "secret_access_key has a control character, which no line of variables can hold");
}

#[test]
fn what_a_person_wrote_is_read_too() {
    let access = &all("s3cr3t")[0];
    for text in [
        "# gis\n\nAWS_ACCESS_KEY_ID=key1@2026-11-22\n  AWS_SECRET_ACCESS_KEY='s3cr3t'  \n",
        "AWS_SECRET_ACCESS_KEY=s3cr3t\nAWS_ACCESS_KEY_ID=\"key1@2026-11-22\"",
    ] {
        assert!(read(Format::Env, text.as_bytes()).expect("it is read").holds(access), "{text}");
    }
    let text = r#"{"secret_access_key":"s3cr3t","access_key_id":"key1@2026-11-22"}"#;
    assert!(read(Format::Json, text.as_bytes()).expect("it is read").holds(access));
    let other = text.replace("key1", "key2");
    let content = read(Format::Json, other.as_bytes()).expect("it is read");
    assert!(!content.holds(access), "another id with the same secret is another key");
    assert!(matches!(read(Format::Env, b" \n"), Ok(Content::Empty)));
    let raw = read(Format::Raw, b"token\r\n").expect("it is read");
    assert_eq!(raw.secret().map(Secret::expose), Some("token"));
}

#[test]
fn what_is_not_ours_is_not_taken_for_a_key() {
    for (format, text, what) in [
        (Format::Env, "root:x:0:0:root:/root:/bin/bash\n", "it is no file of variables"),
        (Format::Env, "AWS_ACCESS_KEY_ID=a b\n", "it is no file of variables"),
        (Format::Env, "AWS_ACCESS_KEY_ID=\"open\n", "it is no file of variables"),
        (Format::Env, "AWS_ACCESS_KEY_ID=\"$HOME\" x\n", "it is no file of variables"),
        (Format::Env, "PGHOST=db\nAWS_ACCESS_KEY_ID=a\n", "it also holds `PGHOST`, which would be lost"),
        (Format::Json, "[1]", "it is no JSON object of texts"),
        (Format::Json, "{\"access_key_id\":1}", "it is no JSON object of texts"),
        (Format::Json, "{\"region\":\"eu\"}", "it also holds `region`"),
        (Format::Raw, "one\ntwo\n", "it has several lines"),
    ] {
        let why = read(format, text.as_bytes()).expect_err("it is not ours");
        assert!(why.contains(what), "{text}: {why}");
    }
    assert!(read(Format::Json, b"\xff\xfe").is_err());
}

#[test]
fn the_manual_names_every_field() {
    let manual = include_str!("../../../../docs/places.md");
    for field in all("x").iter().flat_map(fields) {
        for name in [field.json, field.env] {
            assert!(manual.contains(&format!("`{name}`")), "docs/places.md says nothing of {name}");
        }
    }
}
