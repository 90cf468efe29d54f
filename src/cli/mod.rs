//! The command line: what can be typed, and what exit code it comes to. Each command's work is in a file of its own.
//!
//! Commands that change something go through the daemon's control socket; only where no daemon runs is the journal opened here.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::daemon::attempts::Attempts;
use crate::daemon::log::{self, Style};
use crate::daemon::signals::Signals;
use crate::daemon::{self, Failure};
use crate::model::{KeyId, Keyless, SecretRef, ServiceName, TargetName};
use crate::net::secrets;

mod advise;
mod ask;
mod check;
mod doctor;
mod follow;
mod generate;
mod offline;
mod order;
mod plan;
mod rotate;
mod show;

use crate::daemon::protocol::{Ask, Carried};

/// How a command ended. The numbers are part of the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done (0).
    Done,
    /// A rotation failed, an order was refused, or something is halted, overdue or in debt (1).
    Trouble,
    /// The command line makes no sense (2).
    Usage,
    /// Daemon or journal not reachable, locked, or written by a newer version (69).
    Unreachable,
    /// The policy has mistakes (78).
    Policy,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(match exit {
            Exit::Done => 0,
            Exit::Trouble => 1,
            Exit::Usage => 2,
            Exit::Unreachable => 69,
            Exit::Policy => 78,
        })
    }
}

/// Rotates the cloud credentials ArcGIS Enterprise lives on.
#[derive(Debug, Parser)]
#[command(name = "rekeyd", version, arg_required_else_help = true)]
struct Line {
    /// The policy.
    #[arg(long, global = true, value_name = "FILE", default_value = crate::policy::FILE)]
    policy: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon, in the foreground.
    Run {
        /// How the log is written.
        #[arg(long, value_name = "STYLE", value_enum, default_value = "auto")]
        log: Style,
    },
    /// Say every mistake of the policy.
    Check,
    /// Say what would be done when, and why, and which places hold keys.
    Plan {
        /// This service only.
        service: Option<String>,
        /// Ask no deployment what it holds.
        #[arg(long)]
        offline: bool,
        #[command(flatten)]
        form: Form,
    },
    /// Say whether everything would work; changes nothing; exit 1 if something would not.
    Doctor {
        #[command(flatten)]
        form: Form,
    },
    /// Say which services could use a role or an identity instead of a key.
    Advise {
        #[command(flatten)]
        form: Form,
    },
    /// Say how everything stands; exit 1 if anything is halted, overdue or in debt.
    Status {
        #[command(flatten)]
        form: Form,
    },
    /// Rotate services now.
    Rotate {
        /// Which.
        #[arg(value_name = "SERVICE", required_unless_present = "all", conflicts_with = "all")]
        services: Vec<String>,
        /// Every service of the policy.
        #[arg(long)]
        all: bool,
        /// The old keys are in wrong hands: no window, no soak.
        #[arg(long)]
        compromised: bool,
        /// Wait until every target is verified, or (=done) until the old key is gone.
        #[arg(long, value_name = "UNTIL", num_args = 0..=1, require_equals = true, default_missing_value = "verified")]
        wait: Option<Until>,
    },
    /// Say which existing key a service uses now.
    Adopt {
        /// Which service.
        service: String,
        /// The key's id.
        key_id: String,
        /// A file with its secret, so that it can be put back.
        #[arg(long, value_name = "F")]
        secret_file: Option<PathBuf>,
        /// The other slot of this issuer may be overwritten.
        #[arg(long)]
        idle_slot_free: bool,
    },
    /// Open no new rotation.
    Pause {
        /// Which service.
        service: String,
    },
    /// Open rotations again.
    Resume {
        /// Which service.
        service: String,
    },
    /// Look again, and go on if the world now allows it.
    Retry {
        /// Which service.
        service: String,
    },
    /// Put the previous key back.
    Rollback {
        /// Which service.
        service: String,
    },
    /// Push the current key again.
    Repush {
        /// Which service.
        service: String,
        /// One target only.
        target: Option<String>,
    },
    /// Leave keys behind: let the targets use a role or an identity, or a key again. ArcGIS 12.0 and later.
    Switch {
        /// Which service.
        service: String,
        /// What its targets are to use.
        #[arg(long, value_name = "WHAT")]
        to: SwitchTo,
        /// The client id of the identity.
        #[arg(long, value_name = "ID", required_if_eq("to", "user-assigned-identity"))]
        client_id: Option<String>,
        /// The storage account that the identity is used on, which Kubernetes keeps with it.
        #[arg(long, value_name = "NAME")]
        storage_account: Option<String>,
        /// Also where the secret of the key in use is not held, so that it cannot be put back.
        #[arg(long)]
        no_way_back: bool,
        /// Wait until every target is verified, or (=done) until the old key is gone.
        #[arg(long, value_name = "UNTIL", num_args = 0..=1, require_equals = true, default_missing_value = "verified")]
        wait: Option<Until>,
    },
    /// Retire the old key though it is in use.
    Retire {
        /// Which service.
        service: String,
        /// You know who uses it, and take that on yourself.
        #[arg(long, required = true)]
        despite_use: bool,
    },
    /// End the open rotation.
    Abandon {
        /// Which service.
        service: String,
        /// The key the targets hold; needed once a push was begun.
        #[arg(long, value_name = "KEY_ID")]
        holds: Option<String>,
    },
    /// List keys at the issuers that nobody can explain.
    Strangers {
        #[command(flatten)]
        form: Form,
    },
    /// A stranger is ours and unused: destroy it.
    Reclaim {
        /// Which service.
        service: String,
        /// The key's id.
        key_id: String,
    },
    /// A stranger is somebody else's: leave it alone.
    Disown {
        /// Which service.
        service: String,
        /// The key's id.
        key_id: String,
    },
    /// Show everything that ever happened to a service.
    History {
        /// Which service.
        service: String,
        #[command(flatten)]
        form: Form,
    },
    /// About the journal itself.
    Ledger {
        #[command(subcommand)]
        what: Ledger,
    },
    /// Make what a package ships beside the program, or print what a shell offers.
    #[command(hide = true)]
    Generate {
        #[command(subcommand)]
        what: generate::What,
    },
}

