//! What Azure Resource Manager tells a caller of its own rights, and of the locks in its way. Both are reads: they change nothing,
//! and neither says that an act will succeed. What a role gives stands in `roles`, not here.

use axum::http::Method;
use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::arm;
use super::state::State;
use super::wire::{Outcome, segments};
use crate::form;
use crate::http::Request;

/// What a path asks for.
#[derive(Clone)]
pub(crate) struct Asked {
    /// The subscription, the resource group, the resource or the rule it is asked of, as it was sent.
    scope: String,
    subscription: String,
    /// Empty where the scope is the subscription.
    group: String,
    /// The resource's name, a rule's too; empty where the scope has none.
    name: String,
    verb: Verb,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verb {
    Permissions,
    Locks,
}

impl Verb {
    fn collection(self) -> &'static str {
        match self {
            Self::Permissions => "permissions",
            Self::Locks => "locks",
        }
    }

    /// Versions of the API that the specifications name, not all there ever were.
    fn versions(self) -> &'static [&'static str] {
        match self {
            Self::Permissions => &["2015-07-01", "2018-07-01", "2022-04-01"],
            Self::Locks => &["2016-09-01", "2020-05-01"],
        }
    }
}

impl Asked {
    pub(crate) fn read(request: &Request) -> Option<Self> {
        let pieces = segments(&request.path);
        let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
        let is = |piece: &str, name: &str| piece.eq_ignore_ascii_case(name);
        let [ref scope @ .., providers, provider, collection] = *pieces.as_slice() else { return None };
        let verb = [Verb::Permissions, Verb::Locks].into_iter().find(|verb| is(collection, verb.collection()))?;
        if request.method != Method::GET || !is(providers, "providers") || !is(provider, "Microsoft.Authorization") {
            return None;
        }
        let (subscription, group, name) = match *scope {
            [subs, subscription] if is(subs, "subscriptions") => (subscription, "", ""),
            [subs, subscription, groups, group] if is(subs, "subscriptions") && is(groups, "resourceGroups") => {
                (subscription, group, "")
            }
            [subs, subscription, groups, group, providers, _, _, name, ..]
                if is(subs, "subscriptions") && is(groups, "resourceGroups") && is(providers, "providers") =>
            {
                (subscription, group, name)
            }
            _ => return None,
        };
        let (subscription, group, name) = (subscription.to_owned(), group.to_owned(), name.to_owned());
        Some(Self { scope: format!("/{}", scope.join("/")), subscription, group, name, verb })
    }

    pub(crate) fn operation(&self) -> &'static str {
        match self.verb {
            Verb::Permissions => "ListPermissions",
            Verb::Locks => "ListLocks",
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn execute(&self, request: &Request, state: &State, now: DateTime<Utc>) -> Outcome {
        self.serve(request, state, now).unwrap_or_else(|refusal| refusal).about(&self.name)
    }

    /// That the right to ask is a right like any other, and that nothing is told of a resource that is not there, is our choice.
    fn serve(&self, request: &Request, state: &State, now: DateTime<Utc>) -> Result<Outcome, Outcome> {
        let client_id = arm::authenticate(request, state, now)?;
        let query = form::pairs(&request.query);
        let version = form::value(&query, "api-version");
        arm::check_version(self.verb.collection(), self.verb.versions(), version)?;
        arm::check_subscription(&self.subscription, state)?;
        let right = format!("Microsoft.Authorization/{}/read", self.verb.collection());
        arm::check_right(&client_id, &right, &self.scope, state)?;
        arm::check_group(&self.group, state)?;
        if !self.name.is_empty() && !state.has(&self.scope) {
            let what = self.scope.split_once("/providers/").map_or("", |(_, what)| what);
            return Err(arm::not_found(what, &self.group));
        }
        let all = match self.verb {
            Verb::Permissions => permissions(state),
            Verb::Locks => locks(&self.scope, form::value(&query, "$filter"), state)?,
        };
        page(all, request, state)
    }
}

/// One element per role, as it was written: whoever wants to know whether a right is given has to look at all of them.
fn permissions(state: &State) -> Vec<Value> {
    // Rights of Graph are in the same set; they have no slash.
    let denied: Vec<&String> = state.denied.values().filter(|right| right.contains('/')).collect();
    let shown = state.roles.iter().map(|role| {
        let not: Vec<&String> = role.not_actions.iter().chain(denied.iter().copied()).collect();
        json!({"actions": role.actions, "notActions": not, "dataActions": [], "notDataActions": []})
    });
    shown.collect()
}

/// Those at the scope, above it and below it; with `atScope()` none below. That this filter means here what it means for role
/// assignments is our choice, and so is that every other is refused.
fn locks(scope: &str, filter: Option<&str>, state: &State) -> Result<Vec<Value>, Outcome> {
    if filter.is_some_and(|filter| !filter.eq_ignore_ascii_case("atScope()")) {
        let message = "The filter is not supported. Only 'atScope()' is.";
        return Err(Outcome::error(400, "UnsupportedQuery", message));
    }
    let within = |inner: &str, outer: &str| {
        let (inner, outer) = (inner.to_ascii_lowercase(), outer.to_ascii_lowercase());
        inner == outer || inner.starts_with(&format!("{outer}/"))
    };
    let shown = state.locks.iter().filter(|(at, _)| within(scope, at) || (filter.is_none() && within(at, scope))).map(
        |(at, level)| {
            json!({
                "id": format!("{at}/providers/Microsoft.Authorization/locks/keep"),
                "type": "Microsoft.Authorization/locks",
                "name": "keep",
                "properties": {"level": level.name()},
            })
        },
    );
    Ok(shown.collect())
}

/// A page of it, and where the next one is.
fn page(all: Vec<Value>, request: &Request, state: &State) -> Result<Outcome, Outcome> {
    let query = form::pairs(&request.query);
    let from = match form::value(&query, "$skiptoken") {
        None => 0,
        Some(token) => match token.parse::<usize>() {
            Ok(from) if from < all.len() => from,
            _ => return Err(Outcome::error(400, "InvalidSkipToken", "The skip token is not one of ours.")),
        },
    };
    let to = all.len().min(from + state.options.page_size.max(1));
    let mut shown = json!({ "value": all[from..to] });
    if to < all.len() {
        let kept = query.iter().filter(|(name, _)| name != "$skiptoken");
        let kept: Vec<String> = kept.map(|(name, value)| format!("{name}={}", form::encode(value))).collect();
        shown["nextLink"] = format!("{}{}?{}&$skiptoken={to}", state.arm_url, request.path, kept.join("&")).into();
    }
    Ok(Outcome::json(shown))
}
