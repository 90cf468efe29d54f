//! `f5xc` on the lab's console: the contract that every issuer keeps, each documented code as an operator reads it, and what only this
//! kind has: rights that follow the policy, and a login that it must not revoke.

use std::sync::Arc;
use std::time::Duration;

use rekeyd::engine::{Place, World as Engine};
use rekeyd::issuer::f5xc::KIND;
use rekeyd::journal::sqlite::{Mode, SqliteJournal};
use rekeyd::metrics::Metrics;
use rekeyd::model::{
    IntentId, IssuerSpec, KeepSecret, KeyId, Material, Reason, Secret, ServiceName, Shape, SystemRef, SystemSpec,
    TargetSpec, Terms,
};
use rekeyd::ports::{Connect, Fault, Issuer, LastUse, Listing, Probe, Target};
use rekeyd::rotation::{Current, Effect, Finding, Halt, ServiceState};
use rekeyd::seal::SealKey;
use rekeyd::table;
use rekeyd_lab::{F5, F5Options, Fault as Mishap, Words};

use super::azure::reason;
use super::contract::{self, Operation, World, context};

const RIGHT: &str = "a role in namespace system that may manage service credentials";
const BY_HAND: &str = "gis-by-hand";
const ROLES: &str = "namespace_roles = [{ namespace = \"system\", role = \"ves-io-monitor-role\" }]\n";
const MANAGER: &str = "namespace_roles = [{ namespace = \"system\", role = \"ves-io-admin-role\" }]\n";

/// A tenant with one token that a person made, and rekeyd logged in as a person.
struct Tenant {
    f5: F5,
    issuer: Arc<dyn Issuer>,
    spec: IssuerSpec,
    system: SystemSpec,
    login: tempfile::NamedTempFile,
    by_hand: Material,
}

impl Tenant {
    async fn new(options: F5Options, more: &str) -> Tenant {
        let f5 = F5::start(options).await;
        let token = f5.create_token(BY_HAND, &[("system", "ves-io-monitor-role")]);
        let by_hand = Material::ApiToken { id: KeyId::new(BY_HAND), token: Secret::new(token) };
        let login = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(login.path(), f5.admin_token()).expect("written");
        let account =
            format!("console_url = \"{}\"\napi_token = {{ file = \"{}\" }}", f5.url(), login.path().display());
        let config = table::read(&account, "account", KIND.read_system);
        let config = config.unwrap_or_else(|report| panic!("{report}")).expect("an account");
        let system = SystemSpec { at: SystemRef { table: "f5xc".into(), name: "main".into() }, config };
        let spec = spec(&system, more);
        let issuer = (KIND.connect)(&spec, Some(&system), &context()).expect("connects");
        Tenant { f5, issuer, spec, system, login, by_hand }
    }

    /// The same tenant under another policy.
    fn under(&self, more: &str) -> Arc<dyn Issuer> {
        (KIND.connect)(&spec(&self.system, more), Some(&self.system), &context()).expect("connects")
    }

    fn log_in_with(&self, token: &str) {
        std::fs::write(self.login.path(), format!("{token}\n")).expect("written");
    }

    async fn mint(&self, intent: &str) -> Result<Material, Fault> {
        self.issuer.mint(&IntentId::new(intent), None).await.map(|minted| minted.material)
    }

    fn access(&self, key: &KeyId) -> Vec<String> {
        let found = self.f5.credentials().into_iter().find(|one| one.name == key.as_str()).expect("it is there");
        found.access.into_iter().collect()
    }

    fn sent(&self, request: &str) -> usize {
        self.f5.requests().iter().filter(|line| line.operation == request).count()
    }
}

fn spec(system: &SystemSpec, more: &str) -> IssuerSpec {
    let text = format!("name_prefix = \"gis-\"\n{more}");
    let spec = table::read(&text, "issuer", |table| (KIND.read)(table, Some(system)));
    spec.unwrap_or_else(|report| panic!("{report}")).expect("a spec")
}

impl World for Tenant {
    fn issuer(&self) -> Arc<dyn Issuer> {
        self.issuer.clone()
    }

    fn shape(&self) -> Shape {
        Shape::Labelled
    }

    fn in_use(&self, _listing: &Listing) -> KeyId {
        KeyId::new(BY_HAND)
    }

    fn request(&self, operation: Operation) -> &'static str {
        match operation {
            Operation::Identity => "WhoAmI",
            Operation::List => "ListServiceCredentials",
            Operation::Mint => "CreateServiceCredentials",
            Operation::Delete => "RevokeServiceCredentials",
        }
    }

    fn fault(&self, request: &str, mishap: Mishap) {
        self.f5.fault(request, mishap);
    }

    fn sent(&self, request: &str) -> usize {
        self.sent(request)
    }

    fn allow(&self, operation: Operation, yes: bool) -> String {
        match yes {
            true => self.f5.allow(self.request(operation)),
            false => self.f5.deny(self.request(operation)),
        }
        RIGHT.to_owned()
    }
}

#[tokio::test]
async fn a_tenant_keeps_the_contract() {
    contract::suite(&Tenant::new(F5Options::default(), ROLES).await).await;
}

