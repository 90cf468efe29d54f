//! The log: sentences for people, on stderr, which systemd's journal takes as it is.

use std::io::IsTerminal;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::{EnvFilter, FilterExt, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

/// What the daemon says without `RUST_LOG`: what it does, and what troubles its libraries.
pub const DAEMON: &str = "warn,rekeyd=info";
/// What a command says that does the daemon's work: only trouble; it prints its own answers.
pub const COMMAND: &str = "warn";

/// Starts logging. `RUST_LOG` is honoured; without it, `usual`.
///
/// Libraries never log below `info`, whatever `RUST_LOG` says: at `trace` an HTTP stack writes down headers and bodies, and
/// ours carry keys, passwords and tokens. What rekeyd itself logs holds no secret at any level.
pub fn start(usual: &str) {
    let wanted = match std::env::var("RUST_LOG") {
        Ok(wanted) if !wanted.trim().is_empty() => {
            EnvFilter::builder().with_default_directive(LevelFilter::ERROR.into()).parse_lossy(wanted)
        }
        _ => EnvFilter::new(usual),
    };
    let ours_or_harmless = filter_fn(|about| {
        // The heartbeat's library tells at `info` what is of no use to anybody.
        let most = if about.target().starts_with("tokio_cron_scheduler") {
            tracing::Level::WARN
        } else {
            tracing::Level::INFO
        };
        is_ours(about.target()) || *about.level() <= most
    });
    // systemd writes time and priority itself.
    let under_systemd = std::env::var_os("JOURNAL_STREAM").is_some();
    let layer = fmt::layer().with_writer(std::io::stderr).with_ansi(std::io::stderr().is_terminal()).with_target(false);
    let layer = if under_systemd { layer.without_time().boxed() } else { layer.boxed() };
    // A second start in one process (tests) keeps the first.
    let _ = tracing_subscriber::registry().with(layer.with_filter(wanted.and(ours_or_harmless))).try_init();
}

fn is_ours(target: &str) -> bool {
    target == "rekeyd" || target.starts_with("rekeyd::")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_modules_are_ours() {
        assert!(is_ours("rekeyd") && is_ours("rekeyd::engine::perform"));
        assert!(!is_ours("rekeyd_lab::http") && !is_ours("hyper::proto") && !is_ours("aws_smithy_runtime"));
    }
}
