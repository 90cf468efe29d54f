//! Registered data stores as places of a key: the port against the lab, and whole rotations of the built program.

use std::collections::HashMap;

use rekeyd_lab::RequestLine;
use serde_json::{Value, json};

use super::super::support::{
    BUCKET, CLOUD_SERVICE, Daemon, PolicyText, SERVICE as ROTATED, Scene, USER, wait_until, wait_until_or,
};
use super::peer::{Peer, Wire};
use super::*;

const ITEM: &str = "/cloudStores/imagery";

/// A whole target; most sites here show the connection string enciphered.
const STATED: &str = "data_item = \"/cloudStores/imagery\"\nconnection = { region = \"us-east-1\" }";
const UNSTATED: &str = "data_item = \"/cloudStores/imagery\"";

const VIEWS: [ItemView; 4] = [ItemView::Sealed, ItemView::SealedFields, ItemView::Object, ItemView::Text];

/// Both products, and versions without any `cloud` resource.
fn sites() -> Vec<ArcGisOptions> {
    let version = |version: &str, options: ArcGisOptions| ArcGisOptions { version: version.to_owned(), ..options };
    let real = ArcGisOptions { real_status_codes: true, ..server() };
    vec![kubernetes(), server(), version("11.2", server()), version("10.9", real)]
}

fn shown_as(view: ItemView) -> ArcGisOptions {
    ArcGisOptions { item_view: view, ..server() }
}

impl Site {
    /// With a data item that holds the old key, and has members nobody knows; without a consumer.
    async fn with_item(options: ArcGisOptions) -> Site {
        let site = Site::start(options).await;
        site.arcgis.set_data_item(site.item(&site.old));
        site
    }

    fn item(&self, key: &(String, String)) -> Value {
        json!({"path": ITEM, "type": "cloudStore", "provider": "amazon", "id": "b373de14", "future": [1.5, {"a": null}],
               "info": {"isManaged": false, "objectStore": "gis-store/tiles", "encryptAttributes": ["info.connectionString"],
                        "portalProperties": {"itemID": "c"},
                        "connectionString": {"accessKeyId": key.0, "secretAccessKey": key.1, "region": "us-east-1",
                                             "credentialType": "accessKey"}}})
    }

    /// One that works, so that a validation can find that it does.
    fn fresh(&self) -> ((String, String), Material) {
        let (id, secret) = self.aws.create_key("store");
        let key = material(&id, &secret);
        ((id, secret), key)
    }

    fn asked(&self, operation: &str) -> usize {
        asked(&self.arcgis.requests(), operation)
    }

    fn is_untouched(&self) {
        assert_eq!(self.arcgis.data_item(ITEM), Some(self.item(&self.old)));
        assert_eq!(self.asked("edit"), 0);
    }
}

fn asked(requests: &[RequestLine], operation: &str) -> usize {
    requests.iter().filter(|line| line.operation == operation).count()
}

fn end_of(secret: &str) -> Reading {
    Reading::Tail(Tail::new(&secret[secret.len() - 4..]))
}

// ---- the port ----

