//! One session for all services of a deployment: an outage that is met once, waits that are asked for, federation, certificates of
//! either side, a proxy.

use std::net::SocketAddr;

use rekeyd_lab::RequestLine;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::support::{PolicyText, SERVICE as SERVICE_NAME, Scene};

/// Eight services of one deployment.
async fn many(options: ArcGisOptions) -> (Site, Vec<Arc<dyn Target>>) {
    let site = Site::start(options).await;
    for index in 0..6 {
        let credential = Some(stored(&site.old));
        site.arcgis
            .add_service_with(ServiceSpec { credential, ..ServiceSpec::new(&format!("more{index}"), PROVIDER, "") });
    }
    let more = (0..6).map(|index| format!("more{index}"));
    let ids = [SERVICE.to_owned(), BACKUP.to_owned()].into_iter().chain(more);
    let targets = ids.map(|id| site.connect("", &format!("service_id = {id:?}"))).collect();
    (site, targets)
}

/// Eight services look at a site that restarts, each ten times a second for two seconds and a half. Returns how often they looked
/// and how many requests the lab saw. `hurry`: with the way opened before each look, which is as good as no breaker.
async fn looks_and_requests(how: Restart, hurry: bool) -> (usize, usize) {
    let (site, targets) = many(kubernetes()).await;
    site.arcgis.restart_in_next_job(how, Duration::from_secs(3600));
    targets[0].push(&new_key()).await.expect("the push is accepted");
    site.arcgis.settled().await;
    let before = site.arcgis.requests().len();
    let (mut looks, mut told) = (0, false);
    for _ in 0..25 {
        for target in &targets {
            if hurry {
                target.hurry();
            }
            let fault = target.read().await.expect_err("nobody is there");
            assert!(matches!(fault, Fault::Unknown(_) | Fault::Retry { .. }), "{how:?}: {fault:?}");
            told |= fault.why().contains("not sent: down for ");
            looks += 1;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(told, !hurry, "{how:?}");
    (looks, site.arcgis.requests().len() - before)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_site_that_is_down_is_asked_once_in_a_while_for_all_its_services() {
    let runs = RESTARTS
        .map(|how| (how, tokio::spawn(looks_and_requests(how, false)), tokio::spawn(looks_and_requests(how, true))));
    for (how, with, without) in runs {
        let (with, without) = (with.await.expect("it holds"), without.await.expect("it holds"));
        assert_eq!(without, (200, 200), "{how:?}: without the breaker each look is a request");
        // At once (a silence twice), after 1 s, after 3 s; one more for a machine that is slow.
        assert!(with.0 == 200 && (2..=5).contains(&with.1), "{how:?}: {with:?}");
    }
}

#[tokio::test]
async fn the_first_answer_opens_the_way_for_all() {
    let site = Site::start(kubernetes()).await;
    let (one, two) = (site.target(), site.provider());
    one.inspect().await.expect("the service is there");
    site.arcgis.down(true);
    for target in [&one, &two] {
        assert_eq!(target.read().await.map_err(|fault| fault.outcome()), Err("unknown"));
    }
    site.arcgis.down(false);
    let seen = site.arcgis.requests().len();
    let fault = one.read().await.expect_err("it is not asked before its time");
    assert!(matches!(fault, Fault::Retry { after: Some(after), .. } if after <= Duration::from_secs(1)), "{fault:?}");
    assert!(fault.why().starts_with("reading cloud/services of arcgis.prod: not sent: down for "), "{fault:?}");
    for words in
        ["the next attempt is due in 1s; the attempt said: reading ", " of arcgis.prod at 127.0.0.1:", "connection"]
    {
        assert!(fault.why().contains(words), "{words}: {fault:?}");
    }
    let fault = two.push(&new_key()).await.expect_err("it is not asked before its time");
    assert!(matches!(fault, Fault::NotSent(_) | Fault::Retry { .. }), "{fault:?}");
    assert_eq!((site.arcgis.requests().len(), site.pushes()), (seen, 0), "nothing was sent");

    tokio::time::sleep(Duration::from_millis(1100)).await;
    two.read().await.expect("its time has come");
    one.read().await.expect("the way is open for all");
    assert_eq!(site.arcgis.logins(), [true], "an outage costs no login");
}

#[tokio::test]
async fn an_operator_opens_the_way_at_once() {
    let site = Site::start(kubernetes()).await;
    let (one, two) = (site.target(), site.provider());
    site.arcgis.fault("root", Mishap::Later { status: 503, seconds: 3000, as_date: false });
    one.inspect().await.expect_err("it says when to come back");
    let fault = two.inspect().await.expect_err("which is said to all");
    assert!(fault.why().contains("the next attempt is due in 50m") || fault.why().contains("in 49m"), "{fault:?}");
    one.hurry();
    two.inspect().await.expect("the operator wants it tried");
}

#[tokio::test]
async fn what_only_one_request_meets_holds_up_no_other() {
    for mishap in [Mishap::LostReply, Mishap::ErrorAfterCommit(504), Mishap::Error(502), Mishap::Html] {
        let site = Site::start(kubernetes()).await;
        let target = site.target();
        site.arcgis.fault("credential/update", mishap.clone());
        let fault = target.push(&new_key()).await.expect_err("there is no answer");
        assert!(matches!(fault, Fault::Unknown(_)), "{mishap:?}: what was sent stays unknown: {fault:?}");
        target.jobs().await.expect("a push tells of itself and not of the site");
    }
    let site = Site::start(kubernetes()).await;
    site.arcgis.set_password("another one");
    for target in [site.target(), site.provider()] {
        let fault = target.inspect().await.expect_err("the password is wrong");
        assert_eq!(reason(&fault), Some(Reason::LoginRefused), "a refused login is no outage: {fault:?}");
    }
}

#[tokio::test]
async fn a_server_says_how_long_to_wait_and_all_its_services_do() {
    for (status, as_date) in [(429, false), (429, true), (503, false), (503, true)] {
        let later = || Mishap::Later { status, seconds: 90, as_date };
        let asks_for_it =
            |fault: &Fault| matches!(fault, Fault::Retry { after: Some(after), .. } if after.as_secs() == 90);
        let site = Site::start(kubernetes()).await;
        let (target, other) = (site.target(), site.provider());
        site.arcgis.job_script(JobScript::Slow(Duration::from_secs(3600)));
        let job = target.push(&new_key()).await.expect("the push is accepted").job.expect("a job is named");
        site.arcgis.fault("job", later());
        let fault = target.poll(&job).await.expect_err("not now");
        assert!(asks_for_it(&fault), "{status} {as_date}: {fault:?}");
        let seen = site.arcgis.requests().len();
        let held_up = other.read().await.is_err();
        assert_eq!((held_up, site.arcgis.requests().len() - seen), (status == 503, usize::from(status != 503)));

        target.hurry();
        site.arcgis.fault("mode", later());
        let pushes = site.pushes();
        let fault = target.push(&new_key()).await.expect_err("not now");
        assert!(asks_for_it(&fault) && site.pushes() == pushes, "{status} {as_date}: {fault:?}");
    }
}

/// How long after an answer with this status the same operation was asked for again.
fn waited(requests: &[RequestLine], operation: &str, status: u16) -> Duration {
    let of = |line: &&RequestLine| line.operation == operation;
    let lines = requests.iter().filter(of).collect::<Vec<_>>();
    let at = lines.iter().position(|line| line.status == status).expect("it was answered so");
    (lines[at + 1].at - lines[at].at).to_std().expect("a request comes after the one before it")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_waits_as_long_as_it_is_told() {
    let scene = Scene::new().await;
    tokio::task::spawn_blocking(move || {
        scene.arcgis.fault("mode", Mishap::Later { status: 503, seconds: 3, as_date: true });
        scene.arcgis.fault("credential/update", Mishap::Later { status: 429, seconds: 3, as_date: false });
        scene.arcgis.fault("job", Mishap::Later { status: 503, seconds: 3, as_date: false });
        scene.write_policy(&PolicyText { soak: "1h".into(), ..PolicyText::default() });
        let _daemon = scene.start_adopted();
        let ran = scene.run(&["rotate", SERVICE_NAME, "--wait"]);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        let requests = scene.arcgis.requests();
        for (operation, status) in [("mode", 503), ("credential/update", 429), ("job", 503)] {
            let waited = waited(&requests, operation, status);
            assert!((3..8).contains(&waited.as_secs()), "{operation}: {waited:?}");
        }
        assert_eq!(scene.arcgis.jobs().len(), 1, "one key, one job");
        scene.assert_no_secret_seen();
    })
    .await
    .expect("the story ends well");
}

#[tokio::test(flavor = "multi_thread")]
async fn sigusr2_and_retry_do_not_wait_for_a_deployment_that_asked_for_it() {
    for by_signal in [true, false] {
        let scene = Scene::new().await;
        let story = move || {
            scene.write_policy(&PolicyText { soak: "1h".into(), ..PolicyText::default() });
            let daemon = scene.start_adopted();
            scene.arcgis.fault("root", Mishap::Later { status: 503, seconds: 3000, as_date: false });
            assert_eq!(scene.run(&["rotate", SERVICE_NAME]).code, Some(0));
            scene.wait_for("state", "waiting");
            if by_signal {
                daemon.signal("USR2");
            } else {
                assert_eq!(scene.run(&["retry", SERVICE_NAME]).code, Some(0));
            }
            scene.wait_for("phase", "soaking");
        };
        tokio::task::spawn_blocking(story).await.expect("the story ends well");
    }
}

#[tokio::test]
async fn a_federated_server_logs_in_at_its_portal() {
    let federated = ArcGisOptions { federated: true, ..server() };
    let site = Site::start(federated.clone()).await;
    let fault = site.target().inspect().await.expect_err("Server does not know the portal's users");
    assert_eq!(reason(&fault), Some(Reason::LoginRefused));
    assert!(fault.why().contains("if this Server is federated, set portal_url"), "{fault:?}");

    let site = Site::start(federated).await;
    let portal = format!("portal_url = {:?}", site.arcgis.portal_url());
    let target = site.connect(&portal, &format!("service_id = {SERVICE:?}"));
    assert_eq!(site.push_and_poll(&target).await, JobState::Succeeded);
    site.arcgis.expire_tokens();
    assert_eq!((target.read().await, site.held(SERVICE)), (Ok(new_tail()), new_key()));
    assert_eq!(site.arcgis.logins(), [true, true]);
    let logins = site.arcgis.urls().into_iter().filter(|url| url.contains("generateToken")).collect::<Vec<_>>();
    assert!(logins.iter().all(|url| url == "/gis/server/sharing/rest/generateToken"), "{logins:?}");
}

#[tokio::test]
async fn authorization_is_left_to_the_web_tier() {
    for options in [kubernetes(), server(), ArcGisOptions { version: "11.2".to_owned(), ..kubernetes() }] {
        let site = Site::start(options).await;
        let target = site.target();
        target.inspect().await.expect("the service is there");
        assert_eq!(site.push_and_poll(&target).await, JobState::Succeeded);
        let names = site.arcgis.header_names();
        assert!(names.iter().any(|name| name == "x-esri-authorization"), "{names:?}");
        assert!(!names.iter().any(|name| name == "authorization" || name == "cookie"), "{names:?}");
    }
}

/// The policy lines of a client certificate, and the files they name.
fn client(cert: &str, key: &str) -> (String, [tempfile::NamedTempFile; 2]) {
    let files = [file(cert), file(key)];
    let lines = format!("client_cert = {:?}\nclient_key = {{ file = {:?} }}", files[0].path(), files[1].path());
    (lines, files)
}

fn pki() -> ArcGisOptions {
    ArcGisOptions { tls: true, demands_certificate: true, ..kubernetes() }
}

#[tokio::test]
async fn a_web_tier_that_wants_a_certificate_gets_one() {
    let (site, other) = (Site::start(pki()).await, Site::start(pki()).await);
    let service = format!("service_id = {SERVICE:?}");
    for attempt in 0..20 {
        let fault = site.connect("", &service).inspect().await.expect_err("without a certificate nobody is let in");
        assert_eq!(reason(&fault), Some(Reason::LoginRefused), "{attempt}: {fault:?}");
        let words = "it wants a certificate of its clients (CertificateRequired): name one in client_cert, and its key in client_key";
        assert!(fault.why().ends_with(words), "{fault:?}");
    }
    let (cert, key) = other.arcgis.client_identity().expect("it speaks TLS");
    let (lines, files) = client(&cert, &key);
    let fault = site.connect(&lines, &service).inspect().await.expect_err("nobody there knows its authority");
    assert_eq!(reason(&fault), Some(Reason::LoginRefused), "{fault:?}");
    let words = format!("it refuses our certificate, client_cert {:?}", files[0].path());
    assert!(fault.why().contains(&words) && fault.why().contains("trusts its authority"), "{fault:?}");
    assert!(site.arcgis.logins().is_empty() && site.guard.refusals() == 0, "no password was sent, and none refused");

    let (cert, key) = site.arcgis.client_identity().expect("it speaks TLS");
    let (lines, _files) = client(&cert, &format!("{key}\n"));
    let target = site.connect(&lines, &service);
    assert_eq!(site.push_and_poll(&target).await, JobState::Succeeded);
    assert_eq!((target.read().await, site.arcgis.logins()), (Ok(new_tail()), vec![true]));
}

#[tokio::test]
async fn a_client_certificate_that_cannot_be_used_is_told_before_anything_is_sent() {
    let site = Site::start(pki()).await;
    let ((cert, key), (_, other)) = {
        let another = Site::start(pki()).await;
        (site.arcgis.client_identity().expect("TLS"), another.arcgis.client_identity().expect("TLS"))
    };
    let encrypted = key.replace("PRIVATE KEY", "ENCRYPTED PRIVATE KEY");
    let broken = cert.replacen("MII", "AAA", 1);
    for (cert, key, what) in [
        ("", key.as_str(), "no certificate in it"),
        (key.as_str(), &key, "it holds a private key; keep that elsewhere and name it in client_key"),
        (&format!("{cert}{key}"), &key, "it holds a private key"),
        (&broken, &key, "its first certificate cannot be read"),
        (&cert, &cert, "for client_key: no private key in it (PEM: PKCS#8, PKCS#1 or SEC1)"),
        (&cert, "hunter2", "for client_key: no private key in it"),
        (&cert, &encrypted, "for client_key: the key is encrypted; give it without a passphrase"),
        (&cert, &other, "for client_key: this key belongs to another certificate than the first of client_cert"),
    ] {
        let (lines, _files) = client(cert, key);
        let made = site.connect_at(&site.arcgis.admin_url(), &lines, &format!("service_id = {SERVICE:?}"));
        let fault = made.err().expect("this is a mistake");
        assert_eq!(reason(&fault), Some(Reason::PolicyMismatch), "{fault:?}");
        assert!(fault.why().contains(what), "{what} is not in {fault:?}");
        let lines = key.lines().filter(|line| line.len() > 6 && !line.starts_with("-----"));
        assert!(lines.clone().all(|line| !fault.why().contains(line)), "a line of the key is in {fault:?}");
    }
    assert!(site.arcgis.urls().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn check_says_what_is_wrong_with_a_client_certificate() {
    let scene =
        Scene::with(AwsOptions::default(), ArcGisOptions { job_duration: Duration::from_millis(200), ..pki() }).await;
    tokio::task::spawn_blocking(move || {
        let (cert, key) = scene.arcgis.client_identity().expect("it speaks TLS");
        std::fs::write(scene.path("ca.pem"), scene.arcgis.ca_pem().expect("it speaks TLS")).expect("it can be written");
        let home = scene.path("").display().to_string();
        let home = home.trim_end_matches('/');
        let lines = format!(
            "ca_file = \"{home}/ca.pem\"\nclient_cert = \"{home}/web-tier.pem\"\nclient_key = {{ file = \"{home}/web-tier.key\" }}"
        );
        scene.write_policy(&PolicyText { arcgis: lines, soak: "1h".into(), ..PolicyText::default() });
        scene.write_secret("web-tier.key", &key);
        let ran = scene.run(&["check"]);
        let said = format!("warning: [arcgis.prod]: reading client_cert \"{home}/web-tier.pem\": No such file");
        assert!(ran.code == Some(0) && ran.err.contains(&said), "{ran:?}");
        // What can be told of it is told to those too who may not read the key.
        std::fs::write(scene.path("web-tier.pem"), "not one").expect("it can be written");
        std::fs::remove_file(scene.path("web-tier.key")).expect("it is there");
        let ran = scene.run(&["check"]);
        assert!(ran.err.contains("web-tier.pem\": no certificate in it"), "{ran:?}");
        assert!(ran.err.contains("client_key in [arcgis.prod]") && ran.err.contains("does not exist"), "{ran:?}");

        std::fs::write(scene.path("web-tier.pem"), &cert).expect("it can be written");
        scene.write_secret("web-tier.key", &key);
        let ran = scene.run(&["check"]);
        assert!(!ran.err.contains("arcgis.prod"), "{ran:?}");
        let _daemon = scene.start_adopted();
        let ran = scene.run(&["rotate", SERVICE_NAME, "--wait"]);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        scene.assert_none_seen(key.lines().map(str::to_owned).filter(|line| !line.starts_with('-')).collect(), "");
    })
    .await
    .expect("the story ends well");
}

/// A site whose certificate signed itself.
async fn self_signed(name: &str, is_authority: bool) -> Site {
    let self_signed = Some(SelfSigned { name: name.to_owned(), is_authority });
    Site::start(ArcGisOptions { tls: true, self_signed, ..kubernetes() }).await
}

#[tokio::test]
async fn a_pinned_certificate_is_the_one_and_its_name_counts() {
    let mut site = self_signed("127.0.0.1", false).await;
    site.target().inspect().await.expect("ca_file holds the certificate itself");
    let namesake = self_signed("127.0.0.1", false).await;
    site.ca = namesake.arcgis.ca_pem().map(|pem| file(&pem));
    let fault = site.target().inspect().await.expect_err("another certificate of the same name is another one");
    assert_eq!(reason(&fault), Some(Reason::TlsUntrusted), "{fault:?}");
    assert_eq!(site.arcgis.logins(), [true], "no password went to a server that is not trusted");

    for (name, is_authority, help) in [
        ("gis.example.com", false, "a name that stands in the certificate's subjectAltName"),
        ("127.0.0.1", true, "it is an authority's own, CA:TRUE; have one made that is none, CA:FALSE"),
    ] {
        let site = self_signed(name, is_authority).await;
        let fault = site.target().inspect().await.expect_err("to hold it is not enough");
        assert_eq!(reason(&fault), Some(Reason::TlsUntrusted), "{fault:?}");
        assert!(fault.why().contains(help) && site.arcgis.logins().is_empty(), "{fault:?}");
    }
}

/// A CONNECT proxy on loopback that leads everything to one address, whatever name was asked for. Keeps what it was told.
async fn proxy(to: SocketAddr) -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback can be bound");
    let url = format!("http://{}", listener.local_addr().expect("it is bound"));
    let heads = Arc::<Mutex<Vec<String>>>::default();
    let kept = heads.clone();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let kept = kept.clone();
            let lead = async move {
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    head.push(client.read_u8().await?);
                }
                kept.lock().expect("no test panics in here").push(String::from_utf8_lossy(&head).into_owned());
                let mut server = TcpStream::connect(to).await?;
                client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
                copy_bidirectional(&mut client, &mut server).await
            };
            tokio::spawn(lead);
        }
    });
    (url, heads)
}

#[tokio::test]
async fn a_proxy_sees_where_we_go_and_nothing_else() {
    for options in [kubernetes(), server()] {
        let site = Site::start(ArcGisOptions { tls: true, ..options }).await;
        let here = site.arcgis.admin_url();
        let authority = here.split('/').nth(2).expect("it is a URL").to_owned();
        let (proxy, heads) = proxy(authority.parse().expect("it is an address")).await;
        // Loopback is never asked through a proxy, so the site has to have a name, which only the proxy knows.
        let name = authority.replace("127.0.0.1", "gis.example.com");
        let service = format!("service_id = {SERVICE:?}");
        let proxied = format!("proxy = {proxy:?}");
        let target = site.connect_at(&here.replace(&authority, &name), &proxied, &service).expect("it sends nothing");
        assert_eq!(site.push_and_poll(&target).await, JobState::Succeeded);
        let taken = || std::mem::take(&mut *heads.lock().expect("no test panics in here"));
        let heard = taken();
        assert_eq!(heard.len(), site.arcgis.requests().len(), "each request had a connection of its own");
        let secrets = site.arcgis.all_secrets();
        for head in &heard {
            assert!(head.starts_with(&format!("CONNECT {name} HTTP/1.1\r\n")), "{head}");
            assert!(secrets.iter().all(|secret| !head.contains(secret.as_str())), "{head}");
        }
        site.connect(&proxied, &service).inspect().await.expect("loopback needs no proxy");
        assert!(taken().is_empty(), "and it takes none");
    }
}

/// A page for a 404 is all that some front ends say of a resource that a Server does not have.
#[tokio::test]
async fn a_server_without_cloud_services_is_not_down() {
    let site = Site::start(server()).await;
    let target = site.target();
    for operation in ["services", "providers"] {
        site.arcgis.fault(operation, Mishap::Error(404));
    }
    assert_eq!(target.holders().await, Ok(Vec::new()), "nothing is held there");
    target.inspect().await.expect("and nothing is down");
}
