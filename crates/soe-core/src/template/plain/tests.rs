//! That the short cut leads where the engine leads, for conditions and contexts of all kinds.

use proptest::prelude::*;
use soe_backends::{Context, Value};

use crate::template::{Scope, Template};

/// Conditions as they are found in workflows: none of them needs the engine.
const COMMON: [&str; 34] = [
    "{{ context.flag }}",
    "{{ not context.flag }}",
    "{{ context['status'] == 'ok' }}",
    "{{ context.score >= 0.8 }}",
    "{{ context.count != 3 and context.status == 'ok' or context.flag }}",
    "{{ result }}",
    "{{ result.ok }}",
    "{{ result == 'yes' }}",
    "{{ result.score > 5 }}",
    "{{ result.kind in ['a', 'b'] }}",
    "{{ result.get('kind') == 'a' }}",
    "{{ context.get('count', 0) < 3 }}",
    "{{ context.missing }}",
    "{{ context.missing | default(0) == 0 }}",
    "{{ context.missing is defined }}",
    "{{ context.missing is not defined and context.count is defined }}",
    "{{ result is none }}",
    "{{ context.results | accumulated | length >= 3 }}",
    "{{ context.results | accumulated | length == context.items | accumulated | length }}",
    "{{ (context.results | history | length) == 4 }}",
    "{{ context.items | length > 0 }}",
    "{{ context.status | length }}",
    "{{ 'a' in context.items }}",
    "{{ 'ok' in context.map }}",
    "{{ 'S1' in context.__operational__.signals }}",
    "{{ 'S1' in context.__operational__.signals and 'S9' not in context.__operational__.signals }}",
    "{{ context.__operational__.signals.count('S1') == 3 }}",
    "{{ context.__operational__.signals.count('S1') == context.__operational__.signals.count('S2') }}",
    "{{ context.__operational__.signals | select('equalto', 'S1') | list | length >= 2 }}",
    "{{ context.__operational__['signals'] | length < 100 }}",
    "{{ context.__operational__.nodes.get('N1', 0) >= 2 }}",
    "{{ context.__operational__.nodes['N2'] == 1 }}",
    "{{ context.__operational__.llm_calls < 3 }}",
    "{{ true if context.flag else false }}",
];

fn scope() -> Scope {
    let mut context = Context::default();
    let values = [
        ("flag", serde_json::json!(true)),
        ("status", "ok".into()),
        ("score", 0.9.into()),
        ("count", 3.into()),
        ("items", serde_json::json!(["a", "b", 1])),
        ("map", serde_json::json!({"ok": 1, "x": null})),
    ];
    for (name, value) in values {
        context.append(&name.into(), Value::from(value));
    }
    for i in 0..4 {
        context.append(&"results".into(), Value::from(i));
    }
    for i in 0..20 {
        context.operational.signals.push(format!("S{}", i % 4).into());
    }
    *context.operational.nodes.entry(&"N1".into()) = 2;
    *context.operational.nodes.entry(&"N2".into()) = 1;
    Scope::new(&context).with_result(Value::from(serde_json::json!({"ok": true, "score": 7, "kind": "a"})))
}

/// What a condition comes to, with the words of its error.
fn outcome(passes: Result<bool, crate::template::TemplateError>) -> Result<bool, String> {
    passes.map_err(|error| format!("{:?} {error}", error.kind()))
}

#[test]
fn common_conditions_need_no_engine() {
    let scope = scope();
    for source in COMMON {
        let template = Template::compile(source).unwrap();
        let short = template.0.plain.as_ref().and_then(|plain| plain.passes(&scope));
        assert_eq!(short, Some(template.passes_in_engine(&scope).unwrap()), "{source}");
    }
}

