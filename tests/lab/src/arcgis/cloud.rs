//! `cloud/…`: providers, services, and the two operations that replace a credential.

use std::sync::{Arc, Mutex};

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::credential::{Credential, Receiver};
use super::jobs;
use super::reply::{Content, Outcome};
use super::site::{Provider, Service, Site};
use crate::form;
use crate::http::Request;

/// What a path under `cloud/` means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// The page with the two children.
    Root,
    Providers,
    Services,
    Provider(String),
    Service(String),
    /// A service's health, since Kubernetes 12.0; its page was never found, only its name.
    Status(String),
    Credential {
        add: bool,
        provider: bool,
        id: String,
    },
}

impl Place {
    /// `segments` after `cloud`.
    pub(crate) fn parse(segments: &[&str]) -> Option<Place> {
        Some(match segments {
            [] => Place::Root,
            ["providers"] => Place::Providers,
            ["services"] => Place::Services,
            ["providers", id] => Place::Provider((*id).to_owned()),
            ["services", id] => Place::Service((*id).to_owned()),
            ["services", id, "status"] => Place::Status((*id).to_owned()),
            [level @ ("providers" | "services"), id, "credential", verb @ ("add" | "update")] => {
                Place::Credential { add: *verb == "add", provider: *level == "providers", id: (*id).to_owned() }
            }
            _ => return None,
        })
    }

    /// The name in the fault queue and in the log.
    pub(crate) fn operation(&self) -> &'static str {
        match self {
            Place::Root => "cloud",
            Place::Providers => "providers",
            Place::Services => "services",
            Place::Provider(_) => "provider",
            Place::Service(_) => "service",
            Place::Status(_) => "status",
            Place::Credential { add: true, .. } => "credential/add",
            Place::Credential { add: false, .. } => "credential/update",
        }
    }
}

/// A read.
pub(crate) fn get(site: &Site, place: &Place, request: &Request) -> Outcome {
    let query = form::pairs(&request.query);
    let masked = form::value(&query, "maskedSecret").is_some_and(|v| v.eq_ignore_ascii_case("true"));
    match place {
        Place::Root => Outcome::new(Content::Page("<h2>Cloud</h2>Resources: Providers Services".to_owned()), true),
        Place::Providers => {
            let shown: Vec<Value> = site.providers.iter().map(|p| show_provider(site, p, masked)).collect();
            Outcome::json(json!({ "cloudProviders": shown }))
        }
        Place::Services => {
            let shown: Vec<Value> = site.services.iter().map(|s| show_service(site, s, masked)).collect();
            Outcome::json(json!({ "cloudServices": shown }))
        }
        Place::Provider(id) => match site.provider(id) {
            Some(provider) => Outcome::json(show_provider(site, provider, masked)),
            None => Outcome::not_found(id),
        },
        Place::Service(id) => match site.service(id) {
            Some(service) => Outcome::json(show_service(site, service, masked)),
            None => Outcome::not_found(id),
        },
        Place::Status(id) => match site.service(id).filter(|_| !site.is_server() && site.version() >= (12, 0)) {
            Some(service) => Outcome::json(show_status(site, service)),
            None => Outcome::not_found(&format!("{id}/status")),
        },
        Place::Credential { .. } => Outcome::error(405, "This request needs to be a POST request."),
    }
}

/// `credential/add` and `credential/update`: what is accepted starts a job.
pub(crate) fn replace(
    site: &mut Site,
    shared: &Arc<Mutex<Site>>,
    place: &Place,
    request: &Request,
    now: DateTime<Utc>,
) -> Outcome {
    let Place::Credential { add, provider, id } = place else {
        return Outcome::error(405, "This request needs to be a GET request.");
    };
    if !exists(site, *add, *provider) {
        return Outcome::not_found(place.operation());
    }
    let form = request.form();
    let text = form::value(&form, "credential").unwrap_or_default();
    // Whatever is in there, it was sent, and must not be seen.
    let sent = serde_json::from_str::<Value>(text).unwrap_or_default();
    let access_key_id =
        ["access_key", "accessKey"].iter().find_map(|n| sent["secret"][*n].as_str()).unwrap_or_default();
    let mut outcome = match decide(site, place, text) {
        Err(refused) => refused,
        Ok(_) if !site.options.concurrent_jobs && jobs::running(site, now) => Outcome::error(
            500,
            "Another administrative operation is currently accessing the store. Please try again later.",
        ),
        Ok(credential) => {
            site.note_secrets(Some(&credential));
            let job = jobs::start(site, shared, (place.operation(), &request.path, id), credential, now);
            accepted(site, &job)
        }
    };
    outcome.access_key_id = access_key_id.to_owned();
    outcome.about(id)
}

