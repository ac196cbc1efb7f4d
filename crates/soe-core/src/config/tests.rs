use super::*;

const FAN_OUT: &str = r#"
workflows:
  main:
    split:
      node_type: tool
      event_triggers: [START]
      tool_name: split_text
      parameters: {text: "{{ context.text }}", size: 100, opts: [1, {deep: "{{ context.deep }}"}]}
      output_field: parts
      event_emissions: [{signal_name: SPLIT}]
    work:
      node_type: child
      event_triggers: [SPLIT]
      child_workflow_name: worker
      child_initial_signals: [START]
      fan_out_field: parts
      child_input_field: part
      signals_to_parent: [PART_DONE]
      context_updates_to_parent: [result]
      spawn_interval: 0.5
    join:
      node_type: router
      event_triggers: [PART_DONE]
      event_emissions:
        - signal_name: ALL_DONE
          condition: "{{ context.result | accumulated | length == context.parts | accumulated | length }}"
  worker:
    think:
      node_type: agent
      event_triggers: [START]
      prompt: "Work on {{ context.part }}"
      identity: analyst
      tools: [search]
      output_field: result
      retries: 0
      model: small
      event_emissions: [{signal_name: PART_DONE}]
identities:
  analyst: You are an analyst.
context_schema:
  result: {type: object, properties: {score: int}}
"#;

#[test]
fn a_valid_file_becomes_typed_workflows() {
    let config = Config::from_yaml(FAN_OUT).unwrap();
    assert!(config.warnings().is_empty(), "{:?}", config.warnings());
    let registry = config.registry();
    assert_eq!(
        registry.workflows.keys().map(AsRef::as_ref).collect::<Vec<_>>(),
        ["main", "worker"]
    );
    let main = config.workflow("main").unwrap();
    let NodeKind::Tool(tool) = &main.nodes["split"].kind else {
        panic!("a tool")
    };
    let Arguments::Parameters(parameters) = &tool.arguments else {
        panic!("parameters")
    };
    assert!(matches!(parameters["text"], Parameter::Template(_)));
    assert!(matches!(parameters["size"], Parameter::Literal(_)));
    assert!(matches!(parameters["opts"], Parameter::List(_)));
    let NodeKind::Child(child) = &main.nodes["work"].kind else {
        panic!("a child")
    };
    assert_eq!(child.spawn_interval, std::time::Duration::from_millis(500));
    assert_eq!(child.fan_out.as_ref().unwrap().child_input_field.as_ref(), "part");
    let NodeKind::Agent(agent) = &config.workflow("worker").unwrap().nodes["think"].kind else {
        panic!("an agent")
    };
    assert_eq!(agent.llm.retries, 0);
    assert_eq!(agent.tools.len(), 1);
    let think = &config.workflow("worker").unwrap().nodes["think"];
    assert_eq!(
        think.config.get("model").and_then(soe_backends::Value::as_str),
        Some("small")
    );
    assert_eq!(config.identities().unwrap()["analyst"].as_ref(), "You are an analyst.");
    assert!(matches!(
        config.context_schema().unwrap().fields["result"].kind,
        FieldType::Object(_)
    ));
}

#[test]
fn a_stored_document_gives_the_same_registry() {
    let config = Config::from_yaml(FAN_OUT).unwrap();
    let again = Registry::from_document(config.registry().document.clone()).unwrap();
    assert_eq!(again.id, config.registry().id);
    assert_eq!(again.document, config.registry().document);
    let json = serde_json::json!({"workflows": config.registry().document.to_json()});
    assert_eq!(Config::from_value(json).unwrap().registry().id, again.id);
}

fn codes(error: &ConfigError) -> Vec<&str> {
    error.diagnostics().iter().map(|d| d.code).collect()
}

#[test]
fn names_are_text_as_written() {
    let yaml = "1:\n  on: {node_type: router, event_triggers: [ON, 007], event_emissions: [{signal_name: NO}, {signal_name: 1.0}]}";
    let config = Config::from_yaml(yaml).unwrap();
    let node = &config.workflow("1").unwrap().nodes["on"];
    let triggers: Vec<_> = node.triggers.iter().map(AsRef::as_ref).collect();
    assert_eq!(triggers, ["ON", "007"]);
    assert_eq!(node.emissions[1].signal.as_ref(), "1.0");
    let stored = config.registry().document.to_json();
    assert_eq!(stored["1"]["on"]["event_triggers"], serde_json::json!(["ON", "007"]));
    assert_eq!(stored["1"]["on"]["event_emissions"][0]["signal_name"], "NO");
}

