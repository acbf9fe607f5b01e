//! A component's side of watching: takes calls of `wrpc:keyvalue/watcher` as a host does for the
//! component, and notes what it was told.
//!
//! A host takes the calls of a function from a queue group, accepts each (the handshake), runs the
//! component beside other calls, and ends the result with an empty message, whatever came of it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_nats::{HeaderMap, Message};
use bytes::Bytes;
use futures_util::StreamExt;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::codec::decode_all;
use crate::wait::eventually_some;

/// What a component was told.
#[derive(Clone, Debug)]
pub struct WatcherCall {
    /// `on-set` or `on-delete`.
    pub function: String,
    pub bucket: String,
    pub key: String,
    /// With `on-set`.
    pub value: Option<Vec<u8>>,
    pub headers: HeaderMap,
    pub at: Instant,
}

/// How a component, or its host, behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behavior {
    /// Ends every call at once.
    Prompt,
    /// Takes this long over a call.
    Slow(Duration),
    /// Its host does not accept calls.
    Unresponsive,
}

/// A component that runs on a host; it is gone when dropped.
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
    /// The call in short: function, key and value.
    pub fn summary(&self) -> (String, String, String) {
        let value = self.value.as_deref().unwrap_or_default();
        let value = String::from_utf8_lossy(value).into_owned();
        (self.function.clone(), self.key.clone(), value)
    }
}

impl Component {
    /// Runs the component of this id.
    pub async fn start(nats: &async_nats::Client, lattice: &str, id: &str) -> Self {
        let group = format!("{lattice}.{id}");
        let subject = format!("{group}.wrpc.0.0.1.>");
        let mut calls = nats
            .queue_subscribe(subject, group)
            .await
            .expect("NATS takes subscriptions");
        nats.flush().await.expect("NATS serves");
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

    /// From now on it behaves so.
    pub fn set_behavior(&self, behavior: Behavior) {
        *self
            .shared
            .behavior
            .lock()
            .expect("nobody panics with the lock") = behavior;
    }

    /// All that it was told, in order.
    pub fn calls(&self) -> Vec<WatcherCall> {
        self.shared
            .calls
            .lock()
            .expect("nobody panics with the lock")
            .clone()
    }

    /// All that it was told, in short.
    pub fn call_summaries(&self) -> Vec<(String, String, String)> {
        self.calls().iter().map(WatcherCall::summary).collect()
    }

    /// How often it was called.
    pub fn call_count(&self) -> usize {
        self.shared
            .calls
            .lock()
            .expect("nobody panics with the lock")
            .len()
    }

    /// Forgets what it was told.
    pub fn clear_calls(&self) {
        self.shared
            .calls
            .lock()
            .expect("nobody panics with the lock")
            .clear();
    }

    /// Waits until it was told of a key, and answers the latest that it was told of it.
    pub async fn wait_for_call(&self, key: &str) -> WatcherCall {
        eventually_some(&format!("the component is told of {key:?}"), async || {
            self.calls().into_iter().rfind(|call| call.key == key)
        })
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
        let behavior = *self.behavior.lock().expect("nobody panics with the lock");
        if behavior == Behavior::Unresponsive {
            return;
        }
        let function = call.subject.rsplit('.').next().expect("a last part");
        let interface = "wrpc:keyvalue/watcher@0.2.0-draft";
        assert!(
            call.subject.ends_with(&format!("{interface}.{function}")),
            "kvredis calls what no component has: {}",
            call.subject
        );
        let reply = call.reply.as_ref().expect("a call has a reply subject");
        let inbox = self.nats.new_inbox();
        let mut rest = self
            .nats
            .subscribe(format!("{inbox}.params"))
            .await
            .expect("NATS serves");
        self.nats
            .publish_with_reply(reply.clone(), inbox, Bytes::new())
            .await
            .expect("NATS serves");
        let mut params = call.payload.to_vec();
        loop {
            let piece = rest.next().await.expect("NATS serves").payload;
            if piece.is_empty() {
                break;
            }
            params.extend_from_slice(&piece);
        }
        self.record(
            function,
            &params,
            call.headers.clone().expect("there are headers"),
        );
        if let Behavior::Slow(time) = behavior {
            sleep(time).await;
        }
        self.nats
            .publish(format!("{reply}.results"), Bytes::new())
            .await
            .expect("NATS serves");
    }

    fn record(&self, function: &str, params: &[u8], headers: HeaderMap) {
        let (bucket, key, value) = match function {
            "on-set" => {
                let ((bucket, key), value) =
                    decode_all::<((String, String), Vec<u8>)>(params).expect("parameters");
                (bucket, key, Some(value))
            }
            "on-delete" => {
                let (bucket, key) = decode_all::<(String, String)>(params).expect("parameters");
                (bucket, key, None)
            }
            other => panic!("there is no function {other}"),
        };
        self.calls
            .lock()
            .expect("nobody panics with the lock")
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