#[test]
fn what_is_not_plain_is_left_to_the_engine() {
    let mut context = Context::default();
    context.append(&"text".into(), Value::from("x".repeat(100_000)));
    context.append(&"list".into(), Value::list((0..10_000).map(Value::from)));
    context.append(&"null".into(), Value::Null);
    let scope = Scope::new(&context);
    for source in [
        "{{ context.missing < 3 }}",
        "{{ context.missing.part }}",
        "{{ context.null < 3 }}",
        "{{ context.null | length }}",
        "{{ result.ok }}",
        "{{ result.get('ok') }}",
        "{{ 'x' in context.text }}",
        "{{ 3 in context.list }}",
        "{{ context.list == [] }}",
        "{{ context.text.get('x') }}",
        "{{ context.list.count(3) }}",
        "{{ context.__parent__ }}",
        "{{ context.__operational__ == context }}",
        "{{ context.null in 3 }}",
    ] {
        let template = Template::compile(source).unwrap();
        let plain = template.0.plain.as_ref().unwrap();
        assert_eq!(plain.passes(&scope), None, "{source}");
        assert_eq!(
            outcome(template.passes(&scope)),
            outcome(template.passes_in_engine(&scope))
        );
    }
}

/// What takes minutes if each evaluation walks through the signals.
#[test]
fn signals_are_counted_without_a_walk() {
    let mut context = Context::default();
    for i in 0..600_000 {
        context.operational.signals.push(format!("S{}", i % 2).into());
    }
    let scope = Scope::new(&context);
    let signals = "context.__operational__.signals";
    for source in [
        format!("{{{{ {signals}.count('S1') == 300000 }}}}"),
        format!("{{{{ {signals} | select('equalto', 'S1') | list | length == 300000 }}}}"),
        format!("{{% set s = {signals} %}}{{{{ s.count('S1') == 300000 and 'S2' not in s }}}}"),
        format!("{{% set s = {signals} %}}{{{{ s | select('eq', 'S1') | list | count == 300000 }}}}"),
        format!("{{{{ [{signals} | length] == [600000] }}}}"),
    ] {
        let template = Template::compile(&source).unwrap();
        for _ in 0..2_000 {
            assert!(template.passes(&scope).unwrap(), "{source}");
            assert!(template.passes_in_engine(&scope).unwrap(), "{source}");
        }
    }
}

fn word() -> impl Strategy<Value = &'static str> {
    prop::sample::select(
        &[
            "a", "b", "ok", "S0", "S1", "S2", "N1", "", "0", "False", "none", " ", "é",
        ][..],
    )
}

fn literal() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => word().prop_map(|word| format!("'{word}'")),
        4 => (-3..6_i64).prop_map(|number| number.to_string()),
        2 => prop::sample::select(&["0.0", "1.0", "-0.5", "2.5", "9007199254740993", "1e30"][..]).prop_map(str::to_owned),
        3 => prop::sample::select(&["true", "false", "none", "True", "None"][..]).prop_map(str::to_owned),
        1 => prop::collection::vec(word(), 0..4).prop_map(|words| format!("{words:?}")),
        1 => (word(), -2..3_i64).prop_map(|(word, number)| format!("('{word}', {number})")),
    ]
}

fn field() -> impl Strategy<Value = String> {
    let name = prop::sample::select(&["f0", "f1", "f2", "f3", "missing"][..]);
    (name, any::<bool>()).prop_map(|(name, item)| match item {
        true => format!("context['{name}']"),
        false => format!("context.{name}"),
    })
}

