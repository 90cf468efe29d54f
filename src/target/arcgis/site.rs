//! What a deployment tells of itself to people: product and version, who we are there, its registered data stores, and which holders
//! of keys nobody can ask it about. `doctor` and `plan` show it; no rotation depends on it.
//!
//! `community/self` of the portal is Esri's "Self" resource of users, groups and items: the user as the token's owner, with `role`
//! (`org_admin`, `org_publisher`, `org_user`) and `privileges`. Members with the default administrator role have the full admin API
//! (managing access to the Enterprise Administrator API); which privilege is enough for `cloud/…` from 12.0 on stands in a table
//! that could not be read. So a role says that somebody may, and never that somebody may not.

use serde_json::Value;

use super::config::Product;
use super::data::ANCESTOR;
use super::envelope::Verdict;
use super::item::{Item, Wiped};
use super::session::Ask;
use super::{ArcGis, cloud};
use crate::model::{Reason, Standing, TargetName};
use crate::net::redact::Redactor;
use crate::ports::{Fault, FoundHolder, Reading, Site};

/// As many privileges are named.
const PRIVILEGES_MAX: usize = 6;

/// As many data stores are told.
const ITEMS_MAX: usize = 200;

/// What holds keys and has no resource that tells which: where Esri's own pages and scripts change them.
const BEYOND: [&str; 2] = [
    "the content directory of a portal (portaladmin/system/directories/content)",
    "the backup location of an ArcGIS Data Store (configurebackuplocation)",
];

impl ArcGis {
    pub(super) async fn tell_site(&self) -> Result<Site, Fault> {
        let root = match self.root().await {
            Ok(root) => root,
            // Who is not let in wants to know as whom.
            Err(Fault::Refused { reason: Reason::MissingRight, why }) => {
                let why = format!("{why}; {}", self.standing().await.said());
                return Err(Fault::Refused { reason: Reason::MissingRight, why });
            }
            Err(fault) => return Err(fault),
        };
        let config = &self.deployment.config;
        Ok(Site {
            product: product_name(config.product).to_owned(),
            version: cloud::version_of(&root).map(|(major, minor)| format!("{major}.{minor}")),
            user: config.username.clone(),
            standing: self.standing().await,
            also: self.data_stores().await,
            beyond: BEYOND.map(str::to_owned).to_vec(),
        })
    }

    /// Without what this deployment was ever given: it names its places itself.
    pub(super) fn discreet_holder(&self, holder: FoundHolder) -> FoundHolder {
        let hide = |text: &str| self.deployment.hide(text);
        FoundHolder {
            name: TargetName::new(hide(holder.name.as_str())),
            what: hide(&holder.what),
            credential: hide(&holder.credential),
            inherits: holder.inherits.map(|name| TargetName::new(hide(name.as_str()))),
            ..holder
        }
    }

    /// What the portal says of the user. Nothing it answers keeps anybody from anything.
    async fn standing(&self) -> Standing {
        let config = &self.deployment.config;
        let user = &config.username;
        let Some(portal) = &config.portal_url else {
            return Standing::Untold(format!(
                "what user {user} may do is told by a portal, and this Server has none; the first look or push that is refused will \
                 say so"
            ));
        };
        let what = "asking the portal who we are";
        let ask = Ask { root: Some(portal), may_be_absent: true, ..Ask::get(what, "community/self") };
        let untold = |said: &str| {
            Standing::Untold(format!("what user {user} may do is not known: {}: {said}", self.doing(what)))
        };
        match self.deployment.ask(ask).await {
            Ok((Verdict::Good(value), redactor)) => standing_of(&value, user, |text| redactor.clean(text)),
            Ok((Verdict::Text(_), _)) => untold("a page instead of JSON"),
            Ok((Verdict::Complaint(complaint), _)) => untold(&complaint.said),
            Err(fault) => Standing::Untold(format!("what user {user} may do is not known: {}", fault.why())),
        }
    }

    /// The registered cloud stores, as their list shows them: nothing is deciphered that is no target.
    async fn data_stores(&self) -> Result<Vec<FoundHolder>, String> {
        let look = Ask::get("looking for data items", "data/findItems");
        // By the documents a GET of Server, and a POST of Kubernetes.
        let look = match self.deployment.config.product {
            Product::Server => Ask { query: &[ANCESTOR], ..look },
            Product::Kubernetes => Ask { form: Some(&[ANCESTOR]), ..look },
        };
        match self.look(look).await {
            Ok(Some((value, _))) => {
                let stores = stores_of(Wiped(value), &self.deployment.at.name, &self.site());
                Ok(stores.into_iter().map(|holder| self.discreet_holder(holder)).collect())
            }
            Ok(None) => Ok(Vec::new()),
            Err(fault) => Err(fault.why().to_owned()),
        }
    }
}

fn product_name(product: Product) -> &'static str {
    match product {
        Product::Kubernetes => "ArcGIS Enterprise on Kubernetes",
        Product::Server => "ArcGIS Server",
    }
}

