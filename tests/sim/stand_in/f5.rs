//! F5 Distributed Cloud: service credentials, at the lab's console. What they are for is not ArcGIS, so their targets are files.

use rekeyd::model::KeyId;
use rekeyd_lab::{F5, F5Options};
use tempfile::NamedTempFile;

use super::{Living, Mishaps, NOWHERE, Provider, fresh, goes_wrong, login, outside};
use crate::faults::Op;
use crate::scene::Tables;

const ROLE: (&str, &str) = ("system", "ves-io-monitor-role");

thread_local! {
    /// One for all histories of a thread: each has credentials with a prefix of its own.
    static F5_CLOUD: F5 = outside(F5::start(F5Options::default()));
}

goes_wrong!(F5);

struct Tenant {
    f5: F5,
    prefix: String,
    _login: NamedTempFile,
}

/// Service credentials, one of them made by a person.
pub fn credentials() -> Tables {
    let (f5, prefix) = (F5_CLOUD.with(Clone::clone), fresh("gis-") + "-");
    let first = format!("{prefix}by-hand");
    let by_hand = f5.create_token(&first, &[ROLE]);
    let login = login(&f5.admin_token());
    let accounts = [f5.url(), NOWHERE.to_owned()].map(|url| {
        format!(
            "[f5xc.main]\nconsole_url = \"{url}\"\napi_token = {{ file = \"{}\" }}\nsettle = \"2m\"\n\
             request_timeout = \"30s\"\n",
            login.path().display()
        )
    });
    let (namespace, role) = ROLE;
    let issuer = format!(
        "kind = \"f5xc\"\naccount = \"main\"\nname_prefix = \"{prefix}\"\n\
         namespace_roles = [{{ namespace = \"{namespace}\", role = \"{role}\" }}]\n"
    );
    let provider = Box::new(Tenant { f5, prefix, _login: login });
    let issuer = [issuer.clone(), issuer];
    Tables { accounts, issuer, follower: None, first: KeyId::new(first), secret: Some(by_hand), provider }
}

impl Provider for Tenant {
    fn keys(&self) -> Vec<Living> {
        let ours = self.f5.credentials().into_iter().filter(|one| one.name.starts_with(&self.prefix));
        let secret = |name: &str| self.f5.secret_of(name).expect("it lives");
        ours.map(|one| Living { secret: secret(&one.name), id: KeyId::new(one.name), active: one.active }).collect()
    }

    fn request(&self, op: Op) -> &'static str {
        match op {
            Op::Identity | Op::Probe => "WhoAmI",
            Op::Mint => "CreateServiceCredentials",
            Op::Delete => "RevokeServiceCredentials",
            _ => "ListServiceCredentials",
        }
    }

    fn mishaps(&self, _op: Op) -> &dyn Mishaps {
        &self.f5
    }

    fn remove(&self, key: &KeyId) {
        self.f5.revoke(key.as_str());
    }

    fn make(&self) {
        self.f5.create_token(&fresh(&format!("{}by-hand", self.prefix)), &[ROLE]);
    }
}
