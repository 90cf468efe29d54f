//! What somebody may have meant by a misspelt word.

/// The help for a word that is not known: the nearest known one, or else the whole list after `intro`.
pub(super) fn suggestion<'k>(word: &str, known: impl Iterator<Item = &'k str> + Clone, intro: &str) -> String {
    if let Some(near) = nearest(word, known.clone()) {
        return format!("did you mean `{near}`?");
    }
    let list: Vec<String> = known.map(|name| format!("`{name}`")).collect();
    if list.is_empty() { "remove it; nothing is known here".into() } else { format!("{intro} {}", list.join(", ")) }
}

/// The known word a misspelt one is near to, if one is near enough.
pub(super) fn nearest<'k>(word: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    let word = normal(word);
    known
        .map(|name| (normal(name), name))
        .map(|(normal, name)| (distance(&word, &normal), begins(&word, &normal), name))
        .filter(|(distance, begins, name)| {
            *begins || *distance <= tolerance(name.chars().count().max(word.chars().count()))
        })
        .map(|(distance, _, name)| (distance, name))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// Mistakes a word of this length may hold: more would find a neighbour for everything.
fn tolerance(length: usize) -> usize {
    match length {
        0..=3 => 1,
        4..=7 => 2,
        _ => 3,
    }
}

/// `user` for `username`, `timeout_seconds` for `timeout`.
fn begins(a: &str, b: &str) -> bool {
    a.len().min(b.len()) >= 4 && (a.starts_with(b) || b.starts_with(a))
}

/// Case, `-` and `_` are not what two words differ in.
fn normal(word: &str) -> String {
    word.chars().filter(|c| !matches!(c, '-' | '_' | ' ' | '.')).flat_map(char::to_lowercase).take(64).collect()
}

/// How many letters must be put in, left out, changed or swapped with their neighbour.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let changed = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = changed.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [&str; 5] = ["every", "cron", "max_age", "soak", "access_key_id"];

    #[test]
    fn a_slip_of_the_finger_finds_its_word() {
        for (slip, word) in [
            ("evry", "every"),
            ("eveyr", "every"),
            ("max-age", "max_age"),
            ("maxAge", "max_age"),
            ("accessKeyId", "access_key_id"),
        ] {
            assert_eq!(nearest(slip, KNOWN.into_iter()), Some(word), "{slip}");
        }
    }

    #[test]
    fn another_word_finds_none_and_gets_the_list() {
        assert_eq!(nearest("colour", KNOWN.into_iter()), None);
        assert_eq!(suggestion("colour", ["b", "a"].into_iter(), "keys known here are"), "keys known here are `b`, `a`");
    }
}