/// Nobody says when the console appends something to a name, and whose address it lists beside a credential.
#[tokio::test]
async fn a_tenant_of_other_manners_keeps_the_contract_too() {
    let options = F5Options { name_suffix: false, maker_email: true, words: Words::Gateway, ..F5Options::default() };
    contract::suite(&Tenant::new(options, ROLES).await).await;
}

#[tokio::test]
async fn a_credential_has_the_policys_rights_and_end_and_a_name_that_tells_its_intent() {
    let more = "namespace_roles = [{ namespace = \"*\", role = \"a\" }, { namespace = \"*\", role = \"b\" }]\n\
                user_groups = [\"ops\"]\nexpires_in_days = 90";
    let tenant = Tenant::new(F5Options::default(), more).await;
    let minted = tenant.mint("01997d2e-0f4b-7c11-a2b3-c4d5e6f70819.1").await.expect("mints");
    let name = minted.key().as_str();
    assert!(name.starts_with("gis-01997d2e0f4b7c11a2b3c4d5e6f70819-mint1-"), "the console's own name counts: {name}");
    assert_eq!(tenant.access(minted.key()), ["a in *", "b in *", "group ops"]);
    let listing = tenant.issuer.list().await.expect("lists");
    let listed = listing.keys.iter().find(|key| key.id == *minted.key()).expect("it is listed");
    assert_eq!(listed.intent, Some(IntentId::new("01997d2e-0f4b-7c11-a2b3-c4d5e6f70819.1")));
    let made = listed.created.expect("it was made");
    assert_eq!(listed.expires.map(|end| (end - made).num_days()), Some(90));
    let by_hand = listing.keys.iter().find(|key| key.id.as_str() == BY_HAND).expect("it is listed");
    assert_eq!((&by_hand.intent, by_hand.active), (&None, true));
    assert_eq!(tenant.issuer.last_use(minted.key()).await, Ok(LastUse::Untold));
    assert!(tenant.issuer.identity().await.is_ok_and(|account| account.as_str() == "f5xc:acme-hcggqodh"));
}

#[tokio::test]
async fn credentials_of_other_names_are_nobodys_business() {
    let tenant = Tenant::new(F5Options::default(), ROLES).await;
    for name in ["giscloud-x", "other-gis-x", "terraform"] {
        tenant.f5.create_token(name, &[]);
    }
    let listing = tenant.issuer.list().await.expect("lists");
    assert_eq!(listing.keys.iter().map(|key| key.id.as_str()).collect::<Vec<_>>(), [BY_HAND]);
    assert_eq!(listing.quota, None);
}

/// Each code that F5's page on the request lists, in each form it may come in.
#[tokio::test]
async fn each_documented_code_is_told_in_words() {
    let tenant = Tenant::new(F5Options::default(), ROLES).await;
    let on = tenant.f5.url().replace("http://", "");
    let listing = || async { tenant.issuer.list().await.map(drop).expect_err("it went wrong") };
    for words in [Words::Quoted, Words::Bare, Words::Gateway] {
        tenant.f5.set_options(|options| options.words = words);
        let fail = |status| tenant.f5.fault("ListServiceCredentials", Mishap::Error(status));
        let tried = |said: &str| format!("list the service credentials at {on}: {said}");
        fail(403);
        let right = format!("access denied by role (403); the rotator needs {RIGHT}");
        assert_eq!(listing().await, Fault::Refused { reason: Reason::MissingRight, why: tried(&right) });
        fail(404);
        let gone = "service credential not found (404)";
        assert_eq!(listing().await, Fault::Refused { reason: Reason::NotFound, why: tried(gone) });
        fail(409);
        let busy = "operation in conflict with another (409)";
        assert_eq!(listing().await, Fault::Retry { after: None, why: tried(busy) });
        tenant.f5.fault("ListServiceCredentials", Mishap::Throttle);
        let after = Some(Duration::from_secs(1));
        assert_eq!(listing().await, Fault::Retry { after, why: tried("too many requests (429)") });
        for (status, said) in [(500, "internal error"), (503, "service unavailable"), (504, "upstream timed out")] {
            fail(status);
            assert_eq!(listing().await, Fault::Unknown(tried(&format!("{said} ({status})"))));
        }
    }
}

/// A login that was refused once may be too young for one server; a second time in a row it is refused.
#[tokio::test]
async fn a_refused_login_names_where_it_comes_from_and_no_token() {
    let tenant = Tenant::new(F5Options::default(), ROLES).await;
    tenant.log_in_with("hush-this-is-no-token");
    let first = tenant.issuer.list().await;
    assert!(matches!(&first, Err(Fault::Retry { .. })), "{first:?}");
    let (why, said) = reason(tenant.issuer.list().await);
    assert_eq!(why, Reason::LoginRefused);
    let from = format!("api_token = {{ file = \"{}\" }} of [f5xc.main]", tenant.login.path().display());
    assert!(said.contains("invalid or expired credentials (401)") && said.contains(&from), "{said}");
    assert!(!said.contains("hush"), "{said}");
    tenant.log_in_with(&tenant.f5.admin_token());
    assert!(tenant.issuer.list().await.is_ok(), "the file is read again for each request");
}

