//! `gcs-hmac` on the lab's Google, and on a store that judges signatures by a library that is not ours.

use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use rekeyd::issuer::gcs_hmac::KIND;
use rekeyd::model::{IntentId, KeyId, Material, Reason, Shape, Standing, SystemRef, SystemSpec};
use rekeyd::ports::{Fault, Issuer, Listing, Probe};
use rekeyd::table;
use rekeyd_lab::s3::S3Store;
use rekeyd_lab::{Fault as Mishap, Google, GoogleOptions};

use super::contract::{self, Operation, World, context};

const BUCKET: &str = "gis-store";
/// Google's own endpoint, which a service account does not need.
const GOOGLES: &str = "https://oauth2.googleapis.com/token";
const MINUTE: Duration = Duration::from_secs(60);

/// A service account with one key that a person made.
struct Account {
    google: Google,
    store: S3Store,
    issuer: Arc<dyn Issuer>,
    email: String,
    by_hand: (String, String),
}

impl Account {
    async fn new(options: GoogleOptions) -> Account {
        // As the program does first of all.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let google = Google::start(options).await;
        let store = S3Store::start(google.lookup()).await;
        store.add_bucket(BUCKET);
        let email = google.add_service_account("arcgis");
        let by_hand = google.create_key(&email);
        let file = google.service_account_file(&google.token_url());
        let issuer = connect(&google, &store, &file, "", &email).expect("connects");
        Account { google, store, issuer, email, by_hand }
    }

    /// The same account, with this credentials file.
    fn with_file(&self, file: &str) -> Result<Arc<dyn Issuer>, Fault> {
        connect(&self.google, &self.store, file, "", &self.email)
    }

    async fn mint(&self) -> Material {
        self.issuer.mint(&IntentId::new("r1.1"), None).await.expect("mints").material
    }

    fn sent(&self, operation: &str) -> usize {
        self.google.requests().iter().filter(|line| line.operation == operation).count()
    }
}

fn connect(google: &Google, store: &S3Store, file: &str, more: &str, email: &str) -> Result<Arc<dyn Issuer>, Fault> {
    let mut kept = tempfile::NamedTempFile::new().expect("a file");
    kept.write_all(file.as_bytes()).expect("written");
    let (url, path) = (google.url(), kept.path().display());
    let account = format!(
        "credentials_file = \"{path}\"\nstorage_url = \"{url}\"\nresource_manager_url = \"{url}\"\nrequest_timeout = \"5s\"\n{more}"
    );
    let issuer = format!(
        "project = \"gis-prod-123\"\nservice_account = \"{email}\"\n\
         probe = {{ bucket = \"{BUCKET}\", expect = \"read\", endpoint_url = \"{}\" }}",
        store.url()
    );
    let config = table::read(&account, "account", KIND.read_system);
    let config = config.unwrap_or_else(|report| panic!("{report}")).expect("an account");
    let system = SystemSpec { at: SystemRef { table: "gcp".into(), name: "main".into() }, config };
    let spec = table::read(&issuer, "issuer", |table| (KIND.read)(table, Some(&system)));
    let spec = spec.unwrap_or_else(|report| panic!("{report}")).expect("a spec");
    (KIND.connect)(&spec, Some(&system), &context())
}

fn reason<T: std::fmt::Debug>(answer: Result<T, Fault>) -> (Reason, String) {
    match answer {
        Err(Fault::Refused { reason, why }) => (reason, why),
        other => panic!("not refused: {other:?}"),
    }
}

impl World for Account {
    fn issuer(&self) -> Arc<dyn Issuer> {
        self.issuer.clone()
    }

    fn shape(&self) -> Shape {
        Shape::ShownOnce
    }

    fn in_use(&self, _listing: &Listing) -> KeyId {
        KeyId::new(&self.by_hand.0)
    }

