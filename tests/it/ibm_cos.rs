//! `ibm-cos` on the lab's accesser, and a whole rotation with the real program.

use std::io::Write as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rekeyd::issuer::ibm_cos::KIND;
use rekeyd::model::{IntentId, KeyId, Material, Reason, Secret, Shape, SystemRef, SystemSpec};
use rekeyd::net::Context;
use rekeyd::ports::{Fault, Issuer, Listing, LoginGuard, MintedKey, Probe, Standing};
use rekeyd::table;
use rekeyd_lab::{Fault as Mishap, Ibm, IbmOptions, IbmRight, TakenName};

use super::azure::reason;
use super::contract::{self, Operation, World, context};

mod rotation;

const PROJECT: &str = "731fc6f265cd486d900f16e84c5cb594";
const USER: &str = "bb5476fd12884539b41d5a88f838d773";
const BUCKET: &str = "gis-store";
const INTENT: &str = "019aa000-0000-7000-8000-000000000001.1";
/// The access key of that intent.
const NAMED: &str = "rk006da000001o0100000000000040g";

/// `[ibm_cos.main]` for this system; `more` lines stand below.
fn account(ibm: &Ibm, password: &str, more: &str) -> String {
    format!(
        "accesser_url = \"{}\"\nusername = \"{}\"\npassword = {{ file = \"{password}\" }}\n{more}",
        ibm.accesser_url(),
        ibm.login().0
    )
}

/// `[service.issuer]` without its kind and account.
fn policy(ibm: &Ibm, more: &str) -> String {
    format!(
        "project_id = \"{PROJECT}\"\nuser_id = \"{USER}\"\nprobe = {{ endpoint = \"{}\", bucket = \"{BUCKET}\" }}\n{more}",
        ibm.s3_url()
    )
}

/// Connects as the rotator, with what the password file says now.
fn connect(ibm: &Ibm, account_more: &str, issuer: &str, context: &Context) -> Arc<dyn Issuer> {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(ibm.login().1.as_bytes()).expect("written");
    let account = account(ibm, &file.path().display().to_string(), account_more);
    let config = table::read(&account, "account", KIND.read_system);
    let config = config.unwrap_or_else(|report| panic!("{report}")).expect("an account");
    let system = SystemSpec { at: SystemRef { table: "ibm_cos".into(), name: "main".into() }, config };
    let spec = table::read(issuer, "issuer", |table| (KIND.read)(table, Some(&system)));
    let spec = spec.unwrap_or_else(|report| panic!("{report}")).expect("a spec");
    (KIND.connect)(&spec, Some(&system), context).expect("connects")
}

/// A user with one key that a person made.
struct User {
    ibm: Ibm,
    issuer: Arc<dyn Issuer>,
    /// Of the key in use.
    by_hand: String,
}

impl User {
    async fn new(options: IbmOptions) -> User {
        let ibm = Ibm::start(options).await;
        ibm.add_user(PROJECT, USER);
        ibm.add_bucket(BUCKET);
        let (by_hand, _) = ibm.create_key(PROJECT, USER);
        let issuer = connect(&ibm, "settle = \"300ms\"", &policy(&ibm, ""), &context());
        User { ibm, issuer, by_hand }
    }

    async fn mint(&self) -> Result<MintedKey, Fault> {
        self.issuer.mint(&IntentId::new(INTENT), None).await
    }

    fn sent(&self, operation: &str) -> usize {
        self.ibm.requests().iter().filter(|line| line.operation == operation).count()
    }

    fn in_use(&self) -> KeyId {
        KeyId::new(&self.by_hand)
    }

    /// What one operation says to a status.
    async fn told(&self, operation: &str, status: u16) -> Fault {
        self.ibm.fault(operation, Mishap::Error(status));
        let key = self.in_use();
        match operation {
            "CreateCredential" => self.mint().await.map(drop),
            "ListCredentials" => self.issuer.list().await.map(drop),
            "ShowCredential" => self.issuer.known(&key, None).await.map(drop),
            "UpdateCredential" => self.issuer.disable(&key).await,
            _ => self.issuer.delete(&key).await,
        }
        .expect_err("it was refused")
    }
}

