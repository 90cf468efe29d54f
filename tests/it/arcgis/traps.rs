//! The twenty traps of a faithful client, by number and name: a checklist of ours, from Esri's documents, code and forum. Each is
//! played against the lab through the port, or with the built program where it is about a rotation.
//!
//! Most are played more broadly in the modules beside this one; here each has one test that must fail where a client falls into it.

use rekeyd_lab::AwsOptions;

use super::super::support::{self, PolicyText, Scene, wait_until};
use super::*;

/// Tells a story of the built program in a thread of its own: its waiting must not hold up the lab.
async fn story(arcgis: ArcGisOptions, tell: impl FnOnce(Scene) + Send + 'static) {
    let scene = Scene::with(AwsOptions::default(), arcgis).await;
    if let Err(failed) = tokio::task::spawn_blocking(move || tell(scene)).await {
        std::panic::resume_unwind(failed.into_panic());
    }
}

/// Long enough between storing and ending for a consumer's request that is under way, on a machine that does much else.
fn calm() -> ArcGisOptions {
    ArcGisOptions { job_duration: Duration::from_secs(1), ..ArcGisOptions::default() }
}

fn both() -> [ArcGisOptions; 2] {
    [kubernetes(), server()]
}

/// 200 carries errors in two envelopes, and the code is in the body only.
#[tokio::test]
async fn trap_01_a_200_that_carries_an_error() {
    for options in both() {
        let site = Site::start(options).await;
        let target = site.target();
        target.inspect().await.expect("the service is there");
        site.arcgis.fault("credential/update", Mishap::Refuse("no such bucket".to_owned()));
        let refused = target.push(&new_key()).await.expect_err("400 in the body");
        assert_eq!(reason(&refused), Some(Reason::Refused), "{refused:?}");
        site.arcgis.set_site_locked(true);
        let locked = target.push(&new_key()).await.expect_err("500 in the body");
        assert!(matches!(locked, Fault::Retry { .. }), "{locked:?}");
        site.arcgis.set_site_locked(false);
        site.arcgis.expire_tokens();
        target.inspect().await.expect("498 in the body: logged in again");
        site.arcgis.set_username_privilege(false);
        let denied = target.push(&new_key()).await.expect_err("403 in the body");
        assert_eq!(reason(&denied), Some(Reason::MissingRight), "{denied:?}");
        assert!(site.arcgis.requests().iter().all(|line| line.status == 200), "every one of them came with a 200");
        assert_eq!(site.arcgis.jobs().len(), 0);
    }
}

/// COMPLETED means finished, not worked.
#[tokio::test]
async fn trap_02_completed_is_not_success() {
    for options in both() {
        let site = Site::start(options).await;
        let target = site.target();
        for script in [
            JobScript::CompleteWithInnerError("service failed to start".to_owned()),
            JobScript::CompleteWithFailedStage("Update".to_owned()),
        ] {
            site.arcgis.job_script(script.clone());
            let state = site.push_and_poll(&target).await;
            let JobState::Failed(why) = &state else { panic!("{script:?}: {state:?}") };
            assert!(why.starts_with("completed with an error inside"), "{why}");
            assert_eq!(target.read().await, Ok(site.old_tail()));
        }
    }
}

