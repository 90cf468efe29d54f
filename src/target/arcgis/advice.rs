//! Whether a place could leave its key behind: the move to an IAM role or to an assigned identity that 12.0 allows.
//!
//! The pages of 12.0 say that `credential/update` switches types ("moving from key-based models to identity or role-based models"),
//! and name Amazon S3's IAM roles and Azure Blob Store's identities. What they name no type for is not advised. Whether the role or
//! the identity is there, and reaches the store, nobody can see from outside: it is told as what has to be prepared. Changes nothing.

use serde_json::Value;

use super::cloud::{Sort, providers_of, services_of, version_of};
use super::config::{Place, Product};
use super::operation::{self, SWITCHES_SINCE};
use super::session::Ask;
use super::{ArcGis, MASKED};
use crate::net::redact::Redactor;
use crate::ports::{Fault, WithoutKey};

/// What a place shows, as far as it decides.
struct Seen {
    version: Option<(u32, u32)>,
    product: Product,
    /// `cloud service eg7hrelq6b`.
    place: String,
    /// Its own credential's type; `None` where it has none.
    kind: Option<String>,
    is_keyless: bool,
    sort: Sort,
    /// The store's own address, where it is not the cloud's.
    endpoint: Option<String>,
    /// Services that use a provider's credential, and go with it.
    along: Vec<String>,
    /// The provider of a service.
    provider: String,
}

impl ArcGis {
    pub(super) async fn advise(&self) -> Result<WithoutKey, Fault> {
        let place = &self.config.place;
        if let Place::Item(path) = place {
            return Ok(WithoutKey::Impossible(format!(
                "data item {path} is a registered data store: no page says that one changes to a role or an identity, and this build \
                 edits nothing but its key; register it anew by hand where that is wanted"
            )));
        }
        let version = version_of(&self.root().await?);
        let services = self.raw("cloud/services").await?;
        let listed = services_of(&services).ok_or_else(|| self.odd("reading cloud/services"))?;
        let id = place.id();
        let known = listed.iter().map(|service| (service.id.as_str(), service.label.as_str()));
        let seen = match place {
            Place::Service(_) => {
                let service = listed.iter().find(|service| service.id == id);
                let missing =
                    || self.deployment.discreet(operation::not_found("cloud service", id, known, &self.site()));
                let service = service.ok_or_else(missing)?;
                Seen {
                    kind: service.own.as_ref().map(|own| own.kind.clone()),
                    is_keyless: service.own.as_ref().is_some_and(|own| own.is_keyless()),
                    sort: service.sort,
                    endpoint: endpoint_of(&services, id),
                    along: Vec::new(),
                    provider: service.provider.clone(),
                    ..self.seen(version)
                }
            }
            Place::Provider(_) | Place::Item(_) => {
                let providers = self.raw("cloud/providers").await?;
                let all = providers_of(&providers).ok_or_else(|| self.odd("reading cloud/providers"))?;
                let known = all.iter().map(|provider| (provider.id.as_str(), provider.label.as_str()));
                let missing =
                    || self.deployment.discreet(operation::not_found("cloud provider", id, known, &self.site()));
                let provider = all.iter().find(|provider| provider.id == id).ok_or_else(missing)?;
                let along: Vec<_> =
                    listed.iter().filter(|service| service.provider == id && service.own.is_none()).collect();
                Seen {
                    kind: provider.credential.as_ref().map(|own| own.kind.clone()),
                    is_keyless: provider.credential.as_ref().is_some_and(|own| own.is_keyless()),
                    sort: provider.sort,
                    endpoint: along.iter().find_map(|service| endpoint_of(&services, &service.id)),
                    along: along
                        .iter()
                        .map(|service| format!("{} ({})", clean(&service.id), clean(&service.label)))
                        .collect(),
                    provider: String::new(),
                    ..self.seen(version)
                }
            }
        };
        Ok(self.discreet(judge(&seen)))
    }

    /// Without what this deployment was ever given: parts of it are the server's own words.
    fn discreet(&self, told: WithoutKey) -> WithoutKey {
        let hide = |text: String| self.deployment.hide(&text);
        let all = |texts: Vec<String>| texts.into_iter().map(hide).collect();
        match told {
            WithoutKey::Already(now) => WithoutKey::Already(hide(now)),
            WithoutKey::Impossible(why) => WithoutKey::Impossible(hide(why)),
            WithoutKey::Possible { to, arguments, now, prepare, unseen } => {
                WithoutKey::Possible { to, arguments, now: hide(now), prepare: all(prepare), unseen: all(unseen) }
            }
        }
    }

    async fn raw(&self, path: &str) -> Result<Value, Fault> {
        let what = format!("reading {path}");
        self.deployment.get(Ask { query: &MASKED, ..Ask::get(&what, path) }).await
    }

