//! Checks of leases. Skipped for a store that keeps none.

use super::fixture::{Must, time};
use super::{Factory, Finding, Outcome, ensure};
use crate::{Backends, Timestamp};

async fn keeping(factory: &dyn Factory) -> Result<Backends, Finding> {
    let backends = factory.fresh().await;
    if backends.context().keeps_leases() {
        Ok(backends)
    } else {
        Err(Finding::Skipped("the store keeps no leases"))
    }
}

async fn holds(backends: &Backends, owner: &str, expected: Option<Timestamp>, when: &str) -> Outcome {
    let found = backends.context().lease(owner).await.must("reading a lease")?;
    ensure!(
        found == expected,
        "{when}, the lease of {owner} is {found:?} instead of {expected:?}"
    );
    Ok(())
}

/// What owners say.
pub async fn told(factory: &dyn Factory) -> Outcome {
    let backends = keeping(factory).await?;
    let store = backends.context();
    let long = "x".repeat(160);
    let owners = ["engine", "Engine", "engine.1", "con", long.as_str()];
    for owner in owners {
        holds(&backends, owner, None, "before it said anything").await?;
        store.release(owner).await.must("releasing nothing")?;
    }
    for (number, owner) in (0..).zip(owners) {
        store.heartbeat(owner, time(number)).await.must("a heartbeat")?;
    }
    for (number, owner) in (0..).zip(owners) {
        holds(&backends, owner, Some(time(number)), "after all said something").await?;
    }
    // Going back is the owner's business, and so is a time in the past.
    for until in [time(100), time(50), Timestamp::from_micros(0)] {
        store.heartbeat("engine", until).await.must("another heartbeat")?;
        holds(&backends, "engine", Some(until), "after another heartbeat").await?;
    }
    for _ in 0..2 {
        store.release("engine").await.must("releasing (again)")?;
        holds(&backends, "engine", None, "after its release").await?;
    }
    holds(&backends, "Engine", Some(time(1)), "after the release of another").await?;
    store.heartbeat("engine", time(7)).await.must("a new heartbeat")?;
    holds(&backends, "engine", Some(time(7)), "after a new heartbeat").await
}

/// Leases and restarts.
pub async fn survives(factory: &dyn Factory) -> Outcome {
    let backends = keeping(factory).await?;
    for owner in ["alive", "left"] {
        let heartbeat = backends.context().heartbeat(owner, time(9)).await;
        heartbeat.must("a heartbeat")?;
    }
    backends.context().release("left").await.must("releasing")?;
    let Some(backends) = factory.reopen(backends).await else {
        return Err(Finding::Skipped("the factory can't re-open a store"));
    };
    holds(&backends, "alive", Some(time(9)), "after re-opening").await?;
    holds(&backends, "left", None, "after re-opening").await
}
