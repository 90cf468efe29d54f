//! What the tenant and the subscription hold. No wire here: names, times and rules.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Bytes;
use chrono::{DateTime, Months, TimeDelta, Utc};

use super::roles::{APP_ROLES, AppRole, AzureRole, covers};
use super::{AccountKind, AzureOptions, PasswordView, RegeneratedKey, SlotView};
use crate::faults::FaultQueue;
use crate::{RequestLine, chance};

/// Who is told of each new account key.
pub(crate) type Hook = Arc<dyn Fn(&RegeneratedKey) + Send + Sync>;

#[derive(Clone)]
pub(crate) struct Password {
    pub(crate) key_id: String,
    pub(crate) secret: String,
    pub(crate) display_name: Option<String>,
    pub(crate) start: DateTime<Utc>,
    pub(crate) end: DateTime<Utc>,
    /// When it was really made, whatever its start says.
    pub(crate) added: DateTime<Utc>,
    /// Made in the portal: nobody waits for it.
    pub(crate) by_human: bool,
    pub(crate) removed: Option<DateTime<Utc>>,
    /// Logins tried since it is known somewhere.
    logins: u32,
}

impl Password {
    pub(crate) fn view(&self) -> PasswordView {
        PasswordView {
            key_id: self.key_id.clone(),
            display_name: self.display_name.clone(),
            start: self.start,
            end: self.end,
        }
    }

    /// Whether Graph shows it: not the young, but the lately removed.
    pub(crate) fn listed(&self, now: DateTime<Utc>, lag: Duration) -> bool {
        let seen = self.by_human || self.added + delta(lag) <= now;
        seen && self.removed.is_none_or(|at| at + delta(lag) > now)
    }

    /// Whether the replica that is asked now knows it: while it settles, every second one does not.
    fn reached(&mut self, now: DateTime<Utc>, options: &AzureOptions) -> bool {
        if self.removed.is_some_and(|at| at + delta(options.removal_lag) <= now) {
            return false;
        }
        let known = self.added + delta(options.propagation);
        if self.by_human || known + delta(options.settling) <= now {
            return true;
        }
        if known > now {
            return false;
        }
        self.logins += 1;
        self.logins % 2 == 1
    }
}

/// What the token endpoint thinks of a secret.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Login {
    /// By the password with this key id.
    Good(String),
    Expired(String),
    Unknown,
}

#[derive(Clone)]
pub(crate) struct Application {
    pub(crate) object_id: String,
    /// Also called appId.
    pub(crate) client_id: String,
    /// The object id of its service principal: who it is where it owns something or has a role.
    pub(crate) principal_id: String,
    pub(crate) display_name: String,
    /// The rotator is an owner of it.
    pub(crate) owned: bool,
    /// Assertions of somebody else are taken instead of a secret.
    pub(crate) federated: bool,
    pub(crate) passwords_max: Option<usize>,
    /// Oldest first; removed ones stay, because replicas lag.
    pub(crate) passwords: Vec<Password>,
}

impl Application {
    pub(crate) fn living(&self) -> impl Iterator<Item = &Password> {
        self.passwords.iter().filter(|password| password.removed.is_none())
    }

    pub(crate) fn login(&mut self, secret: &str, now: DateTime<Utc>, options: &AzureOptions) -> Login {
        let Some(password) = self.passwords.iter_mut().find(|password| password.secret == secret) else {
            return Login::Unknown;
        };
        // What Entra says before the start is not documented; it is no right secret then.
        if !password.reached(now, options) || password.start > now {
            return Login::Unknown;
        }
        match password.end <= now {
            true => Login::Expired(password.key_id.clone()),
            false => Login::Good(password.key_id.clone()),
        }
    }
}

/// One of the keys an account always has.
#[derive(Clone)]
pub(crate) struct Slot {
    pub(crate) name: &'static str,
    pub(crate) value: String,
    /// As shown; `None` where Azure does not know it.
    pub(crate) created: Option<DateTime<Utc>>,
    /// When the value it had before went, and that value, for as long as a front end may still take it.
    previous: Option<(DateTime<Utc>, String)>,
}

