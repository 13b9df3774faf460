//! Sends a message to the one outside host that the fence declares, and says truthfully what came of it.

mod smtp;

use std::io;
use std::time::Duration;

use axum::extract::State;
use axum::routing::post;
use axum::{Json, Router};
use http::StatusCode;

use crate::config;
use crate::problem::Problem;
use crate::records::{Message, Sent};
use crate::serve;

/// Callers wait for the answer, so it comes soon whatever the mail server does.
const PATIENCE: Duration = Duration::from_secs(2);

pub(crate) async fn run() -> io::Result<()> {
    let app = Router::new().route("/messages", post(send)).with_state(config::smtp());
    serve::http("mailer", 9004, app).await
}

async fn send(
    State(server): State<String>,
    Json(message): Json<Message>,
) -> Result<(StatusCode, Json<Sent>), Problem> {
    smtp::check(&message).map_err(|reason| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, reason))?;
    let outcome = tokio::time::timeout(PATIENCE, smtp::deliver(&server, &message)).await;
    match outcome.unwrap_or(Err(smtp::Failure::Late)) {
        Ok(reply) => Ok((StatusCode::ACCEPTED, Json(Sent { to: message.to, server, reply }))),
        Err(failure) => {
            Err(Problem::new(StatusCode::BAD_GATEWAY, format!("not sent by {server}: {failure}")))
        }
    }
}
