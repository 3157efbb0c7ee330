//! Settling deliveries, and cleaning up behind pullers and readers that are dropped.

use std::collections::VecDeque;
use std::time::Duration;

use async_nats::{Client, Subject, Subscriber};
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::connection::Connection;
use crate::bus::{BusError, BusErrorKind, Settle};

/// How long an acknowledgement may wait to be sent while the connection is lost. After it the message comes again.
const SENDING: Duration = Duration::from_secs(10);

/// How long a puller's subscription is watched for what was still on its way.
const DRAINING: Duration = Duration::from_secs(5);

const ACK: Bytes = Bytes::from_static(b"+ACK");
const GIVE_BACK: Bytes = Bytes::from_static(b"-NAK");
const PROGRESS: Bytes = Bytes::from_static(b"+WPI");

/// The end of a delivery that its consumer at the broker is told.
pub(super) struct Acknowledger {
    client: Client,
    reply: Subject,
    reaper: Reaper,
}

impl Acknowledger {
    pub(super) fn new(client: Client, reply: Subject, reaper: Reaper) -> Self {
        Self { client, reply, reaper }
    }

    async fn send(&self, payload: Bytes) -> Result<(), BusError> {
        send(&self.client, &self.reply, payload).await
    }
}

async fn send(client: &Client, reply: &Subject, payload: Bytes) -> Result<(), BusError> {
    let unsent = |error: &dyn std::fmt::Display| {
        BusError::new(BusErrorKind::Unavailable, format!("cannot settle the delivery {reply}: {error}"))
    };
    match timeout(SENDING, client.publish(reply.clone(), payload)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(unsent(&error)),
        Err(_) => Err(unsent(&"the connection to the broker is lost")),
    }
}

/// Says of a delivery that it is being worked on.
pub(super) async fn progress(client: &Client, reply: &Subject) -> Result<(), BusError> {
    send(client, reply, PROGRESS).await
}

#[async_trait]
impl Settle for Acknowledger {
    async fn ack(&self) -> Result<(), BusError> {
        self.send(ACK).await
    }

    async fn give_back(&self, delay: Duration) -> Result<(), BusError> {
        let payload = match delay.as_nanos() {
            0 => GIVE_BACK,
            delay => format!("-NAK {{\"delay\": {delay}}}").into(),
        };
        self.send(payload).await
    }

    async fn progress(&self) -> Result<(), BusError> {
        self.send(PROGRESS).await
    }

    fn dropped(&self) {
        self.reaper.give_back(self.reply.clone());
    }
}

/// What is left behind by something that was dropped, where nothing can be awaited.
enum Remains {
    /// A delivery that was not settled.
    Delivery(Subject),
    /// A puller's subscription: what is still on its way to it goes back.
    Subscription(Subscriber),
    /// A reader's consumer.
    Consumer { stream: String, name: String },
}

/// Takes what dropped deliveries, pullers and readers leave behind. Telling it never blocks and needs no runtime.
#[derive(Debug, Clone)]
pub(super) struct Reaper(mpsc::UnboundedSender<Remains>);

impl Reaper {
    /// Begins to work. It ends when nothing can be left behind any more.
    pub(super) fn start(connection: Connection) -> Self {
        let (remains, received) = mpsc::unbounded_channel();
        tokio::spawn(reap(connection, received));
        Self(remains)
    }

    pub(super) fn give_back(&self, reply: Subject) {
        // When the receiver is gone, so is the program: the ack wait brings the message back.
        let _ = self.0.send(Remains::Delivery(reply));
    }

    pub(super) fn give_back_all(&self, messages: VecDeque<async_nats::Message>) {
        for reply in messages.into_iter().filter_map(|message| message.reply) {
            self.give_back(reply);
        }
    }

    pub(super) fn retire(&self, subscriber: Subscriber) {
        let _ = self.0.send(Remains::Subscription(subscriber));
    }

    pub(super) fn delete_consumer(&self, stream: String, name: String) {
        let _ = self.0.send(Remains::Consumer { stream, name });
    }
}

async fn reap(connection: Connection, mut remains: mpsc::UnboundedReceiver<Remains>) {
    while let Some(remains) = remains.recv().await {
        match remains {
            Remains::Delivery(reply) => give_back(&connection.client, reply).await,
            Remains::Subscription(subscriber) => {
                tokio::spawn(drain(connection.client.clone(), subscriber));
            }
            Remains::Consumer { stream, name } => {
                let connection = connection.clone();
                tokio::spawn(async move {
                    // The broker removes it by itself when nobody has used it for a while.
                    if let Err(error) = connection.delete_consumer(&stream, &name).await {
                        tracing::debug!(%error, name, "cannot delete a reader's consumer");
                    }
                });
            }
        }
    }
}

async fn give_back(client: &Client, reply: Subject) {
    if let Err(error) = client.publish(reply, GIVE_BACK).await {
        tracing::debug!(%error, "cannot give a delivery back; it comes again after its ack wait");
    }
}

async fn drain(client: Client, mut subscriber: Subscriber) {
    if subscriber.drain().await.is_err() {
        return;
    }
    let drained = async {
        while let Some(message) = subscriber.next().await {
            if let (None, Some(reply)) = (message.status, message.reply) {
                give_back(&client, reply).await;
            }
        }
    };
    let _ = timeout(DRAINING, drained).await;
}
