//! Billing's client: gRPC over h2c.

use std::io;
use std::time::Duration;

use http::StatusCode;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

use crate::billing::wire::billing_client::BillingClient;
use crate::billing::wire::{Invoice, InvoiceRequest, ListInvoicesRequest};
use crate::config;
use crate::passed::Passed;
use crate::problem::Problem;

const MOST: usize = 500;

pub(super) struct Accounts {
    client: BillingClient<Channel>,
    patience: Duration,
}

impl Accounts {
    pub(super) fn new(patience: Duration) -> io::Result<Self> {
        let endpoint = Endpoint::from_shared(config::url("billing", 9003)).map_err(io::Error::other)?;
        let channel = endpoint
            .connect_timeout(Duration::from_secs(1))
            .timeout(patience)
            .tcp_nodelay(true)
            .connect_lazy();
        Ok(Self { client: BillingClient::new(channel).max_decoding_message_size(1 << 20), patience })
    }

    pub(super) async fn invoice(&self, id: &str, passed: &Passed) -> Result<Invoice, Problem> {
        let request = self.request(InvoiceRequest { id: id.to_owned() }, passed);
        Ok(self.client.clone().get_invoice(request).await.map_err(problem)?.into_inner())
    }

    /// Of one patient, or all.
    pub(super) async fn invoices(&self, patient: &str, passed: &Passed) -> Result<Vec<Invoice>, Problem> {
        let request = self.request(ListInvoicesRequest { patient: patient.to_owned() }, passed);
        let all = async {
            let mut stream = self.client.clone().list_invoices(request).await?.into_inner();
            let mut invoices = Vec::new();
            while let Some(invoice) = stream.message().await? {
                if invoices.len() == MOST {
                    return Err(Status::resource_exhausted("more invoices than fit on a page"));
                }
                invoices.push(invoice);
            }
            Ok(invoices)
        };
        // The channel's timeout ends with the first message; this one covers them all.
        let late = |_| Problem::new(StatusCode::GATEWAY_TIMEOUT, "billing did not answer in time");
        tokio::time::timeout(self.patience, all).await.map_err(late)?.map_err(problem)
    }

    fn request<T>(&self, message: T, passed: &Passed) -> Request<T> {
        let mut request = Request::new(message);
        passed.put_into(request.metadata_mut().as_mut());
        request.set_timeout(self.patience);
        request
    }
}

fn problem(status: Status) -> Problem {
    let code = match status.code() {
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::DeadlineExceeded | Code::Cancelled => StatusCode::GATEWAY_TIMEOUT,
        _ => StatusCode::BAD_GATEWAY,
    };
    let said: String = status.message().chars().filter(|c| !c.is_control()).take(300).collect();
    Problem::new(code, format!("billing answered {:?}: {said}", status.code()))
}