#[derive(Debug, Subcommand)]
enum Ledger {
    /// Follow every chain to its end; exit 1 if one does not verify.
    Verify {
        #[command(flatten)]
        form: Form,
    },
}

/// How an answer is printed.
#[derive(Clone, Copy, Debug, Args)]
struct Form {
    /// For programs.
    #[arg(long)]
    json: bool,
}

/// What `switch` ends with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum SwitchTo {
    /// AWS: the role of the nodes, or of the pods' service account.
    IamRole,
    /// Azure: an identity assigned to the nodes.
    UserAssignedIdentity,
    /// A key again, freshly minted.
    Key,
}

impl SwitchTo {
    /// What is switched to; `None` is a key.
    fn keyless(self, client: Option<String>, storage_account: Option<String>) -> Option<Keyless> {
        match self {
            Self::IamRole => Some(Keyless::IamRole),
            Self::UserAssignedIdentity => {
                Some(Keyless::UserAssignedIdentity { client: client.unwrap_or_default(), storage_account })
            }
            Self::Key => None,
        }
    }
}

/// How far `rotate` waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Until {
    /// Every target verified.
    Verified,
    /// The old key gone.
    Done,
}

/// Runs the program.
pub fn main() -> Exit {
    harden();
    // An error means that somebody else was first, which is as good.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let line = match Line::try_parse() {
        Ok(line) => line,
        Err(error) => {
            let exit = if error.use_stderr() { Exit::Usage } else { Exit::Done };
            let _ = error.print();
            return exit;
        }
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("rekeyd: starting the runtime failed: {error}");
            return Exit::Unreachable;
        }
    };
    let attempts = Attempts::default();
    let ended = runtime.block_on(run(line, &attempts));
    if attempts.are_under_way() {
        eprintln!(
            "rekeyd: waiting for the answer to a login, so that a refused password is remembered and not sent again"
        );
    }
    runtime.block_on(attempts.ended());
    // Any other request that still hangs somewhere keeps nobody waiting.
    runtime.shutdown_background();
    match ended {
        Ok(exit) => exit,
        Err(failure) => say(&failure),
    }
}

