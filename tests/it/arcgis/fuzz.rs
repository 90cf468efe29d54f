//! Bad answers at every call the client makes: JSON of chance and JSON that is almost right, pages, bytes, answers cut short, answers
//! without end, answers that drip, and statuses nobody uses.
//!
//! What must hold, whatever is answered ([`judge`]): nothing panics; a push is reported as done, refused or not sent only where the
//! answer says so, and is sent once unless the answer says that nothing was done; a job has succeeded only where the answer says
//! COMPLETED and no error inside; a read-back shows only what stood in the answer; every call ends in its time; no more is read
//! than the cap; no message shows a secret.
//!
//! The choices come from a seed: `REKEYD_FUZZ_SEED=N` makes them again, `REKEYD_FUZZ_CASES=N` makes so many at each call (default
//! 60). What a message of failure prints is enough to run that one case again.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::time::Instant;

use futures_util::future::FutureExt;
use rekeyd::ports::{FoundHolder, Inspection, Standing, WithoutKey};
use serde_json::{Map, Value, json};

use super::peer::{Heard, JOB, Manner, PASSWORD, Peer, TAIL, TOKEN, Wire, sound_body};
use super::*;

/// What the client reads at the most of one answer.
const CAP: u64 = 4 << 20;
/// What sockets hold between two processes, and what is under way; a loopback connection grows its buffers to several MiB.
const IN_SOCKETS: u64 = 12 << 20;
/// For answers that are meant to be waited out.
const SHORT: Duration = Duration::from_millis(400);
/// For all others: never met, unless the machine stands still.
const LONG: Duration = Duration::from_secs(20);
/// The secret that is pushed, in lower case as the token is.
const SECRET: &str = "the-pushed-secret-5d07+/=&%b2c4-new1";

/// What is asked of the port, and at which of its calls the answer is bad.
const CALLS: [(&str, Asked, &str); 20] = [
    ("generateToken", Asked::Push, "12.0"),
    ("generateToken", Asked::Poll, "12.0"),
    ("root", Asked::Push, "12.0"),
    ("root", Asked::Inspect, "12.0"),
    ("mode", Asked::Push, "12.0"),
    ("services", Asked::Push, "12.0"),
    ("services", Asked::Read, "12.0"),
    ("services", Asked::Inspect, "12.0"),
    ("provider", Asked::ReadProvider, "12.0"),
    ("providers", Asked::ReadProvider, "12.0"),
    ("jobs", Asked::Jobs, "12.0"),
    ("jobs", Asked::Inspect, "12.0"),
    ("job", Asked::Poll, "12.0"),
    ("credential", Asked::Push, "12.0"),
    ("credential", Asked::Push, "11.5"),
    ("status", Asked::Health, "12.0"),
    ("services", Asked::Holders, "12.0"),
    ("findItems", Asked::Holders, "12.0"),
    ("self", Asked::Tell, "12.0"),
    ("services", Asked::Tell, "12.0"),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Push,
    Read,
    ReadProvider,
    Inspect,
    Jobs,
    Poll,
    Health,
    Holders,
    /// What is for people alone.
    Tell,
}

/// A site, what it holds, and what it could do without a key.
type Told = (rekeyd::model::Site, Vec<FoundHolder>, WithoutKey);

/// What the port said.
#[derive(Clone, Debug)]
enum Said {
    Pushed(Result<Receipt, Fault>),
    Read(Result<Reading, Fault>),
    Inspected(Result<Inspection, Fault>),
    Listed(Result<Vec<JobId>, Fault>),
    Polled(Result<JobState, Fault>),
    Checked(Health),
    Held(Result<Vec<FoundHolder>, Fault>),
    Told(Box<Result<Told, Fault>>),
}

impl Said {
    fn text(&self) -> String {
        let fault = match self {
            Said::Pushed(Err(fault))
            | Said::Read(Err(fault))
            | Said::Inspected(Err(fault))
            | Said::Listed(Err(fault))
            | Said::Held(Err(fault))
            | Said::Polled(Err(fault)) => fault,
            Said::Checked(Health::Bad(said)) => return said.clone(),
            Said::Held(Ok(held)) => return held.iter().map(told).collect::<Vec<_>>().join(" / "),
            Said::Told(told) => return told_text(told),
            Said::Polled(Ok(JobState::Running(said) | JobState::Failed(said) | JobState::Vanished(said))) => {
                return said.clone();
            }
            _ => return String::new(),
        };
        fault.why().to_owned()
    }

    fn fault(&self) -> Option<&Fault> {
        match self {
            Said::Pushed(said) => said.as_ref().err(),
            Said::Read(said) => said.as_ref().err(),
            Said::Inspected(said) => said.as_ref().err(),
            Said::Listed(said) => said.as_ref().err(),
            Said::Polled(said) => said.as_ref().err(),
            Said::Held(said) => said.as_ref().err(),
            Said::Checked(_) => None,
            Said::Told(said) => said.as_ref().as_ref().err(),
        }
    }
}

/// All that a holder may put into a message.
fn told(holder: &FoundHolder) -> String {
    format!("{} ({}, {}) {}", holder.name, holder.what, holder.credential, holder.unread.as_deref().unwrap_or_default())
}

fn told_text(told: &Result<Told, Fault>) -> String {
    let (site, holders, without) = match told {
        Ok(told) => told,
        Err(fault) => return fault.why().to_owned(),
    };
    let mut all = vec![site.standing.said().to_owned()];
    all.extend(holders.iter().map(|holder| format!("{} {} {}", holder.name, holder.what, holder.credential)));
    match without {
        WithoutKey::Already(said) | WithoutKey::Impossible(said) => all.push(said.clone()),
        WithoutKey::Possible { now, prepare, unseen, .. } => {
            all.extend([now].into_iter().chain(prepare).chain(unseen).cloned());
        }
    }
    all.join(" ")
}

