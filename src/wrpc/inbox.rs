//! One subscription for many conversations, which a token in the subject distinguishes.
//!
//! A subscription for every call would cost two messages to NATS. A conversation is registered before
//! its subject is published, so that no message can arrive too early.

use std::collections::HashMap;
use std::sync::Arc;

use async_nats::{Client, Message, Subject, SubscribeError};
use futures_util::StreamExt as _;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;
use tokio_util::task::AbortOnDropHandle;

use crate::tasks;

/// The state of a conversation.
pub(crate) trait Conversation: Send + 'static {
    /// Applies a message to the conversation's subject, or to that subject with `.suffix`. Returns
    /// true if the waiting task has to check the state.
    fn receive(&mut self, suffix: &str, message: Message) -> bool;
}

/// A subscription and the conversations that share it.
#[derive(Debug)]
pub(crate) struct Inbox<C> {
    prefix: String,
    table: Arc<Table<C>>,
    _router: AbortOnDropHandle<()>,
}

/// A conversation's place in the inbox, until it is dropped.
#[derive(Debug)]
pub(crate) struct Registration<C> {
    token: u64,
    entry: Arc<Entry<C>>,
    table: Arc<Table<C>>,
}

#[derive(Debug)]
struct Table<C>(Mutex<Entries<C>>);

#[derive(Debug)]
struct Entries<C> {
    next_token: u64,
    by_token: HashMap<u64, Arc<Entry<C>>>,
}

#[derive(Debug)]
struct Entry<C> {
    state: Mutex<C>,
    changed: Notify,
}

impl<C: Conversation> Inbox<C> {
    /// # Errors
    ///
    /// The NATS client is closed.
    pub(crate) async fn subscribe(nats: &Client) -> Result<Self, SubscribeError> {
        let prefix = nats.new_inbox();
        let mut messages = nats.subscribe(format!("{prefix}.>")).await?;
        let table = Arc::new(Table(Mutex::new(Entries {
            next_token: 0,
            by_token: HashMap::new(),
        })));
        let routes = Arc::clone(&table);
        let token_offset = prefix.len() + 1;
        let router = tasks::spawn_essential("inbox", async move {
            while let Some(message) = messages.next().await {
                routes.route(token_offset, message);
            }
        });
        Ok(Self {
            prefix,
            table,
            _router: router,
        })
    }

    /// Registers a conversation; returns the subject for its messages as well.
    pub(crate) fn register(&self, state: C) -> (Subject, Registration<C>) {
        let entry = Arc::new(Entry {
            state: Mutex::new(state),
            changed: Notify::new(),
        });
        let mut entries = self.table.lock();
        let token = entries.next_token;
        entries.next_token += 1;
        entries.by_token.insert(token, Arc::clone(&entry));
        drop(entries);
        let registration = Registration {
            token,
            entry,
            table: Arc::clone(&self.table),
        };
        (
            Subject::from(format!("{}.{token}", self.prefix)),
            registration,
        )
    }
}

impl<C> Registration<C> {
    pub(crate) fn state(&self) -> MutexGuard<'_, C> {
        self.entry.lock()
    }

    /// Waits until `condition` returns a value; it is evaluated at once and after each change.
    pub(crate) async fn wait_for<T>(&self, mut condition: impl FnMut(&mut C) -> Option<T>) -> T {
        loop {
            if let Some(value) = condition(&mut self.state()) {
                return value;
            }
            // A change since the condition was evaluated has left a permit.
            self.entry.changed.notified().await;
        }
    }
}

impl<C> Drop for Registration<C> {
    fn drop(&mut self) {
        self.table.lock().by_token.remove(&self.token);
    }
}

impl<C: Conversation> Table<C> {
    /// Passes a message to its conversation; one that has ended receives nothing more.
    fn route(&self, token_offset: usize, message: Message) {
        let subject = message.subject.clone();
        let name = subject.get(token_offset..).unwrap_or_default();
        let (token, suffix) = name.split_once('.').unwrap_or((name, ""));
        let Ok(token) = token.parse() else { return };
        let entry = self.lock().by_token.get(&token).map(Arc::clone);
        if let Some(entry) = entry
            && entry.lock().receive(suffix, message)
        {
            entry.changed.notify_one();
        }
    }
}

impl<C> Table<C> {
    fn lock(&self) -> MutexGuard<'_, Entries<C>> {
        self.0.lock()
    }
}

impl<C> Entry<C> {
    fn lock(&self) -> MutexGuard<'_, C> {
        self.state.lock()
    }
}
