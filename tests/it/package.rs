//! The units, and the packages that are made of them: what can be known of them without a systemd that runs.
//!
//! What only a booted machine can tell (starting, reloading, the sandbox at work, installing and upgrading) is in `tests/systemd`. A tool
//! that is not here is named, and its test passes over.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

mod scripts;

const PROGRAM: &str = env!("CARGO_BIN_EXE_rekeyd");
const UNITS: [&str; 3] = ["rekeyd.service", "rekeyd-rotate@.service", "rekeyd-alert@.service"];
const SCRIPTS: [&str; 7] =
    ["rekeyd-generator", "alert", "install", "debian/preinst", "debian/postinst", "debian/prerm", "debian/postrm"];

// ---- Units -----------------------------------------------------------------------------------------------------------------

/// `systemd-analyze verify` ends with 0 whatever it finds; only silence is praise.
#[test]
fn systemd_finds_nothing_to_say_about_the_units() {
    let Some(version) = systemd() else { return };
    let home = units(version);
    for unit in ["rekeyd.service", "rekeyd-rotate@prod.service"] {
        assert_eq!(verify(&home, unit), complaints(version), "{unit}");
    }
    assert_eq!(verify(&home, "rekeyd-alert@rekeyd.service.service"), BTreeSet::new());
    // A directive that nobody knows is seen, or the silence is worth nothing.
    let unit = read("systemd/rekeyd.service").replace("UMask=", "Umask=");
    std::fs::write(home.path().join("rekeyd.service"), adapted(&unit)).expect("it can be written");
    assert_ne!(verify(&home, "rekeyd.service"), complaints(version));
}

#[test]
fn the_sandbox_scores_a_one_point_five_or_less() {
    if systemd().is_none() {
        return;
    }
    for unit in ["systemd/rekeyd.service", "systemd/rekeyd-rotate@.service"] {
        let scored = run(Command::new("systemd-analyze")
            .args(["security", "--offline=yes", "--no-pager", "--threshold=15"])
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join(unit)));
        let told = String::from_utf8_lossy(&scored.stdout);
        println!("{}", told.lines().last().unwrap_or_default());
        assert!(scored.status.success(), "{unit}\n{told}");
        // What costs a point is either given with a reason, or left out with one.
        let text = read("systemd/rekeyd.service");
        for line in
            told.lines().filter_map(|line| line.strip_prefix("✗ ")).filter(|_| unit.ends_with("/rekeyd.service"))
        {
            let name = line.split('=').next().expect("a first part");
            assert!(text.contains(&format!("\n# {name}=")) || text.contains(&format!("\n{name}=")), "{line}");
        }
    }
}

/// A comment above a directive, or above the few that share it.
#[test]
fn every_directive_of_the_unit_has_a_reason() {
    // The messenger has one reason for all of its sandbox.
    for (unit, shared_max) in [("rekeyd.service", 6), ("rekeyd-rotate@.service", 24)] {
        assert_eq!(without_reason(&read(&format!("systemd/{unit}")), shared_max), Vec::<String>::new(), "{unit}");
    }
    let planted = read("systemd/rekeyd.service").replace("\nKeyringMode=", "\n\nKeyringMode=");
    assert_eq!(without_reason(&planted, 6), ["KeyringMode=private"]);
}

/// A full disk or a port that is taken may last for hours. A limit of starts would leave the daemon down afterwards.
#[test]
fn systemd_never_gives_up_but_for_a_policy_with_mistakes() {
    let unit = read("systemd/rekeyd.service");
    for line in ["StartLimitIntervalSec=0", "Restart=on-failure", "RestartSec=10s", "RestartPreventExitStatus=78"] {
        assert!(unit.lines().any(|has| has == line), "{line} is missing");
    }
}

fn without_reason(unit: &str, shared_max: usize) -> Vec<String> {
    const OBVIOUS: [&str; 5] = ["Description=", "Documentation=", "ExecStart=", "WantedBy=", "Type=oneshot"];
    let (mut reasoned, mut wrong) = (0, Vec::new());
    for line in unit.lines() {
        match line {
            _ if line.starts_with('#') => reasoned = shared_max,
            _ if line.is_empty() || line.starts_with('[') => reasoned = 0,
            _ if OBVIOUS.iter().any(|obvious| line.starts_with(obvious)) => {}
            _ if reasoned == 0 => wrong.push(line.to_owned()),
            _ => reasoned -= 1,
        }
    }
    wrong
}

