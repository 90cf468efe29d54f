//! What the package's scripts do to a machine: the real ones, in a root directory of their own whose `/usr` is this machine's with the
//! neighbours replaced by ones that write down what they are asked.
//!
//! No systemd runs here: whether a start succeeds is `tests/systemd`'s to find out. Only root can make such a directory; without that, or
//! where a file system does not allow it, a test passes over and says so.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::PathBuf;
use std::process::{Command, Output};

use super::{PROGRAM, fake, first_policy, packages, read, run, skipped, temporary};

/// The user `rekeyd` of the directory, whom this machine need not have.
const USER: u32 = 64_321;

const SETUP: &str = r#"
set -e
cd "$1"
mount -t overlay overlay -o "lowerdir=/usr,upperdir=$PWD/upper,workdir=$PWD/work" usr
mount --bind "$2" usr/bin/rekeyd
mount --rbind /dev dev
mount -t proc proc proc
shift 2
exec chroot . /usr/bin/env -i PATH=/usr/sbin:/usr/bin "$@"
"#;

/// The directory, and what is changed of its `/usr`.
struct Root {
    home: tempfile::TempDir,
}

impl Root {
    /// A machine on which systemd runs and rekeyd is unpacked, with a policy of one service.
    fn new() -> Option<Root> {
        let root = Root { home: temporary() };
        for directory in
            ["usr", "upper/bin", "work", "dev", "proc", "tmp", "etc/rekeyd", "var/lib/rekeyd", "run/systemd/system"]
        {
            std::fs::create_dir_all(root.at(directory)).expect("it can be made");
        }
        for link in ["bin", "sbin", "lib", "lib64"] {
            symlink(format!("usr/{link}"), root.at(link)).expect("it can be made");
        }
        root.write(
            "etc/passwd",
            &format!("root:x:0:0::/root:/bin/sh\nrekeyd:x:{USER}:{USER}::/var/lib/rekeyd:/bin/sh\n"),
        );
        root.write("etc/group", &format!("root:x:0:\nrekeyd:x:{USER}:\n"));
        root.write("upper/bin/rekeyd", "");
        root.write("upper/share/rekeyd/start.toml", &read("config/start.toml"));
        root.write("etc/rekeyd/policy.toml", &first_policy());
        for neighbour in ["deb-systemd-invoke", "systemd-sysusers", "systemd-tmpfiles"] {
            root.neighbour(neighbour, "");
        }
        root.neighbour("deb-systemd-helper", "[ \"$1 $2\" != '--quiet was-enabled' ] || exit 1");
        root.neighbour("systemctl", "[ \"$1\" != show ] || cat /state");
        root.state("inactive");
        let usable = root.run(&["true"]);
        if !usable.status.success() {
            skipped(&format!("no root directory can be made here: {}", String::from_utf8_lossy(&usable.stderr)));
            return None;
        }
        Some(root)
    }

    fn at(&self, path: &str) -> PathBuf {
        self.home.path().join(path)
    }

    fn has(&self, path: &str) -> bool {
        self.at(path).symlink_metadata().is_ok()
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.at(path);
        std::fs::create_dir_all(path.parent().expect("it is below the root")).expect("it can be made");
        std::fs::write(path, text).expect("it can be written");
    }

    /// A program that says in `/asked` how it was called, and then does this.
    fn neighbour(&self, name: &str, does: &str) {
        fake(&self.at("upper/bin"), name, &format!("echo \"{name} $*\" >>/asked\n{does}"));
    }

    /// What systemctl says of the daemon.
    fn state(&self, state: &str) {
        self.write("state", &format!("{state}\n"));
    }

    fn run(&self, words: &[&str]) -> Output {
        run(Command::new("unshare")
            .args(["--mount", "--propagation=private", "--", "sh", "-c", SETUP, "sh"])
            .arg(self.home.path())
            .arg(PROGRAM)
            .args(words))
    }

    /// Runs one of dpkg's scripts as dpkg does. What it printed, and what of systemd it asked for concerning the daemon.
    fn script(&self, name: &str, words: &[&str]) -> (String, Vec<String>) {
        self.write("script", &read(&format!("systemd/{name}")));
        self.write("asked", "");
        let ran = self.run(&[&["sh", "/script"], words].concat());
        assert!(ran.status.success(), "{name} {words:?}: {ran:?}");
        let told = [ran.stdout, ran.stderr].map(|text| String::from_utf8(text).expect("text")).concat();
        (told, self.orders())
    }

