//! What the loop can do: look something up in a table, and calculate.

use schemars::JsonSchema;
use serde::Deserialize;
use soe_core::tools::{ToolContext, ToolDefinition, ToolError, tool_fn};

/// The densities, in kg per cubic metre.
const MATERIALS: &str = include_str!("materials.csv");

/// How deep parentheses may nest.
const MAX_DEPTH: usize = 50;

#[derive(Deserialize, JsonSchema)]
struct LookUp {
    material: String,
}

#[derive(Deserialize, JsonSchema)]
struct Calculate {
    expression: String,
}

#[derive(Deserialize, JsonSchema)]
struct NoSuchAction {
    action: String,
}

/// The tools of the loop. Their errors are observations too.
pub fn tools() -> [ToolDefinition; 3] {
    [
        tool_fn("look_up", "The density of a material.", look_up),
        tool_fn(
            "calculate",
            "Evaluates an expression.",
            |args: Calculate, _| async move { Ok(calculate(&args.expression)?) },
        ),
        tool_fn(
            "no_such_action",
            "Says which actions there are.",
            |args: NoSuchAction, _| async move {
                Ok(format!(
                    "there is no action '{}', only look_up, calculate and answer",
                    args.action
                ))
            },
        ),
    ]
    .map(|tool| tool.failure_signal("OBSERVED"))
}

async fn look_up(args: LookUp, _: ToolContext) -> Result<u32, ToolError> {
    let rows = || MATERIALS.lines().skip(1).filter_map(|line| line.split_once(','));
    let wanted = args.material.trim().to_lowercase();
    match rows().find(|(name, _)| *name == wanted) {
        Some((_, density)) => Ok(density.trim().parse()?),
        None => {
            let known: Vec<&str> = rows().map(|(name, _)| name).collect();
            let message = format!("'{}' is not in the table; it has {}", args.material, known.join(", "));
            Err(ToolError::new(message).no_retry())
        }
    }
}

/// An expression that can't be evaluated, and why.
#[derive(Debug, PartialEq)]
pub struct Unreadable(String);

impl std::fmt::Display for Unreadable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "can't be calculated: {}", self.0)
    }
}

impl std::error::Error for Unreadable {}

/// The value of an expression of numbers, `+ - * /` and parentheses. Noise of floating point beyond ten digits is rounded
/// away.
pub fn calculate(expression: &str) -> Result<f64, Unreadable> {
    let mut parser = Parser {
        rest: expression.trim_start(),
        depth: 0,
    };
    let value = parser.sum()?;
    if !parser.rest.is_empty() {
        return Err(Unreadable(format!("'{}' was not expected", parser.rest)));
    }
    if !value.is_finite() {
        return Err(Unreadable(
            "the result is no number; is something divided by zero?".to_owned(),
        ));
    }
    let rounded: f64 = format!("{value:.9e}").parse().unwrap_or(value);
    Ok(rounded)
}

struct Parser<'a> {
    rest: &'a str,
    depth: usize,
}

impl Parser<'_> {
    fn sum(&mut self) -> Result<f64, Unreadable> {
        let mut value = self.product()?;
        loop {
            if self.take('+') {
                value += self.product()?;
            } else if self.take('-') {
                value -= self.product()?;
            } else {
                return Ok(value);
            }
        }
    }

    fn product(&mut self) -> Result<f64, Unreadable> {
        let mut value = self.factor()?;
        loop {
            if self.take('*') {
                value *= self.factor()?;
            } else if self.take('/') {
                value /= self.factor()?;
            } else {
                return Ok(value);
            }
        }
    }

    fn factor(&mut self) -> Result<f64, Unreadable> {
        let mut sign = 1.0;
        while self.take('-') {
            sign = -sign;
        }
        if !self.take('(') {
            return Ok(sign * self.number()?);
        }
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(Unreadable(format!(
                "there are more than {MAX_DEPTH} parentheses in each other"
            )));
        }
        let value = self.sum()?;
        self.depth -= 1;
        match self.take(')') {
            true => Ok(sign * value),
            false => Err(Unreadable("a ')' is missing".to_owned())),
        }
    }

    fn number(&mut self) -> Result<f64, Unreadable> {
        let end = self
            .rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(self.rest.len());
        let (number, rest) = self.rest.split_at(end);
        let value = number.parse();
        let value = value.map_err(|_| Unreadable(format!("a number was expected at '{}'", self.rest)))?;
        self.rest = rest.trim_start();
        Ok(value)
    }

    fn take(&mut self, wanted: char) -> bool {
        match self.rest.strip_prefix(wanted) {
            Some(rest) => {
                self.rest = rest.trim_start();
                true
            }
            None => false,
        }
    }
}