/// A bad answer, and what a reader of HTTP may take it for.
#[derive(Clone, Debug)]
struct Bad {
    wire: Wire,
    /// `None` where no complete answer comes of it.
    seen: Option<Seen>,
}

/// An answer as it arrives.
#[derive(Clone, Debug)]
struct Seen {
    status: u16,
    body: Vec<u8>,
    /// The body, where it is one JSON object to its end.
    object: Option<Value>,
}

impl Seen {
    fn new(status: u16, body: &[u8]) -> Seen {
        // By the standard these have none, whatever follows.
        let body = if matches!(status, 101 | 204 | 304) { &[] } else { body };
        let object = serde_json::from_slice::<Value>(body).ok().filter(Value::is_object);
        Seen { status, body: body.to_vec(), object }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    fn is_good(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The object of an answer that claims no error: success by status, and none of the envelopes.
    fn good_object(&self) -> Option<&Value> {
        self.object.as_ref().filter(|_| self.is_good() && !self.says_error())
    }

    /// One of ArcGIS's envelopes, or a mixture: the reference's section 2.3.
    fn says_error(&self) -> bool {
        let Some(object) = &self.object else { return false };
        let is_status = |word: &str| object["status"].as_str().is_some_and(|said| said.eq_ignore_ascii_case(word));
        let is_job = object.get("jobid").is_some() && object["status"].is_string() && !is_status("error");
        !is_job && (is_something(&object["error"]) || is_status("error") || object["success"] == json!(false))
    }

    /// It says that the request was not carried out: an envelope, a client error, or a redirect that asks for the same once more
    /// elsewhere. A 302 or 303 may follow a POST that was carried out; 408 comes from proxies that waited too long for a server.
    fn says_not_done(&self) -> bool {
        let by_status = match self.status {
            302 | 303 | 408 => false,
            status => (300..500).contains(&status),
        };
        self.says_error() || by_status
    }
}

fn is_something(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !text.trim().is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::Bool(true) => true,
    }
}

/// Something that failed, at any level.
fn failed(value: &Value, words: &[&str]) -> bool {
    match value {
        Value::Array(list) => list.iter().any(|inner| failed(inner, words)),
        // An answer as a text in another, as some operations have it.
        Value::String(text) => {
            serde_json::from_str::<Value>(text).is_ok_and(|inner| inner.is_object() && failed(&inner, words))
        }
        Value::Object(map) => {
            let is_bad = |key: &str| {
                let word = map.get(key).and_then(Value::as_str).unwrap_or_default().trim().to_ascii_lowercase();
                words.contains(&word.as_str())
            };
            is_bad("status")
                || is_bad("state")
                || map.get("success") == Some(&json!(false))
                || map.get("error").is_some_and(is_something)
                || map.values().any(|inner| failed(inner, words))
        }
        _ => false,
    }
}

/// An error anywhere in what a job tells of its outcome, however deep.
fn has_error_inside(job: &Value) -> bool {
    let words = ["error", "failed", "failure", "cancelled", "timed out"];
    is_something(&job["error"])
        || job["success"] == json!(false)
        || ["operationResponse", "result"].iter().any(|place| failed(&job[*place], &words))
}

/// SplitMix64: the same seed, the same choices.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).expect("it is below a length")
    }

    fn once_in(&mut self, throws: usize) -> bool {
        self.below(throws) == 0
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())].clone()
    }
}

/// Names that mean something somewhere.
const KEYS: [&str; 28] = [
    "status",
    "error",
    "code",
    "message",
    "messages",
    "details",
    "success",
    "state",
    "jobid",
    "jobs",
    "result",
    "operationResponse",
    "stages",
    "cloudCredentialRotationJobId",
    "token",
    "expires",
    "cloudServices",
    "cloudProviders",
    "id",
    "connection",
    "credential",
    "secret",
    "secretKey",
    "type",
    "isReadOnly",
    "siteMode",
    "fullVersion",
    "odd\u{0}key",
];

const WORDS: [&str; 42] = [
    "COMPLETED",
    "completed ",
    "SUCCEEDED",
    "FAILED",
    "failed",
    "CANCELLED",
    "CANCELLING",
    "TIMED OUT",
    "EXECUTING",
    "UNAVAILABLE",
    "error",
    "ERROR",
    "success",
    "true",
    "null",
    "",
    " ",
    "0",
    "498",
    "Invalid Token.",
    "Token Expired.",
    "Token is valid but access is denied.",
    "not found",
    "does not exist",
    "try again later",
    "read-only mode",
    "another administrative operation",
    "secret_key",
    "ACCESS-KEY",
    "IAM-ROLE",
    "READ_ONLY",
    "12.0",
    "11.2.0",
    "{crypt}xxxxxxxxxxxxxxxxnew1",
    "v2Crypt_xxxxxxxxxxxxxxxxxxxx",
    "{crypt}nawx4y2sVW68",
    "{\"status\":\"error\"}",
    "\u{202e}gnp.exe\u{1b}[2J\r\nlogged: ok",
    "é漢\u{1F600}",
    "../../etc/passwd",
    JOB,
    SERVICE,
];

/// What must never be seen again in a message, as a server may throw it back.
const SECRETS: [&str; 3] = [PASSWORD, TOKEN, SECRET];

const STATUSES: [u16; 48] = [
    101, 102, 103, 199, 201, 202, 203, 204, 205, 206, 226, 299, 300, 301, 302, 303, 304, 307, 308, 400, 401, 402, 403,
    404, 405, 408, 409, 410, 413, 418, 421, 422, 425, 429, 431, 451, 498, 499, 500, 501, 502, 503, 504, 511, 520, 599,
    600, 999,
];

