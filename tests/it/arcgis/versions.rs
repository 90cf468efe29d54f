//! Versions and products in one table: which operation is chosen, and what each version may answer instead of what was asked.

use std::collections::HashMap;

use serde_json::json;

use super::peer::{JOB, Peer, TAIL, Wire, sound_body};
use super::*;

/// What hands a key over, by version: to a service with a key of its own, to a provider with one, to a provider without. `None`
/// where the product has no cloud services yet.
const TABLE: [(Product, &str, Option<[&str; 3]>); 12] = [
    (Product::Kubernetes, "11.2", Some(["credential/add", "credential/update", ""])),
    (Product::Kubernetes, "11.3", Some(["credential/add", "credential/update", ""])),
    (Product::Kubernetes, "11.4", Some(["credential/add", "credential/update", ""])),
    (Product::Kubernetes, "11.5", Some(["credential/add", "credential/update", ""])),
    (Product::Kubernetes, "12.0", Some(["credential/update", "credential/update", ""])),
    (Product::Kubernetes, "12.1", Some(["credential/update", "credential/update", ""])),
    (Product::Server, "11.2", None),
    (Product::Server, "11.3", None),
    (Product::Server, "11.4", None),
    (Product::Server, "11.5", None),
    (Product::Server, "12.0", Some(["credential/update", "credential/update", "credential/add"])),
    (Product::Server, "12.1", Some(["credential/update", "credential/update", "credential/add"])),
];

fn options(product: Product, version: &str) -> ArcGisOptions {
    let options = if product == Product::Server { server() } else { kubernetes() };
    ArcGisOptions { version: version.to_owned(), ..options }
}

/// Those that have cloud services, with the operation that serves a service.
fn served() -> impl Iterator<Item = (ArcGisOptions, &'static str)> {
    TABLE.into_iter().filter_map(|(product, version, operations)| Some((options(product, version), operations?[0])))
}

#[tokio::test]
async fn the_operation_follows_product_version_and_what_is_there() {
    for (product, version, operations) in TABLE {
        let site = Site::start(options(product, version)).await;
        site.arcgis.add_provider("bareprovid", "AWS", None);
        let bare = site.connect("", "provider_id = \"bareprovid\"");
        let Some([service, provider, without]) = operations else {
            let fault = site.target().push(&new_key()).await.expect_err("Server has them from 12.0 on");
            assert_eq!(
                (reason(&fault), site.pushes()),
                (Some(Reason::NotFound), 0),
                "{product:?} {version}: {fault:?}"
            );
            continue;
        };
        let mut expected = Vec::new();
        for (target, operation) in [(site.target(), service), (site.provider(), provider)] {
            assert_eq!(site.push_and_poll(&target).await, JobState::Succeeded, "{product:?} {version}");
            assert_eq!(target.read().await, Ok(new_tail()), "{product:?} {version}");
            expected.push(operation);
        }
        if !without.is_empty() {
            assert_eq!(site.push_and_poll(&bare).await, JobState::Succeeded, "{product:?} {version}");
            expected.push(without);
        }
        let done: Vec<String> = site.arcgis.jobs().into_iter().map(|job| job.operation).collect();
        assert_eq!((done, site.pushes()), (expected.iter().map(|op| (*op).to_owned()).collect(), expected.len()));
    }
}

#[tokio::test]
async fn errors_are_met_in_either_envelope_and_by_either_code() {
    for (options, operation) in served() {
        for real_status_codes in [false, true] {
            let site = Site::start(ArcGisOptions { real_status_codes, ..options.clone() }).await;
            let what = format!("{:?} {} {real_status_codes}", options.product, options.version);
            let target = site.target();
            site.arcgis.fault(operation, Mishap::Refuse("The bucket cannot be reached.".to_owned()));
            let fault = target.push(&new_key()).await.expect_err("it is refused");
            assert_eq!((reason(&fault), site.pushes()), (Some(Reason::Refused), 1), "{what}: {fault:?}");
            assert!(fault.why().ends_with("code 400, \"The bucket cannot be reached.\""), "{what}: {fault:?}");
            site.arcgis.expire_tokens();
            assert_eq!(target.read().await, Ok(site.old_tail()), "{what}");
            site.arcgis.set_site_locked(true);
            let fault = target.push(&new_key()).await.expect_err("the site is locked");
            assert!(matches!(fault, Fault::Retry { .. }), "{what}: {fault:?}");
            site.arcgis.set_site_locked(false);
            let gone = target.poll(&JobId::new(JOB)).await;
            assert!(matches!(gone, Ok(JobState::Vanished(_))), "{what}: {gone:?}");
            site.arcgis.set_username_privilege(false);
            let fault = target.inspect().await.expect_err("the user may not");
            assert_eq!(reason(&fault), Some(Reason::MissingRight), "{what}: {fault:?}");
        }
    }
}

#[tokio::test]
async fn a_page_is_no_answer_to_anything() {
    for (options, operation) in served() {
        let what = format!("{:?} {}", options.product, options.version);
        for asked in ["generateToken", "root", "mode", "services"] {
            let site = Site::start(options.clone()).await;
            site.arcgis.fault(asked, Mishap::Html);
            let fault = site.target().push(&new_key()).await.expect_err("a page says nothing");
            assert!(matches!(fault, Fault::NotSent(_) | Fault::Retry { .. }), "{what} {asked}: {fault:?}");
            assert_eq!(site.pushes(), 0, "{what} {asked}");
        }
        let site = Site::start(options).await;
        let target = site.target();
        site.arcgis.fault(operation, Mishap::Html);
        let fault = target.push(&new_key()).await.expect_err("a page says nothing");
        assert!(matches!(fault, Fault::Unknown(_)), "{what}: the job may have started: {fault:?}");
        // A page may come from a site that is down, which is asked once in a while only; here nobody waits for that.
        target.hurry();
        let job = target.push(&new_key()).await.expect("the push is accepted").job.expect("a job is named");
        site.arcgis.settled().await;
        site.arcgis.fault("job", Mishap::Html);
        let fault = target.poll(&job).await.expect_err("a page says nothing");
        assert!(matches!(fault, Fault::Unknown(_) | Fault::Retry { .. }), "{what}: {fault:?}");
        target.hurry();
        site.arcgis.fault("jobs", Mishap::Html);
        target.jobs().await.expect_err("a page is no empty list");
        target.hurry();
        assert_eq!(target.poll(&job).await, Ok(JobState::Succeeded), "{what}");
    }
}

