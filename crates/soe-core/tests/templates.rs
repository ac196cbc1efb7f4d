//! What templates are to the rest of the engine: fields, histories, types, errors.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::sync::Arc;

use serde_json::json;
use soe_backends::{Context, ExecutionId, ParentInfo, Value};
use soe_core::template::{Scope, Template, TemplateErrorKind, shadows_method};

fn context() -> Context {
    let mut context = Context::default();
    let mut set = |name: &str, value: serde_json::Value| context.append(&name.into(), Value::from(value));
    set("count", json!(3));
    set("results", json!({"id": 1}));
    set("results", json!({"id": 2}));
    set("list", json!([1, 2, 3]));
    set("same", json!(3));
    set("lists", json!([1]));
    set("lists", json!([2]));
    set("items", json!("a field"));
    for signal in ["START", "A_DONE"] {
        context.operational.signals.push(signal.into());
    }
    *context.operational.nodes.entry(&"first".into()) += 2;
    context.operational.tree.tokens = 7;
    context
}

fn render(source: &str) -> String {
    Template::compile(source)
        .unwrap()
        .render(&Scope::new(&context()))
        .unwrap()
}

fn evaluate(source: &str) -> serde_json::Value {
    let template = Template::compile(source).unwrap();
    template.evaluate(&Scope::new(&context())).unwrap().to_json()
}

#[test]
fn text_without_tags_is_returned_as_it_is() {
    assert_eq!(render("a } b }} { c \r\n\n"), "a } b }} { c \r\n\n");
}

#[test]
fn an_expression_keeps_its_type() {
    assert_eq!(evaluate("{{ context.count + 1 }}"), json!(4));
    assert_eq!(evaluate("{{ context.results }}"), json!({"id": 2}));
    assert_eq!(
        evaluate("{{ [context.count, 1.5, none, (true,)] }}"),
        json!([3, 1.5, null, [true]])
    );
    assert_eq!(evaluate("{{ {'a': context.list} }}"), json!({"a": [1, 2, 3]}));
    assert_eq!(evaluate("{{ context.missing }}"), json!(null));
    assert_eq!(evaluate("{{ context.list | map('string') }}"), json!(["1", "2", "3"]));
    assert_eq!(
        evaluate("{{ context.results | accumulated }}"),
        json!([{"id": 1}, {"id": 2}])
    );
    assert_eq!(evaluate("{{ context.count }} "), json!("3 "));
}

#[test]
fn histories_belong_to_the_field_they_are_asked_of() {
    assert_eq!(evaluate("{{ context.same | accumulated }}"), json!([3]));
    assert_eq!(evaluate("{{ context['results'] | accumulated | length }}"), json!(2));
    assert_eq!(evaluate("{{ context.list | accumulated }}"), json!([1, 2, 3]));
    assert_eq!(evaluate("{{ context.list | history }}"), json!([[1, 2, 3]]));
    assert_eq!(evaluate("{{ context.lists | accumulated }}"), json!([[1], [2]]));
    assert_eq!(evaluate("{{ context.missing | accumulated }}"), json!([]));
    assert_eq!(evaluate("{{ context.missing | history }}"), json!([]));
    // Through variables: containers know their field, scalars are the field read last.
    assert_eq!(
        render("{% set r = context.results %}{% set c = context.count %}{{ r | accumulated | length }}"),
        "2"
    );
    assert_eq!(render("{% set c = context.count %}{{ c | history }}"), "[3]");
    assert_eq!(
        render("{% macro m() %}{{ context.results | history | length }}{% endmacro %}{{ m() }}"),
        "2"
    );
    assert_eq!(
        render("{% set context = {'results': 5} %}{{ context.results | history }}"),
        "[5]"
    );
}

#[test]
fn the_engines_own_fields_are_in_scope() {
    assert_eq!(
        evaluate("{{ 'A_DONE' in context.__operational__.signals }}"),
        json!(true)
    );
    assert_eq!(
        evaluate("{{ 'B' not in context['__operational__'].signals }}"),
        json!(true)
    );
    assert_eq!(evaluate("{{ context.__operational__.signals | length }}"), json!(2));
    assert_eq!(evaluate("{{ context.__operational__.signals[-1] }}"), json!("A_DONE"));
    assert_eq!(evaluate("{{ context.__operational__.nodes.first }}"), json!(2));
    assert_eq!(
        evaluate("{{ context.__operational__.nodes.get('other', 0) }}"),
        json!(0)
    );
    assert_eq!(evaluate("{{ context.__operational__.tree.tokens }}"), json!(7));
    assert_eq!(evaluate("{{ context.__parent__ is defined }}"), json!(false));

    let mut context = context();
    context.parent = Some(Arc::new(ParentInfo {
        parent_execution_id: ExecutionId::new("parent").unwrap(),
        main_execution_id: ExecutionId::new("main").unwrap(),
        signals_to_parent: vec!["DONE".into()],
        context_updates_to_parent: Vec::new(),
        depth: 1,
    }));
    let template = Template::compile("{{ context.__parent__.signals_to_parent[0] }}").unwrap();
    assert_eq!(template.render(&Scope::new(&context)).unwrap(), "DONE");
}

