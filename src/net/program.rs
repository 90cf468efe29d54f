//! Runs a program of the operator's: one process for each request, what it is told on its stdin, what it answers on its stdout.
//!
//! Nothing secret is in its arguments or its environment, which hold what the policy says and no more of ours. It has a process group
//! of its own, which is killed whole when its time is up, when nobody waits for it any more, and when its first process ends in any other
//! way than with exit code 0: what goes on behind its back would act when nobody expects it any more. The signals that the daemon obeys
//! it ignores. This does not know what is said to it, what an answer means, or whether asking again is safe; and it never starts a
//! program twice.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal as Kill, WaitId, WaitIdOptions, kill_process_group, waitid};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::path::{Trouble, walk};

/// So much of what a program prints on its stdout is read: 1 MiB. What comes after is thrown away, and told.
pub const OUT_MAX: usize = 1024 * 1024;
/// So much of its stderr is kept; a message quotes far less.
const ERR_MAX: usize = 16 * 1024;
/// How long the pipes of a program that has ended are listened to: what it left running may hold them open for ever.
const GRACE: Duration = Duration::from_millis(500);
/// How long a killed program may take to be gone.
const GRAVE: Duration = Duration::from_secs(2);

/// What every program finds in its environment, unless the policy says otherwise.
const ENVIRONMENT: [(&str, &str); 2] =
    [("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"), ("LANG", "C.UTF-8")];

/// Every program is started through a shell, which lets it ignore the signals that the daemon obeys: one that is sent to the whole
/// service (`systemctl kill`) must not end a mint halfway. A process can ignore them for another one only in between fork and exec,
/// which takes unsafe code, or like this.
const SHELL: &str = "/bin/sh";
const DEAF: &str = "trap '' HUP INT TERM USR1 USR2; exec \"$0\" \"$@\"";

/// A program as the policy names it.
#[derive(Clone, Debug)]
pub struct Program {
    path: PathBuf,
    args: Vec<String>,
    environment: Vec<(String, String)>,
    timeout: Duration,
    leaves_nothing: bool,
}

/// A program that has ended.
#[derive(Debug)]
pub struct Ended {
    /// How.
    pub status: ExitStatus,
    /// What it printed, up to [`OUT_MAX`]; it may be secret.
    pub out: Zeroizing<Vec<u8>>,
    /// It printed more than that.
    pub overlong: bool,
    /// The beginning of what it complained about; it may hold secrets.
    pub err: Zeroizing<String>,
}

/// Why there is nothing to tell of a program.
#[derive(Debug)]
pub enum Failure {
    /// It was not started.
    NotStarted(String),
    /// It was started, and what it did nobody knows.
    Broken {
        /// What happened.
        why: String,
        /// The beginning of what it complained about; it may hold secrets.
        err: Zeroizing<String>,
    },
}

impl Program {
    /// The program at this absolute path. `environment` is added to a `PATH` and a `LANG`, or comes before them.
    pub fn new(
        path: impl Into<PathBuf>,
        args: Vec<String>,
        environment: Vec<(String, String)>,
        timeout: Duration,
    ) -> Self {
        Self { path: path.into(), args, environment, timeout, leaves_nothing: false }
    }

    /// What it started ends with it, even where it ended well.
    pub fn leaving_nothing(self) -> Self {
        Self { leaves_nothing: true, ..self }
    }

    /// For messages: the path alone, since arguments may be long.
    pub fn name(&self) -> String {
        self.path.display().to_string()
    }

    /// Whether it is a program that only root or this user can have put there.
    ///
    /// # Errors
    /// What is wrong with it, and what to do.
    pub fn check(&self) -> Result<(), String> {
        trusted(&self.path)
    }

    /// Starts it, hands it `input` and waits for its end.
    ///
    /// # Errors
    /// [`Failure`], which says whether it was started.
    pub async fn run(&self, input: &[u8]) -> Result<Ended, Failure> {
        self.run_and_listen(input, GRACE).await
    }

