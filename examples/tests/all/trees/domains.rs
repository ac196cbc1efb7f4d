//! 17 Domains as child workflows.

use serde_json::{Value, json};
use soe_core::runtime::{Engine, EngineBuilder};

use crate::support::{Done, has_line, run, stdout};

#[path = "../../../17-domains/shop.rs"]
mod shop;

async fn order(message: &str) -> Done {
    let builder = shop::tools().into_iter().fold(Engine::builder(), EngineBuilder::tool);
    let workflow = include_str!("../../../17-domains/workflow.yaml");
    run(builder, workflow, json!({"message": message})).await
}

impl Done {
    /// The workflows of the tree, each with the names of its fields, in the order in which they began.
    async fn knowledge(&self) -> Vec<(String, Vec<String>)> {
        let tree = self.engine.tree(&self.id).await.unwrap();
        let known = tree.executions.values().map(|execution| {
            let fields = execution.context.fields.iter().map(|(name, _)| name.to_string());
            (execution.workflow.to_string(), fields.collect())
        });
        known.collect()
    }
}

#[test]
fn the_program_shows_three_ends() {
    let printed = stdout(env!("CARGO_BIN_EXE_17-domains"), &[]);
    for line in [
        "  order: START ACCEPTED PRICED SHIPPED CLOSED",
        "    price_cents: 9180",
        "    tracking: for Ada, number order-1.3.0:2",
        "  order: START REJECTED CLOSED",
        r#"    order: {"customer":"Ben","article":"posters","quantity":null,"missing":["quantity"]}"#,
        "  order: START ACCEPTED PRICED OUT_OF_STOCK CLOSED",
        r#"    reservation: {"reserved":false,"left":8}"#,
    ] {
        has_line(&printed, line);
    }
}

#[tokio::test]
async fn a_domain_knows_what_it_is_told_and_tells_what_is_listed() {
    let done = order("Ada: 12 posters").await;
    done.result.as_ref().unwrap();
    assert_eq!(done.value("price_cents"), 9180);
    let known = done.knowledge().await;
    let expected = [
        ("order", vec!["message", "order", "price_cents", "tracking"]),
        ("intake", vec!["message", "order"]),
        ("pricing", vec!["order", "terms", "price_cents"]),
        ("fulfilment", vec!["order", "reservation", "tracking"]),
    ];
    for ((workflow, fields), (name, wanted)) in known.iter().zip(&expected) {
        assert_eq!((workflow.as_str(), fields.len()), (*name, wanted.len()), "{known:?}");
        assert!(
            wanted.iter().all(|field| fields.iter().any(|known| known == field)),
            "{known:?}"
        );
    }
    assert_eq!(known.len(), 4);
}

#[tokio::test]
async fn who_is_rejected_meets_no_other_domain() {
    for (message, missing) in [
        ("Ben: some posters", json!(["quantity"])),
        ("Ben: 3 statues", json!(["article"])),
        ("hello", json!(["customer", "article", "quantity"])),
        ("", json!(["customer", "article", "quantity"])),
    ] {
        let done = order(message).await;
        assert_eq!(done.signals(), "START REJECTED CLOSED", "{message}");
        assert_eq!(done.value("order")["missing"], missing, "{message}");
        assert_eq!(done.knowledge().await.len(), 2, "{message}");
    }
}

#[tokio::test]
async fn what_is_not_in_stock_is_priced_and_not_shipped() {
    let done = order("Cleo: 21 posters").await;
    assert_eq!(done.signals(), "START ACCEPTED PRICED OUT_OF_STOCK CLOSED");
    assert_eq!(done.value("tracking"), Value::Null);
    assert_eq!(done.runs("Close"), 1);
}