impl Slot {
    fn new(name: &'static str, kind: AccountKind, now: DateTime<Utc>) -> Self {
        Self { name, value: kind.new_key(), created: Some(now), previous: None }
    }

    pub(crate) fn view(&self) -> SlotView {
        SlotView { name: self.name.to_owned(), value: self.value.clone(), created: self.created }
    }

    /// The one value the data plane takes for this slot now.
    fn taken(&self, now: DateTime<Utc>, lag: Duration) -> &str {
        match &self.previous {
            Some((gone, previous)) if *gone + delta(lag) > now => previous,
            _ => &self.value,
        }
    }
}

/// What a storage account asks of those who use its keys. It is shown, and here nobody is refused for it.
#[derive(Clone, Default)]
pub(crate) struct KeyRules {
    pub(crate) expiration_days: Option<u32>,
    /// `DD.HH:MM:SS`, and `Log` or `Block`.
    pub(crate) sas: Option<(String, String)>,
}

/// Something that was stored, and the mark of this version of it.
#[derive(Clone)]
pub(crate) struct Stored<T> {
    pub(crate) content: T,
    pub(crate) modified: DateTime<Utc>,
    pub(crate) etag: String,
}

impl<T> Stored<T> {
    pub(crate) fn new(content: T, now: DateTime<Utc>) -> Self {
        Self { content, modified: now, etag: chance::etag() }
    }
}

/// Blobs by name.
pub(crate) type Container = Stored<BTreeMap<String, Stored<Bytes>>>;

#[derive(Clone)]
pub(crate) struct Account {
    /// The ARM id, in the spelling Azure shows.
    pub(crate) id: String,
    pub(crate) kind: AccountKind,
    /// Of the storage account, the Cosmos DB account, the Service Bus namespace.
    pub(crate) name: String,
    /// The authorization rule; empty where there is none.
    pub(crate) rule: String,
    /// What a rule of a Service Bus may do: `Listen`, `Send`, `Manage`.
    pub(crate) rights: Vec<String>,
    /// `allowSharedKeyAccess = false`, `disableLocalAuth = true`.
    pub(crate) keys_refused: bool,
    /// Somebody has set `allowSharedKeyAccess`; until then Azure does not show it, and means true.
    pub(crate) keys_decided: bool,
    /// It has kerb1 and kerb2 too.
    pub(crate) kerberos: bool,
    /// Since when there is the account, or the namespace the rule stands in; `None` where Azure does not show it.
    pub(crate) created: Option<DateTime<Utc>>,
    /// What Cosmos DB calls this account and no other, not even its successor under the same name.
    pub(crate) instance_id: String,
    pub(crate) key_rules: KeyRules,
    pub(crate) slots: Vec<Slot>,
    /// Of a storage account.
    pub(crate) containers: BTreeMap<String, Container>,
}

impl Account {
    pub(crate) fn new(id: String, kind: AccountKind, name: &str, rule: &str, now: DateTime<Utc>) -> Self {
        Self {
            id,
            kind,
            name: name.to_owned(),
            rule: rule.to_owned(),
            rights: ["Listen", "Send"].map(str::to_owned).to_vec(),
            keys_refused: false,
            keys_decided: false,
            kerberos: false,
            created: Some(now),
            instance_id: chance::request_id(),
            key_rules: KeyRules::default(),
            slots: kind.slots().iter().map(|slot| Slot::new(slot, kind, now)).collect(),
            containers: BTreeMap::new(),
        }
    }

    /// Rules of one namespace share what is the namespace's; every other account stands alone.
    pub(crate) fn stands_with(&self, other: &Account) -> bool {
        !self.rule.is_empty() && self.kind == other.kind && self.name.eq_ignore_ascii_case(&other.name)
    }

    /// Slots that this account has, Kerberos ones only where they were asked for.
    pub(crate) fn usable(&self) -> impl Iterator<Item = &Slot> {
        self.slots.iter().filter(|slot| self.kerberos || !slot.name.starts_with("kerb"))
    }

    pub(crate) fn slot(&self, name: &str) -> Option<&Slot> {
        self.usable().find(|slot| slot.name == name)
    }

