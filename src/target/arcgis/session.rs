//! One deployment: who we are there, the token all its targets share, and one request with it.
//!
//! Does not say what an answer means for whoever asked, nor what an outcome tells of the deployment as a whole (`breaker`).
//!
//! Invariant: a refused password is not sent again; a token never stands in a URL; a request is sent at most twice, the second time
//! only because the first answer said that the token was not accepted, which means that nothing was done; and while the deployment
//! is down, one request in a while is sent for all its services.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex as StdMutex, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::breaker::{Asked, Breaker, Told};
use super::config::{DeploymentConfig, Product};
use super::envelope::{Complaint, Meaning, Verdict, judge};
use crate::model::{JobId, Reason, Secret, SystemRef, SystemSpec, Timestamp};
use crate::net::client::{Client, Options, Request, host_of};
use crate::net::identity::Chain;
use crate::net::redact::Redactor;
use crate::net::{Context, secrets};
use crate::ports::{Fault, LoginGuard};

/// Asked for; the server may grant less, and does not say so but in `expires`.
const TOKEN_MINUTES: &str = "60";

/// A token is renewed this long before it ends, or a quarter of its life before, whichever is shorter.
const RENEW_BEFORE: Duration = Duration::from_secs(60);

/// Errors of the server's own at login that may be a refusal in other words; after this many in a row the password counts as refused.
const UNCLEAR_MAX: u32 = 2;

/// As many ended jobs are remembered.
const ENDED_MAX: usize = 4096;

/// A deployment as its targets share it.
pub struct Deployment {
    /// `arcgis.prod`.
    pub at: SystemRef,
    /// Its table.
    pub config: DeploymentConfig,
    /// Whether Server's `system/jobs` was where the last job was found.
    pub classic_jobs: AtomicBool,
    client: Client,
    options: Options,
    ca: Option<Vec<u8>>,
    password: Secret,
    guard: Arc<dyn LoginGuard>,
    session: Mutex<Session>,
    breaker: Breaker,
    /// Jobs seen to have ended: they are not looked at again.
    ended: StdMutex<HashSet<JobId>>,
    /// When each backup store was last found ready.
    ready: StdMutex<HashMap<String, Instant>>,
    /// What its targets were given, by target: a failed job may repeat it.
    given: StdMutex<HashMap<String, Vec<Secret>>>,
}

#[derive(Default)]
struct Session {
    token: Option<Token>,
    logins: u64,
    unclear: u32,
}

#[derive(Clone)]
struct Token {
    secret: Secret,
    serial: u64,
    renew_at: Option<Instant>,
}

/// One request to the admin directory.
pub struct Ask<'a> {
    /// Opens the messages: `reading cloud/services`.
    pub what: &'a str,
    /// What it is below, if not the admin directory: the portal's address. It is asked for people's sake: whatever comes back says
    /// nothing of the deployment, and nothing of the token that the deployment takes.
    pub root: Option<&'a str>,
    /// Below the admin directory; empty for itself.
    pub path: &'a str,
    /// Beside `f=json`.
    pub query: &'a [(&'static str, &'a str)],
    /// The fields of a POST, beside `f` and `token`; `None` for a GET.
    pub form: Option<&'a [(&'a str, &'a str)]>,
    /// What the answer must not repeat into a message.
    pub secrets: &'a [&'a Secret],
    /// A deployment need not have it: that it is not there says nothing about the deployment.
    pub may_be_absent: bool,
}

impl<'a> Ask<'a> {
    /// A GET of a resource.
    pub fn get(what: &'a str, path: &'a str) -> Self {
        Self { what, root: None, path, query: &[], form: None, secrets: &[], may_be_absent: false }
    }
}

/// An answer, judged, with what else is needed of it.
struct Heard {
    verdict: Verdict,
    host: String,
    date: Option<Timestamp>,
}

