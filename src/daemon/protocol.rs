//! What goes over the control socket: one request in one line of JSON, answered by one line of JSON, or by many for `watch`.
//!
//! ```text
//! {"v":1,"command":{"pause":{"service":"prod-object-store"}}}
//! {"v":1,"answer":{"said":[{"service":"prod-object-store","accepted":true,"message":"paused: …"}]}}
//! ```
//!
//! Used by both ends. The one secret that travels here (`adopt --secret-file`) is never formatted, and wiped at both.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

use crate::engine::examine::told::{Advice, Examination};
use crate::engine::{Command, Reply};
use crate::model::{KeyId, Keyless, Secret, ServiceName, TargetName};

use super::checkup::Checked;
use super::records::{ChainLine, HistoryLine};
use super::status::Status;

/// The version both ends must speak.
pub const VERSION: u32 = 1;

/// A longer request is not one of ours: 256 KiB holds every service of a large policy by name.
pub const REQUEST_MAX: usize = 256 * 1024;

/// A request.
#[derive(Debug, Serialize, Deserialize)]
pub struct Request {
    /// The version.
    pub v: u32,
    /// What is asked.
    pub command: Ask,
}

/// The part of a request that every version has.
#[derive(Deserialize)]
struct Versioned {
    v: u32,
}

/// What can be asked.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[allow(missing_docs)] // each is the command of that name
pub enum Ask {
    /// How everything stands.
    Status {},
    /// The same, again at every change, until the asker goes away.
    Watch {},
    /// One service's past.
    History {
        service: ServiceName,
    },
    /// Whether every chain verifies.
    Verify {},
    /// Whether everything would work.
    Doctor {},
    /// What the deployments hold.
    Holders {},
    /// Which services could do without a key.
    Advise {},
    Rotate {
        services: Vec<ServiceName>,
        compromised: bool,
    },
    Adopt {
        service: ServiceName,
        key: KeyId,
        secret: Option<Carried>,
        #[serde(default)]
        idle_slot_free: bool,
    },
    Pause {
        service: ServiceName,
    },
    Resume {
        service: ServiceName,
    },
    Retry {
        service: ServiceName,
    },
    Rollback {
        service: ServiceName,
    },
    Repush {
        service: ServiceName,
        target: Option<TargetName>,
    },
    Switch {
        service: ServiceName,
        /// `None`: back to a key.
        to: Option<Keyless>,
        #[serde(default)]
        no_way_back: bool,
    },
    RetireDespiteUse {
        service: ServiceName,
    },
    Abandon {
        service: ServiceName,
        holds: Option<KeyId>,
    },
    Reclaim {
        service: ServiceName,
        key: KeyId,
    },
    Disown {
        service: ServiceName,
        key: KeyId,
    },
}

/// A secret on its way through the socket: the only place where one is written as text.
///
/// It is copied out of the line once, straight into what wipes itself. Only a secret with a quote or a backslash in it passes through
/// a buffer of the JSON reader that is not wiped; no provider makes such keys.
#[derive(Debug)]
pub struct Carried(pub Secret);

impl Serialize for Carried {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.expose())
    }
}

impl<'de> Deserialize<'de> for Carried {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|text| Carried(Secret::new(text)))
    }
}

/// An answer.
#[derive(Debug, Serialize, Deserialize)]
pub struct Answer {
    /// The version.
    pub v: u32,
    /// What is answered.
    pub answer: Told,
}

/// What can be answered.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Told {
    /// What became of an order, for each service.
    Said(Vec<SaidLine>),
    /// How everything stands.
    Status(Status),
    /// One service's past.
    History(Vec<HistoryLine>),
    /// Every chain.
    Ledger(Vec<ChainLine>),
    /// What an examination found.
    Examination(Box<Examination>),
    /// Which services could do without a key.
    Advice(Vec<Advice>),
    /// There is no such service.
    NoSuchService(String),
    /// It could not be answered.
    Error(String),
}

/// What became of an order at one service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SaidLine {
    /// Which.
    pub service: Option<ServiceName>,
    /// Whether it was accepted.
    pub accepted: bool,
    /// In a sentence.
    pub message: String,
}