#[test]
fn a_field_hides_the_method_of_its_name_unless_called() {
    assert_eq!(render("{{ context.items }}"), "a field");
    assert_eq!(render("{{ context.items() | length > 5 }}"), "True");
    assert!(shadows_method("items") && shadows_method("get") && !shadows_method("count"));
}

#[test]
fn result_is_in_scope_where_it_is_given() {
    let scope = Scope::new(&context()).with_result(Value::from(json!({"status": "ok"})));
    assert!(
        Template::compile("{{ result.status == 'ok' }}")
            .unwrap()
            .passes(&scope)
            .unwrap()
    );
}

#[test]
fn fields_are_listed_in_order_of_first_mention() {
    let source = "{{ context.b if context['a'] else context.get('c') }}{% if context.a.d %}{{ context.__operational__ }}{% endif %}\
                  {% for k in context.items() %}{{ k | default(context.e) }}{% endfor %}";
    let template = Template::compile(source).unwrap();
    let fields: Vec<&str> = template.context_fields().iter().map(|field| field.as_ref()).collect();
    assert_eq!(fields, ["b", "a", "c", "e"]);
}

#[test]
fn errors_name_their_kind_and_line() {
    let compile = |source: &str| {
        let error = Template::compile(source).unwrap_err();
        (error.kind(), error.line(), error.message().to_owned())
    };
    assert_eq!(
        compile("a\n{{ 1 + }}"),
        (
            TemplateErrorKind::Syntax,
            Some(2),
            "unexpected 'end of print statement'".into()
        )
    );
    assert_eq!(compile("\n\n{% if x %}").1, Some(3));
    let (kind, line, message) = compile("x\n{% if false %}\n{{ 1 | uper }}{% endif %}");
    assert_eq!((kind, line), (TemplateErrorKind::UnknownFilter, Some(3)));
    assert_eq!(message, "No filter named 'uper'. Did you mean 'upper'?");
    assert_eq!(
        compile("{{ 'a' | uppre }}").2,
        "No filter named 'uppre'. Did you mean 'upper'?"
    );
    assert_eq!(
        compile("{{ 'a' | len }}").2,
        "No filter named 'len'. Did you mean 'length'?"
    );
    assert_eq!(
        compile("{{ 1 is definde }}").2,
        "No test named 'definde'. Did you mean 'defined'?"
    );
    assert_eq!(compile("{{ 1 is nul }}").0, TemplateErrorKind::UnknownTest);
    assert_eq!(compile("{% do x %}").0, TemplateErrorKind::Syntax);
    assert_eq!(
        compile(&format!("{{{{ '{}' }}}}", "x".repeat(9000))).0,
        TemplateErrorKind::Limit
    );

    let run = |source: &str| {
        let error = Template::compile(source)
            .unwrap()
            .render(&Scope::new(&context()))
            .unwrap_err();
        (error.kind(), error.line())
    };
    assert_eq!(
        run("a\n\n{{ context.missing.x }}"),
        (TemplateErrorKind::Undefined, Some(3))
    );
    assert_eq!(
        run("\n{#\n#}{{\n context.missing < 3 }}").0,
        TemplateErrorKind::Undefined
    );
    assert_eq!(
        run("{#\n\n#}\n{%- if 1 -%}\n  {{ 'a' < 3 }}{% endif %}"),
        (TemplateErrorKind::Type, Some(5))
    );
    assert_eq!(run("{{ 1 / 0 }}").0, TemplateErrorKind::Type);

    let text = |source: &str| Template::compile(source).unwrap_err().to_string();
    assert_eq!(text("{{ 1 + }}\n"), "unexpected 'end of print statement'");
    assert_eq!(text("{{ 1 + }}\n."), "unexpected 'end of print statement' (line 1)");
}