#[tokio::test]
async fn a_create_that_timed_out_is_found_by_its_name() {
    let tenant = Tenant::new(F5Options::default(), ROLES).await;
    for (number, status) in [500_u16, 503, 504].into_iter().enumerate() {
        let intent = format!("r1.{number}");
        tenant.f5.fault("CreateServiceCredentials", Mishap::ErrorAfterCommit(status));
        let lost = tenant.mint(&intent).await;
        assert!(matches!(&lost, Err(Fault::Unknown(why)) if why.contains(&format!("({status})"))), "{lost:?}");
        let listing = tenant.issuer.list().await.expect("lists");
        let found = listing.keys.iter().filter(|key| key.intent == Some(IntentId::new(&intent))).count();
        assert_eq!(found, 1, "{status}");
    }
    assert_eq!(tenant.sent("CreateServiceCredentials"), 3);
}

#[tokio::test]
async fn a_name_that_is_taken_is_refused_with_the_name() {
    let tenant = Tenant::new(F5Options { name_suffix: false, ..F5Options::default() }, ROLES).await;
    tenant.mint("r1.1").await.expect("mints");
    let (why, said) = reason(tenant.mint("r1.1").await);
    assert_eq!(why, Reason::Refused);
    assert!(said.contains("service credential exists already (409)") && said.contains("gis-r1-mint1"), "{said}");
    tenant.f5.set_options(|options| options.expiration_days_max = Some(30));
    let (why, said) = reason(tenant.mint("r1.2").await);
    assert!(why == Reason::Refused && said.contains("expiration_days is out of range (400)"), "{said}");
}

/// A credential that no listing finds would live on for ever, and each retry would make one more.
#[tokio::test]
async fn what_is_made_under_a_name_that_no_listing_finds_is_taken_back_at_once() {
    let tenant = Tenant::new(F5Options { own_names: true, ..F5Options::default() }, ROLES).await;
    let left = || tenant.f5.credentials().into_iter().map(|one| one.name).filter(|name| name != BY_HAND);
    for round in 1..=2 {
        let (why, said) = reason(tenant.mint(&format!("r{round}.1")).await);
        assert_eq!(why, Reason::Refused);
        assert!(said.contains("was asked for, and svc-cred-") && said.contains("it was revoked at once"), "{said}");
        assert_eq!((left().count(), tenant.sent("RevokeServiceCredentials")), (0, round));
    }
    // Where that fails, the message says so, with the whole name.
    tenant.f5.fault("RevokeServiceCredentials", Mishap::Error(503));
    let (_, said) = reason(tenant.mint("r3.1").await);
    let lost = left().next().expect("it was made");
    assert!(said.contains(&format!("and {lost} was made")) && said.contains("(503)"), "{said}");
    assert!(said.contains("revoke it in the console"), "{said}");
    tenant.f5.revoke(&lost);
    // An answer about somebody else's is no order to revoke that.
    let roles = [("system", "ves-io-admin-role")];
    tenant.f5.create_token("terraform", &roles);
    tenant.f5.set_options(|options| options.answered_name = Some("terraform".to_owned()));
    let (_, said) = reason(tenant.mint("r4.1").await);
    assert!(said.contains("and terraform was made") && said.contains("older or has other rights"), "{said}");
    assert!(left().any(|name| name == "terraform"), "it is another's");
}

/// What the console makes of a name counts, where listings find it: it is a key like any other.
#[tokio::test]
async fn a_name_that_was_cut_is_a_name() {
    let tenant = Tenant::new(F5Options { name_length_max: Some(20), ..F5Options::default() }, ROLES).await;
    let minted = tenant.mint("01997d2e-0f4b-7c11-a2b3-c4d5e6f70819.1").await.expect("mints");
    let name = minted.key().as_str();
    assert!(name.starts_with("gis-01997d2e0f4b7c11-") && !name.contains("mint"), "{name}");
    let listing = tenant.issuer.list().await.expect("lists");
    let listed = listing.keys.iter().find(|key| key.id == *minted.key()).expect("it is listed");
    assert_eq!(listed.intent, None, "a lost one of this name would be a stranger");
    assert_eq!(tenant.issuer.probe(&minted).await, Ok(Probe::Works));
    tenant.issuer.delete(minted.key()).await.expect("revokes");
}