    async fn run_and_listen(&self, input: &[u8], grace: Duration) -> Result<Ended, Failure> {
        self.check().map_err(Failure::NotStarted)?;
        let not_started = |error| Failure::NotStarted(format!("{} could not be started: {error}", self.name()));
        // Listened to before it can end.
        let mut deaths = signal(SignalKind::child()).map_err(not_started)?;
        let mut child = self.command().spawn().map_err(not_started)?;
        let leader = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        let mut group = Group(leader);
        let stdin = child.stdin.take();
        let (mut out, mut err) = (Kept::new(OUT_MAX), Kept::new(ERR_MAX));
        let waited = {
            let (from_out, from_err) = (child.stdout.take(), child.stderr.take());
            let mut reads = pin!(async { tokio::join!(out.fill(from_out), err.fill(from_err)) });
            let mut feed = pin!(async {
                if let Some(mut stdin) = stdin {
                    // A program that does not read to the end says so by its answer.
                    let _ = stdin.write_all(input).await;
                }
            });
            let (mut fed, mut read) = (false, false);
            let over = timeout(self.timeout, async {
                let mut over = pin!(over(leader, &mut deaths));
                loop {
                    tokio::select! {
                        is_well = &mut over => break is_well,
                        () = &mut feed, if !fed => fed = true,
                        _ = &mut reads, if !read => read = true,
                    }
                }
            });
            match over.await {
                Ok(Ok(is_well)) => {
                    // Nobody has asked how it ended yet, so that its id is still its own, and its group's.
                    if is_well && !self.leaves_nothing {
                        group.0 = None
                    } else {
                        group.kill()
                    }
                    let status = child.wait().await;
                    if !read {
                        let _ = timeout(grace, &mut reads).await;
                    }
                    status.map_err(|error| format!("waiting for {} failed: {error}", self.name()))
                }
                Ok(Err(error)) => Err(format!("waiting for {} failed: {error}", self.name())),
                Err(_) => {
                    let whole = self.timeout.as_secs_f64();
                    Err(format!("{} had not ended after {whole} s and was killed", self.name()))
                }
            }
        };
        let why = match waited {
            Ok(status) => {
                let (overlong, err) = (out.overlong, err.text());
                return Ok(Ended { status, out: out.bytes(), overlong, err });
            }
            Err(why) => why,
        };
        group.kill();
        let _ = timeout(GRAVE, child.wait()).await;
        Err(Failure::Broken { why, err: err.text() })
    }

    fn command(&self) -> Command {
        let mut command = Command::new(SHELL);
        command.args(["-c", DEAF]).arg(&self.path).args(&self.args);
        command.env_clear().envs(ENVIRONMENT).envs(self.environment.iter().cloned());
        command.current_dir("/").process_group(0).kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }
}

/// Waits until a child has ended, and tells whether that was with exit code 0. It is left unburied.
async fn over(child: Option<Pid>, deaths: &mut Signal) -> std::io::Result<bool> {
    let child = child.ok_or(std::io::ErrorKind::NotFound)?;
    loop {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        if let Some(status) = waitid(WaitId::Pid(child), options)? {
            return Ok(status.exit_status() == Some(0));
        }
        deaths.recv().await;
    }
}

/// How a program ended, where that was not well: for a message.
pub fn in_words(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with exit code {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "ended without an exit code".to_owned(),
    }
}

/// What is run with our rights, and told our secrets, is root's or ours, and nobody else can change it.
fn trusted(path: &Path) -> Result<(), String> {
    let name = path.display();
    if !path.is_absolute() {
        return Err(format!("{name} is no absolute path"));
    }
    let found = walk(path, None).map_err(|trouble| match trouble {
        Trouble::Missing => format!("{name} cannot be looked at: there is no such file"),
        Trouble::Failed(error) => format!("{name} cannot be looked at: {error}"),
        Trouble::Unsafe(what) => format!("{name} is not run: {what}"),
    })?;
    let about = std::fs::File::from(found).metadata();
    let about = about.map_err(|error| format!("{name} cannot be looked at: {error}"))?;
    if !about.is_file() || about.mode() & 0o111 == 0 {
        return Err(format!("{name} is no program; make it executable (chmod 0755)"));
    }
    let own = rustix::process::geteuid().as_raw();
    if about.uid() != 0 && about.uid() != own {
        return Err(format!(
            "{name} belongs to user {}; only a program of root, or of rekeyd's own user, is run",
            about.uid()
        ));
    }
    if about.mode() & 0o022 != 0 {
        return Err(format!("{name} may be written by others than its owner; chmod go-w it"));
    }
    Ok(())
}

