//! Splits a template into tokens as Jinja2 does, whitespace control included.

use super::numbers::scan_number;
use super::strings::scan_string;
use super::token::{OPERATORS, Tok, Token};
use crate::template::TemplateError;
use crate::template::limits::MAX_CODE;

/// The tokens of `source`, ending with [`Tok::Eof`].
pub(crate) fn tokenize(source: &str) -> Result<Vec<Token>, TemplateError> {
    let mut lexer = Lexer {
        source,
        at: 0,
        line: 1,
        code: 0,
        tokens: Vec::new(),
    };
    lexer.run()?;
    Ok(lexer.tokens)
}

struct Lexer<'s> {
    source: &'s str,
    at: usize,
    line: usize,
    /// The bytes inside tags so far.
    code: usize,
    tokens: Vec<Token>,
}

#[derive(Clone, Copy, PartialEq)]
enum Opening {
    Print,
    Block,
    Comment,
}

impl<'s> Lexer<'s> {
    fn run(&mut self) -> Result<(), TemplateError> {
        while let Some((start, opening)) = self.next_opening() {
            let sign = self.source.as_bytes().get(start + 2).copied();
            let text = &self.source[self.at..start];
            let kept = if sign == Some(b'-') { text.trim_end() } else { text };
            self.data(kept, text);
            self.at = start + 2 + usize::from(matches!(sign, Some(b'-' | b'+')));
            match opening {
                Opening::Comment => self.comment()?,
                Opening::Block if self.raw_begin() => self.raw()?,
                Opening::Block => self.tag(Tok::BlockBegin, Tok::BlockEnd, "%}")?,
                Opening::Print => self.tag(Tok::PrintBegin, Tok::PrintEnd, "}}")?,
            }
        }
        let rest = &self.source[self.at..];
        self.data(rest, rest);
        self.push(Tok::Eof);
        Ok(())
    }