#[tokio::test]
async fn a_young_token_is_told_from_one_that_was_revoked() {
    let slow = F5Options { propagation: Duration::from_secs(3600), ..F5Options::default() };
    let tenant = Tenant::new(slow, ROLES).await;
    let minted = tenant.mint("r1.1").await.expect("mints");
    let young = tenant.issuer.probe(&minted).await;
    assert!(
        matches!(&young, Ok(Probe::NotYet(why)) if why.contains("(401)") && why.contains("not every server")),
        "{young:?}"
    );
    tenant.f5.set_options(|options| options.propagation = Duration::ZERO);
    assert_eq!(tenant.issuer.probe(&minted).await, Ok(Probe::Works));
    tenant.f5.set_end(minted.key().as_str(), chrono::Utc::now() - chrono::TimeDelta::minutes(1));
    let over = tenant.issuer.probe(&minted).await;
    assert!(matches!(&over, Ok(Probe::Wrong(why)) if why.contains("past its end")), "{over:?}");
    let active = |listing: Listing| listing.keys.into_iter().find(|key| key.id == *minted.key()).map(|key| key.active);
    assert_eq!(active(tenant.issuer.list().await.expect("lists")), Some(false));
    tenant.f5.revoke(minted.key().as_str());
    let gone = tenant.issuer.probe(&minted).await;
    assert!(matches!(&gone, Ok(Probe::NotYet(why)) if why.contains("lists no credential")), "{gone:?}");
}

#[tokio::test]
async fn a_token_that_may_not_is_told_from_one_that_is_unknown() {
    let probe = "probe = { path = \"/api/web/namespaces\" }\n";
    let tenant = Tenant::new(F5Options::default(), &format!("user_groups = [\"ops\"]\n{probe}")).await;
    let minted = tenant.mint("r1.1").await.expect("mints");
    let closed = tenant.issuer.probe(&minted).await;
    assert!(matches!(&closed, Ok(Probe::NotAllowed(why)) if why.contains("access denied by role (403)")), "{closed:?}");
    let known = "probe = { path = \"/api/web/namespaces\", expect = \"authenticates\" }\n";
    let lenient = tenant.under(&format!("user_groups = [\"ops\"]\n{known}"));
    assert_eq!(lenient.probe(&minted).await, Ok(Probe::Works));
    let stranger = Material::ApiToken { id: minted.key().clone(), token: Secret::new("nobodys-token".to_owned()) };
    assert!(matches!(lenient.probe(&stranger).await, Ok(Probe::NotYet(_))));
    for mishap in [Mishap::Html, Mishap::Error(500), Mishap::Redirect("https://login.example.com/".to_owned())] {
        tenant.f5.fault("ListNamespaces", mishap.clone());
        let page = lenient.probe(&minted).await;
        assert!(matches!(page, Err(Fault::Unknown(_))), "{mishap:?}: {page:?}");
    }
}

#[tokio::test]
async fn a_revoked_credential_is_gone_when_it_is_no_longer_listed() {
    let options = F5Options { removal_lag: Duration::from_secs(3600), ..F5Options::default() };
    let tenant = Tenant::new(options, ROLES).await;
    let minted = tenant.mint("r1.1").await.expect("mints");
    tenant.issuer.delete(minted.key()).await.expect("revokes");
    let listed = |listing: Listing| listing.keys.into_iter().find(|key| key.id == *minted.key()).map(|key| key.active);
    assert_eq!(listed(tenant.issuer.list().await.expect("lists")), Some(false), "marked, and removed later");
    tenant.f5.set_options(|options| options.removal_lag = Duration::ZERO);
    assert_eq!(listed(tenant.issuer.list().await.expect("lists")), None);
    for odd in ["../x", "a/b", "x?y"] {
        let (why, _) = reason(tenant.issuer.delete(&KeyId::new(odd)).await);
        assert_eq!(why, Reason::PolicyMismatch, "{odd}");
    }
    assert_eq!(tenant.sent("ActivateServiceCredentials") + tenant.sent("RenewServiceCredentials"), 0);
}

/// Whoever revokes its own login stands before a locked door, and every other service of the account with it.
#[tokio::test]
async fn rekeyd_does_not_revoke_what_it_logs_in_with() {
    for maker_email in [false, true] {
        let tenant = Tenant::new(F5Options { maker_email, ..F5Options::default() }, MANAGER).await;
        let (old, new) = (tenant.mint("r1.1").await.expect("mints"), tenant.mint("r2.1").await.expect("mints"));
        assert_eq!(tenant.issuer.probe(&old).await, Ok(Probe::Works));
        tenant.log_in_with(old.secret().expose());
        let (why, said) = reason(tenant.issuer.delete(old.key()).await);
        assert_eq!(why, Reason::CurrentKeyBroken);
        assert!(
            said.contains("rekeyd itself logs in with it") && said.contains("put another one into api_token"),
            "{said}"
        );
        assert!(!said.contains(old.secret().expose()));
        assert_eq!(tenant.sent("RevokeServiceCredentials"), 0);
        tenant.log_in_with(new.secret().expose());
        tenant.issuer.delete(old.key()).await.expect("another login revokes it");
        assert_ne!(tenant.issuer.probe(&old).await, Ok(Probe::Works));
        assert_eq!(tenant.issuer.probe(&new).await, Ok(Probe::Works));
    }
}

