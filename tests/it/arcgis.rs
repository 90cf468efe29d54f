//! The ArcGIS target against the lab's ArcGIS, both products, 11.2 to 12.0.
//!
//! The twenty traps of a faithful client (a checklist of ours, from Esri's documents, code and forum), and where each is tested:
//!
//! |  # | trap                                             | test here, or why not                                             |
//! |----|--------------------------------------------------|-------------------------------------------------------------------|
//! |  1 | 200 with an error, in two envelopes              | `a_missing_right_is_told_as_one`, `an_expired_token_is_renewed_once`; unit tests of `envelope` |
//! |  2 | COMPLETED is not success                         | `every_end_of_a_job_is_told_apart`; unit tests of `jobs`          |
//! |  3 | no SUCCEEDED; UNAVAILABLE, CANCELLING, TIMED OUT | `every_end_of_a_job_is_told_apart`, `a_job_that_cannot_be_told_just_now_goes_on` |
//! |  4 | job id's field, malformed reply, two job paths   | `a_reply_as_the_documents_print_it`, `jobs_of_server_are_found_at_either_place` |
//! |  5 | add or update; inheriting services               | `a_key_arrives_by_the_operation_of_the_version`, `a_service_that_inherits_is_left_alone` |
//! |  6 | a provider rotates all that inherit              | `a_providers_key_moves_all_that_inherit_and_no_other`; all holders before retirement is the engine's |
//! |  7 | snake or camel case; shapes of Azure             | `either_spelling_arrives`; this build hands over ACCESS-KEY only and refuses the rest by name |
//! |  8 | form encoding                                    | `a_secret_arrives_as_it_is`; SAS tokens are not in this build     |
//! |  9 | masks are not echoed, ciphertexts not compared   | `a_read_back_shows_the_tail_and_nothing_else`; what is written is never what was read: `credential::to_json` takes a `Material` |
//! | 10 | expiry mid-poll; 498 on the POST                 | `an_expired_token_is_renewed_once`                                |
//! | 11 | referer, granted lifetime, `expires`             | all (the lab binds every token); `a_short_lived_token_is_renewed_before_it_ends`; we never ask for IP binding |
//! | 12 | lockout                                          | `a_refused_password_is_sent_once`, `a_network_error_is_no_refusal`, unit test of `session` |
//! | 13 | ambiguous POST                                   | `an_answer_that_is_lost_is_unknown`; the looking before a retry is the engine's |
//! | 14 | lost job, restarting server                      | `a_lost_job_is_neither_good_nor_bad`, `a_restart_is_no_failure`   |
//! | 15 | read-only, lock: before minting                  | `a_site_that_takes_no_change_says_so_before_the_mint`; an upgrade shows as read-only or as a restart |
//! | 16 | when an old key may be retired                   | the machine's (`rotation`), which gets its evidence from `poll` and `read` |
//! | 17 | no secrets in logs                               | `no_secret_is_in_a_url_or_a_message`, `no_secret_is_logged_at_the_finest_level` |
//! | 18 | redirects, HTML, content types, unknown fields   | `a_redirected_push_is_refused`, `an_answer_that_is_lost_is_unknown`; the lab's Server says `text/plain`; unit tests of `cloud` |
//! | 19 | self-signed TLS                                  | `an_unknown_authority_is_refused_by_name`; there is no way to switch verification off |
//! | 20 | Azure mints by regenerating the idle key         | an issuer's, and not in this build                                |

use std::sync::{Arc, Mutex};
use std::time::Duration;

use rekeyd::model::{JobId, KeyId, Material, Reason, Secret, SystemRef, SystemSpec, Tail};
use rekeyd::net::Context;
use rekeyd::ports::{Fault, Health, JobState, LoginGuard, Reading, Receipt, Target};
use rekeyd::table;
use rekeyd::target::arcgis::KIND;
use rekeyd_lab::{
    ArcGis, ArcGisOptions, Aws, AwsOptions, Fault as Mishap, JobPath, JobScript, Product, Restart, ServiceSpec,
    Spelling, StoredCredential,
};

const SERVICE: &str = "eg7hrelq6b";
const BACKUP: &str = "uqsip6c2vm";
const INHERITING: &str = "wpjkp9s7ub";
const PROVIDER: &str = "betc4g098c";

/// Remembers refused passwords for as long as a test takes.
#[derive(Default)]
struct Guard(Mutex<Vec<(String, String, Secret)>>);

impl LoginGuard for Guard {
    fn is_refused(&self, system: &str, user: &str, password: &Secret) -> bool {
        let row = (system.to_owned(), user.to_owned(), password.clone());
        self.0.lock().expect("no test panics in here").contains(&row)
    }
    fn refused(&self, system: &str, user: &str, password: &Secret) {
        let row = (system.to_owned(), user.to_owned(), password.clone());
        self.0.lock().expect("no test panics in here").push(row);
    }
    fn forgive(&self, system: &str) {
        self.0.lock().expect("no test panics in here").retain(|(refused, ..)| refused != system);
    }
}

impl Guard {
    fn refusals(&self) -> usize {
        self.0.lock().expect("no test panics in here").len()
    }
}