    /// What is the same for services and providers.
    fn seen(&self, version: Option<(u32, u32)>) -> Seen {
        let (what, id) = match &self.config.place {
            Place::Service(id) => ("cloud service", id),
            Place::Provider(id) => ("cloud provider", id),
            Place::Item(path) => ("data item", path),
        };
        Seen {
            version,
            product: self.deployment.config.product,
            place: format!("{what} {id}"),
            kind: None,
            is_keyless: false,
            sort: Sort::Untold,
            endpoint: None,
            along: Vec::new(),
            provider: String::new(),
        }
    }
}

fn judge(seen: &Seen) -> WithoutKey {
    let place = &seen.place;
    let no = |why: String| WithoutKey::Impossible(why);
    let Some(kind) = &seen.kind else {
        let provider = clean(&seen.provider);
        return no(match provider.is_empty() {
            true => format!("{place} has no credential, so that there is no key to leave behind"),
            false => format!(
                "{place} has no credential of its own and uses that of provider {provider}: ask for the provider"
            ),
        });
    };
    if seen.is_keyless {
        return WithoutKey::Already(clean(kind));
    }
    match seen.version {
        None => return no("the site does not say its version, and only 12.0 and later can do without a key".to_owned()),
        Some(version) if version < SWITCHES_SINCE => {
            let (major, minor) = version;
            return no(format!(
                "the site is {major}.{minor}: until 12.0 a key can be replaced by another key and by nothing else; upgrade it, then ask \
                 again"
            ));
        }
        Some(_) => {}
    }
    match (kind.as_str(), seen.sort) {
        ("ACCESS-KEY", Sort::Amazon | Sort::Bucket | Sort::Untold) => iam_role(seen),
        ("STORAGE-ACCOUNT-KEY" | "SAS-TOKEN" | "SERVICE-PRINCIPAL", Sort::Blob | Sort::Azure | Sort::Untold) => {
            assigned_identity(seen, kind)
        }
        _ => no(format!(
            "{place} holds {}, for which no page names a type without a key: IAM roles are documented for Amazon S3, and identities for \
             Azure Blob Store",
            clean(kind)
        )),
    }
}

fn iam_role(seen: &Seen) -> WithoutKey {
    let bearer = match seen.product {
        Product::Kubernetes => "the nodes of the cluster, or the service account of ArcGIS's pods,",
        Product::Server => "every machine of the site",
    };
    let mut prepare = vec![
        format!("an IAM role that {bearer} can take on, with the rights that the key's user has on the bucket now"),
        "a bucket policy that names the key's user must name that role too".to_owned(),
    ];
    prepare.extend(those_along(seen));
    let mut unseen =
        vec!["whether the role is there, and reaches the bucket: ArcGIS does not say before it is switched".to_owned()];
    if let Some(endpoint) = &seen.endpoint {
        let endpoint = clean(endpoint);
        unseen.push(format!(
            "whether {endpoint} is Amazon's own: a store that only speaks S3 knows no roles of machines"
        ));
    }
    unseen.push(restarts());
    let (to, arguments) = ("iam-role".to_owned(), "--to iam-role".to_owned());
    WithoutKey::Possible { to, arguments, now: "ACCESS-KEY".to_owned(), prepare, unseen }
}

fn assigned_identity(seen: &Seen, kind: &str) -> WithoutKey {
    let (bearer, account) = match seen.product {
        Product::Kubernetes => ("the nodes of the cluster", " --storage-account NAME"),
        Product::Server => ("every machine of the site", ""),
    };
    let mut prepare = vec![format!(
        "a user-assigned identity on {bearer}, with a role that reads and writes the container's data (such as Storage Blob Data \
         Contributor), and its client id"
    )];
    if !account.is_empty() {
        prepare.push("the name of the storage account, which Kubernetes keeps beside the identity".to_owned());
    }
    prepare.extend(those_along(seen));
    let unseen = vec![
        "whether the identity is there, and reaches the container: ArcGIS does not say before it is switched"
            .to_owned(),
        restarts(),
    ];
    WithoutKey::Possible {
        to: "user-assigned-identity".to_owned(),
        arguments: format!("--to user-assigned-identity --client-id ID{account}"),
        now: clean(kind),
        prepare,
        unseen,
    }
}

fn those_along(seen: &Seen) -> Option<String> {
    let names = seen.along.join(", ");
    (!names.is_empty())
        .then(|| format!("the same for all that use this provider's credential, and go with it: {names}"))
}

fn restarts() -> String {
    "whether a switch restarts anything: no page says, and none was tried on a real ArcGIS".to_owned()
}

