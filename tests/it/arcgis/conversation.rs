//! One rotation for each product, as the built program and the lab's ArcGIS speak it: every request and every answer in order,
//! written down in `docs/conversations/`. These tests tell the rotation again and hold the page against it.
//!
//! A change of what rekeyd says to ArcGIS shows here. Where it is meant, `REKEYD_RECORD=1 cargo test --test it conversation` writes
//! the pages anew; the difference belongs into the review.
//!
//! Secrets, tokens, ciphertexts, ids of keys and jobs, times and ports are struck out or replaced; and whatever was struck out, the
//! page is searched for every secret there was before it is written or compared.

use std::fmt::Write as _;

use rekeyd_lab::{AwsOptions, Exchange, as_in_a_form};
use serde_json::Value;

use super::super::support::{self, Scene, wait_until};
use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_as_kubernetes_hears_it() {
    tell(Product::Kubernetes, "kubernetes", "ArcGIS Enterprise on Kubernetes 12.0").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_as_server_hears_it() {
    tell(Product::Server, "server", "ArcGIS Server 12.0").await;
}

/// A search that finds nothing whatever is there proves nothing.
#[test]
fn a_secret_in_a_recording_is_seen() {
    let secrets = ["p+ss/w0rd=&%-lab".to_owned(), "short".to_owned()];
    assert_eq!(leak("all is well, and short is too short to be one", &secrets), None);
    for page in ["says p+ss/w0rd=&%-lab", "says p%2Bss%2Fw0rd%3D%26%25-lab", "says p+ss\\/w0rd=&%-lab"] {
        assert!(leak(page, &secrets).is_some(), "{page}");
    }
    for page in ["{crypt}nawx4y2sVW68", "v2Crypt_ab/c", "Bearer abcdef"] {
        assert!(leak(page, &[]).is_some(), "{page}");
    }
    for page in ["{crypt}‹sealed›", "{crypt}xxxxxxxxxxxxxxxx‹end of secret 1›", "Bearer ‹token 1›"] {
        assert_eq!(leak(page, &[]), None, "{page}");
    }
}

async fn tell(product: Product, name: &'static str, title: &'static str) {
    // Long enough for a poll in each of its states.
    let options = ArcGisOptions { product, job_duration: Duration::from_secs(4), ..ArcGisOptions::default() };
    let scene = Scene::with(AwsOptions::default(), options).await;
    let told = tokio::task::spawn_blocking(move || {
        at_rest_but_for_the_rotation(&scene, product);
        {
            let daemon = scene.start_adopted();
            assert_eq!(daemon.stop().code(), Some(0));
        }
        scene.arcgis.record();
        let daemon = scene.start();
        wait_until("it has looked at what it finds", || scene.arcgis.conversation().len() >= 2);
        let ran = scene.run(&["rotate", support::SERVICE, "--wait=done"]);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        scene.assert_one_live_key();
        assert_eq!(daemon.stop().code(), Some(0));
        scene
    });
    let scene = match told.await {
        Ok(scene) => scene,
        Err(failed) => std::panic::resume_unwind(failed.into_panic()),
    };
    let conversation = scene.arcgis.conversation();
    let page = format!("{}{}", heading(title, name), Strike::new(&scene).page(&conversation));
    let mut secrets = scene.arcgis.all_secrets();
    secrets.extend(scene.aws.all_secrets());
    assert!(secrets.len() >= 4, "password, token and keys are known to the lab");
    if let Some(wrong) = leak(&page, &secrets) {
        // Not the page: it would stand in the log of the test.
        panic!("the recording of {name} shows a secret {wrong}");
    }
    held(&format!("docs/conversations/{name}.md"), &page);
}

/// The scene's policy for this product, with nothing in it that looks again by the clock.
fn at_rest_but_for_the_rotation(scene: &Scene, product: Product) {
    let mut policy = std::fs::read_to_string(scene.policy()).expect("the policy is there");
    policy = policy.replace("observe = \"1s\"", "observe = \"1h\"").replace("poll = \"50ms\"", "poll = \"300ms\"");
    if product == Product::Server {
        policy = policy.replace("product = \"kubernetes\"", "product = \"server\"");
        policy = policy.lines().filter(|line| !line.starts_with("portal_url")).collect::<Vec<_>>().join("\n");
    }
    std::fs::write(scene.policy(), policy).expect("the policy can be written");
}

fn heading(title: &str, name: &str) -> String {
    format!(
        "# One rotation, as {title} hears it\n\n\
         Everything rekeyd says to ArcGIS in one rotation, and what it is answered, in order: recorded between the built\n\
         program and the lab's {title}, a stand-in written from Esri's documents\n\
         ([what is verified and what is not](../arcgis.md)). Struck out, in ‹›: secrets, tokens, ciphertexts, ids of keys and\n\
         jobs, times. A form is shown decoded, one field a line. An exchange that was repeated unchanged is shown once.\n\n\
         `tests/it/arcgis/conversation.rs` makes this page (`REKEYD_RECORD=1 cargo test --test it conversation`) and holds it: a\n\
         request that is added, dropped or changed fails the test `a_rotation_as_{name}_hears_it`.\n"
    )
}

/// What has to be struck out or made stable, with what stands in its place.
struct Strike {
    texts: Vec<(String, String)>,
    jobs: Vec<String>,
}

impl Strike {
    fn new(scene: &Scene) -> Strike {
        let mut texts = vec![(ArcGisOptions::default().password, "‹password›".to_owned())];
        let held = scene.arcgis.held_key(support::CLOUD_SERVICE).expect("a key is held");
        for (n, (id, secret)) in [scene.first_key.clone(), held].into_iter().enumerate() {
            let n = n + 1;
            // The mask shows its last four, and they are another four at each recording.
            texts.push((
                format!("{}{}", "x".repeat(16), &secret[secret.len() - 4..]),
                format!("{}‹end of secret {n}›", "x".repeat(16)),
            ));
            texts.push((secret, format!("‹secret {n}›")));
            texts.push((id, format!("‹key {n}›")));
        }
        let mut tokens = Vec::new();
        for exchange in scene.arcgis.conversation() {
            let body = exchange.answer.map(|answer| answer.body).unwrap_or_default();
            let token =
                serde_json::from_str::<Value>(&body).ok().and_then(|body| body["token"].as_str().map(str::to_owned));
            tokens.extend(token);
        }
        texts.extend(tokens.into_iter().enumerate().map(|(n, token)| (token, format!("‹token {}›", n + 1))));
        let origin = scene.arcgis.admin_url();
        let origin = origin.split("/arcgis/").next().expect("a URL has a beginning").to_owned();
        texts.push((origin.clone(), "https://gis.example.com".to_owned()));
        texts.push((origin.trim_start_matches("http://").to_owned(), "gis.example.com".to_owned()));
        Strike { texts, jobs: scene.arcgis.jobs().into_iter().map(|job| job.id).collect() }
    }

    fn text(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (secret, shown) in &self.texts {
            text = text.replace(secret, shown);
        }
        for (n, job) in self.jobs.iter().enumerate() {
            text = text.replace(job, &format!("j00000000-0000-0000-0000-{:012}", n + 1));
        }
        for prefix in ["{crypt}", "v2Crypt_"] {
            text = sealed(&text, prefix);
        }
        text
    }

    /// JSON in many lines, with its times struck out; anything else as it is.
    fn body(&self, body: &str) -> String {
        let Ok(mut value) = serde_json::from_str::<Value>(body) else { return self.text(body) };
        timeless(&mut value);
        self.text(&serde_json::to_string_pretty(&value).expect("a value without odd keys is JSON"))
    }

    fn exchange(&self, exchange: &Exchange) -> String {
        let mut told = String::new();
        let query = if exchange.query.is_empty() { String::new() } else { format!("?{}", exchange.query) };
        let _ = writeln!(told, "```http\n{} {}{}", exchange.method, self.text(&exchange.path), self.text(&query));
        let mut headers: Vec<_> =
            exchange.headers.iter().filter(|(name, _)| name != "content-length" && name != "user-agent").collect();
        headers.sort();
        for (name, value) in headers {
            let _ = writeln!(told, "{name}: {}", self.text(value));
        }
        if !exchange.form.is_empty() {
            told.push('\n');
        }
        for (name, value) in &exchange.form {
            let _ = writeln!(told, "{name} = {}", self.text(value));
        }
        told.push_str("```\n\n");
        match &exchange.answer {
            None => told.push_str("No answer.\n"),
            Some(answer) => {
                let kind =
                    answer.headers.iter().find(|(name, _)| name == "content-type").map_or("nothing", |(_, kind)| kind);
                let _ =
                    writeln!(told, "Answer {}, {kind}:\n\n```json\n{}\n```", answer.status, self.body(&answer.body));
            }
        }
        told
    }

    fn page(&self, conversation: &[Exchange]) -> String {
        let mut told: Vec<String> = Vec::new();
        for exchange in conversation.iter().map(|exchange| self.exchange(exchange)) {
            if told.last() != Some(&exchange) {
                told.push(exchange);
            }
        }
        let mut page = String::new();
        for (n, exchange) in told.iter().enumerate() {
            let _ = write!(page, "\n## {}\n\n{exchange}", n + 1);
        }
        page
    }
}

/// Times in milliseconds, as numbers or texts, become one word; a zero says "not yet" and stays.
fn timeless(value: &mut Value) {
    let is_time = |millis: i64| millis > 1_000_000_000_000;
    match value {
        Value::Array(list) => list.iter_mut().for_each(timeless),
        Value::Object(map) => map.values_mut().for_each(timeless),
        Value::Number(number) if number.as_i64().is_some_and(is_time) => *value = "‹milliseconds›".into(),
        Value::String(text) if text.parse().is_ok_and(is_time) => *value = "‹milliseconds, as a text›".into(),
        _ => {}
    }
}

fn is_cipher(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || "+/=".contains(letter)
}

/// What follows a prefix of a ciphertext is struck out; a mask is not one.
fn sealed(text: &str, prefix: &str) -> String {
    let mut parts = text.split(prefix);
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        out.push_str(prefix);
        let rest = part.trim_start_matches(is_cipher);
        if part.starts_with(&"x".repeat(16)) {
            out.push_str(part);
        } else {
            out.push_str("‹sealed›");
            out.push_str(rest);
        }
    }
    out
}

