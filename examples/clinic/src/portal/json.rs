//! The portal for programs.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query, State};
use http::StatusCode;
use serde::Deserialize;

use super::Portal;
use crate::billing::wire::Invoice;
use crate::passed::Passed;
use crate::problem::Problem;
use crate::records::{Appointment, Booking, Listed, Patient, Sent};

type Answer<T> = Result<Json<T>, Problem>;

/// Which patient's, or everybody's.
#[derive(Deserialize)]
pub(super) struct Of {
    patient: Option<String>,
}

impl Of {
    /// The patient's id, once it is known to be one.
    async fn known(self, portal: &Portal, passed: &Passed) -> Result<Option<String>, Problem> {
        Ok(match self.patient {
            Some(id) => Some(portal.patient(&id, passed).await?.id),
            None => None,
        })
    }
}

pub(super) async fn patients(State(portal): State<Arc<Portal>>, passed: Passed) -> Answer<Vec<Listed>> {
    Ok(Json(portal.list(&passed).await?))
}

pub(super) async fn patient(
    State(portal): State<Arc<Portal>>,
    Path(id): Path<String>,
    passed: Passed,
) -> Answer<Patient> {
    Ok(Json(portal.patient(&id, &passed).await?))
}

pub(super) async fn appointments(
    State(portal): State<Arc<Portal>>,
    Query(of): Query<Of>,
    passed: Passed,
) -> Answer<Vec<Appointment>> {
    let patient = of.known(&portal, &passed).await?;
    Ok(Json(portal.agenda(patient.as_deref(), &passed).await?))
}

pub(super) async fn appointment(
    State(portal): State<Arc<Portal>>,
    Path(id): Path<String>,
    passed: Passed,
) -> Answer<Appointment> {
    Ok(Json(portal.appointment(&id, &passed).await?))
}

pub(super) async fn book(
    State(portal): State<Arc<Portal>>,
    passed: Passed,
    Json(booking): Json<Booking>,
) -> Result<(StatusCode, Json<Appointment>), Problem> {
    Ok((StatusCode::CREATED, Json(portal.book(&booking, &passed).await?)))
}

pub(super) async fn remind(
    State(portal): State<Arc<Portal>>,
    Path(id): Path<String>,
    passed: Passed,
) -> Result<(StatusCode, Json<Sent>), Problem> {
    Ok((StatusCode::ACCEPTED, Json(portal.remind(&id, &passed).await?)))
}

pub(super) async fn invoices(
    State(portal): State<Arc<Portal>>,
    Query(of): Query<Of>,
    passed: Passed,
) -> Answer<Vec<Invoice>> {
    let patient = of.known(&portal, &passed).await?;
    Ok(Json(portal.billing.invoices(patient.as_deref().unwrap_or_default(), &passed).await?))
}

pub(super) async fn invoice(
    State(portal): State<Arc<Portal>>,
    Path(id): Path<String>,
    passed: Passed,
) -> Answer<Invoice> {
    Ok(Json(portal.billing.invoice(&id, &passed).await?))
}
