//! The ArcGIS target against the lab's ArcGIS, both products, 11.2 to 12.0.
//!
//! The twenty traps of a faithful client stand by number in `traps`; the modules beside it play most of them more broadly.

mod conversation;
mod data_items;
mod fuzz;
mod jobs;
mod login;
mod peer;
mod preflight;
mod push;
mod sessions;
mod site;
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

/// What may become of a changing request so that nobody knows whether it was carried out, and whether it was.
const LOST_ANSWERS: [(Mishap, bool); 7] = [
    (Mishap::LostReply, true),
    (Mishap::ErrorAfterCommit(500), true),
    (Mishap::ErrorAfterCommit(504), true),
    (Mishap::Slow(Duration::from_secs(60)), true),
    (Mishap::DropBefore, false),
    (Mishap::Error(502), false),
    (Mishap::Html, false),
];

/// What may go wrong with a look that comes before a changing request.
const FAILED_LOOKS: [Mishap; 5] =
    [Mishap::LostReply, Mishap::DropBefore, Mishap::ErrorAfterCommit(500), Mishap::Throttle, Mishap::Html];

/// Every way in which a site that restarts answers meanwhile.
const RESTARTS: [Restart; 5] =
    [Restart::Closed, Restart::BadGateway, Restart::Unavailable, Restart::NotFound, Restart::Html];

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
