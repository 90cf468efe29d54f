//! Whether the policy in the file was refused at the last reload, and why: what systemd's own answer to a reload cannot say.
//!
//! It is forgotten with the next good reload, and with the process: a start with such a file ends at once.

use std::sync::Arc;

use tokio::sync::watch;

/// What was refused, and what to type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Why, as whoever asked for the reload reads it: mistakes with their lines.
    pub why: String,
    /// What takes the new policy up.
    pub next: &'static str,
}

impl Refusal {
    /// The file has mistakes.
    pub const MISTAKES: &'static str = "rekeyd check; once it is mended, systemctl reload rekeyd";
    /// The file is right, and only a new process can follow it.
    pub const RESTART: &'static str = "systemctl restart rekeyd takes it up";
    /// The file is right, and a secret of systemd's is not there, which comes with a new process only.
    pub const LACKING: &'static str = "put the secret in its place, then systemctl restart rekeyd";
    /// What stands in the way is of the services' own.
    pub const MENDED: &'static str = "mend what it names, then systemctl reload rekeyd";

    /// A refusal for this reason.
    pub fn new(why: impl Into<String>, next: &'static str) -> Refusal {
        Refusal { why: why.into().trim_end().to_owned(), next }
    }

    /// Why, without the lines of the file themselves: for those who may see how things stand, and not what the policy says.
    pub fn headlines(&self) -> String {
        let quotes = |line: &&str| line.starts_with(' ') || line.starts_with("help:") || line.is_empty();
        let headlines: Vec<&str> = self.why.lines().filter(|line| !quotes(line)).take(HEADLINES_MAX).collect();
        headlines.join("\n")
    }
}

/// More are not told to those.
const HEADLINES_MAX: usize = 20;

/// Says what was refused.
pub struct Refusals(watch::Sender<Option<Arc<Refusal>>>);

/// Hears of it.
#[derive(Clone)]
pub struct Refused(watch::Receiver<Option<Arc<Refusal>>>);

impl Default for Refusals {
    fn default() -> Self {
        Refusals(watch::Sender::new(None))
    }
}

impl Refusals {
    /// The file was refused, and what is in force is older.
    pub fn refuse(&self, refusal: Refusal) {
        self.0.send_replace(Some(Arc::new(refusal)));
    }

    /// The file is in force.
    pub fn clear(&self) {
        self.0.send_replace(None);
    }

    /// For those who are to know.
    pub fn heard(&self) -> Refused {
        Refused(self.0.subscribe())
    }
}

impl Refused {
    /// Why the file was refused, where it was.
    pub fn refusal(&self) -> Option<Arc<Refusal>> {
        self.0.borrow().clone()
    }

    /// Waits until that changes; for ever where nobody can say so any more.
    pub async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headlines_show_no_line_of_the_file() {
        let why = "p.toml:3:1: unknown key `sok` in [daemon]\n 3 | sok = 1\n   | ^^^\nhelp: did you mean `soak`?\n\n1 mistake in p.toml\n";
        let refusal = Refusal::new(why, Refusal::MISTAKES);
        assert_eq!(refusal.headlines(), "p.toml:3:1: unknown key `sok` in [daemon]\n1 mistake in p.toml");
    }
}
