//! `entra-secret` on the lab's Graph and Entra.

use std::sync::Arc;
use std::time::Duration;

use rekeyd::issuer::entra_secret::KIND;
use rekeyd::model::{IntentId, KeyId, Material, Reason, Shape};
use rekeyd::ports::{Fault, Issuer, Listing, Probe, Standing};
use rekeyd_lab::{Azure, AzureOptions, Fault as Mishap, PasswordPolicy};

use super::azure::{connect, reason, sent};
use super::contract::{self, Operation, World};

const RIGHT: &str = "Application.ReadWrite.OwnedBy";

/// An application with one secret that a person made.
struct Application {
    azure: Azure,
    issuer: Arc<dyn Issuer>,
    object_id: String,
    client_id: String,
    /// Of the secret in use.
    by_hand: String,
}

impl Application {
    async fn new(options: AzureOptions) -> Application {
        let azure = Azure::start(options).await;
        let storage = azure.add_storage_account("gisstore");
        azure.add_container(&storage, "gis");
        let (object_id, client_id) = azure.add_application("arcgis");
        let (by_hand, _) = azure.create_password(&object_id, "made by hand");
        let issuer = connect(&KIND, &azure, &policy(&azure, &object_id, &client_id, ""));
        Application { azure, issuer, object_id, client_id, by_hand }
    }

    async fn mint(&self, intent: &str) -> Result<Material, Fault> {
        self.issuer.mint(&IntentId::new(intent), None).await.map(|minted| minted.material)
    }
}

fn policy(azure: &Azure, object_id: &str, client_id: &str, more: &str) -> String {
    format!(
        "application_object_id = \"{object_id}\"\nclient_id = \"{client_id}\"\nstorage_account = \"gisstore\"\n{more}\
         probe = {{ container = \"gis\", endpoint_url = \"{}/gisstore\" }}",
        azure.blob_url()
    )
}

impl World for Application {
    fn issuer(&self) -> Arc<dyn Issuer> {
        self.issuer.clone()
    }

    fn shape(&self) -> Shape {
        Shape::Labelled
    }

    fn in_use(&self, _listing: &Listing) -> KeyId {
        KeyId::new(&self.by_hand)
    }

    fn request(&self, operation: Operation) -> &'static str {
        match operation {
            Operation::Identity | Operation::List => "GetApplication",
            Operation::Mint => "AddPassword",
            Operation::Delete => "RemovePassword",
        }
    }

    fn fault(&self, request: &str, mishap: Mishap) {
        self.azure.fault(request, mishap);
    }

    fn sent(&self, request: &str) -> usize {
        sent(&self.azure, request)
    }

    fn allow(&self, _operation: Operation, yes: bool) -> String {
        if yes {
            self.azure.allow(RIGHT)
        } else {
            self.azure.deny(RIGHT)
        }
        RIGHT.to_owned()
    }
}

#[tokio::test]
async fn an_application_keeps_the_contract() {
    contract::suite(&Application::new(AzureOptions::default()).await).await;
}

#[tokio::test]
async fn a_secret_is_labelled_with_its_intent_and_ends_when_the_policy_says() {
    let app = Application::new(AzureOptions::default()).await;
    let more = "valid_for = \"90d\"\n";
    let issuer = connect(&KIND, &app.azure, &policy(&app.azure, &app.object_id, &app.client_id, more));
    let minted = issuer.mint(&IntentId::new("01997d2e.1"), None).await.expect("mints");
    let passwords = app.azure.passwords(&app.object_id);
    let made = passwords.iter().find(|password| password.key_id == minted.material.key().as_str()).expect("there");
    assert_eq!(made.display_name.as_deref(), Some("rekeyd 01997d2e.1"));
    let days = (made.end - made.start).num_hours() as f64 / 24.0;
    assert!((89.9..=90.1).contains(&days), "{days}");
    let Material::ServicePrincipal { tenant, client, storage_account, .. } = &minted.material else {
        panic!("another")
    };
    assert_eq!((tenant, client), (&app.azure.tenant_id(), &app.client_id));
    assert_eq!(storage_account.as_deref(), Some("gisstore"));
}

