//! Azure Resource Manager, as far as account keys go: storage accounts, Cosmos DB accounts, rules of Service Bus namespaces.

use axum::http::Method;
use base64::{Engine, engine::general_purpose::STANDARD};
use chrono::{DateTime, Utc};
use serde_json::{Map, Value, json};

use super::AccountKind;
use super::state::{Account, Ended, Operation, Slot, State};
use super::wire::{Outcome, bearer, instant, object, segments};
use crate::http::Request;
use crate::{chance, form};

const LOCATION: &str = "westeurope";

/// The four spellings that are right, in the words of the refusal.
const AUDIENCES: [&str; 4] = [
    "https://management.core.windows.net/",
    "https://management.core.windows.net",
    "https://management.azure.com/",
    "https://management.azure.com",
];

/// What a path asks for.
#[derive(Clone)]
pub(crate) struct Asked {
    kind: AccountKind,
    subscription: String,
    /// Empty where the path has none.
    group: String,
    name: String,
    rule: String,
    verb: Verb,
}

#[derive(Clone, PartialEq, Eq)]
enum Verb {
    Get,
    ListKeys,
    Regenerate,
    Status(String),
    Result(String),
}

impl Asked {
    pub(crate) fn read(request: &Request) -> Option<Self> {
        let pieces = segments(&request.path);
        let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
        let is = |piece: &str, name: &str| piece.eq_ignore_ascii_case(name);
        let kind_of = |provider: &str| AccountKind::ALL.into_iter().find(|kind| is(provider, kind.provider()));
        match *pieces.as_slice() {
            [subs, subscription, providers, provider, locations, _, statuses, id]
                if is(subs, "subscriptions")
                    && is(providers, "providers")
                    && is(locations, "locations")
                    && is(statuses, "operationsStatus") =>
            {
                let kind = kind_of(provider).filter(|kind| *kind == AccountKind::Cosmos)?;
                let (group, name, rule) = Default::default();
                let verb = Verb::Status(id.to_owned());
                Some(Self { kind, subscription: subscription.to_owned(), group, name, rule, verb })
            }
            [subs, subscription, groups, group, providers, provider, collection, name, ref rest @ ..]
                if is(subs, "subscriptions") && is(groups, "resourceGroups") && is(providers, "providers") =>
            {
                let kind = kind_of(provider).filter(|kind| is(collection, kind.collection()))?;
                let (rule, rest) = match rest {
                    [rules, rule, rest @ ..] if kind == AccountKind::ServiceBus && is(rules, "authorizationRules") => {
                        (*rule, rest)
                    }
                    rest => ("", rest),
                };
                let has_keys = kind != AccountKind::ServiceBus || !rule.is_empty();
                let verb = match (&request.method, rest) {
                    (&Method::GET, []) => Verb::Get,
                    (&Method::GET, [results, id]) if kind == AccountKind::Cosmos && is(results, "operationResults") => {
                        Verb::Result((*id).to_owned())
                    }
                    (&Method::POST, [action]) if has_keys && is(action, "listKeys") => Verb::ListKeys,
                    (&Method::POST, [action]) if has_keys && is(action, kind.regeneration().0) => Verb::Regenerate,
                    _ => return None,
                };
                let (group, name, rule) = (group.to_owned(), name.to_owned(), rule.to_owned());
                Some(Self { kind, subscription: subscription.to_owned(), group, name, rule, verb })
            }
            _ => None,
        }
    }

