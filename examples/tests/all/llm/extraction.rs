//! 13 Structured extraction.

use serde_json::{Value as Json, json};
use soe_core::runtime::Engine;
use soe_core::testing::{MockLlm, node};

use super::{Done, has_line, is_mocked, run};
use crate::support::stdout;

#[path = "../../../13-extraction/order.rs"]
mod order;

const PROGRAM: &str = env!("CARGO_BIN_EXE_13-extraction");

async fn extract(llm: &MockLlm) -> Done {
    let builder = Engine::builder().llm(llm.clone()).tool(order::check_order());
    let workflow = include_str!("../../../13-extraction/workflow.yaml");
    run(builder, workflow, json!({"invoice": "4 teapots", "max_readings": 3})).await
}

fn order(quantity: Json, total: Json) -> Json {
    json!({
        "number": "1",
        "customer": {"name": "Ada"},
        "lines": [{"article": "teapot", "quantity": quantity, "unit_price": 39}],
        "total": total,
    })
}

#[test]
fn the_program_accepts_the_order() {
    let printed = stdout(PROGRAM, &[]);
    is_mocked(&printed);
    has_line(
        &printed,
        "the reply is not valid: lines[0].quantity: should be an integer, not \"four\"",
    );
    has_line(
        &printed,
        "the tool says: the articles and the delivery make 204.90, but the invoice says 289.90 EUR",
    );
    has_line(&printed, "12 x cup at 8.50 (two with a chip)");
    has_line(&printed, "accepted: 289.90");
    has_line(
        &printed,
        "3 requests to the LLM, 1350 tokens, 2 tool calls, 1 failed attempt",
    );
    has_line(
        &stdout(PROGRAM, &["--max-readings", "1"]),
        "not accepted: a person has to look at it",
    );
}

#[tokio::test]
async fn what_is_read_has_the_form_of_the_schema_and_goes_into_the_tool() {
    let llm = MockLlm::new();
    llm.on(node("Extract")).output(order(json!("4"), json!("156.00")));
    let done = extract(&llm).await;
    assert_eq!(done.signals(), "START EXTRACTED ORDER_ACCEPTED");
    let expected = json!({
        "number": "1",
        "customer": {"name": "Ada"},
        "lines": [{"article": "teapot", "quantity": 4, "unit_price": 39.0, "note": ""}],
        "delivery": 0,
        "total": 156.0,
        "currency": "EUR",
    });
    assert_eq!(
        done.value("order"),
        expected,
        "texts are numbers, defaults are filled in"
    );
    assert_eq!(done.value("check")["total_cents"], 15_600);
}

#[tokio::test]
async fn no_number_is_too_large_for_the_tool() {
    let llm = MockLlm::new();
    llm.on(node("Extract")).output(json!({
        "number": "1",
        "customer": {"name": "Ada"},
        "lines": [{"article": "star", "quantity": 4_000_000_000_u32, "unit_price": 1e300}],
        "total": 1,
    }));
    let done = extract(&llm).await;
    assert_eq!((done.times("NEEDS_A_PERSON"), done.counts()[2]), (1, 0));
}

#[tokio::test]
async fn an_invalid_reply_is_asked_again_with_every_problem() {
    let llm = MockLlm::new();
    llm.on(node("Extract"))
        .output(json!({"number": "1", "customer": "Ada", "lines": [{"article": "teapot", "quantity": 4.5, "unit_price": true}]}))
        .output(order(json!(4), json!(156)));
    let done = extract(&llm).await;
    assert_eq!(
        (done.signals().as_str(), done.counts()),
        ("START EXTRACTED ORDER_ACCEPTED", [2, 1, 1])
    );
    let again = &llm.requests()[1].text;
    for problem in [
        "customer: should be an object",
        "lines[0].quantity: should be an integer, not 4.5",
        "lines[0].unit_price: should be a number, not true",
        "total: is missing",
    ] {
        assert!(again.contains(problem), "{problem}: {again}");
    }
}

#[tokio::test]
async fn a_sum_that_is_wrong_is_read_again_but_not_for_ever() {
    let llm = MockLlm::new();
    llm.on(node("Extract"))
        .output(order(json!(3), json!(156)))
        .output(order(json!(4), json!(156)));
    let done = extract(&llm).await;
    assert_eq!(done.signals(), "START EXTRACTED READ_AGAIN EXTRACTED ORDER_ACCEPTED");
    assert!(
        llm.requests()[1]
            .text
            .contains("make 117.00, but the invoice says 156.00 EUR")
    );

    let llm = MockLlm::new();
    llm.on(node("Extract")).output(order(json!(3), json!(156)));
    let done = extract(&llm).await;
    assert_eq!(
        (llm.calls(), done.times("READ_AGAIN"), done.times("NEEDS_A_PERSON")),
        (3, 2, 1)
    );

    let llm = MockLlm::new();
    llm.on(node("Extract")).text("It is about teapots.");
    let done = extract(&llm).await;
    assert_eq!(
        (done.signals().as_str(), done.counts()),
        ("START UNREADABLE", [3, 0, 3])
    );
}
