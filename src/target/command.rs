//! `command`: a place that a program of the operator's hands the key to, in a protocol of JSON lines (`docs/commands.md`).
//!
//! ```text
//! inspect   what holds the key, and what stands there    changes nothing
//! push      hands it over; done when the program says so  may be done again
//! read      what stands there now
//! ```
//!
//! A push whose end nobody saw is settled by reading, and done again. It does not wait, retry or decide, and knows nothing of what the
//! program speaks to.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::model::{
    Holder, JobId, KeyId, Material, MaterialKind, Reason, Secret, SystemSpec, Tail, TargetName, TargetSpec,
    deserialize_secret,
};
use crate::net::Context;
use crate::net::command::{Called, Caller, Key, Request, is_id};
use crate::ports::{Fault, Health, Inspection, JobState, Reading, Receipt, Target};
use crate::table::Table;

/// A program as a kind of target.
pub const KIND: super::Kind = super::Kind {
    name: "command",
    system: None,
    read_system: |_| None,
    read,
    expect,
    refuses: super::nothing,
    jobs_max: |_| None,
    connect,
};

/// Between two looks at a job, which there never is.
const POLL: Duration = Duration::from_secs(1);
/// What is shown of a place that holds a key which is none of those it may hold: longer than any end, so no key's.
const ANOTHER: &str = "another key";

fn read(table: &mut Table<'_>, _system: Option<&SystemSpec>) -> Option<TargetSpec> {
    let called = Called::read(table)?;
    Some(TargetSpec {
        kind: KIND.name.to_owned(),
        system: None,
        name: TargetName::new(format!("{}:{}", KIND.name, called.name())),
        readback: Duration::ZERO,
        // A program that is still at work then is killed.
        job_timeout: called.timeout,
        poll: POLL,
        derived_by: None,
        config: serde_json::to_value(called).ok()?,
    })
}

/// What will come is the program's to judge, when it is handed over.
fn expect(_spec: &mut TargetSpec, _material: MaterialKind) {}

fn connect(spec: &TargetSpec, _system: Option<&SystemSpec>, _context: &Context) -> Result<Arc<dyn Target>, Fault> {
    let mismatch = |what: String| Fault::Refused {
        reason: Reason::PolicyMismatch,
        why: format!("reaching {}: {what}", spec.name),
    };
    let called: Called = serde_json::from_value(spec.config.clone())
        .map_err(|_| mismatch("not a target this rekeyd can read".to_owned()))?;
    let caller = called.connect().map_err(mismatch)?;
    Ok(Arc::new(Command { caller, name: spec.name.clone(), inner: Mutex::default() }))
}

/// A program that hands keys over.
struct Command {
    caller: Caller,
    name: TargetName,
    inner: Mutex<Inner>,
}

/// What it was told.
#[derive(Default)]
struct Inner {
    secrets: Vec<Secret>,
    known: Vec<Material>,
    ends: BTreeMap<KeyId, Tail>,
}

#[derive(Deserialize)]
struct Inspected {
    #[serde(default)]
    holder: Option<String>,
    reading: Shown,
}

#[derive(Deserialize)]
struct Read {
    reading: Shown,
}

/// `"nothing"`, `"hidden"`, or as much as the place shows of the key: `{"id":…}`, `{"secret":…}`, both, or `{"end":…}`.
enum Shown {
    Nothing,
    Hidden,
    Key(ShownKey),
}

/// By hand, since an untagged choice is made on a copy of all there is, and that would leave the secret behind unwiped.
impl<'de> Deserialize<'de> for Shown {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = Shown;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"nothing\", \"hidden\" or an object")
            }

            fn visit_str<E: de::Error>(self, word: &str) -> Result<Shown, E> {
                match word {
                    "nothing" => Ok(Shown::Nothing),
                    "hidden" => Ok(Shown::Hidden),
                    // Not repeated: it may be a secret in the wrong place.
                    _ => Err(E::custom("a word that is neither")),
                }
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Shown, A::Error> {
                ShownKey::deserialize(MapAccessDeserializer::new(map)).map(Shown::Key)
            }
        }

        deserializer.deserialize_any(Either)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ShownKey {
    #[serde(default)]
    id: Option<String>,
    #[serde(default, deserialize_with = "some_secret")]
    secret: Option<Secret>,
    #[serde(default)]
    end: Option<String>,
}

