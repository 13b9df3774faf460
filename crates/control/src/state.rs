//! What control remembers: addresses given out, and the last snapshot.