/// A deployment with one provider, a service with its own key, a backup service with its own, and one that inherits.
struct Site {
    arcgis: ArcGis,
    password: tempfile::NamedTempFile,
    ca: Option<tempfile::NamedTempFile>,
    guard: Arc<Guard>,
    product: Product,
    old: (String, String),
}

fn kubernetes() -> ArcGisOptions {
    ArcGisOptions { job_duration: Duration::from_millis(20), ..ArcGisOptions::default() }
}

fn server() -> ArcGisOptions {
    ArcGisOptions { product: Product::Server, context: "gis/server".to_owned(), ..kubernetes() }
}

/// What differs between deployments that differ in nothing a user cares about.
fn flavours() -> Vec<ArcGisOptions> {
    let real = |options: ArcGisOptions| ArcGisOptions { real_status_codes: true, ..options };
    vec![
        ArcGisOptions { version: "11.2".to_owned(), ..kubernetes() },
        ArcGisOptions { version: "11.5".to_owned(), ..kubernetes() },
        kubernetes(),
        server(),
        real(kubernetes()),
        real(server()),
    ]
}

fn file(contents: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().expect("a temporary file can be made");
    std::fs::write(file.path(), contents).expect("a temporary file can be written");
    file
}

fn stored((access_key, secret_key): &(String, String)) -> StoredCredential {
    StoredCredential { access_key: access_key.clone(), secret_key: secret_key.clone() }
}

fn material(id: &str, secret: &str) -> Material {
    Material::AccessKey { id: KeyId::new(id), secret: Secret::new(secret.to_owned()) }
}

/// The key most tests push: with every character that a form or JSON would misread.
fn new_key() -> Material {
    material("AKIANEWNEWNEWNEWNEW1", "wJalr+XUt/nFEMI=K7&MDENG%bPxRfi\"CYz? VC5M")
}

impl Site {
    async fn start(options: ArcGisOptions) -> Site {
        let aws = Aws::start(AwsOptions::default()).await;
        aws.add_user("store");
        aws.add_bucket("gis-store", &["store"]);
        let old = aws.create_key("store");
        let (product, password) = (options.product, file(&format!("{}\n", options.password)));
        let arcgis = ArcGis::start(options, &aws).await;
        arcgis.add_provider(PROVIDER, "AWS", Some(stored(&old)));
        // Without a bucket: nobody uses these keys, so that a test may store any.
        for (id, credential) in [(SERVICE, Some(stored(&old))), (BACKUP, Some(stored(&old))), (INHERITING, None)] {
            arcgis.add_service_with(ServiceSpec { credential, ..ServiceSpec::new(id, PROVIDER, "") });
        }
        let ca = arcgis.ca_pem().map(|pem| file(&pem));
        Site { arcgis, password, ca, guard: Arc::new(Guard::default()), product, old }
    }

    fn context(&self) -> Context {
        Context { proxy: None, no_proxy: Vec::new(), guard: self.guard.clone() }
    }

    /// A target by its policy tables; `deployment` and `target` are more lines of each.
    fn connect(&self, deployment: &str, target: &str) -> Arc<dyn Target> {
        let product = if self.product == Product::Server { "server" } else { "kubernetes" };
        let ca = self.ca.as_ref().map_or_else(String::new, |ca| format!("ca_file = {:?}\n", ca.path()));
        let text = format!(
            "product = \"{product}\"\nadmin_url = {:?}\nusername = \"rotator\"\npassword = {{ file = {:?} }}\n{ca}{deployment}\n",
            self.arcgis.admin_url(),
            self.password.path(),
        );
        let config = table::read(&text, "policy.toml", KIND.read_system).expect("the deployment is sound");
        let at = SystemRef { table: "arcgis".to_owned(), name: "prod".to_owned() };
        let system = SystemSpec { at, config: config.expect("the deployment is complete") };
        let spec = table::read(target, "policy.toml", |table| (KIND.read)(table, Some(&system)));
        let spec = spec.expect("the target is sound").expect("the target is complete");
        (KIND.connect)(&spec, Some(&system), &self.context()).expect("connecting sends nothing")
    }

    fn target(&self) -> Arc<dyn Target> {
        self.connect("", &format!("service_id = {SERVICE:?}"))
    }

    fn provider(&self) -> Arc<dyn Target> {
        self.connect("", &format!("provider_id = {PROVIDER:?}"))
    }

    fn old_tail(&self) -> Reading {
        Reading::Tail(Tail::new(&self.old.1[self.old.1.len() - 4..]))
    }

    /// How often a credential operation was asked for, carried out or not.
    fn pushes(&self) -> usize {
        self.arcgis.requests().iter().filter(|line| line.operation.starts_with("credential/")).count()
    }

    fn held(&self, place: &str) -> Material {
        let (id, secret) = self.arcgis.held_key(place).expect("it holds a key");
        material(&id, &secret)
    }

    /// Pushes, waits for the end, and says how it is told.
    async fn push_and_poll(&self, target: &Arc<dyn Target>) -> JobState {
        let Receipt { job } = target.push(&new_key()).await.expect("the push is accepted");
        self.arcgis.settled().await;
        target.poll(&job.expect("a job is named")).await.expect("the job can be read")
    }
}