/// Keeps what is in memory out of core dumps and away from other processes of the same user.
fn harden() {
    use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
    let undumpable = set_dumpable_behavior(DumpableBehavior::NotDumpable);
    let no_core = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    for (what, result) in [("making the process undumpable", undumpable), ("forbidding core dumps", no_core)] {
        if let Err(error) = result {
            eprintln!("rekeyd: {what} failed: {error}");
        }
    }
}

async fn run(line: Line, attempts: &Attempts) -> Result<Exit, Failure> {
    let policy = line.policy.as_path();
    match line.command {
        Command::Run { log } => {
            // Before anything else: a signal that comes early must not end the process, nor be lost.
            let signals = Signals::install()
                .map_err(|error| Failure::Internal(format!("installing signal handlers failed: {error}")))?;
            let log = log::start(log::DAEMON, log);
            let ended = match daemon::run(policy, signals).await {
                // Where even errors are switched off, whoever started it hears of the end all the same.
                Err(failure) if log.takes_last_words() && tracing::enabled!(tracing::Level::ERROR) => {
                    tracing::error!("{}", failure.to_string().trim_end());
                    Ok(exit_of(&failure))
                }
                ended => ended.map(|()| Exit::Done),
            };
            log.last_word().await;
            ended
        }
        Command::Check => check::check(policy),
        Command::Generate { what } => generate::generate(policy, what),
        Command::Plan { service, offline, form } => {
            plan::plan(policy, service.map(ServiceName::new), offline, form.json, attempts).await
        }
        Command::Doctor { form } => doctor::doctor(policy, form.json, attempts).await,
        Command::Advise { form } => advise::advise(policy, form.json, attempts).await,
        Command::Status { form } => show::status(policy, form.json).await,
        Command::Strangers { form } => show::strangers(policy, form.json).await,
        Command::History { service, form } => show::history(policy, ServiceName::new(service), form.json).await,
        Command::Ledger { what: Ledger::Verify { form } } => show::verify(policy, form.json).await,
        Command::Rotate { services, all: _, compromised, wait } => {
            let services = services.into_iter().map(ServiceName::new).collect();
            rotate::rotate(policy, Ask::Rotate { services, compromised }, wait).await
        }
        Command::Adopt { service, key_id, secret_file, idle_slot_free } => {
            adopt(policy, ServiceName::new(service), KeyId::new(key_id), secret_file, idle_slot_free).await
        }
        Command::Pause { service } => order::order(policy, Ask::Pause { service: ServiceName::new(service) }).await,
        Command::Resume { service } => order::order(policy, Ask::Resume { service: ServiceName::new(service) }).await,
        Command::Retry { service } => order::order(policy, Ask::Retry { service: ServiceName::new(service) }).await,
        Command::Rollback { service } => {
            order::order(policy, Ask::Rollback { service: ServiceName::new(service) }).await
        }
        Command::Repush { service, target } => {
            let ask = Ask::Repush { service: ServiceName::new(service), target: target.map(TargetName::new) };
            order::order(policy, ask).await
        }
        Command::Switch { service, to, client_id, storage_account, no_way_back, wait } => {
            if to != SwitchTo::UserAssignedIdentity && (client_id.is_some() || storage_account.is_some()) {
                eprintln!("rekeyd: --client-id and --storage-account go with --to user-assigned-identity");
                return Ok(Exit::Usage);
            }
            let to = to.keyless(client_id, storage_account);
            let service = ServiceName::new(service);
            rotate::rotate(policy, Ask::Switch { service, to, no_way_back }, wait).await
        }
        Command::Retire { service, despite_use: _ } => {
            order::order(policy, Ask::RetireDespiteUse { service: ServiceName::new(service) }).await
        }
        Command::Abandon { service, holds } => {
            let ask = Ask::Abandon { service: ServiceName::new(service), holds: holds.map(KeyId::new) };
            order::order(policy, ask).await
        }
        Command::Reclaim { service, key_id } => {
            let ask = Ask::Reclaim { service: ServiceName::new(service), key: KeyId::new(key_id) };
            order::order(policy, ask).await
        }
        Command::Disown { service, key_id } => {
            let ask = Ask::Disown { service: ServiceName::new(service), key: KeyId::new(key_id) };
            order::order(policy, ask).await
        }
    }
}