/// Each drop-in that a page shows, as `systemctl edit` would add it.
#[test]
fn systemd_takes_every_drop_in_of_the_pages() {
    let Some(version) = systemd() else { return };
    let planted = units(version);
    std::fs::create_dir_all(planted.path().join("rekeyd.service.d")).expect("it can be made");
    std::fs::write(planted.path().join("rekeyd.service.d/override.conf"), "[Service]\nReadWritePath=/x\n")
        .expect("the same");
    assert_ne!(verify(&planted, "rekeyd.service"), complaints(version), "a drop-in is not read at all");
    let mut count = 0;
    for page in ["docs/systemd.md", "docs/places.md", "docs/commands.md"] {
        for block in blocks(&read(page), "ini") {
            let home = units(version);
            // A whole unit says in its first line where it goes.
            let unit = match block.strip_prefix("# /etc/systemd/system/").and_then(|rest| rest.split(',').next()) {
                Some(unit) => {
                    std::fs::write(home.path().join(unit), &block).expect("it can be written");
                    unit
                }
                None => {
                    let directory = home.path().join("rekeyd.service.d");
                    std::fs::create_dir_all(&directory).expect("it can be made");
                    std::fs::write(directory.join("override.conf"), &block).expect("it can be written");
                    "rekeyd.service"
                }
            };
            assert_eq!(verify(&home, unit), complaints(version), "{page}\n{block}");
            count += 1;
        }
    }
    assert!(count >= 8, "only {count} blocks were found");
}

#[test]
fn before_systemd_253_a_generator_says_it_in_older_words() {
    for (says, written) in [
        ("systemd 252 (252.38-1~deb12u1)\n+PAM +AUDIT", true),
        ("systemd 249 (249.11-0ubuntu3)", true),
        ("systemd 253 (253.5)", false),
        ("systemd 257 (257.13-1~deb13u1)\n+PAM +AUDIT", false),
        ("systemd 1000", false),
        ("", false),
    ] {
        let home = temporary();
        fake(home.path(), "systemctl", &format!("printf '%s\\n' '{says}'"));
        let generated = home.path().join("run/systemd/generator");
        std::fs::create_dir_all(&generated).expect("it can be made");
        let path = format!("{}:/usr/bin:/bin", home.path().display());
        let ran = run(Command::new("systemd/rekeyd-generator").env("PATH", path).args([&generated; 3]));
        assert!(ran.status.success() && ran.stderr.is_empty(), "{says}: {ran:?}");
        let drop_in = generated.join("rekeyd.service.d/10-before-systemd-253.conf");
        assert_eq!(drop_in.exists(), written, "{says}");
        // In the middle of an upgrade the manager that runs is no more the one on the disk, and may be older.
        fake(home.path(), "readlink", "[ \"$*\" = /proc/1/exe ] && echo '/usr/lib/systemd/systemd (deleted)'");
        let between = home.path().join("between");
        let path = format!("{}:/usr/bin:/bin", home.path().display());
        let ran = run(Command::new("systemd/rekeyd-generator").env("PATH", path).args([&between; 3]));
        assert!(ran.status.success() && ran.stderr.is_empty(), "{says}: {ran:?}");
        assert_eq!(between.join("rekeyd.service.d").exists(), !says.is_empty(), "{says}");
        if written {
            let text = std::fs::read_to_string(drop_in).expect("it is there");
            assert!(text.contains("\nType=notify\n") && text.contains("\nExecReload=/bin/sh -c 'kill -HUP "), "{text}");
        }
    }
}

#[test]
fn the_scripts_are_sound() {
    let missing = Command::new("shellcheck").arg("--version").output().is_err();
    if missing {
        skipped("shellcheck is not here: the scripts are only parsed");
    }
    for script in SCRIPTS.iter().copied().chain(["package"]) {
        let path = format!("systemd/{script}");
        let shell = if script == "package" { "bash" } else { "sh" };
        let parsed = run(Command::new(shell).args(["-n", &path]));
        assert!(parsed.status.success() && parsed.stderr.is_empty(), "{path}: {parsed:?}");
        let mode = std::fs::metadata(&path).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o111, 0o111, "{path} is no program");
        if !missing {
            let checked = run(Command::new("shellcheck").arg(&path));
            assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
        }
    }
}

