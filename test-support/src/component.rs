//! A watching component: accepts calls of `wrpc:keyvalue/watcher` as a host does for the component,
//! and records them.
//!
//! A host receives the calls of a function through a queue group, accepts each call (the handshake),
//! runs the component concurrently with other calls, and ends the result with an empty message,
//! whether the component succeeds or traps.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_nats::{HeaderMap, Message};
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::codec::decode_all;
use crate::wait::eventually_some;

/// A call that a component received.
#[derive(Clone, Debug)]
pub struct WatcherCall {
    /// `on-set` or `on-delete`.
    pub function: String,
    pub bucket: String,
    pub key: String,
    /// The new value, for `on-set`.
    pub value: Option<Vec<u8>>,
    pub headers: HeaderMap,
    pub at: Instant,
}

/// The behavior of a component or its host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behavior {
    /// Completes every call at once.
    Prompt,
    /// Completes a call after this time.
    Slow(Duration),
    /// The host does not accept calls.
    Unresponsive,
}

/// A component that runs on a host; it stops when dropped.
pub struct Component {
    shared: Arc<Shared>,
    serving: JoinHandle<()>,
}

struct Shared {
    nats: async_nats::Client,
    calls: Mutex<Vec<WatcherCall>>,
    behavior: Mutex<Behavior>,
}

impl WatcherCall {
    /// The function, the key and the value of the call.
    pub fn summary(&self) -> (String, String, String) {
        let value = self.value.as_deref().unwrap_or_default();
        let value = String::from_utf8_lossy(value).into_owned();
        (self.function.clone(), self.key.clone(), value)
    }
}

impl Component {
    /// Runs the component with this id.
    pub async fn start(nats: &async_nats::Client, lattice: &str, id: &str) -> Self {
        let group = format!("{lattice}.{id}");
        let subject = format!("{group}.wrpc.0.0.1.>");
        let mut calls = nats
            .queue_subscribe(subject, group)
            .await
            .expect("NATS accepts subscriptions");
        nats.flush().await.expect("the NATS connection works");
        let shared = Arc::new(Shared {
            nats: nats.clone(),
            calls: Mutex::default(),
            behavior: Mutex::new(Behavior::Prompt),
        });
        let serving = tokio::spawn({
            let shared = Arc::clone(&shared);
            async move {
                while let Some(call) = calls.next().await {
                    let shared = Arc::clone(&shared);
                    tokio::spawn(async move { shared.serve(call).await });
                }
            }
        });
        Self { shared, serving }
    }

    /// Sets the behavior for subsequent calls.
    pub fn set_behavior(&self, behavior: Behavior) {
        *self
            .shared
            .behavior
            .lock()
            .expect("the lock is not poisoned") = behavior;
    }

    /// All calls received, in order.
    pub fn calls(&self) -> Vec<WatcherCall> {
        self.shared
            .calls
            .lock()
            .expect("the lock is not poisoned")
            .clone()
    }

    /// The summaries of all calls received, in order.
    pub fn call_summaries(&self) -> Vec<(String, String, String)> {
        self.calls().iter().map(WatcherCall::summary).collect()
    }

    /// The number of calls received.
    pub fn call_count(&self) -> usize {
        self.shared
            .calls
            .lock()
            .expect("the lock is not poisoned")
            .len()
    }

    /// Clears the recorded calls.
    pub fn clear_calls(&self) {
        self.shared
            .calls
            .lock()
            .expect("the lock is not poisoned")
            .clear();
    }

    /// Waits for a call about the key, and returns the latest one.
    pub async fn wait_for_call(&self, key: &str) -> WatcherCall {
        eventually_some(
            &format!("the component receives a call for {key:?}"),
            async || self.calls().into_iter().rfind(|call| call.key == key),
        )
        .await
    }
}

impl Drop for Component {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Shared {
    async fn serve(&self, call: Message) {
        let behavior = *self.behavior.lock().expect("the lock is not poisoned");
        if behavior == Behavior::Unresponsive {
            return;
        }
        let function = call
            .subject
            .rsplit('.')
            .next()
            .expect("a subject has a last token");
        let interface = "wrpc:keyvalue/watcher@0.2.0-draft";
        assert!(
            call.subject.ends_with(&format!("{interface}.{function}")),
            "kvredis calls an unknown function: {}",
            call.subject
        );
        let reply = call.reply.as_ref().expect("a call has a reply subject");
        let inbox = self.nats.new_inbox();
        let mut rest = self
            .nats
            .subscribe(format!("{inbox}.params"))
            .await
            .expect("the NATS connection works");
        self.nats
            .publish_with_reply(reply.clone(), inbox, Bytes::new())
            .await
            .expect("the NATS connection works");
        let mut params = call.payload.to_vec();
        loop {
            let frame = rest
                .next()
                .await
                .expect("the NATS connection works")
                .payload;
            if frame.is_empty() {
                break;
            }
            params.extend_from_slice(&frame);
        }
        self.record(
            function,
            &params,
            call.headers.clone().expect("a call has headers"),
        );
        if let Behavior::Slow(time) = behavior {
            sleep(time).await;
        }
        self.nats
            .publish(format!("{reply}.results"), Bytes::new())
            .await
            .expect("the NATS connection works");
    }

    fn record(&self, function: &str, params: &[u8], headers: HeaderMap) {
        let (bucket, key, value) = match function {
            "on-set" => {
                let ((bucket, key), value) =
                    decode_all::<((String, String), Vec<u8>)>(params).expect("valid parameters");
                (bucket, key, Some(value))
            }
            "on-delete" => {
                let (bucket, key) =
                    decode_all::<(String, String)>(params).expect("valid parameters");
                (bucket, key, None)
            }
            other => panic!("unknown function {other}"),
        };
        self.calls
            .lock()
            .expect("the lock is not poisoned")
            .push(WatcherCall {
                function: function.to_owned(),
                bucket,
                key,
                value,
                headers,
                at: Instant::now(),
            });
    }
}
