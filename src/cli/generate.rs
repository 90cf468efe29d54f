//! `generate`, which no help lists: what a package ships beside the program, made from the command line as it is and from
//! `config/policy.toml`, so that neither can say something else than the program. And the names that a shell offers after Tab.
//!
//! It asks no daemon and changes nothing but the files it is told to write.

use std::path::{Path, PathBuf};

use chrono::{DateTime, Utc};
use clap::{Arg, Command, CommandFactory, Subcommand};
use clap_complete::aot::Shell;
use roff::{Roff, bold, roman};

use crate::daemon::{Failure, startup};

use super::{Exit, Line};

/// The annotated policy, which is the manual of the policy too.
const POLICY: &str = include_str!("../../config/policy.toml");

/// What can be generated.
#[derive(Debug, Subcommand)]
pub(super) enum What {
    /// The manual pages rekeyd(8) and rekeyd-policy(5).
    Man {
        /// A directory that is there.
        directory: PathBuf,
    },
    /// What bash, zsh and fish offer after Tab.
    Completions {
        /// A directory that is there.
        directory: PathBuf,
    },
    /// The names of the policy's services, one a line; nothing where it cannot be read.
    Services,
}

/// Writes or prints it.
///
/// # Errors
/// [`Failure::Internal`] where a file cannot be written.
pub(super) fn generate(policy: &Path, what: What) -> Result<Exit, Failure> {
    match what {
        What::Man { directory } => {
            write(&directory, "rekeyd.8", &manual())?;
            write(&directory, "rekeyd-policy.5", &policy_manual())?;
        }
        What::Completions { directory } => {
            write(&directory, "rekeyd", &bash())?;
            write(&directory, "_rekeyd", &zsh())?;
            write(&directory, "rekeyd.fish", &fish())?;
        }
        What::Services => {
            // A shell is in the middle of a line: whatever is wrong with the policy is not said here.
            if let Ok(policy) = startup::policy(policy) {
                for service in &policy.services {
                    println!("{}", service.name);
                }
            }
        }
    }
    Ok(Exit::Done)
}

fn write(directory: &Path, name: &str, text: &str) -> Result<(), Failure> {
    let path = directory.join(name);
    std::fs::write(&path, text)
        .map_err(|error| Failure::Internal(format!("writing {} failed: {error}", path.display())))
}

/// The command line without what no help lists: a shell would offer it.
fn shown() -> Command {
    let whole = Line::command();
    let mut shown =
        Command::new("rekeyd").bin_name("rekeyd").arg_required_else_help(true).disable_help_subcommand(true);
    if let Some(about) = whole.get_about() {
        shown = shown.about(about.clone());
    }
    shown
        .version(env!("CARGO_PKG_VERSION"))
        .args(whole.get_arguments().cloned())
        .subcommands(whole.get_subcommands().filter(|command| !command.is_hide_set()).cloned())
}

// ---- Manual pages ----------------------------------------------------------------------------------------------------------

/// What the program does, beyond its commands. The words are those of the README.
const DESCRIPTION: &[&str] = &[
    "rekeyd is a daemon that systemd runs. It reads a policy of services and intervals; when a service is due it mints a fresh key at \
     the cloud provider, hands it to ArcGIS, waits for the job's real outcome, proves that the new key works, and only then retires the \
     old one: disabled first, watched, then deleted.",
    "Every intent is in the journal before it is acted on, so that a crash at any moment is taken up where it happened. When rekeyd \
     cannot go on safely with a service it stands still, says why, and says what to type (rekeyd status).",
    "Commands go through the daemon's control socket, which root and the members of the group rekeyd may use. Where no daemon runs, \
     those that only read look into the journal themselves, and rotate does the rotation itself, up to the point where every target is \
     verified.",
];

const SIGNALS: &[(&str, &str)] = &[
    (
        "SIGHUP",
        "Read the policy and the files of secrets again (systemctl reload rekeyd). A policy with a mistake is refused whole. A credential \
         that systemd lends is read at the start only: restart rekeyd after changing one.",
    ),
    (
        "SIGUSR1",
        "Rotate now, whatever the timetables say, each in its window: every service whose policy does not say on_signal = false.",
    ),
    ("SIGUSR2", "Try again now whatever waits for its next try."),
    ("SIGTERM, SIGINT", "Take no new step, let what runs end, and exit within ten seconds."),
];

const EXIT_STATUS: &[(&str, &str)] = &[
    ("0", "Done."),
    ("1", "A rotation failed, something is halted, overdue or owed, or doctor found trouble."),
    ("2", "The command line makes no sense."),
    ("69", "Daemon or journal not reachable, locked, or written by a newer rekeyd."),
    ("78", "The policy has mistakes; nothing was started."),
];

