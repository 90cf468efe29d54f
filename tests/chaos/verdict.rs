//! Whether all is well, seen from outside: from the cloud, the sites, the consumers, the history and the ledger.

use std::collections::BTreeSet;

use rekeyd::model::KeyId;
use serde_json::Value;

use crate::moto_server::connect_at;
use crate::storm::{Service, Storm};
use crate::support::{CLOUD_SERVICE, USER};

impl Storm<'_> {
    /// Every promise that can be seen from here, with every service at rest.
    pub fn judge(&self) {
        self.no_consumer_was_refused();
        self.the_neighbour_was_let_alone();
        for service in &self.services {
            let history = self.history(service.name);
            self.is_at_rest(service);
            self.holds_one_key_and_no_other_lives(service);
            if self.cloud.aws.is_some() {
                self.every_mint_was_intended(service, &history);
                self.every_deleted_key_was_ours_and_replaced(service, &history);
            }
        }
        let ledger = self.scene.run(&["ledger", "verify"]);
        assert_eq!(ledger.code, Some(0), "{ledger:?}");
        for service in &self.services {
            assert!(ledger.out.contains(&format!("{}: ok, ", service.name)), "{ledger:?}");
        }
        self.assert_no_secret_seen();
    }

    /// And each service can still do what it is for.
    pub fn each_rotates_once_more(&self) {
        let ran = self.scene.run(&["rotate", "--all", "--wait=done"]);
        assert_eq!(ran.code, Some(0), "{ran:?}");
    }

    pub fn no_consumer_was_refused(&self) {
        let targets = self.services.iter().flat_map(|service| service.targets);
        let mut consumers: Vec<_> = targets.map(|(site, id)| (*id, self.sites[*site].consumer(id))).collect();
        consumers.push((CLOUD_SERVICE, self.scene.arcgis.consumer(CLOUD_SERVICE)));
        for (id, consumer) in consumers {
            assert!(consumer.requests > 0 && consumer.healthy, "{id}: {consumer:?}");
            assert_eq!(consumer.refusals, 0, "{id}: {consumer:?}");
        }
    }

    /// The key of a user that no policy names is as it was, and nobody asked about it.
    fn the_neighbour_was_let_alone(&self) {
        let keys = self.scene.aws.keys(USER);
        assert_eq!(keys.len(), 1, "{keys:?}");
        assert_eq!((&keys[0].id, keys[0].active), (&self.scene.first_key.0, true));
        let about = self.scene.aws.requests().into_iter().find(|line| line.user_or_target == USER);
        assert!(about.is_none(), "{about:?}");
        assert!(self.scene.arcgis.requests().is_empty(), "its site is in no policy either");
    }

    fn is_at_rest(&self, service: &Service) {
        let status = self.status_of(service.name);
        let story = || format!("{status:#}\n{}", self.history_text(service.name));
        assert_eq!(status["state"], "idle", "{}", story());
        for (field, expected) in [("strangers", "[]"), ("debt", "[]"), ("phase", "null"), ("drift", "null")] {
            assert_eq!(status[field].to_string(), expected, "{field}: {}", story());
        }
    }

    fn holds_one_key_and_no_other_lives(&self, service: &Service) {
        let status = self.status_of(service.name);
        let current = status["current_key"].as_str().expect("a key");
        for target in service.targets {
            assert_eq!(self.held(target), current, "{target:?} of {}", service.name);
        }
        let listed = self.listed(service);
        let story = || format!("{status:#}\n{}", self.history_text(service.name));
        assert_eq!(listed, [(current.to_owned(), true)], "keys at the issuer: {}", story());
    }

    /// The keys of a service's user and whether each is active, from whoever makes them.
    pub fn listed(&self, service: &Service) -> Vec<(String, bool)> {
        if let Some(aws) = &self.cloud.aws {
            return aws.keys(service.user).into_iter().map(|key| (key.id, key.active)).collect();
        }
        let (endpoint, rotator) = (&self.cloud.endpoint, self.cloud.rotator.clone());
        let issuer = connect_at(endpoint, "", service.user, rotator, service.user, "authenticates");
        let listing = tokio::runtime::Handle::current().block_on(issuer.list()).expect("it lists");
        listing.keys.into_iter().map(|key| (KeyId::as_str(&key.id).to_owned(), key.active)).collect()
    }

    /// No more mints took effect than were written down before, and every key they made is in the history.
    fn every_mint_was_intended(&self, service: &Service, history: &[Value]) {
        let aws = self.cloud.aws.as_ref().expect("the lab's");
        let minted = |line: &&rekeyd_lab::RequestLine| {
            line.operation == "CreateAccessKey" && line.user_or_target == service.user && line.executed
        };
        let mints = aws.requests().iter().filter(minted).count();
        let intents = history.iter().filter(|line| line["event"] == "mint_begun").count();
        let story = || self.history_text(service.name);
        assert!(mints <= intents, "{mints} mints of {intents} intents:\n{}", story());
        let deleted = aws.deleted_keys(service.user).into_iter().map(|(key, _)| key);
        let keys: BTreeSet<String> = aws.keys(service.user).into_iter().map(|key| key.id).chain(deleted).collect();
        assert_eq!(keys.len(), mints + 1, "every key but the first was minted by a request");
        let known = |key: &&String| find(history, &["minted", "mint_settled", "reclaim_ordered"], key).is_none();
        let lost: Vec<_> = keys.iter().filter(|key| **key != service.first_key.0).filter(known).collect();
        assert!(lost.is_empty(), "keys the history does not know: {lost:?}\n{}", story());
    }

    /// Every key that is gone was proven ours before its deletion was begun; and where a target had been given it, every target of
    /// that rotation was Verified to hold another one first.
    fn every_deleted_key_was_ours_and_replaced(&self, service: &Service, history: &[Value]) {
        let aws = self.cloud.aws.as_ref().expect("the lab's");
        for (key, _) in aws.deleted_keys(service.user) {
            let story = || format!("key {key}:\n{}", self.history_text(service.name));
            // Its evidence names the current key too, so the subject is looked for.
            let subject = format!("deleting key {key};");
            let begun = find(history, &["delete_begun"], &subject).unwrap_or_else(|| panic!("no intent: {}", story()));
            let before = &history[..begun];
            let ours = ["minted", "adopted", "mint_settled", "reclaim_ordered"];
            assert!(find(before, &ours, &key).is_some(), "not proven ours: {}", story());
            assert!(find(history, &["gone"], &key).is_some(), "not seen gone: {}", story());
            if find(before, &["adopted", "push_begun"], &key).is_none() {
                continue;
            }
            let rotation = &history[begun]["rotation"];
            let of_it = before.iter().filter(|line| line["rotation"] == *rotation);
            let verified: BTreeSet<_> = of_it
                .filter(|line| line["event"] == "verified")
                .filter_map(|line| line["text"].as_str().and_then(|text| text.split(": ").nth(1)))
                .filter_map(|text| text.split_whitespace().next())
                .collect();
            assert_eq!(verified.len(), service.targets.len(), "{verified:?}: {}", story());
        }
    }
}

/// The first line of one of these events whose text has this in it.
fn find(history: &[Value], events: &[&str], wanted: &str) -> Option<usize> {
    history.iter().position(|line| {
        let is_one = line["event"].as_str().is_some_and(|event| events.contains(&event));
        is_one && line["text"].as_str().is_some_and(|text| text.contains(wanted))
    })
}