fn new_tail() -> Reading {
    Reading::Tail(Tail::new("VC5M"))
}

fn reason(fault: &Fault) -> Option<Reason> {
    match fault {
        Fault::Refused { reason, .. } => Some(*reason),
        _ => None,
    }
}

#[tokio::test]
async fn a_key_arrives_by_the_operation_of_the_version() {
    for options in flavours() {
        let (version, product) = (options.version.clone(), options.product);
        let site = Site::start(options).await;
        let target = site.target();
        let found = target.inspect().await.expect("the service is there");
        assert_eq!(found.holder.as_str(), "arcgis.prod/cloud/services/eg7hrelq6b");
        assert_eq!((found.reading, found.jobs), (site.old_tail(), vec![]), "{product:?} {version}");
        assert_eq!(site.push_and_poll(&target).await, JobState::Succeeded, "{product:?} {version}");
        let jobs = site.arcgis.jobs();
        let operation = if version == "12.0" { "credential/update" } else { "credential/add" };
        assert_eq!((jobs.len(), jobs[0].operation.as_str()), (1, operation), "{product:?} {version}");
        assert_eq!((site.held(SERVICE), target.read().await), (new_key(), Ok(new_tail())), "{product:?} {version}");
        assert_eq!(target.jobs().await, Ok(vec![JobId::new(&jobs[0].id)]), "{product:?} {version}");
        assert_eq!(site.arcgis.logins(), [true], "{product:?} {version}");
    }
}

#[tokio::test]
async fn a_secret_arrives_as_it_is() {
    let site = Site::start(kubernetes()).await;
    let target = site.target();
    for secret in ["a+b/c=d&e%f%2Bg", "one two+three=%", "\"\\{}[]<>#;?é漢", "++++////====++++"] {
        let key = material("AKIA+EXAMPLE", secret);
        target.push(&key).await.expect("the push is accepted");
        site.arcgis.settled().await;
        assert_eq!(site.held(SERVICE), key);
    }
}

#[tokio::test]
async fn a_service_that_inherits_is_left_alone() {
    for options in flavours() {
        let site = Site::start(options).await;
        let target = site.connect("", &format!("service_id = {INHERITING:?}"));
        for fault in [target.inspect().await.map(drop), target.push(&new_key()).await.map(drop)] {
            let fault = fault.expect_err("it has no credential of its own");
            assert_eq!(reason(&fault), Some(Reason::Inherits));
            assert!(
                fault.why().contains("provider_id = \"betc4g098c\"") && fault.why().contains(INHERITING),
                "{fault:?}"
            );
            assert!(!fault.why().contains(SERVICE), "{fault:?}");
        }
        assert_eq!(target.read().await, Ok(Reading::Nothing));
        assert_eq!(site.pushes(), 0);
    }
}

#[tokio::test]
async fn an_explicit_add_does_what_it_says() {
    let site = Site::start(kubernetes()).await;
    let target = site.connect("", &format!("service_id = {INHERITING:?}\noperation = \"add\""));
    assert_eq!(target.inspect().await.map(|found| found.reading), Ok(Reading::Nothing));
    assert_eq!(site.push_and_poll(&target).await, JobState::Succeeded);
    assert_eq!(target.read().await, Ok(new_tail()));
    let fault = target.push(&new_key()).await.expect_err("12.0 adds only where there is none");
    assert_eq!(reason(&fault), Some(Reason::Refused));
    assert!(fault.why().contains("already has existing service-specific credentials"), "{fault:?}");
}

#[tokio::test]
async fn a_providers_key_moves_all_that_inherit_and_no_other() {
    for options in flavours() {
        let site = Site::start(options).await;
        let target = site.provider();
        let found = target.inspect().await.expect("the provider is there");
        assert_eq!(found.holder.as_str(), "arcgis.prod/cloud/providers/betc4g098c");
        assert_eq!(found.reading, site.old_tail());
        assert_eq!(site.push_and_poll(&target).await, JobState::Succeeded);
        assert_eq!((site.held(PROVIDER), site.held(INHERITING)), (new_key(), new_key()));
        assert_eq!(site.held(SERVICE), material(&site.old.0, &site.old.1));
        assert_eq!(target.read().await, Ok(new_tail()));
    }
}

#[tokio::test]
async fn a_bare_provider_of_server_is_added_to() {
    let site = Site::start(server()).await;
    site.arcgis.add_provider("bareprovid", "AWS", None);
    let target = site.connect("", "provider_id = \"bareprovid\"");
    assert_eq!(target.inspect().await.map(|found| found.reading), Ok(Reading::Nothing));
    assert_eq!(site.push_and_poll(&target).await, JobState::Succeeded);
    assert_eq!(site.arcgis.jobs()[0].operation, "credential/add");
}

