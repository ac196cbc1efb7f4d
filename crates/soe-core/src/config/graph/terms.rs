//! What a condition counts, as far as its text shows.
//!
//! Seen are `context.FIELD | accumulated | length` (also `history`, `count`, and `context['FIELD']`) beside `==`, or on the
//! larger side of another comparison, and `'SIGNAL' in context.__operational__.signals` if there are at least two of them:
//! one alone is a guard. Not seen is what goes through a variable (`{% set %}`), a macro or another filter.

use indexmap::IndexSet;

/// Something that a condition counts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Term {
    /// The values of a context field.
    Field(String),
    /// Whether a signal was broadcast.
    Signal(String),
}

/// Everything that the template `source` counts, each once, in order.
pub(super) fn counted_terms(source: &str) -> Vec<Term> {
    // Most conditions don't count: spare them the rest.
    if !source.contains("length") && !source.contains("count") && !source.contains("__operational__") {
        return Vec::new();
    }
    let tokens = tokens(source);
    let term = |start| counted_field(&tokens, start).or_else(|| tested_signal(&tokens[start..]));
    let mut terms: IndexSet<Term> = (0..tokens.len()).filter_map(term).collect();
    let signals = terms.iter().filter(|term| matches!(term, Term::Signal(_))).count();
    if signals < 2 {
        terms.retain(|term| matches!(term, Term::Field(_)));
    }
    terms.into_iter().collect()
}

/// Every signal that the template `source` asks for by name (`'SIGNAL' in context.__operational__.signals`), each once, in
/// order.
pub(super) fn asked_signals(source: &str) -> Vec<String> {
    if !source.contains("__operational__") {
        return Vec::new();
    }
    let tokens = tokens(source);
    let asked = |start: usize| match &tokens[start..] {
        [Text(signal), Word("in"), rest @ ..] | [Text(signal), Word("not"), Word("in"), rest @ ..]
            if begins_with_signals(rest) =>
        {
            Some(*signal)
        }
        _ => None,
    };
    let signals: IndexSet<&str> = (0..tokens.len()).filter_map(asked).collect();
    signals.into_iter().map(str::to_owned).collect()
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token<'s> {
    Word(&'s str),
    Text(&'s str),
    Symbol(&'s str),
}

use Token::{Symbol, Text, Word};

fn counted_field(tokens: &[Token<'_>], start: usize) -> Option<Term> {
    let (field, length) = match &tokens[start..] {
        [Word("context"), Symbol("."), Word(field), ..] => (*field, 3),
        [Word("context"), Symbol("["), Text(field), Symbol("]"), ..] => (*field, 4),
        _ => return None,
    };
    let mut rest = &tokens[start + length..];
    rest = match rest {
        [Symbol("|"), Word("accumulated" | "history"), rest @ ..] => rest,
        _ => return None,
    };
    while let [Symbol(")"), after @ ..] = rest {
        rest = after;
    }
    rest = match rest {
        [Symbol("|"), Word("length" | "count"), rest @ ..] => rest,
        _ => return None,
    };
    let after = rest.iter().find(|token| **token != Symbol(")"));
    let before = tokens[..start].iter().rev().find(|token| **token != Symbol("("));
    let reached = matches!(after, Some(Symbol("==" | ">=" | ">"))) || matches!(before, Some(Symbol("==" | "<=" | "<")));
    reached.then(|| Term::Field(field.to_owned()))
}

fn tested_signal(tokens: &[Token<'_>]) -> Option<Term> {
    match tokens {
        [Text(signal), Word("in"), rest @ ..] if begins_with_signals(rest) => Some(Term::Signal((*signal).to_owned())),
        _ => None,
    }
}

/// Whether the tokens begin with `context.__operational__.signals`.
fn begins_with_signals(tokens: &[Token<'_>]) -> bool {
    matches!(
        tokens,
        [
            Word("context"),
            Symbol("."),
            Word("__operational__"),
            Symbol("."),
            Word("signals"),
            ..,
        ]
    )
}

fn tokens(source: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let length = if first.is_alphanumeric() || first == '_' {
            let end = rest
                .find(|c: char| !c.is_alphanumeric() && c != '_')
                .unwrap_or(rest.len());
            tokens.push(Word(&rest[..end]));
            end
        } else if matches!(first, '\'' | '"') {
            let end = rest[1..].find(first).map_or(rest.len(), |at| at + 2);
            tokens.push(Text(rest[1..end].trim_end_matches(first)));
            end
        } else if let Some(comparison) = ["==", ">=", "<=", "!="].into_iter().find(|op| rest.starts_with(op)) {
            tokens.push(Symbol(comparison));
            comparison.len()
        } else {
            if !first.is_whitespace() {
                tokens.push(Symbol(&rest[..first.len_utf8()]));
            }
            first.len_utf8()
        };
        rest = &rest[length..];
    }
    tokens
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(name: &str) -> Term {
        Term::Field(name.into())
    }

    fn signal(name: &str) -> Term {
        Term::Signal(name.into())
    }

    #[test]
    fn fields_that_are_counted_up_to_something() {
        let both = "{{ context.done | accumulated | length == context['all'] | accumulated | length }}";
        assert_eq!(counted_terms(both), [field("done"), field("all")]);
        assert_eq!(counted_terms("{{ (context.a|history)|count >= 3 }}"), [field("a")]);
        assert_eq!(counted_terms("{{ 3 <= (context.a|history|length) }}"), [field("a")]);
        assert_eq!(counted_terms("{{ context.a|history|length < 3 }}"), []);
        assert_eq!(counted_terms("{{ context.a|length == 3 }}"), []);
    }

    #[test]
    fn signals_that_are_waited_for_together() {
        let both = "{{ 'A' in context.__operational__.signals and \"B\" in context.__operational__.signals }}";
        assert_eq!(counted_terms(both), [signal("A"), signal("B")]);
        assert_eq!(counted_terms("{{ 'A' in context.__operational__.signals }}"), []);
        let not = "{{ 'A' not in context.__operational__.signals or 'B' in context.__operational__.signals }}";
        assert_eq!(asked_signals(not), ["A", "B"]);
        assert_eq!(asked_signals("{{ 'A' in context.names }}"), [""; 0]);
        assert_eq!(counted_terms("{{ 'A"), []);
        assert_eq!(counted_terms("{{ 'length"), []);
    }
}
