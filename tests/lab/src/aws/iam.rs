//! The five IAM operations a rotation needs, and `GetUser`.

use base64::{Engine, engine::general_purpose::STANDARD};
use chrono::{DateTime, Utc};

use super::serve::{Call, Caller};
use super::state::{NoKey, State};
use super::wire::{Outcome, date};
use crate::xml::escape;

/// The caller is proven; whether it may is decided here.
pub(crate) fn execute(call: &Call, caller: &Caller, state: &mut State, now: DateTime<Utc>) -> Outcome {
    let action = call.value("Action").unwrap_or_default();
    let version = call.value("Version").unwrap_or_default();
    let known =
        ["CreateAccessKey", "ListAccessKeys", "UpdateAccessKey", "DeleteAccessKey", "GetAccessKeyLastUsed", "GetUser"];
    let lacking = action == "GetAccessKeyLastUsed" && !state.options.last_used;
    if version != "2010-05-08" || !known.contains(&action) || lacking {
        return Outcome::error(
            400,
            "InvalidAction",
            format!("Could not find operation {action} for version {version}"),
        );
    }
    let user = match call.value("UserName") {
        // Left out, it is the user whose key signed.
        None => caller.user.clone(),
        Some(user) if legal(user, 1, 128, "_+=,.@-") => user.to_owned(),
        Some(_) => return invalid("userName", "Member must satisfy regular expression pattern: [\\w+=,.@-]+"),
    };
    let about_key = action == "GetAccessKeyLastUsed";
    let resource = if about_key {
        format!("access key {}", call.value("AccessKeyId").unwrap_or_default())
    } else {
        format!("user {user}")
    };
    if let Err(denied) = authorize(caller, state, action, &resource) {
        return denied.about(&user);
    }
    let id = match (action, call.value("AccessKeyId")) {
        ("CreateAccessKey" | "ListAccessKeys" | "GetUser", _) => "",
        (_, Some(id)) if legal(id, 16, 128, "_") => id,
        (_, Some(_)) => {
            return invalid("accessKeyId", "Member must satisfy regular expression pattern: [\\w]+").about(&user);
        }
        (_, None) => return invalid("accessKeyId", "Member must not be null").about(&user),
    };
    if about_key {
        return last_used(state, id, now);
    }
    if !state.users.contains_key(&user) {
        let message = format!("The user with name {user} cannot be found.");
        return Outcome::error(404, "NoSuchEntity", message).about(&user);
    }
    match action {
        "CreateAccessKey" => create(state, &user, now),
        "ListAccessKeys" => list(call, state, &user, now),
        "UpdateAccessKey" => update(call, state, &user, id),
        "DeleteAccessKey" => delete(state, &user, id, now),
        _ => get_user(state, &user),
    }
    .about(&user)
}

/// Only `rotator` has rights in IAM, and what was denied it has not.
fn authorize(caller: &Caller, state: &State, action: &str, resource: &str) -> Result<(), Outcome> {
    let action = format!("iam:{action}");
    if caller.user == super::ADMIN && !state.is_denied(&action) {
        return Ok(());
    }
    let arn = state.user_arn(&caller.user);
    Err(Outcome::error(
        403,
        "AccessDenied",
        format!(
            "User: {arn} is not authorized to perform: {action} on resource: {resource} because no identity-based policy \
             allows the {action} action"
        ),
    ))
}

fn create(state: &mut State, user: &str, now: DateTime<Utc>) -> Outcome {
    match state.mint(user, now, false) {
        Ok((id, secret)) => {
            state.mints += 1;
            Outcome::result(
                "CreateAccessKey",
                format!(
                    "<AccessKey><UserName>{}</UserName><AccessKeyId>{id}</AccessKeyId><Status>Active</Status>\
                     <SecretAccessKey>{}</SecretAccessKey><CreateDate>{}</CreateDate></AccessKey>",
                    escape(user),
                    escape(&secret),
                    date(now)
                ),
            )
        }
        Err(NoKey::Quota(quota)) => {
            Outcome::error(409, "LimitExceeded", format!("Cannot exceed quota for AccessKeysPerUser: {quota}"))
        }
        Err(NoKey::NoSuchUser) => {
            Outcome::error(404, "NoSuchEntity", format!("The user with name {user} cannot be found."))
        }
    }
}