#[tokio::test]
async fn a_key_arrives_however_the_item_is_shown() {
    for options in sites() {
        for (tls, view) in [false, true].into_iter().flat_map(|tls| VIEWS.map(|view| (tls, view))) {
            let case = format!("{:?} {} tls {tls} {view:?}", options.product, options.version);
            let site = Site::with_item(ArcGisOptions { tls, item_view: view, ..options.clone() }).await;
            let sealed = !tls && view == ItemView::Sealed;
            if !sealed {
                // What is made anew can hold no more than the policy says; everywhere else all of it must come back.
                let mut more = site.item(&site.old);
                more["info"]["connectionString"]["tomorrow"] = json!({"x": [1, "two"]});
                site.arcgis.set_data_item(more);
            }
            let before = site.arcgis.data_item(ITEM).expect("it is there");
            let target = site.connect("", if sealed { STATED } else { UNSTATED });
            let seen = |secret: &str| match (tls, view) {
                (false, ItemView::Sealed | ItemView::SealedFields) => Reading::Hidden,
                _ => end_of(secret),
            };
            let found = target.inspect().await.unwrap_or_else(|fault| panic!("{case}: {fault:?}"));
            assert_eq!(found.holder.as_str(), "arcgis.prod/data/items/cloudStores/imagery", "{case}");
            assert_eq!((found.reading, found.jobs), (seen(&site.old.1), vec![]), "{case}");
            let (new, key) = site.fresh();
            assert_eq!(target.push(&key).await, Ok(Receipt { job: None }), "{case}");
            let mut expected = before;
            expected["info"]["connectionString"]["accessKeyId"] = json!(new.0);
            expected["info"]["connectionString"]["secretAccessKey"] = json!(new.1);
            assert_eq!(site.arcgis.data_item(ITEM), Some(expected), "{case}");
            assert_eq!((target.read().await, target.jobs().await), (Ok(seen(&new.1)), Ok(vec![])), "{case}");
            assert_eq!((site.asked("validateDataItem"), site.asked("edit")), (1, 1), "{case}");
            assert_eq!(site.arcgis.veils_posted(), 0, "{case}: what was enciphered was sent back");
            let others =
                ["services", "providers", "provider", "jobs", "unknown"].map(|operation| site.asked(operation));
            assert_eq!(others, [0; 5], "{case}: a data item needs no cloud resource");
        }
    }
}

#[tokio::test]
async fn what_could_not_be_kept_is_refused_before_anything_is_sent() {
    let site = Site::with_item(shown_as(ItemView::Sealed)).await;
    let target = site.connect("", UNSTATED);
    let (_, key) = site.fresh();
    for fault in [target.inspect().await.map(drop), target.push(&key).await.map(drop)] {
        let fault = fault.expect_err("nobody can tell what would be lost");
        assert_eq!(reason(&fault), Some(Reason::Refused));
        assert!(fault.why().contains("add `connection = { region = \"…\" }` to the target"), "{fault:?}");
    }
    assert_eq!(target.read().await, Ok(Reading::Hidden), "a look needs no more than it gets");
    assert_eq!(site.asked("validateDataItem"), 0);
    site.is_untouched();

    let site = Site::with_item(shown_as(ItemView::Object)).await;
    let wrong = STATED.replace("us-east-1", "eu-west-1");
    let fault = site.connect("", &wrong).inspect().await.expect_err("the item has another region");
    assert!(fault.why().contains("shows region us-east-1 and the policy's `connection` says eu-west-1"), "{fault:?}");
}

#[tokio::test]
async fn a_place_without_a_key_of_amazon_is_refused_by_name() {
    let site = Site::with_item(shown_as(ItemView::Object)).await;
    let target = site.connect("", UNSTATED);
    for (pointer, value, said) in [
        ("/provider", json!("azure"), "it is cloudStore of azure"),
        (
            "/info/connectionString",
            json!({"credentialType": "IAMRole", "region": "us-east-1"}),
            "its credential is IAMRole, which holds no key: nothing to rotate",
        ),
    ] {
        let mut item = site.item(&site.old);
        *item.pointer_mut(pointer).expect("it is there") = value;
        site.arcgis.set_data_item(item.clone());
        let fault = target.inspect().await.expect_err("there is no key of ours");
        assert_eq!(reason(&fault), Some(Reason::Refused));
        assert!(
            fault.why().contains("data item /cloudStores/imagery of arcgis.prod") && fault.why().contains(said),
            "{fault:?}"
        );
        assert!(target.push(&new_key()).await.is_err());
        assert_eq!((site.arcgis.data_item(ITEM), site.asked("edit")), (Some(item), 0));
    }
}

#[tokio::test]
async fn an_item_that_is_not_there_comes_with_those_that_are() {
    for options in sites() {
        let site = Site::with_item(options).await;
        let target = site.connect("", &STATED.replace("imagery", "basemaps"));
        let fault = target.inspect().await.expect_err("there is none");
        assert_eq!(reason(&fault), Some(Reason::NotFound));
        assert_eq!(
            fault.why(),
            "looking for data item /cloudStores/basemaps: arcgis.prod does not know it; it has /cloudStores/imagery (amazon gis-store/tiles)"
        );
        // A list that cannot be had takes nothing from the answer.
        site.arcgis.fault("findItems", Mishap::Refuse("no".to_owned()));
        let fault = target.read().await.expect_err("there is none");
        assert_eq!((reason(&fault), fault.why().contains("it has")), (Some(Reason::NotFound), false));
        site.arcgis.remove_data_item(ITEM);
        let fault = target.inspect().await.expect_err("there is none");
        assert!(fault.why().ends_with("does not know it; it has none"), "{fault:?}");
    }
}

