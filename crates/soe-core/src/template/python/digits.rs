//! Numbers in texts, as `int()` and `float()` read them.

/// White space as `str.strip` sees it.
pub(crate) fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}

/// The digit that `c` is, in any script that commonly writes numbers.
pub(crate) fn decimal_digit(c: char) -> Option<u32> {
    const ZEROS: [u32; 17] = [
        0x660, 0x6f0, 0x7c0, 0x966, 0x9e6, 0xa66, 0xae6, 0xb66, 0xbe6, 0xc66, 0xce6, 0xd66, 0xe50, 0xed0, 0xf20, 0x1040, 0xff10,
    ];
    c.to_digit(10).or_else(|| {
        let code = u32::from(c);
        ZEROS.iter().find(|zero| (**zero..**zero + 10).contains(&code)).map(|zero| code - zero)
    })
}

/// `int(text, base)`, `None` if it isn't an integer.
pub(crate) fn parse_int(text: &str, base: u32) -> Option<i128> {
    let trimmed = text.trim_matches(is_space);
    let (negative, digits) = match trimmed.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, trimmed.strip_prefix('+').unwrap_or(trimmed)),
    };
    let lower = digits.to_lowercase();
    let (base, body) = without_prefix(&lower, base);
    if body.is_empty() || body.starts_with('_') || body.ends_with('_') || body.contains("__") {
        return None;
    }
    let mut value = 0i128;
    for c in body.chars().filter(|c| *c != '_') {
        let digit = c.to_digit(base).or_else(|| decimal_digit(c).filter(|digit| *digit < base))?;
        value = value.checked_mul(i128::from(base))?.checked_add(i128::from(digit))?;
    }
    Some(if negative { -value } else { value })
}

fn without_prefix(digits: &str, base: u32) -> (u32, &str) {
    for (prefix, radix) in [("0x", 16), ("0o", 8), ("0b", 2)] {
        if (base == radix || base == 0)
            && let Some(rest) = digits.strip_prefix(prefix)
        {
            return (radix, rest.strip_prefix('_').unwrap_or(rest));
        }
    }
    (if (2..=36).contains(&base) { base } else { 10 }, digits)
}

/// `float(text)`, `None` if it isn't a number.
pub(crate) fn parse_float(text: &str) -> Option<f64> {
    let trimmed = text.trim_matches(is_space);
    if !trimmed.contains('_') {
        return trimmed.parse().ok();
    }
    let bytes = trimmed.as_bytes();
    let between_digits = |at: usize| {
        let is_digit = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_digit);
        is_digit(at.checked_sub(1).and_then(|before| bytes.get(before))) && is_digit(bytes.get(at + 1))
    };
    if !trimmed.match_indices('_').all(|(at, _)| between_digits(at)) {
        return None;
    }
    trimmed.replace('_', "").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_read_as_python_reads_them() {
        assert_eq!(parse_int(" +1_000 ", 10), Some(1000));
        assert_eq!(parse_int("0xff", 16), Some(255));
        assert_eq!(parse_int("-0b11", 0), Some(-3));
        assert_eq!(parse_int("\u{0663}", 10), Some(3));
        assert_eq!(parse_int("1__0", 10), None);
        assert_eq!(parse_int("0xff", 10), None);
        assert_eq!(parse_float(" 1_0.5 "), Some(10.5));
        assert_eq!(parse_float("1_"), None);
        assert_eq!(parse_float("abc"), None);
    }
}