/// A process group, killed when nobody waits for it any more.
struct Group(Option<Pid>);

impl Group {
    fn kill(&mut self) {
        if let Some(leader) = self.0.take() {
            // It may be gone already.
            let _ = kill_process_group(leader, Kill::KILL);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The beginning of what comes out of a pipe, in one buffer of the final size, so that growing leaves no copy behind.
struct Kept {
    buffer: Zeroizing<Vec<u8>>,
    length: usize,
    overlong: bool,
}

impl Kept {
    fn new(max: usize) -> Self {
        Self { buffer: Zeroizing::new(vec![0; max]), length: 0, overlong: false }
    }

    /// Reads to the end, and throws away what does not fit: a program must not hang on a full pipe.
    async fn fill(&mut self, pipe: Option<impl AsyncRead + Unpin>) {
        let Some(mut pipe) = pipe else { return };
        let mut rest = Zeroizing::new([0; 1024]);
        loop {
            let room = &mut self.buffer[self.length..];
            let full = room.is_empty();
            let read = if full { pipe.read(&mut *rest).await } else { pipe.read(room).await };
            match read {
                Ok(0) | Err(_) => return,
                Ok(_) if full => self.overlong = true,
                Ok(count) => self.length += count,
            }
        }
    }

    fn bytes(mut self) -> Zeroizing<Vec<u8>> {
        self.buffer.truncate(self.length);
        std::mem::take(&mut self.buffer)
    }

    fn text(&self) -> Zeroizing<String> {
        Zeroizing::new(String::from_utf8_lossy(&self.buffer[..self.length]).into_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str, timeout_ms: u64) -> Program {
        let args = vec!["-c".to_owned(), script.to_owned()];
        Program::new("/bin/sh", args, vec![("REGION".into(), "eu".into())], Duration::from_millis(timeout_ms))
    }

    #[tokio::test]
    async fn it_reads_what_it_is_told_and_finds_a_bare_environment() {
        let ended = sh("cat; env | sort | cut -d= -f1 | tr '\\n' ' '; pwd; echo oops >&2; exit 3", 20_000);
        let ended = ended.run(b"hello ").await.expect("it ends");
        let out = String::from_utf8(ended.out.to_vec()).expect("it is text");
        assert_eq!(out, "hello LANG PATH PWD REGION /\n");
        assert_eq!((ended.status.code(), ended.err.as_str(), ended.overlong), (Some(3), "oops\n", false));
        assert_eq!(in_words(ended.status), "ended with exit code 3");
    }

    #[tokio::test]
    async fn a_program_that_does_not_end_is_killed_with_all_it_started() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("pids");
        let script = format!("sleep 600 & echo $! > {0}; echo $$ >> {0}; echo stuck >&2; wait", file.display());
        let Err(Failure::Broken { why, err }) = sh(&script, 5000).run(b"").await else { panic!("it never ends") };
        assert_eq!((why.as_str(), err.as_str()), ("/bin/sh had not ended after 5 s and was killed", "stuck\n"));
        let pids = std::fs::read_to_string(&file).expect("they were written");
        assert_eq!(pids.lines().count(), 2);
        for pid in pids.lines() {
            is_gone(pid).await;
        }
    }

    #[tokio::test]
    async fn what_a_program_started_ends_with_one_that_did_not_end_well() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("pid");
        for (end, left) in [("kill -9 $$", false), ("exit 1", false), ("exit 0", true)] {
            let script = format!("sleep 600 >/dev/null 2>&1 & echo $! > {}; {end}", file.display());
            for program in [sh(&script, 20_000), sh(&script, 20_000).leaving_nothing()] {
                let ended = program.run(b"").await.expect("it ends");
                assert_eq!(ended.status.success(), left, "{end}");
                let pid = std::fs::read_to_string(&file).expect("it was written");
                if left && !program.leaves_nothing {
                    assert!(lives(pid.trim()), "{end}");
                    let pid = pid.trim().parse().ok().and_then(Pid::from_raw).expect("a number");
                    rustix::process::kill_process(pid, Kill::KILL).expect("it is ours");
                }
                is_gone(pid.trim()).await;
            }
        }
    }

    #[tokio::test]
    async fn the_signals_of_the_daemon_do_not_end_a_program() {
        let script = "for signal in HUP INT TERM USR1 USR2; do kill -$signal 0; done; echo \"$0 $1\"";
        let program = sh(script, 20_000);
        let args = program.args.iter().cloned().chain(["-n a".to_owned(), "b  c".to_owned()]).collect();
        let ended = Program { args, ..program }.run(b"").await.expect("it ends");
        let out = String::from_utf8(ended.out.to_vec()).expect("it is text");
        assert!(ended.status.success() && out.ends_with("-n a b  c\n"), "{:?}: {out}", ended.status);
    }

    /// What it left running has its output open for longer than it might itself have taken.
    #[tokio::test]
    async fn the_time_in_which_its_output_is_awaited_is_not_its_own() {
        let ended = sh("sleep 12 & echo done", 10_000).run_and_listen(b"", Duration::from_secs(60)).await;
        let ended = ended.expect("it ended long before its time was up");
        assert_eq!((&ended.out[..], ended.status.success()), (&b"done\n"[..], true));
    }

    #[tokio::test]
    async fn a_program_nobody_waits_for_any_more_is_killed() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("pid");
        let program = sh(&format!("sleep 600 & echo $! > {}.new; mv {0}.new {0}; wait", file.display()), 600_000);
        let running = tokio::spawn(async move { program.run(b"").await.is_ok() });
        while !file.exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        running.abort();
        is_gone(std::fs::read_to_string(&file).expect("it is there").trim()).await;
    }

    /// A killed orphan is somebody else's to bury.
    fn lives(pid: &str) -> bool {
        std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
    }

    async fn is_gone(pid: &str) {
        for _ in 0..1000 {
            if !lives(pid) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{pid} lives on");
    }

    #[tokio::test]
    async fn what_it_left_running_keeps_nobody_waiting() {
        let ended = sh("sleep 30 & echo done", 20_000).run(b"").await.expect("it ends");
        assert_eq!(&ended.out[..], b"done\n");
    }

    #[tokio::test]
    async fn neither_an_endless_answer_nor_an_unread_request_blocks() {
        let ended = sh("head -c 1500000 /dev/zero; exec 0<&-; echo end >&2", 20_000);
        let ended = ended.run(&vec![b'x'; 300_000]).await.expect("it ends");
        assert_eq!((ended.out.len(), ended.overlong, ended.err.as_str()), (OUT_MAX, true, "end\n"));
    }

    #[tokio::test]
    async fn a_program_that_others_may_change_is_not_started() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("tool");
        std::fs::write(&path, "#!/bin/sh\n").expect("it can be written");
        for (mode, what) in
            [(0o644, "is no program"), (0o775, "may be written by others"), (0o757, "may be written by others")]
        {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("it is ours");
            let program = Program::new(&path, Vec::new(), Vec::new(), Duration::from_secs(1));
            match program.run(b"").await {
                Err(Failure::NotStarted(why)) => assert!(why.contains(what), "{why}"),
                other => panic!("{mode:o}: {other:?}"),
            }
        }
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("it is ours");
        let program = |path: &str| Program::new(path, Vec::new(), Vec::new(), Duration::from_secs(1)).check();
        let name = path.display().to_string();
        assert_eq!(program(&name), Ok(()));
        // Whoever may write where it lies may put another in its place.
        for mode in [0o775, 0o757, 0o777] {
            std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(mode)).expect("it is ours");
            let why = program(&name).expect_err("it is not safe there");
            assert!(why.starts_with(&format!("{name} is not run: others may write the directory")), "{why}");
        }
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o700)).expect("it is ours");
        assert_eq!(program("bin/sh"), Err("bin/sh is no absolute path".to_owned()));
        assert!(program("/nonexistent/tool").is_err_and(|why| why.contains("/nonexistent/tool cannot be looked at")));
        assert_eq!(program("/bin/sh"), Ok(()));
    }
}
