//! What an ArcGIS answer means, whatever its HTTP status: 200 carries errors in two envelopes, HTML pages, and JSON that is none.
//!
//! Judges only. Who asked decides what to do: the same 500 is worth another look after a GET and an unknown outcome after a POST.

use std::time::Duration;

use serde_json::Value;
use zeroize::Zeroizing;

use crate::model::Reason;
use crate::net::client::Answer;
use crate::net::redact::Redactor;
use crate::ports::Fault;

/// An answer, judged.
pub enum Verdict {
    /// JSON without an error around it. (A job may still have failed inside.)
    Good(Value),
    /// A success by status that is not JSON: a page, or the malformed reply the documents print.
    Text(Zeroizing<Vec<u8>>),
    /// The other side, or something in between, did not do what was asked.
    Complaint(Complaint),
}

/// An answer that is no success.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Complaint {
    /// What kind.
    pub meaning: Meaning,
    /// What it said, fit for a message: status, code, words.
    pub said: String,
    /// Whether ArcGIS said it, in one of its envelopes, and not a front end with a page.
    pub in_envelope: bool,
    /// How long it asks us to wait.
    pub retry_after: Option<Duration>,
}

/// What an answer that is no success comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// The token is missing, unknown or over (498, 499, and the 401 of some front ends): nothing was done.
    Token,
    /// The token is good and its owner may not.
    Denied,
    /// Not now: throttled, read-only, another operation holds the site. Nothing was done.
    Busy,
    /// ArcGIS itself knows no such resource or operation.
    Absent,
    /// Something answered 404 with a page: ArcGIS, or a web adaptor whose server is not there yet.
    PageAbsent,
    /// A redirect.
    Moved {
        /// The server says that it is so for good.
        permanent: bool,
    },
    /// It broke on the way (5xx, the 408 of a proxy that waited too long for one side or the other, a status nobody uses), or led
    /// elsewhere for the outcome (302, 303): what was done is not said.
    Broken,
    /// It will not do it.
    Refused,
}

/// Judges an answer. Everything kept of its words has passed `redactor`.
pub fn judge(answer: Answer, redactor: &Redactor) -> Verdict {
    let Answer { status, location, retry_after, body, .. } = answer;
    let complain =
        |meaning, said, in_envelope| Verdict::Complaint(Complaint { meaning, said, in_envelope, retry_after });
    if (300..400).contains(&status) {
        let towards = location.map_or_else(|| "nowhere".to_owned(), |location| redactor.clean(&location));
        let meaning = match status {
            // After a POST these may say "done; look there".
            302 | 303 => Meaning::Broken,
            _ => Meaning::Moved { permanent: matches!(status, 301 | 308) },
        };
        return complain(meaning, format!("status {status}, a redirect to {towards}"), false);
    }
    let good_status = (200..300).contains(&status);
    match serde_json::from_slice::<Value>(&body) {
        Ok(value) => match error_of(&value) {
            Some(error) => {
                let said = redactor.clean(&error.text);
                let code = error.code.unwrap_or(if good_status { 0 } else { i64::from(status) });
                let shown = if code == 0 { format!("status {status}") } else { format!("code {code}") };
                let said = if said.is_empty() { shown } else { format!("{shown}, \"{said}\"") };
                complain(meaning(code, &error.text), said, true)
            }
            // Strings and numbers are JSON too, and no answer of ArcGIS.
            None if good_status && value.is_object() => Verdict::Good(value),
            None if good_status => Verdict::Text(body),
            None => complain(meaning_of_status(status), format!("status {status}"), false),
        },
        Err(_) if good_status => Verdict::Text(body),
        Err(_) => {
            let meaning = match meaning_of_status(status) {
                Meaning::Absent => Meaning::PageAbsent,
                other => other,
            };
            complain(meaning, format!("status {status} without JSON"), false)
        }
    }
}

/// An error as either envelope carries it.
#[derive(Debug, PartialEq, Eq)]
pub struct EnvelopeError {
    /// 498, 499, 400, 403, 500, …
    pub code: Option<i64>,
    /// All that was said, in one line; not yet fit for a message.
    pub text: String,
}

/// The error around an answer, if there is one: `{"error":{code,message,details}}` (portal, Kubernetes),
/// `{"status":"error","messages":[…],"code"}` (Server), both mixed, or `{"success":false}`.
pub fn error_of(value: &Value) -> Option<EnvelopeError> {
    let error = value.get("error").filter(|error| is_said(error));
    let state = value.get("status").and_then(Value::as_str);
    let status = state.is_some_and(|status| status.eq_ignore_ascii_case("error"));
    // A job that tells of its own failure is an answer, and no error of the asking.
    if value.get("jobid").is_some() && state.is_some() && !status {
        return None;
    }
    if error.is_none() && !status && value.get("success") != Some(&Value::Bool(false)) {
        return None;
    }
    let code = [error.and_then(|error| error.get("code")), value.get("code")].into_iter().flatten().find_map(number);
    let mut words = Vec::new();
    for place in [error, Some(value)].into_iter().flatten() {
        collect(place, &mut words);
    }
    Some(EnvelopeError { code, text: words.join("; ") })
}