    /// Slots and the keys that the data plane takes for them now, whether or not it takes keys at all. A Kerberos key opens nothing
    /// there.
    pub(crate) fn taken(&self, now: DateTime<Utc>, lag: Duration) -> impl Iterator<Item = (&'static str, &str)> {
        let keys = self.slots.iter().filter(|slot| !slot.name.starts_with("kerb"));
        keys.map(move |slot| (slot.name, slot.taken(now, lag)))
    }

    /// Whether this key opens the data plane now.
    pub(crate) fn works(&self, key: &str, now: DateTime<Utc>, lag: Duration) -> bool {
        !self.keys_refused && self.taken(now, lag).any(|(_, taken)| taken == key)
    }
}

/// A bearer token, as it was handed out.
pub(crate) struct Token {
    pub(crate) client_id: String,
    pub(crate) audience: String,
    pub(crate) expires: DateTime<Utc>,
}

/// A regeneration that Cosmos DB took on and answered with 202.
#[derive(Clone)]
pub(crate) struct Operation {
    pub(crate) id: String,
    pub(crate) account: String,
    pub(crate) slot: String,
    pub(crate) ended: Option<Ended>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    Succeeded,
    Failed,
}

/// What a management lock keeps from happening.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum LockLevel {
    ReadOnly,
    CanNotDelete,
}

impl LockLevel {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::ReadOnly => "ReadOnly",
            Self::CanNotDelete => "CanNotDelete",
        }
    }
}

pub(crate) struct State {
    pub(crate) options: AzureOptions,
    /// The address ARM is asked at, for the addresses it answers with.
    pub(crate) arm_url: String,
    /// Where blobs are read.
    pub(crate) blob_url: String,
    /// Where Cosmos DB is asked for data.
    pub(crate) cosmos_url: String,
    /// Where Service Bus is.
    pub(crate) service_bus_url: String,
    /// The rotator's client id.
    pub(crate) rotator: String,
    /// By object id.
    pub(crate) applications: BTreeMap<String, Application>,
    /// By ARM id in lower case: ids are compared without regard to case.
    pub(crate) accounts: BTreeMap<String, Account>,
    pub(crate) tokens: BTreeMap<String, Token>,
    pub(crate) operations: Vec<Operation>,
    pub(crate) operations_fail: bool,
    /// What the rotator is given at the subscription.
    pub(crate) roles: Vec<AzureRole>,
    /// What it is given in Graph, and since when.
    pub(crate) app_roles: Vec<(&'static AppRole, DateTime<Utc>)>,
    /// Taken away, whatever is given: as it was written, by its lower case.
    pub(crate) denied: BTreeMap<String, String>,
    /// Applications without the right to read data, by their client ids in lower case.
    pub(crate) data_denied: BTreeSet<String>,
    /// By scope.
    pub(crate) locks: BTreeMap<String, LockLevel>,
    /// Object ids of a user who owns every application, and of Graph's own service principal.
    pub(crate) human: String,
    pub(crate) graph_principal: String,
    pub(crate) faults: FaultQueue,
    pub(crate) date_skew: TimeDelta,
    pub(crate) down: bool,
    pub(crate) requests: Vec<RequestLine>,
    pub(crate) hook: Option<Hook>,
    /// Passwords made by `addPassword`.
    pub(crate) mints: usize,
    /// Slots that were given a new value over the wire.
    pub(crate) regenerations: usize,
    /// The secret of each password there ever was, by key id; survives removal and [`super::Azure::restore`].
    pub(crate) secrets: BTreeMap<String, String>,
    /// Every account key there ever was.
    pub(crate) keys: Vec<String>,
    /// When the directory was last written to, over the wire.
    pub(crate) directory_written: Option<DateTime<Utc>>,
    /// Writes that may still be asked for, and when that was true.
    writes_left: Option<(f64, DateTime<Utc>)>,
}

impl State {
    pub(crate) fn new(options: AzureOptions, arm_url: String) -> Self {
        Self {
            options,
            arm_url,
            blob_url: String::new(),
            cosmos_url: String::new(),
            service_bus_url: String::new(),
            rotator: String::new(),
            applications: BTreeMap::new(),
            accounts: BTreeMap::new(),
            tokens: BTreeMap::new(),
            operations: Vec::new(),
            operations_fail: false,
            roles: vec![AzureRole::everything()],
            app_roles: vec![(&APP_ROLES[0], Utc::now())],
            denied: BTreeMap::new(),
            data_denied: BTreeSet::new(),
            locks: BTreeMap::new(),
            human: chance::request_id(),
            graph_principal: chance::request_id(),
            faults: FaultQueue::default(),
            date_skew: TimeDelta::zero(),
            down: false,
            requests: Vec::new(),
            hook: None,
            mints: 0,
            regenerations: 0,
            secrets: BTreeMap::new(),
            keys: Vec::new(),
            directory_written: None,
            writes_left: None,
        }
    }

