//! Parts of workflows: each takes one signal and ends with one.

use fastrand::Rng;
use soe_backends::Value;

use super::flow::{Cond, Custom, Expr, Fails, Flow, Kept, Kind, Name, Node, Tool};

/// Puts parts together. Every signal in `open` is recorded exactly once, and so is what a part makes of it.
pub(crate) struct Builder {
    pub(crate) rng: Rng,
    pub(crate) flow: Flow,
    pub(crate) open: Vec<Name>,
    prefix: String,
    parts: usize,
}

impl Builder {
    pub(super) fn new(rng: Rng) -> Self {
        Self {
            rng,
            flow: Flow {
                start: vec!["START".into()],
                fields: vec![("given".into(), vec![Value::from("text")])],
                ..Flow::default()
            },
            open: vec!["START".into()],
            prefix: String::new(),
            parts: 0,
        }
    }

    /// As [`Builder::new`], with names that begin like this: those of several workflows don't meet.
    pub(crate) fn prefixed(rng: Rng, prefix: &str) -> Self {
        Self {
            prefix: format!("{prefix}_"),
            ..Self::new(rng)
        }
    }

    /// Adds a random part behind a random signal.
    pub(crate) fn part(&mut self) {
        self.parts += 1;
        if self.rng.u8(..4) == 0 {
            self.external();
        }
        let start = self.open[self.rng.usize(..self.open.len())].clone();
        let end = self.name("end");
        match self.rng.u8(..10) {
            0 => self.routers(start, &end),
            1 | 2 => self.counting_join(start, &end),
            3 => self.many_runs_of_one_node(start, &end),
            4 => self.fan_out(start, &end),
            5 | 6 => self.and_join(start, &end),
            7 => self.guarded_loop(start, &end),
            8 => self.choice(start, &end),
            _ => self.custom(start, &end),
        }
        self.flow.exactly_once.push(end.clone());
        self.open.push(end);
    }

    /// A signal from outside, alone or together with one that nobody listens for.
    fn external(&mut self) {
        let signal = self.name("outside");
        let mut batch = vec![signal.clone()];
        if self.rng.bool() {
            batch.push("NOBODY".into());
        }
        self.flow.external.push(batch);
        self.flow.exactly_once.push(signal.clone());
        self.open.push(signal);
    }

    fn routers(&mut self, start: Name, end: &Name) {
        let mut last = start;
        for i in 0..self.rng.usize(..3) {
            let next = self.name(&format!("step{i}"));
            self.router(&last, &next, Cond::PlainText);
            last = next;
        }
        self.router(&last, end, Cond::Always);
    }

    /// Several workers; the join counts what they wrote.
    fn counting_join(&mut self, start: Name, end: &Name) {
        let (results, items, done) = (self.name("results"), self.name("items"), self.name("done"));
        let count = self.rng.usize(1..=4);
        let accumulated = self.rng.bool();
        for _ in 0..count {
            let gives = if accumulated { Kept::Scalar } else { Kept::Any };
            self.any_worker(std::slice::from_ref(&start), &done, gives, results.clone());
        }
        let cond = if accumulated {
            let item = |i: usize| Value::from(i);
            // One value that is itself a list, or a history of so many values.
            let history = match self.rng.bool() {
                true => vec![Value::list((0..count).map(item))],
                false => (0..count).map(item).collect(),
            };
            self.flow.fields.push((items.clone(), history));
            Cond::SameCount(results, items)
        } else {
            Cond::Count(results, count)
        };
        let last = self.maybe_between(done);
        self.router(&last, end, cond);
    }

    /// One node that runs several times in parallel.
    fn many_runs_of_one_node(&mut self, start: Name, end: &Name) {
        let (results, done) = (self.name("results"), self.name("done"));
        let count = self.rng.usize(2..=4);
        let triggers: Vec<Name> = (0..count).map(|i| self.name(&format!("go{i}"))).collect();
        for trigger in &triggers {
            self.router(&start, trigger, Cond::Always);
        }
        self.any_worker(&triggers, &done, Kept::Any, results.clone());
        let last = self.maybe_between(done);
        self.router(&last, end, Cond::Count(results, count));
    }

    /// A node writes the items, and starts as many workers as there are.
    fn fan_out(&mut self, start: Name, end: &Name) {
        let (items, results, done) = (self.name("items"), self.name("results"), self.name("done"));
        let count = self.rng.usize(1..=4);
        let triggers: Vec<Name> = (0..count).map(|i| self.name(&format!("item{i}"))).collect();
        let custom = Custom {
            writes: vec![(items.clone(), Kept::List(count))],
            signals: Some(triggers.clone()),
            ..Custom::default()
        };
        self.node(&[start], &[], Kind::Custom(custom));
        for trigger in triggers {
            self.any_worker(&[trigger], &done, Kept::Scalar, results.clone());
        }
        self.router(&done, end, Cond::SameCount(results, items));
    }

