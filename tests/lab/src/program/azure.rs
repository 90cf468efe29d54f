//! The Azure of the program: `rekeyd-lab azure`, alone, and the one that the pair's services use. And what is done to it from outside.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use rekeyd_lab::{Azure, AzureOptions, AzurePorts, SlotView};
use serde::Deserialize;
use serde_json::{Value, json};

use super::arguments::{AzureArguments, AzureHolds};
use super::{Lab, keep};

/// The stand-in, and the names of what it started with.
#[derive(Clone)]
pub(super) struct Tenant {
    pub(super) azure: Azure,
    subscription_id: String,
    resource_group: String,
    accounts: Vec<Account>,
    applications: Vec<Application>,
}

#[derive(Clone)]
struct Account {
    /// Of the control endpoint: of a rule of a Service Bus `NAMESPACE/RULE`.
    name: String,
    /// Its ARM id.
    id: String,
    containers: Vec<String>,
}

#[derive(Clone)]
struct Application {
    name: String,
    object_id: String,
    client_id: String,
}

pub(super) async fn start(arguments: &AzureArguments) -> std::io::Result<Lab> {
    let dir = arguments.dir.clone();
    std::fs::create_dir_all(&dir)?;
    let tenant = Tenant::start(arguments.ports(), arguments.options(), &arguments.holds(), &dir).await?;
    Ok(Lab { aws: None, azure: Some(tenant), sites: Vec::new(), dir, control_port: arguments.control_port })
}

impl Tenant {
    /// Starts it, fills it, and keeps in `dir` what a client needs.
    pub(super) async fn start(
        ports: AzurePorts,
        options: AzureOptions,
        holds: &AzureHolds,
        dir: &Path,
    ) -> std::io::Result<Self> {
        let (subscription_id, resource_group) = (options.subscription_id.clone(), options.resource_group.clone());
        let azure = Azure::start_on(ports, options).await?;
        let (client_id, secret) = azure.admin();
        keep(dir, "azure-client-id", &client_id)?;
        keep(dir, "azure-client-secret", &secret)?;
        if let Some(pem) = azure.ca_pem() {
            keep(dir, "azure-ca.pem", &pem)?;
        }
        let mut accounts = Vec::new();
        for (name, containers) in &holds.accounts {
            let id = azure.add_storage_account(name);
            containers.iter().for_each(|container| azure.add_container(&id, container));
            accounts.push(Account { name: name.clone(), id, containers: containers.clone() });
        }
        let bare = |name: &str, id| Account { name: name.to_owned(), id, containers: Vec::new() };
        accounts.extend(holds.cosmos.iter().map(|name| bare(name, azure.add_cosmos_account(name))));
        accounts.extend(holds.rules.iter().map(|(namespace, rule)| {
            bare(&format!("{namespace}/{rule}"), azure.add_service_bus_rule(namespace, rule))
        }));
        let mut applications = Vec::new();
        for name in &holds.applications {
            let (object_id, client_id) = azure.add_application(name);
            let (_, secret) = azure.create_password(&object_id, "the first one");
            keep(dir, &secret_file(name), &secret)?;
            applications.push(Application { name: name.clone(), object_id, client_id });
        }
        Ok(Self { azure, subscription_id, resource_group, accounts, applications })
    }

    /// The key in a slot of an account it started with.
    pub(super) fn key(&self, account: &str, slot: &str) -> String {
        let account = self.account(account).expect("the account is one of those it started with");
        self.azure.slot(&account.id, slot).value
    }

    pub(super) fn introduction(&self) -> String {
        let azure = &self.azure;
        let Self { subscription_id, resource_group, .. } = self;
        let mut said = String::new();
        let mut line = |text: String| writeln!(said, "{text}").expect("a String takes every write");
        line(format!(
            "entra       {}  (for login.microsoftonline.com; tenant {})",
            azure.authority_url(),
            azure.tenant_id()
        ));
        line(format!(
            "arm         {}  (for management.azure.com; subscription {subscription_id}, resource group {resource_group})",
            azure.arm_url()
        ));
        line(format!("graph       {}  (for graph.microsoft.com)", azure.graph_url()));
        line(format!(
            "blob        {}  (for ACCOUNT.blob.core.windows.net: the account comes first in the path)",
            azure.blob_url()
        ));
        let (rotator, _) = azure.admin();
        line(format!("            application rotator, client id {rotator}: has every right and owns the others"));
        for Application { name, object_id, client_id } in &self.applications {
            line(format!("            application {name}, client id {client_id}, object id {object_id}"));
        }
        for Account { name, id, containers } in &self.accounts {
            let containers: String = containers.iter().map(|container| format!(", container {container}")).collect();
            line(format!("            account {name}{containers}: {id}"));
        }
        said
    }

    /// Keys by their slots and passwords by their ids: nothing of this is secret.
    pub(super) fn show(&self) -> Value {
        let azure = &self.azure;
        let slot = |slot: SlotView| json!({ "name": slot.name, "created": slot.created });
        let account = |account: &Account| {
            let slots: Vec<Value> = azure.slots(&account.id).into_iter().map(slot).collect();
            json!({ "name": account.name, "id": account.id, "containers": account.containers, "slots": slots })
        };
        let application = |app: &Application| {
            json!({
                "name": app.name, "object_id": app.object_id, "client_id": app.client_id,
                "passwords": azure.passwords(&app.object_id),
            })
        };
        json!({
            "authority_url": azure.authority_url(), "arm_url": azure.arm_url(), "graph_url": azure.graph_url(),
            "blob_url": azure.blob_url(), "tenant_id": azure.tenant_id(), "subscription_id": self.subscription_id,
            "accounts": self.accounts.iter().map(account).collect::<Vec<_>>(),
            "applications": self.applications.iter().map(application).collect::<Vec<_>>(),
            "mints": azure.mints(), "regenerations": azure.regenerations(), "requests": azure.requests(),
        })
    }

