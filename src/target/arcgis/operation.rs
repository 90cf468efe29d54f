//! By which operation a credential gets into a cloud service or provider, and whether it fits there. Pure.

use super::cloud::{Provider, Service, Sort};
use super::config::{Operation, Product};
use super::credential::{Form, KEYED, Spelling, type_of};
use super::keyless::keyless_object;
use super::shown::Shown;
use crate::model::{Keyless, MaterialKind, Reason};
use crate::net::redact::Redactor;
use crate::ports::{Fault, Reading};

/// The verb of the operation that hands a key over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// `credential/add`: until 11.5 the only one; from 12.0 on for a place without a credential of its own.
    Add,
    /// `credential/update`.
    Update,
}

impl Verb {
    /// As it stands in the path.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Add => "add",
            Self::Update => "update",
        }
    }
}

/// A place as found: what it shows, and how a key gets there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// What it shows of its credential.
    pub reading: Reading,
    /// The operation.
    pub verb: Verb,
    /// The credential there now, which a new one follows in shape.
    pub current: Option<Shown>,
}

/// The first version whose `credential/update` is documented to switch the type: "moving from key-based models to identity or
/// role-based models".
pub const SWITCHES_SINCE: (u32, u32) = (12, 0);

/// What comes, and where to: decides whether it can be handed over.
#[derive(Clone, Copy, Debug)]
pub struct Coming<'a> {
    /// What the key is made of; `None` where nobody knows yet.
    pub material: Option<MaterialKind>,
    /// What comes in place of a key.
    pub keyless: Option<&'a Keyless>,
    /// The version of the site, where it says one.
    pub version: Option<(u32, u32)>,
    /// Which product it comes to.
    pub product: Product,
    /// `arcgis.prod`.
    pub site: &'a str,
}

impl Coming<'_> {
    /// Refuses what cannot be rotated, does not fit, or could not be written whole.
    fn fits(&self, place: &str, label: &str, sort: Sort, current: Option<&Shown>) -> Result<(), Fault> {
        let clean = |text: &str| Redactor::default().clean(text);
        let refused = |what: String| {
            let why = format!("looking at {place} of {}: {what}", self.site);
            Err(Fault::Refused { reason: Reason::Refused, why })
        };
        if let Some(to) = self.keyless {
            return self.may_become(to, label, sort, current).or_else(refused);
        }
        if let Some(current) = current {
            let kind = if current.kind.is_empty() { "of no named type".to_owned() } else { clean(&current.kind) };
            if current.is_keyless() && !self.can_switch() {
                return refused(format!("its credential is {kind}, which holds no key: nothing to rotate"));
            }
            // The way back from such a credential. Whether it was ours to give, and which key was there before, the machine knows.
            let current = Some(current).filter(|current| !current.is_keyless());
            let Some(current) = current else {
                return self.could_be_written(Sort::Untold, label, None).or_else(refused);
            };
            if !KEYED.contains(&current.kind.as_str()) {
                return refused(format!("its credential is {kind}, and this build rotates {}", any_of(&KEYED)));
            }
        }
        self.could_be_written(sort, label, current).or_else(refused)
    }

    fn could_be_written(&self, sort: Sort, label: &str, current: Option<&Shown>) -> Result<(), String> {
        let clean = |text: &str| Redactor::default().clean(text);
        let Some(material) = self.material else { return Ok(()) };
        let comes = type_of(material);
        match current {
            // What is there fits, whatever the place is called; and no rotation makes something else of it unasked.
            Some(current) if current.kind != comes => {
                let kind = &current.kind;
                return Err(format!(
                    "its credential is {kind}, and the issuer makes {comes}: a rotation does not change the type"
                ));
            }
            None if !sort.takes().contains(&comes) => {
                let (label, takes) = (clean(label), any_of(sort.takes()));
                return Err(format!("it is {label}, which takes {takes}, and the issuer makes {comes}"));
            }
            _ => {}
        }
        match Form::new(material, self.product, Spelling::Snake, current) {
            Ok(_) => Ok(()),
            Err(what) => Err(format!("its {comes} credential {}", clean(&what))),
        }
    }

    /// Whether this version can change the type of a credential.
    fn can_switch(&self) -> bool {
        self.version.is_some_and(|version| version >= SWITCHES_SINCE)
    }

    /// Whether a place can leave its key behind for a role or an identity.
    fn may_become(&self, to: &Keyless, label: &str, sort: Sort, current: Option<&Shown>) -> Result<(), String> {
        let clean = |text: &str| Redactor::default().clean(text);
        if !self.can_switch() {
            let version = match self.version {
                Some((major, minor)) => format!("it is version {major}.{minor}"),
                None => "it does not say its version".to_owned(),
            };
            return Err(format!("{version}, and a credential can change its type from 12.0 on"));
        }
        let Some(current) = current else {
            return Err("it has no credential of its own that could be switched".to_owned());
        };
        let fits = match to {
            Keyless::IamRole => matches!(sort, Sort::Amazon | Sort::Bucket | Sort::Untold),
            Keyless::UserAssignedIdentity { .. } => {
                matches!(sort, Sort::Blob | Sort::Cosmos | Sort::ServiceBus | Sort::Azure | Sort::Untold)
            }
        };
        if !fits {
            return Err(format!("it is {}, which has no use for {}", clean(label), to.word()));
        }
        let is_amazons = ["ACCESS-KEY", "IAM-ROLE"].contains(&current.kind.as_str());
        if is_amazons != (*to == Keyless::IamRole) {
            let kind = clean(&current.kind);
            return Err(format!("its credential is {kind}, in place of which {} is of no use", to.word()));
        }
        keyless_object(to, self.product).map(|_| ())
    }
}

