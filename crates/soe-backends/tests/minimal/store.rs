use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use soe_backends::stored::{self, Inbox, applied, check_versions, unfit};
use soe_backends::{
    BackendError, BackendErrorKind, Commit, ContextBackend, Deletion, ExecutionId, ExecutionSummary, Guard, ListPage,
    ListQuery, Message, Post, Posted, RegistryDocument, RegistryId, TreeState, WorkflowBackend,
};

/// What is asked of a key-value store. A version is a number that a key never has twice, 0 where there is no value.
#[async_trait]
pub trait Kv: Send + Sync + 'static {
    /// The value of a key, and its version.
    async fn get(&self, key: &str) -> Result<(u64, Option<Vec<u8>>), BackendError>;
    /// Replaces the value if it still has that version, in one step; says whether it had. `None` deletes it.
    async fn put_if(&self, key: &str, version: u64, value: Option<Vec<u8>>) -> Result<bool, BackendError>;
    /// The values of all keys that begin so.
    async fn range(&self, prefix: &str) -> Result<Vec<Vec<u8>>, BackendError>;
}

/// A whole store. `head/TREE` decides what has happened; it names the newest entry of the log, which names the one before.
pub struct KvStore<K>(pub K);

/// So many entries of a log are read at most before one with a state.
const CHECKPOINT: u64 = 64;

#[derive(Clone, Serialize, Deserialize)]
struct Head {
    version: u64,
    fence: u64,
    /// The key of the newest entry.
    entry: String,
    /// For lists.
    summary: ExecutionSummary,
    inbox: Inbox,
}

/// Commits that were stored together. Nobody sees an entry before a head names it.
#[derive(Serialize, Deserialize)]
struct Entry {
    before: Option<String>,
    commits: Vec<Commit>,
    /// The state after them, now and then, as `stored::write_tree` writes it.
    after: Option<String>,
}

fn corrupt(error: impl std::error::Error + Send + Sync + 'static) -> BackendError {
    BackendError::new(BackendErrorKind::Corrupt, "a stored value can't be read").because(error)
}

impl<K: Kv> KvStore<K> {
    async fn head(&self, tree: &ExecutionId) -> Result<(u64, Option<Head>), BackendError> {
        let (version, value) = self.0.get(&format!("head/{tree}")).await?;
        let head = value.map(|json| stored::read(&json).map_err(corrupt));
        Ok((version, head.transpose()?))
    }

    async fn put_head(&self, tree: &ExecutionId, version: u64, head: Option<&Head>) -> Result<bool, BackendError> {
        let json = head.map(stored::write).transpose()?;
        self.0
            .put_if(&format!("head/{tree}"), version, json.map(String::into_bytes))
            .await
    }

    /// Says that a tree may have messages. It is set after them: who deletes a mark has looked before.
    async fn mark(&self, tree: &ExecutionId) -> Result<(), BackendError> {
        let (key, name) = (format!("waiting/{tree}"), stored::write(tree)?.into_bytes());
        while !self
            .0
            .put_if(&key, self.0.get(&key).await?.0, Some(name.clone()))
            .await?
        {}
        Ok(())
    }

    /// The entries from the newest one back to the first that `is_enough`, oldest first.
    async fn log(&self, head: Option<&Head>, is_enough: impl Fn(&Entry) -> bool) -> Result<Vec<Entry>, BackendError> {
        let (mut entries, mut key) = (Vec::new(), head.map(|head| head.entry.clone()));
        while let Some(found) = key {
            let (_, Some(json)) = self.0.get(&found).await? else {
                break; // Deleted meanwhile.
            };
            let entry: Entry = stored::read(&json).map_err(corrupt)?;
            let enough = is_enough(&entry);
            key = entry.before.clone().filter(|_| !enough);
            entries.push(entry);
        }
        entries.reverse();
        Ok(entries)
    }

