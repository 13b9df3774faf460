//! The portal for people. A callee that fails costs its own part of the page, and the page says why.

use std::fmt::Display;
use std::sync::Arc;

use axum::Form;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Redirect, Response};
use http::{StatusCode, header};

use super::Portal;
use super::html::Html;
use crate::billing::wire::Invoice;
use crate::passed::Passed;
use crate::problem::Problem;
use crate::records::{Appointment, Booking, Listed, Patient};

const HEAD: &str = "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
<link rel=\"stylesheet\" href=\"/clinic.css\"><title>Clinic</title></head><body><header><b>Clinic</b><nav>\
<a href=\"/\">Today</a><a href=\"/patients\">Patients</a><a href=\"/appointments\">Appointments</a>\
<a href=\"/invoices\">Invoices</a></nav></header><main>";
const FOOT: &str = "</main><footer>All patients are synthetic. ";
const END: &str = "</footer><script src=\"/live.js\"></script></body></html>";

pub(super) async fn overview(State(portal): State<Arc<Portal>>, passed: Passed) -> Response {
    let (agenda, patients, invoices) = tokio::join!(
        portal.agenda(None, &passed),
        portal.list(&passed),
        portal.billing.invoices("", &passed)
    );
    let next = agenda.map(|agenda| agenda_table(agenda.into_iter().take(4).collect()));
    let open = invoices.map(|all| invoice_table(all.into_iter().filter(|i| !i.paid).collect()));
    let body = Html::fixed("<h1>Today</h1>")
        .then(section("Next appointments", next))
        .then(section("Open invoices", open))
        .then(section("Patients", patients.map(patient_table)));
    page(StatusCode::OK, body, &passed)
}

pub(super) async fn patients(State(portal): State<Arc<Portal>>, passed: Passed) -> Response {
    let list = portal.list(&passed).await.map(patient_table);
    page(StatusCode::OK, Html::fixed("<h1>Patients</h1>").then(section("", list)), &passed)
}

pub(super) async fn patient(
    State(portal): State<Arc<Portal>>,
    Path(id): Path<String>,
    passed: Passed,
) -> Response {
    let patient = match portal.patient(&id, &passed).await {
        Ok(patient) => patient,
        Err(problem) => return failure(&problem, &passed),
    };
    let (agenda, invoices) = tokio::join!(
        portal.agenda(Some(&patient.id), &passed),
        portal.billing.invoices(&patient.id, &passed)
    );
    let body = Html::element("h1", patient.name.as_str().into())
        .then(facts(&patient))
        .then(section("Appointments", agenda.map(agenda_table)))
        .then(booking_form(&patient.id))
        .then(section("Invoices", invoices.map(invoice_table)));
    page(StatusCode::OK, body, &passed)
}

pub(super) async fn appointments(State(portal): State<Arc<Portal>>, passed: Passed) -> Response {
    let agenda = portal.agenda(None, &passed).await.map(agenda_table);
    page(StatusCode::OK, Html::fixed("<h1>Appointments</h1>").then(section("", agenda)), &passed)
}

pub(super) async fn book(
    State(portal): State<Arc<Portal>>,
    passed: Passed,
    Form(booking): Form<Booking>,
) -> Response {
    match portal.book(&booking, &passed).await {
        Ok(made) => Redirect::to(&format!("/patients/{}", made.patient)).into_response(),
        Err(problem) => failure(&problem, &passed),
    }
}

pub(super) async fn remind(
    State(portal): State<Arc<Portal>>,
    Path(id): Path<String>,
    passed: Passed,
) -> Response {
    match portal.remind(&id, &passed).await {
        Ok(sent) => {
            let said = format!("{} took the reminder for {}: {}", sent.server, sent.to, sent.reply);
            let body = Html::fixed("<h1>Reminder sent</h1>").then(Html::element("p", said.into()));
            page(StatusCode::ACCEPTED, body, &passed)
        }
        Err(problem) => failure(&problem, &passed),
    }
}

pub(super) async fn invoices(State(portal): State<Arc<Portal>>, passed: Passed) -> Response {
    let list = portal.billing.invoices("", &passed).await.map(invoice_table);
    page(StatusCode::OK, Html::fixed("<h1>Invoices</h1>").then(section("", list)), &passed)
}

pub(super) async fn style() -> impl IntoResponse {
    file("text/css; charset=utf-8", include_str!("../../assets/clinic.css"))
}

pub(super) async fn script() -> impl IntoResponse {
    file("text/javascript; charset=utf-8", include_str!("../../assets/live.js"))
}