/// `A`, `A or B`, `A, B or C`.
fn any_of(types: &[&str]) -> String {
    match types {
        [] => "nothing".to_owned(),
        [one] => (*one).to_owned(),
        [rest @ .., last] => format!("{} or {last}", rest.join(", ")),
    }
}

/// How many services or providers a message names.
const LISTED_MAX: usize = 20;

/// Finds a service and decides its operation.
///
/// # Errors
/// [`Fault::Refused`]: `not-found` with the ids there are; `inherits` with the provider and all that inherit from it, where `auto`
/// would have to choose; `refused` where there is nothing to rotate, or what comes does not fit.
pub fn service_road(services: &[Service], id: &str, operation: Operation, coming: Coming<'_>) -> Result<Found, Fault> {
    let site = coming.site;
    let service = services.iter().find(|service| service.id == id).ok_or_else(|| {
        let known = services.iter().map(|service| (service.id.as_str(), service.label.as_str()));
        not_found("cloud service", id, known, site)
    })?;
    let reading = service.own.as_ref().map_or(Reading::Nothing, |own| own.reading.clone());
    if service.own.is_some() || operation != Operation::Auto {
        coming.fits(&format!("cloud service {id}"), &service.label, service.sort, service.own.as_ref())?;
    }
    let verb = match (operation, &service.own) {
        (Operation::Add, _) => Verb::Add,
        (Operation::Update, _) => Verb::Update,
        (Operation::Auto, None) => return Err(inherits(services, service, site)),
        (Operation::Auto, Some(_)) => match coming.version {
            Some(version) if version < (12, 0) => Verb::Add,
            Some(_) => Verb::Update,
            None => {
                let why = format!(
                    "inspecting {site}: it does not say its version; say operation = \"add\" (until 11.5) or \"update\""
                );
                return Err(Fault::Refused { reason: Reason::Refused, why });
            }
        },
    };
    Ok(Found { reading, verb, current: service.own.clone() })
}

/// Decides the operation of a provider.
///
/// # Errors
/// [`Fault::Refused`] where there is nothing to rotate, or what comes does not fit.
pub fn provider_road(provider: &Provider, operation: Operation, coming: Coming<'_>) -> Result<Found, Fault> {
    let (place, product) = (format!("cloud provider {}", provider.id), coming.product);
    coming.fits(&place, &provider.label, provider.sort, provider.credential.as_ref())?;
    let reading = provider.credential.as_ref().map_or(Reading::Nothing, |credential| credential.reading.clone());
    let verb = match operation {
        Operation::Add => Verb::Add,
        Operation::Update => Verb::Update,
        // Only Server has `add` for providers. Its `update` is documented nowhere, and likely all the same.
        Operation::Auto if product == Product::Server && provider.credential.is_none() => Verb::Add,
        Operation::Auto => Verb::Update,
    };
    Ok(Found { reading, verb, current: provider.credential.clone() })
}

/// The fault of an id that is not there, with those that are.
pub fn not_found<'a>(kind: &str, id: &str, known: impl Iterator<Item = (&'a str, &'a str)>, site: &str) -> Fault {
    let known = list(known);
    let known = if known.is_empty() { "it has none".to_owned() } else { format!("it has {known}") };
    Fault::Refused {
        reason: Reason::NotFound,
        why: format!("looking for {kind} {id}: {site} does not know it; {known}"),
    }
}

