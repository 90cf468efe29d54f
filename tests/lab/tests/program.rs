//! The program starts, tells where everything is and no secret, obeys the control endpoint, and ends when told to.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};

struct Program {
    child: Child,
    stdout: BufReader<ChildStdout>,
    said: String,
    dir: PathBuf,
}

impl Program {
    async fn start() -> Self {
        let dir = std::env::temp_dir().join(format!("rekeyd-lab-{}", uuid::Uuid::new_v4()));
        let mut child = Command::new(env!("CARGO_BIN_EXE_rekeyd-lab"))
            .arg("--dir")
            .arg(&dir)
            .arg("--tls")
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the program starts");
        let mut stdout = BufReader::new(child.stdout.take().expect("stdout is a pipe"));
        let mut said = String::new();
        while !said.ends_with("ready\n") {
            assert_ne!(stdout.read_line(&mut said).await.expect("it speaks text"), 0, "it ended: {said}");
        }
        Self { child, stdout, said, dir }
    }

    fn control(&self) -> String {
        let line =
            self.said.lines().find_map(|line| line.strip_prefix("control")).expect("it names its control endpoint");
        line.trim().trim_end_matches("/lab/state").to_owned()
    }

    async fn end(mut self) -> (PathBuf, String) {
        let id = self.child.id().expect("it runs").to_string();
        Command::new("kill").args(["-TERM", &id]).status().await.expect("kill runs");
        assert!(self.child.wait().await.expect("it ends").success());
        self.stdout.read_to_string(&mut self.said).await.expect("it speaks text");
        (self.dir.clone(), self.said)
    }
}

#[tokio::test]
async fn it_keeps_its_secrets_in_files_and_takes_orders() {
    let program = Program::start().await;
    let (control, http) = (program.control(), reqwest::Client::builder().no_proxy().build().expect("a plain client"));
    let order = |body: Value| http.post(format!("{control}/lab/fault")).json(&body).send();
    let late = json!({"system": "aws", "operation": "CreateAccessKey", "fault": "late", "ms": 5});
    assert_eq!(order(late).await.expect("it answers").status(), 200);
    let script = json!({"system": "server", "operation": "job-script", "fault": "vanish"});
    assert_eq!(order(script).await.expect("it answers").status(), 200);
    let nothing = json!({"system": "aws", "operation": "CreateAccessKey", "fault": "error"});
    let refused = order(nothing).await.expect("it answers");
    assert_eq!(refused.status(), 400);
    let why = refused.json::<Value>().await.expect("JSON");
    assert_eq!(why, json!({"error": "this fault needs a status from 400 to 599"}));
    let state = http.get(format!("{control}/lab/state")).send().await.expect("it answers").text().await.expect("text");
    assert!(state.contains("eg7hrelq6b"));

    let (dir, said) = program.end().await;
    let mut files = 0;
    for file in std::fs::read_dir(&dir).expect("the directory is there") {
        let path = file.expect("it can be read").path();
        let name = path.file_name().and_then(|name| name.to_str()).expect("plain names").to_owned();
        assert_eq!(path.metadata().expect("it is there").permissions().mode() & 0o777, 0o600, "{name}");
        let text = std::fs::read_to_string(&path).expect("it is text");
        if name.contains("secret") || name.contains("password") {
            assert!(!said.contains(text.trim()) && !state.contains(text.trim()), "{name}");
        }
        files += 1;
    }
    assert_eq!(files, 6);
    std::fs::remove_dir_all(dir).expect("it is ours");
}

#[tokio::test]
async fn a_wrong_command_line_is_told_how_it_should_be() {
    let output = Command::new(env!("CARGO_BIN_EXE_rekeyd-lab")).arg("--job-ms").output().await.expect("it runs");
    assert_eq!(output.status.code(), Some(2));
    let why = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(why.starts_with("rekeyd-lab: --job-ms needs a value\nusage: rekeyd-lab --dir DIR"), "{why}");
}
