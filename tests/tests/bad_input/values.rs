//! Large values, many fields, odd texts and numbers.

use serde_json::json;
use soe_backends::{Backends, Value};
use soe_core::config::Config;
use soe_core::nodes::{NodeInput, NodeOutput};
use soe_core::runtime::{Engine, EngineErrorKind};
use soe_core::tools::{NoArguments, ToolContext, raw_tool, tool_fn};

use crate::common::*;

#[tokio::test]
async fn numbers_that_json_lacks_are_null() {
    for number in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let tool = tool_fn(
            "work",
            "",
            move |_: NoArguments, _| async move { Ok(vec![number, 1.0]) },
        );
        assert_eq!(
            result(&engine_with(tool), start(WORK)).await.to_json(),
            json!([null, 1.0])
        );
        assert_eq!(Value::from(number), Value::Null);
    }
}

#[tokio::test]
async fn odd_texts_are_kept_in_every_store() {
    let odd = "\0 \u{1b}[2J \u{7} \r\n \u{202e}abc\u{2066} \u{feff} \u{fffd} \u{10ffff} \u{d7ff} 👩‍👩‍👧 \u{85}\u{2028}";
    let folder = tempfile::tempdir().unwrap();
    for backends in [Backends::memory(), Backends::file(folder.path()).unwrap()] {
        let builder = Engine::builder().backends(backends.clone());
        let engine = builder.tool(returns(move || json!({odd: [odd]}))).build().unwrap();
        let orchestration = start(WORK).field("x", odd).field(odd, odd).signal(odd);
        let execution = engine.start(orchestration).await.unwrap();
        execution.wait().await.unwrap();
        let again = Engine::builder().backends(backends).build().unwrap();
        let again = again.execution(execution.id().clone());
        assert_eq!(last(&again, "result").await.to_json(), json!({odd: [odd]}));
        assert_eq!(last(&again, odd).await.as_str(), Some(odd));
        let context = again.context().await.unwrap();
        assert!(context.operational.signals.contains(odd));
    }
}

#[tokio::test]
async fn ten_megabytes_from_a_tool() {
    let text = || json!("x".repeat(10 << 20));
    assert_eq!(
        result(&engine_with(returns(text)), start(WORK))
            .await
            .as_str()
            .unwrap()
            .len(),
        10 << 20
    );
    let keys = || {
        (0..200_000)
            .map(|i| (format!("key{i}"), json!(i)))
            .collect::<serde_json::Map<_, _>>()
            .into()
    };
    let made = result(&engine_with(returns(keys)), start(WORK)).await;
    assert_eq!(made.as_map().unwrap().len(), 200_000);
    assert_eq!(made.get("key199999").and_then(Value::as_i64), Some(199_999));
}

#[tokio::test]
async fn a_hundred_thousand_fields_and_a_name_of_a_megabyte() {
    let name = "n".repeat(1 << 20);
    let orchestration = (0..100_000).fold(start(ROUTER), |all, i| all.field(format!("f{i}"), i as i64));
    let engine = engine();
    let execution = engine.start(orchestration.field(name.as_str(), 1)).await.unwrap();
    soon(execution.wait()).await.unwrap();
    let context = execution.context().await.unwrap();
    assert_eq!(context.fields.len(), 100_001);
    assert_eq!(context.value("f99999").and_then(Value::as_i64), Some(99_999));
    assert_eq!(context.value(&name).and_then(Value::as_i64), Some(1));
}

#[tokio::test]
async fn a_template_in_a_megabyte_of_text() {
    let around = "lorem ipsum ".repeat(43_000);
    let yaml = |more: &str| {
        let text = format!("{around}{{{{ context.x }}}}{around}{more}");
        format!(
            "flow: {{N: {{node_type: tool, event_triggers: [START], tool_name: work, output_field: result, \
             parameters: {{text: '{text}'}}}}}}"
        )
    };
    let echo = || {
        raw_tool("work", "", |arguments: serde_json::Value, _: ToolContext| async move {
            Ok(arguments["text"].clone())
        })
    };
    let text = result(&engine_with(echo()), start(&yaml("")).field("x", "HERE")).await;
    assert_eq!(text.as_str().unwrap(), format!("{around}HERE{around}"));
    let error = Config::from_yaml(&yaml(&around)).unwrap_err().to_string();
    assert!(
        error.contains("bytes") && error.len() < 1_000,
        "{}",
        &error[..error.len().min(1_000)]
    );
}

#[tokio::test]
async fn reserved_names_are_nobodys() {
    for name in ["__operational__", "__parent__", "__engine__", "__", "__mine"] {
        let error = engine().orchestrate(start(ROUTER).field(name, 1)).await.unwrap_err();
        assert_eq!(error.kind(), &EngineErrorKind::Refused);
        assert!(
            error.to_string().contains("reserved") && error.to_string().contains(name),
            "{error}"
        );

        let node = move |_: NodeInput| async move { Ok(NodeOutput::new().write(name, 1)) };
        let engine = Engine::builder().node_type("own", node).build().unwrap();
        let flow = start("flow: {N: {node_type: own, event_triggers: [START]}}");
        let error = engine.orchestrate(flow).await.unwrap_err();
        assert!(
            matches!(error.kind(), EngineErrorKind::Failed(_)) && error.to_string().contains(name),
            "{error}"
        );

        let error = Config::from_yaml(&WORK.replace("result", name)).unwrap_err();
        assert!(error.to_string().contains(name), "{error}");
    }
}