#[test]
fn values_are_taken_without_positions() {
    let value = serde_json::json!({"main": {"a": {"node_type": "llm", "event_triggers": [true], "prompt": 5}}});
    let error = Config::from_value(value.clone()).unwrap_err();
    assert_eq!(codes(&error), ["invalid-value", "invalid-value"]);
    assert!(
        error
            .diagnostics()
            .iter()
            .all(|d| d.line.is_none() && d.column.is_none())
    );
    assert_eq!(&validate_value(value, &ValidateOptions::default()), error.report());

    #[derive(serde::Serialize)]
    struct Node {
        node_type: &'static str,
        event_triggers: Vec<&'static str>,
        prompt: &'static str,
    }
    let node = Node {
        node_type: "llm",
        event_triggers: vec!["START"],
        prompt: "p",
    };
    let nodes = std::collections::BTreeMap::from([("a", node)]);
    let config = Config::from_serialize(&std::collections::BTreeMap::from([("main", nodes)])).unwrap();
    assert!(config.workflow("main").is_ok());
    let unserializable = std::collections::BTreeMap::from([(vec![1], 1)]);
    assert_eq!(
        codes(&Config::from_serialize(&unserializable).unwrap_err()),
        ["not-serializable"]
    );
}

#[test]
fn the_order_of_nodes_is_part_of_the_id() {
    let node = |name: &str| format!("  {name}: {{node_type: llm, event_triggers: [START], prompt: p}}\n");
    let id = |names: [&str; 2]| {
        let text = format!("main:\n{}{}", node(names[0]), node(names[1]));
        Config::from_yaml(&text).unwrap().registry().id.clone()
    };
    assert_ne!(id(["a", "b"]), id(["b", "a"]));
    assert_eq!(id(["a", "b"]), id(["a", "b"]));
}

#[test]
fn starts_are_checked() {
    let config = Config::from_yaml(FAN_OUT).unwrap();
    assert!(config.check_start("main", &["START"]).is_ok());
    let error = config.check_start("mian", &["START"]).unwrap_err();
    assert_eq!(codes(&error), ["unknown-workflow"]);
    assert!(error.to_string().contains("Workflow 'mian' not found in config"));
    assert!(error.to_string().contains("main, worker"));
    assert_eq!(
        codes(&config.check_start::<&str>("main", &[]).unwrap_err()),
        ["no-initial-signals"]
    );
    assert_eq!(
        codes(&config.check_start("main", &[""]).unwrap_err()),
        ["no-initial-signals"]
    );
}

#[test]
fn nodes_are_injected_into_a_new_registry() {
    let registry = Config::from_yaml(FAN_OUT).unwrap().registry().clone();
    let options = ValidateOptions::default();
    let log = "node_type: router\nevent_triggers: [ON]\nevent_emissions: [{signal_name: LOGGED}]";
    let log = soe_backends::Value::from(log);
    let changed = registry.with_node("main", "log", &log, &options).unwrap();
    assert_eq!(
        changed.warnings.iter().map(|w| w.code).collect::<Vec<_>>(),
        ["boolean-like-name"]
    );
    let (old, new) = (&registry.workflows["main"], &changed.registry.workflows["main"]);
    assert_eq!(new.nodes.len(), old.nodes.len() + 1);
    assert_eq!(new.listeners(&["ON".into()]).len(), 1);
    assert!(std::sync::Arc::ptr_eq(&old.nodes["join"], &new.nodes["join"]));
    assert_ne!(changed.registry.id, registry.id);
    let again = Registry::from_document(changed.registry.document.clone()).unwrap();
    assert_eq!(again.id, changed.registry.id);

    let bad =
        parse_yaml("{node_type: child, event_triggers: [X], child_workflow_name: nowhere, child_initial_signals: [S]}")
            .unwrap();
    assert_eq!(
        codes(&registry.with_node("main", "bad", &bad, &options).unwrap_err()),
        ["unknown-child-workflow"]
    );
    assert_eq!(
        codes(&registry.with_node("nowhere", "log", &log, &options).unwrap_err()),
        ["unknown-workflow"]
    );

    let removed = changed.registry.without_node("main", "log").unwrap().unwrap();
    assert_eq!(removed.id, registry.id);
    assert!(changed.registry.without_node("main", "nothing").unwrap().is_none());
}

#[test]
fn what_is_injected_may_be_text_and_wrapped() {
    let registry = Config::from_yaml(FAN_OUT).unwrap().registry().clone();
    let inject = |text: &str| registry.with_workflow("more", &text.into(), &ValidateOptions::default());
    let alone = inject("ask: {node_type: llm, event_triggers: [START], prompt: p}")
        .unwrap()
        .registry
        .id;
    let same = [
        "more: {ask: {node_type: llm, event_triggers: [START], prompt: p}}",
        "other: {ask: {node_type: llm, event_triggers: [START], prompt: p}}",
        r#"{"ask": {"node_type": "llm", "event_triggers": ["START"], "prompt": "p"}}"#,
    ];
    for text in same {
        assert_eq!(inject(text).unwrap().registry.id, alone, "{text}");
    }
    let named_alike = inject("more: {node_type: llm, event_triggers: [START], prompt: p}").unwrap();
    assert!(named_alike.registry.workflows["more"].nodes.contains_key("more"));
    assert_eq!(codes(&inject("a: 1\na: 2").unwrap_err()), ["duplicate-key"]);
    assert_eq!(codes(&inject("a: [").unwrap_err()), ["invalid-yaml"]);
    assert_eq!(codes(&inject("").unwrap_err()), ["empty-config"]);
    assert_eq!(codes(&inject("5").unwrap_err()), ["invalid-workflow"]);
}