/// A value of chance.
fn value(dice: &mut Dice, depth: usize) -> Value {
    match dice.below(if depth == 0 { 7 } else { 9 }) {
        0 => Value::Null,
        1 => json!(dice.once_in(2)),
        2 => dice.pick(&[json!(0), json!(-1), json!(498), json!(499), json!(404), json!(500), json!(403), json!(0.5)]),
        3 => dice.pick(&[json!(u64::MAX), json!(i64::MIN), json!(1e308), json!(-0.0), json!(5e-324)]),
        4 | 5 => json!(dice.pick(&WORDS)),
        6 => json!(format!("says {} again", dice.pick(&SECRETS))),
        7 => (0..dice.below(4)).map(|_| value(dice, depth - 1)).collect(),
        _ => {
            let members = (0..dice.below(5)).map(|_| (dice.pick(&KEYS).to_owned(), value(dice, depth - 1)));
            Value::Object(members.collect::<Map<_, _>>())
        }
    }
}

/// How many places there are in a value.
fn size(value: &Value) -> usize {
    1 + match value {
        Value::Array(list) => list.iter().map(size).sum(),
        Value::Object(map) => map.values().map(size).sum(),
        _ => 0,
    }
}

/// Changes one place, counted from the outside in.
fn spoil(value: &mut Value, place: &mut usize, with: &mut dyn FnMut(&mut Value)) {
    if *place == 0 {
        with(value);
    }
    *place = place.wrapping_sub(1);
    match value {
        Value::Array(list) => list.iter_mut().for_each(|inner| spoil(inner, place, with)),
        Value::Object(map) => map.values_mut().for_each(|inner| spoil(inner, place, with)),
        _ => {}
    }
}

/// A sound answer with one to three things wrong.
fn nearly(dice: &mut Dice, mut sound: Value) -> Value {
    for _ in 0..=dice.below(3) {
        let mut place = dice.below(size(&sound));
        let other = value(dice, 3);
        let (key, how) = (dice.pick(&KEYS).to_owned(), dice.below(5));
        let member = dice.next();
        spoil(&mut sound, &mut place, &mut |here| match (how, here) {
            (0, Value::Object(map)) => drop(map.insert(key.clone(), other.clone())),
            (1 | 2, Value::Object(map)) if !map.is_empty() => {
                let at = usize::try_from(member % map.len() as u64).expect("it is below a length");
                let name = map.keys().nth(at).cloned().expect("it is below the length");
                match how {
                    1 => drop(map.remove(&name)),
                    _ => drop(map.insert(name, other.clone())),
                }
            }
            (3, here) => *here = json!([here.take()]),
            (_, here) => *here = other.clone(),
        });
    }
    sound
}

/// What is wrong in the way of one call only, and seldom by chance.
fn crooked(dice: &mut Dice, call: &str) -> Value {
    let said = dice.pick(&SECRETS);
    let odd = dice.pick(&[said, "\u{202e}gnp.exe\u{1b}[2J\r\nlogged: ok"]);
    let held = |credential: Value| json!({"id": SERVICE, "providerId": odd, "name": odd, "connection": {"credential": credential}});
    match call {
        "job" => dice.pick(&[
            json!({"jobid": JOB, "status": odd}),
            json!({"jobid": JOB, "status": "COMPLETED", "success": false}),
            json!({"jobid": JOB, "status": "COMPLETED", "result": format!("{{\"state\":\"failed\",\"name\":{}}}", json!(odd))}),
            json!({"jobid": JOB, "status": "FAILED", "messages": [odd, said.to_uppercase()]}),
        ]),
        "services" => {
            let one = dice.pick(&[
                held(json!(null)),
                held(json!({"type": odd})),
                json!({"id": "another", "name": odd, "usage": said, "connection": {"bucketName": odd}}),
                json!({"id": odd, "name": "x".repeat(100_000)}),
            ]);
            json!({"cloudServices": vec![one; 1 + dice.below(40)]})
        }
        "provider" | "providers" => {
            let one = json!({"id": dice.pick(&[PROVIDER, odd]), "name": odd, "credential": {"type": odd, "secret": {"secretKey": odd}}});
            if call == "provider" { one } else { json!({"cloudProviders": [one]}) }
        }
        "status" => dice.pick(&[
            json!({"status": odd}),
            json!({"state": "UNREACHABLE", "message": odd}),
            json!({"services": [{"status": "OK"}, {"status": "failed", "details": [odd, said]}]}),
        ]),
        "findItems" => {
            let connection = dice.pick(&[json!(odd), json!({"secretAccessKey": odd, "credentialType": odd}), json!([odd])]);
            let one = json!({"path": odd, "provider": odd, "info": {"objectStore": said, "connectionString": connection}});
            json!({"items": vec![one; 1 + dice.below(60)]})
        }
        "mode" => json!({"isReadOnly": true, "message": odd}),
        "credential" => json!({"message": odd, "details": [odd], "jobid": odd}),
        "root" => json!({"fullVersion": odd, "currentVersion": odd}),
        _ => json!({"token": odd, "expires": odd, "jobs": [odd, {"jobid": odd}]}),
    }
}