    pub(crate) fn operation(&self) -> &'static str {
        match self.verb {
            Verb::Get => "GetAccount",
            Verb::ListKeys => "ListKeys",
            Verb::Regenerate => "RegenerateKey",
            Verb::Status(_) => "OperationStatus",
            Verb::Result(_) => "OperationResult",
        }
    }

    pub(crate) fn is_storage(&self) -> bool {
        self.kind == AccountKind::Storage
    }

    /// The account's, or the namespace's.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    fn id(&self) -> String {
        let suffix = self.kind.suffix(&self.name, &self.rule);
        format!("/subscriptions/{}/resourceGroups/{}{suffix}", self.subscription, self.group)
    }

    fn right(&self) -> String {
        let (provider, collection) = (self.kind.provider(), self.kind.collection());
        match self.verb {
            Verb::Get if self.rule.is_empty() => format!("{provider}/{collection}/read"),
            Verb::Get => self.kind.right("read"),
            Verb::ListKeys => self.kind.right("listKeys/action"),
            Verb::Regenerate => self.kind.right(&format!("{}/action", self.kind.regeneration().0)),
            Verb::Status(_) => format!("{provider}/locations/operationsStatus/read"),
            Verb::Result(_) => format!("{provider}/{collection}/operationResults/read"),
        }
    }

    /// The front door first: token, version, subscription, throttle, right, group, lock. Only then the resource's own provider. The
    /// documents do not give the order; that a right is missed before a resource is follows from what ARM says to strangers.
    pub(crate) fn execute(&self, request: &Request, state: &mut State, now: DateTime<Utc>) -> Outcome {
        match self.admit(request, state, now).and_then(|()| self.serve(request, state, now)) {
            Ok(outcome) | Err(outcome) => outcome,
        }
        .about(&self.name)
    }

    fn admit(&self, request: &Request, state: &mut State, now: DateTime<Utc>) -> Result<(), Outcome> {
        // Before anything is looked at, as every front door of Azure does it: Azure/azure-sdk-for-rust issue 166.
        let announced = ["content-length", "transfer-encoding"].iter().any(|name| request.header(name).is_some());
        if request.method == Method::POST && !announced {
            let message = "The request must be chunked or have a content length.";
            return Err(Outcome::error(411, "LengthRequired", message));
        }
        let client_id = authenticate(request, state, now)?;
        let query = form::pairs(&request.query);
        check_version(self.kind.collection(), self.kind.versions(), form::value(&query, "api-version"))?;
        check_subscription(&self.subscription, state)?;
        if request.method == Method::POST {
            state.take_write(now).map_err(|seconds| {
                let message = format!(
                    "Number of write requests for subscription '{}' exceeded the limit. Please try again after '{seconds}' seconds.",
                    self.subscription
                );
                Outcome::error(429, "SubscriptionRequestsThrottled", message).header("retry-after", seconds)
            })?;
        }
        let id = self.id();
        check_right(&client_id, &self.right(), &id, state)?;
        check_group(&self.group, state)?;
        match state.lock_over(&id) {
            // Listing keys is a POST too: azure-rest-api-specs issue 6363.
            Some(scope) if request.method == Method::POST => {
                let message = format!(
                    "The scope '{id}' cannot perform write operation because following scope(s) are locked: '{scope}'. Please remove \
                     the lock and try again."
                );
                Err(Outcome::error(409, "ScopeLocked", message))
            }
            _ => Ok(()),
        }
    }

    fn serve(&self, request: &Request, state: &mut State, now: DateTime<Utc>) -> Result<Outcome, Outcome> {
        match &self.verb {
            Verb::Status(id) => return self.status(id, state),
            Verb::Result(id) => return self.result(id, state),
            Verb::Get | Verb::ListKeys | Verb::Regenerate => {}
        }
        let id = self.id().to_ascii_lowercase();
        let namespace = format!("{id}/");
        let account = match state.accounts.get(&id) {
            // A namespace is there as soon as it has a rule.
            None if self.kind == AccountKind::ServiceBus && self.rule.is_empty() => {
                state.accounts.iter().find(|(rule, _)| rule.starts_with(&namespace)).map(|(_, account)| account)
            }
            found => found,
        };
        let Some(account) = account.cloned() else {
            let what = self.kind.suffix(&self.name, &self.rule).replacen("/providers/", "", 1);
            return Err(not_found(&what, &self.group));
        };
        match self.verb {
            Verb::Regenerate => self.regenerate(request, &account, state, now),
            Verb::ListKeys => list_keys(request, &account),
            _ => Ok(Outcome::json(show(&account, &self.rule, &self.id(), state))),
        }
    }

    fn regenerate(
        &self,
        request: &Request,
        account: &Account,
        state: &mut State,
        now: DateTime<Utc>,
    ) -> Result<Outcome, Outcome> {
        let body = object(request)?;
        let member = self.kind.regeneration().1;
        let slot = body.get(member).and_then(Value::as_str).and_then(|name| account.slot(name)).map(|slot| slot.name);
        // Storage has this code in its list; the others' list none for it, and we say the least.
        let Some(slot) = slot else {
            let (code, message) = match self.kind {
                AccountKind::Storage => (
                    "InvalidValuesForRequestParameters",
                    format!("Values for request parameters are invalid: {member}."),
                ),
                AccountKind::Cosmos | AccountKind::ServiceBus => {
                    ("BadRequest", format!("The value of the parameter '{member}' is missing or is not known."))
                }
            };
            return Err(Outcome::error(400, code, message));
        };
        let value = match (self.kind, body.get("key")) {
            (AccountKind::ServiceBus, Some(key)) if !key.is_null() => Some(own_key(key)?),
            _ => None,
        };
        if self.kind == AccountKind::Cosmos && state.options.cosmos_work.is_some() {
            return self.take_on(account, slot, state);
        }
        let regenerated = state.regenerate(&account.id, slot, value, now);
        state.regenerations += 1;
        let account = state.account(&account.id).cloned().unwrap_or_else(|| account.clone());
        let mut outcome = match self.kind {
            AccountKind::Cosmos => Outcome::done(200),
            AccountKind::Storage | AccountKind::ServiceBus => Outcome::json(keys(&account, account.kerberos)),
        };
        outcome.regenerated = regenerated.map(Box::new);
        Ok(outcome.of_key(slot))
    }

    /// Cosmos DB answers 202 and goes on; one change at a time (terraform-provider-azurerm issue 15842 for the refusal).
    fn take_on(&self, account: &Account, slot: &str, state: &mut State) -> Result<Outcome, Outcome> {
        if state.operations.iter().any(|op| op.account == account.id && op.ended.is_none()) {
            let message = format!(
                "There is already an operation in progress which requires exclusive lock on this service {}. Please retry the \
                 operation after sometime.",
                account.name
            );
            return Err(Outcome::error(412, "PreconditionFailed", message));
        }
        let work = state.options.cosmos_work.unwrap_or_default();
        let id = chance::request_id();
        state.operations.push(Operation {
            id: id.clone(),
            account: account.id.clone(),
            slot: slot.to_owned(),
            ended: None,
        });
        let (arm, subscription) = (&state.arm_url, &self.subscription);
        let version = self.kind.versions()[1];
        let status = format!(
            "{arm}/subscriptions/{subscription}/providers/Microsoft.DocumentDB/locations/{LOCATION}/operationsStatus/{id}\
             ?api-version={version}"
        );
        let result = format!("{arm}{}/operationResults/{id}?api-version={version}", account.id);
        let mut outcome = Outcome::json(json!({"status": "Enqueued"}))
            .header("azure-asyncoperation", status)
            .header("location", result)
            .header("retry-after", work.as_secs());
        outcome.status = 202;
        outcome.goes_on = Some(id);
        Ok(outcome.of_key(slot))
    }

    /// What `Azure-AsyncOperation` leads to: always 200, and a word.
    fn status(&self, id: &str, state: &State) -> Result<Outcome, Outcome> {
        let operation = find(id, state)?;
        let status = match operation.ended {
            None => json!({"status": "Dequeued"}),
            Some(Ended::Succeeded) => json!({"status": "Succeeded"}),
            Some(Ended::Failed) => json!({"status": "Failed", "error": failure()}),
        };
        Ok(Outcome::json(status).of_key(&operation.slot))
    }

    /// What `Location` leads to: 202 until it is over.
    fn result(&self, id: &str, state: &State) -> Result<Outcome, Outcome> {
        let operation = find(id, state)?;
        match operation.ended {
            None => {
                let mut outcome = Outcome::json(json!({"status": "Dequeued"})).of_key(&operation.slot);
                outcome.status = 202;
                let here = format!(
                    "{}{}/operationResults/{id}?api-version={}",
                    state.arm_url,
                    operation.account,
                    self.kind.versions()[1]
                );
                Ok(outcome.header("location", here))
            }
            Some(Ended::Succeeded) => Ok(Outcome::done(200).of_key(&operation.slot)),
            Some(Ended::Failed) => {
                let failure = failure();
                let word = |name: &str| failure[name].as_str().unwrap_or_default().to_owned();
                Err(Outcome::error(500, word("code"), word("message")).of_key(&operation.slot))
            }
        }
    }
}

