//! What happens to the model's tree from outside, and what comes with the end of each event.

use soe_backends::{Status, TreeTotals};

use super::flow::{Child, Kind, Name};
use super::model::{How, Model};

impl<'g> Model<'g> {
    /// Signals from outside. False if they are refused.
    pub fn signal(&mut self, exec: usize, batch: &[Name]) -> bool {
        let accepts = self.status(exec).accepts_signals();
        if accepts {
            self.wake(exec);
            self.broadcast(exec, batch);
            self.end();
        }
        accepts
    }

    /// In a depth-first tree: all that comes of the first signals, with what comes in between.
    pub fn run_through(&mut self, batch: &[Name], later: Vec<(u64, String, Vec<Name>)>, resumes: bool) {
        self.resumes = resumes;
        for (after, id, batch) in later {
            self.later.entry(after).or_default().push((id, batch));
        }
        self.signal(0, batch);
        while let Some((after, batches)) = self.later.pop_first() {
            debug_assert!(after >= self.answers, "it would have come before");
            for (id, batch) in batches {
                if let Some(exec) = self.execs.iter().position(|exec| exec.id == id) {
                    self.signal(exec, &batch);
                }
            }
        }
    }

    /// Cancels an execution and all below it.
    pub fn cancel(&mut self, exec: usize) {
        if self.status(exec) == Status::Cancelled {
            return;
        }
        let state = &mut self.execs[exec];
        let known = state.own == Status::Failed;
        state.own = Status::Cancelled;
        state.runs.clear();
        self.stop(exec);
        if !known {
            self.tell(exec, Vec::new(), true);
        }
        self.end();
    }

    /// Goes on with what has failed. False if that is refused.
    pub fn resume(&mut self, exec: usize) -> bool {
        let ended = |above: usize| matches!(self.execs[above].own, Status::Failed | Status::Cancelled);
        if self.upwards(exec).skip(1).any(ended) || self.execs[exec].own == Status::Cancelled {
            return false;
        }
        if self.execs[exec].own != Status::Failed {
            return true;
        }
        let mut left = vec![exec];
        while let Some(number) = left.pop() {
            let state = &self.execs[number];
            let handled = number != exec && state.parent.is_some_and(|(_, child)| child.failure.is_some());
            match state.own {
                Status::Cancelled => continue,
                Status::Failed if handled => continue,
                Status::Failed => self.execs[number].own = Status::Running,
                _ => {}
            }
            left.extend(self.children(number));
        }
        if let Some((parent, _)) = self.execs[exec].parent {
            self.wake(parent);
        }
        self.perform_again(exec);
        for delivery in std::mem::take(&mut self.kept) {
            let parent = self.execs[delivery.child].parent.map_or(0, |(parent, _)| parent);
            match self.status(parent).accepts_signals() {
                true => self.deliveries.push_back(delivery),
                false => self.kept.push(delivery),
            }
        }
        self.end();
        true
    }

    /// It is taken up again by another process.
    pub fn recover(&mut self) {
        if self.execs[0].own == Status::Running {
            self.perform_again(0);
        }
    }

    fn perform_again(&mut self, exec: usize) {
        for number in (0..self.execs.len())
            .filter(|number| self.is_within(*number, exec))
            .collect::<Vec<_>>()
        {
            let runs: Vec<u64> = match self.is_running(number) {
                true => self.execs[number].runs.keys().copied().collect(),
                false => Vec::new(),
            };
            for run in runs {
                self.ask_again(number, run);
                self.begin_children(number, run);
            }
        }
    }