impl Request {
    /// A request in this version.
    pub fn new(command: Ask) -> Self {
        Request { v: VERSION, command }
    }

    /// The line to send. It may hold a secret, so it is made in one buffer that is wiped.
    pub fn line(&self) -> Zeroizing<Vec<u8>> {
        // Large enough that the buffer never moves and leaves a copy behind.
        let mut line = Zeroizing::new(Vec::with_capacity(REQUEST_MAX));
        serde_json::to_writer(&mut *line, self).expect("a request is plain data, written to memory");
        line.push(b'\n');
        line
    }

    /// Reads a line. The error is for the asker, and repeats nothing of the line.
    pub fn read(line: &[u8]) -> Result<Request, String> {
        let versioned: Versioned =
            serde_json::from_slice(line).map_err(|_| "this is not a request: expected {\"v\":1,\"command\":…}")?;
        if versioned.v != VERSION {
            return Err(format!(
                "this daemon speaks version {VERSION} on its control socket, and was asked in version {}",
                versioned.v
            ));
        }
        serde_json::from_slice(line).map_err(|error| {
            // serde's own message may quote a value.
            format!("this request is not understood ({:?} error in column {})", error.classify(), error.column())
        })
    }
}

impl Told {
    /// The line to send.
    pub fn line(self) -> Vec<u8> {
        let answer = Answer { v: VERSION, answer: self };
        let mut line = serde_json::to_vec(&answer).expect("an answer is plain data, written to memory");
        line.push(b'\n');
        line
    }
}

impl From<Checked> for Told {
    fn from(checked: Checked) -> Self {
        match checked {
            Checked::Examination(examination) => Told::Examination(Box::new(examination)),
            Checked::Advice(advice) => Told::Advice(advice),
        }
    }
}

impl From<Reply> for Told {
    fn from(reply: Reply) -> Self {
        let said = reply.said.into_iter();
        Told::Said(
            said.map(|said| SaidLine { service: said.service, accepted: said.accepted, message: said.message })
                .collect(),
        )
    }
}

impl Ask {
    /// The command as it would be typed, for the log; the secret of an adoption stays out of it.
    pub fn words(&self) -> String {
        match self {
            Ask::Status {} => "status".into(),
            Ask::Watch {} => "watch".into(),
            Ask::History { service } => format!("history {service}"),
            Ask::Verify {} => "ledger verify".into(),
            Ask::Doctor {} => "doctor".into(),
            Ask::Holders {} => "plan".into(),
            Ask::Advise {} => "advise".into(),
            Ask::Rotate { services, compromised } => {
                let names: Vec<_> = services.iter().map(ServiceName::as_str).collect();
                let which = if names.is_empty() { "--all".to_owned() } else { names.join(" ") };
                format!("rotate {which}{}", if *compromised { " --compromised" } else { "" })
            }
            Ask::Adopt { service, key, secret, idle_slot_free } => {
                let secret = if secret.is_some() { " --secret-file" } else { "" };
                format!("adopt {service} {key}{secret}{}", if *idle_slot_free { " --idle-slot-free" } else { "" })
            }
            Ask::Pause { service } => format!("pause {service}"),
            Ask::Resume { service } => format!("resume {service}"),
            Ask::Retry { service } => format!("retry {service}"),
            Ask::Rollback { service } => format!("rollback {service}"),
            Ask::Switch { service, to: Some(to), .. } => format!("switch {service} --to {}", to.word()),
            Ask::Switch { service, to: None, .. } => format!("switch {service} --to key"),
            Ask::Repush { service, target: None } => format!("repush {service}"),
            Ask::Repush { service, target: Some(target) } => format!("repush {service} {target}"),
            Ask::RetireDespiteUse { service } => format!("retire {service} --despite-use"),
            Ask::Abandon { service, holds: None } => format!("abandon {service}"),
            Ask::Abandon { service, holds: Some(key) } => format!("abandon {service} --holds {key}"),
            Ask::Reclaim { service, key } => format!("reclaim {service} {key}"),
            Ask::Disown { service, key } => format!("disown {service} {key}"),
        }
    }

