use super::*;

fn problems(text: &str) -> Vec<Problem> {
    let source = Source {
        name: "tools.yaml".into(),
        text: text.into(),
        folder: Some(".".into()),
    };
    read(&source, &mut ToolRegistry::new(), &mut BTreeSet::new())
}

fn message(text: &str) -> String {
    let problems = problems(text);
    assert_eq!(problems.len(), 1, "{problems:?}");
    problems[0].message.clone()
}

fn tool(fields: &str) -> String {
    format!("tools:\n  t:\n    type: command\n{fields}")
}

#[test]
fn a_tool_with_everything_is_registered() {
    let text = tool(
        "    description: Fetches.\n    command: [curl, -sS, --, '{url}']\n    parameters: {url: string}\n    \
         stdin: none\n    output: text\n    env: {A: 1, B: null}\n    cwd: .\n    timeout: 2m 30s\n    retries: 2\n    \
         failure_signal: FAILED\n    concurrency: 4\n    process_accumulated: false\n    max_output: 1000\n",
    );
    let source = Source {
        name: "tools.yaml".into(),
        text,
        folder: Some(".".into()),
    };
    let (mut registry, mut names) = (ToolRegistry::new(), BTreeSet::new());
    let problems = read(&source, &mut registry, &mut names);
    assert!(problems.is_empty(), "{problems:?}");
    let spec = registry.get("t").unwrap().spec().clone();
    assert_eq!((spec.max_retries, spec.max_concurrency), (2, Some(4)));
    assert_eq!(spec.timeout, Some(Duration::from_secs(150)));
    assert_eq!(spec.failure_signal.as_deref(), Some("FAILED"));
    assert_eq!(spec.parameters()["required"], serde_json::json!(["url"]));
}

#[test]
fn problems_have_positions_and_help() {
    let problems = problems(&tool("    comand: [x]\n    command: [x]\n    timeout: soon\n"));
    assert_eq!(problems[0].message, "unknown key 'comand'");
    assert_eq!(problems[0].help.as_deref(), Some("did you mean 'command'?"));
    assert_eq!((problems[0].line, problems[0].column), (Some(4), Some(5)));
    assert_eq!(
        (problems[1].line, problems[1].field.as_deref()),
        (Some(6), Some("tools.t.timeout"))
    );
}

#[test]
fn what_is_no_tools_file_is_said() {
    assert!(!message("tools: [1").is_empty());
    assert!(message("x").contains("'tools' is expected"));
    assert!(message("tools: 1").contains("mapping of tools by name"));
    assert!(message("{}").contains("'tools' is missing"));
    assert!(message("tools: {t: 1}").contains("must be a mapping"));
    assert!(message("tools: {t: {command: [x]}}").contains("'type' is missing: command"));
    assert!(message("tools: {t: {type: http, command: [x]}}").contains("'type' must be command, not \"http\""));
    assert!(message(&tool("    stdin: json\n")).contains("'command' is missing"));
    assert!(message(&tool("    command: curl {url}\n")).contains("list of texts"));
    assert!(message(&tool("    command: [x, {a: 1}]\n")).contains("a text is expected"));
    assert!(
        message(&tool("    command: [x]\n    retries: -1\n"))
            .contains("'retries' must be an integer from 0 on, not -1")
    );
    assert!(message("tools: {soe_x: {type: command, command: [x]}}").contains("built-in tools"));
    let schema = message(&tool(
        "    command: [x]\n    parameters: {type: object, properties: {a: {type: strin}}}\n",
    ));
    assert!(schema.contains("JSON Schema"), "{schema}");
}

#[test]
fn placeholders_are_checked_against_the_parameters() {
    let with = |command: &str, parameters: &str| {
        problems(&tool(&format!(
            "    command: {command}\n    parameters: {parameters}\n"
        )))
    };
    assert!(with("[x, '{a}']", "{a: string}").is_empty());
    assert!(with("[x, '{a}']", "{a: {type: string, default: b}}").is_empty());
    assert!(
        with("[awk, '{print}']", "{a: string}")[0]
            .help
            .as_deref()
            .unwrap()
            .contains("'{{print}}'")
    );
    assert!(with("[x, '{a}']", "{a: string?}")[0].message.contains("optional"));
    assert!(
        with("['{a}']", "{a: string}")[0]
            .message
            .contains("program can't come from")
    );
    assert!(
        problems(&tool("    command: [x, '{a}']\n")).is_empty(),
        "nothing is known of the parameters"
    );
}

#[test]
fn placeholders_in_code_are_refused() {
    for command in [
        "[sh, -c, 'echo {a}']",
        "[/bin/bash, -euc, 'echo {a}']",
        "[python3.12, -c, 'print({a})']",
        "[node, --eval, '{a}']",
        "[perl, -ne, '{a}']",
    ] {
        let problems = problems(&tool(&format!("    command: {command}\n")));
        assert!(
            problems[0].message.contains("code of its own"),
            "{command}: {problems:?}"
        );
    }
    for command in [
        "[sh, -c, 'echo \"$1\"', sh, '{a}']",
        "[sh, script.sh, '{a}']",
        "[grep, -c, '{a}']",
    ] {
        assert!(
            problems(&tool(&format!("    command: {command}\n"))).is_empty(),
            "{command}"
        );
    }
}
