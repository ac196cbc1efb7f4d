//! Names that are probably meant to be other names.

/// Names of more characters than this are not compared: it would cost more than it tells.
const MAX_COMPARED: usize = 64;

/// The candidate that `name` is probably meant to be: one slip away, or two in a long name.
pub(crate) fn closest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .into_iter()
        .filter(|candidate| *candidate != name)
        .filter_map(|candidate| Some((slips(name, candidate)?, candidate)))
        .filter(|(slips, candidate)| *slips <= tolerance(candidate))
        .min_by_key(|(slips, _)| *slips)
        .map(|(_, candidate)| candidate)
}

/// Whether `name` is probably meant to be `other`.
pub(crate) fn looks_like(name: &str, other: &str) -> bool {
    closest(name, [other]).is_some()
}

/// The signal that `name` is probably meant to be.
///
/// Stricter than [`closest`], since families of signals differ by little on purpose (`A_DONE` and `B_DONE`, `STEP_1` and
/// `STEP_2`): the same letters in another case or with other separators, or one slip in one word of at least five letters.
pub(crate) fn similar_signals<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .into_iter()
        .find(|candidate| *candidate != name && is_similar_signal(name, candidate))
}

fn is_similar_signal(a: &str, b: &str) -> bool {
    if is_too_long(a) || is_too_long(b) {
        return false;
    }
    let separated = |c: char| !c.is_alphanumeric();
    let bare = |text: &str| -> String {
        text.chars()
            .filter(|c| !separated(*c))
            .flat_map(char::to_lowercase)
            .collect()
    };
    if bare(a) == bare(b) {
        return true;
    }
    let (a, b): (Vec<_>, Vec<_>) = (a.split(separated).collect(), b.split(separated).collect());
    if a.len() != b.len() {
        return false;
    }
    let mut differing = a.iter().zip(&b).filter(|(a, b)| a != b);
    let (Some((a, b)), None) = (differing.next(), differing.next()) else {
        return false;
    };
    let digits = |text: &str| -> String { text.chars().filter(char::is_ascii_digit).collect() };
    a.len().min(b.len()) >= 5 && digits(a) == digits(b) && slips(a, b) == Some(1)
}

/// Whether two names have the same letters in another order: a slip also in short names.
pub(crate) fn is_anagram(a: &str, b: &str) -> bool {
    let sorted = |name: &str| -> Vec<char> {
        let mut letters: Vec<char> = name.chars().collect();
        letters.sort_unstable();
        letters
    };
    a != b && a.len() == b.len() && !is_too_long(a) && sorted(a) == sorted(b)
}

/// Whether a name can be told to be too long without counting its characters, each of which has at most four bytes.
fn is_too_long(name: &str) -> bool {
    name.len() > 4 * MAX_COMPARED
}

fn tolerance(name: &str) -> usize {
    match name.chars().count() {
        0..=3 => 0,
        4..=7 => 1,
        _ => 2,
    }
}

/// How many letters were added, dropped, changed, or swapped with their neighbour; `None` if the names are too long or
/// too different in length to tell.
fn slips(a: &str, b: &str) -> Option<usize> {
    if is_too_long(a) || is_too_long(b) || a.len().abs_diff(b.len()) > 8 {
        return None;
    }
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    if a.len().max(b.len()) > MAX_COMPARED || a.len().abs_diff(b.len()) > 2 {
        return None;
    }
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 0..a.len() {
        let mut row = vec![i + 1];
        for j in 0..b.len() {
            let changed = last[j] + usize::from(a[i] != b[j]);
            let mut cost = changed.min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && a[i] == b[j - 1] && a[i - 1] == b[j] {
                cost = cost.min(before[j - 1] + 1);
            }
            row.push(cost);
        }
        before = std::mem::replace(&mut last, row);
    }
    last.last().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_of_the_pen() {
        assert_eq!(closest("conditon", ["signal_name", "condition"]), Some("condition"));
        assert_eq!(closest("even_trigers", ["event_triggers"]), Some("event_triggers"));
        assert_eq!(closest("routerr", ["router", "llm"]), Some("router"));
        assert_eq!(closest("model", ["tools", "prompt"]), None);
        assert_eq!(closest("tool", ["tools"]), Some("tools"));
    }

    #[test]
    fn families_of_signals_are_no_mistakes() {
        assert_eq!(similar_signals("A_DONE", ["B_DONE"]), None);
        assert_eq!(similar_signals("STEP_1", ["STEP_2"]), None);
        assert_eq!(similar_signals("WORKER1_DONE", ["WORKER2_DONE"]), None);
        assert_eq!(similar_signals("PASS", ["FAIL", "PAST"]), None);
        assert_eq!(similar_signals("Done", ["DONE"]), Some("DONE"));
        assert_eq!(similar_signals("TASKDONE", ["TASK_DONE"]), Some("TASK_DONE"));
        assert_eq!(similar_signals("VALIDTED_OK", ["VALIDATED_OK"]), Some("VALIDATED_OK"));
    }
}
