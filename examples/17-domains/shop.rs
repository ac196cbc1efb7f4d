//! The tools of the three domains.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use soe_core::tools::{ToolContext, ToolDefinition, ToolError, tool_fn};

#[derive(Deserialize, JsonSchema)]
struct Message {
    message: String,
}

#[derive(Serialize)]
struct Order {
    customer: String,
    article: Option<String>,
    quantity: Option<u32>,
    missing: Vec<&'static str>,
}

#[derive(Deserialize, JsonSchema)]
struct Item {
    article: String,
    quantity: u32,
}

#[derive(Deserialize, Serialize, JsonSchema)]
struct Terms {
    unit_cents: u64,
    percent_off: u64,
}

#[derive(Deserialize, JsonSchema)]
struct Calculation {
    terms: Terms,
    quantity: u32,
}

#[derive(Serialize)]
struct Reservation {
    reserved: bool,
    left: u32,
}

#[derive(Deserialize, JsonSchema)]
struct Parcel {
    customer: String,
}

/// Stands for a warehouse: the stock of each article.
#[derive(Clone)]
struct Warehouse(Arc<Mutex<HashMap<String, u32>>>);

/// The tools of intake, pricing and fulfilment, with 20 posters and 500 cards in stock.
pub fn tools() -> [ToolDefinition; 5] {
    let stock = [("posters", 20), ("cards", 500)].map(|(article, pieces)| (article.to_owned(), pieces));
    let warehouse = Warehouse(Arc::new(Mutex::new(HashMap::from(stock))));
    [
        tool_fn("read_message", "Makes an order of a message.", read_message),
        tool_fn("find_terms", "The price of one piece, and the discount.", find_terms),
        tool_fn("calculate_price", "The price of an order.", calculate_price),
        tool_fn("reserve", "Takes pieces out of the stock.", move |item: Item, _| {
            let reservation = warehouse.reserve(&item);
            async move { Ok(reservation) }
        }),
        tool_fn("ship", "Sends a parcel.", ship),
    ]
}

/// Reads `Ada: 12 posters`.
async fn read_message(args: Message, _: ToolContext) -> Result<Order, ToolError> {
    let (customer, wish) = args.message.split_once(':').unwrap_or(("", &args.message));
    let words: Vec<&str> = wish.split_whitespace().collect();
    let order = Order {
        customer: customer.trim().to_owned(),
        article: words
            .iter()
            .find(|word| unit_cents(word).is_some())
            .map(|word| (*word).to_owned()),
        quantity: words.iter().find_map(|word| word.parse().ok()),
        missing: Vec::new(),
    };
    let missing = [
        ("customer", order.customer.is_empty()),
        ("article", order.article.is_none()),
        ("quantity", order.quantity.is_none()),
    ];
    let missing = missing
        .iter()
        .filter(|(_, is_missing)| *is_missing)
        .map(|(part, _)| *part)
        .collect();
    Ok(Order { missing, ..order })
}

fn unit_cents(article: &str) -> Option<u64> {
    match article {
        "posters" => Some(900),
        "cards" => Some(40),
        _ => None,
    }
}

async fn find_terms(item: Item, _: ToolContext) -> Result<Terms, ToolError> {
    let unit_cents = unit_cents(&item.article);
    Ok(Terms {
        unit_cents: unit_cents.ok_or_else(|| ToolError::new(format!("'{}' has no price", item.article)).no_retry())?,
        percent_off: if item.quantity >= 10 { 15 } else { 0 },
    })
}

async fn calculate_price(args: Calculation, _: ToolContext) -> Result<u64, ToolError> {
    let full = args.terms.unit_cents * u64::from(args.quantity);
    Ok(full * (100 - args.terms.percent_off.min(100)) / 100)
}

impl Warehouse {
    fn reserve(&self, item: &Item) -> Reservation {
        let mut stock = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let in_stock = stock.entry(item.article.clone()).or_default();
        let left = in_stock.checked_sub(item.quantity);
        *in_stock = left.unwrap_or(*in_stock);
        Reservation {
            reserved: left.is_some(),
            left: *in_stock,
        }
    }
}

/// The key is the same if the run is repeated after a crash, so a carrier would not be sent twice.
async fn ship(parcel: Parcel, context: ToolContext) -> Result<String, ToolError> {
    Ok(format!("for {}, number {}", parcel.customer, context.idempotency_key()))
}
