//! The programs in `config/examples/postgres` against a real PostgreSQL, which really refuses a wrong password: logins that rekeyd makes,
//! disables and drops, and a foreign server of another database that is handed each of them.
//!
//! Run where `REKEYD_POSTGRES` names the folder of PostgreSQL's programs (`tests/run` does) and there is a python3. The programs log in
//! as a user with the rights that docs/commands.md lists, by the statements that stand there.

use std::io::Write;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rekeyd::model::{IntentId, KeyId, Material, Reason, Secret};
use rekeyd::ports::{Fault, Probe, Reading};

use super::super::support::{SERVICE, Scene, wait_until};
use super::{issuer_of, target_of};

/// PostgreSQL runs as nobody where the tests run as root, which it refuses to.
const NOBODY: &str = "65534";

/// A server of its own, ended when dropped.
struct Server {
    child: Child,
    home: tempfile::TempDir,
    bin: PathBuf,
    python: String,
    port: u16,
}

impl Server {
    /// `None`, and said, where there is no PostgreSQL or no Python.
    fn start() -> Option<Server> {
        let Some(bin) = std::env::var_os("REKEYD_POSTGRES").map(PathBuf::from) else {
            return not_run("it needs PostgreSQL, which tests/run provides");
        };
        // A wrapper that looks for an interpreter would not find one in a bare environment.
        let asked = Command::new("python3").args(["-c", "import sys; print(sys.executable)"]).output();
        let Some(python) = asked.ok().filter(|asked| asked.status.success()) else {
            return not_run("there is no python3");
        };
        let python = String::from_utf8(python.stdout).expect("a path").trim().to_owned();
        let home = tempfile::tempdir().expect("a temporary directory can be made");
        let root = rustix::process::geteuid().is_root();
        let number = NOBODY.parse().ok().filter(|_| root);
        std::os::unix::fs::chown(home.path(), number, number).expect("root may give it away");
        let run = |program: &str| {
            let mut command = Command::new(if root { "setpriv".into() } else { bin.join(program) });
            if root {
                command.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", "--pdeathsig", "TERM"]);
                command.arg(bin.join(program));
            }
            command.env("LC_ALL", "C.UTF-8").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            command
        };
        let data = home.path().join("data");
        let mut made = run("initdb");
        let made = made.arg("-D").arg(&data).args(["-U", "postgres", "--no-sync"]);
        let made = made.args(["--auth-local=trust", "--auth-host=scram-sha-256"]).status().expect("it can be run");
        assert!(made.success(), "initdb: {made}");
        let port = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port").port();
        let mut child = run("postgres");
        let child = child.arg("-D").arg(&data).arg("-k").arg(home.path()).args(["-p", &port.to_string()]);
        let child = child.args(["-c", "listen_addresses=127.0.0.1", "-c", "fsync=off", "-c", "log_statement=all"]);
        let child = child.args(["-c", "logging_collector=on", "-c", "log_directory=log"]).spawn().expect("it starts");
        let server = Server { child, home, bin, python, port };
        wait_until("PostgreSQL answers", || server.psql("postgres", "select 1").status.success());
        let rights = rights();
        for statement in [
            &rights[0],
            "create table parcels as select 42 as id",
            "grant select on parcels to gis_reader",
            "create database gis",
        ] {
            server.does("postgres", statement);
        }
        let port = server.port;
        for statement in [
            "create extension postgres_fdw".to_owned(),
            format!(
                "create server enterprise foreign data wrapper postgres_fdw options (host '127.0.0.1', port '{port}', dbname 'postgres')"
            ),
            "create foreign table parcels (id int) server enterprise".to_owned(),
            "create role gis_app".to_owned(),
            "grant select on parcels to gis_app".to_owned(),
            rights[1].clone(),
        ] {
            server.does("gis", &statement);
        }
        Some(server)
    }

    /// What a person does as the superuser.
    fn does(&self, database: &str, statement: &str) {
        let done = self.psql(database, statement);
        assert!(done.status.success(), "{statement}: {}", String::from_utf8_lossy(&done.stderr));
    }

    fn psql(&self, database: &str, statement: &str) -> Output {
        let mut psql = Command::new(self.bin.join("psql"));
        psql.args(["-X", "-q", "-A", "-t", "-w", "-h"]).arg(self.home.path());
        psql.args(["-p", &self.port.to_string(), "-U", "postgres", "-d", database, "-c", statement]);
        psql.stdin(Stdio::null()).output().expect("psql is there")
    }