#[tokio::test]
async fn a_key_that_the_site_cannot_use_changes_nothing() {
    for options in [kubernetes(), server()] {
        let site = Site::with_item(options).await;
        let target = site.connect("", STATED);
        let fault = target.push(&new_key()).await.expect_err("nobody knows this key");
        assert_eq!(reason(&fault), Some(Reason::Refused));
        assert!(
            fault.why().starts_with("validating data item /cloudStores/imagery with the new key of arcgis.prod"),
            "{fault:?}"
        );
        assert!(
            fault.why().ends_with("The cloud store cannot be reached with these credentials.\"; nothing was changed"),
            "{fault:?}"
        );
        site.is_untouched();
    }
    let site = Site::with_item(ArcGisOptions { validates_items: false, ..server() }).await;
    let target = site.connect("", STATED);
    assert_eq!(target.push(&new_key()).await, Ok(Receipt { job: None }), "where nothing validates, nothing objects");
    assert_eq!(site.held(ITEM), new_key());
}

#[tokio::test]
async fn an_edit_whose_answer_is_lost_is_unknown_and_sent_once() {
    for (mishap, executed) in LOST_ANSWERS {
        let site = Site::with_item(server()).await;
        let target = site.connect("request_timeout = \"300ms\"", STATED);
        let (_, key) = site.fresh();
        site.arcgis.fault("edit", mishap.clone());
        let fault = target.push(&key).await.expect_err("there is no answer");
        assert!(matches!(fault, Fault::Unknown(_)), "{mishap:?}: {fault:?}");
        assert_eq!((site.asked("edit"), site.held(ITEM) == key), (1, executed), "{mishap:?}");
        assert_eq!(target.jobs().await, Ok(vec![]), "{mishap:?}: there is no job to find");
    }
}

#[tokio::test]
async fn what_goes_wrong_before_the_edit_did_not_edit() {
    for operation in ["generateToken", "root", "mode", "item", "validateDataItem"] {
        for mishap in FAILED_LOOKS {
            let site = Site::with_item(server()).await;
            let (_, key) = site.fresh();
            site.arcgis.fault(operation, mishap.clone());
            let fault = site.connect("", STATED).push(&key).await.expect_err("something before the edit fails");
            assert!(matches!(fault, Fault::NotSent(_) | Fault::Retry { .. }), "{operation} {mishap:?}: {fault:?}");
            site.is_untouched();
        }
    }
}

#[tokio::test]
async fn an_edit_that_is_refused_surely_did_nothing() {
    for (mishap, expected) in [
        (Mishap::Refuse("The item is in use.".to_owned()), Some(Reason::Refused)),
        (Mishap::Redirect("https://other.example.com/x?token=hush".to_owned()), Some(Reason::Refused)),
        (Mishap::Throttle, None),
        (Mishap::Error(404), None),
    ] {
        let site = Site::with_item(server()).await;
        let (_, key) = site.fresh();
        site.arcgis.fault("edit", mishap.clone());
        let fault = site.connect("", STATED).push(&key).await.expect_err("it is refused");
        assert_eq!(reason(&fault), expected, "{mishap:?}: {fault:?}");
        assert!(expected.is_some() || matches!(fault, Fault::Retry { .. }), "{mishap:?}: {fault:?}");
        assert!(!fault.why().contains("hush"), "{fault:?}");
        assert_eq!(site.held(ITEM), material(&site.old.0, &site.old.1));
    }
}