/// A body of chance.
fn body(dice: &mut Dice, call: &str, product: Product, version: &str) -> Vec<u8> {
    let sound = sound_body(call, product, version);
    match dice.below(18) {
        16 | 17 => crooked(dice, call).to_string().into_bytes(),
        0 => value(dice, 5).to_string().into_bytes(),
        1 => Value::Object((0..6).map(|_| (dice.pick(&KEYS).to_owned(), value(dice, 3))).collect())
            .to_string()
            .into_bytes(),
        2 => {
            let said = dice.pick(&SECRETS);
            format!("<!DOCTYPE html><html><body>{said} <a href=\"/gis/admin/jobs/{JOB}\">{JOB}</a></body></html>")
                .into_bytes()
        }
        3 => (0..dice.below(3000)).map(|_| u8::try_from(dice.below(256)).expect("it is a byte")).collect(),
        4 => Vec::new(),
        5 => {
            let text = sound.to_string();
            text.as_bytes()[..dice.below(text.len())].to_vec()
        }
        6 => {
            // One key twice; the second counts, as in every reader of JSON that Esri's own pages use.
            let (key, twice) = (dice.pick(&KEYS), value(dice, 2));
            format!("{{{}:{twice},{}", json!(key), &sound.to_string()[1..]).into_bytes()
        }
        7 => {
            let text = sound.to_string();
            let key = dice.pick(&KEYS);
            format!("{},{}:{}}}", &text[..text.len() - 1], json!(key), value(dice, 2)).into_bytes()
        }
        8 => {
            let deep = dice.pick(&[20usize, 100, 127, 128, 5000, 100_000]);
            let inner = dice.pick(&["1", "{\"status\":\"error\"}", "{\"state\":\"failed\"}"]);
            let key = dice.pick(&["result", "operationResponse", "connection", "error", "jobs"]);
            let nested = format!("{}{inner}{}", "[".repeat(deep), "]".repeat(deep));
            let text = sound.to_string();
            format!("{},\"{key}\":{nested}}}", &text[..text.len() - 1]).into_bytes()
        }
        9 => {
            let number =
                dice.pick(&["1e999", "-1e999", "123456789012345678901234567890", "0.1e-400", "00", "NaN", "1."]);
            let text = sound.to_string();
            format!("{},\"code\":{number},\"expires\":{number}}}", &text[..text.len() - 1]).into_bytes()
        }
        10 => {
            let mut bytes = sound.to_string().into_bytes();
            let at = dice.below(bytes.len());
            bytes[at] = dice.pick(&[0x00, 0xff, 0xc3, b'"', b'\\', b'}', b'\n']);
            bytes
        }
        11 => [
            dice.pick(&[b"\xef\xbb\xbf".as_slice(), b"\xff\xfe", b")]}',\n", b" \r\n\t", b"null"]),
            sound.to_string().as_bytes(),
        ]
        .concat(),
        12 => {
            let said = dice.pick(&SECRETS);
            let code =
                dice.pick(&[json!(400), json!("498"), json!(500), json!(404), json!(null), json!(1e40), json!([1])]);
            let envelope = match product {
                Product::Kubernetes => {
                    json!({"error": {"code": code, "message": said, "details": [said, format!("token={said}")]}})
                }
                Product::Server => json!({"status": "error", "messages": [said, {"a": said}], "code": code}),
            };
            envelope.to_string().into_bytes()
        }
        _ => nearly(dice, sound).to_string().into_bytes(),
    }
}

/// An answer of chance to one call.
fn bad(dice: &mut Dice, call: &str, product: Product, version: &str) -> Bad {
    let status = if dice.once_in(3) { dice.pick(&STATUSES) } else { 200 };
    let body = body(dice, call, product, version);
    let mut head = format!("HTTP/1.1 {status} {}\r\n", dice.pick(&["OK", "", "Odd Reason", "\u{e9}"]));
    if dice.once_in(2) {
        let kind = dice.pick(&[
            "application/json;charset=utf-8",
            "text/plain",
            "text/html",
            "image/png",
            ";;;",
            "application/json;charset=utf-16",
        ]);
        head += &format!("content-type: {kind}\r\n");
    }
    if dice.once_in(6) {
        let said = dice.pick(&SECRETS);
        head += &format!("location: https://{said}@other.example.com/x?token={said}#{said}\r\n");
        head += dice.pick(&[
            "retry-after: 99999999999999999999\r\n",
            "retry-after: -1\r\n",
            "retry-after: soon\r\n",
            "retry-after: 7\r\n",
        ]);
        head += dice.pick(&[
            "date: Thu, 01 Jan 1970 00:00:00 GMT\r\n",
            "date: Fri, 31 Dec 9999 23:59:59 GMT\r\n",
            "date: never\r\n",
        ]);
        head += "content-encoding: gzip\r\nset-cookie: a=b; Domain=.example.com\r\n";
    }
    let whole = |bytes: Vec<u8>, seen| Bad { wire: Wire { bytes, manner: Manner::Whole }, seen };
    let with = |more: &str, body: &[u8]| [head.as_bytes(), more.as_bytes(), b"\r\n", body].concat();
    // Any other 1xx is no answer: a client waits for the one that follows, and none does.
    let seen = |body: &[u8]| ((200..1000).contains(&status) || status == 101).then(|| Seen::new(status, body));
    let length = body.len();
    match dice.below(24) {
        // Longer than it is: cut on the way. Where the standard knows no body, nothing is missing.
        0 | 1 => whole(
            with(&format!("content-length: {}\r\n", length + 1 + dice.below(1000)), &body),
            match status {
                101 | 204 | 304 => seen(b""),
                _ => None,
            },
        ),
        // Shorter: what follows belongs to nobody.
        2 => {
            let shown = dice.below(length + 1);
            whole(with(&format!("content-length: {shown}\r\n"), &body), seen(&body[..shown]))
        }
        // In chunks, whole or cut.
        3 => {
            let chunk =
                if length == 0 { Vec::new() } else { [format!("{length:x}\r\n").as_bytes(), &body, b"\r\n"].concat() };
            whole(with("transfer-encoding: chunked\r\n", &[&chunk[..], b"0\r\n\r\n"].concat()), seen(&body))
        }
        4 => {
            let chunk = [format!("{:x}\r\n", length + 7).as_bytes(), &body[..]].concat();
            whole(
                with("transfer-encoding: chunked\r\n", &chunk),
                match status {
                    101 | 204 | 304 => seen(b""),
                    _ => None,
                },
            )
        }
        5 => {
            let size = dice.pick(&["zz\r\n", "ffffffffffffffffff\r\n", "-1\r\n", "\r\n"]);
            whole(
                with("transfer-encoding: chunked\r\n", &[size.as_bytes(), &body].concat()),
                match status {
                    101 | 204 | 304 => seen(b""),
                    _ => None,
                },
            )
        }
        // Until the connection ends.
        6 => whole(with("", &body), seen(&body)),
        // No HTTP.
        7 => {
            let line = dice.pick(&[
                "HTTP/9.9 200 OK\r\n\r\n",
                "SSH-2.0-OpenSSH_9.2\r\n",
                "HTTP/1.1 20 OK\r\n\r\n",
                "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
                "\0\0\0\0",
                "",
            ]);
            whole([line.as_bytes(), &body].concat(), None)
        }
        8 => whole(
            format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\ncontent-length: {length}\r\n\r\n", length + 1)
                .into_bytes(),
            None,
        ),
        // Too long, and honest about it; too long, and not.
        9 if dice.once_in(3) => {
            let padding = usize::try_from(CAP).expect("it fits") + 1 - length.min(1000);
            let long = [&body[..], &vec![b' '; padding]].concat();
            let length = dice.pick(&[long.len(), usize::MAX / 2]);
            whole(
                with(&format!("content-length: {length}\r\n"), &long),
                match status {
                    101 | 204 | 304 => seen(b""),
                    _ => None,
                },
            )
        }
        10 if dice.once_in(3) && !matches!(status, 101 | 204 | 304) => Bad {
            wire: Wire { bytes: with("transfer-encoding: chunked\r\n", b""), manner: Manner::Endless },
            seen: None,
        },
        // Too slow.
        11 if dice.once_in(3) && !matches!(status, 101 | 204 | 304) => {
            let bytes = with(&format!("content-length: {}\r\n", length + 5000), &body);
            Bad { wire: Wire { bytes, manner: Manner::Drip(Duration::from_millis(5)) }, seen: None }
        }
        12 if dice.once_in(3) && !matches!(status, 101 | 204 | 304) => {
            let bytes = with(&format!("content-length: {}\r\n", length + 1), &body);
            Bad { wire: Wire { bytes, manner: Manner::Hang }, seen: None }
        }
        // An interim answer first.
        13 => {
            let mut bytes = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: <x>\r\n\r\n".to_vec();
            bytes.extend(with(&format!("content-length: {length}\r\n"), &body));
            whole(bytes, seen(&body))
        }
        _ => whole(with(&format!("content-length: {length}\r\n"), &body), seen(&body)),
    }
}