/// Where a page shows a secret: any that is known, as it is, as a form or as JSON spells it; a ciphertext; a token after its word.
fn leak(page: &str, secrets: &[String]) -> Option<String> {
    for (n, secret) in secrets.iter().filter(|secret| secret.len() >= 8).enumerate() {
        let quoted = Value::String(secret.clone()).to_string();
        for spelling in
            [secret.clone(), as_in_a_form(secret), secret.replace('/', "\\/"), quoted.trim_matches('"').to_owned()]
        {
            if page.contains(&spelling) {
                return Some(format!("(number {n} of those known)"));
            }
        }
    }
    for prefix in ["{crypt}", "v2Crypt_", "Bearer "] {
        for shown in page.split(prefix).skip(1) {
            let is_mask = shown.starts_with(&format!("{}‹", "x".repeat(16)));
            if shown.starts_with(is_cipher) && !is_mask {
                return Some(format!("after {prefix}"));
            }
        }
    }
    None
}

/// Compares with the page, or writes it where that is asked for.
fn held(file: &str, told: &str) {
    if std::env::var_os("REKEYD_RECORD").is_some() {
        let path = std::path::Path::new(file);
        std::fs::create_dir_all(path.parent().expect("it lies in a folder")).expect("the folder can be made");
        std::fs::write(path, told).expect("the page can be written");
        return;
    }
    let page = std::fs::read_to_string(file).unwrap_or_default();
    if page != told {
        let differs = page.lines().zip(told.lines()).position(|(old, new)| old != new);
        let line = differs.unwrap_or_else(|| page.lines().count().min(told.lines().count()));
        let around = |text: &str| text.lines().skip(line.saturating_sub(12)).take(24).collect::<Vec<_>>().join("\n");
        panic!(
            "what rekeyd and ArcGIS say to each other is no longer what {file} shows, from line {} on.\n\nthe page:\n{}\n\nheard:\n{}\n\n\
             If that is meant: REKEYD_RECORD=1 cargo test --test it conversation",
            line + 1,
            around(&page),
            around(told)
        );
    }
}