    fn orders(&self) -> Vec<String> {
        let asked = std::fs::read_to_string(self.at("asked")).expect("it is there");
        let orders = asked.lines().filter_map(|line| {
            let line = line.strip_prefix("deb-systemd-invoke ").or_else(|| line.strip_prefix("systemctl "))?;
            ["start ", "stop ", "restart ", "try-restart "].iter().any(|verb| line.starts_with(verb)).then_some(line)
        });
        orders.map(str::to_owned).collect()
    }

    /// As dpkg installs, where nothing was or where it was removed before.
    fn install(&self, before: &str) -> (String, Vec<String>) {
        self.script("debian/preinst", &["install"]);
        let done = self.script("debian/postinst", &["configure", before]);
        assert!(!self.has("run/rekeyd-is-new"), "the next one would be taken for new too");
        done
    }

    fn upgrade(&self, state: &str) -> (String, Vec<String>) {
        self.state(state);
        self.script("debian/preinst", &["upgrade", "0.1"]);
        self.script("debian/postinst", &["configure", "0.1"])
    }
}

const START: &[&str] = &["start rekeyd.service"];
const REFUSED: &str = "type: rekeyd check, then systemctl restart rekeyd\n";

#[test]
fn an_installation_starts_what_has_something_to_do() {
    let Some(root) = Root::new() else { return };
    // The first of all: a policy that does nothing yet is put where there is none.
    std::fs::remove_file(root.at("etc/rekeyd/policy.toml")).expect("it is there");
    let (told, orders) = root.install("");
    assert!(told.starts_with("rekeyd is not started yet: write /etc/rekeyd/policy.toml"), "{told}");
    assert_eq!(orders, [""; 0]);
    let policy = root.at("etc/rekeyd/policy.toml");
    assert_eq!(std::fs::read_to_string(&policy).expect("it was made"), read("config/start.toml"));
    assert_eq!(policy.metadata().expect("it is there").mode() & 0o777, 0o644);

    // One that is there stays, and has its services rotated.
    root.write("etc/rekeyd/policy.toml", &first_policy());
    assert_eq!(root.install(""), (String::new(), START.iter().map(ToString::to_string).collect()));
    assert_eq!(std::fs::read_to_string(&policy).expect("it is there"), first_policy());

    // After a removal: what the journal still has to do is done though the policy has no service any more.
    root.write("etc/rekeyd/policy.toml", "version = 1\n");
    root.write("var/lib/rekeyd/journal.db", "");
    assert_eq!(root.install("0.1").1, START);

    root.write("etc/rekeyd/policy.toml", "version = 1\nservces = 1\n");
    let (told, orders) = root.install("0.1");
    assert_eq!((told, orders.len()), (format!("rekeyd is not started: it refuses the policy\n{REFUSED}"), 0));
}

#[test]
fn an_upgrade_restarts_what_runs_and_starts_what_failed() {
    let Some(root) = Root::new() else { return };
    for (state, orders) in [
        ("active", &["try-restart rekeyd.service"][..]),
        ("reloading", &["try-restart rekeyd.service"]),
        // It waits for its next try, which may be that of the new program.
        ("activating", &["try-restart rekeyd.service"]),
        ("failed", START),
        ("inactive", &[]),
    ] {
        let (told, asked) = root.upgrade(state);
        assert_eq!((told.as_str(), asked), ("", orders.iter().map(ToString::to_string).collect()), "{state}");
    }
    root.neighbour("deb-systemd-invoke", "exit 1");
    assert_eq!(root.upgrade("active").0, "rekeyd did not come back: journalctl -u rekeyd -n 20\n");
}