    /// The state as it was at a version.
    async fn state(&self, head: Option<&Head>, version: u64) -> Result<Option<TreeState>, BackendError> {
        let covers = |entry: &Entry| entry.commits.last().is_some_and(|last| last.version <= version);
        let entries = self.log(head, |entry| entry.after.is_some() && covers(entry)).await?;
        let mut state = None;
        for entry in entries {
            let begins = state.is_none() && covers(&entry);
            let Entry { after, commits, .. } = entry;
            match after.filter(|_| begins) {
                Some(json) => state = Some(stored::read_tree(json.as_bytes()).map_err(corrupt)?),
                None => {
                    let wanted: Vec<_> = commits.into_iter().filter(|commit| commit.version <= version).collect();
                    if !wanted.is_empty() {
                        state = Some(applied(state.as_ref(), &wanted).map_err(corrupt)?);
                    }
                }
            }
        }
        Ok(state.filter(|state| state.version == version))
    }
}

impl Head {
    /// The head after commits.
    fn after(old: Option<Head>, state: &TreeState, entry: String) -> Option<Head> {
        let mut inbox = old.map(|old| old.inbox).unwrap_or_default();
        inbox.take(state.inbox);
        Some(Head {
            version: state.version,
            fence: state.fence(),
            entry,
            summary: state.summary()?,
            inbox,
        })
    }
}

#[async_trait]
impl<K: Kv> ContextBackend for KvStore<K> {
    async fn commit(&self, commits: Vec<Commit>, after: Option<Arc<TreeState>>) -> Result<(), BackendError> {
        let Some(tree) = commits.first().map(|first| first.tree.clone()) else {
            return Ok(());
        };
        let (mut version, mut head) = self.head(&tree).await?;
        check_versions(&commits, head.as_ref().map(|head| (head.version, head.fence)))?;
        let after = match after {
            Some(after) => after,
            None => {
                let before = self
                    .state(head.as_ref(), head.as_ref().map_or(0, |head| head.version))
                    .await?;
                Arc::new(applied(before.as_ref(), &commits).map_err(|error| unfit(&tree, error))?)
            }
        };
        let before = head.as_ref().map(|head| head.entry.clone());
        let due = after.version / CHECKPOINT > head.as_ref().map_or(0, |head| head.version) / CHECKPOINT;
        // The other sections belong to other stores; events are kept, since they are counted.
        let changes = |commit| Commit {
            registries: Vec::new(),
            definitions: None,
            turns: Vec::new(),
            ..commit
        };
        let entry = Entry {
            before: before.clone(),
            after: due.then(|| stored::write_tree(&after)).transpose()?,
            commits: commits.into_iter().map(changes).collect(),
        };
        let key = format!("log/{tree}/{:016x}", RandomState::new().build_hasher().finish());
        self.0
            .put_if(&key, 0, Some(stored::write(&entry)?.into_bytes()))
            .await?;
        // This decides. A message that came meanwhile is no conflict, another commit is one.
        while head.as_ref().map(|head| &head.entry) == before.as_ref() {
            let next = Head::after(head, &after, key.clone());
            if self.put_head(&tree, version, next.as_ref()).await? {
                return Ok(());
            }
            (version, head) = self.head(&tree).await?;
        }
        let found = head.map(|head| head.version);
        Err(BackendError::conflict(&tree, entry.commits[0].version - 1, found))
    }

    async fn load(&self, tree: &ExecutionId) -> Result<Option<Arc<TreeState>>, BackendError> {
        let (_, head) = self.head(tree).await?;
        let version = head.as_ref().map_or(0, |head| head.version);
        Ok(self.state(head.as_ref(), version).await?.map(Arc::new))
    }

    async fn list(&self, query: &ListQuery) -> Result<ListPage, BackendError> {
        let heads = self.0.range("head/").await?;
        let summary = |json: Vec<u8>| stored::read::<Head>(&json).map(|head| head.summary).map_err(corrupt);
        let all: Vec<_> = heads.into_iter().map(summary).collect::<Result<_, _>>()?;
        Ok(ListPage::select(all, query))
    }