/// At every boot and upgrade: the directories of secrets are brought back, and closed; the one above them is as it was found.
#[test]
fn what_was_closed_is_not_opened_again() {
    let home = temporary();
    let etc = home.path().join("etc/rekeyd");
    let settings = home.path().join("usr/lib/tmpfiles.d");
    for directory in [&settings, &etc.join("secrets")] {
        std::fs::create_dir_all(directory).expect("it can be made");
    }
    std::fs::copy("systemd/rekeyd.tmpfiles", settings.join("rekeyd.conf")).expect("it can be written");
    std::fs::set_permissions(&etc, std::fs::Permissions::from_mode(0o750)).expect("it is ours");
    let mut root = std::ffi::OsString::from("--root=");
    root.push(home.path());
    let asked = Command::new("systemd-tmpfiles").arg("--create").arg(root).arg("rekeyd.conf").output();
    let Ok(ran) = asked else { return skipped("systemd-tmpfiles is not here") };
    if !ran.status.success() && !rustix::process::geteuid().is_root() {
        return skipped("only root gives directories to root");
    }
    assert!(ran.status.success(), "{ran:?}");
    let mode = |path: &Path| std::fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    assert_eq!((mode(&etc), mode(&etc.join("secrets")), mode(&etc.join("secrets.encrypted"))), (0o750, 0o700, 0o700));
}

// ---- What the program says of itself ---------------------------------------------------------------------------------------

#[test]
fn the_manual_has_every_command_and_every_exit_code() {
    let home = temporary();
    let generated = run(Command::new(PROGRAM).args(["generate", "man"]).arg(home.path()));
    assert!(generated.status.success(), "{generated:?}");
    let page = std::fs::read_to_string(home.path().join("rekeyd.8")).expect("the page is there").replace("\\-", "-");
    let help = run(Command::new(PROGRAM).arg("--help"));
    let help = String::from_utf8(help.stdout).expect("text");
    let listed = help.split("Commands:\n").nth(1).and_then(|rest| rest.split("\n\n").next()).expect("its commands");
    let commands: Vec<&str> = listed.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert!(commands.len() >= 20 && !commands.contains(&"generate"), "{commands:?}");
    for command in commands.iter().filter(|command| **command != "help") {
        assert!(page.contains(&format!("\n.SS \"{command} ")), "rekeyd(8) lacks {command}");
    }
    assert!(!page.contains("generate"), "what no help lists stands in the manual");
    let codes = read("README.md");
    let codes = codes.split("### Exit codes").nth(1).and_then(|rest| rest.split("\n## ").next()).expect("its codes");
    let numbers: Vec<&str> = codes.split(['·', '\n']).filter_map(|part| part.split_whitespace().next()).collect();
    let numbers: Vec<&&str> = numbers.iter().filter(|word| word.parse::<u8>().is_ok()).collect();
    assert_eq!(numbers.len(), 5, "{numbers:?}");
    for number in numbers {
        assert!(page.contains(&format!("\n\\fB{number}\\fR\n")), "rekeyd(8) lacks the exit code {number}");
    }
    let policy = std::fs::read_to_string(home.path().join("rekeyd-policy.5")).expect("the page is there");
    let shown = policy.replace("\\-", "-").replace("\\\\", "\\");
    let sentence = "# The record of every intent and every result";
    assert!(shown.contains(sentence) && read("config/policy.toml").contains(sentence));
    if Command::new("man").arg("--version").output().is_err() {
        skipped("man is not here: the pages are not laid out");
        return;
    }
    for name in ["rekeyd.8", "rekeyd-policy.5"] {
        let laid =
            run(Command::new("man").args(["-l", "--warnings"]).arg(home.path().join(name)).env("MANWIDTH", "200"));
        assert!(laid.status.success() && laid.stderr.is_empty(), "{name}: {}", String::from_utf8_lossy(&laid.stderr));
    }
    let laid = run(Command::new("man").arg("-l").arg(home.path().join("rekeyd-policy.5")).env("MANWIDTH", "200"));
    let laid = String::from_utf8_lossy(&laid.stdout).into_owned();
    for line in read("config/policy.toml").lines().filter(|line| !line.is_empty()) {
        assert!(laid.contains(line.trim()), "rekeyd-policy(5) lost the line:\n{line}");
    }
}

