//! What holds the demo's keys, and who reads with them: places in an ArcGIS, whose consumers the lab has, and beside it a file and a
//! program's store, which an application of the demo's own reads.

use std::fs::{DirBuilder, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use rekeyd_lab::{ArcGis, Product};
use serde_json::{Value, json};

/// The cloud provider in each ArcGIS.
pub const PROVIDER: &str = "betc4g098c";

/// How often an application reads, as consumers of ArcGIS do.
const PAUSE: Duration = Duration::from_millis(25);

/// What holds a service's key.
pub enum Place {
    ArcGis(Deployment),
    File(Beside),
    Program(Beside),
}

/// A place in an ArcGIS.
pub struct Deployment {
    pub arcgis: ArcGis,
    pub product: Product,
    pub holder: Holder,
}

/// What of an ArcGIS holds the key.
#[derive(Clone, Copy)]
pub enum Holder {
    CloudService(&'static str),
    /// With the services that inherit from it.
    Provider(&'static str, [&'static str; 2]),
    DataItem(&'static str),
}

/// A place beside ArcGIS, with an application that reads it before each use.
pub struct Beside {
    /// The file, or the folder in which the program keeps what it holds.
    at: PathBuf,
    read: fn(&Path) -> Option<Value>,
    write: fn(&Path, &Value) -> std::io::Result<()>,
    seen: Arc<Mutex<Seen>>,
}

/// What those saw who read with a key.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    pub requests: u64,
    pub refusals: u64,
    /// Whether the last one was answered.
    pub healthy: bool,
}

impl Holder {
    /// As the policy names it.
    fn line(self) -> String {
        match self {
            Self::CloudService(id) => format!("service_id = \"{id}\""),
            Self::Provider(id, _) => format!("provider_id = \"{id}\""),
            Self::DataItem(path) => format!("data_item = \"{path}\""),
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::CloudService(name) | Self::Provider(name, _) | Self::DataItem(name) => name,
        }
    }

    /// Who reads with the key it holds.
    fn consumers(self) -> Vec<&'static str> {
        match self {
            Self::CloudService(name) | Self::DataItem(name) => vec![name],
            Self::Provider(_, services) => services.to_vec(),
        }
    }
}

impl Place {
    /// A file in a folder of its own.
    pub fn file(folder: &Path) -> Result<Place, String> {
        let at = folder_at(folder, "application")?.join("key.json");
        let read = |at: &Path| serde_json::from_str(&std::fs::read_to_string(at).ok()?).ok();
        let write = |at: &Path, first: &Value| {
            // As rekeyd will write it: one that others could read would be locked away from them.
            let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(at);
            file.and_then(|mut file| writeln!(file, "{first}"))
        };
        Ok(Place::File(Beside { at, read, write, seen: Arc::default() }))
    }

    /// The store of a program, which writes id and secret there.
    pub fn program(folder: &Path) -> Result<Place, String> {
        let at = folder_at(folder, "program-place")?;
        let script = at.join("program.sh");
        let written = std::fs::write(&script, include_str!("../it/command/place.sh"));
        written.map_err(|error| format!("{}: {error}", script.display()))?;
        let read = |at: &Path| {
            let text = std::fs::read_to_string(at.join("held")).ok()?;
            let (id, secret) = text.split_once('\n')?;
            Some(json!({ "id": id, "secret": secret.trim_end() }))
        };
        let write = |at: &Path, first: &Value| {
            let of = |name: &str| first[name].as_str().unwrap_or_default();
            std::fs::write(at.join("held"), format!("{}\n{}\n", of("id"), of("secret")))
        };
        Ok(Place::Program(Beside { at, read, write, seen: Arc::default() }))
    }

    pub fn word(&self) -> String {
        match self {
            Self::ArcGis(Deployment { product, holder, .. }) => {
                let word = match holder {
                    Holder::CloudService(_) => "cloud service",
                    Holder::Provider(..) => "cloud provider with two services",
                    Holder::DataItem(_) => "registered data store",
                };
                format!("a {word} on {product:?}")
            }
            Self::File(_) => "a file of an application".to_owned(),
            Self::Program(_) => "an operator's other program".to_owned(),
        }
    }

    /// The value of `target` in the policy; `deployment` is the ArcGIS's name there.
    pub fn target(&self, deployment: &str) -> String {
        match self {
            Self::ArcGis(place) => {
                format!(r#"{{ kind = "arcgis", deployment = "{deployment}", {} }}"#, place.holder.line())
            }
            Self::File(place) => format!(r#"{{ kind = "file", path = "{}" }}"#, place.at.display()),
            Self::Program(place) => format!(r#"{{ kind = "command", {} }}"#, run(&place.at, "")),
        }
    }

    /// What it holds, in clear.
    pub fn held(&self) -> Value {
        match self {
            Self::ArcGis(place) => place.arcgis.credential_object(place.holder.name()).unwrap_or_default(),
            Self::File(place) | Self::Program(place) => (place.read)(&place.at).unwrap_or_default(),
        }
    }

    /// What each of those has seen who read with it.
    pub fn seen(&self, follower: Option<&'static str>) -> Vec<Seen> {
        let place = match self {
            Self::ArcGis(place) => place,
            Self::File(beside) | Self::Program(beside) => return vec![*beside.seen()],
        };
        let names = place.holder.consumers().into_iter().chain(follower);
        let counts = names.map(|name| place.arcgis.consumer(name));
        let seen = counts.map(|one| Seen { requests: one.requests, refusals: one.refusals, healthy: one.healthy });
        seen.collect()
    }

    /// Jobs of its ArcGIS.
    pub fn jobs(&self) -> usize {
        if let Self::ArcGis(place) = self { place.arcgis.jobs().len() } else { 0 }
    }

    /// # Panics
    /// If it is beside ArcGIS: the demo's own mistake, as in the other two.
    pub fn deployment(&self) -> &Deployment {
        if let Self::ArcGis(place) = self { place } else { panic!("such a key is for an ArcGIS") }
    }

    pub fn beside(&self) -> &Beside {
        if let Self::File(place) | Self::Program(place) = self { place } else { panic!("such a key is for others") }
    }
}

impl Beside {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts the first key there; from now on an application reads what is there before each use.
    pub fn begin(&self, first: &Value, opens: impl Fn(Value) -> BoxFuture<'static, bool> + Send + 'static) {
        (self.write)(&self.at, first).expect("a folder of the demo's own can be written");
        let (at, read, seen) = (self.at.clone(), self.read, self.seen.clone());
        tokio::spawn(async move {
            loop {
                let held = read(&at);
                let is_open = opens(held.clone().unwrap_or_default()).await;
                // What was read is used a moment later; a key that was replaced meanwhile says nothing.
                if is_open || read(&at) == held {
                    let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
                    seen.requests += 1;
                    seen.refusals += u64::from(!is_open);
                    seen.healthy = is_open;
                }
                tokio::time::sleep(PAUSE).await;
            }
        });
    }
}

/// The lines of policy that run a program which lies in its own folder.
pub fn run(home: &Path, more: &str) -> String {
    let script = home.join("program.sh");
    format!(r#"program = "/bin/sh", args = [{script:?}, {home:?}{more}], timeout = "8s""#)
}

fn folder_at(folder: &Path, name: &str) -> Result<PathBuf, String> {
    let at = folder.join(name);
    let made = DirBuilder::new().mode(0o700).create(&at);
    made.map_err(|error| format!("{}: {error}", at.display()))?;
    Ok(at)
}
