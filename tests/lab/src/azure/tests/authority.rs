//! What ARM and Graph tell a caller of its own rights, and that it is what they then do.

use super::*;

const PERMISSIONS: &str = "providers/Microsoft.Authorization/permissions?api-version=2022-04-01";
const LOCKS: &str = "providers/Microsoft.Authorization/locks?api-version=2020-05-01";

fn role(actions: &[&str], not_actions: &[&str]) -> AzureRole {
    let owned = |list: &[&str]| list.iter().map(|action| (*action).to_owned()).collect();
    AzureRole { actions: owned(actions), not_actions: owned(not_actions) }
}

#[tokio::test]
async fn the_roles_shown_are_the_rights_given() {
    let azure = plain().await;
    let account = azure.add_storage_account("gisstore");
    let client = Client::new(&azure).await;
    let group = account.split("/providers/").next().expect("a group").to_owned();
    let subscription = account.split("/resourceGroups/").next().expect("a subscription").to_owned();
    for scope in [&subscription, &group, &account] {
        let shown = client.get(&format!("{scope}/{PERMISSIONS}")).await;
        let everything = json!([{"actions": ["*"], "notActions": [], "dataActions": [], "notDataActions": []}]);
        assert_eq!((shown.status, &shown.json()["value"]), (200, &everything), "{}", shown.text);
    }
    let right = "Microsoft.Storage/storageAccounts/regenerateKey/action";
    azure.deny(right);
    // What Graph gives is none of ARM's business.
    azure.deny("Application.ReadWrite.OwnedBy");
    let shown = client.get(&format!("{account}/{PERMISSIONS}")).await.json();
    assert_eq!(shown["value"][0]["notActions"], json!([right]));
    azure.allow(right);

    let authorization = role(&["Microsoft.Authorization/*/read"], &[]);
    let storage = role(&["microsoft.storage/storageaccounts/*"], &["*/regeneratekey/action"]);
    azure.set_roles(vec![authorization, storage.clone()]);
    let shown = client.get(&format!("{account}/{PERMISSIONS}")).await.json();
    assert_eq!(shown["value"][1]["actions"], json!(storage.actions));
    assert_eq!(client.list(&account).await.status, 200);
    assert_eq!(client.regenerate(&account, "key1").await.code(), refused(403, "AuthorizationFailed"));
    // What one role does not give another may.
    azure.set_roles(vec![storage.clone(), role(&["*/regenerateKey/action"], &[])]);
    assert_eq!(client.regenerate(&account, "key1").await.status, 200);
    // To ask is a right too.
    let blind = client.get(&format!("{account}/{PERMISSIONS}")).await;
    assert_eq!(blind.code(), refused(403, "AuthorizationFailed"));
    assert!(blind.text.contains("Microsoft.Authorization/permissions/read"), "{}", blind.text);
    assert_eq!(azure.mints() + azure.regenerations(), 1);
    let line = azure.requests().pop().expect("a line");
    assert_eq!((line.operation.as_str(), line.user_or_target.as_str()), ("ListPermissions", "gisstore"));
}

#[tokio::test]
async fn the_front_door_is_the_same_as_for_accounts() {
    let azure = plain().await;
    let account = azure.add_storage_account("gisstore");
    let rule = azure.add_service_bus_rule("gis-bus", "arcgis");
    let client = Client::new(&azure).await;
    let namespace = rule.split("/AuthorizationRules").next().expect("a namespace").to_owned();
    for scope in [&rule, &namespace, &account.replace("resourceGroups", "resourcegroups")] {
        assert_eq!(client.get(&format!("{scope}/{PERMISSIONS}")).await.status, 200, "{scope}");
        assert_eq!(client.get(&format!("{scope}/{LOCKS}")).await.status, 200, "{scope}");
    }
    for tail in [PERMISSIONS, LOCKS] {
        let cases = [
            (account.replace("gisstore", "other"), 404, "ResourceNotFound"),
            (account.replace("/gis/", "/sig/"), 404, "ResourceGroupNotFound"),
            (account.replace("5f750a97", "00000000"), 404, "SubscriptionNotFound"),
        ];
        for (scope, status, code) in cases {
            assert_eq!(client.get(&format!("{scope}/{tail}")).await.code(), refused(status, code), "{scope}");
        }
        let path = tail.split('?').next().expect("a path");
        let none = client.get(&format!("{account}/{path}")).await;
        assert_eq!(none.code(), refused(400, "MissingApiVersionParameter"));
        let foreign = client.get(&format!("{account}/{path}?{STORAGE_VERSION}")).await;
        assert_eq!(foreign.code(), refused(400, "NoRegisteredProviderFound"));
        let posted = client.post(&format!("{account}/{tail}"), Some(json!({}))).await;
        assert_eq!(posted.status, 404);
        let graph = Client { azure: &azure, arm: client.graph.clone(), graph: String::new() };
        let wrong = graph.get(&format!("{account}/{tail}")).await;
        assert_eq!(wrong.code(), refused(401, "InvalidAuthenticationTokenAudience"));
    }
}