/// No SUCCEEDED; UNAVAILABLE and unknown words are "look again"; CANCELLING rolls back; TIMED OUT exists.
#[tokio::test]
async fn trap_03_words_that_are_no_end_and_one_that_is() {
    let site = Site::start(ArcGisOptions { job_duration: Duration::from_millis(1200), ..kubernetes() }).await;
    let target = site.target();
    site.arcgis.job_script(JobScript::CancelAndRollBack);
    let job = target.push(&new_key()).await.expect("the push is accepted").job.expect("a job is named");
    let mut words = Vec::new();
    let end = loop {
        match target.poll(&job).await.expect("the job can be read") {
            JobState::Running(word) if words.last() != Some(&word) => words.push(word),
            JobState::Running(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            end => break end,
        }
    };
    assert_eq!(words, ["submitted", "executing", "cancelling"]);
    assert_eq!(end, JobState::Failed("cancelled: it gives no reason".to_owned()));
    assert_eq!(target.read().await, Ok(site.old_tail()), "it was rolled back");

    site.arcgis.set_job_duration(Duration::from_millis(20));
    site.arcgis.job_script(JobScript::TimedOut);
    assert_eq!(site.push_and_poll(&target).await, JobState::Failed("timed out: it gives no reason".to_owned()));
    site.arcgis.job_script(JobScript::UnavailableBlips(1));
    let job = target.push(&new_key()).await.expect("the push is accepted").job.expect("a job is named");
    site.arcgis.settled().await;
    assert_eq!(target.poll(&job).await, Ok(JobState::Running("unavailable".to_owned())));
    assert_eq!(target.poll(&job).await, Ok(JobState::Succeeded));
}

/// `cloudCredentialRotationJobId`, perhaps malformed; two job URLs on Server.
#[tokio::test]
async fn trap_04_the_job_has_another_name_and_two_places() {
    for malformed_job_reply in [false, true] {
        for server_job_path in [JobPath::Both, JobPath::Classic, JobPath::Short] {
            for options in both() {
                let site = Site::start(ArcGisOptions { malformed_job_reply, server_job_path, ..options }).await;
                let target = site.target();
                let job = target.push(&new_key()).await.expect("the push is accepted").job;
                site.arcgis.settled().await;
                let job = job.expect("a job is named");
                assert_eq!(job.as_str(), site.arcgis.jobs()[0].id);
                assert_eq!(target.poll(&job).await, Ok(JobState::Succeeded), "{server_job_path:?}");
            }
        }
    }
}

/// The operation follows the version and what is there; a service that inherits is not forked off its provider.
#[tokio::test]
async fn trap_05_add_or_update_or_the_provider() {
    for (version, operation) in [("11.5", "credential/add"), ("12.0", "credential/update")] {
        let site = Site::start(ArcGisOptions { version: version.to_owned(), ..kubernetes() }).await;
        assert_eq!(site.push_and_poll(&site.target()).await, JobState::Succeeded);
        assert_eq!(site.arcgis.jobs()[0].operation, operation, "{version}");
        let inheriting = site.connect("", &format!("service_id = {INHERITING:?}"));
        let fault = inheriting.push(&new_key()).await.expect_err("it has no credential of its own");
        assert_eq!(reason(&fault), Some(Reason::Inherits), "{version}");
        assert!(fault.why().contains(&format!("provider_id = {PROVIDER:?}")), "{fault:?}");
        assert_eq!((site.pushes(), site.arcgis.jobs().len()), (1, 1), "{version}: nothing was sent for it");
    }
}

/// A provider's key serves all that inherit; two holders of one key are both moved before it is retired.
#[tokio::test(flavor = "multi_thread")]
async fn trap_06_a_key_with_two_holders() {
    let slow = Duration::from_secs(4);
    story(calm(), move |scene| {
        let (access_key, secret_key) = scene.first_key.clone();
        scene.arcgis.add_provider("secondprov", "AWS", Some(StoredCredential { access_key, secret_key }));
        scene.arcgis.add_service("inheritsit", "secondprov", support::BUCKET, None);
        let more =
            "  [[service.target]]\n  kind = \"arcgis\"\n  deployment = \"prod\"\n  provider_id = \"secondprov\"\n";
        scene.write_policy(&PolicyText { more: more.into(), ..PolicyText::default() });
        scene.arcgis.job_script(JobScript::Complete);
        scene.arcgis.job_script(JobScript::Slow(slow));
        let _daemon = scene.start_adopted();
        let ran = scene.run(&["rotate", support::SERVICE]);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        wait_until("the first holder has the new key, and the second job runs", || {
            let jobs = scene.arcgis.jobs();
            jobs.len() == 2 && jobs[0].status == "COMPLETED"
        });
        // Soak and watch together are six tenths of a second; the second job takes its four.
        while scene.arcgis.jobs()[1].status != "COMPLETED" {
            let keys = scene.aws.keys(support::USER);
            assert!(keys.len() == 2 && keys.iter().all(|key| key.active), "a holder still needs it: {keys:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
        scene.wait_done(1);
        scene.assert_one_live_key();
        assert_eq!(scene.arcgis.held_key("inheritsit"), scene.arcgis.held_key(support::CLOUD_SERVICE));
        assert_ne!(scene.arcgis.held_key("inheritsit"), Some(scene.first_key.clone()));
    })
    .await;
}

/// The fields of the secret are spelled in two ways; nobody outside knows which is taken.
#[tokio::test]
async fn trap_07_snake_or_camel() {
    for options in both() {
        for spelling in [Spelling::Snake, Spelling::Camel, Spelling::Both] {
            let site = Site::start(ArcGisOptions { spelling, ..options.clone() }).await;
            assert_eq!(site.push_and_poll(&site.target()).await, JobState::Succeeded, "{spelling:?}");
            assert_eq!((site.held(SERVICE), site.arcgis.jobs().len()), (new_key(), 1), "{spelling:?}");
        }
    }
}

/// A `+` that is not escaped arrives as a space, and the job is COMPLETED all the same.
#[tokio::test]
async fn trap_08_a_plus_is_no_space() {
    for options in both() {
        let site = Site::start(options).await;
        let target = site.target();
        for secret in ["++++////====++++", "a b+c%2Bd&e=f?g#h", "wJalr+XUt/nFEMI=K7MDENGbPxRfiCY+a=b"] {
            let key = material("AKIA/EX+AMPLE=", secret);
            target.push(&key).await.expect("the push is accepted");
            site.arcgis.settled().await;
            assert_eq!(site.held(SERVICE), key);
        }
        // Where the server's own decoder does it, the job says nothing, and the tail does.
        site.arcgis.job_script(JobScript::StoreMangled);
        let receipt = target.push(&material("AKIAEXAMPLE", "wJalrXUtnFEMIK7MDENGa+b+")).await.expect("it is accepted");
        site.arcgis.settled().await;
        assert_eq!(target.poll(&receipt.job.expect("a job is named")).await, Ok(JobState::Succeeded));
        assert_ne!(target.read().await, Ok(Reading::Tail(Tail::new("a+b+"))));
    }
}

/// What a read-back shows is never sent back, and ciphertexts are not compared.
#[tokio::test]
async fn trap_09_masks_are_not_keys() {
    for options in both() {
        let site = Site::start(options).await;
        let target = site.target();
        site.arcgis.record();
        let first = target.read().await;
        assert_eq!((&first, target.read().await), (&Ok(site.old_tail()), first.clone()));
        let shown: Vec<String> =
            site.arcgis.conversation().into_iter().filter_map(|exchange| Some(exchange.answer?.body)).collect();
        assert_ne!(shown[1], shown[2], "the id is enciphered anew at each read, and the reading is the same");
        assert_eq!(site.push_and_poll(&target).await, JobState::Succeeded);
        let sent = site.arcgis.conversation().into_iter().find(|exchange| exchange.path.contains("/credential/"));
        let sent =
            sent.expect("it was pushed").form.into_iter().find(|(name, _)| name == "credential").expect("a credential");
        assert!(!["{crypt}", "v2Crypt_", "xxxx"].iter().any(|mask| sent.1.contains(mask)), "a mask was posted back");
        assert_eq!((site.held(SERVICE), target.read().await), (new_key(), Ok(new_tail())));
    }
}

/// A token that ends in the middle: the poll goes on with the same job, and nothing is posted again because of it.
#[tokio::test]
async fn trap_10_the_token_ends_while_the_job_runs() {
    for options in both() {
        let site = Site::start(options).await;
        let target = site.target();
        let job = target.push(&new_key()).await.expect("the push is accepted").job.expect("a job is named");
        site.arcgis.settled().await;
        site.arcgis.expire_tokens();
        assert_eq!(target.poll(&job).await, Ok(JobState::Succeeded));
        assert_eq!((site.pushes(), site.arcgis.logins().len()), (1, 2));
        // On the POST itself it means that nothing was done: sent once more, and only once.
        site.arcgis.fault("credential/update", Mishap::Error(401));
        target.push(&new_key()).await.expect("the push is accepted under a new token");
        assert_eq!((site.pushes(), site.arcgis.jobs().len()), (3, 2));
    }
}

/// Tokens are bound to a referer, and live shorter than asked; `expires` is a number or a text.
#[tokio::test]
async fn trap_11_a_token_has_a_referer_and_an_end() {
    for options in both() {
        let site = Site::start(ArcGisOptions { token_ttl: Some(Duration::from_millis(1200)), ..options }).await;
        site.arcgis.record();
        let target = site.target();
        while site.arcgis.logins().len() < 2 {
            target.inspect().await.expect("the service is there");
        }
        // A Server without that resource has nothing to execute there.
        let requests = site.arcgis.requests();
        let mut asked = requests.iter().filter(|line| line.operation != "upgrade");
        assert!(asked.all(|line| line.executed), "no request met a dead token");
        let (mut bound, mut sent) = (Vec::new(), Vec::new());
        for exchange in site.arcgis.conversation() {
            let fields =
                |name: &str| exchange.form.iter().find(|(field, _)| field == name).map(|(_, value)| value.clone());
            sent.extend(exchange.headers.iter().find(|(name, _)| name == "referer").map(|(_, value)| value.clone()));
            if exchange.path.ends_with("generateToken") {
                assert_eq!(fields("client").as_deref(), Some("referer"), "IP binding breaks behind a load balancer");
                bound.extend(fields("referer"));
            }
        }
        assert_eq!(sent.len(), site.arcgis.conversation().len(), "every request carries it");
        assert!(sent.iter().chain(&bound).all(|referer| *referer == site.arcgis.admin_url()), "{sent:?} {bound:?}");
    }
}

/// Five wrong passwords lock the account, the primary site administrator's too: one refusal is enough.
#[tokio::test]
async fn trap_12_a_refused_password_is_not_tried_again() {
    for options in both() {
        let site = Site::start(options).await;
        let target = site.target();
        site.arcgis.set_password("another one");
        for _ in 0..6 {
            let fault = target.inspect().await.expect_err("the password is wrong");
            assert_eq!(reason(&fault), Some(Reason::LoginRefused), "{fault:?}");
        }
        assert_eq!(site.arcgis.logins(), [false]);
        // A line that is cut says nothing of the password.
        let site = Site::start(kubernetes()).await;
        site.arcgis.fault("generateToken", Mishap::DropBefore);
        let target = site.target();
        assert!(matches!(target.read().await, Err(Fault::NotSent(_) | Fault::Retry { .. })));
        target.read().await.expect("it passed");
        assert_eq!(site.guard.refusals(), 0);
    }
}

/// A POST whose answer is lost is unknown, and is not sent again before somebody looked.
#[tokio::test(flavor = "multi_thread")]
async fn trap_13_a_push_that_nobody_answered() {
    for mishap in [Mishap::LostReply, Mishap::ErrorAfterCommit(502), Mishap::DropBefore] {
        let site = Site::start(kubernetes()).await;
        site.arcgis.fault("credential/update", mishap.clone());
        let fault = site.target().push(&new_key()).await.expect_err("nobody can tell");
        assert!(matches!(fault, Fault::Unknown(_)), "{mishap:?}: {fault:?}");
        assert_eq!(site.pushes(), 1, "{mishap:?}");
    }
    story(calm(), |scene| {
        let _daemon = scene.start_adopted();
        scene.arcgis.fault("credential/update", Mishap::LostReply);
        let ran = scene.run(&["rotate", support::SERVICE]);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        scene.wait_done(1);
        scene.assert_one_live_key();
        assert_eq!(scene.aws.mints(), 1);
        let requests = scene.arcgis.requests();
        let mut rest = requests.iter().skip_while(|line| line.operation != "credential/update").skip(1);
        let next = rest.find(|line| ["jobs", "credential/update", "credential/add"].contains(&line.operation.as_str()));
        assert_eq!(
            next.map(|line| line.operation.as_str()),
            Some("jobs"),
            "it looks before it sends again: {requests:#?}"
        );
    })
    .await;
}

/// A job that is gone, or a server that restarts: unknown, not failed.
#[tokio::test]
async fn trap_14_a_job_nobody_can_tell_of() {
    for options in both() {
        let site = Site::start(options.clone()).await;
        site.arcgis.job_script(JobScript::Vanish);
        let state = site.push_and_poll(&site.target()).await;
        assert!(matches!(state, JobState::Vanished(_)), "{state:?}");
        for how in RESTARTS {
            let site = Site::start(options.clone()).await;
            let target = site.target();
            site.arcgis.restart_in_next_job(how, Duration::from_secs(3600));
            let job = target.push(&new_key()).await.expect("the push is accepted").job.expect("a job is named");
            site.arcgis.settled().await;
            let fault = target.poll(&job).await.expect_err("nobody can tell now");
            assert!(matches!(fault, Fault::Unknown(_) | Fault::Retry { .. }), "{how:?}: {fault:?}");
        }
    }
}

/// Read-only mode and a site lock are seen before a key is minted for nothing.
#[tokio::test(flavor = "multi_thread")]
async fn trap_15_a_site_that_takes_no_change_now() {
    story(calm(), |scene| {
        let _daemon = scene.start_adopted();
        scene.arcgis.set_read_only(true);
        scene.run(&["rotate", support::SERVICE]);
        wait_until("it has met the read-only mode twice", || {
            scene.arcgis.requests().iter().filter(|line| line.operation == "mode").count() >= 3
        });
        assert_eq!((scene.aws.mints(), scene.aws.keys(support::USER).len()), (0, 1), "no key is minted for nothing");
        scene.arcgis.set_read_only(false);
        scene.wait_done(1);
        scene.assert_one_live_key();
        assert_eq!(scene.aws.mints(), 1);
    })
    .await;
}

/// A job's word alone retires nothing: the read-back has to agree.
#[tokio::test(flavor = "multi_thread")]
async fn trap_16_a_job_that_lies_retires_nothing() {
    story(calm(), |scene| {
        let policy = std::fs::read_to_string(scene.policy()).expect("the policy is there");
        let policy = policy.replace("readback = \"5s\"", "readback = \"300ms\"");
        std::fs::write(scene.policy(), policy).expect("the policy can be written");
        for _ in 0..20 {
            scene.arcgis.job_script(JobScript::Liar);
        }
        let _daemon = scene.start_adopted();
        let ran = scene.run(&["rotate", support::SERVICE]);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        scene.wait_for("state", "halted");
        assert!(scene.arcgis.jobs().iter().all(|job| job.status == "COMPLETED" && !job.stored));
        assert_eq!(scene.arcgis.held_key(support::CLOUD_SERVICE), Some(scene.first_key.clone()));
        let first = scene.aws.keys(support::USER).into_iter().find(|key| key.id == scene.first_key.0);
        assert!(first.is_some_and(|key| key.active), "the key that is in use");
        let retired = scene.aws.requests().into_iter().filter(|line| {
            ["UpdateAccessKey", "DeleteAccessKey"].contains(&line.operation.as_str())
                && line.user_or_target == scene.first_key.0
        });
        assert_eq!((retired.count(), scene.arcgis.consumer_refusals()), (0, 0));
    })
    .await;
}

/// Bodies, tokens, redirect targets and ciphertexts are secrets too.
#[tokio::test]
async fn trap_17_a_server_that_repeats_the_secret() {
    for options in both() {
        let site = Site::start(options).await;
        let (target, key) = (site.target(), new_key());
        let secret = key.secret().expose().to_owned();
        site.arcgis
            .fault("credential/update", Mishap::Refuse(format!("cannot use {secret} or {{crypt}}abcDEF+/= here")));
        let refused = target.push(&key).await.expect_err("it is refused");
        site.arcgis.fault("credential/update", Mishap::Redirect(format!("https://x.example.com/a?token={secret}")));
        let moved = target.push(&key).await.expect_err("it is redirected");
        target.know(vec![key.secret().clone()]);
        site.arcgis.job_script(JobScript::Fail(format!("stored v2Crypt_abc= for {secret}")));
        let JobState::Failed(failed) = site.push_and_poll(&target).await else { panic!("it failed") };
        for said in [refused.why(), moved.why(), &failed] {
            let shown = [secret.as_str(), "abcDEF", "abc=", "token=w"].into_iter().find(|shown| said.contains(shown));
            assert_eq!(shown, None, "{said}");
        }
        for url in site.arcgis.urls() {
            assert!(!site.arcgis.all_secrets().iter().any(|secret| url.contains(secret.as_str())), "{url}");
        }
    }
}

/// Redirects of a POST are not followed, pages are no answers, content types say nothing, unknown fields are passed over.
#[tokio::test]
async fn trap_18_redirects_pages_and_unknown_fields() {
    for options in both() {
        let site = Site::start(options.clone()).await;
        let elsewhere = Site::start(options).await;
        let target = site.target();
        site.arcgis.fault("credential/update", Mishap::Redirect(format!("{}/cloud", elsewhere.arcgis.admin_url())));
        let fault = target.push(&new_key()).await.expect_err("it is redirected");
        assert_eq!(reason(&fault), Some(Reason::Refused), "{fault:?}");
        assert!(elsewhere.arcgis.requests().is_empty(), "a key is not sent after a redirect");
        site.arcgis.fault("credential/update", Mishap::Html);
        let fault = target.push(&new_key()).await.expect_err("a page is no answer");
        assert!(matches!(fault, Fault::Unknown(_)), "the job may have started: {fault:?}");
        // The lab's Server says text/plain to everything.
        assert_eq!(site.push_and_poll(&target).await, JobState::Succeeded);
    }
    let mut services = peer::sound_body("services", Product::Kubernetes, "12.0");
    services["nextPage"] = serde_json::json!({"a": [null]});
    services["cloudServices"][1]["rotationPolicy"] = serde_json::json!([{"every": 30}]);
    services["cloudServices"][1]["connection"]["credential"]["expires"] = serde_json::json!(7);
    let answers = std::collections::HashMap::from([("services", peer::Wire::json(&services))]);
    let peer = peer::Peer::start(Product::Kubernetes, "12.0", answers).await;
    let target = peer.connect(&Arc::default(), "", &format!("service_id = {SERVICE:?}"));
    assert_eq!(target.read().await, Ok(Reading::Tail(Tail::new(peer::TAIL))));
}

/// Self-signed certificates are common: an authority can be named, and there is no silent way around.
#[tokio::test]
async fn trap_19_an_authority_nobody_knows() {
    for options in both() {
        let mut site = Site::start(ArcGisOptions { tls: true, ..options }).await;
        let named = site.ca.take();
        let fault = site.target().inspect().await.expect_err("nobody trusts it");
        assert_eq!(reason(&fault), Some(Reason::TlsUntrusted), "{fault:?}");
        assert!(site.arcgis.requests().is_empty(), "nothing was sent to it");
        site.ca = named;
        assert_eq!(site.push_and_poll(&site.target()).await, JobState::Succeeded);
    }
}

/// Azure's mint regenerates the idle one of two keys, and breaks whoever uses it. This build has no such issuer, and a policy that
/// asks for one is refused by name before anything is started.
#[tokio::test(flavor = "multi_thread")]
async fn trap_20_azure_regenerates_what_somebody_may_use() {
    story(calm(), |scene| {
        let policy = std::fs::read_to_string(scene.policy()).expect("the policy is there");
        std::fs::write(scene.policy(), policy.replace("kind = \"aws-iam\"", "kind = \"azure-key\""))
            .expect("it can be written");
        for word in ["check", "run"] {
            let ran = scene.run(&[word]);
            assert_eq!(ran.code, Some(78), "{ran:?}");
            assert!(format!("{}{}", ran.out, ran.err).contains("see that nobody uses the other key"), "{ran:?}");
        }
        assert!(scene.aws.requests().is_empty() && scene.arcgis.requests().is_empty(), "somebody was asked");
    })
    .await;
}