    fn request(&self, operation: Operation) -> &'static str {
        match operation {
            Operation::Identity | Operation::List => "ListHmacKeys",
            Operation::Mint => "CreateHmacKey",
            Operation::Delete => "DeleteHmacKey",
        }
    }

    fn fault(&self, request: &str, mishap: Mishap) {
        self.google.fault(request, mishap);
    }

    fn sent(&self, request: &str) -> usize {
        Account::sent(self, request)
    }

    fn allow(&self, operation: Operation, yes: bool) -> String {
        let right = match operation {
            Operation::Mint => "storage.hmacKeys.create",
            Operation::Delete => "storage.hmacKeys.delete",
            Operation::Identity | Operation::List => "storage.hmacKeys.list",
        };
        if yes {
            self.google.allow(right)
        } else {
            self.google.deny(right)
        }
        right.to_owned()
    }

    fn tells_use(&self) -> bool {
        false
    }

    fn deletes_active_keys(&self) -> bool {
        false
    }
}

#[tokio::test]
async fn a_service_account_keeps_the_contract() {
    contract::suite(&Account::new(GoogleOptions::default()).await).await;
}

#[tokio::test]
async fn an_account_is_known_by_its_project_and_its_address() {
    let lab = Account::new(GoogleOptions::default()).await;
    let identity = lab.issuer.identity().await.expect("answers");
    assert_eq!(identity.as_str(), format!("gcp:gis-prod-123/{}", lab.email));
    let file = lab.google.service_account_file(&lab.google.token_url());
    let other = connect(&lab.google, &lab.store, &file, "", "nobody@gis-prod-123.iam.gserviceaccount.com");
    let (why, said) = reason(other.expect("connects").identity().await);
    assert!(why == Reason::NotFound && said.contains("Service Account 'nobody@"), "{said}");
    lab.google.set_options(|options| options.project = "gis-test-456".to_owned());
    assert_eq!(reason(lab.issuer.identity().await).0, Reason::NotFound);
}

#[tokio::test]
async fn a_listing_is_whole_and_shows_no_deleted_key() {
    let lab = Account::new(GoogleOptions { page_size: 2, ..GoogleOptions::default() }).await;
    for _ in 0..4 {
        lab.google.create_key(&lab.email);
    }
    let stranger = lab.google.add_service_account("another");
    lab.google.create_key(&stranger);
    let (off, gone) = (lab.google.keys(&lab.email)[1].id.clone(), lab.google.keys(&lab.email)[2].id.clone());
    lab.google.set_active(&off, false);
    lab.google.delete_key(&gone);
    let before = lab.sent("ListHmacKeys");
    let listing = lab.issuer.list().await.expect("lists");
    assert_eq!((listing.keys.len(), listing.quota, lab.sent("ListHmacKeys") - before), (4, Some(10), 2));
    let inactive: Vec<&str> = listing.keys.iter().filter(|key| !key.active).map(|key| key.id.as_str()).collect();
    assert_eq!(inactive, [off]);
    assert!(listing.keys.iter().all(|key| key.created.is_some() && key.id.as_str() != gone));
    // A part is no listing.
    lab.google.fault("ListHmacKeys", Mishap::Slow(Duration::ZERO));
    lab.google.fault("ListHmacKeys", Mishap::Html);
    assert!(matches!(lab.issuer.list().await, Err(Fault::Unknown(_))));
}

/// It would become part of addresses, and go to the journal and to ArcGIS.
#[tokio::test]
async fn a_key_whose_id_is_none_is_no_key() {
    let lab = Account::new(GoogleOptions::default()).await;
    let mut id = lab.by_hand.0.clone();
    for odd in ["GOOG1E/../x", "GOOG1E x", "GOOG1E\u{1b}[2J", &"G".repeat(129)] {
        lab.google.rename_key(&id, odd);
        odd.clone_into(&mut id);
        let listed = lab.issuer.list().await;
        assert!(matches!(&listed, Err(Fault::Unknown(why)) if !why.contains("GOOG1E")), "{listed:?}");
    }
    lab.google.rename_key(&id, "GOOG1E-x");
    assert_eq!(lab.issuer.list().await.expect("lists").keys.len(), 1);
}