#[tokio::test]
async fn an_id_that_is_not_there_comes_with_those_that_are() {
    for options in flavours() {
        let site = Site::start(options).await;
        let fault = site.connect("", "service_id = \"nosuchone1\"").inspect().await.expect_err("there is none");
        assert_eq!(reason(&fault), Some(Reason::NotFound));
        assert!(fault.why().contains("eg7hrelq6b (AWS S3 DEFAULT)") && fault.why().contains(BACKUP), "{fault:?}");
        let fault = site.connect("", "provider_id = \"nosuchone1\"").inspect().await.expect_err("there is none");
        assert_eq!(reason(&fault), Some(Reason::NotFound));
        assert!(fault.why().ends_with("it has betc4g098c (AWS)"), "{fault:?}");
    }
}

#[tokio::test]
async fn a_server_without_cloud_services_says_so() {
    let site = Site::start(ArcGisOptions { version: "11.5".to_owned(), ..server() }).await;
    let fault = site.target().inspect().await.expect_err("Server has them from 12.0 on");
    assert_eq!(reason(&fault), Some(Reason::NotFound), "{fault:?}");
}

#[tokio::test]
async fn a_read_back_shows_the_tail_and_nothing_else() {
    let site = Site::start(kubernetes()).await;
    let target = site.target();
    site.arcgis.job_script(JobScript::Liar);
    assert_eq!(site.push_and_poll(&target).await, JobState::Succeeded);
    assert_eq!(target.read().await, Ok(site.old_tail()), "a job that lies is found out by reading back");
    // Ciphertexts change with every read, and the reading does not.
    assert_eq!(target.read().await, target.read().await);
}

#[tokio::test]
async fn every_end_of_a_job_is_told_apart() {
    let ends = [
        (JobScript::Complete, Ok(())),
        (JobScript::Fail("no such bucket".to_owned()), Err("failed: no such bucket")),
        (JobScript::FailAfterStore("late".to_owned()), Err("failed: late")),
        (JobScript::CompleteWithInnerError("refused".to_owned()), Err("completed with an error inside: refused")),
        (JobScript::CompleteWithFailedStage("Update".to_owned()), Err("completed with an error inside: ")),
        (JobScript::CancelAndRollBack, Err("cancelled: it gives no reason")),
        (JobScript::TimedOut, Err("timed out: it gives no reason")),
    ];
    for options in [kubernetes(), server()] {
        let site = Site::start(options).await;
        let target = site.target();
        for (script, expected) in &ends {
            site.arcgis.job_script(script.clone());
            let state = site.push_and_poll(&target).await;
            let told = match &state {
                JobState::Succeeded => expected.is_ok(),
                JobState::Failed(what) => expected.is_err_and(|start| what.starts_with(start)),
                JobState::Running(_) | JobState::Vanished(_) => false,
            };
            assert!(told, "{script:?}: {state:?}");
        }
    }
}

#[tokio::test]
async fn a_job_that_cannot_be_told_just_now_goes_on() {
    let site = Site::start(kubernetes()).await;
    let target = site.target();
    site.arcgis.job_script(JobScript::UnavailableBlips(2));
    let job = target.push(&new_key()).await.expect("the push is accepted").job.expect("a job is named");
    site.arcgis.settled().await;
    assert_eq!(target.poll(&job).await, Ok(JobState::Running("unavailable".to_owned())));
    assert_eq!(target.poll(&job).await, Ok(JobState::Running("unavailable".to_owned())));
    assert_eq!(target.poll(&job).await, Ok(JobState::Succeeded));
    site.arcgis.job_script(JobScript::Slow(Duration::from_secs(3600)));
    let job = target.push(&new_key()).await.expect("the push is accepted").job.expect("a job is named");
    assert_eq!(target.poll(&job).await, Ok(JobState::Running("submitted".to_owned())));
}

#[tokio::test]
async fn a_reply_as_the_documents_print_it() {
    for options in [kubernetes(), server()] {
        let site = Site::start(ArcGisOptions { malformed_job_reply: true, ..options }).await;
        assert_eq!(site.push_and_poll(&site.target()).await, JobState::Succeeded);
    }
}

#[tokio::test]
async fn jobs_of_server_are_found_at_either_place() {
    for path in [JobPath::Both, JobPath::Classic, JobPath::Short] {
        for real_status_codes in [false, true] {
            let site = Site::start(ArcGisOptions { server_job_path: path, real_status_codes, ..server() }).await;
            let target = site.target();
            assert_eq!(site.push_and_poll(&target).await, JobState::Succeeded, "{path:?}");
            assert_eq!(target.jobs().await.map(|jobs| jobs.len()), Ok(1), "{path:?}");
            let gone = target.poll(&JobId::new("j00000000-0000-0000-0000-000000000000")).await;
            assert!(matches!(gone, Ok(JobState::Vanished(_))), "{path:?}: {gone:?}");
        }
    }
}

#[tokio::test]
async fn a_lost_job_is_neither_good_nor_bad() {
    for options in flavours() {
        let site = Site::start(options).await;
        let target = site.target();
        site.arcgis.job_script(JobScript::Vanish);
        let state = site.push_and_poll(&target).await;
        assert!(matches!(&state, JobState::Vanished(why) if why.contains("404")), "{state:?}");
    }
}

#[tokio::test]
async fn a_job_id_of_a_damaged_journal_does_not_leave_its_path() {
    let site = Site::start(kubernetes()).await;
    let fault = site.target().poll(&JobId::new("../cloud/services")).await.expect_err("this is no job id");
    assert_eq!(reason(&fault), Some(Reason::Refused));
    assert!(site.arcgis.urls().is_empty());
}

