//! The shop's tools. A real shop would have a database and a payment service here.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use soe_core::runtime::EngineBuilder;
use soe_core::tools::{ToolContext, ToolError, tool_fn};

pub struct Shop {
    stock: Mutex<HashMap<&'static str, u32>>,
}

#[derive(Deserialize, JsonSchema)]
struct Order {
    customer: String,
    article: String,
    quantity: u32,
}

#[derive(Deserialize, JsonSchema)]
struct CheckArgs {
    order: Order,
}

#[derive(Serialize)]
struct Check {
    problems: Vec<String>,
    total_cents: u64,
}

#[derive(Deserialize, JsonSchema)]
struct StockArgs {
    article: String,
    quantity: u32,
}

#[derive(Serialize)]
struct Reservation {
    reserved: bool,
    available: u32,
}

#[derive(Deserialize, JsonSchema)]
struct ChargeArgs {
    customer: String,
    cents: u64,
}

#[derive(Serialize)]
struct Payment {
    reference: String,
    cents: u64,
}

#[derive(Deserialize, JsonSchema)]
struct ShipArgs {
    customer: String,
    note: String,
}

#[derive(Serialize)]
struct Parcel {
    tracking: String,
}

/// Adds the tools to an engine that is being built.
pub fn register(engine: EngineBuilder, shop: &Arc<Shop>) -> EngineBuilder {
    let (reserving, releasing) = (shop.clone(), shop.clone());
    engine
        .tool(tool_fn("check_order", "Says what is wrong with an order.", check_order))
        .tool(tool_fn(
            "reserve_stock",
            "Sets articles aside.",
            move |args: StockArgs, _| {
                let shop = reserving.clone();
                async move { Ok(shop.reserve(&args)) }
            },
        ))
        .tool(tool_fn(
            "release_stock",
            "Gives set aside articles back.",
            move |args: StockArgs, _| {
                let shop = releasing.clone();
                async move {
                    shop.release(&args);
                    Ok(())
                }
            },
        ))
        .tool(
            tool_fn("charge_card", "Charges the customer's card.", charge_card)
                .retries(3)
                .failure_signal("PAYMENT_FAILED"),
        )
        .tool(tool_fn("ship", "Hands a parcel to the carrier.", ship))
}

impl Shop {
    pub fn new<const N: usize>(stock: [(&'static str, u32); N]) -> Self {
        Self {
            stock: Mutex::new(stock.into()),
        }
    }

    pub fn stock(&self, article: &str) -> u32 {
        self.shelves().get(article).copied().unwrap_or(0)
    }

    fn reserve(&self, args: &StockArgs) -> Reservation {
        let mut shelves = self.shelves();
        let Some(available) = shelves.get_mut(args.article.as_str()) else {
            return Reservation {
                reserved: false,
                available: 0,
            };
        };
        let reserved = *available >= args.quantity;
        if reserved {
            *available -= args.quantity;
        }
        Reservation {
            reserved,
            available: *available,
        }
    }

    fn release(&self, args: &StockArgs) {
        if let Some(available) = self.shelves().get_mut(args.article.as_str()) {
            *available += args.quantity;
        }
    }

    fn shelves(&self) -> MutexGuard<'_, HashMap<&'static str, u32>> {
        self.stock.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn check_order(args: CheckArgs, _: ToolContext) -> Result<Check, ToolError> {
    let order = args.order;
    let price = match order.article.as_str() {
        "teapot" => Some(3_900),
        "cup" => Some(850),
        "tray" => Some(2_200),
        _ => None,
    };
    let mut problems = Vec::new();
    if order.customer.trim().is_empty() {
        problems.push("the customer's name is missing".to_owned());
    }
    if order.quantity == 0 {
        problems.push("the quantity is zero".to_owned());
    }
    if price.is_none() {
        problems.push(format!("there is no article '{}'", order.article));
    }
    let total_cents = price.unwrap_or(0) * u64::from(order.quantity);
    Ok(Check { problems, total_cents })
}

async fn charge_card(args: ChargeArgs, context: ToolContext) -> Result<Payment, ToolError> {
    if args.customer.contains("no money") {
        // Trying again wouldn't help, so it isn't done.
        return Err(ToolError::new("card declined: insufficient funds").no_retry());
    }
    if args.customer.contains("flaky bank") && context.attempt() < 3 {
        return Err(ToolError::new("the bank didn't answer"));
    }
    // The key is the same in every attempt: a payment service that gets it twice charges once.
    Ok(Payment {
        reference: context.idempotency_key(),
        cents: args.cents,
    })
}

async fn ship(args: ShipArgs, _: ToolContext) -> Result<Parcel, ToolError> {
    let tracking = format!("{} on the way to {}", args.note, args.customer);
    Ok(Parcel { tracking })
}
