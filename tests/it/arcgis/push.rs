//! Handing a key over: by which operation, into which place, and what an answer to it means.

use super::*;

#[tokio::test]
async fn a_key_arrives_by_the_operation_of_the_version() {
    for options in flavours() {
        let (version, product) = (options.version.clone(), options.product);
        let site = Site::start(options).await;
        let target = site.target();
        let found = target.inspect().await.expect("the service is there");
        assert_eq!(found.holder.as_str(), "arcgis.prod/cloud/services/eg7hrelq6b");
        assert_eq!((found.reading, found.jobs), (site.old_tail(), vec![]), "{product:?} {version}");
        assert_eq!(site.push_and_poll(&target).await, JobState::Succeeded, "{product:?} {version}");
        let jobs = site.arcgis.jobs();
        let operation = if version == "12.0" { "credential/update" } else { "credential/add" };
        assert_eq!((jobs.len(), jobs[0].operation.as_str()), (1, operation), "{product:?} {version}");
        assert_eq!((site.held(SERVICE), target.read().await), (new_key(), Ok(new_tail())), "{product:?} {version}");
        assert_eq!(target.jobs().await, Ok(vec![JobId::new(&jobs[0].id)]), "{product:?} {version}");
        assert_eq!(site.arcgis.logins(), [true], "{product:?} {version}");
    }
}

#[tokio::test]
async fn a_secret_arrives_as_it_is() {
    let site = Site::start(kubernetes()).await;
    let target = site.target();
    for secret in ["a+b/c=d&e%f%2Bg", "one two+three=%", "\"\\{}[]<>#;?é漢", "++++////====++++"] {
        let key = material("AKIA+EXAMPLE", secret);
        target.push(&key).await.expect("the push is accepted");
        site.arcgis.settled().await;
        assert_eq!(site.held(SERVICE), key);
    }
}

#[tokio::test]
async fn a_service_that_inherits_is_left_alone() {
    for options in flavours() {
        let site = Site::start(options).await;
        let target = site.connect("", &format!("service_id = {INHERITING:?}"));
        for fault in [target.inspect().await.map(drop), target.push(&new_key()).await.map(drop)] {
            let fault = fault.expect_err("it has no credential of its own");
            assert_eq!(reason(&fault), Some(Reason::Inherits));
            assert!(
                fault.why().contains("provider_id = \"betc4g098c\"") && fault.why().contains(INHERITING),
                "{fault:?}"
            );
            assert!(!fault.why().contains(SERVICE), "{fault:?}");
        }
        assert_eq!(target.read().await, Ok(Reading::Nothing));
        assert_eq!(site.pushes(), 0);
    }
}

#[tokio::test]
async fn an_explicit_add_does_what_it_says() {
    let site = Site::start(kubernetes()).await;
    let target = site.connect("", &format!("service_id = {INHERITING:?}\noperation = \"add\""));
    assert_eq!(target.inspect().await.map(|found| found.reading), Ok(Reading::Nothing));
    assert_eq!(site.push_and_poll(&target).await, JobState::Succeeded);
    assert_eq!(target.read().await, Ok(new_tail()));
    let fault = target.push(&new_key()).await.expect_err("12.0 adds only where there is none");
    assert_eq!(reason(&fault), Some(Reason::Refused));
    assert!(fault.why().contains("already has existing service-specific credentials"), "{fault:?}");
}

#[tokio::test]
async fn a_providers_key_moves_all_that_inherit_and_no_other() {
    for options in flavours() {
        let site = Site::start(options).await;
        let target = site.provider();
        let found = target.inspect().await.expect("the provider is there");
        assert_eq!(found.holder.as_str(), "arcgis.prod/cloud/providers/betc4g098c");
        assert_eq!(found.reading, site.old_tail());
        assert_eq!(site.push_and_poll(&target).await, JobState::Succeeded);
        assert_eq!((site.held(PROVIDER), site.held(INHERITING)), (new_key(), new_key()));
        assert_eq!(site.held(SERVICE), material(&site.old.0, &site.old.1));
        assert_eq!(target.read().await, Ok(new_tail()));
    }
}

#[tokio::test]
async fn a_bare_provider_of_server_is_added_to() {
    let site = Site::start(server()).await;
    site.arcgis.add_provider("bareprovid", "AWS", None);
    let target = site.connect("", "provider_id = \"bareprovid\"");
    assert_eq!(target.inspect().await.map(|found| found.reading), Ok(Reading::Nothing));
    assert_eq!(site.push_and_poll(&target).await, JobState::Succeeded);
    assert_eq!(site.arcgis.jobs()[0].operation, "credential/add");
}