#[test]
fn replaced_nodes_keep_their_place() {
    let registry = Config::from_yaml(FAN_OUT).unwrap().registry().clone();
    let config = registry.document.get("main").unwrap().get("split").unwrap();
    let same = registry
        .with_node("main", "split", config, &ValidateOptions::default())
        .unwrap();
    assert_eq!(same.registry.id, registry.id);
}

#[test]
fn workflows_are_injected_and_removed() {
    let registry = Config::from_yaml(FAN_OUT).unwrap().registry().clone();
    let options = ValidateOptions::default();
    let itself = "{again: {node_type: child, event_triggers: [START], child_workflow_name: more, child_initial_signals: [STRAT]}}";
    let nodes = parse_yaml(itself).unwrap();
    let changed = registry.with_workflow("more", &nodes, &options).unwrap();
    assert_eq!(
        changed.warnings.iter().map(|w| w.code).collect::<Vec<_>>(),
        ["unheard-emission"]
    );
    assert_eq!(changed.registry.workflows.len(), 3);
    assert_eq!(changed.registry.without_workflow("more").unwrap().id, registry.id);
    let empty = parse_yaml("{}").unwrap();
    assert_eq!(
        codes(&registry.with_workflow("more", &empty, &options).unwrap_err()),
        ["empty-workflow"]
    );
    assert_eq!(
        codes(&registry.without_workflow("nowhere").unwrap_err()),
        ["unknown-workflow"]
    );

    // What removal leaves behind can be read again: a dangling child, an empty workflow.
    let dangling = registry.without_workflow("worker").unwrap();
    assert!(Registry::from_document(dangling.document).is_ok());
    let emptied = registry.without_node("worker", "think").unwrap().unwrap();
    assert_eq!(
        Registry::from_document(emptied.document.clone()).unwrap().id,
        emptied.id
    );
}

#[test]
fn what_was_accepted_is_accepted_again() {
    let options = ValidateOptions {
        node_types: Some(["rooter".to_owned()].into()),
        ..Default::default()
    };
    let deep = format!("{}{}", "[".repeat(120), "]".repeat(120));
    let text = format!("main: {{a: {{node_type: rooter, event_triggers: [START], data: {deep}}}}}");
    let config = Config::from_yaml_with(&text, &options).unwrap();
    let again = Registry::from_document(config.registry().document.clone()).unwrap();
    assert_eq!(again.id, config.registry().id);

    let deep = format!("{}{}", "[".repeat(127), "]".repeat(127));
    let node = parse_yaml(&format!("{{node_type: _x, event_triggers: [START], data: {deep}}}")).unwrap();
    let changed = config
        .registry()
        .with_node("main", "b", &node, &ValidateOptions::default())
        .unwrap();
    assert!(Registry::from_document(changed.registry.document).is_ok());
}

#[test]
fn schemas_are_typed() {
    let text = "{type: LIST, items: {type: dict, properties: {n: int, s: {type: str, default: x}}}, description: d}";
    let schema = FieldSchema::from_definition("f", &parse_yaml(text).unwrap()).unwrap();
    let FieldType::List(Some(items)) = &schema.kind else {
        panic!("a list")
    };
    let FieldType::Object(properties) = &items.kind else {
        panic!("an object")
    };
    assert_eq!(properties["n"].kind, FieldType::Integer);
    assert!(properties["n"].required && !properties["s"].required);
    assert_eq!(schema.description.as_deref(), Some("d"));
    assert!(FieldSchema::from_definition("f", &5_i64.into()).is_err());
    let config = Config::from_yaml(FAN_OUT).unwrap();
    let section = config.context_schema().unwrap();
    assert_eq!(
        &ContextSchema::from_document(&section.document).unwrap(),
        section.as_ref()
    );
}

#[test]
fn text_arguments_are_yaml_or_json() {
    let json = |text: &str| parse_yaml(text).unwrap().to_json();
    assert_eq!(
        json(r#"{"a": 1e3, "b": "\ud83c\udf89"}"#),
        serde_json::json!({"a": 1000.0, "b": "🎉"})
    );
    assert_eq!(json("a: 1e3"), serde_json::json!({"a": "1e3"}));
    assert_eq!(json(""), serde_json::Value::Null);
    assert_eq!(json("plain"), "plain");
    let duplicate = parse_yaml("a: 1\nb: 2\na: 3").unwrap_err();
    assert_eq!(duplicate.position(), Some(Position { line: 3, column: 1 }));
    assert_eq!(
        duplicate.to_string(),
        "Invalid YAML at line 3, column 1: the key 'a' is already at line 1, column 1"
    );
}