#[tokio::test]
async fn a_restart_is_no_failure() {
    for options in [kubernetes(), server()] {
        for how in [Restart::Closed, Restart::BadGateway, Restart::Unavailable, Restart::NotFound, Restart::Html] {
            let site = Site::start(options.clone()).await;
            let target = site.target();
            site.arcgis.restart_in_next_job(how, Duration::from_secs(3600));
            let job = target.push(&new_key()).await.expect("the push is accepted").job.expect("a job is named");
            site.arcgis.settled().await;
            let fault = target.poll(&job).await.expect_err("nobody can tell now");
            assert!(matches!(fault, Fault::Unknown(_) | Fault::Retry { .. }), "{how:?}: {fault:?}");
            let fault = target.jobs().await.expect_err("no answer is not the answer that there are none");
            assert!(matches!(fault, Fault::Unknown(_) | Fault::Retry { .. }), "{how:?}: {fault:?}");
            let fault = target.inspect().await.expect_err("nobody can tell now");
            assert!(matches!(fault, Fault::Unknown(_) | Fault::Retry { .. }), "{how:?}: {fault:?}");
            let pushes = site.pushes();
            let fault = target.push(&new_key()).await.expect_err("this is no time for a push");
            assert!(matches!(fault, Fault::NotSent(_) | Fault::Retry { .. }), "{how:?}: {fault:?}");
            assert_eq!(site.pushes(), pushes, "{how:?}");
        }
    }
}

#[tokio::test]
async fn an_answer_that_is_lost_is_unknown() {
    for options in [kubernetes(), server()] {
        for (mishap, executed) in [
            (Mishap::LostReply, true),
            (Mishap::ErrorAfterCommit(500), true),
            (Mishap::ErrorAfterCommit(504), true),
            (Mishap::Slow(Duration::from_secs(60)), true),
            (Mishap::DropBefore, false),
            (Mishap::Error(502), false),
            (Mishap::Html, false),
        ] {
            let site = Site::start(options.clone()).await;
            let target = site.connect("request_timeout = \"300ms\"", &format!("service_id = {SERVICE:?}"));
            site.arcgis.fault("credential/update", mishap.clone());
            let fault = target.push(&new_key()).await.expect_err("there is no answer");
            assert!(matches!(fault, Fault::Unknown(_)), "{mishap:?}: {fault:?}");
            assert_eq!(site.pushes(), 1, "{mishap:?}: it is not sent again");
            assert_eq!(target.jobs().await.map(|jobs| jobs.len()), Ok(usize::from(executed)), "{mishap:?}");
        }
    }
}

#[tokio::test]
async fn what_goes_wrong_before_the_push_did_not_push() {
    for operation in ["generateToken", "root", "mode", "services"] {
        for mishap in
            [Mishap::LostReply, Mishap::DropBefore, Mishap::ErrorAfterCommit(500), Mishap::Throttle, Mishap::Html]
        {
            let site = Site::start(kubernetes()).await;
            site.arcgis.fault(operation, mishap.clone());
            let fault = site.target().push(&new_key()).await.expect_err("the look before the push fails");
            assert!(matches!(fault, Fault::NotSent(_) | Fault::Retry { .. }), "{operation} {mishap:?}: {fault:?}");
            assert_eq!(site.pushes(), 0, "{operation} {mishap:?}");
        }
    }
}

#[tokio::test]
async fn a_site_that_takes_no_change_says_so_before_the_mint() {
    for options in flavours() {
        let site = Site::start(options).await;
        let target = site.target();
        site.arcgis.set_read_only(true);
        for fault in [target.inspect().await.map(drop), target.push(&new_key()).await.map(drop)] {
            let fault = fault.expect_err("the site is read-only");
            assert!(matches!(&fault, Fault::Retry { why, .. } if why.contains("read-only mode")), "{fault:?}");
        }
        assert_eq!(site.pushes(), 0);
        site.arcgis.set_read_only(false);
        site.arcgis.set_site_locked(true);
        let fault = target.push(&new_key()).await.expect_err("the site is locked");
        assert!(
            matches!(&fault, Fault::Retry { why, .. } if why.contains("Another administrative operation")),
            "{fault:?}"
        );
        site.arcgis.set_site_locked(false);
        assert_eq!(site.push_and_poll(&target).await, JobState::Succeeded);
    }
}

#[tokio::test]
async fn a_throttled_push_waits_as_long_as_it_is_told() {
    let site = Site::start(kubernetes()).await;
    site.arcgis.fault("credential/update", Mishap::Throttle);
    let fault = site.target().push(&new_key()).await.expect_err("it is throttled");
    assert!(matches!(fault, Fault::Retry { after: Some(after), .. } if after == Duration::from_secs(1)), "{fault:?}");
}

