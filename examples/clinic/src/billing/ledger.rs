//! The invoices themselves, in memory: gone with the process, like everything of an example should be.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::broadcast;
use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

use super::wire::{Invoice, Item, Receipt, RecordItem};

const ITEMS_PER_INVOICE: usize = 200;
const CENTS: std::ops::RangeInclusive<i64> = -1_000_000..=1_000_000;

#[derive(Clone)]
pub(super) struct Ledger {
    invoices: Arc<Mutex<BTreeMap<String, Invoice>>>,
    changed: broadcast::Sender<Invoice>,
}

impl Default for Ledger {
    fn default() -> Self {
        Self { invoices: Arc::default(), changed: broadcast::Sender::new(256) }
    }
}

/// Patient, paid, and what for.
type Row = (&'static str, bool, &'static [(&'static str, i64)]);

impl Ledger {
    pub(super) fn with_first_invoices() -> Self {
        let rows: [Row; 6] = [
            ("p-1001", true, &[("Consultation", 4_500), ("Blood panel", 3_250)]),
            ("p-1002", false, &[("Blood sugar check", 1_800)]),
            ("p-1003", false, &[("Lung function", 7_900), ("Consultation", 4_500)]),
            ("p-1005", true, &[("Electrocardiogram", 6_400)]),
            ("p-1007", false, &[("Prenatal check-up", 5_200), ("Ultrasound", 8_900)]),
            ("p-1001", false, &[("Blood pressure", 1_200)]),
        ];
        let ledger = Self::default();
        for (number, (patient, paid, items)) in rows.into_iter().enumerate() {
            let items = items.iter().map(|&(text, cents)| Item { text: text.to_owned(), cents });
            let mut invoice = Invoice {
                id: format!("i-{}", 3001 + number),
                patient: patient.to_owned(),
                patient_name: String::new(),
                items: items.collect(),
                total_cents: 0,
                paid,
            };
            invoice.total_cents = invoice.items.iter().map(|item| item.cents).sum();
            ledger.lock().insert(invoice.id.clone(), invoice);
        }
        ledger
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Invoice>> {
        self.invoices.lock().expect("invariant: nothing panics while it holds the ledger")
    }

    pub(super) fn find(&self, id: &str) -> Result<Invoice, Status> {
        self.lock().get(id).cloned().ok_or_else(|| unknown(id))
    }

    /// Of one patient, or all.
    pub(super) fn of(&self, patient: &str) -> Vec<Invoice> {
        self.lock().values().filter(|i| patient.is_empty() || i.patient == patient).cloned().collect()
    }

    pub(super) fn changes(&self) -> broadcast::Receiver<Invoice> {
        self.changed.subscribe()
    }

    /// All items, or none.
    pub(super) fn record(&self, items: &[RecordItem]) -> Result<Receipt, Status> {
        let mut invoices = self.lock();
        let mut changed: BTreeMap<&str, Invoice> = BTreeMap::new();
        let mut cents = 0;
        for RecordItem { invoice: id, item } in items {
            let Some(item) = item else { return Err(Status::invalid_argument("a record without its item")) };
            if !(1..=80).contains(&item.text.chars().count()) || !CENTS.contains(&item.cents) {
                return Err(Status::invalid_argument("an item has 1 to 80 characters and up to 10,000.00"));
            }
            if !changed.contains_key(id.as_str()) {
                changed.insert(id, invoices.get(id).cloned().ok_or_else(|| unknown(id))?);
            }
            let invoice = changed.get_mut(id.as_str()).expect("invariant: inserted above");
            if invoice.paid {
                return Err(Status::failed_precondition(format!("{id} is paid")));
            }
            if invoice.items.len() == ITEMS_PER_INVOICE {
                return Err(Status::resource_exhausted(format!("{id} is full")));
            }
            invoice.total_cents += item.cents;
            invoice.items.push(item.clone());
            cents += item.cents;
        }
        for (id, invoice) in changed {
            invoices.insert(id.to_owned(), invoice.clone());
            // Nobody watching is no failure.
            drop(self.changed.send(invoice));
        }
        Ok(Receipt { recorded: u32::try_from(items.len()).unwrap_or(u32::MAX), cents })
    }
}

/// NOT_FOUND, with the id that was meant in a trailer of its own, for callers that handle many at once.
fn unknown(id: &str) -> Status {
    let mut status = Status::new(Code::NotFound, "no such invoice");
    let shown: String = id.chars().filter(char::is_ascii_graphic).take(32).collect();
    if let Ok(value) = MetadataValue::try_from(shown) {
        status.metadata_mut().insert("clinic-invoice", value);
    }
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(invoice: &str, cents: i64) -> RecordItem {
        RecordItem { invoice: invoice.to_owned(), item: Some(Item { text: "Bandage".to_owned(), cents }) }
    }

    #[test]
    fn items_are_recorded_all_or_none() {
        let ledger = Ledger::with_first_invoices();
        let before = ledger.find("i-3002").unwrap();
        for refused in [record("i-3001", 100), record("i-9999", 100), record("i-3002", 1_000_001)] {
            assert!(ledger.record(&[record("i-3002", 100), refused]).is_err());
            assert_eq!(ledger.find("i-3002").unwrap(), before);
        }
        let receipt = ledger.record(&[record("i-3002", 100), record("i-3002", 250)]).unwrap();
        assert_eq!((receipt.recorded, receipt.cents), (2, 350));
        assert_eq!(ledger.find("i-3002").unwrap().total_cents, before.total_cents + 350);
    }

    #[test]
    fn an_unknown_invoice_is_named_in_a_trailer() {
        let status = Ledger::default().find("i-9999").unwrap_err();
        assert_eq!(status.code(), Code::NotFound);
        assert_eq!(status.metadata().get("clinic-invoice").unwrap(), "i-9999");
    }
}