fn find<'a>(id: &str, state: &'a State) -> Result<&'a Operation, Outcome> {
    let found = state.operations.iter().find(|operation| operation.id == id);
    found.ok_or_else(|| Outcome::error(404, "NotFound", "The operation was not found."))
}

/// Why it failed is nowhere documented.
fn failure() -> Value {
    json!({"code": "InternalServerError", "message": "The key could not be regenerated."})
}

/// Who is asking.
pub(crate) fn authenticate(request: &Request, state: &State, now: DateTime<Utc>) -> Result<String, Outcome> {
    let refuse = |code: &str, message: String| {
        let authority = format!(
            "Bearer authorization_uri=\"https://login.windows.net/{}\", error=\"invalid_token\"",
            state.options.tenant_id
        );
        Outcome::error(401, code, message).header("www-authenticate", authority)
    };
    if request.header("authorization").is_none() {
        let message = "Authentication failed. The 'Authorization' header is missing.";
        return Err(refuse("AuthenticationFailed", message.to_owned()));
    }
    let Some(token) = bearer(request).and_then(|text| state.tokens.get(text)) else {
        return Err(refuse("InvalidAuthenticationToken", "The access token is invalid.".to_owned()));
    };
    if !AUDIENCES.contains(&token.audience.as_str()) {
        let message = format!(
            "The access token has been obtained for wrong audience or resource '{}'. It should exactly match with one of the allowed \
             audiences '{}'.",
            token.audience,
            AUDIENCES.join("','")
        );
        return Err(refuse("InvalidAuthenticationTokenAudience", message));
    }
    if token.expires <= now {
        let message = format!(
            "The access token expiry UTC time '{}' is earlier than current UTC time '{}'.",
            token.expires.format("%-m/%-d/%Y %-I:%M:%S %p"),
            now.format("%-m/%-d/%Y %-I:%M:%S %p")
        );
        return Err(refuse("ExpiredAuthenticationToken", message));
    }
    Ok(token.client_id.clone())
}

