//! `[daemon]`: journal, sockets, zone, seal, proxy.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use chrono_tz::Tz;

use super::{Daemon, Environment, JournalAt, Listen};
use crate::table::{Document, Source, Table, did_you_mean};

const STATE_DIRECTORY: &str = "/var/lib/rekeyd";
const RUNTIME_DIRECTORY: &str = "/run/rekeyd";
/// Prometheus exporters have their ports from 9100 on; nothing known sits here.
const LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9465);
/// `sun_path` has 108 bytes on Linux, one of them the closing zero (unix(7)).
const SOCKET_PATH_MAX: usize = 107;

/// Reads `[daemon]`, which may be absent. `None`: a mistake is in the report.
pub(super) fn read(root: &mut Table<'_>, environment: &Environment) -> Option<Daemon> {
    let Some(mut table) = root.table("daemon") else {
        return (!root.has("daemon")).then(|| Daemon {
            journal: JournalAt::Sqlite(journal_file(environment)),
            listen: Listen::At(LISTEN),
            control: control_socket(environment),
            timezone: Tz::UTC,
            seal_key: None,
            proxy: None,
            no_proxy: Vec::new(),
        });
    };
    let journal = journal(&mut table, environment);
    let listen = listen(&mut table);
    let control = control(&mut table, environment);
    let timezone = timezone(&mut table);
    let seal_key = table.secret("seal_key");
    let proxy = table.proxy("proxy");
    let no_proxy = table.texts("no_proxy").unwrap_or_default();
    if !no_proxy.is_empty() && !table.has("proxy") {
        table.warn("no_proxy", "`no_proxy` does nothing here without `proxy`");
    }
    Some(Daemon {
        journal: journal?,
        listen: listen?,
        control: control?,
        timezone: timezone?,
        seal_key,
        proxy,
        no_proxy,
    })
}

/// The control socket of a text that may have mistakes. Where a syntax error may have hidden the line that names it, it is not known;
/// nor by a file that is not recognisably a policy, unless it is the one in the `usual` place.
pub(super) fn control_of(text: String, environment: &Environment, usual: bool) -> Option<PathBuf> {
    let code = |line: &str| line.split('#').next().unwrap_or_default().contains("control");
    let speaks_of_it = text.lines().any(code);
    let source = Source::new(text, "");
    let document = Document::parse(&source);
    let mut root = document.root();
    match root.table("daemon") {
        Some(mut table) if table.has("control") => control(&mut table, environment),
        _ if speaks_of_it => None,
        _ if !usual && !root.has("version") => None,
        _ => Some(control_socket(environment)),
    }
}

fn journal_file(environment: &Environment) -> PathBuf {
    environment.state_directory.as_deref().unwrap_or(Path::new(STATE_DIRECTORY)).join("journal.db")
}

fn control_socket(environment: &Environment) -> PathBuf {
    environment.runtime_directory.as_deref().unwrap_or(Path::new(RUNTIME_DIRECTORY)).join("control.sock")
}

fn journal(table: &mut Table<'_>, environment: &Environment) -> Option<JournalAt> {
    let Some(text) = table.text_or("journal") else {
        return (!table.has("journal")).then(|| JournalAt::Sqlite(journal_file(environment)));
    };
    let help = format!("write `journal = \"sqlite:{STATE_DIRECTORY}/journal.db\"`");
    let Some(path) = text.strip_prefix("sqlite:") else {
        // The text is not repeated: an address of a database may hold a password.
        let scheme = text.split(':').next().filter(|scheme| scheme.starts_with("postgres"));
        let what = match scheme {
            Some(_) => "this build keeps its journal in SQLite only",
            None => "`journal` does not begin with `sqlite:`",
        };
        table.mistake("journal", what, help);
        return None;
    };
    if !path.starts_with('/') {
        table.mistake("journal", "the journal's path does not begin at `/`", help);
        return None;
    }
    Some(JournalAt::Sqlite(PathBuf::from(path)))
}

fn listen(table: &mut Table<'_>) -> Option<Listen> {
    let public = table.flag("listen_public", false);
    let Some(text) = table.text_or("listen") else {
        return (!table.has("listen")).then_some(Listen::At(LISTEN));
    };
    if text == "off" {
        return Some(Listen::Off);
    }
    let address = match text.strip_prefix("localhost:") {
        Some(port) => format!("127.0.0.1:{port}").parse(),
        None => text.parse::<SocketAddr>(),
    };
    let Ok(address) = address else {
        let help = "write an address with a port, such as \"127.0.0.1:9465\" or \"[::1]:9465\", or \"off\"";
        table.mistake("listen", format!("`listen` is not an address with a port: `{text}`"), help);
        return None;
    };
    if !address.ip().is_loopback() && !public {
        let help = format!(
            "listen on 127.0.0.1:{}, or add `listen_public = true` if a firewall decides who may ask: there is no login",
            address.port()
        );
        table.mistake("listen", format!("{address} can be reached from other machines"), help);
        return None;
    }
    Some(Listen::At(address))
}

fn control(table: &mut Table<'_>, environment: &Environment) -> Option<PathBuf> {
    let Some(text) = table.text_or("control") else {
        return (!table.has("control")).then(|| control_socket(environment));
    };
    let help = format!("write `control = \"{RUNTIME_DIRECTORY}/control.sock\"`");
    if !text.starts_with('/') {
        table.mistake("control", "the control socket's path does not begin at `/`", help);
        return None;
    }
    if text.len() > SOCKET_PATH_MAX {
        let what = format!("the control socket's path has {} bytes, and Linux takes {SOCKET_PATH_MAX}", text.len());
        table.mistake("control", what, help);
        return None;
    }
    Some(PathBuf::from(text))
}

fn timezone(table: &mut Table<'_>) -> Option<Tz> {
    let Some(text) = table.text_or("timezone") else {
        return (!table.has("timezone")).then_some(Tz::UTC);
    };
    if let Ok(zone) = text.parse() {
        return Some(zone);
    }
    let names = || chrono_tz::TZ_VARIANTS.iter().map(|zone| zone.name());
    // `London` is a slip of another kind than `Europe/Lodnon`.
    let city = names().find(|name| name.rsplit('/').next().is_some_and(|city| city.eq_ignore_ascii_case(&text)));
    let help = match city.or_else(|| did_you_mean(&text, names())) {
        Some(near) => format!("did you mean `{near}`?"),
        None => "write a name of the time zone database, such as \"Europe/Dublin\" or \"UTC\"".to_owned(),
    };
    table.mistake("timezone", format!("there is no time zone `{text}`"), help);
    None
}
