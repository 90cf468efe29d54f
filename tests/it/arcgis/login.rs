//! Who we are there: tokens, passwords, rights, certificates, and what must not be seen.

use super::*;

/// Collects what is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("no test panics in here").extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn an_expired_token_is_renewed_once() {
    for options in flavours() {
        let site = Site::start(options).await;
        let target = site.target();
        target.inspect().await.expect("the service is there");
        site.arcgis.expire_tokens();
        let job = target.push(&new_key()).await.expect("the push is accepted").job.expect("a job is named");
        site.arcgis.expire_tokens();
        site.arcgis.settled().await;
        assert_eq!(target.poll(&job).await, Ok(JobState::Succeeded), "the same job, under a new token");
        assert_eq!((site.pushes(), site.arcgis.jobs().len()), (1, 1), "a poll that met a dead token pushes nothing");
        assert_eq!(site.arcgis.logins(), [true, true, true]);
    }
}

#[tokio::test]
async fn a_push_that_meets_a_dead_token_is_sent_once_more() {
    for options in flavours() {
        let operation = if options.version == "12.0" { "credential/update" } else { "credential/add" };
        let real = options.real_status_codes;
        let site = Site::start(options).await;
        let target = site.target();
        // The look before the push would renew it: let it die in between, as seen by the server.
        site.arcgis.fault(operation, if real { Mishap::Error(498) } else { Mishap::Error(401) });
        assert_eq!(site.push_and_poll(&target).await, JobState::Succeeded);
        assert_eq!((site.pushes(), site.arcgis.jobs().len(), site.arcgis.logins()), (2, 1, vec![true, true]));
    }
}

#[tokio::test]
async fn a_fresh_token_that_is_not_accepted_is_no_riddle() {
    let site = Site::start(kubernetes()).await;
    site.arcgis.fault("credential/update", Mishap::Error(498));
    site.arcgis.fault("credential/update", Mishap::Error(498));
    let fault = site.target().push(&new_key()).await.expect_err("two tokens in a row are not accepted");
    assert_eq!((reason(&fault), site.pushes()), (Some(Reason::LoginRefused), 2));
    assert!(fault.why().contains("Referer"), "{fault:?}");
    assert_eq!(site.guard.refusals(), 0, "the password was good");
}

#[tokio::test]
async fn a_short_lived_token_is_renewed_before_it_ends() {
    for options in [kubernetes(), server()] {
        let site = Site::start(ArcGisOptions { token_ttl: Some(Duration::from_millis(1200)), ..options }).await;
        let target = site.target();
        // Two lives of a token at the longest.
        while site.arcgis.logins().len() < 3 {
            target.inspect().await.expect("the service is there");
        }
        // A Server without that resource has nothing to execute there.
        let requests = site.arcgis.requests();
        let mut asked = requests.iter().filter(|line| line.operation != "upgrade");
        assert!(asked.all(|line| line.executed), "no request met a dead token");
    }
}

#[tokio::test]
async fn all_targets_of_a_deployment_log_in_once() {
    let site = Site::start(kubernetes()).await;
    let (one, two) = (site.target(), site.provider());
    let three = site.connect("", &format!("service_id = {BACKUP:?}"));
    let (a, b, c) = tokio::join!(one.inspect(), two.inspect(), three.inspect());
    assert!(a.is_ok() && b.is_ok() && c.is_ok());
    assert_eq!(site.arcgis.logins(), [true]);
}

#[tokio::test]
async fn a_refused_password_is_sent_once() {
    for options in flavours() {
        let site = Site::start(options).await;
        let target = site.target();
        site.arcgis.set_password("another one");
        let fault = target.inspect().await.expect_err("the password is wrong");
        assert_eq!(reason(&fault), Some(Reason::LoginRefused));
        for words in ["arcgis.prod", "rotator", "five", "not sent again"] {
            assert!(fault.why().contains(words), "{fault:?}");
        }
        let again = site.provider();
        for fault in
            [target.read().await.map(drop), again.inspect().await.map(drop), target.push(&new_key()).await.map(drop)]
        {
            assert_eq!(reason(&fault.expect_err("it is not tried again")), Some(Reason::LoginRefused));
        }
        assert_eq!((site.arcgis.logins(), site.guard.refusals()), (vec![false], 1));

        std::fs::write(site.password.path(), "another one\n").expect("a temporary file can be written");
        site.target().inspect().await.expect("the new password is another password");
        assert_eq!(site.arcgis.logins(), [false, true]);
    }
}

#[tokio::test]
async fn a_locked_account_is_a_refusal_although_it_says_try_again_later() {
    for options in [kubernetes(), server()] {
        let site = Site::start(options).await;
        site.arcgis.fault("generateToken", Mishap::Refuse("The account is locked. Please try again later.".to_owned()));
        let fault = site.target().inspect().await.expect_err("the account is locked");
        assert_eq!((reason(&fault), site.guard.refusals()), (Some(Reason::LoginRefused), 1));
    }
}

