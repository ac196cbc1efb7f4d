//! Where two texts differ.

/// How many characters of a line are shown before and after the difference.
const BEFORE: usize = 40;
const AFTER: usize = 80;

/// The first line in which two texts differ, with the line before it; `None` if the texts are equal.
pub(super) fn first_difference(recorded: &str, asked: &str) -> Option<String> {
    if recorded == asked {
        return None;
    }
    let (mut left, mut right) = (recorded.split('\n'), asked.split('\n'));
    let mut before = None;
    for line in 1.. {
        match (left.next(), right.next()) {
            (Some(a), Some(b)) if a == b => before = Some(a),
            (None, None) => break,
            (a, b) => return Some(excerpt(line, before, a, b)),
        }
    }
    None
}

/// How many bytes two texts have in common at their beginning and end.
pub(super) fn common(a: &str, b: &str) -> usize {
    let prefix = a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count();
    let rest = a.len().min(b.len()) - prefix;
    let suffix = a
        .bytes()
        .rev()
        .zip(b.bytes().rev())
        .take(rest)
        .take_while(|(a, b)| a == b)
        .count();
    prefix + suffix
}

fn excerpt(line: usize, before: Option<&str>, recorded: Option<&str>, asked: Option<&str>) -> String {
    let characters = recorded
        .unwrap_or_default()
        .chars()
        .zip(asked.unwrap_or_default().chars());
    let column = characters.take_while(|(a, b)| a == b).count();
    let shown = |text: Option<&str>| text.map_or_else(|| "(ends here)".to_owned(), |text| window(text, column));
    let mut lines = vec![format!("    @@ line {line}, character {} @@", column + 1)];
    lines.extend(before.map(|before| format!("      {}", window(before, 0))));
    lines.push(format!("    - {}", shown(recorded)));
    lines.push(format!("    + {}", shown(asked)));
    lines.push("    (- as recorded, + as asked)".to_owned());
    lines.join("\n")
}

/// The part of a line around a character.
fn window(line: &str, column: usize) -> String {
    let start = column.saturating_sub(BEFORE);
    let mut rest = line.chars().skip(start);
    let part: String = rest.by_ref().take(BEFORE + AFTER).collect();
    let (head, tail) = (
        if start > 0 { "..." } else { "" },
        if rest.next().is_some() { "..." } else { "" },
    );
    format!("{head}{part}{tail}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_difference_is_shown() {
        assert_eq!(first_difference("a\nb", "a\nb"), None);
        let shown = first_difference("a\nbcd\ne", "a\nbxd\ne").unwrap();
        let expected = "    @@ line 2, character 2 @@\n      a\n    - bcd\n    + bxd\n    (- as recorded, + as asked)";
        assert_eq!(shown, expected);
        let longer = first_difference("a", "a\nb").unwrap();
        assert!(longer.contains("- (ends here)\n    + b"), "{longer}");
    }

    #[test]
    fn of_long_lines_the_part_around_it_is_shown() {
        let long = |middle: &str| format!("{}{middle}{}", "ä".repeat(1000), "ö".repeat(1000));
        let shown = first_difference(&long("x"), &long("y")).unwrap();
        assert!(
            shown.contains("character 1001") && shown.contains("+ ...ää") && shown.contains("yö"),
            "{shown}"
        );
        assert!(shown.chars().count() < 400);
    }

    #[test]
    fn what_texts_have_in_common() {
        assert_eq!(common("abcd", "abxd"), 3);
        assert_eq!(common("aa", "aaa"), 2);
        assert_eq!(common("", "a"), 0);
    }
}