/// A daemon that was started just now has tried no token, and still sees whose it is.
#[tokio::test]
async fn a_fresh_daemon_knows_its_own_login_by_its_user() {
    let tenant = Tenant::new(F5Options::default(), MANAGER).await;
    let minted = tenant.mint("r1.1").await.expect("mints");
    tenant.log_in_with(minted.secret().expose());
    let (why, said) = reason(tenant.under(MANAGER).delete(minted.key()).await);
    assert!(why == Reason::CurrentKeyBroken && said.contains("the name of its user shows"), "{said}");
    assert_eq!(tenant.sent("RevokeServiceCredentials"), 0);
    let other = tenant.mint("r2.1").await.expect("mints");
    tenant.under(MANAGER).delete(other.key()).await.expect("the name of a listed one tells that it is another");
}

/// Where no address names a credential, only a proof that rekeyd logs in with another one lets anything be revoked.
#[tokio::test]
async fn what_rekeyd_may_log_in_with_is_not_revoked_on_a_guess() {
    let options = F5Options { nameless_users: true, ..F5Options::default() };
    let tenant = Tenant::new(options, MANAGER).await;
    let (old, new) = (tenant.mint("r1.1").await.expect("mints"), tenant.mint("r2.1").await.expect("mints"));
    tenant.log_in_with(old.secret().expose());
    // After a reload nothing is known of tokens any more.
    let (why, said) = reason(tenant.under(MANAGER).delete(old.key()).await);
    assert!(why == Reason::CurrentKeyBroken && said.contains("the e-mail address of its user shows"), "{said}");
    tenant.f5.set_options(|options| options.maker_email = true);
    for key in [&old, &new] {
        let (why, said) = reason(tenant.under(MANAGER).delete(key.key()).await);
        assert_eq!(why, Reason::CurrentKeyBroken);
        assert!(
            said.contains("cannot be told, since the console shows ") && said.contains("a person's token"),
            "{said}"
        );
    }
    assert_eq!(tenant.sent("RevokeServiceCredentials"), 0);
    // What is listed as the address of who asked for it is not its own: the new one was made with the old one's login.
    let next = tenant.mint("r3.1").await.expect("mints");
    let (why, _) = reason(tenant.under(MANAGER).delete(old.key()).await);
    assert_eq!(why, Reason::CurrentKeyBroken, "one listed address of our own tells nothing");
    // Another sort of credential is no token.
    let certificate = tenant.under(&format!("credential = \"certificate\"\n{MANAGER}"));
    let locked = certificate.mint(&IntentId::new("r4.1"), None).await.expect("mints").material;
    tenant.under(MANAGER).delete(locked.key()).await.expect("no certificate is behind a token");
    // Proven: the token in the file was tried as another's.
    tenant.log_in_with(new.secret().expose());
    let fresh = tenant.under(MANAGER);
    assert_eq!(reason(fresh.delete(old.key()).await).0, Reason::CurrentKeyBroken);
    assert_eq!(fresh.probe(&new).await, Ok(Probe::Works));
    fresh.delete(old.key()).await.expect("that proves it");
    // A person's login is no service credential.
    tenant.log_in_with(&tenant.f5.admin_token());
    tenant.under(MANAGER).delete(next.key()).await.expect("a person's");
}

/// One service may rotate what the others log in with: what one has tried, all of the tenant know.
#[tokio::test]
async fn services_of_a_tenant_know_each_others_tokens() {
    let options = F5Options { nameless_users: true, maker_email: true, ..F5Options::default() };
    let tenant = Tenant::new(options, MANAGER).await;
    let (login, ours) = (tenant.mint("r1.1").await.expect("mints"), tenant.mint("r2.1").await.expect("mints"));
    tenant.log_in_with(login.secret().expose());
    let together = context();
    let connect = || (KIND.connect)(&tenant.spec, Some(&tenant.system), &together).expect("connects");
    let (one, other) = (connect(), connect());
    assert_eq!(reason(other.delete(ours.key()).await).0, Reason::CurrentKeyBroken);
    assert_eq!(one.probe(&login).await, Ok(Probe::Works));
    other.delete(ours.key()).await.expect("the other service has tried the login");
    let (_, said) = reason(other.delete(login.key()).await);
    assert!(said.contains("its token shows"), "{said}");
}

#[tokio::test]
async fn a_changed_policy_reaches_the_key_in_use_and_no_other() {
    let tenant = Tenant::new(F5Options::default(), ROLES).await;
    let minted = tenant.mint("r1.1").await.expect("mints");
    assert_eq!(tenant.issuer.keep(minted.key()).await, Ok(None), "nothing has changed");
    assert_eq!(tenant.sent("ReplaceServiceCredentials"), 0);
    let changed = tenant.under("namespace_roles = [{ namespace = \"*\", role = \"b\" }]\nuser_groups = [\"ops\"]\n");
    let said = changed.keep(minted.key()).await.expect("replaces");
    assert_eq!(said.as_deref(), Some("ves-io-monitor-role in system became b in *, group ops"));
    assert_eq!(tenant.access(minted.key()), ["b in *", "group ops"]);
    assert_eq!(changed.keep(minted.key()).await, Ok(None), "once is enough");
    assert_eq!(changed.keep(tenant.by_hand.key()).await, Ok(None));
    assert_eq!(tenant.access(tenant.by_hand.key()), ["ves-io-monitor-role in system"], "what a person made is theirs");
    assert_eq!(changed.keep(&KeyId::new("gis-r9-mint1-x")).await, Ok(None), "a listing tells of its absence");
    assert_eq!(tenant.sent("ReplaceServiceCredentials"), 1);
}

