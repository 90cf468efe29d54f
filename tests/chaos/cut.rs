//! The power goes during the first start of all, at one write after the other: what is left is a start like the first, or a journal.

use std::os::unix::process::ExitStatusExt;

use rekeyd_lab::{ArcGisOptions, AwsOptions};

use crate::dice::Dice;
use crate::shim::Shim;
use crate::storm::tell_everybody;
use crate::support::{Scene, wait_until};

#[tokio::test(flavor = "multi_thread")]
async fn a_power_cut_during_the_first_start() {
    let mut scene = Scene::with(AwsOptions::default(), ArcGisOptions::default()).await;
    scene.keep_program();
    let told = tokio::task::spawn_blocking(move || {
        let mut dice = Dice::thrown("a power cut during the first start");
        let shim = Shim::of(&scene.path("state"));
        let (mut calls, mut cuts, mut unsynced, mut lost) = (0, 0, 0, 0);
        loop {
            calls += 1 + dice.below(4);
            shim.cut_after(calls);
            let mut command = scene.command(&["run"]);
            shim.under(&mut command);
            let mut daemon = scene.spawn(command);
            wait_until("it is ready or gone", || daemon.has_ended().is_some() || daemon.log().contains("ready"));
            let Some(ended) = daemon.has_ended() else { break };
            assert_eq!(ended.signal(), Some(9), "it ended by itself: {}", daemon.log());
            let fell = shim.fall(&mut dice).expect("the shim says what was not synced");
            (cuts, unsynced, lost) = (cuts + 1, unsynced + fell.0, lost + fell.1);

            let daemon = scene.start();
            scene.adopt();
            assert_eq!(daemon.stop().code(), Some(0));
            assert_eq!(scene.run(&["ledger", "verify"]).code, Some(0), "after {calls} writes");
            std::fs::remove_dir_all(scene.path("state")).expect("it can be removed");
        }
        scene.assert_no_secret_seen();
        assert!(cuts > 5, "{cuts} cuts in {calls} writes");
        tell_everybody(&format!(
            "a power cut during the first start: seed {}, {cuts} cuts within {calls} writes, {lost} of {unsynced} unsynced writes \
             lost or torn",
            dice.seed
        ));
    });
    if let Err(failed) = told.await {
        std::panic::resume_unwind(failed.into_panic());
    }
}