const FILES: &[(&str, &str)] = &[
    ("/etc/rekeyd/policy.toml", "The policy: see rekeyd-policy(5)."),
    (
        "/etc/rekeyd/secrets/NAME",
        "A secret that the policy calls { credential = \"NAME\" }; systemd lends it to the daemon.",
    ),
    (
        "/etc/rekeyd/secrets.encrypted/NAME",
        "The same, made by systemd-creds encrypt --name=encrypted_NAME - THIS-FILE.",
    ),
    ("/etc/rekeyd/alert", "A program of yours that is run, with the unit's name, when a unit of rekeyd failed."),
    ("/var/lib/rekeyd/journal.db", "The journal. Back it up with the machine, and the seal key apart from it."),
    ("/run/rekeyd/control.sock", "The control socket."),
];

const ENVIRONMENT: &[(&str, &str)] = &[
    ("RUST_LOG", "What the daemon logs, such as debug or rekeyd=trace. No level shows a secret."),
    (
        "STATE_DIRECTORY, RUNTIME_DIRECTORY, CREDENTIALS_DIRECTORY, NOTIFY_SOCKET, WATCHDOG_USEC",
        "As systemd sets them.",
    ),
];

/// rekeyd(8), every command on one page.
fn manual() -> String {
    let mut command = shown();
    command.build();
    let page = clap_mangen::Man::new(command.clone()).section("8").manual("rekeyd").source(source()).date(date());
    let mut head = Vec::new();
    let rendered = page.render_title(&mut head).and_then(|()| page.render_name_section(&mut head));
    rendered.expect("a buffer takes everything");
    let mut text = String::from_utf8(head).expect("a manual page is text");

    let mut roff = Roff::new();
    roff.control("SH", ["SYNOPSIS"]);
    roff.text([bold("rekeyd"), roman(" [--policy FILE] COMMAND [OPTION]... [ARGUMENT]...")]);
    roff.control("SH", ["DESCRIPTION"]);
    paragraphs(&mut roff, DESCRIPTION);
    roff.control("SH", ["OPTIONS"]);
    arguments(&mut roff, command.get_arguments());
    roff.control("SH", ["COMMANDS"]);
    commands(&mut roff, &command, "");
    for (title, rows) in
        [("SIGNALS", SIGNALS), ("EXIT STATUS", EXIT_STATUS), ("FILES", FILES), ("ENVIRONMENT", ENVIRONMENT)]
    {
        roff.control("SH", [title]);
        for (what, means) in rows {
            term(&mut roff, what, means);
        }
    }
    roff.control("SH", ["SEE ALSO"]);
    roff.text([roman("rekeyd-policy(5), systemctl(1), journalctl(1), systemd-creds(1), /usr/share/doc/rekeyd/")]);
    text.push_str(&roff.render());
    text
}

/// rekeyd-policy(5): the annotated policy, as it is.
fn policy_manual() -> String {
    let mut roff = Roff::new();
    roff.control("TH", ["rekeyd-policy", "5", &date(), &source(), "rekeyd"]);
    roff.control("SH", ["NAME"]);
    roff.text([roman("rekeyd-policy - whose keys rekeyd rotates, when, and how carefully")]);
    roff.control("SH", ["SYNOPSIS"]);
    roff.text([roman("/etc/rekeyd/policy.toml")]);
    roff.control("SH", ["DESCRIPTION"]);
    paragraphs(
        &mut roff,
        &[
            "The policy is one TOML file. Below is the annotated example that comes with rekeyd, with every option there is, its default \
           and its reason. rekeyd check says everything that is wrong with a policy, with line and remedy.",
        ],
    );
    roff.control("SH", ["EVERY OPTION"]);
    roff.control("nf", []);
    for line in POLICY.lines() {
        roff.text([roman(line)]);
    }
    roff.control("fi", []);
    roff.control("SH", ["SEE ALSO"]);
    roff.text([roman("rekeyd(8)")]);
    roff.render()
}

fn source() -> String {
    format!("rekeyd {}", env!("CARGO_PKG_VERSION"))
}

/// The day of the sources, as who packages them says (reproducible-builds.org/specs/source-date-epoch); else none, so that the same
/// program makes the same pages. A blank, since an empty argument would be taken away.
fn date() -> String {
    let seconds = std::env::var("SOURCE_DATE_EPOCH").ok().and_then(|text| text.parse().ok());
    let day = seconds.and_then(|seconds| DateTime::<Utc>::from_timestamp(seconds, 0));
    day.map_or_else(|| " ".to_owned(), |day| day.format("%Y-%m-%d").to_string())
}

fn paragraphs(roff: &mut Roff, texts: &[&str]) {
    for text in texts {
        roff.control("PP", []);
        roff.text([roman(*text)]);
    }
}

fn term(roff: &mut Roff, what: &str, means: &str) {
    roff.control("TP", []);
    roff.text([bold(what)]);
    roff.text([roman(means)]);
}

/// Every command below this one, each with its arguments.
fn commands(roff: &mut Roff, command: &Command, before: &str) {
    for sub in command.get_subcommands().filter(|sub| !sub.is_hide_set()) {
        let name = format!("{before}{}", sub.get_name());
        if sub.has_subcommands() {
            commands(roff, sub, &format!("{name} "));
            continue;
        }
        let usage = sub.clone().override_help("").render_usage().to_string();
        let usage = usage.trim_start_matches("Usage:").split_whitespace().collect::<Vec<_>>().join(" ");
        roff.control("SS", [usage.trim_start_matches("rekeyd ")]);
        roff.text([roman(sub.get_about().map(ToString::to_string).unwrap_or_default())]);
        let own: Vec<&Arg> = sub.get_arguments().filter(|argument| !argument.is_global_set()).collect();
        arguments(roff, own.into_iter());
    }
}