/// One case, and how to run it again.
struct Case {
    call: &'static str,
    asked: Asked,
    version: &'static str,
    product: Product,
    seed: u64,
    bad: Bad,
}

impl Case {
    fn new(call: &'static str, asked: Asked, version: &'static str, seed: u64) -> Case {
        let mut dice = Dice(seed);
        // Server has cloud services from 12.0 on.
        let product =
            if version < "12" || call == "status" || dice.once_in(2) { Product::Kubernetes } else { Product::Server };
        let bad = bad(&mut dice, call, product, version);
        Case { call, asked, version, product, seed, bad }
    }

    /// Asks, and holds what is said against what may be said.
    async fn run(self) -> Result<(), String> {
        let mut answers = HashMap::from([(self.call, self.bad.wire.clone())]);
        if self.call == "providers" {
            // The list is asked for only where the provider's own page hides what it holds.
            let mut hidden = sound_body("provider", self.product, self.version);
            hidden["credential"]["secret"]["secretKey"] = json!("{crypt}nawx4y2sVW68");
            answers.insert("provider", Wire::json(&hidden));
        }
        let peer = Peer::start(self.product, self.version, answers).await;
        let guard = Arc::new(Guard::default());
        let is_slow = matches!(self.bad.wire.manner, Manner::Drip(_) | Manner::Hang);
        let timeout = if is_slow { SHORT } else { LONG };
        let deployment = format!("request_timeout = \"{}ms\"", timeout.as_millis());
        let place = match self.asked {
            Asked::ReadProvider => format!("provider_id = {PROVIDER:?}"),
            Asked::Health => format!("service_id = {SERVICE:?}\nhealth = {{ service_status = true }}"),
            _ => format!("service_id = {SERVICE:?}"),
        };
        let target = peer.connect(&guard, &deployment, &place);
        let key = material("AKIANEWNEWNEWNEWNEW1", SECRET);
        let started = Instant::now();
        let asking = async {
            match self.asked {
                Asked::Push => Said::Pushed(target.push(&key).await),
                Asked::Read | Asked::ReadProvider => Said::Read(target.read().await),
                Asked::Inspect => Said::Inspected(target.inspect().await),
                Asked::Jobs => Said::Listed(target.jobs().await),
                Asked::Health => Said::Checked(target.health().await),
                Asked::Holders => Said::Held(target.holders().await),
                Asked::Poll => {
                    // As the engine does before it polls: the job may throw back what it was given.
                    target.know(vec![Secret::new(SECRET.to_owned())]);
                    Said::Polled(target.poll(&JobId::new(JOB)).await)
                }
                Asked::Tell => {
                    let all = async {
                        let site = target.site().await?.expect("ArcGIS has deployments");
                        Ok((site, target.holders().await?, target.without_key().await?))
                    };
                    Said::Told(Box::new(all.await))
                }
            }
        };
        let said = AssertUnwindSafe(asking).catch_unwind().await.map_err(|_| format!("it panicked: {self:?}"))?;
        let held =
            |holds: bool, wrong: String| if holds { Ok(()) } else { Err(format!("{wrong}: {said:?}: {self:?}")) };
        let took = started.elapsed();
        // A poll or a push is several requests, each with its own timeout; the slack is for a busy machine.
        let requests = u32::try_from(peer.heard.all().max(1)).expect("there are few");
        let most = if is_slow { timeout * requests + Duration::from_secs(5) } else { LONG };
        held(took <= most, format!("it took {took:?} for {requests} requests"))?;
        let taken = peer.heard.taken.load(std::sync::atomic::Ordering::Relaxed);
        held(taken <= u64::from(requests) * (CAP + IN_SOCKETS), format!("{taken} bytes were taken"))?;
        judge(&self, &said, &peer.heard).or_else(|wrong| held(false, wrong))?;
        is_discreet(&self, &said).or_else(|wrong| held(false, wrong))?;
        let may_refuse = self.call == "generateToken" && self.bad.seen.as_ref().is_some_and(Seen::says_not_done);
        held(guard.refusals() == 0 || may_refuse, "the password is taken for refused".to_owned())
    }
}