/// The address of a service's store, where it shows one that is not Amazon's.
fn endpoint_of(services: &Value, id: &str) -> Option<String> {
    let services = services.get("cloudServices")?.as_array()?;
    let service = services.iter().find(|service| service.get("id").and_then(Value::as_str) == Some(id))?;
    let endpoint = service.pointer("/connection/regionEndpointUrl")?.as_str().filter(|url| !url.is_empty())?;
    let host = endpoint.split_once("://").map_or(endpoint, |(_, rest)| rest).split(['/', ':']).next()?;
    let is_amazon = [".amazonaws.com", ".amazonaws.com.cn"].iter().any(|end| host.ends_with(end));
    (!is_amazon).then(|| endpoint.to_owned())
}

fn clean(text: &str) -> String {
    Redactor::default().clean(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn seen(kind: &str, sort: Sort) -> Seen {
        Seen {
            version: Some((12, 0)),
            product: Product::Kubernetes,
            place: "cloud service a1".to_owned(),
            kind: Some(kind.to_owned()),
            is_keyless: false,
            sort,
            endpoint: None,
            along: Vec::new(),
            provider: "p1".to_owned(),
        }
    }

    fn arguments(seen: &Seen) -> String {
        match judge(seen) {
            WithoutKey::Possible { arguments, .. } => arguments,
            other => panic!("{other:?}"),
        }
    }

    fn why_not(seen: &Seen) -> String {
        match judge(seen) {
            WithoutKey::Impossible(why) => why,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_the_pages_of_12_0_name_is_advised_and_nothing_else() {
        assert_eq!(arguments(&seen("ACCESS-KEY", Sort::Amazon)), "--to iam-role");
        for kind in ["STORAGE-ACCOUNT-KEY", "SAS-TOKEN", "SERVICE-PRINCIPAL"] {
            let on = |product| Seen { product, ..seen(kind, Sort::Blob) };
            let identity = "--to user-assigned-identity --client-id ID";
            assert_eq!(arguments(&on(Product::Server)), identity);
            assert_eq!(arguments(&on(Product::Kubernetes)), format!("{identity} --storage-account NAME"));
        }
        for (kind, sort) in [
            ("HMAC-KEYS", Sort::Google),
            ("COSMOSDB-ACCOUNT-KEY", Sort::Cosmos),
            ("SERVICEBUS-ACCESS-KEY", Sort::ServiceBus),
            ("SERVICE-PRINCIPAL", Sort::Cosmos),
            ("ACCESS-KEY", Sort::Google),
            ("SOMETHING-NEW", Sort::Untold),
        ] {
            assert!(why_not(&seen(kind, sort)).contains("no page names a type without a key"), "{kind} {sort:?}");
        }
    }

    #[test]
    fn an_older_or_untold_version_cannot() {
        let old = Seen { version: Some((11, 5)), ..seen("ACCESS-KEY", Sort::Amazon) };
        assert!(why_not(&old).starts_with("the site is 11.5: until 12.0"));
        assert!(why_not(&Seen { version: None, ..old }).contains("does not say its version"));
    }

    #[test]
    fn who_has_no_key_says_so_whatever_its_version() {
        let role = Seen { is_keyless: true, version: Some((11, 5)), ..seen("IAM-ROLE", Sort::Amazon) };
        assert_eq!(judge(&role), WithoutKey::Already("IAM-ROLE".to_owned()));
        let inherits = Seen { kind: None, ..seen("", Sort::Amazon) };
        assert!(why_not(&inherits).contains("uses that of provider p1"));
        assert!(why_not(&Seen { provider: String::new(), ..inherits }).contains("no key to leave behind"));
    }

    #[test]
    fn a_store_with_an_address_of_its_own_may_know_no_roles() {
        let at = |id: &str, url: &str| json!({"id": id, "connection": {"regionEndpointUrl": url}});
        let amazon = at("a3", "https://s3.us-east-2.amazonaws.com/");
        let services = json!({"cloudServices": [at("a1", "https://s3.example.com"), {"id": "a2"}, amazon]});
        assert_eq!(endpoint_of(&services, "a1").as_deref(), Some("https://s3.example.com"));
        assert_eq!((endpoint_of(&services, "a2"), endpoint_of(&services, "a3")), (None, None));
        let own = Seen { endpoint: endpoint_of(&services, "a1"), ..seen("ACCESS-KEY", Sort::Amazon) };
        let WithoutKey::Possible { unseen, .. } = judge(&own) else { panic!("it could") };
        assert!(unseen[1].starts_with("whether https://s3.example.com is Amazon's own"), "{unseen:?}");
    }

    #[test]
    fn what_goes_along_with_a_provider_is_named() {
        let provider = Seen { along: vec!["a1 (AWS S3)".to_owned()], ..seen("ACCESS-KEY", Sort::Amazon) };
        let WithoutKey::Possible { prepare, .. } = judge(&provider) else { panic!("it could") };
        assert!(prepare[2].ends_with("go with it: a1 (AWS S3)"), "{prepare:?}");
    }
}