#[tokio::test]
async fn a_young_key_is_told_from_a_wrong_one_and_from_a_closed_bucket() {
    let lab = Account::new(GoogleOptions { propagation: MINUTE, ..GoogleOptions::default() }).await;
    let minted = lab.mint().await;
    let young = lab.issuer.probe(&minted).await;
    assert!(matches!(&young, Ok(Probe::NotYet(_))), "{young:?}");
    lab.google.set_options(|options| options.propagation = Duration::ZERO);
    assert_eq!(lab.issuer.probe(&minted).await, Ok(Probe::Works));
    lab.issuer.disable(minted.key()).await.expect("disables");
    assert!(matches!(lab.issuer.probe(&minted).await, Ok(Probe::NotYet(_))));
    lab.issuer.enable(minted.key()).await.expect("enables");
    lab.store.deny(BUCKET);
    let closed = lab.issuer.probe(&minted).await;
    let right = "the service account needs storage.objects.list on the bucket";
    assert!(matches!(&closed, Ok(Probe::NotAllowed(why)) if why.contains(right)), "{closed:?}");
    let other = Material::AccessKey { id: minted.key().clone(), secret: minted.secret().clone() };
    assert_eq!(reason(lab.issuer.probe(&other).await).0, Reason::PolicyMismatch);
}

#[tokio::test]
async fn ten_keys_are_all_there_is_room_for_and_the_refusal_says_what_to_do() {
    let lab = Account::new(GoogleOptions::default()).await;
    for _ in 0..9 {
        lab.google.create_key(&lab.email);
    }
    let (why, said) = reason(lab.issuer.mint(&IntentId::new("r1.1"), None).await);
    assert_eq!(why, Reason::Quota, "{said}");
    assert!(said.contains("Service account HMAC key limit reached") && said.contains("`rekeyd strangers`"), "{said}");
    assert_eq!(lab.google.mints(), 0);
}

#[tokio::test]
async fn what_the_organization_forbids_is_told_with_the_way_out() {
    let lab = Account::new(GoogleOptions::default()).await;
    lab.google.forbid_keys(Some("constraints/iam.disableServiceAccountKeyCreation"));
    let (why, said) = reason(lab.issuer.mint(&IntentId::new("r1.1"), None).await);
    assert_eq!(why, Reason::Refused);
    assert!(said.contains("disableServiceAccountKeyCreation") && said.contains("exempted from it"), "{said}");
    let in_use = KeyId::new(&lab.by_hand.0);
    lab.issuer.disable(&in_use).await.expect("disables");
    let (why, said) = reason(lab.issuer.enable(&in_use).await);
    assert!(why == Reason::Refused && said.contains("exempted from it"), "{said}");
    assert_eq!(lab.google.mints(), 0);
}

#[tokio::test]
async fn an_active_key_is_not_deleted_and_a_deleted_one_is_gone() {
    for shows_deleted in [false, true] {
        let lab = Account::new(GoogleOptions { shows_deleted, ..GoogleOptions::default() }).await;
        let in_use = KeyId::new(&lab.by_hand.0);
        let (why, said) = reason(lab.issuer.delete(&in_use).await);
        assert_eq!(why, Reason::Refused);
        assert!(said.contains("Cannot delete keys in ACTIVE state.") && said.contains("only a disabled key"), "{said}");
        lab.issuer.disable(&in_use).await.expect("disables");
        for _ in 0..2 {
            lab.issuer.delete(&in_use).await.expect("deletes");
        }
        for gone in [lab.issuer.disable(&in_use).await, lab.issuer.enable(&in_use).await] {
            assert_eq!(reason(gone).0, Reason::NotFound, "shown: {shows_deleted}");
        }
        assert_eq!(lab.issuer.list().await.expect("lists").keys, []);
    }
}