    /// The one service it is about.
    pub fn service(&self) -> Option<&ServiceName> {
        match self {
            Ask::Status {} | Ask::Watch {} | Ask::Verify {} | Ask::Doctor {} | Ask::Holders {} | Ask::Advise {} => None,
            Ask::Rotate { services, .. } => match &services[..] {
                [service] => Some(service),
                _ => None,
            },
            Ask::History { service }
            | Ask::Adopt { service, .. }
            | Ask::Pause { service }
            | Ask::Resume { service }
            | Ask::Retry { service }
            | Ask::Rollback { service }
            | Ask::Repush { service, .. }
            | Ask::Switch { service, .. }
            | Ask::RetireDespiteUse { service }
            | Ask::Abandon { service, .. }
            | Ask::Reclaim { service, .. }
            | Ask::Disown { service, .. } => Some(service),
        }
    }

    /// The order to the engine, in the name of `by`; the question itself where it is only a question.
    pub fn into_order(self, by: String) -> Result<Command, Ask> {
        Ok(match self {
            Ask::Status {} | Ask::Watch {} | Ask::History { .. } | Ask::Verify {} => return Err(self),
            Ask::Doctor {} | Ask::Holders {} | Ask::Advise {} => return Err(self),
            Ask::Rotate { services, compromised } => Command::Rotate { services, compromised, by },
            Ask::Adopt { service, key, secret, idle_slot_free } => {
                let secret = secret.map(|Carried(secret)| secret);
                Command::Adopt { service, key, secret, idle_slot_free, by }
            }
            Ask::Pause { service } => Command::Pause { service, by },
            Ask::Resume { service } => Command::Resume { service, by },
            Ask::Retry { service } => Command::Retry { service, by },
            Ask::Rollback { service } => Command::Rollback { service, by },
            Ask::Repush { service, target } => Command::Repush { service, target, by },
            Ask::Switch { service, to, no_way_back } => Command::Switch { service, to, no_way_back, by },
            Ask::RetireDespiteUse { service } => Command::RetireDespiteUse { service, by },
            Ask::Abandon { service, holds } => Command::Abandon { service, holds, by },
            Ask::Reclaim { service, key } => Command::Reclaim { service, key, by },
            Ask::Disown { service, key } => Command::Disown { service, key, by },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adopt() -> Request {
        Request::new(Ask::Adopt {
            service: ServiceName::new("a"),
            key: KeyId::new("AKIA1"),
            secret: Some(Carried(Secret::new("wJalr/+very\"secret".into()))),
            idle_slot_free: false,
        })
    }

    #[test]
    fn a_request_comes_out_as_it_went_in_and_never_in_a_debug() {
        let line = adopt().line();
        assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
        let read = Request::read(&line).expect("it is one of ours");
        assert!(!format!("{read:?}").contains("wJalr"));
        match read.command.into_order("uid 0 (root)".into()) {
            Ok(Command::Adopt { secret: Some(secret), by, .. }) => {
                assert_eq!((secret.expose(), by.as_str()), ("wJalr/+very\"secret", "uid 0 (root)"));
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_form_is_fixed() {
        let line = Request::new(Ask::Pause { service: ServiceName::new("a") }).line();
        assert_eq!(std::str::from_utf8(&line), Ok("{\"v\":1,\"command\":{\"pause\":{\"service\":\"a\"}}}\n"));
        let line = Request::new(Ask::Status {}).line();
        assert_eq!(std::str::from_utf8(&line), Ok("{\"v\":1,\"command\":{\"status\":{}}}\n"));
    }

    #[test]
    fn what_is_not_understood_is_said_without_repeating_it() {
        let said = Request::read(br#"{"v":2,"command":{"status":{}}}"#).expect_err("a newer asker");
        assert_eq!(said, "this daemon speaks version 1 on its control socket, and was asked in version 2");
        let said = Request::read(br#"{"v":1,"command":{"adopt":{"service":"a","key":"k","secret":["hush-hush"]}}}"#);
        assert!(!said.expect_err("a list is no secret").contains("hush"));
        let said = Request::read(b"hush-hush").expect_err("no JSON");
        assert!(!said.contains("hush"));
    }
}
