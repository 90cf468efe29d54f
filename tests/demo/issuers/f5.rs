//! F5 Distributed Cloud: service credentials with an API token, which an application beside ArcGIS reads from a file.

use futures_util::future::BoxFuture;
use rekeyd::model::{KeyId, Secret};
use rekeyd_lab::F5;
use serde_json::{Value, json};

use super::{Adoption, Issuer};
use crate::places::Place;

const PREFIX: &str = "gis-monitor";
const ROLE: (&str, &str) = ("system", "ves-io-monitor-role");

/// `f5xc`: a service credential that may look at the tenant.
pub fn tenant(f5: &F5) -> Box<dyn Issuer> {
    let name = format!("{PREFIX}-by-hand");
    let token = f5.create_token(&name, &[ROLE]);
    Box::new(Tenant { f5: f5.clone(), first: (name, token) })
}

struct Tenant {
    f5: F5,
    /// Name and token.
    first: (String, String),
}

impl Issuer for Tenant {
    fn title(&self) -> String {
        format!("service credentials {PREFIX}-* of F5 Distributed Cloud")
    }

    fn policy(&self) -> String {
        let (namespace, role) = ROLE;
        format!(
            r#"{{ kind = "f5xc", account = "main", name_prefix = "{PREFIX}", namespace_roles = [{{ namespace = "{namespace}", role = "{role}" }}] }}"#
        )
    }

    fn furnish(&self, place: &Place) {
        place.beside().begin(&json!({ "api_token": self.first.1 }), api_of(&self.f5));
    }

    fn adoption(&self) -> Adoption {
        let (name, token) = self.first.clone();
        Adoption { key: KeyId::new(name), secret: Some(Secret::new(token)), idle_slot_free: false }
    }

    fn keys(&self, held: &Value) -> Vec<String> {
        let held = held["api_token"].as_str();
        let ours = self.f5.credentials().into_iter().map(|one| one.name).filter(|name| name.starts_with(PREFIX));
        let state = |name: &str| if self.f5.secret_of(name).as_deref() == held { "in use" } else { "not in use" };
        ours.map(|name| format!("{name} {}", state(&name))).collect()
    }

    fn takes(&self, held: &Value) -> bool {
        let held = held["api_token"].as_str();
        self.f5.credentials().iter().any(|one| one.active && self.f5.secret_of(&one.name).as_deref() == held)
    }
}

/// Asks the console for the tenant's namespaces, as the application does with what it has just read.
fn api_of(f5: &F5) -> impl Fn(Value) -> BoxFuture<'static, bool> + Send + Sync + 'static {
    let url = format!("{}/api/web/namespaces", f5.url());
    let http = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().expect("a plain client");
    move |held| {
        let token = held["api_token"].as_str().unwrap_or_default();
        let request = http.get(&url).header("authorization", format!("APIToken {token}"));
        Box::pin(async move { request.send().await.is_ok_and(|answer| answer.status().is_success()) })
    }
}