fn list(call: &Call, state: &State, user: &str, now: DateTime<Utc>) -> Outcome {
    let asked = match call.value("MaxItems").map(str::parse::<usize>) {
        None => state.options.page_size,
        Some(Ok(n)) if (1..=1000).contains(&n) => n.min(state.options.page_size),
        Some(_) => return invalid("maxItems", "Member must have value between 1 and 1000"),
    };
    // A marker names the last key of the page before; what is inside is nobody's business.
    let after = match call.value("Marker").map(|m| STANDARD.decode(m).ok().and_then(|m| String::from_utf8(m).ok())) {
        None => None,
        Some(Some(id)) if state.keys.iter().any(|key| key.id == id) => Some(id),
        Some(_) => return Outcome::error(400, "ValidationError", "Invalid Marker."),
    };
    let keys: Vec<_> = state.listed(user, now).collect();
    let start = after.and_then(|id| keys.iter().position(|key| key.id == id)).map_or(0, |at| at + 1);
    let page = &keys[start..keys.len().min(start + asked)];
    let members: String = page
        .iter()
        .map(|key| {
            format!(
                "<member><UserName>{}</UserName><AccessKeyId>{}</AccessKeyId><Status>{}</Status><CreateDate>{}</CreateDate></member>",
                escape(user),
                key.id,
                if key.active { "Active" } else { "Inactive" },
                date(key.created)
            )
        })
        .collect();
    let more = match page.last() {
        Some(last) if start + page.len() < keys.len() => {
            format!("<IsTruncated>true</IsTruncated><Marker>{}</Marker>", STANDARD.encode(&last.id))
        }
        _ => "<IsTruncated>false</IsTruncated>".to_owned(),
    };
    Outcome::result("ListAccessKeys", format!("<AccessKeyMetadata>{members}</AccessKeyMetadata>{more}"))
}

fn update(call: &Call, state: &mut State, user: &str, id: &str) -> Outcome {
    let active = match call.value("Status") {
        Some("Active") => true,
        Some("Inactive") => false,
        _ => return invalid("status", "Member must satisfy enum value set: [Active, Inactive]"),
    };
    match state.key(user, id) {
        None => no_key(id),
        Some(key) => {
            key.active = active;
            Outcome::done("UpdateAccessKey")
        }
    }
}

/// Deleting an active key is legal, as it is at AWS.
fn delete(state: &mut State, user: &str, id: &str, now: DateTime<Utc>) -> Outcome {
    match state.key(user, id) {
        None => no_key(id),
        Some(key) => {
            key.deleted = Some(now);
            Outcome::done("DeleteAccessKey")
        }
    }
}

/// A key never used has no date and says `N/A`. The document declares no error for an unknown key; we answer `NoSuchEntity`.
fn last_used(state: &State, id: &str, now: DateTime<Utc>) -> Outcome {
    let Some(key) = state.keys.iter().find(|key| key.id == id && key.deleted.is_none()) else {
        return no_key(id);
    };
    let used = match key.reported_use(now, state.options.last_used_lag) {
        None => "<ServiceName>N/A</ServiceName><Region>N/A</Region>".to_owned(),
        Some(used) => format!(
            "<LastUsedDate>{}</LastUsedDate><ServiceName>{}</ServiceName><Region>{}</Region>",
            date(used.at),
            used.service,
            used.region
        ),
    };
    let user = escape(&key.user);
    Outcome::result(
        "GetAccessKeyLastUsed",
        format!("<UserName>{user}</UserName><AccessKeyLastUsed>{used}</AccessKeyLastUsed>"),
    )
    .about(&key.user)
}

fn get_user(state: &State, name: &str) -> Outcome {
    let user = &state.users[name];
    Outcome::result(
        "GetUser",
        format!(
            "<User><Path>/</Path><UserName>{}</UserName><UserId>{}</UserId><Arn>{}</Arn><CreateDate>{}</CreateDate></User>",
            escape(name),
            user.id,
            escape(&state.user_arn(name)),
            date(user.created)
        ),
    )
}

fn no_key(id: &str) -> Outcome {
    Outcome::error(404, "NoSuchEntity", format!("The Access Key with id {id} cannot be found."))
}

fn invalid(member: &str, rule: &str) -> Outcome {
    let message = format!("1 validation error detected: Value at '{member}' failed to satisfy constraint: {rule}");
    Outcome::error(400, "ValidationError", message)
}

fn legal(text: &str, min: usize, max: usize, besides: &str) -> bool {
    (min..=max).contains(&text.len()) && text.chars().all(|c| c.is_ascii_alphanumeric() || besides.contains(c))
}