fn term() -> impl Strategy<Value = String> {
    let operational = "context.__operational__";
    prop_oneof![
        4 => literal(),
        6 => field(),
        3 => Just("result".to_owned()),
        2 => prop::sample::select(&["a", "b", "ok"][..]).prop_map(|key| format!("result.{key}")),
        2 => (field(), word()).prop_map(|(field, key)| format!("{field}['{key}']")),
        1 => (field(), word()).prop_map(|(field, key)| format!("{field}.get('{key}')")),
        1 => (word(), literal()).prop_map(|(key, default)| format!("result.get('{key}', {default})")),
        1 => literal().prop_map(|default| format!("context.get('f1', {default})")),
        4 => field().prop_map(|field| format!("{field} | accumulated | length")),
        2 => field().prop_map(|field| format!("{field} | history | count")),
        1 => field().prop_map(|field| format!("({field} | accumulated)")),
        3 => field().prop_map(|field| format!("{field} | length")),
        2 => (field(), literal()).prop_map(|(field, other)| format!("{field} | default({other})")),
        1 => (field(), literal()).prop_map(|(field, other)| format!("{field} | d({other}, true)")),
        2 => prop::sample::select(&["defined", "not defined", "undefined", "none", "not none"][..])
            .prop_flat_map(|test| field().prop_map(move |field| format!("({field} is {test})"))),
        3 => literal().prop_map(move |item| format!("{operational}.signals.count({item})")),
        3 => literal().prop_map(move |item| format!("{operational}.signals | select('equalto', {item}) | list | length")),
        1 => (field(), literal()).prop_map(|(field, item)| format!("{field} | select('eq', {item}) | list | count")),
        1 => (field(), literal()).prop_map(|(field, item)| format!("{field}.count({item})")),
        1 => Just(format!("{operational}.signals")),
        1 => prop::sample::select(&["llm_calls", "tool_calls", "errors", "tokens", "tree", "nope"][..])
            .prop_map(move |name| format!("{operational}.{name}")),
        2 => word().prop_map(move |node| format!("{operational}.nodes.get('{node}', 0)")),
        1 => word().prop_map(move |node| format!("{operational}.nodes['{node}']")),
    ]
}

fn condition() -> impl Strategy<Value = String> {
    let operator = prop::sample::select(&["==", "!=", "<", "<=", ">", ">=", "in", "not in"][..]);
    let simple = prop_oneof![
        1 => term(),
        3 => (term(), operator, term()).prop_map(|(a, operator, b)| format!("{a} {operator} {b}")),
    ];
    simple.prop_recursive(3, 8, 3, |inner| {
        prop_oneof![
            (inner.clone(), prop::sample::select(&["and", "or"][..]), inner.clone())
                .prop_map(|(a, operator, b)| format!("({a}) {operator} ({b})")),
            (inner.clone(), inner.clone(), inner.clone()).prop_map(|(a, b, c)| format!("{a} and {b} and {c}")),
            inner.clone().prop_map(|a| format!("not ({a})")),
            (inner.clone(), inner.clone(), inner).prop_map(|(a, b, c)| format!("({a}) if ({b}) else ({c})")),
        ]
    })
}

fn data() -> impl Strategy<Value = Value> {
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        (-3..6_i64).prop_map(Value::Int),
        Just(Value::UInt(u64::MAX)),
        Just(Value::Int(9_007_199_254_740_993)),
        prop::sample::select(&[0.0, -0.0, 1.0, 2.5, -0.5, 9_007_199_254_740_992.0, 1e300][..]).prop_map(Value::Float),
        word().prop_map(Value::from),
    ];
    scalar.prop_recursive(2, 8, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::list),
            prop::collection::vec((word(), inner), 0..4).prop_map(Value::map),
        ]
    })
}

fn any_scope() -> impl Strategy<Value = Scope> {
    let histories = prop::collection::vec(prop::collection::vec(data(), 0..4), 4);
    let signals = prop::collection::vec(word(), 0..40);
    (histories, signals, prop::option::of(data()), 0..4_u64).prop_map(|(histories, signals, result, count)| {
        let mut context = Context::default();
        for (i, history) in histories.into_iter().enumerate() {
            for value in history {
                context.append(&format!("f{i}").into(), value);
            }
        }
        context.operational.signals = signals.into_iter().map(Into::into).collect();
        context.operational.llm_calls = count;
        if count > 0 {
            *context.operational.nodes.entry(&"N1".into()) = count;
        }
        let scope = Scope::new(&context);
        match result {
            Some(result) => scope.with_result(result),
            None => scope,
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn the_short_cut_leads_where_the_engine_leads(condition in condition(), scopes in prop::collection::vec(any_scope(), 3)) {
        let source = format!("{{{{ {condition} }}}}");
        let template = Template::compile(&source).unwrap();
        for scope in scopes {
            let engine = outcome(template.passes_in_engine(&scope));
            if let Some(short) = template.0.plain.as_ref().and_then(|plain| plain.passes(&scope)) {
                prop_assert_eq!(Ok(short), engine.clone(), "{} on {:?}", source, scope);
            }
            prop_assert_eq!(outcome(template.passes(&scope)), engine, "{} on {:?}", source, scope);
        }
    }
}
