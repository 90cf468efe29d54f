//! What the rotator may do: roles of Azure Resource Manager, which are patterns, and app roles of Graph, which are names.

/// A role the rotator is assigned at the subscription, as a role definition writes it.
///
/// A right is given where some role has it among its `actions` and not among its `not_actions`; `*` stands for anything, slashes
/// too, and case does not matter ("Understand Azure role definitions").
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AzureRole {
    /// `Microsoft.Storage/storageAccounts/*`.
    pub actions: Vec<String>,
    /// Taken out of this role's actions; another role may still give it.
    pub not_actions: Vec<String>,
}

impl AzureRole {
    /// Everything, as the Owner has it.
    pub fn everything() -> Self {
        Self { actions: vec!["*".to_owned()], not_actions: Vec::new() }
    }

    pub(crate) fn gives(&self, right: &str) -> bool {
        let among = |patterns: &[String]| patterns.iter().any(|pattern| covers(pattern, right));
        among(&self.actions) && !among(&self.not_actions)
    }
}

/// Whether the pattern covers the right.
pub(crate) fn covers(pattern: &str, right: &str) -> bool {
    matches(&pattern.to_ascii_lowercase(), &right.to_ascii_lowercase())
}

fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((start, rest)) => text
            .strip_prefix(start)
            .is_some_and(|text| (0..=text.len()).filter_map(|at| text.get(at..)).any(|text| matches(rest, text))),
    }
}

/// A permission of Microsoft Graph that an application has by itself; the ids are the same in every tenant ("Microsoft Graph
/// permissions reference").
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct AppRole {
    pub(crate) name: &'static str,
    pub(crate) id: &'static str,
}

/// Those the lab knows.
pub(crate) const APP_ROLES: [AppRole; 4] = [
    AppRole { name: "Application.ReadWrite.OwnedBy", id: "18a4783c-866b-4cc7-a460-3d5e5662c884" },
    AppRole { name: "Application.ReadWrite.All", id: "1bfefb4e-e0b5-418b-a88f-73c46d2cc8e9" },
    AppRole { name: "Application.Read.All", id: "9a5d68dd-52b0-4cc2-bd40-abcf44ac3a30" },
    AppRole { name: "Policy.Read.All", id: "246dd0d5-5bd0-4def-940b-0421030a5b68" },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_anything_and_case_for_nothing() {
        let right = "Microsoft.Storage/storageAccounts/listKeys/action";
        for pattern in ["*", right, "microsoft.storage/*", "*/action", "Microsoft.*/listkeys/*", "*/storageAccounts/*"]
        {
            assert!(covers(pattern, right), "{pattern}");
        }
        for pattern in
            ["", "Microsoft.Storage", "*/read", "Microsoft.Storage/*/write", "storageAccounts/*", "*/listKeys"]
        {
            assert!(!covers(pattern, right), "{pattern}");
        }
    }

    #[test]
    fn what_a_role_does_not_give_another_may() {
        let role = |actions: &[&str], not: &[&str]| AzureRole {
            actions: actions.iter().map(|action| (*action).to_owned()).collect(),
            not_actions: not.iter().map(|action| (*action).to_owned()).collect(),
        };
        let narrow = role(&["*"], &["*/listKeys/action"]);
        assert!(!narrow.gives("a/listKeys/action") && narrow.gives("a/read"));
        assert!(AzureRole::everything().gives("a/listKeys/action"));
        assert!(!role(&[], &[]).gives("a/read"));
    }
}