#[tokio::test]
async fn a_site_that_takes_no_change_is_told_of_before_the_mint() {
    for options in sites() {
        let site = Site::with_item(options).await;
        let target = site.connect("", STATED);
        let (_, key) = site.fresh();
        site.arcgis.set_read_only(true);
        for fault in [target.inspect().await.map(drop), target.push(&key).await.map(drop)] {
            let fault = fault.expect_err("the site is read-only");
            assert!(matches!(&fault, Fault::Retry { why, .. } if why.contains("read-only mode")), "{fault:?}");
        }
        assert_eq!(target.read().await, Ok(Reading::Hidden), "looking is allowed");
        site.arcgis.set_read_only(false);
        site.arcgis.set_site_locked(true);
        let fault = target.push(&key).await.expect_err("the site is locked");
        assert!(matches!(&fault, Fault::Retry { why, .. } if why.contains("Another administrative")), "{fault:?}");
        site.is_untouched();
        site.arcgis.set_site_locked(false);
        assert_eq!(target.push(&key).await, Ok(Receipt { job: None }));
    }
}

#[tokio::test]
async fn what_a_human_changed_since_the_look_is_kept() {
    let site = Site::with_item(shown_as(ItemView::Text)).await;
    let target = site.connect("", UNSTATED);
    target.inspect().await.expect("it is there");
    let mut changed = site.item(&site.old);
    changed["info"]["objectStore"] = json!("gis-store/tiles2");
    changed["info"]["connectionString"]["regionEndpointUrl"] = json!("https://s3.example.com");
    changed["newMember"] = json!({"by": "hand"});
    site.arcgis.set_data_item(changed.clone());
    let (new, key) = site.fresh();
    target.push(&key).await.expect("the push is accepted");
    changed["info"]["connectionString"]["accessKeyId"] = json!(new.0);
    changed["info"]["connectionString"]["secretAccessKey"] = json!(new.1);
    assert_eq!(site.arcgis.data_item(ITEM), Some(changed));
}

#[tokio::test]
async fn an_expired_token_costs_an_edit_one_more_login() {
    let site = Site::with_item(server()).await;
    let target = site.connect("", STATED);
    target.inspect().await.expect("it is there");
    site.arcgis.expire_tokens();
    let (_, key) = site.fresh();
    assert_eq!(target.push(&key).await, Ok(Receipt { job: None }));
    assert_eq!((site.arcgis.logins(), site.held(ITEM)), (vec![true, true], key));
}

#[tokio::test]
async fn what_a_site_repeats_of_an_item_shows_no_secret() {
    let site = Site::with_item(ArcGisOptions { tls: true, ..server() }).await;
    let target = site.connect("", UNSTATED);
    let ((_, secret), key) = site.fresh();
    for operation in ["validateDataItem", "edit"] {
        let words = format!("bad item {{\"secretAccessKey\":\"{secret}\"}}, was {}", site.old.1);
        site.arcgis.fault(operation, Mishap::Refuse(words));
        let fault = target.push(&key).await.expect_err("it is refused");
        assert!(fault.why().contains("bad item") && fault.why().contains("***"), "{fault:?}");
        assert!(!fault.why().contains(&secret) && !fault.why().contains(&site.old.1), "{fault:?}");
    }
    let urls = site.arcgis.urls().join("\n");
    assert!(urls.contains("data/items/cloudStores/imagery?f=json&decrypt=true"), "{urls}");
    assert!(site.arcgis.all_secrets().iter().all(|secret| !urls.contains(secret.as_str())));
}

const NAME: &str = "arcgis:prod:/cloudStores/imagery";

/// The data items among the holders, and those that nobody could look at: names, readings, reasons.
async fn items_held(target: &Arc<dyn Target>) -> Vec<(String, Reading, Option<String>)> {
    let held = target.holders().await.unwrap_or_else(|fault| panic!("{fault:?}"));
    let cloud = [SERVICE, BACKUP, INHERITING, PROVIDER].map(|id| format!("arcgis:prod:{id}"));
    let others = held.into_iter().filter(|holder| !cloud.contains(&holder.name.to_string()));
    others.map(|holder| (holder.name.to_string(), holder.reading, holder.unread)).collect()
}