fn standing_of(value: &Value, user: &str, clean: impl Fn(&str) -> String) -> Standing {
    let text = |name: &str| value.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let Some(role) = text("role") else {
        return Standing::Untold(format!("what user {user} may do is not known: the portal names no role"));
    };
    if role == "org_admin" {
        return Standing::Enough(format!("user {user} is a default administrator (org_admin)"));
    }
    let custom = text("roleId").filter(|id| *id != role).map_or_else(String::new, |id| format!(" ({})", clean(id)));
    let privileges = value.get("privileges").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
    let mut privileges: Vec<String> = privileges.filter(|name| name.starts_with("portal:admin:")).map(&clean).collect();
    let more = privileges.len().saturating_sub(PRIVILEGES_MAX);
    privileges.truncate(PRIVILEGES_MAX);
    let privileges = match (privileges.is_empty(), more) {
        (true, _) => "no privilege of an administrator".to_owned(),
        (false, 0) => privileges.join(", "),
        (false, more) => format!("{} and {more} more", privileges.join(", ")),
    };
    Standing::Doubtful(format!(
        "user {user} has role {}{custom} with {privileges}: until 11.5 only a default administrator (org_admin) may change cloud \
         credentials, and which privilege is enough from 12.0 on is not verified",
        clean(role)
    ))
}

fn stores_of(mut value: Wiped, deployment: &str, site: &str) -> Vec<FoundHolder> {
    let items = value.0.get_mut("items").map(Value::take);
    let Some(Value::Array(items)) = items else { return Vec::new() };
    let clean = |text: &str| Redactor::default().clean(text);
    let text =
        |item: &Value, pointer: &str| item.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    // Each is wiped, those too that are not told.
    let items: Vec<Wiped> = items.into_iter().map(Wiped).collect();
    let stores = items.into_iter().take(ITEMS_MAX).filter_map(|mut item| {
        let path = text(&item.0, "/path");
        if !path.to_ascii_lowercase().starts_with("/cloudstores/") {
            return None;
        }
        let label = [text(&item.0, "/provider"), text(&item.0, "/info/objectStore")].map(|word| clean(&word));
        let label = label.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
        let reading = Item::of(item.0.take(), &path, site).map_or(Reading::Hidden, |item| item.reading());
        Some(FoundHolder {
            name: TargetName::new(format!("arcgis:{deployment}:{}", clean(&path))),
            what: format!("data item {label}").trim_end().to_owned(),
            credential: String::new(),
            reading,
            inherits: None,
        })
    });
    stores.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn standing(value: Value) -> Standing {
        standing_of(&value, "rotator", |text| Redactor::default().clean(text))
    }

    #[test]
    fn a_default_administrator_may_and_of_others_it_is_not_known() {
        let admin =
            standing(json!({"username": "rotator", "role": "org_admin", "privileges": ["portal:admin:viewUsers"]}));
        assert_eq!(admin, Standing::Enough("user rotator is a default administrator (org_admin)".to_owned()));
        let other = standing(json!({"role": "org_publisher", "roleId": "Pi5ZcW4sddhtho45",
            "privileges": ["portal:admin:manageServers", "portal:user:createItem"]}));
        let Standing::Doubtful(said) = other else { panic!("{other:?}") };
        assert!(
            said.starts_with("user rotator has role org_publisher (Pi5ZcW4sddhtho45) with portal:admin:manageServers:"),
            "{said}"
        );
        let none = standing(json!({"role": "org_user", "privileges": ["portal:user:createItem"]}));
        assert!(none.said().contains("role org_user with no privilege of an administrator"), "{none:?}");
        assert!(matches!(standing(json!({})), Standing::Untold(_)));
        assert!(matches!(standing(json!({"role": 7, "privileges": "all"})), Standing::Untold(_)));
    }

    #[test]
    fn what_a_portal_says_is_bounded_and_speaks_to_no_terminal() {
        let many: Vec<String> = (0..50).map(|n| format!("portal:admin:p{n}\u{1b}[2J")).collect();
        let said = standing(json!({"role": "x\u{7}".repeat(1000), "privileges": many})).said().to_owned();
        assert!(said.contains("and 44 more") && said.len() < 1500, "{said}");
        assert!(!said.contains(|character: char| character.is_control()), "{said}");
    }

    #[test]
    fn data_stores_are_told_with_the_end_where_it_is_shown() {
        let item = |path: &str, connection: Value| {
            json!({"path": path, "type": "cloudStore", "provider": "amazon",
                   "info": {"objectStore": "gis-store/folder", "connectionString": connection}})
        };
        let listed = json!({"items": [
            item("/cloudStores/a", json!("{crypt}nawx4y2s")),
            item("/cloudStores/b", json!({"accessKeyId": "AKIA1", "secretAccessKey": "{crypt}xxxxxxxxxxxxxxxxVC5M"})),
            {"path": "/fileShares/c", "type": "folder"},
            {"path": "/cloudStores/d", "type": "cloudStore", "provider": "azure", "info": {}},
        ]});
        let told = stores_of(Wiped(listed), "prod", "arcgis.prod");
        let names: Vec<_> = told.iter().map(|holder| (holder.name.as_str(), holder.what.as_str())).collect();
        assert_eq!(
            names,
            [
                ("arcgis:prod:/cloudStores/a", "data item amazon gis-store/folder"),
                ("arcgis:prod:/cloudStores/b", "data item amazon gis-store/folder"),
                ("arcgis:prod:/cloudStores/d", "data item azure"),
            ]
        );
        assert_eq!(told[0].reading, Reading::Hidden);
        assert_eq!(told[1].reading.tail().map(crate::model::Tail::as_str), Some("VC5M"));
        assert!(stores_of(Wiped(json!({"items": "none"})), "prod", "x").is_empty());
    }
}
