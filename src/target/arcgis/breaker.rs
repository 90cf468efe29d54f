//! The circuit breaker of a deployment: an ArcGIS that is down is asked once in a while, by one of its services for all.
//!
//! ```text
//!            cannot be reached, or the second silence in a row
//!   closed ────────────────────────────────────────────────────▶ open: nothing goes out until `next`
//!     ▲                                                            │ then one trial, whoever asks first
//!     └────────────── anything that ArcGIS itself says ◀───────────┤
//!                                                                  └─ anything else: the pause doubles, or is what was asked for
//! ```
//!
//! What an outcome tells of the deployment as a whole is told here too. It acts before a request is sent and at no other time: what
//! became of a request is never its to say. It does not wait or send.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::envelope::Verdict;
use crate::ports::Fault;

/// Pause before the first trial; it doubles.
const PAUSE_FIRST: Duration = Duration::from_secs(1);

/// Longest pause of our own. A server may ask for more by `Retry-After`.
const PAUSE_LAST: Duration = Duration::from_secs(60);

/// One answer that does not come may be a slow request; so many in a row are a deployment that is down.
const SILENCES_MIN: u32 = 2;

/// While a trial is under way: when it is worth asking again, at the latest.
const TRIAL_TAKES: Duration = Duration::from_secs(5);

/// Closed as long as nothing speaks against it.
#[derive(Debug, Default)]
pub struct Breaker(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    silences: u32,
    outage: Option<Outage>,
}

#[derive(Debug)]
struct Outage {
    since: Instant,
    attempts: u32,
    /// Of the attempts, those since an operator last opened the way.
    in_a_row: u32,
    said: String,
    next: Instant,
    is_tried: bool,
}

/// What a request is, as far as its outcome tells of the deployment as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// For what the deployment has: a token, the admin directory itself, cloud services where one is a target. Where that is
    /// absent, so is ArcGIS.
    Always,
    /// For something that may well be absent, such as a job.
    Perhaps,
    /// For something beside the deployment, such as what its portal says of a user. Tells nothing of the deployment, and is no trial
    /// of it.
    Beside,
    /// For a change. A front end that waited too long for it, or a page for its answer, tells of the change and of nothing else.
    Change,
}

/// What a request told of the deployment as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// ArcGIS said something, whatever it was.
    Up,
    /// It cannot be reached, or something in front of it says that it is not there.
    Down {
        /// What was tried and what came back.
        said: String,
        /// When the other side asks to be asked again.
        after: Option<Duration>,
    },
    /// No answer.
    Silent(String),
    /// Something that comes from a healthy deployment too.
    Nothing(String),
}

impl Told {
    /// What a request that brought no answer tells of the deployment.
    pub fn by_fault(fault: &Fault) -> Self {
        match fault {
            Fault::NotSent(why) => Self::Down { said: why.clone(), after: None },
            Fault::Unknown(why) => Self::Silent(why.clone()),
            // Somebody is there whose certificate is not trusted, or who does not trust ours.
            Fault::Refused { .. } | Fault::Retry { .. } => Self::Up,
        }
    }

    /// What an answer tells of the deployment: a front end's 502, 503 and 504, and its pages, are not ArcGIS.
    pub fn by_answer(asked: Asked, status: u16, after: Option<Duration>, verdict: &Verdict, doing: &str) -> Self {
        let said = |what: &str| format!("{doing}: {what}");
        match verdict {
            Verdict::Good(_) => Self::Up,
            Verdict::Text(_) if asked == Asked::Change => Self::Up,
            Verdict::Text(_) => Self::Down { said: said("a page instead of JSON"), after },
            Verdict::Complaint(complaint) if complaint.in_envelope => Self::Up,
            Verdict::Complaint(complaint) => match (status, asked) {
                (502..=504 | 404, Asked::Change) => Self::Nothing(said(&complaint.said)),
                (502..=504, _) | (404, Asked::Always) => Self::Down { said: said(&complaint.said), after },
                (404, Asked::Perhaps) => Self::Nothing(said(&complaint.said)),
                _ => Self::Up,
            },
        }
    }
}

/// Why a request may not be sent now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shut {
    /// Since when it is down, what the last attempt came to, when the next one is due.
    pub why: String,
    /// When it is worth asking again.
    pub after: Duration,
}

impl Shut {
    /// The fault of a request that is not sent because the deployment is down.
    pub fn fault(self, what: &str, asked: Asked) -> Fault {
        let why = format!("{what}: not sent: {}", self.why);
        match asked {
            Asked::Change => Fault::NotSent(why),
            Asked::Always | Asked::Perhaps | Asked::Beside => Fault::Retry { after: Some(self.after), why },
        }
    }
}

/// Leave to send one request. Dropped without a word (the caller was cancelled), it has told nothing, and another may try.
#[derive(Debug)]
pub struct Passage<'b> {
    breaker: &'b Breaker,
    is_trial: bool,
}

impl Breaker {
    /// Whether a request would be let through, without asking for leave.
    pub fn shut(&self) -> Option<Shut> {
        self.state().outage.as_ref().and_then(|outage| outage.shut(Instant::now()))
    }