fn some_secret<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Secret>, D::Error> {
    deserialize_secret(deserializer).map(Some)
}

/// What is answered where there is nothing to say.
#[derive(Deserialize)]
struct Done {}

impl Command {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Whole values only.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn ask<T: serde::de::DeserializeOwned>(&self, act: &'static str, request: Request<'_>) -> Result<T, Fault> {
        let secrets = self.inner().secrets.clone();
        self.caller.ask(act, request, &secrets, false).await
    }

    /// The end of the key's secret, as every target shows it.
    fn reading(&self, shown: Shown) -> Result<Reading, Fault> {
        let key = match shown {
            Shown::Nothing => return Ok(Reading::Nothing),
            Shown::Hidden => return Ok(Reading::Hidden),
            Shown::Key(key) => key,
        };
        let inner = self.inner();
        let end = |secret: &Secret| secret.tail().map_or(Reading::Hidden, Reading::Tail);
        let fits = |known: &&Material| {
            key.id.as_deref().is_none_or(|id| known.key().as_str() == id)
                && key.secret.as_ref().is_none_or(|secret| known.secret() == secret)
        };
        match (&key.id, &key.secret, key.end) {
            (None, None, Some(shown)) if shown.chars().count() == 4 && is_id(&shown) => {
                Ok(Reading::Tail(Tail::new(shown)))
            }
            (None, None, _) | (_, _, Some(_)) => Err(Fault::Unknown(format!(
                "reading {}: it answered a reading that is none of docs/commands.md",
                self.name
            ))),
            (_, secret, None) => Ok(match (inner.known.iter().find(fits), secret) {
                (Some(known), _) => end(known.secret()),
                (None, None) => {
                    // That of a key whose secret is not held any more, such as the one in use (`keep_secret = "rotation"`); or it is
                    // none of ours, which only somebody with keys can say.
                    let id = key.id.as_deref().unwrap_or_default();
                    let end = inner.ends.iter().find(|(known, _)| known.as_str() == id).map(|(_, end)| end.clone());
                    match end {
                        Some(end) => Reading::Tail(end),
                        None if inner.known.is_empty() && inner.ends.is_empty() => Reading::Hidden,
                        None => Reading::Tail(Tail::new(ANOTHER)),
                    }
                }
                (None, Some(secret)) => {
                    let ends_alike = inner
                        .known
                        .iter()
                        .any(|known| known.secret() == secret || known.secret().tail() == secret.tail());
                    match secret.tail() {
                        Some(_) if ends_alike => Reading::Tail(Tail::new(ANOTHER)),
                        _ => end(secret),
                    }
                }
            }),
        }
    }
}

#[async_trait]
impl Target for Command {
    async fn inspect(&self) -> Result<Inspection, Fault> {
        let inspected: Inspected = self.ask("inspect", Request::default()).await?;
        let holder = match inspected.holder {
            None => self.name.as_str().to_owned(),
            Some(holder) if is_id(&holder) => format!("{}:{holder}", KIND.name),
            Some(_) => {
                let why = format!("inspecting {}: its `holder` is not 1 to 200 letters, digits and signs", self.name);
                return Err(Fault::Unknown(why));
            }
        };
        Ok(Inspection { holder: Holder::new(holder), reading: self.reading(inspected.reading)?, jobs: Vec::new() })
    }

    async fn read(&self) -> Result<Reading, Fault> {
        let read: Read = self.ask("read", Request::default()).await?;
        self.reading(read.reading)
    }

    async fn push(&self, material: &Material) -> Result<Receipt, Fault> {
        let key = Key::from(material);
        let Done {} = self.ask("push", Request { key: Some(&key), ..Request::default() }).await?;
        Ok(Receipt { job: None })
    }

    async fn jobs(&self) -> Result<Vec<JobId>, Fault> {
        Ok(Vec::new())
    }

    async fn poll(&self, job: &JobId) -> Result<JobState, Fault> {
        Ok(JobState::Vanished(format!("{} has no jobs, and knows of no {job}", self.name)))
    }

    async fn health(&self) -> Health {
        Health::NotWatched
    }

    fn know(&self, secrets: Vec<Secret>) {
        self.inner().secrets = secrets;
    }

    fn known_as(&self, ends: BTreeMap<KeyId, Tail>) {
        self.inner().ends = ends;
    }

    fn compare_with(&self, materials: Vec<Material>) {
        self.inner().known = materials;
    }
}