#[test]
fn tab_offers_the_services_of_the_policy() {
    let home = temporary();
    let generated = run(Command::new(PROGRAM).args(["generate", "completions"]).arg(home.path()));
    assert!(generated.status.success(), "{generated:?}");
    let bin = home.path().join("bin");
    std::fs::create_dir(&bin).expect("it can be made");
    fake(&bin, "rekeyd", "[ \"$*\" = 'generate services' ] && printf 'prod-a\\nprod-b\\n'");
    let path = format!("{}:/usr/bin:/bin", bin.display());

    let script = "source \"$0\"; COMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1)); COMPREPLY=(); \
                  _rekeyd_and_services rekeyd \"${!#}\" \"${@: -2:1}\"; echo \"${COMPREPLY[*]}\"";
    for (line, offered) in [
        ("rot", "rotate"),
        ("gen", ""),
        ("rotate +", "prod-a prod-b"),
        ("rotate prod-a prod-b", "prod-b"),
        ("--policy p retry prod-b", "prod-b"),
        ("switch --to +", "iam-role user-assigned-identity key"),
        ("switch --to key prod-a", "prod-a"),
        ("rotate --comp", "--compromised"),
    ] {
        let words = line.split(' ').map(|word| if word == "+" { "" } else { word });
        let file = home.path().join("rekeyd");
        let asked =
            run(Command::new("bash").env("PATH", &path).args(["-c", script]).arg(file).arg("rekeyd").args(words));
        assert_eq!(String::from_utf8_lossy(&asked.stdout).trim(), offered, "rekeyd {line}: {asked:?}");
    }

    if Command::new("fish").arg("--version").output().is_err() {
        skipped("fish is not here");
    } else {
        let file = home.path().join("rekeyd.fish");
        let asked = run(Command::new("fish")
            .env("PATH", &path)
            .env("HOME", home.path())
            .args(["--no-config", "-c"])
            .arg(format!("source {}; complete -C 'rekeyd retry '; complete -C 'rekeyd gen'", file.display())));
        assert_eq!(String::from_utf8_lossy(&asked.stdout), "prod-a\nprod-b\n", "{asked:?}");
    }
    if Command::new("zsh").arg("--version").output().is_err() {
        skipped("zsh is not here");
    } else {
        let file = home.path().join("_rekeyd");
        let parsed = run(Command::new("zsh").arg("-n").arg(&file));
        assert!(parsed.status.success() && parsed.stderr.is_empty(), "{parsed:?}");
        let text = std::fs::read_to_string(file).expect("it is there");
        assert!(text.starts_with("#compdef rekeyd\n"), "the first line tells zsh what the file is for");
        assert!(text.matches(":_rekeyd_services'").count() >= 10 && !text.contains(" -- Which service:_default"));
    }
}

#[test]
fn the_names_of_services_are_printed_and_nothing_else() {
    let home = temporary();
    let services = |text: &str| {
        let path = home.path().join("policy.toml");
        std::fs::write(&path, text).expect("it can be written");
        let ran = run(Command::new(PROGRAM).arg("--policy").arg(path).args(["generate", "services"]));
        assert!(ran.status.success() && ran.stderr.is_empty(), "{ran:?}");
        String::from_utf8(ran.stdout).expect("text")
    };
    assert_eq!(services(&first_policy()), "prod-object-store\n");
    assert_eq!(services("version = 1\n"), "");
    assert_eq!(services("version = \n"), "", "a shell is in the middle of a line");
}

// ---- Packages --------------------------------------------------------------------------------------------------------------

/// What a package starts with has no service, and is the README's first policy once its `#` are taken away.
#[test]
fn the_policy_of_a_fresh_installation_does_nothing_yet() {
    let ran = run(Command::new(PROGRAM).args(["--policy", "config/start.toml", "check"]));
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success() && said.contains(": 0 services, no mistakes"), "{ran:?}");
    let table = |text: &str| text.parse::<toml::Table>().expect("it is TOML");
    let readme = blocks(&read("README.md"), "toml");
    assert_eq!(table(&first_policy()), table(readme.first().expect("the README has a policy")));
}