#[tokio::test]
async fn a_copy_in_a_data_item_is_told_as_a_target_would_be_called() {
    for options in sites() {
        for (tls, view) in [false, true].into_iter().flat_map(|tls| VIEWS.map(|view| (tls, view))) {
            let case = format!("{:?} {} tls {tls} {view:?}", options.product, options.version);
            let site = Site::with_item(ArcGisOptions { tls, item_view: view, ..options.clone() }).await;
            let is_sealed = matches!(view, ItemView::Sealed | ItemView::SealedFields);
            let seen = if is_sealed && !tls { Reading::Hidden } else { end_of(&site.old.1) };
            let held = items_held(&site.target()).await;
            assert_eq!(held, [(NAME.to_owned(), seen, None)], "{case}");
            let one_by_one = usize::from(is_sealed && tls);
            assert_eq!((site.asked("findItems"), site.asked("item")), (1, one_by_one), "{case}");
            // Where it is the target itself, it is told too, and not asked for again.
            let itself = items_held(&site.connect("", &UNSTATED.replace("imagery", "Imagery"))).await;
            assert_eq!((itself.len(), site.asked("item")), (1, one_by_one), "{case}: {itself:?}");
        }
    }
}

#[tokio::test]
async fn data_items_that_cannot_be_looked_at_keep_no_other_holder_from_being_told() {
    for options in [kubernetes(), server(), ArcGisOptions { real_status_codes: true, ..server() }] {
        let site = Site::with_item(ArcGisOptions { tls: true, ..options }).await;
        let target = site.target();
        let seen = end_of(&site.old.1);
        // One item that is not shown in clear to this user.
        site.arcgis.set_denied("item", true);
        assert_eq!(items_held(&target).await, [(NAME.to_owned(), Reading::Hidden, None)]);
        site.arcgis.set_denied("item", false);
        // All of them: said, and not "none".
        site.arcgis.set_denied("findItems", true);
        let held = items_held(&target).await;
        let [(name, Reading::Hidden, Some(why))] = &held[..] else { panic!("{held:?}") };
        assert!(name == "arcgis:prod:/cloudStores" && why.contains("access is denied"), "{held:?}");
        site.arcgis.set_denied("findItems", false);
        // Refused in the documents' way: asked in the other, which this lab's Server knows too.
        site.arcgis.fault("findItems", Mishap::Refuse("This operation takes another method.".to_owned()));
        let held = items_held(&target).await;
        match site.product {
            Product::Server => assert_eq!(held, [(NAME.to_owned(), seen, None)]),
            Product::Kubernetes => assert!(held[0].2.is_some(), "{held:?}"),
        }
        // Not there at all, by a page from before ArcGIS.
        site.arcgis.fault("findItems", Mishap::Error(404));
        assert_eq!(items_held(&target).await, []);
        // No answer is not the answer that there are none.
        for mishap in [Mishap::Html, Mishap::Error(503), Mishap::DropBefore] {
            site.arcgis.fault("findItems", mishap.clone());
            target.hurry();
            let fault = target.holders().await.expect_err("nobody can tell now");
            assert!(matches!(fault, Fault::Unknown(_) | Fault::Retry { .. }), "{mishap:?}: {fault:?}");
            assert_eq!(site.arcgis.faults_left("findItems"), 0, "{mishap:?} was met");
        }
        target.hurry();
        // A cloud list that this user may not read is said in the same way.
        site.arcgis.set_denied("providers", true);
        let held = items_held(&target).await;
        assert!(held.iter().any(|(name, _, why)| name == "arcgis:prod:cloud/providers" && why.is_some()), "{held:?}");
    }
}

#[tokio::test]
async fn no_more_than_fifty_data_items_are_asked_for_one_by_one() {
    let site = Site::start(ArcGisOptions { tls: true, ..shown_as(ItemView::SealedFields) }).await;
    for n in 0..60 {
        let mut item = site.item(&site.old);
        item["path"] = json!(format!("/cloudStores/n{n}"));
        site.arcgis.set_data_item(item);
    }
    // Its list entry tells all there is, so it need not be asked for, wherever it stands.
    let mut role = site.item(&site.old);
    role["path"] = json!("/cloudStores/z");
    role["info"]["connectionString"] = json!({"region": "us-east-1", "credentialType": "IAMRole"});
    site.arcgis.set_data_item(role);
    let held = items_held(&site.target()).await;
    assert_eq!((held.len(), site.asked("item")), (62, 50));
    let told: Vec<_> = held.iter().filter_map(|(_, _, why)| why.as_deref()).collect();
    assert_eq!(told, ["more than 50 of them show nothing unless each is asked for"], "said once");
    let last = held.iter().find(|(name, ..)| name == "arcgis:prod:/cloudStores/z");
    assert_eq!(last.map(|(_, reading, _)| reading), Some(&Reading::Nothing), "{held:?}");
}