#[tokio::test]
async fn a_second_job_at_once_is_told_to_wait() {
    let site = Site::start(ArcGisOptions { concurrent_jobs: false, ..kubernetes() }).await;
    site.arcgis.job_script(JobScript::Slow(Duration::from_secs(3600)));
    site.target().push(&new_key()).await.expect("the push is accepted");
    let backup = site.connect("", &format!("service_id = {BACKUP:?}"));
    let fault = backup.push(&new_key()).await.expect_err("another job runs");
    assert!(matches!(fault, Fault::Retry { .. }), "{fault:?}");
}

#[tokio::test]
async fn either_spelling_arrives() {
    for (server_takes, policy, pushes) in [
        (Spelling::Snake, "auto", 1),
        (Spelling::Both, "auto", 1),
        (Spelling::Camel, "auto", 2),
        (Spelling::Camel, "camel", 1),
        (Spelling::Snake, "snake", 1),
    ] {
        let site = Site::start(ArcGisOptions { spelling: server_takes, ..kubernetes() }).await;
        let target = site.connect(&format!("credential_keys = {policy:?}"), &format!("service_id = {SERVICE:?}"));
        assert_eq!(site.push_and_poll(&target).await, JobState::Succeeded, "{server_takes:?} {policy}");
        assert_eq!((site.held(SERVICE), site.pushes()), (new_key(), pushes), "{server_takes:?} {policy}");
    }
    let site = Site::start(ArcGisOptions { spelling: Spelling::Camel, ..kubernetes() }).await;
    let target = site.connect("credential_keys = \"snake\"", &format!("service_id = {SERVICE:?}"));
    let fault = target.push(&new_key()).await.expect_err("the policy allows one spelling");
    assert_eq!((reason(&fault), site.pushes()), (Some(Reason::Refused), 1));
}

#[tokio::test]
async fn a_refusal_of_another_kind_is_not_repeated_in_another_spelling() {
    let site = Site::start(kubernetes()).await;
    site.arcgis.fault("credential/update", Mishap::Refuse("The bucket cannot be reached.".to_owned()));
    let fault = site.target().push(&new_key()).await.expect_err("it is refused");
    assert_eq!((reason(&fault), site.pushes()), (Some(Reason::Refused), 1));
    assert!(fault.why().ends_with("code 400, \"The bucket cannot be reached.\""), "{fault:?}");
}

#[tokio::test]
async fn after_a_404_the_documents_other_spelling_of_cloud_is_tried_once() {
    let site = Site::start(ArcGisOptions { accept_clouds_alias: true, ..kubernetes() }).await;
    site.arcgis.fault("credential/update", Mishap::Error(404));
    assert_eq!(site.push_and_poll(&site.target()).await, JobState::Succeeded);
    let posts = site.arcgis.urls().into_iter().filter(|url| url.contains("/credential/")).collect::<Vec<_>>();
    assert!(
        matches!(&posts[..], [first, second] if first.contains("/cloud/") && second.contains("/clouds/")),
        "{posts:?}"
    );

    let site = Site::start(kubernetes()).await;
    site.arcgis.fault("credential/update", Mishap::Error(404));
    let fault = site.target().push(&new_key()).await.expect_err("there is no alias");
    assert!(matches!(fault, Fault::Retry { .. }), "a page may be a web adaptor without its server: {fault:?}");
    assert_eq!(site.arcgis.jobs().len(), 0);
}

#[tokio::test]
async fn an_operation_the_version_lacks_is_refused() {
    let site = Site::start(ArcGisOptions { version: "11.2".to_owned(), ..kubernetes() }).await;
    let target = site.connect("", &format!("service_id = {SERVICE:?}\noperation = \"update\""));
    let fault = target.push(&new_key()).await.expect_err("11.2 has no update");
    assert_eq!(reason(&fault), Some(Reason::Refused));
    assert!(fault.why().ends_with("this version has no such operation (the policy chose this operation)"), "{fault:?}");
}

#[tokio::test]
async fn an_expired_token_is_renewed_once() {
    for options in flavours() {
        let site = Site::start(options).await;
        let target = site.target();
        target.inspect().await.expect("the service is there");
        site.arcgis.expire_tokens();
        let job = target.push(&new_key()).await.expect("the push is accepted").job.expect("a job is named");
        site.arcgis.expire_tokens();
        site.arcgis.settled().await;
        assert_eq!(target.poll(&job).await, Ok(JobState::Succeeded), "the same job, under a new token");
        assert_eq!((site.pushes(), site.arcgis.jobs().len()), (1, 1), "a poll that met a dead token pushes nothing");
        assert_eq!(site.arcgis.logins(), [true, true, true]);
    }
}

#[tokio::test]
async fn a_push_that_meets_a_dead_token_is_sent_once_more() {
    for options in flavours() {
        let operation = if options.version == "12.0" { "credential/update" } else { "credential/add" };
        let real = options.real_status_codes;
        let site = Site::start(options).await;
        let target = site.target();
        // The look before the push would renew it: let it die in between, as seen by the server.
        site.arcgis.fault(operation, if real { Mishap::Error(498) } else { Mishap::Error(401) });
        assert_eq!(site.push_and_poll(&target).await, JobState::Succeeded);
        assert_eq!((site.pushes(), site.arcgis.jobs().len(), site.arcgis.logins()), (2, 1, vec![true, true]));
    }
}

