//! Google: HMAC keys of a service account, at the lab's Cloud Storage, which a store behind them asks who is let in.

use std::sync::Arc;

use rekeyd::model::KeyId;
use rekeyd_lab::s3::S3Store;
use rekeyd_lab::{Google, GoogleOptions};
use tempfile::NamedTempFile;

use super::{Living, Mishaps, NOWHERE, Provider, fresh, goes_wrong, login, outside};
use crate::faults::Op;
use crate::scene::Tables;

const BUCKET: &str = "gis";

thread_local! {
    /// One for all histories of a thread: each has a service account of its own.
    static GOOGLE: (Google, Arc<S3Store>) = outside(async {
        let google = Google::start(GoogleOptions::default()).await;
        let store = S3Store::start(google.lookup()).await;
        store.add_bucket(BUCKET);
        (google, Arc::new(store))
    });
}

goes_wrong!(Google);
goes_wrong!(S3Store);

struct ServiceAccount {
    google: Google,
    store: Arc<S3Store>,
    email: String,
    _login: NamedTempFile,
}

/// A service account with one key that a person made.
pub fn keys() -> Tables {
    let (google, store) = GOOGLE.with(Clone::clone);
    let email = google.add_service_account(&fresh("store"));
    let (first, by_hand) = google.create_key(&email);
    let login = login(&google.service_account_file(&google.token_url()));
    let accounts = [google.url(), NOWHERE.to_owned()].map(|url| {
        format!(
            "[gcp.main]\ncredentials_file = \"{}\"\nstorage_url = \"{url}\"\nresource_manager_url = \"{url}\"\n\
             settle = \"2m\"\nrequest_timeout = \"30s\"\n",
            login.path().display()
        )
    });
    let issuer = [store.url(), NOWHERE.to_owned()].map(|endpoint| {
        format!(
            "kind = \"gcs-hmac\"\naccount = \"main\"\nproject = \"gis-prod-123\"\nservice_account = \"{email}\"\n\
             probe = {{ bucket = \"{BUCKET}\", expect = \"read\", endpoint_url = \"{endpoint}\" }}\n"
        )
    });
    let provider = Box::new(ServiceAccount { google, store, email, _login: login });
    Tables { accounts, issuer, follower: None, first: KeyId::new(first), secret: Some(by_hand), provider }
}

impl Provider for ServiceAccount {
    fn keys(&self) -> Vec<Living> {
        let living = self.google.keys(&self.email).into_iter();
        let secret = |id: &str| self.google.secret_of(id).expect("the lab forgets no secret");
        living.map(|key| Living { secret: secret(&key.id), id: KeyId::new(key.id), active: key.active }).collect()
    }

    fn request(&self, op: Op) -> &'static str {
        match op {
            Op::Mint => "CreateHmacKey",
            Op::Probe => "ListObjectsV2",
            Op::Disable | Op::Enable => "UpdateHmacKey",
            Op::Delete => "DeleteHmacKey",
            _ => "ListHmacKeys",
        }
    }

    fn mishaps(&self, op: Op) -> &dyn Mishaps {
        match op {
            Op::Probe => &*self.store,
            _ => &self.google,
        }
    }

    fn remove(&self, key: &KeyId) {
        self.google.delete_key(key.as_str());
    }

    fn make(&self) {
        self.google.create_key(&self.email);
    }

    fn switch(&self, key: &KeyId, active: bool) {
        self.google.set_active(key.as_str(), active);
    }
}
