//! How the policy stands to each holder that was found, and which of them hold a key of a service besides its targets. Pure.

use std::collections::BTreeMap;

use crate::model::{FoundHolder, Reading, ServiceName, SystemRef, Tail, TargetName};
use crate::policy::{Policy, Service};
use crate::rotation::ServiceState;

use super::told::{Cover, Finding, Holder};

/// The end of a service's key.
struct End<'p> {
    end: Tail,
    /// `current key AKIA1 of service a`.
    whose: String,
    service: &'p Service,
}

/// Every holder with how the policy stands to it.
pub(super) fn covered(found: &[FoundHolder], policy: &Policy) -> Vec<Holder> {
    let mut holders: Vec<Holder> = found.iter().map(|holder| one(holder, policy)).collect();
    holders.sort_by(|one, other| one.name.cmp(&other.name));
    holders
}

fn one(holder: &FoundHolder, policy: &Policy) -> Holder {
    let own = covering(policy, &holder.name);
    let through = holder.inherits.as_ref().map(|from| covering(policy, from)).unwrap_or_default();
    let accepted = policy.services.iter().any(|service| accepts(service, &holder.name));
    let cover = match &holder.inherits {
        Some(_) => Cover::Inherits,
        None if holder.reading == Reading::Nothing => Cover::NoKey,
        None if !own.is_empty() => Cover::Covered,
        None if accepted => Cover::Accepted,
        None => Cover::NotCovered,
    };
    Holder {
        name: holder.name.to_string(),
        what: holder.what.clone(),
        credential: Some(holder.credential.clone()).filter(|kind| !kind.is_empty()),
        shows_end: holder.reading.tail().is_some(),
        inherits: holder.inherits.as_ref().map(ToString::to_string),
        cover,
        services: own.into_iter().chain(through).map(|service| service.name.to_string()).collect(),
    }
}

fn covering<'p>(policy: &'p Policy, holder: &TargetName) -> Vec<&'p Service> {
    policy.services.iter().filter(|service| covers(service, holder)).collect()
}

fn covers(service: &Service, holder: &TargetName) -> bool {
    service.targets.iter().any(|target| same(&target.name, holder))
}

fn accepts(service: &Service, holder: &TargetName) -> bool {
    service.accept_holders.iter().any(|name| same(name, holder))
}

/// Data stores differ in case between sites; ids are lower case everywhere.
fn same(one: &TargetName, other: &TargetName) -> bool {
    one.as_str().eq_ignore_ascii_case(other.as_str())
}

/// What is to be said of the holders that no service covers: a warning before the mint.
pub(super) fn told(
    at: &SystemRef,
    found: &[FoundHolder],
    policy: &Policy,
    states: &BTreeMap<ServiceName, ServiceState>,
) -> Vec<Finding> {
    let known = ends(at, found, policy, states);
    found.iter().filter_map(|holder| of_one(holder, one(holder, policy).cover, &known)).collect()
}