/// What an object says of itself in `message`, `messages`, `details`, `description`, each once.
pub fn messages(value: &Value) -> String {
    let mut words = Vec::new();
    collect(value, &mut words);
    words.join("; ")
}

fn collect(value: &Value, words: &mut Vec<String>) {
    let mut add = |text: &str| {
        let text = text.trim();
        if !text.is_empty() && !words.iter().any(|known| known == text) {
            words.push(text.to_owned());
        }
    };
    if let Value::String(text) = value {
        return add(text);
    }
    for key in ["message", "messages", "details", "description"] {
        match value.get(key) {
            Some(Value::String(text)) => add(text),
            Some(Value::Array(texts)) => texts.iter().filter_map(Value::as_str).for_each(&mut add),
            _ => {}
        }
    }
}

/// A code may come as a number or as text.
fn number(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_str()?.trim().parse().ok())
}

/// `null`, `false`, `0`, `""` and `{}` say that there is no error.
pub fn is_said(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !text.trim().is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::Bool(true) => true,
    }
}

/// Words come before codes where a code alone misleads: a site lock is told with a 500, a missing privilege with a 499.
fn meaning(code: i64, text: &str) -> Meaning {
    let text = text.to_lowercase();
    if text.contains("access is denied") || text.contains("token is valid but") {
        return Meaning::Denied;
    }
    if is_maintenance(&text) {
        return Meaning::Busy;
    }
    match code {
        401 | 498 | 499 => Meaning::Token,
        403 => Meaning::Denied,
        404 => Meaning::Absent,
        429 => Meaning::Busy,
        408 | 500..=599 => Meaning::Broken,
        _ => Meaning::Refused,
    }
}

/// A status that no standard knows says nothing of what was done.
fn meaning_of_status(status: u16) -> Meaning {
    if (300..600).contains(&status) { meaning(i64::from(status), "") } else { Meaning::Broken }
}

/// Seen in the wild: "Another administrative operation is currently accessing the store. Please try again later.", "… Site currently
/// being configured by another administrative operation." The wording of read-only mode is not documented.
pub fn is_maintenance(text: &str) -> bool {
    let text = text.to_lowercase();
    ["another administrative operation", "read-only mode", "read only mode", "already in progress", "try again later"]
        .iter()
        .any(|words| text.contains(words))
}

impl Complaint {
    /// Whether it says in words that something is not there, under whatever code: no document gives the answer for a lost job.
    pub fn says_not_found(&self) -> bool {
        let said = self.said.to_lowercase();
        self.in_envelope
            && matches!(self.meaning, Meaning::Refused | Meaning::Broken)
            && ["not found", "could not find", "does not exist", "doesn't exist"]
                .iter()
                .any(|words| said.contains(words))
    }

    /// What it comes to after a request that may be repeated. `doing` opens the message: `reading cloud/services at gis.example.com`.
    pub fn after_read(self, doing: &str) -> Fault {
        let why = format!("{doing}: {}", self.said);
        match self.meaning {
            Meaning::Denied => Fault::Refused { reason: Reason::MissingRight, why: format!("{why} ({RIGHT_NEEDED})") },
            Meaning::Absent => Fault::Refused { reason: Reason::NotFound, why },
            Meaning::Refused | Meaning::Moved { permanent: true } => Fault::Refused { reason: Reason::Refused, why },
            // A second token in a row was not taken; `session` has said why already.
            Meaning::Token => Fault::Refused { reason: Reason::LoginRefused, why },
            Meaning::PageAbsent => Fault::Retry {
                after: self.retry_after,
                why: format!("{why}: restarting, or admin_url is not the admin directory"),
            },
            Meaning::Busy | Meaning::Broken | Meaning::Moved { permanent: false } => {
                Fault::Retry { after: self.retry_after, why }
            }
        }
    }
}