    async fn delete(&self, tree: &ExecutionId, guard: Guard) -> Result<Deletion, BackendError> {
        let (version, Some(head)) = self.head(tree).await? else {
            return Ok(Deletion::NoSuchTree);
        };
        if (head.version, head.fence) != (guard.version, guard.fence) || !head.inbox.is_empty() {
            return Ok(Deletion::Changed);
        }
        if !self.put_head(tree, version, None).await? {
            return Ok(Deletion::Changed);
        }
        // Nothing leads to the entries any more.
        let mut key = Some(head.entry);
        while let Some(found) = key {
            let (version, Some(json)) = self.0.get(&found).await? else {
                break;
            };
            key = stored::read::<Entry>(&json).map_err(corrupt)?.before;
            self.0.put_if(&found, version, None).await?;
        }
        Ok(Deletion::Deleted)
    }

    async fn post(&self, tree: &ExecutionId, message: &Message) -> Result<Post, BackendError> {
        loop {
            let (version, Some(mut head)) = self.head(tree).await? else {
                return Ok(Post::NoSuchTree);
            };
            let post = match head.inbox.place(message) {
                Err(seq) => Post::Duplicate(seq),
                Ok(posted) => {
                    let seq = posted.seq;
                    head.inbox.put(posted);
                    if !self.put_head(tree, version, Some(&head)).await? {
                        continue;
                    }
                    Post::Stored(seq)
                }
            };
            // Also of one that is sent again: perhaps because this failed.
            self.mark(tree).await?;
            return Ok(post);
        }
    }

    async fn waiting(&self, limit: usize) -> Result<Vec<ExecutionId>, BackendError> {
        let mut waiting = Vec::new();
        for name in self.0.range("waiting/").await? {
            let tree: ExecutionId = stored::read(&name).map_err(corrupt)?;
            let key = format!("waiting/{tree}");
            let (version, _) = self.0.get(&key).await?;
            match self.head(&tree).await?.1 {
                Some(head) if !head.inbox.is_empty() => waiting.push(tree),
                // A mark that was set again meanwhile stays.
                _ => drop(self.0.put_if(&key, version, None).await?),
            }
        }
        waiting.truncate(limit);
        Ok(waiting)
    }

    async fn inbox(&self, tree: &ExecutionId, after: u64, limit: usize) -> Result<Vec<Posted>, BackendError> {
        let head = self.head(tree).await?.1;
        Ok(head.map_or_else(Vec::new, |head| head.inbox.after(after, limit)))
    }

    fn keeps_commits(&self) -> bool {
        true
    }

    async fn commits(&self, tree: &ExecutionId, from: u64, limit: usize) -> Result<Vec<Commit>, BackendError> {
        let (_, head) = self.head(tree).await?;
        let reaches = |entry: &Entry| entry.commits.first().is_some_and(|first| first.version <= from);
        let commits = self
            .log(head.as_ref(), reaches)
            .await?
            .into_iter()
            .flat_map(|entry| entry.commits);
        Ok(commits.filter(|commit| commit.version >= from).take(limit).collect())
    }

    async fn load_at(&self, tree: &ExecutionId, version: u64) -> Result<Option<Arc<TreeState>>, BackendError> {
        let (_, head) = self.head(tree).await?;
        let head = head.filter(|head| version <= head.version);
        Ok(self.state(head.as_ref(), version).await?.map(Arc::new))
    }
}

#[async_trait]
impl<K: Kv> WorkflowBackend for KvStore<K> {
    async fn put_registry(&self, registry: &RegistryDocument) -> Result<(), BackendError> {
        let json = stored::write(registry)?.into_bytes();
        self.0
            .put_if(&format!("registry/{}", registry.id), 0, Some(json))
            .await
            .map(drop)
    }

    async fn registry(&self, id: &RegistryId) -> Result<Option<Arc<RegistryDocument>>, BackendError> {
        let (_, json) = self.0.get(&format!("registry/{id}")).await?;
        json.map(|json| stored::read(&json).map_err(corrupt)).transpose()
    }

    async fn set_current(&self, _: &ExecutionId, _: &RegistryId, _: &str) -> Result<(), BackendError> {
        Ok(())
    }

    async fn delete_current(&self, _: &ExecutionId) -> Result<(), BackendError> {
        Ok(())
    }
}
