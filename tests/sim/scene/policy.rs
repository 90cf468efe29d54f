//! The policy of a scene, as an operator would write it: what does not differ between the issuers of the world and real ones stands
//! here once.

use std::collections::BTreeMap;

use rekeyd::model::IssuerSpec;
use rekeyd::policy::{Environment, Policy};

use super::Cast;
use crate::ports::SIGNER;

/// A policy like an operator's, with waits of minutes instead of days; of each service its issuer's table, and its follower's.
pub fn parse(accounts: &str, cast: &[Cast], issuer: impl Fn(&Cast) -> (String, Option<String>)) -> Policy {
    let mut text = format!(
        "version = 1\n[daemon]\njournal = \"sqlite:/tmp/none.db\"\ncontrol = \"/tmp/none.sock\"\nlisten = \"off\"\n{accounts}\
         [arcgis.prod]\nproduct = \"kubernetes\"\nadmin_url = \"https://gis.example.com/arcgis/admin\"\nusername = \"rotator\"\n\
         password = {{ env = \"P\" }}\njob_timeout = \"10m\"\nreadback = \"30s\"\n",
    );
    for service in cast {
        let Cast { name, every, .. } = service;
        let (own, follower) = issuer(service);
        text += &format!(
            "[[service]]\nname = \"{name}\"\nevery = \"{every}\"\npropagation = \"5s\"\nprobes = 2\nprobe_interval = \"2s\"\n\
             soak = \"6m\"\nsoak_unproven = \"11m\"\nwatch = \"6m\"\nobserve = \"1h\"\n{drift}[service.issuer]\n{own}",
            drift = if service.on_drift_push { "on_drift = \"push\"\n" } else { "" },
        );
        for (number, target) in service.target_names().iter().enumerate() {
            if let Some(follower) = follower.as_ref().filter(|_| number == 1) {
                text += &format!("[[service]]\nname = \"{name}-sas\"\n[service.issuer]\n{follower}");
            }
            let id = target.rsplit(':').next().unwrap_or_default();
            if service.files {
                text += &format!("[[service.target]]\nkind = \"file\"\npath = \"{id}\"\n");
                continue;
            }
            let key = match (service.jobless, service.providers) {
                (true, _) => "data_item",
                (false, true) => "provider_id",
                (false, false) => "service_id",
            };
            text += &format!("[[service.target]]\nkind = \"arcgis\"\ndeployment = \"prod\"\n{key} = \"{id}\"\n");
        }
    }
    let parsed = Policy::parse(text, "policy.toml", &Environment::default());
    parsed.unwrap_or_else(|report| panic!("{report}"))
}

/// A policy whose issuers are of the world's making, in the shape the cast wants.
pub fn policy(cast: &[Cast]) -> Policy {
    let accounts = "[aws.main]\nsettle = \"2m\"\nlast_used_lag = \"1m\"\n";
    let mut policy = parse(accounts, cast, |Cast { user, exclusive, .. }| {
        let issuer = format!(
            "kind = \"aws-iam\"\naccount = \"main\"\nuser = \"{user}\"\nexclusive = {exclusive}\n\
             probe = {{ bucket = \"gis-store\", region = \"us-east-1\" }}\n"
        );
        (issuer, None)
    });
    let shapes: BTreeMap<&str, &Cast> = cast.iter().map(|cast| (cast.name.as_str(), cast)).collect();
    for service in &mut policy.services {
        let cast = shapes[service.name.as_str()];
        service.issuer.shape = cast.shape;
        service.issuer.last_used_lag = cast.use_lag;
        // What only the real ports read is left out: a history copies it thousands of times.
        service.issuer.config = serde_json::Value::Null;
        for target in &mut service.targets {
            target.config = serde_json::Value::Null;
            if cast.is_signed(target.name.as_str()) {
                target.derived_by = Some(Box::new(IssuerSpec { kind: SIGNER.to_owned(), ..service.issuer.clone() }));
            }
        }
    }
    policy
}