#[test]
fn the_deb_has_what_it_must_and_no_more() {
    let Some(packages) = packages() else { return };
    let listed = run(Command::new("dpkg-deb").arg("-c").arg(&packages.deb));
    let listed = String::from_utf8(listed.stdout).expect("text");
    let mut modes = BTreeMap::new();
    for line in listed.lines() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(fields[1], "root/root", "{line}");
        assert!(!fields[0][5..].contains('w'), "others may write:\n{line}");
        modes.insert(fields[5].trim_start_matches('.').to_owned(), fields[0].to_owned());
    }
    for (path, mode) in [
        ("/usr/bin/rekeyd", "-rwxr-xr-x"),
        ("/usr/lib/rekeyd/alert", "-rwxr-xr-x"),
        ("/usr/lib/systemd/system/rekeyd.service", "-rw-r--r--"),
        ("/usr/lib/systemd/system/rekeyd-rotate@.service", "-rw-r--r--"),
        ("/usr/lib/systemd/system/rekeyd-alert@.service", "-rw-r--r--"),
        ("/usr/lib/systemd/system-generators/rekeyd-generator", "-rwxr-xr-x"),
        ("/usr/lib/sysusers.d/rekeyd.conf", "-rw-r--r--"),
        ("/usr/lib/tmpfiles.d/rekeyd.conf", "-rw-r--r--"),
        ("/etc/rekeyd/secrets/", "drwx------"),
        ("/etc/rekeyd/secrets.encrypted/", "drwx------"),
        ("/usr/share/man/man8/rekeyd.8.gz", "-rw-r--r--"),
        ("/usr/share/man/man5/rekeyd-policy.5.gz", "-rw-r--r--"),
        ("/usr/share/bash-completion/completions/rekeyd", "-rw-r--r--"),
        ("/usr/share/zsh/vendor-completions/_rekeyd", "-rw-r--r--"),
        ("/usr/share/fish/vendor_completions.d/rekeyd.fish", "-rw-r--r--"),
        ("/usr/share/rekeyd/rekeyd.rules.yml", "-rw-r--r--"),
        ("/usr/share/rekeyd/policy.toml", "-rw-r--r--"),
        ("/usr/share/rekeyd/start.toml", "-rw-r--r--"),
        ("/usr/share/doc/rekeyd/copyright", "-rw-r--r--"),
        ("/usr/share/doc/rekeyd/docs/systemd.md", "-rw-r--r--"),
        ("/usr/share/doc/rekeyd/examples/postgres/logins", "-rwxr-xr-x"),
    ] {
        assert_eq!(modes.get(path).map(String::as_str), Some(mode), "{path} in\n{listed}");
    }
    // No file below /etc: what every site writes is no conffile. And nothing in /var or /run, which the unit makes.
    let below = |root: &str| modes.keys().filter(|path| path.starts_with(root) && !path.ends_with('/')).count();
    assert_eq!((below("/etc/"), below("/var/"), below("/run/")), (0, 0, 0), "{listed}");
    // What the units start is in the package.
    for unit in UNITS {
        for line in read(&format!("systemd/{unit}")).lines().filter_map(|line| line.strip_prefix("ExecStart=")) {
            let program = line.split_whitespace().next().expect("a program");
            assert!(modes.contains_key(program), "{unit} starts {program}");
        }
    }
}

#[test]
fn the_deb_says_what_it_needs() {
    let Some(packages) = packages() else { return };
    let field = |name: &str| {
        let told = run(Command::new("dpkg-deb").arg("-f").arg(&packages.deb).arg(name));
        String::from_utf8(told.stdout).expect("text").trim().to_owned()
    };
    assert_eq!((field("Package").as_str(), field("Version").as_str()), ("rekeyd", env!("CARGO_PKG_VERSION")));
    let depends = field("Depends");
    for needed in ["ca-certificates", "systemd (>= 252)", "libc6 (>= 2."] {
        assert!(depends.contains(needed), "{depends}");
    }
    assert_eq!(field("Recommends"), "");
    let home = temporary();
    assert!(run(Command::new("dpkg-deb").arg("-R").arg(&packages.deb).arg(home.path())).status.success());
    let control = |name: &str| std::fs::read_to_string(home.path().join("DEBIAN").join(name)).expect("it is there");
    assert!(!home.path().join("DEBIAN/conffiles").exists(), "dpkg would ask about a policy that every site changes");
    assert_eq!(field("Maintainer"), MAINTAINER);
    let summed = run(Command::new("md5sum").args(["-c", "--quiet", "DEBIAN/md5sums"]).current_dir(home.path()));
    assert!(summed.status.success(), "{summed:?}");
    for script in ["preinst", "postinst", "prerm", "postrm"] {
        let text = control(script);
        assert!(text.starts_with("#!/bin/sh\n") && text.contains("\nset -e\n"), "{script}:\n{text}");
    }
    // The program in it is the one it was made of, and can say so without the debugger's part.
    let told = run(Command::new(home.path().join("usr/bin/rekeyd")).arg("--version"));
    assert_eq!(told.stdout, run(Command::new(PROGRAM).arg("--version")).stdout);
}