impl Deployment {
    /// The deployment a table describes: one that is in use already, or a new one. Reads password, certificates and key; sends
    /// nothing.
    ///
    /// # Errors
    /// [`Fault::Refused`]: a secret cannot be read, `ca_file` or `client_cert` cannot be used, the table is not one of ours. What
    /// can be told without the secrets is told first.
    pub fn connect(system: &SystemSpec, context: &Context) -> Result<Arc<Self>, Fault> {
        let config = super::config::deployment(system).ok_or_else(|| Fault::Refused {
            reason: Reason::PolicyMismatch,
            why: format!("reading [{}]: not a deployment this rekeyd can read", system.at),
        })?;
        let mut options = Options::new(config.request_timeout);
        let chain = config.client_cert.as_deref().map(Chain::read).transpose()?;
        let password = secrets::read(&config.password)?;
        if let (Some(chain), Some(key)) = (chain, &config.client_key) {
            options.identity = Some(chain.with_key(secrets::read(key)?, &secrets::describe(key))?);
        }
        options.ca_file = config.ca_file.clone();
        options.proxy = config.proxy.clone().or_else(|| context.proxy.clone());
        options.no_proxy = config.no_proxy.clone().unwrap_or_else(|| context.no_proxy.clone());
        // The file's contents belong to the identity: after a reload a new authority counts, under the same name too.
        let ca = config.ca_file.as_ref().and_then(|path| std::fs::read(path).ok());

        let same = |known: &Self| {
            known.at == system.at
                && known.config == config
                && known.options == options
                && known.ca == ca
                && known.password == password
                && Arc::ptr_eq(&known.guard, &context.guard)
        };
        if let Some(known) = context.shared.find(same) {
            return Ok(known);
        }
        let made = Arc::new(Self {
            at: system.at.clone(),
            client: Client::new(&options)?,
            config,
            classic_jobs: AtomicBool::new(false),
            options,
            ca,
            password,
            guard: context.guard.clone(),
            session: Mutex::default(),
            breaker: Breaker::default(),
            ended: StdMutex::default(),
            ready: StdMutex::default(),
            given: StdMutex::default(),
        });
        context.shared.keep(&made);
        Ok(made)
    }

    /// The client, for requests without a login.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// How a message about a request opens: what, where.
    pub fn doing(&self, what: &str) -> String {
        let host = reqwest::Url::parse(&self.config.admin_url).map_or_else(|_| "?".to_owned(), |url| host_of(&url));
        format!("{what} of {} at {host}", self.at)
    }

    /// Sends one request and judges the answer. An answer that does not accept the token is followed by one login and one more send.
    ///
    /// # Errors
    /// Of the connection, as [`Client::send`] gives them. A login that fails is never [`Fault::Unknown`]: the request itself was
    /// not sent then, or not executed. While the deployment is down, at once and without sending: [`Fault::NotSent`] for a change,
    /// [`Fault::Retry`] for a look, with the time of the next attempt.
    pub async fn ask(&self, ask: Ask<'_>) -> Result<(Verdict, Redactor), Fault> {
        let mut refused_token = None;
        let what = format!("{} of {}", ask.what, self.at);
        let asked = match (ask.form, ask.path) {
            _ if ask.root.is_some() => Asked::Beside,
            (Some(_), _) => Asked::Change,
            (None, "" | "cloud/services" | "cloud/providers") if !ask.may_be_absent => Asked::Always,
            (None, _) => Asked::Perhaps,
        };
        loop {
            // Asked before the session's lock, which a login that nobody answers may hold for a while.
            if let Some(shut) = self.breaker.shut() {
                return Err(shut.fault(&what, asked));
            }
            let token = self.token(refused_token).await?;
            let redactor = self.redactor([&token.secret].into_iter().chain(ask.secrets.iter().copied()));
            let heard = self.exchange(&what, asked, self.request(&ask, &token.secret), &redactor).await?;
            match heard.verdict {
                Verdict::Complaint(complaint) if complaint.meaning == Meaning::Token && asked != Asked::Beside => {
                    if refused_token.is_some() {
                        return Err(self.fresh_token_refused(&ask, &complaint));
                    }
                    refused_token = Some(token.serial);
                }
                verdict => return Ok((verdict, redactor)),
            }
        }
    }

