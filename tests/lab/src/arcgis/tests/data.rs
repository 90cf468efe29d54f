//! Data items: how they show themselves, what an edit keeps, and what a validation tries.

use super::*;

const ITEM: &str = "/cloudStores/imagery";

/// As somebody posts it, with members nobody knows.
fn item(key: &(String, String)) -> Value {
    json!({"path": ITEM, "type": "cloudStore", "provider": "amazon", "id": "b373de14", "future": [1, {"a": null}], "info": {
        "isManaged": false, "objectStore": "gis-store/tiles", "encryptAttributes": ["info.connectionString"], "more": "kept",
        "connectionString": {"accessKeyId": key.0, "secretAccessKey": key.1, "region": "us-east-1", "tomorrow": {"x": 1},
                             "credentialType": "accessKey"}}})
}

impl Lab {
    fn post(&self, path: &str, item: &Value, token: &str) -> RequestBuilder {
        let form = [("item", item.to_string()), ("f", "json".to_owned()), ("token", token.to_owned())];
        let url = format!("{}/data/{path}", self.arcgis.admin_url());
        self.http.post(url).header("referer", "https://rekeyd").form(&form)
    }

    /// With an authority that it trusts.
    async fn secure(options: ArcGisOptions) -> Self {
        let mut lab = Lab::new(ArcGisOptions { tls: true, ..options }).await;
        let pem = lab.arcgis.ca_pem().expect("there is an authority");
        let ca = reqwest::Certificate::from_pem(pem.as_bytes()).expect("PEM");
        lab.http = reqwest::Client::builder().no_proxy().tls_certs_only([ca]).build().expect("a client");
        lab
    }
}

const EDIT: &str = "items/cloudStores/imagery/edit";

#[tokio::test]
async fn a_data_item_is_edited_at_once_and_validated_against_the_provider() {
    let lab = Lab::new(server()).await;
    lab.arcgis.add_data_item(ITEM, "gis-store/tiles", stored(&lab.old));
    let new = lab.aws.create_key("store");
    let token = lab.token().await;
    let send = |path: &str, key: &(String, String)| {
        let item = json!({"path": ITEM, "type": "cloudStore", "provider": "amazon", "info": {
            "isManaged": false, "objectStore": "gis-store/tiles", "encryptAttributes": ["info.connectionString"],
            "connectionString": {"accessKeyId": key.0, "secretAccessKey": key.1, "region": "us-east-1",
                                 "credentialType": "accessKey"}}});
        let form = [("item", item.to_string()), ("f", "json".to_owned()), ("token", token.clone())];
        let url = format!("{}/data/{path}", lab.arcgis.admin_url());
        lab.http.post(url).header("referer", "https://rekeyd").form(&form)
    };
    let (good, edit) = (json!({"status": "success"}), "items/cloudStores/imagery/edit");
    assert_eq!(json(send("validateDataItem", &new)).await, good);
    let wrong = (new.0.clone(), "wrong".to_owned());
    assert_eq!(json(send("validateDataItem", &wrong)).await["status"], "error");
    assert_eq!(json(send(edit, &new)).await, good);
    assert_eq!(lab.arcgis.held_key(ITEM), Some(new.clone()));
    until("use", || lab.arcgis.consumer(ITEM).last_good_key.as_ref() == Some(&new.0)).await;
    let found = json(lab.get("data/findItems?types=cloudStore&ancestorPath=/cloudStores&f=json", &token)).await;
    assert_eq!(found["items"][0]["path"], ITEM);
    assert!(!found.to_string().contains(&new.1) && !found.to_string().contains(&new.0));
}

#[tokio::test]
async fn an_item_shows_its_connection_string_as_the_site_does() {
    for (tls, query) in [(false, "decrypt=true&"), (true, ""), (true, "decrypt=true&")] {
        for view in [ItemView::Sealed, ItemView::SealedFields, ItemView::Object, ItemView::Text] {
            let options = ArcGisOptions { item_view: view, ..server() };
            let lab = if tls { Lab::secure(options).await } else { Lab::new(options).await };
            lab.arcgis.set_data_item(item(&lab.old));
            let token = lab.token().await;
            let shown = json(lab.get(&format!("data/items/cloudStores/imagery?{query}f=json"), &token)).await;
            let clear = tls && !query.is_empty();
            let expected = item(&lab.old)["info"]["connectionString"].clone();
            let connection = &shown["info"]["connectionString"];
            match (view, clear) {
                (ItemView::Object, _) | (ItemView::SealedFields, true) => assert_eq!(*connection, expected),
                (ItemView::Text, _) | (ItemView::Sealed, true) => {
                    let text = connection.as_str().expect("a text");
                    assert_eq!(serde_json::from_str::<Value>(text).expect("JSON in it"), expected);
                }
                (ItemView::Sealed, false) => {
                    assert!(connection.as_str().is_some_and(|text| text.starts_with("v2Crypt_")))
                }
                (ItemView::SealedFields, false) => {
                    assert_eq!(
                        (&connection["region"], &connection["tomorrow"]),
                        (&json!("us-east-1"), &json!({"x": 1}))
                    );
                    for name in ["accessKeyId", "secretAccessKey"] {
                        assert!(
                            connection[name].as_str().is_some_and(|text| text.starts_with("v2Crypt_")),
                            "{connection}"
                        );
                    }
                }
            }
            let mut rest = shown.clone();
            rest["info"]["connectionString"] = expected;
            assert_eq!(rest, item(&lab.old), "{view:?}: the rest is shown as it is");
        }
    }
}