    /// Asks for leave to send one request.
    ///
    /// # Errors
    /// The deployment is down, and either it is not time for a trial or one is under way.
    pub fn enter(&self) -> Result<Passage<'_>, Shut> {
        let mut state = self.state();
        let is_trial = match &mut state.outage {
            None => false,
            Some(outage) => {
                if let Some(shut) = outage.shut(Instant::now()) {
                    return Err(shut);
                }
                outage.is_tried = true;
                true
            }
        };
        Ok(Passage { breaker: self, is_trial })
    }

    /// An operator's word: the next request goes out at once, and the pauses begin anew.
    pub fn hurry(&self) {
        if let Some(outage) = &mut self.state().outage {
            outage.next = Instant::now();
            outage.in_a_row = 0;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each change of it is whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Passage<'_> {
    /// Says what came of the request.
    pub fn leave(self, told: Told) {
        let now = Instant::now();
        let mut state = self.breaker.state();
        let (said, after) = match told {
            Told::Up => {
                *state = State::default();
                return;
            }
            Told::Down { said, after } => (said, after),
            Told::Silent(said) => {
                state.silences = state.silences.saturating_add(1);
                if state.outage.is_none() && state.silences < SILENCES_MIN {
                    return;
                }
                (said, None)
            }
            Told::Nothing(_) if state.outage.is_none() => return,
            Told::Nothing(said) => (said, None),
        };
        match &mut state.outage {
            // Sent before the others knew: no attempt of its own, or many at once would stretch the first pause to the last.
            Some(_) if !self.is_trial => {}
            Some(outage) => {
                outage.attempts = outage.attempts.saturating_add(1);
                outage.in_a_row = outage.in_a_row.saturating_add(1);
                outage.said = said;
                outage.next = now + pause(outage.in_a_row).max(after.unwrap_or_default());
            }
            None => {
                let next = now + pause(1).max(after.unwrap_or_default());
                state.outage = Some(Outage { since: now, attempts: 1, in_a_row: 1, said, next, is_tried: false });
            }
        }
    }
}

impl Drop for Passage<'_> {
    fn drop(&mut self) {
        if self.is_trial
            && let Some(outage) = &mut self.breaker.state().outage
        {
            outage.is_tried = false;
        }
    }
}

impl Outage {
    fn shut(&self, now: Instant) -> Option<Shut> {
        let left = self.next.saturating_duration_since(now);
        if !self.is_tried && left.is_zero() {
            return None;
        }
        let (next, after) = match self.is_tried {
            true => ("is under way".to_owned(), pause(self.in_a_row).min(TRIAL_TAKES)),
            false => (format!("is due in {}", spoken(left)), left),
        };
        let (since, attempts) = (spoken(now.saturating_duration_since(self.since)), self.attempts);
        let last = if attempts == 1 { "the attempt".to_owned() } else { format!("the last of {attempts} attempts") };
        Some(Shut { why: format!("down for {since}, and the next attempt {next}; {last} said: {}", self.said), after })
    }
}

fn pause(attempts: u32) -> Duration {
    PAUSE_FIRST.saturating_mul(2u32.saturating_pow(attempts.saturating_sub(1).min(16))).min(PAUSE_LAST)
}

