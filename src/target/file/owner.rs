//! Whose the file is to be: `user:group`, `user` or `:group`, by name or number.
//!
//! Names are looked up in /etc/passwd and /etc/group; one that only a directory service knows is written as its number.

use std::fs;

/// Numbers; `None` leaves it as it comes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) user: Option<u32>,
    pub(super) group: Option<u32>,
}

/// The two names in an owner, as they may be written.
pub(super) fn parts(text: &str) -> Option<(Option<&str>, Option<&str>)> {
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group)),
        None => (text, None),
    };
    let is_name = |name: &str| {
        !name.is_empty()
            && name.len() <= 64
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.@$".contains(&byte))
            && !name.starts_with('-')
    };
    let is_sound = match (user, group) {
        (user, None) => is_name(user),
        ("", Some(group)) => is_name(group),
        (user, Some(group)) => is_name(user) && is_name(group),
    };
    is_sound.then_some((Some(user).filter(|user| !user.is_empty()), group))
}

/// The numbers of an owner on this machine.
///
/// # Errors
/// Which name is unknown.
pub(super) fn resolve(text: Option<&str>) -> Result<Owner, String> {
    let Some(text) = text else { return Ok(Owner::default()) };
    let (user, group) = parts(text).ok_or_else(|| format!("`{text}` is no owner"))?;
    let user = user.map(|name| number("user", name, "/etc/passwd")).transpose()?;
    let group = group.map(|name| number("group", name, "/etc/group")).transpose()?;
    Ok(Owner { user, group })
}

/// `user:group` by name, as far as this machine knows their names.
pub(super) fn named(user: u32, group: u32) -> String {
    let name = |list: &str, number: u32| {
        let text = fs::read_to_string(list).unwrap_or_default();
        name_of(&text, number).map_or_else(|| number.to_string(), str::to_owned)
    };
    format!("{}:{}", name("/etc/passwd", user), name("/etc/group", group))
}

fn name_of(list: &str, number: u32) -> Option<&str> {
    let mut lines = list.lines().map(|line| line.split(':'));
    lines.find_map(|mut parts| {
        let name = parts.next()?;
        (parts.nth(1)?.parse() == Ok(number)).then_some(name)
    })
}

fn number(what: &str, name: &str, list: &str) -> Result<u32, String> {
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    let text = fs::read_to_string(list).map_err(|error| format!("reading {list}: {error}"))?;
    numbered(&text, name).ok_or_else(|| format!("there is no {what} `{name}` in {list}; make it, or write its number"))
}

/// `name:x:NUMBER:…`, the form both lists have.
fn numbered(list: &str, name: &str) -> Option<u32> {
    let line = list.lines().find(|line| line.split(':').next() == Some(name))?;
    line.split(':').nth(2)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_has_one_part_or_two() {
        assert_eq!(parts("gis:web"), Some((Some("gis"), Some("web"))));
        assert_eq!(parts("gis"), Some((Some("gis"), None)));
        assert_eq!(parts(":web"), Some((None, Some("web"))));
        assert_eq!(parts("1000:1001"), Some((Some("1000"), Some("1001"))));
        for bad in ["", ":", "gis:", "a b", "a:b:c", "-x", "a/b"] {
            assert_eq!(parts(bad), None, "{bad}");
        }
    }

    #[test]
    fn names_are_looked_up_and_numbers_are_not() {
        assert_eq!(resolve(None), Ok(Owner::default()));
        assert_eq!(resolve(Some("root:4711")), Ok(Owner { user: Some(0), group: Some(4711) }));
        let why = resolve(Some("no-such-user")).expect_err("nobody is called so");
        assert_eq!(why, "there is no user `no-such-user` in /etc/passwd; make it, or write its number");
        assert_eq!(numbered("a:x:1:2::\nab:x:3:4::\n", "ab"), Some(3));
        assert_eq!(numbered("ab:x\n", "ab"), None);
        assert_eq!(name_of("a:x:1:2::\nbroken\nab:x:3:4::\n", 3), Some("ab"));
        assert_eq!(named(0, 4_000_000_000), "root:4000000000");
    }
}
