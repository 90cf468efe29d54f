//! The data plane of Service Bus over HTTPS, as far as it proves a key: the list of queues, which is a read and changes nothing.
//!
//! It needs the Manage claim, and says so only to those whose signature is right: so it tells a wrong key from a right one whatever
//! the rule may do. Real namespaces each have a host of their own; here all of them share a port and each has a path of its own,
//! which the resource that a token is for begins with.

use aws_lc_rs::hmac;
use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, Method, Response};
use base64::{Engine, engine::general_purpose::STANDARD};
use chrono::{DateTime, Utc};

use super::AccountKind;
use super::state::{Account, State};
use super::wire::{Content, Outcome, segments};
use crate::http::{Request, answer};
use crate::xml::escape;
use crate::{chance, form};

/// What the management clients of Microsoft send; that another, or none, is refused is our choice.
const VERSIONS: [&str; 2] = ["2017-04", "2021-05"];

/// A list of a namespace.
#[derive(Clone)]
pub(crate) struct Asked {
    namespace: String,
    list: List,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum List {
    /// At the namespace itself: services anybody may know of. Everybody is answered, and so nothing is proven.
    Services,
    Queues,
}

impl Asked {
    pub(crate) fn read(request: &Request) -> Option<Self> {
        let is = |piece: &str, name: &str| piece.eq_ignore_ascii_case(name);
        let pieces = segments(&request.path);
        let (namespace, list) = match pieces.as_slice() {
            [namespace] => (namespace, List::Services),
            [namespace, resources, queues] if is(resources, "$Resources") && is(queues, "Queues") => {
                (namespace, List::Queues)
            }
            _ => return None,
        };
        (request.method == Method::GET).then(|| Self { namespace: namespace.clone(), list })
    }

    pub(crate) fn operation(&self) -> &'static str {
        match self.list {
            List::Services => "ListServices",
            List::Queues => "ListQueues",
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.namespace
    }

    pub(crate) fn execute(&self, request: &Request, state: &State, now: DateTime<Utc>) -> Outcome {
        self.serve(request, state, now).unwrap_or_else(|refusal| refusal).about(&self.namespace)
    }

    /// The token's shape, what it is for, who signed it, whether it is over, and only then what its rule may do. That last place is
    /// what was seen; the order of the others is our choice.
    fn serve(&self, request: &Request, state: &State, now: DateTime<Utc>) -> Result<Outcome, Outcome> {
        let of_namespace = |account: &&Account| {
            account.kind == AccountKind::ServiceBus && account.name.eq_ignore_ascii_case(&self.namespace)
        };
        let rules: Vec<&Account> = state.accounts.values().filter(of_namespace).collect();
        // In truth nobody would answer: there would be no such host.
        if rules.is_empty() {
            return Err(Outcome::error(404, "NotFound", "There is no such namespace."));
        }
        if self.list == List::Services {
            return Ok(feed("Publicly Listed Services"));
        }
        let query = form::pairs(&request.query);
        if !form::value(&query, "api-version").is_some_and(|version| VERSIONS.contains(&version)) {
            return Err(Outcome::error(400, "BadRequest", "The api-version is missing or not supported."));
        }
        let refuse = |message: &str| Outcome::error(401, "Unauthorized", message);
        let Some(header) = request.header("authorization") else {
            return Err(refuse("MissingToken: The authorization header was not found."));
        };
        if rules.iter().any(|rule| rule.keys_refused) {
            let message = "LocalAuthDisabled: Authorization failed because SAS authentication has been disabled for the namespace.";
            return Err(refuse(message));
        }
        let Some(token) = Token::parse(header) else {
            return Err(refuse("MalformedToken: The provided token is malformed or otherwise invalid."));
        };
        if !self.is_for(&token.resource, &state.service_bus_url) {
            return Err(refuse("InvalidAudience: The authorization header contains a token with a wrong audience."));
        }
        // That a name nobody has is told the same is our choice.
        let wrong = || refuse("InvalidSignature: The token has an invalid signature.");
        let rule = rules.into_iter().find(|rule| rule.rule == token.rule).ok_or_else(wrong)?;
        let lag = state.options.key_lag;
        let (slot, _) = rule.taken(now, lag).find(|(_, key)| token.is_signed_with(key)).ok_or_else(wrong)?;
        if token.expires <= now.timestamp() {
            let ended = DateTime::from_timestamp(token.expires, 0).unwrap_or_default();
            let message = format!(
                "ExpiredToken: The token is expired. Expiration time: '{}'.",
                ended.format("%m/%d/%Y %H:%M:%S")
            );
            return Err(refuse(&message).of_key(slot));
        }
        if !rule.rights.iter().any(|right| right == "Manage") {
            return Err(refuse("Manage,EntityRead claims required for this operation.").of_key(slot));
        }
        Ok(feed("Queues").of_key(slot))
    }

