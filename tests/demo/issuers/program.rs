//! A program of the operator's: it keeps its keys in a folder, and hands them to another program of his.

use std::path::{Path, PathBuf};

use chrono::{SecondsFormat, Utc};
use futures_util::future::BoxFuture;
use rekeyd::model::{KeyId, Secret};
use serde_json::{Value, json};

use super::{Adoption, Issuer, state};
use crate::places::{Place, run};

const SCRIPT: &str = include_str!("../../it/command/keys.sh");
const FIRST: (&str, &str) = ("KEYFIRST", "5f2b7d0e9c1a48b6");

/// `command`: keys of a program's own making, below this folder.
pub fn keys(folder: &Path) -> Result<Box<dyn Issuer>, String> {
    let home = folder.join("program-keys");
    let created = Utc::now().to_rfc3339_opts(SecondsFormat::Secs, true);
    let made = std::fs::create_dir_all(home.join("keys")).and_then(|()| {
        std::fs::write(home.join("keys").join(FIRST.0), format!("true\n{}\n{created}\n\n", FIRST.1))?;
        std::fs::write(home.join("program.sh"), SCRIPT)
    });
    made.map_err(|error| format!("{}: {error}", home.display()))?;
    Ok(Box::new(Program { home }))
}

struct Program {
    home: PathBuf,
}

impl Issuer for Program {
    fn title(&self) -> String {
        "keys of an operator's own program".to_owned()
    }

    fn policy(&self) -> String {
        let program = run(&self.home, ", \"client-named\"");
        format!(r#"{{ kind = "command", shape = "client-named", settle = "2s", {program} }}"#)
    }

    fn furnish(&self, place: &Place) {
        let home = self.home.clone();
        let is_active = move |held: Value| -> BoxFuture<'static, bool> {
            let opens = opens(&home, &held);
            Box::pin(async move { opens })
        };
        place.beside().begin(&json!({ "id": FIRST.0, "secret": FIRST.1 }), is_active);
    }

    fn adoption(&self) -> Adoption {
        Adoption { key: KeyId::new(FIRST.0), secret: Some(Secret::new(FIRST.1.to_owned())), idle_slot_free: false }
    }

    fn keys(&self, _: &Value) -> Vec<String> {
        let names = std::fs::read_dir(self.home.join("keys")).into_iter().flatten().flatten();
        let names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
        names.map(|name| format!("{name} {}", state(lines(&self.home, &name).0 == "true"))).collect()
    }

    fn takes(&self, held: &Value) -> bool {
        opens(&self.home, held)
    }
}

fn opens(home: &Path, held: &Value) -> bool {
    let (active, secret) = lines(home, held["id"].as_str().unwrap_or_default());
    active == "true" && held["secret"] == *secret
}

/// Whether a key is active, and its secret, as the program wrote them; empty where there is no such key.
fn lines(home: &Path, key: &str) -> (String, String) {
    let text = std::fs::read_to_string(home.join("keys").join(key)).unwrap_or_default();
    let mut lines = text.lines().map(str::to_owned);
    (lines.next().unwrap_or_default(), lines.next().unwrap_or_default())
}
