//! Who is asked.

use serde::Serialize;

#[derive(Serialize)]
pub struct Voter {
    who: &'static str,
    view: &'static str,
}

/// The first `number` of twelve voters.
pub fn voters(number: usize) -> Vec<Voter> {
    let views = VIEWS.iter().take(number);
    views.map(|&(who, view)| Voter { who, view }).collect()
}

const VIEWS: [(&str, &str); 12] = [
    ("a cyclist", "safe streets"),
    ("a baker", "customers who come by car"),
    ("a mother of three", "room to play"),
    ("a taxi driver", "short ways"),
    ("the owner of a café", "tables outside"),
    ("a plumber", "reaching people fast"),
    ("a pupil", "places to meet"),
    ("a pharmacist", "people who can't walk far"),
    ("a doctor", "clean air"),
    ("a farmer", "bringing goods to the market"),
    ("a gardener", "shade and trees"),
    ("a runner", "routes through the town"),
];