    /// A token is good for its resource and for all below it. Scheme and port are not compared: the documents sign with `http`,
    /// `https` and `sb`, and without a port.
    fn is_for(&self, resource: &str, url: &str) -> bool {
        let Some((scheme, rest)) = resource.split_once("://") else { return false };
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let host = |authority: &str| authority.split(':').next().unwrap_or_default().to_ascii_lowercase();
        let ours = url.split_once("://").map_or(url, |(_, authority)| authority);
        let asked = [self.namespace.as_str(), "$Resources", "Queues"];
        let named = segments(path);
        ["http", "https", "sb"].contains(&scheme.to_ascii_lowercase().as_str())
            && host(authority) == host(ours)
            && (1..=asked.len()).contains(&named.len())
            && named.iter().zip(asked).all(|(named, asked)| named.eq_ignore_ascii_case(asked))
    }
}

/// A Shared Access Signature.
struct Token {
    /// As it was sent, escaped, which is how it is signed.
    escaped: String,
    resource: String,
    signature: String,
    expiry: String,
    expires: i64,
    rule: String,
}

impl Token {
    /// Four parts in any order. That a resource which is not escaped is refused is our choice: the document wants it so.
    fn parse(header: &str) -> Option<Self> {
        let rest = header.strip_prefix("SharedAccessSignature ")?;
        let parts: Vec<(&str, &str)> = rest.split('&').map(|part| part.split_once('=')).collect::<Option<_>>()?;
        let part = |name: &str| {
            let mut found = parts.iter().filter(|(n, _)| *n == name).map(|(_, value)| *value);
            found.next().filter(|value| !value.is_empty() && found.next().is_none())
        };
        let (escaped, signature, expiry, rule) = (part("sr")?, part("sig")?, part("se")?, part("skn")?);
        if parts.len() != 4 || escaped.contains(['/', ':']) {
            return None;
        }
        Some(Self {
            escaped: escaped.to_owned(),
            resource: form::decode(escaped, true),
            signature: form::decode(signature, false),
            expiry: expiry.to_owned(),
            expires: expiry.parse().ok()?,
            rule: form::decode(rule, true),
        })
    }

    /// With the key as the text it is: nobody decodes its Base64 here.
    fn is_signed_with(&self, key: &str) -> bool {
        let key = hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes());
        let signed = hmac::sign(&key, format!("{}\n{}", self.escaped, self.expiry).as_bytes());
        STANDARD.encode(signed) == self.signature
    }
}

/// A status that has no reason in the request, in its words.
pub(crate) fn failure(status: u16) -> Outcome {
    let message = match status {
        429 | 503 => {
            "SubCode=50004. The request was terminated because the namespace is being throttled. Please wait and try again."
        }
        _ => "SubCode=50000. Internal Server Error.",
    };
    Outcome::error(status, "Failed", message)
}

/// A list without entries: its title is all there is.
fn feed(title: &str) -> Outcome {
    Outcome::json(title.into())
}

/// XML, with what support will ask for behind every refusal.
pub(crate) fn into_response(outcome: Outcome, asked: &Request) -> Response<Body> {
    let now = Utc::now();
    let (kind, body) = match *outcome.content {
        Content::Error(_, message, _) => {
            let names = segments(&asked.path);
            let (namespace, entity) = names.split_first().map_or(("", ""), |(first, _)| (first, "$Resources/Queues"));
            let detail = format!(
                "{message} TrackingId:{}_G4, SystemTracker:{namespace}.servicebus.windows.net:{entity}, Timestamp:{}",
                chance::request_id(),
                now.format("%Y-%m-%dT%H:%M:%S")
            );
            let body = format!("<Error><Code>{}</Code><Detail>{}</Detail></Error>", outcome.status, escape(&detail));
            ("application/xml; charset=utf-8", body)
        }
        Content::Json(title) => {
            let title = title.as_str().unwrap_or_default();
            let url = escape(&format!("{}?{}", asked.path, asked.query));
            let body = format!(
                "<feed xmlns=\"http://www.w3.org/2005/Atom\"><title type=\"text\">{title}</title><id>{url}</id>\
                 <updated>{}Z</updated><link rel=\"self\" href=\"{url}\"/></feed>",
                now.format("%Y-%m-%dT%H:%M:%S")
            );
            ("application/atom+xml;type=feed;charset=utf-8", body)
        }
        // Nothing else is answered here.
        _ => ("application/xml; charset=utf-8", String::new()),
    };
    let mut response = answer(outcome.status, kind, body);
    for (name, text) in outcome.headers {
        let value = HeaderValue::from_str(&text).expect("our own headers are legal");
        response.headers_mut().insert(HeaderName::from_static(name), value);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Computed with another library: Python's hmac over `http%3a%2f%2fcontoso.servicebus.windows.net%2f\n1438205742`.
    #[test]
    fn a_token_is_signed_as_it_is_sent_and_with_the_text_of_the_key() {
        let header = "SharedAccessSignature sr=http%3a%2f%2fcontoso.servicebus.windows.net%2f&sig=aooMifoM2EmHy4YiltwjGRExsfgYLkt7wLjyOmmDhuU%3D&se=1438205742&skn=root";
        let token = Token::parse(header).expect("a token");
        assert_eq!((token.resource.as_str(), token.expires), ("http://contoso.servicebus.windows.net/", 1_438_205_742));
        assert!(token.is_signed_with("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="));
        assert!(!token.is_signed_with("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh9="));
    }
}