#[tokio::test]
async fn the_reply_as_the_documents_print_it_names_its_job() {
    for (options, _) in served() {
        let what = format!("{:?} {}", options.product, options.version);
        let site = Site::start(ArcGisOptions { malformed_job_reply: true, ..options }).await;
        let job = site.target().push(&new_key()).await.expect("the push is accepted").job;
        assert_eq!(job.as_ref().map(JobId::as_str), Some(site.arcgis.jobs()[0].id.as_str()), "{what}");
    }
}

/// The least that each answer may say. Every field that is left out here is documented, and not needed.
#[tokio::test]
async fn fields_that_are_missing_are_not_missed_unless_they_are_needed() {
    for (product, version, operations) in TABLE {
        if operations.is_none() {
            continue;
        }
        let crypt = if product == Product::Server { "v2Crypt_" } else { "{crypt}" };
        let credential =
            json!({"type": "ACCESS-KEY", "secret": {"secretKey": format!("{crypt}xxxxxxxxxxxxxxxx{TAIL}")}});
        let number: f64 = version.parse().expect("a version is a number");
        let sparse = HashMap::from([
            ("generateToken", json!({"token": "t0ken"})),
            ("root", json!({"currentVersion": number})),
            ("mode", json!({})),
            ("services", json!({"cloudServices": [{"id": SERVICE, "connection": {"credential": credential}}]})),
            ("provider", json!({"id": PROVIDER, "credential": credential})),
            ("jobs", json!({"jobs": []})),
            ("job", json!({"status": "COMPLETED"})),
            ("credential", json!({"cloudCredentialRotationJobId": JOB})),
        ]);
        let what = format!("{product:?} {version}");
        let peer = Peer::start(product, version, wires(&sparse)).await;
        for place in [format!("service_id = {SERVICE:?}"), format!("provider_id = {PROVIDER:?}")] {
            let target = peer.connect(&Arc::default(), "", &place);
            let found = target.inspect().await.unwrap_or_else(|fault| panic!("{what} {place}: {fault:?}"));
            assert_eq!((found.reading, found.jobs), (Reading::Tail(Tail::new(TAIL)), vec![]), "{what} {place}");
            let receipt = target.push(&new_key()).await;
            assert_eq!(receipt, Ok(Receipt { job: Some(JobId::new(JOB)) }), "{what} {place}");
            assert_eq!(target.poll(&JobId::new(JOB)).await, Ok(JobState::Succeeded), "{what} {place}");
        }
        for (call, answer) in [
            ("generateToken", json!({"expires": 1})),
            ("root", json!({"resources": []})),
            ("services", json!({"cloudServices": [{"id": "another"}]})),
            ("services", json!({})),
        ] {
            let mut lacking = sparse.clone();
            lacking.insert(call, answer);
            let peer = Peer::start(product, version, wires(&lacking)).await;
            let target = peer.connect(&Arc::default(), "", &format!("service_id = {SERVICE:?}"));
            let fault = target.push(&new_key()).await.expect_err("something is missing");
            assert!(matches!(fault, Fault::Refused { .. }), "{what} {call}: {fault:?}");
            assert_eq!(peer.heard.count("credential"), 0, "{what} {call}: nothing is sent on a guess");
        }
        for (call, answer) in [("credential", json!({"message": "in progress"})), ("job", json!({"jobid": JOB}))] {
            let mut lacking = sparse.clone();
            lacking.insert(call, answer);
            let peer = Peer::start(product, version, wires(&lacking)).await;
            let target = peer.connect(&Arc::default(), "", &format!("service_id = {SERVICE:?}"));
            let fault = match call {
                "job" => target.poll(&JobId::new(JOB)).await.map(drop),
                _ => target.push(&new_key()).await.map(drop),
            };
            assert!(matches!(fault, Err(Fault::Unknown(_))), "{what} {call}: {fault:?}");
        }
    }
}

fn wires(answers: &HashMap<&'static str, serde_json::Value>) -> HashMap<&'static str, Wire> {
    answers.iter().map(|(call, answer)| (*call, Wire::json(answer))).collect()
}

/// The peer's sound answers are what this module and the bad answers are measured against: they work.
#[tokio::test]
async fn the_peer_of_bytes_is_a_sound_site_where_nobody_spoils_it() {
    for (options, _) in served() {
        let (product, version) = (options.product, options.version.as_str());
        assert!(sound_body("services", product, version)["cloudServices"].is_array());
        let peer = Peer::start(product, version, HashMap::new()).await;
        for place in [format!("service_id = {SERVICE:?}"), format!("provider_id = {PROVIDER:?}")] {
            let target = peer.connect(&Arc::default(), "", &place);
            assert_eq!(target.inspect().await.map(|found| found.reading), Ok(Reading::Tail(Tail::new(TAIL))));
            assert_eq!(target.push(&new_key()).await, Ok(Receipt { job: Some(JobId::new(JOB)) }));
            assert_eq!(target.poll(&JobId::new(JOB)).await, Ok(JobState::Succeeded));
        }
    }
}