/// The README and the pages lie elsewhere there than among the sources, and so does what they point at.
#[test]
fn the_links_of_the_packaged_pages_lead_somewhere() {
    let Some(packages) = packages() else { return };
    let home = temporary();
    assert!(run(Command::new("dpkg-deb").arg("-x").arg(&packages.deb).arg(home.path())).status.success());
    let doc = home.path().join("usr/share/doc/rekeyd");
    let pages = run(Command::new("find").arg(&doc).args(["-name", "*.md"]));
    let mut count = 0;
    for page in String::from_utf8(pages.stdout).expect("text").lines().map(Path::new) {
        let text = std::fs::read_to_string(page).expect("it is text");
        for link in text.split("](").skip(1).filter_map(|rest| rest.split([')', '#']).next()) {
            if link.is_empty() || link.contains("://") {
                continue;
            }
            let there = page.parent().expect("it is in a folder").join(link);
            assert!(there.exists(), "{} points at {link}", page.display());
            count += 1;
        }
    }
    assert!(count >= 20, "only {count} links were found");
}

/// Where nothing but the tarball can be used, nothing else is asked for.
#[test]
fn without_dpkg_the_tarball_is_made() {
    let Some(packages) = packages() else { return };
    let home = temporary();
    let tools = home.path().join("tools");
    std::fs::create_dir(&tools).expect("it can be made");
    for tool in std::fs::read_dir("/usr/bin").expect("there are programs").flatten() {
        if !tool.file_name().to_string_lossy().starts_with("dpkg") {
            std::os::unix::fs::symlink(tool.path(), tools.join(tool.file_name())).expect("it can be made");
        }
    }
    let made = run(Command::new("systemd/package")
        .arg(PROGRAM)
        .env("PATH", &tools)
        .env("REKEYD_PACKAGE_OUT", home.path().join("out"))
        .env("REKEYD_PACKAGE_FAST", "1"));
    assert!(made.status.success(), "{made:?}");
    let said = String::from_utf8_lossy(&made.stdout);
    let tarball = Path::new(said.lines().last().expect("it prints where it is"));
    assert!(said.contains("the program needs the GNU C library 2."), "{said}");
    assert!(std::fs::read(tarball).expect("it is there") == std::fs::read(&packages.tarball).expect("it is there"));
}

/// The same program and sources make the same bytes, so that anybody can check a package that somebody else made.
#[test]
fn a_package_made_twice_is_the_same() {
    let (Some(first), Some(second)) = (packages(), make(None)) else { return };
    for (one, other) in [(&first.deb, &second.deb), (&first.tarball, &second.tarball)] {
        let same = std::fs::read(one).expect("it is there") == std::fs::read(other).expect("it is there");
        assert!(same, "{} and {} differ", one.display(), other.display());
    }
    let Some(newer) = make(Some("9.9.9")) else { return };
    let arch = first.deb.to_string_lossy().rsplit('_').next().map(str::to_owned).expect("an architecture");
    assert!(newer.deb.ends_with(format!("rekeyd_9.9.9_{arch}")), "{}", newer.deb.display());
}