    fn children(&self, exec: usize) -> Vec<usize> {
        let is_child =
            |(_, other): &(usize, &super::model::Exec<'_>)| other.parent.is_some_and(|(parent, _)| parent == exec);
        self.execs
            .iter()
            .enumerate()
            .filter(is_child)
            .map(|(number, _)| number)
            .collect()
    }

    /// The end of an event: deliveries, children, rest.
    pub(super) fn end(&mut self) {
        loop {
            if let Some(delivery) = self.deliveries.pop_front() {
                self.deliver(delivery);
                continue;
            }
            self.begin_runs();
            if let Some((exec, run)) = self.spawns.front().copied() {
                self.go_on_starting(exec, run);
                continue;
            }
            if self.depth_first() {
                self.rest();
            }
            let Some((exec, batch)) = self.accepted.pop_front() else {
                break;
            };
            if self.status(exec).accepts_signals() {
                self.wake(exec);
                self.broadcast(exec, &batch);
            }
        }
        self.rest();
    }

    /// What was dispatched reads the context as it is now.
    pub(super) fn begin_runs(&mut self) {
        let fresh = std::mem::take(&mut self.fresh);
        for (exec, run) in &fresh {
            if self.is_running(*exec) {
                self.ask(*exec, *run);
            }
        }
        for (exec, run) in fresh {
            let state = &mut self.execs[exec];
            let Some(in_flight) = state.runs.get_mut(&run) else {
                continue;
            };
            let signals = state.signals.len();
            match &in_flight.node.kind {
                Kind::Tool { reads: Some(field), .. } => {
                    in_flight.reads = (state.fields.get(field).map_or(0, Vec::len), signals);
                }
                Kind::Child(child) => {
                    let last = |field: &Name| Some((field.clone(), state.fields.get(field)?.last()?.clone()));
                    in_flight.given = child.given.iter().filter_map(last).collect();
                }
                _ => {}
            }
            if self.is_running(exec) {
                self.begin_children(exec, run);
            }
        }
    }

    /// It is known how many children there will be, and they are on the list.
    fn begin_children(&mut self, exec: usize, run: u64) {
        let of = |child: &Child| match &child.fan_out {
            None => 1,
            Some(field) => self.execs[exec]
                .fields
                .get(field)
                .map_or(0, |history| match history.as_slice() {
                    [soe_backends::Value::List(items)] => items.len() as u64,
                    history => history.len() as u64,
                }),
        };
        let Some(in_flight) = self.execs[exec].runs.get(&run) else {
            return;
        };
        let Kind::Child(child) = &in_flight.node.kind else {
            return;
        };
        let all = of(child);
        let depth_first = self.depth_first();
        let Some(in_flight) = self.execs[exec].runs.get_mut(&run) else {
            return;
        };
        if let How::Starts { total, waits, .. } = &mut in_flight.how {
            total.get_or_insert(all);
            if !*waits && !depth_first && !self.spawns.contains(&(exec, run)) {
                self.spawns.push_back((exec, run));
            }
        }
    }

    /// The next child of a run, or its end.
    fn go_on_starting(&mut self, exec: usize, run: u64) {
        let next = self.next_child(exec, run);
        match next {
            NextChild::Now => self.create(exec, run),
            _ => drop(self.spawns.pop_front()),
        }
        match next {
            NextChild::Later => self.set_waits(exec, run, true),
            NextChild::None => self.started(exec, run),
            _ => {}
        }
    }

    /// In a depth-first tree: one child after the other, each to its rest.
    pub(super) fn start_children(&mut self, exec: usize, run: u64) {
        loop {
            self.rest();
            if !self.is_running(exec) {
                return;
            }
            match self.next_child(exec, run) {
                NextChild::None => return self.started(exec, run),
                NextChild::Now => {}
                NextChild::Later => self.answered(),
            }
            if self.is_running(exec) {
                self.create(exec, run);
            }
        }
    }

    pub(super) fn due(&mut self, exec: usize, run: u64) {
        self.set_waits(exec, run, false);
        self.spawns.push_back((exec, run));
        self.create(exec, run);
    }

    fn set_waits(&mut self, exec: usize, run: u64, now: bool) {
        if let Some(How::Starts { waits, .. }) = self.execs[exec].runs.get_mut(&run).map(|run| &mut run.how) {
            *waits = now;
        }
    }

    fn next_child(&self, exec: usize, run: u64) -> NextChild {
        let in_flight = self.execs[exec].runs.get(&run).map(|run| (&run.node.kind, &run.how));
        let Some((Kind::Child(child), How::Starts { total, created, .. })) = in_flight else {
            return NextChild::None;
        };
        match Some(*created) == *total {
            true => NextChild::None,
            false if child.spaced && *created > 0 => NextChild::Later,
            false => NextChild::Now,
        }
    }

    fn create(&mut self, exec: usize, run: u64) {
        let parent = &mut self.execs[exec];
        let (id, path) = (parent.id.clone(), parent.path.clone());
        let Some(in_flight) = parent.runs.get_mut(&run) else {
            return;
        };
        let (Kind::Child(child), How::Starts { created, .. }) = (&in_flight.node.kind, &mut in_flight.how) else {
            return;
        };
        let place = *created;
        *created += 1;
        let name = in_flight.name.strip_prefix(&path).unwrap_or_default();
        let (name, given) = (format!("{path}{name}.{place}"), in_flight.given.clone());
        parent.totals.children += 1;
        self.used.children += 1;
        let number = self.exec(
            format!("{id}.{run}.{place}"),
            name,
            Some((exec, child)),
            &child.workflow,
        );
        self.execs[number].fields = given.into_iter().map(|(field, value)| (field, vec![value])).collect();
        if child.fan_out.is_some() {
            let item = soe_backends::Value::from(place);
            self.execs[number].fields.insert("item".into(), vec![item]);
        }
        self.broadcast(number, &child.initial);
    }

    fn started(&mut self, exec: usize, run: u64) {
        let Some(run) = self.execs[exec].runs.remove(&run) else {
            return;
        };
        let signals = self.passing(exec, run.node);
        self.broadcast(exec, &signals);
    }

    /// What has nothing in flight rests, the lowest first; what it has left goes to its parent.
    pub(super) fn rest(&mut self) {
        for exec in (0..self.execs.len()).rev() {
            let active = |child: usize| self.execs[child].own == Status::Running;
            let idle = self.execs[exec].runs.is_empty() && !self.children(exec).into_iter().any(active);
            let waits = self.accepted.iter().any(|(other, _)| *other == exec);
            if !idle || waits || self.within.contains(&exec) || !self.is_running(exec) {
                continue;
            }
            let state = &mut self.execs[exec];
            state.own = Status::Rested;
            let used: TreeTotals = state.totals.since(state.sent);
            if let Some((parent, _)) = state.parent {
                state.sent = state.totals;
                let values = std::mem::take(&mut state.unsent);
                self.take_values(parent, used, values);
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum NextChild {
    Now,
    Later,
    None,
}