impl std::fmt::Debug for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Case { call, asked, version, product, seed, bad } = self;
        let shown = &bad.wire.bytes[..bad.wire.bytes.len().min(2000)];
        write!(
            f,
            "the answer to {call} ({product:?} {version}, asked to {asked:?}; Case::new({call:?}, Asked::{asked:?}, {version:?}, \
             {seed:#x})), sent {:?}: {:?}",
            bad.wire.manner,
            String::from_utf8_lossy(shown)
        )
    }
}

/// What may be said, by the call that went wrong.
fn judge(case: &Case, said: &Said, heard: &Heard) -> Result<(), String> {
    let seen = case.bad.seen.as_ref();
    let good = seen.and_then(Seen::good_object);
    let held = |holds: bool, wrong: &str| if holds { Ok(()) } else { Err(wrong.to_owned()) };
    match said {
        Said::Pushed(pushed) if case.call != "credential" => {
            let posts = heard.count("credential");
            held(posts <= 1, "a sound answer to a push was followed by another push")?;
            match pushed {
                Ok(receipt) => held(
                    posts == 1 && receipt.job.as_ref().is_some_and(|job| job.as_str() == JOB),
                    "a push that was not sent is reported as done",
                ),
                Err(fault) => {
                    held(posts == 0 && !matches!(fault, Fault::Unknown(_)), "it is known that nothing was sent")
                }
            }
        }
        Said::Pushed(pushed) => {
            let posts = heard.count("credential");
            let refused = seen.is_some_and(Seen::says_not_done);
            held(posts >= 1, "the push was not sent")?;
            held(posts == 1 || refused, "the push was sent again, though nothing says that it was not done")?;
            held(posts <= 8, "the push was sent again and again")?;
            match pushed {
                Ok(Receipt { job: Some(job) }) => {
                    let names = |seen: &Seen| {
                        let text = seen.text();
                        let is_field =
                            ["cloudCredentialRotationJobId", "jobid", "jobId"].iter().any(|key| text.contains(key));
                        seen.is_good() && !seen.says_error() && is_field && text.contains(job.as_str())
                    };
                    held(seen.is_some_and(names), "a job is reported that the answer does not name")
                }
                Ok(Receipt { job: None }) => {
                    let is_done = |object: &Value| object["success"] == json!(true) || object["status"] == "success";
                    held(good.is_some_and(is_done), "a push is reported as done, and the answer does not say so")
                }
                Err(Fault::NotSent(_)) => held(false, "a push that was sent is reported as not sent"),
                Err(Fault::Refused { .. } | Fault::Retry { .. }) => {
                    held(refused, "a push is reported as not carried out, and the answer does not say so")
                }
                Err(Fault::Unknown(_)) => Ok(()),
            }
        }
        Said::Polled(polled) if case.call != "job" => match polled {
            Ok(state) => {
                held(*state == JobState::Succeeded && heard.count("job") > 0, "the job's own answer was sound")
            }
            Err(fault) => held(!matches!(fault, Fault::Unknown(_)), "nothing was asked but a token"),
        },
        Said::Polled(Ok(state)) => {
            let job = seen.filter(|seen| seen.is_good()).and_then(|seen| seen.object.as_ref());
            let status = job.and_then(|job| job["status"].as_str()).unwrap_or_default().trim().to_ascii_uppercase();
            let inside = job.is_some_and(has_error_inside);
            match state {
                JobState::Succeeded => held(
                    good.is_some() && status == "COMPLETED" && !inside,
                    "a job is reported as succeeded, and the answer does not say so",
                ),
                JobState::Failed(_) => held(
                    ["FAILED", "CANCELLED", "TIMED OUT", "TIMED_OUT"].contains(&status.as_str())
                        || (status == "COMPLETED" && inside),
                    "a job is reported as failed, and the answer does not say so",
                ),
                JobState::Running(_) => {
                    held(job.is_some_and(|job| job["status"].is_string()), "a job is reported that is not there")
                }
                JobState::Vanished(_) => held(
                    seen.is_some_and(|seen| seen.says_error() || (seen.status == 404 && seen.says_not_done())),
                    "a job is reported as gone, and the answer does not say so",
                ),
            }
        }
        Said::Read(Ok(reading)) => shown(case, reading, seen, heard),
        Said::Inspected(Ok(found)) if case.call == "services" => shown(case, &found.reading, seen, heard),
        Said::Inspected(Ok(found)) => {
            held(found.reading == Reading::Tail(Tail::new(TAIL)), "the service's own answer was sound")?;
            if case.call == "jobs" { listed(&found.jobs, seen) } else { Ok(()) }
        }
        Said::Listed(Ok(jobs)) => listed(jobs, seen),
        Said::Checked(Health::Good) => {
            // By fewer words than the client knows: those that leave no doubt.
            let is_well = |status: &Value| *status != json!({}) && !failed(status, &["error", "failed", "failure"]);
            held(good.is_some_and(is_well), "a service is reported as well, and the answer does not say so")
        }
        Said::Checked(Health::Bad(_)) => {
            let is_said = seen.is_some_and(|seen| seen.says_error() || good.is_some());
            held(is_said, "a service is reported as failing, and ArcGIS did not say so")
        }
        Said::Checked(Health::NotWatched) => Ok(()),
        Said::Held(Ok(found)) => {
            let is_readable = seen.is_some_and(|seen| seen.good_object().is_some() || seen.says_not_done());
            // ArcGIS says that it broke over the list of items, and the holders say that they were not looked at.
            let is_told = case.call == "findItems" && found.iter().any(|holder| holder.unread.is_some());
            let is_broken = is_told && seen.is_some_and(Seen::says_error);
            held(is_readable || is_broken, "holders of an answer that is none")?;
            let text = seen.map(Seen::text).unwrap_or_default();
            let is_there = |tail: &Tail| tail.as_str() == TAIL || text.contains(tail.as_str());
            let mut tails = found.iter().filter_map(|holder| holder.reading.tail());
            held(tails.all(is_there), "a holder shows what is not in the answer")?;
            held(found.iter().all(|holder| told(holder).chars().count() < 1000), "a holder without end")
        }
        Said::Told(told) => match told.as_ref() {
            Ok((site, _, without)) => {
                let is_admin = good.is_some_and(|object| object["role"] == "org_admin");
                let says_enough = matches!(site.standing, Standing::Enough(_));
                held(!says_enough || (case.call == "self" && is_admin), "an administrator whom nobody called so")?;
                let says_key = good.is_some_and(|object| object["cloudServices"].to_string().contains("ACCESS-KEY"));
                let is_advised = matches!(without, WithoutKey::Possible { .. });
                held(
                    !is_advised || case.call != "services" || says_key,
                    "a key that is not in the answer is to be left behind",
                )
            }
            Err(_) => Ok(()),
        },
        // A read that fails says so; which fault it is decides only when it is asked again.
        Said::Polled(Err(_))
        | Said::Read(Err(_))
        | Said::Inspected(Err(_))
        | Said::Listed(Err(_))
        | Said::Held(Err(_)) => Ok(()),
    }
}