    /// A repeatable read: JSON without an error, or the fault it comes to.
    ///
    /// # Errors
    /// As [`Complaint::after_read`] sorts them; a page instead of JSON is [`Fault::Retry`].
    pub async fn get(&self, ask: Ask<'_>) -> Result<Value, Fault> {
        let doing = self.doing(ask.what);
        match self.ask(ask).await?.0 {
            Verdict::Good(value) => Ok(value),
            Verdict::Text(_) => Err(self.page(&doing)),
            Verdict::Complaint(complaint) => Err(complaint.after_read(&doing)),
        }
    }

    /// The fault of a page where JSON was asked for: a site that restarts, a sign-in page of the web tier.
    pub fn page(&self, doing: &str) -> Fault {
        Fault::Retry {
            after: None,
            why: format!("{doing}: a page instead of JSON (restarting, or a sign-in page before it)"),
        }
    }

    /// The operator wants what waits tried now.
    pub fn hurry(&self) {
        self.breaker.hurry();
    }

    /// Sends one request, unless the deployment is down and it is not time to see whether it still is.
    async fn exchange(&self, what: &str, asked: Asked, request: Request, redactor: &Redactor) -> Result<Heard, Fault> {
        let passage = match asked {
            Asked::Beside => None,
            _ => Some(self.breaker.enter().map_err(|shut| shut.fault(what, asked))?),
        };
        let leave = |told: Told| passage.into_iter().for_each(|passage| passage.leave(told.clone()));
        let answer = match self.client.send(what, request).await {
            Ok(answer) => answer,
            Err(fault) => {
                leave(Told::by_fault(&fault));
                return Err(fault);
            }
        };
        let (status, host, date, after) = (answer.status, answer.host.clone(), answer.date, answer.retry_after);
        let verdict = judge(answer, redactor);
        leave(Told::by_answer(asked, status, after, &verdict, &format!("{what} at {host}")));
        Ok(Heard { verdict, host, date })
    }

    fn request(&self, ask: &Ask<'_>, token: &Secret) -> Request {
        let root = ask.root.unwrap_or(&self.config.admin_url);
        let url = if ask.path.is_empty() { root.to_owned() } else { format!("{root}/{}", ask.path) };
        let request = match ask.form {
            None => ask
                .query
                .iter()
                .fold(Request::get(url).query("f", "json"), |request, (name, value)| request.query(name, *value)),
            Some(fields) => {
                // "All POST requests must include a token in the request body"; the header is for web tiers that look there.
                let fields =
                    fields.iter().copied().chain([("f", "json"), ("token", token.expose())]).collect::<Vec<_>>();
                Request::post_form(url, &fields)
            }
        };
        // Not `Authorization`: web-tier authentication owns that one.
        request
            .header("x-esri-authorization", format!("Bearer {}", token.expose()))
            .header("referer", self.config.admin_url.clone())
    }