/// Entra says the same of a secret that a server does not know yet and of one that was never right.
#[tokio::test]
async fn a_young_secret_is_told_from_a_wrong_one() {
    let slow = AzureOptions { propagation: Duration::from_secs(60), ..AzureOptions::default() };
    let app = Application::new(slow).await;
    let minted = app.mint("r1.1").await.expect("mints");
    let young = app.issuer.probe(&minted).await;
    assert!(
        matches!(&young, Ok(Probe::NotYet(why)) if why.contains("AADSTS7000215") && why.contains("not every server"))
    );
    let brought = rekeyd::model::Secret::new("0000000000000000000000000000000000000000".to_owned());
    let wrong = app.issuer.known(minted.key(), Some(brought)).await.expect("answers").expect("known");
    let wrong = app.issuer.probe(&wrong).await;
    assert!(matches!(&wrong, Ok(Probe::Wrong(why)) if why.contains("begins otherwise")), "{wrong:?}");
    app.azure.set_options(|options| options.propagation = Duration::ZERO);
    assert_eq!(app.issuer.probe(&minted).await, Ok(Probe::Works));
    app.azure.remove_password(&app.object_id, minted.key().as_str());
    let gone = app.issuer.probe(&minted).await;
    assert!(matches!(&gone, Ok(Probe::NotYet(why)) if why.contains("lists no secret")), "{gone:?}");
}

#[tokio::test]
async fn a_secret_that_has_ended_is_listed_as_inactive_and_said_to_be_over() {
    let app = Application::new(AzureOptions::default()).await;
    let minted = app.mint("r1.1").await.expect("mints");
    let key = minted.key().clone();
    app.azure.set_password_end(&app.object_id, key.as_str(), chrono::Utc::now() - chrono::TimeDelta::minutes(1));
    let listing = app.issuer.list().await.expect("lists");
    let active: Vec<bool> = listing.keys.iter().filter(|listed| listed.id == key).map(|listed| listed.active).collect();
    assert_eq!(active, [false]);
    let over = app.issuer.probe(&minted).await;
    assert!(matches!(&over, Ok(Probe::Wrong(why)) if why.contains("AADSTS7000222")), "{over:?}");
}

#[tokio::test]
async fn a_token_is_not_enough_where_the_data_is_closed() {
    let app = Application::new(AzureOptions::default()).await;
    let minted = app.mint("r1.1").await.expect("mints");
    app.azure.deny_data(&app.client_id);
    let closed = app.issuer.probe(&minted).await;
    assert!(
        matches!(&closed, Ok(Probe::NotAllowed(why)) if why.contains("AuthorizationPermissionMismatch")),
        "{closed:?}"
    );
}

#[tokio::test]
async fn what_a_tenant_does_not_allow_is_told_with_the_way_out() {
    let app = Application::new(AzureOptions::default()).await;
    app.azure.set_options(|options| options.password_policy = PasswordPolicy::Lifetime(Duration::from_secs(86_400)));
    let (why, said) = reason(app.mint("r1.1").await);
    assert_eq!(why, Reason::PolicyMismatch);
    assert!(said.contains("the tenant lets secrets live for less than valid_for says"), "{said}");
    app.azure.set_options(|options| options.password_policy = PasswordPolicy::Forbidden);
    let (why, said) = reason(app.mint("r1.1").await);
    assert_eq!(why, Reason::PolicyMismatch);
    assert!(said.contains("have it exempted"), "{said}");
    app.azure.set_options(|options| options.password_policy = PasswordPolicy::Any);
    app.azure.set_owned(&app.object_id, false);
    let (why, said) = reason(app.mint("r1.1").await);
    assert_eq!(why, Reason::MissingRight);
    assert!(said.contains("and to be an owner of application"), "{said}");
    assert_eq!(app.azure.mints(), 0);
}

