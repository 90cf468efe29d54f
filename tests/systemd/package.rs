//! The package: from its installation to the first rotation as README.md says it, upgraded, removed, installed again, purged; and the
//! tarball.

use crate::machine::Ran;
use crate::stage::{CLOUD_SERVICE, POLICY, SERVICE, Setting, Stage, package, story, story_in, tarball};
use crate::weather::{it_ends_with_the_same_key, push_begins};

const README: &str = include_str!("../../README.md");
/// Where somebody has the sources and made the package.
const SOURCES: &str = "/root/rekeyd";

#[test]
fn the_steps_of_the_readme_lead_from_the_package_to_the_first_rotation() {
    story_in(Setting { installed: false, ..Setting::default() }, |stage| {
        let steps = README.split("\n## Set it up\n").nth(1).expect("there is such a section");
        let steps = steps.split("\n#").next().expect("it ends somewhere");
        let mut done = Vec::new();
        for (language, text) in blocks(steps) {
            let name = step(stage, &language, &text);
            done.push(name);
        }
        // In this order, and nothing is left out.
        assert_eq!(done, ["build", "install", "password", "policy", "check", "start", "adopt", "rotate"]);
        let (id, _) = stage.arcgis.held_key(CLOUD_SERVICE).expect("it holds one");
        assert_ne!(id, stage.first_key.0);
        assert_eq!(stage.status()["current_key"], id.as_str());
        assert_eq!(stage.status()["rotations"]["verified"], 1);
        assert_eq!(stage.aws.mints(), 1);
        assert_eq!(stage.machine.show("rekeyd", "UnitFileState"), "enabled", "it starts with the machine");
    });
}

/// Does one step of the README as it stands there, with the names, places and secrets of the lab, and says which it is.
fn step(stage: &Stage, language: &str, text: &str) -> &'static str {
    let typed = |stdin: &str| {
        let lines = format!("cd {SOURCES}\n{text}").replace("AKIAIOSFODNN7EXAMPLE", &stage.first_key.0);
        let ran = stage.machine.run_with(&["sh", "-ec", &lines], stdin);
        assert_eq!(ran.code, Some(0), "{text}\n{ran:?}");
        ran
    };
    let first = text.lines().next().expect("it is not empty");
    match (language, first) {
        ("sh", "cargo build --release") => {
            // Cargo has built the program that is tested; the second line is run on the host, with that one.
            assert_eq!(text, "cargo build --release\nsystemd/package target/release/rekeyd\n");
            let deb = std::fs::read(package("")).expect("it was made");
            stage.machine.write(&format!("{SOURCES}/target/package/rekeyd_0.1.0_amd64.deb"), 0o644, &deb);
            "build"
        }
        ("sh", "apt install ./target/package/rekeyd_*.deb") => {
            typed("");
            assert_eq!(stage.machine.show("rekeyd", "ActiveState"), "inactive", "it was started without a service");
            "install"
        }
        ("sh", "install -m 600 /dev/stdin /etc/rekeyd/secrets/arcgis-prod") => {
            typed(&format!("{}\n", stage.password()));
            "password"
        }
        ("toml", "version = 1") => {
            // The machine's own role is a cloud's; here it is a key. A minute is half a second.
            let aws = stage.aws.endpoint();
            let account = format!(
                "region = \"us-east-1\"\nendpoint_url = \"{aws}\"\nsts_endpoint_url = \"{aws}\"\ns3_endpoint_url = \"{aws}\"\n\
                 access_key_id = \"{}\"\nsecret_access_key = {{ credential = \"aws-secret\" }}\n",
                stage.aws.admin().0
            );
            let mut policy = text.to_owned();
            for (there, here) in [
                ("region = \"us-east-1\"\n", account.as_str()),
                ("https://gis.example.com/arcgis/admin", &stage.arcgis.admin_url()),
                (
                    "[aws.main]",
                    &format!(
                        "[daemon]\nlisten = \"127.0.0.1:{}\"\n\n[defaults]\npropagation = \"500ms\"\nprobe_interval = \"100ms\"\n\n[aws.main]",
                        stage.port
                    ),
                ),
            ] {
                assert_eq!(policy.matches(there).count(), 1, "{there} in\n{policy}");
                policy = policy.replace(there, here);
            }
            stage.secret("aws-secret", &stage.aws.admin().1);
            stage.machine.write(POLICY, 0o644, policy.as_bytes());
            "policy"
        }
        ("sh", "rekeyd check") => {
            let Ran { out, .. } = typed("");
            assert!(out.contains(SERVICE), "{out}");
            "check"
        }
        ("sh", "systemctl start rekeyd") => {
            typed("");
            "start"
        }
        ("sh", first) if first.starts_with("rekeyd adopt ") => {
            typed("");
            "adopt"
        }
        ("sh", first) if first.starts_with("rekeyd rotate ") => {
            let Ran { out, .. } = typed("");
            assert!(out.contains("soaking"), "{out}");
            "rotate"
        }
        _ => panic!("README.md has a step that this test does not know; do it here too:\n```{language}\n{text}```"),
    }
}