    /// The lines of policy that run one of the shipped programs here.
    fn program(&self, name: &str, args: &[&str], database: &str) -> String {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/examples/postgres").join(name);
        let psql = self.bin.join("psql").display().to_string();
        let args: Vec<&str> = args.iter().copied().chain(["--psql", &psql]).collect();
        let args: Vec<String> = args.iter().map(|arg| format!("{arg:?}")).collect();
        format!(
            "program = {:?}\nargs = [{script:?}, {}]\ntimeout = \"8s\"\n\
             environment = [\"PGHOST={}\", \"PGPORT={}\", \"PGUSER=rekeyd\", \"PGDATABASE={database}\"]\n",
            self.python,
            args.join(", "),
            self.home.path().display(),
            self.port
        )
    }

    fn logins(&self) -> String {
        let probe = format!("host=127.0.0.1 port={} dbname=postgres", self.port);
        let text = self.program("logins", &["--group", "gis_reader", "--probe", &probe], "postgres");
        format!("{text}shape = \"client-named\"\nsettle = \"0s\"\n")
    }

    fn mapping(&self) -> String {
        self.program("mapping", &["--server", "enterprise", "--for", "gis_app"], "gis")
    }

    /// Everything the server wrote down, all statements among it.
    fn log(&self) -> String {
        let folder = std::fs::read_dir(self.home.path().join("data/log")).expect("it keeps a log").flatten();
        folder.map(|entry| std::fs::read_to_string(entry.path()).unwrap_or_default()).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // SIGINT is PostgreSQL's fast shutdown; it leaves no process behind.
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::INT);
        }
        let _ = self.child.wait();
    }
}

/// Past the test harness, which keeps what is printed to itself where a test passes.
fn not_run(why: &str) -> Option<Server> {
    let test = std::thread::current().name().unwrap_or_default().to_owned();
    let _ = writeln!(std::io::stderr(), "NOT RUN: {test}: {why}");
    None
}