#[tokio::test]
async fn the_right_and_the_ownership_are_asked_for() {
    let app = Application::new(AzureOptions::default()).await;
    let told = app.issuer.rights().await;
    assert!(matches!(&told, Ok(Some(Standing::Enough(said))) if said.contains("is an owner")), "{told:?}");
    app.azure.set_owned(&app.object_id, false);
    let (why, said) = reason(app.issuer.rights().await);
    assert!(why == Reason::MissingRight && said.contains("az ad app owner add --id"), "{said}");
    app.azure.set_owned(&app.object_id, true);
    app.azure.deny(RIGHT);
    let told = app.issuer.rights().await;
    assert!(matches!(&told, Ok(Some(Standing::Doubtful(_) | Standing::Untold(_)))), "{told:?}");
    assert_eq!(app.azure.mints(), 0, "asking changes nothing");
}

/// Applications that personal accounts may use have two secrets and no third; the listing says so before a mint is tried.
#[tokio::test]
async fn two_secrets_are_all_some_applications_have() {
    let app = Application::new(AzureOptions::default()).await;
    assert_eq!(app.issuer.list().await.expect("lists").quota, None);
    app.azure.set_passwords_max(&app.object_id, Some(2));
    assert_eq!(app.issuer.list().await.expect("lists").quota, Some(2));
    app.mint("r1.1").await.expect("the second fits");
    let (why, said) = reason(app.mint("r2.1").await);
    assert_eq!((why, app.azure.mints()), (Reason::Quota, 1), "{said}");
}

/// It is told with 409 (nais/azurerator issue 448), which says that nothing was done, or with 503 (azure-cli issue 23081).
#[tokio::test]
async fn a_busy_directory_is_waited_for() {
    let app = Application::new(AzureOptions::default()).await;
    app.azure.fault("AddPassword", Mishap::Error(409));
    let busy = app.mint("r1.1").await;
    assert!(
        matches!(&busy, Err(Fault::Retry { why, .. }) if why.contains("Directory_ConcurrencyViolation")),
        "{busy:?}"
    );
    app.azure.fault("AddPassword", Mishap::Error(503));
    let busy = app.mint("r1.1").await;
    assert!(matches!(&busy, Err(Fault::Unknown(why)) if why.contains("Directory_ConcurrencyViolation")), "{busy:?}");
    assert_eq!(app.azure.mints(), 0);
}

/// The rotator would remove the secret it logs in with.
#[test]
fn rekeyds_own_application_is_no_service() {
    let account =
        "tenant_id = \"t\"\nclient_id = \"5B3CE9A1-0f6e-4b8c-8a52-6b4f0e1a2c3d\"\nclient_secret = { env = \"S\" }";
    let issuer = "application_object_id = \"0fd5c0e6-9a0f-4d92-a4b9-77a3d6f90a01\"\n\
                  client_id = \"5b3ce9a1-0f6e-4b8c-8a52-6b4f0e1a2c3d\"\nstorage_account = \"gisstore\"\n\
                  probe = { container = \"gis\" }";
    let config = rekeyd::table::read(account, "account", KIND.read_system).expect("no mistake").expect("an account");
    let at = rekeyd::model::SystemRef { table: "azure".into(), name: "main".into() };
    let system = rekeyd::model::SystemSpec { at, config };
    let report = rekeyd::table::read(issuer, "issuer", |table| (KIND.read)(table, Some(&system))).expect_err("its own");
    assert!(report.to_string().contains("is the application that rekeyd itself logs in as ([azure.main])"), "{report}");
}

#[tokio::test]
async fn another_applications_client_id_is_found_out() {
    let app = Application::new(AzureOptions::default()).await;
    let (_, other) = app.azure.add_application("other");
    let issuer = connect(&KIND, &app.azure, &policy(&app.azure, &app.object_id, &other, ""));
    let (why, said) = reason(issuer.identity().await);
    assert_eq!(why, Reason::PolicyMismatch);
    assert!(said.contains("client_id in the policy is another application's"), "{said}");
}
