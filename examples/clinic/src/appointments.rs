//! Who comes when. Looks patients up one by one, for their names, and has reminders mailed.

mod calendar;

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::{Path, Query, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use http::StatusCode;
use serde::Deserialize;

use crate::client::Callee;
use crate::passed::Passed;
use crate::problem::Problem;
use crate::records::{Appointment, Booking, Contact, Message, Sent, is_id};
use crate::serve;

const MOST: usize = 500;

struct Desk {
    patients: Callee,
    mailer: Callee,
    book: Mutex<Vec<Appointment>>,
}

pub(crate) async fn run() -> io::Result<()> {
    let desk = Desk {
        patients: Callee::new("patients", 9001, Duration::from_secs(2)),
        mailer: Callee::new("mailer", 9004, Duration::from_secs(3)),
        book: Mutex::new(first_page()),
    };
    let app = Router::new()
        .route("/appointments", get(list).post(make))
        .route("/appointments/{id}", get(one))
        .route("/appointments/{id}/reminder", post(remind))
        .with_state(Arc::new(desk));
    serve::http("appointments", 9002, app).await
}

fn first_page() -> Vec<Appointment> {
    let rows = [
        ("p-1002", 0, "08:30", "Blood sugar check"),
        ("p-1007", 0, "09:15", "Prenatal check-up"),
        ("p-1004", 0, "11:00", "Vaccination"),
        ("p-1001", 1, "08:45", "Blood pressure"),
        ("p-1005", 1, "10:00", "Electrocardiogram"),
        ("p-1003", 3, "14:30", "Lung function"),
        ("p-1008", 7, "16:00", "Talk"),
    ];
    let make = |(number, (patient, day, time, reason)): (usize, (&str, u64, &str, &str))| Appointment {
        id: format!("a-{}", 2001 + number),
        patient: patient.to_owned(),
        patient_name: String::new(),
        at: format!("{}T{time}", calendar::in_days(day)),
        reason: reason.to_owned(),
    };
    rows.into_iter().enumerate().map(make).collect()
}

impl Desk {
    fn book(&self) -> std::sync::MutexGuard<'_, Vec<Appointment>> {
        self.book.lock().expect("invariant: nothing panics while it holds the book")
    }

    fn find(&self, id: &str) -> Result<Appointment, Problem> {
        let found = self.book().iter().find(|a| a.id == id).cloned();
        found.ok_or_else(|| Problem::not_found("appointment"))
    }

    async fn patient(&self, id: &str, passed: &Passed) -> Result<Contact, Problem> {
        if !is_id('p', id) {
            return Err(Problem::not_found("patient"));
        }
        Ok(self.patients.get(&format!("/patients/{id}/contact"), passed).await?)
    }
}

#[derive(Deserialize)]
struct Filter {
    patient: Option<String>,
}

async fn list(
    State(desk): State<Arc<Desk>>,
    Query(filter): Query<Filter>,
    passed: Passed,
) -> Result<Json<Vec<Appointment>>, Problem> {
    let wanted = |a: &&Appointment| filter.patient.as_ref().is_none_or(|p| *p == a.patient);
    let mut page: Vec<_> = desk.book().iter().filter(wanted).cloned().collect();
    page.sort_by(|a, b| a.at.cmp(&b.at));
    let mut names: HashMap<String, String> = HashMap::new();
    for appointment in &mut page {
        if !names.contains_key(&appointment.patient) {
            let name = desk.patient(&appointment.patient, &passed).await?.name;
            names.insert(appointment.patient.clone(), name);
        }
        appointment.patient_name.clone_from(&names[&appointment.patient]);
    }
    Ok(Json(page))
}

async fn one(
    State(desk): State<Arc<Desk>>,
    Path(id): Path<String>,
    passed: Passed,
) -> Result<Json<Appointment>, Problem> {
    let mut appointment = desk.find(&id)?;
    appointment.patient_name = desk.patient(&appointment.patient, &passed).await?.name;
    Ok(Json(appointment))
}

async fn make(
    State(desk): State<Arc<Desk>>,
    passed: Passed,
    Json(wish): Json<Booking>,
) -> Result<(StatusCode, Json<Appointment>), Problem> {
    let refuse = |reason: &str| Problem::new(StatusCode::UNPROCESSABLE_ENTITY, reason);
    if !calendar::is_time(&wish.at) {
        return Err(refuse("`at` is not a time like 2031-05-04T09:30"));
    }
    if !(1..=80).contains(&wish.reason.chars().count()) || wish.reason.chars().any(char::is_control) {
        return Err(refuse("`reason` is not one line of 1 to 80 characters"));
    }
    let patient = desk.patient(&wish.patient, &passed).await?;
    let mut book = desk.book();
    if book.iter().any(|a| a.at == wish.at) {
        return Err(Problem::new(StatusCode::CONFLICT, "that time is taken"));
    }
    if book.len() >= MOST {
        return Err(Problem::new(StatusCode::INSUFFICIENT_STORAGE, "the book is full"));
    }
    let id = format!("a-{}", 2001 + book.len());
    let made =
        Appointment { id, patient: patient.id, patient_name: patient.name, at: wish.at, reason: wish.reason };
    book.push(made.clone());
    Ok((StatusCode::CREATED, Json(made)))
}

async fn remind(
    State(desk): State<Arc<Desk>>,
    Path(id): Path<String>,
    passed: Passed,
) -> Result<(StatusCode, Json<Sent>), Problem> {
    let appointment = desk.find(&id)?;
    let patient = desk.patient(&appointment.patient, &passed).await?;
    // When, never why: the mail travels in the open.
    let message = Message {
        to: patient.email,
        subject: "Your appointment".to_owned(),
        text: format!("You have an appointment on {}.\nThe clinic", appointment.at.replace('T', " at ")),
    };
    Ok((StatusCode::ACCEPTED, Json(desk.mailer.post("/messages", &message, &passed).await?)))
}
