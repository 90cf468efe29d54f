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
//! |  7 | snake or camel case; shapes of Azure             | `either_spelling_arrives`, all of `types`; unit tests of `credential` |
//! |  8 | form encoding                                    | `a_secret_arrives_as_it_is`, `every_type_arrives_as_it_is_and_what_else_is_there_stays`; a SAS `?` is kept |
//! |  9 | masks are not echoed, ciphertexts not compared   | `a_read_back_shows_the_tail_and_nothing_else`, `what_is_shown_masked_only_is_never_sent_back` |
//! | 10 | expiry mid-poll; 498 on the POST                 | `an_expired_token_is_renewed_once`                                |
//! | 11 | referer, granted lifetime, `expires`             | all (the lab binds every token); `a_short_lived_token_is_renewed_before_it_ends`; we never ask for IP binding |
//! | 12 | lockout                                          | `a_refused_password_is_sent_once`, `a_network_error_is_no_refusal`, unit test of `session` |
//! | 13 | ambiguous POST                                   | `an_answer_that_is_lost_is_unknown`; the looking before a retry is the engine's |
//! | 14 | lost job, restarting server                      | `a_lost_job_is_neither_good_nor_bad`, `a_restart_is_no_failure`   |
//! | 15 | read-only, lock: before minting                  | `a_site_that_takes_no_change_says_so_before_the_mint`, all of `preflight` |
//! | 16 | when an old key may be retired                   | the machine's (`rotation`), which gets its evidence from `poll` and `read` |
//! | 17 | no secrets in logs                               | `no_secret_is_in_a_url_or_a_message`, `no_secret_is_logged_at_the_finest_level` |
//! | 18 | redirects, HTML, content types, unknown fields   | `a_redirected_push_is_refused`, `an_answer_that_is_lost_is_unknown`; the lab's Server says `text/plain`; unit tests of `cloud` |
//! | 19 | self-signed TLS                                  | `an_unknown_authority_is_refused_by_name`, `a_pinned_certificate_is_the_one_and_its_name_counts`; there is no way to switch verification off |
//! | 20 | Azure mints by regenerating the idle key         | an issuer's, and not in this build                                |

mod conversation;
mod data_items;
mod fuzz;
mod jobs;
mod login;
mod peer;
mod preflight;
mod push;
mod sessions;
mod traps;
mod types;
mod versions;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use rekeyd::model::{JobId, KeyId, Material, Reason, Secret, SystemRef, SystemSpec, Tail, TargetSpec};
use rekeyd::net::{Context, Shared};
use rekeyd::ports::{Fault, Health, JobState, LoginGuard, Reading, Receipt, Target};
use rekeyd::table;
use rekeyd::target::arcgis::KIND;
use rekeyd_lab::{
    ArcGis, ArcGisOptions, Aws, AwsOptions, Fault as Mishap, ItemView, JobPath, JobScript, Product, Restart,
    SelfSigned, ServiceSpec, Spelling, StoredCredential,
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
    aws: Aws,
    arcgis: ArcGis,
    password: tempfile::NamedTempFile,
    ca: Option<tempfile::NamedTempFile>,
    guard: Arc<Guard>,
    shared: Shared,
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
        Site { aws, arcgis, password, ca, guard: Arc::new(Guard::default()), shared: Shared::default(), product, old }
    }

    fn context(&self) -> Context {
        Context { proxy: None, no_proxy: Vec::new(), guard: self.guard.clone(), shared: self.shared.clone() }
    }

    /// A target by its policy tables; `deployment` and `target` are more lines of each.
    fn connect(&self, deployment: &str, target: &str) -> Arc<dyn Target> {
        self.connect_at(&self.arcgis.admin_url(), deployment, target).expect("connecting sends nothing")
    }

    /// The same under another address, and whatever becomes of it.
    fn connect_at(&self, admin_url: &str, deployment: &str, target: &str) -> Result<Arc<dyn Target>, Fault> {
        let (system, spec) = self.specs(admin_url, deployment, target);
        (KIND.connect)(&spec, Some(&system), &self.context())
    }

    fn specs(&self, admin_url: &str, deployment: &str, target: &str) -> (SystemSpec, TargetSpec) {
        let product = if self.product == Product::Server { "server" } else { "kubernetes" };
        let ca = self.ca.as_ref().map_or_else(String::new, |ca| format!("ca_file = {:?}\n", ca.path()));
        let text = format!(
            "product = \"{product}\"\nadmin_url = {:?}\nusername = \"rotator\"\npassword = {{ file = {:?} }}\n{ca}{deployment}\n",
            admin_url,
            self.password.path(),
        );
        let config = table::read(&text, "policy.toml", KIND.read_system).expect("the deployment is sound");
        let at = SystemRef { table: "arcgis".to_owned(), name: "prod".to_owned() };
        let system = SystemSpec { at, config: config.expect("the deployment is complete") };
        let spec = table::read(target, "policy.toml", |table| (KIND.read)(table, Some(&system)));
        let spec = spec.expect("the target is sound").expect("the target is complete");
        (system, spec)
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