fn of_one(holder: &FoundHolder, cover: Cover, (ends, untold): &(Vec<End<'_>>, Vec<&Service>)) -> Option<Finding> {
    let named = &holder.what;
    let warning =
        |said: String, service| Some(Finding::warning(holder.name.as_str(), said, Some(settle(service, holder))));
    let end = holder.reading.tail();
    // Whoever takes it for another service's has said nothing of this one.
    let is_elses = |service: &Service| !covers(service, &holder.name) && !accepts(service, &holder.name);
    let shared = ends.iter().find(|known| Some(&known.end) == end && is_elses(known.service));
    if let Some(End { whose, service, .. }) = shared {
        let said = format!(
            "{named} holds {whose} too, by the end that it shows, and is no target of it: the old key will not be disabled while it does"
        );
        return warning(said, service.name.as_str());
    }
    if cover != Cover::NotCovered {
        return None;
    }
    match (end, untold.first()) {
        (None, _) => warning(
            format!(
                "{named} is no target and shows nothing of its key: whether a service's key is held there cannot be told"
            ),
            "the service whose key it is",
        ),
        (Some(_), None) => None,
        (Some(_), Some(first)) => {
            let names: Vec<_> = untold.iter().map(|service| service.name.as_str()).collect();
            let names = names.join(", ");
            let said =
                format!("{named} is no target, and cannot be compared: nothing shows the end of the key of {names}");
            warning(said, first.name.as_str())
        }
    }
}

fn settle(service: &str, holder: &FoundHolder) -> String {
    format!(
        "make it a [[service.target]] of {service}; or, where it is another key or somebody else moves it, say accept_holders = \
         [\"{}\"] there",
        holder.name
    )
}

/// The ends of the keys of services, from the journal and from what their targets here show; and the services with targets here of
/// whose key nobody knows the end.
fn ends<'p>(
    at: &SystemRef,
    found: &[FoundHolder],
    policy: &'p Policy,
    states: &BTreeMap<ServiceName, ServiceState>,
) -> (Vec<End<'p>>, Vec<&'p Service>) {
    let (mut ends, mut untold) = (Vec::new(), Vec::new());
    for service in &policy.services {
        let name = &service.name;
        let mut own: Vec<End<'p>> = Vec::new();
        let mut learn = |end: &Tail, whose: String| {
            if own.iter().all(|known| known.end != *end) {
                own.push(End { end: end.clone(), whose, service });
            }
        };
        if let Some(state) = states.get(name) {
            let current = state.current.as_ref().map(|current| ("current", &current.key));
            for (which, key) in current.into_iter().chain(state.leaving.keys().map(|key| ("old", key))) {
                if let Some(end) = state.tails.get(key) {
                    learn(end, format!("{which} key {key} of service {name}"));
                }
            }
        }
        for holder in found.iter().filter(|holder| covers(service, &holder.name)) {
            if let Some(end) = holder.reading.tail() {
                learn(end, format!("the key of {}, a target of service {name},", holder.name));
            }
        }
        if own.is_empty() && service.targets.iter().any(|target| target.system.as_ref() == Some(at)) {
            untold.push(service);
        }
        ends.append(&mut own);
    }
    (ends, untold)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{KeyId, Timestamp};
    use crate::policy::Environment;
    use crate::rotation::Current;

    /// Two services of one deployment, `a` with the target `a1` and `b` with `b1`; more lines for `a`.
    fn policy(of_a: &str) -> Policy {
        let service = |name: &str, more: &str| {
            format!(
                "[[service]]\nname = \"{name}\"\n{more}\n[service.issuer]\nkind = \"aws-iam\"\naccount = \"main\"\nuser = \"{name}\"\n\
                 probe = {{ bucket = \"gis-store\", region = \"us-east-1\", expect = \"read\" }}\n[[service.target]]\nkind = \"arcgis\"\n\
                 deployment = \"prod\"\nservice_id = \"{name}1\"\n"
            )
        };
        let text = format!(
            "version = 1\n[aws.main]\nregion = \"us-east-1\"\n[arcgis.prod]\nproduct = \"kubernetes\"\n\
             admin_url = \"https://gis.example.com/x/admin\"\nusername = \"rotator\"\npassword = {{ file = \"/p\" }}\n{}{}",
            service("a", of_a),
            service("b", "")
        );
        Policy::parse(text, "policy.toml", &Environment::default()).unwrap_or_else(|report| panic!("{report}"))
    }

    fn holder(id: &str, end: Option<&str>) -> FoundHolder {
        FoundHolder {
            name: TargetName::new(format!("arcgis:prod:{id}")),
            what: format!("cloud service {id}"),
            credential: "ACCESS-KEY".to_owned(),
            reading: end.map_or(Reading::Hidden, |end| Reading::Tail(Tail::new(end))),
            inherits: None,
            unread: None,
        }
    }

    /// What the journal knows: the current key of a service and its end.
    fn known(service: &str, end: &str) -> (ServiceName, ServiceState) {
        let key = KeyId::new(format!("AKIA{}", service.to_uppercase()));
        let current = Current { key: key.clone(), created: Timestamp::UNIX_EPOCH, ours: true };
        let mut state = ServiceState { current: Some(current), ..ServiceState::default() };
        state.tails.insert(key, Tail::new(end));
        (ServiceName::new(service), state)
    }

    fn said(policy: &Policy, found: &[FoundHolder], states: &BTreeMap<ServiceName, ServiceState>) -> Vec<String> {
        let at = SystemRef { table: "arcgis".to_owned(), name: "prod".to_owned() };
        told(&at, found, policy, states).into_iter().map(|finding| finding.said).collect()
    }

    #[test]
    fn a_copy_is_told_by_the_journals_end_and_by_the_targets_own() {
        let found = [holder("a1", Some("AAAA")), holder("b1", Some("BBBB")), holder("x", Some("AAAA"))];
        let by_target = said(&policy(""), &found, &BTreeMap::new());
        assert_eq!(by_target.len(), 1);
        assert!(
            by_target[0].starts_with("cloud service x holds the key of arcgis:prod:a1, a target of service a, too")
        );
        let by_journal = said(&policy(""), &found, &BTreeMap::from([known("a", "AAAA")]));
        assert!(by_journal[0].contains("holds current key AKIAA of service a too"), "{by_journal:?}");
        let other = [holder("a1", Some("AAAA")), holder("b1", Some("BBBB")), holder("x", Some("CCCC"))];
        assert_eq!(said(&policy(""), &other, &BTreeMap::new()), Vec::<String>::new(), "another key is nobody's affair");
    }

    #[test]
    fn one_service_accepts_for_itself_alone() {
        let found = [holder("a1", Some("AAAA")), holder("b1", Some("BBBB")), holder("x", Some("BBBB"))];
        let accepts = policy("accept_holders = [\"arcgis:prod:x\"]");
        assert!(
            said(&accepts, &found, &BTreeMap::new())[0].contains("a target of service b"),
            "a accepted it, and it is b's key"
        );
        let found = [holder("a1", Some("AAAA")), holder("b1", Some("BBBB")), holder("x", Some("AAAA"))];
        assert!(said(&accepts, &found, &BTreeMap::new()).is_empty());
        assert_eq!(covered(&found, &accepts)[2].cover, Cover::Accepted);
    }

    #[test]
    fn a_target_of_one_service_that_holds_anothers_key_is_told() {
        let found = [holder("a1", Some("AAAA")), holder("b1", Some("AAAA"))];
        let states = BTreeMap::from([known("a", "AAAA"), known("b", "BBBB")]);
        let said = said(&policy(""), &found, &states);
        assert!(
            said.iter().any(|said| said.starts_with("cloud service b1 holds current key AKIAA of service a too")),
            "{said:?}"
        );
    }

    #[test]
    fn what_cannot_be_compared_is_told_as_that() {
        let hidden = [holder("a1", Some("AAAA")), holder("b1", Some("BBBB")), holder("x", None)];
        assert!(said(&policy(""), &hidden, &BTreeMap::new())[0].contains("shows nothing of its key"));
        let unknown = [holder("a1", Some("AAAA")), holder("b1", None), holder("x", Some("CCCC"))];
        let said = said(&policy(""), &unknown, &BTreeMap::new());
        assert_eq!(
            said,
            ["cloud service x is no target, and cannot be compared: nothing shows the end of the key of b"]
        );
    }
}
