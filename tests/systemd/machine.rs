//! A machine with a real systemd: booted, asked, its power cut, shut down. It is a container (systemd-nspawn) whose first process is
//! systemd, with a file system of its own over one that all share, and with the host's network.
//!
//! It knows nothing of rekeyd. It ends with the test, however that ends: `setpriv --pdeathsig` kills `unshare`, `unshare --kill-child`
//! the first process of a pid namespace, and the kernel everything else in there.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write as _};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

/// How long a boot, a shutdown, and what a test waits for may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A machine; what runs in it is killed when it is dropped, and its file system goes.
pub struct Machine {
    /// Trees below its own, uppermost first.
    lower: Vec<PathBuf>,
    dir: PathBuf,
    name: String,
    running: Option<Running>,
    /// All that was printed by what was run in it.
    printed: Mutex<String>,
}

/// What a boot started.
struct Running {
    child: Child,
    /// Of systemd, as the host counts.
    leader: u32,
}

/// A command that has ended.
#[derive(Debug)]
pub struct Ran {
    /// Its exit code; `None` where a signal ended it.
    pub code: Option<i32>,
    /// What it printed.
    pub out: String,
    /// What it complained about.
    pub err: String,
}

impl Ran {
    /// What it printed, without the last newline.
    pub fn text(&self) -> &str {
        self.out.trim_end()
    }
}