    /// Whether a job was seen to have ended.
    pub fn has_ended(&self, job: &JobId) -> bool {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).contains(job)
    }

    /// Takes note that a job has ended, which it does once.
    pub fn job_ended(&self, job: &JobId) {
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        // A site forgets its jobs some day; a daemon that runs for years should too.
        if ended.len() >= ENDED_MAX {
            ended.clear();
        }
        ended.insert(job.clone());
    }

    /// Whether a backup store was found ready so lately.
    pub fn was_ready(&self, store: &str, now: Instant, lately: Duration) -> bool {
        let ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        ready.get(store).is_some_and(|at| now.duration_since(*at) < lately)
    }

    /// What was found ready was so with another credential.
    pub fn forget_ready(&self) {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Takes note that a backup store is ready.
    pub fn is_ready(&self, store: &str, now: Instant) {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner).insert(store.to_owned(), now);
    }

    /// Takes note of the secrets one target was given, in place of those noted before.
    pub fn given(&self, target: &str, secrets: Vec<Secret>) {
        self.given.lock().unwrap_or_else(PoisonError::into_inner).insert(target.to_owned(), secrets);
    }

    /// A fault whose words are partly the server's own, without what it was ever given.
    pub fn discreet(&self, fault: Fault) -> Fault {
        let hide = |why: String| self.redactor([]).hide(&why).to_string();
        match fault {
            Fault::NotSent(why) => Fault::NotSent(hide(why)),
            Fault::Unknown(why) => Fault::Unknown(hide(why)),
            Fault::Retry { after, why } => Fault::Retry { after, why: hide(why) },
            Fault::Refused { reason, why } => Fault::Refused { reason, why: hide(why) },
        }
    }

    /// A text that is partly the server's own, as [`Deployment::discreet`].
    pub fn hide(&self, text: &str) -> String {
        self.redactor([]).hide(text).to_string()
    }

    fn redactor<'s>(&'s self, more: impl IntoIterator<Item = &'s Secret>) -> Redactor {
        let mut redactor = Redactor::new([&self.password].into_iter().chain(more));
        let given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        given.values().flatten().for_each(|secret| redactor.learn(secret));
        redactor
    }

    fn fresh_token_refused(&self, ask: &Ask<'_>, complaint: &Complaint) -> Fault {
        let why = format!(
            "{}: {} for a token granted just now; a proxy that drops Referer or X-Esri-Authorization does that, or several \
             nodes that do not share their token key",
            self.doing(ask.what),
            complaint.said
        );
        Fault::Refused { reason: Reason::LoginRefused, why }
    }

    /// A token that is not `refused`, from memory or by a login. One login at a time; those who wait for it share its token.
    async fn token(&self, refused: Option<u64>) -> Result<Token, Fault> {
        let mut session = self.session.lock().await;
        if let Some(token) = &session.token {
            let is_over = token.renew_at.is_some_and(|renew_at| Instant::now() >= renew_at);
            if !is_over && refused != Some(token.serial) {
                return Ok(token.clone());
            }
        }
        session.token = None;
        let (secret, renew_at) = self.login(&mut session).await?;
        self.given("token", vec![secret.clone()]);
        session.logins += 1;
        let token = Token { secret, serial: session.logins, renew_at };
        session.token = Some(token.clone());
        Ok(token)
    }

    async fn login(&self, session: &mut Session) -> Result<(Secret, Option<Instant>), Fault> {
        let (system, user) = (self.at.to_string(), &self.config.username);
        let what = format!("logging in to {system} as {user}");
        if self.guard.is_refused(&system, user, &self.password) {
            let why = format!("{what}: this password was refused before; {AFTER_REFUSAL}");
            return Err(Fault::Refused { reason: Reason::LoginRefused, why });
        }
        // Held to the end of this function, which is where a refusal is remembered.
        let Some(_attempt) = self.guard.attempt() else {
            return Err(Fault::NotSent(format!("{what}: not sent: this process ends")));
        };
        let fields = [
            ("username", user.as_str()),
            ("password", self.password.expose()),
            ("client", "referer"),
            ("referer", &self.config.admin_url),
            ("expiration", TOKEN_MINUTES),
            ("f", "json"),
        ];
        let asked_at = Instant::now();
        let request =
            Request::post_form(self.config.token_url(), &fields).header("referer", self.config.admin_url.clone());
        let heard = self.exchange(&what, Asked::Always, request, &self.redactor([])).await.map_err(before_sending)?;
        let (what, date) = (format!("{what} at {}", heard.host), heard.date);
        match heard.verdict {
            Verdict::Good(mut value) => {
                let Some(Value::String(token)) = value.get_mut("token").map(Value::take) else {
                    return Err(Fault::Refused {
                        reason: Reason::Refused,
                        why: format!("{what}: an answer without a token"),
                    });
                };
                session.unclear = 0;
                Ok((Secret::new(token), renew_at(asked_at, value.get("expires"), date)))
            }
            Verdict::Text(_) => Err(Fault::Retry {
                after: None,
                why: format!("{what}: a page instead of a token (restarting, or a sign-in page before it)"),
            }),
            Verdict::Complaint(complaint) => Err(self.not_logged_in(session, &what, complaint)),
        }
    }

    /// Whatever ArcGIS itself says against a login is taken for a refusal, unless it surely is not: five refusals lock the account,
    /// the primary site administrator's too, and the words may be in any language.
    fn not_logged_in(&self, session: &mut Session, what: &str, complaint: Complaint) -> Fault {
        let said = complaint.said.to_lowercase();
        let is_named = ["password", "username", "user name", "locked", "attempts", "failed to login"];
        let is_refusal = is_named.iter().any(|word| said.contains(word))
            || match complaint.meaning {
                Meaning::Token | Meaning::Denied | Meaning::Refused => true,
                Meaning::Broken if complaint.in_envelope => {
                    session.unclear += 1;
                    if session.unclear < UNCLEAR_MAX {
                        self.guard.doubted(&self.at.to_string(), &self.config.username, &self.password);
                    }
                    session.unclear >= UNCLEAR_MAX
                }
                _ => false,
            };
        if is_refusal {
            session.unclear = 0;
            self.guard.refused(&self.at.to_string(), &self.config.username, &self.password);
            let why = format!("{what}: {}; {AFTER_REFUSAL}{}", complaint.said, self.where_else());
            return Fault::Refused { reason: Reason::LoginRefused, why };
        }
        match complaint.meaning {
            Meaning::Absent => {
                let why = format!("{what}: {}; check product, admin_url and portal_url", complaint.said);
                Fault::Refused { reason: Reason::NotFound, why }
            }
            _ => complaint.after_read(what),
        }
    }
}

