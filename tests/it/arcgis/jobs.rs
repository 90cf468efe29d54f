//! After the push: how a job stands, what a read-back shows, whether the consumer works.

use super::*;

#[tokio::test]
async fn a_read_back_shows_the_tail_and_nothing_else() {
    let site = Site::start(kubernetes()).await;
    let target = site.target();
    site.arcgis.job_script(JobScript::Liar);
    assert_eq!(site.push_and_poll(&target).await, JobState::Succeeded);
    assert_eq!(target.read().await, Ok(site.old_tail()), "a job that lies is found out by reading back");
    // Ciphertexts change with every read, and the reading does not.
    assert_eq!(target.read().await, target.read().await);
}

#[tokio::test]
async fn every_end_of_a_job_is_told_apart() {
    let ends = [
        (JobScript::Complete, Ok(())),
        (JobScript::Fail("no such bucket".to_owned()), Err("failed: no such bucket")),
        (JobScript::FailAfterStore("late".to_owned()), Err("failed: late")),
        (JobScript::CompleteWithInnerError("refused".to_owned()), Err("completed with an error inside: refused")),
        (JobScript::CompleteWithFailedStage("Update".to_owned()), Err("completed with an error inside: ")),
        (JobScript::CancelAndRollBack, Err("cancelled: it gives no reason")),
        (JobScript::TimedOut, Err("timed out: it gives no reason")),
    ];
    for options in [kubernetes(), server()] {
        let site = Site::start(options).await;
        let target = site.target();
        for (script, expected) in &ends {
            site.arcgis.job_script(script.clone());
            let state = site.push_and_poll(&target).await;
            let told = match &state {
                JobState::Succeeded => expected.is_ok(),
                JobState::Failed(what) => expected.is_err_and(|start| what.starts_with(start)),
                JobState::Running(_) | JobState::Vanished(_) => false,
            };
            assert!(told, "{script:?}: {state:?}");
        }
    }
}

#[tokio::test]
async fn a_job_that_cannot_be_told_just_now_goes_on() {
    let site = Site::start(kubernetes()).await;
    let target = site.target();
    site.arcgis.job_script(JobScript::UnavailableBlips(2));
    let job = target.push(&new_key()).await.expect("the push is accepted").job.expect("a job is named");
    site.arcgis.settled().await;
    assert_eq!(target.poll(&job).await, Ok(JobState::Running("unavailable".to_owned())));
    assert_eq!(target.poll(&job).await, Ok(JobState::Running("unavailable".to_owned())));
    assert_eq!(target.poll(&job).await, Ok(JobState::Succeeded));
    site.arcgis.job_script(JobScript::Slow(Duration::from_secs(3600)));
    let job = target.push(&new_key()).await.expect("the push is accepted").job.expect("a job is named");
    assert_eq!(target.poll(&job).await, Ok(JobState::Running("submitted".to_owned())));
}

#[tokio::test]
async fn a_reply_as_the_documents_print_it() {
    for options in [kubernetes(), server()] {
        let site = Site::start(ArcGisOptions { malformed_job_reply: true, ..options }).await;
        assert_eq!(site.push_and_poll(&site.target()).await, JobState::Succeeded);
    }
}

#[tokio::test]
async fn jobs_of_server_are_found_at_either_place() {
    for path in [JobPath::Both, JobPath::Classic, JobPath::Short] {
        for real_status_codes in [false, true] {
            let site = Site::start(ArcGisOptions { server_job_path: path, real_status_codes, ..server() }).await;
            let target = site.target();
            assert_eq!(site.push_and_poll(&target).await, JobState::Succeeded, "{path:?}");
            assert_eq!(target.jobs().await.map(|jobs| jobs.len()), Ok(1), "{path:?}");
            let gone = target.poll(&JobId::new("j00000000-0000-0000-0000-000000000000")).await;
            assert!(matches!(gone, Ok(JobState::Vanished(_))), "{path:?}: {gone:?}");
        }
    }
}