    /// A new application: its object id and its client id.
    pub(crate) fn add_application(&mut self, display_name: &str) -> (String, String) {
        let (object_id, client_id) = (chance::request_id(), chance::request_id());
        let application = Application {
            object_id: object_id.clone(),
            client_id: client_id.clone(),
            principal_id: chance::request_id(),
            display_name: display_name.to_owned(),
            owned: true,
            federated: false,
            passwords_max: None,
            passwords: Vec::new(),
        };
        self.applications.insert(object_id.clone(), application);
        (object_id, client_id)
    }

    pub(crate) fn by_client_id(&mut self, client_id: &str) -> Option<&mut Application> {
        self.applications.values_mut().find(|app| app.client_id.eq_ignore_ascii_case(client_id))
    }

    /// A new password; without an end it lasts two years from its start, as the document says.
    ///
    /// # Panics
    /// If there is no such application.
    pub(crate) fn add_password(
        &mut self,
        object_id: &str,
        display_name: Option<String>,
        (start, end): (Option<DateTime<Utc>>, Option<DateTime<Utc>>),
        now: DateTime<Utc>,
        by_human: bool,
    ) -> Password {
        let start = start.unwrap_or(now);
        let password = Password {
            key_id: chance::request_id(),
            secret: chance::client_secret(),
            display_name,
            start,
            end: end.unwrap_or(default_end(start)),
            added: now,
            by_human,
            removed: None,
            logins: 0,
        };
        self.secrets.insert(password.key_id.clone(), password.secret.clone());
        let application = self.applications.get_mut(object_id).expect("the application was looked up before");
        application.passwords.push(password.clone());
        password
    }

    pub(crate) fn add_account(&mut self, mut account: Account) -> String {
        let id = account.id.clone();
        if let Some(sibling) = self.accounts.values().find(|other| other.stands_with(&account)) {
            (account.created, account.keys_refused) = (sibling.created, sibling.keys_refused);
        }
        self.keys.extend(account.slots.iter().map(|slot| slot.value.clone()));
        self.accounts.insert(id.to_ascii_lowercase(), account);
        id
    }

    pub(crate) fn account(&mut self, id: &str) -> Option<&mut Account> {
        self.accounts.get_mut(&id.to_ascii_lowercase())
    }

    /// The storage account with this name: names are the world's, not a resource group's.
    pub(crate) fn storage_account(&self, name: &str) -> Option<&Account> {
        self.accounts.values().find(|account| account.kind == AccountKind::Storage && account.name == name)
    }

    /// Gives a slot a new value, at once. What it held opens nothing from now on, but where a front end lags.
    pub(crate) fn regenerate(
        &mut self,
        id: &str,
        slot: &str,
        value: Option<String>,
        now: DateTime<Utc>,
    ) -> Option<RegeneratedKey> {
        let account = self.accounts.get_mut(&id.to_ascii_lowercase())?;
        let value = value.unwrap_or_else(|| account.kind.new_key());
        let slot = account.slots.iter_mut().find(|s| s.name == slot)?;
        slot.previous = Some((now, std::mem::replace(&mut slot.value, value.clone())));
        slot.created = Some(now);
        self.keys.push(value.clone());
        Some(RegeneratedKey { account: account.id.clone(), slot: slot.name.to_owned(), value, created: now })
    }