    pub(super) fn count(&self) -> String {
        let (requests, azure) = (self.azure.requests().len(), &self.azure);
        let (regenerations, mints) = (azure.regenerations(), azure.mints());
        format!("azure {requests} requests, {regenerations} keys regenerated, {mints} passwords added")
    }

    fn account(&self, name: &str) -> Option<&Account> {
        self.accounts.iter().find(|account| account.name == name)
    }
}

fn secret_file(application: &str) -> String {
    format!("{application}-client-secret")
}

/// What Azure is from now on, and what somebody does in its portal. What is not named stays.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Change {
    down: Option<bool>,
    fail_operations: Option<bool>,
    deny: Option<String>,
    allow: Option<String>,
    lock: Option<String>,
    unlock: Option<String>,
    date_skew_s: Option<i32>,
    propagation_ms: Option<u64>,
    settling_ms: Option<u64>,
    removal_lag_ms: Option<u64>,
    listing_lag_ms: Option<u64>,
    key_lag_ms: Option<u64>,
    /// Which the next two are about.
    account: Option<String>,
    regenerate: Option<String>,
    keys_allowed: Option<bool>,
    /// Which the next four are about.
    application: Option<String>,
    add_password: bool,
    remove_password: Option<String>,
    data_allowed: Option<bool>,
    owned: Option<bool>,
}

impl Change {
    /// All of it or, where something is not there, nothing. Returns the id of a password that was added.
    pub(super) fn apply(&self, tenant: &Tenant, dir: &Path) -> Result<Option<String>, String> {
        let account = self.account(tenant)?;
        let application = self.application(tenant)?;
        let azure = &tenant.azure;
        self.turn(azure);
        if let Some(account) = account {
            self.keys_allowed.into_iter().for_each(|yes| azure.allow_keys(&account.id, yes));
            if let Some(slot) = &self.regenerate {
                azure.regenerate(&account.id, slot);
            }
        }
        let Some(Application { name, object_id, client_id }) = application else { return Ok(None) };
        match self.data_allowed {
            Some(true) => azure.allow_data(client_id),
            Some(false) => azure.deny_data(client_id),
            None => {}
        }
        self.owned.into_iter().for_each(|yes| azure.set_owned(object_id, yes));
        if let Some(key_id) = &self.remove_password {
            azure.remove_password(object_id, key_id);
        }
        if !self.add_password {
            return Ok(None);
        }
        let (key_id, secret) = azure.create_password(object_id, "by hand");
        keep(dir, &secret_file(name), &secret).map_err(|why| format!("keeping the secret: {why}"))?;
        Ok(Some(key_id))
    }

    /// What is about no account and no application.
    fn turn(&self, azure: &Azure) {
        self.down.into_iter().for_each(|yes| azure.down(yes));
        self.fail_operations.into_iter().for_each(|yes| azure.fail_operations(yes));
        self.deny.iter().for_each(|right| azure.deny(right));
        self.allow.iter().for_each(|right| azure.allow(right));
        self.lock.iter().for_each(|scope| azure.lock(scope));
        self.unlock.iter().for_each(|scope| azure.unlock(scope));
        let seconds = |skew| chrono::Duration::seconds(i64::from(skew));
        self.date_skew_s.into_iter().for_each(|skew| azure.set_date_skew(seconds(skew)));
        azure.set_options(|options| {
            let set = |wish: Option<u64>, time: &mut Duration| *time = wish.map_or(*time, Duration::from_millis);
            set(self.propagation_ms, &mut options.propagation);
            set(self.settling_ms, &mut options.settling);
            set(self.removal_lag_ms, &mut options.removal_lag);
            set(self.listing_lag_ms, &mut options.listing_lag);
            set(self.key_lag_ms, &mut options.key_lag);
        });
    }

    fn account<'t>(&self, tenant: &'t Tenant) -> Result<Option<&'t Account>, String> {
        let Some(name) = &self.account else {
            let about_one = self.regenerate.is_some() || self.keys_allowed.is_some();
            return if about_one { Err("this needs an account".to_owned()) } else { Ok(None) };
        };
        let account = tenant.account(name).ok_or_else(|| format!("no account {name}"))?;
        let has = |slot: &String| tenant.azure.slots(&account.id).iter().any(|one| one.name == *slot);
        match self.regenerate.as_ref().filter(|slot| !has(slot)) {
            Some(slot) => Err(format!("account {name} has no slot {slot}")),
            None => Ok(Some(account)),
        }
    }

    fn application<'t>(&self, tenant: &'t Tenant) -> Result<Option<&'t Application>, String> {
        let Some(name) = &self.application else {
            let about_one = self.add_password
                || self.remove_password.is_some()
                || self.data_allowed.is_some()
                || self.owned.is_some();
            return if about_one { Err("this needs an application".to_owned()) } else { Ok(None) };
        };
        let found = tenant.applications.iter().find(|application| application.name == *name);
        let application = found.ok_or_else(|| format!("no application {name}"))?;
        let has = |id: &String| tenant.azure.passwords(&application.object_id).iter().any(|one| one.key_id == *id);
        match self.remove_password.as_ref().filter(|id| !has(id)) {
            Some(id) => Err(format!("application {name} has no password {id}")),
            None => Ok(Some(application)),
        }
    }
}
