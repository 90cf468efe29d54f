//! IBM Cloud Object Storage: access keys of a user, at the lab's accesser and its store.

use rekeyd::model::KeyId;
use rekeyd_lab::{Ibm, IbmOptions};
use tempfile::NamedTempFile;

use super::{Living, Mishaps, NOWHERE, Provider, goes_wrong, login, outside};
use crate::faults::Op;
use crate::scene::Tables;

const PROJECT: &str = "gis";
const BUCKET: &str = "gis-store";

goes_wrong!(Ibm);

struct User {
    ibm: Ibm,
    name: String,
    _password: NamedTempFile,
}

/// A user with one key that a person made.
pub fn keys() -> Tables {
    // Each history has one of its own: keys are named after rotations there, and names are the whole system's.
    let (ibm, name) = (outside(Ibm::start(IbmOptions::default())), "store".to_owned());
    ibm.add_bucket(BUCKET);
    ibm.add_user(PROJECT, &name);
    let (first, by_hand) = ibm.create_key(PROJECT, &name);
    let (rotator, password) = ibm.login();
    let password = login(&password);
    let accounts = [ibm.accesser_url(), NOWHERE.to_owned()].map(|url| {
        format!(
            "[ibm_cos.main]\naccesser_url = \"{url}\"\nusername = \"{rotator}\"\npassword = {{ file = \"{}\" }}\n\
             settle = \"2m\"\nrequest_timeout = \"30s\"\n",
            password.path().display()
        )
    });
    let issuer = [ibm.s3_url(), NOWHERE.to_owned()].map(|endpoint| {
        format!(
            "kind = \"ibm-cos\"\naccount = \"main\"\nproject_id = \"{PROJECT}\"\nuser_id = \"{name}\"\n\
             probe = {{ endpoint = \"{endpoint}\", bucket = \"{BUCKET}\" }}\n"
        )
    });
    let provider = Box::new(User { ibm, name, _password: password });
    Tables { accounts, issuer, follower: None, first: KeyId::new(first), secret: Some(by_hand), provider }
}

impl Provider for User {
    fn keys(&self) -> Vec<Living> {
        let living = self.ibm.keys(PROJECT, &self.name).into_iter();
        let secret = |access: &str| self.ibm.secret_of(access).expect("it lives");
        living
            .map(|key| Living { secret: secret(&key.access), id: KeyId::new(key.access), active: key.active })
            .collect()
    }

    fn request(&self, op: Op) -> &'static str {
        match op {
            Op::Mint => "CreateCredential",
            Op::Probe => "ListObjectsV2",
            Op::Disable | Op::Enable => "UpdateCredential",
            Op::Delete => "DeleteCredential",
            _ => "ListCredentials",
        }
    }

    fn mishaps(&self, op: Op) -> &dyn Mishaps {
        match op {
            Op::Probe => self.ibm.store(),
            _ => &self.ibm,
        }
    }

    fn remove(&self, key: &KeyId) {
        self.ibm.delete_key(key.as_str());
    }

    fn make(&self) {
        self.ibm.create_key(PROJECT, &self.name);
    }

    fn switch(&self, key: &KeyId, active: bool) {
        self.ibm.set_status(key.as_str(), active);
    }
}