fn inherits(services: &[Service], service: &Service, site: &str) -> Fault {
    let provider = &service.provider;
    let all = services.iter().filter(|other| other.provider == *provider && other.own.is_none());
    let all = list(all.map(|other| (other.id.as_str(), other.label.as_str())));
    let provider = Redactor::default().clean(provider);
    let why = format!(
        "looking at cloud service {} of {site}: it has no credential of its own and inherits that of provider {provider}, as do all of \
         {all}; to rotate it for them all, say provider_id = \"{provider}\" in place of service_id",
        service.id
    );
    Fault::Refused { reason: Reason::Inherits, why }
}

/// The server's own words, so each is cleaned, and there is an end to them.
fn list<'a>(entries: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let redactor = Redactor::default();
    let mut shown = entries
        .map(|(id, label)| if label.is_empty() { id.to_owned() } else { format!("{id} ({label})") })
        .map(|entry| redactor.clean(&entry))
        .collect::<Vec<_>>();
    if shown.len() > LISTED_MAX {
        let more = shown.len() - LISTED_MAX;
        shown.truncate(LISTED_MAX);
        shown.push(format!("and {more} more"));
    }
    shown.join(", ")
}
#[cfg(test)]
mod tests {
    use super::super::cloud::{provider_of, services_of};
    use super::*;
    use crate::model::Tail;
    use serde_json::json;

    /// The documents' own example: one service that inherits, one with its own, and a few fields of tomorrow.
    fn services() -> Vec<Service> {
        let list = json!({"future": 1, "cloudServices": [
            {"providerId": "s7my5d949q", "usage": "DEFAULT", "name": "AWS S3", "future": {"a": []},
             "connection": {"bucketName": "cloud-native-store", "rootDir": "arcgisecs", "region": "us-east-2"},
             "id": "wpjkp9s7ub", "type": "objectStore", "category": "storage"},
            {"providerId": "s7my5d949q", "name": "Amazon Dynamo DB", "connection": null, "id": "tablestore"},
            {"providerId": "s7my5d949q", "usage": "BACKUP", "name": "AWS S3",
             "connection": {"bucketName": "cloud-native-store", "credential": {"type": "ACCESS-KEY",
                "secret": {"secretKey": "{crypt}xxxxxxxxxxxxxxxx4y2s", "accessKey": "{crypt}+1FSvRmP"}}},
             "id": "uqsip6c2vm"},
            {"id": "rolerolero", "providerId": "other", "connection": {"credential": {"type": "IAM-ROLE"}}},
            {"id": "azureazure", "providerId": "other", "connection": {"credential": {"type": "STORAGE-ACCOUNT-KEY"}}},
            {"id": "tomorrow00", "providerId": "other", "connection": {"credential": {"type": "PASSKEY"}}},
            {"id": "masked0000", "providerId": "other", "connection": {"credential": {"type": "ACCESS-KEY",
                "secret": {"secretKey": "{crypt}xxxxxxxxxxxxxxxx4y2s", "sessionKey": "{crypt}xxxxxxxxxxxxxxxx4y2s"}}}},
            {"name": "without an id"}, 7
        ]});
        services_of(&list).expect("it is a list of services")
    }