impl Machine {
    /// A machine that is not running yet, on these trees, uppermost first.
    pub fn on(lower: &[&Path]) -> Machine {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("rekeyd-test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let dir = folder().join(&name);
        std::fs::create_dir_all(dir.join("upper")).expect("a folder can be made beside the trees");
        let lower = lower.iter().map(|path| (*path).to_owned()).collect();
        Machine { lower, dir, name, running: None, printed: Mutex::default() }
    }

    /// Boots it, and waits until systemd has started everything.
    pub fn boot(&mut self) {
        assert!(self.running.is_none(), "it runs already");
        let began = Instant::now();
        let lower: Vec<String> = self.lower.iter().map(|path| path.display().to_string()).collect();
        let console = std::fs::File::create(self.dir.join("console")).expect("a file can be made in its folder");
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]);
        command.args(["unshare", "--mount", "--pid", "--fork", "--kill-child=KILL", "--"]);
        command.arg(source("boot")).arg(lower.join(":")).arg(&self.dir).arg(self.groups()[0].as_path()).arg(&self.name);
        command.stdin(Stdio::null()).stdout(console.try_clone().expect("a second handle")).stderr(console);
        let child = spawn_for_good(command);
        self.running = Some(Running { child, leader: 0 });
        let leader = self.wait("a systemd of its own", |machine| leader_below(machine.child_pid()));
        self.running.as_mut().expect("it was put there").leader = leader;
        self.wait("the end of the boot", |machine| {
            let ran = machine.run(&["systemctl", "is-system-running", "--wait"]);
            match ran.text() {
                "running" => Some(()),
                "degraded" => panic!("a unit failed at boot: {}", machine.run(&["systemctl", "--failed"]).out),
                _ => None,
            }
        });
        println!("{} booted in {:.1} s", self.name, began.elapsed().as_secs_f32());
    }

    /// Whether it is on.
    pub fn runs(&self) -> bool {
        self.running.is_some()
    }

    /// Ends everything in it at once, as a power cut does. What was written is on its disk, synced or not: tests/chaos is where
    /// writes that were not synced are lost.
    pub fn cut_power(&mut self) {
        let mut running = self.running.take().expect("it runs");
        let first = children(running.child.id()).first().copied();
        // The first of its pid namespace: it is waited for until all others in there are gone. Else `unshare` takes it along.
        let gone = first.is_some_and(kill) || kill(running.child.id());
        assert!(gone, "nothing was there to kill");
        running.child.wait().expect("it can be waited for");
        self.remove_groups();
    }

    /// Shuts it down as an operator does.
    pub fn shut_down(&mut self) {
        self.run(&["systemctl", "poweroff"]);
        let running = self.running.as_mut().expect("it runs");
        let deadline = Instant::now() + PATIENCE;
        let ended = |child: &mut Child| child.try_wait().expect("it can be waited for").is_some();
        while !ended(&mut running.child) {
            assert!(Instant::now() < deadline, "it has not shut down within {PATIENCE:?}");
            pause();
        }
        self.running = None;
        self.remove_groups();
    }

    /// Runs a command in it as root.
    pub fn run(&self, words: &[&str]) -> Ran {
        self.run_with(words, "")
    }

    /// Runs a command in it as root and demands that it ends with 0.
    pub fn must(&self, words: &[&str]) -> Ran {
        let ran = self.run(words);
        assert_eq!(ran.code, Some(0), "{words:?}: {}{}", ran.out, ran.err);
        ran
    }

    /// Runs lines of a shell in it as root.
    pub fn sh(&self, lines: &str) -> Ran {
        self.run(&["sh", "-ec", lines])
    }

    /// Runs a command in it as root, with something to read.
    pub fn run_with(&self, words: &[&str], stdin: &str) -> Ran {
        let began = Instant::now();
        let ran = run_to_end(&mut self.inside(words), stdin);
        if began.elapsed() > Duration::from_secs(2) {
            println!("{:.1} s: {}", began.elapsed().as_secs_f32(), words.join(" "));
        }
        let _ = writeln!(self.printed.lock().expect("nobody panics while printing"), "{}{}", ran.out, ran.err);
        ran
    }

    /// A command to be run in it as root.
    fn inside(&self, words: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command.arg("-t").arg(self.leader().to_string()).args(["-m", "-u", "-i", "-n", "-p", "-C", "--"]).args(words);
        command.env_clear();
        for (name, value) in [
            ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
            ("HOME", "/root"),
            ("LANG", "C.UTF-8"),
            ("TERM", "dumb"),
            ("SYSTEMD_PAGER", ""),
            ("SYSTEMD_COLORS", "0"),
            ("DEBIAN_FRONTEND", "noninteractive"),
        ] {
            command.env(name, value);
        }
        command
    }

    /// All that was printed by what was run in it so far.
    pub fn printed(&self) -> String {
        self.printed.lock().expect("nobody panics while printing").clone()
    }

    /// A file or folder of the running machine, as the host reaches it. The path must not lead over an absolute link.
    pub fn path(&self, inside: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{inside}", self.leader()))
    }

    /// Where its own changes to the trees below are, running or not.
    pub fn changes(&self) -> PathBuf {
        self.dir.join("upper")
    }

    /// Writes a file in it, with this mode, whole at every moment; its folder is made where there is none.
    pub fn write(&self, inside: &str, mode: u32, bytes: &[u8]) {
        let path = self.path(inside);
        let folder = path.parent().expect("a file is in a folder");
        std::fs::create_dir_all(folder).expect("the folder can be made");
        let draft = folder.join(".draft");
        let _ = std::fs::remove_file(&draft);
        let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&draft);
        let mut file = file.expect("it can be made");
        file.write_all(bytes).expect("it can be written");
        file.set_permissions(std::fs::Permissions::from_mode(mode)).expect("it is ours");
        std::fs::rename(&draft, &path).expect("it can be put in place");
    }

    /// What the kernel says about a process of this machine, by its id in there: a line of `/proc/PID/status`.
    pub fn of_process(&self, pid: &str, field: &str) -> String {
        let ran = self.must(&["cat", &format!("/proc/{pid}/status")]);
        let line = ran.out.lines().find_map(|line| line.strip_prefix(&format!("{field}:")).map(str::to_owned));
        line.unwrap_or_else(|| panic!("no {field} in {}", ran.out)).trim().to_owned()
    }

    /// A property of a unit.
    pub fn show(&self, unit: &str, property: &str) -> String {
        self.must(&["systemctl", "show", "--value", "-p", property, unit]).text().to_owned()
    }

    /// The number of its systemd: 252, 257.
    pub fn version(&self) -> u32 {
        let ran = self.must(&["systemctl", "--version"]);
        let number = ran.out.split_whitespace().nth(1).and_then(|word| word.parse().ok());
        number.unwrap_or_else(|| panic!("no version in {}", ran.out))
    }

    /// Waits until something is there; says what its console and its journal said where it never comes.
    pub fn wait<T>(&self, what: &str, mut look: impl FnMut(&Machine) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = look(self) {
                return found;
            }
            assert!(!self.has_ended(), "the machine has ended, and {what} was waited for\n{}", self.console());
            assert!(Instant::now() < deadline, "waited {PATIENCE:?} in vain for {what}\n{}", self.console());
            pause();
        }
    }

    /// Whether it was booted, and what was started then is no more. It is left to be waited for.
    fn has_ended(&self) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        self.running.as_ref().is_some_and(|running| {
            let ended = waitid(WaitId::Pid(Pid::from_child(&running.child)), options);
            ended.expect("it is ours and was not waited for").is_some()
        })
    }

    fn console(&self) -> String {
        std::fs::read_to_string(self.dir.join("console")).unwrap_or_default()
    }

    fn child_pid(&self) -> u32 {
        self.running.as_ref().expect("it runs").child.id()
    }

    fn leader(&self) -> u32 {
        self.running.as_ref().expect("it runs").leader
    }

    /// Its control groups on the host: the one it is given, and the one nspawn makes of the same name where the host still has a tree
    /// of systemd's own.
    fn groups(&self) -> Vec<PathBuf> {
        group_mounts().into_iter().map(|mount| mount.join(&self.name)).collect()
    }

    fn remove_groups(&self) {
        for group in self.groups() {
            remove_group(&group);
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if self.running.is_some() {
            self.cut_power();
        }
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// Runs a command on the host to its end; kills it, and fails, where that takes longer than [`PATIENCE`] twice.
pub fn run_to_end(command: &mut Command, stdin: &str) -> Ran {
    run_within(PATIENCE * 2, command, stdin)
}

/// Of what has not ended in time nothing is waited for: who has left its group may hold its pipes for as long as it likes.
fn run_within(limit: Duration, command: &mut Command, stdin: &str) -> Ran {
    let deadline = Instant::now() + limit;
    // A group of its own, so that what it starts is killed with it; nsenter's child is in it too, in whatever namespace.
    command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let group = Pid::from_child(&child);
    // While it is written to it is read from; and who does not read it all has heard enough.
    let (mut pipe, stdin) = (child.stdin.take().expect("stdin was asked for"), stdin.to_owned());
    std::thread::spawn(move || pipe.write_all(stdin.as_bytes()));
    let (sender, ended) = mpsc::channel();
    let out = read_on(child.stdout.take().expect("stdout was asked for"), sender.clone());
    let err = read_on(child.stderr.take().expect("stderr was asked for"), sender.clone());
    let status = std::thread::spawn(move || {
        let status = child.wait();
        let _ = sender.send(());
        status
    });
    let heard =
        || [&out, &err].map(|all| String::from_utf8_lossy(&all.lock().expect("nobody panics with it")).into_owned());
    for _part in ["stdout", "stderr", "status"] {
        if ended.recv_timeout(deadline.saturating_duration_since(Instant::now())).is_err() {
            let _ = kill_process_group(group, Signal::KILL);
            let [out, err] = heard();
            panic!("{command:?} has not ended within {limit:?}, and was killed; so far it had said:\n{out}{err}");
        }
    }
    let status = status.join().expect("waiting does not panic").expect("it can be waited for");
    let [out, err] = heard();
    Ran { code: status.code(), out, err }
}

/// Collects all that comes from there, and says when no more does.
fn read_on(mut source: impl Read + Send + 'static, ended: mpsc::Sender<()>) -> Arc<Mutex<Vec<u8>>> {
    let all = Arc::new(Mutex::new(Vec::new()));
    let kept = all.clone();
    std::thread::spawn(move || {
        let mut buffer = [0; 8192];
        while let Ok(count @ 1..) = source.read(&mut buffer) {
            kept.lock().expect("nobody panics with it").extend_from_slice(&buffer[..count]);
        }
        let _ = ended.send(());
    });
    all
}

/// A file beside this one.
pub fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/systemd").join(name)
}

/// Where machines have their file systems: below target/, for a temporary directory may be one of memory, which no overlay works on.
/// What a run made there goes with it, and what was left in spite of that goes first.
pub fn folder() -> &'static Path {
    static FOLDER: OnceLock<(PathBuf, Child)> = OnceLock::new();
    let (folder, _remover) = FOLDER.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("systemd");
        std::fs::create_dir_all(&folder).expect("a folder can be made below target/");
        let of_the_dead = |path: &Path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let pid = name.strip_prefix("rekeyd-test-").and_then(|rest| rest.split('-').next());
            pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists())
        };
        for path in entries(&folder).into_iter().filter(|path| of_the_dead(path)) {
            let _ = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
        }
        for group in group_mounts().iter().flat_map(|mount| entries(mount)).filter(|path| of_the_dead(path)) {
            remove_group(&group);
        }
        let remover = remove_at_the_end(&folder.join(format!("rekeyd-test-{}-", std::process::id())));
        (folder, remover)
    });
    folder
}

