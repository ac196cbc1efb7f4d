//! What can follow `is`.

use minijinja::value::{Rest, Value, ValueKind, ValueOrKwargs};
use minijinja::{Environment, State};

use super::python::Result;
use super::python::arith::binary;
use super::python::compare::{compare, equal};
use super::python::kinds::{
    is_dict, is_generator, is_list, is_range, is_scalar, is_text, is_tuple, is_view, number, type_error,
};
use super::python::meter::Meter;
use super::python::text::str_of;
use super::syntax::names::{FILTERS, OPERATOR_TESTS, TESTS};
use super::view::is_same_object;

/// Adds the tests to `env`, under the names that `select` uses, and under those that the translation uses for `is`.
pub(crate) fn register(env: &mut Environment<'static>) {
    for name in TESTS.iter().chain(OPERATOR_TESTS) {
        let test = move |state: &mut State<'_, '_>, args: Rest<ValueOrKwargs>| run(name, state, &args.into_values());
        env.add_test(*name, test);
        env.add_test(format!("__soe_{name}"), test);
    }
    for name in ["startingwith", "endingwith", "int", "safe"] {
        env.remove_test(name);
    }
}

fn run(name: &str, state: &mut State<'_, '_>, args: &[Value]) -> Result<bool> {
    let value = args.first().cloned().unwrap_or_default();
    let operator = match name {
        "eq" | "equalto" | "==" => "==",
        "ne" | "!=" => "!=",
        "lt" | "lessthan" | "<" => "<",
        "le" | "<=" => "<=",
        "gt" | "greaterthan" | ">" => ">",
        "ge" | ">=" => ">=",
        "in" => "in",
        "divisibleby" => "%",
        "sameas" => "is",
        _ if args.len() > 1 => return Err(type_error(format!("the test '{name}' takes no argument"))),
        _ => return property(name, &value, state),
    };
    let [_, other] = args else {
        return Err(type_error(format!("the test '{name}' takes one argument")));
    };
    match operator {
        "%" => equal(&binary("%", &value, other, &*state)?, &Value::from(0), &*state),
        "is" => Ok(is_same(&value, other)),
        _ => compare(operator, &value, other, &*state),
    }
}

fn property(name: &str, value: &Value, state: &mut State<'_, '_>) -> Result<bool> {
    let kind = value.kind();
    if let ("lower" | "upper", Some(text)) = (name, value.as_str()) {
        state.text(text.len())?;
    }
    Ok(match name {
        "defined" => !value.is_undefined(),
        "undefined" => value.is_undefined(),
        "none" => value.is_none(),
        "true" => kind == ValueKind::Bool && value.is_true(),
        "false" => kind == ValueKind::Bool && !value.is_true(),
        "boolean" => kind == ValueKind::Bool,
        "integer" => kind == ValueKind::Number && value.is_integer(),
        "float" => kind == ValueKind::Number && !value.is_integer(),
        "number" => number(value).is_some(),
        "string" => is_text(value),
        "mapping" => is_dict(value),
        "sequence" => {
            value.is_undefined()
                || is_text(value)
                || is_dict(value)
                || is_list(value)
                || is_tuple(value)
                || is_range(value)
        }
        "iterable" => !is_scalar(value) && (value.is_undefined() || is_generator(value) || value.try_iter().is_ok()),
        "callable" => value.is_undefined() || (kind == ValueKind::Plain && !is_generator(value) && !is_view(value)),
        "escaped" => value.is_safe(),
        "odd" | "even" => {
            let rest = binary("%", value, &Value::from(2), &*state)?;
            equal(&rest, &Value::from(i64::from(name == "odd")), &*state)?
        }
        "lower" => has_case(&str_of(value, &*state)?, char::is_lowercase, char::is_uppercase),
        "upper" => has_case(&str_of(value, &*state)?, char::is_uppercase, char::is_lowercase),
        "filter" => value.as_str().is_some_and(|name| FILTERS.contains(&name)),
        "test" => value
            .as_str()
            .is_some_and(|name| TESTS.contains(&name) || OPERATOR_TESTS.contains(&name)),
        _ => return Err(type_error(format!("No test named '{name}'."))),
    })
}

/// Whether `text` has letters of the one case and none of the other.
pub(crate) fn has_case(text: &str, wanted: fn(char) -> bool, other: fn(char) -> bool) -> bool {
    text.chars().any(wanted) && !text.chars().any(other)
}

fn is_same(a: &Value, b: &Value) -> bool {
    match (a.kind(), b.kind()) {
        (x, y) if x != y => false,
        (ValueKind::Undefined, _) => false,
        (ValueKind::Number, _) => a.is_integer() == b.is_integer() && a == b,
        (ValueKind::Bool | ValueKind::None | ValueKind::String, _) => a == b,
        _ => is_same_object(a, b),
    }
}

#[test]
fn fields_that_may_be_missing_are_not_needed() {
    for (source, expected) in [
        ("{{ context.a }} {{ context['b'] }}", &["a", "b"][..]),
        (
            "{% if context.a is defined %}{{ context.a }}{% endif %}{{ context.b }}",
            &["b"],
        ),
        ("{{ context.a if context.a is not defined else context.b }}", &["b"]),
        (
            "{{ context['a'] | default('x') | upper }} {{ context.b | d(context.c) }}",
            &["c"],
        ),
        ("{% if context.a %}{{ context.a.b is defined }}{% endif %}", &["a"]),
        ("text", &[]),
    ] {
        let template = super::Template::compile(source).unwrap();
        let needed: Vec<&str> = template.needed_fields().iter().map(AsRef::as_ref).collect();
        assert_eq!(needed, expected, "{source}");
    }
}
