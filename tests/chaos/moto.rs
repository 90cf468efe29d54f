//! The same storm with keys of a real IAM: moto's, where `tests/run` has started it. What AWS does cannot be held back there, so it
//! strikes at instants, at requests to ArcGIS and at writes.

use rekeyd_lab::{ArcGis, ArcGisOptions, AwsOptions};

use crate::moto_server::{ROTATED, moto};
use crate::storm::{Cloud, Service, kills, options_of, tell_it};
use crate::support::Scene;

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_at_moto() {
    let Some(moto) = moto().await else { return };
    let scene = Scene::with(AwsOptions::default(), ArcGisOptions::default()).await;
    let cloud = Cloud {
        endpoint: moto.endpoint.clone(),
        rotator: moto.rotator.clone(),
        aws: None,
        // A fresh key is unknown for two seconds.
        timing: ("2300ms", "6s"),
    };
    let sites = vec![
        ArcGis::start_at(options_of(0), &moto.endpoint).await,
        ArcGis::start_at(options_of(1), &moto.endpoint).await,
    ];
    let places: [&[(usize, &str)]; 2] = [&[(0, "kubernetes1")], &[(1, "serveruser1")]];
    let services = (0..2)
        .map(|n| Service {
            name: ["alone", "shared"][n],
            user: ROTATED[n],
            exclusive: n == 0,
            first_key: moto.rotated[n].clone(),
            targets: places[n],
        })
        .collect();
    tell_it("a storm at moto", scene, cloud, sites, services, |storm| {
        storm.begin();
        storm.rage(kills(12));
        storm.come_to_rest();
        storm.judge();
        storm.each_rotates_once_more();
        storm.judge();
        storm.stop();
        let done: u64 = storm.status().iter().filter_map(|status| status["rotations"]["done"].as_u64()).sum();
        let (requests, count) = (storm.consumed().0, &storm.count);
        assert!(count.kills > 0 && count.power_cuts > 0, "{count:?}");
        assert!(done > 2 && requests > 500, "{done} rotations, {requests} consumer requests");
    })
    .await;
}
