//! Checks of several who post to one tree while its owner takes.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use super::fixture::{Must, Writer};
use super::inbox::signal;
use super::{Factory, Outcome, Task, ensure};
use crate::{Backends, Change, Commit, Posted};

/// Several posters, and the owner who takes.
pub async fn concurrent(factory: &dyn Factory) -> Outcome {
    const POSTERS: usize = 6;
    const EACH: usize = 15;
    let backends = factory.fresh().await;
    let mut writer = Writer::create(&backends, "concurrent").await?;
    let tree = writer.id.clone();
    let enter = |poster: usize| {
        let (backends, tree) = (backends.clone(), tree.clone());
        Box::pin(async move {
            for number in 0..EACH {
                for name in [format!("{poster}/{number}"), format!("shared/{number}")] {
                    // One that failed is found below: it is missing.
                    let _ = backends.context().post(&tree, &signal(&tree, &name)).await;
                }
            }
        }) as Task
    };
    let mut tasks: Vec<Task> = (0..POSTERS).map(enter).collect();
    let seen = Arc::new(Mutex::new(Seen::new()));
    tasks.push(Box::pin(take(backends.clone(), writer.next(Vec::new()), seen.clone())));
    factory.concurrently(tasks).await;
    let (commits, mut all) = {
        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
        let (commits, taken): (Vec<Commit>, Vec<Vec<Posted>>) = seen.drain(..).unzip();
        (commits, taken.concat())
    };
    writer.fold(&commits)?;
    writer.verify("after taking beside posters").await?;
    let left = backends.context().inbox(&tree, 0, usize::MAX).await;
    all.extend(left.must("reading an inbox")?);
    ensure!(
        all.is_sorted_by(|a, b| a.seq < b.seq),
        "messages were taken in another order than that of their places"
    );
    let names: Vec<_> = all.iter().map(|posted| posted.message.id.as_ref()).collect();
    let distinct: HashSet<_> = names.iter().collect();
    ensure!(
        distinct.len() == names.len(),
        "{} messages are doubled",
        names.len() - distinct.len()
    );
    let expected = (POSTERS + 1) * EACH;
    ensure!(
        names.len() == expected,
        "{} of {expected} messages are there",
        names.len()
    );
    for poster in 0..POSTERS {
        let prefix = format!("{poster}/");
        let own = names
            .iter()
            .filter_map(|name| name.strip_prefix(&prefix)?.parse::<usize>().ok());
        ensure!(own.eq(0..EACH), "the messages of one sender are in another order");
    }
    Ok(())
}

/// Commits that were stored, with what each took.
type Seen = Vec<(Commit, Vec<Posted>)>;

/// Takes what is there a few times; keeps the commits that were stored, with what each took.
async fn take(backends: Backends, first: Commit, seen: Arc<Mutex<Seen>>) {
    let mut next = first;
    for _ in 0..10 {
        let taken = backends.context().inbox(&next.tree, 0, 7).await.unwrap_or_default();
        let Some(last) = taken.last() else { continue };
        next.changes = vec![Change::Taken(last.seq)];
        if backends.commit(vec![next.clone()], None).await.is_ok() {
            let stored = next.clone();
            next.version += 1;
            seen.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push((stored, taken));
        }
    }
}
