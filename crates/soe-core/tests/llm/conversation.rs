//! Identities and conversation histories.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use soe_backends::{Backends, MemoryStore, Turn, Value};
use soe_core::llm::Stage;
use soe_core::runtime::{Engine, EngineErrorKind};
use soe_core::testing::{MockLlm, any, node, stage};

use crate::common::*;

const TWO: &str = "
identities: {poet: You are a poet., critic: You judge.}
workflows:
  flow:
    Write:
      node_type: llm
      event_triggers: [START]
      identity: poet
      prompt: 'Write about {{ context.topic }}'
      output_field: poem
      event_emissions: [{signal_name: WRITTEN}]
    Judge:
      node_type: llm
      event_triggers: [WRITTEN]
      identity: '{{ context.judge }}'
      prompt: Is it good?
      output_field: verdict
      event_emissions: [{signal_name: DONE}]
";

fn roles(turns: &[Turn]) -> Vec<(&str, &str)> {
    turns
        .iter()
        .map(|turn| (turn.role.as_ref(), turn.content.as_ref()))
        .collect()
}

fn user(content: &str) -> Turn {
    Turn {
        role: "user".into(),
        content: content.into(),
        tool_name: None,
        key: None,
    }
}

#[tokio::test]
async fn nodes_with_an_identity_share_a_history_and_each_sees_its_own_prompt() {
    let llm = MockLlm::new();
    llm.on(node("Write")).output("Roses.");
    llm.on(node("Judge")).output(json!({"good": true}));
    let done = run_with(&llm, start(TWO).field("topic", "love").field("judge", "critic")).await;
    done.result.as_ref().unwrap();
    let requests = llm.requests();
    assert_eq!(asked(&requests[0])["conversation_history"], "[system]: You are a poet.");
    assert_eq!(
        asked(&requests[1])["conversation_history"],
        "[system]: You judge.\n[user]: Write about love\n[assistant]: Roses."
    );
    let conversation = done.engine.conversation(&done.id).await.unwrap();
    let turns = conversation.turns().await.unwrap();
    assert_eq!(
        roles(&turns),
        [
            ("system", "You are a poet."),
            ("user", "Write about love"),
            ("assistant", "Roses."),
            ("user", "Is it good?"),
            ("assistant", r#"{"good":true}"#),
        ]
    );
    let keys: BTreeSet<_> = turns.iter().map(|turn| turn.key.clone().unwrap()).collect();
    assert_eq!(keys.len(), 5);
    assert_eq!(turns[1].key.as_deref(), Some(format!("{}:1/0", done.id).as_str()));
}

#[tokio::test]
async fn without_an_identity_there_is_no_history() {
    let llm = MockLlm::new();
    llm.on(any()).output("x");
    // A template that renders to nothing is no identity.
    let done = run_with(&llm, start(TWO).field("topic", "love").field("judge", " ")).await;
    assert_eq!(asked(&llm.requests()[1])["conversation_history"], "");
    let conversation = done.engine.conversation(&done.id).await.unwrap();
    assert_eq!(conversation.turns().await.unwrap().len(), 3);
}

#[tokio::test]
async fn an_identity_that_is_not_defined_keeps_a_history_all_the_same() {
    let llm = MockLlm::new();
    llm.on(any()).output("x");
    run_with(&llm, start(TWO).field("topic", "love").field("judge", "nobody")).await;
    assert_eq!(
        asked(&llm.requests()[1])["conversation_history"],
        "[user]: Write about love\n[assistant]: x"
    );
}

#[tokio::test]
async fn a_window_bounds_what_is_sent_and_never_drops_the_identity() {
    let yaml = "
identities: {a: Be brief.}
workflows:
  flow:
    N:
      node_type: llm
      event_triggers: [START, AGAIN]
      identity: a
      history_window: WINDOW
      prompt: 'n {{ context.__operational__.llm_calls }}'
      output_field: x
      event_emissions: [{signal_name: AGAIN, condition: '{{ context.__operational__.llm_calls < 4 }}'}]
";
    for (window, expected) in [
        ("2", "[system]: Be brief.\n[user]: n 3\n[assistant]: y"),
        ("3", "[system]: Be brief.\n[user]: n 3\n[assistant]: y"),
        ("{characters: 30}", "[system]: Be brief.\n[user]: n 3\n[assistant]: y"),
        ("{turns: 1, characters: 100}", "[system]: Be brief.\n[assistant]: y"),
    ] {
        let llm = MockLlm::new();
        llm.on(any()).output("y");
        let done = run_with(&llm, start(&yaml.replace("WINDOW", window))).await;
        assert_eq!(asked(&llm.requests()[3])["conversation_history"], expected, "{window}");
        let turns = done.engine.conversation(&done.id).await.unwrap().turns().await.unwrap();
        assert_eq!(turns.len(), 9, "nothing is lost from what is stored");
    }
}

#[tokio::test(start_paused = true)]
async fn parallel_nodes_lose_no_turn() {
    let mut yaml = "identities: {a: A., b: B.}\nworkflows:\n  flow:\n".to_owned();
    for n in 0..30 {
        let identity = ["a", "b"][n % 2];
        yaml += &format!(
            "    N{n}: {{node_type: llm, event_triggers: [START], prompt: p{n}, identity: {identity}, output_field: x}}\n"
        );
    }
    let llm = MockLlm::new();
    llm.on(any()).output("y").after(Duration::from_millis(20));
    let done = run_with(&llm, start(&yaml)).await;
    let turns = done.engine.conversation(&done.id).await.unwrap().turns().await.unwrap();
    assert_eq!(turns.len(), 61);
    assert_eq!(turns.iter().filter(|turn| turn.role.as_ref() == "system").count(), 1);
    assert_eq!(turns[0].role.as_ref(), "system");
    for pair in turns[1..].chunks(2) {
        assert_eq!(
            (pair[0].role.as_ref(), pair[1].role.as_ref()),
            ("user", "assistant"),
            "a turn stays together"
        );
    }
    let prompts: BTreeSet<_> = turns
        .iter()
        .filter(|turn| turn.content.starts_with('p'))
        .map(|t| &t.content)
        .collect();
    assert_eq!(prompts.len(), 30);
}

#[tokio::test]
async fn an_agent_appends_what_its_tools_did_and_sees_earlier_turns() {
    let yaml = "
identities: {a: Act.}
workflows:
  flow:
    Ask: {node_type: llm, event_triggers: [START], prompt: ask, identity: a, output_field: x, event_emissions: [{signal_name: GO}]}
    Act: {node_type: agent, event_triggers: [GO], prompt: act, identity: a, tools: [echo, fail], output_field: y,
          event_emissions: [{signal_name: NEXT}]}
    Last: {node_type: llm, event_triggers: [NEXT], prompt: last, identity: a, output_field: z}
";
    let llm = MockLlm::new();
    llm.on(stage(Stage::Router))
        .call_tool("echo")
        .call_tool("fail")
        .call_tool("none")
        .finish();
    llm.on(stage(Stage::Parameter))
        .arguments(json!({"text": "said"}))
        .arguments(json!({}));
    llm.on(any()).output("ok");
    let done = run_with(&llm, start(yaml)).await;
    done.result.as_ref().unwrap();
    let turns = done.engine.conversation(&done.id).await.unwrap().turns().await.unwrap();
    let system_error = "there is no tool 'none'; there are: echo, fail";
    assert_eq!(
        roles(&turns),
        [
            ("system", "Act."),
            ("user", "ask"),
            ("assistant", "ok"),
            ("tool", "said"),
            ("tool_error", "it broke"),
            ("system_error", system_error),
            ("user", "last"),
            ("assistant", "ok"),
        ]
    );
    assert_eq!(turns[3].tool_name.as_deref(), Some("echo"));
    let requests = llm.requests();
    let response = requests
        .iter()
        .find(|request| request.stage == Stage::Response)
        .unwrap();
    let entries = format!("[Tool: echo]\nsaid\n[Tool Error: fail]\nit broke\n[System Error]\n{system_error}");
    let earlier = "[system]: Act.\n[user]: ask\n[assistant]: ok";
    assert_eq!(
        asked(response)["conversation_history"],
        format!("{earlier}\n{entries}"),
        "each once"
    );
    assert_eq!(
        asked(requests.last().unwrap())["conversation_history"],
        format!("{earlier}\n{entries}")
    );
}

#[tokio::test]
async fn applications_read_append_replace_and_delete() {
    let llm = MockLlm::new();
    llm.on(any()).output("x");
    let done = run_with(&llm, start(TWO).field("topic", "love").field("judge", "critic")).await;
    let conversation = done.engine.conversation(&done.id).await.unwrap();
    assert_eq!(conversation.main_execution_id(), &done.id);
    conversation.append(&[user("and more")]).await.unwrap();
    assert_eq!(conversation.turns().await.unwrap().len(), 6);
    conversation.replace(&[user("a new beginning")]).await.unwrap();
    done.engine.broadcast_signals(&done.id, ["START"]).await.unwrap();
    done.engine.wait(&done.id).await.unwrap();
    let requests = llm.requests_of("Write");
    assert_eq!(
        asked(&requests[1])["conversation_history"],
        "[system]: You are a poet.\n[user]: a new beginning"
    );
    conversation.delete().await.unwrap();
    assert_eq!(conversation.turns().await.unwrap(), []);
    let missing = done
        .engine
        .conversation(&soe_backends::ExecutionId::new("nobody").unwrap())
        .await
        .unwrap_err();
    assert_eq!(*missing.kind(), EngineErrorKind::NotFound);
}

#[tokio::test]
async fn definitions_are_read_when_a_request_is_made() {
    let llm = MockLlm::new();
    llm.on(any()).output("x");
    let done = run_with(&llm, start(TWO).field("topic", "love").field("judge", "critic")).await;
    let definitions = done.engine.definitions(&done.id).await.unwrap();
    let mut identities = definitions.identities().await.unwrap();
    assert_eq!(identities["critic"].as_ref(), "You judge.");
    identities.insert("critic".into(), "You praise.".into());
    definitions.replace_identities(&identities).await.unwrap();
    let schema = [(Arc::from("verdict"), Value::from("integer"))].into();
    definitions.replace_context_schema(&schema).await.unwrap();
    assert_eq!(definitions.context_schema().await.unwrap(), schema);
    let bad = [(Arc::from("verdict"), Value::from(7_i64))].into();
    let refused = definitions.replace_context_schema(&bad).await.unwrap_err();
    assert!(refused.to_string().contains("verdict"), "{refused}");
    llm.on(any()).output(5);
    done.engine.broadcast_signals(&done.id, ["WRITTEN"]).await.unwrap();
    let _ = done.engine.wait(&done.id).await;
    let request = &llm.requests_of("Judge")[1];
    assert!(request.text.contains("[system]: You praise."));
    assert_eq!(request.schema.as_ref().unwrap()["type"], "integer");
}

#[tokio::test]
async fn stores_without_histories_or_definitions_are_enough() {
    let store = Arc::new(MemoryStore::new());
    let backends = Backends::builder(store.clone(), store).build();
    let llm = MockLlm::new();
    llm.on(any()).output("x");
    let engine = Engine::builder().backends(backends).llm(llm.clone()).build().unwrap();
    let done = run(engine, start(TWO).field("topic", "love").field("judge", "critic")).await;
    done.result.as_ref().unwrap();
    // The tree itself has the identities; nobody keeps what was said.
    assert_eq!(
        asked(&llm.requests()[1])["conversation_history"],
        "[system]: You judge."
    );
    let conversation = done.engine.conversation(&done.id).await.unwrap();
    assert_eq!(conversation.turns().await.unwrap(), []);
    let refused = conversation.append(&[user("x")]).await.unwrap_err();
    assert!(
        refused.to_string().contains("no store for conversation histories"),
        "{refused}"
    );
}

#[tokio::test]
async fn histories_are_files_that_people_can_read() {
    let folder = tempfile::tempdir().unwrap();
    let llm = MockLlm::new();
    llm.on(any()).output("x");
    let engine = || {
        let backends = Backends::file(folder.path()).unwrap();
        Engine::builder().backends(backends).llm(llm.clone()).build().unwrap()
    };
    let flow = start(TWO).field("topic", "love").field("judge", "critic");
    let done = run(engine(), flow.id(soe_backends::ExecutionId::new("story").unwrap())).await;
    done.result.as_ref().unwrap();
    let written = std::fs::read_to_string(folder.path().join("conversations/story.json")).unwrap();
    let turns: serde_json::Value = serde_json::from_str(&written).unwrap();
    assert_eq!(turns.as_array().unwrap().len(), 5);
    assert_eq!(
        turns[1],
        json!({"role": "user", "content": "Write about love", "key": "story:1/0"})
    );
    // Another process goes on with it.
    let engine = engine();
    engine.broadcast_signals(&done.id, ["WRITTEN"]).await.unwrap();
    engine.wait(&done.id).await.unwrap();
    assert!(llm.requests()[2].text.contains("[user]: Is it good?"));
    assert_eq!(
        engine
            .conversation(&done.id)
            .await
            .unwrap()
            .turns()
            .await
            .unwrap()
            .len(),
        7
    );
}

#[tokio::test(start_paused = true)]
async fn parallel_nodes_are_told_the_same_whoever_is_faster() {
    let yaml = "
identities: {a: A., b: B.}
workflows:
  flow:
    First: {node_type: llm, event_triggers: [START], prompt: first, identity: a, output_field: x, event_emissions: [{signal_name: GO}]}
    Pro: {node_type: llm, event_triggers: [GO], prompt: pro, identity: a, output_field: x, retries: 1}
    Con: {node_type: llm, event_triggers: [GO], prompt: con, identity: b, output_field: x, retries: 1}
";
    let mut told = BTreeSet::new();
    for (pro, con) in [(5, 50), (50, 5), (5, 5)] {
        let llm = MockLlm::new();
        llm.on(node("First")).output("x");
        // Each asks twice: the second time, the other one may be done.
        let late = Duration::from_millis;
        llm.on(node("Pro"))
            .text("?")
            .after(late(pro))
            .output("x")
            .after(late(pro));
        llm.on(node("Con"))
            .text("?")
            .after(late(con))
            .output("x")
            .after(late(con));
        let done = run_with(&llm, start(yaml)).await;
        let histories: Vec<_> = ["Pro", "Con"]
            .iter()
            .flat_map(|name| llm.requests_of(name))
            .map(|request| asked(&request)["conversation_history"].as_str().unwrap().to_owned())
            .collect();
        told.insert(histories);
        let turns = done.engine.conversation(&done.id).await.unwrap().turns().await.unwrap();
        assert_eq!(turns.len(), 7);
    }
    let expected = ["[system]: A.", "[system]: A.", "[system]: B.", "[system]: B."];
    let expected = expected.map(|system| format!("{system}\n[user]: first\n[assistant]: x"));
    assert_eq!(told, BTreeSet::from([expected.to_vec()]));
}
