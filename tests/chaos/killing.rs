//! Killed again and again, with SIGKILL and by power cuts, at random instants, at chosen requests and at random writes, while three
//! services rotate and their consumers read. Then the weather clears, and everything must be as promised.

use crate::storm::{in_the_lab, kills};

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_in_the_lab() {
    in_the_lab("a storm in the lab", |storm| {
        storm.begin();
        storm.rage(kills(32));
        storm.come_to_rest();
        storm.judge();
        storm.each_rotates_once_more();
        storm.judge();
        storm.stop();

        let count = &storm.count;
        let done: u64 = storm.status().iter().filter_map(|status| status["rotations"]["done"].as_u64()).sum();
        let requests = storm.consumed().0;
        // Against a test that does nothing: blows of each kind, and rotations besides the last ones.
        assert!(count.kills > 0 && count.kills_at_requests > 0 && count.power_cuts > 0, "{count:?}");
        assert!(done > 3 && requests > 1000, "{done} rotations, {requests} consumer requests");
    })
    .await;
}