/// The statements of docs/commands.md that give the two programs their rights: for `logins`, and for `mapping`.
fn rights() -> [String; 2] {
    let page = std::fs::read_to_string("docs/commands.md").expect("it is there");
    let blocks: Vec<String> = page
        .split("\n```sql\n")
        .skip(1)
        .filter_map(|rest| rest.split_once("```"))
        .map(|(sql, _)| sql.to_owned())
        .collect();
    blocks.try_into().expect("there are two")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_in_use_is_ended_with_its_sessions() {
    let Some(server) = Server::start() else { return };
    let (_, logins) = issuer_of(&server.logins());
    let sessions = |login: &KeyId| {
        let count = format!("select count(*) from pg_stat_activity where usename = '{login}'");
        String::from_utf8_lossy(&server.psql("postgres", &count).stdout).trim().to_owned()
    };
    let used = async |intent: &str| {
        let login = logins.mint(&IntentId::new(intent), None).await.expect("mints").material;
        let mut session = Command::new(server.bin.join("psql"));
        session.args(["-X", "-w", "-h", "127.0.0.1", "-p", &server.port.to_string(), "-d", "postgres"]);
        session.args(["-U", login.key().as_str(), "-c", "select pg_sleep(600)"]);
        session.env("PGPASSWORD", login.secret().expose());
        session.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let session = session.spawn().expect("psql is there");
        tokio::task::block_in_place(|| wait_until("it is in use", || sessions(login.key()) == "1"));
        (login, session)
    };
    let (login, mut session) = used("one").await;
    logins.delete(login.key()).await.expect("deletes");
    assert_eq!(logins.list().await.expect("lists").keys, Vec::new());
    let is_over = || session.try_wait().is_ok_and(|ended| ended.is_some());
    tokio::task::block_in_place(|| wait_until("its session is over", is_over));
    // Without the right to end them it is not dropped behind their backs.
    server.does("postgres", "revoke pg_signal_backend from rekeyd");
    let (login, mut session) = used("two").await;
    let refused = logins.delete(login.key()).await;
    let Err(Fault::Refused { reason: Reason::MissingRight, why }) = refused else { panic!("{refused:?}") };
    assert!(why.contains("or pg_signal_backend (docs/commands.md): ERROR:"), "{why}");
    assert_eq!(logins.list().await.expect("lists").keys.len(), 1);
    session.kill().and_then(|()| session.wait()).expect("it is ours");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mapping_is_written_by_an_owner_who_may_not_look_into_it() {
    let Some(server) = Server::start() else { return };
    server.does("gis", "revoke gis_app from rekeyd");
    let (_, mapping) = target_of(&server.mapping());
    assert_eq!(mapping.inspect().await.expect("answers").reading, Reading::Nothing);
    let (_, logins) = issuer_of(&server.logins());
    for intent in ["one", "two"] {
        let key = logins.mint(&IntentId::new(intent), None).await.expect("mints").material;
        mapping.compare_with(vec![key.clone()]);
        for _ in 0..2 {
            mapping.push(&key).await.expect("it is handed over, as often as it comes");
            assert_eq!(mapping.read().await, Ok(Reading::Hidden));
            assert_eq!(mapping.inspect().await.expect("answers").reading, Reading::Hidden);
        }
        assert!(read_through(&server).status.success());
        server.does("gis", "grant gis_app to rekeyd");
        assert_eq!(mapping.read().await.map(|shown| shown.tail().cloned()), Ok(key.secret().tail()));
        server.does("gis", "revoke gis_app from rekeyd");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mapping_that_may_not_be_written_or_not_in_private_is_refused_before_a_key_is_made() {
    let Some(server) = Server::start() else { return };
    let (_, mapping) = target_of(&server.mapping());
    let key = Material::AccessKey { id: KeyId::new("a"), secret: Secret::new("secret-0123456789'AAAA".to_owned()) };
    for (change, back, what) in [
        (
            "revoke set on parameter log_statement from rekeyd",
            "grant set on parameter log_statement to rekeyd",
            "the server would log the password: log_statement is all here",
        ),
        ("alter server enterprise owner to postgres", "alter server enterprise owner to rekeyd", ""),
    ] {
        server.does("gis", change);
        for refused in [mapping.inspect().await.map(drop), mapping.push(&key).await.map(drop)] {
            let Err(Fault::Refused { reason: Reason::MissingRight, why }) = refused else { panic!("{refused:?}") };
            assert!(why.contains(what) && !why.contains("0123456789"), "{why}");
        }
        server.does("gis", back);
    }
    mapping.push(&key).await.expect("it is handed over");
    assert!(!server.log().contains("0123456789"), "the server wrote a password down");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_is_made_used_disabled_and_dropped() {
    let Some(server) = Server::start() else { return };
    let (_, logins) = issuer_of(&server.logins());
    let account = logins.identity().await.expect("answers");
    assert!(
        account.as_str().starts_with("command:postgres:") && account.as_str().ends_with("/gis_reader"),
        "{account}"
    );
    assert_eq!(logins.list().await.expect("lists").keys, Vec::new());
    let intent = IntentId::new("01997d2e-r1.1");
    let first = logins.mint(&intent, None).await.expect("mints").material;
    let minted = logins.mint(&intent, None).await.expect("the same intent again").material;
    assert_eq!(first.key(), minted.key());
    let listing = logins.list().await.expect("lists");
    assert_eq!(listing.keys.len(), 1, "{listing:?}");
    assert_eq!((listing.keys[0].intent.as_ref(), listing.keys[0].active), (Some(&intent), true));
    assert!(listing.date.is_some() && listing.keys[0].created.is_some());
    assert_eq!(logins.probe(&minted).await, Ok(Probe::Works));
    let said = logins.probe(&first).await.expect("answers");
    assert!(matches!(&said, Probe::Wrong(why) if why.contains("password authentication failed")), "{said:?}");
    for active in [false, false, true] {
        match active {
            true => logins.enable(minted.key()).await.expect("enables"),
            false => logins.disable(minted.key()).await.expect("disables"),
        }
        assert_eq!(logins.probe(&minted).await == Ok(Probe::Works), active);
    }
    let none = logins.disable(&KeyId::new("nobody")).await;
    assert!(matches!(none, Err(Fault::Refused { reason: Reason::NotFound, .. })), "{none:?}");
    a_mapping_is_handed_it(&server, &minted).await;
    for _ in 0..2 {
        logins.delete(minted.key()).await.expect("deletes");
        assert_eq!(logins.list().await.expect("lists").keys, Vec::new());
    }
    assert!(matches!(logins.probe(&minted).await, Ok(Probe::NotYet(_))));
    let log = server.log();
    assert!(log.contains("statement: create role") || log.contains("create role"), "the server logs every statement");
    assert!(
        [&first, &minted].iter().all(|key| !log.contains(key.secret().expose())),
        "the server wrote a password down"
    );
}

async fn a_mapping_is_handed_it(server: &Server, key: &Material) {
    let (_, mapping) = target_of(&server.mapping());
    mapping.compare_with(vec![key.clone()]);
    let found = mapping.inspect().await.expect("answers");
    assert!(found.holder.as_str().ends_with("/gis/enterprise/gis_app"), "{}", found.holder);
    for _ in 0..2 {
        mapping.push(key).await.expect("it is handed over");
        assert_eq!(mapping.read().await.map(|shown| shown.tail().cloned()), Ok(key.secret().tail()));
    }
    let other = Material::HmacKey { id: KeyId::new("a"), secret: Secret::new("b".to_owned()) };
    let refused = mapping.push(&other).await;
    assert!(matches!(refused, Err(Fault::Refused { .. })), "{refused:?}");
    assert!(read_through(server).status.success());
}

/// What the application does: it reads the other database through the mapping.
fn read_through(server: &Server) -> Output {
    server.psql("gis", "set role gis_app; select id from parcels")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_of_real_logins_refuses_no_application() {
    let Some(server) = Server::start() else { return };
    let (_, logins) = issuer_of(&server.logins());
    let (_, mapping) = target_of(&server.mapping());
    let first = logins.mint(&IntentId::new("by-hand"), None).await.expect("mints").material;
    mapping.push(&first).await.expect("it is handed over");
    let scene = Scene::new().await;
    tokio::task::spawn_blocking(move || story(&scene, Arc::new(server), &first)).await.expect("the story ends well");
}

fn story(scene: &Scene, server: Arc<Server>, first: &Material) {
    std::fs::create_dir(scene.path("app")).expect("it can be made");
    let private = std::fs::Permissions::from_mode(0o700);
    std::fs::set_permissions(scene.path("app"), private).expect("it is ours");
    std::fs::write(scene.policy(), policy(scene, &server)).expect("it can be written");
    scene.write_secret("first", first.secret().expose());
    let over = Arc::new(AtomicBool::new(false));
    let application = std::thread::spawn({
        let (server, over) = (server.clone(), over.clone());
        move || {
            let (mut uses, mut refusals) = (0, Vec::new());
            while !over.load(Ordering::Relaxed) {
                let read = read_through(&server);
                match String::from_utf8_lossy(&read.stdout).trim() {
                    "42" => uses += 1,
                    _ => {
                        // What was read is used a moment later, however long that takes; a login that was replaced meanwhile says
                        // nothing.
                        let why = String::from_utf8_lossy(&read.stderr).into_owned();
                        let named =
                            "select substr(o, 6) from pg_user_mappings, unnest(umoptions) o where o like 'user=%'";
                        let now = String::from_utf8_lossy(&server.psql("gis", named).stdout).trim().to_owned();
                        if why.contains(&now) {
                            refusals.push(why);
                        }
                    }
                }
            }
            (uses, refusals)
        }
    });
    let _daemon = scene.start();
    let secret_file = scene.path("first").display().to_string();
    let ran = scene.run(&["adopt", SERVICE, first.key().as_str(), "--secret-file", &secret_file]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    for round in 1..=2 {
        let ran = scene.run(&["rotate", SERVICE]);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        scene.wait_done(round);
    }
    over.store(true, Ordering::Relaxed);
    let (uses, refusals): (u32, Vec<String>) = application.join().expect("the application works");
    assert_eq!(refusals, Vec::<String>::new());
    assert!(uses > 5, "{uses}");
    let members = "select string_agg(distinct member::regrole::text, ',') from pg_auth_members \
                   where roleid = 'gis_reader'::regrole and member <> 'rekeyd'::regrole";
    let left = server.psql("postgres", members);
    let left = String::from_utf8_lossy(&left.stdout).trim().to_owned();
    let text = std::fs::read_to_string(scene.path("app/login.json")).expect("it is there");
    let held: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
    assert_eq!(held["access_key_id"], left.as_str(), "one login is left, and it is the one that was handed over");
    let secrets = [held["secret_access_key"].as_str().expect("it has a secret"), first.secret().expose()];
    scene.assert_none_seen(secrets.map(str::to_owned).to_vec(), &server.log());
}

fn policy(scene: &Scene, server: &Server) -> String {
    let home = scene.path("").display().to_string();
    let home = home.trim_end_matches('/');
    format!(
        r#"version = 1
[daemon]
journal = "sqlite:{home}/state/journal.db"
control = "{home}/control.sock"
listen = "off"

[[service]]
name = "{SERVICE}"
probes = 2
probe_interval = "50ms"
soak = "500ms"
watch = "300ms"
observe = "1s"

[service.issuer]
kind = "command"
{}
[[service.target]]
kind = "command"
{}
[[service.target]]
kind = "file"
path = "{home}/app/login.json"
"#,
        server.logins(),
        server.mapping()
    )
}