impl World for User {
    fn issuer(&self) -> Arc<dyn Issuer> {
        self.issuer.clone()
    }

    fn shape(&self) -> Shape {
        Shape::ClientNamed
    }

    fn in_use(&self, _listing: &Listing) -> KeyId {
        self.in_use()
    }

    fn request(&self, operation: Operation) -> &'static str {
        match operation {
            Operation::Identity | Operation::List => "ListCredentials",
            Operation::Mint => "CreateCredential",
            Operation::Delete => "DeleteCredential",
        }
    }

    fn fault(&self, request: &str, mishap: Mishap) {
        self.ibm.fault(request, mishap);
    }

    fn sent(&self, request: &str) -> usize {
        self.sent(request)
    }

    fn allow(&self, operation: Operation, yes: bool) -> String {
        let right = match operation {
            Operation::Identity | Operation::List => IbmRight::KeyListing,
            Operation::Mint | Operation::Delete => IbmRight::KeyManagement,
        };
        if yes {
            self.ibm.allow(right)
        } else {
            self.ibm.deny(right)
        }
        right.name().to_owned()
    }
}

#[tokio::test]
async fn a_user_keeps_the_contract() {
    contract::suite(&User::new(IbmOptions::default()).await).await;
}

/// A text for a blob, `secrete` for `secret`, no word of the user, and refusals without any.
#[tokio::test]
async fn a_user_keeps_the_contract_in_the_other_spelling() {
    let options =
        IbmOptions { blob_as_text: true, misspelt: true, names_no_user: true, silent: true, ..IbmOptions::default() };
    contract::suite(&User::new(options).await).await;
}

/// The example of an update is answered with another id than the path has.
#[tokio::test]
async fn a_user_keeps_the_contract_where_an_update_is_answered_about_another_key() {
    contract::suite(&User::new(answered_as_another(&["UpdateCredential"])).await).await;
}

