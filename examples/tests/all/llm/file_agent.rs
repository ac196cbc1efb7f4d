//! 12 An agent that reads files.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use serde_json::json;
use soe_core::runtime::{Engine, EngineBuilder};
use soe_core::testing::{MockLlm, node};

use super::{Done, has_line, is_mocked, run};
use crate::support::{examples, stdout};

#[path = "../../../12-file-agent/files.rs"]
mod files;

use files::Library;

const PROGRAM: &str = env!("CARGO_BIN_EXE_12-file-agent");
const REPLIES: &str = include_str!("../../../12-file-agent/replies.yaml");

fn builder(library: &Arc<Library>) -> EngineBuilder {
    library.tools().into_iter().fold(Engine::builder(), EngineBuilder::tool)
}

async fn research(llm: &MockLlm) -> Done {
    let library = Library::open(examples().join("12-file-agent/library")).unwrap();
    let workflow = include_str!("../../../12-file-agent/workflow.yaml");
    run(
        builder(&library).llm(llm.clone()),
        workflow,
        json!({"question": "How long?"}),
    )
    .await
}

/// What `read_file` gives for a path: the text, or the error.
async fn read(folder: &Path, path: &str) -> String {
    let workflow = "
read:
  Read: {node_type: tool, event_triggers: [START], tool_name: read_file, parameters: {path: '{{ context.path }}'}, output_field: text}
";
    let library = Library::open(folder).unwrap();
    let done = run(builder(&library), workflow, json!({"path": path})).await;
    done.value("text").as_str().unwrap().to_owned()
}

#[test]
fn the_program_answers_with_both_protocols() {
    for (arguments, requests) in [(vec![], 10), (vec!["--native-tools"], 5)] {
        let printed = stdout(PROGRAM, &arguments);
        is_mocked(&printed);
        has_line(&printed, "calls read_file {\"path\":\"policies/backups.md\"}");
        has_line(
            &printed,
            "answer: Daily backups are kept for 30 days, monthly ones for two years.",
        );
        has_line(&printed, "source: policies/backups.md");
        has_line(&printed, "all sources exist");
        assert!(
            printed.contains(&format!("{requests} requests to the LLM")),
            "{printed}"
        );
    }
}

#[tokio::test]
async fn a_failed_call_is_told_to_the_agent_in_both_protocols() {
    for native in [false, true] {
        let llm = MockLlm::from_yaml(REPLIES).unwrap();
        let llm = if native { llm.with_native_tools() } else { llm };
        let done = research(&llm).await;
        done.result.as_ref().unwrap();
        assert_eq!(done.signals(), "START ANSWERED SOURCES_FOUND");
        // Four calls by the agent, one by the tool node after it.
        assert_eq!(done.counts(), [if native { 5 } else { 10 }, 5, 1]);
        let last = llm.requests().pop().unwrap().text;
        assert!(last.contains("'policies/retention.md' can't be read"), "{last}");
        assert!(last.contains("The retention of daily backups is 30 days"), "{last}");
        assert_eq!(last.contains("[Tool Error: read_file]"), !native, "{last}");
    }
}

#[tokio::test]
async fn sources_that_do_not_exist_are_noticed() {
    for sources in [
        json!(["policies/backups.md", "policies/made-up.md"]),
        json!(["../main.rs"]),
        json!([]),
    ] {
        let llm = MockLlm::new();
        llm.on(node("Research"))
            .finish()
            .output(json!({"text": "Ten years.", "sources": sources}));
        let done = research(&llm).await;
        assert_eq!(done.signals(), "START ANSWERED SOURCES_MISSING", "{sources}");
    }
}

#[tokio::test]
async fn too_many_failures_or_turns_end_the_agent() {
    let llm = MockLlm::new();
    let mut rule = llm.on(node("Research"));
    for number in 0..4 {
        rule = rule
            .call_tool("read_file")
            .arguments(json!({"path": format!("../secret-{number}")}));
    }
    drop(rule);
    let done = research(&llm).await;
    assert_eq!(
        (done.signals().as_str(), done.runs("CheckSources")),
        ("START GAVE_UP", 0)
    );

    let llm = MockLlm::new().with_native_tools();
    llm.on(node("Research")).call_tool("list_files").arguments(json!({}));
    let done = research(&llm).await;
    assert_eq!((done.signals().as_str(), llm.calls()), ("START GAVE_UP", 12));
}

#[tokio::test]
async fn no_path_leads_out_of_the_folder() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret.txt"), "secret").unwrap();
    let folder = outside.path().join("library");
    fs::create_dir_all(folder.join("sub")).unwrap();
    fs::write(folder.join("sub/open.txt"), "open").unwrap();

    assert_eq!(read(&folder, "sub/open.txt").await, "open");
    assert_eq!(read(&folder, "./sub/open.txt").await, "open");
    let absolute = outside.path().join("secret.txt");
    for path in ["../secret.txt", "sub/../../secret.txt", absolute.to_str().unwrap()] {
        let said = read(&folder, path).await;
        assert!(said.contains("is outside of the folder"), "{path}: {said}");
    }
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(outside.path(), folder.join("link")).unwrap();
        let said = read(&folder, "link/secret.txt").await;
        assert!(said.contains("is outside of the folder"), "{said}");
        std::os::unix::fs::symlink(&absolute, folder.join("sub/file-link")).unwrap();
        let said = read(&folder, "sub/file-link").await;
        assert!(said.contains("is outside of the folder"), "{said}");
    }
    fs::write(folder.join("large.txt"), vec![b'x'; 70_000]).unwrap();
    assert!(read(&folder, "large.txt").await.contains("more than 65536"));
    assert!(read(&folder, "sub").await.contains("can't be read"));
}