/// Google refuses a change that changes nothing, and one that is about another version of the key.
#[tokio::test]
async fn nobody_elses_change_is_undone_unseen() {
    let lab = Account::new(GoogleOptions::default()).await;
    let in_use = KeyId::new(&lab.by_hand.0);
    lab.issuer.enable(&in_use).await.expect("it is active already");
    assert_eq!(lab.sent("UpdateHmacKey"), 0);
    // Somebody has a hand on it between our look and our word.
    lab.google.fault("GetHmacKey", Mishap::Slow(Duration::from_secs(1)));
    let (issuer, key) = (lab.issuer.clone(), in_use.clone());
    let disabling = tokio::spawn(async move { issuer.disable(&key).await });
    while lab.sent("GetHmacKey") < 2 {
        tokio::task::yield_now().await;
    }
    lab.google.set_active(&lab.by_hand.0, false);
    lab.google.set_active(&lab.by_hand.0, true);
    let refused = disabling.await.expect("it ends");
    assert!(matches!(&refused, Err(Fault::Retry { why, .. }) if why.contains("Etag does not match")), "{refused:?}");
    assert!(lab.google.keys(&lab.email)[0].active);
    lab.issuer.disable(&in_use).await.expect("disables, having looked again");
    for odd in ["../x", "a b", "x?y=z", ""] {
        assert_eq!(reason(lab.issuer.disable(&KeyId::new(odd)).await).0, Reason::NotFound, "{odd}");
    }
}

#[tokio::test]
async fn each_right_of_the_role_is_needed_and_asked_for() {
    let lab = Account::new(GoogleOptions::default()).await;
    let text = std::fs::read_to_string("config/google/rekeyd-hmac.yaml").expect("a role");
    let permissions: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("- ")).collect();
    assert_eq!(permissions.len(), 5);
    lab.google.set_role(&permissions);
    let told = lab.issuer.rights().await;
    assert!(matches!(&told, Ok(Some(Standing::Enough(said))) if said.contains("storage.hmacKeys.delete")), "{told:?}");
    for missing in &permissions {
        lab.google.set_role(&permissions);
        let victim = lab.mint().await.key().clone();
        let rest: Vec<&str> = permissions.iter().filter(|one| *one != missing).copied().collect();
        lab.google.set_role(&rest);
        let (why, said) = reason(lab.issuer.rights().await);
        assert!(why == Reason::MissingRight && said.contains(&format!("it has not {missing};")), "{said}");
        let refused = match missing.rsplit('.').next().expect("a verb") {
            "create" => lab.issuer.mint(&IntentId::new("r2.1"), None).await.map(drop),
            "list" => lab.issuer.list().await.map(drop),
            "get" | "update" => lab.issuer.disable(&victim).await,
            "delete" => lab.issuer.delete(&victim).await,
            other => panic!("{other} is not asked for"),
        };
        let (why, said) = reason(refused);
        assert!(
            why == Reason::MissingRight && said.contains(&format!("the rotator needs {missing} on the project")),
            "{said}"
        );
    }
    let made = lab.google.mints();
    lab.issuer.rights().await.expect_err("one is missing");
    assert_eq!(lab.google.mints(), made, "asking changes nothing");
}

#[tokio::test]
async fn rights_that_nobody_tells_of_show_when_they_are_needed() {
    let lab = Account::new(GoogleOptions::default()).await;
    lab.google.disable_resource_manager();
    let told = lab.issuer.rights().await;
    assert!(
        matches!(&told, Ok(Some(Standing::Untold(said))) if said.contains("SERVICE_DISABLED") && said.contains("have the API enabled")),
        "{told:?}"
    );
    lab.google.fault("TestIamPermissions", Mishap::Html);
    assert!(matches!(lab.issuer.rights().await, Err(Fault::Unknown(_))));
}