/// What a user needs. Until 11.5 the documents say "only with the default administrator role"; the privileges that 12.0 takes
/// instead are not known to us, so this asks for what surely suffices.
pub const RIGHT_NEEDED: &str = "the user needs the default administrator role, or from 12.0 on a role that may administer cloud credentials and view all content";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Secret;

    fn answer(status: u16, body: &str) -> Answer {
        let body = Zeroizing::new(body.as_bytes().to_vec());
        Answer { status, host: "gis".to_owned(), location: None, retry_after: None, date: None, body }
    }

    fn meaning_of(status: u16, body: &str) -> Option<Meaning> {
        match judge(answer(status, body), &Redactor::default()) {
            Verdict::Complaint(complaint) => Some(complaint.meaning),
            Verdict::Good(_) | Verdict::Text(_) => None,
        }
    }

    #[test]
    fn an_error_is_found_in_both_envelopes_and_in_their_mixtures() {
        let error = |text: &str| {
            error_of(&serde_json::from_str(text).expect("the example is JSON")).map(|error| (error.code, error.text))
        };
        let found = |code, text: &str| Some((code, text.to_owned()));
        assert_eq!(
            error(r#"{"error":{"code":498,"message":"Invalid Token","details":[]}}"#),
            found(Some(498), "Invalid Token")
        );
        assert_eq!(error(r#"{"error":{"code":"498","message":"a","details":"b"}}"#), found(Some(498), "a; b"));
        assert_eq!(error(r#"{"error":{"code":400,"message":"a","details":null}}"#), found(Some(400), "a"));
        assert_eq!(
            error(r#"{"error":{"message":"Invalid token.","code":498,"details":["Invalid token."]}}"#),
            found(Some(498), "Invalid token.")
        );
        assert_eq!(error(r#"{"error":"went wrong"}"#), found(None, "went wrong"));
        assert_eq!(error(r#"{"status":"error","messages":["a","b"],"code":499}"#), found(Some(499), "a; b"));
        assert_eq!(error(r#"{"status":"ERROR","messages":"a","error":{"code":1}}"#), found(Some(1), "a"));
        assert_eq!(error(r#"{"success":false}"#), found(None, ""));
        for fine in [
            r#"{"status":"success"}"#,
            r#"{"error":null}"#,
            r#"{"error":{}}"#,
            r#"{"status":"EXECUTING"}"#,
            "{}",
            r#"{"jobid":"j1","status":"FAILED","error":"no"}"#,
        ] {
            assert_eq!(error(fine), None, "{fine}");
        }
    }

    #[test]
    fn a_code_counts_wherever_it_stands() {
        for (status, body, expected) in [
            (200, r#"{"error":{"code":498}}"#, Meaning::Token),
            (498, "", Meaning::Token),
            (401, "<html>", Meaning::Token),
            (
                200,
                r#"{"status":"error","code":499,"messages":["Token is valid but access is denied."]}"#,
                Meaning::Denied,
            ),
            (403, "<html>", Meaning::Denied),
            (200, r#"{"status":"error","code":404}"#, Meaning::Absent),
            (404, "{}", Meaning::Absent),
            (404, "<html>", Meaning::PageAbsent),
            (500, "{}", Meaning::Broken),
            (503, "<html>", Meaning::Broken),
            (408, "<html>", Meaning::Broken),
            (200, r#"{"status":"error","code":500,"messages":["boom"]}"#, Meaning::Broken),
            (429, "slow down", Meaning::Busy),
            (200, r#"{"status":"error","messages":["no"]}"#, Meaning::Refused),
            (400, r#"{"hint":1}"#, Meaning::Refused),
            (302, "", Meaning::Broken),
            (303, "", Meaning::Broken),
            (307, "", Meaning::Moved { permanent: false }),
            (101, "", Meaning::Broken),
            (600, "{}", Meaning::Broken),
            (999, "<html>", Meaning::Broken),
        ] {
            assert_eq!(meaning_of(status, body), Some(expected), "{status} {body}");
        }
        assert_eq!(meaning_of(200, "{}"), None);
    }

    #[test]
    fn a_locked_site_is_busy_whatever_the_code() {
        for words in [
            "ArcGIS Server Site currently being configured by another administrative operation. Please try again later",
            "Another administrative operation is currently accessing the store. Please try again later.",
            "The operation is not allowed because the site is in read-only mode.",
        ] {
            let body = format!(r#"{{"status":"error","code":500,"messages":["{words}"]}}"#);
            assert_eq!(meaning_of(200, &body), Some(Meaning::Busy), "{words}");
        }
    }

    #[test]
    fn a_page_and_a_bare_value_are_no_success() {
        for body in ["<html>Sign in</html>", "\"ok\"", "7", "", "{\"cut"] {
            assert!(matches!(judge(answer(200, body), &Redactor::default()), Verdict::Text(_)), "{body}");
        }
    }

    #[test]
    fn what_a_server_repeats_of_a_secret_is_hidden() {
        let redactor = Redactor::new([&Secret::new("wJalr/XUt+nFEMI".to_owned())]);
        let body = r#"{"error":{"code":400,"message":"bad wJalr/XUt+nFEMI beside {crypt}abc="}}"#;
        let Verdict::Complaint(complaint) = judge(answer(200, body), &redactor) else { panic!("this is a complaint") };
        assert_eq!(complaint.said, "code 400, \"bad *** beside {crypt}***\"");
        assert_eq!(complaint.after_read("x").why(), "x: code 400, \"bad *** beside {crypt}***\"");
    }
}