#[tokio::test]
async fn what_does_not_fit_on_a_page_is_on_the_next() {
    let azure = start(AzureOptions { page_size: 1, ..AzureOptions::default() }).await;
    let account = azure.add_storage_account("gisstore");
    azure.set_roles(vec![role(&["a"], &[]), role(&["*"], &[]), role(&["c"], &[])]);
    let client = Client::new(&azure).await;
    let (mut path, mut seen) = (format!("{account}/{PERMISSIONS}"), Vec::new());
    loop {
        let page = client.get(&path).await.json();
        assert_eq!(page["value"].as_array().map(Vec::len), Some(1));
        seen.push(page["value"][0]["actions"][0].clone());
        let Some(next) = page["nextLink"].as_str() else { break };
        path = next.strip_prefix(&azure.arm_url()).expect("an address of ours").to_owned();
    }
    assert_eq!(seen, [json!("a"), json!("*"), json!("c")]);
    let beyond = client.get(&format!("{account}/{PERMISSIONS}&$skiptoken=3")).await;
    assert_eq!(beyond.code(), refused(400, "InvalidSkipToken"));
}

#[tokio::test]
async fn locks_are_listed_that_stand_over_a_scope_and_below_it() {
    let azure = plain().await;
    let (account, other) = (azure.add_storage_account("gisstore"), azure.add_storage_account("other"));
    let group = account.split("/providers/").next().expect("a group").to_owned();
    let client = Client::new(&azure).await;
    let levels = |scope: String, filter: &'static str| {
        let client = &client;
        async move {
            let shown = client.get(&format!("{scope}/{LOCKS}{filter}")).await.json();
            let locks = shown["value"].as_array().cloned().expect("a list");
            locks
                .iter()
                .map(|lock| lock["properties"]["level"].as_str().expect("a level").to_owned())
                .collect::<Vec<_>>()
        }
    };
    assert!(levels(account.clone(), "").await.is_empty());
    azure.lock_against_deletion(&group);
    azure.lock(&other);
    assert_eq!(levels(account.clone(), "").await, ["CanNotDelete"]);
    assert_eq!(levels(other.clone(), "").await, ["CanNotDelete", "ReadOnly"]);
    assert_eq!(levels(group.clone(), "").await, ["CanNotDelete", "ReadOnly"]);
    assert_eq!(levels(group.clone(), "&$filter=atScope()").await, ["CanNotDelete"]);
    let shown = client.get(&format!("{other}/{LOCKS}")).await.json();
    assert_eq!(shown["value"][1]["id"], format!("{other}/providers/Microsoft.Authorization/locks/keep"));
    let odd = client.get(&format!("{other}/{LOCKS}&$filter=level")).await;
    assert_eq!(odd.code(), refused(400, "UnsupportedQuery"));
    // Only the one is in the way.
    assert_eq!((client.list(&account).await.status, client.list(&other).await.status), (200, 409));
    azure.deny("Microsoft.Authorization/locks/read");
    assert_eq!(client.get(&format!("{other}/{LOCKS}")).await.code(), refused(403, "AuthorizationFailed"));
}

/// The ids of the principals that own an application, and the permissions of the rotator by name.
async fn seen(client: &Client<'_>, object_id: &str) -> (Vec<String>, Vec<String>) {
    let get = |path: String| async move {
        let answer = client.try_graph(Method::GET, &path, None).await.expect("Graph answers");
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.json()
    };
    let texts = |list: &Value, name: &str| -> Vec<String> {
        let list = list["value"].as_array().cloned().expect("a list");
        list.iter().map(|one| one[name].as_str().expect("a text").to_owned()).collect()
    };
    let owners = get(format!("/v1.0/applications/{object_id}/owners")).await;
    assert_eq!(owners["value"][0]["@odata.type"], "#microsoft.graph.user");
    assert!(owners["value"][0]["displayName"].is_null());
    let client_id = client.azure.admin().0;
    let given = get(format!("/v1.0/servicePrincipals(appId='{client_id}')/appRoleAssignments")).await;
    let graph =
        get("/v1.0/servicePrincipals(appId='00000003-0000-0000-c000-000000000000')?$select=id,appRoles".to_owned());
    let graph = graph.await;
    let name = |id: String| {
        let roles = graph["appRoles"].as_array().cloned().expect("roles");
        roles.iter().find(|role| role["id"] == *id).expect("a role")["value"].as_str().expect("a name").to_owned()
    };
    let assignments = given["value"].as_array().cloned().expect("a list");
    assert!(
        assignments.iter().all(|one| one["resourceId"] == graph["id"] && one["principalType"] == "ServicePrincipal")
    );
    (texts(&owners, "id"), texts(&given, "appRoleId").into_iter().map(name).collect())
}

