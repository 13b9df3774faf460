//! What gives way when a thread has more to do than it can.
//!
//! What a thread that serves requests cannot hide is how late it comes to what it had to do: the time that things wait in its
//! queue. A few times a second that is compared with what is bearable, and the pressure grows or falls by their ratio. At pressure
//! one, nothing passes that may be shed; between one and two, part of what is normal is refused too; what is critical always passes.

use std::time::Duration;

/// What gives way, from the last to the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// It is never refused.
    Critical,
    /// It is refused when nothing is left that may be shed.
    #[default]
    Normal,
    /// It is refused first.
    Sheddable,
}

/// With fewer under way, it is not they that make a thread late.
const FEW: usize = 8;
/// How fast the pressure grows and falls with each sample.
const UP: f64 = 0.25;
const DOWN: f64 = 0.05;
/// One in ten of what is normal passes always: by them it is seen that things get better.
const MOST: f64 = 1.9;

/// Decides for one thread.
#[derive(Debug)]
pub struct Shedder {
    target: f64,
    /// The time that things wait, smoothed, in seconds.
    waits: f64,
    pressure: f64,
    /// Parts of requests that were not refused yet, by priority.
    owed: [f64; 2],
}

impl Shedder {
    /// Things may wait so long.
    #[must_use]
    pub fn new(target: Duration) -> Self {
        Self { target: target.as_secs_f64().max(1e-6), waits: 0.0, pressure: 0.0, owed: [0.0; 2] }
    }

    /// So long did the last thing wait, with so many requests under way. To be said at even intervals.
    pub fn sample(&mut self, waited: Duration, under_way: usize) {
        self.waits = (self.waits + waited.as_secs_f64()) / 2.0;
        let gradient = self.waits / self.target - 1.0;
        let step = if under_way < FEW { -DOWN } else { (gradient * 0.2).clamp(-DOWN, UP) };
        self.pressure = (self.pressure + step).clamp(0.0, MOST);
    }

    /// Whether anything is refused.
    #[must_use]
    pub fn is_calm(&self) -> bool {
        self.pressure == 0.0
    }

    /// Whether a request passes.
    pub fn admits(&mut self, priority: Priority) -> bool {
        let (refused, owed) = match priority {
            _ if self.is_calm() => return true,
            Priority::Critical => return true,
            Priority::Normal => ((self.pressure - 1.0).max(0.0), &mut self.owed[0]),
            Priority::Sheddable => (self.pressure.min(1.0), &mut self.owed[1]),
        };
        *owed += refused;
        if *owed >= 1.0 {
            *owed -= 1.0;
            return false;
        }
        true
    }

    /// The time that things wait, smoothed.
    #[must_use]
    pub fn waits(&self) -> Duration {
        Duration::from_secs_f64(self.waits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A thread that serves `speed` requests per second, asked `load` times as many, a third of each priority, on a clock of its
    /// own. How long things wait at the end, and how many of each priority passed in the last half, of how many.
    fn serve(shedder: &mut Shedder, speed: f64, load: f64, seconds: u32) -> (f64, [u32; 3], u32) {
        let (mut queue, mut passed, mut asked) = (0.0, [0; 3], 0);
        let per_sample = (speed * load / 10.0) as u32;
        for sample in 0..seconds * 10 {
            for n in 0..per_sample {
                let priority = [Priority::Critical, Priority::Normal, Priority::Sheddable][n as usize % 3];
                let admitted = shedder.admits(priority);
                queue += f64::from(u8::from(admitted));
                if sample >= seconds * 5 {
                    asked += u32::from(n % 3 == 0);
                    passed[n as usize % 3] += u32::from(admitted);
                }
            }
            queue = f64::max(queue - speed / 10.0, 0.0);
            shedder.sample(Duration::from_secs_f64(queue / speed), queue as usize);
        }
        (queue / speed, passed, asked)
    }

    #[test]
    fn in_calm_everything_passes() {
        let mut shedder = Shedder::new(Duration::from_millis(50));
        let (waits, passed, asked) = serve(&mut shedder, 1000.0, 0.9, 20);
        assert!(shedder.is_calm() && waits == 0.0);
        assert_eq!(passed, [asked; 3]);
    }

    #[test]
    fn what_may_be_shed_gives_way_first_and_what_is_critical_never() {
        let mut shedder = Shedder::new(Duration::from_millis(50));
        // A quarter more than it can: less than what may be shed.
        let (waits, [critical, normal, sheddable], asked) = serve(&mut shedder, 3000.0, 1.25, 120);
        assert!(waits < 0.5, "things wait {waits} s");
        assert_eq!(critical, asked);
        assert!(f64::from(normal) > 0.95 * f64::from(asked), "{normal} of {asked}");
        let share = f64::from(sheddable) / f64::from(asked);
        assert!((0.2..0.6).contains(&share), "{share} of what may be shed passed; two fifths fit");

        // Twice as much as it can: what is normal gives way in part.
        let (waits, [critical, normal, sheddable], asked) = serve(&mut shedder, 3000.0, 2.0, 120);
        assert!(waits < 1.0, "things wait {waits} s");
        assert_eq!(critical, asked);
        assert!(sheddable < asked / 20, "{sheddable} of {asked}");
        let share = f64::from(normal) / f64::from(asked);
        assert!((0.3..0.7).contains(&share), "{share} of what is normal passed; half fits");

        // And when it is over, all is as it was.
        serve(&mut shedder, 3000.0, 0.5, 20);
        assert!(shedder.is_calm());
    }

    #[test]
    fn a_late_thread_with_little_to_do_sheds_nothing() {
        let mut shedder = Shedder::new(Duration::from_millis(50));
        for _ in 0..1000 {
            shedder.sample(Duration::from_secs(1), FEW - 1);
        }
        assert!(shedder.is_calm() && shedder.admits(Priority::Sheddable));
    }
}
