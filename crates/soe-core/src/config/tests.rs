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
