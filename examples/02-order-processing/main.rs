//! Order processing: typed tools, conditions on their results, retries, and a path for every failure.
//!
//! `cargo run -q -p soe-examples --bin 02-order-processing`

mod shop;

use std::sync::Arc;

use serde_json::json;
use soe_backends::{Context, Value};
use soe_core::config::Config;
use soe_core::runtime::{Engine, Orchestration};

use shop::Shop;

/// Each order ends with one of these signals.
const OUTCOMES: [&str; 4] = ["ORDER_SHIPPED", "ORDER_REJECTED", "OUT_OF_STOCK", "ORDER_CANCELLED"];

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let shop = Arc::new(Shop::new([("teapot", 5), ("cup", 40), ("tray", 3)]));
    let engine = shop::register(Engine::builder(), &shop).build()?;
    // Checked once, shared by all orders.
    let config = Arc::new(Config::from_yaml(include_str!("workflow.yaml"))?);

    let orders = [
        json!({"customer": "Ada", "article": "teapot", "quantity": 1}),
        json!({"customer": "Ben", "article": "teapot", "quantity": 0}),
        json!({"customer": "Cleo", "article": "tray", "quantity": 50}),
        json!({"customer": "Dan (flaky bank)", "article": "cup", "quantity": 6}),
        json!({"customer": "Eve (no money)", "article": "cup", "quantity": 4}),
    ];

    // All orders are started before the first one is waited for: they run side by side.
    let mut executions = Vec::new();
    for order in orders {
        let start = Orchestration::new(config.clone(), "orders")
            .signal("START")
            .field("order", order);
        executions.push(engine.start(start).await?);
    }
    for execution in executions {
        execution.wait().await?;
        let context = execution.context().await?;
        println!("{}", report(&context));
    }

    println!("left: {} teapots, {} cups", shop.stock("teapot"), shop.stock("cup"));
    Ok(())
}

/// One line about an order: how it ended, and why.
fn report(context: &Context) -> String {
    let part = |field: &str, key: &str| context.value(field).and_then(|value| value.get(key)).map(text);
    let signals = &context.operational.signals;
    let outcome = OUTCOMES
        .into_iter()
        .find(|outcome| signals.contains(outcome))
        .unwrap_or("unfinished");
    let detail = match outcome {
        "ORDER_SHIPPED" => part("parcel", "tracking"),
        "ORDER_REJECTED" => part("check", "problems"),
        "OUT_OF_STOCK" => part("reservation", "available").map(|available| format!("only {available} left")),
        // The output of a tool that has failed is the text of its error.
        _ => context.value("payment").map(text),
    };
    let customer = part("order", "customer").unwrap_or_default();
    let failed = context.operational.errors;
    format!(
        "{customer}: {outcome} ({}; failed attempts: {failed})",
        detail.unwrap_or_default()
    )
}

/// Text as it is, everything else as JSON.
fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
