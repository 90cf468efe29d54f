//! The secrets that systemd lends: from directories of root's, plain and encrypted to this machine, read at the start.

use std::io::Read;

use base64::Engine as _;

use crate::stage::{PolicyText, SECRETS, SERVICE, story};

#[test]
fn encrypted_secrets_are_read_the_seal_key_too() {
    story(|stage| {
        let mut bytes = [0; 32];
        std::fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes)).expect("it is there");
        let seal_key = base64::engine::general_purpose::STANDARD.encode(bytes);
        stage.also_secret(&seal_key);
        for (name, value) in [("seal.key", seal_key.as_str()), ("aws-secret", &stage.aws.admin().1)] {
            let made = stage.machine.run_with(
                &[
                    "systemd-creds",
                    "encrypt",
                    &format!("--name=encrypted_{name}"),
                    "-",
                    &format!("{SECRETS}.encrypted/{name}"),
                ],
                value,
            );
            assert_eq!(made.code, Some(0), "{made:?}");
        }
        stage.machine.must(&["rm", &format!("{SECRETS}/aws-secret")]);
        stage.policy(&PolicyText {
            daemon: r#"seal_key = { credential = "seal.key" }"#.into(),
            ..PolicyText::default()
        });
        stage.begin();
        stage.rotate();
        stage.assert_one_live_key(1);
        // The seal key is the one that was lent: none was made, and without it the journal is not opened.
        let made = stage.machine.must(&["ls", "/var/lib/rekeyd"]).out;
        assert!(!made.contains("seal") && !made.contains(".key"), "{made}");
        stage.machine.must(&["rm", &format!("{SECRETS}.encrypted/seal.key")]);
        let without = stage.machine.run(&["systemctl", "restart", "rekeyd"]);
        assert_ne!(without.code, Some(0), "{without:?}");
        assert!(stage.log().contains("seal.key"), "{}", stage.log());
    });
}

#[test]
fn a_secret_that_cannot_be_lent_keeps_the_unit_from_starting() {
    story(|stage| {
        let file = format!("{SECRETS}.encrypted/aws-secret");
        let words = ["systemd-creds", "encrypt", "--name=another", "-", &file];
        assert_eq!(stage.machine.run_with(&words, &stage.aws.admin().1).code, Some(0));
        let fails = |what: &str| {
            assert_ne!(stage.machine.run(&["systemctl", "start", "rekeyd"]).code, Some(0), "{what}");
            assert_eq!(stage.machine.show("rekeyd", "ExecMainStatus"), "243", "{what}");
            stage.machine.must(&["systemctl", "stop", "rekeyd"]);
        };
        fails("a file encrypted under another name");
        stage.machine.must(&["rm", "-r", &format!("{SECRETS}.encrypted")]);
        fails("a folder that is missing");
        // As docs/systemd.md says.
        stage.machine.must(&["systemd-tmpfiles", "--create", "rekeyd.conf"]);
        stage.begin();
        stage.rotate();
    });
}

#[test]
fn a_changed_secret_is_taken_by_a_restart_and_the_message_says_so() {
    story(|stage| {
        stage.begin();
        stage.rotate();
        let (password, logins) = ("another-password-of-the-rotator", stage.arcgis.logins().len());
        stage.also_secret(password);
        stage.arcgis.set_password(password);
        stage.arcgis.expire_tokens();
        stage.secret("arcgis-prod", password);
        // systemd lends what was there at the start.
        stage.machine.must(&["systemctl", "reload", "rekeyd"]);
        // The next look at the key in use needs a login.
        let status =
            stage.machine.wait("the halt", |_| Some(stage.status()).filter(|status| status["state"] == "halted"));
        assert_eq!(status["reason"], "login-refused", "{status}");
        let said = format!("{} {}", status["message"], status["next_command"]);
        assert!(said.contains("systemctl restart rekeyd"), "{said}");
        assert_eq!(stage.arcgis.logins()[logins..], [false], "the old one was tried more than once");

        stage.machine.must(&["systemctl", "restart", "rekeyd"]);
        let retried = stage.rekeyd(&["retry", SERVICE]);
        assert_eq!(retried.code, Some(0), "{retried:?}");
        stage.machine.wait("the end of the halt", |_| (stage.status()["state"] == "idle").then_some(()));
        stage.rotate();
        stage.assert_one_live_key(2);
    });
}

#[test]
fn a_secret_that_is_missing_is_named_with_the_place_it_belongs_to() {
    story(|stage| {
        stage.machine.must(&["rm", &format!("{SECRETS}/aws-secret")]);
        stage.machine.must(&["systemctl", "start", "rekeyd"]);
        let adopted = stage.rekeyd(&["adopt", SERVICE, &stage.first_key.0]);
        let said = format!("{adopted:?} {} {}", stage.status(), stage.log());
        assert!(said.contains(&format!("{SECRETS}/aws-secret")), "{said}");
        stage.secret("aws-secret", &stage.aws.admin().1);
        stage.machine.must(&["systemctl", "restart", "rekeyd"]);
        stage.adopt();
        stage.rotate();
    });
}