/// The end alone, and once: the token stays as it is.
#[tokio::test]
async fn a_longer_life_in_the_policy_reaches_the_key_in_use() {
    let tenant = Tenant::new(F5Options::default(), &format!("{ROLES}expires_in_days = 30\n")).await;
    let minted = tenant.mint("r1.1").await.expect("mints");
    let end = || {
        let found = tenant.f5.credentials().into_iter().find(|one| one.name == minted.key().as_str());
        (found.expect("it is there").expires - chrono::Utc::now()).num_days()
    };
    let longer = tenant.under(&format!("{ROLES}expires_in_days = 90\n"));
    let said = longer.keep(minted.key()).await.expect("it is renewed").expect("and that is told");
    assert!(said.starts_with("its end 20") && said.contains(" became 20"), "{said}");
    assert!((89..=90).contains(&end()), "{}", end());
    assert_eq!(longer.keep(minted.key()).await, Ok(None), "once is enough");
    assert_eq!(tenant.issuer.keep(minted.key()).await, Ok(None), "nothing is cut short");
    assert_eq!(tenant.issuer.probe(&minted).await, Ok(Probe::Works));
    assert_eq!((tenant.sent("RenewServiceCredentials"), tenant.sent("ReplaceServiceCredentials")), (1, 0));
    // What is refused is told, and keeps nothing else from being brought in line.
    tenant.f5.deny("RenewServiceCredentials");
    let both = tenant.under("user_groups = [\"ops\"]\nexpires_in_days = 180\n");
    let (why, said) = reason(both.keep(minted.key()).await);
    assert!(why == Reason::MissingRight && said.contains("renew service credential"), "{said}");
    assert_eq!(tenant.access(minted.key()), ["group ops"]);
}

/// A role that was mistyped in the policy must not be the last thing a login ever did.
#[tokio::test]
async fn nothing_is_taken_from_what_rekeyd_logs_in_with() {
    let tenant = Tenant::new(F5Options::default(), MANAGER).await;
    let (login, other) = (tenant.mint("r1.1").await.expect("mints"), tenant.mint("r2.1").await.expect("mints"));
    tenant.log_in_with(login.secret().expose());
    let admin = "ves-io-admin-role in system";
    let mistyped = tenant.under("namespace_roles = [{ namespace = \"system\", role = \"ves-io-admin\" }]\n");
    let (why, said) = reason(mistyped.keep(login.key()).await);
    assert_eq!(why, Reason::PolicyMismatch);
    let told = format!("no longer gives it {admin}, and rekeyd itself logs in with it, as the name of its user shows");
    assert!(said.contains(&told) && said.contains("rotate the service"), "{said}");
    tenant.f5.set_options(|options| (options.nameless_users, options.maker_email) = (true, true));
    let (why, said) = reason(mistyped.keep(login.key()).await);
    assert!(why == Reason::PolicyMismatch && said.contains("logs in with it cannot be told"), "{said}");
    tenant.f5.set_options(|options| (options.nameless_users, options.maker_email) = (false, false));
    assert_eq!(tenant.sent("ReplaceServiceCredentials"), 0);
    assert_eq!(tenant.access(login.key()), [admin]);
    // The policy put right is enough: the login can still do everything.
    assert_eq!(tenant.issuer.keep(login.key()).await, Ok(None));
    let more = tenant.under(&format!("{MANAGER}user_groups = [\"ops\"]\n"));
    assert!(more.keep(login.key()).await.is_ok_and(|changed| changed.is_some()), "what is only added may be");
    assert_eq!(tenant.access(login.key()), ["group ops", admin]);
    // Another one is no branch that anybody sits on.
    assert!(mistyped.keep(other.key()).await.is_ok_and(|changed| changed.is_some()));
    assert_eq!(tenant.access(other.key()), ["ves-io-admin in system"]);
}

#[tokio::test]
async fn a_replace_that_changes_nothing_is_told() {
    let tenant = Tenant::new(F5Options { replace_is_ignored: true, ..F5Options::default() }, ROLES).await;
    let minted = tenant.mint("r1.1").await.expect("mints");
    let changed = tenant.under("user_groups = [\"ops\"]\n");
    let (why, said) = reason(changed.keep(minted.key()).await);
    assert_eq!(why, Reason::PolicyMismatch);
    assert!(said.contains("then shows ves-io-monitor-role in system, and the policy says group ops"), "{said}");
    tenant.f5.deny("ReplaceServiceCredentials");
    let (why, said) = reason(changed.keep(minted.key()).await);
    assert!(why == Reason::MissingRight && said.contains(RIGHT), "{said}");
    tenant.f5.fault("ReplaceServiceCredentials", Mishap::Error(504));
    let lost = changed.keep(minted.key()).await;
    assert!(matches!(&lost, Err(Fault::Unknown(why)) if why.contains("(504)")), "{lost:?}");
}

