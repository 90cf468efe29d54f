//! What a deployment tells of itself to people: product and version, who we are there, and which holders of keys nobody can ask it
//! about. `doctor` and `plan` show it; no rotation depends on it.
//!
//! `community/self` of the portal is Esri's "User Self" resource: the user whose token it is, with `role` (`org_admin`,
//! `org_publisher`, `org_user`; documented) and `privileges` (seen in an answer that somebody published). Members with the default
//! administrator role have the full admin API (managing access to the Enterprise Administrator API); which privilege is enough for
//! `cloud/…` from 12.0 on stands in a table that could not be read. So a role says that somebody may, and never that somebody may not.

use serde_json::Value;

use super::config::Product;
use super::envelope::Verdict;
use super::session::Ask;
use super::{ArcGis, cloud};
use crate::model::{Reason, Standing};
use crate::ports::{Fault, Site};

/// As many privileges are named.
const PRIVILEGES_MAX: usize = 6;

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
            beyond: BEYOND.map(str::to_owned).to_vec(),
        })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::redact::Redactor;
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
}