    fn coming(material: Option<MaterialKind>, product: Product) -> Coming<'static> {
        Coming { material, keyless: None, version: None, product, site: "arcgis.prod" }
    }

    fn road(id: &str, operation: Operation, version: Option<(u32, u32)>) -> Result<Found, Fault> {
        let coming = Coming { version, ..coming(Some(MaterialKind::AccessKey), Product::Kubernetes) };
        service_road(&services(), id, operation, coming)
    }

    fn refusal(id: &str) -> (Reason, String) {
        match road(id, Operation::Auto, Some((12, 0))) {
            Err(Fault::Refused { reason, why }) => (reason, why),
            other => panic!("{other:?} is no refusal"),
        }
    }

    #[test]
    fn the_operation_follows_version_and_policy() {
        let verb = |operation, version| road("uqsip6c2vm", operation, version).map(|found| found.verb);
        assert_eq!(verb(Operation::Auto, Some((11, 2))), Ok(Verb::Add));
        assert_eq!(verb(Operation::Auto, Some((11, 5))), Ok(Verb::Add));
        assert_eq!(verb(Operation::Auto, Some((12, 0))), Ok(Verb::Update));
        assert_eq!(verb(Operation::Add, None), Ok(Verb::Add));
        assert_eq!(verb(Operation::Update, Some((11, 2))), Ok(Verb::Update));
        assert!(matches!(verb(Operation::Auto, None), Err(Fault::Refused { .. })));
    }

    #[test]
    fn a_service_that_inherits_is_not_decided_for() {
        assert_eq!(
            refusal("wpjkp9s7ub"),
            (
                Reason::Inherits,
                "looking at cloud service wpjkp9s7ub of arcgis.prod: it has no credential of its own and inherits that of provider s7my5d949q, \
                 as do all of wpjkp9s7ub (AWS S3 DEFAULT cloud-native-store), tablestore (Amazon Dynamo DB); to rotate it for \
                 them all, say provider_id = \"s7my5d949q\" in place of service_id"
                    .to_owned()
            )
        );
        let forked = Found { reading: Reading::Nothing, verb: Verb::Add, current: None };
        assert_eq!(road("wpjkp9s7ub", Operation::Add, Some((12, 0))), Ok(forked));
    }

    #[test]
    fn what_cannot_be_rotated_says_why() {
        let Err(Fault::Refused { why, .. }) = road("rolerolero", Operation::Auto, Some((11, 5))) else {
            panic!("no type changes at 11.5");
        };
        assert_eq!(
            why,
            "looking at cloud service rolerolero of arcgis.prod: its credential is IAM-ROLE, which holds no key: nothing to rotate"
        );
        assert!(
            refusal("azureazure").1.ends_with(
                "its credential is STORAGE-ACCOUNT-KEY, and the issuer makes ACCESS-KEY: a rotation does not change the type"
            )
        );
        assert!(
            refusal("tomorrow00").1.contains("its credential is PASSKEY, and this build rotates ACCESS-KEY, STORAGE")
        );
        assert!(refusal("masked0000").1.ends_with(
            "its ACCESS-KEY credential has a field `secret.sessionKey` that is shown masked only, and nobody but ArcGIS knows it"
        ));
        let (reason, why) = refusal("nosuchone1");
        assert_eq!(reason, Reason::NotFound);
        assert!(
            why.contains("it has wpjkp9s7ub (AWS S3 DEFAULT cloud-native-store), tablestore (Amazon Dynamo DB), "),
            "{why}"
        );
    }

    #[test]
    fn a_provider_is_updated_and_only_a_bare_one_of_server_is_added_to() {
        let bare = provider_of(&json!({"id": "betc4g098c", "name": "AWS"})).expect("it has an id");
        let held = provider_of(&json!({"id": "betc4g098c", "credential": {"type": "ACCESS-KEY",
            "secret": {"secretKey": "v2Crypt_xxxxxxxxxxxxxxxxVC5M"}}}))
        .expect("it has an id");
        let known = |product| coming(Some(MaterialKind::AccessKey), product);
        let verb = |provider, product| provider_road(provider, Operation::Auto, known(product)).map(|found| found.verb);
        assert_eq!(verb(&bare, Product::Server), Ok(Verb::Add));
        assert_eq!(verb(&bare, Product::Kubernetes), Ok(Verb::Update));
        assert_eq!(verb(&held, Product::Server), Ok(Verb::Update));
        let found = provider_road(&held, Operation::Auto, known(Product::Server)).expect("it can be rotated");
        assert_eq!(found.reading, Reading::Tail(Tail::new("VC5M")));
        let role = provider_of(&json!({"id": "p", "credential": {"type": "IAM-ROLE"}})).expect("it has an id");
        assert!(provider_road(&role, Operation::Auto, known(Product::Server)).is_err());
    }

    #[test]
    fn what_a_place_is_decides_what_fits_where_nothing_is_held() {
        use MaterialKind::{AccessKey, CosmosAccountKey, HmacKey, SasToken, ServiceBusKey, StorageAccountKey};
        let principal = MaterialKind::ServicePrincipal { authority_host: false, storage_account: true };
        let all = [AccessKey, StorageAccountKey, SasToken, principal, HmacKey, CosmosAccountKey, ServiceBusKey];
        for (name, connection, fitting) in [
            ("AWS S3", json!({}), vec![AccessKey]),
            ("Amazon Dynamo DB", json!({}), vec![AccessKey]),
            ("Azure Blob Store", json!({}), vec![StorageAccountKey, SasToken, principal]),
            ("Azure Cosmos DB", json!({}), vec![principal, CosmosAccountKey]),
            ("Azure Service Bus", json!({}), vec![principal, ServiceBusKey]),
            ("Google Cloud Storage", json!({"bucketName": "b"}), vec![HmacKey]),
            ("", json!({"containerName": "c"}), vec![StorageAccountKey, SasToken, principal]),
            ("", json!({"databaseId": "d"}), vec![principal, CosmosAccountKey]),
            ("", json!({"serviceBusEndpointUrl": "u"}), vec![principal, ServiceBusKey]),
            ("Store of tomorrow", json!({"bucketName": "b"}), vec![AccessKey, HmacKey]),
            ("Store of tomorrow", json!({}), all.to_vec()),
        ] {
            let list = json!({"cloudServices": [{"id": "a", "name": name, "connection": connection}]});
            let services = services_of(&list).expect("it is a list");
            let fits = |kind: &MaterialKind| {
                service_road(&services, "a", Operation::Add, coming(Some(*kind), Product::Kubernetes)).is_ok()
            };
            assert_eq!(
                all.iter().copied().filter(|kind| fits(kind)).collect::<Vec<_>>(),
                fitting,
                "{name} {connection}"
            );
            assert!(service_road(&services, "a", Operation::Add, coming(None, Product::Server)).is_ok());
            assert!(!fits(&MaterialKind::ApiToken) && !fits(&MaterialKind::ApiCertificate), "{name} {connection}");
        }
        for (name, fitting) in [
            ("AWS", vec![AccessKey]),
            ("AZURE", vec![StorageAccountKey, SasToken, principal]),
            ("GCP", vec![HmacKey]),
            ("OTHER", all.to_vec()),
        ] {
            let provider = provider_of(&json!({"id": "p", "name": name})).expect("it has an id");
            let fits = |kind: &MaterialKind| {
                provider_road(&provider, Operation::Auto, coming(Some(*kind), Product::Server)).is_ok()
            };
            assert_eq!(all.iter().copied().filter(|kind| fits(kind)).collect::<Vec<_>>(), fitting, "{name}");
        }
    }

    #[test]
    fn a_wrong_type_is_told_with_what_would_fit() {
        let list =
            json!({"cloudServices": [{"id": "a", "name": "Azure Blob Store", "connection": {"containerName": "gis"}}]});
        let services = services_of(&list).expect("it is a list");
        let fault =
            service_road(&services, "a", Operation::Add, coming(Some(MaterialKind::AccessKey), Product::Server));
        assert_eq!(
            fault.expect_err("it does not fit").why(),
            "looking at cloud service a of arcgis.prod: it is Azure Blob Store gis, which takes STORAGE-ACCOUNT-KEY, SAS-TOKEN or \
             SERVICE-PRINCIPAL, and the issuer makes ACCESS-KEY"
        );
    }

    #[test]
    fn a_key_is_left_behind_where_the_version_and_the_place_allow_it() {
        let identity = |storage_account: Option<&str>| Keyless::UserAssignedIdentity {
            client: "0f-client".to_owned(),
            storage_account: storage_account.map(str::to_owned),
        };
        let switched = |id: &str, to: &Keyless, version| {
            let coming = Coming { keyless: Some(to), version, ..coming(None, Product::Kubernetes) };
            service_road(&services(), id, Operation::Auto, coming).map(|found| found.verb).map_err(|fault| {
                let why = fault.why().to_owned();
                why.split_once(": ").map_or(why.clone(), |(_, what)| what.to_owned())
            })
        };
        let twelve = Some((12, 0));
        assert_eq!(switched("uqsip6c2vm", &Keyless::IamRole, twelve), Ok(Verb::Update));
        assert_eq!(switched("rolerolero", &Keyless::IamRole, twelve), Ok(Verb::Update), "once more does no harm");
        assert_eq!(switched("azureazure", &identity(Some("gisstore")), twelve), Ok(Verb::Update));
        let no = |id: &str, to: &Keyless, version| switched(id, to, version).expect_err("it cannot be switched");
        assert_eq!(
            no("uqsip6c2vm", &Keyless::IamRole, Some((11, 5))),
            "it is version 11.5, and a credential can change its type from 12.0 on"
        );
        assert!(no("uqsip6c2vm", &Keyless::IamRole, None).starts_with("it does not say its version, "));
        assert_eq!(
            no("uqsip6c2vm", &identity(Some("gisstore")), twelve),
            "it is AWS S3 BACKUP cloud-native-store, which has no use for user-assigned-identity"
        );
        assert!(no("azureazure", &Keyless::IamRole, twelve).ends_with("in place of which iam-role is of no use"));
        assert!(no("azureazure", &identity(None), twelve).contains("needs the name of its storage account"));
        assert!(no("tablestore", &Keyless::IamRole, twelve).contains("inherits"), "its provider is switched instead");
    }

    #[test]
    fn the_way_back_to_a_key_is_open() {
        let found = road("rolerolero", Operation::Auto, Some((12, 0))).expect("its type may change");
        assert_eq!(found.verb, Verb::Update);
        assert_eq!(found.reading, Reading::Keyless(Keyless::IamRole.mark()));
    }
}
