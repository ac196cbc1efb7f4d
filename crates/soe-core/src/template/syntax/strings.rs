//! String literals, with Python's escapes.

use crate::template::TemplateError;

/// The text of the string literal at the start of `source`, and the literal's length in bytes.
pub(crate) fn scan_string(source: &str, line: usize) -> Result<(String, usize), TemplateError> {
    let quote = source.chars().next().unwrap_or('"');
    let body = &source[1..];
    let mut escaped = false;
    for (at, c) in body.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return Ok((unescape(&body[..at], line)?, at + 2)),
            _ => {}
        }
    }
    Err(TemplateError::syntax(format!("unexpected char '{quote}': the string isn't closed"), line))
}

fn unescape(body: &str, line: usize) -> Result<String, TemplateError> {
    if !body.contains('\\') {
        return Ok(body.to_owned());
    }
    let mut text = String::with_capacity(body.len());
    let mut rest = body;
    while let Some(at) = rest.find('\\') {
        text.push_str(&rest[..at]);
        rest = escape(&rest[at + 1..], &mut text)
            .ok_or_else(|| TemplateError::syntax("the string has a bad escape", line))?;
    }
    text.push_str(rest);
    Ok(text)
}

/// Appends what the escape at the start of `rest` (after its backslash) stands for; gives what follows it.
fn escape<'s>(rest: &'s str, text: &mut String) -> Option<&'s str> {
    let first = rest.chars().next()?;
    let after = &rest[first.len_utf8()..];
    let simple = match first {
        'n' => '\n',
        't' => '\t',
        'r' => '\r',
        'a' => '\x07',
        'b' => '\x08',
        'f' => '\x0c',
        'v' => '\x0b',
        '\\' | '\'' | '"' => first,
        '\n' => return Some(after),
        'x' => return coded(after, 2, text),
        'u' => return coded(after, 4, text),
        'U' => return coded(after, 8, text),
        '0'..='7' => {
            let length = rest.bytes().take(3).take_while(|b| (b'0'..=b'7').contains(b)).count();
            text.push(char::from_u32(u32::from_str_radix(&rest[..length], 8).ok()?)?);
            return Some(&rest[length..]);
        }
        'N' => return None,
        _ => {
            text.push('\\');
            first
        }
    };
    text.push(simple);
    Some(after)
}

fn coded<'s>(rest: &'s str, length: usize, text: &mut String) -> Option<&'s str> {
    let digits = rest.get(..length).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()))?;
    let code = u32::from_str_radix(digits, 16).ok()?;
    // Half of a surrogate pair can't be text; Python would fail when the text is encoded.
    text.push(char::from_u32(code)?);
    Some(&rest[length..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_pythons() {
        let scan = |source| scan_string(source, 1).map(|(text, _)| text);
        assert_eq!(scan(r"'a\n\x41\u00e9\101\d\'' rest").unwrap(), "a\nA\u{e9}A\\d'");
        assert!(scan(r"'\x4'").is_err());
        assert!(scan("'open").is_err());
    }
}