impl Deployment {
    /// A federated Server does not know the users of its portal by their passwords, and says no more than that one is wrong.
    fn where_else(&self) -> &'static str {
        match (self.config.product, &self.config.portal_url) {
            (Product::Server, None) => "; if this Server is federated, set portal_url: its portal's users log in there",
            _ => "",
        }
    }
}

const AFTER_REFUSAL: &str = "ArcGIS locks an account after five wrong passwords, so this one is not sent again";

/// The fault of something that had to be done before the request that counts: whatever became of it, that request was not sent.
pub fn before_sending(fault: Fault) -> Fault {
    match fault {
        Fault::Unknown(why) => Fault::NotSent(why),
        other => other,
    }
}

/// When to renew a token, on our monotonic clock: its life is the server's `expires` less the server's own `Date`, so that no wall
/// clock of ours has a part in it. Without a usable pair the token is used until it is refused.
fn renew_at(asked_at: Instant, expires: Option<&Value>, date: Option<Timestamp>) -> Option<Instant> {
    // Epoch milliseconds; a number from portals, a text from servers.
    let expires = expires.and_then(|expires| expires.as_i64().or_else(|| expires.as_str()?.trim().parse().ok()))?;
    let life = expires.checked_sub(date?.timestamp_millis()).and_then(|life| u64::try_from(life).ok())?;
    // `Date` has whole seconds, cut off: the life is up to one second shorter than it looks.
    let life = Duration::from_millis(life.min(24 * 3600 * 1000)).saturating_sub(Duration::from_secs(1));
    Some(asked_at + life - RENEW_BEFORE.min(life / 4))
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::DateTime;
    use serde_json::json;

    #[test]
    fn a_token_is_renewed_before_it_ends_by_the_servers_own_clock() {
        let now = Instant::now();
        let date = DateTime::from_timestamp(1_000, 0);
        let after = |expires: Value| renew_at(now, Some(&expires), date).map(|at| (at - now).as_secs());
        assert_eq!(after(json!(1_000_000 + 3_600_000)), Some(3599 - 60));
        assert_eq!(after(json!("1101000")), Some(75));
        assert_eq!(after(json!(1_000_500)), Some(0));
        assert_eq!(after(json!(999_000)), None);
        assert_eq!(after(json!("soon")), None);
        assert_eq!(after(json!(i64::MIN)), None);
        assert_eq!(renew_at(now, Some(&json!(2_000_000)), None), None);
        assert_eq!(renew_at(now, None, date), None);
    }

    #[derive(Default)]
    struct Guard(StdMutex<u32>, StdMutex<u32>);

    impl LoginGuard for Guard {
        fn is_refused(&self, _: &str, _: &str, _: &Secret) -> bool {
            false
        }
        fn refused(&self, system: &str, user: &str, _: &Secret) {
            assert_eq!((system, user), ("arcgis.prod", "rotator"));
            *self.0.lock().expect("no test panics in here") += 1;
        }
        fn doubted(&self, system: &str, user: &str, _: &Secret) {
            assert_eq!((system, user), ("arcgis.prod", "rotator"));
            *self.1.lock().expect("no test panics in here") += 1;
        }
        fn forgive(&self, _: &str) {}
    }

    fn deployment(guard: Arc<Guard>, password: &std::path::Path) -> Arc<Deployment> {
        deployment_among(crate::net::Shared::default(), guard, password)
    }

    fn deployment_among(shared: crate::net::Shared, guard: Arc<Guard>, password: &std::path::Path) -> Arc<Deployment> {
        let text = format!(
            "product = \"kubernetes\"\nadmin_url = \"https://gis.example.com/x/admin\"\nusername = \"rotator\"\n\
             password = {{ file = {password:?} }}"
        );
        let config = crate::table::read(&text, "policy.toml", super::super::tables::read_system).expect("it is sound");
        let at = SystemRef { table: "arcgis".to_owned(), name: "prod".to_owned() };
        let system = SystemSpec { at, config: config.expect("it is complete") };
        let context = Context { proxy: None, no_proxy: Vec::new(), guard, shared };
        Deployment::connect(&system, &context).expect("connecting sends nothing")
    }

    #[test]
    fn a_login_that_fails_unclearly_twice_counts_as_refused() {
        let (guard, password) =
            (Arc::new(Guard::default()), tempfile::NamedTempFile::new().expect("a file can be made"));
        std::fs::write(password.path(), "hunter2").expect("it can be written");
        let deployment = deployment(guard.clone(), password.path());
        let mut session = Session::default();
        let mut outcome = |in_envelope| {
            let said = "code 500, \"Échec de la connexion\"".to_owned();
            let complaint = Complaint { meaning: Meaning::Broken, said, in_envelope, retry_after: None };
            deployment.not_logged_in(&mut session, "logging in", complaint).outcome()
        };
        assert_eq!(
            [outcome(false), outcome(false), outcome(false)],
            ["retry"; 3],
            "a proxy's page says nothing of a password"
        );
        assert_eq!(*guard.1.lock().expect("no test panics in here"), 0);
        assert_eq!([outcome(true), outcome(false)], ["retry"; 2]);
        assert_eq!(
            *guard.1.lock().expect("no test panics in here"),
            1,
            "the first is told to who may end before the next"
        );
        assert_eq!(outcome(true), "refused");
        assert_eq!(*guard.0.lock().expect("no test panics in here"), 1);
    }

    #[test]
    fn a_deployment_is_one_as_long_as_its_table_and_its_password_are() {
        let (guard, password) =
            (Arc::new(Guard::default()), tempfile::NamedTempFile::new().expect("a file can be made"));
        std::fs::write(password.path(), "hunter2").expect("it can be written");
        let shared = crate::net::Shared::default();
        let among = |guard: &Arc<Guard>| deployment_among(shared.clone(), guard.clone(), password.path());
        let (one, two) = (among(&guard), among(&guard));
        assert!(Arc::ptr_eq(&one, &two));
        std::fs::write(password.path(), "hunter3").expect("it can be written");
        assert!(!Arc::ptr_eq(&one, &among(&guard)));
        assert!(!Arc::ptr_eq(&one, &among(&Arc::new(Guard::default()))));
    }

    #[test]
    fn what_failed_before_a_push_did_not_push() {
        assert_eq!(before_sending(Fault::Unknown("x".to_owned())), Fault::NotSent("x".to_owned()));
        let retry = Fault::Retry { after: None, why: "x".to_owned() };
        assert_eq!(before_sending(retry.clone()), retry);
    }
}