#[tokio::test]
async fn an_edit_replaces_the_whole_item_and_keeps_what_nobody_knows() {
    let lab = Lab::new(server()).await;
    lab.arcgis.add_data_item(ITEM, "gis-store/tiles", stored(&lab.old));
    let (new, token) = (lab.aws.create_key("store"), lab.token().await);
    let mut text = item(&new);
    text["info"]["connectionString"] = json!(text["info"]["connectionString"].to_string());
    assert_eq!(json(lab.post(EDIT, &text, &token)).await, json!({"status": "success"}));
    assert_eq!(lab.arcgis.data_item(ITEM), Some(item(&new)));
    let mut bare = item(&new);
    bare.as_object_mut().expect("an object").remove("future");
    assert_eq!(json(lab.post(EDIT, &bare, &token)).await, json!({"status": "success"}));
    assert_eq!(lab.arcgis.data_item(ITEM), Some(bare), "what is not sent is gone");
    let mut moved = item(&new);
    moved["path"] = json!("/cloudStores/other");
    assert_eq!(json(lab.post(EDIT, &moved, &token)).await["status"], "error");
    lab.arcgis.remove_data_item(ITEM);
    assert_eq!(json(lab.post(EDIT, &item(&new), &token)).await["code"], 404);
    assert_eq!(lab.arcgis.data_item(ITEM), None);
}

#[tokio::test]
async fn a_ciphertext_that_is_posted_back_is_taken_and_counted() {
    let lab = Lab::new(ArcGisOptions { item_view: ItemView::SealedFields, ..server() }).await;
    lab.arcgis.add_data_item(ITEM, "gis-store/tiles", stored(&lab.old));
    let token = lab.token().await;
    let shown = json(lab.get("data/items/cloudStores/imagery?f=json", &token)).await;
    assert_eq!(json(lab.post(EDIT, &shown, &token)).await, json!({"status": "success"}));
    assert_eq!((lab.arcgis.held_key(ITEM), lab.arcgis.veils_posted()), (Some(lab.old.clone()), 2));
    let mut text = shown.clone();
    text["info"]["connectionString"] = json!(shown["info"]["connectionString"].to_string());
    json(lab.post(EDIT, &text, &token)).await;
    assert_eq!(lab.arcgis.veils_posted(), 4, "inside a text too");
    json(lab.post(EDIT, &item(&lab.old), &token)).await;
    assert_eq!(lab.arcgis.veils_posted(), 4);
}

#[tokio::test]
async fn items_are_found_as_each_product_documents_it() {
    for options in [server(), quick()] {
        let server = options.product == Product::Server;
        let lab = Lab::new(options).await;
        lab.arcgis.set_data_item(item(&lab.old));
        let token = lab.token().await;
        let url = format!("{}/data/findItems", lab.arcgis.admin_url());
        let post = |name: &str, value: &str| {
            let form =
                [(name.to_owned(), value.to_owned()), ("f".into(), "json".into()), ("token".into(), token.clone())];
            json(lab.http.post(&url).header("referer", "https://rekeyd").form(&form))
        };
        let paths = |found: Value| found["items"].as_array().map(Vec::len);
        assert_eq!(paths(post("ancestorPath", "/cloudStores").await), Some(1));
        assert_eq!(paths(post("types", "egdb,cloudStore").await), Some(1));
        assert_eq!(paths(post("types", "objectStore").await), Some(0));
        assert_eq!(paths(post("ancestorPath", "/fileShares").await), Some(0));
        assert_eq!(paths(post("ancestorPath", "").await), None, "one of them must be said");
        let got = json(lab.get("data/findItems?ancestorPath=/cloudStores&f=json", &token)).await;
        assert_eq!(paths(got), server.then_some(1));
    }
}

#[tokio::test]
async fn each_operation_has_its_mishaps_and_a_site_may_lack_the_validation() {
    let lab = Lab::new(server()).await;
    lab.arcgis.add_data_item(ITEM, "gis-store/tiles", stored(&lab.old));
    let (new, token) = (lab.aws.create_key("store"), lab.token().await);
    for (operation, path) in [("validateDataItem", "validateDataItem"), ("edit", EDIT)] {
        lab.arcgis.fault(operation, Fault::DropBefore);
        lab.post(path, &item(&new), &token).send().await.expect_err("nobody answers");
        assert_eq!(lab.arcgis.held_key(ITEM), Some(lab.old.clone()));
        lab.arcgis.fault(operation, Fault::Refuse("no".to_owned()));
        assert_eq!(json(lab.post(path, &item(&new), &token)).await["messages"][0], "no");
    }
    lab.arcgis.fault("edit", Fault::LostReply);
    lab.post(EDIT, &item(&new), &token).send().await.expect_err("nobody answers");
    assert_eq!(lab.arcgis.held_key(ITEM), Some(new.clone()), "and it was carried out");
    for (operation, path) in
        [("item", "data/items/cloudStores/imagery"), ("findItems", "data/findItems?types=cloudStore")]
    {
        lab.arcgis.fault(operation, Fault::Error(503));
        let answer = lab.get(path, &token).send().await.expect("a page answers");
        assert_eq!(answer.status(), 503, "{operation}");
    }
    let lab = Lab::new(ArcGisOptions { validates_items: false, ..server() }).await;
    let token = lab.token().await;
    assert_eq!(json(lab.post("validateDataItem", &item(&lab.old), &token)).await["code"], 404);
}