#[tokio::test]
async fn a_network_error_is_no_refusal() {
    for mishap in [
        Mishap::DropBefore,
        Mishap::LostReply,
        Mishap::Throttle,
        Mishap::Html,
        Mishap::Error(502),
        Mishap::Error(503),
        Mishap::Error(404),
    ] {
        let site = Site::start(kubernetes()).await;
        site.arcgis.fault("generateToken", mishap.clone());
        let target = site.target();
        let fault = target.inspect().await.expect_err("there is no token");
        assert!(matches!(fault, Fault::NotSent(_) | Fault::Retry { .. }), "{mishap:?}: {fault:?}");
        assert_eq!(site.guard.refusals(), 0, "{mishap:?}");
        target.hurry();
        target.inspect().await.expect("it passed");
    }
}

#[tokio::test]
async fn a_login_that_is_redirected_is_refused_without_following() {
    let site = Site::start(kubernetes()).await;
    site.arcgis.fault("generateToken", Mishap::Redirect("https://sso.example.com/login?state=hush".to_owned()));
    let fault = site.target().inspect().await.expect_err("it is redirected");
    assert_eq!((reason(&fault), site.guard.refusals()), (Some(Reason::Refused), 0));
    assert!(fault.why().contains("https://sso.example.com/login") && !fault.why().contains("hush"), "{fault:?}");
}

#[tokio::test]
async fn a_missing_right_is_told_as_one() {
    for options in flavours() {
        let site = Site::start(options).await;
        let target = site.target();
        site.arcgis.set_username_privilege(false);
        let fault = target.inspect().await.expect_err("the user may not");
        assert_eq!(reason(&fault), Some(Reason::MissingRight));
        assert!(fault.why().contains("default administrator role"), "{fault:?}");
        assert_eq!(site.arcgis.logins(), [true], "another token would not help");
        assert_eq!(site.guard.refusals(), 0);
    }
}

#[tokio::test]
async fn no_secret_is_in_a_url_or_a_message() {
    for options in [kubernetes(), server()] {
        let site = Site::start(options).await;
        let target = site.target();
        let key = new_key();
        let secret = key.secret();
        let told = format!("cannot use {} beside {{crypt}}abcDEF+/= and v2Crypt_abc", secret.expose());
        site.arcgis.fault("credential/update", Mishap::Refuse(told.clone()));
        let refused = target.push(&key).await.expect_err("it is refused");
        site.arcgis.job_script(JobScript::Fail("failed with {crypt}abcDEF+/=".to_owned()));
        let failed = site.push_and_poll(&target).await;
        assert_eq!(failed, JobState::Failed("failed: failed with {crypt}***".to_owned()));
        assert!(refused.why().contains("\"cannot use *** beside {crypt}*** and v2Crypt_***\""), "{refused:?}");
        let secrets = site.arcgis.all_secrets();
        assert!(secrets.len() >= 3, "password, token and keys are known to the lab");
        for url in site.arcgis.urls() {
            assert!(!secrets.iter().any(|secret| url.contains(secret.as_str())), "{url}");
            assert!(!url.contains("token="), "{url}");
        }
    }
}

#[tokio::test]
async fn no_secret_is_logged_at_the_finest_level() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber =
        tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(move || writer.clone()).finish();
    let _logging = tracing::subscriber::set_default(subscriber);
    tracing::trace!("the log is open");
    let site = Site::start(ArcGisOptions { tls: true, ..kubernetes() }).await;
    let target = site.target();
    target.inspect().await.expect("the service is there");
    assert_eq!(site.push_and_poll(&target).await, JobState::Succeeded);
    let logged = String::from_utf8_lossy(&log.0.lock().expect("no test panics in here")).into_owned();
    assert!(logged.contains("the log is open"));
    for secret in site.arcgis.all_secrets() {
        assert!(!logged.contains(&secret));
    }
}

#[tokio::test]
async fn an_unknown_authority_is_refused_by_name() {
    let mut site = Site::start(ArcGisOptions { tls: true, ..kubernetes() }).await;
    site.target().inspect().await.expect("the authority is named in ca_file");
    site.ca = None;
    let fault = site.target().inspect().await.expect_err("nobody trusts it");
    assert_eq!(reason(&fault), Some(Reason::TlsUntrusted));
    assert!(fault.why().contains("127.0.0.1:") && fault.why().contains("ca_file"), "{fault:?}");
    let other = Site::start(ArcGisOptions { tls: true, ..kubernetes() }).await;
    site.ca = other.arcgis.ca_pem().map(|pem| file(&pem));
    let fault = site.target().inspect().await.expect_err("this authority signed another one's certificate");
    assert_eq!(reason(&fault), Some(Reason::TlsUntrusted));
    assert!(site.arcgis.logins() == [true], "no password went to a server that is not trusted");
}
