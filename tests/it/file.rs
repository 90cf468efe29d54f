//! The target `file`: what it refuses, what an application sees while it changes, what `on_change` decides, and a daemon that dies
//! between file and command.

use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use rekeyd::model::{KeyId, Material, Reason, Secret, TargetSpec};
use rekeyd::ports::{Fault, JobState, Reading, Target};
use rekeyd::table;
use rekeyd::target::{KINDS, Kind};

use super::contract::context;
use super::support::{Disk, PolicyText, SERVICE, Scene, wait_until, wait_until_or};

/// A folder that only we may write, and the file to be in it.
struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Home {
        Home(tempfile::tempdir().expect("a temporary directory can be made"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The target of `key` in it, with more lines of policy.
    fn target(&self, more: &str) -> Arc<dyn Target> {
        connect(&self.path("key"), more).expect("it connects")
    }
}

fn connect(path: &Path, more: &str) -> Result<Arc<dyn Target>, Fault> {
    let text = format!("path = {path:?}\n{more}\n");
    let spec = table::read(&text, "policy.toml", |table| (kind().read)(table, None));
    let spec: TargetSpec = spec.unwrap_or_else(|report| panic!("{report}")).expect("it is sound");
    (kind().connect)(&spec, None, &context())
}

fn kind() -> &'static Kind {
    KINDS.iter().find(|kind| kind.name == "file").expect("it is there")
}

fn key(id: &str, secret: &str) -> Material {
    Material::AccessKey { id: KeyId::new(id), secret: Secret::new(secret.to_owned()) }
}

fn old() -> Material {
    key("AKIAOLD", "old-secret-0123456789/+AAAA")
}

fn new() -> Material {
    key("AKIANEW", "new-secret-0123456789/+BBBB")
}

/// Reads a file of variables as systemd does: one level of double quotes, a backslash before the four that need it.
fn variables(text: &str) -> BTreeMap<String, String> {
    let line = |line: &str| {
        let (name, value) = line.split_once('=')?;
        let value = value.strip_prefix('"')?.strip_suffix('"')?;
        let mut plain = String::new();
        let mut characters = value.chars();
        while let Some(character) = characters.next() {
            plain.push(if character == '\\' { characters.next()? } else { character });
        }
        Some((name.to_owned(), plain))
    };
    text.lines().map(|text| line(text).unwrap_or_else(|| panic!("{text:?} is no variable"))).collect()
}

fn end(material: &Material) -> Reading {
    Reading::Tail(material.secret().tail().expect("it is long enough"))
}

#[tokio::test]
async fn a_key_is_pushed_read_back_and_told_from_others() {
    let home = Home::new();
    let target = home.target("format = \"json\"");
    target.compare_with(vec![old(), new()]);
    let found = target.inspect().await.expect("there is room for it");
    assert_eq!((found.reading, found.jobs), (Reading::Nothing, Vec::new()));
    assert!(found.holder.as_str().ends_with("/key"), "{}", found.holder);
    for material in [old(), new(), new()] {
        assert_eq!(target.push(&material).await.expect("it is written").job, None);
        assert_eq!(target.read().await, Ok(end(&material)));
    }
    let text = std::fs::read_to_string(home.path("key")).expect("it is there");
    let read: BTreeMap<String, String> = serde_json::from_str(&text).expect("it is JSON");
    assert_eq!(read["access_key_id"], "AKIANEW");
    assert_eq!(read["secret_access_key"], new().secret().expose());
    // A person put another id there, or another secret that ends alike: that is no key of ours, and is told from one.
    for (from, to) in [("AKIANEW", "AKIAODD"), ("new-secret", "odd-secret")] {
        std::fs::write(home.path("key"), text.replace(from, to)).expect("it can be written");
        let shown = target.read().await.expect("it is read");
        assert!(shown.tail().is_some() && shown != end(&new()) && shown != end(&old()), "{shown:?}");
    }
    // One that ends otherwise is shown by its end, as every target shows it.
    std::fs::write(home.path("key"), text.replace("BBBB", "CCCC")).expect("it can be written");
    assert_eq!(target.read().await.map(|shown| shown.tail().map(ToString::to_string)), Ok(Some("CCCC".to_owned())));
    // Without anything to compare it with, the end is all there is.
    target.compare_with(Vec::new());
    std::fs::write(home.path("key"), text.replace("AKIANEW", "AKIAODD")).expect("it can be written");
    assert_eq!(target.read().await, Ok(end(&new())));
    std::fs::write(home.path("key"), "").expect("it can be written");
    assert_eq!(target.read().await, Ok(Reading::Nothing));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_never_reads_half_a_key() {
    let home = Home::new();
    let target = home.target("format = \"env\"");
    target.push(&old()).await.expect("it is written");
    let over = Arc::new(AtomicBool::new(false));
    let seen = Arc::new(Mutex::new(BTreeMap::new()));
    let application = std::thread::spawn({
        let (over, seen, path) = (over.clone(), seen.clone(), home.path("key"));
        move || {
            while !over.load(Ordering::Relaxed) {
                let read = variables(&std::fs::read_to_string(&path).expect("it is there at every moment"));
                let pair = (read["AWS_ACCESS_KEY_ID"].clone(), read["AWS_SECRET_ACCESS_KEY"].clone());
                *seen.lock().expect("nobody panicked").entry(pair).or_insert(0) += 1;
            }
        }
    });
    let whole = [old(), new()].map(|key| (key.key().to_string(), key.secret().expose().to_owned()));
    // While nothing changes, the application has all the time it takes to see what is there.
    for (key, pair) in [(old(), &whole[0]), (new(), &whole[1])] {
        target.push(&key).await.expect("it is written");
        let is_seen = || application.is_finished() || seen.lock().expect("nobody panicked").contains_key(pair);
        tokio::task::block_in_place(|| wait_until("the application reads it", is_seen));
    }
    for _ in 0..40 {
        target.push(&old()).await.expect("it is written");
        target.push(&new()).await.expect("it is written");
    }
    over.store(true, Ordering::Relaxed);
    application.join().expect("every read was whole");
    let seen = seen.lock().expect("nobody panicked").clone();
    assert!(seen.keys().all(|pair| whole.contains(pair)) && seen.len() == whole.len(), "{seen:?}");
}

#[tokio::test]
async fn the_file_is_for_those_it_is_meant_for() {
    let home = Home::new();
    let beside = home.path(".key.rekeyd");
    std::fs::write(&beside, "left by one that was killed").expect("it can be written");
    home.target("").push(&old()).await.expect("it is written");
    let about = |name: &str| std::fs::metadata(home.path(name)).expect("it is there");
    assert_eq!(about("key").mode() & 0o7777, 0o600);
    assert!(!beside.exists());
    home.target("mode = \"0440\"").push(&new()).await.expect("its owner need not be able to write it");
    assert_eq!(about("key").mode() & 0o7777, 0o440);
    if rustix::process::geteuid().is_root() {
        home.target("owner = \"4711:4712\"\nmode = \"0640\"").push(&old()).await.expect("it is written");
        assert_eq!((about("key").uid(), about("key").gid(), about("key").mode() & 0o7777), (4711, 4712, 0o640));
    }
}

/// With the rights that docs/places.md gives the daemon's user, and no others.
#[tokio::test]
async fn a_file_of_another_owner_needs_the_rights_the_page_names_and_no_more() {
    const WHO: &str = "REKEYD_TEST_FILE_OF_ANOTHER";
    let more = "owner = \"root:4712\"\nmode = \"0640\"";
    if let Some(path) = std::env::var_os(WHO).map(PathBuf::from) {
        assert!(!rustix::process::geteuid().is_root());
        let target = connect(&path, more).expect("it connects");
        for key in [old(), new()] {
            target.inspect().await.expect("it could be written");
            target.push(&key).await.expect("it is written");
            assert_eq!(target.read().await, Ok(end(&key)));
        }
        return;
    }
    let has_setpriv = std::process::Command::new("setpriv").arg("--dump").output().is_ok();
    if !rustix::process::geteuid().is_root() || !has_setpriv {
        println!("NOT RUN: giving some of root's rights to another user needs root, and setpriv");
        return;
    }
    let page = std::fs::read_to_string("docs/places.md").expect("it is there");
    for line in ["AmbientCapabilities=", "CapabilityBoundingSet="] {
        let named = page.lines().find_map(|text| text.strip_prefix(line)).expect("the page names them");
        let named: Vec<String> = named.split(' ').map(|name| name.replace("CAP_", "+").to_lowercase()).collect();
        let rights = |without: &str| {
            let left = named.iter().filter(|name| *name != without).map(String::as_str);
            ["-all"].into_iter().chain(left).collect::<Vec<_>>().join(",")
        };
        let run = |rights: &str| {
            let home = Home::new();
            chmod(home.0.path(), 0o755);
            let mut run = std::process::Command::new("setpriv");
            run.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--no-new-privs"]);
            run.args([
                format!("--inh-caps={rights}"),
                format!("--ambient-caps={rights}"),
                format!("--bounding-set={rights}"),
            ]);
            run.arg(std::env::current_exe().expect("it has a path")).env(WHO, home.path("key"));
            run.args(["--exact", "file::a_file_of_another_owner_needs_the_rights_the_page_names_and_no_more"]);
            let ran = run.output().expect("it can be run");
            let about =
                std::fs::metadata(home.path("key")).map(|about| (about.uid(), about.gid(), about.mode() & 0o7777));
            (String::from_utf8_lossy(&ran.stdout).into_owned(), about.ok())
        };
        let (said, about) = run(&rights(""));
        assert!(said.contains("1 passed"), "{said}");
        assert_eq!(about, Some((0, 4712, 0o640)));
        for one in &named {
            let (said, about) = run(&rights(one));
            assert!(!said.contains("1 passed") && about.is_none(), "without {one} it works too: {said}");
        }
    }
}

#[tokio::test]
async fn a_file_that_others_read_is_not_locked_away() {
    let home = Home::new();
    home.target("").push(&old()).await.expect("it is written");
    let path = home.path("key");
    let shut_out = async |more: &str, what: &str| {
        let refused = home.target(more).inspect().await;
        let Err(Fault::Refused { reason: Reason::PolicyMismatch, why }) = refused else {
            panic!("{what}: {refused:?}")
        };
        assert!(why.contains(what), "{why}");
    };
    let is_fine =
        async |more: &str| drop(home.target(more).inspect().await.unwrap_or_else(|why| panic!("{more}: {why:?}")));
    is_fine("").await;
    for mode in [0o640, 0o644, 0o604] {
        chmod(&path, mode);
        // Whoever reads it as one of all others is in no group of the file's.
        let whose = if mode == 0o640 {
            "owner = \"root:root\" and"
        } else {
            "owner = \":GROUP\" and mode = \"0640\", with a group"
        };
        shut_out("", "so that who reads it now could not any more; say in the policy whose it is to be").await;
        if rustix::process::geteuid().is_root() || mode != 0o640 {
            shut_out("", whose).await;
        }
        is_fine("mode = \"0600\"").await;
    }
    chmod(&path, 0o400);
    is_fine("").await;
    if rustix::process::geteuid().is_root() {
        let give = |user, group| std::os::unix::fs::chown(&path, Some(user), Some(group)).expect("root may");
        give(0, 4712);
        is_fine("").await;
        chmod(&path, 0o640);
        shut_out(
            "",
            "it is root:4712 0640 and would become root:root 0600, so that who reads it now could not any more; say in the policy \
             whose it is to be, as in owner = \"root:4712\" and mode = \"0640\", or give it that owner and mode now",
        )
        .await;
        shut_out("mode = \"0640\"", "would become root:root 0640").await;
        is_fine("mode = \"0600\"").await;
        is_fine("mode = \"0640\"\nowner = \":4712\"").await;
        is_fine("mode = \"0640\"\nowner = \"root:root\"").await;
        // A directory that hands its group on.
        std::os::unix::fs::chown(home.0.path(), None, Some(4712)).expect("root may");
        chmod(home.0.path(), 0o2755);
        is_fine("mode = \"0640\"").await;
        give(4711, 4712);
        shut_out("mode = \"0640\"", "it is 4711:4712 0640 and would become root:4712 0640").await;
        is_fine("mode = \"0640\"\nowner = \"root\"").await;
        give(0, 0);
        std::os::unix::fs::chown(home.0.path(), None, Some(0)).expect("root may");
        chmod(home.0.path(), 0o700);
    }
    a_list_is_not_lost(&home).await;
}

/// A list of the file's, which lets another user read it, is lost with it; one that the directory hands on is not.
async fn a_list_is_not_lost(home: &Home) {
    let path = home.path("key");
    chmod(&path, 0o600);
    let list = |on: &Path, kind: &str| {
        // acl(5) as Linux stores it: version 2, then tag, rights and user of each line.
        const NOBODY: u32 = u32::MAX;
        let lines: [(u16, u16, u32); 5] =
            [(0x01, 6, NOBODY), (0x02, 4, 4713), (0x04, 0, NOBODY), (0x10, 4, NOBODY), (0x20, 0, NOBODY)];
        let line = |(tag, rights, user): (u16, u16, u32)| {
            [&tag.to_le_bytes()[..], &rights.to_le_bytes()[..], &user.to_le_bytes()[..]].concat()
        };
        let bytes = [2_u32.to_le_bytes().to_vec(), lines.map(line).concat()].concat();
        rustix::fs::setxattr(on, format!("system.posix_acl_{kind}"), &bytes, rustix::fs::XattrFlags::empty())
    };
    if let Err(error) = list(&path, "access") {
        println!("NOT RUN: a file's access list: {error}");
        return;
    }
    let listed = home.target("mode = \"0640\"");
    let refused = listed.inspect().await;
    let Err(Fault::Refused { reason: Reason::PolicyMismatch, why }) = refused else { panic!("{refused:?}") };
    assert!(why.contains("its access list (getfacl) would be lost with it"), "{why}");
    list(home.0.path(), "default").expect("its directory may have one too");
    for key in [new(), old()] {
        listed.push(&key).await.expect("it is written");
        listed.inspect().await.expect("its list came from the directory, and will again");
    }
    let mut found = [0; 256];
    let length = rustix::fs::getxattr(&path, "system.posix_acl_access", &mut found[..]).expect("it has one");
    assert!(found[..length].windows(8).any(|line| line == [2, 0, 4, 0, 0x69, 0x12, 0, 0]), "{:?}", &found[..length]);
}

#[tokio::test]
async fn what_others_could_change_is_refused_and_left_alone() {
    let home = Home::new();
    let target = home.target("");
    let refused = async |reason: Reason, what: &str| {
        for fault in
            [target.inspect().await.map(drop), target.read().await.map(drop), target.push(&new()).await.map(drop)]
        {
            match fault {
                Err(Fault::Refused { reason: found, why }) => {
                    assert!(found == reason && why.contains(what), "{found}: {why}");
                }
                other => panic!("{what}: {other:?}"),
            }
        }
        assert!(!home.path(".key.rekeyd").exists());
    };
    let path = home.path("key");
    std::fs::write(home.path("elsewhere"), "safe").expect("it can be written");
    symlink(home.path("elsewhere"), &path).expect("a link can be made");
    refused(Reason::TargetChanged, "it is a symbolic link; name the file itself in the policy, or remove the link")
        .await;
    assert_eq!(std::fs::read_to_string(home.path("elsewhere")).expect("it is there"), "safe");
    std::fs::remove_file(&path).expect("it is there");

    std::fs::create_dir(&path).expect("it can be made");
    refused(Reason::TargetChanged, "it is a directory").await;
    std::fs::remove_dir(&path).expect("it is empty");

    std::fs::write(&path, "{}").expect("it can be written");
    chmod(&path, 0o620);
    refused(Reason::TargetChanged, "others than its owner may write it").await;
    chmod(&path, 0o600);
    std::fs::write(&path, "{\"access_key_id\": \"a\", \"region\": \"eu\"}").expect("it can be written");
    refused(Reason::TargetChanged, "it also holds `region`, which would be lost; give the key a file of its own").await;
    std::fs::write(&path, "root:x:0:0\n").expect("it can be written");
    refused(Reason::TargetChanged, "it is no JSON object of texts").await;
    assert_eq!(std::fs::read_to_string(&path).expect("it is there"), "root:x:0:0\n");
    std::fs::remove_file(&path).expect("it is there");

    chmod(home.0.path(), 0o770);
    refused(Reason::MissingRight, "others may write the directory").await;
    chmod(home.0.path(), 0o700);
    target.push(&new()).await.expect("now it is written");

    // Nor could anybody put another directory on the way.
    std::fs::create_dir_all(home.path("app/keys")).expect("it can be made");
    chmod(&home.path("app/keys"), 0o700);
    let below = connect(&home.path("app/keys/key"), "").expect("it connects");
    for (mode, is_safe) in [(0o775, false), (0o757, false), (0o755, true), (0o1777, true)] {
        chmod(&home.path("app"), mode);
        let why = format!("others may write the directory {}, and so put", home.path("app").display());
        match below.inspect().await {
            Ok(_) => assert!(is_safe, "{mode:o}"),
            Err(fault) => assert!(!is_safe && format!("{fault:?}").contains(&why), "{mode:o}: {fault:?}"),
        }
    }

    let nowhere = connect(&home.path("no/where/key"), "").expect("it connects");
    let fault = nowhere.inspect().await.expect_err("there is no such directory");
    assert!(matches!(&fault, Fault::Refused { reason: Reason::NotFound, why } if why.contains("make it")), "{fault:?}");
}

fn chmod(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("it is ours");
}

#[tokio::test]
async fn what_cannot_hold_the_key_is_said_before_one_is_made() {
    let home = Home::new();
    let text = format!("path = {:?}\nformat = \"raw\"\n", home.path("key"));
    let spec = table::read(&text, "policy.toml", |table| (kind().read)(table, None));
    let mut spec = spec.expect("it is sound").expect("it is a target");
    (kind().expect)(&mut spec, new().kind());
    let target = (kind().connect)(&spec, None, &context()).expect("it connects");
    for fault in [target.inspect().await.map(drop), target.push(&new()).await.map(drop)] {
        let Err(Fault::Refused { reason: Reason::PolicyMismatch, why }) = fault else { panic!("{fault:?}") };
        assert!(why.contains("holds the secret alone; make it \"json\" or \"env\""), "{why}");
    }
    for (more, what) in [
        ("owner = \"no-such-user\"", "there is no user `no-such-user` in /etc/passwd"),
        ("on_change = \"/no/such/program\"", "on_change: /no/such/program cannot be looked at"),
    ] {
        let Err(Fault::Refused { reason: Reason::PolicyMismatch, why }) = connect(&home.path("key"), more) else {
            panic!("{more} connects");
        };
        assert!(why.contains(what), "{why}");
    }
}

#[tokio::test]
async fn on_change_decides_whether_a_push_is_done() {
    let home = Home::new();
    let on_change =
        |script: &str| home.target(&format!("on_change = [\"/bin/sh\", \"-c\", {script:?}]\ntimeout = \"20s\"\n"));
    let seen = home.path("seen");
    let target = on_change(&format!("env > {0}; cp {1} {0}.key", seen.display(), home.path("key").display()));
    assert_eq!(target.push(&new()).await.expect("it is done").job, None);
    let environment = std::fs::read_to_string(&seen).expect("it was run");
    let names: Vec<&str> = environment.lines().filter_map(|line| line.split('=').next()).collect();
    assert!(names.iter().all(|name| ["PATH", "LANG", "PWD", "SHLVL", "_", "OLDPWD"].contains(name)), "{names:?}");
    let copy = std::fs::read_to_string(home.path("seen.key")).expect("it was there when the command ran");
    assert!(copy.contains("AKIANEW"));

    let target = on_change(&format!("echo no: $(cat {}) >&2; exit 7", home.path("key").display()));
    target.know(vec![old().secret().clone()]);
    let job =
        target.push(&new()).await.expect("the file is written").job.expect("and the command is to be asked about");
    assert_eq!(target.read().await, Ok(end(&new())));
    let Ok(JobState::Failed(why)) = target.poll(&job).await else { panic!("it failed") };
    assert!(why.contains("on_change did not succeed: /bin/sh ended with exit code 7, and said: no: {"), "{why}");
    assert!(why.contains("***") && !why.contains(new().secret().expose()) && why.chars().count() < 400, "{why}");
    // Another process does not know how it went.
    let after = on_change("true");
    assert!(matches!(after.poll(&job).await, Ok(JobState::Vanished(_))));
    assert_eq!(after.jobs().await, Ok(Vec::new()));

    let slow = home.target("on_change = [\"/bin/sleep\", \"600\"]\ntimeout = \"300ms\"\n");
    let job = slow.push(&old()).await.expect("the file is written").job.expect("and the command has no end");
    let Ok(JobState::Failed(why)) = slow.poll(&job).await else { panic!("it failed") };
    assert!(why.contains("/bin/sleep had not ended after 0.3 s and was killed, and said nothing"), "{why}");
}

#[tokio::test]
async fn a_full_disk_is_waited_for_and_a_read_only_one_is_told() {
    let home = Home::new();
    let Some(disk) = Disk::mount(home.path("disk")) else { return };
    chmod(&home.path("disk"), 0o755);
    let path = home.path("disk/key");
    let target = connect(&path, "").expect("it connects");
    target.push(&old()).await.expect("there is room");
    let before = std::fs::read(&path).expect("it is there");
    disk.fill_up_to(0);
    let fault = target.push(&new()).await.expect_err("there is no room");
    assert!(matches!(&fault, Fault::Retry { after: Some(_), why } if why.contains("the disk is full")), "{fault:?}");
    assert_eq!(std::fs::read(&path).expect("it is there"), before);
    assert!(!home.path("disk/.key.rekeyd").exists());
    disk.empty();
    target.push(&new()).await.expect("there is room again");
    disk.set_read_only(true);
    for fault in [target.inspect().await.map(drop), target.push(&old()).await.map(drop)] {
        let Err(Fault::Refused { reason: Reason::MissingRight, why }) = fault else { panic!("{fault:?}") };
        assert!(why.contains("read-only; mount it writable"), "{why}");
    }
}

/// A rotation of one service whose key stands in ArcGIS and in a file.
fn policy(scene: &Scene, on_change: &str) -> PolicyText {
    let target = format!(
        "  [[service.target]]\n  kind = \"file\"\n  path = {:?}\n  on_change = [\"/bin/sh\", {:?}]\n  timeout = \"25s\"\n",
        scene.path("app/key.json"),
        scene.path(on_change),
    );
    PolicyText { more: target, ..PolicyText::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_dies_before_the_command_has_ended_runs_it_again() {
    let scene = Scene::new().await;
    tokio::task::spawn_blocking(move || {
        std::fs::create_dir(scene.path("app")).expect("it can be made");
        chmod(&scene.path("app"), 0o755);
        let (go, runs) = (scene.path("go"), scene.path("runs"));
        let script = format!("echo x >> {}; while ! [ -e {} ]; do sleep 0.05; done", runs.display(), go.display());
        std::fs::write(scene.path("tell.sh"), script).expect("it can be written");
        scene.write_policy(&policy(&scene, "tell.sh"));
        let count = || std::fs::read_to_string(&runs).map_or(0, |text| text.lines().count());
        let daemon = scene.start_adopted();
        let ran = scene.run(&["rotate", SERVICE]);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        wait_until("the command runs", || count() == 1);
        daemon.kill9();
        let minted = scene.aws.mints();
        let _daemon = scene.start();
        wait_until("it runs again", || count() == 2);
        std::fs::write(&go, "").expect("it can be written");
        scene.wait_done(1);
        assert_eq!(scene.aws.mints(), minted, "the same key was pushed again");
        scene.assert_one_live_key();
        let text = std::fs::read_to_string(scene.path("app/key.json")).expect("it is there");
        assert!(text.contains(&scene.aws.keys(super::support::USER)[0].id));
        scene.assert_no_secret_seen();
    })
    .await
    .expect("the story ends well");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_fails_is_run_again_and_then_stops_the_rotation_with_both_keys_alive() {
    let scene = Scene::new().await;
    tokio::task::spawn_blocking(move || {
        std::fs::create_dir(scene.path("app")).expect("it can be made");
        chmod(&scene.path("app"), 0o755);
        let (works, runs) = (scene.path("works"), scene.path("runs"));
        let script =
            format!("echo x >> {}; [ -e {} ] || {{ echo not today >&2; exit 1; }}", runs.display(), works.display());
        std::fs::write(scene.path("tell.sh"), script).expect("it can be written");
        scene.write_policy(&policy(&scene, "tell.sh"));
        let _daemon = scene.start_adopted();
        let ran = scene.run(&["rotate", SERVICE]);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        let halted = scene.wait_for("state", "halted");
        assert_eq!(halted["reason"], "stuck-between", "{halted}");
        let message = halted["message"].as_str().expect("it says why");
        assert!(message.contains("and said: not today") && message.contains("both keys are alive"), "{message}");
        let pushed = std::fs::read_to_string(&runs).expect("it was run").lines().count();
        assert!(pushed >= 3, "{pushed}");
        assert_eq!(scene.aws.keys(super::support::USER).iter().filter(|key| key.active).count(), 2);
        std::fs::write(&works, "").expect("it can be written");
        let ran = scene.run(&["retry", SERVICE]);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        scene.wait_done(1);
        scene.assert_one_live_key();
        scene.assert_no_secret_seen();
    })
    .await
    .expect("the story ends well");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_somebody_changed_is_told_as_drift_and_never_overwritten() {
    let scene = Scene::new().await;
    tokio::task::spawn_blocking(move || {
        std::fs::create_dir(scene.path("app")).expect("it can be made");
        chmod(&scene.path("app"), 0o755);
        std::fs::write(scene.path("tell.sh"), "exit 0\n").expect("it can be written");
        scene.write_policy(&policy(&scene, "tell.sh"));
        let _daemon = scene.start_adopted();
        assert_eq!(scene.run(&["rotate", SERVICE, "--wait=done"]).code, Some(0));
        let path = scene.path("app/key.json");
        let ours = std::fs::read_to_string(&path).expect("it is there");
        let id = scene.aws.keys(super::support::USER)[0].id.clone();
        let theirs = ours.replace(&id, "AKIASOMEBODYELSE0000");
        std::fs::write(&path, &theirs).expect("it can be written");
        let seen = || scene.run(&["status"]).out;
        wait_until_or("the drift is told", || seen().contains("drift").then_some(()), seen);
        assert_eq!(scene.run(&["rotate", SERVICE]).code, Some(0));
        let halted = scene.wait_for("state", "halted");
        assert_eq!(halted["reason"], "target-changed", "{halted}");
        assert_eq!(std::fs::read_to_string(&path).expect("it is there"), theirs);
        std::fs::write(&path, ours).expect("it can be written");
        assert_eq!(scene.run(&["retry", SERVICE]).code, Some(0));
        scene.wait_done(2);
        scene.assert_one_live_key();
    })
    .await
    .expect("the story ends well");
}