#[test]
fn the_tarball_installs_and_installs_again() {
    let Some(packages) = packages() else { return };
    if Command::new("systemd-sysusers").arg("--version").output().is_err() {
        skipped("systemd-sysusers is not here: the tarball is not installed");
        return;
    }
    let home = temporary();
    assert!(run(Command::new("tar").arg("-xzf").arg(&packages.tarball).arg("-C").arg(home.path())).status.success());
    let unpacked = std::fs::read_dir(home.path()).expect("it can be read").flatten().next().expect("one folder").path();
    let root = home.path().join("root");
    let install = || {
        let ran = run(Command::new(unpacked.join("install")).arg("--root").arg(&root));
        assert!(ran.status.success(), "{ran:?}");
    };
    install();
    let mode = |path: &str| std::fs::metadata(root.join(path)).expect("it is there").permissions().mode() & 0o7777;
    assert_eq!((mode("etc/rekeyd/secrets"), mode("etc/rekeyd/secrets.encrypted")), (0o700, 0o700));
    assert_eq!((mode("usr/bin/rekeyd"), mode("etc/rekeyd/policy.toml")), (0o755, 0o644));
    let passwd = std::fs::read_to_string(root.join("etc/passwd")).expect("systemd-sysusers made it");
    for user in ["rekeyd:", "rekeyd-alert:"] {
        assert!(passwd.lines().any(|line| line.starts_with(user)), "{user} in {passwd}");
    }
    let policy = root.join("etc/rekeyd/policy.toml");
    std::fs::write(&policy, "version = 1 # mine\n").expect("it can be written");
    std::fs::write(root.join("usr/lib/systemd/system/rekeyd.service"), "old").expect("it can be written");
    install();
    assert_eq!(std::fs::read_to_string(policy).expect("it is there"), "version = 1 # mine\n");
    let unit = std::fs::read_to_string(root.join("usr/lib/systemd/system/rekeyd.service")).expect("it is there");
    assert_eq!(unit, read("systemd/rekeyd.service"));
    // A directory that was closed stays so, a root directory is where it was typed, and what is half-way goes no further.
    std::fs::set_permissions(root.join("etc/rekeyd"), std::fs::Permissions::from_mode(0o750)).expect("it is ours");
    std::fs::set_permissions(root.join("usr"), std::fs::Permissions::from_mode(0o700)).expect("it is ours");
    install();
    assert_eq!((mode("etc/rekeyd"), mode("usr"), mode("usr/bin")), (0o750, 0o700, 0o755));
    let relative = run(Command::new(unpacked.join("install")).args(["--root", "relative"]).current_dir(home.path()));
    assert!(relative.status.success() && home.path().join("relative/usr/bin/rekeyd").exists(), "{relative:?}");
    let full = home.path().join("full");
    std::fs::create_dir(&full).expect("it can be made");
    fake(&full, "install", "/usr/bin/install \"$@\"; case \"$*\" in *rekeyd-generator*) exit 1 ;; esac");
    fake(&full, "systemd-sysusers", "touch \"$0.asked\"");
    let path = format!("{}:/usr/sbin:/usr/bin:/bin", full.display());
    let ran = run(Command::new(unpacked.join("install")).arg("--root").arg(&root).env("PATH", path));
    assert!(!ran.status.success() && !full.join("systemd-sysusers.asked").exists(), "a copy failed: {ran:?}");
    let generators = std::fs::read_dir(root.join("usr/lib/systemd/system-generators")).expect("it can be read").count();
    assert_eq!(generators, 1, "systemd would run the half one too");
    // What is in the one is in the other.
    let files = |from: &Path| -> BTreeSet<String> {
        let found = run(Command::new("find").args(["usr", "etc", "-type", "f"]).current_dir(from));
        let found = String::from_utf8(found.stdout).expect("text");
        let own = |line: &&str| !line.contains("/zsh/") && !line.ends_with("changelog.gz");
        found.lines().filter(own).map(str::to_owned).collect()
    };
    let deb = home.path().join("deb");
    assert!(run(Command::new("dpkg-deb").arg("-x").arg(&packages.deb).arg(&deb)).status.success());
    assert_eq!(files(&unpacked), files(&deb));
}

// ---- Help ------------------------------------------------------------------------------------------------------------------

/// With signs that mean something to sed and to the shell.
const MAINTAINER: &str = "Search/Rescue & \\1 $(Sons) <it@example.com>";

struct Packages {
    deb: PathBuf,
    tarball: PathBuf,
    _home: tempfile::TempDir,
}

/// Made once for all tests of this file.
fn packages() -> Option<&'static Packages> {
    static MADE: OnceLock<Option<Packages>> = OnceLock::new();
    MADE.get_or_init(|| make(None)).as_ref()
}

