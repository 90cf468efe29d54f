//! Nothing is minted that cannot be pushed: what keeps a site from taking a change is told before.

use super::*;

fn why_retry(fault: Fault) -> String {
    match fault {
        Fault::Retry { why, .. } => why,
        other => panic!("{other:?} does not pass by itself"),
    }
}

#[tokio::test]
async fn an_upgrade_is_waited_for_and_one_that_is_not_finished_is_told() {
    let site = Site::start(server()).await;
    let target = site.target();
    site.arcgis.set_upgrade(Some("In Progress"));
    for fault in [target.inspect().await.map(drop), target.push(&new_key()).await.map(drop)] {
        let why = why_retry(fault.expect_err("the site is being upgraded"));
        assert!(why.ends_with("the site is being upgraded"), "{why}");
    }
    site.arcgis.set_upgrade(Some("UPGRADE_REQUIRED"));
    let fault = target.inspect().await.expect_err("the upgrade is not finished");
    assert_eq!(reason(&fault), Some(Reason::Refused), "{fault:?}");
    assert!(fault.why().contains("UPGRADE_REQUIRED; finish its upgrade first"), "{fault:?}");
    assert_eq!(site.pushes(), 0);
    for fine in [Some("Success with warnings"), None] {
        site.arcgis.set_upgrade(fine);
        target.inspect().await.expect("nothing is in the way");
    }
}

#[tokio::test]
async fn somebody_elses_credential_job_is_waited_for_before_the_mint() {
    for options in [kubernetes(), server()] {
        let site = Site::start(options).await;
        site.arcgis.start_foreign_job(BACKUP, Duration::from_millis(400));
        let why = why_retry(site.target().inspect().await.expect_err("a job is under way"));
        assert!(why.contains("another credential job is under way, and max_jobs is 1"), "{why}");
        site.connect("max_jobs = 2", &format!("service_id = {SERVICE:?}")).inspect().await.expect("two are allowed");
        site.arcgis.settled().await;
        site.target().inspect().await.expect("the job has ended");
    }
}

#[tokio::test]
async fn an_ended_job_is_looked_at_once() {
    let site = Site::start(server()).await;
    let target = site.target();
    for _ in 0..3 {
        assert_eq!(site.push_and_poll(&target).await, JobState::Succeeded);
    }
    target.inspect().await.expect("nothing is in the way");
    let looks = || site.arcgis.requests().iter().filter(|line| line.operation == "job").count();
    let before = looks();
    target.inspect().await.expect("nothing is in the way");
    assert_eq!(looks(), before);
}

#[tokio::test]
async fn a_missing_right_is_told_before_the_mint() {
    for options in flavours() {
        let site = Site::start(options).await;
        site.arcgis.set_username_privilege(false);
        let fault = site.target().inspect().await.expect_err("the account may not");
        assert_eq!(reason(&fault), Some(Reason::MissingRight), "{fault:?}");
    }
}

#[tokio::test]
async fn a_job_that_cannot_be_looked_at_is_no_obstacle() {
    let site = Site::start(kubernetes()).await;
    site.push_and_poll(&site.target()).await;
    for mishap in [Mishap::Html, Mishap::Throttle, Mishap::Error(500)] {
        site.arcgis.fault("job", mishap);
        site.connect("poll = \"3s\"", &format!("service_id = {SERVICE:?}"))
            .inspect()
            .await
            .expect("it may be another's");
    }
}