    fn rest(&self) -> &'s str {
        &self.source[self.at..]
    }

    fn push(&mut self, tok: Tok) {
        self.tokens.push(Token { tok, line: self.line });
    }

    fn advance(&mut self, bytes: usize) {
        let passed = &self.source[self.at..self.at + bytes];
        self.line += passed.bytes().filter(|byte| *byte == b'\n').count();
        self.at += bytes;
    }

    fn next_opening(&self) -> Option<(usize, Opening)> {
        let bytes = self.source.as_bytes();
        let mut at = self.at;
        while let Some(found) = self.source[at..].find('{') {
            at += found;
            match bytes.get(at + 1) {
                Some(b'{') => return Some((at, Opening::Print)),
                Some(b'%') => return Some((at, Opening::Block)),
                Some(b'#') => return Some((at, Opening::Comment)),
                _ => at += 1,
            }
        }
        None
    }

    /// Emits `kept`, and counts the lines of `text`, of which it is the part that is printed.
    fn data(&mut self, kept: &str, text: &str) {
        if !kept.is_empty() {
            self.push(Tok::Data(kept.to_owned()));
        }
        self.line += text.bytes().filter(|byte| *byte == b'\n').count();
    }

    fn comment(&mut self) -> Result<(), TemplateError> {
        let Some(end) = self.rest().find("#}") else {
            return Err(TemplateError::syntax("Missing end of comment tag", self.line));
        };
        let trims = self.rest()[..end].ends_with('-');
        self.advance(end + 2);
        if trims {
            self.skip_space();
        }
        Ok(())
    }

    fn skip_space(&mut self) {
        let rest = self.rest();
        self.advance(rest.len() - rest.trim_start().len());
    }

    /// Passes `raw %}` if that is what follows.
    fn raw_begin(&mut self) -> bool {
        let Some(after) = self.rest().trim_start().strip_prefix("raw") else {
            return false;
        };
        let after = after.trim_start();
        let (after, trims) = match after.strip_prefix("-%}") {
            Some(after) => (after, true),
            None => match after.strip_prefix("%}") {
                Some(after) => (after, false),
                None => return false,
            },
        };
        self.advance(self.rest().len() - after.len());
        if trims {
            self.skip_space();
        }
        true
    }

    fn raw(&mut self) -> Result<(), TemplateError> {
        let mut from = 0;
        while let Some(found) = self.rest()[from..].find("{%") {
            let start = from + found;
            if let Some((length, trims_before, trims_after)) = raw_end(&self.rest()[start..]) {
                let text = &self.rest()[..start];
                let kept = if trims_before { text.trim_end() } else { text };
                self.data(kept, text);
                self.at += start;
                self.advance(length);
                if trims_after {
                    self.skip_space();
                }
                return Ok(());
            }
            from = start + 2;
        }
        Err(TemplateError::syntax("Missing end of raw directive", self.line))
    }

    fn tag(&mut self, begin: Tok, end: Tok, closing: &str) -> Result<(), TemplateError> {
        let started = self.at;
        self.push(begin);
        let mut open = Vec::new();
        loop {
            if self.code + (self.at - started) > MAX_CODE {
                let message = format!("the code inside the tags is longer than {MAX_CODE} bytes");
                return Err(TemplateError::limit(message, Some(self.line)));
            }
            let rest = self.rest();
            let space = rest.len() - rest.trim_start().len();
            // A '-' before the closing belongs to the tag, unless a bracket is still open.
            let rest = rest.trim_start();
            if open.is_empty() {
                let signed = rest.strip_prefix('-').or_else(|| rest.strip_prefix('+').filter(|_| closing == "%}"));
                if let Some(length) = [Some(rest), signed]
                    .into_iter()
                    .flatten()
                    .find_map(|r| r.starts_with(closing).then(|| rest.len() - r.len() + closing.len()))
                {
                    self.advance(space);
                    self.push(end);
                    self.code += self.at - started;
                    self.advance(length);
                    if length > closing.len() && rest.starts_with('-') {
                        self.skip_space();
                    }
                    return Ok(());
                }
            }
            self.advance(space);
            if rest.is_empty() {
                return Ok(());
            }
            self.token(rest, &mut open)?;
        }
    }

    fn token(&mut self, rest: &'s str, open: &mut Vec<char>) -> Result<(), TemplateError> {
        let first = rest.chars().next().unwrap_or(' ');
        let after_dot = matches!(self.tokens.last(), Some(Token { tok: Tok::Op("."), .. })) && self.source[..self.at].ends_with('.');
        let (tok, length) = if first == '\'' || first == '"' {
            let (text, length) = scan_string(rest, self.line)?;
            (Tok::Str(text), length)
        } else if first.is_ascii_digit() {
            scan_number(rest, after_dot, self.line)?
        } else if first == '_' || first.is_alphanumeric() {
            let length = rest.find(|c: char| c != '_' && !c.is_alphanumeric()).unwrap_or(rest.len());
            (Tok::Name(rest[..length].to_owned()), length)
        } else if let Some(op) = OPERATORS.iter().find(|op| rest.starts_with(**op)) {
            self.balance(first, open)?;
            (Tok::Op(op), op.len())
        } else {
            return Err(TemplateError::syntax(format!("unexpected char '{first}'"), self.line));
        };
        self.push(tok);
        self.advance(length);
        Ok(())
    }

    fn balance(&self, op: char, open: &mut Vec<char>) -> Result<(), TemplateError> {
        match op {
            '(' => open.push(')'),
            '[' => open.push(']'),
            '{' => open.push('}'),
            ')' | ']' | '}' => match open.pop() {
                Some(expected) if expected == op => {}
                Some(expected) => {
                    return Err(TemplateError::syntax(format!("unexpected '{op}', expected '{expected}'"), self.line));
                }
                None => return Err(TemplateError::syntax(format!("unexpected '{op}'"), self.line)),
            },
            _ => {}
        }
        Ok(())
    }
}

/// The length of an `{% endraw %}` at the start of `text`, and whether it trims what is before and after it.
fn raw_end(text: &str) -> Option<(usize, bool, bool)> {
    let inner = text.strip_prefix("{%")?;
    let trims_before = inner.starts_with('-');
    let inner = inner.strip_prefix(['-', '+']).unwrap_or(inner).trim_start().strip_prefix("endraw")?.trim_start();
    let trims_after = inner.starts_with("-%}");
    let after = inner.strip_prefix(['-', '+']).unwrap_or(inner).strip_prefix("%}")?;
    Some((text.len() - after.len(), trims_before, trims_after))
}