#[tokio::test]
async fn a_lost_job_is_neither_good_nor_bad() {
    for options in flavours() {
        let site = Site::start(options).await;
        let target = site.target();
        site.arcgis.job_script(JobScript::Vanish);
        let state = site.push_and_poll(&target).await;
        assert!(matches!(&state, JobState::Vanished(why) if why.contains("404")), "{state:?}");
    }
}

#[tokio::test]
async fn a_job_id_of_a_damaged_journal_does_not_leave_its_path() {
    let site = Site::start(kubernetes()).await;
    let fault = site.target().poll(&JobId::new("../cloud/services")).await.expect_err("this is no job id");
    assert_eq!(reason(&fault), Some(Reason::Refused));
    assert!(site.arcgis.urls().is_empty());
}

#[tokio::test]
async fn a_restart_is_no_failure() {
    for options in [kubernetes(), server()] {
        for how in RESTARTS {
            let site = Site::start(options.clone()).await;
            let target = site.target();
            site.arcgis.restart_in_next_job(how, Duration::from_secs(3600));
            let job = target.push(&new_key()).await.expect("the push is accepted").job.expect("a job is named");
            site.arcgis.settled().await;
            let fault = target.poll(&job).await.expect_err("nobody can tell now");
            assert!(matches!(fault, Fault::Unknown(_) | Fault::Retry { .. }), "{how:?}: {fault:?}");
            let fault = target.jobs().await.expect_err("no answer is not the answer that there are none");
            assert!(matches!(fault, Fault::Unknown(_) | Fault::Retry { .. }), "{how:?}: {fault:?}");
            let fault = target.inspect().await.expect_err("nobody can tell now");
            assert!(matches!(fault, Fault::Unknown(_) | Fault::Retry { .. }), "{how:?}: {fault:?}");
            let pushes = site.pushes();
            let fault = target.push(&new_key()).await.expect_err("this is no time for a push");
            assert!(matches!(fault, Fault::NotSent(_) | Fault::Retry { .. }), "{how:?}: {fault:?}");
            assert_eq!(site.pushes(), pushes, "{how:?}");
        }
    }
}

#[tokio::test]
async fn health_sees_through_a_200() {
    let site = Site::start(kubernetes()).await;
    let admin = site.arcgis.admin_url();
    let watched = |url: &str, expect: u16| {
        site.connect("", &format!("service_id = {SERVICE:?}\nhealth = {{ url = {url:?}, expect = {expect} }}"))
    };
    let info = admin.replace("/admin", "/rest/info?f=json");
    assert_eq!(site.target().health().await, Health::NotWatched);
    assert_eq!(watched(&info, 200).health().await, Health::Good);
    let Health::Bad(why) = watched(&info, 204).health().await else { panic!("200 is not 204") };
    assert!(why.ends_with("expected status 204, got 200"), "{why}");
    let Health::Bad(why) = watched(&format!("{admin}?f=json"), 200).health().await else {
        panic!("this needs a token")
    };
    assert!(why.contains("an error inside: code 499"), "{why}");
    site.arcgis.down(true);
    let Health::Bad(why) = watched(&info, 200).health().await else { panic!("nobody is there") };
    assert!(!why.contains("f=json"), "{why}");
}