#[tokio::test]
async fn a_fresh_token_that_is_not_accepted_is_no_riddle() {
    let site = Site::start(kubernetes()).await;
    site.arcgis.fault("credential/update", Mishap::Error(498));
    site.arcgis.fault("credential/update", Mishap::Error(498));
    let fault = site.target().push(&new_key()).await.expect_err("two tokens in a row are not accepted");
    assert_eq!((reason(&fault), site.pushes()), (Some(Reason::LoginRefused), 2));
    assert!(fault.why().contains("Referer"), "{fault:?}");
    assert_eq!(site.guard.refusals(), 0, "the password was good");
}

#[tokio::test]
async fn a_short_lived_token_is_renewed_before_it_ends() {
    for options in [kubernetes(), server()] {
        let site = Site::start(ArcGisOptions { token_ttl: Some(Duration::from_millis(1200)), ..options }).await;
        let target = site.target();
        // Two lives of a token at the longest.
        while site.arcgis.logins().len() < 3 {
            target.inspect().await.expect("the service is there");
        }
        assert!(site.arcgis.requests().iter().all(|line| line.executed), "no request met a dead token");
    }
}

#[tokio::test]
async fn all_targets_of_a_deployment_log_in_once() {
    let site = Site::start(kubernetes()).await;
    let (one, two) = (site.target(), site.provider());
    let three = site.connect("", &format!("service_id = {BACKUP:?}"));
    let (a, b, c) = tokio::join!(one.inspect(), two.inspect(), three.inspect());
    assert!(a.is_ok() && b.is_ok() && c.is_ok());
    assert_eq!(site.arcgis.logins(), [true]);
}

#[tokio::test]
async fn a_refused_password_is_sent_once() {
    for options in flavours() {
        let site = Site::start(options).await;
        let target = site.target();
        site.arcgis.set_password("another one");
        let fault = target.inspect().await.expect_err("the password is wrong");
        assert_eq!(reason(&fault), Some(Reason::LoginRefused));
        for words in ["arcgis.prod", "rotator", "five", "rekeyd retry"] {
            assert!(fault.why().contains(words), "{fault:?}");
        }
        let again = site.provider();
        for fault in
            [target.read().await.map(drop), again.inspect().await.map(drop), target.push(&new_key()).await.map(drop)]
        {
            assert_eq!(reason(&fault.expect_err("it is not tried again")), Some(Reason::LoginRefused));
        }
        assert_eq!((site.arcgis.logins(), site.guard.refusals()), (vec![false], 1));

        std::fs::write(site.password.path(), "another one\n").expect("a temporary file can be written");
        site.target().inspect().await.expect("the new password is another password");
        assert_eq!(site.arcgis.logins(), [false, true]);
    }
}

#[tokio::test]
async fn a_locked_account_is_a_refusal_although_it_says_try_again_later() {
    for options in [kubernetes(), server()] {
        let site = Site::start(options).await;
        site.arcgis.fault("generateToken", Mishap::Refuse("The account is locked. Please try again later.".to_owned()));
        let fault = site.target().inspect().await.expect_err("the account is locked");
        assert_eq!((reason(&fault), site.guard.refusals()), (Some(Reason::LoginRefused), 1));
    }
}

#[tokio::test]
async fn a_network_error_is_no_refusal() {
    for mishap in [
        Mishap::DropBefore,
        Mishap::LostReply,
        Mishap::Throttle,
        Mishap::Html,
        Mishap::Error(502),
        Mishap::Error(503),
        Mishap::Error(404),
    ] {
        let site = Site::start(kubernetes()).await;
        site.arcgis.fault("generateToken", mishap.clone());
        let target = site.target();
        let fault = target.inspect().await.expect_err("there is no token");
        assert!(matches!(fault, Fault::NotSent(_) | Fault::Retry { .. }), "{mishap:?}: {fault:?}");
        assert_eq!(site.guard.refusals(), 0, "{mishap:?}");
        target.inspect().await.expect("it passed");
    }
}

#[tokio::test]
async fn a_login_that_is_redirected_is_refused_without_following() {
    let site = Site::start(kubernetes()).await;
    site.arcgis.fault("generateToken", Mishap::Redirect("https://sso.example.com/login?state=hush".to_owned()));
    let fault = site.target().inspect().await.expect_err("it is redirected");
    assert_eq!((reason(&fault), site.guard.refusals()), (Some(Reason::Refused), 0));
    assert!(fault.why().contains("https://sso.example.com/login") && !fault.why().contains("hush"), "{fault:?}");
}

#[tokio::test]
async fn a_missing_right_is_told_as_one() {
    for options in flavours() {
        let site = Site::start(options).await;
        let target = site.target();
        site.arcgis.set_username_privilege(false);
        let fault = target.inspect().await.expect_err("the user may not");
        assert_eq!(reason(&fault), Some(Reason::MissingRight));
        assert!(fault.why().contains("default administrator role"), "{fault:?}");
        assert_eq!(site.arcgis.logins(), [true], "another token would not help");
        assert_eq!(site.guard.refusals(), 0);
    }
}