#[tokio::test]
async fn graph_tells_who_owns_an_application_and_what_the_caller_was_given() {
    let azure = plain().await;
    let (object_id, client_id) = azure.add_application("gis");
    let client = Client::new(&azure).await;
    let rotator = format!("/v1.0/servicePrincipals(appId='{}')", azure.admin().0);
    let me = client.try_graph(Method::GET, &rotator, None).await.expect("Graph answers").json()["id"].clone();
    let me = me.as_str().expect("an id").to_owned();
    // Three ids, and the one that owns is none of the two a policy names.
    assert!(me != azure.admin().0 && me != object_id);
    let (owners, given) = seen(&client, &object_id).await;
    assert!(owners.len() == 2 && owners[1] == me, "{owners:?}");
    assert_eq!(given, ["Application.ReadWrite.OwnedBy"]);
    azure.set_owned(&object_id, false);
    let (owners, _) = seen(&client, &object_id).await;
    assert_eq!(owners.len(), 1);
    assert_eq!(client.add(&object_id, json!({})).await.code(), refused(403, "Authorization_RequestDenied"));

    // Read only: everything is shown, nothing may be changed.
    azure.set_owned(&object_id, true);
    azure.grant("Application.Read.All");
    azure.deny("Application.ReadWrite.OwnedBy");
    let (owners, given) = seen(&client, &object_id).await;
    assert_eq!((owners.len(), given), (2, vec!["Application.Read.All".to_owned()]));
    assert_eq!(client.add(&object_id, json!({})).await.code(), refused(403, "Authorization_RequestDenied"));
    // And all: an owner is not asked for.
    azure.grant("Application.ReadWrite.All");
    azure.set_owned(&object_id, false);
    assert_eq!(client.add(&object_id, json!({})).await.status, 200);

    // By either id, and of nobody else.
    let by_id = client.try_graph(Method::GET, &format!("/v1.0/servicePrincipals/{me}/appRoleAssignments"), None).await;
    assert_eq!(by_id.expect("Graph answers").json()["value"].as_array().map(Vec::len), Some(2));
    let other = format!("/v1.0/servicePrincipals(appId='{client_id}')/appRoleAssignments");
    let other = client.try_graph(Method::GET, &other, None).await.expect("Graph answers").json();
    assert_eq!(other["value"], json!([]));
    for path in [format!("/v1.0/servicePrincipals/{object_id}"), "/v1.0/applications/x/owners".to_owned()] {
        let missing = client.try_graph(Method::GET, &path, None).await.expect("Graph answers");
        assert_eq!(missing.code(), refused(404, "Request_ResourceNotFound"));
    }
    let few = client.try_graph(Method::GET, &format!("/v1.0/applications/{object_id}/owners?$select=id"), None).await;
    let few = few.expect("Graph answers").json();
    assert_eq!(few["value"][0].as_object().map(serde_json::Map::len), Some(2));
    assert!(few["@odata.context"].as_str().is_some_and(|context| context.ends_with("#directoryObjects(id)")));
}

#[tokio::test]
async fn the_policy_of_the_tenant_is_shown_to_those_who_may_read_policies() {
    let azure = plain().await;
    let client = Client::new(&azure).await;
    let read = || async {
        let answer = client.try_graph(Method::GET, "/v1.0/policies/defaultAppManagementPolicy", None).await;
        answer.expect("Graph answers")
    };
    // To read and write applications is not enough.
    assert_eq!(read().await.code(), refused(403, "Authorization_RequestDenied"));
    azure.grant("Policy.Read.All");
    assert_eq!(read().await.json()["isEnabled"], false);
    azure.set_options(|options| options.password_policy = PasswordPolicy::Lifetime(HOUR));
    let shown = read().await.json();
    let restriction = &shown["applicationRestrictions"]["passwordCredentials"][0];
    assert_eq!((&shown["isEnabled"], &restriction["maxLifetime"]), (&json!(true), &json!("PT3600S")));
    azure.set_options(|options| options.password_policy = PasswordPolicy::Forbidden);
    let shown = read().await.json();
    assert_eq!(shown["applicationRestrictions"]["passwordCredentials"][0]["restrictionType"], "passwordAddition");
    // And that right alone opens no application.
    azure.deny("Application.ReadWrite.OwnedBy");
    let (object_id, _) = azure.add_application("gis");
    assert_eq!(client.application(&object_id).await.code(), refused(403, "Authorization_RequestDenied"));
}
