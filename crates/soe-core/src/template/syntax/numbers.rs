//! Number literals.

use super::token::Tok;
use crate::template::TemplateError;

/// The number at the start of `text`, and its length. Directly after a dot (`a.0.1`) there are integers only.
pub(crate) fn scan_number(text: &str, after_dot: bool, line: usize) -> Result<(Tok, usize), TemplateError> {
    if !after_dot && let Some(length) = float_length(text) {
        let digits = text[..length].replace('_', "");
        let value = digits.parse().map_err(|_| TemplateError::syntax(format!("bad number '{digits}'"), line))?;
        return Ok((Tok::Float(value), length));
    }
    let (radix, prefix, length) = integer_length(text);
    let digits = text[prefix..length].replace('_', "");
    let value = i128::from_str_radix(&digits, radix)
        .map_err(|_| TemplateError::limit("the integer has more than 128 bits", Some(line)))?;
    Ok((Tok::Int(value), length))
}

fn float_length(text: &str) -> Option<usize> {
    let whole = grouped(text, char::is_ascii_digit)?;
    let fraction = text[whole..].strip_prefix('.').and_then(|rest| grouped(rest, char::is_ascii_digit));
    let mantissa = whole + fraction.map_or(0, |length| length + 1);
    match exponent(&text[mantissa..]) {
        Some(length) => Some(mantissa + length),
        None => fraction.map(|_| mantissa),
    }
}

fn exponent(text: &str) -> Option<usize> {
    let rest = text.strip_prefix(['e', 'E'])?;
    let digits = rest.strip_prefix(['+', '-']).unwrap_or(rest);
    Some(1 + rest.len() - digits.len() + grouped(digits, char::is_ascii_digit)?)
}

fn integer_length(text: &str) -> (u32, usize, usize) {
    for (low, high, radix) in [("0b", "0B", 2), ("0o", "0O", 8), ("0x", "0X", 16)] {
        if let Some(rest) = text.strip_prefix(low).or_else(|| text.strip_prefix(high)) {
            let skipped = usize::from(rest.starts_with('_'));
            if let Some(length) = grouped(&rest[skipped..], |c| c.is_digit(radix)) {
                return (radix, 2 + skipped, 2 + skipped + length);
            }
        }
    }
    let length = if text.starts_with('0') {
        grouped(text, |c| *c == '0')
    } else {
        grouped(text, char::is_ascii_digit)
    };
    (10, 0, length.unwrap_or(1))
}

/// The length of the digits at the start of `text`, single underscores between them included.
fn grouped(text: &str, is_digit: impl Fn(&char) -> bool) -> Option<usize> {
    let mut length = 0;
    let mut underscore = true;
    for c in text.chars() {
        if is_digit(&c) {
            underscore = false;
            length += c.len_utf8();
        } else if c == '_' && !underscore {
            underscore = true;
            length += 1;
        } else {
            break;
        }
    }
    let length = if underscore && length > 0 { length - 1 } else { length };
    (length > 0).then_some(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_jinja_reads_them() {
        let scan = |text| scan_number(text, false, 1).unwrap();
        assert_eq!(scan("1_000 "), (Tok::Int(1000), 5));
        assert_eq!(scan("0xFf"), (Tok::Int(255), 4));
        assert_eq!(scan("1__0"), (Tok::Int(1), 1));
        assert_eq!(scan("007"), (Tok::Int(0), 2));
        assert_eq!(scan("1.5e-3x"), (Tok::Float(1.5e-3), 6));
        assert_eq!(scan("1.e"), (Tok::Int(1), 1));
        assert_eq!(scan_number("1.5", true, 1).unwrap(), (Tok::Int(1), 1));
        assert!(scan_number(&"9".repeat(50), false, 1).is_err());
    }
}