fn arguments<'a>(roff: &mut Roff, arguments: impl Iterator<Item = &'a Arg>) {
    for argument in arguments.filter(|argument| !argument.is_hide_set() && argument.get_id() != "help") {
        let mut means = argument.get_help().map(ToString::to_string).unwrap_or_default();
        if let [value] = argument.get_default_values()
            && argument.get_action().takes_values()
        {
            means.push_str(&format!(" (default: {})", value.display()));
        }
        term(roff, &argument.to_string(), &means);
        for value in argument.get_possible_values().iter().filter(|_| argument.get_action().takes_values()) {
            let help = value.get_help().map(ToString::to_string).unwrap_or_default();
            roff.control("br", []);
            roff.text([bold(value.get_name()), roman(format!(": {help}"))]);
        }
    }
}

// ---- Completions -----------------------------------------------------------------------------------------------------------

/// The commands whose first argument is a service.
fn of_services() -> Vec<String> {
    let named = |command: &&Command| {
        command.get_positionals().next().is_some_and(|first| ["service", "services"].contains(&first.get_id().as_str()))
    };
    shown().get_subcommands().filter(named).map(|command| command.get_name().to_owned()).collect()
}

fn generated(shell: Shell) -> String {
    let mut out = Vec::new();
    clap_complete::aot::generate(shell, &mut shown(), "rekeyd", &mut out);
    String::from_utf8(out).expect("a completion script is text")
}

/// The options that are followed by a value, which is no service.
fn options_with_values() -> Vec<String> {
    let shown = shown();
    let all = shown.get_subcommands().flat_map(Command::get_arguments).chain(shown.get_arguments());
    let valued = all.filter(|option| option.get_action().takes_values() && !option.is_require_equals_set());
    let mut names: Vec<String> = valued.filter_map(|option| Some(format!("--{}", option.get_long()?))).collect();
    names.sort();
    names.dedup();
    names
}

/// clap knows no names of services, so they are asked for after it.
fn bash() -> String {
    let (commands, options) = (of_services().join("|"), options_with_values().join("|"));
    let script = generated(Shell::Bash);
    let own = format!(
        r#"
# The first word after one of these commands is a service, and after `rotate` each of them.
_rekeyd_and_services() {{
    _rekeyd "$@"
    local at other command= given=0
    [[ ${{COMP_WORDS[COMP_CWORD]}} == -* ]] && return
    for ((at = 1; at < COMP_CWORD; at++)); do
        other=${{COMP_WORDS[at]}}
        case $other in
        {options}) ((++at < COMP_CWORD)) || return ;;
        -*) ;;
        *)
            if [[ $command ]]; then
                given=1
            elif [[ $other == @({commands}) ]]; then
                command=$other
            else
                return
            fi
            ;;
        esac
    done
    if [[ $command == rotate || $command && $given == 0 ]]; then
        COMPREPLY=($(compgen -W "$(rekeyd generate services 2>/dev/null)" -- "${{COMP_WORDS[COMP_CWORD]}}"))
    fi
}}
"#
    );
    // The last lines register the function; the registered one is ours, which calls it.
    let at = script.find("\nif [[ \"${BASH_VERSINFO[0]}\"").unwrap_or(script.len());
    let (functions, registration) = script.split_at(at);
    format!("{functions}{own}{}", registration.replace("-F _rekeyd ", "-F _rekeyd_and_services "))
}

fn zsh() -> String {
    let own = "\
# The names of the policy's services.
_rekeyd_services() {
    local -a services
    services=(${(f)\"$(_call_program services rekeyd generate services 2>/dev/null)\"})
    compadd -a services
}

";
    let script = generated(Shell::Zsh);
    let lines = script.lines().map(|line| {
        let positional = line.trim_start().trim_start_matches(['\'', '*', ':']);
        match positional.starts_with("service -- ") || positional.starts_with("services -- ") {
            true => line.replace(":_default'", ":_rekeyd_services'"),
            false => line.to_owned(),
        }
    });
    let script = lines.collect::<Vec<_>>().join("\n") + "\n";
    // The first line tells zsh what the file is for, and must stay the first.
    match script.split_once("\n\n") {
        Some((first, rest)) => format!("{first}\n\n{own}{rest}"),
        None => script,
    }
}

fn fish() -> String {
    let mut script = generated(Shell::Fish);
    script.push_str("# The names of the policy's services.\n");
    for command in of_services() {
        script.push_str(&format!(
            "complete -c rekeyd -n \"__fish_rekeyd_using_subcommand {command}\" -f -a '(rekeyd generate services 2>/dev/null)'\n"
        ));
    }
    script
}