/// What begins so is taken away when this process is gone, however it ends: the other end of a pipe notices, as long as this one is kept.
fn remove_at_the_end(beginning: &Path) -> Child {
    let mut command = Command::new("sh");
    command.args(["-c", r#"cat >/dev/null; rm -rf --one-file-system -- "$0"*"#]).arg(beginning);
    // Who waits for the end of what is printed does not wait for this; nor does Ctrl-C end it before its work is done.
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
    command.spawn().expect("there is a shell")
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

/// Where control groups are mounted: the tree of version 2 first, then the one that systemd had beside version 1.
fn group_mounts() -> Vec<PathBuf> {
    let mounts = std::fs::read_to_string("/proc/self/mounts").expect("the kernel says what is mounted");
    let of = |wanted: fn(&[&str]) -> bool| {
        let found = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>()).find(|words| wanted(words));
        found.map(|words| PathBuf::from(words[1]))
    };
    let second = of(|words| words[2] == "cgroup2").expect("control groups of version 2 are mounted somewhere");
    let first = of(|words| words[2] == "cgroup" && words[3].contains("name=systemd"));
    std::iter::once(second).chain(first).collect()
}

/// Only folders can be removed there, from the innermost on, and a group may be a moment in getting empty.
fn remove_group(group: &Path) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while group.exists() && Instant::now() < deadline {
        for inner in entries(group).into_iter().filter(|path| path.is_dir()) {
            remove_group(&inner);
        }
        if std::fs::remove_dir(group).is_err() {
            pause();
        }
    }
}

/// Starts a command from a thread that lives as long as this process. `--pdeathsig` means the thread that started it, and a test's own
/// thread may hand its machine to another one.
fn spawn_for_good(command: Command) -> Child {
    type Order = (Command, mpsc::Sender<std::io::Result<Child>>);
    static STARTER: OnceLock<Mutex<mpsc::Sender<Order>>> = OnceLock::new();
    let starter = STARTER.get_or_init(|| {
        let (sender, orders) = mpsc::channel::<Order>();
        std::thread::spawn(move || {
            for (mut command, answer) in orders {
                let _ = answer.send(command.spawn());
            }
        });
        Mutex::new(sender)
    });
    let (answer, answered) = mpsc::channel();
    let sent = starter.lock().expect("nobody panics while sending").send((command, answer));
    sent.expect("the thread lives as long as the process");
    answered.recv().expect("it answers").expect("setpriv and unshare are part of util-linux")
}

/// The systemd of a machine: the first process of the inmost namespace below this one.
fn leader_below(pid: u32) -> Option<u32> {
    let read = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
    let namespaces = read("status").lines().find_map(|line| line.strip_prefix("NSpid:").map(str::to_owned))?;
    let depth = namespaces.split_whitespace().count();
    let is_first = namespaces.split_whitespace().last() == Some("1");
    if is_first && depth > 2 && read("comm").trim() == "systemd" {
        return Some(pid);
    }
    children(pid).into_iter().find_map(leader_below)
}

fn children(pid: u32) -> Vec<u32> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

fn kill(pid: u32) -> bool {
    Command::new("kill").args(["-9", &pid.to_string()]).status().is_ok_and(|status| status.success())
}

/// The one pause there is: between two looks.
fn pause() {
    std::thread::sleep(Duration::from_millis(50));
}

#[test]
fn a_command_that_hangs_in_a_machine_is_killed_and_told() {
    let Some(tree) = crate::stage::tree() else { return };
    let mut machine = Machine::on(&[&tree]);
    machine.boot();
    // One that ends with its group, and one that has left it and holds the pipes.
    let mut command = machine.inside(&["sh", "-c", "echo so far; setsid sleep 4321 & sleep 1234; true"]);
    let began = Instant::now();
    let told = std::thread::spawn(move || run_within(Duration::from_secs(2), &mut command, "")).join();
    assert!(began.elapsed() < PATIENCE, "it was waited for");
    let told = *told.expect_err("it does not end").downcast::<String>().expect("a message");
    assert!(told.contains("has not ended within 2s") && told.ends_with("so far\n"), "{told}");
    machine.wait("its end", |machine| (machine.run(&["pgrep", "-f", "sleep 1234"]).code == Some(1)).then_some(()));
}

#[test]
fn a_machine_that_does_not_boot_is_told_at_once() {
    if crate::stage::tree().is_none() {
        return;
    }
    let empty = tempfile::tempdir().expect("a folder can be made");
    let path = empty.path().to_owned();
    let began = Instant::now();
    let told = std::thread::spawn(move || Machine::on(&[&path]).boot()).join();
    assert!(began.elapsed() < PATIENCE, "it was waited for");
    let told = *told.expect_err("there is nothing to boot").downcast::<String>().expect("a message");
    assert!(told.starts_with("the machine has ended") && told.contains("rekeyd-test-"), "{told}");
}

/// Ends a process of tests in the middle of a boot's life, as `kill -9` does, and looks for what it had started.
#[test]
fn nothing_outlives_a_test_that_is_killed() {
    const VICTIM: &str = "REKEYD_SYSTEMD_VICTIM";
    let Some(tree) = crate::stage::tree() else { return };
    if std::env::var_os(VICTIM).is_some() {
        let mut machine = Machine::on(&[&tree]);
        machine.boot();
        // The other process waits for this line, and ends this one.
        println!("leader {}", machine.leader());
        std::thread::sleep(PATIENCE);
        return;
    }
    // Named first, for what the dead have left is taken away then.
    let home = folder();
    let mut command = Command::new(std::env::current_exe().expect("it has a name"));
    command.args(["--exact", "--nocapture", "machine::nothing_outlives_a_test_that_is_killed"]).env(VICTIM, "1");
    let mut victim = command.stdout(Stdio::piped()).spawn().expect("it can be started again");
    let lines = BufReader::new(victim.stdout.take().expect("stdout was asked for")).lines().map_while(Result::ok);
    let mut leaders = lines.filter_map(|line| line.split_once("leader ").map(|(_, pid)| pid.to_owned()));
    let leader = Path::new("/proc").join(leaders.next().expect("it boots"));
    assert!(leader.exists());
    victim.kill().expect("it can be killed");
    victim.wait().expect("it can be waited for");
    let name = format!("--machine=rekeyd-test-{}-", victim.id());
    let deadline = Instant::now() + PATIENCE;
    let lives =
        |process: &PathBuf| std::fs::read_to_string(process.join("cmdline")).is_ok_and(|text| text.contains(&name));
    while leader.exists() || entries(Path::new("/proc")).iter().any(lives) {
        assert!(Instant::now() < deadline, "its machine lives on");
        pause();
    }
    let files = format!("rekeyd-test-{}-", victim.id());
    let left = || entries(home).into_iter().find(|path| path.to_string_lossy().contains(&files));
    while let Some(path) = left() {
        assert!(Instant::now() < deadline, "{} is left", path.display());
        pause();
    }
}
