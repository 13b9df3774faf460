//! `/live`, a WebSocket: tells every listener of each booking and reminder, and sends back what a listener says, so that
//! one can see that the way holds in both directions.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::Serialize;
use serde_json::json;
use tokio::sync::{Semaphore, broadcast};

use super::Portal;
use crate::problem::Problem;

const LISTENERS: usize = 128;
const MESSAGE_BYTES: usize = 64 << 10;
const PING: Duration = Duration::from_secs(30);

pub(super) struct Feed {
    news: broadcast::Sender<String>,
    seats: Arc<Semaphore>,
}

impl Default for Feed {
    fn default() -> Self {
        Self { news: broadcast::Sender::new(64), seats: Arc::new(Semaphore::new(LISTENERS)) }
    }
}

impl Feed {
    pub(super) fn tell(&self, event: &str, about: &impl Serialize) {
        // Nobody listening is no failure.
        drop(self.news.send(json!({ "event": event, "about": about }).to_string()));
    }
}

pub(super) async fn join(State(portal): State<Arc<Portal>>, upgrade: WebSocketUpgrade) -> Response {
    let Ok(seat) = portal.feed.seats.clone().try_acquire_owned() else {
        return Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too many listeners").into_response();
    };
    let news = portal.feed.news.subscribe();
    upgrade.max_message_size(MESSAGE_BYTES).max_frame_size(MESSAGE_BYTES).on_upgrade(async move |socket| {
        // However the conversation ends, the seat is free again.
        drop(converse(socket, news).await);
        drop(seat);
    })
}

async fn converse(mut socket: WebSocket, mut news: broadcast::Receiver<String>) -> Result<(), axum::Error> {
    socket.send(Message::text(json!({ "event": "welcome" }).to_string())).await?;
    let mut ping = tokio::time::interval(PING);
    ping.tick().await;
    loop {
        let said = tokio::select! {
            heard = socket.recv() => match heard {
                Some(Ok(echo @ (Message::Text(_) | Message::Binary(_)))) => echo,
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
                Some(Ok(Message::Close(_))) | None => return Ok(()),
                Some(Err(error)) => return Err(error),
            },
            told = news.recv() => match told {
                Ok(text) => Message::text(text),
                Err(broadcast::error::RecvError::Lagged(missed)) => {
                    Message::text(json!({ "event": "missed", "count": missed }).to_string())
                }
                Err(broadcast::error::RecvError::Closed) => return Ok(()),
            },
            _ = ping.tick() => Message::Ping(bytes::Bytes::new()),
        };
        // A listener that does not take its messages is let go.
        match tokio::time::timeout(PING, socket.send(said)).await {
            Ok(sent) => sent?,
            Err(_) => return Ok(()),
        }
    }
}