    /// Several tools with a signal each; the join asks whether all were broadcast.
    fn and_join(&mut self, start: Name, end: &Name) {
        let mut awaited = Vec::new();
        for i in 0..self.rng.usize(2..=3) {
            let done = self.name(&format!("done{i}"));
            let output = self.rng.bool().then(|| "shared".into());
            if self.rng.bool() {
                self.unreliable(std::slice::from_ref(&start), &done, output);
            } else {
                let tool = self.any_tool(&done, Kept::AnyOrNull);
                self.worker(std::slice::from_ref(&start), std::slice::from_ref(&done), tool, output);
            }
            awaited.push(self.maybe_between(done));
        }
        let cond = Cond::Seen(awaited.clone());
        self.node(&awaited, &[(end.clone(), cond)], Kind::Router);
    }

    fn guarded_loop(&mut self, start: Name, end: &Name) {
        let (count, again) = (self.name("count"), self.name("again"));
        let turns = self.rng.usize(1..=4);
        let tool = self.tool(Fails::Never, None, Kept::Any);
        let (go_on, over) = (Cond::Fewer(count.clone(), turns), Cond::Count(count.clone(), turns));
        let both = [(again.clone(), go_on), (end.clone(), over)];
        let triggers = [start, again];
        let kind = match self.rng.bool() {
            true => Kind::Llm(self.calm(Kept::Any, Some(count))),
            false => Kind::Tool {
                tool,
                parameters: vec![("turn".into(), Expr::Count(count.clone()))],
                output: Some(count),
            },
        };
        if self.rng.bool() {
            self.node(&triggers, &both, kind);
        } else {
            let tick = self.name("tick");
            self.node(&triggers, &[(tick.clone(), Cond::Always)], kind);
            self.node(&[tick], &both, Kind::Router);
        }
    }

    /// A node of the application. Both its signals trigger the router behind it, which runs once for the batch.
    fn custom(&mut self, start: Name, end: &Name) {
        let (a, b) = (self.name("a"), self.name("b"));
        let fails = self.rng.u8(..4) == 0;
        let explicit = self.rng.bool();
        let custom = Custom {
            writes: vec![("shared".into(), Kept::AnyOrNull), ("own".into(), Kept::Any)],
            signals: explicit.then(|| vec![a.clone(), b.clone()]),
            fails: if fails { Fails::Always } else { Fails::Never },
            failure_signal: fails.then(|| b.clone()),
        };
        let configured = [
            (a.clone(), Cond::Always),
            (b.clone(), Cond::PlainText),
            ("never".into(), Cond::Broken),
        ];
        let emissions: &[_] = if explicit { &[] } else { &configured };
        self.node(&[start], emissions, Kind::Custom(custom));
        self.node(&[a, b], &[(end.clone(), Cond::Always)], Kind::Router);
    }

    /// `signal`, or that of a router behind it.
    fn maybe_between(&mut self, signal: Name) -> Name {
        if self.rng.bool() {
            return signal;
        }
        let next: Name = format!("{signal}_between").into();
        self.router(&signal, &next, Cond::Always);
        next
    }

    pub(crate) fn router(&mut self, from: &Name, to: &Name, cond: Cond) {
        self.node(std::slice::from_ref(from), &[(to.clone(), cond)], Kind::Router);
    }

    pub(crate) fn worker(&mut self, triggers: &[Name], emitted: &[Name], tool: Name, output: Option<Name>) {
        let counted = output.clone().unwrap_or_else(|| "given".into());
        let parameters = vec![
            ("given".into(), Expr::Last("given".into())),
            ("written".into(), Expr::Count(counted)),
            ("signals".into(), Expr::Signals),
            ("literal".into(), Expr::Literal(self.rng.i64(0..9))),
        ];
        let emissions: Vec<_> = emitted.iter().map(|signal| (signal.clone(), Cond::Always)).collect();
        let kind = Kind::Tool {
            tool,
            output,
            parameters,
        };
        self.node(triggers, &emissions, kind);
    }

    pub(crate) fn node(&mut self, triggers: &[Name], emissions: &[(Name, Cond)], kind: Kind) {
        let what = match kind {
            Kind::Router => "router",
            Kind::Tool { .. } => "worker",
            Kind::Custom(_) => "custom",
            Kind::Llm(_) => "asking",
        };
        self.flow.nodes.push(Node {
            name: format!("{what}{}", self.flow.nodes.len()).into(),
            triggers: triggers.to_vec(),
            emissions: emissions.to_vec(),
            kind,
        });
    }

    /// A tool that works, works in the end, or fails for good with the signal that its node would have emitted.
    pub(crate) fn any_tool(&mut self, done: &Name, returns: Kept) -> Name {
        match self.rng.u8(..6) {
            0 => self.tool(Fails::First(2), None, returns),
            1 => self.tool(Fails::Always, Some(done.clone()), returns),
            _ => self.tool(Fails::Never, None, returns),
        }
    }

    pub(super) fn tool(&mut self, fails: Fails, failure_signal: Option<Name>, returns: Kept) -> Name {
        let name = self.tool_name(self.flow.tools.len());
        self.flow.tools.push(Tool {
            name: name.clone(),
            max_retries: 2,
            failure_signal,
            fails,
            retryable: true,
            returns,
        });
        name
    }

    /// The name of the tool that is registered as the so manieth, from 0.
    pub(super) fn tool_name(&self, place: usize) -> Name {
        format!("{}tool{place}", self.prefix).into()
    }

    pub(crate) fn name(&self, what: &str) -> Name {
        format!("{}p{}_{what}", self.prefix, self.parts).into()
    }
}