/// A length of time as people say it; what is left is never called nothing.
fn spoken(length: Duration) -> String {
    let seconds = length.as_secs() + u64::from(length.subsec_nanos() > 0);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        _ => format!("{}h", seconds / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::super::envelope::judge;
    use super::*;
    use crate::model::Reason;
    use crate::net::client::Answer;
    use crate::net::redact::Redactor;

    fn down(breaker: &Breaker) {
        let passage = breaker.enter().expect("the way is open");
        passage.leave(Told::Down { said: "refused".to_owned(), after: None });
    }

    async fn pass(seconds: u64) {
        tokio::time::advance(Duration::from_secs(seconds)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn one_trial_for_all_after_each_pause_and_the_pauses_double_to_a_minute() {
        let breaker = Breaker::default();
        down(&breaker);
        for pause in [1, 2, 4, 8, 16, 32, 60, 60] {
            assert_eq!(breaker.enter().expect_err("it is down").after, Duration::from_secs(pause));
            pass(pause - 1).await;
            assert_eq!(breaker.shut().map(|shut| shut.after), Some(Duration::from_secs(1)));
            pass(1).await;
            assert_eq!(breaker.shut(), None, "after {pause}s it is time");
            let trial = breaker.enter().expect("it is time");
            let other = breaker.enter().expect_err("one goes for all");
            assert!(other.why.contains("under way") && other.after <= TRIAL_TAKES, "{other:?}");
            trial.leave(Told::Silent("no answer".to_owned()));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_words_say_since_when_what_and_until_when() {
        let breaker = Breaker::default();
        down(&breaker);
        let why = || breaker.shut().expect("it is down").why;
        assert_eq!(why(), "down for 0s, and the next attempt is due in 1s; the attempt said: refused");
        pass(150).await;
        down(&breaker);
        assert_eq!(why(), "down for 2m, and the next attempt is due in 2s; the last of 2 attempts said: refused");
    }

    #[tokio::test(start_paused = true)]
    async fn a_first_success_closes_it() {
        let breaker = Breaker::default();
        down(&breaker);
        pass(1).await;
        breaker.enter().expect("it is time").leave(Told::Up);
        let (one, two) = (breaker.enter(), breaker.enter());
        assert!(one.is_ok() && two.is_ok());
        two.expect("the way is open").leave(Told::Down { said: "again".to_owned(), after: None });
        assert_eq!(breaker.shut().map(|shut| shut.after), Some(PAUSE_FIRST), "an outage of its own");
        one.expect("the way was open").leave(Told::Up);
        assert_eq!(breaker.shut(), None, "it answers, whenever it was asked");
    }

    #[tokio::test(start_paused = true)]
    async fn a_pause_that_the_server_asks_for_wins_when_it_is_longer() {
        let breaker = Breaker::default();
        let asked = |after| Told::Down { said: "busy".to_owned(), after: Some(Duration::from_secs(after)) };
        breaker.enter().expect("the way is open").leave(asked(0));
        assert_eq!(breaker.shut().map(|shut| shut.after), Some(PAUSE_FIRST));
        pass(1).await;
        breaker.enter().expect("it is time").leave(asked(600));
        assert_eq!(breaker.shut().map(|shut| shut.after), Some(Duration::from_secs(600)));
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_sent_before_the_outage_was_known_stretches_no_pause() {
        let breaker = Breaker::default();
        let passages = [breaker.enter(), breaker.enter(), breaker.enter()];
        for passage in passages {
            passage.expect("the way is open").leave(Told::Down { said: "refused".to_owned(), after: None });
        }
        assert_eq!(breaker.shut().map(|shut| shut.after), Some(PAUSE_FIRST));
    }

    #[tokio::test(start_paused = true)]
    async fn one_silence_is_no_outage_and_an_answer_between_two_parts_them() {
        let breaker = Breaker::default();
        let enter = || breaker.enter().expect("the way is open");
        let silent = || Told::Silent("no answer".to_owned());
        enter().leave(silent());
        enter().leave(Told::Up);
        enter().leave(silent());
        enter().leave(Told::Nothing("status 404 without JSON".to_owned()));
        assert_eq!(breaker.shut(), None);
        enter().leave(silent());
        assert!(breaker.shut().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn a_trial_that_is_given_up_lets_another_try_and_an_operator_opens_the_way() {
        let breaker = Breaker::default();
        down(&breaker);
        pass(1).await;
        drop(breaker.enter().expect("it is time"));
        down(&breaker);
        pass(2).await;
        down(&breaker);
        assert_eq!(breaker.shut().map(|shut| shut.after), Some(Duration::from_secs(4)));
        breaker.hurry();
        down(&breaker);
        assert_eq!(breaker.shut().map(|shut| shut.after), Some(PAUSE_FIRST), "the pauses begin anew");
    }
    #[test]
    fn what_comes_from_a_healthy_deployment_too_is_no_outage() {
        let told = |asked, status, body: &str| {
            let body = zeroize::Zeroizing::new(body.as_bytes().to_vec());
            let answer = Answer { status, host: "gis".to_owned(), location: None, retry_after: None, date: None, body };
            match Told::by_answer(asked, status, None, &judge(answer, &Redactor::default()), "x") {
                Told::Up => "up",
                Told::Down { .. } => "down",
                Told::Silent(_) => "silent",
                Told::Nothing(_) => "nothing",
            }
        };
        use Asked::{Always, Change, Perhaps};
        for (status, body, expected) in [
            (200, "{}", ["up"; 3]),
            (200, "<html>", ["down", "down", "up"]),
            (502, "<html>", ["down", "down", "nothing"]),
            (503, "<html>", ["down", "down", "nothing"]),
            (504, "", ["down", "down", "nothing"]),
            (404, "<html>", ["down", "nothing", "nothing"]),
            (500, "<html>", ["up"; 3]),
            (429, "<html>", ["up"; 3]),
            (401, "<html>", ["up"; 3]),
            (404, r#"{"error":{"code":404}}"#, ["up"; 3]),
            (503, r#"{"status":"error","messages":["read-only mode"],"code":503}"#, ["up"; 3]),
        ] {
            let found = [Always, Perhaps, Change].map(|asked| told(asked, status, body));
            assert_eq!(found, expected, "{status} {body}");
        }
        let untrusted = Fault::Refused { reason: Reason::TlsUntrusted, why: "x".to_owned() };
        assert_eq!(Told::by_fault(&untrusted), Told::Up);
    }

    #[test]
    fn what_is_not_sent_while_it_is_down_is_surely_not_sent() {
        let shut = Shut { why: "down for 3s".to_owned(), after: Duration::from_secs(2) };
        let fault = |asked| shut.clone().fault("reading x", asked);
        assert_eq!(fault(Asked::Change), Fault::NotSent("reading x: not sent: down for 3s".to_owned()));
        assert!(matches!(fault(Asked::Always), Fault::Retry { after: Some(after), .. } if after.as_secs() == 2));
    }
}