/// The fenced blocks of a text: their language, and what stands in them.
fn blocks(text: &str) -> Vec<(String, String)> {
    let mut blocks = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let Some(language) = line.trim_start().strip_prefix("```") else { continue };
        let indent = line.len() - line.trim_start().len();
        let inside = lines.by_ref().take_while(|line| line.trim() != "```");
        let text: String = inside.map(|line| format!("{}\n", line.get(indent..).unwrap_or(""))).collect();
        blocks.push((language.to_owned(), text));
    }
    blocks
}

#[test]
fn an_upgrade_takes_up_what_was_under_way() {
    story(|stage| {
        stage.begin();
        let before = stage.machine.show("rekeyd", "MainPID");
        push_begins(stage);
        install(stage, "99.1");
        assert_ne!(stage.machine.show("rekeyd", "MainPID"), before, "the old program runs on");
        assert_eq!(stage.machine.show("rekeyd", "ActiveState"), "active");
        it_ends_with_the_same_key(stage);

        // What somebody stopped stays so.
        stage.machine.must(&["systemctl", "stop", "rekeyd"]);
        install(stage, "99.2");
        assert_eq!(stage.machine.show("rekeyd", "ActiveState"), "inactive");
        let version = stage.machine.must(&["dpkg-query", "-W", "-f", "${Version} ${db:Status-Abbrev}", "rekeyd"]);
        assert_eq!(version.text(), "99.2 ii");
        let policy = std::fs::read_to_string(stage.machine.path(POLICY)).expect("it is there");
        assert!(policy.contains(SERVICE), "the policy was replaced by the template");
    });
}

#[test]
fn a_removal_keeps_the_state_and_a_purge_takes_it() {
    story(|stage| {
        stage.machine.must(&["systemctl", "enable", "rekeyd"]);
        stage.begin();
        push_begins(stage);
        stage.machine.must(&["apt-get", "remove", "-y", "-qq", "rekeyd"]);
        assert_eq!(stage.machine.show("rekeyd", "ActiveState"), "inactive");
        for kept in ["/var/lib/rekeyd/journal.db", POLICY, "/etc/rekeyd/secrets/aws-secret"] {
            stage.machine.must(&["test", "-f", kept]);
        }
        assert_ne!(stage.machine.run(&["test", "-e", "/usr/bin/rekeyd"]).code, Some(0));

        // It is installed again, and that fails half-way; then it is mended.
        let sysusers = "/usr/bin/systemd-sysusers";
        stage.machine.must(&["chmod", "a-x", sysusers]);
        let deb = put(stage, "");
        let failed = stage.machine.run(&["apt-get", "install", "-y", "-qq", &deb]);
        assert_ne!(failed.code, Some(0), "{failed:?}");
        stage.machine.must(&["chmod", "a+x", sysusers]);
        stage.machine.must(&["dpkg", "--configure", "-a"]);
        assert_eq!(stage.machine.show("rekeyd", "ActiveState"), "active", "the policy has a service");
        it_ends_with_the_same_key(stage);

        stage.machine.must(&["apt-get", "purge", "-y", "-qq", "rekeyd"]);
        for gone in ["/var/lib/rekeyd", "/etc/rekeyd", "/run/rekeyd", "/usr/share/rekeyd", "/usr/lib/rekeyd"] {
            assert_ne!(stage.machine.run(&["test", "-e", gone]).code, Some(0), "{gone} is there");
        }
        assert_eq!(stage.machine.show("rekeyd", "LoadState"), "not-found");
        let left = stage.machine.sh("find /etc/systemd /var/lib/systemd -name '*rekeyd*'");
        assert_eq!(left.text(), "", "left behind");
    });
}