/// A read-back shows what the answer shows of this place, and nothing where the answer cannot be read.
fn shown(case: &Case, reading: &Reading, seen: Option<&Seen>, heard: &Heard) -> Result<(), String> {
    let good = seen.and_then(Seen::good_object);
    // Where the list cannot be read, the provider's own sound page stands, and that one hides all.
    if case.call == "providers" && *reading == Reading::Hidden {
        return Ok(());
    }
    // And where the provider's page shows nothing that can be compared, the sound list does.
    if case.call == "provider" && heard.count("providers") > 0 && *reading == Reading::Tail(Tail::new(TAIL)) {
        return Ok(());
    }
    let Some(object) = good else { return Err("a reading of an answer that is none".to_owned()) };
    let (list, id, own) = match case.call {
        "services" => (object["cloudServices"].clone(), SERVICE, "/connection/credential"),
        "providers" => (object["cloudProviders"].clone(), PROVIDER, "/credential"),
        _ => (json!([object]), PROVIDER, "/credential"),
    };
    let places = list.as_array().cloned().unwrap_or_default();
    // A provider is asked for by its id; that its page says it again is not asked.
    let is_it = |place: &&Value| case.call == "provider" || place["id"] == id;
    let held: Vec<&Value> =
        places.iter().filter(is_it).map(|place| place.pointer(own).unwrap_or(&Value::Null)).collect();
    let is_object = |credential: &&Value| credential.as_object().is_some_and(|members| !members.is_empty());
    let stands = match reading {
        Reading::Tail(tail) => held.iter().filter_map(|credential| credential.get("secret")).any(|secret| {
            let ends =
                |key: &str| secret[key].as_str().is_some_and(|shown| shown.ends_with(&format!("xxxxxxxx{tail}")));
            ends("secretKey") || ends("secret_key")
        }),
        Reading::Keyless(word) => {
            held.iter().any(|held| held["type"].as_str().is_some_and(|kind| kind.eq_ignore_ascii_case(word.as_str())))
        }
        Reading::Hidden => held.iter().any(is_object),
        Reading::Nothing => held.iter().any(|credential| !is_object(credential)),
    };
    if stands { Ok(()) } else { Err("a reading that is not in the answer".to_owned()) }
}

/// The list names no job that is not in the answer; and an answer that broke is no empty list.
fn listed(jobs: &[JobId], seen: Option<&Seen>) -> Result<(), String> {
    let Some(seen) = seen else { return Err("a list of an answer that never came".to_owned()) };
    let text = seen.text();
    if let Some(job) = jobs.iter().find(|job| !text.contains(job.as_str())) {
        return Err(format!("job {job} is not in the answer"));
    }
    let is_readable = seen.good_object().is_some() || seen.says_not_done();
    if is_readable { Ok(()) } else { Err("a list of an answer that is none".to_owned()) }
}