#[tokio::test]
async fn an_id_that_is_not_there_comes_with_those_that_are() {
    for options in flavours() {
        let site = Site::start(options).await;
        let fault = site.connect("", "service_id = \"nosuchone1\"").inspect().await.expect_err("there is none");
        assert_eq!(reason(&fault), Some(Reason::NotFound));
        assert!(fault.why().contains("eg7hrelq6b (AWS S3 DEFAULT)") && fault.why().contains(BACKUP), "{fault:?}");
        let fault = site.connect("", "provider_id = \"nosuchone1\"").inspect().await.expect_err("there is none");
        assert_eq!(reason(&fault), Some(Reason::NotFound));
        assert!(fault.why().ends_with("it has betc4g098c (AWS)"), "{fault:?}");
    }
}

#[tokio::test]
async fn a_server_without_cloud_services_says_so() {
    let site = Site::start(ArcGisOptions { version: "11.5".to_owned(), ..server() }).await;
    let fault = site.target().inspect().await.expect_err("Server has them from 12.0 on");
    assert_eq!(reason(&fault), Some(Reason::NotFound), "{fault:?}");
}

#[tokio::test]
async fn an_answer_that_is_lost_is_unknown() {
    for options in [kubernetes(), server()] {
        for (mishap, executed) in LOST_ANSWERS {
            let site = Site::start(options.clone()).await;
            let target = site.connect("request_timeout = \"300ms\"", &format!("service_id = {SERVICE:?}"));
            site.arcgis.fault("credential/update", mishap.clone());
            let fault = target.push(&new_key()).await.expect_err("there is no answer");
            assert!(matches!(fault, Fault::Unknown(_)), "{mishap:?}: {fault:?}");
            assert_eq!(site.pushes(), 1, "{mishap:?}: it is not sent again");
            assert_eq!(target.jobs().await.map(|jobs| jobs.len()), Ok(usize::from(executed)), "{mishap:?}");
        }
    }
}

#[tokio::test]
async fn what_goes_wrong_before_the_push_did_not_push() {
    for operation in ["generateToken", "root", "mode", "services"] {
        for mishap in FAILED_LOOKS {
            let site = Site::start(kubernetes()).await;
            site.arcgis.fault(operation, mishap.clone());
            let fault = site.target().push(&new_key()).await.expect_err("the look before the push fails");
            assert!(matches!(fault, Fault::NotSent(_) | Fault::Retry { .. }), "{operation} {mishap:?}: {fault:?}");
            assert_eq!(site.pushes(), 0, "{operation} {mishap:?}");
        }
    }
}

#[tokio::test]
async fn a_site_that_takes_no_change_says_so_before_the_mint() {
    for options in flavours() {
        let site = Site::start(options).await;
        let target = site.target();
        site.arcgis.set_read_only(true);
        for fault in [target.inspect().await.map(drop), target.push(&new_key()).await.map(drop)] {
            let fault = fault.expect_err("the site is read-only");
            assert!(matches!(&fault, Fault::Retry { why, .. } if why.contains("read-only mode")), "{fault:?}");
        }
        assert_eq!(site.pushes(), 0);
        site.arcgis.set_read_only(false);
        site.arcgis.set_site_locked(true);
        let fault = target.push(&new_key()).await.expect_err("the site is locked");
        assert!(
            matches!(&fault, Fault::Retry { why, .. } if why.contains("Another administrative operation")),
            "{fault:?}"
        );
        site.arcgis.set_site_locked(false);
        assert_eq!(site.push_and_poll(&target).await, JobState::Succeeded);
    }
}

#[tokio::test]
async fn a_throttled_push_waits_as_long_as_it_is_told() {
    let site = Site::start(kubernetes()).await;
    site.arcgis.fault("credential/update", Mishap::Throttle);
    let fault = site.target().push(&new_key()).await.expect_err("it is throttled");
    assert!(matches!(fault, Fault::Retry { after: Some(after), .. } if after == Duration::from_secs(1)), "{fault:?}");
}

#[tokio::test]
async fn a_second_job_at_once_is_told_to_wait() {
    let site = Site::start(ArcGisOptions { concurrent_jobs: false, ..kubernetes() }).await;
    site.arcgis.job_script(JobScript::Slow(Duration::from_secs(3600)));
    site.target().push(&new_key()).await.expect("the push is accepted");
    let backup = site.connect("", &format!("service_id = {BACKUP:?}"));
    let fault = backup.push(&new_key()).await.expect_err("another job runs");
    assert!(matches!(fault, Fault::Retry { .. }), "{fault:?}");
}