    /// Deletes an account, a rule, or a namespace with its rules, and makes it again under its id; the new keys.
    pub(crate) fn recreate(&mut self, id: &str, now: DateTime<Utc>) -> Vec<RegeneratedKey> {
        let id = id.to_ascii_lowercase();
        let below = format!("{id}/authorizationrules/");
        let mut keys = Vec::new();
        for (key, account) in self.accounts.iter_mut().filter(|(key, _)| **key == id || key.starts_with(&below)) {
            let new = Account::new(account.id.clone(), account.kind, &account.name, &account.rule, now);
            // A rule made again stands in the namespace that was there before.
            let stays = *key == id && !account.rule.is_empty();
            *account = match stays {
                true => Account { created: account.created, keys_refused: account.keys_refused, ..new },
                false => new,
            };
            // Nobody goes on with what is gone.
            let open = self.operations.iter_mut().filter(|op| op.account == account.id && op.ended.is_none());
            open.for_each(|operation| operation.ended = Some(Ended::Failed));
            self.keys.extend(account.slots.iter().map(|slot| slot.value.clone()));
            keys.extend(account.usable().map(|slot| RegeneratedKey {
                account: account.id.clone(),
                slot: slot.name.to_owned(),
                value: slot.value.clone(),
                created: now,
            }));
        }
        keys
    }

    /// Ends the operation, once.
    pub(crate) fn finish(&mut self, id: &str, now: DateTime<Utc>) -> Option<RegeneratedKey> {
        let failing = self.operations_fail;
        let operation = self.operations.iter_mut().find(|op| op.id == id)?;
        if operation.ended.is_some() {
            return None;
        }
        operation.ended = Some(if failing { Ended::Failed } else { Ended::Succeeded });
        if failing {
            return None;
        }
        let (account, slot) = (operation.account.clone(), operation.slot.clone());
        self.regenerations += 1;
        self.regenerate(&account, &slot, None, now)
    }

    fn is_denied(&self, right: &str) -> bool {
        self.denied.values().any(|pattern| covers(pattern, right))
    }

    /// Whether ARM gives the rotator this right.
    pub(crate) fn may(&self, right: &str) -> bool {
        !self.is_denied(right) && self.roles.iter().any(|role| role.gives(right))
    }

    /// What Graph gives the rotator.
    pub(crate) fn app_roles(&self) -> impl Iterator<Item = (&'static AppRole, DateTime<Utc>)> {
        self.app_roles.iter().copied().filter(|(role, _)| !self.is_denied(role.name))
    }

    pub(crate) fn has_app_role(&self, name: &str) -> bool {
        self.app_roles().any(|(role, _)| role.name == name)
    }

    /// Whether there is such an account or rule, or a namespace with rules.
    pub(crate) fn has(&self, id: &str) -> bool {
        let id = id.to_ascii_lowercase();
        let below = format!("{id}/");
        self.accounts.keys().any(|key| *key == id || key.starts_with(&below))
    }

    /// The scope whose ReadOnly lock covers this resource.
    pub(crate) fn lock_over(&self, id: &str) -> Option<&String> {
        let id = id.to_ascii_lowercase();
        let mut locks = self.locks.iter().filter(|(_, level)| **level == LockLevel::ReadOnly);
        let over = locks.find(|(scope, _)| {
            let scope = scope.to_ascii_lowercase();
            id == scope || id.starts_with(&format!("{scope}/"))
        });
        over.map(|(scope, _)| scope)
    }

    /// Takes one write out of the bucket; how many seconds to wait where it is empty.
    pub(crate) fn take_write(&mut self, now: DateTime<Utc>) -> Result<(), u32> {
        let Some(limit) = self.options.write_limit else { return Ok(()) };
        let full = f64::from(limit.bucket);
        let (left, since) = self.writes_left.unwrap_or((full, now));
        let passed = (now - since).as_seconds_f64().max(0.0);
        let left = (left + passed * f64::from(limit.refill_per_second)).min(full);
        let taken = left >= 1.0;
        self.writes_left = Some((if taken { left - 1.0 } else { left }, now));
        if taken { Ok(()) } else { Err(1) }
    }
}

fn default_end(start: DateTime<Utc>) -> DateTime<Utc> {
    start.checked_add_months(Months::new(24)).unwrap_or(DateTime::<Utc>::MAX_UTC)
}

/// A panic in one request of a test must not hide the state from the next.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn delta(d: Duration) -> TimeDelta {
    TimeDelta::from_std(d).unwrap_or(TimeDelta::MAX)
}
