//! AWS: access keys of an IAM user, at the lab's IAM, STS and S3.

use rekeyd::model::KeyId;
use rekeyd_lab::{Aws, AwsOptions};
use tempfile::NamedTempFile;

use super::{Living, Mishaps, NOWHERE, Provider, fresh, goes_wrong, login, outside};
use crate::faults::Op;
use crate::scene::Tables;

thread_local! {
    /// One for all histories of a thread: each has a user of its own.
    static AWS: Aws = outside(Aws::start(AwsOptions::default()));
}

goes_wrong!(Aws);

struct User {
    aws: Aws,
    name: String,
    _secret: NamedTempFile,
}

/// A user with one key that a person made, and a bucket that it may read.
pub fn keys() -> Tables {
    let (aws, name) = (AWS.with(Clone::clone), fresh("store"));
    aws.add_user(&name);
    aws.add_bucket(&name, &[&name]);
    let (first, by_hand) = aws.create_key(&name);
    let (id, secret) = aws.admin();
    let secret = login(&secret);
    let accounts = [aws.endpoint(), NOWHERE.to_owned()].map(|endpoint| {
        format!(
            "[aws.main]\nregion = \"us-east-1\"\naccess_key_id = \"{id}\"\nsecret_access_key = {{ file = \"{}\" }}\n\
             endpoint_url = \"{endpoint}\"\nsettle = \"2m\"\nlast_used_lag = \"1m\"\nrequest_timeout = \"30s\"\n",
            secret.path().display()
        )
    });
    let issuer = format!(
        "kind = \"aws-iam\"\naccount = \"main\"\nuser = \"{name}\"\n\
         probe = {{ bucket = \"{name}\", region = \"us-east-1\" }}\n"
    );
    let provider = Box::new(User { aws, name, _secret: secret });
    let issuer = [issuer.clone(), issuer];
    Tables { accounts, issuer, follower: None, first: KeyId::new(first), secret: Some(by_hand), provider }
}

impl Provider for User {
    fn keys(&self) -> Vec<Living> {
        let living = self.aws.keys(&self.name).into_iter();
        let secret = |id: &str| self.aws.secret_of(id).expect("the lab forgets no secret");
        living.map(|key| Living { secret: secret(&key.id), id: KeyId::new(key.id), active: key.active }).collect()
    }

    fn request(&self, op: Op) -> &'static str {
        match op {
            Op::Identity => "GetCallerIdentity",
            Op::Mint => "CreateAccessKey",
            Op::Probe => "ListObjectsV2",
            Op::LastUse => "GetAccessKeyLastUsed",
            Op::Disable | Op::Enable => "UpdateAccessKey",
            Op::Delete => "DeleteAccessKey",
            _ => "ListAccessKeys",
        }
    }

    fn mishaps(&self, _op: Op) -> &dyn Mishaps {
        &self.aws
    }

    fn remove(&self, key: &KeyId) {
        self.aws.delete_key(&self.name, key.as_str());
    }

    fn make(&self) {
        self.aws.create_key(&self.name);
    }

    fn switch(&self, key: &KeyId, active: bool) {
        self.aws.set_status(&self.name, key.as_str(), active);
    }
}