/// These operations are answered with the id of IBM's example, whichever key they were about.
fn answered_as_another(operations: &[&'static str]) -> IbmOptions {
    let answers_as = operations.iter().map(|operation| (*operation, "a42a27755ce6442596b049bd7dd8a563".to_owned()));
    IbmOptions { answers_as: answers_as.collect(), ..IbmOptions::default() }
}

/// What counts is what is shown of the key that was asked for.
#[tokio::test]
async fn an_answer_about_another_key_is_none() {
    let user = User::new(answered_as_another(&["CreateCredential"])).await;
    let minted = user.mint().await.expect("another look shows it");
    assert_eq!((minted.material.key().as_str(), user.sent("ShowCredential")), (NAMED, 2));
    assert_eq!(user.issuer.probe(&minted.material).await, Ok(Probe::Works));
    let user = User::new(answered_as_another(&["CreateCredential", "ShowCredential"])).await;
    let lost = user.mint().await;
    assert!(matches!(&lost, Err(Fault::Unknown(why)) if why.contains("about another access key")), "{lost:?}");
    let shown = user.issuer.known(&user.in_use(), None).await;
    assert!(
        matches!(&shown, Err(Fault::Unknown(why)) if why.ends_with("an answer about another access key")),
        "{shown:?}"
    );
    let switched = user.issuer.disable(&user.in_use()).await;
    assert!(matches!(switched, Err(Fault::Unknown(_))) && user.sent("UpdateCredential") == 0, "{switched:?}");
}

/// A POST that was carried out is never told as one that was not: no key would be looked for, and one more made.
#[tokio::test]
async fn a_key_that_was_made_is_never_told_as_refused() {
    let user = User::new(IbmOptions { shows_secrets: false, ..answered_as_another(&["CreateCredential"]) }).await;
    let lost = user.mint().await;
    assert!(matches!(&lost, Err(Fault::Unknown(why)) if why.ends_with("it can only be deleted")), "{lost:?}");
    let (why, said) = reason(user.mint().await);
    assert!(why == Reason::Refused && said.ends_with("it can only be deleted"), "{said}");
    assert_eq!((user.ibm.mints(), user.sent("CreateCredential")), (1, 1));

    let user = User::new(IbmOptions { made_for: Some("another".to_owned()), ..IbmOptions::default() }).await;
    let astray = user.mint().await;
    assert!(
        matches!(&astray, Err(Fault::Unknown(why)) if why.ends_with("the key was made for another user")),
        "{astray:?}"
    );
    // Where the look before the POST is behind, the name is taken.
    user.ibm.fault("ShowCredential", Mishap::Error(404));
    assert!(reason(user.mint().await).1.contains("is there as another user's"));
    // Not under this intent, nor under the next one of the same rotation, as long as it is there.
    for intent in [INTENT.to_owned(), INTENT.replace(".1", ".2"), INTENT.replace(".1", ".7")] {
        let (why, said) = reason(user.issuer.mint(&IntentId::new(intent), None).await);
        let named = format!("access key {NAMED}, which this rotation asked for, is there as another user's");
        assert!(why == Reason::Refused && said.contains(&named), "{said}");
    }
    assert_eq!((user.ibm.mints(), user.sent("CreateCredential")), (1, 2));
    user.ibm.delete_key(NAMED);
    user.ibm.set_options(|options| options.made_for = None);
    user.issuer.mint(&IntentId::new(INTENT.replace(".1", ".2")), None).await.expect("it is gone");
}

/// A balancer sent it twice, say: the first made the key, the second is answered, and then nobody answers for a while.
#[tokio::test]
async fn a_conflict_that_no_look_explains_may_have_made_the_key() {
    let user = User::new(IbmOptions::default()).await;
    user.ibm.fault("CreateCredential", Mishap::ErrorAfterCommit(409));
    // The look before it, and all that follow.
    user.ibm.fault("ShowCredential", Mishap::Error(404));
    for _ in 0..10 {
        user.ibm.fault("ShowCredential", Mishap::DropBefore);
    }
    let lost = user.mint().await;
    assert!(matches!(lost, Err(Fault::Unknown(_))), "{lost:?}");
    user.ibm.clear_faults();
    user.mint().await.expect("the same intent finds it");
    assert_eq!(user.ibm.mints(), 1);
}

#[tokio::test]
async fn an_accesser_of_its_own_authority_is_trusted_by_ca_file_alone() {
    let user = User::new(IbmOptions { tls: true, ..IbmOptions::default() }).await;
    let (why, said) = reason(user.issuer.identity().await);
    assert!(why == Reason::TlsUntrusted && said.contains("name its authority in ca_file"), "{said}");
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all(user.ibm.ca_pem().expect("with TLS").as_bytes()).expect("written");
    let more = format!("ca_file = \"{}\"", file.path().display());
    let issuer = connect(&user.ibm, &more, &policy(&user.ibm, ""), &context());
    assert_eq!(issuer.list().await.expect("lists").keys.len(), 1);
}

#[tokio::test]
async fn a_key_is_named_by_its_intent_and_made_by_the_system() {
    let user = User::new(IbmOptions::default()).await;
    let minted = user.mint().await.expect("mints");
    assert_eq!((minted.material.key().as_str(), minted.created), (NAMED, None));
    let listing = user.issuer.list().await.expect("lists");
    let listed: Vec<_> = listing.keys.iter().map(|key| (key.id.as_str(), key.intent.clone(), key.created)).collect();
    assert_eq!(listed, [(user.by_hand.as_str(), None, None), (NAMED, Some(IntentId::new(INTENT)), None)]);
    assert_eq!((listing.quota, &listing.keys[1].tail), (None, &minted.material.secret().tail()));
    let made = user.ibm.keys(PROJECT, USER);
    assert_eq!((made[1].access.as_str(), &made[1].subject), (NAMED, &None));
}

#[tokio::test]
async fn a_subject_is_sent_where_the_policy_names_one_and_comes_back_with_the_status() {
    let user = User::new(IbmOptions::default()).await;
    let subject = "subject_ibm_id = \"IBMid-61KR43CAFF\"";
    let issuer = connect(&user.ibm, "", &policy(&user.ibm, subject), &context());
    let minted = issuer.mint(&IntentId::new(INTENT), None).await.expect("mints");
    issuer.disable(minted.material.key()).await.expect("an accesser takes back all that it showed");
    let made = user.ibm.keys(PROJECT, USER)[1].clone();
    assert_eq!((made.subject.as_deref(), made.active), (Some("IBMid-61KR43CAFF"), false));
}

/// What the accesser says is somebody's, and nobody may have it twice: the storage account and the user, where it is reached.
#[tokio::test]
async fn an_account_is_its_host_storage_account_and_user() {
    let user = User::new(IbmOptions::default()).await;
    let identity = user.issuer.identity().await.expect("answers");
    let host = user.ibm.accesser_url().replace("http://", "");
    assert_eq!(identity.as_str(), format!("ibm-cos:{host}/{PROJECT}/{USER}"));
    let other = policy(&user.ibm, "").replace(USER, "nobody");
    let (why, said) = reason(connect(&user.ibm, "", &other, &context()).identity().await);
    assert_eq!(why, Reason::NotFound);
    let asked = format!("list the access keys of user nobody of storage account {PROJECT}: status 404");
    assert!(said.starts_with(&asked), "{said}");
}

/// Each status of IBM's tables, of each operation, as an operator reads it.
#[tokio::test]
async fn every_documented_refusal_is_told() {
    let user = User::new(IbmOptions { silent: true, ..IbmOptions::default() }).await;
    let of = format!("of user {USER} of storage account {PROJECT}");
    let key = &user.by_hand;
    let malformed = "status 400 (the accesser takes the request for malformed)";
    let unavailable = "status 503 (the credential API is not available just now)";
    let lacks = |right: &str| {
        format!("status 403 (the rotator needs {right}, and Impersonate where the storage account is not its own)")
    };
    let closed = |right: &str| {
        format!("status 405 (the rotator has no access to the storage account; with it, it needs {right})")
    };
    let (listing, management) = ("Key Listing Permission", "Key Management Permission");
    let absent = "status 404 (there is no such user, storage account or key)";
    for (operation, tried, right) in [
        ("CreateCredential", format!("create access key {NAMED} {of}"), management),
        ("ListCredentials", format!("list the access keys {of}"), listing),
        ("ShowCredential", format!("look at access key {key} {of}"), listing),
        ("UpdateCredential", format!("disable access key {key} {of}"), management),
        ("DeleteCredential", format!("delete access key {key} {of}"), management),
    ] {
        for (status, expected, said) in [
            (400, Some(Reason::Refused), malformed.to_owned()),
            (403, Some(Reason::MissingRight), lacks(right)),
            (405, Some(Reason::MissingRight), closed(right)),
            (503, None, unavailable.to_owned()),
        ] {
            let fault = user.told(operation, status).await;
            assert_eq!(fault.why(), format!("{tried}: {said}"), "{operation} {status}");
            let told = match fault {
                Fault::Refused { reason, .. } => Some(reason),
                Fault::Unknown(_) => None,
                other => panic!("{operation} {status}: {other:?}"),
            };
            assert_eq!(told, expected, "{operation} {status}");
        }
        // What a 404 says of a key is an answer: it is not there.
        if let "CreateCredential" | "ListCredentials" | "UpdateCredential" = operation {
            let fault = user.told(operation, 404).await;
            assert_eq!(fault, Fault::Refused { reason: Reason::NotFound, why: format!("{tried}: {absent}") });
        }
    }
    user.ibm.fault("ShowCredential", Mishap::Error(404));
    assert_eq!(user.issuer.known(&user.in_use(), None).await, Ok(None));
    user.ibm.fault("DeleteCredential", Mishap::Error(404));
    assert_eq!(user.issuer.delete(&user.in_use()).await, Ok(()), "and no proof that it is gone");
    user.ibm.fault("ShowCredential", Mishap::Error(404));
    let (why, said) = reason(user.issuer.enable(&user.in_use()).await);
    assert!(why == Reason::NotFound && said.ends_with("there is no such key"), "{said}");
    assert_eq!((user.ibm.mints(), user.ibm.keys(PROJECT, USER).len()), (0, 1));
}

/// 409 stands in the tables for "too many keys" only; nothing says what a name that is taken is answered with.
#[tokio::test]
async fn a_conflict_is_a_full_user_or_a_key_that_is_there_already() {
    let user = User::new(IbmOptions { keys_max: 2, ..IbmOptions::default() }).await;
    let (more, _) = user.ibm.create_key(PROJECT, USER);
    let (why, said) = reason(user.mint().await);
    assert_eq!(why, Reason::Quota);
    let full = format!(
        "status 409: The user has the maximum number of keys. (the user has as many keys as may be, or the key is there already); no \
         look shows this key, and the user has 2: {}, {more}",
        user.by_hand
    );
    assert!(said.starts_with(&format!("create access key {NAMED}")) && said.ends_with(&full), "{said}");
    user.ibm.delete_key(&more);

    // The first look does not see it, the POST does, and so does the next look.
    let minted = user.mint().await.expect("mints");
    user.ibm.fault("ShowCredential", Mishap::Error(404));
    assert_eq!(user.mint().await.expect("it is there").material, minted.material);
    assert_eq!((user.sent("CreateCredential"), user.ibm.mints()), (3, 1));
    // Where the looks are behind for longer, it is not made twice, and found when they are not.
    user.ibm.set_options(|options| options.listing_lag = Duration::from_secs(600));
    assert_eq!(reason(user.mint().await).0, Reason::Quota);
    user.ibm.set_options(|options| options.listing_lag = Duration::ZERO);
    assert_eq!(user.mint().await.expect("it is there").material, minted.material);
    assert_eq!(user.ibm.mints(), 1);
}

/// A daemon that was killed starts again at once, and the first look may be as far behind as any.
#[tokio::test]
async fn a_conflict_is_looked_into_for_as_long_as_a_look_may_be_behind() {
    let user = User::new(IbmOptions { listing_lag: Duration::from_secs(600), ..IbmOptions::default() }).await;
    let issuer = connect(&user.ibm, "settle = \"10m\"", &policy(&user.ibm, ""), &context());
    let first = issuer.mint(&IntentId::new(INTENT), None).await.expect("mints");
    let again = tokio::spawn(async move { issuer.mint(&IntentId::new(INTENT), None).await });
    while user.sent("CreateCredential") < 2 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    user.ibm.set_options(|options| options.listing_lag = Duration::ZERO);
    let again = again.await.expect("it ends").expect("it is there by now");
    assert_eq!((again.material, user.ibm.mints()), (first.material, 1));
}

/// A second POST might give a key another secret, and whoever holds the first would be locked out.
#[tokio::test]
async fn an_intent_that_is_sent_again_looks_before_it_asks() {
    for taken in [TakenName::Conflict, TakenName::SameKey, TakenName::NewSecret] {
        let user = User::new(IbmOptions { taken, ..IbmOptions::default() }).await;
        user.ibm.fault("CreateCredential", Mishap::DropBefore);
        user.ibm.fault("CreateCredential", Mishap::LostReply);
        for _ in 0..2 {
            let lost = user.mint().await;
            assert!(matches!(lost, Err(Fault::Unknown(_))), "{taken:?}: {lost:?}");
        }
        let first = user.mint().await.expect("it is found");
        assert_eq!(user.mint().await.expect("and again").material, first.material, "{taken:?}");
        assert_eq!((user.sent("CreateCredential"), user.ibm.mints()), (2, 1), "{taken:?}");
        assert_eq!(user.issuer.probe(&first.material).await, Ok(Probe::Works), "{taken:?}");
    }
}

#[tokio::test]
async fn a_look_that_fails_before_the_mint_sends_nothing() {
    let user = User::new(IbmOptions::default()).await;
    for mishap in [Mishap::DropBefore, Mishap::Html, Mishap::Error(503)] {
        user.ibm.fault("ShowCredential", mishap.clone());
        let fault = user.mint().await;
        assert!(matches!(fault, Err(Fault::NotSent(_))), "{mishap:?}: {fault:?}");
    }
    assert_eq!(user.sent("CreateCredential"), 0);
}

/// Then a lost answer is lost: the key is found, can only be taken away, and is told as such.
#[tokio::test]
async fn a_system_that_shows_no_secrets_again_is_told_apart() {
    let user = User::new(IbmOptions { shows_secrets: false, ..IbmOptions::default() }).await;
    let minted = user.mint().await.expect("a fresh key is shown with its secret");
    assert_eq!(user.issuer.list().await.expect("lists").keys[1].tail, None);
    let (why, said) = reason(user.mint().await);
    assert_eq!(why, Reason::Refused);
    assert!(said.ends_with("no answer shows its secret; it can only be deleted"), "{said}");
    let key = minted.material.key();
    assert_eq!(user.issuer.known(key, None).await, Ok(None));
    let brought = Secret::new("brought-by-an-operator".to_owned());
    let known = user.issuer.known(key, Some(brought.clone())).await.expect("answers").expect("taken");
    assert_eq!(known.secret(), &brought);
    user.issuer.disable(key).await.expect("without a secret there is none to send back");
    assert!(!user.ibm.keys(PROJECT, USER)[1].active);
}

#[derive(Default)]
struct Memory(Mutex<Vec<(String, String, Secret)>>);

impl LoginGuard for Memory {
    fn is_refused(&self, system: &str, user: &str, password: &Secret) -> bool {
        let known = self.0.lock().expect("no test panics in here");
        known.iter().any(|(at, who, what)| (at.as_str(), who.as_str(), what) == (system, user, password))
    }
    fn refused(&self, system: &str, user: &str, password: &Secret) {
        let refused = (system.to_owned(), user.to_owned(), password.clone());
        self.0.lock().expect("no test panics in here").push(refused);
    }
    fn forgive(&self, _: &str) {}
}

/// Several services have one account, and one start: whoever comes first finds out for all of them.
#[tokio::test]
async fn a_refused_password_is_sent_once_by_all_who_have_it() {
    let user = User::new(IbmOptions::default()).await;
    let remembering = Context { guard: Arc::new(Memory::default()), ..context() };
    let issuers: Vec<_> = (0..3).map(|_| connect(&user.ibm, "", &policy(&user.ibm, ""), &remembering)).collect();
    let right = user.ibm.login().1;
    user.ibm.set_password("another password");
    let all = || async {
        let (one, two, three) = tokio::join!(issuers[0].identity(), issuers[1].list(), issuers[2].list());
        [one.map(drop), two.map(drop), three.map(drop)]
    };
    for refused in all().await {
        assert_eq!(reason(refused).0, Reason::LoginRefused);
    }
    assert_eq!(user.ibm.refused_logins(), 1);

    // Where it is right, nobody waits for whoever is slow, once that is known.
    user.ibm.set_password(&right);
    let forgiven = Context { guard: Arc::new(Memory::default()), ..context() };
    let issuers: Vec<_> = (0..2).map(|_| connect(&user.ibm, "", &policy(&user.ibm, ""), &forgiven)).collect();
    issuers[0].list().await.expect("lists");
    user.ibm.fault("ListCredentials", Mishap::Slow(Duration::from_secs(60)));
    let slow = issuers[0].clone();
    let slow = tokio::spawn(async move { slow.list().await.map(drop) });
    while user.ibm.faults_left("ListCredentials") > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    issuers[1].list().await.expect("lists");
    assert!(!slow.is_finished());
    slow.abort();
}

/// Basic login goes with every request: one wrong password would be sent again and again.
#[tokio::test]
async fn a_refused_password_is_sent_once() {
    let user = User::new(IbmOptions::default()).await;
    let remembering = Context { guard: Arc::new(Memory::default()), ..context() };
    let issuer = connect(&user.ibm, "", &policy(&user.ibm, ""), &remembering);
    let old = user.ibm.login().1;
    user.ibm.set_password("another password");
    let (why, said) = reason(issuer.identity().await);
    assert_eq!(why, Reason::LoginRefused);
    let host = user.ibm.accesser_url().replace("http://", "");
    let after = "it is not sent again until it changes, or rekeyd retry is given";
    assert!(said.ends_with(&format!("the login of rotator was refused by {host} ([ibm_cos.main]); {after}")), "{said}");
    for refused in [
        issuer.list().await.map(drop),
        issuer.mint(&IntentId::new(INTENT), None).await.map(drop),
        issuer.disable(&user.in_use()).await,
        issuer.delete(&user.in_use()).await,
    ] {
        let (why, said) = reason(refused);
        assert!(why == Reason::LoginRefused && said.contains("was refused before ([ibm_cos.main])"), "{said}");
        assert!(!said.contains(&old), "{said}");
    }
    assert_eq!(user.ibm.refused_logins(), 1);
    // The one that is right now is another.
    let issuer = connect(&user.ibm, "", &policy(&user.ibm, ""), &remembering);
    issuer.list().await.expect("lists");
}

#[tokio::test]
async fn what_an_accesser_repeats_is_told_without_what_was_sent() {
    let user = User::new(IbmOptions::default()).await;
    let (password, secret) = (user.ibm.login().1, user.mint().await.expect("mints").material.secret().clone());
    let key = KeyId::new(NAMED);
    let echo = format!("no: {password} and {}", secret.expose());
    user.ibm.fault("UpdateCredential", Mishap::Refuse(echo.clone()));
    let (_, said) = reason(user.issuer.disable(&key).await);
    assert!(said.contains("status 403: no: *** and *** (the rotator needs"), "{said}");
    user.ibm.fault("ListCredentials", Mishap::Refuse(password));
    let (_, said) = reason(user.issuer.list().await);
    assert!(said.contains("status 403: *** (the rotator needs"), "{said}");
}

/// A status counts as changed when the key shows it, whatever the PATCH was answered with.
#[tokio::test]
async fn a_status_that_does_not_show_is_unknown() {
    let user = User::new(answered_as_another(&["UpdateCredential"])).await;
    user.issuer.disable(&user.in_use()).await.expect("another look shows it");
    user.ibm.fault("ShowCredential", Mishap::Slow(Duration::ZERO));
    user.ibm.fault("ShowCredential", Mishap::Error(404));
    let unseen = user.issuer.enable(&user.in_use()).await;
    assert!(
        matches!(&unseen, Err(Fault::Unknown(why)) if why.ends_with("answered as done, and the key does not show it")),
        "{unseen:?}"
    );
    user.ibm.fault("UpdateCredential", Mishap::Html);
    assert!(matches!(user.issuer.enable(&user.in_use()).await, Err(Fault::Unknown(_))));
}

#[tokio::test]
async fn keys_of_others_are_neither_listed_nor_touched() {
    let user = User::new(IbmOptions { ignores_filters: true, ..IbmOptions::default() }).await;
    user.ibm.add_user(PROJECT, "another");
    let (theirs, _) = user.ibm.create_key(PROJECT, "another");
    let listing = user.issuer.list().await.expect("lists");
    let ids: Vec<&str> = listing.keys.iter().map(|key| key.id.as_str()).collect();
    assert_eq!(ids, [user.by_hand.as_str()]);
    let theirs = KeyId::new(theirs);
    let (why, said) = reason(user.issuer.disable(&theirs).await);
    assert!(why == Reason::Refused && said.ends_with("the key is another user's, and is left alone"), "{said}");
    assert_eq!(reason(user.issuer.known(&theirs, None).await).0, Reason::Refused);
    // A name that somebody freed may be another user's by now.
    let (why, said) = reason(user.issuer.delete(&theirs).await);
    assert!(why == Reason::Refused && said.ends_with("the key is another user's, and is left alone"), "{said}");
    // Where an answer does not say whose a key is, the list of the user's keys does.
    user.ibm.set_options(|options| (options.names_no_user, options.ignores_filters) = (true, false));
    for refused in [user.issuer.disable(&theirs).await, user.issuer.delete(&theirs).await] {
        assert_eq!(reason(refused).0, Reason::Refused);
    }
    assert!(user.ibm.keys(PROJECT, "another")[0].active);
    assert_eq!((user.sent("UpdateCredential"), user.sent("DeleteCredential")), (0, 0));
    user.issuer.delete(&user.in_use()).await.expect("this user's own");
    assert_eq!(user.ibm.keys(PROJECT, USER), []);
}

/// A key that is not on the first page is not gone.
#[tokio::test]
async fn a_list_that_goes_on_is_none() {
    let user = User::new(IbmOptions { page: Some(1), ..IbmOptions::default() }).await;
    assert_eq!(user.issuer.list().await.expect("it is all").keys.len(), 1);
    user.ibm.create_key(PROJECT, USER);
    let part = user.issuer.list().await;
    assert!(matches!(&part, Err(Fault::Unknown(why)) if why.contains("a list that says it goes on")), "{part:?}");
}

#[tokio::test]
async fn rights_are_asked_for_as_far_as_a_look_tells() {
    let user = User::new(IbmOptions::default()).await;
    let before = user.ibm.requests().len();
    let told = user.issuer.rights().await;
    let expected =
        "whether it may make, disable and delete them (Key Management Permission), no request tells before it is tried";
    assert!(matches!(&told, Ok(Some(Standing::Untold(said))) if said.ends_with(expected)), "{told:?}");
    let asked: Vec<String> = user.ibm.requests()[before..].iter().map(|line| line.operation.clone()).collect();
    assert_eq!(asked, ["ListCredentials"], "looking changes nothing");
    user.ibm.deny(IbmRight::KeyListing);
    assert_eq!(reason(user.issuer.rights().await).0, Reason::MissingRight);
}

#[tokio::test]
async fn a_young_key_a_wrong_one_and_a_closed_bucket_are_told_apart() {
    let user = User::new(IbmOptions { propagation: Duration::from_secs(600), ..IbmOptions::default() }).await;
    let minted = user.mint().await.expect("mints").material;
    let young = user.issuer.probe(&minted).await;
    assert!(matches!(&young, Ok(Probe::NotYet(why)) if why.contains("InvalidAccessKeyId")), "{young:?}");
    user.ibm.set_options(|options| options.propagation = Duration::ZERO);
    assert_eq!(user.issuer.probe(&minted).await, Ok(Probe::Works));
    let wrong =
        Material::AccessKey { id: KeyId::new(NAMED), secret: Secret::new("another-secret-altogether".to_owned()) };
    let said = user.issuer.probe(&wrong).await;
    assert!(matches!(&said, Ok(Probe::Wrong(why)) if why.contains("SignatureDoesNotMatch")), "{said:?}");
    user.ibm.store().deny(BUCKET);
    let closed = user.issuer.probe(&minted).await;
    assert!(matches!(&closed, Ok(Probe::NotAllowed(why)) if why.contains("needs READ on the bucket")), "{closed:?}");
    let other = Material::HmacKey { id: KeyId::new("x"), secret: Secret::new("x".to_owned()) };
    assert_eq!(reason(user.issuer.probe(&other).await).0, Reason::PolicyMismatch);
}