pub(crate) fn check_version(collection: &str, versions: &[&str], version: Option<&str>) -> Result<(), Outcome> {
    match version {
        None | Some("") => {
            let message = "The api-version query parameter (?api-version=) is required for all requests.";
            Err(Outcome::error(400, "MissingApiVersionParameter", message))
        }
        Some(version) if versions.contains(&version) => Ok(()),
        Some(version) => {
            let message = format!(
                "No registered resource provider found for location '{LOCATION}' and API version '{version}' for type '{collection}'. The \
                 supported api-versions are '{}'. The supported locations are '{LOCATION}'.",
                versions.join(", ")
            );
            Err(Outcome::error(400, "NoRegisteredProviderFound", message))
        }
    }
}

pub(crate) fn check_subscription(subscription: &str, state: &State) -> Result<(), Outcome> {
    if subscription.eq_ignore_ascii_case(&state.options.subscription_id) {
        return Ok(());
    }
    let message = format!("The subscription '{subscription}' could not be found.");
    Err(Outcome::error(404, "SubscriptionNotFound", message))
}

pub(crate) fn check_right(client_id: &str, right: &str, scope: &str, state: &State) -> Result<(), Outcome> {
    if client_id == state.rotator && state.may(right) {
        return Ok(());
    }
    let principal = state.applications.values().find(|app| app.client_id == client_id);
    let object_id = principal.map_or("", |app| &app.principal_id);
    let message = format!(
        "The client '{client_id}' with object id '{object_id}' does not have authorization to perform action '{right}' over scope \
         '{scope}' or the scope is invalid. If access was recently granted, please refresh your credentials."
    );
    Err(Outcome::error(403, "AuthorizationFailed", message))
}

/// A scope without a group is not asked for one.
pub(crate) fn check_group(group: &str, state: &State) -> Result<(), Outcome> {
    if group.is_empty() || group.eq_ignore_ascii_case(&state.options.resource_group) {
        return Ok(());
    }
    let message = format!("Resource group '{group}' could not be found.");
    Err(Outcome::error(404, "ResourceGroupNotFound", message))
}

pub(crate) fn not_found(what: &str, group: &str) -> Outcome {
    let message = format!(
        "The Resource '{what}' under resource group '{group}' was not found. For more details please go to \
         https://aka.ms/ARMResourceNotFoundFix"
    );
    Outcome::error(404, "ResourceNotFound", message)
}

fn list_keys(request: &Request, account: &Account) -> Result<Outcome, Outcome> {
    let query = form::pairs(&request.query);
    let kerberos = match (account.kind, form::value(&query, "$expand")) {
        (AccountKind::Storage, Some("kerb")) => account.kerberos,
        (AccountKind::Storage, Some(_)) => {
            let message = "Values for request parameters are invalid: $expand.";
            return Err(Outcome::error(400, "InvalidValuesForRequestParameters", message));
        }
        _ => false,
    };
    Ok(Outcome::json(keys(account, kerberos)))
}