/// No secret, nothing that moves a terminal's cursor, and no end of text.
fn is_discreet(case: &Case, said: &Said) -> Result<(), String> {
    let text = said.text();
    // What this call's other side has been given: the rest it can only have guessed.
    let given: &[&str] = match case.call {
        "generateToken" => &[PASSWORD],
        "credential" | "job" => &[PASSWORD, TOKEN, SECRET],
        _ => &[PASSWORD, TOKEN],
    };
    if let Some(secret) = given.iter().find(|secret| text.contains(**secret)) {
        return Err(format!("a message shows {secret:?}"));
    }
    if text.chars().any(|letter| letter.is_control() || letter == '\u{202e}') {
        return Err("a message moves the cursor".to_owned());
    }
    match (text.chars().count(), said.fault()) {
        (0, Some(_)) => Err("a fault without a word".to_owned()),
        (8001.., _) if !matches!(said, Said::Held(_)) => Err("a message without end".to_owned()),
        _ => Ok(()),
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn no_answer_however_bad_is_taken_for_what_it_does_not_say() {
    let (seed, cases) = (number("REKEYD_FUZZ_SEED", 2026), number("REKEYD_FUZZ_CASES", 60));
    println!("REKEYD_FUZZ_SEED={seed}, {cases} cases at each of {} calls", CALLS.len());
    let mut wrong = Vec::new();
    for (n, (call, asked, version)) in CALLS.into_iter().enumerate() {
        let mut seeds = Dice(seed.wrapping_add(1000 * n as u64));
        // A few at a time: those that wait for a timeout do not hold up the rest.
        for _ in 0..cases.div_ceil(6) {
            let some = (0..6).map(|_| tokio::spawn(Case::new(call, asked, version, seeds.next()).run()));
            for case in some.collect::<Vec<_>>() {
                wrong.extend(case.await.expect("a case says what is wrong, and does not panic").err());
            }
        }
    }
    let few = wrong.iter().take(10).map(String::as_str).collect::<Vec<_>>().join("\n\n");
    assert!(wrong.is_empty(), "REKEYD_FUZZ_SEED={seed}: {} cases went wrong; the first:\n\n{few}", wrong.len());
}

/// The generator makes what it is meant to make: else the test above would prove little.
#[test]
fn the_bad_answers_are_of_every_kind() {
    let mut seeds = Dice(7);
    let bads: Vec<Bad> = (0..4000).map(|_| Case::new("job", Asked::Poll, "12.0", seeds.next()).bad).collect();
    let count = |is: &dyn Fn(&Bad) -> bool| bads.iter().filter(|bad| is(bad)).count();
    let seen = |is: &dyn Fn(&Seen) -> bool| count(&|bad: &Bad| bad.seen.as_ref().is_some_and(is));
    let manner = |is: fn(Manner) -> bool| count(&|bad: &Bad| is(bad.wire.manner));
    assert!(count(&|bad| bad.seen.is_none()) > 200, "answers that never come whole");
    assert!(manner(|manner| matches!(manner, Manner::Drip(_))) > 20);
    assert!(manner(|manner| manner == Manner::Hang) > 20);
    assert!(manner(|manner| manner == Manner::Endless) > 20);
    assert!(seen(&|seen| seen.good_object().is_some()) > 500, "answers that a client has to look into");
    let errors = seen(&|seen| seen.says_error());
    assert!(errors > 80, "{errors} answers with an error in an envelope");
    assert!(seen(&|seen| seen.object.as_ref().is_some_and(has_error_inside)) > 50, "jobs with an error inside");
    assert!(seen(&|seen| std::str::from_utf8(&seen.body).is_err()) > 50);
    assert!(seen(&|seen| seen.body.starts_with(b"<!DOCTYPE")) > 50);
    assert!(seen(&|seen| !(200..500).contains(&seen.status)) > 50);
    let good =
        |seen: &Seen| seen.good_object().is_some_and(|job| job["status"] == "COMPLETED" && !has_error_inside(job));
    assert!(seen(&good) > 50, "jobs that did succeed: a client that fails everything is no client");
}

#[tokio::test]
async fn an_answer_without_end_is_read_up_to_the_cap() {
    for call in ["generateToken", "services", "credential", "job"] {
        let bytes = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
        let answers = HashMap::from([(call, Wire { bytes, manner: Manner::Endless })]);
        let peer = Peer::start(Product::Kubernetes, "12.0", answers).await;
        let target = peer.connect(&Arc::default(), "", &format!("service_id = {SERVICE:?}"));
        let fault = match call {
            "job" => target.poll(&JobId::new(JOB)).await.map(drop),
            _ => target.push(&material("AKIANEWNEWNEWNEWNEW1", SECRET)).await.map(drop),
        };
        let fault = fault.expect_err("nothing can be made of it");
        assert!(fault.why().ends_with("the answer is longer than 4 MiB"), "{call}: {fault:?}");
        let is_unknown = matches!(fault, Fault::Unknown(_));
        // Before the push nothing was pushed, and the fault says so.
        assert_eq!(is_unknown, !["generateToken", "services"].contains(&call), "{call}: {fault:?}");
        let taken = peer.heard.taken.load(std::sync::atomic::Ordering::Relaxed);
        assert!((CAP..=CAP + IN_SOCKETS).contains(&taken), "{call}: {taken} bytes were taken");
    }
}

#[tokio::test]
async fn an_answer_that_drips_ends_with_its_time() {
    for (call, manner) in [("credential", Manner::Drip(Duration::from_millis(10))), ("job", Manner::Hang)] {
        let bytes = format!("HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n{}", " ".repeat(5000)).into_bytes();
        let peer = Peer::start(Product::Kubernetes, "12.0", HashMap::from([(call, Wire { bytes, manner })])).await;
        let target = peer.connect(&Arc::default(), "request_timeout = \"400ms\"", &format!("service_id = {SERVICE:?}"));
        let started = Instant::now();
        let fault = match call {
            "job" => target.poll(&JobId::new(JOB)).await.map(drop),
            _ => target.push(&material("AKIANEWNEWNEWNEWNEW1", SECRET)).await.map(drop),
        };
        let fault = fault.expect_err("it never ends");
        assert!(matches!(&fault, Fault::Unknown(why) if why.contains("400ms")), "{call}: {fault:?}");
        assert!(started.elapsed() < Duration::from_secs(5), "{call}: {:?}", started.elapsed());
    }
}
