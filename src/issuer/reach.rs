//! What the tables of most accounts have in common: the way to their servers, how long a request may take, and when one whose outcome
//! nobody knows is over.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::net::Context;
use crate::net::client::Options;
use crate::table::{Table, Zero};

/// How long a request may take where the policy says nothing.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

/// It is stored in the journal as a part of its account: add fields, rename none.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Reach {
    settle_ms: Option<u64>,
    request_timeout_ms: u64,
    /// Comes before the daemon's.
    proxy: Option<String>,
    /// Comes before the daemon's.
    no_proxy: Option<Vec<String>>,
    /// A PEM file of authorities, which alone are trusted then.
    ca_file: Option<String>,
}

impl Reach {
    /// Reads `settle`, `request_timeout`, `proxy`, `no_proxy` and `ca_file`. `usual` is the horizon where the policy names none; `None`
    /// where that is each kind's own.
    pub(super) fn read(table: &mut Table<'_>, usual: Option<Duration>) -> Self {
        let settle = table.duration("settle", Zero::Refused);
        let request_timeout = table.duration("request_timeout", Zero::Refused).unwrap_or(REQUEST_TIMEOUT);
        if settle.or(usual).is_some_and(|settle| settle < request_timeout) {
            let what = "`settle` is shorter than `request_timeout`: a mint whose answer was lost would be called settled while it is still \
                        under way";
            table.warn("settle", what);
        }
        let (proxy, no_proxy, ca_file) = (table.proxy("proxy"), table.texts("no_proxy"), table.text_or("ca_file"));
        let (settle_ms, request_timeout_ms) = (settle.or(usual).map(milliseconds), milliseconds(request_timeout));
        Self { settle_ms, request_timeout_ms, proxy, no_proxy, ca_file }
    }

    /// Horizon of an unknown mint: what the policy says, else `usual`.
    pub(super) fn settle(&self, usual: Duration) -> Duration {
        self.settle_ms.map_or(usual, Duration::from_millis)
    }

    /// How long one request may take, its answer's body included.
    pub(super) fn request_timeout(&self) -> Duration {
        Duration::from_millis(self.request_timeout_ms)
    }

    /// How our client goes there.
    pub(super) fn options(&self, context: &Context) -> Options {
        Options {
            ca_file: self.ca_file.clone(),
            proxy: self.proxy.clone().or_else(|| context.proxy.clone()),
            no_proxy: self.no_proxy.clone().unwrap_or_else(|| context.no_proxy.clone()),
            ..Options::new(self.request_timeout())
        }
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::net::Shared;
    use crate::ports::Forgetful;
    use crate::table;

    fn read(text: &str) -> Reach {
        table::read(text, "policy.toml", |table| Some(Reach::read(table, None))).expect("read").expect("a way")
    }

    #[test]
    fn an_account_s_own_way_comes_before_the_daemon_s() {
        let context = Context {
            proxy: Some("http://daemon:3128".to_owned()),
            no_proxy: vec!["daemon.example".to_owned()],
            guard: Arc::new(Forgetful),
            shared: Shared::default(),
        };
        let options = read("").options(&context);
        assert_eq!((options.proxy.as_deref(), options.ca_file), (Some("http://daemon:3128"), None));
        assert_eq!((options.no_proxy, options.request_timeout), (vec!["daemon.example".to_owned()], REQUEST_TIMEOUT));
        let own = "proxy = \"http://own:3128\"\nno_proxy = []\nca_file = \"/ca.pem\"\nrequest_timeout = \"5s\"";
        let options = read(own).options(&context);
        assert_eq!((options.proxy.as_deref(), options.ca_file.as_deref()), (Some("http://own:3128"), Some("/ca.pem")));
        assert_eq!((options.no_proxy.len(), options.request_timeout), (0, Duration::from_secs(5)));
    }

    #[test]
    fn what_an_older_journal_says_of_an_account_is_read_as_it_was() {
        let stored = r#"{"settle_ms":600000,"request_timeout_ms":30000,"proxy":null,"no_proxy":null,"ca_file":null}"#;
        let reach: Reach = serde_json::from_str(stored).expect("read");
        assert_eq!(
            (reach.settle(Duration::ZERO), reach.request_timeout()),
            (Duration::from_secs(600), REQUEST_TIMEOUT)
        );
    }
}
