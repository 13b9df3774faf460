//! How much may come in, and from whom: rates, quotas and concurrency per key, and what gives way under overload.
//!
//! No clock, no task, no I/O: whoever asks says what time it is, so tests run years in a moment. State lies behind [`Store`];
//! [`Local`] is a table of fixed size, sixteen bytes per key and limit, in which millions of strange keys cannot make a key
//! forgotten that has reached its limit.
#![forbid(unsafe_code)]

mod key;
mod limit;
mod shed;
mod store;
mod table;
mod time;

pub use self::key::{Key, Keys, Seed};
pub use self::limit::{Concurrent, Limit, MAX_QUOTA, MAX_RATE, Quota, Rate};
pub use self::shed::{Priority, Shedder};
pub use self::store::{Ask, Full, Held, Local, MAX_ASKS, MIN_BYTES, Standing, Store};
pub use self::time::Time;