#[tokio::test]
async fn a_list_of_data_items_over_which_arcgis_breaks_hides_no_other_holder() {
    for product in [Product::Kubernetes, Product::Server] {
        let broken = br#"{"error":{"code":500,"message":"Unable to complete operation.","details":[]}}"#;
        let answers = HashMap::from([("findItems", Wire::text(200, "application/json", broken))]);
        let peer = Peer::start(product, "12.0", answers).await;
        let target = peer.connect(&Arc::default(), "", &format!("service_id = {SERVICE:?}"));
        let held = target.holders().await.unwrap_or_else(|fault| panic!("{product:?}: {fault:?}"));
        let unread: Vec<_> = held.iter().filter(|holder| holder.unread.is_some()).collect();
        let [list] = unread[..] else { panic!("{held:?}") };
        assert_eq!(list.name.as_str(), "arcgis:prod:/cloudStores");
        assert_eq!(list.unread.as_deref(), Some("code 500, \"Unable to complete operation.\""));
        assert!(held.iter().any(|holder| holder.name.as_str().ends_with(SERVICE)), "{held:?}");
        assert_eq!(peer.heard.count("findItems"), 2, "the other method is tried too");
    }
}

// ---- whole rotations ----

/// A scene whose one target is the data item. Its cloud service, where there are any, holds a key of somebody else.
struct Rotation {
    scene: Scene,
}

impl Rotation {
    async fn of(options: ArcGisOptions) -> Rotation {
        let (product, tls, stated) =
            (options.product, options.tls, options.item_view == ItemView::Sealed && !options.tls);
        let scene = Scene::with(AwsOptions::default(), options).await;
        scene.aws.add_user("somebody-else");
        scene.aws.add_bucket(BUCKET, &[USER, "somebody-else"]);
        let (id, secret) = scene.aws.create_key("somebody-else");
        scene.arcgis.set_credential(CLOUD_SERVICE, &id, &secret);
        scene.arcgis.add_data_item(ITEM, &format!("{BUCKET}/tiles"), stored(&scene.first_key));
        let ca = scene.path("ca.pem");
        if let Some(pem) = scene.arcgis.ca_pem() {
            std::fs::write(&ca, pem).expect("it can be written");
        }
        let arcgis = if tls { format!("ca_file = {:?}", ca.display()) } else { String::new() };
        scene.write_policy(&PolicyText { arcgis, ..PolicyText::default() });
        let rotation = Rotation { scene };
        if product == Product::Server {
            let portal = format!("portal_url = \"{}\"\n", rotation.scene.arcgis.portal_url());
            rotation.edit("product = \"kubernetes\"", "product = \"server\"");
            rotation.edit(&portal, "");
        }
        rotation.edit(&format!("service_id = \"{CLOUD_SERVICE}\""), if stated { STATED } else { UNSTATED });
        rotation
    }

    fn edit(&self, from: &str, to: &str) {
        let text = std::fs::read_to_string(self.scene.policy()).expect("the policy is there");
        assert!(text.contains(from), "{from} is not in the policy:\n{text}");
        std::fs::write(self.scene.policy(), text.replace(from, to)).expect("it can be written");
    }

    fn run(&self, words: &[&str]) -> String {
        let ran = self.scene.run(words);
        assert_eq!(ran.code, Some(0), "{ran:?}");
        ran.out
    }

    /// Waits for the end of so many rotations.
    fn is_done(&self, count: u64) {
        let look = || {
            let service = self.scene.service();
            (service["rotations"]["done"] == count && service["state"] == "idle").then_some(())
        };
        wait_until_or("the rotation is done", look, || format!("{}\n{:#?}", self.scene.service(), self.history()));
    }

    fn history(&self) -> Vec<Value> {
        serde_json::from_str(&self.run(&["history", ROTATED, "--json"])).expect("it is JSON")
    }

    fn count(&self, event: &str) -> usize {
        self.history().iter().filter(|line| line["event"] == event).count()
    }