fn make(version: Option<&str>) -> Option<Packages> {
    for tool in ["dpkg-deb", "strip", "readelf"] {
        if Command::new(tool).arg("--version").output().is_err() {
            skipped(&format!("{tool} is not here: no package is made"));
            return None;
        }
    }
    let home = temporary();
    let made = run(Command::new("systemd/package")
        .arg(PROGRAM)
        .args(version)
        .env("REKEYD_PACKAGE_OUT", home.path())
        .env("REKEYD_MAINTAINER", MAINTAINER)
        .env("REKEYD_PACKAGE_FAST", "1"));
    let said = String::from_utf8_lossy(&made.stdout).into_owned();
    assert!(made.status.success(), "{made:?}");
    let mut lines = said.lines().rev();
    let (tarball, deb) = (lines.next().expect("a line"), lines.next().expect("two lines"));
    assert!(deb.ends_with(".deb") && tarball.ends_with(".tar.gz"), "{said}");
    Some(Packages { deb: deb.into(), tarball: tarball.into(), _home: home })
}

/// The policy of a fresh installation without the `#` before its example: they stand without a blank, or before an indent.
fn first_policy() -> String {
    let text = read("config/start.toml");
    let mut policy = String::new();
    for line in text.lines() {
        let example = line.strip_prefix('#').filter(|rest| rest.starts_with("  ") || !rest.starts_with([' ', '#']));
        let _ = writeln!(policy, "{}", example.unwrap_or(line));
    }
    policy
}

/// The version of the systemd that is here.
fn systemd() -> Option<u32> {
    let told = Command::new("systemd-analyze").arg("--version").output().ok()?;
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    let version = told.split_whitespace().nth(1).and_then(|word| word.parse().ok());
    if version.is_none() {
        skipped("systemd-analyze is not here: no unit is checked");
    }
    version
}

/// The units with programs that are there, as `verify` looks for them; and what the generator adds on this version.
fn units(version: u32) -> tempfile::TempDir {
    let home = temporary();
    for unit in UNITS {
        let text = adapted(&read(&format!("systemd/{unit}")));
        std::fs::write(home.path().join(unit), text).expect("it can be written");
    }
    fake(home.path(), "systemctl", &format!("echo 'systemd {version} (test)'"));
    let path = format!("{}:/usr/bin:/bin", home.path().display());
    let ran = run(Command::new("systemd/rekeyd-generator").env("PATH", path).arg(home.path()));
    assert!(ran.status.success(), "{ran:?}");
    home
}

fn adapted(unit: &str) -> String {
    let alert = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd/alert");
    unit.replace("/usr/bin/rekeyd", PROGRAM).replace("/usr/lib/rekeyd/alert", &alert.display().to_string())
}

/// What `verify` says about a unit, and all the units it names.
fn verify(home: &tempfile::TempDir, unit: &str) -> BTreeSet<String> {
    let verified = run(Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(home.path().join(unit)));
    let said = String::from_utf8_lossy(&verified.stderr).into_owned();
    let about_us = said.lines().filter(|line| line.contains("rekeyd"));
    about_us.map(|line| line.rsplit('/').next().unwrap_or(line).to_owned()).collect()
}

/// What is known to be said: before 253 there is no such type, which is why there is a generator.
fn complaints(version: u32) -> BTreeSet<String> {
    let unit = read("systemd/rekeyd.service");
    let line = unit.lines().position(|line| line == "Type=notify-reload").expect("the type") + 1;
    let known = format!("rekeyd.service:{line}: Failed to parse service type, ignoring: notify-reload");
    if version < 253 { BTreeSet::from([known]) } else { BTreeSet::new() }
}

/// A program of one line.
fn fake(directory: &Path, name: &str, line: &str) {
    let path = directory.join(name);
    std::fs::write(&path, format!("#!/bin/sh\n{line}\n")).expect("it can be written");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("it is ours");
}

/// The fenced blocks of a language, without the indent of the list they may stand in.
fn blocks(page: &str, language: &str) -> Vec<String> {
    let (mut found, mut open): (Vec<String>, Option<usize>) = (Vec::new(), None);
    for line in page.lines() {
        let indent = line.len() - line.trim_start().len();
        match open {
            None if line.trim() == format!("```{language}") => {
                open = Some(indent);
                found.push(String::new());
            }
            Some(_) if line.trim() == "```" => open = None,
            Some(indent) => {
                let block = found.last_mut().expect("one is open");
                let _ = writeln!(block, "{}", line.get(indent..).unwrap_or_default());
            }
            None => {}
        }
    }
    found
}

fn skipped(what: &str) {
    println!("skipped: {what}");
}

fn run(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

fn temporary() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory can be made")
}

fn read(file: &str) -> String {
    std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{file}: {error}"))
}