/// Which of the four operations this product has in this version.
fn exists(site: &Site, add: bool, provider: bool) -> bool {
    let twelve = site.version() >= (12, 0);
    match (site.is_server(), provider, add) {
        (true, true, true) => true,
        (true, true, false) => site.options.server_provider_update,
        // Kubernetes lists only update for providers.
        (false, true, add) => !add,
        (_, false, true) => true,
        (_, false, false) => twelve,
    }
}

/// Add or update, by version and by what is there. The wording of the refusals is ours.
fn decide(site: &Site, place: &Place, text: &str) -> Result<Credential, Outcome> {
    let Place::Credential { add, provider, id } = place else { return Err(Outcome::not_found("credential")) };
    let unable = |detail: &str| Outcome::detailed(400, "Unable to update cloud credentials.", detail);
    let product = site.options.product;
    let (held, to) = match (*provider, site.provider(id), site.service(id)) {
        (true, Some(found), _) => (found.credential.as_ref(), Receiver { product, provider: &found.name, service: "" }),
        (false, _, Some(found)) => {
            let provider = site.provider(&found.spec.provider).map_or("", |p| p.name.as_str());
            (found.credential.as_ref(), Receiver { product, provider, service: &found.spec.name })
        }
        _ => return Err(Outcome::not_found(id)),
    };
    if text.is_empty() {
        return Err(unable("Missing required parameter: credential."));
    }
    let credential = Credential::parse(text, &to, site.options.spelling, &site.vault).map_err(|why| unable(&why))?;
    let twelve = site.version() >= (12, 0);
    match (add, held) {
        (true, Some(_)) if twelve => {
            Err(unable("The cloud service already has existing service-specific credentials."))
        }
        (false, None) => Err(unable("The cloud service has no existing credentials to update.")),
        (_, Some(held)) if !twelve && held.kind != credential.kind => {
            Err(unable("The credential type cannot be changed."))
        }
        _ => Ok(credential),
    }
}

/// The documents print the id without its opening quote, and without a status or a jobs URL.
fn accepted(site: &Site, job: &str) -> Outcome {
    let message = "A cloud credentials rotation job is in-progress";
    if site.options.malformed_job_reply {
        let text = format!("{{ \"cloudCredentialRotationJobId\": {job}\",\n  \"message\": \"{message}\" }}");
        return Outcome::new(Content::Raw(text), true);
    }
    Outcome::json(json!({ "cloudCredentialRotationJobId": job, "message": message }))
}

fn show_service(site: &Site, service: &Service, masked: bool) -> Value {
    let spec = &service.spec;
    let mut connection = match spec.connection.is_empty() {
        true => json!({ "rootDir": format!("root-{}", spec.id), "region": spec.region }),
        false => Value::Object(spec.connection.clone()),
    };
    if !spec.bucket.is_empty() {
        connection["bucketName"] = json!(spec.bucket);
    }
    if let Some(credential) = &service.credential {
        connection["credential"] = credential.show(masked, &site.vault);
    }
    let mut shown = json!({
        "providerId": spec.provider, "name": spec.name, "connection": connection,
        "id": spec.id, "type": spec.kind, "category": spec.category,
    });
    if let Some(usage) = &spec.usage {
        shown["usage"] = json!(usage);
    }
    shown
}

/// Whether the service reaches its store with the key it uses now. That it tells this, and every word of it, is our guess: the page
/// of a cloud service lists the operation, and no page of its own was found. A service without a store has nothing to reach.
fn show_status(site: &Site, service: &Service) -> Value {
    if site.reaches(&service.spec.id) != Some(false) {
        return json!({ "status": "AVAILABLE" });
    }
    json!({ "status": "UNREACHABLE", "message": "The store cannot be accessed with the credentials of the cloud service." })
}

fn show_provider(site: &Site, provider: &Provider, masked: bool) -> Value {
    let services: Vec<Value> = site
        .services
        .iter()
        .filter(|service| service.spec.provider == provider.id)
        .map(|service| show_service(site, service, masked))
        .collect();
    let mut shown = json!({ "cloudServices": services, "name": provider.name, "id": provider.id });
    if let Some(credential) = &provider.credential {
        shown["credential"] = credential.show(masked, &site.vault);
    }
    shown
}
