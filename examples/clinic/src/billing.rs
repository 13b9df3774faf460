//! Invoices over gRPC, in all four kinds of call. Looks patients up over HTTP.

mod ledger;
pub(crate) mod wire;

use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use http::StatusCode;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Code, Request, Response, Status, Streaming};

use self::ledger::Ledger;
use self::wire::billing_server::{Billing, BillingServer};
use self::wire::{
    Invoice, InvoiceRequest, ListInvoicesRequest, Notice, NoticeKind, Receipt, RecordItem, WatchRequest,
};
use crate::client::{CallError, Callee};
use crate::passed::Passed;
use crate::records::{Contact, is_id};
use crate::serve;

const MESSAGE_BYTES: usize = 64 << 10;
const ITEMS_PER_CALL: usize = 1000;
const WATCHED: usize = 100;

struct Counter {
    ledger: Ledger,
    patients: Callee,
}

pub(crate) async fn run() -> io::Result<()> {
    let listener = serve::listen("billing", 9003).await?;
    let counter = Counter {
        ledger: Ledger::with_first_invoices(),
        patients: Callee::new("patients", 9001, Duration::from_secs(2)),
    };
    let service = BillingServer::new(counter).max_decoding_message_size(MESSAGE_BYTES);
    Server::builder()
        .concurrency_limit_per_connection(128)
        .max_concurrent_streams(128)
        .http2_keepalive_interval(Some(Duration::from_secs(30)))
        .add_service(service)
        .serve_with_incoming_shutdown(TcpIncoming::from(listener).with_nodelay(Some(true)), async {
            drop(serve::asked_to_stop().await);
            // Watches end when their callers do, and those may not: the rest ends with the process.
            tokio::spawn(async {
                tokio::time::sleep(Duration::from_secs(3)).await;
                std::process::exit(0);
            });
        })
        .await
        .map_err(io::Error::other)
}

/// With the patient's name; a patient that is unknown or may not be asked for is the call's failure.
async fn named(patients: &Callee, mut invoice: Invoice, passed: &Passed) -> Result<Invoice, Status> {
    let path = format!("/patients/{}/contact", invoice.patient);
    let found: Result<Contact, _> = patients.get(&path, passed).await;
    invoice.patient_name = found.map_err(status)?.name;
    Ok(invoice)
}

fn status(error: CallError) -> Status {
    let code = match &error {
        CallError::Refused { status: StatusCode::NOT_FOUND, .. } => Code::NotFound,
        CallError::Refused { status: StatusCode::FORBIDDEN, .. } => Code::PermissionDenied,
        CallError::Late { .. } => Code::DeadlineExceeded,
        _ => Code::Unavailable,
    };
    Status::new(code, error.to_string())
}

fn log(call: &str, passed: &Passed) {
    println!("{call} trace={}", passed.trace());
}

type Replies<T> = ReceiverStream<Result<T, Status>>;

#[tonic::async_trait]
impl Billing for Counter {
    async fn get_invoice(&self, request: Request<InvoiceRequest>) -> Result<Response<Invoice>, Status> {
        let passed = passed(&request);
        log("GetInvoice", &passed);
        let invoice = self.ledger.find(&request.into_inner().id)?;
        Ok(Response::new(named(&self.patients, invoice, &passed).await?))
    }

    type ListInvoicesStream = Replies<Invoice>;

    async fn list_invoices(
        &self,
        request: Request<ListInvoicesRequest>,
    ) -> Result<Response<Self::ListInvoicesStream>, Status> {
        let passed = passed(&request);
        log("ListInvoices", &passed);
        let invoices = self.ledger.of(&request.into_inner().patient);
        let (send, receive) = mpsc::channel(4);
        let mut invoices = invoices.into_iter();
        let Some(first) = invoices.next() else { return Ok(Response::new(ReceiverStream::new(receive))) };
        // The first name is looked up before the answer starts, so that a refusal is the call's own status.
        let first = named(&self.patients, first, &passed).await?;
        let patients = self.patients.clone();
        tokio::spawn(async move {
            let mut next = Ok(first);
            loop {
                let last = next.is_err();
                if send.send(next).await.is_err() || last {
                    return;
                }
                let Some(invoice) = invoices.next() else { return };
                next = named(&patients, invoice, &passed).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(receive)))
    }

    async fn record_items(
        &self,
        request: Request<Streaming<RecordItem>>,
    ) -> Result<Response<Receipt>, Status> {
        log("RecordItems", &passed(&request));
        let mut stream = request.into_inner();
        let mut items = Vec::new();
        while let Some(item) = stream.message().await? {
            if items.len() == ITEMS_PER_CALL {
                return Err(Status::resource_exhausted(format!("at most {ITEMS_PER_CALL} items per call")));
            }
            items.push(item);
        }
        Ok(Response::new(self.ledger.record(&items)?))
    }

    type WatchStream = Replies<Notice>;

    async fn watch(
        &self,
        request: Request<Streaming<WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        log("Watch", &passed(&request));
        let mut wishes = request.into_inner();
        let (ledger, mut changes) = (self.ledger.clone(), self.ledger.changes());
        let (send, receive) = mpsc::channel(16);
        tokio::spawn(async move {
            let mut watched = BTreeSet::new();
            loop {
                let (kind, invoices) = tokio::select! {
                    wish = wishes.message() => match wish {
                        Ok(Some(wish)) if is_id('p', &wish.patient) && watched.len() < WATCHED => {
                            watched.insert(wish.patient.clone());
                            (NoticeKind::Current, ledger.of(&wish.patient))
                        }
                        Ok(Some(_)) => {
                            let reason = format!("up to {WATCHED} patients, by ids like p-1001");
                            drop(send.send(Err(Status::invalid_argument(reason))).await);
                            return;
                        }
                        Ok(None) | Err(_) => return,
                    },
                    change = changes.recv() => match change {
                        Ok(invoice) if watched.contains(&invoice.patient) => (NoticeKind::Changed, vec![invoice]),
                        Ok(_) => continue,
                        Err(RecvError::Lagged(_)) => {
                            drop(send.send(Err(Status::data_loss("too slow for the changes"))).await);
                            return;
                        }
                        Err(RecvError::Closed) => return,
                    },
                    () = send.closed() => return,
                };
                for invoice in invoices {
                    let notice = Notice { kind: kind.into(), invoice: Some(invoice) };
                    if send.send(Ok(notice)).await.is_err() {
                        return;
                    }
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(receive)))
    }
}

fn passed<T>(request: &Request<T>) -> Passed {
    Passed::of(request.metadata().as_ref())
}

#[cfg(test)]
mod tests;