#[test]
fn an_upgrade_leaves_alone_what_would_not_come_back() {
    let Some(root) = Root::new() else { return };
    let goes_on =
        format!("rekeyd is upgraded and not restarted, the old one goes on: the new one refuses the policy\n{REFUSED}");
    root.write("etc/rekeyd/policy.toml", "version = 1\nservces = 1\n");
    for state in ["active", "activating"] {
        assert_eq!(root.upgrade(state), (goes_on.clone(), Vec::new()), "{state}");
    }
    let not_started = format!("rekeyd is not started: it refuses the policy\n{REFUSED}");
    assert_eq!(root.upgrade("failed"), (not_started, Vec::new()));
    assert_eq!(root.upgrade("inactive"), (String::new(), Vec::new()), "one that was stopped is none of its business");
    // An empty policy in the place of one that was lost would have a daemon that works leave every service.
    std::fs::remove_file(root.at("etc/rekeyd/policy.toml")).expect("it is there");
    assert_eq!(root.upgrade("active"), (goes_on, Vec::new()));
    assert!(!root.has("etc/rekeyd/policy.toml"));
}

#[test]
fn a_removal_that_is_called_off_starts_again_what_worked() {
    let Some(root) = Root::new() else { return };
    for (state, orders) in [("active", START), ("activating", START), ("inactive", &[]), ("failed", START)] {
        root.state(state);
        assert_eq!(root.script("debian/prerm", &["remove", "in-favour", "other", "1"]).1, ["stop rekeyd.service"]);
        root.state(if state == "failed" { state } else { "inactive" });
        let (told, asked) = root.script("debian/postinst", &["abort-remove", "in-favour", "other", "1"]);
        assert_eq!((told.as_str(), asked), ("", orders.iter().map(ToString::to_string).collect()), "{state}");
    }
    // A removal that went through leaves no mark for the next installation.
    root.state("active");
    root.script("debian/prerm", &["remove"]);
    assert!(root.has("run/rekeyd-was-active"));
    root.script("debian/postrm", &["remove"]);
    assert!(!root.has("run/rekeyd-was-active"));
}

const PURGED: &str =
    "rekeyd's /etc/rekeyd and /var/lib/rekeyd are purged; the keys it made at your providers are as they were\n";

#[test]
fn a_purge_takes_its_own_and_says_what_is_left() {
    let Some(root) = Root::new() else { return };
    root.write("etc/rekeyd/secrets/arcgis-prod", "s3cret");
    root.write("var/lib/rekeyd/journal.db", "events");
    for path in ["var/lib/rekeyd", "var/lib/rekeyd/journal.db"] {
        std::os::unix::fs::chown(root.at(path), Some(USER), Some(USER)).expect("root may");
    }
    assert_eq!(root.script("debian/postrm", &["purge"]).0, PURGED);
    assert!(!root.has("etc/rekeyd") && !root.has("var/lib/rekeyd") && root.has("var/lib"));

    // What the policy put elsewhere, and what a link leads to, is somebody's decision.
    for path in ["data/journal.db", "data/seal.key", "data/rekeyd/journal.db"] {
        root.write(path, "mine");
    }
    root.write(
        "etc/rekeyd/policy.toml",
        "version = 1\n[daemon]\njournal = \"sqlite:/data/journal.db\"\nseal_key = { file = \"/data/seal.key\" }\n",
    );
    symlink("/data/rekeyd", root.at("var/lib/rekeyd")).expect("it is gone");
    let left =
        "still there: /var/lib/rekeyd -> /data/rekeyd\nstill there: /data/journal.db\nstill there: /data/seal.key\n";
    assert_eq!(root.script("debian/postrm", &["purge"]).0, format!("{PURGED}{left}"));
    assert!(root.has("data/rekeyd/journal.db") && !root.has("etc/rekeyd"));
}

/// Whose state it is may change it while root looks at it: here in the moment before the first file is overwritten.
#[test]
fn a_purge_overwrites_nothing_that_the_user_could_not() {
    let Some(root) = Root::new() else { return };
    root.write("victim/shadow", "root's own");
    std::fs::set_permissions(root.at("victim/shadow"), std::fs::Permissions::from_mode(0o600)).expect("it is ours");
    root.write("var/lib/rekeyd/d/shadow", "bait");
    for path in ["var/lib/rekeyd", "var/lib/rekeyd/d", "var/lib/rekeyd/d/shadow"] {
        std::os::unix::fs::chown(root.at(path), Some(USER), Some(USER)).expect("root may");
    }
    let swap = "case \"$*\" in */d/shadow*) mv /var/lib/rekeyd/d /var/lib/rekeyd/e && ln -s /victim /var/lib/rekeyd/d && id -u >>/tmp/swapped ;; esac\n\
                exec /usr/bin/shred.real \"$@\"";
    std::fs::copy("/usr/bin/shred", root.at("upper/bin/shred.real")).expect("shred is here");
    fake(&root.at("upper/bin"), "shred", swap);
    std::fs::set_permissions(root.at("tmp"), std::fs::Permissions::from_mode(0o1777)).expect("it is ours");
    std::fs::set_permissions(root.home.path(), std::fs::Permissions::from_mode(0o755)).expect("it is ours");
    let (told, _) = root.script("debian/postrm", &["purge"]);
    let swapped = std::fs::read_to_string(root.at("tmp/swapped")).expect("the swap took place");
    assert_eq!(swapped, format!("{USER}\n"), "{told}");
    assert_eq!(std::fs::read_to_string(root.at("victim/shadow")).expect("it is there"), "root's own");
    assert!(!root.has("var/lib/rekeyd"), "{told}");
}