/// Every kind has its own shape for the same thing.
fn keys(account: &Account, kerberos: bool) -> Value {
    let slots = &account.slots;
    let value = |name: &str| slots.iter().find(|slot| slot.name == name).map_or("", |slot| slot.value.as_str());
    match account.kind {
        AccountKind::Storage => {
            let shown = slots.iter().filter(|slot| kerberos || !slot.name.starts_with("kerb"));
            json!({ "keys": shown.map(storage_key).collect::<Vec<_>>() })
        }
        AccountKind::Cosmos => json!({
            "primaryMasterKey": value("primary"),
            "secondaryMasterKey": value("secondary"),
            "primaryReadonlyMasterKey": value("primaryReadonly"),
            "secondaryReadonlyMasterKey": value("secondaryReadonly"),
        }),
        AccountKind::ServiceBus => {
            let connection = |name: &str| {
                format!(
                    "Endpoint=sb://{}.servicebus.windows.net/;SharedAccessKeyName={};SharedAccessKey={}",
                    account.name,
                    account.rule,
                    value(name)
                )
            };
            json!({
                "primaryConnectionString": connection("PrimaryKey"),
                "secondaryConnectionString": connection("SecondaryKey"),
                "primaryKey": value("PrimaryKey"),
                "secondaryKey": value("SecondaryKey"),
                "keyName": account.rule,
            })
        }
    }
}

fn storage_key(slot: &Slot) -> Value {
    json!({
        "creationTime": slot.created.map(instant),
        "keyName": slot.name,
        "value": slot.value,
        "permissions": "FULL",
    })
}

/// The account without its keys. A namespace and its rules are told apart by `rule`; of Service Bus nobody learns when a key was made.
fn show(account: &Account, rule: &str, id: &str, state: &State) -> Value {
    let created = |name: &str| account.slot(name).and_then(|slot| slot.created).map(instant);
    let (name, kind) = (&account.name, account.kind);
    let full = format!("{}/{}", kind.provider(), kind.collection());
    match kind {
        AccountKind::Storage => {
            let mut shown = json!({
                "id": account.id, "name": name, "type": full, "location": LOCATION, "kind": "StorageV2",
                "sku": {"name": "Standard_LRS", "tier": "Standard"},
                "properties": {
                    "provisioningState": "Succeeded",
                    "keyCreationTime": {"key1": created("key1"), "key2": created("key2")},
                    "primaryEndpoints": {"blob": format!("{}/{name}/", state.blob_url)},
                },
            });
            // What nobody has set is not there.
            let rules = &account.key_rules;
            let maybe = [
                ("creationTime", account.created.map(|at| instant(at).into())),
                ("allowSharedKeyAccess", account.keys_decided.then(|| (!account.keys_refused).into())),
                ("keyPolicy", rules.expiration_days.map(|days| json!({"keyExpirationPeriodInDays": days}))),
                (
                    "sasPolicy",
                    rules
                        .sas
                        .as_ref()
                        .map(|(period, action)| json!({"sasExpirationPeriod": period, "expirationAction": action})),
                ),
            ];
            for (member, value) in maybe {
                if let Some(value) = value {
                    shown["properties"][member] = value;
                }
            }
            shown
        }
        AccountKind::Cosmos => {
            let mut metadata = Map::new();
            for slot in &account.slots {
                let member = match slot.name.strip_suffix("Readonly") {
                    Some(which) => format!("{which}ReadonlyMasterKey"),
                    None => format!("{}MasterKey", slot.name),
                };
                metadata.insert(member, json!({"generationTime": slot.created.map(instant)}));
            }
            json!({
                "id": account.id, "name": name, "type": full, "location": LOCATION, "kind": "GlobalDocumentDB",
                "properties": {
                    "provisioningState": "Succeeded",
                    "documentEndpoint": format!("{}/{name}/", state.cosmos_url),
                    "disableLocalAuth": account.keys_refused,
                    "instanceId": account.instance_id,
                    "keysMetadata": metadata,
                },
            })
        }
        AccountKind::ServiceBus if rule.is_empty() => json!({
            "id": id, "name": name, "type": full, "location": LOCATION,
            "sku": {"name": "Standard", "tier": "Standard"},
            "properties": {
                "provisioningState": "Succeeded",
                "status": "Active",
                "createdAt": account.created.map(instant),
                "disableLocalAuth": account.keys_refused,
                "serviceBusEndpoint": format!("{}/{name}/", state.service_bus_url),
            },
        }),
        AccountKind::ServiceBus => json!({
            "id": account.id, "name": account.rule, "type": format!("{full}/authorizationRules"), "location": LOCATION,
            "properties": {"rights": account.rights},
        }),
    }
}

/// A value the caller brings for a Service Bus key: 256 bits in Base64.
fn own_key(key: &Value) -> Result<String, Outcome> {
    let text = key.as_str().unwrap_or_default();
    match STANDARD.decode(text) {
        Ok(raw) if raw.len() == 32 => Ok(text.to_owned()),
        _ => Err(Outcome::error(400, "BadRequest", "The key must be 256 bits in Base64.")),
    }
}