#[tokio::test]
async fn every_way_to_log_in_is_taken() {
    let lab = Account::new(GoogleOptions::default()).await;
    // Signed by the account itself: nobody is asked for a token.
    let own = lab.with_file(&lab.google.service_account_file(GOOGLES)).expect("connects");
    own.list().await.expect("lists");
    assert!(matches!(own.rights().await, Ok(Some(Standing::Enough(_)))), "with a token of another scope");
    assert_eq!(lab.sent("Token"), 0);
    // Asked for with an assertion, once for each scope.
    for _ in 0..2 {
        lab.issuer.list().await.expect("lists");
        lab.issuer.rights().await.expect("answers");
    }
    assert_eq!(lab.sent("Token"), 2);
    // The policy's address comes before the file's.
    let more = format!("token_url = \"{}\"\n", lab.google.token_url());
    let file = lab.google.service_account_file(GOOGLES);
    let named = connect(&lab.google, &lab.store, &file, &more, &lab.email).expect("connects");
    named.list().await.expect("lists");
    assert_eq!(lab.sent("Token"), 3);
    // Somebody else's proof.
    let mut proof = tempfile::NamedTempFile::new().expect("a file");
    proof.write_all(lab.google.subject_token().as_bytes()).expect("written");
    let file = lab.google.federation_file(&proof.path().display().to_string());
    let federated = lab.with_file(&file).expect("connects");
    for _ in 0..2 {
        federated.list().await.expect("lists");
    }
    assert_eq!(lab.sent("ExchangeToken"), 1);
    let more = format!("token_url = \"{}\"\n", lab.google.sts_url());
    let elsewhere = file.replace(&lab.google.sts_url(), "https://sts.googleapis.com/v1/token");
    let named = connect(&lab.google, &lab.store, &elsewhere, &more, &lab.email).expect("connects");
    named.list().await.expect("lists");
    assert_eq!(lab.sent("ExchangeToken"), 2);
}

#[tokio::test]
async fn whoever_may_impersonate_the_rotator_is_the_rotator() {
    let lab = Account::new(GoogleOptions::default()).await;
    let person = lab.google.person_file();
    lab.with_file(&person).expect("connects").list().await.expect("lists");
    assert_eq!((lab.sent("RefreshToken"), lab.sent("GenerateAccessToken")), (1, 0));
    let mut proof = tempfile::NamedTempFile::new().expect("a file");
    proof.write_all(lab.google.subject_token().as_bytes()).expect("written");
    let federated = lab.google.federation_file(&proof.path().display().to_string());
    let mut federated: serde_json::Value = serde_json::from_str(&federated).expect("JSON");
    federated["service_account_impersonation_url"] = lab.google.impersonation_url().into();
    let by_person = lab.google.impersonation_file(&person);
    let files =
        [&by_person, &lab.google.impersonation_file(&lab.google.service_account_file(GOOGLES)), &federated.to_string()];
    for (before, file) in files.iter().enumerate() {
        let issuer = lab.with_file(file).expect("connects");
        for _ in 0..2 {
            issuer.list().await.expect("lists");
        }
        assert_eq!(lab.sent("GenerateAccessToken"), before + 1);
    }
    assert_eq!((lab.sent("RefreshToken"), lab.sent("ExchangeToken"), lab.sent("Token")), (2, 1, 0));
    // What passes: a page of somebody in between, a token of another time. The crate itself asks again after a 503.
    lab.google.fault("GenerateAccessToken", Mishap::Html);
    let page = lab.with_file(&by_person).expect("connects").list().await.expect_err("no token");
    assert!(matches!(&page, Fault::NotSent(why) if why.contains("a body that is no answer")), "{page:?}");
    lab.google.fault("GenerateAccessToken", Mishap::Error(503));
    lab.with_file(&by_person).expect("connects").list().await.expect("lists, asked again beneath us");
    assert_eq!(lab.sent("GenerateAccessToken"), 6);
    lab.google.fault("GenerateAccessToken", Mishap::Slow(MINUTE));
    let silent = lab.with_file(&by_person).expect("connects").list().await.expect_err("no token");
    let what =
        "no token within 5s; an impersonation that is refused for the moment (429, 503) is asked for again until then";
    assert!(matches!(&silent, Fault::NotSent(why) if why.contains(what)), "{silent:?}");
    let refused = format!(
        "Token {} has been revoked.",
        serde_json::from_str::<serde_json::Value>(&person).expect("JSON")["refresh_token"]
    );
    lab.google.fault("RefreshToken", Mishap::Refuse(refused));
    let (why, said) = reason(lab.with_file(&by_person).expect("connects").list().await);
    assert!(why == Reason::LoginRefused && said.contains("has been revoked"), "{said}");
    lab.google.all_secrets().iter().for_each(|secret| assert!(!said.contains(secret.as_str()), "{said}"));
    lab.google.deny_impersonation();
    let (why, said) = reason(lab.with_file(&by_person).expect("connects").list().await);
    assert_eq!(why, Reason::LoginRefused);
    for words in [
        &lab.google.rotator(),
        "by impersonation",
        "getAccessToken",
        "roles/iam.serviceAccountTokenCreator",
        "[gcp.main]",
    ] {
        assert!(said.contains(words), "{said}");
    }
}

