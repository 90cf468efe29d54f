//! Services without keys of their own (`from`): their targets are put under the service whose keys they are derived from, so that
//! one rotation moves them all.

use chrono_tz::Tz;

use super::service::{Draft, Follows, tell_what_comes};
use super::systems::{Found, Systems};
use super::{Follower, Kinds};
use crate::model::{ServiceName, SystemSpec};
use crate::table::{Document, did_you_mean};

/// Puts every follower under the service it names. What stands in its way goes into the report.
pub(super) fn join(document: &Document<'_>, drafts: &mut [Draft], systems: &Systems, kinds: Kinds<'_>, zone: Tz) {
    for at in 0..drafts.len() {
        let Some(draft) = drafts.get_mut(at) else { continue };
        let Some(mut follows) = draft.follows.take() else { continue };
        let name = draft.name.as_ref().map(|(name, _)| name.clone());
        if let Some(root) = root_of(document, drafts, at, &follows)
            && let Some(root) = drafts.get_mut(root)
        {
            put_under(document, root, name, &mut follows, systems, kinds, zone);
        }
        if let Some(draft) = drafts.get_mut(at) {
            draft.follows = Some(follows);
        }
    }
}

/// Where the service stands that is followed; `None` where that is a mistake.
fn root_of(document: &Document<'_>, drafts: &[Draft], own: usize, follows: &Follows) -> Option<usize> {
    let (root, spot) = &follows.root;
    let is_named = |draft: &Draft| draft.name.as_ref().is_some_and(|(name, _)| name.as_str() == root);
    let Some(at) = drafts.iter().position(is_named) else {
        let names = drafts.iter().filter(|draft| draft.follows.is_none()).filter_map(|draft| draft.name.as_ref());
        let near = did_you_mean(root, names.map(|(name, _)| name.as_str()));
        let help = near.map_or_else(
            || "name the service that rotates the key".to_owned(),
            |near| format!("did you mean `{near}`?"),
        );
        // It may stand in a part of the file that does not parse.
        if !document.is_partial() {
            document.mistake_at(spot, format!("there is no service `{root}`"), help);
        }
        return None;
    };
    if at == own {
        document.mistake_at(spot, format!("`{root}` names itself"), "name the service that rotates the key");
        return None;
    }
    match drafts.get(at).and_then(|draft| draft.follows.as_ref()) {
        Some(further) => {
            let what = format!("`{root}` has no keys of its own");
            document.mistake_at(
                spot,
                what,
                format!("follow the service that it follows: from = \"{}\"", further.root.0),
            );
            None
        }
        None => Some(at),
    }
}

fn put_under(
    document: &Document<'_>,
    root: &mut Draft,
    name: Option<ServiceName>,
    follows: &mut Follows,
    systems: &Systems,
    kinds: Kinds<'_>,
    zone: Tz,
) {
    // Whatever has a mistake is reported where it stands.
    let (Some(service), Some(name), Some(derivation), Some(mut targets)) =
        (&mut root.service, name, follows.derivation.take(), follows.targets.take())
    else {
        return;
    };
    let at = service.issuer.system.as_ref();
    if let Some((account, spot)) = &follows.account
        && at.is_none_or(|at| at.name != *account)
    {
        let what = format!("the keys are those of `{}`, which are in another account than `{account}`", service.name);
        document.mistake_at(spot, what, "remove `account`");
        return;
    }
    let found: Option<&SystemSpec> = at.and_then(|at| match systems.find(&at.table, &at.name) {
        Found::Spec(spec) => Some(spec),
        Found::Broken | Found::Missing(_) => None,
    });
    let Some(kind) = kinds.issuers.iter().find(|kind| kind.name == follows.kind) else { return };
    let Some(by) = &kind.derivation else { return };
    let issuer = match (by.over)(derivation, &service.issuer, found) {
        Ok(issuer) => issuer,
        Err(why) => {
            let what = format!("nothing can be derived from the keys of `{}`: {why}", service.name);
            document.mistake_at(&follows.root.1, what, "name a service with the key of a storage account (azure-key)");
            return;
        }
    };
    if let (Some(lifetime), Some(settled)) = ((kind.lifetime)(&issuer), &root.settled) {
        settled.check_validity(lifetime, &format!("`{name}`"), zone, &follows.head, document);
    }
    tell_what_comes(&issuer, &mut targets, kinds);
    let names = targets.iter().map(|target| target.name.clone()).collect();
    service.followers.push(Follower { name, issuer: issuer.object.clone(), targets: names });
    service.accept_holders.append(&mut follows.accept_holders);
    for target in &mut targets {
        target.derived_by = Some(Box::new(issuer.clone()));
    }
    service.targets.append(&mut targets);
}