async fn adopt(
    policy: &Path,
    service: ServiceName,
    key: KeyId,
    secret_file: Option<PathBuf>,
    idle_slot_free: bool,
) -> Result<Exit, Failure> {
    let secret = match secret_file {
        None => None,
        Some(file) => match secrets::read(&SecretRef::File(file.to_string_lossy().into_owned())) {
            Ok(secret) => Some(Carried(secret)),
            Err(fault) => {
                eprintln!("rekeyd: {}", fault.why());
                return Ok(Exit::Usage);
            }
        },
    };
    order::order(policy, Ask::Adopt { service, key, secret, idle_slot_free }).await
}

fn say(failure: &Failure) -> Exit {
    match failure {
        // A report of the policy is laid out already.
        Failure::Policy(report) => eprintln!("{}", report.trim_end()),
        Failure::Unreachable(why) | Failure::Internal(why) => eprintln!("rekeyd: {why}"),
    }
    exit_of(failure)
}

fn exit_of(failure: &Failure) -> Exit {
    match failure {
        Failure::Policy(_) => Exit::Policy,
        Failure::Unreachable(_) => Exit::Unreachable,
        Failure::Internal(_) => Exit::Trouble,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parse(line: &str) -> Result<Line, clap::Error> {
        Line::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_command_line_is_sound() {
        Line::command().debug_assert();
    }

    #[test]
    fn every_command_of_the_interface_is_understood() {
        for line in [
            "rekeyd run",
            "rekeyd check --policy p.toml",
            "rekeyd --policy p.toml plan a --json",
            "rekeyd plan --offline",
            "rekeyd doctor --json",
            "rekeyd advise --json",
            "rekeyd status --json",
            "rekeyd rotate a b --compromised --wait",
            "rekeyd rotate --all --wait=done",
            "rekeyd adopt a AKIA1 --secret-file f --idle-slot-free",
            "rekeyd pause a",
            "rekeyd resume a",
            "rekeyd retry a",
            "rekeyd rollback a",
            "rekeyd repush a arcgis:prod:x",
            "rekeyd switch a --to iam-role --wait=done",
            "rekeyd switch a --to user-assigned-identity --client-id 0f --storage-account s",
            "rekeyd switch a --to key",
            "rekeyd retire a --despite-use",
            "rekeyd abandon a --holds AKIA1",
            "rekeyd strangers --json",
            "rekeyd reclaim a AKIA1",
            "rekeyd disown a AKIA1",
            "rekeyd history a --json",
            "rekeyd ledger verify",
            "rekeyd generate man DIR",
            "rekeyd generate completions DIR",
            "rekeyd generate services",
        ] {
            assert!(parse(line).is_ok(), "{line}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for line in [
            "rekeyd",
            "rekeyd rotate",
            "rekeyd rotate a --all",
            "rekeyd retire a",
            "rekeyd rotate a --wait=ever",
            "rekeyd switch a",
            "rekeyd switch a --to user-assigned-identity",
        ] {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn wait_takes_its_value_only_behind_an_equals_sign() {
        let Command::Rotate { services, wait, .. } =
            parse("rekeyd rotate --wait done").expect("a service `done`").command
        else {
            panic!("not rotate");
        };
        assert_eq!((services, wait), (vec!["done".to_owned()], Some(Until::Verified)));
    }
}