    fn tells(&self, words: &str) -> bool {
        self.history().iter().any(|line| line["text"].as_str().is_some_and(|text| text.contains(words)))
    }

    /// One key lives, it is the item's, nobody was refused, and no secret was seen.
    fn ended_well(&self) {
        let keys = self.scene.aws.keys(USER);
        let held = self.scene.arcgis.held_key(ITEM).map(|(id, _)| id);
        assert_eq!(keys.len(), 1, "{keys:?}");
        assert_eq!((Some(keys[0].id.clone()), keys[0].active), (held.clone(), true));
        assert_eq!(self.scene.service()["current_key"].as_str(), held.as_deref());
        assert_eq!(self.scene.arcgis.consumer_refusals(), 0);
        assert_eq!(self.scene.arcgis.veils_posted(), 0);
        self.run(&["ledger", "verify"]);
        self.scene.assert_no_secret_seen();
    }
}

/// In a thread of its own: its waiting must not hold up the lab.
async fn story(options: ArcGisOptions, tell: impl FnOnce(&Rotation) + Send + 'static) {
    let rotation = Rotation::of(options).await;
    if let Err(failed) = tokio::task::spawn_blocking(move || tell(&rotation)).await {
        std::panic::resume_unwind(failed.into_panic());
    }
}

fn adopted(rotation: &Rotation) -> Daemon<'_> {
    let daemon = rotation.scene.start_adopted();
    assert_eq!(rotation.scene.service()["targets"], json!(["arcgis:prod:/cloudStores/imagery"]));
    daemon
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_item_of_a_server_without_cloud_services_is_rotated() {
    story(ArcGisOptions { version: "11.2".to_owned(), ..server() }, |rotation| {
        let _daemon = adopted(rotation);
        rotation.run(&["rotate", ROTATED, "--wait"]);
        rotation.is_done(1);
        rotation.ended_well();
        assert!(rotation.tells("its read-back cannot tell"), "{:#?}", rotation.history());
        rotation.run(&["rotate", ROTATED, "--wait"]);
        rotation.is_done(2);
        rotation.ended_well();
        // The name of the target goes wherever a name goes.
        rotation.run(&["repush", ROTATED, "arcgis:prod:/cloudStores/imagery"]);
        wait_until("the same key was pushed again", || asked(&rotation.scene.arcgis.requests(), "edit") == 3);
        rotation.scene.wait_for("state", "idle");
        rotation.ended_well();
        let client = reqwest::Client::builder().no_proxy().tls_certs_only([]).build().expect("a plain client");
        let metrics = async { client.get(rotation.scene.http("/metrics")).send().await?.text().await };
        let metrics = tokio::runtime::Handle::current().block_on(metrics).expect("the metrics are served");
        assert!(metrics.contains("system=\"arcgis:prod:/cloudStores/imagery\""), "{metrics}");
        assert_eq!(rotation.scene.arcgis.jobs().len(), 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_data_item_that_is_deciphered_proves_which_key_it_holds() {
    for options in [kubernetes(), server()] {
        story(ArcGisOptions { tls: true, ..options }, |rotation| {
            rotation.edit("soak_unproven = \"300ms\"", "soak_unproven = \"1h\"");
            let _daemon = adopted(rotation);
            rotation.run(&["rotate", ROTATED, "--wait"]);
            rotation.is_done(1);
            assert!(rotation.tells("verified: arcgis:prod:/cloudStores/imagery shows the new key"));
            rotation.ended_well();
            // Somebody puts a key there that nobody knows: the next look says so.
            let (id, secret) = rotation.scene.aws.create_key("somebody-else");
            rotation.scene.arcgis.set_credential(ITEM, &id, &secret);
            wait_until("the drift is seen", || rotation.count("drift_found") == 1);
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_between_the_edit_and_its_answer() {
    for options in
        [ArcGisOptions { version: "11.2".to_owned(), ..server() }, ArcGisOptions { tls: true, ..kubernetes() }]
    {
        story(options, |rotation| {
            let daemon = adopted(rotation);
            rotation.scene.arcgis.fault("edit", Mishap::Slow(Duration::from_secs(60)));
            rotation.run(&["rotate", ROTATED]);
            wait_until("the edit is carried out", || asked(&rotation.scene.arcgis.requests(), "edit") == 1);
            daemon.kill9();
            rotation.scene.arcgis.clear_faults();
            let _daemon = rotation.scene.start();
            rotation.is_done(1);
            rotation.ended_well();
            assert_eq!((rotation.count("push_unknown"), rotation.count("job_lost")), (1, 1));
            assert_eq!(
                (rotation.scene.aws.mints(), asked(&rotation.scene.arcgis.requests(), "edit")),
                (1, 2),
                "the same key, once more"
            );
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_lost_three_times_halts_with_both_keys_alive() {
    story(ArcGisOptions { version: "11.2".to_owned(), ..server() }, |rotation| {
        for _ in 0..3 {
            rotation.scene.arcgis.fault("edit", Mishap::LostReply);
        }
        let _daemon = adopted(rotation);
        rotation.run(&["rotate", ROTATED]);
        let halted = rotation.scene.wait_for("state", "halted");
        assert_eq!(halted["reason"], "push-unproven", "{halted}");
        assert!(halted["message"].as_str().is_some_and(|said| said.contains("both keys are alive")), "{halted}");
        assert_eq!(rotation.scene.aws.keys(USER).iter().filter(|key| key.active).count(), 2);
        rotation.run(&["retry", ROTATED]);
        rotation.is_done(1);
        rotation.ended_well();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_validation_takes_the_new_key_back() {
    story(server(), |rotation| {
        rotation
            .scene
            .arcgis
            .fault("validateDataItem", Mishap::Refuse("The machines cannot reach the store.".to_owned()));
        let before = rotation.scene.arcgis.data_item(ITEM);
        let _daemon = adopted(rotation);
        rotation.run(&["rotate", ROTATED]);
        let closed = || (rotation.count("closed") == 1).then_some(());
        wait_until_or("the rotation is taken back", closed, || rotation.scene.service().to_string());
        assert!(
            rotation.tells("The machines cannot reach the store.\"; nothing was changed"),
            "{:#?}",
            rotation.history()
        );
        assert_eq!(
            (rotation.scene.arcgis.data_item(ITEM), asked(&rotation.scene.arcgis.requests(), "edit")),
            (before, 0)
        );
        let keys = rotation.scene.aws.keys(USER);
        assert!(keys.len() == 1 && keys[0].id == rotation.scene.first_key.0 && keys[0].active, "{keys:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_minted_for_an_item_that_cannot_be_edited() {
    story(server(), |rotation| {
        let item = rotation.scene.arcgis.data_item(ITEM).expect("it is there");
        let daemon = adopted(rotation);
        rotation.scene.arcgis.remove_data_item(ITEM);
        rotation.run(&["rotate", ROTATED]);
        let halted = rotation.scene.wait_for("state", "halted");
        assert_eq!(halted["reason"], "not-found", "{halted}");
        assert!(
            halted["message"].as_str().is_some_and(|said| said.contains("looking for data item /cloudStores/imagery"))
        );
        assert_eq!(rotation.scene.aws.mints(), 0);
        rotation.scene.arcgis.set_data_item(item);

        rotation.edit("\nconnection = { region = \"us-east-1\" }", "");
        daemon.signal("HUP");
        wait_until("the new policy is in force", || daemon.log().contains("the new policy is in force"));
        rotation.run(&["retry", ROTATED]);
        let is_told =
            || rotation.scene.service()["message"].as_str().is_some_and(|said| said.contains("add `connection"));
        wait_until("it is told what to add", is_told);
        assert_eq!(rotation.scene.aws.mints(), 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_site_is_waited_for() {
    story(server(), |rotation| {
        let _daemon = adopted(rotation);
        rotation.scene.arcgis.set_read_only(true);
        rotation.run(&["rotate", ROTATED]);
        let waits = || rotation.scene.service()["message"].as_str().is_some_and(|said| said.contains("read-only mode"));
        wait_until("it says what it waits for", waits);
        assert_eq!(rotation.scene.aws.mints(), 0);
        rotation.scene.arcgis.set_read_only(false);
        rotation.is_done(1);
        rotation.ended_well();
    })
    .await;
}
