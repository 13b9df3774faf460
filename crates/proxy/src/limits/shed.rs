//! What gives way when this thread comes too late to what it has to do.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use ringfence_limit::{Priority, Shedder};

use crate::deny::{Deny, Told};

/// When whoever gave way may come again, in seconds.
const RETRY_SECS: u64 = 2;

/// The answer to what gives way.
pub(crate) fn overload(reason: impl Into<String>) -> Deny {
    let told = Told { fields: vec![("retry-after", RETRY_SECS.to_string())], ..Told::default() };
    Deny::new(503, "limit", "limit.overload", reason).told(told)
}

/// Of one thread.
#[derive(Debug, Default)]
pub(crate) struct Shed {
    shedder: RefCell<Option<(Duration, Shedder)>>,
    under_way: Rc<Cell<usize>>,
}

/// A request is under way.
#[derive(Debug)]
pub(crate) struct Busy(Rc<Cell<usize>>);

impl Shed {
    /// Things may wait so long from now on; none: nothing gives way.
    pub(crate) fn follow(&self, target: Option<Duration>) {
        let mut shedder = self.shedder.borrow_mut();
        match (&*shedder, target) {
            (Some((same, _)), Some(target)) if *same == target => {}
            _ => *shedder = target.map(|target| (target, Shedder::new(target))),
        }
    }

    /// The thread's ticker came so late: what was in the queue before it took that long.
    pub(crate) fn sample(&self, late: Duration) {
        if let Some((_, shedder)) = &mut *self.shedder.borrow_mut() {
            shedder.sample(late, self.under_way.get());
        }
    }

    /// Lets a request pass, or has it give way.
    pub(super) fn admit(&self, priority: Priority, position: Option<&str>) -> Result<Busy, Deny> {
        if let Some((_, shedder)) = &mut *self.shedder.borrow_mut()
            && !shedder.admits(priority)
        {
            let what = if priority == Priority::Sheddable { "sheddable" } else { "not critical" };
            let reason = format!(
                "the gateway has more to do than it can (things wait {} ms), and the route is {what}",
                shedder.waits().as_millis()
            );
            return Err(overload(reason).position(position.map(ToOwned::to_owned)));
        }
        self.under_way.set(self.under_way.get() + 1);
        Ok(Busy(self.under_way.clone()))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}