#[tokio::test]
async fn rights_are_asked_for_as_far_as_a_look_tells() {
    let tenant = Tenant::new(F5Options::default(), ROLES).await;
    let before = tenant.f5.requests().len();
    let told = tenant.issuer.rights().await.expect("it may list").expect("something is told");
    assert!(told.said().contains("no request tells before it is tried"), "{told:?}");
    assert_eq!(
        tenant.f5.requests()[before..].iter().map(|line| line.operation.as_str()).collect::<Vec<_>>(),
        ["ListServiceCredentials"]
    );
    tenant.f5.deny("ListServiceCredentials");
    let (why, said) = reason(tenant.issuer.rights().await);
    assert!(why == Reason::MissingRight && said.contains(RIGHT), "{said}");
}

/// At rest, the engine lets the policy reach the key in use; that it cannot is told beside all else that was seen.
#[tokio::test]
async fn the_engine_asks_for_it_at_rest() {
    let tenant = Tenant::new(F5Options::default(), ROLES).await;
    let minted = tenant.mint("r1.1").await.expect("mints");
    let changed = "user_groups = [\"ops\"]\n";
    let spec = spec(&tenant.system, changed);
    let home = tempfile::tempdir().expect("a directory");
    let seal = SealKey::from_secret(&Secret::new("a".repeat(64))).expect("a seal key");
    let journal = SqliteJournal::open(&home.path().join("journal.db"), seal, Mode::Create).expect("opens");
    let connect = Arc::new(Only(tenant.under(changed)));
    let engine = Engine { connect, journal: Arc::new(journal), meter: Arc::new(Metrics::new()) };
    let place = Place {
        service: ServiceName::new("f5"),
        issuer: spec,
        targets: Vec::new(),
        terms: terms(),
        current_at: None,
        accepted: Vec::new(),
        switch_to: None,
    };
    let current = Current { key: minted.key().clone(), created: chrono::Utc::now(), ours: true };
    let state = ServiceState { current: Some(current), ..ServiceState::default() };
    let seen = engine.perform(&Effect::Observe, &place, &state).await.found;
    assert!(matches!(&seen, Ok(Finding::Observed { .. })), "{seen:?}");
    assert_eq!(tenant.access(minted.key()), ["group ops"]);
    // A key that lives at another issuer object follows another policy.
    tenant.issuer.keep(minted.key()).await.expect("back to what it was");
    let elsewhere = Place { current_at: Some(tenant.spec.clone()), ..place.clone() };
    engine.perform(&Effect::Observe, &elsewhere, &state).await.found.expect("observed");
    assert_eq!(tenant.access(minted.key()), ["ves-io-monitor-role in system"]);
    let waiting = [
        ServiceState { paused: Some("an operator".to_owned()), ..state.clone() },
        ServiceState {
            halt: Some(Halt { reason: Reason::Unhealthy, message: String::new(), at: chrono::Utc::now() }),
            ..state.clone()
        },
    ];
    for state in waiting {
        engine.perform(&Effect::Observe, &place, &state).await.found.expect("observed");
        assert_eq!(tenant.access(minted.key()), ["ves-io-monitor-role in system"], "nobody is at rest here");
    }
    tenant.f5.deny("ReplaceServiceCredentials");
    let seen = engine.perform(&Effect::Observe, &place, &state).await.found;
    let Ok(Finding::Observed { unkept: Some(why), listing, .. }) = seen else { panic!("{seen:?}") };
    assert!(why.contains(RIGHT) && listing.keys.len() == 2, "{why}");
}

/// One issuer, whatever is asked for.
struct Only(Arc<dyn Issuer>);

impl Connect for Only {
    fn issuer(&self, _: &IssuerSpec) -> Result<Arc<dyn Issuer>, Fault> {
        Ok(self.0.clone())
    }

    fn target(&self, _: &TargetSpec) -> Result<Arc<dyn Target>, Fault> {
        Err(Fault::NotSent("there is none".to_owned()))
    }

    fn forgive(&self, _: &SystemRef) {}
}

fn terms() -> Terms {
    let moment = Duration::from_secs(1);
    Terms {
        probes: 1,
        probe_interval: moment,
        soak: moment,
        soak_unproven: moment,
        watch: moment,
        keep_secret: KeepSecret::Key,
    }
}

#[tokio::test]
async fn a_certificate_is_made_with_a_password_that_nobody_sees() {
    let tenant = Tenant::new(F5Options::default(), &format!("credential = \"certificate\"\n{ROLES}")).await;
    let minted = tenant.issuer.mint(&IntentId::new("r1.1"), None).await.expect("mints");
    let Material::ApiCertificate { id, pkcs12, password } = &minted.material else { panic!("another") };
    assert!(id.as_str().starts_with("gis-r1-mint1") && (6..=50).contains(&password.expose().len()));
    let secrets = tenant.f5.all_secrets();
    assert!(secrets.iter().any(|one| one == password.expose()) && secrets.iter().any(|one| one == pkcs12.expose()));
    let printed = format!("{minted:?}");
    assert!(!printed.contains(password.expose()) && !printed.contains(pkcs12.expose()));
    assert_eq!(tenant.issuer.probe(&minted.material).await, Ok(Probe::Works));
    tenant.f5.set_active(id.as_str(), false);
    assert!(matches!(tenant.issuer.probe(&minted.material).await, Ok(Probe::Wrong(_))));
    tenant.issuer.delete(id).await.expect("revokes");
    assert!(matches!(tenant.issuer.probe(&minted.material).await, Ok(Probe::NotYet(_))));
    // The service makes certificates now; a token that is still in use is tried as a token.
    assert_eq!(tenant.issuer.probe(&tenant.by_hand).await, Ok(Probe::Works));
}