#[tokio::test]
async fn a_backup_store_says_itself_whether_it_works() {
    let site = Site::start(kubernetes()).await;
    let credential = Some(stored(&site.old));
    site.arcgis.add_service_with(ServiceSpec { credential, ..ServiceSpec::new("st0re00001", PROVIDER, "gis-store") });
    site.arcgis.add_backup_store("nightly", "st0re00001");
    let target = site.connect("", "service_id = \"st0re00001\"\nhealth = { backup_store = \"nightly\" }");
    assert_eq!(target.health().await, Health::Good);
    site.arcgis.set_credential("st0re00001", "AKIANOBODY", "nobody's secret");
    assert_eq!(target.health().await, Health::Good, "it is not asked again so soon");
    let fresh = site.connect("poll = \"3s\"", "service_id = \"st0re00001\"\nhealth = { backup_store = \"nightly\" }");
    let Health::Bad(why) = fresh.health().await else { panic!("the store cannot be reached") };
    assert!(why.starts_with("validating backup store nightly of arcgis.prod at "), "{why}");
    for mishap in [Mishap::Html, Mishap::Throttle, Mishap::Error(503), Mishap::DropBefore] {
        site.arcgis.fault("validate", mishap.clone());
        fresh.hurry();
        assert_eq!(fresh.health().await, Health::NotWatched, "{mishap:?} says nothing about the store");
        assert_eq!(site.arcgis.faults_left("validate"), 0, "{mishap:?} was met");
    }
    fresh.hurry();
    let other = site.connect("", "service_id = \"st0re00001\"\nhealth = { backup_store = \"weekly\" }");
    assert!(matches!(other.health().await, Health::Bad(_)), "there is no such store");
}

#[tokio::test]
async fn a_cloud_service_says_itself_whether_it_works() {
    const STORE: &str = "st0re00001";
    let watched = format!("service_id = {STORE:?}\nhealth = {{ service_status = true }}");
    let with_a_store = async |options: ArcGisOptions| {
        let site = Site::start(options).await;
        let credential = Some(stored(&site.old));
        site.arcgis.add_service_with(ServiceSpec { credential, ..ServiceSpec::new(STORE, PROVIDER, "gis-store") });
        site
    };
    let site = with_a_store(kubernetes()).await;
    let target = site.connect("", &watched);
    assert_eq!(target.health().await, Health::Good);
    site.arcgis.set_credential(STORE, "AKIANOBODY", "nobody's secret");
    let Health::Bad(why) = target.health().await else { panic!("the store cannot be reached") };
    assert!(why.starts_with(&format!("reading the status of cloud service {STORE} of arcgis.prod at ")), "{why}");
    assert!(why.contains(": UNREACHABLE: The store cannot be accessed"), "{why}");
    for mishap in [Mishap::Html, Mishap::Throttle, Mishap::Error(503), Mishap::DropBefore] {
        site.arcgis.fault("status", mishap.clone());
        target.hurry();
        assert_eq!(target.health().await, Health::NotWatched, "{mishap:?} says nothing about the service");
        assert_eq!(site.arcgis.faults_left("status"), 0, "{mishap:?} was met");
    }
    target.hurry();
    site.arcgis.fault("status", Mishap::Refuse("the store is gone".to_owned()));
    let Health::Bad(why) = target.health().await else { panic!("ArcGIS itself says so") };
    assert!(why.ends_with("code 400, \"the store is gone\""), "{why}");
    site.arcgis.set_username_privilege(false);
    assert_eq!(target.health().await, Health::NotWatched, "a missing right says nothing about the service");

    // A version without it, with a 404 in either form: as if the policy did not name it.
    for real_status_codes in [false, true] {
        let options = ArcGisOptions { version: "11.5".to_owned(), real_status_codes, ..kubernetes() };
        let site = with_a_store(options).await;
        let target = site.connect("", &watched);
        assert_eq!(target.health().await, Health::NotWatched);
        site.arcgis.fault("status", Mishap::Error(404));
        assert_eq!(target.health().await, Health::NotWatched);
        assert_eq!(site.arcgis.faults_left("status"), 0, "it was asked");
        let info = site.arcgis.admin_url().replace("/admin", "/rest/info?f=json");
        let both = |url: &str| {
            let health = format!("health = {{ service_status = true, url = {url:?} }}");
            site.connect("", &format!("service_id = {STORE:?}\n{health}"))
        };
        assert_eq!(both(&info).health().await, Health::Good, "the address is watched all the same");
        site.arcgis.fault("status", Mishap::Error(404));
        assert_eq!(both(&info).health().await, Health::Good, "after a page for a 404 too");
        let gone = site.arcgis.admin_url().replace("/admin", "/rest/gone?f=json");
        assert!(matches!(both(&gone).health().await, Health::Bad(_)), "and its failure counts");
    }
}