#[test]
fn an_alert_says_what_to_type() {
    let Some(root) = Root::new() else { return };
    let service = "rekeyd.service";
    let rotate = "rekeyd-rotate@prod.service";
    let down = ", and it stays down until it is started again; type: ";
    let log = "journalctl -u rekeyd.service -n 20";
    for (unit, state, result, status, line) in [
        (service, "failed", "exit-code", "78", format!("the policy has mistakes{down}rekeyd check, then systemctl start rekeyd")),
        // Without a message bus nobody answers.
        (service, "", "exit-code", "78", format!("the policy has mistakes{down}rekeyd check, then systemctl start rekeyd")),
        (
            service,
            "auto-restart",
            "exit-code",
            "69",
            format!("the journal or the control socket cannot be had; systemd starts it again; type: {log}"),
        ),
        (
            service,
            "failed",
            "exit-code",
            "69",
            format!("the journal or the control socket cannot be had{down}{log}, then systemctl start rekeyd"),
        ),
        (
            service,
            "auto-restart-queued",
            "watchdog",
            "ABRT",
            "the engine stood still, and systemd ended it; systemd starts it again; type: rekeyd status".to_owned(),
        ),
        (
            service,
            "auto-restart",
            "exit-code",
            "243",
            format!("systemd could not hand it a secret of /etc/rekeyd; systemd starts it again; type: {log}"),
        ),
        (service, "running", "signal", "KILL", format!("it ended with signal, KILL; systemd starts it again; type: {log}")),
        (rotate, "failed", "exit-code", "1", "the rotation it ordered did not come to its end; type: rekeyd status".to_owned()),
        (
            rotate,
            "failed",
            "exit-code",
            "69",
            "the daemon ended while it was waited for, and goes on with the rotation when it is back; type: rekeyd status".to_owned(),
        ),
        (
            rotate,
            "failed",
            "exit-code",
            "75",
            "nothing was ordered, since the daemon is not running; type: systemctl status rekeyd".to_owned(),
        ),
    ] {
        root.state(state);
        assert_eq!(alert(&root, unit, result, status), format!("<3>{unit} failed: {line}\n"));
    }
    let unit = read("systemd/rekeyd-rotate@.service");
    assert!(unit.contains("exit 75; }'\n"), "what is told apart by 75 ends with it");
}

#[test]
fn a_sites_own_alert_is_run_and_not_for_every_try() {
    let Some(root) = Root::new() else { return };
    root.write("etc/rekeyd/alert", "#!/bin/sh\necho \"told: $1 $MONITOR_SERVICE_RESULT $MONITOR_EXIT_STATUS\" >&2\n");
    let last = |said: String| said.lines().last().unwrap_or_default().to_owned();
    let failed = |status: &str| last(alert(&root, "rekeyd.service", "exit-code", status));
    root.state("failed");
    let cannot = "<3>/etc/rekeyd/alert cannot be run by the user root; type: chmod 755 /etc/rekeyd/alert";
    assert_eq!(failed("78"), cannot);

    std::fs::set_permissions(root.at("etc/rekeyd/alert"), std::fs::Permissions::from_mode(0o755)).expect("it is ours");
    let told = |status: &str| format!("told: rekeyd.service exit-code {status}");
    root.state("auto-restart");
    assert_eq!(failed("69"), told("69"));
    assert!(failed("69").contains("systemd starts it again"), "it was told ten seconds ago");
    let hour = run(Command::new("touch").args(["-d", "-61 minutes"]).arg(root.at("run/rekeyd-alert/rekeyd.service")));
    assert!(hour.status.success(), "{hour:?}");
    assert_eq!(failed("69"), told("69"));
    // The last word is always told.
    root.state("failed");
    assert_eq!((failed("78"), failed("78")), (told("78"), told("78")));
}