#[tokio::test]
async fn either_spelling_arrives() {
    for (server_takes, policy, pushes) in [
        (Spelling::Snake, "auto", 1),
        (Spelling::Both, "auto", 1),
        (Spelling::Camel, "auto", 2),
        (Spelling::Camel, "camel", 1),
        (Spelling::Snake, "snake", 1),
    ] {
        let site = Site::start(ArcGisOptions { spelling: server_takes, ..kubernetes() }).await;
        let target = site.connect(&format!("credential_keys = {policy:?}"), &format!("service_id = {SERVICE:?}"));
        assert_eq!(site.push_and_poll(&target).await, JobState::Succeeded, "{server_takes:?} {policy}");
        assert_eq!((site.held(SERVICE), site.pushes()), (new_key(), pushes), "{server_takes:?} {policy}");
    }
    let site = Site::start(ArcGisOptions { spelling: Spelling::Camel, ..kubernetes() }).await;
    let target = site.connect("credential_keys = \"snake\"", &format!("service_id = {SERVICE:?}"));
    let fault = target.push(&new_key()).await.expect_err("the policy allows one spelling");
    assert_eq!((reason(&fault), site.pushes()), (Some(Reason::Refused), 1));
}

#[tokio::test]
async fn a_refusal_of_another_kind_is_not_repeated_in_another_spelling() {
    let site = Site::start(kubernetes()).await;
    site.arcgis.fault("credential/update", Mishap::Refuse("The bucket cannot be reached.".to_owned()));
    let fault = site.target().push(&new_key()).await.expect_err("it is refused");
    assert_eq!((reason(&fault), site.pushes()), (Some(Reason::Refused), 1));
    assert!(fault.why().ends_with("code 400, \"The bucket cannot be reached.\""), "{fault:?}");
}

#[tokio::test]
async fn after_a_404_the_documents_other_spelling_of_cloud_is_tried_once() {
    let site = Site::start(ArcGisOptions { accept_clouds_alias: true, ..kubernetes() }).await;
    site.arcgis.fault("credential/update", Mishap::Error(404));
    assert_eq!(site.push_and_poll(&site.target()).await, JobState::Succeeded);
    let posts = site.arcgis.urls().into_iter().filter(|url| url.contains("/credential/")).collect::<Vec<_>>();
    assert!(
        matches!(&posts[..], [first, second] if first.contains("/cloud/") && second.contains("/clouds/")),
        "{posts:?}"
    );

    let site = Site::start(kubernetes()).await;
    site.arcgis.fault("credential/update", Mishap::Error(404));
    let fault = site.target().push(&new_key()).await.expect_err("there is no alias");
    assert!(matches!(fault, Fault::Retry { .. }), "a page may be a web adaptor without its server: {fault:?}");
    assert_eq!(site.arcgis.jobs().len(), 0);
}

#[tokio::test]
async fn an_operation_the_version_lacks_is_refused() {
    let site = Site::start(ArcGisOptions { version: "11.2".to_owned(), ..kubernetes() }).await;
    let target = site.connect("", &format!("service_id = {SERVICE:?}\noperation = \"update\""));
    let fault = target.push(&new_key()).await.expect_err("11.2 has no update");
    assert_eq!(reason(&fault), Some(Reason::Refused));
    assert!(fault.why().ends_with("this version has no such operation (the policy chose this operation)"), "{fault:?}");
}

#[tokio::test]
async fn a_redirected_push_is_refused() {
    let site = Site::start(kubernetes()).await;
    let elsewhere = "https://other.example.com/arcgis/admin?token=hush";
    site.arcgis.fault("credential/update", Mishap::Redirect(elsewhere.to_owned()));
    let fault = site.target().push(&new_key()).await.expect_err("it is redirected");
    assert_eq!((reason(&fault), site.pushes()), (Some(Reason::Refused), 1));
    assert!(fault.why().contains("https://other.example.com/arcgis/admin;"), "{fault:?}");
    assert!(!fault.why().contains("hush"), "{fault:?}");
}

#[tokio::test]
async fn a_server_that_is_down_is_not_sent_to() {
    let site = Site::start(kubernetes()).await;
    let target = site.target();
    target.inspect().await.expect("the service is there");
    site.arcgis.down(true);
    let fault = target.push(&new_key()).await.expect_err("it is down");
    assert!(matches!(fault, Fault::NotSent(_)), "{fault:?}");
    assert_eq!(target.poll(&JobId::new("j1")).await.map_err(|fault| fault.outcome()), Err("unknown"));
}