/// Any token answers a probe; the wrong one would be revoked with the wrong name, or be taken for another's.
#[tokio::test]
async fn a_token_of_another_credential_is_not_adopted() {
    let tenant = Tenant::new(F5Options::default(), ROLES).await;
    let other = tenant.f5.create_token("terraform", &[]);
    let brought = |token: &str| tenant.issuer.known(tenant.by_hand.key(), Some(Secret::new(token.to_owned())));
    assert_eq!(brought(tenant.by_hand.secret().expose()).await, Ok(Some(tenant.by_hand.clone())));
    for (token, whose) in [(other.clone(), "terraform"), (tenant.f5.admin_token(), "rotator@example.com")] {
        let (why, said) = reason(brought(&token).await);
        assert_eq!(why, Reason::PolicyMismatch);
        assert!(said.ends_with(&format!("the token given is that of {whose}")) && said.contains(BY_HAND), "{said}");
    }
    // Where the console does not tell, it is the operator's word.
    tenant.f5.set_options(|options| options.nameless_users = true);
    assert!(brought(&other).await.is_ok_and(|material| material.is_some()));
    tenant.f5.fault("WhoAmI", Mishap::Error(503));
    assert!(brought(&other).await.is_ok_and(|material| material.is_some()));
}

#[tokio::test]
async fn a_certificate_is_adopted_with_its_password_beside_it() {
    let tenant = Tenant::new(F5Options::default(), &format!("credential = \"certificate\"\n{ROLES}")).await;
    let minted = tenant.mint("r1.1").await.expect("mints");
    let Material::ApiCertificate { id, pkcs12, password } = &minted else { panic!("another") };
    let brought = |text: String| tenant.issuer.known(id, Some(Secret::new(text)));
    let both = brought(format!("{}\n{}", pkcs12.expose(), password.expose())).await;
    assert_eq!(both, Ok(Some(minted.clone())));
    for half in [pkcs12.expose().to_owned(), format!("{}\n", pkcs12.expose()), format!("x\n{}", password.expose())] {
        let (why, said) = reason(brought(half).await);
        assert!(why == Reason::PolicyMismatch && said.contains("base64 -w0 FILE.p12"), "{said}");
    }
    assert_eq!(tenant.issuer.known(id, None).await, Ok(None));
}

#[tokio::test]
async fn an_authority_that_nobody_knows_is_not_trusted() {
    let tenant = Tenant::new(F5Options { tls: true, ..F5Options::default() }, ROLES).await;
    let (why, said) = reason(tenant.issuer.list().await);
    assert!(why == Reason::TlsUntrusted && said.contains("ca_file"), "{said}");
}

#[tokio::test]
async fn rekeyd_logs_in_with_a_certificate_too() {
    let f5 = F5::start(F5Options { tls: true, demands_certificate: true, ..F5Options::default() }).await;
    let home = tempfile::tempdir().expect("a directory");
    let (certificate, key) = f5.client_identity().expect("with TLS");
    let file = |name: &str, text: &str| {
        let path = home.path().join(name);
        std::fs::write(&path, text).expect("written");
        path.display().to_string()
    };
    let ca = file("ca.pem", &f5.ca_pem().expect("with TLS"));
    let (certificate, key) = (file("cert.pem", &certificate), file("key.pem", &key));
    let connect = |login: &str| {
        let account = format!("console_url = \"{}\"\nca_file = \"{ca}\"\n{login}", f5.url());
        let config = table::read(&account, "account", KIND.read_system);
        let config = config.unwrap_or_else(|report| panic!("{report}")).expect("an account");
        let system = SystemSpec { at: SystemRef { table: "f5xc".into(), name: "main".into() }, config };
        (KIND.connect)(&spec(&system, ROLES), Some(&system), &context()).expect("connects")
    };
    let issuer = connect(&format!("client_cert = \"{certificate}\"\nclient_key = {{ file = \"{key}\" }}"));
    let minted = issuer.mint(&IntentId::new("r1.1"), None).await.expect("mints");
    assert_eq!(issuer.list().await.expect("lists").keys.len(), 1);
    issuer.delete(minted.material.key()).await.expect("revokes");
    let token = file("token", &f5.admin_token());
    let (why, said) = reason(connect(&format!("api_token = {{ file = \"{token}\" }}")).list().await);
    assert!(why == Reason::LoginRefused && said.contains("it wants a certificate of its clients"), "{said}");
}