fn file(kind: &'static str, content: &'static str) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "max-age=300")], content)
}

fn page(status: StatusCode, body: Html, passed: &Passed) -> Response {
    let trace = match passed.trace() {
        "-" => Html::default(),
        id => Html::from(format!("Trace {id}")),
    };
    let page = Html::fixed(HEAD).then(body).then(Html::fixed(FOOT)).then(trace).then(Html::fixed(END));
    (status, [(header::CONTENT_TYPE, "text/html; charset=utf-8")], page.into_string()).into_response()
}

fn failure(problem: &Problem, passed: &Passed) -> Response {
    let title = problem.status.canonical_reason().unwrap_or("Failed");
    page(problem.status, Html::element("h1", title.into()).then(notice(&problem.detail)), passed)
}

fn notice(reason: impl Display) -> Html {
    Html::fixed("<p class=\"notice\">").then(reason.to_string()).then(Html::fixed("</p>"))
}

fn section(title: &'static str, content: Result<Html, impl Into<Problem>>) -> Html {
    let content = content.unwrap_or_else(|error| notice(error.into().detail));
    let title = if title.is_empty() { Html::default() } else { Html::element("h2", title.into()) };
    Html::element("section", title.then(content))
}

fn patient_table(patients: Vec<Listed>) -> Html {
    let row = |p: Listed| vec![Html::link(format!("/patients/{}", p.id), p.name), p.born.into(), p.id.into()];
    Html::table(&[("Name", ""), ("Born", ""), ("Number", "n")], patients.into_iter().map(row).collect())
}

fn agenda_table(agenda: Vec<Appointment>) -> Html {
    let row = |a: Appointment| {
        vec![
            a.at.replace('T', " ").into(),
            Html::link(format!("/patients/{}", a.patient), a.patient_name),
            a.reason.into(),
            Html::button(format!("/appointments/{}/reminder", a.id), "Remind"),
        ]
    };
    let heads = [("When", ""), ("Patient", ""), ("Why", ""), ("", "n")];
    Html::table(&heads, agenda.into_iter().map(row).collect())
}

fn invoice_table(invoices: Vec<Invoice>) -> Html {
    let row = |i: Invoice| {
        let items: Vec<String> = i.items.into_iter().map(|item| item.text).collect();
        vec![
            i.id.into(),
            Html::link(format!("/patients/{}", i.patient), i.patient_name),
            items.join(", ").into(),
            money(i.total_cents).into(),
            if i.paid { "paid" } else { "open" }.into(),
        ]
    };
    let heads = [("Invoice", ""), ("Patient", ""), ("For", ""), ("Amount", "n"), ("", "n")];
    Html::table(&heads, invoices.into_iter().map(row).collect())
}

fn facts(patient: &Patient) -> Html {
    let or_none = |list: &[String]| if list.is_empty() { "none known".to_owned() } else { list.join(", ") };
    let rows = [
        ("Born", patient.born.clone()),
        ("Blood group", patient.blood_group.clone()),
        ("Conditions", or_none(&patient.conditions)),
        (
            "Laboratory",
            or_none(&patient.results.iter().map(|r| format!("{} {}", r.test, r.value)).collect::<Vec<_>>()),
        ),
        ("Allergies", or_none(&patient.allergies)),
        ("Mail", patient.email.clone()),
    ];
    let pair = |(name, value): (&str, String)| {
        Html::element("dt", name.into()).then(Html::element("dd", value.into()))
    };
    Html::element("dl", rows.into_iter().map(pair).fold(Html::default(), Html::then))
}

fn booking_form(patient: &str) -> Html {
    Html::fixed("<form class=\"book\" method=\"post\" action=\"/appointments\"><input type=\"hidden\" name=\"patient\" value=\"")
        .then(patient)
        .then(Html::fixed(
            "\"><input type=\"datetime-local\" name=\"at\" required aria-label=\"When\">\
             <input name=\"reason\" maxlength=\"80\" placeholder=\"Reason\" required aria-label=\"Why\">\
             <button>Book</button></form>",
        ))
}

fn money(cents: i64) -> String {
    let sign = if cents < 0 { "-" } else { "" };
    format!("{sign}{}.{:02}", (cents / 100).abs(), (cents % 100).abs())
}

#[cfg(test)]
mod tests {
    use super::money;

    #[test]
    fn money_has_two_places_and_one_sign() {
        assert_eq!(
            [money(0), money(5), money(123_456), money(-250), money(-5)],
            ["0.00", "0.05", "1234.56", "-2.50", "-0.05"]
        );
    }
}