fn alert(root: &Root, unit: &str, result: &str, status: &str) -> String {
    root.write("alert", &read("systemd/alert"));
    std::fs::create_dir_all(root.at("run/rekeyd-alert")).expect("it can be made");
    let variables = [
        "RUNTIME_DIRECTORY=/run/rekeyd-alert".to_owned(),
        format!("MONITOR_SERVICE_RESULT={result}"),
        format!("MONITOR_EXIT_STATUS={status}"),
    ];
    let words: Vec<&str> = variables.iter().map(String::as_str).chain(["sh", "/alert", unit]).collect();
    let ran = root.run(&words);
    assert!(ran.status.success(), "{ran:?}");
    String::from_utf8(ran.stderr).expect("text")
}

#[test]
fn a_unit_of_your_own_is_left_to_say_how_it_is_reloaded() {
    let Some(root) = Root::new() else { return };
    root.neighbour("systemctl", "echo 'systemd 252 (test)'");
    root.write("generator", &read("systemd/rekeyd-generator"));
    for (own, written) in [
        (None, true),
        (Some("[Service]\nType=notify\nExecReload=/bin/mine\n"), false),
        (Some("[Service]\nType=notify-reload\n"), true),
    ] {
        if let Some(own) = own {
            root.write("etc/systemd/system/rekeyd.service", own);
        }
        let ran = root.run(&["sh", "/generator", "/generated"]);
        assert!(ran.status.success() && ran.stderr.is_empty(), "{ran:?}");
        assert_eq!(root.has("generated/rekeyd.service.d/10-before-systemd-253.conf"), written, "{own:?}");
        let _ = std::fs::remove_dir_all(root.at("generated"));
    }
}

#[test]
fn the_tarballs_script_restarts_only_what_would_come_back() {
    let (Some(root), Some(packages)) = (Root::new(), packages()) else { return };
    let unpacked = run(Command::new("tar").arg("-xzf").arg(&packages.tarball).arg("-C").arg(root.home.path()));
    assert!(unpacked.status.success(), "{unpacked:?}");
    // The program is a mount here, which nothing can be renamed over.
    let folder = format!("rekeyd-{}-linux-{}", env!("CARGO_PKG_VERSION"), std::env::consts::ARCH);
    std::fs::remove_file(root.at(&folder).join("usr/bin/rekeyd")).expect("it is there");
    let install = || {
        root.write("asked", "");
        let ran = root.run(&[&format!("/{folder}/install")]);
        let told = [ran.stdout, ran.stderr].map(|text| String::from_utf8(text).expect("text")).concat();
        (ran.status.code(), told, root.orders())
    };
    let done = |next: &str, orders: &[&str]| {
        (Some(0), format!("installed; {next}\n"), orders.iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    let stays = "the policy stays as it is";
    root.state("active");
    assert_eq!(install(), done(stays, &["try-restart rekeyd.service"]));
    root.state("failed");
    assert_eq!(install(), done(stays, START));
    root.state("inactive");
    assert_eq!(install(), done(stays, &[]));
    assert_eq!(
        std::fs::read_to_string(root.at("upper/lib/systemd/system/rekeyd.service")).expect("it was put there"),
        read("systemd/rekeyd.service")
    );
    root.state("active");
    root.write("etc/rekeyd/policy.toml", "version = 1\nservces = 1\n");
    let (code, told, orders) = install();
    assert_eq!((code, orders), (Some(1), Vec::new()), "{told}");
    assert!(
        told.ends_with("the new one refuses the policy; type: rekeyd check, then systemctl restart rekeyd\n"),
        "{told}"
    );
    root.state("inactive");
    std::fs::remove_file(root.at("etc/rekeyd/policy.toml")).expect("it is there");
    let next = "next: write /etc/rekeyd/policy.toml (man rekeyd-policy), then systemctl enable --now rekeyd";
    assert_eq!(install(), done(next, &[]));
}