#[test]
fn an_image_that_was_built_with_the_package_is_whole() {
    // The machines of all stories are such images.
    story(|stage| {
        stage.machine.must(&["dpkg", "--audit"]);
        let changed = stage.machine.run(&["dpkg", "--verify", "rekeyd"]);
        // The policy is the story's, and what a Debian without documentation leaves out is no loss.
        let changed: Vec<_> = changed.out.lines().filter(|line| !line.contains(POLICY)).collect();
        assert_eq!(changed, Vec::<&str>::new());
        stage.machine.must(&["id", "rekeyd"]);
        for (mode, path) in
            [("700 root root", "/etc/rekeyd/secrets"), ("700 root root", "/etc/rekeyd/secrets.encrypted")]
        {
            assert_eq!(stage.machine.must(&["stat", "-c", "%a %U %G", path]).text(), mode, "{path}");
        }
        stage.begin();
        stage.rotate();
        for (mode, path) in [
            ("700 rekeyd rekeyd", "/var/lib/rekeyd"),
            ("755 rekeyd rekeyd", "/run/rekeyd"),
            ("660 rekeyd rekeyd", "/run/rekeyd/control.sock"),
            ("600 rekeyd rekeyd", "/var/lib/rekeyd/journal.db"),
        ] {
            assert_eq!(stage.machine.must(&["stat", "-c", "%a %U %G", path]).text(), mode, "{path}");
        }
        // A shell completes the names of services.
        let names = stage.machine.must(&["rekeyd", "generate", "services"]);
        assert_eq!(names.text(), SERVICE);
    });
}

#[test]
fn the_tarball_does_on_a_machine_without_dpkg() {
    story_in(Setting { installed: false, ..Setting::default() }, |stage| {
        let bytes = std::fs::read(tarball()).expect("it was made");
        stage.machine.write("/root/rekeyd.tar.gz", 0o644, &bytes);
        stage.machine.must(&["chmod", "a-x", "/usr/bin/dpkg"]);
        let install = "cd /root && tar xzf rekeyd.tar.gz && ls && rekeyd-*/install";
        let ran = stage.machine.sh(install);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        stage.furnish();
        stage.machine.must(&["systemctl", "enable", "--now", "rekeyd"]);
        stage.adopt();
        push_begins(stage);
        // Once more, as for an upgrade.
        let ran = stage.machine.sh(install);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        stage.machine.must(&["systemctl", "restart", "rekeyd"]);
        it_ends_with_the_same_key(stage);
    });
}

/// Puts a package of this version into the machine, and says where.
fn put(stage: &Stage, version: &str) -> String {
    let path = format!("/root/rekeyd{version}.deb");
    stage.machine.write(&path, 0o644, &std::fs::read(package(version)).expect("it was made"));
    path
}

fn install(stage: &Stage, version: &str) {
    let path = put(stage, version);
    stage.machine.must(&["apt-get", "install", "-y", "-qq", &path]);
}
