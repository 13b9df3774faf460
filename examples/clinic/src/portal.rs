//! What the clinic shows to the outside: pages for people, the same as JSON for programs, and a live feed.

mod accounts;
mod html;
mod json;
mod live;
mod pages;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::{HeaderName, HeaderValue, Method, StatusCode, header};

use self::accounts::Accounts;
use self::live::Feed;
use crate::client::{CallError, Callee};
use crate::passed::Passed;
use crate::problem::Problem;
use crate::records::{Appointment, Booking, Listed, Patient, Sent, is_id};
use crate::serve;

/// The portal's callees and its feed.
struct Portal {
    patients: Callee,
    appointments: Callee,
    billing: Accounts,
    feed: Feed,
}

pub(crate) async fn run() -> io::Result<()> {
    let patience = Duration::from_secs(4);
    let portal = Portal {
        patients: Callee::new("patients", 9001, patience),
        appointments: Callee::new("appointments", 9002, patience),
        billing: Accounts::new(patience)?,
        feed: Feed::default(),
    };
    let app = Router::new()
        .route("/", get(pages::overview))
        .route("/patients", get(pages::patients))
        .route("/patients/{id}", get(pages::patient))
        .route("/appointments", get(pages::appointments).post(pages::book))
        .route("/appointments/{id}/reminder", post(pages::remind))
        .route("/invoices", get(pages::invoices))
        .route("/clinic.css", get(pages::style))
        .route("/live.js", get(pages::script))
        .route("/live", get(live::join))
        .route("/api/patients", get(json::patients))
        .route("/api/patients/{id}", get(json::patient))
        .route("/api/appointments", get(json::appointments).post(json::book))
        .route("/api/appointments/{id}", get(json::appointment))
        .route("/api/appointments/{id}/reminder", post(json::remind))
        .route("/api/invoices", get(json::invoices))
        .route("/api/invoices/{id}", get(json::invoice))
        .layer(middleware::from_fn(guard))
        .with_state(Arc::new(portal));
    serve::http("portal", 9000, app).await
}

/// Other people's pages may link here, but neither change anything nor listen in; and answers are for one reader.
async fn guard(request: Request, next: Next) -> Response {
    let site = request.headers().get("sec-fetch-site").map(HeaderValue::as_bytes);
    let foreign = !matches!(site, None | Some(b"same-origin" | b"none"));
    let acts = request.method() != Method::GET && request.method() != Method::HEAD;
    if foreign && (acts || request.uri().path() == "/live") {
        return Problem::new(StatusCode::FORBIDDEN, "asked for by another site").into_response();
    }
    let mut response = next.run(request).await;
    let policy = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; \
                  form-action 'self'; frame-ancestors 'none'; base-uri 'none'";
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, policy),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "same-origin"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    let fresh = HeaderName::from_static("cache-control");
    response.headers_mut().entry(fresh).or_insert(HeaderValue::from_static("no-store"));
    response
}

impl Portal {
    async fn list(&self, passed: &Passed) -> Result<Vec<Listed>, CallError> {
        self.patients.get("/patients", passed).await
    }

    async fn patient(&self, id: &str, passed: &Passed) -> Result<Patient, Problem> {
        if !is_id('p', id) {
            return Err(Problem::not_found("patient"));
        }
        Ok(self.patients.get(&format!("/patients/{id}"), passed).await?)
    }

    /// Of one patient, or all. `patient` has been looked up before: it is an id.
    async fn agenda(&self, patient: Option<&str>, passed: &Passed) -> Result<Vec<Appointment>, CallError> {
        let path =
            patient.map_or_else(|| "/appointments".to_owned(), |p| format!("/appointments?patient={p}"));
        self.appointments.get(&path, passed).await
    }

    async fn appointment(&self, id: &str, passed: &Passed) -> Result<Appointment, Problem> {
        if !is_id('a', id) {
            return Err(Problem::not_found("appointment"));
        }
        Ok(self.appointments.get(&format!("/appointments/{id}"), passed).await?)
    }

    async fn book(&self, booking: &Booking, passed: &Passed) -> Result<Appointment, Problem> {
        let made: Appointment = match self.appointments.post("/appointments", booking, passed).await {
            // What the asker got wrong is told as it is; anything else is the clinic's failure.
            Err(CallError::Refused {
                status: status @ (StatusCode::CONFLICT | StatusCode::UNPROCESSABLE_ENTITY),
                detail,
                ..
            }) => return Err(Problem::new(status, detail)),
            other => other?,
        };
        self.feed.tell("booked", &made);
        Ok(made)
    }

    async fn remind(&self, id: &str, passed: &Passed) -> Result<Sent, Problem> {
        if !is_id('a', id) {
            return Err(Problem::not_found("appointment"));
        }
        let path = format!("/appointments/{id}/reminder");
        let sent: Sent = self.appointments.post(&path, &serde_json::json!({}), passed).await?;
        self.feed.tell("reminded", &sent);
        Ok(sent)
    }
}