#[tokio::test]
async fn a_redirected_push_is_refused() {
    let site = Site::start(kubernetes()).await;
    let elsewhere = "https://other.example.com/arcgis/admin?token=hush";
    site.arcgis.fault("credential/update", Mishap::Redirect(elsewhere.to_owned()));
    let fault = site.target().push(&new_key()).await.expect_err("it is redirected");
    assert_eq!((reason(&fault), site.pushes()), (Some(Reason::Refused), 1));
    assert!(fault.why().contains("https://other.example.com/arcgis/admin;"), "{fault:?}");
    assert!(!fault.why().contains("hush"), "{fault:?}");
}

#[tokio::test]
async fn no_secret_is_in_a_url_or_a_message() {
    for options in [kubernetes(), server()] {
        let site = Site::start(options).await;
        let target = site.target();
        let key = new_key();
        let Material::AccessKey { secret, .. } = &key;
        let told = format!("cannot use {} beside {{crypt}}abcDEF+/= and v2Crypt_abc", secret.expose());
        site.arcgis.fault("credential/update", Mishap::Refuse(told.clone()));
        let refused = target.push(&key).await.expect_err("it is refused");
        site.arcgis.job_script(JobScript::Fail("failed with {crypt}abcDEF+/=".to_owned()));
        let failed = site.push_and_poll(&target).await;
        assert_eq!(failed, JobState::Failed("failed: failed with {crypt}***".to_owned()));
        assert!(refused.why().contains("\"cannot use *** beside {crypt}*** and v2Crypt_***\""), "{refused:?}");
        let secrets = site.arcgis.all_secrets();
        assert!(secrets.len() >= 3, "password, token and keys are known to the lab");
        for url in site.arcgis.urls() {
            assert!(!secrets.iter().any(|secret| url.contains(secret.as_str())), "{url}");
            assert!(!url.contains("token="), "{url}");
        }
    }
}

/// Collects what is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("no test panics in here").extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn no_secret_is_logged_at_the_finest_level() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber =
        tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(move || writer.clone()).finish();
    let _logging = tracing::subscriber::set_default(subscriber);
    tracing::trace!("the log is open");
    let site = Site::start(ArcGisOptions { tls: true, ..kubernetes() }).await;
    let target = site.target();
    target.inspect().await.expect("the service is there");
    assert_eq!(site.push_and_poll(&target).await, JobState::Succeeded);
    let logged = String::from_utf8_lossy(&log.0.lock().expect("no test panics in here")).into_owned();
    assert!(logged.contains("the log is open"));
    for secret in site.arcgis.all_secrets() {
        assert!(!logged.contains(&secret));
    }
}

#[tokio::test]
async fn an_unknown_authority_is_refused_by_name() {
    let mut site = Site::start(ArcGisOptions { tls: true, ..kubernetes() }).await;
    site.target().inspect().await.expect("the authority is named in ca_file");
    site.ca = None;
    let fault = site.target().inspect().await.expect_err("nobody trusts it");
    assert_eq!(reason(&fault), Some(Reason::TlsUntrusted));
    assert!(fault.why().contains("127.0.0.1:") && fault.why().contains("ca_file"), "{fault:?}");
    let other = Site::start(ArcGisOptions { tls: true, ..kubernetes() }).await;
    site.ca = other.arcgis.ca_pem().map(|pem| file(&pem));
    let fault = site.target().inspect().await.expect_err("this authority signed another one's certificate");
    assert_eq!(reason(&fault), Some(Reason::TlsUntrusted));
    assert!(site.arcgis.logins() == [true], "no password went to a server that is not trusted");
}

#[tokio::test]
async fn a_server_that_is_down_is_not_sent_to() {
    let site = Site::start(kubernetes()).await;
    let target = site.target();
    target.inspect().await.expect("the service is there");
    site.arcgis.down(true);
    let fault = target.push(&new_key()).await.expect_err("it is down");
    assert!(matches!(fault, Fault::NotSent(_)), "{fault:?}");
    assert_eq!(target.poll(&JobId::new("j1")).await.map_err(|fault| fault.outcome()), Err("unknown"));
}

#[tokio::test]
async fn health_sees_through_a_200() {
    let site = Site::start(kubernetes()).await;
    let admin = site.arcgis.admin_url();
    let watched = |url: &str, expect: u16| {
        site.connect("", &format!("service_id = {SERVICE:?}\nhealth = {{ url = {url:?}, expect = {expect} }}"))
    };
    let info = admin.replace("/admin", "/rest/info?f=json");
    assert_eq!(site.target().health().await, Health::NotWatched);
    assert_eq!(watched(&info, 200).health().await, Health::Good);
    let Health::Bad(why) = watched(&info, 204).health().await else { panic!("200 is not 204") };
    assert!(why.ends_with("expected status 204, got 200"), "{why}");
    let Health::Bad(why) = watched(&format!("{admin}?f=json"), 200).health().await else {
        panic!("this needs a token")
    };
    assert!(why.contains("an error inside: code 499"), "{why}");
    site.arcgis.down(true);
    let Health::Bad(why) = watched(&info, 200).health().await else { panic!("nobody is there") };
    assert!(!why.contains("f=json"), "{why}");
}
