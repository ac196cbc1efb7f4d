//! What was read from an invoice, and what a program can say about it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use soe_core::tools::{ToolContext, ToolDefinition, ToolError, tool_fn};

#[derive(Deserialize, JsonSchema)]
struct CheckArgs {
    order: Order,
}

#[derive(Deserialize, JsonSchema)]
struct Order {
    number: String,
    customer: Customer,
    lines: Vec<Line>,
    delivery: f64,
    total: f64,
    currency: String,
}

#[derive(Deserialize, JsonSchema)]
struct Customer {
    name: String,
    city: Option<String>,
}

#[derive(Deserialize, JsonSchema)]
struct Line {
    article: String,
    quantity: u32,
    unit_price: f64,
    note: String,
}

/// What the check has found; no problems if the order can be accepted.
#[derive(Serialize)]
struct Check {
    /// The order, a line for each article.
    summary: Vec<String>,
    total_cents: i64,
    problems: Vec<String>,
}

/// The tool `check_order`.
pub fn check_order() -> ToolDefinition {
    tool_fn(
        "check_order",
        "Adds an order up, and says what is wrong with it.",
        |args: CheckArgs, _: ToolContext| async move { Ok::<_, ToolError>(args.order.check()) },
    )
}

impl Order {
    fn check(&self) -> Check {
        let mut problems = Vec::new();
        if self.customer.name.trim().is_empty() {
            problems.push("the customer has no name".to_owned());
        }
        if self.lines.is_empty() {
            problems.push("there are no articles".to_owned());
        }
        for line in &self.lines {
            if line.quantity == 0 || line.unit_price < 0.0 {
                problems.push(format!(
                    "'{}': {} pieces at {}",
                    line.article, line.quantity, line.unit_price
                ));
            }
        }
        // In cents, since sums of floating point numbers are rarely equal. An LLM may write any number: none may overflow.
        let prices = self
            .lines
            .iter()
            .map(|line| cents(line.unit_price).saturating_mul(line.quantity.into()));
        let total_cents = prices.fold(cents(self.delivery), i64::saturating_add);
        let stated = cents(self.total);
        if total_cents != stated {
            problems.push(format!(
                "the articles and the delivery make {}, but the invoice says {} {}",
                money(total_cents),
                money(stated),
                self.currency
            ));
        }
        Check {
            summary: self.summary(),
            total_cents,
            problems,
        }
    }

    fn summary(&self) -> Vec<String> {
        let city = self.customer.city.iter().map(|city| format!(", {city}"));
        let head = format!(
            "invoice {} for {}{}",
            self.number,
            self.customer.name,
            city.collect::<String>()
        );
        let lines = self.lines.iter().map(|line| {
            let price = money(cents(line.unit_price));
            let note = Some(line.note.as_str()).filter(|note| !note.is_empty());
            let note = note.map(|note| format!(" ({note})")).unwrap_or_default();
            format!("{} x {} at {price}{note}", line.quantity, line.article)
        });
        std::iter::once(head).chain(lines).collect()
    }
}

fn cents(amount: f64) -> i64 {
    (amount * 100.0).round() as i64
}

/// Cents as an amount of money.
pub fn money(cents: i64) -> String {
    let sign = if cents < 0 { "-" } else { "" };
    let cents = cents.unsigned_abs();
    format!("{sign}{}.{:02}", cents / 100, cents % 100)
}
