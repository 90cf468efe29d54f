//! Logging in: tokens, what they are bound to, how long they live, and the lock after five wrong passwords.

use std::collections::HashMap;
use std::net::IpAddr;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;

use super::reply::Outcome;
use super::site::Site;
use crate::http::Request;
use crate::{chance, form};

/// Wrong passwords within fifteen minutes that lock an account.
const TRIES: usize = 5;

struct Token {
    expires: DateTime<Utc>,
    bound: Bound,
}

enum Bound {
    /// The request's `Referer` must begin with this.
    Referer(String),
    Ip(IpAddr),
    Nothing,
}

#[derive(Default)]
pub(crate) struct Tokens {
    issued: HashMap<String, Token>,
    pub(crate) logins: Vec<bool>,
    /// Consecutive.
    wrong: Vec<DateTime<Utc>>,
    locked_until: Option<DateTime<Utc>>,
}

impl Tokens {
    pub(crate) fn expire_all(&mut self) {
        self.issued.clear();
    }

    pub(crate) fn unlock(&mut self) {
        self.locked_until = None;
        self.wrong.clear();
    }

    fn wrong_password(&mut self, now: DateTime<Utc>, lockout: TimeDelta) {
        self.wrong.retain(|at| *at > now - TimeDelta::minutes(15));
        self.wrong.push(now);
        if self.wrong.len() >= TRIES {
            self.locked_until = Some(now + lockout);
            self.wrong.clear();
        }
    }
}

/// `POST generateToken`: credentials in the body, never in the URL. A portal and a Server (`by_portal` is false) differ in what they
/// print, and a federated Server knows none of the portal's accounts.
pub(crate) fn generate(site: &mut Site, request: &Request, now: DateTime<Utc>, by_portal: bool) -> Outcome {
    if request.method != "POST" {
        return Outcome::error(405, "This request needs to be a POST request.");
    }
    let form = request.form();
    let field = |name| form::value(&form, name).filter(|value| !value.is_empty());
    let (Some(username), Some(password)) = (field("username"), field("password")) else {
        return Outcome::detailed(400, "Unable to generate token.", "'username' and 'password' must be specified.");
    };
    site.secrets.insert(password.to_owned());
    let bound = match (field("client"), field("referer"), field("ip")) {
        (Some("referer"), Some(referer), _) => Bound::Referer(referer.to_owned()),
        (Some("referer"), None, _) => {
            return Outcome::detailed(400, "Unable to generate token.", "'referer' must be specified.");
        }
        (Some("ip"), _, Some(ip)) => match ip.parse() {
            Ok(ip) => Bound::Ip(ip),
            Err(_) => return Outcome::detailed(400, "Unable to generate token.", "'ip' is not valid."),
        },
        (Some("requestip"), ..) => Bound::Ip(request.peer),
        (None, ..) => Bound::Nothing,
        (Some(_), ..) => return Outcome::detailed(400, "Unable to generate token.", "'client' is not valid."),
    };
    let minutes = match field("expiration").map(str::parse::<u32>) {
        None => 60,
        Some(Ok(minutes)) if minutes > 0 => minutes,
        Some(_) => return Outcome::detailed(400, "Unable to generate token.", "'expiration' is not valid."),
    };
    if let Err(refused) = check_password(site, username, password, now, by_portal) {
        return refused;
    }
    let minutes = minutes.min(site.options.token_minutes_max);
    let ttl = site.options.token_ttl.and_then(|ttl| TimeDelta::from_std(ttl).ok());
    let expires = now + ttl.unwrap_or(TimeDelta::minutes(i64::from(minutes)));
    let token = chance::token();
    site.tokens.logins.push(true);
    site.tokens.wrong.clear();
    site.secrets.insert(token.clone());
    site.tokens.issued.insert(token.clone(), Token { expires, bound });
    let at = expires.timestamp_millis();
    // Every sample of Server prints a string, every one of the portal a number.
    if by_portal {
        Outcome::json(json!({"token": token, "expires": at, "ssl": true}))
    } else {
        Outcome::json(json!({"token": token, "expires": at.to_string()}))
    }
}

/// A locked account refuses the right password too. The wording of the lock is ours; no document gives it.
fn check_password(
    site: &mut Site,
    username: &str,
    password: &str,
    now: DateTime<Utc>,
    by_portal: bool,
) -> Result<(), Outcome> {
    let known = username == site.options.username && by_portal == site.has_portal();
    let refused = if known && site.tokens.locked_until.is_some_and(|until| now < until) {
        "Too many invalid attempts. The account is locked. Please try again later."
    } else if known && password == site.options.password {
        return Ok(());
    } else {
        if known {
            let lockout = TimeDelta::from_std(site.options.lockout).unwrap_or(TimeDelta::MAX);
            site.tokens.wrong_password(now, lockout);
        }
        "Invalid username or password."
    };
    site.tokens.logins.push(false);
    if !by_portal {
        // As remembered from the admin directory; not in the stored documents.
        return Err(Outcome::error(401, format!("Failed to login. {refused}")));
    }
    Err(Outcome::detailed(400, "Unable to generate token.", refused))
}

/// Whether the request may pass: who asks is known, and may ask.
pub(crate) fn authorize(site: &Site, request: &Request, now: DateTime<Utc>) -> Result<(), Outcome> {
    identify(site, request, now)?;
    if !site.privileged {
        return Err(Outcome::error(403, "Token is valid but access is denied."));
    }
    Ok(())
}

/// Whether it is known who asks. A POST must carry its token in the body; a GET in a header or the query, never both ways at odds.
pub(crate) fn identify(site: &Site, request: &Request, now: DateTime<Utc>) -> Result<(), Outcome> {
    let missing = || {
        Outcome::error(
            499,
            "Unauthorized access. Token not found. You can generate a token using the 'generateToken' operation.",
        )
    };
    let token = if request.method == "POST" {
        form::value(&request.form(), "token").map(str::to_owned)
    } else {
        bearer(request).or_else(|| form::value(&form::pairs(&request.query), "token").map(str::to_owned))
    };
    let token = token.filter(|token| !token.is_empty()).ok_or_else(missing)?;
    let invalid = || Outcome::error(498, "Invalid Token.");
    let held = site.tokens.issued.get(&token).ok_or_else(invalid)?;
    if held.expires <= now {
        return Err(Outcome::error(498, "Token Expired."));
    }
    let bound = match &held.bound {
        Bound::Referer(referer) => request.header("referer").is_some_and(|sent| sent.starts_with(referer.as_str())),
        Bound::Ip(ip) => *ip == request.peer,
        Bound::Nothing => true,
    };
    // Of portal tokens a federated Server takes those for a web application only.
    let bound = bound && (!site.options.federated || matches!(held.bound, Bound::Referer(_)));
    if !bound {
        return Err(invalid());
    }
    Ok(())
}

fn bearer(request: &Request) -> Option<String> {
    ["x-esri-authorization", "authorization"]
        .iter()
        .find_map(|name| request.header(name)?.strip_prefix("Bearer ").map(|token| token.trim().to_owned()))
}
