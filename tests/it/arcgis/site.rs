//! What a deployment tells of itself to `doctor`: product, version, who we are there; and what it could do without a key.

use rekeyd::model::{Standing, WithoutKey};

use super::*;

async fn told(target: &Arc<dyn Target>) -> rekeyd::model::Site {
    target.site().await.expect("it is up").expect("ArcGIS has deployments")
}

#[tokio::test]
async fn every_flavour_says_what_it_is_and_who_is_logged_in() {
    for options in flavours() {
        let (product, version) = (options.product, options.version.clone());
        let site = Site::start(options).await;
        let target = site.target();
        let told = told(&target).await;
        let name = if product == Product::Server { "ArcGIS Server" } else { "ArcGIS Enterprise on Kubernetes" };
        assert_eq!((told.product.as_str(), told.version.as_deref()), (name, Some(version.as_str())));
        assert_eq!(told.user, "rotator");
        match product {
            Product::Kubernetes => {
                let admin = "user rotator is a default administrator (org_admin)".to_owned();
                assert_eq!(told.standing, Standing::Enough(admin));
            }
            // Without a portal nobody tells.
            Product::Server => assert!(matches!(told.standing, Standing::Untold(_)), "{:?}", told.standing),
        }
        assert_eq!(site.pushes(), 0);
        assert_eq!(site.arcgis.logins().len(), 1);
    }
}

#[tokio::test]
async fn a_federated_server_asks_its_portal_who_we_are() {
    let site = Site::start(ArcGisOptions { federated: true, ..server() }).await;
    site.arcgis.set_role("org_publisher", &["portal:admin:manageServers"]);
    let target =
        site.connect(&format!("portal_url = {:?}", site.arcgis.portal_url()), &format!("service_id = {SERVICE:?}"));
    let Standing::Doubtful(said) = told(&target).await.standing else { panic!("a publisher is no administrator") };
    assert!(said.starts_with("user rotator has role org_publisher with portal:admin:manageServers:"), "{said}");
    target.inspect().await.expect("a role refuses nothing by itself");
}

#[tokio::test]
async fn a_portal_that_does_not_say_keeps_nobody_from_anything() {
    let site = Site::start(kubernetes()).await;
    let target = site.target();
    for mishap in [
        Mishap::Html,
        Mishap::Error(500),
        Mishap::Error(404),
        Mishap::Error(401),
        Mishap::Error(498),
        Mishap::Error(503),
        Mishap::DropBefore,
        Mishap::DropBefore,
        Mishap::Refuse("no such user".to_owned()),
        Mishap::Throttle,
    ] {
        site.arcgis.fault("self", mishap.clone());
        let told = told(&target).await;
        assert!(matches!(&told.standing, Standing::Untold(said) if said.contains("rotator")), "{mishap:?}: {told:?}");
        target.inspect().await.unwrap_or_else(|fault| panic!("{mishap:?}: everything else is as it was: {fault:?}"));
        target.holders().await.unwrap_or_else(|fault| panic!("{mishap:?}: everything else is as it was: {fault:?}"));
    }
    assert_eq!(site.arcgis.logins(), [true], "what the portal makes of a token is no reason for another");
}

#[tokio::test]
async fn who_may_not_look_is_told_as_whom() {
    let site = Site::start(kubernetes()).await;
    site.arcgis.set_username_privilege(false);
    site.arcgis.set_role("org_user", &[]);
    let fault = site.target().site().await.expect_err("the directory is closed");
    assert_eq!(reason(&fault), Some(Reason::MissingRight));
    assert!(fault.why().contains("user rotator has role org_user with no privilege of an administrator"), "{fault:?}");
}

#[tokio::test]
async fn what_could_do_without_a_key_follows_the_version() {
    for options in flavours() {
        let (product, version) = (options.product, options.version.clone());
        let site = Site::start(options).await;
        for (target, along) in [(site.target(), false), (site.provider(), true)] {
            match target.without_key().await.expect("it is up") {
                WithoutKey::Possible { arguments, prepare, .. } => {
                    assert_eq!((version.as_str(), arguments.as_str()), ("12.0", "--to iam-role"), "{product:?}");
                    let names = prepare.iter().any(|what| what.contains(INHERITING));
                    assert_eq!(names, along, "who goes along is named: {prepare:?}");
                }
                WithoutKey::Impossible(why) => {
                    assert_ne!(version, "12.0");
                    assert!(why.starts_with(&format!("the site is {version}: until 12.0")), "{why}");
                }
                WithoutKey::Already(what) => panic!("it holds a key, and not {what}"),
            }
        }
        assert_eq!(site.pushes(), 0);
    }
    let site = Site::start(kubernetes()).await;
    let inherits = site.connect("", &format!("service_id = {INHERITING:?}"));
    let WithoutKey::Impossible(why) = inherits.without_key().await.expect("it is up") else { panic!("it has no key") };
    assert!(why.contains(&format!("uses that of provider {PROVIDER}")), "{why}");
    let item = site.connect("", "data_item = \"/cloudStores/imagery\"");
    let WithoutKey::Impossible(why) = item.without_key().await.expect("nobody is asked") else {
        panic!("no such type")
    };
    assert!(why.starts_with("data item /cloudStores/imagery is a registered data store"), "{why}");
    let unknown = site.connect("", "service_id = \"nosuchthing\"");
    assert_eq!(reason(&unknown.without_key().await.expect_err("it is not there")), Some(Reason::NotFound));
}