/// By this machine's clock, which may be wrong.
#[tokio::test]
async fn a_token_that_is_over_when_it_comes_is_no_mistake_of_rekeyds() {
    let lab = Account::new(GoogleOptions { token_lifetime: Duration::ZERO, ..GoogleOptions::default() }).await;
    let file = lab.google.impersonation_file(&lab.google.service_account_file(GOOGLES));
    let issuer = lab.with_file(&file).expect("connects");
    for _ in 0..2 {
        let fault = issuer.mint(&IntentId::new("r1.1"), None).await.expect_err("no token");
        assert!(matches!(&fault, Fault::NotSent(why) if why.contains("compare this machine's clock")), "{fault:?}");
    }
    lab.google.set_options(|options| options.token_lifetime = Duration::from_secs(3600));
    issuer.list().await.expect("lists");
    assert_eq!((lab.sent("GenerateAccessToken"), lab.google.mints()), (3, 0));
}

#[tokio::test]
async fn a_refused_login_says_who_and_why() {
    let lab = Account::new(GoogleOptions::default()).await;
    let file = lab.google.service_account_file(&lab.google.token_url());
    let own = lab.with_file(&lab.google.service_account_file(GOOGLES)).expect("connects");
    let mut proof = tempfile::NamedTempFile::new().expect("a file");
    proof.write_all(lab.google.subject_token().as_bytes()).expect("written");
    let federated = lab.with_file(&lab.google.federation_file(&proof.path().display().to_string())).expect("connects");
    lab.google.delete_rotator_key();
    lab.google.withdraw_subject();
    let granted = lab.with_file(&file).expect("connects");
    let (why, said) = reason(granted.list().await);
    assert_eq!(why, Reason::LoginRefused);
    for words in [
        "list the HMAC keys of service account",
        &lab.google.rotator(),
        "Invalid JWT Signature.",
        "keys create",
        "[gcp.main]",
    ] {
        assert!(said.contains(words), "{said}");
    }
    // A token may be over; only the second one in a row that is refused tells of the login.
    assert!(matches!(own.list().await, Err(Fault::Retry { .. })));
    let (why, said) = reason(own.list().await);
    assert!(why == Reason::LoginRefused && said.contains("authError (401)") && said.contains("with key"), "{said}");
    for _ in 0..2 {
        let (why, said) = reason(federated.list().await);
        assert_eq!(why, Reason::LoginRefused);
        assert!(
            said.contains("invalid_grant: The given credential is rejected") && said.contains("a federated identity"),
            "{said}"
        );
    }
    assert_eq!(lab.google.mints(), 0);
}

#[tokio::test]
async fn what_passes_by_itself_is_no_refused_login() {
    let lab = Account::new(GoogleOptions::default()).await;
    let clock = "Invalid JWT: Token must be a short-lived token (60 minutes) and in a reasonable timeframe. Check your iat and exp values.";
    for (mishap, what) in [
        (Mishap::Error(503), "internal_failure"),
        (Mishap::Throttle, "internal_failure"),
        (Mishap::Html, "no answer of a token endpoint"),
        (Mishap::DropBefore, "the connection broke"),
        (Mishap::Redirect("https://login.example.com/".to_owned()), "no answer of a token endpoint"),
        (Mishap::Refuse(clock.to_owned()), "compare this machine's clock"),
    ] {
        let sent = lab.sent("Token");
        lab.google.fault("Token", mishap.clone());
        let fault = lab.issuer.mint(&IntentId::new("r1.1"), None).await.expect_err("no token");
        assert!(matches!(&fault, Fault::NotSent(why) if why.contains(what)), "{mishap:?}: {fault:?}");
        assert_eq!((lab.sent("Token"), lab.sent("CreateHmacKey")), (sent + 1, 0), "{mishap:?}");
    }
    let mut proof = tempfile::NamedTempFile::new().expect("a file");
    proof.write_all(lab.google.subject_token().as_bytes()).expect("written");
    let file = lab.google.federation_file(&proof.path().display().to_string());
    for mishap in [Mishap::Error(503), Mishap::Throttle, Mishap::DropBefore, Mishap::Html] {
        let sent = lab.sent("ExchangeToken");
        lab.google.fault("ExchangeToken", mishap.clone());
        let issuer = lab.with_file(&file).expect("connects");
        let fault = issuer.list().await.expect_err("no token");
        assert!(matches!(&fault, Fault::NotSent(_)), "{mishap:?}: {fault:?}");
        assert_eq!(lab.sent("ExchangeToken"), sent + 1, "{mishap:?}");
    }
    // An endpoint that never answers is given up.
    lab.google.fault("ExchangeToken", Mishap::Slow(MINUTE));
    let fault = lab.with_file(&file).expect("connects").list().await.expect_err("no token");
    assert!(matches!(&fault, Fault::NotSent(why) if why.contains("no token within 5s")), "{fault:?}");
}

