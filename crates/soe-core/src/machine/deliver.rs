//! From children to their parents: what a child has for its parent, and what the parent makes of it, within the event.

use std::sync::Arc;

use soe_backends::{ApplyError, Batch, Delivery, EventKind, ExecutionChange, Failure, Origin, Status, Value};

use super::drain::among;
use super::transaction::{Applied, Transaction};

impl Transaction<'_> {
    /// The signals of a batch that are passed on to the parent.
    pub(super) fn passed_on(&self, signals: &Batch) -> Option<Batch> {
        among(signals, &self.state().context.parent.as_ref()?.signals_to_parent)
    }

    /// Sends signals to the parent, with the values that wait for it.
    pub(super) fn send(&mut self, signals: Batch) -> Applied {
        self.event(EventKind::SignalsToParent {
            signals: signals.clone(),
        });
        let delivery = self.delivery()?;
        self.work.deliveries.push_back(Arc::new(Delivery {
            signals: Some(signals),
            ..delivery
        }));
        Ok(())
    }

    /// Tells the parent that the execution has failed or was cancelled. Signals that were sent before that come first.
    pub(super) fn send_end(&mut self, error: Arc<str>) -> Applied {
        if self.state().origin.is_none() {
            return Ok(());
        }
        let delivery = self.delivery()?;
        self.work.deliveries.push_back(Arc::new(Delivery {
            error: Some(error),
            ..delivery
        }));
        Ok(())
    }

    /// What waits for the parent.
    pub(super) fn delivery(&mut self) -> Result<Delivery, ApplyError> {
        let state = self.state();
        let delivery = Delivery {
            child: self.here,
            updates: state.unsent.values().cloned().collect(),
            used: state.context.operational.tree.since(state.sent),
            ..Delivery::default()
        };
        self.change(ExecutionChange::Sent)?;
        Ok(delivery)
    }

    /// The parent takes what a child has for it: values, failure, signals, all in this event.
    pub(super) fn deliver(&mut self, delivery: &Arc<Delivery>) -> Applied {
        let child = self.machine.state.get(delivery.child);
        let origin = child.and_then(|child| child.origin.clone());
        let origin = origin.ok_or(ApplyError::Mismatch("a delivery came from no child"))?;
        self.enter(origin.parent)?;
        match self.status() {
            Status::Failed | Status::Suspended => return self.keep_for_later(delivery),
            Status::Cancelled => return Ok(()),
            _ => {}
        }
        if let Some((limit, text)) = self.too_much(&delivery.updates) {
            self.fail_for_limit(limit, text)?;
            return self.keep_for_later(delivery);
        }
        self.take_values(delivery)?;
        if let Some(error) = &delivery.error {
            self.wake()?;
            self.child_failed(delivery.child, &origin, error)?;
        }
        match &delivery.signals {
            Some(signals) => {
                self.enter(origin.parent)?;
                self.wake()?;
                match self.is_running() {
                    true => self.take_up(signals.clone()),
                    false => Ok(()),
                }
            }
            None => Ok(()),
        }
    }

    /// Takes the values of a delivery, and what was used.
    pub(super) fn take_values(&mut self, delivery: &Delivery) -> Applied {
        if delivery.used != Default::default() {
            self.change(ExecutionChange::Used(delivery.used))?;
        }
        for (field, value) in &delivery.updates {
            self.change(ExecutionChange::Appended {
                field: field.clone(),
                value: value.clone(),
                size: value.size(),
                delivered: true,
            })?;
            self.updated(field.clone());
        }
        Ok(())
    }

    fn child_failed(&mut self, child: u64, origin: &Arc<Origin>, error: &Arc<str>) -> Applied {
        let id = self.machine.state.get(child).map(|child| child.id.clone());
        let id = id.ok_or(ApplyError::Mismatch("a delivery came from no child"))?;
        self.event(EventKind::ChildFailed {
            child: id.clone(),
            error: error.clone(),
        });
        self.change(ExecutionChange::Error)?;
        match &origin.failure_signal {
            Some(signal) => self.take_up([signal.clone()].into()),
            None => self.fail(Failure {
                message: format!("child execution {id}: {}", without_middle(error)),
                node: Some(origin.node.clone()),
                limit: None,
            }),
        }
    }

    /// The limit that these values would exceed, and how.
    pub(super) fn too_much(&self, updates: &[(Arc<str>, Value)]) -> Option<(&'static str, String)> {
        let size: u64 = updates.iter().map(|(_, value)| value.size()).sum();
        let total = self.state().context_bytes.saturating_add(size);
        let allowed = self.limits().context_bytes;
        (total > allowed).then(|| {
            let message = format!("with the values of a child the context has {total} bytes, {allowed} are allowed");
            ("context_bytes", message)
        })
    }
}

/// The error of a child many levels below begins with the way to it, and ends with what happened.
fn without_middle(error: &str) -> String {
    const BEGINNING: usize = 300;
    const END: usize = 1_000;
    if error.len() <= BEGINNING + END {
        return error.to_owned();
    }
    let boundary = |at: usize| {
        (at..error.len())
            .find(|at| error.is_char_boundary(*at))
            .unwrap_or(error.len())
    };
    let (first, last) = (boundary(BEGINNING), boundary(error.len() - END));
    format!("{}[...]{}", &error[..first], &error[last..])
}
