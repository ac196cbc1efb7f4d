//! Secrets in texts, however they are written there.

use std::fmt;
use std::ops::Range;

/// What stands in the place of a secret.
const HIDDEN: &str = "[hidden]";

/// Takes a secret out of texts, also where it is percent-encoded, as in URLs, or escaped, as in JSON, or partly so.
///
/// ```
/// use soe_llm_openai::Redactor;
///
/// let redactor = Redactor::new("sk/very+secret");
/// assert_eq!(redactor.hide("?key=sk%2Fvery%2bsecret"), "?key=[hidden]");
/// assert_eq!(redactor.hide(r#"{"key": "sk\/very\u002Bsecret"}"#), r#"{"key": "[hidden]"}"#);
/// ```
#[derive(Clone)]
pub struct Redactor(Box<str>);

/// What was found of the secret at some place.
enum Found {
    /// All of it, which ends here.
    Whole(usize),
    /// The text ends within it.
    Begun,
    Nothing,
}

impl Redactor {
    /// A redactor of this secret. An empty one is found nowhere.
    pub fn new(secret: impl Into<Box<str>>) -> Self {
        Self(secret.into())
    }

    /// The text with `[hidden]` wherever it has the secret.
    pub fn hide(&self, text: &str) -> String {
        let mut rest = text.to_owned();
        let mut shown = self.hide_so_far(&mut rest);
        // What could have become the secret has not, but may still hide one.
        while let Some(first) = rest.chars().next() {
            shown.push(first);
            rest.drain(..first.len_utf8());
            shown.push_str(&self.hide_so_far(&mut rest));
        }
        shown
    }

    /// For a text that arrives in pieces: takes out of `held` what can be shown, without the secret, and leaves an end with
    /// which the secret may begin.
    pub fn hide_so_far(&self, held: &mut String) -> String {
        let mut shown = String::new();
        while let Some(Range { start, end }) = self.find(held) {
            shown.push_str(&held[..start]);
            if start == end {
                held.drain(..start);
                return shown;
            }
            shown.push_str(HIDDEN);
            held.drain(..end);
        }
        shown.push_str(&std::mem::take(held));
        shown
    }

    /// Where the secret is; an empty range is where it may begin.
    fn find(&self, text: &str) -> Option<Range<usize>> {
        if self.0.is_empty() {
            return None;
        }
        text.char_indices()
            .find_map(|(start, _)| match self.at(text.as_bytes(), start) {
                Found::Whole(end) => Some(start..end),
                Found::Begun => Some(start..start),
                Found::Nothing => None,
            })
    }

    /// Whether the secret is at this place. One byte of it can be written in several ways, so there can be several places
    /// where the next one is.
    fn at(&self, text: &[u8], start: usize) -> Found {
        let mut places = vec![start];
        let mut begun = false;
        for &byte in self.0.as_bytes() {
            let mut next = Vec::new();
            for &place in &places {
                let rest = &text[place..];
                if rest.first() == Some(&byte) {
                    next.push(place + 1);
                }
                match escaped(rest, byte) {
                    Found::Whole(length) => next.push(place + length),
                    Found::Begun => begun = true,
                    Found::Nothing => {}
                }
            }
            if next.is_empty() {
                return if begun { Found::Begun } else { Found::Nothing };
            }
            next.sort_unstable();
            next.dedup();
            places = next;
        }
        places.into_iter().max().map_or(Found::Nothing, Found::Whole)
    }
}

/// Whether the text begins with the byte as `%41`, `\u0041`, or behind a backslash.
fn escaped(text: &[u8], byte: u8) -> Found {
    let digits = [b'0', b'0', digit(byte >> 4), digit(byte & 15)];
    match text {
        [] | [b'\\'] => Found::Begun,
        [b'%', code @ ..] => longer(code, &digits[2..], 1),
        [b'\\', b'u', code @ ..] if byte.is_ascii() => longer(code, &digits, 2),
        [b'\\', next, ..] if *next == byte && matches!(byte, b'"' | b'\\' | b'/') => Found::Whole(2),
        _ => Found::Nothing,
    }
}

/// Whether the text begins with these digits, which stand behind something of that length.
fn longer(text: &[u8], digits: &[u8], before: usize) -> Found {
    let common = text.len().min(digits.len());
    match text[..common].eq_ignore_ascii_case(&digits[..common]) {
        true if common == digits.len() => Found::Whole(before + common),
        true => Found::Begun,
        false => Found::Nothing,
    }
}

fn digit(half: u8) -> u8 {
    if half < 10 { b'0' + half } else { b'a' + half - 10 }
}

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Redactor(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = r#"sk-a/b+c"d\e%f&g"#;

    #[test]
    fn every_spelling_is_found() {
        let redactor = Redactor::new(SECRET);
        for spelling in [
            SECRET,
            "sk-a%2Fb%2Bc%22d%5Ce%25f%26g",
            "sk-a/b%2bc%22d%5ce%25f%26g",
            "%73%6b%2D%61%2F%62%2B%63%22%64%5C%65%25%66%26%67",
            r#"sk-a/b+c\"d\\e%f&g"#,
            r#"sk-a\/b\u002Bc\"d\\e%f\u0026g"#,
            r#"\u0073k-a\/b+c\u0022d\u005ce%f\u0026g"#,
        ] {
            let text = format!("größer {spelling}, and {spelling}{spelling} sk-a");
            assert_eq!(redactor.hide(&text), "größer [hidden], and [hidden][hidden] sk-a");
            let chars: Vec<char> = text.chars().collect();
            for size in 1..40 {
                let (mut held, mut shown) = (String::new(), String::new());
                for piece in chars.chunks(size) {
                    held.extend(piece);
                    shown.push_str(&redactor.hide_so_far(&mut held));
                }
                assert_eq!(shown + &held, "größer [hidden], and [hidden][hidden] sk-a");
            }
        }
    }

    #[test]
    fn other_texts_stay_as_they_are() {
        for secret in [SECRET, "größe", "\\\\", ""] {
            let redactor = Redactor::new(secret);
            for text in [
                "", "sk-a", "100 ", "C:/", "sk-a%2", "größ", "gr%C3%B", r"a\u00", "sk-a%2Gb",
            ] {
                assert_eq!(redactor.hide(text), text, "{secret}");
            }
        }
        assert_eq!(Redactor::new("größe").hide("die gr%C3%B6%c3%9Fe"), "die [hidden]");
        // What begins like the secret may end with it.
        assert_eq!(Redactor::new("%22%").hide("%%22%"), "%[hidden]");
        assert_eq!(Redactor::new("secret").hide("ssecret"), "s[hidden]");
        assert_eq!(format!("{:?}", Redactor::new("secret")), "Redactor(hidden)");
    }
}