/// The proof of an identity is as good as the identity while it lasts.
#[tokio::test]
async fn a_proof_in_another_field_is_not_told() {
    let lab = Account::new(GoogleOptions::default()).await;
    let mut proof = tempfile::NamedTempFile::new().expect("a file");
    let told = serde_json::json!({ "access_token": lab.google.subject_token(), "expires_in": "3599" });
    proof.write_all(told.to_string().as_bytes()).expect("written");
    let file = lab.google.federation_file(&proof.path().display().to_string());
    let with = |field: &str| {
        let mut file: serde_json::Value = serde_json::from_str(&file).expect("JSON");
        file["credential_source"]["format"] = serde_json::json!({ "type": "json", "subject_token_field_name": field });
        lab.with_file(&file.to_string()).expect("connects")
    };
    let (why, said) = reason(with("token").list().await);
    assert!(why == Reason::LoginRefused && said.contains("failed to read subject token field `token`"), "{said}");
    assert!(!said.contains(&lab.google.subject_token()[..8]) && !said.contains("3599"), "{said}");
    with("access_token").list().await.expect("lists");
    // Half written, or a page where the proof should be.
    proof.write_all(b"x").expect("written");
    let fault = with("access_token").list().await.expect_err("no proof");
    assert!(matches!(&fault, Fault::NotSent(why) if why.contains("is not the JSON that it should be")), "{fault:?}");
}

#[tokio::test]
async fn a_token_that_was_revoked_is_replaced() {
    let lab = Account::new(GoogleOptions::default()).await;
    lab.issuer.list().await.expect("lists");
    lab.google.revoke_tokens();
    assert!(matches!(lab.issuer.list().await, Err(Fault::Retry { .. })));
    lab.issuer.list().await.expect("lists with another token");
    assert_eq!(lab.sent("Token"), 2);
    // One that is over is not used.
    lab.google.set_options(|options| options.token_lifetime = Duration::from_secs(30));
    lab.google.revoke_tokens();
    let _ = lab.issuer.list().await;
    for more in 1..3 {
        lab.issuer.list().await.expect("lists");
        assert_eq!(lab.sent("Token"), 2 + more, "thirty seconds are no time");
    }
}

#[tokio::test]
async fn a_file_that_is_none_is_refused_before_anything_is_sent() {
    let lab = Account::new(GoogleOptions::default()).await;
    for (file, what) in [
        ("hush", "no credentials file of Google's"),
        (r#"{"type":"external_account","audience":"a","token_url":"http://sts.example.com/x"}"#, "without TLS"),
    ] {
        let (why, said) = reason(lab.with_file(file).map(|_| ()));
        assert_eq!(why, Reason::PolicyMismatch);
        assert!(said.contains(what) && said.contains("[gcp.main]") && !said.contains("hush"), "{said}");
    }
    // What the crate finds out later.
    let (why, said) =
        reason(lab.with_file(r#"{"type":"external_account","audience":"a"}"#).expect("connects").list().await);
    assert!(why == Reason::PolicyMismatch && said.contains("cannot parse the credentials file"), "{said}");
    assert_eq!(lab.google.requests().len(), 0);
}
